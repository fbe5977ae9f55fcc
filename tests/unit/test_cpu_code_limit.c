/*
 * The limit of CS inside a page, and blocks under several code segments.
 */
#include "cpu_rig.h"

/* Real mode, so the vector's handler is where the IVT says: 0:vector * 16. */
static void real_open(struct cpu_rig *r, unsigned cs)
{
    rig_open(r);
    rig_real(r);
    for (unsigned k = 0; k < 256; k++)
        rig_poke(r, 4 * k, 0x20000000 | 16 * k, 4);
    vcpu_set_segment(r->v, SEG_CS, (uint16_t)cs, cs << 4, 0xffff, 0x93);
    vcpu_refresh(r->v);
}

static void code_put(struct cpu_rig *r, gpa_t at, const char *bytes, size_t n)
{
    mem_access(r->mem, 0, at, (void *)(uintptr_t)bytes, n, MEM_HOST_POKE, true, BUS_NO_CPU);
}

START_TEST(execution_past_the_limit_of_cs_inside_a_page_is_a_protection_fault)
{
    struct cpu_rig r;
    real_open(&r, 0x1847); /* offset 0xffff lies at 0x2846f, not at a page's end */
    code_put(&r, 0x28470 - 4, "\x90\x90\x90\x90\x90\x90\x90\x90\xf4", 9);
    r.v->rip = 0xfffc;
    for (unsigned k = 0; k < 4 && r.v->seg[SEG_CS].sel == 0x1847; k++)
        vcpu_run(r.v, 100);
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, 0x2000);
    ck_assert_uint_eq(r.v->rip, 16 * EXC_GP);
    ck_assert_uint_eq(rig_peek(&r, r.v->gpr[REG_RSP], 2), 0); /* IP as it was pushed: 0x10000, in 16 bits */
    ck_assert_uint_eq(r.clock.icount, 5);                     /* four NOPs and the delivery */
    rig_close(&r);
}
END_TEST

START_TEST(an_instruction_that_begins_inside_the_limit_of_cs_and_ends_outside_faults)
{
    struct cpu_rig r;
    real_open(&r, 0x1847);
    code_put(&r, 0x28470 - 2, "\xb8\x34\x12", 3); /* MOV AX, 1234h */
    r.v->rip = 0xfffe;
    vcpu_run(r.v, 1); /* the fault is delivered in the same call */
    ck_assert_uint_eq(r.v->rip, 16 * EXC_GP);
    ck_assert_uint_eq(rig_peek(&r, r.v->gpr[REG_RSP], 2), 0xfffe);
    ck_assert_uint_ne(r.v->gpr[REG_RAX] & 0xffff, 0x1234);
    rig_close(&r);
}
END_TEST

START_TEST(the_limit_of_cs_is_the_same_for_long_runs_and_single_steps)
{
    struct cpu_rig r[2];
    for (unsigned k = 0; k < 2; k++) {
        real_open(&r[k], 0x1847);
        code_put(&r[k], 0x28470 - 8, "\x90\xeb\x01\x90\x90\xb8\x01\x00\x90\xf4", 10);
        r[k].v->rip = 0xfff8;
        for (unsigned n = 0; n < 400 && r[k].clock.icount < 5; n++)
            vcpu_run(r[k].v, k ? 1 : 5 - r[k].clock.icount);
    }
    ck_assert_uint_eq(r[0].v->rip, r[1].v->rip);
    ck_assert_uint_eq(r[0].v->seg[SEG_CS].sel, r[1].v->seg[SEG_CS].sel);
    rig_close(&r[0]);
    rig_close(&r[1]);
}
END_TEST

START_TEST(the_same_offset_under_another_cs_is_other_code)
{
    struct cpu_rig r;
    real_open(&r, 0x1000);
    code_put(&r, 0x10000, "\x40\xea\x00\x00\x00\x18", 6); /* INC AX; JMP 1800:0 */
    code_put(&r, 0x18000, "\x43\xea\x00\x00\x00\x10", 6); /* INC BX; JMP 1000:0 */
    r.v->gpr[REG_RAX] = r.v->gpr[REG_RBX] = 0;
    r.v->rip = 0;
    for (unsigned n = 0; n < 400 && r.clock.icount < 12; n++)
        vcpu_run(r.v, 12 - r.clock.icount);
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 3);
    ck_assert_uint_eq(r.v->gpr[REG_RBX], 3);
    rig_close(&r);
}
END_TEST

/* Without a branch: a block that is as long as blocks may be leads to the next, which is known the second time. */
START_TEST(the_limit_of_cs_holds_for_a_block_behind_a_long_one)
{
    enum { TURNS = 5, NOPS = 0x100, UNITS = TURNS * (NOPS + 2) };
    struct cpu_rig r[2];
    for (unsigned k = 0; k < 2; k++) {
        char nops[NOPS + 0x40];
        memset(nops, 0x90, sizeof nops);
        real_open(&r[k], 0x1847);
        code_put(&r[k], 0x28470 - NOPS, nops, sizeof nops);
        code_put(&r[k], 0x20000 + 16 * EXC_GP, "\xea\x00\xff\x47\x18", 5); /* JMP 1847:ff00 */
        r[k].v->rip = 0x10000 - NOPS;
        for (unsigned n = 0; n < 2 * UNITS && r[k].clock.icount < UNITS; n++)
            vcpu_run(r[k].v, k ? 1 : UNITS - r[k].clock.icount);
    }
    ck_assert_uint_eq(r[0].clock.icount, r[1].clock.icount);
    ck_assert_uint_eq(r[0].v->rip, r[1].v->rip);
    ck_assert_uint_eq(r[0].v->gpr[REG_RSP], r[1].v->gpr[REG_RSP]);
    rig_close(&r[0]);
    rig_close(&r[1]);
}
END_TEST

static Suite *code_limit_suite(void)
{
    const TTest *const tests[] = {execution_past_the_limit_of_cs_inside_a_page_is_a_protection_fault,
                                  an_instruction_that_begins_inside_the_limit_of_cs_and_ends_outside_faults,
                                  the_limit_of_cs_is_the_same_for_long_runs_and_single_steps,
                                  the_same_offset_under_another_cs_is_other_code,
                                  the_limit_of_cs_holds_for_a_block_behind_a_long_one};
    return rig_suite("code limit", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(code_limit_suite)
