/*
 * A block under a write. Instructions that take their operands from registers and immediates alone are decoded again in
 * place, if they keep their length: the next look at them, by a handler or by compiled code that leaves them to their
 * handler, meets what was written. An instruction that may be the writer itself is never touched while it runs.
 */
#include "cpu/code_cache_internal.h"
#include "cpu/interp/interp.h"
#include "cpu/optable.h"

#include <string.h>

#define IDLE_MAX 64

static bool is_move_or_alu(const struct insn *i)
{
    switch (i->op) {
    case OP_MOV:
    case OP_ADD:
    case OP_OR:
    case OP_ADC:
    case OP_SBB:
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

/* Reaches no memory, whatever it does: so it is not the one that writes. */
static bool is_unable_to_write(const struct insn *i)
{
    if (i->enc == ENC_D)
        return i->op == OP_JCC || i->op == OP_JMP;
    if (!(i->flags & INSN_RM_REG))
        return false;
    switch (i->op) {
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_INC:
    case OP_DEC:
    case OP_NEG:
    case OP_NOT:
    case OP_ROL:
    case OP_ROR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_IMUL:
    case OP_BSWAP:
    case OP_CMOVCC:
    case OP_SETCC:
        return true;
    default:
        return is_move_or_alu(i);
    }
}

/* Can compiled code live with an immediate of it that changes? */
static bool has_loose_immediate(const struct insn *i)
{
    return i->enc == ENC_MI && i->flags & INSN_RM_REG && !(i->flags & INSN_ENDS) && is_move_or_alu(i);
}

static bool is_same_but_immediate(const struct insn *a, const struct insn *b)
{
    struct insn x = *a, y = *b;
    x.imm = y.imm = 0;
    x.flags &= (uint16_t)~INSN_PATCHED;
    y.flags &= (uint16_t)~INSN_PATCHED;
    return x.fn == y.fn && x.form == y.form && x.op == y.op && x.flags == y.flags && x.reg == y.reg && x.rm == y.rm &&
           x.opsize == y.opsize && x.enc == y.enc && x.disp == y.disp && x.len == y.len;
}

/* *new: what stands in old's place now. */
static bool redecode(const struct code_cache *c, const struct block *b, const struct insn *old, const uint8_t *code,
                     struct insn *new)
{
    if (insn_decode_gated(new, code + old->off, b->bytes - (size_t)old->off, b->mode & 0xffff, old->off, c->gates) ==
            DECODE_MORE ||
        new->len != old->len)
        return false;
    new->idx = old->idx;
    new->fn = interp_bind(new, b->mode & 0xffff);
    if (old->flags & INSN_PATCHED && has_loose_immediate(new)) /* another instruction may have none */
        new->flags |= INSN_PATCHED;
    return (new->flags &INSN_ENDS) == (old->flags & INSN_ENDS);
}

static bool may_replace(const struct block *b, const struct insn *old, const struct insn *new)
{
    if (b->regions && !(old->flags & INSN_PATCHED && is_same_but_immediate(old, new)))
        return false;
    return is_unable_to_write(old);
}

static bool is_changed(const struct block *b, const struct insn *i, const uint8_t *code)
{
    return memcmp(b->code + i->off, code + i->off, i->len) != 0;
}

/* All that are changed, or none. */
static bool replace_all(const struct code_cache *c, struct block *b, const uint8_t *code)
{
    struct insn new[BLOCK_MAX_INSNS];
    unsigned first = b->n, end = 0;
    for (unsigned k = 0; k < b->n; k++) {
        if (!is_changed(b, &b->insn[k], code)) {
            new[k] = b->insn[k];
            continue;
        }
        if (!redecode(c, b, &b->insn[k], code, &new[k]) || !may_replace(b, &b->insn[k], &new[k]))
            return false;
        first = k < first ? k : first;
        end = k + 1;
    }
    for (unsigned k = first; k < end; k++)
        b->insn[k] = new[k];
    if (end == b->n)
        b->next[0] = b->next[1] = NULL; /* it may lead elsewhere */
    return true;
}

static void note_changed(struct code_page *p, unsigned from, unsigned to)
{
    for (unsigned k = from; k < to; k++) {
        uint64_t bit = 1ull << (k % 64);
        p->changed_again.word[k / 64] |= p->changed.word[k / 64] & bit;
        p->changed.word[k / 64] |= bit;
    }
}

void block_mark_patched(const struct code_page *p, struct block *b)
{
    unsigned at = (unsigned)(b->gpa & PAGE_MASK);
    if (block_crosses(b))
        return;
    for (unsigned k = 0; k < b->n; k++) {
        struct insn *i = &b->insn[k];
        if (has_loose_immediate(i) && byte_map_any(&p->changed_again, at + i->off, at + i->off + i->len))
            i->flags |= INSN_PATCHED;
    }
}

/* Patched again and again, and never run: not worth it. Compiled code does not count its runs. */
static bool is_idle(struct block *b)
{
    b->idle = b->heat == b->heat_patched && !b->regions ? b->idle + 1 : 0;
    b->heat_patched = b->heat;
    return b->idle > IDLE_MAX;
}

enum block_change block_rewrite(struct code_cache *c, struct code_page *p, struct block *b, unsigned from, unsigned to,
                                const uint8_t *bytes)
{
    uint8_t code[BLOCK_MAX_INSNS * 15];
    unsigned start = (unsigned)(b->gpa & PAGE_MASK), end = start + b->bytes;
    unsigned low = from > start ? from : start, high = to < end ? to : end;
    if (!memcmp(b->code + (low - start), bytes + (low - from), high - low))
        return BLOCK_SAME;
    note_changed(p, low, high);
    if (block_crosses(b))
        return BLOCK_STALE;
    memcpy(code, b->code, b->bytes);
    memcpy(code + (low - start), bytes + (low - from), high - low);
    if (is_idle(b) || !replace_all(c, b, code))
        return BLOCK_STALE;
    memcpy(b->code, code, b->bytes);
    if (!b->regions)
        block_mark_patched(p, b);
    return BLOCK_PATCHED;
}
