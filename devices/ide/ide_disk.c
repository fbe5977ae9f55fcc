/*
 * The commands of a disk: 28-bit, 48-bit and CHS addresses; sectors, blocks of several, DMA; cache, features, trim.
 */
#include "devices/ide/ide_internal.h"

#include <string.h>

#define MULTIPLE_MAX 16u
#define DMA_PIECE    (IDE_BUFFER / BLOCK_SECTOR)

#define CMD_DSM 0x06

static uint64_t sectors_of(const struct ide_drive *d)
{
    return d->block->size / BLOCK_SECTOR;
}

static void abort_command(struct ide_channel *c)
{
    ide_finish(c, ERROR_ABRT);
}

/* ---- where and how much ---- */

static uint64_t address28(const struct ide_drive *d)
{
    const uint8_t *l = d->reg.lba;
    uint32_t low = l[0] | (uint32_t)l[1] << 8 | (uint32_t)l[2] << 16;
    if (d->select & SELECT_LBA)
        return low | (uint64_t)(d->select & 0x0f) << 24;
    uint32_t cylinder = l[1] | (uint32_t)l[2] << 8, head = d->select & 0x0f;
    return l[0] ? ((uint64_t)cylinder * d->heads + head) * d->track + l[0] - 1 : UINT64_MAX;
}

static uint64_t address48(const struct ide_drive *d)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 3; i++)
        v |= (uint64_t)d->reg.lba[i] << (8 * i) | (uint64_t)d->previous.lba[i] << (24 + 8 * i);
    return v;
}

static void put_address(struct ide_drive *d, uint64_t lba)
{
    for (unsigned i = 0; i < 3; i++) {
        d->reg.lba[i] = (uint8_t)(lba >> (8 * i));
        d->previous.lba[i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    if (!(d->select & SELECT_LBA))
        return;
    d->select = (d->select & 0xf0) | (lba >> 24 & 0x0f);
}

/* The range of a command. False (and the command has ended): beyond the end. */
static bool set_range(struct ide_channel *c, bool wide)
{
    struct ide_drive *d = ide_selected(c);
    uint32_t count = d->reg.count;
    if (wide)
        count |= (uint32_t)d->previous.count << 8;
    c->left = count ? count : wide ? 65536 : 256;
    c->sector = wide ? address48(d) : address28(d);
    if (c->sector < sectors_of(d) && c->left <= sectors_of(d) - c->sector)
        return true;
    ide_finish(c, ERROR_IDNF);
    return false;
}

/* ---- commands that move data ---- */

static void begin_read(struct ide_channel *c, bool wide, uint32_t block)
{
    c->block = block;
    c->is_write = false;
    if (set_range(c, wide))
        ide_start(c, IDE_JOB_READ, BLOCK_LATENCY);
}

static uint32_t next_block(const struct ide_channel *c)
{
    return c->left < c->block ? c->left : c->block;
}

static bool is_protected(struct ide_channel *c)
{
    if (!ide_selected(c)->block->read_only)
        return false;
    ide_finish(c, ERROR_ABRT | ERROR_WP);
    return true;
}

static void begin_write(struct ide_channel *c, bool wide, uint32_t block)
{
    c->block = block;
    c->is_write = true;
    if (!is_protected(c) && set_range(c, wide))
        ide_offer(c, IDE_PHASE_OUT, 0, next_block(c) * BLOCK_SECTOR, false);
}

static void begin_dma(struct ide_channel *c, bool wide, bool is_write)
{
    c->is_write = is_write;
    if ((!is_write || !is_protected(c)) && set_range(c, wide))
        ide_dma_want(c);
}

static void begin_multiple(struct ide_channel *c, bool wide, bool is_write)
{
    uint32_t block = ide_selected(c)->multiple;
    if (!block)
        abort_command(c);
    else if (is_write)
        begin_write(c, wide, block);
    else
        begin_read(c, wide, block);
}

/* DATA SET MANAGEMENT: only TRIM, whose ranges come by DMA. */
static void begin_trim(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    uint32_t blocks = d->reg.count | (uint32_t)d->previous.count << 8;
    c->is_write = true;
    if (!(d->reg.feature & 1) || !blocks || blocks > DMA_PIECE) {
        abort_command(c);
        return;
    }
    if (is_protected(c))
        return;
    c->left = blocks;
    ide_dma_want(c);
}

/* ---- jobs ---- */

static void fail(struct ide_channel *c)
{
    put_address(ide_selected(c), c->sector);
    ide_finish(c, c->is_write ? ERROR_ABRT : ERROR_UNC);
}

static void job_read(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    uint32_t n = next_block(c);
    enum block_result r = block_read(d->block, c->sector * BLOCK_SECTOR, c->buf, (size_t)n * BLOCK_SECTOR);
    if (ide_try_again(c, r))
        return;
    if (r) {
        fail(c);
        return;
    }
    c->job = IDE_JOB_NONE;
    ide_offer(c, IDE_PHASE_IN, 0, n * BLOCK_SECTOR, true);
}

static void job_write(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    uint32_t n = c->len / BLOCK_SECTOR;
    enum block_result r = block_write(d->block, c->sector * BLOCK_SECTOR, c->buf, c->len);
    if (r == BLOCK_OK && !d->write_cache)
        r = block_flush(d->block);
    if (ide_try_again(c, r))
        return;
    if (r) {
        fail(c);
        return;
    }
    c->sector += n;
    c->left -= n;
    c->job = IDE_JOB_NONE;
    if (c->left)
        ide_offer(c, IDE_PHASE_OUT, 0, next_block(c) * BLOCK_SECTOR, true);
    else
        ide_finish(c, 0);
}

static enum block_result move_piece(struct ide_channel *c, uint32_t bytes, bool *no_memory)
{
    struct block_device *b = ide_selected(c)->block;
    enum block_result r = BLOCK_OK;
    if (!c->is_write)
        r = block_read(b, c->sector * BLOCK_SECTOR, c->buf, bytes);
    *no_memory = r == BLOCK_OK && !ide_dma_move(c, c->buf, bytes, !c->is_write);
    if (c->is_write && !*no_memory)
        r = block_write(b, c->sector * BLOCK_SECTOR, c->buf, bytes);
    return r;
}

static void dma_failed(struct ide_channel *c, bool no_memory)
{
    if (no_memory) {
        device_log(c->cfg.log, LOG_GUEST_ERROR, "ide%u: DMA table ends before the data, or names no memory",
                   c->cfg.instance);
        c->bm_status |= BM_ERROR;
    }
    c->bm_status &= (uint8_t)~BM_ACTIVE;
    if (no_memory)
        ide_finish(c, ERROR_ABRT);
    else
        fail(c);
}

/* A piece that the host has no room for is fetched once more. */
struct table_place {
    uint32_t next, address, left;
    bool last;
};

static struct table_place place_save(const struct ide_channel *c)
{
    return (struct table_place){c->prd_next, c->prd_address, c->prd_left, c->prd_last};
}

static void place_restore(struct ide_channel *c, const struct table_place *p)
{
    c->prd_next = p->next;
    c->prd_address = p->address;
    c->prd_left = p->left;
    c->prd_last = p->last;
}

static void job_dma(struct ide_channel *c)
{
    while (c->left) {
        uint32_t n = c->left < DMA_PIECE ? c->left : DMA_PIECE;
        struct table_place place = place_save(c);
        bool no_memory;
        enum block_result r = move_piece(c, n * BLOCK_SECTOR, &no_memory);
        if (r == BLOCK_FULL)
            place_restore(c, &place);
        if (ide_try_again(c, r))
            return;
        if (r || no_memory) {
            dma_failed(c, no_memory);
            return;
        }
        c->sector += n;
        c->left -= n;
    }
    ide_dma_done(c);
    ide_finish(c, 0);
}

/* Ranges of 8 bytes: 48 bits of address, 16 of length. Those beyond the end are left alone. */
static enum block_result trim_ranges(struct ide_drive *d, const uint8_t *p, uint32_t len)
{
    enum block_result r = BLOCK_OK;
    for (uint32_t at = 0; at < len && r == BLOCK_OK; at += 8) {
        uint64_t lba = 0, n = p[at + 6] | (uint64_t)p[at + 7] << 8;
        for (unsigned i = 0; i < 6; i++)
            lba |= (uint64_t)p[at + i] << (8 * i);
        if (n && lba < sectors_of(d) && n <= sectors_of(d) - lba)
            r = block_discard(d->block, lba * BLOCK_SECTOR, n * BLOCK_SECTOR);
    }
    return r;
}

static void job_trim(struct ide_channel *c)
{
    struct table_place place = place_save(c);
    uint32_t len = c->left * BLOCK_SECTOR;
    if (!ide_dma_move(c, c->buf, len, false)) {
        dma_failed(c, true);
        return;
    }
    enum block_result r = trim_ranges(ide_selected(c), c->buf, len);
    if (r == BLOCK_FULL)
        place_restore(c, &place);
    if (ide_try_again(c, r))
        return;
    ide_dma_done(c);
    ide_finish(c, r ? ERROR_ABRT : 0);
}

static void job_flush(struct ide_channel *c)
{
    enum block_result r = block_flush(ide_selected(c)->block);
    if (!ide_try_again(c, r))
        ide_finish(c, r ? ERROR_ABRT : 0);
}

void ide_disk_job(struct ide_channel *c)
{
    switch (c->job) {
    case IDE_JOB_READ:
        job_read(c);
        break;
    case IDE_JOB_WRITE:
        job_write(c);
        break;
    case IDE_JOB_DMA:
        if (c->command == CMD_DSM)
            job_trim(c);
        else
            job_dma(c);
        break;
    case IDE_JOB_FLUSH:
        job_flush(c);
        break;
    case IDE_JOB_DONE:
        ide_finish(c, 0);
        break;
    default:
        break;
    }
}

void ide_disk_block_done(struct ide_channel *c)
{
    if (c->phase == IDE_PHASE_OUT) {
        c->phase = IDE_PHASE_NONE;
        ide_start(c, IDE_JOB_WRITE, BLOCK_LATENCY);
        return;
    }
    uint32_t n = c->len / BLOCK_SECTOR;
    c->phase = IDE_PHASE_NONE;
    c->sector += n;
    c->left -= n < c->left ? n : c->left;
    if (c->left)
        ide_start(c, IDE_JOB_READ, IDE_NEXT_LATENCY);
    else
        ide_selected(c)->status = STATUS_DRDY | STATUS_DSC;
}

/* ---- commands without data ---- */

static void identify(struct ide_channel *c)
{
    ide_identify_disk(ide_selected(c), c->buf);
    c->left = 0;
    ide_offer(c, IDE_PHASE_IN, 0, BLOCK_SECTOR, true);
}

static void set_multiple(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    uint8_t n = d->reg.count;
    bool ok = n <= MULTIPLE_MAX && !(n & (n - 1));
    if (ok)
        d->multiple = n;
    ide_finish(c, ok ? 0 : ERROR_ABRT);
}

static void set_translation(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    bool ok = d->reg.count != 0;
    if (ok) {
        d->heads = (d->select & 0x0f) + 1;
        d->track = d->reg.count;
    }
    ide_finish(c, ok ? 0 : ERROR_ABRT);
}

void ide_set_features(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
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
        error = ERROR_ABRT;
    }
    ide_finish(c, error);
}

static void native_max(struct ide_channel *c, bool wide)
{
    struct ide_drive *d = ide_selected(c);
    uint64_t last = sectors_of(d) - 1;
    put_address(d, wide || last < 0xfffffff ? last : 0xfffffff);
    ide_finish(c, 0);
}

static void verify(struct ide_channel *c, bool wide)
{
    c->is_write = false;
    if (set_range(c, wide))
        ide_start(c, IDE_JOB_DONE, BLOCK_LATENCY);
}

/* A disk tells a host that looks for a CD drive what it is. */
static void identify_packet(struct ide_channel *c)
{
    ide_set_signature(ide_selected(c));
    abort_command(c);
}

static bool data_command(struct ide_channel *c, uint8_t command)
{
    switch (command) {
    case 0x20: /* READ SECTORS */
    case 0x21:
    case 0x24:
        begin_read(c, command == 0x24, 1);
        return true;
    case 0xc4: /* READ MULTIPLE */
    case 0x29:
        begin_multiple(c, command == 0x29, false);
        return true;
    case 0x30: /* WRITE SECTORS */
    case 0x31:
    case 0x34:
        begin_write(c, command == 0x34, 1);
        return true;
    case 0xc5: /* WRITE MULTIPLE, and FUA */
    case 0x39:
    case 0xce:
        begin_multiple(c, command != 0xc5, true);
        return true;
    case 0xc8: /* READ DMA */
    case 0xc9:
    case 0x25:
        begin_dma(c, command == 0x25, false);
        return true;
    case 0xca: /* WRITE DMA, and FUA */
    case 0xcb:
    case 0x35:
    case 0x3d:
        begin_dma(c, command < 0x40, true);
        return true;
    case CMD_DSM:
        begin_trim(c);
        return true;
    default:
        return false;
    }
}

static void plain_command(struct ide_channel *c, uint8_t command)
{
    switch (command) {
    case 0x40: /* READ VERIFY */
    case 0x41:
    case 0x42:
        verify(c, command == 0x42);
        break;
    case 0x91: /* INITIALIZE DEVICE PARAMETERS */
        set_translation(c);
        break;
    case 0xa1:
        identify_packet(c);
        break;
    case 0xc6:
        set_multiple(c);
        break;
    case 0xe5: /* CHECK POWER MODE */
        ide_selected(c)->reg.count = 0xff;
        ide_finish(c, 0);
        break;
    case 0xe7: /* FLUSH CACHE */
    case 0xea:
        c->is_write = true;
        ide_start(c, IDE_JOB_FLUSH, BLOCK_LATENCY);
        break;
    case 0xec:
        identify(c);
        break;
    case 0xef:
        ide_set_features(c);
        break;
    case 0xf8: /* READ NATIVE MAX ADDRESS */
    case 0x27:
        native_max(c, command == 0x27);
        break;
    case 0x70: /* SEEK */
    case 0xe0: /* STANDBY, IDLE, ... */
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
        ide_finish(c, 0);
        break;
    default:
        if ((command & 0xf0) == 0x10) { /* RECALIBRATE */
            ide_finish(c, 0);
            break;
        }
        device_log(c->cfg.log, LOG_UNIMP, "ide%u: disk command 0x%02x (feature 0x%02x)", c->cfg.instance, command,
                   ide_selected(c)->reg.feature);
        abort_command(c);
    }
}

void ide_disk_command(struct ide_channel *c, uint8_t command)
{
    if (!data_command(c, command))
        plain_command(c, command);
}
