#include "core/host/host_mm.h"
#include "core/host/host_mm_internal.h"

/*
 * Mirrors (Linux: an HMM mirror whose pages are mapped with insert_pfn): VMAs that show another mm's pages.
 *
 * The source's invalidations come in on its bus, become invalidations of this mm's hvas, and go on down to this mm's
 * subscribers, who may be mirrors again. Lock order: the source's lock, then ours; so a page is taken over without ours
 * held, and the sequence tells whether it went stale on the way (the retry protocol, as a fault of a guest uses it).
 *
 * Between start and end of a range that meets the window our lock is held: nobody sees a start without its end, and no
 * page is taken over in between.
 */

static bool meets(const struct vma_backing *b, hva_t start, hva_t end)
{
    return start < b->source_end && end > b->source_start;
}

/* The part of the VMA that shows source hvas of [*start, *end), as hvas of ours. False: none. */
static bool translate(const struct vma *v, const struct vma_backing *b, hva_t *start, hva_t *end)
{
    if (v->backing != b)
        return false;
    hva_t from = *start > v->offset ? *start - v->offset : 0;
    hva_t to = *end > v->offset ? *end - v->offset : 0;
    if (to > v->end - v->start)
        to = v->end - v->start;
    *start = v->start + from;
    *end = v->start + to;
    return from < to;
}

/* Each part of our hvas that shows [from, to) of the source. The set of VMAs does not change meanwhile: its lock is
 * held. */
#define for_each_part(b, from, to, s, e)                                                                               \
    for (size_t part_i = 0; part_i < (b)->mm->vmas.count; part_i++)                                                    \
        for (hva_t s = (from), e = (to), once = 1;                                                                     \
             once && (once = 0, translate(&(b)->mm->vmas.list[part_i], (b), &s, &e));)

static struct notify_range our_range(const struct vma_backing *b, const struct notify_range *r, hva_t start, hva_t end)
{
    struct notify_range ours = *r;
    ours.mm = b->mm;
    ours.start = start;
    ours.end = end;
    return ours;
}

/* Ends the first `count` parts. */
static void end_parts(struct vma_backing *b, const struct notify_range *r, size_t count)
{
    for_each_part(b, r->start, r->end, start, end)
    {
        if (!count--)
            return;
        struct notify_range ours = our_range(b, r, start, end);
        notify_invalidate_range_end(&ours);
    }
}

/* Our hptes go at once, whatever becomes of the source's: they come back by asking. */
static int start_parts(struct vma_backing *b, const struct notify_range *r)
{
    size_t started = 0;
    for_each_part(b, r->start, r->end, start, end)
    {
        struct notify_range ours = our_range(b, r, start, end);
        int rc = notify_invalidate_range_start(&ours);
        if (rc) {
            end_parts(b, r, started);
            return rc;
        }
        host_mm_zap_locked(b->mm, start, end);
        started++;
    }
    return 0;
}

static bool lock_for(struct host_mm *mm, const struct notify_range *r)
{
    if (!(r->flags & NOTIFY_BLOCKABLE))
        return host_mm_trylock(mm);
    host_mm_lock(mm);
    return true;
}

static int on_start(struct notifier *n, const struct notify_range *r)
{
    struct vma_backing *b = container_of(n, struct vma_backing, notifier);
    if (!meets(b, r->start, r->end))
        return 0;
    if (!lock_for(b->mm, r))
        return -1;
    b->seq++;
    int rc = start_parts(b, r);
    if (rc)
        host_mm_unlock(b->mm);
    return rc;
}

static void on_end(struct notifier *n, const struct notify_range *r)
{
    struct vma_backing *b = container_of(n, struct vma_backing, notifier);
    if (!meets(b, r->start, r->end))
        return;
    end_parts(b, r, SIZE_MAX);
    b->seq++;
    host_mm_unlock(b->mm);
}

static bool clear_accessed(struct host_mm *mm, hva_t start, hva_t end)
{
    bool young = false;
    for_each_hpte(&mm->hptes, hva, start, end) {
        hpte_t *e = hpte_lookup(&mm->hptes, hva);
        young |= (*e & HPTE_ACCESSED) != 0;
        *e &= ~(hpte_t)HPTE_ACCESSED;
    }
    return young;
}

static bool age(struct vma_backing *b, hva_t from, hva_t to, bool (*down)(struct host_mm *, hva_t, hva_t))
{
    bool young = false;
    if (!meets(b, from, to))
        return false;
    host_mm_lock(b->mm);
    for_each_part(b, from, to, start, end)
    {
        young |= clear_accessed(b->mm, start, end);
        young |= down(b->mm, start, end);
    }
    host_mm_unlock(b->mm);
    return young;
}

static bool on_clear_flush_young(struct notifier *n, hva_t start, hva_t end)
{
    return age(container_of(n, struct vma_backing, notifier), start, end, notify_clear_flush_young);
}

static bool on_clear_young(struct notifier *n, hva_t start, hva_t end)
{
    return age(container_of(n, struct vma_backing, notifier), start, end, notify_clear_young);
}

static bool on_test_young(struct notifier *n, hva_t hva)
{
    struct vma_backing *b = container_of(n, struct vma_backing, notifier);
    bool young = false;
    if (!meets(b, hva, hva + PAGE_SIZE))
        return false;
    host_mm_lock(b->mm);
    for_each_part(b, hva, hva + PAGE_SIZE, start, end)
    {
        const hpte_t *e = hpte_lookup(&b->mm->hptes, start);
        young |= e && (*e & HPTE_ACCESSED);
        young |= notify_test_young(b->mm, start);
    }
    host_mm_unlock(b->mm);
    return young;
}

static void on_change_pte(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct vma_backing *b = container_of(n, struct vma_backing, notifier);
    if (!meets(b, hva, hva + PAGE_SIZE))
        return;
    host_mm_lock(b->mm);
    b->seq++;
    bool zero = hpte.pfn == frame_pool_zero_frame(b->mm->pool);
    for_each_part(b, hva, hva + PAGE_SIZE, start, end)
    {
        const hpte_t *e = hpte_lookup(&b->mm->hptes, start);
        if (!e || !hpte_has_frame(*e))
            continue;
        hpte_t bits = *e & (HPTE_READ | HPTE_ACCESSED | HPTE_SPECIAL);
        host_mm_set_notify_locked(b->mm, start, hpte_make(zero ? HPTE_ZERO : HPTE_PRESENT, hpte.pfn, bits));
    }
    host_mm_unlock(b->mm);
}

static void on_release(struct notifier *n)
{
    struct vma_backing *b = container_of(n, struct vma_backing, notifier);
    struct notify_range all = {
        .start = b->source_start, .end = b->source_end, .event = NOTIFY_UNMAP, .flags = NOTIFY_BLOCKABLE};
    host_mm_lock(b->mm);
    b->seq++;
    b->source = NULL;
    start_parts(b, &all);
    end_parts(b, &all, SIZE_MAX);
    host_mm_unlock(b->mm);
}

static const struct notifier_ops mirror_ops = {
    .invalidate_range_start = on_start,
    .invalidate_range_end = on_end,
    .clear_flush_young = on_clear_flush_young,
    .clear_young = on_clear_young,
    .test_young = on_test_young,
    .change_pte = on_change_pte,
    .release = on_release,
};

bool mirror_subscribe(struct vma_backing *b)
{
    struct host_mm *source = b->source;
    if (!source || notifier_register(&b->notifier, source, &mirror_ops))
        return false;
    return true;
}

/* Takes `g` over if the page still is the mirror's and nothing happened to its window since `seq`. */
static void install(struct host_mm *mm, struct vma_backing *b, hva_t hva, uint64_t seq, const struct gup_result *g)
{
    const struct vma *v = vma_find(&mm->vmas, hva);
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    if (b->seq != seq || !v || v->backing != b || (e && hpte_state_of(*e) != HPTE_NONE))
        return;
    enum hpte_state state = g->pfn == frame_pool_zero_frame(mm->pool) ? HPTE_ZERO : HPTE_PRESENT;
    hpte_set(&mm->hptes, hva, hpte_make(state, g->pfn, HPTE_READ | HPTE_ACCESSED | HPTE_SPECIAL));
    mm->counters.mirror_fills++;
}

int mirror_fill(struct host_mm *mm, struct vma_backing *b, hva_t hva, hva_t source_hva, uint64_t seq)
{
    struct gup_result g;
    host_mm_lock(mm);
    struct host_mm *source = b->source;
    host_mm_unlock(mm);
    int rc = source ? host_mm_gup(source, source_hva, false, &g) : HOST_DENIED;
    host_mm_lock(mm);
    if (!rc)
        install(mm, b, hva, seq, &g);
    b->refs--;
    host_mm_unlock(mm);
    vma_backing_reap(mm);
    return rc;
}
