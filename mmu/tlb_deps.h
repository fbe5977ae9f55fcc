/*
 * What keeps the soft TLB coherent where nothing but the TLB is kept of the guest's tables: the engines walk and ept.
 *
 * A TLB entry records the guest entries that it was walked from (tlb_meta.dep, leaf first). Each table page among them
 * is tracked (TRACK_PT), and a write to one drops exactly the TLB entries that depend on the guest entries written.
 *
 * For each such table page a dep_table says which of its entries anything may depend on (a bit each: most writes to a
 * page table concern none), and where the page maps, so that a drop looks at few slots. For each gfn two hints say at
 * which gvas TLB entries may map it, so that write-protecting or dropping a gfn needs no scan. Bits and hints may say
 * too much, never too little.
 *
 * A page that ceased to be a table is noticed by its writes: after many that found nothing it is looked through and
 * released.
 *
 * All functions are called with the MMU lock held, except tlb_deps_note_fault().
 */
#ifndef MMU_TLB_DEPS_H
#define MMU_TLB_DEPS_H

#include "mmu/audit.h"
#include "mmu/engine.h"

struct tlb_deps;

/* Its memory is counted in `bytes`. */
struct tlb_deps *tlb_deps_create(struct account *bytes);
/* Releases all tables (their tracking ends). */
void tlb_deps_destroy(struct mmu *mmu, struct tlb_deps *s);

/* The walk's tables become tracked, and its entries the dependencies of the fill. False: an A bit could not be set
 * (tables in read-only memory), so nothing may rely on the walk. */
bool tlb_deps_note_tables(struct mmu_vcpu *mv, struct tlb_deps *s, const struct gwalk *w, struct tlb_fill *f);
/* Called before the fill is installed: remembers at which gva its gfn is mapped. */
void tlb_deps_note_fill(struct mmu *mmu, struct tlb_deps *s, unsigned as, const struct tlb_fill *f);
/* A faulting walk may have set A bits in pages that other translations read with another entry size. Takes the lock. */
void tlb_deps_note_fault(struct mmu_vcpu *mv, struct tlb_deps *s, const struct gwalk *w);

/* What the engine's operations of the same names need. */
void tlb_deps_protect_gfn(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t gfn);
void tlb_deps_pt_write(struct mmu *mmu, struct tlb_deps *s, unsigned as, gpa_t gpa, size_t len);
/* Drops the entries that map these gfns, and (zap) those that were walked from tables there. True: there were some. */
bool tlb_deps_drop_gfns(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t start, uint64_t pages);
bool tlb_deps_zap_gfns(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t start, uint64_t pages);
void tlb_deps_zap_all(struct mmu *mmu, struct tlb_deps *s);
/* Every guest entry that a TLB entry was made from lies in a tracked page whose bit says so (invariant 7). */
void tlb_deps_audit(struct audit *a, const struct tlb_deps *s);

#endif
