/* System management mode: entry, the save area, RSM, relocation. */
#include "cpu_rig.h"

enum { SMBASE = 0x30000, SMM_CODE = SMBASE + 0x8000, OTHER_BASE = 0x50000 };

static struct cpu_rig r;
static unsigned entered, left;

static void on_smm(void *ctx, bool in)
{
    (void)ctx;
    if (in)
        entered++;
    else
        left++;
}

static void setup(const char *model)
{
    rig_open_model(&r, model);
    rig_long(&r);
    entered = left = 0;
    r.v->on_smm = on_smm;
}

static void smi(void)
{
    struct irq_line line = vcpu_pin(r.v, CPU_PIN_SMI);
    irq_pulse(&line);
    vcpu_run(r.v, 1);
}

/* Executes bytes at CS:RIP, in SMM as outside. */
static void rsm(void)
{
    rig_exec(&r, "\x0f\xaa");
}

START_TEST(smi_enters_at_smbase_in_flat_real_mode)
{
    setup("base");
    smi();
    struct vcpu *v = r.v;
    ck_assert(v->in_smm);
    ck_assert_uint_eq(entered, 1);
    ck_assert_uint_eq(v->rip, 0x8000);
    ck_assert_uint_eq(v->seg[SEG_CS].base, SMBASE);
    ck_assert_uint_eq(v->seg[SEG_CS].sel, SMBASE >> 4);
    ck_assert_uint_eq(v->seg[SEG_DS].limit, 0xffffffff);
    ck_assert(!(v->cr0 & (CR0_PE | CR0_PG)));
    ck_assert_uint_eq(v->cr4 | v->efer, 0);
    ck_assert_uint_eq(vcpu_rflags(v), 2);
    ck_assert_uint_eq(v->cpl, 0);
    rig_close(&r);
}
END_TEST

START_TEST(save_area_has_the_layout_that_firmware_reads)
{
    setup("base");
    r.v->gpr[REG_RAX] = 0x1122334455667788;
    r.v->gpr[15] = 0xf15;
    smi();
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7efc, 4), 0x20064);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7f00, 4), SMBASE);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7ff8, 8), 0x1122334455667788);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7f80, 8), 0xf15);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7f78, 8), RIG_CODE);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7f50, 8), RIG_PML4);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7ed0, 8), EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7e10, 2), SEL_CODE0);
    rig_close(&r);
    setup("base,-lm");
    rig_protected(&r);
    r.v->cr4 = 0;
    r.v->cr3 = 0x5000;
    r.v->efer = 0;
    vcpu_refresh(r.v);
    smi();
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7efc, 4), 0x20000);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7ef8, 4), SMBASE);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7ff0, 4), RIG_CODE);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7fac, 2), SEL_CODE0);
    ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7ff8, 4), 0x5000);
    rig_close(&r);
}
END_TEST

static void round_trip(void)
{
    struct vcpu before;
    vcpu_set_rflags(r.v, FLAG_IF | FLAG_CF | FLAG_ZF | 2);
    r.v->gpr[REG_RBX] = 0x1234;
    before = *r.v;
    smi();
    r.v->gpr[REG_RBX] = 0x9999;
    vcpu_set_rflags(r.v, FLAG_OF | 2);
    rsm();
    ck_assert(!r.v->in_smm);
    ck_assert_uint_eq(left, 1);
    ck_assert_uint_eq(r.v->rip, before.rip);
    ck_assert_uint_eq(r.v->gpr[REG_RBX], 0x1234);
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_IF | FLAG_CF | FLAG_ZF | 2);
    ck_assert_uint_eq(r.v->cr0, before.cr0);
    ck_assert_uint_eq(r.v->cr3, before.cr3);
    ck_assert_uint_eq(r.v->cr4, before.cr4);
    ck_assert_uint_eq(r.v->efer, before.efer);
    ck_assert_uint_eq(r.v->cpl, before.cpl);
    ck_assert_uint_eq(r.v->mode, before.mode);
    for (unsigned k = 0; k < 6; k++) {
        ck_assert_uint_eq(r.v->seg[k].base, before.seg[k].base);
        ck_assert_uint_eq(r.v->seg[k].limit, before.seg[k].limit);
        ck_assert_uint_eq(r.v->seg[k].attr, before.seg[k].attr);
        ck_assert_uint_eq(r.v->seg[k].unusable, before.seg[k].unusable);
    }
    rig_exec(&r, "\x90");
    ck_assert_uint_eq(r.v->rip, before.rip + 1);
}

START_TEST(rsm_restores_what_smi_saved_in_every_mode)
{
    setup("base");
    round_trip();
    rig_close(&r);
    setup("base");
    rig_user(&r);
    round_trip();
    rig_close(&r);
    setup("base,-lm");
    r.v->efer = 0;
    r.v->cr4 = 0;
    rig_protected(&r);
    round_trip();
    rig_close(&r);
    rig_open(&r);
    left = 0;
    r.v->on_smm = on_smm;
    rig_real(&r);
    round_trip();
    rig_close(&r);
}
END_TEST

START_TEST(smbase_written_in_the_save_area_is_used_from_then_on)
{
    setup("base");
    smi();
    rig_poke(&r, SMM_CODE + 0x7f00, OTHER_BASE, 4);
    rsm();
    ck_assert_uint_eq(r.v->smbase, OTHER_BASE);
    smi();
    ck_assert_uint_eq(r.v->seg[SEG_CS].base, OTHER_BASE);
    rsm();
    vcpu_reset(r.v, true);
    ck_assert_uint_eq(r.v->smbase, OTHER_BASE);
    vcpu_reset(r.v, false);
    ck_assert_uint_eq(r.v->smbase, SMBASE);
    rig_close(&r);
}
END_TEST

START_TEST(rsm_outside_smm_is_undefined)
{
    setup("base");
    rsm();
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(smi_nmi_and_init_wait_for_rsm)
{
    setup("base");
    smi();
    struct irq_line pins[3] = {vcpu_pin(r.v, CPU_PIN_SMI), vcpu_pin(r.v, CPU_PIN_NMI), vcpu_pin(r.v, CPU_PIN_INIT)};
    irq_pulse(&pins[0]);
    irq_pulse(&pins[1]);
    irq_pulse(&pins[2]);
    rig_exec(&r, "\x90");
    ck_assert_uint_eq(r.v->rip, 0x8001);
    rsm();
    ck_assert_uint_eq(entered, 1);
    vcpu_run(r.v, 1);
    ck_assert_uint_eq(entered, 2); /* the SMI first */
    rsm();
    vcpu_run(r.v, 1);
    ck_assert_uint_eq(r.v->activity, VCPU_RUNNING);
    ck_assert(r.v->rip == 0xfff0 || r.v->seg[SEG_CS].base == 0xffff0000 || r.v->seg[SEG_CS].base == 0); /* INIT */
    rig_close(&r);
}
END_TEST

START_TEST(halted_processor_halts_again_unless_told_otherwise)
{
    for (unsigned told = 0; told < 2; told++) {
        setup("base");
        rig_exec(&r, "\xf4");
        ck_assert_uint_eq(r.v->activity, VCPU_HALTED);
        smi();
        ck_assert_uint_eq(rig_peek(&r, SMM_CODE + 0x7ec9, 1), 1);
        if (told)
            rig_poke(&r, SMM_CODE + 0x7ec9, 0, 1);
        rsm();
        ck_assert_uint_eq(r.v->activity, told ? VCPU_RUNNING : VCPU_HALTED);
        ck_assert_uint_eq(r.v->rip, RIG_CODE + 1);
        rig_close(&r);
    }
}
END_TEST

START_TEST(rsm_to_an_impossible_state_shuts_down)
{
    static const struct {
        unsigned off;
        uint64_t value;
    } bad[] = {
        {0x7f58, 0x80000010}, {0x7f58, 0x20000011}, {0x7f48, 0x80000000}, {0x7ed0, 0x400}, {0x7f70, 1u << 17 | 2}};
    for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
        setup("base");
        smi();
        rig_poke(&r, SMM_CODE + bad[k].off, bad[k].value, 4);
        rsm();
        ck_assert_uint_eq(r.v->activity, VCPU_SHUTDOWN);
        rig_close(&r);
    }
}
END_TEST

START_TEST(a20_is_not_masked_in_smm)
{
    setup("base");
    vcpu_set_a20(r.v, false);
    smi();
    ck_assert_uint_eq(r.v->mv->regs.a20_mask, ~0ull);
    rsm();
    ck_assert_uint_eq(r.v->mv->regs.a20_mask, ~(1ull << 20));
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {smi_enters_at_smbase_in_flat_real_mode,
                                  save_area_has_the_layout_that_firmware_reads,
                                  rsm_restores_what_smi_saved_in_every_mode,
                                  smbase_written_in_the_save_area_is_used_from_then_on,
                                  rsm_outside_smm_is_undefined,
                                  smi_nmi_and_init_wait_for_rsm,
                                  halted_processor_halts_again_unless_told_otherwise,
                                  rsm_to_an_impossible_state_shuts_down,
                                  a20_is_not_masked_in_smm};
    return rig_suite("smm", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
