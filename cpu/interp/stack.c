/*
 * The stack as instructions see it: width of the stack pointer, the SS segment, canonical addresses.
 */
#include "cpu/interp/stack.h"

static bool is_canonical(const struct vcpu *v, uint64_t a)
{
    unsigned shift = v->cr4 & CR4_LA57 ? 7 : 16;
    return (uint64_t)((int64_t)(a << shift) >> shift) == a;
}

uint64_t stack_linear(struct vcpu *v, const struct insn *i, uint64_t off, unsigned size, unsigned write)
{
    if (v->mode & MODE_CODE64) {
        if (unlikely(!is_canonical(v, off) || !is_canonical(v, off + size - 1)))
            vcpu_raise_error(v, i, EXC_SS, 0);
        return off;
    }
    if (v->mode & MODE_FLAT)
        return (uint32_t)off;
    return seg_linear_checked(v, i, SEG_SS, off, size, write);
}

void stack_push(struct vcpu *v, const struct insn *i, uint64_t value, unsigned size)
{
    uint64_t sp = stack_wrap(v, v->gpr[REG_RSP] - size);
    lin_store(v, i, stack_linear(v, i, sp, size, 1), value, size);
    stack_set_pointer(v, sp);
}

uint64_t stack_peek(struct vcpu *v, const struct insn *i, unsigned offset, unsigned size)
{
    uint64_t sp = stack_wrap(v, v->gpr[REG_RSP] + offset);
    return lin_load(v, i, stack_linear(v, i, sp, size, 0), size);
}

uint64_t stack_pop(struct vcpu *v, const struct insn *i, unsigned size)
{
    uint64_t x = stack_peek(v, i, 0, size);
    stack_adjust(v, size);
    return x;
}

void stack_adjust(struct vcpu *v, int64_t bytes)
{
    stack_set_pointer(v, v->gpr[REG_RSP] + (uint64_t)bytes);
}
