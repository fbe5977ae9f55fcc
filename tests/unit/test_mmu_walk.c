/*
 * `-mmu walk`: coherent translation. Whatever is written to the guest's tables, by whomever, the next access translates
 * as a fresh walk would.
 */
#include "mmu/mem.h"
#include "mmu_rig.h"

static struct rig rig;

static void setup(void)
{
    rig_open(&rig, &(struct rig_config){.kind = MMU_WALK, .ram = 4 << 20});
}

static void teardown(void)
{
    ck_assert_msg(rig_audit(&rig, true) == 0, "%s", rig.report);
    rig_close(&rig);
}

#define GVA 0x400000000ull

static void map_and_touch(unsigned access)
{
    rig_map(&rig, GVA, 0x50000, PTE_ALL);
    rig_long_mode(&rig, 0x1000);
    rig_expect(&rig, GVA, access, 0x50000);
}

START_TEST(write_to_a_guest_entry_is_seen_by_the_next_access)
{
    map_and_touch(ACCESS_READ);
    ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, GVA, 8));
    rig_put(&rig, 0x4000, 0x60000 | PTE_ALL);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA, 8));
    rig_expect(&rig, GVA + 8, ACCESS_READ, 0x60008);
    rig_put(&rig, 0x4000, 0);
    rig_expect_fault(&rig, GVA, ACCESS_READ, 0);
}
END_TEST

START_TEST(write_to_each_level_is_seen)
{
    static const gpa_t entry[] = {0x1000, 0x2000 + 16 * 8, 0x3000, 0x4000};
    map_and_touch(ACCESS_READ);
    for (unsigned i = 0; i < ARRAY_LEN(entry); i++) {
        uint64_t v = rig_get(&rig, entry[i]);
        ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, GVA, 8));
        rig_put(&rig, entry[i], v & ~PTE_P);
        ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA, 8));
        rig_expect_fault(&rig, GVA, ACCESS_READ, 0);
        rig_put(&rig, entry[i], v);
        rig_expect(&rig, GVA, ACCESS_READ, 0x50000);
    }
}
END_TEST

START_TEST(write_to_one_entry_spares_its_neighbours)
{
    map_and_touch(ACCESS_READ);
    rig_put(&rig, 0x4008, 0x51000 | PTE_ALL);
    rig_expect(&rig, GVA + 0x1000, ACCESS_READ, 0x51000);
    rig_poke(&rig, 0x400f, 0, 1); /* the last byte of the second entry */
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA + 0x1000, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, GVA, 8));
}
END_TEST

START_TEST(guest_clearing_a_and_d_bits_sees_them_set_again)
{
    map_and_touch(ACCESS_WRITE);
    ck_assert_uint_eq(rig_get(&rig, 0x4000), 0x50000 | PTE_ALL | PTE_A | PTE_D);
    rig_put(&rig, 0x4000, 0x50000 | PTE_ALL);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, GVA, 8));
    rig_expect(&rig, GVA, ACCESS_READ, 0x50000);
    ck_assert_uint_eq(rig_get(&rig, 0x4000), 0x50000 | PTE_ALL | PTE_A);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, GVA, 8)); /* D is clear: the next write must be walked */
    rig_expect(&rig, GVA, ACCESS_WRITE, 0x50000);
    ck_assert_uint_eq(rig_get(&rig, 0x4000), 0x50000 | PTE_ALL | PTE_A | PTE_D);
    ck_assert_ptr_nonnull(tlb_lookup_write(rig.v, GVA, 8));
}
END_TEST

START_TEST(walkers_own_bits_do_not_drop_what_it_fills)
{
    rig_put(&rig, 0x50000, 1); /* frames of their own, no zero page to break */
    rig_put(&rig, 0x51000, 1);
    map_and_touch(ACCESS_READ);
    uint64_t drops = rig.mmu->stats.tlb_drops;
    rig_put(&rig, 0x4008, 0x51000 | PTE_ALL);
    rig_expect(&rig, GVA + 0x1000, ACCESS_WRITE, 0x51000);
    rig_expect(&rig, GVA, ACCESS_WRITE, 0x50000);
    ck_assert_uint_eq(rig.mmu->stats.tlb_drops, drops);
}
END_TEST

START_TEST(page_table_mapped_writable_is_written_through_the_slow_path)
{
    struct xlate x;
    map_and_touch(ACCESS_READ);
    rig_put(&rig, 0x4010, 0x4000 | PTE_ALL); /* GVA + 0x2000 maps the page table itself */
    ck_assert_int_eq(rig_translate(&rig, GVA + 0x2000, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert_uint_eq(x.gpa, 0x4000);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, GVA + 0x2000, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, GVA + 0x2000, 8));
    uint64_t walks = rig.mmu->stats.guest_walks;
    ck_assert_int_eq(rig_translate(&rig, GVA + 0x2008, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert_uint_eq(rig.mmu->stats.guest_walks, walks); /* and without a walk */
}
END_TEST

/* The page becomes a table by the very walk that translates a write to it. */
START_TEST(write_whose_own_walk_makes_its_page_a_table_is_not_direct)
{
    struct xlate x;
    rig_put(&rig, 0x1000 + 8 * 256, 0x1000 | PTE_ALL); /* entry 256 maps the top table at every level */
    rig_long_mode(&rig, 0x1000);
    gva_t gva = 0xffffull << 48 | 256ull << 39 | 256ull << 30 | 256ull << 21 | 256ull << 12;
    ck_assert_int_eq(rig_translate(&rig, gva, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, 0x1000);
    ck_assert_ptr_null(x.host);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, gva, 8));
}
END_TEST

START_TEST(dma_into_a_page_table_is_seen)
{
    struct guest_memory hook;
    uint64_t v = 0x60000 | PTE_ALL;
    map_and_touch(ACCESS_READ);
    mem_hook(rig.mem, &hook);
    ck_assert_int_eq(guest_mem_write(&hook, 0x4000, &v, 8, MEM_DMA), MEM_OK);
    rig_expect(&rig, GVA, ACCESS_READ, 0x60000);
}
END_TEST

START_TEST(page_that_is_a_table_no_more_is_released_after_idle_writes)
{
    map_and_touch(ACCESS_READ);
    ck_assert(track_is_tracked(rig.mem, 0, 4));
    rig_put(&rig, 0x3000, 0x7000 | PTE_ALL); /* another page table; nothing depends on the old one */
    for (unsigned i = 0; i < 1000; i++)
        rig_put(&rig, 0x4000 + i % 512 * 8, i);
    ck_assert(!track_is_tracked(rig.mem, 0, 4));
    ck_assert(track_is_tracked(rig.mem, 0, 3));
}
END_TEST

START_TEST(table_in_use_stays_tracked_however_often_it_is_written)
{
    map_and_touch(ACCESS_READ);
    for (unsigned i = 0; i < 10000; i++)
        rig_put(&rig, 0x4000 + (1 + i % 511) * 8, i << 12);
    ck_assert(track_is_tracked(rig.mem, 0, 4));
    rig_put(&rig, 0x4000, 0);
    rig_expect_fault(&rig, GVA, ACCESS_READ, 0);
}
END_TEST

START_TEST(zero_page_is_mapped_read_only_until_it_is_written)
{
    map_and_touch(ACCESS_READ);
    rig_expect(&rig, GVA, ACCESS_WRITE, 0x50000); /* sets D; the host breaks the zero page */
    ck_assert_int_eq(host_mm_peek(rig.mm, rig.hva + 0x50000).state, HPTE_PRESENT);
    rig_put(&rig, 0x4008, 0x51000 | PTE_ALL | PTE_A | PTE_D);
    rig_expect(&rig, GVA + 0x1000, ACCESS_READ, 0x51000);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, GVA + 0x1000, 8));
    ck_assert_int_eq(host_mm_peek(rig.mm, rig.hva + 0x51000).state, HPTE_ZERO);
    rig_expect(&rig, GVA + 0x1000, ACCESS_WRITE, 0x51000);
    uint8_t *host = tlb_lookup_write(rig.v, GVA + 0x1000, 8);
    ck_assert_ptr_nonnull(host);
    host[0] = 1;
    ck_assert_uint_eq(rig_get(&rig, 0x51000), 1);
}
END_TEST

START_TEST(host_taking_a_frame_drops_its_translations_and_those_walked_from_it)
{
    map_and_touch(ACCESS_WRITE);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, rig.hva + 0x50000, 0x1000), 0);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA, 8));
    rig_expect(&rig, GVA, ACCESS_READ, 0x50000);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, rig.hva + 0x4000, 0x1000), 0); /* the page table: zeros now */
    rig_expect_fault(&rig, GVA, ACCESS_READ, 0);
}
END_TEST

START_TEST(deleted_slot_takes_its_translations_along)
{
    struct xlate x;
    map_and_touch(ACCESS_READ);
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 0), 0);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA, 8));
    ck_assert_int_eq(rig_translate(&rig, GVA, ACCESS_READ, &x), XLATE_FAULT);
    ck_assert_uint_eq(x.error, PF_PRESENT | PF_RSVD);
}
END_TEST

START_TEST(device_pages_are_never_cached)
{
    struct xlate x;
    map_and_touch(ACCESS_READ);
    rig_put(&rig, 0x4008, 0xfee00000 | PTE_ALL);
    ck_assert_int_eq(rig_translate(&rig, GVA + 0x1010, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, 0xfee00010);
    ck_assert_ptr_null(x.host);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA + 0x1010, 8));
}
END_TEST

START_TEST(zap_all_is_invisible)
{
    map_and_touch(ACCESS_WRITE);
    mmu_zap_all(rig.mmu);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA, 8));
    ck_assert(!track_is_tracked(rig.mem, 0, 4));
    rig_expect(&rig, GVA, ACCESS_READ, 0x50000);
    rig_put(&rig, 0x4000, 0x60000 | PTE_ALL);
    rig_expect(&rig, GVA, ACCESS_READ, 0x60000);
}
END_TEST

START_TEST(pae_walks_from_registers_and_load_checks_reserved_bits)
{
    uint64_t pdptes[4];
    rig_put(&rig, 0x1000, 0x3000 | PTE_P);
    rig_put(&rig, 0x3000, 0x4000 | PTE_ALL);
    rig_put(&rig, 0x4000, 0x50000 | PTE_ALL);
    rig.regs.cr0 = CR0_PE | CR0_PG;
    rig.regs.cr4 = CR4_PAE;
    rig_load(&rig);
    ck_assert(mmu_load_pdptes(rig.v, 0x1000, rig.regs.pdpte));
    rig.regs.cr3 = 0x1000;
    rig_load(&rig);
    rig_expect(&rig, 0, ACCESS_READ, 0x50000);
    rig_put(&rig, 0x1000, 0); /* registers: not read again */
    rig_expect(&rig, 0x10, ACCESS_READ, 0x50010);
    ck_assert(mmu_load_pdptes(rig.v, 0x1000, pdptes));
    ck_assert_uint_eq(pdptes[0], 0);
    for (int bit = 1; bit < 64; bit++) {
        rig_put(&rig, 0x1000, PTE_P | 1ull << bit);
        bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 40;
        ck_assert_int_eq(mmu_load_pdptes(rig.v, 0x1000, pdptes), !reserved);
    }
    ck_assert(!mmu_load_pdptes(rig.v, 0xf0000000, pdptes)); /* no memory: all ones */
}
END_TEST

static void collect_line(void *ctx, const char *text)
{
    char *all = ctx;
    strncat(all, text, 2000 - strlen(all));
    strncat(all, "\n", 2000 - strlen(all));
}

START_TEST(peek_translation_and_printed_walk_have_no_effect)
{
    struct xlate x;
    char text[2048] = "";
    rig_map(&rig, GVA, 0x50000, PTE_ALL);
    rig_long_mode(&rig, 0x1000);
    ck_assert_int_eq(mmu_peek_translate(rig.v, GVA + 5, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, 0x50005);
    mmu_print_walk(rig.v, GVA, collect_line, text);
    ck_assert_ptr_nonnull(strstr(text, "PML4E at 000001000 = 0000000000002007"));
    ck_assert_ptr_nonnull(strstr(text, "gpa 0x50000 level 1 writable user executable"));
    text[0] = 0;
    mmu_print_walk(rig.v, GVA + 0x1000, collect_line, text);
    ck_assert_ptr_nonnull(strstr(text, "not present"));
    ck_assert_uint_eq(rig_get(&rig, 0x4000), 0x50000 | PTE_ALL);
    ck_assert_ptr_null(tlb_lookup_read(rig.v, GVA, 8));
}
END_TEST

/* ---- random writes against fresh walks ---- */

static uint64_t seed;

static uint64_t rnd(uint64_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % n;
}

enum { TABLES = 12 }; /* pages 1..12 are tables, 16..31 data, in any role */

/* An entry that points to one of the tables or data pages, mostly sound. */
static uint64_t random_entry(void)
{
    uint64_t target = rnd(6) ? 1 + rnd(TABLES) : 16 + rnd(16);
    uint64_t v = target << 12;
    v |= rnd(30) ? PTE_P : 0;
    v |= rnd(10) ? PTE_W : 0;
    v |= rnd(10) ? PTE_U : 0;
    v |= rnd(3) ? PTE_A : 0;
    v |= rnd(3) ? PTE_D : 0;
    v |= rnd(40) ? 0 : PTE_NX;
    v |= rnd(40) ? 0 : PTE_PS;
    v |= rnd(200) ? 0 : 1ull << 45;
    return v;
}

/* gvas that use few entries of each table, so that walks meet. */
static gva_t random_gva(enum paging_format format)
{
    if (format == PAGING_32)
        return rnd(4) << 22 | rnd(4) << 12 | rnd(PAGE_SIZE - 8);
    gva_t gva = rnd(3) << 39 | rnd(3) << 30 | rnd(3) << 21 | rnd(3) << 12 | rnd(PAGE_SIZE - 8);
    return format == PAGING_PAE ? gva & 0xffffffff : gva;
}

static void random_regs(void)
{
    static const uint64_t cr4[] = {0, CR4_PSE, CR4_PAE, CR4_PAE, CR4_PAE, CR4_PAE | CR4_LA57};
    unsigned i = (unsigned)rnd(ARRAY_LEN(cr4));
    rig.regs.cr0 = CR0_PE | CR0_PG | (rnd(2) ? CR0_WP : 0);
    rig.regs.cr4 = cr4[i] | (rnd(3) ? 0 : CR4_SMEP) | (rnd(3) ? 0 : CR4_SMAP);
    rig.regs.efer = (i >= 3 ? EFER_LMA | EFER_LME : 0) | (rnd(4) ? EFER_NXE : 0);
    rig.regs.cr3 = (1 + rnd(3)) << 12;
    rig.regs.cpl = rnd(2) ? 3 : 0;
    rig.regs.ac = rnd(2);
    rig_load(&rig);
    for (unsigned k = 0; k < 40; k++)
        rig_put(&rig, (1 + rnd(TABLES)) << 12 | rnd(3) << 3, random_entry());
    if (paging_format_of(&rig.regs) == PAGING_PAE) {
        mmu_load_pdptes(rig.v, rig.regs.cr3, rig.regs.pdpte);
        rig_load(&rig);
    }
}

/* What the fast path or the engine says must be what a walk without any cache says; then the A and D bits that a real
 * walk sets are there. */
static void random_access(void)
{
    static const unsigned kinds[] = {ACCESS_READ, ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH,
                                     ACCESS_READ | ACCESS_IMPLICIT};
    unsigned access = kinds[rnd(ARRAY_LEN(kinds))];
    gva_t gva = random_gva(paging_format_of(&rig.regs));
    struct gwalk before, after;
    struct xlate x;
    gwalk(rig.mem, &rig.regs, gva, access | GWALK_PEEK, &before);
    void *host = NULL;
    if (!(access & ACCESS_IMPLICIT) && !(access & ACCESS_FETCH))
        host = (access & ACCESS_WRITE) ? tlb_lookup_write(rig.v, gva, 1) : tlb_lookup_read(rig.v, gva, 1);
    if (host) {
        ck_assert_int_eq(before.result, GWALK_OK);
    } else {
        enum xlate_result result = mmu_translate(rig.v, gva, access, &x);
        ck_assert_int_eq(result == XLATE_OK, before.result == GWALK_OK);
        if (result == XLATE_FAULT) {
            ck_assert_uint_eq(x.error, before.error);
            return;
        }
        ck_assert_uint_eq(x.gpa, before.gpa);
        host = x.host;
    }
    gwalk(rig.mem, &rig.regs, gva, access | GWALK_PEEK, &after);
    ck_assert(!(access & ACCESS_WRITE) || after.dirty);
    for (int i = 0; i < after.depth; i++)
        ck_assert(after.at[i].gpte_gpa == ~0ull || (after.at[i].gpte & PTE_A));
    if (host && before.gpa < 4 << 20)
        ck_assert_ptr_eq(
            host, (uint8_t *)frame_pool_ptr(rig.pool, host_mm_peek(rig.mm, rig.hva + (before.gpa & ~PAGE_MASK)).pfn) +
                      (before.gpa & PAGE_MASK));
    if (!(access & ACCESS_WRITE))
        return;
    uint64_t v = random_entry();
    if (host)
        memcpy(host, &v, 1);
    else
        rig_poke(&rig, before.gpa, v, 1);
}

START_TEST(random_table_writes_and_accesses_agree_with_fresh_walks)
{
    seed = 77 + (uint64_t)_i;
    random_regs();
    for (unsigned n = 0; n < 60000; n++) {
        unsigned what = (unsigned)rnd(40);
        if (what < 6)
            rig_put(&rig, (1 + rnd(TABLES)) << 12 | rnd(3) << 3, random_entry());
        else if (what == 6)
            rig_poke(&rig, (1 + rnd(TABLES)) << 12 | rnd(8) << 2, random_entry(), 4);
        else if (what == 7)
            random_regs();
        else if (what == 8)
            mmu_vcpu_set_mode(rig.v, rig.regs.cpl = rnd(2) ? 3 : 0, rig.regs.ac = rnd(2));
        else if (what == 9 && !rnd(8))
            host_mm_dontneed(rig.mm, rig.hva + ((1 + rnd(31)) << 12), 0x1000);
        else
            random_access();
        if (n % 500 == 0)
            ck_assert_msg(rig_audit(&rig, true) == 0, "%s", rig.report);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mmu: walk engine");
    TCase *t = tcase_create("walk");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, write_to_a_guest_entry_is_seen_by_the_next_access);
    tcase_add_test(t, write_to_each_level_is_seen);
    tcase_add_test(t, write_to_one_entry_spares_its_neighbours);
    tcase_add_test(t, guest_clearing_a_and_d_bits_sees_them_set_again);
    tcase_add_test(t, walkers_own_bits_do_not_drop_what_it_fills);
    tcase_add_test(t, page_table_mapped_writable_is_written_through_the_slow_path);
    tcase_add_test(t, write_whose_own_walk_makes_its_page_a_table_is_not_direct);
    tcase_add_test(t, dma_into_a_page_table_is_seen);
    tcase_add_test(t, page_that_is_a_table_no_more_is_released_after_idle_writes);
    tcase_add_test(t, table_in_use_stays_tracked_however_often_it_is_written);
    tcase_add_test(t, zero_page_is_mapped_read_only_until_it_is_written);
    tcase_add_test(t, host_taking_a_frame_drops_its_translations_and_those_walked_from_it);
    tcase_add_test(t, deleted_slot_takes_its_translations_along);
    tcase_add_test(t, device_pages_are_never_cached);
    tcase_add_test(t, zap_all_is_invisible);
    tcase_add_test(t, pae_walks_from_registers_and_load_checks_reserved_bits);
    tcase_add_test(t, peek_translation_and_printed_walk_have_no_effect);
    tcase_add_loop_test(t, random_table_writes_and_accesses_agree_with_fresh_walks, 0, 8);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
