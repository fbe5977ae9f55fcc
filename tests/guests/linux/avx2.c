// Runs inside Linux: AVX2, FMA and F16C results against plain C, in several processes at once, so that the kernel's XSAVE
// and XRSTOR carry the upper halves over its switches.
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT  1024
#define ROUNDS 40

static uint64_t state;

static uint32_t random32(void)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 32);
}

static void fill(uint32_t *p, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        p[k] = random32();
}

static int check_integers(void)
{
    static uint32_t a[COUNT], b[COUNT], got[COUNT];
    int bad = 0;
    fill(a, COUNT);
    fill(b, COUNT);
    for (unsigned k = 0; k < COUNT; k += 8) {
        __m256i x = _mm256_loadu_si256((const __m256i *)&a[k]), y = _mm256_loadu_si256((const __m256i *)&b[k]);
        __m256i sum = _mm256_add_epi32(_mm256_mullo_epi32(x, y), _mm256_sllv_epi32(x, _mm256_and_si256(y, _mm256_set1_epi32(31))));
        __m256i order = _mm256_permutevar8x32_epi32(sum, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0));
        _mm256_storeu_si256((__m256i *)&got[k], _mm256_xor_si256(order, _mm256_max_epu32(x, y)));
    }
    for (unsigned k = 0; k < COUNT; k++) {
        unsigned from = (k & ~7u) + 7 - (k & 7);
        uint32_t wanted = (a[from] * b[from] + (a[from] << (b[from] & 31))) ^ (a[k] > b[k] ? a[k] : b[k]);
        bad += got[k] != wanted;
    }
    return bad;
}

static int check_gather(void)
{
    static uint32_t table[COUNT], index[COUNT], got[COUNT];
    int bad = 0;
    fill(table, COUNT);
    for (unsigned k = 0; k < COUNT; k++)
        index[k] = random32() % COUNT;
    for (unsigned k = 0; k < COUNT; k += 8) {
        __m256i at = _mm256_loadu_si256((const __m256i *)&index[k]);
        _mm256_storeu_si256((__m256i *)&got[k], _mm256_i32gather_epi32((const int *)table, at, 4));
    }
    for (unsigned k = 0; k < COUNT; k++)
        bad += got[k] != table[index[k]];
    return bad;
}

static int check_floats(void)
{
    static double a[COUNT], b[COUNT], got[COUNT];
    int bad = 0;
    for (unsigned k = 0; k < COUNT; k++) {
        a[k] = (double)(int32_t)random32() / 65536;
        b[k] = (double)(int32_t)random32() / 4096;
    }
    for (unsigned k = 0; k < COUNT; k += 4) {
        __m256d x = _mm256_loadu_pd(&a[k]), y = _mm256_loadu_pd(&b[k]);
        _mm256_storeu_pd(&got[k], _mm256_fmadd_pd(x, y, _mm256_sqrt_pd(_mm256_mul_pd(x, x))));
    }
    for (unsigned k = 0; k < COUNT; k++) {
        __m128d x = _mm_set_sd(a[k]), y = _mm_set_sd(b[k]);
        double wanted = _mm_cvtsd_f64(_mm_fmadd_sd(x, y, _mm_sqrt_sd(x, _mm_mul_sd(x, x))));
        bad += memcmp(&got[k], &wanted, sizeof wanted) != 0;
    }
    return bad;
}

static int check_halves(void)
{
    int bad = 0;
    for (unsigned k = 0; k < 0x7c00; k += 8) { // every finite half-precision number comes back
        __m128i h = _mm_add_epi16(_mm_set1_epi16((short)k), _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
        __m128i back = _mm256_cvtps_ph(_mm256_cvtph_ps(h), _MM_FROUND_TO_NEAREST_INT);
        bad += _mm_movemask_epi8(_mm_cmpeq_epi16(h, back)) != 0xffff;
    }
    return bad;
}

// Upper halves that live in registers across system calls and switches.
static int check_switches(uint32_t seed)
{
    int bad = 0;
    __m256i held = _mm256_set1_epi32((int)seed), step = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 8), total = held;
    for (unsigned k = 0; k < 400; k++) {
        total = _mm256_add_epi32(total, step);
        __asm__ volatile("" : "+x"(total), "+x"(held), "+x"(step));
        if (k % 20 == 0)
            usleep(50);
    }
    uint32_t got[8];
    _mm256_storeu_si256((__m256i *)got, total);
    for (unsigned k = 0; k < 8; k++)
        bad += got[k] != seed + 400 * (k + 1);
    return bad;
}

int main(int argc, char **argv)
{
    unsigned children = argc > 1 ? (unsigned)atoi(argv[1]) : 4;
    int failed = 0;
    for (unsigned c = 0; c < children; c++) {
        if (fork() == 0) {
            int bad = 0;
            state = c + 1;
            for (unsigned k = 0; k < ROUNDS; k++)
                bad += check_integers() + check_gather() + check_floats() + check_switches(c * 1000 + k);
            _exit(bad + check_halves() != 0);
        }
    }
    for (unsigned c = 0; c < children; c++) {
        int status = 0;
        wait(&status);
        failed += status != 0;
    }
    printf("avx2: %u processes, %d failed\n", children, failed);
    return failed != 0;
}
