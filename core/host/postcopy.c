#include "core/host/postcopy.h"

#include "core/alloc.h"
#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"

#include <stdlib.h>
#include <string.h>

struct page_source {
    const struct page_source_ops *ops;
    void *ctx;
    unsigned users; /* atomic */
};

struct page_source *page_source_create(const struct page_source_ops *ops, void *ctx)
{
    struct page_source *s = alloc_zeroed(1, sizeof *s);
    *s = (struct page_source){.ops = ops, .ctx = ctx, .users = 1};
    return s;
}

void page_source_get(struct page_source *s)
{
    __atomic_add_fetch(&s->users, 1, __ATOMIC_RELAXED);
}

void page_source_put(struct page_source *s)
{
    if (!s || __atomic_sub_fetch(&s->users, 1, __ATOMIC_ACQ_REL))
        return;
    s->ops->destroy(s->ctx);
    free(s);
}

int page_source_fetch(struct page_source *s, uint64_t key, void *page)
{
    return s->ops->fetch(s->ctx, key, page);
}

int host_mm_set_page_source(struct host_mm *mm, struct page_source *s)
{
    host_mm_lock(mm);
    int rc = mm->hptes.awaited && mm->page_source != s ? HOST_DENIED : HOST_OK;
    if (!rc) {
        page_source_get(s);
        page_source_put(mm->page_source);
        mm->page_source = s;
    }
    host_mm_unlock(mm);
    return rc;
}

int host_mm_await(struct host_mm *mm, hva_t hva, uint64_t key)
{
    host_mm_lock(mm);
    const struct vma *v = vma_find(&mm->vmas, hva);
    bool ok = v && v->kind == VMA_ANON && mm->page_source && key <= POSTCOPY_KEY_MAX && !(hva & PAGE_MASK);
    if (ok && hpte_next(&mm->hptes, hva, hva + PAGE_SIZE) == hva)
        ok = host_mm_dontneed(mm, hva, PAGE_SIZE) == 0;
    if (ok)
        hpte_set(&mm->hptes, hva, hpte_make(HPTE_SWAPPED, key, HPTE_SPECIAL | HPTE_SOFT_DIRTY));
    host_mm_unlock(mm);
    return ok ? HOST_OK : HOST_DENIED;
}

/* Nothing is awaited any more: the source may go. */
static void check_done(struct host_mm *mm)
{
    if (mm->hptes.awaited)
        return;
    page_source_put(mm->page_source);
    mm->page_source = NULL;
}

static int deliver_locked(struct host_mm *mm, hva_t hva, const void *page)
{
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    const struct vma *v = vma_find(&mm->vmas, hva);
    if (!e || !v || !hpte_is_awaited(*e))
        return HOST_NOTHING;
    pfn_t pfn = frame_pool_alloc(mm->pool);
    if (pfn == PFN_NONE)
        return HOST_NO_FRAMES;
    memcpy(frame_pool_ptr(mm->pool, pfn), page, PAGE_SIZE);
    unsigned bits = ((unsigned)*e & HPTE_SOFT_DIRTY) | HPTE_ACCESSED | HPTE_DIRTY | (v->prot ? HPTE_READ : 0) |
                    (v->prot & HOST_WRITE ? HPTE_WRITE : 0);
    hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, pfn, bits));
    mm->counters.delivered++;
    check_done(mm);
    host_mm_check_limit_locked(mm);
    return HOST_OK;
}

int host_mm_deliver(struct host_mm *mm, hva_t hva, const void *page)
{
    host_mm_lock(mm);
    int rc = deliver_locked(mm, hva & ~PAGE_MASK, page);
    host_mm_unlock(mm);
    return rc;
}

void postcopy_begin_locked(struct host_mm *mm, hpte_t e, struct page_source **source, uint64_t *key)
{
    *source = mm->page_source;
    *key = hpte_frame(e);
    page_source_get(*source);
}

/* Whoever else brings the page meanwhile is as good: then ours is dropped. */
int postcopy_fetch(struct host_mm *mm, hva_t hva, struct page_source *source, uint64_t key)
{
    uint8_t page[PAGE_SIZE];
    int rc = page_source_fetch(source, key, page);
    if (!rc)
        rc = host_mm_deliver(mm, hva, page);
    page_source_put(source);
    return rc == HOST_NOTHING ? HOST_OK : rc;
}

/* The next awaited page from the hand on, going round. False: there is none. */
static bool next_awaited(struct host_mm *mm, hva_t *hva)
{
    if (!mm->hptes.awaited)
        return false;
    for (hva_t at = mm->fetch_hand;; at += PAGE_SIZE) {
        at = hpte_next(&mm->hptes, at, HVA_END);
        if (at >= HVA_END)
            at = hpte_next(&mm->hptes, 0, HVA_END);
        if (hpte_is_awaited(*hpte_lookup(&mm->hptes, at))) {
            *hva = at;
            mm->fetch_hand = at + PAGE_SIZE;
            return true;
        }
    }
}

static bool begin_next(struct host_mm *mm, hva_t *hva, struct page_source **source, uint64_t *key)
{
    host_mm_lock(mm);
    bool found = next_awaited(mm, hva);
    if (found)
        postcopy_begin_locked(mm, *hpte_lookup(&mm->hptes, *hva), source, key);
    host_mm_unlock(mm);
    return found;
}

int host_mm_fetch_ahead(struct host_mm *mm, uint64_t pages)
{
    struct page_source *source;
    uint64_t key;
    hva_t hva;
    int rc = HOST_OK;
    while (!rc && pages-- && begin_next(mm, &hva, &source, &key)) {
        rc = postcopy_fetch(mm, hva, source, key);
        mm->counters.fetched_ahead += !rc;
    }
    return rc;
}

uint64_t host_mm_awaited(const struct host_mm *mm)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    host_mm_lock(m);
    uint64_t n = m->hptes.awaited;
    host_mm_unlock(m);
    return n;
}
