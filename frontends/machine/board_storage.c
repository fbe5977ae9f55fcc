/*
 * The board's storage controllers: the drives of `-drive` on the PIIX3's IDE channels and on the floppy
 * controller.
 */
#include "core/stats.h"
#include "devices/layout.h"
#include "frontends/machine/board.h"

#include <string.h>

static struct ata_drive_config ide_drive(struct board *b, unsigned n)
{
    const struct drive *d = drives_find(b->cfg.drives, DRIVE_IDE, n);
    struct ata_drive_config c = {.number = n};
    if (!d)
        return c;
    c.kind = d->cfg.is_cdrom ? ATA_CDROM : ATA_DISK;
    c.block = d->block;
    c.serial = d->cfg.serial;
    return c;
}

/* if=pflash,index=0 is the firmware itself (firmware.c); index 1 is what it writes to. */
static bool init_flash(struct board *b, struct error *e)
{
    const struct drive *d = drives_find(b->cfg.drives, DRIVE_PFLASH, 1);
    if (!d)
        return true;
    const struct pflash_config cfg = {.clock = b->cfg.clock, .block = d->block, .log = b->cfg.log};
    b->has_flash = true;
    return pflash_init(&b->flash, &cfg) ||
           error_set(e, "flash '%s': expected whole blocks of 4 KiB, at most %u MiB", d->cfg.file, PFLASH_MAX >> 20);
}

bool board_storage_init(struct board *b, struct error *e)
{
    const struct board_config *c = &b->cfg;
    struct piix_ide_config ide = {
        .clock = c->clock, .memory = c->memory, .bus = &b->pci.bus, .devfn = LAYOUT_PCI_IDE_DEVFN, .log = c->log};
    ide.irq[0] = isa_irq_line(&b->isa, LAYOUT_IRQ_IDE0, 0);
    ide.irq[1] = isa_irq_line(&b->isa, LAYOUT_IRQ_IDE1, 0);
    for (unsigned n = 0; n < ARRAY_LEN(ide.drive); n++)
        ide.drive[n] = ide_drive(b, n);
    piix_ide_init(&b->ide, &ide);
    dma8237_init(&b->dma, &c->memory, c->log);
    struct fdc_config fdc = {
        .clock = c->clock, .irq = isa_irq_line(&b->isa, LAYOUT_IRQ_FLOPPY, 0), .dma = &b->dma, .log = c->log};
    for (unsigned n = 0; n < FDC_DRIVES; n++) {
        const struct drive *d = drives_find(c->drives, DRIVE_FLOPPY, n);
        fdc.drive[n] = (struct fdc_drive_config){.present = d != NULL, .block = d ? d->block : NULL};
    }
    fdc_init(&b->fdc, &fdc);
    return init_flash(b, e);
}

bool board_storage_place(struct board *b, struct error *e)
{
    struct bus *io = b->cfg.ports;
    struct ide_channel *c = b->ide.channel;
    const struct placement all[] = {
        {io, LAYOUT_IDE0_PORT, LAYOUT_IDE_PORTS, &ide_command_bus_ops, &c[0], "IDE 0"},
        {io, LAYOUT_IDE0_CONTROL, 1, &ide_control_bus_ops, &c[0], "IDE 0 control"},
        {io, LAYOUT_IDE1_PORT, LAYOUT_IDE_PORTS, &ide_command_bus_ops, &c[1], "IDE 1"},
        {io, LAYOUT_IDE1_CONTROL, 1, &ide_control_bus_ops, &c[1], "IDE 1 control"},
        {io, LAYOUT_FDC_PORT, LAYOUT_FDC_PORTS, &fdc_bus_ops, &b->fdc, "floppy controller"},
        {io, LAYOUT_FDC_DIR_PORT, 1, &fdc_dir_bus_ops, &b->fdc, "floppy disk change"},
        {io, LAYOUT_DMA_LOW_PORT, LAYOUT_DMA_LOW_PORTS, &dma8237_low_bus_ops, &b->dma.chip[0], "8237 bytes"},
        {io, LAYOUT_DMA_HIGH_PORT, LAYOUT_DMA_HIGH_PORTS, &dma8237_high_bus_ops, &b->dma.chip[1], "8237 words"},
        {io, LAYOUT_DMA_PAGE_PORT, LAYOUT_DMA_PAGE_PORTS, &dma8237_page_bus_ops, &b->dma, "8237 pages"},
    };
    for (size_t k = 0; k < ARRAY_LEN(all); k++)
        if (!board_place(&all[k], e))
            return false;
    const struct placement flash = {b->cfg.mmio,   (1ull << 32) - b->cfg.firmware_len - b->flash.size,
                                    b->flash.size, &pflash_bus_ops,
                                    &b->flash,     "flash"};
    return !b->has_flash || board_place(&flash, e);
}

void board_storage_reset(struct board *b)
{
    piix_ide_reset(&b->ide);
    dma8237_reset(&b->dma);
    fdc_reset(&b->fdc);
    if (b->has_flash)
        pflash_reset(&b->flash);
}

void board_storage_fini(struct board *b)
{
    piix_ide_fini(&b->ide);
    if (b->has_flash)
        pflash_fini(&b->flash);
}

void board_storage_save(const struct board *b, struct snap_writer *w)
{
    piix_ide_save(&b->ide, w);
    dma8237_save(&b->dma, w);
    fdc_save(&b->fdc, w);
    if (b->has_flash)
        pflash_save(&b->flash, w);
}

void board_storage_load(struct board *b, struct snap_reader *r)
{
    piix_ide_load(&b->ide, r);
    dma8237_load(&b->dma, r);
    fdc_load(&b->fdc, r);
    if (b->has_flash)
        pflash_load(&b->flash, r);
}

void board_storage_add_stats(struct board *b, struct stats *s)
{
    piix_ide_add_stats(&b->ide, s);
    stats_add(s, "fdc.commands", "commands", &b->fdc.commands);
    stats_add(s, "flash.programs", "bytes", &b->flash.programs);
    stats_add(s, "flash.erases", "blocks", &b->flash.erases);
    stats_add(s, "fdc.dma", "bytes", &b->fdc.bytes);
}
