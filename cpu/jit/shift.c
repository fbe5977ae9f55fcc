/*
 * Shifts and rotates: of registers and memory, by immediates and by CL.
 *
 * Shifts set all flags unless the count is zero; what the processor leaves undefined the recipe knows. Rotates set CF
 * and OF alone: OF is defined for the last of single steps, so a rotate whose flags are looked at is done in two.
 */
#include "cpu/jit/integer.h"

static int shift_digit(unsigned op)
{
    return op == OP_ROL ? 0 : op == OP_ROR ? 1 : op == OP_SHL ? 4 : op == OP_SHR ? 5 : op == OP_SAR ? 7 : -1;
}

static unsigned count_of(const struct insn *i)
{
    return i->enc == ENC_M1 ? 1 : (unsigned)i->imm & (i->opsize == 8 ? 63 : 31);
}

/* By an immediate count, or by CL if `count` is negative. */
static void shift_emit(struct tr *t, const struct insn *i, unsigned digit, struct opnd rm, int count)
{
    unsigned op = count < 0 ? 0xd2 : count == 1 ? 0xd0 : 0xc0;
    emit_rm(&t->e, (struct how){.size = i->opsize, .rm_byte = i->opsize == 1}, OPC((uint8_t)(op | (i->opsize != 1))),
            digit, rm);
    if (count > 1)
        e8(&t->e, (unsigned)count);
}

/* jz over what does nothing when CL is zero; clobbers flags. */
static uint8_t *skip_if_no_count(struct tr *t, const struct insn *i)
{
    emit_rm(&t->e, (struct how){.size = 1, .rm_byte = true}, OPC(0xf6), 0, op_reg(H_RCX));
    e8(&t->e, i->opsize == 8 ? 63 : 31);
    return emit_jcc(&t->e, CC_Z);
}

/* The operand before, for the recipe. */
static void keep_operand(struct tr *t, const struct insn *i, bool mem)
{
    if (mem)
        load_r15(t, i->opsize);
    emit_store(&t->e, mem ? H_R15 : tr_reg_in(t, i->rm), FRAME(m1));
}

static struct jit_recipe shift_recipe(struct tr *t, const struct insn *i, bool mem)
{
    return (struct jit_recipe){.kind = RECIPE_EXEC,
                               .insn = mem ? tr_register_form(t, i) : i,
                               .size = i->opsize,
                               .a = SRC_M1,
                               .b = i->enc == ENC_MC ? SRC_M2 : SRC_NONE};
}

/* The register's upper half is cleared; flags stay. */
static void zero_extend(struct tr *t, unsigned g)
{
    if (jit_host_of[g] >= 0)
        emit_rm(&t->e, (struct how){.size = 4}, OPC(0x8b), (unsigned)jit_host_of[g], tr_gpr(g));
    else
        tr_zero_upper(t, g, 4);
}

/* By CL, flags wanted: they stay as they were if the count is zero. */
static void shift_by_cl(struct tr *t, const struct insn *i, unsigned digit, bool mem)
{
    struct opnd rm = mem ? op_r14() : tr_gpr(i->rm);
    uint8_t *none = skip_if_no_count(t, i);
    keep_operand(t, i, mem);
    emit_store(&t->e, H_RCX, FRAME(m2));
    shift_emit(t, i, digit, rm, -1);
    tr_set_flags_committed(t, shift_recipe(t, i, mem));
    patch_jump(&t->e, none, t->e.p);
    tr_clobber(t);
    if (!mem && i->opsize == 4)
        emit_rm(&t->e, (struct how){.size = 4}, OPC(0x8b), H_R15, rm), tr_reg_out(t, i->rm, H_R15);
    if (!mem && i->opsize == 4 && jit_host_of[i->rm] >= 0)
        emit_rm(&t->e, (struct how){.size = 4}, OPC(0x8b), (unsigned)jit_host_of[i->rm], rm);
}

static void shift_by_imm(struct tr *t, const struct insn *i, unsigned digit, bool mem, bool live)
{
    if (live)
        keep_operand(t, i, mem);
    struct opnd rm = mem ? op_r14() : tr_gpr_change(t, i->rm, i->opsize);
    shift_emit(t, i, digit, rm, i->enc == ENC_MC ? -1 : (int)count_of(i));
    if (!mem)
        tr_gpr_changed(t, i->rm, i->opsize);
    if (!live)
        tr_set_flags_dead(t, FLAGS_ARITH);
    else if (mem)
        tr_set_flags_committed(t, shift_recipe(t, i, mem));
    else
        tr_set_flags(t, shift_recipe(t, i, mem));
}

static void rotate(struct tr *t, const struct insn *i, unsigned digit, bool mem, bool live, uint32_t rec)
{
    struct opnd rm = mem ? op_r14() : tr_gpr_change(t, i->rm, i->opsize);
    unsigned kept = t->host ? FLAGS_ARITH & ~t->undefined : 0;
    int count = i->enc == ENC_MC ? -1 : (int)count_of(i);
    if (live && count > 1) {
        shift_emit(t, i, digit, rm, count - 1);
        count = 1;
    }
    shift_emit(t, i, digit, rm, count);
    if (!mem)
        tr_gpr_changed(t, i->rm, i->opsize);
    tr_set_partial(t, PARTIAL_CFOF, FLAG_CF | FLAG_OF, live ? kept : 0, rec);
}

/*
 * By CL, flags wanted: they stay if the count is zero. Else CF and OF follow from the result, and rotating it once back
 * and once forth makes the host say so.
 */
static bool rotate_by_cl(struct tr *t, const struct insn *i, unsigned digit, bool mem)
{
    bool have = tr_can_have_host(t, FLAG_CF | FLAG_OF);
    if ((mem || !have) && !tr_can_restore(t))
        return false;
    tr_begin_partial(t, PARTIAL_CFOF);
    tr_begin(t, mem ? 0 : tr_bit(i->rm), false);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
    }
    tr_restore(t, FLAG_CF | FLAG_OF);
    tr_store_partial(t, PARTIAL_CFOF);
    struct opnd rm = mem ? op_r14() : tr_gpr(i->rm);
    if (!mem && i->opsize == 4) /* zero-extended in any case */
        zero_extend(t, i->rm);
    uint8_t *none = skip_if_no_count(t, i);
    shift_emit(t, i, digit, rm, -1);
    shift_emit(t, i, digit ^ 1, rm, 1);
    shift_emit(t, i, digit, rm, 1);
    tr_store_partial(t, PARTIAL_CFOF);
    patch_jump(&t->e, none, t->e.p);
    tr_clobber(t);
    tr_have_partial(t, PARTIAL_CFOF, rec);
    return true;
}

/* RCL, RCR by one: the carry goes in, CF and OF come out. */
bool tr_rotate_carry(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    if (i->enc != ENC_M1 && (i->enc != ENC_MI || count_of(i) != 1))
        return false;
    if (mem ? !tr_has_ea(t, i) : (bool)(i->rm & BYTE_HIGH))
        return false;
    if (mem ? !tr_can_restore_carry(t) : !tr_can_have_carry(t))
        return false;
    tr_begin_partial(t, PARTIAL_CFOF);
    tr_begin(t, mem ? 0 : tr_bit(i->rm), false);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
    }
    tr_carry(t);
    shift_emit(t, i, i->op == OP_RCL ? 2 : 3, mem ? op_r14() : tr_gpr(i->rm), 1);
    if (!mem)
        tr_zero_upper(t, i->rm, i->opsize);
    tr_set_partial(t, PARTIAL_CFOF, FLAG_CF | FLAG_OF, 0, rec);
    return true;
}

bool tr_shift(struct tr *t, const struct insn *i)
{
    int digit = shift_digit(i->op);
    bool live = tr_flags_live(t), rotates = digit < 2, by_cl = i->enc == ENC_MC;
    bool mem = !(i->flags & INSN_RM_REG);
    if (digit < 0 || (!by_cl && !count_of(i)) || (mem ? !tr_has_ea(t, i) : (bool)(i->rm & BYTE_HIGH)))
        return false;
    if (live && by_cl && rotates)
        return rotate_by_cl(t, i, (unsigned)digit, mem);
    if (rotates)
        tr_begin_partial(t, PARTIAL_CFOF);
    else if (by_cl && live)
        tr_commit(t);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
    } else {
        tr_begin(t, tr_bit(i->rm), !rotates && !by_cl);
    }
    if (rotates)
        rotate(t, i, (unsigned)digit, mem, live, rec);
    else if (by_cl && live)
        shift_by_cl(t, i, (unsigned)digit, mem);
    else
        shift_by_imm(t, i, (unsigned)digit, mem, live);
    if (mem && !rotates)
        tr_resume(t, rec);
    return true;
}

/* ---- SHLD, SHRD of registers ---- */

bool tr_shift_double(struct tr *t, const struct insn *i)
{
    bool live = tr_flags_live(t), by_cl = i->enc == ENC_MRC;
    struct emit *e = &t->e;
    if (!(i->flags & INSN_RM_REG) || i->opsize < 4 || (live && by_cl) || (!by_cl && !count_of(i)))
        return false;
    tr_begin(t, tr_bit(i->rm), !by_cl);
    if (live) {
        emit_store(e, tr_reg_in(t, i->rm), FRAME(m1));
        emit_store(e, tr_reg_in(t, i->reg), FRAME(m2));
    }
    unsigned op = (i->op == OP_SHLD ? 0xa4u : 0xacu) | by_cl;
    emit_rm(e, (struct how){.size = i->opsize}, OPC_0F((uint8_t)op), tr_reg_in(t, i->reg), tr_gpr(i->rm));
    if (!by_cl)
        e8(e, count_of(i));
    if (by_cl && i->opsize == 4 && jit_host_of[i->rm] >= 0)
        emit_rm(e, (struct how){.size = 4}, OPC(0x8b), (unsigned)jit_host_of[i->rm], tr_gpr(i->rm));
    tr_zero_upper(t, i->rm, i->opsize);
    struct jit_recipe r = {.kind = RECIPE_EXEC, .insn = i, .size = i->opsize, .a = SRC_M1, .b = SRC_M2};
    if (!live)
        tr_set_flags_dead(t, FLAGS_ARITH);
    else
        tr_set_flags(t, r);
    return true;
}
