/*
 * The rules of VEX encoding and of AVX state; masked moves and gathers with their faults, against the host.
 */
#include "fpu_oracle.h"

/* ---- gathers and masked moves that may reach an absent page ---- */

static void fill_page(struct oracle *o)
{
    for (unsigned k = 0; k < 4096; k += 16)
        oracle_vector(o, o->mem + k);
    mem_access(o->rig.mem, 0, RIG_DATA, o->mem, 4096, MEM_HOST_POKE, true, BUS_NO_CPU);
}

/* Indices that reach from some way before the page's end to a little beyond it, as `bytes` wide integers. */
static void set_indices(struct oracle *o, struct oracle_state *s, unsigned reg, unsigned bytes, unsigned scale)
{
    uint8_t *half[2] = {s->fx + 160 + 16 * reg, s->high[reg]};
    for (unsigned at = 0; at < 32; at += bytes) {
        int64_t index = ((int64_t)oracle_below(o, 700) - 400) >> scale;
        memcpy(half[at / 16] + at % 16, &index, bytes);
    }
}

/* Mask elements are all ones now and then, so that there is always much to do. */
static void set_mask(struct oracle *o, struct oracle_state *s, unsigned reg)
{
    for (unsigned at = 0; at < 16; at++) {
        if (oracle_below(o, 3) == 0)
            continue;
        s->fx[160 + 16 * reg + at] |= 0x80;
        s->high[reg][at] |= 0x80;
    }
}

/* VEX.66.0F38 opcode with [rsi + index * 2^scale + disp32], or without an index. */
static unsigned put_vex(uint8_t *p, unsigned opcode, unsigned w, unsigned l, unsigned reg, unsigned vvvv, int index,
                        unsigned scale, int32_t disp)
{
    unsigned n = 0;
    p[n++] = 0xc4;
    p[n++] = (uint8_t)(!(reg >> 3) << 7 | !(index > 7) << 6 | 1 << 5 | 2);
    p[n++] = (uint8_t)(w << 7 | (~vvvv & 15) << 3 | l << 2 | 1);
    p[n++] = (uint8_t)opcode;
    if (index < 0) {
        p[n++] = (uint8_t)(0x80 | (reg & 7) << 3 | 6);
    } else {
        p[n++] = (uint8_t)(0x80 | (reg & 7) << 3 | 4);
        p[n++] = (uint8_t)(scale << 6 | (index & 7) << 3 | 6);
    }
    memcpy(p + n, &disp, 4);
    return n + 4;
}

START_TEST(gathers_fault_and_go_on_as_the_host_does)
{
    struct oracle o;
    oracle_open(&o);
    oracle_expect_page_faults(&o);
    fill_page(&o);
    for (unsigned k = 0; __builtin_cpu_supports("avx2") && k < 40000; k++) {
        struct oracle_state s;
        uint8_t bytes[16];
        unsigned opcode = 0x90 + (k & 3), w = k >> 2 & 1, l = k >> 3 & 1, scale = oracle_below(&o, 4);
        unsigned reg = oracle_below(&o, 16), mask = (reg + 1 + oracle_below(&o, 7)) & 15;
        unsigned index = (reg + 8 + oracle_below(&o, 8)) & 15;
        if (index == reg || index == mask)
            continue;
        oracle_randomize(&o, &s);
        memcpy(o.mem, o.mem + 64, 64);
        set_indices(&o, &s, index, opcode & 1 ? 8 : 4, scale);
        set_mask(&o, &s, mask);
        unsigned len = put_vex(bytes, opcode, w, l, reg, mask, (int)index, scale, 4096 - 256);
        oracle_check(&o, &s, bytes, len, 0);
    }
    ck_assert(!__builtin_cpu_supports("avx2") || (o.faults > 5000 && o.faults < o.cases - 5000));
    oracle_close(&o);
}
END_TEST

START_TEST(masked_moves_look_at_selected_elements_only)
{
    static const uint8_t opcode[] = {0x2c, 0x2d, 0x2e, 0x2f, 0x8c, 0x8e};
    struct oracle o;
    oracle_open(&o);
    oracle_expect_page_faults(&o);
    fill_page(&o);
    for (unsigned k = 0; __builtin_cpu_supports("avx2") && k < 40000; k++) {
        struct oracle_state s;
        uint8_t bytes[16], tail[64];
        unsigned op = opcode[k % 6], w = op >= 0x80 ? oracle_below(&o, 2) : 0;
        oracle_randomize(&o, &s);
        memcpy(o.mem, o.mem + 64, 64);
        mem_access(o.rig.mem, 0, RIG_DATA + 4032, o.mem + 4032, 64, MEM_HOST_POKE, true, BUS_NO_CPU);
        unsigned len = put_vex(bytes, op, w, oracle_below(&o, 2), oracle_below(&o, 16), oracle_below(&o, 16), -1, 0,
                               (int32_t)(4096 - oracle_below(&o, 40)));
        oracle_check(&o, &s, bytes, len, 0);
        mem_access(o.rig.mem, 0, RIG_DATA + 4032, tail, 64, MEM_PEEK, false, BUS_NO_CPU);
        ck_assert_int_eq(memcmp(tail, o.mem + 4032, 64), 0);
    }
    ck_assert(!__builtin_cpu_supports("avx2") || o.faults > 5000);
    oracle_close(&o);
}
END_TEST

START_TEST(masked_store_that_faults_stores_nothing)
{
    struct cpu_rig r;
    rig_open_model(&r, "max");
    rig_long(&r);
    r.v->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    r.v->xcr0 = 7;
    vcpu_refresh(r.v);
    rig_poke(&r, RIG_PT + 8 * (RIG_DATA / 4096 + 1), 0, 8);
    rig_poke(&r, RIG_DATA + 4080, 0x1122334455667788, 8);
    r.v->gpr[REG_RSI] = RIG_DATA + 4080;
    r.v->xmm[1].q[0] = r.v->xmm[1].q[2] = 1ull << 63;
    rig_exec(&r, "\xc4\xe2\x75\x2f\x06"); /* vmaskmovpd [rsi], ymm1, ymm0 */
    rig_expect_fault64(&r, EXC_PF, 2);
    ck_assert_uint_eq(r.v->cr2, RIG_DATA + 4096);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 4080, 8), 0x1122334455667788);
    rig_close(&r);
}
END_TEST

/* ---- who may execute, and what is no instruction ---- */

static void open_ready(struct cpu_rig *r, const char *model)
{
    rig_open_model(r, model);
    rig_long(r);
    r->v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    r->v->xcr0 = 7;
    vcpu_refresh(r->v);
    r->v->gpr[REG_RSI] = RIG_DATA;
}

#define again(r, bytes)                                                                                                \
    do {                                                                                                               \
        (r)->v->rip = RIG_CODE;                                                                                        \
        rig_exec((r), bytes);                                                                                          \
    } while (0)
#define expect_done(r, bytes) ck_assert_uint_eq((r)->v->rip, RIG_CODE + sizeof(bytes) - 1)

#define VADDPS "\xc5\xec\x58\xc1" /* vaddps ymm0, ymm2, ymm1 */

START_TEST(vex_asks_the_operating_system_for_avx_state)
{
    struct cpu_rig r;
    open_ready(&r, "max");
    again(&r, VADDPS);
    expect_done(&r, VADDPS);
    r.v->cr4 &= ~CR4_OSXSAVE;
    again(&r, VADDPS);
    rig_expect_vector(&r, EXC_UD);
    r.v->cr4 |= CR4_OSXSAVE;
    r.v->xcr0 = 3;
    again(&r, VADDPS);
    rig_expect_vector(&r, EXC_UD);
    r.v->cr0 |= CR0_TS;
    again(&r, VADDPS); /* #UD comes first */
    rig_expect_vector(&r, EXC_UD);
    r.v->xcr0 = 7;
    again(&r, VADDPS);
    rig_expect_vector(&r, EXC_NM);
    r.v->cr0 &= ~CR0_TS;
    r.v->cr0 |= CR0_EM; /* means nothing to VEX */
    r.v->cr4 &= ~CR4_OSFXSR;
    again(&r, VADDPS);
    expect_done(&r, VADDPS);
    rig_close(&r);
}
END_TEST

START_TEST(prefixes_that_vex_replaces_are_undefined_before_it)
{
    struct cpu_rig r;
    open_ready(&r, "max");
    again(&r, "\x66" VADDPS);
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xf2" VADDPS);
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xf3" VADDPS);
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xf0" VADDPS);
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\x48" VADDPS);
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\x64" VADDPS);
    expect_done(&r, "\x64" VADDPS);
    rig_close(&r);
}
END_TEST

START_TEST(fields_of_vex_that_must_have_one_value)
{
    struct cpu_rig r;
    open_ready(&r, "max");
    again(&r, "\xc5\xfc\x28\xc1"); /* vmovaps ymm0, ymm1 */
    expect_done(&r, "\xc5\xfc\x28\xc1");
    again(&r, "\xc5\xec\x28\xc1"); /* vvvv given */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc5\xe9\x6e\xc1"); /* vmovd: vvvv given */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc5\xfd\x6e\xc1"); /* vmovd: L */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe2\x79\x19\xc1"); /* vbroadcastsd xmm */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe3\xfd\x18\xc1\x01"); /* vinsertf128: W, and vvvv is its first source */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe2\x71\x90\x04\x06"); /* vpgatherdd xmm0, [rsi + xmm0], xmm1 */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe2\x71\x90\x06"); /* without a vector index */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe4\x79\x58\xc1"); /* map 4 */
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(forms_of_features_that_are_off_are_undefined)
{
    struct cpu_rig r;
    open_ready(&r, "max,-avx2,-fma,-f16c,-aes");
    again(&r, "\xc5\xe9\xfc\xc1"); /* vpaddb xmm: AVX */
    expect_done(&r, "\xc5\xe9\xfc\xc1");
    again(&r, "\xc5\xed\xfc\xc1"); /* vpaddb ymm: AVX2 */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe2\x71\xa8\xc2"); /* vfmadd213ps */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe2\x79\x13\xc1"); /* vcvtph2ps */
    rig_expect_vector(&r, EXC_UD);
    again(&r, "\xc4\xe2\x71\xdc\xc2"); /* vaesenc: AES */
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(operands_need_no_alignment_but_those_of_aligned_moves)
{
    struct cpu_rig r;
    static const struct {
        const char *bytes;
        unsigned len, off;
        bool faults;
    } insn[] = {{"\xc5\xec\x58\x06", 4, 1, false},  /* vaddps ymm0, ymm2, [rsi] */
                {"\xc5\xfc\x10\x06", 4, 1, false},  /* vmovups */
                {"\xc5\xfc\x28\x06", 4, 16, true},  /* vmovaps ymm: 32 bytes */
                {"\xc5\xf8\x28\x06", 4, 16, false}, /* vmovaps xmm: 16 */
                {"\xc5\xf8\x28\x06", 4, 8, true},          {"\xc5\xfc\x29\x06", 4, 16, true},
                {"\xc5\xfd\x6f\x06", 4, 16, true},         /* vmovdqa */
                {"\xc5\xfc\x2b\x06", 4, 16, true},         /* vmovntps */
                {"\xc5\xfd\xe7\x06", 4, 16, true},         /* vmovntdq */
                {"\xc4\xe2\x7d\x2a\x06", 5, 16, true},     /* vmovntdqa */
                {"\x66\x0f\x38\x2a\x06", 5, 8, true},      /* movntdqa */
                {"\x66\x0f\x38\x00\x06", 5, 8, true},      /* pshufb */
                {"\x66\x0f\x3a\x63\x06\x00", 6, 1, false}, /* pcmpistri */
                {"\x66\x0f\x38\x20\x06", 5, 1, false}};    /* pmovsxbw */
    open_ready(&r, "max");
    for (unsigned k = 0; k < ARRAY_LEN(insn); k++) {
        r.v->rip = RIG_CODE;
        r.v->gpr[REG_RSI] = RIG_DATA + insn[k].off;
        rig_exec_bytes(&r, insn[k].bytes, insn[k].len);
        if (insn[k].faults)
            rig_expect_fault64(&r, EXC_GP, 0);
        else
            ck_assert_uint_eq(r.v->rip, RIG_CODE + insn[k].len);
    }
    rig_close(&r);
}
END_TEST

START_TEST(outside_64_bit_mode_there_are_eight_registers)
{
    struct cpu_rig r;
    rig_open_model(&r, "max");
    rig_protected(&r);
    r.v->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    r.v->xcr0 = 7;
    vcpu_refresh(r.v);
    for (unsigned k = 0; k < 16; k++)
        for (unsigned n = 0; n < 4; n++)
            r.v->xmm[k].q[n] = 77;
    again(&r, "\xc5\xf8\x77"); /* vzeroupper */
    ck_assert_uint_eq(r.v->xmm[7].q[3], 0);
    ck_assert_uint_eq(r.v->xmm[7].q[1], 77);
    ck_assert_uint_eq(r.v->xmm[8].q[3], 77);
    again(&r, "\xc5\xfc\x77"); /* vzeroall */
    ck_assert_uint_eq(r.v->xmm[7].q[1], 0);
    ck_assert_uint_eq(r.v->xmm[8].q[1], 77);
    rig_close(&r);
}
END_TEST

START_TEST(in_real_mode_vex_is_an_illegal_lds)
{
    struct cpu_rig r;
    rig_open_model(&r, "max");
    rig_real(&r);
    r.v->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    r.v->xcr0 = 7;
    vcpu_refresh(r.v);
    rig_poke(&r, 6 * 4, 0x20001000, 4); /* #UD: 2000:1000 */
    rig_exec(&r, VADDPS);
    ck_assert_uint_eq(r.v->rip, 0x1000);
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, 0x2000);
    rig_close(&r);
}
END_TEST

START_TEST(unmasked_exceptions_of_either_half_are_delivered)
{
    struct cpu_rig r;
    open_ready(&r, "max");
    r.v->mxcsr = 0x1d80; /* division by zero unmasked */
    for (unsigned k = 0; k < 8; k++) {
        r.v->xmm[1].d[k] = k == 6 ? 0 : 0x3f800000;
        r.v->xmm[2].d[k] = 0x40000000;
    }
    again(&r, "\xc5\xec\x5e\xc1"); /* vdivps ymm0, ymm2, ymm1 */
    rig_expect_vector(&r, EXC_XM);
    ck_assert_uint_eq(r.v->mxcsr, 0x1d84);
    ck_assert_uint_eq(r.v->xmm[0].q[0], 0);
    r.v->cr4 &= ~CR4_OSXMMEXCPT;
    again(&r, "\xc5\xec\x5e\xc1");
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {gathers_fault_and_go_on_as_the_host_does,
                                  masked_moves_look_at_selected_elements_only,
                                  masked_store_that_faults_stores_nothing,
                                  vex_asks_the_operating_system_for_avx_state,
                                  prefixes_that_vex_replaces_are_undefined_before_it,
                                  fields_of_vex_that_must_have_one_value,
                                  forms_of_features_that_are_off_are_undefined,
                                  operands_need_no_alignment_but_those_of_aligned_moves,
                                  outside_64_bit_mode_there_are_eight_registers,
                                  in_real_mode_vex_is_an_illegal_lds,
                                  unmasked_exceptions_of_either_half_are_delivered};
    return rig_suite("cpu avx", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
