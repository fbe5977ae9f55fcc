/*
 * x87 arithmetic: FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR in all their forms (SDM volume 2, volume 1 section 8.3).
 */
#include "cpu/interp/x87_host.h"

/* F(mnemonic, instruction) */
#define OPERATIONS(F) F(ADD, "add") F(MUL, "mul") F(SUB, "sub") F(SUBR, "subr") F(DIV, "div") F(DIVR, "divr")

typedef uint16_t host_binary(struct f80 *r, struct f80 a, struct f80 b, uint16_t fcw);

/* Status of an operation that delivered r for ST(n). */
static void take_result(struct x87 *f, unsigned n, struct f80 r, uint16_t sw, bool pop)
{
    if (x87_report(f, sw & FSW_EXC))
        return;
    x87_set_cc(f, FSW_C1, sw);
    x87_set(f, n, r);
    if (pop)
        x87_pop(f);
}

static void take_underflow(struct x87 *f, unsigned n, bool pop)
{
    if (x87_underflow(f))
        return;
    x87_set(f, n, F80_INDEFINITE);
    if (pop)
        x87_pop(f);
}

/* ST(dst) = ST(dst) op ST(src) */
static inline void arith_regs(struct vcpu *v, const struct insn *i, host_binary *op, unsigned dst, unsigned src,
                              bool pop)
{
    struct x87 *f = &v->fpu;
    struct f80 r;
    x87_wait(v, i);
    x87_note(v, i);
    if (x87_is_empty(f, dst) || x87_is_empty(f, src)) {
        take_underflow(f, dst, pop);
        return;
    }
    uint16_t sw = op(&r, x87_get(f, dst), x87_get(f, src), f->fcw);
    take_result(f, dst, r, sw, pop);
}

#define REGISTER_HANDLERS(name, text)                                                                                  \
    HOST_X87_BINARY(host_##name, "f" text " %%st(1), %%st")                                                            \
    static void name##_rm(struct vcpu *v, const struct insn *i)                                                        \
    {                                                                                                                  \
        arith_regs(v, i, host_##name, 0, i->rm, false);                                                                \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_mr(struct vcpu *v, const struct insn *i)                                                        \
    {                                                                                                                  \
        arith_regs(v, i, host_##name, i->rm, 0, false);                                                                \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_mrp(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        arith_regs(v, i, host_##name, i->rm, 0, true);                                                                 \
        NEXT(v, i);                                                                                                    \
    }
OPERATIONS(REGISTER_HANDLERS)

#define MEMORY_HANDLER(name, form, text, bits, type)                                                                   \
    HOST_X87_BINARY_MEM(host_##name##_##form, text, type)                                                              \
    static void name##_##form(struct vcpu *v, const struct insn *i)                                                    \
    {                                                                                                                  \
        struct f80 r;                                                                                                  \
        struct x87 *f = &v->fpu;                                                                                       \
        x87_wait(v, i);                                                                                                \
        type b = (type)lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0));                                         \
        x87_note(v, i);                                                                                                \
        if (x87_is_empty(f, 0)) {                                                                                      \
            take_underflow(f, 0, false);                                                                               \
        } else {                                                                                                       \
            uint16_t sw = host_##name##_##form(&r, x87_get(f, 0), b, f->fcw);                                          \
            take_result(f, 0, r, sw, false);                                                                           \
        }                                                                                                              \
        NEXT_MEM(v, i);                                                                                                \
    }
#define MEMORY_HANDLERS(name, text)                                                                                    \
    MEMORY_HANDLER(name, m32, "f" text "s", 32, uint32_t)                                                              \
    MEMORY_HANDLER(name, m64, "f" text "l", 64, uint64_t)                                                              \
    MEMORY_HANDLER(name, i16, "fi" text "s", 16, uint16_t)                                                             \
    MEMORY_HANDLER(name, i32, "fi" text "l", 32, uint32_t)
OPERATIONS(MEMORY_HANDLERS)

op_fn *bind_x87_arith(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG;
    switch (i->op) {
#define ARITH_CASE(name, text)                                                                                         \
    case OP_F##name:                                                                                                   \
        if (reg)                                                                                                       \
            return i->enc == ENC_RM ? name##_rm : name##_mr;                                                           \
        return i->opsize == 4 ? name##_m32 : name##_m64;                                                               \
    case OP_F##name##P:                                                                                                \
        return name##_mrp;                                                                                             \
    case OP_FI##name:                                                                                                  \
        return i->opsize == 2 ? name##_i16 : name##_i32;
        OPERATIONS(ARITH_CASE)
    default:
        return NULL;
    }
}
