/*
 * Operations on 128 bits as C functions of values: what SSE instructions do, and what AVX does in each half of a YMM
 * register. a is the destination (with VEX the first source), b the source, n the immediate. Floating-point arithmetic
 * is elsewhere (sse_float_ops.h); what is here raises nothing.
 */
#ifndef CPU_INTERP_SIMD16_H
#define CPU_INTERP_SIMD16_H

#include "cpu/interp/sse.h"

#define SIMD_HAS_SSE4
#define SIMD     union simd16
#define FN(name) x_##name
#include "cpu/interp/simd_tmpl.h"
#define LANES(lane) (sizeof(SIMD) / sizeof(((SIMD *)0)->lane[0]))
/* ---- moves and shuffles ---- */

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

/* ---- shifts of the whole ---- */

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

/* ---- SSE4.1 ---- */

static inline SIMD x_PMULDQ(SIMD a, SIMD b)
{
    return (SIMD){.sq = {(int64_t)a.sd[0] * b.sd[0], (int64_t)a.sd[2] * b.sd[2]}};
}

static inline SIMD x_PACKUSDW(SIMD a, SIMD b)
{
    SIMD r;
    for (unsigned k = 0; k < 4; k++) {
        r.w[k] = (uint16_t)saturate_u16(a.sd[k]);
        r.w[4 + k] = (uint16_t)saturate_u16(b.sd[k]);
    }
    return r;
}

/* Lanes of b where the mask says so, else of a: by the bits of the immediate, or by the signs of m. */
#define BLEND(name, lane)                                                                                              \
    static inline SIMD x_##name(SIMD a, SIMD b, unsigned n)                                                            \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(lane); k++)                                                                     \
            r.lane[k] = n >> k & 1 ? b.lane[k] : a.lane[k];                                                            \
        return r;                                                                                                      \
    }
BLEND(PBLENDW, w)
BLEND(BLENDPS, d)
BLEND(BLENDPD, q)
#define BLENDV(name, lane, sign)                                                                                       \
    static inline SIMD x_##name(SIMD a, SIMD b, SIMD m)                                                                \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(lane); k++)                                                                     \
            r.lane[k] = m.sign[k] < 0 ? b.lane[k] : a.lane[k];                                                         \
        return r;                                                                                                      \
    }
BLENDV(PBLENDVB, b, sb)
BLENDV(BLENDVPS, d, sd)
BLENDV(BLENDVPD, q, sq)

/* Eight sums of four absolute differences; the immediate chooses where in a and b. */
static inline SIMD x_MPSADBW(SIMD a, SIMD b, unsigned n)
{
    SIMD r;
    const uint8_t *x = a.b + (n & 4), *y = b.b + 4 * (n & 3);
    for (unsigned k = 0; k < 8; k++) {
        unsigned sum = 0;
        for (unsigned j = 0; j < 4; j++)
            sum += x[k + j] > y[j] ? x[k + j] - y[j] : y[j] - x[k + j];
        r.w[k] = (uint16_t)sum;
    }
    return r;
}

/* The smallest word and its index. */
static inline SIMD x_PHMINPOSUW(SIMD b)
{
    unsigned at = 0;
    for (unsigned k = 1; k < 8; k++)
        if (b.w[k] < b.w[at])
            at = k;
    return (SIMD){.w = {b.w[at], (uint16_t)at}};
}

#define EXTEND(name, to, from)                                                                                         \
    static inline SIMD x_##name(SIMD b)                                                                                \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(to); k++)                                                                       \
            r.to[k] = b.from[k];                                                                                       \
        return r;                                                                                                      \
    }
EXTEND(PMOVSXBW, sw, sb)
EXTEND(PMOVSXBD, sd, sb)
EXTEND(PMOVSXBQ, sq, sb)
EXTEND(PMOVSXWD, sd, sw)
EXTEND(PMOVSXWQ, sq, sw)
EXTEND(PMOVSXDQ, sq, sd)
EXTEND(PMOVZXBW, w, b)
EXTEND(PMOVZXBD, d, b)
EXTEND(PMOVZXBQ, q, b)
EXTEND(PMOVZXWD, d, w)
EXTEND(PMOVZXWQ, q, w)
EXTEND(PMOVZXDQ, q, d)

#undef LANES
#undef BLEND
#undef BLENDV
#undef EXTEND

#endif
