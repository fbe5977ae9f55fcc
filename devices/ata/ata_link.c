/*
 * What all commands share: their beginning and end, resets, the job that the timer runs, and the state.
 */
#include "devices/ata/ata.h"

#include "core/snapshot.h"
#include "devices/ata/ata_internal.h"

#include <string.h>

/* ---- what commands share ---- */

void ata_start(struct ata_link *link, enum ata_job job, uint64_t latency)
{
    ata_busy(link)->status = ATA_STATUS_BSY;
    link->job = job;
    timer_arm(link->cfg.clock, &link->timer, clock_now(link->cfg.clock) + latency);
}

static void transfer_forget(struct ata_link *link)
{
    link->phase = ATA_PHASE_NONE;
    link->job = ATA_JOB_NONE;
    link->left = link->pos = link->len = link->filled = 0;
}

void ata_end(struct ata_link *link, uint8_t status, uint8_t error)
{
    struct ata_drive *d = ata_busy(link);
    transfer_forget(link);
    d->error = error;
    d->status = status;
    link->cfg.ops->ended(link->cfg.host);
}

void ata_finish(struct ata_link *link, uint8_t error)
{
    ata_end(link, ATA_STATUS_DRDY | ATA_STATUS_DSC | (error ? ATA_STATUS_ERR : 0), error);
}

void ata_offer(struct ata_link *link, enum ata_phase phase, uint32_t from, uint32_t to, bool interrupt)
{
    struct ata_drive *d = ata_busy(link);
    link->phase = phase;
    link->pos = from;
    link->len = to;
    if (phase != ATA_PHASE_IN) /* what was there before is in no snapshot */
        memset(link->buf + from, 0, to - from);
    d->error = 0;
    d->status = ATA_STATUS_DRDY | ATA_STATUS_DSC | ATA_STATUS_DRQ;
    link->cfg.ops->offered(link->cfg.host, interrupt);
}

bool ata_try_again(struct ata_link *link, enum block_result r)
{
    if (r != BLOCK_FULL)
        return false;
    timer_arm(link->cfg.clock, &link->timer, clock_now(link->cfg.clock));
    return true;
}

void ata_set_signature(struct ata_drive *d)
{
    d->reg.count = d->reg.lba[0] = 1;
    d->reg.lba[1] = d->kind == ATA_CDROM ? 0x14 : 0;
    d->reg.lba[2] = d->kind == ATA_CDROM ? 0xeb : 0;
}

static void fire(void *opaque)
{
    struct ata_link *link = opaque;
    if (ata_busy(link)->kind == ATA_CDROM)
        ata_cdrom_job(link);
    else if (ata_busy(link)->kind == ATA_DISK)
        ata_disk_job(link);
}

void ata_block_done(struct ata_link *link)
{
    if (ata_busy(link)->kind == ATA_CDROM)
        ata_cdrom_block_done(link);
    else
        ata_disk_block_done(link);
}

void ata_abort(struct ata_link *link)
{
    ata_finish(link, ATA_ERROR_ABRT);
}

/* ---- DMA ---- */

void ata_dma_want(struct ata_link *link)
{
    link->phase = ATA_PHASE_DMA;
    ata_busy(link)->status = ATA_STATUS_DRDY | ATA_STATUS_DRQ;
    link->cfg.ops->dma_wanted(link->cfg.host);
}

void ata_dma_start(struct ata_link *link)
{
    if (link->phase == ATA_PHASE_DMA && link->job == ATA_JOB_NONE)
        ata_start(link, ATA_JOB_DMA, BLOCK_LATENCY);
}

void ata_dma_stop(struct ata_link *link)
{
    if (link->job != ATA_JOB_DMA)
        return;
    timer_cancel(link->cfg.clock, &link->timer);
    link->job = ATA_JOB_NONE;
    ata_busy(link)->status = ATA_STATUS_DRDY | ATA_STATUS_DRQ;
}

enum ata_moved ata_dma_move(struct ata_link *link, uint8_t *buf, uint32_t len, bool to_memory)
{
    link->counters.dma_bytes += len;
    return link->cfg.ops->dma_move(link->cfg.host, buf, len, to_memory);
}

/* ---- commands ---- */

/* A drive that is busy takes no command but DEVICE RESET and EXECUTE DEVICE DIAGNOSTIC, and one that is not there takes
 * none. */
bool ata_takes_command(struct ata_link *link, uint8_t command)
{
    const struct ata_drive *d = ata_selected(link);
    if (command == ATA_CMD_DIAGNOSE)
        return true;
    if (d->kind == ATA_NONE)
        return false;
    return !(d->status & (ATA_STATUS_BSY | ATA_STATUS_DRQ)) || (d->kind == ATA_CDROM && command == 0x08);
}

void ata_command(struct ata_link *link, uint8_t command)
{
    struct ata_drive *d = ata_selected(link);
    ata_cancel(link);
    if (command == ATA_CMD_DIAGNOSE) {
        ata_soft_reset(link);
        link->cfg.ops->ended(link->cfg.host);
        return;
    }
    link->command = command;
    link->unit = d == &link->drive[1];
    link->counters.commands++;
    d->error = 0;
    if (d->kind == ATA_CDROM)
        ata_cdrom_command(link, command);
    else
        ata_disk_command(link, command);
}

/* ---- resets ---- */

static void drive_reset(struct ata_drive *d)
{
    d->previous = (struct ata_registers){0};
    d->error = 1; /* diagnostics passed */
    d->select = 0;
    d->multiple = 0;
    d->status = d->kind == ATA_DISK ? ATA_STATUS_DRDY | ATA_STATUS_DSC : 0;
    d->locked = false;
    ata_set_signature(d);
}

void ata_cancel(struct ata_link *link)
{
    timer_cancel(link->cfg.clock, &link->timer);
    ata_busy(link)->status &= (uint8_t) ~(ATA_STATUS_BSY | ATA_STATUS_DRQ);
    transfer_forget(link);
}

void ata_soft_reset(struct ata_link *link)
{
    ata_cancel(link);
    drive_reset(&link->drive[0]);
    drive_reset(&link->drive[1]);
    link->queue_error = (struct ata_queue_error){0};
    link->unit = 0;
}

void ata_link_reset(struct ata_link *link)
{
    link->command = 0;
    link->is_write = link->packet_dma = link->durable = false;
    link->sector = link->block = link->byte_limit = 0;
    ata_soft_reset(link);
    for (unsigned n = 0; n < 2; n++) {
        struct ata_drive *d = &link->drive[n];
        d->reg.feature = 0;
        d->heads = 16;
        d->track = 63;
        d->transfer_mode = 0;
        d->write_cache = true;
        d->sense = d->asc = d->ascq = 0;
        d->changed = d->open = false;
    }
}

void ata_link_init(struct ata_link *link, const struct ata_link_config *cfg)
{
    memset(link, 0, sizeof *link);
    link->cfg = *cfg;
    timer_init_work(&link->timer, fire, link);
    for (unsigned n = 0; n < 2; n++) {
        const struct ata_drive_config *from = &cfg->drive[n];
        link->drive[n] = (struct ata_drive){
            .kind = from->kind, .block = from->block, .serial = from->serial, .number = from->number};
    }
    ata_link_reset(link);
}

void ata_set_medium(struct ata_link *link, unsigned n, struct block_device *block)
{
    struct ata_drive *d = &link->drive[n];
    d->block = block;
    d->changed = true;
    d->open = false;
}

/* ---- snapshots ---- */

static void registers_save(const struct ata_registers *r, struct snap_writer *w)
{
    snap_put_u8(w, r->feature);
    snap_put_u8(w, r->count);
    snap_put_bytes(w, r->lba, sizeof r->lba);
}

static void registers_load(struct ata_registers *r, struct snap_reader *rd)
{
    r->feature = snap_get_u8(rd);
    r->count = snap_get_u8(rd);
    snap_get_bytes(rd, r->lba, sizeof r->lba);
}

static void drive_save(const struct ata_drive *d, struct snap_writer *w)
{
    const uint8_t bytes[] = {(uint8_t)d->kind, d->select,   d->status,        d->error,       d->heads,
                             d->track,         d->multiple, d->transfer_mode, d->write_cache, d->sense,
                             d->asc,           d->ascq,     d->changed,       d->locked,      d->open};
    registers_save(&d->reg, w);
    registers_save(&d->previous, w);
    snap_put_bytes(w, bytes, sizeof bytes);
}

static void drive_load(struct ata_drive *d, struct snap_reader *r)
{
    uint8_t b[15];
    registers_load(&d->reg, r);
    registers_load(&d->previous, r);
    snap_get_bytes(r, b, sizeof b);
    if (b[0] != d->kind)
        snap_fail(r, "a drive is of another kind than when it was made");
    d->select = b[1];
    d->status = b[2];
    d->error = b[3];
    d->heads = b[4];
    d->track = b[5];
    d->multiple = b[6] <= 16 ? b[6] : 0;
    d->transfer_mode = b[7];
    d->write_cache = b[8];
    d->sense = b[9];
    d->asc = b[10];
    d->ascq = b[11];
    d->changed = b[12];
    d->locked = b[13];
    d->open = b[14];
}

/* Bytes of buf that mean something. */
static uint32_t in_buf(const struct ata_link *link)
{
    return link->len > link->filled ? link->len : link->filled;
}

static void queue_error_save(const struct ata_queue_error *e, struct snap_writer *w)
{
    const uint8_t bytes[] = {e->failed, e->unqueued, e->tag, e->status, e->error};
    snap_put_bytes(w, bytes, sizeof bytes);
    snap_put_u64(w, e->sector);
    snap_put_u32(w, e->count);
}

static void queue_error_load(struct ata_queue_error *e, struct snap_reader *r)
{
    uint8_t b[5];
    snap_get_bytes(r, b, sizeof b);
    *e = (struct ata_queue_error){.failed = b[0], .unqueued = b[1], .tag = b[2], .status = b[3], .error = b[4]};
    e->sector = snap_get_u64(r);
    e->count = snap_get_u32(r);
}

static void transfer_save(const struct ata_link *link, struct snap_writer *w)
{
    const uint8_t bytes[] = {(uint8_t)link->job, (uint8_t)link->phase, link->command,
                             link->is_write,     link->packet_dma,     link->durable};
    const uint32_t words[] = {link->left, link->block, link->pos, link->len, link->byte_limit, link->filled};
    snap_put_bytes(w, bytes, sizeof bytes);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        snap_put_u32(w, words[i]);
    snap_put_u64(w, link->sector);
    snap_put_bytes(w, link->packet, sizeof link->packet);
}

/* Jobs and phases that a drive of the kind can have. */
static bool is_fitting(enum ata_kind kind, unsigned job, unsigned phase)
{
    static const uint8_t no_job[] = {[ATA_NONE] = 0xfe,
                                     [ATA_DISK] = 1 << ATA_JOB_PACKET,
                                     [ATA_CDROM] = 1 << ATA_JOB_WRITE | 1 << ATA_JOB_FLUSH | 1 << ATA_JOB_DONE};
    static const uint8_t no_phase[] = {
        [ATA_NONE] = 0xfe, [ATA_DISK] = 1 << ATA_PHASE_PACKET, [ATA_CDROM] = 1 << ATA_PHASE_OUT};
    return job < ATA_JOB_JOBS && phase < ATA_PHASES && !(no_job[kind] >> job & 1) && !(no_phase[kind] >> phase & 1);
}

/* A transfer that the drive could have. */
static bool is_sound(struct ata_link *link, unsigned job, unsigned phase)
{
    uint32_t most = link->command == ATA_CMD_TRIM ? ATA_BUFFER / BLOCK_SECTOR : UINT32_MAX;
    return is_fitting(ata_busy(link)->kind, job, phase) && link->len <= ATA_BUFFER && link->filled <= ATA_BUFFER &&
           link->pos <= in_buf(link) && link->block <= 16 && link->left <= most;
}

/* The one that is at work on something; else it does not matter. */
static uint8_t unit_at_work(const struct ata_link *link)
{
    const uint8_t busy = ATA_STATUS_BSY | ATA_STATUS_DRQ;
    return !(link->drive[0].status & busy) && link->drive[1].status & busy;
}

static void transfer_load(struct ata_link *link, struct snap_reader *r)
{
    uint8_t b[6];
    uint32_t *words[] = {&link->left, &link->block, &link->pos, &link->len, &link->byte_limit, &link->filled};
    snap_get_bytes(r, b, sizeof b);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        *words[i] = snap_get_u32(r);
    link->sector = snap_get_u64(r);
    snap_get_bytes(r, link->packet, sizeof link->packet);
    link->job = (enum ata_job)b[0];
    link->phase = (enum ata_phase)b[1];
    link->command = b[2];
    link->is_write = b[3];
    link->packet_dma = b[4];
    link->durable = b[5];
    link->unit = unit_at_work(link);
    if (!is_sound(link, b[0], b[1])) {
        snap_fail(r, "a drive's transfer is out of range");
        transfer_forget(link);
        link->block = 0;
    }
}

void ata_link_save(const struct ata_link *link, struct snap_writer *w)
{
    drive_save(&link->drive[0], w);
    drive_save(&link->drive[1], w);
    queue_error_save(&link->queue_error, w);
    transfer_save(link, w);
    timer_save(link->cfg.clock, &link->timer, w);
    snap_put_bytes(w, link->buf, in_buf(link));
}

void ata_link_load(struct ata_link *link, struct snap_reader *r)
{
    drive_load(&link->drive[0], r);
    drive_load(&link->drive[1], r);
    queue_error_load(&link->queue_error, r);
    transfer_load(link, r);
    timer_load(link->cfg.clock, &link->timer, r);
    snap_get_bytes(r, link->buf, in_buf(link));
}
