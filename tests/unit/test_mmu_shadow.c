/* The shadow engine: what it maps, when it takes a mapping away, and that the guest cannot tell. */
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define RAM (8ull << 20)

static struct rig rig;
static struct rig *const r = &rig;

static void open_with(uint64_t max_pages)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM, .vcpus = 2, .max_shadow_pages = max_pages});
}

static void setup(void)
{
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

/* The spte that the shadow walk of gva ends at in 4-level mode, or NULL. */
static uint64_t *find_spte(gva_t gva)
{
    struct shadow_root *root = r->v->set->root;
    uint32_t i = root->sp[0];
    for (int level = 4; i; level--) {
        uint64_t *p = sp_table(sh(), &sh()->pages[i]) + sp_index(gva, level);
        if (!spte_is_link(*p, level))
            return p;
        i = spte_child(*p);
    }
    return NULL;
}

#define GVA 0x40000000ull

START_TEST(read_of_a_clean_page_maps_it_read_only_and_write_sets_d)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 8, ACCESS_READ, 0x10008);
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_uint_eq(rig_get(r, 0x4000) & (PTE_A | PTE_D), PTE_A);
    rig_expect(r, GVA + 8, ACCESS_WRITE, 0x10008);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_uint_eq(rig_get(r, 0x4000) & (PTE_A | PTE_D), PTE_A | PTE_D);
}
END_TEST

START_TEST(present_spte_answers_a_tlb_miss_without_a_guest_walk)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    uint64_t walks = r->mmu->stats.guest_walks;
    tlb_flush_all(r->mmu);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA, ACCESS_FETCH, 0x10000);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
}
END_TEST

START_TEST(write_to_tracked_gfn_drops_stale_spte)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_put(r, 0x4000, 0x11000 | PTE_ALL);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_uint_eq(*find_spte(GVA), 0);
    rig_expect(r, GVA, ACCESS_READ, 0x11000);
}
END_TEST

START_TEST(every_level_of_the_path_is_tracked)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    for (gfn_t gfn = 1; gfn <= 4; gfn++) {
        ck_assert_uint_eq(track_count(r->mem, 0, gfn, TRACK_PT), 1);
        rig_expect(r, GVA, ACCESS_READ, 0x10000);
        rig_put(r, (gfn << 12) + (gfn == 2 ? 8 : 0), 0);
        ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
        rig_expect_fault(r, GVA, ACCESS_READ, 0);
        rig_map(r, GVA, 0x10000, PTE_ALL);
    }
}
END_TEST

START_TEST(clearing_a_makes_the_next_access_set_it_again)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    for (gpa_t at = 0x1000; at <= 0x4000; at += 0x1000) {
        gpa_t entry = at + (at == 0x2000 ? 8 : 0);
        rig_expect(r, GVA, ACCESS_READ, 0x10000);
        rig_put(r, entry, rig_get(r, entry) & ~PTE_A);
        ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
        rig_expect(r, GVA, ACCESS_READ, 0x10000);
        ck_assert(rig_get(r, entry) & PTE_A);
    }
}
END_TEST

START_TEST(clearing_d_makes_the_next_write_set_it_again)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_put(r, 0x4000, rig_get(r, 0x4000) & ~PTE_D);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert(rig_get(r, 0x4000) & PTE_D);
}
END_TEST

START_TEST(write_that_changes_ignored_bits_only_keeps_the_spte)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    uint64_t zaps = r->mmu->stats.zaps;
    rig_put(r, 0x4000, rig_get(r, 0x4000) | 3ull << 9 | 1ull << 55);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_uint_eq(r->mmu->stats.zaps, zaps);
}
END_TEST

START_TEST(unlinked_child_is_found_again)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    uint64_t made = r->mmu->stats.sp_created;
    rig_put(r, 0x3000, 0);
    rig_expect_fault(r, GVA, ACCESS_READ, 0);
    rig_put(r, 0x3000, 0x4000 | PTE_ALL);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_uint_eq(r->mmu->stats.sp_created, made);
}
END_TEST

START_TEST(mapped_guest_table_cannot_be_written_unseen)
{
    rig_map(r, GVA, 0x4000, PTE_ALL); /* the page table maps itself */
    rig_map(r, GVA + 0x1000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
}
END_TEST

START_TEST(page_that_becomes_a_table_loses_its_write_tag)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    rig_put(r, 0x3008, 0x10000 | PTE_ALL); /* page 0x10 becomes the table of the next 2 MiB */
    rig_put(r, 0x10000, 0x20000 | PTE_ALL);
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x20000);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    rig_put(r, 0x10000, 0x21000 | PTE_ALL);
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x21000);
}
END_TEST

START_TEST(flooded_table_is_unshadowed_and_writable_again)
{
    rig_map(r, GVA, 0x4000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x4000);
    ck_assert(track_is_tracked(r->mem, 0, 4));
    for (int i = 0; i < 64; i++)
        rig_put(r, 0x4800 + i * 8, i);
    ck_assert(!track_is_tracked(r->mem, 0, 4));
    rig_expect(r, GVA, ACCESS_READ, 0x4000); /* in use again: tracked again */
    ck_assert(track_is_tracked(r->mem, 0, 4));
}
END_TEST

START_TEST(odd_write_unshadows_at_once)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    static const struct {
        unsigned offset, len;
    } odd[] = {{3, 1}, {6, 4}, {0, 2}, {5, 8}, {0, 4096}};
    for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
        uint8_t zeros[4096] = {0};
        rig_map(r, GVA, 0x10000, PTE_ALL);
        rig_expect(r, GVA, ACCESS_READ, 0x10000);
        mem_access(r->mem, 0, 0x4000 + odd[i].offset, zeros, odd[i].len, MEM_GUEST, true, 0);
        ck_assert(!track_is_tracked(r->mem, 0, 4));
        struct xlate x;
        struct gwalk w;
        gwalk(r->mem, &r->regs, GVA, ACCESS_READ | GWALK_PEEK, &w);
        ck_assert_int_eq(rig_translate(r, GVA, ACCESS_READ, &x) == XLATE_OK, w.result == GWALK_OK);
        if (w.result == GWALK_OK)
            ck_assert_uint_eq(x.gpa, w.gpa);
    }
}
END_TEST

START_TEST(half_an_entry_written_takes_effect)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_poke(r, 0x4000, 0x23000 | PTE_ALL, 4);
    rig_expect(r, GVA, ACCESS_READ, 0x23000);
    rig_poke(r, 0x4004, 0x80000000, 4); /* XD */
    rig_expect(r, GVA, ACCESS_READ, 0x23000);
    rig_expect_fault(r, GVA, ACCESS_FETCH, PF_PRESENT | PF_FETCH);
}
END_TEST

START_TEST(host_invalidation_zaps_through_rmap)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x1000, 0x10000, PTE_ALL);
    rig_map(r, GVA + 0x2000, 0x12000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    for (gva_t gva = GVA; gva < GVA + 0x3000; gva += 0x1000)
        ck_assert_int_eq(rig_translate(r, gva, ACCESS_WRITE, &(struct xlate){0}), XLATE_OK);
    uint64_t zaps = r->mmu->stats.zaps;
    ck_assert_int_eq(host_mm_mprotect(r->mm, r->hva + 0x10000, 0x1000, HOST_READ), 0);
    ck_assert_uint_eq(r->mmu->stats.zaps, zaps + 2);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x1000, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA + 0x2000, 8));
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    ck_assert(!(*find_spte(GVA) & SPTE_WRITABLE));
    ck_assert_int_eq(host_mm_mprotect(r->mm, r->hva + 0x10000, 0x1000, HOST_READ | HOST_WRITE), 0);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
}
END_TEST

START_TEST(zero_page_is_replaced_under_its_spte_by_the_first_write)
{
    rig_map(r, GVA, 0x50000, PTE_ALL | PTE_D);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x50000);
    ck_assert_int_eq(host_mm_peek(r->mm, r->hva + 0x50000).state, HPTE_ZERO);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    uint64_t retries = r->mmu->stats.retries;
    rig_expect(r, GVA, ACCESS_WRITE, 0x50000);
    ck_assert_uint_eq(r->mmu->stats.retries, retries + 1); /* the host's own invalidation came in between */
    memset(tlb_lookup_write(r->v, GVA, 8), 0x5a, 8);
    ck_assert_uint_eq(rig_get(r, 0x50000), 0x5a5a5a5a5a5a5a5aull);
    ck_assert_uint_eq(*(uint64_t *)tlb_lookup_read(r->v, GVA, 8), 0x5a5a5a5a5a5a5a5aull);
}
END_TEST

START_TEST(content_dropped_by_the_host_takes_its_shadow_along)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x4000, 0x1000), 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    rig_expect_fault(r, GVA, ACCESS_READ, 0);
}
END_TEST

START_TEST(cr0_wp_clear_lets_the_supervisor_write_a_read_only_page)
{
    rig_map(r, GVA, 0x10000, PTE_P | PTE_U);
    rig_long_mode(r, 0x1000);
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE);
    r->regs.cr0 &= ~CR0_WP;
    rig_load(r);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
    mmu_vcpu_set_mode(r->v, 3, false);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE | PF_USER);
    r->regs.cr0 |= CR0_WP;
    rig_load(r);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE);
}
END_TEST

START_TEST(one_spte_serves_every_mode_with_its_own_rights)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    r->regs.cr4 |= CR4_SMEP | CR4_SMAP;
    r->regs.cpl = 3;
    rig_load(r);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA, ACCESS_FETCH, 0x10000);
    uint64_t walks = r->mmu->stats.guest_walks;
    mmu_vcpu_set_mode(r->v, 0, true);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    rig_expect_fault(r, GVA, ACCESS_READ | ACCESS_IMPLICIT, PF_PRESENT);
    rig_expect_fault(r, GVA, ACCESS_FETCH, PF_PRESENT | PF_FETCH);
    mmu_vcpu_set_mode(r->v, 0, false);
    rig_expect_fault(r, GVA, ACCESS_READ, PF_PRESENT);
}
END_TEST

START_TEST(protection_key_of_the_page_is_kept)
{
    rig_map(r, GVA, 0x10000, PTE_ALL | 5ull << 59);
    rig_long_mode(r, 0x1000);
    r->regs.cpl = 3;
    rig_load(r);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    r->regs.cr4 |= CR4_PKE;
    r->regs.pkru = 2u << 10;
    rig_load(r);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE | PF_USER | PF_PKEY);
    r->regs.pkru = 1u << 10;
    rig_load(r);
    rig_expect_fault(r, GVA, ACCESS_READ, PF_PRESENT | PF_USER | PF_PKEY);
}
END_TEST

START_TEST(mmio_spte_answers_without_a_guest_walk_until_the_slots_change)
{
    rig_map(r, GVA, 0xfee00000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA + 0x30, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, 0xfee00030);
    ck_assert_ptr_null(x.host);
    ck_assert(spte_is_mmio(*find_spte(GVA)));
    uint64_t walks = r->mmu->stats.guest_walks;
    rig_expect(r, GVA + 0x80, ACCESS_READ, 0xfee00080);
    ck_assert_uint_eq(r->mmu->stats.guest_walks, walks);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0xfee00000, 0x1000, r->hva + RAM, MEMSLOT_RAM), 0);
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
    ck_assert_int_eq(mem_slot_delete(r->mem, 0, 0xfee00000), 0);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
}
END_TEST

START_TEST(mmio_spte_keeps_the_rights_of_its_page)
{
    rig_map(r, GVA, 0xfee00000, PTE_P | PTE_U | PTE_NX);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0xfee00000);
    rig_expect_fault(r, GVA, ACCESS_WRITE, PF_PRESENT | PF_WRITE);
    rig_expect_fault(r, GVA, ACCESS_FETCH, PF_PRESENT | PF_FETCH);
    rig_put(r, 0x4000, 0xfee01000 | PTE_ALL);
    rig_expect(r, GVA, ACCESS_WRITE, 0xfee01000);
}
END_TEST

START_TEST(rom_is_read_directly_and_never_written_directly)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0xfff00000, 0x10000, r->hva + RAM, MEMSLOT_ROM), 0);
    rig_map(r, GVA, 0xfff00000, PTE_ALL | PTE_D);
    rig_long_mode(r, 0x1000);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
}
END_TEST

START_TEST(large_guest_page_over_small_frames_is_split_into_direct_pages)
{
    rig_map(r, GVA, 0, 0);
    rig_put(r, 0x3000, 0x200000 | PTE_ALL | PTE_PS);
    rig_put(r, 0x2000, PTE_ALL | PTE_PS); /* a 1 GiB page at gva 0 */
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 0x12345, ACCESS_READ, 0x212345);
    rig_expect(r, 0x345678, ACCESS_READ, 0x345678);
    ck_assert(!(rig_get(r, 0x3000) & PTE_D));
    rig_expect(r, GVA + 0x12345, ACCESS_WRITE, 0x212345);
    ck_assert(rig_get(r, 0x3000) & PTE_D);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA + 0x12000, 8));
    rig_expect(r, 0x345678, ACCESS_READ, 0x345678);
    /* D taken away: the next write sets it again. */
    rig_put(r, 0x3000, 0x200000 | PTE_ALL | PTE_PS | PTE_A);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x12000, 8));
    rig_expect(r, GVA + 0x12345, ACCESS_READ, 0x212345);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA + 0x12000, 8));
    rig_expect(r, GVA + 0x12345, ACCESS_WRITE, 0x212345);
    ck_assert(rig_get(r, 0x3000) & PTE_D);
    rig_put(r, 0x2000, 0);
    rig_expect_fault(r, 0x345678, ACCESS_READ, 0);
}
END_TEST

START_TEST(table_inside_a_large_page_is_write_protected)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_put(r, 0x2000, PTE_ALL | PTE_PS | PTE_D | PTE_A); /* gva = gpa for the first GiB */
    rig_long_mode(r, 0x1000);
    rig_expect(r, 0x10000, ACCESS_WRITE, 0x10000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, 0x10000, 8));
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, 0x4000, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
}
END_TEST

START_TEST(paging_off_uses_direct_roots_and_tracks_nothing)
{
    rig_load(r);
    rig_expect(r, 0x12345, ACCESS_WRITE, 0x12345);
    rig_expect(r, 0xc0000000, ACCESS_READ, 0xc0000000);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, 0x12000, 8));
    ck_assert(!track_is_tracked(r->mem, 0, 0));
    ck_assert(!track_any_in_large(r->mem, 0, 0, 3));
}
END_TEST

START_TEST(a20_masked_folds_the_second_mebibyte_onto_the_first)
{
    r->regs.a20_mask = ~(1ull << 20);
    rig_load(r);
    rig_expect(r, 0x100000 + 0x5000, ACCESS_WRITE, 0x5000);
    rig_expect(r, 0x5000, ACCESS_WRITE, 0x5000);
    ck_assert_ptr_eq(tlb_lookup_read(r->v, 0x105000, 8), tlb_lookup_read(r->v, 0x5000, 8));
    r->regs.a20_mask = ~0ull;
    rig_load(r);
    rig_expect(r, 0x100000 + 0x5000, ACCESS_WRITE, 0x105000);
}
END_TEST

static void load_pae(void)
{
    r->regs.cr0 = CR0_PE | CR0_PG | CR0_WP;
    r->regs.cr4 = CR4_PAE;
    r->regs.efer = EFER_NXE;
    r->regs.cr3 = 0x5000;
    ck_assert(mmu_load_pdptes(r->v, 0x5000, r->regs.pdpte));
    rig_load(r);
}

START_TEST(pae_pdptes_are_registers)
{
    rig_load(r);
    rig_put(r, 0x5000 + 8 * 3, 0x6000 | PTE_P);
    rig_put(r, 0x6000 + 8 * 511, 0x7000 | PTE_ALL);
    rig_put(r, 0x7000 + 8 * 511, 0x10000 | PTE_ALL);
    load_pae();
    rig_expect(r, 0xfffff000, ACCESS_READ, 0x10000);
    rig_expect_fault(r, 0x3ffff000, ACCESS_READ, 0);
    rig_put(r, 0x5000 + 8 * 3, 0);
    rig_expect(r, 0xfffff000, ACCESS_READ, 0x10000);
    rig_put(r, 0x6000 + 8 * 511, 0);
    rig_expect_fault(r, 0xfffff000, ACCESS_READ, 0);
    load_pae();
    rig_expect_fault(r, 0xfffff000, ACCESS_READ, 0);
}
END_TEST

START_TEST(thirty_two_bit_table_has_a_shadow_page_for_each_quadrant)
{
    r->regs.cr0 = CR0_PE | CR0_PG | CR0_WP;
    r->regs.cr4 = CR4_PSE;
    r->regs.cr3 = 0x1000;
    rig_poke(r, 0x1000 + 4 * 1023, 0x2000 | PTE_ALL, 4);
    rig_poke(r, 0x2000 + 4 * 1, 0x10000 | PTE_ALL, 4);
    rig_poke(r, 0x2000 + 4 * 1023, 0x11000 | PTE_ALL, 4);
    rig_poke(r, 0x1000 + 4 * 2, PTE_ALL | PTE_PS, 4);
    rig_load(r);
    rig_expect(r, 0xffc01000, ACCESS_READ, 0x10000);
    rig_expect(r, 0xfffff000, ACCESS_READ, 0x11000);
    rig_expect(r, 0x00812345, ACCESS_READ, 0x12345);
    rig_expect(r, 0x00a12345, ACCESS_READ, 0x212345);
    ck_assert_uint_eq(track_count(r->mem, 0, 2, TRACK_PT), 2);
    ck_assert_uint_eq(track_count(r->mem, 0, 1, TRACK_PT), 2); /* quadrants 0 and 3 were used */
    rig_poke(r, 0x2000 + 4 * 1023, 0x12000 | PTE_ALL, 4);
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, 0xffc01000, 4));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0xfffff000, 4));
    rig_expect(r, 0xfffff000, ACCESS_READ, 0x12000);
    rig_poke(r, 0x1000 + 4 * 2, 0, 4);
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x00812000, 4));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x00a12000, 4));
    rig_expect_fault(r, 0x00a12345, ACCESS_READ, 0);
}
END_TEST

START_TEST(switching_back_to_a_cached_root_costs_no_refill)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_put(r, 0x8000 + 8 * 0, 0x2000 | PTE_ALL); /* another PML4 over the same tables */
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    rig_long_mode(r, 0x8000);
    rig_expect(r, GVA, ACCESS_READ, 0x10000);
    uint64_t misses = r->mmu->stats.tlb_misses;
    rig_long_mode(r, 0x1000);
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_uint_eq(r->mmu->stats.tlb_misses, misses);
    /* What changes in a shared table reaches both. */
    rig_put(r, 0x4000, 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    rig_long_mode(r, 0x8000);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
}
END_TEST

START_TEST(shared_table_below_differing_rights_has_a_page_for_each)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_put(r, 0x3008, 0x4000 | PTE_P | PTE_U); /* the next 2 MiB: the same table, read-only */
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    rig_expect(r, GVA + 0x200000, ACCESS_READ, 0x10000);
    rig_expect_fault(r, GVA + 0x200000, ACCESS_WRITE, PF_PRESENT | PF_WRITE);
    ck_assert_uint_eq(track_count(r->mem, 0, 4, TRACK_PT), 2);
    rig_put(r, 0x4000, 0);
    rig_expect_fault(r, GVA, ACCESS_READ, 0);
    rig_expect_fault(r, GVA + 0x200000, ACCESS_READ, 0);
}
END_TEST

START_TEST(page_mapped_thousands_of_times_zaps_as_one)
{
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_put(r, 0x2000, 0x3000 | PTE_ALL);
    for (unsigned t = 0; t < 8; t++) {
        rig_put(r, 0x3000 + t * 8, (0x40000 + t * 0x1000) | PTE_ALL);
        for (unsigned i = 0; i < 512; i++)
            rig_put(r, 0x40000 + t * 0x1000 + i * 8, 0x20000 | PTE_ALL);
    }
    rig_long_mode(r, 0x1000);
    for (gva_t gva = 0; gva < 8 * 0x200000; gva += 0x1000)
        rig_expect(r, gva, ACCESS_READ, 0x20000);
    size_t mapped = spte_list_count(rmap_head(memslot_find(r->mem, 0, 0x20), 0x20, 1));
    ck_assert_uint_eq(mapped, 4096 % RMAP_RECYCLE);
    ck_assert_uint_eq(sh()->stats.rmap_recycles, 4096 / RMAP_RECYCLE);
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    ck_assert_int_eq(host_mm_dontneed(r->mm, r->hva + 0x20000, 0x1000), 0);
    ck_assert(spte_list_is_empty(rmap_head(memslot_find(r->mem, 0, 0x20), 0x20, 1)));
    ck_assert_ptr_null(tlb_lookup_read(r->v, 0x5000, 8));
}
END_TEST

START_TEST(limited_shadow_thrashes_but_is_right)
{
    rig_close(r);
    open_with(64);
    rig_put(r, 0x1000, 0x2000 | PTE_ALL);
    rig_put(r, 0x2000, 0x3000 | PTE_ALL);
    for (unsigned t = 0; t < 200; t++) {
        rig_put(r, 0x3000 + t * 8, (0x100000 + t * 0x1000) | PTE_ALL);
        rig_put(r, 0x100000 + t * 0x1000, (0x400000 + t * 0x1000) | PTE_ALL);
    }
    rig_long_mode(r, 0x1000);
    for (int round = 0; round < 3; round++) {
        for (unsigned t = 0; t < 200; t++)
            rig_expect(r, t * 0x200000ull, ACCESS_WRITE, 0x400000 + t * 0x1000);
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    }
    ck_assert(r->mmu->stats.sp_zapped > 300);
    ck_assert(sh()->active_count <= 64);
}
END_TEST

START_TEST(everything_may_be_dropped_at_any_time)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    mmu_zap_all(r->mmu);
    ck_assert_uint_eq(sh()->active_count, 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert(!track_is_tracked(r->mem, 0, 1));
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
}
END_TEST

START_TEST(deleted_slot_takes_mappings_tables_and_tracking_along)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0x40000000, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA, 0x40000000, PTE_ALL);
    rig_put(r, 0x3008, 0x40001000 | PTE_ALL); /* a table in that slot */
    rig_put(r, 0x40001000, 0x10000 | PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x40000000);
    rig_expect(r, GVA + 0x200000, ACCESS_WRITE, 0x10000);
    ck_assert_int_eq(mem_slot_delete(r->mem, 0, 0x40000000), 0);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA + 0x200000, 8));
    ck_assert_uint_eq(track_count(r->mem, 0, 0x40001, TRACK_PT), 0);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    rig_expect_fault(r, GVA + 0x200000, ACCESS_READ, PF_PRESENT | PF_RSVD);
}
END_TEST

START_TEST(code_page_is_written_under_the_eyes_of_its_tracker_only_while_tracked)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    track_add(r->mem, 0, 0x10, TRACK_CODE);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    track_remove(r->mem, 0, 0x10, TRACK_CODE);
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA, 8));
}
END_TEST

START_TEST(walk_in_another_entry_size_drops_what_its_own_a_and_d_bits_may_have_changed)
{
    /* Page 4 is a table of 8-byte entries, and through a 32-bit root one of 4-byte entries: A of the latter is an
     * address bit of the former. */
    rig_map(r, GVA + 0x1000, 0x100010000, PTE_ALL);
    rig_poke(r, 0x6000, 0x4000 | PTE_ALL, 4);
    rig_long_mode(r, 0x1000);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x100010000);
    struct paging_regs long_mode = r->regs;
    r->regs = (struct paging_regs){.cr0 = CR0_PE | CR0_PG | CR0_WP, .cr3 = 0x6000, .a20_mask = ~0ull, .maxphyaddr = 40};
    rig_load(r);
    rig_expect(r, 0x3000, ACCESS_READ, 0);
    r->regs = long_mode;
    rig_load(r);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x2100010000);
}
END_TEST

START_TEST(second_vcpu_sees_what_the_first_one_changed)
{
    rig_map(r, GVA, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    struct mmu_vcpu *other = mmu_vcpu_get(r->mmu, 1);
    mmu_vcpu_load(other, &r->regs);
    rig_expect(r, GVA, ACCESS_WRITE, 0x10000);
    struct xlate x;
    ck_assert_int_eq(mmu_translate(other, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_nonnull(tlb_lookup_write(other, GVA, 8));
    rig_put(r, 0x4000, 0);
    ck_assert_ptr_null(tlb_lookup_write(other, GVA, 8));
    ck_assert_int_eq(mmu_translate(other, GVA, ACCESS_WRITE, &x), XLATE_FAULT);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("shadow");
    TCase *t = tcase_create("shadow");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, read_of_a_clean_page_maps_it_read_only_and_write_sets_d);
    tcase_add_test(t, present_spte_answers_a_tlb_miss_without_a_guest_walk);
    tcase_add_test(t, write_to_tracked_gfn_drops_stale_spte);
    tcase_add_test(t, every_level_of_the_path_is_tracked);
    tcase_add_test(t, clearing_a_makes_the_next_access_set_it_again);
    tcase_add_test(t, clearing_d_makes_the_next_write_set_it_again);
    tcase_add_test(t, write_that_changes_ignored_bits_only_keeps_the_spte);
    tcase_add_test(t, unlinked_child_is_found_again);
    tcase_add_test(t, mapped_guest_table_cannot_be_written_unseen);
    tcase_add_test(t, page_that_becomes_a_table_loses_its_write_tag);
    tcase_add_test(t, flooded_table_is_unshadowed_and_writable_again);
    tcase_add_test(t, odd_write_unshadows_at_once);
    tcase_add_test(t, half_an_entry_written_takes_effect);
    tcase_add_test(t, host_invalidation_zaps_through_rmap);
    tcase_add_test(t, zero_page_is_replaced_under_its_spte_by_the_first_write);
    tcase_add_test(t, content_dropped_by_the_host_takes_its_shadow_along);
    tcase_add_test(t, cr0_wp_clear_lets_the_supervisor_write_a_read_only_page);
    tcase_add_test(t, one_spte_serves_every_mode_with_its_own_rights);
    tcase_add_test(t, protection_key_of_the_page_is_kept);
    tcase_add_test(t, mmio_spte_answers_without_a_guest_walk_until_the_slots_change);
    tcase_add_test(t, mmio_spte_keeps_the_rights_of_its_page);
    tcase_add_test(t, rom_is_read_directly_and_never_written_directly);
    tcase_add_test(t, large_guest_page_over_small_frames_is_split_into_direct_pages);
    tcase_add_test(t, table_inside_a_large_page_is_write_protected);
    tcase_add_test(t, paging_off_uses_direct_roots_and_tracks_nothing);
    tcase_add_test(t, a20_masked_folds_the_second_mebibyte_onto_the_first);
    tcase_add_test(t, pae_pdptes_are_registers);
    tcase_add_test(t, thirty_two_bit_table_has_a_shadow_page_for_each_quadrant);
    tcase_add_test(t, switching_back_to_a_cached_root_costs_no_refill);
    tcase_add_test(t, shared_table_below_differing_rights_has_a_page_for_each);
    tcase_add_test(t, page_mapped_thousands_of_times_zaps_as_one);
    tcase_add_test(t, limited_shadow_thrashes_but_is_right);
    tcase_add_test(t, everything_may_be_dropped_at_any_time);
    tcase_add_test(t, deleted_slot_takes_mappings_tables_and_tracking_along);
    tcase_add_test(t, code_page_is_written_under_the_eyes_of_its_tracker_only_while_tracked);
    tcase_add_test(t, walk_in_another_entry_size_drops_what_its_own_a_and_d_bits_may_have_changed);
    tcase_add_test(t, second_vcpu_sees_what_the_first_one_changed);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
