/*
 * KSM: pages with equal content come to share one read-only frame (Linux: mm/ksm.c).
 *
 * A scan visits the mergeable pages of its mms in order. A page whose checksum has not changed since the last visit is
 * looked up among the merged frames (stable) and among the pages seen in this pass (unstable); where the content is the
 * same, both are write-protected and the page is re-pointed to the other's frame, by change_pte, outside start/end, so
 * that a subscriber may follow without a zap. Pages of zeros go to the zero page. The first write gives a page its own
 * frame again, as any copy-on-write (gup.c).
 *
 * A merged frame is known by a tag (core/host/frame_pool.h): KSM keeps no frame alive. Both tables are hashed by
 * content and compared byte by byte; the order of visits and of merging depends on the calls alone.
 *
 * Called at safe points only. Lock order: KSM, host_mm; two host_mm locks are never held at once.
 */
#ifndef CORE_HOST_KSM_H
#define CORE_HOST_KSM_H

#include "core/host/host_mm.h"

struct ksm;

struct ksm_counters {
    uint64_t frames;    /* merged frames, those included that died since the last full scan */
    uint64_t scanned;   /* pages visited */
    uint64_t scans;     /* full passes */
    uint64_t volatiles; /* visits that found the content changed */
    uint64_t merges;    /* pages re-pointed */
    uint64_t zeros;     /* pages re-pointed to the zero page */
};

struct ksm *ksm_create(struct frame_pool *pool); /* pool is borrowed */
/* Lets go of its mms first; merged pages stay merged until they are written. NULL is allowed. */
void ksm_destroy(struct ksm *k);
const struct ksm_counters *ksm_counters(const struct ksm *k);
struct stats;
/* Registers the counters, as ksm.*. */
void ksm_add_stats(const struct ksm *k, struct stats *stats);
uint64_t ksm_frames(const struct ksm *k);

/* An mm is scanned by one KSM at most, of its own pool: false otherwise. host_mm_destroy() removes it. */
bool ksm_add(struct ksm *k, struct host_mm *mm);
void ksm_remove(struct ksm *k, struct host_mm *mm);
/* What KSM may look at: anonymous ranges; nothing at first (Linux: MADV_MERGEABLE). HOST_DENIED on bad ranges. Taking
 * it back does not unmerge. */
int host_mm_set_mergeable(struct host_mm *mm, hva_t hva, uint64_t len, bool on);

/* Visits the next `pages` pages; the number re-pointed. */
uint64_t ksm_scan(struct ksm *k, uint64_t pages);
/* Merges two pages at once if they hold the same bytes. HOST_OK; HOST_NOTHING: one is not there, or they differ. */
int ksm_merge(struct ksm *k, struct host_mm *a, hva_t hva_a, struct host_mm *b, hva_t hva_b);
/* Gives every merged page of the range a frame of its own (Linux: unmerge_ksm_pages). HOST_OK or HOST_NO_FRAMES. */
int ksm_unmerge(struct host_mm *mm, hva_t hva, uint64_t len);

#endif
