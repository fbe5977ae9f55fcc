/* PCID and INVPCID as instructions, canonical widths, MONITOR and MWAIT. */
#include "core/snapshot.h"
#include "cpu_rig.h"

#include <unistd.h>

static struct cpu_rig r;

static void setup(void)
{
    rig_open_model(&r, "base,+pcid,+invpcid,+monitor,+la57");
    rig_long(&r);
}

#define INVPCID_RAX_RBX "\x66\x0f\x38\x82\x03" /* invpcid rax, [rbx] */
#define MOV_CR3_RAX     "\x0f\x22\xd8"
#define MOV_CR4_RAX     "\x0f\x22\xe0"
#define MONITOR         "\x0f\x01\xc8"
#define MWAIT           "\x0f\x01\xc9"

static void invpcid(uint64_t type, uint64_t low, uint64_t high)
{
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RAX] = type;
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_poke(&r, RIG_DATA, low, 8);
    rig_poke(&r, RIG_DATA + 8, high, 8);
    rig_exec(&r, INVPCID_RAX_RBX);
}

START_TEST(invpcid_refuses_bad_types_descriptors_and_levels)
{
    setup();
    for (unsigned type = 0; type < 4; type++) {
        invpcid(type, 0, 0x1000);
        ck_assert_uint_eq(r.v->rip, RIG_CODE + 5);
    }
    static const uint64_t bad[][3] = {{4, 0, 0},          {1ull << 32, 0, 0}, {1, 0x1000, 0},
                                      {2, 1ull << 63, 0}, {0, 1, 0},          {0, 0, 1ull << 50}};
    for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
        invpcid(bad[k][0], bad[k][1], bad[k][2]);
        rig_expect_fault64(&r, EXC_GP, 0);
    }
    r.v->cr4 |= CR4_PCIDE;
    invpcid(0, 1, 0);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 5);
    rig_user(&r);
    rig_exec(&r, INVPCID_RAX_RBX);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(cr3_bit_63_is_taken_with_pcide_and_not_kept)
{
    setup();
    r.v->gpr[REG_RAX] = RIG_PML4 | 1ull << 63;
    rig_exec(&r, MOV_CR3_RAX);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RAX] = CR4_PAE | CR4_PCIDE;
    rig_exec(&r, MOV_CR4_RAX);
    ck_assert_uint_eq(r.v->cr4, CR4_PAE | CR4_PCIDE);
    r.v->gpr[REG_RAX] = RIG_PML4 | 0x123 | 1ull << 63;
    rig_exec(&r, MOV_CR3_RAX);
    ck_assert_uint_eq(r.v->cr3, RIG_PML4 | 0x123);
    r.v->gpr[REG_RAX] = CR4_PAE;
    rig_exec(&r, MOV_CR4_RAX);
    r.v->gpr[REG_RAX] = CR4_PAE | CR4_PCIDE; /* with a PCID in CR3 already */
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, MOV_CR4_RAX);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(bases_are_as_wide_as_the_processor_can_have_them)
{
    setup();
    r.v->gpr[REG_RCX] = 0xc0000101; /* GS base: 57 bits, though CR4.LA57 is clear */
    r.v->gpr[REG_RAX] = 0;
    r.v->gpr[REG_RDX] = 0x00400000;
    rig_exec(&r, "\x0f\x30");
    ck_assert_uint_eq(r.v->seg[SEG_GS].base, 0x0040000000000000);
    rig_exec(&r, "\x65\x8a\x00"); /* mov al, gs:[rax]: 48 bits */
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

static void wait_on(uint64_t at, uint64_t extensions)
{
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RAX] = at;
    r.v->gpr[REG_RCX] = r.v->gpr[REG_RDX] = 0;
    rig_exec(&r, MONITOR);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 3);
    r.v->gpr[REG_RCX] = extensions;
    rig_exec(&r, MWAIT);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 6);
}

START_TEST(mwait_waits_for_a_write_to_the_line)
{
    setup();
    wait_on(RIG_DATA + 0x45, 0);
    ck_assert_uint_eq(r.v->activity, VCPU_HALTED);
    uint64_t x = 1;
    mem_access(r.mem, 0, RIG_DATA + 0x3f, &x, 1, MEM_DMA, true, BUS_NO_CPU);
    mem_access(r.mem, 0, RIG_DATA + 0x80, &x, 8, MEM_DMA, true, BUS_NO_CPU);
    ck_assert(!vcpu_has_wakeup(r.v));
    mem_access(r.mem, 0, RIG_DATA + 0x3e, &x, 4, MEM_DMA, true, BUS_NO_CPU);
    ck_assert(vcpu_has_wakeup(r.v));
    rig_exec(&r, "\x90");
    ck_assert_uint_eq(r.v->activity, VCPU_RUNNING);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 7);
    ck_assert(!track_is_tracked(r.mem, 0, RIG_DATA >> PAGE_SHIFT));
    rig_close(&r);
}
END_TEST

/* A machine's memory is loaded after its processors. */
START_TEST(wait_goes_on_in_a_machine_that_is_loaded)
{
    char err[200] = "", path[] = "umbra-wait-XXXXXX";
    int fd = mkstemp(path);
    uint64_t x = 1;
    setup();
    wait_on(RIG_DATA, 0);
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    vcpu_save(r.v, w);
    ck_assert(!snap_writer_close(w, err, sizeof err));
    struct snap_reader *in = snap_reader_open(path, err, sizeof err);
    ck_assert_msg(in != NULL, "%s", err);
    vcpu_load(r.v, in);
    rig_poke(&r, RIG_DATA, 0, 8);
    vcpu_refresh(r.v);
    ck_assert(!vcpu_has_wakeup(r.v));
    mem_access(r.mem, 0, RIG_DATA, &x, 1, MEM_DMA, true, BUS_NO_CPU);
    ck_assert(vcpu_has_wakeup(r.v));
    snap_reader_close(in);
    close(fd);
    remove(path);
    rig_close(&r);
}
END_TEST

START_TEST(mwait_without_monitor_or_after_a_write_does_not_wait)
{
    setup();
    rig_exec(&r, MWAIT);
    ck_assert_uint_eq(r.v->activity, VCPU_RUNNING);
    r.v->gpr[REG_RAX] = RIG_DATA;
    rig_exec(&r, MONITOR);
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x88\x03");
    rig_exec(&r, MWAIT);
    ck_assert_uint_eq(r.v->activity, VCPU_RUNNING);
    rig_close(&r);
}
END_TEST

START_TEST(masked_interrupt_ends_the_wait_only_if_asked_for)
{
    for (unsigned asked = 0; asked < 2; asked++) {
        setup();
        wait_on(RIG_DATA, asked);
        struct irq_line intr = vcpu_pin(r.v, CPU_PIN_INTR);
        irq_set(&intr, true);
        ck_assert_int_eq(vcpu_has_wakeup(r.v), asked);
        rig_exec(&r, "\x90");
        ck_assert_uint_eq(r.v->activity, asked ? VCPU_RUNNING : VCPU_HALTED);
        rig_close(&r);
    }
}
END_TEST

START_TEST(monitor_and_mwait_refuse_extensions_and_other_levels)
{
    setup();
    r.v->gpr[REG_RAX] = RIG_DATA;
    r.v->gpr[REG_RCX] = 1;
    rig_exec(&r, MONITOR);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_user(&r);
    rig_exec(&r, MONITOR);
    rig_expect_vector(&r, EXC_UD);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RCX] = 2;
    rig_exec(&r, MWAIT);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
    rig_open(&r);
    rig_long(&r);
    rig_exec(&r, MWAIT);
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        invpcid_refuses_bad_types_descriptors_and_levels, cr3_bit_63_is_taken_with_pcide_and_not_kept,
        bases_are_as_wide_as_the_processor_can_have_them, mwait_waits_for_a_write_to_the_line,
        wait_goes_on_in_a_machine_that_is_loaded,         mwait_without_monitor_or_after_a_write_does_not_wait,
        masked_interrupt_ends_the_wait_only_if_asked_for, monitor_and_mwait_refuse_extensions_and_other_levels};
    return rig_suite("wait", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
