#include "frontends/cli/properties.h"

#include <stddef.h>
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
