/*
 * The paravirtual clock and steal time: what the guest finds in its memory, when, and that nothing of the host shows.
 */
#include "core/host/host_ops.h"
#include "core/snapshot.h"
#include "cpu/cpuid.h"
#include "cpu/kvm_pv.h"
#include "cpu_rig.h"

#include <unistd.h>

#define WALL  0x4b564d00u
#define TIME  0x4b564d01u
#define STEAL 0x4b564d03u
#define PAGE  0x180000ull

static struct cpu_rig r;

static void setup(void)
{
    rig_open_model(&r, "base,+kvmclock");
    rig_long(&r);
}

static void teardown(void)
{
    rig_close(&r);
}

static void wrmsr(uint32_t index, uint64_t value)
{
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RCX] = index;
    r.v->gpr[REG_RAX] = (uint32_t)value;
    r.v->gpr[REG_RDX] = value >> 32;
    rig_exec(&r, "\x0f\x30");
}

static bool is_done(void)
{
    return r.v->rip == RIG_CODE + 2;
}

static void cpuid(uint32_t leaf, uint32_t out[4])
{
    cpuid_query(r.v, leaf, 0, out);
}

/* What a guest computes (Linux: __pvclock_read_cycles). */
static uint64_t guest_ns(uint64_t tsc)
{
    uint64_t delta = tsc - rig_peek(&r, PAGE + 8, 8);
    int8_t shift = (int8_t)rig_peek(&r, PAGE + 28, 1);
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return rig_peek(&r, PAGE + 16, 8) + (uint64_t)((unsigned __int128)delta * rig_peek(&r, PAGE + 24, 4) >> 32);
}

START_TEST(leaves_say_kvm_and_only_what_is_there)
{
    uint32_t out[4];
    cpuid(0x40000000, out);
    ck_assert_uint_eq(out[0], 0x40000001);
    ck_assert_mem_eq(&out[1], "KVMKVMKVM\0\0\0", 12);
    cpuid(0x40000001, out);
    ck_assert_uint_eq(out[0], 1u << 3 | 1u << 5 | 1u << 24);
    ck_assert_uint_eq(out[3], 0);
    cpuid(1, out);
    ck_assert(out[2] >> 31);
    cpuid(0x80000007, out);
    ck_assert_uint_eq(out[3], 0);
}
END_TEST

START_TEST(base_model_has_nothing_of_it)
{
    struct cpu_rig plain;
    uint32_t out[4];
    uint64_t value;
    rig_open(&plain);
    cpuid_query(plain.v, 1, 0, out);
    ck_assert(!(out[2] >> 31));
    cpuid_query(plain.v, 0x40000000, 0, out);
    ck_assert(memcmp(&out[1], "KVMK", 4) != 0);
    cpuid_query(plain.v, 0x80000007, 0, out);
    ck_assert_uint_eq(out[3], 1u << 8);
    ck_assert(!kvm_pv_msr_read(plain.v, TIME, &value) && !kvm_pv_msr_write(plain.v, TIME, 0));
    rig_close(&plain);
}
END_TEST

START_TEST(system_time_is_the_virtual_clock_whatever_the_tsc_is_set_to)
{
    wrmsr(TIME, PAGE | 1);
    ck_assert(is_done());
    ck_assert_uint_eq(rig_peek(&r, PAGE, 4) & 1, 0);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 29, 1), 1); /* stable */
    clock_skip_to(&r.clock, 5000000);
    ck_assert_uint_eq(guest_ns(clock_now(&r.clock) + r.v->msr.tsc_adjust), 5000000);
    uint64_t version = rig_peek(&r, PAGE, 4);
    wrmsr(0x10, 123456789012345);
    ck_assert_uint_ne(rig_peek(&r, PAGE, 4), version);
    clock_skip_to(&r.clock, 7000000);
    ck_assert_uint_eq(guest_ns(clock_now(&r.clock) + r.v->msr.tsc_adjust), 7000000);
    wrmsr(TIME, PAGE); /* off */
    version = rig_peek(&r, PAGE, 4);
    wrmsr(0x10, 1);
    ck_assert_uint_eq(rig_peek(&r, PAGE, 4), version);
}
END_TEST

START_TEST(wall_clock_is_the_base_at_time_zero)
{
    kvm_pv_destroy(r.v->pv);
    r.v->pv = kvm_pv_create(r.v, 1577836800);
    clock_skip_to(&r.clock, 9000000000);
    wrmsr(WALL, PAGE + 0xffe); /* it may cross a page */
    ck_assert_uint_eq(rig_peek(&r, PAGE + 0xffe, 4), 2);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 0x1002, 4), 1577836800);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 0x1006, 4), 0);
}
END_TEST

START_TEST(bad_places_are_survived_and_bad_bits_are_faults)
{
    static const uint64_t bad[] = {RIG_MMIO | 1, ~0ull, PAGE | 0xff9, 1ull << 45 | 1};
    for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
        wrmsr(TIME, bad[k]);
        ck_assert(is_done());
        wrmsr(WALL, bad[k] & ~1ull);
        ck_assert(is_done());
        wrmsr(STEAL, (bad[k] & ~63ull) | 1);
        ck_assert(is_done());
        kvm_pv_leave(r.v);
        kvm_pv_enter(r.v);
    }
    ck_assert_uint_eq(r.device_accesses, 0);
    wrmsr(STEAL, PAGE | 3);
    rig_expect_vector(&r, EXC_GP);
    wrmsr(0x4b564d02, 0); /* asynchronous page faults are not offered */
    rig_expect_vector(&r, EXC_GP);
}
END_TEST

START_TEST(steal_time_is_the_time_that_others_ran_while_this_one_could)
{
    wrmsr(STEAL, PAGE | 1);
    uint64_t version = rig_peek(&r, PAGE + 8, 4);
    ck_assert_uint_eq(version & 1, 0);
    vcpu_descheduled(r.v);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 16, 1), 1); /* preempted */
    clock_skip_to(&r.clock, clock_now(&r.clock) + 20000);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\x90");
    ck_assert_uint_eq(rig_peek(&r, PAGE, 8), 20000);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 8, 4), version + 2);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 16, 1), 0);
}
END_TEST

START_TEST(time_that_a_vcpu_slept_is_not_stolen_but_its_waiting_after_the_wake_is)
{
    wrmsr(STEAL, PAGE | 1);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\xf4"); /* HLT */
    ck_assert_int_eq(r.v->activity, VCPU_HALTED);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 16, 1), 1);
    clock_skip_to(&r.clock, clock_now(&r.clock) + 1000000);
    struct irq_line nmi = vcpu_pin(r.v, CPU_PIN_NMI);
    nmi.set(nmi.ctx, nmi.n, true);
    clock_skip_to(&r.clock, clock_now(&r.clock) + 300); /* another's turn goes on */
    vcpu_run(r.v, 1);
    ck_assert_int_eq(r.v->activity, VCPU_RUNNING);
    ck_assert_uint_eq(rig_peek(&r, PAGE, 8), 300);
}
END_TEST

START_TEST(vcpu_that_is_alone_has_nothing_stolen)
{
    wrmsr(STEAL, PAGE | 1);
    for (unsigned k = 0; k < 3; k++) {
        rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
        struct irq_line nmi = vcpu_pin(r.v, CPU_PIN_NMI);
        r.v->nmi_blocked = true; /* so that it is pending when HLT comes */
        nmi.set(nmi.ctx, nmi.n, true);
        rig_exec(&r, "\xf4");
        r.v->nmi_blocked = false;
        vcpu_run(r.v, 1);
        ck_assert_int_eq(r.v->activity, VCPU_RUNNING);
    }
    ck_assert_uint_eq(rig_peek(&r, PAGE, 8), 0);
}
END_TEST

START_TEST(what_the_host_does_to_the_page_does_not_show)
{
    struct gfn_cache_counters before, after;
    wrmsr(STEAL, PAGE | 1);
    wrmsr(TIME, (PAGE + 0x100) | 1);
    before = gfn_caches_counters(r.mem);
    struct host_mm *child = host_mm_fork(r.mm); /* the page is shared read-only now */
    vcpu_descheduled(r.v);
    clock_skip_to(&r.clock, clock_now(&r.clock) + 50);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\x90");
    after = gfn_caches_counters(r.mem);
    ck_assert_uint_eq(rig_peek(&r, PAGE, 8), 50);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 16, 1), 0);
    ck_assert_uint_gt(after.invalidations, before.invalidations);
    host_mm_destroy(child);
}
END_TEST

START_TEST(reset_and_init_switch_both_off)
{
    for (unsigned init = 0; init < 2; init++) {
        uint64_t value = 1;
        rig_long(&r);
        wrmsr(TIME, PAGE | 1);
        wrmsr(STEAL, PAGE | 1);
        vcpu_reset(r.v, init);
        ck_assert(kvm_pv_msr_read(r.v, TIME, &value) && value == 0);
        ck_assert(kvm_pv_msr_read(r.v, STEAL, &value) && value == 0);
        uint64_t version = rig_peek(&r, PAGE, 8);
        kvm_pv_leave(r.v);
        kvm_pv_enter(r.v);
        ck_assert_uint_eq(rig_peek(&r, PAGE, 8), version);
    }
}
END_TEST

START_TEST(saved_and_loaded_vcpu_goes_on_writing)
{
    char path[] = "/tmp/umbra-kvm-XXXXXX", why[200];
    close(mkstemp(path));
    wrmsr(STEAL, PAGE | 1);
    wrmsr(TIME, (PAGE + 0x40) | 1);
    vcpu_descheduled(r.v);
    struct snap_writer *w = snap_writer_open(path, why, sizeof why);
    vcpu_save(r.v, w);
    ck_assert_int_eq(snap_writer_close(w, why, sizeof why), 0);
    kvm_pv_reset(r.v);
    clock_skip_to(&r.clock, clock_now(&r.clock) + 70);
    struct snap_reader *in = snap_reader_open(path, why, sizeof why);
    uint64_t version = rig_peek(&r, PAGE + 8, 4), time_version = rig_peek(&r, PAGE + 0x40, 4);
    vcpu_load(r.v, in);
    ck_assert_ptr_null(snap_reader_error(in));
    snap_reader_close(in);
    unlink(path);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 8, 4), version); /* loading writes nothing */
    kvm_pv_enter(r.v);
    ck_assert_uint_eq(rig_peek(&r, PAGE, 8), 70);
    ck_assert_uint_eq(rig_peek(&r, PAGE + 0x40, 4), time_version + 2);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        leaves_say_kvm_and_only_what_is_there,
        base_model_has_nothing_of_it,
        system_time_is_the_virtual_clock_whatever_the_tsc_is_set_to,
        wall_clock_is_the_base_at_time_zero,
        bad_places_are_survived_and_bad_bits_are_faults,
        steal_time_is_the_time_that_others_ran_while_this_one_could,
        time_that_a_vcpu_slept_is_not_stolen_but_its_waiting_after_the_wake_is,
        vcpu_that_is_alone_has_nothing_stolen,
        what_the_host_does_to_the_page_does_not_show,
        reset_and_init_switch_both_off,
        saved_and_loaded_vcpu_goes_on_writing,
    };
    Suite *s = suite_create("cpu: kvmclock and steal time");
    TCase *t = tcase_create("kvm");
    tcase_add_checked_fixture(t, setup, teardown);
    for (size_t k = 0; k < ARRAY_LEN(tests); k++)
        tcase_add_test(t, tests[k]);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
