/*
 * Instructions on segments and descriptor tables.
 */
#include "cpu/optable.h"
#include "cpu/system.h"

/* ---- operands ---- */

/* A 16-bit source: the low half of a register, or memory. */
static uint16_t load_rm16(struct vcpu *v, const struct insn *i)
{
    return i->flags & INSN_RM_REG ? (uint16_t)v->gpr[i->rm] : lin_load16(v, i, insn_linear(v, i, 2, 0));
}

/* A selector-sized destination: register forms have the size of the operand, memory forms two bytes. */
static void store_rm(struct vcpu *v, const struct insn *i, uint64_t value)
{
    if (i->flags & INSN_RM_REG)
        reg_set(v, i->rm, i->opsize, value);
    else
        lin_store16(v, i, insn_linear(v, i, 2, 1), (uint16_t)value);
}

static void set_zf(struct vcpu *v, bool zf)
{
    flags_set_image(v, (flags_image(v) & ~FLAG_ZF) | (zf ? FLAG_ZF : 0));
}

static void need_protected(struct vcpu *v, const struct insn *i)
{
    if (!mode_is_protected(v))
        vcpu_raise(v, i, EXC_UD);
}

/* SGDT, SIDT, SLDT, STR, SMSW outside CPL 0 with CR4.UMIP. */
static void check_umip(struct vcpu *v, const struct insn *i)
{
    if (v->cpl && v->cr4 & CR4_UMIP)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* ---- segment registers ---- */

/* A new SS, if loaded by MOV or POP, holds interrupts off until the next instruction has retired. */
static void end_after_load(struct vcpu *v, const struct insn *i, int seg, unsigned old_mode)
{
    if (seg == SEG_SS)
        v->int_shadow = v->shadow_is_movss = true;
    NEXT_OR_END(v, i, seg == SEG_SS || v->mode != old_mode);
}

static void op_mov_to_sreg(struct vcpu *v, const struct insn *i)
{
    unsigned old = v->mode;
    if (i->reg == SEG_CS || i->reg > SEG_GS)
        vcpu_raise(v, i, EXC_UD);
    segment_load(v, i, i->reg, load_rm16(v, i));
    end_after_load(v, i, i->reg, old);
}

static void op_mov_from_sreg(struct vcpu *v, const struct insn *i)
{
    if (i->reg > SEG_GS)
        vcpu_raise(v, i, EXC_UD);
    store_rm(v, i, v->seg[i->reg].sel);
    NEXT_MEM(v, i);
}

static void op_push_sreg(struct vcpu *v, const struct insn *i)
{
    stack_push(v, i, v->seg[i->reg].sel, i->opsize);
    NEXT_MEM(v, i);
}

/* RSP moves by the width that the old SS gave it. */
static void op_pop_sreg(struct vcpu *v, const struct insn *i)
{
    unsigned old = v->mode;
    uint64_t rsp = v->gpr[REG_RSP] + i->opsize;
    segment_load(v, i, i->reg, (uint16_t)stack_peek(v, i, 0, i->opsize));
    if (old & MODE_CODE64)
        v->gpr[REG_RSP] = rsp;
    else if (old & MODE_SS32)
        v->gpr[REG_RSP] = (uint32_t)rsp;
    else
        reg_set16(v, REG_RSP, (uint16_t)rsp);
    end_after_load(v, i, i->reg, old);
}

static int far_load_segment(unsigned op)
{
    switch (op) {
    case OP_LES:
        return SEG_ES;
    case OP_LSS:
        return SEG_SS;
    case OP_LFS:
        return SEG_FS;
    case OP_LGS:
        return SEG_GS;
    default:
        return SEG_DS;
    }
}

static void op_load_far(struct vcpu *v, const struct insn *i)
{
    unsigned old = v->mode;
    uint64_t lin = insn_linear(v, i, i->opsize + 2u, 0), lin2 = lin + i->opsize;
    uint64_t off = lin_load(v, i, lin, i->opsize);
    uint16_t sel = lin_load16(v, i, mode_is_code64(v) ? lin2 : (uint32_t)lin2);
    segment_load(v, i, far_load_segment(i->op), sel);
    reg_set(v, i->reg, i->opsize, off);
    NEXT_OR_END(v, i, v->mode != old);
}

/* ---- descriptor-table registers ---- */

static void store_table(struct vcpu *v, const struct insn *i, const struct desc_table *t)
{
    uint8_t image[10];
    unsigned size = i->opsize == 8 ? 10 : 6;
    check_umip(v, i);
    memcpy(image, &t->limit, 2);
    memcpy(image + 2, &t->base, 8);
    lin_write_bytes(v, i, insn_linear(v, i, size, 1), image, size);
    NEXT_MEM(v, i);
}

static void op_sgdt(struct vcpu *v, const struct insn *i)
{
    store_table(v, i, &v->gdtr);
}

static void op_sidt(struct vcpu *v, const struct insn *i)
{
    store_table(v, i, &v->idtr);
}

static void load_table(struct vcpu *v, const struct insn *i, struct desc_table *t)
{
    uint8_t image[10] = {0};
    unsigned size = i->opsize == 8 ? 10 : 6;
    uint64_t base;
    need_cpl0(v, i);
    lin_read_bytes(v, i, insn_linear(v, i, size, 0), image, size);
    memcpy(&base, image + 2, 8);
    if (i->opsize == 2)
        base &= 0xffffff;
    if (!base_is_canonical(v, base))
        vcpu_raise_error(v, i, EXC_GP, 0);
    memcpy(&t->limit, image, 2);
    t->base = base;
    NEXT_OR_END(v, i, false);
}

static void op_lgdt(struct vcpu *v, const struct insn *i)
{
    load_table(v, i, &v->gdtr);
}

static void op_lidt(struct vcpu *v, const struct insn *i)
{
    load_table(v, i, &v->idtr);
}

static void op_sldt(struct vcpu *v, const struct insn *i)
{
    need_protected(v, i);
    check_umip(v, i);
    store_rm(v, i, v->ldtr.sel);
    NEXT_MEM(v, i);
}

static void op_str(struct vcpu *v, const struct insn *i)
{
    need_protected(v, i);
    check_umip(v, i);
    store_rm(v, i, v->tr.sel);
    NEXT_MEM(v, i);
}

static void op_smsw(struct vcpu *v, const struct insn *i)
{
    check_umip(v, i);
    store_rm(v, i, v->cr0);
    NEXT_MEM(v, i);
}

static void op_lldt(struct vcpu *v, const struct insn *i)
{
    need_protected(v, i);
    need_cpl0(v, i);
    segment_lldt(v, i, load_rm16(v, i));
    NEXT_OR_END(v, i, false);
}

static void op_ltr(struct vcpu *v, const struct insn *i)
{
    need_protected(v, i);
    need_cpl0(v, i);
    segment_ltr(v, i, load_rm16(v, i));
    NEXT_OR_END(v, i, false);
}

/* ---- looking at descriptors ---- */

static void op_lar_lsl(struct vcpu *v, const struct insn *i)
{
    uint32_t out;
    need_protected(v, i);
    uint16_t sel = load_rm16(v, i);
    bool ok = i->op == OP_LAR ? segment_lar(v, i, sel, &out) : segment_lsl(v, i, sel, &out);
    if (ok)
        reg_set(v, i->reg, i->opsize, out);
    set_zf(v, ok);
    NEXT_MEM(v, i);
}

static void op_verify(struct vcpu *v, const struct insn *i)
{
    need_protected(v, i);
    set_zf(v, segment_verify(v, i, load_rm16(v, i), i->op == OP_VERW));
    NEXT_MEM(v, i);
}

static void op_arpl(struct vcpu *v, const struct insn *i)
{
    need_protected(v, i);
    bool is_reg = i->flags & INSN_RM_REG;
    uint64_t lin = is_reg ? 0 : insn_linear(v, i, 2, 0);
    uint16_t dst = is_reg ? (uint16_t)v->gpr[i->rm] : lin_load16(v, i, lin), src = (uint16_t)v->gpr[i->reg];
    bool raise = (dst & 3) < (src & 3);
    uint16_t out = raise ? (uint16_t)((dst & ~3) | (src & 3)) : dst;
    if (is_reg)
        reg_set16(v, i->rm, out);
    else if (raise) /* memory that need not change need not be writable */
        lin_store16(v, i, insn_linear(v, i, 2, 1), out);
    set_zf(v, raise);
    NEXT_MEM(v, i);
}

/* ---- FS and GS bases ---- */

static void op_swapgs(struct vcpu *v, const struct insn *i)
{
    if (!mode_is_code64(v))
        vcpu_raise(v, i, EXC_UD);
    need_cpl0(v, i);
    uint64_t base = v->msr.kernel_gs_base;
    v->msr.kernel_gs_base = v->seg[SEG_GS].base;
    v->seg[SEG_GS].base = v->seg_base[SEG_GS] = base;
    NEXT_OR_END(v, i, false);
}

static void check_fsgsbase(struct vcpu *v, const struct insn *i)
{
    if (!mode_is_code64(v) || !(v->cr4 & CR4_FSGSBASE))
        vcpu_raise(v, i, EXC_UD);
}

static void op_rdbase(struct vcpu *v, const struct insn *i)
{
    check_fsgsbase(v, i);
    reg_set(v, i->rm, i->opsize, v->seg[i->op == OP_RDFSBASE ? SEG_FS : SEG_GS].base);
    NEXT_OR_END(v, i, false);
}

static void op_wrbase(struct vcpu *v, const struct insn *i)
{
    int seg = i->op == OP_WRFSBASE ? SEG_FS : SEG_GS;
    uint64_t base = reg_get(v, i->rm, i->opsize);
    check_fsgsbase(v, i);
    if (!base_is_canonical(v, base))
        vcpu_raise_error(v, i, EXC_GP, 0);
    v->seg[seg].base = v->seg_base[seg] = base;
    NEXT_OR_END(v, i, false);
}

/* ---- choosing ---- */

op_fn *bind_system_segment(const struct insn *i, unsigned mode)
{
    switch (i->op) {
    case OP_MOV_TO_SREG:
        return op_mov_to_sreg;
    case OP_MOV_FROM_SREG:
        return op_mov_from_sreg;
    case OP_PUSH_SREG:
        return op_push_sreg;
    case OP_POP_SREG:
        return op_pop_sreg;
    case OP_LDS:
    case OP_LES:
    case OP_LSS:
    case OP_LFS:
    case OP_LGS:
        return op_load_far;
    case OP_SGDT:
        return op_sgdt;
    case OP_SIDT:
        return op_sidt;
    case OP_LGDT:
        return op_lgdt;
    case OP_LIDT:
        return op_lidt;
    case OP_SLDT:
        return op_sldt;
    case OP_STR:
        return op_str;
    case OP_SMSW:
        return op_smsw;
    case OP_LLDT:
        return op_lldt;
    case OP_LTR:
        return op_ltr;
    case OP_LAR:
    case OP_LSL:
        return op_lar_lsl;
    case OP_VERR:
    case OP_VERW:
        return op_verify;
    case OP_ARPL:
        return op_arpl;
    case OP_SWAPGS:
        return op_swapgs;
    case OP_RDFSBASE:
    case OP_RDGSBASE:
        return op_rdbase;
    case OP_WRFSBASE:
    case OP_WRGSBASE:
        return op_wrbase;
    default:
        return NULL;
    }
}
