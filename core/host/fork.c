#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/postcopy.h"
#include "core/host/swap.h"

/*
 * Fork (Linux: dup_mmap, copy_page_range): the child gets the same VMAs and hptes; frames become shared and read-only
 * on both sides, slots get one more user. The first write on either side copies (gup.c, wp_copy), or finds itself alone
 * and takes the frame over.
 */

/* Linux: copy_one_pte. */
static hpte_t share(struct host_mm *mm, hpte_t *e)
{
    if (hpte_is_awaited(*e))
        return *e;
    if (hpte_has_slot(*e)) {
        swap_slot_get(mm->swap, hpte_frame(*e));
        return *e;
    }
    if (hpte_is_resident(*e))
        frame_pool_get(mm->pool, hpte_frame(*e));
    *e &= ~(hpte_t)HPTE_WRITE;
    return *e & ~(hpte_t)(HPTE_ACCESSED | HPTE_AGE_MASK);
}

static void copy_levels(struct host_mm *parent, struct host_mm *child, hva_t start, hva_t end)
{
    for (hva_t at = hpte_next(&child->hptes, start, end); at < end;) {
        struct hpte_chunk *c = hpte_chunk_at(&child->hptes, at);
        c->level = hpte_chunk_at(&parent->hptes, at)->level;
        at = hpte_next(&child->hptes, hpte_chunk_start(at) + HPTE_CHUNK_SIZE, end);
    }
}

static void copy_range(struct host_mm *parent, struct host_mm *child, hva_t start, hva_t end)
{
    struct notify_range range = {
        .mm = parent, .start = start, .end = end, .event = NOTIFY_PROTECTION_PAGE, .flags = NOTIFY_BLOCKABLE};
    host_mm_split_borders_locked(parent, start, end);
    notify_invalidate_range_start(&range);
    for_each_hpte(&parent->hptes, hva, start, end)
        hpte_set(&child->hptes, hva, share(parent, hpte_lookup(&parent->hptes, hva)));
    copy_levels(parent, child, start, end);
    notify_invalidate_range_end(&range);
}

/* The child's backing that stands for the parent's `b`. */
static struct vma_backing *backing_for(struct host_mm *child, struct vma_backing *b, const struct vma *previous)
{
    /* Neighbours of one mapping that was split come one after the other. */
    if (previous && previous->backing == b)
        return child->vmas.list[child->vmas.count - 1].backing;
    return b ? vma_backing_clone(b, child) : NULL;
}

static void copy_vmas(struct host_mm *parent, struct host_mm *child, hva_t start, hva_t end)
{
    const struct vma *previous = NULL;
    for (size_t i = 0; i < parent->vmas.count; i++) {
        const struct vma *v = &parent->vmas.list[i];
        struct vma copy = *v;
        if (v->end <= start || v->start >= end)
            continue;
        if (copy.start < start) {
            copy.offset += start - copy.start;
            copy.start = start;
        }
        copy.end = copy.end > end ? end : copy.end;
        copy.backing = backing_for(child, v->backing, previous);
        vma_insert(&child->vmas, &copy);
        if (v->kind != VMA_MIRROR)
            copy_range(parent, child, copy.start, copy.end);
        previous = v;
    }
}

static struct host_mm *fork_locked(struct host_mm *mm, hva_t start, hva_t end)
{
    struct host_mm *child = host_mm_create(mm->pool);
    if (!child)
        return NULL;
    if (mm->swap)
        host_mm_set_swap(child, mm->swap);
    if (mm->page_source)
        host_mm_set_page_source(child, mm->page_source);
    child->fault_level = mm->fault_level;
    copy_vmas(mm, child, start, end);
    host_mm_set_limit(child, mm->limit);
    mm->counters.forks++;
    return child;
}

/* Without locks: the sources' come before the child's. A source that is gone leaves the mirror empty. */
static void subscribe_mirrors(struct host_mm *child)
{
    for (struct vma_backing *b = child->backings; b; b = b->next) {
        if (b->kind != VMA_MIRROR || mirror_subscribe(b))
            continue;
        host_mm_lock(child);
        b->source = NULL;
        host_mm_unlock(child);
    }
}

struct host_mm *host_mm_fork(struct host_mm *mm)
{
    host_mm_lock(mm);
    struct host_mm *child = fork_locked(mm, 0, HVA_END);
    struct ksm *ksm = mm->ksm;
    host_mm_unlock(mm);
    if (!child)
        return NULL;
    subscribe_mirrors(child);
    if (ksm)
        ksm_add(ksm, child);
    return child;
}

struct host_mm *host_mm_fork_range(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    struct host_mm *child = host_mm_covers_locked(mm, hva, len) ? fork_locked(mm, hva, hva + len) : NULL;
    host_mm_unlock(mm);
    if (child)
        subscribe_mirrors(child);
    return child;
}

struct host_sharing host_mm_sharing(struct host_mm *mm)
{
    struct host_sharing n = {0};
    host_mm_lock(mm);
    for_each_hpte(&mm->hptes, hva, HVA_BASE, HVA_END) {
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        if (hpte_is_resident(e))
            *(frame_pool_refs(mm->pool, hpte_frame(e)) > 1 ? &n.shared : &n.own) += 1;
    }
    host_mm_unlock(mm);
    return n;
}
