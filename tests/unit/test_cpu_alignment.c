/*
 * Alignment checking, and small matters that the oracle (tests/oracle) found, kept here for hosts that are no x86.
 */
#include "tests/unit/cpu_rig.h"

/* Loads four bytes from RIG_DATA + 2 with the given CR0.AM, AC and CPL; true if that was #AC(0). */
static bool load_faults(bool am, bool ac, bool user)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->cr0 |= am ? CR0_AM : 0;
    if (user)
        rig_user(&r);
    vcpu_set_rflags(r.v, ac ? FLAG_AC | 2 : 2);
    vcpu_refresh(r.v);
    r.v->gpr[REG_RSI] = RIG_DATA + 2;
    rig_exec(&r, "\x8b\x06");
    bool faulted = r.v->rip == RIG_HANDLERS + 16 * EXC_AC;
    if (faulted)
        ck_assert_uint_eq(rig_slot64(&r, 0), 0);
    else
        ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    rig_close(&r);
    return faulted;
}

START_TEST(alignment_is_checked_with_am_and_ac_at_cpl_3_only)
{
    ck_assert(load_faults(true, true, true));
    ck_assert(!load_faults(false, true, true));
    ck_assert(!load_faults(true, false, true));
    ck_assert(!load_faults(true, true, false));
}
END_TEST

/* rsi is misaligned by `by`. */
static void expect_ac(const char *bytes, size_t n, unsigned by, bool faults)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->cr0 |= CR0_AM;
    r.v->cr4 |= CR4_OSFXSR;
    rig_user(&r);
    vcpu_set_rflags(r.v, FLAG_AC | 2);
    vcpu_refresh(r.v);
    r.v->gpr[REG_RSI] = RIG_DATA + by;
    rig_exec_bytes(&r, bytes, n);
    ck_assert_msg((r.v->rip == RIG_HANDLERS + 16 * EXC_AC) == faults, "%02x %02x by %u", (uint8_t)bytes[0],
                  (uint8_t)bytes[1], by);
    rig_close(&r);
}
#define EXPECT_AC(bytes, by, faults) expect_ac(bytes, sizeof(bytes) - 1, by, faults)

START_TEST(what_alignment_an_operand_wants_depends_on_its_size)
{
    EXPECT_AC("\x8a\x06", 1, false);    /* mov al */
    EXPECT_AC("\x66\x8b\x06", 1, true); /* mov ax */
    EXPECT_AC("\x66\x8b\x06", 2, false);
    EXPECT_AC("\x48\x8b\x06", 4, true); /* mov rax */
    EXPECT_AC("\xdb\x2e", 8, false);    /* fld m80: 8 */
    EXPECT_AC("\xdb\x2e", 4, true);
    EXPECT_AC("\xd9\x26", 4, false); /* fldenv, 28 bytes: 4 */
    EXPECT_AC("\xd9\x26", 2, true);
    EXPECT_AC("\x66\xd9\x26", 2, false); /* 14 bytes: 2 */
    EXPECT_AC("\xff\x36", 4, true);      /* push [rsi] */
    EXPECT_AC("\x0f\x10\x06", 8, true);  /* movups */
    EXPECT_AC("\xac", 1, false);         /* lodsb */
    EXPECT_AC("\xad", 1, true);          /* lodsd */
}
END_TEST

START_TEST(alignment_comes_before_the_page_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->cr0 |= CR0_AM;
    rig_poke(&r, RIG_PT + 8 * (RIG_DATA >> 12), 0, 8);
    rig_user(&r);
    vcpu_set_rflags(r.v, FLAG_AC | 2);
    vcpu_refresh(r.v);
    r.v->gpr[REG_RSI] = RIG_DATA + 1;
    rig_exec(&r, "\x8b\x06");
    rig_expect_vector(&r, EXC_AC);
    rig_close(&r);
}
END_TEST

START_TEST(arpl_that_changes_nothing_needs_no_writable_memory)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    vcpu_set_segment(r.v, SEG_ES, SEL_READONLY, 0, 0xffffffff, rig_attr(&r, SEL_READONLY));
    vcpu_refresh(r.v);
    rig_poke(&r, RIG_DATA, 0x13, 2);
    r.v->gpr[REG_RSI] = RIG_DATA;
    r.v->gpr[REG_RAX] = 2;
    rig_exec(&r, "\x26\x63\x06");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 3);
    ck_assert(!(vcpu_rflags(r.v) & FLAG_ZF));
    rig_poke(&r, RIG_DATA, 0x11, 2);
    rig_exec(&r, "\x26\x63\x06");
    rig_expect_vector(&r, EXC_GP);
    rig_close(&r);
}
END_TEST

START_TEST(rex_w_beats_the_operand_size_prefix_of_x87_images)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->gpr[REG_RSI] = RIG_DATA;
    rig_poke(&r, RIG_DATA + 24, 0x5555, 8);
    rig_exec(&r, "\x66\x48\xd9\x36"); /* FNSTENV, 28 bytes */
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 2, 2), 0xffff);
    ck_assert_uint_ne(rig_peek(&r, RIG_DATA + 24, 4), 0x5555);
    rig_close(&r);
}
END_TEST

START_TEST(code_on_the_bus_wraps_at_4_gib)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    bus_add(&r.mmio, 0xfffff000, 0x1000, &rig_device_ops, &r, "rom");
    r.device_value = 0xb0; /* mov al, imm8 */
    rig_poke(&r, 0, 0x5a, 1);
    r.v->rip = 0xffffffff;
    vcpu_run(r.v, 1);
    ck_assert_uint_eq(r.v->gpr[REG_RAX] & 0xff, 0x5a);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {alignment_is_checked_with_am_and_ac_at_cpl_3_only,
                                  what_alignment_an_operand_wants_depends_on_its_size,
                                  alignment_comes_before_the_page_fault,
                                  arpl_that_changes_nothing_needs_no_writable_memory,
                                  rex_w_beats_the_operand_size_prefix_of_x87_images,
                                  code_on_the_bus_wraps_at_4_gib};
    return rig_suite("alignment", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
