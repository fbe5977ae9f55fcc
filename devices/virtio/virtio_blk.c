#include "devices/virtio/virtio_blk.h"

#include "core/alloc.h"
#include "core/bytes.h"

#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 256
#define SEGMENTS   254     /* of a request, beside its header and status */
#define CHUNK      0x80000 /* bytes that are copied at a time */
#define HEADER     16

#define F_SEG_MAX      (1ull << 2)
#define F_RO           (1ull << 5)
#define F_BLK_SIZE     (1ull << 6)
#define F_FLUSH        (1ull << 9)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

#define T_IN           0
#define T_OUT          1
#define T_FLUSH        4
#define T_GET_ID       8
#define T_DISCARD      11
#define T_WRITE_ZEROES 13

#define S_OK     0
#define S_IOERR  1
#define S_UNSUPP 2

#define RANGE_BYTES   16 /* of a discard: sector, count, flags */
#define RANGES_MAX    16
#define RANGE_SECTORS 0x3fffff

/* Device configuration; one field behind the other, little-endian. */
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_RANGES = 40,
    CONFIG_DISCARD_ALIGNMENT = 44,
    CONFIG_ZERO_SECTORS = 48,
    CONFIG_ZERO_RANGES = 52,
    CONFIG_ZERO_UNMAPS = 56,
    CONFIG_BYTES = 60
};

/* ---- requests ---- */

/* [sector, sector + len) as an offset. False: not whole sectors, or beyond the end. */
static bool is_inside(const struct virtio_blk *b, uint64_t sector, uint64_t len)
{
    uint64_t size = b->block->size;
    return sector <= size / BLOCK_SECTOR && len <= size - sector * BLOCK_SECTOR && !(len % BLOCK_SECTOR);
}

static enum block_result read_in(struct virtio_blk *b, const struct virtio_request *r, uint64_t offset, uint64_t len)
{
    enum block_result e = BLOCK_OK;
    for (uint64_t done = 0; done < len && !e;) {
        size_t part = len - done < CHUNK ? (size_t)(len - done) : CHUNK;
        e = block_read(b->block, offset + done, b->buffer, part);
        if (!e && !virtio_write(&b->virtio, r, done, b->buffer, part))
            e = BLOCK_ERROR;
        done += part;
    }
    return e;
}

static enum block_result write_out(struct virtio_blk *b, const struct virtio_request *r, uint64_t offset, uint64_t len)
{
    enum block_result e = BLOCK_OK;
    for (uint64_t done = 0; done < len && !e;) {
        size_t part = len - done < CHUNK ? (size_t)(len - done) : CHUNK;
        if (!virtio_read(&b->virtio, r, HEADER + done, b->buffer, part))
            return BLOCK_ERROR;
        e = block_write(b->block, offset + done, b->buffer, part);
        done += part;
    }
    return e;
}

static enum block_result transfer(struct virtio_blk *b, const struct virtio_request *r, uint32_t type, uint64_t sector)
{
    uint64_t len = type == T_IN ? r->in_bytes - 1 : r->out_bytes - HEADER;
    if (!is_inside(b, sector, len))
        return BLOCK_RANGE;
    if (type == T_OUT && b->block->read_only)
        return BLOCK_READ_ONLY;
    return (type == T_IN ? read_in : write_out)(b, r, sector * BLOCK_SECTOR, len);
}

static enum block_result zero_out(struct virtio_blk *b, uint64_t offset, uint64_t len)
{
    enum block_result e = BLOCK_OK;
    memset(b->buffer, 0, CHUNK);
    for (uint64_t done = 0; done < len && !e; done += CHUNK)
        e = block_write(b->block, offset + done, b->buffer, len - done < CHUNK ? (size_t)(len - done) : CHUNK);
    return e;
}

/* Discards and zeroing are lists of ranges. */
static enum block_result clear_ranges(struct virtio_blk *b, const struct virtio_request *r, uint32_t type)
{
    uint64_t bytes = r->out_bytes - HEADER;
    enum block_result e = BLOCK_OK;
    if (!bytes || bytes % RANGE_BYTES || bytes / RANGE_BYTES > RANGES_MAX)
        return BLOCK_RANGE;
    if (b->block->read_only)
        return BLOCK_READ_ONLY;
    for (uint64_t at = 0; at < bytes && !e; at += RANGE_BYTES) {
        uint8_t range[RANGE_BYTES];
        if (!virtio_read(&b->virtio, r, HEADER + at, range, sizeof range))
            return BLOCK_ERROR;
        uint64_t sector = load_le(range, 8), len = load_le(range + 8, 4) * BLOCK_SECTOR;
        uint32_t unmap = (uint32_t)load_le(range + 12, 4);
        if (!is_inside(b, sector, len) || len > (uint64_t)RANGE_SECTORS * BLOCK_SECTOR)
            return BLOCK_RANGE;
        /* What was discarded reads as zeros here, so the two differ in nothing but the room that they leave. */
        e = type == T_DISCARD || unmap & 1 ? block_discard(b->block, sector * BLOCK_SECTOR, len)
                                           : zero_out(b, sector * BLOCK_SECTOR, len);
    }
    return e;
}

static uint8_t perform(struct virtio_blk *b, const struct virtio_request *r, enum block_result *result)
{
    uint8_t head[HEADER];
    *result = BLOCK_ERROR;
    if (!virtio_read(&b->virtio, r, 0, head, sizeof head))
        return S_IOERR;
    uint32_t type = (uint32_t)load_le(head, 4);
    switch (type) {
    case T_IN:
    case T_OUT:
        *result = transfer(b, r, type, load_le(head + 8, 8));
        break;
    case T_FLUSH:
        *result = block_flush(b->block);
        break;
    case T_GET_ID: {
        size_t len = r->in_bytes - 1 < VIRTIO_BLK_ID ? (size_t)(r->in_bytes - 1) : VIRTIO_BLK_ID;
        *result = virtio_write(&b->virtio, r, 0, b->serial, len) ? BLOCK_OK : BLOCK_ERROR;
        break;
    }
    case T_DISCARD:
    case T_WRITE_ZEROES:
        *result = clear_ranges(b, r, type);
        break;
    default:
        *result = BLOCK_OK;
        device_log(b->virtio.cfg.log, LOG_UNIMP, "virtio-blk: request of type %u", type);
        return S_UNSUPP;
    }
    if (*result)
        device_log(b->virtio.cfg.log, LOG_GUEST_ERROR, "virtio-blk: request of type %u: %s", type,
                   block_result_text(*result));
    return *result ? S_IOERR : S_OK;
}

static void process(void *ctx, uint32_t queues)
{
    struct virtio_blk *b = ctx;
    struct virtio *v = &b->virtio;
    for (struct virtio_request *r; (r = virtio_queue_pop(v, 0));) {
        enum block_result result;
        if (r->out_bytes < HEADER || !r->in_bytes) {
            virtio_fail(v, "a request of %llu and %llu bytes", (unsigned long long)r->out_bytes,
                        (unsigned long long)r->in_bytes);
            break;
        }
        uint8_t status = perform(b, r, &result);
        if (result == BLOCK_FULL) {
            virtio_queue_retry(v, 0);
            break;
        }
        if (virtio_write(v, r, r->in_bytes - 1, &status, 1))
            virtio_queue_push(v, 0, r->head, r->in_bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)r->in_bytes);
    }
    virtio_queue_flush(v, 0);
}

/* ---- configuration ---- */

static uint8_t config_read(void *ctx, unsigned offset)
{
    const struct virtio_blk *b = ctx;
    uint8_t c[CONFIG_BYTES] = {0};
    store_le(c + CONFIG_CAPACITY, b->block->size / BLOCK_SECTOR, 8);
    store_le(c + CONFIG_SEG_MAX, SEGMENTS, 4);
    store_le(c + CONFIG_BLK_SIZE, b->block->sector_size, 4);
    store_le(c + CONFIG_DISCARD_SECTORS, RANGE_SECTORS, 4);
    store_le(c + CONFIG_DISCARD_RANGES, RANGES_MAX, 4);
    store_le(c + CONFIG_DISCARD_ALIGNMENT, 1, 4);
    store_le(c + CONFIG_ZERO_SECTORS, RANGE_SECTORS, 4);
    store_le(c + CONFIG_ZERO_RANGES, RANGES_MAX, 4);
    c[CONFIG_ZERO_UNMAPS] = 1;
    return c[offset];
}

static const struct virtio_class blk_class = {.name = "virtio-blk",
                                              .type = 2,
                                              .pci_class = 0x010000,
                                              .latency = BLOCK_LATENCY,
                                              .process = process,
                                              .config_read = config_read,
                                              .config_bytes = CONFIG_BYTES};

void virtio_blk_init(struct virtio_blk *b, const struct virtio_config *cfg, struct block_device *block,
                     const char *serial, bool modern_only)
{
    static const uint16_t sizes[] = {QUEUE_SIZE};
    uint64_t features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH;
    features |= block->read_only ? F_RO : F_DISCARD | F_WRITE_ZEROES;
    memset(b->serial, 0, sizeof b->serial);
    for (unsigned i = 0; serial && serial[i] && i < VIRTIO_BLK_ID; i++)
        b->serial[i] = serial[i];
    b->block = block;
    b->buffer = alloc_zeroed(1, CHUNK);
    virtio_init(&b->virtio, &blk_class, b, cfg, features, sizes, ARRAY_LEN(sizes));
    virtio_pci_init(&b->pci, &b->virtio, modern_only);
}

void virtio_blk_fini(struct virtio_blk *b)
{
    free(b->buffer);
    b->buffer = NULL;
}
