/* String instructions with REP, long and short. */
#include "guest.h"

static inline void rep_movsb(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static inline void rep_stosb(void *to, uint8_t x, size_t n)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(x) : "memory");
}

static inline void rep_stosq(void *to, uint64_t x, size_t n)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(x) : "memory");
}

static inline size_t repne_scasb(const void *p, uint8_t x, size_t n)
{
    size_t left = n;
    __asm__ volatile("repne scasb" : "+D"(p), "+c"(left) : "a"(x) : "memory", "cc");
    return n - left;
}

static inline size_t repe_cmpsb(const void *p, const void *q, size_t n)
{
    size_t left = n;
    __asm__ volatile("repe cmpsb" : "+D"(p), "+S"(q), "+c"(left) : : "memory", "cc");
    return n - left;
}

#define LEN 65536u

uint64_t row_rep_movsb(uint64_t n)
{
    uint8_t *p = pages_get(4 * LEN, false);
    uint64_t sum = 0;
    for (unsigned i = 0; i < LEN; i++)
        p[i] = (uint8_t)(i * 13 >> 2);
    for (uint64_t k = 0; k < n; k++) {
        rep_movsb(p + LEN + (k & 31), p + (k & 15), LEN);
        sum += p[LEN + k * 97 % LEN];
    }
    pages_put(p, 4 * LEN);
    return sum;
}

uint64_t row_rep_stos(uint64_t n)
{
    uint8_t *p = pages_get(LEN, false);
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        rep_stosq(p, k * 0x0101010101010101ull, LEN / 8);
        sum += p[k * 97 % LEN];
        rep_stosb(p + 3, (uint8_t)k, LEN / 2);
        sum += p[k * 89 % LEN];
    }
    pages_put(p, LEN);
    return sum;
}

uint64_t row_rep_scas(uint64_t n)
{
    uint8_t *p = pages_get(LEN, false);
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        p[LEN - 1 - k % 64] = 1;
        sum += repne_scasb(p, 1, LEN);
        p[LEN - 1 - k % 64] = 0;
        sum += repe_cmpsb(p, p + LEN / 2, LEN / 2);
    }
    pages_put(p, LEN);
    return sum;
}

/* n strings of 0 to 31 bytes. */
uint64_t row_short_reps(uint64_t n)
{
    uint8_t *p = pages_get(8192, false);
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        unsigned at = (unsigned)(k * 37 & 2047), len = (unsigned)(k * 11 & 31);
        rep_stosb(p + at, (uint8_t)k, len);
        rep_movsb(p + 4096 + at, p + at, len + 1);
        sum += repne_scasb(p + 4096 + at, 0, 16) + p[4096 + at];
    }
    pages_put(p, 8192);
    return sum;
}
