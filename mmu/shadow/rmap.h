/*
 * Reverse maps: for each gfn and level of a memslot, the sptes that map it (Linux: kvm_rmap_head, pte_list_*).
 *
 * The same list type, spte_list, also holds the parents of a shadow page. A list of one is the spte's address itself;
 * longer ones are a chain of descriptors of SPTE_DESC_SLOTS entries, of which only the first may have room.
 *
 * rmaps are sparse: for each level a directory of chunks, each for 512 consecutive heads, made on first use, with
 * counts, so that work on a range costs what the range holds. No call on the fault path can fail halfway:
 * rmap_prepare() comes first. All calls need the MMU lock.
 */
#ifndef MMU_SHADOW_RMAP_H
#define MMU_SHADOW_RMAP_H

#include "core/account.h"
#include "mmu/engine.h"

#define SPTE_DESC_SLOTS 14
/* A longer rmap is zapped before it gets another entry: removing one entry searches the list. Linux:
 * RMAP_RECYCLE_THRESHOLD. */
#define RMAP_RECYCLE    1000
#define RMAP_LEVELS     3 /* 4K, 2M, 1G */

struct spte_desc {
    struct spte_desc *more;
    uint32_t used, total; /* entries here; here and in `more` and so on */
    uint64_t *slot[SPTE_DESC_SLOTS];
};

/* 0: empty; bit 0 clear: the only spte; bit 0 set: a struct spte_desc. */
struct spte_list {
    uintptr_t val;
};

/* Descriptors to hand out; owned by the engine. It outlives the rmaps that were made with it. */
struct spte_desc_cache {
    struct spte_desc *free;
    size_t available;
    struct account bytes; /* of all rmaps: descriptors, in use or not, heads, directories */
};

/* Makes sure that `n` additions cannot fail. False: out of memory (nothing lost). */
bool spte_desc_topup(struct spte_desc_cache *c, size_t n);
void spte_desc_fini(struct spte_desc_cache *c);

void spte_list_add(struct spte_desc_cache *c, struct spte_list *l, uint64_t *sptep);
/* False: it was not there. */
bool spte_list_remove(struct spte_desc_cache *c, struct spte_list *l, uint64_t *sptep);
size_t spte_list_count(const struct spte_list *l);
/* In constant time. */
static inline bool spte_list_is_long(const struct spte_list *l)
{
    return (l->val & 1) && ((const struct spte_desc *)(l->val & ~(uintptr_t)1))->total >= RMAP_RECYCLE;
}
size_t spte_list_occurrences(const struct spte_list *l, const uint64_t *sptep);

static inline bool spte_list_is_empty(const struct spte_list *l)
{
    return !l->val;
}

struct spte_iter {
    const struct spte_desc *desc;
    size_t pos;
};

uint64_t *spte_list_first(const struct spte_list *l, struct spte_iter *it);
uint64_t *spte_list_next(struct spte_iter *it);

/* The list must not change inside the loop. */
#define spte_list_for_each(list, it, sptep)                                                                            \
    for (uint64_t *sptep = spte_list_first((list), (it)); sptep; sptep = spte_list_next(it))

/* The head of (slot, gfn, level), or NULL when its chunk was never made. */
struct spte_list *rmap_head(const struct memslot *slot, gfn_t gfn, int level);
/* After this, one rmap_add() of the gfn at the level cannot fail. False: out of memory. */
bool rmap_prepare(struct memslot *slot, gfn_t gfn, int level, struct spte_desc_cache *c);
void rmap_add(struct spte_desc_cache *c, struct memslot *slot, gfn_t gfn, int level, uint64_t *sptep);
bool rmap_remove(struct spte_desc_cache *c, struct memslot *slot, gfn_t gfn, int level, uint64_t *sptep);
/* First non-empty head of the level at or after *gfn and before end, both inside the slot; *gfn becomes the first gfn
 * that it covers and that is not below the slot's base. NULL: none. Skips empty chunks whole. */
struct spte_list *rmap_next_used(const struct memslot *slot, int level, gfn_t *gfn, gfn_t end);
/* sptes that the slot's rmaps hold. */
uint64_t rmap_count(const struct memslot *slot);
/* Frees the slot's rmaps, which must be empty. */
void rmap_release(struct memslot *slot);

/* gfns below one entry of the level. */
static inline uint64_t level_pages(int level)
{
    return 1ull << (9 * (level - 1));
}

#endif
