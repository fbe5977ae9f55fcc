/*
 * Inspectors over a machine: frames follow the host, content follows the machine, writes go through the owner.
 */
#include "check_main.h"

#include "core/host/host_ops.h"
#include "core/host/swap.h"
#include "frontends/machine/inspect.h"
#include "frontends/machine/machine.h"

#include <string.h>
#include <unistd.h>

#define GVA  0x40000000ull
#define DATA 0x90000ull
#define PML4 0x10000ull

static struct machine *m;
static struct inspector *in;
static enum machine_mmu kind;

static const uint8_t code[] = {0xfa, 0xf4}; /* CLI; HLT */

/* A Multiboot image: header with address fields, then the code, at 1 MiB. */
static void image_write(char *path)
{
    const uint32_t flags = 1u << 16, base = 0x100000;
    uint32_t header[8] = {0x1badb002, flags,    0 - 0x1badb002u - flags, base, base, base + 32 + (uint32_t)sizeof code,
                          0,          base + 32};
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, header, sizeof header), sizeof header);
    ck_assert_int_eq(write(fd, code, sizeof code), sizeof code);
    close(fd);
}

static void put(uint64_t gpa, uint64_t value)
{
    ck_assert_int_eq(mem_access(m->mem, 0, gpa, &value, 8, MEM_GUEST, true, 0), MEM_OK);
}

static uint64_t get(uint64_t gpa)
{
    uint64_t value = ~0ull;
    ck_assert_uint_eq(inspector_read_gpa(in, gpa, &value, 8), 8);
    return value;
}

static uint64_t get_gva(uint64_t gva)
{
    uint64_t value = ~0ull;
    ck_assert_uint_eq(inspector_read_gva(in, 0, gva, &value, 8), 8);
    return value;
}

static hva_t hva(uint64_t gpa)
{
    return m->low_hva + gpa;
}

/* The vCPU's registers as a kernel in long mode has them: GVA is DATA. */
static void long_mode(void)
{
    struct paging_regs r = {.cr0 = CR0_PE | CR0_PG | CR0_WP,
                            .cr3 = PML4,
                            .cr4 = CR4_PAE,
                            .efer = EFER_LME | EFER_LMA | EFER_NXE,
                            .a20_mask = ~0ull,
                            .maxphyaddr = 40};
    put(PML4, (PML4 + 0x1000) | 0x27);
    put(PML4 + 0x1000 + 8, (PML4 + 0x2000) | 0x27);
    put(PML4 + 0x2000, (PML4 + 0x3000) | 0x27);
    put(PML4 + 0x3000, DATA | 0x27);
    m->cpu[0]->efer = r.efer;
    mmu_vcpu_load(m->cpu[0]->mv, &r);
}

static void setup(void)
{
    char path[] = "/tmp/umbra-mirror-XXXXXX";
    struct error e = {""};
    struct machine_config cfg = {.ram_bytes = 8 << 20, .kernel = path, .rtc_base = MACHINE_RTC_DEFAULT, .mmu = kind};
    image_write(path);
    m = machine_create(&cfg, &e);
    unlink(path);
    ck_assert_msg(m != NULL, "%s", e.text);
    struct swap_store *swap = swap_store_create(&(struct swap_config){.memory_bytes = 8 << 20}, e.text, sizeof e.text);
    ck_assert_int_eq(host_mm_set_swap(m->mm, swap), HOST_OK);
    swap_store_put(swap);
    in = inspector_open(m, kind, &e);
    ck_assert_msg(in != NULL, "%s", e.text);
    long_mode();
    put(DATA, 1);
}

static void teardown(void)
{
    ck_assert_uint_eq(inspector_audit(in, stderr), 0);
    inspector_close(in);
    ck_assert_uint_eq(machine_audit(m, true, stderr), 0);
    machine_destroy(m);
}

START_TEST(reads_show_the_machines_memory_and_leave_no_trace)
{
    uint64_t digest = machine_digest(m), gpa;
    ck_assert_uint_eq(get(DATA), 1);
    ck_assert_uint_eq(get_gva(GVA), 1);
    ck_assert(inspector_gva_to_gpa(in, 0, GVA + 0x123, &gpa) && gpa == DATA + 0x123);
    ck_assert(!inspector_gva_to_gpa(in, 0, GVA + 0x200000, &gpa));
    ck_assert(!inspector_gva_to_gpa(in, 0, 1ull << 63, &gpa));
    ck_assert_uint_eq(inspector_read_gpa(in, 0xfee00000, &gpa, 8), 0);    /* devices are not mirrored */
    ck_assert_uint_eq(inspector_read_gpa(in, (8 << 20) - 4, &gpa, 8), 4); /* the last ones */
    ck_assert_uint_eq(machine_digest(m), digest);                         /* accessed bits and all */
}
END_TEST

START_TEST(what_the_machine_writes_is_what_the_next_look_shows)
{
    for (uint64_t i = 2; i < 50; i++) {
        put(DATA, i);
        ck_assert_uint_eq(get(DATA), i);
        ck_assert_uint_eq(get_gva(GVA), i);
    }
}
END_TEST

START_TEST(table_that_the_machine_changes_is_followed)
{
    ck_assert_uint_eq(get_gva(GVA), 1);
    put(DATA + 0x1000, 22);
    uint64_t writes = inspector_counters(in).writes;
    put(PML4 + 0x3000, (DATA + 0x1000) | 0x27);
    ck_assert_uint_eq(get_gva(GVA), 22);
    ck_assert_uint_gt(inspector_counters(in).writes, writes);
    put(PML4 + 0x2000, 0); /* an upper level */
    uint64_t gpa;
    ck_assert(!inspector_gva_to_gpa(in, 0, GVA, &gpa));
}
END_TEST

static void do_migrate(uint64_t gpa)
{
    host_mm_migrate(m->mm, hva(gpa));
}

static void do_swap_out(uint64_t gpa)
{
    ck_assert_int_eq(host_mm_swap_out(m->mm, hva(gpa)), HOST_OK);
}

static void do_fork(uint64_t gpa)
{
    host_mm_destroy(host_mm_fork(m->mm));
}

static void do_protect(uint64_t gpa)
{
    host_mm_mprotect(m->mm, hva(gpa), PAGE_SIZE, HOST_READ);
    host_mm_mprotect(m->mm, hva(gpa), PAGE_SIZE, HOST_READ | HOST_WRITE);
}

START_TEST(change_of_the_machines_frames_comes_down_and_dismantles_what_the_mirror_has_made)
{
    void (*const change[])(uint64_t) = {do_migrate, do_swap_out, do_fork, do_protect};
    static const uint64_t page[] = {DATA, PML4 + 0x3000, PML4};
    for (unsigned i = 0; i < ARRAY_LEN(change); i++) {
        for (unsigned k = 0; k < ARRAY_LEN(page); k++) {
            put(DATA, 100 * i + k);
            ck_assert_uint_eq(get_gva(GVA), 100 * i + k);
            uint64_t came = inspector_counters(in).invalidations;
            change[i](page[k]);
            ck_assert_uint_gt(inspector_counters(in).invalidations, came);
            ck_assert_uint_eq(inspector_audit(in, stderr), 0); /* nothing maps a frame that is no longer there */
            put(DATA, 7000 + i);                               /* by the machine, into the new frame */
            ck_assert_uint_eq(get_gva(GVA), 7000 + i);
            ck_assert_uint_eq(get(DATA), 7000 + i);
        }
    }
}
END_TEST

START_TEST(write_goes_through_the_owner_whose_tracking_sees_it)
{
    uint64_t value = 5, its = 0;
    struct xlate x;
    ck_assert(inspector_write_gpa(in, DATA + 4, &value, 8));
    ck_assert_uint_eq(machine_peek_gpa(m, DATA + 4, &its, 8), 8);
    ck_assert_uint_eq(its, 5);
    ck_assert_uint_eq(get(DATA + 4), 5);
    struct mmu_vcpu *mv = m->cpu[0]->mv;
    ck_assert_int_eq(mmu_translate(mv, GVA, ACCESS_READ, &x), XLATE_OK);
    value = (DATA + 0x2000) | 0x27;
    ck_assert(inspector_write_gpa(in, PML4 + 0x3000, &value, 8)); /* a page table of the machine */
    ck_assert_int_eq(mmu_translate(mv, GVA, ACCESS_READ, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, DATA + 0x2000);
    ck_assert(!inspector_write_gpa(in, 0xfee00000, &value, 8));
    ck_assert(!inspector_write_gpa(in, 0xa0000 - 4, &value, 8)); /* half of it is no RAM: none is written */
    ck_assert(!inspector_write_gpa(in, 0xf0000, &value, 8));     /* the machine's ROM */
}
END_TEST

START_TEST(two_mirrors_of_one_machine_agree)
{
    struct error e = {""};
    struct inspector *other = inspector_open(m, MACHINE_MMU_WALK, &e);
    uint64_t value;
    for (uint64_t i = 0; i < 20; i++) {
        put(PML4 + 0x3000, (DATA + (i & 3) * 0x1000) | 0x27);
        put(DATA + (i & 3) * 0x1000, i);
        do_migrate(DATA + (i & 3) * 0x1000);
        ck_assert_uint_eq(get_gva(GVA), i);
        ck_assert_uint_eq(inspector_read_gva(other, 0, GVA, &value, 8), 8);
        ck_assert_uint_eq(value, i);
    }
    inspector_close(other);
    ck_assert_uint_eq(get_gva(GVA), 19);
}
END_TEST

START_TEST(closed_mirror_leaves_nothing_behind)
{
    ck_assert_uint_eq(get_gva(GVA), 1);
    ck_assert(track_is_tracked(m->mem, 0, PML4 >> PAGE_SHIFT));
    inspector_close(in);
    in = NULL;
    mmu_zap_all(m->mmu);
    ck_assert(!track_is_tracked(m->mem, 0, (PML4 + 0x3000) >> PAGE_SHIFT));
    put(PML4 + 0x3000, 0);
}
END_TEST

static void use_shadow(void)
{
    kind = MACHINE_MMU_SHADOW;
    setup();
}

static void use_walk(void)
{
    kind = MACHINE_MMU_WALK;
    setup();
}

static void use_ept(void)
{
    kind = MACHINE_MMU_EPT;
    setup();
}

static void teardown_closed(void)
{
    machine_destroy(m);
}

static Suite *suite(void)
{
    const TTest *const tests[] = {
        reads_show_the_machines_memory_and_leave_no_trace,
        what_the_machine_writes_is_what_the_next_look_shows,
        table_that_the_machine_changes_is_followed,
        change_of_the_machines_frames_comes_down_and_dismantles_what_the_mirror_has_made,
        write_goes_through_the_owner_whose_tracking_sees_it,
        two_mirrors_of_one_machine_agree,
    };
    void (*const use[])(void) = {use_shadow, use_walk, use_ept};
    Suite *s = suite_create("machine: mirrors");
    for (size_t k = 0; k < ARRAY_LEN(use); k++) {
        static const char *const names[] = {"shadow", "walk", "ept"};
        TCase *t = tcase_create(names[k]);
        tcase_set_timeout(t, 60);
        tcase_add_checked_fixture(t, use[k], teardown);
        for (size_t i = 0; i < ARRAY_LEN(tests); i++)
            tcase_add_test(t, tests[i]);
        suite_add_tcase(s, t);
    }
    TCase *closing = tcase_create("closing");
    tcase_add_checked_fixture(closing, use_shadow, teardown_closed);
    tcase_add_test(closing, closed_mirror_leaves_nothing_behind);
    suite_add_tcase(s, closing);
    return s;
}

CHECK_MAIN(suite)
