/*
 * A sparse map from guest frame numbers to chunks of 512 gfns: what tracking and the engines keep "for each gfn".
 *
 * A chunk covers 2 MiB of guest-physical memory and a directory of 512 chunks 1 GiB, so that a question about a large
 * page looks at one chunk or one directory. Chunks are made on first use and stay; work on a range costs what the range
 * holds. gfns are below 2^40 (52 physical address bits); look-ups beyond find nothing.
 */
#ifndef MMU_GFN_TREE_H
#define MMU_GFN_TREE_H

#include "core/account.h"
#include "core/alloc.h"
#include "core/types.h"

#define GFN_CHUNK 512u
#define GFN_BITS  40
#define GFN_LIMIT ((gfn_t)1 << GFN_BITS)
#define GFN_MID   2048u
#define GFN_TOP   (1u << (GFN_BITS - 29))

struct gfn_dir {
    uint64_t total; /* the user's own: a count over the directory */
    void *chunk[512];
};

struct gfn_mid {
    struct gfn_dir *dir[GFN_MID];
};

struct gfn_tree {
    size_t chunk_size;
    struct account *bytes; /* where its memory is counted; NULL: nowhere */
    struct gfn_mid **top;  /* GFN_TOP entries of 2^29 gfns each; NULL until first used */
};

static inline struct gfn_dir *gfn_tree_dir(const struct gfn_tree *t, gfn_t gfn)
{
    if (!t->top || gfn >= GFN_LIMIT)
        return NULL;
    const struct gfn_mid *mid = t->top[gfn >> 29];
    return mid ? mid->dir[(gfn >> 18) & (GFN_MID - 1)] : NULL;
}

/* The chunk of gfn, or NULL. */
static inline void *gfn_tree_find(const struct gfn_tree *t, gfn_t gfn)
{
    const struct gfn_dir *dir = gfn_tree_dir(t, gfn);
    return dir ? dir->chunk[(gfn >> 9) & 511] : NULL;
}

void gfn_tree_init(struct gfn_tree *t, size_t chunk_size);
/* From now on its memory is counted there, until it is empty again. */
static inline void gfn_tree_count_bytes(struct gfn_tree *t, struct account *bytes)
{
    t->bytes = bytes;
}
void gfn_tree_fini(struct gfn_tree *t);
/* The chunk of gfn (< GFN_LIMIT), made zeroed if it did not exist. */
void *gfn_tree_make(struct gfn_tree *t, gfn_t gfn);
/* The first gfn >= `gfn` (and < end) that lies in an existing chunk, with its chunk; UINT64_MAX if there is none.
 * Iterates: for (gfn_t g = gfn_tree_next(t, start, end, &c); g < end; g = gfn_tree_next(t, (g | 511) + 1, end, &c)) */
gfn_t gfn_tree_next(const struct gfn_tree *t, gfn_t gfn, gfn_t end, void **chunk);

#endif
