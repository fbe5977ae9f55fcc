/*
 * Single bits, scans and counts; exchanges.
 */
#include "cpu/jit/integer.h"

#include <cpuid.h>

static void rr(struct tr *t, unsigned size, struct opcode op, unsigned reg, unsigned rm)
{
    emit_rm(&t->e, (struct how){.size = size}, op, reg, op_reg(rm));
}

/* ---- BT, BTS, BTR, BTC ---- */

static unsigned bit_digit(unsigned op)
{
    return op == OP_BT ? 4 : op == OP_BTS ? 5 : op == OP_BTR ? 6 : 7;
}

static void bit_by_imm(struct tr *t, const struct insn *i, struct opnd rm)
{
    emit_rm(&t->e, (struct how){.size = i->opsize}, OPC_0F(0xba), bit_digit(i->op), rm);
    e8(&t->e, (unsigned)i->imm & (8u * i->opsize - 1));
}

static struct opcode bit_op(const struct insn *i)
{
    return OPC_0F((uint8_t)(0x83 | bit_digit(i->op) << 3));
}

static void bit_reg(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    unsigned rm = jit_host_of[i->rm] >= 0 ? (unsigned)jit_host_of[i->rm] : H_R14;
    tr_begin(t, i->op == OP_BT ? 0 : tr_bit(i->rm), false);
    if (rm == H_R14)
        emit_load(e, H_R14, FRAME(gpr) + 8 * (i->rm - 13));
    if (i->enc == ENC_MR)
        rr(t, i->opsize, bit_op(i), tr_reg_in(t, i->reg), rm);
    else
        bit_by_imm(t, i, op_reg(rm));
    if (i->op != OP_BT)
        tr_reg_out(t, i->rm, rm);
    tr_set_partial(t, PARTIAL_CF, FLAG_CF, 0, 0);
}

/* r14 += the address of the unit that has the bit whose number is a register, as a signed offset. */
static void bit_unit(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    emit_mov(e, H_R15, tr_reg_in(t, i->reg));
    if (i->opsize == 4)
        rr(t, 8, OPC(0x63), H_R15, H_R15); /* movsxd */
    rr(t, 8, OPC(0xc1), 7, H_R15);
    e8(e, i->opsize == 4 ? 5 : 6);
    emit_lea(e, i->adsize, H_R14, (struct maddr){H_R14, H_R15, i->opsize == 4 ? 2 : 3, 0});
}

static void bit_mem(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool by_reg = i->enc == ENC_MR, writes = i->op != OP_BT;
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    if (by_reg)
        bit_unit(t, i);
    tr_check(t, i->opsize, writes, rec);
    if (!by_reg) {
        bit_by_imm(t, i, op_r14());
    } else if (writes) {
        load_r15(t, i->opsize);
        rr(t, i->opsize, bit_op(i), (unsigned)jit_host_of[i->reg], H_R15);
        emit_rm(e, (struct how){.size = i->opsize}, OPC(0x89), H_R15, op_r14());
    } else {
        emit_rm(e, (struct how){.size = i->opsize}, OPC(0x8b), H_R14, op_r14());
        rr(t, i->opsize, bit_op(i), tr_reg_in(t, i->reg), H_R14);
    }
    tr_set_partial(t, PARTIAL_CF, FLAG_CF, 0, rec);
}

/* A bit offset in a register reaches beyond the operand, in addresses of the mode's own width. */
static bool has_bit_mem(const struct tr *t, const struct insn *i)
{
    bool by_reg = i->enc == ENC_MR, unmapped = by_reg && jit_host_of[i->reg] < 0;
    return tr_has_ea(t, i) &&
           !(by_reg && (i->adsize != (t->wide ? 8 : 4) || i->opsize == 2 || (unmapped && i->op != OP_BT)));
}

bool tr_bit_test(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    if (mem && !has_bit_mem(t, i))
        return false;
    tr_begin_partial(t, PARTIAL_CF);
    if (mem)
        bit_mem(t, i);
    else
        bit_reg(t, i);
    return true;
}

/* ---- BSF, BSR, POPCNT, TZCNT, LZCNT ---- */

/* Source into r15; kept for the recipe if flags are looked at. Returns the slow record, or 0. */
static uint32_t source_r15(struct tr *t, const struct insn *i, bool live)
{
    bool mem = !(i->flags & INSN_RM_REG);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, false, rec);
        load_r15(t, i->opsize);
    } else {
        emit_op64(&t->e, 0x8b, H_R15, tr_gpr(i->rm));
    }
    if (live)
        emit_store(&t->e, H_R15, FRAME(m2));
    return rec;
}

static void source_flags(struct tr *t, const struct insn *i, bool live, unsigned undefined, uint32_t rec)
{
    struct jit_recipe r = {.kind = RECIPE_EXEC, .insn = i, .size = i->opsize, .a = SRC_NONE, .b = SRC_M2};
    if (rec && live)
        r.insn = tr_register_form(t, i);
    if (!live)
        tr_set_flags_dead(t, undefined);
    else if (rec)
        tr_set_flags_committed(t, r);
    else
        tr_set_flags(t, r);
    if (rec)
        tr_resume(t, rec);
}

/* A source of zero leaves the destination as it is. */
bool tr_scan(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool mem = !(i->flags & INSN_RM_REG), live = tr_flags_live(t);
    if (i->opsize < 4 || (mem && !tr_has_ea(t, i)))
        return false;
    tr_begin(t, tr_bit(i->reg), !mem);
    uint32_t rec = source_r15(t, i, live);
    rr(t, i->opsize, OPC_0F(i->op == OP_BSF ? 0xbc : 0xbd), H_R14, H_R15);
    uint8_t *none = emit_jcc(e, CC_Z);
    if (jit_host_of[i->reg] >= 0)
        rr(t, 4, OPC(0x8b), (unsigned)jit_host_of[i->reg], H_R14);
    else
        tr_reg_out(t, i->reg, H_R14);
    patch_jump(e, none, e->p);
    source_flags(t, i, live, FLAGS_ARITH & ~FLAG_ZF, rec);
    return true;
}

static bool host_counts(const struct insn *i)
{
    unsigned eax, ebx, ecx = 0, edx;
    if (i->op == OP_LZCNT)
        return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && ecx & 1u << 5;
    return i->op == OP_POPCNT ? __builtin_cpu_supports("popcnt") : __builtin_cpu_supports("bmi");
}

/* TZCNT and LZCNT leave OF as it was: by the handler if someone looks. */
bool tr_count(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), live = tr_flags_live(t);
    if (i->opsize < 4 || (mem && !tr_has_ea(t, i)) || (live && i->op != OP_POPCNT) || !host_counts(i))
        return false;
    uint8_t op = i->op == OP_POPCNT ? 0xb8 : i->op == OP_TZCNT ? 0xbc : 0xbd;
    tr_begin(t, tr_bit(i->reg), !mem && i->op == OP_POPCNT);
    uint32_t rec = source_r15(t, i, live);
    unsigned reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R14;
    rr(t, i->opsize, OPC_P(0xf3, op), reg, H_R15);
    tr_reg_out(t, i->reg, reg);
    source_flags(t, i, live, i->op == OP_POPCNT ? 0 : FLAGS_ARITH & ~(FLAG_CF | FLAG_ZF), rec);
    return true;
}

/* ---- XCHG, XADD, CMPXCHG ---- */

static unsigned mov_size_op(const struct insn *i, bool load)
{
    return 0x88u | (load ? 2 : 0) | (i->opsize != 1);
}

static bool xchg_mem(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    tr_begin(t, tr_bit(i->reg), false);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, true, rec);
    load_r15(t, i->opsize);
    emit_store(e, H_R15, FRAME(tmp));
    unsigned reg = tr_reg_in(t, i->reg);
    emit_rm(e, how_of(i), OPC((uint8_t)mov_size_op(i, false)), reg, op_r14());
    if (reg == H_R15 && i->opsize >= 4)
        emit_load(e, H_R15, FRAME(tmp));
    else
        emit_rm(e, how_of(i), OPC((uint8_t)mov_size_op(i, true)), reg, op_frame(FRAME(tmp)));
    tr_reg_out(t, i->reg, reg);
    tr_resume(t, rec);
    return true;
}

/* Of bytes and words, as the host does it. */
static bool xchg_small(struct tr *t, const struct insn *i)
{
    struct opnd rm = tr_gpr(i->rm);
    if (rm.kind != OPND_REG || tr_gpr(i->reg).kind != OPND_REG || !operands_encode(i, how_of(i)))
        return false;
    tr_begin(t, tr_bit(i->reg) | tr_bit(i->rm), false);
    emit_rm(&t->e, how_of(i), OPC(i->opsize == 1 ? 0x86 : 0x87), tr_reg_in(t, i->reg), rm);
    return true;
}

static bool xchg_reg(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (i->opsize < 4)
        return xchg_small(t, i);
    tr_begin(t, tr_bit(i->reg) | tr_bit(i->rm), false);
    struct opcode load = OPC(0x8b);
    unsigned a = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R14;
    unsigned b = jit_host_of[i->rm] >= 0 ? (unsigned)jit_host_of[i->rm] : H_R15;
    emit_rm(e, (struct how){.size = i->opsize}, load, H_R14, tr_gpr(i->reg));
    emit_rm(e, (struct how){.size = i->opsize}, load, H_R15, tr_gpr(i->rm));
    if (a != H_R14)
        emit_mov(e, a, H_R15);
    else
        tr_reg_out(t, i->reg, H_R15);
    if (b != H_R15)
        emit_mov(e, b, H_R14);
    else
        tr_reg_out(t, i->rm, H_R14);
    return true;
}

static bool xadd_mem(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool live = tr_flags_live(t);
    tr_begin(t, tr_bit(i->reg), false);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, true, rec);
    if (live) {
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m1));
    }
    unsigned reg = tr_reg_in(t, i->reg);
    if (live)
        emit_store(e, reg, FRAME(m2));
    emit_rm(e, how_of(i), OPC_0F(i->opsize == 1 ? 0xc0 : 0xc1), reg, op_r14());
    tr_reg_out(t, i->reg, reg);
    if (live)
        tr_set_flags_committed(t, (struct jit_recipe){.kind = RECIPE_ADD, .size = i->opsize, .a = SRC_M1, .b = SRC_M2});
    else
        tr_set_flags_dead(t, 0);
    tr_resume(t, rec);
    return true;
}

/* The accumulator is the host's. It is written only if the operand differs from it. */
static bool cmpxchg_mem(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    struct how w = how_of(i);
    bool live = tr_flags_live(t);
    tr_begin(t, tr_bit(REG_RAX), false);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, true, rec);
    load_r15(t, i->opsize);
    if (live) {
        emit_store(e, H_RAX, FRAME(m1));
        emit_store(e, H_R15, FRAME(m2));
    }
    emit_rm(e, w, OPC(0x38 | (i->opsize != 1)), H_R15, op_reg(H_RAX)); /* cmp rax, r15 */
    uint8_t *differs = emit_jcc(e, CC_NZ);
    emit_rm(e, w, OPC((uint8_t)mov_size_op(i, false)), tr_reg_in(t, i->reg), op_r14());
    uint8_t *done = emit_jmp(e);
    patch_jump(e, differs, e->p);
    emit_rm(e, w, OPC((uint8_t)mov_size_op(i, true)), H_RAX, op_reg(H_R15));
    patch_jump(e, done, e->p);
    if (live)
        tr_set_flags_committed(t, (struct jit_recipe){.kind = RECIPE_SUB, .size = i->opsize, .a = SRC_M1, .b = SRC_M2});
    else
        tr_set_flags_dead(t, 0);
    tr_resume(t, rec);
    return true;
}

bool tr_exchange(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    if (!mem)
        return i->op == OP_XCHG && xchg_reg(t, i);
    if (i->reg & BYTE_HIGH || !tr_has_ea(t, i))
        return false;
    return i->op == OP_XCHG ? xchg_mem(t, i) : i->op == OP_XADD ? xadd_mem(t, i) : cmpxchg_mem(t, i);
}
