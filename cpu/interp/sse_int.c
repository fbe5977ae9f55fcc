/*
 * Integer instructions on XMM registers (SDM volume 2: exception types 4 and 7), the logic of PS and PD included, which
 * is the same; and shuffles, which know no types either.
 */
#include "cpu/interp/sse.h"

#define SIMD     union simd16
#define FN(name) x_##name
#include "cpu/interp/simd_tmpl.h"

/* ---- operations that only XMM registers have ---- */

static inline SIMD x_PUNPCKLQDQ(SIMD a, SIMD b)
{
    return (SIMD){.q = {a.q[0], b.q[0]}};
}
static inline SIMD x_PUNPCKHQDQ(SIMD a, SIMD b)
{
    return (SIMD){.q = {a.q[1], b.q[1]}};
}
static inline SIMD x_MOVSLDUP(SIMD a, SIMD b)
{
    return (SIMD){.d = {b.d[0], b.d[0], b.d[2], b.d[2]}};
}
static inline SIMD x_MOVSHDUP(SIMD a, SIMD b)
{
    return (SIMD){.d = {b.d[1], b.d[1], b.d[3], b.d[3]}};
}

/* As C expressions of a and b over other operations. */
#define x_ANDPS    x_PAND
#define x_ANDPD    x_PAND
#define x_ANDNPS   x_PANDN
#define x_ANDNPD   x_PANDN
#define x_ORPS     x_POR
#define x_ORPD     x_POR
#define x_XORPS    x_PXOR
#define x_XORPD    x_PXOR
#define x_UNPCKLPS x_PUNPCKLDQ
#define x_UNPCKLPD x_PUNPCKLQDQ
#define x_UNPCKHPS x_PUNPCKHDQ
#define x_UNPCKHPD x_PUNPCKHQDQ

#define OWN_NAMED(X)                                                                                                   \
    X(PACKSSWB)                                                                                                        \
    X(PACKUSWB)                                                                                                        \
    X(PACKSSDW)                                                                                                        \
    X(PUNPCKLBW)                                                                                                       \
    X(PUNPCKLWD) X(PUNPCKLDQ) X(PUNPCKHBW) X(PUNPCKHWD) X(PUNPCKHDQ) X(PSRLW) X(PSRLD) X(PSRLQ) X(PSLLW) X(PSLLD)      \
        X(PSLLQ) X(PSRAW) X(PSRAD) X(PMADDWD) X(PMULUDQ) X(PSADBW) X(PUNPCKLQDQ) X(PUNPCKHQDQ) X(MOVSLDUP) X(MOVSHDUP) \
            X(ANDPS) X(ANDPD) X(ANDNPS) X(ANDNPD) X(ORPS) X(ORPD) X(XORPS) X(XORPD) X(UNPCKLPS) X(UNPCKLPD)            \
                X(UNPCKHPS) X(UNPCKHPD)

#define HANDLERS(name)                                                                                                 \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        xmm_set(v, i->reg, x_##name(xmm_get(v, i->reg), xmm_get(v, i->rm)));                                           \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 m = sse_load16(v, i);                                                                             \
        xmm_set(v, i->reg, x_##name(xmm_get(v, i->reg), m));                                                           \
        NEXT_MEM(v, i);                                                                                                \
    }
#define V(name, lane, ...) HANDLERS(name)
#include "cpu/interp/simd_ops.def"
#undef V
OWN_NAMED(HANDLERS)

struct two_forms {
    op_fn *r, *m;
};

#define ENTRY(name) [OP_##name] = {name##_r, name##_m},
static const struct two_forms plain[OP_COUNT] = {
#define V(name, lane, ...) ENTRY(name)
#include "cpu/interp/simd_ops.def"
#undef V
    OWN_NAMED(ENTRY)};

/* ---- shifts by an immediate ---- */

static inline SIMD x_PSRLDQ_n(SIMD a, uint64_t n)
{
    SIMD r;
    for (unsigned k = 0; k < 16; k++)
        r.b[k] = k + n < 16 ? a.b[k + n] : 0;
    return r;
}
static inline SIMD x_PSLLDQ_n(SIMD a, uint64_t n)
{
    SIMD r;
    for (unsigned k = 0; k < 16; k++)
        r.b[k] = k >= n ? a.b[k - n] : 0;
    return r;
}

#define SHIFTS(X)           X(PSRLW) X(PSRLD) X(PSRLQ) X(PSLLW) X(PSLLD) X(PSLLQ) X(PSRAW) X(PSRAD) X(PSRLDQ) X(PSLLDQ)
#define SHIFT_HANDLER(name) SSE_REG(name##_i, xmm_set(v, i->rm, x_##name##_n(xmm_get(v, i->rm), i->imm)))
SHIFTS(SHIFT_HANDLER)

static op_fn *bind_shift_imm(unsigned op)
{
    switch (op) {
#define SHIFT_CASE(name)                                                                                               \
    case OP_##name:                                                                                                    \
        return name##_i;
        SHIFTS(SHIFT_CASE)
    default:
        return NULL;
    }
}

/* ---- shuffles by an immediate ---- */

static inline SIMD x_PSHUFD(SIMD a, SIMD b, unsigned n)
{
    return (SIMD){.d = {b.d[n & 3], b.d[n >> 2 & 3], b.d[n >> 4 & 3], b.d[n >> 6 & 3]}};
}
static inline SIMD x_PSHUFLW(SIMD a, SIMD b, unsigned n)
{
    SIMD r = b;
    for (unsigned k = 0; k < 4; k++)
        r.w[k] = b.w[n >> 2 * k & 3];
    return r;
}
static inline SIMD x_PSHUFHW(SIMD a, SIMD b, unsigned n)
{
    SIMD r = b;
    for (unsigned k = 0; k < 4; k++)
        r.w[4 + k] = b.w[4 + (n >> 2 * k & 3)];
    return r;
}
static inline SIMD x_SHUFPS(SIMD a, SIMD b, unsigned n)
{
    return (SIMD){.d = {a.d[n & 3], a.d[n >> 2 & 3], b.d[n >> 4 & 3], b.d[n >> 6 & 3]}};
}
static inline SIMD x_SHUFPD(SIMD a, SIMD b, unsigned n)
{
    return (SIMD){.q = {a.q[n & 1], b.q[n >> 1 & 1]}};
}

#define SHUFFLES(X) X(PSHUFD) X(PSHUFLW) X(PSHUFHW) X(SHUFPS) X(SHUFPD)
#define SHUFFLE_HANDLERS(name)                                                                                         \
    SSE_REG(name##_r, xmm_set(v, i->reg, x_##name(xmm_get(v, i->reg), xmm_get(v, i->rm), (unsigned)i->imm)))           \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        union simd16 m = sse_load16(v, i);                                                                             \
        xmm_set(v, i->reg, x_##name(xmm_get(v, i->reg), m, (unsigned)i->imm));                                         \
        NEXT_MEM(v, i);                                                                                                \
    }
SHUFFLES(SHUFFLE_HANDLERS)

static op_fn *bind_shuffle(const struct insn *i, bool reg)
{
    switch (i->op) {
#define SHUFFLE_CASE(name)                                                                                             \
    case OP_##name:                                                                                                    \
        return reg ? name##_r : name##_m;
        SHUFFLES(SHUFFLE_CASE)
    default:
        return NULL;
    }
}

/* ---- between vectors and general registers ---- */

SSE_REG(pinsrw_r, v->xmm[i->reg].w[i->imm & 7] = (uint16_t)v->gpr[i->rm])
static void pinsrw_m(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    v->xmm[i->reg].w[i->imm & 7] = lin_load16(v, i, insn_linear(v, i, 2, 0));
    NEXT_MEM(v, i);
}
SSE_REG(pextrw, v->gpr[i->reg] = v->xmm[i->rm].w[i->imm & 7])
SSE_REG(pmovmskb, v->gpr[i->reg] = byte_signs(v->xmm[i->rm].q[0]) | byte_signs(v->xmm[i->rm].q[1]) << 8)
SSE_REG(movmskpd, v->gpr[i->reg] = v->xmm[i->rm].q[0] >> 63 | (v->xmm[i->rm].q[1] >> 63) << 1)
SSE_REG(movmskps, const uint32_t *d = v->xmm[i->rm].d;
        v->gpr[i->reg] = d[0] >> 31 | (d[1] >> 31) << 1 | (d[2] >> 31) << 2 | (d[3] >> 31) << 3)

op_fn *bind_sse_int(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG;
    op_fn *fn;
    if (i->opsize != 16 || i->flags & INSN_VEX)
        return NULL;
    if (i->enc == ENC_MI)
        return bind_shift_imm(i->op);
    if ((fn = reg ? plain[i->op].r : plain[i->op].m) || (fn = bind_shuffle(i, reg)))
        return fn;
    switch (i->op) {
    case OP_PINSRW:
        return reg ? pinsrw_r : pinsrw_m;
    case OP_PEXTRW: /* the form with a memory operand is of SSE4.1 */
        return i->enc == ENC_RMI ? pextrw : NULL;
    case OP_PMOVMSKB:
        return pmovmskb;
    case OP_MOVMSKPS:
        return movmskps;
    case OP_MOVMSKPD:
        return movmskpd;
    default:
        return NULL;
    }
}
