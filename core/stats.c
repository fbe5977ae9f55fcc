#include "core/stats.h"

#include "core/alloc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void stats_init(struct stats *s)
{
    *s = (struct stats){0};
}

void stats_fini(struct stats *s)
{
    free(s->rows);
    *s = (struct stats){0};
}

void stats_add(struct stats *s, const char *name, const char *unit, const uint64_t *value)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 32;
        s->rows = alloc_resize(s->rows, s->capacity, sizeof *s->rows);
    }
    s->rows[s->count++] = (struct stats_row){.name = name, .unit = unit, .value = value};
}

void stats_print(const struct stats *s, FILE *out)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct stats_row *row = &s->rows[i];
        fprintf(out, "%-32s %20" PRIu64 "%s%s\n", row->name, *row->value, row->unit[0] ? " " : "", row->unit);
    }
}

uint64_t stats_get(const struct stats *s, const char *name, bool *found)
{
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->rows[i].name, name) == 0) {
            *found = true;
            return *s->rows[i].value;
        }
    }
    *found = false;
    return 0;
}
