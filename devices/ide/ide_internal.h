/*
 * Between the files of the IDE channel: register bits, and the bus master's part of a transfer.
 */
#ifndef DEVICES_IDE_IDE_INTERNAL_H
#define DEVICES_IDE_IDE_INTERNAL_H

#include "devices/ide/ide.h"

#define CONTROL_NIEN 0x02
#define CONTROL_SRST 0x04
#define CONTROL_HOB  0x80

#define BM_START 0x01
#define BM_READ  0x08 /* from the drive to memory */

#define BM_ACTIVE    0x01
#define BM_ERROR     0x02
#define BM_INTERRUPT 0x04

/* devices/ide/ide_dma.c: of struct ata_host_ops; `host` is the channel. */
void ide_dma_wanted(void *host);
enum ata_moved ide_dma_move(void *host, uint8_t *buf, uint32_t len, bool to_memory);
void ide_dma_mark(void *host);
void ide_dma_rewind(void *host);
void ide_dma_ended(void *host, bool complete);

#endif
