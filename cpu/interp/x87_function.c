/*
 * x87 functions of ST(0), and of ST(0) and ST(1): sign, root, rounding, scaling, remainders, transcendentals (SDM
 * volume 1, sections 8.3.4 to 8.3.11).
 */
#include "cpu/interp/x87_host.h"

/* ---- sign ---- */

static inline void change_sign(struct vcpu *v, const struct insn *i, uint16_t and, uint16_t xor)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    if (!x87_is_empty(f, 0)) {
        struct f80 x = x87_get(f, 0);
        x.exp = (x.exp & and) ^ xor;
        x87_set(f, 0, x);
        x87_set_cc(f, FSW_C1, 0);
    } else if (!x87_underflow(f)) {
        x87_set(f, 0, F80_INDEFINITE);
    }
}

static void fchs(struct vcpu *v, const struct insn *i)
{
    change_sign(v, i, 0xffff, 0x8000);
    NEXT(v, i);
}
static void fabs_(struct vcpu *v, const struct insn *i)
{
    change_sign(v, i, 0x7fff, 0);
    NEXT(v, i);
}

/*
 * Condition codes of an instruction that defines `codes`. C2, which tells of a reduction that is not complete or an
 * argument out of range, was cleared at the beginning; where the result r is a NaN it stays clear and C0 and C3 stay as
 * they were. Codes of the host count only where the instruction sets them: the others are left over from before.
 */
static void take_codes(struct x87 *f, unsigned codes, uint16_t sw, struct f80 r)
{
    bool is_nan = (r.exp & 0x7fff) == 0x7fff && r.mant << 1;
    if (is_nan || sw & FSW_IE)
        codes &= FSW_C1;
    else if (sw & codes & FSW_C2)
        sw &= (uint16_t) ~(FSW_C0 | FSW_C1 | FSW_C3);
    x87_set_cc(f, codes, sw);
}

/* ---- one operand, one result ---- */

/* `codes`: condition codes that the instruction defines. An argument out of range (C2) leaves ST(0) as it is. */
#define UNARY(F)                                                                                                       \
    F(FSQRT, "fsqrt", FSW_C1)                                                                                          \
    F(FRNDINT, "frndint", FSW_C1)                                                                                      \
    F(F2XM1, "f2xm1", FSW_C1) F(FSIN, "fsin", FSW_C1 | FSW_C2) F(FCOS, "fcos", FSW_C1 | FSW_C2)
#define UNARY_HANDLER(name, text, codes)                                                                               \
    HOST_X87_UNARY(host_##name, text)                                                                                  \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct x87 *f = &v->fpu;                                                                                       \
        struct f80 r = F80_INDEFINITE;                                                                                 \
        x87_wait(v, i);                                                                                                \
        x87_note(v, i);                                                                                                \
        x87_set_cc(f, (codes)&FSW_C2, 0);                                                                              \
        if (x87_is_empty(f, 0)) {                                                                                      \
            if (!x87_underflow(f))                                                                                     \
                x87_set(f, 0, r);                                                                                      \
        } else {                                                                                                       \
            uint16_t sw = host_##name(&r, x87_get(f, 0), f->fcw);                                                      \
            if (!x87_report(f, sw & FSW_EXC)) {                                                                        \
                take_codes(f, codes, sw, r);                                                                           \
                x87_set(f, 0, r);                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        NEXT(v, i);                                                                                                    \
    }
UNARY(UNARY_HANDLER)

/* ---- two operands, one result ---- */

#define BINARY(F)                                                                                                      \
    F(FSCALE, "fscale", FSW_C1, HOST_X87_BINARY, false)                                                                \
    F(FPREM, "fprem", FSW_CC, HOST_X87_BINARY, false)                                                                  \
    F(FPREM1, "fprem1", FSW_CC, HOST_X87_BINARY, false)                                                                \
    F(FYL2X, "fyl2x", FSW_C1, HOST_X87_BINARY_POP, true)                                                               \
    F(FYL2XP1, "fyl2xp1", FSW_C1, HOST_X87_BINARY_POP, true) F(FPATAN, "fpatan", FSW_C1, HOST_X87_BINARY_POP, true)
#define BINARY_HANDLER(name, text, codes, HOST, pop)                                                                   \
    HOST(host_##name, text)                                                                                            \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct x87 *f = &v->fpu;                                                                                       \
        struct f80 r = F80_INDEFINITE;                                                                                 \
        x87_wait(v, i);                                                                                                \
        x87_note(v, i);                                                                                                \
        x87_set_cc(f, (codes)&FSW_C2, 0);                                                                              \
        if (x87_is_empty(f, 0) || x87_is_empty(f, 1)) {                                                                \
            if (!x87_underflow(f))                                                                                     \
                take_binary(f, r, pop);                                                                                \
        } else {                                                                                                       \
            uint16_t sw = host_##name(&r, x87_get(f, 0), x87_get(f, 1), f->fcw);                                       \
            if (!x87_report(f, sw & FSW_EXC)) {                                                                        \
                take_codes(f, codes, sw, r);                                                                           \
                take_binary(f, r, pop);                                                                                \
            }                                                                                                          \
        }                                                                                                              \
        NEXT(v, i);                                                                                                    \
    }

static void take_binary(struct x87 *f, struct f80 r, bool pop)
{
    if (pop)
        x87_pop(f);
    x87_set(f, 0, r);
}
BINARY(BINARY_HANDLER)

/* ---- one operand, two results: ST(0) becomes the one, the other is pushed ---- */

#define SPLIT(F) F(FXTRACT, "fxtract", FSW_C1) F(FSINCOS, "fsincos", FSW_C1 | FSW_C2) F(FPTAN, "fptan", FSW_C1 | FSW_C2)
#define SPLIT_HANDLER(name, text, codes)                                                                               \
    HOST_X87_SPLIT(host_##name, text)                                                                                  \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct x87 *f = &v->fpu;                                                                                       \
        struct f80 top, below;                                                                                         \
        x87_wait(v, i);                                                                                                \
        x87_note(v, i);                                                                                                \
        x87_set_cc(f, (codes)&FSW_C2, 0);                                                                              \
        if (x87_is_empty(f, 0) || !x87_is_empty(f, 7)) {                                                               \
            if (!(x87_is_empty(f, 0) ? x87_underflow(f) : x87_overflow(f)))                                            \
                take_split(f, F80_INDEFINITE, F80_INDEFINITE);                                                         \
        } else {                                                                                                       \
            uint16_t sw = host_##name(&top, &below, x87_get(f, 0), f->fcw);                                            \
            if (!x87_report(f, sw & FSW_EXC)) {                                                                        \
                take_codes(f, codes, sw, top);                                                                         \
                if (!(f->fsw & (codes)&FSW_C2))                                                                        \
                    take_split(f, top, below);                                                                         \
            }                                                                                                          \
        }                                                                                                              \
        NEXT(v, i);                                                                                                    \
    }

static void take_split(struct x87 *f, struct f80 top, struct f80 below)
{
    x87_set(f, 0, below);
    x87_push(f, top);
}
SPLIT(SPLIT_HANDLER)

op_fn *bind_x87_function(const struct insn *i)
{
    switch (i->op) {
#define CASE3(name, text, codes)                                                                                       \
    case OP_##name:                                                                                                    \
        return name;
#define CASE5(name, text, codes, HOST, pop) CASE3(name, text, codes)
        UNARY(CASE3)
        BINARY(CASE5)
        SPLIT(CASE3)
    case OP_FCHS:
        return fchs;
    case OP_FABS:
        return fabs_;
    default:
        return NULL;
    }
}
