/*
 * x87 instructions against the host, and their rules. Every x87 row of the table is executed with random stacks,
 * control words (rounding, precision, masks) and memory operands.
 */
#include "fpu_oracle.h"

#define CASES_A_ROW 1200

/* Where processors differ: FCOMI clears C1 by the manual, and on some only when the stack underflows. */
static uint16_t undefined_codes(unsigned op)
{
    return op == OP_FCOMI || op == OP_FCOMIP || op == OP_FUCOMI || op == OP_FUCOMIP ? FSW_C1 : 0;
}

/* Environment images hold pointers that are not compared; rules below test them. */
static bool is_elsewhere(const struct op_form *f)
{
    switch (f->op) {
    case OP_FLDENV:
    case OP_FNSTENV:
    case OP_FNSAVE:
    case OP_FRSTOR:
        return true;
    default:
        return false;
    }
}

/* Memory for the row: floats, doubles, extended, integers or packed decimal. */
static void make_memory(struct oracle *o, const struct op_form *f)
{
    uint64_t mant;
    uint16_t exp;
    if (f->op == OP_FBLD) {
        for (unsigned k = 0; k < 9; k++)
            o->mem[k] = (uint8_t)(oracle_below(o, 10) << 4 | oracle_below(o, 10));
        o->mem[9] = (uint8_t)(oracle_below(o, 2) << 7);
        return;
    }
    switch (f->size) {
    case SZ_D: {
        uint32_t x = oracle_float(o);
        memcpy(o->mem, &x, 4);
        break;
    }
    case SZ_Q: {
        uint64_t x = oracle_double(o);
        memcpy(o->mem, &x, 8);
        break;
    }
    case SZ_T:
        oracle_extended(o, &mant, &exp);
        memcpy(o->mem, &mant, 8);
        memcpy(o->mem + 8, &exp, 2);
        break;
    default:
        break;
    }
}

static unsigned make_insn(struct oracle *o, const struct op_form *f, uint8_t *p)
{
    unsigned want = f->modrm;
    if (f->key == (MAP_ONE << 8 | 0x9b)) {
        p[0] = 0x9b;
        return 1;
    }
    p[0] = (uint8_t)f->key;
    if (want >= 0xc0)
        p[1] = (uint8_t)want;
    else if (want >= 0x18 && want < 0x20)
        p[1] = (uint8_t)(0xc0 | (want & 7) << 3 | oracle_below(o, 8));
    else
        p[1] = (uint8_t)((want & 7) << 3 | 6);
    return 2;
}

START_TEST(every_x87_row_agrees_with_the_host)
{
    struct oracle o;
    unsigned rows = 0;
    oracle_open(&o);
    for (unsigned n = 1; n < optable_form_count; n++) {
        const struct op_form *f = &optable_forms[n];
        if (f->gate != GATE_X87 || is_elsewhere(f))
            continue;
        rows++;
        for (unsigned k = 0; k < CASES_A_ROW; k++) {
            struct oracle_state s;
            uint8_t bytes[4];
            oracle_randomize(&o, &s);
            make_memory(&o, f);
            unsigned len = make_insn(&o, f, bytes);
            oracle_check(&o, &s, bytes, len, undefined_codes(f->op));
        }
    }
    ck_assert_uint_gt(rows, 120);
    oracle_close(&o);
}
END_TEST

/* ---- rules ---- */

static void open_ready(struct cpu_rig *r)
{
    rig_open(r);
    rig_long(r);
    r->v->gpr[REG_RSI] = RIG_DATA;
    rig_exec(r, "\xdb\xe3"); /* fninit */
    r->v->rip = RIG_CODE;
}

/* Executes at the beginning of the code again and again. */
#define again(r, bytes)                                                                                                \
    do {                                                                                                               \
        (r)->v->rip = RIG_CODE;                                                                                        \
        rig_exec((r), bytes);                                                                                          \
    } while (0)

START_TEST(task_switched_and_emulation_are_device_not_available)
{
    struct cpu_rig r;
    open_ready(&r);
    for (unsigned k = 0; k < 2; k++) {
        r.v->cr0 |= k ? CR0_EM : CR0_TS;
        again(&r, "\xd9\xe8"); /* fld1 */
        rig_expect_vector(&r, EXC_NM);
        again(&r, "\xdb\xe3");
        rig_expect_vector(&r, EXC_NM);
        again(&r, "\xdf\xe0"); /* fnstsw ax */
        rig_expect_vector(&r, EXC_NM);
        r.v->cr0 &= ~(CR0_EM | CR0_TS);
    }
    rig_close(&r);
}
END_TEST

START_TEST(wait_needs_both_task_switched_and_monitor)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->cr0 |= CR0_TS;
    again(&r, "\x9b");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 1);
    r.v->cr0 |= CR0_MP;
    again(&r, "\x9b");
    rig_expect_vector(&r, EXC_NM);
    rig_close(&r);
}
END_TEST

START_TEST(unmasked_exception_is_raised_by_the_next_waiting_instruction)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->fpu.fcw = 0x37b;  /* division by zero unmasked */
    again(&r, "\xd9\xe8"); /* fld1 */
    again(&r, "\xd9\xee"); /* fldz */
    again(&r, "\xd8\xf9"); /* fdivr st(0), st(1): 1 / 0 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(r.v->fpu.fsw & (FSW_ZE | FSW_ES | FSW_B), FSW_ZE | FSW_ES | FSW_B);
    again(&r, "\xdf\xe0"); /* fnstsw does not wait */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    again(&r, "\xd9\xe8");
    rig_expect_vector(&r, EXC_MF);
    ck_assert_uint_eq(r.v->fpu.top, 6);
    again(&r, "\x9b");
    rig_expect_vector(&r, EXC_MF);
    again(&r, "\x0f\xef\xc0"); /* pxor mm0, mm0 */
    rig_expect_vector(&r, EXC_MF);
    again(&r, "\xdb\xe2"); /* fnclex */
    again(&r, "\x9b");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 1);
    rig_close(&r);
}
END_TEST

START_TEST(unmasking_a_set_flag_makes_it_pending)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->fpu.fsw |= FSW_PE;
    rig_poke(&r, RIG_DATA, 0x035f, 2);
    again(&r, "\xd9\x2e"); /* fldcw [rsi] */
    ck_assert_uint_eq(r.v->fpu.fcw, 0x035f);
    again(&r, "\x9b");
    rig_expect_vector(&r, EXC_MF);
    rig_close(&r);
}
END_TEST

START_TEST(environment_holds_words_tags_and_pointers)
{
    struct cpu_rig r;
    open_ready(&r);
    rig_poke(&r, RIG_DATA + 0x40, 0x4000000000000000, 8); /* 2.0 */
    r.v->gpr[REG_RSI] = RIG_DATA + 0x40;
    again(&r, "\xdd\x06"); /* fld qword [rsi] */
    again(&r, "\xd9\xee"); /* fldz */
    r.v->gpr[REG_RSI] = RIG_DATA;
    again(&r, "\xd9\x36"); /* fnstenv [rsi] */
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA, 4), 0xffff037f);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 4, 4), 0xffff3000);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 8, 4), 0xffff1fff); /* R7 valid, R6 zero */
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 12, 4), RIG_CODE);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 16, 2), SEL_CODE0);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 18, 2), 0x1ee);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 20, 4), RIG_DATA + 0x40);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 24, 2), SEL_DATA0);
    again(&r, "\x66\xd9\x36"); /* 16-bit form */
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA, 8), (uint64_t)(RIG_CODE & 0xffff) << 48 | 0x1fff3000037f);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 8, 4), (uint64_t)((RIG_DATA + 0x40) & 0xffff) << 16 | SEL_CODE0);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 12, 2), SEL_DATA0);
    rig_close(&r);
}
END_TEST

START_TEST(saved_state_comes_back)
{
    struct cpu_rig r;
    open_ready(&r);
    again(&r, "\xd9\xeb"); /* fldpi */
    again(&r, "\xd9\xe8");
    struct x87 before = r.v->fpu;
    again(&r, "\xdd\x36"); /* fnsave [rsi] */
    ck_assert_uint_eq(r.v->fpu.tag, 0);
    ck_assert_uint_eq(r.v->fpu.fcw, 0x37f);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 28, 8), 1ull << 63); /* ST(0) comes first */
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 38, 8), before.st[7].mant);
    memset(r.v->fpu.st, 0, sizeof r.v->fpu.st);
    again(&r, "\xdd\x26"); /* frstor [rsi] */
    ck_assert_uint_eq(r.v->fpu.tag, 0xc0);
    ck_assert_uint_eq(r.v->fpu.top, 6);
    for (unsigned k = 6; k < 8; k++) {
        ck_assert_uint_eq(r.v->fpu.st[k].mant, before.st[k].mant);
        ck_assert_uint_eq(r.v->fpu.st[k].exp, before.st[k].exp);
    }
    ck_assert_uint_eq(r.v->fpu.fip, before.fip);
    ck_assert_uint_eq(r.v->fpu.fop, before.fop);
    rig_close(&r);
}
END_TEST

START_TEST(store_that_faults_leaves_the_stack_alone)
{
    struct cpu_rig r;
    open_ready(&r);
    again(&r, "\xd9\xeb");
    rig_poke(&r, RIG_PT + 8 * (RIG_DATA / 4096), 0, 8);
    struct x87 before = r.v->fpu;
    static const struct {
        const char *bytes;
        unsigned len;
    } insn[] = {{"\xd9\x1e", 2}, {"\xdd\x1e", 2}, {"\xdb\x3e", 2}, {"\xdf\x3e", 2},
                {"\xdf\x36", 2}, {"\xdd\x36", 2}, {"\xd9\x36", 2}, {"\xd8\x06", 2}};
    for (unsigned k = 0; k < ARRAY_LEN(insn); k++) {
        r.v->rip = RIG_CODE;
        rig_exec_bytes(&r, insn[k].bytes, insn[k].len);
        rig_expect_vector(&r, EXC_PF);
        ck_assert_int_eq(memcmp(&before, &r.v->fpu, sizeof before), 0);
    }
    rig_close(&r);
}
END_TEST

START_TEST(mmx_makes_all_registers_valid_and_emms_frees_them)
{
    struct cpu_rig r;
    open_ready(&r);
    again(&r, "\xd9\xe8");
    again(&r, "\x0f\x6f\xc1"); /* movq mm0, mm1 */
    ck_assert_uint_eq(r.v->fpu.tag, 0xff);
    ck_assert_uint_eq(r.v->fpu.top, 0);
    again(&r, "\x0f\x77");
    ck_assert_uint_eq(r.v->fpu.tag, 0);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {every_x87_row_agrees_with_the_host,
                                  task_switched_and_emulation_are_device_not_available,
                                  wait_needs_both_task_switched_and_monitor,
                                  unmasked_exception_is_raised_by_the_next_waiting_instruction,
                                  unmasking_a_set_flag_makes_it_pending,
                                  environment_holds_words_tags_and_pointers,
                                  saved_state_comes_back,
                                  store_that_faults_leaves_the_stack_alone,
                                  mmx_makes_all_registers_valid_and_emms_frees_them};
    return rig_suite("cpu x87", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
