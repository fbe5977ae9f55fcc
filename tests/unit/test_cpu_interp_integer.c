/*
 * What host_diff cannot show of integer, control-flow and string instructions: faults and what they leave behind, time,
 * privileges, and modes other than 64-bit.
 */
#include "cpu_rig.h"

static struct cpu_rig rig;

static uint64_t image(void)
{
    return vcpu_rflags(rig.v) & FLAGS_ARITH;
}

/* Unmaps the 4 KiB page at gva (rig_long() only), for a fresh #PF. */
static void unmap(uint64_t gva)
{
    rig_poke(&rig, RIG_PT + 8 * (gva >> 12), gva & ~0xfffull, 8);
}

static void open_long(void)
{
    rig_open(&rig);
    rig_long(&rig);
}

static void open_protected(void)
{
    rig_open(&rig);
    rig_protected(&rig);
}

static void open_real(void)
{
    rig_open(&rig);
    rig_real(&rig);
}

static void close_rig(void)
{
    rig_close(&rig);
}

/* ---- addresses ---- */

/* Some way into a block, so that what counts from its first byte exceeds 31 bits. */
START_TEST(rip_relative_operands_reach_the_last_bytes_of_2_gib)
{
    static const char code[] = "\x90\x90"
                               "\x48\x8d\x05\xfc\xff\xff\x7f"  /* lea rax, [rip + 0x7ffffffc] */
                               "\x67\x8d\x0d\xff\xff\xff\x7f"  /* lea ecx, [eip + 0x7fffffff] */
                               "\x48\x8b\x15\xff\xff\xff\x7f"; /* mov rdx, [rip + 0x7fffffff] */
    open_long();
    mem_access(rig.mem, 0, RIG_CODE, (void *)(uintptr_t)code, sizeof code, MEM_HOST_POKE, true, BUS_NO_CPU);
    vcpu_run(rig.v, 5);
    ck_assert_uint_eq(rig.v->gpr[REG_RAX], RIG_CODE + 9 + 0x7ffffffcull);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], RIG_CODE + 16 + 0x7fffffffull);
    rig_expect_vector(&rig, EXC_PF);
    ck_assert_uint_eq(rig.v->cr2, RIG_CODE + 23 + 0x7fffffffull);
    close_rig();
}
END_TEST

/* ---- faults leave no trace ---- */

START_TEST(division_by_zero_raises_de_and_changes_nothing)
{
    open_long();
    rig.v->gpr[REG_RAX] = 5;
    rig.v->gpr[REG_RDX] = 7;
    rig.v->gpr[REG_RBX] = 0;
    rig_exec(&rig, "\x48\xf7\xf3"); /* div rbx */
    rig_expect_vector(&rig, EXC_DE);
    ck_assert_uint_eq(rig_slot64(&rig, 0), RIG_CODE);
    ck_assert_uint_eq(rig.v->gpr[REG_RAX], 5);
    ck_assert_uint_eq(rig.v->gpr[REG_RDX], 7);
    close_rig();
}
END_TEST

START_TEST(quotient_that_does_not_fit_raises_de)
{
    open_long();
    rig.v->gpr[REG_RAX] = 0;
    rig.v->gpr[REG_RDX] = 1ull << 63;
    rig.v->gpr[REG_RBX] = ~0ull;
    rig_exec(&rig, "\x48\xf7\xfb"); /* idiv rbx: -2^127 / -1 */
    rig_expect_vector(&rig, EXC_DE);
    close_rig();
}
END_TEST

START_TEST(add_to_a_missing_page_reports_a_write_and_keeps_flags)
{
    open_long();
    unmap(RIG_DATA);
    vcpu_set_rflags(rig.v, FLAGS_ARITH | 2);
    rig.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&rig, "\x48\x01\x03"); /* add [rbx], rax */
    rig_expect_fault64(&rig, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(rig.v->cr2, RIG_DATA);
    ck_assert_uint_eq(image(), FLAGS_ARITH);
    close_rig();
}
END_TEST

START_TEST(push_to_a_missing_page_keeps_rsp)
{
    open_long();
    unmap(RIG_STACK - 0x1000); /* the stack pointer is at a page's beginning below */
    rig.v->gpr[REG_RSP] = RIG_STACK & ~0xfffull;
    rig_gate64(&rig, EXC_PF, 0x8e, 1);
    rig_exec(&rig, "\x50");
    rig_expect_vector(&rig, EXC_PF);
    ck_assert_uint_eq(rig_slot64(&rig, 4), RIG_STACK & ~0xfffull);
    close_rig();
}
END_TEST

START_TEST(push_beyond_the_canonical_range_raises_ss)
{
    open_long();
    rig_gate64(&rig, EXC_SS, 0x8e, 1);
    rig.v->gpr[REG_RSP] = 0xffff800000000000;
    rig_exec(&rig, "\x50");
    rig_expect_fault64(&rig, EXC_SS, 0);
    close_rig();
}
END_TEST

START_TEST(call_to_a_non_canonical_address_raises_gp_before_the_push)
{
    open_long();
    rig.v->gpr[REG_RAX] = 1ull << 47;
    rig_poke(&rig, RIG_STACK - 8, 0x1234, 8);
    rig_gate64(&rig, EXC_GP, 0x8e, 1);
    rig_exec(&rig, "\xff\xd0"); /* call rax */
    rig_expect_fault64(&rig, EXC_GP, 0);
    ck_assert_uint_eq(rig_slot64(&rig, 1), RIG_CODE);
    ck_assert_uint_eq(rig_slot64(&rig, 4), RIG_STACK);
    ck_assert_uint_eq(rig_peek(&rig, RIG_STACK - 8, 8), 0x1234);
    close_rig();
}
END_TEST

START_TEST(call_without_a_stack_faults_there_whatever_the_target)
{
    open_long();
    rig_poke(&rig, RIG_PT + 8 * (RIG_DATA >> 12), RIG_DATA | 5, 8);
    rig_gate64(&rig, EXC_PF, 0x8e, 1);
    rig.v->gpr[REG_RAX] = 1ull << 47;
    rig.v->gpr[REG_RSP] = RIG_DATA + 64;
    rig_exec(&rig, "\xff\xd0"); /* call rax */
    rig_expect_fault64(&rig, EXC_PF, 3);
    ck_assert_uint_eq(rig.v->cr2, RIG_DATA + 56);
    close_rig();
}
END_TEST

START_TEST(ret_to_a_non_canonical_address_raises_gp_and_keeps_rsp)
{
    open_long();
    rig_poke(&rig, RIG_STACK, 1ull << 62, 8);
    rig_exec(&rig, "\xc3");
    rig_expect_fault64(&rig, EXC_GP, 0);
    ck_assert_uint_eq(rig_slot64(&rig, 1), RIG_CODE);
    ck_assert_uint_eq(rig_slot64(&rig, 4), RIG_STACK);
    close_rig();
}
END_TEST

START_TEST(misaligned_cmpxchg16b_raises_gp)
{
    open_long();
    rig.v->gpr[REG_RBX] = RIG_DATA + 8;
    rig_exec(&rig, "\x48\x0f\xc7\x0b");
    rig_expect_fault64(&rig, EXC_GP, 0);
    close_rig();
}
END_TEST

START_TEST(cmov_reads_memory_although_the_condition_is_false)
{
    open_long();
    unmap(RIG_DATA);
    rig.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&rig, "\x48\x0f\x44\x03"); /* cmove rax, [rbx]; ZF is clear */
    rig_expect_fault64(&rig, EXC_PF, 0);
    close_rig();
}
END_TEST

START_TEST(pop_to_missing_memory_keeps_rsp)
{
    open_long();
    unmap(RIG_DATA);
    rig.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&rig, "\x8f\x03"); /* pop [rbx] */
    rig_expect_fault64(&rig, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(rig_slot64(&rig, 4), RIG_STACK);
    close_rig();
}
END_TEST

/* ---- accesses that cross a page, and devices ---- */

START_TEST(read_modify_write_across_two_pages_changes_both)
{
    open_long();
    rig_poke(&rig, RIG_DATA + 0xffc, 0xffffffffffffffff, 8);
    rig.v->gpr[REG_RBX] = RIG_DATA + 0xffc;
    rig_exec(&rig, "\x48\x83\x03\x02"); /* add qword [rbx], 2 */
    ck_assert_uint_eq(rig_peek(&rig, RIG_DATA + 0xffc, 8), 1);
    ck_assert_uint_eq(image(), FLAG_CF | FLAG_AF);
    close_rig();
}
END_TEST

START_TEST(exchange_with_a_device_reads_it_once_and_writes_it_once)
{
    open_long();
    rig.v->gpr[REG_RBX] = RIG_MMIO + 8;
    rig.v->gpr[REG_RAX] = 0x55;
    rig.device_value = 0x99;
    rig_exec(&rig, "\x87\x03"); /* xchg [rbx], eax */
    ck_assert_uint_eq(rig.v->gpr[REG_RAX], 0x99);
    ck_assert_uint_eq(rig.device_value, 0x55);
    ck_assert_uint_eq(rig.device_accesses, 2);
    close_rig();
}
END_TEST

/* ---- strings and time ---- */

/* Runs n units, in as many calls as it takes. */
static void run_units(uint64_t n)
{
    for (uint64_t end = rig.clock.icount + n; rig.clock.icount < end;)
        ck_assert_int_ne(vcpu_run(rig.v, end - rig.clock.icount), VCPU_EXIT_SHUTDOWN);
}

static void put_code(const char *bytes, size_t n)
{
    mem_access(rig.mem, 0, rig.v->seg_base[SEG_CS] + rig.v->rip, (void *)(uintptr_t)bytes, n, MEM_HOST_POKE, true,
               BUS_NO_CPU);
}

START_TEST(each_iteration_counts_one_unit_and_stops_at_the_budget)
{
    open_long();
    put_code("\xf3\xaa\xf4", 3); /* rep stosb; hlt */
    rig.v->gpr[REG_RDI] = RIG_DATA + 0xff0;
    rig.v->gpr[REG_RCX] = 100;
    rig.v->gpr[REG_RAX] = 0xab;
    run_units(40);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 60);
    ck_assert_uint_eq(rig.v->gpr[REG_RDI], RIG_DATA + 0xff0 + 40);
    ck_assert_uint_eq(rig_peek(&rig, RIG_DATA + 0xff0 + 39, 2), 0xab);
    run_units(60);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 0);
    close_rig();
}
END_TEST

START_TEST(repetition_with_a_count_of_zero_counts_one_unit)
{
    open_long();
    put_code("\xf3\xa4\xf4", 3);
    rig.v->gpr[REG_RCX] = 0;
    rig.v->gpr[REG_RDI] = 1ull << 50; /* never looked at */
    run_units(1);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE + 2);
    close_rig();
}
END_TEST

START_TEST(fault_in_a_repetition_commits_the_iterations_before_it)
{
    open_long();
    unmap(RIG_DATA + 0x1000);
    put_code("\xf3\xa5", 2); /* rep movsd */
    rig.v->gpr[REG_RSI] = RIG_DATA + 0x3000;
    rig.v->gpr[REG_RDI] = RIG_DATA + 0xff4;
    rig.v->gpr[REG_RCX] = 10;
    rig_poke(&rig, RIG_DATA + 0x3008, 0x11223344, 4);
    run_units(4); /* three iterations and the delivery */
    rig_expect_fault64(&rig, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(rig.v->cr2, RIG_DATA + 0x1000);
    ck_assert_uint_eq(rig_slot64(&rig, 1), RIG_CODE);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 7);
    ck_assert_uint_eq(rig.v->gpr[REG_RSI], RIG_DATA + 0x300c);
    ck_assert_uint_eq(rig.v->gpr[REG_RDI], RIG_DATA + 0x1000);
    ck_assert_uint_eq(rig_peek(&rig, RIG_DATA + 0xffc, 4), 0x11223344);
    close_rig();
}
END_TEST

START_TEST(repetition_stops_after_an_iteration_that_reached_a_device)
{
    open_long();
    put_code("\xf3\xaa", 2);
    rig.v->gpr[REG_RDI] = RIG_MMIO;
    rig.v->gpr[REG_RCX] = 5;
    run_units(1); /* whatever a first use of code and data brings is over */
    ck_assert_int_eq(vcpu_run(rig.v, 1000000), VCPU_EXIT_BOUNDARY);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 3);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE);
    ck_assert_uint_eq(rig.device_accesses, 2);
    ck_assert_uint_eq(rig.clock.icount, 2);
    close_rig();
}
END_TEST

START_TEST(move_onto_its_own_source_repeats_the_pattern)
{
    open_long();
    put_code("\xf3\xa4\xf4", 3);
    rig_poke(&rig, RIG_DATA, 0x636261, 3);
    rig.v->gpr[REG_RSI] = RIG_DATA;
    rig.v->gpr[REG_RDI] = RIG_DATA + 3;
    rig.v->gpr[REG_RCX] = 7;
    run_units(7);
    ck_assert_uint_eq(rig_peek(&rig, RIG_DATA + 2, 8), 0x6163626163626163);
    close_rig();
}
END_TEST

START_TEST(compare_stops_at_the_first_difference_with_its_flags)
{
    open_long();
    put_code("\xf3\xa6\xf4", 3); /* repe cmpsb */
    rig_poke(&rig, RIG_DATA + 20, 1, 1);
    rig.v->gpr[REG_RSI] = RIG_DATA;
    rig.v->gpr[REG_RDI] = RIG_DATA + 0x800;
    rig.v->gpr[REG_RCX] = 64;
    run_units(21);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 43);
    ck_assert_uint_eq(image() & (FLAG_ZF | FLAG_CF), 0);
    close_rig();
}
END_TEST

START_TEST(string_with_16_bit_addresses_wraps_at_64k)
{
    open_real();
    rig.v->gpr[REG_RDI] = 0x7777ffff;
    rig.v->gpr[REG_RCX] = 0x55550002;
    rig.v->gpr[REG_RAX] = 0xabcd;
    put_code("\xf3\xaa\xf4", 3);
    run_units(2);
    ck_assert_uint_eq(rig.v->gpr[REG_RDI], 0x77770001);
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 0x55550000);
    ck_assert_uint_eq(rig_peek(&rig, 0xffff, 1), 0xcd);
    ck_assert_uint_eq(rig_peek(&rig, 0, 1), 0xcd);
    close_rig();
}
END_TEST

/* ---- POPF, PUSHF ---- */

static uint64_t popf_from(uint64_t flags, unsigned cpl, uint64_t popped)
{
    open_long();
    if (cpl == 3)
        rig_user(&rig);
    vcpu_set_rflags(rig.v, flags | 2);
    rig_poke(&rig, RIG_STACK, popped, 8);
    rig_exec(&rig, "\x9d");
    uint64_t f = vcpu_rflags(rig.v);
    close_rig();
    return f;
}

START_TEST(popf_in_user_mode_changes_neither_if_nor_iopl)
{
    ck_assert_uint_eq(popf_from(0, 3, FLAG_IF | FLAG_IOPL | FLAG_CF), FLAG_CF | 2);
}
END_TEST

START_TEST(popf_with_iopl_3_changes_if_but_not_iopl)
{
    ck_assert_uint_eq(popf_from(FLAG_IOPL, 3, FLAG_IF | FLAG_ZF), FLAG_IOPL | FLAG_IF | FLAG_ZF | 2);
}
END_TEST

START_TEST(popf_in_the_kernel_changes_all_but_vm_and_virtual_interrupt_flags)
{
    uint64_t all = FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID;
    ck_assert_uint_eq(popf_from(0, 0, all | FLAG_VM | FLAG_RF | FLAG_VIF | FLAG_VIP), all | 2);
}
END_TEST

START_TEST(pushf_in_virtual_8086_mode_with_low_iopl_raises_gp)
{
    open_protected();
    for (int s = SEG_ES; s <= SEG_GS; s++)
        vcpu_set_segment(rig.v, s, 0, 0, 0xffff, 0xf3);
    vcpu_set_segment(rig.v, SEG_CS, 0x2000, 0x20000, 0xffff, 0xf3);
    rig.v->rflags = FLAG_VM | 2;
    vcpu_refresh(rig.v);
    rig.v->rip = 0;
    rig.v->gpr[REG_RSP] = 0x8000;
    rig_exec(&rig, "\x9c");
    rig_expect_fault32(&rig, EXC_GP, 0);
    close_rig();
}
END_TEST

/* ---- 16- and 32-bit code ---- */

START_TEST(near_jump_beyond_the_code_limit_raises_gp)
{
    open_protected();
    vcpu_set_segment(rig.v, SEG_CS, SEL_CODE0, 0, 0xfffff, rig_attr(&rig, SEL_CODE0));
    vcpu_refresh(rig.v);
    rig_exec(&rig, "\xe9\x00\x00\x10\x00"); /* jmp +0x100000 */
    rig_expect_fault32(&rig, EXC_GP, 0);
    ck_assert_uint_eq(rig_slot32(&rig, 1), RIG_CODE);
    close_rig();
}
END_TEST

START_TEST(operand_size_16_cuts_the_target)
{
    open_protected();
    rig_exec(&rig, "\x66\xeb\x10"); /* jmp short with a 66 prefix: ip = (0x20003 + 0x10) & 0xffff */
    ck_assert_uint_eq(rig.v->rip, 0x13);
    close_rig();
}
END_TEST

START_TEST(push_in_real_mode_wraps_the_16_bit_stack_pointer)
{
    open_real();
    rig.v->gpr[REG_RSP] = 0x12340000;
    rig.v->gpr[REG_RAX] = 0xbeef;
    rig_exec(&rig, "\x50");
    ck_assert_uint_eq(rig.v->gpr[REG_RSP], 0x1234fffe);
    ck_assert_uint_eq(rig_peek(&rig, 0xfffe, 2), 0xbeef);
    close_rig();
}
END_TEST

START_TEST(pusha_stores_the_old_stack_pointer_and_popa_skips_it)
{
    open_protected();
    for (unsigned n = 0; n < 8; n++)
        if (n != REG_RSP)
            rig.v->gpr[n] = 0x1000 + n;
    rig_exec(&rig, "\x60");
    ck_assert_uint_eq(rig.v->gpr[REG_RSP], RIG_STACK - 32);
    for (unsigned n = 0; n < 8; n++)
        ck_assert_uint_eq(rig_slot32(&rig, 7 - n), n == REG_RSP ? RIG_STACK : 0x1000 + n);
    rig_poke(&rig, RIG_STACK - 20, 0xdead, 4); /* ESP's slot */
    rig_poke(&rig, RIG_STACK - 32, 0x77, 4);   /* EDI's */
    rig_exec(&rig, "\x61");
    ck_assert_uint_eq(rig.v->gpr[REG_RSP], RIG_STACK);
    ck_assert_uint_eq(rig.v->gpr[REG_RDI], 0x77);
    ck_assert_uint_eq(rig.v->gpr[REG_RAX], 0x1000);
    close_rig();
}
END_TEST

START_TEST(bound_raises_br_outside_its_limits_only)
{
    open_protected();
    rig_poke(&rig, RIG_DATA, 0xfffffffe, 4); /* -2 .. 5 */
    rig_poke(&rig, RIG_DATA + 4, 5, 4);
    rig.v->gpr[REG_RBX] = RIG_DATA;
    rig.v->gpr[REG_RAX] = 0xfffffffe;
    rig_exec(&rig, "\x62\x03"); /* bound eax, [ebx] */
    ck_assert_uint_eq(rig.v->rip, RIG_CODE + 2);
    rig.v->gpr[REG_RAX] = 6;
    rig_exec(&rig, "\x62\x03");
    rig_expect_vector(&rig, EXC_BR);
    close_rig();
}
END_TEST

START_TEST(loop_with_16_bit_addresses_counts_in_cx)
{
    open_protected();
    rig.v->gpr[REG_RCX] = 0x50001;
    rig_exec(&rig, "\x67\xe2\xf0");
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 0x50000);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE + 3);
    rig.v->rip = RIG_CODE;
    rig_exec(&rig, "\x67\xe2\xf0");
    ck_assert_uint_eq(rig.v->gpr[REG_RCX], 0x5ffff);
    ck_assert_uint_eq(rig.v->rip, RIG_CODE + 3 - 16);
    close_rig();
}
END_TEST

START_TEST(leave_uses_the_width_of_the_stack_segment)
{
    open_real();
    rig.v->gpr[REG_RBP] = 0xaaaa4000;
    rig.v->gpr[REG_RSP] = 0xbbbb1000;
    rig_poke(&rig, 0x4000, 0x1234, 2);
    rig_exec(&rig, "\xc9");
    ck_assert_uint_eq(rig.v->gpr[REG_RSP], 0xbbbb4002);
    ck_assert_uint_eq(rig.v->gpr[REG_RBP], 0xaaaa1234);
    close_rig();
}
END_TEST

/* Decimal adjustment: AX and CF, AF before; AX and CF, AF after (SDM volume 2, the pages' operation sections). */
static const struct {
    const char *name, *bytes;
    unsigned len;
    uint16_t ax, ax_after;
    uint64_t flags, flags_after;
} decimal[] = {
    {"daa", "\x27", 1, 0x00ae, 0x0014, 0, FLAG_CF | FLAG_AF},
    {"daa", "\x27", 1, 0x0079, 0x0079, 0, 0},
    {"daa", "\x27", 1, 0x002e, 0x0034, 0, FLAG_AF},
    {"daa", "\x27", 1, 0x0012, 0x0072, FLAG_CF, FLAG_CF},
    {"daa", "\x27", 1, 0x009a, 0x0000, 0, FLAG_CF | FLAG_AF},
    {"das", "\x2f", 1, 0x00ee, 0x0088, 0, FLAG_CF | FLAG_AF},
    {"das", "\x2f", 1, 0x0003, 0x00fd, FLAG_AF, FLAG_CF | FLAG_AF},
    {"das", "\x2f", 1, 0x0045, 0x0045, 0, 0},
    {"aaa", "\x37", 1, 0x000f, 0x0105, 0, FLAG_CF | FLAG_AF},
    {"aaa", "\x37", 1, 0x01fa, 0x0300, 0, FLAG_CF | FLAG_AF},
    {"aaa", "\x37", 1, 0x0735, 0x0705, 0, 0},
    {"aas", "\x3f", 1, 0x02ff, 0x0109, 0, FLAG_CF | FLAG_AF},
    {"aas", "\x3f", 1, 0x0203, 0x000d, FLAG_AF, FLAG_CF | FLAG_AF},
    {"aas", "\x3f", 1, 0x0228, 0x0208, 0, 0},
    {"aam", "\xd4\x0a", 2, 0x123f, 0x0603, 0, 0},
    {"aam", "\xd4\x10", 2, 0x00a7, 0x0a07, 0, 0},
    {"aad", "\xd5\x0a", 2, 0x0603, 0x003f, 0, 0},
    {"aad", "\xd5\x10", 2, 0xff11, 0x0001, 0, 0},
    {"salc", "\xd6", 1, 0x1200, 0x12ff, FLAG_CF, FLAG_CF},
};

START_TEST(decimal_adjustments_give_the_manuals_results)
{
    uint64_t mask = FLAG_CF | FLAG_AF;
    open_protected();
    rig.v->gpr[REG_RAX] = 0xabcd0000 | decimal[_i].ax;
    vcpu_set_rflags(rig.v, decimal[_i].flags | 2);
    rig_exec_bytes(&rig, decimal[_i].bytes, decimal[_i].len);
    ck_assert_msg(rig.v->gpr[REG_RAX] == (0xabcd0000 | decimal[_i].ax_after), "%s of %x gave %lx", decimal[_i].name,
                  decimal[_i].ax, (unsigned long)rig.v->gpr[REG_RAX]);
    if (decimal[_i].bytes[0] != '\xd4' && decimal[_i].bytes[0] != '\xd5')
        ck_assert_uint_eq(image() & mask, decimal[_i].flags_after);
    close_rig();
}
END_TEST

START_TEST(aam_with_base_0_raises_de)
{
    open_protected();
    rig_exec(&rig, "\xd4\x00");
    rig_expect_vector(&rig, EXC_DE);
    close_rig();
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        rip_relative_operands_reach_the_last_bytes_of_2_gib,
        division_by_zero_raises_de_and_changes_nothing,
        quotient_that_does_not_fit_raises_de,
        add_to_a_missing_page_reports_a_write_and_keeps_flags,
        push_to_a_missing_page_keeps_rsp,
        push_beyond_the_canonical_range_raises_ss,
        call_to_a_non_canonical_address_raises_gp_before_the_push,
        call_without_a_stack_faults_there_whatever_the_target,
        ret_to_a_non_canonical_address_raises_gp_and_keeps_rsp,
        misaligned_cmpxchg16b_raises_gp,
        cmov_reads_memory_although_the_condition_is_false,
        pop_to_missing_memory_keeps_rsp,
        read_modify_write_across_two_pages_changes_both,
        exchange_with_a_device_reads_it_once_and_writes_it_once,
        each_iteration_counts_one_unit_and_stops_at_the_budget,
        repetition_with_a_count_of_zero_counts_one_unit,
        fault_in_a_repetition_commits_the_iterations_before_it,
        repetition_stops_after_an_iteration_that_reached_a_device,
        move_onto_its_own_source_repeats_the_pattern,
        compare_stops_at_the_first_difference_with_its_flags,
        string_with_16_bit_addresses_wraps_at_64k,
        popf_in_user_mode_changes_neither_if_nor_iopl,
        popf_with_iopl_3_changes_if_but_not_iopl,
        popf_in_the_kernel_changes_all_but_vm_and_virtual_interrupt_flags,
        pushf_in_virtual_8086_mode_with_low_iopl_raises_gp,
        near_jump_beyond_the_code_limit_raises_gp,
        operand_size_16_cuts_the_target,
        push_in_real_mode_wraps_the_16_bit_stack_pointer,
        pusha_stores_the_old_stack_pointer_and_popa_skips_it,
        bound_raises_br_outside_its_limits_only,
        loop_with_16_bit_addresses_counts_in_cx,
        leave_uses_the_width_of_the_stack_segment,
        aam_with_base_0_raises_de,
    };
    Suite *s = rig_suite("cpu_interp_integer", tests, ARRAY_LEN(tests));
    TCase *tc = tcase_create("decimal");
    tcase_add_loop_test(tc, decimal_adjustments_give_the_manuals_results, 0, (int)ARRAY_LEN(decimal));
    suite_add_tcase(s, tc);
    return s;
}

CHECK_MAIN(suite)
