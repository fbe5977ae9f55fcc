/*
 * Integer instructions: the same instruction on the host, with registers and memory operands in their new places.
 */
#include "cpu/jit/internal.h"

static struct how how_of(const struct insn *i)
{
    bool has_reg = i->enc == ENC_MR || i->enc == ENC_RM || i->enc == ENC_RMI; /* else it is a digit */
    return (struct how){.size = i->opsize, .reg_byte = has_reg && i->opsize == 1, .rm_byte = i->opsize == 1};
}

static void imm_bytes(struct emit *e, uint64_t imm, unsigned size)
{
    if (size == 1) {
        e8(e, imm & 0xff);
    } else if (size == 2) {
        e8(e, imm & 0xff);
        e8(e, imm >> 8 & 0xff);
    } else {
        e32(e, (uint32_t)imm);
    }
}

static bool fits8(uint64_t imm)
{
    return (int64_t)imm == (int8_t)imm;
}

/* Can reg and rm (a memory operand at [r14], unmapped registers in r15) be encoded together? */
static bool operands_encode(const struct insn *i, struct how w)
{
    bool mem = !(i->flags & INSN_RM_REG);
    bool has_reg = i->enc == ENC_MR || i->enc == ENC_RM || i->enc == ENC_RMI || i->enc == ENC_MRI;
    unsigned reg = 0;
    if (has_reg)
        reg = i->reg & BYTE_HIGH         ? H_HIGH | (i->reg & 3)
              : jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg]
                                         : H_R15;
    return can_encode(w, reg, mem ? op_r14() : tr_gpr(i->rm));
}

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
    if (!operands_encode(i, how_of(i)) || (carry && !tr_can_have_host(t, FLAG_CF)))
        return false;
    if (carry)
        tr_need_host(t, FLAG_CF);
    tr_begin(t, writes ? tr_bit(dst) : 0, !carry);
    unsigned reg = i->enc == ENC_MI ? 0 : tr_reg_in(t, i->reg);
    alu_emit(t, n, i, tr_gpr(i->rm), reg);
    if (writes && i->enc == ENC_RM)
        tr_reg_out(t, i->reg, reg);
    else if (writes)
        tr_zero_upper(t, i->rm, i->opsize);
    alu_flags_reg(t, n, i);
    return true;
}

/* reg op= [mem], CMP and TEST with memory: the memory operand is in r15. */
static void alu_load_flags(struct tr *t, int n, const struct insn *i)
{
    bool live = tr_flags_live(t);
    if (!live) {
        tr_set_flags_dead(t, 0);
    } else if (alu_is_logic(n) && n != ALU_TEST) {
        tr_set_flags_committed(t, alu_recipe(n, i, i->reg, SRC_NONE));
    } else {
        bool mem_first = i->enc != ENC_RM; /* CMP or TEST [mem], x */
        emit_store(&t->e, H_R15, mem_first ? FRAME(m1) : FRAME(m2));
        unsigned other = i->enc == ENC_MI ? SRC_IMM : i->reg;
        tr_set_flags_committed(t, alu_recipe(n, i, mem_first ? SRC_M1 : other, mem_first ? other : SRC_M2));
    }
}

/* Loads the operand at [r14] to r15, for a size of up to 8 bytes; the upper bytes are not defined. */
static void load_r15(struct tr *t, unsigned size)
{
    struct how w = {.size = size == 8 ? 8 : 4};
    if (size >= 4)
        emit_rm(&t->e, w, OPC(0x8b), H_R15, op_r14());
    else
        emit_rm(&t->e, (struct how){.size = 4}, OPC_0F(size == 1 ? 0xb6 : 0xb7), H_R15, op_r14());
}

static bool alu_load(struct tr *t, int n, const struct insn *i)
{
    struct emit *e = &t->e;
    struct how w = how_of(i);
    if (n == ALU_ADC || n == ALU_SBB || !tr_has_ea(t, i))
        return false;
    bool unmapped = i->enc != ENC_MI && !(i->reg & BYTE_HIGH) && jit_host_of[i->reg] < 0;
    if (i->enc != ENC_MI && i->reg & BYTE_HIGH)
        return false;
    bool writes = n != ALU_CMP && n != ALU_TEST;
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, false, rec);
    load_r15(t, i->opsize);
    if (i->enc == ENC_RM) { /* op reg, r15 */
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
    alu_load_flags(t, n, i);
    tr_resume(t, rec);
    return true;
}

/* [mem] op= reg or immediate. */
static bool alu_rmw(struct tr *t, int n, const struct insn *i)
{
    struct emit *e = &t->e;
    if (n == ALU_ADC || n == ALU_SBB || !tr_has_ea(t, i) || (i->enc == ENC_MR && i->reg & BYTE_HIGH))
        return false;
    bool live = tr_flags_live(t), logic = alu_is_logic(n);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, true, rec);
    if (live && !logic) { /* the operand before */
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m1));
    }
    unsigned reg = i->enc == ENC_MI ? 0 : tr_reg_in(t, i->reg);
    alu_emit(t, n, i, op_r14(), reg);
    if (!live) {
        tr_set_flags_dead(t, 0);
    } else if (logic) {
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m1));
        tr_set_flags_committed(t, alu_recipe(n, i, SRC_M1, SRC_NONE));
    } else {
        struct jit_recipe r = alu_recipe(n, i, SRC_M1, i->enc == ENC_MI ? (unsigned)SRC_IMM : i->reg);
        r.kind = n == 0 ? RECIPE_ADD : RECIPE_SUB;
        tr_set_flags_committed(t, r);
    }
    tr_resume(t, rec);
    return true;
}

static bool alu(struct tr *t, const struct insn *i)
{
    int n = alu_number(i->op);
    if (n < 0)
        return false;
    if (i->flags & INSN_RM_REG)
        return alu_reg(t, n, i);
    if (i->enc == ENC_RM || n == ALU_CMP || n == ALU_TEST)
        return alu_load(t, n, i);
    return alu_rmw(t, n, i);
}

/* ---- MOV, MOVZX, MOVSX, LEA ---- */

static bool mov_imm(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool mem = !(i->flags & INSN_RM_REG);
    if (mem && !tr_has_ea(t, i))
        return false;
    tr_begin(t, mem ? 0 : tr_bit(i->rm), false);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
    } else if (i->opsize >= 4 && jit_host_of[i->rm] >= 0) {
        emit_imm(e, (unsigned)jit_host_of[i->rm], i->opsize == 4 ? (uint32_t)i->imm : i->imm);
        return true;
    } else if (i->opsize == 8 && (int64_t)i->imm != (int32_t)i->imm) {
        emit_imm(e, H_R15, i->imm);
        tr_reg_out(t, i->rm, H_R15);
        return true;
    }
    emit_rm(e, how_of(i), OPC(i->opsize == 1 ? 0xc6 : 0xc7), 0, mem ? op_r14() : tr_gpr(i->rm));
    imm_bytes(e, i->imm, i->opsize);
    if (mem)
        tr_resume(t, rec);
    else
        tr_zero_upper(t, i->rm, i->opsize);
    return true;
}

static bool mov(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), load = i->enc == ENC_RM;
    if (i->enc == ENC_MI)
        return mov_imm(t, i);
    if (!operands_encode(i, how_of(i)) || (mem && !tr_has_ea(t, i)))
        return false;
    uint32_t rec = 0;
    tr_begin(t, load ? tr_bit(i->reg) : mem ? 0 : tr_bit(i->rm), false);
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->opsize, !load, rec);
    }
    struct opnd rm = mem ? op_r14() : tr_gpr(i->rm);
    bool full = load && i->opsize >= 4; /* the register's old value does not matter */
    unsigned reg = full && !(i->reg & BYTE_HIGH) && jit_host_of[i->reg] < 0 ? H_R15 : tr_reg_in(t, i->reg);
    emit_rm(&t->e, how_of(i), OPC((uint8_t)(0x88 | (load ? 2 : 0) | (i->opsize != 1))), reg, rm);
    if (load)
        tr_reg_out(t, i->reg, reg);
    else if (!mem)
        tr_zero_upper(t, i->rm, i->opsize);
    if (mem)
        tr_resume(t, rec);
    return true;
}

/* MOVZX, MOVSX, MOVSXD; 16-bit destinations keep the rest of the register. */
static bool mov_extend(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    struct how w = {.size = i->opsize, .rm_byte = i->srcsize == 1};
    struct opcode o;
    if (i->op == OP_MOVSXD)
        o = OPC(i->opsize == 8 ? 0x63 : 0x8b);
    else
        o = OPC_0F((uint8_t)((i->op == OP_MOVZX ? 0xb6 : 0xbe) | (i->srcsize == 2)));
    unsigned reg_host = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R15;
    if ((mem && !tr_has_ea(t, i)) || !can_encode(w, reg_host, mem ? op_r14() : tr_gpr(i->rm)))
        return false;
    uint32_t rec = 0;
    tr_begin(t, tr_bit(i->reg), false);
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->srcsize, false, rec);
    }
    unsigned reg = i->opsize >= 4 ? reg_host : tr_reg_in(t, i->reg);
    emit_rm(&t->e, w, o, reg, mem ? op_r14() : tr_gpr(i->rm));
    tr_reg_out(t, i->reg, reg);
    if (mem)
        tr_resume(t, rec);
    return true;
}

static bool lea(struct tr *t, const struct insn *i)
{
    if (i->adsize == 2 || i->flags & INSN_DISP64)
        return false;
    struct insn plain = *i;
    plain.seg = SEG_NONE;
    plain.flags &= (uint16_t)~INSN_SEGCHK;
    if (!tr_has_ea(t, &plain))
        return false;
    tr_begin(t, tr_bit(i->reg), false);
    tr_ea(t, &plain);
    if (i->opsize == 2) {
        unsigned reg = tr_reg_in(t, i->reg);
        emit_rm(&t->e, (struct how){.size = 2}, OPC(0x8b), reg, op_reg(H_R14));
        tr_reg_out(t, i->reg, reg);
    } else if (jit_host_of[i->reg] >= 0) {
        emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x8b), (unsigned)jit_host_of[i->reg], op_reg(H_R14));
    } else {
        if (i->opsize == 4)
            emit_rm(&t->e, (struct how){.size = 4}, OPC(0x8b), H_R14, op_reg(H_R14));
        tr_reg_out(t, i->reg, H_R14);
    }
    return true;
}

/* ---- one operand: INC DEC NEG NOT ---- */

static bool inc_dec(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), down = i->op == OP_DEC;
    struct emit *e = &t->e;
    if ((mem && !tr_has_ea(t, i)) || (!mem && i->rm & BYTE_HIGH))
        return false;
    struct jit_recipe r = {.size = i->opsize, .a = mem ? (uint8_t)SRC_M3 : i->rm, .b = SRC_NONE};
    uint32_t rec = 0;
    if (mem) {
        tr_commit(t);
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m3));
    } else {
        bool again = t->overlay.kind && t->overlay.a == i->rm;
        if (again) /* of the older one only CF counts, which is not its own */
            t->overlay.kind = RECIPE_NONE;
        tr_begin(t, tr_bit(i->rm), false);
    }
    bool carry_ok = t->host && !(t->undefined & FLAG_CF), live = tr_flags_live(t);
    emit_rm(e, how_of(i), OPC(i->opsize == 1 ? 0xfe : 0xff), down, mem ? op_r14() : tr_gpr(i->rm));
    if (!mem)
        tr_zero_upper(t, i->rm, i->opsize);
    t->host = true;
    t->undefined = carry_ok ? 0 : FLAG_CF;
    r.kind = mem ? (down ? RECIPE_DEC : RECIPE_INC) : (down ? RECIPE_DECR : RECIPE_INCR);
    if (!live) {
        tr_set_flags_dead(t, carry_ok ? 0 : FLAG_CF);
    } else {
        t->overlay = r;
        t->overlay_rec = 0;
    }
    if (mem) {
        tr_commit(t);
        tr_resume(t, rec);
    }
    return true;
}

static bool neg_not(struct tr *t, const struct insn *i)
{
    bool neg = i->op == OP_NEG;
    if (!(i->flags & INSN_RM_REG) || i->rm & BYTE_HIGH)
        return false;
    tr_begin(t, tr_bit(i->rm), neg);
    emit_rm(&t->e, how_of(i), OPC(i->opsize == 1 ? 0xf6 : 0xf7), neg ? 3 : 2, tr_gpr(i->rm));
    tr_zero_upper(t, i->rm, i->opsize);
    if (neg)
        tr_set_flags(t, (struct jit_recipe){.kind = RECIPE_NEGR, .size = i->opsize, .a = i->rm, .b = SRC_NONE});
    return true;
}

/* ---- shifts and rotates of registers ---- */

static int shift_digit(unsigned op)
{
    return op == OP_ROL ? 0 : op == OP_ROR ? 1 : op == OP_SHL ? 4 : op == OP_SHR ? 5 : op == OP_SAR ? 7 : -1;
}

static void shift_emit(struct tr *t, const struct insn *i, unsigned digit)
{
    unsigned op = i->enc == ENC_MC ? 0xd2 : i->enc == ENC_M1 ? 0xd0 : 0xc0;
    emit_rm(&t->e, how_of(i), OPC((uint8_t)(op | (i->opsize != 1))), digit, tr_gpr(i->rm));
    if (i->enc == ENC_MI)
        e8(&t->e, (unsigned)i->imm & 0xff);
    tr_zero_upper(t, i->rm, i->opsize);
}

static bool shift(struct tr *t, const struct insn *i)
{
    int digit = shift_digit(i->op);
    bool live = tr_flags_live(t), rotates = digit < 2;
    bool zero = i->enc == ENC_MI && !(i->imm & (i->opsize == 8 ? 63 : 31));
    if (digit < 0 || !(i->flags & INSN_RM_REG) || i->rm & BYTE_HIGH || zero)
        return false;
    if (live && (i->enc == ENC_MC || (rotates && !tr_can_have_host(t, FLAGS_ARITH))))
        return false;
    if (live && rotates)
        tr_need_host(t, FLAGS_ARITH);
    tr_begin(t, tr_bit(i->rm), !rotates && i->enc != ENC_MC);
    if (!live) {
        shift_emit(t, i, (unsigned)digit);
        tr_set_flags_dead(t, FLAGS_ARITH);
    } else if (rotates) {
        shift_emit(t, i, (unsigned)digit);
        tr_set_flags_image(t);
    } else { /* the operand before is kept for the recipe */
        emit_store(&t->e, tr_reg_in(t, i->rm), FRAME(m1));
        shift_emit(t, i, (unsigned)digit);
        tr_set_flags(
            t, (struct jit_recipe){.kind = RECIPE_EXEC, .insn = i, .size = i->opsize, .a = SRC_M1, .b = SRC_NONE});
    }
    return true;
}

/* ---- IMUL of two and three operands, POPCNT ---- */

/* The instruction as it would be with its memory operand in a register: for recipes. */
static const struct insn *register_form(struct tr *t, const struct insn *i)
{
    uint32_t at = jit_data_alloc(&t->j->arena, sizeof *i);
    struct insn *copy = jit_data(&t->j->arena, at);
    if (!at) {
        t->e.full = true;
        return i;
    }
    *copy = *i;
    copy->flags |= INSN_RM_REG;
    copy->rm = REG_RCX;
    copy->fn = interp_bind(copy, t->mode);
    return copy;
}

static bool imul(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), live = tr_flags_live(t);
    struct emit *e = &t->e;
    if (i->enc == ENC_M || (mem && !tr_has_ea(t, i)))
        return false;
    uint32_t rec = 0;
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
        load_r15(t, i->opsize);
        if (live)
            emit_store(e, H_R15, FRAME(m2));
    } else if (live) {
        emit_store(e, tr_reg_in(t, i->rm), FRAME(m2));
    }
    unsigned reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R14;
    if (reg == H_R14)
        emit_load(e, H_R14, FRAME(gpr) + 8 * (i->reg - 13));
    if (live)
        emit_store(e, reg, FRAME(m1));
    struct opnd rm = mem ? op_reg(H_R15) : tr_gpr(i->rm);
    if (i->enc == ENC_RM) {
        emit_rm(e, how_of(i), OPC_0F(0xaf), reg, rm);
    } else {
        emit_rm(e, how_of(i), OPC(fits8(i->imm) ? 0x6b : 0x69), reg, rm);
        imm_bytes(e, i->imm, fits8(i->imm) ? 1 : i->opsize);
    }
    tr_reg_out(t, i->reg, reg);
    struct jit_recipe r = {.kind = RECIPE_EXEC, .insn = i, .size = i->opsize, .a = SRC_M1, .b = SRC_M2};
    if (mem && live)
        r.insn = register_form(t, i);
    if (!live)
        tr_set_flags_dead(t, FLAGS_ARITH & ~(FLAG_CF | FLAG_OF));
    else if (mem)
        tr_set_flags_committed(t, r);
    else
        tr_set_flags(t, r);
    if (mem)
        tr_resume(t, rec);
    return true;
}

/* ---- flags as operands: SETcc, CMOVcc ---- */

static unsigned cc_flags(unsigned cc)
{
    static const uint16_t mask[] = {FLAG_OF, FLAG_CF, FLAG_ZF,           FLAG_CF | FLAG_ZF,
                                    FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_ZF | FLAG_SF | FLAG_OF};
    return mask[cc >> 1];
}

static bool setcc(struct tr *t, const struct insn *i)
{
    unsigned mask = cc_flags(i->cc);
    if (!(i->flags & INSN_RM_REG) || !tr_can_have_host(t, mask))
        return false;
    tr_need_host(t, mask);
    tr_begin(t, tr_bit(i->rm), false);
    emit_rm(&t->e, (struct how){.size = 1, .rm_byte = true}, OPC_0F((uint8_t)(0x90 | i->cc)), 0, tr_gpr(i->rm));
    return true;
}

static bool cmov(struct tr *t, const struct insn *i)
{
    unsigned mask = cc_flags(i->cc);
    if (!(i->flags & INSN_RM_REG) || !tr_can_have_host(t, mask))
        return false;
    tr_need_host(t, mask);
    tr_begin(t, tr_bit(i->reg), false);
    unsigned reg = tr_reg_in(t, i->reg);
    emit_rm(&t->e, how_of(i), OPC_0F((uint8_t)(0x40 | i->cc)), reg, tr_gpr(i->rm));
    tr_reg_out(t, i->reg, reg);
    return true;
}

/* ---- the rest ---- */

static bool cbw_cwd(struct tr *t, const struct insn *i)
{
    tr_begin(t, tr_bit(i->op == OP_CBW ? REG_RAX : REG_RDX), false);
    if (i->opsize == 2)
        e8(&t->e, 0x66);
    if (i->opsize == 8)
        e8(&t->e, 0x48);
    e8(&t->e, i->op == OP_CBW ? 0x98 : 0x99);
    return true;
}

static bool bswap(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2 || jit_host_of[i->rm] < 0)
        return false;
    unsigned h = (unsigned)jit_host_of[i->rm];
    tr_begin(t, tr_bit(i->rm), false);
    if (i->opsize == 8 || h & 8)
        e8(&t->e, 0x40 | (i->opsize == 8 ? 8 : 0) | (h & 8 ? 1 : 0));
    e8(&t->e, 0x0f);
    e8(&t->e, 0xc8 | (h & 7));
    return true;
}

static bool xchg(struct tr *t, const struct insn *i)
{
    if (!(i->flags & INSN_RM_REG) || !operands_encode(i, how_of(i)) || i->opsize < 4 || jit_host_of[i->reg] < 0 ||
        jit_host_of[i->rm] < 0)
        return false;
    tr_begin(t, tr_bit(i->reg) | tr_bit(i->rm), false);
    emit_rm(&t->e, how_of(i), OPC(0x87), tr_reg_in(t, i->reg), tr_gpr(i->rm));
    return true;
}

bool tr_integer(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_MOV:
        return mov(t, i);
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
        return mov_extend(t, i);
    case OP_LEA:
        return lea(t, i);
    case OP_INC:
    case OP_DEC:
        return inc_dec(t, i);
    case OP_NEG:
    case OP_NOT:
        return neg_not(t, i);
    case OP_ROL:
    case OP_ROR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
        return shift(t, i);
    case OP_IMUL:
        return imul(t, i);
    case OP_SETCC:
        return setcc(t, i);
    case OP_CMOVCC:
        return cmov(t, i);
    case OP_CBW:
    case OP_CWD:
        return cbw_cwd(t, i);
    case OP_BSWAP:
        return bswap(t, i);
    case OP_XCHG:
        return xchg(t, i);
    case OP_NOP:
    case OP_PREFETCH:
    case OP_ENDBR:
    case OP_LFENCE:
    case OP_MFENCE:
    case OP_SFENCE:
        return true;
    default:
        return alu(t, i);
    }
}
