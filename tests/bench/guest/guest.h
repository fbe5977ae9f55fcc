/*
 * The benchmark program that runs inside a guest (and, for comparison, natively): one static program, one row a kind of
 * work. main.c has the protocol, rows.c the table; the other files hold the work.
 *
 * A row is a function of an amount of work; it returns a checksum that depends on that amount alone, so that wrong
 * emulation shows as another checksum than the processor's own.
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct row {
    const char *name, *group;
    uint64_t work; /* at scale 100 */
    uint64_t (*run)(uint64_t n);
    bool avx2; /* needs it */
};

extern const struct row rows[];
extern const size_t row_count;

static inline uint64_t mix64(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

/* xorshift64*: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* Zeroed pages that are there already; ends the program if it cannot. prot_exec: they may be executed. */
uint8_t *pages_get(size_t bytes, bool prot_exec);
void pages_put(void *p, size_t bytes);
_Noreturn void give_up(const char *what);

/* integer.c */
uint64_t row_integer_mix(uint64_t n);
uint64_t row_sha256(uint64_t n);
uint64_t row_lz(uint64_t n);
uint64_t row_division(uint64_t n);
uint64_t row_atomics(uint64_t n);
/* float.c */
uint64_t row_matmul(uint64_t n);
uint64_t row_nbody(uint64_t n);
uint64_t row_mandelbrot(uint64_t n);
uint64_t row_x87(uint64_t n);
uint64_t row_packed_sse(uint64_t n);
uint64_t row_avx2(uint64_t n);
/* memory.c */
uint64_t row_chase(uint64_t n);
uint64_t row_memcpy(uint64_t n);
uint64_t row_random_writes(uint64_t n);
uint64_t row_sums(uint64_t n);
/* kernel.c */
uint64_t row_getppid(uint64_t n);
uint64_t row_fork(uint64_t n);
uint64_t row_fork_exec(uint64_t n);
uint64_t row_mmap_churn(uint64_t n);
uint64_t row_mprotect_segv(uint64_t n);
uint64_t row_pipe_ping_pong(uint64_t n);
uint64_t row_rdtsc(uint64_t n);
uint64_t row_cpuid(uint64_t n);
/* branch.c */
uint64_t row_switch(uint64_t n);
uint64_t row_computed_goto(uint64_t n);
uint64_t row_fib(uint64_t n);
uint64_t row_virtual_calls(uint64_t n);
uint64_t row_sort(uint64_t n);
/* strings.c */
uint64_t row_rep_movsb(uint64_t n);
uint64_t row_rep_stos(uint64_t n);
uint64_t row_rep_scas(uint64_t n);
uint64_t row_short_reps(uint64_t n);
/* code.c */
uint64_t row_self_modifying(uint64_t n);
uint64_t row_code_fresh(uint64_t n);
uint64_t row_code_reused(uint64_t n);

#endif
