/*
 * Integer SIMD operations over one vector type. Include with SIMD naming the type (union simd8 or simd16) and
 * FN(name) making the functions' names: SIMD FN(OP)(SIMD a, SIMD b), a being the destination operand. SIMD_HAS_SSE4
 * adds simd_ops4.def.
 *
 * Plain loops over lanes: compilers turn them into the host's own vector instructions.
 */
#define LANES(lane) (sizeof(SIMD) / sizeof(((SIMD *)0)->lane[0]))

#define V(name, lane, ...)                                                                                             \
    static inline SIMD FN(name)(SIMD a, SIMD b)                                                                        \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(lane); k++) {                                                                   \
            const __typeof__(r.lane[0]) x = a.lane[k], y = b.lane[k];                                                  \
            (void)x;                                                                                                   \
            r.lane[k] = (__typeof__(r.lane[0]))(__VA_ARGS__);                                                          \
        }                                                                                                              \
        return r;                                                                                                      \
    }
#include "cpu/interp/simd_ops.def"
#ifdef SIMD_HAS_SSE4
#include "cpu/interp/simd_ops4.def"
#endif
#undef V

/* The lower half of the result comes from a, the upper from b. */
#define PACK(name, to, from, saturate)                                                                                 \
    static inline SIMD FN(name)(SIMD a, SIMD b)                                                                        \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(from); k++) {                                                                   \
            r.to[k] = saturate(a.from[k]);                                                                             \
            r.to[LANES(from) + k] = saturate(b.from[k]);                                                               \
        }                                                                                                              \
        return r;                                                                                                      \
    }
PACK(PACKSSWB, sb, sw, saturate_s8)
PACK(PACKUSWB, b, sw, saturate_u8)
PACK(PACKSSDW, sw, sd, saturate_s16)

/* Lanes of the lower (upper) halves of a and b in turn. */
#define UNPACK(name, lane, first)                                                                                      \
    static inline SIMD FN(name)(SIMD a, SIMD b)                                                                        \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(lane) / 2; k++) {                                                               \
            r.lane[2 * k] = a.lane[k + (first)];                                                                       \
            r.lane[2 * k + 1] = b.lane[k + (first)];                                                                   \
        }                                                                                                              \
        return r;                                                                                                      \
    }
UNPACK(PUNPCKLBW, b, 0)
UNPACK(PUNPCKLWD, w, 0)
UNPACK(PUNPCKLDQ, d, 0)
UNPACK(PUNPCKHBW, b, LANES(b) / 2)
UNPACK(PUNPCKHWD, w, LANES(w) / 2)
UNPACK(PUNPCKHDQ, d, LANES(d) / 2)

/* By a count for all lanes; counts beyond the lane give zeros, or the sign. */
#define SHIFT(name, lane, bits, ...)                                                                                   \
    static inline SIMD FN(name##_n)(SIMD a, uint64_t count)                                                            \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(lane); k++) {                                                                   \
            const __typeof__(r.lane[0]) x = a.lane[k];                                                                 \
            r.lane[k] = (__typeof__(r.lane[0]))(__VA_ARGS__);                                                          \
        }                                                                                                              \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline SIMD FN(name)(SIMD a, SIMD b)                                                                        \
    {                                                                                                                  \
        return FN(name##_n)(a, b.q[0]);                                                                                \
    }
SHIFT(PSRLW, w, 16, count > 15 ? 0 : x >> count)
SHIFT(PSRLD, d, 32, count > 31 ? 0 : x >> count)
SHIFT(PSRLQ, q, 64, count > 63 ? 0 : x >> count)
SHIFT(PSLLW, w, 16, count > 15 ? 0 : (uint32_t)x << count)
SHIFT(PSLLD, d, 32, count > 31 ? 0 : x << count)
SHIFT(PSLLQ, q, 64, count > 63 ? 0 : x << count)
SHIFT(PSRAW, sw, 16, x >> (count > 15 ? 15 : count))
SHIFT(PSRAD, sd, 32, x >> (count > 31 ? 31 : count))

static inline SIMD FN(PMADDWD)(SIMD a, SIMD b)
{
    SIMD r;
    for (unsigned k = 0; k < LANES(d); k++) {
        int32_t low = a.sw[2 * k] * b.sw[2 * k], high = a.sw[2 * k + 1] * b.sw[2 * k + 1];
        r.d[k] = (uint32_t)low + (uint32_t)high;
    }
    return r;
}

static inline SIMD FN(PMULUDQ)(SIMD a, SIMD b)
{
    SIMD r;
    for (unsigned k = 0; k < LANES(q); k++)
        r.q[k] = (uint64_t)a.d[2 * k] * b.d[2 * k];
    return r;
}

static inline SIMD FN(PSADBW)(SIMD a, SIMD b)
{
    SIMD r;
    for (unsigned k = 0; k < LANES(q); k++) {
        unsigned sum = 0;
        for (unsigned n = 8 * k; n < 8 * k + 8; n++)
            sum += a.b[n] > b.b[n] ? a.b[n] - b.b[n] : b.b[n] - a.b[n];
        r.q[k] = sum;
    }
    return r;
}

/* ---- SSSE3 ---- */

static inline SIMD FN(PSHUFB)(SIMD a, SIMD b)
{
    SIMD r;
    for (unsigned k = 0; k < LANES(b); k++)
        r.b[k] = b.b[k] & 0x80 ? 0 : a.b[b.b[k] & (LANES(b) - 1)];
    return r;
}

/* Neighbours of a, then neighbours of b. */
#define NEIGHBOURS(name, lane, ...)                                                                                    \
    static inline SIMD FN(name)(SIMD a, SIMD b)                                                                        \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < LANES(lane); k++) {                                                                   \
            const SIMD s = k < LANES(lane) / 2 ? a : b;                                                                \
            const __typeof__(r.lane[0]) x = s.lane[2 * k % LANES(lane)], y = s.lane[2 * k % LANES(lane) + 1];          \
            r.lane[k] = (__typeof__(r.lane[0]))(__VA_ARGS__);                                                          \
        }                                                                                                              \
        return r;                                                                                                      \
    }
NEIGHBOURS(PHADDW, w, x + y)
NEIGHBOURS(PHADDD, d, x + y)
NEIGHBOURS(PHADDSW, sw, saturate_s16(x + y))
NEIGHBOURS(PHSUBW, w, x - y)
NEIGHBOURS(PHSUBD, d, x - y)
NEIGHBOURS(PHSUBSW, sw, saturate_s16(x - y))

static inline SIMD FN(PMADDUBSW)(SIMD a, SIMD b)
{
    SIMD r;
    for (unsigned k = 0; k < LANES(w); k++)
        r.sw[k] = (int16_t)saturate_s16(a.b[2 * k] * b.sb[2 * k] + a.b[2 * k + 1] * b.sb[2 * k + 1]);
    return r;
}

/* Bytes n and up of b with a above it. */
static inline SIMD FN(PALIGNR)(SIMD a, SIMD b, unsigned n)
{
    SIMD r;
    for (unsigned k = 0; k < LANES(b); k++)
        r.b[k] = k + n < LANES(b) ? b.b[k + n] : k + n < 2 * LANES(b) ? a.b[k + n - LANES(b)] : 0;
    return r;
}

#undef LANES
#undef PACK
#undef NEIGHBOURS
#undef UNPACK
#undef SHIFT
