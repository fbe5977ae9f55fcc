/*
 * gfn-to-pfn caches: a guest page's host pointer, kept over many uses (Linux: virt/kvm/pfncache.c, gfn_to_pfn_cache).
 * For what the emulator itself writes often: the paravirtual clock, steal time, a ring's index.
 *
 * A cache holds up to one page's bytes of RAM, mapped for writing. It is valid from a refresh until the first of:
 *   - an invalidation that meets its host page, whatever becomes of the page. A downgrade of the host entry from
 *     writable to read-only is one, too: the frame stays, so invalidate_range is not called, but a write through the
 *     old pointer would reach a frame that others share by now (fork, KSM). Hence invalidate_range_start and
 * change_pte;
 *   - a change of memslots (the generation);
 *   - gfn_cache_unmap(), gfn_cache_deactivate(), the end of the host_mm.
 *
 * A use is a bracket of gfn_cache_begin() (or _begin_atomic()) and gfn_cache_end(); inside it the pointer stays good,
 * and an invalidation waits for its end. So a use is short, and inside it nothing is called that takes a host_mm, MMU
 * or cache lock. _begin() may sleep: it refreshes an invalid cache and waits for invalidations that are under way.
 * _begin_atomic() never sleeps, not even for a lock: it gives NULL, and the caller takes its slow path. gfn_cache_end()
 * reports what was written by mem_written(), so that tracking and dirty logs see it; that needs the thread that may use
 * `mem`.
 *
 * Lock order: a cache's refresh lock, host_mm, the set's lock, a cache's own lock. None but the refresh lock is held
 * over gup.
 */
#ifndef MMU_GFN_CACHE_H
#define MMU_GFN_CACHE_H

#include "core/types.h"

#include <pthread.h>

struct mem;
struct gfn_caches;
struct stats;

enum gfn_cache_error {
    GFN_CACHE_OK = 0,
    GFN_CACHE_INACTIVE = -1,  /* not activated */
    GFN_CACHE_BAD_RANGE = -2, /* empty, or crosses into another page */
    GFN_CACHE_NO_RAM = -3,    /* no memslot, or one that is not RAM */
    GFN_CACHE_NO_FRAME = -4   /* the host gives no frame for writing, or its memory is gone */
};

struct gfn_cache {
    struct gfn_caches *set;  /* of the machine's memory; NULL: not initialised */
    struct gfn_cache *next;  /* in the set, while active */
    pthread_mutex_t refresh; /* one refresh, activation or deactivation at a time; Linux: refresh_lock */
    pthread_rwlock_t lock;   /* uses read, changes write; Linux: gpc->lock. Guards all below */
    unsigned as;
    gpa_t gpa;
    hva_t hva;           /* of gpa, as of the last refresh */
    uint8_t *ptr;        /* the byte at gpa */
    uint64_t generation; /* of the memslots, when hva was looked up */
    bool active, valid;
    bool used; /* atomic: since it was last aged */
};

/* `c` may then be activated. It must not move until gfn_cache_fini(). */
void gfn_cache_init(struct gfn_cache *c, struct mem *m);
/* Deactivates. A cache of zeros is allowed. */
void gfn_cache_fini(struct gfn_cache *c);
/* Names the page, and refreshes. [gpa, gpa + len) lies in one page. On an error the cache is inactive; except
 * GFN_CACHE_NO_FRAME, which a later refresh may overcome. An active cache is given its new place. */
enum gfn_cache_error gfn_cache_activate(struct gfn_cache *c, unsigned as, gpa_t gpa, size_t len);
void gfn_cache_deactivate(struct gfn_cache *c);
/* Is the pointer good for [gpa, gpa + len)? To be asked inside a use; elsewhere the answer may be old. */
bool gfn_cache_check(const struct gfn_cache *c, size_t len);
/* Makes the pointer good, if it is not; waits for invalidations of the page. Not inside a use. */
enum gfn_cache_error gfn_cache_refresh(struct gfn_cache *c, size_t len);
/* Lets the frame go; the next use gets it again. */
void gfn_cache_unmap(struct gfn_cache *c);

/* Begins a use of [gpa, gpa + len): the host address of gpa, or NULL, and then no use has begun. */
void *gfn_cache_begin(struct gfn_cache *c, size_t len);
void *gfn_cache_begin_atomic(struct gfn_cache *c, size_t len);
/* Ends it; [gpa + offset, gpa + offset + written) was written (0: nothing). */
void gfn_cache_end(struct gfn_cache *c, size_t offset, size_t written);

/* The caches of a machine's memory: the subscriber. Made by the first gfn_cache_init(), owned by `m`. */
void gfn_caches_destroy(struct gfn_caches *set);
/* What they did, for tests and `-stats`. Atomic reads. */
struct gfn_cache_counters {
    uint64_t refreshes;     /* pointers got */
    uint64_t retries;       /* of them those that were got again, since an invalidation came in between */
    uint64_t waits;         /* for the end of an invalidation */
    uint64_t invalidations; /* valid pointers dropped by the bus */
};
struct gfn_cache_counters gfn_caches_counters(const struct mem *m);
/* As gfn_cache.*, if there are any. */
void gfn_caches_add_stats(const struct mem *m, struct stats *stats);

#endif
