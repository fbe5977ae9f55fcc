/*
 * The guest walker (Linux: FNAME(walk_addr)): one template, mmu/gwalk_tmpl.h, compiled for each paging format.
 *
 * It reads the guest's tables, checks reserved bits and permissions for one access, sets A (at each level) and D (at
 * the leaf of a permitted write) with compare-and-swap on the guest entry, and records every level it read. The record
 * feeds faults, the shadow fill, the debugger and the audit.
 */
#ifndef MMU_GWALK_H
#define MMU_GWALK_H

#include "mmu/mmu.h"

#define GWALK_MAX_LEVELS 5

enum gwalk_result {
    GWALK_OK,
    GWALK_FAULT, /* error and (for RSVD/not-present) the level that failed are filled */
    GWALK_NOMEM, /* a table lies outside memory: on a PC it reads as all ones from the bus; reported as reserved-bit
                    fault */
    GWALK_EXIT   /* gwalk_nested() only: the second stage stopped the access to the entry at at[depth - 1] */
};

struct gwalk_level {
    int level;      /* 1: PT, 2: PD, 3: PDPT, 4: PML4, 5: PML5; PAE's PDPTE registers: 3, with gpa ~0 */
    gpa_t gpte_gpa; /* where the entry was read */
    uint64_t gpte;  /* its value after A/D updates */
    /* The bytes of the page it was read from, as they were found when it was read; NULL: a register, a peek, or no
     * memory there. Whoever uses them later makes sure that the host has not changed the frame since. */
    const uint8_t *page;
};

struct gwalk {
    enum gwalk_result result;
    uint32_t error; /* #PF error code on GWALK_FAULT */
    enum paging_format format;
    int depth; /* levels recorded: at[0] is the top one read, at[depth-1] the last */
    struct gwalk_level at[GWALK_MAX_LEVELS];
    int leaf_level; /* 1, 2 or 3 on GWALK_OK; 1 with PAGING_NONE */
    gpa_t gpa;      /* of the gva itself, A20 applied */
    /* Rights of all levels combined, as the entries say (before CPL, WP, SMEP, SMAP, PKU are applied). */
    bool writable, user, nx, global;
    bool dirty; /* leaf's D bit is set now */
    uint8_t pkey;
};

#define GWALK_PEEK 8u /* in `access`: no A/D updates, no effect at all */

/*
 * A second stage under the guest's tables: each access to a guest entry, its A and D updates included, goes through it.
 * The frame that `entry` returns must stay until the walk is over. Updates are not told to those who track writes,
 * since the walker may run under a lock: they are left here, and gwalk_nested_tell() does it.
 */
struct gwalk_stage2 {
    /* Host address of the guest entry at gpa, for reading or for setting A and D; NULL: the walk ends with GWALK_EXIT.
     */
    void *(*entry)(struct gwalk_stage2 *s, gpa_t gpa, bool update);
    unsigned updates;
    struct {
        gpa_t gpa;
        uint64_t value;
        unsigned size;
    } update[2 * GWALK_MAX_LEVELS];
};

/* As gwalk(), through the second stage. Ends with GWALK_EXIT as well when an entry changed so often that `update` is
 * full. */
void gwalk_nested(struct mem *m, const struct paging_regs *r, gva_t gva, unsigned access, struct gwalk *w,
                  struct gwalk_stage2 *s);
void gwalk_nested_tell(struct mem *m, unsigned as, struct gwalk_stage2 *s);

/* Walks gva for the access (enum access bits | GWALK_PEEK). With PAGING_NONE the identity mapping. */
void gwalk(struct mem *m, const struct paging_regs *r, gva_t gva, unsigned access, struct gwalk *w);
/* The permission check alone: does this combination of rights allow the access? Returns the #PF error bits (P set), or
 * 0. Pure. */
uint32_t gwalk_check(const struct paging_regs *r, const struct gwalk *w, unsigned access);

#endif
