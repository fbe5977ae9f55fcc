/*
 * Roots in common: top tables of 4-level and 5-level paging whose upper halves are the same, entry by entry, as those
 * of a kernel's processes are. Their shadows then have the same links in the upper half, so a walk from any of them
 * leads to the same spte, and what the TLB has of supervisors' fetches serves all (tlb_set.common).
 *
 * A root joins when its top page is found or made, if the guest's entries are those of the others: it gets their links
 * at once, which sets no A bit, since it is set in an entry that is linked and the entries are equal. What is linked
 * later is linked for all. A root leaves before its upper half changes, when it loses its top page or its set, or when
 * supervisors run code in its lower half. The last to leave takes the TLB's common entries with it.
 *
 * Not with unsync=on, where the TLB may be as old as the root's last flush, nor for the missing-flush detector.
 */
#include "mmu/shadow/gpte.h"

#include <string.h>

#define HALF  (SP_ENTRIES / 2)
#define SPARE 32 /* descriptors for what the fault that makes a root join has still to do */

static const uint64_t *upper_half(const struct sp *sp)
{
    return (const uint64_t *)(const void *)(sp->table + PAGE_SIZE / 2);
}

/* What must be the same besides the tables: no protection key of users' pages matters to a supervisor's fetch. */
static struct paging_regs key_of(const struct shadow_root *root)
{
    struct paging_regs key = root->set->key;
    key.cr3 = 0;
    key.pkru = 0;
    return key;
}

static struct sp *top_of(const struct shadow *sh, const struct shadow_root *root)
{
    return &sh->pages[root->sp[0]];
}

static unsigned present_entries(const uint64_t *gpte)
{
    unsigned n = 0;
    for (unsigned i = 0; i < HALF; i++)
        n += gpte[i] & GPTE_P;
    return n;
}

static bool may_be_common(const struct shadow *sh, const struct shadow_root *root)
{
    return role_is_long(root->role) && top_of(sh, root)->table && !sh->mmu->unsync && !sh->mmu->stale;
}

void shadow_common_leave(struct shadow *sh, struct shadow_root *root)
{
    struct mmu *mmu = sh->mmu;
    if (!root->common)
        return;
    root->common = false;
    tlb_set_common(mmu, root->set, false);
    if (--sh->common.roots)
        return;
    for (unsigned i = 0; i < mmu->vcpu_count; i++)
        tlb_set_clear(&mmu->vcpus[i], tlb_common_set(&mmu->vcpus[i]));
}

static void all_leave(struct shadow *sh)
{
    for (struct shadow_root *root = sh->roots; root; root = root->next)
        shadow_common_leave(sh, root);
}

/* The same link, or none, as in another top page; the guest's entries are the same. */
static void take_link(struct shadow *sh, struct sp *sp, unsigned i, const uint64_t *from)
{
    uint64_t *sptep = &sp_table(sh, sp)[i];
    if (*sptep == *from)
        return;
    spte_drop(sh, sptep);
    if (!*from)
        return;
    *sp_gptep(sh, sptep) = *sp_gptep(sh, from);
    *sptep = *from;
    sp->used++;
    spte_list_add(&sh->descs, &sh->pages[spte_child(*from)].parents, sptep);
    sp_touch(sh, sp);
    sp_touch(sh, &sh->pages[spte_child(*from)]);
}

static const struct shadow_root *any_common(const struct shadow *sh)
{
    const struct shadow_root *root = sh->roots;
    while (root && !root->common)
        root = root->next;
    return root;
}

/* With nobody, or with these; they leave if their upper half is another that counts less. False: it counts more. */
static bool may_join(struct shadow *sh, const struct shadow_root *root)
{
    const struct shadow_root *other = any_common(sh);
    struct paging_regs key = key_of(root);
    const uint64_t *mine = upper_half(top_of(sh, root));
    if (other) {
        const uint64_t *theirs = upper_half(top_of(sh, other));
        if (!memcmp(mine, theirs, PAGE_SIZE / 2) && !memcmp(&key, &sh->common.key, sizeof key))
            return true;
        /* The fuller one is the kernel's: where a processor's flaws are kept from users by tables of their own, theirs
         * have few entries there. */
        if (present_entries(mine) <= present_entries(theirs))
            return false;
    }
    all_leave(sh);
    sh->common.key = key;
    return true;
}

void shadow_common_join(struct shadow *sh, struct shadow_root *root)
{
    if (root->common || !may_be_common(sh, root) || !spte_desc_topup(&sh->descs, HALF + SPARE))
        return;
    if (!may_join(sh, root))
        return;
    const struct shadow_root *other = any_common(sh);
    struct sp *sp = top_of(sh, root);
    for (unsigned i = HALF; other && i < SP_ENTRIES; i++)
        take_link(sh, sp, i, &sp_table(sh, top_of(sh, other))[i]);
    root->common = true;
    sh->stats.commons += sh->common.roots++ > 0;
    tlb_set_common(sh->mmu, root->set, true);
}

void shadow_common_linked(struct shadow *sh, const struct sp *sp, const uint64_t *sptep)
{
    unsigned i = sp_index_of(sh, sptep);
    const struct shadow_root *mine = sh->roots;
    while (mine && !(mine->common && mine->sp[0] == sp->index))
        mine = mine->next;
    if (i < HALF || !mine)
        return;
    uint64_t now = gpte_read(sp, sp_gpte_gpa(sp, i));
    for (struct shadow_root *root = sh->roots; root; root = root->next) {
        struct sp *top = top_of(sh, root);
        if (!root->common || top == sp)
            continue;
        if (gpte_read(top, sp_gpte_gpa(top, i)) == now)
            take_link(sh, top, i, sptep);
        else
            shadow_common_leave(sh, root); /* A is clear in its entry: it is to be set by its own walk */
    }
}

void shadow_common_written(struct shadow *sh, const struct sp *sp, unsigned offset, size_t len)
{
    if (offset + len <= PAGE_SIZE / 2)
        return;
    for (struct shadow_root *root = sh->roots; root; root = root->next) {
        if (root->common && root->sp[0] == sp->index)
            shadow_common_leave(sh, root);
    }
}
