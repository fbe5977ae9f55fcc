/*
 * The fast ways into and out of a kernel: SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM volume 2), as Intel processors have
 * them: SYSCALL and SYSRET exist in 64-bit mode only.
 */
#include "cpu/interp/syscall.h"
#include "cpu/optable.h"
#include "cpu/system.h"

static void enter_flat(struct vcpu *v, uint16_t cs, unsigned code_attr, uint16_t ss, unsigned cpl)
{
    unsigned dpl = FLAT_DPL(cpl);
    segment_set_flat(v, SEG_CS, cs, code_attr | dpl);
    segment_set_flat(v, SEG_SS, ss, FLAT_DATA | dpl);
    mode_set_cpl(v, cpl);
}

static void op_syscall(struct vcpu *v, const struct insn *i)
{
    if (!(v->efer & EFER_SCE) || !mode_is_code64(v))
        vcpu_raise(v, i, EXC_UD);
    uint64_t flags = vcpu_rflags(v) & ~FLAG_RF;
    uint16_t cs = (uint16_t)(v->msr.star >> 32) & 0xfffc;
    v->gpr[REG_RCX] = insn_next_rip(v, i);
    v->gpr[11] = flags;
    vcpu_set_rflags(v, flags & ~v->msr.fmask);
    enter_flat(v, cs, FLAT_CODE64, (uint16_t)(cs + 8), 0);
    block_end(v, i, v->msr.lstar, 2);
}

static void op_sysret(struct vcpu *v, const struct insn *i)
{
    if (!(v->efer & EFER_SCE) || !mode_is_code64(v))
        vcpu_raise(v, i, EXC_UD);
    need_cpl0(v, i);
    uint16_t base = (uint16_t)(v->msr.star >> 48);
    bool wide = i->opsize == 8;
    uint64_t rip = wide ? v->gpr[REG_RCX] : (uint32_t)v->gpr[REG_RCX];
    if (wide && !addr_is_canonical(v, rip))
        vcpu_raise_error(v, i, EXC_GP, 0);
    vcpu_set_rflags(v, (v->gpr[11] & SYSRET_FLAGS) | 2);
    enter_flat(v, (uint16_t)((wide ? base + 16 : base) | 3), wide ? FLAT_CODE64 : FLAT_CODE32,
               (uint16_t)((base + 8) | 3), 3);
    block_end(v, i, rip, 2);
}

static void op_sysenter(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr0 & CR0_PE) || sel_is_null((uint16_t)v->msr.sysenter_cs))
        vcpu_raise_error(v, i, EXC_GP, 0);
    bool wide = mode_is_long(v);
    uint16_t cs = (uint16_t)v->msr.sysenter_cs & 0xfffc;
    uint64_t rip = wide ? v->msr.sysenter_eip : (uint32_t)v->msr.sysenter_eip;
    v->gpr[REG_RSP] = wide ? v->msr.sysenter_esp : (uint32_t)v->msr.sysenter_esp;
    v->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    enter_flat(v, cs, wide ? FLAT_CODE64 : FLAT_CODE32, (uint16_t)(cs + 8), 0);
    block_end(v, i, rip, 2);
}

static void op_sysexit(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr0 & CR0_PE) || sel_is_null((uint16_t)v->msr.sysenter_cs) || v->cpl)
        vcpu_raise_error(v, i, EXC_GP, 0);
    bool wide = i->opsize == 8;
    uint64_t rip = wide ? v->gpr[REG_RDX] : (uint32_t)v->gpr[REG_RDX];
    uint64_t rsp = wide ? v->gpr[REG_RCX] : (uint32_t)v->gpr[REG_RCX];
    if (wide && (!addr_is_canonical(v, rip) || !addr_is_canonical(v, rsp)))
        vcpu_raise_error(v, i, EXC_GP, 0);
    uint16_t cs = (uint16_t)(v->msr.sysenter_cs + (wide ? 32 : 16));
    v->gpr[REG_RSP] = rsp;
    enter_flat(v, cs | 3, wide ? FLAT_CODE64 : FLAT_CODE32, (uint16_t)(cs + 8) | 3, 3);
    block_end(v, i, rip, 2);
}

op_fn *bind_syscall(const struct insn *i)
{
    switch (i->op) {
    case OP_SYSCALL:
        return op_syscall;
    case OP_SYSRET:
        return op_sysret;
    case OP_SYSENTER:
        return op_sysenter;
    case OP_SYSEXIT:
        return op_sysexit;
    default:
        return NULL;
    }
}
