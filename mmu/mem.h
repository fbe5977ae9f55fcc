/*
 * Inside guest-physical memory: what memslot.c, mem.c, track.c and the walker share. For the mmu floor only.
 *
 * struct mem keeps a direct-mapped cache of host pointers by gfn (the walker and the slow paths would otherwise gup for
 * every word). It subscribes to the invalidation bus of the host_mm for it, and drops what a range covers before the
 * host changes it. A pointer from it is valid for the instruction that obtained it, as one from gup is.
 *
 * Invariants: a cached page lies in a slot of its address space and holds the frame that gup would return; `w` is set
 * only after a gup for writing, so that the host entry is dirty; a change of slots empties the cache.
 */
#ifndef MMU_MEM_H
#define MMU_MEM_H

#include "core/host/host_mm.h"
#include "mmu/dirty.h"
#include "mmu/engine.h"
#include "mmu/gfn_cache.h"
#include "mmu/gfn_tree.h"

#define MEM_CACHE_SIZE 4096u

struct mem_page {
    uint64_t tag;   /* mem_page_tag(), or 0 */
    uint8_t *r, *w; /* the page's bytes; w NULL until it was got for writing */
    bool rom;
    bool host_writable; /* the host entry allowed writes when it was read */
};

/* Tracking of 512 gfns: counts, and for a fast answer a mask of the kinds with a nonzero count. */
struct track_chunk {
    uint32_t tracked; /* gfns with a nonzero mask */
    uint8_t mask[GFN_CHUNK];
    uint32_t count[GFN_CHUNK][TRACK_KINDS];
};

/* Memory that the memory floor needs of its own. */
struct mem_bytes {
    struct account tracking; /* counts and masks of tracked gfns */
    struct account pointers; /* the cache of host pointers */
};

struct mem {
    struct mem_config cfg;
    struct mem_bytes bytes;
    struct memslot **slots[MEM_ADDRESS_SPACES]; /* sorted by base; each allocated, so that pointers to slots stay */
    size_t slot_count[MEM_ADDRESS_SPACES];
    size_t slot_hint[MEM_ADDRESS_SPACES]; /* the last hit: a hint only */
    uint64_t generation;
    struct gfn_tree track[MEM_ADDRESS_SPACES]; /* of struct track_chunk */
    struct track_listener *listeners;
    uint64_t track_writes;
    struct {
        gpa_t gpa; /* 8-byte aligned, or ~0: not known */
        uint64_t value;
    } before; /* while track listeners are told of a write: the word that it began in, as it was; for debuggers */
    unsigned dirty_logs;      /* slots that are logged */
    struct dirty_ring *rings; /* dirty.c: one for each of ring_count vCPUs, or NULL */
    unsigned ring_count, ring_entries;
    struct mmu *mmu;          /* told about newly tracked gfns and dying slots; may be NULL */
    struct mem_page *cache;   /* MEM_CACHE_SIZE */
    struct notifier notifier; /* keeps the cache true */
    uint64_t invalidate_seq;
    unsigned invalidate_in_progress;
    struct mem_mirror *mirror; /* mem_mirror.c: the memory is another machine's; NULL: its own */
    struct gfn_caches *caches; /* gfn_cache.c: made with the first cache */
    unsigned dma_depth;        /* DMA that reaches a device that makes DMA ... */
    bool failed;
    struct trace no_trace; /* stands in for a trace that was not given */
};

static inline uint64_t mem_page_tag(unsigned as, gfn_t gfn)
{
    return gfn << 2 | as << 1 | 1;
}

static inline struct mem_page *mem_page_slot(const struct mem *m, gfn_t gfn)
{
    return &m->cache[gfn & (MEM_CACHE_SIZE - 1)];
}

/* Slow parts of the two below: gup, and the cache is filled. */
void *mem_page_get(struct mem *m, unsigned as, gfn_t gfn, bool write);

/* Host bytes of a page that a slot backs, for reading; NULL: no slot (or the host has no page for it). */
static inline void *mem_page_read(struct mem *m, unsigned as, gfn_t gfn)
{
    const struct mem_page *p = mem_page_slot(m, gfn);
    return likely(p->tag == mem_page_tag(as, gfn)) ? p->r : mem_page_get(m, as, gfn, false);
}

/* The same for writing; ROM included (the caller knows what it may do). */
static inline void *mem_page_write(struct mem *m, unsigned as, gfn_t gfn)
{
    const struct mem_page *p = mem_page_slot(m, gfn);
    return likely(p->tag == mem_page_tag(as, gfn) && p->w) ? p->w : mem_page_get(m, as, gfn, true);
}

/* For writing, if the host gives that without breaking a copy-on-write or zero page; NULL otherwise. To be called after
 * mem_page_read(). */
static inline void *mem_page_write_if_cheap(struct mem *m, unsigned as, gfn_t gfn)
{
    const struct mem_page *p = mem_page_slot(m, gfn);
    if (p->tag != mem_page_tag(as, gfn) || !(p->w || p->host_writable))
        return NULL;
    return p->w ? p->w : mem_page_get(m, as, gfn, true);
}

/* The walker's update of a guest entry of `size` (4 or 8) bytes, naturally aligned: MEM_WALK, so PT listeners are not
 * told. */
enum mem_cmpxchg { MEM_SWAPPED, MEM_CHANGED, MEM_READ_ONLY };
enum mem_cmpxchg mem_walk_cmpxchg(struct mem *m, unsigned as, gpa_t gpa, uint64_t old, uint64_t value, unsigned size);

void mem_cache_clear(struct mem *m);

/* The gfn was written by the vCPU, or by none (-1). */
static inline void mem_note_dirty(struct mem *m, unsigned as, gfn_t gfn, int vcpu)
{
    if (unlikely(m->dirty_logs))
        dirty_mark_gfn(m, as, gfn, vcpu);
}

/* After host_mm_peek_content() gave nothing: true if there is content, which the swap store cannot give back. */
bool mem_is_lost(const struct mem *m, hva_t hva);

/* ---- track.c ---- */

/* mem_mirror.c: the gfn became tracked here, or is no longer; m->mirror is set. */
void mem_mirror_track(struct mem *m, unsigned as, gfn_t gfn, bool on);

/* Mask of the kinds that track gfn. */
static inline unsigned track_mask(const struct mem *m, unsigned as, gfn_t gfn)
{
    const struct track_chunk *c = gfn_tree_find(&m->track[as], gfn);
    return c ? c->mask[gfn & (GFN_CHUNK - 1)] : 0;
}

/* A write of len bytes (within one page) to a gfn tracked as `mask` was made; `bytes` are the new contents. */
void track_notify(struct mem *m, unsigned as, gpa_t gpa, const void *bytes, size_t len, unsigned mask);
void track_flush_slot(struct mem *m, unsigned as, gfn_t start, uint64_t pages);
void track_init(struct mem *m);
void track_fini(struct mem *m);

#endif
