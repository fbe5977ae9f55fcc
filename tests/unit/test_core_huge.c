/* Huge host pages: faults, collapse, split, and what happens to a part of one. */
#include "core/host/swap.h"
#include "tests/unit/host_rig.h"

#define HUGE_PAGES 512
#define HUGE_SIZE  (HUGE_PAGES * PAGE_SIZE)

static hva_t area; /* 4 MiB, writable */

static void setup(void)
{
    rig_setup();
    area = host_mm_mmap_anon(rig.mm, 2 * HUGE_SIZE, HOST_READ | HOST_WRITE);
    rig.base = area;
}

static void teardown(void)
{
    rig_teardown();
}

static bool is_huge(struct host_mm *mm, hva_t hva)
{
    return host_mm_peek(mm, hva).level > 1;
}

static void make_huge(uint64_t seed)
{
    host_mm_set_huge_faults(rig.mm, 2);
    for (unsigned i = 0; i < HUGE_PAGES; i += 64)
        write_page(rig.mm, page(i), seed + i);
    ck_assert(is_huge(rig.mm, page(0)));
    rig.seen[0] = 0;
}

static void content_is(struct host_mm *mm, hva_t hva, uint64_t seed)
{
    for (unsigned i = 0; i < HUGE_PAGES; i += 64)
        peek_is(mm, hva + i * PAGE_SIZE, seed + i);
    const uint8_t *zeros = host_mm_peek_content(mm, hva + PAGE_SIZE); /* NULL: known to be */
    ck_assert(!zeros || !*zeros);
}

START_TEST(a_write_to_an_untouched_2_mib_range_is_answered_with_one_aligned_run)
{
    host_mm_set_huge_faults(rig.mm, 2);
    gup_of(rig.mm, page(77), true);
    ck_assert(rig.got.level > 1 && rig.got.writable);
    ck_assert_uint_eq((rig.got.pfn - 77) % HUGE_PAGES, 0);
    pfn_t run = rig.got.pfn - 77;
    for (unsigned i = 0; i < HUGE_PAGES; i++) {
        struct hpte_info info = host_mm_peek(rig.mm, page(i));
        ck_assert_uint_eq(info.pfn, run + i);
        ck_assert(info.level > 1 && info.writable && info.dirty);
    }
    ck_assert_uint_eq(host_mm_resident(rig.mm), HUGE_PAGES);
    ck_assert_str_eq(rig.seen, "");
    ck_assert_uint_eq(host_mm_counters(rig.mm)->huge_faults, 1);
}
END_TEST

START_TEST(no_huge_page_where_something_is_or_the_mapping_ends_or_the_limit_forbids)
{
    host_mm_set_huge_faults(rig.mm, 2);
    gup_of(rig.mm, page(5), false);
    gup_of(rig.mm, page(6), true);
    ck_assert(rig.got.level == 1);
    ck_assert_int_eq(host_mm_munmap(rig.mm, page(1023), PAGE_SIZE), 0);
    gup_of(rig.mm, page(600), true);
    ck_assert(rig.got.level == 1);
    hva_t other = host_mm_mmap_anon(rig.mm, HUGE_SIZE, HOST_READ | HOST_WRITE);
    host_mm_set_limit(rig.mm, 256);
    gup_of(rig.mm, other, true);
    ck_assert(rig.got.level == 1);
}
END_TEST

START_TEST(collapse_keeps_the_content_and_announces_the_whole_range)
{
    for (unsigned i = 0; i < HUGE_PAGES; i += 64)
        write_page(rig.mm, page(i), i);
    gup_of(rig.mm, page(1), false); /* a zero page among them */
    rig.watched = host_mm_peek(rig.mm, page(64)).pfn;
    rig.seen[0] = 0;
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(100)), HOST_OK);
    ck_assert_str_eq(rig.seen, "CLEAR start 0-512;inv 0-512;end 0-512;");
    ck_assert_uint_eq(frame_pool_refs(rig.pool, rig.watched), 0);
    content_is(rig.mm, area, 0);
    ck_assert_uint_eq(host_mm_resident(rig.mm), HUGE_PAGES);
    ck_assert_uint_eq(frame_pool_used(rig.pool), HUGE_PAGES);
    gup_of(rig.mm, page(3), true);
    ck_assert(rig.got.level > 1 && rig.got.writable);
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(0)), HOST_NOTHING);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->collapses, 1);
}
END_TEST

START_TEST(collapse_brings_swapped_pages_in)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 8 << 20};
    struct swap_store *store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(rig.mm, store);
    for (unsigned i = 0; i < HUGE_PAGES; i += 64)
        write_page(rig.mm, page(i), i);
    for (unsigned i = 0; i < HUGE_PAGES - 64; i += 64)
        ck_assert_int_eq(host_mm_swap_out(rig.mm, page(i)), HOST_OK);
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(0)), HOST_OK);
    content_is(rig.mm, area, 0);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 0);
    swap_store_put(store);
}
END_TEST

START_TEST(collapse_of_shared_pages_copies_them)
{
    for (unsigned i = 0; i < HUGE_PAGES; i += 64)
        write_page(rig.mm, page(i), i);
    struct host_mm *child = host_mm_fork(rig.mm);
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(0)), HOST_OK);
    write_page(rig.mm, page(64), 1000);
    peek_is(child, page(64), 64);
    peek_is(rig.mm, page(64), 1000);
    host_mm_destroy(child);
}
END_TEST

START_TEST(collapse_is_refused_where_it_cannot_be)
{
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(0)), HOST_NOTHING); /* nothing there */
    gup_of(rig.mm, page(0), false);
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(0)), HOST_NOTHING); /* the zero page only */
    ck_assert_int_eq(host_mm_collapse(rig.mm, 0), HOST_DENIED);
    gup_of(rig.mm, page(600), true);
    ck_assert_int_eq(host_mm_munmap(rig.mm, page(900), PAGE_SIZE), 0);
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(600)), HOST_DENIED); /* a hole */
    char err[200];
    struct frame_pool *small = frame_pool_create(600, err, sizeof err);
    struct host_mm *mm = host_mm_create(small);
    hva_t hva = host_mm_mmap_anon(mm, HUGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(host_mm_gup(mm, hva, true, &rig.got), 0);
    ck_assert_int_eq(host_mm_collapse(mm, hva), HOST_NO_FRAMES);
    ck_assert_uint_eq(frame_pool_used(small), 1);
    host_mm_destroy(mm);
    frame_pool_destroy(small);
}
END_TEST

START_TEST(a_split_fires_start_and_end_only_since_no_frame_changes)
{
    make_huge(0);
    pfn_t run = host_mm_peek(rig.mm, page(0)).pfn;
    ck_assert_int_eq(host_mm_split(rig.mm, page(9)), HOST_OK);
    ck_assert_str_eq(rig.seen, "CLEAR start 0-512;end 0-512;");
    for (unsigned i = 0; i < HUGE_PAGES; i++)
        ck_assert_uint_eq(host_mm_peek(rig.mm, page(i)).pfn, run + i);
    content_is(rig.mm, area, 0);
    ck_assert(!is_huge(rig.mm, page(0)));
    ck_assert_int_eq(host_mm_split(rig.mm, page(9)), HOST_NOTHING);
    ck_assert_int_eq(host_mm_collapse(rig.mm, page(9)), HOST_OK);
    content_is(rig.mm, area, 0);
}
END_TEST

START_TEST(an_operation_on_a_part_splits_first_inside_its_own_range)
{
    make_huge(0);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, page(64), PAGE_SIZE), 0);
    ck_assert_str_eq(rig.seen, "CLEAR start 64-65;CLEAR start 0-512;end 0-512;inv 64-65;end 64-65;");
    ck_assert(!is_huge(rig.mm, page(0)));
    ck_assert_ptr_null(host_mm_peek_content(rig.mm, page(64)));
    peek_is(rig.mm, page(128), 128);
    ck_assert_uint_eq(frame_pool_used(rig.pool), HUGE_PAGES - 1);
}
END_TEST

START_TEST(mprotect_of_the_whole_keeps_it_huge_and_of_a_part_splits_it)
{
    make_huge(0);
    ck_assert_int_eq(host_mm_mprotect(rig.mm, area, HUGE_SIZE, HOST_READ), 0);
    ck_assert_str_eq(rig.seen, "PROT start 0-512;end 0-512;");
    gup_of(rig.mm, page(0), false);
    ck_assert(rig.got.level > 1 && !rig.got.writable);
    ck_assert_int_eq(host_mm_mprotect(rig.mm, area, HUGE_SIZE, HOST_READ | HOST_WRITE), 0);
    gup_of(rig.mm, page(0), true);
    ck_assert(rig.got.level > 1 && rig.got.writable);
    ck_assert(host_mm_peek(rig.mm, page(400)).writable); /* all of it, as one mapping */
    ck_assert_int_eq(host_mm_mprotect(rig.mm, page(3), PAGE_SIZE, HOST_READ), 0);
    ck_assert(!is_huge(rig.mm, page(0)));
    content_is(rig.mm, area, 0);
}
END_TEST

START_TEST(fork_shares_a_huge_page_and_a_write_splits_the_writers_side_only)
{
    make_huge(0);
    struct host_mm *child = host_mm_fork(rig.mm);
    ck_assert(is_huge(rig.mm, page(0)) && is_huge(child, page(0)));
    ck_assert_uint_eq(frame_pool_used(rig.pool), HUGE_PAGES);
    rig.seen[0] = 0;
    write_page(rig.mm, page(64), 5000);
    ck_assert_str_eq(rig.seen, "CLEAR start 0-512;end 0-512;CLEAR start 64-65;inv 64-65;end 64-65;");
    ck_assert(rig.got.level == 1 && !is_huge(rig.mm, page(0)) && is_huge(child, page(0)));
    content_is(child, area, 0);
    ck_assert_uint_eq(frame_pool_used(rig.pool), HUGE_PAGES + 1);
    host_mm_destroy(child);
    peek_is(rig.mm, page(64), 5000);
    ck_assert_uint_eq(frame_pool_used(rig.pool), HUGE_PAGES);
}
END_TEST

START_TEST(the_last_owner_of_a_shared_huge_page_writes_it_as_it_is)
{
    make_huge(0);
    struct host_mm *child = host_mm_fork(rig.mm);
    host_mm_destroy(child);
    rig.seen[0] = 0;
    gup_of(rig.mm, page(100), true);
    ck_assert(rig.got.level > 1 && rig.got.writable);
    ck_assert_str_eq(rig.seen, "");
    ck_assert_uint_eq(host_mm_counters(rig.mm)->splits, 0);
}
END_TEST

START_TEST(unmapping_a_huge_page_frees_its_run_for_another)
{
    char err[200];
    struct frame_pool *small = frame_pool_create(HUGE_PAGES, err, sizeof err);
    struct host_mm *mm = host_mm_create(small);
    host_mm_set_huge_faults(mm, 2);
    for (unsigned i = 0; i < 3; i++) {
        hva_t hva = host_mm_mmap_anon(mm, HUGE_SIZE, HOST_READ | HOST_WRITE);
        ck_assert_int_eq(host_mm_gup(mm, hva, true, &rig.got), 0);
        ck_assert(rig.got.level > 1);
        memset(rig.got.ptr, 1, PAGE_SIZE);
        ck_assert_uint_gt(frame_pool_resident_bytes(small), 0);
        ck_assert_int_eq(host_mm_munmap(mm, hva, HUGE_SIZE), 0);
        ck_assert_uint_eq(frame_pool_used(small), 0);
        ck_assert_uint_eq(frame_pool_resident_bytes(small), 0);
    }
    host_mm_destroy(mm);
    frame_pool_destroy(small);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/huge");
    TCase *t = tcase_create("huge");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_write_to_an_untouched_2_mib_range_is_answered_with_one_aligned_run);
    tcase_add_test(t, no_huge_page_where_something_is_or_the_mapping_ends_or_the_limit_forbids);
    tcase_add_test(t, collapse_keeps_the_content_and_announces_the_whole_range);
    tcase_add_test(t, collapse_brings_swapped_pages_in);
    tcase_add_test(t, collapse_of_shared_pages_copies_them);
    tcase_add_test(t, collapse_is_refused_where_it_cannot_be);
    tcase_add_test(t, a_split_fires_start_and_end_only_since_no_frame_changes);
    tcase_add_test(t, an_operation_on_a_part_splits_first_inside_its_own_range);
    tcase_add_test(t, mprotect_of_the_whole_keeps_it_huge_and_of_a_part_splits_it);
    tcase_add_test(t, fork_shares_a_huge_page_and_a_write_splits_the_writers_side_only);
    tcase_add_test(t, the_last_owner_of_a_shared_huge_page_writes_it_as_it_is);
    tcase_add_test(t, unmapping_a_huge_page_frees_its_run_for_another);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
