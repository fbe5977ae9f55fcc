#include "frontends/cli/properties.h"

#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

char *property_next(char **at)
{
    char *from = *at, *to = *at, *start = *at;
    if (!from || !*from)
        return NULL;
    for (; *from; from++) {
        if (*from == ',' && from[1] != ',')
            break;
        from += *from == ',';
        *to++ = *from;
    }
    *at = *from ? from + 1 : NULL;
    *to = 0;
    return start;
}

char *property_value(char *piece)
{
    char *value = strchr(piece, '=');
    if (value)
        *value++ = 0;
    return value;
}

bool bootindex_parse(const char *value, int *out)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    *out = (int)n + 1;
    return isdigit((unsigned char)*value) && !*end && n < 1000000;
}
