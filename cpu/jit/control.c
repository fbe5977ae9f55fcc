/*
 * Control flow.
 *
 * Direct jumps inside the page go straight on. Everything else looks its target up in the jump table; what is not
 * there, and whatever can fault, the interpreter's handler does.
 */
#include "cpu/jit/integer.h"

#define ENTRY_SHIFT 5
_Static_assert(sizeof(struct jit_jump) == 1u << ENTRY_SHIFT && offsetof(struct jit_jump, stamp) == 8 &&
                   offsetof(struct jit_jump, code) == 16,
               "the look-up's offsets");

/* ---- jumps ---- */

/* 64-bit code pushes, pops and loads 8 bytes, or the handler does. */
static bool is_own_size(const struct tr *t, const struct insn *i)
{
    return !t->wide || i->opsize == 8;
}

static void find(struct tr *t, uint8_t *at, uint8_t *again, uint32_t rec, bool rip_lost)
{
    tr_jump_cold(t, at, COLD_FIND, rec, rip_lost);
    if (!t->e.full)
        t->cold[t->ncold - 1].back = again;
}

void jit_emit_jump_entry(struct emit *e)
{
    struct how w = {.size = 4};
    emit_rm(e, w, OPC(0x69), H_R15, op_reg(H_R14)); /* jit_jump_index(): imul */
    e32(e, JIT_JUMP_MIX);
    emit_rm(e, w, OPC(0xc1), 5, op_reg(H_R15)); /* shr */
    e8(e, 32 - JIT_JUMP_BITS - ENTRY_SHIFT);
    emit_rm(e, w, OPC(0x81), 4, op_reg(H_R15)); /* and */
    e32(e, ((1u << JIT_JUMP_BITS) - 1) << ENTRY_SHIFT);
    emit_op64(e, 0x03, H_R15, op_frame(FRAME(jumps)));
}

/* cmp [r15 + disp], r14 */
static void compare_entry(struct emit *e, int32_t disp)
{
    emit_maddr(e, 8, 0x39, H_R14, (struct maddr){H_R15, -1, 0, disp});
}

#define V(field)  ((int)offsetof(struct vcpu, field))
#define MV(field) ((int)offsetof(struct mmu_vcpu, field))
_Static_assert(sizeof(struct tlb_fetch_entry) == 24, "the index times 3 and 8");

static void load_via(struct emit *e, unsigned reg, unsigned base, int disp)
{
    emit_maddr(e, 8, 0x8b, reg, (struct maddr){(int)base, -1, 0, disp});
}

/* op reg32, imm32 with the opcode's digit. */
static void imm_to(struct emit *e, unsigned digit, unsigned reg, uint32_t imm)
{
    emit_rm(e, (struct how){.size = 4}, OPC(0x81), digit, op_reg(reg));
    e32(e, imm);
}

static void shift_by(struct emit *e, unsigned digit, unsigned reg, unsigned by)
{
    emit_op64(e, 0xc1, digit, op_reg(reg));
    e8(e, by);
}

/* rcx = mmu_vcpu.fetch's entry for the address that the jump table's at r15 is for. r14 is lost. */
static void fetch_entry(struct emit *e, int fetch)
{
    load_via(e, H_RCX, H_R15, offsetof(struct jit_jump, rip));
    shift_by(e, 5, H_RCX, PAGE_SHIFT); /* shr */
    imm_to(e, 4, H_RCX, TLB_FETCH_SIZE - 1);
    emit_lea(e, 8, H_RCX, (struct maddr){H_RCX, H_RCX, 1, 0});
    emit_load(e, H_R14, FRAME(v));
    load_via(e, H_R14, H_R14, V(mv));
    load_via(e, H_R14, H_R14, fetch);
    emit_lea(e, 8, H_RCX, (struct maddr){H_R14, H_RCX, 3, 0});
}

/* r14 = jump_key() of the fetch entry at rcx, which is lost. */
static void key_of(struct emit *e, uint32_t flip)
{
    load_via(e, H_R14, H_RCX, offsetof(struct tlb_fetch_entry, gpa));
    shift_by(e, 5, H_R14, PAGE_SHIFT); /* shr */
    shift_by(e, 4, H_R14, 24);         /* shl */
    emit_load(e, H_RCX, FRAME(v));
    emit_maddr(e, 4, 0x8b, H_RCX, (struct maddr){H_RCX, -1, 0, V(mode)});
    imm_to(e, 6, H_RCX, flip); /* xor */
    emit_op64(e, 0x0b, H_R14, op_reg(H_RCX));
    emit_load(e, H_RCX, FRAME(v));
    load_via(e, H_RCX, H_RCX, V(mv));
    emit_maddr(e, 4, 0x8b, H_RCX, (struct maddr){H_RCX, -1, 0, MV(regs.as)});
    imm_to(e, 4, H_RCX, 0xff); /* it is a byte */
    shift_by(e, 4, H_RCX, 16);
    emit_op64(e, 0x0b, H_R14, op_reg(H_RCX));
}

void jit_emit_renew(struct emit *e, const struct jit_renew *r, uint8_t *no[5])
{
    emit_store(e, H_RCX, r->keep);
    emit_load(e, H_RCX, FRAME(jit));
    load_via(e, H_R14, H_R15, offsetof(struct jit_jump, stamp));
    emit_maddr(e, 8, 0x3b, H_R14, (struct maddr){H_RCX, -1, 0, offsetof(struct jit, first_stamp)});
    no[0] = emit_jcc(e, CC_C);
    emit_load(e, H_R14, FRAME(v));
    load_via(e, H_R14, H_R14, V(code_generation));
    load_via(e, H_R14, H_R14, 0);
    emit_maddr(e, 8, 0x3b, H_R14, (struct maddr){H_RCX, -1, 0, offsetof(struct jit, first_generation)});
    no[1] = emit_jcc(e, CC_NZ);
    fetch_entry(e, r->fetch);
    load_via(e, H_R14, H_R15, offsetof(struct jit_jump, rip));
    emit_maddr(e, 8, 0x03, H_R14, (struct maddr){H_RCX, -1, 0, offsetof(struct tlb_fetch_entry, ntag)});
    emit_op64(e, 0x81, 7, op_reg(H_R14)); /* cmp */
    e32(e, PAGE_SIZE - 1);
    no[2] = emit_jcc(e, CC_A);
    emit_maddr(e, 8, 0x83, 7, (struct maddr){H_R15, -1, 0, offsetof(struct jit_jump, key)}); /* cmp */
    e8(e, 0);
    no[3] = emit_jcc(e, CC_Z);
    key_of(e, r->flip);
    emit_maddr(e, 8, 0x3b, H_R14, (struct maddr){H_R15, -1, 0, offsetof(struct jit_jump, key)});
    no[4] = emit_jcc(e, CC_NZ);
    emit_load(e, H_RCX, FRAME(jit));
    emit_maddr(e, 8, 0x83, 0, (struct maddr){H_RCX, -1, 0, offsetof(struct jit, stats.renewed)}); /* add */
    e8(e, 1);
    emit_load(e, H_R14, r->stamp);
    emit_maddr(e, 8, 0x89, H_R14, (struct maddr){H_R15, -1, 0, offsetof(struct jit_jump, stamp)});
    emit_load(e, H_RCX, r->keep);
}

void tr_look_up(struct tr *t, uint32_t rec)
{
    struct emit *e = &t->e;
    uint8_t *again = e->p;
    jit_emit_jump_entry(e);
    compare_entry(e, 0);
    find(t, emit_jcc(e, CC_NZ), again, rec, false);
    emit_load(e, H_R14, FRAME(stamp));
    compare_entry(e, offsetof(struct jit_jump, stamp));
    find(t, emit_jcc(e, CC_NZ), again, rec, true);
}

/* jmp [r15 + disp] */
static void jump_through(struct emit *e, int32_t disp)
{
    bool near = disp < 128;
    e8(e, 0x41);
    e8(e, 0xff);
    e8(e, near ? 0x67 : 0xa7);
    if (near)
        e8(e, (unsigned)disp);
    else
        e32(e, (uint32_t)disp);
}

void tr_jump_entry(struct tr *t)
{
    emit_maddr(&t->e, 8, 0x8b, H_R14, (struct maddr){H_R15, -1, 0, 0});
    jump_through(&t->e, offsetof(struct jit_jump, code));
}

/*
 * Where the target is known but for the page that runs: its entry, as it is for the page that runs now. For others
 * (a page may be mapped at many addresses) the code out of line computes it.
 */

/* r14 = the target. */
static void place_rip(struct tr *t, const struct tr_target *to)
{
    tr_rip_at(t, to->offset);
    if (to->cut)
        tr_cut16(t, H_R14);
}

static int32_t entry_disp(const struct tr *t, const struct tr_target *to)
{
    uint64_t rip = t->v->rip - (t->blocks[0].b->gpa & PAGE_MASK) + (uint64_t)(int64_t)to->offset;
    if (!t->wide)
        rip = (uint32_t)rip;
    return (int32_t)(jit_jump_index(to->cut ? (uint16_t)rip : rip) << ENTRY_SHIFT);
}

void tr_look_up_known(struct tr *t, const struct tr_target *to, uint32_t rec)
{
    struct emit *e = &t->e;
    int32_t disp = entry_disp(t, to);
    place_rip(t, to);
    emit_load(e, H_R15, FRAME(jumps));
    compare_entry(e, disp);
    uint8_t *other = emit_jcc(e, CC_NZ);
    emit_load(e, H_R14, FRAME(stamp));
    compare_entry(e, disp + (int32_t)offsetof(struct jit_jump, stamp));
    uint8_t *stale = emit_jcc(e, CC_NZ);
    tr_jump_cold(t, other, COLD_OTHER_ENTRY, rec, 0);
    if (e->full)
        return;
    struct tr_cold *c = &t->cold[t->ncold - 1];
    c->also_at = stale;
    c->back = e->p;
    c->to = *to;
}

void tr_cold_other_entry(struct tr *t, const struct tr_cold *c)
{
    struct emit *e = &t->e;
    struct tr_target to = c->to;
    uint8_t *back = c->back;
    place_rip(t, &to);
    tr_look_up(t, c->n);
    emit_lea(e, 8, H_R15, (struct maddr){H_R15, -1, 0, -entry_disp(t, &to)});
    emit_jmp_to(e, back);
}

void tr_jump_known(struct tr *t, const struct tr_target *to)
{
    place_rip(t, to);
    jump_through(&t->e, entry_disp(t, to) + (int32_t)offsetof(struct jit_jump, code));
}

static int64_t target_of(const struct tr *t, const struct insn *i, bool taken)
{
    return (int64_t)(t->b->gpa & PAGE_MASK) + i->off + i->len + (taken ? (int64_t)i->imm : 0);
}

static bool in_page(int64_t target)
{
    return target >= 0 && target < (int64_t)PAGE_SIZE;
}

/* Where a branch goes, as its operand size cuts it. */
static struct tr_target branch_target(const struct insn *i, int64_t target)
{
    return (struct tr_target){(int32_t)target, i && i->opsize == 2};
}

static void give_back(struct tr *t, unsigned units)
{
    if (!units)
        return;
    emit_op64(&t->e, 0x83, 0, op_frame(FRAME(budget))); /* add */
    e8(&t->e, units);
}

/* A branch that leads nowhere faults itself: its handler does it. */
void tr_go(struct tr *t, const struct insn *branch, int64_t target, unsigned units)
{
    if (in_page(target) || !branch)
        give_back(t, units);
    if (in_page(target)) {
        tr_edge(t, (int32_t)target);
        return;
    }
    struct tr_target to = branch_target(branch, target);
    tr_look_up_known(t, &to, branch ? tr_slow(t, branch) : 0);
    if (branch)
        give_back(t, units);
    tr_jump_known(t, &to);
}

static bool jmp_direct(struct tr *t, const struct insn *i)
{
    int64_t target = target_of(t, i, true);
    if (tr_follow(t, target))
        return true;
    tr_commit_edge(t, tr_edge_lost(t, target));
    tr_go(t, i, target, 0);
    return true;
}

/* The host's flags are to be the guest's, as far as a condition looks at them. */
static void flags_for(struct tr *t, const struct insn *i)
{
    unsigned mask = insn_form(i)->read;
    if (tr_can_have_host(t, mask)) {
        tr_need_host(t, mask);
        return;
    }
    if (t->partial == PARTIAL_DIV)
        tr_collapse(t);
    tr_commit(t);
    tr_restore(t, mask);
}

static bool jcc(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    int64_t next = target_of(t, i, false), target = target_of(t, i, true);
    bool taken;
    flags_for(t, i);
    if (tr_follow_branch(t, next, target, &taken)) {
        tr_leave_trace(t, emit_jcc(e, taken ? i->cc ^ 1u : i->cc), taken ? NULL : i, taken ? next : target);
        return true;
    }
    tr_commit_edge(t, tr_edge_lost(t, next) | tr_edge_lost(t, target));
    if (in_page(target) && tr_edge_if(t, i->cc, (int32_t)target)) {
        tr_go(t, NULL, next, 0);
        return true;
    }
    uint8_t *at = emit_jcc(e, i->cc);
    tr_go(t, NULL, next, 0);
    patch_jump(e, at, e->p);
    tr_go(t, i, target, 0);
    return true;
}

/* The return address onto the stack. */
static void push_return(struct tr *t, const struct insn *i, uint32_t rec)
{
    struct emit *e = &t->e;
    tr_stack_check(t, -(int)i->opsize, i->opsize, true, rec);
    emit_load(e, H_R15, FRAME(page));
    emit_lea(e, 8, H_R15, (struct maddr){H_R15, -1, 0, (int32_t)target_of(t, i, false)});
    emit_rm(e, (struct how){.size = i->opsize}, OPC(0x89), H_R15, op_r14());
    tr_stack_adjust(t, -(int)i->opsize);
}

static bool call_direct(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    int64_t target = target_of(t, i, true);
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    struct tr_target to = branch_target(i, target);
    if (!in_page(target)) {
        tr_look_up_known(t, &to, rec);
        emit_store(e, H_R15, FRAME(tmp));
    }
    push_return(t, i, rec);
    if (in_page(target)) {
        if (!tr_follow(t, target))
            tr_edge(t, (int32_t)target);
        return true;
    }
    emit_load(e, H_R15, FRAME(tmp));
    tr_jump_known(t, &to);
    return true;
}

/* r14 = an operand of operand size. */
static void load_target(struct tr *t, const struct insn *i, struct opnd from)
{
    if (i->opsize == 2)
        emit_rm(&t->e, (struct how){.size = 4}, OPC_0F(0xb7), H_R14, from); /* movzx */
    else
        emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x8b), H_R14, from);
}

/* r14 = where an indirect jump or call goes. */
static bool indirect_target(struct tr *t, const struct insn *i, uint32_t rec)
{
    if (i->flags & INSN_RM_REG) {
        load_target(t, i, tr_gpr(i->rm));
        return true;
    }
    tr_ea(t, i);
    tr_check(t, i->opsize, false, rec);
    load_target(t, i, op_r14());
    return true;
}

static bool jump_indirect(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (!is_own_size(t, i) || (!(i->flags & INSN_RM_REG) && !tr_has_ea(t, i)))
        return false;
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    indirect_target(t, i, rec);
    tr_look_up(t, rec);
    if (i->op == OP_CALL) {
        emit_store(e, H_R15, FRAME(tmp));
        push_return(t, i, rec);
        emit_load(e, H_R15, FRAME(tmp));
    }
    tr_jump_entry(t);
    return true;
}

static bool ret(struct tr *t, const struct insn *i)
{
    if (!is_own_size(t, i))
        return false;
    tr_commit(t);
    uint32_t rec = tr_slow(t, i);
    tr_stack_check(t, 0, i->opsize, false, rec);
    load_target(t, i, op_r14());
    tr_look_up(t, rec);
    tr_stack_adjust(t, i->opsize + (i->enc == ENC_I ? (int32_t)(uint16_t)i->imm : 0));
    tr_jump_entry(t);
    return true;
}

bool tr_control(struct tr *t, const struct insn *i)
{
    if (i->enc == ENC_D && !tr_branch_is_native(t->mode, i))
        return false;
    switch (i->op) {
    case OP_JCC:
        return jcc(t, i);
    case OP_JMP:
        return i->enc == ENC_D ? jmp_direct(t, i) : jump_indirect(t, i);
    case OP_CALL:
        return i->enc == ENC_D ? is_own_size(t, i) && call_direct(t, i) : jump_indirect(t, i);
    case OP_RET:
        return ret(t, i);
    case OP_SYSCALL:
        return tr_syscall(t, i);
    case OP_SYSRET:
        return tr_sysret(t, i);
    default:
        return false;
    }
}
