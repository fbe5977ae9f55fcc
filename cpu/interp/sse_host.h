/*
 * SSE floating point on the host's own unit: the one place where host instructions compute guest values, so that
 * rounding, NaNs, denormals and flags are the hardware's. For x86-64 hosts; another host needs another file.
 *
 * Each function runs one instruction under a given MXCSR, all exceptions masked, and returns MXCSR after it. The flags
 * of the MXCSR that is given are those that the caller has set already and need not hear of again.
 *
 * Loading MXCSR costs as much as ten additions, so where the control bits are the emulator's own the instruction is run
 * first. If the host's MXCSR then has no flag but those which the caller has set, nothing happened that need be known,
 * whoever left them there. Else, and with other control bits, the instruction is run with the flags clear. MXCSR is
 * changed and restored within one asm statement, because compilers know nothing of it.
 */
#ifndef CPU_INTERP_SSE_HOST_H
#define CPU_INTERP_SSE_HOST_H

#include "cpu/interp/sse.h"

typedef float host_vec __attribute__((vector_size(16)));

#define HOST_MXCSR  0x1f80u /* what the emulator itself runs with */
#define MXCSR_FLAGS 0x003fu

static inline bool host_may_skip(uint32_t csr)
{
    return likely((csr & ~MXCSR_FLAGS) == HOST_MXCSR);
}
static inline bool host_says_nothing_new(uint32_t out, uint32_t csr)
{
    return likely(!(out & ~csr & MXCSR_FLAGS));
}

static inline host_vec host_vec_of(union simd16 x)
{
    host_vec y;
    memcpy(&y, &x, sizeof y);
    return y;
}

/* name(a, b, csr): `text` b, a; a is destination and first source. */
#define HOST_BINARY(name, text)                                                                                        \
    static inline uint32_t name(union simd16 *a, union simd16 b, uint32_t csr)                                         \
    {                                                                                                                  \
        const uint32_t host = HOST_MXCSR;                                                                              \
        uint32_t out;                                                                                                  \
        host_vec x = host_vec_of(*a), y = host_vec_of(b), first = x;                                                   \
        if (host_may_skip(csr)) {                                                                                      \
            __asm__ volatile(text " %2, %0\n\tstmxcsr %1" : "+x"(first), "=m"(out) : "x"(y));                          \
            if (host_says_nothing_new(out, csr)) {                                                                     \
                memcpy(a, &first, sizeof first);                                                                       \
                return csr;                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
        csr &= ~MXCSR_FLAGS;                                                                                           \
        __asm__ volatile("ldmxcsr %2\n\t" text " %3, %0\n\tstmxcsr %1\n\tldmxcsr %4"                                   \
                         : "+x"(x), "=m"(out)                                                                          \
                         : "m"(csr), "x"(y), "m"(host));                                                               \
        memcpy(a, &x, sizeof x);                                                                                       \
        return out;                                                                                                    \
    }

/* name(a, b, csr): two times 16 bytes. */
#define HOST_TWICE(name, text)                                                                                         \
    static inline uint32_t name(union simd16 *a, const union simd16 *b, uint32_t csr)                                  \
    {                                                                                                                  \
        const uint32_t host = HOST_MXCSR;                                                                              \
        uint32_t out;                                                                                                  \
        host_vec x0 = host_vec_of(a[0]), y0 = host_vec_of(b[0]), x1 = host_vec_of(a[1]), y1 = host_vec_of(b[1]);       \
        csr &= ~MXCSR_FLAGS;                                                                                           \
        __asm__ volatile("ldmxcsr %3\n\t" text " %4, %0\n\t" text " %5, %1\n\tstmxcsr %2\n\tldmxcsr %6"                \
                         : "+&x"(x0), "+&x"(x1), "=m"(out)                                                             \
                         : "m"(csr), "x"(y0), "x"(y1), "m"(host));                                                     \
        memcpy(&a[0], &x0, sizeof x0);                                                                                 \
        memcpy(&a[1], &x1, sizeof x1);                                                                                 \
        return out;                                                                                                    \
    }

/* name(a, n, csr): from an integer. */
#define HOST_FROM_INT(name, text, type)                                                                                \
    static inline uint32_t name(union simd16 *a, type n, uint32_t csr)                                                 \
    {                                                                                                                  \
        const uint32_t host = HOST_MXCSR;                                                                              \
        uint32_t out;                                                                                                  \
        host_vec x = host_vec_of(*a), first = x;                                                                       \
        if (host_may_skip(csr)) {                                                                                      \
            __asm__ volatile(text " %2, %0\n\tstmxcsr %1" : "+x"(first), "=m"(out) : "r"(n));                          \
            if (host_says_nothing_new(out, csr)) {                                                                     \
                memcpy(a, &first, sizeof first);                                                                       \
                return csr;                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
        csr &= ~MXCSR_FLAGS;                                                                                           \
        __asm__ volatile("ldmxcsr %2\n\t" text " %3, %0\n\tstmxcsr %1\n\tldmxcsr %4"                                   \
                         : "+x"(x), "=m"(out)                                                                          \
                         : "m"(csr), "r"(n), "m"(host));                                                               \
        memcpy(a, &x, sizeof x);                                                                                       \
        return out;                                                                                                    \
    }

/* name(n, b, csr): to an integer. */
#define HOST_TO_INT(name, text, type)                                                                                  \
    static inline uint32_t name(type *n, union simd16 b, uint32_t csr)                                                 \
    {                                                                                                                  \
        const uint32_t host = HOST_MXCSR;                                                                              \
        uint32_t out;                                                                                                  \
        type x;                                                                                                        \
        host_vec y = host_vec_of(b);                                                                                   \
        if (host_may_skip(csr)) {                                                                                      \
            __asm__ volatile(text " %2, %0\n\tstmxcsr %1" : "=&r"(x), "=m"(out) : "x"(y));                             \
            if (host_says_nothing_new(out, csr)) {                                                                     \
                *n = x;                                                                                                \
                return csr;                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
        csr &= ~MXCSR_FLAGS;                                                                                           \
        __asm__ volatile("ldmxcsr %2\n\t" text " %3, %0\n\tstmxcsr %1\n\tldmxcsr %4"                                   \
                         : "=&r"(x), "=m"(out)                                                                         \
                         : "m"(csr), "x"(y), "m"(host));                                                               \
        *n = x;                                                                                                        \
        return out;                                                                                                    \
    }

/* name(a, b, csr, flags): ZF, PF and CF of a comparison, as bits of RFLAGS. */
#define HOST_COMPARE(name, text)                                                                                       \
    static inline uint32_t name(union simd16 a, union simd16 b, uint32_t csr, uint64_t *flags)                         \
    {                                                                                                                  \
        const uint32_t host = HOST_MXCSR;                                                                              \
        uint32_t out;                                                                                                  \
        bool zf, pf, cf;                                                                                               \
        host_vec x = host_vec_of(a), y = host_vec_of(b);                                                               \
        if (host_may_skip(csr)) {                                                                                      \
            __asm__ volatile(text " %5, %4\n\tstmxcsr %3"                                                              \
                             : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf), "=m"(out)                                        \
                             : "x"(x), "x"(y));                                                                        \
            if (host_says_nothing_new(out, csr)) {                                                                     \
                *flags = (zf ? FLAG_ZF : 0) | (pf ? FLAG_PF : 0) | (cf ? FLAG_CF : 0);                                 \
                return csr;                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
        csr &= ~MXCSR_FLAGS;                                                                                           \
        __asm__ volatile("ldmxcsr %4\n\t" text " %6, %5\n\tstmxcsr %3\n\tldmxcsr %7"                                   \
                         : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf), "=m"(out)                                            \
                         : "m"(csr), "x"(x), "x"(y), "m"(host));                                                       \
        *flags = (zf ? FLAG_ZF : 0) | (pf ? FLAG_PF : 0) | (cf ? FLAG_CF : 0);                                         \
        return out;                                                                                                    \
    }

#endif
