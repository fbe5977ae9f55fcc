/*
 * AVX memory accesses by element (SDM volume 2): VMASKMOV, VPMASKMOV, gathers, VMASKMOVDQU. Elements whose mask is
 * clear are not accessed and cannot fault.
 *
 * A gather that faults has done the elements before the one that faults: they are in the destination, and their masks
 * are zero, so that the instruction goes on where it was when it is executed again. The other masks are as they were:
 * processors do not show the manual's step that makes them all ones or zeros first.
 */
#include "cpu/interp/avx.h"

/* Linear address of `size` bytes at offset `off` from the memory operand: its first byte's offset wraps, the others' do
 * not. */
static uint64_t part_linear(struct vcpu *v, const struct insn *i, uint64_t off, unsigned size, unsigned write)
{
    return linear_of(v, i, i->seg, insn_offset(v, i) + off, size, write);
}

static bool is_selected(const union vec *mask, unsigned k, unsigned size)
{
    return mask->b[k * size + size - 1] >> 7;
}

/* Where the whole operand is in plain memory, or NULL. */
static void *whole_operand(struct vcpu *v, const struct insn *i, bool write)
{
    if (i->flags & INSN_SEGCHK)
        return NULL;
    uint64_t lin = insn_linear(v, i, i->opsize, write);
    return write ? tlb_lookup_write(v->mv, lin, i->opsize) : (void *)(uintptr_t)tlb_lookup_read(v->mv, lin, i->opsize);
}

/* ---- masked moves ---- */

static void masked_load(struct vcpu *v, const struct insn *i, unsigned size)
{
    const union vec *mask = &v->xmm[i->vvvv];
    union vec r = {{0}};
    const uint8_t *p = whole_operand(v, i, false);
    for (unsigned k = 0; k < i->opsize / size; k++) {
        if (!is_selected(mask, k, size))
            continue;
        uint64_t e;
        if (likely(p))
            memcpy(&e, p + k * size, size);
        else
            e = lin_load(v, i, part_linear(v, i, k * size, size, 0), size);
        memcpy(r.b + k * size, &e, size);
    }
    v->xmm[i->reg] = r;
}

static void masked_store(struct vcpu *v, const struct insn *i, unsigned size)
{
    const union vec *mask = &v->xmm[i->vvvv], *data = &v->xmm[i->reg];
    uint8_t *p = whole_operand(v, i, true);
    for (unsigned k = 0; !p && k < i->opsize / size; k++)
        if (is_selected(mask, k, size))
            lin_probe_write(v, i, part_linear(v, i, k * size, size, 1), size);
    for (unsigned k = 0; k < i->opsize / size; k++) {
        uint64_t e = 0;
        if (!is_selected(mask, k, size))
            continue;
        memcpy(&e, data->b + k * size, size);
        if (likely(p))
            memcpy(p + k * size, &e, size);
        else
            lin_store(v, i, part_linear(v, i, k * size, size, 1), e, size);
    }
}

/* ---- gathers ---- */

static uint64_t gather_offset(const struct vcpu *v, const struct insn *i, unsigned k, bool wide_index)
{
    const union vec *index = &v->xmm[i->index];
    uint64_t n = wide_index ? index->q[k] : (uint64_t)(int64_t)(int32_t)index->d[k];
    return wrap_offset(v->gpr[i->base] + (n << i->scale) + (uint64_t)(int64_t)i->disp, i->adsize);
}

static void gather_elements(struct vcpu *v, const struct insn *i)
{
    union vec *mask = &v->xmm[i->vvvv], *r = &v->xmm[i->reg];
    bool wide_index = i->opcode & 1;
    unsigned size = i->srcsize, n = i->opsize / (wide_index ? 8 : size);
    for (unsigned k = 0; k < n; k++) {
        if (is_selected(mask, k, size)) {
            uint64_t off = gather_offset(v, i, k, wide_index);
            uint64_t e = lin_load(v, i, linear_of(v, i, i->seg, off, size, 0), size);
            memcpy(r->b + k * size, &e, size);
        }
        memset(mask->b + k * size, 0, size);
    }
    memset(mask, 0, sizeof *mask);
    memset(r->b + n * size, 0, sizeof r->b - n * size);
}

/* ---- VMASKMOVDQU ---- */

static void store_selected(struct vcpu *v, const struct insn *i)
{
    SIMD data = xmm_get(v, i->reg);
    const uint64_t *m = v->xmm[i->rm].q;
    sse_store_masked(v, i, data.b, 16, byte_signs(m[0]) | byte_signs(m[1]) << 8);
}

#define HANDLER(name, body)                                                                                            \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        avx_need(v, i);                                                                                                \
        body;                                                                                                          \
        NEXT_MEM(v, i);                                                                                                \
    }
HANDLER(load_32, masked_load(v, i, 4))
HANDLER(load_64, masked_load(v, i, 8))
HANDLER(store_32, masked_store(v, i, 4))
HANDLER(store_64, masked_store(v, i, 8))
HANDLER(gather, gather_elements(v, i))
HANDLER(vmaskmovdqu, store_selected(v, i))

op_fn *bind_avx_mask(const struct insn *i)
{
    switch (i->op) {
    case OP_VMASKMOVPS:
    case OP_VPMASKMOVD:
        return i->enc == ENC_RVM ? load_32 : store_32;
    case OP_VMASKMOVPD:
    case OP_VPMASKMOVQ:
        return i->enc == ENC_RVM ? load_64 : store_64;
    case OP_VPGATHERDD:
    case OP_VPGATHERDQ:
    case OP_VPGATHERQD:
    case OP_VPGATHERQQ:
    case OP_VGATHERDPS:
    case OP_VGATHERDPD:
    case OP_VGATHERQPS:
    case OP_VGATHERQPD:
        return gather;
    case OP_VMASKMOVDQU:
        return vmaskmovdqu;
    default:
        return NULL;
    }
}
