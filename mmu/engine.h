/*
 * Inside the mmu floor: the interface between the common part (mem, track, tlb, walker, mmu.c) and a translation engine
 * (walk.c, shadow/...). Not for cpu or machine.
 */
#ifndef MMU_ENGINE_H
#define MMU_ENGINE_H

#include "core/host/host_mm.h"
#include "core/log.h"
#include "core/trace.h"
#include "mmu/gwalk.h"
#include "mmu/mmu.h"

struct memslot {
    unsigned as;
    gfn_t base;
    uint64_t pages;
    hva_t hva;
    enum memslot_kind kind;
    void *rmap; /* the shadow engine's rmap chunks for this slot; NULL otherwise */
};

/* All of one vCPU's tables for one root. */
struct tlb_set {
    struct paging_regs key;  /* regs with cpl, ac and irrelevant bits normalised away */
    bool valid;
    uint64_t used;           /* LRU stamp (a counter) */
    struct tlb_entry *data[TLB_MODES];       /* NULL until first used */
    struct tlb_meta *data_meta[TLB_MODES];
    struct tlb_fetch_entry *fetch[2];
    struct tlb_meta *fetch_meta[2];
    void *root;              /* the engine's root for this key */
};

struct mmu_stats {
    uint64_t tlb_misses, faults_injected, guest_walks, shadow_faults, fills, zaps, tracked_writes, root_switches, root_misses,
        tlb_flushes, tlb_drops, sp_created, sp_zapped, mmio_faults, retries, write_protects, large_fills;
};

struct mmu_ops {
    const char *name;
    int (*init)(struct mmu *mmu);
    void (*fini)(struct mmu *mmu);
    /* A set gets a key: provide set->root. */
    void (*root_get)(struct mmu_vcpu *mv, struct tlb_set *set);
    /* A set is being recycled or dropped: its root may go. */
    void (*root_put)(struct mmu_vcpu *mv, struct tlb_set *set);
    /* TLB miss. */
    enum xlate_result (*translate)(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out);
    /* The gfn has become tracked: no translation may permit unseen writes to it any longer. */
    void (*protect_gfn)(struct mmu *mmu, unsigned as, gfn_t gfn);
    /* A guest write reached a gfn tracked as PT. */
    void (*pt_write)(struct mmu *mmu, unsigned as, gpa_t gpa, const void *bytes, size_t len);
    /* Drop every translation to these gfns (host invalidation, slot deletion). True if anything was dropped. */
    bool (*zap_gfns)(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages);
    void (*zap_all)(struct mmu *mmu);
    unsigned (*audit)(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx);
};

struct stale_tlb;

struct mmu {
    const struct mmu_ops *ops;
    struct mem *mem;
    struct host_mm *mm;
    const struct log *log;
    struct trace *trace;      /* never NULL inside: points at a disabled one when none was given */
    unsigned vcpu_count;
    struct mmu_vcpu *vcpus;
    struct tlb_set *sets;     /* vcpu_count * TLB_SETS */
    struct notifier notifier; /* our subscription */
    /* Retry protocol (Linux: mmu_notifier_seq, mmu_notifier_count, range start/end), under the MMU lock. */
    uint64_t invalidate_seq;
    unsigned invalidate_in_progress;
    hva_t invalidate_start, invalidate_end;
    struct track_listener pt_listener;
    struct stale_tlb *stale;  /* NULL unless staletlb */
    uint64_t max_shadow_pages;
    struct mmu_stats stats;
    void *engine;             /* the engine's state */
};

extern const struct mmu_ops mmu_walk_ops, mmu_shadow_ops;

void mmu_lock(struct mmu *mmu);
void mmu_unlock(struct mmu *mmu);
/* Linux: mmu_notifier_retry_hva. True: an invalidation of hva is in flight or has finished since `seq` was read. MMU lock held. */
bool mmu_notifier_retry(const struct mmu *mmu, uint64_t seq, hva_t hva);

/* memslot look-ups (mmu/memslot.c). */
struct memslot *memslot_find(const struct mem *m, unsigned as, gfn_t gfn);
/* Calls fn for each part of [start, end) that a slot maps (all address spaces). Linux: kvm_handle_hva_range. */
void memslot_for_each_hva(struct mem *m, hva_t start, hva_t end, void (*fn)(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages),
                          void *ctx);
/* Every slot, in order of (as, base). Returns the number of slots; slot i through memslot_at. */
size_t memslot_count(const struct mem *m);
struct memslot *memslot_at(const struct mem *m, size_t i);
static inline hva_t memslot_hva(const struct memslot *s, gfn_t gfn)
{
    return s->hva + ((gfn - s->base) << PAGE_SHIFT);
}
/* Which engine the memory's tracking tells (one). */
void mem_set_mmu(struct mem *m, struct mmu *mmu);
unsigned track_count(const struct mem *m, unsigned as, gfn_t gfn, enum track_kind kind);
/* Any gfn of the 2 MiB / 1 GiB frame around gfn tracked? level 2 or 3. Linux: has_wrprotected_page. Costs what the range holds. */
bool track_any_in_large(const struct mem *m, unsigned as, gfn_t gfn, int level);

/* Filling and dropping TLB entries (mmu/tlb.c). The table is that of `mode` in mv->set, made on first use. */
struct tlb_fill {
    gva_t gva;
    gpa_t gpa;      /* page aligned */
    void *host;     /* of the page; NULL: nothing may be installed for data */
    bool read, write, fetch; /* which tags to set */
    bool write_emul;         /* TLB_GPA_WRITE_EMUL */
    struct tlb_meta meta;
};
enum tlb_mode tlb_mode_of(const struct paging_regs *r, unsigned access);
void tlb_install(struct mmu_vcpu *mv, enum tlb_mode mode, const struct tlb_fill *f);
/* Drops entries made from the dependency `dep` in all sets of all vCPUs. low9: the gva bits 12..20 it maps, or -1 for all. */
unsigned tlb_drop_dep(struct mmu *mmu, uint64_t dep, int low9);
/* Drops all entries whose gpa is in the page range. */
unsigned tlb_drop_gfns(struct mmu *mmu, gfn_t start, uint64_t pages);
void tlb_flush_all(struct mmu *mmu);
/* Clears every table of the set. */
void tlb_set_clear(struct mmu_vcpu *mv, struct tlb_set *set);

/* The missing-flush detector (mmu/staletlb.c). All are no-ops when it is off (mmu->stale NULL). */
void stale_note_fill(struct mmu_vcpu *mv, gva_t gva, const struct gwalk *w, unsigned access);
void stale_note_fault(struct mmu_vcpu *mv, gva_t gva, const struct gwalk *w, unsigned access);

#endif
