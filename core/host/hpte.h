/*
 * hptes: what is at each hva now. Private to core/host.
 *
 * An hpte is one word: state, permissions, accessed and dirty, and above them the frame or the swap slot. Tables are
 * sparse: a chunk of 512 (2 MiB of hva, the unit of a huge page) exists while it holds at least one hpte that is not
 * none, so that work on a range costs what the range holds. A huge hpte is a chunk whose 512 words are alike in
 * permissions and map one aligned run of frames; a gigantic one is 512 such chunks, an aligned GiB. Whoever changes a
 * part of one splits it first. A directory of two levels finds the chunk: two loads for a lookup, and 16 GiB of
 * emptiness skipped at a step.
 */
#ifndef CORE_HOST_HPTE_H
#define CORE_HOST_HPTE_H

#include "core/account.h"
#include "core/host/host_mm.h"

typedef uint64_t hpte_t;

#define HPTE_STATE_MASK 3u        /* enum hpte_state */
#define HPTE_READ       (1u << 2) /* may be read: the VMA grants some access */
#define HPTE_WRITE      (1u << 3) /* may be written without a fault */
#define HPTE_ACCESSED   (1u << 4)
#define HPTE_DIRTY      (1u << 5)
#define HPTE_SOFT_DIRTY (1u << 6) /* written since soft-dirty was last cleared; kept in swapped hptes */
#define HPTE_KSM        (1u << 7) /* KSM put this frame here */
#define HPTE_SPECIAL                                                                                                   \
    (1u << 8) /* what is named is another's: no reference is held, nothing is accounted. A mirror's                    \
                 frame; swapped: an awaited page, with its key (core/host/postcopy.h) */
#define HPTE_FILE        (1u << 9) /* the frame holds what the VMA's file holds: it can be dropped and read again */
#define HPTE_AGE_SHIFT   10        /* two bits: agings in a row that found the page untouched */
#define HPTE_AGE_MAX     3u
#define HPTE_AGE_MASK    (HPTE_AGE_MAX << HPTE_AGE_SHIFT)
#define HPTE_FRAME_SHIFT 12 /* frame number when present or zero, slot or key when swapped */

#define HPTE_CHUNK_SHIFT 9
#define HPTE_CHUNK_PAGES (1u << HPTE_CHUNK_SHIFT)
#define HPTE_CHUNK_SIZE  (HPTE_CHUNK_PAGES * PAGE_SIZE)
#define HPTE_LEVEL_HUGE  2
#define HPTE_LEVEL_MAX   3  /* gigantic; writable ones are dirty throughout */
#define HPTE_DIR_BITS    13 /* 47 - 21 = 2 x 13 */
#define HPTE_DIR_SIZE    (1u << HPTE_DIR_BITS)

struct hpte_chunk {
    hpte_t e[HPTE_CHUNK_PAGES];
    unsigned used;  /* hptes that are not none */
    uint8_t level;  /* of the mapping that it is or is part of: 1 (small pages), 2 or 3 */
    uint32_t *sums; /* KSM's checksums of the last visit, 512; NULL until it came by */
};

struct hpte_dir {
    struct hpte_chunk *chunk[HPTE_DIR_SIZE];
    unsigned used;
};

struct hpte_table {
    struct hpte_dir *dir[HPTE_DIR_SIZE];
    uint64_t present; /* hptes in state present, special ones not counted */
    uint64_t ksm;     /* of them those that KSM has merged */
    uint64_t awaited; /* hptes of awaited pages */
    struct account bytes;
};

static inline enum hpte_state hpte_state_of(hpte_t e)
{
    return (enum hpte_state)(e & HPTE_STATE_MASK);
}

static inline pfn_t hpte_frame(hpte_t e)
{
    return e >> HPTE_FRAME_SHIFT;
}

static inline hpte_t hpte_make(enum hpte_state state, pfn_t pfn, unsigned bits)
{
    return pfn << HPTE_FRAME_SHIFT | bits | state;
}

/* True if the hpte maps a frame, its own or the zero page's. */
static inline bool hpte_has_frame(hpte_t e)
{
    return hpte_state_of(e) == HPTE_PRESENT || hpte_state_of(e) == HPTE_ZERO;
}

/* True if the hpte holds a reference to a frame of this mm: what can be swapped, merged, moved. */
static inline bool hpte_is_resident(hpte_t e)
{
    return hpte_state_of(e) == HPTE_PRESENT && !(e & HPTE_SPECIAL);
}

/* True if another party has the page (core/host/postcopy.h). */
static inline bool hpte_is_awaited(hpte_t e)
{
    return hpte_state_of(e) == HPTE_SWAPPED && (e & HPTE_SPECIAL);
}

/* True if the hpte has a slot of the swap store. */
static inline bool hpte_has_slot(hpte_t e)
{
    return hpte_state_of(e) == HPTE_SWAPPED && !(e & HPTE_SPECIAL);
}

static inline unsigned hpte_age(hpte_t e)
{
    return (unsigned)(e >> HPTE_AGE_SHIFT) & HPTE_AGE_MAX;
}

static inline hpte_t hpte_with_age(hpte_t e, unsigned age)
{
    return (e & ~(hpte_t)HPTE_AGE_MASK) | (hpte_t)age << HPTE_AGE_SHIFT;
}

static inline struct hpte_chunk *hpte_chunk_at(const struct hpte_table *t, hva_t hva)
{
    uint64_t i = hva / HPTE_CHUNK_SIZE;
    struct hpte_dir *dir = i >> (2 * HPTE_DIR_BITS) ? NULL : t->dir[i >> HPTE_DIR_BITS];
    return dir ? dir->chunk[i & (HPTE_DIR_SIZE - 1)] : NULL;
}

static inline unsigned hpte_index(hva_t hva)
{
    return (hva >> PAGE_SHIFT) & (HPTE_CHUNK_PAGES - 1);
}

/* The hpte's place, or NULL where no chunk is. Bits other than state, KSM and SPECIAL may be changed through it. */
static inline hpte_t *hpte_lookup(const struct hpte_table *t, hva_t hva)
{
    struct hpte_chunk *c = hpte_chunk_at(t, hva);
    return c ? &c->e[hpte_index(hva)] : NULL;
}

/* Makes the chunk's table of checksums. */
void hpte_sums_make(struct hpte_table *t, struct hpte_chunk *c);
/* Makes an absent chunk map a run of frames, present with the given bits, as a huge page. */
void hpte_fill(struct hpte_table *t, hva_t hva, pfn_t run, unsigned bits);
/* Sets the hpte of a page below HVA_END and keeps the counts; makes and frees chunks as needed. */
void hpte_set(struct hpte_table *t, hva_t hva, hpte_t e);
/* The first page in [hva, end) whose hpte is not none; `end` if there is none. */
hva_t hpte_next(const struct hpte_table *t, hva_t hva, hva_t end);
/* Frees every chunk. Frames are the caller's. */
void hpte_table_fini(struct hpte_table *t);

/* Pages and bytes of a mapping of the level, and where the one around hva starts. */
static inline uint64_t hpte_level_pages(int level)
{
    return 1ull << (HPTE_CHUNK_SHIFT * (level - 1));
}

static inline uint64_t hpte_level_size(int level)
{
    return hpte_level_pages(level) << PAGE_SHIFT;
}

static inline hva_t hpte_level_start(hva_t hva, int level)
{
    return hva & ~(hva_t)(hpte_level_size(level) - 1);
}

/* The level of the mapping that hva is part of; 1 where nothing is. */
static inline int hpte_level_at(const struct hpte_table *t, hva_t hva)
{
    const struct hpte_chunk *c = hpte_chunk_at(t, hva);
    return c ? c->level : 1;
}

static inline hva_t hpte_chunk_start(hva_t hva)
{
    return hva & ~(hva_t)(HPTE_CHUNK_SIZE - 1);
}

/* Each page of [from, to) that has an hpte. The body may set the hpte of `hva`. */
#define for_each_hpte(table, hva, from, to)                                                                            \
    for (hva_t hva = hpte_next(table, from, to); hva < (to); hva = hpte_next(table, hva + PAGE_SIZE, to))

#endif
