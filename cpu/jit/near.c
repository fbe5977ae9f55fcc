/*
 * Accesses near each other: one check for several.
 *
 * Accesses of a block off one register, which moves by known distances at most, form a group if they lie within
 * NEAR_SPAN bytes. The first checks the whole range, for writing if any of them writes, and leaves the host address of
 * the range's beginning in a slot of the frame; the others take it from there. Where the range crosses a page or the
 * TLB does not allow all of it, the slot is 0 and each access has its own check, out of line, in its turn: the check of
 * a range is a probe, it has no effect and decides nothing but the way. Whenever C has run inside a block the slots are
 * cleared, since translations may have changed.
 */
#include "cpu/jit/internal.h"

#define NEAR_SPAN 1024
#define BASES     17 /* general registers, and the page for what is relative to RIP */

struct near_access {
    bool is_one, write;
    uint8_t base, version, size;
    int64_t offset; /* from the register's value when it had this version first */
};

/* What is known of registers at a place of the block. */
struct near_state {
    uint8_t version[BASES];
    int64_t moved[BASES];
};

static unsigned base_number(const struct insn *i)
{
    return i->base == REG_IP ? 16 : i->base;
}

static bool is_simple(const struct tr *t, const struct insn *i)
{
    return insn_has_mem(i) && i->adsize == 8 && !(i->flags & (INSN_SEGCHK | INSN_DISP64)) && i->index == REG_ZERO &&
           i->base != REG_ZERO && i->seg != SEG_FS && i->seg != SEG_GS && tr_has_ea(t, i);
}

/* A call or return whose access to the stack is its only one. */
static bool is_call_or_return(const struct insn *i)
{
    bool mem = i->op == OP_CALL && i->enc != ENC_D && !(i->flags & INSN_RM_REG);
    return (i->op == OP_CALL || i->op == OP_RET) && i->opsize == 8 && !mem;
}

static void follow(const struct tr *t, struct near_state *s, const struct insn *i)
{
    unsigned step = BASES;
    int64_t by = 0;
    uint32_t writes = tr_written(t, i);
    if (tr_is_step(i, &step, &by))
        s->moved[step] += by;
    else
        step = BASES;
    for (unsigned r = 0; r < 16; r++)
        if (r != step && writes >> r & 1) {
            s->version[r]++;
            s->moved[r] = 0;
        }
}

/* ---- which accesses ---- */

static struct near_access access_of(const struct tr *t, const struct near_state *s, const struct insn *i)
{
    struct near_access a = {.size = i->opsize};
    enum effect effect = tr_effect(i);
    bool stack = is_call_or_return(i) || (tr_is_stack_step(i) && (i->enc == ENC_I || i->flags & INSN_RM_REG));
    unsigned vector = effect == EFFECT_UNKNOWN && !stack ? tr_is_vector(t, i) : VEC_NONE;
    if (stack) {
        a.base = REG_RSP;
        a.write = i->op == OP_PUSH || i->op == OP_CALL;
        a.offset = a.write ? -8 : 0;
    } else {
        if (!is_simple(t, i) || i->op == OP_LEA || (effect == EFFECT_UNKNOWN && !vector))
            return a;
        a.base = (uint8_t)base_number(i);
        a.offset = i->base == REG_IP ? i->disp + (int64_t)(t->b->gpa & PAGE_MASK) : i->disp;
        a.write = effect == EFFECT_WRITE || effect == EFFECT_CHANGE;
        if (vector) {
            a.size = i->opsize > i->srcsize ? i->opsize : i->srcsize;
            a.write = i->enc == ENC_MR || i->enc == ENC_MRI;
        }
    }
    a.is_one = true;
    a.version = s->version[a.base];
    a.offset += s->moved[a.base];
    return a;
}

static bool is_same_base(const struct near_access *a, const struct near_access *b)
{
    return b->is_one && b->base == a->base && b->version == a->version;
}

/* The group that access `first` leads, in slot `slot`. Returns its last member, or `first` if it has no other. */
static unsigned gather(struct tr *t, const struct near_access *a, unsigned first, unsigned slot)
{
    int64_t low = a[first].offset, high = low + a[first].size;
    unsigned last = first;
    bool write = a[first].write;
    for (unsigned k = first + 1; k < t->b->n; k++) {
        if (t->near[k].slot || !is_same_base(&a[first], &a[k]))
            continue;
        int64_t from = a[k].offset < low ? a[k].offset : low;
        int64_t to = a[k].offset + a[k].size > high ? a[k].offset + a[k].size : high;
        if (to - from > NEAR_SPAN)
            continue;
        low = from;
        high = to;
        write |= a[k].write;
        t->near[k].slot = (uint8_t)(slot + 1);
        last = k;
    }
    if (last == first)
        return first;
    t->near[first].slot = (uint8_t)(slot + 1);
    t->near[first].leads = true;
    for (unsigned k = first; k <= last; k++) {
        if (t->near[k].slot != slot + 1)
            continue;
        t->near[k].within = (int16_t)(a[k].offset - low);
        t->near[k].span = (uint16_t)(high - low);
        t->near[k].write = write;
        t->near[k].size = a[k].size;
    }
    return last;
}

void tr_near_plan(struct tr *t)
{
    struct near_access a[BLOCK_MAX_INSNS];
    struct near_state s = {0};
    unsigned busy[NEAR_SLOTS] = {0}; /* first instruction at which the slot is free again */
    memset(t->near, 0, sizeof t->near);
    t->near_set = 0;
    if (!t->wide)
        return;
    for (unsigned k = 0; k < t->b->n; k++) {
        const struct insn *i = &t->b->insn[k];
        a[k] = access_of(t, &s, i);
        t->near[k].disp = a[k].offset - s.moved[a[k].base];
        follow(t, &s, i);
    }
    for (unsigned k = 0; k < t->b->n; k++) {
        unsigned slot = 0;
        if (!a[k].is_one || t->near[k].slot)
            continue;
        while (slot < NEAR_SLOTS && busy[slot] > k)
            slot++;
        if (slot < NEAR_SLOTS)
            busy[slot] = gather(t, a, k, slot) + 1;
    }
}

/* ---- code ---- */

/* r14 = the register's value now + disp. */
static void address(struct tr *t, unsigned base, int64_t disp)
{
    struct emit *e = &t->e;
    unsigned h = H_R14;
    if (base == 16)
        emit_load(e, H_R14, FRAME(page));
    else if (jit_host_of[base] >= 0)
        h = (unsigned)jit_host_of[base];
    else
        emit_load(e, H_R14, FRAME(gpr) + 8 * ((int)base - 13));
    if (disp)
        emit_lea(e, 8, H_R14, (struct maddr){(int)h, -1, 0, (int32_t)disp});
    else if (h != H_R14)
        emit_mov(e, H_R14, h);
}

static int slot_of(unsigned slot)
{
    return FRAME(near) + 8 * ((int)slot - 1);
}

void tr_near_begin(struct tr *t)
{
    t->is_near = false;
    if (t->near[t->k].leads)
        t->near_set &= ~(1u << t->near[t->k].slot);
}

bool tr_is_near(const struct tr *t, const struct insn *i)
{
    const struct tr_near *n = &t->near[t->k];
    return i == &t->b->insn[t->k] && n->slot && (n->leads || t->near_set >> n->slot & 1);
}

/* r14: from the address of the range to the host's, by a stream or by the TLB. */
static struct tr_cold *lead(struct tr *t, int s, const struct tr_near *n, uint32_t rec)
{
    struct emit *e = &t->e;
    uint8_t *at[2] = {0};
    if (s == STREAM_NONE) {
        tr_check_entry(t, n->span, n->write);
        at[0] = emit_jcc(e, CC_A);
    } else {
        tr_check_stream(t, s, n->span, at);
    }
    tr_jump_cold(t, at[0], COLD_NEAR, rec, 0);
    struct tr_cold *c = &t->cold[t->ncold - 1];
    c->also_at = at[1];
    c->fetched = e->p;
    c->stream = s;
    if (s == STREAM_NONE)
        emit_maddr(e, 8, 0x03, H_R14, (struct maddr){H_R15, -1, 0, 16});
    else
        tr_add_stream_host(t, s);
    return c;
}

void tr_check_near(struct tr *t, unsigned size, bool write, uint32_t rec)
{
    const struct insn *i = &t->b->insn[t->k];
    const struct tr_near *n = &t->near[t->k];
    struct emit *e = &t->e;
    struct tr_cold *c;
    bool stack = i->op == OP_PUSH || i->op == OP_POP || is_call_or_return(i);
    unsigned base = stack ? REG_RSP : base_number(i);
    t->near_set |= 1u << n->slot;
    t->operand = NULL;
    t->on_stack = false;
    if (size > n->size || (write && !n->write)) { /* not as planned: alone */
        if (n->leads)
            emit_store_imm(e, slot_of(n->slot), 0);
        address(t, base, n->disp);
        tr_check(t, size, write, rec);
        return;
    }
    if (n->leads) {
        address(t, base, n->disp - n->within);
        c = lead(t, stack ? tr_stream_of_stack(t, n->write) : tr_stream_of(t, i, n->write), n, rec);
        emit_store(e, H_R14, slot_of(n->slot));
    } else {
        emit_load(e, H_R14, slot_of(n->slot));
        emit_op64(e, 0x85, H_R14, op_reg(H_R14)); /* test */
        tr_jump_cold(t, emit_jcc(e, CC_Z), COLD_NEAR, rec, 0);
        c = &t->cold[t->ncold - 1];
        c->stream = STREAM_NONE;
    }
    tr_clobber(t);
    e->r14_disp = n->within;
    if (e->full)
        return;
    c->back = e->p;
    c->near = *n;
    c->near_base = (uint8_t)base;
    c->near_size = (uint8_t)size;
    c->near_write = write;
}

/* The access alone, with the r14 that its group would have. */
void tr_cold_near(struct tr *t, const struct tr_cold *c)
{
    struct emit *e = &t->e;
    uint8_t *alone[2];
    if (c->stream != STREAM_NONE) {
        tr_cold_stream(t, c->stream, c->near.span, alone);
        emit_jmp_to(e, c->fetched);
        patch_jump(e, alone[0], e->p);
        if (alone[1])
            patch_jump(e, alone[1], e->p);
    }
    if (c->near.leads)
        emit_store_imm(e, slot_of(c->near.slot), 0);
    address(t, c->near_base, c->near.disp);
    tr_check_entry(t, c->near_size, c->near_write);
    uint8_t *miss = emit_jcc(e, CC_A);
    emit_maddr(e, 8, 0x03, H_R14, (struct maddr){H_R15, -1, 0, 16});
    if (c->near.within)
        emit_lea(e, 8, H_R14, (struct maddr){H_R14, -1, 0, -(int)c->near.within});
    emit_jmp_to(e, c->back);
    patch_jump(e, miss, e->p);
    tr_slow_now(t, c->n);
}
