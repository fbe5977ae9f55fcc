/*
 * SSE: the same instruction on the host's registers. The host's MXCSR is the guest's, all exceptions masked.
 */
#include "cpu/jit/internal.h"

/* Memory operands of 16 bytes that need not be aligned. */
static bool may_be_unaligned(unsigned op)
{
    return op == OP_MOVUPS || op == OP_MOVUPD || op == OP_MOVDQU || op == OP_LDDQU;
}

static bool is_moved_general(const struct op_form *f)
{
    return f->reg_kind == KIND_G || f->reg_kind == KIND_G32 || f->rm_kind == KIND_G || f->rm_kind == KIND_G32;
}

/* Not as they are: they touch MXCSR or memory by rules of their own, or have no XMM operand. */
static bool is_special(const struct insn *i)
{
    return i->op == OP_MASKMOVDQU || i->op == OP_PCMPESTRI || i->op == OP_PCMPESTRM || i->op == OP_PCMPISTRI ||
           i->op == OP_PCMPISTRM;
}

static bool is_legacy_sse(const struct op_form *f)
{
    unsigned map = f->key >> 8;
    if (map != MAP_0F && map != MAP_38 && map != MAP_3A)
        return false;
    if (f->gate != GATE_SSE && f->gate != GATE_SSE2 && f->gate != GATE_SSE3)
        return false;
    return f->reg_kind == KIND_X || f->rm_kind == KIND_X;
}

bool tr_is_vector(const struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    if (!is_legacy_sse(f) || f->reg_kind == KIND_M || f->rm_kind == KIND_M || is_special(i))
        return false;
    if (i->enc != ENC_RM && i->enc != ENC_MR && i->enc != ENC_RMI && i->enc != ENC_MI && i->enc != ENC_MRI)
        return false;
    return (i->flags & INSN_RM_REG) || tr_has_ea(t, i);
}

static unsigned mem_size(const struct insn *i)
{
    bool store = i->enc == ENC_MR || i->enc == ENC_MRI;
    return store && !is_moved_general(insn_form(i)) ? i->opsize : i->srcsize;
}

static struct opcode opcode_of(const struct op_form *f)
{
    static const uint8_t prefix[] = {
        [PP_ANY] = 0, [PP_NP] = 0, [PP_N66] = 0, [PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    unsigned map = f->key >> 8;
    return (struct opcode){prefix[f->prefix & PP_KIND],
                           map == MAP_0F   ? 0x0f
                           : map == MAP_38 ? 0x38
                                           : 0x3a,
                           (uint8_t)f->key};
}

static bool is_general(unsigned kind)
{
    return kind == KIND_G || kind == KIND_G32;
}

static void check_aligned(struct tr *t, uint32_t rec)
{
    emit_rm(&t->e, (struct how){.size = 1, .rm_byte = true}, OPC(0xf6), 0, op_reg(H_R14)); /* test r14b, 15 */
    e8(&t->e, 15);
    tr_jump_cold(t, emit_jcc(&t->e, CC_NZ), COLD_SLOW, rec, 0);
}

bool tr_vector(struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    struct emit *e = &t->e;
    if (!tr_is_vector(t, i))
        return false;
    bool mem = !(i->flags & INSN_RM_REG), store = i->enc == ENC_MR || i->enc == ENC_MRI;
    bool gpr_reg = is_general(f->reg_kind), gpr_rm = !mem && is_general(f->rm_kind);
    bool compares = f->write & FLAGS_ARITH;
    /* PEXTRW, MOVMSK... write 32 bits; CVT..2SI the operand size; MOVD by srcsize. */
    struct how w = {.size = 0};
    if ((gpr_reg && i->opsize == 8) || ((gpr_rm || f->rm_kind == KIND_G) && i->srcsize == 8 && is_moved_general(f)))
        w.size = 8;
    uint32_t writes = gpr_reg && !store ? tr_bit(i->reg) : gpr_rm && store ? tr_bit(i->rm) : 0;
    uint32_t rec = 0;
    if (compares && mem)
        tr_commit(t);
    tr_begin(t, writes, compares && !mem);
    if (mem) {
        unsigned size = mem_size(i);
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, size, store, rec);
        if (size == 16 && !may_be_unaligned(i->op))
            check_aligned(t, rec);
    }
    unsigned digit = f->modrm >= RM_D(0) && f->modrm < RM_DR(0) + 8 ? f->modrm & 7u : 0;
    unsigned reg = i->enc == ENC_MI ? digit : i->reg;
    struct opnd rm = mem ? op_r14() : op_reg(i->rm);
    if (gpr_reg)
        reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R15;
    if (gpr_rm)
        rm = tr_gpr(i->rm);
    emit_rm(e, w, opcode_of(f), reg, rm);
    if (i->enc == ENC_RMI || i->enc == ENC_MI || i->enc == ENC_MRI)
        e8(e, (unsigned)i->imm & 0xff);
    if (gpr_reg && !store)
        tr_reg_out(t, i->reg, reg);
    if (gpr_rm && store)
        tr_zero_upper(t, i->rm, w.size == 8 ? 8 : 4);
    if (compares && (mem || tr_flags_live(t)))
        tr_set_flags_image(t);
    else if (compares)
        tr_set_flags_dead(t, 0);
    if (mem)
        tr_resume(t, rec);
    return true;
}
