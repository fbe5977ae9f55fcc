/*
 * Moves of XMM registers, whole and in part (SDM volume 2: exception types 1, 4, 5, 7). Non-temporal stores are
 * stores.
 */
#include "cpu/interp/sse.h"

static inline void xmm_set_low64(struct vcpu *v, unsigned n, uint64_t x)
{
    v->xmm[n].q[0] = x;
    v->xmm[n].q[1] = 0;
}

/* ---- whole registers ---- */

SSE_LOADS(load_u, union simd16, 0, xmm_set(v, i->reg, m))
SSE_LOADS(load_a, union simd16, 15, xmm_set(v, i->reg, m))
SSE_STORES(store_u, union simd16, 0, xmm_get(v, i->reg))
SSE_STORES(store_a, union simd16, 15, xmm_get(v, i->reg))
SSE_REG(copy_rm, xmm_set(v, i->reg, xmm_get(v, i->rm)))
SSE_REG(copy_mr, xmm_set(v, i->rm, xmm_get(v, i->reg)))

static op_fn *bind_whole(const struct insn *i, enum ea_kind k, bool aligned)
{
    static op_fn *const load[2][EA_KINDS] = {EA_TABLE(load_u), EA_TABLE(load_a)};
    static op_fn *const store[2][EA_KINDS] = {EA_TABLE(store_u), EA_TABLE(store_a)};
    if (i->flags & INSN_RM_REG)
        return i->enc == ENC_RM ? copy_rm : copy_mr;
    return (i->enc == ENC_RM ? load : store)[aligned][k];
}

/* ---- scalars: loads clear the rest of the register, moves between registers keep it ---- */

SSE_LOADS(movss_load, uint32_t, 0, xmm_set_low64(v, i->reg, m))
SSE_STORES(movss_store, uint32_t, 0, v->xmm[i->reg].d[0])
SSE_REG(movss_rm, v->xmm[i->reg].d[0] = v->xmm[i->rm].d[0])
SSE_REG(movss_mr, v->xmm[i->rm].d[0] = v->xmm[i->reg].d[0])

SSE_LOADS(movsd_load, uint64_t, 0, xmm_set_low64(v, i->reg, m))
SSE_STORES(movsd_store, uint64_t, 0, v->xmm[i->reg].q[0])
SSE_REG(movsd_rm, v->xmm[i->reg].q[0] = v->xmm[i->rm].q[0])
SSE_REG(movsd_mr, v->xmm[i->rm].q[0] = v->xmm[i->reg].q[0])

SSE_REG(movq_rm, xmm_set_low64(v, i->reg, v->xmm[i->rm].q[0]))
SSE_REG(movq_mr, xmm_set_low64(v, i->rm, v->xmm[i->reg].q[0]))

static op_fn *bind_scalar(const struct insn *i, enum ea_kind k)
{
    static op_fn *const load[2][EA_KINDS] = {EA_TABLE(movss_load), EA_TABLE(movsd_load)};
    static op_fn *const store[2][EA_KINDS] = {EA_TABLE(movss_store), EA_TABLE(movsd_store)};
    bool is_load = i->enc == ENC_RM, wide = i->op != OP_MOVSS;
    if (!(i->flags & INSN_RM_REG))
        return (is_load ? load : store)[wide][k];
    if (i->op == OP_MOVQ)
        return is_load ? movq_rm : movq_mr;
    if (i->op == OP_MOVSD)
        return is_load ? movsd_rm : movsd_mr;
    return is_load ? movss_rm : movss_mr;
}

/* ---- halves ---- */

SSE_LOADS(low_load, uint64_t, 0, v->xmm[i->reg].q[0] = m)
SSE_LOADS(high_load, uint64_t, 0, v->xmm[i->reg].q[1] = m)
SSE_STORES(high_store, uint64_t, 0, v->xmm[i->reg].q[1])
SSE_REG(movhlps, v->xmm[i->reg].q[0] = v->xmm[i->rm].q[1])
SSE_REG(movlhps, v->xmm[i->reg].q[1] = v->xmm[i->rm].q[0])
SSE_LOADS(movddup_m, uint64_t, 0, v->xmm[i->reg].q[0] = v->xmm[i->reg].q[1] = m)
SSE_REG(movddup_r, v->xmm[i->reg].q[0] = v->xmm[i->reg].q[1] = v->xmm[i->rm].q[0])

/* ---- general registers ---- */

SSE_LOADS(movd_load, uint32_t, 0, xmm_set_low64(v, i->reg, m))
SSE_STORES(movd_store, uint32_t, 0, v->xmm[i->reg].d[0])
SSE_REG(movd_rm, xmm_set_low64(v, i->reg, (uint32_t)v->gpr[i->rm]))
SSE_REG(movq_from_gpr, xmm_set_low64(v, i->reg, v->gpr[i->rm]))
SSE_REG(movd_mr, v->gpr[i->rm] = v->xmm[i->reg].d[0])
SSE_REG(movq_to_gpr, v->gpr[i->rm] = v->xmm[i->reg].q[0])

static op_fn *bind_movd(const struct insn *i, enum ea_kind k)
{
    static op_fn *const load[2][EA_KINDS] = {EA_TABLE(movd_load), EA_TABLE(movsd_load)};
    static op_fn *const store[2][EA_KINDS] = {EA_TABLE(movd_store), EA_TABLE(movsd_store)};
    bool is_load = i->enc == ENC_RM, wide = i->srcsize == 8;
    if (!(i->flags & INSN_RM_REG))
        return (is_load ? load : store)[wide][k];
    if (wide)
        return is_load ? movq_from_gpr : movq_to_gpr;
    return is_load ? movd_rm : movd_mr;
}

/* ---- MASKMOVDQU: the bytes whose mask has bit 7 set go to [rDI] ---- */

static void maskmovdqu(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    union simd16 data = xmm_get(v, i->reg);
    const uint64_t *m = v->xmm[i->rm].q;
    unsigned mask = byte_signs(m[0]) | byte_signs(m[1]) << 8;
    sse_store_masked(v, i, data.b, 16, mask);
    NEXT_MEM(v, i);
}

op_fn *bind_sse_move(const struct insn *i, enum ea_kind k)
{
    static op_fn *const low[EA_KINDS] = EA_TABLE(low_load), *const low_out[EA_KINDS] = EA_TABLE(movsd_store);
    static op_fn *const high[EA_KINDS] = EA_TABLE(high_load), *const high_out[EA_KINDS] = EA_TABLE(high_store);
    static op_fn *const ddup[EA_KINDS] = EA_TABLE(movddup_m);
    switch (i->op) {
    case OP_MOVUPS:
    case OP_MOVUPD:
    case OP_MOVDQU:
    case OP_LDDQU:
        return bind_whole(i, k, false);
    case OP_MOVAPS:
    case OP_MOVAPD:
    case OP_MOVDQA:
    case OP_MOVNTPS:
    case OP_MOVNTPD:
    case OP_MOVNTDQ:
        return bind_whole(i, k, true);
    case OP_MOVSS:
    case OP_MOVSD:
        return bind_scalar(i, k);
    case OP_MOVQ:
        return i->opsize == 16 ? bind_scalar(i, k) : NULL;
    case OP_MOVD:
        return i->opsize == 16 ? bind_movd(i, k) : NULL;
    case OP_MOVLPS:
    case OP_MOVLPD:
        return i->enc == ENC_RM ? low[k] : low_out[k];
    case OP_MOVHPS:
    case OP_MOVHPD:
        return i->enc == ENC_RM ? high[k] : high_out[k];
    case OP_MOVHLPS:
        return movhlps;
    case OP_MOVLHPS:
        return movlhps;
    case OP_MOVDDUP:
        return i->flags & INSN_RM_REG ? movddup_r : ddup[k];
    case OP_MASKMOVDQU:
        return maskmovdqu;
    default:
        return NULL;
    }
}
