#include "mmu/gfn_tree.h"

#include <stdlib.h>

void gfn_tree_init(struct gfn_tree *t, size_t chunk_size)
{
    *t = (struct gfn_tree){.chunk_size = chunk_size};
}

static void *node_make(struct gfn_tree *t, size_t count, size_t size)
{
    if (t->bytes)
        account_add(t->bytes, count * size);
    return alloc_zeroed(count, size);
}

static void node_free(struct gfn_tree *t, void *node, size_t size)
{
    if (t->bytes && node)
        account_sub(t->bytes, size);
    free(node);
}

static void dir_free(struct gfn_tree *t, struct gfn_dir *dir)
{
    if (!dir)
        return;
    for (unsigned i = 0; i < ARRAY_LEN(dir->chunk); i++)
        node_free(t, dir->chunk[i], t->chunk_size);
    node_free(t, dir, sizeof *dir);
}

void gfn_tree_fini(struct gfn_tree *t)
{
    for (unsigned i = 0; t->top && i < GFN_TOP; i++) {
        struct gfn_mid *mid = t->top[i];
        for (unsigned j = 0; mid && j < ARRAY_LEN(mid->dir); j++)
            dir_free(t, mid->dir[j]);
        node_free(t, mid, sizeof *mid);
    }
    node_free(t, t->top, GFN_TOP * sizeof *t->top);
    t->top = NULL;
}

void *gfn_tree_make(struct gfn_tree *t, gfn_t gfn)
{
    if (!t->top)
        t->top = node_make(t, GFN_TOP, sizeof(*t->top));
    struct gfn_mid **mid = &t->top[gfn >> 29];
    if (!*mid)
        *mid = node_make(t, 1, sizeof(**mid));
    struct gfn_dir **dir = &(*mid)->dir[(gfn >> 18) & (GFN_MID - 1)];
    if (!*dir)
        *dir = node_make(t, 1, sizeof(**dir));
    void **chunk = &(*dir)->chunk[(gfn >> 9) & 511];
    if (!*chunk)
        *chunk = node_make(t, 1, t->chunk_size);
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
        const struct gfn_dir *dir = mid->dir[(gfn >> 18) & (GFN_MID - 1)];
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
