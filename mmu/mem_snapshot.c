/*
 * RAM in snapshots and digests: section "ram" holds the slots, and for each its pages that are not all zeros.
 *
 * Layout of version 2: u32 slots; for each u8 as, u8 kind, u64 base gfn, u64 pages, then { u64 index in the slot, 4096
 * bytes, packed } in ascending order, ended by index ~0. Loading wants the same slots (the devices that place them are
 * loaded before), so that nothing in a file decides how much memory is touched. What has no page in the file becomes
 * zero.
 */
#include "core/digest.h"
#include "core/snapshot.h"
#include "mmu/mem.h"

#include <string.h>

#define RAM_SECTION "ram"
#define RAM_VERSION 2
#define RAM_END     UINT64_MAX

static void save_slot(const struct mem *m, const struct memslot *s, struct snap_writer *w)
{
    snap_put_u8(w, (uint8_t)s->as);
    snap_put_u8(w, (uint8_t)s->kind);
    snap_put_u64(w, s->base);
    snap_put_u64(w, s->pages);
    for (uint64_t i = 0; i < s->pages; i++) {
        hva_t hva = s->hva + (i << PAGE_SHIFT);
        const void *page = host_mm_peek_content(m->cfg.mm, hva);
        if (!page && mem_is_lost(m, hva))
            snap_writer_fail(w, "a page of guest memory cannot be read back from the swap store");
        if (!page || digest_page_is_zero(page))
            continue;
        snap_put_u64(w, i);
        snap_put_packed(w, page, PAGE_SIZE);
    }
    snap_put_u64(w, RAM_END);
}

/* What is behind a device's slot is no memory: the same machine has such slots with one engine and not with another. */
static size_t saved_slots(const struct mem *m)
{
    size_t n = 0;
    for (size_t i = 0; i < memslot_count(m); i++)
        n += memslot_at(m, i)->kind != MEMSLOT_DEVICE;
    return n;
}

void mem_save(const struct mem *m, struct snap_writer *w)
{
    snap_begin(w, RAM_SECTION, RAM_VERSION);
    snap_put_u32(w, (uint32_t)saved_slots(m));
    for (size_t i = 0; i < memslot_count(m); i++)
        if (memslot_at(m, i)->kind != MEMSLOT_DEVICE)
            save_slot(m, memslot_at(m, i), w);
    snap_end(w);
}

static const uint8_t zero_page[PAGE_SIZE];

static void load_page(struct mem *m, const struct memslot *s, uint64_t index, const void *bytes)
{
    gpa_t gpa = (s->base + index) << PAGE_SHIFT;
    mem_access(m, s->as, gpa, (void *)(uintptr_t)bytes, PAGE_SIZE, MEM_HOST_POKE, true, -1);
}

/* Pages [from, to) have none in the file. */
static void load_zeros(struct mem *m, const struct memslot *s, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        const void *page = host_mm_peek_content(m->cfg.mm, s->hva + (i << PAGE_SHIFT));
        if (page && !digest_page_is_zero(page))
            load_page(m, s, i, zero_page);
    }
}

static bool load_slot_header(const struct memslot *s, struct snap_reader *r)
{
    unsigned as = snap_get_u8(r), kind = snap_get_u8(r);
    uint64_t base = snap_get_u64(r), pages = snap_get_u64(r);
    if (snap_reader_error(r))
        return false;
    if (as == s->as && kind == (unsigned)s->kind && base == s->base && pages == s->pages)
        return true;
    snap_fail(r, "memory at 0x%llx: the file has %llu pages at 0x%llx", (unsigned long long)s->base << PAGE_SHIFT,
              (unsigned long long)pages, (unsigned long long)base << PAGE_SHIFT);
    return false;
}

static bool load_slot(struct mem *m, const struct memslot *s, struct snap_reader *r)
{
    uint8_t bytes[PAGE_SIZE];
    if (!load_slot_header(s, r))
        return false;
    for (uint64_t next = 0;;) {
        uint64_t index = snap_get_u64(r);
        if (snap_reader_error(r))
            return false;
        if (index == RAM_END) {
            load_zeros(m, s, next, s->pages);
            return true;
        }
        if (index < next || index >= s->pages) {
            snap_fail(r, "memory at 0x%llx: page index %llu out of order", (unsigned long long)s->base << PAGE_SHIFT,
                      (unsigned long long)index);
            return false;
        }
        snap_get_packed(r, bytes, sizeof(bytes));
        if (snap_reader_error(r))
            return false;
        load_zeros(m, s, next, index);
        load_page(m, s, index, bytes);
        next = index + 1;
    }
}

void mem_load(struct mem *m, struct snap_reader *r)
{
    if (!snap_expect(r, RAM_SECTION, RAM_VERSION))
        return;
    uint32_t count = snap_get_u32(r);
    if (!snap_reader_error(r) && count != saved_slots(m))
        snap_fail(r, "the file has %u memory slots, the machine has %zu", count, saved_slots(m));
    for (size_t i = 0; i < memslot_count(m) && !snap_reader_error(r); i++)
        if (memslot_at(m, i)->kind != MEMSLOT_DEVICE && !load_slot(m, memslot_at(m, i), r))
            return;
}
