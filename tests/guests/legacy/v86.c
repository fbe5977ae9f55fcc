// Virtual-8086 mode: entry and exit, IOPL-sensitive instructions with and without VME, the redirection bitmap, I/O
// permission, limits, PVI.
#include "../lib32/guest32.h"

enum { CR4_VME = 1, CR4_PVI = 2 };

SNIPPET(code_end, 16, "int3");
SNIPPET(code_cli, 16, "cli\n int3");
SNIPPET(code_sti, 16, "sti\n int3");
SNIPPET(code_pushf, 16, "pushfw\n int3");
SNIPPET(code_pushfd, 16, "pushfl\n int3");
SNIPPET(code_popf, 16, "popfw\n int3");
SNIPPET(code_popfd, 16, "popfl\n int3");
SNIPPET(code_iret, 16, "iretw\n nop\n nop\n int3");
SNIPPET(code_iretd, 16, "iretl\n nop\n int3");
SNIPPET(code_int, 16, "int $0x60\n int3");
SNIPPET(code_in, 16, "in %dx, %al\n int3");
SNIPPET(code_inw, 16, "in %dx, %ax\n int3");
SNIPPET(code_ud, 16, "ud2");

static struct probe p;

static bool has_vme(void)
{
    u32 r[4];
    cpuid(1, 0, r);
    return r[3] >> 1 & 1;
}

static u16 *stack(unsigned n)
{
    return (u16 *)(LOW_STACK + LOW_SP) + n;
}

static void entry_and_exit(void)
{
    low_copy(code_end);
    v86_init(&p, F_IOPL | F_AC);
    p.in.es = 0x1234, p.in.ds = 0x2345, p.in.fs = 0x3456, p.in.gs = 0x4567;
    p.in.eax = 0xaaaaaaaa, p.in.edi = 0xdddddddd;
    probe_run(&p);
    static const char *const name[9] = {"EIP", "CS", "EFLAGS", "ESP", "SS", "ES", "DS", "FS", "GS"};
    const u32 wanted[9] = {1, LOW_SEG, F_VM | F_IOPL | F_AC | 2, LOW_SP, LOW_SS, 0x1234, 0x2345, 0x3456, 0x4567};
    check_equal(p.vector, V_BP, "INT3 leaves virtual-8086 mode");
    for (unsigned n = 0; n < 9; n++)
        check_equal(p.frame[n], wanted[n], "frame has %s", name[n]);
    check_equal(p.frame_at, (u32)trap_stack_top - 36, "the frame is 36 bytes on the stack of CPL 0");
    check_equal(p.out.ds | p.out.es | p.out.fs | p.out.gs, 0, "data segments are null in the handler");
    check_equal(p.handler_flags & (F_VM | F_NT | F_TF | F_IF), 0, "VM, NT, TF and IF are clear in the handler");
    check_equal(p.out.eax, 0xaaaaaaaa, "EAX is as it was");
    v86_init(&p, F_IOPL);
    p.in.eip = 0x10000;
    probe_run(&p);
    check_equal(p.frame[0], 1, "IRETD takes 16 bits of EIP");
    low_copy(code_ud);
    v86_init(&p, 0);
    probe_run(&p);
    check_equal(p.vector, V_UD, "UD2 is #UD");
    check_not_tcg(p.frame[2] == (F_VM | F_RF | 2), "a fault's frame has RF");
}

// What one IOPL-sensitive instruction does.
struct sensitive {
    const char *name;
    const char *code, *end;
    bool wide; // 32-bit form: VME does not help it
};

static void sensitive_faults(void)
{
    const struct sensitive all[] = {
        {"CLI", code_cli, code_cli_end, false},       {"STI", code_sti, code_sti_end, false},
        {"PUSHF", code_pushf, code_pushf_end, false}, {"PUSHFD", code_pushfd, code_pushfd_end, true},
        {"POPF", code_popf, code_popf_end, false},    {"POPFD", code_popfd, code_popfd_end, true},
        {"IRET", code_iret, code_iret_end, false},    {"IRETD", code_iretd, code_iretd_end, true},
    };
    for (unsigned k = 0; k < sizeof all / sizeof all[0]; k++) {
        for (unsigned n = 0; n < (has_vme() ? 8 : 4); n++) {
            unsigned iopl = n & 3, vme = n >> 2;
            bool faults = iopl < 3 && (!vme || all[k].wide);
            low_copy_bytes(all[k].code, (u32)(all[k].end - all[k].code));
            write_cr4((read_cr4() & ~1u) | (vme ? CR4_VME : 0));
            v86_init(&p, iopl << 12);
            stack(0)[0] = 2, stack(0)[1] = 0, stack(0)[2] = 2, stack(0)[3] = 0, stack(0)[4] = 2, stack(0)[5] = 0;
            if (all[k].code == code_iret || all[k].code == code_iretd)
                *stack(all[k].wide ? 2 : 1) = LOW_SEG;
            probe_run(&p);
            check(p.vector == (faults ? V_GP : V_BP), "%s with IOPL %u, VME %u: vector %u", all[k].name, iopl, vme,
                  p.vector);
            if (faults)
                check(p.error == 0 && p.frame[0] == 0 && p.frame[3] == LOW_SP, "%s with IOPL %u faults without a trace",
                      all[k].name, iopl);
        }
    }
    write_cr4(read_cr4() & ~1u);
}

static void run_flags(const void *code, u32 len, u32 flags, u32 image)
{
    low_copy_bytes(code, len);
    v86_init(&p, flags);
    stack(0)[0] = (u16)image, stack(0)[1] = LOW_SEG, stack(0)[2] = (u16)image;
    if (code == code_iret)
        stack(0)[0] = 2;
    probe_run(&p);
}
#define RUN_FLAGS(code, flags, image) run_flags(code, (u32)(code##_end - code), flags, image)

static void virtual_flag(void)
{
    const u32 none = F_VM | 2;
    write_cr4(read_cr4() | CR4_VME);
    RUN_FLAGS(code_sti, 0, 0);
    check_equal(p.frame[2], none | F_VIF, "STI sets VIF");
    RUN_FLAGS(code_cli, F_VIF | F_IF, 0);
    check_equal(p.frame[2], none | F_IF, "CLI clears VIF, not IF");
    RUN_FLAGS(code_sti, F_VIP, 0);
    check(p.vector == V_GP && p.error == 0, "STI with VIP is #GP(0)");
    RUN_FLAGS(code_cli, F_VIP, 0);
    check_equal(p.vector, V_BP, "CLI with VIP is fine");
    RUN_FLAGS(code_pushf, F_VIF, 0);
    check_equal(*stack(-1), 2 | F_IOPL | F_IF, "PUSHF shows VIF as IF, IOPL as 3");
    RUN_FLAGS(code_pushf, F_IF, 0);
    check_equal(*stack(-1), 2 | F_IOPL, "PUSHF hides IF");
    RUN_FLAGS(code_popf, 0, F_IF | F_CF | F_DF | F_NT | F_IOPL | 2);
    check_equal(p.frame[2], none | F_VIF | F_CF | F_DF | F_NT, "POPF sets VIF and what is the program's, not IOPL");
    RUN_FLAGS(code_popf, F_VIF | F_IF, 2);
    check_equal(p.frame[2], none | F_IF, "POPF clears VIF, not IF");
    RUN_FLAGS(code_popf, F_VIP, F_IF | 2);
    check_equal(p.vector, V_GP, "POPF of IF with VIP is #GP");
    RUN_FLAGS(code_popf, F_VIP, 2);
    check_equal(p.vector, V_BP, "POPF without IF with VIP is fine");
    RUN_FLAGS(code_popf, 0, F_TF | 2);
    check_equal(p.vector, V_GP, "POPF of TF is #GP");
    RUN_FLAGS(code_iret, 0, F_IF | F_CF | 2);
    check_equal(p.frame[2], none | F_VIF | F_CF, "IRET sets VIF");
    check_equal(p.frame[3], LOW_SP + 6, "IRET takes three words");
    RUN_FLAGS(code_iret, F_VIF, F_IOPL | 2);
    check_equal(p.frame[2], none, "IRET clears VIF and leaves IOPL");
    RUN_FLAGS(code_iret, F_VIP, F_IF | 2);
    check_equal(p.vector, V_GP, "IRET of IF with VIP is #GP");
    RUN_FLAGS(code_iret, 0, F_TF | 2);
    check_equal(p.vector, V_GP, "IRET of TF is #GP");
    RUN_FLAGS(code_popf, F_IOPL | F_VIF, F_IF | 2);
    check_equal(p.frame[2], none | F_IOPL | F_VIF | F_IF, "POPF with IOPL 3 sets IF and leaves VIF");
    RUN_FLAGS(code_sti, F_IOPL, 0);
    check_equal(p.frame[2], none | F_IOPL | F_IF, "STI with IOPL 3 sets IF");
    RUN_FLAGS(code_popf, F_IOPL, 2);
    check_equal(p.frame[2], none | F_IOPL, "POPF with IOPL 3 cannot lower IOPL");
    write_cr4(read_cr4() & ~1u);
}

static void redirect(unsigned vector, bool redirected)
{
    if (redirected)
        tss.redirection[vector / 8] &= (u8) ~(1u << vector % 8);
    else
        tss.redirection[vector / 8] |= (u8)(1u << vector % 8);
}

static void run_int(unsigned iopl, bool vme, bool redirected, u32 flags)
{
    low_copy(code_int);
    write_cr4((read_cr4() & ~1u) | (vme ? CR4_VME : 0));
    redirect(0x60, redirected);
    *(volatile u32 *)(0x60 * 4) = (u32)LOW_SEG << 16 | 2; // the INT3
    *stack(-1) = *stack(-2) = *stack(-3) = 0xdead;
    v86_init(&p, iopl << 12 | flags);
    probe_run(&p);
}

static void own_table(void)
{
    run_int(0, true, true, F_VIF);
    check_equal(*stack(-1), 2 | F_IOPL | F_IF, "INT n shows VIF as IF in the image");
    check_equal(p.frame[2] & F_VIF, 0, "INT n clears VIF");
    run_int(0, true, true, F_TF);
    check_equal(p.vector, V_BP, "INT n clears TF: no trap after it");
    check_equal(*stack(-1) & F_TF, F_TF, "TF is in the image");
}

static void interrupts(void)
{
    gate_default(0x60);
    idt[0x60] |= (u64)0x60 << 40;
    for (unsigned n = 0; n < 16; n++) {
        unsigned iopl = n & 3;
        if (n >= 4 && !has_vme())
            break;
        bool vme = n & 4, redirected = n & 8;
        run_int(iopl, vme, redirected, F_IF);
        if (vme && redirected) {
            check(p.vector == V_BP && p.frame[3] == LOW_SP - 6, "INT n with IOPL %u, VME, bit clear: own table", iopl);
            u32 image = iopl == 3 ? 2 | F_IOPL | F_IF : 2 | F_IOPL;
            check_equal(*stack(-1), image, "its FLAGS image with IOPL %u", iopl);
            check_equal(stack(-2)[0] | (u32)stack(-3)[0] << 16, LOW_SEG | 2u << 16, "its CS:IP with IOPL %u", iopl);
            check_equal(p.frame[2] & (F_IF | F_VIF), iopl == 3 ? 0 : F_IF, "IF after it with IOPL %u", iopl);
        } else if (iopl == 3) {
            check(p.vector == 0x60 && p.frame[0] == 2, "INT n with IOPL 3, VME %u: through the IDT", vme);
        } else {
            check(p.vector == V_GP && p.error == 0 && p.frame[0] == 0, "INT n with IOPL %u, VME %u: #GP(0)", iopl, vme);
        }
    }
    if (has_vme())
        own_table();
    redirect(3, true);
    low_copy(code_end);
    v86_init(&p, 0);
    probe_run(&p);
    check(p.vector == V_BP && p.frame[1] == LOW_SEG, "INT3 is never redirected");
    redirect(3, false);
    write_cr4(read_cr4() & ~1u);
    gate_default(0x60);
    run_int(3, false, false, 0);
    check(p.vector == V_GP && p.error == 0x60 * 8 + 2, "INT n through a gate of DPL 0: #GP of the gate");
    gdt_set(SPARE, descriptor(0, 0xfffff, A_CODE | A_DPL3, FLAT));
    idt[0x60] = gate(SPARE | 3, stub_address(0x60), 0xee, 0);
    run_int(3, false, false, 0);
    check(p.vector == V_GP && p.error == SPARE, "handler at DPL 3: #GP of its selector");
    gdt_set(SPARE, descriptor(0, 0xfffff, A_CODE | 4, FLAT));
    idt[0x60] = gate(SPARE, stub_address(0x60), 0xee, 0);
    run_int(3, false, false, 0);
    check(p.vector == V_GP && p.error == SPARE, "conforming handler: #GP of its selector");
    gate_default(0x60);
}

static void run_port(const void *code, u32 len, unsigned port, unsigned iopl)
{
    low_copy_bytes(code, len);
    v86_init(&p, iopl << 12);
    p.in.edx = port;
    probe_run(&p);
}
#define RUN_PORT(code, port, iopl) run_port(code, (u32)(code##_end - code), port, iopl)

static void ports(void)
{
    for (unsigned iopl = 0; iopl < 4; iopl++) {
        RUN_PORT(code_in, 0x61, iopl);
        check(p.vector == V_GP && p.error == 0, "IN with its bit set is #GP(0) at IOPL %u", iopl);
    }
    tss.map[0x61 / 8] &= (u8) ~(1u << (0x61 & 7));
    RUN_PORT(code_in, 0x61, 0);
    check_equal(p.vector, V_BP, "IN with its bit clear is allowed at IOPL 0");
    RUN_PORT(code_inw, 0x61, 0);
    check_equal(p.vector, V_GP, "a word needs both bits");
    tss.map[0x61 / 8] |= (u8)(1u << (0x61 & 7));
    tss.map[0x80 / 8] &= (u8)~0x80;
    tss.map[0x88 / 8] &= (u8)~0x01;
    RUN_PORT(code_inw, 0x87, 0);
    check_equal(p.vector, V_BP, "the bits may lie in two bytes");
    tss.map[0x80 / 8] = tss.map[0x88 / 8] = 0xff;
}

SNIPPET(code_hlt, 16, "hlt");
SNIPPET(code_mov_cr0, 16, "mov %cr0, %eax");
SNIPPET(code_mov_dr, 16, "mov %dr0, %eax");
SNIPPET(code_lgdt, 16, "lgdt 0");
SNIPPET(code_lidt, 16, "lidt 0");
SNIPPET(code_lmsw, 16, "lmsw %ax");
SNIPPET(code_clts, 16, "clts");
SNIPPET(code_invlpg, 16, "invlpg 0");
SNIPPET(code_wbinvd, 16, "wbinvd");
SNIPPET(code_rdmsr, 16, "rdmsr");
SNIPPET(code_lldt, 16, "lldt %ax");
SNIPPET(code_ltr, 16, "ltr %ax");
SNIPPET(code_sldt, 16, "sldt %ax");
SNIPPET(code_str, 16, "str %ax");
SNIPPET(code_lar, 16, "lar %ax, %ax");
SNIPPET(code_lsl, 16, "lsl %ax, %ax");
SNIPPET(code_verr, 16, "verr %ax");
SNIPPET(code_arpl, 16, ".byte 0x63, 0xc0");

static void forbidden(void)
{
    const struct {
        const char *name, *code, *end;
        unsigned vector;
    } all[] = {
#define X(name, vector) {#name, code_##name, code_##name##_end, vector}
        X(hlt, V_GP),  X(mov_cr0, V_GP), X(mov_dr, V_GP), X(lgdt, V_GP),  X(lidt, V_GP), X(lmsw, V_GP),
        X(clts, V_GP), X(invlpg, V_GP),  X(wbinvd, V_GP), X(rdmsr, V_GP), X(lldt, V_UD), X(ltr, V_UD),
        X(sldt, V_UD), X(str, V_UD),     X(lar, V_UD),    X(lsl, V_UD),   X(verr, V_UD), X(arpl, V_UD),
#undef X
    };
    for (unsigned k = 0; k < sizeof all / sizeof all[0]; k++) {
        low_copy_bytes(all[k].code, (u32)(all[k].end - all[k].code));
        v86_init(&p, F_IOPL);
        probe_run(&p);
        check(p.vector == all[k].vector && (!p.is_error || p.error == 0), "%s: vector %u", all[k].name, p.vector);
    }
}

SNIPPET(code_smsw, 16, "smsw %ax\n int3");
SNIPPET(code_load, 16, "mov (%bx), %ax\n int3");
SNIPPET(code_load32, 16, "mov (%ebx), %ax\n int3");
SNIPPET(code_store_ss, 16, "mov %ax, %ss:(%bx)\n int3");
SNIPPET(code_push, 16, "push %ax\n int3");
SNIPPET(code_segment, 16, "mov %ax, %ds\n mov 0, %cx\n int3");
SNIPPET(code_far, 16, "ljmp $0x2100, $0\n");
SNIPPET(code_step, 16, "nop\n nop\n int3");

static void run_load(const void *code, u32 len, u32 ebx)
{
    low_copy_bytes(code, len);
    v86_init(&p, F_IOPL);
    p.in.ebx = ebx;
    probe_run(&p);
}
#define RUN_LOAD(code, ebx) run_load(code, (u32)(code##_end - code), ebx)

static void segments(void)
{
    RUN_LOAD(code_smsw, 0);
    check(p.vector == V_BP && (p.out.eax & 1), "SMSW shows PE");
    RUN_LOAD(code_load, 0xfffe);
    check_equal(p.vector, V_BP, "word at FFFE");
    RUN_LOAD(code_load, 0xffff);
    check_not_tcg(p.vector == V_GP && p.error == 0, "word at FFFF is #GP(0)");
    RUN_LOAD(code_load32, 0x10000);
    check_not_tcg(p.vector == V_GP, "offset 10000 is #GP");
    RUN_LOAD(code_store_ss, 0xffff);
    check_not_tcg(p.vector == V_SS && p.error == 0, "word at SS:FFFF is #SS(0)");
    low_copy(code_push);
    v86_init(&p, F_IOPL);
    p.in.esp = 1;
    probe_run(&p);
    check_not_tcg(p.vector == V_SS, "PUSH with SP 1 is #SS");
    low_copy(code_push);
    v86_init(&p, F_IOPL);
    p.in.esp = 0;
    probe_run(&p);
    check_equal(p.frame[3], 0xfffe, "PUSH with SP 0 wraps");
    *(volatile u16 *)0x54320 = 0xbeef;
    low_copy(code_segment);
    v86_init(&p, F_IOPL);
    p.in.eax = 0x5432;
    probe_run(&p);
    check_equal(p.out.ecx & 0xffff, 0xbeef, "a selector is a base in paragraphs");
    low_copy(code_far);
    memcpy((void *)0x21000, code_end, 1);
    v86_init(&p, F_IOPL);
    probe_run(&p);
    check(p.vector == V_BP && p.frame[1] == 0x2100 && p.frame[0] == 1, "far jump");
    low_copy(code_step);
    v86_init(&p, F_IOPL | F_TF);
    write_dr6(0);
    probe_run(&p);
    check(p.vector == V_DB && p.frame[0] == 1 && (read_dr6() & 0x4000), "single step");
    write_dr6(0);
}

SNIPPET(pm_cli, 32, "cli\n int3");
SNIPPET(pm_sti, 32, "sti\n int3");

static void protected_virtual_interrupts(void)
{
    for (unsigned pvi = 0; pvi < 2; pvi++) {
        write_cr4((read_cr4() & ~3u) | (pvi ? CR4_PVI : 0));
        RUN(&p, pm_sti, 3);
        check(p.vector == (pvi ? V_BP : V_GP) && (p.frame[2] & F_VIF) == (pvi ? F_VIF : 0u), "STI at CPL 3, PVI %u",
              pvi);
        probe_init(&p, pm_cli, 3);
        p.in.eflags |= F_VIF;
        probe_run(&p);
        check(p.vector == (pvi ? V_BP : V_GP) && (p.frame[2] & F_VIF) == (pvi ? 0 : F_VIF + 0u), "CLI at CPL 3, PVI %u",
              pvi);
    }
    probe_init(&p, pm_sti, 3);
    p.in.eflags |= F_VIP;
    probe_run(&p);
    check_equal(p.vector, V_GP, "STI at CPL 3 with VIP is #GP");
    probe_init(&p, pm_sti, 3);
    p.in.eflags |= F_IOPL;
    probe_run(&p);
    check_equal(p.frame[2], F_IOPL | F_IF | 2, "STI with IOPL 3 sets IF though PVI is on");
    write_cr4(read_cr4() & ~3u);
}

void guest_main(void)
{
    entry_and_exit();
    sensitive_faults();
    if (has_vme())
        virtual_flag();
    interrupts();
    ports();
    forbidden();
    segments();
    if (has_vme())
        protected_virtual_interrupts();
    finish("v86");
}
