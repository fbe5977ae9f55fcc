/*
 * BMI1, BMI2, MOVBE: the same instruction on the host, if it has it.
 *
 * Flags are those of the result, as logic operations have them, but for CF, which some set by their source.
 */
#include "cpu/jit/integer.h"

struct bmi_operands {
    unsigned reg, vvvv; /* host registers */
    struct opnd rm;
};

/* Guest registers outside host registers: sources are loaded, results stored by finish(). */
static unsigned host_or(unsigned g, unsigned scratch)
{
    return jit_host_of[g] >= 0 ? (unsigned)jit_host_of[g] : scratch;
}

static void load_if(struct tr *t, unsigned g, unsigned scratch)
{
    if (jit_host_of[g] < 0)
        emit_load(&t->e, scratch, FRAME(gpr) + 8 * ((int)g - 13));
}

static bool has_vvvv(const struct insn *i)
{
    return i->enc == ENC_RVM || i->enc == ENC_RMV || i->enc == ENC_VM;
}

/* Is vvvv a destination, and reg? */
static bool writes_vvvv(const struct insn *i)
{
    return i->enc == ENC_VM || i->op == OP_MULX;
}

static bool writes_reg(const struct insn *i)
{
    return i->enc != ENC_VM;
}

/* A memory operand is in r15 by now. */
static struct bmi_operands operands(struct tr *t, const struct insn *i, bool mem)
{
    struct bmi_operands o = {.rm = mem ? op_reg(H_R15) : tr_gpr(i->rm)};
    unsigned digit = insn_form(i)->modrm & 7u;
    o.reg = writes_reg(i) ? host_or(i->reg, H_R14) : digit;
    if (i->op == OP_MULX)
        o.vvvv = host_or(i->vvvv, H_R15);
    else
        o.vvvv = has_vvvv(i) ? host_or(i->vvvv, H_R14) : 0;
    if (has_vvvv(i) && !writes_vvvv(i))
        load_if(t, i->vvvv, H_R14);
    return o;
}

static void encode(struct tr *t, const struct insn *i, const struct bmi_operands *o)
{
    static const uint8_t kinds[] = {[PP_NP] = 0, [PP_P66] = 1, [PP_PF3] = 2, [PP_PF2] = 3};
    const struct op_form *f = insn_form(i);
    unsigned map = (f->key >> 8) - MAP_V0F + 1u, pp = kinds[f->prefix & PP_KIND];
    e8(&t->e, 0xc4);
    e8(&t->e, (o->reg & 8 ? 0 : 0x80) | 0x40 | (opnd_rex_b(o->rm) ? 0 : 0x20) | map);
    e8(&t->e, (i->opsize == 8 ? 0x80u : 0) | (~o->vvvv & 15) << 3 | pp);
    e8(&t->e, f->key & 0xff);
    emit_operand(&t->e, o->reg, o->rm);
    if (i->enc == ENC_RMI)
        e8(&t->e, (unsigned)i->imm & 0xff);
}

/* MULX whose results go to one register leaves the upper half there. */
static void finish(struct tr *t, const struct insn *i, const struct bmi_operands *o)
{
    if (writes_vvvv(i))
        tr_reg_out(t, i->vvvv, o->vvvv);
    if (writes_reg(i))
        tr_reg_out(t, i->reg, o->reg);
}

static uint32_t writes(const struct insn *i)
{
    return (writes_vvvv(i) ? tr_bit(i->vvvv) : 0) | (writes_reg(i) ? tr_bit(i->reg) : 0);
}

/* The logic flags of the result, which is in `dest`, and CF as the host has it. */
static void result_flags(struct tr *t, const struct insn *i, unsigned dest, uint32_t rec)
{
    bool carry = i->op != OP_ANDN;
    tr_set_flags(t, (struct jit_recipe){.kind = RECIPE_LOGIC, .size = i->opsize, .a = (uint8_t)dest, .b = SRC_NONE});
    t->undefined = FLAG_AF | FLAG_PF;
    if (carry)
        tr_set_partial(t, PARTIAL_CF, FLAG_CF, FLAG_ZF | FLAG_SF | FLAG_OF, rec);
    else if (rec)
        tr_resume(t, rec);
}

static bool sets_flags(const struct insn *i)
{
    return insn_form(i)->write & FLAGS_ARITH;
}

bool tr_bmi(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    const struct op_form *f = insn_form(i);
    if (f->key >> 8 < MAP_V0F || !tr_host_has(t, f->gate) || (mem && !tr_has_ea(t, i)))
        return false;
    if (i->op == OP_BEXTR && tr_flags_live(t)) /* not quite those of the result */
        return false;
    tr_begin(t, writes(i), sets_flags(i) && !mem);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
        load_r15(t, i->opsize);
    }
    struct bmi_operands o = operands(t, i, mem);
    encode(t, i, &o);
    finish(t, i, &o);
    if (i->op == OP_BEXTR)
        tr_set_flags_dead(t, FLAGS_ARITH & ~FLAG_ZF);
    else if (sets_flags(i))
        result_flags(t, i, writes_reg(i) ? i->reg : i->vvvv, rec);
    if (mem && (!sets_flags(i) || i->op == OP_BEXTR))
        tr_resume(t, rec);
    return true;
}

/* ---- MOVBE ---- */

bool tr_movbe(struct tr *t, const struct insn *i)
{
    bool load = i->enc == ENC_RM;
    if (!tr_host_has(t, GATE_MOVBE) || !tr_has_ea(t, i))
        return false;
    tr_begin(t, load ? tr_bit(i->reg) : 0, false);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, !load, rec);
    unsigned reg = load && i->opsize >= 4 ? host_or(i->reg, H_R15) : tr_reg_in(t, i->reg);
    emit_rm(&t->e, (struct how){.size = i->opsize}, (struct opcode){0, 0x38, load ? 0xf0 : 0xf1}, reg, op_r14());
    if (load)
        tr_reg_out(t, i->reg, reg);
    tr_resume(t, rec);
    return true;
}
