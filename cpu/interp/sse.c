/*
 * Binding of MMX, SSE and AVX instructions, and of those that save and restore their state.
 */
#include "cpu/interp/avx.h"

void sse_unavailable(struct vcpu *v, const struct insn *i)
{
    bool undefined = (v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR);
    vcpu_raise(v, i, undefined ? EXC_UD : EXC_NM);
}

static uint64_t masked_linear(struct vcpu *v, const struct insn *i, unsigned k)
{
    return linear_of(v, i, i->seg, wrap_offset(v->gpr[REG_RDI] + k, i->adsize), 1, 1);
}

/*
 * All of the operand is checked before the first byte moves, in parts of eight bytes. Whether bytes that are left out
 * are looked at, an empty mask included, is each processor's affair (SDM volume 2, MASKMOVDQU): AMD's do.
 */
void sse_store_masked(struct vcpu *v, const struct insn *i, const uint8_t *bytes, unsigned size, unsigned mask)
{
    uint64_t lin = linear_of(v, i, i->seg, wrap_offset(v->gpr[REG_RDI], i->adsize), size, 1);
    for (unsigned k = 0; k < size; k += 8)
        lin_probe_write(v, i, lin + k, 8);
    for (unsigned m = mask; m; m &= m - 1) {
        unsigned k = (unsigned)__builtin_ctz(m);
        lin_store8(v, i, masked_linear(v, i, k), bytes[k]);
    }
}

void avx_unavailable(struct vcpu *v, const struct insn *i)
{
    bool enabled = (v->cr4 & CR4_OSXSAVE) && !(~v->xcr0 & 6);
    vcpu_raise(v, i, enabled ? EXC_NM : EXC_UD);
}

static op_fn *bind_avx(const struct insn *i)
{
    op_fn *fn;
    if ((fn = bind_avx_move(i)) || (fn = bind_avx_int(i)) || (fn = bind_avx_float(i)) || (fn = bind_avx_permute(i)))
        return fn;
    if ((fn = bind_avx_mask(i)) || (fn = bind_avx_fma(i)))
        return fn;
    return bind_avx_half(i);
}

/* Legacy forms, and VEX forms whose handlers serve both. */
op_fn *bind_sse(const struct insn *i, unsigned mode)
{
    op_fn *fn;
    if (i->flags & INSN_VEX && (fn = bind_avx(i)))
        return fn;
    if ((fn = bind_sse_move(i, ea_kind(i, mode))) || (fn = bind_sse_int(i)) || (fn = bind_mmx(i)) ||
        (fn = bind_sse_float(i)) || (fn = bind_sse_convert(i)) || (fn = bind_sse4(i)) || (fn = bind_sse4_float(i)) ||
        (fn = bind_sse_string(i)) || (fn = bind_sse_crypto(i)))
        return fn;
    return bind_xsave(i);
}
