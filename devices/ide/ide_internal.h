/*
 * Between the files of the IDE channel: register bits, and what commands and packets share.
 */
#ifndef DEVICES_IDE_IDE_INTERNAL_H
#define DEVICES_IDE_IDE_INTERNAL_H

#include "devices/ide/ide.h"

#define STATUS_ERR  0x01
#define STATUS_DRQ  0x08
#define STATUS_DSC  0x10
#define STATUS_DF   0x20
#define STATUS_DRDY 0x40
#define STATUS_BSY  0x80

#define ERROR_ABRT 0x04
#define ERROR_IDNF 0x10
#define ERROR_UNC  0x40
#define ERROR_WP   0x40 /* of a write */

#define SELECT_LBA   0x40
#define SELECT_DRIVE 0x10

#define CONTROL_NIEN 0x02
#define CONTROL_SRST 0x04
#define CONTROL_HOB  0x80

#define BM_START 0x01
#define BM_READ  0x08 /* from the drive to memory */

#define BM_ACTIVE    0x01
#define BM_ERROR     0x02
#define BM_INTERRUPT 0x04

#define IDE_NEXT_LATENCY 2000ull /* ns from one block of a command to the next */

#define CD_SECTOR 2048u

static inline struct ide_drive *ide_selected(struct ide_channel *c)
{
    return &c->drive[c->drive[0].select >> 4 & 1];
}

static inline void ide_put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void ide_put_be32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* devices/ide/ide.c */
void ide_raise(struct ide_channel *c);
/* Sets BSY, and runs `job` after `latency` ns. */
void ide_start(struct ide_channel *c, enum ide_job job, uint64_t latency);
/* Ends the command: status, error (0: none), interrupt. */
void ide_finish(struct ide_channel *c, uint8_t error);
/* The task file as after a reset, by which hosts tell disks from CD drives. */
void ide_set_signature(struct ide_drive *d);
/* The data register is for buf[from, to). */
void ide_offer(struct ide_channel *c, enum ide_phase phase, uint32_t from, uint32_t to, bool interrupt);
/* The medium has failed at c->sector, or the host has no room (then the job comes again, and this returns true). */
bool ide_try_again(struct ide_channel *c, enum block_result r);

/* devices/ide/ide_dma.c: moves bytes by the table. False: the table or memory ended. */
bool ide_dma_move(struct ide_channel *c, uint8_t *buf, uint32_t len, bool to_memory);
/* A transfer by DMA is wanted: it starts with the bus master's start bit. */
void ide_dma_want(struct ide_channel *c);
void ide_dma_done(struct ide_channel *c);

/* devices/ide/ide_disk.c */
void ide_disk_command(struct ide_channel *c, uint8_t command);
void ide_disk_job(struct ide_channel *c);
void ide_disk_block_done(struct ide_channel *c); /* the guest has moved a PIO block */
void ide_set_features(struct ide_channel *c);

/* devices/ide/ide_identify.c: 512 bytes */
void ide_identify_disk(const struct ide_drive *d, uint8_t *id);
void ide_identify_cdrom(const struct ide_drive *d, uint8_t *id);

/* devices/ide/ide_cdrom.c */
void ide_cdrom_command(struct ide_channel *c, uint8_t command);
void ide_cdrom_job(struct ide_channel *c);
void ide_cdrom_block_done(struct ide_channel *c);

/* devices/ide/ide_packet.c: answers c->packet: the reply in buf, c->filled of it, or sectors to read in c->left. False:
 * sense says why not. */
bool ide_packet_run(struct ide_channel *c, struct ide_drive *d);
void ide_sense_set(struct ide_drive *d, uint8_t sense, uint8_t asc, uint8_t ascq);

#endif
