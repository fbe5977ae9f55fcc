/*
 * Multiplication and division.
 *
 * Flags that the manual leaves undefined are as AMD's processors leave them: MUL and IMUL keep ZF, SF, PF and AF; DIV
 * and IDIV keep CF and OF, clear ZF, SF and PF, and set AF.
 */
#include "cpu/interp/integer.h"

typedef unsigned __int128 u128;
typedef __int128 i128;

always_inline void mul_flags(struct vcpu *v, bool overflow)
{
    flags_set_cf_of(v, overflow, overflow);
}

always_inline void div_flags(struct vcpu *v)
{
    v->f_res = 1; /* neither zero nor negative, of odd parity */
    v->f_adj = FLAG_AF;
}

void interp_div_flags(struct vcpu *v)
{
    div_flags(v);
}

/* ---- IMUL with two or three operands ---- */

always_inline uint64_t do_imul_16(struct vcpu *v, uint64_t a, uint64_t b)
{
    int32_t r = (int32_t)(int16_t)a * (int16_t)b;
    mul_flags(v, r != (int16_t)r);
    return (uint16_t)r;
}
always_inline uint64_t do_imul_32(struct vcpu *v, uint64_t a, uint64_t b)
{
    int64_t r = (int64_t)(int32_t)a * (int32_t)b;
    mul_flags(v, r != (int32_t)r);
    return (uint32_t)r;
}
always_inline uint64_t do_imul_64(struct vcpu *v, uint64_t a, uint64_t b)
{
    int64_t r;
    bool overflow = __builtin_mul_overflow((int64_t)a, (int64_t)b, &r);
    mul_flags(v, overflow);
    return (uint64_t)r;
}

#define IMUL(bits)                                                                                                     \
    HANDLER_REG(imul2_r_##bits,                                                                                        \
                reg_set##bits(v, i->reg, (uint##bits##_t)do_imul_##bits(v, v->gpr[i->reg], v->gpr[i->rm])))            \
    HANDLER_REG(imul3_r_##bits, reg_set##bits(v, i->reg, (uint##bits##_t)do_imul_##bits(v, v->gpr[i->rm], i->imm)))    \
    HANDLERS_LOAD(imul2_m_##bits, uint##bits##_t,                                                                      \
                  reg_set##bits(v, i->reg, (uint##bits##_t)do_imul_##bits(v, v->gpr[i->reg], m)))                      \
    HANDLERS_LOAD(imul3_m_##bits, uint##bits##_t,                                                                      \
                  reg_set##bits(v, i->reg, (uint##bits##_t)do_imul_##bits(v, m, i->imm)))
IMUL(16)
IMUL(32)
IMUL(64)

static op_fn *bind_imul(const struct insn *i, enum ea_kind k)
{
    static op_fn *const reg2[] = {imul2_r_16, imul2_r_32, imul2_r_64}, *const reg3[] = {imul3_r_16, imul3_r_32,
                                                                                        imul3_r_64};
    static op_fn *const mem2[][EA_KINDS] = {EA_TABLE(imul2_m_16), EA_TABLE(imul2_m_32), EA_TABLE(imul2_m_64)},
                        *const mem3[][EA_KINDS] = {EA_TABLE(imul3_m_16), EA_TABLE(imul3_m_32), EA_TABLE(imul3_m_64)};
    unsigned n = i->opsize == 2 ? 0 : i->opsize == 4 ? 1 : 2;
    if (i->flags & INSN_RM_REG)
        return i->enc == ENC_RM ? reg2[n] : reg3[n];
    return i->enc == ENC_RM ? mem2[n][k] : mem3[n][k];
}

/* ---- MUL, IMUL, DIV, IDIV on the accumulator ---- */

static void mul_acc(struct vcpu *v, const struct insn *i)
{
    uint64_t b = insn_source(v, i, i->opsize);
    unsigned size = i->opsize;
    u128 r = (u128)reg_get(v, REG_RAX, size) * b;
    uint64_t low = (uint64_t)r, high = (uint64_t)(r >> (8 * size));
    if (size == 1) {
        reg_set16(v, REG_RAX, (uint16_t)low);
    } else {
        reg_set(v, REG_RAX, size, low);
        reg_set(v, REG_RDX, size, high);
    }
    mul_flags(v, high != 0);
    NEXT_MEM(v, i);
}

static void imul_acc(struct vcpu *v, const struct insn *i)
{
    uint64_t b = insn_source(v, i, i->opsize);
    unsigned size = i->opsize;
    i128 r = (i128)(int64_t)flags_sext(reg_get(v, REG_RAX, size), size) * (int64_t)flags_sext(b, size);
    if (size == 1) {
        reg_set16(v, REG_RAX, (uint16_t)r);
    } else {
        reg_set(v, REG_RAX, size, (uint64_t)r);
        reg_set(v, REG_RDX, size, (uint64_t)(r >> (8 * size)));
    }
    mul_flags(v, r != (int64_t)flags_sext((uint64_t)r, size));
    NEXT_MEM(v, i);
}

/* Quotient and remainder to their registers: AL and AH for bytes. */
static void div_result(struct vcpu *v, unsigned size, uint64_t q, uint64_t r)
{
    div_flags(v);
    if (size == 1) {
        reg_set16(v, REG_RAX, (uint16_t)((q & 0xff) | (r & 0xff) << 8));
    } else {
        reg_set(v, REG_RAX, size, q);
        reg_set(v, REG_RDX, size, r);
    }
}

/* rDX:rAX (AX for bytes), zero-extended; sizes up to 4. */
static uint64_t dividend(const struct vcpu *v, unsigned size)
{
    if (size == 1)
        return (uint16_t)v->gpr[REG_RAX];
    return reg_get(v, REG_RDX, size) << (8 * size) | reg_get(v, REG_RAX, size);
}

static void div_small(struct vcpu *v, const struct insn *i)
{
    uint64_t d = insn_source(v, i, i->opsize), n = dividend(v, i->opsize);
    if (unlikely(d == 0 || n >> (8 * i->opsize) >= d))
        vcpu_raise(v, i, EXC_DE);
    div_result(v, i->opsize, n / d, n % d);
    NEXT_MEM(v, i);
}

static void div_64(struct vcpu *v, const struct insn *i)
{
    uint64_t d = insn_source(v, i, i->opsize), low = v->gpr[REG_RAX], high = v->gpr[REG_RDX];
    if (unlikely(high >= d)) /* d == 0 too */
        vcpu_raise(v, i, EXC_DE);
    if (likely(high == 0)) {
        div_result(v, 8, low / d, low % d);
    } else {
        u128 n = (u128)high << 64 | low;
        div_result(v, 8, (uint64_t)(n / d), (uint64_t)(n % d));
    }
    NEXT_MEM(v, i);
}

static void idiv_small(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    int64_t d = (int64_t)flags_sext(insn_source(v, i, i->opsize), size);
    int64_t n = (int64_t)flags_sext(dividend(v, size), 2 * size);
    if (unlikely(d == 0 || (d == -1 && n == INT64_MIN)))
        vcpu_raise(v, i, EXC_DE);
    int64_t q = n / d;
    if (unlikely(q != (int64_t)flags_sext((uint64_t)q, size)))
        vcpu_raise(v, i, EXC_DE);
    div_result(v, size, (uint64_t)q, (uint64_t)(n % d));
    NEXT_MEM(v, i);
}

static void idiv_64(struct vcpu *v, const struct insn *i)
{
    int64_t d = (int64_t)insn_source(v, i, i->opsize);
    u128 bits = (u128)v->gpr[REG_RDX] << 64 | v->gpr[REG_RAX];
    i128 n = (i128)bits;
    if (unlikely(d == 0 || (d == -1 && bits == (u128)1 << 127)))
        vcpu_raise(v, i, EXC_DE);
    i128 q = n / d;
    if (unlikely(q != (int64_t)q))
        vcpu_raise(v, i, EXC_DE);
    div_result(v, 8, (uint64_t)q, (uint64_t)(n % d));
    NEXT_MEM(v, i);
}

/* ---- MULX: vvvv and reg are the low and high half of rDX * rm; no flags ---- */
static void mulx(struct vcpu *v, const struct insn *i)
{
    u128 r = (u128)reg_get(v, REG_RDX, i->opsize) * insn_source(v, i, i->opsize);
    reg_set(v, i->vvvv, i->opsize, (uint64_t)r);
    reg_set(v, i->reg, i->opsize, (uint64_t)(r >> (8 * i->opsize)));
    NEXT_MEM(v, i);
}

op_fn *bind_muldiv(const struct insn *i, enum ea_kind k)
{
    switch (i->op) {
    case OP_MUL:
        return mul_acc;
    case OP_IMUL:
        return i->enc == ENC_M ? imul_acc : bind_imul(i, k);
    case OP_DIV:
        return i->opsize == 8 ? div_64 : div_small;
    case OP_IDIV:
        return i->opsize == 8 ? idiv_64 : idiv_small;
    case OP_MULX:
        return mulx;
    default:
        return NULL;
    }
}
