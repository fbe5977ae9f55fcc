/*
 * XCHG, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B. vCPUs take turns at block boundaries, so all of them are atomic with
 * or without LOCK.
 */
#include "cpu/interp/integer.h"

/* ---- XCHG, XADD ---- */

static void xchg_reg(struct vcpu *v, const struct insn *i)
{
    uint64_t a = reg_get(v, i->rm, i->opsize), b = reg_get(v, i->reg, i->opsize);
    reg_set(v, i->rm, i->opsize, b);
    reg_set(v, i->reg, i->opsize, a);
    NEXT(v, i);
}

always_inline uint64_t do_xadd(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
    flags_set_add(v, a, b, a + b, size);
    return a + b;
}

static void xadd_reg(struct vcpu *v, const struct insn *i)
{
    uint64_t a = reg_get(v, i->rm, i->opsize), b = reg_get(v, i->reg, i->opsize);
    reg_set(v, i->reg, i->opsize, a);
    reg_set(v, i->rm, i->opsize, do_xadd(v, a, b, i->opsize));
    NEXT(v, i);
}

/* ---- CMPXCHG ---- */

/* Compares, sets the flags, loads the accumulator if it differs; returns what goes to the destination. */
always_inline uint64_t do_cmpxchg(struct vcpu *v, const struct insn *i, uint64_t old, unsigned size)
{
    uint64_t acc = reg_get(v, REG_RAX, size);
    flags_set_sub(v, acc, old, acc - old, size);
    if (acc == old)
        return reg_get(v, i->reg, size);
    reg_set(v, REG_RAX, size, old);
    return old;
}

/* A destination that differs is not written: the upper half of its register stays. */
static void cmpxchg_reg(struct vcpu *v, const struct insn *i)
{
    uint64_t acc = reg_get(v, REG_RAX, i->opsize), old = reg_get(v, i->rm, i->opsize);
    uint64_t x = do_cmpxchg(v, i, old, i->opsize);
    if (acc == old)
        reg_set(v, i->rm, i->opsize, x);
    NEXT(v, i);
}

#define EXCHANGES(bits)                                                                                                \
    HANDLERS_RMW(xchg_m_##bits, uint##bits##_t, uint64_t r = reg_get(v, i->reg, bits / 8);                             \
                 reg_set(v, i->reg, bits / 8, m); m = (uint##bits##_t)r)                                               \
    HANDLERS_RMW(xadd_m_##bits, uint##bits##_t, uint64_t r = do_xadd(v, m, reg_get(v, i->reg, bits / 8), bits / 8);    \
                 reg_set(v, i->reg, bits / 8, m); m = (uint##bits##_t)r)                                               \
    HANDLERS_RMW(cmpxchg_m_##bits, uint##bits##_t, m = (uint##bits##_t)do_cmpxchg(v, i, m, bits / 8))
EXCHANGES(8)
EXCHANGES(16)
EXCHANGES(32)
EXCHANGES(64)

/* ---- CMPXCHG8B, CMPXCHG16B: only ZF changes; the memory operand is always written ---- */

static void set_zf(struct vcpu *v, bool zf)
{
    flags_set_image(v, (flags_image(v) & ~FLAG_ZF) | (zf ? FLAG_ZF : 0));
}

static void cmpxchg8b(struct vcpu *v, const struct insn *i)
{
    uint64_t lin = insn_linear(v, i, 8, 1), old = lin_rmw_load(v, i, lin, 8);
    uint64_t want = v->gpr[REG_RDX] << 32 | (uint32_t)v->gpr[REG_RAX];
    bool same = old == want;
    if (!same) {
        reg_set32(v, REG_RAX, (uint32_t)old);
        reg_set32(v, REG_RDX, (uint32_t)(old >> 32));
    }
    set_zf(v, same);
    lin_store64(v, i, lin, same ? v->gpr[REG_RCX] << 32 | (uint32_t)v->gpr[REG_RBX] : old);
    NEXT_MEM(v, i);
}

/* Compares the pair and leaves in it what is to be stored. */
static void do_cmpxchg16b(struct vcpu *v, uint64_t pair[2])
{
    bool same = pair[0] == v->gpr[REG_RAX] && pair[1] == v->gpr[REG_RDX];
    if (same) {
        pair[0] = v->gpr[REG_RBX];
        pair[1] = v->gpr[REG_RCX];
    } else {
        v->gpr[REG_RAX] = pair[0];
        v->gpr[REG_RDX] = pair[1];
    }
    set_zf(v, same);
}

slow_path void cmpxchg16b_access(struct vcpu *v, const struct insn *i, uint64_t lin)
{
    uint64_t pair[2];
    lin_probe_write(v, i, lin, 16);
    lin_read_bytes(v, i, lin, pair, 16);
    do_cmpxchg16b(v, pair);
    lin_write_bytes(v, i, lin, pair, 16);
}

static void cmpxchg16b(struct vcpu *v, const struct insn *i)
{
    uint64_t lin = insn_linear(v, i, 16, 1);
    if (unlikely(lin & 15))
        vcpu_raise_error(v, i, EXC_GP, 0);
    void *p = tlb_lookup_write(v->mv, lin, 16);
    if (likely(p != NULL))
        do_cmpxchg16b(v, p);
    else
        cmpxchg16b_access(v, i, lin);
    NEXT_MEM(v, i);
}

static op_fn *memory_form(const struct insn *i, enum ea_kind k)
{
#define ROWS(name)                                                                                                     \
    {                                                                                                                  \
        EA_TABLE(name##_8), EA_TABLE(name##_16), EA_TABLE(name##_32), EA_TABLE(name##_64)                              \
    }
    static op_fn *const table[3][4][EA_KINDS] = {ROWS(xchg_m), ROWS(xadd_m), ROWS(cmpxchg_m)};
#undef ROWS
    unsigned row = i->op == OP_XCHG ? 0 : i->op == OP_XADD ? 1 : 2;
    return table[row][i->opsize == 1 ? 0 : i->opsize == 2 ? 1 : i->opsize == 4 ? 2 : 3][k];
}

op_fn *bind_exchange(const struct insn *i, enum ea_kind k)
{
    bool r = i->flags & INSN_RM_REG;
    switch (i->op) {
    case OP_XCHG:
        return r ? xchg_reg : memory_form(i, k);
    case OP_XADD:
        return r ? xadd_reg : memory_form(i, k);
    case OP_CMPXCHG:
        return r ? cmpxchg_reg : memory_form(i, k);
    case OP_CMPXCHG8B:
        return cmpxchg8b;
    case OP_CMPXCHG16B:
        return cmpxchg16b;
    default:
        return NULL;
    }
}
