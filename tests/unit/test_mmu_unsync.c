/* Unsync pages: what the guest may write unseen, and when it must become true. */
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define RAM   (8ull << 20)
#define GVA   0x40000000ull
#define TABLE (GVA + 0x1ff000) /* where the leaf table at 0x4000 maps itself */

static struct rig rig;
static struct rig *const r = &rig;

static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM, .vcpus = 2, .unsync = true});
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, TABLE, 0x4000, PTE_ALL);
    rig_long_mode(r, 0x1000);
}

static void teardown(void)
{
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_close(r);
}

static struct shadow *sh(void)
{
    return r->mmu->engine;
}

/* The guest's own store through a mapping. True: nobody was told of it. */
static bool store(gva_t gva, uint64_t value)
{
    struct xlate x = {0};
    uint8_t *host = tlb_lookup_write(r->v, gva, 8);
    if (!host) {
        ck_assert_int_eq(rig_translate(r, gva, ACCESS_WRITE, &x), XLATE_OK);
        host = x.host;
    }
    if (host)
        memcpy(host, &value, 8);
    else
        mem_access(r->mem, 0, x.gpa, &value, 8, MEM_GUEST, true, 0);
    return host;
}

static void expect_tlb_or_walk(gva_t gva, gpa_t gpa)
{
    const struct tlb_entry *e = &r->v->cur_data[tlb_index(gva)];
    if (tlb_lookup_read(r->v, gva, 8))
        ck_assert_uint_eq(e->gpa & ~PAGE_MASK, gpa);
    else
        rig_expect(r, gva, ACCESS_READ, gpa);
}

START_TEST(leaf_table_is_written_freely_after_the_first_write_until_a_flush)
{
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    uint64_t seen = r->mmu->stats.tracked_writes;
    for (unsigned i = 0; i < 16; i++)
        ck_assert(store(TABLE + 8 * i, (0x20000 + i * 0x1000) | PTE_ALL));
    ck_assert_uint_eq(r->mmu->stats.tracked_writes, seen);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, TABLE, 8));
    ck_assert(!track_is_tracked(r->mem, 0, 4));
    ck_assert_uint_eq(sh()->stats.unsyncs, 1);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    mmu_guest_flush(r->v, GUEST_FLUSH_NONGLOBAL, 0);
    ck_assert(track_is_tracked(r->mem, 0, 4));
    ck_assert_ptr_null(tlb_lookup_write(r->v, TABLE, 8));
    for (unsigned i = 0; i < 16; i++)
        rig_expect(r, GVA + i * 0x1000, ACCESS_READ, 0x20000 + i * 0x1000);
}
END_TEST

START_TEST(changed_entry_is_true_after_invlpg_of_its_address_alone)
{
    rig_map(r, GVA + 0x1000, 0x11000, PTE_ALL);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x11000);
    store(TABLE, 0x20000 | PTE_ALL);
    store(TABLE + 8, 0x21000 | PTE_ALL);
    expect_tlb_or_walk(GVA, 0x10000); /* as a processor with a TLB would */
    mmu_guest_flush(r->v, GUEST_FLUSH_PAGE, GVA + 0x123);
    expect_tlb_or_walk(GVA, 0x20000);
    expect_tlb_or_walk(GVA + 0x1000, 0x11000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, TABLE, 8)); /* still unsync */
    mmu_guest_flush(r->v, GUEST_FLUSH_ALL, 0);
    expect_tlb_or_walk(GVA + 0x1000, 0x21000);
}
END_TEST

START_TEST(entry_that_gains_rights_needs_no_flush)
{
    rig_map(r, GVA, 0x10000, PTE_P | PTE_U);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    store(TABLE + 8, 0); /* unsync */
    rig_expect_fault(r, GVA + 0x1000, ACCESS_READ, 0);
    store(TABLE + 8, 0x11000 | PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x11000);
    store(TABLE, 0x10000 | PTE_ALL);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
}
END_TEST

START_TEST(page_fault_drops_what_is_cached_for_its_address)
{
    rig_map(r, GVA, 0x10000, PTE_P | PTE_U);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    store(TABLE, 0x20000 | PTE_P | PTE_U);
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE);
    rig_expect(r, GVA, ACCESS_READ, 0x20000);
}
END_TEST

START_TEST(upper_tables_are_never_unsync)
{
    rig_map(r, GVA + 0x5000, 0x3000, PTE_ALL); /* the page directory, mapped */
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert(!store(GVA + 0x5000 + 8, 0x6000 | PTE_ALL));
    ck_assert(!store(GVA + 0x5000, 0));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_uint_eq(sh()->stats.unsyncs, 0);
}
END_TEST

START_TEST(new_link_to_an_unsync_table_brings_it_up_to_date)
{
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    store(TABLE, 0x20000 | PTE_ALL);
    ck_assert(sh()->unsync_first);
    rig_put(r, 0x3008, 0x4000 | PTE_ALL); /* the same table for the next 2 MiB */
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x20000);
    ck_assert_uint_eq(sh()->unsync_first, 0);
    rig_expect(r, GVA, ACCESS_READ, 0x20000);
}
END_TEST

START_TEST(root_that_is_loaded_finds_no_unsync_page)
{
    rig_put(r, 0x8000, 0x2000 | PTE_ALL);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    store(TABLE, 0x20000 | PTE_ALL);
    rig_long_mode(r, 0x8000);
    rig_expect(r, GVA, ACCESS_READ, 0x20000);
}
END_TEST

START_TEST(cleared_accessed_bit_is_set_again_after_the_flush)
{
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    store(TABLE, rig_get(r, 0x4000) & ~(PTE_A | PTE_D));
    mmu_guest_flush(r->v, GUEST_FLUSH_PAGE, GVA);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_uint_eq(rig_get(r, 0x4000) & (PTE_A | PTE_D), PTE_A);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert_uint_eq(rig_get(r, 0x4000) & (PTE_A | PTE_D), PTE_A | PTE_D);
}
END_TEST

START_TEST(table_that_is_watched_by_others_is_not_unsync)
{
    track_add(r->mem, 0, 4, TRACK_WATCH);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert(!store(TABLE, 0x20000 | PTE_ALL));
    rig_expect(r, GVA, ACCESS_READ, 0x20000);
    track_remove(r->mem, 0, 4, TRACK_WATCH);
}
END_TEST

START_TEST(unsync_page_follows_the_host_and_may_be_dropped)
{
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    store(TABLE + 8, 0x11000 | PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x11000);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x11000, 0x1000), 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x1000, 8));
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    host_mm_mprotect(r->mm, r->hva + 0x4000, 0x1000, HOST_READ); /* the table's own frame */
    host_mm_mprotect(r->mm, r->hva + 0x4000, 0x1000, HOST_READ | HOST_WRITE);
    ck_assert_uint_eq(sh()->unsync_first, 0);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x11000);
    store(TABLE + 8, 0x12000 | PTE_ALL);
    mmu_zap_all(r->mmu);
    ck_assert_uint_eq(sh()->unsync_first, 0);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x12000);
}
END_TEST

START_TEST(without_the_option_nothing_is_ever_unsync)
{
    rig_close(r);
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM});
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, TABLE, 0x4000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert(!store(TABLE, 0x20000 | PTE_ALL));
    expect_tlb_or_walk(GVA, 0x20000);
    ck_assert_uint_eq(sh()->stats.unsyncs, 0);
}
END_TEST

/* The host takes the frame of an upper table: the tables below stay shadowed, but are not reached for a while. */
START_TEST(flush_while_an_upper_table_is_gone_counts_for_what_comes_back_with_it)
{
    for (gpa_t upper = 0x1000; upper <= 0x3000; upper += 0x1000) {
        rig_put(r, 0x4000, 0x10000 | PTE_ALL);
        mmu_guest_flush(r->v, GUEST_FLUSH_ALL, 0);
        rig_expect(r, GVA, ACCESS_READ, 0x10000);
        store(TABLE, 0x20000 | PTE_ALL);
        notify_invalidate_range_start(
            &(struct notify_range){.mm = r->mm, .start = r->hva + upper, .end = r->hva + upper + PAGE_SIZE});
        notify_invalidate_range_end(
            &(struct notify_range){.mm = r->mm, .start = r->hva + upper, .end = r->hva + upper + PAGE_SIZE});
        mmu_guest_flush(r->v, GUEST_FLUSH_PAGE, GVA);
        rig_expect(r, GVA + 0x1ff000, ACCESS_READ, 0x4000); /* the path is there again */
        rig_expect(r, GVA, ACCESS_READ, 0x20000);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("unsync");
    TCase *t = tcase_create("unsync");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, leaf_table_is_written_freely_after_the_first_write_until_a_flush);
    tcase_add_test(t, changed_entry_is_true_after_invlpg_of_its_address_alone);
    tcase_add_test(t, entry_that_gains_rights_needs_no_flush);
    tcase_add_test(t, page_fault_drops_what_is_cached_for_its_address);
    tcase_add_test(t, upper_tables_are_never_unsync);
    tcase_add_test(t, new_link_to_an_unsync_table_brings_it_up_to_date);
    tcase_add_test(t, flush_while_an_upper_table_is_gone_counts_for_what_comes_back_with_it);
    tcase_add_test(t, root_that_is_loaded_finds_no_unsync_page);
    tcase_add_test(t, cleared_accessed_bit_is_set_again_after_the_flush);
    tcase_add_test(t, table_that_is_watched_by_others_is_not_unsync);
    tcase_add_test(t, unsync_page_follows_the_host_and_may_be_dropped);
    tcase_add_test(t, without_the_option_nothing_is_ever_unsync);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
