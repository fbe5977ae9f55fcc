#include "mmu/gwalk.h"
#include "mmu/mem.h"

#include <string.h>

/* Guest entries, all formats (SDM volume 3, figures 4-4, 4-7, 4-11). */
#define GPTE_P       (1ull << 0)
#define GPTE_W       (1ull << 1)
#define GPTE_U       (1ull << 2)
#define GPTE_A       (1ull << 5)
#define GPTE_D       (1ull << 6)
#define GPTE_PS      (1ull << 7)
#define GPTE_G       (1ull << 8)
#define GPTE_NX      (1ull << 63)
#define GPTE_ADDRESS 0x000ffffffffff000ull

/* Bits lo..hi set; none if lo > hi. */
static inline uint64_t bits_range(int lo, int hi)
{
    return lo > hi ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

/* Is this access one that user rights are needed for? */
static inline bool is_user_access(const struct paging_regs *r, unsigned access)
{
    return r->cpl == 3 && !(access & ACCESS_IMPLICIT);
}

/* The error code bits that tell the access (SDM 4.7): W/R, U/S, and I/D where instruction fetches are told apart. */
static uint32_t fault_bits(const struct paging_regs *r, unsigned access)
{
    uint32_t bits = 0;
    if (access & ACCESS_WRITE)
        bits |= PF_WRITE;
    if (is_user_access(r, access))
        bits |= PF_USER;
    bool nx_on = (r->cr4 & CR4_PAE) && (r->efer & EFER_NXE);
    if ((access & ACCESS_FETCH) && (nx_on || (r->cr4 & CR4_SMEP)))
        bits |= PF_FETCH;
    return bits;
}

/* Does the page's protection key forbid the access (SDM 4.6.2)? User-mode addresses: PKRU; supervisor-mode addresses:
 * IA32_PKRS. */
static bool is_pkey_violation(const struct paging_regs *r, const struct gwalk *w, unsigned access)
{
    if (w->format < PAGING_4LEVEL || (access & ACCESS_FETCH))
        return false;
    if (!(r->cr4 & (w->user ? CR4_PKE : CR4_PKS)))
        return false;
    uint32_t key = (w->user ? r->pkru : r->pkrs) >> (2 * w->pkey);
    if (key & 1)
        return true; /* AD */
    if (!(key & 2) || !(access & ACCESS_WRITE))
        return false;
    return (r->cr0 & CR0_WP) || (w->user && is_user_access(r, access)); /* WD */
}

/* The U/S, R/W and XD rules (SDM 4.6.1), keys aside. */
static bool is_rights_violation(const struct paging_regs *r, const struct gwalk *w, unsigned access)
{
    if ((access & ACCESS_FETCH) && w->nx)
        return true;
    if (is_user_access(r, access))
        return !w->user || ((access & ACCESS_WRITE) && !w->writable);
    if (w->user && (access & ACCESS_FETCH))
        return r->cr4 & CR4_SMEP;
    if (w->user && (r->cr4 & CR4_SMAP) && (!r->ac || (access & ACCESS_IMPLICIT)))
        return true;
    return (access & ACCESS_WRITE) && !w->writable && (r->cr0 & CR0_WP);
}

uint32_t gwalk_check(const struct paging_regs *r, const struct gwalk *w, unsigned access)
{
    if (w->format == PAGING_NONE)
        return 0;
    bool key = is_pkey_violation(r, w, access);
    if (likely(!key && !is_rights_violation(r, w, access)))
        return 0;
    return fault_bits(r, access) | PF_PRESENT | (key ? PF_PKEY : 0);
}

/* ---- what the instances of the template share ---- */

static inline void walk_begin(struct gwalk *w, enum paging_format format)
{
    w->format = format;
    w->error = 0;
    w->depth = 0;
    w->leaf_level = 0;
    w->gpa = 0;
    w->writable = w->user = true;
    w->nx = w->global = w->dirty = false;
    w->pkey = 0;
}

/* Always true: the pass is complete. */
static inline bool walk_fault(struct gwalk *w, enum gwalk_result result, uint32_t error)
{
    w->result = result;
    w->error = error;
    return true;
}

static inline uint64_t entry_load(const void *p, unsigned size)
{
    return size == 4 ? __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED)
                     : __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}

/* Reads the entry at at->gpte_gpa. False: no memory there, or the second stage forbids it. */
static inline bool entry_read(struct mem *m, unsigned as, struct gwalk_level *at, unsigned size, unsigned access,
                              struct gwalk_stage2 *s2)
{
    at->gpte = 0;
    at->page = NULL;
    if (s2) {
        const void *p = s2->entry(s2, at->gpte_gpa, false);
        at->gpte = p ? entry_load(p, size) : 0;
        return p;
    }
    if (unlikely(access & GWALK_PEEK)) {
        uint64_t value = 0; /* little-endian, as the guest is */
        bool ok = mem_access(m, as, at->gpte_gpa, &value, size, MEM_PEEK, false, -1) == MEM_OK;
        at->gpte = ok ? value : size == 4 ? UINT32_MAX : UINT64_MAX;
        return ok;
    }
    const uint8_t *page = mem_page_read(m, as, at->gpte_gpa >> PAGE_SHIFT);
    if (unlikely(!page)) {
        at->gpte = size == 4 ? UINT32_MAX : UINT64_MAX;
        return false;
    }
    at->page = page;
    at->gpte = entry_load(page + (at->gpte_gpa & PAGE_MASK), size);
    return true;
}

enum entry_update { ENTRY_SET, ENTRY_CHANGED, ENTRY_EXIT };

/* Through the second stage; who tracks the page is told later. */
static enum entry_update entry_set_nested(struct gwalk_stage2 *s2, struct gwalk_level *at, uint64_t value,
                                          unsigned size)
{
    if (s2->updates == ARRAY_LEN(s2->update))
        return ENTRY_EXIT;
    void *p = s2->entry(s2, at->gpte_gpa, true);
    if (!p)
        return ENTRY_EXIT;
    uint64_t old = at->gpte;
    uint32_t old32 = (uint32_t)old;
    bool swapped =
        size == 4 ? __atomic_compare_exchange_n((uint32_t *)p, &old32, (uint32_t)value, false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST)
                  : __atomic_compare_exchange_n((uint64_t *)p, &old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (!swapped)
        return ENTRY_CHANGED;
    at->gpte = value;
    s2->update[s2->updates].gpa = at->gpte_gpa;
    s2->update[s2->updates].value = value;
    s2->update[s2->updates++].size = size;
    return ENTRY_SET;
}

/* Sets A and D bits in the entry, in memory and in the record. CHANGED: by somebody else meanwhile. Read-only memory
 * keeps what it has. */
static inline enum entry_update entry_set(struct mem *m, unsigned as, struct gwalk_level *at, uint64_t bits,
                                          unsigned size, unsigned access, struct gwalk_stage2 *s2)
{
    uint64_t value = at->gpte | bits;
    if (likely(value == at->gpte) || (access & GWALK_PEEK))
        return ENTRY_SET;
    if (s2)
        return entry_set_nested(s2, at, value, size);
    switch (mem_walk_cmpxchg(m, as, at->gpte_gpa, at->gpte, value, size)) {
    case MEM_SWAPPED:
        at->gpte = value;
        return ENTRY_SET;
    case MEM_READ_ONLY:
        return ENTRY_SET;
    case MEM_CHANGED:
        break;
    }
    return ENTRY_CHANGED;
}

/* A table that maps itself: the leaf's entry may have been read as an upper level's before its D bit was set. */
static inline void walk_refresh(struct gwalk *w, const struct gwalk_level *leaf)
{
    for (struct gwalk_level *at = w->at; at < leaf; at++)
        if (unlikely(at->gpte_gpa == leaf->gpte_gpa))
            at->gpte = leaf->gpte;
}

#define GW(name)  walk_32_##name
#define GW_FORMAT PAGING_32
#define GW_ENTRY  uint32_t
#define GW_TOP    2
#include "mmu/gwalk_tmpl.h"

#define GW(name)  walk_pae_##name
#define GW_FORMAT PAGING_PAE
#define GW_ENTRY  uint64_t
#define GW_TOP    3
#include "mmu/gwalk_tmpl.h"

#define GW(name)  walk_4level_##name
#define GW_FORMAT PAGING_4LEVEL
#define GW_ENTRY  uint64_t
#define GW_TOP    4
#include "mmu/gwalk_tmpl.h"

#define GW(name)  walk_5level_##name
#define GW_FORMAT PAGING_5LEVEL
#define GW_ENTRY  uint64_t
#define GW_TOP    5
#include "mmu/gwalk_tmpl.h"

/* Paging off: a linear address has 32 bits and is the physical address. */
static void walk_identity(const struct paging_regs *r, gva_t gva, struct gwalk *w)
{
    walk_begin(w, PAGING_NONE);
    w->leaf_level = 1;
    w->gpa = (uint32_t)gva & r->a20_mask;
    w->dirty = true;
    w->result = GWALK_OK;
}

static inline void walk_any(struct mem *m, const struct paging_regs *r, gva_t gva, unsigned access, struct gwalk *w,
                            struct gwalk_stage2 *s2)
{
    bool done = false;
    while (!done) {
        switch (paging_format_of(r)) {
        case PAGING_32:
            done = walk_32_pass(m, r, gva, access, w, s2);
            break;
        case PAGING_PAE:
            done = walk_pae_pass(m, r, gva, access, w, s2);
            break;
        case PAGING_4LEVEL:
            done = walk_4level_pass(m, r, gva, access, w, s2);
            break;
        case PAGING_5LEVEL:
            done = walk_5level_pass(m, r, gva, access, w, s2);
            break;
        default:
            walk_identity(r, gva, w);
            done = true;
        }
    }
}

void gwalk(struct mem *m, const struct paging_regs *r, gva_t gva, unsigned access, struct gwalk *w)
{
    walk_any(m, r, gva, access, w, NULL);
}

void gwalk_nested(struct mem *m, const struct paging_regs *r, gva_t gva, unsigned access, struct gwalk *w,
                  struct gwalk_stage2 *s)
{
    walk_any(m, r, gva, access, w, s);
}

void gwalk_nested_tell(struct mem *m, unsigned as, struct gwalk_stage2 *s)
{
    for (unsigned i = 0; i < s->updates; i++) {
        gpa_t gpa = s->update[i].gpa;
        unsigned mask = track_mask(m, as, gpa >> PAGE_SHIFT) & ~(1u << TRACK_PT);
        if (unlikely(mask))
            track_notify(m, as, gpa, &s->update[i].value, s->update[i].size, mask);
    }
    s->updates = 0;
}
