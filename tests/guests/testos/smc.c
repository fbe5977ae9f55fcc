// Self-modifying code. The default checks serialise as the SDM (volume 3, 8.1.3) asks: a jump (own code) or CPUID
// (code changed through another mapping) between store and execution.
#include "testos.h"

static void copy_code(u64 to, const char *start, const char *end)
{
    memcpy(gpa_pointer(to), start, (size_t)(end - start));
}

static u64 code_frame(const char *start, const char *end)
{
    u64 frame = frame_alloc();
    copy_code(frame, start, end);
    return frame;
}

static void serialise(void)
{
    u32 a = 0, c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "+c"(c) : : "ebx", "edx", "memory");
}

static u64 run_at(u64 gva, unsigned cpl, u64 rdi, u64 rcx)
{
    struct probe p;
    probe_init(&p, access_read, cpl);
    p.in.rip = gva;
    p.in.rdi = rdi;
    p.in.rcx = rcx;
    probe_run(&p);
    return p.out.vector == VECTOR_DONE ? p.out.rax : ~0ull;
}

// Code that stores the low byte of RCX into its own immediate, then jumps to it.
SNIPPET(smc_own, "lea 2f(%rip), %rdi\n\tmov %cl, 1(%rdi)\n\tjmp 2f\n2:\tmov $0x11, %eax");
SNIPPET(smc_forward, "movb %cl, 2f+1(%rip)\n\tjmp 1f\n1:\tnop\n2:\tmov $0x11, %eax");
SNIPPET(smc_next, "movb %cl, 2f+1(%rip)\n2:\tmov $0x11, %eax");
SNIPPET(smc_self, "1:\tmov $0x11, %al\n\tmovb %cl, 1b+1(%rip)\n\tdec %ch\n\tjns 1b");
SNIPPET(smc_loop, "xor %ebx, %ebx\n1:\tmov $0x00, %al\n\tmovzbl %al, %eax\n\tadd %eax, %ebx\n\tincb 1b+1(%rip)\n\t"
                  "dec %ecx\n\tjnz 1b\n\tmov %ebx, %eax");
SNIPPET(smc_stos,
        "lea 2f(%rip), %rdi\n\tmov %cl, %al\n\tmov $6, %ecx\n\tmov %al, %dl\n\tmov $0x90, %al\n\trep stosb\n\t"
        "movzbl %dl, %eax\n\tjmp 2f\n2:\tmov $0x77, %eax\n\tnop");
SNIPPET(smc_call,
        "call 2f\n\tmov %eax, %ebx\n\tmovb %cl, 2f+1(%rip)\n\tcall 2f\n\tshl $8, %ebx\n\tor %ebx, %eax\n\tjmp 3f\n"
        "2:\tmov $0x11, %eax\n\tret\n3:");
SNIPPET(smc_value, "mov $0x21, %eax");
SNIPPET(smc_value2, "mov $0x22, %eax");
SNIPPET(smc_push,
        "mov %rsp, %rbx\n\tlea 2f+1(%rip), %rdi\n\t"
        "mov (%rdi), %eax\n\tmov %cl, %al\n\tmov 4(%rdi), %edx\n\tshl $32, %rdx\n\tor %rdx, %rax\n\t"
        "lea 8(%rdi), %rsp\n\tpush %rax\n\tmov %rbx, %rsp\n\tjmp 2f\n2:\tmov $0x11, %eax\n\tnop\n\tnop\n\tnop\n\tnop");

struct smc_case {
    const char *name, *start, *end;
    u64 rcx, rax;
    bool coherent; // no serialisation: promised by a coherent processor only
};

static const struct smc_case own_cases[] = {
    {"store to a later instruction, jump", smc_own, smc_own_end, 0x42, 0x42, false},
    {"store to a later instruction, jump over a nop", smc_forward, smc_forward_end, 0x43, 0x43, false},
    {"rep stosb over later code, jump", smc_stos, smc_stos_end, 0x44, 0x44, false},
    {"call, change the callee, call", smc_call, smc_call_end, 0x45, 0x1145, false},
    {"push over later code, jump", smc_push, smc_push_end, 0x46, 0x46, false},
    {"loop that stores into itself, backward jump", smc_self, smc_self_end, 0x147, 0x47, false},
    {"loop of 200 that increments its own immediate", smc_loop, smc_loop_end, 200, 199 * 200 / 2, false},
    {"coherent: store to the very next instruction", smc_next, smc_next_end, 0x48, 0x48, true},
};

static void check_own_stores(u64 gva, u64 frame)
{
    for (unsigned i = 0; i < sizeof own_cases / sizeof own_cases[0]; i++) {
        const struct smc_case *c = &own_cases[i];
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
            if (c->coherent && !settings.coherent)
                continue;
            copy_code(frame, c->start, c->end);
            serialise();
            check_equal(run_at(gva, cpl, 0, c->rcx), c->rax, "%s, CPL %u", c->name, cpl);
            copy_code(frame, c->start, c->end);
            serialise();
            check_equal(run_at(gva, cpl, 0, c->rcx), c->rax, "%s, CPL %u, code put back", c->name, cpl);
        }
    }
}

static void check_rewrites(u64 gva, u64 frame)
{
    u64 alias = GVA(91, 1, 1, 1), large = GVA(92, 1, 1, 0);
    map_page(alias, frame | PTE_RWU);
    copy_code(frame, smc_value, smc_value_end);
    serialise();
    check_equal(run_at(gva, 3, 0, 0), 0x21, "code before it is changed");
    *(volatile u8 *)(frame + 1) = 0x31;
    serialise();
    check_equal(run_at(gva, 3, 0, 0), 0x31, "code changed through the one-to-one mapping");
    *(volatile u8 *)(alias + 1) = 0x32;
    serialise();
    check_equal(run_at(gva, 3, 0, 0), 0x32, "code changed through another 4 KiB mapping");
    check_equal(run_at(alias, 3, 0, 0), 0x32, "and run through that mapping");
    *(volatile u8 *)(gva + 1) = 0x33;
    serialise();
    check_equal(run_at(alias, 0, 0, 0), 0x33, "changed through the first, run through the other at CPL 0");
    struct probe p;
    probe_init(&p, access_write, 3);
    p.in.rdi = alias;
    p.in.rax = load64(frame) + 0x100;
    check_probe(&p, done(), "user mode stores into code through the other mapping");
    serialise();
    check_equal(run_at(gva, 3, 0, 0), 0x34, "and the change shows");
    bool ok = true;
    for (unsigned i = 0; i < 256; i++) {
        *(volatile u8 *)(alias + 1) = (u8)i;
        serialise();
        ok = ok && run_at(gva, i & 1 ? 3 : 0, 0, 0) == i;
    }
    check(ok, "code rewritten and run 256 times");
    copy_code(LARGE_FRAME_A + 0x8000, smc_value, smc_value_end);
    map_large(large, LARGE_FRAME_A | PTE_RWU);
    map_page(alias, (LARGE_FRAME_A + 0x8000) | PTE_RWU);
    check_equal(run_at(large + 0x8000, 3, 0, 0), 0x21, "code in a 2 MiB page");
    *(volatile u8 *)(large + 0x9000) = 1;
    *(volatile u8 *)(alias + 1) = 0x35;
    serialise();
    check_equal(run_at(large + 0x8000, 3, 0, 0), 0x35, "code in a 2 MiB page changed through a 4 KiB mapping");
    *(volatile u8 *)(large + 0x8001) = 0x36;
    serialise();
    check_equal(run_at(alias, 3, 0, 0), 0x36, "and the other way round");
}

static void check_remapped_code(u64 gva)
{
    u64 first = code_frame(smc_value, smc_value_end), second = code_frame(smc_value2, smc_value2_end);
    map_page(gva, first | PTE_P | PTE_U);
    check_equal(run_at(gva, 3, 0, 0), 0x21, "code page before it is remapped");
    map_page(gva, second | PTE_P | PTE_U);
    check_equal(run_at(gva, 3, 0, 0), 0x22, "code page remapped, INVLPG");
    pte_store(pt_entry(read_cr3(), gva, 1), first | PTE_P | PTE_U);
    flush_all();
    check_equal(run_at(gva, 0, 0, 0), 0x21, "code page remapped, CR3 reload");
    map_page(gva, 0);
    check_equal(run_at(gva, 3, 0, 0), ~0ull, "code page unmapped: does not run");
    map_page(gva, first | PTE_P | PTE_U);
    check_equal(run_at(gva, 3, 0, 0), 0x21, "code page mapped again");
    copy_code(first, smc_value2, smc_value2_end);
    serialise();
    check_equal(run_at(gva, 3, 0, 0), 0x22, "code copied over it while mapped read-only for user mode");
}

// The ten bytes of the instruction lie across two pages; the second is remapped, then rewritten.
SNIPPET(smc_wide, "movabs $0x1122334455667788, %rax");

static void put_wide(u64 low, u64 high, u64 high_byte)
{
    u8 bytes[16];
    memcpy(bytes, smc_wide, 12);
    bytes[9] = (u8)high_byte; // top byte of the immediate
    memcpy(gpa_pointer(low + 0xffc), bytes, 4);
    memcpy(gpa_pointer(high), bytes + 4, 8);
}

static void check_crossing_code(u64 gva)
{
    u64 low = frame_alloc(), high = frame_alloc(), other = frame_alloc();
    u64 rest = 0x0022334455667788;
    put_wide(low, other, 0x44);
    put_wide(low, high, 0x33);
    map_page(gva, low | PTE_RWU);
    map_page(gva + 0x1000, high | PTE_RWU);
    check_equal(run_at(gva + 0xffc, 3, 0, 0), rest | 0x33ull << 56, "instruction across two pages");
    map_page(gva + 0x1000, other | PTE_RWU);
    check_equal(run_at(gva + 0xffc, 3, 0, 0), rest | 0x44ull << 56, "its second page remapped, INVLPG");
    *(volatile u8 *)(other + 5) = 0x55;
    serialise();
    check_equal(run_at(gva + 0xffc, 3, 0, 0), rest | 0x55ull << 56, "its second page written");
    *(volatile u8 *)(low + 0xffe) = 0x99;
    serialise();
    check_equal(run_at(gva + 0xffc, 3, 0, 0), (rest & ~0xffull) | 0x99 | 0x55ull << 56, "its first page written");
    store64(gva + 0xffc, load64(gva + 0xffc) ^ 0xff0000);
    serialise();
    check_equal(run_at(gva + 0xffc, 0, 0, 0), (rest & ~0xffull) | 0x66 | 0x55ull << 56,
                "written by a store across both pages");
    map_page(gva + 0x1000, high | PTE_RWU);
    check_equal(run_at(gva + 0xffc, 3, 0, 0), (rest & ~0xffull) | 0x66 | 0x33ull << 56, "its second page put back");
}

// Code whose page is remapped by a function that it calls: the return goes to the new frame.
SNIPPET(smc_remap_caller_old, "call *%rdx\n\tmov $0x61, %eax");
SNIPPET(smc_remap_caller_new, "call *%rdx\n\tmov $0x62, %eax");
SNIPPET(smc_remap, "mov %rcx, (%rdi)\n\tinvlpg (%rsi)\n\tret");

static void remap_probe(struct probe *p, u64 gva, u64 new_entry)
{
    probe_init(p, smc_remap, 0);
    p->in.rip = p->in.rsi = gva;
    p->in.rdx = (u64)smc_remap;
    p->in.rdi = (u64)pt_entry(read_cr3(), gva, 1);
    p->in.rcx = new_entry;
}

static void check_caller_remapped(u64 gva)
{
    u64 old = code_frame(smc_remap_caller_old, smc_remap_caller_old_end);
    u64 new = code_frame(smc_remap_caller_new, smc_remap_caller_new_end);
    struct probe p;
    map_page(gva, old | PTE_RWU);
    for (unsigned round = 0; round < 2; round++) {
        remap_probe(&p, gva, (round ? old : new) | PTE_RWU);
        check_probe(&p, done(), "code calls a function that remaps the caller's page");
        check_equal(p.out.rax, round ? 0x61 : 0x62, "and goes on in the new frame");
    }
    remap_probe(&p, gva, 0);
    struct expect wanted = page_fault(PF_ID, gva + 2);
    wanted.rip = gva + 2;
    check_probe(&p, wanted, "code calls a function that unmaps the caller's page: the return faults");
}

// A page that is code, data and page table by turns.
static void check_code_and_table(u64 gva)
{
    u64 table = frame_alloc(), page = marked_frame(3), target = GVA(93, 1, 1, 1);
    pte_store(pt_entry(read_cr3(), target, 2), table | PTE_RWU);
    map_page(gva, table | PTE_P | PTE_U);
    copy_code(table + 0x800, smc_value, smc_value_end);
    check_equal(run_at(gva + 0x800, 3, 0, 0), 0x21, "code in a page that is also a page table");
    pte_store((u64 *)gpa_pointer(table) + 1, page | PTE_RWU);
    check_equal(load64(target + ACCESS_OFFSET), FRAME_MARK + 3, "the same page used as a page table");
    *(volatile u8 *)(table + 0x801) = 0x51;
    serialise();
    check_equal(run_at(gva + 0x800, 3, 0, 0), 0x51, "its code changed");
    check_equal(load64(target + ACCESS_OFFSET), FRAME_MARK + 3, "its table still in force");
    pte_store((u64 *)gpa_pointer(table) + 1, 0);
    invlpg(target);
    check_access(READ, 3, target, PF_U, "its table entry cleared");
    check_equal(run_at(gva + 0x800, 0, 0, 0), 0x51, "its code as before");
    pte_store(pt_entry(read_cr3(), target, 2), 0);
    flush_all();
}

void group_smc(void)
{
    u64 gva = GVA(90, 1, 1, 1), frame = frame_alloc();
    map_page(gva, frame | PTE_RWU);
    check_own_stores(gva, frame);
    check_rewrites(gva, frame);
    check_remapped_code(gva);
    check_crossing_code(gva);
    check_caller_remapped(gva);
    check_code_and_table(gva);
}
