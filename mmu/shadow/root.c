/*
 * Roots: where a shadow walk starts (Linux: mmu_alloc_roots, mmu_alloc_pae_roots).
 *
 * A TLB set has one root. It names its top pages by gfn and role and looks them up when a fault needs them, so that a
 * top page may be zapped while its root is in use: the root just forgets it. That is also why a root costs nothing
 * until it is used.
 */
#include "mmu/shadow/gpte.h"

#include <stdlib.h>

/* The role of the top pages. Only what the format's walk depends on is filled in. */
static union sp_role root_role(const struct paging_regs *r)
{
    union sp_role role = {.word = 0};
    enum paging_format format = paging_format_of(r);
    role.format = format;
    role.access = ACC_ALL;
    role.smm = r->as;
    role.a20 = !(r->a20_mask & (1u << 20));
    role.level = format == PAGING_5LEVEL ? 5 : format == PAGING_4LEVEL ? 4 : 2;
    if (format == PAGING_NONE) {
        role.direct = 1;
        role.dirty = 1;
        return role;
    }
    role.maxphyaddr = r->maxphyaddr;
    if (format == PAGING_32) {
        role.pse = !!(r->cr4 & CR4_PSE);
        role.pse36 = role.pse && (r->features & PAGING_HAS_PSE36);
    } else {
        role.nxe = !!(r->efer & EFER_NXE);
        role.page1g = format != PAGING_PAE && (r->features & PAGING_HAS_1G);
    }
    return role;
}

static void root_set_top(struct shadow_root *root, unsigned i, gpa_t table)
{
    root->has[i] = true;
    root->gfn[i] = role_gfn(root->role, table >> PAGE_SHIFT);
}

static void root_set_tops(struct shadow_root *root, const struct paging_regs *r)
{
    root->tops = root->role.level == 2 ? 4 : 1;
    for (unsigned i = 0; i < root->tops; i++) {
        switch (root->role.format) {
        case PAGING_NONE:
            root_set_top(root, i, (gpa_t)i << 30);
            break;
        case PAGING_32:
            root_set_top(root, i, r->cr3 & 0xfffff000);
            break;
        case PAGING_PAE:
            if (r->pdpte[i] & GPTE_P)
                root_set_top(root, i, r->pdpte[i] & GPTE_ADDR);
            break;
        default:
            root_set_top(root, i, r->cr3 & GPTE_ADDR);
        }
    }
}

void shadow_root_get(struct mmu_vcpu *mv, struct tlb_set *set)
{
    struct shadow *sh = shadow_of(mv->mmu);
    sh->set_role[set - mv->mmu->sets] = root_role(&set->key);
    struct shadow_root *root = calloc(1, sizeof *root);
    set->root = root;
    if (!root) /* translation then works without a shadow, slowly */
        return;
    if (unlikely(sh->unsync_first))
        unsync_sync_all(sh); /* Linux: kvm_mmu_sync_roots */
    root->set = set;
    root->role = sh->set_role[set - mv->mmu->sets];
    root_set_tops(root, &set->key);
    root->next = sh->roots;
    if (sh->roots)
        sh->roots->prev = root;
    sh->roots = root;
}

void shadow_root_put(struct mmu_vcpu *mv, struct tlb_set *set)
{
    struct shadow *sh = shadow_of(mv->mmu);
    struct shadow_root *root = set->root;
    set->root = NULL;
    if (!root)
        return;
    shadow_common_leave(sh, root);
    for (unsigned i = 0; i < root->tops; i++) {
        if (root->sp[i])
            sh->pages[root->sp[i]].root_count--;
    }
    if (root->prev)
        root->prev->next = root->next;
    else
        sh->roots = root->next;
    if (root->next)
        root->next->prev = root->prev;
    free(root);
}

struct sp *shadow_root_top(struct shadow *sh, struct shadow_root *root, const struct fault *f)
{
    unsigned i = root_slot(root, f->gva);
    if (root->sp[i])
        return &sh->pages[root->sp[i]];
    if (!root->has[i])
        return NULL;
    union sp_role role = root->role;
    if (role.format == PAGING_32)
        role.quadrant = i;
    bool created;
    struct sp *sp = sp_get(sh, root->gfn[i], role, role.direct ? NULL : f->table[role.level], &created);
    if (!created)
        unsync_sync_below(sh, sp);
    root->sp[i] = sp->index;
    sp->root_count++;
    shadow_common_join(sh, root);
    return sp;
}

void shadow_roots_forget_all(struct shadow *sh)
{
    for (struct shadow_root *root = sh->roots; root; root = root->next) {
        shadow_common_leave(sh, root);
        for (unsigned i = 0; i < root->tops; i++) {
            if (root->sp[i])
                sh->pages[root->sp[i]].root_count--;
            root->sp[i] = 0;
        }
    }
}

static bool root_forget(struct shadow_root *root, struct sp *sp)
{
    bool any = false;
    for (unsigned i = 0; i < root->tops; i++) {
        if (root->sp[i] == sp->index) {
            root->sp[i] = 0;
            sp->root_count--;
            any = true;
        }
    }
    return any;
}

void shadow_roots_forget(struct shadow *sh, struct sp *sp)
{
    struct mmu *mmu = sh->mmu;
    for (struct shadow_root *root = sh->roots; root && sp->root_count; root = root->next) {
        if (root_forget(root, sp)) {
            shadow_common_leave(sh, root);
            tlb_set_clear(tlb_set_vcpu(mmu, root->set), root->set);
        }
    }
}
