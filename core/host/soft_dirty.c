#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"

/*
 * Soft-dirty: which pages were written since it was last cleared. Clearing write-protects, so that the next write comes
 * by (Linux: clear_refs_write, clear_soft_dirty).
 */

static void clear_in(struct host_mm *mm, hva_t start, hva_t end)
{
    for_each_hpte(&mm->hptes, hva, start, end) {
        hpte_t *e = hpte_lookup(&mm->hptes, hva);
        mm->counters.soft_clears += (*e & HPTE_SOFT_DIRTY) != 0;
        *e &= ~(hpte_t)(HPTE_SOFT_DIRTY | HPTE_WRITE);
    }
}

int host_mm_soft_dirty_clear(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    int rc = host_mm_covers_locked(mm, hva, len) ? HOST_OK : HOST_DENIED;
    if (!rc) {
        struct notify_range range = {
            .mm = mm, .start = hva, .end = hva + len, .event = NOTIFY_SOFT_DIRTY, .flags = NOTIFY_BLOCKABLE};
        host_mm_split_borders_locked(mm, range.start, range.end);
        notify_invalidate_range_start(&range);
        clear_in(mm, range.start, range.end);
        notify_invalidate_range_end(&range);
    }
    host_mm_unlock(mm);
    return rc;
}

bool host_mm_is_soft_dirty(const struct host_mm *mm, hva_t hva)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    host_mm_lock(m);
    const hpte_t *e = hpte_lookup(&m->hptes, hva);
    bool dirty = e && (*e & HPTE_SOFT_DIRTY);
    host_mm_unlock(m);
    return dirty;
}
