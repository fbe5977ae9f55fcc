// Exceptions raised by instructions, with vector, error code and RIP; what user mode may not do.
#include "testos.h"

#define NONCANONICAL 0x0000800000000000ull

SNIPPET(exc_div, "div %rcx");
SNIPPET(exc_div8, "div %cl");
SNIPPET(exc_div32, "div %ecx");
SNIPPET(exc_idiv, "idiv %rcx");
SNIPPET(exc_idiv32, "idiv %ecx");
SNIPPET(exc_int3, "int3");
SNIPPET(exc_ud2, "ud2");
SNIPPET(exc_into, ".byte 0xce");
SNIPPET(exc_push_es, ".byte 0x06");
SNIPPET(exc_pusha, ".byte 0x60");
SNIPPET(exc_aam, ".byte 0xd4, 0x0a");
SNIPPET(exc_daa, ".byte 0x27");
SNIPPET(exc_far_call, ".byte 0x9a, 0, 0, 0, 0, 8, 0");
SNIPPET(exc_les, ".byte 0xc4, 0x07");
SNIPPET(exc_lock_mov, ".byte 0xf0, 0x48, 0x89, 0x07");
SNIPPET(exc_lock_add_reg, ".byte 0xf0, 0x48, 0x01, 0xc0");
SNIPPET(exc_lock_cmp, ".byte 0xf0, 0x48, 0x39, 0x07");
SNIPPET(exc_lock_nop, ".byte 0xf0, 0x90");
SNIPPET(exc_mov_cs, ".byte 0x8e, 0xc8");
SNIPPET(exc_mov_cr1, ".byte 0x0f, 0x20, 0xc8");
SNIPPET(exc_mov_cr5, ".byte 0x0f, 0x22, 0xe8");
SNIPPET(exc_lea_reg, ".byte 0x48, 0x8d, 0xc0");
SNIPPET(exc_ff7, ".byte 0xff, 0xf8");
SNIPPET(exc_group8, ".byte 0x0f, 0xba, 0xc0, 0x01");
SNIPPET(exc_mov_seg6, ".byte 0x8c, 0xf0");
SNIPPET(exc_read_ds, "mov (%rdi), %rax");
SNIPPET(exc_write_ds, "mov %rax, (%rdi)");
SNIPPET(exc_read_sp, "mov (%rsp), %rax");
SNIPPET(exc_read_bp, "mov (%rbp), %rax");
SNIPPET(exc_push, "push %rax");
SNIPPET(exc_pop, "pop %rax");
SNIPPET(exc_call, "call .");
SNIPPET(exc_ret, "ret");
SNIPPET(exc_jmp_rax, "jmp *%rax");
SNIPPET(exc_call_rax, "call *%rax");
SNIPPET(exc_movsb, "rep movsb");
SNIPPET(exc_wrmsr, "wrmsr");
SNIPPET(exc_rdmsr, "rdmsr");
SNIPPET(exc_mov_to_cr0, "mov %rax, %cr0");
SNIPPET(exc_mov_to_cr3, "mov %rax, %cr3");
SNIPPET(exc_mov_to_cr4, "mov %rax, %cr4");
SNIPPET(exc_mov_to_cr8, "mov %rax, %cr8");
SNIPPET(exc_mov_to_dr6, "mov %rax, %dr6");
SNIPPET(exc_mov_to_dr7, "mov %rax, %dr7");
SNIPPET(exc_lgdt, "lgdt (%rdi)");
SNIPPET(exc_lidt_sp, "lidt (%rsp)");
SNIPPET(exc_fxsave, "fxsave64 (%rdi)");
SNIPPET(exc_long,
        ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90");
SNIPPET(exc_fifteen, ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90");

struct exc_case {
    const char *name, *code;
    unsigned cpl, vector;
    u64 error;
    int rip_offset;
    u64 rax, rcx, rdx, rdi;
    u64 rsp; // 0: the default
    bool strict;
};

static const struct exc_case cases[] = {
    {"div by 0", exc_div, 0, VEC_DE, 0, 0, 1, 0, 0, 0, 0, false},
    {"div by 0 in user mode", exc_div, 3, VEC_DE, 0, 0, 1, 0, 0, 0, 0, false},
    {"8-bit div that overflows", exc_div8, 3, VEC_DE, 0, 0, 0x200, 2, 0, 0, 0, false},
    {"32-bit div that overflows", exc_div32, 3, VEC_DE, 0, 0, 0, 5, 5, 0, 0, false},
    {"64-bit div that overflows", exc_div, 3, VEC_DE, 0, 0, 0, 5, 5, 0, 0, false},
    {"64-bit div that just fits", exc_div, 3, VECTOR_DONE, 0, 0, 0, 5, 4, 0, 0, false},
    {"idiv by 0", exc_idiv, 0, VEC_DE, 0, 0, 1, 0, 0, 0, 0, false},
    {"idiv of the least number by -1", exc_idiv, 0, VEC_DE, 0, 0, 1ull << 63, ~0ull, ~0ull, 0, 0, false},
    {"32-bit idiv of the least number by -1", exc_idiv32, 3, VEC_DE, 0, 0, 1u << 31, ~0u, ~0u, 0, 0, false},
    {"int3", exc_int3, 0, VEC_BP, 0, 1, 0, 0, 0, 0, 0, false},
    {"int3 in user mode", exc_int3, 3, VEC_BP, 0, 1, 0, 0, 0, 0, 0, false},
    {"ud2", exc_ud2, 0, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"ud2 in user mode", exc_ud2, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"into in 64-bit mode", exc_into, 0, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"push es in 64-bit mode", exc_push_es, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"pusha in 64-bit mode", exc_pusha, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"aam in 64-bit mode", exc_aam, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"daa in 64-bit mode", exc_daa, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"direct far call in 64-bit mode", exc_far_call, 0, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"lock mov", exc_lock_mov, 3, VEC_UD, 0, 0, 0, 0, 0, USER_STACK_TOP - 0x800, 0, true},
    {"lock add to a register", exc_lock_add_reg, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"lock cmp", exc_lock_cmp, 3, VEC_UD, 0, 0, 0, 0, 0, USER_STACK_TOP - 0x800, 0, false},
    {"lock nop", exc_lock_nop, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"mov to cs", exc_mov_cs, 0, VEC_UD, 0, 0, KERNEL_CS, 0, 0, 0, 0, false},
    {"mov from cr1", exc_mov_cr1, 0, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"mov to cr5", exc_mov_cr5, 0, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"lea of a register", exc_lea_reg, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"opcode FF /7", exc_ff7, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"opcode 0F BA /0", exc_group8, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"mov from segment register 6", exc_mov_seg6, 3, VEC_UD, 0, 0, 0, 0, 0, 0, 0, false},
    {"instruction of 16 bytes", exc_long, 3, VEC_GP, 0, 0, 0, 0, 0, 0, 0, false},
    {"instruction of 15 bytes", exc_fifteen, 3, VECTOR_DONE, 0, 0, 0, 0, 0, 0, 0, false},
    {"read of a non-canonical address", exc_read_ds, 0, VEC_GP, 0, 0, 0, 0, 0, NONCANONICAL, 0, false},
    {"read of a non-canonical address in user mode", exc_read_ds, 3, VEC_GP, 0, 0, 0, 0, 0, NONCANONICAL, 0, false},
    {"write to a non-canonical address", exc_write_ds, 0, VEC_GP, 0, 0, 0, 0, 0, 1ull << 63, 0, false},
    {"write to the last non-canonical address", exc_write_ds, 3, VEC_GP, 0, 0, 0, 0, 0, 0xffff7ffffffffff0, 0, false},
    {"rep movsb from a non-canonical address", exc_movsb, 3, VEC_GP, 0, 0, 0, 5, 0, USER_STACK_TOP - 0x800, 0, false},
    {"rep movsb of no bytes", exc_movsb, 3, VECTOR_DONE, 0, 0, 0, 0, 0, NONCANONICAL, 0, false},
    {"push on a non-canonical stack", exc_push, 0, VEC_SS, 0, 0, 0, 0, 0, 0, NONCANONICAL + 8, true},
    {"push on a non-canonical stack in user mode", exc_push, 3, VEC_SS, 0, 0, 0, 0, 0, 0, NONCANONICAL + 8, true},
    {"pop from a non-canonical stack", exc_pop, 3, VEC_SS, 0, 0, 0, 0, 0, 0, NONCANONICAL, true},
    {"call on a non-canonical stack", exc_call, 3, VEC_SS, 0, 0, 0, 0, 0, 0, NONCANONICAL + 8, true},
    {"ret on a non-canonical stack", exc_ret, 3, VEC_SS, 0, 0, 0, 0, 0, 0, NONCANONICAL, true},
    {"read through a non-canonical rsp", exc_read_sp, 3, VEC_SS, 0, 0, 0, 0, 0, 0, NONCANONICAL, true},
    {"jmp to a non-canonical address", exc_jmp_rax, 3, VEC_GP, 0, 0, NONCANONICAL, 0, 0, 0, 0, true},
    {"call of a non-canonical address", exc_call_rax, 3, VEC_GP, 0, 0, NONCANONICAL, 0, 0, 0, 0, true},
    {"rdmsr of an unknown register", exc_rdmsr, 0, VEC_GP, 0, 0, 0, 0x12345678, 0, 0, 0, true},
    {"wrmsr of an unknown register", exc_wrmsr, 0, VEC_GP, 0, 0, 0, 0x12345678, 0, 0, 0, true},
    {"wrmsr of a non-canonical FS base", exc_wrmsr, 0, VEC_GP, 0, 0, 0, 0xc0000100, 0x1000000, 0, 0, true},
    {"wrmsr of a reserved EFER bit", exc_wrmsr, 0, VEC_GP, 0, 0, 0xd00, 0xc0000080, 0x80000000, 0, 0, true},
    {"wrmsr that clears EFER.LME under paging", exc_wrmsr, 0, VEC_GP, 0, 0, 0x800, 0xc0000080, 0, 0, 0, true},
    {"cr0: PG without PE", exc_mov_to_cr0, 0, VEC_GP, 0, 0, 0x80000010, 0, 0, 0, 0, true},
    {"cr0: NW without CD", exc_mov_to_cr0, 0, VEC_GP, 0, 0, 0xa0010011, 0, 0, 0, 0, true},
    {"cr0: upper half", exc_mov_to_cr0, 0, VEC_GP, 0, 0, 0x180010011, 0, 0, 0, 0, true},
    {"cr3: reserved upper bits", exc_mov_to_cr3, 0, VEC_GP, 0, 0, 1ull << 62, 0, 0, 0, 0, true},
    {"cr4: reserved bit 31", exc_mov_to_cr4, 0, VEC_GP, 0, 0, 0x80000020, 0, 0, 0, 0, true},
    {"cr4: upper half", exc_mov_to_cr4, 0, VEC_GP, 0, 0, 0x100000020, 0, 0, 0, 0, true},
    {"cr4: PAE cleared in long mode", exc_mov_to_cr4, 0, VEC_GP, 0, 0, 0, 0, 0, 0, 0, true},
    {"cr8: reserved bits", exc_mov_to_cr8, 0, VEC_GP, 0, 0, 16, 0, 0, 0, 0, true},
    {"dr7: upper half", exc_mov_to_dr7, 0, VEC_GP, 0, 0, 1ull << 32, 0, 0, 0, 0, true},
    {"dr6: upper half", exc_mov_to_dr6, 0, VEC_GP, 0, 0, 1ull << 32, 0, 0, 0, 0, true},
    {"lgdt from a non-canonical address", exc_lgdt, 0, VEC_GP, 0, 0, 0, 0, 0, NONCANONICAL, 0, false},
    {"fxsave to an address that is not aligned", exc_fxsave, 0, VEC_GP, 0, 0, 0, 0, 0, LARGE_FRAME_A + 8, 0, true},
};

void group_exceptions(void)
{
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct exc_case *c = &cases[i];
        if (c->strict && !settings.strict)
            continue;
        struct probe p;
        probe_init(&p, c->code, c->cpl);
        p.in.rax = c->rax;
        p.in.rcx = c->rcx;
        p.in.rdx = c->rdx;
        p.in.rdi = c->rdi;
        p.in.rsi = NONCANONICAL;
        if (c->rsp)
            p.in.rsp = c->rsp;
        struct expect wanted = exception(c->vector, c->error);
        if (c->vector != VECTOR_DONE)
            wanted.rip = p.in.rip + (u64)(long)c->rip_offset;
        wanted.partial = c->rip_offset != 0;
        check_probe(&p, wanted, "%s", c->name);
    }
    __asm__ volatile("mov %0, %%cr2" : : "r"(0x123456789000ull));
    struct probe p;
    probe_init(&p, exc_ud2, 3);
    probe_run(&p);
    check_equal(read_cr2(), 0x123456789000, "CR2 holds what was written and #UD leaves it alone");
    probe_init(&p, exc_read_ds, 3);
    p.in.rdi = NONCANONICAL;
    probe_run(&p);
    check_equal(read_cr2(), 0x123456789000, "#GP of a non-canonical address leaves CR2 alone");
    if (settings.strict) {
        probe_init(&p, exc_read_bp, 3);
        p.in.rbp = NONCANONICAL;
        check_probe(&p, exception(VEC_SS, 0), "read through a non-canonical rbp");
        probe_init(&p, exc_lidt_sp, 0);
        p.in.rsp = NONCANONICAL;
        check_probe(&p, exception(VEC_SS, 0), "lidt from a non-canonical rsp");
    }
}

// ---- privilege ----------------------------------------------------------------------------------------------------

SNIPPET(priv_hlt, "hlt");
SNIPPET(priv_cli, "cli");
SNIPPET(priv_sti, "sti");
SNIPPET(priv_inb, "inb $0x80, %al");
SNIPPET(priv_outb, "outb %al, $0x80");
SNIPPET(priv_inl_dx, "inl %dx, %eax");
SNIPPET(priv_outsb, "outsb");
SNIPPET(priv_insb, "rep insb");
SNIPPET(priv_lgdt, "lgdt (%rdi)");
SNIPPET(priv_lidt, "lidt (%rdi)");
SNIPPET(priv_lldt, "lldt %ax");
SNIPPET(priv_ltr, "ltr %ax");
SNIPPET(priv_clts, "clts");
SNIPPET(priv_lmsw, "lmsw %ax");
SNIPPET(priv_invlpg, "invlpg (%rdi)");
SNIPPET(priv_wbinvd, "wbinvd");
SNIPPET(priv_invd, "invd");
SNIPPET(priv_read_cr0, "mov %cr0, %rax");
SNIPPET(priv_read_cr2, "mov %cr2, %rax");
SNIPPET(priv_read_cr3, "mov %cr3, %rax");
SNIPPET(priv_read_cr4, "mov %cr4, %rax");
SNIPPET(priv_read_dr7, "mov %dr7, %rax");
SNIPPET(priv_write_dr0, "mov %rax, %dr0");
SNIPPET(priv_rdmsr, "rdmsr");
SNIPPET(priv_swapgs, "swapgs");
SNIPPET(priv_sysret, "sysretq");
SNIPPET(priv_rdtsc, "rdtsc");
SNIPPET(priv_popf, "popfq\n\tpushfq\n\tpopq %rax");

static const struct {
    const char *name, *code;
} privileged[] = {
    {"hlt", priv_hlt},
    {"cli", priv_cli},
    {"sti", priv_sti},
    {"in", priv_inb},
    {"out", priv_outb},
    {"in from dx", priv_inl_dx},
    {"outsb", priv_outsb},
    {"rep insb", priv_insb},
    {"lgdt", priv_lgdt},
    {"lidt", priv_lidt},
    {"lldt", priv_lldt},
    {"ltr", priv_ltr},
    {"clts", priv_clts},
    {"lmsw", priv_lmsw},
    {"invlpg", priv_invlpg},
    {"wbinvd", priv_wbinvd},
    {"invd", priv_invd},
    {"mov from cr0", priv_read_cr0},
    {"mov from cr2", priv_read_cr2},
    {"mov from cr3", priv_read_cr3},
    {"mov from cr4", priv_read_cr4},
    {"mov to cr0", exc_mov_to_cr0},
    {"mov to cr3", exc_mov_to_cr3},
    {"mov to cr4", exc_mov_to_cr4},
    {"mov to cr8", exc_mov_to_cr8},
    {"mov from dr7", priv_read_dr7},
    {"mov to dr0", priv_write_dr0},
    {"rdmsr", priv_rdmsr},
    {"wrmsr", exc_wrmsr},
    {"swapgs", priv_swapgs},
};

static void check_io_permission(void)
{
    struct probe p;
    tss_allow_port(0x80, true);
    probe_init(&p, priv_outb, 3);
    check_probe(&p, done(), "out to a port that the I/O bitmap allows");
    probe_init(&p, priv_inl_dx, 3);
    p.in.rdx = 0x80;
    check_probe(&p, exception(VEC_GP, 0), "a 4-byte in of which the bitmap allows one byte");
    probe_init(&p, priv_inl_dx, 3);
    p.in.rdx = 0x1000;
    check_probe(&p, exception(VEC_GP, 0), "a port beyond the TSS limit");
    tss_allow_port(0x80, false);
    probe_init(&p, priv_outb, 3);
    check_probe(&p, exception(VEC_GP, 0), "out to the port that is denied again");
    probe_init(&p, priv_outb, 3);
    p.in.rflags |= 3 << 12;
    check_probe(&p, done(), "out with IOPL 3");
    probe_init(&p, priv_cli, 3);
    p.in.rflags |= 3 << 12;
    check_probe(&p, done(), "cli with IOPL 3");
}

static void check_user_flags(void)
{
    struct probe p;
    probe_init(&p, priv_popf, 3);
    p.in.rsp -= 8;
    store64(p.in.rsp, 0x2 | FLAG_IF | 3 << 12 | 1);
    check_probe(&p, done(), "popf in user mode with IF and IOPL set");
    check_equal(p.out.rax & (FLAG_IF | 3 << 12 | 1), 1, "it changes the carry flag only");
    u64 cr4 = read_cr4();
    probe_init(&p, priv_rdtsc, 3);
    check_probe(&p, done(), "rdtsc in user mode, CR4.TSD=0");
    write_cr4(cr4 | CR4_TSD);
    probe_init(&p, priv_rdtsc, 3);
    check_probe(&p, exception(VEC_GP, 0), "rdtsc in user mode, CR4.TSD=1");
    probe_init(&p, priv_rdtsc, 0);
    check_probe(&p, done(), "rdtsc at CPL 0, CR4.TSD=1");
    write_cr4(cr4);
}

void group_privilege(void)
{
    struct probe p;
    for (unsigned i = 0; i < sizeof privileged / sizeof privileged[0]; i++) {
        probe_init(&p, privileged[i].code, 3);
        p.in.rax = read_cr0();
        p.in.rcx = MSR_EFER;
        p.in.rdx = 0x80;
        p.in.rdi = p.in.rsi = USER_STACK_TOP - 0x800;
        check_probe(&p, exception(VEC_GP, 0), "%s in user mode", privileged[i].name);
    }
    u64 efer = read_msr(MSR_EFER);
    write_msr(MSR_EFER, efer | EFER_SCE);
    probe_init(&p, priv_sysret, 3);
    check_probe(&p, exception(VEC_GP, 0), "sysret in user mode");
    write_msr(MSR_EFER, efer & ~EFER_SCE);
    probe_init(&p, priv_sysret, 3);
    check_probe(&p, exception(VEC_UD, 0), "sysret with EFER.SCE clear");
    write_msr(MSR_EFER, efer);
    check_io_permission();
    check_user_flags();
}
