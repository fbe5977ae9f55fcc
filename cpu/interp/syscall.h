/*
 * What SYSCALL, SYSRET and their kin load, for the interpreter and for compiled code.
 */
#ifndef CPU_INTERP_SYSCALL_H
#define CPU_INTERP_SYSCALL_H

#include "cpu/system.h"

/* attr of flat segments: present, accessed, 4 GiB; to be added: FLAT_DPL(). */
#define FLAT_CODE64   (ATTR_G | SEG_ATTR_L | SEG_ATTR_P | ATTR_S | ATTR_CODE | ATTR_RW | ATTR_ACCESSED)
#define FLAT_CODE32   (ATTR_G | SEG_ATTR_DB | SEG_ATTR_P | ATTR_S | ATTR_CODE | ATTR_RW | ATTR_ACCESSED)
#define FLAT_DATA     (ATTR_G | SEG_ATTR_DB | SEG_ATTR_P | ATTR_S | ATTR_RW | ATTR_ACCESSED)
#define FLAT_DPL(cpl) ((cpl) << 5)

/* Bits of R11 that SYSRET loads; bit 1 is always set. */
#define SYSRET_FLAGS 0x3c7fd7u

#endif
