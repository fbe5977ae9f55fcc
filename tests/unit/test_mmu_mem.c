/*
 * Memslots, the entry to memory by guest-physical address, and RAM in snapshots.
 */
#include "core/snapshot.h"
#include "mmu/mem.h"
#include "mmu_rig.h"

#include <unistd.h>

#define MB (1ull << 20)

static struct rig rig;

/* A device that remembers its transactions. */
struct device {
    struct {
        uint64_t offset, value;
        unsigned size;
        bool write;
    } txn[32];
    unsigned count;
};
static struct device device;

static uint64_t device_read(void *dev, const struct bus_txn *t)
{
    struct device *d = dev;
    d->txn[d->count].offset = t->offset;
    d->txn[d->count].size = t->size;
    d->txn[d->count++].write = false;
    return 0x8877665544332211ull;
}

static void device_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct device *d = dev;
    d->txn[d->count].offset = t->offset;
    d->txn[d->count].size = t->size;
    d->txn[d->count].value = value;
    d->txn[d->count++].write = true;
}

static const struct bus_ops device_ops = {.read = device_read, .write = device_write};

static void setup(void)
{
    rig_open(&rig, &(struct rig_config){.kind = MMU_WALK, .ram = 2 * MB});
    memset(&device, 0, sizeof device);
    ck_assert_int_eq(bus_add(&rig.bus, 2 * MB, 0x1000, &device_ops, &device, "device"), BUS_OK);
}

static void teardown(void)
{
    rig_close(&rig);
}

static enum mem_result put(gpa_t gpa, const void *bytes, size_t len, enum mem_kind kind)
{
    return mem_access(rig.mem, 0, gpa, (void *)(uintptr_t)bytes, len, kind, true, 0);
}

static enum mem_result get(gpa_t gpa, void *bytes, size_t len, enum mem_kind kind)
{
    return mem_access(rig.mem, 0, gpa, bytes, len, kind, false, 0);
}

/* ---- slots ---- */

START_TEST(overlapping_misaligned_and_empty_slots_are_refused)
{
    hva_t hva = rig.hva + 2 * MB;
    uint64_t generation = mem_generation(rig.mem);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0x1ff000, 0x2000, hva, MEMSLOT_RAM), MEMSLOT_ERR_OVERLAP);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0, 0x1000, hva, MEMSLOT_RAM), MEMSLOT_ERR_OVERLAP);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0x400800, 0x1000, hva, MEMSLOT_RAM), MEMSLOT_ERR_ALIGN);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0x400000, 0x1001, hva, MEMSLOT_RAM), MEMSLOT_ERR_ALIGN);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0x400000, 0x1000, hva + 1, MEMSLOT_RAM), MEMSLOT_ERR_ALIGN);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0x400000, 0, hva, MEMSLOT_RAM), MEMSLOT_ERR_RANGE);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 1ull << 52, 0x1000, hva, MEMSLOT_RAM), MEMSLOT_ERR_RANGE);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, (1ull << 52) - 0x1000, 0x2000, hva, MEMSLOT_RAM), MEMSLOT_ERR_RANGE);
    ck_assert_int_eq(mem_slot_add(rig.mem, 2, 0x400000, 0x1000, hva, MEMSLOT_RAM), MEMSLOT_ERR_RANGE);
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 0x1000), MEMSLOT_ERR_ABSENT);
    ck_assert_uint_eq(mem_generation(rig.mem), generation);
    ck_assert_int_eq(mem_slot_add(rig.mem, 1, 0, 0x1000, hva, MEMSLOT_RAM), MEMSLOT_OK); /* another address space */
}
END_TEST

START_TEST(every_error_of_slots_has_a_text_of_its_own)
{
    for (int a = MEMSLOT_ERR_UNSUPPORTED; a <= MEMSLOT_OK; a++) {
        ck_assert_str_ne(mem_slot_error_text(a), "unknown error");
        for (int b = a + 1; b <= MEMSLOT_OK; b++)
            ck_assert_str_ne(mem_slot_error_text(a), mem_slot_error_text(b));
    }
    ck_assert_ptr_nonnull(strstr(mem_slot_error_text(MEMSLOT_ERR_OVERLAP), "overlaps"));
}
END_TEST

START_TEST(every_change_of_slots_advances_the_generation)
{
    uint64_t g = mem_generation(rig.mem);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 8 * MB, MB, rig.hva + 2 * MB, MEMSLOT_RAM), 0);
    ck_assert_uint_eq(mem_generation(rig.mem), g + 1);
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 8 * MB), 0);
    ck_assert_uint_eq(mem_generation(rig.mem), g + 2);
}
END_TEST

START_TEST(bisection_finds_every_page_of_many_slots_and_nothing_between)
{
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 0), 0);
    /* added from the middle outwards, two pages each, with a page between them */
    for (unsigned n = 0; n < 101; n++) {
        unsigned i = (50 + (n % 2 ? n / 2 + 1 : 101 - n / 2)) % 101;
        ck_assert_int_eq(mem_slot_add(rig.mem, 0, i * 0x3000ull, 0x2000, rig.hva + i * 0x2000ull, MEMSLOT_RAM), 0);
    }
    ck_assert_uint_eq(memslot_count(rig.mem), 101);
    for (unsigned step = 1; step < 308; step += 53) {
        for (unsigned k = 0, gfn = 0; k < 310; k++, gfn = (gfn + step) % 310) {
            const struct memslot *s = memslot_find(rig.mem, 0, gfn);
            ck_assert((gfn % 3 == 2 || gfn >= 303) == !s);
            if (s)
                ck_assert_uint_eq(memslot_hva(s, gfn), rig.hva + (gfn / 3 * 2 + gfn % 3) * 0x1000ull);
        }
    }
    for (unsigned i = 1; i < 101; i++)
        ck_assert(memslot_at(rig.mem, i - 1)->base < memslot_at(rig.mem, i)->base);
}
END_TEST

struct parts {
    unsigned count;
    gfn_t gfn[8];
    uint64_t pages[8];
};

static void collect(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages)
{
    struct parts *p = ctx;
    p->gfn[p->count] = gfn;
    p->pages[p->count++] = pages;
}

START_TEST(hva_range_is_found_in_every_slot_that_maps_it)
{
    struct parts p = {0};
    ck_assert_int_eq(mem_slot_add(rig.mem, 1, 16 * MB, MB, rig.hva + MB, MEMSLOT_RAM), 0);
    memslot_for_each_hva(rig.mem, rig.hva + MB - 0x1000, rig.hva + MB + 0x1800, collect, &p);
    ck_assert_uint_eq(p.count, 2);
    ck_assert_uint_eq(p.gfn[0], 0xff);
    ck_assert_uint_eq(p.pages[0], 3);
    ck_assert_uint_eq(p.gfn[1], 0x1000);
    ck_assert_uint_eq(p.pages[1], 2);
}
END_TEST

/* ---- access ---- */

START_TEST(access_crosses_pages_slots_and_devices)
{
    uint8_t out[64], in[64];
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 2 * MB + 0x1000, 0x1000, rig.hva + 2 * MB, MEMSLOT_RAM), 0);
    for (unsigned i = 0; i < 64; i++)
        out[i] = (uint8_t)(i + 1);
    ck_assert_int_eq(put(0xfe0, out, 64, MEM_GUEST), MEM_OK);
    ck_assert_int_eq(get(0xfe0, in, 64, MEM_GUEST), MEM_OK);
    ck_assert_mem_eq(in, out, 64);
    /* the last bytes of RAM, the first of the device */
    ck_assert_int_eq(put(2 * MB - 3, out, 8, MEM_GUEST), MEM_OK);
    ck_assert_uint_eq(device.count, 2);
    ck_assert_uint_eq(device.txn[0].offset, 0);
    ck_assert_uint_eq(device.txn[0].size, 4);
    ck_assert_uint_eq(device.txn[0].value, 0x07060504);
    ck_assert_uint_eq(device.txn[1].size, 1);
    ck_assert_uint_eq(device.txn[1].value, 8);
    /* the last bytes of the device, the first of the next slot */
    device.count = 0;
    ck_assert_int_eq(put(2 * MB + 0xffe, out, 4, MEM_GUEST), MEM_OK);
    ck_assert_uint_eq(device.count, 1);
    ck_assert_uint_eq(device.txn[0].size, 2);
    ck_assert_int_eq(get(2 * MB + 0x1000, in, 2, MEM_GUEST), MEM_OK);
    ck_assert_uint_eq(in[0], 3);
    ck_assert_uint_eq(in[1], 4);
}
END_TEST

START_TEST(device_access_is_split_naturally)
{
    static const struct {
        unsigned offset, len, sizes[8];
    } cases[] = {{0, 8, {8}}, {1, 8, {1, 2, 4, 1}}, {4, 8, {4, 4}},   {2, 4, {2, 2}},
                 {3, 1, {1}}, {8, 16, {8, 8}},      {0, 7, {4, 2, 1}}};
    uint8_t buf[16];
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        device.count = 0;
        ck_assert_int_eq(get(2 * MB + cases[i].offset, buf, cases[i].len, MEM_GUEST), MEM_OK);
        unsigned offset = cases[i].offset;
        for (unsigned k = 0; k < device.count; k++) {
            ck_assert_uint_eq(device.txn[k].size, cases[i].sizes[k]);
            ck_assert_uint_eq(device.txn[k].offset, offset);
            offset += device.txn[k].size;
        }
        ck_assert_uint_eq(offset, cases[i].offset + cases[i].len);
    }
    ck_assert_uint_eq(buf[0], 0x11);
}
END_TEST

START_TEST(rom_reads_directly_and_its_writes_go_to_the_bus)
{
    uint64_t v = 0x1122334455667788ull, in = 0;
    struct bus_ops ops = device_ops;
    ck_assert_int_eq(bus_add(&rig.bus, 16 * MB, 0x1000, &ops, &device, "flash"), BUS_OK);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 16 * MB, 0x1000, rig.hva + 2 * MB, MEMSLOT_ROM), 0);
    ck_assert_int_eq(put(16 * MB, &v, 8, MEM_HOST_POKE), MEM_OK);
    ck_assert_uint_eq(device.count, 0);
    for (int i = 0; i < 2; i++) { /* the second time through cached pointers */
        uint64_t other = 1;
        ck_assert_int_eq(put(16 * MB, &other, 8, i ? MEM_DMA : MEM_GUEST), MEM_OK);
        ck_assert_int_eq(get(16 * MB, &in, 8, MEM_GUEST), MEM_OK);
        ck_assert_uint_eq(in, v);
    }
    ck_assert_uint_eq(device.count, 2);
    ck_assert(mem_is_device(rig.mem, 0, 16 * MB, true));
    ck_assert(!mem_is_device(rig.mem, 0, 16 * MB, false));
}
END_TEST

START_TEST(peek_faults_nothing_in_and_reaches_no_device)
{
    uint64_t in = 1;
    uint64_t resident = host_mm_resident(rig.mm);
    ck_assert_int_eq(get(0x5000, &in, 8, MEM_PEEK), MEM_OK);
    ck_assert_uint_eq(in, 0);
    ck_assert_int_eq(host_mm_peek(rig.mm, rig.hva + 0x5000).state, HPTE_NONE);
    ck_assert_uint_eq(host_mm_resident(rig.mm), resident);
    ck_assert_int_eq(get(2 * MB, &in, 8, MEM_PEEK), MEM_DEVICE);
    ck_assert_int_eq(put(0x5000, &in, 8, MEM_PEEK), MEM_DEVICE);
    ck_assert_int_eq(get(2 * MB, &in, 8, MEM_WALK), MEM_DEVICE);
    ck_assert_uint_eq(in, UINT64_MAX);
    ck_assert_uint_eq(device.count, 0);
}
END_TEST

START_TEST(cached_pointers_die_with_the_frame)
{
    uint64_t v = 42, in;
    put(0x3000, &v, 8, MEM_GUEST);
    get(0x3000, &in, 8, MEM_GUEST);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, rig.hva + 0x3000, 0x1000), 0);
    get(0x3000, &in, 8, MEM_GUEST); /* the zero page now */
    ck_assert_uint_eq(in, 0);
    put(0x3008, &v, 8, MEM_GUEST); /* breaks it */
    get(0x3008, &in, 8, MEM_GUEST);
    ck_assert_uint_eq(in, 42);
    get(0x4008, &in, 8, MEM_GUEST); /* another zero page: not written to */
    ck_assert_uint_eq(in, 0);
}
END_TEST

START_TEST(a_slot_whose_host_memory_is_gone_reads_as_ones_and_is_a_failure)
{
    uint64_t in = 0;
    ck_assert(!mem_has_failed(rig.mem));
    ck_assert_int_eq(host_mm_munmap(rig.mm, rig.hva, 0x1000), 0);
    get(0, &in, 8, MEM_GUEST);
    ck_assert_uint_eq(in, UINT64_MAX);
    put(0, &in, 8, MEM_GUEST);
    ck_assert(mem_has_failed(rig.mem));
}
END_TEST

START_TEST(deleting_a_slot_forgets_cached_pointers)
{
    uint64_t v = 7, in = 0;
    put(0x1000, &v, 8, MEM_GUEST);
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 0), 0);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0, MB, rig.hva + 2 * MB, MEMSLOT_RAM), 0);
    get(0x1000, &in, 8, MEM_GUEST);
    ck_assert_uint_eq(in, 0);
}
END_TEST

/* A device whose write handler makes DMA to itself. */
static void dma_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct guest_memory *hook = dev;
    device.count++;
    guest_mem_write(hook, 32 * MB, &value, 8, MEM_DMA);
}

START_TEST(dma_that_reaches_its_own_device_ends)
{
    struct guest_memory hook;
    struct bus_ops ops = {.read = device_read, .write = dma_write};
    uint64_t v = 1;
    mem_hook(rig.mem, &hook);
    ck_assert_int_eq(bus_add(&rig.bus, 32 * MB, 0x1000, &ops, &hook, "dma"), BUS_OK);
    put(32 * MB, &v, 8, MEM_GUEST);
    ck_assert_uint_ge(device.count, 1);
    ck_assert_uint_le(device.count, 8);
}
END_TEST

/* ---- snapshots ---- */

static char path[64];

static struct snap_writer *writer_open(void)
{
    char err[200];
    snprintf(path, sizeof path, "/tmp/umbra-test-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    ck_assert_ptr_nonnull(w);
    return w;
}

static struct snap_reader *reopen(struct snap_writer *w)
{
    char err[200];
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert_msg(r != NULL, "%s", err);
    unlink(path);
    return r;
}

static uint64_t digest(void)
{
    struct snap_writer *w = snap_writer_digest();
    mem_save(rig.mem, w);
    return snap_writer_digest_close(w);
}

START_TEST(saved_memory_loads_equal_and_pages_not_saved_become_zero)
{
    uint64_t v = 0x1234, in;
    put(0x2000, &v, 8, MEM_GUEST);
    put(0x7ff8, &v, 8, MEM_GUEST);
    get(0x9000, &in, 8, MEM_GUEST); /* a zero page counts for nothing */
    uint64_t before = digest();
    struct snap_writer *w = writer_open();
    mem_save(rig.mem, w);
    struct snap_reader *r = reopen(w);
    put(0x2000, &(uint64_t){1}, 8, MEM_GUEST);
    put(0x40000, &v, 8, MEM_GUEST);
    put(2 * MB - 8, &v, 8, MEM_GUEST);
    ck_assert_uint_ne(digest(), before);
    mem_load(rig.mem, r);
    ck_assert_ptr_null(snap_reader_error(r));
    ck_assert_uint_eq(digest(), before);
    get(0x40000, &in, 8, MEM_PEEK);
    ck_assert_uint_eq(in, 0);
    snap_reader_close(r);
}
END_TEST

START_TEST(file_with_other_slots_is_refused)
{
    struct snap_writer *w = writer_open();
    mem_save(rig.mem, w);
    struct snap_reader *r = reopen(w);
    mem_slot_delete(rig.mem, 0, 0);
    mem_slot_add(rig.mem, 0, 0, MB, rig.hva, MEMSLOT_RAM);
    mem_load(rig.mem, r);
    ck_assert_ptr_nonnull(snap_reader_error(r));
    snap_reader_close(r);
}
END_TEST

static void put_record(struct snap_writer *w, uint64_t index, const uint8_t *page, bool damaged, uint32_t *heads)
{
    uint8_t head[12];
    memcpy(head, &index, 8);
    uint32_t crc = snap_crc(snap_crc(0, head, 8), page, PAGE_SIZE) ^ damaged;
    memcpy(head + 8, &crc, 4);
    *heads = snap_crc(*heads, head, sizeof head);
    snap_put_bytes(w, head, sizeof head);
    snap_put_packed(w, page, PAGE_SIZE);
}

/* Page lists that a saver never writes: index out of range, descending, unterminated, page cut short, a page or the
 * list damaged. The last one is right. */
enum { LIST_CUT = 2, LIST_DAMAGED_PAGE = 4, LIST_DAMAGED = 8, LIST_ENDS = 16 };
static const struct {
    uint64_t index[2];
    unsigned count, how;
} lists[] = {
    {{512}, 1, LIST_ENDS},
    {{3, 3}, 2, LIST_ENDS},
    {{UINT64_MAX - 1}, 1, LIST_ENDS},
    {{5}, 1, 0},
    {{1}, 0, LIST_CUT},
    {{5, 6}, 2, LIST_ENDS | LIST_DAMAGED_PAGE},
    {{4, 5}, 2, LIST_ENDS | LIST_DAMAGED},
    {{5, 6}, 2, LIST_ENDS},
};

START_TEST(hostile_page_list_is_an_error_and_no_more)
{
    uint8_t page[PAGE_SIZE] = {1};
    uint32_t heads = 0;
    struct snap_writer *w = writer_open();
    snap_begin(w, "ram", 3);
    snap_put_u32(w, 1);
    snap_put_u8(w, 0);
    snap_put_u8(w, MEMSLOT_RAM);
    snap_put_u64(w, 0);
    snap_put_u64(w, 512);
    unsigned how = lists[_i].how;
    for (unsigned k = 0; k < lists[_i].count; k++)
        put_record(w, lists[_i].index[k], page, how & LIST_DAMAGED_PAGE, &heads);
    if (how & LIST_CUT) {
        snap_put_u64(w, lists[_i].index[0]);
        snap_put_bytes(w, page, 100);
    }
    if (how & LIST_ENDS) {
        snap_put_u64(w, UINT64_MAX);
        snap_put_u32(w, heads ^ ((how & LIST_DAMAGED) != 0));
    }
    snap_end(w);
    struct snap_reader *r = reopen(w);
    mem_load(rig.mem, r);
    if (how == LIST_ENDS && lists[_i].index[1] == 6)
        ck_assert_ptr_null(snap_reader_error(r));
    else
        ck_assert_ptr_nonnull(snap_reader_error(r));
    snap_reader_close(r);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mmu: memory");
    TCase *t = tcase_create("memory");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, overlapping_misaligned_and_empty_slots_are_refused);
    tcase_add_test(t, every_error_of_slots_has_a_text_of_its_own);
    tcase_add_test(t, every_change_of_slots_advances_the_generation);
    tcase_add_test(t, bisection_finds_every_page_of_many_slots_and_nothing_between);
    tcase_add_test(t, hva_range_is_found_in_every_slot_that_maps_it);
    tcase_add_test(t, access_crosses_pages_slots_and_devices);
    tcase_add_test(t, device_access_is_split_naturally);
    tcase_add_test(t, rom_reads_directly_and_its_writes_go_to_the_bus);
    tcase_add_test(t, peek_faults_nothing_in_and_reaches_no_device);
    tcase_add_test(t, cached_pointers_die_with_the_frame);
    tcase_add_test(t, a_slot_whose_host_memory_is_gone_reads_as_ones_and_is_a_failure);
    tcase_add_test(t, deleting_a_slot_forgets_cached_pointers);
    tcase_add_test(t, dma_that_reaches_its_own_device_ends);
    tcase_add_test(t, saved_memory_loads_equal_and_pages_not_saved_become_zero);
    tcase_add_test(t, file_with_other_slots_is_refused);
    tcase_add_loop_test(t, hostile_page_list_is_an_error_and_no_more, 0, (int)ARRAY_LEN(lists));
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
