#include "frontends/cli/option_row.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

bool option_number(const char *s, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)*s))
        return false;
    *out = strtoull(s, &end, 0);
    return !*end;
}

bool option_seconds(const char *s, double *out)
{
    char *end;
    if (!isdigit((unsigned char)*s))
        return false;
    *out = strtod(s, &end);
    return !*end && *out > 0 && *out < 1e9;
}

bool option_size(const char *s, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)*s))
        return false;
    uint64_t n = strtoull(s, &end, 10);
    unsigned shift = 20;
    if (*end) {
        const char *units = "KMGkmg", *u = strchr(units, *end);
        if (!u || end[1])
            return false;
        shift = 10 + 10 * (unsigned)((u - units) % 3);
    }
    if (n > UINT64_MAX >> shift)
        return false;
    *out = n << shift;
    return true;
}

bool option_bad_value(const char *name, const char *arg, const char *want, struct error *e)
{
    return error_set(e, "-%s %s: expected %s", name, arg, want);
}
