/*
 * The debug registers' breakpoints (SDM volume 3, 18.2 and 18.3).
 *
 * Instruction breakpoints are faults: while one is armed the run loop goes instruction by instruction and asks before
 * each. Data and I/O breakpoints are traps: while a data breakpoint is armed the soft TLB is bypassed, so that each
 * access passes the slow path, which asks after the access was made; the trap is pending until the boundary. Disarmed,
 * all of it costs nothing.
 */
#ifndef CPU_BREAKPOINT_H
#define CPU_BREAKPOINT_H

#include "cpu/cpu.h"

/* DR7 or CR4.DE changed: recomputes what is armed. */
void breakpoints_update(struct vcpu *v);
/* DR6 bits of the instruction breakpoints at this linear address. */
uint64_t breakpoints_match_exec(const struct vcpu *v, uint64_t lin);
/* Make the trap of a matching data access (I/O access) pending. */
void breakpoints_note_data(struct vcpu *v, uint64_t lin, unsigned len, bool write);
void breakpoints_note_io(struct vcpu *v, unsigned port, unsigned size);

static inline void breakpoints_check_data(struct vcpu *v, uint64_t lin, unsigned len, bool write)
{
    if (unlikely(v->bp_data))
        breakpoints_note_data(v, lin, len, write);
}

static inline void breakpoints_check_io(struct vcpu *v, unsigned port, unsigned size)
{
    if (unlikely(v->bp_io))
        breakpoints_note_io(v, port, size);
}

#endif
