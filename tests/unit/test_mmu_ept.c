/* The EPT engine: each kind of exit with its exact qualification, misconfigurations, EPTP, INVEPT and INVVPID,
 * restrictions. */
#include "mmu/ept/ept_internal.h"
#include "mmu/mem.h"
#include "mmu_rig.h"

#define GVA     0x40000000ull
#define PAGE    0x10000ull
#define RAM     (8ull << 20)
#define Q_FINAL (EPT_Q_GLA_VALID | EPT_Q_TRANSLATION)
#define Q_ALL   (Q_FINAL | EPT_Q_USER | EPT_Q_GUEST_W) /* of a page that the guest maps with PTE_ALL */
#define Q_R_X   (EPT_Q_ENTRY_R | EPT_Q_ENTRY_X)

static struct rig rig;
static struct rig *const r = &rig;

static struct ept *ept(void)
{
    return ept_of(r->mmu);
}

static uint64_t *leaf(gpa_t gpa)
{
    struct ept_table *t;
    return ept_lookup(ept(), 0, gpa >> PAGE_SHIFT, &t);
}

static void setup(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_EPT, .ram = RAM, .vcpus = 2});
    rig_map(r, GVA, PAGE, PTE_ALL);
    rig_long_mode(r, 0x1000);
    trace_enable(r->mmu->trace, "ept.", 64);
}

static void teardown(void)
{
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    rig_close(r);
}

static void configure(int levels, bool ad, bool x_only)
{
    ck_assert(ept_configure(r->mmu, &(struct ept_config){.levels = levels, .ad = ad, .x_only = x_only}));
}

/* Exits since the last call: in order, from the tracepoint. */
static unsigned exits(struct trace_record *out, unsigned max)
{
    struct trace *t = r->mmu->trace;
    unsigned n = 0;
    for (uint64_t i = 0; i < t->written && n < max; i++)
        out[n++] = t->ring[i];
    unsigned total = (unsigned)t->written;
    t->written = 0;
    return total;
}

static void expect_exits(unsigned n)
{
    struct trace_record rec[64] = {0};
    ck_assert_uint_eq(exits(rec, 64), n);
}

static void expect_exit(const struct trace_record *rec, enum ept_exit_reason reason, uint32_t qualification, gpa_t gpa,
                        gva_t gla)
{
    ck_assert_uint_eq(rec->arg[0], reason);
    ck_assert_msg(rec->arg[1] == qualification, "qualification 0x%llx, not 0x%x", (unsigned long long)rec->arg[1],
                  qualification);
    ck_assert_uint_eq(rec->arg[2], gpa);
    ck_assert_uint_eq(rec->arg[3], gla);
}

/* The access makes exactly this exit. */
static void expect_one(gva_t gva, unsigned access, enum ept_exit_reason reason, uint32_t qualification, gpa_t gpa)
{
    struct trace_record rec[64] = {0};
    struct xlate x;
    exits(rec, 64);
    ck_assert_int_eq(rig_translate(r, gva, access, &x), XLATE_OK);
    ck_assert_uint_eq(exits(rec, 64), 1);
    expect_exit(rec, reason, qualification, gpa, gva);
    struct ept_exit last = ept_last_exit(r->v);
    ck_assert_uint_eq(last.reason, reason);
    ck_assert_uint_eq(last.qualification, qualification);
    ck_assert_uint_eq(last.gpa, gpa);
    ck_assert_uint_eq(last.gla, gva);
}

/* Tables and page are mapped; the next access is the interesting one. */
static void touch(unsigned access)
{
    rig_expect(r, GVA + 8, access, PAGE + 8);
    expect_exits((unsigned)r->mmu->trace->written);
}

/* ---- violations ---- */

START_TEST(first_access_exits_for_each_table_and_then_for_the_page)
{
    static const gpa_t entry[] = {0x1000, 0x2000 + 8, 0x3000, 0x4000};
    struct trace_record rec[64] = {0};
    rig_expect(r, GVA + 8, ACCESS_READ, PAGE + 8);
    ck_assert_uint_eq(exits(rec, 64), 5);
    for (int i = 0; i < 4; i++) /* A/D enabled: an access to a guest entry is a write */
        expect_exit(&rec[i], EPT_EXIT_VIOLATION, EPT_Q_READ | EPT_Q_WRITE | EPT_Q_GLA_VALID, entry[i], GVA + 8);
    expect_exit(&rec[4], EPT_EXIT_VIOLATION, EPT_Q_READ | Q_ALL, PAGE + 8, GVA + 8);
    ck_assert_uint_eq(ept_exit_count(r->v), 5);
    rig_expect(r, GVA + 16, ACCESS_READ, PAGE + 16);
    expect_exits(0);
}
END_TEST

START_TEST(without_ad_flags_a_table_access_is_a_read)
{
    struct trace_record rec[64] = {0};
    configure(4, false, true);
    rig_expect(r, GVA, ACCESS_READ, PAGE);
    ck_assert_uint_eq(exits(rec, 64), 5);
    expect_exit(&rec[0], EPT_EXIT_VIOLATION, EPT_Q_READ | EPT_Q_GLA_VALID, 0x1000, GVA);
    ck_assert_uint_eq(*leaf(0x1000) & (EPT_A | EPT_D), 0);
    ck_assert_uint_eq(rig_get(r, 0x4000) & PTE_A, PTE_A);
}
END_TEST

START_TEST(guest_accessed_update_without_ad_flags_is_a_write_of_its_own)
{
    struct trace_record rec[64] = {0};
    configure(4, false, true);
    ck_assert(ept_restrict(r->mmu, 0, 4, 1, EPT_R));
    rig_expect(r, GVA, ACCESS_READ, PAGE);
    ck_assert_uint_eq(exits(rec, 64), 5);
    expect_exit(&rec[4], EPT_EXIT_VIOLATION, EPT_Q_WRITE | EPT_Q_ENTRY_R | EPT_Q_GLA_VALID, 0x4000, GVA);
    ck_assert_uint_eq(rig_get(r, 0x4000) & PTE_A, PTE_A);
}
END_TEST

START_TEST(write_to_the_zero_page_reports_the_rights_that_the_entries_gave)
{
    touch(ACCESS_READ);
    ck_assert_uint_eq(*leaf(PAGE) & EPT_RWX, EPT_R | EPT_X);
    uint64_t retries = r->mmu->stats.retries;
    struct trace_record rec[64] = {0};
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    unsigned n = exits(rec, 64);
    expect_exit(&rec[0], EPT_EXIT_VIOLATION, EPT_Q_WRITE | Q_R_X | Q_ALL, PAGE, GVA);
    /* gup replaced the zero page and so invalidated: the retry protocol sent the guest back once. */
    ck_assert_uint_eq(r->mmu->stats.retries, retries + 1);
    ck_assert_uint_eq(n, 2);
    expect_exit(&rec[1], EPT_EXIT_VIOLATION, EPT_Q_WRITE | Q_ALL, PAGE, GVA);
    ck_assert_uint_eq(*leaf(PAGE) & (EPT_RWX | EPT_HOST_W), EPT_RWX | EPT_HOST_W);
}
END_TEST

START_TEST(fetch_exit_says_fetch)
{
    touch(ACCESS_READ);
    ck_assert(ept_restrict(r->mmu, 0, PAGE >> 12, 1, EPT_R));
    expect_one(GVA, ACCESS_FETCH, EPT_EXIT_VIOLATION, EPT_Q_FETCH | EPT_Q_ENTRY_R | Q_ALL, PAGE);
}
END_TEST

START_TEST(advanced_information_tells_the_guests_rights)
{
    touch(ACCESS_READ);
    rig_map(r, GVA + 0x1000, PAGE + 0x1000, PTE_P | PTE_NX);
    expect_one(GVA + 0x1000, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | Q_FINAL | EPT_Q_GUEST_XD, PAGE + 0x1000);
    rig_map(r, GVA + 0x2000, PAGE + 0x2000, PTE_P | PTE_U);
    expect_one(GVA + 0x2000, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | Q_FINAL | EPT_Q_USER, PAGE + 0x2000);
    rig_map(r, GVA + 0x3000, PAGE + 0x3000, PTE_P | PTE_W);
    expect_one(GVA + 0x3000, ACCESS_WRITE, EPT_EXIT_VIOLATION, EPT_Q_WRITE | Q_FINAL | EPT_Q_GUEST_W, PAGE + 0x3000);
}
END_TEST

START_TEST(with_paging_off_every_address_is_a_users)
{
    r->regs.cr0 = CR0_PE;
    rig_load(r);
    expect_one(PAGE, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | Q_ALL, PAGE);
}
END_TEST

START_TEST(pdpte_load_has_no_linear_address)
{
    uint64_t out[4];
    struct trace_record rec[64] = {0};
    rig_put(r, 0x8020, 0x9001);
    ck_assert(mmu_load_pdptes(r->v, 0x8020, out));
    ck_assert_uint_eq(out[0], 0x9001);
    ck_assert_uint_eq(exits(rec, 64), 1);
    expect_exit(rec, EPT_EXIT_VIOLATION, EPT_Q_READ, 0x8020, 0);
}
END_TEST

START_TEST(pdpte_load_from_no_memory_reads_ones)
{
    uint64_t out[4];
    ck_assert(!mmu_load_pdptes(r->v, RAM + 0x20, out));
    ck_assert_uint_eq(out[3], UINT64_MAX);
}
END_TEST

START_TEST(iret_that_unblocks_nmis_is_bit_12)
{
    touch(ACCESS_READ);
    ept_note_iret(r->v, true);
    rig_map(r, GVA + 0x1000, PAGE + 0x1000, PTE_ALL);
    expect_one(GVA + 0x1000, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | Q_ALL | EPT_Q_NMI_UNBLOCK, PAGE + 0x1000);
    ept_note_iret(r->v, false);
    rig_map(r, GVA + 0x2000, PAGE + 0x2000, PTE_ALL);
    expect_one(GVA + 0x2000, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | Q_ALL, PAGE + 0x2000);
}
END_TEST

START_TEST(gpa_beyond_the_walk_length_exceeds_gaw_and_reaches_no_memory)
{
    gpa_t far = 1ull << 50;
    r->regs.maxphyaddr = 52;
    rig_load(r);
    touch(ACCESS_READ);
    rig_map(r, GVA + 0x1000, far, PTE_ALL);
    struct xlate x;
    expect_one(GVA + 0x1000, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | EPT_Q_GAW | Q_ALL, far);
    ck_assert_int_eq(rig_translate(r, GVA + 0x1000, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert_uint_eq(x.gpa, far);
    ck_assert_uint_eq(ept()->stats.gaw, 2);
}
END_TEST

START_TEST(five_levels_reach_what_four_do_not)
{
    gpa_t far = 1ull << 50;
    configure(5, true, true);
    r->regs.maxphyaddr = 52;
    rig_load(r);
    touch(ACCESS_READ);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, far, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA + 0x1000, far, PTE_ALL);
    expect_one(GVA + 0x1000, ACCESS_WRITE, EPT_EXIT_VIOLATION, EPT_Q_WRITE | Q_ALL, far);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA + 0x1000, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
}
END_TEST

START_TEST(impossible_qualifications_are_refused)
{
    static const struct {
        uint32_t q;
        bool possible;
    } cases[] = {
        {EPT_Q_READ, true},
        {EPT_Q_READ | EPT_Q_GLA_VALID, true},
        {EPT_Q_READ | EPT_Q_WRITE | EPT_Q_GLA_VALID, true},
        {EPT_Q_WRITE | EPT_Q_ENTRY_R | Q_ALL, true},
        {0, false},
        {EPT_Q_GLA_VALID, false},
        {EPT_Q_READ | EPT_Q_TRANSLATION, false},
        {EPT_Q_READ | EPT_Q_FETCH, false},
        {EPT_Q_WRITE | EPT_Q_FETCH | Q_FINAL, false},
        {EPT_Q_READ | EPT_Q_USER, false},
        {EPT_Q_READ | EPT_Q_GLA_VALID | EPT_Q_GUEST_XD, false},
        {EPT_Q_READ | EPT_Q_ENTRY_R | Q_FINAL, false},
        {EPT_Q_FETCH | Q_R_X | Q_FINAL, false},
        {EPT_Q_READ | EPT_Q_ENTRY_W | Q_FINAL, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ept_exit x = {.reason = EPT_EXIT_VIOLATION, .qualification = cases[i].q, .gpa = PAGE};
        ck_assert_msg((ept_violation_check(cases[i].q) == NULL) == cases[i].possible, "case %zu", i);
        ck_assert_int_eq(ept_handle_exit(r->v, &x), cases[i].possible ? EPT_RESUME : EPT_REFUSED);
    }
    ck_assert_uint_eq(ept()->stats.refused, 10);
}
END_TEST

START_TEST(write_to_rom_exits_each_time_and_is_emulated)
{
    struct xlate x;
    gpa_t rom = 0x1000000;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, rom, 0x1000, r->hva + RAM, MEMSLOT_ROM), 0);
    rig_map(r, GVA + 0x1000, rom, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, rom);
    for (int i = 0; i < 2; i++) {
        expect_one(GVA + 0x1000, ACCESS_WRITE, EPT_EXIT_VIOLATION, EPT_Q_WRITE | Q_R_X | Q_ALL, rom);
        ck_assert_int_eq(rig_translate(r, GVA + 0x1000, ACCESS_WRITE, &x), XLATE_OK);
        ck_assert_ptr_null(x.host);
    }
}
END_TEST

START_TEST(guest_tables_in_rom_are_walked_by_software)
{
    struct xlate x;
    gpa_t rom = 0x1000000;
    uint64_t e = PAGE | PTE_ALL;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, rom, 0x1000, r->hva + RAM, MEMSLOT_ROM), 0);
    mem_access(r->mem, 0, rom, &e, 8, MEM_HOST_POKE, true, 0);
    rig_put(r, 0x3000, rom | PTE_ALL);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(rig_translate(r, GVA + 24, ACCESS_READ, &x), XLATE_OK);
        ck_assert_uint_eq(x.gpa, PAGE + 24);
        ck_assert_ptr_null(x.host);
    }
    ck_assert_uint_eq(rig_get(r, rom), e); /* A stays as it is */
}
END_TEST

START_TEST(guest_table_in_no_memory_is_a_reserved_bit_fault)
{
    rig_put(r, 0x3000, 0x2000000 | PTE_ALL);
    for (int i = 0; i < 2; i++)
        rig_expect_fault(r, GVA, ACCESS_READ, PF_PRESENT | PF_RSVD);
    ck_assert_uint_eq(ept_last_exit(r->v).reason, EPT_EXIT_MISCONFIG);
    ck_assert_uint_eq(ept_last_exit(r->v).gpa, 0x2000000);
}
END_TEST

START_TEST(out_of_frames_is_said_and_no_crash)
{
    struct xlate x;
    touch(ACCESS_READ);
    ck_assert_int_eq(host_mm_munmap(r->mm, r->hva + PAGE, 0x1000), 0);
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert_uint_ge(ept()->stats.bad_pages, 1);
    rig_poke(r, PAGE, 1, 8);
    ck_assert(mem_has_failed(r->mem));
}
END_TEST

/* ---- MMIO and misconfiguration ---- */

START_TEST(mmio_is_a_violation_once_and_a_misconfiguration_from_then_on)
{
    gpa_t mmio = 0xfee00000;
    struct xlate x;
    touch(ACCESS_READ);
    rig_map(r, GVA + 0x1000, mmio, PTE_ALL);
    expect_one(GVA + 0x1000, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | Q_ALL, mmio);
    ck_assert(ept_is_marker(*leaf(mmio)));
    for (int i = 0; i < 2; i++) {
        expect_one(GVA + 0x1008, ACCESS_WRITE, EPT_EXIT_MISCONFIG, 0, mmio + 8);
        ck_assert_int_eq(rig_translate(r, GVA + 0x1008, ACCESS_WRITE, &x), XLATE_OK);
        ck_assert_ptr_null(x.host);
        ck_assert_uint_eq(x.gpa, mmio + 8);
    }
}
END_TEST

START_TEST(marker_dies_with_its_generation)
{
    gpa_t gpa = 0x2000000;
    struct trace_record rec[64] = {0};
    touch(ACCESS_READ);
    rig_map(r, GVA + 0x1000, gpa, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, gpa);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, gpa, 0x1000, r->hva + RAM, MEMSLOT_RAM), 0);
    exits(rec, 64);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA + 0x1000, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
    ck_assert_uint_eq(exits(rec, 64), 2);
    expect_exit(&rec[0], EPT_EXIT_MISCONFIG, 0, gpa, GVA + 0x1000);
    expect_exit(&rec[1], EPT_EXIT_VIOLATION, EPT_Q_READ | Q_ALL, gpa, GVA + 0x1000);
}
END_TEST

START_TEST(marker_of_a_wrapped_generation_does_not_come_true_again)
{
    gpa_t gpa = 0x2000000;
    rig_map(r, GVA + 0x1000, gpa, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, gpa);
    uint64_t made = r->mem->generation;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, gpa, 0x1000, r->hva + RAM, MEMSLOT_RAM), 0);
    r->mem->generation = made + (1ull << EPT_GEN_BITS);
    ck_assert(ept_marker_is_current(*leaf(gpa), mem_generation(r->mem)));
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA + 0x1000, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
}
END_TEST

START_TEST(each_illegal_setting_is_a_misconfiguration)
{
    static const struct {
        int level;
        uint64_t entry;
        bool legal;
    } cases[] = {
        {1, EPT_RWX | 6 << 3, true},
        {1, EPT_R | EPT_W | 6 << 3, true},
        {1, EPT_R | EPT_X | 6 << 3, true},
        {1, EPT_X | 6 << 3, true},
        {1, EPT_W | 6 << 3, false},
        {1, EPT_W | EPT_X | 6 << 3, false},
        {1, EPT_RWX | 0 << 3, true},
        {1, EPT_RWX | 1 << 3, true},
        {1, EPT_RWX | 2 << 3, false},
        {1, EPT_RWX | 3 << 3, false},
        {1, EPT_RWX | 4 << 3, true},
        {1, EPT_RWX | 5 << 3, true},
        {1, EPT_RWX | 7 << 3, false},
        {1, EPT_RWX | 6 << 3 | 1ull << EPT_MAXPHYADDR, false},
        {1, EPT_RWX | 6 << 3 | 1ull << 51, false},
        {1, EPT_RWX | 6 << 3 | 0x7ffull << 52, true}, /* ignored bits */
        {2, EPT_RWX | 0x1000, true},
        {2, EPT_RWX | 1 << 3, false},
        {2, EPT_RWX | 1 << 6, false},
        {2, EPT_RWX | EPT_LARGE | 6 << 3 | 0x200000, true},
        {2, EPT_RWX | EPT_LARGE | 6 << 3 | 0x201000, false},
        {2, EPT_RWX | EPT_LARGE | 6 << 3 | 0x300000, false},
        {2, EPT_RWX | EPT_LARGE | 3 << 3, false},
        {3, EPT_RWX | EPT_LARGE | 6 << 3 | 1ull << 30, true},
        {3, EPT_RWX | EPT_LARGE | 6 << 3 | 1ull << 29, false},
        {3, EPT_RWX | 1 << 5, false},
        {4, EPT_RWX | 0x1000, true},
        {4, EPT_RWX | EPT_LARGE, false},
        {4, EPT_RWX | 1 << 3, false},
        {5, EPT_RWX | 1 << 6, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        ck_assert_msg(!ept_misconfig(ept(), cases[i].entry, cases[i].level) == cases[i].legal, "case %zu", i);
    configure(4, true, false);
    ck_assert_ptr_nonnull(ept_misconfig(ept(), EPT_X | 6 << 3, 1));
}
END_TEST

START_TEST(damaged_entry_is_reported_and_made_anew)
{
    for (int level = 1; level <= 4; level++) {
        touch(ACCESS_READ);
        tlb_flush_all(r->mmu);
        struct ept_walk w;
        ept_walk(ept(), 0, PAGE, EPT_R, NULL, true, &w);
        *w.at[4 - level].entryp |= 1ull << 50;
        rig_expect(r, GVA, ACCESS_READ, PAGE);
        ck_assert_uint_eq(ept()->stats.illegal, (unsigned)level);
        ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
    }
}
END_TEST

START_TEST(large_leaf_of_1g_is_walked)
{
    struct ept_walk w;
    struct ept_table *t;
    uint64_t *p = ept_lookup(ept(), 0, 5ull << 18, &t); /* level 4 */
    t = ept_table_make(ept(), t, p, 5ull << 18);
    p = &t->entry[5];
    ept_entry_set(t, p, ept_make_leaf(7ull << 18, 3, EPT_R | EPT_X, false));
    ept_walk(ept(), 0, (5ull << 30) + 0x12345678, EPT_R, NULL, false, &w);
    ck_assert_int_eq(w.result, EPT_WALK_OK);
    ck_assert_int_eq(w.leaf_level, 3);
    ck_assert_uint_eq(w.hpa, (7ull << 30) + 0x12345678);
    ck_assert_uint_eq(*p & (EPT_A | EPT_D), EPT_A);
    ept_walk(ept(), 0, 5ull << 30, EPT_W, NULL, false, &w);
    ck_assert_int_eq(w.result, EPT_WALK_VIOLATION);
    ck_assert_uint_eq(w.rights, EPT_R | EPT_X);
    ept_entry_set(t, p, 0);
}
END_TEST

/* ---- A and D ---- */

START_TEST(read_sets_accessed_and_write_sets_dirty)
{
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    ck_assert_uint_eq(*leaf(PAGE) & (EPT_A | EPT_D), EPT_A | EPT_D);
    ck_assert_uint_eq(*leaf(0x4000) & (EPT_A | EPT_D), EPT_A | EPT_D); /* a guest table: walked is written */
    rig_map(r, GVA + 0x1000, PAGE + 0x1000, PTE_ALL);
    rig_put(r, PAGE + 0x1000, 1);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, PAGE + 0x1000);
    ck_assert_uint_eq(*leaf(PAGE + 0x1000) & (EPT_RWX | EPT_A | EPT_D), EPT_RWX | EPT_A);
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA + 0x1000, 8));
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA + 0x1000, 8));
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, PAGE + 0x1000);
    ck_assert_uint_eq(*leaf(PAGE + 0x1000) & EPT_D, EPT_D);
    ck_assert_ptr_nonnull(tlb_lookup_write(r->v, GVA + 0x1000, 8));
}
END_TEST

START_TEST(upper_entries_become_accessed_not_dirty)
{
    struct ept_walk w;
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    ept_walk(ept(), 0, PAGE, EPT_W, NULL, true, &w);
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(w.at[i].entry & (EPT_A | EPT_D), EPT_A);
}
END_TEST

/* ---- EPTP, INVEPT, INVVPID ---- */

START_TEST(eptp_is_checked_as_vm_entry_does)
{
    uint64_t cap = ept_vpid_cap(r->mmu), good = ept_eptp(r->mmu, 0);
    ck_assert_uint_eq(good & 0xfff, 6 | 3 << 3 | EPTP_AD);
    ck_assert_ptr_null(ept_eptp_check(good, cap, 46));
    ck_assert_ptr_null(ept_eptp_check((good & ~7ull) | EPT_MT_UC, cap, 46));
    for (uint64_t type = 1; type < 8; type++)
        if (type != EPT_MT_WB)
            ck_assert_ptr_nonnull(ept_eptp_check((good & ~7ull) | type, cap, 46));
    for (uint64_t levels = 1; levels <= 8; levels++)
        ck_assert_int_eq(!ept_eptp_check((good & ~0x38ull) | (levels - 1) << 3, cap, 46), levels == 4 || levels == 5);
    for (int bit = 7; bit < 12; bit++)
        ck_assert_ptr_nonnull(ept_eptp_check(good | 1ull << bit, cap, 46));
    ck_assert_ptr_nonnull(ept_eptp_check(good | 1ull << 46, cap, 46));
    ck_assert_ptr_nonnull(ept_eptp_check(good | 1ull << 63, cap, 46));
    configure(4, false, true);
    ck_assert_uint_eq(ept_eptp(r->mmu, 0) & EPTP_AD, 0);
    ck_assert_ptr_nonnull(ept_eptp_check(good, ept_vpid_cap(r->mmu), 46));
}
END_TEST

START_TEST(invept_drops_what_its_eptp_tagged)
{
    touch(ACCESS_READ);
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_uint_eq(r->v->set->eptp, ept_eptp(r->mmu, 0));
    ck_assert(ept_invept(r->v, INVEPT_SINGLE, ept_eptp(r->mmu, 1)));
    ck_assert_ptr_nonnull(tlb_lookup_read(r->v, GVA, 8));
    ck_assert(ept_invept(r->v, INVEPT_SINGLE, ept_eptp(r->mmu, 0)));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    touch(ACCESS_READ);
    ck_assert(ept_invept(r->v, INVEPT_ALL, 0));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert(!ept_invept(r->v, 0, ept_eptp(r->mmu, 0)));
    ck_assert(!ept_invept(r->v, 3, 0));
    ck_assert(!ept_invept(r->v, INVEPT_SINGLE, ept_eptp(r->mmu, 0) | 1ull << 11));
}
END_TEST

START_TEST(invvpid_drops_what_its_vpid_tagged)
{
    uint16_t vpid = ept_vpid(r->v);
    ck_assert_uint_ne(vpid, 0);
    ck_assert_uint_ne(vpid, ept_vpid(mmu_vcpu_get(r->mmu, 1)));
    rig_map(r, GVA + 0x1000, PAGE + 0x1000, PTE_ALL);
    static const struct {
        unsigned type;
        bool other_vpid, page_goes, other_page_goes;
    } cases[] = {
        {INVVPID_ADDRESS, false, true, false}, {INVVPID_ADDRESS, true, false, false},
        {INVVPID_SINGLE, false, true, true},   {INVVPID_SINGLE, true, false, false},
        {INVVPID_ALL, true, true, true},       {INVVPID_SINGLE_BUT_GLOBAL, false, true, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        touch(ACCESS_READ);
        rig_expect(r, GVA + 0x1000, ACCESS_READ, PAGE + 0x1000);
        ck_assert(ept_invvpid(r->v, cases[i].type, vpid + cases[i].other_vpid, GVA));
        ck_assert_int_eq(!tlb_lookup_read(r->v, GVA, 8), cases[i].page_goes);
        ck_assert_int_eq(!tlb_lookup_read(r->v, GVA + 0x1000, 8), cases[i].other_page_goes);
    }
    ck_assert(!ept_invvpid(r->v, 4, vpid, 0));
    ck_assert(!ept_invvpid(r->v, INVVPID_SINGLE, 0, 0));
    ck_assert(!ept_invvpid(r->v, INVVPID_ADDRESS, 0, GVA));
    ck_assert(!ept_invvpid(r->v, INVVPID_ADDRESS, vpid, 1ull << 62));
}
END_TEST

/* ---- restricted rights ---- */

START_TEST(execute_only_page_runs_but_cannot_be_read)
{
    struct xlate x;
    touch(ACCESS_READ);
    ck_assert(ept_restrict(r->mmu, 0, PAGE >> 12, 1, EPT_X));
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_FETCH, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
    ck_assert_ptr_nonnull(tlb_lookup_fetch(r->v, GVA));
    ck_assert_uint_eq(*leaf(PAGE) & EPT_RWX, EPT_X);
    expect_one(GVA, ACCESS_READ, EPT_EXIT_VIOLATION, EPT_Q_READ | EPT_Q_ENTRY_X | Q_ALL, PAGE);
    expect_one(GVA, ACCESS_WRITE, EPT_EXIT_VIOLATION, EPT_Q_WRITE | EPT_Q_ENTRY_X | Q_ALL, PAGE);
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
    ck_assert(ept_restrict(r->mmu, 0, PAGE >> 12, 1, EPT_RWX));
    ck_assert_int_eq(rig_translate(r, GVA, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
}
END_TEST

START_TEST(restriction_takes_and_gives_back_writing_without_a_fault)
{
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    ck_assert(ept_restrict(r->mmu, 0, PAGE >> 12, 1, EPT_R | EPT_X));
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA, 8));
    ck_assert_uint_eq(*leaf(PAGE) & EPT_RWX, EPT_R | EPT_X);
    ck_assert(ept_restrict(r->mmu, 0, PAGE >> 12, 1, EPT_RWX));
    ck_assert_uint_eq(*leaf(PAGE) & EPT_RWX, EPT_RWX);
    expect_exits((unsigned)r->mmu->trace->written);
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    expect_exits(0);
}
END_TEST

START_TEST(unsupported_restrictions_are_refused)
{
    ck_assert(!ept_restrict(r->mmu, 0, 1, 1, EPT_W));
    ck_assert(!ept_restrict(r->mmu, 0, 1, 1, EPT_W | EPT_X));
    ck_assert(!ept_restrict(r->mmu, 0, 1, 1, 8));
    ck_assert(!ept_restrict(r->mmu, 2, 1, 1, EPT_R));
    configure(4, true, false);
    ck_assert(!ept_restrict(r->mmu, 0, 1, 1, EPT_X));
    ck_assert(!ept_configure(r->mmu, &(struct ept_config){.levels = 3}));
}
END_TEST

/* ---- the rest ---- */

START_TEST(table_limit_is_kept_by_starting_over)
{
    rig_close(r);
    rig_open(r, &(struct rig_config){.kind = MMU_EPT, .ram = RAM, .max_shadow_pages = 1});
    rig_load(r);
    for (uint64_t i = 0; i < 300; i++) {
        gpa_t gpa = i << 22;
        if (i > 1)
            ck_assert_int_eq(mem_slot_add(r->mem, 0, gpa, 0x1000, r->hva + RAM + i * 0x1000, MEMSLOT_RAM), 0);
        rig_expect(r, gpa, ACCESS_READ, gpa);
        ck_assert_uint_le(ept()->stats.tables, EPT_MIN_TABLES);
    }
    ck_assert_uint_ge(ept()->stats.recycled, 3);
}
END_TEST

START_TEST(slot_that_goes_takes_its_leaves_along)
{
    gpa_t gpa = 0x2000000;
    ck_assert_int_eq(mem_slot_add(r->mem, 0, gpa, 0x4000, r->hva + RAM, MEMSLOT_RAM), 0);
    rig_map(r, GVA + 0x1000, gpa, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, gpa);
    ck_assert_int_eq(mem_slot_delete(r->mem, 0, gpa), 0);
    ck_assert_uint_eq(*leaf(gpa), 0);
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, GVA + 0x1000, ACCESS_READ, &x), XLATE_OK);
    ck_assert_ptr_null(x.host);
}
END_TEST

START_TEST(no_ept_entry_is_write_protected_for_a_guest_table)
{
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    rig_map(r, GVA + 0x1000, 0x4000, PTE_ALL); /* the guest sees its own page table */
    rig_expect(r, GVA + 0x1000, ACCESS_WRITE, 0x4000);
    ck_assert(track_is_tracked(r->mem, 0, 4));
    ck_assert_uint_eq(*leaf(0x4000) & EPT_RWX, EPT_RWX);
    ck_assert_ptr_null(tlb_lookup_write(r->v, GVA + 0x1000, 8));
    uint64_t n = ept_exit_count(r->v);
    rig_put(r, 0x4000, 0x20000 | PTE_ALL);
    ck_assert_ptr_null(tlb_lookup_read(r->v, GVA, 8));
    ck_assert_uint_eq(ept_exit_count(r->v), n);
    rig_expect(r, GVA, ACCESS_READ, 0x20000);
}
END_TEST

static void collect(void *ctx, const char *text)
{
    char *all = ctx;
    strncat(all, text, 4095 - strlen(all));
    strncat(all, "\n", 4095 - strlen(all));
}

START_TEST(printed_walk_shows_the_second_stage)
{
    char text[4096] = "";
    rig_expect(r, GVA, ACCESS_WRITE, PAGE);
    mmu_print_walk(r->v, GVA, collect, text);
    ck_assert_ptr_nonnull(strstr(text, "ept level 4"));
    ck_assert_ptr_nonnull(strstr(text, "gpa 0x4000 -> hpa 0x"));
    ck_assert_ptr_nonnull(strstr(text, "gpa 0x10000 -> hpa 0x"));
    ck_assert_ptr_nonnull(strstr(text, "RWXI-ADHV WB"));
    rig_map(r, GVA + 0x1000, 0x3000000, PTE_ALL);
    rig_expect(r, GVA + 0x1000, ACCESS_READ, 0x3000000);
    text[0] = 0;
    mmu_print_walk(r->v, GVA + 0x1000, collect, text);
    ck_assert_ptr_nonnull(strstr(text, "marks MMIO, generation current"));
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        first_access_exits_for_each_table_and_then_for_the_page,
        without_ad_flags_a_table_access_is_a_read,
        guest_accessed_update_without_ad_flags_is_a_write_of_its_own,
        write_to_the_zero_page_reports_the_rights_that_the_entries_gave,
        fetch_exit_says_fetch,
        advanced_information_tells_the_guests_rights,
        with_paging_off_every_address_is_a_users,
        pdpte_load_has_no_linear_address,
        pdpte_load_from_no_memory_reads_ones,
        iret_that_unblocks_nmis_is_bit_12,
        gpa_beyond_the_walk_length_exceeds_gaw_and_reaches_no_memory,
        five_levels_reach_what_four_do_not,
        impossible_qualifications_are_refused,
        write_to_rom_exits_each_time_and_is_emulated,
        guest_tables_in_rom_are_walked_by_software,
        guest_table_in_no_memory_is_a_reserved_bit_fault,
        out_of_frames_is_said_and_no_crash,
        mmio_is_a_violation_once_and_a_misconfiguration_from_then_on,
        marker_dies_with_its_generation,
        marker_of_a_wrapped_generation_does_not_come_true_again,
        each_illegal_setting_is_a_misconfiguration,
        damaged_entry_is_reported_and_made_anew,
        large_leaf_of_1g_is_walked,
        read_sets_accessed_and_write_sets_dirty,
        upper_entries_become_accessed_not_dirty,
        eptp_is_checked_as_vm_entry_does,
        invept_drops_what_its_eptp_tagged,
        invvpid_drops_what_its_vpid_tagged,
        execute_only_page_runs_but_cannot_be_read,
        restriction_takes_and_gives_back_writing_without_a_fault,
        unsupported_restrictions_are_refused,
        table_limit_is_kept_by_starting_over,
        slot_that_goes_takes_its_leaves_along,
        no_ept_entry_is_write_protected_for_a_guest_table,
        printed_walk_shows_the_second_stage,
    };
    return suite_of_case("mmu: ept engine", "ept", tests, ARRAY_LEN(tests), setup, teardown, 0);
}

CHECK_MAIN(suite)
