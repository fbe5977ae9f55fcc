/*
 * Dirty logging through the page-modification log (Linux: vmx_flush_pml_buffer, kvm_mmu_slot_leaf_clear_dirty,
 * kvm_mmu_zap_collapsible_sptes), and restricted rights: both change leaves that stay.
 */
#include "mmu/dirty.h"
#include "mmu/ept/ept_internal.h"

#include <string.h>

/* ---- the log ---- */

static void log_page(struct ept *e, unsigned as, gfn_t gfn)
{
    dirty_mark_gfn(e->mmu->mem, as, gfn, -1);
    if (!e->logging)
        return;
    struct ept_dirty_chunk *c = gfn_tree_make(&e->dirty[as], gfn);
    c->bits[(gfn & (GFN_CHUNK - 1)) >> 6] |= 1ull << (gfn & 63);
}

unsigned ept_pml_drain_locked(struct ept *e, struct ept_vcpu *v)
{
    unsigned first = (uint16_t)(v->pml.index + 1), n = 0;
    for (unsigned i = first; i < EPT_PML_ENTRIES; i++, n++)
        log_page(e, v->pml.entry[i] & 1, v->pml.entry[i] >> PAGE_SHIFT);
    v->pml.index = EPT_PML_ENTRIES - 1;
    e->stats.dirty_logged += n;
    return n;
}

unsigned ept_pml_drain(struct mmu_vcpu *mv)
{
    mmu_lock(mv->mmu);
    unsigned n = ept_pml_drain_locked(ept_of(mv->mmu), ept_vcpu_of(mv));
    mmu_unlock(mv->mmu);
    return n;
}

const struct ept_pml *ept_pml_of(struct mmu_vcpu *mv)
{
    return &ept_vcpu_of(mv)->pml;
}

/* Linux: kvm_mmu_slot_leaf_clear_dirty; a large leaf goes, to come back in small ones. */
static void leaf_clear_dirty(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx)
{
    if (t->level > 1) {
        ept_entry_drop(e, t, entryp);
    } else if (*entryp & EPT_D) {
        *entryp &= ~EPT_D;
        ept_leaf_drop_tlb(e, t, entryp);
    }
}

static void dirty_bits_forget(struct ept *e)
{
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        gfn_tree_fini(&e->dirty[as]);
        gfn_tree_init(&e->dirty[as], sizeof(struct ept_dirty_chunk));
    }
}

bool ept_dirty_log_start(struct mmu *mmu)
{
    struct ept *e = ept_of(mmu);
    if (!e->cfg.ad)
        return false;
    mmu_lock(mmu);
    for (unsigned i = 0; i < mmu->vcpu_count; i++)
        ept_pml_drain_locked(e, &e->vcpus[i]); /* slots that are logged want them */
    dirty_bits_forget(e);
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++)
        ept_for_each_leaf(e, as, 0, GFN_LIMIT, leaf_clear_dirty, NULL);
    e->logging = true;
    mmu_unlock(mmu);
    return true;
}

/* A leaf where the host maps more in one: what comes back is larger. */
static void leaf_drop_collapsible(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx)
{
    gfn_t gfn = ept_entry_gfn(t, entryp);
    const struct memslot *slot = memslot_find(e->mmu->mem, t->as, gfn);
    if (slot && host_mm_peek(e->mmu->mm, memslot_hva(slot, gfn)).level > t->level)
        ept_entry_drop(e, t, entryp);
}

void ept_dirty_log_stop(struct mmu *mmu)
{
    struct ept *e = ept_of(mmu);
    host_mm_lock(mmu->mm);
    mmu_lock(mmu);
    e->logging = false;
    dirty_bits_forget(e);
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++)
        ept_for_each_leaf(e, as, 0, GFN_LIMIT, leaf_drop_collapsible, NULL);
    mmu_unlock(mmu);
    host_mm_unlock(mmu->mm);
}

uint64_t ept_dirty_log_harvest(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, ept_dirty_fn *fn, void *ctx)
{
    struct ept *e = ept_of(mmu);
    uint64_t n = 0;
    void *chunk;
    mmu_lock(mmu);
    for (unsigned i = 0; i < mmu->vcpu_count; i++)
        ept_pml_drain_locked(e, &e->vcpus[i]);
    gfn_t end = start + pages;
    for (gfn_t g = gfn_tree_next(&e->dirty[as], start, end, &chunk); g < end;
         g = gfn_tree_next(&e->dirty[as], g + 1, end, &chunk)) {
        uint64_t *word = &((struct ept_dirty_chunk *)chunk)->bits[(g & (GFN_CHUNK - 1)) >> 6];
        if (!(*word >> (g & 63) & 1))
            continue;
        *word &= ~(1ull << (g & 63));
        ept_for_each_leaf(e, as, g, 1, leaf_clear_dirty, NULL);
        fn(ctx, as, g);
        n++;
    }
    mmu_unlock(mmu);
    return n;
}

/* ---- logs of slots ---- */

/* Linux: kvm_mmu_slot_remove_write_access. The next write is a violation, which marks the page and gives W back. */
static void leaf_write_protect(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx)
{
    if (t->level > 1) {
        ept_entry_drop(e, t, entryp);
    } else if (*entryp & EPT_HOST_W) {
        ept_entry_set(t, entryp, *entryp & ~(EPT_W | EPT_HOST_W));
        ept_leaf_drop_tlb(e, t, entryp);
    }
}

void ept_dirty_log(struct mmu *mmu, struct memslot *slot, gfn_t start, uint64_t pages, enum dirty_op op)
{
    struct ept *e = ept_of(mmu);
    switch (op) {
    case DIRTY_OP_START:
    case DIRTY_OP_CLEAN:
        ept_for_each_leaf(e, slot->as, start, pages,
                          ept_logs_by_protection(e, slot) ? leaf_write_protect : leaf_clear_dirty, NULL);
        break;
    case DIRTY_OP_COLLECT:
        for (unsigned i = 0; i < mmu->vcpu_count; i++)
            ept_pml_drain_locked(e, &e->vcpus[i]);
        break;
    case DIRTY_OP_STOP:
        ept_for_each_leaf(e, slot->as, start, pages, leaf_drop_collapsible, NULL);
    }
}

/* ---- restricted rights ---- */

static void leaf_restrict(struct ept *e, struct ept_table *t, uint64_t *entryp, void *ctx)
{
    uint64_t old = *entryp, allowed = ept_allowed_rights(e, t->as, ept_entry_gfn(t, entryp));
    uint64_t rights = (EPT_R | EPT_X | (old & EPT_HOST_W ? EPT_W : 0)) & allowed;
    if (t->level > 1 || !rights) {
        ept_entry_drop(e, t, entryp);
        return;
    }
    ept_entry_set(t, entryp, (old & ~EPT_RWX) | rights);
    if (old & ~rights & EPT_RWX)
        ept_leaf_drop_tlb(e, t, entryp);
}

static void note_rights(struct ept *e, unsigned as, gfn_t gfn, uint64_t rights)
{
    struct ept_rights_chunk *c = gfn_tree_make(&e->rights[as], gfn);
    uint8_t *r = &c->rights[gfn & (GFN_CHUNK - 1)];
    uint8_t value = rights == EPT_RWX ? 0 : (uint8_t)(EPT_RESTRICTED | rights);
    c->restricted += (value != 0) - (*r != 0);
    gfn_tree_dir(&e->rights[as], gfn)->total += (value != 0) - (uint64_t)(*r != 0);
    *r = value;
}

bool ept_restrict(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, uint64_t rights)
{
    struct ept *e = ept_of(mmu);
    bool supported = !(rights & ~EPT_RWX) && (rights & (EPT_R | EPT_W)) != EPT_W && (rights != EPT_X || e->cfg.x_only);
    if (!supported || as >= MEM_ADDRESS_SPACES || start >= GFN_LIMIT || pages > GFN_LIMIT - start)
        return false;
    mmu_lock(mmu);
    for (uint64_t i = 0; i < pages; i++)
        note_rights(e, as, start + i, rights);
    ept_for_each_leaf(e, as, start, pages, leaf_restrict, NULL);
    mmu_unlock(mmu);
    return true;
}
