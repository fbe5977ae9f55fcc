/*
 * Integer and logical AVX instructions whose result depends on lanes of its own half alone (SDM volume 2): the
 * operations of SSE, on one half or on both.
 *
 * Handlers come in four forms: 128 or 256 bits, source in a register or in memory (at any alignment).
 */
#include "cpu/interp/avx.h"

/* ---- operations that only VEX has ---- */

#define LANE_OP(name, lane, ...)                                                                                       \
    static inline SIMD x_##name(SIMD a, SIMD b)                                                                        \
    {                                                                                                                  \
        SIMD r;                                                                                                        \
        for (unsigned k = 0; k < sizeof r / sizeof r.lane[0]; k++) {                                                   \
            const __typeof__(r.lane[0]) x = a.lane[k], y = b.lane[k];                                                  \
            r.lane[k] = (__typeof__(r.lane[0]))(__VA_ARGS__);                                                          \
        }                                                                                                              \
        return r;                                                                                                      \
    }
LANE_OP(VPSRLVD, d, y > 31 ? 0 : x >> y)
LANE_OP(VPSRLVQ, q, y > 63 ? 0 : x >> y)
LANE_OP(VPSLLVD, d, y > 31 ? 0 : x << y)
LANE_OP(VPSLLVQ, q, y > 63 ? 0 : x << y)
LANE_OP(VPSRAVD, sd, x >> ((uint32_t)y > 31 ? 31 : y))

static inline SIMD x_VPERMILPS(SIMD a, SIMD b)
{
    return (SIMD){.d = {a.d[b.d[0] & 3], a.d[b.d[1] & 3], a.d[b.d[2] & 3], a.d[b.d[3] & 3]}};
}
static inline SIMD x_VPERMILPD(SIMD a, SIMD b)
{
    return (SIMD){.q = {a.q[b.q[0] >> 1 & 1], a.q[b.q[1] >> 1 & 1]}};
}
static inline SIMD x_VPERMILPD_n(SIMD b, unsigned n)
{
    return (SIMD){.q = {b.q[n & 1], b.q[n >> 1 & 1]}};
}

/* Beside those of simd_vec.def. */
#define VEX_ONLY(F)                                                                                                    \
    F(VPSRLVD, 0, x_VPSRLVD(a, b))                                                                                     \
    F(VPSRLVQ, 0, x_VPSRLVQ(a, b))                                                                                     \
    F(VPSLLVD, 0, x_VPSLLVD(a, b))                                                                                     \
    F(VPSLLVQ, 0, x_VPSLLVQ(a, b))                                                                                     \
    F(VPSRAVD, 0, x_VPSRAVD(a, b))                                                                                     \
    F(VPERMILPS, 0, x_VPERMILPS(a, b))                                                                                 \
    F(VPERMILPD, 0, x_VPERMILPD(a, b))                                                                                 \
    F(VPBLENDD, 4, x_BLENDPS(a, b, n))
/* Their forms with an immediate. */
#define PERMUTE_IMM(F)                                                                                                 \
    F(VPERMILPS_imm, 0, x_PSHUFD(a, b, n))                                                                             \
    F(VPERMILPD_imm, 2, x_VPERMILPD_n(b, n))

/* ---- handlers ---- */

#define C ymm_half(v, i->imm2, h)

#define LOW_HANDLERS(name, shift, ...)                                                                                 \
    always_inline SIMD name##_half(const struct vcpu *v, const struct insn *i, SIMD a, SIMD b, unsigned h)             \
    {                                                                                                                  \
        const unsigned n = (unsigned)i->imm >> (h * (shift));                                                          \
        (void)n, (void)a;                                                                                              \
        return __VA_ARGS__;                                                                                            \
    }                                                                                                                  \
    static void name##_128r(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        ymm_set_low(v, i->reg, name##_half(v, i, xmm_get(v, i->vvvv), xmm_get(v, i->rm), 0));                          \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_128m(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        SIMD b = avx_load16(v, i);                                                                                     \
        ymm_set_low(v, i->reg, name##_half(v, i, xmm_get(v, i->vvvv), b, 0));                                          \
        NEXT_MEM(v, i);                                                                                                \
    }
#define HANDLERS(name, shift, ...)                                                                                     \
    LOW_HANDLERS(name, shift, __VA_ARGS__)                                                                             \
    static void name##_256r(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        struct simd32 a = ymm_get(v, i->vvvv), b = ymm_get(v, i->rm);                                                  \
        ymm_set(v, i->reg,                                                                                             \
                (struct simd32){                                                                                       \
                    {name##_half(v, i, a.half[0], b.half[0], 0), name##_half(v, i, a.half[1], b.half[1], 1)}});        \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_256m(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        struct simd32 b = avx_load32(v, i), a = ymm_get(v, i->vvvv);                                                   \
        ymm_set(v, i->reg,                                                                                             \
                (struct simd32){                                                                                       \
                    {name##_half(v, i, a.half[0], b.half[0], 0), name##_half(v, i, a.half[1], b.half[1], 1)}});        \
        NEXT_MEM(v, i);                                                                                                \
    }

#define V(name, lane, ...)    HANDLERS(V##name, 0, x_##name(a, b))
#define VEC(name, shift, ...) HANDLERS(V##name, shift, __VA_ARGS__)
#define LOW(name, ...)        LOW_HANDLERS(V##name, 0, __VA_ARGS__)
#include "cpu/interp/simd_ops.def"
#include "cpu/interp/simd_ops4.def"
#include "cpu/interp/simd_vec.def"
#undef V
#undef VEC
#undef LOW
VEX_ONLY(HANDLERS)
PERMUTE_IMM(HANDLERS)

#define ENTRY(name)            [OP_##name] = {name##_128r, name##_128m, name##_256r, name##_256m},
#define ENTRY_NAMED(name, ...) ENTRY(name)
#define V(name, lane, ...)     ENTRY(V##name)
#define VEC(name, shift, ...)  ENTRY(V##name)
#define LOW(name, ...)         [OP_V##name] = {V##name##_128r, V##name##_128m, NULL, NULL},
static const struct avx_forms plain[OP_COUNT] = {
#include "cpu/interp/simd_ops.def"
#include "cpu/interp/simd_ops4.def"
#include "cpu/interp/simd_vec.def"
    VEX_ONLY(ENTRY_NAMED)};
#undef V
#undef VEC
#undef LOW

/* ---- shifts: the count for all lanes of both halves is in an XMM register or in 16 bytes of memory ---- */

#define SHIFTS_BY(X) X(PSRLW) X(PSRLD) X(PSRLQ) X(PSLLW) X(PSLLD) X(PSLLQ) X(PSRAW) X(PSRAD)
#define SHIFTS(X)    SHIFTS_BY(X) X(PSRLDQ) X(PSLLDQ)

#define SHIFT_BY(name)                                                                                                 \
    static void name##_by(struct vcpu *v, const struct insn *i)                                                        \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        uint64_t n = (i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : avx_load16(v, i)).q[0];                             \
        struct simd32 a = ymm_get(v, i->vvvv);                                                                         \
        if (i->opsize == 32)                                                                                           \
            ymm_set(v, i->reg, (struct simd32){{x_##name##_n(a.half[0], n), x_##name##_n(a.half[1], n)}});             \
        else                                                                                                           \
            ymm_set_low(v, i->reg, x_##name##_n(a.half[0], n));                                                        \
        NEXT_MEM(v, i);                                                                                                \
    }
SHIFTS_BY(SHIFT_BY)

#define SHIFT_IMM(name)                                                                                                \
    static void name##_imm(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        struct simd32 a = ymm_get(v, i->rm);                                                                           \
        if (i->opsize == 32)                                                                                           \
            ymm_set(v, i->vvvv, (struct simd32){{x_##name##_n(a.half[0], i->imm), x_##name##_n(a.half[1], i->imm)}});  \
        else                                                                                                           \
            ymm_set_low(v, i->vvvv, x_##name##_n(a.half[0], i->imm));                                                  \
        NEXT(v, i);                                                                                                    \
    }
SHIFTS(SHIFT_IMM)

static op_fn *bind_vex_shift(const struct insn *i)
{
    switch (i->op) {
#define SHIFT_CASE(name)                                                                                               \
    case OP_V##name:                                                                                                   \
        return i->enc == ENC_VMI ? name##_imm : name##_by;
        SHIFTS_BY(SHIFT_CASE)
    case OP_VPSRLDQ:
        return PSRLDQ_imm;
    case OP_VPSLLDQ:
        return PSLLDQ_imm;
    default:
        return NULL;
    }
}

op_fn *bind_avx_int(const struct insn *i)
{
    static const struct avx_forms single = {VPERMILPS_imm_128r, VPERMILPS_imm_128m, VPERMILPS_imm_256r,
                                            VPERMILPS_imm_256m},
                                  twice = {VPERMILPD_imm_128r, VPERMILPD_imm_128m, VPERMILPD_imm_256r,
                                           VPERMILPD_imm_256m};
    if (i->enc == ENC_RMI && i->op == OP_VPERMILPS)
        return avx_form(i, &single);
    if (i->enc == ENC_RMI && i->op == OP_VPERMILPD)
        return avx_form(i, &twice);
    op_fn *fn = avx_form(i, &plain[i->op]);
    return fn ? fn : bind_vex_shift(i);
}
