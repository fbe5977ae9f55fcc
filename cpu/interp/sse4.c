/*
 * SSE4 instructions whose operands are of other sizes than a vector (SDM volume 2), with their VEX.128 forms: extension
 * of lanes, single elements, tests, CRC32.
 */
#include "cpu/interp/vec.h"

/* ---- PMOVSX, PMOVZX: lanes of the lower part, extended ---- */

#define EXTENSIONS(X)                                                                                                  \
    X(PMOVSXBW)                                                                                                        \
    X(PMOVSXBD)                                                                                                        \
    X(PMOVSXBQ)                                                                                                        \
    X(PMOVSXWD)                                                                                                        \
    X(PMOVSXWQ) X(PMOVSXDQ) X(PMOVZXBW) X(PMOVZXBD) X(PMOVZXBQ) X(PMOVZXWD) X(PMOVZXWQ) X(PMOVZXDQ)
/* A YMM register's upper half comes from the upper half of the source's bytes. */
#define EXTENSION(name)                                                                                                \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        vec_need(v, i);                                                                                                \
        SIMD b = i->flags & INSN_RM_REG ? xmm_get(v, i->rm) : vec_load_part(v, i, i->srcsize);                         \
        if (i->opsize == 32)                                                                                           \
            ymm_set(v, i->reg, (struct simd32){{x_##name(b), x_##name(x_PSRLDQ_n(b, i->srcsize / 2u))}});              \
        else                                                                                                           \
            vec_set(v, i, i->reg, x_##name(b));                                                                        \
        NEXT_MEM(v, i);                                                                                                \
    }
EXTENSIONS(EXTENSION)

/* ---- single elements ---- */

static uint64_t element(SIMD x, unsigned n, unsigned size)
{
    uint64_t e = 0;
    memcpy(&e, &x.b[(n * size) & 15], size);
    return e;
}

static void extract(struct vcpu *v, const struct insn *i)
{
    vec_need(v, i);
    uint64_t e = element(xmm_get(v, i->reg), (unsigned)i->imm, i->srcsize);
    if (i->flags & INSN_RM_REG)
        v->gpr[i->rm] = e;
    else
        lin_store(v, i, insn_linear(v, i, i->srcsize, 1), e, i->srcsize);
    NEXT_MEM(v, i);
}

static void insert(struct vcpu *v, const struct insn *i)
{
    vec_need(v, i);
    uint64_t e = i->flags & INSN_RM_REG ? v->gpr[i->rm] : lin_load(v, i, insn_linear(v, i, i->srcsize, 0), i->srcsize);
    SIMD a = vec_first(v, i);
    memcpy(&a.b[(i->imm * i->srcsize) & 15], &e, i->srcsize);
    vec_set(v, i, i->reg, a);
    NEXT_MEM(v, i);
}

static void insertps(struct vcpu *v, const struct insn *i)
{
    vec_need(v, i);
    bool reg = i->flags & INSN_RM_REG;
    SIMD b = reg ? xmm_get(v, i->rm) : vec_load_part(v, i, 4), a = vec_first(v, i);
    a.d[i->imm >> 4 & 3] = b.d[reg ? i->imm >> 6 & 3 : 0];
    for (unsigned k = 0; k < 4; k++)
        if (i->imm >> k & 1)
            a.d[k] = 0;
    vec_set(v, i, i->reg, a);
    NEXT_MEM(v, i);
}

/* ---- PTEST: ZF if a and b have no bit in common, CF if b has none that a lacks ---- */

static void test_done(struct vcpu *v, uint64_t both, uint64_t alone)
{
    flags_set_image(v, (both ? 0 : FLAG_ZF) | (alone ? 0 : FLAG_CF));
}

static void ptest(struct vcpu *v, const struct insn *i)
{
    vec_need(v, i);
    SIMD b = vec_source(v, i), a = xmm_get(v, i->reg);
    test_done(v, (a.q[0] & b.q[0]) | (a.q[1] & b.q[1]), (~a.q[0] & b.q[0]) | (~a.q[1] & b.q[1]));
    NEXT_MEM(v, i);
}

static void movntdqa(struct vcpu *v, const struct insn *i)
{
    sse_need(v, i);
    xmm_set(v, i->reg, sse_load16(v, i));
    NEXT_MEM(v, i);
}

/* ---- CRC32: polynomial 11EDC6F41H, bits reflected ---- */

/* A nibble at a time. */
static uint32_t crc32c(uint32_t crc, uint64_t data, unsigned size)
{
    static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    for (; size; size--, data >>= 8) {
        crc ^= (uint8_t)data;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

static void op_crc32(struct vcpu *v, const struct insn *i)
{
    uint64_t data = insn_source(v, i, i->srcsize);
    v->gpr[i->reg] = crc32c((uint32_t)v->gpr[i->reg], data, i->srcsize);
    NEXT_MEM(v, i);
}

/* ---- binding ---- */

#define BOTH(name)                                                                                                     \
    case OP_##name:                                                                                                    \
    case OP_V##name

op_fn *bind_sse4(const struct insn *i)
{
    switch (i->op) {
#define EXTENSION_CASE(name) BOTH(name) : return name;
        EXTENSIONS(EXTENSION_CASE)
        BOTH(PEXTRB) : BOTH(PEXTRD) : BOTH(PEXTRQ) : BOTH(EXTRACTPS) : return extract;
        BOTH(PEXTRW) : return i->enc == ENC_MRI ? extract : NULL;
        BOTH(PINSRB) : BOTH(PINSRD) : BOTH(PINSRQ) : return insert;
        BOTH(INSERTPS) : return insertps;
    case OP_VPINSRW:
        return insert;
    case OP_PTEST:
        return ptest;
    case OP_MOVNTDQA:
        return movntdqa;
    case OP_CRC32:
        return op_crc32;
    default:
        return NULL;
    }
}
