/*
 * Rounding to integers and dot products (SDM volume 2: ROUNDPS and the rest, DPPS, DPPD), with their VEX forms.
 *
 * Rounding is done on the bits. A dot product is a multiplication and additions in the manual's order, each of which
 * reports its exceptions before the next begins.
 */
#include "cpu/interp/sse_float.h"
#include "cpu/interp/vec.h"

#define MXCSR_IE  0x0001u
#define MXCSR_DAZ 0x0040u

/* ---- rounding: the two formats by one template ---- */

enum { TO_NEAREST, TO_DOWN, TO_UP, TO_ZERO };

/* To an integral value of the same format; flags are added to *flags. */
#define ROUND(name, type, mant, bias, one)                                                                             \
    static type name(type x, unsigned mode, bool daz, uint32_t *flags)                                                 \
    {                                                                                                                  \
        const type sign = x & ((type)1 << (sizeof(type) * 8 - 1)), a = x ^ sign;                                       \
        const type inf = (type)(2 * (bias) + 1) << (mant);                                                             \
        const unsigned e = (unsigned)(a >> (mant));                                                                    \
        if (a > inf) {                                                                                                 \
            if (!(a >> ((mant)-1) & 1))                                                                                \
                *flags |= MXCSR_IE;                                                                                    \
            return x | (type)1 << ((mant)-1);                                                                          \
        }                                                                                                              \
        if (!a || (daz && !e))                                                                                         \
            return sign;                                                                                               \
        if (e >= (bias) + (mant))                                                                                      \
            return x;                                                                                                  \
        if (e < (bias)) {                                                                                              \
            bool away = mode == TO_DOWN ? sign                                                                         \
                        : mode == TO_UP ? !sign                                                                        \
                                        : mode == TO_NEAREST && a > (one) - ((type)1 << (mant));                       \
            *flags |= MXCSR_PE;                                                                                        \
            return away ? sign | (one) : sign;                                                                         \
        }                                                                                                              \
        const unsigned shift = (bias) + (mant)-e;                                                                      \
        const type mask = ((type)1 << shift) - 1;                                                                      \
        if (!(a & mask))                                                                                               \
            return x;                                                                                                  \
        *flags |= MXCSR_PE;                                                                                            \
        if (mode == TO_NEAREST)                                                                                        \
            return (x + (mask >> 1) + (x >> shift & 1)) & ~mask;                                                       \
        if (mode == TO_DOWN ? sign : mode == TO_UP && !sign)                                                           \
            return (x + mask) & ~mask;                                                                                 \
        return x & ~mask;                                                                                              \
    }
ROUND(round_single, uint32_t, 23, 127u, 0x3f800000u)
ROUND(round_double, uint64_t, 52, 1023u, 0x3ff0000000000000u)

static unsigned round_mode(const struct vcpu *v, const struct insn *i)
{
    return i->imm & 4 ? v->mxcsr >> 13 & 3 : (unsigned)i->imm & 3;
}

static SIMD round_vector(struct vcpu *v, const struct insn *i, SIMD b, bool wide, unsigned lanes, uint32_t *flags)
{
    bool daz = v->mxcsr & MXCSR_DAZ;
    unsigned mode = round_mode(v, i);
    for (unsigned k = 0; k < lanes; k++)
        if (wide)
            b.q[k] = round_double(b.q[k], mode, daz, flags);
        else
            b.d[k] = round_single(b.d[k], mode, daz, flags);
    if (i->imm & 8)
        *flags &= ~MXCSR_PE;
    return b;
}

always_inline void round_packed(struct vcpu *v, const struct insn *i, bool wide)
{
    uint32_t flags = 0;
    struct simd32 r;
    vec_need(v, i);
    if (i->opsize == 32)
        r = i->flags & INSN_RM_REG ? ymm_get(v, i->rm) : avx_load32(v, i);
    else
        r.half[0] = vec_source(v, i);
    r.half[0] = round_vector(v, i, r.half[0], wide, wide ? 2 : 4, &flags);
    if (i->opsize == 32)
        r.half[1] = round_vector(v, i, r.half[1], wide, wide ? 2 : 4, &flags);
    float_done(v, i, flags);
    if (i->opsize == 32)
        ymm_set(v, i->reg, r);
    else
        vec_set(v, i, i->reg, r.half[0]);
}

always_inline void round_scalar(struct vcpu *v, const struct insn *i, bool wide)
{
    uint32_t flags = 0;
    vec_need(v, i);
    SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : vec_load_part(v, i, wide ? 8 : 4), a = vec_first(v, i);
    b = round_vector(v, i, b, wide, 1, &flags);
    float_done(v, i, flags);
    if (wide)
        a.q[0] = b.q[0];
    else
        a.d[0] = b.d[0];
    vec_set(v, i, i->reg, a);
}

#define ROUND_HANDLER(name, body)                                                                                      \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        body;                                                                                                          \
        NEXT_MEM(v, i);                                                                                                \
    }
ROUND_HANDLER(roundps, round_packed(v, i, false))
ROUND_HANDLER(roundpd, round_packed(v, i, true))
ROUND_HANDLER(roundss, round_scalar(v, i, false))
ROUND_HANDLER(roundsd, round_scalar(v, i, true))

/* ---- dot products: bits 4 and up choose the factors, bits 0 and up where the sum goes ---- */

HOST_BINARY(host_mulps, "mulps")
HOST_BINARY(host_mulpd, "mulpd")
HOST_BINARY(host_haddps, "haddps")
HOST_BINARY(host_haddpd, "haddpd")

static SIMD keep_lanes(SIMD x, unsigned bits, bool wide)
{
    for (unsigned k = 0; k < (wide ? 2 : 4); k++)
        if (bits >> k & 1)
            continue;
        else if (wide)
            x.q[k] = 0;
        else
            x.d[k] = 0;
    return x;
}

/* A step on one or both halves; returns if its results count. */
#define DOT_STEP(name, host, range)                                                                                    \
    static void name(struct vcpu *v, const struct insn *i, struct simd32 *a, const struct simd32 *b)                   \
    {                                                                                                                  \
        const struct simd32 first = *a;                                                                                \
        unsigned halves = i->opsize == 32 ? 2 : 1;                                                                     \
        uint32_t out = host(&a->half[0], b->half[0], float_csr(v));                                                    \
        if (halves == 2)                                                                                               \
            out |= host(&a->half[1], b->half[1], float_csr(v));                                                        \
        float_done_range(v, i, out, range, halves, a, &first, b);                                                      \
    }
DOT_STEP(step_mulps, host_mulps, RANGE_PS | RANGE_MUL)
DOT_STEP(step_mulpd, host_mulpd, RANGE_PD | RANGE_MUL)
DOT_STEP(step_haddps, host_haddps, RANGE_PS | RANGE_HADD)
DOT_STEP(step_haddpd, host_haddpd, RANGE_PD | RANGE_HADD)

static void dot_operands(struct vcpu *v, const struct insn *i, struct simd32 *a, struct simd32 *b, bool wide)
{
    vec_need(v, i);
    if (i->opsize == 32) {
        *b = i->flags & INSN_RM_REG ? ymm_get(v, i->rm) : avx_load32(v, i);
        *a = ymm_get(v, i->vvvv);
    } else {
        b->half[0] = b->half[1] = vec_source(v, i);
        a->half[0] = a->half[1] = vec_first(v, i);
    }
    for (unsigned h = 0; h < 2; h++) {
        a->half[h] = keep_lanes(a->half[h], (unsigned)i->imm >> 4, wide);
        b->half[h] = keep_lanes(b->half[h], (unsigned)i->imm >> 4, wide);
    }
}

static void dot_store(struct vcpu *v, const struct insn *i, struct simd32 a, bool wide)
{
    a.half[0] = keep_lanes(a.half[0], (unsigned)i->imm, wide);
    a.half[1] = keep_lanes(a.half[1], (unsigned)i->imm, wide);
    if (i->opsize == 32)
        ymm_set(v, i->reg, a);
    else
        vec_set(v, i, i->reg, a.half[0]);
}

static void dot_single(struct vcpu *v, const struct insn *i)
{
    struct simd32 a, b;
    dot_operands(v, i, &a, &b, false);
    step_mulps(v, i, &a, &b);
    b = a;
    step_haddps(v, i, &a, &b);
    b = a;
    step_haddps(v, i, &a, &b);
    dot_store(v, i, a, false);
}

static void dot_double(struct vcpu *v, const struct insn *i)
{
    struct simd32 a, b;
    dot_operands(v, i, &a, &b, true);
    step_mulpd(v, i, &a, &b);
    b = a;
    step_haddpd(v, i, &a, &b);
    dot_store(v, i, a, true);
}

ROUND_HANDLER(dpps, dot_single(v, i))
ROUND_HANDLER(dppd, dot_double(v, i))

op_fn *bind_sse4_float(const struct insn *i)
{
    switch (i->op) {
    case OP_ROUNDPS:
    case OP_VROUNDPS:
        return roundps;
    case OP_ROUNDPD:
    case OP_VROUNDPD:
        return roundpd;
    case OP_ROUNDSS:
    case OP_VROUNDSS:
        return roundss;
    case OP_ROUNDSD:
    case OP_VROUNDSD:
        return roundsd;
    case OP_DPPS:
    case OP_VDPPS:
        return dpps;
    case OP_DPPD:
    case OP_VDPPD:
        return dppd;
    default:
        return NULL;
    }
}
