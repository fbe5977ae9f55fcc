/* Reverse maps and parent lists; see rmap.h. */
#include "mmu/shadow/rmap.h"

#include <stdlib.h>

#define CHUNK_HEADS 512
#define DESC_BATCH  64

struct rmap_chunk {
    unsigned used; /* heads that are not empty */
    struct spte_list head[CHUNK_HEADS];
};

struct rmap_level {
    size_t chunks;
    struct rmap_chunk **dir;
};

struct rmap {
    uint64_t sptes;
    struct account *bytes;
    struct rmap_level level[RMAP_LEVELS];
};

/* ---- spte_list ---- */

static struct spte_desc *list_desc(const struct spte_list *l)
{
    return (l->val & 1) ? (struct spte_desc *)(l->val & ~(uintptr_t)1) : NULL;
}

static void list_set_desc(struct spte_list *l, struct spte_desc *d)
{
    l->val = (uintptr_t)d | 1;
}

static void desc_give(struct spte_desc_cache *c, struct spte_desc *d)
{
    d->more = c->free;
    c->free = d;
    c->available++;
}

bool spte_desc_topup(struct spte_desc_cache *c, size_t n)
{
    while (c->available < n) {
        for (int i = 0; i < DESC_BATCH; i++) {
            struct spte_desc *d = malloc(sizeof *d);
            if (!d)
                return c->available >= n;
            desc_give(c, d);
            account_add(&c->bytes, sizeof *d);
        }
    }
    return true;
}

void spte_desc_fini(struct spte_desc_cache *c)
{
    while (c->free) {
        struct spte_desc *d = c->free;
        c->free = d->more;
        free(d);
        account_sub(&c->bytes, sizeof *d);
    }
    c->available = 0;
}

static struct spte_desc *desc_take(struct spte_desc_cache *c, struct spte_desc *more)
{
    struct spte_desc *d = c->free;
    c->free = d->more;
    c->available--;
    d->more = more;
    d->used = 0;
    d->total = more ? more->total : 0;
    return d;
}

/* Linux: pte_list_add. */
void spte_list_add(struct spte_desc_cache *c, struct spte_list *l, uint64_t *sptep)
{
    if (!l->val) {
        l->val = (uintptr_t)sptep;
        return;
    }
    struct spte_desc *d = list_desc(l);
    if (!d) {
        d = desc_take(c, NULL);
        d->slot[d->used++] = (uint64_t *)l->val;
        d->total++;
        list_set_desc(l, d);
    } else if (d->used == SPTE_DESC_SLOTS) {
        d = desc_take(c, d);
        list_set_desc(l, d);
    }
    d->slot[d->used++] = sptep;
    d->total++;
}

/* Takes the last entry of the first descriptor out; a list of one goes back to the single form. */
static uint64_t *list_pop(struct spte_desc_cache *c, struct spte_list *l, struct spte_desc *first)
{
    uint64_t *last = first->slot[--first->used];
    first->total--;
    if (!first->used) {
        struct spte_desc *more = first->more;
        desc_give(c, first);
        list_set_desc(l, more);
        first = more;
    }
    if (first->used == 1 && !first->more) {
        l->val = (uintptr_t)first->slot[0];
        desc_give(c, first);
    }
    return last;
}

/* Linux: pte_list_remove. A chained list holds at least two entries. */
bool spte_list_remove(struct spte_desc_cache *c, struct spte_list *l, uint64_t *sptep)
{
    struct spte_desc *first = list_desc(l);
    if (!first) {
        if ((uint64_t *)l->val != sptep)
            return false;
        l->val = 0;
        return true;
    }
    for (struct spte_desc *d = first; d; d = d->more) {
        for (size_t i = 0; i < d->used; i++) {
            if (d->slot[i] != sptep)
                continue;
            d->slot[i] = first->slot[first->used - 1];
            list_pop(c, l, first);
            return true;
        }
    }
    return false;
}

uint64_t *spte_list_first(const struct spte_list *l, struct spte_iter *it)
{
    it->desc = list_desc(l);
    it->pos = 0;
    return it->desc ? it->desc->slot[0] : (uint64_t *)l->val;
}

uint64_t *spte_list_next(struct spte_iter *it)
{
    if (!it->desc)
        return NULL;
    if (++it->pos == it->desc->used) {
        it->desc = it->desc->more;
        it->pos = 0;
    }
    return it->desc ? it->desc->slot[it->pos] : NULL;
}

size_t spte_list_count(const struct spte_list *l)
{
    struct spte_iter it;
    size_t n = 0;
    spte_list_for_each(l, &it, p) n++;
    return n;
}

size_t spte_list_occurrences(const struct spte_list *l, const uint64_t *sptep)
{
    struct spte_iter it;
    size_t n = 0;
    spte_list_for_each(l, &it, p) n += p == sptep;
    return n;
}

/* ---- rmap ---- */

static size_t head_index(const struct memslot *slot, gfn_t gfn, int level)
{
    unsigned shift = 9 * (level - 1);
    return (gfn >> shift) - (slot->base >> shift);
}

static struct rmap_chunk **chunk_slot(const struct memslot *slot, gfn_t gfn, int level)
{
    struct rmap *r = slot->rmap;
    return r ? &r->level[level - 1].dir[head_index(slot, gfn, level) / CHUNK_HEADS] : NULL;
}

struct spte_list *rmap_head(const struct memslot *slot, gfn_t gfn, int level)
{
    struct rmap_chunk **c = chunk_slot(slot, gfn, level);
    return c && *c ? &(*c)->head[head_index(slot, gfn, level) % CHUNK_HEADS] : NULL;
}

/* Counted memory, or NULL. */
static void *node_make(struct account *bytes, size_t count, size_t size)
{
    void *node = calloc(count, size);
    if (node)
        account_add(bytes, count * size);
    return node;
}

static void node_free(struct account *bytes, void *node, size_t size)
{
    if (node)
        account_sub(bytes, size);
    free(node);
}

static void rmap_free(struct rmap *r)
{
    for (int k = 0; k < RMAP_LEVELS; k++) {
        struct rmap_level *l = &r->level[k];
        for (size_t i = 0; l->dir && i < l->chunks; i++)
            node_free(r->bytes, l->dir[i], sizeof **l->dir);
        node_free(r->bytes, l->dir, l->chunks * sizeof *l->dir);
    }
    node_free(r->bytes, r, sizeof *r);
}

static struct rmap *rmap_new(const struct memslot *slot, struct account *bytes)
{
    struct rmap *r = node_make(bytes, 1, sizeof *r);
    if (r)
        r->bytes = bytes;
    for (int level = 1; r && level <= RMAP_LEVELS; level++) {
        struct rmap_level *l = &r->level[level - 1];
        l->chunks = head_index(slot, slot->base + slot->pages - 1, level) / CHUNK_HEADS + 1;
        l->dir = node_make(bytes, l->chunks, sizeof *l->dir);
        if (!l->dir) {
            rmap_free(r);
            return NULL;
        }
    }
    return r;
}

bool rmap_prepare(struct memslot *slot, gfn_t gfn, int level, struct spte_desc_cache *c)
{
    if (!slot->rmap && !(slot->rmap = rmap_new(slot, &c->bytes)))
        return false;
    struct rmap_chunk **chunk = chunk_slot(slot, gfn, level);
    if (!*chunk && !(*chunk = node_make(&c->bytes, 1, sizeof **chunk)))
        return false;
    return spte_desc_topup(c, 1);
}

void rmap_add(struct spte_desc_cache *c, struct memslot *slot, gfn_t gfn, int level, uint64_t *sptep)
{
    struct rmap *r = slot->rmap;
    struct spte_list *head = rmap_head(slot, gfn, level);
    (*chunk_slot(slot, gfn, level))->used += spte_list_is_empty(head);
    spte_list_add(c, head, sptep);
    r->sptes++;
}

bool rmap_remove(struct spte_desc_cache *c, struct memslot *slot, gfn_t gfn, int level, uint64_t *sptep)
{
    struct rmap *r = slot->rmap;
    struct spte_list *head = rmap_head(slot, gfn, level);
    if (!head || !spte_list_remove(c, head, sptep))
        return false;
    (*chunk_slot(slot, gfn, level))->used -= spte_list_is_empty(head);
    r->sptes--;
    return true;
}

struct spte_list *rmap_next_used(const struct memslot *slot, int level, gfn_t *gfn, gfn_t end)
{
    const struct rmap *r = slot->rmap;
    if (!r || *gfn >= end)
        return NULL;
    unsigned shift = 9 * (level - 1);
    size_t last = head_index(slot, end - 1, level);
    for (size_t i = head_index(slot, *gfn, level); i <= last; i++) {
        const struct rmap_chunk *c = r->level[level - 1].dir[i / CHUNK_HEADS];
        if (!c || !c->used) {
            i |= CHUNK_HEADS - 1;
            continue;
        }
        if (!spte_list_is_empty(&c->head[i % CHUNK_HEADS])) {
            gfn_t first = ((slot->base >> shift) + i) << shift;
            *gfn = first > slot->base ? first : slot->base;
            return (struct spte_list *)&c->head[i % CHUNK_HEADS];
        }
    }
    return NULL;
}

uint64_t rmap_count(const struct memslot *slot)
{
    const struct rmap *r = slot->rmap;
    return r ? r->sptes : 0;
}

void rmap_release(struct memslot *slot)
{
    if (slot->rmap)
        rmap_free(slot->rmap);
    slot->rmap = NULL;
}
