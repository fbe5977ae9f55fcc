/*
 * From a decoded instruction to the handler that executes it.
 */
#include "cpu/cpuid.h"
#include "cpu/interp/interp.h"
#include "cpu/optable.h"

/* An encoding of an instruction that the CPU model does not offer is named: a guest that trusts to luck instead of
 * CPUID is a common reason for an unexpected #UD. */
static void report_gated(struct vcpu *v, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    if (i->form && !(v->model->gates >> f->gate & 1))
        log_emit(v->log, LOG_UNIMP, "instruction at rip 0x%llx: %s needs CPU feature %s, which -cpu %s does not offer",
                 (unsigned long long)insn_rip(v, i), optable_op_names[f->op],
                 cpu_feature_name(cpu_gate_feature(f->gate)), v->model->name);
}

static void op_undefined(struct vcpu *v, const struct insn *i)
{
    report_gated(v, i);
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

static op_fn *find_handler(const struct insn *i, unsigned mode)
{
    op_fn *fn;
    if ((fn = bind_integer(i, mode)) || (fn = bind_string(i, mode)) || (fn = bind_control(i, mode)) ||
        (fn = bind_system(i, mode)) || (fn = bind_x87(i, mode)))
        return fn;
    return bind_sse(i, mode);
}

bool interp_implements(const struct insn *i, unsigned mode)
{
    return i->op == OP_UD || i->op == OP_GP0 || find_handler(i, mode);
}

op_fn *interp_bind(const struct insn *i, unsigned mode)
{
    if (i->op == OP_UD)
        return op_undefined;
    if (i->op == OP_GP0)
        return op_too_long;
    op_fn *fn = find_handler(i, mode);
    return fn ? fn : op_unimplemented;
}
