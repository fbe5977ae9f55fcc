/* Memory: dependent loads over 8 MiB, copying, random writes, sequential sums. */
#include "guest.h"

#include <emmintrin.h>
#include <string.h>

#define BYTES (8u << 20)

/* n dependent loads through a random cycle over all cache lines of 8 MiB. */
uint64_t row_chase(uint64_t n)
{
    enum { LINES = BYTES / 64 };
    uint64_t *p = (uint64_t *)(void *)pages_get(BYTES, false), seed = 7, at = 0;
    static uint32_t order[LINES];
    for (uint32_t i = 0; i < LINES; i++)
        order[i] = i;
    for (uint32_t i = LINES - 1; i > 0; i--) {
        uint32_t k = (uint32_t)(next_random(&seed) % (i + 1)), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    for (uint32_t i = 0; i < LINES; i++)
        p[order[i] * 8] = order[(i + 1) % LINES] * 8;
    for (uint64_t k = 0; k < n; k++)
        at = p[at];
    pages_put(p, BYTES);
    return at;
}

/* n copies of 64 KiB by 16-byte loads and stores: the same instructions whatever CPUID offers. */
uint64_t row_memcpy(uint64_t n)
{
    enum { LEN = 65536 };
    uint8_t *p = pages_get(8 * LEN, false);
    uint64_t sum = 0;
    for (unsigned i = 0; i < LEN; i++)
        p[i] = (uint8_t)(i * 31 >> 3);
    for (uint64_t k = 0; k < n; k++) {
        const __m128i *from = (const __m128i *)(const void *)(p + k % 7 * LEN);
        __m128i *to = (__m128i *)(void *)(p + (k + 1) % 7 * LEN + LEN * ((k + 1) % 7 == 0));
        for (unsigned i = 0; i < LEN / 16; i += 4) {
            __m128i a = _mm_loadu_si128(from + i), b = _mm_loadu_si128(from + i + 1);
            __m128i c = _mm_loadu_si128(from + i + 2), d = _mm_loadu_si128(from + i + 3);
            _mm_storeu_si128(to + i, a);
            _mm_storeu_si128(to + i + 1, b);
            _mm_storeu_si128(to + i + 2, c);
            _mm_storeu_si128(to + i + 3, d);
        }
        sum += ((const uint8_t *)to)[k * 61 % LEN];
    }
    pages_put(p, 8 * LEN);
    return sum;
}

/* n writes of 8 bytes to random places of 8 MiB: twice what a TLB of a thousand entries holds. */
uint64_t row_random_writes(uint64_t n)
{
    uint64_t *p = (uint64_t *)(void *)pages_get(BYTES, false), seed = 99, sum = 0;
    for (uint64_t k = 0; k < n; k++)
        p[next_random(&seed) >> 44] ^= k;
    for (unsigned i = 0; i < BYTES / 8; i += 509)
        sum = mix64(sum, p[i]);
    pages_put(p, BYTES);
    return sum;
}

/* n sums over 256 KiB, by 8, 4 and 1 bytes. */
uint64_t row_sums(uint64_t n)
{
    enum { LEN = 262144 };
    uint8_t *p = pages_get(LEN, false);
    uint64_t sum = 0;
    for (unsigned i = 0; i < LEN; i++)
        p[i] = (uint8_t)(i * i >> 4);
    for (uint64_t k = 0; k < n; k++) {
        uint64_t a = k, b = 0;
        for (unsigned i = 0; i < LEN; i += 8)
            a += *(volatile uint64_t *)(void *)(p + i);
        for (unsigned i = 0; i < LEN; i += 4)
            b += *(volatile uint32_t *)(void *)(p + i);
        for (unsigned i = 0; i < LEN; i += 16)
            b += *(volatile uint8_t *)(p + i);
        sum = mix64(sum, a ^ b);
    }
    pages_put(p, LEN);
    return sum;
}
