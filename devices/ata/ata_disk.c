/*
 * The commands of a disk: 28-bit, 48-bit and CHS addresses; sectors, blocks of several, DMA; cache, features, trim.
 */
#include "devices/ata/ata_internal.h"

#include <string.h>

#define MULTIPLE_MAX 16u
#define DMA_PIECE    (ATA_BUFFER / BLOCK_SECTOR)

#define CMD_DMA_FUA      0x3d
#define CMD_MULTIPLE_FUA 0xce

uint64_t ata_disk_sectors(const struct ata_drive *d)
{
    return d->block->size / BLOCK_SECTOR;
}

/* ---- where and how much ---- */

static uint64_t address28(const struct ata_drive *d)
{
    const uint8_t *l = d->reg.lba;
    uint32_t low = l[0] | (uint32_t)l[1] << 8 | (uint32_t)l[2] << 16;
    if (d->select & ATA_SELECT_LBA)
        return low | (uint64_t)(d->select & 0x0f) << 24;
    uint32_t cylinder = l[1] | (uint32_t)l[2] << 8, head = d->select & 0x0f;
    return l[0] ? ((uint64_t)cylinder * d->heads + head) * d->track + l[0] - 1 : UINT64_MAX;
}

uint64_t ata_disk_address48(const struct ata_drive *d)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 3; i++)
        v |= (uint64_t)d->reg.lba[i] << (8 * i) | (uint64_t)d->previous.lba[i] << (24 + 8 * i);
    return v;
}

static void put_address(struct ata_drive *d, uint64_t lba)
{
    for (unsigned i = 0; i < 3; i++) {
        d->reg.lba[i] = (uint8_t)(lba >> (8 * i));
        d->previous.lba[i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    if (!(d->select & ATA_SELECT_LBA))
        return;
    d->select = (d->select & 0xf0) | (lba >> 24 & 0x0f);
}

bool ata_disk_has(const struct ata_drive *d, uint64_t sector, uint32_t count)
{
    return sector < ata_disk_sectors(d) && count <= ata_disk_sectors(d) - sector;
}

/* The range of a command. False (and the command has ended): beyond the end. */
static bool set_range(struct ata_link *link, bool wide)
{
    struct ata_drive *d = ata_busy(link);
    uint32_t count = d->reg.count;
    if (wide)
        count |= (uint32_t)d->previous.count << 8;
    link->left = count ? count : wide ? 65536 : 256;
    link->sector = wide ? ata_disk_address48(d) : address28(d);
    if (ata_disk_has(d, link->sector, link->left))
        return true;
    ata_finish(link, ATA_ERROR_IDNF);
    return false;
}

/* ---- commands that move data ---- */

static void begin_read(struct ata_link *link, bool wide, uint32_t block)
{
    link->block = block;
    link->is_write = false;
    if (set_range(link, wide))
        ata_start(link, ATA_JOB_READ, BLOCK_LATENCY);
}

static uint32_t next_block(const struct ata_link *link)
{
    return link->left < link->block ? link->left : link->block;
}

static bool is_protected(struct ata_link *link)
{
    if (!ata_busy(link)->block->read_only)
        return false;
    ata_finish(link, ATA_ERROR_ABRT | ATA_ERROR_WP);
    return true;
}

/* A write that is there to stay when it ends: by its own kind, or because there is no cache. */
static void begin_change(struct ata_link *link, bool fua)
{
    link->is_write = true;
    link->durable = fua || !ata_busy(link)->write_cache;
}

static void begin_write(struct ata_link *link, bool wide, uint32_t block)
{
    link->block = block;
    begin_change(link, link->command == CMD_MULTIPLE_FUA);
    if (!is_protected(link) && set_range(link, wide))
        ata_offer(link, ATA_PHASE_OUT, 0, next_block(link) * BLOCK_SECTOR, false);
}

static void begin_dma(struct ata_link *link, bool wide, bool is_write)
{
    link->is_write = link->durable = false;
    if (is_write)
        begin_change(link, link->command == CMD_DMA_FUA);
    if ((!is_write || !is_protected(link)) && set_range(link, wide))
        ata_dma_want(link);
}

static void begin_multiple(struct ata_link *link, bool wide, bool is_write)
{
    uint32_t block = ata_busy(link)->multiple;
    if (!block)
        ata_abort(link);
    else if (is_write)
        begin_write(link, wide, block);
    else
        begin_read(link, wide, block);
}

/* DATA SET MANAGEMENT: only TRIM, whose ranges come by DMA. */
static void begin_trim(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint32_t blocks = d->reg.count | (uint32_t)d->previous.count << 8;
    link->is_write = true;
    if (!(d->reg.feature & 1) || !blocks || blocks > DMA_PIECE) {
        ata_abort(link);
        return;
    }
    if (is_protected(link))
        return;
    link->left = blocks;
    ata_dma_want(link);
}

/* ---- jobs ---- */

static void fail(struct ata_link *link)
{
    put_address(ata_busy(link), link->sector);
    ata_finish(link, link->is_write ? ATA_ERROR_ABRT : ATA_ERROR_UNC);
}

static void job_read(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint32_t n = next_block(link);
    enum block_result r = block_read(d->block, link->sector * BLOCK_SECTOR, link->buf, (size_t)n * BLOCK_SECTOR);
    if (ata_try_again(link, r))
        return;
    if (r) {
        fail(link);
        return;
    }
    link->job = ATA_JOB_NONE;
    ata_offer(link, ATA_PHASE_IN, 0, n * BLOCK_SECTOR, true);
}

static void job_write(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint32_t n = link->len / BLOCK_SECTOR;
    enum block_result r = block_write(d->block, link->sector * BLOCK_SECTOR, link->buf, link->len);
    if (r == BLOCK_OK && link->durable)
        r = block_flush(d->block);
    if (ata_try_again(link, r))
        return;
    if (r) {
        fail(link);
        return;
    }
    link->sector += n;
    link->left -= n;
    link->job = ATA_JOB_NONE;
    if (link->left)
        ata_offer(link, ATA_PHASE_OUT, 0, next_block(link) * BLOCK_SECTOR, true);
    else
        ata_finish(link, 0);
}

/* What the host has no room for comes again: a piece of it is fetched from memory once more. */
static enum ata_transfer outcome_of(enum block_result r)
{
    return r == BLOCK_OK ? ATA_TRANSFER_DONE : r == BLOCK_FULL ? ATA_TRANSFER_AGAIN : ATA_TRANSFER_MEDIUM;
}

static enum ata_transfer read_piece(struct ata_link *link, uint32_t sectors)
{
    uint32_t bytes = sectors * BLOCK_SECTOR;
    enum block_result r = block_read(ata_busy(link)->block, link->sector * BLOCK_SECTOR, link->buf, bytes);
    enum ata_moved moved = r ? ATA_MOVED : ata_dma_move(link, link->buf, bytes, true);
    if (moved == ATA_SHORT) /* nothing of what follows has a place */
        link->left = sectors;
    return moved == ATA_NOWHERE ? ATA_TRANSFER_MEMORY : outcome_of(r);
}

static enum ata_transfer write_piece(struct ata_link *link, uint32_t sectors)
{
    uint32_t bytes = sectors * BLOCK_SECTOR;
    if (ata_dma_move(link, link->buf, bytes, false))
        return ATA_TRANSFER_MEMORY;
    return outcome_of(block_write(ata_busy(link)->block, link->sector * BLOCK_SECTOR, link->buf, bytes));
}

enum ata_transfer ata_disk_transfer(struct ata_link *link)
{
    const struct ata_host_ops *host = link->cfg.ops;
    while (link->left) {
        uint32_t n = link->left < DMA_PIECE ? link->left : DMA_PIECE;
        host->dma_mark(link->cfg.host);
        enum ata_transfer t = (link->is_write ? write_piece : read_piece)(link, n);
        if (t == ATA_TRANSFER_AGAIN)
            host->dma_rewind(link->cfg.host);
        if (t)
            return t;
        link->sector += n;
        link->left -= n;
    }
    return link->durable ? outcome_of(block_flush(ata_busy(link)->block)) : ATA_TRANSFER_DONE;
}

/* Ends a command that moved data by DMA. */
static void dma_end(struct ata_link *link, enum ata_transfer t)
{
    if (t == ATA_TRANSFER_AGAIN) {
        ata_try_again(link, BLOCK_FULL);
        return;
    }
    link->cfg.ops->dma_ended(link->cfg.host, t == ATA_TRANSFER_DONE);
    if (t == ATA_TRANSFER_MEDIUM)
        fail(link);
    else
        ata_finish(link, t == ATA_TRANSFER_DONE ? 0 : ATA_ERROR_ABRT);
}

/* Ranges of 8 bytes: 48 bits of address, 16 of length. Those beyond the end are left alone. */
static enum block_result trim_ranges(struct ata_drive *d, const uint8_t *p, uint32_t len)
{
    enum block_result r = BLOCK_OK;
    for (uint32_t at = 0; at < len && r == BLOCK_OK; at += 8) {
        uint64_t lba = 0, n = p[at + 6] | (uint64_t)p[at + 7] << 8;
        for (unsigned i = 0; i < 6; i++)
            lba |= (uint64_t)p[at + i] << (8 * i);
        if (n && lba < ata_disk_sectors(d) && n <= ata_disk_sectors(d) - lba)
            r = block_discard(d->block, lba * BLOCK_SECTOR, n * BLOCK_SECTOR);
    }
    return r;
}

static void job_trim(struct ata_link *link)
{
    uint32_t len = (link->left < DMA_PIECE ? link->left : DMA_PIECE) * BLOCK_SECTOR;
    link->cfg.ops->dma_mark(link->cfg.host);
    if (ata_dma_move(link, link->buf, len, false)) {
        dma_end(link, ATA_TRANSFER_MEMORY);
        return;
    }
    enum block_result r = trim_ranges(ata_busy(link), link->buf, len);
    if (r == BLOCK_FULL)
        link->cfg.ops->dma_rewind(link->cfg.host);
    if (ata_try_again(link, r))
        return;
    link->cfg.ops->dma_ended(link->cfg.host, true);
    ata_finish(link, r ? ATA_ERROR_ABRT : 0);
}

static void job_flush(struct ata_link *link)
{
    enum block_result r = block_flush(ata_busy(link)->block);
    if (!ata_try_again(link, r))
        ata_finish(link, r ? ATA_ERROR_ABRT : 0);
}

void ata_disk_job(struct ata_link *link)
{
    switch (link->job) {
    case ATA_JOB_READ:
        job_read(link);
        break;
    case ATA_JOB_WRITE:
        job_write(link);
        break;
    case ATA_JOB_DMA:
        if (link->command == ATA_CMD_TRIM)
            job_trim(link);
        else
            dma_end(link, ata_disk_transfer(link));
        break;
    case ATA_JOB_FLUSH:
        job_flush(link);
        break;
    case ATA_JOB_DONE:
        ata_finish(link, 0);
        break;
    default:
        break;
    }
}

void ata_disk_block_done(struct ata_link *link)
{
    if (link->phase == ATA_PHASE_OUT) {
        link->phase = ATA_PHASE_NONE;
        ata_start(link, ATA_JOB_WRITE, BLOCK_LATENCY);
        return;
    }
    uint32_t n = link->len / BLOCK_SECTOR;
    link->phase = ATA_PHASE_NONE;
    link->sector += n;
    link->left -= n < link->left ? n : link->left;
    if (link->left)
        ata_start(link, ATA_JOB_READ, ATA_NEXT_LATENCY);
    else
        ata_busy(link)->status = ATA_STATUS_DRDY | ATA_STATUS_DSC;
}

/* ---- commands without data ---- */

static void identify(struct ata_link *link)
{
    ata_identify_disk(ata_busy(link), link->cfg.is_serial, link->buf);
    link->left = 0;
    ata_offer(link, ATA_PHASE_IN, 0, BLOCK_SECTOR, true);
}

static void set_multiple(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint8_t n = d->reg.count;
    bool ok = n <= MULTIPLE_MAX && !(n & (n - 1));
    if (ok)
        d->multiple = n;
    ata_finish(link, ok ? 0 : ATA_ERROR_ABRT);
}

static void set_translation(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    bool ok = d->reg.count != 0;
    if (ok) {
        d->heads = (d->select & 0x0f) + 1;
        d->track = d->reg.count;
    }
    ata_finish(link, ok ? 0 : ATA_ERROR_ABRT);
}

void ata_set_features(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint8_t error = 0;
    switch (d->reg.feature) {
    case 0x02:
        d->write_cache = true;
        break;
    case 0x82:
        d->write_cache = false;
        break;
    case 0x03:
        d->transfer_mode = d->reg.count;
        break;
    case 0x05: /* power management, look-ahead, reverting to defaults: nothing to do */
    case 0x55:
    case 0x66:
    case 0x85:
    case 0xaa:
    case 0xcc:
        break;
    default:
        error = ATA_ERROR_ABRT;
    }
    ata_finish(link, error);
}

static void native_max(struct ata_link *link, bool wide)
{
    struct ata_drive *d = ata_busy(link);
    uint64_t last = ata_disk_sectors(d) - 1;
    put_address(d, wide || last < 0xfffffff ? last : 0xfffffff);
    ata_finish(link, 0);
}

static void verify(struct ata_link *link, bool wide)
{
    link->is_write = false;
    if (set_range(link, wide))
        ata_start(link, ATA_JOB_DONE, BLOCK_LATENCY);
}

/* A disk tells a host that looks for a CD drive what it is. */
static void identify_packet(struct ata_link *link)
{
    ata_set_signature(ata_busy(link));
    ata_abort(link);
}

static bool data_command(struct ata_link *link, uint8_t command)
{
    switch (command) {
    case 0x20: /* READ SECTORS */
    case 0x21:
    case 0x24:
        begin_read(link, command == 0x24, 1);
        return true;
    case 0xc4: /* READ MULTIPLE */
    case 0x29:
        begin_multiple(link, command == 0x29, false);
        return true;
    case 0x30: /* WRITE SECTORS */
    case 0x31:
    case 0x34:
        begin_write(link, command == 0x34, 1);
        return true;
    case 0xc5: /* WRITE MULTIPLE, and FUA */
    case 0x39:
    case CMD_MULTIPLE_FUA:
        begin_multiple(link, command != 0xc5, true);
        return true;
    case 0xc8: /* READ DMA */
    case 0xc9:
    case 0x25:
        begin_dma(link, command == 0x25, false);
        return true;
    case 0xca: /* WRITE DMA, and FUA */
    case 0xcb:
    case 0x35:
    case CMD_DMA_FUA:
        begin_dma(link, command < 0x40, true);
        return true;
    case ATA_CMD_TRIM:
        begin_trim(link);
        return true;
    default:
        return false;
    }
}

static void plain_command(struct ata_link *link, uint8_t command)
{
    switch (command) {
    case 0x40: /* READ VERIFY */
    case 0x41:
    case 0x42:
        verify(link, command == 0x42);
        break;
    case 0x91: /* INITIALIZE DEVICE PARAMETERS */
        set_translation(link);
        break;
    case 0xa1:
        identify_packet(link);
        break;
    case 0xc6:
        set_multiple(link);
        break;
    case 0xe5: /* CHECK POWER MODE */
        ata_busy(link)->reg.count = 0xff;
        ata_finish(link, 0);
        break;
    case 0xe7: /* FLUSH CACHE */
    case 0xea:
        link->is_write = true;
        ata_start(link, ATA_JOB_FLUSH, BLOCK_LATENCY);
        break;
    case 0x2f: /* READ LOG EXT */
        ata_read_log(link);
        break;
    case 0xec:
        identify(link);
        break;
    case 0xef:
        ata_set_features(link);
        break;
    case 0xf8: /* READ NATIVE MAX ADDRESS */
    case 0x27:
        native_max(link, command == 0x27);
        break;
    case 0x70: /* SEEK */
    case 0xe0: /* STANDBY, IDLE, ... */
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
        ata_finish(link, 0);
        break;
    default:
        if ((command & 0xf0) == 0x10) { /* RECALIBRATE */
            ata_finish(link, 0);
            break;
        }
        device_log(link->cfg.log, LOG_UNIMP, "%s: disk command 0x%02x (feature 0x%02x)", link->cfg.name, command,
                   ata_busy(link)->reg.feature);
        ata_abort(link);
    }
}

void ata_disk_command(struct ata_link *link, uint8_t command)
{
    if (!data_command(link, command))
        plain_command(link, command);
}
