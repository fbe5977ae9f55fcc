/*
 * What the host's side and the engines do alike: memory before and after a case, images of the vector state.
 */
#include "tests/oracle/oracle.h"

#include <string.h>

void oracle_fill_background(uint8_t *data, size_t len)
{
    struct oracle_rng r = {0x6261636b67726f75};
    for (size_t k = 0; k + 8 <= len; k += 8) {
        uint64_t x = rng64(&r);
        memcpy(data + k, &x, 8);
    }
}

void oracle_put_windows(uint8_t *data, const struct oracle_case *c)
{
    for (unsigned k = 0; k < WINDOWS; k++)
        if (c->window[k].len)
            memcpy(data + (c->window[k].at - DATA_AT), c->window[k].bytes, c->window[k].len);
}

static uint64_t hash_bytes(const uint8_t *p, size_t len)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t k = 0; k < len; k++)
        h = (h ^ p[k]) * 0x100000001b3;
    return h;
}

/* The background differs from what windows put there, so their bytes count as changed too: on both sides the same. */
void oracle_take_changes(uint8_t *data, const uint8_t *before, struct oracle_result *r)
{
    uint32_t first = 0, end = DATA_SIZE;
    r->mem_first = r->mem_end = 0;
    r->mem_hash = 0;
    while (first + 64 <= end && memcmp(data + first, before + first, 64) == 0)
        first += 64;
    while (end >= first + 64 && memcmp(data + end - 64, before + end - 64, 64) == 0)
        end -= 64;
    if (first >= end)
        return;
    r->mem_first = first;
    r->mem_end = end;
    r->mem_hash = hash_bytes(data + first, end - first);
    memcpy(r->mem, data + first, end - first < CHANGES_MAX ? end - first : CHANGES_MAX);
    memcpy(data + first, before + first, end - first);
}

/* SDM volume 1, 13.6: initial configurations. MXCSR belongs to none of the bits here. */
void oracle_normalise(uint8_t *xsave)
{
    uint64_t bv;
    memcpy(&bv, xsave + 512, 8);
    if (!(bv & 1)) {
        const uint16_t fcw = 0x37f;
        memset(xsave, 0, 24);
        memcpy(xsave, &fcw, 2);
        memset(xsave + 32, 0, 128);
    }
    if (!(bv & 2))
        memset(xsave + 160, 0, 256);
    if (!(bv & 4))
        memset(xsave + 576, 0, 256);
}
