/*
 * Leaves of 1 GiB, in the shadow and in EPT: made where guest, memslot, tracking, logging and host all allow, gone as
 * soon as one of them does not, and never told from small ones by the guest. Each test runs on both engines.
 */
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "mmu/dirty.h"
#include "mmu/ept/ept_internal.h"
#include "mmu/shadow/sp.h"
#include "mmu_rig.h"

#define GIB       (1ull << 30)
#define RAM       (2 * GIB)
#define GIB_PAGES (FRAMES_GIGANTIC)
#define PDPT      0x2000
#define PD        0x3000 /* of the second GiB, where a test wants one */
#define PT        0x4000
#define BIG       GIB /* gpa and gva */

static struct rig rig;
static struct rig *const r = &rig;
static const enum mmu_kind kinds[] = {MMU_SHADOW, MMU_EPT};
static enum mmu_kind kind;

static void pdpte_set(uint64_t value)
{
    rig_put(r, PDPT + 8, value);
}

static void start(int i)
{
    kind = kinds[i];
    rig_open(r, &(struct rig_config){.kind = kind, .ram = RAM, .vcpus = 2, .frames = 3 * GIB_PAGES});
    rig_put(r, 0x1000, PDPT | PTE_ALL);
    rig_put(r, PDPT, 0x5000 | PTE_ALL);
    rig_put(r, 0x5000, 0 | PTE_ALL | PTE_PS | PTE_A | PTE_D);
    pdpte_set(BIG | PTE_ALL | PTE_PS);
    rig_put(r, PD + 5 * 8, (BIG + 0xa00000) | PTE_ALL | PTE_PS);
    rig_put(r, PD + 6 * 8, PT | PTE_ALL);
    rig_put(r, PT + 7 * 8, (BIG + 0xc07000) | PTE_ALL);
    rig_long_mode(r, 0x1000);
    host_mm_set_huge_faults(r->mm, 3);
}

static void audit(void)
{
    rig_expect_sound(r);
}

static void stop(void)
{
    audit();
    rig_close(r);
}

static void store(gva_t gva, uint64_t value)
{
    rig_access8(r, gva, gva, true, value);
}

static uint64_t load(gva_t gva)
{
    return rig_access8(r, gva, gva, false, 0);
}

static hva_t hva(gpa_t gpa)
{
    return r->hva + gpa;
}

/* Of the engine's leaf for the address; 0: there is none. */
static int leaf_level(gva_t gva)
{
    int level;
    if (kind == MMU_SHADOW) {
        const uint64_t *sptep = shadow_walk(shadow_of(r->mmu), r->v->set->root, gva, &level);
        return sptep && spte_is_leaf(*sptep, level) ? level : 0;
    }
    struct ept_table *t;
    const uint64_t *entryp = ept_lookup(ept_of(r->mmu), 0, gva >> PAGE_SHIFT, &t);
    return ept_is_leaf(*entryp, t->level) ? t->level : 0;
}

static void map_gigantic(void)
{
    store(BIG + 0x12345678, 1);
    ck_assert_int_eq(host_mm_peek(r->mm, hva(BIG)).level, 3);
    ck_assert_int_eq(leaf_level(BIG), 3);
    ck_assert_uint_eq(r->mmu->stats.gigantic_fills, 1);
}

START_TEST(guests_gib_over_a_gigantic_host_page_is_one_leaf)
{
    start(_i);
    map_gigantic();
    uint64_t fills = r->mmu->stats.large_fills, zaps = r->mmu->stats.zaps;
    for (gva_t gva = BIG; gva < BIG + GIB; gva += 0x1fff000)
        store(gva, gva);
    for (gva_t gva = BIG; gva < BIG + GIB; gva += 0x1fff000)
        ck_assert_uint_eq(rig_get(r, gva), gva);
    ck_assert_uint_eq(r->mmu->stats.large_fills, fills);
    ck_assert_uint_eq(r->mmu->stats.zaps, zaps);
    stop();
}
END_TEST

START_TEST(smaller_pages_of_the_guest_have_leaves_of_their_size_in_the_shadow)
{
    start(_i);
    map_gigantic();
    pdpte_set(PD | PTE_ALL);
    store(BIG + 0xa12340, 5);
    store(BIG + 0xc07100, 6);
    ck_assert_int_eq(leaf_level(BIG + 0xa12340), kind == MMU_EPT ? 3 : 2);
    ck_assert_int_eq(leaf_level(BIG + 0xc07100), kind == MMU_EPT ? 3 : 1);
    audit();
    pdpte_set(BIG | PTE_ALL | PTE_PS); /* and back */
    ck_assert_uint_eq(load(BIG + 0xa12340), 5);
    ck_assert_uint_eq(load(BIG + 0xc07100), 6);
    ck_assert_int_eq(leaf_level(BIG), 3);
    stop();
}
END_TEST

START_TEST(tracked_page_disallows_the_gigantic_leaf_in_the_shadow_while_it_is_tracked)
{
    start(_i);
    map_gigantic();
    track_add(r->mem, 0, (BIG >> 12) + 1000, TRACK_WATCH);
    ck_assert_int_eq(leaf_level(BIG + 0x20000000), kind == MMU_EPT ? 3 : 0);
    store(BIG + 0x20000000, 2);
    store(BIG + 1000 * PAGE_SIZE, 3);
    store(BIG + 1001 * PAGE_SIZE, 4);
    ck_assert_ptr_null(tlb_lookup_write(r->v, BIG + 1000 * PAGE_SIZE, 8));
    if (kind == MMU_SHADOW) {
        ck_assert_int_eq(leaf_level(BIG + 0x20000000), 2);
        ck_assert_int_eq(leaf_level(BIG + 1000 * PAGE_SIZE), 1);
        ck_assert_int_eq(leaf_level(BIG + 1001 * PAGE_SIZE), 1);
    }
    audit();
    track_remove(r->mem, 0, (BIG >> 12) + 1000, TRACK_WATCH);
    store(BIG + 0x30000000, 5);
    ck_assert_int_eq(leaf_level(BIG), 3);
    ck_assert_uint_eq(load(BIG + 1000 * PAGE_SIZE), 3);
    stop();
}
END_TEST

START_TEST(restricted_page_disallows_the_gigantic_leaf)
{
    start(_i);
    if (kind == MMU_EPT) {
        map_gigantic();
        ck_assert(ept_restrict(r->mmu, 0, (BIG >> 12) + 1000, 1, EPT_R));
        store(BIG + 0x20000000, 2);
        store(BIG + 1000 * PAGE_SIZE, 3); /* emulated */
        ck_assert_uint_eq(load(BIG + 1000 * PAGE_SIZE), 3);
        ck_assert_int_eq(leaf_level(BIG + 0x20000000), 2);
        ck_assert_int_eq(leaf_level(BIG + 1000 * PAGE_SIZE), 1);
        audit();
        ck_assert(ept_restrict(r->mmu, 0, (BIG >> 12) + 1000, 1, EPT_RWX));
        store(BIG + 0x30000000, 2);
        ck_assert_int_eq(leaf_level(BIG), 3);
    }
    stop();
}
END_TEST

START_TEST(memslot_that_covers_less_than_the_gib_has_no_gigantic_leaf)
{
    start(_i);
    gpa_t at = 2 * GIB;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, at, GIB - 0x200000, r->hva + at, MEMSLOT_RAM), 0);
    rig_put(r, PDPT + 16, at | PTE_ALL | PTE_PS);
    store(at + 0x1234560, 1);
    ck_assert_int_eq(host_mm_peek(r->mm, hva(at)).level, 3);
    ck_assert_int_eq(leaf_level(at + 0x1234560), 2);
    audit();
    ck_assert_int_eq(mem_slot_delete(r->mem, 0, at), 0);
    stop();
}
END_TEST

START_TEST(host_that_splits_and_puts_together_is_followed)
{
    start(_i);
    map_gigantic();
    ck_assert_int_eq(host_mm_split(r->mm, hva(BIG)), HOST_OK);
    ck_assert_int_eq(leaf_level(BIG + 0x12345678), 0);
    ck_assert_uint_eq(load(BIG + 0x12345678), 1);
    ck_assert_int_eq(leaf_level(BIG + 0x12345678), 2);
    ck_assert_int_eq(host_mm_split(r->mm, hva(BIG)), HOST_OK);
    store(BIG, 2);
    ck_assert_int_eq(leaf_level(BIG), 1);
    audit();
    ck_assert_int_eq(host_mm_collapse_gigantic(r->mm, hva(BIG)), HOST_OK);
    ck_assert_uint_eq(load(BIG + 0x12345678), 1);
    ck_assert_uint_eq(load(BIG), 2);
    ck_assert_int_eq(leaf_level(BIG), 3);
    stop();
}
END_TEST

static bool take_swap(hva_t at)
{
    return host_mm_swap_out(r->mm, at) == HOST_OK;
}

static bool take_migrate(hva_t at)
{
    return host_mm_migrate(r->mm, at) == HOST_OK;
}

static bool take_mprotect(hva_t at)
{
    return !host_mm_mprotect(r->mm, at, PAGE_SIZE, HOST_READ) &&
           !host_mm_mprotect(r->mm, at, PAGE_SIZE, HOST_READ | HOST_WRITE);
}

static bool take_soft_dirty(hva_t at)
{
    return host_mm_soft_dirty_clear(r->mm, at, PAGE_SIZE) == HOST_OK;
}

/* A child writes: only then does anything come apart. */
static bool take_fork(hva_t at)
{
    struct gup_result g;
    struct host_mm *child = host_mm_fork(r->mm);
    bool ok = child && host_mm_gup(r->mm, at, true, &g) == HOST_OK;
    host_mm_destroy(child);
    return ok;
}

static bool take_merge(hva_t at)
{
    struct ksm *k = ksm_create(r->pool);
    host_mm_set_mergeable(r->mm, r->hva, RAM, true);
    bool ok = ksm_add(k, r->mm) && ksm_merge(k, r->mm, at - PAGE_SIZE, r->mm, at) == HOST_OK;
    ksm_destroy(k);
    return ok;
}

START_TEST(operation_on_one_page_takes_the_leaf_and_changes_nothing_that_the_guest_sees)
{
    bool (*const take[])(hva_t) = {take_swap, take_migrate, take_mprotect, take_soft_dirty, take_fork, take_merge};
    char err[200];
    struct swap_store *swap = swap_store_create(&(struct swap_config){.memory_bytes = 1 << 20}, err, sizeof err);
    for (size_t k = 0; k < ARRAY_LEN(take); k++) {
        start(_i);
        ck_assert_int_eq(host_mm_set_swap(r->mm, swap), HOST_OK);
        map_gigantic();
        store(BIG + 0x20001008, 7);
        store(BIG + 0x20000008, 7);
        ck_assert_msg(take[k](hva(BIG + 0x20001000)), "operation %zu", k);
        ck_assert_int_eq(leaf_level(BIG), 0);
        ck_assert_ptr_null(tlb_lookup_write(r->v, BIG + 0x20001000, 8));
        audit();
        ck_assert_uint_eq(load(BIG + 0x20001008), 7);
        ck_assert_uint_eq(load(BIG + 0x12345678), 1);
        ck_assert_int_eq(leaf_level(BIG + 0x12345678), 2);
        ck_assert_int_eq(leaf_level(BIG + 0x20001000), 1);
        store(BIG + 0x20001008, 8);
        ck_assert_uint_eq(rig_get(r, BIG + 0x20001008), 8);
        ck_assert_uint_eq(rig_get(r, BIG + 0x20000008), 7);
        stop();
    }
    swap_store_put(swap);
}
END_TEST

START_TEST(balloon_in_a_gigantic_page_takes_the_leaf_and_leaves_zeros)
{
    start(_i);
    map_gigantic();
    store(BIG + 0x20000000, 7);
    ck_assert_int_eq(host_mm_dontneed(r->mm, hva(BIG + 0x20000000), PAGE_SIZE), 0);
    ck_assert_uint_eq(load(BIG + 0x20000000), 0);
    ck_assert_uint_eq(load(BIG + 0x12345678), 1);
    stop();
}
END_TEST

START_TEST(logged_slot_has_small_leaves_and_gigantic_ones_come_back)
{
    static uint64_t log[RAM / PAGE_SIZE / 64];
    start(_i);
    map_gigantic();
    for (enum dirty_form form = DIRTY_WRITE_PROTECT; form <= DIRTY_BIT; form++) {
        ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, form), 0);
        store(BIG + 0x20000000, form);
        ck_assert_uint_eq(load(BIG + 0x20001000), 0);
        ck_assert_int_eq(leaf_level(BIG + 0x20000000), 1);
        audit();
        mem_dirty_log_get_and_clear(r->mem, 0, 0, log);
        gfn_t gfn = (BIG + 0x20000000) >> PAGE_SHIFT;
        ck_assert_uint_eq(log[gfn / 64] >> (gfn % 64) & 3, 1);
        ck_assert_int_eq(mem_dirty_log_stop(r->mem, 0, 0), 0);
        store(BIG + 0x20002000, 1);
        ck_assert_int_eq(leaf_level(BIG), 3);
    }
    stop();
}
END_TEST

START_TEST(gigantic_leaf_answers_the_hosts_aging_as_one)
{
    start(_i);
    map_gigantic();
    host_mm_age(r->mm, RAM / PAGE_SIZE);
    ck_assert(!host_mm_is_young(r->mm, hva(BIG)));
    tlb_flush_all(r->mmu);
    load(BIG + 0x3000);
    ck_assert(host_mm_is_young(r->mm, hva(BIG + 0x30000000)));
    ck_assert_int_eq(leaf_level(BIG), 3); /* aging takes no mapping */
    stop();
}
END_TEST

START_TEST(read_only_host_page_has_a_gigantic_leaf_that_cannot_be_written)
{
    start(_i);
    map_gigantic();
    ck_assert_int_eq(host_mm_mprotect(r->mm, hva(BIG), GIB, HOST_READ), 0);
    ck_assert_uint_eq(load(BIG + 0x12345678), 1);
    ck_assert_int_eq(leaf_level(BIG), 3);
    ck_assert_ptr_null(tlb_lookup_write(r->v, BIG + 0x12345678, 8));
    audit();
    ck_assert_int_eq(host_mm_mprotect(r->mm, hva(BIG), GIB, HOST_READ | HOST_WRITE), 0);
    store(BIG + 0x12345678, 9);
    ck_assert_int_eq(leaf_level(BIG + 0x12345678), 2); /* the write fault took it apart */
    ck_assert_uint_eq(load(BIG + 0x12345678), 9);
    stop();
}
END_TEST

START_TEST(audit_names_a_leaf_that_is_larger_than_the_hosts_mapping)
{
    start(_i);
    if (kind == MMU_EPT) {
        map_gigantic();
        struct ept_fault f = {.gfn = BIG >> 12, .slot = memslot_find(r->mem, 0, BIG >> 12), .host_level = 3};
        f.pfn = host_mm_peek(r->mm, hva(BIG)).pfn;
        host_mm_split(r->mm, hva(BIG));
        mmu_lock(r->mmu);
        ept_direct_map(ept_of(r->mmu), &f);
        mmu_unlock(r->mmu);
        ck_assert_uint_gt(rig_audit(r, true), 0);
        ck_assert_ptr_nonnull(strstr(r->report, "invariant 2"));
        ck_assert_ptr_nonnull(strstr(r->report, "larger than the host's mapping"));
        mmu_zap_all(r->mmu);
    }
    stop();
}
END_TEST

/* ---- everything at once ---- */

#define PAGES 64 /* all over the GiB */

static uint64_t rng;

static unsigned below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)((rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

static gpa_t place(unsigned i)
{
    return BIG + i * (GIB / PAGES) + (i & 7) * PAGE_SIZE;
}

static void host_event(struct ksm *k, struct host_mm **child)
{
    hva_t at = hva(place(below(PAGES)));
    switch (below(11)) {
    case 0:
        host_mm_swap_out(r->mm, at);
        break;
    case 1:
        host_mm_migrate(r->mm, at);
        break;
    case 2:
    case 3: /* in place most of the time, or by copying */
        for (unsigned i = 0; i < PAGES; i++)
            host_mm_swap_in(r->mm, hva(place(i)));
        host_mm_collapse_gigantic(r->mm, at);
        break;
    case 4:
        host_mm_split(r->mm, at);
        break;
    case 5:
        ksm_merge(k, r->mm, at, r->mm, hva(place(below(PAGES))));
        break;
    case 6:
        host_mm_age(r->mm, 32);
        break;
    case 7:
        take_mprotect(at);
        break;
    case 8:
        host_mm_destroy(*child);
        *child = below(2) ? host_mm_fork_range(r->mm, hva(BIG), GIB) : NULL;
        break;
    case 9:
        take_soft_dirty(at);
        break;
    default:
        host_mm_collapse(r->mm, at);
    }
}

/* The second GiB by one page, by a table, with other rights. */
static void guest_event(void)
{
    static const gfn_t tracked = (BIG >> 12) + 77777;
    switch (below(4)) {
    case 0:
        pdpte_set(BIG | PTE_ALL | PTE_PS);
        break;
    case 1:
        pdpte_set(BIG | PTE_ALL | PTE_PS | PTE_A | PTE_D);
        break;
    case 2:
        pdpte_set(0x6000 | PTE_ALL);
        break;
    default:
        if (track_count(r->mem, 0, tracked, TRACK_WATCH))
            track_remove(r->mem, 0, tracked, TRACK_WATCH);
        else
            track_add(r->mem, 0, tracked, TRACK_WATCH);
    }
}

START_TEST(guest_never_notices_what_the_host_does_to_a_gigantic_page)
{
    static uint64_t model[PAGES];
    char err[200];
    struct swap_store *swap = swap_store_create(&(struct swap_config){.memory_bytes = 8 << 20}, err, sizeof err);
    struct host_mm *child = NULL;
    bool logging = false;
    start(_i);
    struct ksm *k = ksm_create(r->pool);
    rng = 88172645463325252ull;
    memset(model, 0, sizeof model);
    ck_assert_int_eq(host_mm_set_swap(r->mm, swap), HOST_OK);
    ck_assert(ksm_add(k, r->mm));
    host_mm_set_mergeable(r->mm, r->hva, RAM, true);
    for (unsigned i = 0; i < 512; i++)
        rig_put(r, 0x6000 + i * 8, (BIG + i * 0x200000) | PTE_ALL | PTE_PS);
    for (unsigned step = 0; step < 2400; step++) {
        unsigned i = below(PAGES);
        if (below(10) == 0)
            host_event(k, &child);
        else if (below(30) == 0)
            guest_event();
        else if (below(2))
            store(place(i), model[i] = below(4)); /* few values, so that pages can be merged */
        if (step % 800 == 400)
            ck_assert_int_eq((logging = !logging) ? mem_dirty_log_start(r->mem, 0, 0, DIRTY_BIT)
                                                  : mem_dirty_log_stop(r->mem, 0, 0),
                             0);
        ck_assert_uint_eq(load(place(i)), model[i]);
        if (step % 300 == 0)
            audit();
    }
    ck_assert_uint_gt(r->mmu->stats.gigantic_fills, 5);
    ck_assert_uint_gt(host_mm_counters(r->mm)->collapses, 5);
    host_mm_destroy(child);
    ksm_destroy(k);
    stop();
    swap_store_put(swap);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        guests_gib_over_a_gigantic_host_page_is_one_leaf,
        smaller_pages_of_the_guest_have_leaves_of_their_size_in_the_shadow,
        tracked_page_disallows_the_gigantic_leaf_in_the_shadow_while_it_is_tracked,
        restricted_page_disallows_the_gigantic_leaf,
        memslot_that_covers_less_than_the_gib_has_no_gigantic_leaf,
        host_that_splits_and_puts_together_is_followed,
        operation_on_one_page_takes_the_leaf_and_changes_nothing_that_the_guest_sees,
        balloon_in_a_gigantic_page_takes_the_leaf_and_leaves_zeros,
        logged_slot_has_small_leaves_and_gigantic_ones_come_back,
        gigantic_leaf_answers_the_hosts_aging_as_one,
        read_only_host_page_has_a_gigantic_leaf_that_cannot_be_written,
        audit_names_a_leaf_that_is_larger_than_the_hosts_mapping,
        guest_never_notices_what_the_host_does_to_a_gigantic_page,
    };
    Suite *s = suite_create("mmu: leaves of 1 GiB");
    TCase *t = tcase_create("gigantic");
    tcase_set_timeout(t, 300);
    for (size_t i = 0; i < ARRAY_LEN(tests); i++)
        tcase_add_loop_test(t, tests[i], 0, (int)ARRAY_LEN(kinds));
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
