/*
 * Moves that are more than MOV: extension, conditions, LEA, byte swaps, sign extension of the accumulator.
 */
#include "cpu/interp/integer.h"

/* ---- MOVZX, MOVSX, MOVSXD ---- */

/* name, destination bits, source type, value of the source as the destination has it */
#define EXTENSIONS(X)                                                                                                  \
    X(movzx_8_16, 16, uint8_t)                                                                                         \
    X(movzx_8_32, 32, uint8_t)                                                                                         \
    X(movzx_16_32, 32, uint16_t)                                                                                       \
    X(movsx_8_16, 16, int8_t)                                                                                          \
    X(movsx_8_32, 32, int8_t)                                                                                          \
    X(movsx_8_64, 64, int8_t)                                                                                          \
    X(movsx_16_32, 32, int16_t)                                                                                        \
    X(movsx_16_64, 64, int16_t)                                                                                        \
    X(movsx_32_64, 64, int32_t)                                                                                        \
    X(move_16_16, 16, uint16_t)                                                                                        \
    X(move_32_32, 32, uint32_t)

#define EXTENSION(name, bits, type)                                                                                    \
    HANDLER_REG(name##_r, reg_set##bits(v, i->reg, (uint##bits##_t)(type)v->gpr[i->rm]))                               \
    HANDLER_REG(name##_h, reg_set##bits(v, i->reg, (uint##bits##_t)(type)reg_get8(v, i->rm)))                          \
    HANDLERS_LOAD(name##_m, type, reg_set##bits(v, i->reg, (uint##bits##_t)m))
EXTENSIONS(EXTENSION)

struct extension {
    op_fn *r, *h, *m[EA_KINDS];
};
#define X(name, bits, type) static const struct extension name = {name##_r, name##_h, EA_TABLE(name##_m)};
EXTENSIONS(X)
#undef X

static const struct extension *extension_of(const struct insn *i)
{
    bool zero = i->op == OP_MOVZX;
    if (i->srcsize >= i->opsize)
        return i->opsize == 2 ? &move_16_16 : &move_32_32;
    switch (i->srcsize * 16 + i->opsize) {
    case 0x12:
        return zero ? &movzx_8_16 : &movsx_8_16;
    case 0x14:
        return zero ? &movzx_8_32 : &movsx_8_32;
    case 0x18:
        return zero ? &movzx_8_32 : &movsx_8_64;
    case 0x24:
        return zero ? &movzx_16_32 : &movsx_16_32;
    case 0x28:
        return zero ? &movzx_16_32 : &movsx_16_64;
    default:
        return &movsx_32_64;
    }
}

static op_fn *bind_extension(const struct insn *i, enum ea_kind k)
{
    const struct extension *x = extension_of(i);
    if (!(i->flags & INSN_RM_REG))
        return x->m[k];
    return i->srcsize == 1 && i->rm & BYTE_HIGH ? x->h : x->r;
}

/* ---- CMOVcc, SETcc ---- */

#define CMOV(cc)                                                                                                       \
    HANDLER_REG(cmov_16_##cc, uint16_t x = (uint16_t)v->gpr[flags_cond(v, cc) ? i->rm : i->reg];                       \
                reg_set16(v, i->reg, x))                                                                               \
    HANDLER_REG(cmov_32_##cc, v->gpr[i->reg] = (uint32_t)v->gpr[flags_cond(v, cc) ? i->rm : i->reg])                   \
    HANDLER_REG(cmov_64_##cc, v->gpr[i->reg] = v->gpr[flags_cond(v, cc) ? i->rm : i->reg])
CONDITIONS(CMOV)

/* The memory operand is read, and may fault, whatever the condition says. */
HANDLERS_LOAD(cmov_16_m, uint16_t, if (flags_cond(v, i->cc)) reg_set16(v, i->reg, m))
HANDLERS_LOAD(cmov_32_m, uint32_t, v->gpr[i->reg] = flags_cond(v, i->cc) ? m : (uint32_t)v->gpr[i->reg])
HANDLERS_LOAD(cmov_64_m, uint64_t, if (flags_cond(v, i->cc)) v->gpr[i->reg] = m)

static op_fn *bind_cmov(const struct insn *i, enum ea_kind k)
{
#define X16(cc) cmov_16_##cc,
#define X32(cc) cmov_32_##cc,
#define X64(cc) cmov_64_##cc,
    static op_fn *const r16[] = {CONDITIONS(X16)}, *const r32[] = {CONDITIONS(X32)}, *const r64[] = {CONDITIONS(X64)};
    static op_fn *const m16[] = EA_TABLE(cmov_16_m), *const m32[] = EA_TABLE(cmov_32_m),
                        *const m64[] = EA_TABLE(cmov_64_m);
    if (i->flags & INSN_RM_REG)
        return (i->opsize == 2 ? r16 : i->opsize == 4 ? r32 : r64)[i->cc];
    return (i->opsize == 2 ? m16 : i->opsize == 4 ? m32 : m64)[k];
}

#define SETCC(cc) HANDLER_REG(setcc_##cc, reg_set8(v, i->rm, flags_cond(v, cc)))
CONDITIONS(SETCC)
HANDLERS_STORE(setcc_m, uint8_t, flags_cond(v, i->cc))

static op_fn *bind_setcc(const struct insn *i, enum ea_kind k)
{
#define XS(cc) setcc_##cc,
    static op_fn *const r[] = {CONDITIONS(XS)}, *const m[] = EA_TABLE(setcc_m);
    return i->flags & INSN_RM_REG ? r[i->cc] : m[k];
}

/* ---- LEA: an address that is never used as one ---- */

HANDLER_REG(lea_64_b, v->gpr[i->reg] = ea_linear_B(v, i))
HANDLER_REG(lea_64_x, v->gpr[i->reg] = v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (uint64_t)(int64_t)i->disp)
HANDLER_REG(lea_32_x,
            v->gpr[i->reg] = (uint32_t)(v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (uint64_t)(int64_t)i->disp))
HANDLER_REG(lea_any, reg_set(v, i->reg, i->opsize, insn_offset(v, i)))

static op_fn *bind_lea(const struct insn *i)
{
    if (i->opsize == 4 && i->adsize >= 4)
        return lea_32_x;
    if (i->opsize == 8 && i->adsize == 8)
        return i->index == REG_ZERO ? lea_64_b : lea_64_x;
    return lea_any;
}

/* ---- accumulator: CBW, CWDE, CDQE, CWD, CDQ, CQO ---- */

HANDLER_REG(cbw, reg_set16(v, REG_RAX, (uint16_t)(int8_t)v->gpr[REG_RAX]))
HANDLER_REG(cwde, reg_set32(v, REG_RAX, (uint32_t)(int16_t)v->gpr[REG_RAX]))
HANDLER_REG(cdqe, v->gpr[REG_RAX] = (uint64_t)(int64_t)(int32_t)v->gpr[REG_RAX])
HANDLER_REG(cwd, reg_set16(v, REG_RDX, (int16_t)v->gpr[REG_RAX] < 0 ? 0xffff : 0))
HANDLER_REG(cdq, reg_set32(v, REG_RDX, (uint32_t)((int32_t)v->gpr[REG_RAX] >> 31)))
HANDLER_REG(cqo, v->gpr[REG_RDX] = (uint64_t)((int64_t)v->gpr[REG_RAX] >> 63))

/* ---- byte order ---- */

HANDLER_REG(bswap_32, reg_set32(v, i->rm, __builtin_bswap32((uint32_t)v->gpr[i->rm])))
HANDLER_REG(bswap_64, v->gpr[i->rm] = __builtin_bswap64(v->gpr[i->rm]))
/* Undefined by the manual; processors clear the word. */
HANDLER_REG(bswap_16, reg_set16(v, i->rm, 0))

HANDLERS_LOAD(movbe_load_16, uint16_t, reg_set16(v, i->reg, __builtin_bswap16(m)))
HANDLERS_LOAD(movbe_load_32, uint32_t, reg_set32(v, i->reg, __builtin_bswap32(m)))
HANDLERS_LOAD(movbe_load_64, uint64_t, v->gpr[i->reg] = __builtin_bswap64(m))
HANDLERS_STORE(movbe_store_16, uint16_t, __builtin_bswap16((uint16_t)v->gpr[i->reg]))
HANDLERS_STORE(movbe_store_32, uint32_t, __builtin_bswap32((uint32_t)v->gpr[i->reg]))
HANDLERS_STORE(movbe_store_64, uint64_t, __builtin_bswap64(v->gpr[i->reg]))
HANDLERS_STORE(movnti_32, uint32_t, v->gpr[i->reg])
HANDLERS_STORE(movnti_64, uint64_t, v->gpr[i->reg])

static op_fn *bind_movbe(const struct insn *i, enum ea_kind k)
{
    static op_fn *const load[][EA_KINDS] = {EA_TABLE(movbe_load_16), EA_TABLE(movbe_load_32), EA_TABLE(movbe_load_64)},
                        *const store[][EA_KINDS] = {EA_TABLE(movbe_store_16), EA_TABLE(movbe_store_32),
                                                    EA_TABLE(movbe_store_64)};
    unsigned n = i->opsize == 2 ? 0 : i->opsize == 4 ? 1 : 2;
    return i->enc == ENC_RM ? load[n][k] : store[n][k];
}

/* ---- XLAT: AL = [rBX + AL] ---- */

static void xlat(struct vcpu *v, const struct insn *i)
{
    uint64_t off = wrap_offset(v->gpr[REG_RBX] + (uint8_t)v->gpr[REG_RAX], i->adsize);
    reg_set8(v, REG_RAX, lin_load8(v, i, linear_of(v, i, i->seg, off, 1, 0)));
    NEXT_MEM(v, i);
}

static op_fn *by_size(const struct insn *i, op_fn *f16, op_fn *f32, op_fn *f64)
{
    return i->opsize == 2 ? f16 : i->opsize == 4 ? f32 : f64;
}

op_fn *bind_move(const struct insn *i, enum ea_kind k)
{
    static op_fn *const nti[][EA_KINDS] = {EA_TABLE(movnti_32), EA_TABLE(movnti_64)};
    switch (i->op) {
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
        return bind_extension(i, k);
    case OP_CMOVCC:
        return bind_cmov(i, k);
    case OP_SETCC:
        return bind_setcc(i, k);
    case OP_LEA:
        return bind_lea(i);
    case OP_CBW:
        return by_size(i, cbw, cwde, cdqe);
    case OP_CWD:
        return by_size(i, cwd, cdq, cqo);
    case OP_BSWAP:
        return by_size(i, bswap_16, bswap_32, bswap_64);
    case OP_MOVBE:
        return bind_movbe(i, k);
    case OP_MOVNTI:
        return nti[i->opsize == 8][k];
    case OP_XLAT:
        return xlat;
    default:
        return NULL;
    }
}
