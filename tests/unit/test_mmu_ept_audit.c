/* The audit of the EPT engine: each invariant is broken on purpose, behind the engine's back, and must be named. */
#include "mmu/ept/ept_internal.h"
#include "mmu_rig.h"

#define GVA  0x40000000ull
#define PAGE 0x10000ull
#define RAM  (4ull << 20)

static struct rig rig;
static struct rig *const r = &rig;

static struct ept *ept(void)
{
    return ept_of(r->mmu);
}

static uint64_t *leaf_of(gpa_t gpa, struct ept_table **t)
{
    return ept_lookup(ept(), 0, gpa >> PAGE_SHIFT, t);
}

static uint64_t *leaf(gpa_t gpa)
{
    struct ept_table *t;
    return leaf_of(gpa, &t);
}

static struct ept_table *page_table(void)
{
    struct ept_table *t;
    leaf_of(PAGE, &t);
    return t;
}

/* A machine with one page mapped for writing and in the TLB. */
static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_EPT, .ram = RAM});
    rig_map(r, GVA, PAGE, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    ck_assert_msg(rig_audit(r, false) == 0, "%s", r->report);
}

/* What is damaged stays so: the machine is left behind. */
static void expect_named(int invariant, const char *text)
{
    char prefix[32];
    snprintf(prefix, sizeof prefix, "invariant %d:", invariant);
    ck_assert_uint_gt(rig_audit(r, true), 0);
    ck_assert_msg(strncmp(r->report, prefix, strlen(prefix)) == 0, "%s", r->report);
    ck_assert_msg(strstr(r->report, text) != NULL, "%s", r->report);
}

START_TEST(leaf_that_was_not_counted_is_invariant_1)
{
    struct ept_table *t = page_table();
    rig_put(r, PAGE + 0x1000, 1);
    uint64_t pfn = host_mm_peek(r->mm, r->hva + PAGE + 0x1000).pfn;
    ept_entry_set(t, leaf(PAGE) + 1, ept_make_leaf(pfn, 1, EPT_R | EPT_X, false));
    expect_named(1, "counted");
}
END_TEST

START_TEST(table_of_another_place_is_invariant_8)
{
    page_table()->gfn += 512;
    expect_named(8, "links to a table of another place");
}
END_TEST

START_TEST(wrong_frame_is_invariant_2)
{
    tlb_flush_all(r->mmu);
    *leaf(PAGE) += 1ull << PAGE_SHIFT;
    expect_named(2, "another frame");
}
END_TEST

START_TEST(leaf_without_a_host_frame_is_invariant_2)
{
    uint64_t e = *leaf(PAGE);
    struct ept_table *t = page_table();
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + PAGE, 0x1000), 0);
    ept_entry_set(t, leaf(PAGE), e);
    ept()->stats.small_leaves++;
    expect_named(2, "holds no frame");
}
END_TEST

START_TEST(leaf_without_a_memslot_is_invariant_2)
{
    struct ept_table *t;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0x10000000, 0x1000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA + 0x1000, 0x10000000, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x10000000);
    uint64_t e = *leaf_of(0x10000000, &t);
    ck_assert_int_eq(mem_slot_delete(r->mem, 0, 0x10000000), 0);
    ept_entry_set(t, &t->entry[0], e);
    ept()->stats.small_leaves++;
    expect_named(2, "no memslot");
}
END_TEST

START_TEST(current_marker_over_a_memslot_is_invariant_2)
{
    struct ept_table *t = page_table();
    ept_entry_set(t, &t->entry[100], ept_make_marker(mem_generation(r->mem)));
    expect_named(2, "marks MMIO where a memslot is");
}
END_TEST

START_TEST(right_that_the_host_does_not_give_is_invariant_3)
{
    ck_assert_int_eq(host_mm_mprotect(r->mm, r->hva + PAGE, 0x1000, HOST_READ), 0);
    rig_expect(r, GVA, ACCESS_READ, PAGE);
    tlb_flush_all(r->mmu);
    *leaf(PAGE) |= EPT_W | EPT_HOST_W;
    expect_named(3, "the host's entry is not");
}
END_TEST

START_TEST(writing_to_rom_is_invariant_3)
{
    gpa_t rom = 0x1000000;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, rom, 0x1000, r->hva + RAM, MEMSLOT_ROM), 0);
    uint64_t byte = 1;
    mem_access(r->mem, 0, rom, &byte, 8, MEM_HOST_POKE, true, 0);
    rig_map(r, GVA + 0x1000, rom, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, rom);
    tlb_flush_all(r->mmu);
    *leaf(rom) |= EPT_W | EPT_HOST_W;
    expect_named(3, "the memslot is ROM");
}
END_TEST

START_TEST(right_that_is_restricted_is_invariant_3)
{
    ck_assert(ept_restrict(r->mmu, 0, PAGE >> 12, 1, EPT_R));
    *leaf(PAGE) |= EPT_X;
    expect_named(3, "restricted");
}
END_TEST

START_TEST(writable_leaf_without_its_host_bit_is_invariant_3)
{
    *leaf(PAGE) &= ~EPT_HOST_W;
    expect_named(3, "without a writable host entry");
}
END_TEST

START_TEST(tlb_entry_that_outlives_its_leaf_is_invariant_7)
{
    ept_entry_set(page_table(), leaf(PAGE), 0);
    ept()->stats.small_leaves--;
    expect_named(7, "outlives its EPT leaf");
}
END_TEST

START_TEST(tlb_write_tag_beyond_its_leaf_is_invariant_7)
{
    *leaf(PAGE) &= ~EPT_W;
    expect_named(7, "permits more than its EPT leaf");
}
END_TEST

START_TEST(tlb_write_tag_without_the_leafs_d_bit_is_invariant_7)
{
    *leaf(PAGE) &= ~EPT_D;
    expect_named(7, "D bit of its EPT leaf");
}
END_TEST

START_TEST(tlb_entry_that_points_elsewhere_is_invariant_7)
{
    r->v->cur_data[tlb_index(GVA)].host += 4096;
    expect_named(7, "another frame");
}
END_TEST

START_TEST(tlb_entry_of_another_vpid_is_invariant_7)
{
    r->v->set->vpid = 99;
    expect_named(7, "VPID");
}
END_TEST

START_TEST(guest_entry_changed_unseen_is_invariant_7)
{
    uint64_t *p = (uint64_t *)(uintptr_t)host_mm_peek_content(r->mm, r->hva + 0x4000);
    *p = 0x20000 | PTE_ALL | PTE_A | PTE_D;
    expect_named(7, "map another page");
}
END_TEST

START_TEST(untracked_guest_table_is_invariant_7)
{
    track_remove(r->mem, 0, 4, TRACK_PT);
    expect_named(7, "not tracked");
}
END_TEST

START_TEST(illegal_entry_is_invariant_8)
{
    tlb_flush_all(r->mmu);
    *leaf(PAGE) |= 1ull << 50;
    expect_named(8, "MAXPHYADDR");
}
END_TEST

START_TEST(entry_that_is_neither_empty_nor_present_is_invariant_8)
{
    page_table()->entry[99] = EPT_A;
    expect_named(8, "not present, but not empty");
}
END_TEST

START_TEST(link_to_no_table_is_invariant_8)
{
    tlb_flush_all(r->mmu);
    *page_table()->parent = ept_make_link(EPT_TABLES_HPA + (1000ull << PAGE_SHIFT));
    expect_named(8, "links to no table");
}
END_TEST

START_TEST(wrong_count_of_entries_is_invariant_8)
{
    page_table()->used++;
    expect_named(8, "counted");
}
END_TEST

START_TEST(table_that_nothing_links_to_is_invariant_8)
{
    struct ept_table *t = ept_root_table(ept(), 0);
    uint64_t unlinked = t->entry[0];
    tlb_flush_all(r->mmu);
    ept_entry_set(t, &t->entry[0], 0);
    ck_assert_uint_ne(unlinked, 0);
    expect_named(8, "tables reached");
}
END_TEST

START_TEST(bad_eptp_is_invariant_8)
{
    tlb_flush_all(r->mmu);
    ept()->root[1].eptp |= 1ull << 9;
    expect_named(8, "reserved bit");
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        leaf_that_was_not_counted_is_invariant_1,
        table_of_another_place_is_invariant_8,
        wrong_frame_is_invariant_2,
        leaf_without_a_host_frame_is_invariant_2,
        leaf_without_a_memslot_is_invariant_2,
        current_marker_over_a_memslot_is_invariant_2,
        right_that_the_host_does_not_give_is_invariant_3,
        writing_to_rom_is_invariant_3,
        right_that_is_restricted_is_invariant_3,
        writable_leaf_without_its_host_bit_is_invariant_3,
        tlb_entry_that_outlives_its_leaf_is_invariant_7,
        tlb_write_tag_beyond_its_leaf_is_invariant_7,
        tlb_write_tag_without_the_leafs_d_bit_is_invariant_7,
        tlb_entry_that_points_elsewhere_is_invariant_7,
        tlb_entry_of_another_vpid_is_invariant_7,
        guest_entry_changed_unseen_is_invariant_7,
        untracked_guest_table_is_invariant_7,
        illegal_entry_is_invariant_8,
        entry_that_is_neither_empty_nor_present_is_invariant_8,
        link_to_no_table_is_invariant_8,
        wrong_count_of_entries_is_invariant_8,
        table_that_nothing_links_to_is_invariant_8,
        bad_eptp_is_invariant_8,
    };
    return suite_of_case("mmu: ept audit", "audit", tests, ARRAY_LEN(tests), setup, NULL, 0);
}

CHECK_MAIN(suite)
