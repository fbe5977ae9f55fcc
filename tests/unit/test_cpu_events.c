/*
 * What wakes and what stops a processor at a boundary, and stores that reach the block that is running by way of the
 * MMU.
 */
#include "cpu/breakpoint.h"
#include "cpu_rig.h"

static void code_put(struct cpu_rig *r, gpa_t at, const char *bytes, size_t n)
{
    mem_access(r->mem, 0, at, (void *)(uintptr_t)bytes, n, MEM_HOST_POKE, true, BUS_NO_CPU);
}
#define code(r, at, bytes) code_put((r), (at), bytes, sizeof(bytes) - 1)

static void pulse(struct vcpu *v, enum cpu_pin pin)
{
    struct irq_line line = vcpu_pin(v, pin);
    irq_set(&line, true);
}

static int no_vector(void *ctx)
{
    (void)ctx;
    return -1;
}

static uint8_t sipi_page(void *ctx)
{
    (void)ctx;
    return 0x21;
}

static const struct cpu_intc intc = {.ack = no_vector, .sipi_vector = sipi_page};

START_TEST(an_nmi_that_is_blocked_does_not_wake_a_halted_processor)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    pulse(r.v, CPU_PIN_NMI);
    code(&r, RIG_CODE, "\x90");
    for (unsigned k = 0; k < 4; k++) /* the handler is a HLT */
        vcpu_run(r.v, 10);
    ck_assert_uint_eq(r.v->rip, RIG_HANDLERS + 16 * EXC_NMI + 1);
    ck_assert_int_eq(r.v->activity, VCPU_HALTED);
    pulse(r.v, CPU_PIN_NMI);
    ck_assert(!vcpu_has_wakeup(r.v));
    rig_close(&r);
}
END_TEST

/* SDM volume 3, 6.7.1. The fault comes first, then the NMI in front of its handler. */
START_TEST(an_iret_that_faults_ends_the_blocking_of_nmi)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->nmi_blocked = true;
    pulse(r.v, CPU_PIN_NMI);
    code(&r, RIG_CODE, "\x90\x48\xcf"); /* NOP, IRETQ to a null CS */
    vcpu_run(r.v, 1);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 1);
    vcpu_run(r.v, 1);
    rig_expect_fault64(&r, EXC_GP, 0);
    vcpu_run(r.v, 1);
    rig_expect_vector(&r, EXC_NMI);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_HANDLERS + 16 * EXC_GP);
    ck_assert(r.v->nmi_blocked);
    rig_close(&r);
}
END_TEST

START_TEST(a_data_breakpoint_held_back_by_mov_ss_is_delivered_after_hlt)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_DATA, SEL_DATA0, 2);
    r.v->gpr[REG_RBX] = RIG_DATA;
    r.v->dr[0] = RIG_DATA;
    r.v->dr[7] = 0x400 | 1 | 3 << 16; /* one byte, reads too */
    breakpoints_update(r.v);
    code(&r, RIG_CODE, "\x8e\x13\xf4"); /* MOV SS, [RBX]; HLT */
    for (unsigned k = 0; k < 6 && r.v->rip != RIG_HANDLERS + 16 * EXC_DB; k++)
        vcpu_run(r.v, 1);
    rig_expect_vector(&r, EXC_DB);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_CODE + 3);
    rig_close(&r);
}
END_TEST

START_TEST(a_sipi_that_follows_an_init_at_once_starts_the_processor)
{
    struct cpu_rig r;
    rig_open(&r);
    r.v->index = 1;
    vcpu_reset(r.v, false);
    vcpu_set_intc(r.v, &intc);
    pulse(r.v, CPU_PIN_INIT);
    pulse(r.v, CPU_PIN_SIPI);
    vcpu_run(r.v, 0);
    ck_assert_int_eq(r.v->activity, VCPU_RUNNING);
    ck_assert_uint_eq(r.v->seg[SEG_CS].base, 0x21000);
    ck_assert_uint_eq(r.v->rip, 0);
    rig_close(&r);
}
END_TEST

static uint8_t next_page(void *ctx)
{
    (void)ctx;
    return 0x55;
}

START_TEST(of_two_sipis_the_first_counts)
{
    static const struct cpu_intc later = {.ack = no_vector, .sipi_vector = next_page};
    struct cpu_rig r;
    rig_open(&r);
    r.v->index = 1;
    vcpu_reset(r.v, false);
    vcpu_set_intc(r.v, &intc);
    pulse(r.v, CPU_PIN_SIPI);
    vcpu_set_intc(r.v, &later);
    pulse(r.v, CPU_PIN_SIPI);
    vcpu_run(r.v, 0);
    ck_assert_uint_eq(r.v->seg[SEG_CS].base, 0x21000);
    rig_close(&r);
}
END_TEST

/* A stop that was asked for at the same boundary does not hide it. */
START_TEST(what_gives_up_a_turn_is_told_whatever_ends_the_run)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    code(&r, RIG_CODE, "\x90\xf3\x90\xf4"); /* NOP; PAUSE; HLT */
    vcpu_run(r.v, 1);
    ck_assert(!r.v->turn_over);
    vcpu_end_turn(r.v);
    vcpu_request_stop(r.v);
    ck_assert_int_eq(vcpu_run(r.v, 1000), VCPU_EXIT_STOP);
    ck_assert(r.v->turn_over);
    ck_assert_int_eq(vcpu_run(r.v, 1000), VCPU_EXIT_TURN);
    ck_assert(r.v->turn_over);
    ck_assert_int_eq(vcpu_run(r.v, 1000), VCPU_EXIT_IDLE);
    ck_assert(r.v->turn_over);
    rig_close(&r);
}
END_TEST

START_TEST(a_sipi_before_an_init_is_forgotten)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->index = 1;
    vcpu_set_intc(r.v, &intc);
    pulse(r.v, CPU_PIN_SIPI);
    pulse(r.v, CPU_PIN_INIT);
    vcpu_run(r.v, 0);
    ck_assert_int_eq(r.v->activity, VCPU_WAIT_SIPI);
    ck_assert(!vcpu_has_wakeup(r.v));
    rig_close(&r);
}
END_TEST

/* The page table is code, too: the entry of RIG_DATA is the immediate of an instruction of the block that sets its A
 * bit. */
static uint64_t eax_after(unsigned units)
{
    struct cpu_rig r;
    const gpa_t entry = RIG_PT + 8 * (RIG_DATA >> 12);
    rig_open(&r);
    rig_long(&r);
    code(&r, entry - 5, "\x90\x8a\x0b\x90\xb8"); /* NOP; MOV CL, [RBX]; NOP; MOV EAX, imm32 */
    r.v->gpr[REG_RBX] = RIG_DATA;
    r.v->rip = entry - 5;
    vcpu_run(r.v, 1); /* the attention that a reset asks for is over after this */
    while (r.clock.icount < 4)
        vcpu_run(r.v, units);
    uint64_t eax = r.v->gpr[REG_RAX];
    rig_close(&r);
    return eax;
}

START_TEST(an_accessed_bit_set_inside_the_running_block_is_seen_by_it)
{
    ck_assert_uint_eq(eax_after(1), RIG_DATA | 0x27);
    ck_assert_uint_eq(eax_after(3), RIG_DATA | 0x27);
}
END_TEST

/* REP STOSB of `count` bytes, interrupted by an NMI after `units` of them; returns the flags image. */
static uint64_t flags_of_interrupted_rep(struct cpu_rig *r, uint64_t count, uint64_t units)
{
    rig_long(r);
    code(r, RIG_CODE, "\xf3\xaa\xf4"); /* REP STOSB; HLT */
    code(r, RIG_HANDLERS + 16 * EXC_NMI, "\x48\xcf");
    r->v->gpr[REG_RAX] = 0x5a;
    r->v->gpr[REG_RCX] = count;
    r->v->gpr[REG_RDI] = RIG_DATA;
    uint64_t end = r->clock.icount + units;
    while (r->clock.icount < end)
        vcpu_run(r->v, end - r->clock.icount);
    pulse(r->v, CPU_PIN_NMI);
    vcpu_run(r->v, 1);
    rig_expect_vector(r, EXC_NMI);
    ck_assert_uint_eq(rig_slot64(r, 0), RIG_CODE + (units < count ? 0 : 2));
    return rig_slot64(r, 2);
}

START_TEST(an_interrupt_between_iterations_pushes_rf_and_iret_goes_on)
{
    struct cpu_rig r;
    rig_open(&r);
    ck_assert_uint_eq(flags_of_interrupted_rep(&r, 100, 3), FLAG_RF | 2);
    ck_assert(!(r.v->rflags & FLAG_RF));
    for (unsigned k = 0; k < 20 && r.v->activity != VCPU_HALTED; k++)
        vcpu_run(r.v, 1000);
    ck_assert_int_eq(r.v->activity, VCPU_HALTED);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 3);
    ck_assert_uint_eq(r.v->gpr[REG_RDI], RIG_DATA + 100);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 92, 8), 0x5a5a5a5a5a5a5a5a);
    ck_assert(!(r.v->rflags & FLAG_RF));
    rig_close(&r);
}
END_TEST

START_TEST(an_interrupt_after_the_last_iteration_pushes_rf_clear)
{
    struct cpu_rig r;
    rig_open(&r);
    ck_assert_uint_eq(flags_of_interrupted_rep(&r, 3, 3), 2);
    rig_close(&r);
}
END_TEST

START_TEST(a_rep_that_goes_on_needs_one_run_not_one_for_each_iteration)
{
    struct cpu_rig r;
    rig_open(&r);
    flags_of_interrupted_rep(&r, 1000, 3);
    vcpu_run(r.v, 1); /* IRETQ */
    ck_assert(r.v->rflags & FLAG_RF);
    vcpu_run(r.v, 100000);
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 0);
    rig_close(&r);
}
END_TEST

START_TEST(a_breakpoint_at_a_rep_is_met_once)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    code(&r, RIG_CODE, "\xf3\xaa\xf4");
    /* OR DWORD PTR [RSP + 16], RF; IRETQ */
    code(&r, RIG_HANDLERS + 16 * EXC_DB, "\x81\x4c\x24\x10\x00\x00\x01\x00\x48\xcf");
    r.v->gpr[REG_RCX] = 5;
    r.v->gpr[REG_RDI] = RIG_DATA;
    r.v->dr[0] = RIG_CODE;
    r.v->dr[7] = 0x400 | 2;
    breakpoints_update(r.v);
    for (unsigned k = 0; k < 50 && r.v->activity != VCPU_HALTED; k++)
        vcpu_run(r.v, 10);
    ck_assert_int_eq(r.v->activity, VCPU_HALTED);
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 0);
    ck_assert_uint_eq(r.v->history_count, 1);
    rig_close(&r);
}
END_TEST

/* The first INT3 leaves the table in the TLB, which the second must not use. */
START_TEST(a_data_breakpoint_in_the_idt_is_met_by_a_delivery)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    code(&r, RIG_CODE, "\xcc");
    vcpu_run(r.v, 1);
    rig_expect_vector(&r, EXC_BP);
    r.v->dr[1] = RIG_IDT + 16 * EXC_BP + 4;
    r.v->dr[7] = 0x400 | 4 | 0xfu << 20; /* four bytes, reads too */
    breakpoints_update(r.v);
    r.v->rip = RIG_CODE;
    vcpu_run(r.v, 1);
    rig_expect_vector(&r, EXC_BP);
    ck_assert_uint_eq(r.v->pending_dbg, 2);
    vcpu_run(r.v, 1);
    rig_expect_vector(&r, EXC_DB);
    ck_assert_uint_eq(r.v->dr[6] & 15, 2);
    rig_close(&r);
}
END_TEST

static Suite *events_suite(void)
{
    const TTest *const tests[] = {an_nmi_that_is_blocked_does_not_wake_a_halted_processor,
                                  an_iret_that_faults_ends_the_blocking_of_nmi,
                                  a_data_breakpoint_held_back_by_mov_ss_is_delivered_after_hlt,
                                  a_sipi_that_follows_an_init_at_once_starts_the_processor,
                                  of_two_sipis_the_first_counts,
                                  what_gives_up_a_turn_is_told_whatever_ends_the_run,
                                  a_sipi_before_an_init_is_forgotten,
                                  an_accessed_bit_set_inside_the_running_block_is_seen_by_it,
                                  an_interrupt_between_iterations_pushes_rf_and_iret_goes_on,
                                  an_interrupt_after_the_last_iteration_pushes_rf_clear,
                                  a_rep_that_goes_on_needs_one_run_not_one_for_each_iteration,
                                  a_breakpoint_at_a_rep_is_met_once,
                                  a_data_breakpoint_in_the_idt_is_met_by_a_delivery};
    return rig_suite("events", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(events_suite)
