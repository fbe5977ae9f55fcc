/*
 * The soft TLB: what the engines may use without asking the MMU again.
 *
 * A TLB set belongs to one root (one combination of the registers that select a translation); a vCPU keeps an LRU of
 * TLB_SETS of them, so a CR3 switch back costs no refill. A set has one data table for each mode: user, supervisor,
 * supervisor with EFLAGS.AC; and one fetch table for user and supervisor. All are made lazily.
 *
 * An entry folds every permission into its tags: an access of `size` bytes at gva hits iff
 *     gva + ntag_r (or ntag_w) <= 4096 - size      (unsigned; also rejects page-crossing accesses)
 * and is at host + that sum, which is the offset in the page.
 * An empty tag is tlb_empty_tag(index): an address that maps to the slot can never match it. ntag_w is set only when
 * page, guest entry's D bit, tracking, and dirty logging all allow writes with no one being told. MMIO gets neither
 * tag.
 *
 * The index is the gva's bits from 12 up, as many as the table takes: its low 9 bits are the table index of a 4 KiB
 * spte, so that dropping one touches one slot a table for each way that it is reached by, and code that is compiled
 * finds its slot without a multiplication (hashing the bits above 20 saved 15% of a boot's data misses, and no time).
 *
 * Roots whose tables are the same above the middle of the address space, as those of a kernel's processes are, are in
 * common (mmu/shadow/common.c): supervisors' fetches go through one table for all of them, so that a switch from one to
 * the other loses nothing, and what is remembered under that table's name stays good. It belongs to a set of its own.
 *
 * Invariant 7: no entry outlives its spte (or, in -mmu walk, the guest entries it was walked from) or permits more.
 */
#ifndef MMU_TLB_H
#define MMU_TLB_H

#include "core/types.h"

/* All of a vCPU's tables with what the entries were made from (tlb_meta) stay below 8 MiB. A large fetch table is worth
 * more than many roots: compiled and decoded code remembers where it went on as long as no fetch entry is replaced. */
#define TLB_BITS       12
#define TLB_SIZE       (1u << TLB_BITS)
#define TLB_WAYS       (TLB_SIZE / 512)
#define TLB_ALL_WAYS   ((1u << TLB_WAYS) - 1)
#define TLB_FETCH_BITS 12
#define TLB_FETCH_SIZE (1u << TLB_FETCH_BITS)
#define TLB_SETS       5
#define TLB_ALL_SETS   (TLB_SETS + 1) /* behind a vCPU's sets: the one of what its roots have in common */
#define TLB_MAX_DEPS   5

enum tlb_mode { TLB_USER, TLB_SUPER, TLB_SUPER_AC, TLB_MODES };

/* Bit in tlb_entry.gpa: the translation permits writes (guest entry writable, D set), but a write must go through
 * mem_access() because of tracking, dirty logging, read-only memory or copy-on-write. */
#define TLB_GPA_WRITE_EMUL 1u

struct tlb_entry {
    uint64_t ntag_r, ntag_w; /* -(gva of the page), or the slot's empty tag */
    uint64_t host;           /* host address of the page */
    gpa_t gpa;               /* page-aligned gpa | TLB_GPA_* bits; valid with ntag_r */
};

struct tlb_fetch_entry {
    uint64_t ntag;
    uint64_t host; /* as above */
    gpa_t gpa;
};

/* What an entry was made from: in -mmu shadow dep[0] is the address of its spte; in -mmu walk the gpas of the guest
 * entries, leaf first. Unused ones are 0 (spte) or ~0 (gpa). */
struct tlb_meta {
    uint64_t dep[TLB_MAX_DEPS];
};

static inline unsigned tlb_hash(gva_t gva, unsigned bits)
{
    return (unsigned)(gva >> PAGE_SHIFT & ((1u << bits) - 1));
}

static inline unsigned tlb_index(gva_t gva)
{
    return tlb_hash(gva, TLB_BITS);
}

static inline unsigned tlb_fetch_index(gva_t gva)
{
    return tlb_hash(gva, TLB_FETCH_BITS);
}

/* The part of the tables, 512 slots, that gva's entry is in, as a bit of a mask of ways. */
static inline uint8_t tlb_way_bit(gva_t gva)
{
    _Static_assert(TLB_BITS == TLB_FETCH_BITS && TLB_WAYS <= 8, "ways of data and fetch tables are the same, and fit");
    return (uint8_t)(1u << tlb_index(gva) / 512);
}

static inline uint64_t tlb_empty_tag(unsigned index)
{
    return -(uint64_t)((uint64_t)((index & 511) ^ 1) << PAGE_SHIFT);
}

#endif
