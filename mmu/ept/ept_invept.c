/* EPTP and its checks, INVEPT and INVVPID with the tags of TLB sets (SDM volume 3, 27.2.1.1, 29.4, 31.3, A.10). */
#include "mmu/ept/ept_internal.h"

#define CAP_X_ONLY        (1ull << 0)
#define CAP_LEVELS_4      (1ull << 6)
#define CAP_LEVELS_5      (1ull << 7)
#define CAP_MT_UC         (1ull << 8)
#define CAP_MT_WB         (1ull << 14)
#define CAP_2M            (1ull << 16)
#define CAP_1G            (1ull << 17)
#define CAP_INVEPT        (1ull << 20)
#define CAP_AD            (1ull << 21)
#define CAP_ADVANCED      (1ull << 22)
#define CAP_INVEPT_TYPES  (3ull << 25)
#define CAP_INVVPID       (1ull << 32)
#define CAP_INVVPID_TYPES (15ull << 40)

uint64_t ept_vpid_cap(const struct mmu *mmu)
{
    const struct ept *e = ept_of(mmu);
    return (e->cfg.x_only ? CAP_X_ONLY : 0) | (e->cfg.ad ? CAP_AD : 0) | CAP_LEVELS_4 | CAP_LEVELS_5 | CAP_MT_UC |
           CAP_MT_WB | CAP_2M | CAP_1G | CAP_INVEPT | CAP_ADVANCED | CAP_INVEPT_TYPES | CAP_INVVPID | CAP_INVVPID_TYPES;
}

uint64_t ept_eptp(const struct mmu *mmu, unsigned as)
{
    return ept_of(mmu)->root[as].eptp;
}

const char *ept_eptp_check(uint64_t eptp, uint64_t cap, int maxphyaddr)
{
    uint64_t type = eptp & EPTP_MT_MASK;
    int levels = eptp_levels(eptp);
    if (!(type == EPT_MT_UC && (cap & CAP_MT_UC)) && !(type == EPT_MT_WB && (cap & CAP_MT_WB)))
        return "memory type not supported";
    if (!(levels == 4 && (cap & CAP_LEVELS_4)) && !(levels == 5 && (cap & CAP_LEVELS_5)))
        return "walk length not supported";
    if ((eptp & EPTP_AD) && !(cap & CAP_AD))
        return "accessed and dirty flags not supported";
    if ((eptp & EPTP_RESERVED) || eptp >> maxphyaddr)
        return "reserved bit set";
    return NULL;
}

/* ---- invalidation ---- */

uint16_t ept_vpid(struct mmu_vcpu *mv)
{
    return ept_vcpu_of(mv)->vpid;
}

#define for_each_tagged_set(mv, set)                                                                                   \
    for (struct tlb_set *set = &(mv)->mmu->sets[(mv)->index * TLB_ALL_SETS], *set##_end = set + TLB_SETS;              \
         set < set##_end; set++)

bool ept_invept(struct mmu_vcpu *mv, unsigned type, uint64_t eptp)
{
    struct ept *e = ept_of(mv->mmu);
    if (type != INVEPT_SINGLE && type != INVEPT_ALL)
        return false;
    if (type == INVEPT_SINGLE && ept_eptp_check(eptp, ept_vpid_cap(mv->mmu), EPT_MAXPHYADDR))
        return false;
    mmu_lock(mv->mmu);
    e->stats.invept++;
    for_each_tagged_set(mv, set)
    {
        if (set->valid && (type == INVEPT_ALL || (set->eptp & EPT_ADDRESS) == (eptp & EPT_ADDRESS)))
            tlb_set_clear(mv, set);
    }
    mmu_unlock(mv->mmu);
    return true;
}

/* 57 bits where the guest has 5-level paging, else 48 (SDM: the processor's linear-address width). */
static bool is_canonical(gva_t gva)
{
    return (uint64_t)((int64_t)(gva << 7) >> 7) == gva;
}

static bool vpid_holds(unsigned type, uint16_t vpid, const struct tlb_set *set)
{
    return set->valid && set->vpid && (type == INVVPID_ALL || set->vpid == vpid);
}

bool ept_invvpid(struct mmu_vcpu *mv, unsigned type, uint16_t vpid, gva_t gva)
{
    struct ept *e = ept_of(mv->mmu);
    if (type > INVVPID_SINGLE_BUT_GLOBAL || (type != INVVPID_ALL && !vpid) ||
        (type == INVVPID_ADDRESS && !is_canonical(gva)))
        return false;
    mmu_lock(mv->mmu);
    e->stats.invvpid++;
    if (type == INVVPID_ADDRESS) {
        if (vpid == ept_vpid(mv))
            tlb_vcpu_drop_page(mv, gva);
    } else {
        /* Global translations may go too: the processor is allowed to drop more than it is asked to. */
        for_each_tagged_set(mv, set)
        {
            if (vpid_holds(type, vpid, set))
                tlb_set_clear(mv, set);
        }
    }
    mmu_unlock(mv->mmu);
    return true;
}
