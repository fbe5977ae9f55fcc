/*
 * A CD-ROM drive: its ATA commands, and how packets and their data cross the registers (SFF-8020i chapter 5).
 */
#include "devices/ata/ata_internal.h"

#include <string.h>

#define REASON_COMMAND 0x01 /* in the count register: a packet is wanted */
#define REASON_TO_HOST 0x02

#define PIECE_SECTORS (ATA_BUFFER / 2 / CD_SECTOR)
#define LIMIT_MAX     0xfffeu

static void done(struct ata_link *link, uint8_t error)
{
    ata_busy(link)->reg.count = REASON_COMMAND | REASON_TO_HOST;
    ata_end(link, ATA_STATUS_DRDY | (error ? ATA_STATUS_ERR : 0), error);
}

static void failed(struct ata_link *link)
{
    done(link, (uint8_t)(ata_busy(link)->sense << 4) | ATA_ERROR_ABRT);
}

/* ---- commands ---- */

static void identify(struct ata_link *link)
{
    ata_identify_cdrom(ata_busy(link), link->cfg.is_serial, link->buf);
    link->left = 0;
    link->block = 0; /* no packet's */
    ata_offer(link, ATA_PHASE_IN, 0, 512, true);
}

static void want_packet(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint32_t limit = d->reg.lba[1] | (uint32_t)d->reg.lba[2] << 8;
    link->packet_dma = d->reg.feature & 1;
    link->byte_limit = limit && limit < LIMIT_MAX ? limit & ~1u : LIMIT_MAX;
    link->byte_limit = link->byte_limit ? link->byte_limit : 2;
    link->left = 0;
    link->block = 1;
    d->reg.count = REASON_COMMAND;
    ata_offer(link, ATA_PHASE_PACKET, 0, sizeof link->packet, false);
}

static void device_reset(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    ata_set_signature(d);
    d->error = 1;
    d->status = 0;
}

void ata_cdrom_command(struct ata_link *link, uint8_t command)
{
    switch (command) {
    case 0x08:
        device_reset(link);
        break;
    case 0xa0:
        want_packet(link);
        break;
    case 0xa1:
        identify(link);
        break;
    case 0xec: /* IDENTIFY DEVICE, and those of disks that look for one */
    case 0x20:
        ata_set_signature(ata_busy(link));
        ata_finish(link, ATA_ERROR_ABRT);
        break;
    case 0xef:
        ata_set_features(link);
        break;
    case 0xe5:
        ata_busy(link)->reg.count = 0xff;
        ata_finish(link, 0);
        break;
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
        ata_finish(link, 0);
        break;
    default:
        device_log(link->cfg.log, LOG_UNIMP, "%s: CD-ROM command 0x%02x", link->cfg.name, command);
        ata_finish(link, ATA_ERROR_ABRT);
    }
}

/* ---- data to the host ---- */

/* Reads on, if buf is used up. False: the medium failed. */
static bool refill(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint32_t n = link->left < PIECE_SECTORS ? link->left : PIECE_SECTORS;
    if (link->pos < link->filled || !n)
        return true;
    if (!d->block || block_read(d->block, link->sector * CD_SECTOR, link->buf, (size_t)n * CD_SECTOR)) {
        ata_sense_set(d, 3, 0x11, 0); /* unrecovered read error */
        return false;
    }
    link->sector += n;
    link->left -= n;
    link->pos = 0;
    link->filled = n * CD_SECTOR;
    return true;
}

/* A PIO block is what buf holds, within the host's limit. */
static void offer_block(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    link->job = ATA_JOB_NONE;
    if (!refill(link)) {
        failed(link);
        return;
    }
    uint32_t rest = link->pos < link->filled ? link->filled - link->pos : 0,
             n = rest < link->byte_limit ? rest : link->byte_limit;
    if (!n) {
        done(link, 0);
        return;
    }
    d->reg.count = REASON_TO_HOST;
    d->reg.lba[1] = (uint8_t)n;
    d->reg.lba[2] = (uint8_t)(n >> 8);
    ata_offer(link, ATA_PHASE_IN, link->pos, link->pos + n, true);
}

static void job_dma(struct ata_link *link)
{
    bool ok = true;
    while (ok && (ok = refill(link)) && link->pos < link->filled) {
        enum ata_moved moved = ata_dma_move(link, link->buf + link->pos, link->filled - link->pos, true);
        link->pos = link->filled;
        if (moved == ATA_SHORT) /* nothing of what follows has a place */
            link->left = 0;
        ok = moved != ATA_NOWHERE;
        if (!ok)
            ata_sense_set(ata_busy(link), 0x0b, 0, 0);
    }
    link->cfg.ops->dma_ended(link->cfg.host, ok);
    if (ok)
        done(link, 0);
    else
        failed(link);
}

static void job_packet(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    link->counters.packets++;
    link->job = ATA_JOB_NONE;
    link->pos = link->len = link->filled = link->left = 0;
    if (!ata_packet_run(link, d))
        failed(link);
    else if (!link->filled && !link->left)
        done(link, 0);
    else if (link->packet_dma)
        ata_dma_want(link);
    else
        offer_block(link);
}

void ata_cdrom_job(struct ata_link *link)
{
    if (link->job == ATA_JOB_PACKET)
        job_packet(link);
    else if (link->job == ATA_JOB_DMA)
        job_dma(link);
    else if (link->job == ATA_JOB_READ)
        offer_block(link);
}

void ata_cdrom_block_done(struct ata_link *link)
{
    enum ata_phase phase = link->phase;
    link->phase = ATA_PHASE_NONE;
    if (phase == ATA_PHASE_PACKET) {
        memcpy(link->packet, link->buf, sizeof link->packet);
        ata_start(link, ATA_JOB_PACKET, BLOCK_LATENCY);
    } else if (!link->block) {
        ata_busy(link)->status = ATA_STATUS_DRDY | ATA_STATUS_DSC;
    } else {
        ata_start(link, ATA_JOB_READ, ATA_NEXT_LATENCY);
    }
}
