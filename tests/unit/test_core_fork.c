/* Fork, migration and soft-dirty: pages that are shared, moved, watched. */
#include "core/host/swap.h"
#include "tests/unit/host_rig.h"

static struct swap_store *store;

static void setup(void)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 8 << 20};
    rig_setup();
    store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(rig.mm, store);
}

static void teardown(void)
{
    rig_teardown();
    ck_assert_uint_eq(swap_store_counters(store)->slots, 0);
    swap_store_put(store);
}

/* ---- fork ---- */

START_TEST(fork_makes_both_sides_read_only_inside_a_protection_page_range)
{
    write_page(rig.mm, page(1), 1);
    gup_of(rig.mm, page(2), false);
    rig.seen[0] = 0;
    struct host_mm *child = host_mm_fork(rig.mm);
    ck_assert_str_eq(rig.seen, "PROTPAGE start 0-64;end 0-64;"); /* no frame changes: no invalidate_range */
    struct hpte_info p = host_mm_peek(rig.mm, page(1)), c = host_mm_peek(child, page(1));
    ck_assert_uint_eq(p.pfn, c.pfn);
    ck_assert(!p.writable && !c.writable && p.readable && c.readable);
    ck_assert(p.accessed && !c.accessed);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, p.pfn), 2);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_int_eq(host_mm_peek(child, page(2)).state, HPTE_ZERO);
    ck_assert_uint_eq(host_mm_resident(child), 1);
    host_mm_destroy(child);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, p.pfn), 1);
}
END_TEST

START_TEST(a_write_after_fork_copies_and_fires_clear_while_the_old_frame_lives)
{
    write_page(rig.mm, page(1), 1);
    struct host_mm *child = host_mm_fork(rig.mm);
    rig.seen[0] = 0;
    rig.watched = host_mm_peek(rig.mm, page(1)).pfn;
    write_page(rig.mm, page(1), 100);
    ck_assert_str_eq(rig.seen, "CLEAR start 1-2;inv 1-2;end 1-2;");
    ck_assert_uint_ne(rig.got.pfn, rig.watched);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, rig.watched), 1);
    peek_is(child, page(1), 1);
    rig.seen[0] = 0;
    write_page(child, page(1), 200); /* alone now: takes the frame over */
    ck_assert_uint_eq(rig.got.pfn, rig.watched);
    peek_is(rig.mm, page(1), 100);
    peek_is(child, page(1), 200);
    ck_assert_str_eq(rig.seen, "");
    host_mm_destroy(child);
}
END_TEST

START_TEST(content_is_isolated_both_ways_and_among_several_children)
{
    enum { CHILDREN = 4 };
    struct host_mm *child[CHILDREN];
    for (unsigned i = 0; i < RIG_PAGES; i += 2)
        write_page(rig.mm, page(i), i);
    for (unsigned c = 0; c < CHILDREN; c++)
        child[c] = host_mm_fork(c ? child[c - 1] : rig.mm);
    rig.seen[0] = 0;
    for (unsigned i = 0; i < RIG_PAGES; i++) {
        for (unsigned c = 0; c < CHILDREN; c++)
            if (i % CHILDREN == c)
                write_page(child[c], page(i), 1000 * (c + 1) + i);
        if (i % 8 == 0)
            write_page(rig.mm, page(i), 9000 + i);
        rig.seen[0] = 0;
    }
    for (unsigned i = 0; i < RIG_PAGES; i++) {
        for (unsigned c = 0; c < CHILDREN; c++) {
            if (i % CHILDREN == c)
                peek_is(child[c], page(i), 1000 * (c + 1) + i);
            else if (i % 2 == 0)
                peek_is(child[c], page(i), i);
            else
                ck_assert_ptr_null(host_mm_peek_content(child[c], page(i)));
        }
        if (i % 2 == 0)
            peek_is(rig.mm, page(i), i % 8 ? i : 9000 + i);
    }
    for (unsigned c = 0; c < CHILDREN; c++)
        host_mm_destroy(child[c]);
    for (unsigned i = 0; i < RIG_PAGES; i += 2)
        peek_is(rig.mm, page(i), i % 8 ? i : 9000 + i);
}
END_TEST

START_TEST(the_parent_may_go_first)
{
    write_page(rig.mm, page(1), 1);
    write_page(rig.mm, page(2), 2);
    host_mm_swap_out(rig.mm, page(2));
    struct host_mm *child = host_mm_fork(rig.mm);
    host_mm_destroy(rig.mm);
    page_is(child, page(1), 1);
    page_is(child, page(2), 2);
    host_mm_destroy(child);
    rig.mm = host_mm_create(rig.pool);
}
END_TEST

START_TEST(swapped_pages_are_shared_by_slot_and_come_back_to_one_frame)
{
    write_page(rig.mm, page(1), 1);
    host_mm_swap_out(rig.mm, page(1));
    struct host_mm *child = host_mm_fork(rig.mm);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 1);
    page_is(rig.mm, page(1), 1);
    page_is(child, page(1), 1);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 0);
    write_page(child, page(1), 2);
    peek_is(rig.mm, page(1), 1);
    host_mm_destroy(child);
}
END_TEST

START_TEST(a_side_that_wrote_before_the_other_swapped_in_keeps_its_own)
{
    write_page(rig.mm, page(1), 1);
    host_mm_swap_out(rig.mm, page(1));
    struct host_mm *child = host_mm_fork(rig.mm);
    write_page(rig.mm, page(1), 5); /* comes in, is tied to the slot, and is written: the tie must go */
    page_is(child, page(1), 1);
    peek_is(rig.mm, page(1), 5);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 2);
    host_mm_destroy(child);
}
END_TEST

START_TEST(a_shared_frame_swapped_out_by_both_takes_one_slot)
{
    write_page(rig.mm, page(1), 1);
    struct host_mm *child = host_mm_fork(rig.mm);
    ck_assert_int_eq(host_mm_swap_out(rig.mm, page(1)), HOST_OK);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1); /* the child's still */
    page_is(rig.mm, page(1), 1);                     /* and it is found there */
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_uint_eq(swap_store_counters(store)->reads, 0);
    ck_assert_int_eq(host_mm_swap_out(rig.mm, page(1)), HOST_OK);
    ck_assert_int_eq(host_mm_swap_out(child, page(1)), HOST_OK);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 1);
    page_is(child, page(1), 1);
    host_mm_destroy(child);
    page_is(rig.mm, page(1), 1);
}
END_TEST

START_TEST(a_child_of_a_range_has_nothing_else)
{
    for (unsigned i = 0; i < 8; i++)
        write_page(rig.mm, page(i), i);
    rig.seen[0] = 0;
    struct host_mm *child = host_mm_fork_range(rig.mm, page(2), 3 * PAGE_SIZE);
    ck_assert_str_eq(rig.seen, "PROTPAGE start 2-5;end 2-5;");
    ck_assert_uint_eq(host_mm_resident(child), 3);
    page_is(child, page(4), 4);
    ck_assert_int_eq(host_mm_gup(child, page(5), false, &rig.got), HOST_DENIED);
    ck_assert(host_mm_peek(rig.mm, page(5)).writable);
    ck_assert_ptr_null(host_mm_fork_range(rig.mm, page(60), 8 * PAGE_SIZE));
    host_mm_destroy(child);
}
END_TEST

START_TEST(protections_and_limit_pass_to_the_child)
{
    host_mm_set_limit(rig.mm, 100);
    write_page(rig.mm, page(1), 1);
    host_mm_mprotect(rig.mm, page(1), PAGE_SIZE, HOST_READ);
    struct host_mm *child = host_mm_fork(rig.mm);
    ck_assert_uint_eq(host_mm_limit(child), 100);
    ck_assert_int_eq(host_mm_gup(child, page(1), true, &rig.got), HOST_DENIED);
    page_is(child, page(1), 1);
    gup_of(child, page(2), true);
    host_mm_destroy(child);
}
END_TEST

START_TEST(sharing_is_counted_page_by_page_and_the_pool_knows_its_peak)
{
    for (unsigned i = 0; i < 8; i++)
        write_page(rig.mm, page(i), i);
    gup_of(rig.mm, page(20), false); /* the zero page is nobody's */
    struct host_sharing n = host_mm_sharing(rig.mm);
    ck_assert(n.own == 8 && n.shared == 0);
    struct host_mm *a = host_mm_fork(rig.mm), *b = host_mm_fork(rig.mm);
    n = host_mm_sharing(a);
    ck_assert(n.own == 0 && n.shared == 8);
    write_page(a, page(1), 100);
    write_page(a, page(30), 101);
    n = host_mm_sharing(a);
    ck_assert(n.own == 2 && n.shared == 7);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 10);
    host_mm_destroy(a);
    n = host_mm_sharing(b);
    ck_assert(n.own == 0 && n.shared == 8);
    host_mm_destroy(b);
    n = host_mm_sharing(rig.mm);
    ck_assert(n.own == 8 && n.shared == 0);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 8);
    ck_assert_uint_eq(frame_pool_peak(rig.pool), 10);
}
END_TEST

/* ---- migration ---- */

START_TEST(migration_moves_the_content_to_another_frame_and_frees_the_old_one)
{
    write_page(rig.mm, page(7), 7);
    pfn_t old = rig.got.pfn;
    rig.watched = old;
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(7) + 9), HOST_OK);
    ck_assert_str_eq(rig.seen, "MIGRATE start 7-8;inv 7-8;end 7-8;");
    struct hpte_info info = host_mm_peek(rig.mm, page(7));
    ck_assert_uint_ne(info.pfn, old);
    ck_assert(info.writable && info.dirty);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, old), 0);
    peek_is(rig.mm, page(7), 7);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->migrations, 1);
}
END_TEST

START_TEST(a_read_only_page_stays_read_only_when_it_moves)
{
    write_page(rig.mm, page(7), 7);
    host_mm_mprotect(rig.mm, page(7), PAGE_SIZE, HOST_READ);
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(7)), HOST_OK);
    ck_assert(!host_mm_peek(rig.mm, page(7)).writable);
    page_is(rig.mm, page(7), 7);
}
END_TEST

START_TEST(what_is_shared_or_not_there_does_not_move)
{
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(0)), HOST_NOTHING);
    gup_of(rig.mm, page(0), false);
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(0)), HOST_NOTHING);
    write_page(rig.mm, page(1), 1);
    struct host_mm *child = host_mm_fork(rig.mm);
    rig.seen[0] = 0;
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(1)), HOST_SHARED);
    ck_assert_str_eq(rig.seen, "");
    ck_assert_uint_eq(frame_pool_used(rig.pool), 1);
    host_mm_destroy(child);
    ck_assert_int_eq(host_mm_migrate(rig.mm, page(1)), HOST_OK);
    char err[100];
    struct frame_pool *one = frame_pool_create(1, err, sizeof err);
    struct host_mm *mm = host_mm_create(one);
    hva_t hva = host_mm_mmap_anon(mm, PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(host_mm_gup(mm, hva, true, &rig.got), 0);
    ck_assert_int_eq(host_mm_migrate(mm, hva), HOST_NO_FRAMES);
    host_mm_destroy(mm);
    frame_pool_destroy(one);
}
END_TEST

START_TEST(compaction_moves_frames_down_until_a_run_is_free)
{
    notifier_unregister(&rig.watcher);
    char err[100];
    struct frame_pool *pool = frame_pool_create(1024, err, sizeof err);
    struct host_mm *mm = host_mm_create(pool);
    hva_t hva = host_mm_mmap_anon(mm, 1024 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    for (unsigned i = 0; i < 1024; i++) {
        ck_assert_int_eq(host_mm_gup(mm, hva + i * PAGE_SIZE, true, &rig.got), 0);
        fill_bytes(rig.got.ptr, i);
    }
    for (unsigned i = 0; i < 1024; i++)
        if (i % 4)
            host_mm_dontneed(mm, hva + i * PAGE_SIZE, PAGE_SIZE);
    ck_assert_uint_eq(frame_pool_alloc_run(pool, FRAMES_HUGE), PFN_NONE);
    ck_assert_uint_eq(host_mm_compact(mm, 10), 10);
    ck_assert_uint_eq(host_mm_compact(mm, 10000), 182); /* 192 of 256 lay above the 256 lowest */
    ck_assert_uint_eq(host_mm_compact(mm, 10000), 0);
    pfn_t run = frame_pool_alloc_run(pool, FRAMES_HUGE);
    ck_assert_uint_eq(run, 512);
    for (unsigned i = 0; i < 512; i++)
        frame_pool_put(pool, run + i);
    for (unsigned i = 0; i < 1024; i += 4)
        peek_is(mm, hva + i * PAGE_SIZE, i);
    host_mm_destroy(mm);
    frame_pool_destroy(pool);
}
END_TEST

/* ---- soft-dirty ---- */

START_TEST(clearing_soft_dirty_write_protects_and_the_next_write_is_seen)
{
    write_page(rig.mm, page(1), 1);
    write_page(rig.mm, page(2), 2);
    gup_of(rig.mm, page(3), false);
    ck_assert(host_mm_is_soft_dirty(rig.mm, page(1)));
    ck_assert(!host_mm_is_soft_dirty(rig.mm, page(3)));
    pfn_t pfn = host_mm_peek(rig.mm, page(1)).pfn;
    rig.seen[0] = 0;
    ck_assert_int_eq(host_mm_soft_dirty_clear(rig.mm, rig.base, RIG_PAGES * PAGE_SIZE), HOST_OK);
    ck_assert_str_eq(rig.seen, "SOFT start 0-64;end 0-64;");
    ck_assert(!host_mm_is_soft_dirty(rig.mm, page(1)));
    ck_assert(!host_mm_peek(rig.mm, page(1)).writable);
    gup_of(rig.mm, page(1), false);
    ck_assert(!host_mm_is_soft_dirty(rig.mm, page(1)));
    gup_of(rig.mm, page(1), true);
    ck_assert_uint_eq(rig.got.pfn, pfn);
    ck_assert(host_mm_is_soft_dirty(rig.mm, page(1)));
    ck_assert(!host_mm_is_soft_dirty(rig.mm, page(2)));
    ck_assert_uint_eq(host_mm_counters(rig.mm)->soft_clears, 2);
    ck_assert_int_eq(host_mm_soft_dirty_clear(rig.mm, page(60), 8 * PAGE_SIZE), HOST_DENIED);
}
END_TEST

START_TEST(soft_dirty_survives_swap_migration_and_fork_whichever_it_is)
{
    for (unsigned i = 0; i < 4; i++)
        write_page(rig.mm, page(i), i);
    host_mm_soft_dirty_clear(rig.mm, rig.base, RIG_PAGES * PAGE_SIZE);
    gup_of(rig.mm, page(0), true);
    gup_of(rig.mm, page(1), true);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(i & 1 ? host_mm_migrate(rig.mm, page(i)) : host_mm_swap_out(rig.mm, page(i)), HOST_OK);
    struct host_mm *child = host_mm_fork(rig.mm);
    for (unsigned i = 0; i < 4; i++)
        gup_of(rig.mm, page(i), false);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(host_mm_is_soft_dirty(rig.mm, page(i)), i < 2);
        ck_assert_int_eq(host_mm_is_soft_dirty(child, page(i)), i < 2);
    }
    host_mm_destroy(child);
    host_mm_soft_dirty_clear(rig.mm, rig.base, RIG_PAGES * PAGE_SIZE);
    host_mm_swap_out(rig.mm, page(2));
    gup_of(rig.mm, page(2), true);
    ck_assert(host_mm_is_soft_dirty(rig.mm, page(2)));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/fork");
    TCase *t = tcase_create("fork");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, fork_makes_both_sides_read_only_inside_a_protection_page_range);
    tcase_add_test(t, a_write_after_fork_copies_and_fires_clear_while_the_old_frame_lives);
    tcase_add_test(t, content_is_isolated_both_ways_and_among_several_children);
    tcase_add_test(t, the_parent_may_go_first);
    tcase_add_test(t, swapped_pages_are_shared_by_slot_and_come_back_to_one_frame);
    tcase_add_test(t, a_side_that_wrote_before_the_other_swapped_in_keeps_its_own);
    tcase_add_test(t, a_shared_frame_swapped_out_by_both_takes_one_slot);
    tcase_add_test(t, a_child_of_a_range_has_nothing_else);
    tcase_add_test(t, protections_and_limit_pass_to_the_child);
    tcase_add_test(t, sharing_is_counted_page_by_page_and_the_pool_knows_its_peak);
    tcase_add_test(t, migration_moves_the_content_to_another_frame_and_frees_the_old_one);
    tcase_add_test(t, a_read_only_page_stays_read_only_when_it_moves);
    tcase_add_test(t, what_is_shared_or_not_there_does_not_move);
    tcase_add_test(t, compaction_moves_frames_down_until_a_run_is_free);
    tcase_add_test(t, clearing_soft_dirty_write_protects_and_the_next_write_is_seen);
    tcase_add_test(t, soft_dirty_survives_swap_migration_and_fork_whichever_it_is);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
