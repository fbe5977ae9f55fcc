/*
 * -mmu shadow: the guest's tables mirrored in shadow tables from gva to frame (Linux: arch/x86/kvm/mmu, the software
 * side).
 *
 * To be read in this order: spte.h (the entry), sp.h (pages, roles, roots), gpte.h (what matters of a guest entry),
 * fault.c (how an spte comes to be), pt_write.c (how guest writes undo it), zap.c (all other ends), rmap.h (who maps a
 * gfn), audit.c (what must hold); then what not every miss meets: host.c, dirty.c, prefetch.c, common.c, unsync.c.
 */
#include "core/stats.h"
#include "mmu/shadow/sp.h"

#include <stdlib.h>

static int shadow_init(struct mmu *mmu)
{
    struct shadow *sh = calloc(1, sizeof *sh);
    if (!sh)
        return -1;
    sh->mmu = mmu;
    sh->pool = host_mm_pool(mmu->mm);
    sh->mmio_generation = mem_generation(mmu->mem);
    sh->set_role = calloc((size_t)mmu->vcpu_count * TLB_ALL_SETS, sizeof *sh->set_role);
    if (!sh->set_role || sp_arena_init(sh, mmu->max_shadow_pages)) {
        free(sh->set_role);
        free(sh);
        return -1;
    }
    mmu->engine = sh;
    return 0;
}

static void shadow_fini(struct mmu *mmu)
{
    struct shadow *sh = shadow_of(mmu);
    if (!sh)
        return;
    shadow_zap_all(mmu);
    while (sh->roots) {
        struct shadow_root *root = sh->roots;
        sh->roots = root->next;
        free(root);
    }
    sp_arena_fini(sh);
    free(sh->set_role);
    free(sh);
    mmu->engine = NULL;
}

static void shadow_register_stats(struct mmu *mmu, struct stats *s)
{
    const struct shadow_stats *c = &shadow_of(mmu)->stats;
    const struct account *rmaps = &shadow_of(mmu)->descs.bytes;
    const struct stats_row rows[] = {
        {"shadow.pages", "pages", &c->pages},
        {"shadow.recycled", "pages", &c->recycled},
        {"shadow.shrunk", "pages", &c->shrunk},
        {"shadow.obsolete_zapped", "pages", &c->obsolete_zapped},
        {"shadow.fast_zaps", "zaps", &c->fast_zaps},
        {"shadow.fast_faults", "faults", &c->fast_faults},
        {"shadow.rmap_recycles", "rmaps", &c->rmap_recycles},
        {"shadow.aged", "sptes", &c->aged},
        {"shadow.unsyncs", "pages", &c->unsyncs},
        {"shadow.syncs", "pages", &c->syncs},
        {"shadow.prefetches", "sptes", &c->prefetches},
        {"shadow.repointed", "sptes", &c->repointed},
        {"shadow.commons", "roots", &c->commons},
        {"bytes.rmaps", "bytes", &rmaps->now},
        {"bytes.rmaps.peak", "bytes", &rmaps->peak},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        stats_add(s, rows[i].name, rows[i].unit, rows[i].value);
}

const struct mmu_ops mmu_shadow_ops = {
    .name = "shadow",
    .init = shadow_init,
    .fini = shadow_fini,
    .root_get = shadow_root_get,
    .root_put = shadow_root_put,
    .translate = shadow_translate,
    .known = shadow_known,
    .protect_gfn = shadow_protect_gfn,
    .pt_write = shadow_pt_write,
    .zap_gfns = shadow_zap_gfns,
    .zap_all = shadow_zap_all,
    .audit = shadow_audit,
    .unprotect_gfn = shadow_unprotect_gfn,
    .slot_free = shadow_slot_free,
    .shrink = shadow_shrink,
    .age_gfns = shadow_age_gfns,
    .change_pte = shadow_change_pte,
    .dirty_log = shadow_dirty_log,
    .guest_flush = shadow_guest_flush,
    .register_stats = shadow_register_stats,
};
