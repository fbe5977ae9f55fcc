/*
 * CPU models: which features the guest's CPUID shows, and the leaves themselves.
 *
 * A feature is offered only if it is implemented. Names are those of Linux's /proc/cpuinfo.
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
    CPUID_WORDS
};

struct cpu_model {
    uint32_t word[CPUID_WORDS];
    uint8_t family, model, stepping;
    uint8_t maxphyaddr; /* bits */
    uint64_t xcr0;      /* state components that XSETBV may enable */
};

/* One row a feature: identifier, name, register, bit, offered by the model "base". */
#define CPU_FEATURES(X)                                                                                                \
    X(FPU, "fpu", CPUID_1_EDX, 0, true)                                                                                \
    X(VME, "vme", CPUID_1_EDX, 1, true)                                                                                \
    X(DE, "de", CPUID_1_EDX, 2, true)                                                                                  \
    X(PSE, "pse", CPUID_1_EDX, 3, true)                                                                                \
    X(TSC, "tsc", CPUID_1_EDX, 4, true)                                                                                \
    X(MSR, "msr", CPUID_1_EDX, 5, true)                                                                                \
    X(PAE, "pae", CPUID_1_EDX, 6, true)                                                                                \
    X(MCE, "mce", CPUID_1_EDX, 7, true)                                                                                \
    X(CX8, "cx8", CPUID_1_EDX, 8, true)                                                                                \
    X(APIC, "apic", CPUID_1_EDX, 9, true)                                                                              \
    X(SEP, "sep", CPUID_1_EDX, 11, true)                                                                               \
    X(MTRR, "mtrr", CPUID_1_EDX, 12, true)                                                                             \
    X(PGE, "pge", CPUID_1_EDX, 13, true)                                                                               \
    X(MCA, "mca", CPUID_1_EDX, 14, true)                                                                               \
    X(CMOV, "cmov", CPUID_1_EDX, 15, true)                                                                             \
    X(PAT, "pat", CPUID_1_EDX, 16, true)                                                                               \
    X(PSE36, "pse36", CPUID_1_EDX, 17, true)                                                                           \
    X(CLFLUSH, "clflush", CPUID_1_EDX, 19, true)                                                                       \
    X(MMX, "mmx", CPUID_1_EDX, 23, true)                                                                               \
    X(FXSR, "fxsr", CPUID_1_EDX, 24, true)                                                                             \
    X(SSE, "sse", CPUID_1_EDX, 25, true)                                                                               \
    X(SSE2, "sse2", CPUID_1_EDX, 26, true)                                                                             \
    X(SSE3, "pni", CPUID_1_ECX, 0, true)                                                                               \
    X(PCLMUL, "pclmulqdq", CPUID_1_ECX, 1, false)                                                                      \
    X(SSSE3, "ssse3", CPUID_1_ECX, 9, false)                                                                           \
    X(CX16, "cx16", CPUID_1_ECX, 13, true)                                                                             \
    X(SSE41, "sse4_1", CPUID_1_ECX, 19, false)                                                                         \
    X(SSE42, "sse4_2", CPUID_1_ECX, 20, false)                                                                         \
    X(X2APIC, "x2apic", CPUID_1_ECX, 21, true)                                                                         \
    X(POPCNT, "popcnt", CPUID_1_ECX, 23, true)                                                                         \
    X(TSC_DEADLINE, "tsc_deadline_timer", CPUID_1_ECX, 24, true)                                                       \
    X(AES, "aes", CPUID_1_ECX, 25, false)                                                                              \
    X(XSAVE, "xsave", CPUID_1_ECX, 26, true)                                                                           \
    X(RDRAND, "rdrand", CPUID_1_ECX, 30, false)                                                                        \
    X(FSGSBASE, "fsgsbase", CPUID_7_EBX, 0, true)                                                                      \
    X(TSC_ADJUST, "tsc_adjust", CPUID_7_EBX, 1, true)                                                                  \
    X(SMEP, "smep", CPUID_7_EBX, 7, true)                                                                              \
    X(ERMS, "erms", CPUID_7_EBX, 9, true)                                                                              \
    X(RDSEED, "rdseed", CPUID_7_EBX, 18, false)                                                                        \
    X(SMAP, "smap", CPUID_7_EBX, 20, true)                                                                             \
    X(SHA, "sha_ni", CPUID_7_EBX, 29, false)                                                                           \
    X(UMIP, "umip", CPUID_7_ECX, 2, true)                                                                              \
    X(PKU, "pku", CPUID_7_ECX, 3, true)                                                                                \
    X(LA57, "la57", CPUID_7_ECX, 16, false)                                                                            \
    X(RDPID, "rdpid", CPUID_7_ECX, 22, false)                                                                          \
    X(FSRM, "fsrm", CPUID_7_EDX, 4, true)                                                                              \
    X(SPEC_CTRL, "spec_ctrl", CPUID_7_EDX, 26, true)                                                                   \
    X(STIBP, "stibp", CPUID_7_EDX, 27, true)                                                                           \
    X(ARCH_CAPABILITIES, "arch_capabilities", CPUID_7_EDX, 29, true)                                                   \
    X(SSBD, "ssbd", CPUID_7_EDX, 31, true)                                                                             \
    X(SYSCALL, "syscall", CPUID_81_EDX, 11, true)                                                                      \
    X(NX, "nx", CPUID_81_EDX, 20, true)                                                                                \
    X(PDPE1GB, "pdpe1gb", CPUID_81_EDX, 26, true)                                                                      \
    X(RDTSCP, "rdtscp", CPUID_81_EDX, 27, true)                                                                        \
    X(LM, "lm", CPUID_81_EDX, 29, true)                                                                                \
    X(LAHF_LM, "lahf_lm", CPUID_81_ECX, 0, true)                                                                       \
    X(XSAVEOPT, "xsaveopt", CPUID_D1_EAX, 0, false)

enum cpu_feature {
#define X(id, name, word, bit, base) CPU_FEATURE_##id,
    CPU_FEATURES(X)
#undef X
        CPU_FEATURE_COUNT
};

/* True if the model offers the feature. */
bool cpu_has(const struct vcpu *v, enum cpu_feature f);
/*
 * The forms of the instruction table that the model offers: bit n for enum op_gate n (cpu/optable.h). Any other form is
 * an undefined opcode.
 */
uint64_t cpu_model_gates(const struct cpu_model *m);
/* The CPUID instruction: out is EAX, EBX, ECX, EDX. Depends on CR4.OSXSAVE, CR4.PKE, XCR0 and the mode. */
void cpuid_query(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* CPUID.1:EAX, also EDX at reset. */
uint32_t cpu_signature(const struct cpu_model *m);

#endif
