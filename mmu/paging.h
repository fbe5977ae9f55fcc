/*
 * What a translation depends on besides memory: the paging registers, passed by value, and the kind of access.
 */
#ifndef MMU_PAGING_H
#define MMU_PAGING_H

#include "core/types.h"

/* SDM volume 3, 2.5 (control registers), 4.1 (paging modes). */
#define CR0_PE    (1ull << 0)
#define CR0_WP    (1ull << 16)
#define CR0_AM    (1ull << 18)
#define CR0_PG    (1ull << 31)
#define CR4_PSE   (1ull << 4)
#define CR4_PAE   (1ull << 5)
#define CR4_PGE   (1ull << 7)
#define CR4_LA57  (1ull << 12)
#define CR4_PCIDE (1ull << 17)
#define CR4_SMEP  (1ull << 20)
#define CR4_SMAP  (1ull << 21)
#define CR4_PKE   (1ull << 22)
#define CR4_PKS   (1ull << 24)
#define EFER_LME  (1ull << 8)
#define EFER_LMA  (1ull << 10)
#define EFER_NXE  (1ull << 11)

/* Page-fault error code (SDM volume 3, 4.7). */
#define PF_PRESENT (1u << 0)
#define PF_WRITE   (1u << 1)
#define PF_USER    (1u << 2)
#define PF_RSVD    (1u << 3)
#define PF_FETCH   (1u << 4)
#define PF_PKEY    (1u << 5)

/* Feature bits of paging_regs.features: what the guest's CPUID offers to the page walk. */
#define PAGING_HAS_1G    (1u << 0)
#define PAGING_HAS_PSE36 (1u << 1)

struct paging_regs {
    uint64_t cr0, cr3, cr4, efer;
    uint32_t pkru, pkrs;
    uint64_t pdpte[4]; /* PAE: registers, loaded at MOV CR3, not re-read (SDM 4.4.1) */
    uint64_t eptp;     /* 0: no second stage */
    uint64_t a20_mask; /* ANDed to every physical address: ~0, or ~(1 << 20) */
    uint32_t features;
    uint16_t vpid;
    uint8_t maxphyaddr; /* bits, 32..52 */
    uint8_t cpl;        /* 0..3 */
    bool ac;            /* EFLAGS.AC */
    uint8_t as;         /* address space: 0 normal, 1 SMM */
};

/* Kind of an access. IMPLICIT: a supervisor access made whatever CPL is (descriptor tables, TSS). */
enum access { ACCESS_READ = 0, ACCESS_WRITE = 1, ACCESS_FETCH = 2, ACCESS_IMPLICIT = 4 };

/* Guest paging formats, one instance of the walker template each. */
enum paging_format { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_EPT };

static inline enum paging_format paging_format_of(const struct paging_regs *r)
{
    if (!(r->cr0 & CR0_PG))
        return PAGING_NONE;
    if (!(r->cr4 & CR4_PAE))
        return PAGING_32;
    if (!(r->efer & EFER_LMA))
        return PAGING_PAE;
    return (r->cr4 & CR4_LA57) ? PAGING_5LEVEL : PAGING_4LEVEL;
}

#endif
