/*
 * Decimal adjustments (not in 64-bit code) and SALC. Flags that the manual leaves undefined are as AMD's processors
 * leave them: those of the addition or subtraction that does the adjusting, for AAA and AAS that of 106H (or 0) to AX
 * before AL is masked, for AAD that of the product to AL; AAM clears CF, OF, AF.
 */
#include "cpu/interp/integer.h"

/* ZF, SF, PF by AL; CF, AF as given; OF 0. */
static void adjusted(struct vcpu *v, bool cf, bool af)
{
    flags_set_logic(v, (uint8_t)v->gpr[REG_RAX], 1);
    flags_set_cf_of(v, cf, false);
    v->f_adj = af ? FLAG_AF : 0;
}

static void aaa_aas(struct vcpu *v, const struct insn *i)
{
    bool adjust = (v->gpr[REG_RAX] & 15) > 9 || flag_af(v);
    uint16_t old = (uint16_t)v->gpr[REG_RAX], by = adjust ? 0x106 : 0;
    uint16_t ax = (uint16_t)(i->op == OP_AAA ? old + by : old - by);
    if (i->op == OP_AAA)
        flags_set_add(v, old, by, ax, 2);
    else
        flags_set_sub(v, old, by, ax, 2);
    flags_set_cf(v, adjust);
    v->f_adj = adjust ? FLAG_AF : 0;
    reg_set16(v, REG_RAX, (uint16_t)(ax & 0xff0f));
    NEXT(v, i);
}

static void daa(struct vcpu *v, const struct insn *i)
{
    uint8_t old = (uint8_t)v->gpr[REG_RAX], al = old;
    bool cf = flag_cf(v) || old > 0x99, af = (old & 15) > 9 || flag_af(v);
    uint8_t by = (uint8_t)((af ? 6 : 0) + (cf ? 0x60 : 0));
    al = (uint8_t)(al + by);
    reg_set8(v, REG_RAX, al);
    adjusted(v, cf, af);
    flags_set_cf_of(v, cf, (old ^ al) & (by ^ al) & 0x80);
    NEXT(v, i);
}

static void das(struct vcpu *v, const struct insn *i)
{
    uint8_t old = (uint8_t)v->gpr[REG_RAX], al = old;
    bool high = flag_cf(v) || old > 0x99, af = (old & 15) > 9 || flag_af(v);
    bool cf = high || (af && old < 6); /* the borrow of the low step counts */
    uint8_t by = (uint8_t)((af ? 6 : 0) + (high ? 0x60 : 0));
    al = (uint8_t)(al - by);
    reg_set8(v, REG_RAX, al);
    adjusted(v, cf, af);
    flags_set_cf_of(v, cf, (old ^ by) & (old ^ al) & 0x80);
    NEXT(v, i);
}

static void aam(struct vcpu *v, const struct insn *i)
{
    uint8_t base = (uint8_t)i->imm, al = (uint8_t)v->gpr[REG_RAX];
    if (base == 0)
        vcpu_raise(v, i, EXC_DE);
    reg_set16(v, REG_RAX, (uint16_t)(al / base << 8 | al % base));
    adjusted(v, false, false);
    NEXT(v, i);
}

static void aad(struct vcpu *v, const struct insn *i)
{
    uint64_t ax = v->gpr[REG_RAX];
    uint8_t product = (uint8_t)((ax >> 8) * i->imm), al = (uint8_t)(ax + product);
    reg_set16(v, REG_RAX, al);
    flags_set_add(v, (uint8_t)ax, product, al, 1);
    NEXT(v, i);
}

HANDLER_REG(salc, reg_set8(v, REG_RAX, flag_cf(v) ? 0xff : 0))

op_fn *bind_bcd(const struct insn *i)
{
    switch (i->op) {
    case OP_AAA:
    case OP_AAS:
        return aaa_aas;
    case OP_DAA:
        return daa;
    case OP_DAS:
        return das;
    case OP_AAM:
        return aam;
    case OP_AAD:
        return aad;
    case OP_SALC:
        return salc;
    default:
        return NULL;
    }
}
