/*
 * x87 instructions against the host, and their rules. Every x87 row of the table is executed with random stacks, control
 * words (rounding, precision, masks) and memory operands.
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
    case OP_FLDENV: case OP_FNSTENV: case OP_FNSAVE: case OP_FRSTOR:
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

static Suite *suite(void)
{
    const TTest *const tests[] = {every_x87_row_agrees_with_the_host};
    return rig_suite("cpu x87", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
