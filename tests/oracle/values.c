/*
 * Operands: edges of every format, and random ones.
 */
#include "tests/oracle/oracle.h"

#include <string.h>

uint64_t rng64(struct oracle_rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

unsigned rng_below(struct oracle_rng *r, unsigned n)
{
    return (unsigned)((rng64(r) >> 32) * n >> 32);
}

uint64_t value_int(struct oracle_rng *r)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x100000000,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     ~0ull,
                                     ~1ull,
                                     0x5555555555555555,
                                     0x0123456789abcdef};
    switch (rng_below(r, 8)) {
    case 0:
    case 1:
        return edges[rng_below(r, ARRAY_LEN(edges))];
    case 2:
        return rng64(r) >> rng_below(r, 64);
    case 3:
        return 1ull << rng_below(r, 64);
    case 4:
        return (uint64_t)((int64_t)rng64(r) >> rng_below(r, 64));
    default:
        return rng64(r);
    }
}

static uint32_t value_f32(struct oracle_rng *r)
{
    static const uint32_t edges[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                     0x7fc00000, 0xffc00000, 0x7fa00000, 0xff800001, 1,          0x807fffff,
                                     0x00800000, 0x7f7fffff, 0x3f000000, 0x3fc00000, 0x40200000, 0x4b000000,
                                     0x4effffff, 0x4f000000, 0xcf000000, 0x5f000000, 0xdf000001, 0x4f800000};
    if (rng_one_in(r, 3))
        return edges[rng_below(r, ARRAY_LEN(edges))];
    uint32_t x = (uint32_t)rng64(r);
    return rng_one_in(r, 2) ? x : (x & 0x807fffff) | (0x70 + rng_below(r, 32)) << 23;
}

static uint64_t value_f64(struct oracle_rng *r)
{
    static const uint64_t edges[] = {0,
                                     0x8000000000000000,
                                     0x3ff0000000000000,
                                     0xbff0000000000000,
                                     0x7ff0000000000000,
                                     0xfff0000000000000,
                                     0x7ff8000000000000,
                                     0xfff8000000000000,
                                     0x7ff4000000000000,
                                     0xfff0000000000001,
                                     1,
                                     0x800fffffffffffff,
                                     0x0010000000000000,
                                     0x7fefffffffffffff,
                                     0x3fe0000000000000,
                                     0x3ff8000000000000,
                                     0x4330000000000001,
                                     0x41dfffffffc00000,
                                     0x41e0000000000000,
                                     0xc1e0000000200000,
                                     0x43e0000000000000,
                                     0xc3e0000000000000,
                                     0x36a0000000000000,
                                     0x47f0000000000000};
    if (rng_one_in(r, 3))
        return edges[rng_below(r, ARRAY_LEN(edges))];
    uint64_t x = rng64(r);
    return rng_one_in(r, 2) ? x : (x & 0x800fffffffffffff) | (uint64_t)(0x3e0 + rng_below(r, 64)) << 52;
}

/* Ten bytes: with pseudo-denormals, unnormals and other encodings that the manual calls unsupported. */
static void value_f80(struct oracle_rng *r, uint8_t out[10])
{
    static const uint16_t exps[] = {0,      1,      0x3ffe, 0x3fff, 0x4000, 0x403d,
                                    0x403e, 0x403f, 0x7ffe, 0x7fff, 0x3fbf, 0x3c00};
    static const uint64_t mants[] = {0,
                                     0x8000000000000000,
                                     0xc000000000000000,
                                     0xffffffffffffffff,
                                     0x8000000000000001,
                                     0xa000000000000000,
                                     0x7fffffffffffffff,
                                     1,
                                     0xc90fdaa22168c235};
    uint16_t exp = rng_one_in(r, 2) ? exps[rng_below(r, ARRAY_LEN(exps))] : (uint16_t)(0x3fff - 70 + rng_below(r, 140));
    uint64_t mant = rng_one_in(r, 3) ? mants[rng_below(r, ARRAY_LEN(mants))] : rng64(r) | 1ull << 63;
    if (rng_one_in(r, 20))
        exp = (uint16_t)rng64(r) & 0x7fff;
    if (exp == 0x7fff && rng_one_in(r, 3))
        mant = 0x8000000000000000;
    if (exp == 0 && rng_one_in(r, 2))
        mant = 0;
    exp |= rng_one_in(r, 2) ? 0x8000 : 0;
    memcpy(out, &mant, 8);
    memcpy(out + 8, &exp, 2);
}

static void value_bcd(struct oracle_rng *r, uint8_t out[10])
{
    for (unsigned k = 0; k < 9; k++)
        out[k] = (uint8_t)(rng_below(r, 10) << 4 | rng_below(r, 10));
    out[9] = rng_one_in(r, 2) ? 0x80 : 0;
    if (rng_one_in(r, 8))
        out[rng_below(r, 10)] = (uint8_t)rng64(r);
}

static void fill_ints(struct oracle_rng *r, uint8_t *p, size_t len)
{
    unsigned size = 1u << rng_below(r, 4);
    for (size_t k = 0; k < len; k += size) {
        uint64_t x = value_int(r);
        memcpy(p + k, &x, len - k < size ? len - k : size);
    }
}

static size_t fill_one(struct oracle_rng *r, uint8_t out[16], enum value_kind kind)
{
    uint64_t x;
    uint32_t y;
    switch (kind) {
    case VALUE_F32:
        y = value_f32(r);
        memcpy(out, &y, 4);
        return 4;
    case VALUE_F64:
        x = value_f64(r);
        memcpy(out, &x, 8);
        return 8;
    case VALUE_F80:
        value_f80(r, out);
        return 10;
    case VALUE_BCD:
        value_bcd(r, out);
        return 10;
    case VALUE_SMALL:
        y = rng_below(r, 80) - 16;
        memcpy(out, &y, 4);
        return 4;
    default:
        x = rng64(r);
        memcpy(out, &x, 8);
        return 8;
    }
}

void values_fill(struct oracle_rng *r, void *buf, size_t len, enum value_kind kind)
{
    uint8_t *p = buf, one[16];
    if (kind == VALUE_INT) {
        fill_ints(r, p, len);
        return;
    }
    for (size_t at = 0, n; at < len; at += n) {
        n = fill_one(r, one, kind);
        memcpy(p + at, one, len - at < n ? len - at : n);
    }
}

/* Most cases run with exceptions masked; some sticky flags, some pending exceptions. */
static void fill_control(struct oracle_rng *r, uint8_t *xsave)
{
    uint16_t fcw = 0x37f, fsw = (uint16_t)(rng64(r) & 0x7f00);
    uint32_t mxcsr = 0x1f80;
    if (rng_one_in(r, 3))
        fcw = (uint16_t)((rng64(r) & 0xf00) | 0x7f);
    if (rng_one_in(r, 8))
        fcw = (uint16_t)((rng64(r) & 0xf3f) | 0x40);
    if (rng_one_in(r, 4))
        fsw |= (uint16_t)(rng64(r) & 0x47f);
    if (!rng_one_in(r, 16))
        fsw &= (uint16_t)(0xffc0 | fcw);
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    if (rng_one_in(r, 3))
        mxcsr = (uint32_t)(rng64(r) & 0xe07f) | 0x1f80;
    if (rng_one_in(r, 8))
        mxcsr = (uint32_t)(rng64(r) & 0xffff);
    memcpy(xsave, &fcw, 2);
    memcpy(xsave + 2, &fsw, 2);
    memcpy(xsave + 24, &mxcsr, 4);
}

void values_vector_state(struct oracle_rng *r, uint8_t *xsave, enum value_kind kind)
{
    memset(xsave, 0, XSAVE_BYTES);
    fill_control(r, xsave);
    xsave[4] = rng_one_in(r, 3) ? (uint8_t)rng64(r) : 0xff;
    for (unsigned k = 0; k < 8; k++) {
        if (rng_one_in(r, 8))
            values_fill(r, xsave + 32 + 16 * k, 10, VALUE_BITS);
        else
            value_f80(r, xsave + 32 + 16 * k);
    }
    for (unsigned k = 0; k < 16; k++) {
        values_fill(r, xsave + 160 + 16 * k, 16, kind);
        values_fill(r, xsave + 576 + 16 * k, 16, kind);
    }
    xsave[512] = 7;
}
