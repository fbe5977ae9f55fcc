// Debug registers, single step, branch step, RF, INT1, shadows of MOV SS and STI, priorities of debug exceptions.
#include "../lib32/guest32.h"

static struct probe p;
static volatile u32 words[16] __attribute__((aligned(64)));

enum { BS = 0x4000, BD = 0x2000, DR6_ONES = 0xffff0ff0 };

static void write_drs(u32 at, u32 dr7)
{
    write_dr0(at);
    write_dr6(0);
    write_dr7(dr7 | 0x400);
}

static void stop(void)
{
    write_dr7(0x400);
}

// DR7 for breakpoint 0: enabled by bits (1 L, 2 G), kind (0 execute, 1 write, 2 I/O, 3 access), length code.
static u32 dr7(unsigned enable, unsigned kind, unsigned len)
{
    return enable | kind << 16 | len << 18;
}

static void expect_db(u32 eip, u32 bits, const char *what)
{
    u32 dr6 = read_dr6();
    stop();
    check_not_tcg(p.vector == V_DB && p.out.eip == eip && (dr6 & 0xe00f) == bits, "%s: vector %u EIP +%x DR6 %x", what,
                  p.vector, p.out.eip - p.in.eip, dr6);
}

// ---- single step ----

SNIPPET(step_nop, 32, "nop\n nop\n int $0x80");
SNIPPET(step_jmp, 32, "jmp 1f\n nop\n 1: nop\n int $0x80");
SNIPPET(step_rep, 32, "rep movsb\n nop\n int $0x80");
SNIPPET(step_popf, 32, "popf\n nop\n nop\n int $0x80");
SNIPPET(step_popf_set, 32, "popf\n nop\n nop\n int $0x80");
SNIPPET(step_int, 32, "int $0x80\n nop");
SNIPPET(step_int3, 32, "int3\n nop");
SNIPPET(step_ud, 32, "ud2\n nop");
SNIPPET(step_ss, 32, "mov %ss, %eax\n mov %eax, %ss\n nop\n nop\n int $0x80");
SNIPPET(step_pop_ss, 32, "push %ss\n pop %ss\n nop\n nop\n int $0x80");
SNIPPET(step_lss, 32, "lss (%ebx), %esp\n nop\n nop\n int $0x80");
SNIPPET(step_sti, 32, "sti\n nop\n nop\n cli\n int $0x80");
SNIPPET(step_int1, 32, ".byte 0xf1\n nop\n int $0x80");
SNIPPET(step_iret, 32, "iret\n");

static void run_step(const void *code, u32 flags)
{
    probe_init(&p, code, 0);
    p.in.eflags |= flags;
    p.in.esi = p.in.edi = p.in.ebx = (u32)words;
    p.in.ecx = 3;
    write_drs(0, 0);
    probe_run(&p);
}

static void single_step(void)
{
    run_step(step_nop, F_TF);
    expect_db((u32)step_nop + 1, BS, "TF: after one instruction");
    check_equal(p.out.eflags, F_TF | 2, "the frame has TF");
    check_equal(p.handler_flags & F_TF, 0, "the handler has not");
    run_step(step_jmp, F_TF);
    expect_db((u32)step_jmp + 3, BS, "TF: a jump");
    run_step(step_rep, F_TF);
    expect_db((u32)step_rep, BS, "TF: one iteration of REP");
    check_equal(p.out.ecx, 2, "two are left");
    probe_init(&p, step_popf, 0);
    p.in.esp -= 4;
    *(u32 *)p.in.esp = F_TF | 2;
    write_drs(0, 0);
    probe_run(&p);
    expect_db((u32)step_popf + 2, BS, "POPF that sets TF: after the next instruction");
    probe_init(&p, step_popf_set, 0);
    p.in.eflags |= F_TF;
    p.in.esp -= 4;
    *(u32 *)p.in.esp = 2;
    write_drs(0, 0);
    probe_run(&p);
    expect_db((u32)step_popf_set + 1, BS, "POPF that clears TF: still after itself");
    check_equal(p.out.eflags & F_TF, 0, "with TF clear in the frame");
    run_step(step_int, F_TF);
    check(p.vector == 0x80 && (p.out.eflags & F_TF), "INT n with TF: its handler, no trap");
    run_step(step_int3, F_TF);
    check(p.vector == V_BP && (p.out.eflags & F_TF), "INT3 with TF: its handler, no trap");
    run_step(step_ud, F_TF);
    check(p.vector == V_UD && p.out.eip == (u32)step_ud, "a fault with TF: the fault");
    run_step(step_ss, F_TF);
    expect_db((u32)step_ss + 2, BS, "TF: MOV from SS");
    probe_init(&p, step_ss + 2, 0);
    p.in.eax = KDS;
    p.in.eflags |= F_TF;
    write_drs(0, 0);
    probe_run(&p);
    expect_db((u32)step_ss + 5, BS, "TF: MOV SS holds the trap until after the next instruction");
    probe_init(&p, step_pop_ss + 1, 0);
    p.in.esp -= 4;
    *(u32 *)p.in.esp = KDS;
    p.in.eflags |= F_TF;
    write_drs(0, 0);
    probe_run(&p);
    expect_db((u32)step_pop_ss + 3, BS, "TF: POP SS holds it too");
    words[0] = (u32)probe_stack_top - 0x100;
    words[1] = KDS;
    run_step(step_lss, F_TF);
    expect_db((u32)step_lss + 3, BS, "TF: LSS does not");
    run_step(step_sti, F_TF);
    expect_db((u32)step_sti + 1, BS, "TF: STI does not");
    run_step(step_int1, 0);
    u32 dr6 = read_dr6();
    check_not_tcg(p.vector == V_DB && p.out.eip == (u32)step_int1 + 1, "INT1 is #DB behind itself");
    check_equal(dr6 & 0xe00f, 0, "and sets nothing in DR6");
    check_equal(p.out.eflags & F_RF, 0, "its frame has no RF");
    gate_default(V_DB);
    run_step(step_int1, F_TF);
    check_equal(read_dr6() & BS, 0, "INT1 with TF: no single step");
    probe_init(&p, step_iret, 0);
    p.in.esp -= 12;
    ((u32 *)p.in.esp)[0] = (u32)step_nop;
    ((u32 *)p.in.esp)[1] = KCS;
    ((u32 *)p.in.esp)[2] = F_TF | 2;
    write_drs(0, 0);
    probe_run(&p);
    expect_db((u32)step_nop + 1, BS, "IRET that sets TF: after the next instruction");
    probe_init(&p, step_nop, 3);
    p.in.eflags |= F_TF;
    write_drs(0, 0);
    probe_run(&p);
    expect_db((u32)step_nop + 1, BS, "TF at CPL 3");
}

// ---- branch step ----

SNIPPET(btf, 32, "nop\n xor %eax, %eax\n jnz 1f\n nop\n 1: jz 2f\n nop\n 2: nop\n int $0x80");
SNIPPET(btf_next, 32, "nop\n jmp 1f\n 1: nop\n int $0x80");
SNIPPET(btf_call, 32, "nop\n call 1f\n 1: nop\n int $0x80");

SNIPPET(read_lastbranch, 32, "rdmsr\n int $0x80");
static void set_debugctl(u32 value)
{
    __asm__ volatile("wrmsr" : : "c"(0x1d9), "a"(value), "d"(0));
}
static u32 get_debugctl(void)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0x1d9));
    return low;
}

static void branch_step(void)
{
    if (on_tcg()) // has no DEBUGCTL
        return;
    set_debugctl(2);
    if (!(get_debugctl() & 2))
        return;
    probe_init(&p, read_lastbranch, 0);
    p.in.ecx = 0x1db;
    probe_run(&p);
    set_debugctl(3);
    check((get_debugctl() & 1) == (p.vector == VECTOR_DONE), "DEBUGCTL.LBR can be set where there are branch records");
    set_debugctl(2);
    run_step(btf, F_TF);
    expect_db((u32)btf + 9, BS, "BTF: at the first branch that is taken");
    check_equal(get_debugctl() & 2, 0, "#DB clears BTF");
    set_debugctl(2);
    run_step(btf_next, F_TF);
    expect_db((u32)btf_next + 3, BS, "BTF: a jump to the next instruction");
    set_debugctl(2);
    run_step(btf_call, F_TF);
    expect_db((u32)btf_call + 6, BS, "BTF: a call");
    set_debugctl(0);
}

// ---- breakpoints ----

SNIPPET(bp_code, 32, "nop\n nop\n mov %eax, (%ebx)\n mov (%ebx), %eax\n incl (%ebx)\n int $0x80");
SNIPPET(bp_size, 32, "mov (%esi), %al\n int $0x80");
SNIPPET(bp_size4, 32, "mov %eax, (%esi)\n int $0x80");
SNIPPET(bp_rep, 32, "rep stosb\n int $0x80");
SNIPPET(bp_ss, 32, "mov (%ebx), %ss\n nop\n nop\n int $0x80");
SNIPPET(bp_push, 32, "push %eax\n push %eax\n push %eax\n push %eax\n int $0x80");
SNIPPET(bp_fault, 32, "mov (%ebx), %eax\n ud2");
SNIPPET(bp_io, 32, "in $0x80, %al\n nop\n int $0x80");
SNIPPET(bp_io_w, 32, "in %dx, %ax\n nop\n int $0x80");
SNIPPET(bp_int, 32, "int $0x80");

static void run_bp(const void *code, u32 at, u32 d7, u32 flags)
{
    probe_init(&p, code, 0);
    p.in.eflags |= flags;
    p.in.ebx = p.in.esi = p.in.edi = (u32)words;
    p.in.ecx = 4;
    words[0] = KDS;
    write_drs(at, d7);
    probe_run(&p);
}

static void execution(void)
{
    for (unsigned enable = 0; enable < 4; enable++) {
        run_bp(bp_code, (u32)bp_code + 1, dr7(enable, 0, 0), 0);
        if (enable) {
            expect_db((u32)bp_code + 1, 1, "execution breakpoint");
            check_equal(p.out.eflags & F_RF, 0, "its frame has no RF set by it");
        } else {
            check_equal(p.vector, 0x80, "disabled breakpoint");
        }
    }
    run_bp(bp_code, (u32)bp_code, dr7(1, 0, 0), F_RF);
    check_equal(p.vector, 0x80, "RF lets one instruction pass");
    run_bp(bp_code, (u32)bp_code + 1, dr7(1, 0, 0), F_RF);
    expect_db((u32)bp_code + 1, 1, "RF lets one instruction pass, not the second");
    run_bp(bp_code, (u32)bp_code + 1, dr7(1, 0, 0), F_TF);
    expect_db((u32)bp_code + 1, BS, "single step before a breakpoint: BS first");
    run_bp(bp_code, (u32)bp_code + 3, dr7(1, 0, 0), 0);
    check_equal(p.vector, 0x80, "a breakpoint in the middle of an instruction");
    run_bp(bp_int, (u32)bp_int, dr7(1, 0, 0), 0);
    expect_db((u32)bp_int, 1, "breakpoint at INT n comes first");
    run_bp(step_ud, (u32)step_ud, dr7(1, 0, 0), 0);
    expect_db((u32)step_ud, 1, "breakpoint comes before #UD");
    stop();
}

static void data(void)
{
    run_bp(bp_code, (u32)words, dr7(1, 1, 3), 0);
    expect_db((u32)bp_code + 4, 1, "write breakpoint: behind the write");
    check_equal(p.out.eflags & F_RF, 0, "no RF");
    run_bp(bp_code + 4, (u32)words, dr7(1, 1, 3), 0);
    expect_db((u32)bp_code + 8, 1, "write breakpoint: not for the read, for the read-modify-write");
    run_bp(bp_code + 4, (u32)words, dr7(1, 3, 3), 0);
    expect_db((u32)bp_code + 6, 1, "access breakpoint: for the read");
    run_bp(bp_code, (u32)words, dr7(1, 3, 3), F_TF);
    expect_db((u32)bp_code + 1, BS, "TF first");
    run_bp(bp_code + 2, (u32)words, dr7(1, 1, 3), F_TF);
    expect_db((u32)bp_code + 4, BS | 1, "write breakpoint with TF: both bits");
    for (unsigned off = 0; off < 8; off++) {
        static const u8 lens[] = {1, 2, 0, 4};
        for (unsigned code = 0; code < 4; code++) {
            if (code == 2)
                continue;
            probe_init(&p, bp_size, 0);
            p.in.esi = (u32)words + off;
            write_drs((u32)words + 4, dr7(1, 3, code));
            probe_run(&p);
            bool hit = off >= 4 && off < 4u + lens[code];
            stop();
            check(p.vector == (hit ? V_DB : 0x80u), "byte at %u, breakpoint of %u bytes at 4", off, lens[code]);
        }
        probe_init(&p, bp_size4, 0);
        p.in.esi = (u32)words + off;
        write_drs((u32)words + 4, dr7(1, 1, 0));
        probe_run(&p);
        stop();
        check_not_tcg(p.vector == (off >= 1 && off <= 4 ? V_DB : 0x80u),
                      "doubleword at %u, breakpoint of one byte at 4", off);
    }
    run_bp(bp_rep, (u32)words + 2, dr7(1, 1, 0), 0);
    u32 dr6 = read_dr6();
    stop();
    check(p.vector == V_DB && p.out.eip == (u32)bp_rep && p.out.ecx == 1 && (dr6 & 1),
          "REP STOSB: after that iteration");
    run_bp(bp_ss, (u32)words, dr7(1, 3, 3), 0);
    expect_db((u32)bp_ss + 3, 1, "MOV SS from a watched place: after the next instruction");
    probe_init(&p, bp_push, 0);
    write_drs(p.in.esp - 16, dr7(1, 1, 3)); // below where the probe's own frame lay
    probe_run(&p);
    expect_db((u32)bp_push + 4, 1, "PUSH");
    run_bp(bp_fault, (u32)words, dr7(1, 3, 3), 0);
    expect_db((u32)bp_fault + 2, 1, "the trap comes before the next instruction's fault");
}

static void input_output(void)
{
    write_cr4(read_cr4() | 8);
    run_bp(bp_io, 0x80, dr7(1, 2, 0), 0);
    expect_db((u32)bp_io + 2, 1, "I/O breakpoint with CR4.DE");
    probe_init(&p, bp_io_w, 0);
    p.in.edx = 0x80;
    write_drs(0x81, dr7(1, 2, 0));
    probe_run(&p);
    expect_db((u32)bp_io_w + 2, 1, "I/O of a word that meets it");
    run_bp(bp_io, 0x81, dr7(1, 2, 0), 0);
    stop();
    check_equal(p.vector, 0x80, "another port");
    write_cr4(read_cr4() & ~8u);
}

// ---- the registers ----

SNIPPET(read_4, 32, ".byte 0x0f, 0x21, 0xe0\n int $0x80");
SNIPPET(read_0, 32, "mov %dr0, %eax\n int $0x80");
SNIPPET(write_0, 32, "nop\n mov %eax, %dr0\n int $0x80");

static void registers(void)
{
    write_dr6(0xffffffff);
    check_equal(read_dr6() & 0xffff0ff0, DR6_ONES, "DR6 with ones: fixed ones");
    check_not_tcg((read_dr6() & 0x1000) == (0), "bit 12 is 0");
    write_dr6(0);
    check_equal(read_dr6(), DR6_ONES, "DR6 with zeros");
    write_dr7(0x400);
    check_equal(read_dr7(), 0x400, "DR7 with nothing");
    write_dr7(0x4300);
    check_not_tcg((read_dr7() & 0xd700) == (0x700), "DR7: bit 10 is 1, bits 12, 14 and 15 are 0");
    stop();
    for (unsigned de = 0; de < 2; de++) {
        write_cr4((read_cr4() & ~8u) | de << 3);
        RUN(&p, read_4, 0);
        check_equal(p.vector, de ? V_UD : 0x80, "DR4 with CR4.DE %u", de);
        if (!de)
            check_equal(p.out.eax, read_dr6(), "it is DR6");
    }
    write_cr4(read_cr4() & ~8u);
    RUN(&p, read_0, 3);
    check(p.vector == V_GP && p.error == 0, "MOV from DR0 at CPL 3 is #GP(0)");
    write_dr6(0);
    write_dr7(0x2400);
    RUN(&p, write_0 + 1, 0);
    u32 dr6 = read_dr6();
    check_not_tcg(p.vector == V_DB && p.out.eip == (u32)write_0 + 1 && (dr6 & BD), "general detect is a fault with BD");
    check_not_tcg((read_dr7() & 0x2000) == (0), "it clears GD");
    RUN(&p, write_0 + 1, 0);
    check_equal(p.vector, 0x80, "then the access is allowed");
    write_dr1((u32)bp_code + 1);
    run_bp(bp_code, (u32)bp_code + 1, dr7(1, 0, 0) | 4, 0);
    expect_db((u32)bp_code + 1, 3, "two breakpoints at one place");
}

void guest_main(void)
{
    single_step();
    branch_step();
    execution();
    data();
    input_output();
    registers();
    finish("debugging");
}
