/*
 * Timers with periods that no sane guest chooses: the local APIC's every nanosecond, the PIT's every tick, the RTC's
 * fastest, all at once, taken as interrupts, held off, or waited for in HLT. The run must go on at a usable speed: a
 * session is bounded in instructions or in virtual time, and the watchdog of fuzz.h bounds its processor time.
 */
#include "fuzz.h"

#include "devices/layout.h"

#define ICOUNT_LIMIT 400000
#define VTIME_LIMIT  2000000 /* ns */
#define IDT          0x3000u
#define GDT_CODE     0x10
#define COUNT_MAIN   0x2000u
#define COUNT_TAKEN  0x2004u
#define HANDLER      0x4000u
#define VECTOR       0x40

/* INC [COUNT_MAIN]; JMP back. With HLT in front for guests that wait. */
static const uint8_t spin[] = {0xff, 0x05, 0x00, 0x20, 0x00, 0x00, 0xeb, 0xf8};
static const uint8_t wait[] = {0xf4, 0xff, 0x05, 0x00, 0x20, 0x00, 0x00, 0xeb, 0xf7};

/* INC [COUNT_TAKEN]; EOI to the APIC and both PICs; RTC register C; IRET. */
static const uint8_t handler[] = {0xff, 0x05, 0x04, 0x20, 0x00, 0x00, 0xc7, 0x05, 0xb0, 0x00,
                                  0xe0, 0xfe, 0x00, 0x00, 0x00, 0x00, 0xb0, 0x20, 0xe6, 0xa0,
                                  0xe6, 0x20, 0xb0, 0x0c, 0xe6, 0x70, 0xe4, 0x71, 0xcf};

enum storm { STORM_LAPIC = 1, STORM_PIT = 2, STORM_RTC = 4, STORM_ALL = 7 };

struct plan {
    const char *name;
    unsigned sources; /* enum storm */
    bool interrupts, waits;
};

static const struct plan plans[] = {
    {"the local APIC's timer", STORM_LAPIC, true, false},
    {"the local APIC's timer, held off", STORM_LAPIC, false, false},
    {"the PIT", STORM_PIT, true, false},
    {"the PIT, held off", STORM_PIT, false, false},
    {"the RTC", STORM_RTC, true, false},
    {"everything", STORM_ALL, true, false},
    {"everything, held off", STORM_ALL, false, false},
    {"the local APIC's timer in HLT", STORM_LAPIC, true, true},
    {"everything in HLT", STORM_ALL, true, true},
    {"HLT with interrupts off", STORM_LAPIC, false, true},
};

static void poke(struct machine *m, uint64_t gpa, const void *p, size_t n)
{
    mem_access(m->mem, 0, gpa, (void *)(uintptr_t)p, n, MEM_HOST_POKE, true, BUS_NO_CPU);
}

static uint32_t peek(struct machine *m, uint64_t gpa)
{
    uint32_t v = 0;
    mem_access(m->mem, 0, gpa, &v, sizeof v, MEM_PEEK, false, BUS_NO_CPU);
    return v;
}

static void out(struct machine *m, uint16_t port, uint8_t v)
{
    bus_write(&m->ports, port, 1, v, 0);
}

static void lapic_start(struct machine *m, uint32_t count)
{
    bus_write(&m->mmio, LAYOUT_LAPIC + 0xf0, 4, 0x1ff, 0);
    bus_write(&m->mmio, LAYOUT_LAPIC + 0x3e0, 4, 0xb, 0);
    bus_write(&m->mmio, LAYOUT_LAPIC + 0x320, 4, 1u << 17 | VECTOR, 0);
    bus_write(&m->mmio, LAYOUT_LAPIC + 0x380, 4, count, 0);
}

static void pics_start(struct machine *m)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } icw[] = {{0x20, 0x11},       {0x21, VECTOR}, {0x21, 4}, {0x21, 1}, {0xa0, 0x11},
               {0xa1, VECTOR + 8}, {0xa1, 2},      {0xa1, 1}, {0x21, 0}, {0xa1, 0}};
    for (size_t k = 0; k < ARRAY_LEN(icw); k++)
        out(m, icw[k].port, icw[k].value);
}

static void pit_start(struct machine *m, uint16_t count)
{
    out(m, 0x43, 0x34);
    out(m, 0x40, (uint8_t)count);
    out(m, 0x40, (uint8_t)(count >> 8));
}

static void rtc_start(struct machine *m)
{
    out(m, 0x70, 0x0a);
    out(m, 0x71, 0x23); /* 8192 Hz */
    out(m, 0x70, 0x0b);
    out(m, 0x71, 0x72); /* periodic, alarm, update */
}

static void guest_build(struct machine *m, const struct plan *p)
{
    struct vcpu *v = m->cpu[0];
    for (unsigned k = 0; k < 256; k++) {
        uint64_t gate = (HANDLER & 0xffff) | GDT_CODE << 16 | 0x8e00ull << 32 | (uint64_t)(HANDLER >> 16) << 48;
        poke(m, IDT + 8 * k, &gate, 8);
    }
    poke(m, HANDLER, handler, sizeof handler);
    v->idtr = (struct desc_table){IDT, 0x7ff};
    v->gpr[REG_RSP] = 0x8000;
    vcpu_set_rflags(v, 2 | (p->interrupts ? FLAG_IF : 0));
    vcpu_refresh(v);
}

static void storm_start(struct fuzz *f, struct machine *m, unsigned sources)
{
    bool first = f->session < ARRAY_LEN(plans);
    if (sources & (STORM_PIT | STORM_RTC))
        pics_start(m);
    if (sources & STORM_LAPIC)
        lapic_start(m, first ? 1 : 1 + (uint32_t)rng_below(&f->rng, 40));
    if (sources & STORM_PIT)
        pit_start(m, first ? 1 : 1 + (uint16_t)rng_below(&f->rng, 4));
    if (sources & STORM_RTC)
        rtc_start(m);
}

static void check(struct fuzz *f, struct machine *m, const struct plan *p, enum machine_exit why)
{
    uint32_t loops = peek(m, COUNT_MAIN), taken = peek(m, COUNT_TAKEN);
    if (f->verbose)
        fprintf(stderr, "  %s: %s; icount %llu, time %llu, loops %u, interrupts %u\n", p->name, machine_exit_text(why),
                (unsigned long long)m->clock.icount, (unsigned long long)clock_now(&m->clock), loops, taken);
    if (p->waits && !p->interrupts && why != MACHINE_HALTED)
        fuzz_fail(f, "%s: %s", p->name, machine_exit_text(why));
    if (why != MACHINE_ICOUNT_LIMIT && why != MACHINE_VTIME_LIMIT && why != MACHINE_HALTED)
        fuzz_fail(f, "%s: %s", p->name, machine_exit_text(why));
    if (p->interrupts && !taken)
        fuzz_fail(f, "%s: no interrupt was taken", p->name);
    if (!p->interrupts && !p->waits && loops < ICOUNT_LIMIT / 2 - 2)
        fuzz_fail(f, "%s: the guest got %u times round its loop", p->name, loops);
    f->work += m->clock.icount;
}

static void session(struct fuzz *f)
{
    const struct plan *p = &plans[f->session % ARRAY_LEN(plans)];
    struct machine *m =
        fuzz_machine(f, MACHINE_MMU_SHADOW, 2, p->waits ? wait : spin, p->waits ? sizeof wait : sizeof spin);
    guest_build(m, p);
    storm_start(f, m, p->sources);
    m->cfg.icount_limit = ICOUNT_LIMIT;
    if (p->waits)
        m->cfg.vtime_limit = VTIME_LIMIT;
    check(f, m, p, machine_run(m));
    fuzz_audit(f, m);
    machine_destroy(m);
}

FUZZ_DRIVER("timer_storm", session, 60, 0)
