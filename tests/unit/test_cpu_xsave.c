/*
 * FXSAVE, XSAVE and their opposites: images, headers, who may execute, what is refused. The legacy image is also held
 * against the one that the host's FXSAVE makes of the same state.
 */
#include "cpu/cpuid.h"
#include "fpu_oracle.h"

#include <cpuid.h>

#define AREA RIG_DATA

static void open_ready(struct cpu_rig *r)
{
    rig_open(r);
    rig_long(r);
    r->v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    r->v->xcr0 = 3;
    vcpu_refresh(r->v);
    r->v->gpr[REG_RSI] = AREA;
    r->v->gpr[REG_RAX] = ~0ull;
    r->v->gpr[REG_RDX] = ~0ull;
    r->v->fpu.fcw = 0x37f;
    r->v->fpu.tag = 0;
    for (unsigned k = 0; k < 1024; k += 8)
        rig_poke(r, AREA + k, 0xa5a5a5a5a5a5a5a5, 8);
    for (unsigned k = 512; k < 576; k += 8)
        rig_poke(r, AREA + k, 0, 8);
}

#define again(r, bytes)                                                                                                \
    do {                                                                                                               \
        (r)->v->rip = RIG_CODE;                                                                                        \
        rig_exec((r), bytes);                                                                                          \
    } while (0)
#define expect_done(r, bytes) ck_assert_uint_eq((r)->v->rip, RIG_CODE + sizeof(bytes) - 1)

#define FXSAVE    "\x0f\xae\x06"
#define FXSAVE64  "\x48\x0f\xae\x06"
#define FXRSTOR   "\x0f\xae\x0e"
#define FXRSTOR64 "\x48\x0f\xae\x0e"
#define LDMXCSR   "\x0f\xae\x16"
#define STMXCSR   "\x0f\xae\x1e"
#define XSAVE     "\x0f\xae\x26"
#define XSAVE64   "\x48\x0f\xae\x26"
#define XRSTOR    "\x0f\xae\x2e"
#define XRSTOR64  "\x48\x0f\xae\x2e"
#define XSAVEOPT  "\x0f\xae\x36"
#define XSAVEC64  "\x48\x0f\xc7\x26"
#define XSAVES64  "\x48\x0f\xc7\x2e"
#define XRSTORS64 "\x48\x0f\xc7\x1e"
#define XGETBV    "\x0f\x01\xd0"

/* Something in every field. */
static void fill_state(struct vcpu *v)
{
    struct x87 *f = &v->fpu;
    f->fcw = 0x27f;
    f->fsw = 0x4520;
    f->top = 5;
    f->tag = 0xe1;
    f->fop = 0x5d8;
    f->fip = 0xffff800012345678;
    f->fdp = 0xffff900087654321;
    f->fcs = 0x33;
    f->fds = 0x2b;
    for (unsigned k = 0; k < 8; k++) {
        f->st[k].mant = 0x8000000000000000 + k;
        f->st[k].exp = (uint16_t)(0x4000 + k);
    }
    for (unsigned k = 0; k < 16; k++) {
        v->xmm[k].q[0] = 0x1111111111111111u * k + 1;
        v->xmm[k].q[1] = ~v->xmm[k].q[0];
    }
    v->mxcsr = 0x9fa1;
}

START_TEST(fxsave_writes_the_manuals_layout)
{
    struct cpu_rig r;
    open_ready(&r);
    fill_state(r.v);
    again(&r, FXSAVE64);
    expect_done(&r, FXSAVE64);
    ck_assert_uint_eq(rig_peek(&r, AREA, 8), 0x05d800e16d20027f);
    ck_assert_uint_eq(rig_peek(&r, AREA + 8, 8), 0xffff800012345678);
    ck_assert_uint_eq(rig_peek(&r, AREA + 16, 8), 0xffff900087654321);
    ck_assert_uint_eq(rig_peek(&r, AREA + 24, 8), 0x0000ffff00009fa1);
    ck_assert_uint_eq(rig_peek(&r, AREA + 32, 8), 0x8000000000000005); /* ST(0) is R5 */
    ck_assert_uint_eq(rig_peek(&r, AREA + 40, 8), 0x4005);
    ck_assert_uint_eq(rig_peek(&r, AREA + 32 + 48, 8), 0x8000000000000000);
    ck_assert_uint_eq(rig_peek(&r, AREA + 160 + 16 * 15, 8), r.v->xmm[15].q[0]);
    ck_assert_uint_eq(rig_peek(&r, AREA + 416, 8), 0xa5a5a5a5a5a5a5a5);
    ck_assert_uint_eq(rig_peek(&r, AREA + 504, 8), 0xa5a5a5a5a5a5a5a5);
    again(&r, FXSAVE);
    ck_assert_uint_eq(rig_peek(&r, AREA + 8, 8), 0x0000003312345678);
    ck_assert_uint_eq(rig_peek(&r, AREA + 16, 8), 0x0000002b87654321);
    rig_close(&r);
}
END_TEST

/* Fields that the host keeps: all but the pointers, and what it thinks of MXCSR_MASK. */
START_TEST(fxsave_image_is_the_hosts)
{
    struct oracle o;
    oracle_open(&o);
    for (unsigned k = 0; k < 2000; k++) {
        struct oracle_state s, native;
        uint8_t image[FX_SIZE];
        oracle_randomize(&o, &s);
        native = s;
        oracle_load(&o, &s);
        o.rig.v->rip = RIG_CODE;
        rig_exec(&o.rig, FXSAVE64);
        mem_access(o.rig.mem, 0, RIG_DATA, image, FX_SIZE, MEM_PEEK, false, BUS_NO_CPU);
        oracle_native(&o, &native, (const uint8_t *)"\x90", 1);
        memset(image + 6, 0, 18);
        memset(image + 28, 0, 4);
        ck_assert_int_eq(memcmp(image, native.fx, 416), 0);
    }
    oracle_close(&o);
}
END_TEST

START_TEST(fxrstor_brings_back_what_fxsave_stored)
{
    struct cpu_rig r;
    open_ready(&r);
    fill_state(r.v);
    struct x87 fpu = r.v->fpu;
    union vec xmm[16];
    memcpy(xmm, r.v->xmm, sizeof xmm);
    again(&r, FXSAVE64);
    memset(&r.v->fpu, 0, sizeof r.v->fpu);
    memset(r.v->xmm, 0, sizeof r.v->xmm);
    r.v->mxcsr = 0x1f80;
    again(&r, FXRSTOR64);
    expect_done(&r, FXRSTOR64);
    fpu.fcs = fpu.fds = 0; /* not in the 64-bit form */
    ck_assert_uint_eq(r.v->fpu.fcw, fpu.fcw);
    ck_assert_uint_eq(r.v->fpu.fsw, fpu.fsw);
    ck_assert_uint_eq(r.v->fpu.top, fpu.top);
    ck_assert_uint_eq(r.v->fpu.tag, fpu.tag);
    ck_assert_uint_eq(r.v->fpu.fip, fpu.fip);
    ck_assert_uint_eq(r.v->fpu.fdp, fpu.fdp);
    for (unsigned k = 0; k < 8; k++)
        ck_assert(r.v->fpu.st[k].mant == fpu.st[k].mant && r.v->fpu.st[k].exp == fpu.st[k].exp);
    ck_assert_int_eq(memcmp(xmm, r.v->xmm, sizeof xmm), 0);
    ck_assert_uint_eq(r.v->mxcsr, 0x9fa1);
    rig_close(&r);
}
END_TEST

START_TEST(reserved_bits_of_mxcsr_are_refused_and_nothing_changes)
{
    struct cpu_rig r;
    open_ready(&r);
    fill_state(r.v);
    again(&r, FXSAVE64);
    rig_poke(&r, AREA + 24, 0x11f80, 4);
    r.v->xmm[3].q[0] = 77;
    r.v->fpu.fop = 1;
    again(&r, FXRSTOR64);
    rig_expect_fault64(&r, EXC_GP, 0);
    ck_assert_uint_eq(r.v->xmm[3].q[0], 77);
    ck_assert_uint_eq(r.v->fpu.fop, 1);
    rig_poke(&r, AREA, 0x80000000, 4);
    again(&r, LDMXCSR);
    rig_expect_fault64(&r, EXC_GP, 0);
    ck_assert_uint_eq(r.v->mxcsr, 0x9fa1);
    rig_close(&r);
}
END_TEST

START_TEST(mxcsr_is_loaded_and_stored)
{
    struct cpu_rig r;
    open_ready(&r);
    rig_poke(&r, AREA, 0xffc0, 4);
    again(&r, LDMXCSR);
    ck_assert_uint_eq(r.v->mxcsr, 0xffc0);
    r.v->mxcsr = 0x1fbf;
    again(&r, STMXCSR);
    ck_assert_uint_eq(rig_peek(&r, AREA, 4), 0x1fbf);
    rig_close(&r);
}
END_TEST

START_TEST(xsave_tells_which_components_are_in_use)
{
    struct cpu_rig r;
    open_ready(&r);
    rig_poke(&r, AREA + 512, 0xf4, 8); /* bits that are not asked for stay */
    again(&r, XSAVE64);
    expect_done(&r, XSAVE64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 0xf4);
    r.v->xmm[9].q[1] = 1;
    again(&r, XSAVE64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 0xf6);
    again(&r, "\xd9\xe8"); /* fld1 */
    again(&r, XSAVE64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 0xf7);
    r.v->gpr[REG_RAX] = 2;
    r.v->gpr[REG_RDX] = 0;
    rig_poke(&r, AREA + 512, 0, 8);
    rig_poke(&r, AREA, 0x1234, 2);
    again(&r, XSAVE64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 2);
    ck_assert_uint_eq(rig_peek(&r, AREA, 2), 0x1234); /* x87 was not asked for */
    ck_assert_uint_eq(rig_peek(&r, AREA + 24, 8), 0x0000ffff00001f80);
    rig_close(&r);
}
END_TEST

START_TEST(xrstor_initialises_components_that_the_image_leaves_out)
{
    struct cpu_rig r;
    open_ready(&r);
    fill_state(r.v);
    again(&r, XSAVE64);
    rig_poke(&r, AREA + 512, 1, 8); /* SSE left out */
    rig_poke(&r, AREA + 24, 0x1fc0, 4);
    again(&r, XRSTOR64);
    expect_done(&r, XRSTOR64);
    for (unsigned k = 0; k < 16; k++)
        ck_assert(r.v->xmm[k].q[0] == 0 && r.v->xmm[k].q[1] == 0);
    ck_assert_uint_eq(r.v->mxcsr, 0x1fc0); /* from the image all the same */
    ck_assert_uint_eq(r.v->fpu.fcw, 0x27f);
    rig_poke(&r, AREA + 512, 2, 8);
    again(&r, XRSTOR64);
    ck_assert_uint_eq(r.v->fpu.fcw, 0x37f);
    ck_assert_uint_eq(r.v->fpu.tag, 0);
    ck_assert_uint_eq(r.v->fpu.st[5].mant, 0);
    ck_assert_uint_ne(r.v->xmm[5].q[0], 0);
    rig_close(&r);
}
END_TEST

START_TEST(xrstor_refuses_a_bad_header_and_nothing_changes)
{
    struct cpu_rig r;
    static const struct {
        unsigned off;
        uint64_t value;
    } bad[] = {{512, 4}, {512, 1ull << 63}, {520, 1}, {520, 1ull << 63}, {528, 1}, {24, 0x10000}};
    open_ready(&r);
    for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
        fill_state(r.v);
        again(&r, XSAVE64);
        rig_poke(&r, AREA + bad[k].off, bad[k].value, bad[k].off == 24 ? 4 : 8);
        r.v->xmm[0].q[0] = 99;
        again(&r, XRSTOR64);
        rig_expect_fault64(&r, EXC_GP, 0);
        ck_assert_uint_eq(r.v->xmm[0].q[0], 99);
        for (unsigned n = 512; n < 576; n += 8)
            rig_poke(&r, AREA + n, 0, 8);
    }
    rig_close(&r);
}
END_TEST

START_TEST(areas_must_be_aligned)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->gpr[REG_RSI] = AREA + 8;
    again(&r, FXSAVE);
    rig_expect_fault64(&r, EXC_GP, 0);
    again(&r, FXRSTOR);
    rig_expect_fault64(&r, EXC_GP, 0);
    r.v->gpr[REG_RSI] = AREA + 16;
    again(&r, XSAVE);
    rig_expect_fault64(&r, EXC_GP, 0);
    again(&r, XRSTOR);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(control_registers_decide_who_may_save)
{
    struct cpu_rig r;
    open_ready(&r);
    r.v->cr4 &= ~CR4_OSXSAVE;
    again(&r, XSAVE);
    rig_expect_vector(&r, EXC_UD);
    again(&r, XRSTOR);
    rig_expect_vector(&r, EXC_UD);
    r.v->cr4 |= CR4_OSXSAVE;
    r.v->cr0 |= CR0_TS;
    again(&r, XSAVE);
    rig_expect_vector(&r, EXC_NM);
    again(&r, FXSAVE);
    rig_expect_vector(&r, EXC_NM);
    again(&r, LDMXCSR);
    rig_expect_vector(&r, EXC_NM);
    r.v->cr0 ^= CR0_TS | CR0_EM;
    again(&r, XSAVE);
    expect_done(&r, XSAVE);
    again(&r, FXSAVE);
    rig_expect_vector(&r, EXC_NM);
    again(&r, STMXCSR);
    rig_expect_vector(&r, EXC_UD);
    r.v->cr0 &= ~CR0_EM;
    r.v->cr4 &= ~CR4_OSFXSR;
    again(&r, STMXCSR);
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(saving_across_a_missing_page_writes_nothing)
{
    struct cpu_rig r;
    open_ready(&r);
    fill_state(r.v);
    rig_poke(&r, RIG_PT + 8 * (AREA / 4096 + 1), 0, 8);
    r.v->gpr[REG_RSI] = AREA + 4096 - 64;
    rig_poke(&r, AREA + 4096 - 64, 0x5555, 8);
    again(&r, FXSAVE);
    rig_expect_fault64(&r, EXC_PF, 2);
    again(&r, XSAVE);
    rig_expect_fault64(&r, EXC_PF, 2);
    ck_assert_uint_eq(r.v->cr2, AREA + 4096);
    ck_assert_uint_eq(rig_peek(&r, AREA + 4096 - 64, 8), 0x5555);
    again(&r, XRSTOR);
    rig_expect_fault64(&r, EXC_PF, 0);
    ck_assert_uint_eq(r.v->fpu.top, 5);
    rig_close(&r);
}
END_TEST

START_TEST(outside_64_bit_mode_eight_registers_are_saved)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    r.v->cr4 |= CR4_OSFXSR;
    vcpu_refresh(r.v);
    fill_state(r.v);
    r.v->gpr[REG_RSI] = AREA;
    rig_poke(&r, AREA + 160 + 128, 0x77, 8);
    again(&r, FXSAVE);
    ck_assert_uint_eq(rig_peek(&r, AREA + 160 + 112, 8), r.v->xmm[7].q[0]);
    ck_assert_uint_eq(rig_peek(&r, AREA + 160 + 128, 8), 0x77);
    r.v->xmm[7].q[0] = r.v->xmm[8].q[0] = 0;
    again(&r, FXRSTOR);
    ck_assert_uint_ne(r.v->xmm[7].q[0], 0);
    ck_assert_uint_eq(r.v->xmm[8].q[0], 0);
    rig_close(&r);
}
END_TEST

/* ---- components beyond x87 and SSE ---- */

enum { AVX_AT = 576, PKRU_AT = 2688, PKRU_COMPACT_AT = 832, EVERYTHING = 0x207 };

static void open_wide(struct cpu_rig *r)
{
    rig_open_model(r, "max");
    rig_long(r);
    r->v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_PKE;
    r->v->xcr0 = EVERYTHING;
    vcpu_refresh(r->v);
    r->v->gpr[REG_RSI] = AREA;
    r->v->gpr[REG_RAX] = ~0ull;
    r->v->gpr[REG_RDX] = ~0ull;
    for (unsigned k = 0; k < 3072; k += 8)
        rig_poke(r, AREA + k, k >= 512 && k < 576 ? 0 : 0xa5a5a5a5a5a5a5a5, 8);
    fill_state(r->v);
    for (unsigned k = 0; k < 16; k++) {
        r->v->xmm[k].q[2] = 0x2222222222222222u * k + 3;
        r->v->xmm[k].q[3] = ~r->v->xmm[k].q[2];
    }
    r->v->pkru = 0x5c;
}

START_TEST(leaf_d_describes_what_xsave_writes)
{
    struct cpu_rig r;
    uint32_t out[4];
    open_wide(&r);
    cpuid_query(r.v, 0xd, 0, out);
    ck_assert_uint_eq(out[0], EVERYTHING);
    ck_assert_uint_eq(out[1], PKRU_AT + 8);
    ck_assert_uint_eq(out[2], PKRU_AT + 8);
    r.v->xcr0 = 7;
    cpuid_query(r.v, 0xd, 0, out);
    ck_assert_uint_eq(out[1], AVX_AT + 256);
    r.v->xcr0 = EVERYTHING;
    cpuid_query(r.v, 0xd, 1, out);
    ck_assert_uint_eq(out[0], 0xf);
    ck_assert_uint_eq(out[1], PKRU_COMPACT_AT + 8);
    cpuid_query(r.v, 0xd, 2, out);
    ck_assert_uint_eq(out[0], 256);
    ck_assert_uint_eq(out[1], AVX_AT);
    cpuid_query(r.v, 0xd, 9, out);
    ck_assert_uint_eq(out[0], 8);
    ck_assert_uint_eq(out[1], PKRU_AT);
    rig_close(&r);
}
END_TEST

START_TEST(the_standard_form_has_components_at_their_fixed_places)
{
    struct cpu_rig r;
    open_wide(&r);
    again(&r, XSAVE64);
    expect_done(&r, XSAVE64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), EVERYTHING);
    ck_assert_uint_eq(rig_peek(&r, AREA + 520, 8), 0);
    ck_assert_uint_eq(rig_peek(&r, AREA + AVX_AT + 16 * 15 + 8, 8), r.v->xmm[15].q[3]);
    ck_assert_uint_eq(rig_peek(&r, AREA + PKRU_AT, 8), 0x5c);
    ck_assert_uint_eq(rig_peek(&r, AREA + AVX_AT + 256, 8), 0xa5a5a5a5a5a5a5a5);
    rig_close(&r);
}
END_TEST

START_TEST(the_compacted_form_leaves_out_what_was_not_asked_for)
{
    struct cpu_rig r;
    open_wide(&r);
    again(&r, XSAVEC64);
    expect_done(&r, XSAVEC64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), EVERYTHING);
    ck_assert_uint_eq(rig_peek(&r, AREA + 520, 8), EVERYTHING | 1ull << 63);
    ck_assert_uint_eq(rig_peek(&r, AREA + PKRU_COMPACT_AT, 8), 0x5c);
    ck_assert_uint_eq(rig_peek(&r, AREA + PKRU_AT, 8), 0xa5a5a5a5a5a5a5a5);
    r.v->gpr[REG_RAX] = 0x201;
    r.v->gpr[REG_RDX] = 0;
    again(&r, XSAVES64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 520, 8), 0x201 | 1ull << 63);
    ck_assert_uint_eq(rig_peek(&r, AREA + AVX_AT, 8), 0x5c); /* right behind the header */
    rig_close(&r);
}
END_TEST

START_TEST(every_form_brings_back_what_it_saved)
{
    static const char *const save[] = {XSAVE64, "\x48\x0f\xae\x36", XSAVEC64, XSAVES64};
    for (unsigned k = 0; k < ARRAY_LEN(save); k++) {
        struct cpu_rig r;
        union vec xmm[16];
        open_wide(&r);
        memcpy(xmm, r.v->xmm, sizeof xmm);
        r.v->rip = RIG_CODE;
        rig_exec_bytes(&r, save[k], 4);
        memset(r.v->xmm, 0x33, sizeof r.v->xmm);
        r.v->pkru = 0;
        r.v->mxcsr = 0x1f80;
        if (k == 3)
            again(&r, XRSTORS64);
        else
            again(&r, XRSTOR64);
        ck_assert_uint_eq(r.v->rip, RIG_CODE + 4);
        ck_assert_int_eq(memcmp(xmm, r.v->xmm, sizeof xmm), 0);
        ck_assert_uint_eq(r.v->pkru, 0x5c);
        ck_assert_uint_eq(r.v->mxcsr, 0x9fa1);
        rig_close(&r);
    }
}
END_TEST

START_TEST(components_in_their_initial_configuration_are_left_out)
{
    struct cpu_rig r;
    open_wide(&r);
    memset(r.v->xmm, 0, sizeof r.v->xmm);
    r.v->pkru = 0;
    r.v->mxcsr = 0x1f80;
    again(&r, XSAVEOPT);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 1);
    ck_assert_uint_eq(rig_peek(&r, AREA + AVX_AT, 8), 0xa5a5a5a5a5a5a5a5);
    ck_assert_uint_eq(rig_peek(&r, AREA + 160, 8), 0xa5a5a5a5a5a5a5a5);
    ck_assert_uint_eq(rig_peek(&r, AREA + 24, 4), 0x1f80); /* goes with the request, not with use */
    rig_poke(&r, AREA + 24, 0xa5a5a5a5, 4);
    again(&r, XSAVEC64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 1);
    ck_assert_uint_eq(rig_peek(&r, AREA + 24, 4), 0xa5a5a5a5);
    r.v->mxcsr = 0x1fc0; /* counts as SSE state in use */
    again(&r, XSAVEC64);
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 3);
    ck_assert_uint_eq(rig_peek(&r, AREA + 24, 4), 0x1fc0);
    again(&r, XSAVE64); /* only XINUSE */
    ck_assert_uint_eq(rig_peek(&r, AREA + 512, 8), 1);
    ck_assert_uint_eq(rig_peek(&r, AREA + AVX_AT, 8), 0);
    rig_close(&r);
}
END_TEST

START_TEST(xrstor_of_the_compacted_form_initialises_mxcsr_with_sse)
{
    struct cpu_rig r;
    open_wide(&r);
    again(&r, XSAVEC64);
    rig_poke(&r, AREA + 512, 4, 8); /* AVX alone is there */
    r.v->xmm[3].q[2] = 0;
    uint64_t high = r.v->xmm[7].q[2];
    again(&r, XRSTOR64);
    expect_done(&r, XRSTOR64);
    ck_assert_uint_eq(r.v->mxcsr, 0x1f80);
    ck_assert_uint_eq(r.v->xmm[7].q[0], 0);
    ck_assert_uint_eq(r.v->xmm[7].q[2], high);
    ck_assert_uint_eq(r.v->fpu.fcw, 0x37f);
    ck_assert_uint_eq(r.v->pkru, 0);
    rig_close(&r);
}
END_TEST

START_TEST(xrstor_refuses_bad_compacted_headers_and_nothing_changes)
{
    struct cpu_rig r;
    static const struct {
        unsigned off;
        uint64_t value;
    } bad[] = {{512, 8},     {520, 1ull << 63 | 0x20f}, {520, 1ull << 63 | 5}, {520, 7}, {528, 1ull << 40}, {568, 1},
               {24, 0x10000}};
    open_wide(&r);
    for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
        for (unsigned n = 512; n < 576; n += 8)
            rig_poke(&r, AREA + n, 0, 8);
        again(&r, XSAVEC64);
        rig_poke(&r, AREA + bad[k].off, bad[k].value, bad[k].off == 24 ? 4 : 8);
        r.v->xmm[0].q[3] = 99;
        again(&r, XRSTOR64);
        rig_expect_fault64(&r, EXC_GP, 0);
        again(&r, XRSTORS64);
        rig_expect_fault64(&r, EXC_GP, 0);
        ck_assert_uint_eq(r.v->xmm[0].q[3], 99);
    }
    again(&r, XSAVE64); /* XRSTORS takes the compacted form only */
    rig_poke(&r, AREA + 520, 0, 8);
    again(&r, XRSTORS64);
    rig_expect_fault64(&r, EXC_GP, 0);
    again(&r, XRSTOR64);
    expect_done(&r, XRSTOR64);
    rig_close(&r);
}
END_TEST

START_TEST(xsaves_and_xrstors_are_for_ring_0)
{
    struct cpu_rig r;
    open_wide(&r);
    rig_user(&r);
    again(&r, XSAVES64);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_user(&r);
    again(&r, XRSTORS64);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_user(&r);
    again(&r, XSAVEC64);
    expect_done(&r, XSAVEC64);
    rig_close(&r);
}
END_TEST

START_TEST(xgetbv_1_is_what_is_in_use)
{
    struct cpu_rig r;
    open_wide(&r);
    r.v->gpr[REG_RCX] = 1;
    r.v->pkru = 0;
    again(&r, XGETBV);
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 7);
    again(&r, "\xc5\xf8\x77"); /* vzeroupper */
    again(&r, XGETBV);
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 3);
    r.v->gpr[REG_RCX] = 2;
    again(&r, XGETBV);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(the_supervisor_mask_is_empty)
{
    struct cpu_rig r;
    open_wide(&r);
    r.v->gpr[REG_RCX] = 0xda0;
    r.v->gpr[REG_RAX] = r.v->gpr[REG_RDX] = 0;
    again(&r, "\x0f\x30"); /* wrmsr */
    expect_done(&r, "\x0f\x30");
    r.v->gpr[REG_RAX] = 1 << 8;
    again(&r, "\x0f\x30");
    rig_expect_fault64(&r, EXC_GP, 0);
    again(&r, "\x0f\x32");
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0);
    rig_close(&r);
}
END_TEST

START_TEST(vex_forms_load_and_store_mxcsr)
{
    struct cpu_rig r;
    open_wide(&r);
    rig_poke(&r, AREA, 0xffc0, 4);
    again(&r, "\xc5\xf8\xae\x16"); /* vldmxcsr [rsi] */
    ck_assert_uint_eq(r.v->mxcsr, 0xffc0);
    r.v->mxcsr = 0x1fbf;
    again(&r, "\xc5\xf8\xae\x1e"); /* vstmxcsr [rsi] */
    ck_assert_uint_eq(rig_peek(&r, AREA, 4), 0x1fbf);
    rig_poke(&r, AREA, 0x80000000, 4);
    again(&r, "\xc5\xf8\xae\x16");
    rig_expect_fault64(&r, EXC_GP, 0);
    r.v->xcr0 = 3;
    again(&r, "\xc5\xf8\xae\x1e");
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

/* The host's XSAVE and XSAVEC of the same state: everything but the pointers, and what it thinks of MXCSR_MASK. All
 * components are in use, since processors need not tell exactly which are. */
START_TEST(images_with_avx_are_the_hosts)
{
    struct oracle o;
    static const char *const save[] = {XSAVE64, XSAVEC64};
    oracle_open(&o);
    bool compact = false;
    unsigned a = 0, b, c, d;
    if (__get_cpuid_count(0xd, 1, &a, &b, &c, &d))
        compact = a & 2;
    for (unsigned k = 0; o.wide && k < 2000; k++) {
        struct oracle_state s, native;
        uint8_t image[832], host[832];
        if (k % 2 && !compact)
            continue;
        oracle_randomize(&o, &s);
        s.gpr[0] = 7;
        s.gpr[2] = 0;
        memset(o.mem, 0, 1024);
        native = s;
        oracle_load(&o, &s);
        for (unsigned n = 0; n < 832; n += 8)
            rig_poke(&o.rig, RIG_DATA + n, 0, 8);
        o.rig.v->rip = RIG_CODE;
        rig_exec_bytes(&o.rig, save[k % 2], 4);
        mem_access(o.rig.mem, 0, RIG_DATA, image, sizeof image, MEM_PEEK, false, BUS_NO_CPU);
        oracle_native(&o, &native, (const uint8_t *)save[k % 2], 4);
        memcpy(host, o.mem, sizeof host);
        memset(image + 6, 0, 18);
        memset(host + 6, 0, 18);
        memset(image + 28, 0, 4);
        memset(host + 28, 0, 4);
        ck_assert_int_eq(memcmp(image, host, sizeof host), 0);
    }
    oracle_close(&o);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {fxsave_writes_the_manuals_layout,
                                  fxsave_image_is_the_hosts,
                                  fxrstor_brings_back_what_fxsave_stored,
                                  reserved_bits_of_mxcsr_are_refused_and_nothing_changes,
                                  mxcsr_is_loaded_and_stored,
                                  xsave_tells_which_components_are_in_use,
                                  xrstor_initialises_components_that_the_image_leaves_out,
                                  xrstor_refuses_a_bad_header_and_nothing_changes,
                                  areas_must_be_aligned,
                                  control_registers_decide_who_may_save,
                                  saving_across_a_missing_page_writes_nothing,
                                  outside_64_bit_mode_eight_registers_are_saved,
                                  leaf_d_describes_what_xsave_writes,
                                  the_standard_form_has_components_at_their_fixed_places,
                                  the_compacted_form_leaves_out_what_was_not_asked_for,
                                  every_form_brings_back_what_it_saved,
                                  components_in_their_initial_configuration_are_left_out,
                                  xrstor_of_the_compacted_form_initialises_mxcsr_with_sse,
                                  xrstor_refuses_bad_compacted_headers_and_nothing_changes,
                                  xsaves_and_xrstors_are_for_ring_0,
                                  xgetbv_1_is_what_is_in_use,
                                  the_supervisor_mask_is_empty,
                                  vex_forms_load_and_store_mxcsr,
                                  images_with_avx_are_the_hosts};
    return rig_suite("cpu xsave", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
