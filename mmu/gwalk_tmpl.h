/*
 * The guest walker for one paging format. Included by gwalk.c once for each, with these defined:
 *
 *   GW(name)     the instance's name for a function
 *   GW_FORMAT    its enum paging_format
 *   GW_ENTRY     uint32_t or uint64_t: a guest entry
 *   GW_TOP       level of the top table: 2, 3 (PAE: the PDPTE registers), 4 or 5
 *
 * SDM volume 3: 4.3 (32-bit), 4.4 (PAE), 4.5 (4-level and 5-level).
 */

#define GW_INDEX_BITS (sizeof(GW_ENTRY) == 4 ? 10 : 9)
#define GW_IS_32      (GW_FORMAT == PAGING_32)
#define GW_IS_PAE     (GW_FORMAT == PAGING_PAE)

/* Bits of gva below what an entry of this level selects: 12, 21 or 22, 30, ... */
static inline int GW(shift)(int level)
{
    return PAGE_SHIFT + (level - 1) * (int)GW_INDEX_BITS;
}

/* Is this entry a page of a level above 1? */
static inline bool GW(is_large)(const struct paging_regs *r, int level, uint64_t gpte)
{
    if (level == 1 || level > 3 || !(gpte & GPTE_PS))
        return false;
    return !GW_IS_32 || (r->cr4 & CR4_PSE);
}

/* Reserved bits that do not depend on the level: address bits beyond MAXPHYADDR, XD while EFER.NXE is clear. */
static inline uint64_t GW(reserved_common)(const struct paging_regs *r)
{
    if (GW_IS_32)
        return 0;
    uint64_t reserved = bits_range(r->maxphyaddr, GW_IS_PAE ? 62 : 51);
    return (r->efer & EFER_NXE) ? reserved : reserved | GPTE_NX;
}

/* Reserved bits of this entry that are set. `common` is reserved_common(). */
static inline uint64_t GW(reserved)(const struct paging_regs *r, int level, uint64_t gpte, uint64_t common)
{
    uint64_t reserved = common;
    if (GW_IS_32) {
        /* A 4 MiB page has address bits 32 and up in bits 13 and up, as far as PSE-36 and MAXPHYADDR reach (SDM table
         * 4-4). */
        int high = (r->features & PAGING_HAS_PSE36) ? (r->maxphyaddr < 40 ? r->maxphyaddr : 40) - 32 : 0;
        return GW(is_large)(r, level, gpte) ? gpte & bits_range(13 + high, 21) : 0;
    }
    if (level > 3 || (level == 3 && !(r->features & PAGING_HAS_1G)))
        reserved |= GPTE_PS;
    else if (GW(is_large)(r, level, gpte))
        reserved |= bits_range(13, GW(shift)(level) - 1); /* bit 12 is PAT */
    return gpte & reserved;
}

static inline gpa_t GW(leaf_gpa)(int level, uint64_t gpte, gva_t gva)
{
    gpa_t offset = ((gpa_t)1 << GW(shift)(level)) - 1;
    gpa_t base = gpte & GPTE_ADDRESS & ~offset;
    if (GW_IS_32 && level == 2)
        base = (gpte & 0xffc00000u) | (gpte & 0x1fe000u) << 19;
    return base | (gva & offset);
}

/* One entry's rights join those of the levels above. PAE's PDPTEs have none. */
static inline void GW(combine)(struct gwalk *w, int level, uint64_t gpte)
{
    if (GW_IS_PAE && level == 3)
        return;
    w->writable &= (gpte & GPTE_W) != 0;
    w->user &= (gpte & GPTE_U) != 0;
    if (!GW_IS_32)
        w->nx |= (gpte & GPTE_NX) != 0;
}

/*
 * One pass over the tables. False: an entry changed under the walk between its reading and its update, start again.
 *
 * A is set in an entry above the leaf as soon as it is used to go on (present, no reserved bit), in the leaf, with D
 * for a write, once the access is permitted: what QEMU does and SDM 4.8 allows. So a faulting walk leaves A set in the
 * levels above the failing one only.
 */
static bool GW(pass)(struct mem *m, const struct paging_regs *r, gva_t gva, unsigned access, struct gwalk *w,
                     struct gwalk_stage2 *s2)
{
    enum entry_update update;
    uint64_t common = GW(reserved_common)(r);
    gpa_t table = r->cr3 & (GW_IS_32 ? 0xfffff000u : GPTE_ADDRESS);
    walk_begin(w, GW_FORMAT);
    for (int level = GW_TOP;; level--) {
        struct gwalk_level *at = &w->at[w->depth++];
        unsigned index = (gva >> GW(shift)(level)) & ((1u << GW_INDEX_BITS) - 1);
        at->level = level;
        if (GW_IS_PAE && level == 3) {
            at->gpte_gpa = ~(gpa_t)0;
            at->page = NULL;
            at->gpte = r->pdpte[index & 3];
        } else {
            at->gpte_gpa = (table + index * sizeof(GW_ENTRY)) & r->a20_mask;
            if (!entry_read(m, r->as, at, sizeof(GW_ENTRY), access, s2))
                return s2 ? walk_fault(w, GWALK_EXIT, 0)
                          : walk_fault(w, GWALK_NOMEM, fault_bits(r, access) | PF_PRESENT | PF_RSVD);
        }
        if (!(at->gpte & GPTE_P))
            return walk_fault(w, GWALK_FAULT, fault_bits(r, access));
        bool is_pdpte_register = GW_IS_PAE && level == 3; /* its reserved bits were checked when it was loaded */
        if (!is_pdpte_register && GW(reserved)(r, level, at->gpte, common))
            return walk_fault(w, GWALK_FAULT, fault_bits(r, access) | PF_PRESENT | PF_RSVD);
        GW(combine)(w, level, at->gpte);
        if (!is_pdpte_register) {
            if (level == 1 || GW(is_large)(r, level, at->gpte))
                break;
            update = entry_set(m, r->as, at, GPTE_A, sizeof(GW_ENTRY), access, s2);
            if (unlikely(update != ENTRY_SET))
                return update == ENTRY_EXIT && walk_fault(w, GWALK_EXIT, 0);
        }
        table = at->gpte & GPTE_ADDRESS;
    }
    struct gwalk_level *leaf = &w->at[w->depth - 1];
    w->leaf_level = leaf->level;
    w->gpa = GW(leaf_gpa)(leaf->level, leaf->gpte, gva) & r->a20_mask;
    w->global = (leaf->gpte & GPTE_G) != 0;
    w->pkey = GW_TOP >= 4 ? (leaf->gpte >> 59) & 15 : 0;
    w->dirty = (leaf->gpte & GPTE_D) != 0;
    uint32_t error = gwalk_check(r, w, access);
    if (error)
        return walk_fault(w, GWALK_FAULT, error);
    update =
        entry_set(m, r->as, leaf, (access & ACCESS_WRITE) ? GPTE_A | GPTE_D : GPTE_A, sizeof(GW_ENTRY), access, s2);
    if (unlikely(update != ENTRY_SET))
        return update == ENTRY_EXIT && walk_fault(w, GWALK_EXIT, 0);
    w->dirty = (leaf->gpte & GPTE_D) != 0;
    walk_refresh(w, leaf);
    w->result = GWALK_OK;
    return true;
}

#undef GW
#undef GW_FORMAT
#undef GW_ENTRY
#undef GW_TOP
#undef GW_INDEX_BITS
#undef GW_IS_32
#undef GW_IS_PAE
