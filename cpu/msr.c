/*
 * Model-specific registers (SDM volume 4). What is not here raises #GP(0) and is named on the unimp channel.
 */
#include "cpu/cpuid.h"
#include "cpu/kvm_pv.h"
#include "cpu/system.h"

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_SMI_COUNT = 0x34,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_UPDT_TRIG = 0x79,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    MSR_PKG_CST_CONFIG_CONTROL = 0xe2,
    MSR_MTRRCAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_MISC_FEATURES = 0x140,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_POWER_CTL = 0x1fc,
    MSR_PAT = 0x277,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC_FIRST = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
    MSR_XSS = 0xda0,
    MSR_EFER = 0xc0000080,
    MSR_STAR,
    MSR_LSTAR,
    MSR_CSTAR,
    MSR_FMASK,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    MSR_TSC_AUX
};

/* IA32_ARCH_CAPABILITIES: there is no speculation here, so nothing that needs a mitigation. RDCL_NO, IBRS_ALL,
 * SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO,
 * GDS_NO, RFDS_NO, ITS_NO. */
#define ARCH_CAPS                                                                                                      \
    (1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | 1ull << 13 | 1ull << 14 |     \
     1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 | 1ull << 62)
/* 10 times 100 MHz: maximum non-turbo ratio in bits 15:8, maximum efficiency ratio in 47:40. */
#define PLATFORM_INFO     (10ull << 8 | 10ull << 40)
/* Eight variable ranges, fixed ranges, write combining. */
#define MTRRCAP           (MTRR_VARIABLE | 1u << 8 | 1u << 10)
/* Fast strings on; branch trace and PEBS unavailable. */
#define MISC_ENABLE_RESET (1ull << 0 | 1ull << 11 | 1ull << 12)
/* Package C-state limit, I/O redirection of MWAIT, lock, demotion of C3 and C1 and its undoing. The limit resets to C0:
 * there is no deeper state, for the package or a core. */
#define PKG_CST_BITS      (0xfull | 1ull << 10 | 1ull << 15 | 0xfull << 25)
#define PKG_CST_LOCK      (1ull << 15) /* bits 15:0 stay as they are until the next reset */
/* Bidirectional PROCHOT, C1E. */
#define POWER_CTL_BITS    3ull
#define PAT_RESET         0x0007040600070406ull

void msr_reset(struct vcpu *v)
{
    memset(&v->msr, 0, sizeof v->msr);
    v->msr.pat = PAT_RESET;
    v->msr.misc_enable = MISC_ENABLE_RESET | (cpu_has(v, CPU_FEATURE_MONITOR) ? MISC_ENABLE_MONITOR : 0);
    v->msr.feature_control = 1; /* locked, with nothing enabled */
}

/* ---- the local APIC's ---- */

static bool is_apic_msr(uint32_t index)
{
    return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
           (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
}

/* The deadline is in TSC units; the APIC knows virtual time only. 0 means disarmed on both sides. */
static bool apic_read(struct vcpu *v, uint32_t index, uint64_t *value)
{
    if (!v->intc || !v->intc->msr_read(v->intc->ctx, index, value))
        return false;
    if (index == MSR_TSC_DEADLINE && *value)
        *value += v->msr.tsc_adjust;
    return true;
}

static bool apic_write(struct vcpu *v, uint32_t index, uint64_t value)
{
    v->attn |= ATTN_BOUNDARY;
    if (index == MSR_APIC_BASE) /* CPUID shows whether it is enabled */
        cpuid_forget(v);
    if (index == MSR_TSC_DEADLINE && value && v->msr.tsc_adjust) {
        bool is_past = (int64_t)(value - tsc_read(v)) <= 0;
        value = is_past ? 1 : value - v->msr.tsc_adjust;
    }
    return v->intc && v->intc->msr_write(v->intc->ctx, index, value);
}

/* ---- reading ---- */

static bool read_plain(const struct vcpu *v, uint32_t index, uint64_t *value)
{
    const struct msrs *m = &v->msr;
    switch (index) {
    case MSR_SMI_COUNT:
        *value = (uint32_t)m->smi_count;
        return true;
    case MSR_PKG_CST_CONFIG_CONTROL:
        *value = m->pkg_cst_config;
        return true;
    case MSR_POWER_CTL:
        *value = m->power_ctl;
        return true;
    case MSR_FEATURE_CONTROL:
        *value = m->feature_control;
        return true;
    case MSR_XSS:
        *value = m->xss;
        return true;
    case MSR_TSC_ADJUST:
        *value = m->tsc_adjust;
        return true;
    case MSR_SPEC_CTRL:
        *value = m->spec_ctrl;
        return true;
    case MSR_SYSENTER_CS:
        *value = m->sysenter_cs;
        return true;
    case MSR_SYSENTER_ESP:
        *value = m->sysenter_esp;
        return true;
    case MSR_SYSENTER_EIP:
        *value = m->sysenter_eip;
        return true;
    case MSR_MCG_STATUS:
        *value = m->mcg_status;
        return true;
    case MSR_MISC_ENABLE:
        *value = m->misc_enable;
        return true;
    case MSR_DEBUGCTL:
        *value = m->debugctl;
        return true;
    case MSR_PAT:
        *value = m->pat;
        return true;
    case MSR_STAR:
        *value = m->star;
        return true;
    case MSR_LSTAR:
        *value = m->lstar;
        return true;
    case MSR_CSTAR:
        *value = m->cstar;
        return true;
    case MSR_FMASK:
        *value = m->fmask;
        return true;
    case MSR_KERNEL_GS_BASE:
        *value = m->kernel_gs_base;
        return true;
    case MSR_TSC_AUX:
        *value = m->tsc_aux;
        return true;
    default:
        return false;
    }
}

static bool read_computed(struct vcpu *v, uint32_t index, uint64_t *value)
{
    switch (index) {
    case MSR_TSC:
        *value = tsc_read(v);
        return true;
    case MSR_PLATFORM_ID:
        *value = 0;
        return true;
    case MSR_BIOS_SIGN_ID:
        *value = (uint64_t)v->model->microcode << 32;
        return true;
    case MSR_PLATFORM_INFO:
        *value = PLATFORM_INFO;
        return true;
    case MSR_MISC_FEATURES:
        *value = 0;
        return true;
    case MSR_MTRRCAP:
        *value = MTRRCAP;
        return true;
    case MSR_ARCH_CAPABILITIES:
        *value = ARCH_CAPS;
        return cpu_has(v, CPU_FEATURE_ARCH_CAPABILITIES);
    case MSR_MCG_CAP:
        *value = 0;
        return true; /* no banks */
    case MSR_EFER:
        *value = v->efer;
        return true;
    case MSR_FS_BASE:
        *value = v->seg[SEG_FS].base;
        return true;
    case MSR_GS_BASE:
        *value = v->seg[SEG_GS].base;
        return true;
    default:
        return false;
    }
}

static bool read_any(struct vcpu *v, uint32_t index, uint64_t *value)
{
    if (is_apic_msr(index))
        return apic_read(v, index, value);
    return read_plain(v, index, value) || read_computed(v, index, value) || mtrr_read(v, index, value) ||
           kvm_pv_msr_read(v, index, value);
}

bool msr_read(struct vcpu *v, uint32_t index, uint64_t *value)
{
    bool ok = model_has_msr(v->model, index) && read_any(v, index, value);
    if (!ok)
        log_emit(v->log, LOG_UNIMP, "cpu%u: RDMSR 0x%x at rip 0x%llx: #GP", v->index, index,
                 (unsigned long long)v->rip);
    return ok;
}

/* ---- writing ---- */

static bool write_efer(struct vcpu *v, uint64_t value)
{
    uint64_t offered = EFER_LMA;
    offered |= cpu_has(v, CPU_FEATURE_SYSCALL) ? EFER_SCE : 0;
    offered |= cpu_has(v, CPU_FEATURE_LM) ? EFER_LME : 0;
    offered |= cpu_has(v, CPU_FEATURE_NX) && !(v->msr.misc_enable & MISC_ENABLE_NO_XD) ? EFER_NXE : 0;
    offered |= v->efer & EFER_NXE; /* what was on before it was disabled may stay */
    if (value & ~offered || ((value ^ v->efer) & EFER_LME && v->cr0 & CR0_PG))
        return false;
    v->efer = (value & ~EFER_LMA) | (v->efer & EFER_LMA); /* LMA follows CR0.PG, writes to it are ignored */
    vcpu_mode_changed(v);
    return true;
}

static bool write_pat(struct vcpu *v, uint64_t value)
{
    for (unsigned k = 0; k < 8; k++) {
        uint8_t t = (uint8_t)(value >> 8 * k);
        if (t > 7 || t == 2 || t == 3)
            return false;
    }
    v->msr.pat = value;
    return true;
}

/* TSC and TSC_ADJUST move together: a write to one adds the same difference to the other. */
static bool write_tsc(struct vcpu *v, uint32_t index, uint64_t value)
{
    v->msr.tsc_adjust = index == MSR_TSC ? v->msr.tsc_adjust + (value - tsc_read(v)) : value;
    kvm_pv_tsc_changed(v);
    return true;
}

static bool put_canonical(const struct vcpu *v, uint64_t *field, uint64_t value)
{
    if (!base_is_canonical(v, value))
        return false;
    *field = value;
    return true;
}

static bool put_masked(uint64_t *field, uint64_t value, uint64_t allowed)
{
    if (value & ~allowed)
        return false;
    *field = value;
    return true;
}

static bool put_seg_base(struct vcpu *v, int seg, uint64_t value)
{
    if (!put_canonical(v, &v->seg[seg].base, value))
        return false;
    v->seg_base[seg] = value;
    return true;
}

static bool write_syscall(struct vcpu *v, uint32_t index, uint64_t value)
{
    struct msrs *m = &v->msr;
    switch (index) {
    case MSR_STAR:
        m->star = value;
        return true;
    case MSR_LSTAR:
        return put_canonical(v, &m->lstar, value);
    case MSR_CSTAR:
        return put_canonical(v, &m->cstar, value);
    case MSR_FMASK:
        return put_masked(&m->fmask, value, 0xffffffff);
    case MSR_FS_BASE:
        return put_seg_base(v, SEG_FS, value);
    case MSR_GS_BASE:
        return put_seg_base(v, SEG_GS, value);
    case MSR_KERNEL_GS_BASE:
        return put_canonical(v, &m->kernel_gs_base, value);
    case MSR_TSC_AUX:
        return put_masked(&m->tsc_aux, value, 0xffffffff);
    case MSR_SYSENTER_CS:
        m->sysenter_cs = (uint32_t)value;
        return true;
    case MSR_SYSENTER_ESP:
        return put_canonical(v, &m->sysenter_esp, value);
    case MSR_SYSENTER_EIP:
        return put_canonical(v, &m->sysenter_eip, value);
    default:
        return false;
    }
}

/* IBRS, STIBP, SSBD as offered; there is nothing to restrict. */
static uint64_t spec_ctrl_bits(const struct vcpu *v)
{
    return (cpu_has(v, CPU_FEATURE_SPEC_CTRL) ? 1 : 0) | (cpu_has(v, CPU_FEATURE_STIBP) ? 2 : 0) |
           (cpu_has(v, CPU_FEATURE_SSBD) ? 4 : 0);
}

static bool write_pkg_cst(struct vcpu *v, uint64_t value)
{
    uint64_t kept = v->msr.pkg_cst_config & PKG_CST_LOCK ? 0xffff : 0;
    if (value & ~PKG_CST_BITS)
        return false;
    v->msr.pkg_cst_config = (v->msr.pkg_cst_config & kept) | (value & ~kept);
    return true;
}

/* CPUID follows: the limit of its leaves, MONITOR and execute-disable. */
static bool write_misc_enable(struct vcpu *v, uint64_t value)
{
    const uint64_t fixed = 3ull << 11;
    if (value & MISC_ENABLE_MONITOR && !cpu_has(v, CPU_FEATURE_MONITOR))
        return false;
    v->msr.misc_enable = (value & ~fixed) | (MISC_ENABLE_RESET & fixed);
    cpuid_forget(v);
    return true;
}

static bool write_other(struct vcpu *v, uint32_t index, uint64_t value)
{
    struct msrs *m = &v->msr;
    switch (index) {
    case MSR_TSC:
    case MSR_TSC_ADJUST:
        return write_tsc(v, index, value);
    case MSR_SPEC_CTRL:
        return put_masked(&m->spec_ctrl, value, spec_ctrl_bits(v));
    case MSR_PRED_CMD:
        return cpu_has(v, CPU_FEATURE_SPEC_CTRL) && !(value & ~1ull); /* IBPB: nothing to do */
    case MSR_BIOS_UPDT_TRIG:
        return true; /* no microcode: the update is ignored, the revision stays */
    case MSR_BIOS_SIGN_ID:
        return true; /* written with 0 before CPUID reports the revision */
    case MSR_MCG_STATUS:
        return put_masked(&m->mcg_status, value, 7);
    case MSR_MISC_ENABLE:
        return write_misc_enable(v, value);
    case MSR_DEBUGCTL:
        if (value & DEBUGCTL_LBR) /* the registers that would hold them are not offered */
            log_emit(v->log, LOG_UNIMP, "cpu%u: DEBUGCTL 0x%llx: branch records", v->index, (unsigned long long)value);
        if (value & ~(DEBUGCTL_LBR | DEBUGCTL_BTF))
            return false;
        m->debugctl = value & DEBUGCTL_BTF; /* LBR reads 0, as where there is no such thing */
        return true;
    case MSR_PKG_CST_CONFIG_CONTROL:
        return write_pkg_cst(v, value);
    case MSR_POWER_CTL:
        return put_masked(&m->power_ctl, value, POWER_CTL_BITS);
    case MSR_PAT:
        return write_pat(v, value);
    case MSR_MISC_FEATURES:
        return value == 0;
    case MSR_XSS: /* there are no supervisor state components */
        return value == 0;
    case MSR_EFER:
        return write_efer(v, value);
    default:
        return false;
    }
}

static bool write_any(struct vcpu *v, uint32_t index, uint64_t value)
{
    if (is_apic_msr(index))
        return apic_write(v, index, value);
    int mtrr = mtrr_write(v, index, value);
    return mtrr > 0 || (mtrr == 0 && (write_syscall(v, index, value) || write_other(v, index, value) ||
                                      kvm_pv_msr_write(v, index, value)));
}

bool msr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
    bool ok = model_has_msr(v->model, index) && write_any(v, index, value);
    if (!ok)
        log_emit(v->log, LOG_UNIMP, "cpu%u: WRMSR 0x%x value 0x%llx at rip 0x%llx: #GP", v->index, index,
                 (unsigned long long)value, (unsigned long long)v->rip);
    return ok;
}
