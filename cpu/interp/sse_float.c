/*
 * SSE, SSE2 and SSE3 arithmetic and comparisons (SDM volume 2: exception types 2 and 3).
 */
#include "cpu/interp/sse_float_ops.h"

/* ---- unmasked exceptions ---- */

static bool is_tiny32(uint32_t x)
{
    return !(x & 0x7f800000) && x & 0x007fffff;
}
static bool is_tiny64(uint64_t x)
{
    return !(x & 0x7ff0000000000000) && x & 0x000fffffffffffff;
}

static bool has_tiny(const union simd16 *r, enum float_tiny kind)
{
    switch (kind) {
    case TINY_SS:
        return is_tiny32(r->d[0]);
    case TINY_SD:
        return is_tiny64(r->q[0]);
    case TINY_PS:
        return is_tiny32(r->d[0]) || is_tiny32(r->d[1]) || is_tiny32(r->d[2]) || is_tiny32(r->d[3]);
    case TINY_PD:
        return is_tiny64(r->q[0]) || is_tiny64(r->q[1]);
    default:
        return false;
    }
}

/*
 * The host ran masked, where a tiny result that is exact raises no flag; unmasked it does. After an unmasked exception
 * that was found before computing, nothing found by computing is reported. One departure: beside an unmasked overflow
 * or underflow PE is that of the masked result, not that of a result with unbounded exponent.
 */
void float_done_unmasked(struct vcpu *v, const struct insn *i, uint32_t flags, const union simd16 *result,
                         enum float_tiny tiny)
{
    uint32_t unmasked = ~(v->mxcsr >> 7) & MXCSR_FLAGS;
    if (unmasked & MXCSR_UE && result && has_tiny(result, tiny))
        flags |= MXCSR_UE;
    if (flags & unmasked & MXCSR_PRE)
        flags &= MXCSR_PRE;
    v->mxcsr |= flags;
    if (flags & unmasked)
        vcpu_raise(v, i, v->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

void float_done_wide_unmasked(struct vcpu *v, const struct insn *i, uint32_t flags, const struct simd32 *result,
                              bool wide, enum float_tiny tiny)
{
    if (!(v->mxcsr & MXCSR_UM) && wide && has_tiny(&result->half[1], tiny))
        flags |= MXCSR_UE;
    float_done_unmasked(v, i, flags, &result->half[0], tiny);
}

/* ---- operands ---- */

/* A source in memory of `size` bytes, 16 of them aligned. */
always_inline union simd16 float_load(struct vcpu *v, const struct insn *i, unsigned size)
{
    union simd16 m = {.q = {0, 0}};
    sse_read(v, i, sse_linear(v, i, size, size == 16 ? 15 : 0, 0), &m, size);
    return m;
}

/* ---- arithmetic ---- */

#define HANDLERS(name, text, size, tiny)                                                                               \
    HOST_BINARY(host_##name, text)                                                                                     \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 a = xmm_get(v, i->reg);                                                                           \
        float_done(v, i, host_##name(&a, xmm_get(v, i->rm), float_csr(v)), &a, tiny);                                  \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 b = float_load(v, i, size), a = xmm_get(v, i->reg);                                               \
        float_done(v, i, host_##name(&a, b, float_csr(v)), &a, tiny);                                                  \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT_MEM(v, i);                                                                                                \
    }
FLOAT_PACKED(HANDLERS)
FLOAT_RESIZE(HANDLERS)
FLOAT_SCALAR(HANDLERS)

struct two_forms {
    op_fn *r, *m;
};

#define ENTRY(name, text, size, tiny) [OP_##name] = {name##_r, name##_m},
static const struct two_forms plain[OP_COUNT] = {FLOAT_PACKED(ENTRY) FLOAT_RESIZE(ENTRY) FLOAT_SCALAR(ENTRY)};

/* ---- CMPPS and the rest: a mask by one of eight predicates ---- */

#define MASK_COMPARES(F) F(CMPPS, "cmpps", 16) F(CMPPD, "cmppd", 16) F(CMPSS, "cmpss", 4) F(CMPSD, "cmpsd", 8)
#define CMP_HANDLERS(name, text, size)                                                                                 \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 a = xmm_get(v, i->reg);                                                                           \
        float_done(v, i, host_##name(&a, xmm_get(v, i->rm), (unsigned)i->imm, float_csr(v)), &a, TINY_NEVER);          \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 b = float_load(v, i, size), a = xmm_get(v, i->reg);                                               \
        float_done(v, i, host_##name(&a, b, (unsigned)i->imm, float_csr(v)), &a, TINY_NEVER);                          \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT_MEM(v, i);                                                                                                \
    }
MASK_COMPARES(CMP_HANDLERS)

/* ---- COMISS and the rest, VEX forms too: ZF, PF, CF; the other flags are cleared ---- */

#define FLAG_COMPARES(F) F(COMISS, "comiss", 4) F(COMISD, "comisd", 8) F(UCOMISS, "ucomiss", 4) F(UCOMISD, "ucomisd", 8)
#define COMI_HANDLERS(name, text, size)                                                                                \
    HOST_COMPARE(host_##name, text)                                                                                    \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        vec_need(v, i);                                                                                                \
        uint32_t out = host_##name(xmm_get(v, i->reg), xmm_get(v, i->rm), float_csr(v), &flags);                       \
        float_done(v, i, out, NULL, TINY_NEVER);                                                                       \
        flags_set_image(v, flags);                                                                                     \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        vec_need(v, i);                                                                                                \
        union simd16 b = float_load(v, i, size);                                                                       \
        uint32_t out = host_##name(xmm_get(v, i->reg), b, float_csr(v), &flags);                                       \
        float_done(v, i, out, NULL, TINY_NEVER);                                                                       \
        flags_set_image(v, flags);                                                                                     \
        NEXT_MEM(v, i);                                                                                                \
    }
FLAG_COMPARES(COMI_HANDLERS)

static op_fn *bind_compare(const struct insn *i, bool reg)
{
    switch (i->op) {
#define COMPARE_CASE(name, text, size)                                                                                 \
    case OP_##name:                                                                                                    \
        return reg ? name##_r : name##_m;
        MASK_COMPARES(COMPARE_CASE)
#define FLAG_COMPARE_CASE(name, text, size)                                                                            \
    case OP_##name:                                                                                                    \
    case OP_V##name:                                                                                                   \
        return reg ? name##_r : name##_m;
        FLAG_COMPARES(FLAG_COMPARE_CASE)
    default:
        return NULL;
    }
}

op_fn *bind_sse_float(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG;
    op_fn *fn = reg ? plain[i->op].r : plain[i->op].m;
    return fn ? fn : bind_compare(i, reg);
}
