/*
 * MONITOR and MWAIT: a processor that waits for a write to a line of memory (SDM volume 3, 9.10.5).
 *
 * The line is watched through write tracking, so every write counts: other vCPUs', DMA's, a loader's. A wait ends at
 * the boundary after the write, at an event that is delivered, or, if asked for, at an interrupt that is masked.
 * Waiting ends the vCPU's turn, as HLT does.
 */
#ifndef CPU_MONITOR_H
#define CPU_MONITOR_H

#include "cpu/system.h"

/* Arms on the line around gpa. */
void monitor_arm(struct vcpu *v, unsigned as, gpa_t gpa);
void monitor_disarm(struct vcpu *v);
/* The wait is over, whatever ended it. */
void monitor_wake(struct vcpu *v);
/* Something ended it? */
static inline bool monitor_has_wakeup(const struct vcpu *v)
{
    return v->monitor.waiting && (v->monitor.written || (v->monitor.breaks && v->intr_pin));
}
/* A snapshot is being loaded: the saved line is watched again, from vcpu_refresh() on. */
void monitor_restore(struct vcpu *v);
void monitor_fini(struct vcpu *v);

op_fn *bind_monitor(const struct insn *i);

#endif
