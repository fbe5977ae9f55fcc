#include "core/host/host_mm.h"

#include "core/host/host_mm_internal.h"
#include "core/host/notifier_bus.h"
#include "core/stats.h"
#include "core/trace.h"

#include <stdlib.h>

/*
 * The life of a host_mm and the operations that change what a range is. How a page comes to be there is in gup.c.
 */

struct host_mm *host_mm_create(struct frame_pool *pool)
{
    struct host_mm *mm = calloc(1, sizeof *mm);
    if (!mm)
        return NULL;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mm->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    mm->pool = pool;
    return mm;
}

static void put_all_frames(struct host_mm *mm)
{
    for_each_hpte(&mm->hptes, hva, HVA_BASE, HVA_END) {
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        if (hpte_has_frame(e))
            frame_pool_put(mm->pool, hpte_frame(e));
    }
}

void host_mm_destroy(struct host_mm *mm)
{
    if (!mm)
        return;
    host_mm_lock(mm);
    notify_release(mm);
    put_all_frames(mm);
    hpte_table_fini(&mm->hptes);
    vma_set_fini(&mm->vmas);
    host_mm_unlock(mm);
    notifier_bus_put(mm->bus);
    pthread_mutex_destroy(&mm->lock);
    free(mm);
}

struct frame_pool *host_mm_pool(const struct host_mm *mm)
{
    return mm->pool;
}

void host_mm_lock(struct host_mm *mm)
{
    pthread_mutex_lock(&mm->lock);
}

void host_mm_unlock(struct host_mm *mm)
{
    pthread_mutex_unlock(&mm->lock);
}

struct notifier_bus **host_mm_bus_slot(struct host_mm *mm)
{
    return &mm->bus;
}

void host_mm_set_trace(struct host_mm *mm, struct trace *trace)
{
    mm->trace = trace;
}

const struct host_mm_counters *host_mm_counters(const struct host_mm *mm)
{
    return &mm->counters;
}

void host_mm_add_stats(const struct host_mm *mm, struct stats *stats)
{
    const struct host_mm_counters *c = &mm->counters;
    stats_add(stats, "host.faults", "", &c->faults);
    stats_add(stats, "host.zero_maps", "", &c->zero_maps);
    stats_add(stats, "host.zero_breaks", "", &c->zero_breaks);
    stats_add(stats, "host.cow_breaks", "", &c->cow_breaks);
    stats_add(stats, "host.reuses", "", &c->reuses);
    stats_add(stats, "host.unmapped", "pages", &c->unmapped);
    stats_add(stats, "host.ranges", "", &c->ranges);
    stats_add(stats, "host.resident", "pages", &mm->hptes.present);
}

void host_mm_note_range(const struct notify_range *range, bool starts)
{
    struct host_mm *mm = range->mm;
    uint64_t nth = __atomic_add_fetch(&mm->counters.ranges, starts, __ATOMIC_RELAXED);
    if (mm->trace)
        trace_point(mm->trace, starts ? TRACE_NOTIFIER_START : TRACE_NOTIFIER_END, range->start, range->end,
                    range->event, nth);
}

uint64_t host_mm_resident(const struct host_mm *mm)
{
    struct host_mm *m = (struct host_mm *)(uintptr_t)mm;
    host_mm_lock(m);
    uint64_t present = m->hptes.present;
    host_mm_unlock(m);
    return present;
}

hva_t host_mm_mmap_anon(struct host_mm *mm, uint64_t len, unsigned prot)
{
    if (!len || len & PAGE_MASK || len > HVA_END - HVA_BASE)
        return 0;
    host_mm_lock(mm);
    hva_t hva = vma_find_gap(&mm->vmas, len);
    if (hva)
        vma_insert(&mm->vmas, &(struct vma){.start = hva, .end = hva + len, .kind = VMA_ANON, .prot = prot});
    host_mm_unlock(mm);
    return hva;
}

static bool range_is_mapped(const struct host_mm *mm, hva_t hva, uint64_t len)
{
    return len && !(hva & PAGE_MASK) && !(len & PAGE_MASK) && hva < HVA_END && len <= HVA_END - hva &&
           vma_covers(&mm->vmas, hva, hva + len);
}

/* Clears the hptes of a part of one chunk. The order is that of Linux's ptep_clear_flush_notify and mmu_gather: hptes
 * first, then subscribers, while every old frame is still allocated, then the frames. */
static void zap_in_chunk(struct host_mm *mm, hva_t start, hva_t end)
{
    pfn_t frames[HPTE_CHUNK_PAGES];
    unsigned n = 0;
    for_each_hpte(&mm->hptes, hva, start, end) {
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        if (hpte_has_frame(e))
            frames[n++] = hpte_frame(e);
        hpte_set(&mm->hptes, hva, 0);
        mm->counters.unmapped++;
    }
    if (n)
        notify_invalidate_range(mm, start, end);
    while (n)
        frame_pool_put(mm->pool, frames[--n]);
}

static void zap_range(struct host_mm *mm, hva_t start, hva_t end)
{
    for (hva_t hva = hpte_next(&mm->hptes, start, end); hva < end; hva = hpte_next(&mm->hptes, hva, end)) {
        hva_t stop = (hva & ~(HPTE_CHUNK_SIZE - 1)) + HPTE_CHUNK_SIZE;
        if (stop > end)
            stop = end;
        zap_in_chunk(mm, hva, stop);
        hva = stop;
    }
}

static int zap_mapped(struct host_mm *mm, hva_t hva, uint64_t len, enum notify_event event)
{
    struct notify_range range = {.mm = mm, .start = hva, .end = hva + len, .event = event, .flags = NOTIFY_BLOCKABLE};
    notify_invalidate_range_start(&range);
    zap_range(mm, range.start, range.end);
    notify_invalidate_range_end(&range);
    return 0;
}

int host_mm_munmap(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    int rc = range_is_mapped(mm, hva, len) ? 0 : -1;
    if (!rc) {
        /* The VMA goes first, as in Linux: no gup, not even one from a callback, brings a page of the range back. */
        vma_remove(&mm->vmas, hva, hva + len);
        zap_mapped(mm, hva, len, NOTIFY_UNMAP);
    }
    host_mm_unlock(mm);
    return rc;
}

int host_mm_dontneed(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    int rc = range_is_mapped(mm, hva, len) ? zap_mapped(mm, hva, len, NOTIFY_CLEAR) : -1;
    host_mm_unlock(mm);
    return rc;
}

/* The hpte with what `prot` grants. Writing is only ever taken away: a write fault gives it back, and sees then whether
 * the frame is shared. */
static hpte_t hpte_with_prot(hpte_t e, unsigned prot)
{
    e = prot ? e | HPTE_READ : e & ~(hpte_t)HPTE_READ;
    return prot & HOST_WRITE ? e : e & ~(hpte_t)HPTE_WRITE;
}

static void change_protection(struct host_mm *mm, hva_t start, hva_t end, unsigned prot)
{
    bool lost_frame = false;
    for_each_hpte(&mm->hptes, hva, start, end) {
        hpte_t *e = hpte_lookup(&mm->hptes, hva);
        hpte_t changed = hpte_with_prot(*e, prot);
        lost_frame |= hpte_has_frame(*e) && (*e & HPTE_READ) && !(changed & HPTE_READ);
        *e = changed;
    }
    if (lost_frame)
        notify_invalidate_range(mm, start, end);
}

static bool has_prot(const struct host_mm *mm, hva_t start, hva_t end, unsigned prot)
{
    while (start < end) {
        const struct vma *v = vma_find(&mm->vmas, start);
        if (v->prot != prot)
            return false;
        start = v->end;
    }
    return true;
}

int host_mm_mprotect(struct host_mm *mm, hva_t hva, uint64_t len, unsigned prot)
{
    host_mm_lock(mm);
    int rc = range_is_mapped(mm, hva, len) ? 0 : -1;
    if (!rc && !has_prot(mm, hva, hva + len, prot)) {
        struct notify_range range = {
            .mm = mm, .start = hva, .end = hva + len, .event = NOTIFY_PROTECTION_VMA, .flags = NOTIFY_BLOCKABLE};
        vma_set_prot(&mm->vmas, hva, hva + len, prot);
        notify_invalidate_range_start(&range);
        change_protection(mm, range.start, range.end, prot);
        notify_invalidate_range_end(&range);
    }
    host_mm_unlock(mm);
    return rc;
}
