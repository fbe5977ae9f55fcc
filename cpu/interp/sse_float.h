/*
 * MXCSR around an operation on the host (sse_host.h): what to run with, and what to make of the flags that come back.
 * SDM volume 1, 11.5: an unmasked exception sets its flags and raises #XM, and the destination does not change.
 */
#ifndef CPU_INTERP_SSE_FLOAT_H
#define CPU_INTERP_SSE_FLOAT_H

#include "cpu/interp/sse_host.h"
#include "cpu/interp/vec.h"

#define MXCSR_PRE   0x0007u /* IE, DE, ZE: detected before computing */
#define MXCSR_UE    0x0010u
#define MXCSR_MASKS 0x1f80u
#define MXCSR_UM    0x0800u
#define MXCSR_FTZ   0x8000u

/* Where results of the operation can be tiny: flushing and the underflow exception concern only these. */
enum float_tiny { TINY_NEVER, TINY_SS, TINY_SD, TINY_PS, TINY_PD };

/* Control bits to run with, flags clear. FTZ counts only while underflow is masked. */
static inline uint32_t float_csr_clean(const struct vcpu *v)
{
    uint32_t csr = (v->mxcsr | MXCSR_MASKS) & ~MXCSR_FLAGS;
    return unlikely(!(v->mxcsr & MXCSR_UM)) ? csr & ~MXCSR_FTZ : csr;
}

/* What sse_host.h's functions take: where all is as the emulator itself runs, also the flags that are set already. */
static inline uint32_t float_csr(const struct vcpu *v)
{
    return likely((v->mxcsr & ~MXCSR_FLAGS) == HOST_MXCSR) ? v->mxcsr : float_csr_clean(v);
}

/* The rare side of float_done() (sse_float.c). By reference: a result that went through two general registers could not
 * be loaded at once as the next instruction's operand. */
void float_done_unmasked(struct vcpu *v, const struct insn *i, uint32_t flags, const union simd16 *result,
                         enum float_tiny tiny) __attribute__((noinline));

/* The same for a result of one or two halves. */
void float_done_wide_unmasked(struct vcpu *v, const struct insn *i, uint32_t flags, const struct simd32 *result,
                              bool wide, enum float_tiny tiny) __attribute__((noinline));

static inline void float_done_wide(struct vcpu *v, const struct insn *i, uint32_t out, const struct simd32 *result,
                                   bool wide, enum float_tiny tiny)
{
    if (unlikely((v->mxcsr & MXCSR_MASKS) != MXCSR_MASKS))
        float_done_wide_unmasked(v, i, out & MXCSR_FLAGS, result, wide, tiny);
    else
        v->mxcsr |= out & MXCSR_FLAGS;
}

/* `out` is MXCSR after the operation; `result` may be NULL if it cannot be tiny. Returns if the result may be stored.
 */
static inline void float_done(struct vcpu *v, const struct insn *i, uint32_t out, const union simd16 *result,
                              enum float_tiny tiny)
{
    if (unlikely((v->mxcsr & MXCSR_MASKS) != MXCSR_MASKS))
        float_done_unmasked(v, i, out & MXCSR_FLAGS, result, tiny);
    else
        v->mxcsr |= out & MXCSR_FLAGS;
}

#endif
