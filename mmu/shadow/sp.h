/*
 * Shadow pages (Linux: struct kvm_mmu_page): tables of 512 sptes, found by guest frame and role.
 *
 * An indirect shadow page shadows a guest table: its gfn is tracked (TRACK_PT) for as long as it lives, and for each
 * spte it keeps the guest entry that the spte was made from. A direct one maps consecutive gfns: below a guest large
 * page whose frames are not contiguous, or everything while paging is off; nothing is tracked for it.
 *
 * All pages come from one arena reserved at start, so making one cannot fail once shadow_make_room() found a free one.
 * An spte's address gives its shadow page and the place of its guest entry by arithmetic.
 *
 * Invariants (audited): a live page is in the hash and on the active list once; every link to it is in its parents list
 * once and the reverse; `used` counts its sptes that are not empty; `root_count` counts the roots that name it.
 */
#ifndef MMU_SHADOW_SP_H
#define MMU_SHADOW_SP_H

#include "mmu/shadow/rmap.h"
#include "mmu/shadow/spte.h"

#define SP_ENTRIES 512

/*
 * All that selects a shadow page besides the gfn. Fields which cannot matter for a page are zero in it, so that it is
 * shared where it can be. CR0.WP, SMEP and SMAP are not here: rights in the sptes are the guest's own, the TLB fill
 * applies those bits.
 */
union sp_role {
    uint64_t word;
    struct {
        uint64_t level : 3;  /* of its sptes: 1..5 */
        uint64_t format : 3; /* enum paging_format of the guest table; PAGING_NONE for a direct page */
        uint64_t direct : 1;
        uint64_t access : 3;     /* ACC_*: rights of the guest entries above, combined; a direct page: and its leaf */
        uint64_t dirty : 1;      /* direct: D of the guest's large entry */
        uint64_t pkey : 4;       /* direct: protection key of the guest's large entry */
        uint64_t quadrant : 2;   /* 32-bit guests: which part of the guest's 1024 entries */
        uint64_t nxe : 1;        /* EFER.NXE: bit 63 is XD, not reserved */
        uint64_t pse : 1;        /* 32-bit: CR4.PSE */
        uint64_t pse36 : 1;      /* 32-bit: 4 MiB pages have 40-bit addresses */
        uint64_t page1g : 1;     /* the guest may use 1 GiB pages */
        uint64_t maxphyaddr : 6; /* where reserved address bits start */
        uint64_t smm : 1;        /* address space */
        uint64_t a20 : 1;        /* address line 20 is masked */
        uint64_t unused : 35;    /* named, so that an initialiser defines it */
    };
};
_Static_assert(sizeof(union sp_role) == 8, "a role is compared as one word");

struct sp {
    gfn_t gfn;
    union sp_role role;
    /* Indirect: the bytes of the guest's table, in the frame that the host has for gfn. Kept true as an spte's frame
     * is: an invalidation that covers the gfn zaps the page before the frame may change, change_pte re-points it. So a
     * table is read under the MMU lock without asking the host_mm, whose lock comes before. */
    const uint8_t *table;
    uint32_t index;
    uint32_t hash_next;                /* index, 0 ends */
    uint32_t active_prev, active_next; /* index; oldest first */
    uint32_t touched_next;             /* the audit's list of pages changed since it last looked */
    uint16_t used;                     /* sptes that are not empty */
    uint32_t generation;               /* shadow.valid_generation when it was made */
    uint8_t write_flood;               /* tracked writes since the page was last used */
    uint8_t tlb_ways;                  /* level 1: where in the TLB's tables its entries are (tlb_way_bit) */
    bool live, touched;
    bool unsync;                       /* its table is not tracked for it; see unsync.c */
    uint32_t unsync_prev, unsync_next; /* index */
    uint32_t root_count;
    struct spte_list parents; /* sptes that link to it */
};

/* The engine's root of one TLB set: the shadow pages at the top, looked up again whenever they are missing. */
struct shadow_root {
    struct shadow_root *next, *prev; /* all roots of the engine */
    struct tlb_set *set;             /* what it is the root of */
    union sp_role role;              /* of the top pages, but for the quadrant */
    uint8_t tops;                    /* 1, or 4 where gva bits 30 and 31 choose among them (32-bit, PAE, no paging) */
    bool has[4];                     /* PAE: the PDPTE register is present */
    bool common;                     /* common.c */
    gfn_t gfn[4];
    uint32_t sp[4]; /* index, 0: none at the moment */
};

/* What -stats shows of the shadow engine besides struct mmu_stats. */
struct shadow_stats {
    uint64_t pages;           /* live shadow pages */
    uint64_t recycled;        /* pages zapped for want of room */
    uint64_t shrunk;          /* pages given back on request */
    uint64_t obsolete_zapped; /* pages of an older generation that were zapped since */
    uint64_t fast_zaps;       /* generations */
    uint64_t fast_faults;     /* write faults of dirty logging that the spte alone answered */
    uint64_t rmap_recycles;   /* rmaps that were zapped for their length */
    uint64_t aged;            /* sptes whose accessed state was taken */
    uint64_t unsyncs, syncs;  /* pages that went out of sync, and were brought up to date */
    uint64_t prefetches;      /* sptes made along with a neighbour's */
    uint64_t repointed;       /* sptes that change_pte gave another frame */
    uint64_t commons;         /* times that a root joined others */
};

/* The roots that are in common. */
struct shadow_common {
    unsigned roots;         /* how many there are */
    struct paging_regs key; /* what must be the same besides the tables; means nothing without roots */
};

struct shadow {
    struct mmu *mmu;
    struct frame_pool *pool;
    /* The arena: `limit` pages, of which index 0 is never used. */
    uint32_t limit;
    uint64_t *spts;  /* limit * SP_ENTRIES sptes */
    uint64_t *gptes; /* as many guest entries (indirect pages) */
    struct sp *pages;
    uint32_t free_head, free_count; /* linked through hash_next; and those from `fresh` on */
    uint32_t fresh;                 /* pages from here on were never used: their memory was never touched */
    uint32_t *hash;
    uint32_t hash_mask;
    uint32_t indirect_of_4, indirect_of_8; /* live indirect pages by the size of their guest entries */
    uint32_t active_first, active_last, active_count;
    uint32_t touched;
    uint32_t unsync_first; /* index of an unsync page; 0: none */
    struct shadow_root *roots;
    union sp_role *set_role; /* of each TLB set's key: the role of its top pages, which outlives its root */
    struct shadow_common common;
    struct spte_desc_cache descs;
    unsigned batch; /* depth of shadow_batch_begin() */
    unsigned batch_drops;
    bool flush_pending;
    uint64_t mmio_generation; /* memslot generation that was last seen by a fault */
    /* Pages of another generation are obsolete: no root and no look-up finds them, faults zap them a few at a time.
     * (Linux: mmu_valid_gen, is_obsolete_sp) */
    uint32_t valid_generation;
    /* NULL, or called without a lock between the steps of a fault: the test of interleavings is other threads there. */
    void (*step_hook)(void *ctx);
    void *step_ctx;
    struct shadow_stats stats;
};

#define PREFETCH_GROUP 8u

/* A page beside the one that faults. */
struct prefetch {
    unsigned index; /* of its spte */
    uint64_t gpte;
    gfn_t gfn;
    struct memslot *slot;
    pfn_t pfn; /* PFN_NONE: the host has none at hand */
    bool host_w;
};

/* A guest walk and a host frame, on their way into the shadow (Linux: struct kvm_page_fault). */
struct fault {
    gva_t gva;
    unsigned access;
    unsigned as;
    gfn_t gfn;        /* of the page that contains the gva's gpa */
    int leaf_level;   /* of the guest's leaf; 4 with paging off: everything is direct */
    uint64_t gpte[6]; /* by level */
    gpa_t gpte_gpa[6];
    const uint8_t *table[6]; /* the pages they were read from; NULL: not from memory */
    uint64_t rights;         /* SPTE_GUEST_RIGHTS of the leaf, all levels combined */
    struct memslot *slot;    /* NULL: MMIO */
    pfn_t pfn;
    bool host_w;
    int host_level; /* of the host mapping that the page is part of */
    unsigned neighbours;
    struct prefetch neighbour[PREFETCH_GROUP];
};

static inline uint64_t *sp_table(const struct shadow *sh, const struct sp *sp)
{
    return sh->spts + (size_t)sp->index * SP_ENTRIES;
}

static inline struct sp *sp_of(const struct shadow *sh, const uint64_t *sptep)
{
    return &sh->pages[(size_t)(sptep - sh->spts) / SP_ENTRIES];
}

static inline unsigned sp_index_of(const struct shadow *sh, const uint64_t *sptep)
{
    return (unsigned)((size_t)(sptep - sh->spts) % SP_ENTRIES);
}

/* Where the guest entry that *sptep was made from is kept (indirect pages). */
static inline uint64_t *sp_gptep(const struct shadow *sh, const uint64_t *sptep)
{
    return sh->gptes + (sptep - sh->spts);
}

static inline unsigned sp_index(gva_t gva, int level)
{
    return (gva >> (PAGE_SHIFT + 9 * (level - 1))) & (SP_ENTRIES - 1);
}

/* Obsolete pages are the oldest ones, so they stand first in the active list. */
static inline bool sp_is_obsolete(const struct shadow *sh, const struct sp *sp)
{
    return unlikely(sp->generation != sh->valid_generation);
}

static inline unsigned role_as(union sp_role role)
{
    return role.smm;
}

/* Bit 20 of physical addresses is gone while the role says so. */
static inline gfn_t role_gfn(union sp_role role, gfn_t gfn)
{
    return role.a20 ? gfn & ~(gfn_t)(1u << (20 - PAGE_SHIFT)) : gfn;
}

/* ---- sp.c: finding, making and releasing pages ---- */

int sp_arena_init(struct shadow *sh, uint64_t limit);
void sp_arena_fini(struct shadow *sh);
/* First live page of the gfn's hash chain at or after `from`, any role. NULL: none. */
struct sp *sp_next_of_gfn(const struct shadow *sh, uint32_t from, gfn_t gfn);
#define sp_for_each_of_gfn(sh, g, page)                                                                                \
    for (struct sp *page = sp_next_of_gfn((sh), sp_hash_first((sh), (g)), (g)), *page##_next;                          \
         page && (page##_next = sp_next_of_gfn((sh), page->hash_next, (g)), true); page = page##_next)
uint32_t sp_hash_first(const struct shadow *sh, gfn_t gfn);
/* The page of (gfn, role), made if need be (*created). `table` is the guest table's memory, NULL for a direct page; the
 * retry check has been made for it. A free page must exist. Linux: kvm_mmu_get_page. */
struct sp *sp_get(struct shadow *sh, gfn_t gfn, union sp_role role, const uint8_t *table, bool *created);
/* Puts an empty, unlinked page back. */
void sp_release(struct shadow *sh, struct sp *sp);
/* Notes for the audit that the page changed. */
void sp_touch(struct shadow *sh, struct sp *sp);

/* ---- root.c ---- */

void shadow_root_get(struct mmu_vcpu *mv, struct tlb_set *set);
void shadow_root_put(struct mmu_vcpu *mv, struct tlb_set *set);
/* The top page for the fault's gva, made if it is missing. NULL: this root has none there. A free page must exist. */
struct sp *shadow_root_top(struct shadow *sh, struct shadow_root *root, const struct fault *f);
/* Every root forgets the page, which is being zapped; what the TLB has by it goes. */
void shadow_roots_forget(struct shadow *sh, struct sp *sp);
/* Every root forgets all its pages. Linux: kvm_mmu_free_roots, KVM_REQ_MMU_FREE_OBSOLETE_ROOTS. */
void shadow_roots_forget_all(struct shadow *sh);
static inline unsigned root_slot(const struct shadow_root *root, gva_t gva)
{
    return root->tops == 1 ? 0 : (unsigned)(gva >> 30) & 3;
}

/* ---- common.c: roots with the same upper half ---- */

/* The root's top page is there, and no TLB entry of the root's: is it in common with others? */
void shadow_common_join(struct shadow *sh, struct shadow_root *root);
void shadow_common_leave(struct shadow *sh, struct shadow_root *root);
/* A link was made in a page at the top of roots in common: all of them get it. Descriptors for sh->common.roots are at
 * hand. */
void shadow_common_linked(struct shadow *sh, const struct sp *sp, const uint64_t *sptep);
/* The guest wrote to the table at [offset, offset + len). */
void shadow_common_written(struct shadow *sh, const struct sp *sp, unsigned offset, size_t len);

/* ---- zap.c: taking translations away ---- */

/* Between begin and end TLB entries are dropped one by one, or, when there are too many, all at once at the end. Nests.
 */
void shadow_batch_begin(struct shadow *sh);
void shadow_batch_end(struct shadow *sh);
/* Drops the TLB entries made from a leaf. */
void spte_drop_cached(struct shadow *sh, uint64_t *sptep);
/* Empties an spte of any kind: leaves its rmap, or unlinks its child (which stays in the hash). Linux:
 * mmu_page_zap_pte. */
void spte_drop(struct shadow *sh, uint64_t *sptep);
/* Zaps a page: its sptes, its parents' links, its place in roots, hash and tracking. Linux: kvm_mmu_prepare_zap_page.
 */
void sp_zap(struct shadow *sh, struct sp *sp);
/* At least `n` free pages, zapping the oldest that no root needs. Linux: make_mmu_pages_available. */
void shadow_make_room(struct shadow *sh, uint32_t n);
/* gfn that a leaf maps first (page of 4 KiB at level 1), or the first below a link to a direct page. */
gfn_t spte_gfn(const struct shadow *sh, const uint64_t *sptep);
void shadow_protect_gfn(struct mmu *mmu, unsigned as, gfn_t gfn);
void shadow_unprotect_gfn(struct mmu *mmu, unsigned as, gfn_t gfn);
bool shadow_zap_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages);
void shadow_zap_all(struct mmu *mmu);
/* Makes all pages obsolete, at a cost that does not depend on their number. Linux: kvm_mmu_zap_all_fast. */
void shadow_zap_all_fast(struct shadow *sh);
/* Zaps up to `budget` obsolete pages. Linux: kvm_zap_obsolete_pages. */
void shadow_zap_obsolete(struct shadow *sh, unsigned budget);
/* Linux: mmu_shrink_scan, kvm_mmu_zap_oldest_mmu_pages. */
uint64_t shadow_shrink(struct mmu *mmu, uint64_t pages);
void shadow_slot_free(struct mmu *mmu, struct memslot *slot);

/* Zaps what an rmap head holds. */
bool shadow_head_zap(struct shadow *sh, struct spte_list *head);
/* Zaps the large leaves that map any of [start, end). */
void shadow_zap_large(struct shadow *sh, struct memslot *slot, gfn_t start, gfn_t end);

/* ---- dirty.c, host.c ---- */

/* The logging bits of a new leaf of the slot's; `write`: it is made for a write. */
uint64_t shadow_log_bits(const struct memslot *slot, bool write);
void shadow_dirty_log(struct mmu *mmu, struct memslot *slot, gfn_t start, uint64_t pages, enum dirty_op op);
bool shadow_age_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, enum mmu_age how);
void shadow_change_pte(struct mmu *mmu, unsigned as, gfn_t gfn, struct hpte_view hpte);

/* ---- pt_write.c ---- */

void shadow_pt_write(struct mmu *mmu, unsigned as, gpa_t gpa, const void *bytes, size_t len);
/* The entry of one spte of an indirect page is now `new`. */
void spte_update(struct shadow *sh, struct sp *sp, uint64_t *sptep, uint64_t new);

/* ---- unsync.c ---- */

/* A write to the gfn, which is tracked: false, it must be seen; true: it need not be any more. */
bool unsync_try(struct shadow *sh, unsigned as, gfn_t gfn);
void unsync_unlist(struct shadow *sh, struct sp *sp);
/* Brings an unsync page up to date and tracks its table again. */
void unsync_sync(struct shadow *sh, struct sp *sp);
void unsync_sync_all(struct shadow *sh);
/* The page is about to be reached by a path that was not there: what it leads to is brought up to date, since the
 * guest's flushes meanwhile could not find it by that path. Linux: mmu_sync_children. */
void unsync_sync_below(struct shadow *sh, struct sp *sp);
/* Brings the one entry up to date that maps gva, if its page is unsync. */
void unsync_sync_gva(struct mmu_vcpu *mv, gva_t gva);
void shadow_guest_flush(struct mmu_vcpu *mv, enum guest_flush what, gva_t gva);

/* ---- fault.c ---- */

/* The spte where the shadow walk of gva ends, or NULL when not even the top page is there. Touches tables only. */
uint64_t *shadow_walk(const struct shadow *sh, const struct shadow_root *root, gva_t gva, int *level_out);
enum xlate_result shadow_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out);
/* The first half of that alone, for the TLB. MMU lock held. */
bool shadow_known(struct mmu_vcpu *mv, gva_t gva, unsigned access);

/* ---- prefetch.c ---- */

/* Which of the group around the spte (where a shadow walk of the gva ended) are empty: a mask. */
unsigned prefetch_wanted(const struct shadow *sh, const uint64_t *sptep, int level);
/* Notes the neighbours that may be mapped along. Without the MMU lock. */
void prefetch_find(struct mmu *mmu, struct fault *f, union sp_role role, unsigned wanted);
/* Maps them beside *sptep. MMU lock held, retry check done. */
void prefetch_map(struct shadow *sh, const struct fault *f, uint64_t *sptep);

/* ---- audit.c ---- */

unsigned shadow_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx);

/* The role of the set's top pages, but for the quadrant; to be had without the lock. */
static inline union sp_role set_role(const struct mmu *mmu, const struct tlb_set *set)
{
    return ((const struct shadow *)mmu->engine)->set_role[set - mmu->sets];
}

static inline struct shadow *shadow_of(const struct mmu *mmu)
{
    return mmu->engine;
}

#endif
