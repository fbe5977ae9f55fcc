/*
 * x87 loads, stores, constants and moves on the register stack (SDM volume 1, section 8.3.3; volume 2).
 *
 * A load that would overflow the stack, and a store from an empty register, are invalid operations: masked, they move
 * the indefinite value; unmasked, nothing moves.
 */
#include "cpu/interp/x87_host.h"

/* ---- loads ---- */

/* Pushes r, which came with status sw. A denormal number is loaded even if its exception is unmasked. */
static void take_push(struct x87 *f, struct f80 r, uint16_t sw)
{
    if (!x87_is_empty(f, 7)) {
        if (!x87_overflow(f))
            x87_push(f, F80_INDEFINITE);
        return;
    }
    x87_report(f, sw & FSW_EXC);
    if (!(sw & ~f->fcw & FSW_IE))
        x87_push(f, r);
}

#define LOAD(name, text, bits)                                                                                         \
    HOST_X87_LOAD(host_##name, text, uint##bits##_t)                                                                   \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct f80 r;                                                                                                  \
        x87_wait(v, i);                                                                                                \
        uint##bits##_t m = lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0));                                     \
        x87_note(v, i);                                                                                                \
        uint16_t sw = host_##name(&r, m, v->fpu.fcw);                                                                  \
        take_push(&v->fpu, r, sw);                                                                                     \
        NEXT_MEM(v, i);                                                                                                \
    }
LOAD(fld_m32, "flds", 32)
LOAD(fld_m64, "fldl", 64)
LOAD(fild_i16, "filds", 16)
LOAD(fild_i32, "fildl", 32)
LOAD(fild_i64, "fildll", 64)

struct bytes10 {
    uint8_t b[10];
};

static struct bytes10 load10(struct vcpu *v, const struct insn *i)
{
    struct bytes10 m;
    lin_read_bytes(v, i, insn_linear(v, i, 10, 0), m.b, sizeof m.b);
    return m;
}

static void fld_m80(struct vcpu *v, const struct insn *i)
{
    struct f80 r;
    x87_wait(v, i);
    struct bytes10 m = load10(v, i);
    x87_note(v, i);
    memcpy(&r.mant, m.b, 8);
    memcpy(&r.exp, m.b + 8, 2);
    take_push(&v->fpu, r, 0);
    NEXT_MEM(v, i);
}

HOST_X87_LOAD(host_fbld, "fbld", struct bytes10)
static void fbld(struct vcpu *v, const struct insn *i)
{
    struct f80 r;
    x87_wait(v, i);
    struct bytes10 m = load10(v, i);
    x87_note(v, i);
    uint16_t sw = host_fbld(&r, m, v->fpu.fcw);
    take_push(&v->fpu, r, sw);
    NEXT_MEM(v, i);
}

static void fld_st(struct vcpu *v, const struct insn *i)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    if (!x87_is_empty(f, i->rm))
        take_push(f, x87_get(f, i->rm), 0);
    else if (!x87_underflow(f))
        x87_push(f, F80_INDEFINITE);
    NEXT(v, i);
}

#define CONSTANTS(F)                                                                                                   \
    F(FLD1, "fld1")                                                                                                    \
    F(FLDL2T, "fldl2t") F(FLDL2E, "fldl2e") F(FLDPI, "fldpi") F(FLDLG2, "fldlg2") F(FLDLN2, "fldln2") F(FLDZ, "fldz")
#define CONSTANT(name, text)                                                                                           \
    HOST_X87_CONST(host_##name, text)                                                                                  \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct f80 r;                                                                                                  \
        x87_wait(v, i);                                                                                                \
        x87_note(v, i);                                                                                                \
        uint16_t sw = host_##name(&r, v->fpu.fcw);                                                                     \
        take_push(&v->fpu, r, sw);                                                                                     \
        NEXT(v, i);                                                                                                    \
    }
CONSTANTS(CONSTANT)

/* ---- stores ---- */

/*
 * Stores `size` bytes, which came with status sw, or nothing if an unmasked exception other than precision forbids it.
 * The caller has made sure that the store cannot fault.
 */
static void take_store(struct vcpu *v, const struct insn *i, uint64_t lin, const void *r, unsigned size, uint16_t sw,
                       bool pop)
{
    struct x87 *f = &v->fpu;
    if (x87_report(f, sw & FSW_EXC))
        return;
    x87_set_cc(f, FSW_C1, sw);
    if (sw & ~f->fcw & (FSW_OE | FSW_UE))
        return;
    lin_write_bytes(v, i, lin, r, size);
    if (pop)
        x87_pop(f);
}

static uint64_t store_linear(struct vcpu *v, const struct insn *i, unsigned size)
{
    uint64_t lin = insn_linear(v, i, size, 1);
    if (!tlb_lookup_write(v->mv, lin, size))
        lin_probe_write(v, i, lin, size);
    return lin;
}

/* `indefinite` is what goes to memory for an empty register. */
#define STORE(name, host, type, indefinite, pop)                                                                       \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        struct x87 *f = &v->fpu;                                                                                       \
        type r = indefinite;                                                                                           \
        x87_wait(v, i);                                                                                                \
        uint64_t lin = store_linear(v, i, sizeof r);                                                                   \
        x87_note(v, i);                                                                                                \
        if (!x87_is_empty(f, 0)) {                                                                                     \
            uint16_t sw = host(&r, x87_get(f, 0), f->fcw);                                                             \
            take_store(v, i, lin, &r, sizeof r, sw, pop);                                                              \
        } else if (!x87_underflow(f)) {                                                                                \
            take_store(v, i, lin, &r, sizeof r, 0, pop);                                                               \
        }                                                                                                              \
        NEXT_MEM(v, i);                                                                                                \
    }

#define DROP "fstp %%st(0)"
HOST_X87_STORE(host_fst_m32, "fsts", uint32_t, DROP)
HOST_X87_STORE(host_fst_m64, "fstl", uint64_t, DROP)
HOST_X87_STORE(host_fist_i16, "fists", uint16_t, DROP)
HOST_X87_STORE(host_fist_i32, "fistl", uint32_t, DROP)
HOST_X87_STORE(host_fist_i64, "fistpll", uint64_t, "")
HOST_X87_STORE(host_fisttp_i16, "fisttps", uint16_t, "")
HOST_X87_STORE(host_fisttp_i32, "fisttpl", uint32_t, "")
HOST_X87_STORE(host_fisttp_i64, "fisttpll", uint64_t, "")
HOST_X87_STORE(host_fbstp, "fbstp", struct bytes10, "")

/* Any value goes to memory as it is. */
static inline uint16_t copy_m80(struct bytes10 *r, struct f80 a, uint16_t fcw)
{
    memcpy(r->b, &a.mant, 8);
    memcpy(r->b + 8, &a.exp, 2);
    return 0;
}

#define INDEFINITE10                                                                                                   \
    {                                                                                                                  \
        {                                                                                                              \
            0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff                                                                      \
        }                                                                                                              \
    } /* the real and the decimal one are the same */
STORE(fst_m32, host_fst_m32, uint32_t, 0xffc00000, false)
STORE(fst_m64, host_fst_m64, uint64_t, 0xfff8000000000000, false)
STORE(fstp_m32, host_fst_m32, uint32_t, 0xffc00000, true)
STORE(fstp_m64, host_fst_m64, uint64_t, 0xfff8000000000000, true)
STORE(fstp_m80, copy_m80, struct bytes10, INDEFINITE10, true)
STORE(fist_i16, host_fist_i16, uint16_t, 0x8000, false)
STORE(fist_i32, host_fist_i32, uint32_t, 0x80000000, false)
STORE(fistp_i16, host_fist_i16, uint16_t, 0x8000, true)
STORE(fistp_i32, host_fist_i32, uint32_t, 0x80000000, true)
STORE(fistp_i64, host_fist_i64, uint64_t, 0x8000000000000000, true)
STORE(fisttp_i16, host_fisttp_i16, uint16_t, 0x8000, true)
STORE(fisttp_i32, host_fisttp_i32, uint32_t, 0x80000000, true)
STORE(fisttp_i64, host_fisttp_i64, uint64_t, 0x8000000000000000, true)
STORE(fbstp, host_fbstp, struct bytes10, INDEFINITE10, true)

static inline void store_st(struct vcpu *v, const struct insn *i, bool pop)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    if (!x87_is_empty(f, 0)) {
        x87_set(f, i->rm, x87_get(f, 0));
    } else if (i->opcode != 0xd9) { /* the alias D9 D8+i of FSTP only pops an empty register */
        if (x87_underflow(f))
            return;
        x87_set(f, i->rm, F80_INDEFINITE);
    }
    x87_set_cc(f, FSW_C1, 0);
    if (pop)
        x87_pop(f);
}

static void fst_st(struct vcpu *v, const struct insn *i)
{
    store_st(v, i, false);
    NEXT(v, i);
}
static void fstp_st(struct vcpu *v, const struct insn *i)
{
    store_st(v, i, true);
    NEXT(v, i);
}

/* ---- moves on the stack ---- */

static void fxch(struct vcpu *v, const struct insn *i)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    bool empty0 = x87_is_empty(f, 0), empty_n = x87_is_empty(f, i->rm);
    if (!(empty0 || empty_n) || !x87_underflow(f)) {
        struct f80 a = empty0 ? F80_INDEFINITE : x87_get(f, 0), b = empty_n ? F80_INDEFINITE : x87_get(f, i->rm);
        x87_set_cc(f, FSW_C1, 0);
        x87_set(f, 0, b);
        x87_set(f, i->rm, a);
    }
    NEXT(v, i);
}

static bool fcmov_condition(const struct vcpu *v, unsigned op)
{
    bool c = flag_cf(v), z = flag_zf(v), p = flag_pf(v);
    switch (op) {
    case OP_FCMOVB:
        return c;
    case OP_FCMOVE:
        return z;
    case OP_FCMOVBE:
        return c || z;
    case OP_FCMOVU:
        return p;
    case OP_FCMOVNB:
        return !c;
    case OP_FCMOVNE:
        return !z;
    case OP_FCMOVNBE:
        return !(c || z);
    default:
        return !p;
    }
}

static void fcmov(struct vcpu *v, const struct insn *i)
{
    struct x87 *f = &v->fpu;
    x87_wait(v, i);
    x87_note(v, i);
    if (x87_is_empty(f, 0) || x87_is_empty(f, i->rm)) {
        if (!x87_underflow(f))
            x87_set(f, 0, F80_INDEFINITE);
    } else if (fcmov_condition(v, i->op)) {
        x87_set(f, 0, x87_get(f, i->rm));
    }
    NEXT(v, i);
}

static inline void turn_stack(struct vcpu *v, const struct insn *i, unsigned by)
{
    x87_wait(v, i);
    x87_note(v, i);
    v->fpu.top = (v->fpu.top + by) & 7;
    x87_set_cc(&v->fpu, FSW_C1, 0);
}
static void fincstp(struct vcpu *v, const struct insn *i)
{
    turn_stack(v, i, 1);
    NEXT(v, i);
}
static void fdecstp(struct vcpu *v, const struct insn *i)
{
    turn_stack(v, i, 7);
    NEXT(v, i);
}

static void ffree(struct vcpu *v, const struct insn *i)
{
    x87_wait(v, i);
    x87_note(v, i);
    x87_set_cc(&v->fpu, FSW_C1, 0);
    v->fpu.tag &= (uint8_t) ~(1u << x87_reg(&v->fpu, i->rm));
    if (i->op == OP_FFREEP)
        x87_pop(&v->fpu);
    NEXT(v, i);
}

/* ---- binding ---- */

static op_fn *by_size(const struct insn *i, op_fn *f2, op_fn *f4, op_fn *f8, op_fn *f10)
{
    return i->opsize == 2 ? f2 : i->opsize == 4 ? f4 : i->opsize == 8 ? f8 : f10;
}

static op_fn *bind_memory(const struct insn *i)
{
    switch (i->op) {
    case OP_FLD:
        return by_size(i, NULL, fld_m32, fld_m64, fld_m80);
    case OP_FST:
        return by_size(i, NULL, fst_m32, fst_m64, NULL);
    case OP_FSTP:
        return by_size(i, NULL, fstp_m32, fstp_m64, fstp_m80);
    case OP_FILD:
        return by_size(i, fild_i16, fild_i32, fild_i64, NULL);
    case OP_FIST:
        return by_size(i, fist_i16, fist_i32, NULL, NULL);
    case OP_FISTP:
        return by_size(i, fistp_i16, fistp_i32, fistp_i64, NULL);
    case OP_FISTTP:
        return by_size(i, fisttp_i16, fisttp_i32, fisttp_i64, NULL);
    case OP_FBLD:
        return fbld;
    case OP_FBSTP:
        return fbstp;
    default:
        return NULL;
    }
}

op_fn *bind_x87_move(const struct insn *i)
{
    if (i->enc == ENC_M && !(i->flags & INSN_RM_REG))
        return bind_memory(i);
    switch (i->op) {
    case OP_FLD:
        return fld_st;
    case OP_FST:
        return fst_st;
    case OP_FSTP:
        return fstp_st;
    case OP_FXCH:
        return fxch;
    case OP_FCMOVB:
    case OP_FCMOVE:
    case OP_FCMOVBE:
    case OP_FCMOVU:
    case OP_FCMOVNB:
    case OP_FCMOVNE:
    case OP_FCMOVNBE:
    case OP_FCMOVNU:
        return fcmov;
    case OP_FINCSTP:
        return fincstp;
    case OP_FDECSTP:
        return fdecstp;
    case OP_FFREE:
    case OP_FFREEP:
        return ffree;
#define CONSTANT_CASE(name, text)                                                                                      \
    case OP_##name:                                                                                                    \
        return name;
        CONSTANTS(CONSTANT_CASE)
    default:
        return NULL;
    }
}
