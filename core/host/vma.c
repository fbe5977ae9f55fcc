#include "core/host/vma.h"

#include "core/alloc.h"
#include "core/host/host_mm_internal.h"

#include <stdlib.h>
#include <string.h>

/* So that huge and gigantic pages fit, whichever the VMA is large enough for. */
static hva_t gap_align(uint64_t len)
{
    return len >= (hva_t)1 << 30 ? (hva_t)1 << 30 : (hva_t)2 << 20;
}

void vma_set_fini(struct vma_set *s)
{
    free(s->list);
    *s = (struct vma_set){0};
}

/* Index of the first VMA whose end is > hva. */
static size_t first_ending_after(const struct vma_set *s, hva_t hva)
{
    size_t lo = 0, hi = s->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->list[mid].end <= hva)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct vma *vma_find(const struct vma_set *s, hva_t hva)
{
    size_t i = first_ending_after(s, hva);
    return i < s->count && s->list[i].start <= hva ? &s->list[i] : NULL;
}

bool vma_covers(const struct vma_set *s, hva_t start, hva_t end)
{
    for (size_t i = first_ending_after(s, start); i < s->count && s->list[i].start <= start; i++) {
        start = s->list[i].end;
        if (start >= end)
            return true;
    }
    return false;
}

hva_t vma_find_gap(const struct vma_set *s, uint64_t len)
{
    hva_t at = HVA_BASE, align = gap_align(len);
    for (size_t i = 0; i < s->count; i++) {
        if (s->list[i].end <= at)
            continue;
        if (s->list[i].start >= at && s->list[i].start - at >= len)
            return at;
        at = (s->list[i].end + align - 1) & ~(align - 1);
    }
    return at < HVA_END && HVA_END - at >= len ? at : 0;
}

static void insert_at(struct vma_set *s, size_t at, const struct vma *v)
{
    struct vma copy = *v; /* `v` may lie in the list */
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 8;
        s->list = alloc_resize(s->list, s->capacity, sizeof *s->list);
    }
    memmove(&s->list[at + 1], &s->list[at], (s->count - at) * sizeof *s->list);
    s->list[at] = copy;
    s->count++;
    if (copy.backing)
        copy.backing->refs++;
}

static void remove_at(struct vma_set *s, size_t at)
{
    s->count--;
    if (s->list[at].backing)
        s->list[at].backing->refs--;
    memmove(&s->list[at], &s->list[at + 1], (s->count - at) * sizeof *s->list);
}

/* Makes `at` a border between VMAs, if it lies inside one. */
static void split(struct vma_set *s, hva_t at)
{
    size_t i = first_ending_after(s, at);
    if (i == s->count || s->list[i].start >= at)
        return;
    insert_at(s, i, &s->list[i]);
    s->list[i].end = at;
    s->list[i + 1].start = at;
    s->list[i + 1].offset += at - s->list[i].start;
}

static bool can_join(const struct vma *a, const struct vma *b)
{
    return a->end == b->start && a->kind == b->kind && a->prot == b->prot && a->kind == VMA_ANON &&
           a->mergeable == b->mergeable;
}

static void join_around(struct vma_set *s, hva_t start, hva_t end)
{
    size_t i = first_ending_after(s, start ? start - 1 : 0);
    while (i + 1 < s->count && s->list[i].start < end) {
        if (can_join(&s->list[i], &s->list[i + 1])) {
            s->list[i].end = s->list[i + 1].end;
            remove_at(s, i + 1);
        } else {
            i++;
        }
    }
}

void vma_insert(struct vma_set *s, const struct vma *v)
{
    insert_at(s, first_ending_after(s, v->start), v);
    join_around(s, v->start, v->end);
}

void vma_remove(struct vma_set *s, hva_t start, hva_t end)
{
    split(s, start);
    split(s, end);
    size_t i = first_ending_after(s, start);
    while (i < s->count && s->list[i].start < end)
        remove_at(s, i);
}

void vma_set_prot(struct vma_set *s, hva_t start, hva_t end, unsigned prot)
{
    split(s, start);
    split(s, end);
    for (size_t i = first_ending_after(s, start); i < s->count && s->list[i].start < end; i++)
        s->list[i].prot = prot;
    join_around(s, start, end);
}

void vma_set_mergeable(struct vma_set *s, hva_t start, hva_t end, bool on)
{
    split(s, start);
    split(s, end);
    for (size_t i = first_ending_after(s, start); i < s->count && s->list[i].start < end; i++)
        s->list[i].mergeable = on;
    join_around(s, start, end);
}
