/*
 * Following the host without losing mappings: aging and change_pte (Linux: kvm_age_rmapp, kvm_test_age_rmapp,
 * kvm_set_pte_rmapp).
 *
 * The soft TLB has no accessed bits, so aging is by access tracking: an spte whose accessed state was taken has no TLB
 * entries, and the next miss, which it still answers, marks it again.
 */
#include "mmu/shadow/gpte.h"

static bool head_age(struct shadow *sh, struct spte_list *head, enum mmu_age how)
{
    struct spte_iter it;
    bool young = false;
    spte_list_for_each(head, &it, sptep)
    {
        if (!(*sptep & SPTE_ACCESSED))
            continue;
        young = true;
        if (how == MMU_AGE_TEST)
            break;
        spte_drop_cached(sh, sptep);
        *sptep &= ~SPTE_ACCESSED;
        sh->stats.aged++;
        sp_touch(sh, sp_of(sh, sptep));
    }
    return young;
}

/* A guest table is read by no one while it is shadowed. It is as young as what is mapped through it; upper ones, which
 * are few, as long as they are shadowed. */
static bool sp_is_young(const struct shadow *sh, const struct sp *sp)
{
    const uint64_t *spt = sp_table(sh, sp);
    unsigned left = sp->used;
    if (sp->role.level > 1)
        return left;
    for (unsigned i = 0; left && i < SP_ENTRIES; i++) {
        left -= spt[i] != 0;
        if (spte_is_present(spt[i]) && (spt[i] & SPTE_ACCESSED))
            return true;
    }
    return false;
}

static bool table_is_young(const struct shadow *sh, unsigned as, gfn_t gfn)
{
    sp_for_each_of_gfn(sh, gfn, sp)
    {
        if (!sp->role.direct && role_as(sp->role) == as && !sp_is_obsolete(sh, sp) && sp_is_young(sh, sp))
            return true;
    }
    return false;
}

/* By gfn, or by page, whichever is less work. */
static bool any_table_is_young(const struct shadow *sh, unsigned as, gfn_t start, uint64_t pages)
{
    if (pages < sh->active_count) {
        for (gfn_t gfn = start; gfn < start + pages; gfn++)
            if (table_is_young(sh, as, gfn))
                return true;
        return false;
    }
    for (uint32_t i = sh->active_first; i; i = sh->pages[i].active_next) {
        const struct sp *sp = &sh->pages[i];
        if (!sp->role.direct && role_as(sp->role) == as && sp->gfn - start < pages && !sp_is_obsolete(sh, sp) &&
            sp_is_young(sh, sp))
            return true;
    }
    return false;
}

bool shadow_age_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, enum mmu_age how)
{
    struct shadow *sh = shadow_of(mmu);
    struct memslot *slot = memslot_find(mmu->mem, as, start);
    bool young = false;
    shadow_batch_begin(sh);
    for (int level = 1; slot && level <= RMAP_LEVELS; level++) {
        struct spte_list *head;
        gfn_t gfn = start;
        while ((head = rmap_next_used(slot, level, &gfn, start + pages))) {
            young |= head_age(sh, head, how);
            gfn = (gfn | (level_pages(level) - 1)) + 1;
        }
    }
    young = young || any_table_is_young(sh, as, start, pages);
    shadow_batch_end(sh);
    return young;
}

/* Shadow pages of a table in the frame read it in its new place: it has the same content. */
static void repoint_tables(struct shadow *sh, unsigned as, gfn_t gfn, pfn_t pfn)
{
    sp_for_each_of_gfn(sh, gfn, sp)
    {
        if (!sp->role.direct && role_as(sp->role) == as) {
            sp->table = frame_pool_ptr(sh->pool, pfn);
            sp_touch(sh, sp);
        }
    }
}

/* The frame's content does not change, so shadow pages of a table in it stay. A writable entry or a large mapping is
 * made anew at the next fault instead. */
void shadow_change_pte(struct mmu *mmu, unsigned as, gfn_t gfn, struct hpte_view hpte)
{
    struct shadow *sh = shadow_of(mmu);
    struct memslot *slot = memslot_find(mmu->mem, as, gfn);
    struct spte_list *head = slot ? rmap_head(slot, gfn, 1) : NULL;
    struct spte_iter it;
    if (!slot)
        return;
    shadow_batch_begin(sh);
    repoint_tables(sh, as, gfn, hpte.pfn);
    shadow_zap_large(sh, slot, gfn, gfn + 1);
    if (head && hpte.writable) {
        shadow_head_zap(sh, head);
    } else if (head) {
        spte_list_for_each(head, &it, sptep)
        {
            spte_drop_cached(sh, sptep);
            *sptep = spte_repoint(*sptep, hpte.pfn);
            sh->stats.repointed++;
            sp_touch(sh, sp_of(sh, sptep));
        }
    }
    shadow_batch_end(sh);
}
