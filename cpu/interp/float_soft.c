/*
 * Binary floating point in integers (float_soft.h).
 *
 * A finite value that is not zero is sig * 2^(e - TOP) with sig's highest bit at TOP: so 106 bits of a product of
 * doubles fit, an addend can be aligned to it, and what is shifted out is remembered in the lowest bit.
 */
#include "cpu/interp/float_soft.h"

#define IE        0x01u
#define DE        0x02u
#define OE        0x08u
#define UE        0x10u
#define PE        0x20u
#define CSR_DAZ   0x0040u
#define CSR_OM    0x0400u
#define CSR_UM    0x0800u
#define CSR_FTZ   0x8000u
#define CSR_RC(x) ((x) >> 13 & 3)

enum { TO_NEAREST, TO_DOWN, TO_UP, TO_ZERO };

const struct float_format float_half = {10, 5}, float_single = {23, 8}, float_double = {52, 11};

#define TOP 126
typedef unsigned __int128 wide_t;

struct unpacked {
    enum { ZERO, FINITE, INFINITE, QUIET, SIGNALING } kind;
    bool sign, denormal;
    int e;
    wide_t sig;
};

static int bias(const struct float_format *f)
{
    return (1 << (f->exp - 1)) - 1;
}
static uint64_t infinity(const struct float_format *f)
{
    return ((1ull << f->exp) - 1) << f->mant;
}
static uint64_t sign_bit(const struct float_format *f)
{
    return 1ull << (f->mant + f->exp);
}
static uint64_t quieted(const struct float_format *f, uint64_t x)
{
    return x | 1ull << (f->mant - 1);
}
static uint64_t default_nan(const struct float_format *f)
{
    return quieted(f, sign_bit(f) | infinity(f));
}

static struct unpacked unpack(const struct float_format *f, uint64_t x, bool daz)
{
    uint64_t a = x & (sign_bit(f) - 1), mant = a & ((1ull << f->mant) - 1);
    int exponent = (int)(a >> f->mant);
    struct unpacked u = {.kind = FINITE, .sign = x & sign_bit(f)};
    if (a >= infinity(f)) {
        u.kind = !mant ? INFINITE : mant >> (f->mant - 1) ? QUIET : SIGNALING;
        return u;
    }
    if (!a || (daz && !exponent)) {
        u.kind = ZERO;
        return u;
    }
    u.denormal = !exponent;
    if (exponent)
        mant |= 1ull << f->mant;
    else
        exponent = 1;
    int top = 63 - __builtin_clzll(mant);
    u.e = exponent - bias(f) + top - (int)f->mant;
    u.sig = (wide_t)mant << (TOP - top);
    return u;
}

static wide_t shift_right_jam(wide_t x, int n)
{
    if (n > TOP)
        return x != 0;
    return n ? x >> n | ((x & (((wide_t)1 << n) - 1)) != 0) : x;
}

/* sig / 2^shift, rounded. */
static uint64_t round_to(wide_t sig, unsigned shift, bool sign, unsigned mode, bool *inexact)
{
    uint64_t q = (uint64_t)(sig >> shift);
    wide_t rest = sig & (((wide_t)1 << shift) - 1), half = (wide_t)1 << (shift - 1);
    bool up = mode == TO_NEAREST ? rest > half || (rest == half && (q & 1))
              : mode == TO_DOWN  ? sign
                                 : mode == TO_UP && !sign;
    *inexact = rest;
    return q + (up && rest);
}

/* The significand rounded as if the exponent had no bound. */
static uint64_t round_unbounded(const struct float_format *f, const struct unpacked *u, unsigned mode, bool *inexact)
{
    return round_to(u->sig, TOP - f->mant, u->sign, mode, inexact);
}

/* Tiny: less than the least normal number after rounding as if the exponent had no bound. */
static bool is_tiny(const struct float_format *f, const struct unpacked *u, unsigned mode)
{
    bool inexact;
    int exponent = u->e + bias(f);
    if (exponent > 0)
        return false;
    return exponent < 0 || round_unbounded(f, u, mode, &inexact) >> f->mant == 1;
}

/* The flag of a result out of range whose exception is not masked: inexact is then what would be without bounds. */
static uint32_t unmasked_range(const struct float_format *f, const struct unpacked *u, unsigned mode, uint32_t flag)
{
    bool inexact;
    round_unbounded(f, u, mode, &inexact);
    return inexact ? flag | PE : flag;
}

static uint64_t overflowed(const struct float_format *f, const struct unpacked *u, uint32_t csr, uint32_t *flags)
{
    unsigned mode = CSR_RC(csr);
    bool to_infinity = mode == TO_NEAREST || (mode == TO_DOWN ? u->sign : mode == TO_UP && !u->sign);
    *flags |= csr & CSR_OM ? OE | PE : unmasked_range(f, u, mode, OE);
    return to_infinity ? infinity(f) : infinity(f) - 1;
}

static void normalise(struct unpacked *u)
{
    while (!(u->sig >> TOP)) {
        u->sig <<= 1;
        u->e--;
    }
}

/* u is FINITE, normalised here. Rounds by csr's RC. Gives the result without its sign. */
static uint64_t pack_magnitude(const struct float_format *f, struct unpacked *u, uint32_t csr, bool *tiny,
                               uint32_t *flags)
{
    bool inexact;
    unsigned mode = CSR_RC(csr);
    normalise(u);
    int exponent = u->e + bias(f);
    *tiny = is_tiny(f, u, mode);
    wide_t sig = exponent > 0 ? u->sig : shift_right_jam(u->sig, 1 - exponent);
    uint64_t r = round_to(sig, TOP - f->mant, u->sign, mode, &inexact);
    if (exponent > 1)
        r += (uint64_t)(exponent - 1) << f->mant;
    if (r >= infinity(f))
        return overflowed(f, u, csr, flags);
    if (*tiny && !(csr & CSR_UM))
        *flags |= unmasked_range(f, u, mode, UE);
    else if (inexact)
        *flags |= *tiny ? UE | PE : PE;
    return r;
}

static uint64_t pack(const struct float_format *f, struct unpacked *u, uint32_t csr, uint32_t *flags)
{
    bool tiny;
    uint64_t sign = u->sign ? sign_bit(f) : 0, r = pack_magnitude(f, u, csr, &tiny, flags);
    if (tiny && csr & CSR_FTZ && csr & CSR_UM) {
        *flags |= UE | PE;
        r = 0;
    }
    return sign | r;
}

/* ---- fused multiply-add ---- */

static bool is_nan(const struct unpacked *u)
{
    return u->kind >= QUIET;
}

static uint64_t fma_nan(const struct float_format *f, const struct float_fma *op, const struct unpacked *x,
                        const struct unpacked *y, const struct unpacked *z, uint32_t *flags)
{
    if (x->kind == SIGNALING || y->kind == SIGNALING || z->kind == SIGNALING)
        *flags |= IE;
    return quieted(f, is_nan(x) ? op->x : is_nan(y) ? op->y : op->z);
}

static uint64_t invalid(const struct float_format *f, uint32_t *flags)
{
    *flags |= IE;
    return default_nan(f);
}

static uint64_t signed_zero(const struct float_format *f, bool sign)
{
    return sign ? sign_bit(f) : 0;
}

/* Both FINITE. The result's kind is ZERO if they cancel. */
static struct unpacked add(struct unpacked a, struct unpacked b)
{
    if (a.e < b.e || (a.e == b.e && a.sig < b.sig)) {
        struct unpacked t = a;
        a = b;
        b = t;
    }
    b.sig = shift_right_jam(b.sig, a.e - b.e);
    if (a.sign != b.sign) {
        a.sig -= b.sig;
        if (!a.sig)
            a.kind = ZERO;
        return a;
    }
    a.sig += b.sig;
    if (a.sig >> (TOP + 1)) {
        a.sig = shift_right_jam(a.sig, 1);
        a.e++;
    }
    return a;
}

/* Both FINITE; exact. */
static struct unpacked multiply(const struct float_format *f, const struct unpacked *x, const struct unpacked *y)
{
    wide_t p = (x->sig >> (TOP - f->mant)) * (y->sig >> (TOP - f->mant));
    struct unpacked r = {.kind = FINITE, .sign = x->sign != y->sign, .e = x->e + y->e};
    r.sig = p << (TOP - 2 * f->mant - 1);
    if (r.sig >> TOP)
        r.e++;
    else
        r.sig <<= 1;
    return r;
}

uint64_t float_soft_fma(const struct float_format *f, const struct float_fma *op, uint32_t csr, uint32_t *flags)
{
    bool daz = csr & CSR_DAZ;
    struct unpacked x = unpack(f, op->x, daz), y = unpack(f, op->y, daz), z = unpack(f, op->z, daz);
    bool no_product = (x.kind == INFINITE && y.kind == ZERO) || (x.kind == ZERO && y.kind == INFINITE);
    if (is_nan(&x) || is_nan(&y) || is_nan(&z))
        return fma_nan(f, op, &x, &y, &z, flags);
    if (no_product)
        return invalid(f, flags);
    x.sign ^= op->negate_product;
    z.sign ^= op->negate_z;
    bool sign = x.sign != y.sign, infinite = x.kind == INFINITE || y.kind == INFINITE;
    if (infinite && z.kind == INFINITE && sign != z.sign)
        return invalid(f, flags);
    if (x.denormal || y.denormal || z.denormal)
        *flags |= DE;
    if (infinite || z.kind == INFINITE)
        return signed_zero(f, infinite ? sign : z.sign) | infinity(f);
    bool down = CSR_RC(csr) == TO_DOWN;
    if (x.kind == ZERO || y.kind == ZERO) {
        if (z.kind == ZERO)
            return signed_zero(f, sign == z.sign ? sign : down);
        return pack(f, &z, csr, flags);
    }
    struct unpacked r = multiply(f, &x, &y);
    if (z.kind != ZERO)
        r = add(r, z);
    return r.kind == ZERO ? signed_zero(f, down) : pack(f, &r, csr, flags);
}

/* ---- half precision ---- */

static uint64_t nan_between(const struct float_format *to, const struct float_format *from, uint64_t x,
                            const struct unpacked *u, uint32_t *flags)
{
    uint64_t payload = x & ((1ull << from->mant) - 1);
    if (u->kind == SIGNALING)
        *flags |= IE;
    payload = to->mant > from->mant ? payload << (to->mant - from->mant) : payload >> (from->mant - to->mant);
    return quieted(to, signed_zero(to, u->sign) | infinity(to) | payload);
}

uint32_t float_soft_from_half(uint16_t x, uint32_t *flags)
{
    struct unpacked u = unpack(&float_half, x, false);
    uint32_t exact = 0;
    if (is_nan(&u))
        return (uint32_t)nan_between(&float_single, &float_half, x, &u, flags);
    if (u.kind != FINITE)
        return (uint32_t)(signed_zero(&float_single, u.sign) | (u.kind == INFINITE ? infinity(&float_single) : 0));
    return (uint32_t)pack(&float_single, &u, CSR_OM | CSR_UM, &exact);
}

uint16_t float_soft_to_half(uint32_t x, uint32_t csr, uint32_t *flags)
{
    struct unpacked u = unpack(&float_single, x, csr & CSR_DAZ);
    uint64_t sign = signed_zero(&float_half, u.sign);
    bool tiny;
    if (is_nan(&u))
        return (uint16_t)nan_between(&float_half, &float_single, x, &u, flags);
    if (u.kind != FINITE)
        return (uint16_t)(sign | (u.kind == INFINITE ? infinity(&float_half) : 0));
    if (u.denormal)
        *flags |= DE;
    return (uint16_t)(sign | pack_magnitude(&float_half, &u, csr, &tiny, flags));
}

/* ---- what is out of range ---- */

/* Both FINITE. Two bits more than the quotient needs, and whether there is a rest. */
static struct unpacked divide(const struct unpacked *x, const struct unpacked *y)
{
    struct unpacked r = {.kind = FINITE, .sign = x->sign != y->sign, .e = x->e - y->e};
    wide_t divisor = y->sig >> 63, q = x->sig / divisor; /* the divisor has at most 53 bits that are not 0 */
    r.sig = q << (TOP - 63) | (x->sig % divisor != 0);
    return r;
}

uint32_t float_soft_range(const struct float_format *f, enum float_operation op, uint64_t x, uint64_t y, uint32_t csr)
{
    const uint64_t one = (uint64_t)bias(f) << f->mant;
    struct float_fma fma = {.x = x, .y = one, .z = y, .negate_z = op == FLOAT_SUB};
    uint32_t flags = 0;
    if (op == FLOAT_MUL)
        fma = (struct float_fma){.x = x, .y = y, .z = 0};
    if (op == FLOAT_DIV) {
        struct unpacked a = unpack(f, x, csr & CSR_DAZ), b = unpack(f, y, csr & CSR_DAZ);
        if (a.kind != FINITE || b.kind != FINITE)
            return 0;
        a = divide(&a, &b);
        pack(f, &a, csr, &flags);
    } else if (op == FLOAT_NARROW) {
        struct unpacked u = unpack(&float_double, x, csr & CSR_DAZ);
        if (u.kind == FINITE)
            pack(&float_single, &u, csr, &flags);
    } else {
        float_soft_fma(f, &fma, csr, &flags);
    }
    return flags & (OE | UE | PE);
}
