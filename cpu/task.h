/*
 * Hardware task switches (SDM volume 3, chapter 8): JMP, CALL, IRET with NT, and events through task gates; 16- and
 * 32-bit TSS.
 *
 * Everything that belongs to the old task is checked, and both TSSs are known to be accessible, before anything
 * changes: such a fault is the instruction's (or the event's). From then on the processor is in the new task, and what
 * its segments get wrong is a fault there, before its first instruction.
 */
#ifndef CPU_TASK_H
#define CPU_TASK_H

#include "cpu/system.h"

enum task_cause { TASK_JMP, TASK_CALL, TASK_IRET };

/* What an event through a task gate adds to TASK_CALL. */
struct task_event {
    uint64_t rip;   /* return address */
    uint64_t flags; /* EFLAGS to be saved */
    bool has_error;
    uint32_t error;
};

/* JMP or CALL (i) whose selector `sel` names the descriptor d, a TSS or a task gate. The selector's and the gate's
 * privileges are checked here. Ends the block. */
void task_transfer(struct vcpu *v, const struct insn *i, enum task_cause cause, uint16_t sel, uint64_t raw);
/* IRET with NT: back to the task that the TSS links to. Ends the block. */
void task_return(struct vcpu *v, const struct insn *i);
/* An event through a task gate to TSS `sel`. At a boundary. */
void task_event(struct vcpu *v, uint16_t sel, const struct task_event *ev);

#endif
