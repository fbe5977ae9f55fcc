// External interrupts: 8254 channel 0 through the 8259, the interrupt flag, its shadows, HLT, user mode.
#include "testos.h"

enum { TRIES = 4000000 };

static bool wait_pending(unsigned irq)
{
    for (unsigned i = 0; i < TRIES; i++)
        if (pic_pending(irq))
            return true;
    return false;
}

// Lets the counter fire with IF clear, so that the request is waiting.
static bool make_pending(void)
{
    pit_oneshot(50);
    return wait_pending(0);
}

static void cancel_pending(void)
{
    pit_stop();
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    for (unsigned i = 0; i < 10 && pic_pending(0); i++)
        __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
}

static void check_arrival(void)
{
    u64 before = irq_count[0];
    pit_oneshot(200);
    __asm__ volatile("sti" : : : "memory");
    for (unsigned i = 0; i < 100 * (u64)TRIES && irq_count[0] == before; i++)
        __asm__ volatile("" : : : "memory");
    __asm__ volatile("cli" : : : "memory");
    check_equal(irq_count[0], before + 1, "IRQ 0 arrives while the processor spins");
    before = irq_count[0];
    check(make_pending(), "with IF clear the request shows in the 8259");
    check_equal(irq_count[0], before, "and is not delivered");
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    check_equal(irq_count[0], before + 1, "until IF is set");
    check(!pic_pending(0), "delivery takes the request away");
    before = irq_count[0];
    pit_oneshot(200);
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
    check_equal(irq_count[0], before + 1, "HLT with IF set ends with the interrupt");
    pit_periodic(600);
    for (unsigned i = 0; i < 20; i++)
        __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
    check(irq_count[0] >= before + 21, "20 ticks of the periodic mode end 20 HLTs");
    cancel_pending();
}

static void check_masks(void)
{
    u64 before = irq_count[0];
    pic_mask(0, true);
    pit_oneshot(50);
    bool pending = wait_pending(0);
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    check(pending && irq_count[0] == before, "a masked request waits in the 8259");
    pic_mask(0, false);
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    check_equal(irq_count[0], before + 1, "and is delivered once unmasked");
    irq_leave_eoi = true;
    check(make_pending(), "a further request");
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    check_equal(irq_count[0], before + 2, "is delivered, its handler sends no EOI");
    check(make_pending(), "one more request is seen");
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    check_equal(irq_count[0], before + 2, "but held back while the first is in service");
    irq_leave_eoi = false;
    pic_eoi(0);
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
    check_equal(irq_count[0], before + 3, "and delivered after EOI");
    cancel_pending();
}

SNIPPET(irq_sti, "sti\n\tnop\n" MARK("irq_sti_after") "nop\n\tnop\n\tcli");
SNIPPET(irq_sti_cli, "sti\n\tcli\n\tnop\n\tnop");
SNIPPET(irq_sti_sti, "sti\n\tsti\n" MARK("irq_sti_sti_after") "nop\n\tnop\n\tcli");
SNIPPET(irq_popf, "popfq\n" MARK("irq_popf_after") "nop\n\tnop\n\tcli");
SNIPPET(irq_sti_hlt, "sti\n\thlt\n" MARK("irq_sti_hlt_after") "nop\n\tcli");
SNIPPET(irq_nop, "nop\n\tnop");
SNIPPET(irq_spin, "1: inc %rax\n\tjmp 1b");
SNIPPET(irq_sti_ret, "sti\n\tret");
SNIPPET(irq_movsb, "rep movsb");
SNIPPET(irq_cr8, "mov %rax, %cr8\n\tsti\n\tnop\n\tnop\n\tcli");
extern const char irq_sti_after[], irq_sti_sti_after[], irq_popf_after[], irq_sti_hlt_after[];

static void check_window(const char *code, const char *at, u64 flags, const char *what)
{
    struct probe p;
    bool pending = make_pending();
    irq_ends_probe = true;
    probe_init(&p, code, 0);
    p.in.rflags |= flags;
    p.in.rsp -= 8;
    store64(p.in.rsp, 2 | FLAG_IF);
    probe_run(&p);
    irq_ends_probe = false;
    u64 vector = at ? IRQ_BASE : VECTOR_DONE;
    check(pending && p.out.vector == vector && (!at || p.out.rip == (u64)at), "%s", what);
    if (p.out.vector != vector || (at && p.out.rip != (u64)at))
        note("vector 0x%lx rip 0x%lx, wanted vector 0x%lx rip 0x%lx", p.out.vector, p.out.rip, vector, (u64)at);
    cancel_pending();
}

static void check_windows(void)
{
    check_window(irq_sti, irq_sti_after, 0, "a waiting interrupt comes after the instruction that follows STI");
    check_window(irq_sti_cli, NULL, 0, "STI, CLI: no interrupt between");
    check_window(irq_sti_sti, irq_sti_sti_after, 0, "STI, STI: the second does not prolong the shadow");
    check_window(irq_popf, irq_popf_after, 0, "POPF that sets IF: the interrupt comes at once");
    check_window(irq_sti_hlt, irq_sti_hlt_after, 0, "STI, HLT with an interrupt waiting: HLT ends at once");
    check_window(irq_nop, irq_nop, FLAG_IF, "IRETQ that sets IF: the interrupt comes before the first instruction");
    check_window(irq_nop, NULL, 0, "IRETQ with IF clear: none");
}

static void check_user_mode(void)
{
    struct probe p;
    pit_oneshot(500);
    irq_ends_probe = true;
    probe_init(&p, irq_spin, 3);
    p.in.rflags |= FLAG_IF;
    probe_run(&p);
    irq_ends_probe = false;
    check(p.out.vector == IRQ_BASE && p.out.cs == USER_CS && p.out.rsp == p.in.rsp && p.out.rax > 0,
          "IRQ 0 interrupts a user loop");
    check(p.out.rip - p.in.rip < (u64)(irq_spin_end - irq_spin) - 2, "at an instruction of the loop");
    check_equal(p.frame_at + 40, tss_rsp0(), "on the RSP0 stack");
    check(!(p.handler_flags & FLAG_IF) && (p.out.rflags & FLAG_IF),
          "with IF clear in the handler and set in its frame");
    cancel_pending();
}

static void check_long_string(void)
{
    enum { LENGTH = 1 << 20 };
    u64 from = frames_alloc(LENGTH / 4096, 1), to = frames_alloc(LENGTH / 4096, 1), before = irq_count[0];
    for (u64 i = 0; i < LENGTH; i += 8)
        store64(from + i, i * 0x9e3779b97f4a7c15ull);
    pit_periodic(60);
    bool ok = true;
    for (unsigned round = 0; round < 4; round++) {
        struct probe p;
        probe_init(&p, irq_movsb, 0);
        p.in.rflags |= FLAG_IF;
        p.in.rsi = from + round;
        p.in.rdi = to;
        p.in.rcx = LENGTH - 8;
        probe_run(&p);
        ok = ok && p.out.rcx == 0 && p.out.rdi == to + LENGTH - 8 && p.out.rsi == from + round + LENGTH - 8;
        for (u64 i = 0; i < LENGTH - 16; i += 8)
            ok = ok && load64(to + i) == load64(from + round + i);
    }
    check(ok, "rep movsb of 1 MiB, interrupted, copies every byte once");
    check(irq_count[0] > before, "and was interrupted");
    cancel_pending();
}

static void check_apic_priority(void)
{
    struct probe p;
    u64 before = irq_count[0];
    bool pending = make_pending();
    probe_init(&p, irq_cr8, 0);
    p.in.rax = 15;
    probe_run(&p);
    check(pending && irq_count[0] == before + 1, "CR8 does not hold back an interrupt of the 8259");
    probe_init(&p, irq_cr8, 0);
    probe_run(&p);
    cancel_pending();
}

void group_irq(void)
{
    pic_init();
    pit_stop();
    pic_mask(0, false);
    cancel_pending();
    check_arrival();
    check_masks();
    check_windows();
    check_user_mode();
    check_long_string();
    check_apic_priority();
    pic_mask(0, true);
    pit_stop();
}
