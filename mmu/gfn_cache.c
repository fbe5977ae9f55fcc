#include "mmu/gfn_cache.h"
#include "core/alloc.h"
#include "core/stats.h"
#include "mmu/mem.h"

#include <stdlib.h>

/*
 * Built with UMBRA_GFN_CACHE_RANGE_ONLY the subscriber listens to invalidate_range alone, as a cache of translations
 * that are only read may: a test shows then which writes go astray.
 */
#ifdef UMBRA_GFN_CACHE_RANGE_ONLY
#define HEARS_DOWNGRADES false
#else
#define HEARS_DOWNGRADES true
#endif

struct gfn_caches {
    struct mem *mem;
    struct notifier notifier;
    pthread_mutex_t lock; /* guards all below, and every cache's `next` */
    pthread_cond_t ended; /* an invalidation has ended */
    struct gfn_cache *list;
    unsigned in_progress; /* invalidations; [start, end) holds all of them */
    hva_t start, end;
    uint64_t seq; /* advances with each invalidation's end and each change_pte */
    bool released;
    struct gfn_cache_counters counters; /* atomic to readers */
};

static void count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* ---- the subscriber ---- */

static void invalidate_one(struct gfn_caches *set, struct gfn_cache *c, hva_t start, hva_t end)
{
    pthread_rwlock_wrlock(&c->lock); /* waits for uses: what they write lies in the frame before it goes */
    hva_t page = c->hva & ~PAGE_MASK;
    if (c->valid && page >= start && page < end) {
        c->valid = false;
        c->ptr = NULL;
        count(&set->counters.invalidations);
    }
    pthread_rwlock_unlock(&c->lock);
}

/* The set's lock is held. */
static void invalidate(struct gfn_caches *set, hva_t start, hva_t end)
{
    for (struct gfn_cache *c = set->list; c; c = c->next)
        invalidate_one(set, c, start, end);
}

/* Linux: gfn_to_pfn_cache_invalidate_start, after mn_active_invalidate_count was raised: a refresh that installs its
 * pointer before is undone here, one that comes later waits or retries. */
static int on_range_start(struct notifier *n, const struct notify_range *range)
{
    struct gfn_caches *set = container_of(n, struct gfn_caches, notifier);
    pthread_mutex_lock(&set->lock);
    if (!set->in_progress++) {
        set->start = range->start;
        set->end = range->end;
    } else {
        set->start = range->start < set->start ? range->start : set->start;
        set->end = range->end > set->end ? range->end : set->end;
    }
    if (HEARS_DOWNGRADES)
        invalidate(set, range->start, range->end);
    pthread_mutex_unlock(&set->lock);
    return 0;
}

static void on_range_end(struct notifier *n, const struct notify_range *range)
{
    struct gfn_caches *set = container_of(n, struct gfn_caches, notifier);
    pthread_mutex_lock(&set->lock);
    set->seq++;
    set->in_progress--;
    pthread_cond_broadcast(&set->ended);
    pthread_mutex_unlock(&set->lock);
}

static void on_invalidate_range(struct notifier *n, hva_t start, hva_t end)
{
    struct gfn_caches *set = container_of(n, struct gfn_caches, notifier);
    if (HEARS_DOWNGRADES)
        return;
    pthread_mutex_lock(&set->lock);
    invalidate(set, start, end);
    pthread_mutex_unlock(&set->lock);
}

/* KSM write-protects and re-points outside any range. The new entry is read-only or another frame: either way the
 * pointer is no longer one to write through. The hpte is set under the host_mm lock that the caller holds, so a refresh
 * that begins now gets the new one. */
static void on_change_pte(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct gfn_caches *set = container_of(n, struct gfn_caches, notifier);
    if (!HEARS_DOWNGRADES)
        return;
    pthread_mutex_lock(&set->lock);
    set->seq++;
    invalidate(set, hva, hva + PAGE_SIZE);
    pthread_mutex_unlock(&set->lock);
}

/* Writes through a pointer set no accessed bit: the cache says itself whether its page was used. */
static bool age(struct gfn_caches *set, hva_t start, hva_t end, bool clear)
{
    bool young = false;
    pthread_mutex_lock(&set->lock);
    for (struct gfn_cache *c = set->list; c; c = c->next) {
        pthread_rwlock_rdlock(&c->lock);
        if (c->valid && c->hva >= start && c->hva < end)
            young |= clear ? __atomic_exchange_n(&c->used, false, __ATOMIC_RELAXED)
                           : __atomic_load_n(&c->used, __ATOMIC_RELAXED);
        pthread_rwlock_unlock(&c->lock);
    }
    pthread_mutex_unlock(&set->lock);
    return young;
}

static bool on_clear_young(struct notifier *n, hva_t start, hva_t end)
{
    return age(container_of(n, struct gfn_caches, notifier), start, end, true);
}

static bool on_test_young(struct notifier *n, hva_t hva)
{
    return age(container_of(n, struct gfn_caches, notifier), hva, hva + PAGE_SIZE, false);
}

static void on_release(struct notifier *n)
{
    struct gfn_caches *set = container_of(n, struct gfn_caches, notifier);
    pthread_mutex_lock(&set->lock);
    set->released = true;
    invalidate(set, 0, UINT64_MAX);
    pthread_mutex_unlock(&set->lock);
}

static const struct notifier_ops gfn_cache_notifier_ops = {
    .invalidate_range_start = on_range_start,
    .invalidate_range_end = on_range_end,
    .invalidate_range = on_invalidate_range,
    .clear_flush_young = on_clear_young,
    .clear_young = on_clear_young,
    .test_young = on_test_young,
    .change_pte = on_change_pte,
    .release = on_release,
};

static struct gfn_caches *set_create(struct mem *m)
{
    struct gfn_caches *set = alloc_zeroed(1, sizeof *set);
    set->mem = m;
    pthread_mutex_init(&set->lock, NULL);
    pthread_cond_init(&set->ended, NULL);
    if (notifier_register(&set->notifier, m->cfg.mm, &gfn_cache_notifier_ops))
        set->released = true;
    return set;
}

void gfn_caches_destroy(struct gfn_caches *set)
{
    if (!set)
        return;
    notifier_unregister(&set->notifier);
    pthread_cond_destroy(&set->ended);
    pthread_mutex_destroy(&set->lock);
    free(set);
}

struct gfn_cache_counters gfn_caches_counters(const struct mem *m)
{
    struct gfn_cache_counters out = {0};
    if (!m->caches)
        return out;
    const struct gfn_cache_counters *c = &m->caches->counters;
    out.refreshes = __atomic_load_n(&c->refreshes, __ATOMIC_RELAXED);
    out.retries = __atomic_load_n(&c->retries, __ATOMIC_RELAXED);
    out.waits = __atomic_load_n(&c->waits, __ATOMIC_RELAXED);
    out.invalidations = __atomic_load_n(&c->invalidations, __ATOMIC_RELAXED);
    return out;
}

void gfn_caches_add_stats(const struct mem *m, struct stats *stats)
{
    if (!m->caches)
        return;
    const struct gfn_cache_counters *c = &m->caches->counters;
    stats_add(stats, "gfn_cache.refreshes", "pointers", &c->refreshes);
    stats_add(stats, "gfn_cache.retries", "pointers", &c->retries);
    stats_add(stats, "gfn_cache.waits", "waits", &c->waits);
    stats_add(stats, "gfn_cache.invalidations", "pointers", &c->invalidations);
}

/* ---- life of a cache ---- */

void gfn_cache_init(struct gfn_cache *c, struct mem *m)
{
    if (!m->caches)
        m->caches = set_create(m);
    *c = (struct gfn_cache){.set = m->caches};
    pthread_mutex_init(&c->refresh, NULL);
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP); /* the host is not kept out */
    pthread_rwlock_init(&c->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

void gfn_cache_fini(struct gfn_cache *c)
{
    if (!c->set)
        return;
    gfn_cache_deactivate(c);
    pthread_mutex_destroy(&c->refresh);
    pthread_rwlock_destroy(&c->lock);
    c->set = NULL;
}

static void link_cache(struct gfn_caches *set, struct gfn_cache *c)
{
    pthread_mutex_lock(&set->lock);
    c->next = set->list;
    set->list = c;
    pthread_mutex_unlock(&set->lock);
}

static void unlink_cache(struct gfn_caches *set, struct gfn_cache *c)
{
    pthread_mutex_lock(&set->lock);
    struct gfn_cache **link = &set->list;
    while (*link && *link != c)
        link = &(*link)->next;
    if (*link)
        *link = c->next;
    pthread_mutex_unlock(&set->lock);
}

/* The refresh lock is held; so `active` may be read. */
static void set_place(struct gfn_cache *c, bool active, unsigned as, gpa_t gpa)
{
    if (active && !c->active)
        link_cache(c->set, c);
    if (!active && c->active)
        unlink_cache(c->set, c);
    pthread_rwlock_wrlock(&c->lock);
    c->active = active;
    c->valid = false;
    c->ptr = NULL;
    c->as = as;
    c->gpa = gpa;
    pthread_rwlock_unlock(&c->lock);
}

void gfn_cache_deactivate(struct gfn_cache *c)
{
    if (!c->set)
        return;
    pthread_mutex_lock(&c->refresh);
    set_place(c, false, 0, 0);
    pthread_mutex_unlock(&c->refresh);
}

void gfn_cache_unmap(struct gfn_cache *c)
{
    pthread_rwlock_wrlock(&c->lock);
    c->valid = false;
    c->ptr = NULL;
    pthread_rwlock_unlock(&c->lock);
}

/* ---- refreshing ---- */

static bool fits(gpa_t gpa, size_t len)
{
    return len && len <= PAGE_SIZE - (gpa & PAGE_MASK);
}

bool gfn_cache_check(const struct gfn_cache *c, size_t len)
{
    return c->active && c->valid && fits(c->gpa, len) && c->generation == c->set->mem->generation;
}

static bool is_in_flight(const struct gfn_caches *set, hva_t hva)
{
    return set->in_progress && hva >= set->start && hva < set->end;
}

/* Waits until no invalidation of the page is under way: the sequence then. False: the memory is gone. */
static bool wait_for_quiet(struct gfn_caches *set, hva_t hva, uint64_t *seq)
{
    pthread_mutex_lock(&set->lock);
    if (is_in_flight(set, hva))
        count(&set->counters.waits);
    while (is_in_flight(set, hva))
        pthread_cond_wait(&set->ended, &set->lock);
    *seq = set->seq;
    bool released = set->released;
    pthread_mutex_unlock(&set->lock);
    return !released;
}

/* Takes the pointer over, unless something happened to its page since `seq` (Linux: mmu_notifier_retry_cache). */
static bool install(struct gfn_cache *c, uint64_t seq, hva_t hva, uint64_t generation, const struct gup_result *g)
{
    struct gfn_caches *set = c->set;
    pthread_mutex_lock(&set->lock);
    bool good = set->seq == seq && !is_in_flight(set, hva) && !set->released;
    if (good) {
        pthread_rwlock_wrlock(&c->lock);
        c->hva = hva;
        c->ptr = (uint8_t *)g->ptr + (c->gpa & PAGE_MASK);
        c->generation = generation;
        c->valid = true;
        pthread_rwlock_unlock(&c->lock);
    }
    pthread_mutex_unlock(&set->lock);
    return good;
}

/* Linux: hva_to_pfn_retry. The refresh lock is held. */
static enum gfn_cache_error get_pointer(struct gfn_cache *c)
{
    struct gfn_caches *set = c->set;
    struct mem *m = set->mem;
    uint64_t generation = m->generation, seq;
    const struct memslot *s = memslot_find(m, c->as, c->gpa >> PAGE_SHIFT);
    if (!s || s->kind != MEMSLOT_RAM)
        return GFN_CACHE_NO_RAM;
    hva_t hva = memslot_hva(s, c->gpa >> PAGE_SHIFT) | (c->gpa & PAGE_MASK);
    for (;;) {
        struct gup_result g;
        if (!wait_for_quiet(set, hva, &seq) || host_mm_gup(m->cfg.mm, hva, true, &g))
            return GFN_CACHE_NO_FRAME;
        if (install(c, seq, hva, generation, &g))
            break;
        count(&set->counters.retries);
    }
    count(&set->counters.refreshes);
    return GFN_CACHE_OK;
}

/* The refresh lock is held. */
static enum gfn_cache_error refresh_locked(struct gfn_cache *c, size_t len)
{
    if (!c->active)
        return GFN_CACHE_INACTIVE;
    if (!fits(c->gpa, len))
        return GFN_CACHE_BAD_RANGE;
    pthread_rwlock_rdlock(&c->lock);
    bool good = gfn_cache_check(c, len);
    pthread_rwlock_unlock(&c->lock);
    return good ? GFN_CACHE_OK : get_pointer(c);
}

enum gfn_cache_error gfn_cache_refresh(struct gfn_cache *c, size_t len)
{
    pthread_mutex_lock(&c->refresh);
    enum gfn_cache_error error = refresh_locked(c, len);
    pthread_mutex_unlock(&c->refresh);
    return error;
}

enum gfn_cache_error gfn_cache_activate(struct gfn_cache *c, unsigned as, gpa_t gpa, size_t len)
{
    enum gfn_cache_error error = as < MEM_ADDRESS_SPACES ? GFN_CACHE_OK : GFN_CACHE_NO_RAM;
    pthread_mutex_lock(&c->refresh);
    if (!error && !fits(gpa, len))
        error = GFN_CACHE_BAD_RANGE;
    if (!error) {
        set_place(c, true, as, gpa);
        error = refresh_locked(c, len);
    }
    if (error && error != GFN_CACHE_NO_FRAME)
        set_place(c, false, 0, 0);
    pthread_mutex_unlock(&c->refresh);
    return error;
}

/* ---- uses ---- */

/* The read lock is held; it is kept if the answer is yes. */
static void *use(struct gfn_cache *c, size_t len)
{
    if (likely(gfn_cache_check(c, len))) {
        __atomic_store_n(&c->used, true, __ATOMIC_RELAXED);
        return c->ptr;
    }
    pthread_rwlock_unlock(&c->lock);
    return NULL;
}

void *gfn_cache_begin_atomic(struct gfn_cache *c, size_t len)
{
    return pthread_rwlock_tryrdlock(&c->lock) ? NULL : use(c, len);
}

void *gfn_cache_begin(struct gfn_cache *c, size_t len)
{
    for (;;) {
        pthread_rwlock_rdlock(&c->lock);
        void *p = use(c, len);
        if (likely(p != NULL) || gfn_cache_refresh(c, len))
            return p;
    }
}

void gfn_cache_end(struct gfn_cache *c, size_t offset, size_t written)
{
    struct mem *m = c->set->mem;
    unsigned as = c->as;
    gpa_t gpa = c->gpa + offset;
    pthread_rwlock_unlock(&c->lock);
    if (written) /* listeners take locks, and may ask for the page */
        mem_written(m, as, gpa, written);
}
