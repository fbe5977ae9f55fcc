#include "frontends/machine/text_match.h"

#include <string.h>

/* Without tables: texts are short. */
size_t text_match_step(const char *text, size_t len, size_t matched, uint8_t byte)
{
    for (size_t k = matched + 1; k > 0; k--)
        if (k <= len && (uint8_t)text[k - 1] == byte && !memcmp(text, text + matched - (k - 1), k - 1))
            return k;
    return 0;
}
