#include "core/host/host_mm.h"

#include "core/host/host_mm_internal.h"
#include "core/trace.h"

#include <string.h>

/*
 * gup: from an hva to a frame, and the faults on the way (Linux: get_user_pages, handle_pte_fault).
 */

/* Besides enum host_status: the page is a mirror's, or another party's, and to be taken over without the lock. */
enum { GUP_MIRROR = 1, GUP_AWAITED = 2 };

struct fetch {
    struct vma_backing *backing; /* GUP_MIRROR */
    hva_t source_hva;
    uint64_t seq;
    struct page_source *source; /* GUP_AWAITED */
    uint64_t key;
};

#define FRESH_BITS (HPTE_READ | HPTE_WRITE | HPTE_ACCESSED | HPTE_DIRTY | HPTE_SOFT_DIRTY)

static void give(const struct host_mm *mm, hpte_t e, int level, struct gup_result *out)
{
    pfn_t pfn = hpte_frame(e);
    *out = (struct gup_result){
        .pfn = pfn, .ptr = frame_pool_ptr(mm->pool, pfn), .writable = e & HPTE_WRITE, .level = level};
}

static void set_bits(struct hpte_chunk *c, unsigned i, hpte_t bits)
{
    if (c->level == 1 || !(bits & HPTE_DIRTY)) {
        c->e[i] |= bits;
        return;
    }
    /* Who may write one page of a huge mapping may write all of it without asking again. */
    for (unsigned k = 0; k < HPTE_CHUNK_PAGES; k++)
        c->e[k] |= bits;
}

/* The frequent case: the hpte is there and permits. */
static bool gup_present(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out)
{
    struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    unsigned i = hpte_index(hva);
    if (!c || !hpte_has_frame(c->e[i]) || !(c->e[i] & (write ? HPTE_WRITE : HPTE_READ)))
        return false;
    hpte_t bits = HPTE_ACCESSED | (write ? HPTE_DIRTY | HPTE_SOFT_DIRTY : 0);
    if ((c->e[i] & bits) != bits)
        set_bits(c, i, bits);
    give(mm, c->e[i], c->level, out);
    return true;
}

/* Linux: do_anonymous_page. Nothing was there, so nobody is told. */
static int fault_anon(struct host_mm *mm, hva_t hva, bool write, const struct vma *v)
{
    if (!write) {
        mm->counters.zero_maps++;
        hpte_set(&mm->hptes, hva, hpte_make(HPTE_ZERO, frame_pool_zero_frame(mm->pool), HPTE_READ | HPTE_ACCESSED));
        return HOST_OK;
    }
    if (host_mm_huge_fault_locked(mm, hva, v))
        return HOST_OK;
    pfn_t pfn = frame_pool_alloc(mm->pool);
    if (pfn == PFN_NONE)
        return HOST_NO_FRAMES;
    hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, pfn, FRESH_BITS));
    return HOST_OK;
}

/* Linux: do_read_fault of a private mapping. A write fault follows at once where one is wanted. */
static int fault_file(struct host_mm *mm, hva_t hva, const struct vma *v)
{
    pfn_t pfn = frame_pool_alloc(mm->pool);
    if (pfn == PFN_NONE)
        return HOST_NO_FRAMES;
    int rc = vma_backing_read(v->backing, v->offset + (hva - v->start), frame_pool_ptr(mm->pool, pfn));
    if (rc) {
        frame_pool_put(mm->pool, pfn);
        return rc;
    }
    mm->counters.file_reads++;
    hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, pfn, HPTE_READ | HPTE_ACCESSED | HPTE_FILE));
    return HOST_OK;
}

/* Linux: wp_page_copy. The new frame is filled before anyone is told; the old one goes after everyone has let go of it.
 */
static int wp_copy(struct host_mm *mm, hva_t hva, hpte_t old, bool write)
{
    pfn_t pfn = frame_pool_alloc(mm->pool);
    if (pfn == PFN_NONE)
        return HOST_NO_FRAMES;
    bool was_zero = hpte_state_of(old) == HPTE_ZERO;
    if (!was_zero)
        memcpy(frame_pool_ptr(mm->pool, pfn), frame_pool_ptr(mm->pool, hpte_frame(old)), PAGE_SIZE);
    *(was_zero ? &mm->counters.zero_breaks : &mm->counters.cow_breaks) += 1;
    mm->counters.ksm_unmerges += (old & HPTE_KSM) != 0;

    hpte_t bits = write ? FRESH_BITS : (old & (HPTE_SOFT_DIRTY | HPTE_DIRTY)) | HPTE_READ | HPTE_ACCESSED;
    struct notify_range range = host_mm_page_range(mm, hva, NOTIFY_CLEAR);
    notify_invalidate_range_start(&range);
    host_mm_replace_locked(mm, hva, hpte_make(HPTE_PRESENT, pfn, bits));
    notify_invalidate_range_end(&range);
    return HOST_OK;
}

int host_mm_break_cow_locked(struct host_mm *mm, hva_t hva, bool write)
{
    if (host_mm_huge_reuse_locked(mm, hva))
        return HOST_OK;
    hpte_t old = *hpte_lookup(&mm->hptes, hva);
    if (hpte_state_of(old) == HPTE_ZERO || !frame_pool_own(mm->pool, hpte_frame(old)))
        return wp_copy(mm, hva, old, write);
    /* Linux: wp_page_reuse. A frame of one owner is just made writable: permissions that grow need no invalidation. */
    mm->counters.reuses++;
    mm->counters.ksm_unmerges += (old & HPTE_KSM) != 0;
    old &= ~(hpte_t)(HPTE_KSM | HPTE_FILE);
    hpte_set(&mm->hptes, hva, write ? old | FRESH_BITS : old);
    return HOST_OK;
}

static int fault_mirror(struct host_mm *mm, hva_t hva, bool write, const struct vma *v, struct fetch *fetch)
{
    if (write || !v->backing->source)
        return HOST_DENIED;
    v->backing->refs++;
    *fetch = (struct fetch){.backing = v->backing, .source_hva = v->offset + (hva - v->start), .seq = v->backing->seq};
    return GUP_MIRROR;
}

/* Brings a page where no frame is; afterwards it may still be read-only. */
static int fault_absent(struct host_mm *mm, hva_t hva, bool write, const struct vma *v, struct fetch *fetch)
{
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    if (e && hpte_is_awaited(*e)) {
        postcopy_begin_locked(mm, *e, &fetch->source, &fetch->key);
        return GUP_AWAITED;
    }
    if (e && hpte_state_of(*e) == HPTE_SWAPPED)
        return host_mm_swap_in_locked(mm, hva);
    switch (v->kind) {
    case VMA_FILE:
        return fault_file(mm, hva, v);
    case VMA_MIRROR:
        return fault_mirror(mm, hva, write, v, fetch);
    default:
        return fault_anon(mm, hva, write, v);
    }
}

/* Linux: handle_pte_fault. */
static int fault(struct host_mm *mm, hva_t hva, bool write, struct fetch *fetch)
{
    const struct vma *v = vma_find(&mm->vmas, hva);
    if (!v || !v->prot || (write && !(v->prot & HOST_WRITE)))
        return HOST_DENIED;
    mm->counters.faults++;
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    int rc = e && hpte_has_frame(*e) ? HOST_OK : fault_absent(mm, hva, write, v, fetch);
    if (!rc && write) {
        e = hpte_lookup(&mm->hptes, hva);
        if (!(*e & HPTE_WRITE))
            rc = host_mm_break_cow_locked(mm, hva, true);
    }
    host_mm_check_limit_locked(mm);
    return rc;
}

static int gup_once(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out, struct fetch *fetch)
{
    int rc = HOST_OK;
    host_mm_lock(mm);
    if (unlikely(!gup_present(mm, hva, write, out))) {
        rc = fault(mm, hva, write, fetch);
        if (!rc)
            rc = gup_present(mm, hva, write, out) ? HOST_OK : HOST_DENIED;
        if (!rc && mm->trace)
            trace_point(mm->trace, TRACE_HOST_GUP, hva, out->pfn, write, 0);
    }
    host_mm_unlock(mm);
    return rc;
}

int host_mm_gup(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out)
{
    hva &= ~PAGE_MASK;
    for (;;) {
        struct fetch fetch = {0};
        int rc = gup_once(mm, hva, write, out, &fetch);
        if (likely(rc <= 0))
            return rc;
        rc = rc == GUP_MIRROR ? mirror_fill(mm, fetch.backing, hva, fetch.source_hva, fetch.seq)
                              : postcopy_fetch(mm, hva, fetch.source, fetch.key);
        if (rc)
            return rc;
    }
}

void host_mm_gup_present(struct host_mm *mm, const hva_t *hva, unsigned n, struct gup_result *out)
{
    if (!n)
        return;
    host_mm_lock(mm);
    for (unsigned i = 0; i < n; i++) {
        const struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva[i]);
        hpte_t e = c ? c->e[hpte_index(hva[i])] : 0;
        out[i] = (struct gup_result){.pfn = PFN_NONE};
        if (hpte_has_frame(e) && (e & HPTE_READ))
            give(mm, e, c->level, &out[i]);
    }
    host_mm_unlock(mm);
}
