/*
 * AESNI, PCLMULQDQ and SHA (SDM volume 2), with the VEX.128 forms of the first two, in portable C.
 */
#include "cpu/interp/vec.h"

/* ---- AES (FIPS 197): a state is 16 bytes, column by column ---- */

static const uint8_t sub_byte[256] = {
    0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b, 0xfe, 0xd7, 0xab, 0x76, 0xca, 0x82, 0xc9,
    0x7d, 0xfa, 0x59, 0x47, 0xf0, 0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0, 0xb7, 0xfd, 0x93, 0x26, 0x36, 0x3f,
    0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15, 0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07,
    0x12, 0x80, 0xe2, 0xeb, 0x27, 0xb2, 0x75, 0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0, 0x52, 0x3b, 0xd6, 0xb3,
    0x29, 0xe3, 0x2f, 0x84, 0x53, 0xd1, 0x00, 0xed, 0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58,
    0xcf, 0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f, 0x50, 0x3c, 0x9f, 0xa8, 0x51, 0xa3,
    0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5, 0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2, 0xcd, 0x0c, 0x13, 0xec, 0x5f,
    0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73, 0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88,
    0x46, 0xee, 0xb8, 0x14, 0xde, 0x5e, 0x0b, 0xdb, 0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c, 0xc2, 0xd3, 0xac,
    0x62, 0x91, 0x95, 0xe4, 0x79, 0xe7, 0xc8, 0x37, 0x6d, 0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a,
    0xae, 0x08, 0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f, 0x4b, 0xbd, 0x8b, 0x8a, 0x70,
    0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e, 0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e, 0xe1, 0xf8, 0x98, 0x11,
    0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf, 0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42,
    0x68, 0x41, 0x99, 0x2d, 0x0f, 0xb0, 0x54, 0xbb, 0x16};
static const uint8_t sub_byte_inverse[256] = {
    0x52, 0x09, 0x6a, 0xd5, 0x30, 0x36, 0xa5, 0x38, 0xbf, 0x40, 0xa3, 0x9e, 0x81, 0xf3, 0xd7, 0xfb, 0x7c, 0xe3, 0x39,
    0x82, 0x9b, 0x2f, 0xff, 0x87, 0x34, 0x8e, 0x43, 0x44, 0xc4, 0xde, 0xe9, 0xcb, 0x54, 0x7b, 0x94, 0x32, 0xa6, 0xc2,
    0x23, 0x3d, 0xee, 0x4c, 0x95, 0x0b, 0x42, 0xfa, 0xc3, 0x4e, 0x08, 0x2e, 0xa1, 0x66, 0x28, 0xd9, 0x24, 0xb2, 0x76,
    0x5b, 0xa2, 0x49, 0x6d, 0x8b, 0xd1, 0x25, 0x72, 0xf8, 0xf6, 0x64, 0x86, 0x68, 0x98, 0x16, 0xd4, 0xa4, 0x5c, 0xcc,
    0x5d, 0x65, 0xb6, 0x92, 0x6c, 0x70, 0x48, 0x50, 0xfd, 0xed, 0xb9, 0xda, 0x5e, 0x15, 0x46, 0x57, 0xa7, 0x8d, 0x9d,
    0x84, 0x90, 0xd8, 0xab, 0x00, 0x8c, 0xbc, 0xd3, 0x0a, 0xf7, 0xe4, 0x58, 0x05, 0xb8, 0xb3, 0x45, 0x06, 0xd0, 0x2c,
    0x1e, 0x8f, 0xca, 0x3f, 0x0f, 0x02, 0xc1, 0xaf, 0xbd, 0x03, 0x01, 0x13, 0x8a, 0x6b, 0x3a, 0x91, 0x11, 0x41, 0x4f,
    0x67, 0xdc, 0xea, 0x97, 0xf2, 0xcf, 0xce, 0xf0, 0xb4, 0xe6, 0x73, 0x96, 0xac, 0x74, 0x22, 0xe7, 0xad, 0x35, 0x85,
    0xe2, 0xf9, 0x37, 0xe8, 0x1c, 0x75, 0xdf, 0x6e, 0x47, 0xf1, 0x1a, 0x71, 0x1d, 0x29, 0xc5, 0x89, 0x6f, 0xb7, 0x62,
    0x0e, 0xaa, 0x18, 0xbe, 0x1b, 0xfc, 0x56, 0x3e, 0x4b, 0xc6, 0xd2, 0x79, 0x20, 0x9a, 0xdb, 0xc0, 0xfe, 0x78, 0xcd,
    0x5a, 0xf4, 0x1f, 0xdd, 0xa8, 0x33, 0x88, 0x07, 0xc7, 0x31, 0xb1, 0x12, 0x10, 0x59, 0x27, 0x80, 0xec, 0x5f, 0x60,
    0x51, 0x7f, 0xa9, 0x19, 0xb5, 0x4a, 0x0d, 0x2d, 0xe5, 0x7a, 0x9f, 0x93, 0xc9, 0x9c, 0xef, 0xa0, 0xe0, 0x3b, 0x4d,
    0xae, 0x2a, 0xf5, 0xb0, 0xc8, 0xeb, 0xbb, 0x3c, 0x83, 0x53, 0x99, 0x61, 0x17, 0x2b, 0x04, 0x7e, 0xba, 0x77, 0xd6,
    0x26, 0xe1, 0x69, 0x14, 0x63, 0x55, 0x21, 0x0c, 0x7d};

/* ShiftRows (rows go left, so byte k comes from 5 k), SubBytes. */
static SIMD shift_and_sub(SIMD a)
{
    SIMD r;
    for (unsigned k = 0; k < 16; k++)
        r.b[k] = sub_byte[a.b[5 * k & 15]];
    return r;
}
static SIMD shift_and_sub_inverse(SIMD a)
{
    SIMD r;
    for (unsigned k = 0; k < 16; k++)
        r.b[k] = sub_byte_inverse[a.b[13 * k & 15]];
    return r;
}

/* Four bytes at once: times x modulo x^8 + x^4 + x^3 + x + 1. */
static uint32_t times_x(uint32_t w)
{
    return (w & 0x7f7f7f7f) << 1 ^ (w >> 7 & 0x01010101) * 0x1b;
}
static uint32_t rotate_right(uint32_t w, unsigned n)
{
    return w >> n | w << (32 - n);
}
/* Byte r of the result is 2 b[r] + 3 b[r+1] + b[r+2] + b[r+3]. */
static uint32_t mix_column(uint32_t w)
{
    uint32_t w2 = times_x(w), next = w2 ^ w;
    return w2 ^ rotate_right(next, 8) ^ rotate_right(w, 16) ^ rotate_right(w, 24);
}
/* The inverse is the same after multiplying by 4 (b[r] + b[r+2]) + b[r]. */
static uint32_t mix_column_inverse(uint32_t w)
{
    uint32_t w4 = times_x(times_x(w));
    return mix_column(w ^ w4 ^ rotate_right(w4, 16));
}
static SIMD mix(SIMD a)
{
    return (SIMD){.d = {mix_column(a.d[0]), mix_column(a.d[1]), mix_column(a.d[2]), mix_column(a.d[3])}};
}
static SIMD mix_inverse(SIMD a)
{
    return (SIMD){.d = {mix_column_inverse(a.d[0]), mix_column_inverse(a.d[1]), mix_column_inverse(a.d[2]),
                        mix_column_inverse(a.d[3])}};
}

static SIMD x_AESENC(SIMD a, SIMD key)
{
    return x_PXOR(mix(shift_and_sub(a)), key);
}
static SIMD x_AESENCLAST(SIMD a, SIMD key)
{
    return x_PXOR(shift_and_sub(a), key);
}
static SIMD x_AESDEC(SIMD a, SIMD key)
{
    return x_PXOR(mix_inverse(shift_and_sub_inverse(a)), key);
}
static SIMD x_AESDECLAST(SIMD a, SIMD key)
{
    return x_PXOR(shift_and_sub_inverse(a), key);
}

static uint32_t sub_word(uint32_t w)
{
    return (uint32_t)sub_byte[w & 255] | (uint32_t)sub_byte[w >> 8 & 255] << 8 |
           (uint32_t)sub_byte[w >> 16 & 255] << 16 | (uint32_t)sub_byte[w >> 24] << 24;
}
static SIMD x_AESKEYGENASSIST(SIMD b, unsigned rcon)
{
    uint32_t x1 = sub_word(b.d[1]), x3 = sub_word(b.d[3]);
    return (SIMD){.d = {x1, rotate_right(x1, 8) ^ rcon, x3, rotate_right(x3, 8) ^ rcon}};
}

/* ---- carry-less multiplication, four bits of one factor at a time ---- */

static SIMD x_PCLMULQDQ(SIMD a, SIMD b, unsigned n)
{
    uint64_t x = a.q[n & 1], y = b.q[n >> 4 & 1];
    unsigned __int128 times[16] = {0, x}, r = 0;
    for (unsigned k = 2; k < 16; k += 2) {
        times[k] = times[k / 2] << 1;
        times[k + 1] = times[k] ^ x;
    }
    for (int k = 60; k >= 0; k -= 4)
        r = r << 4 ^ times[y >> k & 15];
    return (SIMD){.q = {(uint64_t)r, (uint64_t)(r >> 64)}};
}

/* ---- SHA (FIPS 180-4); the manual numbers words from the highest lane of a vector down ---- */

static uint32_t rotate_left(uint32_t w, unsigned n)
{
    return w << n | w >> (32 - n);
}
static uint32_t choose(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) ^ (~x & z);
}
static uint32_t majority(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) ^ (x & z) ^ (y & z);
}

static SIMD x_SHA1NEXTE(SIMD a, SIMD b)
{
    b.d[3] += rotate_left(a.d[3], 30);
    return b;
}
static SIMD x_SHA1MSG1(SIMD a, SIMD b)
{
    return (SIMD){.d = {a.d[0] ^ b.d[2], a.d[1] ^ b.d[3], a.d[2] ^ a.d[0], a.d[3] ^ a.d[1]}};
}
static SIMD x_SHA1MSG2(SIMD a, SIMD b)
{
    uint32_t w16 = rotate_left(a.d[3] ^ b.d[2], 1), w17 = rotate_left(a.d[2] ^ b.d[1], 1);
    uint32_t w18 = rotate_left(a.d[1] ^ b.d[0], 1);
    return (SIMD){.d = {rotate_left(a.d[0] ^ w16, 1), w18, w17, w16}};
}

static SIMD x_SHA1RNDS4(SIMD a, SIMD b, unsigned n)
{
    static const uint32_t constant[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t ra = a.d[3], rb = a.d[2], rc = a.d[1], rd = a.d[0], re = 0;
    n &= 3;
    for (int k = 3; k >= 0; k--) {
        uint32_t f = n == 0 ? choose(rb, rc, rd) : n == 2 ? majority(rb, rc, rd) : rb ^ rc ^ rd;
        uint32_t t = f + rotate_left(ra, 5) + b.d[k] + re + constant[n];
        re = rd;
        rd = rc;
        rc = rotate_left(rb, 30);
        rb = ra;
        ra = t;
    }
    return (SIMD){.d = {rd, rc, rb, ra}};
}

static SIMD x_SHA256RNDS2(SIMD old, SIMD b, SIMD wk)
{
    uint32_t ra = b.d[3], rb = b.d[2], re = b.d[1], rf = b.d[0];
    uint32_t rc = old.d[3], rd = old.d[2], rg = old.d[1], rh = old.d[0];
    for (unsigned k = 0; k < 2; k++) {
        uint32_t s1 = rotate_right(re, 6) ^ rotate_right(re, 11) ^ rotate_right(re, 25);
        uint32_t s0 = rotate_right(ra, 2) ^ rotate_right(ra, 13) ^ rotate_right(ra, 22);
        uint32_t t = choose(re, rf, rg) + s1 + wk.d[k] + rh;
        rh = rg;
        rg = rf;
        rf = re;
        re = t + rd;
        rd = rc;
        t += majority(ra, rb, rc) + s0;
        rc = rb;
        rb = ra;
        ra = t;
    }
    return (SIMD){.d = {rf, re, rb, ra}};
}

static uint32_t sigma0(uint32_t w)
{
    return rotate_right(w, 7) ^ rotate_right(w, 18) ^ w >> 3;
}
static uint32_t sigma1(uint32_t w)
{
    return rotate_right(w, 17) ^ rotate_right(w, 19) ^ w >> 10;
}
static SIMD x_SHA256MSG1(SIMD a, SIMD b)
{
    return (SIMD){
        .d = {a.d[0] + sigma0(a.d[1]), a.d[1] + sigma0(a.d[2]), a.d[2] + sigma0(a.d[3]), a.d[3] + sigma0(b.d[0])}};
}
static SIMD x_SHA256MSG2(SIMD a, SIMD b)
{
    uint32_t w16 = a.d[0] + sigma1(b.d[2]), w17 = a.d[1] + sigma1(b.d[3]);
    return (SIMD){.d = {w16, w17, a.d[2] + sigma1(w16), a.d[3] + sigma1(w17)}};
}

/* ---- handlers ---- */

#define CRYPTO(F)                                                                                                      \
    F(AESENC, x_AESENC(a, b))                                                                                          \
    F(AESENCLAST, x_AESENCLAST(a, b))                                                                                  \
    F(AESDEC, x_AESDEC(a, b))                                                                                          \
    F(AESDECLAST, x_AESDECLAST(a, b))                                                                                  \
    F(AESIMC, mix_inverse(b))                                                                                          \
    F(AESKEYGENASSIST, x_AESKEYGENASSIST(b, n))                                                                        \
    F(PCLMULQDQ, x_PCLMULQDQ(a, b, n))
#define HASH(F)                                                                                                        \
    F(SHA1NEXTE, x_SHA1NEXTE(a, b))                                                                                    \
    F(SHA1MSG1, x_SHA1MSG1(a, b))                                                                                      \
    F(SHA1MSG2, x_SHA1MSG2(a, b))                                                                                      \
    F(SHA1RNDS4, x_SHA1RNDS4(a, b, n))                                                                                 \
    F(SHA256RNDS2, x_SHA256RNDS2(a, b, xmm_get(v, 0)))                                                                 \
    F(SHA256MSG1, x_SHA256MSG1(a, b))                                                                                  \
    F(SHA256MSG2, x_SHA256MSG2(a, b))

#define HANDLER(name, ...)                                                                                             \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        vec_need(v, i);                                                                                                \
        const SIMD b = vec_source(v, i), a = vec_first(v, i);                                                          \
        const unsigned n = (unsigned)i->imm;                                                                           \
        (void)a, (void)n;                                                                                              \
        vec_set(v, i, i->reg, __VA_ARGS__);                                                                            \
        NEXT_MEM(v, i);                                                                                                \
    }
CRYPTO(HANDLER)
HASH(HANDLER)

op_fn *bind_sse_crypto(const struct insn *i)
{
    switch (i->op) {
#define CRYPTO_CASE(name, ...)                                                                                         \
    case OP_##name:                                                                                                    \
    case OP_V##name:                                                                                                   \
        return name;
        CRYPTO(CRYPTO_CASE)
#define HASH_CASE(name, ...)                                                                                           \
    case OP_##name:                                                                                                    \
        return name;
        HASH(HASH_CASE)
    default:
        return NULL;
    }
}
