/*
 * Memory operands: effective addresses, the inline TLB check, and handlers for everything that it does not let through.
 */
#include "cpu/jit/internal.h"

_Static_assert(sizeof(struct tlb_entry) == 32, "the check shifts by 5");
_Static_assert(offsetof(struct tlb_entry, ntag_r) == 0 && offsetof(struct tlb_entry, ntag_w) == 8 &&
                   offsetof(struct tlb_entry, host) == 16,
               "the check's offsets");

unsigned tr_reg_in(struct tr *t, unsigned g)
{
    int h = jit_host_of[g & 15];
    if (g & BYTE_HIGH)
        return H_HIGH | (g & 3);
    if (h >= 0)
        return (unsigned)h;
    emit_load(&t->e, H_R15, FRAME(gpr) + 8 * ((int)g - 13));
    return H_R15;
}

void tr_reg_out(struct tr *t, unsigned g, unsigned h)
{
    if (!(g & BYTE_HIGH) && jit_host_of[g] < 0)
        emit_store(&t->e, h, FRAME(gpr) + 8 * ((int)g - 13));
}

void tr_zero_upper(struct tr *t, unsigned g, unsigned size)
{
    if (size != 4 || g & BYTE_HIGH || jit_host_of[g] >= 0)
        return;
    emit_rm(&t->e, (struct how){.size = 4}, OPC(0xc7), 0, op_frame(FRAME(gpr) + 8 * ((int)g - 13) + 4));
    e32(&t->e, 0);
}

/* Four bytes of a register in the frame are not changed there: whoever loads all eight would wait for two stores. */
struct opnd tr_gpr_change(struct tr *t, unsigned g, unsigned size)
{
    if (size != 4 || g & BYTE_HIGH || jit_host_of[g] >= 0)
        return tr_gpr(g);
    emit_rm(&t->e, (struct how){.size = 4}, OPC(0x8b), H_R15, tr_gpr(g));
    return op_reg(H_R15);
}

void tr_gpr_changed(struct tr *t, unsigned g, unsigned size)
{
    if (size == 4)
        tr_reg_out(t, g, H_R15);
}

/* ---- records and cold code ---- */

void tr_jump_cold(struct tr *t, uint8_t *at, int kind, uint32_t n, int32_t target)
{
    if (t->ncold == REGION_COLD) {
        t->e.full = true;
        return;
    }
    t->cold[t->ncold++] = (struct tr_cold){.at = at, .kind = kind, .n = n, .target = target};
}

void tr_load_address(struct tr *t, unsigned reg, const void *address)
{
    struct emit *e = &t->e;
    uint32_t at = jit_data_alloc(&t->j->arena, sizeof address);
    uint8_t *s = jit_data(&t->j->arena, at);
    if (!at) {
        e->full = true;
        return;
    }
    memcpy(s, &address, sizeof address);
    e8(e, 0x48 | (reg & 8 ? 4 : 0)); /* mov reg, [rip + s] */
    e8(e, 0x8b);
    e8(e, 5 | (reg & 7) << 3);
    e32(e, (uint32_t)(int32_t)(s - (e->p + 4 + e->exec)));
}

uint32_t tr_slow(struct tr *t, const struct insn *i)
{
    uint32_t at = jit_data_alloc(&t->j->arena, sizeof(struct jit_slow));
    struct jit_slow *s = jit_data(&t->j->arena, at);
    if (!at) {
        t->e.full = true;
        return 0;
    }
    s->block = t->b;
    s->before = (uint16_t)t->before;
    s->trace = t->trace;
    s->insn = i;
    s->note = t->note;
    if (t->flags == BASE_RECIPE) {
        if (!t->base_rec)
            t->base_rec = tr_recipe(t, t->base);
        s->recipe = t->base_rec;
        s->recipe_fresh = true;
    }
    if (t->overlay.kind) {
        if (!t->overlay_rec)
            t->overlay_rec = tr_recipe(t, t->overlay);
        s->overlay = t->overlay_rec;
    }
    s->partial = t->partial;
    return at;
}

void tr_resume(struct tr *t, uint32_t rec)
{
    struct jit_slow *s = jit_data(&t->j->arena, rec);
    if (rec)
        s->resume = t->e.p + t->e.exec;
}

void tr_slow_now(struct tr *t, uint32_t rec)
{
    e8(&t->e, 0x41); /* mov r15d, rec */
    e8(&t->e, 0xbf);
    e32(&t->e, rec);
    emit_jmp_to(&t->e, t->j->thunk_slow - t->e.exec);
}

void tr_handler(struct tr *t, const struct insn *i)
{
    tr_commit_sources(t);
    uint32_t rec = tr_slow(t, i);
    if (rec)
        ((struct jit_slow *)jit_data(&t->j->arena, rec))->by_handler = true;
    tr_slow_now(t, rec);
    t->j->stats.handled++;
    if (i->flags & INSN_ENDS)
        return;
    tr_resume(t, rec);
    t->flags = BASE_FRAME;
    t->overlay.kind = RECIPE_NONE;
    t->base_rec = t->overlay_rec = 0;
    t->note = NULL;
    t->partial = PARTIAL_NONE;
    t->image = true;
    t->known = false;
    t->host = true;
    t->undefined = 0;
}

/* ---- effective addresses ---- */

static bool fits32(int64_t x)
{
    return x == (int32_t)x;
}

static int64_t ip_disp(const struct tr *t, const struct insn *i)
{
    return (int64_t)i->disp + (int64_t)(t->b->gpa & PAGE_MASK);
}

bool tr_has_ea(const struct tr *t, const struct insn *i)
{
    return i->base != REG_IP || (fits32(ip_disp(t, i)) && i->index != REG_2G);
}

/* A register of an address in a host register, `scratch` if it has none; -1: there is none. */
static int address_reg(struct tr *t, unsigned g, unsigned scratch)
{
    if (g == REG_ZERO)
        return -1;
    if (g == REG_IP) {
        emit_load(&t->e, scratch, FRAME(page));
        return (int)scratch;
    }
    if (jit_host_of[g] >= 0)
        return jit_host_of[g];
    emit_load(&t->e, scratch, FRAME(gpr) + 8 * ((int)g - 13));
    return (int)scratch;
}

struct maddr tr_maddr(struct tr *t, const struct insn *i)
{
    struct maddr m = {.scale = i->scale, .disp = i->base == REG_IP ? (int32_t)ip_disp(t, i) : i->disp};
    m.base = address_reg(t, i->base, H_R14);
    m.index = address_reg(t, i->index, H_R15);
    return m;
}

void tr_offset(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (i->flags & INSN_DISP64) {
        emit_imm(e, H_R14, i->adsize == 8 ? i->imm : i->adsize == 4 ? (uint32_t)i->imm : (uint16_t)i->imm);
    } else {
        struct maddr m = tr_maddr(t, i);
        if (m.base >= 0 && m.index < 0 && !m.disp && i->adsize == 8)
            emit_mov(e, H_R14, (unsigned)m.base);
        else
            emit_lea(e, i->adsize == 8 ? 8 : 4, H_R14, m);
        if (i->adsize == 2)
            tr_cut16(t, H_R14);
    }
}

void tr_ea(struct tr *t, const struct insn *i)
{
    t->operand = i;
    t->is_near = tr_is_near(t, i);
    if (t->is_near)
        return;
    tr_offset(t, i);
    tr_linear(t, i);
}

void tr_linear(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    t->segment = i->flags & INSN_SEGCHK ? i->seg : SEG_NONE;
    if (t->wide && (i->seg == SEG_FS || i->seg == SEG_GS)) {
        emit_load(e, H_R15, FRAME(v));
        emit_maddr(e, 8, 0x03, H_R14,
                   (struct maddr){H_R15, -1, 0, (int)(offsetof(struct vcpu, seg_base) + 8 * (size_t)i->seg)});
        tr_clobber(t);
    }
}

/* ---- segments that are not flat ---- */

#define V_SEG(field, seg) ((int)(offsetof(struct vcpu, field) + 8 * (size_t)(seg)))

void tr_cut16(struct tr *t, unsigned reg)
{
    emit_rm(&t->e, (struct how){.size = 4}, OPC_0F(0xb7), reg, op_reg(reg)); /* movzx */
}

/* r14: offset in a segment to linear address, if `size` bytes may be reached there. */
static void through_segment(struct tr *t, unsigned size, bool write, uint32_t rec)
{
    struct emit *e = &t->e;
    int seg = t->segment, room = V_SEG(seg_room[write], seg);
    t->segment = SEG_NONE;
    emit_load(e, H_R15, FRAME(v));
    emit_op64(e, 0x83, 0, op_reg(H_R14)); /* add: offsets have 32 bits */
    e8(e, size);
    emit_maddr(e, 8, 0x3b, H_R14, (struct maddr){H_R15, -1, 0, room});
    tr_jump_cold(t, emit_jcc(e, CC_A), COLD_SLOW, rec, 0);
    emit_maddr(e, 8, 0x8b, H_R15, (struct maddr){H_R15, -1, 0, V_SEG(seg_base, seg)});
    emit_lea(e, 4, H_R14, (struct maddr){H_R14, H_R15, 0, -(int)size});
}

/* ---- the check: mmu/tlb.h ---- */

void jit_emit_tlb_look(struct emit *e, bool has_rorx, int shift, bool write)
{
    if (has_rorx) {
        static const uint8_t rorx[] = {0xc4, 0x43, 0xfb, 0xf0, 0xfe, PAGE_SHIFT - 5}; /* rorx $7, %r14, %r15 */
        for (unsigned k = 0; k < sizeof rorx; k++)
            e8(e, rorx[k]);
    } else {
        emit_mov(e, H_R15, H_R14);
        emit_op64(e, 0xc1, 5, op_reg(H_R15)); /* shr */
        e8(e, PAGE_SHIFT - 5);
    }
    emit_rm(e, (struct how){.size = 4}, OPC(0x81), 4, op_reg(H_R15)); /* and */
    e32(e, (TLB_SIZE - 1) << 5);
    emit_op64(e, 0x03, H_R15, op_frame(shift + FRAME(tlb)));
    emit_maddr(e, 8, 0x03, H_R14, (struct maddr){H_R15, -1, 0, write ? 8 : 0});
}

void tr_check_entry(struct tr *t, unsigned size, bool write)
{
    struct emit *e = &t->e;
    jit_emit_tlb_look(e, t->j->has_rorx, 0, write);
    emit_op64(e, 0x81, 7, op_reg(H_R14)); /* cmp */
    e32(e, PAGE_SIZE - size);
}

/* r14: linear to host address, by stream s. */
static void check_by_stream(struct tr *t, int s, unsigned size, uint32_t rec)
{
    uint8_t *at[2];
    tr_check_stream(t, s, size, at);
    tr_jump_cold(t, at[0], COLD_STREAM, rec, 0);
    if (t->e.full)
        return;
    struct tr_cold *c = &t->cold[t->ncold - 1];
    c->also_at = at[1];
    c->fetched = t->e.p;
    c->stream = s;
    c->size = size;
    tr_add_stream_host(t, s);
}

/* That of the access which tr_ea() or stack.c has told of. */
static int stream_now(struct tr *t, bool write)
{
    const struct insn *i = t->operand;
    bool stack = t->on_stack;
    t->operand = NULL;
    t->on_stack = false;
    if (t->segment != SEG_NONE)
        return STREAM_NONE;
    return stack ? tr_stream_of_stack(t, write) : i ? tr_stream_of(t, i, write) : STREAM_NONE;
}

void tr_check(struct tr *t, unsigned size, bool write, uint32_t rec)
{
    if (t->is_near) {
        t->is_near = false;
        tr_check_near(t, size, write, rec);
        return;
    }
    int s = stream_now(t, write);
    if (t->segment != SEG_NONE)
        through_segment(t, size, write, rec);
    if (s == STREAM_NONE) {
        tr_check_entry(t, size, write);
        tr_jump_cold(t, emit_jcc(&t->e, CC_A), COLD_SLOW, rec, 0);
        emit_maddr(&t->e, 8, 0x03, H_R14, (struct maddr){H_R15, -1, 0, 16});
    } else {
        check_by_stream(t, s, size, rec);
    }
    tr_clobber(t);
}
