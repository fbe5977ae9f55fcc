/*
 * Control registers, MSRs, time, CPUID, and other instructions of system software.
 */
#include "cpu/system.h"
#include "cpu/cpuid.h"
#include "cpu/kvm_pv.h"
#include "cpu/monitor.h"
#include "cpu/optable.h"
#include "cpu/smm.h"

/* RDX:RAX as the MSR instructions use them. */
static uint64_t get_edx_eax(const struct vcpu *v)
{
    return (uint32_t)v->gpr[REG_RAX] | v->gpr[REG_RDX] << 32;
}

static void set_edx_eax(struct vcpu *v, uint64_t x)
{
    v->gpr[REG_RAX] = (uint32_t)x;
    v->gpr[REG_RDX] = x >> 32;
}

static void end(struct vcpu *v, const struct insn *i)
{
    block_end(v, i, insn_next_rip(v, i), 2);
}

/* Before anything that looks at the clock or is reported with its position. */
static void sync(struct vcpu *v, const struct insn *i)
{
    vcpu_sync(v, i);
    v->rip = insn_rip(v, i);
}

/* ---- control registers ---- */

static bool is_control_register(const struct vcpu *v, unsigned n)
{
    return n == 0 || (n >= 2 && n <= 4) || (n == 8 && mode_is_code64(v));
}

static void op_mov_to_cr(struct vcpu *v, const struct insn *i)
{
    uint64_t value = mode_is_code64(v) ? v->gpr[i->rm] : (uint32_t)v->gpr[i->rm];
    if (!is_control_register(v, i->reg))
        vcpu_raise(v, i, EXC_UD);
    need_cpl0(v, i);
    sync(v, i);
    switch (i->reg) {
    case 0:
        control_write_cr0(v, i, value);
        break;
    case 2:
        v->cr2 = value;
        break;
    case 3:
        control_write_cr3(v, i, value);
        break;
    case 4:
        control_write_cr4(v, i, value);
        break;
    default:
        control_write_cr8(v, i, value);
        break;
    }
    end(v, i);
}

static void op_mov_from_cr(struct vcpu *v, const struct insn *i)
{
    if (!is_control_register(v, i->reg))
        vcpu_raise(v, i, EXC_UD);
    need_cpl0(v, i);
    const uint64_t cr[5] = {v->cr0, 0, v->cr2, v->cr3, v->cr4};
    uint64_t value;
    if (i->reg == 8) {
        sync(v, i);
        value = control_read_cr8(v);
    } else {
        value = cr[i->reg];
    }
    reg_set(v, i->rm, mode_is_code64(v) ? 8 : 4, value);
    NEXT_OR_END(v, i, false);
}

static void op_lmsw(struct vcpu *v, const struct insn *i)
{
    need_cpl0(v, i);
    uint16_t src = i->flags & INSN_RM_REG ? (uint16_t)v->gpr[i->rm] : lin_load16(v, i, insn_linear(v, i, 2, 0));
    sync(v, i);
    control_write_cr0(v, i, (v->cr0 & ~0xeull) | (src & 0xf)); /* PE can be set, not cleared */
    end(v, i);
}

static void op_clts(struct vcpu *v, const struct insn *i)
{
    need_cpl0(v, i);
    v->cr0 &= ~CR0_TS;
    mode_load_mmu(v); /* keeps the MMU's copy of CR0 equal */
    end(v, i);
}

/* ---- debug registers ---- */

/* DR4 and DR5 are DR6 and DR7, or do not exist. */
static unsigned debug_register(struct vcpu *v, const struct insn *i)
{
    unsigned n = i->reg;
    if (n > 7 || ((n == 4 || n == 5) && v->cr4 & CR4_DE))
        vcpu_raise(v, i, EXC_UD);
    need_cpl0(v, i);
    if (v->dr[7] & 1u << 13) /* GD */
        vcpu_raise_debug(v, i, 1u << 13);
    return n == 4 || n == 5 ? n + 2 : n;
}

static void op_mov_to_dr(struct vcpu *v, const struct insn *i)
{
    unsigned n = debug_register(v, i);
    uint64_t value = mode_is_code64(v) ? v->gpr[i->rm] : (uint32_t)v->gpr[i->rm];
    sync(v, i);
    if (n == 6)
        control_write_dr6(v, i, value);
    else if (n == 7)
        control_write_dr7(v, i, value);
    else
        v->dr[n] = value;
    end(v, i);
}

static void op_mov_from_dr(struct vcpu *v, const struct insn *i)
{
    unsigned n = debug_register(v, i);
    reg_set(v, i->rm, mode_is_code64(v) ? 8 : 4, v->dr[n]);
    NEXT_OR_END(v, i, false);
}

/* ---- translations and caches ---- */

static void op_invlpg(struct vcpu *v, const struct insn *i)
{
    need_cpl0(v, i);
    uint64_t lin = insn_offset(v, i) + v->seg_base[i->seg];
    if (!mode_is_code64(v))
        lin = (uint32_t)lin;
    if (!mode_is_code64(v) || addr_is_canonical(v, lin))
        mmu_guest_flush(v->mv, GUEST_FLUSH_PAGE, lin);
    NEXT_OR_END(v, i, false);
}

/* INVPCID r, m128: PCID in bits 11:0, linear address in 127:64. */
static void op_invpcid(struct vcpu *v, const struct insn *i)
{
    uint64_t type = reg_get(v, i->reg, mode_is_code64(v) ? 8 : 4), desc[2];
    need_cpl0(v, i);
    lin_read_bytes(v, i, insn_linear(v, i, 16, 0), desc, 16);
    unsigned pcid = desc[0] & 0xfff;
    if (type > 3 || desc[0] >> 12 || (type < 2 && pcid && !(v->cr4 & CR4_PCIDE)) ||
        (type == 0 && !addr_is_canonical(v, desc[1])))
        vcpu_raise_error(v, i, EXC_GP, 0);
    static const enum guest_flush what[4] = {GUEST_FLUSH_PCID_PAGE, GUEST_FLUSH_PCID, GUEST_FLUSH_ALL,
                                             GUEST_FLUSH_ALL_NONGLOBAL};
    mmu_guest_flush_pcid(v->mv, what[type], pcid, desc[1]);
    NEXT_OR_END(v, i, false);
}

static void op_wbinvd(struct vcpu *v, const struct insn *i)
{
    need_cpl0(v, i);
    clock_charge(v->clock, CLOCK_SURCHARGE_WBINVD);
    end(v, i);
}

static void op_clflush(struct vcpu *v, const struct insn *i)
{
    lin_probe_read(v, i, insn_linear(v, i, 1, 0), 1);
    NEXT_MEM(v, i);
}

static void op_fence(struct vcpu *v, const struct insn *i)
{
    NEXT(v, i);
}

/* Everything is serial here; the block ends so that what was prefetched is decoded anew. */
static void op_serialize(struct vcpu *v, const struct insn *i)
{
    end(v, i);
}

/* ---- waiting ---- */

static void op_hlt(struct vcpu *v, const struct insn *i)
{
    need_cpl0(v, i);
    v->activity = VCPU_HALTED;
    if (unlikely(v->pv != NULL)) {
        sync(v, i);
        kvm_pv_leave(v);
    }
    v->stats.halts++;
    end(v, i);
}

static void op_pause(struct vcpu *v, const struct insn *i)
{
    clock_charge(v->clock, CLOCK_SURCHARGE_PAUSE);
    v->attn |= ATTN_BOUNDARY | ATTN_TURN;
    end(v, i);
}

/* ---- flags ---- */

/* CLI and STI without the right to change IF: VIF in its place (true) where virtual-8086 mode extensions (VME) or
 * protected-mode virtual interrupts (PVI) give the program one, else #GP(0). */
static bool changes_vif(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr0 & CR0_PE) || v->cpl <= flags_iopl(v))
        return false;
    if (!(v->cr4 & (v->rflags & FLAG_VM ? CR4_VME : CR4_PVI)) || v->cpl != 3)
        vcpu_raise_error(v, i, EXC_GP, 0);
    return true;
}

static void op_cli(struct vcpu *v, const struct insn *i)
{
    v->rflags &= ~(changes_vif(v, i) ? FLAG_VIF : FLAG_IF);
    NEXT_OR_END(v, i, false);
}

static void op_sti(struct vcpu *v, const struct insn *i)
{
    if (changes_vif(v, i)) {
        if (v->rflags & FLAG_VIP)
            vcpu_raise_error(v, i, EXC_GP, 0);
        v->rflags |= FLAG_VIF;
    } else if (!(v->rflags & FLAG_IF)) {
        v->rflags |= FLAG_IF;
        v->int_shadow = true;
    }
    end(v, i);
}

static void set_ac(struct vcpu *v, const struct insn *i, bool ac)
{
    if (!cpu_has(v, CPU_FEATURE_SMAP) || v->cpl)
        vcpu_raise(v, i, EXC_UD);
    v->rflags = ac ? v->rflags | FLAG_AC : v->rflags & ~FLAG_AC;
    mmu_vcpu_set_mode(v->mv, v->cpl, ac);
    NEXT_OR_END(v, i, false);
}

static void op_stac(struct vcpu *v, const struct insn *i)
{
    set_ac(v, i, true);
}

static void op_clac(struct vcpu *v, const struct insn *i)
{
    set_ac(v, i, false);
}

/* ---- time, counters, identification ---- */

static void read_tsc(struct vcpu *v, const struct insn *i)
{
    if (v->cpl && v->cr4 & CR4_TSD)
        vcpu_raise_error(v, i, EXC_GP, 0);
    sync(v, i);
    set_edx_eax(v, tsc_read(v));
    clock_charge(v->clock, CLOCK_SURCHARGE_RDTSC);
}

static void op_rdtsc(struct vcpu *v, const struct insn *i)
{
    read_tsc(v, i);
    end(v, i);
}

static void op_rdtscp(struct vcpu *v, const struct insn *i)
{
    if (!cpu_has(v, CPU_FEATURE_RDTSCP))
        vcpu_raise(v, i, EXC_UD);
    read_tsc(v, i);
    v->gpr[REG_RCX] = (uint32_t)v->msr.tsc_aux;
    end(v, i);
}

static void op_rdpid(struct vcpu *v, const struct insn *i)
{
    if (!cpu_has(v, CPU_FEATURE_RDPID))
        vcpu_raise(v, i, EXC_UD);
    reg_set(v, i->rm, mode_is_code64(v) ? 8 : 4, (uint32_t)v->msr.tsc_aux);
    NEXT_OR_END(v, i, false);
}

/* There are no performance counters (CPUID leaf 0AH): no index is valid. */
static void op_rdpmc(struct vcpu *v, const struct insn *i)
{
    vcpu_raise_error(v, i, EXC_GP, 0);
}

static void op_cpuid(struct vcpu *v, const struct insn *i)
{
    const uint32_t *out = cpuid_recall(v, (uint32_t)v->gpr[REG_RAX], (uint32_t)v->gpr[REG_RCX]);
    v->gpr[REG_RAX] = out[0];
    v->gpr[REG_RBX] = out[1];
    v->gpr[REG_RCX] = out[2];
    v->gpr[REG_RDX] = out[3];
    clock_charge(v->clock, CLOCK_SURCHARGE_CPUID);
    end(v, i);
}

static void op_rdrand(struct vcpu *v, const struct insn *i)
{
    if (!cpu_has(v, i->op == OP_RDRAND ? CPU_FEATURE_RDRAND : CPU_FEATURE_RDSEED))
        vcpu_raise(v, i, EXC_UD);
    reg_set(v, i->rm, i->opsize, vcpu_random(v));
    flags_set_image(v, FLAG_CF);
    NEXT_OR_END(v, i, false);
}

/* ---- MSRs and other indexed registers ---- */

static void op_rdmsr(struct vcpu *v, const struct insn *i)
{
    uint64_t value = 0;
    need_cpl0(v, i);
    sync(v, i);
    if (!msr_read(v, (uint32_t)v->gpr[REG_RCX], &value))
        vcpu_raise_error(v, i, EXC_GP, 0);
    set_edx_eax(v, value);
    end(v, i);
}

static void op_wrmsr(struct vcpu *v, const struct insn *i)
{
    need_cpl0(v, i);
    sync(v, i);
    if (!msr_write(v, (uint32_t)v->gpr[REG_RCX], get_edx_eax(v)))
        vcpu_raise_error(v, i, EXC_GP, 0);
    end(v, i);
}

static void need_osxsave(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        vcpu_raise(v, i, EXC_UD);
}

static void op_xgetbv(struct vcpu *v, const struct insn *i)
{
    need_osxsave(v, i);
    uint32_t n = (uint32_t)v->gpr[REG_RCX];
    if (n > 1 || (n == 1 && !cpu_has(v, CPU_FEATURE_XGETBV1)))
        vcpu_raise_error(v, i, EXC_GP, 0);
    set_edx_eax(v, n ? v->xcr0 & xstate_in_use(v) : v->xcr0);
    NEXT_OR_END(v, i, false);
}

static void op_xsetbv(struct vcpu *v, const struct insn *i)
{
    need_osxsave(v, i);
    need_cpl0(v, i);
    if ((uint32_t)v->gpr[REG_RCX] != 0)
        vcpu_raise_error(v, i, EXC_GP, 0);
    control_write_xcr0(v, i, get_edx_eax(v));
    end(v, i);
}

static void need_pke(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr4 & CR4_PKE))
        vcpu_raise(v, i, EXC_UD);
    if ((uint32_t)v->gpr[REG_RCX] != 0)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

static void op_rdpkru(struct vcpu *v, const struct insn *i)
{
    need_pke(v, i);
    set_edx_eax(v, v->pkru);
    NEXT_OR_END(v, i, false);
}

static void op_wrpkru(struct vcpu *v, const struct insn *i)
{
    need_pke(v, i);
    if ((uint32_t)v->gpr[REG_RDX] != 0)
        vcpu_raise_error(v, i, EXC_GP, 0);
    v->pkru = (uint32_t)v->gpr[REG_RAX];
    mode_load_mmu(v);
    end(v, i);
}

/* ---- choosing ---- */

op_fn *bind_system_control(const struct insn *i, unsigned mode)
{
    switch (i->op) {
    case OP_MOV_TO_CR:
        return op_mov_to_cr;
    case OP_MOV_FROM_CR:
        return op_mov_from_cr;
    case OP_MOV_TO_DR:
        return op_mov_to_dr;
    case OP_MOV_FROM_DR:
        return op_mov_from_dr;
    case OP_LMSW:
        return op_lmsw;
    case OP_CLTS:
        return op_clts;
    case OP_INVLPG:
        return op_invlpg;
    case OP_INVPCID:
        return op_invpcid;
    case OP_INVD:
    case OP_WBINVD:
        return op_wbinvd;
    case OP_CLFLUSH:
    case OP_CLFLUSHOPT:
    case OP_CLWB:
        return op_clflush;
    case OP_SERIALIZE:
        return op_serialize;
    case OP_LFENCE:
    case OP_MFENCE:
    case OP_SFENCE:
        return op_fence;
    case OP_HLT:
        return op_hlt;
    case OP_PAUSE:
        return op_pause;
    case OP_CLI:
        return op_cli;
    case OP_STI:
        return op_sti;
    case OP_STAC:
        return op_stac;
    case OP_CLAC:
        return op_clac;
    case OP_RDTSC:
        return op_rdtsc;
    case OP_RDTSCP:
        return op_rdtscp;
    case OP_RDPID:
        return op_rdpid;
    case OP_RDPMC:
        return op_rdpmc;
    case OP_CPUID:
        return op_cpuid;
    case OP_RDRAND:
    case OP_RDSEED:
        return op_rdrand;
    case OP_RDMSR:
        return op_rdmsr;
    case OP_WRMSR:
        return op_wrmsr;
    case OP_XGETBV:
        return op_xgetbv;
    case OP_XSETBV:
        return op_xsetbv;
    case OP_RDPKRU:
        return op_rdpkru;
    case OP_WRPKRU:
        return op_wrpkru;
    default:
        return NULL;
    }
}

op_fn *bind_system(const struct insn *i, unsigned mode)
{
    op_fn *fn = bind_system_control(i, mode);
    if (!fn)
        fn = bind_monitor(i);
    if (!fn)
        fn = bind_smm(i);
    if (!fn)
        fn = bind_system_segment(i, mode);
    if (!fn)
        fn = bind_system_io(i, mode);
    return fn ? fn : bind_far(i, mode);
}
