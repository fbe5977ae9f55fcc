/*
 * From a decoded instruction to the handler that executes it.
 */
#include "cpu/interp/interp.h"
#include "cpu/optable.h"

static void op_undefined(struct vcpu *v, const struct insn *i)
{
    vcpu_raise(v, i, EXC_UD);
}

static void op_too_long(struct vcpu *v, const struct insn *i)
{
    vcpu_raise_error(v, i, EXC_GP, 0);
}

/* Decoded, but nothing executes it: named, and #UD to the guest. */
static void op_unimplemented(struct vcpu *v, const struct insn *i)
{
    char text[96];
    log_emit(v->log, LOG_UNIMP,
             "unimplemented instruction at rip 0x%llx (mode 0x%x): %s (opcode 0x%02x, modrm 0x%02x, %u bytes)",
             (unsigned long long)insn_rip(v, i), v->mode, insn_print(i, insn_rip(v, i), text, sizeof text), i->opcode,
             i->modrm, i->len);
    vcpu_raise(v, i, EXC_UD);
}

op_fn *interp_bind(const struct insn *i, unsigned mode)
{
    op_fn *fn;
    if (i->op == OP_UD)
        return op_undefined;
    if (i->op == OP_GP0)
        return op_too_long;
    if ((fn = bind_integer(i, mode)) || (fn = bind_string(i, mode)) || (fn = bind_control(i, mode)) ||
        (fn = bind_system(i, mode)) || (fn = bind_x87(i, mode)) || (fn = bind_sse(i, mode)))
        return fn;
    return op_unimplemented;
}

op_fn *interp_bind_gated(const struct insn *i, unsigned mode, uint64_t gates)
{
    return gates >> insn_form(i)->gate & 1 ? interp_bind(i, mode) : op_undefined;
}
