/* KSM: equal pages share a frame until one is written. */
#include "core/host/ksm.h"

#include "core/host/swap.h"
#include "core/stats.h"
#include "tests/unit/host_rig.h"

static struct ksm *ksm;

static void setup(void)
{
    rig_setup();
    ksm = ksm_create(rig.pool);
    ck_assert(ksm_add(ksm, rig.mm));
    ck_assert_int_eq(host_mm_set_mergeable(rig.mm, rig.base, RIG_PAGES * PAGE_SIZE, true), HOST_OK);
}

static void teardown(void)
{
    rig_teardown();
    ksm_destroy(ksm);
}

/* Passes enough for everything that can merge to merge: one to settle, one for candidates, one more. */
static uint64_t scan_all(void)
{
    return ksm_scan(ksm, 4 * host_mm_resident(rig.mm));
}

static pfn_t pfn_of(struct host_mm *mm, hva_t hva)
{
    return host_mm_peek(mm, hva).pfn;
}

START_TEST(equal_pages_come_to_share_one_read_only_frame_and_the_other_is_freed)
{
    write_page(rig.mm, page(1), 7);
    write_page(rig.mm, page(2), 8);
    write_page(rig.mm, page(3), 7);
    ck_assert_uint_eq(scan_all(), 1);
    ck_assert_uint_eq(pfn_of(rig.mm, page(1)), pfn_of(rig.mm, page(3)));
    ck_assert_uint_ne(pfn_of(rig.mm, page(1)), pfn_of(rig.mm, page(2)));
    ck_assert_uint_eq(frame_pool_refs(rig.pool, pfn_of(rig.mm, page(1))), 2);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 2);
    ck_assert(!host_mm_peek(rig.mm, page(1)).writable && !host_mm_peek(rig.mm, page(3)).writable);
    ck_assert(host_mm_peek(rig.mm, page(2)).writable);
    peek_is(rig.mm, page(1), 7);
    peek_is(rig.mm, page(3), 7);
    ck_assert_uint_eq(ksm_counters(ksm)->merges, 1);
    ck_assert_uint_eq(ksm_frames(ksm), 1);
    ck_assert_uint_eq(scan_all(), 0);
}
END_TEST

START_TEST(a_merge_write_protects_both_and_repoints_one_by_change_pte_outside_any_range)
{
    write_page(rig.mm, page(1), 7);
    write_page(rig.mm, page(3), 7);
    rig.watched = pfn_of(rig.mm, page(3));
    scan_all();
    ck_assert_str_eq(rig.seen, "change-protect 1-2;change-protect 3-4;change-frame 3-4;inv 3-4;");
    ck_assert_uint_eq(frame_pool_refs(rig.pool, rig.watched), 0);
    rig.watched = PFN_NONE;
    rig.seen[0] = 0;
    write_page(rig.mm, page(5), 7);
    scan_all(); /* the merged frame is there already */
    ck_assert_str_eq(rig.seen, "change-protect 5-6;change-frame 5-6;inv 5-6;");
    ck_assert_uint_eq(host_mm_counters(rig.mm)->change_ptes, 5);
}
END_TEST

START_TEST(a_page_is_merged_with_another_only_after_it_stayed_the_same_for_a_pass)
{
    write_page(rig.mm, page(1), 7);
    write_page(rig.mm, page(2), 7);
    ck_assert_uint_eq(ksm_scan(ksm, 2), 0);
    write_page(rig.mm, page(1), 8);
    write_page(rig.mm, page(2), 8);
    ck_assert_uint_eq(ksm_scan(ksm, 2), 0); /* equal, but just changed */
    ck_assert_uint_eq(ksm_counters(ksm)->volatiles, 4);
    ck_assert_uint_eq(ksm_scan(ksm, 2), 1);
}
END_TEST

START_TEST(a_write_gives_a_merged_page_its_own_frame_again)
{
    for (unsigned i = 0; i < 3; i++)
        write_page(rig.mm, page(i), 7);
    scan_all();
    rig.seen[0] = 0;
    rig.watched = pfn_of(rig.mm, page(1));
    ((uint8_t *)gup_of(rig.mm, page(1), true))[0] ^= 1;
    ck_assert_str_eq(rig.seen, "CLEAR start 1-2;inv 1-2;end 1-2;");
    ck_assert_uint_ne(rig.got.pfn, rig.watched);
    peek_is(rig.mm, page(0), 7);
    peek_is(rig.mm, page(2), 7);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->ksm_unmerges, 1);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, rig.watched), 2);
}
END_TEST

START_TEST(the_last_page_of_a_merged_frame_takes_it_over_and_nobody_merges_with_it_again)
{
    write_page(rig.mm, page(1), 7);
    write_page(rig.mm, page(2), 7);
    scan_all();
    pfn_t shared = pfn_of(rig.mm, page(1));
    write_page(rig.mm, page(2), 9);
    rig.seen[0] = 0;
    uint8_t *p = gup_of(rig.mm, page(1), true);
    ck_assert_uint_eq(rig.got.pfn, shared);
    ck_assert_str_eq(rig.seen, ""); /* reused */
    p[0] ^= 1;
    write_page(rig.mm, page(4), 7); /* what the frame once held */
    scan_all();
    peek_is(rig.mm, page(4), 7);
    ck_assert_uint_ne(pfn_of(rig.mm, page(4)), shared);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->ksm_unmerges, 2);
}
END_TEST

START_TEST(pages_of_zeros_go_to_the_zero_page)
{
    for (unsigned i = 0; i < 4; i++)
        gup_of(rig.mm, page(i), true);
    ((uint8_t *)gup_of(rig.mm, page(3), true))[4095] = 1;
    ck_assert_uint_eq(ksm_scan(ksm, 4), 3);
    ck_assert_str_eq(rig.seen,
                     "change-protect 0-1;change-frame 0-1;inv 0-1;change-protect 1-2;change-frame 1-2;inv 1-2;"
                     "change-protect 2-3;change-frame 2-3;inv 2-3;");
    ck_assert_int_eq(host_mm_peek(rig.mm, page(0)).state, HPTE_ZERO);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_uint_eq(ksm_counters(ksm)->zeros, 3);
    gup_of(rig.mm, page(0), true);
    ck_assert(rig.got.writable);
}
END_TEST

START_TEST(only_mergeable_ranges_are_looked_at)
{
    ck_assert_int_eq(host_mm_set_mergeable(rig.mm, page(0), 2 * PAGE_SIZE, false), HOST_OK);
    for (unsigned i = 0; i < 4; i++)
        write_page(rig.mm, page(i), 7);
    ck_assert_uint_eq(scan_all(), 1);
    ck_assert_uint_eq(pfn_of(rig.mm, page(2)), pfn_of(rig.mm, page(3)));
    ck_assert_uint_ne(pfn_of(rig.mm, page(0)), pfn_of(rig.mm, page(1)));
    ck_assert_int_eq(host_mm_set_mergeable(rig.mm, page(60), 8 * PAGE_SIZE, true), HOST_DENIED);
    ck_assert_int_eq(host_mm_set_mergeable(rig.mm, page(0), 2 * PAGE_SIZE, true), HOST_OK);
    ck_assert_uint_eq(scan_all(), 2);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
}
END_TEST

START_TEST(pages_of_several_mms_merge_and_writes_stay_apart)
{
    struct host_mm *other = host_mm_create(rig.pool);
    hva_t hva = host_mm_mmap_anon(other, 8 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert(ksm_add(ksm, other));
    ck_assert(!ksm_add(ksm, other));
    host_mm_set_mergeable(other, hva, 8 * PAGE_SIZE, true);
    for (unsigned i = 0; i < 8; i++) {
        write_page(rig.mm, page(i), i);
        write_page(other, hva + i * PAGE_SIZE, i);
    }
    ck_assert_uint_eq(ksm_scan(ksm, 48), 8);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 8);
    write_page(other, hva, 77);
    peek_is(rig.mm, page(0), 0);
    peek_is(other, hva, 77);
    host_mm_destroy(other); /* leaves KSM by itself */
    for (unsigned i = 0; i < 8; i++)
        peek_is(rig.mm, page(i), i);
    ksm_scan(ksm, 20);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 8);
}
END_TEST

START_TEST(frames_that_nobody_maps_any_more_are_freed_and_forgotten)
{
    for (unsigned i = 0; i < 8; i++)
        write_page(rig.mm, page(i), i / 2);
    scan_all();
    ck_assert_uint_eq(ksm_frames(ksm), 4);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, page(0), 4 * PAGE_SIZE), 0);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 2);
    ksm_scan(ksm, 10);
    ck_assert_uint_eq(ksm_frames(ksm), 2);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, page(4), 4 * PAGE_SIZE), 0);
    ck_assert_uint_eq(ksm_scan(ksm, 10), 0); /* nothing to scan: it comes back */
}
END_TEST

START_TEST(two_pages_can_be_merged_on_demand)
{
    write_page(rig.mm, page(1), 7);
    write_page(rig.mm, page(2), 7);
    write_page(rig.mm, page(3), 8);
    ck_assert_int_eq(ksm_merge(ksm, rig.mm, page(1), rig.mm, page(2)), HOST_OK);
    ck_assert_uint_eq(pfn_of(rig.mm, page(1)), pfn_of(rig.mm, page(2)));
    ck_assert_int_eq(ksm_merge(ksm, rig.mm, page(1), rig.mm, page(2)), HOST_OK);
    ck_assert_int_eq(ksm_merge(ksm, rig.mm, page(1), rig.mm, page(3)), HOST_NOTHING);
    ck_assert_int_eq(ksm_merge(ksm, rig.mm, page(1), rig.mm, page(9)), HOST_NOTHING);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 2);
}
END_TEST

START_TEST(unmerge_gives_every_page_a_frame_of_its_own)
{
    for (unsigned i = 0; i < 10; i++)
        write_page(rig.mm, page(i), 7);
    scan_all();
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_int_eq(ksm_unmerge(rig.mm, rig.base, RIG_PAGES * PAGE_SIZE), HOST_OK);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 10);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->ksm_unmerges, 10);
    for (unsigned i = 0; i < 10; i++)
        peek_is(rig.mm, page(i), 7);
}
END_TEST

START_TEST(a_merge_splits_the_huge_page_around_it)
{
    notifier_unregister(&rig.watcher);
    host_mm_set_huge_faults(rig.mm, 2);
    hva_t hva = host_mm_mmap_anon(rig.mm, 2 << 20, HOST_READ | HOST_WRITE);
    host_mm_set_mergeable(rig.mm, hva, 2 << 20, true);
    write_page(rig.mm, hva, 3);
    write_page(rig.mm, hva + PAGE_SIZE, 3);
    ck_assert(rig.got.level > 1);
    ck_assert_int_eq(ksm_merge(ksm, rig.mm, hva, rig.mm, hva + PAGE_SIZE), HOST_OK);
    ck_assert(host_mm_peek(rig.mm, hva).level == 1);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 511);
    ksm_scan(ksm, 600);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
}
END_TEST

START_TEST(a_merged_page_that_is_swapped_out_by_all_takes_one_slot_and_is_shared_again_when_it_comes_back)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 1 << 20};
    struct swap_store *store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(rig.mm, store);
    for (unsigned i = 0; i < 5; i++)
        write_page(rig.mm, page(i), 7);
    scan_all();
    for (unsigned i = 0; i < 5; i++)
        ck_assert_int_eq(host_mm_swap_out(rig.mm, page(i)), HOST_OK);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 1);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->swap_shares, 4);
    for (unsigned i = 0; i < 5; i++)
        page_is(rig.mm, page(i), 7);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 0);
    write_page(rig.mm, page(2), 8);
    for (unsigned i = 0; i < 5; i++)
        peek_is(rig.mm, page(i), i == 2 ? 8 : 7);
    swap_store_put(store);
}
END_TEST

START_TEST(counters_are_registered_by_name)
{
    struct stats stats;
    stats_init(&stats);
    ksm_add_stats(ksm, &stats);
    write_page(rig.mm, page(0), 1);
    ksm_scan(ksm, 1);
    bool found;
    ck_assert_uint_eq(stats_get(&stats, "ksm.scanned", &found), 1);
    ck_assert(found);
    stats_fini(&stats);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/ksm");
    TCase *t = tcase_create("ksm");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, equal_pages_come_to_share_one_read_only_frame_and_the_other_is_freed);
    tcase_add_test(t, a_merge_write_protects_both_and_repoints_one_by_change_pte_outside_any_range);
    tcase_add_test(t, a_page_is_merged_with_another_only_after_it_stayed_the_same_for_a_pass);
    tcase_add_test(t, a_write_gives_a_merged_page_its_own_frame_again);
    tcase_add_test(t, the_last_page_of_a_merged_frame_takes_it_over_and_nobody_merges_with_it_again);
    tcase_add_test(t, pages_of_zeros_go_to_the_zero_page);
    tcase_add_test(t, only_mergeable_ranges_are_looked_at);
    tcase_add_test(t, pages_of_several_mms_merge_and_writes_stay_apart);
    tcase_add_test(t, frames_that_nobody_maps_any_more_are_freed_and_forgotten);
    tcase_add_test(t, two_pages_can_be_merged_on_demand);
    tcase_add_test(t, unmerge_gives_every_page_a_frame_of_its_own);
    tcase_add_test(t, a_merge_splits_the_huge_page_around_it);
    tcase_add_test(t, a_merged_page_that_is_swapped_out_by_all_takes_one_slot_and_is_shared_again_when_it_comes_back);
    tcase_add_test(t, counters_are_registered_by_name);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
