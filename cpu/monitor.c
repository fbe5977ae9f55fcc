#include "cpu/monitor.h"
#include "core/alloc.h"
#include "cpu/optable.h"

#define LINE_MASK (VCPU_MONITOR_LINE - 1ull)

/* ---- the watched line ---- */

static void forget(struct vcpu *v)
{
    struct vcpu_monitor *m = &v->monitor;
    if (!m->armed)
        return;
    m->armed = false;
    track_remove(v->mem, m->as, m->line >> PAGE_SHIFT, TRACK_WATCH);
}

/* Counting down while the tracking calls its listeners would change what it walks: the count goes at the wake-up or at
 * the next MONITOR; until then `armed` is what a write leaves behind. */
static bool on_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct vcpu *v = container_of(l, struct vcpu, monitor.listener);
    struct vcpu_monitor *m = &v->monitor;
    if (!m->armed || m->loading || as != m->as || gpa + len <= m->line || gpa >= m->line + VCPU_MONITOR_LINE)
        return true;
    m->written = true;
    v->attn |= ATTN_BOUNDARY;
    return true;
}

static void on_flush_slot(struct track_listener *l, unsigned as, gfn_t start, uint64_t pages)
{
    struct vcpu *v = container_of(l, struct vcpu, monitor.listener);
    gfn_t gfn = v->monitor.line >> PAGE_SHIFT;
    if (v->monitor.armed && !v->monitor.loading && as == v->monitor.as && gfn >= start && gfn - start < pages)
        v->monitor.written = true;
}

static void watch(struct vcpu *v)
{
    struct vcpu_monitor *m = &v->monitor;
    if (!m->registered) {
        m->listener = (struct track_listener){.write = on_write, .flush_slot = on_flush_slot, .kind = TRACK_WATCH};
        track_register(v->mem, &m->listener);
        m->registered = true;
    }
    track_add(v->mem, m->as, m->line >> PAGE_SHIFT, TRACK_WATCH);
}

void monitor_arm(struct vcpu *v, unsigned as, gpa_t gpa)
{
    forget(v);
    v->monitor.as = (uint8_t)as;
    v->monitor.line = gpa & ~LINE_MASK;
    v->monitor.armed = true;
    v->monitor.written = v->monitor.loading = false;
    watch(v);
}

void monitor_disarm(struct vcpu *v)
{
    forget(v);
    v->monitor.waiting = false;
    v->monitor.written = false;
}

void monitor_wake(struct vcpu *v)
{
    monitor_disarm(v);
    if (v->activity == VCPU_HALTED)
        v->activity = VCPU_RUNNING;
}

void monitor_restore(struct vcpu *v)
{
    v->monitor.loading = v->monitor.armed;
    if (v->monitor.armed)
        watch(v);
}

void monitor_fini(struct vcpu *v)
{
    forget(v);
    if (v->monitor.registered)
        track_unregister(v->mem, &v->monitor.listener);
    v->monitor.registered = false;
}

/* ---- the instructions ---- */

/* ECX: extensions, of which `allowed` exist. */
static void check(struct vcpu *v, const struct insn *i, uint32_t allowed)
{
    if (v->cpl || !(v->msr.misc_enable & MISC_ENABLE_MONITOR))
        vcpu_raise(v, i, EXC_UD);
    if ((uint32_t)v->gpr[REG_RCX] & ~allowed)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* The address is checked and used as a byte load's. */
static void op_monitor(struct vcpu *v, const struct insn *i)
{
    check(v, i, 0);
    uint64_t off = reg_get(v, REG_RAX, i->adsize), lin;
    unsigned seg = i->seg < SEG_NONE ? i->seg : SEG_DS;
    struct xlate x;
    if (mode_is_code64(v))
        lin = off + v->seg_base[seg];
    else
        lin = seg_linear_checked(v, i, seg, off, 1, 0);
    lin_probe_read(v, i, lin, 1);
    if (mmu_translate(v->mv, lin, ACCESS_READ, &x) != XLATE_FAULT)
        monitor_arm(v, v->mv->regs.as, x.gpa);
    block_end(v, i, insn_next_rip(v, i), 2);
}

static void op_mwait(struct vcpu *v, const struct insn *i)
{
    check(v, i, 1);
    struct vcpu_monitor *m = &v->monitor;
    if (m->armed && !m->written) {
        m->waiting = true;
        m->breaks = v->gpr[REG_RCX] & 1;
        v->activity = VCPU_HALTED;
        v->stats.halts++;
    } else {
        monitor_disarm(v);
    }
    block_end(v, i, insn_next_rip(v, i), 2);
}

op_fn *bind_monitor(const struct insn *i)
{
    return i->op == OP_MONITOR ? op_monitor : i->op == OP_MWAIT ? op_mwait : NULL;
}
