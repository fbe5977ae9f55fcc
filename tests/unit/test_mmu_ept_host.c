/*
 * The EPT engine and the host: frames that change under it, large pages, aging, merging, dirty logging, the APIC access
 * page, and the race between a fault and an invalidation.
 */
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "mmu/ept/ept_internal.h"
#include "mmu_rig.h"

#include <pthread.h>

#define RAM (16ull << 20)
#define BIG (4ull << 20) /* gpa of 2 MiB that the tests make huge */

static struct rig rig;
static struct rig *const r = &rig;

static struct ept *ept(void)
{
    return ept_of(r->mmu);
}

static uint64_t *leaf(gpa_t gpa, int *level)
{
    struct ept_table *t;
    uint64_t *p = ept_lookup(ept(), 0, gpa >> PAGE_SHIFT, &t);
    if (level)
        *level = t->level;
    return p;
}

static hva_t hva(gpa_t gpa)
{
    return r->hva + gpa;
}

/* Paging off: a gva is a gpa, so that a test can speak of pages alone. */
static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_EPT, .ram = RAM, .vcpus = 2});
    rig_load(r);
}

static void audit(void)
{
    rig_expect_sound(r);
}

static void teardown(void)
{
    audit();
    rig_close(r);
}

static void guest_write(gpa_t gpa, uint64_t value)
{
    rig_access8(r, gpa, gpa, true, value);
}

static uint64_t guest_read(gpa_t gpa)
{
    return rig_access8(r, gpa, gpa, false, 0);
}

/* ---- invalidation ---- */

START_TEST(write_protection_by_the_host_ends_in_a_new_fault_not_in_a_lost_write)
{
    guest_write(0x5000, 1);
    ck_assert_int_eq(host_mm_mprotect(r->mm, hva(0x5000), 0x1000, HOST_READ), 0);
    ck_assert_uint_eq(*leaf(0x5000, NULL), 0);
    ck_assert_ptr_null(tlb_lookup_write(r->v, 0x5000, 8));
    ck_assert_uint_eq(guest_read(0x5000), 1);
    ck_assert_uint_eq(*leaf(0x5000, NULL) & EPT_RWX, EPT_R | EPT_X);
    audit();
    ck_assert_int_eq(host_mm_mprotect(r->mm, hva(0x5000), 0x1000, HOST_READ | HOST_WRITE), 0);
    guest_write(0x5000, 2);
    ck_assert_uint_eq(guest_read(0x5000), 2);
}
END_TEST

START_TEST(forked_memory_is_repointed_when_the_parent_writes)
{
    guest_write(0x5000, 1);
    pfn_t before = ept_pfn(*leaf(0x5000, NULL));
    struct host_mm *child = host_mm_fork(r->mm);
    ck_assert_uint_eq(guest_read(0x5000), 1);
    ck_assert_uint_eq(*leaf(0x5000, NULL) & EPT_W, 0);
    audit();
    guest_write(0x5000, 2);
    ck_assert_uint_ne(ept_pfn(*leaf(0x5000, NULL)), before);
    ck_assert_uint_eq(guest_read(0x5000), 2);
    ck_assert_uint_eq(*(const uint64_t *)host_mm_peek_content(child, hva(0x5000)), 1);
    host_mm_destroy(child);
}
END_TEST

START_TEST(migrated_frame_is_found_again)
{
    guest_write(0x5000, 77);
    guest_write(0x6000, 88);
    host_mm_dontneed(r->mm, hva(0x5000), 0x1000);
    ck_assert_int_eq(host_mm_migrate(r->mm, hva(0x6000)), 0);
    ck_assert_uint_eq(*leaf(0x6000, NULL), 0);
    ck_assert_uint_eq(guest_read(0x6000), 88);
    ck_assert_uint_eq(guest_read(0x5000), 0);
}
END_TEST

START_TEST(zap_costs_what_is_mapped)
{
    guest_write(0x5000, 1);
    guest_write(RAM - 0x1000, 2);
    uint64_t zapped = ept()->stats.zapped;
    ck_assert_int_eq(host_mm_mprotect(r->mm, r->hva, RAM, HOST_READ), 0);
    ck_assert_uint_eq(ept()->stats.zapped, zapped + 2);
    ck_assert_uint_eq(ept()->stats.small_leaves, 0);
}
END_TEST

START_TEST(guest_table_that_the_host_takes_back_drops_what_was_walked_from_it)
{
    rig_map(r, 0x40000000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, 0x40000000, ACCESS_READ, 0x10000);
    host_mm_dontneed(r->mm, hva(0x4000), 0x1000);
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x40000000, 8));
    rig_expect_fault(r, 0x40000000, ACCESS_READ, 0);
}
END_TEST

/* ---- aging ---- */

START_TEST(accessed_bits_answer_the_hosts_aging)
{
    guest_write(0x5000, 1);
    ck_assert(ept_age_gfns(r->mmu, 0, 5, 1, MMU_AGE_TEST));
    ck_assert(ept_age_gfns(r->mmu, 0, 5, 1, MMU_AGE_CLEAR));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, 0x5000, 8)); /* not flushed: legal */
    ck_assert(!ept_age_gfns(r->mmu, 0, 5, 1, MMU_AGE_TEST));
    ck_assert(!notify_test_young(r->mm, hva(0x5000)));
    tlb_flush_all(r->mmu);
    ck_assert_uint_eq(guest_read(0x5000), 1);
    ck_assert(notify_test_young(r->mm, hva(0x5000)));
    ck_assert(notify_clear_flush_young(r->mm, hva(0x5000), hva(0x6000)));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x5000, 8));
    ck_assert_uint_eq(*leaf(0x5000, NULL) & EPT_RWX, EPT_RWX); /* aged, not zapped */
    ck_assert(!notify_clear_flush_young(r->mm, hva(0x5000), hva(0x6000)));
    ck_assert_uint_ge(ept()->stats.aged, 2);
}
END_TEST

START_TEST(without_accessed_bits_aging_zaps)
{
    ck_assert(ept_configure(r->mmu, &(struct ept_config){.levels = 4, .x_only = true}));
    guest_write(0x5000, 1);
    ck_assert(!ept_age_gfns(r->mmu, 0, 5, 1, MMU_AGE_TEST));
    ck_assert(ept_age_gfns(r->mmu, 0, 5, 1, MMU_AGE_CLEAR));
    ck_assert_uint_eq(*leaf(0x5000, NULL), 0);
    ck_assert(!ept_age_gfns(r->mmu, 0, 5, 1, MMU_AGE_CLEAR));
    ck_assert_uint_eq(guest_read(0x5000), 1);
}
END_TEST

START_TEST(accessed_state_of_a_dropped_leaf_reaches_the_hosts_aging)
{
    guest_write(0x5000, 1);
    guest_write(0x6000, 1);
    host_mm_age(r->mm, host_mm_resident(r->mm));
    tlb_flush_all(r->mmu);
    ck_assert_uint_eq(guest_read(0x5000), 1); /* the leaf knows, the host entry does not */
    ck_assert(!host_mm_peek(r->mm, hva(0x5000)).accessed);
    mmu_zap_all(r->mmu);
    ck_assert_uint_eq(*leaf(0x5000, NULL), 0);
    ck_assert(host_mm_is_young(r->mm, hva(0x5000)));
    ck_assert(!host_mm_is_young(r->mm, hva(0x6000)));
    host_mm_age(r->mm, host_mm_resident(r->mm));
    ck_assert(!host_mm_is_young(r->mm, hva(0x5000)));
}
END_TEST

/* ---- change_pte ---- */

START_TEST(merged_page_is_repointed_read_only_without_a_fault)
{
    struct ksm *k = ksm_create(r->pool);
    guest_write(0x5000, 0x1234);
    guest_write(0x6000, 0x1234);
    ck_assert(ksm_add(k, r->mm));
    ck_assert_int_eq(host_mm_set_mergeable(r->mm, r->hva, RAM, true), 0);
    for (int i = 0; i < 4; i++)
        ksm_scan(k, RAM >> PAGE_SHIFT);
    ck_assert_uint_ge(ksm_counters(k)->merges, 1);
    ck_assert_uint_ge(ept()->stats.repointed, 1);
    guest_read(0x5000);
    guest_read(0x6000);
    ck_assert_uint_eq(ept_pfn(*leaf(0x5000, NULL)), ept_pfn(*leaf(0x6000, NULL)));
    ck_assert_uint_eq(*leaf(0x5000, NULL) & EPT_W, 0);
    audit();
    guest_write(0x5000, 5);
    ck_assert_uint_eq(guest_read(0x6000), 0x1234);
    ck_assert_uint_eq(guest_read(0x5000), 5);
    audit();
    ksm_destroy(k);
}
END_TEST

START_TEST(change_pte_keeps_the_leaf_and_drops_the_tlb_entry)
{
    guest_write(0x5000, 9);
    pfn_t other = frame_pool_alloc(r->pool), old = ept_pfn(*leaf(0x5000, NULL));
    memcpy(frame_pool_ptr(r->pool, other), frame_pool_ptr(r->pool, old), 4096);
    uint64_t exits = ept_exit_count(r->v), seq = r->mmu->invalidate_seq;
    notify_change_pte(r->mm, hva(0x5000), (struct hpte_view){.pfn = other});
    ck_assert_uint_eq(ept_pfn(*leaf(0x5000, NULL)), other);
    ck_assert_uint_eq(*leaf(0x5000, NULL) & (EPT_RWX | EPT_HOST_W), EPT_R | EPT_X);
    ck_assert_uint_gt(r->mmu->invalidate_seq, seq);
    ck_assert_uint_eq(guest_read(0x5000), 9);
    ck_assert_uint_eq(ept_exit_count(r->v), exits); /* no violation */
    notify_change_pte(r->mm, hva(0x5000), (struct hpte_view){.pfn = old, .writable = true});
    ck_assert_uint_eq(*leaf(0x5000, NULL), 0);
    frame_pool_put(r->pool, other);
}
END_TEST

/* ---- large pages ---- */

static void make_huge(void)
{
    int level;
    host_mm_set_huge_faults(r->mm, 2);
    guest_write(BIG + 0x3000, 3);
    ck_assert(host_mm_peek(r->mm, hva(BIG)).level > 1);
    leaf(BIG + 0x3000, &level);
    ck_assert_int_eq(level, 2);
    ck_assert_uint_eq(ept()->stats.large_leaves, 1);
}

START_TEST(huge_host_page_becomes_one_large_leaf)
{
    make_huge();
    uint64_t exits = ept_exit_count(r->v);
    guest_write(BIG, 1);
    guest_write(BIG + 0x1ff000, 2);
    ck_assert_uint_eq(ept_exit_count(r->v), exits);
    ck_assert_uint_eq(guest_read(BIG + 0x3000), 3);
}
END_TEST

START_TEST(split_in_the_host_brings_small_leaves)
{
    int level;
    make_huge();
    ck_assert_int_eq(host_mm_split(r->mm, hva(BIG)), 0);
    ck_assert_uint_eq(guest_read(BIG + 0x3000), 3);
    leaf(BIG + 0x3000, &level);
    ck_assert_int_eq(level, 1);
}
END_TEST

START_TEST(table_gives_way_to_a_large_leaf_after_a_collapse)
{
    int level;
    for (gpa_t gpa = BIG; gpa < BIG + 0x200000; gpa += 0x1000)
        guest_write(gpa, gpa);
    leaf(BIG, &level);
    ck_assert_int_eq(level, 1);
    uint64_t collapses = ept()->stats.collapses, tables = ept()->stats.tables;
    ck_assert_int_eq(host_mm_collapse(r->mm, hva(BIG)), 0);
    for (gpa_t gpa = BIG; gpa < BIG + 0x200000; gpa += 0x1000)
        ck_assert_uint_eq(guest_read(gpa), gpa);
    leaf(BIG, &level);
    ck_assert_int_eq(level, 2);
    ck_assert_uint_eq(ept()->stats.collapses, collapses + 1);
    ck_assert_uint_eq(ept()->stats.tables, tables - 1);
}
END_TEST

START_TEST(large_leaf_gives_way_to_a_table_where_a_page_is_restricted)
{
    int level;
    make_huge();
    ck_assert(ept_restrict(r->mmu, 0, (BIG >> 12) + 7, 1, EPT_R));
    ck_assert_uint_eq(guest_read(BIG + 0x3000), 3);
    leaf(BIG + 0x3000, &level);
    ck_assert_int_eq(level, 1);
    guest_write(BIG + 0x7000, 4); /* emulated */
    ck_assert_uint_eq(guest_read(BIG + 0x7000), 4);
}
END_TEST

START_TEST(small_mapping_inside_a_large_leaf_splits_it)
{
    int level;
    make_huge();
    struct ept_fault f = {
        .gfn = (BIG >> 12) + 3, .slot = memslot_find(r->mem, 0, BIG >> 12), .writable = true, .host_level = 1};
    f.pfn = ept_pfn(*leaf(BIG, NULL)) + 3;
    mmu_lock(r->mmu);
    ept_direct_map(ept(), &f);
    mmu_unlock(r->mmu);
    ck_assert_uint_eq(ept()->stats.splits, 1);
    ck_assert_uint_eq(ept()->stats.large_leaves, 0);
    leaf(BIG + 0x3000, &level);
    ck_assert_int_eq(level, 1);
    ck_assert_uint_eq(*leaf(BIG + 0x4000, NULL), 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, BIG + 0x3000, 8));
}
END_TEST

START_TEST(invalidation_of_one_page_takes_the_whole_large_leaf)
{
    make_huge();
    guest_read(BIG + 0x9000);
    host_mm_dontneed(r->mm, hva(BIG) + 0x8000, 0x1000);
    ck_assert_uint_eq(ept()->stats.large_leaves, 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, BIG + 0x9000, 8));
    ck_assert_uint_eq(guest_read(BIG + 0x3000), 3);
    ck_assert_uint_eq(guest_read(BIG + 0x8000), 0);
}
END_TEST

/* ---- dirty logging ---- */

struct pages {
    gfn_t gfn[2048];
    unsigned n;
};

static void collect(void *ctx, unsigned as, gfn_t gfn)
{
    struct pages *p = ctx;
    ck_assert_uint_eq(as, 0);
    p->gfn[p->n++] = gfn;
}

static uint64_t harvest(struct pages *p)
{
    p->n = 0;
    return ept_dirty_log_harvest(r->mmu, 0, 0, RAM >> PAGE_SHIFT, collect, p);
}

START_TEST(first_write_to_each_page_is_logged_from_the_top_of_the_buffer_down)
{
    struct pages p;
    guest_write(0x5000, 1);
    guest_write(0x6000, 1);
    ck_assert(ept_dirty_log_start(r->mmu));
    ck_assert_uint_eq(ept_pml_of(r->v)->index, 511);
    guest_write(0x6008, 2);
    guest_write(0x6010, 2);
    guest_write(0x5000, 2);
    guest_read(0x7000);
    ck_assert_uint_eq(ept_pml_of(r->v)->index, 509);
    ck_assert_uint_eq(ept_pml_of(r->v)->entry[511], 0x6000);
    ck_assert_uint_eq(ept_pml_of(r->v)->entry[510], 0x5000);
    ck_assert_uint_eq(harvest(&p), 2);
    ck_assert_uint_eq(p.gfn[0], 5);
    ck_assert_uint_eq(p.gfn[1], 6);
    ck_assert_uint_eq(harvest(&p), 0);
    ck_assert_ptr_null(tlb_lookup_write(r->v, 0x6000, 8));
    guest_write(0x6000, 3);
    ck_assert_uint_eq(harvest(&p), 1);
    ck_assert_uint_eq(p.gfn[0], 6);
    ept_dirty_log_stop(r->mmu);
    guest_write(0x5000, 4);
    ck_assert_uint_eq(ept_pml_of(r->v)->index, 511);
}
END_TEST

START_TEST(full_log_exits_and_loses_nothing)
{
    static struct pages p;
    ck_assert(ept_dirty_log_start(r->mmu));
    for (unsigned i = 0; i < 512; i++)
        guest_write(0x10000 + i * 0x1000, i);
    ck_assert_uint_eq(ept_pml_of(r->v)->index, UINT16_MAX);
    ck_assert_uint_eq(ept()->stats.pml_full, 0);
    guest_write(0x10000 + 512 * 0x1000, 1);
    ck_assert_uint_eq(ept()->stats.pml_full, 1);
    ck_assert_uint_eq(ept_last_exit(r->v).reason, EPT_EXIT_PML_FULL);
    ck_assert_uint_eq(ept_last_exit(r->v).gpa, 0x10000 + 512 * 0x1000);
    ck_assert_uint_eq(ept_pml_of(r->v)->index, 510);
    for (unsigned i = 513; i < 700; i++)
        guest_write(0x10000 + i * 0x1000, i);
    ck_assert_uint_eq(harvest(&p), 700);
    for (unsigned i = 0; i < 700; i++)
        ck_assert_uint_eq(p.gfn[i], 0x10 + i);
}
END_TEST

START_TEST(logging_splits_large_leaves_and_stopping_brings_them_back)
{
    struct pages p;
    int level;
    make_huge();
    ck_assert(ept_dirty_log_start(r->mmu));
    guest_write(BIG + 0x4000, 1);
    leaf(BIG + 0x4000, &level);
    ck_assert_int_eq(level, 1);
    ck_assert_uint_eq(harvest(&p), 1);
    ck_assert_uint_eq(p.gfn[0], (BIG >> 12) + 4);
    ept_dirty_log_stop(r->mmu);
    guest_write(BIG + 0x4000, 1);
    leaf(BIG + 0x4000, &level);
    ck_assert_int_eq(level, 2);
}
END_TEST

START_TEST(guest_tables_that_are_walked_are_logged_as_written)
{
    struct pages p;
    rig_map(r, 0x40000000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    ck_assert(ept_dirty_log_start(r->mmu));
    rig_expect(r, 0x40000000, ACCESS_READ, 0x10000);
    ck_assert_uint_eq(harvest(&p), 4);
    ck_assert_uint_eq(p.gfn[0], 1);
    ck_assert_uint_eq(p.gfn[3], 4);
}
END_TEST

START_TEST(no_logging_without_dirty_bits)
{
    ck_assert(ept_configure(r->mmu, &(struct ept_config){.levels = 4, .x_only = true}));
    ck_assert(!ept_dirty_log_start(r->mmu));
}
END_TEST

/* ---- the APIC access page ---- */

START_TEST(access_to_the_apic_page_exits_and_its_frame_follows_the_host)
{
    gpa_t apic = 0xfee00000;
    struct xlate x;
    ck_assert(!ept_apic_access_set(r->mmu, 0, apic >> 12));
    ck_assert_int_eq(mem_slot_add(r->mem, 0, apic, 0x1000, r->hva + RAM, MEMSLOT_RAM), 0);
    guest_read(apic);
    ck_assert(ept_apic_access_set(r->mmu, 0, apic >> 12));
    ck_assert_uint_eq(ept_apic_access_frame(r->v), PFN_NONE);
    static const struct {
        unsigned access, type;
    } cases[] = {{ACCESS_READ, 0}, {ACCESS_WRITE, 1}, {ACCESS_FETCH, 2}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ck_assert_int_eq(rig_translate(r, apic + 0x80, cases[i].access, &x), XLATE_OK);
        ck_assert_ptr_null(x.host);
        ck_assert_uint_eq(ept_last_exit(r->v).reason, EPT_EXIT_APIC_ACCESS);
        ck_assert_uint_eq(ept_last_exit(r->v).qualification, 0x80 | cases[i].type << 12);
    }
    pfn_t first = ept_apic_access_frame(r->v);
    ck_assert_uint_eq(first, host_mm_peek(r->mm, r->hva + RAM).pfn);
    guest_write(0x5000, 1); /* a lower frame becomes free for the page to move to */
    host_mm_dontneed(r->mm, hva(0x5000), 0x1000);
    guest_write(apic, 0x55);
    host_mm_dontneed(r->mm, r->hva + RAM, 0x1000);
    ck_assert_uint_eq(ept_apic_access_frame(r->v), PFN_NONE); /* let go before the frame was freed */
    uint64_t reloads = ept()->stats.apic_reloads;
    ck_assert_int_eq(rig_translate(r, apic, ACCESS_READ, &x), XLATE_OK);
    ck_assert_uint_eq(ept_last_exit(r->v).reason, EPT_EXIT_APIC_ACCESS);
    ck_assert_uint_eq(ept()->stats.apic_reloads, reloads + 1);
    ck_assert_uint_eq(ept_apic_access_frame(r->v), host_mm_peek(r->mm, r->hva + RAM).pfn);
    ept_apic_access_clear(r->mmu);
    ck_assert_int_eq(rig_translate(r, apic, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
}
END_TEST

START_TEST(apic_page_is_not_reloaded_for_write_protection)
{
    ck_assert(ept_apic_access_set(r->mmu, 0, 5));
    ept_vcpu_enter(r->v);
    pfn_t pfn = ept_apic_access_frame(r->v);
    host_mm_mprotect(r->mm, hva(0x5000), 0x1000,
                     HOST_READ); /* start and end, but no invalidate_range: the frame stays */
    ck_assert_uint_eq(ept_apic_access_frame(r->v), pfn);
    host_mm_mprotect(r->mm, hva(0x5000), 0x1000, HOST_READ | HOST_WRITE);
}
END_TEST

START_TEST(apic_page_is_seen_through_another_gfn_too)
{
    struct xlate x;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, RAM, 0x1000, hva(0x5000), MEMSLOT_RAM), 0);
    guest_write(RAM, 1);
    ck_assert(ept_apic_access_set(r->mmu, 0, 5));
    ept_vcpu_enter(r->v);
    ck_assert_ptr_null(tlb_lookup_read(r->v, RAM, 8));
    ck_assert_int_eq(rig_translate(r, RAM, ACCESS_READ, &x), XLATE_OK);
    ck_assert_uint_eq(ept_last_exit(r->v).reason, EPT_EXIT_APIC_ACCESS);
    ck_assert_ptr_null(x.host);
}
END_TEST

/* No page's frame answers for a device: what is read is nothing, as with the other engines. */
START_TEST(pdpte_load_from_the_apic_page_exits_and_reads_ones)
{
    uint64_t out[4];
    gpa_t apic = 0xfee00000;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, apic, 0x1000, r->hva + RAM, MEMSLOT_DEVICE), 0);
    ck_assert(ept_apic_access_set(r->mmu, 0, apic >> 12));
    for (unsigned turn = 0; turn < 2; turn++) { /* the second time EPT maps the page */
        ck_assert(!mmu_load_pdptes(r->v, apic + 0xa60, out));
        ck_assert_uint_eq(out[0], UINT64_MAX);
        ck_assert_uint_eq(ept_last_exit(r->v).reason, EPT_EXIT_APIC_ACCESS);
        ck_assert_uint_eq(ept_last_exit(r->v).qualification, 0xa60 | 15 << 12);
    }
}
END_TEST

/* ---- races ---- */

START_TEST(frame_that_is_taken_back_between_gup_and_lock_is_not_mapped)
{
    struct rig_taker t;
    rig_taker_begin(&t, r, 2);
    guest_write(0x5000, 7);
    ck_assert_uint_eq(t.left, 0);
    ck_assert_uint_eq(ept()->stats.retries, 2);
    ck_assert_uint_eq(ept()->stats.violations, 3);
    ck_assert_uint_eq(ept_pfn(*leaf(0x5000, NULL)), host_mm_peek(r->mm, hva(0x5000)).pfn);
    ck_assert_uint_eq(*(const uint64_t *)host_mm_peek_content(r->mm, hva(0x5000)), 7);
    rig_taker_end(&t);
}
END_TEST

#define RACE_PAGES  64
#define RACE_ROUNDS 3000

static void *host_side(void *arg)
{
    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        hva_t page = hva(0x100000 + (i * 7 % RACE_PAGES) * 0x1000);
        host_mm_mprotect(r->mm, page, 0x4000, HOST_READ);
        host_mm_mprotect(r->mm, page, 0x4000, HOST_READ | HOST_WRITE);
        if (i % 3 == 0)
            host_mm_dontneed(r->mm, page, 0x1000);
        notify_clear_flush_young(r->mm, page, page + 0x2000);
    }
    return NULL;
}

/* A vCPU that takes nothing from its TLB: that may be looked at only between safe points, of which this test has none.
 * So what races is walks, exits and the answers to them. */
static void *guest_side(void *arg)
{
    struct mmu_vcpu *v = arg;
    struct xlate x;
    for (unsigned i = 0; i < RACE_ROUNDS * 4; i++) {
        gpa_t gpa = 0x100000 + (i * 13 % RACE_PAGES) * 0x1000;
        mmu_ept_ops.translate(v, gpa, i % 3 ? ACCESS_WRITE : ACCESS_READ, &x);
    }
    return NULL;
}

START_TEST(no_stale_leaf_is_left_by_faults_that_race_with_invalidations)
{
    pthread_t host, guest;
    pthread_create(&host, NULL, host_side, NULL);
    pthread_create(&guest, NULL, guest_side, r->v);
    pthread_join(host, NULL);
    pthread_join(guest, NULL);
    ck_assert_uint_gt(ept()->stats.violations, 0);
    audit();
}
END_TEST

/* ---- everything at once ---- */

#define CHAOS_PAGES 1536 /* from BIG on: three runs of 2 MiB */

static uint64_t rng;

static unsigned below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)((rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

static void host_event(struct ksm *k, struct host_mm **child)
{
    hva_t page = hva(BIG) + below(CHAOS_PAGES) * 0x1000ull;
    switch (below(10)) {
    case 0:
        host_mm_swap_out(r->mm, page);
        break;
    case 1:
        host_mm_migrate(r->mm, page);
        break;
    case 2:
        host_mm_collapse(r->mm, page);
        break;
    case 3:
        host_mm_split(r->mm, page);
        break;
    case 4:
        ksm_scan(k, 64);
        break;
    case 5:
        host_mm_age(r->mm, 32);
        break;
    case 6:
        host_mm_mprotect(r->mm, page, 0x1000, HOST_READ);
        host_mm_mprotect(r->mm, page, 0x1000, HOST_READ | HOST_WRITE);
        break;
    case 7:
        host_mm_destroy(*child);
        *child = below(2) ? host_mm_fork(r->mm) : NULL;
        break;
    case 8:
        host_mm_soft_dirty_clear(r->mm, page, 0x1000);
        break;
    default:
        host_mm_reclaim(r->mm, 16, NULL);
    }
}

START_TEST(guest_never_notices_what_the_host_does)
{
    static uint64_t model[CHAOS_PAGES];
    static struct pages dirty;
    static bool written[CHAOS_PAGES];
    char err[200];
    struct swap_store *swap = swap_store_create(&(struct swap_config){.memory_bytes = 32 << 20}, err, sizeof err);
    struct ksm *k = ksm_create(r->pool);
    struct host_mm *child = NULL;
    rng = 88172645463325252ull;
    ck_assert_int_eq(host_mm_set_swap(r->mm, swap), 0);
    ck_assert(ksm_add(k, r->mm));
    host_mm_set_mergeable(r->mm, r->hva, RAM, true);
    host_mm_set_huge_faults(r->mm, 2);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned page = below(CHAOS_PAGES);
        gpa_t gpa = BIG + page * 0x1000ull;
        if (step % 5000 == 1000)
            ck_assert(ept_dirty_log_start(r->mmu));
        if (step % 5000 == 1000)
            memset(written, 0, sizeof written);
        if (below(8) == 0) {
            host_event(k, &child);
        } else if (below(2)) {
            model[page] = below(4); /* few values, so that pages can be merged */
            written[page] = true;
            guest_write(gpa, model[page]);
        }
        ck_assert_uint_eq(guest_read(gpa), model[page]);
        if (step % 100 == 0)
            audit();
        if (step % 5000 == 3000) {
            harvest(&dirty);
            for (unsigned i = 0; i < dirty.n; i++)
                written[dirty.gfn[i] - (BIG >> 12)] = false;
            for (unsigned i = 0; i < CHAOS_PAGES; i++)
                ck_assert_msg(!written[i], "page %u was written and is not in the log", i);
            ept_dirty_log_stop(r->mmu);
        }
    }
    ck_assert_uint_gt(ept()->stats.zapped, 100);
    ck_assert_uint_gt(ept()->stats.repointed, 0);
    ck_assert_uint_gt(r->mmu->stats.large_fills, 0);
    host_mm_destroy(child);
    ksm_destroy(k);
    swap_store_put(swap);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        write_protection_by_the_host_ends_in_a_new_fault_not_in_a_lost_write,
        forked_memory_is_repointed_when_the_parent_writes,
        migrated_frame_is_found_again,
        zap_costs_what_is_mapped,
        guest_table_that_the_host_takes_back_drops_what_was_walked_from_it,
        accessed_bits_answer_the_hosts_aging,
        without_accessed_bits_aging_zaps,
        accessed_state_of_a_dropped_leaf_reaches_the_hosts_aging,
        merged_page_is_repointed_read_only_without_a_fault,
        change_pte_keeps_the_leaf_and_drops_the_tlb_entry,
        huge_host_page_becomes_one_large_leaf,
        split_in_the_host_brings_small_leaves,
        table_gives_way_to_a_large_leaf_after_a_collapse,
        large_leaf_gives_way_to_a_table_where_a_page_is_restricted,
        small_mapping_inside_a_large_leaf_splits_it,
        invalidation_of_one_page_takes_the_whole_large_leaf,
        first_write_to_each_page_is_logged_from_the_top_of_the_buffer_down,
        full_log_exits_and_loses_nothing,
        logging_splits_large_leaves_and_stopping_brings_them_back,
        guest_tables_that_are_walked_are_logged_as_written,
        no_logging_without_dirty_bits,
        access_to_the_apic_page_exits_and_its_frame_follows_the_host,
        apic_page_is_not_reloaded_for_write_protection,
        apic_page_is_seen_through_another_gfn_too,
        pdpte_load_from_the_apic_page_exits_and_reads_ones,
        frame_that_is_taken_back_between_gup_and_lock_is_not_mapped,
        no_stale_leaf_is_left_by_faults_that_race_with_invalidations,
        guest_never_notices_what_the_host_does,
    };
    return suite_of_case("mmu: ept engine and host", "host", tests, ARRAY_LEN(tests), setup, teardown, 300);
}

CHECK_MAIN(suite)
