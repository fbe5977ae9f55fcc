/*
 * DMA maps over a machine's memory: what their pointers survive, what they do not, and that no byte goes astray.
 */
#include "core/dma_map.h"
#include "core/host/chaos.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "core/trace.h"
#include "mmu_rig.h"

#include <pthread.h>
#include <unistd.h>

#define RAM  (4ull << 20)
#define RING 0x5010ull
#define LEN  0x3000ull /* four pages, the first and the last in part */

static struct rig rig;
static struct rig *const r = &rig;
static struct guest_memory memory;
static struct dma_map map;
static struct ksm *ksm;

static void setup(void)
{
    char err[200] = "";
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM});
    struct swap_store *swap = swap_store_create(&(struct swap_config){.memory_bytes = RAM}, err, sizeof err);
    ck_assert_int_eq(host_mm_set_swap(r->mm, swap), HOST_OK);
    swap_store_put(swap);
    ksm = ksm_create(r->pool);
    ksm_add(ksm, r->mm);
    host_mm_set_mergeable(r->mm, r->hva, RAM, true);
    mem_hook(r->mem, &memory);
    dma_map_init(&map, &memory);
}

static void teardown(void)
{
    dma_map_fini(&map);
    rig_close(r);
    ksm_destroy(ksm);
}

static void put(uint64_t offset, uint64_t value)
{
    ck_assert_int_eq(dma_map_write(&map, offset, &value, 8), MEM_OK);
}

static uint64_t get(uint64_t offset)
{
    uint64_t value = 0;
    ck_assert_int_eq(dma_map_read(&map, offset, &value, 8), MEM_OK);
    return value;
}

START_TEST(ring_is_mapped_once_and_then_used_by_its_pointers)
{
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    for (uint64_t i = 0; i < LEN / 8; i++)
        put(8 * i, i);
    for (uint64_t i = 0; i < LEN / 8; i++) {
        ck_assert_uint_eq(rig_get(r, RING + 8 * i), i);
        rig_put(r, RING + 8 * i, 1000 + i); /* the guest's answer */
        ck_assert_uint_eq(get(8 * i), 1000 + i);
    }
    ck_assert_uint_eq(map.counters.fills, 4);
    void *p = dma_map_begin(&map, 0xff0, 8);
    ck_assert_ptr_eq(p, frame_pool_ptr(r->pool, host_mm_peek(r->mm, r->hva + 0x6000).pfn));
    dma_map_end(&map, 0xff0, 0);
    ck_assert(dma_map_set(&map, 0, RING, LEN, true)); /* the same: nothing happens */
    ck_assert_uint_eq(get(0), 1000);
    ck_assert_uint_eq(map.counters.fills, 4);
}
END_TEST

static void do_migrate(hva_t hva)
{
    host_mm_migrate(r->mm, hva);
}

static void do_swap_out(hva_t hva)
{
    ck_assert_int_eq(host_mm_swap_out(r->mm, hva), HOST_OK);
}

static void do_protect(hva_t hva)
{
    host_mm_mprotect(r->mm, hva, PAGE_SIZE, HOST_READ);
    host_mm_mprotect(r->mm, hva, PAGE_SIZE, HOST_READ | HOST_WRITE);
}

static void do_merge(hva_t hva)
{
    rig_put(r, 0x100000, rig_get(r, hva - r->hva));
    ck_assert_int_eq(ksm_merge(ksm, r->mm, hva, r->mm, r->hva + 0x100000), HOST_OK);
}

START_TEST(every_change_in_the_range_takes_that_page_and_no_other)
{
    void (*const change[])(hva_t) = {do_migrate, do_swap_out, do_protect, do_merge};
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    for (uint64_t i = 0; i < 4; i++)
        put(0xff0 * i, 0);
    for (unsigned i = 0; i < ARRAY_LEN(change); i++) {
        struct dma_map_counters was = map.counters;
        put(0xff0, 0); /* the second page; all of it zeros */
        change[i](r->hva + 0x6000);
        ck_assert_msg(map.counters.invalidations > was.invalidations, "change %u was not heard", i);
        put(0x20, i);
        ck_assert_uint_eq(map.counters.fills, was.fills);
        put(0xff0, 100 + i);
        ck_assert_uint_eq(map.counters.fills, was.fills + 1);
        ck_assert_uint_eq(rig_get(r, 0x6000), 100 + i);
        if (change[i] == do_merge)
            ck_assert_uint_eq(rig_get(r, 0x100000), 0); /* the page that it shared a frame with */
    }
    uint64_t invalidations = map.counters.invalidations;
    do_swap_out(r->hva + 0x100000); /* outside */
    do_migrate(r->hva + 0x4000);
    ck_assert_uint_eq(map.counters.invalidations, invalidations);
}
END_TEST

START_TEST(write_after_a_fork_stays_the_devices)
{
    uint64_t child_sees[512];
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    put(0, 1);
    struct host_mm *child = host_mm_fork(r->mm);
    put(0, 2);
    ck_assert_int_eq(host_mm_peek_read(child, r->hva + 0x5000, child_sees), HOST_OK);
    ck_assert_uint_eq(child_sees[2], 1);
    ck_assert_uint_eq(rig_get(r, RING), 2);
    host_mm_destroy(child);
}
END_TEST

START_TEST(read_only_map_breaks_no_shared_page_and_may_show_rom)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, RAM, PAGE_SIZE, r->hva + RAM, MEMSLOT_ROM), 0);
    ck_assert(!dma_map_set(&map, 0, RAM, 16, true));
    ck_assert(dma_map_set(&map, 0, RAM, 16, false));
    ck_assert_uint_eq(get(0), 0);
    ck_assert(dma_map_set(&map, 0, 0x200000, 16, false));
    ck_assert_uint_eq(get(0), 0);
    ck_assert_int_eq(host_mm_peek(r->mm, r->hva + 0x200000).state, HPTE_ZERO);
    put(0, 5); /* through the hook */
    ck_assert_uint_eq(get(0), 5);
}
END_TEST

START_TEST(what_cannot_be_mapped_is_reached_through_the_hook)
{
    uint64_t value = 7;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, RAM, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    ck_assert(!dma_map_set(&map, 0, RAM - 8, 16, true)); /* two slots */
    ck_assert_int_eq(dma_map_write(&map, 8, &value, 8), MEM_OK);
    ck_assert_uint_eq(rig_get(r, RAM), 7);
    ck_assert(!dma_map_set(&map, 0, 1ull << 40, 16, true)); /* nothing there */
    ck_assert_uint_eq(get(0), ~0ull);
    ck_assert(!dma_map_set(&map, 0, ~0ull - 7, 16, true));
    ck_assert(!dma_map_set(&map, 0, 0, 0, true));
    ck_assert(!dma_map_set(&map, 0, 0, DMA_MAP_MAX + 1, true));
    ck_assert(!dma_map_set(&map, 7, 0, 8, true));
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    ck_assert_int_eq(dma_map_read(&map, LEN - 4, &value, 8), MEM_DEVICE); /* behind the end */
    ck_assert_int_eq(dma_map_read(&map, ~0ull, &value, 8), MEM_DEVICE);
    ck_assert_ptr_null(dma_map_begin(&map, 0xfec, 8)); /* over a page border: copied, not pointed to */
    put(0xfec, 0x1122334455667788);
    ck_assert_uint_eq(get(0xfec), 0x1122334455667788);
}
END_TEST

START_TEST(slot_that_moves_takes_the_map_along)
{
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    put(0, 1);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, 0, 0x1000000), 0);
    ck_assert_uint_eq(get(0), ~0ull);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    put(0, 2);
    ck_assert_uint_eq(rig_get(r, RING), 2);
    ck_assert_uint_eq(rig_get(r, 0x1000000 + RING), 1);
}
END_TEST

START_TEST(page_that_the_host_keeps_from_writing_is_refused_and_comes_back)
{
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    put(0, 1);
    host_mm_mprotect(r->mm, r->hva + 0x5000, PAGE_SIZE, HOST_READ);
    ck_assert_ptr_null(dma_map_begin(&map, 0, 8));
    host_mm_mprotect(r->mm, r->hva + 0x5000, PAGE_SIZE, HOST_READ | HOST_WRITE);
    put(0, 3);
    ck_assert_uint_eq(rig_get(r, RING), 3);
}
END_TEST

START_TEST(device_write_into_a_page_table_is_seen_by_the_shadow)
{
    rig_map(r, 0x40000000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, 0x40000000, ACCESS_READ, 0x10000);
    ck_assert(dma_map_set(&map, 0, 0x4000, PAGE_SIZE, true));
    put(0, 0x11000 | PTE_ALL);
    rig_expect(r, 0x40000000, ACCESS_READ, 0x11000);
}
END_TEST

/* ---- who waits ---- */

static struct notify_range range_of_ring(unsigned flags)
{
    return (struct notify_range){
        .mm = r->mm, .start = r->hva + 0x5000, .end = r->hva + 0x6000, .event = NOTIFY_CLEAR, .flags = flags};
}

static bool refused;

static void *invalidate_unblockably(void *arg)
{
    struct notify_range range = range_of_ring(0);
    refused = notify_invalidate_range_start(&range) != 0;
    if (!refused)
        notify_invalidate_range_end(&range);
    return NULL;
}

START_TEST(invalidation_that_may_not_wait_is_refused_while_the_map_is_in_use)
{
    pthread_t t;
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    ck_assert_ptr_nonnull(dma_map_begin(&map, 0, 8));
    pthread_create(&t, NULL, invalidate_unblockably, NULL);
    pthread_join(t, NULL);
    ck_assert(refused);
    dma_map_end(&map, 0, 0);
    invalidate_unblockably(NULL);
    ck_assert(!refused);
}
END_TEST

START_TEST(frame_that_is_taken_back_while_it_is_got_is_not_used)
{
    struct rig_taker t;
    rig_taker_begin(&t, r, 2);
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    put(0, 9);
    ck_assert_uint_eq(map.counters.retries, 2);
    ck_assert_uint_eq(rig_get(r, RING), 9);
    rig_taker_end(&t);
}
END_TEST

/* KSM takes a checksum of a page before it write-protects and compares it; a thread sanitizer sees only the first. */
#ifdef __SANITIZE_THREAD__
#define RACE_OPS "swap+cow+migrate+mprotect+huge+age"
#else
#define RACE_OPS "swap+ksm+cow+migrate+mprotect+huge+age"
#endif
#define EVENTS 3000

static bool host_done; /* atomic */

/* Goes on until enough events met the map; how many do depends on how the threads take turns. The count is this
 * thread's own: its events are what invalidates. */
static void *host_main(void *arg)
{
    for (unsigned i = 0; i < EVENTS || (map.counters.invalidations <= 100 && i < 100 * EVENTS); i++)
        host_chaos_run_one(arg);
    __atomic_store_n(&host_done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* A ring of counters: each round reads one back, checks it and counts it up. */
START_TEST(ring_keeps_every_write_whatever_another_thread_does_to_the_host)
{
    static uint64_t expected[LEN / 8];
    struct host_chaos_config cfg;
    char why[200] = "", ops[80];
    pthread_t host;
    snprintf(ops, sizeof ops, "seed=3,rate=1000,ops=%s", RACE_OPS);
    ck_assert_msg(host_chaos_parse(ops, &cfg, why, sizeof why), "%s", why);
    struct host_chaos *chaos = host_chaos_create(r->mm, ksm, &cfg);
    memset(expected, 0, sizeof expected);
    ck_assert(dma_map_set(&map, 0, RING, LEN, true));
    pthread_create(&host, NULL, host_main, chaos);
    for (uint64_t i = 0; !__atomic_load_n(&host_done, __ATOMIC_ACQUIRE); i++) {
        uint64_t slot = i * 67 % ARRAY_LEN(expected), *p = dma_map_begin(&map, 8 * slot, 8);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq(*p, expected[slot]);
        expected[slot] = ++*p;
        dma_map_end(&map, 8 * slot, 8);
    }
    pthread_join(host, NULL);
    for (uint64_t i = 0; i < ARRAY_LEN(expected); i++)
        ck_assert_uint_eq(rig_get(r, RING + 8 * i), expected[i]);
    ck_assert_uint_gt(map.counters.invalidations, 100);
    host_chaos_destroy(chaos);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        ring_is_mapped_once_and_then_used_by_its_pointers,
        every_change_in_the_range_takes_that_page_and_no_other,
        write_after_a_fork_stays_the_devices,
        read_only_map_breaks_no_shared_page_and_may_show_rom,
        what_cannot_be_mapped_is_reached_through_the_hook,
        slot_that_moves_takes_the_map_along,
        page_that_the_host_keeps_from_writing_is_refused_and_comes_back,
        device_write_into_a_page_table_is_seen_by_the_shadow,
        invalidation_that_may_not_wait_is_refused_while_the_map_is_in_use,
        frame_that_is_taken_back_while_it_is_got_is_not_used,
        ring_keeps_every_write_whatever_another_thread_does_to_the_host,
    };
    return suite_of_case("mmu: DMA maps", "maps", tests, ARRAY_LEN(tests), setup, teardown, 120);
}

CHECK_MAIN(suite)
