/*
 * AVX moves (SDM volume 2): whole registers, scalars, halves, general registers, sign masks, VZEROUPPER and VZEROALL.
 */
#include "cpu/interp/avx.h"

/* ---- whole registers ---- */

/* `align`: 0, or the size of the operand less 1. */
#define LOADS(name, align16, align32)                                                                                  \
    static void name##_128(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        uint64_t lin = sse_linear(v, i, 16, align16, 0);                                                               \
        SIMD m;                                                                                                        \
        sse_read(v, i, lin, &m, 16);                                                                                   \
        ymm_set_low(v, i->reg, m);                                                                                     \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    static void name##_256(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        sse_read(v, i, sse_linear(v, i, 32, align32, 0), v->xmm[i->reg].q, 32);                                        \
        NEXT_MEM(v, i);                                                                                                \
    }
LOADS(load, 0, 0)
LOADS(load_aligned, 15, 31)

#define STORES(name, align16, align32)                                                                                 \
    static void name##_128(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        sse_write(v, i, sse_linear(v, i, 16, align16, 1), v->xmm[i->reg].q, 16);                                       \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    static void name##_256(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        sse_write(v, i, sse_linear(v, i, 32, align32, 1), v->xmm[i->reg].q, 32);                                       \
        NEXT_MEM(v, i);                                                                                                \
    }
STORES(store, 0, 0)
STORES(store_aligned, 15, 31)

#define AVX_REG(name, ...)                                                                                             \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        __VA_ARGS__;                                                                                                   \
        NEXT(v, i);                                                                                                    \
    }
AVX_REG(copy_rm_128, ymm_set_low(v, i->reg, xmm_get(v, i->rm)))
AVX_REG(copy_rm_256, ymm_set(v, i->reg, ymm_get(v, i->rm)))
AVX_REG(copy_mr_128, ymm_set_low(v, i->rm, xmm_get(v, i->reg)))
AVX_REG(copy_mr_256, ymm_set(v, i->rm, ymm_get(v, i->reg)))

static op_fn *bind_whole(const struct insn *i, bool aligned)
{
    static op_fn *const copy[2][2] = {{copy_mr_128, copy_mr_256}, {copy_rm_128, copy_rm_256}};
    static op_fn *const from[2][2] = {{load_128, load_256}, {load_aligned_128, load_aligned_256}};
    static op_fn *const to[2][2] = {{store_128, store_256}, {store_aligned_128, store_aligned_256}};
    bool is_load = i->enc == ENC_RM, wide = i->opsize == 32;
    if (i->flags & INSN_RM_REG)
        return copy[is_load][wide];
    return (is_load ? from : to)[aligned][wide];
}

/* ---- scalars: loads clear the rest, moves between registers take it from the first source ---- */

#define AVX_MEM(name, ...)                                                                                             \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        __VA_ARGS__;                                                                                                   \
        NEXT_MEM(v, i);                                                                                                \
    }
#define LOAD32 lin_load32(v, i, insn_linear(v, i, 4, 0))
#define LOAD64 lin_load64(v, i, insn_linear(v, i, 8, 0))

static inline SIMD low_from(SIMD a, SIMD b, unsigned size)
{
    memcpy(&a, &b, size);
    return a;
}
AVX_MEM(load_32, ymm_set_low(v, i->reg, (SIMD){.q = {LOAD32, 0}}))
AVX_MEM(load_64, ymm_set_low(v, i->reg, (SIMD){.q = {LOAD64, 0}}))
AVX_MEM(store_32, lin_store32(v, i, insn_linear(v, i, 4, 1), v->xmm[i->reg].d[0]))
AVX_MEM(store_64, lin_store64(v, i, insn_linear(v, i, 8, 1), v->xmm[i->reg].q[0]))
AVX_REG(merge_rvm, ymm_set_low(v, i->reg, low_from(xmm_get(v, i->vvvv), xmm_get(v, i->rm), i->opsize)))
AVX_REG(merge_mvr, ymm_set_low(v, i->rm, low_from(xmm_get(v, i->vvvv), xmm_get(v, i->reg), i->opsize)))

static op_fn *bind_scalar(const struct insn *i)
{
    switch (i->enc) {
    case ENC_RM:
        return i->opsize == 4 ? load_32 : load_64;
    case ENC_MR:
        return i->opsize == 4 ? store_32 : store_64;
    default:
        return i->enc == ENC_RVM ? merge_rvm : merge_mvr;
    }
}

/* ---- halves of XMM registers ---- */

AVX_MEM(load_low, const uint64_t m = LOAD64; ymm_set_low(v, i->reg, (SIMD){.q = {m, v->xmm[i->vvvv].q[1]}}))
AVX_MEM(load_high, const uint64_t m = LOAD64; ymm_set_low(v, i->reg, (SIMD){.q = {v->xmm[i->vvvv].q[0], m}}))
AVX_MEM(store_high, lin_store64(v, i, insn_linear(v, i, 8, 1), v->xmm[i->reg].q[1]))
AVX_REG(movhlps, ymm_set_low(v, i->reg, (SIMD){.q = {v->xmm[i->rm].q[1], v->xmm[i->vvvv].q[1]}}))
AVX_REG(movlhps, ymm_set_low(v, i->reg, (SIMD){.q = {v->xmm[i->vvvv].q[0], v->xmm[i->rm].q[0]}}))

static void movddup(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    bool reg = i->flags & INSN_RM_REG;
    if (i->opsize == 32) {
        struct simd32 b = reg ? ymm_get(v, i->rm) : avx_load32(v, i);
        b.half[0].q[1] = b.half[0].q[0];
        b.half[1].q[1] = b.half[1].q[0];
        ymm_set(v, i->reg, b);
    } else {
        uint64_t m = reg ? v->xmm[i->rm].q[0] : LOAD64;
        ymm_set_low(v, i->reg, (SIMD){.q = {m, m}});
    }
    NEXT_MEM(v, i);
}

/* ---- general registers ---- */

AVX_REG(movd_rm, ymm_set_low(v, i->reg, (SIMD){.q = {(uint32_t)v->gpr[i->rm], 0}}))
AVX_REG(movd_mr, v->gpr[i->rm] = v->xmm[i->reg].d[0])
AVX_REG(movq_from_gpr, ymm_set_low(v, i->reg, (SIMD){.q = {v->gpr[i->rm], 0}}))
AVX_REG(movq_to_gpr, v->gpr[i->rm] = v->xmm[i->reg].q[0])
AVX_REG(movq_rm, ymm_set_low(v, i->reg, (SIMD){.q = {v->xmm[i->rm].q[0], 0}}))
AVX_REG(movq_mr, ymm_set_low(v, i->rm, (SIMD){.q = {v->xmm[i->reg].q[0], 0}}))

static op_fn *bind_movd(const struct insn *i)
{
    bool is_load = i->enc == ENC_RM, wide = i->srcsize == 8;
    if (!(i->flags & INSN_RM_REG))
        return wide ? (is_load ? load_64 : store_64) : (is_load ? load_32 : store_32);
    if (wide)
        return is_load ? movq_from_gpr : movq_to_gpr;
    return is_load ? movd_rm : movd_mr;
}

static op_fn *bind_movq(const struct insn *i)
{
    bool is_load = i->enc == ENC_RM;
    if (i->flags & INSN_RM_REG)
        return is_load ? movq_rm : movq_mr;
    return is_load ? load_64 : store_64;
}

/* Signs of lanes; size is 16 or 32. */
static uint32_t signs(const union vec *x, unsigned lane, unsigned size)
{
    uint32_t r = 0;
    for (unsigned k = 0, at = lane - 1; at < sizeof x->b && at < size; k++, at += lane)
        r |= (uint32_t)(x->b[at] >> 7) << k;
    return r;
}
AVX_REG(movmskps, v->gpr[i->reg] = signs(&v->xmm[i->rm], 4, i->opsize))
AVX_REG(movmskpd, v->gpr[i->reg] = signs(&v->xmm[i->rm], 8, i->opsize))
AVX_REG(pmovmskb, v->gpr[i->reg] = signs(&v->xmm[i->rm], 1, i->opsize))
AVX_REG(pextrw, v->gpr[i->reg] = v->xmm[i->rm].w[i->imm & 7])

/* ---- the upper halves, or all ---- */

static unsigned register_count(const struct vcpu *v)
{
    return v->mode & MODE_CODE64 ? 16 : 8;
}
static void vzeroupper(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    for (unsigned n = 0; n < register_count(v); n++)
        v->xmm[n].q[2] = v->xmm[n].q[3] = 0;
    NEXT(v, i);
}
static void vzeroall(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    memset(v->xmm, 0, register_count(v) * sizeof v->xmm[0]);
    NEXT(v, i);
}

static op_fn *bind_general(const struct insn *i)
{
    switch (i->op) {
    case OP_VMOVD:
        return bind_movd(i);
    case OP_VMOVQ:
        return bind_movq(i);
    case OP_VMOVMSKPS:
        return movmskps;
    case OP_VMOVMSKPD:
        return movmskpd;
    case OP_VPMOVMSKB:
        return pmovmskb;
    case OP_VPEXTRW: /* the form with a memory operand is in sse4.c */
        return i->enc == ENC_RMI ? pextrw : NULL;
    case OP_VZEROUPPER:
        return vzeroupper;
    case OP_VZEROALL:
        return vzeroall;
    default:
        return NULL;
    }
}

op_fn *bind_avx_move(const struct insn *i)
{
    switch (i->op) {
    case OP_VMOVUPS:
    case OP_VMOVUPD:
    case OP_VMOVDQU:
    case OP_VLDDQU:
        return bind_whole(i, false);
    case OP_VMOVAPS:
    case OP_VMOVAPD:
    case OP_VMOVDQA:
    case OP_VMOVNTPS:
    case OP_VMOVNTPD:
    case OP_VMOVNTDQ:
    case OP_VMOVNTDQA:
        return bind_whole(i, true);
    case OP_VMOVSS:
    case OP_VMOVSD:
        return bind_scalar(i);
    case OP_VMOVLPS:
    case OP_VMOVLPD:
        return i->enc == ENC_MR ? store_64 : load_low;
    case OP_VMOVHPS:
    case OP_VMOVHPD:
        return i->enc == ENC_MR ? store_high : load_high;
    case OP_VMOVHLPS:
        return movhlps;
    case OP_VMOVLHPS:
        return movlhps;
    case OP_VMOVDDUP:
        return movddup;
    default:
        return bind_general(i);
    }
}
