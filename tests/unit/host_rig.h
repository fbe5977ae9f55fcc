/*
 * What the suites of the host side share: a pool, an mm of 64 writable pages, and a subscriber that writes down what it
 * is told.
 */
#ifndef TESTS_UNIT_HOST_RIG_H
#define TESTS_UNIT_HOST_RIG_H

#include "core/host/host_ops.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

#define RIG_PAGES 64

struct rig {
    struct frame_pool *pool;
    struct host_mm *mm;
    hva_t base;
    struct notifier watcher;
    char seen[4096];
    pfn_t watched; /* must still be allocated whenever invalidate_range runs */
    struct gup_result got;
    uint64_t young_pages; /* bit per page: the watcher's accessed bits */
    bool flushed;         /* the last aging call was one with a flush */
};

static struct rig rig;

static inline void rig_note(const char *what, hva_t start, hva_t end)
{
    size_t n = strlen(rig.seen);
    snprintf(rig.seen + n, sizeof rig.seen - n, "%s %d-%d;", what, (int)((int64_t)(start - rig.base) >> 12),
             (int)((int64_t)(end - rig.base) >> 12));
}

static inline int rig_on_start(struct notifier *n, const struct notify_range *r)
{
    static const char *const names[] = {"UNMAP", "CLEAR", "PROT", "PROTPAGE", "SOFT", "RELEASE", "MIGRATE", "EXCL"};
    strcat(rig.seen, names[r->event]);
    rig_note(" start", r->start, r->end);
    return 0;
}

static inline void rig_on_end(struct notifier *n, const struct notify_range *r)
{
    rig_note("end", r->start, r->end);
}

static inline void rig_on_range(struct notifier *n, hva_t start, hva_t end)
{
    rig_note("inv", start, end);
    if (rig.watched != PFN_NONE)
        ck_assert_uint_ge(frame_pool_refs(rig.pool, rig.watched), 1);
}

/* Says what it is shown, and that the hpte is still the old one. */
static inline void rig_on_change(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct hpte_info now = host_mm_peek(n->mm, hva);
    rig_note(hpte.writable         ? "change-w"
             : now.pfn == hpte.pfn ? "change-protect"
                                   : "change-frame",
             hva, hva + PAGE_SIZE);
    ck_assert(now.pfn != hpte.pfn || now.writable != hpte.writable);
}

static inline uint64_t rig_young_mask(hva_t start, hva_t end)
{
    uint64_t mask = 0;
    for (hva_t hva = start; hva < end; hva += PAGE_SIZE)
        if (hva >= rig.base && hva < rig.base + RIG_PAGES * PAGE_SIZE)
            mask |= 1ull << ((hva - rig.base) >> PAGE_SHIFT);
    return mask;
}

static inline bool rig_clear_young(struct notifier *n, hva_t start, hva_t end)
{
    bool young = rig.young_pages & rig_young_mask(start, end);
    rig.young_pages &= ~rig_young_mask(start, end);
    rig.flushed = false;
    return young;
}

static inline bool rig_clear_flush_young(struct notifier *n, hva_t start, hva_t end)
{
    bool young = rig_clear_young(n, start, end);
    rig.flushed = true;
    return young;
}

static inline bool rig_test_young(struct notifier *n, hva_t hva)
{
    return rig.young_pages & rig_young_mask(hva, hva + PAGE_SIZE);
}

static inline void rig_on_release(struct notifier *n)
{
    strcat(rig.seen, "release;");
}

static const struct notifier_ops rig_ops = {
    .invalidate_range_start = rig_on_start,
    .invalidate_range_end = rig_on_end,
    .invalidate_range = rig_on_range,
    .clear_flush_young = rig_clear_flush_young,
    .clear_young = rig_clear_young,
    .test_young = rig_test_young,
    .change_pte = rig_on_change,
    .release = rig_on_release,
};

static inline void rig_setup(void)
{
    char err[200];
    memset(&rig, 0, sizeof rig);
    rig.watched = PFN_NONE;
    rig.pool = frame_pool_create(8192, err, sizeof err);
    ck_assert_msg(rig.pool != NULL, "%s", err);
    rig.mm = host_mm_create(rig.pool);
    rig.base = host_mm_mmap_anon(rig.mm, RIG_PAGES * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(notifier_register(&rig.watcher, rig.mm, &rig_ops), 0);
}

static inline void rig_teardown(void)
{
    notifier_unregister(&rig.watcher);
    host_mm_destroy(rig.mm);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    frame_pool_destroy(rig.pool);
}

static inline hva_t page(unsigned i)
{
    return rig.base + i * PAGE_SIZE;
}

static inline void *gup_of(struct host_mm *mm, hva_t hva, bool write)
{
    ck_assert_int_eq(host_mm_gup(mm, hva, write, &rig.got), 0);
    ck_assert_ptr_eq(rig.got.ptr, frame_pool_ptr(rig.pool, rig.got.pfn));
    return rig.got.ptr;
}

/* Fills a page with bytes that its seed decides and that pack to about half. */
static inline void fill_bytes(uint8_t *p, uint64_t seed)
{
    for (size_t i = 0; i < PAGE_SIZE; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = i & 64 ? (uint8_t)(seed >> 56) : (uint8_t)i;
    }
}

static inline void write_page(struct host_mm *mm, hva_t hva, uint64_t seed)
{
    fill_bytes(gup_of(mm, hva, true), seed);
}

/* What a peek sees must be what was written; it changes nothing. */
static inline void peek_is(struct host_mm *mm, hva_t hva, uint64_t seed)
{
    uint8_t want[PAGE_SIZE], is[PAGE_SIZE];
    struct hpte_info before = host_mm_peek(mm, hva);
    fill_bytes(want, seed);
    ck_assert_int_eq(host_mm_peek_read(mm, hva, is), HOST_OK);
    ck_assert_mem_eq(is, want, PAGE_SIZE);
    const void *p = host_mm_peek_content(mm, hva);
    ck_assert_ptr_nonnull(p);
    ck_assert_mem_eq(p, want, PAGE_SIZE);
    ck_assert_int_eq(host_mm_peek(mm, hva).state, before.state);
}

static inline void page_is(struct host_mm *mm, hva_t hva, uint64_t seed)
{
    uint8_t want[PAGE_SIZE];
    fill_bytes(want, seed);
    ck_assert_mem_eq(gup_of(mm, hva, false), want, PAGE_SIZE);
}

static inline uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

#endif
