// What wide processors add in long mode: 5-level paging (LA57), process-context identifiers (PCID, INVPCID), MONITOR
// and MWAIT. What CPUID does not report is left out.
#include "verdict.h"

enum { CODE32_SEL = SPARE_SELECTOR, V_UD = 6, V_GP = 13, V_PF = 14, V_SS = 12 };
#define CR4_LA57  (1ull << 12)
#define CR4_PCIDE (1ull << 17)

static struct verdict verdict = {.guest = "wide"};
static struct probe p;
static u64 pml5[512] __attribute__((aligned(4096)));

// Leaves long mode, flips CR4.LA57, and comes back with CR3 = RDI. Interrupts are off.
void flip_la57(u64 root);
__asm__(".pushsection .text\n.globl flip_la57\nflip_la57:\n"
        "push %rbx\n push %rbp\n mov %rsp, %rbp\n"
        "push $0x40\n lea 1f(%rip), %rax\n push %rax\n lretq\n"
        ".code32\n1: mov $0x10, %eax\n mov %eax, %ss\n"
        "mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
        "mov %cr4, %ecx\n xor $0x1000, %ecx\n mov %ecx, %cr4\n mov %edi, %cr3\n"
        "or $0x80000000, %eax\n mov %eax, %cr0\n ljmp $8, $2f\n"
        ".code64\n2: mov %rbp, %rsp\n pop %rbp\n pop %rbx\n ret\n.popsection");

SNIPPET(read_rbx, "mov (%rbx), %rax");
SNIPPET(read_rsp, "mov %rbx, %rsp\n\tpop %rax");
SNIPPET(jump_rbx, "jmp *%rbx");
SNIPPET(write_cr4_rax, "mov %rax, %cr4");
SNIPPET(write_cr3_rax, "mov %rax, %cr3\n\tmov %cr3, %rax");
SNIPPET(wrmsr_any, "wrmsr");
SNIPPET(invpcid_rax_rbx, ".byte 0x66, 0x0f, 0x38, 0x82, 0x03");
SNIPPET(monitor_mwait, "monitor\n\tmov %rdx, (%rax)\n\tmov %rdi, %rcx\n\tmwait");
SNIPPET(monitor_only, "monitor");
SNIPPET(mwait_only, "mwait");

static void run(const void *code, u64 rax, u64 rbx, u64 rcx, unsigned cpl)
{
    probe_init(&p, code, cpl);
    p.in.rax = rax;
    p.in.rbx = rbx;
    p.in.rcx = rcx;
    probe_run(&p);
}

static void expect(u64 vector, u64 error, const char *what)
{
    bool ok = p.out.vector == vector && (vector == VECTOR_DONE || p.out.error == error);
    verdict_check(&verdict, ok, what);
    if (!ok)
        print("# vector %lu error 0x%lx\n", p.out.vector, p.out.error);
}

// ---- LA57 ----

static void with_four_levels(void)
{
    run(read_rbx, 0, 1ull << 50, 0, 0);
    expect(V_GP, 0, "48 bits: an address of 51 bits is not canonical");
    run(write_cr4_rax, read_cr4() | CR4_LA57, 0, 0, 0);
    expect(V_GP, 0, "CR4.LA57 cannot be set in long mode");
    run(wrmsr_any, 0, 0, 0xc0000100, 0);
    p.in.rdx = 1u << 18;
    probe_run(&p);
    expect(VECTOR_DONE, 0, "an MSR takes an address of 57 bits where the processor can have them");
    p.in.rdx = 1u << 24;
    probe_run(&p);
    expect(V_GP, 0, "but not of 58");
    write_msr(0xc0000100, 0);
}

static void with_five_levels(void)
{
    u64 pml4 = frame_alloc(), frame = frame_alloc();
    pml5[4] = pml4 | PTE_RWU;
    *pt_entry(pml4, 0, 1) = frame | PTE_RWU;
    *(u64 *)gpa_pointer(frame) = 0x5757575757575757;
    flush_all();
    run(read_rbx, 0, 1ull << 50, 0, 0);
    verdict_equal(&verdict, p.out.rax, 0x5757575757575757, "57 bits: a page at 1 << 50");
    run(read_rbx, 0, 1ull << 50, 0, 3);
    verdict_equal(&verdict, p.out.rax, 0x5757575757575757, "and for CPL 3");
    verdict_check(&verdict, (pml5[4] & PTE_A) != 0, "the PML5 entry was marked accessed");
    static const u64 canonical[] = {(1ull << 56) - 8, 0xff00ull << 48, 0xffffull << 48, 1ull << 55};
    static const u64 not_canonical[] = {1ull << 56, 0xfeffull << 48, 1ull << 57, 1ull << 63};
    for (unsigned n = 0; n < 4; n++) {
        run(read_rbx, 0, canonical[n], 0, 0);
        expect(V_PF, 0, "canonical and not present: #PF");
        verdict_equal(&verdict, p.cr2, canonical[n], "CR2 has 57 bits");
        run(read_rbx, 0, not_canonical[n], 0, 0);
        expect(V_GP, 0, "not canonical: #GP(0)");
        run(read_rsp, 0, not_canonical[n], 0, 0);
        expect(V_SS, 0, "not canonical, by the stack: #SS(0)");
        run(jump_rbx, 0, not_canonical[n], 0, 0);
        expect(V_GP, 0, "jump to it: #GP(0)");
        run(jump_rbx, 0, canonical[n], 0, 0);
        verdict_check(&verdict, p.out.vector == V_PF && p.out.rip == canonical[n],
                      "jump to the canonical one: #PF there");
    }
    run(read_rbx, 0, (1ull << 56) - 4, 0, 0);
    expect(V_GP, 0, "a read that leaves the canonical range");
    pml5[4] |= PTE_PS;
    flush_all();
    run(read_rbx, 0, 1ull << 50, 0, 0);
    expect(V_PF, 9, "PS in a PML5 entry is reserved");
    pml5[4] = pml4 | PTE_P | PTE_U;
    flush_all();
    run(read_rbx, 0, 1ull << 50, 0, 0);
    expect(VECTOR_DONE, 0, "read through a PML5 entry without W");
    pml5[4] = pml4 | PTE_P | PTE_W;
    flush_all();
    run(read_rbx, 0, 1ull << 50, 0, 3);
    expect(V_PF, 5, "CPL 3 through a PML5 entry without U");
    run(write_cr4_rax, read_cr4() & ~CR4_LA57, 0, 0, 0);
    expect(V_GP, 0, "CR4.LA57 cannot be cleared in long mode");
}

static void five_levels(void)
{
    if (!(cpuid_get(7, 0).ecx >> 16 & 1))
        return;
    with_four_levels();
    *gdt_entry(CODE32_SEL) = 0x00cf9b000000ffff;
    pml5[0] = (u64)boot_pml4 | PTE_RWU;
    flip_la57((u64)pml5);
    verdict_check(&verdict, (read_cr4() & CR4_LA57) != 0, "5-level paging is on");
    with_five_levels();
    flip_la57((u64)boot_pml4);
    verdict_check(&verdict, !(read_cr4() & CR4_LA57), "and off again");
    run(read_rbx, 0, 1ull << 50, 0, 0);
    expect(V_GP, 0, "48 bits again");
}

// ---- PCID ----

static void invpcid(u64 type, u64 low, u64 high, u64 vector, const char *what)
{
    static u64 descriptor[2] __attribute__((aligned(16)));
    descriptor[0] = low;
    descriptor[1] = high;
    run(invpcid_rax_rbx, type, (u64)descriptor, 0, 0);
    expect(vector, 0, what);
}

static void invpcid_forms(void)
{
    if (!(cpuid_get(7, 0).ebx >> 10 & 1))
        return;
    for (u64 type = 0; type < 4; type++)
        invpcid(type, 0, 0x1000, VECTOR_DONE, "INVPCID of types 0 to 3");
    invpcid(4, 0, 0, V_GP, "type 4");
    invpcid(1ull << 32, 0, 0, V_GP, "the type has 64 bits");
    invpcid(0, 1, 0, read_cr4() & CR4_PCIDE ? VECTOR_DONE : V_GP, "a PCID needs CR4.PCIDE, type 0");
    invpcid(1, 1, 0, read_cr4() & CR4_PCIDE ? VECTOR_DONE : V_GP, "a PCID needs CR4.PCIDE, type 1");
    invpcid(2, 0x1000, 0, V_GP, "reserved bits of the descriptor");
    invpcid(0, 0, 1ull << 60, V_GP, "an address that is not canonical");
    invpcid(1, 0, 1ull << 60, VECTOR_DONE, "which type 1 does not look at");
    run(invpcid_rax_rbx, 0, USER_STACK_TOP - 64, 0, 3);
    expect(V_GP, 0, "INVPCID at CPL 3");
}

// Pages of two PCIDs with different tables, switched with and without a flush; coherent or not, what is read is right.
static void two_spaces(void)
{
    u64 other = frame_alloc(), frames[2] = {frame_alloc(), frame_alloc()}, gva = GVA(5, 0, 0, 0);
    memcpy(gpa_pointer(other), boot_pml4, 4096);
    ((u64 *)gpa_pointer(other))[5] = 0;
    *pt_entry((u64)boot_pml4, gva, 1) = frames[0] | PTE_RWU;
    *pt_entry(other, gva, 1) = frames[1] | PTE_RWU;
    *(u64 *)gpa_pointer(frames[0]) = 0x1111;
    *(u64 *)gpa_pointer(frames[1]) = 0x2222;
    for (unsigned n = 0; n < 8; n++) {
        u64 keep = n >= 2 ? 1ull << 63 : 0;
        write_cr3((u64)boot_pml4 | 1 | keep);
        verdict_equal(&verdict, load64(gva), 0x1111, "PCID 1 sees its page");
        write_cr3(other | 2 | keep);
        verdict_equal(&verdict, load64(gva), 0x2222, "PCID 2 sees its own");
    }
    verdict_equal(&verdict, read_cr3(), other | 2, "CR3 does not keep bit 63");
    write_cr3((u64)boot_pml4);
}

static void contexts(void)
{
    invpcid_forms();
    if (!(cpuid_get(1, 0).ecx >> 17 & 1))
        return;
    run(write_cr3_rax, (u64)boot_pml4 | 1ull << 63, 0, 0, 0);
    expect(V_GP, 0, "bit 63 of CR3 without PCIDE");
    write_cr3((u64)boot_pml4 | 8);
    run(write_cr4_rax, read_cr4() | CR4_PCIDE, 0, 0, 0);
    expect(V_GP, 0, "CR4.PCIDE with low bits in CR3");
    write_cr3((u64)boot_pml4);
    run(write_cr4_rax, read_cr4() | CR4_PCIDE, 0, 0, 0);
    expect(VECTOR_DONE, 0, "CR4.PCIDE");
    invpcid_forms();
    two_spaces();
    write_cr4(read_cr4() & ~CR4_PCIDE);
}

// ---- MONITOR and MWAIT ----

static void monitor(void)
{
    static u64 line[16] __attribute__((aligned(64)));
    if (!(cpuid_get(1, 0).ecx >> 3 & 1))
        return;
    verdict_check(&verdict, (cpuid_get(5, 0).eax & 0xffff) == 64 && (cpuid_get(5, 0).ecx & 3) == 3, "leaf 5");
    run(monitor_mwait, (u64)line, 0, 0, 0);
    expect(VECTOR_DONE, 0, "a write between MONITOR and MWAIT ends the wait");
    run(mwait_only, 0, 0, 2, 0);
    expect(V_GP, 0, "MWAIT with an extension that does not exist");
    run(monitor_only, (u64)line, 0, 1, 0);
    expect(V_GP, 0, "MONITOR with an extension");
    run(monitor_only, 1ull << 60, 0, 0, 0);
    expect(V_GP, 0, "MONITOR of an address that is not canonical");
    run(monitor_only, GVA(9, 0, 0, 0), 0, 0, 0);
    expect(V_PF, 0, "MONITOR of a page that is not present");
    run(monitor_only, USER_STACK_TOP - 64, 0, 0, 3);
    verdict_check(&verdict, p.out.vector == V_UD, "MONITOR at CPL 3");
    run(mwait_only, 0, 0, 0, 3);
    verdict_check(&verdict, p.out.vector == V_UD, "MWAIT at CPL 3");
}

void guest_main(void)
{
    console_init();
    traps_init();
    paging_init();
    pic_init();
    five_levels();
    contexts();
    monitor();
    verdict_exit(&verdict);
}
