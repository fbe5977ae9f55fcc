/*
 * From the end of one block straight into the next, without the run loop.
 *
 * vcpu_chain_on() retires the instruction and, if nothing asks for a look at events and the whole next block fits into
 * the units that are left, runs that block in tail position; else it returns to run_blocks() (cpu/run.c), which does
 * what is to be done. So a chain changes no boundary, only who arrives there. It is open between chain_open() and
 * chain_close(): while the run loop runs whole blocks.
 *
 * Only near branches and the ends of blocks that were cut may chain: they change nothing of what vcpu_wants_boundary()
 * looks at, and it was clear when the block began.
 */
#ifndef CPU_INTERP_CHAIN_H
#define CPU_INTERP_CHAIN_H

#include "cpu/code_cache.h"
#include "cpu/interp/interp.h"

/* Where calls in tail position may not become jumps, a chain would eat up the stack. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CHAIN_BLOCKS 1
#else
#define CHAIN_BLOCKS 0
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef CHAIN_BLOCKS
#define CHAIN_BLOCKS 0
#endif
#endif

/* Blocks may follow each other until the clock reads `end`. */
static inline void chain_open(struct vcpu *v, uint64_t end)
{
    v->chain_end = end;
    v->chain_epoch = v->mv->fetch_epoch;
}

static inline void chain_close(struct vcpu *v)
{
    v->chain_epoch = CHAIN_CLOSED;
}

static inline struct jump_entry *jump_slot(struct vcpu *v, uint64_t rip)
{
    return &v->jump[(rip ^ rip >> JUMP_BITS) & ((1u << JUMP_BITS) - 1)];
}

/* The block at rip, if it was found before and is still there; else NULL. */
static inline struct block *jump_find(struct vcpu *v, uint64_t rip)
{
    const struct jump_entry *j = jump_slot(v, rip);
    bool hit = j->rip == rip && j->base == v->seg_base[SEG_CS] && j->epoch == v->mv->fetch_epoch &&
               j->mode == v->mode && j->generation == *v->code_generation;
    return likely(hit) ? j->block : NULL;
}

/* Does all of b, which begins at v->rip, lie within CS's limit? */
static inline bool chain_within_limit(const struct vcpu *v, const struct block *b)
{
    const struct insn *last = &b->insn[b->n - 1];
    return v->mode & (MODE_CODE64 | MODE_FLAT) || v->rip + last->off + last->len <= (uint64_t)v->seg[SEG_CS].limit + 1;
}

static inline __attribute__((always_inline)) void vcpu_enter_next(struct vcpu *v, unsigned slot)
{
    if (unlikely(!CHAIN_BLOCKS || v->chain_epoch != v->mv->fetch_epoch || v->attn))
        return;
    const struct block *b = slot < 2 ? v->block->next[slot] : NULL;
    if (slot == 2 || !b)
        b = jump_find(v, v->rip);
    if (unlikely(!b || !chain_within_limit(v, b)))
        return;
    uint64_t left = v->chain_end - clock_now(v->clock);
    if (unlikely((int64_t)left < (int64_t)b->n))
        return;
    v->block = b;
    v->gpr[REG_IP] = v->rip;
    v->rep_budget = left - b->n + 1;
    v->stats.blocks++;
    return b->insn[0].fn(v, b->insn);
}

static inline __attribute__((always_inline)) void vcpu_chain_on(struct vcpu *v, const struct insn *i, uint64_t rip,
                                                                unsigned slot)
{
    block_end(v, i, rip, slot);
    return vcpu_enter_next(v, slot);
}

#endif
