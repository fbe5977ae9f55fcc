/*
 * Streams: accesses that stay on a page for a while have that page at hand.
 *
 * In a loop, what is addressed off registers that move by small known steps or not at all, or off RIP, FS or GS, mostly
 * meets the page that it met before. The frame has a few stream slots, each with what the TLB said of one page; such an
 * access looks into its slot and leaves the TLB alone. Another page is fetched from the TLB by a thunk. Slots are given
 * out in turn, so that regions that run in turn seldom have the same ones; those of the stack are everyone's.
 *
 * Steady is a register that has, in all loops around the access, only steps and copies of steady registers written to
 * it: one that is loaded from memory may point anywhere each time, and a slot that is missed costs more than it saves.
 *
 * A slot is empty if its room is 0. All slots are emptied when compiled code is entered, when an entry of the TLB was
 * dropped or replaced (mmu_vcpu.data_epoch), and when the data table becomes another one that allows less. So a slot
 * has what the TLB has; behind STAC it may be of the table before, which allows nothing that the new one does not.
 */
#include "cpu/jit/internal.h"

#define INNER_STEP 128 /* more, and pages change too often */
#define OUTER_STEP 4096
#define ROOM       (PAGE_SIZE - STREAM_SIZE + 1)
#define NTAG(s)    (FRAME(stream_ntag) + 8 * (int)(s))
#define HOST(s)    (FRAME(stream_host) + 8 * (int)(s))
#define ROOM_OF(s) (FRAME(stream_room) + 8 * (int)(s))

/* ---- which registers are steady ---- */

static uint32_t address_registers(const struct insn *i)
{
    return (i->base < 16 ? tr_bit(i->base) : 0) | (i->index < 16 ? tr_bit(i->index) : 0);
}

static bool is_step(const struct insn *i, int64_t most)
{
    unsigned reg;
    int64_t by;
    bool narrow = i->flags & INSN_RM_REG && i->opsize == 4;
    if (narrow && (i->op == OP_INC || i->op == OP_DEC))
        return true;
    if (narrow && (i->op == OP_ADD || i->op == OP_SUB) && i->enc == ENC_MI && !(i->flags & INSN_PATCHED)) {
        by = (int32_t)i->imm;
        return by >= -most && by <= most;
    }
    return tr_is_step(i, &reg, &by) && by >= -most && by <= most;
}

/* i gives its register the same value each time. */
static bool is_constant(const struct insn *i)
{
    bool reg = i->flags & INSN_RM_REG && i->opsize >= 4;
    return reg && ((i->op == OP_XOR && i->enc != ENC_MI && i->reg == i->rm) || (i->op == OP_MOV && i->enc == ENC_MI));
}

/* What i writes that is not made of steady registers. */
static uint32_t unsteadied_by(const struct tr *t, const struct insn *i, uint32_t steady, int64_t most)
{
    bool copy = i->op == OP_MOV && i->opsize == 8 && i->flags & INSN_RM_REG;
    if (i->op == OP_JCC || (i->op == OP_JMP && i->enc == ENC_D) || is_step(i, most) || is_constant(i))
        return 0;
    if (copy && i->enc == ENC_RM && steady & tr_bit(i->rm))
        return 0;
    if (copy && i->enc == ENC_MR && steady & tr_bit(i->reg))
        return 0;
    if (i->op == OP_LEA && !(address_registers(i) & ~steady))
        return 0;
    return tr_written(t, i);
}

static int32_t begins(const struct block *b)
{
    return (int32_t)(b->gpa & PAGE_MASK);
}

/* A loop: blocks of the region from an offset of the page on, and up to that of the block that jumps back. */
struct loop {
    int32_t from, to;
};

static bool is_in(const struct loop *l, const struct block *b)
{
    return begins(b) >= l->from && begins(b) <= l->to;
}

/* The smallest loop that b is in, or the largest. */
static bool loop_around(const struct tr *t, const struct block *b, bool largest, struct loop *found)
{
    bool any = false;
    for (unsigned k = 0; k < t->nblocks; k++) {
        int32_t next[2];
        tr_successors(t->blocks[k].b, next);
        for (unsigned s = 0; s < 2; s++) {
            struct loop l = {next[s], begins(t->blocks[k].b)};
            if (next[s] < 0 || l.from > l.to || !is_in(&l, b))
                continue;
            if (any && (l.to - l.from > found->to - found->from) != largest)
                continue;
            *found = l;
            any = true;
        }
    }
    return any;
}

/* Takes from `steady` what is not steady in the loop. */
static uint32_t steady_in(const struct tr *t, const struct loop *l, uint32_t steady, int64_t most)
{
    uint32_t before;
    do {
        before = steady;
        for (unsigned k = 0; k < t->nblocks; k++) {
            const struct block *b = t->blocks[k].b;
            if (!is_in(l, b))
                continue;
            for (unsigned n = 0; n < b->n; n++)
                steady &= ~unsteadied_by(t, &b->insn[n], steady, most);
        }
    } while (steady != before);
    return steady;
}

void tr_streams_plan(struct tr *t)
{
    struct loop inner = {0}, outer = {0};
    if (!t->wide)
        return;
    for (unsigned k = 0; k < t->nblocks; k++) {
        const struct block *b = t->blocks[k].b;
        if (!loop_around(t, b, false, &inner) || !loop_around(t, b, true, &outer))
            continue;
        t->blocks[k].steady = steady_in(t, &outer, steady_in(t, &inner, 0xffff, INNER_STEP), OUTER_STEP);
    }
}

/* ---- which slot ---- */

static bool is_same(const struct tr_stream *a, const struct tr_stream *b)
{
    return a->base == b->base && a->index == b->index && a->seg == b->seg && a->page == b->page;
}

/* Slots of odd numbers are for writing, the others for reading: a page that may be read may not be written yet. */
static unsigned slot_for(struct tr *t, struct tr_stream want, bool write)
{
    struct tr_stream *streams = t->streams[write];
    unsigned n = t->nstreams[write] < STREAMS_GIVEN ? t->nstreams[write] : STREAMS_GIVEN, k = 0;
    while (k < n && !is_same(&streams[k], &want))
        k++;
    if (k == n) {
        k = t->nstreams[write]++ % STREAMS_GIVEN;
        streams[k] = want;
        streams[k].slot = t->j->streams_given++ % STREAMS_GIVEN;
    }
    return STREAM_GIVEN + 2 * streams[k].slot + write;
}

int tr_stream_of_stack(const struct tr *t, bool write)
{
    return !(t->steady & tr_bit(REG_RSP)) ? STREAM_NONE : write ? STREAM_STACK_WRITE : STREAM_STACK_READ;
}

int tr_stream_of(struct tr *t, const struct insn *i, bool write)
{
    bool thread = i->seg == SEG_FS || i->seg == SEG_GS;
    if (!t->steady || i->adsize != 8 || i->flags & INSN_DISP64 || address_registers(i) & ~t->steady)
        return STREAM_NONE;
    if (i->base == REG_RSP && i->index >= 16 && !thread)
        return tr_stream_of_stack(t, write);
    struct tr_stream want = {.base = i->base, .index = i->index, .seg = thread ? i->seg : SEG_NONE};
    want.page = (int32_t)((i->disp + (i->base == REG_IP ? (int64_t)begins(t->b) : 0)) >> PAGE_SHIFT);
    return (int)slot_for(t, want, write);
}

/* ---- code ---- */

void tr_check_stream(struct tr *t, int s, unsigned size, uint8_t *at[2])
{
    struct emit *e = &t->e;
    at[1] = NULL;
    emit_op64(e, 0x03, H_R14, op_frame(NTAG(s)));
    emit_op64(e, 0x3b, H_R14, op_frame(ROOM_OF(s))); /* cmp */
    at[0] = emit_jcc(e, CC_NC);
    if (size <= STREAM_SIZE)
        return;
    emit_op64(e, 0x81, 7, op_reg(H_R14)); /* cmp */
    e32(e, PAGE_SIZE - size);
    at[1] = emit_jcc(e, CC_A);
}

void tr_add_stream_host(struct tr *t, int s)
{
    emit_op64(&t->e, 0x03, H_R14, op_frame(HOST(s)));
}

void tr_cold_stream(struct tr *t, int s, unsigned size, uint8_t *miss[2])
{
    struct emit *e = &t->e;
    e8(e, 0xe8); /* call */
    e32(e, 0);
    patch_jump(e, e->p, t->j->thunk_stream[s] - e->exec);
    miss[0] = emit_jcc(e, CC_C);
    miss[1] = NULL;
    if (size == 1)
        return;
    emit_op64(e, 0x81, 7, op_reg(H_R14)); /* cmp */
    e32(e, PAGE_SIZE - size);
    miss[1] = emit_jcc(e, CC_A);
}

/* ---- thunks ---- */

#define CALLED 8 /* the frame is above the return address */

/*
 * r14: what tr_check_stream() left there for an access of one byte. Carry: the TLB does not allow it, and r14 is lost.
 * Else the slot is the page's, and r14 is the offset in it.
 */
static void emit_fetch(struct emit *e, bool has_rorx, unsigned s, bool write)
{
    struct maddr tag = {H_R15, -1, 0, write ? 8 : 0}, host = {H_R15, -1, 0, 16};
    emit_op64(e, 0x2b, H_R14, op_frame(CALLED + NTAG(s)));
    jit_emit_tlb_look(e, has_rorx, CALLED, write);
    emit_op64(e, 0x81, 7, op_reg(H_R14)); /* cmp */
    e32(e, PAGE_SIZE - 1);
    uint8_t *miss = emit_jcc(e, CC_A);
    emit_store(e, H_R14, CALLED + ROOM_OF(s));
    emit_maddr(e, 8, 0x8b, H_R14, tag);
    emit_store(e, H_R14, CALLED + NTAG(s));
    emit_maddr(e, 8, 0x8b, H_R14, host);
    emit_store(e, H_R14, CALLED + HOST(s));
    emit_load(e, H_R15, CALLED + FRAME(jit));
    emit_maddr(e, 8, 0xff, 0, (struct maddr){H_R15, -1, 0, (int)offsetof(struct jit, stats.streamed)}); /* inc */
    emit_load(e, H_R14, CALLED + ROOM_OF(s));
    emit_store_imm(e, CALLED + ROOM_OF(s), ROOM);
    e8(e, 0xf8); /* clc */
    e8(e, 0xc3);
    patch_jump(e, miss, e->p);
    e8(e, 0xf9); /* stc */
    e8(e, 0xc3);
}

void jit_emit_forget_streams(struct emit *e, unsigned scratch, int shift)
{
    emit_rm(e, (struct how){.size = 4}, OPC(0x31), scratch, op_reg(scratch)); /* xor */
    for (unsigned s = 0; s < JIT_STREAMS; s++)
        emit_store(e, scratch, shift + ROOM_OF(s));
}

void jit_make_stream_thunks(struct jit *j, struct emit *e)
{
    for (unsigned s = 0; s < JIT_STREAMS; s++) {
        j->thunk_stream[s] = e->p + e->exec;
        emit_fetch(e, j->has_rorx, s, s & 1);
    }
    j->thunk_forget = e->p + e->exec;
    jit_emit_forget_streams(e, H_R15, CALLED);
    e8(e, 0xc3);
}

void tr_forget_streams(struct tr *t)
{
    e8(&t->e, 0xe8); /* call */
    e32(&t->e, 0);
    patch_jump(&t->e, t->e.p, t->j->thunk_forget - t->e.exec);
}
