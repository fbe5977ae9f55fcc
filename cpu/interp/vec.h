/*
 * What handlers of SSE4 and AVX instructions share: who may execute VEX forms, YMM operands, and operands of handlers
 * that serve a legacy form and its VEX.128 form alike.
 *
 * VEX forms write all of the destination: what lies above the result is zeroed. Legacy forms keep it. VEX forms take
 * memory operands at any alignment, unless they are moves that name alignment.
 */
#ifndef CPU_INTERP_VEC_H
#define CPU_INTERP_VEC_H

#include "cpu/interp/simd16.h"

/* #UD without CR4.OSXSAVE or XCR0's SSE and AVX bits, #NM by CR0.TS (sse.c). CR0.EM means nothing here. */
_Noreturn void avx_unavailable(struct vcpu *v, const struct insn *i);

static inline void avx_need(struct vcpu *v, const struct insn *i)
{
    if (unlikely(!(v->cr4 & CR4_OSXSAVE) || (~v->xcr0 & 6) || (v->cr0 & CR0_TS)))
        avx_unavailable(v, i);
}

/* A YMM register as two halves. */
struct simd32 {
    SIMD half[2];
};

static inline SIMD ymm_half(const struct vcpu *v, unsigned n, unsigned h)
{
    SIMD x;
    memcpy(&x, v->xmm[n].q + 2 * h, sizeof x);
    return x;
}
static inline struct simd32 ymm_get(const struct vcpu *v, unsigned n)
{
    struct simd32 x;
    memcpy(&x, v->xmm[n].q, sizeof x);
    return x;
}
static inline void ymm_set(struct vcpu *v, unsigned n, struct simd32 x)
{
    memcpy(v->xmm[n].q, &x, sizeof x);
}
/* The result of a 128-bit VEX form. */
static inline void ymm_set_low(struct vcpu *v, unsigned n, SIMD x)
{
    memcpy(v->xmm[n].q, &x, sizeof x);
    v->xmm[n].q[2] = v->xmm[n].q[3] = 0;
}

/* Memory operands without alignment; of fewer than 16 bytes the rest is zero. */
static inline SIMD avx_load16(struct vcpu *v, const struct insn *i)
{
    SIMD x;
    sse_read(v, i, insn_linear(v, i, 16, 0), &x, sizeof x);
    return x;
}
static inline struct simd32 avx_load32(struct vcpu *v, const struct insn *i)
{
    struct simd32 x;
    sse_read(v, i, insn_linear(v, i, 32, 0), &x, sizeof x);
    return x;
}
static inline SIMD vec_load_part(struct vcpu *v, const struct insn *i, unsigned size)
{
    SIMD x = {.q = {0, 0}};
    sse_read(v, i, insn_linear(v, i, size, 0), &x, size);
    return x;
}

/* ---- for legacy and VEX.128 alike ---- */

static inline bool is_vex_form(const struct insn *i)
{
    return i->flags & INSN_VEX;
}
static inline void vec_need(struct vcpu *v, const struct insn *i)
{
    if (is_vex_form(i))
        avx_need(v, i);
    else
        sse_need(v, i);
}
/* The first source: the destination, or the register that VEX names. */
static inline SIMD vec_first(const struct vcpu *v, const struct insn *i)
{
    return xmm_get(v, is_vex_form(i) ? i->vvvv : i->reg);
}
static inline void vec_set(struct vcpu *v, const struct insn *i, unsigned n, SIMD x)
{
    if (is_vex_form(i))
        ymm_set_low(v, n, x);
    else
        xmm_set(v, n, x);
}
/* The second source, 16 bytes, aligned in legacy forms. */
static inline SIMD vec_source(struct vcpu *v, const struct insn *i)
{
    if (i->flags & INSN_RM_REG)
        return xmm_get(v, i->rm);
    return is_vex_form(i) ? avx_load16(v, i) : sse_load16(v, i);
}

/* ---- parts of bind_sse(), one a file; NULL for what is not theirs ---- */
op_fn *bind_sse4(const struct insn *i);       /* legacy and VEX.128 */
op_fn *bind_sse4_float(const struct insn *i); /* ROUND, DP: legacy and VEX */
op_fn *bind_sse_string(const struct insn *i); /* legacy and VEX.128 */
op_fn *bind_sse_crypto(const struct insn *i); /* legacy and VEX.128 */

#endif
