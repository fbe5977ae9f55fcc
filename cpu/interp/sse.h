/*
 * What the files of MMX and SSE instructions share: vectors as values, who may execute, memory operands of 16 bytes,
 * and the shapes of handlers.
 *
 * Integer operations are written once for both vector sizes (simd_tmpl.h) in plain C. Floating point is in sse_float.c.
 */
#ifndef CPU_INTERP_SSE_H
#define CPU_INTERP_SSE_H

#include "cpu/interp/integer.h"
#include "cpu/interp/x87.h"

union simd8 {
    int64_t sq[1];
    uint64_t q[1];
    uint32_t d[2];
    uint16_t w[4];
    uint8_t b[8];
    int32_t sd[2];
    int16_t sw[4];
    int8_t sb[8];
};

union simd16 {
    int64_t sq[2];
    uint64_t q[2];
    uint32_t d[4];
    uint16_t w[8];
    uint8_t b[16];
    int32_t sd[4];
    int16_t sw[8];
    int8_t sb[16];
};

static inline int saturate_s8(int x)
{
    return x > 127 ? 127 : x < -128 ? -128 : x;
}
static inline int saturate_u8(int x)
{
    return x > 255 ? 255 : x < 0 ? 0 : x;
}
static inline int saturate_s16(int x)
{
    return x > 32767 ? 32767 : x < -32768 ? -32768 : x;
}
static inline int saturate_u16(int x)
{
    return x > 65535 ? 65535 : x < 0 ? 0 : x;
}

/* The sign bits of eight bytes, in the order of the bytes. */
static inline unsigned byte_signs(uint64_t q)
{
    return (unsigned)((q >> 7 & 0x0101010101010101) * 0x0102040810204080 >> 56);
}

/* ---- who may execute ---- */

/* #UD by CR0.EM or without CR4.OSFXSR, #NM by CR0.TS (sse.c). */
_Noreturn void sse_unavailable(struct vcpu *v, const struct insn *i);

static inline void sse_need(struct vcpu *v, const struct insn *i)
{
    if (unlikely(((unsigned)v->cr0 & (CR0_EM | CR0_TS)) | (~(unsigned)v->cr4 & CR4_OSFXSR)))
        sse_unavailable(v, i);
}

/* ---- operands ---- */

static inline union simd16 xmm_get(const struct vcpu *v, unsigned n)
{
    union simd16 x;
    memcpy(&x, v->xmm[n].q, sizeof x);
    return x;
}
static inline void xmm_set(struct vcpu *v, unsigned n, union simd16 x)
{
    memcpy(v->xmm[n].q, &x, sizeof x);
}

/* Any length up to a page. */
static inline void sse_read(struct vcpu *v, const struct insn *i, uint64_t lin, void *buf, unsigned size)
{
    const void *p = tlb_lookup_read(v->mv, lin, size);
    if (likely(p))
        memcpy(buf, p, size);
    else
        lin_read_bytes(v, i, lin, buf, size);
}
static inline void sse_write(struct vcpu *v, const struct insn *i, uint64_t lin, const void *buf, unsigned size)
{
    void *p = tlb_lookup_write(v->mv, lin, size);
    if (likely(p))
        memcpy(p, buf, size);
    else
        lin_write_bytes(v, i, lin, buf, size);
}

/* Linear address of a memory operand that must be aligned to align + 1 bytes. */
static inline uint64_t sse_linear(struct vcpu *v, const struct insn *i, unsigned size, unsigned align, unsigned write)
{
    uint64_t lin = insn_linear(v, i, size, write);
    if (unlikely(lin & align))
        vcpu_raise_error(v, i, EXC_GP, 0);
    return lin;
}

/* The source operand of exception types 2 and 4: 16 bytes, aligned. */
static inline union simd16 sse_load16(struct vcpu *v, const struct insn *i)
{
    union simd16 x;
    sse_read(v, i, sse_linear(v, i, 16, 15, 0), &x, sizeof x);
    return x;
}

/* MASKMOVDQU, MASKMOVQ: byte k goes to seg:[rDI + k] if bit k of mask is set (sse.c). */
void sse_store_masked(struct vcpu *v, const struct insn *i, const uint8_t *bytes, unsigned size, unsigned mask);

/*
 * Handlers of moves, in the variants of ea_kind(). `align` is 15 or 0. The operand lives in a block of its own, so
 * that it is gone at the end and going on is a tail call.
 *   SSE_LOADS(name, type, align, body)    the memory operand is in `m`
 *   SSE_STORES(name, type, align, value)
 */
#define SSE_LOAD_FAST(name, type, align, K, ...)                                                                       \
    static void name##_##K(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        uint64_t lin = ea_linear_##K(v, i);                                                                            \
        const void *p = tlb_lookup_read(v->mv, lin, sizeof(type));                                                     \
        type m;                                                                                                        \
        if (unlikely(!p || lin & (align)))                                                                             \
            return name##_G(v, i);                                                                                     \
        memcpy(&m, p, sizeof m);                                                                                       \
        __VA_ARGS__;                                                                                                   \
        NEXT(v, i);                                                                                                    \
    }
#define SSE_LOADS(name, type, align, ...)                                                                              \
    slow_path void name##_G(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        {                                                                                                              \
            type m;                                                                                                    \
            sse_read(v, i, sse_linear(v, i, sizeof m, align, 0), &m, sizeof m);                                        \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    SSE_LOAD_FAST(name, type, align, B, __VA_ARGS__)                                                                   \
    SSE_LOAD_FAST(name, type, align, X, __VA_ARGS__)

#define SSE_STORE_FAST(name, type, align, K, ...)                                                                      \
    static void name##_##K(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        uint64_t lin = ea_linear_##K(v, i);                                                                            \
        void *p = tlb_lookup_write(v->mv, lin, sizeof(type));                                                          \
        if (unlikely(!p || lin & (align)))                                                                             \
            return name##_G(v, i);                                                                                     \
        type m = __VA_ARGS__;                                                                                          \
        memcpy(p, &m, sizeof m);                                                                                       \
        NEXT(v, i);                                                                                                    \
    }
#define SSE_STORES(name, type, align, ...)                                                                             \
    slow_path void name##_G(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        {                                                                                                              \
            uint64_t lin = sse_linear(v, i, sizeof(type), align, 1);                                                   \
            type m = __VA_ARGS__;                                                                                      \
            sse_write(v, i, lin, &m, sizeof m);                                                                        \
        }                                                                                                              \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    SSE_STORE_FAST(name, type, align, B, __VA_ARGS__)                                                                  \
    SSE_STORE_FAST(name, type, align, X, __VA_ARGS__)

#define SSE_REG(name, ...)                                                                                             \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        sse_need(v, i);                                                                                                \
        __VA_ARGS__;                                                                                                   \
        NEXT(v, i);                                                                                                    \
    }

/* ---- parts of bind_sse(), one a file; NULL for what is not theirs ---- */
op_fn *bind_mmx(const struct insn *i);
op_fn *bind_sse_move(const struct insn *i, enum ea_kind k);
op_fn *bind_sse_int(const struct insn *i);
op_fn *bind_sse_float(const struct insn *i);
op_fn *bind_sse_convert(const struct insn *i);

#endif
