/*
 * Stack and control flow.
 *
 * Direct jumps inside the page go straight on. Everything else looks its target up in the jump table; what is not
 * there, and whatever can fault, the interpreter's handler does.
 */
#include "cpu/jit/integer.h"

_Static_assert(sizeof(struct jit_jump) == 32 && offsetof(struct jit_jump, stamp) == 8 &&
                   offsetof(struct jit_jump, code) == 16,
               "the look-up's offsets");

/* ---- stack: 64-bit code only ---- */

static void add_rsp(struct tr *t, int32_t n)
{
    emit_lea(&t->e, 8, H_R13, (struct maddr){H_R13, -1, 0, n});
}

static void push_check(struct tr *t, uint32_t rec)
{
    emit_lea(&t->e, 8, H_R14, (struct maddr){H_R13, -1, 0, -8});
    tr_check(t, 8, true, rec);
}

static bool push(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool imm = i->enc == ENC_I, mem = !imm && !(i->flags & INSN_RM_REG);
    if (i->opsize != 8 || (mem && !tr_has_ea(t, i)))
        return false;
    tr_begin(t, tr_bit(REG_RSP), false);
    uint32_t rec = tr_slow(t, i);
    if (mem) {
        tr_ea(t, i);
        tr_check(t, 8, false, rec);
        emit_op64(e, 0x8b, H_R15, op_r14());
        emit_store(e, H_R15, FRAME(tmp));
    }
    push_check(t, rec);
    if (imm) {
        emit_op64(e, 0xc7, 0, op_r14());
        e32(e, (uint32_t)i->imm);
    } else {
        if (mem)
            emit_load(e, H_R15, FRAME(tmp));
        emit_op64(e, 0x89, mem ? H_R15 : tr_reg_in(t, i->rm), op_r14());
    }
    add_rsp(t, -8);
    tr_resume(t, rec);
    return true;
}

static bool pop(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (i->opsize != 8 || !(i->flags & INSN_RM_REG))
        return false;
    tr_begin(t, tr_bit(REG_RSP) | tr_bit(i->rm), false);
    uint32_t rec = tr_slow(t, i);
    emit_mov(e, H_R14, H_R13);
    tr_check(t, 8, false, rec);
    unsigned reg = jit_host_of[i->rm] >= 0 ? (unsigned)jit_host_of[i->rm] : H_R15;
    if (i->rm != REG_RSP)
        add_rsp(t, 8);
    emit_op64(e, 0x8b, reg, op_r14());
    tr_reg_out(t, i->rm, reg);
    tr_resume(t, rec);
    return true;
}

static bool leave(struct tr *t, const struct insn *i)
{
    if (i->opsize != 8)
        return false;
    tr_begin(t, tr_bit(REG_RSP) | tr_bit(REG_RBP), false);
    uint32_t rec = tr_slow(t, i);
    emit_mov(&t->e, H_R14, H_RBP);
    tr_check(t, 8, false, rec);
    emit_lea(&t->e, 8, H_R13, (struct maddr){H_RBP, -1, 0, 8});
    emit_op64(&t->e, 0x8b, H_RBP, op_r14());
    tr_resume(t, rec);
    return true;
}

bool tr_stack(struct tr *t, const struct insn *i)
{
    if (!t->wide)
        return false;
    switch (i->op) {
    case OP_PUSH:
        return push(t, i);
    case OP_POP:
        return pop(t, i);
    case OP_LEAVE:
        return leave(t, i);
    default:
        return false;
    }
}

/* ---- jumps ---- */

/* r14 = guest address; goes to its entry in the table with r15 = the entry, or to rec's handler. */
static void look_up(struct tr *t, uint32_t rec)
{
    struct emit *e = &t->e;
    emit_mov(e, H_R15, H_R14);            /* jit_jump_index() */
    emit_op64(e, 0xc1, 5, op_reg(H_R15)); /* shr */
    e8(e, JIT_JUMP_SHIFT);
    emit_rm(e, (struct how){.size = 4}, OPC(0x33), H_R15, op_reg(H_R14)); /* xor */
    emit_rm(e, (struct how){.size = 4}, OPC(0x81), 4, op_reg(H_R15));     /* and */
    e32(e, (1u << JIT_JUMP_BITS) - 1);
    emit_op64(e, 0xc1, 4, op_reg(H_R15)); /* shl */
    e8(e, 5);
    emit_op64(e, 0x03, H_R15, op_frame(FRAME(jumps)));
    emit_maddr(e, 8, 0x39, H_R14, (struct maddr){H_R15, -1, 0, 0}); /* cmp [r15], r14 */
    tr_jump_cold(t, emit_jcc(e, CC_NZ), COLD_SLOW, rec, 0);
    emit_load(e, H_R14, FRAME(stamp));
    emit_maddr(e, 8, 0x39, H_R14, (struct maddr){H_R15, -1, 0, 8});
    tr_jump_cold(t, emit_jcc(e, CC_NZ), COLD_SLOW, rec, 0);
}

/* r15: entry. */
static void jump_entry(struct tr *t)
{
    struct emit *e = &t->e;
    emit_maddr(e, 8, 0x8b, H_R14, (struct maddr){H_R15, -1, 0, 0});
    e8(e, 0x41); /* jmp [r15 + 16] */
    e8(e, 0xff);
    e8(e, 0x67);
    e8(e, 16);
}

static int64_t target_of(const struct tr *t, const struct insn *i, bool taken)
{
    return (int64_t)(t->b->gpa & PAGE_MASK) + i->off + i->len + (taken ? (int64_t)i->imm : 0);
}

static bool in_page(int64_t target)
{
    return target >= 0 && target < (int64_t)PAGE_SIZE;
}

/* Goes on at an offset from the page; flags are committed. */
static void go(struct tr *t, int64_t target, uint32_t rec)
{
    if (in_page(target)) {
        tr_edge(t, (int32_t)target);
        return;
    }
    tr_rip_at(t, (int32_t)target);
    look_up(t, rec);
    jump_entry(t);
}

static bool jmp_direct(struct tr *t, const struct insn *i)
{
    tr_commit_edge(t, tr_edge_lost(t, target_of(t, i, true)));
    go(t, target_of(t, i, true), tr_slow(t, i));
    return true;
}

static bool jcc(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    unsigned mask = insn_form(i)->read;
    bool have = tr_can_have_host(t, mask);
    if (have)
        tr_need_host(t, mask);
    else if (t->flags == BASE_RECIPE || t->overlay.kind)
        tr_collapse(t);
    int64_t next = target_of(t, i, false), target = target_of(t, i, true);
    tr_commit_edge(t, tr_edge_lost(t, next) | tr_edge_lost(t, target));
    uint32_t rec = tr_slow(t, i);
    tr_host_or_slow(t, mask, rec);
    if (in_page(target) && tr_edge_if(t, i->cc, (int32_t)target)) {
        go(t, next, rec);
        return true;
    }
    uint8_t *taken = emit_jcc(e, i->cc);
    go(t, next, rec);
    patch_jump(e, taken, e->p);
    go(t, target_of(t, i, true), rec);
    return true;
}

static bool call_direct(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    int64_t target = target_of(t, i, true);
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    if (!in_page(target)) {
        tr_rip_at(t, (int32_t)target);
        look_up(t, rec);
        emit_store(e, H_R15, FRAME(tmp));
    }
    push_check(t, rec);
    emit_load(e, H_R15, FRAME(page));
    emit_lea(e, 8, H_R15, (struct maddr){H_R15, -1, 0, (int32_t)target_of(t, i, false)});
    emit_op64(e, 0x89, H_R15, op_r14());
    add_rsp(t, -8);
    if (in_page(target)) {
        tr_edge(t, (int32_t)target);
        return true;
    }
    emit_load(e, H_R15, FRAME(tmp));
    jump_entry(t);
    return true;
}

/* r14 = where an indirect jump or call goes. */
static bool indirect_target(struct tr *t, const struct insn *i, uint32_t rec)
{
    struct emit *e = &t->e;
    if (i->flags & INSN_RM_REG) {
        emit_op64(e, 0x8b, H_R14, tr_gpr(i->rm));
        return true;
    }
    tr_ea(t, i);
    tr_check(t, 8, false, rec);
    emit_op64(e, 0x8b, H_R14, op_r14());
    return true;
}

static bool jump_indirect(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (i->opsize != 8 || (!(i->flags & INSN_RM_REG) && !tr_has_ea(t, i)))
        return false;
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    indirect_target(t, i, rec);
    look_up(t, rec);
    if (i->op == OP_CALL) {
        emit_store(e, H_R15, FRAME(tmp));
        push_check(t, rec);
        emit_load(e, H_R15, FRAME(page));
        emit_lea(e, 8, H_R15, (struct maddr){H_R15, -1, 0, (int32_t)target_of(t, i, false)});
        emit_op64(e, 0x89, H_R15, op_r14());
        add_rsp(t, -8);
        emit_load(e, H_R15, FRAME(tmp));
    }
    jump_entry(t);
    return true;
}

static bool ret(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (i->opsize != 8)
        return false;
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    emit_mov(e, H_R14, H_R13);
    tr_check(t, 8, false, rec);
    emit_op64(e, 0x8b, H_R14, op_r14());
    look_up(t, rec);
    add_rsp(t, 8 + (i->enc == ENC_I ? (int32_t)(uint16_t)i->imm : 0));
    jump_entry(t);
    return true;
}

bool tr_control(struct tr *t, const struct insn *i)
{
    if (i->op == OP_JCC)
        return i->opsize != 2 && jcc(t, i);
    if (i->op == OP_JMP && i->enc == ENC_D)
        return i->opsize != 2 && jmp_direct(t, i);
    if (!t->wide)
        return false;
    switch (i->op) {
    case OP_JMP:
        return jump_indirect(t, i);
    case OP_CALL:
        return i->enc == ENC_D ? i->opsize == 8 && call_direct(t, i) : jump_indirect(t, i);
    case OP_RET:
        return ret(t, i);
    default:
        return false;
    }
}
