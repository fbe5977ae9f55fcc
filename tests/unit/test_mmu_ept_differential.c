/*
 * The EPT engine held against the walk engine: the random test of test_mmu_differential.c, where the machine under test
 * (called shadow there) has `-mmu ept`.
 */
#define ENGINE_UNDER_TEST MMU_EPT
#include "test_mmu_differential.c"
