/*
 * Shifts and rotates, SHLD, SHRD, and BMI2's shifts without flags.
 */
#include "cpu/interp/integer.h"

/* Count as given, not masked. */
static inline unsigned shift_count(const struct vcpu *v, const struct insn *i)
{
    if (i->enc == ENC_M1)
        return 1;
    return i->enc == ENC_MC || i->enc == ENC_MRC ? (uint8_t)v->gpr[REG_RCX] : (unsigned)i->imm;
}

static unsigned shift_row(unsigned op)
{
    switch (op) {
    case OP_ROL:
        return 0;
    case OP_ROR:
        return 1;
    case OP_RCL:
        return 2;
    case OP_RCR:
        return 3;
    case OP_SHL:
        return 4;
    case OP_SHR:
        return 5;
    default:
        return 6;
    }
}

#define SHIFT_BITS 8
#include "cpu/interp/shift_tmpl.h"
#define SHIFT_BITS 16
#include "cpu/interp/shift_tmpl.h"
#define SHIFT_BITS 32
#include "cpu/interp/shift_tmpl.h"
#define SHIFT_BITS 64
#include "cpu/interp/shift_tmpl.h"

/* ---- SHLD, SHRD ---- */

/* OF is that of the last of c single steps. */
static void shift_double_flags(struct vcpu *v, uint64_t r, unsigned size, bool cf, bool of)
{
    v->f_res = flags_sext(r, size);
    v->f_adj = FLAG_AF;
    flags_set_cf_of(v, cf, of);
}

/* `a` shifted left by c (1..31, 1..63) with bits from the top of b. 16 bits by more than 16 (undefined): a:b:b is
 * shifted, as by AMD's processors. */
static uint64_t do_shld(struct vcpu *v, uint64_t a, uint64_t b, unsigned c, unsigned size)
{
    unsigned bits = 8 * size;
    uint64_t r;
    bool cf;
    if (size == 2) {
        uint64_t wide = a << 32 | b << 16 | b;
        r = wide << c >> 32 & 0xffff;
        cf = wide << (c - 1) >> 47 & 1;
    } else {
        uint64_t mask = size == 8 ? ~0ull : 0xffffffff;
        r = (a << c | b >> (bits - c)) & mask;
        cf = a >> (bits - c) & 1;
    }
    shift_double_flags(v, r, size, cf, cf ^ (r >> (bits - 1) & 1));
    return r;
}

static uint64_t do_shrd(struct vcpu *v, uint64_t a, uint64_t b, unsigned c, unsigned size)
{
    unsigned bits = 8 * size;
    uint64_t r;
    bool cf;
    if (size == 2) {
        uint64_t wide = b << 32 | b << 16 | a;
        r = wide >> c & 0xffff;
        cf = wide >> (c - 1) & 1;
    } else {
        uint64_t mask = size == 8 ? ~0ull : 0xffffffff;
        r = (a >> c | b << (bits - c)) & mask;
        cf = a >> (c - 1) & 1;
    }
    shift_double_flags(v, r, size, cf, (r ^ r << 1) >> (bits - 1) & 1);
    return r;
}

static uint64_t do_double(struct vcpu *v, const struct insn *i, uint64_t a)
{
    unsigned size = i->opsize, c = shift_count(v, i) & (size == 8 ? 63 : 31);
    uint64_t b = reg_get(v, i->reg, size);
    if (c == 0)
        return a;
    return i->op == OP_SHLD ? do_shld(v, a, b, c, size) : do_shrd(v, a, b, c, size);
}

static void shift_double_reg(struct vcpu *v, const struct insn *i)
{
    reg_set(v, i->rm, i->opsize, do_double(v, i, reg_get(v, i->rm, i->opsize)));
    NEXT(v, i);
}

static void shift_double_mem(struct vcpu *v, const struct insn *i)
{
    uint64_t lin = insn_linear(v, i, i->opsize, 1);
    uint64_t m = lin_rmw_load(v, i, lin, i->opsize);
    lin_store(v, i, lin, do_double(v, i, m), i->opsize);
    NEXT_MEM(v, i);
}

/* ---- BMI2: RORX, SARX, SHLX, SHRX ---- */

static uint64_t bmi_shift(const struct vcpu *v, const struct insn *i, uint64_t a)
{
    unsigned bits = 8u * i->opsize;
    unsigned c = (unsigned)(i->op == OP_RORX ? i->imm : v->gpr[i->vvvv]) & (bits - 1);
    switch (i->op) {
    case OP_RORX:
        return a >> c | a << (bits - c) % bits;
    case OP_SHLX:
        return a << c;
    case OP_SHRX:
        return a >> c;
    default:
        return (uint64_t)((int64_t)flags_sext(a, i->opsize) >> c);
    }
}

static void bmi_shift_reg(struct vcpu *v, const struct insn *i)
{
    reg_set(v, i->reg, i->opsize, bmi_shift(v, i, reg_get(v, i->rm, i->opsize)));
    NEXT(v, i);
}

static void bmi_shift_mem(struct vcpu *v, const struct insn *i)
{
    uint64_t m = lin_load(v, i, insn_linear(v, i, i->opsize, 0), i->opsize);
    reg_set(v, i->reg, i->opsize, bmi_shift(v, i, m));
    NEXT_MEM(v, i);
}

op_fn *bind_shift(const struct insn *i)
{
    bool r = i->flags & INSN_RM_REG;
    switch (i->op) {
    case OP_SHLD:
    case OP_SHRD:
        return r ? shift_double_reg : shift_double_mem;
    case OP_RORX:
    case OP_SARX:
    case OP_SHLX:
    case OP_SHRX:
        return r ? bmi_shift_reg : bmi_shift_mem;
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
        return i->opsize == 1   ? bind_shift_8(i)
               : i->opsize == 2 ? bind_shift_16(i)
               : i->opsize == 4 ? bind_shift_32(i)
                                : bind_shift_64(i);
    default:
        return NULL;
    }
}
