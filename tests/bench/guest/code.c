/* Code that changes: an instruction patched in a running loop; functions generated into fresh and into reused pages. */
#include "guest.h"

#include <string.h>

typedef uint64_t function(uint64_t x);

/* Emits 16 times "add imm32, rax; rol rax, 5", and a return. */
static size_t function_emit(uint8_t *p, uint32_t seed)
{
    uint8_t *start = p;
    memcpy(p, "\x48\x89\xf8", 3); /* mov rax, rdi */
    p += 3;
    for (unsigned k = 0; k < 16; k++) {
        uint32_t imm = (seed + k) * 2654435761u & 0x7fffffff;
        memcpy(p, "\x48\x05", 2);
        memcpy(p + 2, &imm, 4);
        memcpy(p + 6, "\x48\xc1\xc0\x05", 4);
        p += 10;
    }
    *p++ = 0xc3;
    return (size_t)(p - start);
}

static function *as_function(uint8_t *p)
{
    function *f;
    memcpy(&f, &p, sizeof f);
    return f;
}

/*
 * A loop of n turns whose body writes the immediate of an instruction further on in the same loop:
 *     mov rax, 0 ; mov rcx, rdi
 *  1: mov [rip + imm of 2], ecx ; 2: add rax, imm32 ; rol rax, 3 ; dec rcx ; jnz 1b ; ret
 */
uint64_t row_self_modifying(uint64_t n)
{
    static const uint8_t code[] = {0x31, 0xc0, 0x48, 0x89, 0xf9,             /* xor eax, eax; mov rcx, rdi */
                                   0x89, 0x0d, 0x02, 0x00, 0x00, 0x00,       /* mov [rip + 2], ecx */
                                   0x48, 0x05, 0x00, 0x00, 0x00, 0x00,       /* add rax, imm32 */
                                   0x48, 0xc1, 0xc0, 0x03, 0x48, 0xff, 0xc9, /* rol rax, 3; dec rcx */
                                   0x75, 0xea, 0xc3};                        /* jnz; ret */
    uint8_t *p = pages_get(4096, true);
    memcpy(p, code, sizeof code);
    uint64_t sum = as_function(p)(n);
    pages_put(p, 4096);
    return sum;
}

/* n functions, each into a page that had no code before, each called ten times. */
uint64_t row_code_fresh(uint64_t n)
{
    enum { PAGES = 64 };
    uint64_t x = 1;
    uint8_t *p = NULL;
    for (uint64_t k = 0; k < n; k++) {
        if (k % PAGES == 0) {
            if (p)
                pages_put(p, PAGES * 4096);
            p = pages_get(PAGES * 4096, true);
        }
        uint8_t *at = p + k % PAGES * 4096;
        function_emit(at, (uint32_t)k);
        for (unsigned c = 0; c < 10; c++)
            x = as_function(at)(x);
    }
    if (p)
        pages_put(p, PAGES * 4096);
    return x;
}

/* n functions, written one over the other's place in one page. */
uint64_t row_code_reused(uint64_t n)
{
    uint8_t *p = pages_get(4096, true);
    uint64_t x = 1;
    for (uint64_t k = 0; k < n; k++) {
        uint8_t *at = p + k % 8 * 512;
        function_emit(at, (uint32_t)k);
        for (unsigned c = 0; c < 10; c++)
            x = as_function(at)(x);
    }
    pages_put(p, 4096);
    return x;
}
