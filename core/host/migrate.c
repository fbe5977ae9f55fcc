#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"

#include <string.h>

/*
 * Migration: a page's content moves to another frame (Linux: migrate_pages, try_to_migrate_one). Only frames that this
 * mm alone maps move, as move_pages() does without MPOL_MF_MOVE_ALL.
 */

/* What can be moved at `hva`; splits the huge page around it. */
static int check(struct host_mm *mm, hva_t hva)
{
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    if (!e || !hpte_is_resident(*e))
        return HOST_NOTHING;
    return frame_pool_refs(mm->pool, hpte_frame(*e)) > 1 ? HOST_SHARED : HOST_OK;
}

/* Moves the page to the frame `to`, whose reference passes to the hpte. False: the frame has become shared. */
static bool move(struct host_mm *mm, hva_t hva, pfn_t to)
{
    host_mm_split_locked(mm, hva);
    hpte_t old = *hpte_lookup(&mm->hptes, hva);
    if (!frame_pool_own(mm->pool, hpte_frame(old)))
        return false;
    unsigned bits = (unsigned)(old & PAGE_MASK & ~(hpte_t)(HPTE_STATE_MASK | HPTE_KSM));
    struct notify_range range = host_mm_page_range(mm, hva, NOTIFY_MIGRATE);
    notify_invalidate_range_start(&range);
    memcpy(frame_pool_ptr(mm->pool, to), frame_pool_ptr(mm->pool, hpte_frame(old)), PAGE_SIZE);
    host_mm_replace_locked(mm, hva, hpte_make(HPTE_PRESENT, to, bits));
    notify_invalidate_range_end(&range);
    mm->counters.migrations++;
    return true;
}

static int migrate_locked(struct host_mm *mm, hva_t hva)
{
    int rc = check(mm, hva);
    if (rc)
        return rc;
    pfn_t to = frame_pool_alloc(mm->pool);
    if (to == PFN_NONE)
        return HOST_NO_FRAMES;
    if (move(mm, hva, to))
        return HOST_OK;
    frame_pool_put(mm->pool, to);
    return HOST_SHARED;
}

int host_mm_migrate(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    int rc = migrate_locked(mm, hva & ~PAGE_MASK);
    host_mm_unlock(mm);
    return rc;
}

/* Moves the page down, if a frame below its own is free. False: all frames below are taken. */
static bool move_down(struct host_mm *mm, hva_t hva, bool *moved)
{
    pfn_t from = hpte_frame(*hpte_lookup(&mm->hptes, hva)), to = frame_pool_alloc(mm->pool);
    *moved = to != PFN_NONE && to < from && move(mm, hva, to);
    bool full = to == PFN_NONE;
    if (to != PFN_NONE && !*moved)
        frame_pool_put(mm->pool, to);
    return !full;
}

/* Linux: compact_zone. Frames beyond what the pool has in use could be below it: those move. Huge pages stay. */
uint64_t host_mm_compact(struct host_mm *mm, uint64_t pages)
{
    uint64_t done = 0;
    bool moved, room = true;
    host_mm_lock(mm);
    for_each_hpte(&mm->hptes, hva, 0, HVA_END) {
        if (done == pages || !room)
            break;
        if (check(mm, hva) || hpte_level_at(&mm->hptes, hva) > 1)
            continue;
        if (hpte_frame(*hpte_lookup(&mm->hptes, hva)) < frame_pool_used(mm->pool))
            continue;
        room = move_down(mm, hva, &moved);
        done += moved;
    }
    host_mm_unlock(mm);
    return done;
}
