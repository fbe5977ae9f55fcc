/*
 * Integer instructions on XMM registers (SDM volume 2: exception types 4 and 7), the logic of PS and PD included, which
 * is the same; and shuffles, which know no types either.
 */
#include "cpu/interp/simd16.h"

/* One source of 16 aligned bytes in memory. */
#define HANDLERS(name, ...)                                                                                            \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        const SIMD a = xmm_get(v, i->reg), b = xmm_get(v, i->rm);                                                      \
        const unsigned n = (unsigned)i->imm;                                                                           \
        (void)a, (void)n;                                                                                              \
        xmm_set(v, i->reg, __VA_ARGS__);                                                                               \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        const SIMD b = sse_load16(v, i), a = xmm_get(v, i->reg);                                                       \
        const unsigned n = (unsigned)i->imm;                                                                           \
        (void)a, (void)n;                                                                                              \
        xmm_set(v, i->reg, __VA_ARGS__);                                                                               \
        NEXT_MEM(v, i);                                                                                                \
    }
#define C                     xmm_get(v, 0)
#define V(name, lane, ...)    HANDLERS(name, x_##name(a, b))
#define VEC(name, shift, ...) HANDLERS(name, __VA_ARGS__)
#define LOW(name, ...)        HANDLERS(name, __VA_ARGS__)
#define SHIFTS_BY(X)          X(PSRLW) X(PSRLD) X(PSRLQ) X(PSLLW) X(PSLLD) X(PSLLQ) X(PSRAW) X(PSRAD)
#define BY_REGISTER(name)     HANDLERS(name, x_##name(a, b))
#include "cpu/interp/simd_ops.def"
#include "cpu/interp/simd_ops4.def"
#include "cpu/interp/simd_vec.def"
SHIFTS_BY(BY_REGISTER)
#undef V
#undef VEC
#undef LOW

struct two_forms {
    op_fn *r, *m;
};

#define ENTRY(name)           [OP_##name] = {name##_r, name##_m},
#define V(name, lane, ...)    ENTRY(name)
#define VEC(name, shift, ...) ENTRY(name)
#define LOW(name, ...)        ENTRY(name)
static const struct two_forms plain[OP_COUNT] = {
#include "cpu/interp/simd_ops.def"
#include "cpu/interp/simd_ops4.def"
#include "cpu/interp/simd_vec.def"
    SHIFTS_BY(ENTRY)};
#undef V
#undef VEC
#undef LOW

/* ---- shifts by an immediate ---- */

#define SHIFTS(X)           SHIFTS_BY(X) X(PSRLDQ) X(PSLLDQ)
#define SHIFT_HANDLER(name) SSE_REG(name##_i, xmm_set(v, i->rm, x_##name##_n(xmm_get(v, i->rm), i->imm)))
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

/* ---- between vectors and general registers ---- */

SSE_REG(pinsrw_r, v->xmm[i->reg].w[i->imm & 7] = (uint16_t)v->gpr[i->rm])
static void pinsrw_m(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    v->xmm[i->reg].w[i->imm & 7] = lin_load16(v, i, insn_linear(v, i, 2, 0));
    NEXT_MEM(v, i);
}
SSE_REG(pextrw, v->gpr[i->reg] = v->xmm[i->rm].w[i->imm & 7])
SSE_REG(pmovmskb, v->gpr[i->reg] = byte_signs(v->xmm[i->rm].q[0]) | byte_signs(v->xmm[i->rm].q[1]) << 8)
SSE_REG(movmskpd, v->gpr[i->reg] = v->xmm[i->rm].q[0] >> 63 | (v->xmm[i->rm].q[1] >> 63) << 1)
SSE_REG(movmskps, const uint32_t *d = v->xmm[i->rm].d;
        v->gpr[i->reg] = d[0] >> 31 | (d[1] >> 31) << 1 | (d[2] >> 31) << 2 | (d[3] >> 31) << 3)

op_fn *bind_sse_int(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG;
    op_fn *fn;
    if (i->opsize != 16 || i->flags & INSN_VEX)
        return NULL;
    if (i->enc == ENC_MI)
        return bind_shift_imm(i->op);
    if ((fn = reg ? plain[i->op].r : plain[i->op].m))
        return fn;
    switch (i->op) {
    case OP_PINSRW:
        return reg ? pinsrw_r : pinsrw_m;
    case OP_PEXTRW: /* the form with a memory operand is in sse4.c */
        return i->enc == ENC_RMI ? pextrw : NULL;
    case OP_PMOVMSKB:
        return pmovmskb;
    case OP_MOVMSKPS:
        return movmskps;
    case OP_MOVMSKPD:
        return movmskpd;
    default:
        return NULL;
    }
}
