#include "core/host/hpte.h"

#include "core/alloc.h"

#include <stdlib.h>

#define DIR_SPAN ((hva_t)HPTE_CHUNK_SIZE << HPTE_DIR_BITS)

static void *node_make(struct hpte_table *t, size_t count, size_t size)
{
    account_add(&t->bytes, count * size);
    return alloc_zeroed(count, size);
}

static void node_free(struct hpte_table *t, void *node, size_t size)
{
    if (node)
        account_sub(&t->bytes, size);
    free(node);
}

void hpte_sums_make(struct hpte_table *t, struct hpte_chunk *c)
{
    c->sums = node_make(t, HPTE_CHUNK_PAGES, sizeof *c->sums);
}

static void chunk_free(struct hpte_table *t, struct hpte_chunk *c)
{
    if (!c)
        return;
    node_free(t, c->sums, HPTE_CHUNK_PAGES * sizeof *c->sums);
    node_free(t, c, sizeof *c);
}

static struct hpte_chunk *chunk_obtain(struct hpte_table *t, hva_t hva)
{
    uint64_t i = hva / HPTE_CHUNK_SIZE;
    struct hpte_dir **dir = &t->dir[i >> HPTE_DIR_BITS];
    if (!*dir)
        *dir = node_make(t, 1, sizeof **dir);
    struct hpte_chunk **chunk = &(*dir)->chunk[i & (HPTE_DIR_SIZE - 1)];
    if (!*chunk) {
        *chunk = node_make(t, 1, sizeof **chunk);
        (*chunk)->level = 1;
        (*dir)->used++;
    }
    return *chunk;
}

static void chunk_drop(struct hpte_table *t, hva_t hva)
{
    uint64_t i = hva / HPTE_CHUNK_SIZE;
    struct hpte_dir **dir = &t->dir[i >> HPTE_DIR_BITS];
    struct hpte_chunk **chunk = &(*dir)->chunk[i & (HPTE_DIR_SIZE - 1)];
    chunk_free(t, *chunk);
    *chunk = NULL;
    if (--(*dir)->used == 0) {
        node_free(t, *dir, sizeof **dir);
        *dir = NULL;
    }
}

static bool is_merged(hpte_t e)
{
    return hpte_is_resident(e) && (e & HPTE_KSM);
}

void hpte_set(struct hpte_table *t, hva_t hva, hpte_t e)
{
    bool none = hpte_state_of(e) == HPTE_NONE;
    struct hpte_chunk *c = none ? hpte_chunk_at(t, hva) : chunk_obtain(t, hva);
    if (!c)
        return;
    hpte_t *slot = &c->e[hpte_index(hva)];
    c->used += !none - (hpte_state_of(*slot) != HPTE_NONE);
    t->present += hpte_is_resident(e) - (uint64_t)hpte_is_resident(*slot);
    t->ksm += is_merged(e) - (uint64_t)is_merged(*slot);
    t->awaited += hpte_is_awaited(e) - (uint64_t)hpte_is_awaited(*slot);
    *slot = none ? 0 : e;
    if (!c->used)
        chunk_drop(t, hva);
}

void hpte_fill(struct hpte_table *t, hva_t hva, pfn_t run, unsigned bits)
{
    struct hpte_chunk *c = chunk_obtain(t, hva);
    for (unsigned i = 0; i < HPTE_CHUNK_PAGES; i++)
        c->e[i] = hpte_make(HPTE_PRESENT, run + i, bits);
    c->used = HPTE_CHUNK_PAGES;
    c->level = HPTE_LEVEL_HUGE;
    t->present += HPTE_CHUNK_PAGES;
}

/* The first hpte from `hva` on in its own chunk, or the chunk's end. */
static hva_t next_in_chunk(const struct hpte_chunk *c, hva_t hva)
{
    unsigned i = hpte_index(hva);
    while (i < HPTE_CHUNK_PAGES && hpte_state_of(c->e[i]) == HPTE_NONE)
        i++;
    return (hva & ~(HPTE_CHUNK_SIZE - 1)) + i * PAGE_SIZE;
}

hva_t hpte_next(const struct hpte_table *t, hva_t hva, hva_t end)
{
    while (hva < end) {
        const struct hpte_chunk *c = hpte_chunk_at(t, hva);
        if (!c) {
            bool has_dir = hva < DIR_SPAN << HPTE_DIR_BITS && t->dir[hva / DIR_SPAN];
            hva_t span = has_dir ? HPTE_CHUNK_SIZE : DIR_SPAN;
            hva = (hva & ~(span - 1)) + span;
            continue;
        }
        hva_t next = next_in_chunk(c, hva);
        if (hva / HPTE_CHUNK_SIZE == next / HPTE_CHUNK_SIZE)
            return next < end ? next : end;
        hva = next;
    }
    return end;
}

void hpte_table_fini(struct hpte_table *t)
{
    for (unsigned d = 0; d < HPTE_DIR_SIZE; d++) {
        if (!t->dir[d])
            continue;
        for (unsigned i = 0; i < HPTE_DIR_SIZE; i++)
            chunk_free(t, t->dir[d]->chunk[i]);
        node_free(t, t->dir[d], sizeof *t->dir[d]);
        t->dir[d] = NULL;
    }
    t->present = t->ksm = t->awaited = 0;
}
