/*
 * An IDE channel: two drives, each a disk or an ATAPI CD-ROM, behind one set of registers; PIO and bus-master DMA.
 *
 * Source: ATA/ATAPI-6 (T13/1410D), SFF-8020i and MMC-3 for the CD-ROM's packets, Intel 82371SB for the bus master.
 *
 * A command that needs the medium sets BSY and arms a timer; its work is done by the job that the timer runs, at a
 * fixed virtual time later (core/block/block.h), whatever the host does. Between two blocks of one command the wait is
 * shorter. Each drive has its own task file, as real ones do: writes go to both, reads come from the selected one.
 */
#ifndef DEVICES_IDE_IDE_H
#define DEVICES_IDE_IDE_H

#include "core/block/block.h"
#include "core/irq.h"
#include "core/memory.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define IDE_BUFFER 65536u /* bytes: of a PIO block, of a piece of DMA, of a packet's reply */

enum ide_kind { IDE_NONE, IDE_DISK, IDE_CDROM };

struct ide_drive_config {
    enum ide_kind kind;
    struct block_device *block; /* borrowed; NULL: a CD drive without a disc */
    const char *serial;         /* at most 20 characters, or NULL */
    unsigned number;            /* on the board, for its default serial number */
};

struct ide_channel_config {
    unsigned instance; /* for the snapshot's section */
    struct vclock *clock;
    struct irq_line irq;
    struct guest_memory memory;
    struct ide_drive_config drive[2];
    const struct log *log;
};

struct ide_registers {
    uint8_t feature, count, lba[3];
};

struct ide_drive {
    enum ide_kind kind;
    struct block_device *block;
    const char *serial;
    unsigned number;
    struct ide_registers reg, previous; /* previous: the high-order bytes of 48-bit commands */
    uint8_t select, status, error;
    uint8_t heads, track;  /* the translation that the host has set: heads, sectors a track */
    uint8_t multiple;      /* sectors a block, 0: off */
    uint8_t transfer_mode; /* as SET FEATURES had it */
    bool write_cache;
    uint8_t sense, asc, ascq; /* of the last packet that failed */
    bool changed;             /* a disc was put in or taken out: to be reported once */
    bool locked, open;        /* the tray */
};

/* What the timer does when it fires. */
enum ide_job {
    IDE_JOB_NONE,
    IDE_JOB_READ,   /* next PIO block from the medium */
    IDE_JOB_WRITE,  /* PIO block to the medium */
    IDE_JOB_DMA,    /* all of a command's data */
    IDE_JOB_FLUSH,  /* write cache */
    IDE_JOB_DONE,   /* a command without data */
    IDE_JOB_PACKET, /* a packet that has arrived */
    IDE_JOB_JOBS
};

/* What the data register is for. */
enum ide_phase { IDE_PHASE_NONE, IDE_PHASE_IN, IDE_PHASE_OUT, IDE_PHASE_PACKET, IDE_PHASE_DMA, IDE_PHASES };

struct ide_counters {
    uint64_t commands, interrupts, dma_bytes, pio_bytes, packets;
};

struct ide_channel {
    struct ide_channel_config cfg;
    struct ide_drive drive[2];
    uint8_t control;
    bool irq_level;
    struct timer timer;
    enum ide_job job;
    enum ide_phase phase;
    uint8_t command; /* the last one */
    /* The transfer: medium sectors `sector` and on, `left` of them, of which a PIO block takes `block`. */
    bool is_write;
    uint64_t sector;
    uint32_t left, block;
    uint32_t pos, len; /* in buf: where the data register is, and where its block ends */
    uint32_t filled;   /* of a packet's data: bytes in buf */
    uint8_t packet[12];
    uint32_t byte_limit; /* of a PIO block of a packet */
    bool packet_dma;
    /* The bus master: registers, and where in the table the transfer is. */
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
    uint32_t prd_next, prd_address, prd_left;
    bool prd_last;
    struct ide_counters counters;
    uint8_t buf[IDE_BUFFER];
};

extern const struct bus_ops ide_command_bus_ops; /* 8 ports */
extern const struct bus_ops ide_control_bus_ops; /* 1 port: device control and alternate status */

void ide_channel_init(struct ide_channel *c, const struct ide_channel_config *cfg);
void ide_channel_reset(struct ide_channel *c);
/* The bus master's 8 registers of this channel. `may_start`: the PCI function is allowed to master the bus. */
uint8_t ide_bm_read(const struct ide_channel *c, unsigned offset);
void ide_bm_write(struct ide_channel *c, unsigned offset, uint8_t value, bool may_start);
/* Puts a disc into CD drive n, or takes it out (NULL). */
void ide_set_medium(struct ide_channel *c, unsigned n, struct block_device *block);
/* Section "ide.N". */
void ide_channel_save(const struct ide_channel *c, struct snap_writer *w);
void ide_channel_load(struct ide_channel *c, struct snap_reader *r);

#endif
