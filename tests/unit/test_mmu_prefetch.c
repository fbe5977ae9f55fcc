/* Neighbours that are mapped along with the page that faults. */
#include "core/host/host_ops.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define RAM (8ull << 20)
#define GVA 0x40000000ull

static struct rig rig;
static struct rig *const r = &rig;

static struct shadow *sh(void)
{
    return r->mmu->engine;
}

/* Sixteen pages at GVA, used before by the guest; the host has their frames. */
static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM});
    for (unsigned i = 0; i < 16; i++) {
        rig_put(r, 0x10000 + i * 0x1000, i);
        rig_map(r, GVA + i * 0x1000, 0x10000 + i * 0x1000, PTE_ALL | PTE_A | PTE_D);
    }
    rig_long_mode(r, 0x1000);
}

static void teardown(void)
{
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_close(r);
}

static uint64_t spte_at(gva_t gva)
{
    int level = 0;
    uint64_t *sptep = shadow_walk(sh(), r->v->set->root, gva, &level);
    return sptep && level == 1 ? *sptep : 0;
}

START_TEST(used_neighbours_of_the_group_of_eight_are_mapped_along)
{
    rig_expect(r, GVA + 0x3000, ACCESS_READ, 0x13000);
    ck_assert_uint_eq(sh()->stats.prefetches, 7);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_int_eq(spte_is_present(spte_at(GVA + i * 0x1000)), i < 8);
    uint64_t walks = r->mmu->stats.guest_walks;
    for (unsigned i = 0; i < 8; i++)
        rig_expect(r, GVA + i * 0x1000, ACCESS_WRITE, 0x10000 + i * 0x1000);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
}
END_TEST

START_TEST(neighbour_that_was_never_used_is_left_alone)
{
    rig_put(r, 0x4000, 0x10000 | PTE_ALL);                                     /* A is clear */
    rig_put(r, 0x4008, 0x11000 | PTE_U | PTE_A);                               /* not present */
    rig_put(r, 0x4010, 0x12000 | PTE_ALL | PTE_A | 1ull << 45);                /* reserved */
    rig_put(r, 0x4020, 0x40000000 | PTE_ALL | PTE_A);                          /* no memory */
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x15000, PAGE_SIZE), 0); /* no frame */
    rig_expect(r, GVA + 0x3000, ACCESS_READ, 0x13000);
    ck_assert_uint_eq(sh()->stats.prefetches, 2);
    ck_assert_uint_eq(rig_get(r, 0x4000), 0x10000 | PTE_ALL);
    ck_assert_int_eq(host_mm_peek(r->mm, r->hva + 0x15000).state, HPTE_NONE);
    rig_expect_fault(r, GVA + 0x2000, ACCESS_READ, PF_PRESENT | PF_RSVD);
}
END_TEST

START_TEST(prefetched_page_is_not_young_until_it_is_used)
{
    rig_expect(r, GVA + 0x3000, ACCESS_READ, 0x13000);
    ck_assert(!(spte_at(GVA + 0x4000) & SPTE_ACCESSED));
    ck_assert(!notify_test_young(r->mm, r->hva + 0x14000));
    rig_expect(r, GVA + 0x4000, ACCESS_READ, 0x14000);
    ck_assert(notify_test_young(r->mm, r->hva + 0x14000));
}
END_TEST

START_TEST(prefetched_page_follows_guest_and_host_as_any_other)
{
    rig_expect(r, GVA + 0x3000, ACCESS_READ, 0x13000);
    rig_put(r, 0x4020, 0x20000 | PTE_P | PTE_U | PTE_A);
    rig_expect(r, GVA + 0x4000, ACCESS_READ, 0x20000);
    ck_assert_int_eq(host_mm_migrate(r->mm, r->hva + 0x15000), 0);
    ck_assert_uint_eq(spte_at(GVA + 0x5000), 0);
    track_add(r->mem, 0, 0x16, TRACK_CODE);
    ck_assert(!(spte_at(GVA + 0x6000) & SPTE_WRITABLE));
    rig_expect(r, GVA + 0x6000, ACCESS_WRITE, 0x16000);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA + 0x6000, 8));
    track_remove(r->mem, 0, 0x16, TRACK_CODE);
}
END_TEST

START_TEST(neighbour_in_an_invalidation_is_not_mapped)
{
    struct notify_range range = {.mm = r->mm, .start = r->hva + 0x14000, .end = r->hva + 0x16000};
    ck_assert_int_eq(notify_invalidate_range_start(&range), 0);
    rig_expect(r, GVA + 0x3000, ACCESS_READ, 0x13000);
    ck_assert_uint_eq(sh()->stats.prefetches, 5);
    ck_assert_uint_eq(spte_at(GVA + 0x4000) | spte_at(GVA + 0x5000), 0);
    notify_invalidate_range_end(&range);
}
END_TEST

START_TEST(thirty_two_bit_neighbours_are_found_in_both_quadrants)
{
    rig_close(r);
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM});
    rig_poke(r, 0x1000 + 256 * 4, 0x2000 | PTE_ALL, 4);
    for (unsigned i = 0; i < 8; i++) {
        rig_put(r, 0x10000 + i * 0x1000, i);
        rig_poke(r, 0x2000 + i * 4, (0x10000 + i * 0x1000) | PTE_ALL | PTE_A, 4);
        rig_poke(r, 0x2000 + (512 + i) * 4, (0x10000 + i * 0x1000) | PTE_ALL | PTE_A, 4);
    }
    r->regs.cr0 = CR0_PE | CR0_PG;
    r->regs.cr3 = 0x1000;
    rig_load(r);
    rig_expect(r, 0x40002000, ACCESS_READ, 0x12000);
    rig_expect(r, 0x40205000, ACCESS_READ, 0x15000);
    ck_assert_uint_eq(sh()->stats.prefetches, 14);
    for (unsigned i = 0; i < 8; i++) {
        rig_expect(r, 0x40000000 + i * 0x1000, ACCESS_READ, 0x10000 + i * 0x1000);
        rig_expect(r, 0x40200000 + i * 0x1000, ACCESS_READ, 0x10000 + i * 0x1000);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("prefetch");
    TCase *t = tcase_create("prefetch");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, used_neighbours_of_the_group_of_eight_are_mapped_along);
    tcase_add_test(t, neighbour_that_was_never_used_is_left_alone);
    tcase_add_test(t, prefetched_page_is_not_young_until_it_is_used);
    tcase_add_test(t, prefetched_page_follows_guest_and_host_as_any_other);
    tcase_add_test(t, neighbour_in_an_invalidation_is_not_mapped);
    tcase_add_test(t, thirty_two_bit_neighbours_are_found_in_both_quadrants);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
