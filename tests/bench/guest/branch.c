/* Branches: interpreters' dispatch, calls, virtual calls, sorting. */
#include "guest.h"

#include <stdlib.h>

/* ---- a bytecode, dispatched by a switch and by computed goto ---- */

enum { B_ADD, B_XOR, B_SHIFT, B_LOAD, B_STORE, B_DUP, B_SUB, B_ROT, B_SKIP, B_END };

#define PROGRAM 251

static uint8_t program[PROGRAM + 1];

static void program_make(void)
{
    uint64_t seed = 12345;
    for (unsigned i = 0; i < PROGRAM; i++)
        program[i] = (uint8_t)(next_random(&seed) % B_END);
    program[PROGRAM - 1] = B_ADD; /* a skip must not lead past the end */
    program[PROGRAM] = B_END;
}

uint64_t row_switch(uint64_t n)
{
    uint64_t a = 1, b = 2, cell[16] = {0};
    program_make();
    for (uint64_t k = 0; k < n; k++)
        for (const uint8_t *pc = program;;) {
            switch (*pc++) {
            case B_ADD:
                a += b;
                continue;
            case B_XOR:
                b ^= a;
                continue;
            case B_SHIFT:
                a = a >> 3 ^ b;
                continue;
            case B_LOAD:
                b += cell[a & 15];
                continue;
            case B_STORE:
                cell[b & 15] = a;
                continue;
            case B_DUP:
                b = a + 1;
                continue;
            case B_SUB:
                a -= b ^ k;
                continue;
            case B_ROT:
                a = a << 7 | a >> 57;
                continue;
            case B_SKIP:
                pc += a & 1;
                continue;
            default:
                break;
            }
            break;
        }
    return mix64(a, b);
}

uint64_t row_computed_goto(uint64_t n)
{
    static const void *const labels[] = {&&l_add, &&l_xor, &&l_shift, &&l_load, &&l_store,
                                         &&l_dup, &&l_sub, &&l_rot,   &&l_skip, &&l_end};
    uint64_t a = 1, b = 2, cell[16] = {0}, k = 0;
    const uint8_t *pc = program;
    program_make();
#define GO goto *labels[*pc++]
    GO;
l_add:
    a += b;
    GO;
l_xor:
    b ^= a;
    GO;
l_shift:
    a = a >> 3 ^ b;
    GO;
l_load:
    b += cell[a & 15];
    GO;
l_store:
    cell[b & 15] = a;
    GO;
l_dup:
    b = a + 1;
    GO;
l_sub:
    a -= b ^ k;
    GO;
l_rot:
    a = a << 7 | a >> 57;
    GO;
l_skip:
    pc += a & 1;
    GO;
l_end:
    if (++k < n) {
        pc = program;
        GO;
    }
#undef GO
    return mix64(a, b);
}

/* ---- calls ---- */

static __attribute__((noinline)) uint64_t fib(uint64_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

uint64_t row_fib(uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++)
        sum += fib(18 + (k & 1));
    return sum;
}

struct shape {
    uint64_t (*area)(const struct shape *s);
    uint64_t a, b;
};

static uint64_t square_area(const struct shape *s)
{
    return s->a * s->a;
}
static uint64_t oblong_area(const struct shape *s)
{
    return s->a * s->b;
}
static uint64_t triangle_area(const struct shape *s)
{
    return s->a * s->b / 2;
}
static uint64_t ring_area(const struct shape *s)
{
    return 3 * (s->a * s->a - s->b);
}

uint64_t row_virtual_calls(uint64_t n)
{
    static uint64_t (*const kinds[])(const struct shape *s) = {square_area, oblong_area, triangle_area, ring_area};
    static struct shape shapes[1000];
    uint64_t seed = 3, sum = 0;
    for (unsigned i = 0; i < 1000; i++)
        shapes[i] = (struct shape){kinds[next_random(&seed) >> 62], i + 3, i % 17};
    for (uint64_t k = 0; k < n; k++)
        for (unsigned i = 0; i < 1000; i++)
            sum += shapes[i].area(&shapes[i]);
    return sum;
}

/* ---- sorting with a comparison function ---- */

static int by_value(const void *p, const void *q)
{
    uint32_t a = *(const uint32_t *)p, b = *(const uint32_t *)q;
    return (a > b) - (a < b);
}

/* Heap sort through the comparison's pointer: a library's qsort would differ from host to host. */
static void sort(uint32_t *p, size_t n, int (*compare)(const void *, const void *))
{
    for (size_t end = n, start = n / 2; end > 1;) {
        uint32_t x;
        if (start) {
            x = p[--start];
        } else {
            x = p[--end];
            p[end] = p[0];
        }
        size_t at = start;
        for (size_t child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && compare(&p[child], &p[child + 1]) < 0)
                child++;
            if (compare(&x, &p[child]) >= 0)
                break;
            p[at] = p[child];
        }
        p[at] = x;
    }
}

uint64_t row_sort(uint64_t n)
{
    enum { COUNT = 2000 };
    static uint32_t x[COUNT];
    int (*volatile compare)(const void *, const void *) = by_value;
    uint64_t seed = 17, sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        for (unsigned i = 0; i < COUNT; i++)
            x[i] = (uint32_t)next_random(&seed);
        sort(x, COUNT, compare);
        for (unsigned i = 0; i < COUNT; i += 100)
            sum = mix64(sum, x[i]);
    }
    return sum;
}
