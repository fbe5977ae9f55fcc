/*
 * An IDE channel: two drives (devices/ata) behind one set of registers; PIO and bus-master DMA.
 *
 * Source: ATA/ATAPI-6 (T13/1410D), Intel 82371SB for the bus master.
 *
 * Each drive has its own task file, as real ones do: writes go to both, reads come from the selected one.
 */
#ifndef DEVICES_IDE_IDE_H
#define DEVICES_IDE_IDE_H

#include "core/irq.h"
#include "core/memory.h"
#include "devices/ata/ata.h"

struct ide_channel_config {
    unsigned instance; /* for the snapshot's section; 0 or 1 */
    struct vclock *clock;
    struct irq_line irq;
    struct guest_memory memory;
    struct ata_drive_config drive[2];
    const struct log *log;
};

/* Where in the table of the bus master the transfer is. */
struct ide_table_place {
    uint32_t next, address, left;
    bool last;
};

struct ide_channel {
    struct ide_channel_config cfg;
    struct ata_link link;
    uint8_t control;
    bool irq_level;
    /* The bus master. */
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
    struct ide_table_place place;
    struct ide_table_place mark; /* inside a job alone */
    uint64_t interrupts;
};

extern const struct bus_ops ide_command_bus_ops; /* 8 ports */
extern const struct bus_ops ide_control_bus_ops; /* 1 port: device control and alternate status */

void ide_channel_init(struct ide_channel *c, const struct ide_channel_config *cfg);
void ide_channel_reset(struct ide_channel *c);
/* The bus master's 8 registers of this channel. `may_start`: the PCI function is allowed to master the bus. */
uint8_t ide_bm_read(const struct ide_channel *c, unsigned offset);
void ide_bm_write(struct ide_channel *c, unsigned offset, uint8_t value, bool may_start);
/* Section "ide.N". */
void ide_channel_save(const struct ide_channel *c, struct snap_writer *w);
void ide_channel_load(struct ide_channel *c, struct snap_reader *r);

#endif
