/*
 * The shadow engine's part of dirty logging: protecting clean pages, collecting D bits, undoing both (Linux:
 * kvm_mmu_slot_remove_write_access, kvm_mmu_slot_leaf_clear_dirty, kvm_mmu_zap_collapsible_sptes).
 *
 * In a logged slot every leaf is small and carries SPTE_WP_LOG while its page is clean (write-protect form), or
 * SPTE_D_LOG always and SPTE_DIRTY once written (dirty-bit form). The faults that undo them are in fault.c.
 */
#include "mmu/dirty.h"
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"

uint64_t shadow_log_bits(const struct memslot *slot, bool write)
{
    if (likely(!slot->dirty))
        return 0;
    return slot->dirty->form == DIRTY_BIT ? SPTE_D_LOG : write ? 0 : SPTE_WP_LOG;
}

static void spte_log_start(struct shadow *sh, const struct memslot *slot, uint64_t *sptep)
{
    uint64_t spte = *sptep & ~(SPTE_WP_LOG | SPTE_D_LOG | SPTE_DIRTY);
    spte_drop_cached(sh, sptep);
    *sptep = spte_with_writable((spte & ~SPTE_CACHED) | shadow_log_bits(slot, false));
}

/* The page's D bit goes into the log (write-protect form: it is there already). */
static void spte_log_collect(struct shadow *sh, struct memslot *slot, gfn_t gfn, const uint64_t *sptep)
{
    if ((*sptep & (SPTE_D_LOG | SPTE_DIRTY)) == (SPTE_D_LOG | SPTE_DIRTY))
        dirty_mark(sh->mmu->mem, slot, gfn, -1);
}

static void spte_log_stop(struct shadow *sh, uint64_t *sptep)
{
    *sptep = spte_with_writable(*sptep & ~(SPTE_WP_LOG | SPTE_D_LOG));
}

static void head_log(struct shadow *sh, struct memslot *slot, gfn_t gfn, struct spte_list *head, enum dirty_op op)
{
    struct spte_iter it;
    spte_list_for_each(head, &it, sptep)
    {
        switch (op) {
        case DIRTY_OP_START:
        case DIRTY_OP_CLEAN:
            spte_log_start(sh, slot, sptep);
            break;
        case DIRTY_OP_COLLECT:
            spte_log_collect(sh, slot, gfn, sptep);
            break;
        case DIRTY_OP_STOP:
            spte_log_stop(sh, sptep);
            break;
        }
        sp_touch(sh, sp_of(sh, sptep));
    }
}

/* Small leaves where the host maps more in one: what comes back is large. */
static bool is_collapsible(const struct shadow *sh, const struct memslot *slot, gfn_t gfn)
{
    return host_mm_peek(sh->mmu->mm, memslot_hva(slot, gfn)).level > 1;
}

void shadow_dirty_log(struct mmu *mmu, struct memslot *slot, gfn_t start, uint64_t pages, enum dirty_op op)
{
    struct shadow *sh = shadow_of(mmu);
    struct spte_list *head;
    gfn_t gfn = start, end = start + pages;
    if (op == DIRTY_OP_COLLECT && slot->dirty->form == DIRTY_WRITE_PROTECT)
        return;
    shadow_batch_begin(sh);
    if (op == DIRTY_OP_START)
        shadow_zap_large(sh, slot, start, end);
    while ((head = rmap_next_used(slot, 1, &gfn, end))) {
        if (op == DIRTY_OP_STOP && is_collapsible(sh, slot, gfn))
            shadow_head_zap(sh, head);
        else
            head_log(sh, slot, gfn, head, op);
        gfn++;
    }
    shadow_batch_end(sh);
}
