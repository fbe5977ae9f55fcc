/*
 * Flags: which recipe holds where, when it must be committed, and what it comes to.
 */
#include "cpu/jit/integer.h"

/* ---- evaluating (at run time) ---- */

static uint64_t operand(const struct vcpu *v, const struct jit_frame *f, const struct jit_recipe *r, unsigned src)
{
    switch (src) {
    case SRC_IMM:
        return r->imm;
    case SRC_M1:
        return f->m1;
    case SRC_M2:
        return f->m2;
    case SRC_M3:
        return f->m3;
    case SRC_NONE:
        return 0;
    default:
        return v->gpr[src & 15];
    }
}

static uint64_t cut(uint64_t x, unsigned size)
{
    return size == 8 ? x : x & ((1ull << 8 * size) - 1);
}

static void op_nothing(struct vcpu *v, const struct insn *i)
{
}

/* Lets the interpreter do it once more, on registers borrowed for the purpose. */
static void eval_exec(struct vcpu *v, const struct insn *insn, uint64_t a, uint64_t b)
{
    uint64_t keep[3] = {v->gpr[REG_RAX], v->gpr[REG_RCX], v->gpr[REG_RDX]};
    struct insn pair[2] = {*insn};
    bool reg_first = insn->enc == ENC_RM || insn->enc == ENC_RMI;
    pair[1].fn = op_nothing;
    pair[0].reg = reg_first ? REG_RAX : REG_RCX;
    pair[0].rm = reg_first ? REG_RCX : REG_RAX;
    v->gpr[REG_RAX] = a;
    v->gpr[REG_RCX] = b;
    pair[0].fn(v, pair);
    v->gpr[REG_RAX] = keep[0];
    v->gpr[REG_RCX] = keep[1];
    v->gpr[REG_RDX] = keep[2];
}

static void eval_base(struct vcpu *v, const struct jit_frame *f, const struct jit_recipe *r)
{
    unsigned size = r->size;
    uint64_t a = cut(operand(v, f, r, r->a), size), b = cut(operand(v, f, r, r->b), size);
    switch (r->kind) {
    case RECIPE_SUBR:
        a = cut(a + b, size);
        /* fall through */
    case RECIPE_SUB:
        flags_set_sub(v, a, b, cut(a - b, size), size);
        break;
    case RECIPE_ADDR:
        a = cut(a - b, size);
        /* fall through */
    case RECIPE_ADD:
        flags_set_add(v, a, b, cut(a + b, size), size);
        break;
    case RECIPE_LOGIC:
        flags_set_logic(v, a, size);
        break;
    case RECIPE_AND:
        flags_set_logic(v, a & b, size);
        break;
    case RECIPE_NEGR:
        flags_set_sub(v, 0, cut(-a, size), a, size);
        break;
    case RECIPE_EXEC:
        eval_exec(v, r->insn, operand(v, f, r, r->a), operand(v, f, r, r->b));
        break;
    default:
        break;
    }
}

/* INC and DEC: all but CF. */
static void eval_overlay(struct vcpu *v, const struct jit_frame *f, const struct jit_recipe *r)
{
    unsigned size = r->size;
    bool cf = flag_cf(v), down = r->kind == RECIPE_DEC || r->kind == RECIPE_DECR;
    bool from_result = r->kind == RECIPE_INCR || r->kind == RECIPE_DECR;
    uint64_t x = operand(v, f, r, r->a), step = down ? -1ull : 1;
    uint64_t a = cut(from_result ? x - step : x, size), result = cut(a + step, size);
    if (down)
        flags_set_sub(v, a, 1, result, size);
    else
        flags_set_add(v, a, 1, result, size);
    flags_set_cf_of(v, cf, flag_of(v));
}

_Static_assert(JIT_CACHE_MAX / RECIPE_ALIGN <= FRAME_PIECE, "names have three bytes");

/* Offset of what the frame names. */
static uint32_t named(uint32_t word)
{
    return (word & (FRAME_PIECE - 1)) * RECIPE_ALIGN;
}

/* Pieces that the frame has on top of recipe and overlay. An overlay that is not in the frame is on top of them. */
static void eval_pieces(struct vcpu *v, const struct jit_frame *f, bool covered)
{
    if (f->recipe & FRAME_PIECE)
        flags_set_cf(v, f->m4 & 1);
    if (f->overlay & FRAME_PIECE && !covered)
        flags_set_cf_of(v, flag_cf(v), f->m4 >> 8 & 1);
}

void jit_flags_to_vcpu(struct vcpu *v, struct jit_frame *f, uint32_t recipe, uint32_t overlay, bool fresh)
{
    const struct jit_arena *a = &f->jit->arena;
    bool covered = overlay;
    if (recipe) {
        eval_base(v, f, jit_data(a, recipe));
    } else if (named(f->recipe)) {
        eval_base(v, f, jit_data(a, named(f->recipe)));
    } else {
        uint64_t image = (f->flags >> 8 & (FLAGS_ARITH & 0xff)) | (f->flags & 1 ? FLAG_OF : 0);
        flags_set_image(v, image);
    }
    if (!overlay && !fresh)
        overlay = named(f->overlay);
    if (overlay)
        eval_overlay(v, f, jit_data(a, overlay));
    if (!fresh)
        eval_pieces(v, f, covered);
}

void jit_operand_after(const struct vcpu *v, struct jit_frame *f, const struct jit_recipe *r, uint64_t before)
{
    uint64_t result = v->f_res, a = operand(v, f, r, r->a), b = operand(v, f, r, r->b);
    if (r->b == SRC_M2) /* the result is in the register, unless it is compared */
        f->m2 = r->kind == RECIPE_SUB ? a - result : r->kind == RECIPE_SUBR ? before - a : a - before;
    else if (r->kind == RECIPE_SUB)
        f->m1 = result + b;
    else if (r->kind == RECIPE_ADD)
        f->m1 = result - b;
    else /* NEGR, LOGIC, AND: what is anded once more stays */
        f->m1 = result;
}

void jit_flags_partial(struct vcpu *v, const struct jit_frame *f, unsigned partial)
{
    bool cf = f->m4 & 1, of = f->m4 >> 8 & 1;
    switch (partial) {
    case PARTIAL_CF:
        flags_set_cf(v, cf);
        break;
    case PARTIAL_CFOF:
        flags_set_cf_of(v, cf, of);
        break;
    case PARTIAL_DIV:
        interp_div_flags(v);
        break;
    default:
        break;
    }
}

void jit_make_image(struct vcpu *v, struct jit_frame *f)
{
    f->jit->stats.collapsed++;
    jit_flags_to_vcpu(v, f, 0, 0, false);
    jit_flags_from_vcpu(v, f);
}

void jit_flags_from_vcpu(const struct vcpu *v, struct jit_frame *f)
{
    uint64_t image = flags_image(v);
    f->flags = (uint32_t)((image & 0xff) | 2) << 8 | (image & FLAG_OF ? 1 : 0);
    f->recipe = f->overlay = 0;
}

/* ---- looking ahead (at compile time) ---- */

enum look { LOOK_NOTHING, LOOK_SETS, LOOK_SEES };

static bool count_is_zero(const struct insn *i)
{
    return (i->imm & (i->opsize == 8 ? 63 : 31)) == 0;
}

/* Sets all flags whatever they were, as the interpreter defines them, and cannot fault. */
static bool sets_all(const struct insn *i)
{
    if (insn_has_mem(i))
        return false;
    switch (i->op) {
    case OP_ADD:
    case OP_OR:
    case OP_AND:
    case OP_SUB:
    case OP_XOR:
    case OP_CMP:
    case OP_TEST:
    case OP_NEG:
    case OP_POPCNT:
        return true;
    case OP_BSF:
    case OP_BSR:
    case OP_ANDN:
    case OP_BLSR:
    case OP_BLSMSK:
    case OP_BLSI:
    case OP_BZHI:
    case OP_BEXTR:
        return true;
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
        return i->enc == ENC_M1 || (i->enc == ENC_MI && !count_is_zero(i));
    default:
        return false;
    }
}

/* Neither looks at flags nor sets them nor can fault. */
static bool is_plain(const struct insn *i)
{
    if (insn_has_mem(i) && i->op != OP_LEA && i->op != OP_NOP)
        return false;
    switch (i->op) {
    case OP_MOV:
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
    case OP_LEA:
    case OP_NOP:
    case OP_NOT:
    case OP_CBW:
    case OP_CWD:
    case OP_BSWAP:
    case OP_XCHG:
    case OP_MULX:
    case OP_RORX:
    case OP_SHLX:
    case OP_SHRX:
    case OP_SARX:
    case OP_PEXT:
    case OP_PDEP:
        return !(i->flags & INSN_DISP64);
    default:
        return false;
    }
}

/* Moves: they look at no flags; those of memory may fault, when the flags before them are as good as ever. */
static bool is_move(const struct insn *i)
{
    return i->op == OP_MOV || i->op == OP_MOVZX || i->op == OP_MOVSX || i->op == OP_MOVSXD || i->op == OP_LEA;
}

/* Sets all flags if it does not fault. */
static bool sets_all_at_last(const struct insn *i)
{
    switch (i->op) {
    case OP_ADD:
    case OP_OR:
    case OP_AND:
    case OP_SUB:
    case OP_XOR:
    case OP_CMP:
    case OP_TEST:
        return true;
    default:
        return false;
    }
}

static uint32_t written_by_move(const struct insn *i)
{
    if (i->enc == ENC_RM || i->op != OP_MOV)
        return tr_bit(i->reg);
    return i->flags & INSN_RM_REG ? tr_bit(i->rm) : 0;
}

uint32_t tr_lost_before_set(const struct block *b)
{
    uint32_t lost = 0;
    for (unsigned k = 0; k < b->n; k++) {
        const struct insn *i = &b->insn[k];
        if (sets_all_at_last(i))
            return lost;
        if (!is_move(i))
            break;
        lost |= written_by_move(i);
    }
    return ~0u;
}

static enum look looks(const struct insn *i)
{
    return sets_all(i) ? LOOK_SETS : is_plain(i) ? LOOK_NOTHING : LOOK_SEES;
}

bool tr_flags_live(const struct tr *t)
{
    for (unsigned k = t->k + 1; k < t->b->n; k++) {
        enum look l = looks(&t->b->insn[k]);
        if (l != LOOK_NOTHING)
            return l == LOOK_SEES;
    }
    return true;
}

/* ---- the state at a place ---- */

uint32_t tr_recipe(struct tr *t, struct jit_recipe r)
{
    uint32_t at = jit_data_alloc_aligned(&t->j->arena, sizeof r, RECIPE_ALIGN);
    r.code = jit_recipe_code(t->j, &r);
    if (!at)
        t->e.full = true;
    else
        memcpy(jit_data(&t->j->arena, at), &r, sizeof r);
    return at;
}

/* A guest register into a slot of the frame, if it is among `lost`: those that are written before anyone looks. */
static void store_source(struct tr *t, uint32_t lost, unsigned *src, int slot, unsigned name)
{
    if (*src >= 16 || !(lost & 1u << *src))
        return;
    emit_store(&t->e, tr_reg_in(t, *src), slot);
    *src = name;
}

/* The operands of the pending recipe that are among `lost` into the frame. */
static void spill_base(struct tr *t, uint32_t lost)
{
    unsigned a = t->base.a, b = t->base.b;
    bool same = a == b && a < 16;
    store_source(t, lost, &a, FRAME(m1), SRC_M1);
    if (same)
        b = a;
    else
        store_source(t, lost, &b, FRAME(m2), SRC_M2);
    if (a != t->base.a || b != t->base.b)
        t->base_rec = 0;
    t->base.a = (uint8_t)a;
    t->base.b = (uint8_t)b;
}

static void spill_overlay(struct tr *t, uint32_t lost)
{
    unsigned a = t->overlay.a;
    store_source(t, lost, &a, FRAME(m3), SRC_M3);
    if (a != t->overlay.a)
        t->overlay_rec = 0;
    t->overlay.a = (uint8_t)a;
}

static bool in_frame(const struct jit_recipe *r)
{
    return r->a >= 16 && r->b >= 16;
}

static void commit_base(struct tr *t, uint32_t lost)
{
    t->image = false;
    spill_base(t, lost);
    emit_store_imm(&t->e, FRAME(recipe), FRAME_NAME(tr_recipe(t, t->base))); /* and overlay = 0 */
    t->flags = BASE_FRAME;
    t->known = in_frame(&t->base);
    t->known_base = t->base;
    t->known_overlay.kind = RECIPE_NONE;
}

static void commit_overlay(struct tr *t, uint32_t lost)
{
    t->image = false;
    spill_overlay(t, lost);
    emit_rm(&t->e, (struct how){.size = 4}, OPC(0xc7), 0, op_frame(FRAME(overlay)));
    e32(&t->e, FRAME_NAME(tr_recipe(t, t->overlay)));
    t->known = t->known && in_frame(&t->overlay);
    t->known_overlay = t->overlay;
    t->overlay.kind = RECIPE_NONE;
}

static void commit(struct tr *t, uint32_t lost)
{
    if (t->flags == BASE_RECIPE)
        commit_base(t, lost);
    if (t->flags != BASE_DEAD && t->overlay.kind)
        commit_overlay(t, lost);
}

void tr_commit_sources(struct tr *t)
{
    commit(t, ~0u);
}

static void commit_piece(struct tr *t, int disp)
{
    emit_rm(&t->e, (struct how){.size = 1}, OPC(0xc6), 0, op_frame(disp + FRAME_PIECE_BYTE)); /* mov */
    e8(&t->e, 1);
}

/* Host flags stay as they are. */
static void commit_partial(struct tr *t)
{
    if (t->partial == PARTIAL_DIV) {
        tr_collapse(t);
        return;
    }
    if (!t->partial)
        return;
    commit_piece(t, FRAME(recipe));
    if (t->partial == PARTIAL_CFOF)
        commit_piece(t, FRAME(overlay));
    t->partial = PARTIAL_NONE;
    t->image = t->known = false;
}

void tr_commit_edge(struct tr *t, uint32_t lost)
{
    commit(t, lost);
    commit_partial(t);
}

void tr_commit(struct tr *t)
{
    tr_commit_edge(t, ~0u);
}

void tr_begin(struct tr *t, uint32_t writes, bool kills)
{
    if (kills || t->flags == BASE_DEAD)
        return;
    if (t->flags == BASE_RECIPE)
        spill_base(t, writes);
    if (t->overlay.kind)
        spill_overlay(t, writes);
}

static void forget_pending(struct tr *t)
{
    t->overlay.kind = RECIPE_NONE;
    t->base_rec = t->overlay_rec = 0;
    t->partial = PARTIAL_NONE;
    t->image = t->known = false;
}

/* Bits that the host's processor may leave otherwise than the interpreter defines them. */
static unsigned undefined_by(const struct insn *i)
{
    switch (i->op) {
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
        if (i->enc == ENC_MC || (i->enc == ENC_MI && i->opsize < 4))
            return FLAG_AF | FLAG_CF | FLAG_OF;
        return FLAG_AF | (i->enc == ENC_M1 ? 0 : FLAG_OF);
    case OP_BSF:
    case OP_BSR:
        return FLAGS_ARITH & ~FLAG_ZF;
    default:
        return 0;
    }
}

void tr_set_flags(struct tr *t, struct jit_recipe r)
{
    forget_pending(t);
    t->host = true;
    t->undefined = undefined_by(&t->b->insn[t->k]);
    if (!tr_flags_live(t)) {
        t->flags = BASE_DEAD;
        return;
    }
    t->flags = BASE_RECIPE;
    t->base = r;
}

void tr_set_flags_memory(struct tr *t, struct jit_recipe r, uint32_t rec)
{
    struct jit_slow *s = jit_data(&t->j->arena, rec);
    tr_set_flags(t, r);
    if (!rec || t->flags != BASE_RECIPE || (r.a != SRC_M1 && r.b != SRC_M2))
        return;
    s->after = t->base_rec = tr_recipe(t, t->base);
}

void tr_set_flags_committed(struct tr *t, struct jit_recipe r)
{
    forget_pending(t);
    t->base = r;
    t->flags = BASE_RECIPE;
    commit_base(t, ~0u);
    t->host = true;
    t->undefined = undefined_by(&t->b->insn[t->k]);
}

void tr_set_flags_dead(struct tr *t, unsigned undefined)
{
    forget_pending(t);
    t->flags = BASE_DEAD;
    t->host = true;
    t->undefined = undefined;
}

void jit_emit_flags_image(struct emit *e)
{
    emit_mov(e, H_R15, H_RAX);
    e8(e, 0x9f); /* lahf */
    e8(e, 0x0f); /* seto al */
    e8(e, 0x90);
    e8(e, 0xc0);
    emit_rm(e, (struct how){.size = 2}, OPC(0x89), H_RAX, op_frame(FRAME(flags)));
    emit_mov(e, H_RAX, H_R15);
}

void tr_set_flags_image(struct tr *t)
{
    jit_emit_flags_image(&t->e);
    tr_have_image(t);
}

void tr_have_image(struct tr *t)
{
    forget_pending(t);
    t->flags = BASE_FRAME;
    t->host = true;
    t->undefined = 0;
    emit_store_imm(&t->e, FRAME(recipe), 0);
    t->image = true;
}

/* ---- partial recipes ---- */

void tr_collapse(struct tr *t)
{
    const struct insn *i = &t->b->insn[t->k < t->b->n ? t->k : t->b->n - 1u];
    tr_commit_sources(t);
    uint32_t rec = tr_slow(t, i);
    struct jit_slow *s = jit_data(&t->j->arena, rec);
    if (!rec)
        return;
    s->flags_only = true;
    tr_slow_now(t, rec);
    tr_resume(t, rec);
    forget_pending(t);
    t->flags = BASE_FRAME;
    t->image = true;
    t->host = true;
    t->undefined = 0;
}

void tr_begin_partial(struct tr *t, enum partial_kind kind)
{
    bool covers = t->partial == kind || (t->partial == PARTIAL_CF && kind == PARTIAL_CFOF);
    if (t->partial && !covers)
        tr_commit(t);
}

static void store_bit(struct tr *t, unsigned cc, int disp)
{
    emit_rm(&t->e, (struct how){.size = 1, .rm_byte = true}, OPC_0F((uint8_t)(0x90 | cc)), 0, op_frame(disp));
}

/* Flags are in the host's: what of them is partial goes to the frame. */
void tr_store_partial(struct tr *t, enum partial_kind kind)
{
    if (kind == PARTIAL_CF || kind == PARTIAL_CFOF)
        store_bit(t, CC_C, FRAME(m4));
    if (kind == PARTIAL_CFOF)
        store_bit(t, CC_O, FRAME(m4) + 1);
}

void tr_set_partial(struct tr *t, enum partial_kind kind, unsigned mask, unsigned kept, uint32_t rec)
{
    bool live = tr_flags_live(t);
    t->host = true;
    t->undefined = FLAGS_ARITH & ~(mask | kept);
    if (!live) {
        tr_set_flags_dead(t, t->undefined);
        if (rec)
            tr_resume(t, rec);
        return;
    }
    tr_store_partial(t, kind);
    tr_have_partial(t, kind, rec);
}

void tr_have_partial(struct tr *t, enum partial_kind kind, uint32_t rec)
{
    t->partial = kind;
    if (rec) {
        tr_jump_cold(t, NULL, COLD_PARTIAL, rec, (int32_t)kind);
        if (!t->e.full)
            t->cold[t->ncold - 1].back = t->e.p;
    }
}

/* ---- the host's flags from a recipe ---- */

static bool can_redo_base(const struct jit_recipe *r)
{
    switch (r->kind) {
    case RECIPE_SUB:
    case RECIPE_SUBR:
    case RECIPE_ADD:
    case RECIPE_ADDR:
    case RECIPE_LOGIC:
    case RECIPE_AND:
    case RECIPE_NEGR:
        return r->a != SRC_IMM;
    default:
        return false;
    }
}

static bool can_redo(const struct tr *t)
{
    return t->flags == BASE_RECIPE && !t->partial && can_redo_base(&t->base);
}

/* The frame has an image (of a handler) or a recipe that is known here. */
static bool can_redo_known(const struct tr *t)
{
    return t->flags == BASE_FRAME && t->known && !t->partial && !t->overlay.kind && can_redo_base(&t->known_base);
}

bool tr_can_have_host(const struct tr *t, unsigned mask)
{
    return t->host ? !(t->undefined & mask) : can_redo(t);
}

/* Where a recipe's operand is, as an operand. */
static struct opnd source_operand(unsigned src)
{
    return src == SRC_M1   ? op_frame(FRAME(m1))
           : src == SRC_M2 ? op_frame(FRAME(m2))
           : src == SRC_M3 ? op_frame(FRAME(m3))
                           : tr_gpr(src);
}

/* r15 op= b of the recipe; `n`: the ALU's number, 8 for TEST. */
static void redo_alu(struct tr *t, const struct jit_recipe *r, unsigned n)
{
    struct emit *e = &t->e;
    unsigned wide = r->size != 1;
    struct how w = {.size = r->size, .reg_byte = !wide, .rm_byte = !wide};
    if (r->b != SRC_IMM) { /* TEST has one direction, which does not matter */
        emit_rm(e, w, OPC((uint8_t)((n == 8 ? 0x84 : n << 3 | 2) | wide)), H_R15, source_operand(r->b));
        return;
    }
    emit_rm(e, w, OPC((uint8_t)((n == 8 ? 0xf6 : 0x80) | wide)), n == 8 ? 0 : n, op_reg(H_R15));
    if (r->size == 1)
        e8(e, (unsigned)r->imm & 0xff);
    else if (r->size == 2)
        e8(e, (unsigned)r->imm & 0xff), e8(e, (unsigned)(r->imm >> 8) & 0xff);
    else
        e32(e, (uint32_t)r->imm);
}

static void redo_base(struct tr *t, const struct jit_recipe *r)
{
    struct how w = {.size = r->size, .reg_byte = r->size == 1, .rm_byte = r->size == 1};
    unsigned wide = r->size != 1;
    emit_rm(&t->e, (struct how){.size = 8}, OPC(0x8b), H_R15, source_operand(r->a));
    switch (r->kind) {
    case RECIPE_SUBR:
        redo_alu(t, r, 0);
        redo_alu(t, r, 5);
        break;
    case RECIPE_ADDR:
        redo_alu(t, r, 5);
        redo_alu(t, r, 0);
        break;
    case RECIPE_SUB:
        redo_alu(t, r, 5);
        break;
    case RECIPE_ADD:
        redo_alu(t, r, 0);
        break;
    case RECIPE_AND:
        redo_alu(t, r, 8);
        break;
    case RECIPE_LOGIC:
        emit_rm(&t->e, w, OPC((uint8_t)(0x84 | wide)), H_R15, op_reg(H_R15));
        break;
    default: /* NEGR */
        for (unsigned k = 0; k < 2; k++)
            emit_rm(&t->e, w, OPC((uint8_t)(0xf6 | wide)), 3, op_reg(H_R15));
        break;
    }
}

static void redo_overlay(struct tr *t, const struct jit_recipe *r)
{
    bool down = r->kind == RECIPE_DEC || r->kind == RECIPE_DECR;
    emit_rm(&t->e, (struct how){.size = 8}, OPC(0x8b), H_R15, source_operand(r->a));
    if (r->kind == RECIPE_INCR || r->kind == RECIPE_DECR)
        emit_lea(&t->e, 8, H_R15, (struct maddr){H_R15, -1, 0, down ? 1 : -1});
    emit_rm(&t->e, (struct how){.size = r->size, .rm_byte = r->size == 1}, OPC(r->size == 1 ? 0xfe : 0xff), down,
            op_reg(H_R15));
}

static void redo(struct tr *t, const struct jit_recipe *base, const struct jit_recipe *overlay)
{
    redo_base(t, base);
    if (overlay->kind)
        redo_overlay(t, overlay);
    t->host = true;
    t->undefined = 0;
}

bool tr_need_host(struct tr *t, unsigned mask)
{
    if (t->host)
        return !(t->undefined & mask);
    if (!can_redo(t))
        return false;
    redo(t, &t->base, &t->overlay);
    return true;
}

/* The known recipe once more, but for an image that a handler left in its place: perhaps in that of the base alone. */
static void redo_known(struct tr *t)
{
    emit_rm(&t->e, (struct how){.size = 4}, OPC(0x83), 7, op_frame(FRAME(recipe))); /* cmp */
    e8(&t->e, 0);
    tr_jump_cold(t, emit_jcc(&t->e, CC_Z), COLD_IMAGE, 0, 0);
    unsigned cold = t->ncold - 1;
    redo(t, &t->known_base, &t->known_overlay);
    if (t->e.full)
        return;
    t->cold[cold].back = t->e.p;
    t->cold[cold].overlay = t->known_overlay;
}

void tr_cold_image(struct tr *t, const struct jit_recipe *overlay)
{
    struct emit *e = &t->e;
    uint8_t *none = NULL;
    if (overlay->kind) {
        emit_rm(e, (struct how){.size = 4}, OPC(0x83), 7, op_frame(FRAME(overlay)));
        e8(e, 0);
        none = emit_jcc(e, CC_Z);
        jit_emit_image_flags(e);
        redo_overlay(t, overlay);
        uint8_t *done = emit_jmp(e);
        patch_jump(e, none, e->p);
        jit_emit_image_flags(e);
        patch_jump(e, done, e->p);
    } else {
        jit_emit_image_flags(e);
    }
}

void tr_make_image(struct tr *t)
{
    if (t->image)
        return;
    emit_op64(&t->e, 0x83, 7, op_frame(FRAME(recipe))); /* cmp qword: recipe and overlay */
    e8(&t->e, 0);
    tr_jump_cold(t, emit_jcc(&t->e, CC_NZ), COLD_MAKE_IMAGE, 0, 0);
    if (!t->e.full)
        t->cold[t->ncold - 1].back = t->e.p;
    t->image = true;
    t->known = false;
}

static void host_from_frame(struct tr *t)
{
    if (!t->image && can_redo_known(t)) {
        redo_known(t);
        return;
    }
    tr_make_image(t);
    jit_emit_image_flags(&t->e);
    t->host = true;
    t->undefined = 0;
}

bool tr_can_restore(const struct tr *t)
{
    return can_redo(t) || (t->flags == BASE_FRAME && !t->overlay.kind && !t->partial);
}

static bool has_carry_bit(const struct tr *t)
{
    return t->partial == PARTIAL_CF || t->partial == PARTIAL_CFOF;
}

bool tr_can_restore_carry(const struct tr *t)
{
    return has_carry_bit(t) || tr_can_restore(t);
}

bool tr_can_have_carry(const struct tr *t)
{
    return tr_can_have_host(t, FLAG_CF) || tr_can_restore_carry(t);
}

static void carry_from(struct tr *t, int disp, unsigned bit)
{
    emit_rm(&t->e, (struct how){.size = 4}, OPC_0F(0xba), 4, op_frame(disp)); /* bt */
    e8(&t->e, bit);
    t->host = true;
    t->undefined = FLAGS_ARITH & ~FLAG_CF;
}

bool tr_carry(struct tr *t)
{
    if (tr_can_have_host(t, FLAG_CF))
        return tr_need_host(t, FLAG_CF);
    if (has_carry_bit(t)) {
        carry_from(t, FRAME(m4), 0);
        return true;
    }
    if (!tr_can_restore(t))
        return false;
    if (can_redo(t)) {
        tr_clobber(t);
        return tr_need_host(t, FLAG_CF);
    }
    if (!t->image && can_redo_known(t)) {
        redo_known(t);
        return true;
    }
    tr_make_image(t);
    carry_from(t, FRAME(flags), 8);
    return true;
}

bool tr_restore(struct tr *t, unsigned mask)
{
    if (tr_can_have_host(t, mask))
        return tr_need_host(t, mask);
    if (!tr_can_restore(t))
        return false;
    if (can_redo(t)) {
        tr_clobber(t);
        return tr_need_host(t, mask);
    }
    host_from_frame(t);
    return true;
}
