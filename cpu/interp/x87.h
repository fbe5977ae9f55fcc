/*
 * What the files of x87, MMX and state-saving instructions share: who may execute, the register stack, the status word.
 *
 * The register stack is v->fpu: st[] are the physical registers R0..R7, ST(n) is R(top + n). `tag` has a bit for each
 * register that is not empty; FXSAVE stores it as it is, FNSTENV derives the two-bit tags from the contents. `fsw`
 * holds no TOP; its ES and B bits are kept exact by x87_update_summary() whenever flags or masks change.
 */
#ifndef CPU_INTERP_X87_H
#define CPU_INTERP_X87_H

#include "cpu/interp/interp.h"
#include "cpu/optable.h"

#define FSW_IE  0x0001u
#define FSW_DE  0x0002u
#define FSW_ZE  0x0004u
#define FSW_OE  0x0008u
#define FSW_UE  0x0010u
#define FSW_PE  0x0020u
#define FSW_EXC 0x003fu
#define FSW_SF  0x0040u
#define FSW_ES  0x0080u
#define FSW_C0  0x0100u
#define FSW_C1  0x0200u
#define FSW_C2  0x0400u
#define FSW_TOP 0x3800u
#define FSW_C3  0x4000u
#define FSW_B   0x8000u
#define FSW_CC  (FSW_C0 | FSW_C1 | FSW_C2 | FSW_C3)

#define FCW_INIT    0x037fu
#define FCW_DEFINED 0x1f3fu
#define FCW_ONE     0x0040u /* reads as 1 */

#define MXCSR_INIT 0x1f80u
#define MXCSR_MASK 0xffffu /* bits that are not reserved */

/* ---- who may execute ---- */

/* x87, FXSAVE, FXRSTOR: #NM by CR0.EM and CR0.TS. */
static inline void x87_need(struct vcpu *v, const struct insn *i)
{
    if (unlikely(v->cr0 & (CR0_EM | CR0_TS)))
        vcpu_raise(v, i, EXC_NM);
}

/* A pending unmasked exception, met by a waiting instruction (x87_control.c). Returns if it is to be ignored. */
void x87_pending(struct vcpu *v, const struct insn *i);

static inline void x87_wait(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    if (unlikely(v->fpu.fsw & FSW_ES))
        x87_pending(v, i);
}

/* MMX: #UD by CR0.EM, #NM by CR0.TS, then a pending x87 exception. */
static inline void mmx_need(struct vcpu *v, const struct insn *i)
{
    if (unlikely(v->cr0 & (CR0_EM | CR0_TS)))
        vcpu_raise(v, i, v->cr0 & CR0_EM ? EXC_UD : EXC_NM);
    if (unlikely(v->fpu.fsw & FSW_ES))
        x87_pending(v, i);
}

/* ---- status and control ---- */

/* ES and B follow from flags and masks. */
static inline void x87_update_summary(struct x87 *f)
{
    f->fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    if (f->fsw & ~f->fcw & FSW_EXC)
        f->fsw |= FSW_ES | FSW_B;
    else
        f->ignored = false;
}

static inline uint16_t x87_status(const struct x87 *f)
{
    return (uint16_t)(f->fsw | f->top << 11);
}

static inline void x87_set_status(struct x87 *f, uint16_t fsw)
{
    f->fsw = fsw & (uint16_t)~FSW_TOP;
    f->top = fsw >> 11 & 7;
}

static inline void x87_set_control(struct x87 *f, uint16_t fcw)
{
    f->fcw = (uint16_t)((fcw & FCW_DEFINED) | FCW_ONE);
}

/* FNINIT; the registers keep their contents. */
void x87_init(struct x87 *f);

/* The two-bit tags as FNSTENV stores them, and back. */
uint16_t x87_full_tags(const struct x87 *f);
uint8_t x87_abridge_tags(uint16_t tags);

/* Executing an MMX instruction (other than EMMS) makes R0 the top and all registers valid. */
static inline void mmx_enter(struct vcpu *v)
{
    v->fpu.top = 0;
    v->fpu.tag = 0xff;
}

static inline void mmx_set(struct vcpu *v, unsigned n, uint64_t x)
{
    v->fpu.st[n].mant = x;
    v->fpu.st[n].exp = 0xffff;
}

/* ---- the register stack ---- */

/* A value of the stack, in the layout of the ten bytes in memory. */
struct f80 {
    uint64_t mant;
    uint16_t exp; /* sign and exponent */
};

/* What masked invalid operations give. */
#define F80_INDEFINITE ((struct f80){0xc000000000000000, 0xffff})

/* Physical number of ST(n). */
static inline unsigned x87_reg(const struct x87 *f, unsigned n)
{
    return (f->top + n) & 7;
}
static inline bool x87_is_empty(const struct x87 *f, unsigned n)
{
    return !(f->tag >> x87_reg(f, n) & 1);
}
static inline struct f80 x87_get(const struct x87 *f, unsigned n)
{
    unsigned r = x87_reg(f, n);
    return (struct f80){f->st[r].mant, f->st[r].exp};
}
static inline void x87_set(struct x87 *f, unsigned n, struct f80 x)
{
    unsigned r = x87_reg(f, n);
    f->st[r].mant = x.mant;
    f->st[r].exp = x.exp;
    f->tag |= (uint8_t)(1u << r);
}
static inline void x87_pop(struct x87 *f)
{
    f->tag &= (uint8_t) ~(1u << f->top);
    f->top = (f->top + 1) & 7;
}
static inline void x87_push(struct x87 *f, struct f80 x)
{
    f->top = (f->top - 1) & 7;
    x87_set(f, 0, x);
}

static inline void x87_set_cc(struct x87 *f, unsigned mask, unsigned value)
{
    f->fsw = (uint16_t)((f->fsw & ~mask) | (value & mask));
}

/*
 * Takes over the exceptions among `flags`, and clears C1. True if one that is found before computing is unmasked: then
 * nothing found by computing is reported, and operands stay as they are.
 */
static inline bool x87_report(struct x87 *f, unsigned flags)
{
    const unsigned pre = FSW_IE | FSW_DE | FSW_ZE;
    bool stop = flags & ~f->fcw & pre;
    x87_set_cc(f, FSW_C1, 0);
    f->fsw |= (uint16_t)(flags & (stop ? pre | FSW_SF : FSW_EXC | FSW_SF));
    x87_update_summary(f);
    return stop;
}

/* Stack underflow and overflow. True if the exception is unmasked: nothing else changes. */
static inline bool x87_underflow(struct x87 *f)
{
    return x87_report(f, FSW_IE | FSW_SF);
}
static inline bool x87_overflow(struct x87 *f)
{
    bool stop = x87_report(f, FSW_IE | FSW_SF);
    x87_set_cc(f, FSW_C1, FSW_C1);
    return stop;
}

/* Instruction and data pointers, opcode: of every instruction that is not a control instruction (x87_control.c). After
 * the access to memory. */
void x87_note(struct vcpu *v, const struct insn *i);

/* ---- parts of bind_x87() and bind_sse(), one a file; NULL for what is not theirs ---- */
op_fn *bind_x87_control(const struct insn *i);
op_fn *bind_x87_move(const struct insn *i);
op_fn *bind_x87_arith(const struct insn *i);
op_fn *bind_x87_compare(const struct insn *i);
op_fn *bind_x87_function(const struct insn *i);
op_fn *bind_xsave(const struct insn *i);

#endif
