/*
 * What the run loop (cpu/run.c) shares with the JIT, which goes from block to block by itself as long as nothing asks
 * for a look at events.
 */
#ifndef CPU_RUN_H
#define CPU_RUN_H

#include "cpu/cpu.h"

struct block;

/* True if something asks for a look at events before the next block: attention, HLT, a shadow, an interrupt that may be
 * taken now because IF was just set, TF or RF. */
static inline bool vcpu_wants_boundary(const struct vcpu *v)
{
    return unlikely(v->attn | v->activity | v->int_shadow | v->bp_exec | v->intr_pin | v->nmi_pending |
                    (v->rflags & (FLAG_TF | FLAG_RF))) &&
           (v->attn || v->activity || v->int_shadow || v->bp_exec || v->nmi_pending ||
            v->rflags & (FLAG_TF | FLAG_RF | FLAG_IF));
}

/* Are the translations that b, found at v->rip, was fetched through in the TLB? Then what is remembered of it is good
 * as long as mmu_vcpu.fetch_epoch and the code cache's generation are what they are now. */
bool vcpu_holds_block(const struct vcpu *v, const struct block *b);

/* The block at v->rip if finding it is a look-up and no more: it is decoded, and the MMU knows its translation (the
 * fetch epoch may be another afterwards). Else NULL: the run loop does what is to be done, and raises what is to be
 * raised. */
struct block *vcpu_known_block(struct vcpu *v);

#endif
