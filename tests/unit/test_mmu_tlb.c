/*
 * The soft TLB by itself: tags, installing, dropping, sets and modes.
 */
#include "mmu/mem.h"
#include "mmu_rig.h"

static struct rig rig;
static uint8_t page_bytes[PAGE_SIZE];

static void setup(void)
{
    rig_open(&rig, &(struct rig_config){.kind = MMU_WALK, .ram = 4 << 20, .vcpus = 2});
    rig_load(&rig);
}

static void teardown(void)
{
    rig_close(&rig);
}

static void install(gva_t gva, gpa_t gpa, bool write, uint64_t dep)
{
    struct tlb_fill f = {.gva = gva,
                         .gpa = gpa,
                         .host = page_bytes,
                         .read = true,
                         .write = write,
                         .fetch = true,
                         .meta = {.dep = {dep, ~0ull, ~0ull, ~0ull, ~0ull}}};
    tlb_install(rig.v, TLB_SUPER, &f);
}

static bool is_cached(gva_t gva)
{
    return tlb_lookup_read(rig.v, gva, 1) != NULL;
}

/* Every gva of a slot has the slot's index in page bits 0..8; it can differ from the empty tag's page only upwards. */
START_TEST(empty_tag_of_each_slot_matches_no_address_of_the_slot)
{
    for (unsigned i = 0; i < TLB_SIZE; i++) {
        gva_t matched = -tlb_empty_tag(i); /* the only page that the tag would match */
        ck_assert_uint_eq(matched & PAGE_MASK, 0);
        ck_assert_uint_ne(tlb_index(matched) & 511, i & 511);
        ck_assert_uint_ne(tlb_index(matched), i);
        ck_assert_uint_ne(tlb_fetch_index(matched), i);
    }
    for (unsigned i = 0; i < TLB_SIZE * 4; i++) {
        gva_t gva = ((gva_t)i * 0x1003ull) << PAGE_SHIFT | 0xffe;
        ck_assert_ptr_null(tlb_lookup_read(rig.v, gva, 1));
        ck_assert_ptr_null(tlb_lookup_write(rig.v, gva, 1));
        ck_assert_ptr_null(tlb_lookup_fetch(rig.v, gva));
    }
}
END_TEST

START_TEST(low_nine_index_bits_are_page_bits_12_to_20)
{
    for (unsigned i = 0; i < 100000; i++) {
        gva_t gva = (gva_t)i * 0x9e3779b97f4a7c15ull;
        ck_assert_uint_eq(tlb_index(gva) & 511, (gva >> 12) & 511);
        ck_assert_uint_lt(tlb_index(gva), TLB_SIZE);
        ck_assert_uint_eq(tlb_fetch_index(gva) & 511, (gva >> 12) & 511);
        ck_assert_uint_lt(tlb_fetch_index(gva), TLB_FETCH_SIZE);
    }
}
END_TEST

START_TEST(hit_needs_the_page_the_right_and_room_to_its_end)
{
    install(0xffff888000005000, 0x5000, false, 0x111000);
    ck_assert_ptr_eq(tlb_lookup_read(rig.v, 0xffff888000005ff8, 8), page_bytes + 0xff8);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, 0xffff888000005ff9, 8));
    ck_assert_ptr_eq(tlb_lookup_read(rig.v, 0xffff888000005fff, 1), page_bytes + 0xfff);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, 0xffff888000005000, 1));
    ck_assert_ptr_null(tlb_lookup_read(rig.v, 0xffff888000006000, 1));
    ck_assert_ptr_null(tlb_lookup_read(rig.v, 0x5000, 1));
    ck_assert_ptr_nonnull(tlb_lookup_fetch(rig.v, 0xffff888000005fff));
    install(0xffff888000005000, 0x5000, true, 0x111000);
    ck_assert_ptr_eq(tlb_lookup_write(rig.v, 0xffff888000005010, 4), page_bytes + 0x10);
}
END_TEST

START_TEST(drop_by_leaf_dependency_takes_all_its_entries_and_no_other)
{
    for (unsigned i = 0; i < 64; i++) /* the same guest entry at 64 gvas with equal bits 12..20 */
        install(0x7000ull + ((gva_t)i << 21), 0x5000, true, 0xabc038);
    install(0x8000, 0x6000, true, 0xabc040);
    unsigned live = 0;
    for (unsigned i = 0; i < 64; i++)
        live += is_cached(0x7000ull + ((gva_t)i << 21));
    ck_assert_uint_ge(live, 4);
    ck_assert_uint_le(live, TLB_WAYS);
    uint64_t epoch = rig.v->fetch_epoch;
    ck_assert_uint_ge(tlb_drop_leaf(rig.mmu, 0xabc038, 7, TLB_ALL_WAYS), live);
    for (unsigned i = 0; i < 64; i++)
        ck_assert(!is_cached(0x7000ull + ((gva_t)i << 21)));
    ck_assert(is_cached(0x8000));
    ck_assert_uint_gt(rig.v->fetch_epoch, epoch);
    ck_assert_uint_eq(tlb_drop_leaf(rig.mmu, 0xabc038, 7, TLB_ALL_WAYS), 0);
}
END_TEST

START_TEST(drop_by_upper_dependency_finds_it_anywhere)
{
    struct tlb_fill f = {.gva = 0x1234000,
                         .gpa = 0x5000,
                         .host = page_bytes,
                         .read = true,
                         .meta = {.dep = {0x1008, 0x2008, 0x3008, 0x4008, ~0ull}}};
    tlb_install(rig.v, TLB_USER, &f);
    tlb_install(rig.v, TLB_SUPER, &f);
    f.meta.dep[3] = 0x4010;
    f.gva = 0x5678000;
    tlb_install(rig.v, TLB_SUPER, &f);
    ck_assert_uint_eq(tlb_drop_dep(rig.mmu, 0x4008), 2);
    ck_assert_uint_eq(tlb_drop_dep_range(rig.mmu, 0x3008, 0x5600000, 512), 1);
    ck_assert(!is_cached(0x5678000));
}
END_TEST

START_TEST(drop_by_dependency_range_spares_what_lies_outside)
{
    for (unsigned i = 0; i < 1024; i++)
        install((gva_t)i << 12, 0x5000, true, 0x3000);
    ck_assert_uint_eq(tlb_drop_dep_range(rig.mmu, 0x3000, 0x200000, 512), 1024);
    for (unsigned i = 0; i < 1024; i++)
        ck_assert_int_eq(is_cached((gva_t)i << 12), i < 512);
}
END_TEST

START_TEST(drop_by_gfn_takes_data_and_fetch_entries)
{
    install(0x1000, 0x5000, true, 0x111000);
    install(0x2000, 0x6000, true, 0x111008);
    install(0x3000, 0x7000, true, 0x111010);
    ck_assert_uint_eq(tlb_drop_gfns(rig.mmu, 5, 2), 4);
    ck_assert(!is_cached(0x1000));
    ck_assert(!is_cached(0x2000));
    ck_assert(is_cached(0x3000));
    ck_assert_ptr_null(tlb_lookup_fetch(rig.v, 0x1000));
}
END_TEST

START_TEST(protecting_takes_the_write_tag_and_marks_the_entry)
{
    install(0x1000, 0x5000, true, 0x111000);
    ck_assert_uint_eq(tlb_page_apply(rig.mmu, 0x1000, 5, TLB_TEST_WRITE), 1);
    ck_assert_uint_eq(tlb_page_apply(rig.mmu, 0x1000, 6, TLB_PROTECT), 0);
    ck_assert_uint_eq(tlb_page_apply(rig.mmu, 0x1000, 5, TLB_PROTECT), 1);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, 0x1000, 1));
    ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, 0x1000, 1));
    ck_assert_uint_eq(rig.v->cur_data[tlb_index(0x1000)].gpa, 0x5000 | TLB_GPA_WRITE_EMUL);
    ck_assert_uint_eq(tlb_page_apply(rig.mmu, 0x1000, 5, TLB_TEST_WRITE), 0);
}
END_TEST

START_TEST(flush_empties_every_set)
{
    install(0x1000, 0x5000, true, 0x111000);
    tlb_flush_all(rig.mmu);
    ck_assert(!is_cached(0x1000));
    ck_assert_ptr_null(tlb_lookup_fetch(rig.v, 0x1000));
    install(0x1000, 0x5000, true, 0x111000);
    ck_assert(is_cached(0x1000));
}
END_TEST

START_TEST(evicted_fetch_entry_moves_the_epoch)
{
    install(0x1000, 0x5000, true, 0x111000);
    uint64_t epoch = rig.v->fetch_epoch;
    install(0x1000, 0x5000, true, 0x111000); /* the same again */
    ck_assert_uint_eq(rig.v->fetch_epoch, epoch);
    for (gva_t gva = 0x201000; rig.v->fetch_epoch == epoch && gva < 0x2001000; gva += 0x200000)
        install(gva, 0x6000, true, 0x111000);
    ck_assert_uint_gt(rig.v->fetch_epoch, epoch);
}
END_TEST

/* ---- sets ---- */

static void load_cr3(uint64_t cr3)
{
    rig.regs.cr3 = cr3;
    rig_long_mode(&rig, cr3);
}

START_TEST(switching_back_to_a_cached_root_finds_its_entries)
{
    for (unsigned i = 0; i < TLB_SETS; i++) {
        load_cr3(0x10000 + i * 0x1000);
        install(0x1000, 0x5000, true, 0x111000 + i);
    }
    for (unsigned i = 0; i < TLB_SETS; i++) {
        load_cr3(0x10000 + i * 0x1000);
        ck_assert(is_cached(0x1000));
    }
    load_cr3(0x90000); /* recycles the least recently used: the first */
    ck_assert(!is_cached(0x1000));
    load_cr3(0x11000);
    ck_assert(is_cached(0x1000));
    load_cr3(0x10000);
    ck_assert(!is_cached(0x1000));
}
END_TEST

START_TEST(root_key_ignores_what_selects_no_translation)
{
    load_cr3(0x10000);
    const struct tlb_set *set = rig.v->set;
    rig.regs.cr3 |= 0x18; /* PWT, PCD */
    rig.regs.cr4 |= CR4_PGE;
    rig.regs.pkru = 0xc; /* without CR4.PKE */
    rig.regs.pdpte[0] = 1;
    rig.regs.cr0 |= 1 << 5;
    rig.regs.ac = true;
    rig.regs.cpl = 3;
    rig_load(&rig);
    ck_assert_ptr_eq(rig.v->set, set);
    rig.regs.cr0 &= ~CR0_WP;
    rig_load(&rig);
    ck_assert_ptr_ne(rig.v->set, set);
    rig.regs.cr0 |= CR0_WP;
    rig.regs.cr4 |= CR4_PKE;
    rig_load(&rig);
    ck_assert_ptr_ne(rig.v->set, set);
    rig.regs.cr4 &= ~CR4_PKE;
    rig.regs.as = 1;
    rig_load(&rig);
    ck_assert_ptr_ne(rig.v->set, set);
}
END_TEST

START_TEST(modes_have_their_own_tables)
{
    rig.regs.cr4 = CR4_SMAP;
    load_cr3(0x10000);
    rig.regs.cr4 |= CR4_SMAP;
    rig_load(&rig);
    struct tlb_fill f = {.gva = 0x1000,
                         .gpa = 0x5000,
                         .host = page_bytes,
                         .read = true,
                         .fetch = true,
                         .meta = {.dep = {8, ~0ull, ~0ull, ~0ull, ~0ull}}};
    tlb_install(rig.v, TLB_USER, &f);
    ck_assert(!is_cached(0x1000));
    uint64_t epoch = rig.v->fetch_epoch;
    mmu_vcpu_set_mode(rig.v, 3, false);
    ck_assert(is_cached(0x1000));
    ck_assert_ptr_nonnull(tlb_lookup_fetch(rig.v, 0x1000));
    ck_assert_uint_gt(rig.v->fetch_epoch, epoch);
    mmu_vcpu_set_mode(rig.v, 0, true);
    ck_assert(!is_cached(0x1000));
    tlb_install(rig.v, TLB_SUPER_AC, &f);
    ck_assert(is_cached(0x1000));
    mmu_vcpu_set_mode(rig.v, 0, false);
    ck_assert(!is_cached(0x1000));
}
END_TEST

START_TEST(vcpus_have_their_own_sets_and_drops_reach_all)
{
    struct mmu_vcpu *other = mmu_vcpu_get(rig.mmu, 1);
    mmu_vcpu_load(other, &rig.regs);
    install(0x1000, 0x5000, true, 0x111000);
    ck_assert_ptr_null(tlb_lookup_read(other, 0x1000, 1));
    struct tlb_fill f = {.gva = 0x1000,
                         .gpa = 0x5000,
                         .host = page_bytes,
                         .read = true,
                         .meta = {.dep = {0x111000, ~0ull, ~0ull, ~0ull, ~0ull}}};
    tlb_install(other, TLB_SUPER, &f);
    ck_assert_uint_eq(tlb_drop_leaf(rig.mmu, 0x111000, 1, tlb_way_bit(0x1000)), 3);
    ck_assert_ptr_null(tlb_lookup_read(other, 0x1000, 1));
    ck_assert_ptr_null(mmu_vcpu_get(rig.mmu, 2));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mmu: soft TLB");
    TCase *t = tcase_create("tlb");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, empty_tag_of_each_slot_matches_no_address_of_the_slot);
    tcase_add_test(t, low_nine_index_bits_are_page_bits_12_to_20);
    tcase_add_test(t, hit_needs_the_page_the_right_and_room_to_its_end);
    tcase_add_test(t, drop_by_leaf_dependency_takes_all_its_entries_and_no_other);
    tcase_add_test(t, drop_by_upper_dependency_finds_it_anywhere);
    tcase_add_test(t, drop_by_dependency_range_spares_what_lies_outside);
    tcase_add_test(t, drop_by_gfn_takes_data_and_fetch_entries);
    tcase_add_test(t, protecting_takes_the_write_tag_and_marks_the_entry);
    tcase_add_test(t, flush_empties_every_set);
    tcase_add_test(t, evicted_fetch_entry_moves_the_epoch);
    tcase_add_test(t, switching_back_to_a_cached_root_finds_its_entries);
    tcase_add_test(t, root_key_ignores_what_selects_no_translation);
    tcase_add_test(t, modes_have_their_own_tables);
    tcase_add_test(t, vcpus_have_their_own_sets_and_drops_reach_all);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
