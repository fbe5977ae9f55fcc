/*
 * Neighbours of a page that faults (Linux: FNAME(pte_prefetch), direct_pte_prefetch, kvm_mmu_get_page_many): the
 * entries beside the faulting one in the guest's leaf table, in an aligned group of eight, that have been used before
 * (A is set) and whose pages the host has at hand, get their sptes along with it. Nothing is faulted in, and no bit of
 * the guest's or of the host's is set, so nobody can tell; an spte that was prefetched has not been accessed.
 *
 * The frames are found before the MMU lock is taken, as the faulting page's is, and are mapped only if no invalidation
 * has come between.
 */
#include "mmu/shadow/gpte.h"

#include <string.h>

static bool is_wanted(union sp_role role, uint64_t gpte)
{
    uint64_t reserved = 0;
    if (role.format != PAGING_32)
        reserved = (role.format == PAGING_PAE ? (1ull << 63) - 1 : (1ull << 52) - 1) & ~((1ull << role.maxphyaddr) - 1);
    if (role.format != PAGING_32 && !role.nxe)
        reserved |= GPTE_NX;
    return (gpte & (GPTE_P | GPTE_A)) == (GPTE_P | GPTE_A) && !(gpte & reserved);
}

static uint64_t entry_load(const uint8_t *at, unsigned size)
{
    return size == 4 ? __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED)
                     : __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

void prefetch_find(struct mmu *mmu, struct fault *f, union sp_role role, unsigned wanted)
{
    unsigned size = gpte_size(role);
    hva_t hva[PREFETCH_GROUP];
    struct gup_result g[PREFETCH_GROUP];
    f->neighbours = 0;
    if (f->leaf_level != 1 || !f->table[1] || !wanted)
        return;
    role.level = 1;
    unsigned entry = (f->gpte_gpa[1] & PAGE_MASK) / size, first = entry & ~(PREFETCH_GROUP - 1);
    for (unsigned i = first; i < first + PREFETCH_GROUP; i++) {
        struct prefetch *p = &f->neighbour[f->neighbours];
        if (i == entry || !(wanted >> (i - first) & 1))
            continue;
        p->gpte = entry_load(f->table[1] + i * size, size);
        if (!is_wanted(role, p->gpte))
            continue;
        p->index = i % SP_ENTRIES;
        p->gfn = gpte_gfn(role, p->gpte, p->index);
        p->slot = memslot_find(mmu->mem, f->as, p->gfn);
        if (!p->slot || p->slot->kind != MEMSLOT_RAM)
            continue;
        hva[f->neighbours++] = memslot_hva(p->slot, p->gfn);
    }
    host_mm_gup_present(mmu->mm, hva, f->neighbours, g);
    for (unsigned i = 0; i < f->neighbours; i++) {
        f->neighbour[i].pfn = g[i].pfn;
        f->neighbour[i].host_w = g[i].writable;
    }
}

static void map_one(struct shadow *sh, const struct fault *f, const struct prefetch *p, struct sp *sp)
{
    uint64_t *sptep = &sp_table(sh, sp)[p->index];
    gpa_t at = sp_gpte_gpa(sp, p->index);
    if (*sptep || p->pfn == PFN_NONE || gpte_read(sp, at) != p->gpte)
        return;
    if (!rmap_prepare(p->slot, p->gfn, 1, &sh->descs) || !spte_desc_topup(&sh->descs, 1) ||
        spte_list_is_long(rmap_head(p->slot, p->gfn, 1)))
        return;
    bool emul = track_is_tracked(sh->mmu->mem, f->as, p->gfn);
    uint64_t leaf = spte_make_leaf(p->pfn, 1, gpte_leaf_rights(sp->role, p->gpte), p->host_w, emul) & ~SPTE_ACCESSED;
    uint64_t log = shadow_log_bits(p->slot, false);
    *sp_gptep(sh, sptep) = p->gpte;
    *sptep = log ? spte_with_writable((leaf & ~SPTE_DIRTY) | log) : leaf;
    sp->used++;
    rmap_add(&sh->descs, p->slot, p->gfn, 1, sptep);
    sh->stats.prefetches++;
}

void prefetch_map(struct shadow *sh, const struct fault *f, uint64_t *sptep)
{
    struct sp *sp = sp_of(sh, sptep);
    const struct mmu *mmu = sh->mmu;
    if (!f->neighbours || sp->role.direct || sp->role.level != 1)
        return;
    for (unsigned i = 0; i < f->neighbours; i++) {
        const struct prefetch *p = &f->neighbour[i];
        /* No invalidation has finished, since the fault goes on; but one may be in flight that does not concern it. */
        if (!mmu_notifier_retry(mmu, mmu->invalidate_seq, memslot_hva(p->slot, p->gfn)))
            map_one(sh, f, p, sp);
    }
    sp_touch(sh, sp);
}

unsigned prefetch_wanted(const struct shadow *sh, const uint64_t *sptep, int level)
{
    unsigned mask = 0;
    if (!sptep || level > 1)
        return (1u << PREFETCH_GROUP) - 1;
    if (sp_of(sh, sptep)->role.direct)
        return 0;
    const uint64_t *group = sptep - sp_index_of(sh, sptep) % PREFETCH_GROUP;
    for (unsigned i = 0; i < PREFETCH_GROUP; i++)
        mask |= (unsigned)(group[i] == 0) << i;
    return mask;
}
