/*
 * The run loop: blocks one after the other, events at the boundaries between them.
 *
 * Position: clock->icount is exact at each boundary. A block never runs past the units that are left: if it is longer,
 * a copy of its first instructions is run instead, so that an event due at an instant is taken at the first boundary at
 * or after it in every engine, however the code is cut into blocks.
 */
#include "cpu/run.h"
#include "core/bus.h"
#include "core/clock.h"
#include "cpu/breakpoint.h"
#include "cpu/interp/chain.h"
#include "cpu/jit/jit.h"
#include "cpu/kvm_pv.h"
#include "cpu/monitor.h"
#include "cpu/optable.h"
#include "cpu/smm.h"
#include "cpu/system.h"

/* ---- leaving a block ---- */

void op_block_end(struct vcpu *v, const struct insn *i)
{
    clock_retire(v->clock, i->idx - v->synced);
    v->synced = 0;
    v->rip = v->gpr[REG_IP] + i->off;
    v->exit_slot = 0;
    return vcpu_enter_next(v, 0);
}

void op_stop_after(struct vcpu *v, const struct insn *i)
{
    v->stats.block_stops++;
    block_end(v, i, insn_next_rip(v, i), 2);
}

/* ---- finding the next block ---- */

/* What a fetch fault is charged to: an instruction of no bytes at rip. */
static const struct insn fetch_insn = {.op = 0};

static uint64_t fetch_linear(const struct vcpu *v, uint64_t rip)
{
    uint64_t lin = v->seg_base[SEG_CS] + rip;
    return v->mode & MODE_CODE64 ? lin : (uint32_t)lin;
}

/* Translates a fetch of the byte at `lin`; raises its fault. host is NULL if the byte is not in memory. */
static gpa_t fetch_translate(struct vcpu *v, uint64_t lin, const uint8_t **host)
{
    const struct tlb_fetch_entry *e = tlb_lookup_fetch(v->mv, lin);
    struct xlate x;
    if (likely(e != NULL)) {
        *host = (const uint8_t *)(uintptr_t)(e->host + (lin & PAGE_MASK));
        return e->gpa | (lin & PAGE_MASK);
    }
    if (v->mode & MODE_CODE64 && !addr_is_canonical(v, lin))
        vcpu_raise_error(v, &fetch_insn, EXC_GP, 0);
    if (mmu_translate(v->mv, lin, ACCESS_FETCH, &x) == XLATE_FAULT)
        vcpu_raise_pf(v, &fetch_insn, lin, x.error);
    *host = x.host;
    return x.gpa;
}

static uint32_t block_mode(const struct vcpu *v)
{
    return v->mode | (uint32_t)v->mv->regs.as << 16;
}

/* Code outside memory: fetched through the bus, a byte at a time as far as needed, and not cached. */
static struct block *fetch_from_bus(struct vcpu *v, uint64_t lin)
{
    uint8_t bytes[15];
    for (unsigned n = 0; n < sizeof bytes; n++) {
        const uint8_t *host;
        gpa_t gpa = fetch_translate(v, v->mode & MODE_CODE64 ? lin + n : (uint32_t)(lin + n), &host);
        mem_access(v->mem, v->mv->regs.as, gpa, &bytes[n], 1, MEM_GUEST, false, (int)v->index);
        struct block *b = block_decode_single(v->code, bytes, n + 1, block_mode(v));
        if (b)
            return b;
    }
    return NULL; /* 15 bytes always decode: to an instruction that is too long, if nothing else */
}

/* Only the offsets of segments with a limit of their own can leave it in the middle of a page. */
static inline bool has_code_limit(const struct vcpu *v)
{
    return !(v->mode & (MODE_CODE64 | MODE_FLAT));
}

static void check_code_limit(struct vcpu *v, uint64_t rip)
{
    if (!(v->mode & MODE_CODE64) && unlikely(rip > v->seg[SEG_CS].limit))
        vcpu_raise_error(v, &fetch_insn, EXC_GP, 0);
}

/* Instructions of b, which begins at v->rip, that CS's limit lets through. Raises #GP if the first is not. */
static unsigned insns_within_limit(struct vcpu *v, const struct block *b)
{
    check_code_limit(v, v->rip + b->insn[0].len - 1);
    uint64_t room = (uint64_t)v->seg[SEG_CS].limit + 1 - v->rip;
    unsigned n = b->n;
    while (n > 1 && b->insn[n - 1].off + b->insn[n - 1].len > room)
        n--;
    return n;
}

/* The instruction at lin crosses into the next page. */
static struct block *find_crossing(struct vcpu *v, uint64_t lin, gpa_t gpa, const uint8_t *host)
{
    size_t avail = PAGE_SIZE - (gpa & PAGE_MASK);
    const uint8_t *host2;
    check_code_limit(v, v->rip + avail);
    gpa_t page2 = fetch_translate(v, fetch_linear(v, v->rip + avail), &host2);
    struct block *b = host2 ? code_cache_find(v->code, gpa, page2, block_mode(v)) : NULL;
    if (b)
        return b;
    if (!host2) {
        v->uncached = fetch_from_bus(v, lin);
        return v->uncached;
    }
    return code_cache_make(v->code, gpa, block_mode(v), host, avail, page2, host2);
}

static __attribute__((noinline)) struct block *decode_block(struct vcpu *v, uint64_t lin, gpa_t gpa,
                                                            const uint8_t *host)
{
    if (!host) {
        v->uncached = fetch_from_bus(v, lin);
        return v->uncached;
    }
    struct block *b =
        code_cache_make(v->code, gpa, block_mode(v), host, PAGE_SIZE - (gpa & PAGE_MASK), BLOCK_NO_PAGE, NULL);
    return b ? b : find_crossing(v, lin, gpa, host);
}

/* Linear address of the second page of a block that crosses into it, and begins at v->rip. */
static uint64_t second_page(const struct vcpu *v, const struct block *b)
{
    return fetch_linear(v, v->rip + PAGE_SIZE - (b->gpa & PAGE_MASK));
}

bool vcpu_holds_block(const struct vcpu *v, const struct block *b)
{
    return tlb_lookup_fetch(v->mv, fetch_linear(v, v->rip)) &&
           (b->page2 == BLOCK_NO_PAGE || tlb_lookup_fetch(v->mv, second_page(v, b)));
}

static void jump_note(struct vcpu *v, struct block *b)
{
    if (vcpu_holds_block(v, b)) {
        struct jump_entry *e = jump_slot(v, v->rip);
        *e = (struct jump_entry){v->rip, v->seg_base[SEG_CS], v->mv->fetch_epoch, b, *v->code_generation, v->mode};
        block_note(b, BLOCK_TABLE_RUN, &e->generation);
    }
}

/* The block at v->rip, the long way. */
static struct block *look_up_block(struct vcpu *v)
{
    const uint8_t *host;
    if (unlikely(!(v->mode & MODE_CODE64) && v->rip >> 32)) /* EIP wraps at 4 GiB */
        v->gpr[REG_IP] = v->rip = (uint32_t)v->rip;
    check_code_limit(v, v->rip);
    uint64_t lin = fetch_linear(v, v->rip);
    gpa_t gpa = fetch_translate(v, lin, &host);
    struct block *b = host ? code_cache_find_any(v->code, gpa, block_mode(v)) : NULL;
    if (likely(b && b->page2 == BLOCK_NO_PAGE)) {
        jump_note(v, b);
        return b;
    }
    if (!b)
        return decode_block(v, lin, gpa, host);
    b = find_crossing(v, lin, gpa, host);
    if (!v->uncached)
        jump_note(v, b);
    return b;
}

/* The block at v->rip. Raises fetch faults. */
static struct block *find_block(struct vcpu *v)
{
    struct block *b = jump_find(v, v->rip);
    v->gpr[REG_IP] = v->rip;
    return likely(b != NULL) ? b : look_up_block(v);
}

/* The block at gpa, which v->rip is, if its second page, should it have one, is where the TLB says. */
static struct block *known_block_at(const struct vcpu *v, gpa_t gpa)
{
    struct block *b = code_cache_find_any(v->code, gpa, block_mode(v));
    if (!b || b->page2 == BLOCK_NO_PAGE)
        return b;
    const struct tlb_fetch_entry *e = tlb_lookup_fetch(v->mv, second_page(v, b));
    return e ? code_cache_find(v->code, gpa, e->gpa, block_mode(v)) : NULL;
}

struct block *vcpu_known_block(struct vcpu *v)
{
    if (has_code_limit(v) || (!(v->mode & MODE_CODE64) && v->rip >> 32))
        return NULL;
    struct block *b = jump_find(v, v->rip);
    v->gpr[REG_IP] = v->rip;
    if (likely(b != NULL))
        return b;
    uint64_t lin = fetch_linear(v, v->rip);
    const struct tlb_fetch_entry *e = mmu_known_fetch(v->mv, lin);
    b = e ? known_block_at(v, e->gpa | (lin & PAGE_MASK)) : NULL;
    if (b)
        jump_note(v, b);
    return b;
}

/* ---- running blocks ---- */

/* Without going on to other blocks. */
static void run_insns(struct vcpu *v, const struct insn *i)
{
    chain_close(v);
    v->synced = 0;
    i->fn(v, i);
}

/* Runs the first n instructions of b alone. Returns the successor's slot, for a look at how the last one ended. */
static unsigned run_partial(struct vcpu *v, const struct block *b, unsigned n)
{
    memcpy(v->step, b->insn, n * sizeof v->step[0]);
    memset(&v->step[n], 0, sizeof v->step[n]);
    v->step[n].fn = op_block_end;
    v->step[n].idx = (uint8_t)n;
    v->step[n].off = b->insn[n].off;
    v->stats.steps++;
    code_cache_run_copy(v->code, n > 1);
    run_insns(v, v->step);
    code_cache_run_copy(v->code, false);
    unsigned slot = v->exit_slot;
    v->exit_slot = 2;
    return slot;
}

/* A successor `step` bytes of rip away in the same page, if it is known or can be found without leaving it; a page that
 * is mapped behind itself is followed by another page nevertheless. Where offsets wrap or end inside a page, the same
 * step can lead elsewhere under another CS: no chains there. */
static void chain_block(struct block *from, unsigned slot, uint64_t step, struct block *to)
{
    if (slot < 2 && from->mode & (MODE_CODE64 | MODE_FLAT) && to->page2 == BLOCK_NO_PAGE &&
        from->page2 == BLOCK_NO_PAGE && from->mode == to->mode && from->gpa >> PAGE_SHIFT == to->gpa >> PAGE_SHIFT &&
        to->gpa - from->gpa == step)
        from->next[slot] = to;
}

/* Where execution goes on after b: through a chain, or by a look-up that makes one. */
static inline struct block *next_block(struct vcpu *v, struct block *b, uint64_t epoch)
{
    unsigned slot = v->exit_slot;
    if (unlikely(v->mv->fetch_epoch != epoch || slot > 1))
        return find_block(v);
    struct block *next = b->next[slot];
    if (likely(next != NULL)) {
        v->gpr[REG_IP] = v->rip;
        return next;
    }
    uint64_t start = v->gpr[REG_IP];
    next = find_block(v);
    if (v->mv->fetch_epoch == epoch && !v->uncached && !v->attn)
        chain_block(b, slot, v->rip - start, next);
    return next;
}

/* By the JIT, if the block is hot. */
static inline bool run_compiled(struct vcpu *v, struct block *b, uint64_t end)
{
    if (v->uncached)
        return false;
    if (b->native && jit_run(v->jit, v, b, end))
        return true;
    return jit_warm(v->jit, v, b) && jit_run(v->jit, v, b, end);
}

/* Runs blocks until the units are used up or attention is wanted. */
static void run_blocks(struct vcpu *v, uint64_t end)
{
    struct block *b = find_block(v);
    for (;;) {
        uint64_t left = end - clock_now(v->clock), epoch = v->mv->fetch_epoch;
        unsigned n = has_code_limit(v) ? insns_within_limit(v, b) : b->n;
        v->block = b;
        if (unlikely(n > left))
            n = (unsigned)left;
        if (unlikely(n < b->n)) {
            v->rep_budget = 1;
            run_partial(v, b, n);
            return;
        }
        if (v->jit && run_compiled(v, b, end)) {
            if (vcpu_wants_boundary(v) || clock_now(v->clock) >= end)
                return;
            b = find_block(v);
            continue;
        }
        v->rep_budget = left - b->n + 1;
        if (v->jit)
            chain_close(v); /* the JIT looks at each block */
        else
            chain_open(v, end);
        v->synced = 0;
        v->stats.blocks++;
        b->insn->fn(v, b->insn);
        if (vcpu_wants_boundary(v) || clock_now(v->clock) >= end || unlikely(v->uncached != NULL))
            return;
        b = next_block(v, (struct block *)(uintptr_t)v->block, epoch);
    }
}

/* ---- under a debugger ---- */

/* The boundary at which the debugger let go. */
static bool is_debug_start(const struct vcpu *v)
{
    return v->clock->icount == v->debug->from && v->index == v->debug->from_cpu;
}

static bool debug_stops(const struct vcpu *v)
{
    struct vcpu_debug *d = v->debug;
    uint64_t lin = fetch_linear(v, v->rip);
    if (is_debug_start(v) || lin == v->debug_rep_lin || !d->is_break(d->ctx, lin))
        return false;
    d->on_break(d->ctx, lin);
    return true;
}

/* Instructions of b up to the next breakpoint or CS's limit; b itself may begin at a breakpoint. */
static unsigned debug_run_length(struct vcpu *v, const struct block *b)
{
    unsigned end = has_code_limit(v) ? insns_within_limit(v, b) : b->n;
    for (unsigned n = 1; n < end; n++)
        if (v->debug->is_break(v->debug->ctx, fetch_linear(v, v->rip + b->insn[n].off)))
            return n;
    return end;
}

/* The first n instructions of b have run from `rip`: was the last a REP that is not done? */
static void debug_note_rep(struct vcpu *v, const struct block *b, unsigned n, uint64_t rip)
{
    const struct insn *last = &b->insn[n - 1];
    bool unfinished = last->flags & (INSN_REP | INSN_REPNE) && v->rip == rip + last->off;
    v->debug_rep_lin = unfinished ? fetch_linear(v, v->rip) : UINT64_MAX;
}

/* One block, or the part of it before a breakpoint or the end of the units. Nothing if the fetch met what the debugger
 * waits for; but where it let go on it gets an instruction. */
static void debug_run_block(struct vcpu *v, uint64_t left)
{
    const struct block *b = find_block(v);
    uint64_t rip = v->rip;
    if (v->attn & ATTN_STOP && !is_debug_start(v))
        return;
    unsigned n = v->attn ? 1 : debug_run_length(v, b);
    v->block = b;
    if (n > left)
        n = (unsigned)left;
    v->rep_budget = n == b->n ? left - n + 1 : 1;
    if (n == b->n)
        run_insns(v, b->insn);
    else
        run_partial(v, b, n);
    debug_note_rep(v, b, n, rip);
}

/* As run_blocks(), with a stop before each breakpoint but the one where it begins. */
static void run_blocks_debug(struct vcpu *v, uint64_t end)
{
    for (;;) {
        debug_run_block(v, end - clock_now(v->clock));
        if (vcpu_wants_boundary(v) || clock_now(v->clock) >= end || v->uncached)
            return;
        if (debug_stops(v)) {
            v->attn |= ATTN_STOP;
            return;
        }
    }
}

static bool is_branch(unsigned op)
{
    switch (op) {
    case OP_JMP:
    case OP_CALL:
    case OP_RET:
    case OP_JMPF:
    case OP_CALLF:
    case OP_RETF:
    case OP_IRET:
    case OP_SYSCALL:
    case OP_SYSRET:
    case OP_SYSENTER:
    case OP_SYSEXIT:
        return true;
    default:
        return false;
    }
}

static bool is_conditional_branch(unsigned op)
{
    return op == OP_JCC || op == OP_LOOP || op == OP_LOOPE || op == OP_LOOPNE || op == OP_JCXZ;
}

/* Exactly one instruction, of at most `units` iterations if it is a REP. True if it was a branch that was taken. */
static bool run_one(struct vcpu *v, uint64_t units)
{
    const struct block *b = find_block(v);
    uint64_t rip = v->rip;
    if (has_code_limit(v))
        insns_within_limit(v, b);
    v->block = b;
    v->rep_budget = units;
    unsigned slot = run_partial(v, b, 1), op = v->step[0].op;
    if (unlikely(v->debug != NULL))
        debug_note_rep(v, b, 1, rip);
    return is_branch(op) || (is_conditional_branch(op) && slot == 1);
}

/* ---- events at a boundary ---- */

bool vcpu_has_wakeup(const struct vcpu *v)
{
    if (v->activity == VCPU_WAIT_SIPI)
        return v->sipi_pending;
    return monitor_has_wakeup(v) || (v->smi_pending && !v->in_smm) || (v->nmi_pending && !v->nmi_blocked) ||
           (v->init_pending && !v->in_smm) || v->pending_dbg || (v->intr_pin && v->rflags & FLAG_IF);
}

/* Both may be pending: a SIPI that came before the INIT has been dropped already (pin_set()). */
static void take_init_or_sipi(struct vcpu *v)
{
    bool sipi = v->sipi_pending;
    if (v->init_pending)
        vcpu_reset(v, true);
    if (sipi && v->activity == VCPU_WAIT_SIPI) {
        uint8_t vector = v->sipi_vector;
        v->activity = VCPU_RUNNING;
        vcpu_set_segment(v, SEG_CS, (uint16_t)(vector << 8), (uint64_t)vector << 12, 0xffff, v->seg[SEG_CS].attr);
        v->rip = 0;
        vcpu_refresh(v);
    }
    v->sipi_pending = false;
}

static bool take_interrupt(struct vcpu *v)
{
    if (!v->intr_pin || !(v->rflags & FLAG_IF) || v->int_shadow || !v->intc)
        return false;
    int vector = v->intc->ack(v->intc->ctx);
    if (vector < 0)
        return false;
    v->activity = VCPU_RUNNING;
    v->stats.interrupts++;
    vcpu_deliver(v, EVENT_INTERRUPT, (uint8_t)vector, false, 0);
    return true;
}

/* Delivers what is pending, in the order of SDM volume 3, table 6-2 (as far as the sources exist). */
static void take_events(struct vcpu *v)
{
    if (unlikely(v->pv != NULL) && v->activity == VCPU_HALTED && vcpu_has_wakeup(v))
        kvm_pv_enter(v);
    if (v->smi_pending && !v->in_smm && v->activity <= VCPU_HALTED)
        return smm_enter(v);
    if ((v->init_pending && !v->in_smm) || v->sipi_pending)
        take_init_or_sipi(v);
    if (v->activity <= VCPU_HALTED && v->pending_dbg && !v->shadow_is_movss)
        vcpu_deliver_debug(v);
    if (v->nmi_pending && !v->nmi_blocked && !v->shadow_is_movss && v->activity <= VCPU_HALTED) {
        v->nmi_pending = false;
        v->nmi_blocked = true;
        v->activity = VCPU_RUNNING;
        vcpu_deliver(v, EVENT_INTERRUPT, EXC_NMI, false, 0);
    } else if (v->activity <= VCPU_HALTED) {
        take_interrupt(v);
    }
}

static inline bool has_events(const struct vcpu *v)
{
    return v->init_pending || v->sipi_pending || v->smi_pending || v->nmi_pending || v->pending_dbg ||
           (v->intr_pin && v->rflags & FLAG_IF);
}

/* An instruction breakpoint is a fault before its instruction, unless RF lets it pass. */
static void check_exec_breakpoints(struct vcpu *v)
{
    uint64_t hit = v->bp_exec && !(v->rflags & FLAG_RF) ? breakpoints_match_exec(v, fetch_linear(v, v->rip)) : 0;
    if (hit) {
        v->gpr[REG_IP] = v->rip;
        vcpu_raise_debug(v, &fetch_insn, hit);
    }
}

/* Runs up to `end`, one instruction at a time while a shadow, a trap flag or a resume flag asks for it. RF alone, as a
 * REP has it that goes on after an interrupt, does not ask for one iteration at a time. */
static void run_to(struct vcpu *v, uint64_t end)
{
    bool alone =
        v->rflags & FLAG_TF || v->bp_exec || (v->int_shadow && (v->intr_pin || v->nmi_pending || v->pending_dbg));
    bool step = alone || v->rflags & FLAG_RF;
    v->pending_single_step = v->rflags & FLAG_TF;
    v->int_shadow = v->shadow_is_movss = false; /* the handler of STI or MOV SS opens a new one */
    if (!step && unlikely(v->debug != NULL)) {
        run_blocks_debug(v, end);
    } else if (!step) {
        run_blocks(v, end);
    } else {
        check_exec_breakpoints(v);
        v->rflags &= ~FLAG_RF;
        bool branched = run_one(v, alone ? 1 : end - clock_now(v->clock));
        if (v->pending_single_step && !v->shadow_is_movss && (branched || !(v->msr.debugctl & DEBUGCTL_BTF)))
            vcpu_single_step_trap(v);
    }
}

/* vcpu_raise() has unwound to here. */
static void after_fault(struct vcpu *v)
{
    v->int_shadow = v->shadow_is_movss = false;
    v->pending_dbg = 0; /* of an instruction that did not retire */
    if (v->fault.vector == FAULT_FROZEN)
        return;
    v->stats.exceptions++;
    vcpu_deliver_fault(v);
}

static enum vcpu_exit exit_reason(struct vcpu *v, uint64_t end)
{
    uint32_t attn = v->attn;
    v->attn = 0;
    v->turn_over = attn & ATTN_TURN || v->activity != VCPU_RUNNING;
    if (v->activity == VCPU_SHUTDOWN)
        return VCPU_EXIT_SHUTDOWN;
    if (attn & ATTN_STOP)
        return VCPU_EXIT_STOP;
    if (v->activity != VCPU_RUNNING)
        return VCPU_EXIT_IDLE;
    if (attn & ATTN_TURN)
        return VCPU_EXIT_TURN;
    return clock_now(v->clock) >= end ? VCPU_EXIT_BUDGET : VCPU_EXIT_BOUNDARY;
}

static void step_over(struct vcpu *v, uint64_t end)
{
    uint64_t icount = v->clock->icount;
    if (unlikely(v->monitor.waiting) && monitor_has_wakeup(v))
        monitor_wake(v);
    if (has_events(v))
        take_events(v);
    /* A delivery ends at a boundary with events of its own, however many units were asked for. */
    if (v->activity != VCPU_RUNNING || v->clock->icount != icount || v->attn & ATTN_STOP)
        return;
    if (unlikely(v->debug != NULL) && debug_stops(v))
        v->attn |= ATTN_STOP;
    else if (clock_now(v->clock) < end)
        run_to(v, end);
}

static void release_blocks(struct vcpu *v)
{
    v->block = NULL;
    block_free(v->uncached);
    v->uncached = NULL;
    code_cache_collect(v->code);
}

enum vcpu_exit vcpu_run(struct vcpu *v, uint64_t units)
{
    uint64_t now = clock_now(v->clock), end = units > UINT64_MAX - now ? UINT64_MAX : now + units;
    if (v->activity == VCPU_SHUTDOWN)
        return VCPU_EXIT_SHUTDOWN;
    if (unlikely(v->pv != NULL) && (v->activity == VCPU_RUNNING || vcpu_has_wakeup(v)))
        kvm_pv_enter(v);
    if (setjmp(v->fault_jmp))
        after_fault(v);
    else
        step_over(v, end);
    release_blocks(v);
    return exit_reason(v, end);
}

void vcpu_descheduled(struct vcpu *v)
{
    kvm_pv_leave(v);
}

void vcpu_end_turn(struct vcpu *v)
{
    v->attn |= ATTN_BOUNDARY | ATTN_TURN;
}

void vcpu_request_stop(struct vcpu *v)
{
    v->attn |= ATTN_STOP;
}
