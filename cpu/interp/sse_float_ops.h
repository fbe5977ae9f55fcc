/*
 * Floating-point operations that SSE and AVX share: F(mnemonic, host instruction, bytes of the source in memory, where
 * tiny results come up).
 *   FLOAT_PACKED   lanes of one size; a YMM register does the same in each half
 *   FLOAT_RESIZE   conversions between lanes of 32 and of 64 bits
 *   FLOAT_SCALAR   the lowest lane; the others are those of the first source
 * RCP and RSQRT are approximations, exact to 12 bits in a way of the host's own; they raise nothing and look at
 * nothing.
 */
#ifndef CPU_INTERP_SSE_FLOAT_OPS_H
#define CPU_INTERP_SSE_FLOAT_OPS_H

#include "cpu/interp/sse_float.h"

#define FLOAT_PACKED(F)                                                                                                \
    F(ADDPS, "addps", 16, TINY_PS)                                                                                     \
    F(ADDPD, "addpd", 16, TINY_PD)                                                                                     \
    F(SUBPS, "subps", 16, TINY_PS)                                                                                     \
    F(SUBPD, "subpd", 16, TINY_PD)                                                                                     \
    F(MULPS, "mulps", 16, TINY_PS)                                                                                     \
    F(MULPD, "mulpd", 16, TINY_PD)                                                                                     \
    F(DIVPS, "divps", 16, TINY_PS)                                                                                     \
    F(DIVPD, "divpd", 16, TINY_PD)                                                                                     \
    F(SQRTPS, "sqrtps", 16, TINY_NEVER)                                                                                \
    F(SQRTPD, "sqrtpd", 16, TINY_NEVER)                                                                                \
    F(MINPS, "minps", 16, TINY_NEVER)                                                                                  \
    F(MINPD, "minpd", 16, TINY_NEVER)                                                                                  \
    F(MAXPS, "maxps", 16, TINY_NEVER)                                                                                  \
    F(MAXPD, "maxpd", 16, TINY_NEVER)                                                                                  \
    F(HADDPS, "haddps", 16, TINY_PS)                                                                                   \
    F(HADDPD, "haddpd", 16, TINY_PD)                                                                                   \
    F(HSUBPS, "hsubps", 16, TINY_PS)                                                                                   \
    F(HSUBPD, "hsubpd", 16, TINY_PD)                                                                                   \
    F(ADDSUBPS, "addsubps", 16, TINY_PS)                                                                               \
    F(ADDSUBPD, "addsubpd", 16, TINY_PD)                                                                               \
    F(CVTDQ2PS, "cvtdq2ps", 16, TINY_NEVER)                                                                            \
    F(CVTPS2DQ, "cvtps2dq", 16, TINY_NEVER)                                                                            \
    F(CVTTPS2DQ, "cvttps2dq", 16, TINY_NEVER)                                                                          \
    F(RCPPS, "rcpps", 16, TINY_NEVER)                                                                                  \
    F(RSQRTPS, "rsqrtps", 16, TINY_NEVER)
#define FLOAT_RESIZE(F)                                                                                                \
    F(CVTPS2PD, "cvtps2pd", 8, TINY_NEVER)                                                                             \
    F(CVTDQ2PD, "cvtdq2pd", 8, TINY_NEVER)                                                                             \
    F(CVTPD2PS, "cvtpd2ps", 16, TINY_PS)                                                                               \
    F(CVTPD2DQ, "cvtpd2dq", 16, TINY_NEVER)                                                                            \
    F(CVTTPD2DQ, "cvttpd2dq", 16, TINY_NEVER)
#define FLOAT_SCALAR(F)                                                                                                \
    F(ADDSS, "addss", 4, TINY_SS)                                                                                      \
    F(ADDSD, "addsd", 8, TINY_SD)                                                                                      \
    F(SUBSS, "subss", 4, TINY_SS)                                                                                      \
    F(SUBSD, "subsd", 8, TINY_SD)                                                                                      \
    F(MULSS, "mulss", 4, TINY_SS)                                                                                      \
    F(MULSD, "mulsd", 8, TINY_SD)                                                                                      \
    F(DIVSS, "divss", 4, TINY_SS)                                                                                      \
    F(DIVSD, "divsd", 8, TINY_SD)                                                                                      \
    F(SQRTSS, "sqrtss", 4, TINY_NEVER)                                                                                 \
    F(SQRTSD, "sqrtsd", 8, TINY_NEVER)                                                                                 \
    F(MINSS, "minss", 4, TINY_NEVER)                                                                                   \
    F(MINSD, "minsd", 8, TINY_NEVER)                                                                                   \
    F(MAXSS, "maxss", 4, TINY_NEVER)                                                                                   \
    F(MAXSD, "maxsd", 8, TINY_NEVER)                                                                                   \
    F(CVTSS2SD, "cvtss2sd", 4, TINY_NEVER)                                                                             \
    F(CVTSD2SS, "cvtsd2ss", 8, TINY_SS)                                                                                \
    F(RCPSS, "rcpss", 4, TINY_NEVER)                                                                                   \
    F(RSQRTSS, "rsqrtss", 4, TINY_NEVER)

/* ---- comparisons by one of eight predicates: host_CMPPS(a, b, n, csr) and so on ---- */

#define CMP_ONE(name, text, n) HOST_BINARY(host_##name##_##n, text " $" #n ",")
#define CMP_CASE(name, n)                                                                                              \
    case n:                                                                                                            \
        return host_##name##_##n(a, b, csr);
#define PREDICATES(name, text)                                                                                         \
    CMP_ONE(name, text, 0)                                                                                             \
    CMP_ONE(name, text, 1)                                                                                             \
    CMP_ONE(name, text, 2)                                                                                             \
    CMP_ONE(name, text, 3)                                                                                             \
    CMP_ONE(name, text, 4)                                                                                             \
    CMP_ONE(name, text, 5)                                                                                             \
    CMP_ONE(name, text, 6)                                                                                             \
    CMP_ONE(name, text, 7) static inline uint32_t host_##name(union simd16 *a, union simd16 b, unsigned n,             \
                                                              uint32_t csr)                                            \
    {                                                                                                                  \
        switch (n & 7) {                                                                                               \
            CMP_CASE(name, 0)                                                                                          \
            CMP_CASE(name, 1)                                                                                          \
            CMP_CASE(name, 2)                                                                                          \
            CMP_CASE(name, 3)                                                                                          \
            CMP_CASE(name, 4) CMP_CASE(name, 5) CMP_CASE(name, 6) default : return host_##name##_7(a, b, csr);         \
        }                                                                                                              \
    }

PREDICATES(CMPPS, "cmpps")
PREDICATES(CMPPD, "cmppd")
PREDICATES(CMPSS, "cmpss")
PREDICATES(CMPSD, "cmpsd")

#undef CMP_ONE
#undef CMP_CASE
#undef PREDICATES

#endif
