/*
 * CMPXCHG8B and CMPXCHG16B, LAHF and SAHF, XLAT, segment registers as sources.
 */
#include "cpu/jit/integer.h"

static struct maddr at_r14(int disp)
{
    return (struct maddr){H_R14, -1, 0, disp};
}

/* ---- CMPXCHG8B, CMPXCHG16B ---- */

/* The pair at [r14]; the frame's image says at last whether it was the expected one, if anyone looks. */
static void compare_pair(struct tr *t, unsigned size, bool live)
{
    struct emit *e = &t->e;
    struct how byte = {.size = 1};
    struct opnd flags = op_frame(FRAME(flags) + 1);
    emit_maddr(e, size, 0x39, H_RAX, at_r14(0));
    uint8_t *low = emit_jcc(e, CC_NZ);
    emit_maddr(e, size, 0x39, H_RDX, at_r14((int)size));
    uint8_t *high = emit_jcc(e, CC_NZ);
    emit_maddr(e, size, 0x89, H_RBX, at_r14(0));
    emit_maddr(e, size, 0x89, H_RCX, at_r14((int)size));
    if (live) {
        emit_rm(e, byte, OPC(0x80), 1, flags); /* or */
        e8(e, FLAG_ZF);
    }
    uint8_t *done = emit_jmp(e);
    patch_jump(e, low, e->p);
    patch_jump(e, high, e->p);
    emit_maddr(e, size, 0x8b, H_RAX, at_r14(0));
    emit_maddr(e, size, 0x8b, H_RDX, at_r14((int)size));
    if (live) {
        emit_rm(e, byte, OPC(0x80), 4, flags); /* and */
        e8(e, 0xff & ~(unsigned)FLAG_ZF);
    }
    patch_jump(e, done, e->p);
}

/* Only ZF changes. */
static bool cmpxchg_pair(struct tr *t, const struct insn *i)
{
    bool live = tr_flags_live(t);
    unsigned size = i->op == OP_CMPXCHG16B ? 16 : 8;
    if (!tr_has_ea(t, i) || (live && !tr_can_restore(t)))
        return false;
    tr_begin(t, tr_bit(REG_RAX) | tr_bit(REG_RDX), false);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, size, true, rec);
    if (size == 16)
        tr_check_aligned(t, size, rec);
    tr_clobber(t);
    if (live) {
        tr_restore(t, FLAGS_ARITH);
        tr_set_flags_image(t);
    }
    compare_pair(t, size / 2, live);
    if (!live)
        tr_set_flags_dead(t, FLAGS_ARITH);
    tr_clobber(t);
    tr_resume(t, rec);
    return true;
}

/* ---- LAHF, SAHF ---- */

static bool lahf(struct tr *t, const struct insn *i)
{
    const unsigned mask = FLAGS_ARITH & ~FLAG_OF;
    bool have = tr_can_have_host(t, mask);
    if (!have && !tr_can_restore(t))
        return false;
    tr_begin(t, tr_bit(REG_RAX), false);
    tr_restore(t, mask);
    e8(&t->e, 0x9f);
    return true;
}

/* LAHF behind SAHF makes the image what the flags can be; OF stays. */
static bool sahf(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool have = tr_can_have_host(t, FLAG_OF);
    if (!have && !tr_can_restore(t))
        return false;
    tr_restore(t, FLAG_OF);
    emit_rm(e, (struct how){.size = 1, .rm_byte = true}, OPC_0F(0x90), 0, op_frame(FRAME(flags))); /* seto */
    emit_mov(e, H_R15, H_RAX);
    e8(e, 0x9e);
    e8(e, 0x9f);
    emit_rm(e, (struct how){.size = 1, .reg_byte = true}, OPC(0x88), H_HIGH, op_frame(FRAME(flags) + 1)); /* ah */
    emit_mov(e, H_RAX, H_R15);
    tr_have_image(t);
    return true;
}

/* ---- XLAT ---- */

static bool xlat(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    tr_begin(t, tr_bit(REG_RAX), false);
    uint32_t rec = tr_slow(t, i);
    emit_rm(e, (struct how){.size = 4, .rm_byte = true}, OPC_0F(0xb6), H_R14, op_reg(H_RAX)); /* movzx */
    emit_lea(e, i->adsize == 8 ? 8 : 4, H_R14, (struct maddr){H_R14, H_RBX, 0, 0});
    if (i->adsize == 2)
        tr_cut16(t, H_R14);
    tr_linear(t, i);
    tr_check(t, 1, false, rec);
    emit_rm(e, (struct how){.size = 1, .reg_byte = true}, OPC(0x8a), H_RAX, op_r14());
    tr_resume(t, rec);
    return true;
}

/* ---- segment registers ---- */

/* r15 = selector. */
static void selector(struct tr *t, unsigned seg)
{
    size_t at = offsetof(struct vcpu, seg) + seg * sizeof(struct segment) + offsetof(struct segment, sel);
    emit_load(&t->e, H_R15, FRAME(v));
    emit_maddr(&t->e, 4, 0x8b, H_R15, (struct maddr){H_R15, -1, 0, (int)at});
    tr_cut16(t, H_R15);
}

static bool mov_from_sreg(struct tr *t, const struct insn *i)
{
    if (!(i->flags & INSN_RM_REG) || i->reg > SEG_GS)
        return false;
    tr_begin(t, tr_bit(i->rm), false);
    selector(t, i->reg);
    emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x89), H_R15, tr_gpr(i->rm));
    tr_zero_upper(t, i->rm, i->opsize);
    return true;
}

static bool push_sreg(struct tr *t, const struct insn *i)
{
    if (t->wide && i->opsize != 8)
        return false;
    tr_begin(t, tr_bit(REG_RSP), false);
    uint32_t rec = tr_slow(t, i);
    tr_stack_check(t, -(int)i->opsize, i->opsize, true, rec);
    selector(t, i->reg);
    emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x89), H_R15, op_r14());
    tr_stack_adjust(t, -(int)i->opsize);
    tr_resume(t, rec);
    return true;
}

bool tr_misc(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_CMPXCHG8B:
    case OP_CMPXCHG16B:
        return cmpxchg_pair(t, i);
    case OP_LAHF:
        return lahf(t, i);
    case OP_SAHF:
        return sahf(t, i);
    case OP_XLAT:
        return xlat(t, i);
    case OP_MOV_FROM_SREG:
        return mov_from_sreg(t, i);
    case OP_PUSH_SREG:
        return push_sreg(t, i);
    default:
        return false;
    }
}
