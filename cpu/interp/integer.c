/*
 * Choice of handlers for integer instructions, and those that only move flags or do nothing.
 */
#include "cpu/interp/integer.h"

HANDLER_REG(nop, (void)0)
HANDLER_REG(clc, flags_set_cf(v, false))
HANDLER_REG(stc, flags_set_cf(v, true))
HANDLER_REG(cmc, flags_set_cf(v, !flag_cf(v)))
HANDLER_REG(cld, v->rflags &= ~FLAG_DF)
HANDLER_REG(std, v->rflags |= FLAG_DF)
HANDLER_REG(lahf, reg_set8(v, BYTE_HIGH | 4, (uint8_t)flags_image(v) | 2))

static void sahf(struct vcpu *v, const struct insn *i)
{
    flags_set_image(v, reg_get8(v, BYTE_HIGH | 4) | (flag_of(v) ? FLAG_OF : 0));
    NEXT(v, i);
}

op_fn *bind_flag(const struct insn *i)
{
    switch (i->op) {
    case OP_NOP:
    case OP_ENDBR:
    case OP_PREFETCH:
        return nop;
    case OP_CLC:
        return clc;
    case OP_STC:
        return stc;
    case OP_CMC:
        return cmc;
    case OP_CLD:
        return cld;
    case OP_STD:
        return std;
    case OP_LAHF:
        return lahf;
    case OP_SAHF:
        return sahf;
    default:
        return NULL;
    }
}

static op_fn *bind_alu(const struct insn *i, enum ea_kind k)
{
    switch (i->opsize) {
    case 1:
        return (i->reg | i->rm) & BYTE_HIGH ? bind_alu8h(i, k) : bind_alu8(i, k);
    case 2:
        return bind_alu16(i, k);
    case 4:
        return bind_alu32(i, k);
    case 8:
        return bind_alu64(i, k);
    default:
        return NULL;
    }
}

op_fn *bind_integer(const struct insn *i, unsigned mode)
{
    enum ea_kind k = ea_kind(i, mode);
    op_fn *fn = NULL;
    if ((fn = bind_alu(i, k)) || (fn = bind_move(i, k)) || (fn = bind_shift(i)) || (fn = bind_muldiv(i, k)) ||
        (fn = bind_bits(i)) || (fn = bind_exchange(i, k)) || (fn = bind_flag(i)))
        return fn;
    return bind_bcd(i);
}
