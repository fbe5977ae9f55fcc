/*
 * The stack: PUSH, POP and their plural forms, LEAVE.
 *
 * The stack pointer has 64 bits in 64-bit code, else 32 or 16 by SS.B; then SS is flat, or its limit is looked at.
 */
#include "cpu/jit/integer.h"

/* r14 = offset from a register that addresses the stack, as wide as stack pointers are. */
static void stack_offset(struct tr *t, unsigned reg, int32_t disp)
{
    struct emit *e = &t->e;
    if (t->wide && !disp)
        emit_mov(e, H_R14, reg);
    else
        emit_lea(e, t->wide ? 8 : 4, H_R14, (struct maddr){(int)reg, -1, 0, disp});
    if (!t->wide && !(t->mode & MODE_SS32))
        tr_cut16(t, H_R14);
}

static void check_at(struct tr *t, unsigned reg, int32_t disp, unsigned size, bool write, uint32_t rec)
{
    t->is_near = tr_is_near(t, &t->b->insn[t->k]);
    if (!t->is_near)
        stack_offset(t, reg, disp);
    t->on_stack = reg == H_R13;
    t->segment = t->wide || t->mode & MODE_FLAT ? SEG_NONE : SEG_SS;
    tr_check(t, size, write, rec);
}

void tr_stack_check(struct tr *t, int32_t disp, unsigned size, bool write, uint32_t rec)
{
    check_at(t, H_R13, disp, size, write, rec);
}

/* RSP = reg + bytes. */
static void set_pointer(struct tr *t, unsigned reg, int32_t bytes)
{
    struct emit *e = &t->e;
    struct maddr m = {(int)reg, -1, 0, bytes};
    if (t->wide || t->mode & MODE_SS32) {
        emit_lea(e, t->wide ? 8 : 4, H_R13, m);
        return;
    }
    emit_lea(e, 4, H_R14, m);
    emit_rm(e, (struct how){.size = 2}, OPC(0x8b), H_R13, op_reg(H_R14));
}

void tr_stack_adjust(struct tr *t, int32_t bytes)
{
    set_pointer(t, H_R13, bytes);
}

/* 16-bit operands in 64-bit code are rare. */
static bool has_size(const struct tr *t, const struct insn *i)
{
    return !t->wide || i->opsize == 8;
}

static bool push(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool imm = i->enc == ENC_I, mem = !imm && !(i->flags & INSN_RM_REG);
    struct how w = {.size = i->opsize};
    if (!has_size(t, i) || (mem && !tr_has_ea(t, i)))
        return false;
    tr_begin(t, tr_bit(REG_RSP), false);
    uint32_t rec = tr_slow(t, i);
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(tmp));
    }
    tr_stack_check(t, -(int)i->opsize, i->opsize, true, rec);
    if (imm) {
        emit_rm(e, w, OPC(0xc7), 0, op_r14());
        imm_bytes(e, i->imm, i->opsize);
    } else {
        if (mem)
            emit_load(e, H_R15, FRAME(tmp));
        emit_rm(e, w, OPC(0x89), mem ? H_R15 : tr_reg_in(t, i->rm), op_r14());
    }
    tr_stack_adjust(t, -(int)i->opsize);
    tr_resume(t, rec);
    return true;
}

/* POP RSP: the value read wins. */
static bool pop(struct tr *t, const struct insn *i)
{
    bool to_sp = i->rm == REG_RSP;
    if (!has_size(t, i) || !(i->flags & INSN_RM_REG) || (to_sp && i->opsize == 2))
        return false;
    tr_begin(t, tr_bit(REG_RSP) | tr_bit(i->rm), false);
    uint32_t rec = tr_slow(t, i);
    tr_stack_check(t, 0, i->opsize, false, rec);
    unsigned reg = jit_host_of[i->rm] >= 0 ? (unsigned)jit_host_of[i->rm] : H_R15;
    emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x8b), reg, op_r14());
    tr_reg_out(t, i->rm, reg);
    if (!to_sp)
        tr_stack_adjust(t, i->opsize);
    tr_resume(t, rec);
    return true;
}

/* All eight registers at once, where they cannot wrap around the end of the stack segment. */
static bool all(struct tr *t, const struct insn *i, bool store)
{
    struct how w = {.size = i->opsize};
    int size = i->opsize, bytes = 8 * size;
    if ((t->mode & (MODE_FLAT | MODE_SS32)) == MODE_FLAT)
        return false;
    tr_begin(t, store ? tr_bit(REG_RSP) : 0xff, false);
    uint32_t rec = tr_slow(t, i);
    tr_stack_check(t, store ? -bytes : 0, (unsigned)bytes, store, rec);
    for (int r = 7; r >= 0; r--) {
        if (store || r != REG_RSP)
            emit_rm(&t->e, w, OPC(store ? 0x89 : 0x8b), (unsigned)jit_host_of[r], op_r14());
        if (r)
            emit_lea(&t->e, 8, H_R14, (struct maddr){H_R14, -1, 0, size});
    }
    tr_stack_adjust(t, store ? -bytes : bytes);
    tr_resume(t, rec);
    return true;
}

static bool leave(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (!has_size(t, i))
        return false;
    tr_begin(t, tr_bit(REG_RSP) | tr_bit(REG_RBP), false);
    uint32_t rec = tr_slow(t, i);
    check_at(t, H_RBP, 0, i->opsize, false, rec);
    if (t->wide || t->mode & MODE_SS32) {
        set_pointer(t, H_RBP, i->opsize);
        emit_rm(e, (struct how){.size = i->opsize}, OPC(0x8b), H_RBP, op_r14());
    } else {
        load_r15(t, i->opsize);
        set_pointer(t, H_RBP, i->opsize);
        emit_rm(e, (struct how){.size = i->opsize}, OPC(0x8b), H_RBP, op_reg(H_R15));
    }
    tr_resume(t, rec);
    return true;
}

bool tr_stack(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_PUSH:
        return push(t, i);
    case OP_POP:
        return pop(t, i);
    case OP_PUSHA:
        return all(t, i, true);
    case OP_POPA:
        return all(t, i, false);
    case OP_LEAVE:
        return leave(t, i);
    default:
        return false;
    }
}
