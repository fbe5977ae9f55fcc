/*
 * What an instruction does to general registers, and to its memory operand: as much of it as the plans for memory
 * accesses (near.c, stream.c) ask.
 */
#include "cpu/jit/internal.h"

enum effect tr_effect(const struct insn *i)
{
    switch (i->op) {
    case OP_MOV:
        return i->enc == ENC_RM ? EFFECT_READ : EFFECT_WRITE;
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
    case OP_CMOVCC:
    case OP_LEA:
        return EFFECT_READ;
    case OP_IMUL:
        return i->enc == ENC_M ? EFFECT_UNKNOWN : EFFECT_READ;
    case OP_ADD:
    case OP_OR:
    case OP_ADC:
    case OP_SBB:
    case OP_AND:
    case OP_SUB:
    case OP_XOR:
        return i->enc == ENC_RM ? EFFECT_READ : EFFECT_CHANGE;
    case OP_CMP:
    case OP_TEST:
        return EFFECT_LOOK;
    case OP_INC:
    case OP_DEC:
    case OP_NEG:
    case OP_NOT:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_ROL:
    case OP_ROR:
    case OP_BSWAP:
        return EFFECT_CHANGE;
    case OP_SETCC:
        return EFFECT_WRITE;
    default:
        return EFFECT_UNKNOWN;
    }
}

static uint32_t written_operand(const struct insn *i, enum effect effect)
{
    if (effect == EFFECT_READ)
        return tr_bit(i->reg);
    return effect != EFFECT_LOOK && i->flags & INSN_RM_REG ? tr_bit(i->rm) : 0;
}

static bool is_general(unsigned kind)
{
    return kind == KIND_G || kind == KIND_G32;
}

/* General registers that a vector instruction may write, as bits. */
static uint32_t written_by_vector(const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    uint32_t writes = tr_vector_implied_writes(i);
    if (is_general(f->reg_kind))
        writes |= tr_bit(i->reg);
    if (is_general(f->rm_kind) && i->flags & INSN_RM_REG)
        writes |= tr_bit(i->rm);
    return writes;
}

uint32_t tr_written(const struct tr *t, const struct insn *i)
{
    enum effect effect = tr_effect(i);
    if (effect != EFFECT_UNKNOWN)
        return written_operand(i, effect);
    if (i->op == OP_PUSH || i->op == OP_POP)
        return tr_bit(REG_RSP) | (i->op == OP_POP && i->flags & INSN_RM_REG ? tr_bit(i->rm) : 0);
    switch (i->op) {
    case OP_CBW:
    case OP_CWD:
    case OP_MUL:
    case OP_IMUL:
    case OP_DIV:
    case OP_IDIV:
        return tr_bit(REG_RAX) | tr_bit(REG_RDX);
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        return i->flags & INSN_RM_REG ? tr_bit(i->rm) : 0;
    case OP_NOP:
        return 0;
    default:
        break;
    }
    if (tr_is_x87(t, i))
        return tr_bit(REG_RAX); /* FNSTSW */
    return tr_is_vector(t, i) ? written_by_vector(i) : ~0u;
}

bool tr_is_stack_step(const struct insn *i)
{
    return (i->op == OP_PUSH && i->opsize == 8) ||
           (i->op == OP_POP && i->opsize == 8 && i->flags & INSN_RM_REG && i->rm != REG_RSP);
}

bool tr_is_step(const struct insn *i, unsigned *reg, int64_t *by)
{
    bool rm = i->flags & INSN_RM_REG && i->opsize == 8;
    *reg = i->rm;
    if (tr_is_stack_step(i)) {
        *reg = REG_RSP;
        *by = i->op == OP_PUSH ? -8 : 8;
        return true;
    }
    if (rm && i->enc == ENC_MI && !(i->flags & INSN_PATCHED) && (i->op == OP_ADD || i->op == OP_SUB)) {
        *by = i->op == OP_ADD ? (int64_t)i->imm : -(int64_t)i->imm;
        return *by == (int32_t)*by;
    }
    if (rm && (i->op == OP_INC || i->op == OP_DEC)) {
        *by = i->op == OP_INC ? 1 : -1;
        return true;
    }
    if (i->op == OP_LEA && i->opsize == 8 && i->adsize == 8 && i->base == i->reg && i->index == REG_ZERO) {
        *reg = i->reg;
        *by = i->disp;
        return true;
    }
    return false;
}
