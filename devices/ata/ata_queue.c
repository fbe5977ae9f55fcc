/*
 * Queued commands (NCQ): READ and WRITE FPDMA QUEUED, and the log that tells which of them failed (ACS-2 7.24, 7.71,
 * A.14).
 */
#include "core/bytes.h"
#include "devices/ata/ata_internal.h"

#include <string.h>

#define LOG_DIRECTORY   0x00
#define LOG_QUEUE_ERROR 0x10

#define LOG_NOT_QUEUED 0x80 /* byte 0 of log 10H */

#define STATUS_READY (ATA_STATUS_DRDY | ATA_STATUS_DSC)

/* ---- commands ---- */

static bool fail(struct ata_link *link, struct ata_drive *d, const struct ata_queued *q, uint64_t sector, uint8_t error)
{
    d->error = error;
    d->status = STATUS_READY | ATA_STATUS_ERR;
    link->queue_error = (struct ata_queue_error){
        .failed = true, .tag = q->tag, .status = d->status, .error = error, .sector = sector, .count = q->count};
    return false;
}

bool ata_queued_take(struct ata_link *link, uint8_t command, uint32_t taken, struct ata_queued *out)
{
    struct ata_drive *d = ata_selected(link);
    uint32_t count = d->reg.feature | (uint32_t)d->previous.feature << 8;
    *out = (struct ata_queued){.tag = d->reg.count >> 3,
                               .is_write = command == ATA_CMD_WRITE_QUEUED,
                               .fua = d->select & 0x80,
                               .sector = ata_disk_address48(d),
                               .count = count ? count : 65536};
    link->counters.commands++;
    link->counters.queued++;
    link->command = command;
    if (link->queue_error.failed) { /* the log keeps the first */
        d->error = ATA_ERROR_ABRT;
        d->status = STATUS_READY | ATA_STATUS_ERR;
        return false;
    }
    if (d->kind == ATA_DISK)
        link->unit = d == &link->drive[1];
    if (d->kind != ATA_DISK || taken & 1u << out->tag)
        return fail(link, d, out, out->sector, ATA_ERROR_ABRT);
    if (!ata_disk_has(d, out->sector, out->count))
        return fail(link, d, out, out->sector, ATA_ERROR_IDNF);
    if (out->is_write && d->block->read_only)
        return fail(link, d, out, out->sector, ATA_ERROR_ABRT | ATA_ERROR_WP);
    d->error = 0;
    d->status = STATUS_READY;
    return true;
}

void ata_queued_disturbed(struct ata_link *link)
{
    fail(link, ata_selected(link), &(struct ata_queued){0}, 0, ATA_ERROR_ABRT);
    link->queue_error.unqueued = true;
}

enum ata_outcome ata_queued_run(struct ata_link *link, const struct ata_queued *q)
{
    link->is_write = q->is_write;
    link->durable = q->is_write && (q->fua || !ata_busy(link)->write_cache);
    link->sector = q->sector;
    link->left = q->count;
    enum ata_transfer t = ata_disk_transfer(link);
    link->left = 0;
    if (t == ATA_TRANSFER_AGAIN)
        return ATA_AGAIN;
    if (t == ATA_TRANSFER_DONE)
        return ATA_DONE;
    fail(link, ata_busy(link), q, link->sector,
         t == ATA_TRANSFER_MEMORY || q->is_write ? ATA_ERROR_ABRT : ATA_ERROR_UNC);
    return ATA_FAILED;
}

/* ---- logs ---- */

/* A page whose bytes add up to 0. */
static void put_error(const struct ata_queue_error *e, uint8_t *page)
{
    uint8_t sum = 0;
    page[0] = e->tag | (e->failed && !e->unqueued ? 0 : LOG_NOT_QUEUED);
    page[2] = e->status;
    page[3] = e->error;
    store_le(page + 4, e->sector, 3);
    store_le(page + 8, e->sector >> 24, 3);
    store_le(page + 12, e->count, 2);
    for (unsigned i = 0; i < BLOCK_SECTOR - 1; i++)
        sum = (uint8_t)(sum + page[i]);
    page[BLOCK_SECTOR - 1] = (uint8_t)-sum;
}

void ata_read_log(struct ata_link *link)
{
    struct ata_drive *d = ata_busy(link);
    uint8_t log = d->reg.lba[0];
    uint32_t count = d->reg.count | (uint32_t)d->previous.count << 8;
    uint32_t first = d->reg.lba[1] | (uint32_t)d->previous.lba[1] << 8;
    if (!link->cfg.is_serial || (log != LOG_DIRECTORY && log != LOG_QUEUE_ERROR) || first || count != 1) {
        device_log(link->cfg.log, LOG_UNIMP, "%s: READ LOG EXT, log 0x%02x, %u pages from %u", link->cfg.name, log,
                   count, first);
        ata_finish(link, ATA_ERROR_ABRT);
        return;
    }
    memset(link->buf, 0, BLOCK_SECTOR);
    if (log == LOG_DIRECTORY) {
        store_le(link->buf, 1, 2); /* version, then pages of each log */
        store_le(link->buf + 2 * LOG_QUEUE_ERROR, 1, 2);
    } else {
        put_error(&link->queue_error, link->buf);
        link->queue_error = (struct ata_queue_error){0};
    }
    link->left = 0;
    ata_offer(link, ATA_PHASE_IN, 0, BLOCK_SECTOR, true);
}
