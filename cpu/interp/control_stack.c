/*
 * PUSH, POP and their plural forms, PUSHF, POPF, ENTER, LEAVE.
 */
#include "cpu/interp/control.h"

/* ---- PUSH, POP ---- */

static void push_any(struct vcpu *v, const struct insn *i)
{
    uint64_t x = i->enc == ENC_I ? i->imm : insn_source(v, i, i->opsize);
    stack_push(v, i, x, i->opsize);
    NEXT_MEM(v, i);
}

static void pop_reg(struct vcpu *v, const struct insn *i)
{
    uint64_t x = stack_pop(v, i, i->opsize); /* POP RSP: the value read wins */
    reg_set(v, i->rm, i->opsize, x);
    NEXT_MEM(v, i);
}

/* The address is computed with RSP as it is after the pop. */
static void pop_mem(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    uint64_t x = stack_peek(v, i, 0, size);
    uint64_t off = wrap_offset(insn_offset(v, i) + (i->base == REG_RSP ? size : 0), i->adsize);
    lin_store(v, i, linear_of(v, i, i->seg, off, size, 1), x, size);
    stack_adjust(v, size);
    NEXT_MEM(v, i);
}

#define PUSH_64(name, value)                                                                                           \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        uint64_t sp = v->gpr[REG_RSP] - 8, x = (value);                                                                \
        void *p = tlb_lookup_write(v->mv, sp, 8);                                                                      \
        if (unlikely(!p))                                                                                              \
            return push_any(v, i);                                                                                     \
        memcpy(p, &x, 8);                                                                                              \
        v->gpr[REG_RSP] = sp;                                                                                          \
        NEXT(v, i);                                                                                                    \
    }
PUSH_64(push_reg_64, v->gpr[i->rm])
PUSH_64(push_imm_64, i->imm)

static void pop_reg_64(struct vcpu *v, const struct insn *i)
{
    uint64_t sp = v->gpr[REG_RSP], x;
    const void *p = tlb_lookup_read(v->mv, sp, 8);
    if (unlikely(!p))
        return pop_reg(v, i);
    memcpy(&x, p, 8);
    v->gpr[REG_RSP] = sp + 8;
    v->gpr[i->rm] = x;
    NEXT(v, i);
}

static op_fn *bind_push(const struct insn *i, unsigned mode)
{
    if (!(mode & MODE_CODE64) || i->opsize != 8)
        return push_any;
    return i->enc == ENC_I ? push_imm_64 : i->flags & INSN_RM_REG ? push_reg_64 : push_any;
}

static op_fn *bind_pop(const struct insn *i, unsigned mode)
{
    if (!(i->flags & INSN_RM_REG))
        return pop_mem;
    return mode & MODE_CODE64 && i->opsize == 8 ? pop_reg_64 : pop_reg;
}

/* ---- PUSHA, POPA: rAX rCX rDX rBX rSP rBP rSI rDI, in the order of their numbers ---- */

/* Raises what a write of `size` bytes at a wrapped stack offset would raise. */
static void probe(struct vcpu *v, const struct insn *i, uint64_t off, unsigned size)
{
    uint64_t lin = stack_linear(v, i, off, size, 1);
    if (!tlb_lookup_write(v->mv, lin, size))
        lin_probe_write(v, i, lin, size);
}

/* All eight slots are checked before the first is written. */
static void pusha(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    for (unsigned r = 0; r < 8; r++)
        probe(v, i, stack_wrap(v, v->gpr[REG_RSP] - (r + 1) * size), size);
    for (unsigned r = 0; r < 8; r++) {
        uint64_t off = stack_wrap(v, v->gpr[REG_RSP] - (r + 1) * size);
        lin_store(v, i, stack_linear(v, i, off, size, 1), reg_get(v, r, size), size);
    }
    stack_adjust(v, -8 * (int64_t)size);
    NEXT_MEM(v, i);
}

static void popa(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize;
    uint64_t x[8];
    for (unsigned k = 0; k < 8; k++) /* from the stack's top on, as faults show */
        x[7 - k] = stack_peek(v, i, k * size, size);
    for (unsigned r = 0; r < 8; r++)
        if (r != REG_RSP)
            reg_set(v, r, size, x[r]);
    stack_adjust(v, 8 * (int64_t)size);
    NEXT_MEM(v, i);
}

/* ---- PUSHF, POPF ---- */

static unsigned iopl(const struct vcpu *v)
{
    return (unsigned)(v->rflags >> 12) & 3;
}

/* Virtual-8086 mode without the right to see IF: VME's virtual interrupt flag if it applies (16-bit forms only), else
 * #GP. */
static bool is_vme_flags(struct vcpu *v, const struct insn *i)
{
    if (!(v->mode & MODE_VM) || iopl(v) == 3)
        return false;
    if (!(v->cr4 & CR4_VME) || i->opsize != 2)
        vcpu_raise_error(v, i, EXC_GP, 0);
    return true;
}

static void pushf(struct vcpu *v, const struct insn *i)
{
    uint64_t f = (v->rflags | flags_image(v)) & ~(FLAG_VM | FLAG_RF);
    if (is_vme_flags(v, i))
        f = (f & ~FLAG_IF) | FLAG_IOPL | (v->rflags & FLAG_VIF ? FLAG_IF : 0);
    stack_push(v, i, f, i->opsize);
    NEXT_MEM(v, i);
}

/* Which bits POPF may change (SDM volume 2, POPF, table 4-16). */
static uint64_t popf_mask(const struct vcpu *v, unsigned size)
{
    uint64_t mask = FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;
    if (v->cpl == 0)
        mask |= FLAG_IOPL;
    if (v->cpl <= iopl(v))
        mask |= FLAG_IF;
    return size == 2 ? mask & 0xffff : mask;
}

/* POPF of 16 bits in virtual-8086 mode with VME and IOPL < 3: IF of the image goes to VIF. */
static uint64_t popf_vme(struct vcpu *v, const struct insn *i, uint64_t f)
{
    uint64_t mask = FLAG_DF | FLAG_NT | FLAG_TF;
    if (f & FLAG_TF || (f & FLAG_IF && v->rflags & FLAG_VIP))
        vcpu_raise_error(v, i, EXC_GP, 0);
    return (v->rflags & ~(mask | FLAG_VIF)) | (f & mask) | (f & FLAG_IF ? FLAG_VIF : 0);
}

/* May open the interrupt window, set TF, or change what AC allows: the block ends here. */
static void popf(struct vcpu *v, const struct insn *i)
{
    bool vme = is_vme_flags(v, i);
    uint64_t f = stack_peek(v, i, 0, i->opsize), mask = popf_mask(v, i->opsize);
    uint64_t next = insn_next_rip(v, i);
    uint64_t flags = vme ? popf_vme(v, i, f) : (v->rflags & ~mask) | (f & mask);
    stack_adjust(v, i->opsize);
    vcpu_set_rflags(v, (flags & ~FLAG_RF) | (f & FLAGS_ARITH));
    block_end(v, i, v->mode & MODE_CODE64 ? next : (uint32_t)next, 2);
}

/* ---- ENTER, LEAVE ---- */

static void frame_store(struct vcpu *v, const struct insn *i, uint64_t *sp, uint64_t x)
{
    *sp = stack_wrap(v, *sp - i->opsize);
    lin_store(v, i, stack_linear(v, i, *sp, i->opsize, 1), x, i->opsize);
}

/* Registers change last; a fault on the way leaves only bytes below the stack pointer changed, as on a processor. */
static void enter(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize, level = i->imm2 & 31;
    uint64_t sp = v->gpr[REG_RSP], bp = v->gpr[REG_RBP];
    frame_store(v, i, &sp, bp);
    uint64_t frame = sp;
    for (unsigned k = 1; k < level; k++) {
        bp = stack_wrap(v, bp - size);
        frame_store(v, i, &sp, lin_load(v, i, stack_linear(v, i, bp, size, 0), size));
    }
    if (level)
        frame_store(v, i, &sp, frame);
    sp = stack_wrap(v, sp - (uint16_t)i->imm);
    probe(v, i, sp, size); /* "as if written at the final stack pointer" */
    reg_set(v, REG_RBP, size, frame);
    stack_set_pointer(v, sp);
    NEXT_MEM(v, i);
}

static void leave_any(struct vcpu *v, const struct insn *i)
{
    uint64_t bp = stack_wrap(v, v->gpr[REG_RBP]);
    uint64_t x = lin_load(v, i, stack_linear(v, i, bp, i->opsize, 0), i->opsize);
    stack_set_pointer(v, bp + i->opsize);
    reg_set(v, REG_RBP, i->opsize, x);
    NEXT_MEM(v, i);
}

static void leave_64(struct vcpu *v, const struct insn *i)
{
    uint64_t bp = v->gpr[REG_RBP], x;
    const void *p = tlb_lookup_read(v->mv, bp, 8);
    if (unlikely(!p))
        return leave_any(v, i);
    memcpy(&x, p, 8);
    v->gpr[REG_RSP] = bp + 8;
    v->gpr[REG_RBP] = x;
    NEXT(v, i);
}

op_fn *bind_stack(const struct insn *i, unsigned mode)
{
    switch (i->op) {
    case OP_PUSH:
        return bind_push(i, mode);
    case OP_POP:
        return bind_pop(i, mode);
    case OP_PUSHA:
        return pusha;
    case OP_POPA:
        return popa;
    case OP_PUSHF:
        return pushf;
    case OP_POPF:
        return popf;
    case OP_ENTER:
        return enter;
    case OP_LEAVE:
        return mode & MODE_CODE64 && i->opsize == 8 ? leave_64 : leave_any;
    default:
        return NULL;
    }
}
