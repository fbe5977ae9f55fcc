/*
 * Floating-point operations that SSE and AVX share: F(mnemonic, host instruction, bytes of the source in memory, what
 * can be out of range).
 *
 *   FLOAT_PACKED   lanes of one size; a YMM register does the same in each half
 *   FLOAT_RESIZE   conversions between lanes of 32 and of 64 bits
 *   FLOAT_SCALAR   the lowest lane; the others are those of the first source
 *
 * RCP and RSQRT are approximations, exact to 12 bits in a way of the host's own; they raise nothing and look at
 * nothing.
 */
#ifndef CPU_INTERP_SSE_FLOAT_OPS_H
#define CPU_INTERP_SSE_FLOAT_OPS_H

#include "cpu/interp/sse_float.h"

#define FLOAT_PACKED(F)                                                                                                \
    F(ADDPS, "addps", 16, RANGE_PS | RANGE_ADD)                                                                        \
    F(ADDPD, "addpd", 16, RANGE_PD | RANGE_ADD)                                                                        \
    F(SUBPS, "subps", 16, RANGE_PS | RANGE_SUB)                                                                        \
    F(SUBPD, "subpd", 16, RANGE_PD | RANGE_SUB)                                                                        \
    F(MULPS, "mulps", 16, RANGE_PS | RANGE_MUL)                                                                        \
    F(MULPD, "mulpd", 16, RANGE_PD | RANGE_MUL)                                                                        \
    F(DIVPS, "divps", 16, RANGE_PS | RANGE_DIV)                                                                        \
    F(DIVPD, "divpd", 16, RANGE_PD | RANGE_DIV)                                                                        \
    F(SQRTPS, "sqrtps", 16, RANGE_NONE)                                                                                \
    F(SQRTPD, "sqrtpd", 16, RANGE_NONE)                                                                                \
    F(MINPS, "minps", 16, RANGE_NONE)                                                                                  \
    F(MINPD, "minpd", 16, RANGE_NONE)                                                                                  \
    F(MAXPS, "maxps", 16, RANGE_NONE)                                                                                  \
    F(MAXPD, "maxpd", 16, RANGE_NONE)                                                                                  \
    F(HADDPS, "haddps", 16, RANGE_PS | RANGE_HADD)                                                                     \
    F(HADDPD, "haddpd", 16, RANGE_PD | RANGE_HADD)                                                                     \
    F(HSUBPS, "hsubps", 16, RANGE_PS | RANGE_HSUB)                                                                     \
    F(HSUBPD, "hsubpd", 16, RANGE_PD | RANGE_HSUB)                                                                     \
    F(ADDSUBPS, "addsubps", 16, RANGE_PS | RANGE_ADDSUB)                                                               \
    F(ADDSUBPD, "addsubpd", 16, RANGE_PD | RANGE_ADDSUB)                                                               \
    F(CVTDQ2PS, "cvtdq2ps", 16, RANGE_NONE)                                                                            \
    F(CVTPS2DQ, "cvtps2dq", 16, RANGE_NONE)                                                                            \
    F(CVTTPS2DQ, "cvttps2dq", 16, RANGE_NONE)                                                                          \
    F(RCPPS, "rcpps", 16, RANGE_NONE)                                                                                  \
    F(RSQRTPS, "rsqrtps", 16, RANGE_NONE)
#define FLOAT_RESIZE(F)                                                                                                \
    F(CVTPS2PD, "cvtps2pd", 8, RANGE_NONE)                                                                             \
    F(CVTDQ2PD, "cvtdq2pd", 8, RANGE_NONE)                                                                             \
    F(CVTPD2PS, "cvtpd2ps", 16, RANGE_PS | RANGE_NARROW)                                                               \
    F(CVTPD2DQ, "cvtpd2dq", 16, RANGE_NONE)                                                                            \
    F(CVTTPD2DQ, "cvttpd2dq", 16, RANGE_NONE)
#define FLOAT_SCALAR(F)                                                                                                \
    F(ADDSS, "addss", 4, RANGE_SS | RANGE_ADD)                                                                         \
    F(ADDSD, "addsd", 8, RANGE_SD | RANGE_ADD)                                                                         \
    F(SUBSS, "subss", 4, RANGE_SS | RANGE_SUB)                                                                         \
    F(SUBSD, "subsd", 8, RANGE_SD | RANGE_SUB)                                                                         \
    F(MULSS, "mulss", 4, RANGE_SS | RANGE_MUL)                                                                         \
    F(MULSD, "mulsd", 8, RANGE_SD | RANGE_MUL)                                                                         \
    F(DIVSS, "divss", 4, RANGE_SS | RANGE_DIV)                                                                         \
    F(DIVSD, "divsd", 8, RANGE_SD | RANGE_DIV)                                                                         \
    F(SQRTSS, "sqrtss", 4, RANGE_NONE)                                                                                 \
    F(SQRTSD, "sqrtsd", 8, RANGE_NONE)                                                                                 \
    F(MINSS, "minss", 4, RANGE_NONE)                                                                                   \
    F(MINSD, "minsd", 8, RANGE_NONE)                                                                                   \
    F(MAXSS, "maxss", 4, RANGE_NONE)                                                                                   \
    F(MAXSD, "maxsd", 8, RANGE_NONE)                                                                                   \
    F(CVTSS2SD, "cvtss2sd", 4, RANGE_NONE)                                                                             \
    F(CVTSD2SS, "cvtsd2ss", 8, RANGE_SS | RANGE_NARROW)                                                                \
    F(RCPSS, "rcpss", 4, RANGE_NONE)                                                                                   \
    F(RSQRTSS, "rsqrtss", 4, RANGE_NONE)

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
    CMP_ONE(name, text, 7)                                                                                             \
    static inline uint32_t host_##name(union simd16 *a, union simd16 b, unsigned n, uint32_t csr)                      \
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
