#include "core/dma_map.h"

#include "core/alloc.h"
#include "core/host/host_mm.h"

#include <stdlib.h>
#include <string.h>

/* ---- the subscriber ---- */

/* The parts of the range that the host's [start, end) meets. */
static void drop_pages(struct dma_map *d, hva_t start, hva_t end)
{
    hva_t base = d->place.hva & ~PAGE_MASK;
    for (size_t i = 0; i < d->pages; i++) {
        hva_t hva = base + (i << PAGE_SHIFT);
        if (hva < start || hva >= end || !d->page[i])
            continue;
        d->page[i] = NULL;
        d->counters.invalidations++;
    }
}

static bool invalidate(struct interval_notifier *n, const struct notify_range *range, uint64_t cur_seq)
{
    struct dma_map *d = container_of(n, struct dma_map, notifier);
    if (range->flags & NOTIFY_BLOCKABLE)
        pthread_mutex_lock(&d->lock);
    else if (pthread_mutex_trylock(&d->lock))
        return false;
    interval_notifier_set_seq(n, cur_seq);
    drop_pages(d, range->start, range->end);
    pthread_mutex_unlock(&d->lock);
    return true;
}

static const struct interval_notifier_ops dma_map_ops = {.invalidate = invalidate};

/* ---- life ---- */

void dma_map_init(struct dma_map *d, const struct guest_memory *memory)
{
    *d = (struct dma_map){.memory = memory};
    pthread_mutex_init(&d->lock, NULL);
}

static void unsubscribe(struct dma_map *d)
{
    if (!d->subscribed)
        return;
    interval_notifier_remove(&d->notifier);
    d->subscribed = false;
    free(d->page);
    d->page = NULL;
    d->pages = 0;
}

void dma_map_clear(struct dma_map *d)
{
    unsubscribe(d);
    d->len = 0;
}

void dma_map_fini(struct dma_map *d)
{
    dma_map_clear(d);
    pthread_mutex_destroy(&d->lock);
}

/* Finds out where the range lies now, and listens there. */
static bool subscribe(struct dma_map *d)
{
    const struct guest_memory *m = d->memory;
    unsubscribe(d);
    if (!m->locate || !d->len)
        return false;
    d->generation = m->generation(m->ctx);
    if (!m->locate(m->ctx, d->as, d->gpa, d->len, d->writable, &d->place))
        return false;
    hva_t first = d->place.hva & ~PAGE_MASK, last = (d->place.hva + d->len - 1) & ~PAGE_MASK;
    d->pages = (size_t)((last - first) >> PAGE_SHIFT) + 1;
    d->page = alloc_zeroed(d->pages, sizeof *d->page);
    d->subscribed = !interval_notifier_insert(&d->notifier, d->place.mm, first, last - first + PAGE_SIZE, &dma_map_ops);
    if (!d->subscribed)
        free(d->page);
    return d->subscribed;
}

static bool is_current(const struct dma_map *d)
{
    return d->subscribed && d->generation == d->memory->generation(d->memory->ctx);
}

bool dma_map_set(struct dma_map *d, unsigned as, gpa_t gpa, uint64_t len, bool writable)
{
    if (d->as == as && d->gpa == gpa && d->len == len && d->writable == writable && is_current(d))
        return true;
    unsubscribe(d);
    d->as = as;
    d->gpa = gpa;
    d->len = len;
    d->writable = writable;
    return len && len <= DMA_MAP_MAX && gpa + len > gpa && subscribe(d);
}

/* ---- uses ---- */

/* Gets page i. True: it is there, and the lock is held. */
static bool fill(struct dma_map *d, size_t i)
{
    hva_t hva = (d->place.hva & ~PAGE_MASK) + (i << PAGE_SHIFT);
    for (;;) {
        struct gup_result g;
        uint64_t seq = interval_notifier_read_begin(&d->notifier);
        if (host_mm_gup(d->place.mm, hva, d->writable, &g))
            return false;
        pthread_mutex_lock(&d->lock);
        if (!interval_notifier_read_retry(&d->notifier, seq)) {
            d->page[i] = g.ptr;
            d->counters.fills++;
            return true;
        }
        pthread_mutex_unlock(&d->lock);
        d->counters.retries++;
    }
}

static bool is_inside(const struct dma_map *d, uint64_t offset, size_t len)
{
    return len && offset < d->len && len <= d->len - offset;
}

void *dma_map_begin(struct dma_map *d, uint64_t offset, size_t len)
{
    if (!is_inside(d, offset, len) || (!is_current(d) && !subscribe(d)))
        return NULL;
    uint64_t at = (d->place.hva & PAGE_MASK) + offset;
    if (len > PAGE_SIZE - (at & PAGE_MASK))
        return NULL;
    size_t i = (size_t)(at >> PAGE_SHIFT);
    pthread_mutex_lock(&d->lock);
    if (unlikely(!d->page[i])) {
        pthread_mutex_unlock(&d->lock);
        if (!fill(d, i))
            return NULL;
    }
    return d->page[i] + (at & PAGE_MASK);
}

void dma_map_end(struct dma_map *d, uint64_t offset, size_t written)
{
    pthread_mutex_unlock(&d->lock);
    if (written) /* listeners take locks, and may ask for the page */
        d->memory->written(d->memory->ctx, d->as, d->gpa + offset, written);
}

static size_t to_page_end(const struct dma_map *d, uint64_t offset, size_t len)
{
    uint64_t left = PAGE_SIZE - ((d->gpa + offset) & PAGE_MASK);
    return len < left ? len : (size_t)left;
}

static enum mem_result through_hook(struct dma_map *d, uint64_t offset, void *buf, size_t len, bool write)
{
    return d->memory->access(d->memory->ctx, d->as, d->gpa + offset, buf, len, MEM_DMA, write);
}

enum mem_result dma_map_read(struct dma_map *d, uint64_t offset, void *buf, size_t len)
{
    enum mem_result result = is_inside(d, offset, len) ? MEM_OK : MEM_DEVICE;
    uint8_t *to = buf;
    for (size_t part; !result && len; offset += part, to += part, len -= part) {
        part = to_page_end(d, offset, len);
        const void *p = dma_map_begin(d, offset, part);
        if (p) {
            memcpy(to, p, part);
            dma_map_end(d, offset, 0);
        } else {
            result = through_hook(d, offset, to, part, false);
        }
    }
    return result;
}

enum mem_result dma_map_write(struct dma_map *d, uint64_t offset, const void *buf, size_t len)
{
    enum mem_result result = is_inside(d, offset, len) ? MEM_OK : MEM_DEVICE;
    const uint8_t *from = buf;
    for (size_t part; !result && len; offset += part, from += part, len -= part) {
        part = to_page_end(d, offset, len);
        void *p = d->writable ? dma_map_begin(d, offset, part) : NULL;
        if (p) {
            memcpy(p, from, part);
            dma_map_end(d, offset, part);
        } else {
            result = through_hook(d, offset, (void *)(uintptr_t)from, part, true);
        }
    }
    return result;
}
