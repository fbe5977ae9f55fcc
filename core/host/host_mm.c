#include "core/host/host_mm.h"

#include "core/host/host_mm_internal.h"
#include "core/host/ksm.h"
#include "core/host/lock_order.h"
#include "core/host/notifier_bus.h"
#include "core/host/postcopy.h"
#include "core/host/swap.h"
#include "core/stats.h"
#include "core/trace.h"

#include <fcntl.h>
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

/* Gives up what the hpte counted on: a frame or a swap slot. */
static void put_hpte(struct host_mm *mm, hpte_t e)
{
    if (e & HPTE_SPECIAL)
        return;
    if (hpte_has_frame(e))
        frame_pool_put(mm->pool, hpte_frame(e));
    else if (hpte_has_slot(e))
        swap_slot_put(mm->swap, hpte_frame(e));
}

/* The same for up to a chunk of them. */
static void put_hptes(struct host_mm *mm, const hpte_t *e, unsigned count)
{
    pfn_t frames[HPTE_CHUNK_PAGES];
    size_t n = 0;
    for (unsigned i = 0; i < count; i++) {
        if (hpte_is_resident(e[i]))
            frames[n++] = hpte_frame(e[i]);
        else
            put_hpte(mm, e[i]);
    }
    frame_pool_put_many(mm->pool, frames, n);
}

static void put_all(struct host_mm *mm)
{
    for (hva_t hva = hpte_next(&mm->hptes, HVA_BASE, HVA_END); hva < HVA_END;) {
        put_hptes(mm, hpte_chunk_at(&mm->hptes, hva)->e, HPTE_CHUNK_PAGES);
        hva = hpte_next(&mm->hptes, hpte_chunk_start(hva) + HPTE_CHUNK_SIZE, HVA_END);
    }
}

void host_mm_destroy(struct host_mm *mm)
{
    if (!mm)
        return;
    if (mm->ksm)
        ksm_remove(mm->ksm, mm);
    host_mm_lock(mm);
    notify_release(mm);
    put_all(mm);
    hpte_table_fini(&mm->hptes);
    vma_remove(&mm->vmas, 0, HVA_END);
    host_mm_unlock(mm);
    vma_backing_reap(mm);
    vma_set_fini(&mm->vmas);
    notifier_bus_put(mm->bus);
    swap_store_put(mm->swap);
    page_source_put(mm->page_source);
    free(mm->peek_buffers);
    pthread_mutex_destroy(&mm->lock);
    free(mm);
}

struct frame_pool *host_mm_pool(const struct host_mm *mm)
{
    return mm->pool;
}

void host_mm_lock(struct host_mm *mm)
{
    lock_check_take(mm->pool, LOCK_RANK_HOST_MM, &mm->lock);
    pthread_mutex_lock(&mm->lock);
}

bool host_mm_trylock(struct host_mm *mm)
{
    if (pthread_mutex_trylock(&mm->lock))
        return false;
    lock_check_take(mm->pool, LOCK_RANK_HOST_MM, &mm->lock);
    return true;
}

void host_mm_unlock(struct host_mm *mm)
{
    pthread_mutex_unlock(&mm->lock);
    lock_check_drop(mm->pool, &mm->lock);
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
    stats_add(stats, "host.change_ptes", "", &c->change_ptes);
    stats_add(stats, "host.resident", "pages", &mm->hptes.present);
    stats_add(stats, "host.swap_outs", "pages", &c->swap_outs);
    stats_add(stats, "host.swap_shares", "pages", &c->swap_shares);
    stats_add(stats, "host.swap_ins", "pages", &c->swap_ins);
    stats_add(stats, "host.swap_refused", "", &c->swap_refused);
    stats_add(stats, "host.file_reads", "pages", &c->file_reads);
    stats_add(stats, "host.file_drops", "pages", &c->file_drops);
    stats_add(stats, "host.aged", "pages", &c->aged);
    stats_add(stats, "host.aged_young", "pages", &c->aged_young);
    stats_add(stats, "host.reclaims", "", &c->reclaims);
    stats_add(stats, "host.reclaimed", "pages", &c->reclaimed);
    stats_add(stats, "host.limit_excess", "pages", &c->limit_excess);
    stats_add(stats, "host.huge_faults", "", &c->huge_faults);
    stats_add(stats, "host.gigantic_faults", "", &c->gigantic_faults);
    stats_add(stats, "host.collapses", "", &c->collapses);
    stats_add(stats, "host.splits", "", &c->splits);
    stats_add(stats, "host.migrations", "", &c->migrations);
    stats_add(stats, "host.forks", "", &c->forks);
    stats_add(stats, "host.soft_clears", "pages", &c->soft_clears);
    stats_add(stats, "host.ksm_pages", "pages", &mm->hptes.ksm);
    stats_add(stats, "host.ksm_merges", "", &c->ksm_merges);
    stats_add(stats, "host.ksm_zeros", "", &c->ksm_zeros);
    stats_add(stats, "host.ksm_unmerges", "", &c->ksm_unmerges);
    stats_add(stats, "host.awaited", "pages", &mm->hptes.awaited);
    stats_add(stats, "host.delivered", "pages", &c->delivered);
    stats_add(stats, "host.fetched_ahead", "pages", &c->fetched_ahead);
    stats_add(stats, "host.mirror_fills", "", &c->mirror_fills);
    stats_add(stats, "bytes.host_tables", "bytes", &mm->hptes.bytes.now);
    stats_add(stats, "bytes.host_tables.peak", "bytes", &mm->hptes.bytes.peak);
}

const char *host_status_text(int status)
{
    switch (status) {
    case HOST_OK:
        return "done";
    case HOST_DENIED:
        return "not mapped, or not permitted";
    case HOST_NO_FRAMES:
        return "out of frames";
    case HOST_IO_ERROR:
        return "a swap or memory file cannot be read or written";
    case HOST_SWAP_FULL:
        return "the swap store is full";
    case HOST_NO_SWAP:
        return "there is no swap store";
    case HOST_NOTHING:
        return "there is no such page";
    case HOST_SHARED:
        return "the frame is shared";
    default:
        return "unknown status";
    }
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

static bool can_map(uint64_t len)
{
    return len && !(len & PAGE_MASK) && len <= HVA_END - HVA_BASE;
}

/* Puts the VMA at the lowest free place; its start, or 0. */
static hva_t map_vma(struct host_mm *mm, struct vma v, uint64_t len)
{
    v.start = vma_find_gap(&mm->vmas, len);
    v.end = v.start + len;
    if (v.start)
        vma_insert(&mm->vmas, &v);
    return v.start;
}

hva_t host_mm_mmap_anon(struct host_mm *mm, uint64_t len, unsigned prot)
{
    if (!can_map(len))
        return 0;
    host_mm_lock(mm);
    hva_t hva = map_vma(mm, (struct vma){.kind = VMA_ANON, .prot = prot}, len);
    host_mm_unlock(mm);
    return hva;
}

hva_t host_mm_mmap_file(struct host_mm *mm, int fd, uint64_t offset, uint64_t len, unsigned prot)
{
    if (!can_map(len) || offset & PAGE_MASK || offset > INT64_MAX - len)
        return 0;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return 0;
    host_mm_lock(mm);
    struct vma_backing *b = vma_backing_add(mm, VMA_FILE);
    b->fd = own;
    hva_t hva = map_vma(mm, (struct vma){.kind = VMA_FILE, .prot = prot, .offset = offset, .backing = b}, len);
    host_mm_unlock(mm);
    vma_backing_reap(mm);
    return hva;
}

hva_t host_mm_mmap_mirror(struct host_mm *mm, struct host_mm *source, hva_t source_hva, uint64_t len)
{
    if (!can_map(len) || source_hva & PAGE_MASK || source_hva > HVA_END - len || source == mm ||
        source->pool != mm->pool)
        return 0;
    host_mm_lock(mm);
    struct vma_backing *b = vma_backing_add(mm, VMA_MIRROR);
    b->source = source;
    b->source_start = source_hva;
    b->source_end = source_hva + len;
    b->refs++; /* until the VMA counts */
    host_mm_unlock(mm);

    /* Subscribed before the first page can be taken over: no invalidation is missed. */
    bool subscribed = mirror_subscribe(b);
    host_mm_lock(mm);
    struct vma v = {.kind = VMA_MIRROR, .prot = HOST_READ, .offset = source_hva, .backing = b};
    hva_t hva = subscribed ? map_vma(mm, v, len) : 0;
    b->refs--;
    host_mm_unlock(mm);
    vma_backing_reap(mm);
    return hva;
}

bool host_mm_covers_locked(const struct host_mm *mm, hva_t hva, uint64_t len)
{
    return len && !(hva & PAGE_MASK) && !(len & PAGE_MASK) && hva < HVA_END && len <= HVA_END - hva &&
           vma_covers(&mm->vmas, hva, hva + len);
}

struct notify_range host_mm_page_range(struct host_mm *mm, hva_t hva, enum notify_event event)
{
    return (struct notify_range){
        .mm = mm, .start = hva, .end = hva + PAGE_SIZE, .event = event, .flags = NOTIFY_BLOCKABLE};
}

/* `to` takes the place of `old`: what is known of the use of the old frame stays known (Linux: folio_migrate_flags). */
static hpte_t hpte_inherit_accessed(const struct host_mm *mm, hpte_t old, hpte_t to)
{
    bool used = hpte_is_resident(old) && frame_pool_is_accessed(mm->pool, hpte_frame(old));
    return used && hpte_is_resident(to) ? to | HPTE_ACCESSED : to;
}

void host_mm_set_notify_locked(struct host_mm *mm, hva_t hva, hpte_t to)
{
    mm->counters.change_ptes++;
    if (mm->trace)
        trace_point(mm->trace, TRACE_NOTIFIER_CHANGE_PTE, hva, hva + PAGE_SIZE, hpte_frame(to), (to & HPTE_WRITE) != 0);
    notify_change_pte(mm, hva, (struct hpte_view){.pfn = hpte_frame(to), .writable = to & HPTE_WRITE});
    hpte_set(&mm->hptes, hva, hpte_inherit_accessed(mm, *hpte_lookup(&mm->hptes, hva), to));
}

void host_mm_replace_locked(struct host_mm *mm, hva_t hva, hpte_t to)
{
    hpte_t old = *hpte_lookup(&mm->hptes, hva);
    hpte_set(&mm->hptes, hva, hpte_inherit_accessed(mm, old, to));
    notify_invalidate_range(mm, hva, hva + PAGE_SIZE);
    put_hpte(mm, old);
}

/* Clears the hptes of a part of one chunk. The order is that of Linux's ptep_clear_flush_notify and mmu_gather: hptes
 * first, then subscribers, while every old frame is still allocated, then the frames. */
static unsigned zap_in_chunk(struct host_mm *mm, hva_t start, hva_t end)
{
    hpte_t old[HPTE_CHUNK_PAGES];
    unsigned n = 0;
    bool had_frame = false;
    for_each_hpte(&mm->hptes, hva, start, end) {
        old[n] = *hpte_lookup(&mm->hptes, hva);
        had_frame |= hpte_has_frame(old[n++]);
        hpte_set(&mm->hptes, hva, 0);
    }
    if (had_frame)
        notify_invalidate_range(mm, start, end);
    put_hptes(mm, old, n);
    return n;
}

uint64_t host_mm_zap_locked(struct host_mm *mm, hva_t start, hva_t end)
{
    uint64_t zapped = 0;
    host_mm_split_borders_locked(mm, start, end);
    for (hva_t hva = hpte_next(&mm->hptes, start, end); hva < end; hva = hpte_next(&mm->hptes, hva, end)) {
        hva_t stop = hpte_chunk_start(hva) + HPTE_CHUNK_SIZE;
        if (stop > end)
            stop = end;
        zapped += zap_in_chunk(mm, hva, stop);
        hva = stop;
    }
    return zapped;
}

static int zap_mapped(struct host_mm *mm, hva_t hva, uint64_t len, enum notify_event event)
{
    struct notify_range range = {.mm = mm, .start = hva, .end = hva + len, .event = event, .flags = NOTIFY_BLOCKABLE};
    notify_invalidate_range_start(&range);
    mm->counters.unmapped += host_mm_zap_locked(mm, range.start, range.end);
    notify_invalidate_range_end(&range);
    return 0;
}

int host_mm_munmap(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    int rc = host_mm_covers_locked(mm, hva, len) ? 0 : -1;
    if (!rc) {
        /* The VMA goes first, as in Linux: no gup, not even one from a callback, brings a page of the range back. */
        vma_remove(&mm->vmas, hva, hva + len);
        zap_mapped(mm, hva, len, NOTIFY_UNMAP);
    }
    host_mm_unlock(mm);
    vma_backing_reap(mm);
    return rc;
}

int host_mm_dontneed(struct host_mm *mm, hva_t hva, uint64_t len)
{
    host_mm_lock(mm);
    int rc = host_mm_covers_locked(mm, hva, len) ? zap_mapped(mm, hva, len, NOTIFY_CLEAR) : -1;
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
    host_mm_split_borders_locked(mm, start, end);
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

/* A mirror never becomes writable: its frames are the source's. */
static bool may_have_prot(const struct host_mm *mm, hva_t start, hva_t end, unsigned prot)
{
    while (start < end && prot & HOST_WRITE) {
        const struct vma *v = vma_find(&mm->vmas, start);
        if (v->kind == VMA_MIRROR)
            return false;
        start = v->end;
    }
    return true;
}

int host_mm_mprotect(struct host_mm *mm, hva_t hva, uint64_t len, unsigned prot)
{
    host_mm_lock(mm);
    int rc = host_mm_covers_locked(mm, hva, len) && may_have_prot(mm, hva, hva + len, prot) ? 0 : -1;
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
