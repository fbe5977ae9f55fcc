/*
 * The missing-flush detector: what is reported, once, and what is not. Both engines feed it.
 */
#include "mmu/mem.h"
#include "mmu_rig.h"

#define GVA 0x400000000ull

static struct rig rig;
static struct log stale_log;
static char *log_text;
static size_t log_len;

static uint64_t rip_of(void *ctx)
{
    return 0xffffffff81000123;
}

static void setup(enum mmu_kind kind)
{
    rig_open(&rig, &(struct rig_config){.kind = MMU_WALK, .ram = 4 << 20});
    mmu_destroy(rig.mmu);
    log_init(&stale_log, open_memstream(&log_text, &log_len));
    size_t bad;
    ck_assert_ptr_null(log_enable_list(&stale_log, "staletlb", &bad));
    rig.mmu =
        mmu_create(&(struct mmu_config){.kind = kind, .mem = rig.mem, .vcpus = 2, .log = &stale_log, .staletlb = true});
    rig.v = mmu_vcpu_get(rig.mmu, 0);
    rig.v->rip = rip_of;
    rig_map(&rig, GVA, 0x50000, PTE_ALL);
    rig_long_mode(&rig, 0x1000);
}

static void setup_walk(void)
{
    setup(MMU_WALK);
}

static void setup_shadow(void)
{
    setup(MMU_SHADOW);
}

static void teardown(void)
{
    rig_close(&rig);
    fclose(stale_log.out);
    free(log_text);
}

static uint64_t reports(void)
{
    return rig.mmu->stats.stale_reports;
}

static void use(unsigned access)
{
    struct xlate x;
    rig_translate(&rig, GVA, access, &x);
}

static void set_entry(uint64_t value)
{
    rig_put(&rig, 0x4000, value);
}

START_TEST(changed_gpa_without_flush_is_reported_once_with_rip_and_both_translations)
{
    use(ACCESS_READ);
    set_entry(0x60000 | PTE_ALL);
    ck_assert_uint_eq(reports(), 0); /* no use yet */
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
    use(ACCESS_READ);
    use(ACCESS_WRITE);
    ck_assert_uint_eq(reports(), 1);
    fflush(stale_log.out);
    ck_assert_ptr_nonnull(strstr(log_text, "gva 0x400000000"));
    ck_assert_ptr_nonnull(strstr(log_text, "rip 0xffffffff81000123"));
    ck_assert_ptr_nonnull(strstr(log_text, "was gpa 0x50000"));
    ck_assert_ptr_nonnull(strstr(log_text, "now gpa 0x60000"));
    ck_assert_ptr_eq(strchr(log_text, '\n') + 1, log_text + log_len);
}
END_TEST

START_TEST(invlpg_covers_its_page_only)
{
    use(ACCESS_READ);
    set_entry(0x60000 | PTE_ALL);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA + 0x1000);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA + 0x123);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 0);
    set_entry(0x50000 | PTE_ALL);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA + 0x1000);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

/* What was used before the flush and is used again after it counts from the second use. */
START_TEST(use_after_a_flush_is_noted_though_the_tlb_still_had_it)
{
    use(ACCESS_READ);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA);
    use(ACCESS_READ);
    set_entry(0x60000 | PTE_ALL);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
    mmu_guest_flush(rig.v, GUEST_FLUSH_NONGLOBAL, 0);
    use(ACCESS_READ);
    set_entry(0x50000 | PTE_ALL);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 2);
}
END_TEST

START_TEST(cr3_load_forgets_all_but_global_translations)
{
    rig.regs.cr4 |= CR4_PGE;
    rig_load(&rig);
    set_entry(0x50000 | PTE_ALL | 1 << 8);
    use(ACCESS_READ);
    set_entry(0x60000 | PTE_ALL | 1 << 8);
    mmu_guest_flush(rig.v, GUEST_FLUSH_NONGLOBAL, 0);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
    set_entry(0x50000 | PTE_ALL | 1 << 8);
    mmu_guest_flush(rig.v, GUEST_FLUSH_ALL, 0);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
    set_entry(0x50000 | PTE_ALL);
    use(ACCESS_READ);
    mmu_guest_flush(rig.v, GUEST_FLUSH_ALL, 0);
    use(ACCESS_READ);
    set_entry(0x60000 | PTE_ALL);
    mmu_guest_flush(rig.v, GUEST_FLUSH_NONGLOBAL, 0);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(removed_entry_is_reported_at_the_fault)
{
    use(ACCESS_READ);
    set_entry(0);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
    fflush(stale_log.out);
    ck_assert_ptr_nonnull(strstr(log_text, "now not present"));
    use(ACCESS_READ); /* the fault dropped what was cached */
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(lost_write_right_is_reported_at_the_first_write)
{
    use(ACCESS_WRITE);
    set_entry(0x50000 | PTE_P | PTE_U);
    use(ACCESS_READ); /* same for the old translation */
    ck_assert_uint_eq(reports(), 0);
    use(ACCESS_WRITE);
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(lost_user_right_gained_nx_and_changed_key_are_reported)
{
    rig.regs.cpl = 3;
    rig_load(&rig);
    use(ACCESS_READ);
    set_entry(0x50000 | PTE_P | PTE_W);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
    set_entry(0x50000 | PTE_ALL);
    use(ACCESS_FETCH);
    set_entry(0x50000 | PTE_ALL | PTE_NX);
    use(ACCESS_FETCH);
    ck_assert_uint_eq(reports(), 2);
    rig.regs.cr4 |= CR4_PKE;
    rig_load(&rig);
    mmu_guest_flush(rig.v, GUEST_FLUSH_ALL, 0);
    use(ACCESS_READ);
    set_entry(0x50000 | PTE_ALL | 3ull << 59);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 3);
}
END_TEST

START_TEST(strengthening_is_not_reported)
{
    set_entry(0);
    use(ACCESS_READ); /* faults */
    set_entry(0x50000 | PTE_P | PTE_NX);
    use(ACCESS_READ);
    set_entry(0x50000 | PTE_ALL | PTE_NX);
    use(ACCESS_WRITE);
    set_entry(0x50000 | PTE_ALL);
    use(ACCESS_FETCH);
    ck_assert_uint_eq(reports(), 0);
    set_entry(0x50000 | PTE_P); /* and what it grew to is what counts */
    use(ACCESS_WRITE);
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(clearing_a_or_d_alone_is_not_reported)
{
    use(ACCESS_WRITE);
    set_entry(0x50000 | PTE_ALL);
    use(ACCESS_WRITE);
    ck_assert_uint_eq(reports(), 0);
}
END_TEST

START_TEST(fault_that_the_old_translation_had_too_is_not_reported)
{
    set_entry(0x50000 | PTE_P);
    use(ACCESS_READ);
    use(ACCESS_WRITE);
    ck_assert_uint_eq(reports(), 0);
}
END_TEST

START_TEST(invlpg_drops_the_record_of_a_whole_large_page)
{
    struct xlate x;
    rig_put(&rig, 0x3000, 0x200000 | PTE_ALL | PTE_PS);
    rig_translate(&rig, GVA + 0x5000, ACCESS_READ, &x);
    rig_translate(&rig, GVA + 0x9000, ACCESS_READ, &x);
    rig_put(&rig, 0x3000, PTE_ALL | PTE_PS);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA + 0x1f0000);
    rig_translate(&rig, GVA + 0x5000, ACCESS_READ, &x);
    rig_translate(&rig, GVA + 0x9000, ACCESS_READ, &x);
    ck_assert_uint_eq(reports(), 0);
    rig_put(&rig, 0x3000, 0x200000 | PTE_ALL | PTE_PS);
    rig_translate(&rig, GVA + 0x11000, ACCESS_READ, &x); /* another part of the same cached page */
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(splitting_a_large_page_into_equal_small_ones_is_not_reported)
{
    struct xlate x;
    rig_put(&rig, 0x3000, PTE_ALL | PTE_PS);
    rig_translate(&rig, GVA + 0x5000, ACCESS_READ, &x);
    rig_put(&rig, 0x4028, 0x5000 | PTE_ALL);
    rig_put(&rig, 0x4030, 0x9000 | PTE_ALL);
    rig_put(&rig, 0x3000, 0x4000 | PTE_ALL);
    rig_translate(&rig, GVA + 0x5000, ACCESS_READ, &x);
    ck_assert_uint_eq(reports(), 0);
    rig_translate(&rig, GVA + 0x6000, ACCESS_READ, &x); /* this one differs */
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(vcpus_are_told_apart)
{
    struct mmu_vcpu *other = mmu_vcpu_get(rig.mmu, 1);
    struct xlate x;
    mmu_vcpu_load(other, &rig.regs);
    use(ACCESS_READ);
    mmu_translate(other, GVA, ACCESS_READ, &x);
    set_entry(0x60000 | PTE_ALL);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA); /* no shoot-down of the other */
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 0);
    mmu_translate(other, GVA, ACCESS_READ, &x);
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(record_table_grows_and_forgets_nothing)
{
    struct xlate x;
    enum { PAGES = 3000 };
    for (unsigned i = 0; i < 8; i++) /* page tables 0x4000.. and 0x100000.. */
        rig_put(&rig, 0x3000 + i * 8, (0x100000 + i * 0x1000) | PTE_ALL);
    for (unsigned i = 0; i < PAGES; i++)
        rig_put(&rig, 0x100000 + i * 8, 0x200000 | PTE_ALL);
    for (unsigned i = 0; i < PAGES; i++)
        rig_translate(&rig, GVA + i * 0x1000ull, ACCESS_READ, &x);
    for (unsigned i = 0; i < PAGES; i++)
        rig_put(&rig, 0x100000 + i * 8, 0x201000 | PTE_ALL);
    for (unsigned i = 0; i < PAGES; i++)
        rig_translate(&rig, GVA + i * 0x1000ull, ACCESS_READ, &x);
    ck_assert_uint_eq(reports(), PAGES);
}
END_TEST

START_TEST(detector_that_is_off_costs_and_reports_nothing)
{
    mmu_destroy(rig.mmu);
    rig.mmu = mmu_create(&(struct mmu_config){.kind = MMU_WALK, .mem = rig.mem, .vcpus = 1});
    rig.v = mmu_vcpu_get(rig.mmu, 0);
    rig_load(&rig);
    use(ACCESS_READ);
    set_entry(0x60000 | PTE_ALL);
    use(ACCESS_READ);
    mmu_guest_flush(rig.v, GUEST_FLUSH_ALL, 0);
    ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, GVA, 8)); /* a coherent engine drops nothing */
    ck_assert_uint_eq(reports(), 0);
}
END_TEST

/* Registers as MOV CR3 with this PCID leaves them. */
static void load_pcid(unsigned pcid)
{
    struct paging_regs regs = rig.v->regs;
    regs.cr4 |= CR4_PCIDE;
    regs.cr3 = 0x1000 | pcid;
    mmu_vcpu_load(rig.v, &regs);
}

static void both_pcids_use_it(uint64_t entry)
{
    set_entry(entry);
    load_pcid(1);
    use(ACCESS_READ);
    load_pcid(2);
    use(ACCESS_READ);
}

START_TEST(flush_of_one_pcid_leaves_the_other_ones_translations_stale)
{
    both_pcids_use_it(0x50000 | PTE_ALL);
    set_entry(0x60000 | PTE_ALL);
    mmu_guest_flush(rig.v, GUEST_FLUSH_PAGE, GVA);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 0);
    load_pcid(1);
    use(ACCESS_READ);
    ck_assert_uint_eq(reports(), 1);
}
END_TEST

START_TEST(invpcid_of_a_page_or_a_pcid_covers_that_pcid_only)
{
    static const enum guest_flush what[] = {GUEST_FLUSH_PCID_PAGE, GUEST_FLUSH_PCID};
    for (unsigned k = 0; k < 2; k++) {
        uint64_t before = reports();
        both_pcids_use_it((0x50000 + 0x10000 * k) | PTE_ALL);
        set_entry(0x90000 | PTE_ALL);
        mmu_guest_flush_pcid(rig.v, what[k], 1, GVA);
        load_pcid(1);
        use(ACCESS_READ);
        ck_assert_uint_eq(reports(), before);
        load_pcid(2);
        use(ACCESS_READ);
        ck_assert_uint_eq(reports(), before + 1);
        mmu_guest_flush(rig.v, GUEST_FLUSH_ALL, 0);
    }
}
END_TEST

START_TEST(invpcid_of_all_contexts_covers_every_pcid)
{
    static const enum guest_flush what[] = {GUEST_FLUSH_ALL, GUEST_FLUSH_ALL_NONGLOBAL};
    for (unsigned k = 0; k < 2; k++) {
        both_pcids_use_it((0x50000 + 0x10000 * k) | PTE_ALL);
        set_entry(0x90000 | PTE_ALL);
        mmu_guest_flush(rig.v, what[k], 0);
        load_pcid(1);
        use(ACCESS_READ);
        load_pcid(2);
        use(ACCESS_READ);
        ck_assert_uint_eq(reports(), 0);
        mmu_guest_flush(rig.v, GUEST_FLUSH_ALL, 0);
    }
}
END_TEST

static void add_tests(TCase *t)
{
    tcase_add_test(t, changed_gpa_without_flush_is_reported_once_with_rip_and_both_translations);
    tcase_add_test(t, invlpg_covers_its_page_only);
    tcase_add_test(t, use_after_a_flush_is_noted_though_the_tlb_still_had_it);
    tcase_add_test(t, cr3_load_forgets_all_but_global_translations);
    tcase_add_test(t, removed_entry_is_reported_at_the_fault);
    tcase_add_test(t, lost_write_right_is_reported_at_the_first_write);
    tcase_add_test(t, lost_user_right_gained_nx_and_changed_key_are_reported);
    tcase_add_test(t, strengthening_is_not_reported);
    tcase_add_test(t, clearing_a_or_d_alone_is_not_reported);
    tcase_add_test(t, fault_that_the_old_translation_had_too_is_not_reported);
    tcase_add_test(t, invlpg_drops_the_record_of_a_whole_large_page);
    tcase_add_test(t, splitting_a_large_page_into_equal_small_ones_is_not_reported);
    tcase_add_test(t, vcpus_are_told_apart);
    tcase_add_test(t, record_table_grows_and_forgets_nothing);
    tcase_add_test(t, detector_that_is_off_costs_and_reports_nothing);
    tcase_add_test(t, flush_of_one_pcid_leaves_the_other_ones_translations_stale);
    tcase_add_test(t, invpcid_of_a_page_or_a_pcid_covers_that_pcid_only);
    tcase_add_test(t, invpcid_of_all_contexts_covers_every_pcid);
}

static Suite *suite(void)
{
    Suite *s = suite_create("mmu: missing-flush detector");
    TCase *walk = tcase_create("walk"), *shadow = tcase_create("shadow");
    tcase_add_checked_fixture(walk, setup_walk, teardown);
    add_tests(walk);
    tcase_add_checked_fixture(shadow, setup_shadow, teardown);
    add_tests(shadow);
    suite_add_tcase(s, walk);
    suite_add_tcase(s, shadow);
    return s;
}

CHECK_MAIN(suite)
