/*
 * Roots in common: processes whose tables have the kernel's half in common fetch its code through one table of the TLB.
 * What it has must be true of each of them, whatever happens to one.
 */
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

/* Two processes: PML4s at 0x1000 and 0x6000, both with the PDPT at 0x2000 in entry 273, the first with it in entry 0
 * too. The third's, at 0x7000, has nothing. */
#define KERNEL 0xffff888040000000ull
#define OTHER  0xffffc90040000000ull /* entry 402, empty at first */
#define USER   0x40000000ull
#define FIRST  0x1000
#define SECOND 0x6000
#define THIRD  0x7000
#define CODE   0x10000

static struct rig rig;
static struct rig *const r = &rig;

static void open_with(bool unsync)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = 8 << 20, .vcpus = 2, .unsync = unsync});
    rig_map(r, KERNEL, CODE, PTE_P | PTE_W);
    rig_map(r, KERNEL + 0x1000, CODE + 0x1000, PTE_P | PTE_W);
    rig_put(r, FIRST + 273 * 8, 0x2000 | PTE_ALL | PTE_A);
    rig_put(r, SECOND + 273 * 8, 0x2000 | PTE_ALL | PTE_A);
    rig_put(r, FIRST, 0x2000 | PTE_ALL);
}

static void setup(void)
{
    open_with(false);
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

static void fetch(uint64_t cr3, gva_t gva, gpa_t gpa)
{
    rig_long_mode(r, cr3);
    rig_expect(r, gva, ACCESS_FETCH, gpa);
}

static bool holds(uint64_t cr3, gva_t gva)
{
    rig_long_mode(r, cr3);
    return tlb_lookup_fetch(r->v, gva) != NULL;
}

/* Both are in common, and the first page is in the TLB. */
static void both(void)
{
    fetch(FIRST, KERNEL, CODE);
    fetch(SECOND, KERNEL, CODE);
    ck_assert_uint_eq(sh()->common.roots, 2);
}

START_TEST(fetch_for_one_root_serves_the_others_under_the_same_epoch)
{
    both();
    uint64_t epoch = r->v->fetch_epoch, misses = r->mmu->stats.tlb_misses;
    fetch(SECOND, KERNEL + 0x1000, CODE + 0x1000);
    ck_assert(holds(FIRST, KERNEL + 0x1000));
    ck_assert_uint_eq(r->v->fetch_epoch, epoch);
    ck_assert_uint_eq(r->mmu->stats.tlb_misses, misses + 1);
    r->regs.cpl = 3;
    ck_assert(!holds(FIRST, KERNEL)); /* users have tables of their own */
    ck_assert_uint_ne(r->v->fetch_epoch, epoch);
    r->regs.cpl = 0;
}
END_TEST

START_TEST(entry_that_changes_is_gone_for_all_roots)
{
    both();
    rig_put(r, 0x4000, (CODE + 0x5000) | PTE_P);
    ck_assert(!holds(FIRST, KERNEL));
    ck_assert(!holds(SECOND, KERNEL));
    fetch(FIRST, KERNEL, CODE + 0x5000);
    ck_assert(holds(SECOND, KERNEL));
    rig_put(r, 0x2000 + 1 * 8, 0); /* an upper entry */
    ck_assert(!holds(FIRST, KERNEL));
    ck_assert(!holds(SECOND, KERNEL));
    rig_expect_fault(r, KERNEL, ACCESS_FETCH, PF_FETCH);
}
END_TEST

START_TEST(what_the_host_takes_is_gone_for_all_roots_and_vcpus)
{
    both();
    struct mmu_vcpu *other = mmu_vcpu_get(r->mmu, 1);
    struct xlate x;
    mmu_vcpu_load(other, &r->regs);
    ck_assert_int_eq(mmu_translate(other, KERNEL, ACCESS_FETCH, &x), XLATE_OK);
    ck_assert_ptr_nonnull(tlb_lookup_fetch(other, KERNEL));
    ck_assert_uint_eq(sh()->common.roots, 3);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + CODE, PAGE_SIZE), 0);
    ck_assert_ptr_null(tlb_lookup_fetch(other, KERNEL));
    ck_assert(!holds(FIRST, KERNEL));
    ck_assert(!holds(SECOND, KERNEL));
    fetch(FIRST, KERNEL, CODE);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x3000, PAGE_SIZE), 0); /* a table */
    ck_assert(!holds(FIRST, KERNEL));
    ck_assert(!holds(SECOND, KERNEL));
    rig_expect_fault(r, KERNEL, ACCESS_FETCH, PF_FETCH);
}
END_TEST

START_TEST(all_that_is_dropped_takes_what_is_common)
{
    both();
    mmu_zap_all(r->mmu);
    ck_assert_uint_eq(sh()->common.roots, 0);
    ck_assert(!holds(SECOND, KERNEL));
    ck_assert(!holds(FIRST, KERNEL));
    both();
    mmu_lock(r->mmu);
    shadow_zap_all_fast(sh());
    mmu_unlock(r->mmu);
    ck_assert(!holds(SECOND, KERNEL));
    both();
    ck_assert_uint_gt(mmu_shrink(r->mmu, 1000), 4);
    ck_assert(!holds(FIRST, KERNEL));
    both();
}
END_TEST

START_TEST(root_that_changes_its_upper_half_goes_its_own_way)
{
    both();
    uint64_t epoch = r->v->fetch_epoch;
    rig_put(r, 0x8000 + 8, 0x9000 | PTE_ALL);
    rig_put(r, 0x9000, 0xa000 | PTE_ALL);
    rig_put(r, 0xa000, 0x30000 | PTE_ALL);
    rig_put(r, SECOND + 273 * 8, 0x8000 | PTE_ALL | PTE_A);
    ck_assert(!holds(SECOND, KERNEL));
    ck_assert_uint_ne(r->v->fetch_epoch, epoch);
    fetch(SECOND, KERNEL, 0x30000);
    fetch(FIRST, KERNEL, CODE);
    ck_assert_uint_eq(tlb_lookup_fetch(r->v, KERNEL)->gpa, CODE);
    rig_long_mode(r, SECOND);
    ck_assert_uint_eq(tlb_lookup_fetch(r->v, KERNEL)->gpa, 0x30000);
}
END_TEST

START_TEST(roots_with_other_upper_halves_or_registers_are_not_in_common)
{
    both();
    fetch(SECOND, KERNEL, CODE);
    uint64_t epoch = r->v->fetch_epoch;
    r->regs.cr4 |= CR4_SMEP;
    rig_load(r);
    ck_assert_ptr_null(tlb_lookup_fetch(r->v, KERNEL));
    rig_expect(r, KERNEL, ACCESS_FETCH, CODE);
    ck_assert_uint_ne(r->v->fetch_epoch, epoch);
    r->regs.cr4 &= ~CR4_SMEP;
    rig_put(r, THIRD + 273 * 8, 0x2000 | PTE_P | PTE_A); /* without W */
    rig_long_mode(r, THIRD);
    rig_expect(r, KERNEL, ACCESS_FETCH, CODE);
    ck_assert_uint_ne(r->v->fetch_epoch, epoch);
    ck_assert_uint_eq(sh()->common.roots, 2);
}
END_TEST

START_TEST(later_entry_is_linked_for_all_that_have_used_it_alike)
{
    both();
    rig_put(r, 0x8000 + ((OTHER >> 30) & 511) * 8, 0x3000 | PTE_ALL);
    rig_put(r, FIRST + 402 * 8, 0x8000 | PTE_ALL | PTE_A);
    rig_put(r, SECOND + 402 * 8, 0x8000 | PTE_ALL | PTE_A);
    ck_assert_uint_eq(sh()->common.roots, 0); /* their upper halves were written */
    rig_poke(r, FIRST + 1, 0, 1);             /* and the guest makes its tables anew */
    rig_poke(r, SECOND + 1, 0, 1);
    rig_put(r, FIRST, 0x2000 | PTE_ALL);
    rig_put(r, SECOND, 0);
    both();
    fetch(SECOND, OTHER, CODE);
    ck_assert(holds(FIRST, OTHER));
    ck_assert_uint_eq(sh()->common.roots, 2);
}
END_TEST

START_TEST(walk_of_its_own_sets_the_a_bit_where_it_is_clear)
{
    rig_put(r, 0x8000 + ((OTHER >> 30) & 511) * 8, 0x3000 | PTE_ALL);
    rig_put(r, FIRST + 402 * 8, 0x8000 | PTE_ALL);
    rig_put(r, SECOND + 402 * 8, 0x8000 | PTE_ALL);
    both();
    fetch(SECOND, OTHER, CODE);
    ck_assert_uint_eq(rig_get(r, FIRST + 402 * 8) & PTE_A, 0);
    ck_assert_uint_ne(rig_get(r, SECOND + 402 * 8) & PTE_A, 0);
    ck_assert(!holds(FIRST, OTHER));
    rig_expect(r, OTHER, ACCESS_FETCH, CODE);
    ck_assert_uint_ne(rig_get(r, FIRST + 402 * 8) & PTE_A, 0);
}
END_TEST

START_TEST(supervisors_code_in_the_lower_half_is_a_roots_own)
{
    both();
    fetch(FIRST, USER, CODE);
    ck_assert_uint_eq(sh()->common.roots, 1);
    ck_assert(!holds(SECOND, USER));
    ck_assert(holds(SECOND, KERNEL));
    ck_assert(holds(FIRST, USER));
}
END_TEST

START_TEST(root_that_loses_its_page_or_its_set_leaves)
{
    both();
    rig_poke(r, SECOND + 1, 0, 1); /* what looks like no table write unshadows the PML4 */
    ck_assert_uint_eq(sh()->common.roots, 1);
    ck_assert(!holds(SECOND, KERNEL));
    ck_assert(holds(FIRST, KERNEL));
    for (unsigned i = 0; i < TLB_SETS; i++)
        rig_long_mode(r, 0x20000 + i * 0x1000);
    ck_assert_uint_eq(sh()->common.roots, 0);
    ck_assert(!holds(FIRST, KERNEL));
    both();
}
END_TEST

START_TEST(fuller_upper_half_takes_the_place_of_a_poorer_one)
{
    rig_put(r, THIRD + 511 * 8, 0x2000 | PTE_ALL | PTE_A);
    rig_put(r, FIRST + 300 * 8, 0x2000 | PTE_ALL | PTE_A);
    rig_put(r, SECOND + 300 * 8, 0x2000 | PTE_ALL | PTE_A);
    fetch(THIRD, 0xffffff8040000000ull, CODE);
    ck_assert_uint_eq(sh()->common.roots, 1);
    both();
    fetch(THIRD, 0xffffff8040000000ull, CODE);
    ck_assert_uint_eq(sh()->common.roots, 2);
}
END_TEST

START_TEST(nothing_is_common_where_the_tlb_may_be_old)
{
    rig_close(r);
    open_with(true);
    fetch(FIRST, KERNEL, CODE);
    fetch(SECOND, KERNEL, CODE);
    ck_assert_uint_eq(sh()->common.roots, 0);
}
END_TEST

/* Behind the engine's back: the audit holds what is common against the tables of each root. */
START_TEST(audit_finds_what_is_common_but_not_true_of_each)
{
    both();
    char *p = (char *)(uintptr_t)host_mm_peek_content(r->mm, r->hva + SECOND);
    memset(p + 273 * 8, 0, 8);
    ck_assert_uint_gt(rig_audit(r, true), 0);
    memcpy(p + 273 * 8, &(uint64_t){0x2000 | PTE_ALL | PTE_A}, 8);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    uint64_t *top = &sp_table(sh(), &sh()->pages[((struct shadow_root *)r->v->set->root)->sp[0]])[273], link = *top;
    *top = 0;
    ck_assert_uint_gt(rig_audit(r, true), 0);
    *top = link;
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("common");
    TCase *t = tcase_create("common");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, fetch_for_one_root_serves_the_others_under_the_same_epoch);
    tcase_add_test(t, entry_that_changes_is_gone_for_all_roots);
    tcase_add_test(t, what_the_host_takes_is_gone_for_all_roots_and_vcpus);
    tcase_add_test(t, all_that_is_dropped_takes_what_is_common);
    tcase_add_test(t, root_that_changes_its_upper_half_goes_its_own_way);
    tcase_add_test(t, roots_with_other_upper_halves_or_registers_are_not_in_common);
    tcase_add_test(t, later_entry_is_linked_for_all_that_have_used_it_alike);
    tcase_add_test(t, walk_of_its_own_sets_the_a_bit_where_it_is_clear);
    tcase_add_test(t, supervisors_code_in_the_lower_half_is_a_roots_own);
    tcase_add_test(t, root_that_loses_its_page_or_its_set_leaves);
    tcase_add_test(t, fuller_upper_half_takes_the_place_of_a_poorer_one);
    tcase_add_test(t, nothing_is_common_where_the_tlb_may_be_old);
    tcase_add_test(t, audit_finds_what_is_common_but_not_true_of_each);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
