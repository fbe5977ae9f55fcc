/*
 * Unsync pages (`-mmu shadow,unsync=on`; Linux: mmu_try_to_unsync_pages, kvm_sync_page, mmu_sync_children,
 * FNAME(sync_page), FNAME(invlpg)).
 *
 * Off, every write to a guest table is seen. On, the first write to a leaf table makes its shadow pages unsync: the
 * table is tracked no more and the guest writes it freely. Its sptes may then be older than its entries, as a
 * processor's TLB may be, until the guest flushes: INVLPG brings the entry of its address up to date, any other flush
 * all unsync pages, which are tracked again from then on. A new link to an unsync page, and a page fault, also bring up
 * to date what they concern. Upper tables are never unsync, so a walk always ends at the right leaf table.
 *
 * Such a run is right as a run on a processor with a TLB is right; it is not coherent, and its digest says so.
 */
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"

#include <string.h>

static void list_add(struct shadow *sh, struct sp *sp)
{
    sp->unsync = true;
    sp->unsync_prev = 0;
    sp->unsync_next = sh->unsync_first;
    if (sh->unsync_first)
        sh->pages[sh->unsync_first].unsync_prev = sp->index;
    sh->unsync_first = sp->index;
    sh->stats.unsyncs++;
}

void unsync_unlist(struct shadow *sh, struct sp *sp)
{
    if (sp->unsync_prev)
        sh->pages[sp->unsync_prev].unsync_next = sp->unsync_next;
    else
        sh->unsync_first = sp->unsync_next;
    if (sp->unsync_next)
        sh->pages[sp->unsync_next].unsync_prev = sp->unsync_prev;
    sp->unsync = false;
}

/* Is all that shadows the gfn a leaf table, and do only we want to see its writes? */
static bool may_unsync(const struct shadow *sh, unsigned as, gfn_t gfn)
{
    if (track_mask(sh->mmu->mem, as, gfn) != 1u << TRACK_PT)
        return false;
    sp_for_each_of_gfn(sh, gfn, sp)
    {
        if (!sp->role.direct && role_as(sp->role) == as && (sp->role.level > 1 || sp_is_obsolete(sh, sp)))
            return false;
    }
    return true;
}

bool unsync_try(struct shadow *sh, unsigned as, gfn_t gfn)
{
    if (!sh->mmu->unsync || !may_unsync(sh, as, gfn))
        return false;
    shadow_batch_begin(sh);
    sp_for_each_of_gfn(sh, gfn, sp)
    {
        if (sp->role.direct || role_as(sp->role) != as || sp->unsync)
            continue;
        list_add(sh, sp);
        sp_touch(sh, sp);
        track_remove(sh->mmu->mem, as, gfn, TRACK_PT);
    }
    shadow_batch_end(sh);
    return true;
}

/* The guest's entry of spte `i` as it is now. */
static uint64_t entry_now(const struct sp *sp, unsigned i)
{
    return gpte_read(sp, sp_gpte_gpa(sp, i));
}

/* The page is tracked first, so that no write is lost between; one that maps nothing any more is not worth it. */
void unsync_sync(struct shadow *sh, struct sp *sp)
{
    uint64_t *spt = sp_table(sh, sp);
    shadow_batch_begin(sh);
    unsync_unlist(sh, sp);
    track_add(sh->mmu->mem, role_as(sp->role), sp->gfn, TRACK_PT);
    unsigned left = sp->used, changed = 0;
    for (unsigned i = 0; left && i < SP_ENTRIES; i++) {
        if (!spt[i])
            continue;
        left--;
        uint64_t old = spt[i];
        spte_update(sh, sp, &spt[i], entry_now(sp, i));
        changed += spt[i] != old;
    }
    sh->stats.syncs++;
    trace_point(sh->mmu->trace, TRACE_MMU_SYNC, sp->gfn, sp->role.word, changed, 1);
    sp_touch(sh, sp);
    shadow_batch_end(sh);
}

/* All, without zapping any: a fault may be on its way through them. */
static void unsync_sync_pages(struct shadow *sh)
{
    shadow_batch_begin(sh);
    while (sh->unsync_first)
        unsync_sync(sh, &sh->pages[sh->unsync_first]);
    shadow_batch_end(sh);
}

void unsync_sync_all(struct shadow *sh)
{
    shadow_batch_begin(sh);
    while (sh->unsync_first) {
        struct sp *sp = &sh->pages[sh->unsync_first];
        unsync_sync(sh, sp);
        if (!sp->used)
            sp_zap(sh, sp);
    }
    shadow_batch_end(sh);
}

/* An upper page that comes back with its subtree is rare: no one keeps count of what is unsync below it. */
void unsync_sync_below(struct shadow *sh, struct sp *sp)
{
    if (sp->unsync)
        unsync_sync(sh, sp);
    else if (sp->role.level > 1 && unlikely(sh->unsync_first))
        unsync_sync_pages(sh);
}

void unsync_sync_gva(struct mmu_vcpu *mv, gva_t gva)
{
    struct shadow *sh = shadow_of(mv->mmu);
    int level;
    uint64_t *sptep = shadow_walk(sh, mv->set->root, gva, &level);
    if (!sptep || level > 1 || !*sptep)
        return;
    struct sp *sp = sp_of(sh, sptep);
    if (!sp->unsync)
        return;
    uint64_t old = *sptep;
    spte_update(sh, sp, sptep, entry_now(sp, sp_index_of(sh, sptep)));
    trace_point(sh->mmu->trace, TRACE_MMU_SYNC, sp->gfn, sp->role.word, *sptep != old, 0);
    sp_touch(sh, sp);
}

void shadow_guest_flush(struct mmu_vcpu *mv, enum guest_flush what, gva_t gva)
{
    struct shadow *sh = shadow_of(mv->mmu);
    if (!sh->unsync_first)
        return;
    if (what == GUEST_FLUSH_PAGE)
        unsync_sync_gva(mv, gva);
    else
        unsync_sync_all(sh);
}
