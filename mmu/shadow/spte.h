/*
 * The shadow page-table entry: its whole bit layout, its constructors and its predicates. No other file knows a bit
 * number.
 *
 * An spte is 64 bits and is one of
 *
 *   empty   0
 *   leaf    PRESENT; at level 1, or LARGE above it: maps a frame (level 1) or an aligned run of 512 (level 2) or
 *           512 * 512 (level 3)
 *   link    PRESENT above level 1, not LARGE: the index of the child shadow page
 *   mmio    not PRESENT, MMIO: the gfn has no memslot; valid while its generation is the memslots' current one
 *
 * Since the soft TLB is filled by software, a leaf keeps the guest's rights as the guest's entries state them, all
 * levels combined, and CR0.WP, SMEP, SMAP, CPL and protection keys are applied when the TLB is filled. Links carry no
 * rights: those of the path above are in the child's role.
 *
 * Bits, by who sets them:
 *   PRESENT LARGE FRAME            the fault path, once, when the entry is made
 *   GUEST_W USER NX PKEY           the guest's entries and the role (combined rights)
 *   GUEST_D                        the guest's leaf entry has its D bit set (fault path, and the tracked write that
 *                                  sets it)
 *   HOST_W                         the host entry allowed writes when the frame was obtained (KVM: HOST_WRITEABLE)
 *   EMUL                           writes must be seen: tracked gfn or ROM (KVM: not MMU_WRITEABLE)
 *   WP_LOG                         the page is logged by write protection and clean
 *   D_LOG                          the page is logged by D bits: DIRTY is exact
 *   WRITABLE                       all of GUEST_D, HOST_W, not EMUL, not WP_LOG: a store the guest's rights allow needs
 *                                  nobody's help
 *   CACHED                         a TLB entry may have been made from it; cleared when those were dropped
 *   ACCESSED                       used since it was made or last aged; one that is not has no TLB entry
 *   DIRTY                          written since cleaned; without D_LOG: may have been
 *
 * WRITABLE does not imply GUEST_W: with CR0.WP clear a supervisor may write through an entry that is read-only for the
 * guest.
 */
#ifndef MMU_SHADOW_SPTE_H
#define MMU_SHADOW_SPTE_H

#include "core/types.h"

#define SPTE_PRESENT     (1ull << 0)
#define SPTE_WRITABLE    (1ull << 1)
#define SPTE_USER        (1ull << 2)
#define SPTE_MMIO        (1ull << 3)
#define SPTE_CACHED      (1ull << 4)
#define SPTE_ACCESSED    (1ull << 5)
#define SPTE_DIRTY       (1ull << 6)
#define SPTE_LARGE       (1ull << 7)
#define SPTE_GUEST_W     (1ull << 8)
#define SPTE_GUEST_D     (1ull << 9)
#define SPTE_HOST_W      (1ull << 10)
#define SPTE_EMUL        (1ull << 11)
#define SPTE_FRAME_SHIFT 12
#define SPTE_FRAME_MASK  (((1ull << 40) - 1) << SPTE_FRAME_SHIFT)
#define SPTE_PKEY_SHIFT  52
#define SPTE_PKEY_MASK   (0xfull << SPTE_PKEY_SHIFT)
#define SPTE_WP_LOG      (1ull << 56)
#define SPTE_D_LOG       (1ull << 57)
#define SPTE_NX          (1ull << 63)

/* What the guest's entries say of a page. */
#define SPTE_GUEST_RIGHTS (SPTE_GUEST_W | SPTE_USER | SPTE_NX | SPTE_GUEST_D | SPTE_PKEY_MASK)

/* An mmio entry's generation: four bits where a present one has CACHED..LARGE, seven at 56. (KVM: MMIO_SPTE_GEN_*) */
#define SPTE_GEN_LOW_SHIFT  4
#define SPTE_GEN_LOW_BITS   4
#define SPTE_GEN_HIGH_SHIFT 56
#define SPTE_GEN_HIGH_BITS  7
#define SPTE_GEN_BITS       (SPTE_GEN_LOW_BITS + SPTE_GEN_HIGH_BITS)
#define SPTE_GEN_LOW_MASK   (((1ull << SPTE_GEN_LOW_BITS) - 1) << SPTE_GEN_LOW_SHIFT)
#define SPTE_GEN_HIGH_MASK  (((1ull << SPTE_GEN_HIGH_BITS) - 1) << SPTE_GEN_HIGH_SHIFT)

_Static_assert((SPTE_FRAME_MASK & (SPTE_PKEY_MASK | SPTE_NX | 0xfff)) == 0, "the frame overlaps no other field");
_Static_assert((SPTE_GEN_LOW_MASK & (SPTE_PRESENT | SPTE_MMIO | SPTE_GUEST_RIGHTS)) == 0, "generation, low part");
_Static_assert((SPTE_GEN_HIGH_MASK & (SPTE_FRAME_MASK | SPTE_GUEST_RIGHTS)) == 0, "generation, high part");
_Static_assert((SPTE_GUEST_RIGHTS & (SPTE_PRESENT | SPTE_MMIO | SPTE_FRAME_MASK)) == 0, "rights stand alone");

/* Rights as a role keeps them (KVM: ACC_*). */
#define ACC_W   1u
#define ACC_U   2u
#define ACC_X   4u
#define ACC_ALL 7u

/* The guest-rights part of an entry. `pkey` is the leaf's, raw. */
static inline uint64_t spte_rights(unsigned acc, bool dirty, unsigned pkey)
{
    return ((acc & ACC_W) ? SPTE_GUEST_W : 0) | ((acc & ACC_U) ? SPTE_USER : 0) | ((acc & ACC_X) ? 0 : SPTE_NX) |
           (dirty ? SPTE_GUEST_D : 0) | ((uint64_t)pkey << SPTE_PKEY_SHIFT);
}

static inline unsigned spte_acc(uint64_t spte)
{
    return ((spte & SPTE_GUEST_W) ? ACC_W : 0) | ((spte & SPTE_USER) ? ACC_U : 0) | ((spte & SPTE_NX) ? 0 : ACC_X);
}

static inline unsigned spte_pkey(uint64_t spte)
{
    return (spte & SPTE_PKEY_MASK) >> SPTE_PKEY_SHIFT;
}

/* WRITABLE follows from the four that it depends on; writable entries count as dirty where no one wants it exactly. */
static inline uint64_t spte_with_writable(uint64_t spte)
{
    bool w = (spte & (SPTE_GUEST_D | SPTE_HOST_W | SPTE_EMUL | SPTE_WP_LOG)) == (SPTE_GUEST_D | SPTE_HOST_W);
    return w ? spte | SPTE_WRITABLE | ((spte & SPTE_D_LOG) ? 0 : SPTE_DIRTY) : spte & ~SPTE_WRITABLE;
}

/* A leaf of level 1 on another frame of the same content, which the host does not let it write. */
static inline uint64_t spte_repoint(uint64_t spte, pfn_t pfn)
{
    return (spte & ~(SPTE_FRAME_MASK | SPTE_HOST_W | SPTE_WRITABLE)) | pfn << SPTE_FRAME_SHIFT;
}

/* May a TLB entry made for this kind of access have the write tag? Where D bits are exact the first write sets them. */
static inline bool spte_gives_write_tag(uint64_t spte, bool write)
{
    return (spte & SPTE_WRITABLE) && (write || !(spte & SPTE_D_LOG) || (spte & SPTE_DIRTY));
}

/* Linux: make_spte. `rights` from spte_rights(); `emul`: writes must be seen. */
static inline uint64_t spte_make_leaf(pfn_t pfn, int level, uint64_t rights, bool host_w, bool emul)
{
    return spte_with_writable(SPTE_PRESENT | SPTE_ACCESSED | (level > 1 ? SPTE_LARGE : 0) | rights |
                              pfn << SPTE_FRAME_SHIFT | (host_w ? SPTE_HOST_W : 0) | (emul ? SPTE_EMUL : 0));
}

/* Linux: make_nonleaf_spte. */
static inline uint64_t spte_make_link(uint32_t child)
{
    return SPTE_PRESENT | (uint64_t)child << SPTE_FRAME_SHIFT;
}

static inline uint64_t spte_gen_bits(uint64_t generation)
{
    return ((generation << SPTE_GEN_LOW_SHIFT) & SPTE_GEN_LOW_MASK) |
           ((generation >> SPTE_GEN_LOW_BITS << SPTE_GEN_HIGH_SHIFT) & SPTE_GEN_HIGH_MASK);
}

/* Linux: make_mmio_spte. */
static inline uint64_t spte_make_mmio(gfn_t gfn, uint64_t rights, uint64_t generation)
{
    return SPTE_MMIO | rights | gfn << SPTE_FRAME_SHIFT | spte_gen_bits(generation);
}

static inline bool spte_is_present(uint64_t spte)
{
    return spte & SPTE_PRESENT;
}

static inline bool spte_is_leaf(uint64_t spte, int level)
{
    return spte_is_present(spte) && (level == 1 || (spte & SPTE_LARGE));
}

static inline bool spte_is_link(uint64_t spte, int level)
{
    return spte_is_present(spte) && level > 1 && !(spte & SPTE_LARGE);
}

static inline bool spte_is_mmio(uint64_t spte)
{
    return (spte & (SPTE_PRESENT | SPTE_MMIO)) == SPTE_MMIO;
}

/* Linux: check_mmio_spte. */
static inline bool spte_mmio_is_current(uint64_t spte, uint64_t generation)
{
    return (spte & (SPTE_GEN_LOW_MASK | SPTE_GEN_HIGH_MASK)) == spte_gen_bits(generation);
}

/* Frame of a leaf. */
static inline pfn_t spte_pfn(uint64_t spte)
{
    return (spte & SPTE_FRAME_MASK) >> SPTE_FRAME_SHIFT;
}

static inline gfn_t spte_mmio_gfn(uint64_t spte)
{
    return spte_pfn(spte);
}

static inline uint32_t spte_child(uint64_t spte)
{
    return (uint32_t)spte_pfn(spte);
}

#endif
