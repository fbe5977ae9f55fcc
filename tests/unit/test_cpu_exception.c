/*
 * Delivery of exceptions and interrupts: frames, stacks, error codes, double and triple faults, in all modes.
 */
#include "cpu_rig.h"

/* ---- long mode ---- */

START_TEST(long_mode_frame_is_aligned_and_has_the_error_code_on_top)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->gpr[REG_RSP] = RIG_STACK - 5;
    r.v->rflags |= FLAG_IF;
    rig_exec(&r, "\x8e\xd8"); /* MOV DS, AX with a selector beyond the table */
    ck_assert_uint_eq(r.v->seg[SEG_DS].sel, 0);
    r.v->rip = RIG_CODE;
    r.v->gpr[REG_RAX] = 0x1233;
    rig_exec(&r, "\x8e\xd8");
    rig_expect_fault64(&r, EXC_GP, 0x1230);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], ((RIG_STACK - 5) & ~0xf) - 48);
    ck_assert_uint_eq(rig_slot64(&r, 1), RIG_CODE);
    ck_assert_uint_eq(rig_slot64(&r, 2), SEL_CODE0);
    ck_assert_uint_eq(rig_slot64(&r, 3), FLAG_RF | FLAG_IF | 2);
    ck_assert_uint_eq(rig_slot64(&r, 4), RIG_STACK - 5);
    ck_assert_uint_eq(rig_slot64(&r, 5), SEL_DATA0);
    ck_assert_uint_eq(r.v->rflags, 2);
    rig_close(&r);
}
END_TEST

START_TEST(event_from_user_mode_switches_to_rsp0_and_a_null_ss)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    rig_expect_vector(&r, 0x40);
    ck_assert_uint_eq(r.v->cpl, 0);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, 0);
    ck_assert(r.v->seg[SEG_SS].unusable);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_RSP0 - 40);
    ck_assert_uint_eq(rig_slot64(&r, 1), SEL_CODE3 | 3);
    ck_assert_uint_eq(rig_slot64(&r, 3), RIG_STACK);
    ck_assert_uint_eq(rig_slot64(&r, 4), SEL_DATA3 | 3);
    ck_assert_uint_eq(r.clock.icount, 1);
    rig_close(&r);
}
END_TEST

START_TEST(an_ist_entry_replaces_the_stack_without_a_privilege_change)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, 0x40, 0x8e, 1);
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_IST1 - 40);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, SEL_DATA0);
    rig_close(&r);
}
END_TEST

START_TEST(a_trap_gate_keeps_if_and_both_clear_tf_and_nt)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, 0x40, 0x8f, 0);
    r.v->rflags |= FLAG_IF | FLAG_TF | FLAG_NT;
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    ck_assert_uint_eq(r.v->rflags, 2 | FLAG_IF);
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x41, false, 0);
    ck_assert_uint_eq(r.v->rflags, 2);
    rig_close(&r);
}
END_TEST

START_TEST(a_page_fault_sets_cr2_and_can_be_restarted)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_PT + 8 * 0x50, 0x50000, 8);
    r.v->gpr[REG_RBX] = 0x50ff8;
    r.v->gpr[REG_RAX] = 0x1122334455667788;
    rig_exec(&r, "\x48\x89\x03"); /* MOV [RBX], RAX */
    rig_expect_fault64(&r, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(r.v->cr2, 0x50ff8);
    rig_poke(&r, RIG_PT + 8 * 0x50, 0x50007, 8);
    r.v->gpr[REG_RSP] += 8;
    rig_exec(&r, "\x48\xcf"); /* IRETQ */
    ck_assert_uint_eq(r.v->rip, RIG_CODE);
    vcpu_run(r.v, 1);
    ck_assert_uint_eq(rig_peek(&r, 0x50ff8, 8), 0x1122334455667788);
    rig_close(&r);
}
END_TEST

/* ---- software interrupts ---- */

START_TEST(int_n_needs_a_gate_that_the_program_may_use)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    rig_exec(&r, "\xcd\x80");
    rig_expect_fault64(&r, EXC_GP, 0x80 * 8 + 2); /* no EXT */
    ck_assert_uint_eq(rig_slot64(&r, 1), RIG_CODE);
    rig_user(&r);
    rig_gate64(&r, 0x80, 0xee, 0);
    uint64_t before = r.clock.icount;
    rig_exec(&r, "\xcd\x80");
    rig_expect_vector(&r, 0x80);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_CODE + 2);
    ck_assert_uint_eq(rig_slot64(&r, 2), 2); /* no RF */
    ck_assert_uint_eq(r.clock.icount, before + 2);
    rig_close(&r);
}
END_TEST

START_TEST(an_external_interrupt_ignores_the_gates_dpl)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x80, false, 0);
    rig_expect_vector(&r, 0x80);
    rig_close(&r);
}
END_TEST

/* ---- faults on the way ---- */

START_TEST(a_benign_event_gives_way_to_the_fault_met_in_its_delivery)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, EXC_UD, 0x0e, 0); /* not present */
    rig_exec(&r, "\x0f\x0b");
    rig_expect_fault64(&r, EXC_NP, EXC_UD * 8 + 2 + 1);
    ck_assert_uint_eq(rig_slot64(&r, 1), RIG_CODE);
    rig_close(&r);
}
END_TEST

START_TEST(two_contributory_exceptions_make_a_double_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, EXC_GP, 0x0e, 0);
    vcpu_deliver(r.v, EVENT_EXCEPTION, EXC_GP, true, 0);
    rig_expect_fault64(&r, EXC_DF, 0);
    ck_assert_uint_eq(rig_slot64(&r, 1), RIG_CODE);
    rig_close(&r);
}
END_TEST

START_TEST(a_page_fault_that_cannot_be_delivered_makes_a_double_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, EXC_PF, 0x0e, 0);
    rig_poke(&r, RIG_PT + 8 * 0x50, 0, 8);
    r.v->gpr[REG_RBX] = 0x50000;
    rig_exec(&r, "\x8b\x03"); /* MOV EAX, [RBX] */
    rig_expect_fault64(&r, EXC_DF, 0);
    ck_assert_uint_eq(r.v->cr2, 0x50000);
    ck_assert_uint_eq(r.v->history_count, 3);
    ck_assert_uint_eq(r.v->history[0].vector, EXC_PF);
    ck_assert_uint_eq(r.v->history[1].vector, EXC_NP);
    ck_assert_uint_eq(r.v->history[2].vector, EXC_DF);
    rig_close(&r);
}
END_TEST

START_TEST(a_contributory_exception_then_a_page_fault_are_handled_in_turn)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, EXC_PF, 0x8e, 1);
    rig_poke(&r, RIG_PT + 8 * 0x60, 0, 8);
    r.v->gpr[REG_RSP] = 0x60800; /* no stack for the #GP */
    vcpu_deliver(r.v, EVENT_EXCEPTION, EXC_GP, true, 0);
    rig_expect_fault64(&r, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(r.v->cr2, 0x60800 - 48);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_IST1 - 48);
    rig_close(&r);
}
END_TEST

START_TEST(a_stack_that_is_not_canonical_is_a_stack_fault_then_a_double_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gate64(&r, EXC_DF, 0x8e, 1);
    r.v->gpr[REG_RSP] = 0x8000000000000000;
    rig_exec(&r, "\x0f\x0b");
    rig_expect_fault64(&r, EXC_DF, 0);
    ck_assert_uint_eq(r.v->history[1].vector, EXC_SS);
    ck_assert_uint_eq(rig_slot64(&r, 4), 0x8000000000000000);
    rig_close(&r);
}
END_TEST

START_TEST(a_triple_fault_shuts_down_and_names_the_first_exception)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->idtr.limit = 0;
    rig_poke(&r, RIG_PT + 8 * 0x50, 0, 8);
    r.v->gpr[REG_RBX] = 0x50123;
    uint64_t before = r.clock.icount;
    rig_exec(&r, "\x8a\x03");
    ck_assert_int_eq(r.v->activity, VCPU_SHUTDOWN);
    ck_assert_int_eq(vcpu_run(r.v, 10), VCPU_EXIT_SHUTDOWN);
    ck_assert_uint_eq(r.v->triple.vector, EXC_PF);
    ck_assert_uint_eq(r.v->triple.cr2, 0x50123);
    ck_assert_uint_eq(r.v->triple.rip, RIG_CODE);
    ck_assert_uint_eq(r.clock.icount, before);
    ck_assert_uint_eq(r.v->rip, RIG_CODE);
    rig_close(&r);
}
END_TEST

START_TEST(a_failed_delivery_leaves_no_trace)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    rig_gate64(&r, EXC_DF, 0x8e, 1);
    rig_poke(&r, RIG_TSS + 4, 0x70008, 8); /* the frame crosses into 0x6f000, which is absent */
    rig_poke(&r, RIG_PT + 8 * 0x6f, 0, 8);
    rig_poke(&r, 0x70000, 0x5555, 8);
    vcpu_deliver(r.v, EVENT_EXCEPTION, EXC_PF, true, 0);
    rig_expect_fault64(&r, EXC_DF, 0);
    ck_assert_uint_eq(rig_peek(&r, 0x70000, 8), 0x5555);
    ck_assert_uint_eq(rig_slot64(&r, 2), SEL_CODE3 | 3);
    ck_assert_uint_eq(rig_slot64(&r, 4), RIG_STACK);
    rig_close(&r);
}
END_TEST

START_TEST(a_handler_in_code_that_is_not_64_bit_is_a_protection_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_IDT + 16 * 0x40 + 2, SEL_CODE32_0, 2);
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    rig_expect_fault64(&r, EXC_GP, SEL_CODE32_0 | 1);
    rig_close(&r);
}
END_TEST

/* ---- 32-bit protected mode ---- */

START_TEST(protected_mode_frame_to_an_inner_level_has_the_old_stack)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_user(&r);
    vcpu_deliver(r.v, EVENT_EXCEPTION, EXC_GP, true, 0x1234);
    rig_expect_fault32(&r, EXC_GP, 0x1234);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_RSP0 - 24);
    ck_assert_uint_eq(rig_slot32(&r, 1), RIG_CODE);
    ck_assert_uint_eq(rig_slot32(&r, 2), SEL_CODE3 | 3);
    ck_assert_uint_eq(rig_slot32(&r, 3), FLAG_RF | 2);
    ck_assert_uint_eq(rig_slot32(&r, 4), RIG_STACK);
    ck_assert_uint_eq(rig_slot32(&r, 5), SEL_DATA3 | 3);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, SEL_DATA0);
    ck_assert_uint_eq(r.v->cpl, 0);
    rig_close(&r);
}
END_TEST

START_TEST(a_bad_stack_in_the_tss_is_an_invalid_tss_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_user(&r);
    rig_poke(&r, RIG_TSS + 8, SEL_DATA3 | 3, 2);
    rig_poke(&r, RIG_IDT + 8 * EXC_TS + 2, SEL_CODE3, 2); /* a handler that stays at CPL 3 */
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    rig_expect_fault32(&r, EXC_TS, SEL_DATA3 | 1);
    ck_assert_uint_eq(r.v->cpl, 3);
    rig_close(&r);
}
END_TEST

START_TEST(a_16_bit_gate_pushes_words)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_poke(&r, RIG_IDT + 8 * 0x40, 0x1230 | SEL_CODE0 << 16 | 0x86ull << 40 | 0xffffull << 48, 8);
    r.v->rip = 0x12345;
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    ck_assert_uint_eq(r.v->rip, 0x1230);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_STACK - 6);
    ck_assert_uint_eq(rig_peek(&r, RIG_STACK - 6, 2), 0x2345);
    rig_close(&r);
}
END_TEST

START_TEST(a_task_gate_that_names_no_tss_is_a_protection_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_poke(&r, RIG_IDT + 8 * 0x40 + 5, 0x85, 1);
    vcpu_deliver(r.v, EVENT_INTERRUPT, 0x40, false, 0);
    rig_expect_fault32(&r, EXC_GP, SEL_CODE32_0 + 1);
    rig_close(&r);
}
END_TEST

/* ---- real mode ---- */

START_TEST(real_mode_pushes_three_words_and_goes_through_the_vector_table)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_real(&r);
    rig_poke(&r, 4 * 0x21, 0x20000345, 4);
    r.v->rflags |= FLAG_IF;
    rig_exec(&r, "\xcd\x21");
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, 0x2000);
    ck_assert_uint_eq(r.v->seg_base[SEG_CS], 0x20000);
    ck_assert_uint_eq(r.v->rip, 0x345);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], 0x8000 - 6);
    ck_assert_uint_eq(rig_peek(&r, 0x8000 - 6, 2), 2);
    ck_assert_uint_eq(rig_peek(&r, 0x8000 - 4, 2), 0x1000);
    ck_assert_uint_eq(rig_peek(&r, 0x8000 - 2, 2), FLAG_IF | 2);
    ck_assert_uint_eq(r.v->rflags, 2);
    rig_exec(&r, "\xcf");
    ck_assert_uint_eq(r.v->rip, 2);
    ck_assert_uint_eq(r.v->seg_base[SEG_CS], 0x10000);
    ck_assert_uint_eq(r.v->rflags, FLAG_IF | 2);
    rig_close(&r);
}
END_TEST

START_TEST(real_mode_without_a_vector_table_shuts_down)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_real(&r);
    r.v->idtr.limit = 0;
    rig_exec(&r, "\xcd\x21");
    ck_assert_int_eq(r.v->activity, VCPU_SHUTDOWN);
    rig_close(&r);
}
END_TEST

/* ---- debug traps ---- */

START_TEST(with_tf_each_instruction_is_followed_by_a_trap)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->rflags |= FLAG_TF;
    rig_exec(&r, "\x90");
    rig_expect_vector(&r, EXC_DB);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_CODE + 1);
    ck_assert_uint_eq(rig_slot64(&r, 2), FLAG_TF | 2);
    ck_assert_uint_eq(r.v->dr[6], 0xffff4ff0);
    ck_assert_uint_eq(r.clock.icount, 2);
    rig_close(&r);
}
END_TEST

START_TEST(int_n_is_not_followed_by_a_single_step_trap)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->rflags |= FLAG_TF;
    rig_exec(&r, "\xcd\x40");
    rig_expect_vector(&r, 0x40);
    vcpu_run(r.v, 1);
    ck_assert_int_eq(r.v->activity, VCPU_HALTED); /* its HLT */
    rig_close(&r);
}
END_TEST

START_TEST(gd_guards_the_debug_registers)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->dr[7] |= 1u << 13;
    rig_exec(&r, "\x0f\x21\xc0"); /* MOV RAX, DR0 */
    rig_expect_vector(&r, EXC_DB);
    ck_assert_uint_eq(r.v->dr[6], 0xffff2ff0);
    ck_assert_uint_eq(r.v->dr[7], 0x400);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_CODE);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        long_mode_frame_is_aligned_and_has_the_error_code_on_top,
        event_from_user_mode_switches_to_rsp0_and_a_null_ss,
        an_ist_entry_replaces_the_stack_without_a_privilege_change,
        a_trap_gate_keeps_if_and_both_clear_tf_and_nt,
        a_page_fault_sets_cr2_and_can_be_restarted,
        int_n_needs_a_gate_that_the_program_may_use,
        an_external_interrupt_ignores_the_gates_dpl,
        a_benign_event_gives_way_to_the_fault_met_in_its_delivery,
        two_contributory_exceptions_make_a_double_fault,
        a_page_fault_that_cannot_be_delivered_makes_a_double_fault,
        a_contributory_exception_then_a_page_fault_are_handled_in_turn,
        a_stack_that_is_not_canonical_is_a_stack_fault_then_a_double_fault,
        a_triple_fault_shuts_down_and_names_the_first_exception,
        a_failed_delivery_leaves_no_trace,
        a_handler_in_code_that_is_not_64_bit_is_a_protection_fault,
        protected_mode_frame_to_an_inner_level_has_the_old_stack,
        a_bad_stack_in_the_tss_is_an_invalid_tss_fault,
        a_16_bit_gate_pushes_words,
        a_task_gate_that_names_no_tss_is_a_protection_fault,
        real_mode_pushes_three_words_and_goes_through_the_vector_table,
        real_mode_without_a_vector_table_shuts_down,
        with_tf_each_instruction_is_followed_by_a_trap,
        int_n_is_not_followed_by_a_single_step_trap,
        gd_guards_the_debug_registers,
    };
    return rig_suite("exception", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
