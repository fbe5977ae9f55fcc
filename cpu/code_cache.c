#include "cpu/code_cache.h"

#include "core/stats.h"
#include "core/trace.h"
#include "cpu/interp/interp.h"
#include "cpu/optable.h"

#include <stdlib.h>

#define HASH_BITS 16
#define HASH_SIZE (1u << HASH_BITS)
#define MAX_INSNS                                                                                                      \
    (4u << 20) /* decoded instructions kept before everything is dropped: about 200 MB would be the worst */

/* A page that holds code: its blocks, and which of its bytes were decoded. */
struct code_page {
    gfn_t gfn;
    unsigned as;
    struct block *blocks;   /* whose first byte is here */
    struct block *crossing; /* blocks of the page before that reach into this one (cross_next) */
    uint64_t decoded[64];   /* bit per byte */
    struct code_page *hash_next;
};

struct code_cache {
    struct mem *mem;
    struct trace *trace;
    const struct log *log;
    struct track_listener listener;
    struct block *blocks[HASH_SIZE];
    struct code_page *pages[HASH_SIZE];
    struct block *graveyard;
    uint64_t live_insns, generation;
    uint64_t gates; /* forms that the CPU model offers */
    struct {
        uint64_t decoded, insns, dropped_pages, dropped_by_write, dropped_by_slots, dropped_blocks, resets;
    } stats;
};

static unsigned block_hash(gpa_t gpa, uint32_t mode)
{
    uint64_t h = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(h >> (64 - HASH_BITS));
}

static unsigned mode_as(uint32_t mode)
{
    return mode >> 16;
}

static struct code_page **page_slot(struct code_cache *c, unsigned as, gfn_t gfn)
{
    struct code_page **p = &c->pages[block_hash(gfn << PAGE_SHIFT, as)];
    while (*p && ((*p)->gfn != gfn || (*p)->as != as))
        p = &(*p)->hash_next;
    return p;
}

static struct code_page *page_get(struct code_cache *c, unsigned as, gfn_t gfn)
{
    struct code_page **slot = page_slot(c, as, gfn), *p = *slot;
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->gfn = gfn;
    p->as = as;
    *slot = p;
    track_add(c->mem, as, gfn, TRACK_CODE);
    return p;
}

static void page_mark(struct code_page *p, unsigned from, unsigned len)
{
    for (unsigned k = from; k < from + len && k < PAGE_SIZE; k++)
        p->decoded[k / 64] |= 1ull << (k % 64);
}

static bool page_has_code(const struct code_page *p, unsigned from, size_t len)
{
    for (unsigned k = from; k < from + len && k < PAGE_SIZE; k++)
        if (p->decoded[k / 64] >> (k % 64) & 1)
            return true;
    return false;
}

static void hash_remove(struct code_cache *c, struct block *b)
{
    struct block **p = &c->blocks[block_hash(b->gpa, b->mode)];
    while (*p != b)
        p = &(*p)->hash_next;
    *p = b->hash_next;
}

static void bury(struct code_cache *c, struct block *b)
{
    hash_remove(c, b);
    c->live_insns -= b->n;
    c->stats.dropped_blocks++;
    b->next[0] = b->next[1] = NULL;
    b->page_next = c->graveyard;
    c->graveyard = b;
}

static void page_release(struct code_cache *c, struct code_page **slot)
{
    struct code_page *p = *slot;
    if (p->blocks || p->crossing)
        return;
    *slot = p->hash_next;
    track_remove(c->mem, p->as, p->gfn, TRACK_CODE);
    free(p);
}

/* The second page of a crossing block loses it; the page may go. */
static void crossing_gone(struct code_cache *c, struct block *b)
{
    struct code_page **slot = page_slot(c, mode_as(b->mode), b->page2 >> PAGE_SHIFT);
    struct block **link = &(*slot)->crossing;
    while (*link != b)
        link = &(*link)->cross_next;
    *link = b->cross_next;
    page_release(c, slot);
}

static void drop_blocks_of(struct code_cache *c, unsigned as, gfn_t gfn)
{
    struct code_page **slot = page_slot(c, as, gfn);
    struct block *list = (*slot)->blocks;
    unsigned n = 0;
    (*slot)->blocks = NULL;
    for (struct block *b = list, *next; b; b = next, n++) {
        next = b->page_next;
        bury(c, b);
        if (b->page2 != BLOCK_NO_PAGE)
            crossing_gone(c, b);
    }
    trace_point(c->trace, TRACE_CODE_DROP, gfn, n, 0, 0);
}

/* Takes a crossing block out of the list of its first page, which may be the second one too (mapped twice in a row). */
static void first_page_forget(struct code_cache *c, struct block *b, const struct code_page *second)
{
    struct code_page **slot = page_slot(c, mode_as(b->mode), b->gpa >> PAGE_SHIFT);
    struct block **link = &(*slot)->blocks;
    while (*link != b)
        link = &(*link)->page_next;
    *link = b->page_next;
    if (*slot != second)
        page_release(c, slot);
}

/* Drops the blocks of the page before that reach into this one. */
static void drop_crossing_into(struct code_cache *c, struct code_page *p)
{
    while (p->crossing) {
        struct block *b = p->crossing;
        p->crossing = b->cross_next;
        first_page_forget(c, b, p);
        bury(c, b);
    }
}

static void page_invalidate(struct code_cache *c, unsigned as, gfn_t gfn)
{
    drop_crossing_into(c, *page_slot(c, as, gfn));
    drop_blocks_of(c, as, gfn);
    c->stats.dropped_pages++;
    c->generation++;
    page_release(c, page_slot(c, as, gfn));
}

const uint64_t *code_cache_generation(const struct code_cache *c)
{
    return &c->generation;
}

static void on_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct code_cache *c = container_of(l, struct code_cache, listener);
    struct code_page *p = *page_slot(c, as, gpa >> PAGE_SHIFT);
    (void)bytes;
    if (p && page_has_code(p, (unsigned)(gpa & PAGE_MASK), len)) {
        page_invalidate(c, as, gpa >> PAGE_SHIFT);
        c->stats.dropped_by_write++;
    }
}

static void on_flush_slot(struct track_listener *l, unsigned as, gfn_t start, uint64_t pages)
{
    struct code_cache *c = container_of(l, struct code_cache, listener);
    for (unsigned k = 0; k < HASH_SIZE; k++)
        for (struct code_page *p = c->pages[k], *next; p; p = next) {
            next = p->hash_next;
            if (p->as == as && p->gfn - start < pages) {
                page_invalidate(c, as, p->gfn);
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
    c->listener.write = on_write;
    c->listener.flush_slot = on_flush_slot;
    track_register(mem, &c->listener);
    return c;
}

void code_cache_reset(struct code_cache *c)
{
    for (unsigned k = 0; k < HASH_SIZE; k++)
        while (c->pages[k])
            page_invalidate(c, c->pages[k]->as, c->pages[k]->gfn);
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
    stats_add(s, "code.pages_dropped", "pages", &c->stats.dropped_pages);
    stats_add(s, "code.pages_dropped_by_write", "pages", &c->stats.dropped_by_write);
    stats_add(s, "code.pages_dropped_by_slots", "pages", &c->stats.dropped_by_slots);
    stats_add(s, "code.blocks_dropped", "blocks", &c->stats.dropped_blocks);
    stats_add(s, "code.resets", "resets", &c->stats.resets);
}

struct block *code_cache_find_any(const struct code_cache *c, gpa_t gpa, uint32_t mode)
{
    struct block *b = c->blocks[block_hash(gpa, mode)];
    while (b && (b->gpa != gpa || b->mode != mode))
        b = b->hash_next;
    return b;
}

struct block *code_cache_find(const struct code_cache *c, gpa_t gpa, gpa_t page2, uint32_t mode)
{
    struct block *b = c->blocks[block_hash(gpa, mode)];
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

static struct block *block_build(const struct insn *insn, unsigned n, unsigned bytes, uint32_t mode)
{
    struct block *b = calloc(1, sizeof *b + (n + 1) * sizeof b->insn[0]);
    if (!b)
        abort();
    b->page2 = BLOCK_NO_PAGE;
    b->mode = mode;
    b->n = (uint16_t)n;
    b->bytes = (uint16_t)bytes;
    memcpy(b->insn, insn, n * sizeof insn[0]);
    sentinel_set(&b->insn[n], n, bytes);
    return b;
}

struct block *block_decode_single(const struct code_cache *c, const uint8_t *bytes, size_t avail, uint32_t mode)
{
    struct insn insn;
    unsigned used;
    return decode_run(c, &insn, bytes, avail, mode, 1, &used) ? block_build(&insn, 1, used, mode) : NULL;
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

static void block_insert(struct code_cache *c, struct block *b, gpa_t gpa, gpa_t page2)
{
    unsigned as = mode_as(b->mode), first = (unsigned)(gpa & PAGE_MASK);
    struct code_page *p = page_get(c, as, gpa >> PAGE_SHIFT);
    struct block **bucket = &c->blocks[block_hash(gpa, b->mode)];
    b->gpa = gpa;
    b->page2 = page2;
    page_mark(p, first, b->bytes);
    b->page_next = p->blocks;
    p->blocks = b;
    if (page2 != BLOCK_NO_PAGE) {
        struct code_page *second = page_get(c, as, page2 >> PAGE_SHIFT);
        page_mark(second, 0, first + b->bytes - (unsigned)PAGE_SIZE);
        b->cross_next = second->crossing;
        second->crossing = b;
    }
    b->hash_next = *bucket;
    *bucket = b;
    c->live_insns += b->n;
    c->stats.decoded++;
    c->stats.insns += b->n;
    block_log(c, b);
}

struct block *code_cache_make(struct code_cache *c, gpa_t gpa, uint32_t mode, const uint8_t *bytes, size_t avail,
                              gpa_t page2, const uint8_t *bytes2)
{
    struct insn insn[BLOCK_MAX_INSNS];
    uint8_t joined[2 * 15];
    unsigned used = 0, n;
    if (c->live_insns > MAX_INSNS)
        code_cache_reset(c);
    if (bytes2) {
        size_t head = avail < 15 ? avail : 15;
        memcpy(joined, bytes, head);
        memcpy(joined + head, bytes2, 15);
        n = decode_run(c, insn, joined, head + 15, mode, 1, &used);
    } else {
        n = decode_run(c, insn, bytes, avail, mode, BLOCK_MAX_INSNS, &used);
    }
    if (!n)
        return NULL;
    struct block *b = block_build(insn, n, used, mode);
    block_insert(c, b, gpa, bytes2 && used > avail ? page2 : BLOCK_NO_PAGE);
    return b;
}
