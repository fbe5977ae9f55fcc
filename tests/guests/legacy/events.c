// Which of several events comes first: traps of the instruction before, NMI, interrupts, shadows of STI and MOV SS,
// instruction breakpoints, faults of fetch, decoding and execution; NMI blocking until IRET; what makes a double fault.
#include "../lib32/guest32.h"

enum { CR0_EM = 4, CR0_TS = 8, BS = 0x4000, IRQ0_VECTOR = 0x70, ABSENT = SPARE };

static struct probe p;
static volatile u32 words[16] __attribute__((aligned(16)));

// ---- interrupt sources: the 8254 by the 8259, NMI by the local APIC ----

static volatile u32 *const apic = (volatile u32 *)0xfee00000;

static void pic_open(void)
{
    static const u8 bytes[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x70}, {0xa1, 0x78}, {0x21, 4},
                                  {0xa1, 2},    {0x21, 1},    {0xa1, 1},    {0x21, 0xfe}, {0xa1, 0xff}};
    for (unsigned k = 0; k < sizeof bytes / 2; k++)
        outb(bytes[k][0], bytes[k][1]);
}
// IRQ 0 is requested and waits for IF.
static void irq_request(void)
{
    outb(0x43, 0x30);
    outb(0x40, 2);
    outb(0x40, 0);
    outb(0x20, 0x0a);
    while (!(inb(0x20) & 1))
        ;
}
static void irq_done(void)
{
    outb(0x20, 0x20);
}

#define SEND_NMI "movl $0x4400, 0xfee00300\n "

static void run(const void *code, u32 flags)
{
    probe_init(&p, code, 0);
    p.in.eflags |= flags;
    p.in.esi = p.in.edi = p.in.ebx = (u32)words;
    p.in.eax = KDS;
    write_dr6(0);
    probe_run(&p);
}

static void expect(u32 vector, u32 eip, const char *what)
{
    check_not_tcg(p.vector == vector && p.out.eip == eip, "%s: vector %u at +%u", what, p.vector, p.out.eip - p.in.eip);
}

// ---- interrupts and shadows ----

SNIPPET(i_sti, 32, "sti\n nop\n nop\n int $0x80");
SNIPPET(i_sti_cli, 32, "sti\n cli\n nop\n int $0x80");
SNIPPET(i_sti_sti, 32, "sti\n sti\n nop\n int $0x80");
SNIPPET(i_ss, 32, "mov %eax, %ss\n nop\n nop\n int $0x80");
SNIPPET(i_ss_ss, 32, "mov %eax, %ss\n mov %eax, %ss\n nop\n int $0x80");
SNIPPET(i_popf, 32, "pushf\n orl $0x200, (%esp)\n popf\n nop\n nop\n int $0x80");
SNIPPET(i_ud, 32, "sti\n ud2");
SNIPPET(i_hlt, 32, "sti\n hlt\n nop\n int $0x80");

static void interrupts(void)
{
    static const struct {
        const char *code, *what;
        u32 flags, vector, at;
    } all[] = {{i_sti, "STI: behind the next instruction", 0, IRQ0_VECTOR, 2},
               {i_sti_cli, "STI, CLI: never", 0, VECTOR_DONE, 5},
               {i_sti_sti, "STI, STI: the second has no shadow of its own", 0, IRQ0_VECTOR, 2},
               {i_ss, "MOV SS with IF: before it", F_IF, IRQ0_VECTOR, 0},
               {i_popf, "POPF: at once", 0, IRQ0_VECTOR, 9},
               {i_ud, "a fault in the shadow of STI comes first", 0, V_UD, 1},
               {i_hlt, "STI, HLT: behind HLT", 0, IRQ0_VECTOR, 2}};
    for (unsigned k = 0; k < sizeof all / sizeof *all; k++) {
        pic_open();
        irq_request();
        run(all[k].code, all[k].flags);
        expect(all[k].vector, p.in.eip + all[k].at, all[k].what);
        irq_done();
    }
    pic_open();
    irq_request();
    run(i_sti, F_TF);
    expect(V_DB, (u32)i_sti + 1, "STI with TF: the trap of STI is not held back");
    check_equal(p.out.eflags & F_IF, F_IF, "and the interrupt still waits");
    irq_done();
    pic_open();
    irq_request();
    run(i_popf + 8, F_IF | F_TF);
    expect(IRQ0_VECTOR, p.in.eip, "TF traps behind an instruction: the interrupt comes before it");
    irq_done();
}

// ---- NMI ----

SNIPPET(n_plain, 32, SEND_NMI "nop\n nop\n nop\n nop\n int $0x80");
SNIPPET(n_ss, 32, SEND_NMI "mov %eax, %ss\n nop\n nop\n int $0x80");
SNIPPET(n_hlt, 32, SEND_NMI "1: hlt\n jmp 1b\n int $0x80");
SNIPPET(n_nested, 32, SEND_NMI "nop\n nop\n nop\n nop\n int $0x80");
SNIPPET(n_iret, 32, "iret");

// An IRET that ends the handler: EIP, CS, EFLAGS on the stack.
static void iret_to(const void *code)
{
    probe_init(&p, n_iret, 0);
    p.in.esp -= 12;
    u32 *frame = (u32 *)p.in.esp;
    frame[0] = (u32)code;
    frame[1] = KCS;
    frame[2] = 2;
    probe_run(&p);
}

// The runtime enters probes by IRET, which ends NMI blocking: each probe starts with NMI open.
static void nmi(void)
{
    run(n_plain, 0);
    check_not_tcg(p.vector == V_NMI && p.out.eip >= (u32)n_plain + 10, "NMI does not ask for IF");
    // Blocked now: the next one waits for IRET.
    *(apic + 0x300 / 4) = 0x4400;
    for (volatile unsigned n = 0; n < 50; n++)
        ;
    iret_to(n_plain);
    check_not_tcg(p.vector == V_NMI, "IRET lets it in (vector %u)", p.vector);
    iret_to(i_sti_cli + 2);
    check_equal(p.vector, VECTOR_DONE, "once");
}

// ---- faults of one instruction ----

SNIPPET(f_lock_nop, 32, ".byte 0xf0, 0x90\n int $0x80");
SNIPPET(f_addps, 32, "addps (%ebx), %xmm0\n int $0x80");
SNIPPET(f_fnop, 32, ".byte 0xf0, 0xd9, 0xd0\n int $0x80");
SNIPPET(f_fld, 32, "flds 0xfffffffe\n int $0x80");
SNIPPET(f_long, 32,
        ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0x0b");
SNIPPET(f_hlt, 32, "hlt\n int $0x80");
SNIPPET(f_cr, 32, "mov %eax, %cr1\n int $0x80");
SNIPPET(f_dr, 32, "mov %eax, %dr6\n int $0x80");
SNIPPET(f_in, 32, "in $0x80, %al\n int $0x80");
SNIPPET(f_div, 32, "divl (%ebx)\n int $0x80");
SNIPPET(f_ltr, 32, "ltr %ax\n int $0x80");
SNIPPET(f_bp_ud, 32, "ud2");
SNIPPET(f_bp_after, 32, "nop\n ud2");

static void with_cr0(u32 bits, const void *code, unsigned cpl)
{
    u32 old = read_cr0();
    probe_init(&p, code, cpl);
    p.in.ebx = (u32)words;
    p.in.eax = 0x18;
    write_cr0(old | bits);
    probe_run(&p);
    write_cr0(old);
}

static void faults(void)
{
    with_cr0(0, f_lock_nop, 0);
    expect(V_UD, p.in.eip, "LOCK NOP");
    with_cr0(CR0_TS, f_fnop, 0);
    expect(V_UD, p.in.eip, "#UD of LOCK before #NM");
    write_cr4(read_cr4() & ~0x200u);
    with_cr0(CR0_TS, f_addps, 0);
    expect(V_UD, p.in.eip, "#UD of CR4.OSFXSR before #NM");
    write_cr4(read_cr4() | 0x600);
    with_cr0(CR0_TS | CR0_EM, f_addps, 0);
    expect(V_UD, p.in.eip, "#UD of CR0.EM before #NM");
    with_cr0(CR0_TS, f_fld, 0);
    expect(V_NM, p.in.eip, "#NM before the operand's #GP");
    probe_init(&p, f_addps, 0);
    p.in.ebx = (u32)words + 4;
    u32 cr0 = read_cr0();
    write_cr0(cr0 | CR0_TS);
    probe_run(&p);
    write_cr0(cr0);
    expect(V_NM, p.in.eip, "#NM before #GP of alignment");
    probe_run(&p);
    expect(V_GP, p.in.eip, "then that");
    with_cr0(0, f_long, 0);
    expect(V_GP, p.in.eip, "an instruction of 16 bytes is #GP, not #UD");
    with_cr0(0, f_hlt, 3);
    expect(V_GP, p.in.eip, "HLT at CPL 3");
    with_cr0(0, f_cr, 3);
    expect(V_UD, p.in.eip, "MOV to CR1 at CPL 3 is #UD");
    with_cr0(0, f_dr, 3);
    expect(V_GP, p.in.eip, "MOV DR at CPL 3");
    words[0] = 0;
    with_cr0(0, f_div, 0);
    expect(V_DE, p.in.eip, "division by zero");
    with_cr0(0, f_ltr, 3);
    expect(V_GP, p.in.eip, "LTR at CPL 3");
    check_equal(p.error, 0, "its error code is 0: the selector was not looked at");
}

// ---- breakpoints and fetch ----

static void fetches(void)
{
    write_dr0((u32)f_bp_ud);
    write_dr7(0x401);
    run(f_bp_ud, 0);
    expect(V_DB, p.in.eip, "an instruction breakpoint before #UD");
    check_equal(read_dr6() & 15, 1, "DR6");
    run(f_bp_ud, F_RF);
    expect(V_UD, p.in.eip, "RF lets it pass");
    write_dr0((u32)f_bp_after + 1);
    run(f_bp_after, 0);
    expect(V_DB, p.in.eip + 1, "the breakpoint of the second instruction");
    write_dr0((u32)f_bp_ud);
    run(f_bp_ud, 0);
    expect(V_DB, p.in.eip, "a breakpoint again after RF was used up");
    write_dr7(0x400);
    pic_open();
    irq_request();
    write_dr0((u32)i_popf + 9);
    write_dr7(0x401);
    run(i_popf, 0);
    expect(IRQ0_VECTOR, (u32)i_popf + 9, "an interrupt before the breakpoint of the next instruction");
    write_dr7(0x400);
    irq_done();
}

// ---- double faults ----

SNIPPET(d_ud, 32, "ud2");
SNIPPET(d_int, 32, "int $0x31");
SNIPPET(d_np, 32, "mov %ax, %fs");
SNIPPET(d_de, 32, "divl (%ebx)");

static void second(unsigned gate_of, u64 raw, const void *code, u32 vector, const char *what)
{
    *(volatile u64 *)&idt[gate_of] = raw;
    gdt_set(ABSENT, descriptor(0, 0xfffff, A_DATA & ~A_P, FLAT));
    probe_init(&p, code, 0);
    p.in.ebx = (u32)words;
    words[0] = 0;
    p.in.eax = ABSENT;
    probe_run(&p);
    gate_default(gate_of);
    check_not_tcg(p.vector == vector, "%s: vector %u", what, p.vector);
}

static void double_faults(void)
{
    u64 absent = gate(KCS, 0, 0x0e, 0), bad_selector = gate(0x1f8, 0, 0x8e, 0), null_selector = gate(0, 0, 0x8e, 0);
    second(V_UD, absent, d_ud, V_NP, "#UD, then #NP: benign and contributory: #NP");
    check_not_tcg(p.error == V_UD * 8 + 3, "with EXT and IDT in its error code");
    second(V_UD, bad_selector, d_ud, V_GP, "#UD, then #GP: #GP");
    second(V_UD, null_selector, d_ud, V_GP, "a gate with a null selector: #GP");
    check_not_tcg(p.error == 1, "EXT alone in its error code");
    second(0x31, absent, d_int, V_NP, "INT n, then #NP");
    check_equal(p.error, 0x31 * 8 + 2, "without EXT");
    second(V_NP, absent, d_np, V_DF, "#NP, then #NP: double fault");
    check_equal(p.error, 0, "its error code is 0");
    second(V_NP, bad_selector, d_np, V_DF, "#NP, then #GP: double fault");
    second(V_DE, absent, d_de, V_DF, "#DE, then #NP: double fault");
    second(V_DE, bad_selector, d_de, V_DF, "#DE, then #GP: double fault");
}

void guest_main(void)
{
    *(apic + 0xf0 / 4) = *(apic + 0xf0 / 4) | 0x1ff; // the local APIC on, LINT0 as ExtINT
    *(apic + 0x350 / 4) = 0x700;
    *(apic + 0x310 / 4) = *(apic + 0x20 / 4); // NMIs go to this processor
    interrupts();
    nmi();
    faults();
    fetches();
    double_faults();
    finish("events");
}
