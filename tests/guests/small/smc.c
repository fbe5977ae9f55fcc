// Tight self-modifying code: 100,000 iterations of each of four ways to rewrite code and run it.
#include "verdict.h"

enum { ITERATIONS = 100000 };

// Stores the low byte of the counter into its own immediate, jumps, sums what it executes.
SNIPPET(smc_inline, "xor %ebx, %ebx\n"
                    "1:\tmov %cl, 2f+1(%rip)\n\tjmp 2f\n"
                    "2:\tmov $0, %eax\n\tadd %rax, %rbx\n\tdec %ecx\n\tjnz 1b");
// Rewrites a function through another mapping (RDI) and calls it.
SNIPPET(smc_alias, "xor %ebx, %ebx\n"
                   "1:\tmov %cl, 1(%rdi)\n\tcall 2f\n\tadd %rax, %rbx\n\tdec %ecx\n\tjnz 1b\n\tjmp 3f\n" MARK(
                       "smc_callee") "2:\tmov $0, %eax\n\tret\n3:");
extern const char smc_callee[];
// Turns an add into a sub and back: opcode bytes change, not immediates.
SNIPPET(smc_opcode, "xor %ebx, %ebx\n\tmov $1, %eax\n"
                    "1:\tmovb $0x01, 2f+1(%rip)\n\ttest $3, %cl\n\tjnz 3f\n\tmovb $0x29, 2f+1(%rip)\n"
                    "3:\tjmp 2f\n2:\t.byte 0x48, 0x01, 0xc3\n\tdec %ecx\n\tjnz 1b");
// Data in the page of the running code: stores that change no instruction.
SNIPPET(smc_data, "xor %ebx, %ebx\n1:\tincq 2f(%rip)\n\tinc %rbx\n\tdec %ecx\n\tjnz 1b\n\tmov 2f(%rip), %rax\n\t"
                  "jmp 3f\n\t.balign 8\n2:\t.quad 0\n3:");

static u64 sum_of_low_bytes(void)
{
    u64 sum = 0;
    for (u32 i = ITERATIONS; i; i--)
        sum += (u8)i;
    return sum;
}

static u64 run_copy(u64 gva, const char *start, const char *end, u64 frame, u64 rdi)
{
    struct probe p;
    memcpy(gpa_pointer(frame), start, (size_t)(end - start));
    probe_init(&p, start, 3);
    p.in.rip = gva;
    p.in.rcx = ITERATIONS;
    p.in.rdi = rdi;
    probe_run(&p);
    return p.out.vector == VECTOR_DONE ? p.out.rbx : ~0ull;
}

void guest_main(void);

void guest_main(void)
{
    struct verdict v = {.guest = "smc"};
    console_init();
    traps_init();
    paging_init();
    u64 gva = GVA(32, 1, 2, 3), alias = GVA(33, 4, 5, 6), frame = frame_alloc();
    map_page(gva, frame | PTE_RWU);
    map_page(alias, frame | PTE_RWU);
    u64 callee = alias + (u64)(smc_callee - smc_alias);
    verdict_equal(&v, run_copy(gva, smc_inline, smc_inline_end, frame, 0), sum_of_low_bytes(),
                  "100000 stores into the code just ahead");
    verdict_equal(&v, run_copy(gva, smc_alias, smc_alias_end, frame, callee), sum_of_low_bytes(),
                  "100000 functions rewritten through another mapping");
    verdict_equal(&v, run_copy(gva, smc_opcode, smc_opcode_end, frame, 0), ITERATIONS / 2,
                  "100000 opcodes rewritten twice or once");
    verdict_equal(&v, run_copy(gva, smc_data, smc_data_end, frame, 0), ITERATIONS,
                  "100000 stores to data in the page of the code");
    verdict_exit(&v);
}
