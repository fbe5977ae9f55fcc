/*
 * Operands for an encoding: where memory is, what it and the implied registers hold.
 */
#include "tests/oracle/generate.h"

#include <string.h>

bool oracle_uses_bit_offset(const struct insn *i)
{
    return (i->op == OP_BT || i->op == OP_BTS || i->op == OP_BTR || i->op == OP_BTC) && i->enc == ENC_MR;
}

static bool has_memory(const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    return (f->modrm && !(i->flags & INSN_RM_REG)) || i->flags & INSN_DISP64;
}

/* ---- windows ---- */

static struct oracle_window *free_window(struct oracle_case *c)
{
    for (unsigned k = 0; k < WINDOWS; k++)
        if (!c->window[k].len)
            return &c->window[k];
    return NULL;
}

/* Values around `at`, as far as that is in DATA. Gives the window, or NULL. */
static struct oracle_window *put_window(struct oracle_rng *r, struct oracle_case *c, uint64_t at, unsigned before,
                                        unsigned len, enum value_kind kind)
{
    struct oracle_window *w = free_window(c);
    uint64_t from = at - before, to = at + len;
    if (!w || to <= DATA_AT || from >= RO_AT || from > to)
        return NULL;
    from = from < DATA_AT ? DATA_AT : from;
    to = to > RO_AT ? RO_AT : to;
    w->at = (uint32_t)from;
    w->len = (uint32_t)(to - from < WINDOW_MAX ? to - from : WINDOW_MAX);
    values_fill(r, w->bytes, w->len, kind);
    if (at > from && at - from < w->len) /* values begin at the operand, not before it */
        values_fill(r, w->bytes + (at - from), w->len - (at - from), kind);
    return w;
}

static void window_set(struct oracle_case *c, uint64_t at, uint64_t value, unsigned size)
{
    for (unsigned k = 0; k < WINDOWS; k++) {
        struct oracle_window *w = &c->window[k];
        if (w->len && at >= w->at && at + size <= w->at + w->len)
            memcpy(w->bytes + (at - w->at), &value, size);
    }
}

static uint64_t window_get(const struct oracle_case *c, uint64_t at, unsigned size)
{
    uint64_t value = 0;
    for (unsigned k = 0; k < WINDOWS; k++) {
        const struct oracle_window *w = &c->window[k];
        if (w->len && at >= w->at && at + size <= w->at + w->len)
            memcpy(&value, w->bytes + (at - w->at), size);
    }
    return value;
}

/* ---- where the memory operand is ---- */

/* Inside a page, across two, at the edge of what is mapped, in the read-only page, or anywhere. */
static uint64_t choose_target(struct oracle_rng *r, const struct oracle_case *c, const struct insn *i)
{
    unsigned size = i->opsize > i->srcsize ? i->opsize : i->srcsize;
    uint64_t inside = DATA_AT + 0x400 + rng_below(r, 0x1800);
    bool aligned = i->flags & INSN_LOCK || i->op == OP_XCHG || (c->in.flags & FLAG_AC && rng_one_in(r, 2)) ||
                   !rng_one_in(r, insn_form(i)->fault == FC_T1 || size >= 16 ? 8 : 2);
    switch (rng_below(r, 32)) {
    case 0:
        inside = DATA_AT + 0x1000 - rng_below(r, size + 1);
        break;
    case 1:
        return RO_AT + rng_below(r, 4000) - (rng_one_in(r, 2) ? rng_below(r, size + 1) : 0);
    case 2:
        return rng_one_in(r, 2) ? DATA_AT - rng_below(r, size + 4) : RO_AT + 4096 - rng_below(r, size + 4);
    case 3:
        return c->code32 ? (uint32_t)rng64(r) % 0x10000 : 0x0001000000000000ull << rng_below(r, 15);
    default:
        break;
    }
    return aligned ? inside & ~(uint64_t)(size >= 16 ? size - 1 : 7) : inside;
}

static void patch(struct encoding *e, unsigned at, uint64_t value, unsigned size)
{
    memcpy(e->bytes + at, &value, size);
}

static unsigned imm_bytes(const struct insn *i)
{
    switch (insn_form(i)->imm) {
    case IMM_IB:
    case IMM_UB:
    case IMM_JB:
        return 1;
    case IMM_UW:
        return 2;
    case IMM_WB:
        return 3;
    case IMM_IZ:
    case IMM_JZ:
        return i->opsize == 2 ? 2 : 4;
    case IMM_IV:
        return i->opsize;
    case IMM_OFF:
        return i->adsize;
    default:
        return 0;
    }
}

/* Has the encoding a displacement of four bytes? They stand before the immediate. */
static bool has_disp32(const struct encoding *e)
{
    const struct insn *i = &e->insn;
    unsigned mod = i->modrm >> 6;
    return i->adsize != 2 && (mod == 2 || (mod == 0 && (i->base == REG_IP || i->base == REG_ZERO)));
}

static void set_disp32(struct encoding *e, uint64_t value)
{
    patch(e, e->len - imm_bytes(&e->insn) - 4, (uint32_t)value, 4);
    e->insn.disp = (int32_t)value;
}

static void set_register(struct oracle_rng *r, struct oracle_case *c, const struct insn *i, unsigned reg,
                         uint64_t value)
{
    c->in.gpr[reg] = i->adsize == 8 || c->code32 ? value : (uint32_t)value | (rng64(r) << 32);
    if (c->code32)
        c->in.gpr[reg] = (uint32_t)value;
}

/* Makes the operand's offset `off`, by its registers or its displacement; where neither can, it is what it is. */
static void aim(struct oracle_rng *r, struct oracle_case *c, struct encoding *e, uint64_t off)
{
    const struct insn *i = &e->insn;
    bool vsib = insn_form(i)->props & PROP_VSIB;
    uint64_t index = 0;
    if (i->flags & INSN_DISP64) {
        patch(e, e->len - i->adsize, off, i->adsize);
        return;
    }
    if (i->base == REG_IP) {
        set_disp32(e, off - (CODE_AT + e->at + e->len));
        return;
    }
    if (i->adsize == 2)
        return;
    if (i->index != REG_ZERO && !vsib) {
        if (i->index == i->base) { /* (1 + 2^scale) * x + disp */
            uint64_t x = rng_below(r, 256);
            set_register(r, c, i, i->index, x);
            if (has_disp32(e))
                set_disp32(e, off - x - (x << i->scale));
            return;
        }
        if (i->base == REG_ZERO || rng_one_in(r, 2))
            set_register(r, c, i, i->index, rng_below(r, 0x10000));
        index = c->in.gpr[i->index] << i->scale;
    }
    if (i->base == REG_ZERO)
        set_disp32(e, off - index);
    else
        set_register(r, c, i, i->base, off - index - (uint64_t)(int64_t)i->disp);
}

static uint64_t segment_base(const struct oracle_case *c, const struct insn *i)
{
    return !c->code32 && i->seg == SEG_GS ? GS_BASE : 0;
}

/* ---- what instructions want of their operands ---- */

static unsigned acc_bytes(const struct insn *i)
{
    return i->opsize;
}

/* Compare-and-exchange succeeds half the time. */
static void meet_exchange(struct oracle_rng *r, struct oracle_case *c, const struct insn *i, uint64_t at)
{
    if (rng_one_in(r, 2))
        return;
    if (i->op == OP_CMPXCHG && !(i->flags & INSN_RM_REG))
        c->in.gpr[REG_RAX] = window_get(c, at, acc_bytes(i));
    if (i->op == OP_CMPXCHG8B) {
        c->in.gpr[REG_RAX] = (uint32_t)window_get(c, at, 4);
        c->in.gpr[REG_RDX] = (uint32_t)window_get(c, at + 4, 4);
    }
    if (i->op == OP_CMPXCHG16B) {
        c->in.gpr[REG_RAX] = window_get(c, at, 8);
        c->in.gpr[REG_RDX] = window_get(c, at + 8, 8);
    }
}

/* Quotients that fit, mostly. */
static void meet_division(struct oracle_rng *r, struct oracle_case *c, const struct insn *i)
{
    if (rng_one_in(r, 4))
        return;
    uint64_t high = rng_one_in(r, 2) ? 0 : rng_below(r, 4);
    if (i->op == OP_IDIV && rng_one_in(r, 2))
        high = ~high;
    if (i->opsize == 1)
        c->in.gpr[REG_RAX] = (c->in.gpr[REG_RAX] & ~0xff00ull) | (high & 0xff) << 8;
    else if (i->flags & INSN_RM_REG || (i->base != REG_RDX && i->index != REG_RDX))
        c->in.gpr[REG_RDX] = c->code32 ? (uint32_t)high : high;
}

static void meet_string(struct oracle_rng *r, struct oracle_case *c, const struct insn *i, enum value_kind kind)
{
    const struct op_form *f = insn_form(i);
    bool rep = i->flags & (INSN_REP | INSN_REPNE);
    if (f->props & PROP_SI && f->op != OP_XLAT && f->op != OP_MASKMOVQ && f->op != OP_MASKMOVDQU) {
        uint64_t at = choose_target(r, c, i);
        put_window(r, c, at, 40, 80, kind);
        set_register(r, c, i, REG_RSI, at - segment_base(c, i));
    }
    if (f->props & PROP_ES) {
        uint64_t at = rng_one_in(r, 8) ? c->in.gpr[REG_RSI] + rng_below(r, 64) : choose_target(r, c, i);
        put_window(r, c, at, 40, 80, kind);
        set_register(r, c, i, REG_RDI, at);
    }
    if (rep)
        c->in.gpr[REG_RCX] = (i->adsize == 2                 ? rng64(r) << 16
                              : i->adsize == 4 && !c->code32 ? rng64(r) << 32
                                                             : 0) |
                             (rng_one_in(r, 8) ? rng_below(r, 3000) : rng_below(r, 12));
    if (rep && c->code32)
        c->in.gpr[REG_RCX] = (uint32_t)c->in.gpr[REG_RCX];
    if (f->op == OP_SCAS && rng_one_in(r, 2))
        c->in.gpr[REG_RAX] = window_get(c, c->in.gpr[REG_RDI] + i->opsize, i->opsize);
}

static void meet_implied(struct oracle_rng *r, struct oracle_case *c, const struct insn *i, enum value_kind kind)
{
    if (i->op == OP_XLAT) {
        uint64_t at = choose_target(r, c, i);
        put_window(r, c, at, 0, 16, kind);
        set_register(r, c, i, REG_RBX, at - (c->in.gpr[REG_RAX] & 0xff) - segment_base(c, i));
    }
    if (i->op == OP_MASKMOVQ || i->op == OP_MASKMOVDQU || i->op == OP_VMASKMOVDQU) {
        uint64_t at = choose_target(r, c, i);
        put_window(r, c, at, 0, 16, kind);
        set_register(r, c, i, REG_RDI, at - segment_base(c, i));
    }
    meet_string(r, c, i, kind);
    if (i->op == OP_LOOP || i->op == OP_LOOPE || i->op == OP_LOOPNE || i->op == OP_JCXZ)
        if (rng_one_in(r, 2))
            c->in.gpr[REG_RCX] = rng_below(r, 3);
    if (i->op == OP_DIV || i->op == OP_IDIV)
        meet_division(r, c, i);
}

/* Indices of a gather: small, so that they stay near; its mask: signs at random. */
static void meet_gather(struct oracle_rng *r, struct oracle_case *c, const struct insn *i)
{
    uint8_t *index[2] = {c->in.xsave + 160 + 16 * i->index, c->in.xsave + 576 + 16 * i->index};
    unsigned size =
        i->op == OP_VPGATHERQD || i->op == OP_VPGATHERQQ || i->op == OP_VGATHERQPS || i->op == OP_VGATHERQPD ? 8 : 4;
    for (unsigned half = 0; half < 2; half++)
        for (unsigned k = 0; k < 16; k += size) {
            uint64_t x = rng_one_in(r, 40) ? rng64(r) : (uint64_t)((int64_t)rng_below(r, 512) - 256);
            memcpy(index[half] + k, &x, size);
        }
    values_fill(r, c->in.xsave + 160 + 16 * i->vvvv, 16, VALUE_INT);
    values_fill(r, c->in.xsave + 576 + 16 * i->vvvv, 16, VALUE_INT);
}

/* ---- control flow ---- */

/* Branches go to BRANCH_TARGET; returns and indirect jumps find it where they look. */
static void meet_branch(struct oracle_rng *r, struct oracle_case *c, struct encoding *e, uint64_t at)
{
    const struct insn *i = &e->insn;
    const struct op_form *f = insn_form(i);
    unsigned n = imm_bytes(i);
    (void)r;
    if (f->imm == IMM_JB || f->imm == IMM_JZ)
        patch(e, e->len - n, BRANCH_TARGET - (CODE_AT + e->len), n);
    if (i->op == OP_RET)
        window_set(c, c->in.gpr[REG_RSP], BRANCH_TARGET, i->opsize);
    if ((i->op == OP_JMP || i->op == OP_CALL) && i->enc == ENC_M) {
        if (i->flags & INSN_RM_REG)
            c->in.gpr[i->rm] = BRANCH_TARGET;
        else
            window_set(c, at, BRANCH_TARGET, i->opsize);
    }
}

/* TF would trap behind the case. */
static void meet_popf(struct oracle_case *c, const struct insn *i)
{
    uint64_t sp = c->in.gpr[REG_RSP];
    if (i->op == OP_POPF)
        window_set(c, sp, window_get(c, sp, 2) & ~(uint64_t)FLAG_TF, 2);
}

void oracle_meet_operands(struct oracle_rng *r, struct oracle_case *c, struct encoding *e, enum value_kind kind)
{
    const struct insn *i = &e->insn;
    uint64_t at = 0;
    if (i->op == OP_UD)
        return;
    meet_implied(r, c, i, kind);
    if (has_memory(i)) {
        at = choose_target(r, c, i);
        aim(r, c, e, at - segment_base(c, i));
        put_window(r, c, at, 16, WINDOW_MAX - 16, kind);
        if (oracle_uses_bit_offset(i) && i->reg != i->base && i->reg != i->index && !rng_one_in(r, 10))
            c->in.gpr[i->reg] = (uint64_t)((int64_t)rng_below(r, 4096) - 2048);
        if (c->code32 && oracle_uses_bit_offset(i))
            c->in.gpr[i->reg] = (uint32_t)c->in.gpr[i->reg];
        meet_exchange(r, c, i, at);
    }
    if (insn_form(i)->props & PROP_VSIB)
        meet_gather(r, c, i);
    put_window(r, c, c->in.gpr[REG_RSP], 0, 64, VALUE_INT);
    meet_branch(r, c, e, at);
    meet_popf(c, i);
}

void oracle_meet_absolute(struct oracle_rng *r, struct oracle_case *c, struct encoding *e, enum value_kind kind)
{
    const struct insn *i = &e->insn;
    if (i->op == OP_UD || !has_memory(i))
        return;
    uint64_t at = DATA_AT + 0x400 + 16 * rng_below(r, 0x20);
    aim(r, c, e, at - segment_base(c, i));
    put_window(r, c, at, 0, 64, kind);
}
