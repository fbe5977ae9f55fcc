/*
 * IRET and the instructions that make an interrupt of their own (SDM volume 2: IRET, INT n).
 */
#include "cpu/optable.h"
#include "cpu/system.h"
#include "cpu/task.h"
#include "cpu/v86.h"

#define FLAGS_ALWAYS (FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT)

/* Which flags IRET may change: by operand size, and by CPL as it was before. */
static uint64_t iret_flags_mask(const struct vcpu *v, unsigned size)
{
    uint64_t mask = FLAGS_ALWAYS;
    if (v->cpl <= flags_iopl(v))
        mask |= FLAG_IF;
    if (v->cpl == 0)
        mask |= FLAG_IOPL;
    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID | (v->cpl == 0 ? FLAG_VIF | FLAG_VIP : 0);
    return mask;
}

static void iret_real(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    uint64_t rip = frame_peek(v, i, 0, size), flags = frame_peek(v, i, 2 * size, size);
    uint16_t cs = (uint16_t)frame_peek(v, i, size, size);
    if (rip > v->seg[SEG_CS].limit)
        vcpu_raise_error(v, i, EXC_GP, 0);
    frame_set_rsp(v, v->gpr[REG_RSP] + 3 * size);
    v->seg[SEG_CS].sel = cs;
    v->seg[SEG_CS].base = (uint64_t)cs << 4;
    vcpu_load_flags(v, flags, FLAGS_ALWAYS | FLAG_IF | FLAG_IOPL | (size > 2 ? FLAG_RF | FLAG_AC | FLAG_ID : 0));
    mode_update(v);
    block_end(v, i, rip, 2);
}

/* From virtual-8086 mode: its IOPL must be 3, or CR4.VME gives the 16-bit form a virtual interrupt flag. */
static void iret_v86(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    bool virtual_if = flags_iopl(v) < 3;
    if (virtual_if && (!(v->cr4 & CR4_VME) || size != 2))
        vcpu_raise_error(v, i, EXC_GP, 0);
    uint64_t rip = frame_peek(v, i, 0, size), flags = frame_peek(v, i, 2 * size, size);
    uint64_t mask = FLAGS_ALWAYS | (size > 2 ? FLAG_RF | FLAG_AC | FLAG_ID : 0);
    uint16_t cs = (uint16_t)frame_peek(v, i, size, size);
    if (virtual_if && (flags & FLAG_TF || (flags & FLAG_IF && v->rflags & FLAG_VIP)))
        vcpu_raise_error(v, i, EXC_GP, 0);
    if (rip > v->seg[SEG_CS].limit)
        vcpu_raise_error(v, i, EXC_GP, 0);
    frame_set_rsp(v, v->gpr[REG_RSP] + 3 * size);
    v->seg[SEG_CS].sel = cs;
    v->seg[SEG_CS].base = (uint64_t)cs << 4;
    if (virtual_if)
        vcpu_load_flags(v, (flags & ~FLAG_VIF) | (flags & FLAG_IF ? FLAG_VIF : 0), mask | FLAG_VIF);
    else
        vcpu_load_flags(v, flags, mask | FLAG_IF);
    mode_update(v);
    block_end(v, i, rip, 2);
}

/* To virtual-8086 mode. Only 16 bits of EIP count there. */
static void iret_to_v86(struct vcpu *v, const struct insn *i, uint64_t flags)
{
    static const uint8_t slot[6] = {[SEG_CS] = 1, [SEG_SS] = 4, [SEG_ES] = 5, [SEG_DS] = 6, [SEG_FS] = 7, [SEG_GS] = 8};
    uint16_t sel[6];
    uint64_t rip = (uint16_t)frame_peek(v, i, 0, 4), rsp = frame_peek(v, i, 3 * 4, 4);
    for (unsigned s = 0; s < 6; s++)
        sel[s] = (uint16_t)frame_peek(v, i, slot[s] * 4u, 4);
    vcpu_set_rflags(v, flags);
    v86_set_segments(v, sel);
    v->gpr[REG_RSP] = (uint32_t)rsp;
    mode_update(v);
    block_end(v, i, rip, 2);
}

static void op_iret(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    v->nmi_blocked = false; /* even if the instruction faults */
    if (!(v->cr0 & CR0_PE))
        return iret_real(v, i);
    if (v->rflags & FLAG_VM)
        return iret_v86(v, i);
    if (v->rflags & FLAG_NT && !mode_is_long(v))
        return task_return(v, i);
    if (v->rflags & FLAG_NT)
        vcpu_raise_error(v, i, EXC_GP, 0);
    struct far_return r = {.rip = frame_peek(v, i, 0, size), .cs = (uint16_t)frame_peek(v, i, size, size)};
    uint64_t flags = frame_peek(v, i, 2 * size, size), mask = iret_flags_mask(v, size);
    if (flags & FLAG_VM && size == 4 && v->cpl == 0 && !mode_is_long(v))
        return iret_to_v86(v, i, flags);
    far_check_return(v, i, &r);
    r.pops_stack = mode_is_code64(v) || (r.cs & 3u) != v->cpl;
    if (r.pops_stack) {
        r.rsp = frame_peek(v, i, 3 * size, size);
        r.ss = (uint16_t)frame_peek(v, i, 4 * size, size);
        far_check_return_stack(v, i, &r);
    } else {
        frame_set_rsp(v, v->gpr[REG_RSP] + 3 * size);
    }
    vcpu_load_flags(v, flags, mask);
    far_commit_return(v, &r);
    block_end(v, i, r.rip, 2);
}

static void op_int(struct vcpu *v, const struct insn *i)
{
    if (!(v->rflags & FLAG_VM) || !v86_int(v, i, (uint8_t)i->imm))
        vcpu_software_interrupt(v, i, EVENT_SOFT, (uint8_t)i->imm);
}

static void op_int3(struct vcpu *v, const struct insn *i)
{
    vcpu_software_interrupt(v, i, EVENT_SOFT, EXC_BP);
}

static void op_int1(struct vcpu *v, const struct insn *i)
{
    vcpu_software_interrupt(v, i, EVENT_ICEBP, EXC_DB);
}

static void op_into(struct vcpu *v, const struct insn *i)
{
    if (flag_of(v))
        vcpu_software_interrupt(v, i, EVENT_SOFT, EXC_OF);
    else
        block_end(v, i, insn_next_rip(v, i), 2);
}

op_fn *bind_iret_and_int(const struct insn *i)
{
    switch (i->op) {
    case OP_IRET:
        return op_iret;
    case OP_INT:
        return op_int;
    case OP_INT3:
        return op_int3;
    case OP_INT1:
        return op_int1;
    case OP_INTO:
        return op_into;
    default:
        return NULL;
    }
}
