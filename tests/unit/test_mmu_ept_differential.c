/*
 * The EPT engine held against the walk engine: the random test of test_mmu_differential.c, where the machine under test
 * (called shadow there) has `-mmu ept`. Tables of 4 and 5 levels, with A and D and without, with dirty logging, and
 * with pages whose rights are restricted: the guest notices none of it.
 */
#include "mmu/ept/ept.h"
#include "mmu/ept/ept_entry.h"

static void engine_setup(struct mmu *mmu, unsigned long random)
{
    struct ept_config c = {.levels = random & 1 ? 5 : 4, .ad = random & 2, .x_only = true};
    ept_configure(mmu, &c);
    if (random & 4)
        ept_dirty_log_start(mmu);
    if (random & 8)
        return;
    ept_restrict(mmu, 0, 3, 1, EPT_R);
    ept_restrict(mmu, 0, 7, 1, EPT_R | EPT_X);
    ept_restrict(mmu, 0, 12, 1, EPT_X);
    ept_restrict(mmu, 0, 20, 1, EPT_R | EPT_W);
    ept_restrict(mmu, 0, 21, 1, 0);
}

#define ENGINE_UNDER_TEST MMU_EPT
#include "test_mmu_differential.c"
