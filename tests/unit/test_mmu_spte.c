/* The spte's layout: what goes in comes out, and no field disturbs another. */
#include "check_main.h"
#include "mmu/shadow/gpte.h"

START_TEST(leaf_keeps_frame_and_rights)
{
    uint64_t rights = spte_rights(ACC_W | ACC_X, true, 11);
    uint64_t s = spte_make_leaf(0x123456789, 1, rights, true, false);
    ck_assert(spte_is_present(s) && spte_is_leaf(s, 1) && !spte_is_link(s, 1) && !spte_is_mmio(s));
    ck_assert_uint_eq(spte_pfn(s), 0x123456789);
    ck_assert_uint_eq(s & SPTE_GUEST_RIGHTS, rights);
    ck_assert_uint_eq(spte_acc(s), ACC_W | ACC_X);
    ck_assert_uint_eq(spte_pkey(s), 11);
}
END_TEST

START_TEST(writable_needs_dirty_guest_entry_writable_host_entry_and_no_tracking)
{
    for (unsigned i = 0; i < 8; i++) {
        bool dirty = i & 1, host_w = i & 2, emul = i & 4;
        uint64_t s = spte_make_leaf(1, 1, spte_rights(ACC_ALL, dirty, 0), host_w, emul);
        ck_assert_int_eq(!!(s & SPTE_WRITABLE), dirty && host_w && !emul);
    }
}
END_TEST

START_TEST(levels_above_one_tell_leaf_from_link)
{
    uint64_t large = spte_make_leaf(512, 2, spte_rights(ACC_ALL, true, 0), true, false), link = spte_make_link(77);
    ck_assert(spte_is_leaf(large, 2) && !spte_is_link(large, 2));
    ck_assert(spte_is_link(link, 2) && !spte_is_leaf(link, 2));
    ck_assert_uint_eq(spte_child(link), 77);
}
END_TEST

START_TEST(mmio_spte_dies_with_its_generation)
{
    uint64_t rights = spte_rights(ACC_ALL, true, 15);
    for (uint64_t gen = 0; gen < 1u << SPTE_GEN_BITS; gen += 37) {
        uint64_t s = spte_make_mmio(0xfee00, rights, gen);
        ck_assert(spte_is_mmio(s) && !spte_is_present(s));
        ck_assert(spte_mmio_is_current(s, gen));
        ck_assert(!spte_mmio_is_current(s, gen + 1));
        ck_assert(!spte_mmio_is_current(s, gen + 16));
        ck_assert_uint_eq(spte_mmio_gfn(s), 0xfee00);
        ck_assert_uint_eq(s & SPTE_GUEST_RIGHTS, rights);
    }
}
END_TEST

START_TEST(four_mib_entry_covers_two_sptes)
{
    union sp_role role = {.level = 2, .format = PAGING_32, .pse = 1, .pse36 = 1};
    uint64_t gpte = 0x00c00000 | 0x5ull << 13 | GPTE_PS | GPTE_P;
    ck_assert_uint_eq(gpte_gfn(role, gpte, 6), (0x500c00000ull) >> 12);
    ck_assert_uint_eq(gpte_gfn(role, gpte, 7), (0x500c00000ull + 0x200000) >> 12);
}
END_TEST

START_TEST(guest_entry_of_an_spte_is_found_by_quadrant)
{
    struct sp sp = {.gfn = 9, .role = {.level = 1, .format = PAGING_32, .quadrant = 1}};
    ck_assert_uint_eq(sp_gpte_gpa(&sp, 3), 0x9000 + (512 + 3) * 4);
    sp.role.level = 2;
    sp.role.quadrant = 3;
    ck_assert_uint_eq(sp_gpte_gpa(&sp, 5), 0x9000 + (3 * 256 + 2) * 4);
    sp.role = (union sp_role){.level = 3, .format = PAGING_4LEVEL};
    ck_assert_uint_eq(sp_gpte_gpa(&sp, 511), 0x9000 + 511 * 8);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("spte");
    TCase *t = tcase_create("spte");
    tcase_add_test(t, leaf_keeps_frame_and_rights);
    tcase_add_test(t, writable_needs_dirty_guest_entry_writable_host_entry_and_no_tracking);
    tcase_add_test(t, levels_above_one_tell_leaf_from_link);
    tcase_add_test(t, mmio_spte_dies_with_its_generation);
    tcase_add_test(t, four_mib_entry_covers_two_sptes);
    tcase_add_test(t, guest_entry_of_an_spte_is_found_by_quadrant);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
