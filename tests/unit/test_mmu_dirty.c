/* Dirty logging, of the shadow engine and of the others: both forms against each other and against what was written,
 * rings, large pages.
 */
#include "core/host/host_ops.h"
#include "mmu/dirty.h"
#include "mmu/ept/ept.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define RAM    (8ull << 20)
#define PAGES  (RAM >> 12)
#define WORDS  (PAGES / 64)
#define GVA    0x40000000ull
#define FIRST  0x100 /* gfns mapped at GVA by map_data(), one after the other */
#define MAPPED 256

static struct rig rig;
static struct rig *const r = &rig;
static uint64_t log_bits[WORDS];

static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM, .vcpus = 2});
}

static void teardown(void)
{
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_close(r);
}

/* Engines under test: shadow, walk, EPT, EPT without A and D bits. */
enum { SHADOW, WALK, EPT, EPT_NO_AD, ENGINES };
static int engine;

static void reopen(int which)
{
    static const enum mmu_kind kinds[ENGINES] = {MMU_SHADOW, MMU_WALK, MMU_EPT, MMU_EPT};
    teardown();
    engine = which;
    rig_open(r, &(struct rig_config){.kind = kinds[engine], .ram = RAM, .vcpus = 2});
    if (engine == EPT_NO_AD)
        ck_assert(ept_configure(r->mmu, &(struct ept_config){.levels = 4, .ad = false}));
}

/* With A and D in EPT entries an access to a guest's table counts as a write to it. */
static bool may_be_table(gfn_t gfn)
{
    return engine == EPT && gfn >= 1 && gfn <= 4;
}

static struct shadow *sh(void)
{
    return r->mmu->engine;
}

/* Entries in use and dirty already, so that the walker writes nothing. */
static void map_data(void)
{
    rig_map(r, GVA, 0, 0);
    for (gpa_t at = 0x1000; at < 0x4000; at += 0x1000)
        rig_put(r, at + (at == 0x2000 ? 8 : 0), (at + 0x1000) | PTE_ALL | PTE_A);
    for (unsigned i = 0; i < MAPPED; i++)
        rig_put(r, 0x4000 + i * 8, (FIRST + i) << 12 | PTE_ALL | PTE_A | PTE_D);
    rig_long_mode(r, 0x1000);
}

static bool is_dirty(gfn_t gfn)
{
    return log_bits[gfn / 64] >> (gfn % 64) & 1;
}

static int64_t get_log(void)
{
    return mem_dirty_log_get_and_clear(r->mem, 0, 0, log_bits);
}

/* As a CPU does it. */
static void store(gva_t gva)
{
    struct xlate x = {0};
    uint64_t value = gva;
    uint8_t *host = tlb_lookup_write(r->v, gva, 8);
    if (!host) {
        ck_assert_int_eq(rig_translate(r, gva, ACCESS_WRITE, &x), XLATE_OK);
        host = x.host;
    }
    if (host)
        memcpy(host, &value, 8);
    else
        mem_access(r->mem, 0, x.gpa, &value, 8, MEM_GUEST, true, 0);
}

START_TEST(first_write_to_each_page_is_logged_in_both_forms)
{
    map_data();
    for (enum dirty_form form = DIRTY_WRITE_PROTECT; form <= DIRTY_BIT; form++) {
        store(GVA);
        ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, form), 0);
        ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
        ck_assert_int_eq(get_log(), 0);
        for (int round = 0; round < 3; round++) {
            rig_expect(r, GVA + 0x5000, ACCESS_READ, (FIRST + 5) << 12);
            store(GVA);
            ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
            store(GVA + 8);
            store(GVA + 0x3000);
            ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
            ck_assert_int_eq(get_log(), 2);
            ck_assert(is_dirty(FIRST) && is_dirty(FIRST + 3));
            ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
            ck_assert_int_eq(get_log(), 0);
        }
        ck_assert_int_eq(mem_dirty_log_stop(r->mem, 0, 0), 0);
        store(GVA);
        ck_assert_int_eq(get_log(), MEMSLOT_ERR_ABSENT);
    }
}
END_TEST

START_TEST(write_fault_of_dirty_logging_needs_no_guest_walk_and_no_frame)
{
    map_data();
    for (unsigned i = 0; i < 8; i++)
        store(GVA + i * 0x1000);
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_WRITE_PROTECT), 0);
    uint64_t walks = r->mmu->stats.guest_walks, zaps = r->mmu->stats.zaps;
    for (unsigned i = 0; i < 8; i++)
        store(GVA + i * 0x1000);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    ck_assert_uint_eq(r->mmu->stats.zaps, zaps);
    ck_assert_uint_eq(sh()->stats.fast_faults, 8);
    ck_assert_int_eq(get_log(), 8);
}
END_TEST

START_TEST(writes_past_the_translation_are_logged_too)
{
    map_data();
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_WRITE_PROTECT), 0);
    uint64_t v = 1;
    mem_access(r->mem, 0, 0x200ffc, &v, 8, MEM_DMA, true, BUS_NO_CPU); /* crosses a page */
    mem_access(r->mem, 0, 0x210000, &v, 8, MEM_HOST_POKE, true, BUS_NO_CPU);
    mem_written(r->mem, 0, 0x220000, 1);
    rig_put(r, 0x4000, rig_get(r, 0x4000) & ~(PTE_A | PTE_D)); /* a tracked page */
    ck_assert_int_eq(get_log(), 5);
    ck_assert(is_dirty(0x200) && is_dirty(0x201) && is_dirty(0x210) && is_dirty(0x220) && is_dirty(4));
    store(GVA); /* the walker sets A and D */
    ck_assert_int_eq(get_log(), 2);
    ck_assert(is_dirty(4) && is_dirty(FIRST));
    mem_access(r->mem, 0, 0x230000, &v, 8, MEM_PEEK, false, BUS_NO_CPU);
    ck_assert_int_eq(get_log(), 0);
}
END_TEST

START_TEST(dirty_bit_of_a_zapped_spte_is_not_lost)
{
    map_data();
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_BIT), 0);
    store(GVA);
    store(GVA + 0x1000);
    store(GVA + 0x2000);
    rig_expect(r, GVA + 0x3000, ACCESS_READ, (FIRST + 3) << 12);
    host_mm_mprotect(r->mm, r->hva + (FIRST << 12), 0x1000, HOST_READ);
    host_mm_mprotect(r->mm, r->hva + (FIRST << 12), 0x1000, HOST_READ | HOST_WRITE);
    rig_put(r, 0x4008, 0);
    mmu_zap_all(r->mmu);
    get_log();
    ck_assert(is_dirty(FIRST) && is_dirty(FIRST + 1) && is_dirty(FIRST + 2) && !is_dirty(FIRST + 3));
}
END_TEST

static uint64_t rng = 88172645463325252ull;

static unsigned below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng % n);
}

static void random_step(bool written[PAGES])
{
    unsigned i = below(MAPPED), k = below(100);
    gva_t gva = GVA + i * 0x1000;
    hva_t hva = r->hva + ((FIRST + i) << 12);
    uint64_t v = k;
    if (k < 50) {
        store(gva);
        written[FIRST + i] = true;
    } else if (k < 75) {
        rig_expect(r, gva, ACCESS_READ, (FIRST + i) << 12);
    } else if (k < 80) {
        mem_access(r->mem, 0, (FIRST + i) << 12, &v, 8, MEM_DMA, true, BUS_NO_CPU);
        written[FIRST + i] = true;
    } else if (k < 85) {
        tlb_flush_all(r->mmu);
    } else if (k < 90) {
        host_mm_mprotect(r->mm, hva, 0x1000, HOST_READ);
        host_mm_mprotect(r->mm, hva, 0x1000, HOST_READ | HOST_WRITE);
    } else if (k < 92) {
        host_mm_migrate(r->mm, hva);
    } else if (k < 94) {
        notify_clear_young(r->mm, hva, hva + 0x1000);
    } else if (k < 96) {
        track_add(r->mem, 0, FIRST + i, TRACK_WATCH);
        if (below(2)) {
            store(gva);
            written[FIRST + i] = true;
        }
        track_remove(r->mem, 0, FIRST + i, TRACK_WATCH);
    } else if (k < 98) {
        mmu_shrink(r->mmu, 1);
    } else {
        rig_put(r, 0x4000 + i * 8, rig_get(r, 0x4000 + i * 8) ^ 0x200);
        written[4] = true;
    }
}

static void compare_log(const bool written[PAGES])
{
    get_log();
    for (gfn_t gfn = 0; gfn < PAGES; gfn++)
        ck_assert_msg(is_dirty(gfn) == written[gfn] || (is_dirty(gfn) && may_be_table(gfn)),
                      "gfn 0x%llx: logged %d, written %d", (unsigned long long)gfn, is_dirty(gfn), written[gfn]);
}

START_TEST(log_is_exactly_what_was_written)
{
    static bool written[PAGES];
    reopen(_i);
    map_data();
    for (enum dirty_form form = DIRTY_WRITE_PROTECT; form <= DIRTY_BIT; form++) {
        ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, form), 0);
        for (int round = 0; round < 60; round++) {
            memset(written, 0, sizeof written);
            for (unsigned n = 1 + below(300); n; n--)
                random_step(written);
            ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
            compare_log(written);
            ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
        }
    }
}
END_TEST

START_TEST(ring_has_each_page_once_in_order_until_it_is_reset)
{
    struct dirty_gfn out[8];
    reopen(_i == EPT ? EPT_NO_AD : _i);
    map_data();
    ck_assert(mem_dirty_rings_create(r->mem, 2, 64));
    ck_assert(!mem_dirty_rings_create(r->mem, 2, 64));
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_BIT), MEMSLOT_ERR_UNSUPPORTED);
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_WRITE_PROTECT), 0);
    store(GVA + 0x7000);
    store(GVA + 0x2000);
    store(GVA + 0x7008);
    ck_assert_uint_eq(mem_dirty_ring_harvest(r->mem, 0, out, 8), 2);
    ck_assert_uint_eq(out[0].gfn, FIRST + 7);
    ck_assert_uint_eq(out[1].gfn, FIRST + 2);
    ck_assert_uint_eq(mem_dirty_ring_harvest(r->mem, 1, out, 8), 0);
    store(GVA + 0x2000);
    ck_assert_uint_eq(mem_dirty_ring_harvest(r->mem, 0, out, 8), 0);
    mem_dirty_rings_reset(r->mem);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA + 0x2000, 8));
    store(GVA + 0x2000);
    ck_assert_uint_eq(mem_dirty_ring_harvest(r->mem, 0, out, 8), 1);
    ck_assert_uint_eq(out[0].gfn, FIRST + 2);
    uint64_t v = 1;
    mem_access(r->mem, 0, 0x200000, &v, 8, MEM_DMA, true, BUS_NO_CPU); /* of no vCPU: into the bitmap */
    ck_assert_int_eq(get_log(), 1);
    ck_assert(is_dirty(0x200));
}
END_TEST

START_TEST(full_ring_says_so_in_time_and_loses_nothing)
{
    struct dirty_gfn out[128];
    map_data();
    ck_assert(!mem_dirty_rings_create(r->mem, 2, 63));
    ck_assert(!mem_dirty_rings_create(r->mem, 2, 32));
    ck_assert(mem_dirty_rings_create(r->mem, 2, 64));
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_WRITE_PROTECT), 0);
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(mem_dirty_ring_is_soft_full(r->mem, 0), i >= 64 - DIRTY_RING_RESERVED);
        store(GVA + i * 0x1000);
    }
    ck_assert(!mem_dirty_ring_is_soft_full(r->mem, 1));
    ck_assert_uint_eq(mem_dirty_ring_harvest(r->mem, 0, out, 128), 64);
    ck_assert_int_eq(get_log(), 36);
    for (unsigned i = 0; i < 100; i++)
        ck_assert(i < 64 ? out[i].gfn == FIRST + i : is_dirty(FIRST + i));
    ck_assert(mem_dirty_ring_is_soft_full(r->mem, 0)); /* harvested, not reset */
    mem_dirty_rings_reset(r->mem);
    ck_assert(!mem_dirty_ring_is_soft_full(r->mem, 0));
    store(GVA);
    ck_assert_uint_eq(mem_dirty_ring_harvest(r->mem, 0, out, 128), 1);
}
END_TEST

START_TEST(large_page_is_logged_by_small_ones_and_comes_back_afterwards)
{
    host_mm_set_huge_faults(r->mm, 2);
    uint64_t v = 1;
    mem_access(r->mem, 0, 0x400000, &v, 8, MEM_GUEST, true, 0);
    map_data();
    rig_put(r, 0x3008, 0x400000 | PTE_ALL | PTE_PS | PTE_A | PTE_D);
    store(GVA + 0x200000);
    ck_assert_uint_eq(r->mmu->stats.large_fills, 1);
    for (enum dirty_form form = DIRTY_WRITE_PROTECT; form <= DIRTY_BIT; form++) {
        ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, form), 0);
        store(GVA + 0x201000);
        rig_expect(r, GVA + 0x202000, ACCESS_READ, 0x402000);
        ck_assert_uint_eq(r->mmu->stats.large_fills, 1 + form);
        ck_assert_int_eq(get_log(), 1);
        ck_assert(is_dirty(0x401));
        ck_assert_int_eq(mem_dirty_log_stop(r->mem, 0, 0), 0);
        store(GVA + 0x203000);
        ck_assert_uint_eq(r->mmu->stats.large_fills, 2 + form);
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    }
}
END_TEST

START_TEST(log_goes_with_its_slot)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0x40000000, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0x40001000, DIRTY_BIT), MEMSLOT_ERR_ABSENT);
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0x40000000, DIRTY_BIT), 0);
    ck_assert_int_eq(mem_slot_delete(r->mem, 0, 0x40000000), 0);
    ck_assert_int_eq(mem_dirty_log_stop(r->mem, 0, 0x40000000), MEMSLOT_ERR_ABSENT);
}
END_TEST

static void no_page(void *ctx, unsigned as, gfn_t gfn)
{
}

/* The processor has one log for the slots' logs and for that of the whole machine: neither may take the other's. */
START_TEST(log_of_the_machine_that_begins_later_leaves_the_slots_log_its_pages)
{
    reopen(EPT);
    map_data();
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_BIT), 0);
    store(GVA + 0x1000);
    ck_assert(ept_dirty_log_start(r->mmu));
    store(GVA + 0x2000);
    ck_assert_uint_ge(ept_dirty_log_harvest(r->mmu, 0, 0, PAGES, no_page, NULL), 1);
    store(GVA + 0x3000);
    ept_dirty_log_stop(r->mmu);
    get_log();
    ck_assert(is_dirty(FIRST + 1) && is_dirty(FIRST + 2) && is_dirty(FIRST + 3) && !is_dirty(FIRST + 4));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("dirty");
    TCase *t = tcase_create("dirty");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, first_write_to_each_page_is_logged_in_both_forms);
    tcase_add_test(t, write_fault_of_dirty_logging_needs_no_guest_walk_and_no_frame);
    tcase_add_test(t, writes_past_the_translation_are_logged_too);
    tcase_add_test(t, dirty_bit_of_a_zapped_spte_is_not_lost);
    tcase_add_loop_test(t, log_is_exactly_what_was_written, 0, ENGINES);
    tcase_add_loop_test(t, ring_has_each_page_once_in_order_until_it_is_reset, 0, EPT + 1);
    tcase_add_test(t, full_ring_says_so_in_time_and_loses_nothing);
    tcase_add_test(t, large_page_is_logged_by_small_ones_and_comes_back_afterwards);
    tcase_add_test(t, log_goes_with_its_slot);
    tcase_add_test(t, log_of_the_machine_that_begins_later_leaves_the_slots_log_its_pages);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
