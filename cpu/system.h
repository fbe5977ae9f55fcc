/*
 * Inside the cpu floor: what the system part's files (exception, segment, far transfers, control registers, MSRs,
 * CPUID) share, and what the run loop needs of them.
 *
 * Faults: every function here that takes an insn may raise (vcpu_raise() in interp.h). `i` is NULL at a boundary, that
 * is, while an event is being delivered; then the clock and rip are exact already and are left alone.
 *
 * Single step, for the run loop: while RFLAGS.TF is set it executes one instruction at a time. It sets
 * v->pending_single_step to TF's value before the instruction and calls vcpu_single_step_trap() if the flag is still
 * set after it retired: delivering an event (INT n, a fault) clears the flag, as the processor does.
 */
#ifndef CPU_SYSTEM_H
#define CPU_SYSTEM_H

#include "cpu/interp/interp.h"

/* Bits of struct segment.attr. */
#define ATTR_TYPE       0xfu
#define ATTR_ACCESSED   (1u << 0)
#define ATTR_RW         (1u << 1) /* data: writable; code: readable */
#define ATTR_DOWN       (1u << 2) /* data: expands down */
#define ATTR_CONFORMING (1u << 2)
#define ATTR_CODE       (1u << 3)
#define ATTR_S          (1u << 4)
#define ATTR_G          (1u << 15)
#define ATTR_DPL(attr)  ((attr) >> 5 & 3u)

/* Types of system descriptors (S = 0). */
enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS = 9,
    SYS_TSS_BUSY = 11,
    SYS_CALL = 12,
    SYS_INT = 14,
    SYS_TRAP = 15
};

static inline bool mode_is_long(const struct vcpu *v)
{
    return v->efer & EFER_LMA;
}
static inline bool mode_is_code64(const struct vcpu *v)
{
    return v->mode & MODE_CODE64;
}
/* Protected mode proper: PE and not virtual-8086. */
static inline bool mode_is_protected(const struct vcpu *v)
{
    return (v->cr0 & CR0_PE) && !(v->rflags & FLAG_VM);
}
static inline unsigned flags_iopl(const struct vcpu *v)
{
    return (unsigned)(v->rflags >> 12) & 3;
}
/* Canonical for the current number of linear-address bits (48, or 57 with CR4.LA57). */
static inline bool addr_is_canonical(const struct vcpu *v, uint64_t a)
{
    unsigned shift = v->cr4 & CR4_LA57 ? 7 : 16;
    return (uint64_t)((int64_t)(a << shift) >> shift) == a;
}

/* Canonical as registers that hold addresses check it (bases of segments and tables, MSRs): by what the processor has,
 * whatever CR4.LA57 says. */
bool base_is_canonical(const struct vcpu *v, uint64_t a);

/* ---- descriptors (cpu/segment.c) ---- */

struct descriptor {
    uint64_t raw;    /* the eight bytes */
    uint64_t linear; /* where it was read, to set its accessed or busy bit */
};

static inline unsigned desc_attr(uint64_t raw)
{
    return (unsigned)(raw >> 40) & 0xf0ffu;
}
static inline uint32_t desc_base(uint64_t raw)
{
    return (uint32_t)((raw >> 16 & 0xffffff) | (raw >> 56) << 24);
}
static inline uint32_t desc_limit(uint64_t raw)
{
    uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000));
    return raw >> 55 & 1 ? limit << 12 | 0xfff : limit;
}
static inline bool attr_is_code(unsigned attr)
{
    return (attr & (ATTR_S | ATTR_CODE)) == (ATTR_S | ATTR_CODE);
}
static inline bool attr_is_data(unsigned attr)
{
    return (attr & (ATTR_S | ATTR_CODE)) == ATTR_S;
}
static inline bool sel_is_null(uint16_t sel)
{
    return (sel & 0xfffc) == 0;
}

/* Reads the descriptor of `sel` from GDT or LDT; false if it lies outside the table. Page faults are raised. */
bool desc_try_read(struct vcpu *v, const struct insn *i, uint16_t sel, struct descriptor *d);
/* As above, raising `vector`(sel) when it lies outside. */
void desc_read(struct vcpu *v, const struct insn *i, uint16_t sel, enum exception vector, struct descriptor *d);
/* Upper half of a 16-byte system descriptor in long mode: base bits 63:32 in the low 32 bits. Raises vector(sel). */
uint64_t desc_read_high(struct vcpu *v, const struct insn *i, uint16_t sel, enum exception vector);
/* Sets the accessed bit in memory (if clear) and in d->raw. */
void desc_set_accessed(struct vcpu *v, const struct insn *i, struct descriptor *d);

/* Sets a segment's hidden part from a descriptor already checked. No memory access. */
void segment_set(struct vcpu *v, int seg, uint16_t sel, uint64_t raw);
/* The segment with a null selector: unusable. */
void segment_set_null(struct vcpu *v, int seg, uint16_t sel);
/* A flat segment, as SYSCALL and its kin load it. */
void segment_set_flat(struct vcpu *v, int seg, uint16_t sel, unsigned attr);
/* MOV, POP, LxS to ES, SS, DS, FS, GS in the current mode, with all checks. Calls mode_update(). */
void segment_load(struct vcpu *v, const struct insn *i, int seg, uint16_t sel);
/* Checks that `sel` is a stack segment for privilege level cpl; vector is EXC_GP (MOV SS, IRET, RETF) or EXC_TS (stack
 * from a TSS). Not present is #SS(sel) in both. Reads it into *d with its accessed bit set; commits nothing. */
void stack_segment_check(struct vcpu *v, const struct insn *i, uint16_t sel, unsigned cpl, enum exception vector,
                         struct descriptor *d);
/* Limit and type check alone: true if [off, off+size) of the segment may be read (written). */
bool segment_allows(const struct vcpu *v, int seg, uint64_t off, unsigned size, bool write);

void segment_lldt(struct vcpu *v, const struct insn *i, uint16_t sel);
void segment_ltr(struct vcpu *v, const struct insn *i, uint16_t sel);
/* LAR, LSL: false if the selector is not visible. */
bool segment_lar(struct vcpu *v, const struct insn *i, uint16_t sel, uint32_t *out);
bool segment_lsl(struct vcpu *v, const struct insn *i, uint16_t sel, uint32_t *out);
bool segment_verify(struct vcpu *v, const struct insn *i, uint16_t sel, bool write);

/* ---- mode (cpu/mode.c) ---- */

/* Recomputes the mode word, seg_base and the MMU's CPL after segments, CPL or EFLAGS.VM/AC changed. */
void mode_update(struct vcpu *v);
/* Hands control registers, EFER, PKRU, PDPTEs to the MMU. */
void mode_load_mmu(struct vcpu *v);
void mode_set_cpl(struct vcpu *v, unsigned cpl);

/* ---- stack frames of events and far transfers (cpu/frame.c) ---- */

/* A stack that something is pushed on, not necessarily the current one. */
struct frame_stack {
    struct segment ss; /* base, limit, attr used when not in long_addr */
    uint64_t rsp;
    bool long_addr;   /* 64-bit addressing: no base, no limit */
    unsigned cpl;     /* with whose rights */
    uint16_t err_sel; /* selector of #SS when there is no room; 0 for the current stack */
};
/* The current SS:RSP. */
void frame_stack_current(const struct vcpu *v, struct frame_stack *s);
/* Pushes val[0..n) of `size` bytes each, val[0] first. All of it is checked before the first byte is written; then
 * s->rsp has moved. n <= 36 */
void frame_push(struct vcpu *v, const struct insn *i, struct frame_stack *s, const uint64_t *val, unsigned n,
                unsigned size);
/* Reads the value `offset` bytes above the current top of stack. */
uint64_t frame_peek(struct vcpu *v, const struct insn *i, unsigned offset, unsigned size);
/* RSP as the stack width of SS has it: 64, 32 or 16 bits of it are replaced. */
void frame_set_rsp(struct vcpu *v, uint64_t rsp);
/* SS:RSP of privilege level cpl from the TSS. In long mode ss is 0. Raises #TS. */
void frame_tss_stack(struct vcpu *v, const struct insn *i, unsigned cpl, uint16_t *ss, uint64_t *rsp);
/* IST entry 1..7 of the 64-bit TSS. */
uint64_t frame_tss_ist(struct vcpu *v, const struct insn *i, unsigned ist);

/* ---- events (cpu/exception.c) ---- */

#define DEBUGCTL_LBR (1ull << 0)
#define DEBUGCTL_BTF (1ull << 1) /* TF steps from branch to branch */

/* #DB with bits of DR6 (BD, BS, Bn), as a fault: RIP is that of the instruction. */
_Noreturn void vcpu_raise_debug(struct vcpu *v, const struct insn *i, uint64_t dr6);
/* INT n, INT3, INTO, INT1 as the instruction i: delivers the event and ends the block. */
void vcpu_software_interrupt(struct vcpu *v, const struct insn *i, enum event_kind kind, uint8_t vector);
/* The trap after an instruction that started with TF set. */
void vcpu_single_step_trap(struct vcpu *v);
/* Delivers v->pending_dbg as a #DB trap. */
void vcpu_deliver_debug(struct vcpu *v);
/* Writes RFLAGS as IRET and POPF may: bits of `mask` from `value`. Tells the MMU about AC. */
void vcpu_load_flags(struct vcpu *v, uint64_t value, uint64_t mask);

/* ---- far transfers (cpu/interp/far.c, iret.c, syscall.c) ---- */

/* Where RETF or IRET goes: selectors and descriptors checked by far_check_return(). */
struct far_return {
    uint16_t cs, ss;
    bool pops_stack;            /* SS:RSP are loaded: to an outer level, or IRET in 64-bit mode */
    struct descriptor csd, ssd; /* ssd.raw is 0 for a null SS */
    uint64_t rip, rsp;
};
/* Checks cs, and rip against it, for a return to CS.RPL >= CPL. */
void far_check_return(struct vcpu *v, const struct insn *i, struct far_return *r);
/* Checks ss, for r->pops_stack. */
void far_check_return_stack(struct vcpu *v, const struct insn *i, struct far_return *r);
/* Loads CS, RIP, and SS:RSP if popped; drops what an outer level may not keep. Cannot fault. */
void far_commit_return(struct vcpu *v, const struct far_return *r);

op_fn *bind_iret_and_int(const struct insn *i);
op_fn *bind_syscall(const struct insn *i);
op_fn *bind_far(const struct insn *i, unsigned mode);
op_fn *bind_system_segment(const struct insn *i, unsigned mode);
op_fn *bind_system_control(const struct insn *i, unsigned mode);
op_fn *bind_system_io(const struct insn *i, unsigned mode);

/* Goes on with the next instruction, or leaves the block if i ends it or `leave` is set. */
#define NEXT_OR_END(v, i, leave)                                                                                       \
    do {                                                                                                               \
        if (((i)->flags & INSN_ENDS) || (leave) || (v)->attn)                                                          \
            return block_end((v), (i), insn_next_rip((v), (i)), 2);                                                    \
        return (i)[1].fn((v), (i) + 1);                                                                                \
    } while (0)

/* #GP(0) unless CPL is 0. */
static inline void need_cpl0(struct vcpu *v, const struct insn *i)
{
    if (v->cpl)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* ---- control registers (cpu/control_regs.c) ---- */
void control_write_cr0(struct vcpu *v, const struct insn *i, uint64_t value);
void control_write_cr3(struct vcpu *v, const struct insn *i, uint64_t value);
bool control_cr4_is_offered(const struct vcpu *v, uint64_t value);
void control_write_cr4(struct vcpu *v, const struct insn *i, uint64_t value);
uint64_t control_read_cr8(struct vcpu *v);
void control_write_cr8(struct vcpu *v, const struct insn *i, uint64_t value);
/* Raises #GP(0) for values that the register does not take. */
void control_write_dr6(struct vcpu *v, const struct insn *i, uint64_t value);
void control_write_dr7(struct vcpu *v, const struct insn *i, uint64_t value);
void control_write_xcr0(struct vcpu *v, const struct insn *i, uint64_t value);

/* ---- MSRs (cpu/msr.c, cpu/mtrr.c) ---- */
/* False: #GP(0). The clock is exact. */
bool msr_read(struct vcpu *v, uint32_t index, uint64_t *value);
bool msr_write(struct vcpu *v, uint32_t index, uint64_t value);
void msr_reset(struct vcpu *v);
bool mtrr_read(const struct vcpu *v, uint32_t index, uint64_t *value);
/* 1: written, 0: not an MTRR, -1: value refused. */
int mtrr_write(struct vcpu *v, uint32_t index, uint64_t value);
/* IA32_TIME_STAMP_COUNTER now. */
static inline uint64_t tsc_read(const struct vcpu *v)
{
    return clock_now(v->clock) + v->msr.tsc_adjust;
}

/* Seeded generator of RDRAND and RDSEED. */
uint64_t vcpu_random(struct vcpu *v);

#endif
