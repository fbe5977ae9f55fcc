/*
 * System management mode, as far as firmware needs it (SDM volume 3, chapter 32).
 *
 * The state is saved at SMBASE + FC00H..FFFFH in the layout that QEMU's processors use and the free firmwares know:
 * AMD64's (revision 20064H) where the model has long mode, else the 32-bit one (revision 20000H). Both have SMBASE
 * relocation. Entry is at SMBASE + 8000H with flat 4 GiB segments, CS based at SMBASE, in real-address mode.
 *
 * In SMM, SMI and INIT stay pending, NMI is blocked until IRET, and A20 is not masked. Which memory SMM sees is the
 * machine's affair: v->on_smm is called before the state is saved, and after it was read.
 */
#ifndef CPU_SMM_H
#define CPU_SMM_H

#include "cpu/system.h"

#define SMM_RESET_BASE 0x30000u

/* An SMI, at a boundary. */
void smm_enter(struct vcpu *v);
op_fn *bind_smm(const struct insn *i);

#endif
