#include "devices/pflash.h"

#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

#define STATUS_READY  0x80
#define STATUS_ERASE  0x20 /* failed */
#define STATUS_FAILED 0x10 /* programming did */

#define CONFIRM 0xd0

/* ns from a change to the write of all that has changed by then. */
#define WRITE_OUT_DELAY (20 * BLOCK_LATENCY)

/* ---- content ---- */

static void mark_dirty(struct pflash *p, uint32_t from, uint32_t to)
{
    bool clean = p->dirty_from == p->dirty_to;
    p->dirty_from = clean || from < p->dirty_from ? from & ~(BLOCK_SECTOR - 1) : p->dirty_from;
    to = (to + BLOCK_SECTOR - 1) & ~(BLOCK_SECTOR - 1);
    p->dirty_to = clean || to > p->dirty_to ? to : p->dirty_to;
    if (!timer_is_armed(&p->timer))
        timer_arm(p->cfg.clock, &p->timer, clock_now(p->cfg.clock) + WRITE_OUT_DELAY);
}

static void write_out(void *opaque)
{
    struct pflash *p = opaque;
    uint32_t len = p->dirty_to - p->dirty_from;
    enum block_result r = len ? block_write(p->cfg.block, p->dirty_from, p->content + p->dirty_from, len) : BLOCK_OK;
    if (r == BLOCK_OK)
        r = block_flush(p->cfg.block);
    if (r == BLOCK_FULL) {
        timer_arm(p->cfg.clock, &p->timer, clock_now(p->cfg.clock));
        return;
    }
    if (r)
        log_warn("flash: what was written cannot be kept: %s", block_result_text(r));
    p->dirty_from = p->dirty_to = 0;
}

static void program(struct pflash *p, uint32_t at, const uint8_t *bytes, uint32_t len)
{
    p->programs += len;
    p->status |= STATUS_READY;
    if (p->cfg.block->read_only || at > p->size || len > p->size - at) {
        p->status |= STATUS_FAILED;
        return;
    }
    for (uint32_t i = 0; i < len; i++)
        p->content[at + i] &= bytes[i];
    mark_dirty(p, at, at + len);
}

static void erase(struct pflash *p, uint32_t at)
{
    uint32_t block = at & ~(PFLASH_BLOCK - 1);
    p->erases++;
    p->status |= STATUS_READY;
    if (p->cfg.block->read_only) {
        p->status |= STATUS_ERASE;
        return;
    }
    memset(p->content + block, 0xff, PFLASH_BLOCK);
    mark_dirty(p, block, block + PFLASH_BLOCK);
}

/* ---- commands ---- */

static enum pflash_mode command(struct pflash *p, uint8_t v)
{
    switch (v) {
    case 0x10:
    case 0x40:
        return PFLASH_PROGRAM;
    case 0x20:
        return PFLASH_ERASE;
    case 0x50: /* the ready bit too: OVMF knows flash by a status of zero behind this */
        p->status = 0;
        return PFLASH_ARRAY;
    case 0x60:
        return PFLASH_LOCK;
    case 0x70:
        return PFLASH_STATUS;
    case 0x90:
        return PFLASH_ID;
    case 0x98:
        return PFLASH_QUERY;
    case 0xe8:
        return PFLASH_COUNT;
    default:
        if (v != 0xff && v != 0x00 && v != 0xf0)
            device_log(p->cfg.log, LOG_UNIMP, "flash: command 0x%02x", v);
        return PFLASH_ARRAY;
    }
}

static enum pflash_mode confirm_erase(struct pflash *p, uint32_t at, uint8_t v)
{
    if (v != CONFIRM)
        return PFLASH_ARRAY;
    erase(p, at);
    return PFLASH_STATUS;
}

static enum pflash_mode take_count(struct pflash *p, uint8_t v)
{
    p->wanted = v < PFLASH_BUFFERED ? v + 1u : 0;
    p->buffered = 0;
    if (p->wanted)
        return PFLASH_FILL;
    p->status |= STATUS_FAILED;
    return PFLASH_STATUS;
}

static enum pflash_mode fill(struct pflash *p, uint32_t at, uint8_t v)
{
    if (!p->buffered)
        p->first = at;
    p->buffer[p->buffered++] = v;
    return p->buffered == p->wanted ? PFLASH_CONFIRM : PFLASH_FILL;
}

static enum pflash_mode confirm_buffer(struct pflash *p, uint8_t v)
{
    if (v == CONFIRM)
        program(p, p->first, p->buffer, p->wanted);
    else
        p->status |= STATUS_FAILED;
    return PFLASH_STATUS;
}

static void pflash_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct pflash *p = dev;
    uint32_t at = (uint32_t)offset;
    switch (p->mode) {
    case PFLASH_PROGRAM:
        program(p, at, &v, 1);
        p->mode = PFLASH_STATUS;
        break;
    case PFLASH_ERASE:
        p->mode = confirm_erase(p, at, v);
        break;
    case PFLASH_LOCK: /* every block is unlocked, and stays so */
        p->mode = PFLASH_STATUS;
        break;
    case PFLASH_COUNT:
        p->mode = take_count(p, v);
        break;
    case PFLASH_FILL:
        p->mode = fill(p, at, v);
        break;
    case PFLASH_CONFIRM:
        p->mode = confirm_buffer(p, v);
        break;
    default:
        p->mode = command(p, v);
    }
}

/* The query table: who it is, and one region of equal blocks. */
static uint8_t query(const struct pflash *p, uint32_t at)
{
    uint32_t blocks = p->size / PFLASH_BLOCK - 1;
    switch (at) {
    case 0x10:
        return 'Q';
    case 0x11:
        return 'R';
    case 0x12:
        return 'Y';
    case 0x13:
        return 1; /* Intel's command set */
    case 0x27:
        return (uint8_t)(31 - __builtin_clz(p->size));
    case 0x2a:
        return 6; /* 64 bytes of buffer */
    case 0x2c:
        return 1;
    case 0x2d:
        return (uint8_t)blocks;
    case 0x2e:
        return (uint8_t)(blocks >> 8);
    case 0x2f:
        return (uint8_t)(PFLASH_BLOCK >> 8);
    case 0x30:
        return (uint8_t)(PFLASH_BLOCK >> 16);
    default:
        return 0;
    }
}

static uint8_t pflash_read8(void *dev, uint64_t offset)
{
    const struct pflash *p = dev;
    switch (p->mode) {
    case PFLASH_ARRAY:
        return p->content[offset];
    case PFLASH_ID:
        return offset == 0 ? 0x89 : offset == 1 ? 0x18 : 0;
    case PFLASH_QUERY:
        return query(p, (uint32_t)offset);
    default:
        return p->status;
    }
}

DEVICE_BYTE_BUS_OPS(pflash_bus_ops, pflash_read8, pflash_write8);

/* ---- life ---- */

bool pflash_init(struct pflash *p, const struct pflash_config *cfg)
{
    uint64_t size = cfg->block->size;
    *p = (struct pflash){.cfg = *cfg, .size = (uint32_t)size};
    timer_init(&p->timer, write_out, p);
    if (!size || size % PFLASH_BLOCK || size > PFLASH_MAX)
        return false;
    p->content = malloc(size);
    pflash_reset(p);
    return p->content && block_read(cfg->block, 0, p->content, size) == BLOCK_OK;
}

/* What has not gone out yet does so now. */
void pflash_fini(struct pflash *p)
{
    if (p->content && p->dirty_from != p->dirty_to && timer_is_armed(&p->timer))
        write_out(p);
    free(p->content);
    p->content = NULL;
}

void pflash_reset(struct pflash *p)
{
    p->mode = PFLASH_ARRAY;
    p->status = STATUS_READY;
    p->buffered = p->wanted = p->first = 0;
}

void pflash_save(const struct pflash *p, struct snap_writer *w)
{
    snap_begin(w, "pflash", 1);
    snap_put_u32(w, p->size);
    snap_put_u8(w, (uint8_t)p->mode);
    snap_put_u8(w, p->status);
    snap_put_u32(w, p->buffered);
    snap_put_u32(w, p->wanted);
    snap_put_u32(w, p->first);
    snap_put_bytes(w, p->buffer, sizeof p->buffer);
    snap_put_bytes(w, p->content, p->size);
    timer_save(p->cfg.clock, &p->timer, w);
    snap_end(w);
}

void pflash_load(struct pflash *p, struct snap_reader *r)
{
    if (!snap_expect(r, "pflash", 1))
        return;
    if (snap_get_u32(r) != p->size) {
        snap_fail(r, "the flash had another size");
        return;
    }
    uint8_t mode = snap_get_u8(r);
    p->status = snap_get_u8(r);
    p->buffered = snap_get_u32(r);
    p->wanted = snap_get_u32(r);
    p->first = snap_get_u32(r);
    snap_get_bytes(r, p->buffer, sizeof p->buffer);
    snap_get_bytes(r, p->content, p->size);
    timer_load(p->cfg.clock, &p->timer, r);
    p->dirty_from = 0; /* the block device may hold anything: the next write gives it all */
    p->dirty_to = p->size;
    if (mode < PFLASH_MODES && p->wanted <= PFLASH_BUFFERED && p->buffered <= p->wanted &&
        (mode != PFLASH_FILL || p->buffered < p->wanted)) {
        p->mode = (enum pflash_mode)mode;
        return;
    }
    snap_fail(r, "pflash: a buffered write is out of range");
    pflash_reset(p);
}
