/*
 * MMX: the 64-bit forms of integer SIMD (SDM volume 2, volume 3 chapter 12). MMn is the significand of physical
 * register Rn; every instruction but EMMS makes R0 the top of the stack and all registers valid, and a write sets the
 * exponent's bits.
 */
#include "cpu/interp/sse.h"

#define SIMD     union simd8
#define FN(name) m_##name
#include "cpu/interp/simd_tmpl.h"

static inline SIMD mm_get(const struct vcpu *v, unsigned n)
{
    return (SIMD){.q = {v->fpu.st[n].mant}};
}

#define OWN_NAMED(X)                                                                                                   \
    X(PACKSSWB)                                                                                                        \
    X(PACKUSWB)                                                                                                        \
    X(PACKSSDW)                                                                                                        \
    X(PUNPCKHBW)                                                                                                       \
    X(PUNPCKHWD)                                                                                                       \
    X(PUNPCKHDQ)                                                                                                       \
    X(PSRLW)                                                                                                           \
    X(PSRLD)                                                                                                           \
    X(PSRLQ)                                                                                                           \
    X(PSLLW)                                                                                                           \
    X(PSLLD)                                                                                                           \
    X(PSLLQ)                                                                                                           \
    X(PSRAW)                                                                                                           \
    X(PSRAD)                                                                                                           \
    X(PMADDWD) X(PMULUDQ) X(PSADBW) X(PSHUFB) X(PHADDW) X(PHADDD) X(PHADDSW) X(PHSUBW) X(PHSUBD) X(PHSUBSW) X(PMADDUBSW)
/* Of a memory operand they read the lower half only. */
#define HALF_NAMED(X) X(PUNPCKLBW) X(PUNPCKLWD) X(PUNPCKLDQ)

#define HANDLERS_SIZED(name, bits)                                                                                     \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        mmx_need(v, i);                                                                                                \
        mmx_enter(v);                                                                                                  \
        mmx_set(v, i->reg, m_##name(mm_get(v, i->reg), mm_get(v, i->rm)).q[0]);                                        \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        mmx_need(v, i);                                                                                                \
        SIMD m = {.q = {lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0))}};                                      \
        mmx_enter(v);                                                                                                  \
        mmx_set(v, i->reg, m_##name(mm_get(v, i->reg), m).q[0]);                                                       \
        NEXT_MEM(v, i);                                                                                                \
    }
#define HANDLERS(name)      HANDLERS_SIZED(name, 64)
#define HANDLERS_HALF(name) HANDLERS_SIZED(name, 32)
#define V(name, lane, ...)  HANDLERS(name)
#include "cpu/interp/simd_ops.def"
#undef V
OWN_NAMED(HANDLERS)
HALF_NAMED(HANDLERS_HALF)

struct two_forms {
    op_fn *r, *m;
};

#define ENTRY(name) [OP_##name] = {name##_r, name##_m},
static const struct two_forms plain[OP_COUNT] = {
#define V(name, lane, ...) ENTRY(name)
#include "cpu/interp/simd_ops.def"
#undef V
    OWN_NAMED(ENTRY) HALF_NAMED(ENTRY)};

#define MMX_REG(name, ...)                                                                                             \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        mmx_need(v, i);                                                                                                \
        mmx_enter(v);                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        NEXT(v, i);                                                                                                    \
    }

/* ---- shifts by an immediate ---- */

#define SHIFTS(X)           X(PSRLW) X(PSRLD) X(PSRLQ) X(PSLLW) X(PSLLD) X(PSLLQ) X(PSRAW) X(PSRAD)
#define SHIFT_HANDLER(name) MMX_REG(name##_i, mmx_set(v, i->rm, m_##name##_n(mm_get(v, i->rm), i->imm).q[0]))
SHIFTS(SHIFT_HANDLER)

static op_fn *bind_shift_imm(unsigned op)
{
    switch (op) {
#define SHIFT_CASE(name)                                                                                               \
    case OP_##name:                                                                                                    \
        return name##_i;
        SHIFTS(SHIFT_CASE)
    default:
        return NULL;
    }
}

/* ---- moves ---- */

#define MMX_LOAD(name, bits, ...)                                                                                      \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        mmx_need(v, i);                                                                                                \
        uint##bits##_t m = lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0));                                     \
        mmx_enter(v);                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        NEXT_MEM(v, i);                                                                                                \
    }
#define MMX_STORE(name, bits)                                                                                          \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        mmx_need(v, i);                                                                                                \
        lin_store##bits(v, i, insn_linear(v, i, (bits) / 8, 1), (uint##bits##_t)v->fpu.st[i->reg].mant);               \
        mmx_enter(v);                                                                                                  \
        NEXT_MEM(v, i);                                                                                                \
    }

MMX_LOAD(load_64, 64, mmx_set(v, i->reg, m))
MMX_LOAD(load_32, 32, mmx_set(v, i->reg, m))
MMX_STORE(store_64, 64)
MMX_STORE(store_32, 32)
MMX_REG(copy_rm, mmx_set(v, i->reg, v->fpu.st[i->rm].mant))
MMX_REG(copy_mr, mmx_set(v, i->rm, v->fpu.st[i->reg].mant))
MMX_REG(from_gpr_32, mmx_set(v, i->reg, (uint32_t)v->gpr[i->rm]))
MMX_REG(from_gpr_64, mmx_set(v, i->reg, v->gpr[i->rm]))
MMX_REG(to_gpr_32, v->gpr[i->rm] = (uint32_t)v->fpu.st[i->reg].mant)
MMX_REG(to_gpr_64, v->gpr[i->rm] = v->fpu.st[i->reg].mant)

static op_fn *bind_movd(const struct insn *i)
{
    bool is_load = i->enc == ENC_RM, wide = i->srcsize == 8;
    if (!(i->flags & INSN_RM_REG))
        return wide ? (is_load ? load_64 : store_64) : (is_load ? load_32 : store_32);
    return wide ? (is_load ? from_gpr_64 : to_gpr_64) : (is_load ? from_gpr_32 : to_gpr_32);
}

static op_fn *bind_movq(const struct insn *i)
{
    bool is_load = i->enc == ENC_RM;
    if (i->flags & INSN_RM_REG)
        return is_load ? copy_rm : copy_mr;
    return is_load ? load_64 : store_64;
}

/* With an XMM register on the other side SSE must be available too. */
static void movq2dq(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    mmx_need(v, i);
    mmx_enter(v);
    xmm_set(v, i->reg, (union simd16){.q = {v->fpu.st[i->rm & 7].mant, 0}});
    NEXT(v, i);
}

static void movdq2q(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    mmx_need(v, i);
    mmx_enter(v);
    mmx_set(v, i->reg & 7, v->xmm[i->rm].q[0]);
    NEXT(v, i);
}

/* ---- the rest ---- */

static inline uint64_t shuffle_words(SIMD b, unsigned n)
{
    return (SIMD){.w = {b.w[n & 3], b.w[n >> 2 & 3], b.w[n >> 4 & 3], b.w[n >> 6 & 3]}}.q[0];
}
static inline uint64_t insert_word(SIMD a, unsigned n, uint16_t x)
{
    a.w[n & 3] = x;
    return a.q[0];
}

MMX_REG(pshufw_r, mmx_set(v, i->reg, shuffle_words(mm_get(v, i->rm), (unsigned)i->imm)))
MMX_LOAD(pshufw_m, 64, mmx_set(v, i->reg, shuffle_words((SIMD){.q = {m}}, (unsigned)i->imm)))
MMX_REG(pinsrw_r, mmx_set(v, i->reg, insert_word(mm_get(v, i->reg), (unsigned)i->imm, (uint16_t)v->gpr[i->rm])))
MMX_LOAD(pinsrw_m, 16, mmx_set(v, i->reg, insert_word(mm_get(v, i->reg), (unsigned)i->imm, m)))
MMX_REG(pextrw, v->gpr[i->reg] = mm_get(v, i->rm).w[i->imm & 3])
MMX_REG(pmovmskb, v->gpr[i->reg] = byte_signs(v->fpu.st[i->rm].mant))

MMX_REG(palignr_r, mmx_set(v, i->reg, m_PALIGNR(mm_get(v, i->reg), mm_get(v, i->rm), (unsigned)i->imm).q[0]))
MMX_LOAD(palignr_m, 64, mmx_set(v, i->reg, m_PALIGNR(mm_get(v, i->reg), (SIMD){.q = {m}}, (unsigned)i->imm).q[0]))

static void maskmovq(struct vcpu *v, const struct insn *i)
{
    mmx_need(v, i);
    SIMD data = mm_get(v, i->reg);
    sse_store_masked(v, i, data.b, 8, byte_signs(v->fpu.st[i->rm].mant));
    mmx_enter(v);
    NEXT_MEM(v, i);
}

op_fn *bind_mmx(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG;
    op_fn *fn;
    if (i->op == OP_MOVQ2DQ)
        return movq2dq;
    if (i->opsize != 8 || i->flags & INSN_VEX)
        return NULL;
    if (i->enc == ENC_MI)
        return bind_shift_imm(i->op);
    if ((fn = reg ? plain[i->op].r : plain[i->op].m))
        return fn;
    switch (i->op) {
    case OP_MOVD:
        return bind_movd(i);
    case OP_MOVQ:
    case OP_MOVNTQ:
        return bind_movq(i);
    case OP_MOVDQ2Q:
        return movdq2q;
    case OP_PSHUFW:
        return reg ? pshufw_r : pshufw_m;
    case OP_PALIGNR:
        return reg ? palignr_r : palignr_m;
    case OP_PINSRW:
        return reg ? pinsrw_r : pinsrw_m;
    case OP_PEXTRW:
        return pextrw;
    case OP_PMOVMSKB:
        return pmovmskb;
    case OP_MASKMOVQ:
        return maskmovq;
    default:
        return NULL;
    }
}
