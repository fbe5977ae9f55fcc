/*
 * Between the files of the drives: what commands and packets share.
 */
#ifndef DEVICES_ATA_ATA_INTERNAL_H
#define DEVICES_ATA_ATA_INTERNAL_H

#include "devices/ata/ata.h"

#define ATA_NEXT_LATENCY 2000ull /* ns from one block of a command to the next */

#define CD_SECTOR 2048u

static inline void ata_put_be32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* devices/ata/ata_link.c */
/* Sets BSY, and runs `job` after `latency` ns. */
void ata_start(struct ata_link *link, enum ata_job job, uint64_t latency);
/* Ends the command, and the host hears of it: with that error (0: none), and the status that a disk has then; or with
 * that status. */
void ata_finish(struct ata_link *link, uint8_t error);
void ata_end(struct ata_link *link, uint8_t status, uint8_t error);
/* The task file as after a reset, by which hosts tell disks from CD drives. */
void ata_set_signature(struct ata_drive *d);
/* The host is to move buf[from, to). */
void ata_offer(struct ata_link *link, enum ata_phase phase, uint32_t from, uint32_t to, bool interrupt);
/* The host is to move data by DMA. */
void ata_dma_want(struct ata_link *link);
enum ata_moved ata_dma_move(struct ata_link *link, uint8_t *buf, uint32_t len, bool to_memory);
/* The host has no room: then the job comes again, and this returns true. */
bool ata_try_again(struct ata_link *link, enum block_result r);

/* devices/ata/ata_disk.c */
void ata_disk_command(struct ata_link *link, uint8_t command);
void ata_disk_job(struct ata_link *link);
void ata_disk_block_done(struct ata_link *link); /* the host has moved a PIO block */
void ata_set_features(struct ata_link *link);
uint64_t ata_disk_sectors(const struct ata_drive *d);
/* The address of a 48-bit command. */
uint64_t ata_disk_address48(const struct ata_drive *d);
bool ata_disk_has(const struct ata_drive *d, uint64_t sector, uint32_t count);

/* What came of a disk's transfer by DMA. */
enum ata_transfer {
    ATA_TRANSFER_DONE,
    ATA_TRANSFER_AGAIN,
    ATA_TRANSFER_MEDIUM, /* it failed at link->sector */
    ATA_TRANSFER_MEMORY
};
/* Moves link->left sectors from link->sector on; both say what is still to do. */
enum ata_transfer ata_disk_transfer(struct ata_link *link);

/* devices/ata/ata_queue.c: READ LOG EXT */
void ata_read_log(struct ata_link *link);

/* devices/ata/ata_identify.c: 512 bytes */
void ata_identify_disk(const struct ata_drive *d, bool is_serial, uint8_t *id);
void ata_identify_cdrom(const struct ata_drive *d, bool is_serial, uint8_t *id);

/* devices/ata/ata_cdrom.c */
void ata_cdrom_command(struct ata_link *link, uint8_t command);
void ata_cdrom_job(struct ata_link *link);
void ata_cdrom_block_done(struct ata_link *link);

/* devices/ata/ata_packet.c: answers link->packet: the reply in buf, link->filled of it, or sectors to read in
 * link->left. False: sense says why not. */
bool ata_packet_run(struct ata_link *link, struct ata_drive *d);
void ata_sense_set(struct ata_drive *d, uint8_t sense, uint8_t asc, uint8_t ascq);

#endif
