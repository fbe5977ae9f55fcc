/*
 * Exceptions and interrupts: raising them, and delivering them through the IDT (SDM volume 3, chapter 6).
 *
 * Delivery checks everything before it changes anything: a fault on the way leaves the state of the interrupted
 * instruction (or, from half-way through a task switch on, that of the new task), and is combined with the first event
 * by the double-fault rules (table 6-5).
 */
#include "core/trace.h"
#include "cpu/monitor.h"
#include "cpu/system.h"
#include "cpu/task.h"

struct event {
    enum event_kind kind;
    uint8_t vector;
    bool has_error;
    bool is_fault; /* RF is set in the flags image */
    uint32_t error;
    uint64_t rip; /* return address */
};

/* ---- raising ---- */

static _Noreturn void raise_fault(struct vcpu *v, const struct insn *i, enum exception vector, bool has_error,
                                  uint32_t error)
{
    if (i) {
        vcpu_sync(v, i);
        v->synced = 0;
        v->rip = insn_rip(v, i);
    }
    if (v->mv->regs.cpl != v->cpl) /* in the middle of pushing an inner frame */
        mmu_vcpu_set_mode(v->mv, v->cpl, v->rflags & FLAG_AC);
    v->fault.vector = (uint8_t)vector;
    v->fault.has_error = has_error;
    v->fault.soft = false;
    v->fault.error = error;
    longjmp(v->fault_jmp, 1);
}

void vcpu_freeze(struct vcpu *v, const struct insn *i)
{
    vcpu_sync(v, i);
    v->synced = 0;
    v->rip = insn_rip(v, i);
    v->activity = VCPU_HALTED;
    v->fault.vector = FAULT_FROZEN;
    longjmp(v->fault_jmp, 1);
}

void vcpu_raise(struct vcpu *v, const struct insn *i, enum exception vector)
{
    v->fault.dr6 = 0;
    raise_fault(v, i, vector, false, 0);
}

void vcpu_raise_error(struct vcpu *v, const struct insn *i, enum exception vector, uint32_t error)
{
    raise_fault(v, i, vector, true, error);
}

void vcpu_raise_pf(struct vcpu *v, const struct insn *i, uint64_t cr2, uint32_t error)
{
    v->fault.cr2 = cr2;
    raise_fault(v, i, EXC_PF, true, error);
}

void vcpu_raise_debug(struct vcpu *v, const struct insn *i, uint64_t dr6)
{
    v->fault.dr6 = dr6;
    raise_fault(v, i, EXC_DB, false, 0);
}

/* ---- gates ---- */

struct gate {
    uint16_t sel;
    unsigned type, ist;
    uint64_t offset;
};

static uint32_t gate_error(const struct event *ev)
{
    return ev->vector * 8u + 2;
}

static bool is_gate_type(const struct vcpu *v, unsigned type)
{
    if (type == SYS_INT || type == SYS_TRAP)
        return true;
    return !mode_is_long(v) && (type == SYS_INT16 || type == SYS_TRAP16 || type == SYS_TASK_GATE);
}

static void gate_read(struct vcpu *v, const struct event *ev, struct gate *g)
{
    bool wide = mode_is_long(v);
    unsigned size = wide ? 16 : 8;
    uint64_t lin = v->idtr.base + (uint64_t)ev->vector * size, high = 0;
    if (ev->vector * size + size - 1 > v->idtr.limit)
        vcpu_raise_error(v, NULL, EXC_GP, gate_error(ev));
    uint64_t low = lin_load_sys(v, NULL, wide ? lin : (uint32_t)lin, 8);
    if (wide)
        high = lin_load_sys(v, NULL, lin + 8, 8);
    unsigned attr = (unsigned)(low >> 40) & 0xff;
    g->type = attr & (ATTR_S | ATTR_TYPE);
    if (!is_gate_type(v, g->type) || (ev->kind == EVENT_SOFT && ATTR_DPL(attr) < v->cpl))
        vcpu_raise_error(v, NULL, EXC_GP, gate_error(ev));
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, NULL, EXC_NP, gate_error(ev));
    g->sel = (uint16_t)(low >> 16);
    g->ist = wide ? low >> 32 & 7 : 0;
    g->offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32;
    if (g->type == SYS_INT16 || g->type == SYS_TRAP16)
        g->offset &= 0xffff;
}

/* The handler's code segment, checked; returns the privilege level it runs at. */
static unsigned handler_code(struct vcpu *v, const struct gate *g, struct descriptor *cs)
{
    uint32_t err = g->sel & 0xfffcu;
    if (sel_is_null(g->sel))
        vcpu_raise_error(v, NULL, EXC_GP, 0);
    desc_read(v, NULL, g->sel, EXC_GP, cs);
    unsigned attr = desc_attr(cs->raw);
    if (!attr_is_code(attr) || ATTR_DPL(attr) > v->cpl)
        vcpu_raise_error(v, NULL, EXC_GP, err);
    if (v->rflags & FLAG_VM && (attr & ATTR_CONFORMING || ATTR_DPL(attr))) /* virtual-8086 mode is left to CPL 0 */
        vcpu_raise_error(v, NULL, EXC_GP, err);
    if (mode_is_long(v) && (!(attr & SEG_ATTR_L) || (attr & SEG_ATTR_DB)))
        vcpu_raise_error(v, NULL, EXC_GP, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, NULL, EXC_NP, err);
    desc_set_accessed(v, NULL, cs);
    return attr & ATTR_CONFORMING ? v->cpl : ATTR_DPL(attr);
}

/* ---- frames ---- */

static uint64_t flags_to_push(const struct vcpu *v, const struct event *ev)
{
    return vcpu_rflags(v) | (ev->is_fault ? FLAG_RF : 0);
}

/* Where the handler starts. Nothing here can fault. */
static void enter_handler(struct vcpu *v, const struct gate *g, uint64_t cs_raw, unsigned cpl)
{
    segment_set(v, SEG_CS, (uint16_t)((g->sel & ~3u) | cpl), cs_raw);
    v->rip = g->offset;
    v->rflags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
    if (g->type == SYS_INT || g->type == SYS_INT16)
        v->rflags &= ~FLAG_IF;
    mode_set_cpl(v, cpl);
}

static void deliver_long(struct vcpu *v, const struct event *ev)
{
    struct gate g;
    struct descriptor cs;
    gate_read(v, ev, &g);
    unsigned cpl = handler_code(v, &g, &cs);
    struct frame_stack s = {.long_addr = true, .cpl = cpl, .rsp = v->gpr[REG_RSP]};
    uint16_t ss;
    if (g.ist)
        s.rsp = frame_tss_ist(v, NULL, g.ist);
    else if (cpl != v->cpl)
        frame_tss_stack(v, NULL, cpl, &ss, &s.rsp);
    if (!addr_is_canonical(v, g.offset))
        vcpu_raise_error(v, NULL, EXC_GP, 0);
    s.rsp &= ~0xfull;
    uint64_t frame[6] = {v->seg[SEG_SS].sel, v->gpr[REG_RSP], flags_to_push(v, ev),
                         v->seg[SEG_CS].sel, ev->rip,         ev->error};
    frame_push(v, NULL, &s, frame, ev->has_error ? 6 : 5, 8);
    v->gpr[REG_RSP] = s.rsp;
    if (cpl != v->cpl) {
        v->cpl = cpl;
        segment_set_null(v, SEG_SS, (uint16_t)cpl);
    }
    enter_handler(v, &g, cs.raw, cpl);
}

/* Legacy protected mode: the new stack of an inner handler. */
static void inner_stack(struct vcpu *v, unsigned cpl, struct frame_stack *s, struct descriptor *ssd)
{
    uint16_t ss;
    frame_tss_stack(v, NULL, cpl, &ss, &s->rsp);
    stack_segment_check(v, NULL, ss, cpl, EXC_TS, ssd);
    s->ss = (struct segment){
        .sel = ss, .base = desc_base(ssd->raw), .limit = desc_limit(ssd->raw), .attr = (uint16_t)desc_attr(ssd->raw)};
    s->long_addr = false;
    s->cpl = cpl;
    s->err_sel = ss;
}

/* Out of virtual-8086 mode these are pushed too, in this order, and are null in the handler. */
static const int v86_saved[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};

static void deliver_protected(struct vcpu *v, const struct event *ev)
{
    struct gate g;
    struct descriptor cs, ssd;
    struct frame_stack s;
    gate_read(v, ev, &g);
    if (g.type == SYS_TASK_GATE)
        return task_event(
            v, g.sel,
            &(struct task_event){
                .rip = ev->rip, .flags = flags_to_push(v, ev), .has_error = ev->has_error, .error = ev->error});
    unsigned cpl = handler_code(v, &g, &cs), n = 0;
    bool inner = cpl != v->cpl;
    uint64_t frame[10];
    frame_stack_current(v, &s);
    if (inner) {
        inner_stack(v, cpl, &s, &ssd);
        if (v->rflags & FLAG_VM)
            for (unsigned k = 0; k < ARRAY_LEN(v86_saved); k++)
                frame[n++] = v->seg[v86_saved[k]].sel;
        frame[n++] = v->seg[SEG_SS].sel;
        frame[n++] = v->gpr[REG_RSP];
    }
    frame[n++] = flags_to_push(v, ev);
    frame[n++] = v->seg[SEG_CS].sel;
    frame[n++] = ev->rip;
    if (ev->has_error)
        frame[n++] = ev->error;
    if (g.offset > desc_limit(cs.raw))
        vcpu_raise_error(v, NULL, EXC_GP, 0);
    frame_push(v, NULL, &s, frame, n, g.type & 8 ? 4 : 2);
    if (inner)
        segment_set(v, SEG_SS, s.ss.sel, ssd.raw);
    if (v->rflags & FLAG_VM)
        for (unsigned k = 0; k < ARRAY_LEN(v86_saved); k++)
            segment_set_null(v, v86_saved[k], 0);
    frame_set_rsp(v, s.rsp);
    enter_handler(v, &g, cs.raw, cpl);
}

static void deliver_real(struct vcpu *v, const struct event *ev)
{
    struct frame_stack s;
    if (ev->vector * 4u + 3 > v->idtr.limit)
        vcpu_raise_error(v, NULL, EXC_GP, 0);
    uint32_t entry = (uint32_t)lin_load_sys(v, NULL, (uint32_t)(v->idtr.base + ev->vector * 4u), 4);
    uint64_t frame[3] = {flags_to_push(v, ev), v->seg[SEG_CS].sel, ev->rip};
    frame_stack_current(v, &s);
    frame_push(v, NULL, &s, frame, 3, 2);
    frame_set_rsp(v, s.rsp);
    v->seg[SEG_CS].sel = (uint16_t)(entry >> 16);
    v->seg[SEG_CS].base = entry >> 16 << 4;
    v->rip = entry & 0xffff;
    v->rflags &= ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
    mode_update(v);
}

/* ---- one attempt, and what its failure means ---- */

static void log_event(const struct vcpu *v, const struct event *ev)
{
    static const char *const kind[] = {"exception", "interrupt", "software interrupt", "icebp"};
    trace_point(v->trace, ev->kind == EVENT_INTERRUPT ? TRACE_CPU_INTERRUPT : TRACE_CPU_EXCEPTION, ev->vector,
                ev->kind == EVENT_INTERRUPT ? ev->rip : ev->error, ev->rip, v->cr2);
    if (log_is_on(v->log, LOG_INT))
        log_emit(v->log, LOG_INT,
                 "cpu%u: %s 0x%02x error 0x%04x at %04x:0x%016llx cpl %u rsp 0x%016llx cr2 0x%016llx icount %llu",
                 v->index, kind[ev->kind], ev->vector, ev->error, v->seg[SEG_CS].sel, (unsigned long long)ev->rip,
                 v->cpl, (unsigned long long)v->gpr[REG_RSP], (unsigned long long)v->cr2,
                 (unsigned long long)v->clock->icount);
}

static struct exc_record record_of(const struct vcpu *v, const struct event *ev)
{
    return (struct exc_record){.icount = v->clock->icount,
                               .rip = v->rip,
                               .cr2 = v->cr2,
                               .error = ev->error,
                               .vector = ev->vector,
                               .has_error = ev->has_error};
}

static void history_add(struct vcpu *v, const struct event *ev)
{
    if (ev->kind != EVENT_INTERRUPT)
        v->history[v->history_count++ % EXC_HISTORY] = record_of(v, ev);
}

/* False: v->fault says what went wrong on the way; nothing has changed. */
static __attribute__((noinline)) bool try_deliver(struct vcpu *v, const struct event *ev)
{
    jmp_buf outer;
    memcpy(&outer, &v->fault_jmp, sizeof outer);
    if (setjmp(v->fault_jmp)) {
        memcpy(&v->fault_jmp, &outer, sizeof outer);
        return false;
    }
    if (!(v->cr0 & CR0_PE))
        deliver_real(v, ev);
    else if (mode_is_long(v))
        deliver_long(v, ev);
    else
        deliver_protected(v, ev);
    memcpy(&v->fault_jmp, &outer, sizeof outer);
    return true;
}

enum fault_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE };

static enum fault_class class_of(const struct event *ev)
{
    if (ev->kind != EVENT_EXCEPTION)
        return CLASS_BENIGN;
    switch (ev->vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
    case EXC_CP:
        return CLASS_CONTRIBUTORY;
    case EXC_PF:
    case EXC_VE:
        return CLASS_PAGE_FAULT;
    case EXC_DF:
        return CLASS_DOUBLE;
    default:
        return CLASS_BENIGN;
    }
}

/* The event that v->fault is. An instruction breakpoint's frame has RF as it was (SDM volume 3, 18.3.1.1). */
static struct event fault_event(const struct vcpu *v)
{
    return (struct event){.kind = EVENT_EXCEPTION,
                          .vector = v->fault.vector,
                          .has_error = v->fault.has_error,
                          .error = v->fault.error,
                          .is_fault = !(v->fault.vector == EXC_DB && v->fault.dr6 & 0xf),
                          .rip = v->rip};
}

/* The event that v->fault is, met while `first` was being delivered. */
static struct event nested_event(struct vcpu *v, const struct event *first)
{
    struct event ev = fault_event(v);
    if (ev.vector == EXC_PF)
        v->cr2 = v->fault.cr2;
    else if (ev.has_error && first->kind != EVENT_SOFT)
        ev.error |= 1; /* EXT: not the program's own doing */
    return ev;
}

static void shut_down(struct vcpu *v, const struct event *first, uint64_t cr2)
{
    v->triple = record_of(v, first);
    v->triple.cr2 = cr2;
    v->activity = VCPU_SHUTDOWN;
    v->attn |= ATTN_BOUNDARY;
    log_emit(v->log, LOG_INT, "cpu%u: triple fault, first exception 0x%02x at rip 0x%llx", v->index, first->vector,
             (unsigned long long)v->rip);
}

static void after_delivery(struct vcpu *v)
{
    v->int_shadow = v->shadow_is_movss = false;
    v->pending_single_step = false;
    v->activity = VCPU_RUNNING;
    if (unlikely(v->monitor.waiting))
        monitor_disarm(v);
    clock_retire(v->clock, 1);
}

/* True if `first` itself was delivered, not an exception that took its place. */
static bool deliver(struct vcpu *v, const struct event *first)
{
    struct event ev = *first;
    uint64_t cr2 = v->cr2;
    bool own = true;
    for (;;) {
        history_add(v, &ev);
        log_event(v, &ev);
        if (try_deliver(v, &ev))
            break;
        enum fault_class before = class_of(&ev);
        struct event next = nested_event(v, &ev);
        enum fault_class after = class_of(&next);
        own = false;
        if (before == CLASS_DOUBLE && after != CLASS_BENIGN) {
            history_add(v, &next);
            shut_down(v, first, cr2);
            return false;
        }
        if ((before == CLASS_CONTRIBUTORY && after == CLASS_CONTRIBUTORY) ||
            (before == CLASS_PAGE_FAULT && after != CLASS_BENIGN)) {
            history_add(v, &next);
            next = (struct event){.kind = EVENT_EXCEPTION, .vector = EXC_DF, .has_error = true, .rip = v->rip};
        }
        ev = next;
    }
    after_delivery(v);
    return own;
}

/* ---- the interface ---- */

/* DR6 at a debug exception: the conditions met, over the sticky rest. DR7.GD is cleared so that the handler can use the
 * registers. */
static void latch_debug(struct vcpu *v, uint64_t bits)
{
    v->dr[6] = (v->dr[6] & ~0xfull) | bits;
    v->dr[7] &= ~(1ull << 13);
    v->msr.debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF);
}

void vcpu_deliver(struct vcpu *v, enum event_kind kind, uint8_t vector, bool has_error, uint32_t error)
{
    struct event ev = {.kind = kind, .vector = vector, .has_error = has_error, .error = error, .rip = v->rip};
    ev.is_fault = kind == EVENT_EXCEPTION && vector != EXC_DB && vector != EXC_DF && vector != EXC_MC;
    deliver(v, &ev);
}

void vcpu_deliver_fault(struct vcpu *v)
{
    struct event ev = fault_event(v);
    if (ev.vector == EXC_PF)
        v->cr2 = v->fault.cr2;
    else if (ev.vector == EXC_DB)
        latch_debug(v, v->fault.dr6);
    deliver(v, &ev);
}

void vcpu_software_interrupt(struct vcpu *v, const struct insn *i, enum event_kind kind, uint8_t vector)
{
    struct event ev = {.kind = kind, .vector = vector, .rip = insn_next_rip(v, i)};
    vcpu_sync(v, i);
    v->synced = 0;
    v->rip = insn_rip(v, i);
    v->exit_slot = 2;
    if (kind == EVENT_ICEBP)
        latch_debug(v, 0);
    if (deliver(v, &ev))
        clock_retire(v->clock, 1);
}

void vcpu_single_step_trap(struct vcpu *v)
{
    v->pending_single_step = false;
    latch_debug(v, 1ull << 14 | v->pending_dbg);
    v->pending_dbg = 0;
    vcpu_deliver(v, EVENT_EXCEPTION, EXC_DB, false, 0);
}

void vcpu_deliver_debug(struct vcpu *v)
{
    latch_debug(v, v->pending_dbg);
    v->pending_dbg = 0;
    vcpu_deliver(v, EVENT_EXCEPTION, EXC_DB, false, 0);
}
