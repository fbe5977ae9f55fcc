/*
 * The vCPU: architectural state, and what the machine may do with it.
 *
 * State that is lazy inside blocks (rip, flags, position) is exact at instruction boundaries, that is whenever
 * vcpu_run() has returned, and inside an instruction after vcpu_sync().
 *
 * Flags are lazy: ZF, SF, PF come from f_res, CF and OF from f_cy, AF and corrections from f_adj (cpu/flags.h); all
 * other bits of RFLAGS are in `rflags` and exact.
 */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "core/clock.h"
#include "core/irq.h"
#include "core/log.h"
#include "core/topology.h"
#include "core/types.h"
#include "cpu/insn.h"
#include "mmu/mmu.h"

#include <setjmp.h>

struct bus;
struct block;
struct code_cache;
struct jit;
struct stats;
struct trace;

/* Control and flag bits beyond those of mmu/paging.h. */
#define CR0_MP         (1ull << 1)
#define CR0_EM         (1ull << 2)
#define CR0_TS         (1ull << 3)
#define CR0_ET         (1ull << 4)
#define CR0_NE         (1ull << 5)
#define CR0_NW         (1ull << 29)
#define CR0_CD         (1ull << 30)
#define CR4_VME        (1ull << 0)
#define CR4_PVI        (1ull << 1)
#define CR4_TSD        (1ull << 2)
#define CR4_DE         (1ull << 3)
#define CR4_MCE        (1ull << 6)
#define CR4_PCE        (1ull << 8)
#define CR4_OSFXSR     (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_UMIP       (1ull << 11)
#define CR4_FSGSBASE   (1ull << 16)
#define CR4_OSXSAVE    (1ull << 18)
#define EFER_SCE       (1ull << 0)
#define FLAG_CF        (1ull << 0)
#define FLAG_PF        (1ull << 2)
#define FLAG_AF        (1ull << 4)
#define FLAG_ZF        (1ull << 6)
#define FLAG_SF        (1ull << 7)
#define FLAG_TF        (1ull << 8)
#define FLAG_IF        (1ull << 9)
#define FLAG_DF        (1ull << 10)
#define FLAG_OF        (1ull << 11)
#define FLAG_IOPL      (3ull << 12)
#define FLAG_NT        (1ull << 14)
#define FLAG_RF        (1ull << 16)
#define FLAG_VM        (1ull << 17)
#define FLAG_AC        (1ull << 18)
#define FLAG_VIF       (1ull << 19)
#define FLAG_VIP       (1ull << 20)
#define FLAG_ID        (1ull << 21)
#define FLAGS_ARITH    (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
/* Bits of RFLAGS that exist, the arithmetic ones and bit 1 aside. */
#define FLAGS_KEPT                                                                                                     \
    (FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)

enum exception {
    EXC_DE,
    EXC_DB,
    EXC_NMI,
    EXC_BP,
    EXC_OF,
    EXC_BR,
    EXC_UD,
    EXC_NM,
    EXC_DF,
    EXC_TS = 10,
    EXC_NP,
    EXC_SS,
    EXC_GP,
    EXC_PF,
    EXC_MF = 16,
    EXC_AC,
    EXC_MC,
    EXC_XM,
    EXC_VE,
    EXC_CP
};
#define FAULT_FROZEN 0xff /* in vcpu.fault: no exception; the processor waits for an interrupt (vcpu_freeze()) */

/* A segment register with its hidden part. attr is bits 8..23 of the descriptor's high doubleword, shifted to bit 0:
 * type 0-3, S 4, DPL 5-6, P 7, (limit bits 8-11 are zero), AVL 12, L 13, D/B 14, G 15. limit is in bytes (scaled). */
struct segment {
    uint64_t base;
    uint32_t limit;
    uint16_t sel;
    uint16_t attr;
    bool unusable; /* loaded with a null selector */
};
#define SEG_ATTR_P  (1u << 7)
#define SEG_ATTR_L  (1u << 13)
#define SEG_ATTR_DB (1u << 14)

struct desc_table {
    uint64_t base;
    uint16_t limit;
};

struct x87 {
    struct {
        uint64_t mant;
        uint16_t exp;  /* sign and exponent */
    } st[8];           /* physical registers R0..R7 */
    uint16_t fcw, fsw; /* fsw without TOP, which is below */
    uint8_t top;
    uint8_t tag; /* abridged: bit n set: Rn is not empty */
    uint16_t fop;
    uint16_t fcs, fds;
    uint64_t fip, fdp;
    bool ignored; /* IGNNE# is asserted: the pending exception waits for no handler (CR0.NE clear) */
};

union vec {
    uint64_t q[4]; /* low half XMM, all of it YMM */
    uint32_t d[8];
    uint16_t w[16];
    uint8_t b[32];
    double f64[4];
    float f32[8];
};

#define MTRR_VARIABLE           8
/* IA32_MISC_ENABLE, what has an effect (SDM volume 4): MONITOR and MWAIT exist; CPUID ends with leaf 2; no
 * execute-disable. */
#define MISC_ENABLE_MONITOR     (1ull << 18)
#define MISC_ENABLE_LIMIT_CPUID (1ull << 22)
#define MISC_ENABLE_NO_XD       (1ull << 34)

struct msrs {
    uint64_t star, lstar, cstar, fmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, pat, tsc_aux,
        tsc_adjust, misc_enable, spec_ctrl, debugctl, xss, mcg_status, feature_control, smi_count, pkg_cst_config,
        power_ctl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[MTRR_VARIABLE], mtrr_mask[MTRR_VARIABLE];
};

enum vcpu_activity { VCPU_RUNNING, VCPU_HALTED, VCPU_WAIT_SIPI, VCPU_SHUTDOWN /* triple fault */ };

/* MONITOR and MWAIT: the line that is watched by write tracking (kind WATCH) while it is armed. Any write to it, be it
 * a device's, disarms it and ends the wait. */
#define VCPU_MONITOR_LINE 64u
struct vcpu_monitor {
    gpa_t line;
    uint8_t as;
    bool armed;
    bool written;    /* since MONITOR */
    bool waiting;    /* activity is VCPU_HALTED by MWAIT */
    bool breaks;     /* an interrupt ends the wait though IF is clear */
    bool registered; /* with the tracking, from the first MONITOR on */
    bool loading;    /* from vcpu_load() to vcpu_refresh(): what is written is memory as it was, and does not count */
    struct track_listener listener;
};

/* Why the current block must end after the instruction that is executing (bits of vcpu.attn). */
enum vcpu_attn {
    ATTN_BOUNDARY = 1, /* a device, timer queue, interrupt state or track listener was reached */
    ATTN_STOP = 2,     /* the machine asks vcpu_run() to return */
    ATTN_TURN = 4      /* the vCPU gives up the rest of its turn (PAUSE, a sent IPI) */
};

struct exc_record {
    uint64_t icount, rip, cr2;
    uint32_t error;
    uint8_t vector;
    bool has_error;
};
#define EXC_HISTORY   8
#define VCPU_STEP_MAX 49 /* BLOCK_MAX_INSNS + 1, see cpu/code_cache.h */

/*
 * A debugger's eye on a vCPU. It changes nothing that the guest could see: blocks end earlier, that is all.
 * Boundaries at `from` (where the debugger let go on) do not count, nor do those inside a repeated string instruction.
 */
struct vcpu_debug {
    void *ctx;
    /* Breakpoint at linear address lin? Pure. */
    bool (*is_break)(void *ctx, uint64_t lin);
    /* vcpu_run() returns VCPU_EXIT_STOP before the instruction at lin. */
    void (*on_break)(void *ctx, uint64_t lin);
    /* Called after each data access while watches_data (then the soft TLB is bypassed; vcpu_refresh() arms it). */
    void (*on_access)(void *ctx, uint64_t lin, unsigned len, bool write);
    bool watches_data;
    uint64_t from;     /* icount, or UINT64_MAX */
    unsigned from_cpu; /* whose boundary that is */
};

/* A look-up of a block that went well, valid while the fetch translation and the code cache are unchanged. */
struct jump_entry {
    uint64_t rip, base, epoch; /* base: of CS */
    struct block *block;
    uint64_t generation;
    uint32_t mode;
};
#define JUMP_BITS    12
#define CHAIN_CLOSED UINT64_MAX

/* Answers of CPUID that were asked for last. They hold while the registers that leaves show are as they were: cr4, xcr0
 * and xss are compared before use, 64-bit code has its own half, and a write to IA32_APIC_BASE forgets them. An entry
 * that was never filled has a leaf that belongs elsewhere. */
struct cpuid_answer {
    uint32_t leaf, subleaf, out[4];
    uint64_t unused; /* compiled code multiplies by shifting */
};
#define CPUID_ANSWERS 16
struct cpuid_answers {
    uint64_t cr4, xcr0, xss;
    struct cpuid_answer answer[2][CPUID_ANSWERS]; /* [mode_is_code64()][cpuid_answer_index()] */
};
static inline unsigned cpuid_answer_index(uint32_t leaf, uint32_t subleaf)
{
    return (leaf + subleaf) % CPUID_ANSWERS;
}

/* What the JIT calls the circumstances of 64-bit code: a name (0: none), good while what it was given for is the same.
 */
struct jit_known {
    uint64_t epoch, generation, stamp; /* of mmu_vcpu.fetch_epoch and of the code cache */
    uint32_t mode;                     /* as block.mode, the address space aside */
    uint32_t as;
};
#define JIT_KNOWN 8 /* processes that call the kernel in turn */

struct vcpu_config {
    unsigned index;
    struct mmu_vcpu *mv;
    struct mem *mem;
    struct bus *ports;
    struct vclock *clock;
    struct code_cache *code; /* shared by the machine's vCPUs */
    struct jit *jit;         /* likewise; NULL: the interpreter runs everything */
    const struct log *log;
    struct trace *trace; /* never NULL */
    const struct cpu_model *model;
    uint64_t rng_seed;            /* of RDRAND, when offered */
    struct cpu_topology topology; /* all zero: one processor */
    int64_t wall_base;            /* seconds since 1970 at clock time 0; what kvmclock says */
};

struct vcpu {
    /* Hot: registers and lazy flags. */
    uint64_t gpr[GPR_SLOTS];
    uint64_t seg_base[SEG_SLOTS]; /* copies of seg[].base; [SEG_NONE] is 0 */
    /* Bytes from offset 0 on that may be read ([0]) and written ([1]) through a segment, whatever else may be: 0 for
     * expand-down segments and for those that allow nothing. Not kept up in 64-bit mode. */
    uint64_t seg_room[2][6];
    uint64_t f_res, f_cy, f_adj; /* lazy flags, see cpu/flags.h */
    uint64_t rflags;             /* all but the arithmetic flags; bit 1 set */
    struct mmu_vcpu *mv;
    uint32_t attn;             /* enum vcpu_attn */
    unsigned synced;           /* instructions of the running block already added to the clock */
    uint64_t rip;              /* exact at boundaries */
    const struct block *block; /* running */
    unsigned exit_slot;        /* which successor the block's end chose: 0 fall through, 1 taken, 2 unknown */
    uint64_t rep_budget;       /* units that a REP instruction may use before the next boundary check */
    uint64_t chain_end;        /* of the clock; see cpu/interp/chain.h */
    uint64_t chain_epoch;      /* of mv->fetch_epoch when the chain was opened, or CHAIN_CLOSED */
    struct vclock *clock;
    unsigned cpl;
    unsigned mode; /* enum cpu_mode_bits */

    /* System state. */
    struct segment seg[6], ldtr, tr;
    struct desc_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[8];
    uint64_t pdpte[4];
    uint32_t pkru, pkrs;
    struct msrs msr;
    uint64_t a20_mask;

    /* Floating point and vectors. */
    struct x87 fpu;
    union vec xmm[16];
    uint32_t mxcsr;

    /* Events. */
    enum vcpu_activity activity;
    bool int_shadow;      /* STI or MOV SS: no interrupt before the next instruction has retired */
    bool shadow_is_movss; /* the shadow also holds debug traps and NMI */
    bool nmi_blocked;
    bool intr_pin, nmi_pending, init_pending, sipi_pending, smi_pending;
    uint8_t sipi_vector; /* of sipi_pending */
    bool turn_over; /* the last vcpu_run() met something that gives up the rest of the turn, whatever it returned */
    bool pending_single_step;
    struct vcpu_monitor monitor;
    bool in_smm, smm_kept_nmi_blocked; /* the second: NMI was blocked when SMM was entered */
    uint32_t smbase;
    uint8_t bp_exec, bp_data, bp_io; /* DR0..DR3 armed for execution, data, I/O: bits; follow from DR7 and CR4.DE */
    uint64_t pending_dbg;            /* DR6 bits of a pending debug exception */
    struct vcpu_debug *debug;        /* a debugger's; NULL: none is attached */
    uint64_t debug_rep_lin; /* under it: address of a REP instruction that was left unfinished, or UINT64_MAX */
    const struct cpu_intc *intc;

    /* A fault being raised (vcpu_raise to the run loop). */
    jmp_buf fault_jmp;
    struct {
        uint8_t vector;
        bool has_error, soft; /* soft: INT n, INT3, INTO: RIP is after the instruction */
        uint32_t error;
        uint64_t cr2, dr6;
    } fault;

    /* Wiring and diagnosis. */
    unsigned index;
    uint32_t apic_id; /* wired */
    struct cpu_topology topology;
    struct mem *mem;
    struct bus *ports;
    struct code_cache *code;
    const uint64_t *code_generation; /* of that cache: validity of block pointers kept elsewhere */
    const struct log *log;
    struct trace *trace;
    const struct cpu_model *model;
    uint64_t rng_state;
    struct kvm_pv *pv;                      /* cpu/kvm_pv.h; NULL: not offered */
    struct exc_record history[EXC_HISTORY]; /* the last exceptions delivered; history_count % EXC_HISTORY is next */
    uint64_t history_count;
    struct exc_record triple; /* the exception that could not be delivered, when activity is VCPU_SHUTDOWN */
    void (*on_a20)(void *ctx, uint64_t mask);
    /* SMM is entered (left): the machine maps what the processor sees there. May be NULL. */
    void (*on_smm)(void *ctx, bool entered);
    void *on_smm_ctx;
    struct irq_line
        ferr; /* raised when a waiting x87 instruction meets an exception and CR0.NE is clear; may be unset */
    /* The run loop's own: a copy of the first instructions of a block that is longer than the budget; a block outside
     * the cache (code in device memory). */
    struct jump_entry jump[1u << JUMP_BITS];
    struct cpuid_answers cpuid;
    struct insn step[VCPU_STEP_MAX];
    struct block *uncached;
    struct jit *jit;                          /* NULL: none */
    bool jit_resumed;                         /* the JIT's own, like the next */
    struct jit_known jit_known[2][JIT_KNOWN]; /* the last names: of kernels, of users; by the epoch's lower bits */
    struct vcpu_stats {
        uint64_t blocks, block_stops, exceptions, interrupts, mem_slow, steps, halts;
    } stats;
};

/* ---- life (cpu/vcpu.c) ---- */
struct vcpu *vcpu_create(const struct vcpu_config *cfg); /* in the reset state */
void vcpu_destroy(struct vcpu *v);
/* Power-on or RESET#: SDM volume 3, table 10-1. `init`: INIT, which keeps caches, FPU and some MSRs. */
void vcpu_reset(struct vcpu *v, bool init);
void vcpu_set_intc(struct vcpu *v, const struct cpu_intc *intc);
/* Handle that drives a pin (enum cpu_pin). */
struct irq_line vcpu_pin(struct vcpu *v, enum cpu_pin pin);
void vcpu_set_a20(struct vcpu *v, bool enabled);
/* IGNNE#: the x87 exception that is pending, if one is, holds waiting instructions up no longer. */
void vcpu_ignore_x87(struct vcpu *v);
/* MTRRs as firmware leaves them: write-back by default; the video window and [hole, 4 GiB) uncached. hole: 4 GiB less a
 * power of two. */
void vcpu_firmware_mtrrs(struct vcpu *v, uint32_t hole);
void vcpu_save(const struct vcpu *v, struct snap_writer *w);
/* Memory may be loaded after it; then vcpu_refresh() is called. */
void vcpu_load(struct vcpu *v, struct snap_reader *r);
void vcpu_register_stats(struct vcpu *v, struct stats *s);
/* Prints all registers, a dozen lines. */
void vcpu_print(const struct vcpu *v, void (*line)(void *ctx, const char *text), void *ctx);

/* For loaders: puts the vCPU into the state that a boot protocol asks for. Sets hidden parts directly; call
 * vcpu_refresh() after. */
void vcpu_set_segment(struct vcpu *v, int seg, uint16_t sel, uint64_t base, uint32_t limit, uint16_t attr);
/* Recomputes cpl, mode, seg_base and the MMU's registers after state was changed wholesale. */
void vcpu_refresh(struct vcpu *v);
uint64_t vcpu_rflags(const struct vcpu *v);
void vcpu_set_rflags(struct vcpu *v, uint64_t value);

/* ---- running (cpu/run.c) ---- */
enum vcpu_exit {
    VCPU_EXIT_BUDGET,   /* the units are used up */
    VCPU_EXIT_BOUNDARY, /* an event boundary: timer queue or pins may have changed; call again after looking */
    VCPU_EXIT_IDLE,     /* halted, waiting for SIPI */
    VCPU_EXIT_TURN,     /* HLT, MWAIT, PAUSE or a sent IPI ended the turn */
    VCPU_EXIT_SHUTDOWN, /* triple fault */
    VCPU_EXIT_STOP      /* vcpu_request_stop() */
};
/* Runs until `units` of virtual time have passed, or something else ends it. Never overshoots by more than the
 * surcharges of the last instruction. Delivers pending interrupts and exceptions at boundaries. */
enum vcpu_exit vcpu_run(struct vcpu *v, uint64_t units);
/* Its turn is over, and others have theirs. */
void vcpu_descheduled(struct vcpu *v);
/* Makes vcpu_run() return at the next boundary. Callable from devices (same thread). */
void vcpu_request_stop(struct vcpu *v);
/* The instruction that is executing gives up the rest of the turn (it sent an IPI). */
void vcpu_end_turn(struct vcpu *v);
/* Halted vCPU with something to wake it? */
bool vcpu_has_wakeup(const struct vcpu *v);

/* ---- code cache (cpu/code_cache.c) ---- */
struct code_cache *code_cache_create(struct mem *mem, struct trace *trace, const struct log *log);
void code_cache_destroy(struct code_cache *c);
void code_cache_register_stats(struct code_cache *c, struct stats *s);
/* Drops every block (loading a snapshot, for one). */
void code_cache_reset(struct code_cache *c);

/* ---- models (cpu/cpuid.c) ---- */
/* The CPUID instruction as this vCPU executes it now: out is EAX, EBX, ECX, EDX. */
void vcpu_cpuid(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* NULL if the name or a switch is unknown; then *bad points to what (within `spec`). "base" is the default. Owned by
 * the caller (free). */
/* The n-th model's name; NULL behind the last. The n-th feature that can be switched on, likewise. */
const char *cpu_model_name(unsigned n);
const char *cpu_feature_offered(unsigned n);
struct cpu_model *cpu_model_parse(const char *spec, const char **bad);

#endif
