/*
 * Hostile drivers of the PCI cards: virtio disk, network, entropy, the 82540EM
 * and AHCI, by their registers and by what is in their rings and command lists:
 * descriptors that are nearly right, loop, wrap, point at the rings themselves,
 * at page tables, nowhere.
 *
 * Half way the state is saved and loaded into a second machine, as in
 * fuzz_devices; both must stay equal. A device that stopped is reset now and
 * then, so that what comes after is reached as well.
 */
#include "fuzz.h"

#include "devices/layout.h"

#include <string.h>
#include <unistd.h>

#define STEPS    1500
#define RAM_MIB  4
#define MACHINES 2
#define DISK     (64 * 512)
#define CARDS    6
#define DRIVES   3         /* of virtio, and on AHCI ports 0 and 1 */
#define RINGS    0x200000u /* of card c, queue q: + c * 0x10000 + q * 0x4000 */
#define BUFFERS  0x300000u

static const uint8_t image_code[] = {0xf4, 0xeb, 0xfd};

struct bench {
    struct fuzz *f;
    struct rng *rng;
    struct machine *m[MACHINES];
    unsigned count;
    struct mem_file disk;
};

static struct machine *make(struct bench *b)
{
    static const enum device_kind kinds[CARDS] = {DEVICE_VIRTIO_BLK, DEVICE_VIRTIO_NET,    DEVICE_VIRTIO_RNG,
                                                  DEVICE_E1000,      DEVICE_VIRTIO_SERIAL, DEVICE_AHCI};
    uint8_t image[256];
    struct error e = {""};
    struct mem_file file = mem_file_make(b->f, image, fuzz_image(image, image_code, sizeof image_code));
    struct machine_config cfg = {.ram_bytes = (uint64_t)RAM_MIB << 20,
                                 .kernel = file.path,
                                 .rtc_base = MACHINE_RTC_DEFAULT,
                                 .log_out = stderr,
                                 .no_vga = true,
                                 .device_count = CARDS,
                                 .drive_count = DRIVES};
    for (unsigned k = 0; k < CARDS; k++)
        cfg.device[k] = (struct device_config){.kind = kinds[k]};
    cfg.device[0].drive = "d";
    for (unsigned k = 0; k < DRIVES; k++)
        cfg.drive[k] = (struct drive_config){.file = b->disk.path,
                                             .id = k ? NULL : "d",
                                             .interface = k ? DRIVE_SATA : DRIVE_NONE,
                                             .format = BLOCK_FORMAT_RAW,
                                             .is_cdrom = k == 2,
                                             .snapshot = true,
                                             .index = k ? k - 1 : 0};
    struct machine *m = machine_create(&cfg, &e);
    mem_file_close(&file);
    if (!m)
        fuzz_fail(b->f, "no machine: %s", e.text);
    return m;
}

/* ---- accesses, the same in each machine ---- */

static void poke(struct bench *b, uint64_t gpa, const void *bytes, size_t len)
{
    for (unsigned k = 0; k < b->count; k++)
        mem_access(b->m[k]->mem, 0, gpa, (void *)(uintptr_t)bytes, len, MEM_HOST_POKE, true, BUS_NO_CPU);
}

static void poke_le(struct bench *b, uint64_t gpa, unsigned size, uint64_t v)
{
    poke(b, gpa, &v, size);
}

static void write_mmio(struct bench *b, uint64_t at, unsigned size, uint64_t v)
{
    for (unsigned k = 0; k < b->count; k++)
        bus_write(&b->m[k]->mmio, at, size, v, 0);
}

static void read_both(struct bench *b, bool port, uint64_t at, unsigned size)
{
    uint64_t first = 0;
    for (unsigned k = 0; k < b->count; k++) {
        uint64_t v = bus_read(port ? &b->m[k]->ports : &b->m[k]->mmio, at, size, 0);
        if (k && v != first)
            fuzz_fail(b->f, "after a load, 0x%llx reads 0x%llx instead of 0x%llx", (unsigned long long)at,
                      (unsigned long long)v, (unsigned long long)first);
        first = v;
    }
}

static void write_config(struct bench *b, unsigned card, unsigned at, unsigned size, uint32_t v)
{
    for (unsigned k = 0; k < b->count; k++)
        pci_bus_config_write(&b->m[k]->board.pci.bus, b->m[k]->board.cards.card[card].pci->devfn, at, size, v);
}

static struct pci_device *function(struct bench *b, unsigned card)
{
    return b->m[0]->board.cards.card[card].pci;
}

/* Where BAR n of the card is mapped, or an address that nobody has. */
static uint64_t bar(struct bench *b, unsigned card, unsigned n)
{
    uint64_t at = function(b, card)->bar[n].mapped;
    return at == PCI_UNMAPPED ? 0xfffff000 : at;
}

/* ---- rings ---- */

static uint64_t ring(unsigned card, unsigned queue)
{
    return RINGS + card * 0x10000u + queue * 0x4000u;
}

static uint64_t any_address(struct bench *b, unsigned card)
{
    static const uint64_t odd[] = {0,     0x9fff0,   0xa0000, 0xfee00000, 0xfebf0000, (uint64_t)RAM_MIB << 20,
                                   ~0ull, 1ull << 51};
    switch (rng_below(b->rng, 8)) {
    case 0:
        return RNG_PICK(b->rng, odd);
    case 1: /* into the rings */
        return ring(card, (unsigned)rng_below(b->rng, 3)) + rng_below(b->rng, 0x4000);
    case 2:
        return rng_number(b->rng);
    default:
        return BUFFERS + rng_below(b->rng, 0x80000);
    }
}

static uint32_t any_length(struct bench *b)
{
    return (uint32_t)(rng_one_in(b->rng, 6) ? rng_number(b->rng) : rng_below(b->rng, 2048));
}

static void put_descriptor(struct bench *b, unsigned card, uint64_t table, unsigned n)
{
    unsigned flags = (unsigned)(rng_one_in(b->rng, 12) ? rng_below(b->rng, 8) : rng_below(b->rng, 4));
    poke_le(b, table + 16 * n, 8, any_address(b, card));
    poke_le(b, table + 16 * n + 8, 4, any_length(b));
    poke_le(b, table + 16 * n + 12, 2, flags);
    poke_le(b, table + 16 * n + 14, 2, rng_one_in(b->rng, 16) ? rng_number(b->rng) : rng_below(b->rng, 16));
}

/* A chain as the disk wants it, so that requests are reached; a field of it may
 * be anything. */
static void put_disk_request(struct bench *b)
{
    static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 5};
    uint64_t table = ring(0, 0), head = BUFFERS + 0x10000;
    uint32_t type = RNG_PICK(b->rng, types);
    poke_le(b, head, 8, type);
    poke_le(b, head + 8, 8, rng_one_in(b->rng, 4) ? rng_number(b->rng) : rng_below(b->rng, 66));
    const uint64_t gpa[3] = {head, any_address(b, 0), head + 0x1000};
    const uint32_t len[3] = {16, 512 * (uint32_t)rng_below(b->rng, 9), 1};
    const uint16_t flags[3] = {1, type == 0 || type == 8 ? 3 : 1, 2};
    for (unsigned i = 0; i < 3; i++) {
        poke_le(b, table + 16 * i, 8, gpa[i]);
        poke_le(b, table + 16 * i + 8, 4, len[i]);
        poke_le(b, table + 16 * i + 12, 2, flags[i]);
        poke_le(b, table + 16 * i + 14, 2, i + 1);
    }
    if (rng_one_in(b->rng, 3))
        put_descriptor(b, 0, table, (unsigned)rng_below(b->rng, 4));
}

/* Makes `n` chains available and says so. */
static void offer(struct bench *b, unsigned card, unsigned queue, unsigned n)
{
    uint64_t avail = ring(card, queue) + 0x2000;
    uint16_t index = 0;
    mem_access(b->m[0]->mem, 0, avail + 2, &index, 2, MEM_PEEK, false, BUS_NO_CPU);
    for (unsigned i = 0; i < n; i++)
        poke_le(b, avail + 4 + 2 * ((index + i) & 15), 2,
                rng_one_in(b->rng, 20) ? rng_number(b->rng)
                : card                 ? rng_below(b->rng, 16)
                                       : 0);
    poke_le(b, avail + 2, 2, index + n);
    write_mmio(b, bar(b, card, 4) + 0x3000 + 4 * queue, 2, queue);
}

/* A driver's start, as it should be but for one thing now and then. */
static void start_virtio(struct bench *b, unsigned card)
{
    uint64_t common = bar(b, card, 4);
    uint64_t features = 1ull << 32 | (rng_next(b->rng) & (0x3ull << 28 | 1 << 15 | 1 << 17));
    uint8_t zeros[0x1000] = {0};
    write_mmio(b, common + 20, 1, 0);
    write_mmio(b, common + 20, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        write_mmio(b, common + 8, 4, i);
        write_mmio(b, common + 12, 4, features >> (32 * i));
    }
    write_mmio(b, common + 20, 1, 11);
    for (unsigned q = 0; q < 3; q++) {
        uint64_t at = ring(card, q);
        poke(b, at + 0x2000, zeros, sizeof zeros);
        poke(b, at + 0x3000, zeros, sizeof zeros);
        write_mmio(b, common + 22, 2, q);
        write_mmio(b, common + 24, 2, 16);
        write_mmio(b, common + 32, 8, rng_one_in(b->rng, 20) ? any_address(b, card) : at);
        write_mmio(b, common + 40, 8, rng_one_in(b->rng, 20) ? any_address(b, card) : at + 0x2000);
        write_mmio(b, common + 48, 8, rng_one_in(b->rng, 20) ? any_address(b, card) : at + 0x3000);
        write_mmio(b, common + 28, 2, 1);
    }
    write_mmio(b, common + 20, 1, 15);
}

static void drive_virtio(struct bench *b)
{
    unsigned card = (unsigned)rng_below(b->rng, 3), queue = card == 1 ? (unsigned)rng_below(b->rng, 3) : 0;
    uint8_t status = (uint8_t)bus_read(&b->m[0]->mmio, bar(b, card, 4) + 20, 1, 0);
    if (!(status & 4) || (status & 0x40 && rng_one_in(b->rng, 3)))
        start_virtio(b, card);
    if (card == 0 && !rng_one_in(b->rng, 5)) {
        put_disk_request(b);
        offer(b, 0, 0, 1);
        return;
    }
    for (unsigned n = (unsigned)rng_below(b->rng, 16); n; n--)
        put_descriptor(b, card, ring(card, queue), (unsigned)rng_below(b->rng, 16));
    offer(b, card, queue, (unsigned)rng_below(b->rng, 4));
}

static void drive_e1000(struct bench *b)
{
    uint64_t at = bar(b, 3, 0), tx = ring(3, 0), rx = ring(3, 1);
    for (unsigned n = (unsigned)rng_below(b->rng, 16); n; n--) {
        uint64_t table = rng_one_in(b->rng, 3) ? rx : tx;
        unsigned i = (unsigned)rng_below(b->rng, 16);
        poke_le(b, table + 16 * i, 8, any_address(b, 3));
        poke_le(b, table + 16 * i + 8, 4,
                (any_length(b) & 0xfffff) | (uint32_t)rng_below(b->rng, 256) << 24 | 0x100000);
        poke_le(b, table + 16 * i + 12, 4, rng_number(b->rng));
    }
    const struct {
        unsigned reg;
        uint64_t value;
    } setup[] = {{0x3800, tx}, {0x3808, 256}, {0x2800, rx}, {0x2808, 256}, {0x0400, 2}, {0x0100, 0x801a}};
    if (!rng_one_in(b->rng, 4))
        for (size_t k = 0; k < ARRAY_LEN(setup); k++)
            write_mmio(b, at + setup[k].reg, 4, rng_one_in(b->rng, 30) ? rng_number(b->rng) : setup[k].value);
    write_mmio(b, at + 0x3818, 4, rng_one_in(b->rng, 10) ? rng_number(b->rng) : rng_below(b->rng, 16));
    write_mmio(b, at + 0x2818, 4, rng_one_in(b->rng, 10) ? rng_number(b->rng) : rng_below(b->rng, 16));
}

/* ---- AHCI: per port a command list, an area for frames, and tables of eight
 * slots ---- */

#define AHCI_CARD 5
#define SLOTS     8

static uint64_t ahci_table(unsigned port, unsigned slot)
{
    return ring(AHCI_CARD, port) + 0x1000 + 0x200 * slot;
}

static void write_port_register(struct bench *b, unsigned port, unsigned reg, uint64_t v)
{
    write_mmio(b, bar(b, AHCI_CARD, 5) + 0x100 + 0x80 * port + reg, 4, v & UINT32_MAX);
}

static uint64_t here_or_anywhere(struct bench *b, uint64_t here)
{
    return rng_one_in(b->rng, 30) ? any_address(b, AHCI_CARD) : here;
}

/* A driver's start, after a reset of the link now and then. */
static void start_ahci(struct bench *b, unsigned port)
{
    uint64_t list = here_or_anywhere(b, ring(AHCI_CARD, port)),
             frames = here_or_anywhere(b, ring(AHCI_CARD, port) + 0x400);
    const struct {
        unsigned reg;
        uint64_t value;
    } setup[] = {{0x18, 0},     {0x00, list},  {0x04, list >> 32}, {0x08, frames}, {0x0c, frames >> 32},
                 {0x30, ~0ull}, {0x10, ~0ull}, {0x14, ~0ull},      {0x18, 0x10},   {0x18, 0x11}};
    if (!rng_one_in(b->rng, 3)) {
        write_port_register(b, port, 0x2c, 0x301);
        write_port_register(b, port, 0x2c, rng_one_in(b->rng, 20) ? rng_next(b->rng) : 0x300);
    }
    for (size_t k = 0; k < ARRAY_LEN(setup); k++)
        write_port_register(b, port, setup[k].reg, setup[k].value);
    write_mmio(b, bar(b, AHCI_CARD, 5) + 4, 4, rng_one_in(b->rng, 50) ? 3 : 2);
}

static void put_packet(struct bench *b, uint64_t at)
{
    static const uint8_t commands[] = {0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x28, 0x28, 0x2b,
                                       0x42, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xa8, 0xbb, 0xbd, 0xbe};
    uint8_t p[16] = {0};
    for (unsigned i = 1; i < 12; i++)
        p[i] = (uint8_t)(rng_one_in(b->rng, 3) ? rng_next(b->rng) : rng_below(b->rng, 4));
    p[0] = RNG_PICK(b->rng, commands);
    if ((p[0] == 0x28 || p[0] == 0xa8 || p[0] == 0xbe) && !rng_one_in(b->rng, 4)) { /* sectors of the disc */
        memset(p + 1, 0, 11);
        p[5] = (uint8_t)rng_below(b->rng, 16);
        p[p[0] == 0xa8 ? 9 : 8] = (uint8_t)rng_below(b->rng, 4);
        p[9] |= p[0] == 0xbe ? 0x10 : 0;
    }
    poke(b, at, p, sizeof p);
}

/* A frame and a table for the slot: as a driver makes them, but for a field now
 * and then. */
static void put_slot(struct bench *b, unsigned port, unsigned slot)
{
    static const uint8_t commands[] = {0x06, 0x20, 0x24, 0x25, 0x29, 0x2f, 0x30, 0x34, 0x35, 0x3d, 0x40,
                                       0x60, 0x60, 0x60, 0x61, 0x61, 0x61, 0x90, 0xa0, 0xa0, 0xa0, 0xa0,
                                       0xa1, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xe7, 0xec, 0xef};
    uint64_t table = ahci_table(port, slot), header = ring(AHCI_CARD, port) + 32 * slot;
    uint8_t fis[20] = {0x27, 0x80, RNG_PICK(b->rng, commands), (uint8_t)rng_below(b->rng, 10)};
    unsigned regions = 1 + (unsigned)rng_below(b->rng, 6);
    fis[4] = (uint8_t)rng_below(b->rng, 70);
    fis[7] = 0x40;
    fis[12] = (uint8_t)(fis[2] >> 1 == 0x30 ? slot << 3 : rng_below(b->rng, 12));
    if (fis[2] == 0x2f)
        fis[4] = 0x10, fis[12] = 1;
    if (rng_one_in(b->rng, 20)) /* a control frame */
        fis[1] = 0, fis[15] = rng_one_in(b->rng, 2) ? 4 : 0;
    if (rng_one_in(b->rng, 10))
        fis[rng_below(b->rng, sizeof fis)] = (uint8_t)rng_next(b->rng);
    poke(b, table, fis, sizeof fis);
    put_packet(b, table + 0x40);
    for (unsigned i = 0; i < regions; i++) {
        uint64_t data = BUFFERS + rng_below(b->rng, 0x80000);
        poke_le(b, table + 0x80 + 16 * i, 8, rng_one_in(b->rng, 8) ? any_address(b, AHCI_CARD) : data);
        poke_le(b, table + 0x8c + 16 * i, 4,
                rng_one_in(b->rng, 8) ? rng_number(b->rng) : rng_below(b->rng, 8) * 512 + 511);
    }
    regions = rng_one_in(b->rng, 20) ? 0xffff : regions;
    poke_le(b, header, 4,
            (rng_one_in(b->rng, 60) ? rng_next(b->rng) & 0xffff : 5) | regions << 16 |
                (rng_one_in(b->rng, 8) ? 0x400 : 0));
    poke_le(b, header + 8, 8, here_or_anywhere(b, table));
}

static void drive_ahci(struct bench *b)
{
    unsigned port = (unsigned)(rng_one_in(b->rng, 12) ? rng_below(b->rng, 3) : rng_below(b->rng, 2));
    uint64_t at = bar(b, AHCI_CARD, 5) + 0x100 + 0x80 * port;
    uint32_t command = (uint32_t)bus_read(&b->m[0]->mmio, at + 0x18, 4, 0), errors = 0x78000000;
    bool failed = bus_read(&b->m[0]->mmio, at + 0x10, 4, 0) & errors;
    uint32_t slots = 0;
    if (!(command & 1) || (failed && !rng_one_in(b->rng, 8)) || rng_one_in(b->rng, 40))
        start_ahci(b, port);
    for (unsigned n = 1 + (unsigned)rng_below(b->rng, 4); n; n--) {
        unsigned slot = (unsigned)rng_below(b->rng, SLOTS);
        put_slot(b, port, slot);
        slots |= 1u << slot;
    }
    if (!rng_one_in(b->rng, 4))
        write_port_register(b, port, 0x34, slots);
    write_port_register(b, port, 0x38, rng_one_in(b->rng, 30) ? rng_next(b->rng) : slots);
}

/* ---- other steps ---- */

static void frame_arrives(struct bench *b)
{
    uint8_t bytes[1 + NIC_FRAME_MAX + 8];
    size_t len = 1 + rng_below(b->rng, sizeof bytes);
    rng_bytes(b->rng, bytes, len);
    bytes[0] = rng_one_in(b->rng, 8) ? bytes[0] : rng_one_in(b->rng, 2) ? 1 : 3;
    if (rng_one_in(b->rng, 2))
        memset(bytes + 1, 0xff, 6);
    for (unsigned k = 0; k < b->count; k++)
        input_post(&b->m[k]->input, INPUT_NET, b->m[k]->clock.icount, bytes, len);
}

static void touch_registers(struct bench *b)
{
    unsigned card = (unsigned)rng_below(b->rng, CARDS), n = (unsigned)rng_below(b->rng, 6);
    const struct pci_bar *r = &function(b, card)->bar[n];
    if (r->mapped == PCI_UNMAPPED)
        return;
    uint64_t at = r->mapped + rng_below(b->rng, rng_one_in(b->rng, 2) ? r->size : 64), v = rng_number(b->rng);
    unsigned size = 1u << rng_below(b->rng, 4);
    bool port = r->kind == PCI_BAR_IO;
    size = port && size == 8 ? 4 : size;
    if (rng_one_in(b->rng, 2)) {
        read_both(b, port, at, size);
        return;
    }
    for (unsigned k = 0; k < b->count; k++)
        bus_write(port ? &b->m[k]->ports : &b->m[k]->mmio, at, size, v, 0);
}

static void touch_config(struct bench *b)
{
    unsigned card = (unsigned)rng_below(b->rng, CARDS);
    unsigned at = (unsigned)rng_below(b->rng, 64) * 4;
    uint32_t old = pci_device_read32(function(b, card), at);
    write_config(b, card, at, 4, (uint32_t)rng_number(b->rng));
    if (at < 0x40 && !rng_one_in(b->rng, 100)) /* a card that is nowhere makes for a dull session */
        write_config(b, card, at, 4, old);
    if (at == PCI_COMMAND || rng_one_in(b->rng, 4))
        write_config(b, card, PCI_COMMAND, 2, 7);
}

static void pass_time(struct bench *b)
{
    uint64_t by = rng_one_in(b->rng, 4) ? rng_below(b->rng, 5000000) : rng_below(b->rng, 100000);
    for (unsigned k = 0; k < b->count; k++) {
        clock_skip_to(&b->m[k]->clock, clock_now(&b->m[k]->clock) + by);
        clock_run_due(&b->m[k]->clock);
        input_deliver_due(&b->m[k]->input, b->m[k]->clock.icount);
        b->m[k]->want = (struct machine_requests){0};
    }
}

static void step(struct bench *b)
{
    typedef void step_fn(struct bench *);
    static step_fn *const plans[] = {drive_virtio,  drive_virtio,    drive_virtio, drive_e1000,
                                     frame_arrives, drive_ahci,      drive_ahci,   drive_ahci,
                                     pass_time,     touch_registers, touch_config, pass_time};
    RNG_PICK(b->rng, plans)(b);
    b->f->work++;
    b->f->round++;
}

/* ---- a session ---- */

static void save_and_load(struct bench *b)
{
    struct error e = {""};
    char path[128];
    snprintf(path, sizeof path, "%s/state", b->f->dir);
    b->m[1] = make(b);
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
    static const uint8_t disk[DISK];
    struct bench b = {.f = f, .rng = &f->rng, .count = 1};
    uint64_t saved = rng_below(&f->rng, STEPS);
    b.disk = mem_file_make(f, disk, sizeof disk);
    b.m[0] = make(&b);
    for (unsigned card = 0; card < CARDS; card++)
        write_config(&b, card, PCI_COMMAND, 2, 7);
    for (unsigned k = 0; k < STEPS && !rng_is_over(&f->rng); k++) {
        if (k == saved) {
            save_and_load(&b);
            check_digests(&b, "after the load");
        }
        step(&b);
    }
    check_digests(&b, "at the end");
    fuzz_audit(f, b.m[0]);
    for (unsigned k = 0; k < DRIVES; k++) {
        const struct block_counters *work = &b.m[0]->drives.drive[k].block->counters;
        f->accepted += work->reads + work->writes + work->discards; /* hostile drivers must get that far */
    }
    for (unsigned k = 0; k < b.count; k++)
        machine_destroy(b.m[k]);
    mem_file_close(&b.disk);
}

FUZZ_DRIVER("fuzz_cards", session, 600, 0)
