/*
 * How much memory something of the emulator's own holds: bytes now, and the most there ever were. One for each kind,
 * added to where it is allocated; printed by -stats as bytes.KIND and bytes.KIND.peak.
 */
#ifndef CORE_ACCOUNT_H
#define CORE_ACCOUNT_H

#include "core/types.h"

struct account {
    uint64_t now, peak;
};

static inline void account_add(struct account *a, uint64_t bytes)
{
    a->now += bytes;
    if (a->now > a->peak)
        a->peak = a->now;
}

static inline void account_sub(struct account *a, uint64_t bytes)
{
    a->now -= bytes;
}

#endif
