/*
 * The host processor as oracle for x87, MMX, SSE and AVX: an instruction is executed by the handler that the binder
 * chooses, and by the host itself from the same registers and memory; both must end in the same state.
 *
 * State goes in and comes out as an FXSAVE image, which is taken apart here and not by the code under test. The
 * pointers FIP, FDP and FOP are not compared: processors differ in when they store them. A SIMD exception (#XM) arrives
 * as SIGFPE.
 */
#ifndef TESTS_UNIT_FPU_ORACLE_H
#define TESTS_UNIT_FPU_ORACLE_H

#include "cpu/code_cache.h"
#include "cpu/interp/sse.h"
#include "cpu_rig.h"

#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <ucontext.h>

#define FX_SIZE    512
#define ORACLE_MEM 64 /* bytes of the memory operand and what is around it */

/* Layout known to the assembly below. */
struct oracle_state {
    uint8_t fx[FX_SIZE];
    uint64_t gpr[4]; /* rax rcx rdx rbx */
    uint64_t rflags;
    uint64_t mem;   /* where rsi and rdi point */
    uint32_t mxcsr; /* the process's own */
    uint32_t faulted;
    uint64_t after;       /* where execution goes on after #XM */
    uint8_t high[16][16]; /* upper halves of the YMM registers, if the host has them */
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct oracle_state, gpr) == 512 && offsetof(struct oracle_state, rflags) == 544 &&
                   offsetof(struct oracle_state, mem) == 552 && offsetof(struct oracle_state, mxcsr) == 560 &&
                   offsetof(struct oracle_state, high) == 576,
               "the assembly's offsets");

/* void stub(struct oracle_state *): 16 bytes at oracle_stub_insn are replaced by the instruction and NOPs. */
__asm__(".pushsection .text\n"
        "oracle_stub:\n\tpush %rbx\n\tpush %rbp\n\tmov %rdi, %rbp\n\tfxrstor64 (%rbp)\n\t"
        "mov 552(%rbp), %rsi\n\tmov %rsi, %rdi\n\tpush 544(%rbp)\n\tpopfq\n\t"
        "mov 512(%rbp), %rax\n\tmov 520(%rbp), %rcx\n\tmov 528(%rbp), %rdx\n\tmov 536(%rbp), %rbx\n"
        "oracle_stub_insn:\n\t.fill 16, 1, 0x90\n\t"
        "fxsave64 (%rbp)\n"
        "oracle_stub_after:\n\tpushfq\n\tpop 544(%rbp)\n\t"
        "mov %rax, 512(%rbp)\n\tmov %rcx, 520(%rbp)\n\tmov %rdx, 528(%rbp)\n\tmov %rbx, 536(%rbp)\n\t"
        "fnclex\n\tfninit\n\tldmxcsr 560(%rbp)\n\tcld\n\tpop %rbp\n\tpop %rbx\n\tret\n"
        "oracle_stub_end:\n"
        ".popsection\n");
/* The same with the upper halves of YMM registers. */
__asm__(".pushsection .text\n"
        "oracle_wide:\n\tpush %rbx\n\tpush %rbp\n\tmov %rdi, %rbp\n\tfxrstor64 (%rbp)\n\t"
        "vinsertf128 $1, 576(%rbp), %ymm0, %ymm0\n"
        "vinsertf128 $1, 592(%rbp), %ymm1, %ymm1\n"
        "vinsertf128 $1, 608(%rbp), %ymm2, %ymm2\n"
        "vinsertf128 $1, 624(%rbp), %ymm3, %ymm3\n"
        "vinsertf128 $1, 640(%rbp), %ymm4, %ymm4\n"
        "vinsertf128 $1, 656(%rbp), %ymm5, %ymm5\n"
        "vinsertf128 $1, 672(%rbp), %ymm6, %ymm6\n"
        "vinsertf128 $1, 688(%rbp), %ymm7, %ymm7\n"
        "vinsertf128 $1, 704(%rbp), %ymm8, %ymm8\n"
        "vinsertf128 $1, 720(%rbp), %ymm9, %ymm9\n"
        "vinsertf128 $1, 736(%rbp), %ymm10, %ymm10\n"
        "vinsertf128 $1, 752(%rbp), %ymm11, %ymm11\n"
        "vinsertf128 $1, 768(%rbp), %ymm12, %ymm12\n"
        "vinsertf128 $1, 784(%rbp), %ymm13, %ymm13\n"
        "vinsertf128 $1, 800(%rbp), %ymm14, %ymm14\n"
        "vinsertf128 $1, 816(%rbp), %ymm15, %ymm15\n"
        "mov 552(%rbp), %rsi\n\tmov %rsi, %rdi\n\tpush 544(%rbp)\n\tpopfq\n\t"
        "mov 512(%rbp), %rax\n\tmov 520(%rbp), %rcx\n\tmov 528(%rbp), %rdx\n\tmov 536(%rbp), %rbx\n"
        "oracle_wide_insn:\n\t.fill 16, 1, 0x90\n\t"
        "fxsave64 (%rbp)\n\t"
        "vextractf128 $1, %ymm0, 576(%rbp)\n"
        "vextractf128 $1, %ymm1, 592(%rbp)\n"
        "vextractf128 $1, %ymm2, 608(%rbp)\n"
        "vextractf128 $1, %ymm3, 624(%rbp)\n"
        "vextractf128 $1, %ymm4, 640(%rbp)\n"
        "vextractf128 $1, %ymm5, 656(%rbp)\n"
        "vextractf128 $1, %ymm6, 672(%rbp)\n"
        "vextractf128 $1, %ymm7, 688(%rbp)\n"
        "vextractf128 $1, %ymm8, 704(%rbp)\n"
        "vextractf128 $1, %ymm9, 720(%rbp)\n"
        "vextractf128 $1, %ymm10, 736(%rbp)\n"
        "vextractf128 $1, %ymm11, 752(%rbp)\n"
        "vextractf128 $1, %ymm12, 768(%rbp)\n"
        "vextractf128 $1, %ymm13, 784(%rbp)\n"
        "vextractf128 $1, %ymm14, 800(%rbp)\n"
        "vextractf128 $1, %ymm15, 816(%rbp)\n"

        "oracle_wide_after:\n\tpushfq\n\tpop 544(%rbp)\n\tvzeroupper\n\t"
        "mov %rax, 512(%rbp)\n\tmov %rcx, 520(%rbp)\n\tmov %rdx, 528(%rbp)\n\tmov %rbx, 536(%rbp)\n\t"
        "fnclex\n\tfninit\n\tldmxcsr 560(%rbp)\n\tcld\n\tpop %rbp\n\tpop %rbx\n\tret\n"
        "oracle_wide_end:\n"
        ".popsection\n");
extern const uint8_t oracle_wide[], oracle_wide_insn[], oracle_wide_after[], oracle_wide_end[];
extern const uint8_t oracle_stub[], oracle_stub_insn[], oracle_stub_after[], oracle_stub_end[];

struct oracle {
    struct cpu_rig rig;
    uint8_t *code;
    uint8_t *mem; /* the host's copy of the memory operand */
    uint64_t rng;
    op_fn *(*bind)(const struct insn *); /* chooses the handler if not NULL */
    bool wide;                           /* the host has YMM registers */
    bool page_faults;                    /* oracle_expect_page_faults() */
    unsigned cases, faults;
};

/* Indices of gregs[], which <ucontext.h> names as cpu/insn.h names other things. */
enum { GREG_RBP = 10, GREG_RIP = 16 };

enum { FAULTED_XM = 1, FAULTED_PF };

/* #XM or #PF in the stub, where rbp points to the state. The kernel's frame holds an XSAVE area: AVX is in use if its
 * bit in the header is set. */
static void oracle_on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    struct oracle_state *s = (struct oracle_state *)(uintptr_t)uc->uc_mcontext.gregs[GREG_RBP];
    const uint8_t *area = (const uint8_t *)uc->uc_mcontext.fpregs;
    memcpy(s->fx, area, FX_SIZE);
    if (__builtin_cpu_supports("avx") && area[512] & 4)
        memcpy(s->high, area + 576, sizeof s->high);
    else if (__builtin_cpu_supports("avx"))
        memset(s->high, 0, sizeof s->high);
    s->faulted = sig == SIGFPE ? FAULTED_XM : FAULTED_PF;
    uc->uc_mcontext.gregs[GREG_RIP] = (greg_t)s->after;
}

static inline uint64_t oracle_random(struct oracle *o)
{
    uint64_t z = (o->rng += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
static inline unsigned oracle_below(struct oracle *o, unsigned n)
{
    return (unsigned)((oracle_random(o) >> 32) * n >> 32);
}

static inline void oracle_open(struct oracle *o)
{
    struct sigaction sa = {.sa_sigaction = oracle_on_fault, .sa_flags = SA_SIGINFO};
    memset(o, 0, sizeof *o);
    rig_open_model(&o->rig, "max");
    rig_long(&o->rig);
    o->rig.v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    o->rig.v->xcr0 = 7;
    o->wide = __builtin_cpu_supports("avx");
    vcpu_refresh(o->rig.v);
    o->rng = 1;
    o->code = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(o->code, MAP_FAILED);
    o->mem = o->code + 4096;
    mprotect(o->code + 8192, 4096, PROT_NONE);
    if (o->wide)
        memcpy(o->code, oracle_wide, (size_t)(oracle_wide_end - oracle_wide));
    else
        memcpy(o->code, oracle_stub, (size_t)(oracle_stub_end - oracle_stub));
    sigaction(SIGFPE, &sa, NULL);
}

/* The page behind the one with the memory operand is absent, here and there; #PF is a result to be compared. */
static inline void oracle_expect_page_faults(struct oracle *o)
{
    struct sigaction sa = {.sa_sigaction = oracle_on_fault, .sa_flags = SA_SIGINFO};
    rig_poke(&o->rig, RIG_PT + 8 * (RIG_DATA / 4096 + 1), 0, 8);
    sigaction(SIGSEGV, &sa, NULL);
    o->page_faults = true;
}

static inline void oracle_close(struct oracle *o)
{
    signal(SIGFPE, SIG_DFL);
    signal(SIGSEGV, SIG_DFL);
    munmap(o->code, 3 * 4096);
    rig_close(&o->rig);
}

/* ---- values ---- */

static inline uint32_t oracle_float(struct oracle *o)
{
    static const uint32_t edge[] = {0,          0x80000000, 1,          0x80000001, 0x007fffff, 0x00800000,
                                    0x80800000, 0x3f800000, 0xbf800000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
                                    0xff800000, 0x7f800001, 0x7fc00000, 0xffc12345, 0x4f000000, 0xcf000000,
                                    0x5f000000, 0x4b7fffff, 0x3effffff, 0x00400000, 0x40490fdb};
    uint32_t x = (uint32_t)oracle_random(o);
    switch (oracle_below(o, 4)) {
    case 0:
        return edge[oracle_below(o, ARRAY_LEN(edge))];
    case 1: /* of middling size */
        return (x & 0x80ffffff) | (0x38 + oracle_below(o, 16)) << 24;
    case 2: /* few bits, near 1 */
        return (x & 0x80e00000) | 0x3f000000;
    default:
        return x;
    }
}

static inline uint64_t oracle_double(struct oracle *o)
{
    static const uint64_t edge[] = {0,
                                    1ull << 63,
                                    1,
                                    0x000fffffffffffff,
                                    0x0010000000000000,
                                    0x3ff0000000000000,
                                    0xbff0000000000000,
                                    0x7fefffffffffffff,
                                    0x7ff0000000000000,
                                    0xfff0000000000000,
                                    0x7ff0000000000001,
                                    0x7ff8000000000000,
                                    0xfff8000000012345,
                                    0x41dfffffffe00000,
                                    0x41e0000000000000,
                                    0xc1e0000000200000,
                                    0x43e0000000000000,
                                    0xc3e0000000000000,
                                    0x36a0000000000000,
                                    0x3810000000000000,
                                    0x380fffffffffffff,
                                    0x47efffffefffffff,
                                    0x3fdfffffffffffff};
    uint64_t x = oracle_random(o);
    switch (oracle_below(o, 5)) {
    case 0:
        return edge[oracle_below(o, ARRAY_LEN(edge))];
    case 1:
        return (x & 0x801fffffffffffff) | (uint64_t)(0x3c0 + 2 * oracle_below(o, 64)) << 52;
    case 2:
        return (x & 0x801c000000000000) | 0x3fe0000000000000;
    case 3: /* around the bounds of floats */
        return (x & 0x801fffffe0000000) |
               (uint64_t)(oracle_below(o, 2) ? 0x368 + 2 * oracle_below(o, 14) : 0x476 + 2 * oracle_below(o, 8)) << 52;
    default:
        return x;
    }
}

static inline void oracle_extended(struct oracle *o, uint64_t *mant, uint16_t *exp)
{
    static const struct f80 edge[] = {{0, 0},
                                      {0, 0x8000},
                                      {1, 0},
                                      {0x7fffffffffffffff, 0x8000},
                                      {1ull << 63, 0},
                                      {1ull << 63, 1},
                                      {1ull << 63, 0x3fff},
                                      {1ull << 63, 0xbfff},
                                      {~0ull, 0x7ffe},
                                      {1ull << 63, 0x7fff},
                                      {1ull << 63, 0xffff},
                                      {0x8000000000000001, 0x7fff},
                                      {0xc000000000000000, 0x7fff},
                                      {0xc000000000012345, 0xffff},
                                      {0x4000000000000000, 0x7fff},
                                      {0x4000000000000000, 0x4000},
                                      {0, 0x7fff},
                                      {0, 0x4001},
                                      {1ull << 63, 0x403e},
                                      {1ull << 63, 0xc03e},
                                      {1ull << 63, 0x403d},
                                      {0xffffff8000000000, 0x407e},
                                      {0xc90fdaa22168c235, 0x4000}};
    uint64_t x = oracle_random(o);
    *mant = x | 1ull << 63;
    *exp = (uint16_t)oracle_random(o);
    switch (oracle_below(o, 6)) {
    case 0: {
        unsigned k = oracle_below(o, ARRAY_LEN(edge));
        *mant = edge[k].mant;
        *exp = edge[k].exp;
        break;
    }
    case 1:
        *exp = (uint16_t)(0x3fff - 40 + oracle_below(o, 80) + (*exp & 0x8000));
        break;
    case 2: /* few bits */
        *mant = (x & 0x7800000000000000) | 1ull << 63;
        *exp = (uint16_t)(0x3fff - 3 + oracle_below(o, 8) + (*exp & 0x8000));
        break;
    case 3: /* integers */
        *mant = 0;
        x &= 0xffff;
        *exp = 0x3fff + 63;
        if (!x)
            *exp = 0;
        for (*mant = x; x && !(*mant >> 63); --*exp)
            *mant <<= 1;
        break;
    case 4: /* around the bounds of floats and doubles */
        *exp =
            (uint16_t)((oracle_below(o, 2) ? 0x3fff + 120 + oracle_below(o, 12) : 0x3fff - 1080 + oracle_below(o, 70)) +
                       (*exp & 0x8000));
        if (oracle_below(o, 2))
            *exp = (uint16_t)(0x3fff - 155 + oracle_below(o, 35) + (*exp & 0x8000));
        break;
    default:
        break;
    }
}

/* 16 bytes of any kind. */
static inline void oracle_vector(struct oracle *o, uint8_t *p)
{
    unsigned kind = oracle_below(o, 4);
    for (unsigned k = 0; k < 4; k++) {
        uint32_t x = kind == 0 ? oracle_float(o) : (uint32_t)oracle_random(o);
        memcpy(p + 4 * k, &x, 4);
    }
    for (unsigned k = 0; k < 2 && kind == 1; k++) {
        uint64_t x = oracle_double(o);
        memcpy(p + 8 * k, &x, 8);
    }
    for (unsigned k = 0; k < 16 && kind == 2; k++) /* bytes at their bounds */
        p[k] = (uint8_t)(0x7e + 0x81 * oracle_below(o, 2) + oracle_below(o, 3));
}

/* ---- running ---- */

static inline void oracle_load(struct oracle *o, const struct oracle_state *s)
{
    struct vcpu *v = o->rig.v;
    struct x87 *f = &v->fpu;
    uint16_t fsw;
    memset(f, 0, sizeof *f);
    memcpy(&f->fcw, s->fx, 2);
    memcpy(&fsw, s->fx + 2, 2);
    f->fsw = fsw & 0xc7ff;
    f->top = fsw >> 11 & 7;
    f->tag = s->fx[4];
    memcpy(&v->mxcsr, s->fx + 24, 4);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(&f->st[(f->top + n) & 7].mant, s->fx + 32 + 16 * n, 8);
        memcpy(&f->st[(f->top + n) & 7].exp, s->fx + 40 + 16 * n, 2);
    }
    for (unsigned n = 0; n < 16; n++) {
        memcpy(v->xmm[n].q, s->fx + 160 + 16 * n, 16);
        memcpy(v->xmm[n].q + 2, s->high[n], 16);
    }
    for (unsigned n = 0; n < 4; n++)
        v->gpr[n] = s->gpr[n];
    v->gpr[REG_RSI] = v->gpr[REG_RDI] = RIG_DATA;
    vcpu_set_rflags(v, s->rflags & FLAGS_ARITH);
    mem_access(o->rig.mem, 0, RIG_DATA, o->mem, ORACLE_MEM, MEM_HOST_POKE, true, BUS_NO_CPU);
}

static inline void oracle_store(struct oracle *o, struct oracle_state *s)
{
    struct vcpu *v = o->rig.v;
    struct x87 *f = &v->fpu;
    uint16_t fsw = (uint16_t)(f->fsw | f->top << 11);
    memset(s->fx, 0, FX_SIZE);
    memcpy(s->fx, &f->fcw, 2);
    memcpy(s->fx + 2, &fsw, 2);
    s->fx[4] = f->tag;
    memcpy(s->fx + 24, &v->mxcsr, 4);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(s->fx + 32 + 16 * n, &f->st[(f->top + n) & 7].mant, 8);
        memcpy(s->fx + 40 + 16 * n, &f->st[(f->top + n) & 7].exp, 2);
    }
    for (unsigned n = 0; n < 16; n++) {
        memcpy(s->fx + 160 + 16 * n, v->xmm[n].q, 16);
        memcpy(s->high[n], v->xmm[n].q + 2, 16);
    }
    for (unsigned n = 0; n < 4; n++)
        s->gpr[n] = v->gpr[n];
    s->rflags = vcpu_rflags(v) & FLAGS_ARITH;
}

static inline void oracle_stop(struct vcpu *v, const struct insn *i)
{
}

/* Executes by the handler; s->faulted is set for #XM. Any other fault fails the test. */
static inline void oracle_emulate(struct oracle *o, struct oracle_state *s, const uint8_t *bytes, unsigned len)
{
    struct vcpu *v = o->rig.v;
    struct insn insn[2];
    char text[96];
    memset(insn, 0, sizeof insn);
    oracle_load(o, s);
    ck_assert_int_eq(insn_decode(&insn[0], bytes, len, v->mode, 0), DECODE_OK);
    insn[0].fn = o->bind ? o->bind(&insn[0]) : interp_bind(&insn[0], v->mode);
    insn[1].fn = oracle_stop;
    v->gpr[REG_IP] = RIG_CODE;
    s->faulted = 0;
    if (setjmp(v->fault_jmp) == 0) {
        insn[0].fn(v, insn);
    } else {
        ck_assert_msg(v->fault.vector == EXC_XM || (v->fault.vector == EXC_PF && o->page_faults), "%s raises vector %u",
                      insn_print(&insn[0], 0, text, sizeof text), v->fault.vector);
        s->faulted = v->fault.vector == EXC_XM ? FAULTED_XM : FAULTED_PF;
    }
    oracle_store(o, s);
}

static inline void oracle_native(struct oracle *o, struct oracle_state *s, const uint8_t *bytes, unsigned len)
{
    uint8_t *at = o->code + (o->wide ? oracle_wide_insn - oracle_wide : oracle_stub_insn - oracle_stub);
    void (*stub)(struct oracle_state *);
    memset(at, 0x90, 16);
    memcpy(at, bytes, len);
    s->mem = (uintptr_t)o->mem;
    s->mxcsr = 0x1f80;
    s->faulted = 0;
    s->after =
        (uintptr_t)o->code + (uintptr_t)(o->wide ? oracle_wide_after - oracle_wide : oracle_stub_after - oracle_stub);
    *(void **)&stub = o->code;
    stub(s);
    s->rflags &= FLAGS_ARITH;
    memset(s->fx + 6, 0, 18); /* opcode and pointers */
    memset(s->fx + 28, 0, 4); /* MXCSR_MASK */
    memset(s->fx + 416, 0, 96);
    for (unsigned n = 0; n < 8; n++)
        memset(s->fx + 42 + 16 * n, 0, 6);
}

static inline void oracle_dump(const char *what, const struct oracle_state *s)
{
    uint32_t mxcsr;
    memcpy(&mxcsr, s->fx + 24, 4);
    fprintf(
        stderr,
        "%s: fcw %02x%02x fsw %02x%02x tag %02x mxcsr %08x flags %03llx fault %u rax %llx rcx %llx rdx %llx rbx %llx\n",
        what, s->fx[1], s->fx[0], s->fx[3], s->fx[2], s->fx[4], mxcsr, (unsigned long long)s->rflags, s->faulted,
        (unsigned long long)s->gpr[0], (unsigned long long)s->gpr[1], (unsigned long long)s->gpr[2],
        (unsigned long long)s->gpr[3]);
    for (unsigned n = 0; n < 24; n++) {
        const uint8_t *p = s->fx + 32 + 16 * n;
        fprintf(stderr, "  %s%u ", n < 8 ? "st" : "xmm", n < 8 ? n : n - 8);
        for (int k = 15; n >= 8 && k >= 0; k--)
            fprintf(stderr, "%02x", s->high[n - 8][k]);
        for (int k = 15; k >= 0; k--)
            fprintf(stderr, "%02x", p[k]);
        fprintf(stderr, n % 2 ? "\n" : "  ");
    }
}

/* After an unmasked overflow or underflow PE tells whether a result of unbounded exponent would be exact; the handlers
 * tell it of the masked result. Not compared there. */
static inline void forget_precision(struct oracle_state *a, struct oracle_state *b)
{
    uint32_t mxcsr;
    memcpy(&mxcsr, b->fx + 24, 4);
    if (b->faulted && mxcsr & ~(mxcsr >> 7) & 0x18) {
        a->fx[24] &= (uint8_t)~0x20;
        b->fx[24] &= (uint8_t)~0x20;
    }
}

/* Runs both ways from *in and compares. The host goes second: its result is in o->mem and the last word. */
static inline void oracle_check(struct oracle *o, const struct oracle_state *in, const uint8_t *bytes, unsigned len,
                                uint16_t fsw_undefined)
{
    struct oracle_state emulated = *in, native = *in;
    uint8_t before[ORACLE_MEM], after[ORACLE_MEM];
    memcpy(before, o->mem, sizeof before);
    oracle_emulate(o, &emulated, bytes, len);
    mem_access(o->rig.mem, 0, RIG_DATA, after, ORACLE_MEM, MEM_PEEK, false, BUS_NO_CPU);
    oracle_native(o, &native, bytes, len);
    for (unsigned k = 0; k < 2; k++) {
        emulated.fx[2 + k] &= (uint8_t) ~(fsw_undefined >> 8 * k);
        native.fx[2 + k] &= (uint8_t) ~(fsw_undefined >> 8 * k);
    }
    forget_precision(&emulated, &native);
    bool same = !memcmp(emulated.fx, native.fx, FX_SIZE) && !memcmp(emulated.high, native.high, sizeof native.high) &&
                !memcmp(emulated.gpr, native.gpr, sizeof native.gpr) && emulated.rflags == native.rflags &&
                emulated.faulted == native.faulted && !memcmp(after, o->mem, ORACLE_MEM);
    o->cases++;
    o->faults += native.faulted;
    if (same)
        return;
    struct insn insn;
    char text[96];
    insn_decode(&insn, bytes, len, MODE_CODE64 | MODE_PE | MODE_LONG | MODE_FLAT, 0);
    fprintf(stderr, "%s, memory ", insn_print(&insn, 0, text, sizeof text));
    for (int k = 31; k >= 0; k--)
        fprintf(stderr, "%02x", before[k]);
    fprintf(stderr, "\n");
    oracle_dump("before", in);
    oracle_dump("emulated", &emulated);
    oracle_dump("native", &native);
    ck_abort_msg("case %u: %s differs from the host", o->cases, text);
}

/* Random registers and memory; nothing pending. */
static inline void oracle_randomize(struct oracle *o, struct oracle_state *s)
{
    uint16_t fcw = (uint16_t)(0x40 | (oracle_random(o) & 0x0f00)), fsw;
    memset(s, 0, sizeof *s);
    if ((fcw >> 8 & 3) == 1)
        fcw |= 0x300;
    fcw |= oracle_below(o, 3) ? 0x3f : (uint16_t)(oracle_random(o) & 0x3f);
    fsw = (uint16_t)(oracle_random(o) & 0x7f7f);
    fsw &= (uint16_t) ~(0x3f & ~fcw);
    memcpy(s->fx, &fcw, 2);
    memcpy(s->fx + 2, &fsw, 2);
    s->fx[4] = oracle_below(o, 2) ? 0x7f : (uint8_t)oracle_random(o);
    for (unsigned n = 0; n < 8; n++) {
        uint64_t mant;
        uint16_t exp;
        oracle_extended(o, &mant, &exp);
        memcpy(s->fx + 32 + 16 * n, &mant, 8);
        memcpy(s->fx + 40 + 16 * n, &exp, 2);
    }
    for (unsigned n = 0; n < 16; n++)
        oracle_vector(o, s->fx + 160 + 16 * n);
    for (unsigned n = 0; n < 16; n++)
        oracle_vector(o, s->high[n]);
    uint32_t mxcsr = (uint32_t)oracle_random(o) & 0xe07f;
    mxcsr |= oracle_below(o, 4) ? 0x1f80 : (uint32_t)oracle_random(o) & 0x1f80;
    memcpy(s->fx + 24, &mxcsr, 4);
    for (unsigned n = 0; n < 4; n++)
        s->gpr[n] = oracle_random(o) >> (oracle_below(o, 2) ? 0 : oracle_below(o, 64));
    s->rflags = oracle_random(o) & FLAGS_ARITH;
    for (unsigned k = 0; k < ORACLE_MEM; k += 16)
        oracle_vector(o, o->mem + k);
}

#endif
