/*
 * Vector instructions from SSSE3 to AVX2, FMA and F16C against the host.
 *
 * The instructions come from the table: every row of these extensions is executed with random registers, memory
 * operands, immediates, MXCSR and whatever the encoding leaves open. A row without a handler fails; a row that the host
 * does not have is counted and named.
 */
#include "cpu/interp/avx.h"
#include "fpu_oracle.h"

#include <cpuid.h>

#define CASES_A_ROW 2000

static bool host_has(unsigned gate)
{
    switch (gate) {
    case GATE_SSSE3:
        return __builtin_cpu_supports("ssse3");
    case GATE_SSE41:
        return __builtin_cpu_supports("sse4.1");
    case GATE_SSE42:
        return __builtin_cpu_supports("sse4.2");
    case GATE_AES:
        return __builtin_cpu_supports("aes");
    case GATE_PCLMUL:
        return __builtin_cpu_supports("pclmul");
    case GATE_SHA: {
        unsigned a, b = 0, c, d;
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
    }
    case GATE_AVX:
        return __builtin_cpu_supports("avx");
    case GATE_AVX2:
        return __builtin_cpu_supports("avx2");
    case GATE_FMA:
        return __builtin_cpu_supports("fma");
    case GATE_F16C: {
        unsigned a, b, c = 0, d;
        return __get_cpuid(1, &a, &b, &c, &d) && c >> 29 & 1;
    }
    default:
        return false;
    }
}

static bool is_vector_gate(unsigned gate)
{
    switch (gate) {
    case GATE_SSSE3:
    case GATE_SSE41:
    case GATE_SSE42:
    case GATE_AES:
    case GATE_PCLMUL:
    case GATE_SHA:
    case GATE_AVX:
    case GATE_AVX2:
    case GATE_FMA:
    case GATE_F16C:
        return true;
    default:
        return false;
    }
}

/* Rows that have a test of their own. */
static bool is_elsewhere(const struct op_form *f)
{
    return f->op == OP_VLDMXCSR || f->op == OP_VSTMXCSR || f->op == OP_POPCNT || f->props & PROP_VSIB;
}

static unsigned map_of(const struct op_form *f)
{
    return f->key >> 8;
}

struct encoding {
    unsigned reg, rm, vvvv, w, l;
    bool has_mem;
};

static bool is_general(unsigned kind)
{
    return kind == KIND_G || kind == KIND_G32;
}

static unsigned pick_register(struct oracle *o, unsigned kind)
{
    return oracle_below(o, is_general(kind) ? 4 : kind == KIND_M ? 8 : 16);
}

/* What the row leaves open, at random. */
static struct encoding choose(struct oracle *o, const struct op_form *f)
{
    struct encoding e = {0};
    bool vex_first = f->enc == ENC_RVM || f->enc == ENC_RMV || f->enc == ENC_VM || f->enc == ENC_RVMI ||
                     f->enc == ENC_VMI || f->enc == ENC_MVR;
    e.has_mem = f->modrm == RM_MEM || (f->modrm == RM_R && oracle_below(o, 2));
    e.reg = pick_register(o, f->reg_kind);
    e.rm = pick_register(o, f->rm_kind);
    e.vvvv = vex_first ? oracle_below(o, 16) : 0;
    e.w = f->prefix & PP_W1 ? 1 : f->prefix & PP_W0 ? 0 : oracle_below(o, 2);
    e.l = f->prefix & PP_L1 ? 1 : f->prefix & PP_L0 ? 0 : oracle_below(o, 2);
    return e;
}

/* The ModRM byte and the immediate; memory operands are at [rsi]. */
static unsigned put_operands(struct oracle *o, const struct op_form *f, const struct encoding *e, uint8_t *p)
{
    unsigned n = 0, want = f->modrm;
    if (want >= 0x18 && want < 0x20)
        p[n++] = (uint8_t)(0xc0 | (want & 7) << 3 | (e->rm & 7));
    else if (want)
        p[n++] = (uint8_t)(e->has_mem ? (e->reg & 7) << 3 | 6 : 0xc0 | (e->reg & 7) << 3 | (e->rm & 7));
    if (f->imm == IMM_UB)
        p[n++] = (uint8_t)(oracle_below(o, 2) ? oracle_random(o) : oracle_below(o, 36));
    return n;
}

static unsigned make_legacy(struct oracle *o, const struct op_form *f, uint8_t *p)
{
    static const uint8_t prefix[] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    struct encoding e = choose(o, f);
    unsigned n = 0, kind = f->prefix & PP_KIND;
    unsigned rex = e.w << 3 | (e.reg >> 3) << 2 | (e.has_mem ? 0 : e.rm >> 3);
    if (f->op == OP_CRC32 && oracle_below(o, 2))
        p[n++] = 0x66;
    if (kind >= PP_P66)
        p[n++] = prefix[kind];
    if (rex)
        p[n++] = (uint8_t)(0x40 | rex);
    p[n++] = 0x0f;
    p[n++] = map_of(f) == MAP_38 ? 0x38 : 0x3a;
    p[n++] = (uint8_t)f->key;
    return n + put_operands(o, f, &e, p + n);
}

static unsigned make_vex(struct oracle *o, const struct op_form *f, uint8_t *p)
{
    struct encoding e = choose(o, f);
    unsigned n = 0, pp = (f->prefix & PP_KIND) == PP_NP    ? 0
                         : (f->prefix & PP_KIND) == PP_P66 ? 1
                         : (f->prefix & PP_KIND) == PP_PF3 ? 2
                                                           : 3;
    unsigned last = (~e.vvvv & 15) << 3 | e.l << 2 | pp, high = e.has_mem ? 0 : e.rm >> 3;
    if (map_of(f) == MAP_V0F && !e.w && !high && oracle_below(o, 2)) {
        p[n++] = 0xc5;
        p[n++] = (uint8_t)(!(e.reg >> 3) << 7 | last);
    } else {
        p[n++] = 0xc4;
        p[n++] = (uint8_t)(!(e.reg >> 3) << 7 | 1 << 6 | !high << 5 | (map_of(f) - MAP_V0F + 1));
        p[n++] = (uint8_t)(e.w << 7 | last);
    }
    p[n++] = (uint8_t)f->key;
    return n + put_operands(o, f, &e, p + n);
}

static void check_row(struct oracle *o, const struct op_form *f)
{
    const char *is_long = getenv("UMBRA_LONG");
    unsigned cases = CASES_A_ROW * (is_long && !strcmp(is_long, "1") ? 100 : 1);
    for (unsigned k = 0; k < cases; k++) {
        struct oracle_state s;
        uint8_t bytes[16];
        oracle_randomize(o, &s);
        if (f->gate == GATE_SSE42 && k % 2) { /* lengths, and strings that end */
            s.gpr[0] = oracle_below(o, 40) - 20ull;
            s.gpr[2] = oracle_below(o, 40) - 20ull;
            for (unsigned n = 0; n < 256; n++)
                s.fx[160 + n] &= 0x83;
        }
        unsigned len = (map_of(f) >= MAP_V0F ? make_vex : make_legacy)(o, f, bytes);
        oracle_check(o, &s, bytes, len, 0);
    }
}

/* Checks all rows of a gate; returns their number. */
static unsigned check_gate(struct oracle *o, unsigned gate)
{
    unsigned rows = 0;
    for (unsigned n = 1; n < optable_form_count; n++) {
        const struct op_form *f = &optable_forms[n];
        if (f->gate != gate || !is_vector_gate(gate) || is_elsewhere(f))
            continue;
        rows++;
        check_row(o, f);
    }
    return rows;
}

static const struct {
    unsigned gate, rows;
    const char *name;
} extensions[] = {{GATE_SSSE3, 32, "SSSE3"}, {GATE_SSE41, 49, "SSE4.1"},    {GATE_SSE42, 7, "SSE4.2"},
                  {GATE_AES, 12, "AES"},     {GATE_PCLMUL, 2, "PCLMULQDQ"}, {GATE_SHA, 7, "SHA"},
                  {GATE_AVX, 282, "AVX"},    {GATE_AVX2, 100, "AVX2"},      {GATE_FMA, 60, "FMA"},
                  {GATE_F16C, 2, "F16C"}};

/* The software that stands in for FMA where the host has none; here it is held against a host that has it. */
START_TEST(fma_in_software_agrees_with_the_host)
{
    struct oracle o;
    oracle_open(&o);
    o.bind = bind_avx_fma_soft;
    if (host_has(GATE_FMA))
        ck_assert_uint_eq(check_gate(&o, GATE_FMA), 60);
    oracle_close(&o);
}
END_TEST

START_TEST(every_row_of_an_extension_agrees_with_the_host)
{
    struct oracle o;
    oracle_open(&o);
    if (!host_has(extensions[_i].gate))
        fprintf(stderr, "%s: the host has none, not compared\n", extensions[_i].name);
    else
        ck_assert_uint_ge(check_gate(&o, extensions[_i].gate), extensions[_i].rows);
    oracle_close(&o);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu vector");
    TCase *tc = tcase_create("host");
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, every_row_of_an_extension_agrees_with_the_host, 0, ARRAY_LEN(extensions));
    tcase_add_test(tc, fma_in_software_agrees_with_the_host);
    suite_add_tcase(s, tc);
    return s;
}

CHECK_MAIN(suite)
