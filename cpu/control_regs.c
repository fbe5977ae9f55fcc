/*
 * Control and debug registers: what may be written, and what follows (SDM volume 3, 2.5, 4.1, 9.8.5, 18.2).
 */
#include "cpu/breakpoint.h"
#include "cpu/cpuid.h"
#include "cpu/system.h"

static _Noreturn void raise_gp(struct vcpu *v, const struct insn *i)
{
    vcpu_raise_error(v, i, EXC_GP, 0);
}

static bool uses_pdptes(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/* PAE paging: the PDPTE registers are loaded from cr3 under the paging registers as they will be. #GP(0) if one is
 * malformed. */
static void load_pdptes(struct vcpu *v, const struct insn *i, uint64_t cr3)
{
    uint64_t pdpte[4];
    if (!mmu_load_pdptes(v->mv, cr3, pdpte))
        raise_gp(v, i);
    memcpy(v->pdpte, pdpte, sizeof pdpte);
}

/* ---- CR0 ---- */

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* Paging goes on while EFER.LME is set: IA-32e mode starts. */
static void check_long_entry(struct vcpu *v, const struct insn *i)
{
    unsigned tss = v->tr.attr & ATTR_TYPE;
    bool tss16 = tss == SYS_TSS16 || tss == SYS_TSS16_BUSY;
    if (!(v->cr4 & CR4_PAE) || (v->seg[SEG_CS].attr & SEG_ATTR_L) || (tss16 && !v->tr.unusable))
        raise_gp(v, i);
}

void control_write_cr0(struct vcpu *v, const struct insn *i, uint64_t value)
{
    uint64_t old = v->cr0, efer = v->efer;
    if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        raise_gp(v, i);
    value = (value & CR0_DEFINED) | CR0_ET;
    uint64_t changed = old ^ value;
    if (changed & value & CR0_PG && efer & EFER_LME) {
        check_long_entry(v, i);
        efer |= EFER_LMA;
    } else if (changed & old & CR0_PG) {
        if (mode_is_code64(v) || (v->cr4 & CR4_PCIDE))
            raise_gp(v, i);
        efer &= ~EFER_LMA;
    }
    if (uses_pdptes(value, v->cr4, efer) && changed & (CR0_PG | CR0_CD | CR0_NW))
        load_pdptes(v, i, v->cr3);
    v->cr0 = value;
    v->efer = efer;
    vcpu_mode_changed(v);
    if (changed & CR0_PG)
        mmu_guest_flush(v->mv, GUEST_FLUSH_ALL, 0);
}

/* ---- CR3 ---- */

void control_write_cr3(struct vcpu *v, const struct insn *i, uint64_t value)
{
    bool keep = v->cr4 & CR4_PCIDE && value >> 63; /* what is cached for the new PCID stays valid */
    if (mode_is_long(v)) {
        if (v->cr4 & CR4_PCIDE)
            value &= ~(1ull << 63);
        if (value >> v->model->maxphyaddr)
            raise_gp(v, i);
    } else {
        value = (uint32_t)value;
        if (uses_pdptes(v->cr0, v->cr4, v->efer))
            load_pdptes(v, i, value);
    }
    v->cr3 = value;
    mode_load_mmu(v);
    if (!keep)
        mmu_guest_flush(v->mv, GUEST_FLUSH_NONGLOBAL, 0);
}

/* ---- CR4 ---- */

static uint64_t cr4_offered(const struct vcpu *v)
{
    uint64_t m = v->model->generation >= CPU_PENTIUM3 ? CR4_PCE : 0;
    m |= cpu_has(v, CPU_FEATURE_TSC) ? CR4_TSD : 0;
    m |= cpu_has(v, CPU_FEATURE_VME) ? CR4_VME | CR4_PVI : 0;
    m |= cpu_has(v, CPU_FEATURE_DE) ? CR4_DE : 0;
    m |= cpu_has(v, CPU_FEATURE_PSE) ? CR4_PSE : 0;
    m |= cpu_has(v, CPU_FEATURE_PAE) ? CR4_PAE : 0;
    m |= cpu_has(v, CPU_FEATURE_MCE) ? CR4_MCE : 0;
    m |= cpu_has(v, CPU_FEATURE_PGE) ? CR4_PGE : 0;
    m |= cpu_has(v, CPU_FEATURE_FXSR) ? CR4_OSFXSR : 0;
    m |= cpu_has(v, CPU_FEATURE_SSE) ? CR4_OSXMMEXCPT : 0;
    m |= cpu_has(v, CPU_FEATURE_UMIP) ? CR4_UMIP : 0;
    m |= cpu_has(v, CPU_FEATURE_LA57) ? CR4_LA57 : 0;
    m |= cpu_has(v, CPU_FEATURE_FSGSBASE) ? CR4_FSGSBASE : 0;
    m |= cpu_has(v, CPU_FEATURE_XSAVE) ? CR4_OSXSAVE : 0;
    m |= cpu_has(v, CPU_FEATURE_PCID) ? CR4_PCIDE : 0;
    m |= cpu_has(v, CPU_FEATURE_SMEP) ? CR4_SMEP : 0;
    m |= cpu_has(v, CPU_FEATURE_SMAP) ? CR4_SMAP : 0;
    m |= cpu_has(v, CPU_FEATURE_PKU) ? CR4_PKE : 0;
    return m;
}

bool control_cr4_is_offered(const struct vcpu *v, uint64_t value)
{
    return !(value & ~cr4_offered(v));
}

/* Which write of CR4 flushes a TLB, and how much: SDM volume 3, 4.10.4.1. */
static void flush_for_cr4(struct vcpu *v, uint64_t changed, uint64_t value)
{
    if (changed & (CR4_PGE | CR4_PAE | CR4_PSE | CR4_LA57) || changed & value & CR4_SMEP ||
        changed & ~value & CR4_PCIDE)
        mmu_guest_flush(v->mv, GUEST_FLUSH_ALL, 0);
}

void control_write_cr4(struct vcpu *v, const struct insn *i, uint64_t value)
{
    uint64_t changed = v->cr4 ^ value;
    if (value & ~cr4_offered(v))
        raise_gp(v, i);
    if (mode_is_long(v) && (!(value & CR4_PAE) || changed & CR4_LA57))
        raise_gp(v, i);
    if (changed & value & CR4_PCIDE && (!mode_is_long(v) || v->cr3 & 0xfff))
        raise_gp(v, i);
    if (uses_pdptes(v->cr0, value, v->efer) && changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP))
        load_pdptes(v, i, v->cr3);
    v->cr4 = value;
    vcpu_mode_changed(v);
    flush_for_cr4(v, changed, value);
}

/* ---- CR8 ---- */

uint64_t control_read_cr8(struct vcpu *v)
{
    return v->intc ? v->intc->get_cr8(v->intc->ctx) : 0;
}

void control_write_cr8(struct vcpu *v, const struct insn *i, uint64_t value)
{
    if (value & ~0xfull)
        raise_gp(v, i);
    if (v->intc)
        v->intc->set_cr8(v->intc->ctx, (uint8_t)value);
    v->attn |= ATTN_BOUNDARY;
}

/* ---- debug registers ---- */

void control_write_dr6(struct vcpu *v, const struct insn *i, uint64_t value)
{
    if (mode_is_code64(v) && value >> 32)
        raise_gp(v, i);
    v->dr[6] = (value & 0xe00f) | 0xffff0ff0;
}

void control_write_dr7(struct vcpu *v, const struct insn *i, uint64_t value)
{
    if (mode_is_code64(v) && value >> 32)
        raise_gp(v, i);
    v->dr[7] = (value & 0xffff23ff) | 0x400;
    breakpoints_update(v);
}

/* ---- XCR0 ---- */

void control_write_xcr0(struct vcpu *v, const struct insn *i, uint64_t value)
{
    bool avx = value & 4, sse = value & 2;
    if (value & ~v->model->xcr0 || !(value & 1) || (avx && !sse))
        raise_gp(v, i);
    v->xcr0 = value;
}
