/*
 * The IDE channel: who is there, PIO and DMA against the image's bytes, errors, packets, and a snapshot in the middle
 * of a transfer.
 */
#include "storage_rig.h"

#include "devices/ide/piix_ide.h"

#define DISK_SECTORS 200
#define CD_SECTORS   20
#define RAM          0x40000

struct rig {
    struct vclock clock;
    struct bus io, mmio;
    struct pci_bus pci;
    struct wire irq[2];
    struct block_device *disk, *cd;
    struct piix_ide ide;
    uint8_t ram[RAM];
};

static enum mem_result ram_access(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                  bool write)
{
    struct rig *g = ctx;
    return ram_move(g->ram, RAM, gpa, buf, len, write);
}

static struct rig *rig_new(void)
{
    struct rig *g = calloc(1, sizeof *g);
    struct irq_line none[4] = {{0}};
    clock_init(&g->clock);
    bus_init(&g->io, "port", 0x10000, NULL);
    bus_init(&g->mmio, "mmio", 0, NULL);
    pci_bus_init(&g->pci, &g->io, &g->mmio, none, NULL);
    g->disk = open_image(DISK_SECTORS * 512, false);
    g->cd = open_image(CD_SECTORS * 2048, false);
    piix_ide_init(&g->ide, &(struct piix_ide_config){.clock = &g->clock,
                                                     .irq = {wire_line(g->irq, 0), wire_line(g->irq, 1)},
                                                     .memory = {.ctx = g, .access = ram_access},
                                                     .drive = {{.kind = ATA_DISK, .block = g->disk},
                                                               {.kind = ATA_NONE},
                                                               {.kind = ATA_CDROM, .block = g->cd}},
                                                     .bus = &g->pci,
                                                     .devfn = 9});
    pci_bus_config_write(&g->pci, 9, 0x20, 4, 0xc000);
    pci_bus_config_write(&g->pci, 9, PCI_COMMAND, 2, 5);
    return g;
}

static void rig_free(struct rig *g)
{
    piix_ide_fini(&g->ide);
    block_close(g->disk);
    block_close(g->cd);
    bus_fini(&g->io);
    bus_fini(&g->mmio);
    free(g);
}

static void wr(struct rig *g, unsigned channel, unsigned reg, uint64_t v, unsigned size)
{
    reg_write(&ide_command_bus_ops, &g->ide.channel[channel], reg, size, v);
}

static uint64_t rd(struct rig *g, unsigned channel, unsigned reg, unsigned size)
{
    return reg_read(&ide_command_bus_ops, &g->ide.channel[channel], reg, size);
}

static void command(struct rig *g, uint32_t lba, uint8_t count, uint8_t cmd)
{
    wr(g, 0, 6, 0xe0 | lba >> 24, 1);
    wr(g, 0, 2, count, 1);
    for (unsigned i = 0; i < 3; i++)
        wr(g, 0, 3 + i, lba >> (8 * i) & 0xff, 1);
    wr(g, 0, 7, cmd, 1);
}

static void reads_sector(struct rig *g, uint32_t lba)
{
    for (unsigned i = 0; i < 512; i += 2) {
        uint64_t at = (uint64_t)lba * 512 + i;
        ck_assert_uint_eq(rd(g, 0, 0, 2), disk_byte(at) | (unsigned)disk_byte(at + 1) << 8);
    }
}

START_TEST(drives_are_told_by_their_signatures)
{
    struct rig *g = rig_new();
    ck_assert_uint_eq(rd(g, 0, 4, 1) | rd(g, 0, 5, 1) << 8, 0);
    ck_assert_uint_eq(rd(g, 1, 4, 1) | rd(g, 1, 5, 1) << 8, 0xeb14);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x50);
    wr(g, 0, 6, 0xf0, 1);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0);
    wr(g, 0, 6, 0xe0, 1);
    wr(g, 0, 7, 0xec, 1);
    uint16_t id[256];
    for (unsigned i = 0; i < 256; i++)
        id[i] = (uint16_t)rd(g, 0, 0, 2);
    ck_assert_uint_eq(id[60], DISK_SECTORS);
    ck_assert_uint_eq(id[100], DISK_SECTORS);
    ck_assert_uint_eq(id[27], 'U' << 8 | 'M');
    rig_free(g);
}
END_TEST

START_TEST(sectors_come_one_by_one_each_with_an_interrupt)
{
    struct rig *g = rig_new();
    command(g, 5, 3, 0x20);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x80);
    for (unsigned k = 0; k < 3; k++) {
        run_for(&g->clock, BLOCK_LATENCY);
        ck_assert(g->irq[0].level);
        ck_assert_uint_eq(rd(g, 0, 7, 1), 0x58);
        ck_assert(!g->irq[0].level);
        reads_sector(g, 5 + k);
    }
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x50);
    ck_assert_uint_eq(g->irq[0].rises, 3);
    rig_free(g);
}
END_TEST

START_TEST(what_is_written_is_read_back)
{
    struct rig *g = rig_new();
    uint8_t sector[512];
    command(g, 9, 1, 0x30);
    for (unsigned i = 0; i < 512; i += 2)
        wr(g, 0, 0, 0x1234 + i, 2);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x50);
    ck_assert_int_eq(block_read(g->disk, 9 * 512, sector, 512), BLOCK_OK);
    for (unsigned i = 0; i < 512; i += 2)
        ck_assert_uint_eq(sector[i] | (unsigned)sector[i + 1] << 8, 0x1234 + i);
    rig_free(g);
}
END_TEST

START_TEST(command_beyond_the_end_ends_in_an_error)
{
    struct rig *g = rig_new();
    command(g, DISK_SECTORS - 1, 2, 0x20);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x51);
    ck_assert_uint_eq(rd(g, 0, 1, 1), 0x10);
    command(g, 0, 1, 0xb0);
    ck_assert_uint_eq(rd(g, 0, 1, 1), 0x04);
    rig_free(g);
}
END_TEST

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void start_dma(struct rig *g, uint8_t direction)
{
    bus_write(&g->io, 0xc004, 4, 0x1000, 0);
    bus_write(&g->io, 0xc000, 1, direction, 0);
    bus_write(&g->io, 0xc000, 1, direction | 1, 0);
}

START_TEST(dma_follows_the_table)
{
    struct rig *g = rig_new();
    put32(g->ram + 0x1000, 0x2000);
    put32(g->ram + 0x1004, 0x300);
    put32(g->ram + 0x1008, 0x8000);
    put32(g->ram + 0x100c, 0x80000000 | 0x500);
    command(g, 10, 4, 0xc8);
    start_dma(g, 8);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert_uint_eq(bus_read(&g->io, 0xc002, 1, 0) & 7, 4);
    for (unsigned i = 0; i < 4 * 512; i++)
        ck_assert_uint_eq(g->ram[i < 0x300 ? 0x2000 + i : 0x8000 + i - 0x300], disk_byte(10 * 512 + i));
    memset(g->ram + 0x2000, 0x77, 0x300);
    command(g, 20, 1, 0xca);
    start_dma(g, 0);
    run_for(&g->clock, BLOCK_LATENCY);
    uint8_t sector[512];
    ck_assert_int_eq(block_read(g->disk, 20 * 512, sector, 512), BLOCK_OK);
    ck_assert_uint_eq(sector[0], 0x77);
    ck_assert_uint_eq(sector[511], 0x77);
    rig_free(g);
}
END_TEST

static void write_by_dma(struct rig *g, uint8_t cmd)
{
    put32(g->ram + 0x1000, 0x2000);
    put32(g->ram + 0x1004, 0x80000000 | 0x200);
    wr(g, 0, 2, 0, 1); /* high-order bytes of the count */
    command(g, 0, 1, cmd);
    start_dma(g, 0);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x50);
}

START_TEST(dma_write_past_the_cache_or_without_one_is_flushed)
{
    struct rig *g = rig_new();
    write_by_dma(g, 0xca);
    ck_assert_uint_eq(g->disk->counters.flushes, 0);
    write_by_dma(g, 0x3d); /* WRITE DMA FUA EXT */
    ck_assert_uint_eq(g->disk->counters.flushes, 1);
    wr(g, 0, 1, 0x82, 1); /* no write cache */
    wr(g, 0, 7, 0xef, 1);
    write_by_dma(g, 0xca);
    ck_assert_uint_eq(g->disk->counters.flushes, 2);
    rig_free(g);
}
END_TEST

START_TEST(table_that_ends_early_or_leads_nowhere_is_an_error)
{
    struct rig *g = rig_new();
    put32(g->ram + 0x1000, 0x2000);
    put32(g->ram + 0x1004, 0x80000000 | 0x200);
    command(g, 10, 4, 0xc8);
    start_dma(g, 8);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert_uint_eq(bus_read(&g->io, 0xc002, 1, 0) & 3, 2);
    ck_assert_uint_eq(rd(g, 0, 7, 1) & 1, 1);
    put32(g->ram + 0x1000, 0xfffff000);
    command(g, 10, 1, 0xc8);
    start_dma(g, 8);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert_uint_eq(rd(g, 0, 7, 1) & 1, 1);
    rig_free(g);
}
END_TEST

static void packet(struct rig *g, const uint8_t p[12])
{
    wr(g, 1, 6, 0xa0, 1);
    wr(g, 1, 1, 0, 1);
    wr(g, 1, 4, 0x00, 1);
    wr(g, 1, 5, 0x10, 1); /* 4096 bytes at a time */
    wr(g, 1, 7, 0xa0, 1);
    ck_assert_uint_eq(rd(g, 1, 2, 1), 1);
    for (unsigned i = 0; i < 12; i += 2)
        wr(g, 1, 0, p[i] | (unsigned)p[i + 1] << 8, 2);
    run_for(&g->clock, BLOCK_LATENCY);
}

START_TEST(cd_reads_in_pieces_of_the_hosts_limit)
{
    struct rig *g = rig_new();
    packet(g, (uint8_t[12]){0x28, 0, 0, 0, 0, 3, 0, 0, 5});
    uint64_t at = 3 * 2048;
    for (unsigned left = 5 * 2048; left;) {
        unsigned n = (unsigned)(rd(g, 1, 4, 1) | rd(g, 1, 5, 1) << 8);
        ck_assert_uint_eq(n, left < 4096 ? left : 4096);
        for (unsigned i = 0; i < n; i += 2, at += 2)
            ck_assert_uint_eq(rd(g, 1, 0, 2), disk_byte(at) | (unsigned)disk_byte(at + 1) << 8);
        left -= n;
        run_for(&g->clock, BLOCK_LATENCY);
    }
    ck_assert_uint_eq(rd(g, 1, 2, 1), 3);
    ck_assert_uint_eq(rd(g, 1, 7, 1) & 0x89, 0);
    packet(g, (uint8_t[12]){0x28, 0, 0, 0, 0, CD_SECTORS, 0, 0, 1});
    ck_assert_uint_eq(rd(g, 1, 7, 1) & 1, 1);
    ck_assert_uint_eq(rd(g, 1, 1, 1) >> 4, 5);
    packet(g, (uint8_t[12]){0x03, 0, 0, 0, 18});
    uint8_t sense[18];
    for (unsigned i = 0; i < 18; i += 2) {
        uint64_t v = rd(g, 1, 0, 2);
        sense[i] = (uint8_t)v;
        sense[i + 1] = (uint8_t)(v >> 8);
    }
    ck_assert_uint_eq(sense[2], 5);
    ck_assert_uint_eq(sense[12], 0x21);
    rig_free(g);
}
END_TEST

START_TEST(disc_that_is_changed_is_reported_once)
{
    struct rig *g = rig_new();
    ata_set_medium(&g->ide.channel[1].link, 0, NULL);
    packet(g, (uint8_t[12]){0});
    ck_assert_uint_eq(rd(g, 1, 1, 1) >> 4, 2);
    ata_set_medium(&g->ide.channel[1].link, 0, g->cd);
    packet(g, (uint8_t[12]){0});
    ck_assert_uint_eq(rd(g, 1, 1, 1) >> 4, 6);
    packet(g, (uint8_t[12]){0});
    ck_assert_uint_eq(rd(g, 1, 7, 1) & 1, 0);
    rig_free(g);
}
END_TEST

START_TEST(transfer_goes_on_after_a_load)
{
    struct rig *g = rig_new(), *to = rig_new();
    command(g, 5, 2, 0x20);
    run_for(&g->clock, BLOCK_LATENCY);
    for (unsigned i = 0; i < 100; i++)
        rd(g, 0, 0, 2);
    ROUND_TRIP(&g->clock, &to->clock, piix_ide_save(&g->ide, w), piix_ide_load(&to->ide, r));
    for (unsigned i = 200; i < 512; i += 2) {
        uint64_t at = 5 * 512 + i;
        ck_assert_uint_eq(rd(to, 0, 0, 2), disk_byte(at) | (unsigned)disk_byte(at + 1) << 8);
    }
    run_for(&to->clock, BLOCK_LATENCY);
    reads_sector(to, 6);
    ck_assert_uint_eq(rd(to, 0, 7, 1), 0x50);
    rig_free(g);
    rig_free(to);
}
END_TEST

START_TEST(data_that_waits_is_not_the_other_drives)
{
    struct rig *g = rig_new();
    command(g, 5, 1, 0x20);
    run_for(&g->clock, BLOCK_LATENCY);
    wr(g, 0, 6, 0xf0, 1);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0);
    for (unsigned i = 0; i < 300; i++)
        ck_assert_uint_eq(rd(g, 0, 0, 2), 0);
    run_for(&g->clock, BLOCK_LATENCY);
    wr(g, 0, 6, 0xe0, 1);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x58);
    reads_sector(g, 5);
    command(g, 9, 1, 0x30);
    wr(g, 0, 6, 0xf0, 1);
    for (unsigned i = 0; i < 300; i++)
        wr(g, 0, 0, 0x1234, 2);
    run_for(&g->clock, BLOCK_LATENCY);
    wr(g, 0, 6, 0xe0, 1);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x58);
    rig_free(g);
}
END_TEST

START_TEST(dma_is_that_of_the_drive_that_was_commanded)
{
    struct rig *g = rig_new();
    put32(g->ram + 0x1000, 0x2000);
    put32(g->ram + 0x1004, 0x80000000 | 0x200);
    command(g, 10, 1, 0xc8);
    wr(g, 0, 6, 0xf0, 1);
    start_dma(g, 8);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert_uint_eq(bus_read(&g->io, 0xc002, 1, 0) & 7, 4);
    ck_assert_uint_eq(g->ram[0x2000], disk_byte(10 * 512));
    wr(g, 0, 6, 0xe0, 1);
    ck_assert_uint_eq(rd(g, 0, 7, 1), 0x50);
    rig_free(g);
}
END_TEST

static uint64_t digest(struct rig *g)
{
    struct snap_writer *w = snap_writer_digest();
    piix_ide_save(&g->ide, w);
    return snap_writer_digest_close(w);
}

START_TEST(data_of_earlier_commands_is_no_part_of_the_state)
{
    struct rig *g = rig_new(), *to = rig_new();
    command(g, 5, 1, 0x20);
    run_for(&g->clock, BLOCK_LATENCY);
    reads_sector(g, 5);
    ROUND_TRIP(&g->clock, &to->clock, piix_ide_save(&g->ide, w), piix_ide_load(&to->ide, r));
    command(g, 9, 1, 0x30);
    command(to, 9, 1, 0x30);
    ck_assert_uint_eq(rd(g, 0, 7, 1), rd(to, 0, 7, 1));
    wr(g, 0, 0, 0x1234, 2);
    wr(to, 0, 0, 0x1234, 2);
    ck_assert_uint_eq(digest(g), digest(to));
    rig_free(g);
    rig_free(to);
}
END_TEST

START_TEST(snapshot_of_a_transfer_that_cannot_be_is_refused)
{
    struct rig *g = rig_new(), *to = rig_new();
    struct ide_channel *c = &g->ide.channel[0], *cd = &g->ide.channel[1];
    c->link.command = 0x06; /* more ranges than there is room for */
    c->link.job = ATA_JOB_DMA;
    c->link.left = 1000;
    REFUSED(ide_channel_save(c, w), ide_channel_load(&to->ide.channel[0], r));
    c->link.command = 0x20;
    c->link.job = ATA_JOB_PACKET; /* which a disk does not have */
    REFUSED(ide_channel_save(c, w), ide_channel_load(&to->ide.channel[0], r));
    c->link.job = ATA_JOB_READ;
    c->link.drive[1].status = 0x80; /* for a drive that is not there */
    REFUSED(ide_channel_save(c, w), ide_channel_load(&to->ide.channel[0], r));
    cd->link.job = ATA_JOB_WRITE;
    REFUSED(ide_channel_save(cd, w), ide_channel_load(&to->ide.channel[1], r));
    rig_free(g);
    rig_free(to);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("ide");
    TCase *t = tcase_create("ide");
    tcase_add_test(t, drives_are_told_by_their_signatures);
    tcase_add_test(t, sectors_come_one_by_one_each_with_an_interrupt);
    tcase_add_test(t, what_is_written_is_read_back);
    tcase_add_test(t, command_beyond_the_end_ends_in_an_error);
    tcase_add_test(t, dma_follows_the_table);
    tcase_add_test(t, dma_write_past_the_cache_or_without_one_is_flushed);
    tcase_add_test(t, table_that_ends_early_or_leads_nowhere_is_an_error);
    tcase_add_test(t, cd_reads_in_pieces_of_the_hosts_limit);
    tcase_add_test(t, disc_that_is_changed_is_reported_once);
    tcase_add_test(t, transfer_goes_on_after_a_load);
    tcase_add_test(t, data_that_waits_is_not_the_other_drives);
    tcase_add_test(t, dma_is_that_of_the_drive_that_was_commanded);
    tcase_add_test(t, data_of_earlier_commands_is_no_part_of_the_state);
    tcase_add_test(t, snapshot_of_a_transfer_that_cannot_be_is_refused);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
