/*
 * The AHCI controller by its registers and structures in memory: who is there, PIO, DMA, packets and queued commands
 * against the image's bytes, resets, errors and what is left after them, interrupts, hostile pointers, a snapshot.
 */
#include "storage_rig.h"

#include "core/bytes.h"
#include "devices/ahci/ahci.h"
#include "devices/pci/pci_msi.h"

#define DISK_SECTORS 200
#define CD_SECTORS   20
#define RAM          0x80000
#define DEVFN        0x20
#define BAR          0xfe000000ull

#define LIST(port)   (0x1000u + 0x1000u * (port))
#define FRAMES(port) (0x8000u + 0x100u * (port))
#define TABLE(slot)  (0x10000u + 0x400u * (slot))
#define DATA         0x20000u

/* registers */
enum { CAP = 0, GHC = 4, IS = 8, PI = 12, VS = 16 };
enum {
    CLB = 0,
    FB = 8,
    PIS = 0x10,
    PIE = 0x14,
    CMD = 0x18,
    TFD = 0x20,
    SIG = 0x24,
    SSTS = 0x28,
    SCTL = 0x2c,
    SERR = 0x30,
    SACT = 0x34,
    CI = 0x38
};

#define DHRS 1u
#define PSS  2u
#define SDBS 8u
#define DPS  0x20u
#define OFS  0x01000000u
#define IFS  0x08000000u
#define HBFS 0x20000000u
#define TFES 0x40000000u

struct rig {
    struct vclock clock;
    struct bus io, mmio;
    struct pci_bus pci;
    struct wire irq[4];
    unsigned messages;
    struct block_device *disk, *cd;
    struct ahci hba;
    unsigned full; /* how many writes the host has no room for */
    struct block_device tight;
    uint8_t ram[RAM];
};

static enum mem_result ram_access(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                  bool write)
{
    struct rig *g = ctx;
    return ram_move(g->ram, RAM, gpa, buf, len, write);
}

/* A disk on a host that has no room for the next `full` writes. */
static enum block_result tight_read(struct block_device *b, uint64_t offset, void *buf, size_t len)
{
    memset(buf, 0, len);
    return BLOCK_OK;
}

static enum block_result tight_write(struct block_device *b, uint64_t offset, const void *buf, size_t len)
{
    struct rig *g = b->full_ctx;
    if (!g->full)
        return BLOCK_OK;
    g->full--;
    return BLOCK_FULL;
}

static enum block_result tight_flush(struct block_device *b)
{
    return BLOCK_OK;
}

static const struct block_ops tight_ops = {.read = tight_read, .write = tight_write, .flush = tight_flush};

static void on_message(void *ctx, uint64_t address, uint32_t data)
{
    struct rig *g = ctx;
    ck_assert_uint_eq(address, 0xfee00000);
    ck_assert_uint_eq(data, 0x41);
    g->messages++;
}

static uint32_t rd(struct rig *g, unsigned at)
{
    return (uint32_t)bus_read(&g->mmio, BAR + at, 4, 0);
}

static void wr(struct rig *g, unsigned at, uint32_t v)
{
    bus_write(&g->mmio, BAR + at, 4, v, 0);
}

static uint32_t prd(struct rig *g, unsigned port, unsigned reg)
{
    return rd(g, 0x100 + 0x80 * port + reg);
}

static void pwr(struct rig *g, unsigned port, unsigned reg, uint32_t v)
{
    wr(g, 0x100 + 0x80 * port + reg, v);
}

/* Disks on ports 0 and 3, a CD on port 1, nothing elsewhere. */
static struct rig *rig_new(void)
{
    struct rig *g = calloc(1, sizeof *g);
    clock_init(&g->clock);
    bus_init(&g->io, "port", 0x10000, NULL);
    bus_init(&g->mmio, "mmio", 0, NULL);
    const struct irq_line pirq[4] = {wire_line(g->irq, 0), wire_line(g->irq, 1), wire_line(g->irq, 2),
                                     wire_line(g->irq, 3)};
    pci_bus_init(&g->pci, &g->io, &g->mmio, pirq, NULL);
    pci_bus_set_msi(&g->pci, on_message, g);
    g->disk = open_image(DISK_SECTORS * 512, false);
    g->cd = open_image(CD_SECTORS * 2048, false);
    g->tight = (struct block_device){.ops = &tight_ops, .size = DISK_SECTORS * 512, .sector_size = 512, .users = 1};
    block_set_full(&g->tight, NULL, g);
    ahci_init(&g->hba, &(struct ahci_config){.memory = {.ctx = g, .access = ram_access},
                                             .clock = &g->clock,
                                             .drive = {{.kind = ATA_DISK, .block = g->disk},
                                                       {.kind = ATA_CDROM, .block = g->cd},
                                                       {.kind = ATA_NONE},
                                                       {.kind = ATA_DISK, .block = &g->tight}}});
    ck_assert(pci_bus_attach(&g->pci, DEVFN, &g->hba.pci));
    pci_bus_config_write(&g->pci, DEVFN, 0x24, 4, BAR);
    pci_bus_config_write(&g->pci, DEVFN, 0x20, 4, 0xc000);
    pci_bus_config_write(&g->pci, DEVFN, PCI_COMMAND, 2, 7);
    return g;
}

static void rig_free(struct rig *g)
{
    if (g->hba.pci.bus)
        pci_bus_detach(&g->hba.pci);
    block_close(g->disk);
    block_close(g->cd);
    bus_fini(&g->io);
    bus_fini(&g->mmio);
    free(g);
}

/* What a driver does first. */
static void start(struct rig *g, unsigned port)
{
    pwr(g, port, CLB, LIST(port));
    pwr(g, port, FB, FRAMES(port));
    pwr(g, port, CMD, 0x10);
    pwr(g, port, SERR, UINT32_MAX);
    pwr(g, port, PIS, UINT32_MAX);
    pwr(g, port, CMD, 0x11);
    pwr(g, port, PIE, UINT32_MAX);
    wr(g, GHC, 2);
}

static struct rig *rig_started(void)
{
    struct rig *g = rig_new();
    for (unsigned port = 0; port < 4; port++)
        start(g, port);
    return g;
}

/* ---- commands ---- */

static void put_region(struct rig *g, unsigned slot, unsigned n, uint64_t gpa, uint32_t len, bool interrupt)
{
    uint8_t *p = g->ram + TABLE(slot) + 0x80 + 16 * n;
    store_le(p, gpa, 8);
    store_le(p + 12, (len - 1) | (interrupt ? 0x80000000u : 0), 4);
}

/* A command with one region of data, to be issued. */
static uint8_t *put_command(struct rig *g, unsigned port, unsigned slot, uint8_t cmd, uint64_t lba, unsigned count,
                            uint32_t bytes)
{
    uint8_t *head = g->ram + LIST(port) + 32 * slot, *fis = g->ram + TABLE(slot);
    memset(head, 0, 32);
    memset(fis, 0, 0x80);
    store_le(head, 5 | (bytes ? 1u << 16 : 0), 4);
    store_le(head + 8, TABLE(slot), 8);
    fis[0] = 0x27;
    fis[1] = 0x80;
    fis[2] = cmd;
    store_le(fis + 4, lba, 3);
    fis[7] = 0x40;
    store_le(fis + 8, lba >> 24, 3);
    store_le(fis + 12, count, 2);
    put_region(g, slot, 0, DATA + 0x1000 * slot, bytes, false);
    return fis;
}

static void put_queued(struct rig *g, unsigned slot, uint8_t cmd, uint64_t lba, unsigned count)
{
    uint8_t *fis = put_command(g, 0, slot, cmd, lba, 0, count * 512);
    fis[3] = (uint8_t)count;
    fis[11] = (uint8_t)(count >> 8);
    fis[12] = (uint8_t)(slot << 3);
}

static void issue(struct rig *g, unsigned port, uint32_t slots)
{
    pwr(g, port, CI, slots);
}

static void run(struct rig *g)
{
    run_for(&g->clock, BLOCK_LATENCY);
}

static void is_disk_data(const struct rig *g, unsigned at, uint64_t from, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        ck_assert_uint_eq(g->ram[at + i], disk_byte(from + i));
}

/* What a driver does after an error. */
static void recover(struct rig *g, unsigned port)
{
    pwr(g, port, CMD, 0x10);
    ck_assert_uint_eq(prd(g, port, CMD) & 0x8001, 0);
    ck_assert_uint_eq(prd(g, port, CI) | prd(g, port, SACT), 0);
    pwr(g, port, PIS, UINT32_MAX);
    if (prd(g, port, TFD) & 0x88) {
        pwr(g, port, SCTL, 0x301);
        pwr(g, port, SCTL, 0x300);
    }
    pwr(g, port, SERR, UINT32_MAX);
    pwr(g, port, PIS, UINT32_MAX);
    pwr(g, port, CMD, 0x11);
}

static void works(struct rig *g, unsigned port)
{
    put_command(g, port, 0, 0x25, 3, 1, 512);
    memset(g->ram + DATA, 0, 512);
    issue(g, port, 1);
    run(g);
    ck_assert_uint_eq(prd(g, port, CI), 0);
    ck_assert_uint_eq(prd(g, port, TFD), 0x50);
    is_disk_data(g, DATA, 3 * 512, 512);
}

/* ---- registers ---- */

START_TEST(ports_say_what_is_connected_once_there_is_a_place_for_it)
{
    struct rig *g = rig_new();
    static const uint32_t status[] = {0x133, 0x133, 0, 0x133},
                          signature[] = {0x00000101, 0xeb140101, UINT32_MAX, 0x101};
    ck_assert_uint_eq(rd(g, CAP), 0xc1349f05);
    ck_assert_uint_eq(rd(g, PI), 0x3f);
    ck_assert_uint_eq(rd(g, VS), 0x00010301);
    ck_assert_uint_eq(rd(g, GHC), 0x80000000);
    for (unsigned port = 0; port < 4; port++) {
        ck_assert_uint_eq(prd(g, port, SSTS), status[port]);
        ck_assert_uint_eq(prd(g, port, TFD), 0x7f);
        ck_assert_uint_eq(prd(g, port, SIG), UINT32_MAX);
        pwr(g, port, FB, FRAMES(port));
        pwr(g, port, CMD, 0x10);
        ck_assert_uint_eq(prd(g, port, SIG), signature[port]);
        ck_assert_uint_eq(prd(g, port, TFD) & 0x88, port == 2 ? 8 : 0);
        ck_assert_uint_eq(g->ram[FRAMES(port) + 0x40], port == 2 ? 0 : 0x34);
        ck_assert_uint_eq(prd(g, port, SERR) | prd(g, port, PIS), 0);
    }
    rig_free(g);
}
END_TEST

START_TEST(registers_hold_the_bits_that_they_have)
{
    struct rig *g = rig_new();
    for (unsigned at = 0; at < 0x80; at += 4)
        if (at != CMD && at != SCTL)
            pwr(g, 5, at, UINT32_MAX);
    ck_assert_uint_eq(prd(g, 5, CLB), 0xfffffc00);
    ck_assert_uint_eq(prd(g, 5, FB), 0xffffff00);
    ck_assert_uint_eq(prd(g, 5, CLB + 4), UINT32_MAX);
    ck_assert_uint_eq(prd(g, 5, PIE), 0xfdc000ff);
    ck_assert_uint_eq(prd(g, 5, CI) | prd(g, 5, SACT), 0); /* it does not run */
    ck_assert_uint_eq(prd(g, 5, CMD), 6);
    wr(g, CAP, UINT32_MAX);
    wr(g, PI, 0);
    ck_assert_uint_eq(rd(g, PI), 0x3f);
    wr(g, GHC, 3); /* reset */
    ck_assert_uint_eq(rd(g, GHC), 0x80000000);
    ck_assert_uint_eq(prd(g, 5, PIE), 0);
    ck_assert_uint_eq(prd(g, 5, CLB), 0xfffffc00);
    ck_assert_uint_eq(prd(g, 5, PIS), 0);
    ck_assert_uint_eq(prd(g, 0, PIS), 0x400040); /* the link has changed */
    pwr(g, 0, PIS, UINT32_MAX);
    ck_assert_uint_eq(prd(g, 0, PIS), 0x400040);
    pwr(g, 0, SERR, UINT32_MAX);
    ck_assert_uint_eq(prd(g, 0, PIS), 0);
    ck_assert_uint_eq(rd(g, 0xffc), 0); /* a port that is not there */
    rig_free(g);
}
END_TEST

START_TEST(index_data_pair_reaches_the_registers)
{
    struct rig *g = rig_new();
    bus_write(&g->io, 0xc010, 4, 0x100 + CLB, 0);
    bus_write(&g->io, 0xc014, 4, 0x7777, 0);
    ck_assert_uint_eq(bus_read(&g->io, 0xc014, 4, 0), 0x7400);
    ck_assert_uint_eq(prd(g, 0, CLB), 0x7400);
    bus_write(&g->io, 0xc010, 4, UINT32_MAX, 0);
    ck_assert_uint_eq(bus_read(&g->io, 0xc014, 4, 0), 0);
    rig_free(g);
}
END_TEST

/* ---- data ---- */

START_TEST(identify_comes_by_pio_with_a_frame_of_its_own)
{
    struct rig *g = rig_started();
    const uint8_t *frame = g->ram + FRAMES(0) + 0x20;
    put_command(g, 0, 7, 0xec, 0, 0, 512);
    memset(g->ram + FRAMES(0), 0, 256);
    issue(g, 0, 1u << 7);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    ck_assert_uint_eq(prd(g, 0, PIS), PSS);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x50);
    ck_assert_uint_eq(load_le(g->ram + LIST(0) + 32 * 7 + 4, 4), 512);
    ck_assert_uint_eq(frame[0], 0x5f);
    ck_assert_uint_eq(frame[1], 0x60);
    ck_assert_uint_eq(frame[2], 0x58);
    ck_assert_uint_eq(frame[15], 0x50);
    ck_assert_uint_eq(load_le(frame + 16, 2), 512);
    ck_assert_uint_eq(g->ram[FRAMES(0) + 0x40], 0); /* nothing else is sent */
    const uint8_t *id = g->ram + DATA + 0x7000;
    ck_assert_uint_eq(load_le(id + 2 * 100, 8), DISK_SECTORS);
    ck_assert_uint_eq(load_le(id + 2 * 75, 2), 31);
    ck_assert_uint_eq(load_le(id + 2 * 76, 2) & 0x100, 0x100);
    ck_assert_uint_eq(load_le(id + 2 * 93, 2), 0);
    rig_free(g);
}
END_TEST

START_TEST(dma_follows_the_table_and_takes_its_time)
{
    struct rig *g = rig_started();
    put_command(g, 0, 0, 0x25, 10, 4, 2048);
    store_le(g->ram + LIST(0) + 2, 3, 2);
    put_region(g, 0, 0, 0x30000, 0x302, true);
    put_region(g, 0, 1, 0x40ffe, 4, false); /* over a page's end */
    put_region(g, 0, 2, 0x50000, 0x1000, false);
    issue(g, 0, 1);
    run_for(&g->clock, BLOCK_LATENCY - 1);
    ck_assert_uint_eq(prd(g, 0, CI), 1);
    ck_assert_uint_eq(prd(g, 0, TFD) & 0x80, 0x80);
    run_for(&g->clock, 1);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | DPS);
    is_disk_data(g, 0x30000, 5120, 0x302);
    is_disk_data(g, 0x40ffe, 5120 + 0x302, 4);
    is_disk_data(g, 0x50000, 5120 + 0x306, 2048 - 0x306);
    ck_assert_uint_eq(g->ram[0x50000 + 2048 - 0x306], 0);
    ck_assert_uint_eq(load_le(g->ram + LIST(0) + 4, 4), 2048);
    rig_free(g);
}
END_TEST

START_TEST(writes_reach_the_disk_by_dma_and_by_pio)
{
    static const uint8_t commands[] = {0x35, 0x34};
    for (unsigned k = 0; k < 2; k++) {
        struct rig *g = rig_started();
        uint8_t sectors[1024];
        put_command(g, 0, 2, commands[k], 20, 2, 1024);
        memset(g->ram + DATA + 0x2000, 0x77, 512);
        memset(g->ram + DATA + 0x2200, 0x88, 512);
        issue(g, 0, 1u << 2);
        run_for(&g->clock, 2 * BLOCK_LATENCY);
        ck_assert_uint_eq(prd(g, 0, CI), 0);
        ck_assert_uint_eq(prd(g, 0, PIS), k ? DHRS | PSS : DHRS);
        ck_assert_int_eq(block_read(g->disk, 20 * 512, sectors, 1024), BLOCK_OK);
        ck_assert_uint_eq(sectors[511], 0x77);
        ck_assert_uint_eq(sectors[512], 0x88);
        rig_free(g);
    }
}
END_TEST

START_TEST(packets_bring_data_by_dma_and_by_pio)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 2},
                         beyond[12] = {0x28, 0, 0, 0, 0, CD_SECTORS, 0, 0, 1};
    struct rig *g = rig_started();
    for (unsigned dma = 0; dma < 2; dma++) {
        uint8_t *fis = put_command(g, 1, 0, 0xa0, dma ? 0 : 0x080000, 0, 4096); /* PIO: 2048 at a time */
        fis[3] = (uint8_t)dma;
        memcpy(g->ram + TABLE(0) + 0x40, read, sizeof read);
        memset(g->ram + DATA, 0, 4096);
        issue(g, 1, 1);
        run_for(&g->clock, 4 * BLOCK_LATENCY);
        ck_assert_uint_eq(prd(g, 1, CI), 0);
        ck_assert_uint_eq(prd(g, 1, PIS), dma ? DHRS : DHRS | PSS);
        is_disk_data(g, DATA, 3 * 2048, 4096);
        pwr(g, 1, PIS, UINT32_MAX);
    }
    memcpy(g->ram + TABLE(0) + 0x40, beyond, sizeof beyond);
    issue(g, 1, 1);
    run(g);
    ck_assert_uint_eq(prd(g, 1, PIS), DHRS | TFES);
    ck_assert_uint_eq(prd(g, 1, TFD), 0x5441);
    recover(g, 1);
    memcpy(g->ram + TABLE(0) + 0x40, read, sizeof read);
    issue(g, 1, 1);
    run_for(&g->clock, 2 * BLOCK_LATENCY);
    ck_assert_uint_eq(prd(g, 1, PIS), DHRS);
    rig_free(g);
}
END_TEST

START_TEST(writes_wait_for_room_on_the_hosts_disk)
{
    struct rig *g = rig_started();
    uint8_t *fis = put_command(g, 3, 1, 0x61, 0, 0, 512);
    fis[3] = 1;
    fis[12] = 1 << 3;
    put_command(g, 3, 0, 0x35, 0, 1, 512);
    for (unsigned slot = 0; slot < 2; slot++) {
        g->full = 3;
        pwr(g, 3, SACT, slot);
        issue(g, 3, 1u << slot);
        for (unsigned k = 0; k < 3; k++) {
            clock_skip_to(&g->clock, clock_next_deadline(&g->clock));
            clock_run_due(&g->clock);
            ck_assert_uint_eq(prd(g, 3, PIS), 0);
        }
        uint64_t before = clock_now(&g->clock);
        clock_run_due(&g->clock);
        ck_assert_uint_eq(clock_now(&g->clock), before); /* no time has passed for the guest */
        ck_assert_uint_eq(prd(g, 3, PIS), slot ? SDBS : DHRS);
        pwr(g, 3, PIS, UINT32_MAX);
    }
    rig_free(g);
}
END_TEST

/* ---- queued commands ---- */

START_TEST(queued_commands_free_their_slots_and_end_by_their_tags)
{
    struct rig *g = rig_started();
    uint8_t sector[512];
    put_queued(g, 3, 0x60, 7, 2);
    put_queued(g, 9, 0x61, 30, 1);
    memset(g->ram + DATA + 0x9000, 0x99, 512);
    pwr(g, 0, SACT, 1u << 3);
    issue(g, 0, 1u << 3);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    ck_assert_uint_eq(prd(g, 0, PIS), 0);
    run_for(&g->clock, 1000);
    pwr(g, 0, SACT, 1u << 9);
    issue(g, 0, 1u << 9);
    ck_assert_uint_eq(prd(g, 0, SACT), 1u << 3 | 1u << 9);
    run_for(&g->clock, BLOCK_LATENCY - 1000);
    ck_assert_uint_eq(prd(g, 0, SACT), 1u << 9);
    ck_assert_uint_eq(prd(g, 0, PIS), SDBS);
    ck_assert_uint_eq(g->ram[FRAMES(0) + 0x58], 0xa1);
    ck_assert_uint_eq(load_le(g->ram + FRAMES(0) + 0x5c, 4), 1u << 3);
    ck_assert_uint_eq(g->ram[FRAMES(0)], 0x41);
    is_disk_data(g, DATA + 0x3000, 7 * 512, 1024);
    run_for(&g->clock, 1000);
    ck_assert_uint_eq(prd(g, 0, SACT), 0);
    ck_assert_int_eq(block_read(g->disk, 30 * 512, sector, 512), BLOCK_OK);
    ck_assert_uint_eq(sector[511], 0x99);
    rig_free(g);
}
END_TEST

START_TEST(all_tags_are_in_flight_at_once)
{
    struct rig *g = rig_started();
    for (unsigned slot = 0; slot < 32; slot++)
        put_queued(g, slot, 0x60, slot, 1);
    pwr(g, 0, SACT, UINT32_MAX);
    issue(g, 0, UINT32_MAX);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    run(g);
    ck_assert_uint_eq(prd(g, 0, SACT), 0);
    for (unsigned slot = 0; slot < 32; slot++)
        is_disk_data(g, DATA + 0x1000 * slot, slot * 512u, 512);
    rig_free(g);
}
END_TEST

static const uint8_t *read_error_log(struct rig *g)
{
    uint8_t sum = 0;
    put_command(g, 0, 0, 0x2f, 0x10, 1, 512);
    issue(g, 0, 1);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + g->ram[DATA + i]);
    ck_assert_uint_eq(sum, 0);
    return g->ram + DATA;
}

START_TEST(queued_command_that_fails_takes_the_queue_along_and_is_in_the_log)
{
    struct rig *g = rig_started();
    put_queued(g, 1, 0x60, 0, 1);
    put_queued(g, 5, 0x60, DISK_SECTORS, 1);
    pwr(g, 0, SACT, 0x22);
    issue(g, 0, 0x22);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | TFES);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x1051);
    run(g);
    ck_assert_uint_eq(prd(g, 0, SACT), 0x22);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | TFES);
    recover(g, 0);
    put_queued(g, 1, 0x60, 0, 1); /* not before the log is read */
    issue(g, 0, 2);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | TFES);
    recover(g, 0);
    const uint8_t *log = read_error_log(g);
    ck_assert_uint_eq(log[0], 5);
    ck_assert_uint_eq(log[2], 0x51);
    ck_assert_uint_eq(log[3], 0x10);
    ck_assert_uint_eq(log[4], DISK_SECTORS);
    ck_assert_uint_eq(read_error_log(g)[0], 0x80);
    put_queued(g, 1, 0x60, 4, 1);
    issue(g, 0, 2);
    run(g);
    is_disk_data(g, DATA + 0x1000, 4 * 512, 512);
    rig_free(g);
}
END_TEST

START_TEST(other_command_among_queued_ones_ends_all)
{
    struct rig *g = rig_started();
    put_queued(g, 1, 0x60, 0, 1);
    put_command(g, 0, 2, 0x25, 0, 1, 512);
    pwr(g, 0, SACT, 2);
    issue(g, 0, 2);
    issue(g, 0, 4);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x0451);
    run(g);
    ck_assert_uint_eq(prd(g, 0, SACT), 2);
    recover(g, 0);
    ck_assert_uint_eq(read_error_log(g)[0] & 0x80, 0x80);
    works(g, 0);
    put_queued(g, 1, 0x60, 0, 1); /* a tag twice */
    issue(g, 0, 2);
    issue(g, 0, 2);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x0451);
    rig_free(g);
}
END_TEST

/* ---- errors ---- */

START_TEST(error_holds_the_port_until_it_is_stopped)
{
    struct rig *g = rig_started();
    put_command(g, 0, 0, 0x25, DISK_SECTORS - 1, 2, 1024);
    put_command(g, 0, 1, 0xec, 0, 0, 512);
    issue(g, 0, 1);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | TFES);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x1051);
    ck_assert_uint_eq(prd(g, 0, CMD) >> 8 & 31, 0);
    issue(g, 0, 2);
    run(g);
    ck_assert_uint_eq(prd(g, 0, CI), 3);
    recover(g, 0);
    works(g, 0);
    rig_free(g);
}
END_TEST

START_TEST(table_that_ends_early_is_an_overflow)
{
    struct rig *g = rig_started();
    uint8_t sector[512];
    put_command(g, 0, 0, 0x25, 10, 4, 1000);
    issue(g, 0, 1);
    run(g);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | OFS); /* what fits is there */
    ck_assert_uint_eq(load_le(g->ram + LIST(0) + 4, 4), 1000);
    is_disk_data(g, DATA, 5120, 1000);
    recover(g, 0);
    put_command(g, 0, 0, 0x35, 10, 1, 500);
    issue(g, 0, 1);
    run(g);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | OFS | TFES);
    ck_assert_int_eq(block_read(g->disk, 5120, sector, 512), BLOCK_OK);
    ck_assert_uint_eq(sector[0], disk_byte(5120));
    recover(g, 0);
    put_command(g, 0, 0, 0x34, 10, 1, 0); /* PIO, no table at all */
    issue(g, 0, 1);
    ck_assert_uint_eq(prd(g, 0, PIS), DHRS | OFS | TFES);
    recover(g, 0);
    works(g, 0);
    rig_free(g);
}
END_TEST

/* Each pointer of a command leads nowhere in turn. */
START_TEST(pointers_that_lead_nowhere_stop_the_port)
{
    for (unsigned what = 0; what < 7; what++) {
        struct rig *g = rig_started();
        uint8_t *head = g->ram + LIST(0), *fis = put_command(g, 0, 0, what == 5 ? 0x60 : 0x25, 3, 1, 512);
        if (what == 0)
            pwr(g, 0, CLB + 4, 1);
        if (what == 1)
            store_le(head + 8, ~0ull << 7, 8);
        if (what == 2)
            put_region(g, 0, 0, RAM - 256, 512, false);
        if (what == 3)
            put_region(g, 0, 0, UINT64_MAX - 100, 512, false);
        if (what == 4)
            pwr(g, 0, FB + 4, 1);
        if (what == 5) {
            put_region(g, 0, 0, 1ull << 40, 512, false);
            fis[3] = 1;
            fis[12] = 0;
        }
        if (what == 6) /* not a master of the bus */
            pci_bus_config_write(&g->pci, DEVFN, PCI_COMMAND, 2, 3);
        issue(g, 0, 1);
        run(g);
        ck_assert_uint_eq(prd(g, 0, PIS) & HBFS, HBFS);
        issue(g, 0, 2);
        run(g);
        ck_assert_uint_eq(prd(g, 0, CI) & 2, 2);
        pci_bus_config_write(&g->pci, DEVFN, PCI_COMMAND, 2, 7);
        pwr(g, 0, CLB + 4, 0);
        pwr(g, 0, FB + 4, 0);
        recover(g, 0);
        works(g, 0);
        rig_free(g);
    }
}
END_TEST

START_TEST(frame_that_no_drive_takes_is_an_interface_error)
{
    for (unsigned what = 0; what < 2; what++) {
        struct rig *g = rig_started();
        uint8_t *fis = put_command(g, 0, 0, 0x25, 3, 1, 512);
        if (what)
            g->ram[LIST(0)] = 4;
        else
            fis[0] = 0x34;
        issue(g, 0, 1);
        ck_assert_uint_eq(prd(g, 0, PIS), IFS);
        recover(g, 0);
        works(g, 0);
        rig_free(g);
    }
}
END_TEST

/* ---- resets ---- */

START_TEST(stopping_forgets_commands_and_a_reset_brings_the_drive_back)
{
    struct rig *g = rig_started();
    put_command(g, 0, 0, 0x25, 10, 1, 512);
    issue(g, 0, 1);
    pwr(g, 0, CMD, 0x10);
    run(g);
    ck_assert_uint_eq(g->ram[DATA + 1], 0);
    ck_assert_uint_eq(prd(g, 0, TFD) & 0x80, 0x80);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    pwr(g, 0, CMD, 0x18); /* command list override: commands may be sent */
    ck_assert_uint_eq(prd(g, 0, TFD) & 0x88, 0);
    pwr(g, 0, CMD, 0x11);
    uint8_t *fis = put_command(g, 0, 0, 0, 0, 0, 0);
    store_le(g->ram + LIST(0), 5 | 0x0400, 4);
    fis[1] = 0;
    fis[15] = 4;
    issue(g, 0, 1);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    store_le(g->ram + LIST(0), 5, 4);
    fis[15] = 0;
    memset(g->ram + FRAMES(0), 0, 256);
    issue(g, 0, 1);
    ck_assert_uint_eq(prd(g, 0, CI), 0);
    ck_assert_uint_eq(g->ram[FRAMES(0) + 0x40], 0x34);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x0150);
    ck_assert_uint_eq(prd(g, 0, SIG), 0x101);
    works(g, 0);
    rig_free(g);
}
END_TEST

START_TEST(comreset_drops_the_link_and_raises_it_again)
{
    struct rig *g = rig_started();
    put_queued(g, 1, 0x60, 0, 1);
    pwr(g, 0, SACT, 2);
    issue(g, 0, 2);
    pwr(g, 0, CMD, 0x10);
    pwr(g, 0, SCTL, 0x311);
    ck_assert_uint_eq(prd(g, 0, SSTS), 0);
    ck_assert_uint_eq(prd(g, 0, TFD), 0x7f);
    pwr(g, 0, SCTL, 0x310);
    ck_assert_uint_eq(prd(g, 0, SSTS), 0x113); /* at the speed that was allowed */
    ck_assert_uint_eq(prd(g, 0, SERR), 0x04010000);
    ck_assert_uint_eq(prd(g, 0, SIG), 0x101);
    run(g);
    ck_assert_uint_eq(g->ram[DATA + 0x1001], 0);
    recover(g, 0);
    works(g, 0);
    pwr(g, 0, SCTL, 4); /* off line */
    ck_assert_uint_eq(prd(g, 0, SSTS), 4);
    issue(g, 0, 1);
    run(g);
    ck_assert_uint_eq(prd(g, 0, CI), 1);
    pwr(g, 0, SCTL, 0);
    run(g);
    ck_assert_uint_eq(prd(g, 0, CI), 0); /* it is there again, and the command too */
    rig_free(g);
}
END_TEST

START_TEST(port_without_a_drive_never_answers)
{
    struct rig *g = rig_started();
    uint8_t *fis = put_command(g, 2, 0, 0x90, 0, 0, 0);
    pwr(g, 2, CMD, 0x10);
    pwr(g, 2, CMD, 0x18);
    pwr(g, 2, CMD, 0x11);
    issue(g, 2, 1);
    run(g);
    ck_assert_uint_eq(prd(g, 2, CI), 1);
    ck_assert_uint_eq(prd(g, 2, PIS), 0);
    pwr(g, 2, CMD, 0x18);
    pwr(g, 2, CMD, 0x11);
    fis[1] = 0;
    issue(g, 2, 1);
    ck_assert_uint_eq(prd(g, 2, SIG), UINT32_MAX);
    rig_free(g);
}
END_TEST

/* ---- interrupts ---- */

START_TEST(line_is_up_while_a_port_has_something_to_say)
{
    struct rig *g = rig_started();
    const struct wire *line = &g->irq[3];
    ck_assert(!line->level);
    put_command(g, 0, 0, 0xec, 0, 0, 512);
    issue(g, 0, 1);
    ck_assert(line->level);
    ck_assert_uint_eq(rd(g, IS), 1);
    wr(g, IS, 1); /* the port is asked first */
    ck_assert_uint_eq(rd(g, IS), 1);
    pwr(g, 0, PIS, PSS);
    ck_assert(line->level);
    wr(g, IS, 1);
    ck_assert(!line->level);
    pwr(g, 0, PIE, 0);
    issue(g, 0, 1);
    ck_assert(!line->level);
    pwr(g, 0, PIE, PSS);
    ck_assert(line->level);
    wr(g, GHC, 0);
    ck_assert(!line->level);
    rig_free(g);
}
END_TEST

START_TEST(message_comes_with_each_event_and_again_if_something_is_left)
{
    struct rig *g = rig_started();
    unsigned cap = g->hba.pci.msi;
    pci_bus_config_write(&g->pci, DEVFN, cap + 4, 4, 0xfee00000);
    pci_bus_config_write(&g->pci, DEVFN, cap + 12, 2, 0x41);
    pci_bus_config_write(&g->pci, DEVFN, cap + 2, 2, 1);
    put_command(g, 0, 0, 0xec, 0, 0, 512);
    issue(g, 0, 1);
    ck_assert_uint_eq(g->messages, 1);
    ck_assert(!g->irq[3].level);
    put_command(g, 3, 0, 0xec, 0, 0, 512);
    issue(g, 3, 1);
    ck_assert_uint_eq(g->messages, 2);
    pwr(g, 0, PIS, PSS);
    wr(g, IS, 1);
    ck_assert_uint_eq(g->messages, 3); /* port 3 is still there */
    pwr(g, 3, PIS, PSS);
    wr(g, IS, 8);
    ck_assert_uint_eq(g->messages, 3);
    rig_free(g);
}
END_TEST

/* ---- state ---- */

START_TEST(transfers_go_on_after_a_load)
{
    struct rig *g = rig_started(), *to = rig_new();
    put_queued(g, 4, 0x60, 7, 2);
    put_queued(g, 6, 0x60, 9, 1);
    uint8_t *fis = put_command(g, 1, 0, 0xa0, 0x080000, 0, 4096); /* a CD by PIO */
    fis[3] = 0;
    memcpy(g->ram + TABLE(0) + 0x40, (uint8_t[12]){0x28, 0, 0, 0, 0, 3, 0, 0, 2}, 12);
    issue(g, 1, 1);
    run_for(&g->clock, BLOCK_LATENCY / 2);
    pwr(g, 0, SACT, 0x50);
    issue(g, 0, 0x50);
    run_for(&g->clock, BLOCK_LATENCY / 2); /* between two blocks of the CD's */
    ROUND_TRIP(&g->clock, &to->clock, ahci_save(&g->hba, w), ahci_load(&to->hba, r));
    memcpy(to->ram, g->ram, RAM);
    struct rig *both[] = {g, to};
    for (unsigned k = 0; k < 2; k++) {
        run(both[k]);
        ck_assert_uint_eq(prd(both[k], 0, SACT) | prd(both[k], 1, CI), 0);
        ck_assert_uint_eq(rd(both[k], IS), 3);
        is_disk_data(both[k], DATA + 0x4000, 7 * 512, 1024);
        is_disk_data(both[k], DATA + 0x6000, 9 * 512, 512);
        is_disk_data(both[k], DATA, 3 * 2048, 4096);
    }
    ck_assert_int_eq(memcmp(g->ram, to->ram, RAM), 0);
    rig_free(g);
    rig_free(to);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("ahci");
    TCase *t = tcase_create("ahci");
    tcase_add_test(t, ports_say_what_is_connected_once_there_is_a_place_for_it);
    tcase_add_test(t, registers_hold_the_bits_that_they_have);
    tcase_add_test(t, index_data_pair_reaches_the_registers);
    tcase_add_test(t, identify_comes_by_pio_with_a_frame_of_its_own);
    tcase_add_test(t, dma_follows_the_table_and_takes_its_time);
    tcase_add_test(t, writes_reach_the_disk_by_dma_and_by_pio);
    tcase_add_test(t, packets_bring_data_by_dma_and_by_pio);
    tcase_add_test(t, writes_wait_for_room_on_the_hosts_disk);
    tcase_add_test(t, queued_commands_free_their_slots_and_end_by_their_tags);
    tcase_add_test(t, all_tags_are_in_flight_at_once);
    tcase_add_test(t, queued_command_that_fails_takes_the_queue_along_and_is_in_the_log);
    tcase_add_test(t, other_command_among_queued_ones_ends_all);
    tcase_add_test(t, error_holds_the_port_until_it_is_stopped);
    tcase_add_test(t, table_that_ends_early_is_an_overflow);
    tcase_add_test(t, pointers_that_lead_nowhere_stop_the_port);
    tcase_add_test(t, frame_that_no_drive_takes_is_an_interface_error);
    tcase_add_test(t, stopping_forgets_commands_and_a_reset_brings_the_drive_back);
    tcase_add_test(t, comreset_drops_the_link_and_raises_it_again);
    tcase_add_test(t, port_without_a_drive_never_answers);
    tcase_add_test(t, line_is_up_while_a_port_has_something_to_say);
    tcase_add_test(t, message_comes_with_each_event_and_again_if_something_is_left);
    tcase_add_test(t, transfers_go_on_after_a_load);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
