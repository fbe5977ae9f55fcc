/*
 * What the files of integer instructions share: fast addressing, and the shapes of handlers that touch memory.
 *
 * A handler with a memory operand comes in up to three variants, chosen by ea_kind() when the instruction is bound:
 *   EA_B   64-bit code, [base + disp], no segment base, no checks
 *   EA_X   64-bit code, 64-bit addresses, any base, index and segment
 *   EA_G   everything else, and where the other two go on a TLB miss
 * A fast variant changes nothing before its TLB hit is certain, so going to the general one is a plain tail call. A TLB
 * hit reaches neither a device nor a listener, so it cannot ask for attention: fast variants end in NEXT, general ones
 * in NEXT_MEM.
 */
#ifndef CPU_INTERP_INTEGER_H
#define CPU_INTERP_INTEGER_H

#include "cpu/interp/interp.h"
#include "cpu/optable.h"

#define always_inline static inline __attribute__((always_inline))
/* Out of the way of the fast handlers. */
#define slow_path     static __attribute__((noinline))

enum ea_kind { EA_B, EA_X, EA_G, EA_KINDS };

always_inline uint64_t ea_linear_B(const struct vcpu *v, const struct insn *i)
{
    return v->gpr[i->base] + (uint64_t)(int64_t)i->disp;
}

always_inline uint64_t ea_linear_X(const struct vcpu *v, const struct insn *i)
{
    return v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (uint64_t)(int64_t)i->disp + v->seg_base[i->seg];
}

static inline enum ea_kind ea_kind(const struct insn *i, unsigned mode)
{
    if (!(mode & MODE_CODE64) || i->adsize != 8 || i->flags & (INSN_SEGCHK | INSN_DISP64))
        return EA_G;
    return i->index == REG_ZERO && i->seg == SEG_NONE ? EA_B : EA_X;
}

/* An offset within the address size. */
static inline uint64_t wrap_offset(uint64_t off, unsigned adsize)
{
    return adsize == 8 ? off : adsize == 4 ? (uint32_t)off : (uint16_t)off;
}

/* Linear address of seg:off (off already wrapped), checked as insn_linear() does. */
static inline uint64_t linear_of(struct vcpu *v, const struct insn *i, unsigned seg, uint64_t off, unsigned size,
                                 unsigned write)
{
    if (unlikely(i->flags & INSN_SEGCHK))
        return seg_linear_checked(v, i, seg, off, size, write);
    uint64_t lin = off + v->seg_base[seg];
    return likely(v->mode & MODE_CODE64) ? lin : (uint32_t)lin;
}

/* The rm operand, register or memory, for handlers that are not worth specialising. */
static inline uint64_t insn_source(struct vcpu *v, const struct insn *i, unsigned size)
{
    if (i->flags & INSN_RM_REG)
        return reg_get(v, i->rm, size);
    return lin_load(v, i, insn_linear(v, i, size, 0), size);
}

/*
 * HANDLERS_LOAD(name, type, body): name_B, name_X, name_G, which execute `body` with the memory operand in `m`.
 * HANDLERS_STORE(name, type, value): store `value`.
 * HANDLERS_RMW(name, type, body): `body` finds the old value in `m` and leaves the new one there.
 */
#define HANDLER_LOAD_FAST(name, type, K, ...)                                                                          \
    static void name##_##K(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        const void *p = tlb_lookup_read(v->mv, ea_linear_##K(v, i), sizeof(type));                                     \
        type m;                                                                                                        \
        if (unlikely(!p))                                                                                              \
            return name##_G(v, i);                                                                                     \
        memcpy(&m, p, sizeof m);                                                                                       \
        __VA_ARGS__;                                                                                                   \
        NEXT(v, i);                                                                                                    \
    }
#define HANDLERS_LOAD(name, type, ...)                                                                                 \
    slow_path void name##_G(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        uint64_t lin = insn_linear(v, i, sizeof(type), 0);                                                             \
        type m = (type)lin_load(v, i, lin, sizeof(type));                                                              \
        __VA_ARGS__;                                                                                                   \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    HANDLER_LOAD_FAST(name, type, B, __VA_ARGS__)                                                                      \
    HANDLER_LOAD_FAST(name, type, X, __VA_ARGS__)

#define HANDLER_STORE_FAST(name, type, K, ...)                                                                         \
    static void name##_##K(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        void *p = tlb_lookup_write(v->mv, ea_linear_##K(v, i), sizeof(type));                                          \
        type m;                                                                                                        \
        if (unlikely(!p))                                                                                              \
            return name##_G(v, i);                                                                                     \
        m = (type)(__VA_ARGS__);                                                                                       \
        memcpy(p, &m, sizeof m);                                                                                       \
        NEXT(v, i);                                                                                                    \
    }
#define HANDLERS_STORE(name, type, ...)                                                                                \
    slow_path void name##_G(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        uint64_t lin = insn_linear(v, i, sizeof(type), 1);                                                             \
        lin_store(v, i, lin, (type)(__VA_ARGS__), sizeof(type));                                                       \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    HANDLER_STORE_FAST(name, type, B, __VA_ARGS__)                                                                     \
    HANDLER_STORE_FAST(name, type, X, __VA_ARGS__)

#define HANDLER_RMW_FAST(name, type, K, ...)                                                                           \
    static void name##_##K(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        void *p = tlb_lookup_write(v->mv, ea_linear_##K(v, i), sizeof(type));                                          \
        type m;                                                                                                        \
        if (unlikely(!p))                                                                                              \
            return name##_G(v, i);                                                                                     \
        memcpy(&m, p, sizeof m);                                                                                       \
        __VA_ARGS__;                                                                                                   \
        memcpy(p, &m, sizeof m);                                                                                       \
        NEXT(v, i);                                                                                                    \
    }
#define HANDLERS_RMW(name, type, ...)                                                                                  \
    slow_path void name##_G(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        uint64_t lin = insn_linear(v, i, sizeof(type), 1);                                                             \
        type m = (type)lin_rmw_load(v, i, lin, sizeof(type));                                                          \
        __VA_ARGS__;                                                                                                   \
        lin_store(v, i, lin, m, sizeof(type));                                                                         \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    HANDLER_RMW_FAST(name, type, B, __VA_ARGS__)                                                                       \
    HANDLER_RMW_FAST(name, type, X, __VA_ARGS__)

#define HANDLER_REG(name, ...)                                                                                         \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        NEXT(v, i);                                                                                                    \
    }

/* Initialiser of an op_fn *[EA_KINDS]. */
#define EA_TABLE(name)                                                                                                 \
    {                                                                                                                  \
        name##_B, name##_X, name##_G                                                                                   \
    }

/* All conditions. */
#define CONDITIONS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

/* Parts of bind_integer(), one a file; NULL for what is not theirs. */
op_fn *bind_alu8(const struct insn *i, enum ea_kind k);
op_fn *bind_alu8h(const struct insn *i, enum ea_kind k); /* a byte register operand may be AH, CH, DH or BH */
op_fn *bind_alu16(const struct insn *i, enum ea_kind k);
op_fn *bind_alu32(const struct insn *i, enum ea_kind k);
op_fn *bind_alu64(const struct insn *i, enum ea_kind k);
op_fn *bind_shift(const struct insn *i);
op_fn *bind_move(const struct insn *i, enum ea_kind k);
op_fn *bind_muldiv(const struct insn *i, enum ea_kind k);
op_fn *bind_bits(const struct insn *i);
op_fn *bind_exchange(const struct insn *i, enum ea_kind k);
op_fn *bind_bcd(const struct insn *i);
op_fn *bind_flag(const struct insn *i);

#endif
