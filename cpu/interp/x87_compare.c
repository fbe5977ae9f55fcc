/*
 * x87 comparisons: into the condition codes (FCOM, FUCOM, FICOM, FTST, FXAM) and into RFLAGS (FCOMI, FUCOMI).
 */
#include "cpu/interp/x87_host.h"

#define UNORDERED (FSW_C0 | FSW_C2 | FSW_C3)

typedef uint16_t host_compare(struct f80 a, struct f80 b, uint16_t fcw);

HOST_X87_COMPARE(host_fcom, "fcom %%st(1)")
HOST_X87_COMPARE(host_fucom, "fucom %%st(1)")
HOST_X87_COMPARE_MEM(host_fcom_m32, "fcoms", uint32_t)
HOST_X87_COMPARE_MEM(host_fcom_m64, "fcoml", uint64_t)
HOST_X87_COMPARE_MEM(host_ficom_i16, "ficoms", uint16_t)
HOST_X87_COMPARE_MEM(host_ficom_i32, "ficoml", uint32_t)
HOST_X87_TEST(host_ftst, "ftst")

static void pop_times(struct x87 *f, unsigned pops)
{
    while (pops--)
        x87_pop(f);
}

/* The codes are set even if an unmasked exception keeps the operands where they are. */
static void take_codes(struct x87 *f, uint16_t sw, unsigned pops)
{
    bool stop = x87_report(f, sw & FSW_EXC);
    x87_set_cc(f, FSW_CC, sw & UNORDERED);
    if (!stop)
        pop_times(f, pops);
}

static void take_underflow(struct x87 *f, unsigned pops)
{
    bool stop = x87_underflow(f);
    x87_set_cc(f, FSW_CC, UNORDERED);
    if (!stop)
        pop_times(f, pops);
}

static inline void compare_regs(struct vcpu *v, const struct insn *i, host_compare *op, unsigned n, unsigned pops)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    if (x87_is_empty(f, 0) || x87_is_empty(f, n))
        take_underflow(f, pops);
    else
        take_codes(f, op(x87_get(f, 0), x87_get(f, n), f->fcw), pops);
}

#define COMPARE_REG(name, host, n, pops)                                                                               \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        compare_regs(v, i, host, n, pops);                                                                             \
        NEXT(v, i);                                                                                                    \
    }
COMPARE_REG(fcom, host_fcom, i->rm, 0)
COMPARE_REG(fcomp, host_fcom, i->rm, 1)
COMPARE_REG(fcompp, host_fcom, 1, 2)
COMPARE_REG(fucom, host_fucom, i->rm, 0)
COMPARE_REG(fucomp, host_fucom, i->rm, 1)
COMPARE_REG(fucompp, host_fucom, 1, 2)

#define COMPARE_MEM(name, host, bits, pops)                                                                            \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct x87 *f = &v->fpu;                                                                                       \
        x87_wait(v, i);                                                                                                \
        uint##bits##_t b = lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0));                                     \
        x87_note(v, i);                                                                                                \
        if (x87_is_empty(f, 0))                                                                                        \
            take_underflow(f, pops);                                                                                   \
        else                                                                                                           \
            take_codes(f, host(x87_get(f, 0), b, f->fcw), pops);                                                       \
        NEXT_MEM(v, i);                                                                                                \
    }
COMPARE_MEM(fcom_m32, host_fcom_m32, 32, 0)
COMPARE_MEM(fcom_m64, host_fcom_m64, 64, 0)
COMPARE_MEM(fcomp_m32, host_fcom_m32, 32, 1)
COMPARE_MEM(fcomp_m64, host_fcom_m64, 64, 1)
COMPARE_MEM(ficom_i16, host_ficom_i16, 16, 0)
COMPARE_MEM(ficom_i32, host_ficom_i32, 32, 0)
COMPARE_MEM(ficomp_i16, host_ficom_i16, 16, 1)
COMPARE_MEM(ficomp_i32, host_ficom_i32, 32, 1)

static void ftst(struct vcpu *v, const struct insn *i)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    if (x87_is_empty(f, 0))
        take_underflow(f, 0);
    else
        take_codes(f, host_ftst(x87_get(f, 0), f->fcw), 0);
    NEXT(v, i);
}

/* ---- FXAM: the class of ST(0), whether empty or not ---- */

static unsigned class_of(struct f80 x)
{
    unsigned exp = x.exp & 0x7fff;
    if (exp == 0)
        return x.mant ? FSW_C3 | FSW_C2 : FSW_C3;
    if (!(x.mant >> 63))
        return 0; /* unsupported */
    if (exp == 0x7fff)
        return x.mant << 1 ? FSW_C0 : FSW_C2 | FSW_C0;
    return FSW_C2;
}

static void fxam(struct vcpu *v, const struct insn *i)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    struct f80 x = x87_get(f, 0);
    unsigned codes = x87_is_empty(f, 0) ? FSW_C3 | FSW_C0 : class_of(x);
    x87_set_cc(f, FSW_CC, codes | (x.exp >> 15 ? FSW_C1 : 0));
    NEXT(v, i);
}

/* ---- FCOMI, FUCOMI: C0, C2, C3 go to CF, PF, ZF; the other flags are cleared ---- */

static void set_rflags(struct vcpu *v, unsigned sw)
{
    flags_set_image(v, (sw & FSW_C0 ? FLAG_CF : 0) | (sw & FSW_C2 ? FLAG_PF : 0) | (sw & FSW_C3 ? FLAG_ZF : 0));
}

static inline void compare_flags(struct vcpu *v, const struct insn *i, host_compare *op, unsigned pops)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    bool empty = x87_is_empty(f, 0) || x87_is_empty(f, i->rm);
    uint16_t sw = empty ? UNORDERED : op(x87_get(f, 0), x87_get(f, i->rm), f->fcw);
    bool stop = empty ? x87_underflow(f) : x87_report(f, sw & FSW_EXC);
    set_rflags(v, sw);
    if (!stop)
        pop_times(f, pops);
}

#define COMPARE_FLAGS(name, host, pops)                                                                                \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        compare_flags(v, i, host, pops);                                                                               \
        NEXT(v, i);                                                                                                    \
    }
COMPARE_FLAGS(fcomi, host_fcom, 0)
COMPARE_FLAGS(fcomip, host_fcom, 1)
COMPARE_FLAGS(fucomi, host_fucom, 0)
COMPARE_FLAGS(fucomip, host_fucom, 1)

op_fn *bind_x87_compare(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG, small = i->opsize == 4;
    switch (i->op) {
    case OP_FCOM:
        return reg ? fcom : small ? fcom_m32 : fcom_m64;
    case OP_FCOMP:
        return reg ? fcomp : small ? fcomp_m32 : fcomp_m64;
    case OP_FCOMPP:
        return fcompp;
    case OP_FUCOM:
        return fucom;
    case OP_FUCOMP:
        return fucomp;
    case OP_FUCOMPP:
        return fucompp;
    case OP_FICOM:
        return small ? ficom_i32 : ficom_i16;
    case OP_FICOMP:
        return small ? ficomp_i32 : ficomp_i16;
    case OP_FTST:
        return ftst;
    case OP_FXAM:
        return fxam;
    case OP_FCOMI:
        return fcomi;
    case OP_FCOMIP:
        return fcomip;
    case OP_FUCOMI:
        return fucomi;
    case OP_FUCOMIP:
        return fucomip;
    default:
        return NULL;
    }
}
