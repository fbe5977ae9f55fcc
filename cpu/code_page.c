/*
 * Pages of code. A write takes away the blocks whose bytes it changes, no others: what leads to them in the page is
 * undone, chains of the interpreter and compiled code alike. A page that is being written from one end to the other is
 * opened: it is not tracked any more, and its blocks wait aside. When code of it is wanted again it is tracked, and
 * those come back whose bytes are still what they were.
 */
#include "core/trace.h"
#include "cpu/code_cache_internal.h"

#include <stdlib.h>
#include <string.h>

#define BURST_LIMIT     8u
#define BURST_LIMIT_MAX 0x8000u
#define BURST_NEAR      64u
#define WASTED_MAX      5
#define REGIONS         32

/* ---- bytes ---- */

/* Those of the bits from..to-1 that are in word k. */
static uint64_t word_bits(unsigned k, unsigned from, unsigned to)
{
    uint64_t low = from > 64 * k ? ~0ull << (from - 64 * k) : ~0ull;
    uint64_t high = to < 64 * (k + 1) ? ~(~0ull << (to - 64 * k)) : ~0ull;
    return low & high;
}

bool byte_map_any(const struct byte_map *m, unsigned from, unsigned to)
{
    for (unsigned k = from / 64; 64 * k < to; k++)
        if (m->word[k] & word_bits(k, from, to))
            return true;
    return false;
}

void byte_map_set(struct byte_map *m, unsigned from, unsigned to)
{
    for (unsigned k = from / 64; 64 * k < to; k++)
        m->word[k] |= word_bits(k, from, to);
}

static unsigned first_byte(const struct block *b)
{
    return (unsigned)(b->gpa & PAGE_MASK);
}

/* Where it ends in the page of its first byte. */
static unsigned end_in_page(const struct block *b)
{
    unsigned end = first_byte(b) + b->bytes;
    return end < PAGE_SIZE ? end : (unsigned)PAGE_SIZE;
}

static unsigned end_in_second(const struct block *b)
{
    return first_byte(b) + b->bytes - (unsigned)PAGE_SIZE;
}

static void decoded_anew(struct code_page *p)
{
    memset(&p->decoded, 0, sizeof p->decoded);
    for (const struct block *b = p->blocks; b; b = b->page_next)
        byte_map_set(&p->decoded, first_byte(b), end_in_page(b));
    for (const struct block *b = p->crossing; b; b = b->cross_next)
        byte_map_set(&p->decoded, 0, end_in_second(b));
}

/* ---- finding, making, freeing ---- */

static struct code_page **page_slot(struct code_cache *c, unsigned as, gfn_t gfn)
{
    struct code_page **p = &c->pages[code_hash(gfn << PAGE_SHIFT, as)];
    while (*p && ((*p)->gfn != gfn || (*p)->as != as))
        p = &(*p)->hash_next;
    return p;
}

struct code_page *code_page_find(struct code_cache *c, unsigned as, gfn_t gfn)
{
    return *page_slot(c, as, gfn);
}

static struct code_page *page_of(struct code_cache *c, const struct block *b)
{
    return code_page_find(c, mode_as(b->mode), b->gpa >> PAGE_SHIFT);
}

static struct code_page *second_page_of(struct code_cache *c, const struct block *b)
{
    return code_page_find(c, mode_as(b->mode), b->page2 >> PAGE_SHIFT);
}

static void page_release(struct code_cache *c, struct code_page *p)
{
    if (p->blocks || p->crossing || p->kept || p->pins)
        return;
    *page_slot(c, p->as, p->gfn) = p->hash_next;
    if (p->tracked)
        track_remove(c->mem, p->as, p->gfn, TRACK_CODE);
    free(p);
}

static void page_pin(struct code_page *p)
{
    p->pins++;
}

static void page_unpin(struct code_page *p)
{
    p->pins--;
}

/* ---- blocks that go ---- */

static void hash_insert(struct code_cache *c, struct block *b)
{
    struct block **bucket = &c->blocks[code_hash(b->gpa, b->mode)];
    b->hash_next = *bucket;
    *bucket = b;
}

static void hash_remove(struct code_cache *c, struct block *b)
{
    struct block **p = &c->blocks[code_hash(b->gpa, b->mode)];
    while (*p != b)
        p = &(*p)->hash_next;
    *p = b->hash_next;
}

/* Entries that lead to b, or to its compiled code alone, become void. */
static void forget_entries(struct code_cache *c, struct block *b, bool native_only)
{
    if (c->closing)
        return;
    if (b->noted_often) {
        c->generation++;
        b->noted_often = false;
        b->noted[BLOCK_TABLE_RUN] = b->noted[BLOCK_TABLE_NATIVE] = NULL;
        return;
    }
    if (b->noted[BLOCK_TABLE_NATIVE])
        *b->noted[BLOCK_TABLE_NATIVE] = 0;
    b->noted[BLOCK_TABLE_NATIVE] = NULL;
    if (native_only)
        return;
    if (b->noted[BLOCK_TABLE_RUN])
        *b->noted[BLOCK_TABLE_RUN] = UINT64_MAX;
    b->noted[BLOCK_TABLE_RUN] = NULL;
}

/* b is in no list any more. */
static void bury(struct code_cache *c, struct block *b)
{
    forget_entries(c, b, false);
    c->live_insns -= b->n;
    c->stats.dropped_blocks++;
    b->dead = true;
    b->next[0] = b->next[1] = NULL;
    b->page_next = c->graveyard;
    c->graveyard = b;
}

static void list_remove_crossing(struct code_page *second, const struct block *b)
{
    struct block **link = &second->crossing;
    while (*link != b)
        link = &(*link)->cross_next;
    *link = b->cross_next;
}

static void list_remove(struct code_page *p, const struct block *b)
{
    struct block **link = &p->blocks;
    while (*link != b)
        link = &(*link)->page_next;
    *link = b->page_next;
}

/* Slots of compiled code that lead from one region of the page to another. */
static void unlink_all(struct code_page *p)
{
    for (struct block_link *l = p->links; l; l = l->next) {
        l->code = l->out;
        l->listed = false;
    }
    p->links = NULL;
}

static void forget_dead(struct code_cache *c, struct block *list, uint32_t lost)
{
    for (struct block *b = list; b; b = b->page_next) {
        for (unsigned k = 0; k < 2; k++)
            if (b->next[k] && b->next[k]->dead)
                b->next[k] = NULL;
        if (b->regions & lost) {
            c->stats.native_lost += b->native != NULL;
            b->native = NULL;
            forget_entries(c, b, true);
            b->regions &= ~lost;
        }
    }
}

/* Blocks of the page were buried, which compiled code of the regions `lost` was made of. */
static void page_lost(struct code_cache *c, struct code_page *p, uint32_t lost)
{
    forget_dead(c, p->blocks, lost);
    forget_dead(c, p->kept, lost);
    decoded_anew(p);
    if (!lost)
        return;
    unlink_all(p);
    p->regions &= ~lost;
    if (p->wasted < WASTED_MAX)
        p->wasted++;
}

/* Block of p, taken out of its list, goes. Returns its regions. */
static uint32_t drop_block(struct code_cache *c, struct code_page *p, struct block *b)
{
    hash_remove(c, b);
    if (block_crosses(b)) {
        struct code_page *second = second_page_of(c, b);
        list_remove_crossing(second, b);
        if (second != p)
            page_release(c, second);
    }
    bury(c, b);
    return b->regions;
}

/* A block of the page before that reaches into p goes, and what of that page leads to it. */
static void drop_crossing(struct code_cache *c, struct code_page *p, struct block *b)
{
    struct code_page *first = page_of(c, b);
    page_pin(p);
    page_pin(first);
    list_remove(first, b);
    page_lost(c, first, drop_block(c, first, b));
    page_unpin(first);
    page_unpin(p);
    if (first != p)
        page_release(c, first);
}

void code_page_drop(struct code_cache *c, struct code_page *p)
{
    unsigned n = 0;
    while (p->crossing)
        drop_crossing(c, p, p->crossing);
    for (struct block *b; (b = p->blocks); n++) {
        p->blocks = b->page_next;
        drop_block(c, p, b);
    }
    for (struct block *b; (b = p->kept); n++) {
        p->kept = b->page_next;
        bury(c, b);
    }
    unlink_all(p);
    c->generation++;
    trace_point(c->trace, TRACE_CODE_DROP, p->gfn, n, 0, 0);
    page_release(c, p);
}

/* ---- open pages ---- */

static void peek(struct code_cache *c, const struct code_page *p, gpa_t offset, void *buf, size_t len)
{
    mem_access(c->mem, p->as, (p->gfn << PAGE_SHIFT) + offset, buf, len, MEM_PEEK, false, -1);
}

/* What lies ahead of a writer who goes on from offset `at`. */
static void note_ahead(struct code_cache *c, struct code_page *p, unsigned at)
{
    p->ahead_gpa = at < PAGE_SIZE - sizeof p->ahead ? at : PAGE_SIZE - sizeof p->ahead;
    peek(c, p, p->ahead_gpa, p->ahead, sizeof p->ahead);
}

static void page_open(struct code_cache *c, struct code_page *p)
{
    uint32_t lost = 0;
    unsigned n = 0;
    while (p->crossing)
        drop_crossing(c, p, p->crossing);
    for (struct block *b; (b = p->blocks); n++) {
        p->blocks = b->page_next;
        if (block_crosses(b)) {
            lost |= drop_block(c, p, b);
            continue;
        }
        hash_remove(c, b);
        forget_entries(c, b, false);
        b->page_next = p->kept;
        p->kept = b;
    }
    page_lost(c, p, lost);
    memset(&p->changed, 0, sizeof p->changed);
    memset(&p->changed_again, 0, sizeof p->changed_again);
    note_ahead(c, p, p->last);
    p->burst = 0;
    p->tracked = false;
    track_remove(c->mem, p->as, p->gfn, TRACK_CODE);
    c->stats.opened++;
    trace_point(c->trace, TRACE_CODE_DROP, p->gfn, n, 0, 0);
}

/* Did the writer go on while the page was open? Then it pays to open it early. */
static void learn_limit(struct code_page *p, const uint8_t *page)
{
    bool went_on = memcmp(page + p->ahead_gpa, p->ahead, sizeof p->ahead) != 0;
    if (went_on)
        p->burst_limit = p->burst_limit / 2 > BURST_LIMIT ? p->burst_limit / 2 : BURST_LIMIT;
    else if (p->burst_limit < BURST_LIMIT_MAX)
        p->burst_limit *= 2;
}

static void page_close(struct code_cache *c, struct code_page *p)
{
    uint8_t page[PAGE_SIZE];
    uint32_t lost = 0;
    struct block *list = p->kept;
    track_add(c->mem, p->as, p->gfn, TRACK_CODE);
    p->tracked = true;
    p->kept = NULL;
    c->stats.reopened++;
    peek(c, p, 0, page, sizeof page);
    learn_limit(p, page);
    for (struct block *b = list, *next; b; b = next) {
        next = b->page_next;
        if (memcmp(page + first_byte(b), b->code, b->bytes) != 0) {
            c->stats.kept_not++;
            lost |= b->regions;
            bury(c, b);
            continue;
        }
        c->stats.kept++;
        b->page_next = p->blocks;
        p->blocks = b;
        hash_insert(c, b);
    }
    page_lost(c, p, lost);
}

/* ---- blocks that come ---- */

struct code_page *code_page_get(struct code_cache *c, unsigned as, gfn_t gfn)
{
    struct code_page **slot = page_slot(c, as, gfn), *p = *slot;
    if (p) {
        if (!p->tracked)
            page_close(c, p);
        return p;
    }
    p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->gfn = gfn;
    p->as = as;
    p->burst_limit = BURST_LIMIT;
    p->tracked = true;
    *slot = p;
    track_add(c->mem, as, gfn, TRACK_CODE);
    return p;
}

void code_page_insert(struct code_cache *c, struct code_page *p, struct block *b)
{
    b->cool = p->wasted;
    b->page_next = p->blocks;
    p->blocks = b;
    byte_map_set(&p->decoded, first_byte(b), end_in_page(b));
    if (block_crosses(b)) {
        page_pin(p);
        struct code_page *second = code_page_get(c, mode_as(b->mode), b->page2 >> PAGE_SHIFT);
        page_unpin(p);
        byte_map_set(&second->decoded, 0, end_in_second(b));
        b->cross_next = second->crossing;
        second->crossing = b;
    }
    hash_insert(c, b);
}

uint32_t code_cache_region(struct code_cache *c, const struct block *b)
{
    struct code_page *p = page_of(c, b);
    unsigned k = 0;
    while (k < REGIONS - 1 && p->regions >> k & 1)
        k++;
    p->regions |= 1u << k;
    return 1u << k;
}

void code_cache_link(struct code_cache *c, const struct block *b, struct block_link *l)
{
    struct code_page *p = page_of(c, b);
    if (l->listed)
        return;
    l->listed = true;
    l->next = p->links;
    p->links = l;
}

void code_cache_renew(struct code_cache *c, struct block *b, const void *old)
{
    for (struct block_link *l = page_of(c, b)->links; l; l = l->next)
        if (l->code == old)
            l->code = b->native;
    forget_entries(c, b, true);
}

void code_cache_forget_links(struct code_cache *c)
{
    for (unsigned k = 0; k < CODE_HASH_SIZE; k++)
        for (struct code_page *p = c->pages[k]; p; p = p->hash_next)
            p->links = NULL;
}

/* ---- writes ---- */

/* Counts writes that come close to the one before, but not to the same place. True: enough of them. */
static bool is_burst(struct code_page *p, unsigned from, unsigned to)
{
    unsigned distance = from < p->last ? p->last - from : from - p->last;
    bool close = distance <= BURST_NEAR && to != p->last;
    p->burst = close ? p->burst + 1 : 1;
    p->last = to;
    return p->burst >= p->burst_limit;
}

/* Blocks of the page before whose bytes here were changed. */
static bool drop_changed_crossing(struct code_cache *c, struct code_page *p, unsigned from, unsigned to,
                                  const uint8_t *bytes)
{
    bool dropped = false;
    for (struct block *b = p->crossing, *next; b; b = next) {
        unsigned end = end_in_second(b), in_first = (unsigned)PAGE_SIZE - first_byte(b);
        next = b->cross_next;
        if (from >= end || !memcmp(b->code + in_first + from, bytes, (to < end ? to : end) - from))
            continue;
        drop_crossing(c, p, b);
        dropped = true;
    }
    return dropped;
}

/* Decoded bytes were written. True: blocks were dropped. */
static bool drop_changed(struct code_cache *c, struct code_page *p, unsigned from, unsigned to, const uint8_t *bytes)
{
    uint32_t lost = 0;
    unsigned n = 0, patched = 0;
    bool crossing = drop_changed_crossing(c, p, from, to, bytes);
    for (struct block **link = &p->blocks, *b; (b = *link);) {
        enum block_change change =
            first_byte(b) >= to || end_in_page(b) <= from ? BLOCK_SAME : block_rewrite(c, p, b, from, to, bytes);
        patched += change == BLOCK_PATCHED;
        if (change != BLOCK_STALE) {
            link = &b->page_next;
            continue;
        }
        *link = b->page_next;
        lost |= drop_block(c, p, b);
        n++;
    }
    if (n) {
        page_lost(c, p, lost);
        trace_point(c->trace, TRACE_CODE_DROP, p->gfn, n, 0, 0);
    }
    c->stats.dropped_by_write += n || crossing;
    c->stats.patched += patched;
    c->stats.writes_same += !n && !crossing && !patched;
    if (patched)
        p->burst = 0; /* it is code that is changed, not a page that is written anew */
    return n || crossing || (patched && c->copied);
}

static bool has_blocks(const struct code_page *p)
{
    return p->blocks || p->crossing;
}

bool code_page_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct code_cache *c = container_of(l, struct code_cache, listener);
    struct code_page *p = code_page_find(c, as, gpa >> PAGE_SHIFT);
    unsigned from = (unsigned)(gpa & PAGE_MASK), to = from + (unsigned)len;
    bool heard = false;
    if (!p || !p->tracked)
        return false;
    if (!has_blocks(p)) { /* the second write since the last one was dropped */
        page_release(c, p);
        return false;
    }
    page_pin(p);
    if (byte_map_any(&p->decoded, from, to))
        heard = drop_changed(c, p, from, to, bytes);
    else
        c->stats.writes_beside++;
    page_unpin(p);
    if (!has_blocks(p)) {
        if (len > 16)
            page_release(c, p);
    } else if (is_burst(p, from, to)) {
        page_open(c, p);
        heard = true;
    }
    return heard;
}
