/*
 * What every handler of the interpreter uses: operands, memory, faults, and the way to the next instruction.
 *
 * A handler executes one instruction of a block and goes on with NEXT (or NEXT_MEM if it touched memory), or, if it
 * ends the block (INSN_ENDS), with one of the END macros. Contract: it either retires or leaves no trace, so everything
 * that can fault comes before the first change of state; helpers that fault do not return (vcpu_raise() leaves by
 * longjmp to the run loop).
 *
 * Handlers are chosen at decode time (bind_*): sizes and operand forms are known then, so that a handler has no
 * decisions left.
 */
#ifndef CPU_INTERP_INTERP_H
#define CPU_INTERP_INTERP_H

#include "cpu/cpu.h"
#include "cpu/flags.h"
#include "cpu/insn.h"

#include <string.h>

/* The end of a block whose last instruction does not end it by itself; also where NEXT_MEM goes when attention is
 * wanted. */
void op_stop_after(struct vcpu *v, const struct insn *i);

#define NEXT(v, i) return (i)[1].fn((v), (i) + 1)
#define NEXT_MEM(v, i)                                                                                                 \
    do {                                                                                                               \
        if (unlikely((v)->attn))                                                                                       \
            return op_stop_after((v), (i));                                                                            \
        return (i)[1].fn((v), (i) + 1);                                                                                \
    } while (0)

/* ---- position ---- */

/* rip of this instruction, and of the next. */
static inline uint64_t insn_rip(const struct vcpu *v, const struct insn *i)
{
    return v->gpr[REG_IP] + i->off;
}
static inline uint64_t insn_next_rip(const struct vcpu *v, const struct insn *i)
{
    return v->gpr[REG_IP] + i->off + i->len;
}

/* Makes the clock exact: all instructions before this one are counted. Before anything that can look at the clock. */
static inline void vcpu_sync(struct vcpu *v, const struct insn *i)
{
    clock_retire(v->clock, i->idx - v->synced);
    v->synced = i->idx;
}

/* Retires this instruction and leaves the block; rip is where execution goes on. slot: 0 fall through, 1 taken, 2
 * unknown. */
static inline void block_end(struct vcpu *v, const struct insn *i, uint64_t rip, unsigned slot)
{
    clock_retire(v->clock, i->idx + 1u - v->synced);
    v->synced = 0;
    v->rip = rip;
    v->exit_slot = slot;
}
/* As block_end for an instruction that counted `n` units itself (REP iterations). */
static inline void block_end_counted(struct vcpu *v, const struct insn *i, uint64_t rip, uint64_t n)
{
    clock_retire(v->clock, i->idx - v->synced + n);
    v->synced = 0;
    v->rip = rip;
    v->exit_slot = 2;
}

/* ---- faults (cpu/exception.c) ---- */
_Noreturn void vcpu_raise(struct vcpu *v, const struct insn *i, enum exception vector); /* no error code */
_Noreturn void vcpu_raise_error(struct vcpu *v, const struct insn *i, enum exception vector, uint32_t error);
/* Leaves the instruction undone; it runs again after the next interrupt. */
_Noreturn void vcpu_freeze(struct vcpu *v, const struct insn *i);
_Noreturn void vcpu_raise_pf(struct vcpu *v, const struct insn *i, uint64_t cr2, uint32_t error);

/* ---- registers ---- */
static inline uint8_t reg_get8(const struct vcpu *v, unsigned r)
{
    return r & BYTE_HIGH ? (uint8_t)(v->gpr[r & 3] >> 8) : (uint8_t)v->gpr[r];
}
static inline void reg_set8(struct vcpu *v, unsigned r, uint8_t x)
{
    if (r & BYTE_HIGH)
        v->gpr[r & 3] = (v->gpr[r & 3] & ~0xff00ull) | (uint64_t)x << 8;
    else
        v->gpr[r] = (v->gpr[r] & ~0xffull) | x;
}
static inline void reg_set16(struct vcpu *v, unsigned r, uint16_t x)
{
    v->gpr[r] = (v->gpr[r] & ~0xffffull) | x;
}
static inline void reg_set32(struct vcpu *v, unsigned r, uint32_t x)
{
    v->gpr[r] = x;
}
static inline void reg_set64(struct vcpu *v, unsigned r, uint64_t x)
{
    v->gpr[r] = x;
}
/* By operand size in bytes; 32-bit writes zero-extend. */
static inline uint64_t reg_get(const struct vcpu *v, unsigned r, unsigned size)
{
    return size == 1 ? reg_get8(v, r) : size == 2 ? (uint16_t)v->gpr[r] : size == 4 ? (uint32_t)v->gpr[r] : v->gpr[r];
}
static inline void reg_set(struct vcpu *v, unsigned r, unsigned size, uint64_t x)
{
    if (size == 1)
        reg_set8(v, r, (uint8_t)x);
    else if (size == 2)
        reg_set16(v, r, (uint16_t)x);
    else
        v->gpr[r] = size == 4 ? (uint32_t)x : x;
}

/* ---- memory (slow paths in cpu/interp/mem.c) ---- */

/* Checks segment type and limit for [off, off+size) and returns the linear address, or raises #GP/#SS. write: 0 read, 1
 * write. */
uint64_t seg_linear_checked(struct vcpu *v, const struct insn *i, unsigned seg, uint64_t off, unsigned size,
                            unsigned write);

/* Offset part of the memory operand (LEA). */
static inline uint64_t insn_offset(const struct vcpu *v, const struct insn *i)
{
    if (unlikely(i->flags & INSN_DISP64))
        return i->adsize == 8 ? i->imm : i->adsize == 4 ? (uint32_t)i->imm : (uint16_t)i->imm;
    uint64_t ea = v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (uint64_t)(int64_t)i->disp;
    if (likely(i->adsize == 8))
        return ea;
    return i->adsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

/* Linear address of the memory operand of `size` bytes. */
static inline uint64_t insn_linear(struct vcpu *v, const struct insn *i, unsigned size, unsigned write)
{
    uint64_t off = insn_offset(v, i);
    if (unlikely(i->flags & INSN_SEGCHK))
        return seg_linear_checked(v, i, i->seg, off, size, write);
    uint64_t lin = off + v->seg_base[i->seg];
    return likely(v->mode & MODE_CODE64) ? lin : (uint32_t)lin;
}

/* Slow paths: page crossing, TLB miss, devices, tracked writes, faults. They set ATTN_BOUNDARY where the boundary rule
 * asks for it. */
uint64_t lin_load_slow(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size);
void lin_store_slow(struct vcpu *v, const struct insn *i, uint64_t lin, uint64_t value, unsigned size);
/* Any length; the whole range is translated before the first byte moves. */
void lin_read_bytes(struct vcpu *v, const struct insn *i, uint64_t lin, void *buf, unsigned len);
void lin_write_bytes(struct vcpu *v, const struct insn *i, uint64_t lin, const void *buf, unsigned len);
/* Raises the fault that a write (read) of the range would raise, has A/D set, moves nothing. */
void lin_probe_write(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len);
void lin_probe_read(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len);
/* Implicit supervisor accesses (descriptor tables, TSS, IDT): whatever CPL is. */
uint64_t lin_load_sys(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size);
void lin_store_sys(struct vcpu *v, const struct insn *i, uint64_t lin, uint64_t value, unsigned size);
void lin_probe_sys(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len, bool write);

#define MEM_ACCESSORS(bits)                                                                                            \
    static inline uint##bits##_t lin_load##bits(struct vcpu *v, const struct insn *i, uint64_t lin)                    \
    {                                                                                                                  \
        const void *p = tlb_lookup_read(v->mv, lin, bits / 8);                                                         \
        uint##bits##_t x;                                                                                              \
        if (unlikely(!p))                                                                                              \
            return (uint##bits##_t)lin_load_slow(v, i, lin, bits / 8);                                                 \
        memcpy(&x, p, sizeof x);                                                                                       \
        return x;                                                                                                      \
    }                                                                                                                  \
    static inline void lin_store##bits(struct vcpu *v, const struct insn *i, uint64_t lin, uint##bits##_t x)           \
    {                                                                                                                  \
        void *p = tlb_lookup_write(v->mv, lin, bits / 8);                                                              \
        if (unlikely(!p))                                                                                              \
            lin_store_slow(v, i, lin, x, bits / 8);                                                                    \
        else                                                                                                           \
            memcpy(p, &x, sizeof x);                                                                                   \
    }
MEM_ACCESSORS(8)
MEM_ACCESSORS(16)
MEM_ACCESSORS(32)
MEM_ACCESSORS(64)
#undef MEM_ACCESSORS

/* By size, for handlers that are not specialised. */
static inline uint64_t lin_load(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size)
{
    return size == 1   ? lin_load8(v, i, lin)
           : size == 2 ? lin_load16(v, i, lin)
           : size == 4 ? lin_load32(v, i, lin)
                       : lin_load64(v, i, lin);
}
static inline void lin_store(struct vcpu *v, const struct insn *i, uint64_t lin, uint64_t x, unsigned size)
{
    if (size == 1)
        lin_store8(v, i, lin, (uint8_t)x);
    else if (size == 2)
        lin_store16(v, i, lin, (uint16_t)x);
    else if (size == 4)
        lin_store32(v, i, lin, (uint32_t)x);
    else
        lin_store64(v, i, lin, x);
}
/*
 * Read-modify-write: lin_rmw_load raises the *write's* fault (hardware checks the write first) and returns the old
 * value; then lin_store of the same address and size cannot fault.
 */
static inline uint64_t lin_rmw_load(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size)
{
    if (unlikely(!tlb_lookup_write(v->mv, lin, size)))
        lin_probe_write(v, i, lin, size);
    return lin_load(v, i, lin, size);
}

/* ---- stack ---- */
/* Pushes and pops by operand size; address size is 64 in 64-bit mode, else SS.B. RSP changes only after the access
 * succeeded. */
void stack_push(struct vcpu *v, const struct insn *i, uint64_t value, unsigned size);
uint64_t stack_pop(struct vcpu *v, const struct insn *i, unsigned size);
/* Reads the value at RSP + offset without popping; adjusts RSP. For instructions that pop several things and may fault
 * in between. */
uint64_t stack_peek(struct vcpu *v, const struct insn *i, unsigned offset, unsigned size);
void stack_adjust(struct vcpu *v, int64_t bytes);

/* ---- choosing handlers ---- */
/* Each returns NULL for what is not its own. The order is that of bind.c. */
op_fn *bind_integer(const struct insn *i, unsigned mode);
op_fn *bind_string(const struct insn *i, unsigned mode);
op_fn *bind_control(const struct insn *i, unsigned mode); /* near branches, calls, returns, stack frames */
op_fn *bind_system(const struct insn *i,
                   unsigned mode); /* far transfers, segments, control registers, MSRs, I/O, CPUID, ... */
op_fn *bind_x87(const struct insn *i, unsigned mode);
op_fn *bind_sse(const struct insn *i, unsigned mode);
/* Never NULL: what nothing implements is named on LOG_UNIMP and raises #UD. */
op_fn *interp_bind(const struct insn *i, unsigned mode);
/* The flags after a division: CF and OF stay. */
void interp_div_flags(struct vcpu *v);
/* False for what interp_bind() leaves to the report. */
bool interp_implements(const struct insn *i, unsigned mode);

/* ---- system helpers that several files share (cpu/exception.c, cpu/segment.c) ---- */
/* Delivers an event at a boundary; may raise further faults by nesting rules; sets VCPU_SHUTDOWN on a triple fault.
 * Counts 1. */
enum event_kind { EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_SOFT, EVENT_ICEBP };
void vcpu_deliver(struct vcpu *v, enum event_kind kind, uint8_t vector, bool has_error, uint32_t error);
/* Turns v->fault (set by vcpu_raise) into a delivery, with double-fault rules. v->rip is that of the faulting
 * instruction. */
void vcpu_deliver_fault(struct vcpu *v);
/* Device port access with the TSS permission bitmap already checked. */
bool vcpu_io_allowed(struct vcpu *v, const struct insn *i, unsigned port, unsigned size);
/* Any change of control registers, segments, CPL, efer: recomputes mode, MMU registers. */
void vcpu_mode_changed(struct vcpu *v);

#endif
