/*
 * What drives say of themselves: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE.
 */
#include "core/bytes.h"
#include "devices/ata/ata_internal.h"

#include <stdio.h>
#include <string.h>

#define CYLINDERS_MAX 16383u
#define HEADS         16u
#define TRACK         63u

static void put_word(uint8_t *id, unsigned n, uint32_t v)
{
    store_le(id + 2 * n, v, 2);
}

static void put_dword(uint8_t *id, unsigned n, uint32_t v)
{
    put_word(id, n, v & 0xffff);
    put_word(id, n + 1, v >> 16);
}

/* Text is padded with spaces, and the bytes of each word are swapped. */
static void put_text(uint8_t *id, unsigned n, unsigned words, const char *text)
{
    size_t len = strlen(text);
    for (unsigned i = 0; i < 2 * words; i++)
        id[2 * n + (i ^ 1)] = i < len ? (uint8_t)text[i] : ' ';
}

static void put_names(uint8_t *id, const struct ata_drive *d, const char *model)
{
    char serial[21];
    if (d->serial)
        snprintf(serial, sizeof serial, "%s", d->serial);
    else
        snprintf(serial, sizeof serial, "UM%05u", d->number + 1);
    put_text(id, 10, 10, serial);
    put_text(id, 23, 4, "1.0");
    put_text(id, 27, 20, model);
}

/* Multiword DMA 0-2 and Ultra DMA 0-5; the mode that was set is marked in the high byte. */
static void put_modes(uint8_t *id, const struct ata_drive *d)
{
    unsigned kind = d->transfer_mode >> 3, mode = d->transfer_mode & 7;
    put_word(id, 49, 0x0b00); /* LBA, DMA, IORDY */
    put_word(id, 51, 0x0200);
    put_word(id, 53, 7);
    put_word(id, 63, 0x07 | (kind == 4 ? 0x100u << mode : 0));
    put_word(id, 64, 3); /* PIO 3 and 4 */
    for (unsigned n = 65; n <= 68; n++)
        put_word(id, n, 120);
    put_word(id, 80, 0x00f0); /* ATA/ATAPI-4 to 7 */
    put_word(id, 88, 0x3f | (kind == 8 ? 0x100u << mode : 0));
}

static void put_geometry(uint8_t *id, const struct ata_drive *d, uint64_t sectors)
{
    uint64_t all = sectors / (HEADS * TRACK), cylinders = all < CYLINDERS_MAX ? all : CYLINDERS_MAX;
    uint64_t now = d->heads && d->track ? sectors / ((uint64_t)d->heads * d->track) : 0;
    now = now < CYLINDERS_MAX ? now : CYLINDERS_MAX;
    put_word(id, 1, (uint32_t)cylinders);
    put_word(id, 3, HEADS);
    put_word(id, 6, TRACK);
    put_word(id, 54, (uint32_t)now);
    put_word(id, 55, d->heads);
    put_word(id, 56, d->track);
    put_dword(id, 57, (uint32_t)(now * d->heads * d->track));
}

/* How a SATA drive differs: no cable to detect, the rates of its link. */
static void put_serial(uint8_t *id)
{
    put_word(id, 76, 0x000e); /* 1.5, 3 and 6 Gb/s */
    put_word(id, 80, 0x01f0); /* and ATA8-ACS */
    put_word(id, 93, 0);
    put_word(id, 222, 0x103f);
}

/* Queued commands, general purpose logs, writes past the cache. */
static void put_queue(uint8_t *id)
{
    put_word(id, 75, ATA_TAGS - 1);
    put_word(id, 76, 0x010e);
    put_word(id, 84, 0x4060);
    put_word(id, 87, 0x4060);
}

void ata_identify_disk(const struct ata_drive *d, bool is_serial, uint8_t *id)
{
    uint64_t sectors = d->block->size / BLOCK_SECTOR;
    memset(id, 0, 512);
    put_word(id, 0, 0x0040); /* fixed */
    put_geometry(id, d, sectors);
    put_names(id, d, "UMBRA HARDDISK");
    put_modes(id, d);
    put_word(id, 47, 0x8010); /* blocks of up to 16 sectors */
    put_word(id, 48, 1);      /* 32-bit data register */
    put_word(id, 59, d->multiple ? 0x100u | d->multiple : 0);
    put_dword(id, 60, sectors < 0x0fffffff ? (uint32_t)sectors : 0x0fffffff);
    put_word(id, 82, 0x4020); /* NOP, write cache */
    put_word(id, 83, 0x7400); /* 48-bit, FLUSH CACHE and EXT */
    put_word(id, 84, 0x4000);
    put_word(id, 85, 0x4000 | (d->write_cache ? 0x20 : 0));
    put_word(id, 86, 0x3400);
    put_word(id, 87, 0x4000);
    put_word(id, 93, 0x6001); /* 80-wire cable */
    put_dword(id, 100, (uint32_t)sectors);
    put_dword(id, 102, (uint32_t)(sectors >> 32));
    put_word(id, 106, d->block->sector_size > BLOCK_SECTOR ? 0x6000 | __builtin_ctz(d->block->sector_size >> 9) : 0);
    put_word(id, 105, ATA_BUFFER / 512); /* of TRIM ranges, at most */
    put_word(id, 169, 1);                /* TRIM */
    put_word(id, 69, 0x4020);            /* trimmed sectors read as zeros, always */
    put_word(id, 217, 1);                /* no rotation */
    if (is_serial) {
        put_serial(id);
        put_queue(id);
    }
}

void ata_identify_cdrom(const struct ata_drive *d, bool is_serial, uint8_t *id)
{
    memset(id, 0, 512);
    put_word(id, 0, 0x85c0); /* ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets */
    put_names(id, d, "UMBRA CD-ROM");
    put_modes(id, d);
    put_word(id, 48, 1);
    put_word(id, 71, 30);
    put_word(id, 72, 30);
    put_word(id, 82, 0x4210); /* NOP, DEVICE RESET, PACKET */
    put_word(id, 83, 0x4000);
    put_word(id, 84, 0x4000);
    put_word(id, 85, 0x4210);
    put_word(id, 87, 0x4000);
    put_word(id, 93, 0x6001);
    if (is_serial)
        put_serial(id);
}
