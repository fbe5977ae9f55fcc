// A Linux program without a library: AVX2, FMA, F16C, AES, PCLMULQDQ and CRC32 held against plain C or known answers;
// then processes that keep all YMM registers and MXCSR over many switches. Prints "vectors ok SUM".
//
//     vectors [PROCESSES]     default 4
#include <immintrin.h>

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

enum { SYS_WRITE = 1, SYS_SCHED_YIELD = 24, SYS_FORK = 57, SYS_EXIT = 60, SYS_WAIT4 = 61 };
enum { SWITCHES = 500 };

static long call(long n, u64 a, u64 b, u64 c)
{
    register u64 r10 __asm__("r10") = 0;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static void leave(int code)
{
    for (;;)
        call(SYS_EXIT, (u64)code, 0, 0);
}

static void put(const char *text)
{
    u64 n = 0;
    while (text[n])
        n++;
    call(SYS_WRITE, 1, (u64)text, n);
}

static void put_hex(u64 value)
{
    char text[17] = "0000000000000000";
    for (int i = 15; i >= 0; i--, value >>= 4)
        text[i] = "0123456789abcdef"[value & 15];
    put(text);
}

static void require(int condition, const char *what)
{
    if (condition)
        return;
    put("vectors failed: ");
    put(what);
    put("\n");
    leave(1);
}

static u64 seed = 1, sum;

static u64 next(void)
{
    u64 z = seed += 0x9e3779b97f4a7c15ul;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
    return z ^ z >> 31;
}

static void note(u64 x)
{
    sum = (sum << 7 | sum >> 57) ^ x * 0x2545f4914f6cdd1dul;
}

union ymm {
    __m256i i;
    __m256d f;
    u64 q[4];
    u32 d[8];
    u16 w[16];
    u8 b[32];
    double r[4];
};

static union ymm random_ymm(void)
{
    union ymm x;
    for (int k = 0; k < 4; k++)
        x.q[k] = next();
    return x;
}

// The compiler must not do the plain side in vectors too.
#define PLAIN __attribute__((noinline, optimize("no-tree-vectorize")))
#ifdef __clang__
#undef PLAIN
#define PLAIN __attribute__((noinline))
#endif

static PLAIN void check_bytes(union ymm a, union ymm b)
{
    union ymm add = {_mm256_adds_epu8(a.i, b.i)}, shuffle = {_mm256_shuffle_epi8(a.i, b.i)};
    u32 mask = (u32)_mm256_movemask_epi8(_mm256_cmpgt_epi8(a.i, b.i));
    for (int k = 0; k < 32; k++) {
        u32 s = (u32)a.b[k] + b.b[k];
        require(add.b[k] == (s > 255 ? 255 : s), "vpaddusb");
        require(shuffle.b[k] == (b.b[k] & 0x80 ? 0 : a.b[(k & 16) + (b.b[k] & 15)]), "vpshufb");
        require((mask >> k & 1) == ((signed char)a.b[k] > (signed char)b.b[k]), "vpcmpgtb");
    }
    note(mask);
}

static PLAIN void check_words(union ymm a, union ymm b)
{
    union ymm low = {_mm256_mullo_epi32(a.i, b.i)}, shift = {_mm256_srlv_epi32(a.i, _mm256_srli_epi32(b.i, 26))};
    union ymm across = {_mm256_permutevar8x32_epi32(a.i, b.i)};
    for (int k = 0; k < 8; k++) {
        u32 n = b.d[k] >> 26;
        require(low.d[k] == a.d[k] * b.d[k], "vpmulld");
        require(shift.d[k] == (n > 31 ? 0 : a.d[k] >> n), "vpsrlvd");
        require(across.d[k] == a.d[b.d[k] & 7], "vpermd");
    }
    note(low.q[0] ^ across.q[3]);
}

static PLAIN void check_gather(void)
{
    static int table[256];
    union ymm index = random_ymm(), mask = random_ymm(), old = random_ymm(), got;
    for (int k = 0; k < 256; k++)
        table[k] = (int)next();
    index.i = _mm256_srli_epi32(index.i, 24);
    got.i = _mm256_mask_i32gather_epi32(old.i, table, index.i, mask.i, 4);
    for (int k = 0; k < 8; k++)
        require(got.d[k] == (mask.d[k] >> 31 ? (u32)table[index.d[k]] : old.d[k]), "vpgatherdd");
    note(got.q[1]);
}

// Whole numbers whose product and sum are exact; and a case where rounding twice gives zero.
static PLAIN void check_fma(void)
{
    union ymm a, b, c, got;
    for (int k = 0; k < 4; k++) {
        a.r[k] = (double)(long)(next() >> 39);
        b.r[k] = -(double)(long)(next() >> 39);
        c.r[k] = (double)(long)(next() >> 14);
    }
    got.f = _mm256_fmadd_pd(a.f, b.f, c.f);
    for (int k = 0; k < 4; k++)
        require((long)got.r[k] == (long)a.r[k] * (long)b.r[k] + (long)c.r[k], "vfmaddpd");
    volatile double e = 0x1p-27;
    __m256d once = _mm256_fmadd_pd(_mm256_set1_pd(1 + e), _mm256_set1_pd(1 - e), _mm256_set1_pd(-1));
    got.f = once;
    require(got.r[0] == -0x1p-54 && got.r[3] == -0x1p-54, "vfmaddpd rounds once");
    note(got.q[2]);
}

// Every half-precision number that is no NaN comes back.
static PLAIN void check_half(void)
{
    for (u32 h = 0; h < 65536; h += 8) {
        union ymm x = {_mm256_setzero_si256()}, back;
        for (u32 k = 0; k < 8; k++)
            x.w[k] = (u16)(h + k);
        __m256 wide = _mm256_cvtph_ps(_mm256_castsi256_si128(x.i));
        back.i = _mm256_castsi128_si256(_mm256_cvtps_ph(wide, 0));
        for (u32 k = 0; k < 8; k++)
            require(back.w[k] == h + k || ((h + k) & 0x7fff) > 0x7c00, "vcvtph2ps");
    }
}

// FIPS 197, appendix B: the first round; CRC-32C of "123456789"; (x + 1) squared is x^2 + 1.
static PLAIN void check_known(void)
{
    static const u8 state[16] = {0x19, 0x3d, 0xe3, 0xbe, 0xa0, 0xf4, 0xe2, 0x2b,
                                 0x9a, 0xc6, 0x8d, 0x2a, 0xe9, 0xf8, 0x48, 0x08};
    static const u8 key[16] = {0xa0, 0xfa, 0xfe, 0x17, 0x88, 0x54, 0x2c, 0xb1,
                               0x23, 0xa3, 0x39, 0x39, 0x2a, 0x6c, 0x76, 0x05};
    static const u8 after[16] = {0xa4, 0x9c, 0x7f, 0xf2, 0x68, 0x9f, 0x35, 0x2b,
                                 0x6b, 0x5b, 0xea, 0x43, 0x02, 0x6a, 0x50, 0x49};
    union ymm r = {_mm256_castsi128_si256(
        _mm_aesenc_si128(_mm_loadu_si128((const __m128i *)state), _mm_loadu_si128((const __m128i *)key)))};
    u32 crc = ~0u;
    for (int k = 0; k < 16; k++)
        require(r.b[k] == after[k], "vaesenc");
    for (const char *p = "123456789"; *p; p++)
        crc = _mm_crc32_u8(crc, (u8)*p);
    require(~crc == 0xe3069283, "crc32");
    __m128i three = _mm_set_epi64x(0, 3);
    r.i = _mm256_castsi128_si256(_mm_clmulepi64_si128(three, three, 0));
    require(r.q[0] == 5, "vpclmulqdq");
}

#define REGISTERS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOAD(n)      "vmovdqu 32*" #n "(%[in]), %%ymm" #n "\n\t"
#define STORE(n)     "vmovdqu %%ymm" #n ", 32*" #n "(%[out])\n\t"

// All registers keep what is theirs while other processes run with other values.
static void hold_registers(u32 number)
{
    static union ymm in[16], out[16];
    u32 csr = 0x1f80 | (number & 3) << 13, seen = 0;
    long left = SWITCHES;
    seed = number + 100;
    for (int k = 0; k < 16; k++)
        in[k] = random_ymm();
    __asm__ volatile("vldmxcsr %[csr]\n\t" REGISTERS(LOAD) "1: mov %[yield], %%eax\n\tsyscall\n\tdec %[left]\n\tjnz "
                                                           "1b\n\t" REGISTERS(STORE) "vstmxcsr %[seen]\n\tvzeroupper"
                     : [left] "+r"(left), [seen] "=m"(seen)
                     : [in] "r"(in), [out] "r"(out), [csr] "m"(csr), [yield] "i"(SYS_SCHED_YIELD)
                     : "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    require((seen & ~0x3fu) == csr, "MXCSR over a switch");
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < 4; n++)
            require(in[k].q[n] == out[k].q[n], "YMM over a switch");
}

static void switch_processes(u32 count)
{
    for (u32 k = 0; k < count; k++) {
        long child = call(SYS_FORK, 0, 0, 0);
        require(child >= 0, "fork");
        if (!child) {
            hold_registers(k);
            leave(7);
        }
    }
    for (u32 k = 0; k < count; k++) {
        int status = -1;
        require(call(SYS_WAIT4, (u64)-1, (u64)&status, 0) > 0 && status == 7 << 8, "child");
    }
}

__attribute__((used)) static int run(const u64 *stack)
{
    const char *argument = stack[0] > 1 ? (const char *)stack[2] : "4";
    for (int k = 0; k < 300; k++) {
        union ymm a = random_ymm(), b = random_ymm();
        check_bytes(a, b);
        check_words(a, b);
        check_gather();
        check_fma();
    }
    check_half();
    check_known();
    switch_processes((u32)(*argument - '0'));
    put("vectors ok ");
    put_hex(sum);
    put("\n");
    leave(0);
    return 0;
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-32, %rsp\n\tcall run\n\tud2\n");
