/*
 * Integer instructions: the same instruction on the host, with registers and memory operands in their new places.
 */
#include "cpu/jit/integer.h"

/* ---- MOV, MOVZX, MOVSX, LEA ---- */

/* The immediate may change: it is read where the block has it. */
static bool mov_loose(struct tr *t, const struct insn *i)
{
    if (i->opsize < 4)
        return false;
    tr_begin(t, tr_bit(i->rm), false);
    unsigned reg = jit_host_of[i->rm] >= 0 ? (unsigned)jit_host_of[i->rm] : H_R15;
    tr_load_address(t, H_R14, &i->imm);
    emit_maddr(&t->e, i->opsize, 0x8b, reg, (struct maddr){H_R14, -1, 0, 0});
    tr_reg_out(t, i->rm, reg);
    return true;
}

static bool mov_imm(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (i->flags & INSN_PATCHED)
        return mov_loose(t, i);
    bool mem = !(i->flags & INSN_RM_REG);
    if (mem && !tr_has_ea(t, i))
        return false;
    tr_begin(t, mem ? 0 : tr_bit(i->rm), false);
    uint32_t rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
    } else if (i->opsize >= 4 && jit_host_of[i->rm] >= 0) {
        emit_imm(e, (unsigned)jit_host_of[i->rm], i->opsize == 4 ? (uint32_t)i->imm : i->imm);
        return true;
    } else if (i->opsize == 4 ? i->imm >> 31 & 1 : i->opsize == 8 && (int64_t)i->imm != (int32_t)i->imm) {
        emit_imm(e, H_R15, i->opsize == 4 ? (uint32_t)i->imm : i->imm);
        tr_reg_out(t, i->rm, H_R15);
        return true;
    }
    struct how w = how_of(i);
    if (!mem && i->opsize == 4) /* all of it */
        w.size = 8;
    emit_rm(e, w, OPC(i->opsize == 1 ? 0xc6 : 0xc7), 0, mem ? op_r14() : tr_gpr(i->rm));
    imm_bytes(e, i->imm, i->opsize);
    if (mem)
        tr_resume(t, rec);
    return true;
}

static bool mov(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), load = i->enc == ENC_RM;
    if (i->enc == ENC_MI)
        return mov_imm(t, i);
    if (!operands_encode(i, how_of(i)) || (mem && !tr_has_ea(t, i)))
        return false;
    uint32_t rec = 0;
    tr_begin(t, load ? tr_bit(i->reg) : mem ? 0 : tr_bit(i->rm), false);
    if (!mem && !load && i->opsize == 4 && jit_host_of[i->rm] < 0) {
        emit_rm(&t->e, how_of(i), OPC(0x8b), H_R15, tr_gpr(i->reg));
        tr_reg_out(t, i->rm, H_R15);
        return true;
    }
    if (is_from_frame(i)) {
        emit_rm(&t->e, how_of(i), OPC(0x8b), (unsigned)jit_host_of[i->rm], tr_gpr(i->reg));
        return true;
    }
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->opsize, !load, rec);
    }
    struct opnd rm = mem ? op_r14() : tr_gpr(i->rm);
    bool full = load && i->opsize >= 4; /* the register's old value does not matter */
    unsigned reg = full && !(i->reg & BYTE_HIGH) && jit_host_of[i->reg] < 0 ? H_R15 : tr_reg_in(t, i->reg);
    emit_rm(&t->e, how_of(i), OPC((uint8_t)(0x88 | (load ? 2 : 0) | (i->opsize != 1))), reg, rm);
    if (load)
        tr_reg_out(t, i->reg, reg);
    if (mem)
        tr_resume(t, rec);
    return true;
}

/* MOVZX, MOVSX, MOVSXD; 16-bit destinations keep the rest of the register. */
static bool mov_extend(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    struct how w = {.size = i->opsize, .rm_byte = i->srcsize == 1};
    struct opcode o;
    if (i->op == OP_MOVSXD)
        o = OPC(i->opsize == 8 ? 0x63 : 0x8b);
    else
        o = OPC_0F((uint8_t)((i->op == OP_MOVZX ? 0xb6 : 0xbe) | (i->srcsize == 2)));
    unsigned reg_host = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R15;
    if ((mem && !tr_has_ea(t, i)) || !can_encode(w, reg_host, mem ? op_r14() : tr_gpr(i->rm)))
        return false;
    uint32_t rec = 0;
    tr_begin(t, tr_bit(i->reg), false);
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->srcsize, false, rec);
    }
    unsigned reg = i->opsize >= 4 ? reg_host : tr_reg_in(t, i->reg);
    emit_rm(&t->e, w, o, reg, mem ? op_r14() : tr_gpr(i->rm));
    tr_reg_out(t, i->reg, reg);
    if (mem)
        tr_resume(t, rec);
    return true;
}

static bool lea(struct tr *t, const struct insn *i)
{
    if (i->flags & INSN_DISP64 || !tr_has_ea(t, i))
        return false;
    tr_begin(t, tr_bit(i->reg), false);
    if (i->opsize == 2 || i->adsize == 2) {
        tr_offset(t, i);
        unsigned reg = tr_reg_in(t, i->reg);
        emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x8b), reg, op_reg(H_R14));
        tr_reg_out(t, i->reg, reg);
        return true;
    }
    struct maddr m = tr_maddr(t, i);
    unsigned reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R14;
    emit_lea(&t->e, i->opsize == 8 && i->adsize == 8 ? 8 : 4, reg, m);
    tr_reg_out(t, i->reg, reg);
    return true;
}

/* ---- one operand: INC DEC NEG NOT ---- */

static bool inc_dec(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG), down = i->op == OP_DEC;
    struct emit *e = &t->e;
    if ((mem && !tr_has_ea(t, i)) || (!mem && i->rm & BYTE_HIGH))
        return false;
    struct jit_recipe r = {.size = i->opsize, .a = mem ? (uint8_t)SRC_M3 : i->rm, .b = SRC_NONE};
    uint32_t rec = 0;
    tr_begin_partial(t, PARTIAL_NONE);
    if (mem) {
        tr_commit(t);
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
        load_r15(t, i->opsize);
        emit_store(e, H_R15, FRAME(m3));
    } else {
        bool again = t->overlay.kind && t->overlay.a == i->rm;
        if (again) /* of the older one only CF counts, which is not its own */
            t->overlay.kind = RECIPE_NONE;
        tr_begin(t, tr_bit(i->rm), false);
    }
    bool carry_ok = t->host && !(t->undefined & FLAG_CF), live = tr_flags_live(t);
    struct opnd rm = mem ? op_r14() : tr_gpr_change(t, i->rm, i->opsize);
    emit_rm(e, how_of(i), OPC(i->opsize == 1 ? 0xfe : 0xff), down, rm);
    if (!mem)
        tr_gpr_changed(t, i->rm, i->opsize);
    t->host = true;
    t->undefined = carry_ok ? 0 : FLAG_CF;
    r.kind = mem ? (down ? RECIPE_DEC : RECIPE_INC) : (down ? RECIPE_DECR : RECIPE_INCR);
    if (!live) {
        tr_set_flags_dead(t, carry_ok ? 0 : FLAG_CF);
    } else {
        t->overlay = r;
        t->overlay_rec = 0;
    }
    if (mem) {
        tr_commit(t);
        tr_resume(t, rec);
    }
    return true;
}

static bool neg_not(struct tr *t, const struct insn *i)
{
    bool neg = i->op == OP_NEG, mem = !(i->flags & INSN_RM_REG);
    struct jit_recipe r = {.kind = RECIPE_NEGR, .size = i->opsize, .a = mem ? (uint8_t)SRC_M1 : i->rm, .b = SRC_NONE};
    uint32_t rec = 0;
    if (mem ? !tr_has_ea(t, i) : (bool)(i->rm & BYTE_HIGH))
        return false;
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->opsize, true, rec);
    } else {
        tr_begin(t, tr_bit(i->rm), neg);
    }
    struct opnd rm = mem ? op_r14() : tr_gpr_change(t, i->rm, i->opsize);
    emit_rm(&t->e, how_of(i), OPC(i->opsize == 1 ? 0xf6 : 0xf7), neg ? 3 : 2, rm);
    if (!mem)
        tr_gpr_changed(t, i->rm, i->opsize);
    if (neg && mem && tr_flags_live(t)) {
        load_r15(t, i->opsize);
        emit_store(&t->e, H_R15, FRAME(m1));
        tr_set_flags_memory(t, r, rec);
    } else if (neg) {
        tr_set_flags(t, r);
    }
    if (mem)
        tr_resume(t, rec);
    return true;
}

/* ---- flags as operands: SETcc, CMOVcc ---- */

/* What both begin with: the memory operand at [r14] (checked for writing or reading), then the host's flags. False:
 * nothing was emitted. writes: as for tr_begin(). *rec: record to resume behind the instruction, or 0. */
static bool condition_begin(struct tr *t, const struct insn *i, unsigned size, bool write, uint32_t writes,
                            uint32_t *rec)
{
    unsigned mask = insn_form(i)->read;
    bool mem = !(i->flags & INSN_RM_REG), have = tr_can_have_host(t, mask);
    if (((mem || !have) && !tr_can_restore(t)) || (mem && !tr_has_ea(t, i)))
        return false;
    tr_begin(t, writes, false);
    *rec = mem ? tr_slow(t, i) : 0;
    if (mem) {
        tr_ea(t, i);
        tr_check(t, size, write, *rec);
    }
    if (mem && !write) { /* r15 may be needed for the flags */
        load_r15(t, size);
        emit_mov(&t->e, H_R14, H_R15);
    }
    tr_restore(t, mask);
    return true;
}

static bool setcc(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    uint32_t rec;
    if (!condition_begin(t, i, 1, true, mem ? 0 : tr_bit(i->rm), &rec))
        return false;
    emit_rm(&t->e, (struct how){.size = 1, .rm_byte = !mem}, OPC_0F((uint8_t)(0x90 | i->cc)), 0,
            mem ? op_r14() : tr_gpr(i->rm));
    if (rec)
        tr_resume(t, rec);
    return true;
}

static bool cmov(struct tr *t, const struct insn *i)
{
    bool mem = !(i->flags & INSN_RM_REG);
    uint32_t rec;
    if (!condition_begin(t, i, i->opsize, false, tr_bit(i->reg), &rec))
        return false;
    unsigned reg = tr_reg_in(t, i->reg);
    emit_rm(&t->e, how_of(i), OPC_0F((uint8_t)(0x40 | i->cc)), reg, mem ? op_reg(H_R14) : tr_gpr(i->rm));
    tr_reg_out(t, i->reg, reg);
    if (rec)
        tr_resume(t, rec);
    return true;
}

/* ---- the rest ---- */

static bool cbw_cwd(struct tr *t, const struct insn *i)
{
    tr_begin(t, tr_bit(i->op == OP_CBW ? REG_RAX : REG_RDX), false);
    if (i->opsize == 2)
        e8(&t->e, 0x66);
    if (i->opsize == 8)
        e8(&t->e, 0x48);
    e8(&t->e, i->op == OP_CBW ? 0x98 : 0x99);
    return true;
}

static bool bswap(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2)
        return false;
    tr_begin(t, tr_bit(i->rm), false);
    unsigned h = tr_reg_in(t, i->rm);
    if (i->opsize == 8 || h & 8)
        e8(&t->e, 0x40 | (i->opsize == 8 ? 8 : 0) | (h & 8 ? 1 : 0));
    e8(&t->e, 0x0f);
    e8(&t->e, 0xc8 | (h & 7));
    tr_reg_out(t, i->rm, h);
    return true;
}

/* ---- recipes of memory forms ---- */

/* The instruction as it would be with its memory operand in a register: for recipes. */
const struct insn *tr_register_form(struct tr *t, const struct insn *i)
{
    uint32_t at = jit_data_alloc(&t->j->arena, sizeof *i);
    struct insn *copy = jit_data(&t->j->arena, at);
    if (!at) {
        t->e.full = true;
        return i;
    }
    *copy = *i;
    copy->flags |= INSN_RM_REG;
    copy->rm = REG_RCX;
    copy->fn = interp_bind(copy, t->mode);
    return copy;
}

static bool carry_flag(struct tr *t, const struct insn *i)
{
    if (i->op == OP_CMC && !tr_can_have_carry(t))
        return false;
    tr_begin_partial(t, PARTIAL_CF);
    if (i->op == OP_CMC)
        tr_carry(t);
    unsigned kept = t->host ? FLAGS_ARITH & ~t->undefined : 0;
    e8(&t->e, i->op == OP_CMC ? 0xf5 : i->op == OP_STC ? 0xf9 : 0xf8);
    tr_set_partial(t, PARTIAL_CF, FLAG_CF, kept, 0);
    return true;
}

bool tr_integer(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_MOV:
        return mov(t, i);
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
        return mov_extend(t, i);
    case OP_LEA:
        return lea(t, i);
    case OP_INC:
    case OP_DEC:
        return inc_dec(t, i);
    case OP_NEG:
    case OP_NOT:
        return neg_not(t, i);
    case OP_ROL:
    case OP_ROR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
        return tr_shift(t, i);
    case OP_RCL:
    case OP_RCR:
        return tr_rotate_carry(t, i);
    case OP_SHLD:
    case OP_SHRD:
        return tr_shift_double(t, i);
    case OP_IMUL:
        return i->enc == ENC_M ? tr_mul(t, i) : tr_imul(t, i);
    case OP_MUL:
        return tr_mul(t, i);
    case OP_DIV:
    case OP_IDIV:
        return tr_div(t, i);
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        return tr_bit_test(t, i);
    case OP_BSF:
    case OP_BSR:
        return tr_scan(t, i);
    case OP_POPCNT:
    case OP_TZCNT:
    case OP_LZCNT:
        return tr_count(t, i);
    case OP_ANDN:
    case OP_BLSR:
    case OP_BLSMSK:
    case OP_BLSI:
    case OP_BZHI:
    case OP_BEXTR:
    case OP_PEXT:
    case OP_PDEP:
    case OP_MULX:
    case OP_RORX:
    case OP_SHLX:
    case OP_SHRX:
    case OP_SARX:
        return tr_bmi(t, i);
    case OP_MOVBE:
        return tr_movbe(t, i);
    case OP_STC:
    case OP_CLC:
    case OP_CMC:
        return carry_flag(t, i);
    case OP_SETCC:
        return setcc(t, i);
    case OP_CMOVCC:
        return cmov(t, i);
    case OP_CBW:
    case OP_CWD:
        return cbw_cwd(t, i);
    case OP_BSWAP:
        return bswap(t, i);
    case OP_XCHG:
    case OP_XADD:
    case OP_CMPXCHG:
        return tr_exchange(t, i);
    case OP_NOP:
    case OP_PREFETCH:
    case OP_ENDBR:
    case OP_LFENCE:
    case OP_MFENCE:
    case OP_SFENCE:
        return true;
    default:
        return tr_alu(t, i) || tr_misc(t, i);
    }
}
