/*
 * Parts of the stack that instructions with frames of several values need (the rest is in cpu/interp/interp.h).
 */
#ifndef CPU_INTERP_STACK_H
#define CPU_INTERP_STACK_H

#include "cpu/interp/interp.h"

/* An offset in the stack segment, wrapped to the width of the stack pointer: 64 bits in 64-bit code, else by SS.B. */
static inline uint64_t stack_wrap(const struct vcpu *v, uint64_t off)
{
    return v->mode & MODE_CODE64 ? off : v->mode & MODE_SS32 ? (uint32_t)off : (uint16_t)off;
}

/* Writes as many bits of RSP as the stack pointer has. */
static inline void stack_set_pointer(struct vcpu *v, uint64_t sp)
{
    if (v->mode & MODE_CODE64)
        v->gpr[REG_RSP] = sp;
    else if (v->mode & MODE_SS32)
        v->gpr[REG_RSP] = (uint32_t)sp;
    else
        reg_set16(v, REG_RSP, (uint16_t)sp);
}

/* Linear address of `size` bytes at a wrapped offset of the stack segment; raises #SS. */
uint64_t stack_linear(struct vcpu *v, const struct insn *i, uint64_t off, unsigned size, unsigned write);

#endif
