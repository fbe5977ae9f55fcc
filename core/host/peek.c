#include "core/alloc.h"
#include "core/host/host_mm.h"
#include "core/host/host_mm_internal.h"
#include "core/host/swap.h"

#include <string.h>

/*
 * Looks that change nothing: no fault, no age, no count.
 */

struct hpte_info host_mm_peek(const struct host_mm *mm, hva_t hva)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    struct hpte_info info = {.state = HPTE_NONE, .pfn = PFN_NONE, .level = 1};
    host_mm_lock(m);
    const struct hpte_chunk *c = hpte_chunk_at(&mm->hptes, hva);
    if (c) {
        hpte_t e = c->e[hpte_index(hva)];
        info.state = hpte_state_of(e);
        info.pfn = hpte_has_frame(e) ? hpte_frame(e) : PFN_NONE;
        info.readable = e & HPTE_READ;
        info.writable = e & HPTE_WRITE;
        info.accessed = e & HPTE_ACCESSED;
        info.dirty = e & HPTE_DIRTY;
        info.level = c->level;
        info.awaited = hpte_is_awaited(e);
    }
    host_mm_unlock(m);
    return info;
}

/* Where the bytes of a page are. */
enum where { NOWHERE, ZEROS, FRAME, SLOT, AWAITED, BACKING };

struct place {
    enum where where;
    uint64_t frame_or_slot; /* or key */
    struct vma_backing *backing;
    uint64_t offset;
};

static struct place find_place(const struct host_mm *mm, hva_t hva)
{
    const struct vma *v = vma_find(&mm->vmas, hva);
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    enum hpte_state state = e ? hpte_state_of(*e) : HPTE_NONE;
    if (!v)
        return (struct place){.where = NOWHERE};
    /* Most of a large mapping may never have been touched: looking at it must not give it memory. */
    if (state == HPTE_PRESENT && hpte_level_at(&mm->hptes, hva) > 1 &&
        frame_pool_next_touched(mm->pool, hpte_frame(*e)) > hpte_frame(*e))
        return (struct place){.where = ZEROS};
    if (e && hpte_is_awaited(*e))
        return (struct place){.where = AWAITED, .frame_or_slot = hpte_frame(*e)};
    if (state == HPTE_PRESENT || state == HPTE_SWAPPED)
        return (struct place){.where = state == HPTE_PRESENT ? FRAME : SLOT, .frame_or_slot = hpte_frame(*e)};
    if (state == HPTE_ZERO || v->kind == VMA_ANON)
        return (struct place){.where = ZEROS};
    return (struct place){.where = BACKING, .backing = v->backing, .offset = v->offset + (hva - v->start)};
}

/* Copies from what is this mm's own; the lock is held. */
static int read_place(const struct host_mm *mm, const struct place *p, void *buf)
{
    switch (p->where) {
    case FRAME:
        memcpy(buf, frame_pool_ptr(mm->pool, p->frame_or_slot), PAGE_SIZE);
        return HOST_OK;
    case SLOT:
        return swap_store_peek(mm->swap, p->frame_or_slot, buf);
    case AWAITED:
        return page_source_fetch(mm->page_source, p->frame_or_slot, buf);
    case BACKING:
        return vma_backing_read(p->backing, p->offset, buf);
    case ZEROS:
        memset(buf, 0, PAGE_SIZE);
        return HOST_OK;
    default:
        return HOST_DENIED;
    }
}

static bool is_of_mirror(const struct place *p)
{
    return p->where == BACKING && p->backing->kind == VMA_MIRROR;
}

int host_mm_peek_read(const struct host_mm *mm, hva_t hva, void *buf)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    hva &= ~PAGE_MASK;
    host_mm_lock(m);
    struct place p = find_place(m, hva);
    struct host_mm *source = is_of_mirror(&p) ? p.backing->source : NULL;
    int rc = is_of_mirror(&p) ? HOST_DENIED : read_place(m, &p, buf);
    host_mm_unlock(m);
    if (source) /* its lock comes before ours: ours is free now */
        rc = host_mm_peek_read(source, p.offset, buf);
    if (rc)
        memset(buf, 0, PAGE_SIZE);
    return rc;
}

static void *next_buffer(struct host_mm *mm)
{
    host_mm_lock(mm);
    if (!mm->peek_buffers)
        mm->peek_buffers = alloc_zeroed(PEEK_BUFFERS, PAGE_SIZE);
    void *buf = mm->peek_buffers[mm->peek_next++ % PEEK_BUFFERS];
    host_mm_unlock(mm);
    return buf;
}

const void *host_mm_peek_content(const struct host_mm *mm, hva_t hva)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    hva &= ~PAGE_MASK;
    host_mm_lock(m);
    struct place p = find_place(m, hva);
    host_mm_unlock(m);
    if (p.where == FRAME)
        return frame_pool_ptr(mm->pool, p.frame_or_slot);
    if (p.where == NOWHERE || p.where == ZEROS)
        return NULL;
    void *buf = next_buffer(m);
    return host_mm_peek_read(mm, hva, buf) ? NULL : buf;
}
