#include "core/host/host_mm.h"

#include "core/host/host_mm_internal.h"
#include "core/trace.h"

#include <string.h>

/*
 * gup: from an hva to a frame, and the faults on the way (Linux: get_user_pages, handle_pte_fault), and the looks that
 * change nothing.
 */

enum { GUP_OK = 0, GUP_DENIED = -1, GUP_NO_FRAMES = -2 };

static void give(const struct host_mm *mm, hpte_t e, struct gup_result *out)
{
    pfn_t pfn = hpte_frame(e);
    *out = (struct gup_result){.pfn = pfn, .ptr = frame_pool_ptr(mm->pool, pfn), .writable = e & HPTE_WRITE};
}

/* The frequent case: the hpte is there and permits. */
static bool gup_present(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out)
{
    hpte_t *e = hpte_lookup(&mm->hptes, hva);
    if (!e || !hpte_has_frame(*e) || !(*e & (write ? HPTE_WRITE : HPTE_READ)))
        return false;
    hpte_t bits = HPTE_ACCESSED | (write ? HPTE_DIRTY : 0);
    if ((*e & bits) != bits)
        *e |= bits;
    give(mm, *e, out);
    return true;
}

/* Linux: do_anonymous_page. Nothing was there, so nobody is told. */
static int fault_none(struct host_mm *mm, hva_t hva, bool write)
{
    if (!write) {
        mm->counters.zero_maps++;
        hpte_set(&mm->hptes, hva, hpte_make(HPTE_ZERO, frame_pool_zero_frame(mm->pool), HPTE_READ | HPTE_ACCESSED));
        return GUP_OK;
    }
    pfn_t pfn = frame_pool_alloc(mm->pool);
    if (pfn == PFN_NONE)
        return GUP_NO_FRAMES;
    hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, pfn, HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY));
    return GUP_OK;
}

/* Linux: wp_page_copy. The new frame is filled before anyone is told; the old one goes after everyone has let go of it.
 */
static int break_cow(struct host_mm *mm, hva_t hva, hpte_t old)
{
    pfn_t pfn = frame_pool_alloc(mm->pool);
    if (pfn == PFN_NONE)
        return GUP_NO_FRAMES;
    bool was_zero = hpte_state_of(old) == HPTE_ZERO;
    if (!was_zero)
        memcpy(frame_pool_ptr(mm->pool, pfn), frame_pool_ptr(mm->pool, hpte_frame(old)), PAGE_SIZE);
    *(was_zero ? &mm->counters.zero_breaks : &mm->counters.cow_breaks) += 1;

    struct notify_range range = {
        .mm = mm, .start = hva, .end = hva + PAGE_SIZE, .event = NOTIFY_CLEAR, .flags = NOTIFY_BLOCKABLE};
    notify_invalidate_range_start(&range);
    hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, pfn, HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY));
    notify_invalidate_range(mm, range.start, range.end);
    frame_pool_put(mm->pool, hpte_frame(old));
    notify_invalidate_range_end(&range);
    return GUP_OK;
}

/* Linux: do_wp_page. A frame of one owner is just made writable (wp_page_reuse): permissions that grow need no
 * invalidation. */
static int fault_write_protected(struct host_mm *mm, hva_t hva, hpte_t old)
{
    if (hpte_state_of(old) == HPTE_ZERO || frame_pool_refs(mm->pool, hpte_frame(old)) > 1)
        return break_cow(mm, hva, old);
    mm->counters.reuses++;
    *hpte_lookup(&mm->hptes, hva) = old | HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY;
    return GUP_OK;
}

static int fault(struct host_mm *mm, hva_t hva, bool write)
{
    const struct vma *v = vma_find(&mm->vmas, hva);
    if (!v || !v->prot || (write && !(v->prot & HOST_WRITE)))
        return GUP_DENIED;
    mm->counters.faults++;
    hpte_t *e = hpte_lookup(&mm->hptes, hva);
    /* What has a frame and permits reading never gets here for a read: only its write permission is missing. */
    return e && hpte_has_frame(*e) ? fault_write_protected(mm, hva, *e) : fault_none(mm, hva, write);
}

int host_mm_gup(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out)
{
    hva &= ~PAGE_MASK;
    int rc = GUP_OK;
    host_mm_lock(mm);
    if (unlikely(!gup_present(mm, hva, write, out))) {
        rc = fault(mm, hva, write);
        if (!rc)
            rc = gup_present(mm, hva, write, out) ? GUP_OK : GUP_DENIED;
        if (!rc && mm->trace)
            trace_point(mm->trace, TRACE_HOST_GUP, hva, out->pfn, write, 0);
    }
    host_mm_unlock(mm);
    return rc;
}

struct hpte_info host_mm_peek(const struct host_mm *mm, hva_t hva)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    struct hpte_info info = {.state = HPTE_NONE, .pfn = PFN_NONE};
    host_mm_lock(m);
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    if (e) {
        info.state = hpte_state_of(*e);
        info.pfn = hpte_has_frame(*e) ? hpte_frame(*e) : PFN_NONE;
        info.readable = *e & HPTE_READ;
        info.writable = *e & HPTE_WRITE;
        info.accessed = *e & HPTE_ACCESSED;
        info.dirty = *e & HPTE_DIRTY;
    }
    host_mm_unlock(m);
    return info;
}

const void *host_mm_peek_content(const struct host_mm *mm, hva_t hva)
{
    struct hpte_info info = host_mm_peek(mm, hva);
    return info.state == HPTE_PRESENT ? frame_pool_ptr(mm->pool, info.pfn) : NULL;
}
