/*
 * What a write to a shadowed guest table does to its shadow pages (Linux: kvm_mmu_pte_write).
 *
 * The write has been made already. Each spte of a changed entry goes, unless only bits changed that no translation
 * depends on, or D was set, which adds a right. A child that loses its link stays in the hash: fork and exec link it
 * again at the next fault.
 *
 * A page that is written again and again without being used is not worth its tracking: the guest is building or tearing
 * down the table, or has freed it and uses the page for something else. It is zapped (Linux: detect_write_flooding), as
 * it is at once when the write does not look like one to a page table (detect_write_misaligned).
 */
#include "mmu/shadow/gpte.h"

#include <string.h>

#define FLOOD_UPPER   3
#define FLOOD_LEAF    8
/* A longer write fills the page with something else. */
#define ENTRYWISE_MAX 64

/* Linux: detect_write_misaligned. */
static bool is_odd_write(union sp_role role, unsigned offset, size_t len)
{
    unsigned mask = gpte_size(role) - 1;
    if (len < 4 || len > ENTRYWISE_MAX)
        return true;
    /* Half an 8-byte entry is how a 32-bit kernel writes one. */
    return len == 4 ? offset & 3 : ((offset | len) & mask) != 0;
}

static bool is_flooding(struct sp *sp)
{
    return ++sp->write_flood >= (sp->role.level == 1 ? FLOOD_LEAF : FLOOD_UPPER);
}

/* Does the spte still say the right thing of an entry that went from `old` to `new`, D being set in a leaf's aside? */
static bool entry_agrees(union sp_role role, uint64_t old, uint64_t new)
{
    bool leaf = gpte_is_leaf(role, old);
    uint64_t diff = (old ^ new) & gpte_significant(role, leaf);
    if (leaf && (new &GPTE_D))
        diff &= ~GPTE_D;
    return !diff;
}

void spte_update(struct shadow *sh, struct sp *sp, uint64_t *sptep, uint64_t new)
{
    uint64_t *old = sp_gptep(sh, sptep);
    int level = (int)sp->role.level;
    if (!*sptep)
        return;
    bool d_set = gpte_is_leaf(sp->role, *old) && (new & ~*old &GPTE_D);
    if (!entry_agrees(sp->role, *old, new)) {
        spte_drop(sh, sptep);
        return;
    }
    *old = new;
    if (d_set && !spte_is_link(*sptep, level)) {
        /* WRITABLE follows at the write that is being made: the fault path alone gives it. */
        *sptep |= SPTE_GUEST_D;
        sp_touch(sh, sp);
    }
}

/* Entry number `entry` of the guest table. The shadow page may cover another quadrant. */
static void update_entry(struct shadow *sh, struct sp *sp, unsigned entry, uint64_t new)
{
    uint64_t *spt = sp_table(sh, sp);
    if (sp->role.format != PAGING_32) {
        spte_update(sh, sp, &spt[entry], new);
    } else if (sp->role.level == 1) {
        if (entry / 512 == sp->role.quadrant)
            spte_update(sh, sp, &spt[entry % 512], new);
    } else if (entry / 256 == sp->role.quadrant) {
        spte_update(sh, sp, &spt[entry % 256 * 2], new);
        spte_update(sh, sp, &spt[entry % 256 * 2 + 1], new);
    }
}

/* Is there an spte that the entry could matter to? Most writes go to entries that were never used. */
static bool entry_is_shadowed(const struct shadow *sh, const struct sp *sp, unsigned entry)
{
    const uint64_t *spt = sp_table(sh, sp);
    if (sp->role.format != PAGING_32)
        return spt[entry];
    if (sp->role.level == 1)
        return entry / 512 == sp->role.quadrant && spt[entry % 512];
    return entry / 256 == sp->role.quadrant && (spt[entry % 256 * 2] | spt[entry % 256 * 2 + 1]);
}

static uint64_t entry_value(const struct sp *sp, unsigned entry, gpa_t gpa, const uint8_t *bytes, size_t len)
{
    unsigned size = gpte_size(sp->role);
    gpa_t at = (sp->gfn << PAGE_SHIFT) + entry * size;
    uint64_t value = 0;
    if (at >= gpa && at + size <= gpa + len)
        memcpy(&value, bytes + (at - gpa), size);
    else
        value = gpte_read(sp, at);
    return value;
}

static void sp_written(struct shadow *sh, struct sp *sp, gpa_t gpa, const void *bytes, size_t len)
{
    unsigned offset = gpa & PAGE_MASK, size = gpte_size(sp->role);
    if (sp->root_count)
        shadow_common_written(sh, sp, offset, len);
    if (sp_is_obsolete(sh, sp) || is_odd_write(sp->role, offset, len) || is_flooding(sp)) {
        sp_zap(sh, sp);
        return;
    }
    for (unsigned e = offset / size; e <= (offset + len - 1) / size; e++) {
        if (entry_is_shadowed(sh, sp, e))
            update_entry(sh, sp, e, entry_value(sp, e, gpa, bytes, len));
    }
}

void shadow_pt_write(struct mmu *mmu, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct shadow *sh = shadow_of(mmu);
    if (!len)
        return;
    shadow_batch_begin(sh);
    sp_for_each_of_gfn(sh, gpa >> PAGE_SHIFT, sp)
    {
        if (!sp->role.direct && role_as(sp->role) == as)
            sp_written(sh, sp, gpa, bytes, len);
    }
    shadow_batch_end(sh);
}
