/*
 * The PIIX3's IDE function (8086:7010): two channels at their compatibility ports and interrupts, and the bus master at
 * BAR 4.
 *
 * Source: Intel 82371SB data sheet. The channels answer at 0x1f0 and 0x170 whatever the decode bits in IDETIM say; the
 * timing registers hold what is written.
 */
#ifndef DEVICES_IDE_PIIX_IDE_H
#define DEVICES_IDE_PIIX_IDE_H

#include "devices/ide/ide.h"
#include "devices/pci/pci.h"

struct stats;

#define PIIX_IDE_CHANNELS 2

struct piix_ide_config {
    struct vclock *clock;
    struct irq_line irq[PIIX_IDE_CHANNELS]; /* 14, 15 */
    struct guest_memory memory;
    struct ata_drive_config drive[2 * PIIX_IDE_CHANNELS];
    struct pci_bus *bus;
    uint8_t devfn;
    const struct log *log;
};

struct piix_ide {
    struct pci_device pci;
    struct ide_channel channel[PIIX_IDE_CHANNELS];
};

void piix_ide_init(struct piix_ide *p, const struct piix_ide_config *cfg);
void piix_ide_fini(struct piix_ide *p);
void piix_ide_reset(struct piix_ide *p);
void piix_ide_add_stats(struct piix_ide *p, struct stats *s);
void piix_ide_save(const struct piix_ide *p, struct snap_writer *w);
void piix_ide_load(struct piix_ide *p, struct snap_reader *r);

#endif
