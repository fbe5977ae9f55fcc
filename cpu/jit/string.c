/*
 * String instructions: the host's own, on host memory.
 *
 * A repeated one runs here if each of its operands lies in one page that the TLB knows, addresses go up, and the units
 * suffice for the count in RCX; whatever else there may be is the handler's, which makes runs of iterations itself and
 * comes back if that was all. The host repeats as the guest would: a destination that begins inside the source sees its
 * own bytes again.
 */
#include "cpu/jit/integer.h"

/* Elements above which the handler is faster: it compares many at once. */
#define COMPARE_MAX 96

static bool is_repeated(const struct insn *i)
{
    return i->flags & (INSN_REP | INSN_REPNE);
}

static bool has_source(const struct insn *i)
{
    return i->op == OP_MOVS || i->op == OP_LODS || i->op == OP_CMPS;
}

static bool has_dest(const struct insn *i)
{
    return i->op != OP_LODS;
}

static bool is_comparison(const struct insn *i)
{
    return i->op == OP_SCAS || i->op == OP_CMPS;
}

static bool is_string(const struct insn *i)
{
    return i->op == OP_MOVS || i->op == OP_STOS || i->op == OP_LODS || is_comparison(i);
}

/* By the host: runs with 64-bit addresses without a segment base alone. */
static bool is_done_here(const struct tr *t, const struct insn *i)
{
    if (t->wide && has_source(i) && (i->seg == SEG_FS || i->seg == SEG_GS))
        return false;
    return !is_repeated(i) || (t->wide && i->adsize == 8 && i->op != OP_LODS);
}

bool tr_goes_on_behind(const struct insn *i)
{
    return is_string(i) && is_repeated(i);
}

/* Addresses that go down are the handler's. */
static void check_direction(struct tr *t, uint32_t rec)
{
    struct emit *e = &t->e;
    emit_load(e, H_R15, FRAME(v));
    emit_maddr(e, 4, 0xf7, 0, (struct maddr){H_R15, -1, 0, (int32_t)offsetof(struct vcpu, rflags)}); /* test */
    e32(e, FLAG_DF);
    tr_jump_cold(t, emit_jcc(e, CC_NZ), COLD_SLOW, rec, 0);
    tr_clobber(t);
}

/* The instruction itself, with or without its prefix. */
static void emit_string(struct tr *t, const struct insn *i, bool repeated)
{
    static const uint8_t ops[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae};
    static const uint16_t names[] = {OP_MOVS, OP_CMPS, OP_STOS, OP_LODS, OP_SCAS};
    struct emit *e = &t->e;
    unsigned k = 0;
    while (names[k] != i->op)
        k++;
    if (repeated)
        e8(e, is_comparison(i) && !(i->flags & INSN_REP) ? 0xf2 : 0xf3);
    if (i->opsize == 2)
        e8(e, 0x66);
    if (i->opsize == 8)
        e8(e, 0x48);
    e8(e, ops[k] | (i->opsize != 1));
}

/* ---- one element ---- */

static void move_on(struct tr *t, unsigned reg, const struct insn *i)
{
    struct emit *e = &t->e;
    struct maddr m = {(int)reg, -1, 0, i->opsize};
    if (i->adsize != 2) {
        emit_lea(e, i->adsize, reg, m);
        return;
    }
    emit_lea(e, 4, H_R14, m);
    emit_rm(e, (struct how){.size = 2}, OPC(0x8b), reg, op_reg(H_R14));
}

/* r14 = host address of the element at rSI or rDI. */
static void element(struct tr *t, const struct insn *i, unsigned reg, unsigned seg, bool write, uint32_t rec)
{
    struct emit *e = &t->e;
    emit_rm(e, (struct how){.size = i->adsize == 8 ? 8 : 4}, OPC(0x8b), H_R14, op_reg(reg));
    if (i->adsize == 2)
        tr_cut16(t, H_R14);
    bool flat = t->wide || (t->mode & MODE_FLAT && seg != SEG_CS && seg < SEG_FS);
    t->segment = flat ? SEG_NONE : (int)seg;
    tr_check(t, i->opsize, write, rec);
}

/* SCAS and CMPS: the elements are in the frame's m1 and m2, the first one in r15 besides. */
static void compared(struct tr *t, const struct insn *i)
{
    unsigned wide = i->opsize != 1;
    struct how w = {.size = i->opsize, .reg_byte = !wide, .rm_byte = !wide};
    emit_rm(&t->e, w, OPC((uint8_t)(0x3a | wide)), H_R15, op_frame(FRAME(m2))); /* cmp */
    if (tr_flags_live(t))
        tr_set_flags_committed(t, (struct jit_recipe){.kind = RECIPE_SUB, .size = i->opsize, .a = SRC_M1, .b = SRC_M2});
    else
        tr_set_flags_dead(t, 0);
}

static void once(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    struct how w = {.size = i->opsize, .reg_byte = i->opsize == 1};
    unsigned wide = i->opsize != 1;
    uint32_t writes = (has_source(i) ? tr_bit(REG_RSI) : 0) | (has_dest(i) ? tr_bit(REG_RDI) : tr_bit(REG_RAX));
    tr_begin(t, writes, false);
    uint32_t rec = tr_slow(t, i);
    check_direction(t, rec);
    if (has_source(i))
        element(t, i, H_RSI, i->seg, false, rec);
    if (has_source(i) && has_dest(i)) {
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(tmp));
    }
    if (has_dest(i)) {
        element(t, i, H_RDI, SEG_ES, !is_comparison(i), rec);
        if (i->op == OP_MOVS)
            emit_load(e, H_R15, FRAME(tmp));
    }
    if (is_comparison(i)) {
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m2));
        if (has_source(i))
            emit_load(e, H_R15, FRAME(tmp));
        else
            emit_mov(e, H_R15, H_RAX);
        emit_store(e, H_R15, FRAME(m1));
    } else if (i->op == OP_LODS) {
        emit_rm(e, w, OPC((uint8_t)(0x8a | wide)), H_RAX, op_r14());
    } else {
        emit_rm(e, w, OPC((uint8_t)(0x88 | wide)), i->op == OP_MOVS ? H_R15 : H_RAX, op_r14());
    }
    if (has_source(i))
        move_on(t, H_RSI, i);
    if (has_dest(i))
        move_on(t, H_RDI, i);
    if (is_comparison(i))
        compared(t, i);
    tr_resume(t, rec);
}

/* ---- repeated ---- */

/* Host address of RCX elements at guest address `reg`, which must all be in the page, into the slot. */
static void check_run(struct tr *t, const struct insn *i, unsigned reg, bool write, int slot, uint32_t rec)
{
    struct emit *e = &t->e;
    unsigned scale = i->opsize == 8 ? 3 : i->opsize >> 1;
    emit_mov(e, H_R14, reg);
    tr_check(t, i->opsize, write, rec);
    emit_lea(e, 8, H_R15, (struct maddr){H_R14, H_RCX, scale, -1});
    emit_op64(e, 0x33, H_R15, op_reg(H_R14)); /* xor */
    emit_op64(e, 0xc1, 5, op_reg(H_R15));     /* shr */
    e8(e, PAGE_SHIFT);
    tr_jump_cold(t, emit_jcc(e, CC_NZ), COLD_SLOW, rec, 0);
    emit_store(e, H_R14, slot);
}

/* A count of 1 to max; 0 jumps to what is returned. */
static uint8_t *check_count(struct tr *t, uint32_t max, uint32_t rec)
{
    struct emit *e = &t->e;
    emit_op64(e, 0x85, H_RCX, op_reg(H_RCX)); /* test */
    uint8_t *none = emit_jcc(e, CC_Z);
    emit_op64(e, 0x81, 7, op_reg(H_RCX)); /* cmp */
    e32(e, max);
    tr_jump_cold(t, emit_jcc(e, CC_A), COLD_SLOW, rec, 0);
    return none;
}

/* The block has paid for one iteration; the others must be paid for, too. Those that are not made are given back. */
static void take_units(struct tr *t, uint32_t rec)
{
    struct emit *e = &t->e;
    emit_load(e, H_R14, FRAME(budget));
    emit_lea(e, 8, H_R14, (struct maddr){H_R14, -1, 0, 1});
    emit_op64(e, 0x2b, H_R14, op_reg(H_RCX)); /* sub */
    tr_jump_cold(t, emit_jcc(e, CC_S), COLD_SLOW, rec, 0);
    emit_store(e, H_R14, FRAME(budget));
}

static void to_host(struct tr *t, unsigned reg, unsigned distance, int slot)
{
    emit_mov(&t->e, distance, reg);
    emit_op64(&t->e, 0x2b, distance, op_frame(slot)); /* sub */
    emit_load(&t->e, reg, slot);
}

static void to_guest(struct tr *t, unsigned reg, unsigned distance)
{
    emit_lea(&t->e, 8, reg, (struct maddr){(int)reg, (int)distance, 0, 0});
}

static void repeated(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    uint8_t *none = check_count(t, is_comparison(i) ? COMPARE_MAX : (uint32_t)PAGE_SIZE / i->opsize, rec);
    check_direction(t, rec);
    check_run(t, i, H_RDI, !is_comparison(i), FRAME(tmp), rec);
    if (has_source(i))
        check_run(t, i, H_RSI, false, FRAME(tmp2), rec);
    take_units(t, rec);
    to_host(t, H_RDI, H_R14, FRAME(tmp));
    if (has_source(i))
        to_host(t, H_RSI, H_R15, FRAME(tmp2));
    emit_string(t, i, true);
    to_guest(t, H_RDI, H_R14);
    if (has_source(i))
        to_guest(t, H_RSI, H_R15);
    if (is_comparison(i)) {
        tr_set_flags_image(t);
        emit_op64(e, 0x01, H_RCX, op_frame(FRAME(budget))); /* add */
    }
    patch_jump(e, none, e->p);
    tr_resume(t, rec);
    if (rec)
        ((struct jit_slow *)jit_data(&t->j->arena, rec))->at_end = true;
    t->flags = BASE_FRAME;
    t->image = t->known = false;
    tr_clobber(t);
    tr_go_behind(t, i);
}

bool tr_string(struct tr *t, const struct insn *i)
{
    if (!is_string(i) || !is_done_here(t, i))
        return false;
    if (is_repeated(i))
        repeated(t, i);
    else
        once(t, i);
    return true;
}
