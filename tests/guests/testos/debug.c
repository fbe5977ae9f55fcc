// Single step, debug registers, SYSCALL and SYSRET.
#include "testos.h"

enum { DR6_B0 = 1, DR6_B1 = 2, DR6_BD = 1 << 13, DR6_BS = 1 << 14, DR6_CLEAR = 0xffff0ff0u };
#define DR7_CLEAR                 0x400ull
#define DR7(n, condition, length) (2ull << (n)*2 | (u64)(condition) << (16 + (n)*4) | (u64)(length) << (18 + (n)*4))
enum { DR7_EXECUTE = 0, DR7_WRITE = 1, DR7_ACCESS = 3, LENGTH_1 = 0, LENGTH_2 = 1, LENGTH_8 = 2, LENGTH_4 = 3 };

SNIPPET(dbg_nops, "nop\n" MARK("dbg_nops_2") "nop\n\tnop");
SNIPPET(dbg_jmp, "jmp 1f\n\tnop\n1:\n" MARK("dbg_jmp_target") "nop");
SNIPPET(dbg_popf, "popfq\n\tnop\n" MARK("dbg_popf_after") "nop");
SNIPPET(dbg_movsb, "rep movsb");
SNIPPET(dbg_mov_ss, "mov %eax, %ss\n\tnop\n" MARK("dbg_mov_ss_after") "nop");
SNIPPET(dbg_int81, "int $0x81");
SNIPPET(dbg_fault, "mov (%rdi), %rax");
SNIPPET(dbg_write, "nop\n\tmov %eax, (%rdi)\n" MARK("dbg_write_after") "nop");
SNIPPET(dbg_read, "mov (%rdi), %eax\n" MARK("dbg_read_after") "nop");
SNIPPET(dbg_stosb, "rep stosb");
SNIPPET(dbg_pushf, "pushfq\n" MARK("dbg_pushf_after") "popq %rax");
SNIPPET(dbg_mov_dr, "mov %rax, %dr7\n" MARK("dbg_mov_dr_read") "mov %dr0, %rbx");
SNIPPET(dbg_ud2, "ud2");
extern const char dbg_nops_2[], dbg_jmp_target[], dbg_popf_after[], dbg_mov_ss_after[], dbg_write_after[],
    dbg_read_after[], dbg_pushf_after[], dbg_mov_dr_read[];

static void check_debug(struct probe *p, const char *rip, unsigned cpl, u64 dr6, const char *what)
{
    write_dr6(DR6_CLEAR);
    probe_run(p);
    u64 got = read_dr6(), at = probe_address(rip, cpl);
    bool ok = p->out.vector == VEC_DB && p->out.rip == at && (got & (DR6_BS | DR6_BD | 15)) == dr6;
    check(ok, "%s, CPL %u: #DB at the right RIP, DR6 0x%lx", what, cpl, dr6);
    if (!ok)
        note("vector %lu rip 0x%lx (wanted 0x%lx) dr6 0x%lx", p->out.vector, p->out.rip, at, got);
}

static void step_probe(struct probe *p, const char *code, unsigned cpl)
{
    probe_init(p, code, cpl);
    p->in.rflags |= FLAG_TF;
}

static void check_single_step(unsigned cpl)
{
    struct probe p;
    step_probe(&p, dbg_nops, cpl);
    check_debug(&p, dbg_nops_2, cpl, DR6_BS, "single step of nop");
    check(p.out.rflags & FLAG_TF, "the frame has TF set");
    check(!(p.handler_flags & FLAG_TF), "the handler has TF clear");
    step_probe(&p, dbg_jmp, cpl);
    check_debug(&p, dbg_jmp_target, cpl, DR6_BS, "single step of jmp");
    probe_init(&p, dbg_popf, cpl);
    p.in.rsp -= 8;
    store64(p.in.rsp, FLAG_TF | 2);
    check_debug(&p, dbg_popf_after, cpl, DR6_BS, "popf that sets TF traps after the next instruction");
    step_probe(&p, dbg_pushf, cpl);
    check_debug(&p, dbg_pushf_after, cpl, DR6_BS, "single step of pushf");
    check(load64(p.out.rsp) & FLAG_TF, "pushf stores TF set");
    step_probe(&p, dbg_fault, cpl);
    p.in.rdi = TEST_GVA;
    check_probe(&p, page_fault(cpl == 3 ? PF_U : 0, TEST_GVA), "single step of a faulting load, CPL %u: #PF, no #DB",
                cpl);
    step_probe(&p, dbg_movsb, cpl);
    p.in.rdi = p.in.rsi = p.in.rsp - 0x100;
    p.in.rcx = 3;
    check_debug(&p, dbg_movsb, cpl, DR6_BS, "single step of rep movsb stops after each iteration");
    check_equal(p.out.rcx, 2, "one iteration was done");
    step_probe(&p, dbg_movsb, cpl);
    p.in.rdi = p.in.rsi = p.in.rsp - 0x100;
    p.in.rcx = 1;
    check_debug(&p, dbg_movsb + 2, cpl, DR6_BS, "single step of the last iteration stops after the instruction");
    step_probe(&p, dbg_mov_ss, cpl);
    p.in.rax = p.in.ss;
    check_debug(&p, dbg_mov_ss_after, cpl, DR6_BS, "mov to SS holds the trap back by one instruction");
    gate_set_dpl(0x81, 3);
    step_probe(&p, dbg_int81, cpl);
    struct expect wanted = exception(0x81, 0);
    wanted.rip = p.in.rip + 2;
    wanted.partial = true;
    check_probe(&p, wanted, "single step of int 0x81, CPL %u: no #DB before the handler's first instruction", cpl);
    gate_reset(0x81);
}

static void check_breakpoints(unsigned cpl)
{
    struct probe p;
    write_dr0(probe_address(dbg_nops_2, cpl));
    write_dr7(DR7_CLEAR | DR7(0, DR7_EXECUTE, LENGTH_1));
    probe_init(&p, dbg_nops, cpl);
    check_debug(&p, dbg_nops_2, cpl, DR6_B0, "instruction breakpoint");
    u64 flags = p.out.rflags;
    write_dr7(DR7_CLEAR);
    if (settings.strict)
        check(!(flags & FLAG_RF), "its frame has RF clear");
    u64 gva = USER_STACK_TOP - 0x800;
    write_dr1(gva);
    write_dr7(DR7_CLEAR | DR7(1, DR7_WRITE, LENGTH_4));
    probe_init(&p, dbg_write, cpl);
    p.in.rdi = gva;
    p.in.rax = 0xabcd;
    check_debug(&p, dbg_write_after, cpl, DR6_B1, "write watchpoint traps after the write");
    check_equal(*(volatile u32 *)gva, 0xabcd, "the write was made");
    probe_init(&p, dbg_read, cpl);
    p.in.rdi = gva;
    check_probe(&p, done(), "write watchpoint lets a read pass, CPL %u", cpl);
    probe_init(&p, dbg_write, cpl);
    p.in.rdi = gva + 4;
    check_probe(&p, done(), "a write beside it passes, CPL %u", cpl);
    probe_init(&p, dbg_stosb, cpl);
    p.in.rdi = gva - 4;
    p.in.rcx = 100;
    write_dr6(DR6_CLEAR);
    probe_run(&p);
    check(p.out.vector == VEC_DB && p.out.rip == p.in.rip && p.out.rdi == gva + 1,
          "rep stosb stops after the iteration that wrote, CPL %u", cpl);
    write_dr7(DR7_CLEAR | DR7(1, DR7_ACCESS, LENGTH_1));
    probe_init(&p, dbg_read, cpl);
    p.in.rdi = gva - 3;
    check_debug(&p, dbg_read_after, cpl, DR6_B1, "access watchpoint on the last byte of a read");
    write_dr7(DR7_CLEAR);
    probe_init(&p, dbg_write, cpl);
    p.in.rdi = gva;
    check_probe(&p, done(), "nothing happens with DR7 clear, CPL %u", cpl);
}

static void check_general_detect(void)
{
    struct probe p;
    probe_init(&p, dbg_mov_dr, 0);
    p.in.rax = DR7_CLEAR | 1u << 13;
    check_debug(&p, dbg_mov_dr_read, 0, DR6_BD, "general detect stops mov from DR0");
    write_dr7(DR7_CLEAR);
    probe_init(&p, dbg_mov_dr, 0);
    p.in.rax = DR7_CLEAR;
    check_probe(&p, done(), "and is off again");
}

// RF in the saved flags: SDM volume 3, 17.3.1.1.
static void check_resume_flag(void)
{
    struct probe p;
    probe_init(&p, dbg_ud2, 3);
    probe_run(&p);
    check(p.out.vector == VEC_UD && (p.out.rflags & FLAG_RF), "the frame of a fault has RF set");
    step_probe(&p, dbg_nops, 3);
    probe_run(&p);
    check(p.out.vector == VEC_DB && !(p.out.rflags & FLAG_RF), "the frame of a single-step trap has RF clear");
}

void group_debug(void)
{
    for (unsigned cpl = 0; cpl <= 3; cpl += 3)
        check_single_step(cpl);
    if (settings.strict)
        check_resume_flag();
    write_dr6(DR6_CLEAR);
}

static void check_breakpoint_resumes(void)
{
    struct probe p;
    write_dr0(probe_address(dbg_nops, 3));
    write_dr7(DR7_CLEAR | DR7(0, DR7_EXECUTE, LENGTH_1));
    probe_init(&p, dbg_nops, 3);
    p.in.rflags |= FLAG_RF;
    check_probe(&p, done(), "RF set by iretq passes an instruction breakpoint once");
    write_dr7(DR7_CLEAR);
}

void group_breakpoints(void)
{
    for (unsigned cpl = 0; cpl <= 3; cpl += 3)
        check_breakpoints(cpl);
    if (settings.strict) {
        check_general_detect();
        check_breakpoint_resumes();
    }
    write_dr6(DR6_CLEAR);
    write_dr7(DR7_CLEAR);
    check_equal(read_dr7(), DR7_CLEAR, "DR7 reads as after reset");
}

// ---- SYSCALL ------------------------------------------------------------------------------------------------------

enum { MSR_STAR = 0xc0000081, MSR_LSTAR = 0xc0000082, MSR_FMASK = 0xc0000084, MSR_GS_BASE = 0xc0000101 };
#define MSR_KERNEL_GS_BASE 0xc0000102u

SNIPPET(sys_syscall, "syscall\n" MARK("sys_syscall_after") "nop");
SNIPPET(sys_entry, "int $0x80");
SNIPPET(sys_round_trip_entry, "mov %rsp, %rbx\n\tpushq %rcx\n\tpop %rdx\n\tsysretq");
SNIPPET(sys_sysret, "sysretq");
SNIPPET(sys_swapgs, "swapgs\n\tmov %gs:0, %rax\n\tswapgs");
extern const char sys_syscall_after[];

static void check_syscall(void)
{
    struct probe p;
    u64 flags = 2 | FLAG_IF | FLAG_DF | 1;
    write_msr(MSR_LSTAR, (u64)sys_entry);
    write_msr(MSR_FMASK, FLAG_IF | FLAG_DF | FLAG_TF);
    probe_init(&p, sys_syscall, 3);
    p.in.rflags = flags & ~FLAG_IF;
    p.in.r11 = p.in.rcx = 0;
    u64 user_rsp = p.in.rsp;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.rip == (u64)sys_entry + 2, "syscall enters at LSTAR");
    check(p.out.cs == KERNEL_CS && p.out.ss == KERNEL_DS, "with the selectors of STAR");
    check_equal(p.out.rcx, probe_address(sys_syscall_after, 3), "RCX holds the return address");
    check_equal(p.out.r11, flags & ~FLAG_IF, "R11 holds RFLAGS");
    u64 carry = settings.strict ? 1 : 0; // TCG clears the status flags
    check_equal(p.out.rflags & (FLAG_DF | FLAG_IF | carry), carry, "FMASK clears its flags and leaves the others");
    check_equal(p.out.rsp, user_rsp, "RSP is not changed");

    write_msr(MSR_LSTAR, (u64)sys_round_trip_entry);
    probe_init(&p, sys_syscall, 3);
    p.in.rflags = flags & ~FLAG_IF;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.cs == USER_CS && p.out.ss == USER_DS, "sysret comes back to user mode");
    check_equal(p.out.rip, probe_address(sys_syscall_end, 3), "behind the syscall");
    check_equal(p.out.rflags & (FLAG_DF | 1), FLAG_DF | 1, "with the flags of R11");
    check_equal(p.out.rdx, probe_address(sys_syscall_after, 3), "the kernel used the user's stack");
}

static void check_sysret(void)
{
    struct probe p;
    probe_init(&p, sys_sysret, 0);
    p.in.rcx = probe_address(sys_entry, 3);
    p.in.r11 = 2 | 0x40;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.cs == USER_CS && p.out.ss == USER_DS &&
              p.out.rip == probe_address(sys_entry, 3) + 2 && (p.out.rflags & 0x40),
          "sysret from scratch: CS, SS, RIP, flags");
    if (settings.strict) {
        probe_init(&p, sys_sysret, 0);
        p.in.rcx = 1ull << 47;
        check_probe(&p, exception(VEC_GP, 0), "sysret to a non-canonical address faults at CPL 0");
    }
    u64 first = frame_alloc(), second = frame_alloc();
    store64(first, 1);
    store64(second, 2);
    write_msr(MSR_GS_BASE, first);
    write_msr(MSR_KERNEL_GS_BASE, second);
    probe_init(&p, sys_swapgs, 0);
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.rax == 2, "swapgs exchanges the GS bases");
    write_msr(MSR_GS_BASE, 0);
    write_msr(MSR_KERNEL_GS_BASE, 0);
}

void group_syscall(void)
{
    u64 efer = read_msr(MSR_EFER);
    struct probe p;
    write_msr(MSR_EFER, efer & ~EFER_SCE);
    probe_init(&p, sys_syscall, 3);
    check_probe(&p, exception(VEC_UD, 0), "syscall with EFER.SCE clear");
    write_msr(MSR_EFER, efer | EFER_SCE);
    write_msr(MSR_STAR, (u64)(USER_CS32 & ~3u) << 48 | (u64)KERNEL_CS << 32);
    check_syscall();
    check_sysret();
    write_msr(MSR_EFER, efer);
}
