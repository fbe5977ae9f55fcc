// Hardware task switches: JMP, CALL, IRET, task gates from instructions, interrupts and exceptions; both forms of TSS;
// what is saved, loaded and marked; faults before the switch (the old task's) and after it (the new task's).
#include "../lib32/guest32.h"

struct tss16 {
    u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
} __attribute__((packed));

enum {
    SEL_A = SPARE,       // 32-bit TSS
    SEL_B = SPARE + 8,   // another
    SEL_16 = SPARE + 16, // 16-bit TSS
    SEL_GATE = SPARE + 24,
    SEL_LDT = SPARE + 32,
    SEL_TEST = SPARE + 40,
    SEL_CODE16 = SPARE + 48,
    SEL_STACK16 = SPARE + 56
};

static struct tss32 a, b;
static struct tss16 t16;
static u8 stack_a[2048] __attribute__((aligned(16))), stack_b[2048] __attribute__((aligned(16)));
static u64 ldt[4];
static struct probe p;

SNIPPET(in_task, 32, "int $0x80");
SNIPPET(in_task_iret, 32, "mov $0x12345678, %ebx\n iret\n mov $0x11111111, %ecx\n int $0x80");
SNIPPET(jmp_a, 32, "ljmp $0x40, $0\n int $0x80");
SNIPPET(jmp_a_user, 32, "ljmp $0x43, $0\n int $0x80");
SNIPPET(call_a, 32, "lcall $0x40, $0\n int $0x80");
SNIPPET(jmp_16, 32, "ljmp $0x50, $0\n int $0x80");
SNIPPET(call_16, 32, "lcall $0x50, $0\n int $0x80");
SNIPPET(jmp_gate, 32, "ljmp $0x58, $0\n int $0x80");
SNIPPET(call_gate, 32, "lcall $0x58, $0\n int $0x80");
SNIPPET(call_gate_user, 32, "lcall $0x5b, $0\n int $0x80");
SNIPPET(jmp_ldt, 32, "ljmp $0x44, $0\n int $0x80");
SNIPPET(int_60, 32, "int $0x60\n int $0x80");
SNIPPET(do_ud, 32, "ud2\n int $0x80");
SNIPPET(do_gp, 32, "mov %ax, %ds\n int $0x80");
SNIPPET(do_iret, 32, "iret\n int $0x80");
SNIPPET(in_task16, 32, "int $0x80");

static void setup(void)
{
    memset(&a, 0, sizeof a);
    memset(&t16, 0, sizeof t16);
    a.esp0 = (u32)trap_stack_top;
    a.ss0 = KDS;
    a.eip = (u32)in_task;
    a.eflags = 2;
    a.eax = 0xa0, a.ecx = 0xa1, a.edx = 0xa2, a.ebx = 0xa3, a.ebp = 0xa5, a.esi = 0xa6, a.edi = 0xa7;
    a.esp = (u32)stack_a + sizeof stack_a;
    a.cs = KCS;
    a.ss = a.ds = a.es = a.fs = a.gs = KDS;
    a.io_map = 0xffff;
    b = a;
    b.esp = (u32)stack_b + sizeof stack_b;
    gdt_set(SEL_A, descriptor((u32)&a, 0x67, A_TSS32, 0));
    gdt_set(SEL_B, descriptor((u32)&b, 0x67, A_TSS32, 0));
    gdt_set(SEL_16, descriptor((u32)&t16, 0x2b, A_TSS16, 0));
    gdt_set(SEL_GATE, gate(SEL_A, 0, 0x85, 0));
    gdt_set(SEL_LDT, descriptor((u32)ldt, sizeof ldt - 1, 0x82, 0));
    gdt_set(SEL_CODE16, descriptor((u32)in_task16, 0xffff, A_CODE, SIZE32));
    t16.sp0 = 0x8000;
    t16.ss0 = KDS;
    t16.flags = 2;
    t16.ax = 0x6a, t16.cx = 0x6b, t16.dx = 0x6c, t16.bx = 0x6d, t16.sp = LOW_SP, t16.bp = 0x6e, t16.si = 0x6f,
    t16.di = 0x70;
    t16.cs = SEL_CODE16;
    gdt_set(SEL_STACK16, descriptor(0, 0xffff, A_DATA, SIZE16));
    t16.ss = SEL_STACK16; // what the upper halves of registers become is not defined
    t16.ds = t16.es = KDS;
    ldt[0] = 0;
    ldt[1] = descriptor(0, 0xfffff, A_DATA, FLAT);
    for (unsigned k = 0; k < 4; k++)
        gate_default((unsigned[]){0x60, V_UD, V_GP, V_DF}[k]);
}

static unsigned type_of(unsigned sel)
{
    return (unsigned)(gdt[sel / 8] >> 40) & 15;
}

static void start(const void *code, unsigned cpl)
{
    probe_init(&p, code, cpl);
    p.in.eax = 0x10, p.in.ecx = 0x11, p.in.edx = 0x12, p.in.ebx = 0x13, p.in.ebp = 0x15, p.in.esi = 0x16,
    p.in.edi = 0x17;
    probe_run(&p);
}

static void expect_new_task(const char *how, u16 tr, u32 flags)
{
    check_equal(p.vector, VECTOR_DONE, "%s: the new task ran", how);
    check_equal(p.handler_tr, tr, "%s: TR", how);
    check_equal(p.out.eip, (u32)in_task + 2, "%s: EIP", how);
    check_equal(p.out.eflags, flags, "%s: EFLAGS", how);
    const u32 got[7] = {p.out.eax, p.out.ecx, p.out.edx, p.out.ebx, p.out.ebp, p.out.esi, p.out.edi};
    for (unsigned n = 0; n < 7; n++)
        check_equal(got[n], 0xa0 + n + (n > 3), "%s: register %u", how, n);
    check_equal(p.frame_at, (u32)stack_a + sizeof stack_a - 12, "%s: ESP", how);
    check_equal(p.out.ds, KDS, "%s: DS", how);
}

static void expect_saved(const char *how, const void *code, u32 len)
{
    check_equal(tss.eip, (u32)code + len, "%s: EIP saved", how);
    const u32 got[8] = {tss.eax, tss.ecx, tss.edx, tss.ebx, tss.esp, tss.ebp, tss.esi, tss.edi};
    for (unsigned n = 0; n < 8; n++)
        check_equal(got[n], n == 4 ? (u32)probe_stack_top - 0x100 : 0x10 + n, "%s: register %u saved", how, n);
    check(tss.cs == KCS && tss.ss == KDS && tss.ds == KDS && tss.es == KDS && tss.fs == KDS && tss.gs == KDS,
          "%s: segments saved", how);
    check_equal(tss.eflags & ~F_RF, 2, "%s: EFLAGS saved", how);
}

static void plain_switches(void)
{
    setup();
    start(jmp_a, 0);
    expect_new_task("JMP", SEL_A, 2);
    expect_saved("JMP", jmp_a, 7);
    check_equal(type_of(SEL_A), 11, "JMP: the new TSS is busy");
    check_equal(a.link, 0, "JMP: no link");
    setup();
    start(call_a, 0);
    expect_new_task("CALL", SEL_A, F_NT | 2);
    expect_saved("CALL", call_a, 7);
    check_equal(a.link, TSS_SEL, "CALL: link");
    check_equal(type_of(SEL_A), 11, "CALL: the new TSS is busy");
    setup();
    start(jmp_gate, 0);
    expect_new_task("JMP through a gate", SEL_A, 2);
    setup();
    start(call_gate, 0);
    expect_new_task("CALL through a gate", SEL_A, F_NT | 2);
    setup();
    idt[0x60] = gate(SEL_A, 0, 0x85, 0);
    start(int_60, 0);
    expect_new_task("INT through a gate", SEL_A, F_NT | 2);
    expect_saved("INT through a gate", int_60, 2);
    setup();
    idt[V_UD] = gate(SEL_A, 0, 0x85, 0);
    start(do_ud, 0);
    expect_new_task("#UD through a gate", SEL_A, F_NT | 2);
    expect_saved("#UD through a gate", do_ud, 0);
    check_not_tcg(tss.eflags & F_RF, "#UD through a gate: RF saved");
}

static void returns(void)
{
    setup();
    a.eip = (u32)in_task_iret;
    start(call_a, 0);
    check_equal(p.vector, VECTOR_DONE, "IRET: back in the old task");
    check_equal(p.handler_tr, TSS_SEL, "IRET: TR");
    check_equal(p.out.ebx, 0x13, "IRET: EBX is the old task's");
    check_equal(p.out.eip, (u32)call_a + 9, "IRET: EIP behind the CALL");
    check_equal(type_of(SEL_A), 9, "IRET: the task is available again");
    check_equal(a.ebx, 0x12345678, "IRET: its EBX was saved");
    check_equal(a.eip, (u32)in_task_iret + 6, "IRET: its EIP was saved");
    check_equal(a.eflags & F_NT, 0, "IRET: NT is clear in what was saved");
    gdt_set(SEL_A, descriptor((u32)&a, 0x67, A_TSS32, 0));
    start(call_a, 0);
    check_equal(p.out.ecx, 0x11111111, "called again, the task goes on behind its IRET");
    setup();
    a.link = SEL_B;
    probe_init(&p, do_iret, 0);
    p.in.eflags |= F_NT;
    tss.link = SEL_A; // available, not busy
    probe_run(&p);
    check(p.vector == V_TS && p.error == SEL_A, "IRET to a task that is not busy is #TS: vector %u error 0x%x",
          p.vector, p.error);
    check_equal(p.out.eip, (u32)do_iret, "and is the old task's");
    tss.link = SEL_A | 4;
    probe_run(&p);
    check(p.vector == V_TS && p.error == (SEL_A | 4), "IRET to a link into the LDT is #TS");
    tss.link = 0x3f8;
    probe_run(&p);
    check(p.vector == V_TS && p.error == 0x3f8, "IRET to a link beyond the GDT is #TS");
    tss.link = 0;
}

static void sixteen_bits(void)
{
    setup();
    start(jmp_16, 0);
    check_equal(p.vector, VECTOR_DONE, "16-bit TSS: the task ran");
    check_equal(p.handler_tr, SEL_16, "16-bit TSS: TR");
    const u32 got[7] = {p.out.eax, p.out.ecx, p.out.edx, p.out.ebx, p.out.ebp, p.out.esi, p.out.edi};
    for (unsigned n = 0; n < 7; n++)
        check_equal(got[n] & 0xffff, 0x6a + n, "16-bit TSS: register %u", n);
    check_equal(type_of(SEL_16), 3, "16-bit TSS: busy");
    check_equal(p.out.fs | p.out.gs, 0, "16-bit TSS: FS and GS are null");
    setup();
    start(call_16, 0);
    check_equal(t16.link, TSS_SEL, "16-bit TSS: link");
    check_equal(p.out.eflags, F_NT | 2, "16-bit TSS: NT");
    setup();
    gdt_set(SEL_16, descriptor((u32)&t16, 0x2a, A_TSS16, 0));
    start(jmp_16, 0);
    check(p.vector == V_TS && p.error == SEL_16, "16-bit TSS that is too short is #TS");
}

static void expect_old(const void *code, unsigned vector, u32 error, const char *what)
{
    check_not_tcg(p.vector == vector && p.error == error && p.out.eip == (u32)code && p.handler_tr == TSS_SEL,
                  "%s: vector %u error 0x%x TR 0x%x", what, p.vector, p.error, p.handler_tr);
}

static void faults_before(void)
{
    setup();
    gdt_set(SEL_A, descriptor((u32)&a, 0x67, A_TSS32 | 2, 0));
    start(jmp_a, 0);
    expect_old(jmp_a, V_GP, SEL_A, "JMP to a busy TSS");
    start(call_a, 0);
    expect_old(call_a, V_GP, SEL_A, "CALL to a busy TSS");
    gdt_set(SEL_A, descriptor((u32)&a, 0x67, A_TSS32 & ~A_P, 0));
    start(jmp_a, 0);
    expect_old(jmp_a, V_NP, SEL_A, "TSS not present");
    gdt_set(SEL_A, descriptor((u32)&a, 0x66, A_TSS32, 0));
    start(jmp_a, 0);
    expect_old(jmp_a, V_TS, SEL_A, "TSS too short");
    check_equal(type_of(SEL_A), 9, "it is not busy");
    setup();
    start(jmp_a_user, 3);
    expect_old(jmp_a_user, V_GP, SEL_A, "JMP from CPL 3 to a TSS of DPL 0");
    start(call_gate_user, 3);
    expect_old(call_gate_user, V_GP, SEL_GATE, "CALL from CPL 3 through a gate of DPL 0");
    gdt_set(SEL_GATE, gate(SEL_A, 0, 0x05, 0));
    start(jmp_gate, 0);
    expect_old(jmp_gate, V_NP, SEL_GATE, "gate not present");
    gdt_set(SEL_GATE, gate(KDS, 0, 0x85, 0));
    start(jmp_gate, 0);
    expect_old(jmp_gate, V_GP, KDS, "gate to a data segment");
    gdt_set(SEL_GATE, gate(SEL_A | 4, 0, 0x85, 0));
    start(jmp_gate, 0);
    expect_old(jmp_gate, V_GP, SEL_A | 4, "gate into the LDT");
    gdt_set(SEL_GATE, gate(0, 0, 0x85, 0));
    start(jmp_gate, 0);
    check(p.vector == V_GP && p.error == 0, "gate to a null selector");
    start(jmp_ldt, 0);
    expect_old(jmp_ldt, V_GP, SEL_A | 4, "JMP to a TSS through the LDT");
    setup();
    idt[V_UD] = gate(SEL_A, 0, 0x05, 0);
    start(do_ud, 0);
    check_not_tcg(p.vector == V_NP && p.error == V_UD * 8 + 3, "exception through a gate that is not present: 0x%x",
                  p.error);
    idt[V_UD] = gate(KDS, 0, 0x85, 0);
    start(do_ud, 0);
    check_not_tcg(p.vector == V_GP && p.error == KDS + 1, "exception through a gate to a data segment: 0x%x", p.error);
    setup();
    idt[0x60] = gate(SEL_A, 0, 0x85, 0);
    start(int_60, 3);
    expect_old(int_60, V_GP, 0x60 * 8 + 2, "INT from CPL 3 through a task gate of DPL 0");
    idt[0x60] = gate(SEL_A, 0, 0xe5, 0);
    start(int_60, 3);
    check_equal(p.handler_tr, SEL_A, "INT from CPL 3 through a task gate of DPL 3");
    check_equal(p.out.cs, KCS, "the task runs at its own CPL");
    check_equal(tss.cs, UCS, "CS of CPL 3 was saved");
}

// A fault of the new task, before its first instruction.
static void expect_new(unsigned vector, u32 error, const char *what)
{
    check_not_tcg(p.vector == vector && p.error == error && p.out.eip == (u32)in_task && p.handler_tr == SEL_A,
                  "%s: vector %u error 0x%x EIP 0x%x TR 0x%x", what, p.vector, p.error, p.out.eip, p.handler_tr);
}

static void with_segment(unsigned field, unsigned sel, u64 raw, unsigned vector, const char *what)
{
    setup();
    gdt_set(SEL_TEST, raw);
    *(volatile u32 *)((u8 *)&a + field) = sel;
    start(jmp_a, 0);
    expect_new(vector, sel & 0xfffc, what);
}

static void faults_after(void)
{
    const u64 data = descriptor(0, 0xfffff, A_DATA, FLAT), data3 = descriptor(0, 0xfffff, A_DATA | A_DPL3, FLAT),
              code = descriptor(0, 0xfffff, A_CODE, FLAT), absent = descriptor(0, 0xfffff, A_DATA & ~A_P, FLAT),
              read_only = descriptor(0, 0xfffff, 0x91, FLAT), execute_only = descriptor(0, 0xfffff, 0x99, FLAT),
              code3 = descriptor(0, 0xfffff, A_CODE | A_DPL3, FLAT), code_absent = descriptor(0, 0xfffff, 0x1b, FLAT);
    with_segment(offsetof(struct tss32, ds), SEL_TEST, absent, V_NP, "DS not present");
    with_segment(offsetof(struct tss32, es), SEL_TEST, absent, V_NP, "ES not present");
    with_segment(offsetof(struct tss32, fs), SEL_TEST, execute_only, V_TS, "FS execute-only");
    with_segment(offsetof(struct tss32, gs), 0x3f8, data, V_TS, "GS beyond the GDT");
    with_segment(offsetof(struct tss32, ds), SEL_TEST | 3, data, V_TS, "DS with RPL above DPL");
    with_segment(offsetof(struct tss32, ds), TSS_SEL, data, V_TS, "DS of a system segment");
    with_segment(offsetof(struct tss32, ss), SEL_TEST, absent, V_SS, "SS not present");
    with_segment(offsetof(struct tss32, ss), SEL_TEST, read_only, V_TS, "SS read-only");
    with_segment(offsetof(struct tss32, ss), SEL_TEST, data3, V_TS, "SS of DPL 3");
    with_segment(offsetof(struct tss32, ss), SEL_TEST | 3, data, V_TS, "SS with RPL 3");
    with_segment(offsetof(struct tss32, ss), 0, data, V_TS, "SS null");
    with_segment(offsetof(struct tss32, ss), SEL_TEST, code, V_TS, "SS of a code segment");
    with_segment(offsetof(struct tss32, cs), SEL_TEST, data, V_TS, "CS of a data segment");
    with_segment(offsetof(struct tss32, cs), SEL_TEST, code_absent, V_NP, "CS not present");
    with_segment(offsetof(struct tss32, cs), SEL_TEST, code3, V_TS, "CS with DPL above RPL");
    with_segment(offsetof(struct tss32, cs), 0, code, V_TS, "CS null");
    with_segment(offsetof(struct tss32, ldt), KDS, data, V_TS, "LDT of a data segment");
    with_segment(offsetof(struct tss32, ldt), SEL_LDT | 4, data, V_TS, "LDT in the LDT");
    setup();
    a.ldt = SEL_LDT;
    a.ds = 0xc; // the LDT's second entry
    start(jmp_a, 0);
    check(p.vector == VECTOR_DONE && p.out.ds == 0xc, "segments may come from the new LDT");
    __asm__ volatile("lldt %w0" : : "r"(0));
    setup();
    gdt_set(SEL_TEST, descriptor(0, 0x1000, A_CODE, SIZE32));
    a.cs = SEL_TEST;
    start(jmp_a, 0);
    check(p.vector == V_GP && p.error == 0 && p.handler_tr == SEL_A, "EIP beyond CS is #GP(0) of the new task");
    setup();
    a.trap = 1;
    write_dr6(0);
    start(jmp_a, 0);
    check_not_tcg(p.vector == V_DB && p.out.eip == (u32)in_task && (read_dr6() & 0x8000), "T bit: #DB with BT");
    write_dr6(0);
    setup();
    write_dr7(0x455);
    start(jmp_a, 0);
    check_not_tcg((read_dr7() & 0xff) == 0, "a switch clears the local enables of DR7");
    write_dr7(0x400);
}

SNIPPET(task_reads_cr0, 32, "mov %cr0, %eax\n int $0x80");
SNIPPET(task_pops_error, 32, "pop %ebx\n int $0x80");

static void other_effects(void)
{
    setup();
    a.eip = (u32)task_reads_cr0;
    start(jmp_a, 0);
    check_equal(p.out.eax & 8, 8, "a switch sets CR0.TS");
    setup();
    idt[V_GP] = gate(SEL_A, 0, 0x85, 0);
    a.eip = (u32)task_pops_error;
    probe_init(&p, do_gp, 0);
    p.in.eax = 0x3f8;
    probe_run(&p);
    check_equal(p.out.ebx, 0x3f8, "an exception's error code is pushed on the new task's stack");
    check_equal(p.frame_at, (u32)stack_a + sizeof stack_a - 12, "as one doubleword");
    setup();
    a.eflags = F_VM | F_IOPL | 2;
    a.eip = 0;
    a.cs = LOW_SEG;
    a.ss = LOW_SS;
    a.esp = LOW_SP;
    a.ds = 0x1111, a.es = 0x2222, a.fs = 0x3333, a.gs = 0x4444;
    memcpy((void *)LOW_CODE, "\xcc", 1);
    start(jmp_a, 0);
    check(p.vector == V_BP && (p.frame[2] & F_VM) && p.frame[1] == LOW_SEG, "a task in virtual-8086 mode");
    check(p.frame[5] == 0x2222 && p.frame[6] == 0x1111 && p.frame[7] == 0x3333 && p.frame[8] == 0x4444, "its segments");
    setup();
    a.cs = UCS;
    a.ss = a.ds = a.es = a.fs = a.gs = UDS;
    start(jmp_a, 0);
    check(p.vector == VECTOR_DONE && p.out.cs == UCS && p.out.ss == UDS, "a task at CPL 3");
    check_equal(p.out.esp, (u32)stack_a + sizeof stack_a, "its stack");
}

SNIPPET(task_calls_b, 32, "lcall $0x48, $0\n mov %ebx, %ecx\n iret");
SNIPPET(task_b, 32, "movl $0x77777777, %ebx\n iret");

static void nested(void)
{
    setup();
    a.eip = (u32)task_calls_b;
    b.eip = (u32)task_b;
    start(call_a, 0);
    check_equal(p.vector, VECTOR_DONE, "two levels of CALL and IRET");
    check_equal(p.out.eip, (u32)call_a + 9, "end where they began");
    check(type_of(SEL_A) == 9 && type_of(SEL_B) == 9, "both tasks are available");
    check_equal(b.link, SEL_A, "B was called by A");
    check_equal(a.ecx, 0xa3, "A's EBX was its own");
}

void guest_main(void)
{
    plain_switches();
    returns();
    sixteen_bits();
    faults_before();
    faults_after();
    other_effects();
    nested();
    finish("tasks");
}
