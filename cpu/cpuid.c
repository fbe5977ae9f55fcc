/*
 * The CPUID instruction (SDM volume 2). What the models are is in cpu/model.c.
 */
#include "cpu/cpuid.h"
#include "cpu/kvm_pv.h"
#include "cpu/system.h"

#include <string.h>

#define CLFLUSH_LINE 64
#define XSAVE_LEGACY 576 /* x87, SSE and the header */

/* ---- topology: what the leaves say of APIC IDs ---- */

/* APIC IDs set aside for a package. */
static uint32_t package_ids(const struct vcpu *v)
{
    return 1u << topology_socket_shift(&v->topology);
}

/* APIC IDs set aside for a core. */
static uint32_t core_ids(const struct vcpu *v)
{
    return 1u << topology_thread_bits(&v->topology);
}

/* ---- leaves ---- */

static void put_text(uint32_t *out, const char *text)
{
    memcpy(out, text, 16);
}

static uint32_t last_leaf(const struct vcpu *v)
{
    uint32_t last = v->model->last_leaf;
    return v->msr.misc_enable & MISC_ENABLE_LIMIT_CPUID && last > 2 ? 2 : last;
}

static bool has_monitor(const struct vcpu *v)
{
    return cpu_has(v, CPU_FEATURE_MONITOR) && v->msr.misc_enable & MISC_ENABLE_MONITOR;
}

static void leaf_0(const struct vcpu *v, uint32_t out[4])
{
    out[0] = last_leaf(v);
    memcpy(&out[1], "Genu", 4);
    memcpy(&out[3], "ineI", 4);
    memcpy(&out[2], "ntel", 4);
}

/* SDM volume 3, 11.4.3: a local APIC that is disabled in IA32_APIC_BASE shows as absent. */
static bool apic_is_disabled(const struct vcpu *v)
{
    uint64_t base;
    return v->intc && v->intc->msr_read(v->intc->ctx, 0x1b, &base) && !(base >> 11 & 1);
}

static void leaf_1(const struct vcpu *v, uint32_t out[4])
{
    uint32_t logical = package_ids(v);
    out[0] = cpu_signature(v->model);
    out[1] = v->apic_id << 24 | logical << 16 | (cpu_has(v, CPU_FEATURE_CLFLUSH) ? CLFLUSH_LINE / 8 << 8 : 0);
    out[2] = v->model->word[CPUID_1_ECX] | (v->cr4 & CR4_OSXSAVE ? 1u << 27 : 0) |
             (v->model->word[CPUID_KVM_EAX] ? 1u << 31 : 0); /* a hypervisor is there */
    out[3] = v->model->word[CPUID_1_EDX] | (logical > 1 ? 1u << 28 : 0);
    if (!has_monitor(v))
        out[2] &= ~(1u << 3);
    if (apic_is_disabled(v))
        out[3] &= ~(1u << 9);
}

/* Deterministic cache parameters: type, level, line 64, ways, sets. */
static void cache(uint32_t out[4], const struct vcpu *v, unsigned type, unsigned level, unsigned ways, unsigned sets,
                  bool shared)
{
    uint32_t sharing = shared ? package_ids(v) : core_ids(v), cores = package_ids(v) / core_ids(v);
    out[0] = type | level << 5 | 1u << 8 | (sharing - 1) << 14 | (cores - 1) << 26;
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
        out[0] = topology_thread_bits(&v->topology);
        out[1] = v->topology.threads;
        out[2] = 1u << 8;
    } else if (subleaf == 1) { /* cores */
        out[0] = topology_socket_shift(&v->topology);
        out[1] = v->topology.cores * v->topology.threads;
        out[2] = 2u << 8 | 1;
    } else {
        out[2] = subleaf & 0xff;
    }
    out[3] = v->apic_id;
}

/* State components beyond the header: number, bytes, offset in the standard format. */
static const struct {
    uint8_t number;
    uint16_t size, offset;
} components[] = {{2, 256, 576}, {9, 8, 2688}};

uint32_t xstate_offset(unsigned component, uint64_t xcomp_bv)
{
    uint32_t at = XSAVE_LEGACY;
    for (unsigned k = 0; k < ARRAY_LEN(components); k++) {
        if (components[k].number == component)
            return xcomp_bv >> 63 ? at : components[k].offset;
        if (xcomp_bv >> components[k].number & 1)
            at += components[k].size;
    }
    return 0;
}

uint32_t xstate_bytes(uint64_t mask, uint64_t xcomp_bv)
{
    uint32_t bytes = XSAVE_LEGACY;
    for (unsigned k = 0; k < ARRAY_LEN(components); k++)
        if (mask >> components[k].number & 1)
            bytes = xstate_offset(components[k].number, xcomp_bv) + components[k].size;
    return bytes;
}

static void leaf_d(const struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    if (!cpu_has(v, CPU_FEATURE_XSAVE))
        return;
    if (subleaf == 0) {
        out[0] = (uint32_t)v->model->xcr0;
        out[1] = xstate_bytes(v->xcr0, 0);
        out[2] = xstate_bytes(v->model->xcr0, 0);
        out[3] = (uint32_t)(v->model->xcr0 >> 32);
    } else if (subleaf == 1) {
        out[0] = v->model->word[CPUID_D1_EAX];
        if (out[0] & 0xa) /* XSAVEC, XSAVES */
            out[1] = xstate_bytes(v->xcr0 | v->msr.xss, v->xcr0 | v->msr.xss | 1ull << 63);
    }
    for (unsigned k = 0; k < ARRAY_LEN(components); k++)
        if (subleaf == components[k].number && v->model->xcr0 >> subleaf & 1) {
            out[0] = components[k].size;
            out[1] = components[k].offset;
        }
}

static void basic_leaf(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    switch (leaf) {
    case 0:
        leaf_0(v, out);
        break;
    case 1:
        leaf_1(v, out);
        break;
    case 2:
        memcpy(out, v->model->cache_descriptor, sizeof v->model->cache_descriptor);
        break;
    case 4:
        leaf_4(v, subleaf, out);
        break;
    case 5: /* a line of 64 bytes; C1 alone; MWAIT may let masked interrupts wake it */
        if (has_monitor(v)) {
            out[0] = out[1] = VCPU_MONITOR_LINE;
            out[2] = 3;
            out[3] = 0x10;
        }
        break;
    case 6: /* the APIC timer always runs */
        out[0] = 1u << 2;
        break;
    case 7:
        leaf_7(v, subleaf, out);
        break;
    case 0xb:
    case 0x1f: /* no levels beyond those of leaf 0BH */
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

static void put_brand(uint32_t out[4], const char *brand, unsigned part)
{
    char text[48] = "";
    strncpy(text, brand, sizeof text - 1);
    put_text(out, text + 16 * part);
}

static void extended_leaf(const struct vcpu *v, uint32_t leaf, uint32_t out[4])
{
    uint32_t edx = v->model->word[CPUID_81_EDX];
    if (v->msr.misc_enable & MISC_ENABLE_NO_XD)
        edx &= ~(1u << 20);
    switch (leaf) {
    case 0x80000000:
        out[0] = v->model->last_extended;
        break;
    case 0x80000001: /* SYSCALL shows in 64-bit mode only */
        out[2] = v->model->word[CPUID_81_ECX];
        out[3] = mode_is_code64(v) ? edx : edx & ~(1u << 11);
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        put_brand(out, v->model->brand, leaf - 0x80000002);
        break;
    case 0x80000006: /* L2: 512 KiB, 8 ways, line 64 */
        out[2] = 512u << 16 | 6u << 12 | CLFLUSH_LINE;
        break;
    case 0x80000007: /* invariant TSC */
        out[3] = v->model->word[CPUID_87_EDX];
        break;
    case 0x80000008:
        out[0] = v->model->maxphyaddr | (cpu_has(v, CPU_FEATURE_LA57) ? 57u : 48u) << 8;
        break;
    default:
        break;
    }
}

/* Beyond the last leaf, basic or extended, Intel's processors answer with the last basic one. */
void cpuid_query(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof out[0]);
    if (leaf >= 0x80000000 && leaf <= v->model->last_extended)
        extended_leaf(v, leaf, out);
    else if (!kvm_pv_cpuid(v, leaf, out))
        basic_leaf(v, leaf > last_leaf(v) ? last_leaf(v) : leaf, subleaf, out);
}

void cpuid_forget(struct vcpu *v)
{
    for (unsigned k = 0; k < CPUID_ANSWERS; k++)
        v->cpuid.answer[0][k].leaf = v->cpuid.answer[1][k].leaf = k + 1;
    v->cpuid.cr4 = v->cr4;
    v->cpuid.xcr0 = v->xcr0;
    v->cpuid.xss = v->msr.xss;
}

const uint32_t *cpuid_recall(struct vcpu *v, uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_answers *known = &v->cpuid;
    if (known->cr4 != v->cr4 || known->xcr0 != v->xcr0 || known->xss != v->msr.xss)
        cpuid_forget(v);
    struct cpuid_answer *a = &v->cpuid.answer[mode_is_code64(v)][cpuid_answer_index(leaf, subleaf)];
    if (a->leaf != leaf || a->subleaf != subleaf) {
        cpuid_query(v, leaf, subleaf, a->out);
        a->leaf = leaf;
        a->subleaf = subleaf;
    }
    return a->out;
}

void vcpu_cpuid(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    cpuid_query(v, leaf, subleaf, out);
}
