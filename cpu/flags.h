/*
 * Lazy arithmetic flags.
 *
 *   f_res   the result, sign-extended to 64 bits: ZF is f_res == 0
 *   f_cy    bit 63: CF; bit 62: the carry into the most significant bit, so OF is bit 63 ^ bit 62
 *   f_adj   bit 4: AF; bits 8..15: XORed to the result's low byte before PF is taken; bit 63: XORed to the result's
 * sign for SF
 *
 * The carry vector of an addition of width n is (a & b) | ((a | b) & ~r), of a subtraction (~a & b) | ((~a | b) & r);
 * shifted left by 64 - n it has CF in bit 63 and the carry into the sign bit in bit 62. So every flag is had without
 * knowing which operation set it.
 */
#ifndef CPU_FLAGS_H
#define CPU_FLAGS_H

#include "cpu/cpu.h"

static inline bool flag_zf(const struct vcpu *v)
{
    return v->f_res == 0;
}
static inline bool flag_sf(const struct vcpu *v)
{
    return (int64_t)(v->f_res ^ v->f_adj) < 0;
}
static inline bool flag_cf(const struct vcpu *v)
{
    return v->f_cy >> 63;
}
static inline bool flag_of(const struct vcpu *v)
{
    return (v->f_cy ^ v->f_cy << 1) >> 63;
}
static inline bool flag_af(const struct vcpu *v)
{
    return (v->f_adj >> 4) & 1;
}
static inline bool flag_pf(const struct vcpu *v)
{
    return !__builtin_parity((unsigned)((v->f_res ^ (v->f_adj >> 8)) & 0xff));
}

/* Sign-extends the low `size` bytes. */
static inline uint64_t flags_sext(uint64_t x, unsigned size)
{
    unsigned s = 64 - 8 * size;
    return (uint64_t)((int64_t)(x << s) >> s);
}

static inline void flags_set_add(struct vcpu *v, uint64_t a, uint64_t b, uint64_t r, unsigned size)
{
    v->f_res = flags_sext(r, size);
    v->f_cy = ((a & b) | ((a | b) & ~r)) << (64 - 8 * size);
    v->f_adj = (a ^ b ^ r) & 0x10;
}

static inline void flags_set_sub(struct vcpu *v, uint64_t a, uint64_t b, uint64_t r, unsigned size)
{
    v->f_res = flags_sext(r, size);
    v->f_cy = ((~a & b) | ((~a | b) & r)) << (64 - 8 * size);
    v->f_adj = (a ^ b ^ r) & 0x10;
}

/* AND, OR, XOR, TEST: CF = OF = 0, AF (undefined) = 0. */
static inline void flags_set_logic(struct vcpu *v, uint64_t r, unsigned size)
{
    v->f_res = flags_sext(r, size);
    v->f_cy = 0;
    v->f_adj = 0;
}

/* CF and OF alone; the others stay. */
static inline void flags_set_cf_of(struct vcpu *v, bool cf, bool of)
{
    v->f_cy = (uint64_t)cf << 63 | (uint64_t)(cf ^ of) << 62;
}

static inline void flags_set_cf(struct vcpu *v, bool cf)
{
    flags_set_cf_of(v, cf, flag_of(v));
}

/* All six from the bits of a FLAGS image. */
static inline void flags_set_image(struct vcpu *v, uint64_t f)
{
    bool zf = f & FLAG_ZF, sf = f & FLAG_SF, pf = f & FLAG_PF;
    v->f_res = zf ? 0 : 1;
    /* parity of res's low byte: 0 has even (PF 1), 1 has odd (PF 0) */
    v->f_adj = (f & FLAG_AF) | (uint64_t)(pf != zf) << 8 | (uint64_t)sf << 63;
    flags_set_cf_of(v, f & FLAG_CF, f & FLAG_OF);
}

static inline uint64_t flags_image(const struct vcpu *v)
{
    return (flag_cf(v) ? FLAG_CF : 0) | (flag_pf(v) ? FLAG_PF : 0) | (flag_af(v) ? FLAG_AF : 0) |
           (flag_zf(v) ? FLAG_ZF : 0) | (flag_sf(v) ? FLAG_SF : 0) | (flag_of(v) ? FLAG_OF : 0);
}

/* Condition codes 0..15 (SDM volume 1, appendix B). */
static inline bool flags_cond(const struct vcpu *v, unsigned cc)
{
    bool r;
    switch (cc >> 1) {
    case 0:
        r = flag_of(v);
        break;
    case 1:
        r = flag_cf(v);
        break;
    case 2:
        r = flag_zf(v);
        break;
    case 3:
        r = flag_cf(v) || flag_zf(v);
        break;
    case 4:
        r = flag_sf(v);
        break;
    case 5:
        r = flag_pf(v);
        break;
    case 6:
        r = flag_sf(v) != flag_of(v);
        break;
    default:
        r = flag_zf(v) || flag_sf(v) != flag_of(v);
        break;
    }
    return r != (bool)(cc & 1);
}

#endif
