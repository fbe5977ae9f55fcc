#include "mmu/gfn_tree.h"

#include <stdlib.h>

void gfn_tree_init(struct gfn_tree *t, size_t chunk_size)
{
    *t = (struct gfn_tree){.chunk_size = chunk_size};
}

static void dir_free(struct gfn_dir *dir)
{
    if (!dir)
        return;
    for (unsigned i = 0; i < ARRAY_LEN(dir->chunk); i++)
        free(dir->chunk[i]);
    free(dir);
}

void gfn_tree_fini(struct gfn_tree *t)
{
    for (unsigned i = 0; t->top && i < GFN_TOP; i++) {
        struct gfn_mid *mid = t->top[i];
        for (unsigned j = 0; mid && j < ARRAY_LEN(mid->dir); j++)
            dir_free(mid->dir[j]);
        free(mid);
    }
    free(t->top);
    t->top = NULL;
}

void *gfn_tree_make(struct gfn_tree *t, gfn_t gfn)
{
    if (!t->top)
        t->top = alloc_zeroed(GFN_TOP, sizeof(*t->top));
    struct gfn_mid **mid = &t->top[gfn >> 29];
    if (!*mid)
        *mid = alloc_zeroed(1, sizeof(**mid));
    struct gfn_dir **dir = &(*mid)->dir[(gfn >> 18) & 1023];
    if (!*dir)
        *dir = alloc_zeroed(1, sizeof(**dir));
    void **chunk = &(*dir)->chunk[(gfn >> 9) & 511];
    if (!*chunk)
        *chunk = alloc_zeroed(1, t->chunk_size);
    return *chunk;
}

gfn_t gfn_tree_next(const struct gfn_tree *t, gfn_t gfn, gfn_t end, void **chunk)
{
    gfn_t stop = end < GFN_LIMIT ? end : GFN_LIMIT;
    while (t->top && gfn < stop) {
        const struct gfn_mid *mid = t->top[gfn >> 29];
        if (!mid) {
            gfn = ((gfn >> 29) + 1) << 29;
            continue;
        }
        const struct gfn_dir *dir = mid->dir[(gfn >> 18) & 1023];
        if (!dir) {
            gfn = ((gfn >> 18) + 1) << 18;
            continue;
        }
        if (dir->chunk[(gfn >> 9) & 511]) {
            *chunk = dir->chunk[(gfn >> 9) & 511];
            return gfn;
        }
        gfn = ((gfn >> 9) + 1) << 9;
    }
    return UINT64_MAX;
}
