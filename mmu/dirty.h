/*
 * Dirty logging: which pages of a memslot were written, by whomever (Linux: KVM_MEM_LOG_DIRTY_PAGES, dirty_ring.c).
 *
 * A slot is logged in one of two forms. Write protection: clean pages are mapped read-only, the first write to each is
 * a fault that marks it and is answered from the spte alone. Dirty bit: pages stay writable, the spte's D bit is set
 * when a write goes through it, and the bits are collected when the log is asked for. What both see in the same run is
 * the same set of pages.
 *
 * The log of a slot is a bitmap, to be got and cleared. With rings, pages written by a vCPU go into its ring instead,
 * each once until the ring is reset; those of other writers (DMA, loaders), and what a full ring has no room for, stay
 * in the bitmap, so nothing is ever lost. A ring says that it is nearly full before it is: the vCPU should then stop
 * and have it emptied.
 *
 * All engines do this. In EPT mode the D bits are those of EPT entries, collected through the page-modification log (of
 * all memory: mmu/ept/ept.h); a guest's page tables count as written there as soon as they are walked, as on a
 * processor. `-mmu walk` has no entries: a clean page has no write tag in the TLB. Logging ends with the slot.
 */
#ifndef MMU_DIRTY_H
#define MMU_DIRTY_H

#include "mmu/mmu.h"

enum dirty_form { DIRTY_WRITE_PROTECT, DIRTY_BIT };

/* What a slot's log keeps; struct memslot.dirty. */
struct dirty_log {
    enum dirty_form form;
    uint64_t *bitmap; /* a bit for each page */
    uint64_t *ringed; /* with rings: pages that are in one, or were harvested and wait for the reset; else NULL */
};

/* Starts logging of the slot that begins at gpa: nothing is dirty yet. 0; MEMSLOT_ERR_ABSENT; MEMSLOT_ERR_NOMEM;
 * MEMSLOT_ERR_UNSUPPORTED: rings with DIRTY_BIT. Starting again starts anew. */
int mem_dirty_log_start(struct mem *m, unsigned as, gpa_t gpa, enum dirty_form form);
/* Large pages may come back afterwards (Linux: kvm_mmu_zap_collapsible_sptes). */
int mem_dirty_log_stop(struct mem *m, unsigned as, gpa_t gpa);
/* Copies the slot's bitmap to `out`, which has a bit for each page of the slot in words of 64, and starts anew. Returns
 * the number of dirty pages, or a negative memslot error. Linux: kvm_get_dirty_log_protect. */
int64_t mem_dirty_log_get_and_clear(struct mem *m, unsigned as, gpa_t gpa, uint64_t *out);

/* ---- rings ---- */

struct dirty_gfn {
    unsigned as;
    gfn_t gfn;
};

#define DIRTY_RING_MIN 64
#define DIRTY_RING_MAX 65536
#define DIRTY_RING_RESERVED                                                                                            \
    16 /* entries that one instruction and its walks may need: soft-full is that much earlier                          \
        */

/* Gives each vCPU a ring of `entries`, a power of two from DIRTY_RING_MIN to DIRTY_RING_MAX. Before any logging. False:
 * another number, logging runs, or rings are there. */
bool mem_dirty_rings_create(struct mem *m, unsigned vcpus, unsigned entries);
/* The vCPU should stop and have its ring emptied. Linux: kvm_dirty_ring_soft_full, KVM_EXIT_DIRTY_RING_FULL. */
bool mem_dirty_ring_is_soft_full(const struct mem *m, unsigned vcpu);
/* Takes up to `max` entries, in the order in which the pages became dirty. Their pages stay writable until the reset.
 */
size_t mem_dirty_ring_harvest(struct mem *m, unsigned vcpu, struct dirty_gfn *out, size_t max);
/* The harvested pages of all rings are clean again: their next write is seen. Linux: kvm_dirty_ring_reset. */
void mem_dirty_rings_reset(struct mem *m);

/* ---- for the mmu floor ---- */

struct memslot;

/* The page was written. `vcpu` is the writer, or -1. */
void dirty_mark(struct mem *m, struct memslot *s, gfn_t gfn, int vcpu);
void dirty_mark_gfn(struct mem *m, unsigned as, gfn_t gfn, int vcpu);
/* Is it known to be dirty? */
bool dirty_is_marked(const struct memslot *s, gfn_t gfn);
/* The slot goes. */
void dirty_log_free(struct mem *m, struct memslot *s);
void dirty_rings_free(struct mem *m);

#endif
