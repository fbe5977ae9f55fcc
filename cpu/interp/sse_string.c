/*
 * PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM and their VEX forms (SDM volume 2, section 4.1): strings of bytes or words
 * in two vectors, compared in one of four ways into a mask of bits, from which index, mask and flags follow. Memory
 * operands have no alignment.
 */
#include "cpu/interp/vec.h"

struct strings {
    int a[16], b[16];
    unsigned n;      /* elements in a vector */
    unsigned la, lb; /* valid ones */
};

static void unpack(int *to, SIMD x, unsigned control)
{
    for (unsigned k = 0; k < 16; k++)
        if (!(control & 1))
            to[k] = control & 2 ? x.sb[k] : x.b[k];
        else if (k < 8)
            to[k] = control & 2 ? x.sw[k] : x.w[k];
}

static unsigned length_implicit(const int *s, unsigned n)
{
    unsigned k = 0;
    while (k < n && s[k])
        k++;
    return k;
}

/* The absolute value of the register, at most n. */
static unsigned length_explicit(const struct vcpu *v, const struct insn *i, unsigned reg, unsigned n)
{
    bool wide = i->flags & INSN_W && v->mode & MODE_CODE64; /* VEX.W means nothing elsewhere */
    int64_t x = wide ? (int64_t)v->gpr[reg] : (int32_t)v->gpr[reg];
    uint64_t size = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
    return size < n ? (unsigned)size : n;
}

/* ---- the four ways; each gives bit j for element j of b ---- */

static unsigned compare_any(const struct strings *s)
{
    unsigned r = 0;
    for (unsigned j = 0; j < s->lb; j++)
        for (unsigned k = 0; k < s->la; k++)
            if (s->a[k] == s->b[j])
                r |= 1u << j;
    return r;
}

static unsigned compare_ranges(const struct strings *s)
{
    unsigned r = 0;
    for (unsigned j = 0; j < s->lb; j++)
        for (unsigned k = 0; k + 1 < s->la; k += 2)
            if (s->a[k] <= s->b[j] && s->b[j] <= s->a[k + 1])
                r |= 1u << j;
    return r;
}

static unsigned compare_each(const struct strings *s)
{
    unsigned r = 0;
    for (unsigned j = 0; j < s->n; j++)
        if (j < s->la && j < s->lb ? s->a[j] == s->b[j] : j >= s->la && j >= s->lb)
            r |= 1u << j;
    return r;
}

/* Does a stand in b from j on, as far as the vector goes? */
static bool stands_at(const struct strings *s, unsigned j)
{
    for (unsigned k = 0; k < s->la && j + k < s->n; k++)
        if (j + k >= s->lb || s->a[k] != s->b[j + k])
            return false;
    return true;
}

static unsigned compare_ordered(const struct strings *s)
{
    unsigned r = 0;
    for (unsigned j = 0; j < s->n; j++)
        if (stands_at(s, j))
            r |= 1u << j;
    return r;
}

static unsigned compare(const struct strings *s, unsigned control)
{
    unsigned all = (1u << s->n) - 1, r;
    switch (control >> 2 & 3) {
    case 0:
        r = compare_any(s);
        break;
    case 1:
        r = compare_ranges(s);
        break;
    case 2:
        r = compare_each(s);
        break;
    default:
        r = compare_ordered(s);
        break;
    }
    if (control & 0x10)
        r ^= control & 0x20 ? (1u << s->lb) - 1 : all;
    return r;
}

/* ---- results ---- */

static void set_index(struct vcpu *v, const struct strings *s, unsigned r, bool last)
{
    if (!r)
        v->gpr[REG_RCX] = s->n;
    else
        v->gpr[REG_RCX] = last ? 31u - (unsigned)__builtin_clz(r) : (unsigned)__builtin_ctz(r);
}

static void set_mask(struct vcpu *v, const struct insn *i, const struct strings *s, unsigned r)
{
    SIMD m = {.q = {r, 0}};
    if (i->imm & 0x40)
        for (unsigned k = 0; k < 16; k++)
            m.b[k] = r >> (s->n == 8 ? k / 2 : k) & 1 ? 0xff : 0;
    vec_set(v, i, 0, m);
}

static void compare_strings(struct vcpu *v, const struct insn *i, bool is_explicit, bool mask)
{
    vec_need(v, i);
    unsigned control = (unsigned)i->imm;
    struct strings s = {.n = control & 1 ? 8 : 16};
    unpack(s.b, i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : avx_load16(v, i), control);
    unpack(s.a, xmm_get(v, i->reg), control);
    s.la = is_explicit ? length_explicit(v, i, REG_RAX, s.n) : length_implicit(s.a, s.n);
    s.lb = is_explicit ? length_explicit(v, i, REG_RDX, s.n) : length_implicit(s.b, s.n);
    unsigned r = compare(&s, control);
    if (mask)
        set_mask(v, i, &s, r);
    else
        set_index(v, &s, r, control & 0x40);
    flags_set_image(v, (r ? FLAG_CF : 0) | (s.lb < s.n ? FLAG_ZF : 0) | (s.la < s.n ? FLAG_SF : 0) |
                           (r & 1 ? FLAG_OF : 0));
}

#define STRING_HANDLER(name, is_explicit, mask)                                                                        \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        compare_strings(v, i, is_explicit, mask);                                                                      \
        NEXT_MEM(v, i);                                                                                                \
    }
STRING_HANDLER(pcmpestri, true, false)
STRING_HANDLER(pcmpestrm, true, true)
STRING_HANDLER(pcmpistri, false, false)
STRING_HANDLER(pcmpistrm, false, true)

op_fn *bind_sse_string(const struct insn *i)
{
    switch (i->op) {
    case OP_PCMPESTRI:
    case OP_VPCMPESTRI:
        return pcmpestri;
    case OP_PCMPESTRM:
    case OP_VPCMPESTRM:
        return pcmpestrm;
    case OP_PCMPISTRI:
    case OP_VPCMPISTRI:
        return pcmpistri;
    case OP_PCMPISTRM:
    case OP_VPCMPISTRM:
        return pcmpistrm;
    default:
        return NULL;
    }
}
