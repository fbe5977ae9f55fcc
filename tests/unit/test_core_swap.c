/* The swap store, and pages that go there and come back. */
#define _GNU_SOURCE /* mkstemp, pwrite */

#include "core/host/swap.h"
#include "core/stats.h"
#include "tests/unit/host_rig.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct swap_store *store;
static char err[300], path[64];

static struct swap_store *make(uint64_t memory, const char *file, uint64_t file_bytes)
{
    struct swap_config cfg = {.memory_bytes = memory, .file = file, .file_bytes = file_bytes};
    return swap_store_create(&cfg, err, sizeof err);
}

static void setup(void)
{
    rig_setup();
    strcpy(path, "swap-test-XXXXXX");
    close(mkstemp(path));
    store = make(16 << 20, NULL, 0);
    ck_assert_msg(store != NULL, "%s", err);
    ck_assert_int_eq(host_mm_set_swap(rig.mm, store), 0);
}

static void teardown(void)
{
    rig_teardown();
    if (store)
        ck_assert_uint_eq(swap_store_counters(store)->slots, 0); /* the mm gave all back */
    swap_store_put(store);
    unlink(path);
}

/* Bytes that do not pack. */
static void fill_noise(uint8_t *p, uint64_t seed)
{
    seed = seed * 2654435761u + 88172645463325252ull;
    for (size_t i = 0; i < PAGE_SIZE; i++)
        p[i] = (uint8_t)(next_random(&seed) >> 32);
}

/* ---- the store ---- */

START_TEST(what_is_stored_is_read_back_whatever_it_packs_to)
{
    uint8_t in[5][PAGE_SIZE], out[PAGE_SIZE];
    uint64_t slot[5];
    memset(in[0], 0, PAGE_SIZE);
    memset(in[1], 0x5a, PAGE_SIZE);
    fill_bytes(in[2], 1);
    fill_noise(in[3], 1);
    memset(in[4], 0, PAGE_SIZE);
    in[4][4095] = 1; /* nearly, but not, all the same */
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(swap_store_write(store, in[i], &slot[i]), HOST_OK);
    ck_assert_uint_eq(swap_store_counters(store)->same_filled, 2);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(swap_store_read(store, slot[i], out), HOST_OK);
        ck_assert_mem_eq(out, in[i], PAGE_SIZE);
    }
    for (int i = 0; i < 5; i++)
        swap_slot_put(store, slot[i]);
    ck_assert_uint_eq(swap_store_counters(store)->memory_bytes, 0);
}
END_TEST

START_TEST(packing_saves_room_and_freeing_gives_memory_back)
{
    enum { N = 2000 };
    static uint64_t slot[N];
    uint8_t in[PAGE_SIZE];
    for (unsigned i = 0; i < N; i++) {
        fill_bytes(in, i);
        ck_assert_int_eq(swap_store_write(store, in, &slot[i]), HOST_OK);
    }
    uint64_t full = swap_store_resident_bytes(store);
    ck_assert_uint_lt(full, N * PAGE_SIZE * 3 / 4);
    ck_assert_uint_ge(full, swap_store_counters(store)->memory_bytes);
    for (unsigned i = 0; i < N; i++)
        swap_slot_put(store, slot[i]);
    ck_assert_uint_eq(swap_store_resident_bytes(store), 0);
}
END_TEST

START_TEST(a_full_store_refuses_and_keeps_what_it_holds)
{
    struct swap_store *small = make(65536, NULL, 0);
    uint8_t in[PAGE_SIZE], out[PAGE_SIZE];
    uint64_t slot[16], none = 77;
    for (unsigned i = 0; i < 16; i++) {
        fill_noise(in, i);
        ck_assert_int_eq(swap_store_write(small, in, &slot[i]), HOST_OK);
    }
    fill_noise(in, 99);
    ck_assert_int_eq(swap_store_write(small, in, &none), HOST_SWAP_FULL);
    ck_assert_uint_eq(none, 77);
    ck_assert_uint_eq(swap_store_counters(small)->refused, 1);
    memset(in, 7, PAGE_SIZE);
    ck_assert_int_eq(swap_store_write(small, in, &none), HOST_OK); /* takes no room */
    for (unsigned i = 0; i < 16; i++) {
        fill_noise(in, i);
        ck_assert_int_eq(swap_store_read(small, slot[i], out), HOST_OK);
        ck_assert_mem_eq(in, out, PAGE_SIZE);
    }
    swap_slot_put(small, slot[3]);
    ck_assert_int_eq(swap_store_write(small, in, &slot[3]), HOST_OK);
    swap_store_put(small);
}
END_TEST

START_TEST(when_memory_is_full_the_oldest_go_to_the_file)
{
    enum { N = 100 };
    struct swap_store *s = make(131072, path, 4 << 20);
    ck_assert_msg(s != NULL, "%s", err);
    uint8_t in[PAGE_SIZE], out[PAGE_SIZE];
    uint64_t slot[N];
    for (unsigned i = 0; i < N; i++) {
        fill_noise(in, i);
        ck_assert_int_eq(swap_store_write(s, in, &slot[i]), HOST_OK);
    }
    ck_assert_uint_eq(swap_store_counters(s)->spilled, N - 32);
    ck_assert_uint_eq(swap_store_counters(s)->memory_bytes, 131072);
    ck_assert_uint_eq(swap_store_counters(s)->file_bytes, (N - 32) * PAGE_SIZE);
    for (unsigned i = 0; i < N; i++) {
        fill_noise(in, i);
        ck_assert_int_eq(swap_store_read(s, slot[i], out), HOST_OK);
        ck_assert_mem_eq(in, out, PAGE_SIZE);
    }
    swap_store_put(s);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 0); /* nothing of the guest's memory stays behind */
}
END_TEST

START_TEST(a_full_file_refuses_and_memory_and_file_stay_whole)
{
    struct swap_store *s = make(65536, path, 65536);
    uint8_t in[PAGE_SIZE], out[PAGE_SIZE];
    uint64_t slot[64];
    unsigned n = 0;
    for (int rc = 0;; n++) {
        fill_noise(in, n);
        rc = swap_store_write(s, in, &slot[n]);
        if (rc) {
            ck_assert_int_eq(rc, HOST_SWAP_FULL);
            break;
        }
    }
    ck_assert_uint_eq(n, 32);
    for (unsigned i = 0; i < n; i++) {
        fill_noise(in, i);
        ck_assert_int_eq(swap_store_read(s, slot[i], out), HOST_OK);
        ck_assert_mem_eq(in, out, PAGE_SIZE);
    }
    swap_store_put(s);
}
END_TEST

START_TEST(a_store_of_mixed_sizes_can_be_filled_and_emptied_again_and_again)
{
    enum { N = 600 };
    struct swap_store *s = make(256 << 10, path, 2 << 20);
    static uint64_t slot[N], seed_of[N];
    static bool used[N];
    uint8_t in[PAGE_SIZE], out[PAGE_SIZE];
    uint64_t r = 12345;
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = next_random(&r) % N;
        if (!used[i]) {
            seed_of[i] = step;
            size_t noisy = next_random(&r) % PAGE_SIZE;
            memset(in, (int)step, PAGE_SIZE);
            for (size_t k = 0; k < noisy; k++)
                in[k] = (uint8_t)(next_random(&r) >> 32);
            used[i] = swap_store_write(s, in, &slot[i]) == HOST_OK;
            if (used[i]) {
                ck_assert_int_eq(swap_store_read(s, slot[i], out), HOST_OK);
                ck_assert_mem_eq(in, out, PAGE_SIZE);
            }
        } else {
            ck_assert_int_eq(swap_store_read(s, slot[i], out), HOST_OK);
            ck_assert_uint_eq(out[PAGE_SIZE - 1], (uint8_t)seed_of[i]);
            swap_slot_put(s, slot[i]);
            used[i] = false;
        }
    }
    for (unsigned i = 0; i < N; i++)
        if (used[i])
            swap_slot_put(s, slot[i]);
    ck_assert_uint_eq(swap_store_counters(s)->slots, 0);
    ck_assert_uint_eq(swap_store_counters(s)->memory_bytes + swap_store_counters(s)->file_bytes, 0);
    ck_assert_uint_eq(swap_store_resident_bytes(s), 0);
    swap_store_put(s);
}
END_TEST

START_TEST(bad_stores_are_refused_with_the_reason)
{
    ck_assert_ptr_null(make(0, NULL, 0));
    ck_assert_ptr_nonnull(strstr(err, "64 KiB"));
    ck_assert_ptr_null(make(0, path, 100));
    ck_assert_ptr_null(make(1 << 20, "/nonexistent/dir/swap", 1 << 20));
    ck_assert_ptr_nonnull(strstr(err, "/nonexistent/dir/swap"));
    ck_assert_ptr_null(make(1 << 20, "/dev/null", 1 << 20));
    ck_assert_ptr_nonnull(strstr(err, "not a regular file"));
    int fd = open(path, O_WRONLY);
    ck_assert_int_eq(write(fd, "my thesis", 9), 9);
    close(fd);
    ck_assert_ptr_null(make(1 << 20, path, 1 << 20));
    ck_assert_ptr_nonnull(strstr(err, "left alone"));
    ck_assert_int_eq(truncate(path, 0), 0);
    struct swap_store *s = make(1 << 20, path, 1 << 20);
    ck_assert_ptr_nonnull(s);
    ck_assert_ptr_null(make(1 << 20, path, 1 << 20));
    ck_assert_ptr_nonnull(strstr(err, "in use"));
    swap_store_put(s);
}
END_TEST

START_TEST(a_damaged_file_is_an_error_and_never_wrong_memory)
{
    struct swap_store *s = make(0, path, 1 << 20);
    uint8_t in[PAGE_SIZE], out[PAGE_SIZE];
    uint64_t packed, plain;
    fill_bytes(in, 5);
    ck_assert_int_eq(swap_store_write(s, in, &packed), HOST_OK);
    fill_noise(in, 5);
    ck_assert_int_eq(swap_store_write(s, in, &plain), HOST_OK);
    int fd = open(path, O_RDWR);
    for (off_t at = 4096 + 300; at < 4096 + 131072; at += 512)
        ck_assert_int_eq(pwrite(fd, "#", 1, at), 1);
    ck_assert_int_eq(swap_store_read(s, packed, out), HOST_IO_ERROR);
    ck_assert_int_eq(swap_store_read(s, plain, out), HOST_IO_ERROR);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    ck_assert_int_eq(swap_store_read(s, plain, out), HOST_IO_ERROR);
    close(fd);
    swap_store_put(s);
}
END_TEST

/* ---- pages of an mm ---- */

START_TEST(swap_out_fires_clear_with_invalidate_range_while_the_frame_lives_and_frees_it)
{
    write_page(rig.mm, page(3), 3);
    rig.watched = rig.got.pfn;
    ck_assert_int_eq(host_mm_swap_out(rig.mm, page(3) + 77), HOST_OK);
    ck_assert_str_eq(rig.seen, "CLEAR start 3-4;inv 3-4;end 3-4;");
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    ck_assert_uint_eq(host_mm_resident(rig.mm), 0);
    ck_assert_int_eq(host_mm_peek(rig.mm, page(3)).state, HPTE_SWAPPED);
    ck_assert_uint_eq(host_mm_peek(rig.mm, page(3)).pfn, PFN_NONE);
    ck_assert_int_eq(host_mm_swap_out(rig.mm, page(3)), HOST_NOTHING);
}
END_TEST

START_TEST(a_read_swaps_the_page_in_read_only_and_tells_nobody)
{
    write_page(rig.mm, page(3), 3);
    host_mm_swap_out(rig.mm, page(3));
    rig.seen[0] = 0;
    page_is(rig.mm, page(3), 3);
    ck_assert(!rig.got.writable);
    ck_assert_str_eq(rig.seen, "");
    ck_assert_uint_eq(swap_store_counters(store)->slots, 0);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->swap_ins, 1);
    pfn_t pfn = rig.got.pfn;
    gup_of(rig.mm, page(3), true);
    ck_assert(rig.got.writable);
    ck_assert_uint_eq(rig.got.pfn, pfn);
    ck_assert_str_eq(rig.seen, "");
}
END_TEST

START_TEST(a_write_swaps_the_page_in_writable_with_its_content)
{
    write_page(rig.mm, page(3), 3);
    host_mm_swap_out(rig.mm, page(3));
    uint8_t want[PAGE_SIZE];
    fill_bytes(want, 3);
    ck_assert_mem_eq(gup_of(rig.mm, page(3), true), want, PAGE_SIZE);
    ck_assert(rig.got.writable);
}
END_TEST

START_TEST(peek_sees_swapped_content_without_swapping_in)
{
    write_page(rig.mm, page(1), 1);
    write_page(rig.mm, page(2), 2);
    host_mm_swap_out(rig.mm, page(1));
    host_mm_swap_out(rig.mm, page(2));
    peek_is(rig.mm, page(1), 1);
    peek_is(rig.mm, page(2), 2);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    ck_assert_uint_eq(swap_store_counters(store)->reads, 0);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->swap_ins, 0);
}
END_TEST

START_TEST(pages_that_are_not_there_or_have_no_store_are_not_swapped)
{
    ck_assert_int_eq(host_mm_swap_out(rig.mm, page(0)), HOST_NOTHING);
    gup_of(rig.mm, page(0), false); /* the zero page */
    ck_assert_int_eq(host_mm_swap_out(rig.mm, page(0)), HOST_NOTHING);
    ck_assert_int_eq(host_mm_swap_out(rig.mm, 0), HOST_NOTHING);
    ck_assert_int_eq(host_mm_swap_in(rig.mm, page(0)), HOST_NOTHING);
    struct host_mm *bare = host_mm_create(rig.pool);
    hva_t hva = host_mm_mmap_anon(bare, PAGE_SIZE, HOST_READ | HOST_WRITE);
    gup_of(bare, hva, true);
    ck_assert_int_eq(host_mm_swap_out(bare, hva), HOST_NO_SWAP);
    ck_assert_int_eq(host_mm_peek(bare, hva).state, HPTE_PRESENT);
    host_mm_destroy(bare);
    ck_assert_int_eq(host_mm_set_swap(rig.mm, store), HOST_DENIED);
}
END_TEST

START_TEST(a_full_store_leaves_the_page_where_it_was)
{
    struct swap_store *small = make(65536, NULL, 0);
    struct host_mm *mm = host_mm_create(rig.pool);
    host_mm_set_swap(mm, small);
    hva_t hva = host_mm_mmap_anon(mm, 40 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    for (unsigned i = 0; i < 40; i++)
        fill_noise(gup_of(mm, hva + i * PAGE_SIZE, true), i);
    unsigned out = 0;
    for (unsigned i = 0; i < 40; i++) {
        int rc = host_mm_swap_out(mm, hva + i * PAGE_SIZE);
        out += !rc;
        if (rc)
            ck_assert_int_eq(rc, HOST_SWAP_FULL);
    }
    ck_assert_uint_eq(out, 16);
    ck_assert_uint_eq(host_mm_counters(mm)->swap_refused, 24);
    uint8_t want[PAGE_SIZE];
    for (unsigned i = 0; i < 40; i++) {
        fill_noise(want, i);
        ck_assert_mem_eq(gup_of(mm, hva + i * PAGE_SIZE, false), want, PAGE_SIZE);
    }
    host_mm_destroy(mm);
    swap_store_put(small);
}
END_TEST

START_TEST(a_page_that_cannot_be_read_back_is_an_error_and_stays_swapped)
{
    struct swap_store *s = make(0, path, 1 << 20);
    struct host_mm *mm = host_mm_create(rig.pool);
    host_mm_set_swap(mm, s);
    hva_t hva = host_mm_mmap_anon(mm, PAGE_SIZE, HOST_READ | HOST_WRITE);
    write_page(mm, hva, 1);
    ck_assert_int_eq(host_mm_swap_out(mm, hva), HOST_OK);
    uint8_t saved[8192], out[PAGE_SIZE];
    int fd = open(path, O_RDWR);
    ssize_t n = pread(fd, saved, sizeof saved, 0);
    ck_assert_int_gt(n, 4096);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    uint64_t used = frame_pool_used(rig.pool);
    ck_assert_int_eq(host_mm_gup(mm, hva, false, &rig.got), HOST_IO_ERROR);
    ck_assert_int_eq(host_mm_peek_read(mm, hva, out), HOST_IO_ERROR);
    ck_assert_int_eq(host_mm_peek(mm, hva).state, HPTE_SWAPPED);
    ck_assert_uint_eq(frame_pool_used(rig.pool), used);
    ck_assert_int_eq(pwrite(fd, saved, (size_t)n, 0), n); /* the disk is well again */
    page_is(mm, hva, 1);
    close(fd);
    host_mm_destroy(mm);
    swap_store_put(s);
}
END_TEST

START_TEST(swap_in_without_frames_is_reported_and_keeps_the_page)
{
    struct frame_pool *two = frame_pool_create(2, err, sizeof err);
    struct host_mm *mm = host_mm_create(two);
    host_mm_set_swap(mm, store);
    hva_t hva = host_mm_mmap_anon(mm, 4 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(host_mm_gup(mm, hva, true, &rig.got), 0);
    fill_bytes(rig.got.ptr, 9);
    ck_assert_int_eq(host_mm_swap_out(mm, hva), HOST_OK);
    ck_assert_int_eq(host_mm_gup(mm, hva + PAGE_SIZE, true, &rig.got), 0);
    ck_assert_int_eq(host_mm_gup(mm, hva + 2 * PAGE_SIZE, true, &rig.got), 0);
    ck_assert_int_eq(host_mm_gup(mm, hva, false, &rig.got), HOST_NO_FRAMES);
    peek_is(mm, hva, 9);
    ck_assert_int_eq(host_mm_dontneed(mm, hva + PAGE_SIZE, PAGE_SIZE), 0);
    ck_assert_int_eq(host_mm_gup(mm, hva, false, &rig.got), 0);
    peek_is(mm, hva, 9);
    host_mm_destroy(mm);
    frame_pool_destroy(two);
}
END_TEST

START_TEST(unmapping_or_giving_back_a_swapped_page_frees_its_slot)
{
    for (unsigned i = 0; i < 4; i++) {
        write_page(rig.mm, page(i), i);
        host_mm_swap_out(rig.mm, page(i));
    }
    ck_assert_uint_eq(swap_store_counters(store)->slots, 4);
    rig.seen[0] = 0;
    ck_assert_int_eq(host_mm_dontneed(rig.mm, page(0), PAGE_SIZE), 0);
    ck_assert_str_eq(rig.seen, "CLEAR start 0-1;end 0-1;"); /* no frame was there */
    ck_assert_int_eq(host_mm_munmap(rig.mm, page(1), PAGE_SIZE), 0);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 2);
    ck_assert_ptr_null(host_mm_peek_content(rig.mm, page(0)));
}
END_TEST

START_TEST(a_swapped_page_keeps_its_protection)
{
    write_page(rig.mm, page(5), 5);
    host_mm_swap_out(rig.mm, page(5));
    ck_assert_int_eq(host_mm_mprotect(rig.mm, page(5), PAGE_SIZE, HOST_READ), 0);
    ck_assert_int_eq(host_mm_gup(rig.mm, page(5), true, &rig.got), HOST_DENIED);
    page_is(rig.mm, page(5), 5);
    host_mm_swap_out(rig.mm, page(5));
    ck_assert_int_eq(host_mm_mprotect(rig.mm, page(5), PAGE_SIZE, 0), 0);
    ck_assert_int_eq(host_mm_gup(rig.mm, page(5), false, &rig.got), HOST_DENIED);
    ck_assert_int_eq(host_mm_swap_in(rig.mm, page(5)), HOST_OK);
    ck_assert(!host_mm_peek(rig.mm, page(5)).readable);
    ck_assert_int_eq(host_mm_gup(rig.mm, page(5), false, &rig.got), HOST_DENIED);
    ck_assert_int_eq(host_mm_mprotect(rig.mm, page(5), PAGE_SIZE, HOST_READ | HOST_WRITE), 0);
    page_is(rig.mm, page(5), 5);
}
END_TEST

START_TEST(swapping_out_gives_memory_back_to_the_operating_system)
{
    hva_t big = host_mm_mmap_anon(rig.mm, 4096 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    for (unsigned i = 0; i < 4096; i++)
        memset(gup_of(rig.mm, big + i * PAGE_SIZE, true), (int)(i | 1), PAGE_SIZE);
    uint64_t full = frame_pool_resident_bytes(rig.pool);
    notifier_unregister(&rig.watcher);
    for (unsigned i = 0; i < 4096; i++)
        ck_assert_int_eq(host_mm_swap_out(rig.mm, big + i * PAGE_SIZE), HOST_OK);
    ck_assert_uint_ge(full - frame_pool_resident_bytes(rig.pool), 4096 * PAGE_SIZE);
    ck_assert_uint_eq(swap_store_resident_bytes(store), 0); /* each repeats one word */
}
END_TEST

START_TEST(counters_are_registered_by_name)
{
    struct stats stats;
    stats_init(&stats);
    host_mm_add_stats(rig.mm, &stats);
    swap_store_add_stats(store, &stats);
    write_page(rig.mm, page(0), 1);
    host_mm_swap_out(rig.mm, page(0));
    bool found;
    ck_assert_uint_eq(stats_get(&stats, "host.swap_outs", &found), 1);
    ck_assert(found);
    ck_assert_uint_eq(stats_get(&stats, "swap.slots", &found), 1);
    ck_assert(found);
    stats_fini(&stats);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/swap");
    TCase *t = tcase_create("swap");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, what_is_stored_is_read_back_whatever_it_packs_to);
    tcase_add_test(t, packing_saves_room_and_freeing_gives_memory_back);
    tcase_add_test(t, a_full_store_refuses_and_keeps_what_it_holds);
    tcase_add_test(t, when_memory_is_full_the_oldest_go_to_the_file);
    tcase_add_test(t, a_full_file_refuses_and_memory_and_file_stay_whole);
    tcase_add_test(t, a_store_of_mixed_sizes_can_be_filled_and_emptied_again_and_again);
    tcase_add_test(t, bad_stores_are_refused_with_the_reason);
    tcase_add_test(t, a_damaged_file_is_an_error_and_never_wrong_memory);
    tcase_add_test(t, swap_out_fires_clear_with_invalidate_range_while_the_frame_lives_and_frees_it);
    tcase_add_test(t, a_read_swaps_the_page_in_read_only_and_tells_nobody);
    tcase_add_test(t, a_write_swaps_the_page_in_writable_with_its_content);
    tcase_add_test(t, peek_sees_swapped_content_without_swapping_in);
    tcase_add_test(t, pages_that_are_not_there_or_have_no_store_are_not_swapped);
    tcase_add_test(t, a_full_store_leaves_the_page_where_it_was);
    tcase_add_test(t, a_page_that_cannot_be_read_back_is_an_error_and_stays_swapped);
    tcase_add_test(t, swap_in_without_frames_is_reported_and_keeps_the_page);
    tcase_add_test(t, unmapping_or_giving_back_a_swapped_page_frees_its_slot);
    tcase_add_test(t, a_swapped_page_keeps_its_protection);
    tcase_add_test(t, swapping_out_gives_memory_back_to_the_operating_system);
    tcase_add_test(t, counters_are_registered_by_name);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
