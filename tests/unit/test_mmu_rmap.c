/* Reverse maps: single and chained lists, sparse chunks, ranges. */
#include "check_main.h"
#include "mmu/shadow/rmap.h"

#include <string.h>

#define MANY 5000

static uint64_t sptes[MANY];

static struct memslot slot_of(gfn_t base, uint64_t pages)
{
    return (struct memslot){.base = base, .pages = pages, .kind = MEMSLOT_RAM};
}

START_TEST(list_of_one_needs_no_descriptor)
{
    struct spte_desc_cache c = {0};
    struct spte_list l = {0};
    spte_list_add(&c, &l, &sptes[0]);
    ck_assert_uint_eq(l.val, (uintptr_t)&sptes[0]);
    ck_assert_uint_eq(spte_list_count(&l), 1);
    ck_assert(!spte_list_remove(&c, &l, &sptes[1]));
    ck_assert(spte_list_remove(&c, &l, &sptes[0]));
    ck_assert(spte_list_is_empty(&l));
}
END_TEST

START_TEST(chained_list_holds_thousands_and_goes_back_to_single)
{
    struct spte_desc_cache c = {0};
    struct spte_list l = {0};
    for (int i = 0; i < MANY; i++) {
        ck_assert(spte_desc_topup(&c, 1));
        spte_list_add(&c, &l, &sptes[i]);
    }
    ck_assert_uint_eq(spte_list_count(&l), MANY);
    for (int i = 0; i < MANY; i++)
        ck_assert_uint_eq(spte_list_occurrences(&l, &sptes[i]), 1);
    size_t with_all_in_use = c.available;
    for (int i = 0; i < MANY - 1; i++)
        ck_assert(spte_list_remove(&c, &l, &sptes[(i * 7919) % MANY]));
    int last = ((MANY - 1) * 7919) % MANY;
    ck_assert_uint_eq(l.val, (uintptr_t)&sptes[last]);
    ck_assert(c.available > with_all_in_use);
    ck_assert(spte_list_remove(&c, &l, &sptes[last]));
    ck_assert(spte_list_is_empty(&l));
    spte_desc_fini(&c);
}
END_TEST

START_TEST(every_removal_order_keeps_the_rest)
{
    for (int n = 2; n <= 32; n++) {
        for (int first = 0; first < n; first++) {
            struct spte_desc_cache c = {0};
            struct spte_list l = {0};
            ck_assert(spte_desc_topup(&c, 4));
            for (int i = 0; i < n; i++)
                spte_list_add(&c, &l, &sptes[i]);
            ck_assert(spte_list_remove(&c, &l, &sptes[first]));
            ck_assert_uint_eq(spte_list_count(&l), n - 1);
            for (int i = 0; i < n; i++)
                ck_assert_uint_eq(spte_list_occurrences(&l, &sptes[i]), i != first);
            for (int i = 0; i < n; i++)
                spte_list_remove(&c, &l, &sptes[i]);
            ck_assert(spte_list_is_empty(&l));
            spte_desc_fini(&c);
        }
    }
}
END_TEST

START_TEST(chunks_are_made_on_first_use_only)
{
    struct spte_desc_cache c = {0};
    struct memslot s = slot_of(0x100, 1 << 20);
    ck_assert_ptr_null(rmap_head(&s, 0x100, 1));
    ck_assert(rmap_prepare(&s, 0x5000, 1, &c));
    ck_assert_ptr_nonnull(rmap_head(&s, 0x5000, 1));
    ck_assert_ptr_null(rmap_head(&s, 0x9000, 1));
    ck_assert_ptr_null(rmap_head(&s, 0x5000, 2));
    rmap_release(&s);
    ck_assert_ptr_null(s.rmap);
    spte_desc_fini(&c);
}
END_TEST

START_TEST(range_walk_finds_each_used_head_once_at_each_level)
{
    struct spte_desc_cache c = {0};
    struct memslot s = slot_of(0x300, 1 << 20); /* not aligned to 2 MiB */
    gfn_t at[] = {0x300, 0x3ff, 0x400, 0x5fff, 0x80000, 0x300 + (1 << 20) - 1};
    for (int level = 1; level <= 3; level++) {
        for (unsigned i = 0; i < 6; i++) {
            ck_assert(rmap_prepare(&s, at[i], level, &c));
            rmap_add(&c, &s, at[i], level, &sptes[i]);
        }
        unsigned found = 0;
        gfn_t gfn = s.base, end = s.base + s.pages;
        while (rmap_next_used(&s, level, &gfn, end)) {
            found += spte_list_count(rmap_head(&s, gfn, level));
            gfn = (gfn | (level_pages(level) - 1)) + 1;
        }
        ck_assert_uint_eq(found, 6);
        ck_assert_uint_eq(rmap_count(&s), 6);
        gfn = 0x401;
        ck_assert_int_eq(rmap_next_used(&s, level, &gfn, 0x5ff) != NULL, level > 1);
        for (unsigned i = 0; i < 6; i++)
            ck_assert(rmap_remove(&c, &s, at[i], level, &sptes[i]));
        ck_assert_uint_eq(rmap_count(&s), 0);
    }
    ck_assert_uint_ge(c.bytes.now, 12 * 512 * sizeof(struct spte_list) + c.available * sizeof(struct spte_desc));
    rmap_release(&s);
    spte_desc_fini(&c);
    ck_assert_uint_eq(c.bytes.now, 0); /* all of it was counted */
    ck_assert_uint_gt(c.bytes.peak, 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("rmap");
    TCase *t = tcase_create("rmap");
    tcase_add_test(t, list_of_one_needs_no_descriptor);
    tcase_add_test(t, chained_list_holds_thousands_and_goes_back_to_single);
    tcase_add_test(t, every_removal_order_keeps_the_rest);
    tcase_add_test(t, chunks_are_made_on_first_use_only);
    tcase_add_test(t, range_walk_finds_each_used_head_once_at_each_level);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
