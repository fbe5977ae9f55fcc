/* Cases that have caught shadow MMUs before, each by name; in the shadow engine and, for comparison, the other two. */
#include "core/host/host_ops.h"
#include "mmu_rig.h"

#define RAM   (8ull << 20)
#define GVA   0x40000000ull
#define TABLE (GVA + 0x1ff000) /* where the leaf table at 0x4000 maps itself */

static struct rig rig;
static struct rig *const r = &rig;

static void open_kind(int kind)
{
    rig_open(r, &(struct rig_config){.kind = (enum mmu_kind)kind, .ram = RAM, .vcpus = 2});
}

static void close_kind(void)
{
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_close(r);
}

/* ---- CR0.WP, SMEP, SMAP, NXE switched between accesses ---- */

/* Twice in a row: the second time from what the first one left. */
static void expect_as_predicted(gva_t gva, unsigned access)
{
    struct gwalk w;
    struct xlate x;
    gwalk(r->mem, &r->regs, gva, access | GWALK_PEEK, &w);
    for (int again = 0; again < 2; again++) {
        enum xlate_result result = rig_translate(r, gva, access, &x);
        ck_assert_int_eq(result == XLATE_OK, w.result == GWALK_OK);
        if (result == XLATE_OK)
            ck_assert_uint_eq(x.gpa, w.gpa);
        else
            ck_assert_uint_eq(x.error, w.error);
    }
}

static void use_all_pages(void)
{
    static const unsigned kinds[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH, ACCESS_READ | ACCESS_IMPLICIT};
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        for (unsigned ac = 0; ac < 2; ac++) {
            r->regs.cpl = (uint8_t)cpl;
            r->regs.ac = ac;
            mmu_vcpu_set_mode(r->v, cpl, ac);
            for (unsigned i = 0; i < 8 * ARRAY_LEN(kinds); i++)
                expect_as_predicted(GVA + i / ARRAY_LEN(kinds) * 0x1000, kinds[i % ARRAY_LEN(kinds)]);
        }
    }
}

START_TEST(control_bits_switched_between_accesses_take_effect_at_once)
{
    open_kind(_i);
    for (unsigned i = 0; i < 8; i++)
        rig_map(r, GVA + i * 0x1000, 0x10000 + i * 0x1000,
                PTE_P | (i & 1 ? PTE_W : 0) | (i & 2 ? PTE_U : 0) | (i & 4 ? PTE_NX : 0));
    rig_long_mode(r, 0x1000);
    for (unsigned step = 0; step < 64; step++) {
        unsigned bits = step ^ step >> 1; /* one bit at a time, all 16 combinations, several times */
        r->regs.cr0 = (r->regs.cr0 & ~CR0_WP) | (bits & 1 ? CR0_WP : 0);
        r->regs.cr4 = (r->regs.cr4 & ~(CR4_SMEP | CR4_SMAP)) | (bits & 2 ? CR4_SMEP : 0) | (bits & 4 ? CR4_SMAP : 0);
        r->regs.efer = (r->regs.efer & ~EFER_NXE) | (bits & 8 ? EFER_NXE : 0);
        rig_load(r);
        use_all_pages();
        ck_assert_msg(rig_audit(r, false) == 0, "%s", r->report);
    }
    close_kind();
}
END_TEST

/* ---- a table that maps itself, written through its own mapping in every way ---- */

static void open_self_mapped(int kind)
{
    open_kind(kind);
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x11000, PTE_ALL);
    rig_map(r, TABLE - 0x1000, 0x3f000, PTE_ALL);
    rig_map(r, TABLE, 0x4000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x11000);
}

/* Where a guest's write to gva goes; it must not be one that nobody sees. */
static gpa_t seen_write(gva_t gva)
{
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, gva, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert_ptr_null(tlb_lookup_write(r->v, gva, 8));
    return x.gpa;
}

START_TEST(write_through_its_own_mapping_changes_the_mapping_it_went_through)
{
    open_self_mapped(_i);
    rig_put(r, seen_write(TABLE + 511 * 8), 0x12000 | PTE_ALL); /* TABLE is now somewhere else */
    rig_expect(r, TABLE, ACCESS_WRITE, 0x12000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    close_kind();
}
END_TEST

START_TEST(crossing_write_into_a_table_takes_effect)
{
    open_self_mapped(_i);
    uint8_t bytes[8] = {0};
    uint64_t entry = 0x20000 | PTE_ALL;
    struct xlate x;
    /* Its last four bytes are the low half of the first entry. The parts of a crossing access lie where they lie. */
    ck_assert_int_eq(rig_translate(r, TABLE - 4, ACCESS_WRITE, &x), XLATE_OK);
    gpa_t first = x.gpa, second = seen_write(TABLE);
    memcpy(bytes + 4, &entry, 4);
    mem_access(r->mem, 0, first, bytes, 4, MEM_GUEST, true, 0);
    mem_access(r->mem, 0, second, bytes + 4, 4, MEM_GUEST, true, 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    rig_expect(r, GVA, ACCESS_READ, 0x20000);
    /* One write over both pages where they are neighbours. */
    memcpy(bytes + 4, &(uint32_t){0x21000 | PTE_ALL}, 4);
    mem_access(r->mem, 0, 0x4000 - 4, bytes, 8, MEM_GUEST, true, 0);
    rig_expect(r, GVA, ACCESS_READ, 0x21000);
    /* And one that ends four bytes into an entry. */
    mem_access(r->mem, 0, 0x4004, (uint8_t[8]){0, 0, 0, 0, 0, 0x20, 0x02, 0}, 8, MEM_GUEST, true, 0);
    expect_as_predicted(GVA, ACCESS_READ);
    expect_as_predicted(GVA + 0x1000, ACCESS_READ);
    close_kind();
}
END_TEST

START_TEST(locked_update_of_an_entry_takes_effect)
{
    open_self_mapped(_i);
    /* What LOCK CMPXCHG does: translate for writing, read, compare, write, as one. */
    gpa_t at = seen_write(TABLE);
    uint64_t old = 0, new;
    mem_access(r->mem, 0, at, &old, 8, MEM_GUEST, false, 0);
    ck_assert_uint_eq(old & ~0xfffull, 0x10000);
    new = (old & ~PTE_W) | PTE_P;
    mem_access(r->mem, 0, at, &new, 8, MEM_GUEST, true, 0);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    close_kind();
}
END_TEST

START_TEST(string_write_over_a_table_in_use_takes_effect_entry_by_entry)
{
    open_self_mapped(_i);
    /* As REP STOSQ does, through the mapping that the last entry is, which goes with the last store. */
    for (unsigned i = 0; i < 511; i++) {
        rig_put(r, seen_write(TABLE + i * 8), (0x100000 + i * 0x1000) | PTE_ALL);
        rig_expect(r, GVA + i * 0x1000, ACCESS_READ, 0x100000 + i * 0x1000);
    }
    rig_put(r, seen_write(TABLE + 511 * 8), 0);
    rig_expect_fault(r, TABLE, ACCESS_WRITE, PF_WRITE);
    for (unsigned i = 0; i < 511; i++)
        rig_expect(r, GVA + i * 0x1000, ACCESS_WRITE, 0x100000 + i * 0x1000);
    close_kind();
}
END_TEST

START_TEST(dma_into_a_table_takes_effect)
{
    open_self_mapped(_i);
    uint64_t table[512];
    for (unsigned len = 8; len <= sizeof table; len *= 8) {
        for (unsigned i = 0; i < 512; i++)
            table[i] = (0x200000 + len * 0x100 + i % 2 * 0x1000) | PTE_ALL;
        mem_access(r->mem, 0, 0x4000, table, len, MEM_DMA, true, BUS_NO_CPU);
        ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
        expect_as_predicted(GVA, ACCESS_WRITE);
        expect_as_predicted(GVA + 0x1000, ACCESS_WRITE);
        expect_as_predicted(TABLE, ACCESS_WRITE);
    }
    /* The same through a pointer that a device holds. */
    struct gup_result g;
    ck_assert_int_eq(host_mm_gup(r->mm, r->hva + 0x4000, true, &g), 0);
    memcpy(g.ptr, &(uint64_t){0x300000 | PTE_ALL}, 8);
    mem_written(r->mem, 0, 0x4000, 8);
    rig_expect(r, GVA, ACCESS_WRITE, 0x300000);
    close_kind();
}
END_TEST

START_TEST(two_upper_entries_of_different_rights_share_one_table)
{
    open_kind(_i);
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_put(r, 0x3008, 0x4000 | PTE_P | PTE_U);          /* read-only */
    rig_put(r, 0x3010, 0x4000 | PTE_P | PTE_W);          /* supervisor */
    rig_put(r, 0x3018, 0x4000 | PTE_ALL | PTE_NX);       /* no execution */
    rig_put(r, 0x2010, 0x3000 | PTE_P | PTE_U | PTE_NX); /* and the same directory once more */
    rig_long_mode(r, 0x1000);
    for (int round = 0; round < 4; round++) {
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
            r->regs.cpl = (uint8_t)cpl;
            mmu_vcpu_set_mode(r->v, cpl, false);
            for (unsigned k = 0; k < 24; k++) {
                gva_t gva = GVA + (k & 3) * 0x200000 + (k & 4 ? 0x40000000 : 0);
                expect_as_predicted(gva, k / 8);
            }
        }
        rig_put(r, 0x4000, (0x10000 + round * 0x1000) | PTE_ALL); /* seen by all of them */
    }
    close_kind();
}
END_TEST

START_TEST(write_through_a_table_in_rom_relies_on_no_d_bit)
{
    open_kind(_i);
    rig_map(r, GVA, 0x4000, PTE_ALL | PTE_A); /* a page that is itself a table: writes to it are seen */
    for (gpa_t at = 0x1000; at < 0x4000; at += 0x1000)
        rig_put(r, at + (at == 0x2000 ? 8 : 0), (at + (at == 0x3000 ? 0x7fd000 : 0x1000)) | PTE_ALL | PTE_A);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, RAM, 0x1000, r->hva + RAM, MEMSLOT_ROM), 0);
    mem_access(r->mem, 0, RAM, &(uint64_t){0x4000 | PTE_ALL | PTE_A}, 8, MEM_HOST_POKE, true, BUS_NO_CPU);
    rig_put(r, 0x3000, RAM | PTE_ALL | PTE_A);
    rig_put(r, 0x3008, 0x4000 | PTE_ALL | PTE_A);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x4000); /* 0x4000 is a table in use */
    for (int again = 0; again < 3; again++) {
        struct xlate x;
        ck_assert_int_eq(rig_translate(r, GVA + 8, ACCESS_WRITE, &x), XLATE_OK);
        ck_assert_uint_eq(x.gpa, 0x4008);
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    }
    close_kind();
}
END_TEST

/* A 2 MiB page becomes a table of small ones and a page again, while it is in use. */
START_TEST(large_page_is_replaced_by_a_table_and_back)
{
    open_kind(_i);
    host_mm_set_huge_faults(r->mm, 2);
    for (gpa_t at = 0x400000; at < 0x600000; at += PAGE_SIZE)
        rig_put(r, at, at);
    rig_map(r, GVA, 0, 0);
    for (unsigned i = 0; i < 512; i++)
        rig_put(r, 0x4000 + i * 8, (i % 2 ? 0x400000 + i * 0x1000 : 0x10000) | PTE_ALL);
    rig_put(r, 0x3000, 0x400000 | PTE_ALL | PTE_PS);
    rig_long_mode(r, 0x1000);
    for (int round = 0; round < 6; round++) {
        bool table = round % 2;
        rig_put(r, 0x3000, table ? 0x4000 | PTE_ALL : 0x400000 | PTE_ALL | PTE_PS);
        for (unsigned i = 0; i < 512; i += 7) {
            expect_as_predicted(GVA + i * 0x1000, ACCESS_READ);
            rig_expect(r, GVA + i * 0x1000, ACCESS_WRITE, table && i % 2 == 0 ? 0x10000 : 0x400000 + i * 0x1000);
        }
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    }
    close_kind();
}
END_TEST

/* 2^17 addresses through 256 tables of 512 entries that all name one frame. */
START_TEST(frame_mapped_a_hundred_thousand_times_can_be_taken_away)
{
    open_kind(_i);
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_put(r, 0x2008, 0x3000 | PTE_ALL);
    for (unsigned t = 0; t < 256; t++) {
        rig_put(r, 0x3000 + t * 8, (0x200000 + t * 0x1000) | PTE_ALL);
        for (unsigned i = 0; i < 512; i++)
            rig_put(r, 0x200000 + t * 0x1000 + i * 8, 0x10000 | PTE_ALL | PTE_A | PTE_D);
    }
    rig_long_mode(r, 0x1000);
    for (unsigned n = 0; n < 1u << 17; n++)
        rig_expect(r, GVA + (gva_t)n * 0x1000, n % 2 ? ACCESS_WRITE : ACCESS_READ, 0x10000);
    uint64_t zaps = r->mmu->stats.zaps;
    ck_assert_int_eq(host_mm_migrate(r->mm, r->hva + 0x10000), 0);
    ck_assert_uint_le(r->mmu->stats.zaps - zaps, 2000);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    for (unsigned n = 0; n < 1u << 17; n += 97)
        rig_expect(r, GVA + (gva_t)n * 0x1000, ACCESS_READ, 0x10000);
    close_kind();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("shadow_cases");
    TCase *t = tcase_create("shadow_cases");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, control_bits_switched_between_accesses_take_effect_at_once, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, write_through_its_own_mapping_changes_the_mapping_it_went_through, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, crossing_write_into_a_table_takes_effect, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, locked_update_of_an_entry_takes_effect, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, string_write_over_a_table_in_use_takes_effect_entry_by_entry, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, dma_into_a_table_takes_effect, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, write_through_a_table_in_rom_relies_on_no_d_bit, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, large_page_is_replaced_by_a_table_and_back, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, frame_mapped_a_hundred_thousand_times_can_be_taken_away, MMU_SHADOW, MMU_EPT + 1);
    tcase_add_loop_test(t, two_upper_entries_of_different_rights_share_one_table, MMU_SHADOW, MMU_EPT + 1);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
