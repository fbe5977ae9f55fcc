/* Aging, reclaim and the limit. */
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "tests/unit/host_rig.h"

static struct swap_store *store;

static struct swap_store *make(uint64_t memory)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = memory};
    struct swap_store *s = swap_store_create(&cfg, err, sizeof err);
    ck_assert_msg(s != NULL, "%s", err);
    return s;
}

static void setup(void)
{
    rig_setup();
    store = make(64 << 20);
    host_mm_set_swap(rig.mm, store);
}

static void teardown(void)
{
    rig_teardown();
    swap_store_put(store);
}

static void touch_all(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        write_page(rig.mm, page(i), i);
}

static bool is_out(unsigned i)
{
    return host_mm_peek(rig.mm, page(i)).state == HPTE_SWAPPED;
}

START_TEST(aging_reads_and_clears_the_accessed_state_of_hptes_and_of_subscribers)
{
    touch_all(8);
    rig.seen[0] = 0;
    ck_assert_uint_eq(host_mm_age(rig.mm, 8), 8);
    ck_assert(!rig.flushed); /* clear_young, not clear_flush_young */
    ck_assert_uint_eq(host_mm_age(rig.mm, 8), 0);
    rig.young_pages = 1u << 5;
    ck_assert(host_mm_is_young(rig.mm, page(5)));
    ck_assert(!host_mm_is_young(rig.mm, page(4)));
    ck_assert_uint_eq(rig.young_pages, 1u << 5); /* a test clears nothing */
    gup_of(rig.mm, page(2), false);
    ck_assert(host_mm_is_young(rig.mm, page(2)));
    ck_assert_uint_eq(host_mm_age(rig.mm, 8), 2);
    ck_assert_uint_eq(rig.young_pages, 0);
    ck_assert_str_eq(rig.seen, ""); /* aging invalidates nothing */
    ck_assert_uint_eq(host_mm_counters(rig.mm)->aged, 24);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->aged_young, 10);
}
END_TEST

START_TEST(aging_goes_round_and_asks_no_page_twice_in_one_call)
{
    touch_all(8);
    ck_assert_uint_eq(host_mm_age(rig.mm, 3), 3);
    ck_assert_uint_eq(host_mm_age(rig.mm, 3), 3);
    ck_assert_uint_eq(host_mm_age(rig.mm, 100), 2);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->aged, 14);
    struct host_mm *empty = host_mm_create(rig.pool);
    ck_assert_uint_eq(host_mm_age(empty, 100), 0);
    host_mm_destroy(empty);
}
END_TEST

START_TEST(reclaim_takes_what_was_longest_untouched)
{
    touch_all(16);
    host_mm_age(rig.mm, 16);
    for (unsigned i = 0; i < 16; i += 2)
        gup_of(rig.mm, page(i), false);
    host_mm_age(rig.mm, 16);
    for (unsigned i = 0; i < 16; i += 2)
        gup_of(rig.mm, page(i), false);
    int status;
    ck_assert_uint_eq(host_mm_reclaim(rig.mm, 8, &status), 8);
    ck_assert_int_eq(status, HOST_OK);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_int_eq(is_out(i), i & 1);
    for (unsigned i = 0; i < 16; i++)
        peek_is(rig.mm, page(i), i);
}
END_TEST

START_TEST(a_page_that_a_subscriber_used_meanwhile_is_spared_and_asked_with_a_flush)
{
    touch_all(4);
    host_mm_age(rig.mm, 4);
    host_mm_age(rig.mm, 4); /* all are old */
    rig.young_pages = 1u << 0;
    ck_assert_uint_eq(host_mm_reclaim(rig.mm, 1, NULL), 1);
    ck_assert(rig.flushed);
    ck_assert(!is_out(0));
    ck_assert(is_out(1));
}
END_TEST

START_TEST(a_page_whose_frame_is_marked_as_used_is_spared_once)
{
    touch_all(8);
    host_mm_age(rig.mm, 8);
    host_mm_age(rig.mm, 8);
    frame_pool_mark_accessed(host_mm_pool(rig.mm), host_mm_peek(rig.mm, page(3)).pfn, 1);
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(3)), HOST_OK); /* the new frame has it from the old one */
    ck_assert_uint_eq(host_mm_reclaim(rig.mm, 7, NULL), 7);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(is_out(i), i != 3);
    ck_assert(!host_mm_is_young(rig.mm, page(3))); /* reclaim came by and took the mark */
}
END_TEST

START_TEST(when_all_is_young_reclaim_takes_young_pages_at_last)
{
    touch_all(8);
    ck_assert_uint_eq(host_mm_reclaim(rig.mm, 5, NULL), 5);
    ck_assert_uint_eq(host_mm_resident(rig.mm), 3);
}
END_TEST

START_TEST(reclaim_order_is_a_function_of_the_calls)
{
    static bool out[2][RIG_PAGES];
    for (unsigned run = 0; run < 2; run++) {
        if (run) {
            teardown();
            setup();
        }
        uint64_t r = 99;
        for (unsigned step = 0; step < 400; step++) {
            gup_of(rig.mm, page(next_random(&r) % RIG_PAGES), next_random(&r) & 1);
            if (step % 7 == 0)
                host_mm_age(rig.mm, 5);
            if (step % 11 == 0)
                host_mm_reclaim(rig.mm, 3, NULL);
            rig.seen[0] = 0;
        }
        for (unsigned i = 0; i < RIG_PAGES; i++)
            out[run][i] = is_out(i);
    }
    ck_assert_mem_eq(out[0], out[1], sizeof out[0]);
}
END_TEST

START_TEST(a_gup_over_the_limit_succeeds_and_the_next_safe_point_reclaims)
{
    enum { LIMIT = 128, PAGES = 1024 };
    notifier_unregister(&rig.watcher);
    hva_t hva = host_mm_mmap_anon(rig.mm, PAGES * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(host_mm_set_limit(rig.mm, LIMIT), HOST_OK);
    uint64_t most = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        write_page(rig.mm, hva + i * PAGE_SIZE, i);
        if (host_mm_resident(rig.mm) > most)
            most = host_mm_resident(rig.mm);
        if (i % 32 == 31) { /* an instruction never takes more */
            ck_assert_int_eq(host_mm_wants_safe_point(rig.mm), host_mm_resident(rig.mm) > LIMIT);
            ck_assert_int_eq(host_mm_safe_point(rig.mm), HOST_OK);
            ck_assert_uint_le(host_mm_resident(rig.mm), LIMIT);
            ck_assert(!host_mm_wants_safe_point(rig.mm));
        }
    }
    ck_assert_uint_gt(most, LIMIT);
    ck_assert_uint_le(most, LIMIT + HOST_LIMIT_SLACK);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->limit_excess, most - LIMIT);
    ck_assert_uint_le(frame_pool_resident_bytes(rig.pool), (LIMIT + 1) * PAGE_SIZE);
    for (unsigned i = 0; i < PAGES; i++) {
        page_is(rig.mm, hva + i * PAGE_SIZE, i);
        ck_assert_int_eq(host_mm_safe_point(rig.mm), HOST_OK);
    }
}
END_TEST

START_TEST(nothing_is_reclaimed_in_the_middle_of_a_gup)
{
    hva_t hva = host_mm_mmap_anon(rig.mm, 200 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    host_mm_set_limit(rig.mm, HOST_LIMIT_MIN);
    void *first = gup_of(rig.mm, hva, true);
    memset(first, 0x77, PAGE_SIZE);
    pfn_t pfn = rig.got.pfn;
    rig.seen[0] = 0;
    for (unsigned i = 1; i < 200; i++)
        gup_of(rig.mm, hva + i * PAGE_SIZE, true);
    ck_assert_str_eq(rig.seen, "");
    ck_assert_uint_eq(host_mm_peek(rig.mm, hva).pfn, pfn);
    ck_assert_uint_eq(*(uint8_t *)first, 0x77);
}
END_TEST

START_TEST(a_lowered_limit_takes_effect_at_the_next_safe_point)
{
    notifier_unregister(&rig.watcher);
    hva_t hva = host_mm_mmap_anon(rig.mm, 500 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    for (unsigned i = 0; i < 500; i++)
        gup_of(rig.mm, hva + i * PAGE_SIZE, true);
    ck_assert_int_eq(host_mm_safe_point(rig.mm), HOST_OK);
    ck_assert_uint_eq(host_mm_resident(rig.mm), 500);
    ck_assert_int_eq(host_mm_set_limit(rig.mm, 100), HOST_OK);
    ck_assert_uint_eq(host_mm_limit(rig.mm), 100);
    ck_assert(host_mm_wants_safe_point(rig.mm));
    ck_assert_int_eq(host_mm_safe_point(rig.mm), HOST_OK);
    ck_assert_uint_le(host_mm_resident(rig.mm), 100);
    ck_assert_int_eq(host_mm_set_limit(rig.mm, 0), HOST_OK);
    ck_assert_int_eq(host_mm_set_limit(rig.mm, HOST_LIMIT_MIN - 1), HOST_DENIED);
}
END_TEST

START_TEST(a_full_store_is_reported_at_the_safe_point_and_nothing_is_lost)
{
    notifier_unregister(&rig.watcher);
    struct swap_store *small = make(65536);
    struct host_mm *mm = host_mm_create(rig.pool);
    host_mm_set_swap(mm, small);
    host_mm_set_limit(mm, 64);
    hva_t hva = host_mm_mmap_anon(mm, 400 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    unsigned n = 0;
    int rc = HOST_OK;
    for (; n < 400 && !rc; n++) {
        write_page(mm, hva + n * PAGE_SIZE, n);
        rc = host_mm_safe_point(mm);
    }
    ck_assert_int_eq(rc, HOST_SWAP_FULL);
    ck_assert_str_eq(host_status_text(rc), "the swap store is full");
    ck_assert(host_mm_wants_safe_point(mm)); /* asked again until it works out */
    for (unsigned i = 0; i < n; i++)
        peek_is(mm, hva + i * PAGE_SIZE, i);
    ck_assert_int_eq(host_mm_dontneed(mm, hva, 40 * PAGE_SIZE), 0); /* the guest frees some */
    ck_assert_int_eq(host_mm_safe_point(mm), HOST_OK);
    for (unsigned i = 40; i < n; i++)
        page_is(mm, hva + i * PAGE_SIZE, i);
    host_mm_destroy(mm);
    swap_store_put(small);
}
END_TEST

START_TEST(a_limit_without_a_store_says_so)
{
    struct host_mm *mm = host_mm_create(rig.pool);
    hva_t hva = host_mm_mmap_anon(mm, 100 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    host_mm_set_limit(mm, 64);
    for (unsigned i = 0; i < 100; i++)
        gup_of(mm, hva + i * PAGE_SIZE, true);
    ck_assert_int_eq(host_mm_safe_point(mm), HOST_NO_SWAP);
    ck_assert_uint_eq(host_mm_resident(mm), 100);
    host_mm_destroy(mm);
}
END_TEST

START_TEST(merged_pages_are_charged_once_a_frame)
{
    notifier_unregister(&rig.watcher);
    struct ksm *ksm = ksm_create(rig.pool);
    hva_t hva = host_mm_mmap_anon(rig.mm, 200 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    for (unsigned i = 0; i < 200; i++)
        write_page(rig.mm, hva + i * PAGE_SIZE, 5);
    ksm_add(ksm, rig.mm);
    host_mm_set_mergeable(rig.mm, hva, 200 * PAGE_SIZE, true);
    ksm_scan(ksm, 600);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    host_mm_set_limit(rig.mm, 64);
    ck_assert(!host_mm_wants_safe_point(rig.mm));
    ck_assert_int_eq(host_mm_safe_point(rig.mm), HOST_OK);
    ck_assert_uint_eq(host_mm_resident(rig.mm), 200);
    ksm_destroy(ksm);
}
END_TEST

START_TEST(a_huge_page_is_aged_as_one_and_split_when_it_is_taken)
{
    notifier_unregister(&rig.watcher);
    host_mm_set_huge_faults(rig.mm, 2);
    hva_t hva = host_mm_mmap_anon(rig.mm, 4 << 20, HOST_READ | HOST_WRITE);
    write_page(rig.mm, hva, 1);
    ck_assert(rig.got.level > 1);
    ck_assert_uint_eq(host_mm_age(rig.mm, 1), 512);
    ck_assert_uint_eq(host_mm_age(rig.mm, 1), 0);
    ck_assert_uint_eq(host_mm_reclaim(rig.mm, 10, NULL), 10);
    ck_assert(host_mm_peek(rig.mm, hva + 20 * PAGE_SIZE).level == 1);
    ck_assert_uint_eq(host_mm_resident(rig.mm), 502);
    page_is(rig.mm, hva, 1);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/reclaim");
    TCase *t = tcase_create("reclaim");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, aging_reads_and_clears_the_accessed_state_of_hptes_and_of_subscribers);
    tcase_add_test(t, aging_goes_round_and_asks_no_page_twice_in_one_call);
    tcase_add_test(t, reclaim_takes_what_was_longest_untouched);
    tcase_add_test(t, a_page_that_a_subscriber_used_meanwhile_is_spared_and_asked_with_a_flush);
    tcase_add_test(t, a_page_whose_frame_is_marked_as_used_is_spared_once);
    tcase_add_test(t, when_all_is_young_reclaim_takes_young_pages_at_last);
    tcase_add_test(t, reclaim_order_is_a_function_of_the_calls);
    tcase_add_test(t, a_gup_over_the_limit_succeeds_and_the_next_safe_point_reclaims);
    tcase_add_test(t, nothing_is_reclaimed_in_the_middle_of_a_gup);
    tcase_add_test(t, a_lowered_limit_takes_effect_at_the_next_safe_point);
    tcase_add_test(t, a_full_store_is_reported_at_the_safe_point_and_nothing_is_lost);
    tcase_add_test(t, a_limit_without_a_store_says_so);
    tcase_add_test(t, merged_pages_are_charged_once_a_frame);
    tcase_add_test(t, a_huge_page_is_aged_as_one_and_split_when_it_is_taken);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
