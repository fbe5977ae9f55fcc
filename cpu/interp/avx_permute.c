/*
 * AVX instructions that move lanes between halves (SDM volume 2): broadcasts, insertion and extraction of halves,
 * permutations; and the tests of signs.
 */
#include "cpu/interp/avx.h"

/* A YMM register as lanes. */
union lanes {
    uint32_t d[8];
    uint64_t q[4];
    struct simd32 v;
};

#define HANDLER(name, ...)                                                                                             \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        __VA_ARGS__;                                                                                                   \
        NEXT_MEM(v, i);                                                                                                \
    }

static struct simd32 source_256(struct vcpu *v, const struct insn *i)
{
    return i->flags & INSN_RM_REG ? ymm_get(v, i->rm) : avx_load32(v, i);
}
static SIMD source_half(struct vcpu *v, const struct insn *i)
{
    return i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : avx_load16(v, i);
}
static void set_sized(struct vcpu *v, const struct insn *i, SIMD x)
{
    if (i->opsize == 32)
        ymm_set(v, i->reg, (struct simd32){{x, x}});
    else
        ymm_set_low(v, i->reg, x);
}

/* ---- broadcasts of one element, which is srcsize bytes ---- */

static void broadcast_element(struct vcpu *v, const struct insn *i)
{
    uint64_t e =
        i->flags & INSN_RM_REG ? v->xmm[i->rm].q[0] : lin_load(v, i, insn_linear(v, i, i->srcsize, 0), i->srcsize);
    if (i->srcsize == 1)
        e = (uint8_t)e * 0x0101010101010101ull;
    else if (i->srcsize == 2)
        e = (uint16_t)e * 0x0001000100010001ull;
    else if (i->srcsize == 4)
        e = (uint32_t)e * 0x0000000100000001ull;
    set_sized(v, i, (SIMD){.q = {e, e}});
}
HANDLER(broadcast, broadcast_element(v, i))
HANDLER(broadcast_128, set_sized(v, i, avx_load16(v, i)))

/* ---- halves ---- */

static void insert_half(struct vcpu *v, const struct insn *i)
{
    SIMD b = source_half(v, i);
    struct simd32 a = ymm_get(v, i->vvvv);
    a.half[i->imm & 1] = b;
    ymm_set(v, i->reg, a);
}
static void extract_half(struct vcpu *v, const struct insn *i)
{
    SIMD x = ymm_half(v, i->reg, i->imm & 1);
    if (i->flags & INSN_RM_REG)
        ymm_set_low(v, i->rm, x);
    else
        sse_write(v, i, insn_linear(v, i, 16, 1), &x, 16);
}
static SIMD chosen_half(const struct simd32 *a, const struct simd32 *b, unsigned n)
{
    return n & 8 ? (SIMD){.q = {0, 0}} : (n & 2 ? b : a)->half[n & 1];
}
static void permute_halves(struct vcpu *v, const struct insn *i)
{
    struct simd32 b = source_256(v, i), a = ymm_get(v, i->vvvv);
    unsigned n = (unsigned)i->imm;
    ymm_set(v, i->reg, (struct simd32){{chosen_half(&a, &b, n), chosen_half(&a, &b, n >> 4)}});
}
HANDLER(insert_128, insert_half(v, i))
HANDLER(extract_128, extract_half(v, i))
HANDLER(permute_128, permute_halves(v, i))

/* ---- lanes ---- */

static void permute_by_index(struct vcpu *v, const struct insn *i)
{
    union lanes b = {.v = source_256(v, i)}, a = {.v = ymm_get(v, i->vvvv)}, r;
    for (unsigned k = 0; k < 8; k++)
        r.d[k] = b.d[a.d[k] & 7];
    ymm_set(v, i->reg, r.v);
}
static void permute_by_imm(struct vcpu *v, const struct insn *i)
{
    union lanes b = {.v = source_256(v, i)}, r;
    for (unsigned k = 0; k < 4; k++)
        r.q[k] = b.q[i->imm >> 2 * k & 3];
    ymm_set(v, i->reg, r.v);
}
HANDLER(permute_d, permute_by_index(v, i))
HANDLER(permute_q, permute_by_imm(v, i))

/* ---- tests: ZF if a and b have none of the bits in `mask` in common, CF if b has none that a lacks ---- */

static void test_bits(struct vcpu *v, const struct insn *i, uint64_t mask)
{
    union lanes a = {.v = ymm_get(v, i->reg)}, b = {.q = {0}};
    uint64_t both = 0, alone = 0;
    if (i->opsize == 32)
        b.v = source_256(v, i);
    else
        b.v.half[0] = source_half(v, i);
    for (unsigned k = 0; k < i->opsize / 8u; k++) {
        both |= a.q[k] & b.q[k];
        alone |= ~a.q[k] & b.q[k];
    }
    flags_set_image(v, (both & mask ? 0 : FLAG_ZF) | (alone & mask ? 0 : FLAG_CF));
}
HANDLER(ptest, test_bits(v, i, ~0ull))
HANDLER(testps, test_bits(v, i, 0x8000000080000000))
HANDLER(testpd, test_bits(v, i, 0x8000000000000000))

op_fn *bind_avx_permute(const struct insn *i)
{
    switch (i->op) {
    case OP_VBROADCASTSS:
    case OP_VBROADCASTSD:
    case OP_VPBROADCASTB:
    case OP_VPBROADCASTW:
    case OP_VPBROADCASTD:
    case OP_VPBROADCASTQ:
        return broadcast;
    case OP_VBROADCASTF128:
    case OP_VBROADCASTI128:
        return broadcast_128;
    case OP_VINSERTF128:
    case OP_VINSERTI128:
        return insert_128;
    case OP_VEXTRACTF128:
    case OP_VEXTRACTI128:
        return extract_128;
    case OP_VPERM2F128:
    case OP_VPERM2I128:
        return permute_128;
    case OP_VPERMD:
    case OP_VPERMPS:
        return permute_d;
    case OP_VPERMQ:
    case OP_VPERMPD:
        return permute_q;
    case OP_VPTEST:
        return ptest;
    case OP_VTESTPS:
        return testps;
    case OP_VTESTPD:
        return testpd;
    default:
        return NULL;
    }
}
