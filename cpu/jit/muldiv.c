/*
 * Multiplication and division. Both leave flags as they were: see enum partial_kind.
 */
#include "cpu/jit/integer.h"

/* ---- IMUL of two and three operands ---- */

bool tr_imul(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    struct emit *e = &t->e;
    if (mem && !tr_has_ea(t, i))
        return false;
    tr_begin_partial(t, PARTIAL_CFOF);
    tr_begin(t, tr_bit(i->reg), false);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
        load_r15(t, i->opsize);
    }
    unsigned reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R14;
    if (reg == H_R14)
        emit_load(e, H_R14, FRAME(gpr) + 8 * (i->reg - 13));
    struct opnd rm = mem ? op_reg(H_R15) : tr_gpr(i->rm);
    if (i->enc == ENC_RM) {
        emit_rm(e, how_of(i), OPC_0F(0xaf), reg, rm);
    } else {
        emit_rm(e, how_of(i), OPC(fits8(i->imm) ? 0x6b : 0x69), reg, rm);
        imm_bytes(e, i->imm, fits8(i->imm) ? 1 : i->opsize);
    }
    tr_reg_out(t, i->reg, reg);
    tr_set_partial(t, PARTIAL_CFOF, FLAG_CF | FLAG_OF, 0, rec);
    return true;
}

/* ---- MUL and IMUL of the accumulator ---- */

bool tr_mul(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    struct how w = {.size = i->opsize, .rm_byte = i->opsize == 1};
    if (mem ? !tr_has_ea(t, i) : !can_encode(w, 0, tr_gpr(i->rm)))
        return false;
    tr_begin_partial(t, PARTIAL_CFOF);
    tr_begin(t, tr_bit(REG_RAX) | tr_bit(REG_RDX), false);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
    }
    emit_rm(&t->e, w, OPC(i->opsize == 1 ? 0xf6 : 0xf7), i->op == OP_MUL ? 4 : 5, mem ? op_r14() : tr_gpr(i->rm));
    tr_set_partial(t, PARTIAL_CFOF, FLAG_CF | FLAG_OF, 0, rec);
    return true;
}

/* ---- DIV and IDIV: what could fault the handler does ---- */

static void rr(struct tr *t, unsigned size, unsigned op, unsigned reg, unsigned rm)
{
    emit_rm(&t->e, (struct how){.size = size}, OPC((uint8_t)op), reg, op_reg(rm));
}

/* movzx of the lowest byte. */
static void byte_of(struct tr *t, unsigned reg)
{
    emit_rm(&t->e, (struct how){.size = 4, .rm_byte = true}, OPC_0F(0xb6), reg, op_reg(reg));
}

/* The divisor is in r15. */
static void div_guard(struct tr *t, unsigned size, uint32_t rec)
{
    rr(t, size, 0x3b, H_RDX, H_R15); /* cmp: the quotient fits if the high half is below the divisor */
    tr_jump_cold(t, emit_jcc(&t->e, CC_NC), COLD_SLOW, rec, 0);
}

/* AX by a byte: AH must be below it. */
static void div8_guard(struct tr *t, uint32_t rec)
{
    rr(t, 4, 0x8b, H_R14, H_RAX);
    rr(t, 4, 0xc1, 5, H_R14); /* shr */
    e8(&t->e, 8);
    byte_of(t, H_R14);
    rr(t, 4, 0x3b, H_R14, H_R15);
    tr_jump_cold(t, emit_jcc(&t->e, CC_NC), COLD_SLOW, rec, 0);
}

/* Only a dividend that is its lower half sign-extended, and divisors other than 0 and -1. */
static void idiv_guard(struct tr *t, unsigned size, uint32_t rec)
{
    rr(t, size, 0x8b, H_R14, H_RAX);
    rr(t, size, 0xc1, 7, H_R14); /* sar */
    e8(&t->e, 8 * size - 1);
    rr(t, size, 0x3b, H_R14, H_RDX);
    tr_jump_cold(t, emit_jcc(&t->e, CC_NZ), COLD_SLOW, rec, 0);
    emit_lea(&t->e, size, H_R14, (struct maddr){H_R15, -1, 0, 1});
    rr(t, size, 0x83, 7, H_R14); /* cmp r14, 1 */
    e8(&t->e, 1);
    tr_jump_cold(t, emit_jcc(&t->e, CC_BE), COLD_SLOW, rec, 0);
}

/* Operands that fit 32 bits divide several times as fast: rdx is zero then. */
static void div64(struct tr *t)
{
    rr(t, 8, 0x8b, H_R14, H_RAX);
    rr(t, 8, 0x0b, H_R14, H_R15);
    rr(t, 8, 0xc1, 5, H_R14);
    e8(&t->e, 32);
    rr(t, 8, 0x0b, H_R14, H_RDX);
    uint8_t *wide = emit_jcc(&t->e, CC_NZ);
    rr(t, 4, 0xf7, 6, H_R15);
    uint8_t *done = emit_jmp(&t->e);
    patch_jump(&t->e, wide, t->e.p);
    rr(t, 8, 0xf7, 6, H_R15);
    patch_jump(&t->e, done, t->e.p);
}

bool tr_div(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), is_signed = i->op == OP_IDIV;
    bool byte = i->opsize == 1;
    if ((byte && (is_signed || (!mem && i->rm & BYTE_HIGH))) || (mem && !tr_has_ea(t, i)))
        return false;
    tr_begin_partial(t, PARTIAL_DIV);
    tr_begin(t, tr_bit(REG_RAX) | tr_bit(REG_RDX), false);
    uint32_t rec = tr_slow(t, i);
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
        load_r15(t, i->opsize);
    } else {
        emit_op64(&t->e, 0x8b, H_R15, tr_gpr(i->rm));
    }
    if (byte && !mem)
        byte_of(t, H_R15);
    if (byte)
        div8_guard(t, rec);
    else if (is_signed)
        idiv_guard(t, i->opsize, rec);
    else
        div_guard(t, i->opsize, rec);
    if (!is_signed && i->opsize == 8)
        div64(t);
    else
        emit_rm(&t->e, (struct how){.size = i->opsize, .rm_byte = byte}, OPC(byte ? 0xf6 : 0xf7), is_signed ? 7 : 6,
                op_reg(H_R15));
    tr_set_partial(t, PARTIAL_DIV, 0, 0, rec);
    return true;
}
