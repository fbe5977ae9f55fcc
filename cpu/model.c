/*
 * CPU models and their switches: `-cpu NAME[,+feature][,-feature][,feature=on|off][,family=N][,model=N][,stepping=N]
 * [,phys-bits=N]`, in QEMU's spelling.
 *
 * Signatures and the order in which features came are those of the processors named; caches and topology are Umbra's
 * own (cpu/cpuid.c), the same for all models.
 */
#include "core/alloc.h"
#include "cpu/cpuid.h"
#include "cpu/optable.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- features ---- */

struct feature {
    const char *name;
    uint8_t word, bit;
    bool offered, base;
    uint8_t since, needs;
};

static const struct feature features[] = {
#define F(id, name, word, bit, offered, base, since, needs)                                                            \
    {name, word, bit, offered, base, CPU_##since, CPU_FEATURE_##needs},
#include "cpu/features.def"
#undef F
};

/* Other spellings: QEMU's and those of the manuals. */
static const char *const feature_aliases[][2] = {{"sse3", "pni"},
                                                 {"sse4.1", "sse4_1"},
                                                 {"sse4.2", "sse4_2"},
                                                 {"lzcnt", "abm"},
                                                 {"sha", "sha_ni"},
                                                 {"clfsh", "clflush"},
                                                 {"i64", "lm"},
                                                 {"prefetchw", "3dnowprefetch"},
                                                 {"xd", "nx"},
                                                 {"invtsc", "nonstop_tsc"},
                                                 {"cmpxchg16b", "cx16"},
                                                 {"cmpxchg8b", "cx8"},
                                                 {"tsc_deadline", "tsc_deadline_timer"},
                                                 {"pclmuldq", "pclmulqdq"}};

bool model_has(const struct cpu_model *m, enum cpu_feature f)
{
    return f < CPU_FEATURE_COUNT && m->word[features[f].word] >> features[f].bit & 1;
}

bool cpu_has(const struct vcpu *v, enum cpu_feature f)
{
    return model_has(v->model, f);
}

const char *cpu_feature_name(enum cpu_feature f)
{
    return f < CPU_FEATURE_COUNT ? features[f].name : "none";
}

static void set_feature(struct cpu_model *m, unsigned f, bool on)
{
    uint32_t bit = 1u << features[f].bit;
    if (on)
        m->word[features[f].word] |= bit;
    else
        m->word[features[f].word] &= ~bit;
}

/* '-', '_' and '.' are the same, and so are cases. */
static bool same_name(const char *name, const char *given, size_t len)
{
    for (size_t k = 0; k < len; k++) {
        int a = tolower((unsigned char)name[k]), b = tolower((unsigned char)given[k]);
        a = a == '-' || a == '.' ? '_' : a;
        b = b == '-' || b == '.' ? '_' : b;
        if (!a || a != b)
            return false;
    }
    return name[len] == 0;
}

static int find_feature(const char *given, size_t len)
{
    const char *name = NULL;
    for (unsigned k = 0; k < ARRAY_LEN(feature_aliases); k++)
        if (same_name(feature_aliases[k][0], given, len))
            name = feature_aliases[k][1];
    if (name) {
        given = name;
        len = strlen(name);
    }
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++)
        if (same_name(features[f].name, given, len))
            return (int)f;
    return -1;
}

/* ---- gates ---- */

/* The feature behind each gate that has one. */
static const uint8_t gate_features[GATE_COUNT] = {
    [GATE_BASE] = CPU_FEATURE_NONE,
    [GATE_P6] = CPU_FEATURE_NONE,
    [GATE_VMX] = CPU_FEATURE_NONE,
    [GATE_X87] = CPU_FEATURE_FPU,
    [GATE_CMOV] = CPU_FEATURE_CMOV,
    [GATE_CX8] = CPU_FEATURE_CX8,
    [GATE_CX16] = CPU_FEATURE_CX16,
    [GATE_TSC] = CPU_FEATURE_TSC,
    [GATE_MSR] = CPU_FEATURE_MSR,
    [GATE_SEP] = CPU_FEATURE_SEP,
    [GATE_SYSCALL] = CPU_FEATURE_SYSCALL,
    [GATE_MMX] = CPU_FEATURE_MMX,
    [GATE_FXSR] = CPU_FEATURE_FXSR,
    [GATE_SSE] = CPU_FEATURE_SSE,
    [GATE_SSE2] = CPU_FEATURE_SSE2,
    [GATE_SSE3] = CPU_FEATURE_SSE3,
    [GATE_SSSE3] = CPU_FEATURE_SSSE3,
    [GATE_SSE41] = CPU_FEATURE_SSE41,
    [GATE_SSE42] = CPU_FEATURE_SSE42,
    [GATE_AES] = CPU_FEATURE_AES,
    [GATE_PCLMUL] = CPU_FEATURE_PCLMULQDQ,
    [GATE_SHA] = CPU_FEATURE_SHA,
    [GATE_GFNI] = CPU_FEATURE_GFNI,
    [GATE_POPCNT] = CPU_FEATURE_POPCNT,
    [GATE_LZCNT] = CPU_FEATURE_LZCNT,
    [GATE_BMI1] = CPU_FEATURE_BMI1,
    [GATE_BMI2] = CPU_FEATURE_BMI2,
    [GATE_MOVBE] = CPU_FEATURE_MOVBE,
    [GATE_ADX] = CPU_FEATURE_ADX,
    [GATE_CLFSH] = CPU_FEATURE_CLFLUSH,
    [GATE_CLFLUSHOPT] = CPU_FEATURE_CLFLUSHOPT,
    [GATE_CLWB] = CPU_FEATURE_CLWB,
    [GATE_MONITOR] = CPU_FEATURE_MONITOR,
    [GATE_RDTSCP] = CPU_FEATURE_RDTSCP,
    [GATE_RDRAND] = CPU_FEATURE_RDRAND,
    [GATE_RDSEED] = CPU_FEATURE_RDSEED,
    [GATE_RDPID] = CPU_FEATURE_RDPID,
    [GATE_FSGSBASE] = CPU_FEATURE_FSGSBASE,
    [GATE_INVPCID] = CPU_FEATURE_INVPCID,
    [GATE_SMAP] = CPU_FEATURE_SMAP,
    [GATE_PKU] = CPU_FEATURE_PKU,
    [GATE_XSAVE] = CPU_FEATURE_XSAVE,
    [GATE_XSAVEOPT] = CPU_FEATURE_XSAVEOPT,
    [GATE_XSAVEC] = CPU_FEATURE_XSAVEC,
    [GATE_XSAVES] = CPU_FEATURE_XSAVES,
    [GATE_SERIALIZE] = CPU_FEATURE_SERIALIZE,
    [GATE_AVX] = CPU_FEATURE_AVX,
    [GATE_AVX2] = CPU_FEATURE_AVX2,
    [GATE_FMA] = CPU_FEATURE_FMA,
    [GATE_F16C] = CPU_FEATURE_F16C,
};
_Static_assert(GATE_COUNT <= 64, "gates are bits of cpu_model.gates");

enum cpu_feature cpu_gate_feature(unsigned gate)
{
    return gate_features[gate];
}

/* VMX forms are left to the interpreter's report of what nothing implements. */
static uint64_t gates_of(const struct cpu_model *m)
{
    uint64_t gates = 0;
    for (unsigned g = 0; g < GATE_COUNT; g++) {
        bool on = gate_features[g] == CPU_FEATURE_NONE ? g != GATE_P6 || m->generation >= CPU_PENTIUM3
                                                       : model_has(m, gate_features[g]);
        gates |= (uint64_t)on << g;
    }
    return gates;
}

/* ---- MSRs ---- */

static const struct {
    uint32_t first, last;
    uint8_t feature, alternative; /* either will do */
    uint8_t since;                /* where no feature tells: enum cpu_generation */
} msr_rules[] = {
#define FEATURE(first, last, f)         {first, last, CPU_FEATURE_##f, CPU_FEATURE_NONE, CPU_I486},
#define EITHER(first, last, f, g)       {first, last, CPU_FEATURE_##f, CPU_FEATURE_##g, CPU_I486},
#define SINCE(first, last, generation_) {first, last, CPU_FEATURE_NONE, CPU_FEATURE_NONE, CPU_##generation_},
    FEATURE(0x10, 0x10, TSC)                                              /* time-stamp counter */
    SINCE(0x17, 0x17, PENTIUM3)                                           /* platform identity */
    FEATURE(0x1b, 0x1b, APIC)                                             /* APIC base */
    SINCE(0x34, 0x34, NEHALEM)                                            /* SMIs counted */
    SINCE(0x3a, 0x3a, CORE2)                                              /* feature control */
    FEATURE(0x3b, 0x3b, TSC_ADJUST)                                       /* */
    FEATURE(0x48, 0x49, SPEC_CTRL)                                        /* speculation control, predictor command */
    SINCE(0x79, 0x8b, PENTIUM3)                                           /* microcode update */
    SINCE(0xce, 0xce, NEHALEM)                                            /* platform information */
    SINCE(0xe2, 0xe2, NEHALEM)                                            /* C-states of the package */
    FEATURE(0xfe, 0xfe, MTRR)                                             /* capabilities */
    FEATURE(0x10a, 0x10a, ARCH_CAPABILITIES) SINCE(0x140, 0x140, HASWELL) /* miscellaneous features */
    FEATURE(0x174, 0x176, SEP)                                            /* SYSENTER */
    FEATURE(0x179, 0x17a, MCA)                                            /* */
    SINCE(0x1a0, 0x1a0, CORE2)                                            /* miscellaneous enables */
    SINCE(0x1d9, 0x1d9, PENTIUM3)                                         /* debug control */
    SINCE(0x1fc, 0x1fc, NEHALEM)                                          /* power control */
    FEATURE(0x200, 0x20f, MTRR)                                           /* variable ranges */
    FEATURE(0x250, 0x26f, MTRR)                                           /* fixed ranges */
    FEATURE(0x277, 0x277, PAT)                                            /* */
    FEATURE(0x2ff, 0x2ff, MTRR)                                           /* default type */
    FEATURE(0x6e0, 0x6e0, TSC_DEADLINE)                                   /* */
    FEATURE(0x800, 0x8ff, X2APIC)                                         /* */
    FEATURE(0xda0, 0xda0, XSAVES)                                         /* supervisor state components */
    EITHER(0xc0000080, 0xc0000080, NX, SYSCALL)                           /* EFER */
    FEATURE(0xc0000081, 0xc0000084, SYSCALL)                              /* STAR, LSTAR, CSTAR, FMASK */
    FEATURE(0xc0000100, 0xc0000102, LM)                                   /* segment bases */
    EITHER(0xc0000103, 0xc0000103, RDTSCP, RDPID)                         /* auxiliary TSC */
#undef FEATURE
#undef EITHER
#undef SINCE
};

bool model_has_msr(const struct cpu_model *m, uint32_t index)
{
    for (unsigned k = 0; k < ARRAY_LEN(msr_rules); k++) {
        if (index < msr_rules[k].first || index > msr_rules[k].last)
            continue;
        if (msr_rules[k].feature == CPU_FEATURE_NONE)
            return m->generation >= msr_rules[k].since;
        return model_has(m, msr_rules[k].feature) || model_has(m, msr_rules[k].alternative);
    }
    return true;
}

/* ---- models ---- */

struct model_row {
    const char *name, *brand;
    uint8_t generation, family, model, stepping, maxphyaddr;
    uint32_t last_leaf, last_extended;
    uint32_t cache[4];
    uint32_t microcode; /* recent enough for the features that the model shows, older than those that it does not */
};

/* Leaf 2 repeats leaf 4's caches: 32 KiB and 32 KiB, 512 KiB, 8 MiB; or refers to it. */
#define CACHES_BY_CODE                                                                                                 \
    {                                                                                                                  \
        0xf0030101, 0, 0, 0x4d80302c                                                                                   \
    }
#define CACHES_IN_LEAF_4                                                                                               \
    {                                                                                                                  \
        0x00feff01, 0, 0, 0                                                                                            \
    }
#define CACHES_PENTIUM3                                                                                                \
    {                                                                                                                  \
        0x03020101, 0, 0, 0x0c040843                                                                                   \
    }

static const struct model_row models[] = {
    /* Recent enough that no erratum of older models is looked for. */
    {"base", "Umbra virtual CPU", CPU_NEVER, 6, 0x8f, 8, 40, 0x16, 0x80000008, CACHES_IN_LEAF_4, 0},
    {"max", "Umbra virtual CPU, all features", CPU_NEVER, 6, 0x8f, 8, 40, 0x1f, 0x80000008, CACHES_IN_LEAF_4, 0},
    {"486", "", CPU_I486, 4, 8, 0, 32, 1, 0, {0}, 0},
    {"pentium", "", CPU_PENTIUM, 5, 4, 3, 32, 1, 0, {0}, 0},
    {"pentium3", "", CPU_PENTIUM3, 6, 8, 3, 36, 2, 0, CACHES_PENTIUM3, 0x10},
    {"core2", "Intel(R) Core(TM)2 Duo CPU (Umbra)", CPU_CORE2, 6, 15, 11, 36, 0xa, 0x80000008, CACHES_BY_CODE, 0xba},
    {"nehalem", "Intel Core i7 9xx (Nehalem, Umbra)", CPU_NEHALEM, 6, 26, 3, 40, 0xb, 0x80000008, CACHES_BY_CODE, 0x15},
    {"haswell", "Intel Core Processor (Haswell, Umbra)", CPU_HASWELL, 6, 60, 4, 40, 0xd, 0x80000008, CACHES_IN_LEAF_4,
     0x22},
    {"skylake", "Intel Core Processor (Skylake, Umbra)", CPU_SKYLAKE, 6, 94, 3, 40, 0x16, 0x80000008, CACHES_IN_LEAF_4,
     0xb2},
};

static const char *const model_aliases[][2] = {{"host", "max"},           {"qemu64", "base"},
                                               {"kvm64", "base"},         {"core2duo", "core2"},
                                               {"conroe", "core2"},       {"skylake-client", "skylake"},
                                               {"i486", "486"},           {"486-v1", "486"},
                                               {"pentium-v1", "pentium"}, {"pentium3-v1", "pentium3"},
                                               {"core2duo-v1", "core2"},  {"nehalem-v1", "nehalem"},
                                               {"haswell-v1", "haswell"}, {"skylake-client-v1", "skylake"}};

static const struct model_row *find_model(const char *given, size_t len)
{
    for (unsigned k = 0; k < ARRAY_LEN(model_aliases); k++)
        if (same_name(model_aliases[k][0], given, len)) {
            given = model_aliases[k][1];
            len = strlen(given);
            break;
        }
    for (unsigned k = 0; k < ARRAY_LEN(models); k++)
        if (same_name(models[k].name, given, len))
            return &models[k];
    return NULL;
}

const char *cpu_model_name(unsigned n)
{
    return n < ARRAY_LEN(models) ? models[n].name : NULL;
}

const char *cpu_feature_offered(unsigned n)
{
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++)
        if (features[f].offered && !n--)
            return features[f].name;
    return NULL;
}

static bool row_wants(const struct model_row *row, const struct feature *f)
{
    if (row == &models[0])
        return f->base;
    if (f->word == CPUID_KVM_EAX) /* no processor's: asked for by name */
        return false;
    return row->generation == CPU_NEVER || f->since <= row->generation;
}

static void add_note(struct cpu_model *m, const char *fmt, ...)
{
    size_t used = strlen(m->note);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(m->note + used, sizeof m->note - used, fmt, ap);
    va_end(ap);
}

static struct cpu_model *model_make(const struct model_row *row)
{
    struct cpu_model *m = alloc_zeroed(1, sizeof *m);
    m->name = row->name;
    m->brand = row->brand;
    m->generation = row->generation;
    m->family = row->family;
    m->model = row->model;
    m->stepping = row->stepping;
    m->maxphyaddr = row->maxphyaddr;
    m->last_leaf = row->last_leaf;
    m->last_extended = row->last_extended;
    m->microcode = row->microcode;
    memcpy(m->cache_descriptor, row->cache, sizeof row->cache);
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++)
        set_feature(m, f, features[f].offered && row_wants(row, &features[f]));
    return m;
}

/* ---- switches ---- */

static bool set_number(struct cpu_model *m, const char *key, size_t len, unsigned long value)
{
    const struct {
        const char *name;
        uint8_t *field;
        unsigned long min, max;
    } numbers[] = {{"family", &m->family, 0, 15},
                   {"model", &m->model, 0, 255},
                   {"stepping", &m->stepping, 0, 15},
                   {"phys-bits", &m->maxphyaddr, 32, 52}};
    for (unsigned k = 0; k < ARRAY_LEN(numbers); k++)
        if (same_name(numbers[k].name, key, len)) {
            *numbers[k].field = (uint8_t)value;
            return value >= numbers[k].min && value <= numbers[k].max;
        }
    return false;
}

/* As the user means it: kvmclock is more than its bit. */
static void switch_feature(struct cpu_model *m, unsigned f, bool on)
{
    set_feature(m, f, on);
    if (f == CPU_FEATURE_KVMCLOCK) {
        set_feature(m, CPU_FEATURE_KVM_STEAL_TIME, on);
        set_feature(m, CPU_FEATURE_KVMCLOCK_STABLE, on);
        set_feature(m, CPU_FEATURE_NONSTOP_TSC, !on);
    }
}

/* key=on, key=off or key=number. */
static bool take_setting(struct cpu_model *m, const char *p, size_t len)
{
    const char *value = (const char *)memchr(p, '=', len) + 1;
    size_t key = (size_t)(value - 1 - p), rest = len - key - 1;
    bool on = rest == 2 && memcmp(value, "on", 2) == 0, off = rest == 3 && memcmp(value, "off", 3) == 0;
    if (!on && !off) {
        char *end;
        unsigned long n = strtoul(value, &end, 0);
        return rest > 0 && end == value + rest && set_number(m, p, key, n);
    }
    int f = find_feature(p, key);
    if (f < 0 || (on && !features[f].offered))
        return false;
    switch_feature(m, (unsigned)f, on);
    return true;
}

/* One switch. A feature that is not implemented cannot be switched on, which is what "check" and "enforce" ask for. */
static bool take_switch(struct cpu_model *m, const char *p, size_t len)
{
    if (same_name("check", p, len) || same_name("enforce", p, len))
        return true;
    if (memchr(p, '=', len))
        return take_setting(m, p, len);
    int f = len > 1 && (*p == '+' || *p == '-') ? find_feature(p + 1, len - 1) : -1;
    if (f < 0 || (*p == '+' && !features[f].offered))
        return false;
    switch_feature(m, (unsigned)f, *p == '+');
    return true;
}

/* Features whose foundation is off go with it. */
static void drop_dependants(struct cpu_model *m)
{
    for (bool again = true; again;) {
        again = false;
        for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++) {
            unsigned needs = features[f].needs;
            if (!model_has(m, f) || needs == CPU_FEATURE_NONE || model_has(m, needs))
                continue;
            set_feature(m, f, false);
            add_note(m, "%s%s needs %s and is off", m->note[0] ? ", " : "", features[f].name, features[needs].name);
            again = true;
        }
    }
}

/* State components. "base" has protection keys without a component for PKRU, as it always had. */
static uint64_t xcr0_of(const struct cpu_model *m)
{
    uint64_t xcr0 = XSTATE_X87 | XSTATE_SSE;
    if (!model_has(m, CPU_FEATURE_XSAVE))
        return 0;
    if (model_has(m, CPU_FEATURE_AVX))
        xcr0 |= XSTATE_AVX;
    if (model_has(m, CPU_FEATURE_PKU) && strcmp(m->name, "base") != 0)
        xcr0 |= XSTATE_PKRU;
    return xcr0;
}

struct cpu_model *cpu_model_parse(const char *spec, const char **bad)
{
    size_t len = strcspn(spec, ",");
    const struct model_row *row = find_model(spec, len);
    if (!row) {
        *bad = spec;
        return NULL;
    }
    struct cpu_model *m = model_make(row);
    for (const char *p = spec + len; *p; p += len) {
        p++; /* the comma */
        len = strcspn(p, ",");
        if (!take_switch(m, p, len)) {
            *bad = p;
            free(m);
            return NULL;
        }
    }
    if (!same_name(row->name, spec, strcspn(spec, ",")) && (row == &models[0] || row == &models[1]))
        add_note(m, "it is '%s' here%s", row->name,
                 row == &models[1] ? ", with every feature that there is; nothing of the host's processor shows" : "");
    drop_dependants(m);
    m->xcr0 = xcr0_of(m);
    m->gates = gates_of(m);
    return m;
}

uint32_t cpu_signature(const struct cpu_model *m)
{
    return m->stepping | (m->model & 0xfu) << 4 | (uint32_t)m->family << 8 | (uint32_t)(m->model >> 4) << 16;
}
