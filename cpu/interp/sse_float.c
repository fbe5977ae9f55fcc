/*
 * SSE, SSE2 and SSE3 arithmetic and comparisons (SDM volume 2: exception types 2 and 3).
 */
#include "cpu/interp/float_soft.h"
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

static bool has_tiny(const union simd16 *r, enum float_range range)
{
    switch (range & RANGE_LANES) {
    case RANGE_SS:
        return is_tiny32(r->d[0]);
    case RANGE_SD:
        return is_tiny64(r->q[0]);
    case RANGE_PS:
        return is_tiny32(r->d[0]) || is_tiny32(r->d[1]) || is_tiny32(r->d[2]) || is_tiny32(r->d[3]);
    case RANGE_PD:
        return is_tiny64(r->q[0]) || is_tiny64(r->q[1]);
    default:
        return false;
    }
}

/* One 16-byte half of two operands, by lanes of 32 or 64 bits. */
struct lanes {
    union simd16 a, b;
    bool wide;
    uint32_t csr;
};

static uint32_t lane_range(const struct lanes *l, enum float_operation op, unsigned x_lane, unsigned y_lane,
                           const union simd16 *x, const union simd16 *y)
{
    if (l->wide)
        return float_soft_range(&float_double, op, x->q[x_lane], y->q[y_lane], l->csr);
    return float_soft_range(&float_single, op, x->d[x_lane], y->d[y_lane], l->csr);
}

/* Neighbours in each operand. */
static uint32_t horizontal_range(const struct lanes *l, enum float_operation op)
{
    uint32_t flags = 0;
    for (unsigned k = 0; k < (l->wide ? 2 : 4); k += 2)
        flags |= lane_range(l, op, k, k + 1, &l->a, &l->a) | lane_range(l, op, k, k + 1, &l->b, &l->b);
    return flags;
}

static uint32_t narrow_range(const struct lanes *l, unsigned count)
{
    uint32_t flags = 0;
    for (unsigned k = 0; k < count; k++)
        flags |= float_soft_range(&float_double, FLOAT_NARROW, l->b.q[k], 0, l->csr);
    return flags;
}

static uint32_t vertical_range(const struct lanes *l, enum float_range op, unsigned count)
{
    static const enum float_operation operation[] = {[RANGE_ADD >> 3] = FLOAT_ADD,
                                                     [RANGE_SUB >> 3] = FLOAT_SUB,
                                                     [RANGE_MUL >> 3] = FLOAT_MUL,
                                                     [RANGE_DIV >> 3] = FLOAT_DIV,
                                                     [RANGE_ADDSUB >> 3] = FLOAT_ADD};
    uint32_t flags = 0;
    for (unsigned k = 0; k < count; k++)
        flags |= lane_range(l, op == RANGE_ADDSUB && !(k & 1) ? FLOAT_SUB : operation[op >> 3], k, k, &l->a, &l->b);
    return flags;
}

/* OE, UE and PE of half h, as they are with the masks of `csr`. */
static uint32_t half_range(const struct float_result *r, unsigned h, uint32_t csr)
{
    enum float_range kind = r->range & RANGE_LANES, op = r->range & RANGE_OP;
    struct lanes l = {.wide = kind == RANGE_SD || kind == RANGE_PD, .csr = csr};
    unsigned count = kind == RANGE_SS || kind == RANGE_SD ? 1 : l.wide ? 2 : 4;
    memcpy(&l.b, (const char *)r->b + 16 * h, 16);
    if (op == RANGE_NARROW)
        return narrow_range(&l, count == 1 ? 1 : 2);
    memcpy(&l.a, (const char *)r->a + 16 * h, 16);
    if (op == RANGE_HADD || op == RANGE_HSUB)
        return horizontal_range(&l, op == RANGE_HADD ? FLOAT_ADD : FLOAT_SUB);
    return vertical_range(&l, op, count);
}

/*
 * The host ran masked, where a tiny result that is exact raises no flag; unmasked it does, and what PE says beside an
 * unmasked overflow or underflow is another thing (float_soft.h). Then all lanes are looked at again in software.
 */
static uint32_t range_flags(const struct vcpu *v, const struct float_result *r, uint32_t flags)
{
    const uint32_t asked = MXCSR_OE | MXCSR_UE;
    uint32_t unmasked = ~(v->mxcsr >> 7) & asked;
    bool tiny = false;
    for (unsigned h = 0; h < r->halves && !tiny; h++)
        tiny = has_tiny((const union simd16 *)r->result + h, r->range);
    if (!((tiny ? flags | MXCSR_UE : flags) & unmasked))
        return flags;
    flags &= ~(asked | MXCSR_PE);
    for (unsigned h = 0; h < r->halves; h++)
        flags |= half_range(r, h, v->mxcsr);
    return flags;
}

/* After an unmasked exception that was found before computing, nothing found by computing is reported. */
void float_done_unmasked(struct vcpu *v, const struct insn *i, uint32_t flags, const struct float_result *r)
{
    uint32_t unmasked = ~(v->mxcsr >> 7) & MXCSR_FLAGS;
    if (r && r->range & RANGE_LANES)
        flags = range_flags(v, r, flags);
    if (flags & unmasked & MXCSR_PRE)
        flags &= MXCSR_PRE;
    v->mxcsr |= flags;
    if (flags & unmasked)
        vcpu_raise(v, i, v->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
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

#define HANDLERS(name, text, size, range)                                                                              \
    HOST_BINARY(host_##name, text)                                                                                     \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 a = xmm_get(v, i->reg);                                                                           \
        float_done_range(v, i, host_##name(&a, xmm_get(v, i->rm), float_csr(v)), range, 1, &a, &v->xmm[i->reg],        \
                         &v->xmm[i->rm]);                                                                              \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 b = float_load(v, i, size), a = xmm_get(v, i->reg);                                               \
        float_done_range(v, i, host_##name(&a, b, float_csr(v)), range, 1, &a, &v->xmm[i->reg], &b);                   \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT_MEM(v, i);                                                                                                \
    }
FLOAT_PACKED(HANDLERS)
FLOAT_RESIZE(HANDLERS)
FLOAT_SCALAR(HANDLERS)

struct two_forms {
    op_fn *r, *m;
};

#define ENTRY(name, text, size, range) [OP_##name] = {name##_r, name##_m},
static const struct two_forms plain[OP_COUNT] = {FLOAT_PACKED(ENTRY) FLOAT_RESIZE(ENTRY) FLOAT_SCALAR(ENTRY)};

/* ---- CMPPS and the rest: a mask by one of eight predicates ---- */

#define MASK_COMPARES(F) F(CMPPS, "cmpps", 16) F(CMPPD, "cmppd", 16) F(CMPSS, "cmpss", 4) F(CMPSD, "cmpsd", 8)
#define CMP_HANDLERS(name, text, size)                                                                                 \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 a = xmm_get(v, i->reg);                                                                           \
        float_done(v, i, host_##name(&a, xmm_get(v, i->rm), (unsigned)i->imm, float_csr(v)));                          \
        xmm_set(v, i->reg, a);                                                                                         \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 b = float_load(v, i, size), a = xmm_get(v, i->reg);                                               \
        float_done(v, i, host_##name(&a, b, (unsigned)i->imm, float_csr(v)));                                          \
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
        float_done(v, i, out);                                                                                         \
        flags_set_image(v, flags);                                                                                     \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        vec_need(v, i);                                                                                                \
        union simd16 b = float_load(v, i, size);                                                                       \
        uint32_t out = host_##name(xmm_get(v, i->reg), b, float_csr(v), &flags);                                       \
        float_done(v, i, out);                                                                                         \
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
