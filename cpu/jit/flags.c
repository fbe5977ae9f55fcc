/*
 * Flags: which recipe holds where, when it must be committed, and what it comes to.
 */
#include "cpu/jit/internal.h"

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

void jit_flags_to_vcpu(struct vcpu *v, struct jit_frame *f, uint32_t recipe, uint32_t overlay, bool fresh)
{
    const struct jit_arena *a = &f->jit->arena;
    if (recipe) {
        eval_base(v, f, jit_data(a, recipe));
    } else if (f->recipe) {
        eval_base(v, f, jit_data(a, f->recipe));
    } else {
        uint64_t image = (f->flags >> 8 & (FLAGS_ARITH & 0xff)) | (f->flags & 1 ? FLAG_OF : 0);
        flags_set_image(v, image);
    }
    if (!overlay && !fresh)
        overlay = f->overlay;
    if (overlay)
        eval_overlay(v, f, jit_data(a, overlay));
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
    case OP_IMUL:
        return i->enc != ENC_M;
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
        return !(i->flags & INSN_DISP64);
    default:
        return false;
    }
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
    uint32_t at = jit_data_alloc(&t->j->arena, sizeof r);
    if (!at)
        t->e.full = true;
    else
        memcpy(jit_data(&t->j->arena, at), &r, sizeof r);
    return at;
}

static uint32_t source_bit(unsigned src)
{
    return src < 16 ? 1u << src : 0;
}

static uint32_t recipe_sources(const struct jit_recipe *r)
{
    return source_bit(r->a) | source_bit(r->b);
}

/* A guest register into a slot of the frame. */
static void store_source(struct tr *t, unsigned *src, int slot, unsigned name)
{
    if (*src >= 16)
        return;
    emit_store(&t->e, tr_reg_in(t, *src), slot);
    *src = name;
}

static void commit_base(struct tr *t)
{
    struct jit_recipe r = t->base;
    unsigned a = r.a, b = r.b;
    store_source(t, &a, FRAME(m1), SRC_M1);
    if (r.b == r.a && r.a < 16)
        b = SRC_M1;
    else
        store_source(t, &b, FRAME(m2), SRC_M2);
    r.a = (uint8_t)a;
    r.b = (uint8_t)b;
    emit_store_imm(&t->e, FRAME(recipe), tr_recipe(t, r)); /* and overlay = 0 */
    t->flags = BASE_FRAME;
}

static void commit_overlay(struct tr *t)
{
    struct jit_recipe r = t->overlay;
    unsigned a = r.a;
    store_source(t, &a, FRAME(m3), SRC_M3);
    r.a = (uint8_t)a;
    emit_rm(&t->e, (struct how){.size = 4}, OPC(0xc7), 0, op_frame(FRAME(overlay)));
    e32(&t->e, tr_recipe(t, r));
    t->overlay.kind = RECIPE_NONE;
}

void tr_commit(struct tr *t)
{
    if (t->flags == BASE_RECIPE)
        commit_base(t);
    if (t->flags != BASE_DEAD && t->overlay.kind)
        commit_overlay(t);
}

void tr_begin(struct tr *t, uint32_t writes, bool kills)
{
    if (kills || t->flags == BASE_DEAD)
        return;
    if ((t->flags == BASE_RECIPE && recipe_sources(&t->base) & writes) ||
        (t->overlay.kind && recipe_sources(&t->overlay) & writes))
        tr_commit(t);
}

static void forget_pending(struct tr *t)
{
    t->overlay.kind = RECIPE_NONE;
    t->base_rec = t->overlay_rec = 0;
}

/* Bits that the host's processor may leave otherwise than the interpreter defines them. */
static unsigned undefined_by(const struct insn *i)
{
    switch (i->op) {
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
        return FLAG_AF;
    case OP_IMUL:
        return FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF;
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

void tr_set_flags_committed(struct tr *t, struct jit_recipe r)
{
    forget_pending(t);
    t->base = r;
    t->flags = BASE_RECIPE;
    commit_base(t);
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

void tr_set_flags_image(struct tr *t)
{
    struct emit *e = &t->e;
    forget_pending(t);
    t->flags = BASE_FRAME;
    t->host = true;
    t->undefined = 0;
    emit_mov(e, H_R15, H_RAX);
    e8(e, 0x9f); /* lahf */
    e8(e, 0x0f); /* seto al */
    e8(e, 0x90);
    e8(e, 0xc0);
    emit_rm(e, (struct how){.size = 2}, OPC(0x89), H_RAX, op_frame(FRAME(flags)));
    emit_mov(e, H_RAX, H_R15);
    emit_store_imm(e, FRAME(recipe), 0);
}

/* ---- the host's flags from a recipe ---- */

static bool can_redo(const struct tr *t)
{
    const struct jit_recipe *r = &t->base;
    if (t->flags != BASE_RECIPE || t->overlay.kind || r->a >= 16 || !(r->b < 16 || r->b == SRC_IMM || r->b == SRC_NONE))
        return false;
    return r->kind == RECIPE_SUB || r->kind == RECIPE_LOGIC || r->kind == RECIPE_AND;
}

bool tr_can_have_host(const struct tr *t, unsigned mask)
{
    return t->host ? !(t->undefined & mask) : can_redo(t);
}

bool tr_need_host(struct tr *t, unsigned mask)
{
    struct emit *e = &t->e;
    const struct jit_recipe *r = &t->base;
    if (t->host)
        return !(t->undefined & mask);
    if (!can_redo(t))
        return false;
    struct how w = {.size = r->size, .reg_byte = r->size == 1, .rm_byte = r->size == 1};
    unsigned wide = r->size != 1;
    if (r->kind == RECIPE_LOGIC) {
        unsigned a = tr_reg_in(t, r->a);
        emit_rm(e, w, OPC(0x84 | wide), a, op_reg(a));
    } else if (r->b == SRC_IMM) {
        bool test = r->kind == RECIPE_AND;
        emit_rm(e, w, OPC((test ? 0xf6 : 0x80) | wide), test ? 0 : 7, tr_gpr(r->a));
        if (r->size == 1)
            e8(e, (unsigned)r->imm & 0xff);
        else if (r->size == 2)
            e8(e, (unsigned)r->imm & 0xff), e8(e, (unsigned)(r->imm >> 8) & 0xff);
        else
            e32(e, (uint32_t)r->imm);
    } else {
        emit_rm(e, w, OPC((r->kind == RECIPE_AND ? 0x84 : 0x38) | wide), tr_reg_in(t, r->b), tr_gpr(r->a));
    }
    t->host = true;
    t->undefined = 0;
    return true;
}
