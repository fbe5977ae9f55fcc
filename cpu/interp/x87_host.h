/*
 * x87 arithmetic on the host's own unit: the one place where host x87 instructions compute guest values, so that
 * precision control, rounding, NaNs and flags are the hardware's. For x86-64 hosts; another host needs another file.
 *
 * Every function runs one instruction with the guest's control word, on an otherwise empty host stack, and returns the
 * status word after it (exceptions, condition codes). Exceptions that are found before computing are masked all the
 * same, so that there always is a result to discard; overflow, underflow and precision are as the guest has them, since
 * unmasked they give other results. No host exception is ever delivered: the flags are cleared (FNCLEX) before the
 * next waiting instruction. Where an instruction pushes less than expected, storing the missing result gives an
 * indefinite, harmlessly.
 */
#ifndef CPU_INTERP_X87_HOST_H
#define CPU_INTERP_X87_HOST_H

#include "cpu/interp/x87.h"

#define HOST_FCW 0x037fu /* what the emulator itself runs with */

static inline uint16_t host_x87_control(uint16_t fcw)
{
    return (uint16_t)((fcw & 0x0f38) | 0x0047);
}

/*
 * outs and ins are further operands in parentheses-free lists that begin with a comma, or are empty. A guest that runs
 * with the emulator's own control word, as most do, is spared the changes of it: loading one costs more than an
 * addition. All exceptions are masked then, so that flags which stay behind deliver nothing.
 */
#define HOST_X87(sw, fcw, before, op, after, outs, ...)                                                                \
    do {                                                                                                               \
        const uint16_t guest_ = host_x87_control(fcw), host_ = HOST_FCW;                                               \
        if (likely(guest_ == host_))                                                                                   \
            __asm__ volatile("fnclex\n\t" before "\n\t" op "\n\tfnstsw %[status]\n\t" after                            \
                             : [status] "=&a"(sw)outs                                                                  \
                             : "m"(host_)__VA_ARGS__                                                                   \
                             : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");                   \
        else                                                                                                           \
            __asm__ volatile("fnclex\n\tfldcw %[guest]\n\t" before "\n\t" op                                           \
                             "\n\tfnstsw %[status]\n\tfnclex\n\t" after "\n\tfldcw %[host]"                            \
                             : [status] "=&a"(sw)outs                                                                  \
                             : [guest] "m"(guest_), [host] "m"(host_)__VA_ARGS__                                       \
                             : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");                   \
    } while (0)
#define HOST_OUT(name)          , [name] "=m"(*name)
#define HOST_INOUT(name)        , [name] "+m"(*name)
#define HOST_OUT2(name1, name2) , [name1] "=m"(*name1), [name2] "=m"(*name2)

/* name(r, fcw): a constant. */
#define HOST_X87_CONST(name, op)                                                                                       \
    static inline uint16_t name(struct f80 *r, uint16_t fcw)                                                           \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "", op, "fstpt %[r]", HOST_OUT(r));                                                          \
        return sw;                                                                                                     \
    }

/* name(r, b, fcw): conversion from memory. */
#define HOST_X87_LOAD(name, op, type)                                                                                  \
    static inline uint16_t name(struct f80 *r, type b, uint16_t fcw)                                                   \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "", op " %[b]", "fstpt %[r]", HOST_OUT(r), , [b] "m"(b));                                    \
        return sw;                                                                                                     \
    }

/* name(r, a, fcw): conversion to memory; `drop` discards a if op does not pop. *r keeps its value where nothing is
 * stored. */
#define HOST_X87_STORE(name, op, type, drop)                                                                           \
    static inline uint16_t name(type *r, struct f80 a, uint16_t fcw)                                                   \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[a]", op " %[r]", drop, HOST_INOUT(r), , [a] "m"(a));                                 \
        return sw;                                                                                                     \
    }

/* name(r, a, fcw) */
#define HOST_X87_UNARY(name, op)                                                                                       \
    static inline uint16_t name(struct f80 *r, struct f80 a, uint16_t fcw)                                             \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[a]", op, "fstpt %[r]", HOST_OUT(r), , [a] "m"(a));                                   \
        return sw;                                                                                                     \
    }

/* name(r, a, b, fcw): r = a op b, a being ST(0) and b ST(1), which stays. */
#define HOST_X87_BINARY(name, op)                                                                                      \
    static inline uint16_t name(struct f80 *r, struct f80 a, struct f80 b, uint16_t fcw)                               \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[b]\n\tfldt %[a]", op, "fstpt %[r]\n\tfstp %%st(0)", HOST_OUT(r),                     \
                 , [a] "m"(a), [b] "m"(b));                                                                            \
        return sw;                                                                                                     \
    }
/* The same for an instruction that pops ST(0) and leaves its result in what was ST(1). */
#define HOST_X87_BINARY_POP(name, op)                                                                                  \
    static inline uint16_t name(struct f80 *r, struct f80 a, struct f80 b, uint16_t fcw)                               \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[b]\n\tfldt %[a]", op, "fstpt %[r]", HOST_OUT(r), , [a] "m"(a), [b] "m"(b));          \
        return sw;                                                                                                     \
    }
/* name(r, a, b, fcw): with an operand in memory. */
#define HOST_X87_BINARY_MEM(name, op, type)                                                                            \
    static inline uint16_t name(struct f80 *r, struct f80 a, type b, uint16_t fcw)                                     \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[a]", op " %[b]", "fstpt %[r]", HOST_OUT(r), , [a] "m"(a), [b] "m"(b));               \
        return sw;                                                                                                     \
    }

/* name(top, below, a, fcw): one operand, two results. */
#define HOST_X87_SPLIT(name, op)                                                                                       \
    static inline uint16_t name(struct f80 *top, struct f80 *below, struct f80 a, uint16_t fcw)                        \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[a]", op, "fstpt %[top]\n\tfstpt %[below]", HOST_OUT2(top, below), , [a] "m"(a));     \
        return sw;                                                                                                     \
    }

/* name(a, b, fcw): comparisons into the condition codes. */
#define HOST_X87_COMPARE(name, op)                                                                                     \
    static inline uint16_t name(struct f80 a, struct f80 b, uint16_t fcw)                                              \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[b]\n\tfldt %[a]", op, "fstp %%st(0)\n\tfstp %%st(0)", , , [a] "m"(a), [b] "m"(b));   \
        return sw;                                                                                                     \
    }
#define HOST_X87_COMPARE_MEM(name, op, type)                                                                           \
    static inline uint16_t name(struct f80 a, type b, uint16_t fcw)                                                    \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[a]", op " %[b]", "fstp %%st(0)", , , [a] "m"(a), [b] "m"(b));                        \
        return sw;                                                                                                     \
    }
#define HOST_X87_TEST(name, op)                                                                                        \
    static inline uint16_t name(struct f80 a, uint16_t fcw)                                                            \
    {                                                                                                                  \
        uint16_t sw;                                                                                                   \
        HOST_X87(sw, fcw, "fldt %[a]", op, "fstp %%st(0)", , , [a] "m"(a));                                            \
        return sw;                                                                                                     \
    }

#endif
