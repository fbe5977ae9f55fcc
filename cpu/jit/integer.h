/*
 * What the files of integer instructions share.
 */
#ifndef CPU_JIT_INTEGER_H
#define CPU_JIT_INTEGER_H

#include "cpu/jit/internal.h"

static inline struct how how_of(const struct insn *i)
{
    bool has_reg = i->enc == ENC_MR || i->enc == ENC_RM || i->enc == ENC_RMI; /* else it is a digit */
    return (struct how){.size = i->opsize, .reg_byte = has_reg && i->opsize == 1, .rm_byte = i->opsize == 1};
}

static inline void imm_bytes(struct emit *e, uint64_t imm, unsigned size)
{
    if (size == 1) {
        e8(e, imm & 0xff);
    } else if (size == 2) {
        e8(e, imm & 0xff);
        e8(e, imm >> 8 & 0xff);
    } else {
        e32(e, (uint32_t)imm);
    }
}

static inline bool fits8(uint64_t imm)
{
    return (int64_t)imm == (int8_t)imm;
}

/* Can reg and rm (a memory operand at [r14], unmapped registers in r15) be encoded together? */
static inline bool operands_encode(const struct insn *i, struct how w)
{
    bool mem = !(i->flags & INSN_RM_REG);
    bool has_reg = i->enc == ENC_MR || i->enc == ENC_RM || i->enc == ENC_RMI || i->enc == ENC_MRI;
    unsigned reg = 0;
    if (has_reg)
        reg = i->reg & BYTE_HIGH         ? H_HIGH | (i->reg & 3)
              : jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg]
                                         : H_R15;
    return can_encode(w, reg, mem ? op_r14() : tr_gpr(i->rm));
}

/* Both operands are registers, and the one that reg names has its place in the frame: reg and rm change places in the
 * encoding of the host's instruction. */
static inline bool is_from_frame(const struct insn *i)
{
    return i->enc == ENC_MR && i->flags & INSN_RM_REG && i->opsize != 1 && jit_host_of[i->reg] < 0 &&
           jit_host_of[i->rm] >= 0;
}

/* Loads the operand at [r14] to r15, for a size of up to 8 bytes; the upper bytes are not defined. */
static inline void load_r15(struct tr *t, unsigned size)
{
    struct how w = {.size = size == 8 ? 8 : 4};
    if (size >= 4)
        emit_rm(&t->e, w, OPC(0x8b), H_R15, op_r14());
    else
        emit_rm(&t->e, (struct how){.size = 4}, OPC_0F(size == 1 ? 0xb6 : 0xb7), H_R15, op_r14());
}

/* The instruction as it would be with its memory operand in a register: for recipes (integer.c). */
const struct insn *tr_register_form(struct tr *t, const struct insn *i);
/* CF into the host's, by r15. False: nothing was emitted, by the handler only. */
bool tr_carry(struct tr *t);
bool tr_can_have_carry(const struct tr *t);
/* Also once the host's flags are clobbered? */
bool tr_can_restore_carry(const struct tr *t);

/* Each emits its instructions, or returns false before emitting anything. */
bool tr_alu(struct tr *t, const struct insn *i);
bool tr_shift(struct tr *t, const struct insn *i);
bool tr_rotate_carry(struct tr *t, const struct insn *i);
bool tr_shift_double(struct tr *t, const struct insn *i);
bool tr_imul(struct tr *t, const struct insn *i);
bool tr_mul(struct tr *t, const struct insn *i);
bool tr_div(struct tr *t, const struct insn *i);
bool tr_bit_test(struct tr *t, const struct insn *i);
bool tr_scan(struct tr *t, const struct insn *i);
bool tr_count(struct tr *t, const struct insn *i);
bool tr_bmi(struct tr *t, const struct insn *i);
bool tr_movbe(struct tr *t, const struct insn *i);
bool tr_misc(struct tr *t, const struct insn *i);
bool tr_exchange(struct tr *t, const struct insn *i);

#endif
