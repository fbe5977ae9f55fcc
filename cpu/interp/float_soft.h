/*
 * Binary floating point in integers (IEEE 754 with x86's choices: SDM volume 1, 4.8 and 11.5), for what the host may
 * have no instruction for: fused multiply-add, half precision. Bit-exact with processors that have one, flags included.
 *
 * `csr` is MXCSR: rounding, DAZ, FTZ, and the masks of overflow and underflow, which decide about flags alone (volume
 * 1, 11.5.2): where they are clear a tiny result raises UE though it be exact, and beside OE or UE there is PE only if
 * the result would be inexact with an exponent without bounds. Flags are bits of MXCSR and are added to *flags.
 */
#ifndef CPU_INTERP_FLOAT_SOFT_H
#define CPU_INTERP_FLOAT_SOFT_H

#include "core/types.h"

struct float_format {
    unsigned mant; /* stored bits of the significand */
    unsigned exp;  /* bits of the exponent */
};
extern const struct float_format float_half, float_single, float_double;

/* x * y + z with one rounding. */
struct float_fma {
    uint64_t x, y, z;
    bool negate_product, negate_z;
};
uint64_t float_soft_fma(const struct float_format *f, const struct float_fma *op, uint32_t csr, uint32_t *flags);

/* VCVTPH2PS, one lane. */
uint32_t float_soft_from_half(uint16_t x, uint32_t *flags);
/* VCVTPS2PH, one lane. csr's FTZ does not count. */
uint16_t float_soft_to_half(uint32_t x, uint32_t csr, uint32_t *flags);

/* OE, UE and PE of one lane: x op y, or a double x narrowed to a single. */
enum float_operation { FLOAT_ADD, FLOAT_SUB, FLOAT_MUL, FLOAT_DIV, FLOAT_NARROW };
uint32_t float_soft_range(const struct float_format *f, enum float_operation op, uint64_t x, uint64_t y, uint32_t csr);

#endif
