/*
 * The floppy controller with its DMA controller, and the flash chip.
 */
#include "storage_rig.h"

#include "devices/dma8237.h"
#include "devices/fdc.h"
#include "devices/pflash.h"

#define RAM     0x20000
#define SECTORS 2880

struct rig {
    struct vclock clock;
    struct wire irq;
    struct block_device *image;
    struct dma8237 dma;
    struct fdc fdc;
    uint8_t ram[RAM];
};

static enum mem_result ram_access(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                  bool write)
{
    struct rig *g = ctx;
    return ram_move(g->ram, RAM, gpa, buf, len, write);
}

static void out(struct rig *g, unsigned reg, uint8_t v)
{
    reg_write(&fdc_bus_ops, &g->fdc, reg, 1, v);
}

static uint8_t in(struct rig *g, unsigned reg)
{
    return (uint8_t)reg_read(&fdc_bus_ops, &g->fdc, reg, 1);
}

static void send(struct rig *g, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ck_assert_uint_eq(in(g, 4) & 0xc0, 0x80);
        out(g, 5, bytes[i]);
    }
    run_for(&g->clock, BLOCK_LATENCY);
}

static void results(struct rig *g, uint8_t *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ck_assert_uint_eq(in(g, 4) & 0xd0, 0xd0);
        r[i] = in(g, 5);
    }
    ck_assert_uint_eq(in(g, 4) & 0xd0, 0x80);
}

static struct rig *rig_new(bool read_only)
{
    struct rig *g = calloc(1, sizeof *g);
    uint8_t r[2];
    clock_init(&g->clock);
    g->image = open_image(SECTORS * 512, read_only);
    dma8237_init(&g->dma, &(struct guest_memory){.ctx = g, .access = ram_access}, NULL);
    fdc_init(&g->fdc, &(struct fdc_config){.clock = &g->clock,
                                           .irq = wire_line(&g->irq, 0),
                                           .dma = &g->dma,
                                           .drive = {{.present = true, .block = g->image}}});
    out(g, 2, 0x1c);
    run_for(&g->clock, BLOCK_LATENCY);
    ck_assert(g->irq.level);
    for (unsigned k = 0; k < 4; k++) {
        send(g, (uint8_t[]){0x08}, 1);
        results(g, r, 2);
        ck_assert_uint_eq(r[0], 0xc0 | k);
    }
    reg_write(&fdc_dir_bus_ops, &g->fdc, 0, 1, 0);
    return g;
}

static void rig_free(struct rig *g)
{
    block_close(g->image);
    free(g);
}

static void dma_setup(struct rig *g, uint16_t at, uint16_t count, bool to_memory)
{
    const struct bus_ops *ops = &dma8237_low_bus_ops;
    reg_write(ops, &g->dma.chip[0], 12, 1, 0);
    reg_write(ops, &g->dma.chip[0], 11, 1, to_memory ? 0x46 : 0x4a);
    reg_write(ops, &g->dma.chip[0], 4, 1, at & 0xff);
    reg_write(ops, &g->dma.chip[0], 4, 1, at >> 8);
    reg_write(ops, &g->dma.chip[0], 5, 1, (count - 1) & 0xff);
    reg_write(ops, &g->dma.chip[0], 5, 1, (count - 1) >> 8);
    reg_write(&dma8237_page_bus_ops, &g->dma, 1, 1, 1);
    reg_write(ops, &g->dma.chip[0], 10, 1, 2);
}

static void seek(struct rig *g, uint8_t cylinder)
{
    uint8_t r[2];
    send(g, (uint8_t[]){0x0f, 0, cylinder}, 3);
    ck_assert(g->irq.level);
    send(g, (uint8_t[]){0x08}, 1);
    results(g, r, 2);
    ck_assert_uint_eq(r[0], 0x20);
    ck_assert_uint_eq(r[1], cylinder);
    ck_assert(!g->irq.level);
}

START_TEST(sectors_of_both_heads_come_by_dma)
{
    struct rig *g = rig_new(false);
    uint8_t r[7];
    seek(g, 3);
    dma_setup(g, 0x4000, 4 * 512, true);
    send(g, (uint8_t[]){0xe6, 0, 3, 0, 17, 2, 18, 27, 0xff}, 9);
    ck_assert(g->irq.level);
    results(g, r, 7);
    ck_assert(!g->irq.level);
    ck_assert_uint_eq(r[0] & 0xc0, 0);
    ck_assert_uint_eq(r[3], 3);
    ck_assert_uint_eq(r[4], 1);
    ck_assert_uint_eq(r[5], 3);
    for (unsigned i = 0; i < 4 * 512; i++)
        ck_assert_uint_eq(g->ram[0x14000 + i], disk_byte((3ull * 36 + 16) * 512 + i));
    ck_assert_uint_eq(reg_read(&dma8237_low_bus_ops, &g->dma.chip[0], 8, 1) & 4, 4);
    rig_free(g);
}
END_TEST

START_TEST(written_sector_is_on_the_image_and_a_protected_one_is_not)
{
    for (int read_only = 0; read_only < 2; read_only++) {
        struct rig *g = rig_new(read_only);
        uint8_t r[7], sector[512];
        memset(g->ram + 0x14000, 0x3c, 512);
        dma_setup(g, 0x4000, 512, false);
        send(g, (uint8_t[]){0x45, 0, 0, 0, 2, 2, 18, 27, 0xff}, 9);
        results(g, r, 7);
        ck_assert_uint_eq(r[0] & 0xc0, read_only ? 0x40 : 0);
        ck_assert_uint_eq(r[1], read_only ? 2 : 0);
        ck_assert_int_eq(block_read(g->image, 512, sector, 512), BLOCK_OK);
        ck_assert_uint_eq(sector[7], read_only ? disk_byte(512 + 7) : 0x3c);
        rig_free(g);
    }
}
END_TEST

START_TEST(sector_that_is_not_there_is_an_error)
{
    struct rig *g = rig_new(false);
    uint8_t r[7];
    dma_setup(g, 0x4000, 512, true);
    send(g, (uint8_t[]){0x46, 0, 0, 0, 19, 2, 19, 27, 0xff}, 9);
    results(g, r, 7);
    ck_assert_uint_eq(r[0] & 0xc0, 0x40);
    ck_assert_uint_eq(r[1], 4);
    reg_write(&fdc_dir_bus_ops, &g->fdc, 0, 1, 2); /* the wrong data rate */
    send(g, (uint8_t[]){0x4a, 0}, 2);
    results(g, r, 7);
    ck_assert_uint_eq(r[1], 1);
    send(g, (uint8_t[]){0x1f}, 1);
    ck_assert_uint_eq(in(g, 5), 0x80);
    rig_free(g);
}
END_TEST

START_TEST(floppy_command_goes_on_after_a_load)
{
    struct rig *g = rig_new(false), *to = rig_new(false);
    uint8_t result[7];
    dma_setup(g, 0x4000, 512, true);
    const uint8_t read[] = {0x46, 0, 0, 0, 4, 2, 18, 27, 0xff};
    for (unsigned i = 0; i < sizeof read; i++)
        out(g, 5, read[i]);
    ROUND_TRIP(&g->clock, &to->clock, (dma8237_save(&g->dma, w), fdc_save(&g->fdc, w)),
               (dma8237_load(&to->dma, r), fdc_load(&to->fdc, r)));
    run_for(&to->clock, BLOCK_LATENCY);
    results(to, result, 7);
    ck_assert_uint_eq(result[0] & 0xc0, 0);
    ck_assert_uint_eq(to->ram[0x14000 + 9], disk_byte(3 * 512 + 9));
    rig_free(g);
    rig_free(to);
}
END_TEST

START_TEST(flash_clears_bits_and_erases_blocks)
{
    struct vclock clock;
    struct pflash p;
    uint8_t sector[512];
    clock_init(&clock);
    struct block_device *b = open_image(16 * 4096, false);
    ck_assert(pflash_init(&p, &(struct pflash_config){.clock = &clock, .block = b}));
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 100, 1), disk_byte(100));
    reg_write(&pflash_bus_ops, &p, 5, 1, 0x50); /* how OVMF finds out what it is */
    reg_write(&pflash_bus_ops, &p, 5, 1, 0x70);
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 5, 1), 0);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0x20);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0xd0);
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 5000, 1), 0x80);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0x10);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0x5a);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0x10);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0xf0);
    reg_write(&pflash_bus_ops, &p, 5000, 1, 0xff);
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 5000, 1), 0x50);
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 4096, 1), 0xff);
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 8192, 1), disk_byte(8192));
    run_for(&clock, 100 * BLOCK_LATENCY);
    ck_assert_int_eq(block_read(b, 5000 / 512 * 512, sector, 512), BLOCK_OK);
    ck_assert_uint_eq(sector[5000 % 512], 0x50);
    pflash_fini(&p);
    block_close(b);
}
END_TEST

START_TEST(flash_that_refused_a_count_can_be_saved_and_loaded)
{
    struct vclock clock;
    struct pflash p, q;
    clock_init(&clock);
    struct block_device *b = open_image(4096, false);
    const struct pflash_config cfg = {.clock = &clock, .block = b};
    ck_assert(pflash_init(&p, &cfg) && pflash_init(&q, &cfg));
    reg_write(&pflash_bus_ops, &p, 0, 1, 0xe8);
    reg_write(&pflash_bus_ops, &p, 0, 1, 0x40); /* 65 bytes */
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &p, 0, 1), 0x90);
    ROUND_TRIP(&clock, &clock, pflash_save(&p, w), pflash_load(&q, r));
    ck_assert_uint_eq(reg_read(&pflash_bus_ops, &q, 0, 1), 0x90);
    pflash_fini(&p);
    pflash_fini(&q);
    block_close(b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("fdc");
    TCase *t = tcase_create("fdc");
    tcase_add_test(t, sectors_of_both_heads_come_by_dma);
    tcase_add_test(t, written_sector_is_on_the_image_and_a_protected_one_is_not);
    tcase_add_test(t, sector_that_is_not_there_is_an_error);
    tcase_add_test(t, floppy_command_goes_on_after_a_load);
    tcase_add_test(t, flash_clears_bits_and_erases_blocks);
    tcase_add_test(t, flash_that_refused_a_count_can_be_saved_and_loaded);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
