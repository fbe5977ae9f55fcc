/*
 * AVX arithmetic, comparisons and conversions (SDM volume 2: exception types 2 and 3), computed by the host's SSE
 * instructions, half by half. The exceptions of both halves are one instruction's.
 */
#include "cpu/interp/avx.h"
#include "cpu/interp/sse_float_ops.h"

/* ---- lanes of one size ---- */

#define PACKED_HANDLERS(name, text, size, range)                                                                       \
    HOST_BINARY(host_##name, text)                                                                                     \
    HOST_TWICE(host_##name##_twice, text)                                                                              \
    always_inline void name##_low(struct vcpu *v, const struct insn *i, SIMD b)                                        \
    {                                                                                                                  \
        SIMD a = xmm_get(v, i->vvvv);                                                                                  \
        float_done_range(v, i, host_##name(&a, b, float_csr(v)), range, 1, &a, &v->xmm[i->vvvv], &b);                  \
        ymm_set_low(v, i->reg, a);                                                                                     \
    }                                                                                                                  \
    always_inline void name##_both(struct vcpu *v, const struct insn *i, struct simd32 b)                              \
    {                                                                                                                  \
        struct simd32 a = ymm_get(v, i->vvvv);                                                                         \
        float_done_range(v, i, host_##name##_twice(a.half, b.half, float_csr(v)), range, 2, &a, &v->xmm[i->vvvv], &b); \
        ymm_set(v, i->reg, a);                                                                                         \
    }                                                                                                                  \
    static void name##_128r(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        name##_low(v, i, xmm_get(v, i->rm));                                                                           \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_128m(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        name##_low(v, i, avx_load16(v, i));                                                                            \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    static void name##_256r(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        name##_both(v, i, ymm_get(v, i->rm));                                                                          \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_256m(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        name##_both(v, i, avx_load32(v, i));                                                                           \
        NEXT_MEM(v, i);                                                                                                \
    }
FLOAT_PACKED(PACKED_HANDLERS)

/* ---- scalars ---- */

#define SCALAR_HANDLERS(name, text, size, range)                                                                       \
    HOST_BINARY(host_##name, text)                                                                                     \
    static void name##_128r(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        SIMD a = xmm_get(v, i->vvvv);                                                                                  \
        float_done_range(v, i, host_##name(&a, xmm_get(v, i->rm), float_csr(v)), range, 1, &a, &v->xmm[i->vvvv],       \
                         &v->xmm[i->rm]);                                                                              \
        ymm_set_low(v, i->reg, a);                                                                                     \
        NEXT(v, i);                                                                                                    \
    }                                                                                                                  \
    static void name##_128m(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        SIMD b = vec_load_part(v, i, size), a = xmm_get(v, i->vvvv);                                                   \
        float_done_range(v, i, host_##name(&a, b, float_csr(v)), range, 1, &a, &v->xmm[i->vvvv], &b);                  \
        ymm_set_low(v, i->reg, a);                                                                                     \
        NEXT_MEM(v, i);                                                                                                \
    }
FLOAT_SCALAR(SCALAR_HANDLERS)

#define PACKED_ENTRY(name, text, size, range) [OP_V##name] = {name##_128r, name##_128m, name##_256r, name##_256m},
#define SCALAR_ENTRY(name, text, size, range) [OP_V##name] = {name##_128r, name##_128m, NULL, NULL},
static const struct avx_forms plain[OP_COUNT] = {FLOAT_PACKED(PACKED_ENTRY) FLOAT_SCALAR(SCALAR_ENTRY)};

/* ---- between lanes of 32 and of 64 bits ---- */

#define RESIZE_HOST(name, text, size, range) HOST_BINARY(host_##name, text)
FLOAT_RESIZE(RESIZE_HOST)

typedef uint32_t resize_fn(SIMD *a, SIMD b, uint32_t csr);

/* The lower half's lanes, or all of them, become twice as wide. */
always_inline void widen(struct vcpu *v, const struct insn *i, resize_fn *host)
{
    avx_need(v, i);
    SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : vec_load_part(v, i, i->srcsize);
    struct simd32 r = {{b, b}};
    uint32_t out = host(&r.half[0], b, float_csr(v));
    if (i->opsize == 32)
        out |= host(&r.half[1], (SIMD){.q = {b.q[1], 0}}, float_csr(v));
    float_done(v, i, out);
    if (i->opsize == 32)
        ymm_set(v, i->reg, r);
    else
        ymm_set_low(v, i->reg, r.half[0]);
}

always_inline void narrow(struct vcpu *v, const struct insn *i, resize_fn *host, enum float_range range)
{
    avx_need(v, i);
    SIMD r = {.q = {0, 0}};
    if (i->srcsize == 32) {
        const struct simd32 b = i->flags & INSN_RM_REG ? ymm_get(v, i->rm) : avx_load32(v, i);
        SIMD high = r;
        uint32_t out = host(&r, b.half[0], float_csr(v)) | host(&high, b.half[1], float_csr(v));
        r.q[1] = high.q[0];
        float_done_range(v, i, out, range, 2, &(struct simd32){{r, r}}, NULL, &b);
    } else {
        SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : avx_load16(v, i);
        float_done_range(v, i, host(&r, b, float_csr(v)), range, 1, &r, NULL, &b);
    }
    ymm_set_low(v, i->reg, r);
}

#define RESIZE_HANDLER(name, body)                                                                                     \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        body;                                                                                                          \
        NEXT_MEM(v, i);                                                                                                \
    }
RESIZE_HANDLER(cvtps2pd, widen(v, i, host_CVTPS2PD))
RESIZE_HANDLER(cvtdq2pd, widen(v, i, host_CVTDQ2PD))
RESIZE_HANDLER(cvtpd2ps, narrow(v, i, host_CVTPD2PS, RANGE_PS | RANGE_NARROW))
RESIZE_HANDLER(cvtpd2dq, narrow(v, i, host_CVTPD2DQ, RANGE_NONE))
RESIZE_HANDLER(cvttpd2dq, narrow(v, i, host_CVTTPD2DQ, RANGE_NONE))

/* ---- comparisons by one of 32 predicates ---- */

/*
 * Predicates 0 to 7 are those of SSE. Bit 3 turns the result around where the operands are unordered (so that 11 is
 * never and 15 always true), bit 4 whether a quiet NaN is invalid. By SSE's own LT and LE (1, 2, 5, 6) it is, by the
 * others it is not.
 */
typedef uint32_t compare_fn(SIMD *a, SIMD b, unsigned n, uint32_t csr);

always_inline uint32_t compare_vex(SIMD *a, SIMD b, unsigned n, uint32_t csr, compare_fn *host)
{
    enum { LESS = 1, UNORDERED = 3 };
    const SIMD x = *a;
    uint32_t out = host(a, b, n & 7, csr);
    if (n & 8) {
        SIMD u = x;
        host(&u, b, UNORDERED, csr);
        *a = x_PXOR(*a, u);
    }
    if (n & 16) {
        bool is_loud = (n & 3) == 1 || (n & 3) == 2;
        SIMD ignored = x;
        out = host(&ignored, b, is_loud ? UNORDERED : LESS, csr);
    }
    return out;
}

always_inline void compare_packed(struct vcpu *v, const struct insn *i, compare_fn *host)
{
    avx_need(v, i);
    const unsigned n = (unsigned)i->imm & 31;
    if (i->opsize == 32) {
        struct simd32 b = i->flags & INSN_RM_REG ? ymm_get(v, i->rm) : avx_load32(v, i), a = ymm_get(v, i->vvvv);
        uint32_t out = compare_vex(&a.half[0], b.half[0], n, float_csr(v), host);
        out |= compare_vex(&a.half[1], b.half[1], n, float_csr(v), host);
        float_done(v, i, out);
        ymm_set(v, i->reg, a);
    } else {
        SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : avx_load16(v, i), a = xmm_get(v, i->vvvv);
        float_done(v, i, compare_vex(&a, b, n, float_csr(v), host));
        ymm_set_low(v, i->reg, a);
    }
}

always_inline void compare_scalar(struct vcpu *v, const struct insn *i, compare_fn *host, unsigned size)
{
    avx_need(v, i);
    SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : vec_load_part(v, i, size), a = xmm_get(v, i->vvvv), r = a;
    float_done(v, i, compare_vex(&r, b, (unsigned)i->imm & 31, float_csr(v), host));
    memcpy(&a, &r, size);
    ymm_set_low(v, i->reg, a);
}

RESIZE_HANDLER(cmpps, compare_packed(v, i, host_CMPPS))
RESIZE_HANDLER(cmppd, compare_packed(v, i, host_CMPPD))
RESIZE_HANDLER(cmpss, compare_scalar(v, i, host_CMPSS, 4))
RESIZE_HANDLER(cmpsd, compare_scalar(v, i, host_CMPSD, 8))

op_fn *bind_avx_float(const struct insn *i)
{
    op_fn *fn = avx_form(i, &plain[i->op]);
    if (fn)
        return fn;
    switch (i->op) {
    case OP_VCVTPS2PD:
        return cvtps2pd;
    case OP_VCVTDQ2PD:
        return cvtdq2pd;
    case OP_VCVTPD2PS:
        return cvtpd2ps;
    case OP_VCVTPD2DQ:
        return cvtpd2dq;
    case OP_VCVTTPD2DQ:
        return cvttpd2dq;
    case OP_VCMPPS:
        return cmpps;
    case OP_VCMPPD:
        return cmppd;
    case OP_VCMPSS:
        return cmpss;
    case OP_VCMPSD:
        return cmpsd;
    default:
        return NULL;
    }
}
