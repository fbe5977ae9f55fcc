/*
 * Write tracking (Linux: arch/x86/kvm/mmu/page_track.c): a count per gfn and kind of the parties that must see writes
 * to it.
 *
 * The first party makes the engine take every right to write the gfn unseen away (mmu_ops.protect_gfn). From then on
 * each write goes through mem_access() or mem_written(), which call the listeners after the write was made.
 */
#include "mmu/mem.h"

#include <string.h>

_Static_assert(TRACK_KINDS <= 8, "track_chunk.mask is a byte");

void track_init(struct mem *m)
{
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        gfn_tree_init(&m->track[as], sizeof(struct track_chunk));
        gfn_tree_count_bytes(&m->track[as], &m->bytes.tracking);
    }
}

void track_fini(struct mem *m)
{
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++)
        gfn_tree_fini(&m->track[as]);
}

void track_register(struct mem *m, struct track_listener *l)
{
    struct track_listener **at = &m->listeners;
    while (*at)
        at = &(*at)->next;
    l->next = NULL;
    *at = l;
}

void track_unregister(struct mem *m, struct track_listener *l)
{
    for (struct track_listener **at = &m->listeners; *at; at = &(*at)->next) {
        if (*at == l) {
            *at = l->next;
            return;
        }
    }
}

static void protect(struct mem *m, unsigned as, gfn_t gfn)
{
    struct mmu *mmu = m->mmu;
    if (!mmu)
        return;
    mmu_lock(mmu);
    mmu->stats.write_protects++;
    mmu->ops->protect_gfn(mmu, as, gfn);
    mmu_unlock(mmu);
}

static void unprotect(struct mem *m, unsigned as, gfn_t gfn)
{
    struct mmu *mmu = m->mmu;
    if (!mmu || !mmu->ops->unprotect_gfn)
        return;
    mmu_lock(mmu);
    mmu->ops->unprotect_gfn(mmu, as, gfn);
    mmu_unlock(mmu);
}

void track_add(struct mem *m, unsigned as, gfn_t gfn, enum track_kind kind)
{
    if (gfn >= GFN_LIMIT)
        return;
    struct track_chunk *c = gfn_tree_make(&m->track[as], gfn);
    unsigned i = gfn & (GFN_CHUNK - 1);
    c->count[i][kind]++;
    bool first = !c->mask[i];
    c->mask[i] |= 1u << kind;
    if (first) {
        c->tracked++;
        gfn_tree_dir(&m->track[as], gfn)->total++;
        protect(m, as, gfn);
        if (m->mirror)
            mem_mirror_track(m, as, gfn, true);
    }
}

void track_remove(struct mem *m, unsigned as, gfn_t gfn, enum track_kind kind)
{
    struct track_chunk *c = gfn_tree_find(&m->track[as], gfn);
    unsigned i = gfn & (GFN_CHUNK - 1);
    if (!c || !c->count[i][kind] || --c->count[i][kind])
        return;
    c->mask[i] &= ~(1u << kind);
    if (!c->mask[i]) {
        c->tracked--;
        gfn_tree_dir(&m->track[as], gfn)->total--;
        unprotect(m, as, gfn);
        if (m->mirror)
            mem_mirror_track(m, as, gfn, false);
    }
}

bool track_is_tracked(const struct mem *m, unsigned as, gfn_t gfn)
{
    return track_mask(m, as, gfn) != 0;
}

unsigned track_count(const struct mem *m, unsigned as, gfn_t gfn, enum track_kind kind)
{
    const struct track_chunk *c = gfn_tree_find(&m->track[as], gfn);
    return c ? c->count[gfn & (GFN_CHUNK - 1)][kind] : 0;
}

bool track_any_in_large(const struct mem *m, unsigned as, gfn_t gfn, int level)
{
    if (level >= 3) {
        const struct gfn_dir *dir = gfn_tree_dir(&m->track[as], gfn);
        return dir && dir->total;
    }
    const struct track_chunk *c = gfn_tree_find(&m->track[as], gfn);
    return c && c->tracked;
}

uint64_t track_write_count(const struct mem *m)
{
    return m->track_writes;
}

void track_notify(struct mem *m, unsigned as, gpa_t gpa, const void *bytes, size_t len, unsigned mask)
{
    bool heard = false;
    for (struct track_listener *l = m->listeners, *next; l; l = next) {
        next = l->next; /* a listener may unregister itself */
        if (!(mask >> l->kind & 1))
            continue;
        trace_point(m->cfg.trace, TRACE_MMU_TRACKED_WRITE, gpa, len, l->kind, 0);
        heard |= l->write(l, as, gpa, bytes, len);
    }
    m->track_writes += heard;
}

void track_flush_slot(struct mem *m, unsigned as, gfn_t start, uint64_t pages)
{
    for (struct track_listener *l = m->listeners, *next; l; l = next) {
        next = l->next;
        if (l->flush_slot)
            l->flush_slot(l, as, start, pages);
    }
}
