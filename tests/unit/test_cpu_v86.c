/* Virtual-8086 mode: entering, leaving, and the instructions that depend on IOPL and VME. */
#include "cpu_rig.h"

enum { V86_SEG = 0x2000, V86_STACK = 0x3000, MAP = 0x90 };

static struct cpu_rig r;

/* In virtual-8086 mode at 2000:0 with these flags; the TSS has a redirection bitmap of ones. */
static void setup(uint64_t flags, bool vme)
{
    static const uint16_t sel[6] = {0x1111, V86_SEG, V86_STACK, 0x4444, 0x5555, 0x6666};
    rig_open(&r);
    rig_protected(&r);
    rig_poke(&r, RIG_TSS + 0x66, MAP, 2);
    for (unsigned k = 0; k < 0x2000; k++)
        rig_poke(&r, RIG_TSS + 0x70 + k, 0xff, 1);
    r.v->cr4 |= vme ? CR4_VME : 0;
    uint32_t at = RIG_STACK;
    const uint32_t frame[9] = {0,           sel[SEG_CS], (uint32_t)(flags | FLAG_VM | 2),
                               0x1000,      sel[SEG_SS], sel[SEG_ES],
                               sel[SEG_DS], sel[SEG_FS], sel[SEG_GS]};
    for (unsigned k = 0; k < 9; k++)
        rig_poke(&r, at + 4 * k, frame[k], 4);
    rig_exec(&r, "\xcf");
}

START_TEST(iretd_with_vm_loads_nine_values)
{
    setup(FLAG_IOPL | FLAG_VIP, false);
    ck_assert_uint_eq(r.v->cpl, 3);
    ck_assert_uint_eq(r.v->rip, 0);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], 0x1000);
    ck_assert_uint_eq(r.v->seg[SEG_GS].base, 0x66660);
    ck_assert_uint_eq(r.v->seg[SEG_ES].limit, 0xffff);
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_VM | FLAG_IOPL | FLAG_VIP | 2);
    rig_close(&r);
}
END_TEST

START_TEST(event_pushes_all_segments_and_leaves_them_null)
{
    setup(FLAG_IOPL, false);
    rig_exec(&r, "\x0f\x0b");
    rig_expect_vector(&r, EXC_UD);
    const uint32_t frame[9] = {0,      V86_SEG, FLAG_VM | FLAG_IOPL | FLAG_RF | 2, 0x1000, V86_STACK, 0x1111, 0x4444,
                               0x5555, 0x6666};
    for (unsigned k = 0; k < 9; k++)
        ck_assert_uint_eq(rig_slot32(&r, k), frame[k]);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_RSP0 - 36);
    ck_assert(r.v->seg[SEG_DS].unusable && r.v->seg[SEG_GS].unusable);
    ck_assert(!(vcpu_rflags(r.v) & FLAG_VM));
    ck_assert_uint_eq(r.v->cpl, 0);
    rig_close(&r);
}
END_TEST

/* Without IOPL 3 and without VME each of these is #GP(0). */
START_TEST(sysenter_leaves_and_its_kin_fault)
{
    static const struct {
        const char *insn;
        int vector;
    } rows[] = {{"\x0f\x34", -1}, {"\x0f\x35", EXC_GP}, {"\x0f\x05", EXC_UD}, {"\x0f\x07", EXC_UD}};
    for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
        setup(FLAG_IOPL, false);
        r.v->efer |= EFER_SCE;
        r.v->msr.sysenter_cs = SEL_CODE0;
        r.v->msr.sysenter_eip = RIG_CODE + 0x100;
        r.v->msr.sysenter_esp = RIG_RSP0;
        rig_exec_bytes(&r, rows[k].insn, 2);
        ck_assert_uint_eq(r.v->rip,
                          rows[k].vector < 0 ? RIG_CODE + 0x100 : RIG_HANDLERS + 16 * (uint64_t)rows[k].vector);
        ck_assert(!(vcpu_rflags(r.v) & FLAG_VM) && r.v->cpl == 0);
        rig_close(&r);
    }
}
END_TEST

START_TEST(instructions_that_need_iopl_fault)
{
    static const char *const insn[] = {"\xfa", "\xfb", "\x9c", "\x9d", "\xcf", "\xcd\x21", "\x66\x9c", "\x66\xcf"};
    for (unsigned k = 0; k < ARRAY_LEN(insn); k++) {
        setup(0, false);
        rig_exec_bytes(&r, insn[k], strlen(insn[k]));
        rig_expect_fault32(&r, EXC_GP, 0);
        rig_close(&r);
    }
}
END_TEST

START_TEST(int_with_iopl_3_goes_through_the_idt_by_its_dpl)
{
    setup(FLAG_IOPL, false);
    rig_exec(&r, "\xcd\x21");
    rig_expect_fault32(&r, EXC_GP, 0x21 * 8 + 2);
    rig_close(&r);
    setup(FLAG_IOPL, false);
    rig_gate32(&r, 0x21, 0xee);
    rig_exec(&r, "\xcd\x21");
    rig_expect_vector(&r, 0x21);
    ck_assert_uint_eq(rig_slot32(&r, 0), 2);
    rig_close(&r);
}
END_TEST

START_TEST(handler_of_a_level_other_than_0_is_refused)
{
    setup(FLAG_IOPL, false);
    uint64_t off = RIG_HANDLERS + 16 * 0x21;
    rig_poke(&r, RIG_IDT + 8 * 0x21, (off & 0xffff) | SEL_CODE32_3 << 16 | 0xeeull << 40 | (off >> 16) << 48, 8);
    rig_exec(&r, "\xcd\x21");
    rig_expect_fault32(&r, EXC_GP, SEL_CODE32_3);
    rig_close(&r);
}
END_TEST

START_TEST(vme_redirects_interrupts_whose_bit_is_clear)
{
    setup(FLAG_VIF, true);
    rig_poke(&r, RIG_TSS + MAP - 32 + 0x21 / 8, 0xff & ~(1u << (0x21 & 7)), 1);
    rig_poke(&r, 0x21 * 4, 0x34561234, 4);
    rig_exec(&r, "\xcd\x21");
    ck_assert_uint_eq(r.v->rip, 0x1234);
    ck_assert_uint_eq(r.v->seg[SEG_CS].base, 0x34560);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], 0x1000 - 6);
    ck_assert_uint_eq(rig_peek(&r, V86_STACK * 16 + 0xffe, 2), FLAG_IOPL | FLAG_IF | 2);
    ck_assert(!(vcpu_rflags(r.v) & FLAG_VIF));
    ck_assert(vcpu_rflags(r.v) & FLAG_VM);
    r.v->gpr[REG_RSP] = 0x1000 - 6;
    rig_exec(&r, "\xcf"); /* 16-bit IRET: IF of the image is VIF */
    ck_assert_uint_eq(r.v->rip, 2);
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_VM | FLAG_VIF | 2);
    rig_exec(&r, "\xcd\x22"); /* its bit is set, IOPL is 0 */
    rig_expect_fault32(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(vme_gives_cli_and_sti_a_flag_of_their_own)
{
    setup(FLAG_IF, true);
    rig_exec(&r, "\xfb");
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_VM | FLAG_IF | FLAG_VIF | 2);
    rig_exec(&r, "\xfa");
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_VM | FLAG_IF | 2);
    rig_close(&r);
    setup(FLAG_VIP, true);
    rig_exec(&r, "\xfb");
    rig_expect_fault32(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(pvi_does_so_at_cpl_3_of_protected_mode)
{
    rig_open(&r);
    rig_protected(&r);
    r.v->cr4 |= CR4_PVI;
    rig_user(&r);
    rig_exec(&r, "\xfb");
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_VIF | 2);
    rig_exec(&r, "\xfa");
    ck_assert_uint_eq(vcpu_rflags(r.v), 2);
    vcpu_set_rflags(r.v, FLAG_VIP | 2);
    rig_exec(&r, "\xfb");
    rig_expect_fault32(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

static Suite *v86_suite(void)
{
    const TTest *const tests[] = {iretd_with_vm_loads_nine_values,
                                  event_pushes_all_segments_and_leaves_them_null,
                                  sysenter_leaves_and_its_kin_fault,
                                  instructions_that_need_iopl_fault,
                                  int_with_iopl_3_goes_through_the_idt_by_its_dpl,
                                  handler_of_a_level_other_than_0_is_refused,
                                  vme_redirects_interrupts_whose_bit_is_clear,
                                  vme_gives_cli_and_sti_a_flag_of_their_own,
                                  pvi_does_so_at_cpl_3_of_protected_mode};
    return rig_suite("v86", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(v86_suite)
