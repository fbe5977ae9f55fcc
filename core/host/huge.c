#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"
#include "core/host/swap.h"

#include <string.h>

/*
 * Huge host pages (Linux: transparent huge pages, of PMD and of PUD size). A huge page is a chunk of 512 hptes, alike
 * in permissions, over one aligned run of frames; a gigantic one is 512 such chunks over one aligned GiB. Each frame
 * keeps its own count, so that a split changes no frame.
 */

static struct notify_range level_range(struct host_mm *mm, hva_t hva, int level)
{
    hva_t start = hpte_level_start(hva, level);
    return (struct notify_range){.mm = mm,
                                 .start = start,
                                 .end = start + hpte_level_size(level),
                                 .event = NOTIFY_CLEAR,
                                 .flags = NOTIFY_BLOCKABLE};
}

/* Says of each chunk of the range that it is part of a mapping of the level. */
static void set_level(struct host_mm *mm, const struct notify_range *range, int level)
{
    for (hva_t at = range->start; at < range->end; at += HPTE_CHUNK_SIZE)
        hpte_chunk_at(&mm->hptes, at)->level = (uint8_t)level;
}

/* ---- split ---- */

/* One level down. Linux: __split_huge_pmd, __split_huge_pud. The frames stay, so there is no invalidate_range. */
static void split_once(struct host_mm *mm, hva_t hva)
{
    int level = hpte_level_at(&mm->hptes, hva);
    struct notify_range range = level_range(mm, hva, level);
    notify_invalidate_range_start(&range);
    set_level(mm, &range, level - 1);
    mm->counters.splits++;
    notify_invalidate_range_end(&range);
}

void host_mm_split_locked(struct host_mm *mm, hva_t hva)
{
    while (hpte_level_at(&mm->hptes, hva) > 1)
        split_once(mm, hva);
}

static void split_border(struct host_mm *mm, hva_t at)
{
    while (at % hpte_level_size(hpte_level_at(&mm->hptes, at)))
        split_once(mm, at);
}

void host_mm_split_borders_locked(struct host_mm *mm, hva_t start, hva_t end)
{
    split_border(mm, start);
    split_border(mm, end);
}

int host_mm_split(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    bool huge = hpte_level_at(&mm->hptes, hva) > 1;
    if (huge)
        split_once(mm, hva);
    host_mm_unlock(mm);
    return huge ? HOST_OK : HOST_NOTHING;
}

/* ---- faults ---- */

void host_mm_set_huge_faults(struct host_mm *mm, int level)
{
    host_mm_lock(mm);
    mm->fault_level = level;
    host_mm_unlock(mm);
}

static bool has_room(const struct host_mm *mm, int level)
{
    return !mm->limit || host_mm_charge_locked(mm) + hpte_level_pages(level) <= mm->limit;
}

/* The range, in which nothing is, maps the run. */
static void map_run(struct host_mm *mm, const struct notify_range *range, int level, pfn_t run, unsigned bits)
{
    for (hva_t at = range->start; at < range->end; at += HPTE_CHUNK_SIZE)
        hpte_fill(&mm->hptes, at, run + ((at - range->start) >> PAGE_SHIFT), bits);
    set_level(mm, range, level);
}

/* Linux: do_huge_pmd_anonymous_page. Nothing was there, so nobody is told. */
static bool fault_level(struct host_mm *mm, hva_t hva, const struct vma *v, int level)
{
    struct notify_range range = level_range(mm, hva, level);
    if (range.start < v->start || range.end > v->end || !has_room(mm, level) ||
        hpte_next(&mm->hptes, range.start, range.end) != range.end)
        return false;
    pfn_t run = frame_pool_alloc_run(mm->pool, hpte_level_pages(level));
    if (run == PFN_NONE)
        return false;
    map_run(mm, &range, level, run, HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY);
    *(level > HPTE_LEVEL_HUGE ? &mm->counters.gigantic_faults : &mm->counters.huge_faults) += 1;
    return true;
}

bool host_mm_huge_fault_locked(struct host_mm *mm, hva_t hva, const struct vma *v)
{
    for (int level = mm->fault_level; level > 1; level--)
        if (fault_level(mm, hva, v, level))
            return true;
    return false;
}

bool host_mm_huge_reuse_locked(struct host_mm *mm, hva_t hva)
{
    while (hpte_level_at(&mm->hptes, hva) > HPTE_LEVEL_HUGE)
        split_once(mm, hva);
    struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    if (!c || c->level == 1)
        return false;
    if (!frame_pool_own_run(mm->pool, hpte_frame(c->e[0]), HPTE_CHUNK_PAGES)) {
        host_mm_split_locked(mm, hva);
        return false;
    }
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        c->e[i] |= HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY;
    mm->counters.reuses++;
    return true;
}

/* ---- collapse ---- */

/* Something is there, and nothing is awaited. */
static bool is_worth_it(const struct host_mm *mm, const struct notify_range *range)
{
    bool any = false;
    for_each_hpte(&mm->hptes, hva, range->start, range->end) {
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        if (hpte_is_awaited(e))
            return false;
        any |= hpte_state_of(e) == HPTE_PRESENT;
        if (any && !mm->hptes.awaited)
            break;
    }
    return any;
}

/* One VMA over all of it, with memory of our own, something there, and not so large yet (Linux: hugepage_vma_check). */
static int can_collapse(const struct host_mm *mm, const struct notify_range *range, int level)
{
    const struct vma *v = vma_find(&mm->vmas, range->start);
    if (!v || v->end < range->end || v->kind != VMA_ANON || !v->prot)
        return HOST_DENIED;
    if (hpte_level_at(&mm->hptes, range->start) >= level || !is_worth_it(mm, range))
        return HOST_NOTHING;
    return HOST_OK;
}

/* Copies the frame unless it was never touched: in a whole GiB most may not have been, and should stay so. From
 * untouched[0] up to untouched[1] none was. */
static void copy_frame(struct host_mm *mm, pfn_t from, void *to, pfn_t untouched[2])
{
    if (from >= untouched[0] && from < untouched[1])
        return;
    pfn_t next = frame_pool_next_touched(mm->pool, from);
    if (next == from) {
        memcpy(to, frame_pool_ptr(mm->pool, from), PAGE_SIZE);
    } else {
        untouched[0] = from;
        untouched[1] = next;
    }
}

/* Fills the new run, which is zeros, from the old pages (Linux: __collapse_huge_page_swapin and _copy). */
static int copy_pages(struct host_mm *mm, const struct notify_range *range, pfn_t run)
{
    pfn_t untouched[2] = {0, 0};
    for_each_hpte(&mm->hptes, hva, range->start, range->end) {
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        void *to = frame_pool_ptr(mm->pool, run + ((hva - range->start) >> PAGE_SHIFT));
        if (hpte_state_of(e) == HPTE_PRESENT)
            copy_frame(mm, hpte_frame(e), to, untouched);
        int rc = hpte_has_slot(e) ? swap_store_read(mm->swap, hpte_frame(e), to) : HOST_OK;
        if (rc)
            return rc;
    }
    return HOST_OK;
}

static void put_run(struct host_mm *mm, pfn_t run, uint64_t count)
{
    pfn_t frames[HPTE_CHUNK_PAGES];
    for (uint64_t done = 0; done < count; done += HPTE_CHUNK_PAGES) {
        for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
            frames[i] = run + done + i;
        frame_pool_put_many(mm->pool, frames, HPTE_CHUNK_PAGES);
    }
}

/* What may be written after a collapse counts as written, as a huge page's one D bit would say. */
static unsigned collapsed_bits(const struct host_mm *mm, hva_t hva)
{
    bool writable = vma_find(&mm->vmas, hva)->prot & HOST_WRITE;
    return HPTE_READ | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY | (writable ? HPTE_WRITE : 0);
}

/* Linux: collapse_huge_page. */
static int collapse_by_copy(struct host_mm *mm, const struct notify_range *range, int level)
{
    uint64_t pages = hpte_level_pages(level);
    pfn_t run = frame_pool_alloc_run(mm->pool, pages);
    if (run == PFN_NONE)
        return HOST_NO_FRAMES;
    notify_invalidate_range_start(range);
    int rc = copy_pages(mm, range, run);
    if (rc) {
        put_run(mm, run, pages);
    } else {
        host_mm_zap_locked(mm, range->start, range->end); /* fires invalidate_range while the old frames live */
        map_run(mm, range, level, run, collapsed_bits(mm, range->start));
        mm->counters.collapses++;
    }
    notify_invalidate_range_end(range);
    return rc;
}

/* The first frame of the aligned run that the range maps already, as a split leaves it; else PFN_NONE. */
static pfn_t run_in_place(const struct host_mm *mm, const struct notify_range *range, int level)
{
    const struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, range->start);
    pfn_t first = c && hpte_is_resident(c->e[0]) ? hpte_frame(c->e[0]) : PFN_NONE;
    if (first == PFN_NONE || first % hpte_level_pages(level))
        return PFN_NONE;
    for (hva_t hva = range->start; hva < range->end; hva += PAGE_SIZE) {
        const hpte_t *e = hpte_lookup(&mm->hptes, hva);
        if (!e || !hpte_is_resident(*e) || (*e & HPTE_KSM) ||
            hpte_frame(*e) != first + ((hva - range->start) >> PAGE_SHIFT))
            return PFN_NONE;
    }
    return first;
}

/* False: the frames do not lie as they should, or others have them too. No frame changes, so there is no
 * invalidate_range. */
static bool collapse_in_place(struct host_mm *mm, const struct notify_range *range, int level)
{
    pfn_t run = run_in_place(mm, range, level);
    if (run == PFN_NONE || !frame_pool_own_run(mm->pool, run, hpte_level_pages(level)))
        return false;
    unsigned bits = collapsed_bits(mm, range->start);
    notify_invalidate_range_start(range);
    for_each_hpte(&mm->hptes, hva, range->start, range->end)
        hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, run + ((hva - range->start) >> PAGE_SHIFT), bits));
    set_level(mm, range, level);
    mm->counters.collapses++;
    notify_invalidate_range_end(range);
    return true;
}

bool host_mm_rejoin(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    struct notify_range range = level_range(mm, hva, HPTE_LEVEL_MAX);
    bool done = !can_collapse(mm, &range, HPTE_LEVEL_MAX) && collapse_in_place(mm, &range, HPTE_LEVEL_MAX);
    host_mm_unlock(mm);
    return done;
}

int host_mm_collapse(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    struct notify_range range = level_range(mm, hva, HPTE_LEVEL_HUGE);
    int rc = can_collapse(mm, &range, HPTE_LEVEL_HUGE);
    if (!rc)
        rc = collapse_by_copy(mm, &range, HPTE_LEVEL_HUGE);
    host_mm_check_limit_locked(mm);
    host_mm_unlock(mm);
    return rc;
}

int host_mm_collapse_gigantic(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    struct notify_range range = level_range(mm, hva, HPTE_LEVEL_MAX);
    int rc = can_collapse(mm, &range, HPTE_LEVEL_MAX);
    if (!rc && !collapse_in_place(mm, &range, HPTE_LEVEL_MAX))
        rc = collapse_by_copy(mm, &range, HPTE_LEVEL_MAX);
    host_mm_check_limit_locked(mm);
    host_mm_unlock(mm);
    return rc;
}
