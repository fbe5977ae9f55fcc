/*
 * MMX and SSE instructions against the host, and their rules.
 *
 * The instructions come from the table: every row of the extensions that CPUID offers is executed with random
 * registers, memory operands, immediates and MXCSR.
 */
#include "fpu_oracle.h"

#define CASES_A_ROW 400

static bool is_offered(unsigned gate)
{
    return gate == GATE_MMX || gate == GATE_SSE || gate == GATE_SSE2 || gate == GATE_SSE3;
}

/* Rows that have a test of their own, or another suite. */
static bool is_elsewhere(const struct op_form *f)
{
    switch (f->op) {
    case OP_LDMXCSR:
    case OP_STMXCSR:
    case OP_SFENCE:
    case OP_LFENCE:
    case OP_MFENCE:
    case OP_MOVNTI:
        return true;
    default:
        return f->gate == GATE_SSE3 && f->op == OP_FISTTP;
    }
}

/* A random instruction of the row; memory operands are at [rsi]. Returns its length. */
static unsigned make_insn(struct oracle *o, const struct op_form *f, uint8_t *p)
{
    static const uint8_t prefix[] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    unsigned n = 0, kind = f->prefix & PP_KIND, want = f->modrm;
    bool digit = want >= 0x18 && want < 0x20, has_mem = want == RM_MEM || (want == RM_R && oracle_below(o, 2));
    /* CVTPI2PS from memory enters MMX state by the manual, and on some processors does not. */
    has_mem = has_mem && f->op != OP_CVTPI2PS;
    bool reg_general = f->reg_kind == KIND_G || f->reg_kind == KIND_G32,
         rm_general = f->rm_kind == KIND_G || f->rm_kind == KIND_G32;
    unsigned reg = oracle_below(o, reg_general ? 4 : 8), rm = oracle_below(o, rm_general ? 4 : 8);
    unsigned rex = 0x40 | (oracle_below(o, 2) ? 8 : 0);
    if (!reg_general && !digit && oracle_below(o, 2))
        rex |= 4;
    if (!rm_general && !has_mem && oracle_below(o, 2))
        rex |= 1;
    if (kind >= PP_P66)
        p[n++] = prefix[kind];
    if (oracle_below(o, 2))
        p[n++] = (uint8_t)rex;
    p[n++] = 0x0f;
    p[n++] = (uint8_t)f->key;
    if (digit)
        p[n++] = (uint8_t)(0xc0 | (want & 7) << 3 | rm);
    else if (want)
        p[n++] = (uint8_t)(has_mem ? reg << 3 | 6 : 0xc0 | reg << 3 | rm);
    if (f->imm == IMM_UB)
        p[n++] = (uint8_t)(oracle_below(o, 2) ? oracle_random(o) : oracle_below(o, 20));
    return n;
}

START_TEST(every_sse_row_agrees_with_the_host)
{
    struct oracle o;
    unsigned rows = 0;
    oracle_open(&o);
    for (unsigned n = 1; n < optable_form_count; n++) {
        const struct op_form *f = &optable_forms[n];
        if (f->key >> 8 != MAP_0F || !is_offered(f->gate) || is_elsewhere(f))
            continue;
        rows++;
        for (unsigned k = 0; k < CASES_A_ROW; k++) {
            struct oracle_state s;
            uint8_t bytes[16];
            oracle_randomize(&o, &s);
            unsigned len = make_insn(&o, f, bytes);
            oracle_check(&o, &s, bytes, len, 0);
        }
    }
    ck_assert_uint_gt(rows, 250);
    ck_assert_uint_gt(o.faults, 1000);
    oracle_close(&o);
}
END_TEST

/* Operations whose results are tiny and exact, with underflow unmasked and FTZ set. */
START_TEST(tiny_exact_results_underflow_when_unmasked)
{
    struct oracle o;
    static const uint8_t op[] = {0x58, 0x59, 0x5c, 0x5e};
    oracle_open(&o);
    for (unsigned k = 0; k < 4000; k++) {
        struct oracle_state s;
        uint32_t mxcsr = 0x1780 | (oracle_below(&o, 2) ? 0x8000 : 0) | oracle_below(&o, 4) << 13;
        uint8_t bytes[4] = {0x0f, op[k % 4], 0xc1};
        oracle_randomize(&o, &s);
        memcpy(s.fx + 24, &mxcsr, 4);
        for (unsigned lane = 0; lane < 4; lane++) {
            uint32_t a = 0x00800000 + (oracle_below(&o, 8) << 20), b = k % 4 == 1 || k % 4 == 3
                                                                           ? 0x3f000000 + (oracle_below(&o, 5) << 23)
                                                                           : a - (oracle_below(&o, 3) << 19);
            memcpy(s.fx + 160 + 4 * lane, &a, 4);
            memcpy(s.fx + 176 + 4 * lane, &b, 4);
        }
        oracle_check(&o, &s, bytes, 3, 0);
    }
    ck_assert_uint_gt(o.faults, 100);
    oracle_close(&o);
}
END_TEST

/* ---- rules ---- */

static void open_ready(struct cpu_rig *r)
{
    rig_open(r);
    rig_long(r);
    r->v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    vcpu_refresh(r->v);
    r->v->gpr[REG_RSI] = RIG_DATA;
}

START_TEST(sse_without_osfxsr_is_undefined)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->cr4 &= ~CR4_OSFXSR;
    rig_exec(&r, "\x0f\x58\xc1"); /* addps xmm0, xmm1 */
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(mmx_does_not_ask_for_osfxsr)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->cr4 &= ~CR4_OSFXSR;
    r.v->fpu.st[0].mant = 5;
    rig_exec(&r, "\x0f\xfc\xc0"); /* paddb mm0, mm0 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 3);
    ck_assert_uint_eq(r.v->fpu.st[0].mant, 10);
    ck_assert_uint_eq(r.v->fpu.st[0].exp, 0xffff);
    rig_close(&r);
}
END_TEST

START_TEST(what_the_model_does_not_offer_is_undefined)
{
    struct cpu_rig r;
    rig_open_model(&r, "base,-pni");
    rig_long(&r);
    r.v->cr4 |= CR4_OSFXSR;
    rig_exec(&r, "\xf2\x0f\x7c\xc1"); /* haddps xmm0, xmm1 */
    rig_expect_vector(&r, EXC_UD);
    r.v->rip = RIG_CODE;
    rig_exec(&r, "\xf2\x0f\x58\xc1"); /* addsd xmm0, xmm1 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 4);
    rig_close(&r);
}
END_TEST

START_TEST(task_switched_is_device_not_available_and_emulation_undefined)
{
    struct cpu_rig r;
    static const struct {
        const char *bytes;
        unsigned len;
    } insn[] = {{"\x0f\x28\xc1", 3}, {"\x66\x0f\xef\xc0", 4}, {"\x0f\x10\x06", 3},
                {"\x0f\xef\xc0", 3}, {"\x0f\x2f\xc1", 3},     {"\x0f\x77", 2}};
    open_ready(&r);
    for (unsigned k = 0; k < ARRAY_LEN(insn); k++) {
        r.v->cr0 |= CR0_TS;
        r.v->rip = RIG_CODE;
        rig_exec_bytes(&r, insn[k].bytes, insn[k].len);
        rig_expect_vector(&r, EXC_NM);
        r.v->cr0 |= CR0_EM;
        r.v->rip = RIG_CODE;
        rig_exec_bytes(&r, insn[k].bytes, insn[k].len);
        rig_expect_vector(&r, EXC_UD);
        r.v->cr0 &= ~(CR0_TS | CR0_EM);
    }
    rig_close(&r);
}
END_TEST

START_TEST(misaligned_operand_is_gp_unless_the_form_allows_it)
{
    struct cpu_rig r;
    static const struct {
        const char *bytes;
        unsigned len;
        bool aligned;
    } insn[] = {{"\x0f\x28\x06", 3, true},      {"\x0f\x29\x06", 3, true},         {"\x66\x0f\x6f\x06", 4, true},
                {"\x66\x0f\x7f\x06", 4, true},  {"\x66\x0f\xfc\x06", 4, true},     {"\x0f\x58\x06", 3, true},
                {"\x0f\x2b\x06", 3, true},      {"\x66\x0f\x70\x06\x1b", 5, true}, {"\x0f\x10\x06", 3, false},
                {"\xf3\x0f\x6f\x06", 4, false}, {"\xf3\x0f\x7f\x06", 4, false},    {"\xf2\x0f\xf0\x06", 4, false},
                {"\xf3\x0f\x58\x06", 4, false}, {"\x0f\x5a\x06", 3, false},        {"\xf3\x0f\xe6\x06", 4, false},
                {"\x0f\xfc\x06", 3, false}};
    open_ready(&r);
    for (unsigned k = 0; k < ARRAY_LEN(insn); k++) {
        r.v->rip = RIG_CODE;
        r.v->gpr[REG_RSI] = RIG_DATA + 8;
        rig_exec_bytes(&r, insn[k].bytes, insn[k].len);
        if (insn[k].aligned)
            rig_expect_fault64(&r, EXC_GP, 0);
        else
            ck_assert_uint_eq(r.v->rip, RIG_CODE + insn[k].len);
    }
    rig_close(&r);
}
END_TEST

START_TEST(unmasked_exception_without_osxmmexcpt_is_undefined)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->mxcsr = 0x1d80; /* division by zero unmasked */
    r.v->xmm[0].d[0] = 0x3f800000;
    r.v->xmm[1].d[0] = 0;
    rig_exec(&r, "\xf3\x0f\x5e\xc1"); /* divss xmm0, xmm1 */
    rig_expect_vector(&r, EXC_XM);
    ck_assert_uint_eq(r.v->mxcsr, 0x1d84);
    ck_assert_uint_eq(r.v->xmm[0].d[0], 0x3f800000);
    r.v->cr4 &= ~CR4_OSXMMEXCPT;
    r.v->rip = RIG_CODE;
    rig_exec(&r, "\xf3\x0f\x5e\xc1");
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(vector_store_across_pages_faults_before_the_first_byte)
{
    struct cpu_rig r;
    open_ready(&r);
    rig_poke(&r, RIG_PT + 8 * (RIG_DATA / 4096 + 1), 0, 8);
    rig_poke(&r, RIG_DATA + 4088, 0x1122334455667788, 8);
    r.v->gpr[REG_RSI] = RIG_DATA + 4088;
    rig_exec(&r, "\x0f\x11\x06"); /* movups [rsi], xmm0 */
    rig_expect_fault64(&r, EXC_PF, 2);
    ck_assert_uint_eq(r.v->cr2, RIG_DATA + 4096);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 4088, 8), 0x1122334455667788);
    rig_close(&r);
}
END_TEST

/* But it asks for the whole operand's pages, as AMD's processors do. */
START_TEST(masked_store_checks_all_and_changes_the_selected_bytes_alone)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->gpr[REG_RDI] = RIG_DATA + 4088;
    r.v->xmm[0].q[0] = 0x8877665544332211;
    r.v->xmm[0].q[1] = ~0ull;
    r.v->xmm[1].q[0] = 0x8000000000008000;
    r.v->xmm[1].q[1] = 0x7f7f7f7f7f7f7f7f;
    rig_exec(&r, "\x66\x0f\xf7\xc1"); /* maskmovdqu xmm0, xmm1 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 4);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 4088, 8), 0x8800000000002200);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 4096, 8), 0);
    rig_poke(&r, RIG_PT + 8 * (RIG_DATA / 4096 + 1), 0, 8);
    r.v->xmm[0].q[0] = 0;
    r.v->rip = RIG_CODE;
    rig_exec(&r, "\x66\x0f\xf7\xc1");
    rig_expect_fault64(&r, EXC_PF, 2);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 4088, 8), 0x8800000000002200);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {every_sse_row_agrees_with_the_host,
                                  tiny_exact_results_underflow_when_unmasked,
                                  sse_without_osfxsr_is_undefined,
                                  mmx_does_not_ask_for_osfxsr,
                                  what_the_model_does_not_offer_is_undefined,
                                  task_switched_is_device_not_available_and_emulation_undefined,
                                  misaligned_operand_is_gp_unless_the_form_allows_it,
                                  unmasked_exception_without_osxmmexcpt_is_undefined,
                                  vector_store_across_pages_faults_before_the_first_byte,
                                  masked_store_checks_all_and_changes_the_selected_bytes_alone};
    return rig_suite("cpu sse", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
