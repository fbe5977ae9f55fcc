/*
 * The fuzz drivers' own numbers: what one session draws, no other does.
 */
#include "fuzz.h"

#include <stdlib.h>

#define SEEDS    3
#define SESSIONS 200
#define DRAWS    500

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static uint64_t drawn[SEEDS * SESSIONS * DRAWS];
    size_t count = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++)
        for (unsigned session = 0; session < SESSIONS; session++) {
            struct rng r = fuzz_session_rng(seed, session);
            for (unsigned k = 0; k < DRAWS; k++)
                drawn[count++] = rng_next(&r);
        }
    qsort(drawn, count, sizeof *drawn, by_value);
    for (size_t k = 1; k < count; k++)
        if (drawn[k] == drawn[k - 1]) {
            fprintf(stderr, "two sessions drew 0x%llx\n", (unsigned long long)drawn[k]);
            return 1;
        }
    return 0;
}
