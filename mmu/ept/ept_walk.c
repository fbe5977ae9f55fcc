/*
 * The processor's second stage (SDM volume 3, 29.3.2 to 29.3.6): the walk of the EPT tables for one guest-physical
 * access.
 *
 * In this order: each entry on the way is present, else violation; legal, else misconfiguration; then all rights
 * together permit the access, else violation; then the page-modification log has room if D is to be set, else its exit;
 * then A and D are set.
 */
#include "mmu/ept/ept_internal.h"

#include <string.h>

static inline uint64_t bits(int lo, int hi)
{
    return lo > hi ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

const char *ept_misconfig(const struct ept *e, uint64_t entry, int level)
{
    bool large = level > 1 && level <= 3 && (entry & EPT_LARGE);
    uint64_t type = (entry & EPT_MT_MASK) >> EPT_MT_SHIFT;
    if ((entry & (EPT_R | EPT_W)) == EPT_W)
        return "writable but not readable";
    if ((entry & EPT_RWX) == EPT_X && !e->cfg.x_only)
        return "execute-only, which is not supported";
    if (entry & bits(EPT_MAXPHYADDR, 51))
        return "an address bit beyond MAXPHYADDR";
    if (level >= 4 && (entry & bits(3, 7)))
        return "reserved bits 7:3 of an upper entry";
    if (level > 1 && level < 4 && !large && (entry & bits(3, 6)))
        return "reserved bits 6:3 of an entry that links a table";
    if (large && (entry & bits(PAGE_SHIFT, PAGE_SHIFT + 9 * (level - 1) - 1)))
        return "a large page that is not aligned";
    if ((large || level == 1) && (type == 2 || type == 3 || type == 7))
        return "reserved memory type";
    return NULL;
}

/* Walks down to the leaf. Sets result, record, rights and hpa. */
static void walk_down(struct ept *e, uint64_t eptp, gpa_t gpa, struct ept_walk *w)
{
    uint64_t table = eptp & EPT_ADDRESS;
    for (int level = eptp_levels(eptp);; level--) {
        struct ept_walk_level *at = &w->at[w->depth++];
        const struct ept_table *t = ept_table_at(e, table);
        *at = (struct ept_walk_level){.level = level};
        /* Where there is no memory, ones are read. */
        at->entryp = t ? &t->entry[ept_index(gpa, level)] : NULL;
        at->entry = t ? *at->entryp : UINT64_MAX;
        if (!ept_is_present(at->entry)) {
            w->rights = 0;
            w->result = EPT_WALK_VIOLATION;
            return;
        }
        if (ept_misconfig(e, at->entry, level)) {
            w->result = EPT_WALK_MISCONFIG;
            return;
        }
        w->rights &= at->entry;
        if (level == 1 || (level <= 3 && (at->entry & EPT_LARGE))) {
            gpa_t offset = (ept_level_pages(level) << PAGE_SHIFT) - 1;
            w->leaf_level = level;
            w->hpa = (at->entry & EPT_ADDRESS & ~offset) | (gpa & offset);
            return;
        }
        table = at->entry & EPT_ADDRESS;
    }
}

/* SDM 29.3.6: logs before D is set. False: the log is full. */
static bool pml_write(struct ept_pml *pml, unsigned as, gpa_t gpa)
{
    if (pml->index >= EPT_PML_ENTRIES)
        return false;
    pml->entry[pml->index--] = (gpa & ~PAGE_MASK) | as;
    return true;
}

static void set_accessed_dirty(struct ept_walk *w, bool write)
{
    for (int i = 0; i < w->depth; i++) {
        struct ept_walk_level *at = &w->at[i];
        uint64_t value = at->entry | EPT_A | (write && i == w->depth - 1 ? EPT_D : 0);
        if (value == at->entry)
            continue;
        *at->entryp = at->entry = value;
    }
}

void ept_walk(struct ept *e, unsigned as, gpa_t gpa, uint64_t need, struct ept_pml *pml, bool peek, struct ept_walk *w)
{
    uint64_t eptp = e->root[as].eptp;
    w->result = EPT_WALK_OK;
    w->depth = 0;
    w->leaf_level = 0;
    w->rights = EPT_RWX;
    w->hpa = 0;
    w->exceeds_gaw = gpa >> (PAGE_SHIFT + 9 * eptp_levels(eptp)) != 0;
    if (w->exceeds_gaw) {
        w->rights = 0;
        w->result = EPT_WALK_VIOLATION;
        return;
    }
    walk_down(e, eptp, gpa, w);
    if (w->result != EPT_WALK_OK)
        return;
    if (need & ~w->rights) {
        w->result = EPT_WALK_VIOLATION;
        return;
    }
    if (peek || !(eptp & EPTP_AD))
        return;
    bool sets_dirty = (need & EPT_W) && !(w->at[w->depth - 1].entry & EPT_D);
    if (sets_dirty && pml && !pml_write(pml, as, gpa)) {
        w->result = EPT_WALK_PML_FULL;
        return;
    }
    set_accessed_dirty(w, need & EPT_W);
}
