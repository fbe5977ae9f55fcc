#include "core/digest.h"

#include <xxhash.h>

uint64_t digest_bytes(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

bool digest_page_is_zero(const void *page)
{
    const uint64_t *w = page;
    for (size_t i = 0; i < PAGE_SIZE / sizeof *w; i += 8)
        if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
            return false;
    return true;
}

uint64_t digest_page_term(gfn_t gfn, const void *page)
{
    if (!page || digest_page_is_zero(page))
        return 0;
    return XXH3_64bits_withSeed(page, PAGE_SIZE, gfn);
}
