/*
 * An x86-64 encoder: as much of it as the translator needs.
 *
 * Bytes go to a buffer; what does not fit sets `full`, and the caller throws the attempt away. Registers are host
 * numbers 0..15. An operand `opnd` is a register, a slot of the frame (rsp + disp) or [r14 + r14_disp].
 */
#ifndef CPU_JIT_EMIT_H
#define CPU_JIT_EMIT_H

#include "core/types.h"

#include <string.h>

enum host_reg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15
};

struct emit {
    uint8_t *start, *p, *limit; /* where bytes are written */
    int64_t exec;               /* address at which they run, less the one at which they are written */
    int32_t r14_disp;           /* of operands [r14] */
    bool full;
};

static inline void e8(struct emit *e, unsigned x)
{
    if (unlikely(e->p >= e->limit))
        e->full = true;
    else
        *e->p++ = (uint8_t)x;
}

static inline void e32(struct emit *e, uint32_t x)
{
    if (unlikely(e->limit - e->p < 4)) {
        e->full = true;
        return;
    }
    memcpy(e->p, &x, 4);
    e->p += 4;
}

static inline void e64(struct emit *e, uint64_t x)
{
    e32(e, (uint32_t)x);
    e32(e, (uint32_t)(x >> 32));
}

/* ---- operands ---- */

enum opnd_kind { OPND_REG, OPND_FRAME, OPND_R14 };
struct opnd {
    uint8_t kind, reg;
    int16_t disp;
};
static inline struct opnd op_reg(unsigned h)
{
    return (struct opnd){OPND_REG, (uint8_t)h, 0};
}
static inline struct opnd op_frame(int disp)
{
    return (struct opnd){OPND_FRAME, 0, (int16_t)disp};
}
static inline struct opnd op_r14(void)
{
    return (struct opnd){OPND_R14, 0, 0};
}

/* Byte registers: number 4..7 needs a REX prefix to mean SPL..DIL; H_HIGH | n is AH..BH and must not have one. */
#define H_HIGH 0x40

/* ---- instructions ---- */

/* An opcode: prefix 0, 0x66, 0xf2, 0xf3; map 1 (one byte), 0x0f, 0x38, 0x3a. */
struct opcode {
    uint8_t prefix, map, op;
};
#define OPC(op)       ((struct opcode){0, 1, (op)})
#define OPC_0F(op)    ((struct opcode){0, 0x0f, (op)})
#define OPC_P(pp, op) ((struct opcode){(pp), 0x0f, (op)})

/* What a modrm instruction is beside its operands. */
struct how {
    unsigned size;          /* operand size of general registers: 1, 2, 4, 8; 0: none (vectors, W clear) */
    bool reg_byte, rm_byte; /* the operand is a byte register */
};

static inline unsigned opnd_rex_b(struct opnd o)
{
    return o.kind == OPND_REG ? (o.reg >> 3) & 1 : o.kind == OPND_R14;
}

static inline void emit_operand(struct emit *e, unsigned reg, struct opnd o)
{
    unsigned r = (reg & 7) << 3;
    if (o.kind == OPND_REG) {
        e8(e, 0xc0 | r | (o.reg & 7));
    } else if (o.kind == OPND_R14) {
        bool near = e->r14_disp >= -128 && e->r14_disp < 128;
        e8(e, (!e->r14_disp ? 0 : near ? 0x40u : 0x80u) | r | 6);
        if (e->r14_disp && near)
            e8(e, (unsigned)e->r14_disp & 0xff);
        else if (e->r14_disp)
            e32(e, (uint32_t)e->r14_disp);
    } else if (o.disp < 128) {
        e8(e, 0x44 | r);
        e8(e, 0x24);
        e8(e, (unsigned)o.disp);
    } else {
        e8(e, 0x84 | r);
        e8(e, 0x24);
        e32(e, (uint32_t)o.disp);
    }
}

static inline bool is_byte_low(unsigned h)
{
    return h >= 4 && h < 8;
}

/* True if the operands can be encoded: AH..BH do not go together with a REX prefix. */
static inline bool can_encode(struct how w, unsigned reg, struct opnd rm)
{
    bool high = (w.reg_byte && reg & H_HIGH) || (w.rm_byte && rm.kind == OPND_REG && rm.reg & H_HIGH);
    bool rex = w.size == 8 || (!(w.reg_byte && reg & H_HIGH) && reg & 8) ||
               (rm.kind == OPND_REG ? !(w.rm_byte && rm.reg & H_HIGH) && rm.reg & 8 : rm.kind == OPND_R14) ||
               (w.reg_byte && is_byte_low(reg)) || (w.rm_byte && rm.kind == OPND_REG && is_byte_low(rm.reg));
    return !(high && rex);
}

static inline unsigned byte_number(unsigned h)
{
    return h & H_HIGH ? (h & 3) + 4 : h;
}

/* opcode reg, rm; `reg` may be a /digit. */
static inline void emit_rm(struct emit *e, struct how w, struct opcode o, unsigned reg, struct opnd rm)
{
    unsigned rex = 0;
    bool force = (w.reg_byte && is_byte_low(reg)) || (w.rm_byte && rm.kind == OPND_REG && is_byte_low(rm.reg));
    if (w.reg_byte)
        reg = byte_number(reg);
    if (w.rm_byte && rm.kind == OPND_REG)
        rm.reg = (uint8_t)byte_number(rm.reg);
    if (w.size == 2)
        e8(e, 0x66);
    if (o.prefix)
        e8(e, o.prefix);
    rex = (w.size == 8 ? 8 : 0) | (reg & 8 ? 4 : 0) | opnd_rex_b(rm);
    if (rex || force)
        e8(e, 0x40 | rex);
    if (o.map != 1)
        e8(e, 0x0f);
    if (o.map == 0x38 || o.map == 0x3a)
        e8(e, o.map);
    e8(e, o.op);
    emit_operand(e, reg, rm);
}

/* 64-bit forms that the glue uses all the time. */
static inline void emit_op64(struct emit *e, unsigned op, unsigned reg, struct opnd rm)
{
    emit_rm(e, (struct how){.size = 8}, OPC(op), reg, rm);
}
static inline void emit_load(struct emit *e, unsigned reg, int disp) /* reg = [rsp + disp] */
{
    emit_op64(e, 0x8b, reg, op_frame(disp));
}
static inline void emit_store(struct emit *e, unsigned reg, int disp)
{
    emit_op64(e, 0x89, reg, op_frame(disp));
}
static inline void emit_mov(struct emit *e, unsigned to, unsigned from)
{
    emit_op64(e, 0x8b, to, op_reg(from));
}
/* [rsp + disp] = imm, sign-extended to 64 bits. */
static inline void emit_store_imm(struct emit *e, int disp, uint32_t imm)
{
    emit_op64(e, 0xc7, 0, op_frame(disp));
    e32(e, imm);
}

/* modrm with any memory operand: op reg, [base + index << scale + disp]. base and index: host register or -1. */
struct maddr {
    int base, index;
    unsigned scale;
    int32_t disp;
};
static inline void emit_maddr(struct emit *e, unsigned size, unsigned op, unsigned reg, struct maddr m)
{
    unsigned rex = (size == 8 ? 8 : 0) | (reg & 8 ? 4 : 0) | (m.index >= 8 ? 2 : 0) | (m.base >= 8 ? 1 : 0);
    unsigned r = (reg & 7) << 3;
    bool small = m.disp >= -128 && m.disp < 128;
    if (rex)
        e8(e, 0x40 | rex);
    e8(e, op);
    if (m.base < 0) { /* [index << scale + disp32], or [disp32] */
        e8(e, r | 4);
        e8(e, m.scale << 6 | (m.index < 0 ? 4u : (unsigned)m.index & 7u) << 3 | 5);
        e32(e, (uint32_t)m.disp);
        return;
    }
    unsigned mod = m.disp == 0 && (m.base & 7) != 5 ? 0 : small ? 0x40 : 0x80;
    if (m.index >= 0 || (m.base & 7) == 4) {
        e8(e, mod | r | 4);
        e8(e, m.scale << 6 | (m.index < 0 ? 4u : (unsigned)m.index & 7u) << 3 | (m.base & 7));
    } else {
        e8(e, mod | r | (m.base & 7));
    }
    if (mod == 0x40)
        e8(e, (unsigned)m.disp);
    else if (mod == 0x80)
        e32(e, (uint32_t)m.disp);
}
static inline struct maddr maddr_at(unsigned base, int disp)
{
    return (struct maddr){(int)base, -1, 0, disp};
}
static inline void emit_load_from(struct emit *e, unsigned reg, unsigned base, int disp) /* reg = [base + disp] */
{
    emit_maddr(e, 8, 0x8b, reg, maddr_at(base, disp));
}
static inline void emit_store_to(struct emit *e, unsigned reg, unsigned base, int disp)
{
    emit_maddr(e, 8, 0x89, reg, maddr_at(base, disp));
}
static inline void emit_lea(struct emit *e, unsigned size, unsigned reg, struct maddr m)
{
    emit_maddr(e, size, 0x8d, reg, m);
}
/* reg = 64-bit immediate, the shortest way. */
static inline void emit_imm(struct emit *e, unsigned reg, uint64_t imm)
{
    if (imm >> 32 == 0) {
        if (reg & 8)
            e8(e, 0x41);
        e8(e, 0xb8 | (reg & 7));
        e32(e, (uint32_t)imm);
    } else if ((int64_t)imm == (int32_t)imm) {
        emit_op64(e, 0xc7, 0, op_reg(reg));
        e32(e, (uint32_t)imm);
    } else {
        e8(e, 0x48 | (reg & 8 ? 1 : 0));
        e8(e, 0xb8 | (reg & 7));
        e64(e, imm);
    }
}

/* ---- jumps: rel32, patched when the target is known ---- */

enum { CC_O, CC_NO, CC_C, CC_NC, CC_Z, CC_NZ, CC_BE, CC_A, CC_S, CC_LE = 14 };

static inline uint8_t *emit_jcc(struct emit *e, unsigned cc)
{
    e8(e, 0x0f);
    e8(e, 0x80 | cc);
    e32(e, 0);
    return e->p;
}
static inline uint8_t *emit_jmp(struct emit *e)
{
    e8(e, 0xe9);
    e32(e, 0);
    return e->p;
}
/* `at`: what emit_jcc() or emit_jmp() returned; target in the same (written) address space. */
static inline void patch_jump(struct emit *e, uint8_t *at, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - at);
    if (!e->full)
        memcpy(at - 4, &rel, 4);
}
static inline void emit_jmp_to(struct emit *e, const uint8_t *target)
{
    uint8_t *at = emit_jmp(e);
    patch_jump(e, at, target);
}

#endif
