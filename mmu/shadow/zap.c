/*
 * Taking translations away: single sptes, whole shadow pages, gfn ranges, everything.
 *
 * The rule about the TLB: an entry depends on the leaf it was made from. Dropping a leaf drops its entries. Unlinking a
 * child drops those of every leaf below it, since some were reached through that link; the leaves stay, and what other
 * paths still reach is merely looked up again.
 */
#include "mmu/dirty.h"
#include "mmu/shadow/gpte.h"

/* Dropping one entry probes a few slots in each table; above this many in one go it is cheaper to clear the tables. */
#define BATCH_MAX_DROPS 2048

void shadow_batch_begin(struct shadow *sh)
{
    if (!sh->batch++)
        sh->batch_drops = 0;
}

void shadow_batch_end(struct shadow *sh)
{
    if (--sh->batch || !sh->flush_pending)
        return;
    sh->flush_pending = false;
    tlb_flush_all(sh->mmu);
    sh->mmu->stats.tlb_flushes++;
}

void spte_drop_cached(struct shadow *sh, uint64_t *sptep)
{
    if (!(*sptep & SPTE_CACHED))
        return;
    *sptep &= ~SPTE_CACHED;
    if (sh->flush_pending || sp_is_obsolete(sh, sp_of(sh, sptep)))
        return;
    if (++sh->batch_drops > BATCH_MAX_DROPS && sh->batch) {
        sh->flush_pending = true;
        return;
    }
    const struct sp *sp = sp_of(sh, sptep);
    if (sp->role.level == 1)
        tlb_drop_leaf(sh->mmu, (uintptr_t)sptep, sp_index_of(sh, sptep), sp->tlb_ways);
    else
        tlb_drop_dep(sh->mmu, (uintptr_t)sptep);
}

gfn_t spte_gfn(const struct shadow *sh, const uint64_t *sptep)
{
    const struct sp *sp = sp_of(sh, sptep);
    unsigned i = sp_index_of(sh, sptep);
    if (sp->role.direct)
        return role_gfn(sp->role, sp->gfn + i * level_pages((int)sp->role.level));
    return gpte_gfn(sp->role, *sp_gptep(sh, sptep), i);
}

/* Can a walk come through the page? */
static bool sp_is_reached(const struct sp *sp)
{
    return sp->root_count || sp->parents.val;
}

/* TLB entries of every leaf below the page. */
static void subtree_drop_cached(struct shadow *sh, struct sp *sp)
{
    uint64_t *spt = sp_table(sh, sp);
    int level = (int)sp->role.level;
    unsigned left = sp->used;
    for (unsigned i = 0; left && i < SP_ENTRIES && !sh->flush_pending; i++) {
        if (!spt[i])
            continue;
        left--;
        if (spte_is_leaf(spt[i], level))
            spte_drop_cached(sh, &spt[i]);
        else if (spte_is_link(spt[i], level))
            subtree_drop_cached(sh, &sh->pages[spte_child(spt[i])]);
    }
}

/* What the leaf knew goes on to those who want it: the dirty log and the host's aging. Linux:
 * mmu_spte_clear_track_bits, kvm_set_pfn_accessed. */
static void leaf_hand_on(struct shadow *sh, struct memslot *slot, gfn_t gfn, uint64_t spte, int level)
{
    if (slot && (spte & (SPTE_D_LOG | SPTE_DIRTY)) == (SPTE_D_LOG | SPTE_DIRTY))
        dirty_mark(sh->mmu->mem, slot, gfn, -1);
    if (spte & SPTE_ACCESSED)
        frame_pool_mark_accessed(sh->pool, spte_pfn(spte), level_pages(level));
}

void spte_drop(struct shadow *sh, uint64_t *sptep)
{
    struct sp *sp = sp_of(sh, sptep);
    uint64_t spte = *sptep;
    int level = (int)sp->role.level;
    if (!spte)
        return;
    if (spte_is_leaf(spte, level)) {
        gfn_t gfn = spte_gfn(sh, sptep);
        struct memslot *slot = memslot_find(sh->mmu->mem, role_as(sp->role), gfn);
        spte_drop_cached(sh, sptep);
        if (slot)
            rmap_remove(&sh->descs, slot, gfn, level, sptep);
        leaf_hand_on(sh, slot, gfn, spte, level);
        sh->mmu->stats.zaps++;
        trace_point(sh->mmu->trace, TRACE_MMU_ZAP, gfn, (uint64_t)level, spte, sp->role.word);
    } else if (spte_is_link(spte, level)) {
        struct sp *child = &sh->pages[spte_child(spte)];
        if (sp_is_reached(sp) && !sp_is_obsolete(sh, child))
            subtree_drop_cached(sh, child);
        spte_list_remove(&sh->descs, &child->parents, sptep);
        sp_touch(sh, child);
    }
    *sptep = 0;
    sp->used--;
    sp_touch(sh, sp);
}

static void sp_drop_sptes(struct shadow *sh, struct sp *sp)
{
    uint64_t *spt = sp_table(sh, sp);
    for (unsigned i = 0; sp->used && i < SP_ENTRIES; i++)
        spte_drop(sh, &spt[i]);
}

static void sp_unlink_parents(struct shadow *sh, struct sp *sp)
{
    struct spte_iter it;
    uint64_t *parent;
    while ((parent = spte_list_first(&sp->parents, &it)))
        spte_drop(sh, parent);
}

/* The gfn may be written freely again: let the next write to each mapping of it find that out. */
void shadow_unprotect_gfn(struct mmu *mmu, unsigned as, gfn_t gfn)
{
    struct shadow *sh = shadow_of(mmu);
    struct memslot *slot = memslot_find(sh->mmu->mem, as, gfn);
    struct spte_list *head = slot && slot->kind == MEMSLOT_RAM ? rmap_head(slot, gfn, 1) : NULL;
    struct spte_iter it;
    if (!head)
        return;
    spte_list_for_each(head, &it, sptep)
    {
        spte_drop_cached(sh, sptep);
        *sptep = spte_with_writable(*sptep & ~SPTE_EMUL);
        sp_touch(sh, sp_of(sh, sptep));
    }
}

void sp_zap(struct shadow *sh, struct sp *sp)
{
    shadow_batch_begin(sh);
    /* First what leads here: a table that goes with its process shares the kernel's with all others, whose TLBs keep
     * what is theirs. */
    shadow_roots_forget(sh, sp);
    sp_unlink_parents(sh, sp);
    sp_drop_sptes(sh, sp);
    if (sp->unsync)
        unsync_unlist(sh, sp);
    else if (!sp->role.direct)
        track_remove(sh->mmu->mem, role_as(sp->role), sp->gfn, TRACK_PT);
    sp_release(sh, sp);
    shadow_batch_end(sh);
}

/* Oldest page that no root needs; failing that, the oldest. */
static struct sp *sp_oldest(struct shadow *sh)
{
    for (uint32_t i = sh->active_first; i; i = sh->pages[i].active_next) {
        if (!sh->pages[i].root_count)
            return &sh->pages[i];
    }
    return &sh->pages[sh->active_first];
}

void shadow_make_room(struct shadow *sh, uint32_t n)
{
    if (likely(sh->free_count >= n))
        return;
    /* A few more than asked for, so that a full shadow does not recycle at every fault. Linux: KVM_REFILL_PAGES. */
    uint32_t want = n + sh->limit / 64;
    shadow_batch_begin(sh);
    while (sh->free_count < want && sh->active_first) {
        sp_zap(sh, sp_oldest(sh));
        sh->stats.recycled++;
    }
    shadow_batch_end(sh);
}

uint64_t shadow_shrink(struct mmu *mmu, uint64_t pages)
{
    struct shadow *sh = shadow_of(mmu);
    uint64_t n = 0;
    shadow_batch_begin(sh);
    for (; n < pages && sh->active_first; n++)
        sp_zap(sh, sp_oldest(sh));
    shadow_batch_end(sh);
    sh->stats.shrunk += n;
    return n;
}

/* ---- write protection ---- */

static void head_write_protect(struct shadow *sh, struct spte_list *head)
{
    struct spte_iter it;
    spte_list_for_each(head, &it, sptep)
    {
        if (*sptep & SPTE_EMUL)
            continue;
        if (*sptep & SPTE_WRITABLE)
            spte_drop_cached(sh, sptep);
        *sptep = spte_with_writable(*sptep | SPTE_EMUL);
        sh->mmu->stats.write_protects++;
        sp_touch(sh, sp_of(sh, sptep));
    }
}

bool shadow_head_zap(struct shadow *sh, struct spte_list *head)
{
    struct spte_iter it;
    uint64_t *sptep;
    bool any = false;
    while ((sptep = spte_list_first(head, &it))) {
        spte_drop(sh, sptep);
        any = true;
    }
    return any;
}

void shadow_zap_large(struct shadow *sh, struct memslot *slot, gfn_t start, gfn_t end)
{
    for (int level = 2; level <= RMAP_LEVELS; level++) {
        gfn_t gfn = start;
        struct spte_list *head;
        while ((head = rmap_next_used(slot, level, &gfn, end))) {
            shadow_head_zap(sh, head);
            gfn = (gfn | (level_pages(level) - 1)) + 1;
        }
    }
}

/* Linux: kvm_mmu_slot_gfn_write_protect. A large mapping around the gfn goes: its place is taken by small ones. */
void shadow_protect_gfn(struct mmu *mmu, unsigned as, gfn_t gfn)
{
    struct shadow *sh = shadow_of(mmu);
    struct memslot *slot = memslot_find(mmu->mem, as, gfn);
    if (!slot)
        return;
    shadow_batch_begin(sh);
    struct spte_list *head = rmap_head(slot, gfn, 1);
    if (head)
        head_write_protect(sh, head);
    shadow_zap_large(sh, slot, gfn, gfn + 1);
    shadow_batch_end(sh);
}

/* ---- ranges ---- */

static bool slot_zap_range(struct shadow *sh, struct memslot *slot, gfn_t start, gfn_t end)
{
    bool any = false;
    for (int level = 1; level <= RMAP_LEVELS; level++) {
        gfn_t gfn = start;
        struct spte_list *head;
        while ((head = rmap_next_used(slot, level, &gfn, end))) {
            any |= shadow_head_zap(sh, head);
            gfn = (gfn | (level_pages(level) - 1)) + 1;
        }
    }
    return any;
}

static bool sp_is_table_in(const struct sp *sp, unsigned as, gfn_t start, uint64_t pages)
{
    return !sp->role.direct && role_as(sp->role) == as && sp->gfn - start < pages;
}

/* Shadow pages of guest tables in the range: what the tables hold may have changed with their frames. By gfn, or by
 * page, whichever is less work. */
static bool zap_tables(struct shadow *sh, unsigned as, gfn_t start, uint64_t pages)
{
    bool any = false;
    if (pages < sh->active_count) {
        for (gfn_t gfn = start; gfn < start + pages; gfn++) {
            sp_for_each_of_gfn(sh, gfn, sp)
            {
                if (sp_is_table_in(sp, as, start, pages)) {
                    sp_zap(sh, sp);
                    any = true;
                }
            }
        }
        return any;
    }
    for (uint32_t i = sh->active_first, next; i; i = next) {
        next = sh->pages[i].active_next;
        if (sp_is_table_in(&sh->pages[i], as, start, pages)) {
            sp_zap(sh, &sh->pages[i]);
            any = true;
        }
    }
    return any;
}

bool shadow_zap_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages)
{
    struct shadow *sh = shadow_of(mmu);
    gfn_t end = start + pages;
    shadow_batch_begin(sh);
    bool any = zap_tables(sh, as, start, pages);
    for (size_t i = 0; i < memslot_count(mmu->mem); i++) {
        struct memslot *slot = memslot_at(mmu->mem, i);
        gfn_t slot_end = slot->base + slot->pages;
        if (slot->as != as || slot->base >= end || slot_end <= start)
            continue;
        any |= slot_zap_range(sh, slot, slot->base > start ? slot->base : start, slot_end < end ? slot_end : end);
    }
    shadow_batch_end(sh);
    return any;
}

void shadow_zap_all(struct mmu *mmu)
{
    struct shadow *sh = shadow_of(mmu);
    shadow_batch_begin(sh);
    sh->flush_pending = true;
    while (sh->active_first)
        sp_zap(sh, &sh->pages[sh->active_first]);
    for (size_t i = 0; i < memslot_count(mmu->mem); i++)
        rmap_release(memslot_at(mmu->mem, i));
    shadow_batch_end(sh);
}

void shadow_zap_all_fast(struct shadow *sh)
{
    sh->valid_generation++;
    shadow_roots_forget_all(sh);
    tlb_flush_all(sh->mmu);
    sh->stats.fast_zaps++;
}

void shadow_zap_obsolete(struct shadow *sh, unsigned budget)
{
    while (budget-- && sh->active_first && sp_is_obsolete(sh, &sh->pages[sh->active_first])) {
        sp_zap(sh, &sh->pages[sh->active_first]);
        sh->stats.obsolete_zapped++;
    }
}

void shadow_slot_free(struct mmu *mmu, struct memslot *slot)
{
    rmap_release(slot);
}
