/*
 * Port input and output (SDM volume 1, chapter 19). Each access costs a surcharge and is a boundary; REP forms make one
 * iteration and come back for the next, so that interrupts are seen between any two.
 */
#include "core/bus.h"
#include "cpu/breakpoint.h"
#include "cpu/optable.h"
#include "cpu/system.h"

/* The I/O permission bitmap of a 32- or 64-bit TSS: a clear bit for each port of the access. */
static bool bitmap_allows(struct vcpu *v, const struct insn *i, unsigned port, unsigned size)
{
    unsigned type = v->tr.attr & ATTR_TYPE;
    if (v->tr.unusable || (type != SYS_TSS_BUSY && type != SYS_TSS) || v->tr.limit < 0x67)
        return false;
    bool wide = mode_is_long(v);
    uint64_t base = v->tr.base;
    uint32_t map = (uint32_t)lin_load_sys(v, i, wide ? base + 0x66 : (uint32_t)(base + 0x66), 2), at = map + port / 8;
    if (at + 1 > v->tr.limit)
        return false;
    uint64_t bits = lin_load_sys(v, i, wide ? base + at : (uint32_t)(base + at), 2);
    return !(bits >> (port & 7) & ((1u << size) - 1));
}

bool vcpu_io_allowed(struct vcpu *v, const struct insn *i, unsigned port, unsigned size)
{
    if (!(v->cr0 & CR0_PE) || (!(v->rflags & FLAG_VM) && v->cpl <= flags_iopl(v)))
        return true;
    return bitmap_allows(v, i, port, size);
}

static void check_port(struct vcpu *v, const struct insn *i, unsigned port, unsigned size)
{
    if (!vcpu_io_allowed(v, i, port, size))
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* ---- the access itself ---- */

static void charge_port(struct vcpu *v)
{
    clock_charge(v->clock, CLOCK_SURCHARGE_PORT_IO);
    v->attn |= ATTN_BOUNDARY;
}

static uint64_t port_read(struct vcpu *v, const struct insn *i, unsigned port, unsigned size)
{
    vcpu_sync(v, i);
    breakpoints_check_io(v, port, size);
    uint64_t value = bus_read(v->ports, port, size, (int)v->index);
    charge_port(v);
    return value;
}

static void port_write(struct vcpu *v, const struct insn *i, unsigned port, unsigned size, uint64_t value)
{
    vcpu_sync(v, i);
    breakpoints_check_io(v, port, size);
    bus_write(v->ports, port, size, value, (int)v->index);
    charge_port(v);
}

/* ---- IN, OUT ---- */

static unsigned port_of(const struct vcpu *v, const struct insn *i)
{
    return i->enc == ENC_I ? (uint8_t)i->imm : (uint16_t)v->gpr[REG_RDX];
}

static void op_in(struct vcpu *v, const struct insn *i)
{
    unsigned port = port_of(v, i);
    check_port(v, i, port, i->opsize);
    reg_set(v, REG_RAX, i->opsize, port_read(v, i, port, i->opsize));
    block_end(v, i, insn_next_rip(v, i), 2);
}

static void op_out(struct vcpu *v, const struct insn *i)
{
    unsigned port = port_of(v, i);
    check_port(v, i, port, i->opsize);
    port_write(v, i, port, i->opsize, reg_get(v, REG_RAX, i->opsize));
    block_end(v, i, insn_next_rip(v, i), 2);
}

/* ---- INS, OUTS ---- */

static bool is_rep(const struct insn *i)
{
    return i->flags & (INSN_REP | INSN_REPNE);
}

static uint64_t element_linear(struct vcpu *v, const struct insn *i, unsigned seg, uint64_t off, unsigned write)
{
    if (mode_is_code64(v))
        return off + v->seg_base[seg];
    return seg_linear_checked(v, i, seg, off, i->opsize, write);
}

static void advance(struct vcpu *v, const struct insn *i, unsigned r)
{
    uint64_t step = v->rflags & FLAG_DF ? -(uint64_t)i->opsize : i->opsize;
    reg_set(v, r, i->adsize, reg_get(v, r, i->adsize) + step);
}

/* One iteration is done: to the next one, with RF set as between those of MOVS, or on. Each counts one unit. */
static void end_iteration(struct vcpu *v, const struct insn *i)
{
    bool again = false;
    if (is_rep(i)) {
        uint64_t left = reg_get(v, REG_RCX, i->adsize) - 1;
        reg_set(v, REG_RCX, i->adsize, left);
        again = left != 0;
    }
    if (again)
        v->rflags |= FLAG_RF;
    else
        v->rflags &= ~FLAG_RF;
    block_end_counted(v, i, again ? insn_rip(v, i) : insn_next_rip(v, i), 1);
}

static bool is_finished(struct vcpu *v, const struct insn *i)
{
    if (!is_rep(i) || reg_get(v, REG_RCX, i->adsize))
        return false;
    v->rflags &= ~FLAG_RF;
    block_end(v, i, insn_next_rip(v, i), 2);
    return true;
}

/* The destination is known to be writable before the device is read. */
static void op_ins(struct vcpu *v, const struct insn *i)
{
    unsigned port = (uint16_t)v->gpr[REG_RDX];
    check_port(v, i, port, i->opsize);
    if (is_finished(v, i))
        return;
    uint64_t lin = element_linear(v, i, SEG_ES, reg_get(v, REG_RDI, i->adsize), 1);
    lin_probe_write(v, i, lin, i->opsize);
    lin_store(v, i, lin, port_read(v, i, port, i->opsize), i->opsize);
    advance(v, i, REG_RDI);
    end_iteration(v, i);
}

static void op_outs(struct vcpu *v, const struct insn *i)
{
    unsigned port = (uint16_t)v->gpr[REG_RDX];
    check_port(v, i, port, i->opsize);
    if (is_finished(v, i))
        return;
    uint64_t lin = element_linear(v, i, i->seg, reg_get(v, REG_RSI, i->adsize), 0);
    port_write(v, i, port, i->opsize, lin_load(v, i, lin, i->opsize));
    advance(v, i, REG_RSI);
    end_iteration(v, i);
}

op_fn *bind_system_io(const struct insn *i, unsigned mode)
{
    switch (i->op) {
    case OP_IN:
        return op_in;
    case OP_OUT:
        return op_out;
    case OP_INS:
        return op_ins;
    case OP_OUTS:
        return op_outs;
    default:
        return NULL;
    }
}
