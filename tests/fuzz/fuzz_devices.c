/*
 * Random port and MMIO accesses of all sizes to every device of a built machine, interrupt acknowledgements, fw_cfg
 * requests with hostile descriptors, typed bytes, and jumps in time.
 *
 * Half way the state is saved and loaded into a second machine, which must have the same digest; from there on both do
 * the same things, must read the same values, and must end with the same digest.
 */
#include "fuzz.h"

#include "core/bytes.h"
#include "core/digest.h"
#include "core/keys.h"
#include "core/snapshot.h"
#include "devices/layout.h"
#include "frontends/machine/screen.h"

#include <stdlib.h>
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

static void program_hpet(struct bench *b)
{
    uint64_t timer = LAYOUT_HPET + 0x100 + 0x20 * rng_below(b->rng, 3);
    write_mmio(b, LAYOUT_HPET + 0x10, (uint32_t)rng_below(b->rng, 4));
    write_mmio(b, timer, (uint32_t)(rng_next(b->rng) & 0x014e) | (uint32_t)(16 + rng_below(b->rng, 8)) << 9);
    write_mmio(b, timer + 8, (uint32_t)(rng_one_in(b->rng, 2) ? rng_below(b->rng, 3) : rng_number(b->rng)));
    write_mmio(b, timer + 8, (uint32_t)rng_number(b->rng));
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

/* ---- storage ---- */

#define DRIVES 4

/* Two disks, a CD and a floppy, with overlays on top; machines of later sessions find them. What is in them comes from
 * one number. */
static void make_drives(struct fuzz *f)
{
    static const char *const names[DRIVES] = {"disk", "slave", "cd", "floppy"};
    static const size_t size[DRIVES] = {300 * 512, 64 * 512, 40 * 2048, 720 * 512};
    static char path[DRIVES][128];
    struct rng content = {.state = rng_next(&f->rng)};
    uint8_t bytes[0x4000];
    for (size_t k = 0; k < sizeof bytes; k += 8)
        store_le(bytes + k, rng_next(&content), 8);
    for (unsigned k = 0; k < DRIVES; k++) {
        snprintf(path[k], sizeof path[k], "%s/%s", f->dir, names[k]);
        FILE *out = fopen(path[k], "wb");
        if (!out || fwrite(bytes, 1, sizeof bytes, out) != sizeof bytes || fclose(out) ||
            truncate(path[k], (off_t)size[k]))
            fuzz_fail(f, "cannot write %s", path[k]);
        f->drive[k] = (struct drive_config){.file = path[k], .format = BLOCK_FORMAT_RAW, .snapshot = true, .index = k};
    }
    f->drive[2].is_cdrom = true;
    f->drive[3].interface = DRIVE_FLOPPY;
    f->drive[3].index = 0;
    f->drive_count = DRIVES;
}

/* Every other machine starts from a ROM, with the registers that show RAM in its place. */
static struct mem_file make_firmware(struct fuzz *f)
{
    static const uint8_t rom[FIRMWARE_UNIT] = {0xf4};
    return mem_file_make(f, rom, sizeof rom);
}

/* PAM and SMRAM, and what they show. */
static void program_pam(struct bench *b)
{
    unsigned reg = rng_one_in(b->rng, 4) ? 0x72 : 0x59 + (unsigned)rng_below(b->rng, 7);
    uint64_t at = (reg == 0x72 ? 0xa0000 : 0xc0000) + rng_below(b->rng, 0x40000), value = rng_next(b->rng);
    write_port(b, LAYOUT_PCI_CONFIG_PORT, 4, 0x80000000u | (reg & ~3u));
    write_port(b, (uint16_t)(LAYOUT_PCI_CONFIG_PORT + 4 + (reg & 3)), 1, rng_next(b->rng) & 0xff);
    for (unsigned k = 0; k < b->count; k++)
        mem_access(b->m[k]->mem, 0, at, &value, 1 + value % 8, MEM_DMA, true, BUS_NO_CPU);
}

static void poke_all(struct bench *b, uint64_t at, const void *bytes, size_t len)
{
    for (unsigned k = 0; k < b->count; k++)
        mem_access(b->m[k]->mem, 0, at, (void *)(uintptr_t)bytes, len, MEM_DMA, true, BUS_NO_CPU);
}

/* A table of regions, some of them nowhere, and the bus master's start bit. */
static void start_bus_master(struct bench *b, unsigned channel)
{
    uint8_t table[4 * 8];
    for (unsigned k = 0; k < 4; k++) {
        store_le(table + 8 * k, rng_one_in(b->rng, 4) ? dma_address(b) : 0x4000 + rng_below(b->rng, 0x4000), 4);
        store_le(table + 8 * k + 4, rng_one_in(b->rng, 2) ? 512ull << rng_below(b->rng, 6) : rng_next(b->rng), 2);
        store_le(table + 8 * k + 6, k == 3 || rng_one_in(b->rng, 3) ? 0x8000 : 0, 2);
    }
    poke_all(b, 0x3000, table, sizeof table);
    write_port(b, LAYOUT_PCI_CONFIG_PORT, 4, 0x80000000u | LAYOUT_PCI_IDE_DEVFN << 8 | 0x20);
    write_port(b, LAYOUT_PCI_CONFIG_PORT + 4, 4, 0xd001);
    write_port(b, LAYOUT_PCI_CONFIG_PORT, 4, 0x80000000u | LAYOUT_PCI_IDE_DEVFN << 8 | 0x04);
    write_port(b, LAYOUT_PCI_CONFIG_PORT + 4, 2, 0x5);
    write_port(b, (uint16_t)(0xd000 + 8 * channel), 1, 0);
    write_port(b, (uint16_t)(0xd004 + 8 * channel), 4, rng_one_in(b->rng, 8) ? dma_address(b) : 0x3000);
    write_port(b, (uint16_t)(0xd000 + 8 * channel), 1, rng_one_in(b->rng, 8) ? rng_next(b->rng) & 9 : 9);
}

/* Twelve bytes through the data register, and a good part of the answer. */
static void send_packet(struct bench *b, uint16_t port)
{
    static const uint8_t opcodes[] = {0x00, 0x03, 0x12, 0x1a, 0x1b, 0x25, 0x28,
                                      0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xbe};
    uint8_t p[12];
    rng_bytes(b->rng, p, sizeof p);
    p[0] = rng_one_in(b->rng, 8) ? p[0] : RNG_PICK(b->rng, opcodes);
    if (!rng_one_in(b->rng, 3)) {
        memset(p + 2, 0, 3);
        p[5] = (uint8_t)rng_below(b->rng, 48);
        p[7] = p[6] = 0;
    }
    for (unsigned k = 0; k < 12; k += 2)
        write_port(b, port, 2, p[k] | (uint64_t)p[k + 1] << 8);
}

static void pass_time(struct bench *b);

static void move_data(struct bench *b, uint16_t port)
{
    uint64_t got[MACHINES];
    bool write = rng_one_in(b->rng, 2);
    for (unsigned n = (unsigned)rng_below(b->rng, 1200); n; n--) {
        uint64_t v = rng_next(b->rng);
        for (unsigned k = 0; k < b->count; k++)
            if (write)
                bus_write(&b->m[k]->ports, port, 2, v, 0);
            else
                got[k] = bus_read(&b->m[k]->ports, port, 2, 0);
        if (!write)
            expect_same(b, "data register", port, got);
    }
}

static void program_ide(struct bench *b)
{
    static const uint8_t commands[] = {0x06, 0x08, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x90, 0x91,
                                       0xa0, 0xa0, 0xa0, 0xa1, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xe7, 0xec, 0xef, 0xf8};
    unsigned channel = (unsigned)rng_below(b->rng, 2);
    uint16_t port = channel ? LAYOUT_IDE1_PORT : LAYOUT_IDE0_PORT;
    uint8_t command = rng_one_in(b->rng, 16) ? (uint8_t)rng_next(b->rng) : RNG_PICK(b->rng, commands);
    bool near_by = !rng_one_in(b->rng, 4);
    uint8_t select = rng_one_in(b->rng, 4) ? 0xf0 : 0xe0;
    write_port(b, (uint16_t)(port + 6), 1, rng_one_in(b->rng, 8) ? rng_next(b->rng) & 0xff : select);
    for (unsigned r = 1; r < 6; r++) {
        write_port(b, (uint16_t)(port + r), 1, near_by ? 0 : rng_next(b->rng) & 0xff);
        write_port(b, (uint16_t)(port + r), 1, near_by && r > 3 ? 0 : rng_below(b->rng, r == 3 ? 256 : 20));
    }
    write_port(b, (uint16_t)(port + 7), 1, command);
    if (command == 0xa0)
        send_packet(b, port);
    if (rng_one_in(b->rng, 2))
        start_bus_master(b, channel);
    for (unsigned n = (unsigned)rng_below(b->rng, 4); n; n--) {
        pass_time(b);
        move_data(b, port);
    }
}

static void program_floppy(struct bench *b)
{
    static const uint8_t commands[] = {0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0a, 0x0d, 0x0f, 0x13, 0x14, 0x94,
                                       0x45, 0x46, 0xc5, 0xc6, 0xe6, 0x4d, 0x0e, 0x10, 0x12, 0x18, 0x4a};
    uint64_t got[MACHINES];
    write_port(b, LAYOUT_FDC_PORT + 2, 1, rng_one_in(b->rng, 30) ? rng_next(b->rng) & 0xff : 0x1c);
    write_port(b, LAYOUT_FDC_DIR_PORT, 1, rng_one_in(b->rng, 8) ? rng_below(b->rng, 4) : 2);
    write_port(b, LAYOUT_DMA_LOW_PORT + 12, 1, 0);
    for (unsigned k = 0; k < 2; k++) {
        write_port(b, LAYOUT_DMA_LOW_PORT + 4, 1, rng_next(b->rng) & 0xff);
        write_port(b, LAYOUT_DMA_LOW_PORT + 5, 1, rng_below(b->rng, 12));
    }
    write_port(b, LAYOUT_DMA_PAGE_PORT + 1, 1, rng_one_in(b->rng, 4) ? rng_next(b->rng) & 0xff : 1);
    write_port(b, LAYOUT_DMA_LOW_PORT + 11, 1, rng_one_in(b->rng, 2) ? 0x46 : 0x4a);
    write_port(b, LAYOUT_DMA_LOW_PORT + 10, 1, 2);
    write_port(b, LAYOUT_FDC_PORT + 5, 1, RNG_PICK(b->rng, commands));
    for (unsigned n = (unsigned)rng_below(b->rng, 10); n; n--) {
        uint64_t v = rng_one_in(b->rng, 4) ? rng_next(b->rng) & 0xff : rng_below(b->rng, 4);
        write_port(b, LAYOUT_FDC_PORT + 5, 1, v);
    }
    pass_time(b);
    for (unsigned n = (unsigned)rng_below(b->rng, 12); n; n--) {
        for (unsigned k = 0; k < b->count; k++)
            got[k] = bus_read(&b->m[k]->ports, LAYOUT_FDC_PORT + 5, 1, 0);
        expect_same(b, "floppy data", 0, got);
    }
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
        machine_serial_input(b->m[k], 0, bytes, n);
        if (n % 2)
            input_deliver_due(&b->m[k]->input, b->m[k]->clock.icount);
    }
}

/* The serial mouse has power, or has none for a moment. */
static void program_serial_mouse(struct bench *b)
{
    write_port(b, LAYOUT_COM2_PORT + 4, 1, rng_one_in(b->rng, 4) ? rng_below(b->rng, 32) : 3);
}

/* Keys and movements, good ones and others, and commands for the two devices. */
static void press_and_move(struct bench *b)
{
    uint8_t bytes[24];
    size_t n = 1 + rng_below(b->rng, sizeof bytes);
    rng_bytes(b->rng, bytes, n);
    for (size_t k = 0; k < n && !rng_one_in(b->rng, 4); k += 2)
        bytes[k] %= KEY_COUNT;
    for (unsigned k = 0; k < b->count; k++) {
        machine_key_input(b->m[k], bytes, n);
        machine_mouse_input(b->m[k], bytes[0] * 300 - 30000, (int)n - 12, bytes[0] % 5 - 2, bytes[0]);
        input_deliver_due(&b->m[k]->input, b->m[k]->clock.icount);
    }
    if (rng_one_in(b->rng, 2))
        write_port(b, LAYOUT_KBC_COMMAND_PORT, 1, rng_one_in(b->rng, 2) ? 0xd4 : 0x60);
    write_port(b, LAYOUT_KBC_DATA_PORT, 1,
               rng_one_in(b->rng, 2) ? 0xe6 + rng_below(b->rng, 26) : rng_next(b->rng) & 0xff);
}

/* The same state has the same picture and the same text. */
static void look_at_screen(struct bench *b)
{
    uint64_t got[MACHINES] = {0};
    for (unsigned k = 0; k < b->count; k++) {
        struct screen_picture p;
        char *text = machine_screentext(b->m[k]);
        if (!text || !machine_picture(b->m[k], &p))
            fuzz_fail(b->f, "no picture");
        got[k] = digest_bytes(p.pixels, (size_t)p.width * p.height * sizeof *p.pixels) ^
                 digest_bytes(text, strlen(text)) ^ p.width;
        screen_picture_free(&p);
        free(text);
    }
    expect_same(b, "the screen", 0, got);
}

/* A mode of the display registers that a driver would set, nearly. */
static void program_display(struct bench *b)
{
    static const uint16_t depths[] = {4, 8, 15, 16, 24, 32};
    const uint64_t values[][2] = {{4, 0},
                                  {1, 8 * (1 + rng_below(b->rng, 200))},
                                  {2, 1 + rng_below(b->rng, 800)},
                                  {3, RNG_PICK(b->rng, depths)},
                                  {4, 1 | (rng_next(b->rng) & 0xe0)},
                                  {6, rng_below(b->rng, 4096)},
                                  {8, rng_below(b->rng, 512)},
                                  {9, rng_below(b->rng, 2048)},
                                  {5, rng_below(b->rng, 300)}};
    for (size_t k = 0; k < ARRAY_LEN(values); k++) {
        if (rng_one_in(b->rng, 12))
            continue;
        write_port(b, LAYOUT_VGA_DISPI_PORT, 2, values[k][0]);
        write_port(b, LAYOUT_VGA_DISPI_PORT + 1, 2, rng_one_in(b->rng, 30) ? rng_number(b->rng) : values[k][1]);
    }
}

static void program_vga(struct bench *b)
{
    static const uint16_t index[] = {0x3c4, 0x3ce, 0x3d4};
    for (unsigned n = (unsigned)rng_below(b->rng, 12); n; n--) {
        uint16_t port = RNG_PICK(b->rng, index);
        write_port(b, port, 2, rng_below(b->rng, port == 0x3d4 ? 26 : 10) | (rng_next(b->rng) & 0xff) << 8);
    }
    write_port(b, 0x3c0, 1, rng_one_in(b->rng, 4) ? rng_below(b->rng, 64) : 0x20);
    if (rng_one_in(b->rng, 3)) {
        write_port(b, LAYOUT_VGA_DISPI_PORT, 2, rng_below(b->rng, VGA_DISPI_REGS + 1));
        write_port(b, LAYOUT_VGA_DISPI_PORT + 1, 2,
                   rng_one_in(b->rng, 2) ? rng_below(b->rng, 0x100) : rng_number(b->rng));
    }
    for (unsigned n = (unsigned)rng_below(b->rng, 16); n; n--) {
        uint64_t at = LAYOUT_VGA_WINDOW + rng_below(b->rng, VGA_WINDOW_BYTES), v = rng_next(b->rng);
        for (unsigned k = 0; k < b->count; k++)
            mem_access(b->m[k]->mem, 0, at, &v, 1 + n % 8, MEM_DMA, true, BUS_NO_CPU);
    }
    if (rng_one_in(b->rng, 6))
        program_display(b);
    write_port(b, 0x3c0, 1, 0x20);
    if (rng_one_in(b->rng, 24))
        look_at_screen(b);
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
    static step_fn *const plans[] = {
        program_pam, press_and_move, program_vga, program_pit,    program_lapic,  program_ioapic,      program_hpet,
        program_rtc, program_pci,    request_dma, ask_intc,       ask_intc,       type_bytes,          reset_or_forget,
        program_ide, program_ide,    program_ide, program_floppy, program_floppy, program_serial_mouse};
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

static void check_digests(struct bench *b, const char *when)
{
    if (b->count == MACHINES)
        fuzz_same_state(b->f, b->m[0], b->m[1], when);
}

static void session(struct fuzz *f)
{
    struct bench b = {.f = f, .rng = &f->rng, .count = 1};
    uint64_t saved = rng_below(&f->rng, STEPS);
    struct mem_file rom = make_firmware(f);
    f->bios = f->session % 2 ? rom.path : NULL;
    make_drives(f);
    b.m[0] = fuzz_machine(f, MACHINE_MMU_SHADOW, RAM_MIB, image_code, sizeof image_code);
    for (unsigned k = 0; k < STEPS && !rng_is_over(&f->rng); k++) {
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
    for (unsigned k = 0; k < f->drive_count; k++)
        unlink(f->drive[k].file);
    mem_file_close(&rom);
}

FUZZ_DRIVER("fuzz_devices", session, 600, 0)
