/*
 * Hostile drivers of the PCI cards: virtio disk, network, entropy and the 82540EM, by their registers and by what is in
 * their rings: descriptors that are nearly right, loop, wrap, point at the rings themselves, at page tables, nowhere.
 *
 * Half way the state is saved and loaded into a second machine, as in fuzz_devices; both must stay equal. A device that
 * stopped is reset now and then, so that what comes after is reached as well.
 */
#include "fuzz_cards.h"

#include "devices/layout.h"
#include "devices/pci/pci_msi.h"

#include <string.h>
#include <unistd.h>

#define STEPS   1500
#define DISK    (64 * 512)
#define CONSOLE "console"

static const uint8_t image_code[] = {0xf4, 0xeb, 0xfd};

static struct machine *make(struct bench *b)
{
    static const enum device_kind kinds[CARDS] = {
        [CARD_BLK] = DEVICE_VIRTIO_BLK, [CARD_NET] = DEVICE_VIRTIO_NET,        [CARD_RNG] = DEVICE_VIRTIO_RNG,
        [CARD_E1000] = DEVICE_E1000,    [CARD_CONSOLE] = DEVICE_VIRTIO_SERIAL, [CARD_AHCI] = DEVICE_AHCI};
    uint8_t image[256];
    struct error e = {""};
    struct mem_file file = mem_file_make(b->f, image, fuzz_image(image, image_code, sizeof image_code));
    struct machine_config cfg = {.ram_bytes = (uint64_t)RAM_MIB << 20,
                                 .kernel = file.path,
                                 .rtc_base = MACHINE_RTC_DEFAULT,
                                 .log_out = stderr,
                                 .no_vga = true,
                                 .device_count = CARDS,
                                 .drive_count = DISKS};
    for (unsigned k = 0; k < CARDS; k++)
        cfg.device[k] = (struct device_config){.kind = kinds[k]};
    static const enum drive_interface places[DISKS] = {DRIVE_NONE, DRIVE_SATA, DRIVE_SATA};
    cfg.device[CARD_BLK].drive = "d";
    cfg.device[CARD_CONSOLE].port = CONSOLE;
    for (unsigned k = 0; k < DISKS; k++)
        cfg.drive[k] = (struct drive_config){.file = b->disk.path,
                                             .id = k ? NULL : "d",
                                             .interface = places[k],
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

void cards_poke(struct bench *b, uint64_t gpa, const void *bytes, size_t len)
{
    for (unsigned k = 0; k < b->count; k++)
        mem_access(b->m[k]->mem, 0, gpa, (void *)(uintptr_t)bytes, len, MEM_HOST_POKE, true, BUS_NO_CPU);
}

void cards_poke_le(struct bench *b, uint64_t gpa, unsigned size, uint64_t v)
{
    cards_poke(b, gpa, &v, size);
}

void cards_write_mmio(struct bench *b, uint64_t at, unsigned size, uint64_t v)
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
uint64_t cards_bar(struct bench *b, unsigned card, unsigned n)
{
    uint64_t at = function(b, card)->bar[n].mapped;
    return at == PCI_UNMAPPED ? 0xfffff000 : at;
}

/* ---- rings ---- */

uint64_t cards_ring(unsigned card, unsigned queue)
{
    return RINGS + card * 0x10000u + queue * 0x4000u;
}

uint64_t cards_any_address(struct bench *b, unsigned card)
{
    static const uint64_t odd[] = {0,     0x9fff0,   0xa0000, 0xfee00000, 0xfebf0000, (uint64_t)RAM_MIB << 20,
                                   ~0ull, 1ull << 51};
    switch (rng_below(b->rng, 8)) {
    case 0:
        return RNG_PICK(b->rng, odd);
    case 1: /* into the rings */
        return cards_ring(card, (unsigned)rng_below(b->rng, 3)) + rng_below(b->rng, 0x4000);
    case 2:
        return rng_number(b->rng);
    default:
        return BUFFERS + rng_below(b->rng, 0x80000);
    }
}

uint32_t cards_any_length(struct bench *b)
{
    return (uint32_t)(rng_one_in(b->rng, 6) ? rng_number(b->rng) : rng_below(b->rng, 2048));
}

static void put_descriptor(struct bench *b, unsigned card, uint64_t table, unsigned n)
{
    unsigned flags = (unsigned)(rng_one_in(b->rng, 12) ? rng_below(b->rng, 8) : rng_below(b->rng, 4));
    cards_poke_le(b, table + 16 * n, 8, cards_any_address(b, card));
    cards_poke_le(b, table + 16 * n + 8, 4, cards_any_length(b));
    cards_poke_le(b, table + 16 * n + 12, 2, flags);
    cards_poke_le(b, table + 16 * n + 14, 2, rng_one_in(b->rng, 16) ? rng_number(b->rng) : rng_below(b->rng, 16));
}

/* A chain as the disk wants it, so that requests are reached; a field of it may be anything. */
static void put_disk_request(struct bench *b)
{
    static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 5};
    uint64_t table = cards_ring(0, 0), head = BUFFERS + 0x10000;
    uint32_t type = RNG_PICK(b->rng, types);
    cards_poke_le(b, head, 8, type);
    cards_poke_le(b, head + 8, 8, rng_one_in(b->rng, 4) ? rng_number(b->rng) : rng_below(b->rng, 66));
    const uint64_t gpa[3] = {head, cards_any_address(b, 0), head + 0x1000};
    const uint32_t len[3] = {16, 512 * (uint32_t)rng_below(b->rng, 9), 1};
    const uint16_t flags[3] = {1, type == 0 || type == 8 ? 3 : 1, 2};
    for (unsigned i = 0; i < 3; i++) {
        cards_poke_le(b, table + 16 * i, 8, gpa[i]);
        cards_poke_le(b, table + 16 * i + 8, 4, len[i]);
        cards_poke_le(b, table + 16 * i + 12, 2, flags[i]);
        cards_poke_le(b, table + 16 * i + 14, 2, i + 1);
    }
    if (rng_one_in(b->rng, 3))
        put_descriptor(b, 0, table, (unsigned)rng_below(b->rng, 4));
}

/* Makes `n` chains available and says so. */
static void offer(struct bench *b, unsigned card, unsigned queue, unsigned n)
{
    uint64_t avail = cards_ring(card, queue) + 0x2000;
    uint16_t index = 0;
    mem_access(b->m[0]->mem, 0, avail + 2, &index, 2, MEM_PEEK, false, BUS_NO_CPU);
    for (unsigned i = 0; i < n; i++)
        cards_poke_le(b, avail + 4 + 2 * ((index + i) & 15), 2,
                      rng_one_in(b->rng, 20) ? rng_number(b->rng)
                      : card                 ? rng_below(b->rng, 16)
                                             : 0);
    cards_poke_le(b, avail + 2, 2, index + n);
    cards_write_mmio(b, cards_bar(b, card, 4) + 0x3000 + 4 * queue, 2, queue);
}

/* A driver's start, as it should be but for one thing now and then. */
static void start_virtio(struct bench *b, unsigned card)
{
    uint64_t common = cards_bar(b, card, 4);
    uint64_t features = 1ull << 32 | (rng_next(b->rng) & (0x3ull << 28 | 1 << 15 | 1 << 17));
    uint8_t zeros[0x1000] = {0};
    cards_write_mmio(b, common + 20, 1, 0);
    cards_write_mmio(b, common + 20, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        cards_write_mmio(b, common + 8, 4, i);
        cards_write_mmio(b, common + 12, 4, features >> (32 * i));
    }
    cards_write_mmio(b, common + 20, 1, 11);
    for (unsigned q = 0; q < 3; q++) {
        uint64_t at = cards_ring(card, q);
        cards_poke(b, at + 0x2000, zeros, sizeof zeros);
        cards_poke(b, at + 0x3000, zeros, sizeof zeros);
        cards_write_mmio(b, common + 22, 2, q);
        cards_write_mmio(b, common + 24, 2, 16);
        cards_write_mmio(b, common + 32, 8, rng_one_in(b->rng, 20) ? cards_any_address(b, card) : at);
        cards_write_mmio(b, common + 40, 8, rng_one_in(b->rng, 20) ? cards_any_address(b, card) : at + 0x2000);
        cards_write_mmio(b, common + 48, 8, rng_one_in(b->rng, 20) ? cards_any_address(b, card) : at + 0x3000);
        cards_write_mmio(b, common + 26, 2, rng_below(b->rng, 4));
        cards_write_mmio(b, common + 28, 2, 1);
    }
    cards_write_mmio(b, common + 20, 1, 15);
}

static void drive_virtio(struct bench *b)
{
    static const unsigned cards[] = {CARD_BLK, CARD_NET, CARD_RNG, CARD_CONSOLE}, queues[] = {1, 3, 1, 2};
    unsigned kind = (unsigned)rng_below(b->rng, ARRAY_LEN(cards)), card = cards[kind];
    unsigned queue = (unsigned)rng_below(b->rng, queues[kind]);
    uint8_t status = (uint8_t)bus_read(&b->m[0]->mmio, cards_bar(b, card, 4) + 20, 1, 0);
    if (!(status & 4) || (status & 0x40 && rng_one_in(b->rng, 3)))
        start_virtio(b, card);
    if (card == 0 && !rng_one_in(b->rng, 5)) {
        put_disk_request(b);
        offer(b, 0, 0, 1);
        return;
    }
    for (unsigned n = (unsigned)rng_below(b->rng, 16); n; n--)
        put_descriptor(b, card, cards_ring(card, queue), (unsigned)rng_below(b->rng, 16));
    offer(b, card, queue, (unsigned)rng_below(b->rng, 4));
}

static void drive_e1000(struct bench *b)
{
    uint64_t at = cards_bar(b, 3, 0), tx = cards_ring(3, 0), rx = cards_ring(3, 1);
    for (unsigned n = (unsigned)rng_below(b->rng, 16); n; n--) {
        uint64_t table = rng_one_in(b->rng, 3) ? rx : tx;
        unsigned i = (unsigned)rng_below(b->rng, 16);
        cards_poke_le(b, table + 16 * i, 8, cards_any_address(b, 3));
        cards_poke_le(b, table + 16 * i + 8, 4,
                      (cards_any_length(b) & 0xfffff) | (uint32_t)rng_below(b->rng, 256) << 24 | 0x100000);
        cards_poke_le(b, table + 16 * i + 12, 4, rng_number(b->rng));
    }
    const struct {
        unsigned reg;
        uint64_t value;
    } setup[] = {{0x3800, tx}, {0x3808, 256}, {0x2800, rx}, {0x2808, 256}, {0x0400, 2}, {0x0100, 0x801a}};
    if (!rng_one_in(b->rng, 4))
        for (size_t k = 0; k < ARRAY_LEN(setup); k++)
            cards_write_mmio(b, at + setup[k].reg, 4, rng_one_in(b->rng, 30) ? rng_number(b->rng) : setup[k].value);
    cards_write_mmio(b, at + 0x3818, 4, rng_one_in(b->rng, 10) ? rng_number(b->rng) : rng_below(b->rng, 16));
    cards_write_mmio(b, at + 0x2818, 4, rng_one_in(b->rng, 10) ? rng_number(b->rng) : rng_below(b->rng, 16));
}

/* The e1000's EEPROM by its pins and its register, its PHY, masks of interrupts. */
static void drive_e1000_parts(struct bench *b)
{
    uint64_t at = cards_bar(b, CARD_E1000, 0);
    uint32_t command = 6u << 6 | (uint32_t)rng_below(b->rng, 80), mdic = (1u + rng_one_in(b->rng, 8)) << 21;
    cards_write_mmio(b, at + 0x14, 4, 1 | rng_below(b->rng, 80) << 8);
    mdic |= (uint32_t)rng_below(b->rng, 32) << 16 | (rng_one_in(b->rng, 2) ? 0x08000000u : 0x04000000u);
    cards_write_mmio(b, at + 0x20, 4, mdic | (rng_next(b->rng) & 0x2000ffff));
    cards_write_mmio(b, at + (rng_one_in(b->rng, 3) ? 0xd8 : 0xd0), 4, rng_next(b->rng) & 0x1ffff);
    if (rng_one_in(b->rng, 4))
        cards_write_mmio(b, at + 0xc8, 4, rng_number(b->rng));
    cards_write_mmio(b, at + 0x10, 4, 2);
    for (unsigned k = 0; k < 9 + 17; k++) {
        uint32_t bit = k < 9 ? (command >> (8 - k) & 1) << 2 : 0;
        cards_write_mmio(b, at + 0x10, 4, 2 | bit);
        cards_write_mmio(b, at + 0x10, 4, 3 | bit);
        if (rng_one_in(b->rng, 100))
            cards_write_mmio(b, at + 0x10, 4, rng_number(b->rng));
        read_both(b, false, at + 0x10, 4);
    }
}

/* Messages instead of lines: MSI-X with a table of good and bad addresses, or MSI. */
static void set_messages(struct bench *b)
{
    unsigned card = (unsigned)rng_below(b->rng, CARDS);
    const struct pci_device *d = function(b, card);
    uint64_t table = cards_bar(b, card, 1);
    for (unsigned n = 0; d->msix && n < 4; n++) {
        uint64_t address = rng_one_in(b->rng, 8) ? cards_any_address(b, card) : 0xfee00000 | rng_below(b->rng, 4) << 12;
        cards_write_mmio(b, table + 16 * n, 8, address);
        cards_write_mmio(b, table + 16 * n + 8, 8, rng_below(b->rng, 0x800) | (uint64_t)rng_below(b->rng, 2) << 32);
    }
    if (d->msix)
        write_config(b, card, d->msix->cap + 2, 2, rng_one_in(b->rng, 4) ? (uint32_t)rng_next(b->rng) : 0x8000);
    if (!d->msi)
        return;
    write_config(b, card, d->msi + 4, 4, 0xfee00000);
    write_config(b, card, d->msi + 12, 2, (uint32_t)rng_next(b->rng) & 0x7ff);
    write_config(b, card, d->msi + 2, 2, (uint32_t)rng_below(b->rng, 2));
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
    static step_fn *const plans[] = {drive_virtio,     drive_virtio,     drive_virtio,      drive_e1000,  frame_arrives,
                                     cards_drive_ahci, cards_drive_ahci, drive_e1000_parts, set_messages, pass_time,
                                     touch_registers,  touch_config,     pass_time};
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
    const struct block_counters *disk_work = &b.m[0]->drives.drive[0].block->counters;
    f->accepted += disk_work->reads + disk_work->writes + disk_work->discards; /* hostile drivers must get that far */
    for (unsigned k = 0; k < b.count; k++)
        machine_destroy(b.m[k]);
    mem_file_close(&b.disk);
}

FUZZ_DRIVER("fuzz_cards", session, 600, 0)
