/*
 * The MMU as the CPU and the machine see it.
 *
 *   struct mem       guest-physical memory of a machine: memslots over a host_mm, tracking, the mem_access() entry
 *   struct mmu       the translation engine of a machine (-mmu shadow, ept or walk), subscriber of the host_mm's
 * invalidation bus struct mmu_vcpu  one vCPU's view: its registers, roots and TLB
 *
 * Coherent translation: every access translates as a fresh walk of the guest's tables at that instant would, A and D
 * bits included (PAE's PDPTEs are registers). Nobody but the engine flushes a TLB; mmu_guest_flush() only tells the MMU
 * that the guest asked.
 *
 * The CPU's fast path is tlb_lookup_*() here; on a miss it calls mmu_translate(), which fills the TLB where it may.
 */
#ifndef MMU_MMU_H
#define MMU_MMU_H

#include "core/memory.h"
#include "core/types.h"
#include "mmu/gfn_cache.h"
#include "mmu/paging.h"
#include "mmu/tlb.h"

struct bus;
struct host_mm;
struct log;
struct trace;
struct stats;
struct snap_writer;
struct snap_reader;
struct mem;
struct mmu;

/* ---- guest-physical memory (mmu/mem.c, mmu/memslot.c, mmu/track.c) ---- */

/* DEVICE: its accesses go to the bus; the frame behind it is there to be recognised (the APIC access page; with the ept
 * engine only). */
enum memslot_kind { MEMSLOT_RAM, MEMSLOT_ROM, MEMSLOT_DEVICE };
enum memslot_error {
    MEMSLOT_OK = 0,
    MEMSLOT_ERR_OVERLAP = -1, /* meets another slot of the address space */
    MEMSLOT_ERR_ALIGN = -2,   /* gpa, len or hva is not a page multiple */
    MEMSLOT_ERR_RANGE = -3,   /* empty, or beyond 52 bits, or no such address space */
    MEMSLOT_ERR_ABSENT = -4,  /* no slot starts there */
    MEMSLOT_ERR_NOMEM = -5,
    MEMSLOT_ERR_UNSUPPORTED = -6 /* not with this engine */
};
#define MEM_ADDRESS_SPACES 2

struct mem_config {
    struct host_mm *mm; /* borrowed */
    struct bus *mmio;   /* where accesses outside memslots (and ROM writes) go; borrowed */
    const struct log *log;
    struct trace *trace;
};

struct mem *mem_create(const struct mem_config *cfg);
void mem_destroy(struct mem *m);
/* Adds a slot: [gpa, gpa+len) backed by hva. 0 or a negative memslot error (overlap, alignment); bumps the generation.
 */
int mem_slot_add(struct mem *m, unsigned as, gpa_t gpa, uint64_t len, hva_t hva, enum memslot_kind kind);
/* One line for people about what the slot functions answered. */
const char *mem_slot_error_text(int error);
/* Deletes the slot that starts at gpa: sptes, tracking and cached translations of its gfns go first. */
int mem_slot_delete(struct mem *m, unsigned as, gpa_t gpa);
/* Moves the slot that starts at gpa to new_gpa, with its hvas: as deleting and adding it, in one step. The old and the
 * new place may overlap. Linux: KVM_MR_MOVE. */
int mem_slot_move(struct mem *m, unsigned as, gpa_t gpa, gpa_t new_gpa);
/* RAM becomes ROM or the reverse. Linux: KVM_MR_FLAGS_ONLY. */
int mem_slot_set_kind(struct mem *m, unsigned as, gpa_t gpa, enum memslot_kind kind);
uint64_t mem_generation(const struct mem *m);
const char *memslot_error_text(int error);
/* True once the host could not provide a page of a slot (reported on stderr once): the run must end. */
bool mem_has_failed(const struct mem *m);

/* The one entry to memory by guest-physical address (design section 2). `len` may cross pages and slots. `cpu` is the
 * initiator for devices, or BUS_NO_CPU. Device accesses are naturally split into 1/2/4/8-byte transactions. */
enum mem_result mem_access(struct mem *m, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind, bool write,
                           int cpu);
/* Every write through a cached host pointer ends in this: tracking sees the bytes that are now at gpa. */
void mem_written(struct mem *m, unsigned as, gpa_t gpa, size_t len);
/* Fills the memory hook that devices use. */
void mem_hook(struct mem *m, struct guest_memory *out);
/* Saves and loads RAM by page, without zero pages; digest of RAM by gpa and content. */
void mem_save(const struct mem *m, struct snap_writer *w);
void mem_load(struct mem *m, struct snap_reader *r);
/* The section's name, for snap_reader_open_unchecked(). */
#define MEM_SNAPSHOT_SECTION "ram"
/* The same in post-copy: its pages are awaited (core/host/postcopy.h) from the reader's file, which the reader need not
 * outlive. The list of pages is checked now, a page when it is fetched. */
void mem_load_postcopy(struct mem *m, struct snap_reader *r);
/* True if an access of this kind at gpa would reach a device (no slot, or ROM and write). */
bool mem_is_device(const struct mem *m, unsigned as, gpa_t gpa, bool write);

/* ---- tracking: who must see writes to a gfn (Linux: page_track.c) ---- */

enum track_kind { TRACK_PT, TRACK_CODE, TRACK_WATCH, TRACK_FB, TRACK_KINDS };

struct track_listener {
    /* The write was made; `bytes` are the new contents of [gpa, gpa+len), which does not cross a page. False: it means
     * nothing to this party, which has changed nothing that running code could rely on. */
    bool (*write)(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len);
    /* The slot holding these gfns goes away. Linux: track_flush_slot. */
    void (*flush_slot)(struct track_listener *l, unsigned as, gfn_t start, uint64_t pages);
    enum track_kind kind;        /* called only for gfns with a nonzero count of this kind */
    struct track_listener *next; /* track's own */
};

void track_register(struct mem *m, struct track_listener *l);
void track_unregister(struct mem *m, struct track_listener *l);
/* Counted. The first party makes every translation of the gfn lose its right to write unseen. */
void track_add(struct mem *m, unsigned as, gfn_t gfn, enum track_kind kind);
void track_remove(struct mem *m, unsigned as, gfn_t gfn, enum track_kind kind);
bool track_is_tracked(const struct mem *m, unsigned as, gfn_t gfn);
/* Counts writes that meant something to a listener; the CPU ends the block when it moves (design: "Boundaries"). */
uint64_t track_write_count(const struct mem *m);

/* ---- the engine ---- */

enum mmu_kind { MMU_SHADOW, MMU_WALK, MMU_EPT };

struct mmu_config {
    enum mmu_kind kind;
    struct mem *mem; /* borrowed */
    unsigned vcpus;
    const struct log *log;
    struct trace *trace;       /* may be NULL */
    uint64_t max_shadow_pages; /* 0: default */
    bool staletlb;             /* the missing-flush detector */
    bool unsync;               /* MMU_SHADOW: leaf tables may be out of date until the guest flushes; not coherent */
};

struct mmu *mmu_create(const struct mmu_config *cfg);
void mmu_destroy(struct mmu *mmu);
void mmu_register_stats(struct mmu *mmu, struct stats *s);
/* Drops everything that is cached; the guest cannot tell. */
void mmu_zap_all(struct mmu *mmu);
/* Gives up to `pages` of the engine's table pages back, the oldest first; the number given. Linux: mmu_shrink_scan. */
uint64_t mmu_shrink(struct mmu *mmu, uint64_t pages);
/* Calls fn after every MMU event (TLB miss with its fill or fault, tracked write), with no lock held; NULL: never. For
 * audits. */
typedef void mmu_event_fn(void *ctx);
void mmu_set_event_hook(struct mmu *mmu, mmu_event_fn *fn, void *ctx);
/* Checks the invariants of design section 5. `report` (may be NULL) gets one line a violation. Returns their number.
 * `full`: everything, otherwise the shadow pages touched since the last call. */
unsigned mmu_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx);
/* Where a stale-TLB report says the access came from; set by the CPU. */
typedef uint64_t mmu_rip_fn(void *ctx);

enum xlate_result { XLATE_OK, XLATE_FAULT };

struct xlate {
    gpa_t gpa;      /* XLATE_OK: of the gva itself */
    void *host;     /* the byte at gva, directly usable up to the end of its page for this access; NULL: use
                       mem_access(MEM_GUEST) */
    uint32_t error; /* XLATE_FAULT: error code of the #PF (CR2 is the gva) */
};

struct tlb_set;

struct mmu_vcpu {
    struct mmu *mmu;
    struct mem *mem;
    unsigned index;
    struct paging_regs regs;
    struct tlb_set *set; /* of the current root; never NULL after mmu_vcpu_load() */
    /* Current tables (never NULL; may be a shared always-empty table). data[] by enum tlb_mode, fetch[] by USER/SUPER.
     */
    struct tlb_entry *data[TLB_MODES];
    struct tlb_fetch_entry *fetch[2];
    struct tlb_entry *cur_data;        /* data[mode of CPL and AC]; an empty table while each access must be seen */
    struct tlb_fetch_entry *cur_fetch; /* fetch[CPL == 3 ? TLB_USER : TLB_SUPER] */
    bool data_bypass;                  /* the fast path must always miss: data breakpoints are armed */
    /* Names the contents of cur_fetch: a value that comes back (after a switch there and back) means that no entry was
     * dropped meanwhile. Validity of cached code look-ups. */
    uint64_t fetch_epoch;
    const uint64_t *epoch_of[2]; /* the same of fetch[], while it has one; 0: it has none yet */
    uint64_t fetch_epochs;       /* names given so far */
    /* Another value means that a data entry, of any table, was dropped or replaced or permits less, or that cur_data
     * has become the shared empty table, perhaps from that of another mode or root. Validity of what compiled code has
     * copied from cur_data. */
    uint64_t data_epoch;
    mmu_rip_fn *rip;
    void *rip_ctx;
    void *engine; /* the engine's own */
};

/* The vCPU `index` of the engine; owned by the mmu. Call mmu_vcpu_load() before use. */
struct mmu_vcpu *mmu_vcpu_get(struct mmu *mmu, unsigned index);
/* New register values: selects root, TLB set and mode tables. Cheap when only cpl/ac changed, or when the root is
 * cached. */
void mmu_vcpu_load(struct mmu_vcpu *mv, const struct paging_regs *regs);
/* Only CPL or EFLAGS.AC changed. */
void mmu_vcpu_set_mode(struct mmu_vcpu *mv, unsigned cpl, bool ac);
/* Makes every fast-path look-up of data miss, so that the CPU sees each access in its slow path; translation itself
 * does not change. While alignment is checked (CR0.AM, EFLAGS.AC, CPL 3) it is so anyway. */
void mmu_vcpu_set_data_bypass(struct mmu_vcpu *mv, bool bypass);
/* PAE: reads the four PDPTEs that cr3 points to into `out`. False: a reserved bit is set in a present one (the CPU
 * raises #GP). */
bool mmu_load_pdptes(struct mmu_vcpu *mv, uint64_t cr3, uint64_t out[4]);

/* On a TLB miss: translates gva for this access (enum access bits), fills the TLB where it may. Never reaches a device.
 */
enum xlate_result mmu_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out);
/* For who can do without: the fetch table's entry for gva, filled if the engine can tell without looking at the guest's
 * tables; else NULL. Nothing that the guest could notice happens. fetch_epoch may change. */
const struct tlb_fetch_entry *mmu_known_fetch(struct mmu_vcpu *mv, gva_t gva);
/* Without any effect (debugger, logs, triple-fault report): no A/D, no fault-in, no TLB. */
enum xlate_result mmu_peek_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out);
/* Prints the guest walk of gva, one line a level; where there is a second stage, its walk under each. */
void mmu_print_walk(struct mmu_vcpu *mv, gva_t gva, void (*line)(void *ctx, const char *text), void *ctx);

/* The guest executed something that flushes a real TLB. Coherent engines drop nothing; the stale-TLB detector forgets
 * what was covered. */
enum guest_flush {
    GUEST_FLUSH_PAGE /* INVLPG gva: of the current PCID, and global */,
    GUEST_FLUSH_NONGLOBAL /* MOV CR3: what is not global of the current PCID */,
    GUEST_FLUSH_ALL /* CR0.PG, CR4.PGE, INVPCID 2, ... */,
    GUEST_FLUSH_ALL_NONGLOBAL /* INVPCID 3: of all PCIDs */,
    GUEST_FLUSH_PCID_PAGE /* INVPCID 0: gva of one PCID, not global */,
    GUEST_FLUSH_PCID /* INVPCID 1: one PCID, not global */
};
void mmu_guest_flush(struct mmu_vcpu *mv, enum guest_flush what, gva_t gva);
/* The forms of INVPCID that name a PCID. */
void mmu_guest_flush_pcid(struct mmu_vcpu *mv, enum guest_flush what, unsigned pcid, gva_t gva);

/* ---- the fast path ---- */

/* Host address for a read of `size` bytes at gva by the current mode, or NULL: miss, page crossing, device. */
static inline void *tlb_lookup_read(const struct mmu_vcpu *mv, gva_t gva, unsigned size)
{
    const struct tlb_entry *e = &mv->cur_data[tlb_index(gva)];
    uint64_t off = gva + e->ntag_r;
    return likely(off <= PAGE_SIZE - size) ? (void *)(uintptr_t)(e->host + off) : NULL;
}

static inline void *tlb_lookup_write(const struct mmu_vcpu *mv, gva_t gva, unsigned size)
{
    const struct tlb_entry *e = &mv->cur_data[tlb_index(gva)];
    uint64_t off = gva + e->ntag_w;
    return likely(off <= PAGE_SIZE - size) ? (void *)(uintptr_t)(e->host + off) : NULL;
}

/* Entry for a fetch at gva, or NULL. */
static inline const struct tlb_fetch_entry *tlb_lookup_fetch(const struct mmu_vcpu *mv, gva_t gva)
{
    const struct tlb_fetch_entry *e = &mv->cur_fetch[tlb_fetch_index(gva)];
    return likely(gva + e->ntag < PAGE_SIZE) ? e : NULL;
}

#endif
