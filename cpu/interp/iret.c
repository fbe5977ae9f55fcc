/*
 * IRET and the instructions that make an interrupt of their own (SDM volume 2: IRET, INT n).
 */
#include "cpu/optable.h"
#include "cpu/system.h"

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

static void check_unimplemented(struct vcpu *v, const struct insn *i, uint64_t flags)
{
    bool nested = v->rflags & FLAG_NT, to_v86 = !mode_is_long(v) && v->cpl == 0 && i->opsize == 4 && (flags & FLAG_VM);
    if (nested && !mode_is_long(v))
        log_emit(v->log, LOG_UNIMP, "cpu%u: IRET with NT set (hardware task return) at rip 0x%llx", v->index,
                 (unsigned long long)insn_rip(v, i));
    if (to_v86)
        log_emit(v->log, LOG_UNIMP, "cpu%u: IRET to virtual-8086 mode at rip 0x%llx", v->index,
                 (unsigned long long)insn_rip(v, i));
    if (nested || to_v86)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

static void op_iret(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    v->nmi_blocked = false; /* even if the instruction faults */
    if (!(v->cr0 & CR0_PE))
        return iret_real(v, i);
    struct far_return r = {.rip = frame_peek(v, i, 0, size), .cs = (uint16_t)frame_peek(v, i, size, size)};
    uint64_t flags = frame_peek(v, i, 2 * size, size), mask = iret_flags_mask(v, size);
    check_unimplemented(v, i, flags);
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
