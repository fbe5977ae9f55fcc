/*
 * The audit of the translation engines (Linux had arch/x86/kvm/mmu_audit.c until 2022; this one runs in CI).
 *
 * It checks the eight invariants of docs/mmu.md by looking only: PEEK walks, hpte peeks, no fault-in, no A or D, no
 * counters. What depends on the TLB alone, common to all engines, is here; an engine adds what concerns its own tables.
 * A violation is one line: invariant N: WHERE: WHAT
 */
#ifndef MMU_AUDIT_H
#define MMU_AUDIT_H

#include "mmu/engine.h"

/* One audit under way. */
struct audit {
    struct mmu *mmu;
    void (*report)(void *ctx, const char *line); /* may be NULL */
    void *ctx;
    unsigned violations;
};

/* Counts a violation and reports its line. */
void audit_fail(struct audit *a, int invariant, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Is the A bit of this guest entry set, or in memory where it cannot be? */
bool audit_accessed(const struct mem *m, unsigned as, gpa_t gpte_gpa, uint64_t gpte);
/* Invariant 7 for every live TLB entry (`all`), or those of each vCPU's current set: it says what a fresh walk of the
 * guest's tables, memslots and host entries says, permits no more than they and tracking do, and A and D are set where
 * it relies on them. */
void audit_tlb(struct audit *a, bool all);

#endif
