/*
 * CPU models: what each shows is what it executes. For every row of optable.def that is behind a feature, switching the
 * feature off makes the encoding an undefined opcode (or what it was before the feature), and so with MSRs and CR4.
 */
#include "cpu/cpuid.h"
#include "cpu/optable.h"
#include "tests/unit/cpu_rig.h"
#include "tests/unit/optable_bytes.h"

static const char *const model_names[] = {"base",  "max",     "486",     "pentium", "pentium3",
                                          "core2", "nehalem", "haswell", "skylake"};

static struct cpu_model *parse(const char *spec)
{
    const char *bad = NULL;
    struct cpu_model *m = cpu_model_parse(spec, &bad);
    ck_assert_msg(m != NULL, "-cpu %s: %s", spec, bad);
    return m;
}

static const char *parse_error(const char *spec)
{
    const char *bad = NULL;
    struct cpu_model *m = cpu_model_parse(spec, &bad);
    ck_assert_msg(m == NULL, "-cpu %s was taken", spec);
    return bad;
}

/* Executes CPUID in the rig. */
static void cpuid(struct cpu_rig *r, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    cpuid_query(r->v, leaf, subleaf, out);
}

START_TEST(each_model_has_the_signature_and_levels_of_its_processor)
{
    static const struct {
        const char *name;
        uint32_t signature, last, extended;
    } rows[] = {{"486", 0x480, 1, 0},
                {"pentium", 0x543, 1, 0},
                {"pentium3", 0x683, 2, 0},
                {"core2", 0x6fb, 0xa, 0x80000008},
                {"nehalem", 0x106a3, 0xb, 0x80000008},
                {"haswell", 0x306c4, 0xd, 0x80000008},
                {"skylake", 0x506e3, 0x16, 0x80000008},
                {"base", 0x806f8, 0x16, 0x80000008},
                {"max", 0x806f8, 0x1f, 0x80000008}};
    for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
        struct cpu_rig r;
        uint32_t out[4];
        rig_open_model(&r, rows[k].name);
        cpuid(&r, 1, 0, out);
        ck_assert_uint_eq(out[0], rows[k].signature);
        ck_assert_uint_eq(r.v->gpr[REG_RDX], rows[k].signature); /* after reset */
        cpuid(&r, 0, 0, out);
        ck_assert_uint_eq(out[0], rows[k].last);
        ck_assert(memcmp(&out[1], "Genu", 4) == 0 && memcmp(&out[3], "ineI", 4) == 0 &&
                  memcmp(&out[2], "ntel", 4) == 0);
        cpuid(&r, 0x80000000, 0, out);
        if (rows[k].extended) {
            ck_assert_uint_eq(out[0], rows[k].extended);
        } else { /* beyond the last leaf: that of the last basic one */
            uint32_t last[4];
            cpuid(&r, rows[k].last, 0, last);
            ck_assert_mem_eq(out, last, sizeof out);
        }
        rig_close(&r);
    }
}
END_TEST

START_TEST(leaf_2_and_leaf_4_describe_the_same_caches)
{
    for (unsigned k = 0; k < ARRAY_LEN(model_names); k++) {
        struct cpu_rig r;
        uint32_t out[4];
        rig_open_model(&r, model_names[k]);
        cpuid(&r, 2, 0, out);
        if (r.model->last_leaf >= 4) {
            bool refers = (out[0] >> 8 & 0xff) == 0xff;
            ck_assert(refers || out[3] == 0x4d80302c); /* 8 MiB, 512 KiB, 32 KiB, 32 KiB */
            static const uint32_t bytes[4] = {32 << 10, 32 << 10, 512 << 10, 8 << 20};
            for (unsigned sub = 0; sub < 4; sub++) {
                cpuid(&r, 4, sub, out);
                uint32_t ways = (out[1] >> 22) + 1, parts = (out[1] >> 12 & 0x3ff) + 1, line = (out[1] & 0xfff) + 1;
                ck_assert_uint_eq(ways * parts * line * (out[2] + 1), bytes[sub]);
            }
            cpuid(&r, 0x80000006, 0, out);
            ck_assert_uint_eq(out[2] >> 16, 512);
        }
        rig_close(&r);
    }
}
END_TEST

START_TEST(max_offers_exactly_what_is_implemented_and_no_model_more)
{
    struct cpu_model *max = parse("max");
    for (unsigned k = 0; k < ARRAY_LEN(model_names); k++) {
        struct cpu_model *m = parse(model_names[k]);
        for (unsigned w = 0; w < CPUID_WORDS; w++)
            ck_assert_msg(!(m->word[w] & ~max->word[w]), "%s, word %u: %x beyond max's %x", model_names[k], w,
                          m->word[w], max->word[w]);
        ck_assert_str_eq(m->note, "");
        free(m);
    }
#define F(id, name, word, bit, offered, base, since, needs)                                                            \
    ck_assert(model_has(max, CPU_FEATURE_##id) == (offered && word != CPUID_KVM_EAX)); /* by name only */
#include "cpu/features.def"
#undef F
    free(max);
}
END_TEST

START_TEST(named_models_only_gain_features_from_one_generation_to_the_next)
{
    struct cpu_model *older = parse("486");
    for (unsigned k = 3; k < ARRAY_LEN(model_names); k++) {
        struct cpu_model *m = parse(model_names[k]);
        for (unsigned w = 0; w < CPUID_WORDS; w++)
            ck_assert(!(older->word[w] & ~m->word[w]));
        free(older);
        older = m;
    }
    free(older);
}
END_TEST

START_TEST(names_are_taken_in_qemu_s_spellings)
{
    static const char *const same[][2] = {
        {"Nehalem", "nehalem"},        {"Skylake-Client", "skylake"},
        {"core2duo", "core2"},         {"Haswell-v1", "haswell"},
        {"base,-sse3", "base,-pni"},   {"base,-tsc-deadline", "base,tsc_deadline_timer=off"},
        {"max,-lzcnt", "max,abm=off"}, {"base,+movbe,+RDRAND", "base,rdrand=on,movbe=on"}};
    for (unsigned k = 0; k < ARRAY_LEN(same); k++) {
        struct cpu_model *a = parse(same[k][0]), *b = parse(same[k][1]);
        ck_assert_mem_eq(a->word, b->word, sizeof a->word);
        ck_assert_uint_eq(a->gates, b->gates);
        free(a);
        free(b);
    }
    struct cpu_model *m = parse("haswell,family=15,model=0x11,stepping=7,phys-bits=46");
    ck_assert_uint_eq(cpu_signature(m), 0x10f17);
    ck_assert_uint_eq(m->maxphyaddr, 46);
    free(m);
}
END_TEST

START_TEST(what_is_not_known_or_not_offered_is_named)
{
    ck_assert_str_eq(parse_error("athlon"), "athlon");
    ck_assert_str_eq(parse_error("max,+avx512f"), "+avx512f");
    ck_assert_str_eq(parse_error("max,-"), "-");
    ck_assert_str_eq(parse_error("max,sse"), "sse");
    ck_assert_str_eq(parse_error("max,sse=maybe"), "sse=maybe");
    ck_assert_str_eq(parse_error("max,stepping=16"), "stepping=16");
    ck_assert_str_eq(parse_error("max,phys-bits=31"), "phys-bits=31");
#define F(id, name, word, bit, offered, base, since, needs)                                                            \
    if (!(offered))                                                                                                    \
        ck_assert_str_eq(parse_error("max,+" name), "+" name);
#include "cpu/features.def"
#undef F
}
END_TEST

START_TEST(switching_a_foundation_off_takes_what_stands_on_it_and_says_so)
{
    static const uint8_t needs[] = {
#define F(id, name, word, bit, offered, base, since, needs_) CPU_FEATURE_##needs_,
#include "cpu/features.def"
#undef F
    };
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++) {
        char spec[64];
        snprintf(spec, sizeof spec, "max,-%s", cpu_feature_name(f));
        struct cpu_model *m = parse(spec), *max = parse("max");
        bool stands = false;
        ck_assert(!model_has(m, f));
        for (unsigned d = 0; d < CPU_FEATURE_COUNT; d++) {
            if (needs[d] == f && model_has(max, d)) {
                ck_assert_msg(!model_has(m, d), "%s without %s", cpu_feature_name(d), cpu_feature_name(f));
                ck_assert_ptr_nonnull(strstr(m->note, cpu_feature_name(d)));
                stands = true;
            }
            if (model_has(m, d) && needs[d] != CPU_FEATURE_NONE)
                ck_assert(model_has(m, needs[d]));
        }
        ck_assert(stands || !m->note[0]);
        free(m);
        free(max);
    }
}
END_TEST

/* ---- what is off faults ---- */

START_TEST(every_form_of_a_feature_is_undefined_without_it)
{
    unsigned forms = 0;
    struct cpu_model *all = parse("max");
    for (unsigned n = 1; n < optable_form_count; n++) {
        const struct op_form *f = &optable_forms[n];
        enum cpu_feature feature = cpu_gate_feature(f->gate);
        uint8_t bytes[15];
        unsigned mode = MODE_CODE64 | MODE_PE | MODE_LONG | MODE_FLAT | MODE_SS32;
        if (feature == CPU_FEATURE_NONE || !model_has(all, feature))
            continue;
        if (!optable_find_bytes(f, mode, bytes)) {
            mode = MODE_PE | MODE_CODE32 | MODE_FLAT | MODE_SS32;
            ck_assert_msg(optable_find_bytes(f, mode, bytes), "row %u, %s: no bytes", n, optable_op_names[f->op]);
        }
        char spec[64];
        struct insn i;
        snprintf(spec, sizeof spec, "max,-%s", cpu_feature_name(feature));
        struct cpu_model *m = parse(spec);
        enum decode_result r = insn_decode_gated(&i, bytes, sizeof bytes, mode, 0, m->gates);
        bool older = f->op == OP_TZCNT || f->op == OP_LZCNT;
        if (older)
            ck_assert(r == DECODE_OK && i.op == (f->op == OP_TZCNT ? OP_BSF : OP_BSR));
        else
            ck_assert_msg(r == DECODE_UD && i.op == OP_UD, "row %u, %s: executes as %s without %s", n,
                          optable_op_names[f->op], insn_mnemonic(&i), cpu_feature_name(feature));
        ck_assert_int_eq(insn_decode_gated(&i, bytes, sizeof bytes, mode, 0, all->gates), DECODE_OK);
        free(m);
        forms++;
    }
    free(all);
    ck_assert_uint_gt(forms, 300);
}
END_TEST

static void expect_ud(const char *spec, const char *bytes, size_t n, bool ud)
{
    struct cpu_rig r;
    rig_open_model(&r, spec);
    rig_protected(&r);
    rig_exec_bytes(&r, bytes, n);
    ck_assert_msg((r.v->rip == RIG_HANDLERS + 16 * EXC_UD) == ud, "-cpu %s: %02x %02x %s", spec, (uint8_t)bytes[0],
                  (uint8_t)bytes[1], ud ? "runs" : "is undefined");
    rig_close(&r);
}
#define EXPECT_UD(spec, bytes, ud) expect_ud(spec, bytes, sizeof(bytes) - 1, ud)

START_TEST(old_processors_do_not_know_later_instructions)
{
    EXPECT_UD("486", "\x0f\xa2", false); /* CPUID */
    EXPECT_UD("486", "\x0f\xc8", false); /* BSWAP */
    EXPECT_UD("486", "\x0f\x31", true);  /* RDTSC */
    EXPECT_UD("pentium", "\x0f\x31", false);
    EXPECT_UD("486", "\x0f\x32", true);     /* RDMSR */
    EXPECT_UD("486", "\x0f\xc7\x0e", true); /* CMPXCHG8B */
    EXPECT_UD("pentium", "\x0f\xc7\x0e", false);
    EXPECT_UD("pentium", "\x0f\x42\xc1", true); /* CMOVB */
    EXPECT_UD("pentium3", "\x0f\x42\xc1", false);
    EXPECT_UD("pentium", "\xda\xc1", true); /* FCMOVB */
    EXPECT_UD("pentium3", "\xda\xc1", false);
    EXPECT_UD("pentium", "\xdb\xf1", true);     /* FCOMI */
    EXPECT_UD("pentium", "\x0f\x1f\xc0", true); /* long NOP */
    EXPECT_UD("pentium3", "\x0f\x1f\xc0", false);
    EXPECT_UD("486", "\x0f\x77", true); /* EMMS */
    EXPECT_UD("pentium", "\x0f\x77", false);
    EXPECT_UD("pentium", "\x0f\xae\x06", true); /* FXSAVE */
    EXPECT_UD("pentium3", "\x0f\xae\x06", false);
    EXPECT_UD("pentium3", "\xdd\x0e", true); /* FISTTP */
    EXPECT_UD("core2", "\xdd\x0e", false);
    EXPECT_UD("core2", "\xf3\x0f\xb8\xc1", true); /* POPCNT */
    EXPECT_UD("nehalem", "\xf3\x0f\xb8\xc1", false);
    EXPECT_UD("nehalem", "\x0f\x38\xf0\x06", true); /* MOVBE */
    EXPECT_UD("haswell", "\x0f\x38\xf0\x06", false);
    EXPECT_UD("nehalem", "\x0f\xc7\xf0", true); /* RDRAND */
    EXPECT_UD("haswell", "\x0f\xc7\xf0", false);
    EXPECT_UD("haswell", "\x0f\xc7\xf8", true); /* RDSEED */
    EXPECT_UD("skylake", "\x0f\xc7\xf8", false);
    EXPECT_UD("haswell", "\x66\x0f\xae\x3e", true); /* CLFLUSHOPT */
    EXPECT_UD("skylake", "\x66\x0f\xae\x3e", false);
    EXPECT_UD("skylake", "\xf3\x0f\xc7\xf8", true); /* RDPID */
    EXPECT_UD("max", "\xf3\x0f\xc7\xf8", false);
    EXPECT_UD("core2", "\xf3\x90", false); /* PAUSE, or NOP */
    EXPECT_UD("486", "\xf3\x90", false);
}
END_TEST

START_TEST(cr4_bits_and_msrs_of_features_that_are_off_fault)
{
    static const struct {
        const char *off;
        uint64_t cr4;
        uint32_t msr;
    } rows[] = {{"de", CR4_DE, 0},
                {"pse", CR4_PSE, 0},
                {"pae", CR4_PAE, 0},
                {"mce", CR4_MCE, 0},
                {"pge", CR4_PGE, 0},
                {"fxsr", CR4_OSFXSR, 0},
                {"sse", CR4_OSXMMEXCPT, 0},
                {"umip", CR4_UMIP, 0},
                {"fsgsbase", CR4_FSGSBASE, 0},
                {"xsave", CR4_OSXSAVE, 0},
                {"smep", CR4_SMEP, 0},
                {"smap", CR4_SMAP, 0},
                {"pku", CR4_PKE, 0},
                {"tsc", CR4_TSD, 0x10},
                {"sep", 0, 0x174},
                {"mtrr", 0, 0xfe},
                {"mtrr", 0, 0x200},
                {"mtrr", 0, 0x2ff},
                {"pat", 0, 0x277},
                {"tsc_adjust", 0, 0x3b},
                {"spec_ctrl", 0, 0x48},
                {"mca", 0, 0x179},
                {"arch_capabilities", 0, 0x10a},
                {"syscall", 0, 0xc0000081},
                {"lm", 0, 0xc0000100}};
    for (unsigned k = 0; k < ARRAY_LEN(rows); k++)
        for (unsigned off = 0; off < 2; off++) {
            struct cpu_rig r;
            char spec[64];
            uint64_t value;
            snprintf(spec, sizeof spec, off ? "max,-%s" : "max", rows[k].off);
            rig_open_model(&r, spec);
            rig_protected(&r);
            if (rows[k].cr4) {
                r.v->gpr[REG_RAX] = rows[k].cr4;
                rig_exec(&r, "\x0f\x22\xe0");
                ck_assert_msg((r.v->rip == RIG_HANDLERS + 16 * EXC_GP) == off, "%s: CR4 %llx", spec,
                              (unsigned long long)rows[k].cr4);
            }
            if (rows[k].msr)
                ck_assert_msg(msr_read(r.v, rows[k].msr, &value) != off, "%s: MSR %x", spec, rows[k].msr);
            rig_close(&r);
        }
}
END_TEST

START_TEST(a_486_has_no_msr_at_all_and_max_has_aux)
{
    struct cpu_model *m = parse("486"), *max = parse("max");
    static const uint32_t indices[] = {0x10, 0x1b, 0x174, 0x179, 0x1a0, 0x1d9, 0x277, 0xc0000080, 0xc0000103};
    for (unsigned k = 0; k < ARRAY_LEN(indices); k++) {
        ck_assert(!model_has_msr(m, indices[k]));
        ck_assert(model_has_msr(max, indices[k]));
    }
    free(m);
    free(max);
}
END_TEST

/* Nehalem and later: no C-state of a package beyond C0, and what an operating system may switch off. */
START_TEST(registers_of_power_management_hold_what_they_have_bits_for)
{
    static const struct {
        uint32_t msr;
        uint64_t value;
        bool taken;
        uint64_t reads;
    } steps[] = {
        {0xe2, 0, true, 0},
        {0xe2, 0x1e000402, true, 0x1e000402},
        {0xe2, 1ull << 32, false, 0x1e000402},
        {0xe2, 0x10, false, 0x1e000402},
        {0xe2, 0x8003, true, 0x8003},       /* locked */
        {0xe2, 0x4000007, true, 0x4008003}, /* bits 15:0 stay */
        {0x1fc, 2, true, 2},
        {0x1fc, 4, false, 2},
        {0x1fc, 0, true, 0},
        {0x34, 1, false, 0},
        {0x8b, 0, true, 0x22ull << 32},
    };
    struct cpu_rig r;
    uint64_t value;
    rig_open_model(&r, "haswell");
    for (unsigned k = 0; k < ARRAY_LEN(steps); k++) {
        ck_assert_msg(msr_write(r.v, steps[k].msr, steps[k].value) == steps[k].taken, "step %u", k);
        ck_assert(msr_read(r.v, steps[k].msr, &value));
        ck_assert_uint_eq(value, steps[k].reads);
    }
    rig_close(&r);
    rig_open_model(&r, "core2");
    ck_assert(!msr_read(r.v, 0xe2, &value) && !msr_read(r.v, 0x1fc, &value) && !msr_read(r.v, 0x34, &value));
    rig_close(&r);
}
END_TEST

static bool base_read(void *ctx, uint32_t index, uint64_t *value)
{
    *value = *(uint64_t *)ctx;
    return index == 0x1b;
}

static bool base_write(void *ctx, uint32_t index, uint64_t value)
{
    *(uint64_t *)ctx = value;
    return index == 0x1b;
}

START_TEST(a_local_apic_that_is_disabled_is_not_in_leaf_1)
{
    struct cpu_rig r;
    uint64_t base = 0xfee00900;
    const struct cpu_intc intc = {.ctx = &base, .msr_read = base_read, .msr_write = base_write};
    rig_open_model(&r, "max");
    vcpu_set_intc(r.v, &intc);
    for (unsigned k = 0; k < 4; k++) {
        uint64_t value = k & 1 ? 0xfee00100 : 0xfee00900;
        ck_assert(msr_write(r.v, 0x1b, value));
        ck_assert_uint_eq(cpuid_recall(r.v, 1, 0)[3] >> 9 & 1, !(k & 1));
    }
    rig_close(&r);
}
END_TEST

START_TEST(misc_enable_takes_monitor_leaves_and_execute_disable_away)
{
    struct cpu_rig r;
    uint64_t usual, value;
    rig_open_model(&r, "max");
    rig_protected(&r);
    ck_assert(msr_read(r.v, 0x1a0, &usual) && usual >> 18 & 1);
    ck_assert_uint_eq(cpuid_recall(r.v, 0, 0)[0], 0x1f);
    ck_assert(cpuid_recall(r.v, 1, 0)[2] & 1u << 3 && cpuid_recall(r.v, 5, 0)[0] == 64);
    ck_assert(cpuid_recall(r.v, 0x80000001, 0)[3] & 1u << 20);
    ck_assert(msr_write(r.v, 0x1a0, (usual | 1ull << 34 | 1u << 22) & ~(1ull << 18)));
    ck_assert_uint_eq(cpuid_recall(r.v, 0, 0)[0], 2);
    ck_assert_uint_eq(cpuid_recall(r.v, 7, 0)[0], cpuid_recall(r.v, 2, 0)[0]); /* beyond the last leaf */
    ck_assert(!(cpuid_recall(r.v, 1, 0)[2] & 1u << 3));
    ck_assert(!(cpuid_recall(r.v, 0x80000001, 0)[3] & 1u << 20));
    ck_assert(!msr_write(r.v, 0xc0000080, 1u << 11));
    rig_exec(&r, "\x0f\x01\xc8");
    ck_assert_uint_eq(r.v->rip, RIG_HANDLERS + 16 * EXC_UD);
    ck_assert(msr_write(r.v, 0x1a0, usual) && msr_write(r.v, 0xc0000080, 1u << 11));
    ck_assert(msr_write(r.v, 0x1a0, usual | 1ull << 34) && msr_read(r.v, 0xc0000080, &value) && value & 1u << 11);
    ck_assert_uint_eq(cpuid_recall(r.v, 5, 0)[0], 64);
    rig_close(&r);
    rig_open_model(&r, "max,-monitor");
    ck_assert(msr_read(r.v, 0x1a0, &usual) && !(usual >> 18 & 1) && !msr_write(r.v, 0x1a0, usual | 1u << 18));
    rig_close(&r);
}
END_TEST

START_TEST(a_gated_instruction_is_named_on_the_unimp_channel)
{
    struct cpu_rig r;
    char text[400] = "";
    FILE *f = tmpfile();
    ck_assert_ptr_nonnull(f);
    rig_open_model(&r, "nehalem");
    rig_protected(&r);
    r.log.out = f;
    r.log.mask = 1u << LOG_UNIMP;
    rig_exec(&r, "\x0f\x38\xf0\x06");
    rewind(f);
    ck_assert_uint_gt(fread(text, 1, sizeof text - 1, f), 0);
    ck_assert_ptr_nonnull(strstr(text, "movbe needs CPU feature movbe, which -cpu nehalem does not offer"));
    rig_close(&r);
    fclose(f);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {each_model_has_the_signature_and_levels_of_its_processor,
                                  leaf_2_and_leaf_4_describe_the_same_caches,
                                  max_offers_exactly_what_is_implemented_and_no_model_more,
                                  named_models_only_gain_features_from_one_generation_to_the_next,
                                  names_are_taken_in_qemu_s_spellings,
                                  what_is_not_known_or_not_offered_is_named,
                                  switching_a_foundation_off_takes_what_stands_on_it_and_says_so,
                                  every_form_of_a_feature_is_undefined_without_it,
                                  old_processors_do_not_know_later_instructions,
                                  cr4_bits_and_msrs_of_features_that_are_off_fault,
                                  a_486_has_no_msr_at_all_and_max_has_aux,
                                  registers_of_power_management_hold_what_they_have_bits_for,
                                  a_local_apic_that_is_disabled_is_not_in_leaf_1,
                                  misc_enable_takes_monitor_leaves_and_execute_disable_away,
                                  a_gated_instruction_is_named_on_the_unimp_channel};
    return rig_suite("cpu models", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
