/*
 * Guest memory beyond the TLB: page crossings, devices, faults, and what makes a boundary.
 */
#include "cpu_rig.h"

static bool is_done(const struct cpu_rig *r, unsigned len)
{
    return r->v->rip == RIG_CODE + len;
}

START_TEST(a_store_that_crosses_into_an_absent_page_leaves_no_trace)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_PT + 8 * 0x51, 0, 8);
    r.v->gpr[REG_RBX] = 0x50ffc;
    r.v->gpr[REG_RAX] = 0x1122334455667788;
    rig_exec(&r, "\x48\x89\x03"); /* MOV [RBX], RAX */
    rig_expect_fault64(&r, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(r.v->cr2, 0x51000);
    ck_assert_uint_eq(rig_peek(&r, 0x50ffc, 4), 0);
    rig_close(&r);
}
END_TEST

START_TEST(accesses_that_cross_pages_use_both_translations)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_PT + 8 * 0x51, 0x70000 | 7, 8);
    r.v->gpr[REG_RBX] = 0x50ffc;
    r.v->gpr[REG_RAX] = 0x1122334455667788;
    rig_exec(&r, "\x48\x89\x03");
    ck_assert(is_done(&r, 3));
    ck_assert_uint_eq(rig_peek(&r, 0x50ffc, 4), 0x55667788);
    ck_assert_uint_eq(rig_peek(&r, 0x70000, 4), 0x11223344);
    rig_exec(&r, "\x48\x8b\x0b"); /* MOV RCX, [RBX] */
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 0x1122334455667788);
    rig_close(&r);
}
END_TEST

START_TEST(an_address_that_is_not_canonical_is_gp_or_ss_by_segment)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->gpr[REG_RBX] = r.v->gpr[REG_RBP] = 0x800000000000;
    rig_exec(&r, "\x8a\x03"); /* MOV AL, [RBX] */
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\x8a\x45\x00"); /* MOV AL, [RBP] */
    rig_expect_fault64(&r, EXC_SS, 0);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\xff\x33"); /* PUSH [RBX]: the operand */
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_gate64(&r, EXC_SS, 0x8e, 1);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RSP] = 0x800000000008;
    rig_exec(&r, "\x50"); /* PUSH RAX: the stack */
    rig_expect_fault64(&r, EXC_SS, 0);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    r.v->gpr[REG_RBX] = 0x7ffffffffffe; /* the end alone */
    rig_exec(&r, "\x8b\x03");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(a_device_access_is_a_boundary_at_an_exact_time)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->gpr[REG_RBX] = RIG_MMIO + 8;
    r.v->gpr[REG_RAX] = 0xabcd;
    mem_access(r.mem, 0, RIG_CODE, "\x90\x66\x89\x03\x90", 5, MEM_HOST_POKE, true,
               BUS_NO_CPU); /* NOP; MOV [RBX], AX; NOP */
    ck_assert_int_eq(vcpu_run(r.v, 100000), VCPU_EXIT_BOUNDARY);
    ck_assert(is_done(&r, 4));
    ck_assert_uint_eq(r.device_value, 0xabcd);
    ck_assert_uint_eq(r.device_offset, 8);
    ck_assert_uint_eq(r.device_size, 2);
    ck_assert_uint_eq(r.device_time, 1);
    ck_assert_uint_eq(clock_now(&r.clock), 502);
    rig_close(&r);
}
END_TEST

START_TEST(a_read_modify_write_of_a_device_reads_once_and_writes_once)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.device_value = 0x0f;
    r.v->gpr[REG_RBX] = RIG_MMIO;
    r.v->gpr[REG_RAX] = 0xf0;
    rig_exec(&r, "\x08\x03"); /* OR [RBX], AL */
    ck_assert_uint_eq(r.device_accesses, 2);
    ck_assert_uint_eq(r.device_value, 0xff);
    rig_close(&r);
}
END_TEST

START_TEST(a_read_modify_write_of_a_read_only_page_reports_the_write)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_PT + 8 * 0x50, 0x50005, 8);
    r.v->gpr[REG_RBX] = 0x50000;
    rig_exec(&r, "\x08\x03");
    rig_expect_fault64(&r, EXC_PF, PF_PRESENT | PF_WRITE);
    rig_close(&r);
}
END_TEST

START_TEST(a_store_to_a_page_table_takes_effect_in_the_next_access)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, 0x70000, 0x77, 1);
    r.v->gpr[REG_RBX] = 0x50000;
    rig_exec(&r, "\x8a\x03");
    ck_assert_uint_eq(r.v->gpr[REG_RAX] & 0xff, 0);
    r.v->gpr[REG_RDI] = RIG_PT + 8 * 0x50;
    r.v->gpr[REG_RAX] = 0x70007;
    rig_exec(&r, "\x48\x89\x07"); /* MOV [RDI], RAX */
    rig_exec(&r, "\x8a\x03");
    ck_assert_uint_eq(r.v->gpr[REG_RAX] & 0xff, 0x77);
    rig_close(&r);
}
END_TEST

START_TEST(system_structures_are_read_with_supervisor_rights_whatever_cpl_is)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    for (unsigned page = RIG_GDT >> 12; page <= RIG_TSS >> 12; page++)
        rig_poke(&r, RIG_PT + 8 * page, page << 12 | 3, 8);
    rig_poke(&r, RIG_PT + 8 * (RIG_RSP0 >> 12), RIG_RSP0 | 3, 8);
    rig_poke(&r, RIG_PT + 8 * ((RIG_RSP0 >> 12) - 1), (RIG_RSP0 - 0x1000) | 3, 8);
    rig_user(&r);
    r.v->gpr[REG_RAX] = SEL_DATA3 | 3;
    rig_exec(&r, "\x8e\xd8"); /* MOV DS, AX reads the GDT */
    ck_assert(is_done(&r, 2));
    rig_exec(&r, "\x0f\x0b");
    rig_expect_vector(&r, EXC_UD); /* IDT, TSS and the inner stack */
    ck_assert_uint_eq(r.v->cpl, 0);
    rig_user(&r);
    r.v->gpr[REG_RBX] = RIG_GDT;
    rig_exec(&r, "\x8a\x03"); /* but not by the program */
    rig_expect_fault64(&r, EXC_PF, PF_PRESENT | PF_USER);
    rig_close(&r);
}
END_TEST

START_TEST(a20_masks_bit_20_of_physical_addresses)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_poke(&r, RIG_DATA, 0x11, 1);
    rig_poke(&r, RIG_DATA + 0x100000, 0x22, 1);
    r.v->gpr[REG_RBX] = RIG_DATA + 0x100000;
    rig_exec(&r, "\x8a\x03");
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0x22);
    vcpu_set_a20(r.v, false);
    rig_exec(&r, "\x8a\x03");
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0x11);
    vcpu_set_a20(r.v, true);
    rig_exec(&r, "\x8a\x03");
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0x22);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        a_store_that_crosses_into_an_absent_page_leaves_no_trace,
        accesses_that_cross_pages_use_both_translations,
        an_address_that_is_not_canonical_is_gp_or_ss_by_segment,
        a_device_access_is_a_boundary_at_an_exact_time,
        a_read_modify_write_of_a_device_reads_once_and_writes_once,
        a_read_modify_write_of_a_read_only_page_reports_the_write,
        a_store_to_a_page_table_takes_effect_in_the_next_access,
        system_structures_are_read_with_supervisor_rights_whatever_cpl_is,
        a20_masks_bit_20_of_physical_addresses,
    };
    return rig_suite("memory", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
