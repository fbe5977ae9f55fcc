/*
 * CPU models: which features the guest's CPUID shows, and the leaves themselves.
 *
 * Models and switches are in cpu/model.c, features in cpu/features.def, leaves in cpu/cpuid.c. What a model shows is
 * what it executes: forms of optable.def whose gate is off are undefined opcodes (or what the bytes meant before the
 * feature existed: TZCNT is BSF), MSRs and CR4 bits of features that are off raise #GP.
 *
 * What KVM adds (cpu/kvm_pv.h) is in no model and named as QEMU does. kvmclock switches its two companions too and,
 * since a guest with an invariant TSC uses no other clock, nonstop_tsc the other way; each can be switched afterwards.
 */
#ifndef CPU_CPUID_H
#define CPU_CPUID_H

#include "cpu/cpu.h"

/* Registers of CPUID that hold feature bits. */
enum cpuid_word {
    CPUID_1_EDX,
    CPUID_1_ECX,
    CPUID_7_EBX,
    CPUID_7_ECX,
    CPUID_7_EDX,
    CPUID_81_EDX,
    CPUID_81_ECX,
    CPUID_D1_EAX,
    CPUID_87_EDX,
    CPUID_KVM_EAX, /* 0x40000001 */
    CPUID_WORDS
};

/* Processor generations that have a model of their own, oldest first. */
enum cpu_generation {
    CPU_I486,
    CPU_PENTIUM,
    CPU_PENTIUM3,
    CPU_CORE2,
    CPU_NEHALEM,
    CPU_HASWELL,
    CPU_SKYLAKE,
    CPU_NEVER /* no named model: "max" and "base" alone */
};

struct cpu_model {
    const char *name, *brand;
    uint32_t word[CPUID_WORDS];
    uint64_t gates;               /* bit n: forms of gate n (enum op_gate) exist */
    uint32_t last_leaf;           /* highest basic leaf */
    uint32_t last_extended;       /* highest extended leaf, or 0 */
    uint32_t cache_descriptor[4]; /* leaf 2 */
    uint8_t generation;           /* enum cpu_generation: what has no feature bit follows from it */
    uint8_t family, model, stepping;
    uint8_t maxphyaddr; /* bits */
    uint32_t microcode; /* revision */
    uint64_t xcr0;      /* state components that XSETBV may enable */
    char note[400];     /* what the specification's switches implied, for the user; "" if nothing */
};

enum cpu_feature {
#define F(id, name, word, bit, offered, base, since, needs) CPU_FEATURE_##id,
#include "cpu/features.def"
#undef F
    CPU_FEATURE_COUNT,
    CPU_FEATURE_NONE = CPU_FEATURE_COUNT
};

bool model_has(const struct cpu_model *m, enum cpu_feature f);
/* True if the model has this MSR, as far as it belongs to a feature or a generation: others are the table's of
 * cpu/msr.c. */
bool model_has_msr(const struct cpu_model *m, uint32_t index);
/* The name that -cpu and messages use. */
const char *cpu_feature_name(enum cpu_feature f);
/* The feature that offers a gate's forms, CPU_FEATURE_NONE if none does. */
enum cpu_feature cpu_gate_feature(unsigned gate);
/* True if the model offers the feature. */
bool cpu_has(const struct vcpu *v, enum cpu_feature f);
/* State components (SDM volume 1, 13.1): bits of XCR0 and of XSAVE headers. */
#define XSTATE_X87  (1ull << 0)
#define XSTATE_SSE  (1ull << 1)
#define XSTATE_AVX  (1ull << 2)
#define XSTATE_PKRU (1ull << 9)
/* Where a component that is not in the legacy region begins in an XSAVE area whose header has this XCOMP_BV (bit 63
 * clear: the standard form). 0: there is none. */
uint32_t xstate_offset(unsigned component, uint64_t xcomp_bv);
/* Bytes of an area that holds the components of `mask`. */
uint32_t xstate_bytes(uint64_t mask, uint64_t xcomp_bv);
/* XINUSE: components that are not in their initial configuration (cpu/interp/xsave.c). */
uint64_t xstate_in_use(const struct vcpu *v);
/* The CPUID instruction: out is EAX, EBX, ECX, EDX. Depends on CR4.OSXSAVE, CR4.PKE, XCR0 and the mode. */
void cpuid_query(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* The same, remembered in v->cpuid. */
const uint32_t *cpuid_recall(struct vcpu *v, uint32_t leaf, uint32_t subleaf);
/* Forgets what is remembered. */
void cpuid_forget(struct vcpu *v);
/* CPUID.1:EAX, also EDX at reset. */
uint32_t cpu_signature(const struct cpu_model *m);

#endif
