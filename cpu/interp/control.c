/*
 * Near branches, calls and returns, loops, BOUND.
 *
 * In 64-bit code targets must be canonical, else #GP(0) before anything changes; elsewhere they are cut to the operand
 * size and must lie within CS. exit_slot: 0 fall through, 1 taken, 2 indirect.
 */
#include "cpu/interp/control.h"

/* ---- arriving ---- */

always_inline bool is_canonical_48(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static void check_canonical(struct vcpu *v, const struct insn *i, uint64_t target)
{
    unsigned shift = v->cr4 & CR4_LA57 ? 7 : 16;
    if ((uint64_t)((int64_t)(target << shift) >> shift) != target)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

slow_path void jump_far_up(struct vcpu *v, const struct insn *i, uint64_t target, unsigned slot)
{
    if (slot != 0) /* falling through past the end of the canonical range is the next fetch's fault */
        check_canonical(v, i, target);
    block_end(v, i, target, slot);
}

always_inline void jump_64(struct vcpu *v, const struct insn *i, uint64_t target, unsigned slot)
{
    if (unlikely(!is_canonical_48(target)))
        return jump_far_up(v, i, target, slot);
    return vcpu_chain_on(v, i, target, slot);
}

/* The target of a near branch as code that is not 64-bit reaches it. */
static uint64_t legacy_target(struct vcpu *v, const struct insn *i, uint64_t target)
{
    target = i->opsize == 2 ? (uint16_t)target : (uint32_t)target;
    if (unlikely(target > v->seg[SEG_CS].limit))
        vcpu_raise_error(v, i, EXC_GP, 0);
    return target;
}

static void fall_through(struct vcpu *v, const struct insn *i)
{
    uint64_t next = insn_next_rip(v, i);
    block_end(v, i, v->mode & MODE_CODE64 ? next : (uint32_t)next, 0);
}

/* Checked target for any mode, for the instructions that are not specialised. */
static uint64_t any_target(struct vcpu *v, const struct insn *i, uint64_t target)
{
    if (!(v->mode & MODE_CODE64))
        return legacy_target(v, i, target);
    check_canonical(v, i, target);
    return target;
}

/* ---- Jcc, JMP ---- */

#define JCC(cc)                                                                                                        \
    static void jcc_64_##cc(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        if (flags_cond(v, cc))                                                                                         \
            return jump_64(v, i, insn_next_rip(v, i) + i->imm, 1);                                                     \
        return vcpu_chain_on(v, i, insn_next_rip(v, i), 0);                                                            \
    }                                                                                                                  \
    static void jcc_legacy_##cc(struct vcpu *v, const struct insn *i)                                                  \
    {                                                                                                                  \
        if (flags_cond(v, cc))                                                                                         \
            block_end(v, i, legacy_target(v, i, insn_next_rip(v, i) + i->imm), 1);                                     \
        else                                                                                                           \
            block_end(v, i, (uint32_t)insn_next_rip(v, i), 0);                                                         \
    }
CONDITIONS(JCC)

static op_fn *bind_jcc(const struct insn *i, unsigned mode)
{
#define X64(cc) jcc_64_##cc,
#define XL(cc)  jcc_legacy_##cc,
    static op_fn *const in_64[] = {CONDITIONS(X64)}, *const in_legacy[] = {CONDITIONS(XL)};
#undef X64
#undef XL
    return (mode & MODE_CODE64 ? in_64 : in_legacy)[i->cc];
}

static void jmp_rel_64(struct vcpu *v, const struct insn *i)
{
    return jump_64(v, i, insn_next_rip(v, i) + i->imm, 1);
}

static void jmp_reg_64(struct vcpu *v, const struct insn *i)
{
    return jump_64(v, i, v->gpr[i->rm], 2);
}

slow_path void jmp_mem_64_G(struct vcpu *v, const struct insn *i)
{
    jump_64(v, i, lin_load64(v, i, insn_linear(v, i, 8, 0)), 2);
}

static void jmp_mem_64_X(struct vcpu *v, const struct insn *i)
{
    const void *p = tlb_lookup_read(v->mv, ea_linear_X(v, i), 8);
    uint64_t target;
    if (unlikely(!p))
        return jmp_mem_64_G(v, i);
    memcpy(&target, p, 8);
    return jump_64(v, i, target, 2);
}

static void jmp_legacy(struct vcpu *v, const struct insn *i)
{
    if (i->enc == ENC_D)
        block_end(v, i, legacy_target(v, i, insn_next_rip(v, i) + i->imm), 1);
    else
        block_end(v, i, legacy_target(v, i, insn_source(v, i, i->opsize)), 2);
}

static op_fn *bind_jmp(const struct insn *i, unsigned mode)
{
    if (!(mode & MODE_CODE64))
        return jmp_legacy;
    if (i->enc == ENC_D)
        return jmp_rel_64;
    if (i->flags & INSN_RM_REG)
        return jmp_reg_64;
    return ea_kind(i, mode) == EA_G ? jmp_mem_64_G : jmp_mem_64_X;
}

/* ---- CALL, RET ---- */

/* A stack that cannot take the return address comes before a target that is none (SDM volume 2, CALL). */
slow_path void call_64_slow(struct vcpu *v, const struct insn *i, uint64_t target, unsigned slot)
{
    if (!is_canonical_48(target))
        lin_probe_write(v, i, v->gpr[REG_RSP] - 8, 8);
    check_canonical(v, i, target);
    stack_push(v, i, insn_next_rip(v, i), 8);
    block_end(v, i, target, slot);
}

always_inline void do_call_64(struct vcpu *v, const struct insn *i, uint64_t target, unsigned slot)
{
    uint64_t sp = v->gpr[REG_RSP] - 8, next = insn_next_rip(v, i);
    void *p = tlb_lookup_write(v->mv, sp, 8);
    if (unlikely(!p || !is_canonical_48(target)))
        return call_64_slow(v, i, target, slot);
    memcpy(p, &next, 8);
    v->gpr[REG_RSP] = sp;
    return vcpu_chain_on(v, i, target, slot);
}

static void call_rel_64(struct vcpu *v, const struct insn *i)
{
    return do_call_64(v, i, insn_next_rip(v, i) + i->imm, 1);
}

static void call_reg_64(struct vcpu *v, const struct insn *i)
{
    return do_call_64(v, i, v->gpr[i->rm], 2);
}

slow_path void call_mem_64_G(struct vcpu *v, const struct insn *i)
{
    call_64_slow(v, i, lin_load64(v, i, insn_linear(v, i, 8, 0)), 2);
}

static void call_mem_64_X(struct vcpu *v, const struct insn *i)
{
    const void *p = tlb_lookup_read(v->mv, ea_linear_X(v, i), 8);
    uint64_t target;
    if (unlikely(!p))
        return call_mem_64_G(v, i);
    memcpy(&target, p, 8);
    return do_call_64(v, i, target, 2);
}

static void call_legacy(struct vcpu *v, const struct insn *i)
{
    uint64_t next = insn_next_rip(v, i);
    bool direct = i->enc == ENC_D;
    uint64_t target = legacy_target(v, i, direct ? next + i->imm : insn_source(v, i, i->opsize));
    stack_push(v, i, next, i->opsize);
    block_end(v, i, target, direct ? 1 : 2);
}

static op_fn *bind_call(const struct insn *i, unsigned mode)
{
    if (!(mode & MODE_CODE64))
        return call_legacy;
    if (i->enc == ENC_D)
        return call_rel_64;
    if (i->flags & INSN_RM_REG)
        return call_reg_64;
    return ea_kind(i, mode) == EA_G ? call_mem_64_G : call_mem_64_X;
}

/* imm: bytes of arguments to drop, 0 in the form without operand. */
slow_path void ret_any(struct vcpu *v, const struct insn *i)
{
    unsigned size = v->mode & MODE_CODE64 ? 8 : i->opsize;
    uint64_t target = any_target(v, i, stack_peek(v, i, 0, size));
    stack_adjust(v, (int64_t)(size + (i->enc == ENC_I ? (uint16_t)i->imm : 0u)));
    block_end(v, i, target, 2);
}

static void ret_64(struct vcpu *v, const struct insn *i)
{
    uint64_t sp = v->gpr[REG_RSP], target;
    const void *p = tlb_lookup_read(v->mv, sp, 8);
    if (unlikely(!p))
        return ret_any(v, i);
    memcpy(&target, p, 8);
    if (unlikely(!is_canonical_48(target)))
        return ret_any(v, i);
    v->gpr[REG_RSP] = sp + 8;
    return vcpu_chain_on(v, i, target, 2);
}

/* ---- LOOP, JCXZ ---- */

static bool loop_condition(const struct vcpu *v, const struct insn *i)
{
    return i->op == OP_LOOP || flag_zf(v) == (i->op == OP_LOOPE);
}

static void loop_any(struct vcpu *v, const struct insn *i)
{
    uint64_t count = wrap_offset(v->gpr[REG_RCX] - 1, i->adsize);
    bool taken = count != 0 && loop_condition(v, i);
    uint64_t target = taken ? any_target(v, i, insn_next_rip(v, i) + i->imm) : 0;
    reg_set(v, REG_RCX, i->adsize, count);
    if (taken)
        block_end(v, i, target, 1);
    else
        fall_through(v, i);
}

static void jcxz_any(struct vcpu *v, const struct insn *i)
{
    if (wrap_offset(v->gpr[REG_RCX], i->adsize) == 0)
        block_end(v, i, any_target(v, i, insn_next_rip(v, i) + i->imm), 1);
    else
        fall_through(v, i);
}

/* ---- BOUND: index in reg, limits (both inclusive) at rm ---- */

static void bound(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    uint64_t off = insn_offset(v, i);
    uint64_t low = lin_load(v, i, linear_of(v, i, i->seg, off, size, 0), size);
    uint64_t high = lin_load(v, i, linear_of(v, i, i->seg, wrap_offset(off + size, i->adsize), size, 0), size);
    int64_t index = (int64_t)flags_sext(reg_get(v, i->reg, size), size);
    if (index < (int64_t)flags_sext(low, size) || index > (int64_t)flags_sext(high, size))
        vcpu_raise(v, i, EXC_BR);
    NEXT_MEM(v, i);
}

op_fn *bind_control(const struct insn *i, unsigned mode)
{
    switch (i->op) {
    case OP_JCC:
        return bind_jcc(i, mode);
    case OP_JMP:
        return bind_jmp(i, mode);
    case OP_CALL:
        return bind_call(i, mode);
    case OP_RET:
        return mode & MODE_CODE64 && i->enc == ENC_ZO ? ret_64 : ret_any;
    case OP_LOOP:
    case OP_LOOPE:
    case OP_LOOPNE:
        return loop_any;
    case OP_JCXZ:
        return jcxz_any;
    case OP_BOUND:
        return bound;
    default:
        return bind_stack(i, mode);
    }
}
