/*
 * Inside the mmu floor: the interface between the common part (mem, track, tlb, walker, mmu.c) and a translation engine
 * (walk.c, shadow/...). Not for cpu or machine.
 */
#ifndef MMU_ENGINE_H
#define MMU_ENGINE_H

#include "core/account.h"
#include "core/host/host_mm.h"
#include "core/log.h"
#include "core/trace.h"
#include "mmu/gwalk.h"
#include "mmu/mmu.h"

#include <pthread.h>

struct memslot {
    unsigned as;
    gfn_t base;
    uint64_t pages;
    hva_t hva;
    enum memslot_kind kind;
    struct dirty_log *dirty; /* mmu/dirty.h; NULL: not logged */
    void *rmap;              /* the shadow engine's rmap chunks for this slot; NULL otherwise */
};

#define TLB_FILTER_WORDS 64

/* All of one vCPU's tables for one root. */
struct tlb_set {
    struct paging_regs key; /* regs with cpl, ac and irrelevant bits normalised away */
    bool valid;
    uint64_t used;                     /* LRU stamp (a counter) */
    struct tlb_entry *data[TLB_MODES]; /* NULL until first used */
    struct tlb_meta *data_meta[TLB_MODES];
    struct tlb_fetch_entry *fetch[2];
    struct tlb_meta *fetch_meta[2];
    uint64_t fetch_epoch[2]; /* see mmu_vcpu.fetch_epoch */
    bool common;             /* supervisors fetch through the vCPU's common set */
    void *root;              /* the engine's root for this key */
    uint64_t eptp;           /* -mmu ept: what the entries are tagged with; else 0 */
    uint16_t vpid;
    /* tlb.c's own. A bit for each 64 data (16 fetch) slots that may hold an entry: flushing what is empty is free. */
    uint64_t data_used[TLB_MODES], fetch_used[2];
    /* Bloom filter over the pages (dep >> 12) that entries of this set were made from: most drops skip most sets. */
    uint64_t dep_filter[TLB_FILTER_WORDS];
};

struct mmu_stats {
    uint64_t tlb_misses, faults_injected, guest_walks, shadow_faults, fills, zaps, tracked_writes, root_switches,
        root_misses, tlb_flushes, tlb_drops, sp_created, sp_zapped, mmio_faults, retries, write_protects,
        large_fills,    /* leaves above 4 KiB */
        gigantic_fills, /* of them those of 1 GiB */
        stale_reports;
};

/* Memory that the MMU needs of its own. */
struct mmu_bytes {
    struct account tlb;    /* all vCPUs' TLBs */
    struct account deps;   /* what the TLBs of walk and ept depend on */
    struct account tables; /* shadow pages with their guest entries, or EPT tables */
};

/* Linux: test_young, clear_young, clear_flush_young. */
enum mmu_age { MMU_AGE_TEST, MMU_AGE_CLEAR, MMU_AGE_CLEAR_FLUSH };

/* What the engine does to the mappings of logged gfns (mmu/dirty.c). */
enum dirty_op {
    DIRTY_OP_START,   /* logging begins: everything is clean */
    DIRTY_OP_CLEAN,   /* these are clean again: the next write must be seen */
    DIRTY_OP_COLLECT, /* what is written and not in the log yet goes into it */
    DIRTY_OP_STOP     /* logging has ended; called with the host_mm lock */
};

/*
 * Locking: translate and read_phys are called without the MMU lock (it must not be held across gup); every other
 * operation is called with it. The lock is recursive to its owner. An engine that is asked for something under the lock
 * may call track_add/track_remove and tlb_*.
 *
 * zap_all is called when no set holds a root: the common part has put every root and cleared every table, and asks for
 * the roots of the current sets again afterwards.
 */
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
    /* May be NULL. Fills the TLB if the engine's own tables permit the access; nothing else. */
    bool (*known)(struct mmu_vcpu *mv, gva_t gva, unsigned access);
    /* The gfn has become tracked: no translation may permit unseen writes to it any longer. */
    void (*protect_gfn)(struct mmu *mmu, unsigned as, gfn_t gfn);
    /* A guest write reached a gfn tracked as PT. */
    void (*pt_write)(struct mmu *mmu, unsigned as, gpa_t gpa, const void *bytes, size_t len);
    /* Drop every translation to these gfns (host invalidation, slot deletion). True if anything was dropped. */
    bool (*zap_gfns)(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages);
    void (*zap_all)(struct mmu *mmu);
    /* May be NULL. Frees up to `pages` table pages, the oldest first; the number freed. */
    uint64_t (*shrink)(struct mmu *mmu, uint64_t pages);
    /* May be NULL: no dirty logging. The gfns lie in the slot, slot->dirty says in which form (STOP: it is NULL
     * already). */
    void (*dirty_log)(struct mmu *mmu, struct memslot *slot, gfn_t start, uint64_t pages, enum dirty_op op);
    unsigned (*audit)(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx);
    /* May be NULL. The slot (zapped before) is about to be freed: frees slot->rmap. At fini the engine does it for the
     * slots that are left. */
    void (*slot_free)(struct mmu *mmu, struct memslot *slot);
    /* May be NULL. Nobody tracks the gfn any longer: the next write through each of its translations may find that out.
     */
    void (*unprotect_gfn)(struct mmu *mmu, unsigned as, gfn_t gfn);
    /* May be NULL (then young is what was mapped, and it is zapped). Were the gfns accessed since the last time? */
    bool (*age_gfns)(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, enum mmu_age how);
    /* May be NULL (zap). The gfn gets another frame of the same content. Linux: kvm_set_spte_hva. */
    void (*change_pte)(struct mmu *mmu, unsigned as, gfn_t gfn, struct hpte_view hpte);
    /* May be NULL. The frames of the range change: who holds one by other means than sptes lets go of it. */
    void (*invalidate_range)(struct mmu *mmu, hva_t start, hva_t end);
    /* May be NULL (mem_access). A read by the processor itself with no gva: PDPTEs. Within a page. */
    enum mem_result (*read_phys)(struct mmu_vcpu *mv, gpa_t gpa, void *buf, size_t len);
    /* May be NULL. The guest flushed. */
    void (*guest_flush)(struct mmu_vcpu *mv, enum guest_flush what, gva_t gva);
    /* May be NULL. Prints how gpa is translated on. */
    void (*print_stage2)(struct mmu_vcpu *mv, gpa_t gpa, void (*line)(void *ctx, const char *text), void *ctx);
    /* May be NULL. The engine's own counters. */
    void (*register_stats)(struct mmu *mmu, struct stats *s);
};

struct stale_tlb;

struct mmu {
    const struct mmu_ops *ops;
    struct mem *mem;
    struct host_mm *mm;
    const struct log *log;
    struct trace *trace; /* never NULL inside: points at a disabled one when none was given */
    unsigned vcpu_count;
    struct mmu_vcpu *vcpus;
    struct tlb_set *sets;     /* vcpu_count * TLB_ALL_SETS */
    struct notifier notifier; /* our subscription */
    /* Retry protocol (Linux: mmu_notifier_seq, mmu_notifier_count, range start/end), under the MMU lock. */
    uint64_t invalidate_seq;
    unsigned invalidate_in_progress;
    hva_t invalidate_start, invalidate_end;
    bool unsync;   /* translations may be as old as the guest's last flush */
    bool released; /* the host is heard no more: nothing may be mapped */
    struct track_listener pt_listener;
    mmu_event_fn *event_hook; /* NULL, or called after each event */
    void *event_ctx;
    struct stale_tlb *stale; /* NULL unless staletlb */
    uint64_t max_shadow_pages;
    struct mmu_stats stats;
    struct mmu_bytes bytes;
    void *engine;         /* the engine's state */
    pthread_mutex_t lock; /* mmu_lock(); recursive to its owner */
    /* Tables without any entry, never written: what a vCPU uses until a set has its own. */
    struct tlb_entry *empty_data;
    struct tlb_fetch_entry *empty_fetch;
    uint64_t set_clock; /* gives tlb_set.used */
};

extern const struct mmu_ops mmu_walk_ops, mmu_shadow_ops, mmu_ept_ops;

void mmu_lock(struct mmu *mmu);
void mmu_unlock(struct mmu *mmu);
/* Linux: mmu_notifier_retry_hva. True: an invalidation of hva is in flight or has finished since `seq` was read. MMU
 * lock held. */
bool mmu_notifier_retry(const struct mmu *mmu, uint64_t seq, hva_t hva);

/* memslot look-ups (mmu/memslot.c). */
struct memslot *memslot_find(const struct mem *m, unsigned as, gfn_t gfn);
/* The slot that starts at gpa, or NULL. */
struct memslot *memslot_at_gpa(const struct mem *m, unsigned as, gpa_t gpa);
/* Calls fn for each part of [start, end) that a slot maps (all address spaces). Linux: kvm_handle_hva_range. */
void memslot_for_each_hva(struct mem *m, hva_t start, hva_t end,
                          void (*fn)(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages), void *ctx);
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
/* Any gfn of the 2 MiB / 1 GiB frame around gfn tracked? level 2 or 3. Linux: has_wrprotected_page. Costs what the
 * range holds. */
bool track_any_in_large(const struct mem *m, unsigned as, gfn_t gfn, int level);

/* Filling and dropping TLB entries (mmu/tlb.c). The table is that of `mode` in mv->set, made on first use. */
struct tlb_fill {
    gva_t gva;
    gpa_t gpa;               /* page aligned */
    void *host;              /* of the page; NULL: nothing may be installed for data */
    bool read, write, fetch; /* which tags to set */
    bool write_emul;         /* TLB_GPA_WRITE_EMUL */
    struct tlb_meta meta;
};
/* Sets cur_data from mode and data_bypass. */
void tlb_select_data(struct mmu_vcpu *mv);
enum tlb_mode tlb_mode_of(const struct paging_regs *r, unsigned access);
void tlb_install(struct mmu_vcpu *mv, enum tlb_mode mode, const struct tlb_fill *f);
/* Drops entries made from the dependency `dep` in all sets of all vCPUs: a scan. Returns the number of entries dropped.
 */
unsigned tlb_drop_dep(struct mmu *mmu, uint64_t dep);
/* The same for the dependency of 4 KiB pages whose gva bits 12..20 are low9 and whose ways are all in `ways`: only
 * dep[0] of those slots is compared. */
unsigned tlb_drop_leaf(struct mmu *mmu, uint64_t dep, unsigned low9, uint8_t ways);
/* Drops all entries whose gpa is in the page range. */
unsigned tlb_drop_gfns(struct mmu *mmu, gfn_t start, uint64_t pages);
void tlb_flush_all(struct mmu *mmu);
/* What the functions below do to an entry. */
enum tlb_action {
    TLB_TEST,       /* count the entry */
    TLB_TEST_WRITE, /* count it if it has the write tag */
    TLB_PROTECT,    /* take its write tag and set TLB_GPA_WRITE_EMUL */
    TLB_DROP
};
/* Applies `action` to the entries of gva's page (the fetch tables: DROP and TEST only) that map gfn. Touches one slot a
 * table. Returns the number of entries that it applied to. */
unsigned tlb_page_apply(struct mmu *mmu, gva_t gva, gfn_t gfn, enum tlb_action action);
/* The same for every entry whose gpa is in the page range, wherever it is: a scan of what the tables hold. */
unsigned tlb_gfns_apply(struct mmu *mmu, gfn_t start, uint64_t pages, enum tlb_action action);
/* Drops entries with any dependency in the 4 KiB page `dep_page` (dep >> 12). */
unsigned tlb_drop_dep_page(struct mmu *mmu, uint64_t dep_page);
/* As tlb_drop_dep, for a dependency that maps only [gva, gva + pages * 4096), aligned to its size. */
unsigned tlb_drop_dep_range(struct mmu *mmu, uint64_t dep, gva_t gva, uint64_t pages);
/* Drops what this vCPU has cached for gva's page, in every set. */
void tlb_vcpu_drop_page(struct mmu_vcpu *mv, gva_t gva);
/* Calls fn for each live data entry (fetch NULL) and fetch entry (data NULL); what is common once for each set that is.
 * For audits and debuggers. */
typedef void tlb_visit_fn(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                          const struct tlb_entry *data, const struct tlb_fetch_entry *fetch,
                          const struct tlb_meta *meta);
void tlb_for_each(struct mmu *mmu, tlb_visit_fn *fn, void *ctx);
/* Setting up and taking down all sets of an mmu (mmu.c). Init returns 0 or -1 (out of memory). */
int tlb_init(struct mmu *mmu);
void tlb_fini(struct mmu *mmu);
/* Points mv->data, mv->fetch and the current tables at those of mv->set and of regs' mode; and fetch_epoch likewise. */
void tlb_vcpu_switch(struct mmu_vcpu *mv);
/* Only the fetch table, after a change of CPL. */
void tlb_select_fetch(struct mmu_vcpu *mv);
/* The set is in common with others of its vCPU, or no longer; its own supervisors' fetch table is empty. A common set
 * has no entry below the middle of the address space there. */
void tlb_set_common(struct mmu *mmu, struct tlb_set *set, bool common);
static inline struct mmu_vcpu *tlb_set_vcpu(const struct mmu *mmu, const struct tlb_set *set)
{
    return &mmu->vcpus[(size_t)(set - mmu->sets) / TLB_ALL_SETS];
}
static inline struct tlb_set *tlb_common_set(const struct mmu_vcpu *mv)
{
    return &mv->mmu->sets[mv->index * TLB_ALL_SETS + TLB_SETS];
}
/* Clears every table of the set. */
void tlb_set_clear(struct mmu_vcpu *mv, struct tlb_set *set);

/* The missing-flush detector (mmu/staletlb.c). All are no-ops when it is off (mmu->stale NULL). */
void stale_note_fill(struct mmu_vcpu *mv, gva_t gva, const struct gwalk *w, unsigned access);
void stale_note_fault(struct mmu_vcpu *mv, gva_t gva, const struct gwalk *w, unsigned access);
struct stale_tlb *stale_create(unsigned vcpus);
void stale_destroy(struct stale_tlb *s);
/* The guest flushed. Forgets what was covered; true if a large page was among it. */
bool stale_note_flush(struct mmu_vcpu *mv, enum guest_flush what, unsigned pcid, gva_t gva);
/* The registers were loaded; true if another PCID is current now. */
bool stale_set_pcid(struct mmu_vcpu *mv);

#endif
