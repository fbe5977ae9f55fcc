/*
 * Shifts and rotates of one operand size: compiled once for each SHIFT_BITS of 8, 16, 32, 64.
 *
 * do_*: result of shifting `a` by c, where c is the masked count and not 0. Flags that the manual leaves undefined are
 * as AMD's processors leave them: OF is what the formula for a count of 1 gives for the last step; AF is 1 after
 * shifts.
 */
#define CAT2(a, b) a##b
#define CAT(a, b)  CAT2(a, b)
#define UT         CAT(CAT(uint, SHIFT_BITS), _t)
#define ST         CAT(CAT(int, SHIFT_BITS), _t)
#define FN(n)      CAT(CAT(n, _), SHIFT_BITS)
#define SIZE       (SHIFT_BITS / 8)
#define COUNT_MASK (SHIFT_BITS == 64 ? 63 : 31)
#define TOP        (64 - SHIFT_BITS) /* shift that brings the sign bit to bit 63 */

/* The logic flags of the result, with CF and OF from a carry vector (cpu/flags.h). */
always_inline UT FN(shift_flags)(struct vcpu *v, UT r, uint64_t cy)
{
    v->f_res = flags_sext(r, SIZE);
    v->f_cy = cy;
    v->f_adj = FLAG_AF;
    return r;
}

always_inline UT FN(do_shl)(struct vcpu *v, UT a, unsigned c)
{
    uint64_t last = (uint64_t)a << (c - 1); /* before the last step: its top bit is CF */
    return FN(shift_flags)(v, (UT)(last << 1), last << TOP);
}

always_inline UT FN(do_shr)(struct vcpu *v, UT a, unsigned c)
{
    uint64_t last = (uint64_t)a >> (c - 1);
    return FN(shift_flags)(v, (UT)(last >> 1), last << 63 | ((last ^ last >> (SHIFT_BITS - 1)) & 1) << 62);
}

always_inline UT FN(do_sar)(struct vcpu *v, UT a, unsigned c)
{
    int64_t last = (int64_t)(ST)a >> (c - 1);
    return FN(shift_flags)(v, (UT)(last >> 1), (uint64_t)last << 63 | ((uint64_t)last & 1) << 62);
}

always_inline UT FN(do_rol)(struct vcpu *v, UT a, unsigned c)
{
    unsigned n = c % SHIFT_BITS;
    UT r = (UT)(a << n | a >> ((SHIFT_BITS - n) % SHIFT_BITS));
    v->f_cy = (uint64_t)r << 63 | (uint64_t)(r >> (SHIFT_BITS - 1)) << 62;
    return r;
}

always_inline UT FN(do_ror)(struct vcpu *v, UT a, unsigned c)
{
    unsigned n = c % SHIFT_BITS;
    UT r = (UT)(a >> n | a << ((SHIFT_BITS - n) % SHIFT_BITS));
    v->f_cy = (uint64_t)r << TOP;
    return r;
}

/* Rotates of SHIFT_BITS + 1 bits. A count that is a multiple of that leaves CF, but not OF. */
always_inline UT FN(do_rcl)(struct vcpu *v, UT a, unsigned c)
{
    unsigned n = c % (SHIFT_BITS + 1);
    uint64_t cf = v->f_cy >> 63;
    if (n == 0) {
        flags_set_cf_of(v, cf, cf ^ (a >> (SHIFT_BITS - 1)));
        return a;
    }
    UT below = n == 1 ? 0 : (UT)(a >> (SHIFT_BITS + 1 - n));
    UT r = (UT)((uint64_t)a << n | cf << (n - 1) | below);
    cf = (uint64_t)(a >> (SHIFT_BITS - n)) & 1;
    v->f_cy = cf << 63 | (uint64_t)(r >> (SHIFT_BITS - 1)) << 62;
    return r;
}

always_inline UT FN(do_rcr)(struct vcpu *v, UT a, unsigned c)
{
    unsigned n = c % (SHIFT_BITS + 1);
    uint64_t cf = v->f_cy >> 63;
    if (n == 0) {
        flags_set_cf_of(v, cf, ((a >> (SHIFT_BITS - 1)) ^ (a >> (SHIFT_BITS - 2))) & 1);
        return a;
    }
    UT above = n == 1 ? 0 : (UT)((uint64_t)a << (SHIFT_BITS + 1 - n));
    UT r = (UT)((uint64_t)a >> n | cf << (SHIFT_BITS - n) | above);
    cf = (uint64_t)(a >> (n - 1)) & 1;
    flags_set_cf_of(v, cf, ((r >> (SHIFT_BITS - 1)) ^ (r >> (SHIFT_BITS - 2))) & 1);
    return r;
}

/* Handlers: register by immediate (count known to be nonzero), by CL, and memory by whatever. */
#define SHIFT_HANDLERS(op)                                                                                             \
    HANDLER_REG(FN(op##_imm),                                                                                          \
                reg_set(v, i->rm, SIZE, FN(do_##op)(v, (UT)reg_get(v, i->rm, SIZE), (unsigned)i->imm & COUNT_MASK)))   \
    HANDLER_REG(FN(op##_one), reg_set(v, i->rm, SIZE, FN(do_##op)(v, (UT)reg_get(v, i->rm, SIZE), 1)))                 \
    HANDLER_REG(FN(op##_cl), unsigned c = (unsigned)v->gpr[REG_RCX] & COUNT_MASK; UT a = (UT)reg_get(v, i->rm, SIZE);  \
                reg_set(v, i->rm, SIZE, c ? FN(do_##op)(v, a, c) : a))                                                 \
    static void FN(op##_mem)(struct vcpu * v, const struct insn *i)                                                    \
    {                                                                                                                  \
        uint64_t lin = insn_linear(v, i, SIZE, 1);                                                                     \
        unsigned c = shift_count(v, i) & COUNT_MASK;                                                                   \
        UT m = (UT)lin_rmw_load(v, i, lin, SIZE);                                                                      \
        lin_store(v, i, lin, c ? FN(do_##op)(v, m, c) : m, SIZE);                                                      \
        NEXT_MEM(v, i);                                                                                                \
    }
SHIFT_HANDLERS(shl)
SHIFT_HANDLERS(shr)
SHIFT_HANDLERS(sar)
SHIFT_HANDLERS(rol)
SHIFT_HANDLERS(ror)
SHIFT_HANDLERS(rcl)
SHIFT_HANDLERS(rcr)

/* A count of zero: no flags, and the register is written as always (32-bit destinations are zero-extended). */
HANDLER_REG(FN(shift_none), reg_set(v, i->rm, SIZE, reg_get(v, i->rm, SIZE)))

static op_fn *FN(bind_shift)(const struct insn *i)
{
#define ROW(op)                                                                                                        \
    {                                                                                                                  \
        FN(op##_imm), FN(op##_one), FN(op##_cl), FN(op##_mem)                                                          \
    }
    static op_fn *const table[][4] = {ROW(rol), ROW(ror), ROW(rcl), ROW(rcr), ROW(shl), ROW(shr), ROW(sar)};
#undef ROW
    op_fn *const *row = table[shift_row(i->op)];
    if (!(i->flags & INSN_RM_REG))
        return row[3];
    if (i->enc == ENC_MC)
        return row[2];
    if (i->enc == ENC_M1 || (i->imm & COUNT_MASK) == 1)
        return row[1];
    return i->imm & COUNT_MASK ? row[0] : FN(shift_none);
}

#undef SHIFT_HANDLERS
#undef CAT
#undef CAT2
#undef UT
#undef ST
#undef FN
#undef SIZE
#undef COUNT_MASK
#undef TOP
#undef SHIFT_BITS
