/* Integer work: a mix of list, matrix, state machine and CRC; SHA-256; LZ compression; division; atomics. */
#include "guest.h"

#include <string.h>

/* ---- the mix: what small benchmarks of embedded processors are made of ---- */

#define LIST   256
#define MATRIX 12

struct node {
    struct node *next;
    int16_t key, value;
};

static struct node *list_merge(struct node *a, struct node *b)
{
    struct node head, *tail = &head;
    while (a && b) {
        struct node **least = a->key <= b->key ? &a : &b;
        tail->next = *least;
        tail = *least;
        *least = (*least)->next;
    }
    tail->next = a ? a : b;
    return head.next;
}

static struct node *list_sort(struct node *l, unsigned n)
{
    struct node *half = l;
    if (n < 2)
        return l;
    for (unsigned i = 1; i < n / 2; i++)
        half = half->next;
    struct node *second = half->next;
    half->next = NULL;
    return list_merge(list_sort(l, n / 2), list_sort(second, n - n / 2));
}

static uint16_t crc16(uint16_t crc, uint32_t x)
{
    for (unsigned k = 0; k < 16; k++, x >>= 1)
        crc = (uint16_t)((crc ^ x) & 1 ? crc >> 1 ^ 0xa001 : crc >> 1);
    return crc;
}

static uint16_t work_list(uint16_t crc, uint64_t *seed)
{
    static struct node nodes[LIST];
    for (unsigned i = 0; i < LIST; i++)
        nodes[i] = (struct node){i + 1 < LIST ? &nodes[i + 1] : NULL, (int16_t)next_random(seed), (int16_t)i};
    for (struct node *l = list_sort(nodes, LIST); l; l = l->next)
        if ((l->value & 15) == 3)
            crc = crc16(crc, (uint16_t)l->key);
    return crc;
}

static uint16_t work_matrix(uint16_t crc, uint64_t *seed)
{
    int16_t a[MATRIX][MATRIX], b[MATRIX][MATRIX];
    for (unsigned i = 0; i < MATRIX; i++)
        for (unsigned j = 0; j < MATRIX; j++) {
            a[i][j] = (int16_t)next_random(seed);
            b[i][j] = (int16_t)(a[i][j] >> 3);
        }
    for (unsigned i = 0; i < MATRIX; i++) {
        int32_t sum = 0;
        for (unsigned j = 0; j < MATRIX; j++)
            for (unsigned k = 0; k < MATRIX; k++)
                sum += (a[i][k] * b[k][j]) >> 2 & 0xffff;
        crc = crc16(crc, (uint32_t)sum);
    }
    return crc;
}

/* Counts what looks like an integer, a float, or neither, by a state machine over characters. */
static uint16_t work_states(uint16_t crc, uint64_t *seed)
{
    static const char alphabet[] = "0123456789+-.eE,, x";
    enum { START, INT, FRACTION, EXPONENT, BAD, STATES } state = START;
    unsigned seen[STATES] = {0};
    for (unsigned i = 0; i < 512; i++) {
        char c = alphabet[next_random(seed) % (sizeof alphabet - 1)];
        if (c == ',') {
            seen[state]++;
            state = START;
        } else if (c >= '0' && c <= '9') {
            state = state == START ? INT : state;
        } else if (c == '.') {
            state = state == INT || state == START ? FRACTION : BAD;
        } else if ((c | 32) == 'e') {
            state = state == INT || state == FRACTION ? EXPONENT : BAD;
        } else if (c == 'x' || (c != ' ' && state != EXPONENT && state != START)) {
            state = BAD;
        }
    }
    for (unsigned s = 0; s < STATES; s++)
        crc = crc16(crc, seen[s]);
    return crc;
}

uint64_t row_integer_mix(uint64_t n)
{
    uint64_t seed = 88172645463325252ull, sum = 0;
    uint16_t crc = 0xffff;
    for (uint64_t k = 0; k < n; k++) {
        crc = work_list(crc, &seed);
        crc = work_matrix(crc, &seed);
        crc = work_states(crc, &seed);
        sum = mix64(sum, crc);
    }
    return sum;
}

/* ---- SHA-256 (FIPS 180-4) of n blocks ---- */

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t ror32(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static void sha_block(uint32_t h[8], const uint32_t in[16])
{
    uint32_t w[64], s[8];
    memcpy(s, h, sizeof s);
    for (unsigned i = 0; i < 64; i++) {
        if (i < 16)
            w[i] = __builtin_bswap32(in[i]);
        else
            w[i] = w[i - 16] + (ror32(w[i - 15], 7) ^ ror32(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
                   (ror32(w[i - 2], 17) ^ ror32(w[i - 2], 19) ^ w[i - 2] >> 10);
        uint32_t t1 = s[7] + (ror32(s[4], 6) ^ ror32(s[4], 11) ^ ror32(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                      sha_k[i] + w[i];
        uint32_t t2 =
            (ror32(s[0], 2) ^ ror32(s[0], 13) ^ ror32(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += s[i];
}

uint64_t row_sha256(uint64_t n)
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint32_t block[16];
    for (uint64_t k = 0; k < n; k++) {
        for (unsigned i = 0; i < 16; i++)
            block[i] = (uint32_t)k * 16 + i;
        sha_block(h, block);
    }
    return (uint64_t)h[0] << 32 | h[7];
}

/* ---- LZ77 with a hash of the last place of each three bytes: compress, expand, compare ---- */

#define LZ_SIZE 32768u
#define LZ_HASH 4096u

static void text_make(uint8_t *p, size_t n, uint64_t seed)
{
    static const char words[][8] = {"shadow", "page", "the", "of", "table", "guest", "entry", "host"};
    for (size_t at = 0; at < n;) {
        const char *w = words[next_random(&seed) >> 61];
        while (*w && at < n)
            p[at++] = (uint8_t)*w++;
        if (at < n)
            p[at++] = next_random(&seed) & 7 ? ' ' : (uint8_t)('0' + (next_random(&seed) >> 61));
    }
}

static size_t lz_compress(const uint8_t *in, size_t n, uint8_t *out)
{
    static uint16_t last[LZ_HASH];
    size_t at = 0, o = 0;
    memset(last, 0, sizeof last);
    while (at < n) {
        size_t len = 0, from = 0;
        if (at + 3 < n) {
            unsigned h = (in[at] * 31u * 31u + in[at + 1] * 31u + in[at + 2]) % LZ_HASH;
            from = last[h];
            last[h] = (uint16_t)at;
            while (from < at && len < 130 && at + len < n && in[from + len] == in[at + len])
                len++;
        }
        if (len >= 4) {
            out[o++] = (uint8_t)(0x80 | (len - 4));
            out[o++] = (uint8_t)(at - from);
            out[o++] = (uint8_t)((at - from) >> 8);
            at += len;
        } else {
            out[o++] = in[at++] & 0x7f;
        }
    }
    return o;
}

static size_t lz_expand(const uint8_t *in, size_t n, uint8_t *out)
{
    size_t o = 0;
    for (size_t at = 0; at < n;) {
        if (!(in[at] & 0x80)) {
            out[o++] = in[at++];
            continue;
        }
        size_t len = (in[at] & 0x7fu) + 4, back = in[at + 1] | (size_t)in[at + 2] << 8;
        for (; len; len--, o++)
            out[o] = out[o - back];
        at += 3;
    }
    return o;
}

uint64_t row_lz(uint64_t n)
{
    static uint8_t text[LZ_SIZE], packed[LZ_SIZE + LZ_SIZE / 2], again[LZ_SIZE + 256];
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        text_make(text, LZ_SIZE, k + 1);
        size_t len = lz_compress(text, LZ_SIZE, packed);
        size_t back = lz_expand(packed, len, again);
        size_t same = 0;
        while (same < back && text[same] == again[same])
            same++;
        sum = mix64(sum, len * 65536 + same);
    }
    return sum;
}

/* ---- division of 64 and 32 bits, signed and not ---- */

uint64_t row_division(uint64_t n)
{
    uint64_t seed = 1, sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t a = next_random(&seed), b = (a >> 17 & 0xfffff) | 1;
        uint32_t c = (uint32_t)a | 1, d = (uint32_t)(a >> 40) | 1;
        sum += a / b + a % b;
        sum ^= c / d;
        sum += (uint64_t)((int64_t)a / (int64_t)(b * 3)) + (uint64_t)(int64_t)((int32_t)c % (int32_t)d);
    }
    return sum;
}

/* ---- locked instructions, without anyone to compete with ---- */

uint64_t row_atomics(uint64_t n)
{
    static uint64_t cell[4];
    uint64_t sum = 0;
    cell[0] = cell[1] = cell[2] = cell[3] = 0;
    for (uint64_t k = 0; k < n; k++) {
        sum += __atomic_fetch_add(&cell[0], k, __ATOMIC_SEQ_CST);
        uint64_t old = cell[1];
        while (!__atomic_compare_exchange_n(&cell[1], &old, old * 3 + k, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
        sum ^= __atomic_exchange_n(&cell[2], sum, __ATOMIC_SEQ_CST);
        __atomic_or_fetch(&cell[3], 1ull << (k & 63), __ATOMIC_SEQ_CST);
    }
    return mix64(sum, cell[0] + cell[1] + cell[3]);
}
