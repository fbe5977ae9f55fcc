/* Following the host: zap, age, re-point, by gfn range. All cost what is mapped in the range. */
#include "mmu/ept/ept_internal.h"

/* ---- iteration ---- */

struct leaves {
    gfn_t start, end;
    ept_leaf_fn *fn;
    void *ctx;
};

static void table_for_each(struct ept *e, uint32_t table, const struct leaves *l)
{
    int level = e->tables[table].level;
    uint64_t pages = ept_level_pages(level);
    gfn_t base = e->tables[table].gfn;
    unsigned i = l->start > base ? (unsigned)((l->start - base) / pages) : 0;
    for (; i < EPT_ENTRIES && base + i * pages < l->end && e->tables[table].used; i++) {
        struct ept_table *t = &e->tables[table];
        uint64_t entry = t->entry[i];
        if (ept_is_leaf(entry, level)) {
            l->fn(e, t, &t->entry[i], l->ctx);
        } else if (ept_is_link(entry, level)) {
            struct ept_table *child = ept_table_at(e, entry & EPT_ADDRESS);
            if (child && child->parent == &t->entry[i])
                table_for_each(e, (uint32_t)(child - e->tables), l);
        }
    }
}

void ept_for_each_leaf(struct ept *e, unsigned as, gfn_t start, uint64_t pages, ept_leaf_fn *fn, void *ctx)
{
    struct leaves l = {.start = start, .end = start + pages, .fn = fn, .ctx = ctx};
    table_for_each(e, e->root[as].table, &l);
}

void ept_leaf_drop_tlb(struct ept *e, const struct ept_table *t, const uint64_t *entryp)
{
    tlb_deps_drop_gfns(e->mmu, e->deps, t->as, ept_entry_gfn(t, entryp), ept_level_pages(t->level));
}

/* ---- zapping ---- */

static void zap_leaf(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx)
{
    *(uint64_t *)ctx += ept_entry_drop(e, t, entryp);
}

/* Linux: kvm_tdp_mmu_unmap_gfn_range, kvm_zap_rmapp. Translations that were walked from guest tables in the range go
 * with it. */
bool ept_zap_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages)
{
    struct ept *e = ept_of(mmu);
    uint64_t n = 0;
    ept_for_each_leaf(e, as, start, pages, zap_leaf, &n);
    return tlb_deps_zap_gfns(mmu, e->deps, as, start, pages) || n;
}

/* Linux: kvm_mmu_zap_all. The roots stay. */
void ept_zap_all(struct mmu *mmu)
{
    struct ept *e = ept_of(mmu);
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        struct ept_table *t = ept_root_table(e, as);
        for (unsigned i = 0; t->used && i < EPT_ENTRIES; i++)
            ept_entry_drop(e, t, &t->entry[i]);
    }
    tlb_deps_zap_all(mmu, e->deps);
}

/* ---- aging ---- */

struct age {
    enum mmu_age how;
    bool young;
};

/* Linux: kvm_age_rmapp, kvm_test_age_rmapp. Clearing without a flush leaves TLB entries that set no A: legal, the page
 * just looks old. */
static void age_leaf(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx)
{
    struct age *a = ctx;
    if (!(*entryp & EPT_A))
        return;
    a->young = true;
    if (a->how == MMU_AGE_TEST)
        return;
    *entryp &= ~EPT_A;
    e->stats.aged++;
    if (a->how == MMU_AGE_CLEAR_FLUSH)
        ept_leaf_drop_tlb(e, t, entryp);
}

bool ept_age_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, enum mmu_age how)
{
    struct ept *e = ept_of(mmu);
    struct age a = {.how = how};
    if (e->cfg.ad) {
        ept_for_each_leaf(e, as, start, pages, age_leaf, &a);
        return a.young;
    }
    /* Without A bits young is what is mapped, and finding out whether it still is used takes the mapping away. */
    return how != MMU_AGE_TEST && ept_zap_gfns(mmu, as, start, pages);
}

/* ---- change_pte ---- */

/* Linux: kvm_set_spte_hva, kvm_set_pte_rmapp: re-pointed read-only, unless the new entry is writable or the leaf is
 * large. */
void ept_change_pte(struct mmu *mmu, unsigned as, gfn_t gfn, struct hpte_view hpte)
{
    struct ept *e = ept_of(mmu);
    struct ept_table *t;
    uint64_t *entryp = ept_lookup(e, as, gfn, &t);
    if (!ept_is_leaf(*entryp, t->level))
        return;
    if (hpte.writable || t->level > 1) {
        ept_zap_gfns(mmu, as, gfn, 1);
        return;
    }
    uint64_t keep = *entryp & (EPT_R | EPT_X | EPT_A | EPT_D);
    ept_entry_set(t, entryp, ept_make_leaf(hpte.pfn, 1, 0, false) | keep);
    ept_leaf_drop_tlb(e, t, entryp);
    e->stats.repointed++;
}
