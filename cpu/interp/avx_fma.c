/*
 * FMA (SDM volume 2: exception types 2 and 3). The first operand is the destination, the second the register that VEX
 * names, the third register or memory; 132, 213 and 231 say which are multiplied and which is added.
 *
 * On a host with FMA its own instructions are used, else float_soft.c: the results are the same bit for bit (a test
 * holds them against each other), so the feature does not depend on the host.
 */
#include "cpu/interp/avx.h"
#include "cpu/interp/float_soft.h"
#include "cpu/interp/sse_float.h"

#define FMA_PACKED(F)                                                                                                  \
    F(VFMADD132PS, "vfmadd132ps")                                                                                      \
    F(VFMADD132PD, "vfmadd132pd")                                                                                      \
    F(VFMSUB132PS, "vfmsub132ps")                                                                                      \
    F(VFMSUB132PD, "vfmsub132pd")                                                                                      \
    F(VFNMADD132PS, "vfnmadd132ps")                                                                                    \
    F(VFNMADD132PD, "vfnmadd132pd")                                                                                    \
    F(VFNMSUB132PS, "vfnmsub132ps")                                                                                    \
    F(VFNMSUB132PD, "vfnmsub132pd")                                                                                    \
    F(VFMADDSUB132PS, "vfmaddsub132ps")                                                                                \
    F(VFMADDSUB132PD, "vfmaddsub132pd")                                                                                \
    F(VFMSUBADD132PS, "vfmsubadd132ps")                                                                                \
    F(VFMSUBADD132PD, "vfmsubadd132pd")                                                                                \
    F(VFMADD213PS, "vfmadd213ps")                                                                                      \
    F(VFMADD213PD, "vfmadd213pd")                                                                                      \
    F(VFMSUB213PS, "vfmsub213ps")                                                                                      \
    F(VFMSUB213PD, "vfmsub213pd")                                                                                      \
    F(VFNMADD213PS, "vfnmadd213ps")                                                                                    \
    F(VFNMADD213PD, "vfnmadd213pd")                                                                                    \
    F(VFNMSUB213PS, "vfnmsub213ps")                                                                                    \
    F(VFNMSUB213PD, "vfnmsub213pd")                                                                                    \
    F(VFMADDSUB213PS, "vfmaddsub213ps")                                                                                \
    F(VFMADDSUB213PD, "vfmaddsub213pd")                                                                                \
    F(VFMSUBADD213PS, "vfmsubadd213ps")                                                                                \
    F(VFMSUBADD213PD, "vfmsubadd213pd")                                                                                \
    F(VFMADD231PS, "vfmadd231ps")                                                                                      \
    F(VFMADD231PD, "vfmadd231pd")                                                                                      \
    F(VFMSUB231PS, "vfmsub231ps")                                                                                      \
    F(VFMSUB231PD, "vfmsub231pd")                                                                                      \
    F(VFNMADD231PS, "vfnmadd231ps")                                                                                    \
    F(VFNMADD231PD, "vfnmadd231pd")                                                                                    \
    F(VFNMSUB231PS, "vfnmsub231ps")                                                                                    \
    F(VFNMSUB231PD, "vfnmsub231pd")                                                                                    \
    F(VFMADDSUB231PS, "vfmaddsub231ps")                                                                                \
    F(VFMADDSUB231PD, "vfmaddsub231pd")                                                                                \
    F(VFMSUBADD231PS, "vfmsubadd231ps")                                                                                \
    F(VFMSUBADD231PD, "vfmsubadd231pd")
#define FMA_SCALAR(F)                                                                                                  \
    F(VFMADD132SS, "vfmadd132ss")                                                                                      \
    F(VFMADD132SD, "vfmadd132sd")                                                                                      \
    F(VFMSUB132SS, "vfmsub132ss")                                                                                      \
    F(VFMSUB132SD, "vfmsub132sd")                                                                                      \
    F(VFNMADD132SS, "vfnmadd132ss")                                                                                    \
    F(VFNMADD132SD, "vfnmadd132sd")                                                                                    \
    F(VFNMSUB132SS, "vfnmsub132ss")                                                                                    \
    F(VFNMSUB132SD, "vfnmsub132sd")                                                                                    \
    F(VFMADD213SS, "vfmadd213ss")                                                                                      \
    F(VFMADD213SD, "vfmadd213sd")                                                                                      \
    F(VFMSUB213SS, "vfmsub213ss")                                                                                      \
    F(VFMSUB213SD, "vfmsub213sd")                                                                                      \
    F(VFNMADD213SS, "vfnmadd213ss")                                                                                    \
    F(VFNMADD213SD, "vfnmadd213sd")                                                                                    \
    F(VFNMSUB213SS, "vfnmsub213ss")                                                                                    \
    F(VFNMSUB213SD, "vfnmsub213sd")                                                                                    \
    F(VFMADD231SS, "vfmadd231ss")                                                                                      \
    F(VFMADD231SD, "vfmadd231sd")                                                                                      \
    F(VFMSUB231SS, "vfmsub231ss")                                                                                      \
    F(VFMSUB231SD, "vfmsub231sd")                                                                                      \
    F(VFNMADD231SS, "vfnmadd231ss")                                                                                    \
    F(VFNMADD231SD, "vfnmadd231sd")                                                                                    \
    F(VFNMSUB231SS, "vfnmsub231ss")                                                                                    \
    F(VFNMSUB231SD, "vfnmsub231sd")

static SIMD third_low(struct vcpu *v, const struct insn *i)
{
    return i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : vec_load_part(v, i, i->opsize);
}
static struct simd32 third_both(struct vcpu *v, const struct insn *i)
{
    return i->flags & INSN_RM_REG ? ymm_get(v, i->rm) : avx_load32(v, i);
}

/* ---- in software, what to do being read off the opcode ---- */

/* The low digit of the opcode: signs of the product and of the addend, packed or scalar. */
enum { ADDSUB = 6, SUBADD = 7 };

static void choose_signs(const struct insn *i, unsigned lane, struct float_fma *op)
{
    unsigned kind = i->opcode & 15;
    op->negate_product = kind >= 12;
    op->negate_z = kind == ADDSUB ? !(lane & 1) : kind == SUBADD ? lane & 1 : kind & 2;
}

/* a, b, c are the operands as encoded. */
static uint64_t soft_lane(const struct vcpu *v, const struct insn *i, unsigned lane, uint64_t a, uint64_t b, uint64_t c,
                          uint32_t *flags)
{
    struct float_fma op;
    bool wide = i->flags & INSN_W;
    switch (i->opcode >> 4) {
    case 9: /* 132 */
        op = (struct float_fma){.x = a, .y = c, .z = b};
        break;
    case 10: /* 213 */
        op = (struct float_fma){.x = b, .y = a, .z = c};
        break;
    default: /* 231 */
        op = (struct float_fma){.x = b, .y = c, .z = a};
        break;
    }
    choose_signs(i, lane, &op);
    return float_soft_fma(wide ? &float_double : &float_single, &op, v->mxcsr, flags);
}

static void soft_half(const struct vcpu *v, const struct insn *i, SIMD *a, SIMD b, SIMD c, unsigned lanes,
                      uint32_t *flags)
{
    for (unsigned k = 0; k < lanes; k++)
        if (i->flags & INSN_W)
            a->q[k] = soft_lane(v, i, k, a->q[k], b.q[k], c.q[k], flags);
        else
            a->d[k] = (uint32_t)soft_lane(v, i, k, a->d[k], b.d[k], c.d[k], flags);
}

static void soft_scalar(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    uint32_t flags = 0;
    SIMD c = third_low(v, i), a = xmm_get(v, i->reg);
    soft_half(v, i, &a, xmm_get(v, i->vvvv), c, 1, &flags);
    float_done(v, i, flags);
    ymm_set_low(v, i->reg, a);
    NEXT_MEM(v, i);
}

static void soft_packed(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    bool both = i->opsize == 32;
    unsigned lanes = i->flags & INSN_W ? 2 : 4;
    uint32_t flags = 0;
    struct simd32 c = {{{.q = {0, 0}}, {.q = {0, 0}}}}, b = ymm_get(v, i->vvvv), a = ymm_get(v, i->reg);
    if (both)
        c = third_both(v, i);
    else
        c.half[0] = third_low(v, i);
    soft_half(v, i, &a.half[0], b.half[0], c.half[0], lanes, &flags);
    if (both)
        soft_half(v, i, &a.half[1], b.half[1], c.half[1], lanes, &flags);
    float_done(v, i, flags);
    if (both)
        ymm_set(v, i->reg, a);
    else
        ymm_set_low(v, i->reg, a.half[0]);
    NEXT_MEM(v, i);
}

/* ---- on the host ---- */

/* What unmasked overflow and underflow want to know only the software tells (float_soft.h). */
static inline bool asks_range(const struct vcpu *v)
{
    return unlikely(~v->mxcsr & (MXCSR_OM | MXCSR_UM));
}

#define HOST_FMA(name, text)                                                                                           \
    static inline uint32_t name(SIMD *a, SIMD b, SIMD c, uint32_t csr)                                                 \
    {                                                                                                                  \
        const uint32_t host = HOST_MXCSR;                                                                              \
        uint32_t out;                                                                                                  \
        host_vec x = host_vec_of(*a), y = host_vec_of(b), z = host_vec_of(c);                                          \
        __asm__ volatile("ldmxcsr %2\n\t" text " %4, %3, %0\n\tstmxcsr %1\n\tldmxcsr %5"                               \
                         : "+&x"(x), "=m"(out)                                                                         \
                         : "m"(csr), "x"(y), "x"(z), "m"(host));                                                       \
        memcpy(a, &x, sizeof x);                                                                                       \
        return out;                                                                                                    \
    }

#define LOW_HANDLER(name, text, soft)                                                                                  \
    HOST_FMA(host_##name, text)                                                                                        \
    static void name##_128(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        if (asks_range(v)) {                                                                                           \
            soft(v, i);                                                                                                \
            return;                                                                                                    \
        }                                                                                                              \
        avx_need(v, i);                                                                                                \
        SIMD c = third_low(v, i), a = xmm_get(v, i->reg);                                                              \
        float_done(v, i, host_##name(&a, xmm_get(v, i->vvvv), c, float_csr_clean(v)));                                 \
        ymm_set_low(v, i->reg, a);                                                                                     \
        NEXT_MEM(v, i);                                                                                                \
    }
#define PACKED_HANDLERS(name, text)                                                                                    \
    LOW_HANDLER(name, text, soft_packed)                                                                               \
    static void name##_256(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        if (asks_range(v)) {                                                                                           \
            soft_packed(v, i);                                                                                         \
            return;                                                                                                    \
        }                                                                                                              \
        avx_need(v, i);                                                                                                \
        struct simd32 c = third_both(v, i), b = ymm_get(v, i->vvvv), a = ymm_get(v, i->reg);                           \
        uint32_t out = host_##name(&a.half[0], b.half[0], c.half[0], float_csr_clean(v));                              \
        out |= host_##name(&a.half[1], b.half[1], c.half[1], float_csr_clean(v));                                      \
        float_done(v, i, out);                                                                                         \
        ymm_set(v, i->reg, a);                                                                                         \
        NEXT_MEM(v, i);                                                                                                \
    }
FMA_PACKED(PACKED_HANDLERS)
#define SCALAR_HANDLER(name, text) LOW_HANDLER(name, text, soft_scalar)
FMA_SCALAR(SCALAR_HANDLER)

static op_fn *bind_host(const struct insn *i)
{
    switch (i->op) {
#define PACKED_CASE(name, text)                                                                                        \
    case OP_##name:                                                                                                    \
        return i->opsize == 32 ? name##_256 : name##_128;
        FMA_PACKED(PACKED_CASE)
#define SCALAR_CASE(name, text)                                                                                        \
    case OP_##name:                                                                                                    \
        return name##_128;
        FMA_SCALAR(SCALAR_CASE)
    default:
        return NULL;
    }
}

op_fn *bind_avx_fma_soft(const struct insn *i)
{
    return !bind_host(i) ? NULL : i->opsize >= 16 ? soft_packed : soft_scalar;
}

op_fn *bind_avx_fma(const struct insn *i)
{
    return __builtin_cpu_supports("fma") ? bind_host(i) : bind_avx_fma_soft(i);
}
