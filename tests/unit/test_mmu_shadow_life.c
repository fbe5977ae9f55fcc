/*
 * The shadow engine's housekeeping: slots that move or change under use, generations, obsolete pages, roots that lose
 * their pages, limits, shrinking, and allocations that fail (the linker wraps calloc and malloc for this suite).
 */
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define RAM   (8ull << 20)
#define GVA   0x40000000ull
#define OTHER 0x40000000ull /* gpa of a second slot */

static struct rig rig;
static struct rig *const r = &rig;
static bool failing;

void *__real_calloc(size_t n, size_t size);
void *__real_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
    return failing ? NULL : __real_calloc(n, size);
}

void *__wrap_malloc(size_t size)
{
    return failing ? NULL : __real_malloc(size);
}

static void open_with(uint64_t max_pages)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM, .vcpus = 2, .max_shadow_pages = max_pages});
}

static void setup(void)
{
    failing = false;
    open_with(0);
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

static void expect_device(gva_t gva, gpa_t gpa)
{
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, gva, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, gpa);
    ck_assert_ptr_null(x.host);
}

static void expect_ram(gva_t gva, gpa_t gpa)
{
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, gva, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, gpa);
    ck_assert_ptr_nonnull(x.host);
}

struct flush_listener {
    struct track_listener l;
    gfn_t start;
    uint64_t pages;
    unsigned calls;
};

static bool on_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    return true;
}

static void on_flush(struct track_listener *l, unsigned as, gfn_t start, uint64_t pages)
{
    struct flush_listener *f = (struct flush_listener *)l;
    f->start = start;
    f->pages = pages;
    f->calls++;
}

START_TEST(moved_slot_is_reached_at_its_new_place_only)
{
    struct flush_listener f = {.l = {.write = on_write, .flush_slot = on_flush, .kind = TRACK_CODE}};
    track_register(r->mem, &f.l);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, OTHER, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA, OTHER + 0x3000, PTE_ALL);
    rig_map(r, GVA + 0x1000, OTHER + 0x23000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    expect_ram(GVA, OTHER + 0x3000);
    expect_device(GVA + 0x1000, OTHER + 0x23000);
    memset(tlb_lookup_write(r->v, GVA, 8), 0x77, 8);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER, OTHER + 0x20000), 0);
    ck_assert_uint_eq(f.calls, 1);
    ck_assert_uint_eq(f.start, OTHER >> 12);
    ck_assert_uint_eq(f.pages, 16);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    expect_device(GVA, OTHER + 0x3000);
    expect_ram(GVA + 0x1000, OTHER + 0x23000);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA + 0x1000, 8), 0x7777777777777777ull);
    /* By less than its length: old and new place overlap. */
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER + 0x20000, OTHER + 0x1f000), 0);
    expect_ram(GVA + 0x1000, OTHER + 0x23000);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA + 0x1000, 8), 0);
    track_unregister(r->mem, &f.l);
}
END_TEST

START_TEST(impossible_slot_moves_are_refused_and_change_nothing)
{
    uint64_t generation = mem_generation(r->mem);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, OTHER, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER, 0x1000), MEMSLOT_ERR_OVERLAP);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER, OTHER + 0x800), MEMSLOT_ERR_ALIGN);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER, 1ull << 52), MEMSLOT_ERR_RANGE);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER + 0x1000, 0x80000000), MEMSLOT_ERR_ABSENT);
    ck_assert_int_eq(mem_slot_move(r->mem, 7, OTHER, 0x80000000), MEMSLOT_ERR_RANGE);
    ck_assert_uint_eq(mem_generation(r->mem), generation + 1);
    ck_assert_ptr_nonnull(memslot_find(r->mem, 0, OTHER >> 12));
}
END_TEST

START_TEST(slot_with_tables_in_it_may_move)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, OTHER, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_put(r, 0x3008, (OTHER + 0x1000) | PTE_ALL);
    rig_put(r, OTHER + 0x1000, 0x11000 | PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 0x200000, ACCESS_WRITE, 0x11000);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, OTHER, OTHER + 0x100000), 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x200000, 8));
    ck_assert_uint_eq(track_count(r->mem, 0, (OTHER >> 12) + 1, TRACK_PT), 0);
    rig_put(r, 0x3008, (OTHER + 0x101000) | PTE_ALL);
    rig_expect(r, GVA + 0x200000, ACCESS_WRITE, 0x11000);
}
END_TEST

START_TEST(slot_that_becomes_rom_loses_its_write_rights)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, OTHER, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA, OTHER, PTE_ALL);
    rig_long_mode(r, 0x1000);
    expect_ram(GVA, OTHER);
    ck_assert_int_eq(mem_slot_set_kind(r->mem, 0, OTHER, MEMSLOT_ROM), 0);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    expect_device(GVA, OTHER);
    rig_expect(r, GVA, ACCESS_READ, OTHER);
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_int_eq(mem_slot_set_kind(r->mem, 0, OTHER, MEMSLOT_RAM), 0);
    expect_ram(GVA, OTHER);
}
END_TEST

START_TEST(mmio_generation_that_wraps_does_not_revive_old_mmio_sptes)
{
    rig_map(r, GVA, OTHER, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    expect_device(GVA, OTHER);
    /* As many slot changes as bring the few bits of the generation in an mmio spte round to the same value. */
    r->mem->generation += (1ull << SPTE_GEN_BITS) - 1;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, OTHER, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    uint64_t zaps = sh()->stats.fast_zaps;
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x10000); /* a fault before the old spte is met */
    ck_assert_uint_eq(sh()->stats.fast_zaps, zaps + 1);
    expect_ram(GVA, OTHER);
}
END_TEST

static void map_many(unsigned tables)
{
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_put(r, 0x2000, 0x3000 | PTE_ALL);
    for (unsigned t = 0; t < tables; t++) {
        rig_put(r, 0x3000 + t * 8, (0x100000 + t * 0x1000) | PTE_ALL);
        rig_put(r, 0x100000 + t * 0x1000, (0x400000 + t * 0x1000) | PTE_ALL);
    }
}

static void touch_many(unsigned tables)
{
    for (unsigned t = 0; t < tables; t++)
        rig_expect(r, t * 0x200000ull, ACCESS_WRITE, 0x400000 + t * 0x1000);
}

START_TEST(fast_zap_makes_everything_unreachable_at_once_and_goes_away_by_and_by)
{
    map_many(100);
    rig_long_mode(r, 0x1000);
    touch_many(100);
    uint32_t before = sh()->active_count;
    mmu_lock(r->mmu);
    shadow_zap_all_fast(sh());
    mmu_unlock(r->mmu);
    ck_assert_uint_eq(sh()->active_count, before);
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0, 8));
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    uint64_t walks = r->mmu->stats.guest_walks;
    rig_expect(r, 0, ACCESS_WRITE, 0x400000);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks + 1);
    ck_assert_uint_lt(sh()->active_count, before);
    ck_assert_uint_gt(sh()->active_count, before - 20);
    /* What is obsolete still follows its tables and the host. */
    rig_put(r, 0x100000 + 99 * 0x1000, 0);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x400000 + 98 * 0x1000, 0x1000), 0);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    touch_many(98);
    ck_assert_uint_gt(sh()->stats.obsolete_zapped, 90);
    for (uint32_t i = sh()->active_first; i; i = sh()->pages[i].active_next)
        ck_assert(!sp_is_obsolete(sh(), &sh()->pages[i]));
}
END_TEST

START_TEST(root_that_loses_its_page_under_two_vcpus_is_made_again)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    struct mmu_vcpu *other = mmu_vcpu_get(r->mmu, 1);
    struct xlate x;
    mmu_vcpu_load(other, &r->regs);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_int_eq(mmu_translate(other, GVA, ACCESS_READ, &x), XLATE_OK);
    uint8_t odd = 0;
    mem_access(r->mem, 0, 0x1001, &odd, 1, MEM_GUEST, true, 0); /* what looks like no table write unshadows the PML4 */
    struct shadow_root *mine = r->v->set->root, *theirs = other->set->root;
    ck_assert_uint_eq(mine->sp[0], 0);
    ck_assert_uint_eq(theirs->sp[0], 0);
    ck_assert_ptr_null(tlb_lookup_read(other, GVA, 8));
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_int_eq(mmu_translate(other, GVA, ACCESS_READ, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, 0x10000);
    ck_assert_uint_eq(mine->sp[0], theirs->sp[0]);
    ck_assert_uint_eq(sh()->pages[mine->sp[0]].root_count, 2);
}
END_TEST

/* A second process: PML4 at 0x6000, its user half empty, with the kernel's PDPT of the first; and the kernel's page. */
#define KERNEL 0xffff888040000000ull

static void open_kernel(void)
{
    rig_map(r, KERNEL, 0x10000, PTE_P | PTE_W);
    rig_put(r, 0x6000 + 273 * 8, 0x2000 | PTE_ALL);
    for (unsigned i = 0; i < 2; i++) {
        rig_long_mode(r, i ? 0x6000 : 0x1000);
        rig_expect(r, KERNEL, ACCESS_WRITE, 0x10000);
        rig_expect(r, KERNEL, ACCESS_FETCH, 0x10000);
    }
}

START_TEST(process_that_goes_leaves_what_the_others_have_in_their_tlbs)
{
    uint8_t odd = 0;
    open_kernel();
    mem_access(r->mem, 0, 0x6001, &odd, 1, MEM_GUEST, true, 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, KERNEL, 8));
    ck_assert_ptr_null(tlb_lookup_fetch(r->v, KERNEL));
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_long_mode(r, 0x1000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, KERNEL, 8));
    ck_assert_ptr_nonnull(tlb_lookup_fetch(r->v, KERNEL));
    rig_put(r, 0x4000, 0); /* the entry of the page */
    ck_assert_ptr_null(tlb_lookup_read(r->v, KERNEL, 8));
    ck_assert_ptr_null(tlb_lookup_fetch(r->v, KERNEL));
}
END_TEST

START_TEST(what_no_root_leads_to_any_more_is_found_again_as_it_is_then)
{
    uint8_t odd = 0;
    open_kernel();
    mem_access(r->mem, 0, 0x6001, &odd, 1, MEM_GUEST, true, 0);
    mem_access(r->mem, 0, 0x1001, &odd, 1, MEM_GUEST, true, 0);
    rig_put(r, 0x4000, 0x20000 | PTE_P | PTE_W);
    rig_put(r, 0x1000 + 273 * 8, 0x2000 | PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, KERNEL, ACCESS_READ, 0x20000);
}
END_TEST

START_TEST(known_fetch_is_what_the_shadow_has_and_fills_the_tlb)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x11000, PTE_ALL | PTE_NX);
    rig_map(r, GVA + 0x2000, 0x12000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    ck_assert_ptr_null(mmu_known_fetch(r->v, GVA));
    ck_assert_uint_eq(rig_get(r, 0x4000) & PTE_A, 0);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x11000);
    uint64_t walks = r->mmu->stats.guest_walks;
    ck_assert_ptr_null(tlb_lookup_fetch(r->v, GVA));
    ck_assert_ptr_null(mmu_known_fetch(r->v, GVA ^ 1ull << 60)); /* the same tables, but not canonical */
    ck_assert_ptr_null(mmu_known_fetch(r->v, GVA + 0x1000));
    ck_assert_ptr_null(mmu_known_fetch(r->v, GVA + 0x2000));
    ck_assert_uint_eq(rig_get(r, 0x4010) & PTE_A, 0);
    const struct tlb_fetch_entry *e = mmu_known_fetch(r->v, GVA);
    ck_assert_ptr_nonnull(e);
    ck_assert_uint_eq(e->gpa, 0x10000);
    ck_assert_ptr_eq(tlb_lookup_fetch(r->v, GVA), e);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    rig_put(r, 0x4000, 0);
    ck_assert_ptr_null(mmu_known_fetch(r->v, GVA));
    r->regs.cr4 |= CR4_SMEP;
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_load(r);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_ptr_null(mmu_known_fetch(r->v, GVA)); /* a supervisor's, of a user page */
}
END_TEST

START_TEST(tiniest_shadow_thrashes_but_is_right)
{
    rig_close(r);
    open_with(1); /* the least there is */
    map_many(200);
    rig_long_mode(r, 0x1000);
    for (int round = 0; round < 4; round++) {
        touch_many(200);
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
        ck_assert_uint_le(sh()->active_count, 16);
    }
    ck_assert_uint_gt(sh()->stats.recycled, 600);
}
END_TEST

START_TEST(shrinker_takes_the_oldest_pages_and_the_guest_cannot_tell)
{
    map_many(100);
    rig_long_mode(r, 0x1000);
    touch_many(100);
    uint32_t before = sh()->active_count;
    ck_assert_uint_eq(mmu_shrink(r->mmu, 40), 40);
    ck_assert_uint_eq(sh()->active_count, before - 40);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    touch_many(100);
    ck_assert_uint_eq(mmu_shrink(r->mmu, 100000), sh()->stats.shrunk - 40);
    ck_assert_uint_eq(sh()->active_count, 0);
    touch_many(100);
}
END_TEST

START_TEST(fault_without_memory_for_its_rmap_maps_nothing_and_is_right)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x600000, PTE_ALL); /* another rmap chunk */
    uint64_t value = 1;
    mem_access(r->mem, 0, 0x600000, &value, 8, MEM_GUEST, true, 0);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    struct xlate x;
    failing = true;
    enum xlate_result result = rig_translate(r, GVA + 0x1000, ACCESS_WRITE, &x);
    failing = false;
    ck_assert_int_eq(result, XLATE_OK);
    ck_assert_uint_eq(x.gpa, 0x600000);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x1000, 8));
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    expect_ram(GVA + 0x1000, 0x600000);
}
END_TEST

START_TEST(fault_needs_no_allocation_once_it_has_begun_to_map)
{
    map_many(64);
    rig_long_mode(r, 0x1000);
    rig_expect(r, 0, ACCESS_WRITE, 0x400000);
    /* All chunks are there now; what comes next lives on what was put aside. */
    failing = true;
    for (unsigned t = 1; t < 40; t++) {
        struct xlate x;
        enum xlate_result result = rig_translate(r, t * 0x200000ull, ACCESS_READ, &x);
        if (result != XLATE_OK || x.gpa != 0x400000 + t * 0x1000) {
            failing = false;
            ck_abort_msg("page %u", t);
        }
    }
    failing = false;
    ck_assert_uint_gt(sh()->active_count, 40);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("shadow_life");
    TCase *t = tcase_create("shadow_life");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, moved_slot_is_reached_at_its_new_place_only);
    tcase_add_test(t, impossible_slot_moves_are_refused_and_change_nothing);
    tcase_add_test(t, slot_with_tables_in_it_may_move);
    tcase_add_test(t, slot_that_becomes_rom_loses_its_write_rights);
    tcase_add_test(t, mmio_generation_that_wraps_does_not_revive_old_mmio_sptes);
    tcase_add_test(t, fast_zap_makes_everything_unreachable_at_once_and_goes_away_by_and_by);
    tcase_add_test(t, root_that_loses_its_page_under_two_vcpus_is_made_again);
    tcase_add_test(t, process_that_goes_leaves_what_the_others_have_in_their_tlbs);
    tcase_add_test(t, what_no_root_leads_to_any_more_is_found_again_as_it_is_then);
    tcase_add_test(t, known_fetch_is_what_the_shadow_has_and_fills_the_tlb);
    tcase_add_test(t, tiniest_shadow_thrashes_but_is_right);
    tcase_add_test(t, shrinker_takes_the_oldest_pages_and_the_guest_cannot_tell);
    tcase_add_test(t, fault_without_memory_for_its_rmap_maps_nothing_and_is_right);
    tcase_add_test(t, fault_needs_no_allocation_once_it_has_begun_to_map);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
