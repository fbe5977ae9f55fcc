/*
 * CPUID (SDM volume 2) and the CPU models.
 */
#include "cpu/cpuid.h"
#include "core/alloc.h"
#include "cpu/optable.h"
#include "cpu/system.h"

#include <stdlib.h>

#define CLFLUSH_LINE 64
#define XSAVE_LEGACY 576 /* x87, SSE and the header */

/* ---- features ---- */

struct feature {
    const char *name;
    uint8_t word, bit;
    bool base;
};

static const struct feature features[] = {
#define X(id, name, word, bit, base) {name, word, bit, base},
    CPU_FEATURES(X)
#undef X
};

static bool model_has(const struct cpu_model *m, unsigned f)
{
    return m->word[features[f].word] >> features[f].bit & 1;
}

bool cpu_has(const struct vcpu *v, enum cpu_feature f)
{
    return model_has(v->model, f);
}

/* The feature behind each gate; a gate without a row is open. */
#define GATED(X)                                                                                                       \
    X(MMX) X(FXSR) X(SSE) X(SSE2) X(SSE3) X(SSSE3) X(SSE41) X(SSE42) X(AES) X(PCLMUL) X(SHA) X(XSAVE) X(XSAVEOPT)

uint64_t cpu_model_gates(const struct cpu_model *m)
{
    uint64_t gates = ~0ull;
#define X(name)                                                                                                        \
    if (!model_has(m, CPU_FEATURE_##name))                                                                             \
        gates &= ~(1ull << GATE_##name);
    GATED(X)
#undef X
    return gates;
}

static void set_feature(struct cpu_model *m, unsigned f, bool on)
{
    uint32_t bit = 1u << features[f].bit;
    if (on)
        m->word[features[f].word] |= bit;
    else
        m->word[features[f].word] &= ~bit;
}

/* Family 6, model 0x8f, stepping 8: recent enough that no erratum of older models is looked for. */
static struct cpu_model *model_base(void)
{
    struct cpu_model *m = alloc_zeroed(1, sizeof *m);
    m->family = 6;
    m->model = 0x8f;
    m->stepping = 8;
    m->maxphyaddr = 40;
    m->xcr0 = 3;
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++)
        set_feature(m, f, features[f].base);
    return m;
}

static int find_feature(const char *name, size_t len)
{
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++)
        if (strlen(features[f].name) == len && memcmp(features[f].name, name, len) == 0)
            return (int)f;
    return -1;
}

struct cpu_model *cpu_model_parse(const char *spec, const char **bad)
{
    size_t len = strcspn(spec, ",");
    if (len != 4 || memcmp(spec, "base", 4) != 0) {
        *bad = spec;
        return NULL;
    }
    struct cpu_model *m = model_base();
    for (const char *p = spec + len; *p; p += len) {
        p++; /* the comma */
        len = strcspn(p, ",");
        int f = len > 1 && (*p == '+' || *p == '-') ? find_feature(p + 1, len - 1) : -1;
        if (f < 0) {
            *bad = p;
            free(m);
            return NULL;
        }
        set_feature(m, (unsigned)f, *p == '+');
    }
    return m;
}

uint32_t cpu_signature(const struct cpu_model *m)
{
    return m->stepping | (m->model & 0xfu) << 4 | (uint32_t)m->family << 8 | (uint32_t)(m->model >> 4) << 16;
}

/* ---- topology: one package, a core each vCPU, no threads ---- */

static unsigned core_bits(const struct vcpu *v)
{
    unsigned bits = 0;
    while (1u << bits < v->cpu_count)
        bits++;
    return bits;
}

/* ---- leaves ---- */

static void put_text(uint32_t *out, const char *text)
{
    memcpy(out, text, 16);
}

static void leaf_0(uint32_t out[4])
{
    out[0] = 0x16;
    memcpy(&out[1], "Genu", 4);
    memcpy(&out[3], "ineI", 4);
    memcpy(&out[2], "ntel", 4);
}

static void leaf_1(const struct vcpu *v, uint32_t out[4])
{
    uint32_t logical = 1u << core_bits(v);
    out[0] = cpu_signature(v->model);
    out[1] = v->index << 24 | logical << 16 | CLFLUSH_LINE / 8 << 8;
    out[2] = v->model->word[CPUID_1_ECX] | (v->cr4 & CR4_OSXSAVE ? 1u << 27 : 0);
    out[3] = v->model->word[CPUID_1_EDX] | (v->cpu_count > 1 ? 1u << 28 : 0);
}

/* Deterministic cache parameters: type, level, line 64, ways, sets. */
static void cache(uint32_t out[4], const struct vcpu *v, unsigned type, unsigned level, unsigned ways, unsigned sets,
                  bool shared)
{
    uint32_t cores = (1u << core_bits(v)) - 1;
    out[0] = type | level << 5 | 1u << 8 | (shared ? cores << 14 : 0) | cores << 26;
    out[1] = (CLFLUSH_LINE - 1) | (ways - 1) << 22;
    out[2] = sets - 1;
    out[3] = 0;
}

static void leaf_4(const struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    switch (subleaf) {
    case 0:
        cache(out, v, 1, 1, 8, 64, false); /* 32 KiB data */
        break;
    case 1:
        cache(out, v, 2, 1, 8, 64, false); /* 32 KiB instructions */
        break;
    case 2:
        cache(out, v, 3, 2, 8, 1024, false); /* 512 KiB */
        break;
    case 3:
        cache(out, v, 3, 3, 16, 8192, true); /* 8 MiB */
        break;
    default:
        break;
    }
}

static void leaf_7(const struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    if (subleaf != 0)
        return;
    out[1] = v->model->word[CPUID_7_EBX];
    out[2] = v->model->word[CPUID_7_ECX] | (v->cr4 & CR4_PKE ? 1u << 4 : 0);
    out[3] = v->model->word[CPUID_7_EDX];
}

static void leaf_b(const struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    if (subleaf == 0) { /* threads */
        out[1] = 1;
        out[2] = 1u << 8;
    } else if (subleaf == 1) { /* cores */
        out[0] = core_bits(v);
        out[1] = v->cpu_count;
        out[2] = 2u << 8 | 1;
    } else {
        out[2] = subleaf & 0xff;
    }
    out[3] = v->index;
}

static void leaf_d(const struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    if (!cpu_has(v, CPU_FEATURE_XSAVE))
        return;
    if (subleaf == 0) {
        out[0] = (uint32_t)v->model->xcr0;
        out[1] = out[2] = XSAVE_LEGACY;
        out[3] = (uint32_t)(v->model->xcr0 >> 32);
    } else if (subleaf == 1) {
        out[0] = v->model->word[CPUID_D1_EAX];
    }
}

static void basic_leaf(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    switch (leaf) {
    case 0:
        leaf_0(out);
        break;
    case 1:
        leaf_1(v, out);
        break;
    case 2: /* look in leaf 4 */
        out[0] = 0x00feff01;
        break;
    case 4:
        leaf_4(v, subleaf, out);
        break;
    case 6: /* the APIC timer always runs */
        out[0] = 1u << 2;
        break;
    case 7:
        leaf_7(v, subleaf, out);
        break;
    case 0xb:
        leaf_b(v, subleaf, out);
        break;
    case 0xd:
        leaf_d(v, subleaf, out);
        break;
    case 0x15: /* TSC = crystal * 1 / 1 */
        out[0] = out[1] = 1;
        out[2] = (uint32_t)CLOCK_HZ;
        break;
    case 0x16: /* MHz: base, maximum, bus */
        out[0] = out[1] = (uint32_t)(CLOCK_HZ / 1000000);
        out[2] = 100;
        break;
    default:
        break;
    }
}

static void extended_leaf(const struct vcpu *v, uint32_t leaf, uint32_t out[4])
{
    static const char brand[48] = "Umbra virtual CPU";
    uint32_t edx = v->model->word[CPUID_81_EDX];
    switch (leaf) {
    case 0x80000000:
        out[0] = 0x80000008;
        break;
    case 0x80000001: /* SYSCALL shows in 64-bit mode only */
        out[2] = v->model->word[CPUID_81_ECX];
        out[3] = mode_is_code64(v) ? edx : edx & ~(1u << 11);
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        put_text(out, brand + 16 * (leaf - 0x80000002));
        break;
    case 0x80000006: /* L2: 512 KiB, 8 ways, line 64 */
        out[2] = 512u << 16 | 6u << 12 | CLFLUSH_LINE;
        break;
    case 0x80000007: /* invariant TSC */
        out[3] = 1u << 8;
        break;
    case 0x80000008:
        out[0] = v->model->maxphyaddr | (cpu_has(v, CPU_FEATURE_LA57) ? 57u : 48u) << 8;
        break;
    default:
        break;
    }
}

void cpuid_query(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof out[0]);
    if (leaf >= 0x80000000 && leaf <= 0x80000008)
        extended_leaf(v, leaf, out);
    else /* beyond the last basic leaf: that of the last one, as Intel's processors answer */
        basic_leaf(v, leaf > 0x16 ? 0x16 : leaf, subleaf, out);
}
