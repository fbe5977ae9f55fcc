/*
 * The EPT paging-structure entry: its whole bit layout, constructors and predicates (SDM volume 3, 29.3.2, tables 29-1
 * to 29-7). No other file knows a bit number.
 *
 * An entry is one of
 *
 *   empty     R, W and X clear, and all else
 *   leaf      at level 1, or LARGE at levels 2 and 3: maps a frame or an aligned run of 512 or 512 * 512
 *   link      present above level 1, not LARGE: the host-physical address of the next table
 *   marker    W and X without R, which is a misconfiguration: the gfn has no memslot. It keeps the memslots' generation
 *             (KVM: the MMIO spte, VMX_EPT_MISCONFIG_WX_VALUE)
 *
 * Bits, by who sets them:
 *   R W X MT IPAT LARGE address   the hypervisor, when the entry is made (W: the host's entry is writable and dirty,
 * the slot is RAM; all three less what is restricted) HOST_W                        the hypervisor, in a bit that the
 * processor ignores: W would be right but for a restriction SUPPRESS_VE                   the hypervisor, in every
 * entry: violations exit, no #VE A D                           the processor, if the EPTP enables them; cleared by
 * aging and by dirty logging
 */
#ifndef MMU_EPT_ENTRY_H
#define MMU_EPT_ENTRY_H

#include "core/types.h"

#define EPT_R           (1ull << 0)
#define EPT_W           (1ull << 1)
#define EPT_X           (1ull << 2)
#define EPT_RWX         (EPT_R | EPT_W | EPT_X)
#define EPT_MT_SHIFT    3
#define EPT_MT_MASK     (7ull << EPT_MT_SHIFT)
#define EPT_IPAT        (1ull << 6)
#define EPT_LARGE       (1ull << 7)
#define EPT_A           (1ull << 8)
#define EPT_D           (1ull << 9)
#define EPT_HOST_W      (1ull << 52)
#define EPT_SUPPRESS_VE (1ull << 63)
#define EPT_ADDRESS     0x000ffffffffff000ull

/* Memory types (SDM 12.3); 2, 3 and 7 are reserved. */
enum ept_memory_type { EPT_MT_UC = 0, EPT_MT_WC = 1, EPT_MT_WT = 4, EPT_MT_WP = 5, EPT_MT_WB = 6 };

/* A marker's generation: nine bits at 3, ten at 53. (KVM: MMIO_SPTE_GEN_*) */
#define EPT_GEN_LOW_SHIFT  3
#define EPT_GEN_LOW_BITS   9
#define EPT_GEN_HIGH_SHIFT 53
#define EPT_GEN_HIGH_BITS  10
#define EPT_GEN_BITS       (EPT_GEN_LOW_BITS + EPT_GEN_HIGH_BITS)
#define EPT_GEN_LOW_MASK   (((1ull << EPT_GEN_LOW_BITS) - 1) << EPT_GEN_LOW_SHIFT)
#define EPT_GEN_HIGH_MASK  (((1ull << EPT_GEN_HIGH_BITS) - 1) << EPT_GEN_HIGH_SHIFT)

_Static_assert((EPT_GEN_LOW_MASK & (EPT_RWX | EPT_ADDRESS)) == 0, "generation, low part");
_Static_assert((EPT_GEN_HIGH_MASK & (EPT_ADDRESS | EPT_SUPPRESS_VE | EPT_HOST_W)) == 0, "generation, high part");
_Static_assert((EPT_HOST_W & (EPT_ADDRESS | EPT_RWX | EPT_SUPPRESS_VE)) == 0, "software's bit stands alone");

/* EPTP (SDM 25.6.11): memory type of the tables, walk length minus one, A and D enabled, address of the top table. */
#define EPTP_MT_MASK      7ull
#define EPTP_LEVELS_SHIFT 3
#define EPTP_LEVELS_MASK  (7ull << EPTP_LEVELS_SHIFT)
#define EPTP_AD           (1ull << 6)
#define EPTP_RESERVED     0xf80ull /* bit 7: supervisor shadow-stack control, which is not offered */

static inline int eptp_levels(uint64_t eptp)
{
    return (int)((eptp & EPTP_LEVELS_MASK) >> EPTP_LEVELS_SHIFT) + 1;
}

static inline uint64_t eptp_make(uint64_t table_hpa, int levels, bool ad)
{
    return table_hpa | EPT_MT_WB | (uint64_t)(levels - 1) << EPTP_LEVELS_SHIFT | (ad ? EPTP_AD : 0);
}

static inline bool ept_is_present(uint64_t entry)
{
    return entry & EPT_RWX;
}

static inline bool ept_is_marker(uint64_t entry)
{
    return (entry & (EPT_RWX | EPT_SUPPRESS_VE | EPT_ADDRESS | EPT_HOST_W)) == (EPT_W | EPT_X | EPT_SUPPRESS_VE);
}

static inline bool ept_is_leaf(uint64_t entry, int level)
{
    return ept_is_present(entry) && !ept_is_marker(entry) && (level == 1 || (level <= 3 && (entry & EPT_LARGE)));
}

static inline bool ept_is_link(uint64_t entry, int level)
{
    return ept_is_present(entry) && !ept_is_marker(entry) && level > 1 && !(level <= 3 && (entry & EPT_LARGE));
}

/* 4 KiB pages that an entry of this level maps. */
static inline uint64_t ept_level_pages(int level)
{
    return 1ull << (9 * (level - 1));
}

static inline unsigned ept_index(gpa_t gpa, int level)
{
    return (unsigned)(gpa >> (PAGE_SHIFT + 9 * (level - 1))) & 511;
}

/* Linux: make_spte with EPT masks. `rights` of EPT_RWX. */
static inline uint64_t ept_make_leaf(pfn_t pfn, int level, uint64_t rights, bool host_w)
{
    return rights | EPT_SUPPRESS_VE | (uint64_t)EPT_MT_WB << EPT_MT_SHIFT | EPT_IPAT | (level > 1 ? EPT_LARGE : 0) |
           (host_w ? EPT_HOST_W : 0) | pfn << PAGE_SHIFT;
}

/* Linux: make_nonleaf_spte. */
static inline uint64_t ept_make_link(uint64_t table_hpa)
{
    return EPT_RWX | EPT_SUPPRESS_VE | table_hpa;
}

static inline uint64_t ept_gen_bits(uint64_t generation)
{
    return ((generation << EPT_GEN_LOW_SHIFT) & EPT_GEN_LOW_MASK) |
           ((generation >> EPT_GEN_LOW_BITS << EPT_GEN_HIGH_SHIFT) & EPT_GEN_HIGH_MASK);
}

/* Linux: make_mmio_spte. */
static inline uint64_t ept_make_marker(uint64_t generation)
{
    return EPT_W | EPT_X | EPT_SUPPRESS_VE | ept_gen_bits(generation);
}

/* Linux: check_mmio_spte. */
static inline bool ept_marker_is_current(uint64_t entry, uint64_t generation)
{
    return (entry & (EPT_GEN_LOW_MASK | EPT_GEN_HIGH_MASK)) == ept_gen_bits(generation);
}

static inline pfn_t ept_pfn(uint64_t entry)
{
    return (entry & EPT_ADDRESS) >> PAGE_SHIFT;
}

#endif
