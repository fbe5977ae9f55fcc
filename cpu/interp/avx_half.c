/*
 * F16C (SDM volume 2: VCVTPH2PS, VCVTPS2PH, exception type 11), in software, so that it is the same on every host.
 */
#include "cpu/interp/avx.h"
#include "cpu/interp/float_soft.h"
#include "cpu/interp/sse_float.h"

#define MXCSR_RC 0x6000u

static void from_half(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : vec_load_part(v, i, i->srcsize);
    uint32_t flags = 0;
    union vec r = {{0}};
    for (unsigned k = 0; k < i->opsize / 4u; k++)
        r.d[k] = float_soft_from_half(b.w[k], &flags);
    float_done(v, i, flags);
    v->xmm[i->reg] = r;
    NEXT_MEM(v, i);
}

static SIMD halves_of(struct vcpu *v, const struct insn *i, uint32_t *flags)
{
    const union vec *a = &v->xmm[i->reg];
    uint32_t csr = i->imm & 4 ? v->mxcsr : (v->mxcsr & ~MXCSR_RC) | ((unsigned)i->imm & 3) << 13;
    SIMD r = {.q = {0, 0}};
    for (unsigned k = 0; k < i->opsize / 4u; k++)
        r.w[k] = float_soft_to_half(a->d[k], csr, flags);
    return r;
}

static void to_half(struct vcpu *v, const struct insn *i)
{
    avx_need(v, i);
    bool reg = i->flags & INSN_RM_REG;
    uint64_t lin = reg ? 0 : insn_linear(v, i, i->srcsize, 1);
    uint32_t flags = 0;
    SIMD r = halves_of(v, i, &flags);
    if (!reg && !tlb_lookup_write(v->mv, lin, i->srcsize))
        lin_probe_write(v, i, lin, i->srcsize);
    float_done(v, i, flags);
    if (reg)
        ymm_set_low(v, i->rm, r);
    else
        sse_write(v, i, lin, &r, i->srcsize);
    NEXT_MEM(v, i);
}

op_fn *bind_avx_half(const struct insn *i)
{
    return i->op == OP_VCVTPH2PS ? from_half : i->op == OP_VCVTPS2PH ? to_half : NULL;
}
