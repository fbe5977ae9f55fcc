/*
 * ALU instructions: ADD OR ADC SBB AND SUB XOR CMP, TEST.
 */
#include "cpu/jit/integer.h"

/* ---- ALU: ADD OR ADC SBB AND SUB XOR CMP, TEST ---- */

static int alu_number(unsigned op)
{
    static const uint16_t ops[] = {OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP, OP_TEST};
    for (int n = 0; n < (int)ARRAY_LEN(ops); n++)
        if (ops[n] == op)
            return n;
    return -1;
}

enum { ALU_ADC = 2, ALU_SBB = 3, ALU_SUB = 5, ALU_CMP = 7, ALU_TEST = 8 };

static bool alu_is_logic(int n)
{
    return n == 1 || n == 4 || n == 6 || n == ALU_TEST;
}

/* Recipe of dst op= src; the operand that is written holds the result. */
static struct jit_recipe alu_recipe(int n, const struct insn *i, unsigned dst, unsigned src)
{
    struct jit_recipe r = {.size = i->opsize, .imm = i->imm, .a = (uint8_t)dst, .b = (uint8_t)src};
    if (n == ALU_TEST && src != SRC_NONE) {
        r.kind = RECIPE_AND;
    } else if (alu_is_logic(n) || (n == ALU_SUB && dst == src)) { /* a register less itself: 0, no carry */
        r.kind = RECIPE_LOGIC;
        r.b = SRC_NONE;
    } else if (n == 0) {
        r.kind = RECIPE_ADDR;
    } else {
        r.kind = n == ALU_CMP ? RECIPE_SUB : RECIPE_SUBR;
    }
    return r;
}

/* Emits the operation itself. */
static void alu_emit(struct tr *t, int n, const struct insn *i, struct opnd rm, unsigned reg)
{
    struct emit *e = &t->e;
    struct how w = how_of(i);
    unsigned wide = i->opsize != 1;
    if (i->enc == ENC_MI) {
        bool small = i->opsize != 1 && fits8(i->imm) && n != ALU_TEST;
        unsigned op = n == ALU_TEST ? 0xf6 | wide : small ? 0x83 : 0x80 | wide;
        emit_rm(e, w, OPC((uint8_t)op), n == ALU_TEST ? 0 : (unsigned)n, rm);
        imm_bytes(e, i->imm, small ? 1 : i->opsize);
    } else if (n == ALU_TEST) {
        emit_rm(e, w, OPC((uint8_t)(0x84 | wide)), reg, rm);
    } else {
        emit_rm(e, w, OPC((uint8_t)(n << 3 | (i->enc == ENC_RM ? 2 : 0) | wide)), reg, rm);
    }
}

/* XOR and SUB of a register with itself, and flags that a recipe cannot say: AH..BH, an operand that is its own
 * destination. */
static bool alu_recipe_works(int n, const struct insn *i)
{
    unsigned dst = i->enc == ENC_RM ? i->reg : i->rm;
    if (dst & BYTE_HIGH || (i->enc != ENC_MI && (i->reg | i->rm) & BYTE_HIGH))
        return false;
    if (n == ALU_ADC || n == ALU_SBB)
        return false;
    return n != 0 || i->enc == ENC_MI || i->reg != i->rm;
}

static void alu_flags_reg(struct tr *t, int n, const struct insn *i)
{
    unsigned dst = i->enc == ENC_RM ? i->reg : i->rm, src = i->enc == ENC_RM ? i->rm : i->reg;
    if (alu_recipe_works(n, i))
        tr_set_flags(t, alu_recipe(n, i, dst, i->enc == ENC_MI ? SRC_IMM : src));
    else if (tr_flags_live(t))
        tr_set_flags_image(t);
    else
        tr_set_flags_dead(t, 0);
}

static bool alu_reg(struct tr *t, int n, const struct insn *i)
{
    unsigned dst = i->enc == ENC_RM ? i->reg : i->rm;
    bool carry = n == ALU_ADC || n == ALU_SBB;
    bool writes = n != ALU_CMP && n != ALU_TEST;
    if (!operands_encode(i, how_of(i)) || (carry && !tr_can_have_carry(t)))
        return false;
    if (carry)
        tr_carry(t);
    tr_begin(t, writes ? tr_bit(dst) : 0, !carry);
    struct insn turned = *i; /* the register that is written in the place that takes no operand in memory */
    if (i->enc == ENC_MR && (is_from_frame(i) || (writes && i->opsize == 4 && jit_host_of[i->rm] < 0))) {
        turned.enc = ENC_RM;
        turned.reg = i->rm;
        turned.rm = i->reg;
    }
    if (turned.enc == ENC_MI) {
        alu_emit(t, n, i, writes ? tr_gpr_change(t, i->rm, i->opsize) : tr_gpr(i->rm), 0);
        if (writes)
            tr_gpr_changed(t, i->rm, i->opsize);
    } else {
        unsigned reg = tr_reg_in(t, turned.reg);
        alu_emit(t, n, &turned, tr_gpr(turned.rm), reg);
        if (writes && turned.enc == ENC_RM)
            tr_reg_out(t, turned.reg, reg);
    }
    alu_flags_reg(t, n, i);
    return true;
}

/* reg op= [mem], CMP and TEST with memory: the memory operand is in r15. */
static void alu_load_flags(struct tr *t, int n, const struct insn *i, uint32_t rec)
{
    bool live = tr_flags_live(t);
    if (!live) {
        tr_set_flags_dead(t, 0);
    } else if (n == ALU_ADC || n == ALU_SBB) {
        tr_set_flags_image(t);
    } else if (alu_is_logic(n) && n != ALU_TEST) {
        tr_set_flags_memory(t, alu_recipe(n, i, i->reg, SRC_NONE), rec);
    } else {
        bool mem_first = i->enc != ENC_RM; /* CMP or TEST [mem], x */
        emit_store(&t->e, H_R15, mem_first ? FRAME(m1) : FRAME(m2));
        unsigned other = i->enc == ENC_MI ? SRC_IMM : i->reg;
        tr_set_flags_memory(t, alu_recipe(n, i, mem_first ? SRC_M1 : other, mem_first ? other : SRC_M2), rec);
    }
}

static bool alu_load(struct tr *t, int n, const struct insn *i)
{
    struct emit *e = &t->e;
    struct how w = how_of(i);
    bool carry = n == ALU_ADC || n == ALU_SBB;
    if (!tr_has_ea(t, i) || (carry && !tr_can_restore(t)))
        return false;
    bool unmapped = i->enc != ENC_MI && !(i->reg & BYTE_HIGH) && jit_host_of[i->reg] < 0;
    if (i->enc != ENC_MI && i->reg & BYTE_HIGH)
        return false;
    bool writes = n != ALU_CMP && n != ALU_TEST;
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, false, rec);
    load_r15(t, i->opsize);
    if (carry) { /* ADC and SBB reg, r14: r15 is needed for the carry */
        emit_mov(e, H_R14, H_R15);
        tr_carry(t);
        unsigned reg = tr_reg_in(t, i->reg);
        alu_emit(t, n, i, op_reg(H_R14), reg);
        tr_reg_out(t, i->reg, reg);
    } else if (i->enc == ENC_RM) { /* op reg, r15 */
        unsigned reg = unmapped ? H_R14 : (unsigned)jit_host_of[i->reg];
        if (unmapped)
            emit_load(e, H_R14, FRAME(gpr) + 8 * (i->reg - 13));
        alu_emit(t, n, i, op_reg(H_R15), reg);
        if (writes)
            tr_reg_out(t, i->reg, reg);
    } else if (i->enc == ENC_MR) { /* op r15, reg */
        unsigned reg = unmapped ? H_R14 : (unsigned)jit_host_of[i->reg];
        if (unmapped)
            emit_load(e, H_R14, FRAME(gpr) + 8 * (i->reg - 13));
        emit_rm(e, w, OPC((uint8_t)(n == ALU_TEST ? 0x84 | (i->opsize != 1) : n << 3 | (i->opsize != 1))), reg,
                op_reg(H_R15));
    } else {
        alu_emit(t, n, i, op_reg(H_R15), 0);
    }
    alu_load_flags(t, n, i, rec);
    tr_resume(t, rec);
    return true;
}

/* [mem] op= reg or immediate. */
static bool alu_rmw(struct tr *t, int n, const struct insn *i)
{
    struct emit *e = &t->e;
    bool carry = n == ALU_ADC || n == ALU_SBB;
    if (!tr_has_ea(t, i) || (i->enc == ENC_MR && i->reg & BYTE_HIGH) || (carry && !tr_can_restore(t)))
        return false;
    bool live = tr_flags_live(t), logic = alu_is_logic(n);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, true, rec);
    if (carry) {
        tr_carry(t);
    } else if (live && !logic) { /* the operand before */
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m1));
    }
    unsigned reg = i->enc == ENC_MI ? 0 : tr_reg_in(t, i->reg);
    alu_emit(t, n, i, op_r14(), reg);
    if (!live) {
        tr_set_flags_dead(t, 0);
    } else if (carry) {
        tr_set_flags_image(t);
    } else if (logic) {
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m1));
        tr_set_flags_memory(t, alu_recipe(n, i, SRC_M1, SRC_NONE), rec);
    } else {
        struct jit_recipe r = alu_recipe(n, i, SRC_M1, i->enc == ENC_MI ? (unsigned)SRC_IMM : i->reg);
        r.kind = n == 0 ? RECIPE_ADD : RECIPE_SUB;
        tr_set_flags_memory(t, r, rec);
    }
    tr_resume(t, rec);
    return true;
}

/* The immediate may change: it is read where the block has it. */
static bool alu_loose(struct tr *t, int n, const struct insn *i)
{
    struct insn x = *i;
    bool writes = n != ALU_CMP && n != ALU_TEST;
    if (i->rm & BYTE_HIGH || n == ALU_ADC || n == ALU_SBB)
        return false;
    x.enc = ENC_RM;
    x.reg = i->rm;
    if (!operands_encode(&x, how_of(&x)))
        return false;
    tr_begin(t, writes ? tr_bit(i->rm) : 0, true);
    tr_load_address(t, H_R14, &i->imm);
    load_r15(t, i->opsize);
    unsigned reg = H_R14;
    if (jit_host_of[i->rm] >= 0)
        reg = (unsigned)jit_host_of[i->rm];
    else
        emit_load(&t->e, H_R14, FRAME(gpr) + 8 * (i->rm - 13));
    alu_emit(t, n, &x, op_reg(H_R15), reg);
    if (writes)
        tr_reg_out(t, i->rm, reg);
    alu_load_flags(t, n, &x, 0);
    return true;
}

bool tr_alu(struct tr *t, const struct insn *i)
{
    int n = alu_number(i->op);
    if (n < 0)
        return false;
    if (i->flags & INSN_PATCHED)
        return alu_loose(t, n, i);
    if (i->flags & INSN_RM_REG)
        return alu_reg(t, n, i);
    if (i->enc == ENC_RM || n == ALU_CMP || n == ALU_TEST)
        return alu_load(t, n, i);
    return alu_rmw(t, n, i);
}
