// Gates between privilege levels in protected mode: call gates of 16 and 32 bits with parameters, interrupt and trap
// gates of both sizes, conforming handlers, RETF and IRET outwards, and what each refuses.
#include "../lib32/guest32.h"

enum {
    CODE0 = SPARE,
    CODE1 = SPARE + 8,
    CODE3 = SPARE + 16,
    CONFORMING = SPARE + 24,
    GATE = SPARE + 32, // 0x60
    STACK1 = SPARE + 40,
    SEL_T = SPARE + 48,
    CODE2 = SPARE + 56,
    STACK2 = SPARE + 64
};

static struct probe p;
static u8 inner_stack[2048] __attribute__((aligned(16)));
#define STACK_TOP ((u32)inner_stack + sizeof inner_stack)

SNIPPET(done, 32, "int $0x80");
SNIPPET(call, 32, "lcall $0x63, $0x1234\n int $0x80");
SNIPPET(jump, 32, "ljmp $0x63, $0x1234\n int $0x80");
SNIPPET(call_rpl0, 32, "lcall $0x60, $0x1234\n int $0x80");
SNIPPET(call_and_back, 32, "lcall $0x63, $0\n mov %ds, %ecx\n mov %fs, %edx\n int $0x80");
SNIPPET(returns, 32, "lret\n");
SNIPPET(returns_8, 32, "mov $0x10, %eax\n mov %eax, %ds\n lret $8\n");
SNIPPET(int_60, 32, "int $0x60\n int $0x80");
SNIPPET(do_lret, 32, "lret\n");
SNIPPET(do_iret, 32, "iret\n");
SNIPPET(do_ud, 32, "ud2\n");

static void setup(void)
{
    tss.esp0 = STACK_TOP;
    tss.ss0 = KDS;
    tss.esp1 = STACK_TOP;
    tss.ss1 = STACK1 | 1;
    tss.esp2 = STACK_TOP;
    tss.ss2 = STACK2 | 2;
    gdt_set(CODE0, descriptor(0, 0xfffff, A_CODE, FLAT));
    gdt_set(CODE1, descriptor(0, 0xfffff, A_CODE | A_DPL1, FLAT));
    gdt_set(CODE2, descriptor(0, 0xfffff, A_CODE | A_DPL2, FLAT));
    gdt_set(CODE3, descriptor(0, 0xfffff, A_CODE | A_DPL3, FLAT));
    gdt_set(CONFORMING, descriptor(0, 0xfffff, A_CODE | 4, FLAT));
    gdt_set(STACK1, descriptor(0, 0xfffff, A_DATA | A_DPL1, FLAT));
    gdt_set(STACK2, descriptor(0, 0xfffff, A_DATA | A_DPL2, FLAT));
    gate_default(0x60);
    memset(inner_stack, 0xee, sizeof inner_stack);
}

static u32 word32(unsigned n)
{
    return ((volatile u32 *)STACK_TOP)[-(int)n - 1];
}
static u16 word16(unsigned n)
{
    return ((volatile u16 *)STACK_TOP)[-(int)n - 1];
}

static void call_inward(unsigned count)
{
    setup();
    gdt_set(GATE, gate(CODE0, (u32)done, 0xec, count));
    probe_init(&p, call, 3);
    u32 *stack = (u32 *)p.in.esp;
    for (unsigned n = 0; n < count; n++)
        stack[n] = 0x1000 + n;
    probe_run(&p);
    check(p.vector == VECTOR_DONE && p.out.cs == CODE0, "call gate with %u parameters: CPL 0", count);
    check(word32(0) == UDS && word32(1) == (u32)stack, "old SS and ESP come first");
    unsigned bad = 0;
    for (unsigned n = 0; n < count; n++)
        bad += word32(2 + n) != 0x1000 + count - 1 - n;
    check(!bad, "the %u parameters lie in order", count);
    check(word32(2 + count) == UCS && word32(3 + count) == (u32)call + 7, "then CS and EIP");
    check_equal(p.frame_at, STACK_TOP - 4 * (4 + count) - 12, "ESP with %u parameters", count);
}

static void call_gates(void)
{
    static const u8 counts[] = {0, 1, 2, 7, 16, 31};
    for (unsigned k = 0; k < sizeof counts; k++)
        call_inward(counts[k]);
    setup();
    gdt_set(CODE0, descriptor((u32)done, 0xffff, A_CODE, SIZE32));
    gdt_set(GATE, gate(CODE0, 0xffff0000, 0xe4, 2)); // 16-bit: the upper half of the offset does not count
    probe_init(&p, call, 3);
    *(u32 *)p.in.esp = 0x22221111;
    probe_run(&p);
    check_not_tcg(p.vector == VECTOR_DONE, "16-bit call gate");
    check_not_tcg(word16(0) == UDS && word16(1) == (u16)p.in.esp && word16(2) == 0x2222 && word16(3) == 0x1111 &&
                      word16(4) == UCS && word16(5) == (u16)((u32)call + 7),
                  "its frame has words");
    setup();
    gdt_set(GATE, gate(CODE1, (u32)done, 0xec, 0));
    probe_init(&p, call, 3);
    probe_run(&p);
    check(p.vector == VECTOR_DONE && p.out.cs == (CODE1 | 1) && p.out.ss == (STACK1 | 1), "call gate to level 1");
    setup();
    gdt_set(GATE, gate(CONFORMING, (u32)done, 0xec, 5));
    probe_init(&p, call, 3);
    probe_run(&p);
    check_not_tcg(p.vector == VECTOR_DONE && p.out.cs == (CONFORMING | 3),
                  "call gate to conforming code stays at CPL 3");
    check_equal(p.out.esp, p.in.esp - 8, "and on its stack, without parameters");
    gdt_set(GATE, gate(CODE3, (u32)done, 0xec, 0));
    probe_run(&p);
    check(p.vector == VECTOR_DONE && p.out.cs == (CODE3 | 3), "call gate to the same level");
    probe_init(&p, jump, 3);
    probe_run(&p);
    check(p.vector == VECTOR_DONE && p.out.esp == p.in.esp, "jump through a gate to the same level");
    gdt_set(GATE, gate(CODE0, (u32)done, 0xec, 0));
    probe_run(&p);
    check(p.vector == V_GP && p.error == CODE0, "jump through a gate inwards is #GP of the code segment");
    setup();
    gdt_set(GATE, gate(CODE0, (u32)returns, 0xec, 0));
    probe_init(&p, call_and_back, 3);
    probe_run(&p);
    check(p.vector == VECTOR_DONE && p.out.cs == UCS && p.out.esp == p.in.esp, "RETF comes back");
    gdt_set(GATE, gate(CODE0, (u32)returns_8, 0xec, 2));
    probe_run(&p);
    check(p.out.esp == p.in.esp + 8, "RETF n drops the parameters on both stacks");
    check(p.out.ecx == 0 && p.out.edx == UDS, "DS of level 0 is null after it, FS of level 3 is not");
}

static void refuse(const char *what, unsigned vector, u32 error)
{
    check(p.vector == vector && p.error == error && p.out.eip == p.in.eip && p.out.cs == p.in.cs,
          "%s: vector %u error 0x%x", what, p.vector, p.error);
}

static void bad_gate(const char *what, u64 raw, unsigned cpl, const void *code, unsigned vector, u32 error)
{
    gdt_set(GATE, raw);
    probe_init(&p, code, cpl);
    probe_run(&p);
    refuse(what, vector, error);
}

static void call_gate_faults(void)
{
    setup();
    bad_gate("gate of DPL 0 from CPL 3", gate(CODE0, 0, 0x8c, 0), 3, call, V_GP, GATE);
    bad_gate("gate of DPL 2 with RPL 3", gate(CODE0, 0, 0xcc, 0), 0, call, V_GP, GATE);
    bad_gate("gate that is not present", gate(CODE0, 0, 0x6c, 0), 3, call, V_NP, GATE);
    bad_gate("gate with a null selector", gate(0, 0, 0xec, 0), 3, call, V_GP, 0);
    bad_gate("gate to data", gate(KDS, 0, 0xec, 0), 3, call, V_GP, KDS);
    bad_gate("gate beyond the GDT", gate(0x208, 0, 0xec, 0), 3, call, V_GP, 0x208);
    bad_gate("gate to code of DPL 3 from CPL 0", gate(CODE3, 0, 0xec, 0), 0, call_rpl0, V_GP, CODE3);
    bad_gate("interrupt gate", gate(CODE0, 0, 0xee, 0), 3, call, V_GP, GATE);
    bad_gate("type 0", gate(CODE0, 0, 0xe0, 0), 3, call, V_GP, GATE);
    bad_gate("LDT", gate(CODE0, 0, 0xe2, 0), 3, call, V_GP, GATE);
    gdt_set(SEL_T, descriptor(0, 0xfffff, A_CODE & ~A_P, FLAT));
    bad_gate("gate to code that is not present", gate(SEL_T, 0, 0xec, 0), 3, call, V_NP, SEL_T);
    gdt_set(SEL_T, descriptor(0, 0xfff, A_CODE, SIZE32));
    bad_gate("gate beyond the limit", gate(SEL_T, 0x1000, 0xec, 0), 3, call, V_GP, 0);
}

// What the inner stack may be wrong in. The gate leads to level 1, so that the fault's own handler at level 0 has a
// stack.
static void bad_stack(const char *what, u32 sel, u64 raw, u32 esp, unsigned vector)
{
    setup();
    gdt_set(GATE, gate(CODE1, (u32)done, 0xec, 0));
    gdt_set(SEL_T, raw);
    tss.ss1 = sel;
    tss.esp1 = esp;
    probe_init(&p, call, 3);
    probe_run(&p);
    check_not_tcg(p.vector == vector && p.error == (sel & 0xfffc) && p.out.eip == (u32)call && p.out.esp == p.in.esp,
                  "%s: vector %u error 0x%x", what, p.vector, p.error);
}

static void inner_stacks(void)
{
    const u64 good = descriptor(0, 0xfffff, A_DATA | A_DPL1, FLAT);
    bad_stack("inner SS null", 0, good, STACK_TOP, V_TS);
    bad_stack("inner SS with RPL 0", SEL_T, good, STACK_TOP, V_TS);
    bad_stack("inner SS of DPL 0", SEL_T | 1, descriptor(0, 0xfffff, A_DATA, FLAT), STACK_TOP, V_TS);
    bad_stack("inner SS read-only", SEL_T | 1, descriptor(0, 0xfffff, 0x91 | A_DPL1, FLAT), STACK_TOP, V_TS);
    bad_stack("inner SS of code", SEL_T | 1, descriptor(0, 0xfffff, A_CODE | A_DPL1, FLAT), STACK_TOP, V_TS);
    bad_stack("inner SS not present", SEL_T | 1, descriptor(0, 0xfffff, 0x13 | A_DPL1, FLAT), STACK_TOP, V_SS);
    bad_stack("inner SS beyond the GDT", 0x209, good, STACK_TOP, V_TS);
    bad_stack("inner stack too small", SEL_T | 1, descriptor((u32)inner_stack, 0x7ff, A_DATA | A_DPL1, SIZE32), 15,
              V_SS);
    if (on_tcg()) // it reads beyond the TSS
        return;
    setup();
    gdt_set(GATE, gate(CODE1, (u32)done, 0xec, 0));
    gdt_set(TSS_SEL, descriptor((u32)&tss, 15, A_TSS32, 0)); // the limit leaves out SS1
    __asm__ volatile("ltr %w0" : : "r"(TSS_SEL));
    probe_init(&p, call, 3);
    probe_run(&p);
    check_not_tcg(p.vector == V_TS && p.error == TSS_SEL, "TSS too short: vector %u error 0x%x", p.vector, p.error);
}

// ---- interrupt and trap gates ----

static void interrupt_gates(void)
{
    for (unsigned trap = 0; trap < 2; trap++) {
        setup();
        idt[0x60] = gate(KCS, (u32)done, 0xee | trap, 0);
        probe_init(&p, int_60, 3);
        p.in.eflags |= F_IF | F_NT;
        probe_run(&p);
        check_equal(p.vector, VECTOR_DONE, "gate of type %u", 14 + trap);
        check_equal(p.out.eflags & (F_IF | F_NT), trap ? F_IF : 0, "flags in its handler");
        check(word32(0) == UDS && word32(1) == p.in.esp && word32(2) == (F_IF | F_NT | 2) && word32(3) == UCS &&
                  word32(4) == (u32)int_60 + 2,
              "its frame");
        setup();
        gdt_set(CODE0, descriptor((u32)done, 0xffff, A_CODE, SIZE32));
        idt[0x60] = gate(CODE0, 0x5a5a0000, 0xe6 | trap, 0);
        probe_init(&p, int_60, 3);
        probe_run(&p);
        check_equal(p.vector, VECTOR_DONE, "gate of type %u", 6 + trap);
        check(word16(0) == UDS && word16(1) == (u16)p.in.esp && word16(2) == 2 && word16(3) == UCS &&
                  word16(4) == (u16)((u32)int_60 + 2),
              "its frame has words");
    }
    for (unsigned level = 1; level < 3; level++) {
        setup();
        idt[0x60] = gate(level == 1 ? CODE1 : CODE2, (u32)done, 0xee, 0);
        probe_init(&p, int_60, 3);
        probe_run(&p);
        check(p.vector == VECTOR_DONE && (p.out.cs & 3) == level && (p.out.ss & 3) == level, "handler at level %u",
              level);
    }
    setup();
    idt[0x60] = gate(CONFORMING, (u32)done, 0xee, 0);
    probe_init(&p, int_60, 3);
    probe_run(&p);
    check(p.vector == VECTOR_DONE && p.out.cs == (CONFORMING | 3) && p.out.esp == p.in.esp - 12, "conforming handler");
}

static void bad_interrupt(const char *what, u64 raw, unsigned cpl, unsigned vector, u32 error)
{
    setup();
    idt[0x60] = raw;
    gdt_set(SEL_T, descriptor(0, 0xfff, A_CODE, SIZE32));
    probe_init(&p, int_60, cpl);
    probe_run(&p);
    refuse(what, vector, error);
}

static void interrupt_faults(void)
{
    const u32 self = 0x60 * 8 + 2;
    bad_interrupt("INT through a gate of DPL 0 from CPL 3", gate(KCS, (u32)done, 0x8e, 0), 3, V_GP, self);
    bad_interrupt("INT through a gate that is not present", gate(KCS, (u32)done, 0x6e, 0), 3, V_NP, self);
    bad_interrupt("INT through a call gate", gate(KCS, (u32)done, 0xec, 0), 3, V_GP, self);
    bad_interrupt("INT through type 0", 0, 0, V_GP, self);
    bad_interrupt("INT to a null selector", gate(0, (u32)done, 0xee, 0), 3, V_GP, 0);
    bad_interrupt("INT to data", gate(KDS, (u32)done, 0xee, 0), 3, V_GP, KDS);
    bad_interrupt("INT to code of DPL 3 from CPL 0", gate(CODE3, (u32)done, 0xee, 0), 0, V_GP, CODE3);
    bad_interrupt("INT beyond the GDT", gate(0x208, (u32)done, 0xee, 0), 3, V_GP, 0x208);
    bad_interrupt("INT beyond the limit", gate(SEL_T, 0x1000, 0xee, 0), 3, V_GP, 0);
    setup();
    idt_set_limit(0x60 * 8 + 6);
    probe_init(&p, int_60, 0);
    probe_run(&p); // INT 80H would be beyond it too
    idt_set_limit(256 * 8 - 1);
    refuse("INT beyond the IDT", V_GP, self);
    setup();
    idt[V_UD] = gate(KCS, stub_address(V_UD), 0x0e, 0);
    probe_init(&p, do_ud, 3);
    probe_run(&p);
    check_not_tcg(p.vector == V_NP && p.error == V_UD * 8 + 3,
                  "exception through a gate that is not present: error 0x%x", p.error);
    idt[V_NP] = gate(KCS, stub_address(V_NP), 0x0e, 0);
    probe_run(&p);
    check(p.vector == V_DF && p.error == 0, "and #NP's is not present either: double fault, error 0x%x", p.error);
    gate_default(V_UD);
    gate_default(V_NP);
}

// ---- returns ----

static void push_frame(const u32 *frame, unsigned n)
{
    p.in.esp -= 4 * n;
    memcpy((void *)p.in.esp, frame, 4 * n);
}

// RETF or IRET from CPL 0 with this CS and SS.
static void return_to(bool iret, u32 cs, u32 ss)
{
    const u32 far[4] = {(u32)done, cs, (u32)probe_stack_top - 0x200, ss},
              interrupt[5] = {(u32)done, cs, 2, (u32)probe_stack_top - 0x200, ss};
    probe_init(&p, iret ? do_iret : do_lret, 0);
    push_frame(iret ? interrupt : far, iret ? 5 : 4);
    probe_run(&p);
}

static void outward_returns(void)
{
    setup();
    gdt_set(SEL_T, descriptor(0, 0xfffff, A_DATA & ~A_P, FLAT));
    for (unsigned iret = 0; iret < 2; iret++) {
        const char *name = iret ? "IRET" : "RETF";
        return_to(iret, UCS, UDS);
        check(p.vector == VECTOR_DONE && p.out.cs == UCS && p.out.ss == UDS &&
                  p.out.esp == (u32)probe_stack_top - 0x200,
              "%s to CPL 3", name);
        check_equal(p.out.ds | p.out.es | p.out.fs | p.out.gs, 0, "%s drops segments of CPL 0", name);
        return_to(iret, CODE1 | 1, STACK1 | 1);
        check(p.vector == VECTOR_DONE && p.out.cs == (CODE1 | 1), "%s to level 1", name);
        return_to(iret, CONFORMING | 3, UDS);
        check(p.vector == VECTOR_DONE && p.out.cs == (CONFORMING | 3), "%s to conforming code with RPL 3", name);
        static const struct {
            u32 cs, ss, error;
            unsigned vector;
            const char *what;
        } bad[] = {{0, UDS, 0, V_GP, "null CS"},
                   {UDS, UDS, UDS & ~3u, V_GP, "CS of data"},
                   {KCS | 3, UDS, KCS, V_GP, "CS whose DPL is not its RPL"},
                   {0x20b, UDS, 0x208, V_GP, "CS beyond the GDT"},
                   {UCS, 0, 0, V_GP, "null SS"},
                   {UCS, KDS, KDS, V_GP, "SS with RPL 0"},
                   {UCS, KDS | 3, KDS, V_GP, "SS of DPL 0"},
                   {UCS, UCS, UCS & ~3u, V_GP, "SS of code"},
                   {UCS, SEL_T | 3, SEL_T, V_GP, "SS of DPL 0, not present"}};
        for (unsigned k = 0; k < sizeof bad / sizeof bad[0]; k++) {
            return_to(iret, bad[k].cs, bad[k].ss);
            check(p.vector == bad[k].vector && p.error == bad[k].error && p.out.cs == KCS,
                  "%s to %s: vector %u error 0x%x", name, bad[k].what, p.vector, p.error);
        }
        gdt_set(SEL_T, descriptor(0, 0xfffff, (A_DATA & ~A_P) | A_DPL3, FLAT));
        return_to(iret, UCS, SEL_T | 3);
        check(p.vector == V_SS && p.error == SEL_T, "%s to SS that is not present", name);
        gdt_set(SEL_T, descriptor(0, 0xfffff, (A_CODE & ~A_P) | A_DPL3, FLAT));
        return_to(iret, SEL_T | 3, UDS);
        check(p.vector == V_NP && p.error == SEL_T, "%s to CS that is not present", name);
        gdt_set(SEL_T, descriptor(0, 0xfff, A_CODE | A_DPL3, SIZE32));
        return_to(iret, SEL_T | 3, UDS);
        check(p.vector == V_GP && p.error == 0, "%s beyond the limit", name);
        gdt_set(SEL_T, descriptor(0, 0xfffff, A_DATA & ~A_P, FLAT));
    }
}

// IRET's flags by CPL and IOPL.
static void iret_flags(void)
{
    for (unsigned iopl = 0; iopl < 4; iopl++) {
        const u32 all = 0x3f7fd5 & ~(F_VM | F_NT | F_TF | F_RF | F_AC), frame[3] = {(u32)done, UCS, all | 2};
        setup();
        probe_init(&p, do_iret, 3);
        p.in.eflags |= iopl << 12;
        push_frame(frame, 3);
        probe_run(&p);
        u32 wanted = (all & ~(F_IOPL | F_IF | F_VIF | F_VIP)) | iopl << 12 | (iopl == 3 ? F_IF : 0) | 2;
        check_equal(p.out.eflags, wanted, "IRET at CPL 3 with IOPL %u changes what it may", iopl);
    }
    const u32 frame[3] = {(u32)done, KCS, F_IOPL | F_IF | F_VIF | F_VIP | F_AC | 2};
    setup();
    probe_init(&p, do_iret, 0);
    push_frame(frame, 3);
    probe_run(&p);
    check_equal(p.out.eflags, frame[2], "IRET at CPL 0 changes all");
}

void guest_main(void)
{
    call_gates();
    call_gate_faults();
    inner_stacks();
    interrupt_gates();
    interrupt_faults();
    outward_returns();
    iret_flags();
    finish("gates");
}
