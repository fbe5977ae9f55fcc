#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"
#include "core/host/swap.h"

#include <string.h>

/*
 * Huge host pages (Linux: transparent huge pages). A huge page is a chunk of 512 hptes, alike in permissions, over one
 * aligned run of frames; each frame keeps its own count, so that a split changes no frame.
 */

static struct notify_range chunk_range(struct host_mm *mm, hva_t hva)
{
    hva_t start = hpte_chunk_start(hva);
    return (struct notify_range){
        .mm = mm, .start = start, .end = start + HPTE_CHUNK_SIZE, .event = NOTIFY_CLEAR, .flags = NOTIFY_BLOCKABLE};
}

/* ---- split ---- */

/* Linux: __split_huge_pmd. The frames stay, so there is no invalidate_range. */
void host_mm_split_locked(struct host_mm *mm, hva_t hva)
{
    struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    if (!c || !c->huge)
        return;
    struct notify_range range = chunk_range(mm, hva);
    notify_invalidate_range_start(&range);
    c->huge = false;
    mm->counters.splits++;
    notify_invalidate_range_end(&range);
}

void host_mm_split_borders_locked(struct host_mm *mm, hva_t start, hva_t end)
{
    if (start % HPTE_CHUNK_SIZE)
        host_mm_split_locked(mm, start);
    if (end % HPTE_CHUNK_SIZE)
        host_mm_split_locked(mm, end);
}

int host_mm_split(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    const struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    int rc = c && c->huge ? HOST_OK : HOST_NOTHING;
    host_mm_split_locked(mm, hva);
    host_mm_unlock(mm);
    return rc;
}

/* ---- faults ---- */

void host_mm_set_huge_faults(struct host_mm *mm, bool on)
{
    host_mm_lock(mm);
    mm->huge_faults = on;
    host_mm_unlock(mm);
}

static bool has_room(const struct host_mm *mm)
{
    return !mm->limit || host_mm_charge_locked(mm) + HPTE_CHUNK_PAGES <= mm->limit;
}

static void map_run(struct host_mm *mm, hva_t start, pfn_t run, unsigned bits)
{
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        hpte_set(&mm->hptes, start + i * PAGE_SIZE, hpte_make(HPTE_PRESENT, run + i, bits));
    hpte_chunk_at(&mm->hptes, start)->huge = true;
}

/* Linux: do_huge_pmd_anonymous_page. Nothing was there, so nobody is told. */
bool host_mm_huge_fault_locked(struct host_mm *mm, hva_t hva, const struct vma *v)
{
    hva_t start = hpte_chunk_start(hva);
    bool fits = v->start <= start && v->end - start >= HPTE_CHUNK_SIZE && !hpte_chunk_at(&mm->hptes, hva);
    if (!mm->huge_faults || !fits || !has_room(mm))
        return false;
    pfn_t run = frame_pool_alloc_huge(mm->pool);
    if (run == PFN_NONE)
        return false;
    map_run(mm, start, run, HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY);
    mm->counters.huge_faults++;
    return true;
}

static bool owns_run(struct host_mm *mm, const struct hpte_chunk *c)
{
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        if (!frame_pool_own(mm->pool, hpte_frame(c->e[i])))
            return false;
    return true;
}

bool host_mm_huge_reuse_locked(struct host_mm *mm, hva_t hva)
{
    struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    if (!c || !c->huge)
        return false;
    if (!owns_run(mm, c)) {
        host_mm_split_locked(mm, hva);
        return false;
    }
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        c->e[i] |= HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY;
    mm->counters.reuses++;
    return true;
}

/* ---- collapse ---- */

/* One VMA over all of it, with memory of our own, something there, and not huge yet (Linux: hugepage_vma_check). */
static int can_collapse(const struct host_mm *mm, hva_t start)
{
    const struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, start);
    const struct vma *v = vma_find(&mm->vmas, start);
    if (!v || v->end - start < HPTE_CHUNK_SIZE || v->kind != VMA_ANON || !v->prot)
        return HOST_DENIED;
    if (!c || c->huge)
        return HOST_NOTHING;
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        if (hpte_state_of(c->e[i]) == HPTE_PRESENT)
            return HOST_OK;
    return HOST_NOTHING;
}

/* Fills the new run, which is zeros, from the old pages (Linux: __collapse_huge_page_swapin and _copy). */
static int copy_pages(struct host_mm *mm, const struct hpte_chunk *c, pfn_t run)
{
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++) {
        hpte_t e = c->e[i];
        void *to = frame_pool_ptr(mm->pool, run + i);
        if (hpte_state_of(e) == HPTE_PRESENT)
            memcpy(to, frame_pool_ptr(mm->pool, hpte_frame(e)), PAGE_SIZE);
        int rc = hpte_state_of(e) == HPTE_SWAPPED ? swap_store_read(mm->swap, hpte_frame(e), to) : HOST_OK;
        if (rc)
            return rc;
    }
    return HOST_OK;
}

static void put_run(struct host_mm *mm, pfn_t run)
{
    pfn_t frames[HPTE_CHUNK_PAGES];
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        frames[i] = run + i;
    frame_pool_put_many(mm->pool, frames, HPTE_CHUNK_PAGES);
}

/* Linux: collapse_huge_page. What may be written afterwards counts as written, as a huge page's one D bit would say. */
static int collapse_locked(struct host_mm *mm, hva_t start)
{
    int rc = can_collapse(mm, start);
    if (rc)
        return rc;
    pfn_t run = frame_pool_alloc_huge(mm->pool);
    if (run == PFN_NONE)
        return HOST_NO_FRAMES;
    struct notify_range range = chunk_range(mm, start);
    notify_invalidate_range_start(&range);
    rc = copy_pages(mm, hpte_chunk_at(&mm->hptes, start), run);
    if (rc) {
        put_run(mm, run);
    } else {
        bool writable = vma_find(&mm->vmas, start)->prot & HOST_WRITE;
        host_mm_zap_locked(mm, range.start, range.end); /* fires invalidate_range while the old frames live */
        map_run(mm, start, run, HPTE_READ | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY | (writable ? HPTE_WRITE : 0));
        mm->counters.collapses++;
    }
    notify_invalidate_range_end(&range);
    host_mm_check_limit_locked(mm);
    return rc;
}

int host_mm_collapse(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    int rc = collapse_locked(mm, hpte_chunk_start(hva));
    host_mm_unlock(mm);
    return rc;
}
