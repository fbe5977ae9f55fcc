/*
 * Inside `-mmu ept`. To be read in this order: ept_entry.h (the entry), this file, ept_table.c (tables in memory),
 * ept_walk.c (the processor's second stage), ept_translate.c (both stages, the TLB), ept_fault.c (the hypervisor's
 * answer to exits), ept_zap.c.
 *
 * Tables are host-physical memory of the hypervisor's own: table i lies at host-physical address EPT_TABLES_HPA + i *
 * 4096, above every frame of the pool. The processor's half knows tables by such addresses only.
 *
 * Each address space has one tree of tables, its root lives as long as the engine. EPT is indexed by gpa: the entries
 * of a gfn are found by walking down, so the reverse path from a memslot's gfns to what maps them needs no rmap.
 *
 * Locking: everything here is called with the MMU lock held unless it says otherwise. The processor's walks hold it
 * too, from the first entry read to the TLB filled: as on hardware, where who changes a table waits for the processors,
 * nothing that a walk has used can go before the walk is over. The lock is not held while an exit is answered; that is
 * where the retry protocol is.
 */
#ifndef MMU_EPT_INTERNAL_H
#define MMU_EPT_INTERNAL_H

#include "mmu/ept/ept.h"
#include "mmu/ept/ept_entry.h"
#include "mmu/gfn_tree.h"
#include "mmu/mem.h"
#include "mmu/tlb_deps.h"

#define EPT_ENTRIES    512u
#define EPT_MAX_LEVELS 5
#define EPT_TABLES_HPA (1ull << 45)
#define EPT_MAXPHYADDR 46 /* of the modelled host */
#define EPT_MIN_TABLES 64 /* two walks of two dimensions need fewer */

struct ept_table {
    uint64_t *entry;  /* EPT_ENTRIES of them; NULL until first used */
    gfn_t gfn;        /* the first one that the table covers */
    uint64_t *parent; /* the entry that links here; NULL: a root, or free */
    uint32_t next_free;
    uint16_t used; /* entries that are not empty */
    uint8_t level; /* 1..5; 0: free */
    uint8_t as;
};

struct ept_root {
    uint32_t table;
    uint64_t eptp;
};

struct ept_stats {
    uint64_t violations, table_violations, misconfigs, mmio_exits, pml_full, apic_accesses, gaw, refused, emulated,
        retries, bad_pages, tables, tables_made, small_leaves, large_leaves, zapped, splits, collapses, repointed, aged,
        dirty_logged, invept, invvpid, apic_reloads, recycled, illegal;
};

/* 512 gfns: which were written (dirty log). */
struct ept_dirty_chunk {
    uint64_t bits[GFN_CHUNK / 64];
};

/* 512 gfns: what each may keep of EPT_RWX. All zero, as made: no restriction; else EPT_RESTRICTED | rights. */
#define EPT_RESTRICTED 0x80u
struct ept_rights_chunk {
    uint32_t restricted;
    uint8_t rights[GFN_CHUNK];
};

struct ept_apic {
    bool set;
    unsigned as;
    gfn_t gfn;
};

struct ept_vcpu {
    struct ept_exit last;
    uint64_t exits;
    struct ept_pml pml;
    uint16_t vpid;
    bool nmi_unblocking;
    bool apic_reload; /* the host has changed the frame, or may have (KVM_REQ_APIC_PAGE_RELOAD) */
    pfn_t apic_pfn;
};

struct ept {
    struct mmu *mmu;
    struct frame_pool *pool;
    struct ept_config cfg;
    struct ept_table *tables; /* index 0 is not used */
    uint32_t count, capacity, free_list, limit;
    struct ept_root root[MEM_ADDRESS_SPACES];
    struct tlb_deps *deps;
    struct ept_vcpu *vcpus;
    uint64_t mmio_generation; /* when generations were last looked at */
    bool logging;             /* of all memory, by ept_dirty_log_start(); slots may be logged besides */
    struct gfn_tree dirty[MEM_ADDRESS_SPACES];  /* of struct ept_dirty_chunk */
    struct gfn_tree rights[MEM_ADDRESS_SPACES]; /* of struct ept_rights_chunk */
    struct ept_apic apic;
    struct ept_stats stats;
};

static inline struct ept *ept_of(const struct mmu *mmu)
{
    return mmu->engine;
}

static inline struct ept_vcpu *ept_vcpu_of(const struct mmu_vcpu *mv)
{
    return mv->engine;
}

/* ---- ept_table.c ---- */

static inline uint64_t ept_table_hpa(uint32_t table)
{
    return EPT_TABLES_HPA + ((uint64_t)table << PAGE_SHIFT);
}

/* The table at a host-physical address, or NULL: none there. */
static inline struct ept_table *ept_table_at(const struct ept *e, uint64_t hpa)
{
    uint64_t i = (hpa - EPT_TABLES_HPA) >> PAGE_SHIFT;
    return hpa >= EPT_TABLES_HPA && i && i < e->count && e->tables[i].level ? &e->tables[i] : NULL;
}

static inline struct ept_table *ept_root_table(const struct ept *e, unsigned as)
{
    return &e->tables[e->root[as].table];
}

void ept_tables_init(struct ept *e);
void ept_tables_fini(struct ept *e);
/* Drops everything at once, whatever state the tables are in: no link is followed. For a new configuration, and after
 * damage. */
void ept_rebuild(struct ept *e);
/* A table for the entry `*parent` (of its parent of level + 1), linked there. The entry must be empty. */
struct ept_table *ept_table_make(struct ept *e, struct ept_table *parent, uint64_t *parent_entry, gfn_t gfn);
/* Sets an entry, keeping the count. */
void ept_entry_set(struct ept_table *t, uint64_t *entryp, uint64_t entry);
/* Empties the entry: a leaf's TLB entries go, a link's whole subtree. Returns the leaves dropped. */
uint64_t ept_entry_drop(struct ept *e, struct ept_table *t, uint64_t *entryp);
/* The entry where the walk of gfn ends (leaf, marker or empty), its table and level; never NULL. Looks only. */
uint64_t *ept_lookup(const struct ept *e, unsigned as, gfn_t gfn, struct ept_table **table);

static inline gfn_t ept_entry_gfn(const struct ept_table *t, const uint64_t *entryp)
{
    return t->gfn + (uint64_t)(entryp - t->entry) * ept_level_pages(t->level);
}

/* ---- ept_walk.c: the processor ---- */

struct ept_walk_level {
    int level;
    uint64_t entry;
    uint64_t *entryp; /* where it was read; NULL: nothing is there */
};

enum ept_walk_result { EPT_WALK_OK, EPT_WALK_VIOLATION, EPT_WALK_MISCONFIG, EPT_WALK_PML_FULL };

struct ept_walk {
    enum ept_walk_result result;
    int depth;
    struct ept_walk_level at[EPT_MAX_LEVELS];
    int leaf_level;  /* EPT_WALK_OK */
    uint64_t rights; /* of EPT_RWX, all entries used together */
    uint64_t hpa;    /* of gpa itself */
    bool exceeds_gaw;
};

/* Translates gpa for an access that needs `need` (of EPT_RWX), sets A and D and writes `pml` (NULL: not logging).
 * `peek`: no effect. */
void ept_walk(struct ept *e, unsigned as, gpa_t gpa, uint64_t need, struct ept_pml *pml, bool peek, struct ept_walk *w);
/* Is a present entry illegal (SDM 29.3.3.1)? NULL, or why. */
const char *ept_misconfig(const struct ept *e, uint64_t entry, int level);

/* ---- ept_fault.c: the hypervisor ---- */

/* What is to be mapped where. */
struct ept_fault {
    unsigned as;
    gfn_t gfn;
    struct memslot *slot;
    pfn_t pfn;
    bool writable;  /* the host entry is writable and dirty */
    int host_level; /* of the host mapping that the page is part of */
};

/* Linux: __direct_map. */
void ept_direct_map(struct ept *e, const struct ept_fault *f);
/* What the gfn may have of EPT_RWX. */
uint64_t ept_allowed_rights(const struct ept *e, unsigned as, gfn_t gfn);

/* ---- ept_zap.c ---- */

bool ept_zap_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages);
void ept_zap_all(struct mmu *mmu);
bool ept_age_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, enum mmu_age how);
void ept_change_pte(struct mmu *mmu, unsigned as, gfn_t gfn, struct hpte_view hpte);
/* Calls fn for each leaf that meets the range; it may drop the entry. */
typedef void ept_leaf_fn(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx);
void ept_for_each_leaf(struct ept *e, unsigned as, gfn_t start, uint64_t pages, ept_leaf_fn *fn, void *ctx);
/* Drops the TLB entries made from a leaf. */
void ept_leaf_drop_tlb(struct ept *e, const struct ept_table *t, const uint64_t *entryp);

/* ---- the rest ---- */

enum xlate_result ept_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out);
enum mem_result ept_read_phys(struct mmu_vcpu *mv, gpa_t gpa, void *buf, size_t len);
void ept_apic_invalidate_range(struct mmu *mmu, hva_t start, hva_t end);
unsigned ept_pml_drain_locked(struct ept *e, struct ept_vcpu *v);
/* Does the processor log what is written? */
static inline bool ept_pml_is_on(const struct ept *e)
{
    return e->logging || (e->cfg.ad && e->mmu->mem->dirty_logs);
}

/* Is the slot logged by taking W from clean pages? Without D bits there is no other way. */
static inline bool ept_logs_by_protection(const struct ept *e, const struct memslot *slot)
{
    return slot->dirty && (slot->dirty->form == DIRTY_WRITE_PROTECT || !e->cfg.ad);
}

void ept_dirty_log(struct mmu *mmu, struct memslot *slot, gfn_t start, uint64_t pages, enum dirty_op op);
unsigned ept_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx);
void ept_print(struct mmu_vcpu *mv, gpa_t gpa, void (*line)(void *ctx, const char *text), void *ctx);

#endif
