#include "cpu/smm.h"
#include "cpu/breakpoint.h"
#include "cpu/cpuid.h"
#include "cpu/monitor.h"
#include "cpu/optable.h"

#define SMM_ENTRY        0x8000u
#define REVISION_64      0x00020064u
#define REVISION_32      0x00020000u
#define REVISION_REBASES 0x00020000u
#define OFF_REVISION     0x7efcu
#define FLAT_ATTR        (ATTR_G | SEG_ATTR_P | ATTR_S | ATTR_RW | ATTR_ACCESSED)
#define NULL_BIT         0x1000u /* in a saved attribute: the segment is unusable (bits 8..11 are not attributes) */

/* ---- the state save area: one list of fields, walked by both directions ---- */

struct area {
    struct vcpu *v;
    bool save;
};

static void io(const struct area *a, unsigned off, void *p, unsigned size)
{
    struct vcpu *v = a->v;
    mem_access(v->mem, v->mv->regs.as, (uint32_t)(v->smbase + SMM_ENTRY + off), p, size, MEM_GUEST, a->save,
               (int)v->index);
}

#define IO(off, lvalue, size)                                                                                          \
    do {                                                                                                               \
        uint64_t x_ = (uint64_t)(lvalue);                                                                              \
        if (!a->save)                                                                                                  \
            x_ = 0;                                                                                                    \
        io(a, (off), &x_, (size));                                                                                     \
        (lvalue) = (__typeof__(lvalue))x_;                                                                             \
    } while (0)

/* What is gathered before anything is committed. */
struct smm_state {
    uint64_t gpr[16], rip, rflags, dr6, dr7, cr0, cr3, cr4, efer;
    struct segment seg[6], ldtr, tr;
    struct desc_table gdtr, idtr;
    uint32_t smbase, revision;
    uint8_t halted;
};

static unsigned packed_attr(const struct segment *s)
{
    return (s->attr & 0xf0ffu) | (s->unusable ? NULL_BIT >> 4 : 0);
}

static void unpack_attr(struct segment *s, unsigned attr)
{
    s->unusable = attr & NULL_BIT >> 4;
    s->attr = attr & 0xf0ffu;
}

static void io_segment_64(const struct area *a, unsigned off, struct segment *s)
{
    unsigned attr = packed_attr(s);
    IO(off, s->sel, 2);
    IO(off + 2, attr, 2);
    IO(off + 4, s->limit, 4);
    IO(off + 8, s->base, 8);
    unpack_attr(s, attr);
}

static void io_table_64(const struct area *a, unsigned off, struct desc_table *t)
{
    IO(off + 4, t->limit, 2);
    IO(off + 8, t->base, 8);
}

static void io_state_64(const struct area *a, struct smm_state *s)
{
    for (unsigned k = 0; k < 6; k++)
        io_segment_64(a, 0x7e00 + 16 * k, &s->seg[k]);
    io_table_64(a, 0x7e60, &s->gdtr);
    io_segment_64(a, 0x7e70, &s->ldtr);
    io_table_64(a, 0x7e80, &s->idtr);
    io_segment_64(a, 0x7e90, &s->tr);
    IO(0x7ec9, s->halted, 1);
    IO(0x7ed0, s->efer, 8);
    IO(OFF_REVISION, s->revision, 4);
    IO(0x7f00, s->smbase, 4);
    IO(0x7f48, s->cr4, 4);
    IO(0x7f50, s->cr3, 8);
    IO(0x7f58, s->cr0, 4);
    IO(0x7f60, s->dr7, 4);
    IO(0x7f68, s->dr6, 4);
    IO(0x7f70, s->rflags, 4);
    IO(0x7f78, s->rip, 8);
    for (unsigned r = 0; r < 16; r++)
        IO(0x7ff8 - 8 * r, s->gpr[r], 8);
}

static void io_hidden_32(const struct area *a, unsigned off, struct segment *s)
{
    unsigned attr = packed_attr(s) << 8;
    IO(off, attr, 4);
    IO(off + 4, s->limit, 4);
    IO(off + 8, s->base, 4);
    unpack_attr(s, attr >> 8);
}

static void io_state_32(const struct area *a, struct smm_state *s)
{
    IO(0x7ffc, s->cr0, 4);
    IO(0x7ff8, s->cr3, 4);
    IO(0x7ff4, s->rflags, 4);
    IO(0x7ff0, s->rip, 4);
    for (unsigned r = 0; r < 8; r++)
        IO(0x7fd0 + 4 * r, s->gpr[r], 4);
    IO(0x7fcc, s->dr6, 4);
    IO(0x7fc8, s->dr7, 4);
    IO(0x7fc4, s->tr.sel, 2);
    io_hidden_32(a, 0x7f5c, &s->tr);
    IO(0x7fc0, s->ldtr.sel, 2);
    io_hidden_32(a, 0x7f78, &s->ldtr);
    IO(0x7f74, s->gdtr.base, 4);
    IO(0x7f70, s->gdtr.limit, 2);
    IO(0x7f58, s->idtr.base, 4);
    IO(0x7f54, s->idtr.limit, 2);
    for (unsigned k = 0; k < 6; k++) {
        IO(0x7fa8 + 4 * k, s->seg[k].sel, 2);
        io_hidden_32(a, k < 3 ? 0x7f84 + 12 * k : 0x7f2c + 12 * (k - 3), &s->seg[k]);
    }
    IO(0x7f14, s->cr4, 4);
    IO(0x7f02, s->halted, 1);
    IO(OFF_REVISION, s->revision, 4);
    IO(0x7ef8, s->smbase, 4);
}

static void io_state(const struct area *a, struct smm_state *s)
{
    if (cpu_has(a->v, CPU_FEATURE_LM))
        io_state_64(a, s);
    else
        io_state_32(a, s);
}

/* ---- entry ---- */

static void gather(const struct vcpu *v, struct smm_state *s)
{
    memset(s, 0, sizeof *s);
    memcpy(s->gpr, v->gpr, sizeof s->gpr);
    memcpy(s->seg, v->seg, sizeof s->seg);
    s->rip = v->rip;
    s->rflags = vcpu_rflags(v);
    s->dr6 = v->dr[6];
    s->dr7 = v->dr[7];
    s->cr0 = v->cr0;
    s->cr3 = v->cr3;
    s->cr4 = v->cr4;
    s->efer = v->efer;
    s->ldtr = v->ldtr;
    s->tr = v->tr;
    s->gdtr = v->gdtr;
    s->idtr = v->idtr;
    s->smbase = v->smbase;
    s->revision = cpu_has(v, CPU_FEATURE_LM) ? REVISION_64 : REVISION_32;
    s->halted = v->activity == VCPU_HALTED && !v->monitor.waiting;
}

static void enter_state(struct vcpu *v)
{
    for (int s = SEG_ES; s <= SEG_GS; s++)
        vcpu_set_segment(v, s, 0, 0, 0xffffffff, FLAT_ATTR);
    vcpu_set_segment(v, SEG_CS, (uint16_t)(v->smbase >> 4), v->smbase, 0xffffffff, FLAT_ATTR);
    v->cr0 &= ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
    v->cr4 = v->efer = 0;
    v->dr[7] = 0x400;
    v->rip = SMM_ENTRY;
    vcpu_set_rflags(v, 2);
    v->int_shadow = v->shadow_is_movss = v->pending_single_step = false;
    v->pending_dbg = 0;
    v->activity = VCPU_RUNNING;
    v->exit_slot = 2;
    vcpu_mode_changed(v);
}

void smm_enter(struct vcpu *v)
{
    struct smm_state s;
    const struct area a = {v, true};
    gather(v, &s);
    v->smi_pending = false;
    v->in_smm = true;
    v->smm_kept_nmi_blocked = v->nmi_blocked;
    v->nmi_blocked = true;
    v->msr.smi_count++;
    if (v->on_smm)
        v->on_smm(v->on_smm_ctx, true);
    io_state(&a, &s);
    monitor_disarm(v);
    enter_state(v);
    v->attn |= ATTN_BOUNDARY;
    log_emit(v->log, LOG_INT, "cpu%u: SMI at rip 0x%llx, SMBASE 0x%x", v->index, (unsigned long long)s.rip, v->smbase);
    clock_retire(v->clock, 1);
}

/* ---- RSM ---- */

/* What no processor can be in: RSM shuts down instead. */
static bool is_possible(struct vcpu *v, const struct smm_state *s)
{
    bool pg = s->cr0 & CR0_PG, lma = (s->efer & EFER_LME) && pg;
    if ((pg && !(s->cr0 & CR0_PE)) || (s->cr0 & CR0_NW && !(s->cr0 & CR0_CD)) || !control_cr4_is_offered(v, s->cr4))
        return false;
    if (!!(s->efer & EFER_LMA) != lma || (lma && (!(s->cr4 & CR4_PAE) || s->cr3 >> v->model->maxphyaddr)))
        return false;
    if (s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE) || (s->cr4 & CR4_PCIDE && !lma))
        return false;
    return !(s->rflags & FLAG_VM) || ((s->cr0 & CR0_PE) && !lma);
}

static void commit(struct vcpu *v, const struct smm_state *s)
{
    memcpy(v->gpr, s->gpr, sizeof s->gpr);
    memcpy(v->seg, s->seg, sizeof s->seg);
    v->ldtr = s->ldtr;
    v->tr = s->tr;
    v->gdtr = s->gdtr;
    v->idtr = s->idtr;
    v->dr[6] = (s->dr6 & 0xe00f) | 0xffff0ff0;
    v->dr[7] = (s->dr7 & 0xffff23ff) | 0x400;
    v->cr0 = s->cr0 | CR0_ET;
    v->cr3 = s->cr3;
    v->cr4 = s->cr4;
    v->efer = s->efer;
    v->rip = s->rip;
    vcpu_set_rflags(v, s->rflags);
    if (s->revision & REVISION_REBASES)
        v->smbase = s->smbase;
    v->activity = s->halted & 1 ? VCPU_HALTED : VCPU_RUNNING;
}

/* PAE's PDPTE registers are not in the area: they are read again. */
static bool load_pdptes(struct vcpu *v)
{
    uint64_t pdpte[4];
    if (!(v->cr0 & CR0_PG) || !(v->cr4 & CR4_PAE) || v->efer & EFER_LMA)
        return true;
    if (!mmu_load_pdptes(v->mv, v->cr3, pdpte))
        return false;
    memcpy(v->pdpte, pdpte, sizeof pdpte);
    return true;
}

static void shut_down(struct vcpu *v)
{
    v->triple =
        (struct exc_record){.icount = v->clock->icount, .rip = v->rip, .cr2 = v->cr2, .vector = EXC_DF, .error = 0};
    v->activity = VCPU_SHUTDOWN;
    log_emit(v->log, LOG_INT, "cpu%u: RSM to a state that cannot be: shutdown", v->index);
}

static void op_rsm(struct vcpu *v, const struct insn *i)
{
    struct smm_state s;
    const struct area a = {v, false};
    if (!v->in_smm)
        vcpu_raise(v, i, EXC_UD);
    vcpu_sync(v, i);
    gather(v, &s);
    io_state(&a, &s);
    v->in_smm = false;
    if (v->on_smm)
        v->on_smm(v->on_smm_ctx, false);
    v->nmi_blocked = v->smm_kept_nmi_blocked;
    block_end(v, i, v->rip, 2);
    v->attn |= ATTN_BOUNDARY;
    if (!is_possible(v, &s))
        return shut_down(v);
    commit(v, &s);
    mmu_guest_flush(v->mv, GUEST_FLUSH_ALL, 0);
    if (!load_pdptes(v))
        shut_down(v);
    vcpu_refresh(v);
}

op_fn *bind_smm(const struct insn *i)
{
    return i->op == OP_RSM ? op_rsm : NULL;
}
