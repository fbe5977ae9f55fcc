/*
 * What the host does to the pages of a host_mm by itself: swap, aging, reclaim, huge pages, migration, fork,
 * soft-dirty.
 *
 * None of it changes what a page holds or what its VMA permits: who looks through host_mm_gup() cannot tell, except by
 * the frame's number and by how long it takes. Each fires the bus as Linux does. They are called at safe points only
 * (every vCPU between instructions, or waiting for a host lock). Results are enum host_status unless said otherwise;
 * anything but HOST_OK means that nothing was changed. What comes next (the clock hand, frame numbers) depends on the
 * calls alone.
 */
#ifndef CORE_HOST_HOST_OPS_H
#define CORE_HOST_HOST_OPS_H

#include "core/host/host_mm.h"

struct swap_store;

/* ---- swap ---- */

/* The store for this mm's pages; counted by the mm. All mms that fork from one share it. HOST_DENIED once the mm has a
 * store. */
int host_mm_set_swap(struct host_mm *mm, struct swap_store *store);
/* Takes the page's frame away: into the store, or, if it holds unwritten content of a file, simply away. HOST_NOTHING:
 * no frame there. */
int host_mm_swap_out(struct host_mm *mm, hva_t hva);
/* Brings a swapped page back before anyone asks for it. */
int host_mm_swap_in(struct host_mm *mm, hva_t hva);

/* ---- aging, reclaim, the limit ---- */

/* Reads and clears the accessed state of the next `pages` resident pages, round and round, through clear_young; pages
 * found untouched grow older. The number found young. */
uint64_t host_mm_age(struct host_mm *mm, uint64_t pages);
/* True if the page was accessed since it was last aged. Changes nothing (Linux: idle page tracking). */
bool host_mm_is_young(struct host_mm *mm, hva_t hva);
/* Takes up to `pages` pages out, the longest untouched first; the number taken, and in `*status` (may be NULL) why it
 * ended early. */
uint64_t host_mm_reclaim(struct host_mm *mm, uint64_t pages, int *status);

#define HOST_LIMIT_MIN   64 /* pages: less cannot hold what one instruction touches */
#define HOST_LIMIT_SLACK 64 /* pages a vCPU by which the limit may be exceeded between two safe points */

/* At most `pages` resident pages (merged ones count once a shared frame; 0: no limit). HOST_DENIED below
 * HOST_LIMIT_MIN. A gup over the limit succeeds and asks for reclaim at the next safe point. */
int host_mm_set_limit(struct host_mm *mm, uint64_t pages);
uint64_t host_mm_limit(const struct host_mm *mm);
/* True if reclaim waits for a safe point. Cheap: one load. Who touches many pages without being an instruction (a DMA
 * transfer) makes a safe point of its own when this says so. */
bool host_mm_wants_safe_point(const struct host_mm *mm);
/* Called, under the host_mm lock, by each gup that leaves the mm over its limit: asks whoever runs the vCPUs to come to
 * a safe point soon. It must take no lock. A fork does not inherit it. NULL: nobody. */
typedef void host_reclaim_fn(void *ctx);
void host_mm_set_reclaim_hook(struct host_mm *mm, host_reclaim_fn *fn, void *ctx);
/* Reclaims what the limit asks for. HOST_OK: the mm is below it. HOST_SWAP_FULL, HOST_NO_SWAP, HOST_IO_ERROR: it is not
 * and cannot be; nothing is lost, and the next call tries again. HOST_NOTHING: all that is left cannot be taken. */
int host_mm_safe_point(struct host_mm *mm);

/* ---- huge pages ---- */

/* Write faults in wholly untouched aligned ranges of 2 MiB (level 2) or of 1 GiB and else 2 MiB (level 3) are answered
 * with huge pages while frames and limit allow. 1: small pages only, as at first. A huge page takes frames, and memory
 * only as they are touched. */
void host_mm_set_huge_faults(struct host_mm *mm, int level);
/* Makes the 2 MiB around `hva` one huge page. HOST_NOTHING: no frame in it, an awaited page, or huge already;
 * HOST_NO_FRAMES: no aligned run. */
int host_mm_collapse(struct host_mm *mm, hva_t hva);
/* The same with the GiB around `hva` and one gigantic page. Nothing is copied where the frames lie as they should. */
int host_mm_collapse_gigantic(struct host_mm *mm, hva_t hva);
/* A gigantic page becomes 512 huge ones, a huge one 512 small ones. HOST_NOTHING: neither. */
int host_mm_split(struct host_mm *mm, hva_t hva);

/* ---- migration ---- */

/* Moves the page's content to another frame, the lowest free one. HOST_SHARED: others map the frame too. */
int host_mm_migrate(struct host_mm *mm, hva_t hva);
/* Compaction: moves up to `pages` frames downwards, so that free frames come together at the top. The number moved. */
uint64_t host_mm_compact(struct host_mm *mm, uint64_t pages);

/* ---- fork ---- */

/* A child with the same VMAs and content, sharing frames and slots until one side writes. It has the parent's swap
 * store, limit and huge setting, is merged by the parent's KSM, and mirrors what the parent mirrors. NULL when out of
 * memory. */
struct host_mm *host_mm_fork(struct host_mm *mm);
/* A child of [hva, hva + len) alone, without KSM; NULL also for a range that is not wholly mapped. */
struct host_mm *host_mm_fork_range(struct host_mm *mm, hva_t hva, uint64_t len);

/* Resident pages whose frame is this mm's alone, and those that share theirs: with other mms, or merged. */
struct host_sharing {
    uint64_t own, shared;
};
struct host_sharing host_mm_sharing(struct host_mm *mm);

/* ---- soft-dirty ---- */

/* Forgets which pages of the range were written; the next write to each is seen (Linux: clear_refs, value 4). */
int host_mm_soft_dirty_clear(struct host_mm *mm, hva_t hva, uint64_t len);
/* True if the page was written since. Survives swap, migration, merging and fork. */
bool host_mm_is_soft_dirty(const struct host_mm *mm, hva_t hva);

#endif
