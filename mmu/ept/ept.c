/* The engine `-mmu ept`: life, configuration, exits' record, and what is the soft TLB's; see ept.h. */
#include "core/alloc.h"
#include "core/stats.h"
#include "mmu/ept/ept_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- life ---- */

static void vcpus_init(struct ept *e)
{
    struct mmu *mmu = e->mmu;
    e->vcpus = alloc_zeroed(mmu->vcpu_count, sizeof(*e->vcpus));
    for (unsigned i = 0; i < mmu->vcpu_count; i++) {
        e->vcpus[i].vpid = (uint16_t)(i + 1);
        e->vcpus[i].pml.index = EPT_PML_ENTRIES - 1;
        e->vcpus[i].apic_pfn = PFN_NONE;
        mmu->vcpus[i].engine = &e->vcpus[i];
    }
}

static int ept_init(struct mmu *mmu)
{
    struct ept *e = alloc_zeroed(1, sizeof(*e));
    e->mmu = mmu;
    e->pool = host_mm_pool(mmu->mm);
    e->cfg = (struct ept_config){.levels = 4, .ad = true, .x_only = true};
    uint64_t limit = mmu->max_shadow_pages ? mmu->max_shadow_pages : 1u << 24;
    e->limit = limit < EPT_MIN_TABLES ? EPT_MIN_TABLES : limit > 1u << 24 ? 1u << 24 : (uint32_t)limit;
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        gfn_tree_init(&e->dirty[as], sizeof(struct ept_dirty_chunk));
        gfn_tree_init(&e->rights[as], sizeof(struct ept_rights_chunk));
    }
    e->deps = tlb_deps_create(&mmu->bytes.deps);
    vcpus_init(e);
    mmu->engine = e;
    ept_tables_init(e);
    return 0;
}

static void ept_fini(struct mmu *mmu)
{
    struct ept *e = ept_of(mmu);
    tlb_deps_destroy(mmu, e->deps);
    ept_tables_fini(e);
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        gfn_tree_fini(&e->dirty[as]);
        gfn_tree_fini(&e->rights[as]);
    }
    free(e->vcpus);
    free(e);
    mmu->engine = NULL;
}

/* Linux: vmx_load_mmu_pgd. */
static void ept_root_get(struct mmu_vcpu *mv, struct tlb_set *set)
{
    struct ept *e = ept_of(mv->mmu);
    set->root = &e->root[set->key.as];
    set->eptp = e->root[set->key.as].eptp;
    set->vpid = ept_vcpu_of(mv)->vpid;
}

static void ept_root_put(struct mmu_vcpu *mv, struct tlb_set *set)
{
    set->root = NULL;
    set->eptp = 0;
    set->vpid = 0;
}

bool ept_configure(struct mmu *mmu, const struct ept_config *c)
{
    struct ept *e = ept_of(mmu);
    if (c->levels < 4 || c->levels > EPT_MAX_LEVELS)
        return false;
    mmu_lock(mmu);
    e->cfg = *c;
    e->logging &= c->ad;
    ept_rebuild(e);
    for (unsigned i = 0; i < mmu->vcpu_count * TLB_ALL_SETS; i++)
        if (mmu->sets[i].valid)
            ept_root_get(tlb_set_vcpu(mmu, &mmu->sets[i]), &mmu->sets[i]);
    mmu_unlock(mmu);
    return true;
}

/* ---- exits ---- */

struct ept_exit ept_last_exit(struct mmu_vcpu *mv)
{
    return ept_vcpu_of(mv)->last;
}

uint64_t ept_exit_count(struct mmu_vcpu *mv)
{
    return ept_vcpu_of(mv)->exits;
}

void ept_note_iret(struct mmu_vcpu *mv, bool unblocks_nmi)
{
    ept_vcpu_of(mv)->nmi_unblocking = unblocks_nmi;
}

/* ---- the soft TLB's part ---- */

static void ept_protect_gfn(struct mmu *mmu, unsigned as, gfn_t gfn)
{
    tlb_deps_protect_gfn(mmu, ept_of(mmu)->deps, as, gfn);
}

static void ept_pt_write(struct mmu *mmu, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    tlb_deps_pt_write(mmu, ept_of(mmu)->deps, as, gpa, len);
}

static void ept_register_stats(struct mmu *mmu, struct stats *s)
{
    const struct ept_stats *c = &ept_of(mmu)->stats;
    const struct stats_row rows[] = {
        {"ept.violations", "exits", &c->violations},     {"ept.table_violations", "exits", &c->table_violations},
        {"ept.misconfigs", "exits", &c->misconfigs},     {"ept.mmio_exits", "exits", &c->mmio_exits},
        {"ept.pml_full", "exits", &c->pml_full},         {"ept.apic_accesses", "exits", &c->apic_accesses},
        {"ept.gaw_exceeded", "exits", &c->gaw},          {"ept.refused", "exits", &c->refused},
        {"ept.emulated", "accesses", &c->emulated},      {"ept.retries", "faults", &c->retries},
        {"ept.bad_pages", "faults", &c->bad_pages},      {"ept.tables", "pages", &c->tables},
        {"ept.tables_made", "pages", &c->tables_made},   {"ept.leaves_4k", "entries", &c->small_leaves},
        {"ept.leaves_2m", "entries", &c->large_leaves},  {"ept.zapped", "entries", &c->zapped},
        {"ept.splits", "entries", &c->splits},           {"ept.collapses", "tables", &c->collapses},
        {"ept.repointed", "entries", &c->repointed},     {"ept.aged", "entries", &c->aged},
        {"ept.dirty_logged", "pages", &c->dirty_logged}, {"ept.recycled", "times", &c->recycled},
        {"ept.illegal_entries", "entries", &c->illegal}, {"ept.apic_reloads", "reloads", &c->apic_reloads},
        {"ept.invept", "instructions", &c->invept},      {"ept.invvpid", "instructions", &c->invvpid},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        stats_add(s, rows[i].name, rows[i].unit, rows[i].value);
}

const struct mmu_ops mmu_ept_ops = {
    .name = "ept",
    .init = ept_init,
    .fini = ept_fini,
    .root_get = ept_root_get,
    .root_put = ept_root_put,
    .translate = ept_translate,
    .protect_gfn = ept_protect_gfn,
    .pt_write = ept_pt_write,
    .zap_gfns = ept_zap_gfns,
    .zap_all = ept_zap_all,
    .audit = ept_audit,
    .dirty_log = ept_dirty_log,
    .age_gfns = ept_age_gfns,
    .change_pte = ept_change_pte,
    .invalidate_range = ept_apic_invalidate_range,
    .read_phys = ept_read_phys,
    .print_stage2 = ept_print,
    .register_stats = ept_register_stats,
};
