/*
 * What the shadow engine needs to know of a guest entry: the page it names, its rights, and which of its bits matter to
 * a translation. The entry has been checked by the guest walker before (reserved bits included).
 */
#ifndef MMU_SHADOW_GPTE_H
#define MMU_SHADOW_GPTE_H

#include "mmu/shadow/sp.h"

#define GPTE_P    (1ull << 0)
#define GPTE_W    (1ull << 1)
#define GPTE_U    (1ull << 2)
#define GPTE_A    (1ull << 5)
#define GPTE_D    (1ull << 6)
#define GPTE_PS   (1ull << 7)
#define GPTE_NX   (1ull << 63)
#define GPTE_ADDR (((1ull << 52) - 1) & ~PAGE_MASK)

static inline bool role_is_long(union sp_role role)
{
    return role.format == PAGING_4LEVEL || role.format == PAGING_5LEVEL;
}

static inline unsigned gpte_size(union sp_role role)
{
    return role.format == PAGING_32 ? 4 : 8;
}

/* Does this entry of a table of this role map a page (rather than name a table)? SDM volume 3, 4.3 to 4.5. */
static inline bool gpte_is_leaf(union sp_role role, uint64_t gpte)
{
    switch (role.level) {
    case 1:
        return true;
    case 2:
        return (gpte & GPTE_PS) && (role.format != PAGING_32 || role.pse);
    case 3:
        return (gpte & GPTE_PS) && role_is_long(role);
    default:
        return false;
    }
}

static inline unsigned gpte_acc(union sp_role role, uint64_t gpte)
{
    bool x = role.format == PAGING_32 || !role.nxe || !(gpte & GPTE_NX);
    return ((gpte & GPTE_W) ? ACC_W : 0) | ((gpte & GPTE_U) ? ACC_U : 0) | (x ? ACC_X : 0);
}

static inline unsigned gpte_pkey(union sp_role role, uint64_t gpte)
{
    return role_is_long(role) ? (gpte >> 59) & 0xf : 0;
}

/* The rights of a leaf below the role's path. */
static inline uint64_t gpte_leaf_rights(union sp_role role, uint64_t gpte)
{
    return spte_rights(role.access & gpte_acc(role, gpte), gpte & GPTE_D, gpte_pkey(role, gpte));
}

/* gfn of the table or (aligned) page that the entry names; `i` is its spte's index: two sptes share a 4 MiB entry. */
static inline gfn_t gpte_gfn(union sp_role role, uint64_t gpte, unsigned i)
{
    uint64_t addr = gpte & GPTE_ADDR;
    if (role.format == PAGING_32) {
        addr &= 0xfffff000;
        if (role.level == 2 && gpte_is_leaf(role, gpte)) {
            addr &= 0xffc00000;
            if (role.pse36)
                addr |= ((gpte >> 13) & 0xff) << 32;
            addr += (uint64_t)(i & 1) << 21;
        }
    } else if (gpte_is_leaf(role, gpte)) {
        addr &= ~((level_pages((int)role.level) << PAGE_SHIFT) - 1);
    }
    return role_gfn(role, addr >> PAGE_SHIFT);
}

/* The bits whose change changes a translation. Memory type (PWT, PCD, PAT), G and the bits left to software do not;
 * D does in a leaf only, the protection key too. */
static inline uint64_t gpte_significant(union sp_role role, bool leaf)
{
    uint64_t ignored = 3ull << 3 | 0xfull << 8;
    if (role.level == 1)
        ignored |= GPTE_PS;
    if (!leaf)
        ignored |= GPTE_D;
    if (role_is_long(role))
        ignored |= 0x7full << 52 | (leaf ? 0 : 0xfull << 59);
    return ~ignored;
}

/* Guest-physical address of the guest entry that spte `i` of the page mirrors. A 32-bit table of 1024 entries has two
 * shadow pages at level 1; at level 2, where one entry covers two sptes, four. */
static inline gpa_t sp_gpte_gpa(const struct sp *sp, unsigned i)
{
    gpa_t base = sp->gfn << PAGE_SHIFT;
    if (sp->role.format != PAGING_32)
        return base + i * 8;
    unsigned entry = sp->role.level == 1 ? sp->role.quadrant * 512 + i : sp->role.quadrant * 256 + i / 2;
    return base + entry * 4;
}

/* What the entry at gpa (in the table that the page shadows) reads as now. MMU lock held. */
static inline uint64_t gpte_read(const struct sp *sp, gpa_t gpa)
{
    const void *at = sp->table + (gpa & PAGE_MASK);
    return gpte_size(sp->role) == 4 ? __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED)
                                    : __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
}

#endif
