/*
 * What the files of AVX instructions share beyond vec.h: forms by size and place of the source, and binding.
 */
#ifndef CPU_INTERP_AVX_H
#define CPU_INTERP_AVX_H

#include "cpu/interp/vec.h"

/* Handlers for 128 and 256 bits, source in a register or in memory; NULL where a form does not exist. */
struct avx_forms {
    op_fn *r128, *m128, *r256, *m256;
};

static inline op_fn *avx_form(const struct insn *i, const struct avx_forms *f)
{
    bool reg = i->flags & INSN_RM_REG;
    if (i->opsize == 32)
        return reg ? f->r256 : f->m256;
    return reg ? f->r128 : f->m128;
}

/* ---- parts of bind_sse(), one a file; NULL for what is not theirs. For instructions with INSN_VEX only. ---- */
op_fn *bind_avx_int(const struct insn *i);
op_fn *bind_avx_move(const struct insn *i);
op_fn *bind_avx_permute(const struct insn *i);
op_fn *bind_avx_mask(const struct insn *i); /* masked moves and gathers */
op_fn *bind_avx_float(const struct insn *i);
op_fn *bind_avx_fma(const struct insn *i);
/* The same in software, whatever the host has. */
op_fn *bind_avx_fma_soft(const struct insn *i);
op_fn *bind_avx_half(const struct insn *i); /* F16C */

#endif
