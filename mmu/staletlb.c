/*
 * The missing-flush detector (`-d staletlb`).
 *
 * A coherent machine hides a forgotten flush. This finds it: for each vCPU it keeps what a TLB that never evicts would
 * hold, that is the translations used since the last flush that covered them, and compares each later use with what the
 * guest's tables say now. A use is reported if the old translation would have permitted the access and the tables now
 * say otherwise: another gpa, not present, not permitted, another key. A translation that only grew (a real processor
 * would fault once more, or re-walk) is not.
 *
 * Rules, all from SDM volume 3, 4.10: INVLPG covers every record of the page, large ones whole; MOV CR3 all that is not
 * global; a fault at an address drops what is cached for it (4.10.4.1). A record weakened by the tables but not yet
 * used where it matters keeps its old rights: the old TLB entry would have them still. With CR4.PCIDE a record belongs
 * to the PCID that it was made under (4.10.1), unless it is global; without, all are PCID 0's.
 *
 * Records live in an open hash by page and size. Flushes of everything advance a stamp; dead records go when the table
 * grows.
 */
#include "core/alloc.h"
#include "mmu/engine.h"

#include <inttypes.h>
#include <stdlib.h>

struct stale_record {
    gva_t page;     /* gva of the start of the translation's page */
    gpa_t gpa;      /* where that maps to */
    uint64_t stamp; /* when it was noted; 0: free slot */
    uint8_t shift;  /* of its page size; 0: deleted */
    uint8_t pkey;
    uint16_t tag; /* the PCID that it was made under, or TAG_GLOBAL */
    bool writable, user, nx;
};
#define TAG_GLOBAL 0xffffu
#define PCIDS      4096u

struct stale_vcpu {
    struct stale_record *table;
    size_t size, filled; /* size a power of two; filled counts deleted ones too */
    uint64_t now;        /* stamp of what is noted now, from 1 */
    uint64_t live_from, global_live_from;
    uint64_t pcid_live_from[PCIDS];
    unsigned pcid; /* of the translations that are used now */
    bool has_large;
};

struct stale_tlb {
    unsigned vcpus;
    struct stale_vcpu vcpu[];
};

#define FIRST_SIZE 1024u
static const uint8_t page_shifts[] = {12, 21, 22, 30};

struct stale_tlb *stale_create(unsigned vcpus)
{
    struct stale_tlb *s = alloc_zeroed(1, sizeof(*s) + vcpus * sizeof(s->vcpu[0]));
    s->vcpus = vcpus;
    for (unsigned i = 0; i < vcpus; i++)
        s->vcpu[i] = (struct stale_vcpu){.table = alloc_zeroed(FIRST_SIZE, sizeof(struct stale_record)),
                                         .size = FIRST_SIZE,
                                         .now = 1,
                                         .live_from = 1,
                                         .global_live_from = 1};
    return s;
}

void stale_destroy(struct stale_tlb *s)
{
    for (unsigned i = 0; s && i < s->vcpus; i++)
        free(s->vcpu[i].table);
    free(s);
}

/* ---- the table ---- */

static inline bool record_is_live(const struct stale_vcpu *v, const struct stale_record *r)
{
    if (!r->stamp || !r->shift)
        return false;
    if (r->tag == TAG_GLOBAL)
        return r->stamp >= v->global_live_from;
    return r->stamp >= v->live_from && r->stamp >= v->pcid_live_from[r->tag];
}

static inline size_t record_hash(const struct stale_vcpu *v, gva_t page, unsigned shift, unsigned tag)
{
    uint64_t h = (page >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull + (shift + 64 * tag) * 0xc2b2ae3d27d4eb4full;
    return (h ^ h >> 32) & (v->size - 1);
}

/* The record of this page, size and tag, live or not; or the free slot where it would go. */
static struct stale_record *record_probe(struct stale_vcpu *v, gva_t page, unsigned shift, unsigned tag)
{
    size_t i = record_hash(v, page, shift, tag);
    for (;; i = (i + 1) & (v->size - 1)) {
        struct stale_record *r = &v->table[i];
        if (!r->stamp || (r->page == page && r->shift == shift && r->tag == tag))
            return r;
    }
}

static void table_rebuild(struct stale_vcpu *v)
{
    struct stale_record *old = v->table;
    size_t old_size = v->size, live = 0;
    for (size_t i = 0; i < old_size; i++)
        live += record_is_live(v, &old[i]);
    while (v->size < 4 * live)
        v->size *= 2;
    v->table = alloc_zeroed(v->size, sizeof(*v->table));
    v->filled = live;
    for (size_t i = 0; i < old_size; i++)
        if (record_is_live(v, &old[i]))
            *record_probe(v, old[i].page, old[i].shift, old[i].tag) = old[i];
    free(old);
}

/* The live record with this tag that covers gva, smallest page first; NULL if none. */
static struct stale_record *record_find_tagged(struct stale_vcpu *v, gva_t gva, unsigned tag)
{
    for (unsigned i = 0; i < (v->has_large ? ARRAY_LEN(page_shifts) : 1); i++) {
        gva_t page = gva >> page_shifts[i] << page_shifts[i];
        struct stale_record *r = record_probe(v, page, page_shifts[i], tag);
        if (record_is_live(v, r))
            return r;
    }
    return NULL;
}

/* The same among those that the current PCID may use. */
static struct stale_record *record_find(struct stale_vcpu *v, gva_t gva)
{
    struct stale_record *r = record_find_tagged(v, gva, v->pcid);
    return r ? r : record_find_tagged(v, gva, TAG_GLOBAL);
}

static unsigned leaf_shift(const struct gwalk *w)
{
    if (w->leaf_level <= 1)
        return 12;
    return w->format == PAGING_32 ? 22 : 12 + 9 * (unsigned)(w->leaf_level - 1);
}

static void record_note(struct stale_vcpu *v, gva_t gva, const struct gwalk *w, bool global)
{
    if (v->filled * 2 >= v->size)
        table_rebuild(v);
    unsigned shift = leaf_shift(w);
    gva_t offset = ((gva_t)1 << shift) - 1;
    struct stale_record *r = record_probe(v, gva & ~offset, shift, global ? TAG_GLOBAL : v->pcid);
    v->filled += !r->stamp;
    v->has_large |= shift > PAGE_SHIFT;
    *r = (struct stale_record){.page = gva & ~offset,
                               .gpa = w->gpa - (gva & offset),
                               .stamp = v->now,
                               .shift = (uint8_t)shift,
                               .pkey = w->pkey,
                               .tag = (uint16_t)(global ? TAG_GLOBAL : v->pcid),
                               .writable = w->writable,
                               .user = w->user,
                               .nx = w->nx};
}

static inline void record_drop(struct stale_record *r)
{
    r->shift = 0; /* the slot stays filled, so that probing goes on behind it */
    r->page = ~(gva_t)0;
    r->tag = 0;
}

/* Returns true if a large page was among those dropped. */
static bool records_drop_tagged(struct stale_vcpu *v, gva_t gva, unsigned tag)
{
    bool large = false;
    struct stale_record *r;
    while ((r = record_find_tagged(v, gva, tag))) {
        large |= r->shift > PAGE_SHIFT;
        record_drop(r);
    }
    return large;
}

static bool records_drop(struct stale_vcpu *v, gva_t gva)
{
    bool large = records_drop_tagged(v, gva, v->pcid);
    return records_drop_tagged(v, gva, TAG_GLOBAL) || large;
}

/* ---- comparing ---- */

static inline struct stale_vcpu *vcpu_of(const struct mmu_vcpu *mv)
{
    return &mv->mmu->stale->vcpu[mv->index];
}

static gpa_t record_gpa(const struct stale_record *r, gva_t gva)
{
    return r->gpa + (gva - r->page);
}

/* Would the old translation have permitted this access, under the registers of now? */
static bool record_permits(const struct mmu_vcpu *mv, const struct stale_record *r, enum paging_format format,
                           unsigned access)
{
    struct gwalk old = {.format = format, .writable = r->writable, .user = r->user, .nx = r->nx, .pkey = r->pkey};
    return gwalk_check(&mv->regs, &old, access) == 0;
}

static void print_rights(char text[5], bool writable, bool user, bool nx)
{
    text[0] = 'r';
    text[1] = writable ? 'w' : '-';
    text[2] = nx ? '-' : 'x';
    text[3] = user ? 'u' : 's';
    text[4] = 0;
}

static void print_now(char *text, size_t size, const struct gwalk *w)
{
    char rights[5];
    print_rights(rights, w->writable, w->user, w->nx);
    if (w->leaf_level)
        snprintf(text, size, "gpa 0x%" PRIx64 " %s key %u", w->gpa, rights, w->pkey);
    else
        snprintf(text, size, "%s",
                 w->result == GWALK_FAULT && !(w->error & PF_PRESENT) ? "not present" : "a reserved bit set");
}

static void report(struct mmu_vcpu *mv, gva_t gva, const struct stale_record *r, const struct gwalk *w, unsigned access)
{
    const char *what = (access & ACCESS_FETCH) ? "fetch" : (access & ACCESS_WRITE) ? "write" : "read";
    char old[5], now[64];
    mv->mmu->stats.stale_reports++;
    if (!mv->mmu->log || !log_is_on(mv->mmu->log, LOG_STALETLB))
        return;
    print_rights(old, r->writable, r->user, r->nx);
    print_now(now, sizeof(now), w);
    log_emit(mv->mmu->log, LOG_STALETLB,
             "vcpu %u %s of gva 0x%" PRIx64 " at rip 0x%" PRIx64 ": was gpa 0x%" PRIx64
             " %s key %u, now %s, and no flush between",
             mv->index, what, gva, mv->rip ? mv->rip(mv->rip_ctx) : 0, record_gpa(r, gva), old, r->pkey, now);
}

void stale_note_fill(struct mmu_vcpu *mv, gva_t gva, const struct gwalk *w, unsigned access)
{
    if (likely(!mv->mmu->stale) || w->format == PAGING_NONE)
        return;
    struct stale_vcpu *v = vcpu_of(mv);
    struct gwalk now = *w;
    bool global = w->global && (mv->regs.cr4 & CR4_PGE);
    struct stale_record *r = record_find(v, gva);
    if (r && record_gpa(r, gva) == w->gpa && r->pkey == w->pkey) {
        /* Rights that the tables took away and this access did not need stay with the old TLB entry. */
        now.writable |= r->writable;
        now.user |= r->user;
        now.nx &= r->nx;
        global |= r->tag == TAG_GLOBAL;
        if (r->shift < leaf_shift(w) || (global && r->tag != TAG_GLOBAL))
            record_drop(r); /* the larger record, or the global one, holds it now */
    } else if (r) {
        if (record_permits(mv, r, w->format, access))
            report(mv, gva, r, w, access);
        records_drop(v, gva);
    }
    record_note(v, gva, &now, global);
}

void stale_note_fault(struct mmu_vcpu *mv, gva_t gva, const struct gwalk *w, unsigned access)
{
    if (likely(!mv->mmu->stale) || w->format == PAGING_NONE)
        return;
    struct stale_vcpu *v = vcpu_of(mv);
    struct stale_record *r = record_find(v, gva);
    if (!r)
        return;
    if (record_permits(mv, r, w->format, access))
        report(mv, gva, r, w, access);
    records_drop(v, gva);
}

bool stale_note_flush(struct mmu_vcpu *mv, enum guest_flush what, unsigned pcid, gva_t gva)
{
    struct stale_vcpu *v = vcpu_of(mv);
    switch (what) {
    case GUEST_FLUSH_PAGE:
        return records_drop(v, gva);
    case GUEST_FLUSH_PCID_PAGE:
        return records_drop_tagged(v, gva, pcid);
    case GUEST_FLUSH_PCID:
        v->pcid_live_from[pcid] = ++v->now;
        return true;
    case GUEST_FLUSH_NONGLOBAL:
        v->pcid_live_from[v->pcid] = ++v->now;
        return true;
    case GUEST_FLUSH_ALL_NONGLOBAL:
        v->live_from = ++v->now;
        return true;
    default:
        v->live_from = v->global_live_from = ++v->now;
        return true;
    }
}

bool stale_set_pcid(struct mmu_vcpu *mv)
{
    struct stale_vcpu *v = vcpu_of(mv);
    unsigned pcid = mv->regs.cr4 & CR4_PCIDE ? mv->regs.cr3 & (PCIDS - 1) : 0;
    bool changed = v->pcid != pcid;
    v->pcid = pcid;
    return changed;
}
