/*
 * The shadow engine with unsync pages held against the walk engine: the random test of test_mmu_differential.c, where
 * each access is preceded by a flush that covers it, as an operating system sees to it.
 */
#define UNSYNC_UNDER_TEST true
#include "test_mmu_differential.c"
