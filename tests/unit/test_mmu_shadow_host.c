/* What the shadow engine does when the host ages, merges, moves, joins or splits the memory under it. */
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define RAM (64ull << 20)
#define GVA 0x40000000ull

static struct rig rig;
static struct rig *const r = &rig;

static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM, .vcpus = 2});
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

static struct spte_list *head_of(gfn_t gfn, int level)
{
    struct spte_list *head = rmap_head(memslot_find(r->mem, 0, gfn), gfn, level);
    return head && !spte_list_is_empty(head) ? head : NULL;
}

static uint64_t first_spte(gfn_t gfn, int level)
{
    struct spte_iter it;
    struct spte_list *head = head_of(gfn, level);
    return head ? *spte_list_first(head, &it) : 0;
}

/* ---- aging ---- */

START_TEST(aging_reports_and_clears_accessed_state_without_losing_a_mapping)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x10000, PTE_ALL); /* two sptes: young if either is */
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x10000);
    hva_t hva = r->hva + 0x10000;
    uint64_t zaps = r->mmu->stats.zaps, walks = r->mmu->stats.guest_walks;
    ck_assert(notify_test_young(r->mm, hva));
    ck_assert(notify_test_young(r->mm, hva));
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    for (int flush = 0; flush < 2; flush++) {
        ck_assert((flush ? notify_clear_flush_young : notify_clear_young)(r->mm, hva, hva + 0x1000));
        ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
        ck_assert(!notify_test_young(r->mm, hva));
        ck_assert(!notify_clear_young(r->mm, hva, hva + 0x1000));
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
        rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x10000);
        ck_assert(notify_test_young(r->mm, hva));
        rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    }
    ck_assert_uint_eq(r->mmu->stats.zaps, zaps);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    ck_assert_uint_eq(sh()->stats.aged, 4);
}
END_TEST

START_TEST(aging_a_range_sees_only_what_is_mapped_in_it)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x20000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x20000);
    notify_clear_young(r->mm, r->hva + 0x11000, r->hva + 0x20000); /* the memory's own cache may say what it likes */
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA + 0x1000, 8));
    ck_assert(notify_clear_young(r->mm, r->hva + 0x10000, r->hva + 0x20000));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA + 0x1000, 8));
}
END_TEST

START_TEST(guest_table_is_as_young_as_what_it_maps)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    hva_t table = r->hva + 0x4000, data = r->hva + 0x10000;
    notify_clear_young(r->mm, table, table + 0x1000);
    ck_assert(notify_test_young(r->mm, table));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    notify_clear_young(r->mm, data, data + 0x1000);
    ck_assert(!notify_test_young(r->mm, table));
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert(notify_test_young(r->mm, table));
}
END_TEST

/* The ways in which an spte goes while its frame stays. */
static void guest_clears_entry(void)
{
    rig_put(r, 0x4000, 0);
    rig_put(r, 0x4008, 0);
}

static void all_is_zapped(void)
{
    mmu_zap_all(r->mmu);
}

static void shadow_shrinks(void)
{
    mmu_shrink(r->mmu, 100);
}

static void host_write_protects(void)
{
    host_mm_mprotect(r->mm, r->hva + 0x10000, 0x2000, HOST_READ);
}

static void host_migrates(void)
{
    ck_assert_int_eq(host_mm_migrate(r->mm, r->hva + 0x10000), HOST_OK);
    ck_assert_int_eq(host_mm_migrate(r->mm, r->hva + 0x11000), HOST_OK);
}

static void (*const ends[])(void) = {guest_clears_entry, all_is_zapped, shadow_shrinks, host_write_protects,
                                     host_migrates};

START_TEST(accessed_state_of_a_zapped_spte_reaches_the_hosts_aging)
{
    hva_t used = r->hva + 0x10000, unused = r->hva + 0x11000;
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x11000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x11000);
    host_mm_age(r->mm, host_mm_resident(r->mm));
    rig_expect(r, GVA, ACCESS_READ, 0x10000); /* its spte knows, its host entry does not */
    ck_assert(!host_mm_peek(r->mm, used).accessed);
    ends[_i]();
    ck_assert_ptr_null(head_of(0x10, 1));
    ck_assert(host_mm_is_young(r->mm, used));
    ck_assert(host_mm_is_young(r->mm, used)); /* asking takes nothing */
    ck_assert(!host_mm_is_young(r->mm, unused));
    host_mm_age(r->mm, host_mm_resident(r->mm));
    ck_assert(!host_mm_is_young(r->mm, used));
}
END_TEST

START_TEST(reclaim_takes_what_the_guest_does_not_use)
{
    for (unsigned i = 0; i < 64; i++)
        rig_map(r, GVA + i * 0x1000, 0x100000 + i * 0x1000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    for (unsigned i = 0; i < 64; i++)
        rig_expect(r, GVA + i * 0x1000, ACCESS_WRITE, 0x100000 + i * 0x1000);
    for (int round = 0; round < 4; round++) {
        host_mm_age(r->mm, host_mm_resident(r->mm));
        for (unsigned i = 0; i < 8; i++) /* the hot ones */
            rig_expect(r, GVA + i * 0x1000, ACCESS_READ, 0x100000 + i * 0x1000);
    }
    for (unsigned i = 0; i < 64; i++)
        ck_assert_int_eq(host_mm_is_young(r->mm, r->hva + 0x100000 + i * 0x1000), i < 8);
}
END_TEST

/* ---- change_pte ---- */

static struct ksm *merge(gpa_t a, gpa_t b)
{
    struct ksm *k = ksm_create(r->pool);
    ck_assert(ksm_add(k, r->mm));
    ck_assert_int_eq(host_mm_set_mergeable(r->mm, r->hva, RAM, true), 0);
    ck_assert_int_eq(ksm_merge(k, r->mm, r->hva + a, r->mm, r->hva + b), HOST_OK);
    return k;
}

START_TEST(merged_page_is_repointed_read_only_and_keeps_its_mapping)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x11000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_put(r, 0x10008, 0x1234);
    rig_put(r, 0x11008, 0x1234);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x11000);
    struct ksm *k = merge(0x10000, 0x11000);
    ck_assert_uint_gt(sh()->stats.repointed, 0);
    uint64_t a = first_spte(0x10, 1), b = first_spte(0x11, 1);
    uint64_t walks = r->mmu->stats.guest_walks;
    /* Whether the zap of the write protection or the re-pointing came last, nothing of the old frame is left. */
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x11000);
    if (a && b)
        ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    ck_assert_uint_eq(spte_pfn(first_spte(0x10, 1)), spte_pfn(first_spte(0x11, 1)));
    ck_assert(!(first_spte(0x10, 1) & SPTE_WRITABLE) && !(first_spte(0x11, 1) & SPTE_WRITABLE));
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA + 0x1008, 8), 0x1234);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    memset(tlb_lookup_write(r->v, GVA + 8, 8), 0x55, 8);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x11000);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA + 0x1008, 8), 0x1234);
    ksm_destroy(k);
}
END_TEST

START_TEST(change_pte_repoints_every_spte_of_the_page_and_zaps_none)
{
    for (unsigned i = 0; i < 40; i++)
        rig_map(r, GVA + i * 0x1000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    for (unsigned i = 0; i < 40; i++)
        rig_expect(r, GVA + i * 0x1000, ACCESS_WRITE, 0x10000);
    uint64_t zaps = r->mmu->stats.zaps;
    pfn_t pfn = spte_pfn(first_spte(0x10, 1));
    notify_change_pte(r->mm, r->hva + 0x10000, (struct hpte_view){.pfn = pfn}); /* the same frame, now read-only */
    ck_assert_uint_eq(r->mmu->stats.zaps, zaps);
    ck_assert_uint_eq(sh()->stats.repointed, 40);
    ck_assert_uint_eq(spte_list_count(head_of(0x10, 1)), 40);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    notify_change_pte(r->mm, r->hva + 0x10000, (struct hpte_view){.pfn = pfn, .writable = true});
    ck_assert_ptr_null(head_of(0x10, 1));
}
END_TEST

START_TEST(merged_guest_table_keeps_its_shadow)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_put(r, 0x3008, 0x5000 | PTE_ALL | PTE_A);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_put(r, 0x5000, rig_get(r, 0x4000));
    struct ksm *k = merge(0x4000, 0x5000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x10000);
    rig_put(r, 0x4000, 0x11000 | PTE_ALL); /* breaks the sharing: the other table stays as it was */
    rig_expect(r, GVA, ACCESS_READ, 0x11000);
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x10000);
    ksm_destroy(k);
}
END_TEST

/* ---- long rmaps ---- */

#define TIMES 100352u /* 196 tables of 512 */

START_TEST(frame_mapped_a_hundred_thousand_times_stays_fast)
{
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_put(r, 0x2000, 0x3000 | PTE_ALL);
    for (unsigned t = 0; t < TIMES / 512; t++) {
        rig_put(r, 0x3000 + t * 8, (0x400000 + t * 0x1000) | PTE_ALL);
        for (unsigned i = 0; i < 512; i++)
            rig_put(r, 0x400000 + t * 0x1000 + i * 8, 0x20000 | PTE_ALL);
    }
    rig_long_mode(r, 0x1000);
    for (gva_t i = 0; i < TIMES; i++)
        rig_expect(r, i << 12, ACCESS_READ, 0x20000);
    size_t left = spte_list_count(head_of(0x20, 1));
    ck_assert_uint_le(left, RMAP_RECYCLE);
    ck_assert_uint_eq(sh()->stats.rmap_recycles, (TIMES - 1) / RMAP_RECYCLE);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    /* One by one, out of order: each removal searches a list that cannot be long. */
    for (gva_t k = 0, i; k < TIMES; k++) {
        i = k * 7919 % TIMES;
        rig_put(r, 0x400000 + i * 8, 0x21000 | PTE_ALL);
    }
    ck_assert_ptr_null(head_of(0x20, 1));
    for (gva_t i = 0; i < 2048; i++)
        rig_expect(r, i << 12, ACCESS_WRITE, 0x21000);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x21000, 0x1000), 0);
    ck_assert_ptr_null(head_of(0x21, 1));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x5000, 8));
}
END_TEST

/* ---- large pages ---- */

/* A huge host page behind gpa, and a guest entry of 2 MiB for it at GVA + 2 MiB * slot. */
static void map_large(unsigned slot, gpa_t gpa)
{
    uint64_t v = gpa;
    host_mm_set_huge_faults(r->mm, 2);
    mem_access(r->mem, 0, gpa, &v, 8, MEM_GUEST, true, 0);
    host_mm_set_huge_faults(r->mm, 1);
    ck_assert(host_mm_peek(r->mm, r->hva + gpa).level > 1);
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_put(r, 0x2008, 0x3000 | PTE_ALL);
    rig_put(r, 0x3000 + slot * 8, gpa | PTE_ALL | PTE_PS);
}

START_TEST(large_guest_page_over_a_huge_frame_is_one_spte)
{
    map_large(0, 0x400000);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 0x12345, ACCESS_WRITE, 0x412345);
    ck_assert_uint_eq(r->mmu->stats.large_fills, 1);
    ck_assert_ptr_nonnull(head_of(0x400, 2));
    uint64_t walks = r->mmu->stats.guest_walks;
    rig_expect(r, GVA + 0x1ff000, ACCESS_WRITE, 0x5ff000);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA + 0x1ff000, 8), 0);
    memset(tlb_lookup_write(r->v, GVA + 0x1ff000, 8), 0x11, 8);
    ck_assert_uint_eq(rig_get(r, 0x5ff000), 0x1111111111111111ull);
}
END_TEST

START_TEST(huge_page_is_replaced_by_a_table_and_back)
{
    map_large(0, 0x400000);
    rig_long_mode(r, 0x1000);
    for (int round = 0; round < 3; round++) {
        rig_expect(r, GVA + 0x5000, ACCESS_WRITE, 0x405000);
        rig_put(r, 0x3000, 0x4000 | PTE_ALL);
        rig_put(r, 0x4000 + 5 * 8, 0x20000 | PTE_ALL);
        ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x5000, 8));
        rig_expect(r, GVA + 0x5000, ACCESS_WRITE, 0x20000);
        rig_expect_fault(r, GVA + 0x6000, ACCESS_READ, 0);
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
        rig_put(r, 0x3000, 0x400000 | PTE_ALL | PTE_PS);
        ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x5000, 8));
    }
    rig_expect(r, GVA + 0x6000, ACCESS_READ, 0x406000);
}
END_TEST

START_TEST(tracked_page_disallows_the_large_mapping_around_it_while_it_is_tracked)
{
    map_large(0, 0x400000);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    track_add(r->mem, 0, 0x410, TRACK_CODE);
    track_add(r->mem, 0, 0x411, TRACK_CODE);
    ck_assert_ptr_null(head_of(0x400, 2));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_ptr_null(head_of(0x400, 2));
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA + 0x10000, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    track_remove(r->mem, 0, 0x410, TRACK_CODE);
    rig_expect(r, GVA + 0x20000, ACCESS_WRITE, 0x420000);
    ck_assert_ptr_null(head_of(0x400, 2)); /* one is left */
    track_remove(r->mem, 0, 0x411, TRACK_CODE);
    rig_expect(r, GVA + 0x30000, ACCESS_WRITE, 0x430000);
    ck_assert_ptr_nonnull(head_of(0x400, 2));
}
END_TEST

START_TEST(host_that_splits_or_collapses_is_followed)
{
    map_large(0, 0x400000);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    ck_assert_int_eq(host_mm_split(r->mm, r->hva + 0x400000), HOST_OK);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    ck_assert_ptr_null(head_of(0x400, 2));
    ck_assert_ptr_nonnull(head_of(0x400, 1));
    ck_assert_int_eq(host_mm_migrate(r->mm, r->hva + 0x400000), HOST_OK);
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA, 8), 0x400000);
    ck_assert_int_eq(host_mm_collapse(r->mm, r->hva + 0x400000), HOST_OK);
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    ck_assert_ptr_nonnull(head_of(0x400, 2));
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA, 8), 0x400000);
}
END_TEST

START_TEST(large_pages_age_and_are_repointed_as_a_whole)
{
    map_large(0, 0x400000);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 0x3000, ACCESS_WRITE, 0x403000);
    hva_t hva = r->hva + 0x400000;
    ck_assert(notify_clear_young(r->mm, hva, hva + 0x200000));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x3000, 8));
    ck_assert(!notify_test_young(r->mm, hva + 0x3000));
    rig_expect(r, GVA + 0x3000, ACCESS_READ, 0x403000);
    ck_assert(notify_test_young(r->mm, hva + 0x9000)); /* one accessed bit for all of it */
}
END_TEST

START_TEST(accessed_state_of_a_zapped_large_spte_stays_with_all_of_its_page)
{
    map_large(0, 0x400000);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x400000);
    ck_assert_ptr_nonnull(head_of(0x400, 2));
    host_mm_age(r->mm, host_mm_resident(r->mm));
    rig_expect(r, GVA + 0x5000, ACCESS_READ, 0x405000);
    ck_assert_int_eq(host_mm_split(r->mm, r->hva + 0x400000), HOST_OK);
    ck_assert_ptr_null(head_of(0x400, 2));
    ck_assert(host_mm_is_young(r->mm, r->hva + 0x405000));
    ck_assert(host_mm_is_young(r->mm, r->hva + 0x5ff000));
    host_mm_age(r->mm, host_mm_resident(r->mm));
    ck_assert(!host_mm_is_young(r->mm, r->hva + 0x405000));
}
END_TEST

START_TEST(gigabyte_page_is_served_by_large_sptes_where_the_host_has_runs)
{
    map_large(0, 0x400000);
    map_large(1, 0x600000);
    rig_put(r, 0x2000, PTE_ALL | PTE_PS); /* gva 0: the first GiB */
    rig_long_mode(r, 0x1000);
    rig_expect(r, 0x412345, ACCESS_WRITE, 0x412345);
    rig_expect(r, 0x612345, ACCESS_WRITE, 0x612345);
    rig_expect(r, 0x812345, ACCESS_WRITE, 0x812345);
    ck_assert_uint_eq(r->mmu->stats.large_fills, 2);
    ck_assert_ptr_nonnull(head_of(0x400, 2));
    ck_assert_ptr_nonnull(head_of(0x600, 2));
    ck_assert_ptr_nonnull(head_of(0x812, 1));
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x401000); /* the same page by its 2 MiB entry */
    ck_assert_uint_eq(spte_list_count(head_of(0x400, 2)), 2);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x401000, 0x1000), 0);
    ck_assert_ptr_null(head_of(0x400, 2));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x412000, 8));
}
END_TEST

START_TEST(paging_off_maps_huge_frames_by_large_sptes)
{
    uint64_t v = 7;
    host_mm_set_huge_faults(r->mm, 2);
    mem_access(r->mem, 0, 0x400000, &v, 8, MEM_GUEST, true, 0);
    rig_load(r);
    rig_expect(r, 0x400000, ACCESS_WRITE, 0x400000);
    rig_expect(r, 0x5ff000, ACCESS_WRITE, 0x5ff000);
    ck_assert_uint_eq(r->mmu->stats.large_fills, 1);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, 0x400000, 8), 7);
}
END_TEST

START_TEST(four_mebibyte_page_is_two_large_sptes)
{
    map_large(5, 0x800000);
    map_large(6, 0xa00000);
    r->regs.cr0 = CR0_PE | CR0_PG | CR0_WP;
    r->regs.cr4 = CR4_PSE;
    r->regs.cr3 = 0x6000;
    rig_poke(r, 0x6000 + 4 * 8, 0x800000 | PTE_ALL | PTE_PS, 4);
    rig_load(r);
    rig_expect(r, 0x2012345, ACCESS_WRITE, 0x812345);
    rig_expect(r, 0x2212345, ACCESS_WRITE, 0xa12345);
    ck_assert_uint_eq(r->mmu->stats.large_fills, 2);
    rig_poke(r, 0x6000 + 4 * 8, 0, 4);
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x2012000, 4));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x2212000, 4));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("shadow_host");
    TCase *t = tcase_create("shadow_host");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, aging_reports_and_clears_accessed_state_without_losing_a_mapping);
    tcase_add_test(t, aging_a_range_sees_only_what_is_mapped_in_it);
    tcase_add_test(t, guest_table_is_as_young_as_what_it_maps);
    tcase_add_loop_test(t, accessed_state_of_a_zapped_spte_reaches_the_hosts_aging, 0, ARRAY_LEN(ends));
    tcase_add_test(t, reclaim_takes_what_the_guest_does_not_use);
    tcase_add_test(t, merged_page_is_repointed_read_only_and_keeps_its_mapping);
    tcase_add_test(t, change_pte_repoints_every_spte_of_the_page_and_zaps_none);
    tcase_add_test(t, merged_guest_table_keeps_its_shadow);
    tcase_add_test(t, frame_mapped_a_hundred_thousand_times_stays_fast);
    tcase_add_test(t, large_guest_page_over_a_huge_frame_is_one_spte);
    tcase_add_test(t, huge_page_is_replaced_by_a_table_and_back);
    tcase_add_test(t, tracked_page_disallows_the_large_mapping_around_it_while_it_is_tracked);
    tcase_add_test(t, host_that_splits_or_collapses_is_followed);
    tcase_add_test(t, large_pages_age_and_are_repointed_as_a_whole);
    tcase_add_test(t, accessed_state_of_a_zapped_large_spte_stays_with_all_of_its_page);
    tcase_add_test(t, gigabyte_page_is_served_by_large_sptes_where_the_host_has_runs);
    tcase_add_test(t, paging_off_maps_huge_frames_by_large_sptes);
    tcase_add_test(t, four_mebibyte_page_is_two_large_sptes);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
