/*
 * Integer instructions in compiled code against the interpreter: short random programs of them, with every prefix,
 * operand and address size, in 64-bit, 32-bit and 16-bit code, with flat segments and with small ones, run in two
 * machines from the same random state. Both must end in the same state, faults included.
 */
#include "core/stats.h"
#include "cpu/jit/jit.h"
#include "cpu/optable.h"
#include "cpu_rig.h"

#include <inttypes.h>

#define PROGRAM_INSNS 7
#define PROGRAM_BYTES 128
#define PROGRAMS      1500
#define RUNS          3
#define DATA_BYTES    0x1000u

struct xorshift {
    uint64_t x;
};

static uint64_t next_random(struct xorshift *r)
{
    r->x ^= r->x << 13;
    r->x ^= r->x >> 7;
    r->x ^= r->x << 17;
    return r->x * 0x2545f4914f6cdd1dull;
}

static unsigned below(struct xorshift *r, unsigned n)
{
    return (unsigned)(next_random(r) >> 33) % n;
}

/* ---- scenes ---- */

static void data_segments(struct cpu_rig *r, uint64_t base, uint32_t limit, uint16_t attr)
{
    for (int s = SEG_ES; s <= SEG_GS; s++)
        if (s != SEG_CS && s != SEG_SS)
            vcpu_set_segment(r->v, s, 0x10, base, limit, attr);
}

static void open_long(struct cpu_rig *r)
{
    rig_long(r);
}

static void open_flat(struct cpu_rig *r)
{
    rig_protected(r);
}

/* Compatibility mode with FS and GS of their own. */
static void open_compat(struct cpu_rig *r)
{
    rig_long(r);
    rig_set_cpl(r, SEL_CODE32_0, SEL_DATA0, 0);
    vcpu_set_segment(r->v, SEG_FS, 0x10, RIG_DATA, 0x3ff, 0x4093);
    vcpu_set_segment(r->v, SEG_GS, 0x10, RIG_DATA, 0xffffffff, 0xc091);
}

/* 32-bit code over small segments: one that may not be written, one that expands down. */
static void open_small(struct cpu_rig *r)
{
    rig_protected(r);
    data_segments(r, RIG_DATA, 0x3ff, 0x4093);
    vcpu_set_segment(r->v, SEG_FS, 0x10, RIG_DATA, 0x3ff, 0x4091);
    vcpu_set_segment(r->v, SEG_GS, 0x10, RIG_DATA, 0x1ff, 0x4097);
    vcpu_set_segment(r->v, SEG_CS, SEL_CODE32_0, RIG_CODE - 0x3000, 0xffff, 0x409b);
    vcpu_set_segment(r->v, SEG_SS, 0x10, RIG_STACK & ~0xffffu, 0xffff, 0x0093);
}

static void open_16(struct cpu_rig *r)
{
    rig_protected(r);
    data_segments(r, RIG_DATA, 0xffff, 0x0093);
    vcpu_set_segment(r->v, SEG_CS, SEL_CODE16, RIG_CODE - 0x1000, 0xffff, 0x009b);
    vcpu_set_segment(r->v, SEG_SS, 0x10, RIG_STACK & ~0xffffu, 0xffffffff, 0xc093);
}

static void open_real(struct cpu_rig *r)
{
    rig_real(r);
    for (int s = SEG_ES; s <= SEG_GS; s++)
        if (s != SEG_CS)
            vcpu_set_segment(r->v, s, RIG_DATA >> 4, RIG_DATA, 0xffff, 0x93);
    for (unsigned vector = 0; vector < 32; vector++) { /* handlers at 4000:0 */
        rig_poke(r, 4 * vector, RIG_HANDLERS << 12 | 16 * vector, 4);
        rig_poke(r, RIG_HANDLERS + 16 * vector, 0xf4, 1);
    }
}

static const struct scene {
    const char *name;
    void (*open)(struct cpu_rig *r);
    uint32_t rip, stack;
    bool flat;
} scenes[] = {
    {"64-bit", open_long, RIG_CODE, RIG_STACK, true},
    {"32-bit", open_flat, RIG_CODE, RIG_STACK, true},
    {"compatibility", open_compat, RIG_CODE, RIG_STACK, true},
    {"small segments", open_small, 0x3000, 0x1000, false},
    {"16-bit", open_16, 0x1000, 0x1000, false},
    {"real", open_real, 0, 0x800, false},
};

/* ---- programs ---- */

static bool is_general(const struct op_form *f)
{
    return (f->reg_kind == KIND_G || f->reg_kind == KIND_S) && (f->rm_kind == KIND_G || f->rm_kind == KIND_S);
}

static bool is_wanted(const struct op_form *f)
{
    if (f->props & (PROP_ENDS | PROP_UD) || !is_general(f) || f->fault == FC_PRIV || f->fault == FC_IO ||
        f->fault == FC_FAR)
        return false;
    switch (f->gate) {
    case GATE_BASE:
    case GATE_P6:
    case GATE_CMOV:
    case GATE_CX8:
    case GATE_CX16:
    case GATE_POPCNT:
    case GATE_LZCNT:
    case GATE_BMI1:
    case GATE_BMI2:
    case GATE_MOVBE:
    case GATE_ADX:
    case GATE_SSE42:
        return true;
    default:
        return false;
    }
}

/* RAX, RCX, RDX and those that 64-bit code has more of may hold anything; the others are addresses. */
static bool is_value(unsigned reg)
{
    return (reg & 0x7f) < 3 || ((reg & 0x7f) >= 8 && (reg & 0x7f) < 16) || reg & BYTE_HIGH;
}

static bool is_address(const struct insn *i)
{
    return (i->base != REG_RSP && i->base < 8 && !is_value(i->base)) && i->index == REG_ZERO && i->disp >= -64 &&
           i->disp < 64;
}

static bool is_acceptable(const struct op_form *f, const struct insn *i)
{
    bool has_rm = f->modrm != RM_0;
    if (f->props & PROP_OPREG)
        return is_value(i->rm);
    if (!has_rm)
        return true;
    if (f->reg_kind == KIND_G && f->modrm <= RM_REG && !is_value(i->reg))
        return false;
    if (i->flags & INSN_VEX && !is_value(i->vvvv))
        return false;
    return i->flags & INSN_RM_REG ? is_value(i->rm) : is_address(i);
}

/* Random bytes that decode to the row. 0: not this time. */
static unsigned make_insn(struct xorshift *r, const struct op_form *f, unsigned mode, uint8_t *p)
{
    static const uint8_t mandatory[8] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    unsigned map = f->key >> 8, kind = f->prefix & PP_KIND, n = 0;
    bool wide = mode & MODE_CODE64;
    struct insn i;
    memset(p, 0, 15);
    if (!below(r, 8))
        p[n++] = 0x67;
    if (!below(r, 8))
        p[n++] = segments[below(r, 6)];
    if (map >= MAP_V0F) {
        p[n++] = 0xc4;
        p[n++] = (uint8_t)(((next_random(r) & 7) << 5 | (wide ? 0 : 0xc0)) | (map - MAP_V0F + 1));
        p[n++] = (uint8_t)((next_random(r) & 0xf8) | (kind == PP_P66   ? 1
                                                      : kind == PP_PF3 ? 2
                                                      : kind == PP_PF2 ? 3
                                                                       : 0));
    } else {
        if (!mandatory[kind] && !below(r, 4))
            p[n++] = 0x66;
        if (mandatory[kind])
            p[n++] = mandatory[kind];
        if (wide && below(r, 2))
            p[n++] = (uint8_t)(0x40 | (next_random(r) & 0xf));
        if (map != MAP_ONE)
            p[n++] = 0x0f;
        if (map == MAP_38 || map == MAP_3A)
            p[n++] = map == MAP_38 ? 0x38 : 0x3a;
    }
    p[n++] = (uint8_t)((f->key & 0xff) | (f->props & PROP_OPREG ? next_random(r) & 7 : 0) |
                       (f->props & PROP_CC ? next_random(r) & 15 : 0));
    for (unsigned k = 0; k < 6; k++)
        p[n + k] = (uint8_t)next_random(r);
    if (f->modrm != RM_0 && below(r, 2))
        p[n] = (uint8_t)((p[n] & 0x3f) | (below(r, 2) ? 0xc0 : 0x40));
    if (f->modrm != RM_0)
        p[n + 1] = (uint8_t)(below(r, 4) ? below(r, 64) : next_random(r));
    if (f->imm == IMM_OFF)
        memset(p + n, 0, 8), p[n] = 0x40, p[n + 1] = 2;
    if (insn_decode(&i, p, 15, mode, 0) != DECODE_OK || insn_form(&i) != f || !is_acceptable(f, &i) ||
        i.flags & INSN_ENDS)
        return 0;
    return i.len;
}

static unsigned make_program(struct xorshift *r, unsigned mode, uint8_t *p)
{
    unsigned len = 0;
    for (unsigned k = 0, tries = 0; k < PROGRAM_INSNS && tries < 2000; tries++) {
        const struct op_form *f = &optable_forms[1 + below(r, optable_form_count - 1)];
        unsigned n = is_wanted(f) ? make_insn(r, f, mode, p + len) : 0;
        len += n;
        k += n != 0;
    }
    p[len++] = 0xf4; /* hlt */
    return len;
}

/* ---- running ---- */

static uint64_t make_value(struct xorshift *r)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     ~0ull};
    unsigned kind = below(r, 3);
    return kind == 0 ? edges[below(r, ARRAY_LEN(edges))] : kind == 1 ? below(r, 70) : next_random(r);
}

static void set_state(struct cpu_rig *rig, const struct scene *s, uint64_t seed, const uint8_t *code, unsigned len)
{
    struct xorshift r = {seed | 1};
    struct vcpu *v = rig->v;
    uint8_t data[DATA_BYTES];
    for (unsigned n = 0; n < DATA_BYTES; n += 8) {
        uint64_t x = make_value(&r);
        memcpy(data + n, &x, 8);
    }
    for (unsigned n = 0; n < 16; n++)
        v->gpr[n] = make_value(&r);
    uint64_t base = s->flat ? RIG_DATA : 0;
    v->gpr[REG_RBX] = base + 0x80;
    v->gpr[REG_RSI] = base + 0x100;
    v->gpr[REG_RDI] = base + 0x1c0;
    v->gpr[REG_RBP] = (s->flat ? RIG_DATA : v->seg[SEG_SS].base == RIG_DATA ? 0 : s->stack) + 0x200;
    v->gpr[REG_RSP] = s->stack;
    v->rip = s->rip;
    v->cr2 = 0;
    v->activity = VCPU_RUNNING;
    vcpu_set_rflags(v, 2 | (next_random(&r) & (FLAGS_ARITH | (below(&r, 4) ? 0 : FLAG_DF))));
    mem_access(rig->mem, 0, RIG_DATA, data, sizeof data, MEM_HOST_POKE, true, BUS_NO_CPU);
    mem_access(rig->mem, 0, v->seg_base[SEG_CS] + v->rip, (void *)(uintptr_t)code, len, MEM_HOST_POKE, true,
               BUS_NO_CPU);
}

static void start(struct cpu_rig *r, const struct scene *s, uint64_t seed, const uint8_t *code, unsigned len)
{
    s->open(r);
    vcpu_refresh(r->v);
    set_state(r, s, seed, code, len);
}

static void run(struct cpu_rig *r, uint64_t units)
{
    uint64_t end = clock_now(&r->clock) + units;
    while (r->v->activity == VCPU_RUNNING && clock_now(&r->clock) < end)
        vcpu_run(r->v, end - clock_now(&r->clock));
}

static void describe(const uint8_t *code, unsigned len, unsigned mode, char *at)
{
    for (unsigned n = 0; n < len;) {
        struct insn i;
        if (insn_decode(&i, code + n, 15, mode, 0) != DECODE_OK)
            break;
        insn_print(&i, 0, at, 90);
        at += strlen(at);
        *at++ = ';';
        *at = 0;
        n += i.len;
    }
}

static void check_same(const struct cpu_rig *a, const struct cpu_rig *b, const char *what)
{
    static uint8_t one[0x50000], other[sizeof one];
    const struct vcpu *v = a->v, *w = b->v;
    for (unsigned n = 0; n < 16; n++)
        ck_assert_msg(v->gpr[n] == w->gpr[n], "%s: register %u: %#" PRIx64 ", compiled %#" PRIx64, what, n, v->gpr[n],
                      w->gpr[n]);
    ck_assert_msg(v->rip == w->rip && vcpu_rflags(v) == vcpu_rflags(w) && v->cr2 == w->cr2 &&
                      v->activity == w->activity,
                  "%s: rip %#" PRIx64 " %#" PRIx64 ", flags %#" PRIx64 " %#" PRIx64 ", cr2 %#" PRIx64 " %#" PRIx64,
                  what, v->rip, w->rip, vcpu_rflags(v), vcpu_rflags(w), v->cr2, w->cr2);
    ck_assert_msg(a->clock.icount == b->clock.icount, "%s: position", what);
    mem_access(a->mem, 0, 0, one, sizeof one, MEM_PEEK, false, BUS_NO_CPU);
    mem_access(b->mem, 0, 0, other, sizeof other, MEM_PEEK, false, BUS_NO_CPU);
    ck_assert_msg(!memcmp(one, other, sizeof one), "%s: memory", what);
}

static void compare(struct cpu_rig *a, struct cpu_rig *b, const struct scene *s, struct xorshift *r)
{
    uint8_t code[PROGRAM_BYTES];
    char text[PROGRAM_INSNS * 100 + 100];
    s->open(a);
    vcpu_refresh(a->v);
    unsigned mode = a->v->mode, len = make_program(r, mode, code);
    int n = snprintf(text, sizeof text, "%s: ", s->name);
    describe(code, len, mode, text + n);
    for (unsigned k = 0; k < RUNS; k++) {
        void (*put)(struct cpu_rig *, const struct scene *, uint64_t, const uint8_t *, unsigned) =
            k ? set_state : start;
        uint64_t seed = next_random(r);
        put(a, s, seed, code, len); /* first with empty TLBs, then with what the run before left */
        put(b, s, seed, code, len);
        run(a, 20000);
        run(b, 20000);
        check_same(a, b, text);
    }
}

START_TEST(integer_programs_end_as_in_the_interpreter)
{
    const struct scene *s = &scenes[_i];
    bool is_long = getenv("UMBRA_LONG") && strcmp(getenv("UMBRA_LONG"), "1") == 0, found;
    struct xorshift r = {0x9e3779b97f4a7c15ull + (unsigned)_i};
    struct cpu_rig a, b;
    struct log log;
    struct stats stats;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 4 << 20});
    ck_assert_ptr_nonnull(j);
    stats_init(&stats);
    jit_register_stats(j, &stats);
    rig_open_model(&a, "max");
    rig_open_model(&b, "max");
    b.v->jit = j;
    for (unsigned n = 0; n < (is_long ? 20u : 1u) * PROGRAMS; n++)
        compare(&a, &b, s, &r);
    ck_assert_uint_gt(stats_get(&stats, "jit.entries", &found), PROGRAMS);
    rig_close(&a);
    rig_close(&b);
    stats_fini(&stats);
    jit_destroy(j);
}
END_TEST

/* Once more from the first instruction, from other flags; translations and compiled code are there by now. */
static void run_again(struct cpu_rig *r, uint64_t flags)
{
    r->v->rip = RIG_CODE;
    r->v->activity = VCPU_RUNNING;
    vcpu_set_rflags(r->v, 2 | (flags & FLAGS_ARITH));
    run(r, 100);
}

/* Instructions whose flags the host's processor leaves otherwise in part than the interpreter: PUSHFQ must push the
 * latter's. */
START_TEST(pushfq_pushes_flags_that_are_in_part_undefined)
{
    static const uint8_t programs[][7] = {
        {0xc4, 0x62, 0xa0, 0xf2, 0x16, 0x9c, 0xf4}, /* andn r10, r11, [rsi]; pushfq; hlt */
        {0xc4, 0xc2, 0xa8, 0xf3, 0xc8, 0x9c, 0xf4}, /* blsr r10, r8 ... */
        {0xc4, 0x42, 0xa0, 0xf5, 0xd0, 0x9c, 0xf4}, /* bzhi r10, r8, r11 */
        {0xf3, 0x4d, 0x0f, 0xb8, 0xd0, 0x9c, 0xf4}, /* popcnt r10, r8 */
        {0x4d, 0x0f, 0xa4, 0xc3, 0x07, 0x9c, 0xf4}, /* shld r11, r8, 7 */
        {0x4d, 0x0f, 0xbc, 0xd0, 0x9c, 0xf4},       /* bsf r10, r8 */
        {0x4d, 0x0f, 0xaf, 0xd0, 0x9c, 0xf4},       /* imul r10, r8 */
        {0x49, 0xc1, 0xe0, 0x03, 0x9c, 0xf4},       /* shl r8, 3 */
        {0x49, 0xc1, 0xc8, 0x05, 0x9c, 0xf4},       /* ror r8, 5 */
        {0x4d, 0x85, 0xc0, 0x9c, 0xf4}};            /* test r8, r8 */
    struct log log;
    struct cpu_rig a, b;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 4 << 20});
    ck_assert_ptr_nonnull(j);
    rig_open_model(&a, "max");
    rig_open_model(&b, "max");
    b.v->jit = j;
    for (unsigned n = 0; n < 20 * ARRAY_LEN(programs); n++) {
        const uint8_t *code = programs[n / 20];
        char text[24];
        snprintf(text, sizeof text, "program %u", n / 20);
        start(&a, &scenes[0], n, code, sizeof programs[0]);
        start(&b, &scenes[0], n, code, sizeof programs[0]);
        run(&a, 100);
        run(&b, 100);
        for (unsigned m = 0; m < 4; m++) {
            run_again(&a, 0x99 * m);
            run_again(&b, 0x99 * m);
            check_same(&a, &b, text);
        }
    }
    rig_close(&a);
    rig_close(&b);
    jit_destroy(j);
}
END_TEST

/* Its block is compiled, and exactly its units are left. */
START_TEST(the_shadow_of_sti_is_there_where_the_units_end_behind_it)
{
    static const uint8_t code[] = {0x90, 0x90, 0xfb, 0x90, 0x90, 0xf4}; /* nop; nop; sti; nop; nop; hlt */
    struct log log;
    struct cpu_rig r;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 4 << 20});
    ck_assert_ptr_nonnull(j);
    rig_open(&r);
    r.v->jit = j;
    for (unsigned units = 1; units < 2 * sizeof code; units++) {
        start(&r, &scenes[0], units, code, sizeof code);
        vcpu_set_rflags(r.v, 2);
        run(&r, 4); /* compiles the first block */
        start(&r, &scenes[0], units, code, sizeof code);
        vcpu_set_rflags(r.v, 2);
        run(&r, units);
        ck_assert_uint_eq(r.v->rip, RIG_CODE + (units < sizeof code ? units : sizeof code));
        ck_assert_int_eq(r.v->int_shadow, units == 3);
    }
    rig_close(&r);
    jit_destroy(j);
}
END_TEST

#define SPINS 2000u

/* dec ecx; pause; jnz; hlt: flags live across it. */
static void start_spin(struct cpu_rig *r)
{
    static const uint8_t code[] = {0xff, 0xc9, 0xf3, 0x90, 0x75, 0xfa, 0xf4};
    start(r, &scenes[0], 1, code, sizeof code);
    r->v->gpr[REG_RCX] = SPINS;
}

START_TEST(a_spin_of_pause_by_one_processor_stays_in_compiled_code_and_is_cut_as_in_the_interpreter)
{
    struct xorshift random = {77};
    struct cpu_rig a, b;
    struct log log;
    struct stats stats;
    bool found;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 4 << 20});
    ck_assert_ptr_nonnull(j);
    stats_init(&stats);
    jit_register_stats(j, &stats);
    rig_open(&a);
    rig_open(&b);
    b.v->jit = j;
    start_spin(&a);
    start_spin(&b);
    while (a.v->activity == VCPU_RUNNING) {
        uint64_t units = 1 + below(&random, 3000);
        run(&a, units);
        run(&b, units);
        check_same(&a, &b, "spin");
        ck_assert_uint_eq(clock_now(&a.clock), clock_now(&b.clock));
    }
    ck_assert_uint_eq(b.v->gpr[REG_RCX] & 0xffffffff, 0);
    ck_assert_uint_lt(stats_get(&stats, "jit.slow_handler", &found), SPINS / 4);
    ck_assert(found);
    rig_close(&a);
    rig_close(&b);
    stats_fini(&stats);
    jit_destroy(j);
}
END_TEST

START_TEST(pause_ends_the_turn_of_one_processor_of_several_in_compiled_code)
{
    struct cpu_rig r;
    struct log log;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 4 << 20});
    ck_assert_ptr_nonnull(j);
    rig_open(&r);
    r.v->topology = topology_flat(2);
    r.v->jit = j;
    start_spin(&r);
    for (unsigned n = 0; n < SPINS; n++)
        ck_assert_int_eq(vcpu_run(r.v, 100000), VCPU_EXIT_TURN);
    ck_assert_int_eq(vcpu_run(r.v, 100000), VCPU_EXIT_IDLE);
    rig_close(&r);
    jit_destroy(j);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu jit integer");
    TCase *c = tcase_create("programs");
    tcase_set_timeout(c, 900);
    tcase_add_loop_test(c, integer_programs_end_as_in_the_interpreter, 0, ARRAY_LEN(scenes));
    tcase_add_test(c, pushfq_pushes_flags_that_are_in_part_undefined);
    tcase_add_test(c, the_shadow_of_sti_is_there_where_the_units_end_behind_it);
    tcase_add_test(c, a_spin_of_pause_by_one_processor_stays_in_compiled_code_and_is_cut_as_in_the_interpreter);
    tcase_add_test(c, pause_ends_the_turn_of_one_processor_of_several_in_compiled_code);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
