/*
 * MSRs, CPUID and its models, reset, the saved form of a vCPU.
 */
#include "core/snapshot.h"
#include "cpu/cpuid.h"
#include "cpu_rig.h"

#include <unistd.h>

static void wrmsr(struct cpu_rig *r, uint32_t index, uint64_t value)
{
    rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    r->v->gpr[REG_RCX] = index;
    r->v->gpr[REG_RAX] = (uint32_t)value;
    r->v->gpr[REG_RDX] = value >> 32;
    rig_exec(r, "\x0f\x30");
}

static void rdmsr(struct cpu_rig *r, uint32_t index)
{
    rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    r->v->gpr[REG_RCX] = index;
    rig_exec(r, "\x0f\x32");
}

static bool is_done(const struct cpu_rig *r)
{
    return r->v->rip == RIG_CODE + 2;
}

/* ---- MSRs ---- */

START_TEST(registers_read_back_what_was_written)
{
    static const uint32_t index[] = {0x174,      0x175,      0x176,      0x277,      0x200,      0x250,
                                     0x2ff,      0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
                                     0xc0000101, 0xc0000102, 0xc0000103, 0x48};
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    for (unsigned k = 0; k < ARRAY_LEN(index); k++) {
        wrmsr(&r, index[k], 6);
        ck_assert_msg(is_done(&r), "WRMSR %x", index[k]);
        rdmsr(&r, index[k]);
        ck_assert_msg(is_done(&r), "RDMSR %x", index[k]);
        ck_assert_uint_eq(r.v->gpr[REG_RAX], 6);
        ck_assert_uint_eq(r.v->gpr[REG_RDX], 0);
    }
    rig_close(&r);
}
END_TEST

START_TEST(values_that_registers_refuse_are_protection_faults)
{
    static const struct {
        uint32_t index;
        uint64_t value;
    } t[] = {{0xc0000082, 0x800000000000}, /* LSTAR: not canonical */
             {0xc0000101, 1ull << 63},
             {0xc0000080, 1 << 1}, /* EFER: reserved */
             {0xc0000080, 0},      /* LME off while paging is on */
             {0x277, 2},           /* PAT: reserved type */
             {0x277, 8ull << 56},
             {0x2ff, 7}, /* MTRR types */
             {0x200, 1ull << 40},
             {0x250, 0x0202020202020202},
             {0xc0000103, 1ull << 32},
             {0xce, 0}, /* read-only */
             {0x10a, 0},
             {0x12345678, 0}}; /* unknown */
    struct cpu_rig r;
    rig_open(&r);
    for (unsigned k = 0; k < ARRAY_LEN(t); k++) {
        rig_long(&r);
        wrmsr(&r, t[k].index, t[k].value);
        rig_expect_fault64(&r, EXC_GP, 0);
    }
    rig_long(&r);
    rdmsr(&r, 0x12345678);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_long(&r);
    rig_user(&r);
    r.v->gpr[REG_RCX] = 0x10;
    rig_exec(&r, "\x0f\x32");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(efer_keeps_lma_and_takes_nxe)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    wrmsr(&r, 0xc0000080, EFER_LME);
    ck_assert(is_done(&r));
    ck_assert_uint_eq(r.v->efer, EFER_LME | EFER_LMA);
    wrmsr(&r, 0xc0000080, EFER_LME | EFER_NXE);
    ck_assert_uint_eq(r.v->mv->regs.efer, EFER_LME | EFER_LMA | EFER_NXE);
    rig_close(&r);
}
END_TEST

START_TEST(tsc_and_tsc_adjust_move_together)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    wrmsr(&r, 0x3b, 1000);
    rdmsr(&r, 0x10);
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 1001);
    wrmsr(&r, 0x10, 0);
    rdmsr(&r, 0x3b);
    ck_assert_uint_eq((uint32_t)r.v->gpr[REG_RAX], (uint32_t)-2); /* the write came at time 2 */
    rdmsr(&r, 0x10);
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 2);
    rig_close(&r);
}
END_TEST

START_TEST(fs_base_takes_effect_in_the_next_instruction)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_DATA + 8, 0x77, 1);
    wrmsr(&r, 0xc0000100, RIG_DATA);
    rig_exec(&r, "\x64\x8a\x04\x25\x08\x00\x00\x00"); /* MOV AL, FS:[8] */
    ck_assert_uint_eq(r.v->gpr[REG_RAX] & 0xff, 0x77);
    rig_close(&r);
}
END_TEST

/* ---- CPUID ---- */

static void cpuid(struct cpu_rig *r, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    r->v->rip = RIG_CODE;
    r->v->gpr[REG_RAX] = leaf;
    r->v->gpr[REG_RCX] = subleaf;
    rig_exec(r, "\x0f\xa2");
    out[0] = (uint32_t)r->v->gpr[REG_RAX];
    out[1] = (uint32_t)r->v->gpr[REG_RBX];
    out[2] = (uint32_t)r->v->gpr[REG_RCX];
    out[3] = (uint32_t)r->v->gpr[REG_RDX];
}

/* Two sockets of three cores of two threads: the last thread of the last core. */
START_TEST(cpuid_states_the_topology)
{
    struct cpu_rig r;
    uint32_t out[4];
    rig_open(&r);
    rig_long(&r);
    r.v->topology = (struct cpu_topology){2, 3, 2};
    r.v->apic_id = topology_apic_id(&r.v->topology, 11);
    ck_assert_uint_eq(r.v->apic_id, 13);
    cpuid(&r, 1, 0, out);
    ck_assert_uint_eq(out[1] >> 24, 13);
    ck_assert_uint_eq(out[1] >> 16 & 0xff, 8); /* IDs of a package */
    ck_assert(out[3] >> 28 & 1);
    cpuid(&r, 4, 0, out); /* L1 */
    ck_assert_uint_eq(out[0] >> 14 & 0xfff, 1);
    ck_assert_uint_eq(out[0] >> 26, 3);
    cpuid(&r, 4, 3, out); /* L3 */
    ck_assert_uint_eq(out[0] >> 14 & 0xfff, 7);
    cpuid(&r, 0xb, 0, out);
    ck_assert_uint_eq(out[0], 1);
    ck_assert_uint_eq(out[1], 2);
    ck_assert_uint_eq(out[2], 1u << 8);
    ck_assert_uint_eq(out[3], 13);
    cpuid(&r, 0xb, 1, out);
    ck_assert_uint_eq(out[0], 3);
    ck_assert_uint_eq(out[1], 6);
    ck_assert_uint_eq(out[2], 2u << 8 | 1);
    cpuid(&r, 0xb, 2, out);
    ck_assert_uint_eq(out[1], 0);
    r.v->topology = topology_flat(1); /* wired elsewhere, so what was answered is remembered */
    cpuid_forget(r.v);
    cpuid(&r, 1, 0, out);
    ck_assert_uint_eq(out[1] >> 16 & 0xff, 1);
    ck_assert(!(out[3] >> 28 & 1));
    rig_close(&r);
}
END_TEST

START_TEST(cpuid_states_vendor_frequency_and_widths)
{
    struct cpu_rig r;
    uint32_t out[4];
    char vendor[13] = "", brand[49] = "";
    rig_open(&r);
    rig_long(&r);
    cpuid(&r, 0, 0, out);
    ck_assert_uint_ge(out[0], 0x16);
    memcpy(vendor, &out[1], 4);
    memcpy(vendor + 4, &out[3], 4);
    memcpy(vendor + 8, &out[2], 4);
    ck_assert_str_eq(vendor, "GenuineIntel");
    for (unsigned k = 0; k < 3; k++) {
        cpuid(&r, 0x80000002 + k, 0, out);
        memcpy(brand + 16 * k, out, 16);
    }
    ck_assert_str_eq(brand, "Umbra virtual CPU");
    cpuid(&r, 0x15, 0, out);
    ck_assert_uint_eq((uint64_t)out[2] * out[1] / out[0], CLOCK_HZ);
    cpuid(&r, 0x80000008, 0, out);
    ck_assert_uint_eq(out[0], 48 << 8 | 40);
    cpuid(&r, 1, 0, out);
    ck_assert_uint_eq(out[2] >> 31, 0); /* not said to be virtual */
    rig_close(&r);
}
END_TEST

START_TEST(bits_that_mirror_state_follow_it)
{
    struct cpu_rig r;
    uint32_t out[4];
    rig_open(&r);
    rig_long(&r);
    cpuid(&r, 1, 0, out);
    ck_assert(!(out[2] & 1u << 27));
    r.v->cr4 |= CR4_OSXSAVE | CR4_PKE;
    cpuid(&r, 1, 0, out);
    ck_assert(out[2] & 1u << 27);
    cpuid(&r, 7, 0, out);
    ck_assert(out[2] & 1u << 4);
    cpuid(&r, 0x80000001, 0, out);
    ck_assert(out[3] & 1u << 11);
    rig_set_cpl(&r, SEL_CODE32_0, SEL_DATA0, 0);
    cpuid(&r, 0x80000001, 0, out);
    ck_assert(!(out[3] & 1u << 11)); /* SYSCALL outside 64-bit mode */
    rig_close(&r);
}
END_TEST

START_TEST(model_switches_change_one_feature_and_unknown_ones_are_named)
{
    struct cpu_rig r;
    uint32_t out[4];
    const char *bad = NULL, spec[] = "base,+la57,+avx999";
    rig_open_model(&r, "base,-smap,+la57");
    rig_long(&r);
    cpuid(&r, 7, 0, out);
    ck_assert(!(out[1] & 1u << 20));
    ck_assert(out[1] & 1u << 7);
    ck_assert(out[2] & 1u << 16);
    rig_close(&r);
    ck_assert_ptr_null(cpu_model_parse(spec, &bad));
    ck_assert_ptr_eq(bad, spec + 11);
    ck_assert_ptr_null(cpu_model_parse("athlon", &bad));
    ck_assert_str_eq(bad, "athlon");
    ck_assert_ptr_null(cpu_model_parse("base,smap", &bad));
    ck_assert_ptr_null(cpu_model_parse("base,", &bad));
}
END_TEST

START_TEST(a_feature_that_is_taken_away_is_refused)
{
    struct cpu_rig r;
    rig_open_model(&r, "base,-smap,-rdtscp");
    rig_long(&r);
    rig_exec(&r, "\x0f\x01\xcb"); /* STAC */
    rig_expect_vector(&r, EXC_UD);
    rig_long(&r);
    rig_exec(&r, "\x0f\x01\xf9"); /* RDTSCP */
    rig_expect_vector(&r, EXC_UD);
    rig_long(&r);
    r.v->gpr[REG_RAX] = CR4_PAE | CR4_SMAP;
    rig_exec(&r, "\x0f\x22\xe0");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

/* ---- reset ---- */

START_TEST(reset_state_is_that_of_the_manual)
{
    struct cpu_rig r;
    rig_open(&r);
    const struct vcpu *v = r.v;
    ck_assert_uint_eq(v->rip, 0xfff0);
    ck_assert_uint_eq(v->seg[SEG_CS].sel, 0xf000);
    ck_assert_uint_eq(v->seg_base[SEG_CS], 0xffff0000);
    ck_assert_uint_eq(v->cr0, 0x60000010);
    ck_assert_uint_eq(vcpu_rflags(v), 2);
    ck_assert_uint_eq(v->gpr[REG_RDX], cpu_signature(v->model));
    ck_assert_uint_eq(v->dr[6], 0xffff0ff0);
    ck_assert_uint_eq(v->dr[7], 0x400);
    ck_assert_uint_eq(v->msr.pat, 0x0007040600070406);
    ck_assert_uint_eq(v->mxcsr, 0x1f80);
    ck_assert_uint_eq(v->xcr0, 1);
    ck_assert_uint_eq(v->idtr.limit, 0xffff);
    ck_assert_uint_eq(v->mode, 0);
    rig_close(&r);
}
END_TEST

START_TEST(init_keeps_msrs_and_floating_point)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->msr.lstar = 0x1234;
    r.v->xmm[3].q[0] = 5;
    r.v->cr0 |= CR0_CD;
    vcpu_reset(r.v, true);
    ck_assert_uint_eq(r.v->msr.lstar, 0x1234);
    ck_assert_uint_eq(r.v->xmm[3].q[0], 5);
    ck_assert_uint_eq(r.v->cr0, CR0_ET | CR0_CD);
    ck_assert_uint_eq(r.v->efer, 0);
    ck_assert_uint_eq(r.v->rip, 0xfff0);
    vcpu_reset(r.v, false);
    ck_assert_uint_eq(r.v->msr.lstar, 0);
    rig_close(&r);
}
END_TEST

/* ---- the saved form ---- */

/* A value for every field that a guest could have put there. */
static void scramble(struct cpu_rig *r)
{
    struct vcpu *v = r->v;
    rig_long(r);
    rig_user(r);
    for (unsigned k = 0; k < 16; k++) {
        v->gpr[k] = 0x0101010101010101 * k;
        v->xmm[k].q[0] = k;
        v->xmm[k].q[3] = ~(uint64_t)k;
    }
    for (unsigned k = 0; k < 8; k++)
        v->fpu.st[k].mant = 77 * k;
    v->fpu.top = 5;
    v->fpu.fip = 0x1234;
    v->msr.lstar = 0xfffff000;
    v->msr.mtrr_fixed[10] = 6;
    v->msr.mtrr_mask[7] = 0x800;
    v->cr2 = 0xdead;
    v->pkru = 0x55;
    v->dr[3] = 99;
    v->pdpte[2] = 0x4001;
    v->int_shadow = v->nmi_blocked = true;
    v->pending_dbg = 2;
    v->a20_mask = ~(1ull << 20);
    vcpu_set_rflags(v, FLAG_CF | FLAG_PF | FLAG_AC | FLAG_ID | FLAG_IF | 2);
    vcpu_random(v);
}

static uint64_t digest(const struct vcpu *v)
{
    struct snap_writer *w = snap_writer_digest();
    vcpu_save(v, w);
    return snap_writer_digest_close(w);
}

static void save_to(const struct vcpu *v, const char *path)
{
    char err[200] = "";
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    ck_assert_msg(w != NULL, "%s", err);
    vcpu_save(v, w);
    ck_assert_msg(snap_writer_close(w, err, sizeof err) == 0, "%s", err);
}

START_TEST(a_saved_vcpu_comes_back_in_every_field)
{
    struct cpu_rig a, b;
    char err[200] = "", path[] = "umbra-vcpu-XXXXXX";
    int fd = mkstemp(path);
    rig_open(&a);
    rig_open(&b);
    scramble(&a);
    save_to(a.v, path);
    ck_assert_uint_ne(digest(a.v), digest(b.v));
    struct snap_reader *rd = snap_reader_open(path, err, sizeof err);
    ck_assert_msg(rd != NULL, "%s", err);
    vcpu_load(b.v, rd);
    ck_assert_ptr_null(snap_reader_error(rd));
    ck_assert_uint_eq(digest(a.v), digest(b.v));
    ck_assert_uint_eq(b.v->mode, a.v->mode);
    ck_assert_uint_eq(b.v->mv->regs.cr3, RIG_PML4);
    ck_assert_uint_eq(b.v->mv->regs.cpl, 3);
    ck_assert(b.v->mv->regs.ac);
    snap_reader_close(rd);
    close(fd);
    unlink(path);
    rig_close(&a);
    rig_close(&b);
}
END_TEST

START_TEST(a_saved_vcpu_that_contradicts_itself_is_refused)
{
    struct cpu_rig a, b;
    char err[200] = "", path[] = "umbra-vcpu-XXXXXX";
    int fd = mkstemp(path);
    rig_open(&a);
    rig_open(&b);
    scramble(&a);
    a.v->fpu.top = 9;
    a.v->efer &= ~EFER_LME;
    save_to(a.v, path);
    struct snap_reader *rd = snap_reader_open(path, err, sizeof err);
    vcpu_load(b.v, rd);
    ck_assert_ptr_nonnull(snap_reader_error(rd));
    ck_assert_uint_eq(b.v->rip, 0xfff0);
    snap_reader_close(rd);
    close(fd);
    unlink(path);
    rig_close(&a);
    rig_close(&b);
}
END_TEST

START_TEST(the_digest_does_not_depend_on_how_flags_are_kept)
{
    struct cpu_rig a, b;
    rig_open(&a);
    rig_open(&b);
    flags_set_sub(a.v, 9, 5, 4, 8); /* all clear */
    vcpu_set_rflags(b.v, 2);
    ck_assert_uint_ne(a.v->f_res, b.v->f_res);
    ck_assert_uint_eq(digest(a.v), digest(b.v));
    rig_close(&a);
    rig_close(&b);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        registers_read_back_what_was_written,
        values_that_registers_refuse_are_protection_faults,
        efer_keeps_lma_and_takes_nxe,
        tsc_and_tsc_adjust_move_together,
        fs_base_takes_effect_in_the_next_instruction,
        cpuid_states_the_topology,
        cpuid_states_vendor_frequency_and_widths,
        bits_that_mirror_state_follow_it,
        model_switches_change_one_feature_and_unknown_ones_are_named,
        a_feature_that_is_taken_away_is_refused,
        reset_state_is_that_of_the_manual,
        init_keeps_msrs_and_floating_point,
        a_saved_vcpu_comes_back_in_every_field,
        a_saved_vcpu_that_contradicts_itself_is_refused,
        the_digest_does_not_depend_on_how_flags_are_kept,
    };
    return rig_suite("msr", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
