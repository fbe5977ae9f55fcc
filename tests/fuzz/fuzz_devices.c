/*
 * Random port and MMIO accesses of all sizes to every device of a built machine, interrupt acknowledgements, fw_cfg
 * requests with hostile descriptors, typed bytes, and jumps in time.
 *
 * Half way the state is saved and loaded into a second machine, which must have the same digest; from there on both do
 * the same things, must read the same values, and must end with the same digest.
 */
#include "fuzz.h"

#include "core/snapshot.h"
#include "devices/layout.h"

#include <string.h>
#include <unistd.h>

#define STEPS            3000
#define RAM_MIB          4
#define MACHINES         2
#define MSR_TSC_DEADLINE 0x6e0

static const uint8_t image_code[] = {0xf4, 0xeb, 0xfd};

struct bench {
    struct fuzz *f;
    struct rng *rng;
    struct machine *m[MACHINES];
    unsigned count; /* machines in use */
};

/* What an access gave, which every machine must agree on. */
static void expect_same(const struct bench *b, const char *what, uint64_t at, const uint64_t value[MACHINES])
{
    for (unsigned k = 1; k < b->count; k++)
        if (value[k] != value[0])
            fuzz_fail(b->f, "after a load, %s 0x%llx gives 0x%llx instead of 0x%llx", what, (unsigned long long)at,
                      (unsigned long long)value[k], (unsigned long long)value[0]);
}

/* ---- buses ---- */

static uint64_t address_on(struct bench *b, const struct bus *bus)
{
    const struct bus_range *r = &bus->ranges[rng_below(b->rng, bus->count)];
    switch (rng_below(b->rng, 8)) {
    case 0: /* around an end */
        return r->base + (rng_one_in(b->rng, 2) ? r->len : 0) - rng_below(b->rng, 8);
    case 1:
        return rng_number(b->rng);
    case 2: /* registers of APICs are 16 bytes apart */
        return r->base + (rng_below(b->rng, r->len) & ~0xfull);
    default:
        return r->base + rng_below(b->rng, r->len < 0x400 ? r->len : 0x400);
    }
}

static void access_bus(struct bench *b, bool ports)
{
    const struct bus *bus = ports ? &b->m[0]->ports : &b->m[0]->mmio;
    uint64_t at = address_on(b, bus), value = rng_number(b->rng), got[MACHINES];
    unsigned size = 1u << rng_below(b->rng, ports ? 3 : 4);
    bool write = !rng_one_in(b->rng, 3);
    int cpu = rng_one_in(b->rng, 8) ? BUS_NO_CPU : 0;
    if (ports)
        at &= 0xffff;
    for (unsigned k = 0; k < b->count; k++) {
        struct bus *to = ports ? &b->m[k]->ports : &b->m[k]->mmio;
        clock_charge(&b->m[k]->clock, ports ? CLOCK_SURCHARGE_PORT_IO : CLOCK_SURCHARGE_MMIO);
        if (write)
            bus_write(to, at, size, value, cpu);
        else
            got[k] = bus_read(to, at, size, cpu);
    }
    if (!write)
        expect_same(b, ports ? "port" : "MMIO address", at, got);
}

static void write_port(struct bench *b, uint16_t port, unsigned size, uint64_t value)
{
    for (unsigned k = 0; k < b->count; k++)
        bus_write(&b->m[k]->ports, port, size, value, 0);
}

static void write_mmio(struct bench *b, uint64_t at, uint32_t value)
{
    for (unsigned k = 0; k < b->count; k++)
        bus_write(&b->m[k]->mmio, at, 4, value, 0);
}

/* ---- devices that deserve a plan ---- */

static void program_pit(struct bench *b)
{
    uint8_t channel = (uint8_t)rng_below(b->rng, 3);
    uint64_t count = rng_one_in(b->rng, 2) ? rng_below(b->rng, 4) : rng_next(b->rng);
    write_port(b, LAYOUT_PIT_PORT + 3, 1, (uint64_t)channel << 6 | 0x30 | rng_below(b->rng, 16));
    write_port(b, LAYOUT_PIT_PORT + channel, 1, count & 0xff);
    write_port(b, LAYOUT_PIT_PORT + channel, 1, count >> 8 & 0xff);
}

static void program_lapic(struct bench *b)
{
    uint64_t count = rng_one_in(b->rng, 2) ? rng_below(b->rng, 3) : rng_number(b->rng);
    write_mmio(b, LAYOUT_LAPIC + 0xf0, 0x100 | (uint32_t)rng_below(b->rng, 256));
    write_mmio(b, LAYOUT_LAPIC + 0x3e0, (uint32_t)rng_below(b->rng, 16));
    write_mmio(b, LAYOUT_LAPIC + 0x320, (uint32_t)(rng_below(b->rng, 4) << 17 | rng_below(b->rng, 256)));
    write_mmio(b, LAYOUT_LAPIC + 0x380, (uint32_t)count);
}

static void program_ioapic(struct bench *b)
{
    uint32_t pin = (uint32_t)rng_below(b->rng, 26);
    write_mmio(b, LAYOUT_IOAPIC, 0x10 + 2 * pin);
    write_mmio(b, LAYOUT_IOAPIC + 0x10, (uint32_t)(rng_next(b->rng) & 0x1ffff));
    write_mmio(b, LAYOUT_IOAPIC, 0x11 + 2 * pin);
    write_mmio(b, LAYOUT_IOAPIC + 0x10, (uint32_t)rng_number(b->rng));
}

static void program_rtc(struct bench *b)
{
    uint8_t reg = rng_one_in(b->rng, 2) ? (uint8_t)(0xa + rng_below(b->rng, 3)) : (uint8_t)rng_below(b->rng, 128);
    write_port(b, LAYOUT_RTC_PORT, 1, reg);
    write_port(b, LAYOUT_RTC_PORT + 1, 1, rng_next(b->rng) & 0xff);
}

static void program_pci(struct bench *b)
{
    static const uint8_t functions[] = {LAYOUT_PCI_HOST_DEVFN, LAYOUT_PCI_ISA_DEVFN, LAYOUT_PCI_PM_DEVFN, 0x10};
    uint32_t reg = (uint32_t)(rng_below(b->rng, 64) << 2);
    write_port(b, LAYOUT_PCI_CONFIG_PORT, 4, 0x80000000u | (uint32_t)RNG_PICK(b->rng, functions) << 8 | reg);
    write_port(b, (uint16_t)(LAYOUT_PCI_CONFIG_PORT + 4), 4, rng_number(b->rng));
}

static void put_be(uint8_t *p, unsigned size, uint64_t v)
{
    for (unsigned k = 0; k < size; k++)
        p[k] = (uint8_t)(v >> 8 * (size - 1 - k));
}

/* An address that a DMA request should not name, or a good one. */
static uint64_t dma_address(struct bench *b)
{
    static const uint64_t places[] = {0x1000,
                                      0x9fff8,
                                      0xa0000,
                                      0xe0000,
                                      0xffff0,
                                      0x100000,
                                      LAYOUT_LAPIC,
                                      LAYOUT_IOAPIC,
                                      ((uint64_t)RAM_MIB << 20) - 8,
                                      0xfffffffffffffff0ull};
    return rng_one_in(b->rng, 4) ? rng_number(b->rng) : RNG_PICK(b->rng, places) + rng_below(b->rng, 16);
}

static void request_dma(struct bench *b)
{
    static const uint16_t keys[] = {0, 1, 3, 5, 0x19, 0x20, 0x7fff, 0xffff};
    uint8_t d[16];
    uint64_t at = rng_one_in(b->rng, 4) ? dma_address(b) : 0x2000 + rng_below(b->rng, 0x2000);
    put_be(d, 4, (uint64_t)RNG_PICK(b->rng, keys) << 16 | rng_below(b->rng, 32));
    put_be(d + 4, 4, rng_one_in(b->rng, 2) ? rng_below(b->rng, 0x11000) : rng_number(b->rng));
    put_be(d + 8, 8, dma_address(b));
    for (unsigned k = 0; k < b->count; k++)
        mem_access(b->m[k]->mem, 0, at, d, sizeof d, MEM_DMA, true, BUS_NO_CPU);
    write_port(b, LAYOUT_FW_CFG_DMA_PORT, 4, __builtin_bswap32((uint32_t)(at >> 32)));
    write_port(b, LAYOUT_FW_CFG_DMA_PORT + 4, 4, __builtin_bswap32((uint32_t)at));
}

/* ---- the processor's side ---- */

static void ask_intc(struct bench *b)
{
    uint64_t value[MACHINES] = {0}, v = rng_number(b->rng);
    uint32_t msr = rng_one_in(b->rng, 3) ? MSR_TSC_DEADLINE : 0x800 + (uint32_t)rng_below(b->rng, 0x40);
    unsigned what = (unsigned)rng_below(b->rng, 6);
    if (what == 5 && rng_one_in(b->rng, 4))
        msr = 0x1b, v = 0xfee00000 | (rng_next(b->rng) & 0xd00);
    for (unsigned k = 0; k < b->count; k++) {
        const struct cpu_intc *intc = b->m[k]->cpu[0]->intc;
        if (what < 3)
            value[k] = (uint64_t)intc->ack(intc->ctx);
        else if (what == 3)
            intc->set_cr8(intc->ctx, v & 15);
        else if (what == 4)
            value[k] = intc->msr_read(intc->ctx, msr, &value[k]) ? value[k] : UINT64_MAX;
        else
            value[k] = intc->msr_write(intc->ctx, msr, v);
    }
    expect_same(b, "the interrupt controller's register", msr, value);
}

static void pass_time(struct bench *b)
{
    const struct vclock *c = &b->m[0]->clock;
    uint64_t now = clock_now(c), next = clock_next_deadline(c), to = now + rng_below(b->rng, 1000);
    switch (rng_below(b->rng, 6)) {
    case 0:
        to = now + rng_below(b->rng, 1000000000ull);
        break;
    case 1:
        to = now + (rng_one_in(b->rng, 20) ? rng_below(b->rng, 1ull << 50) : 1000000);
        break;
    case 2:
    case 3: /* as an idle machine does */
        to = next == CLOCK_NEVER ? now : next;
        break;
    default:
        break;
    }
    for (unsigned k = 0; k < b->count; k++) {
        clock_retire(&b->m[k]->clock, 1);
        clock_skip_to(&b->m[k]->clock, to);
        clock_run_due(&b->m[k]->clock);
    }
}

static void type_bytes(struct bench *b)
{
    uint8_t bytes[40];
    size_t n = 1 + rng_below(b->rng, sizeof bytes);
    rng_bytes(b->rng, bytes, n);
    for (unsigned k = 0; k < b->count; k++) {
        machine_serial_input(b->m[k], bytes, n);
        if (n % 2)
            input_deliver_due(&b->m[k]->input, b->m[k]->clock.icount);
    }
}

static void reset_or_forget(struct bench *b)
{
    bool reset = rng_one_in(b->rng, 50);
    for (unsigned k = 0; k < b->count; k++) {
        b->m[k]->want = (struct machine_requests){0};
        if (reset)
            machine_reset(b->m[k]);
    }
}

static void step(struct bench *b)
{
    typedef void step_fn(struct bench *);
    static step_fn *const plans[] = {program_pit, program_lapic, program_ioapic, program_rtc, program_pci,
                                     request_dma, ask_intc,      ask_intc,       type_bytes,  reset_or_forget};
    switch (rng_below(b->rng, 8)) {
    case 0:
    case 1:
        pass_time(b);
        break;
    case 2:
    case 3:
        RNG_PICK(b->rng, plans)(b);
        break;
    case 4:
        access_bus(b, false);
        break;
    default:
        access_bus(b, true);
    }
    b->f->work++;
    b->f->round++;
}

/* ---- a session ---- */

static void save_and_load(struct bench *b)
{
    struct error e = {""};
    char path[128];
    snprintf(path, sizeof path, "%s/state", b->f->dir);
    b->m[1] = fuzz_machine(b->f, MACHINE_MMU_SHADOW, RAM_MIB, image_code, sizeof image_code);
    if (!machine_save(b->m[0], path, &e) || !machine_load(b->m[1], path, &e))
        fuzz_fail(b->f, "%s", e.text);
    unlink(path);
    b->count = 2;
}

/* Which section differs, for the message. */
static void check_digests(struct bench *b, const char *when)
{
    if (machine_digest(b->m[0]) != machine_digest(b->m[1]))
        fuzz_fail(b->f, "the digests differ %s", when);
}

static void session(struct fuzz *f)
{
    struct bench b = {.f = f, .rng = &f->rng, .count = 1};
    uint64_t saved = rng_below(&f->rng, STEPS);
    b.m[0] = fuzz_machine(f, MACHINE_MMU_SHADOW, RAM_MIB, image_code, sizeof image_code);
    for (unsigned k = 0; k < STEPS; k++) {
        if (k == saved) {
            save_and_load(&b);
            check_digests(&b, "after the load");
        }
        step(&b);
    }
    check_digests(&b, "at the end");
    fuzz_audit(f, b.m[0]);
    for (unsigned k = 0; k < b.count; k++)
        machine_destroy(b.m[k]);
}

int main(int argc, char **argv)
{
    return fuzz_main("fuzz_devices", session, 600, argc, argv);
}
