#include "cpu/code_cache_internal.h"

#include "core/stats.h"
#include "cpu/interp/interp.h"
#include "cpu/optable.h"

#include <stdlib.h>

#define MAX_INSNS                                                                                                      \
    (4u << 20) /* decoded instructions kept before everything is dropped: about 200 MB would be the worst */

const uint64_t *code_cache_generation(const struct code_cache *c)
{
    return &c->generation;
}

static void on_flush_slot(struct track_listener *l, unsigned as, gfn_t start, uint64_t pages)
{
    struct code_cache *c = container_of(l, struct code_cache, listener);
    for (unsigned k = 0; k < CODE_HASH_SIZE; k++)
        for (struct code_page *p = c->pages[k], *next; p; p = next) {
            next = p->hash_next;
            if (p->as == as && p->gfn - start < pages) {
                code_page_drop(c, p);
                c->stats.dropped_by_slots++;
                next = c->pages[k]; /* the bucket may have changed anywhere */
            }
        }
}

struct code_cache *code_cache_create(struct mem *mem, struct trace *trace, const struct log *log)
{
    struct code_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->gates = ~0ull;
    c->mem = mem;
    c->trace = trace;
    c->log = log;
    c->listener.kind = TRACK_CODE;
    c->listener.write = code_page_write;
    c->listener.flush_slot = on_flush_slot;
    track_register(mem, &c->listener);
    return c;
}

void code_cache_reset(struct code_cache *c)
{
    for (unsigned k = 0; k < CODE_HASH_SIZE; k++)
        while (c->pages[k])
            code_page_drop(c, c->pages[k]);
    c->stats.resets++;
}

void code_cache_collect(struct code_cache *c)
{
    while (c->graveyard) {
        struct block *b = c->graveyard;
        c->graveyard = b->page_next;
        free(b);
    }
}

void code_cache_destroy(struct code_cache *c)
{
    if (!c)
        return;
    c->closing = true;
    code_cache_forget_links(c); /* the JIT may be gone */
    code_cache_reset(c);
    code_cache_collect(c);
    track_unregister(c->mem, &c->listener);
    free(c);
}

void code_cache_register_stats(struct code_cache *c, struct stats *s)
{
    stats_add(s, "code.blocks_decoded", "blocks", &c->stats.decoded);
    stats_add(s, "code.insns_decoded", "instructions", &c->stats.insns);
    stats_add(s, "code.insns_live", "instructions", &c->live_insns);
    stats_add(s, "code.blocks_dropped", "blocks", &c->stats.dropped_blocks);
    stats_add(s, "code.blocks_patched", "blocks", &c->stats.patched);
    stats_add(s, "code.native_lost", "blocks", &c->stats.native_lost);
    stats_add(s, "code.writes_dropping", "writes", &c->stats.dropped_by_write);
    stats_add(s, "code.writes_same", "writes", &c->stats.writes_same);
    stats_add(s, "code.writes_beside", "writes", &c->stats.writes_beside);
    stats_add(s, "code.pages_opened", "pages", &c->stats.opened);
    stats_add(s, "code.pages_closed", "pages", &c->stats.reopened);
    stats_add(s, "code.blocks_kept", "blocks", &c->stats.kept);
    stats_add(s, "code.blocks_kept_in_vain", "blocks", &c->stats.kept_not);
    stats_add(s, "code.pages_dropped_by_slots", "pages", &c->stats.dropped_by_slots);
    stats_add(s, "code.resets", "resets", &c->stats.resets);
}

struct block *code_cache_find_any(const struct code_cache *c, gpa_t gpa, uint32_t mode)
{
    struct block *b = c->blocks[code_hash(gpa, mode)];
    while (b && (b->gpa != gpa || b->mode != mode))
        b = b->hash_next;
    return b;
}

struct block *code_cache_find(const struct code_cache *c, gpa_t gpa, gpa_t page2, uint32_t mode)
{
    struct block *b = c->blocks[code_hash(gpa, mode)];
    while (b && (b->gpa != gpa || b->mode != mode || b->page2 != page2))
        b = b->hash_next;
    return b;
}

static void sentinel_set(struct insn *s, unsigned idx, unsigned off)
{
    memset(s, 0, sizeof *s);
    s->fn = op_block_end;
    s->idx = (uint8_t)idx;
    s->off = (uint16_t)off;
}

/* Decodes into insn[] up to the end of a block; returns the number of instructions, 0 if the first needs more bytes. */
static unsigned decode_run(const struct code_cache *c, struct insn *insn, const uint8_t *bytes, size_t avail,
                           uint32_t mode, unsigned max, unsigned *used)
{
    unsigned n = 0, off = 0;
    while (n < max && off < avail) {
        struct insn *i = &insn[n];
        if (insn_decode_gated(i, bytes + off, avail - off, mode & 0xffff, off, c->gates) == DECODE_MORE)
            break;
        i->idx = (uint8_t)n++;
        i->fn = interp_bind(i, mode & 0xffff);
        off += i->len;
        if (i->flags & INSN_ENDS)
            break;
    }
    *used = off;
    return n;
}

static struct block *block_build(const struct insn *insn, unsigned n, const uint8_t *code, unsigned bytes,
                                 uint32_t mode)
{
    struct block *b = calloc(1, sizeof *b + (n + 1) * sizeof b->insn[0] + bytes);
    if (!b)
        abort();
    b->page2 = BLOCK_NO_PAGE;
    b->mode = mode;
    b->n = (uint16_t)n;
    b->bytes = (uint16_t)bytes;
    memcpy(b->insn, insn, n * sizeof insn[0]);
    sentinel_set(&b->insn[n], n, bytes);
    b->code = (uint8_t *)&b->insn[n + 1];
    memcpy(b->code, code, bytes);
    return b;
}

struct block *block_decode_single(const struct code_cache *c, const uint8_t *bytes, size_t avail, uint32_t mode)
{
    struct insn insn;
    unsigned used;
    return decode_run(c, &insn, bytes, avail, mode, 1, &used) ? block_build(&insn, 1, bytes, used, mode) : NULL;
}

void code_cache_set_gates(struct code_cache *c, uint64_t gates)
{
    if (c->gates == gates)
        return;
    c->gates = gates;
    code_cache_reset(c);
}

void block_free(struct block *b)
{
    free(b);
}

/* -d in_asm: the block as it was decoded, by guest-physical address. */
static void block_log(const struct code_cache *c, const struct block *b)
{
    char text[96];
    if (!c->log || !log_is_on(c->log, LOG_IN_ASM))
        return;
    for (unsigned k = 0; k < b->n; k++)
        log_emit(c->log, LOG_IN_ASM, "gpa 0x%llx mode 0x%x: %s", (unsigned long long)(b->gpa + b->insn[k].off), b->mode,
                 insn_print(&b->insn[k], b->gpa + b->insn[k].off, text, sizeof text));
}

/* b, a new block, into page p, and its second one if it reaches there. */
static void block_insert(struct code_cache *c, struct code_page *p, struct block *b, gpa_t gpa, gpa_t page2)
{
    b->gpa = gpa;
    b->page2 = page2;
    block_mark_patched(p, b);
    code_page_insert(c, p, b);
    c->live_insns += b->n;
    c->stats.decoded++;
    c->stats.insns += b->n;
    block_log(c, b);
}

static struct block *make_crossing(struct code_cache *c, gpa_t gpa, uint32_t mode, const uint8_t *bytes, size_t avail,
                                   gpa_t page2, const uint8_t *bytes2)
{
    struct insn insn;
    uint8_t joined[2 * 15];
    unsigned used = 0;
    size_t head = avail < 15 ? avail : 15;
    memcpy(joined, bytes, head);
    memcpy(joined + head, bytes2, 15);
    if (!decode_run(c, &insn, joined, head + 15, mode, 1, &used))
        return NULL;
    struct block *b = block_build(&insn, 1, joined, used, mode);
    block_insert(c, code_page_get(c, mode_as(mode), gpa >> PAGE_SHIFT), b, gpa, used > avail ? page2 : BLOCK_NO_PAGE);
    return b;
}

struct block *code_cache_make(struct code_cache *c, gpa_t gpa, uint32_t mode, const uint8_t *bytes, size_t avail,
                              gpa_t page2, const uint8_t *bytes2)
{
    struct insn insn[BLOCK_MAX_INSNS];
    unsigned used = 0;
    if (c->live_insns > MAX_INSNS)
        code_cache_reset(c);
    if (bytes2)
        return make_crossing(c, gpa, mode, bytes, avail, page2, bytes2);
    struct code_page *p = code_page_find(c, mode_as(mode), gpa >> PAGE_SHIFT);
    if (p && !p->tracked) { /* it may come back with the page */
        p = code_page_get(c, mode_as(mode), gpa >> PAGE_SHIFT);
        struct block *b = code_cache_find(c, gpa, BLOCK_NO_PAGE, mode);
        if (b)
            return b;
    }
    unsigned n = decode_run(c, insn, bytes, avail, mode, BLOCK_MAX_INSNS, &used);
    if (!n)
        return NULL;
    struct block *b = block_build(insn, n, bytes, used, mode);
    block_insert(c, p ? p : code_page_get(c, mode_as(mode), gpa >> PAGE_SHIFT), b, gpa, BLOCK_NO_PAGE);
    return b;
}

void code_cache_run_copy(struct code_cache *c, bool running)
{
    c->copied = running;
}
