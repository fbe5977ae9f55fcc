/*
 * The one entry to memory by guest-physical address, and the cache of host pointers behind it.
 *
 * What happens to an access, in this order: it is cut at page boundaries; a part that a slot backs is copied (a write
 * is then told to the listeners that track the gfn); a part outside slots, or a write to ROM, becomes naturally aligned
 * bus transactions.
 */
#include "mmu/mem.h"
#include "core/bus.h"
#include "core/host/host_ops.h"
#include "mmu/mem_mirror.h"

#include <stdlib.h>
#include <string.h>

#define DMA_DEPTH_MAX 4

/* ---- host pointers ---- */

void mem_cache_clear(struct mem *m)
{
    for (unsigned i = 0; i < MEM_CACHE_SIZE; i++)
        m->cache[i].tag = 0;
}

/* The host has no page to give: the run cannot go on, since the guest would see memory that is none. Said once. */
static void mem_fail(struct mem *m, const struct memslot *s, gfn_t gfn, int error)
{
    if (!m->failed)
        log_error("no host memory for guest page 0x%llx (host address 0x%llx): %s",
                  (unsigned long long)gfn << PAGE_SHIFT, (unsigned long long)memslot_hva(s, gfn),
                  host_status_text(error));
    m->failed = true;
}

bool mem_has_failed(const struct mem *m)
{
    return m->failed;
}

static void cache_fill(struct mem *m, const struct memslot *s, gfn_t gfn, const struct gup_result *g, bool write)
{
    struct mem_page *p = mem_page_slot(m, gfn);
    *p = (struct mem_page){
        .tag = mem_page_tag(s->as, gfn),
        .r = g->ptr,
        .w = write ? g->ptr : NULL,
        .rom = s->kind == MEMSLOT_ROM,
        .host_writable = g->writable,
    };
}

void *mem_page_get(struct mem *m, unsigned as, gfn_t gfn, bool write)
{
    const struct memslot *s = memslot_find(m, as, gfn);
    if (!s || s->kind == MEMSLOT_DEVICE)
        return NULL;
    struct gup_result g;
    uint64_t seq = m->invalidate_seq;
    int error = host_mm_gup(m->cfg.mm, memslot_hva(s, gfn), write, &g);
    if (error) {
        mem_fail(m, s, gfn, error);
        return NULL;
    }
    /* gup may itself have changed the mapping (a broken zero page), or waited for an operation that did. */
    if (!m->invalidate_in_progress && m->invalidate_seq == seq)
        cache_fill(m, s, gfn, &g, write);
    return g.ptr;
}

static bool cache_drop_gfns(struct mem *m, unsigned as, gfn_t gfn, uint64_t pages)
{
    bool dropped = false;
    if (pages >= MEM_CACHE_SIZE) {
        mem_cache_clear(m);
        return true;
    }
    for (gfn_t g = gfn; g < gfn + pages; g++) {
        struct mem_page *p = mem_page_slot(m, g);
        if (p->tag == mem_page_tag(as, g)) {
            p->tag = 0;
            dropped = true;
        }
    }
    return dropped;
}

struct drop_ctx {
    struct mem *m;
    bool dropped;
};

static void cache_drop_slot_part(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages)
{
    struct drop_ctx *d = ctx;
    d->dropped |= cache_drop_gfns(d->m, slot->as, gfn, pages);
}

static bool cache_drop_hva(struct mem *m, hva_t start, hva_t end)
{
    struct drop_ctx d = {.m = m};
    memslot_for_each_hva(m, start, end, cache_drop_slot_part, &d);
    return d.dropped;
}

static int on_range_start(struct notifier *n, const struct notify_range *range)
{
    struct mem *m = container_of(n, struct mem, notifier);
    m->invalidate_in_progress++;
    m->invalidate_seq++;
    cache_drop_hva(m, range->start, range->end);
    return 0;
}

static void on_range_end(struct notifier *n, const struct notify_range *range)
{
    struct mem *m = container_of(n, struct mem, notifier);
    m->invalidate_seq++;
    m->invalidate_in_progress--;
}

static bool on_age(struct notifier *n, hva_t start, hva_t end)
{
    return cache_drop_hva(container_of(n, struct mem, notifier), start, end);
}

static void on_change_pte(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct mem *m = container_of(n, struct mem, notifier);
    m->invalidate_seq++;
    cache_drop_hva(m, hva, hva + PAGE_SIZE);
}

static void on_release(struct notifier *n)
{
    mem_cache_clear(container_of(n, struct mem, notifier));
}

static const struct notifier_ops mem_notifier_ops = {
    .invalidate_range_start = on_range_start,
    .invalidate_range_end = on_range_end,
    .clear_flush_young = on_age,
    .clear_young = on_age,
    .change_pte = on_change_pte,
    .release = on_release,
};

/* ---- life ---- */

struct mem *mem_create(const struct mem_config *cfg)
{
    struct mem *m = alloc_zeroed(1, sizeof(*m));
    m->cfg = *cfg;
    if (!m->cfg.trace) {
        trace_init(&m->no_trace, NULL);
        m->cfg.trace = &m->no_trace;
    }
    m->generation = 1;
    m->before.gpa = ~0ull;
    m->cache = alloc_zeroed(MEM_CACHE_SIZE, sizeof(*m->cache));
    account_add(&m->bytes.pointers, MEM_CACHE_SIZE * sizeof(*m->cache));
    track_init(m);
    notifier_register(&m->notifier, cfg->mm, &mem_notifier_ops);
    return m;
}

void mem_destroy(struct mem *m)
{
    if (!m)
        return;
    mem_mirror_unlink(m);
    gfn_caches_destroy(m->caches);
    notifier_unregister(&m->notifier);
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        for (size_t i = 0; i < m->slot_count[as]; i++) {
            dirty_log_free(m, m->slots[as][i]);
            free(m->slots[as][i]);
        }
        free(m->slots[as]);
    }
    dirty_rings_free(m);
    track_fini(m);
    if (m->cfg.trace == &m->no_trace)
        trace_fini(&m->no_trace);
    free(m->cache);
    free(m);
}

void mem_set_mmu(struct mem *m, struct mmu *mmu)
{
    m->mmu = mmu;
}

/* ---- copying ---- */

static inline void copy_bytes(void *to, const void *from, size_t len)
{
    switch (len) { /* whole stores for the sizes of instructions */
    case 1:
        memcpy(to, from, 1);
        break;
    case 2:
        memcpy(to, from, 2);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    default:
        memcpy(to, from, len);
    }
}

static void bus_part(struct mem *m, gpa_t gpa, uint8_t *buf, size_t len, bool write, int cpu)
{
    while (len) {
        unsigned size = 8;
        while (size > len || (gpa & (size - 1)))
            size >>= 1;
        uint64_t value = 0;
        if (write) {
            memcpy(&value, buf, size);
            bus_write(m->cfg.mmio, gpa, size, value, cpu);
        } else {
            value = bus_read(m->cfg.mmio, gpa, size, cpu);
            memcpy(buf, &value, size);
        }
        gpa += size;
        buf += size;
        len -= size;
    }
}

/* A part of an access that no slot takes. */
static enum mem_result access_device(struct mem *m, gpa_t gpa, uint8_t *buf, size_t len, enum mem_kind kind, bool write,
                                     int cpu)
{
    bool quiet = kind == MEM_PEEK || kind == MEM_WALK || kind == MEM_HOST_POKE || !m->cfg.mmio;
    if (!quiet && kind == MEM_DMA && m->dma_depth >= DMA_DEPTH_MAX) {
        if (m->cfg.log)
            log_emit(m->cfg.log, LOG_GUEST_ERROR, "DMA to 0x%llx by a device that was reached by DMA itself: ignored",
                     (unsigned long long)gpa);
        quiet = true;
    }
    if (quiet) {
        if (!write)
            memset(buf, 0xff, len);
        return MEM_DEVICE;
    }
    m->dma_depth += kind == MEM_DMA;
    bus_part(m, gpa, buf, len, write, cpu);
    m->dma_depth -= kind == MEM_DMA;
    return MEM_OK;
}

bool mem_is_lost(const struct mem *m, hva_t hva)
{
    return host_mm_peek(m->cfg.mm, hva).state == HPTE_SWAPPED;
}

static enum mem_result peek_part(struct mem *m, unsigned as, gpa_t gpa, uint8_t *buf, size_t len)
{
    const struct memslot *s = memslot_find(m, as, gpa >> PAGE_SHIFT);
    if (!s || s->kind == MEMSLOT_DEVICE) {
        memset(buf, 0xff, len);
        return MEM_DEVICE;
    }
    const uint8_t *page = host_mm_peek_content(m->cfg.mm, memslot_hva(s, gpa >> PAGE_SHIFT));
    if (page) {
        copy_bytes(buf, page + (gpa & PAGE_MASK), len);
        return MEM_OK;
    }
    memset(buf, 0, len);
    return mem_is_lost(m, memslot_hva(s, gpa >> PAGE_SHIFT)) ? MEM_ABSENT : MEM_OK;
}

static enum mem_result write_part(struct mem *m, unsigned as, gpa_t gpa, uint8_t *buf, size_t len, enum mem_kind kind,
                                  int cpu)
{
    gfn_t gfn = gpa >> PAGE_SHIFT;
    const struct mem_page *p = mem_page_slot(m, gfn);
    uint8_t *page;
    if (likely(p->tag == mem_page_tag(as, gfn) && p->w && !p->rom)) {
        page = p->w;
    } else {
        if (mem_is_device(m, as, gpa, kind != MEM_HOST_POKE))
            return access_device(m, gpa, buf, len, kind, true, cpu);
        page = mem_page_write(m, as, gfn);
        if (!page)
            return MEM_OK; /* mem_fail() has said it */
    }
    mem_note_dirty(m, as, gfn, cpu);
    page += gpa & PAGE_MASK;
    unsigned mask = track_mask(m, as, gfn);
    if (kind == MEM_WALK)
        mask &= ~(1u << TRACK_PT);
    if (likely(!mask)) {
        copy_bytes(page, buf, len);
        return MEM_OK;
    }
    m->before.gpa = gpa & ~7ull;
    memcpy(&m->before.value, page - (gpa & 7), 8);
    copy_bytes(page, buf, len);
    track_notify(m, as, gpa, page, len, mask);
    m->before.gpa = ~0ull;
    return MEM_OK;
}

static enum mem_result read_part(struct mem *m, unsigned as, gpa_t gpa, uint8_t *buf, size_t len, enum mem_kind kind,
                                 int cpu)
{
    const uint8_t *page = mem_page_read(m, as, gpa >> PAGE_SHIFT);
    if (unlikely(!page)) {
        if (mem_is_device(m, as, gpa, false))
            return access_device(m, gpa, buf, len, kind, false, cpu);
        memset(buf, 0xff, len);
        return MEM_OK;
    }
    copy_bytes(buf, page + (gpa & PAGE_MASK), len);
    return MEM_OK;
}

static enum mem_result access_part(struct mem *m, unsigned as, gpa_t gpa, uint8_t *buf, size_t len, enum mem_kind kind,
                                   bool write, int cpu)
{
    if (kind == MEM_PEEK)
        return write ? MEM_DEVICE : peek_part(m, as, gpa, buf, len);
    return write ? write_part(m, as, gpa, buf, len, kind, cpu) : read_part(m, as, gpa, buf, len, kind, cpu);
}

enum mem_result mem_access(struct mem *m, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind, bool write,
                           int cpu)
{
    enum mem_result result = MEM_OK;
    uint8_t *at = buf;
    while (len) {
        size_t part = PAGE_SIZE - (gpa & PAGE_MASK);
        if (part > len)
            part = len;
        enum mem_result r = access_part(m, as, gpa, at, part, kind, write, cpu);
        if (r)
            result = r;
        gpa += part;
        at += part;
        len -= part;
        if (kind == MEM_HOST_POKE) /* an image is larger than what may be resident; no instruction runs */
            host_mm_safe_point(m->cfg.mm);
    }
    return result;
}

void mem_written(struct mem *m, unsigned as, gpa_t gpa, size_t len)
{
    while (len) {
        size_t part = PAGE_SIZE - (gpa & PAGE_MASK);
        if (part > len)
            part = len;
        unsigned mask = track_mask(m, as, gpa >> PAGE_SHIFT);
        mem_note_dirty(m, as, gpa >> PAGE_SHIFT, -1);
        const uint8_t *page = mask ? mem_page_read(m, as, gpa >> PAGE_SHIFT) : NULL;
        if (page)
            track_notify(m, as, gpa, page + (gpa & PAGE_MASK), part, mask);
        gpa += part;
        len -= part;
    }
}

enum mem_cmpxchg mem_walk_cmpxchg(struct mem *m, unsigned as, gpa_t gpa, uint64_t old, uint64_t value, unsigned size)
{
    gfn_t gfn = gpa >> PAGE_SHIFT;
    if (mem_is_device(m, as, gpa, true))
        return MEM_READ_ONLY;
    uint8_t *page = mem_page_write(m, as, gfn);
    if (!page)
        return MEM_READ_ONLY;
    void *at = page + (gpa & PAGE_MASK);
    uint32_t old32 = (uint32_t)old;
    bool swapped =
        size == 4 ? __atomic_compare_exchange_n((uint32_t *)at, &old32, (uint32_t)value, false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST)
                  : __atomic_compare_exchange_n((uint64_t *)at, &old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (!swapped)
        return MEM_CHANGED;
    mem_note_dirty(m, as, gfn, -1);
    unsigned mask = track_mask(m, as, gfn) & ~(1u << TRACK_PT);
    if (unlikely(mask))
        track_notify(m, as, gpa, at, size, mask);
    return MEM_SWAPPED;
}

/* ---- the hook ---- */

static enum mem_result hook_access(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                   bool write)
{
    return mem_access(ctx, as < MEM_ADDRESS_SPACES ? as : 0, gpa, buf, len, kind, write, BUS_NO_CPU);
}

static bool hook_locate(void *ctx, unsigned as, gpa_t gpa, uint64_t len, bool write, struct guest_place *out)
{
    const struct mem *m = ctx;
    gfn_t first = gpa >> PAGE_SHIFT, last = (gpa + len - 1) >> PAGE_SHIFT;
    const struct memslot *s = as < MEM_ADDRESS_SPACES ? memslot_find(m, as, first) : NULL;
    if (!s || last < first || last - s->base >= s->pages || s->kind == MEMSLOT_DEVICE ||
        (write && s->kind != MEMSLOT_RAM))
        return false;
    *out = (struct guest_place){.mm = m->cfg.mm, .hva = memslot_hva(s, first) | (gpa & PAGE_MASK)};
    return true;
}

static uint64_t hook_generation(void *ctx)
{
    return mem_generation(ctx);
}

static void hook_written(void *ctx, unsigned as, gpa_t gpa, size_t len)
{
    mem_written(ctx, as, gpa, len);
}

void mem_hook(struct mem *m, struct guest_memory *out)
{
    *out = (struct guest_memory){
        .ctx = m, .access = hook_access, .locate = hook_locate, .generation = hook_generation, .written = hook_written};
}
