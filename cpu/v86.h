/*
 * Virtual-8086 mode (SDM volume 3, chapter 21): entering it, and INT n inside it.
 *
 * In this mode CPL is 3, and segments are the selector times 16 with a limit of 64 KiB. Leaving it is an event's affair
 * (cpu/exception.c) or a task switch's (cpu/task.c). The flag and port instructions look at it themselves.
 */
#ifndef CPU_V86_H
#define CPU_V86_H

#include "cpu/system.h"

/* Loads all six segment registers as this mode has them and sets CPL 3. EFLAGS.VM is set already. Cannot fault. The
 * caller calls mode_update() or vcpu_mode_changed(). sel: in the order of SEG_ES.. */
void v86_set_segments(struct vcpu *v, const uint16_t sel[6]);

/* INT n with EFLAGS.VM: by IOPL, CR4.VME and the redirection bitmap of the TSS through the program's own vector table
 * (true: the instruction is done) or through the IDT (false). Raises #GP(0) where neither is allowed. */
bool v86_int(struct vcpu *v, const struct insn *i, uint8_t vector);

#endif
