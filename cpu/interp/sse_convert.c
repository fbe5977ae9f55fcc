/*
 * Conversions between XMM registers and general (VEX forms too) or MMX registers. Those between XMM registers are in
 * sse_float.c.
 *
 * The MMX forms run as their XMM counterparts on operands extended by zeros, which convert exactly and raise nothing,
 * so that the host's own x87 state is left alone.
 */
#include "cpu/interp/sse_float.h"

/* ---- integer to scalar ---- */

#define FROM_INT(F)                                                                                                    \
    F(cvtsi2ss_32, "cvtsi2ssl", int32_t, uint32_t, 32)                                                                 \
    F(cvtsi2ss_64, "cvtsi2ssq", int64_t, uint64_t, 64)                                                                 \
    F(cvtsi2sd_32, "cvtsi2sdl", int32_t, uint32_t, 32) F(cvtsi2sd_64, "cvtsi2sdq", int64_t, uint64_t, 64)
#define FROM_INT_HANDLERS(name, text, type, utype, bits)                                                               \
    HOST_FROM_INT(host_##name, text, type)                                                                             \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        vec_need(v, i);                                                                                                \
        union simd16 a = vec_first(v, i);                                                                              \
        float_done(v, i, host_##name(&a, (type)(utype)v->gpr[i->rm], float_csr(v)));                                   \
        vec_set(v, i, i->reg, a);                                                                                      \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        vec_need(v, i);                                                                                                \
        type n = (type)lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0));                                         \
        union simd16 a = vec_first(v, i);                                                                              \
        float_done(v, i, host_##name(&a, n, float_csr(v)));                                                            \
        vec_set(v, i, i->reg, a);                                                                                      \
        NEXT_MEM(v, i);                                                                                                \
    }
FROM_INT(FROM_INT_HANDLERS)

/* ---- scalar to integer ---- */

#define TO_INT(F)                                                                                                      \
    F(cvtss2si_32, "cvtss2sil", uint32_t, 32)                                                                          \
    F(cvtss2si_64, "cvtss2siq", uint64_t, 32)                                                                          \
    F(cvtsd2si_32, "cvtsd2sil", uint32_t, 64)                                                                          \
    F(cvtsd2si_64, "cvtsd2siq", uint64_t, 64)                                                                          \
    F(cvttss2si_32, "cvttss2sil", uint32_t, 32)                                                                        \
    F(cvttss2si_64, "cvttss2siq", uint64_t, 32)                                                                        \
    F(cvttsd2si_32, "cvttsd2sil", uint32_t, 64) F(cvttsd2si_64, "cvttsd2siq", uint64_t, 64)
#define TO_INT_HANDLERS(name, text, type, bits)                                                                        \
    HOST_TO_INT(host_##name, text, type)                                                                               \
    static void name##_r(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        type n;                                                                                                        \
        vec_need(v, i);                                                                                                \
        float_done(v, i, host_##name(&n, xmm_get(v, i->rm), float_csr(v)));                                            \
        v->gpr[i->reg] = n;                                                                                            \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_m(struct vcpu *v, const struct insn *i)                                                         \
    {                                                                                                                  \
        type n;                                                                                                        \
        vec_need(v, i);                                                                                                \
        union simd16 b = {.q = {lin_load##bits(v, i, insn_linear(v, i, (bits) / 8, 0)), 0}};                           \
        float_done(v, i, host_##name(&n, b, float_csr(v)));                                                            \
        v->gpr[i->reg] = n;                                                                                            \
        NEXT_MEM(v, i);                                                                                                \
    }
TO_INT(TO_INT_HANDLERS)

/* ---- MMX: its state is entered even if #XM follows, as processors do ---- */

static uint64_t mmx_source(struct vcpu *v, const struct insn *i)
{
    return i->flags & INSN_RM_REG ? v->fpu.st[i->rm & 7].mant : lin_load64(v, i, insn_linear(v, i, 8, 0));
}

HOST_BINARY(host_cvtdq2ps, "cvtdq2ps")
HOST_BINARY(host_cvtdq2pd, "cvtdq2pd")

static void cvtpi2ps(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    mmx_need(v, i);
    union simd16 a = {.q = {0, 0}}, b = {.q = {mmx_source(v, i), 0}};
    mmx_enter(v);
    float_done(v, i, host_cvtdq2ps(&a, b, float_csr(v)));
    v->xmm[i->reg].q[0] = a.q[0];
    NEXT_MEM(v, i);
}

/* Exact; with a memory operand the x87 state stays as it is. */
static void cvtpi2pd(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    if (i->flags & INSN_RM_REG)
        mmx_need(v, i);
    union simd16 a = {.q = {0, 0}}, b = {.q = {mmx_source(v, i), 0}};
    host_cvtdq2pd(&a, b, float_csr(v));
    if (i->flags & INSN_RM_REG)
        mmx_enter(v);
    xmm_set(v, i->reg, a);
    NEXT_MEM(v, i);
}

/* mm, xmm/m64 or xmm/m128. */
#define TO_MMX(F)                                                                                                      \
    F(cvtps2pi, "cvtps2dq", 8) F(cvttps2pi, "cvttps2dq", 8) F(cvtpd2pi, "cvtpd2dq", 16) F(cvttpd2pi, "cvttpd2dq", 16)
#define TO_MMX_HANDLER(name, text, size)                                                                               \
    HOST_BINARY(host_##name, text)                                                                                     \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        union simd16 a = {.q = {0, 0}}, b = {.q = {0, 0}};                                                             \
        sse_need(v, i);                                                                                                \
        mmx_need(v, i);                                                                                                \
        if (i->flags & INSN_RM_REG)                                                                                    \
            memcpy(&b, v->xmm[i->rm].q, size);                                                                         \
        else                                                                                                           \
            sse_read(v, i, sse_linear(v, i, size, (size) == 16 ? 15 : 0, 0), &b, size);                                \
        mmx_enter(v);                                                                                                  \
        float_done(v, i, host_##name(&a, b, float_csr(v)));                                                            \
        mmx_set(v, i->reg & 7, a.q[0]);                                                                                \
        NEXT_MEM(v, i);                                                                                                \
    }
TO_MMX(TO_MMX_HANDLER)

/* ---- binding ---- */

struct four_forms {
    op_fn *r32, *m32, *r64, *m64;
};

static op_fn *by_integer(const struct insn *i, unsigned size, const struct four_forms *f)
{
    if (i->flags & INSN_RM_REG)
        return size == 8 ? f->r64 : f->r32;
    return size == 8 ? f->m64 : f->m32;
}

#define FORMS(name)                                                                                                    \
    &(const struct four_forms)                                                                                         \
    {                                                                                                                  \
        name##_32_r, name##_32_m, name##_64_r, name##_64_m                                                             \
    }

op_fn *bind_sse_convert(const struct insn *i)
{
    switch (i->op) {
    case OP_CVTSI2SS:
    case OP_VCVTSI2SS:
        return by_integer(i, i->srcsize, FORMS(cvtsi2ss));
    case OP_CVTSI2SD:
    case OP_VCVTSI2SD:
        return by_integer(i, i->srcsize, FORMS(cvtsi2sd));
    case OP_CVTSS2SI:
    case OP_VCVTSS2SI:
        return by_integer(i, i->opsize, FORMS(cvtss2si));
    case OP_CVTSD2SI:
    case OP_VCVTSD2SI:
        return by_integer(i, i->opsize, FORMS(cvtsd2si));
    case OP_CVTTSS2SI:
    case OP_VCVTTSS2SI:
        return by_integer(i, i->opsize, FORMS(cvttss2si));
    case OP_CVTTSD2SI:
    case OP_VCVTTSD2SI:
        return by_integer(i, i->opsize, FORMS(cvttsd2si));
    case OP_CVTPI2PS:
        return cvtpi2ps;
    case OP_CVTPI2PD:
        return cvtpi2pd;
    case OP_CVTPS2PI:
        return cvtps2pi;
    case OP_CVTTPS2PI:
        return cvttps2pi;
    case OP_CVTPD2PI:
        return cvtpd2pi;
    case OP_CVTTPD2PI:
        return cvttpd2pi;
    default:
        return NULL;
    }
}
