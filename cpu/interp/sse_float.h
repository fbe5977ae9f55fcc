/*
 * MXCSR around an operation on the host (sse_host.h): what to run with, and what to make of the flags that come back.
 * SDM volume 1, 11.5: an unmasked exception sets its flags and raises #XM, and the destination does not change.
 */
#ifndef CPU_INTERP_SSE_FLOAT_H
#define CPU_INTERP_SSE_FLOAT_H

#include "cpu/interp/sse_host.h"
#include "cpu/interp/vec.h"

#define MXCSR_PRE   0x0007u /* IE, DE, ZE: detected before computing */
#define MXCSR_OE    0x0008u
#define MXCSR_UE    0x0010u
#define MXCSR_PE    0x0020u
#define MXCSR_MASKS 0x1f80u
#define MXCSR_OM    0x0400u
#define MXCSR_UM    0x0800u
#define MXCSR_FTZ   0x8000u

/*
 * What of an operation can be out of range: flushing, overflow and underflow concern only this. The lanes of the
 * result, and the operation, which is done again in software where the exceptions are unmasked.
 */
enum float_range {
    RANGE_NONE,
    RANGE_SS = 1,
    RANGE_SD,
    RANGE_PS,
    RANGE_PD,
    RANGE_LANES = 7,
    RANGE_ADD = 8,
    RANGE_SUB = 16,
    RANGE_MUL = 24,
    RANGE_DIV = 32,
    RANGE_NARROW = 40, /* of the second operand */
    RANGE_ADDSUB = 48,
    RANGE_HADD = 56,
    RANGE_HSUB = 64,
    RANGE_OP = 0x78
};

/* A result that may be out of range, and what it was made of: one half of 16 bytes, or two. */
struct float_result {
    enum float_range range;
    unsigned halves;
    const void *result, *a, *b;
};

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
 * be loaded at once as the next instruction's operand. r is NULL where nothing can be out of range. */
void float_done_unmasked(struct vcpu *v, const struct insn *i, uint32_t flags, const struct float_result *r)
    __attribute__((noinline));

/* `out` is MXCSR after the operation that made `result` of a and b, which may be registers: nothing is stored yet.
 * Returns if the result may be. */
static inline void float_done_range(struct vcpu *v, const struct insn *i, uint32_t out, enum float_range range,
                                    unsigned halves, const void *result, const void *a, const void *b)
{
    if (unlikely((v->mxcsr & MXCSR_MASKS) != MXCSR_MASKS))
        float_done_unmasked(v, i, out & MXCSR_FLAGS, &(struct float_result){range, halves, result, a, b});
    else
        v->mxcsr |= out & MXCSR_FLAGS;
}

/* The same where no result is out of range, or where the flags are exact as they are. */
static inline void float_done(struct vcpu *v, const struct insn *i, uint32_t out)
{
    if (unlikely((v->mxcsr & MXCSR_MASKS) != MXCSR_MASKS))
        float_done_unmasked(v, i, out & MXCSR_FLAGS, NULL);
    else
        v->mxcsr |= out & MXCSR_FLAGS;
}

#endif
