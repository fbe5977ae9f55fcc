/*
 * A CD-ROM drive: its ATA commands, and how packets and their data cross the registers (SFF-8020i chapter 5).
 */
#include "devices/ide/ide_internal.h"

#include <string.h>

#define REASON_COMMAND 0x01 /* in the count register: a packet is wanted */
#define REASON_TO_HOST 0x02

#define PIECE_SECTORS (IDE_BUFFER / 2 / CD_SECTOR)
#define LIMIT_MAX     0xfffeu

static void done(struct ide_channel *c, uint8_t error)
{
    ide_selected(c)->reg.count = REASON_COMMAND | REASON_TO_HOST;
    ide_finish(c, error);
    ide_selected(c)->status &= (uint8_t)~STATUS_DSC;
}

static void failed(struct ide_channel *c)
{
    done(c, (uint8_t)(ide_selected(c)->sense << 4) | ERROR_ABRT);
}

/* ---- commands ---- */

static void identify(struct ide_channel *c)
{
    ide_identify_cdrom(ide_selected(c), c->buf);
    c->left = 0;
    c->block = 0; /* no packet's */
    ide_offer(c, IDE_PHASE_IN, 0, 512, true);
}

static void want_packet(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    uint32_t limit = d->reg.lba[1] | (uint32_t)d->reg.lba[2] << 8;
    c->packet_dma = d->reg.feature & 1;
    c->byte_limit = limit && limit < LIMIT_MAX ? limit & ~1u : LIMIT_MAX;
    c->byte_limit = c->byte_limit ? c->byte_limit : 2;
    c->left = 0;
    c->block = 1;
    d->reg.count = REASON_COMMAND;
    ide_offer(c, IDE_PHASE_PACKET, 0, sizeof c->packet, false);
}

static void device_reset(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    ide_set_signature(d);
    d->error = 1;
    d->status = 0;
}

void ide_cdrom_command(struct ide_channel *c, uint8_t command)
{
    switch (command) {
    case 0x08:
        device_reset(c);
        break;
    case 0xa0:
        want_packet(c);
        break;
    case 0xa1:
        identify(c);
        break;
    case 0xec: /* IDENTIFY DEVICE, and those of disks that look for one */
    case 0x20:
        ide_set_signature(ide_selected(c));
        ide_finish(c, ERROR_ABRT);
        break;
    case 0xef:
        ide_set_features(c);
        break;
    case 0xe5:
        ide_selected(c)->reg.count = 0xff;
        ide_finish(c, 0);
        break;
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
        ide_finish(c, 0);
        break;
    default:
        device_log(c->cfg.log, LOG_UNIMP, "ide%u: CD-ROM command 0x%02x", c->cfg.instance, command);
        ide_finish(c, ERROR_ABRT);
    }
}

/* ---- data to the host ---- */

/* Reads on, if buf is used up. False: the medium failed. */
static bool refill(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    uint32_t n = c->left < PIECE_SECTORS ? c->left : PIECE_SECTORS;
    if (c->pos < c->filled || !n)
        return true;
    if (!d->block || block_read(d->block, c->sector * CD_SECTOR, c->buf, (size_t)n * CD_SECTOR)) {
        ide_sense_set(d, 3, 0x11, 0); /* unrecovered read error */
        return false;
    }
    c->sector += n;
    c->left -= n;
    c->pos = 0;
    c->filled = n * CD_SECTOR;
    return true;
}

/* A PIO block is what buf holds, within the host's limit. */
static void offer_block(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    c->job = IDE_JOB_NONE;
    if (!refill(c)) {
        failed(c);
        return;
    }
    uint32_t rest = c->filled - c->pos, n = rest < c->byte_limit ? rest : c->byte_limit;
    if (!n) {
        done(c, 0);
        return;
    }
    d->reg.count = REASON_TO_HOST;
    d->reg.lba[1] = (uint8_t)n;
    d->reg.lba[2] = (uint8_t)(n >> 8);
    ide_offer(c, IDE_PHASE_IN, c->pos, c->pos + n, true);
}

static void job_dma(struct ide_channel *c)
{
    bool ok = true;
    while (ok && (ok = refill(c)) && c->pos < c->filled) {
        ok = ide_dma_move(c, c->buf + c->pos, c->filled - c->pos, true);
        c->pos = c->filled;
        if (ok)
            continue;
        c->bm_status |= BM_ERROR;
        ide_sense_set(ide_selected(c), 0x0b, 0, 0);
    }
    if (ok) {
        ide_dma_done(c);
        done(c, 0);
        return;
    }
    c->bm_status &= (uint8_t)~BM_ACTIVE;
    failed(c);
}

static void job_packet(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    c->counters.packets++;
    c->job = IDE_JOB_NONE;
    c->pos = c->len = c->filled = c->left = 0;
    if (!ide_packet_run(c, d))
        failed(c);
    else if (!c->filled && !c->left)
        done(c, 0);
    else if (c->packet_dma)
        ide_dma_want(c);
    else
        offer_block(c);
}

void ide_cdrom_job(struct ide_channel *c)
{
    if (c->job == IDE_JOB_PACKET)
        job_packet(c);
    else if (c->job == IDE_JOB_DMA)
        job_dma(c);
    else if (c->job == IDE_JOB_READ)
        offer_block(c);
}

void ide_cdrom_block_done(struct ide_channel *c)
{
    enum ide_phase phase = c->phase;
    c->phase = IDE_PHASE_NONE;
    if (phase == IDE_PHASE_PACKET) {
        memcpy(c->packet, c->buf, sizeof c->packet);
        ide_start(c, IDE_JOB_PACKET, BLOCK_LATENCY);
    } else if (!c->block) {
        ide_selected(c)->status = STATUS_DRDY | STATUS_DSC;
    } else {
        ide_start(c, IDE_JOB_READ, IDE_NEXT_LATENCY);
    }
}
