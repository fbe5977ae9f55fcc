/*
 * RAM in snapshots and digests: section "ram" holds the slots, and for each its pages that are not all zeros.
 *
 * Layout of version 3: u32 slots; for each u8 as, u8 kind, u64 base gfn, u64 pages, then records in ascending order,
 * { u64 index in the slot, u32 CRC of index and bytes, 4096 bytes, packed }, ended by index ~0 and the u32 CRC of all
 * indices and CRCs. Loading wants the same slots (the devices that place them are loaded before), so that nothing in a
 * file decides how much memory is touched. What has no page in the file becomes zero.
 *
 * The CRCs are for loading in post-copy, which reads the heads of the records at once, and a page when it is wanted.
 */
#include "core/alloc.h"
#include "core/bytes.h"
#include "core/digest.h"
#include "core/host/postcopy.h"
#include "core/snapshot.h"
#include "mmu/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RAM_VERSION 3
#define RAM_END     UINT64_MAX
#define HEAD_SIZE   12 /* u64 index, u32 CRC */

/* ---- records ---- */

static uint32_t record_crc(const uint8_t head[HEAD_SIZE], const void *page)
{
    return snap_crc(snap_crc(0, head, 8), page, PAGE_SIZE);
}

static bool record_is_whole(const uint8_t head[HEAD_SIZE], const void *page)
{
    return load_le(head + 8, 4) == record_crc(head, page);
}

/* ---- saving ---- */

static void save_page(struct snap_writer *w, uint64_t index, const void *page, uint32_t *heads)
{
    uint8_t head[HEAD_SIZE];
    store_le(head, index, 8);
    store_le(head + 8, record_crc(head, page), 4);
    *heads = snap_crc(*heads, head, HEAD_SIZE);
    snap_put_bytes(w, head, HEAD_SIZE);
    snap_put_packed(w, page, PAGE_SIZE);
}

static void save_slot(const struct mem *m, const struct memslot *s, struct snap_writer *w)
{
    uint32_t heads = 0;
    snap_put_u8(w, (uint8_t)s->as);
    snap_put_u8(w, (uint8_t)s->kind);
    snap_put_u64(w, s->base);
    snap_put_u64(w, s->pages);
    for (uint64_t i = 0; i < s->pages; i++) {
        hva_t hva = s->hva + (i << PAGE_SHIFT);
        const void *page = host_mm_peek_content(m->cfg.mm, hva);
        if (!page && mem_is_lost(m, hva))
            snap_writer_fail(w, "a page of guest memory cannot be read back");
        if (page && !digest_page_is_zero(page))
            save_page(w, i, page, &heads);
    }
    snap_put_u64(w, RAM_END);
    snap_put_u32(w, heads);
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
    snap_begin(w, MEM_SNAPSHOT_SECTION, RAM_VERSION);
    snap_put_u32(w, (uint32_t)saved_slots(m));
    for (size_t i = 0; i < memslot_count(m); i++)
        if (memslot_at(m, i)->kind != MEMSLOT_DEVICE)
            save_slot(m, memslot_at(m, i), w);
    snap_end(w);
}

/* ---- loading ---- */

static const uint8_t zero_page[PAGE_SIZE];

static void load_bytes(struct mem *m, const struct memslot *s, uint64_t index, const void *bytes)
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
            load_bytes(m, s, i, zero_page);
    }
}

/* The page of a record whose head was read just now. */
static void load_page(struct mem *m, const struct memslot *s, const uint8_t head[HEAD_SIZE], struct snap_reader *r)
{
    uint8_t bytes[PAGE_SIZE];
    snap_get_packed(r, bytes, sizeof(bytes));
    if (!snap_reader_error(r) && !record_is_whole(head, bytes))
        snap_fail(r, "memory at 0x%llx: a page is damaged (CRC)", (unsigned long long)s->base << PAGE_SHIFT);
    if (!snap_reader_error(r))
        load_bytes(m, s, load_le(head, 8), bytes);
}

/* The same, for later. */
static void await_page(struct mem *m, const struct memslot *s, const uint8_t head[HEAD_SIZE], struct snap_reader *r)
{
    uint64_t key = snap_file_offset(r) - HEAD_SIZE;
    snap_skip_packed(r);
    if (!snap_reader_error(r) && host_mm_await(m->cfg.mm, s->hva + (load_le(head, 8) << PAGE_SHIFT), key))
        snap_fail(r, "memory at 0x%llx cannot be awaited", (unsigned long long)s->base << PAGE_SHIFT);
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

typedef void load_page_fn(struct mem *m, const struct memslot *s, const uint8_t head[HEAD_SIZE], struct snap_reader *r);

static void load_slot(struct mem *m, const struct memslot *s, struct snap_reader *r, load_page_fn *page)
{
    uint8_t head[HEAD_SIZE];
    uint32_t heads = 0;
    if (!load_slot_header(s, r))
        return;
    for (uint64_t next = 0; !snap_reader_error(r);) {
        snap_get_bytes(r, head, sizeof(head));
        uint64_t index = load_le(head, 8);
        if (index == RAM_END) {
            load_zeros(m, s, next, s->pages);
            if (load_le(head + 8, 4) != heads)
                snap_fail(r, "memory at 0x%llx: the list of pages is damaged (CRC)",
                          (unsigned long long)s->base << PAGE_SHIFT);
            return;
        }
        if (!snap_reader_error(r) && (index < next || index >= s->pages))
            snap_fail(r, "memory at 0x%llx: page index %llu out of order", (unsigned long long)s->base << PAGE_SHIFT,
                      (unsigned long long)index);
        if (snap_reader_error(r))
            return;
        heads = snap_crc(heads, head, HEAD_SIZE);
        load_zeros(m, s, next, index);
        page(m, s, head, r);
        next = index + 1;
    }
}

static void load_slots(struct mem *m, struct snap_reader *r, load_page_fn *page)
{
    if (!snap_expect(r, MEM_SNAPSHOT_SECTION, RAM_VERSION))
        return;
    uint32_t count = snap_get_u32(r);
    if (!snap_reader_error(r) && count != saved_slots(m))
        snap_fail(r, "the file has %u memory slots, the machine has %zu", count, saved_slots(m));
    for (size_t i = 0; i < memslot_count(m) && !snap_reader_error(r); i++)
        if (memslot_at(m, i)->kind != MEMSLOT_DEVICE)
            load_slot(m, memslot_at(m, i), r, page);
}

void mem_load(struct mem *m, struct snap_reader *r)
{
    load_slots(m, r, load_page);
}

/* ---- loading in post-copy ---- */

/* The source: a file whose records are known by where they are. */
struct record_file {
    int fd;
};

static int record_fetch(void *ctx, uint64_t key, void *page)
{
    const struct record_file *f = ctx;
    uint8_t head[HEAD_SIZE];
    bool ok = pread(f->fd, head, HEAD_SIZE, (off_t)key) == HEAD_SIZE &&
              snap_read_packed_at(f->fd, key + HEAD_SIZE, page, PAGE_SIZE) && record_is_whole(head, page);
    return ok ? HOST_OK : HOST_IO_ERROR;
}

static void record_destroy(void *ctx)
{
    struct record_file *f = ctx;
    close(f->fd);
    free(f);
}

static const struct page_source_ops record_ops = {.fetch = record_fetch, .destroy = record_destroy};

void mem_load_postcopy(struct mem *m, struct snap_reader *r)
{
    struct record_file *f = alloc_zeroed(1, sizeof(*f));
    f->fd = snap_reader_dup(r);
    struct page_source *source = page_source_create(&record_ops, f);
    if (f->fd < 0 || host_mm_set_page_source(m->cfg.mm, source))
        snap_fail(r, "its memory cannot be loaded in post-copy now");
    else
        load_slots(m, r, await_page);
    page_source_put(source);
}
