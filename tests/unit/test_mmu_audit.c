/* The audit: each invariant is broken on purpose, behind the engine's back, and must be named. */
#include "mmu/audit.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define GVA  0x40000000ull
#define PAGE 0x10000ull

static struct rig rig;
static struct rig *const r = &rig;

static struct shadow *sh(void)
{
    return r->mmu->engine;
}

/* A machine with one writable page mapped and in the TLB. */
static void open_machine(enum mmu_kind kind)
{
    rig_open(r, &(struct rig_config){.kind = kind, .ram = 4 << 20});
    rig_map(r, GVA, PAGE, PTE_ALL);
    rig_map(r, GVA + 0x1000, PAGE + 0x1000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    rig_expect(r, GVA + 0x1000, ACCESS_FETCH, PAGE + 0x1000);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    ck_assert_msg(rig_audit(r, false) == 0, "%s", r->report);
}

static void setup(void)
{
    open_machine(MMU_SHADOW);
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

static struct sp *page_at(int level)
{
    for (uint32_t i = 1; i < sh()->fresh; i++) {
        if (sh()->pages[i].live && (int)sh()->pages[i].role.level == level)
            return &sh()->pages[i];
    }
    return NULL;
}

static uint64_t *leaf(void)
{
    return &sp_table(sh(), page_at(1))[sp_index(GVA, 1)];
}

/* The guest's memory, changed without anybody being told. */
static uint64_t *raw(gpa_t gpa)
{
    char *p = (char *)(uintptr_t)host_mm_peek_content(r->mm, r->hva + (gpa & ~PAGE_MASK));
    return (uint64_t *)(p + (gpa & PAGE_MASK));
}

START_TEST(missing_rmap_entry_is_invariant_1)
{
    rmap_remove(&sh()->descs, memslot_at(r->mem, 0), PAGE >> 12, 1, leaf());
    expect_named(1, "gfn 0x4 level 1 entry 0");
}
END_TEST

START_TEST(second_rmap_entry_is_invariant_1)
{
    rmap_prepare(memslot_at(r->mem, 0), PAGE >> 12, 1, &sh()->descs);
    rmap_add(&sh()->descs, memslot_at(r->mem, 0), PAGE >> 12, 1, leaf());
    expect_named(1, "several rmap entries");
}
END_TEST

START_TEST(rmap_entry_of_no_leaf_is_invariant_1)
{
    uint64_t *empty = &sp_table(sh(), page_at(1))[77];
    rmap_prepare(memslot_at(r->mem, 0), 0x20, 1, &sh()->descs);
    rmap_add(&sh()->descs, memslot_at(r->mem, 0), 0x20, 1, empty);
    expect_named(1, "is no leaf");
}
END_TEST

START_TEST(wrong_frame_is_invariant_2)
{
    tlb_flush_all(r->mmu);
    *leaf() += 1ull << SPTE_FRAME_SHIFT;
    expect_named(2, "another frame");
}
END_TEST

START_TEST(right_that_the_guest_does_not_give_is_invariant_3)
{
    tlb_flush_all(r->mmu);
    rig_map(r, GVA, PAGE, PTE_P);
    rig_expect(r, GVA, ACCESS_READ, PAGE);
    tlb_flush_all(r->mmu);
    *leaf() |= SPTE_GUEST_W;
    expect_named(3, "permits more than the guest's entries");
}
END_TEST

START_TEST(right_that_the_host_does_not_give_is_invariant_3)
{
    ck_assert_int_eq(host_mm_mprotect(r->mm, r->hva + PAGE, 0x1000, HOST_READ), 0);
    rig_expect(r, GVA, ACCESS_READ, PAGE);
    tlb_flush_all(r->mmu);
    *leaf() = spte_with_writable(*leaf() | SPTE_HOST_W);
    expect_named(3, "the host entry is not");
}
END_TEST

START_TEST(link_to_a_page_with_more_rights_is_invariant_3)
{
    tlb_flush_all(r->mmu);
    page_at(1)->role.access = ACC_ALL;
    *raw(0x3000) &= ~PTE_U;
    *sp_gptep(sh(), &sp_table(sh(), page_at(2))[0]) &= ~PTE_U;
    expect_named(3, "more rights");
}
END_TEST

START_TEST(writable_spte_of_a_tracked_gfn_is_invariant_4)
{
    tlb_flush_all(r->mmu);
    track_add(r->mem, 0, PAGE >> 12, TRACK_CODE);
    *leaf() = spte_with_writable(*leaf() & ~SPTE_EMUL);
    expect_named(4, "tracked");
}
END_TEST

START_TEST(guest_entry_changed_unseen_is_invariant_5)
{
    tlb_flush_all(r->mmu);
    *raw(0x4000) = 0x20000 | PTE_ALL | PTE_A | PTE_D;
    expect_named(5, "has changed");
}
END_TEST

START_TEST(guest_entry_gone_unseen_is_invariant_5)
{
    tlb_flush_all(r->mmu);
    *raw(0x3000) = 0;
    expect_named(5, "not present");
}
END_TEST

START_TEST(a_bit_cleared_unseen_is_invariant_6)
{
    tlb_flush_all(r->mmu);
    *raw(0x4000) &= ~PTE_A;
    expect_named(6, "A bit");
}
END_TEST

START_TEST(d_bit_cleared_unseen_is_invariant_6)
{
    tlb_flush_all(r->mmu);
    *raw(0x4000) &= ~PTE_D;
    expect_named(6, "D bit");
}
END_TEST

START_TEST(tlb_entry_that_outlives_its_spte_is_invariant_7)
{
    uint64_t *p = leaf();
    *p &= ~SPTE_CACHED; /* so that dropping it forgets the TLB */
    spte_drop(sh(), p);
    expect_named(7, "outlives its spte");
}
END_TEST

START_TEST(tlb_entry_that_its_root_does_not_lead_to_is_invariant_7)
{
    struct shadow_root *root = r->v->set->root;
    sh()->pages[root->sp[0]].root_count--;
    root->sp[0] = 0;
    expect_named(7, "does not lead");
}
END_TEST

START_TEST(tlb_write_tag_beyond_its_spte_is_invariant_7)
{
    *leaf() &= ~SPTE_WRITABLE;
    expect_named(7, "permits writes");
}
END_TEST

START_TEST(tlb_entry_of_an_unmarked_spte_is_invariant_7)
{
    *leaf() &= ~SPTE_CACHED;
    expect_named(7, "not marked as cached");
}
END_TEST

START_TEST(tlb_entry_that_points_elsewhere_is_invariant_7)
{
    r->v->cur_data[tlb_index(GVA)].host += 4096;
    expect_named(7, "another frame");
}
END_TEST

START_TEST(wrong_count_of_used_entries_is_invariant_8)
{
    page_at(2)->used++;
    expect_named(8, "count of used entries");
}
END_TEST

START_TEST(link_missing_in_the_parents_list_is_invariant_8)
{
    struct sp *child = page_at(1);
    struct spte_iter it;
    spte_list_remove(&sh()->descs, &child->parents, spte_list_first(&child->parents, &it));
    expect_named(8, "parents list");
}
END_TEST

START_TEST(parent_that_links_elsewhere_is_invariant_8)
{
    struct sp *child = page_at(1);
    spte_desc_topup(&sh()->descs, 1);
    spte_list_add(&sh()->descs, &child->parents, &sp_table(sh(), page_at(3))[5]);
    expect_named(8, "does not link to it");
    spte_list_remove(&sh()->descs, &child->parents, &sp_table(sh(), page_at(3))[5]);
}
END_TEST

START_TEST(wrong_root_count_is_invariant_8)
{
    page_at(4)->root_count++;
    expect_named(8, "count of roots");
}
END_TEST

START_TEST(page_lost_from_its_hash_chain_is_invariant_8)
{
    memset(sh()->hash, 0, (sh()->hash_mask + 1) * sizeof *sh()->hash);
    expect_named(8, "hash chain");
}
END_TEST

START_TEST(lost_free_page_is_invariant_8)
{
    sh()->fresh++;
    expect_named(8, "free");
    sh()->fresh--;
    mmu_zap_all(r->mmu);
    ck_assert_uint_eq(rig_audit(r, true), 0);
    sh()->free_head = sh()->pages[sh()->free_head].hash_next;
    expect_named(8, "free");
}
END_TEST

START_TEST(untracked_table_is_invariant_8)
{
    track_remove(r->mem, 0, 3, TRACK_PT);
    expect_named(8, "tracking count");
}
END_TEST

START_TEST(touched_audit_looks_at_what_changed_and_only_there)
{
    struct sp *sp = page_at(1);
    tlb_flush_all(r->mmu);
    *leaf() += 1ull << SPTE_FRAME_SHIFT;
    ck_assert_uint_eq(rig_audit(r, false), 0);
    sp_touch(sh(), sp);
    ck_assert_uint_gt(rig_audit(r, false), 0);
    ck_assert_uint_eq(rig_audit(r, false), 0);
}
END_TEST

START_TEST(audit_changes_nothing)
{
    struct mmu_stats before = r->mmu->stats;
    uint64_t *entry = raw(0x4000), value = *entry;
    rig_put(r, 0x4010, 0x20000 | PTE_ALL);
    before.tracked_writes = r->mmu->stats.tracked_writes;
    rig_audit(r, true);
    ck_assert_mem_eq(&before, &r->mmu->stats, sizeof before);
    ck_assert_uint_eq(*entry, value);
    ck_assert_int_eq(host_mm_peek(r->mm, r->hva + 0x20000).state, HPTE_NONE);
    rig_close(r);
}
END_TEST

START_TEST(walk_engine_tlb_entry_without_guest_entry_is_invariant_7)
{
    rig_close(r);
    open_machine(MMU_WALK);
    *raw(0x4000) = 0;
    expect_named(7, "do not permit it");
}
END_TEST

START_TEST(walk_engine_write_tag_on_a_tracked_page_is_invariant_7)
{
    rig_close(r);
    open_machine(MMU_WALK);
    struct tlb_entry before = r->v->cur_data[tlb_index(GVA)];
    track_add(r->mem, 0, PAGE >> 12, TRACK_CODE);
    r->v->cur_data[tlb_index(GVA)] = before;
    expect_named(7, "tracked");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("audit");
    TCase *t = tcase_create("audit");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, missing_rmap_entry_is_invariant_1);
    tcase_add_test(t, second_rmap_entry_is_invariant_1);
    tcase_add_test(t, rmap_entry_of_no_leaf_is_invariant_1);
    tcase_add_test(t, wrong_frame_is_invariant_2);
    tcase_add_test(t, right_that_the_guest_does_not_give_is_invariant_3);
    tcase_add_test(t, right_that_the_host_does_not_give_is_invariant_3);
    tcase_add_test(t, link_to_a_page_with_more_rights_is_invariant_3);
    tcase_add_test(t, writable_spte_of_a_tracked_gfn_is_invariant_4);
    tcase_add_test(t, guest_entry_changed_unseen_is_invariant_5);
    tcase_add_test(t, guest_entry_gone_unseen_is_invariant_5);
    tcase_add_test(t, a_bit_cleared_unseen_is_invariant_6);
    tcase_add_test(t, d_bit_cleared_unseen_is_invariant_6);
    tcase_add_test(t, tlb_entry_that_outlives_its_spte_is_invariant_7);
    tcase_add_test(t, tlb_entry_that_its_root_does_not_lead_to_is_invariant_7);
    tcase_add_test(t, tlb_write_tag_beyond_its_spte_is_invariant_7);
    tcase_add_test(t, tlb_entry_of_an_unmarked_spte_is_invariant_7);
    tcase_add_test(t, tlb_entry_that_points_elsewhere_is_invariant_7);
    tcase_add_test(t, wrong_count_of_used_entries_is_invariant_8);
    tcase_add_test(t, link_missing_in_the_parents_list_is_invariant_8);
    tcase_add_test(t, parent_that_links_elsewhere_is_invariant_8);
    tcase_add_test(t, wrong_root_count_is_invariant_8);
    tcase_add_test(t, page_lost_from_its_hash_chain_is_invariant_8);
    tcase_add_test(t, lost_free_page_is_invariant_8);
    tcase_add_test(t, untracked_table_is_invariant_8);
    tcase_add_test(t, touched_audit_looks_at_what_changed_and_only_there);
    tcase_add_test(t, audit_changes_nothing);
    tcase_add_test(t, walk_engine_tlb_entry_without_guest_entry_is_invariant_7);
    tcase_add_test(t, walk_engine_write_tag_on_a_tracked_page_is_invariant_7);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
