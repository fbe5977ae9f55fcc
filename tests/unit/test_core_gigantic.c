/* Gigantic host pages: 1 GiB in one mapping, and how each operation on a part takes it apart. */
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "tests/unit/host_rig.h"

#define GIB        (1ull << 30)
#define HUGE_PAGES 512
#define GIB_PAGES  (HUGE_PAGES * HUGE_PAGES)

static struct frame_pool *pool; /* two GiB and a bit */
static struct host_mm *mm;
static hva_t area; /* two GiB, writable */

static void setup(void)
{
    char err[200];
    rig_setup();
    pool = frame_pool_create(2 * GIB_PAGES + 4096, err, sizeof err);
    ck_assert_msg(pool != NULL, "%s", err);
    mm = host_mm_create(pool);
    area = host_mm_mmap_anon(mm, 2 * GIB, HOST_READ | HOST_WRITE);
    host_mm_set_huge_faults(mm, 3);
}

static void teardown(void)
{
    host_mm_destroy(mm);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    frame_pool_destroy(pool);
    rig_teardown();
}

static hva_t at(uint64_t i)
{
    return area + i * PAGE_SIZE;
}

static int level(uint64_t i)
{
    return host_mm_peek(mm, at(i)).level;
}

static void fill(struct host_mm *to, uint64_t i, uint64_t seed)
{
    struct gup_result g;
    ck_assert_int_eq(host_mm_gup(to, at(i), true, &g), HOST_OK);
    ck_assert(g.writable);
    fill_bytes(g.ptr, seed);
}

/* Pages all over the first GiB. */
static const uint64_t places[] = {0, 1, 511, 512, 70000, 131072, 200001, GIB_PAGES - 1};

static void fill_all(void)
{
    for (unsigned k = 0; k < ARRAY_LEN(places); k++)
        fill(mm, places[k], places[k]);
    ck_assert_int_eq(level(0), 3);
}

static void all_is(struct host_mm *of)
{
    for (unsigned k = 0; k < ARRAY_LEN(places); k++)
        peek_is(of, at(places[k]), places[k]);
}

/* The chunk of page `i` is small, the rest of the GiB huge. */
static void split_at(uint64_t i)
{
    ck_assert_int_eq(level(i), 1);
    ck_assert_int_eq(level(i ^ 512), 2);
    ck_assert_int_eq(level(i ^ 131072), 2);
}

START_TEST(a_write_to_an_untouched_gib_is_answered_with_one_aligned_run_that_costs_no_memory)
{
    struct gup_result g;
    ck_assert_uint_eq(area % GIB, 0);
    ck_assert_int_eq(host_mm_gup(mm, at(70000), true, &g), HOST_OK);
    ck_assert_int_eq(g.level, 3);
    ck_assert_uint_eq((g.pfn - 70000) % GIB_PAGES, 0);
    for (uint64_t i = 0; i < GIB_PAGES; i += 511) {
        struct hpte_info info = host_mm_peek(mm, at(i));
        ck_assert_uint_eq(info.pfn, g.pfn - 70000 + i);
        ck_assert(info.level == 3 && info.writable && info.dirty);
    }
    ck_assert_int_eq(level(GIB_PAGES), 1);
    ck_assert_uint_eq(host_mm_resident(mm), GIB_PAGES);
    ck_assert_uint_eq(host_mm_counters(mm)->gigantic_faults, 1);
    fill(mm, 70000, 70000);
    ck_assert_uint_le(frame_pool_resident_bytes(pool), 2 << 20);
}
END_TEST

START_TEST(looking_at_what_was_never_touched_gives_it_no_memory)
{
    uint8_t buf[PAGE_SIZE];
    fill(mm, 5, 5);
    uint64_t before = frame_pool_resident_bytes(pool);
    for (uint64_t i = 1000; i < 9000; i++) {
        ck_assert_ptr_null(host_mm_peek_content(mm, at(i)));
        ck_assert_int_eq(host_mm_peek_read(mm, at(i), buf), HOST_OK);
        ck_assert_uint_eq(buf[77], 0);
    }
    ck_assert_uint_eq(frame_pool_resident_bytes(pool), before);
    peek_is(mm, at(5), 5);
}
END_TEST

START_TEST(no_gigantic_page_where_something_is_or_the_limit_or_the_setting_forbids)
{
    struct gup_result g;
    ck_assert_int_eq(host_mm_gup(mm, at(3), false, &g), HOST_OK); /* the zero page */
    fill(mm, 70000, 1);
    ck_assert_int_eq(level(70000), 2);
    ck_assert_int_eq(host_mm_set_limit(mm, GIB_PAGES), HOST_OK);
    fill(mm, GIB_PAGES + 7, 1);
    ck_assert_int_eq(level(GIB_PAGES + 7), 2);
    host_mm_set_limit(mm, 0);
    host_mm_dontneed(mm, area, 2 * GIB);
    host_mm_set_huge_faults(mm, 2);
    fill(mm, 0, 1);
    ck_assert_int_eq(level(0), 2);
    hva_t small = host_mm_mmap_anon(mm, GIB / 2, HOST_READ | HOST_WRITE);
    host_mm_set_huge_faults(mm, 3);
    ck_assert_int_eq(host_mm_gup(mm, small, true, &g), HOST_OK);
    ck_assert_int_eq(g.level, 2);
}
END_TEST

START_TEST(a_pool_without_an_aligned_gib_gives_huge_pages)
{
    pfn_t a = frame_pool_alloc_run(pool, FRAMES_GIGANTIC), b = frame_pool_alloc(pool);
    ck_assert_uint_eq(a, 0);
    ck_assert_uint_eq(b, GIB_PAGES);
    ck_assert_uint_eq(frame_pool_alloc_run(pool, FRAMES_GIGANTIC), PFN_NONE);
    fill(mm, 0, 1);
    ck_assert_int_eq(level(0), 2);
    for (uint64_t i = 0; i < GIB_PAGES; i++)
        frame_pool_put(pool, i);
    frame_pool_put(pool, b);
}
END_TEST

START_TEST(a_split_goes_one_level_at_a_time_and_moves_no_frame)
{
    fill_all();
    pfn_t run = host_mm_peek(mm, area).pfn;
    ck_assert_int_eq(host_mm_split(mm, at(70000)), HOST_OK);
    ck_assert_int_eq(level(0), 2);
    ck_assert_int_eq(level(GIB_PAGES - 1), 2);
    ck_assert_int_eq(host_mm_split(mm, at(70000)), HOST_OK);
    split_at(70000);
    ck_assert_int_eq(host_mm_split(mm, at(70000)), HOST_NOTHING);
    ck_assert_uint_eq(host_mm_peek(mm, at(GIB_PAGES - 1)).pfn, run + GIB_PAGES - 1);
    all_is(mm);
}
END_TEST

START_TEST(what_a_split_left_is_put_together_again_without_a_copy)
{
    fill_all();
    pfn_t run = host_mm_peek(mm, area).pfn;
    host_mm_split(mm, at(70000));
    host_mm_split(mm, at(70000));
    uint64_t memory = frame_pool_resident_bytes(pool);
    ck_assert_int_eq(host_mm_collapse_gigantic(mm, at(1)), HOST_OK);
    ck_assert_int_eq(level(70000), 3);
    ck_assert_uint_eq(host_mm_peek(mm, area).pfn, run);
    ck_assert_uint_eq(frame_pool_resident_bytes(pool), memory);
    ck_assert_int_eq(host_mm_collapse_gigantic(mm, at(1)), HOST_NOTHING);
    all_is(mm);
}
END_TEST

START_TEST(scattered_pages_are_copied_into_a_gigantic_one)
{
    host_mm_set_huge_faults(mm, 1);
    for (unsigned k = 0; k < ARRAY_LEN(places); k++)
        fill(mm, places[k], places[k]);
    struct host_mm *child = host_mm_fork(mm);
    ck_assert_int_eq(host_mm_collapse_gigantic(mm, area), HOST_OK);
    ck_assert_int_eq(level(GIB_PAGES - 1), 3);
    all_is(mm);
    fill(mm, 1, 99);
    all_is(child);
    host_mm_destroy(child);
    ck_assert_uint_eq(frame_pool_used(pool), GIB_PAGES);
    ck_assert_int_eq(host_mm_collapse_gigantic(mm, area + GIB), HOST_NOTHING); /* nothing there */
    ck_assert_int_eq(host_mm_collapse_gigantic(mm, 0), HOST_DENIED);
}
END_TEST

START_TEST(unmapping_a_part_splits_and_the_whole_frees_the_run)
{
    fill_all();
    ck_assert_int_eq(host_mm_dontneed(mm, at(70000), PAGE_SIZE), 0);
    split_at(70000);
    ck_assert_uint_eq(host_mm_resident(mm), GIB_PAGES - 1);
    ck_assert_ptr_null(host_mm_peek_content(mm, at(70000)));
    peek_is(mm, at(131072), 131072);
    ck_assert_int_eq(host_mm_dontneed(mm, area, GIB), 0);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    ck_assert_uint_eq(frame_pool_resident_bytes(pool), 0);
    fill_all(); /* and there is a run again */
}
END_TEST

START_TEST(mprotect_of_the_whole_keeps_it_and_of_a_part_splits_it)
{
    fill_all();
    ck_assert_int_eq(host_mm_mprotect(mm, area, GIB, HOST_READ), 0);
    ck_assert_int_eq(level(5), 3);
    ck_assert_int_eq(host_mm_mprotect(mm, area, GIB, HOST_READ | HOST_WRITE), 0);
    ck_assert(!host_mm_peek(mm, at(5)).writable);
    fill(mm, 70000, 70000); /* the write fault: huge pages from here on, of which one is writable */
    ck_assert_int_eq(level(70000), 2);
    ck_assert(host_mm_peek(mm, at(70001)).writable && !host_mm_peek(mm, at(5)).writable);
    ck_assert_int_eq(host_mm_collapse_gigantic(mm, area), HOST_OK);
    ck_assert(host_mm_peek(mm, at(5)).writable && level(5) == 3);
    ck_assert_int_eq(host_mm_mprotect(mm, at(3), PAGE_SIZE, HOST_READ), 0);
    split_at(3);
    all_is(mm);
}
END_TEST

START_TEST(a_fork_shares_it_and_the_first_write_copies_one_page)
{
    fill_all();
    struct host_mm *child = host_mm_fork(mm);
    ck_assert(level(0) == 3 && host_mm_peek(child, area).level == 3);
    fill(child, 70000, 1);
    ck_assert_int_eq(level(0), 3);
    ck_assert_int_eq(host_mm_peek(child, at(70000)).level, 1);
    ck_assert_int_eq(host_mm_peek(child, at(0)).level, 2);
    all_is(mm);
    ck_assert_uint_eq(frame_pool_used(pool), GIB_PAGES + 1);
    fill(mm, 511, 511); /* the parent's side comes apart as well */
    ck_assert_int_eq(level(511), 1);
    peek_is(child, at(511), 511);
    host_mm_destroy(child);
    all_is(mm);
}
END_TEST

START_TEST(swap_merging_migration_and_soft_dirty_take_one_page_out_of_it)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 1 << 20};
    struct swap_store *store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(mm, store);
    fill_all();
    ck_assert_int_eq(host_mm_swap_out(mm, at(70000)), HOST_OK);
    split_at(70000);
    ck_assert_int_eq(host_mm_migrate(mm, at(131072)), HOST_OK);
    ck_assert_int_eq(level(131072), 1);
    ck_assert_int_eq(host_mm_soft_dirty_clear(mm, at(200001), PAGE_SIZE), HOST_OK);
    ck_assert_int_eq(level(200001), 1);
    ck_assert(!host_mm_is_soft_dirty(mm, at(200001)) && host_mm_is_soft_dirty(mm, at(200002)));
    host_mm_set_mergeable(mm, area, GIB, true);
    fill(mm, 0, 1);
    struct ksm *k = ksm_create(pool);
    ck_assert(ksm_add(k, mm));
    ck_assert_int_eq(ksm_merge(k, mm, at(0), mm, at(1)), HOST_OK);
    ck_assert_int_eq(level(1), 1);
    ck_assert_int_eq(level(1 << 15), 2);
    fill(mm, 0, 0);
    all_is(mm);
    ksm_destroy(k);
    swap_store_put(store);
}
END_TEST

START_TEST(reclaim_takes_it_apart_as_far_as_it_must)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 8 << 20};
    struct swap_store *store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(mm, store);
    fill_all();
    ck_assert_uint_eq(host_mm_age(mm, 1), GIB_PAGES); /* as a whole */
    ck_assert(!host_mm_is_young(mm, at(70000)));
    ck_assert_uint_eq(host_mm_reclaim(mm, 600, NULL), 600);
    ck_assert_int_eq(level(0), 1);
    ck_assert_int_eq(level(GIB_PAGES - 1), 2);
    all_is(mm);
    swap_store_put(store);
}
END_TEST

START_TEST(a_mirror_of_it_has_small_pages_and_follows)
{
    fill_all();
    struct host_mm *seen = host_mm_create(pool);
    struct gup_result g;
    hva_t at_mirror = host_mm_mmap_mirror(seen, mm, area, GIB);
    ck_assert_int_eq(host_mm_gup(seen, at_mirror + 70000 * PAGE_SIZE, false, &g), HOST_OK);
    ck_assert_int_eq(g.level, 1);
    ck_assert_int_eq(host_mm_migrate(mm, at(70000)), HOST_OK);
    peek_is(seen, at_mirror + 70000 * PAGE_SIZE, 70000);
    ck_assert_int_eq(host_mm_gup(seen, at_mirror + 70000 * PAGE_SIZE, false, &g), HOST_OK);
    ck_assert_uint_eq(g.pfn, host_mm_peek(mm, at(70000)).pfn);
    host_mm_destroy(seen);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        a_write_to_an_untouched_gib_is_answered_with_one_aligned_run_that_costs_no_memory,
        looking_at_what_was_never_touched_gives_it_no_memory,
        no_gigantic_page_where_something_is_or_the_limit_or_the_setting_forbids,
        a_pool_without_an_aligned_gib_gives_huge_pages,
        a_split_goes_one_level_at_a_time_and_moves_no_frame,
        what_a_split_left_is_put_together_again_without_a_copy,
        scattered_pages_are_copied_into_a_gigantic_one,
        unmapping_a_part_splits_and_the_whole_frees_the_run,
        mprotect_of_the_whole_keeps_it_and_of_a_part_splits_it,
        a_fork_shares_it_and_the_first_write_copies_one_page,
        swap_merging_migration_and_soft_dirty_take_one_page_out_of_it,
        reclaim_takes_it_apart_as_far_as_it_must,
        a_mirror_of_it_has_small_pages_and_follows,
    };
    return suite_of_case("core/host/huge: gigantic pages", "gigantic", tests, ARRAY_LEN(tests), setup, teardown, 300);
}

CHECK_MAIN(suite)
