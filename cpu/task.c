#include "cpu/task.h"
#include "cpu/breakpoint.h"
#include "cpu/v86.h"

/* The part of a TSS that a switch saves and loads. */
struct task_state {
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[6], ldt;
    bool trap;
};

/* Offsets. In both forms the registers follow EFLAGS, then the segment registers. */
struct tss_layout {
    uint8_t eip, size, seg, seg_count, ldt;
    uint32_t min_limit;
};
static const struct tss_layout layouts[2] = {
    {.eip = 0x0e, .size = 2, .seg = 0x22, .seg_count = 4, .ldt = 0x2a, .min_limit = 0x2b},
    {.eip = 0x20, .size = 4, .seg = 0x48, .seg_count = 6, .ldt = 0x60, .min_limit = 0x67},
};
#define TSS32_CR3  0x1c
#define TSS32_TRAP 0x64

static bool is_tss32(unsigned attr)
{
    return attr & 8;
}

static const struct tss_layout *layout_of(unsigned attr)
{
    return &layouts[is_tss32(attr)];
}

/* ---- the TSS as memory ---- */

static uint64_t tss_get(struct vcpu *v, uint64_t base, unsigned off, unsigned size)
{
    return lin_load_sys(v, NULL, (uint32_t)(base + off), size);
}

static void tss_put(struct vcpu *v, uint64_t base, unsigned off, unsigned size, uint64_t value)
{
    lin_store_sys(v, NULL, (uint32_t)(base + off), value, size);
}

static void save_state(struct vcpu *v, uint64_t eip, uint64_t eflags)
{
    const struct tss_layout *l = layout_of(v->tr.attr);
    uint64_t base = v->tr.base;
    unsigned stride = l->size;
    tss_put(v, base, l->eip, l->size, eip);
    tss_put(v, base, l->eip + l->size, l->size, eflags);
    for (unsigned r = 0; r < 8; r++)
        tss_put(v, base, l->eip + (2 + r) * l->size, l->size, v->gpr[r]);
    for (unsigned s = 0; s < l->seg_count; s++)
        tss_put(v, base, l->seg + s * stride, 2, v->seg[s].sel);
}

static void load_state(struct vcpu *v, uint64_t base, unsigned attr, struct task_state *t)
{
    const struct tss_layout *l = layout_of(attr);
    memset(t, 0, sizeof *t);
    t->eip = (uint32_t)tss_get(v, base, l->eip, l->size);
    t->eflags = (uint32_t)tss_get(v, base, l->eip + l->size, l->size);
    for (unsigned r = 0; r < 8; r++)
        t->gpr[r] = (uint32_t)tss_get(v, base, l->eip + (2 + r) * l->size, l->size);
    for (unsigned s = 0; s < l->seg_count; s++)
        t->seg[s] = (uint16_t)tss_get(v, base, l->seg + s * l->size, 2);
    t->ldt = (uint16_t)tss_get(v, base, l->ldt, 2);
    if (is_tss32(attr)) {
        t->cr3 = (uint32_t)tss_get(v, base, TSS32_CR3, 4);
        t->trap = tss_get(v, base, TSS32_TRAP, 2) & 1;
    }
}

static void set_busy(struct vcpu *v, uint64_t descriptor, bool busy)
{
    uint64_t b = lin_load_sys(v, NULL, descriptor + 5, 1);
    lin_store_sys(v, NULL, descriptor + 5, busy ? b | 2 : b & ~2ull, 1);
}

/* ---- the new task's segments: faults are #TS in the new task ---- */

static void load_ldt(struct vcpu *v, uint16_t sel)
{
    struct descriptor d;
    v->ldtr = (struct segment){.sel = sel, .unusable = true};
    if (sel_is_null(sel))
        return;
    if (sel & 4)
        vcpu_raise_error(v, NULL, EXC_TS, sel & 0xfffcu);
    desc_read(v, NULL, sel, EXC_TS, &d);
    unsigned attr = desc_attr(d.raw);
    if ((attr & (ATTR_S | ATTR_TYPE)) != SYS_LDT || !(attr & SEG_ATTR_P))
        vcpu_raise_error(v, NULL, EXC_TS, sel & 0xfffcu);
    v->ldtr = (struct segment){
        .sel = sel, .base = desc_base(d.raw), .limit = desc_limit(d.raw), .attr = (uint16_t)desc_attr(d.raw)};
}

static void load_code(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
    uint32_t err = sel & 0xfffcu;
    if (sel_is_null(sel))
        vcpu_raise_error(v, NULL, EXC_TS, 0);
    desc_read(v, NULL, sel, EXC_TS, d);
    unsigned attr = desc_attr(d->raw), dpl = ATTR_DPL(attr), rpl = sel & 3u;
    if (!attr_is_code(attr) || (attr & ATTR_CONFORMING ? dpl > rpl : dpl != rpl))
        vcpu_raise_error(v, NULL, EXC_TS, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, NULL, EXC_NP, err);
    desc_set_accessed(v, NULL, d);
    segment_set(v, SEG_CS, sel, d->raw);
}

static void load_data(struct vcpu *v, int seg, uint16_t sel)
{
    struct descriptor d;
    uint32_t err = sel & 0xfffcu;
    if (sel_is_null(sel))
        return; /* it is null already */
    desc_read(v, NULL, sel, EXC_TS, &d);
    unsigned attr = desc_attr(d.raw), dpl = ATTR_DPL(attr);
    bool readable = attr_is_data(attr) || (attr_is_code(attr) && (attr & ATTR_RW));
    bool conforming = attr_is_code(attr) && (attr & ATTR_CONFORMING);
    if (!readable || (!conforming && ((sel & 3u) > dpl || v->cpl > dpl)))
        vcpu_raise_error(v, NULL, EXC_TS, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, NULL, EXC_NP, err);
    desc_set_accessed(v, NULL, &d);
    segment_set(v, seg, sel, d.raw);
}

static void load_protected_segments(struct vcpu *v, const struct task_state *t)
{
    struct descriptor d;
    unsigned cpl = t->seg[SEG_CS] & 3u;
    load_code(v, t->seg[SEG_CS], &d);
    stack_segment_check(v, NULL, t->seg[SEG_SS], cpl, EXC_TS, &d);
    segment_set(v, SEG_SS, t->seg[SEG_SS], d.raw);
    v->cpl = cpl;
    load_data(v, SEG_DS, t->seg[SEG_DS]);
    load_data(v, SEG_ES, t->seg[SEG_ES]);
    load_data(v, SEG_FS, t->seg[SEG_FS]);
    load_data(v, SEG_GS, t->seg[SEG_GS]);
}

/* ---- the switch ---- */

/* The TSS's PDBR, if the TSS has one and paging uses it. */
static void load_cr3(struct vcpu *v, const struct task_state *t, unsigned attr)
{
    uint64_t pdpte[4];
    if (!is_tss32(attr) || !(v->cr0 & CR0_PG))
        return;
    if (v->cr4 & CR4_PAE) {
        if (!mmu_load_pdptes(v->mv, t->cr3, pdpte))
            vcpu_raise_error(v, NULL, EXC_GP, 0);
        memcpy(v->pdpte, pdpte, sizeof pdpte);
    }
    v->cr3 = t->cr3;
    mode_load_mmu(v);
    mmu_guest_flush(v->mv, GUEST_FLUSH_NONGLOBAL, 0);
}

/* The registers of the new task, all but the hidden parts of segments: none is usable, and CPL is 3 until CS and SS are
 * loaded, so that the handler of a fault gets a stack of its own. */
static void enter_task(struct vcpu *v, const struct task_state *t, uint64_t flags)
{
    for (unsigned r = 0; r < 8; r++)
        v->gpr[r] = t->gpr[r];
    v->rip = t->eip;
    v->cpl = 3;
    for (int s = SEG_ES; s <= SEG_GS; s++)
        segment_set_null(v, s, t->seg[s]);
    v->ldtr = (struct segment){.sel = t->ldt, .unusable = true};
    v->cr0 |= CR0_TS;
    v->dr[7] &= ~0x155ull; /* the local enables */
    vcpu_set_rflags(v, flags);
    v->int_shadow = v->shadow_is_movss = false;
    v->attn |= ATTN_BOUNDARY;
}

static void load_segments(struct vcpu *v, const struct task_state *t)
{
    load_ldt(v, t->ldt);
    if (v->rflags & FLAG_VM)
        v86_set_segments(v, t->seg);
    else
        load_protected_segments(v, t);
}

struct task_switch {
    enum task_cause cause;
    uint16_t sel; /* of the new TSS */
    struct descriptor tss;
    uint64_t eip, eflags; /* to be saved */
};

/* Reads of the new TSS and writes of the old one, and the descriptors' busy bits, will not fault after this. */
static void probe(struct vcpu *v, const struct task_switch *s, uint64_t old_descriptor)
{
    const struct tss_layout *was = layout_of(v->tr.attr), *is = layout_of(desc_attr(s->tss.raw));
    uint32_t base = desc_base(s->tss.raw);
    if (desc_limit(s->tss.raw) < is->min_limit)
        vcpu_raise_error(v, NULL, EXC_TS, s->sel & 0xfffcu);
    if (v->tr.unusable || v->tr.limit < was->min_limit)
        vcpu_raise_error(v, NULL, EXC_TS, v->tr.sel & 0xfffcu);
    lin_probe_sys(v, NULL, (uint32_t)v->tr.base, was->min_limit + 1, true);
    lin_probe_sys(v, NULL, base, is->min_limit + 1, false);
    if (s->cause == TASK_CALL)
        lin_probe_sys(v, NULL, base, 2, true);
    if (s->cause != TASK_CALL)
        lin_probe_sys(v, NULL, old_descriptor + 5, 1, true);
    if (s->cause != TASK_IRET)
        lin_probe_sys(v, NULL, s->tss.linear + 5, 1, true);
}

static void switch_to(struct vcpu *v, const struct task_switch *s)
{
    unsigned attr = desc_attr(s->tss.raw);
    uint32_t base = desc_base(s->tss.raw), old_descriptor = (uint32_t)(v->gdtr.base + (v->tr.sel & 0xfff8u));
    struct task_state t;
    probe(v, s, old_descriptor);
    if (s->cause != TASK_CALL)
        set_busy(v, old_descriptor, false);
    save_state(v, s->eip, s->cause == TASK_IRET ? s->eflags & ~FLAG_NT : s->eflags);
    if (s->cause == TASK_CALL)
        tss_put(v, base, 0, 2, v->tr.sel);
    load_state(v, base, attr, &t);
    if (s->cause != TASK_IRET)
        set_busy(v, s->tss.linear, true);
    v->tr =
        (struct segment){.sel = s->sel, .base = base, .limit = desc_limit(s->tss.raw), .attr = (uint16_t)(attr | 2)};
    enter_task(v, &t, s->cause == TASK_CALL ? t.eflags | FLAG_NT : t.eflags);
    load_cr3(v, &t, attr);
    vcpu_mode_changed(v);
    load_segments(v, &t);
    vcpu_mode_changed(v);
    if (t.trap)
        v->pending_dbg |= 1ull << 15; /* BT: before the first instruction */
    if (v->rip > v->seg[SEG_CS].limit)
        vcpu_raise_error(v, NULL, EXC_GP, 0);
}

/* ---- the ways to a TSS ---- */

/* `sel` must name a TSS in the GDT that is available (busy: IRET). */
static void find_tss(struct vcpu *v, uint16_t sel, bool busy, enum exception vector, struct descriptor *d)
{
    uint32_t err = sel & 0xfffcu;
    if (sel & 4 || sel_is_null(sel))
        vcpu_raise_error(v, NULL, vector, err);
    desc_read(v, NULL, sel, vector, d);
    unsigned attr = desc_attr(d->raw), type = attr & (ATTR_S | ATTR_TYPE);
    bool ok = busy ? type == SYS_TSS_BUSY || type == SYS_TSS16_BUSY : type == SYS_TSS || type == SYS_TSS16;
    if (!ok)
        vcpu_raise_error(v, NULL, vector, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, NULL, EXC_NP, err);
}

/* The instruction's own faults come as of now; what follows a switch is the new task's. Returns the address behind it.
 */
static uint64_t begin(struct vcpu *v, const struct insn *i)
{
    vcpu_sync(v, i);
    v->synced = 0;
    v->rip = insn_rip(v, i);
    v->exit_slot = 2;
    return (uint32_t)insn_next_rip(v, i);
}

void task_transfer(struct vcpu *v, const struct insn *i, enum task_cause cause, uint16_t sel, uint64_t raw)
{
    unsigned attr = desc_attr(raw), dpl = ATTR_DPL(attr);
    uint32_t err = sel & 0xfffcu;
    struct task_switch s = {.cause = cause, .sel = sel};
    s.eip = begin(v, i);
    if (dpl < v->cpl || dpl < (sel & 3u))
        vcpu_raise_error(v, NULL, EXC_GP, err);
    if ((attr & ATTR_TYPE) == SYS_TASK_GATE) {
        if (!(attr & SEG_ATTR_P))
            vcpu_raise_error(v, NULL, EXC_NP, err);
        s.sel = (uint16_t)(raw >> 16);
    }
    find_tss(v, s.sel, false, EXC_GP, &s.tss);
    s.eflags = vcpu_rflags(v);
    switch_to(v, &s);
    clock_retire(v->clock, 1);
}

void task_return(struct vcpu *v, const struct insn *i)
{
    struct task_switch s = {.cause = TASK_IRET};
    s.eip = begin(v, i);
    if (v->tr.unusable || v->tr.limit < 1)
        vcpu_raise_error(v, NULL, EXC_TS, v->tr.sel & 0xfffcu);
    s.sel = (uint16_t)tss_get(v, v->tr.base, 0, 2);
    find_tss(v, s.sel, true, EXC_TS, &s.tss);
    s.eflags = vcpu_rflags(v);
    switch_to(v, &s);
    clock_retire(v->clock, 1);
}

/* The error code goes onto the new task's stack, as wide as its TSS. */
static void push_error(struct vcpu *v, uint32_t error)
{
    struct frame_stack s;
    uint64_t frame[1] = {error};
    frame_stack_current(v, &s);
    frame_push(v, NULL, &s, frame, 1, is_tss32(v->tr.attr) ? 4 : 2);
    frame_set_rsp(v, s.rsp);
}

void task_event(struct vcpu *v, uint16_t sel, const struct task_event *ev)
{
    struct task_switch s = {.cause = TASK_CALL, .sel = sel, .eip = ev->rip, .eflags = ev->flags};
    find_tss(v, sel, false, EXC_GP, &s.tss);
    switch_to(v, &s);
    if (ev->has_error)
        push_error(v, ev->error);
}
