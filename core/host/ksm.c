#include "core/host/ksm.h"

#include "core/alloc.h"
#include "core/host/host_mm_internal.h"
#include "core/host/lock_order.h"
#include "core/stats.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define BUCKETS_MIN ((size_t)1 << 10)
#define BUCKETS_MAX ((size_t)1 << 20)
/* A guest can make pages whose hashes collide; it then gets less merging, not a slow scan. */
#define CHAIN_MAX   64

/* A merged frame. */
struct node {
    struct node *next;
    uint64_t hash, id;
    pfn_t pfn;
};

/* A page seen in this pass, whose content may change at any time. */
struct candidate {
    struct candidate *next;
    uint64_t hash;
    struct host_mm *mm;
    hva_t hva;
};

struct ksm {
    pthread_mutex_t lock;
    struct frame_pool *pool;
    struct host_mm **mms;
    size_t count, at; /* mms; the one being scanned */
    hva_t cursor;     /* the next page in it */
    size_t buckets;   /* a power of two, of both tables */
    struct node **stable;
    struct candidate **unstable;
    struct ksm_counters counters;
};

static void ksm_lock(struct ksm *k)
{
    lock_check_take(k->pool, LOCK_RANK_KSM, &k->lock);
    pthread_mutex_lock(&k->lock);
}

static void ksm_unlock(struct ksm *k)
{
    pthread_mutex_unlock(&k->lock);
    lock_check_drop(k->pool, &k->lock);
}

/* ---- life ---- */

static size_t bucket_count(const struct frame_pool *pool)
{
    size_t n = BUCKETS_MIN;
    while (n < BUCKETS_MAX && n < frame_pool_capacity(pool) / 4)
        n *= 2;
    return n;
}

struct ksm *ksm_create(struct frame_pool *pool)
{
    struct ksm *k = alloc_zeroed(1, sizeof *k);
    pthread_mutex_init(&k->lock, NULL);
    k->pool = pool;
    k->buckets = bucket_count(pool);
    k->stable = alloc_zeroed(k->buckets, sizeof(struct node *));
    k->unstable = alloc_zeroed(k->buckets, sizeof(struct candidate *));
    return k;
}

static void forget_candidates(struct ksm *k)
{
    for (size_t i = 0; i < k->buckets; i++) {
        while (k->unstable[i]) {
            struct candidate *c = k->unstable[i];
            k->unstable[i] = c->next;
            free(c);
        }
    }
}

static bool is_alive(const struct ksm *k, const struct node *n)
{
    return frame_pool_tag(k->pool, n->pfn, FRAME_TAG_KSM).id == n->id;
}

static void drop_node(struct ksm *k, struct node **link)
{
    struct node *n = *link;
    *link = n->next;
    free(n);
    __atomic_sub_fetch(&k->counters.frames, 1, __ATOMIC_RELAXED);
}

/* Drops the nodes whose frames are gone, or all. */
static void drop_nodes(struct ksm *k, bool all)
{
    for (size_t i = 0; i < k->buckets; i++)
        for (struct node **link = &k->stable[i]; *link;)
            if (all || !is_alive(k, *link))
                drop_node(k, link);
            else
                link = &(*link)->next;
}

void ksm_destroy(struct ksm *k)
{
    if (!k)
        return;
    while (k->count)
        ksm_remove(k, k->mms[0]);
    forget_candidates(k);
    drop_nodes(k, true);
    pthread_mutex_destroy(&k->lock);
    free(k->stable);
    free(k->unstable);
    free(k->mms);
    free(k);
}

const struct ksm_counters *ksm_counters(const struct ksm *k)
{
    return &k->counters;
}

uint64_t ksm_frames(const struct ksm *k)
{
    return __atomic_load_n(&k->counters.frames, __ATOMIC_RELAXED);
}

void ksm_add_stats(const struct ksm *k, struct stats *stats)
{
    stats_add(stats, "ksm.frames", "", &k->counters.frames);
    stats_add(stats, "ksm.scanned", "pages", &k->counters.scanned);
    stats_add(stats, "ksm.scans", "", &k->counters.scans);
    stats_add(stats, "ksm.volatiles", "pages", &k->counters.volatiles);
    stats_add(stats, "ksm.merges", "pages", &k->counters.merges);
    stats_add(stats, "ksm.zeros", "pages", &k->counters.zeros);
}

bool ksm_add(struct ksm *k, struct host_mm *mm)
{
    ksm_lock(k);
    host_mm_lock(mm);
    bool ok = !mm->ksm && mm->pool == k->pool;
    if (ok) {
        mm->ksm = k;
        k->mms = alloc_resize(k->mms, k->count + 1, sizeof(struct host_mm *));
        k->mms[k->count++] = mm;
    }
    host_mm_unlock(mm);
    ksm_unlock(k);
    return ok;
}

static void remove_at(struct ksm *k, size_t i)
{
    memmove(&k->mms[i], &k->mms[i + 1], (k->count - i - 1) * sizeof(struct host_mm *));
    k->count--;
    if (i < k->at) {
        k->at--;
    } else if (i == k->at) {
        k->cursor = 0;
    }
}

void ksm_remove(struct ksm *k, struct host_mm *mm)
{
    ksm_lock(k);
    for (size_t i = 0; i < k->count; i++) {
        if (k->mms[i] != mm)
            continue;
        remove_at(k, i);
        forget_candidates(k); /* some are the mm's */
        host_mm_lock(mm);
        mm->ksm = NULL;
        host_mm_unlock(mm);
        break;
    }
    ksm_unlock(k);
}

int host_mm_set_mergeable(struct host_mm *mm, hva_t hva, uint64_t len, bool on)
{
    host_mm_lock(mm);
    int rc = host_mm_covers_locked(mm, hva, len) ? HOST_OK : HOST_DENIED;
    for (hva_t at = hva; !rc && at < hva + len;) {
        const struct vma *v = vma_find(&mm->vmas, at);
        rc = v->kind == VMA_ANON ? HOST_OK : HOST_DENIED;
        at = v->end;
    }
    if (!rc) {
        host_mm_split_borders_locked(mm, hva, hva + len); /* a huge page lies in one VMA */
        vma_set_mergeable(&mm->vmas, hva, hva + len, on);
    }
    host_mm_unlock(mm);
    return rc;
}

/* ---- the two tables ---- */

static uint64_t hash_of(const struct ksm *k, pfn_t pfn)
{
    return XXH3_64bits(frame_pool_ptr(k->pool, pfn), PAGE_SIZE);
}

/* The frame of a node with this content, with a reference for the caller, or PFN_NONE. Dead nodes on the way go. */
static pfn_t stable_get(struct ksm *k, uint64_t hash)
{
    unsigned steps = 0;
    for (struct node **link = &k->stable[hash & (k->buckets - 1)]; *link && steps++ < CHAIN_MAX;) {
        struct node *n = *link;
        if (n->hash != hash)
            link = &n->next;
        else if (frame_pool_get_tagged(k->pool, n->pfn, FRAME_TAG_KSM, n->id))
            return n->pfn;
        else
            drop_node(k, link);
    }
    return PFN_NONE;
}

static void stable_add(struct ksm *k, uint64_t hash, pfn_t pfn)
{
    struct node **bucket = &k->stable[hash & (k->buckets - 1)];
    struct node *n = alloc_zeroed(1, sizeof *n);
    *n = (struct node){.next = *bucket, .hash = hash, .id = frame_pool_new_tag(k->pool), .pfn = pfn};
    *bucket = n;
    frame_pool_set_tag(k->pool, pfn, FRAME_TAG_KSM, (struct frame_tag){.id = n->id});
    __atomic_add_fetch(&k->counters.frames, 1, __ATOMIC_RELAXED);
}

/* Takes the first candidate with this hash out of the table, or adds the page as one. False: it was added. */
static bool unstable_take_or_add(struct ksm *k, uint64_t hash, struct host_mm *mm, hva_t hva, struct candidate *found)
{
    struct candidate **bucket = &k->unstable[hash & (k->buckets - 1)], **link = bucket;
    unsigned steps = 0;
    for (; *link && steps++ < CHAIN_MAX; link = &(*link)->next) {
        struct candidate *c = *link;
        if (c->hash != hash)
            continue;
        *found = *c;
        *link = c->next;
        free(c);
        return true;
    }
    if (steps >= CHAIN_MAX)
        return false;
    struct candidate *c = alloc_zeroed(1, sizeof *c);
    *c = (struct candidate){.next = *bucket, .hash = hash, .mm = mm, .hva = hva};
    *bucket = c;
    return false;
}

/* ---- merging ---- */

/* Linux: write_protect_page. */
static void write_protect(struct host_mm *mm, hva_t hva)
{
    host_mm_split_locked(mm, hva);
    hpte_t e = *hpte_lookup(&mm->hptes, hva);
    if (e & HPTE_WRITE)
        host_mm_set_notify_locked(mm, hva, e & ~(hpte_t)HPTE_WRITE);
}

/* Linux: replace_page. The old frame lives until those who hold it without sptes were told as well. */
static void repoint(struct host_mm *mm, hva_t hva, hpte_t to)
{
    hpte_t old = *hpte_lookup(&mm->hptes, hva);
    host_mm_set_notify_locked(mm, hva, to);
    notify_invalidate_range(mm, hva, hva + PAGE_SIZE);
    frame_pool_put(mm->pool, hpte_frame(old));
}

static bool is_mergeable(const struct host_mm *mm, hva_t hva)
{
    const struct vma *v = vma_find(&mm->vmas, hva);
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    return v && v->kind == VMA_ANON && e && hpte_is_resident(*e);
}

/* Linux: try_to_merge_with_ksm_page. `frame` is merged already and the caller holds a reference, so nobody can write
 * it; the page cannot be written either once it is protected, so the comparison holds. */
static bool merge_with_frame(struct ksm *k, struct host_mm *mm, hva_t hva, pfn_t frame)
{
    if (!is_mergeable(mm, hva) || hpte_frame(*hpte_lookup(&mm->hptes, hva)) == frame)
        return false;
    write_protect(mm, hva);
    hpte_t old = *hpte_lookup(&mm->hptes, hva);
    if (memcmp(frame_pool_ptr(k->pool, hpte_frame(old)), frame_pool_ptr(k->pool, frame), PAGE_SIZE) != 0)
        return false;
    frame_pool_get(k->pool, frame);
    unsigned bits = (unsigned)(old & PAGE_MASK & ~(hpte_t)HPTE_STATE_MASK) | HPTE_KSM;
    repoint(mm, hva, hpte_make(HPTE_PRESENT, frame, bits));
    mm->counters.ksm_merges++;
    k->counters.merges++;
    return true;
}

static bool is_zeros(const void *page)
{
    const uint64_t *w = page;
    for (size_t i = 0; i < PAGE_SIZE / sizeof *w; i++)
        if (w[i])
            return false;
    return true;
}

/* Linux: use_zero_pages. */
static bool merge_with_zero(struct ksm *k, struct host_mm *mm, hva_t hva)
{
    pfn_t pfn = hpte_frame(*hpte_lookup(&mm->hptes, hva));
    if (!is_zeros(frame_pool_ptr(k->pool, pfn)))
        return false;
    write_protect(mm, hva);
    if (!is_zeros(frame_pool_ptr(k->pool, pfn)))
        return false;
    hpte_t bits = *hpte_lookup(&mm->hptes, hva) & (HPTE_READ | HPTE_ACCESSED | HPTE_SOFT_DIRTY);
    repoint(mm, hva, hpte_make(HPTE_ZERO, frame_pool_zero_frame(k->pool), (unsigned)bits));
    mm->counters.ksm_zeros++;
    k->counters.zeros++;
    return true;
}

/* Makes the page's frame a merged one, if its content has this hash: PFN_NONE, or the frame with a reference for the
 * caller. */
static pfn_t promote(struct ksm *k, struct host_mm *mm, hva_t hva, uint64_t hash)
{
    pfn_t pfn = PFN_NONE;
    host_mm_lock(mm);
    if (is_mergeable(mm, hva)) {
        write_protect(mm, hva);
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        if (hash_of(k, hpte_frame(e)) == hash && !(e & HPTE_KSM)) {
            pfn = hpte_frame(e);
            frame_pool_get(k->pool, pfn);
            stable_add(k, hash, pfn);
            hpte_set(&mm->hptes, hva, e | HPTE_KSM);
        }
    }
    host_mm_unlock(mm);
    return pfn;
}

static bool merge_with_candidate(struct ksm *k, struct host_mm *mm, hva_t hva, const struct candidate *c)
{
    pfn_t frame = promote(k, c->mm, c->hva, c->hash);
    if (frame == PFN_NONE)
        return false;
    host_mm_lock(mm);
    bool merged = merge_with_frame(k, mm, hva, frame);
    host_mm_unlock(mm);
    frame_pool_put(k->pool, frame);
    return merged;
}

/* ---- scanning ---- */

/* The checksum of the last visit; true if it is the same now. */
static bool is_settled(struct host_mm *mm, hva_t hva, uint64_t hash)
{
    struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    uint32_t sum = (uint32_t)(hash >> 32) | 1; /* 0: never visited */
    if (!c->sums)
        hpte_sums_make(&mm->hptes, c);
    bool same = c->sums[hpte_index(hva)] == sum;
    c->sums[hpte_index(hva)] = sum;
    return same;
}

enum visit { VISIT_DONE, VISIT_MERGED, VISIT_CANDIDATE };

/* Linux: cmp_and_merge_page, as far as this mm's lock reaches. */
static enum visit visit_locked(struct ksm *k, struct host_mm *mm, hva_t hva, struct candidate *found)
{
    hpte_t e = *hpte_lookup(&mm->hptes, hva);
    if (e & HPTE_KSM)
        return VISIT_DONE;
    uint64_t hash = hash_of(k, hpte_frame(e));
    if (merge_with_zero(k, mm, hva))
        return VISIT_MERGED;
    pfn_t frame = stable_get(k, hash);
    if (frame != PFN_NONE) {
        bool merged = merge_with_frame(k, mm, hva, frame);
        frame_pool_put(k->pool, frame);
        return merged ? VISIT_MERGED : VISIT_DONE;
    }
    if (!is_settled(mm, hva, hash)) {
        k->counters.volatiles++;
        return VISIT_DONE;
    }
    return unstable_take_or_add(k, hash, mm, hva, found) ? VISIT_CANDIDATE : VISIT_DONE;
}

/* The next resident page of a mergeable VMA from the cursor on, in the mm being scanned. */
static bool next_in_mm(struct ksm *k, struct host_mm *mm, hva_t *hva)
{
    hva_t at = k->cursor;
    while ((at = hpte_next(&mm->hptes, at, HVA_END)) < HVA_END) {
        const struct vma *v = vma_find(&mm->vmas, at);
        if (v && !v->mergeable) {
            at = v->end;
            continue;
        }
        if (v && hpte_is_resident(*hpte_lookup(&mm->hptes, at))) {
            *hva = at;
            k->cursor = at + PAGE_SIZE;
            return true;
        }
        at += PAGE_SIZE;
    }
    return false;
}

/* Visits one page of the current mm. False: it has no more. */
static bool visit_next(struct ksm *k, uint64_t *merged)
{
    struct host_mm *mm = k->mms[k->at];
    struct candidate found;
    enum visit v = VISIT_DONE;
    hva_t hva = 0;
    host_mm_lock(mm);
    bool more = next_in_mm(k, mm, &hva);
    if (more)
        v = visit_locked(k, mm, hva, &found);
    host_mm_unlock(mm);
    if (v == VISIT_CANDIDATE)
        v = merge_with_candidate(k, mm, hva, &found) ? VISIT_MERGED : VISIT_DONE;
    *merged += v == VISIT_MERGED;
    k->counters.scanned += more;
    return more;
}

/* Goes on to the next mm; after the last one a pass is over. True: it is. */
static bool next_mm(struct ksm *k)
{
    k->cursor = 0;
    if (++k->at < k->count)
        return false;
    k->at = 0;
    k->counters.scans++;
    forget_candidates(k);
    drop_nodes(k, false);
    return true;
}

uint64_t ksm_scan(struct ksm *k, uint64_t pages)
{
    uint64_t merged = 0;
    unsigned idle_passes = 0; /* a pass without a page: there is nothing to scan */
    ksm_lock(k);
    while (pages && k->count && idle_passes < 2) {
        if (k->at >= k->count)
            k->at = 0;
        if (visit_next(k, &merged)) {
            pages--;
            idle_passes = 0;
        } else {
            idle_passes += next_mm(k);
        }
    }
    ksm_unlock(k);
    return merged;
}

/* ---- on demand ---- */

/* The hash of the page's content; false if it has no frame of ours. */
static bool hash_page(struct ksm *k, struct host_mm *mm, hva_t hva, uint64_t *hash)
{
    host_mm_lock(mm);
    bool there = mm->pool == k->pool && is_mergeable(mm, hva);
    if (there)
        *hash = hash_of(k, hpte_frame(*hpte_lookup(&mm->hptes, hva)));
    host_mm_unlock(mm);
    return there;
}

static bool same_frame(struct host_mm *a, hva_t hva_a, struct host_mm *b, hva_t hva_b)
{
    struct hpte_info x = host_mm_peek(a, hva_a), y = host_mm_peek(b, hva_b);
    return x.state == HPTE_PRESENT && y.state == HPTE_PRESENT && x.pfn == y.pfn;
}

int ksm_merge(struct ksm *k, struct host_mm *a, hva_t hva_a, struct host_mm *b, hva_t hva_b)
{
    uint64_t hash_a, hash_b;
    hva_a &= ~PAGE_MASK;
    hva_b &= ~PAGE_MASK;
    ksm_lock(k);
    int rc = HOST_NOTHING;
    if (hash_page(k, a, hva_a, &hash_a) && hash_page(k, b, hva_b, &hash_b) && hash_a == hash_b) {
        pfn_t frame = stable_get(k, hash_a);
        if (frame == PFN_NONE)
            frame = promote(k, a, hva_a, hash_a);
        struct host_mm *mm[2] = {a, b};
        hva_t hva[2] = {hva_a, hva_b};
        for (unsigned i = 0; i < 2 && frame != PFN_NONE; i++) {
            host_mm_lock(mm[i]);
            merge_with_frame(k, mm[i], hva[i], frame);
            host_mm_unlock(mm[i]);
        }
        if (frame != PFN_NONE)
            frame_pool_put(k->pool, frame);
        rc = same_frame(a, hva_a, b, hva_b) ? HOST_OK : HOST_NOTHING;
    }
    ksm_unlock(k);
    return rc;
}

int ksm_unmerge(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    int rc = host_mm_covers_locked(mm, hva, len) ? HOST_OK : HOST_DENIED;
    for_each_hpte(&mm->hptes, at, hva, rc ? hva : hva + len) {
        hpte_t e = *hpte_lookup(&mm->hptes, at);
        if (hpte_is_resident(e) && (e & HPTE_KSM) && (rc = host_mm_break_cow_locked(mm, at, false)))
            break;
    }
    host_mm_check_limit_locked(mm);
    host_mm_unlock(mm);
    return rc;
}
