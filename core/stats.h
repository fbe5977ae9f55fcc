/*
 * Counters that `-stats` prints. A module owns plain uint64_t counters and registers their addresses with a name;
 * counting costs one increment and reading is the printer's affair. Counters never influence the guest.
 */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include "core/types.h"

#include <stdio.h>

struct stats_row {
    const char *name, *unit; /* static strings */
    const uint64_t *value;   /* borrowed; outlives the registry's use */
};

struct stats {
    struct stats_row *rows;
    size_t count, capacity;
};

void stats_init(struct stats *s);
void stats_fini(struct stats *s);
void stats_add(struct stats *s, const char *name, const char *unit, const uint64_t *value);
/* One row a line, in order of registration. */
void stats_print(const struct stats *s, FILE *out);
/* Value of the named counter, or 0 with *found false. */
uint64_t stats_get(const struct stats *s, const char *name, bool *found);

#endif
