/*
 * AVX, AVX2, FMA, F16C: the same instruction, encoded anew, on the host's registers.
 *
 * Masked moves and gathers are the handlers': parts of them may fault, or must not.
 */
#include "cpu/jit/internal.h"

static bool is_masked(const struct insn *i)
{
    switch (i->op) {
    case OP_VMASKMOVPS:
    case OP_VMASKMOVPD:
    case OP_VPMASKMOVD:
    case OP_VPMASKMOVQ:
    case OP_VMASKMOVDQU:
        return true;
    default:
        return insn_form(i)->props & PROP_VSIB;
    }
}

static bool has_shape(const struct tr *t, const struct insn *i)
{
    switch (i->enc) {
    case ENC_RM:
    case ENC_MR:
    case ENC_RMI:
    case ENC_MRI:
    case ENC_RVM:
    case ENC_RVMI:
    case ENC_VMI:
    case ENC_MVR:
        return true;
    default: /* VZEROALL means fewer registers outside 64-bit code */
        return (i->op == OP_VZEROUPPER || i->op == OP_VZEROALL) && t->wide;
    }
}

bool tr_is_avx(const struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    unsigned map = f->key >> 8;
    if (map != MAP_V0F && map != MAP_V38 && map != MAP_V3A)
        return false;
    if (!tr_host_has(t, GATE_AVX) || f->gate >= GATE_COUNT || !tr_host_has(t, f->gate))
        return false;
    if ((f->reg_kind != KIND_X && f->rm_kind != KIND_X) || is_masked(i) || !has_shape(t, i))
        return false;
    return !insn_has_mem(i) || tr_has_ea(t, i);
}

static bool names_vvvv(const struct insn *i)
{
    return i->enc == ENC_RVM || i->enc == ENC_RVMI || i->enc == ENC_VMI || i->enc == ENC_MVR;
}

/* The prefix; reg and rm as they will be in ModRM. */
static void vex_prefix(struct tr *t, const struct insn *i, unsigned reg, struct opnd rm)
{
    static const uint8_t kinds[] = {[PP_NP] = 0, [PP_P66] = 1, [PP_PF3] = 2, [PP_PF2] = 3};
    const struct op_form *f = insn_form(i);
    unsigned map = (f->key >> 8) - MAP_V0F + 1u, pp = kinds[f->prefix & PP_KIND];
    unsigned v = names_vvvv(i) ? i->vvvv : 0, b = opnd_rex_b(rm);
    bool l = (i->flags & INSN_VEX_L) && (i->opsize == 32 || i->srcsize == 32);
    bool w = (i->flags & INSN_W) && (t->wide || f->prefix & PP_W1);
    unsigned low = (~v & 15) << 3 | (unsigned)l << 2 | pp;
    if (map == 1 && !w && !b) {
        e8(&t->e, 0xc5);
        e8(&t->e, (reg & 8 ? 0 : 0x80) | low);
        return;
    }
    e8(&t->e, 0xc4);
    e8(&t->e, (reg & 8 ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | map);
    e8(&t->e, (w ? 0x80u : 0) | low);
}

static bool has_imm(const struct insn *i)
{
    return i->enc == ENC_RMI || i->enc == ENC_MRI || i->enc == ENC_RVMI || i->enc == ENC_VMI;
}

static void encode(struct tr *t, const struct insn *i, const struct vector_operands *o)
{
    vex_prefix(t, i, o->reg, o->rm);
    e8(&t->e, insn_form(i)->key & 0xff);
    if (i->enc == ENC_ZO)
        return;
    emit_operand(&t->e, o->reg, o->rm);
    if (has_imm(i)) /* a register's number there has three bits outside 64-bit code */
        e8(&t->e, (unsigned)i->imm & (insn_form(i)->props & PROP_IS4 && !t->wide ? 0x7f : 0xff));
}

void tr_avx(struct tr *t, const struct insn *i)
{
    bool mem = insn_has_mem(i), compares = tr_vector_sets_flags(i);
    bool store = mem && (i->enc == ENC_MR || i->enc == ENC_MRI);
    struct vector_operands o = tr_vector_operands(t, i);
    uint32_t rec = 0, writes = tr_vector_implied_writes(i) | (o.guest >= 0 ? tr_bit((unsigned)o.guest) : 0);
    if (compares && mem)
        tr_commit(t);
    tr_begin(t, writes, compares && !mem);
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->srcsize, store, rec);
        if (insn_form(i)->fault == FC_T1)
            tr_check_aligned(t, i->opsize, rec);
    }
    encode(t, i, &o);
    tr_vector_finish(t, &o, compares, mem);
    if (mem)
        tr_resume(t, rec);
}
