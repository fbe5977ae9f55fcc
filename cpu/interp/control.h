/*
 * What the files of bind_control() share.
 */
#ifndef CPU_INTERP_CONTROL_H
#define CPU_INTERP_CONTROL_H

#include "cpu/interp/chain.h"
#include "cpu/interp/integer.h"
#include "cpu/interp/stack.h"

/* PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE (control_stack.c). */
op_fn *bind_stack(const struct insn *i, unsigned mode);

#endif
