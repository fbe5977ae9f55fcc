/*
 * Guest memory that is another machine's (design: "Mirrors are read-only; writes through a mirror go through the
 * owner's memory hook").
 *
 * Here: the half that concerns content. The frames follow by themselves, since the mirror's slots lie over mirror VMAs
 * (core/host/host_mm.h), whose invalidations come down from the owner's memory. But what the mirror's engine keeps of
 * guest tables depends on their bytes, and these are written by the owner's vCPUs and devices; so each gfn that is
 * tracked in the mirror is tracked in the owner too, as watched, and writes there are passed on as mem_written().
 *
 * The mirror's slots have the owner's gfns. One thread drives both. Lock order: the mirror's MMU, the owner's MMU.
 */
#ifndef MMU_MEM_MIRROR_H
#define MMU_MEM_MIRROR_H

#include "mmu/mmu.h"

/* From now on `m` hears of writes to `owner`. Before anything is tracked in `m`; once. */
void mem_mirror_link(struct mem *m, struct mem *owner);
/* Ends it; mem_destroy() of either side wants that done. */
void mem_mirror_unlink(struct mem *m);
/* Writes that were passed on. */
uint64_t mem_mirror_writes(const struct mem *m);

#endif
