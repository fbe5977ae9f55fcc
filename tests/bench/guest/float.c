/* Floating point: scalar SSE2, packed SSE2, AVX2, x87. Only operations that IEEE 754 fixes to the last bit. */
#include "guest.h"

#include <emmintrin.h>
#include <immintrin.h>
#include <string.h>

static uint64_t bits_of(double x)
{
    uint64_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static double square_root(double x)
{
    return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(x)));
}

static long double square_root_x87(long double x)
{
    __asm__("fsqrt" : "+t"(x));
    return x;
}

/* ---- n products of matrices of 48 x 48 ---- */

#define SIDE 48

uint64_t row_matmul(uint64_t n)
{
    static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
    uint64_t sum = 0;
    for (unsigned i = 0; i < SIDE; i++)
        for (unsigned j = 0; j < SIDE; j++) {
            a[i][j] = 1.0 / (i + j + 1);
            b[i][j] = (double)(i * 3 + j) / 64;
        }
    for (uint64_t k = 0; k < n; k++) {
        for (unsigned i = 0; i < SIDE; i++)
            for (unsigned j = 0; j < SIDE; j++) {
                double s = 0;
                for (unsigned m = 0; m < SIDE; m++)
                    s += a[i][m] * b[m][j];
                c[i][j] = s;
            }
        sum = mix64(sum, bits_of(c[k % SIDE][(k * 7) % SIDE]));
        a[k % SIDE][0] += 1;
    }
    return sum;
}

/* ---- five bodies under gravity ---- */

#define BODIES 5

struct body {
    double x[3], v[3], mass;
};

static void attract(struct body *p, struct body *q, double dt)
{
    double d[3], dist2 = 0;
    for (unsigned k = 0; k < 3; k++) {
        d[k] = p->x[k] - q->x[k];
        dist2 += d[k] * d[k];
    }
    double mag = dt / (dist2 * square_root(dist2));
    for (unsigned k = 0; k < 3; k++) {
        p->v[k] -= d[k] * q->mass * mag;
        q->v[k] += d[k] * p->mass * mag;
    }
}

uint64_t row_nbody(uint64_t n)
{
    struct body b[BODIES];
    uint64_t sum = 0;
    for (unsigned i = 0; i < BODIES; i++) {
        b[i].mass = 1.0 / (1 + i * i);
        for (unsigned k = 0; k < 3; k++) {
            b[i].x[k] = (double)((i * 7 + k * 3) % 11) + 0.25 * i;
            b[i].v[k] = 0.1 * ((double)((i * 5 + k) % 7) - 3);
        }
    }
    for (uint64_t s = 0; s < n; s++) {
        for (unsigned i = 0; i < BODIES; i++)
            for (unsigned j = i + 1; j < BODIES; j++)
                attract(&b[i], &b[j], 0.001);
        for (unsigned i = 0; i < BODIES; i++)
            for (unsigned k = 0; k < 3; k++)
                b[i].x[k] += 0.001 * b[i].v[k];
    }
    for (unsigned i = 0; i < BODIES; i++)
        for (unsigned k = 0; k < 3; k++)
            sum = mix64(sum, bits_of(b[i].x[k]));
    return sum;
}

/* ---- n lines of a Mandelbrot set ---- */

uint64_t row_mandelbrot(uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t line = 0; line < n; line++) {
        unsigned total = 0;
        for (unsigned col = 0; col < 64; col++) {
            double cr = -2.0 + 3.0 * col / 64, ci = -1.2 + 2.4 * (double)(line % 64) / 64, zr = 0, zi = 0;
            unsigned k = 0;
            while (k < 100 && zr * zr + zi * zi < 4) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci;
                zr = t;
                k++;
            }
            total += k;
        }
        sum = mix64(sum, total);
    }
    return sum;
}

/* ---- x87: long double, with conversions and comparisons ---- */

uint64_t row_x87(uint64_t n)
{
    long double x = 0.5L, y = 1.25L, s = 0;
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        x = x * 3.9L * (1 - x);
        y = square_root_x87(y * y + x) / (1 + x);
        s += x > 0.5L ? y : -y;
        if ((k & 31) == 0)
            sum = mix64(sum, (uint64_t)(int64_t)(s * 65536));
    }
    return mix64(sum, bits_of((double)s));
}

/* ---- packed SSE2: y = a x + y on floats, and bytes ---- */

#define LANES 4096

uint64_t row_packed_sse(uint64_t n)
{
    static float x[LANES] __attribute__((aligned(64))), y[LANES] __attribute__((aligned(64)));
    static uint8_t p[LANES] __attribute__((aligned(64)));
    __m128i all = _mm_setzero_si128();
    uint64_t sum = 0;
    for (unsigned i = 0; i < LANES; i++) {
        x[i] = (float)i / 128;
        y[i] = 1;
        p[i] = (uint8_t)(i * 37);
    }
    for (uint64_t k = 0; k < n; k++) {
        __m128 a = _mm_set1_ps((float)(k & 15) / 16);
        for (unsigned i = 0; i < LANES; i += 4)
            _mm_store_ps(y + i, _mm_min_ps(_mm_add_ps(_mm_mul_ps(a, _mm_load_ps(x + i)), _mm_load_ps(y + i)),
                                           _mm_set1_ps(1e6f)));
        for (unsigned i = 0; i < LANES; i += 16) {
            __m128i v = _mm_load_si128((const __m128i *)(p + i));
            all = _mm_add_epi64(all, _mm_sad_epu8(v, _mm_set1_epi8((char)k)));
            all = _mm_xor_si128(all, _mm_shuffle_epi32(_mm_unpacklo_epi8(v, all), 0x1b));
            all = _mm_add_epi16(all, _mm_mullo_epi16(v, _mm_srli_epi16(v, 3)));
        }
    }
    for (unsigned i = 0; i < LANES; i++)
        sum = mix64(sum, bits_of(y[i]));
    return mix64(sum, (uint64_t)_mm_cvtsi128_si64(all));
}

/* ---- AVX2 ---- */

__attribute__((target("avx2"))) uint64_t row_avx2(uint64_t n)
{
    static double x[LANES] __attribute__((aligned(64))), y[LANES] __attribute__((aligned(64)));
    __m256i all = _mm256_setzero_si256();
    uint64_t sum = 0;
    for (unsigned i = 0; i < LANES; i++) {
        x[i] = (double)i / 128;
        y[i] = 1;
    }
    for (uint64_t k = 0; k < n; k++) {
        __m256d a = _mm256_set1_pd((double)(k & 15) / 16);
        for (unsigned i = 0; i < LANES; i += 4) {
            __m256d r = _mm256_add_pd(_mm256_mul_pd(a, _mm256_load_pd(x + i)), _mm256_load_pd(y + i));
            _mm256_store_pd(y + i, _mm256_min_pd(r, _mm256_set1_pd(1e9)));
            __m256i v = _mm256_castpd_si256(r);
            all = _mm256_add_epi32(all, _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, all), 0x93));
            all = _mm256_xor_si256(all, _mm256_mullo_epi32(v, _mm256_srli_epi64(all, 7)));
        }
    }
    for (unsigned i = 0; i < LANES; i++)
        sum = mix64(sum, bits_of(y[i]));
    return mix64(sum, (uint64_t)_mm256_extract_epi64(all, 0) ^ (uint64_t)_mm256_extract_epi64(all, 3));
}
