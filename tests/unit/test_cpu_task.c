/* Hardware task switches: what is saved, loaded, marked busy, linked, and where each fault belongs. */
#include "cpu_rig.h"

enum {
    NEW_TSS = 0x14000,
    OTHER_TSS = 0x15000,
    SEL_NEW = 0x88,
    SEL_OTHER = 0x90,
    SEL_GATE32 = 0x98,
    SEL_LAST = 0x9f,
    NEW_STACK = 0x37000,
    NEW_CODE = 0x24000
};

static struct cpu_rig r;

static uint64_t tss_descriptor(uint32_t base, uint32_t limit, unsigned type)
{
    return limit | (uint64_t)base << 16 | (uint64_t)(0x80 | type) << 40;
}

static void tss32(uint32_t at, uint32_t eip, uint32_t flags, uint16_t code, uint16_t data)
{
    rig_poke(&r, at + 0x20, eip, 4);
    rig_poke(&r, at + 0x24, flags, 4);
    for (unsigned k = 0; k < 8; k++)
        rig_poke(&r, at + 0x28 + 4 * k, 0x11110000 + k, 4);
    rig_poke(&r, at + 0x38, NEW_STACK, 4);
    for (unsigned k = 0; k < 6; k++)
        rig_poke(&r, at + 0x48 + 4 * k, data, 2);
    rig_poke(&r, at + 0x4c, code, 2);
    rig_poke(&r, at + 0x60, 0, 2);
    rig_poke(&r, at + 0x64, 0, 2);
    rig_poke(&r, at + 0x66, 0xffff, 2);
}

static void setup(void)
{
    rig_open(&r);
    rig_protected(&r);
    r.v->gdtr.limit = SEL_LAST;
    rig_gdt(&r, SEL_TSS, tss_descriptor(RIG_TSS, 0x67, SYS_TSS_BUSY));
    rig_gdt(&r, SEL_NEW, tss_descriptor(NEW_TSS, 0x67, SYS_TSS));
    rig_gdt(&r, SEL_GATE32, (uint64_t)SEL_NEW << 16 | 0x8500ull << 32);
    r.v->tr.limit = 0x67;
    tss32(NEW_TSS, NEW_CODE, 2, SEL_CODE32_0, SEL_DATA0);
}

static unsigned type_of(unsigned sel)
{
    return rig_peek(&r, RIG_GDT + sel + 5, 1) & 15;
}

#define JMP_NEW  "\xea\0\0\0\0\x88\0"
#define CALL_NEW "\x9a\0\0\0\0\x88\0"

START_TEST(jmp_saves_the_old_task_and_loads_the_new_one)
{
    setup();
    r.v->gpr[REG_RBX] = 0x12345678;
    rig_exec(&r, JMP_NEW);
    ck_assert_uint_eq(r.v->rip, NEW_CODE);
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 0x11110001);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], NEW_STACK);
    ck_assert_uint_eq(r.v->tr.sel, SEL_NEW);
    ck_assert_uint_eq(r.v->tr.base, NEW_TSS);
    ck_assert(r.v->cr0 & CR0_TS);
    ck_assert(!(vcpu_rflags(r.v) & FLAG_NT));
    ck_assert_uint_eq(rig_peek(&r, RIG_TSS + 0x20, 4), RIG_CODE + 7);
    ck_assert_uint_eq(rig_peek(&r, RIG_TSS + 0x34, 4), 0x12345678);
    ck_assert_uint_eq(rig_peek(&r, RIG_TSS + 0x4c, 2), SEL_CODE0);
    ck_assert_uint_eq(type_of(SEL_TSS), SYS_TSS);
    ck_assert_uint_eq(type_of(SEL_NEW), SYS_TSS_BUSY);
    rig_close(&r);
}
END_TEST

START_TEST(call_links_and_iret_returns)
{
    setup();
    rig_exec(&r, CALL_NEW);
    ck_assert(vcpu_rflags(r.v) & FLAG_NT);
    ck_assert_uint_eq(rig_peek(&r, NEW_TSS, 2), SEL_TSS);
    ck_assert_uint_eq(type_of(SEL_TSS), SYS_TSS_BUSY);
    ck_assert_uint_eq(type_of(SEL_NEW), SYS_TSS_BUSY);
    rig_exec(&r, "\xcf");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 7);
    ck_assert_uint_eq(r.v->tr.sel, SEL_TSS);
    ck_assert_uint_eq(type_of(SEL_NEW), SYS_TSS);
    ck_assert_uint_eq(type_of(SEL_TSS), SYS_TSS_BUSY);
    ck_assert(!(rig_peek(&r, NEW_TSS + 0x24, 4) & FLAG_NT));
    ck_assert_uint_eq(rig_peek(&r, NEW_TSS + 0x20, 4), NEW_CODE + 1);
    rig_close(&r);
}
END_TEST

START_TEST(sixteen_bit_tss_saves_and_loads_words)
{
    setup();
    rig_gdt(&r, SEL_NEW, tss_descriptor(NEW_TSS, 0x2b, SYS_TSS16));
    rig_poke(&r, NEW_TSS + 0x0e, 0x4000, 2);
    rig_poke(&r, NEW_TSS + 0x10, 2, 2);
    for (unsigned k = 0; k < 8; k++)
        rig_poke(&r, NEW_TSS + 0x12 + 2 * k, 0x2000 + k, 2);
    const uint16_t seg[4] = {SEL_DATA0, SEL_CODE32_0, SEL_DATA0, 0};
    for (unsigned k = 0; k < 4; k++)
        rig_poke(&r, NEW_TSS + 0x22 + 2 * k, seg[k], 2);
    rig_poke(&r, NEW_TSS + 0x2a, 0, 2);
    rig_exec(&r, CALL_NEW);
    ck_assert_uint_eq(r.v->rip, 0x4000);
    ck_assert_uint_eq((uint16_t)r.v->gpr[REG_RDI], 0x2007);
    ck_assert(r.v->seg[SEG_DS].unusable);
    ck_assert(r.v->seg[SEG_FS].unusable);
    ck_assert_uint_eq(type_of(SEL_NEW), SYS_TSS16_BUSY);
    rig_exec(&r, "\xcf");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 7);
    ck_assert_uint_eq(rig_peek(&r, NEW_TSS + 0x0e, 2), 0x4001);
    rig_close(&r);
}
END_TEST

START_TEST(fault_before_the_switch_is_the_old_tasks_and_changes_nothing)
{
    static const struct {
        uint64_t descriptor;
        unsigned vector;
    } bad[] = {
        {((uint64_t)NEW_TSS << 16) | 0x67 | 0x8bull << 40, EXC_GP}, /* busy */
        {((uint64_t)NEW_TSS << 16) | 0x67 | 0x09ull << 40, EXC_NP},
        {((uint64_t)NEW_TSS << 16) | 0x66 | 0x89ull << 40, EXC_TS}, /* too short */
        {((uint64_t)NEW_TSS << 16) | 0x2a | 0x81ull << 40, EXC_TS},
    };
    setup();
    for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
        rig_gdt(&r, SEL_NEW, bad[k].descriptor);
        rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
        rig_exec(&r, JMP_NEW);
        rig_expect_fault32(&r, bad[k].vector, SEL_NEW);
        ck_assert_uint_eq(rig_slot32(&r, 1), RIG_CODE);
        ck_assert_uint_eq(r.v->tr.sel, SEL_TSS);
        ck_assert_uint_eq(type_of(SEL_TSS), SYS_TSS_BUSY);
    }
    rig_close(&r);
}
END_TEST

START_TEST(fault_of_the_new_segments_is_the_new_tasks)
{
    setup();
    rig_poke(&r, NEW_TSS + 0x54, SEL_ABSENT, 2); /* DS */
    rig_exec(&r, JMP_NEW);
    rig_expect_fault32(&r, EXC_NP, SEL_ABSENT);
    ck_assert_uint_eq(rig_slot32(&r, 1), NEW_CODE);
    ck_assert_uint_eq(r.v->tr.sel, SEL_NEW);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], NEW_STACK - 16);
    rig_close(&r);
}
END_TEST

START_TEST(trap_bit_stops_before_the_first_instruction)
{
    setup();
    rig_poke(&r, NEW_TSS + 0x64, 1, 2);
    rig_exec(&r, JMP_NEW);
    vcpu_run(r.v, 1);
    rig_expect_vector(&r, EXC_DB);
    ck_assert_uint_eq(rig_slot32(&r, 0), NEW_CODE);
    ck_assert(r.v->dr[6] & 1u << 15);
    rig_close(&r);
}
END_TEST

START_TEST(exception_through_a_task_gate_pushes_its_error_code_there)
{
    setup();
    rig_poke(&r, RIG_IDT + 8 * EXC_GP, (uint64_t)SEL_NEW << 16 | 0x8500ull << 32, 8);
    rig_exec(&r, "\xcd\x21"); /* gate of DPL 0: fine from CPL 0 */
    rig_expect_vector(&r, 0x21);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\x8e\xd8"); /* mov ds, ax */
    r.v->gpr[REG_RAX] = 0x100;
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\x8e\xd8");
    ck_assert_uint_eq(r.v->rip, NEW_CODE);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], NEW_STACK - 4);
    ck_assert_uint_eq(rig_slot32(&r, 0), 0x100);
    ck_assert(vcpu_rflags(r.v) & FLAG_NT);
    ck_assert_uint_eq(rig_peek(&r, RIG_TSS + 0x20, 4), RIG_CODE);
    ck_assert(rig_peek(&r, RIG_TSS + 0x24, 4) & FLAG_RF);
    rig_close(&r);
}
END_TEST

START_TEST(task_gate_is_checked_by_its_own_dpl)
{
    setup();
    rig_user(&r);
    rig_exec(&r, "\xea\0\0\0\0\x9b\0");
    rig_expect_fault32(&r, EXC_GP, SEL_GATE32);
    rig_gdt(&r, SEL_GATE32, (uint64_t)SEL_NEW << 16 | 0xe500ull << 32);
    rig_user(&r);
    rig_exec(&r, "\xea\0\0\0\0\x9b\0");
    ck_assert_uint_eq(r.v->rip, NEW_CODE);
    ck_assert_uint_eq(r.v->cpl, 0);
    rig_close(&r);
}
END_TEST

START_TEST(task_may_run_in_virtual_8086_mode)
{
    setup();
    rig_poke(&r, NEW_TSS + 0x20, 0x10, 4);
    rig_poke(&r, NEW_TSS + 0x24, FLAG_VM | FLAG_IOPL | 2, 4);
    rig_poke(&r, NEW_TSS + 0x4c, 0x2000, 2);
    rig_exec(&r, JMP_NEW);
    ck_assert_uint_eq(r.v->cpl, 3);
    ck_assert_uint_eq(r.v->seg[SEG_CS].base, 0x20000);
    ck_assert(r.v->mode & MODE_VM);
    rig_close(&r);
}
END_TEST

static Suite *task_suite(void)
{
    const TTest *const tests[] = {jmp_saves_the_old_task_and_loads_the_new_one,
                                  call_links_and_iret_returns,
                                  sixteen_bit_tss_saves_and_loads_words,
                                  fault_before_the_switch_is_the_old_tasks_and_changes_nothing,
                                  fault_of_the_new_segments_is_the_new_tasks,
                                  trap_bit_stops_before_the_first_instruction,
                                  exception_through_a_task_gate_pushes_its_error_code_there,
                                  task_gate_is_checked_by_its_own_dpl,
                                  task_may_run_in_virtual_8086_mode};
    return rig_suite("task", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(task_suite)
