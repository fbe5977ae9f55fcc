/*
 * What the files of the code cache share.
 *
 *   code_cache.c   looking up, decoding, life
 *   code_page.c    pages: tracking, writes, what they take away and what stays
 *   code_patch.c   one block under a write
 */
#ifndef CPU_CODE_CACHE_INTERNAL_H
#define CPU_CODE_CACHE_INTERNAL_H

#include "cpu/code_cache.h"
#include "cpu/insn.h"

#define CODE_HASH_BITS 16
#define CODE_HASH_SIZE (1u << CODE_HASH_BITS)

/* A bit for each byte of a page. */
struct byte_map {
    uint64_t word[PAGE_SIZE / 64];
};

/*
 * A page that holds code. It is tracked, or open: written without being seen, its blocks kept aside until code of it is
 * wanted again.
 */
struct code_page {
    gfn_t gfn;
    unsigned as;
    bool tracked;
    uint8_t pins;           /* not to be freed */
    uint8_t wasted;         /* how often compiled code of it was lost, as far as that counts */
    struct block *blocks;   /* whose first byte is here (page_next) */
    struct block *kept;     /* likewise, while the page is open: not in the cache */
    struct block *crossing; /* blocks of the page before that reach into this one (cross_next) */
    struct byte_map decoded;
    struct byte_map changed, changed_again; /* bytes of instructions that were written since: once, more than once */
    uint32_t regions;                       /* in use */
    struct block_link *links;
    unsigned last, burst, burst_limit; /* the last write ended there; how many came close to each other; how many are
                                          enough to open the page */
    gpa_t ahead_gpa;                   /* when it was opened: what lay ahead of the writer */
    uint64_t ahead[2];
    struct code_page *hash_next;
};

struct code_cache {
    struct mem *mem;
    struct trace *trace;
    const struct log *log;
    struct track_listener listener;
    struct block *blocks[CODE_HASH_SIZE];
    struct code_page *pages[CODE_HASH_SIZE];
    struct block *graveyard;
    uint64_t live_insns, generation;
    uint64_t gates; /* forms that the CPU model offers */
    bool copied;    /* code_cache_run_copy() */
    bool closing;   /* what blocks are noted in may be gone */
    struct {
        uint64_t decoded, insns, dropped_by_write, dropped_by_slots, dropped_blocks, resets;
        uint64_t writes_beside, writes_same, patched, native_lost, opened, reopened, kept, kept_not;
    } stats;
};

static inline unsigned code_hash(gpa_t gpa, uint32_t mode)
{
    uint64_t h = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(h >> (64 - CODE_HASH_BITS));
}

static inline unsigned mode_as(uint32_t mode)
{
    return mode >> 16;
}

static inline bool block_crosses(const struct block *b)
{
    return b->page2 != BLOCK_NO_PAGE;
}

/* Any of the bytes from..to-1? */
bool byte_map_any(const struct byte_map *m, unsigned from, unsigned to);
void byte_map_set(struct byte_map *m, unsigned from, unsigned to);

/* ---- code_page.c ---- */

/* The page, tracked: made, or with those of its kept blocks back whose bytes are what they were. */
struct code_page *code_page_get(struct code_cache *c, unsigned as, gfn_t gfn);
/* NULL: it has none. */
struct code_page *code_page_find(struct code_cache *c, unsigned as, gfn_t gfn);
/* b is decoded: into the cache and its pages. */
void code_page_insert(struct code_cache *c, struct code_page *p, struct block *b);
/* Drops all of its blocks, and the page. */
void code_page_drop(struct code_cache *c, struct code_page *p);
bool code_page_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len);

/* ---- code_patch.c ---- */

/* What a write to a block's bytes means for it. */
enum block_change {
    BLOCK_SAME,    /* they are what they were */
    BLOCK_PATCHED, /* the instructions were put right where they are */
    BLOCK_STALE
};

/* from..to-1 of b's page (p) have been written and are `bytes` now. The write may come from an instruction of b. */
enum block_change block_rewrite(struct code_cache *c, struct code_page *p, struct block *b, unsigned from, unsigned to,
                                const uint8_t *bytes);
/* Instructions of a new block whose bytes were changed more than once are marked (INSN_PATCHED). */
void block_mark_patched(const struct code_page *p, struct block *b);

#endif
