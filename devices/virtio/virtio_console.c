#include "devices/virtio/virtio_console.h"

#include "core/snapshot.h"

#include <string.h>

#define RX 0
#define TX 1

#define F_SIZE        (1ull << 0)
#define F_EMERG_WRITE (1ull << 2)

#define CONFIG_BYTES 12
#define CONFIG_EMERG 8
#define COLUMNS      80
#define ROWS         25

#define CHUNK       1024u
#define REQUEST_MAX (1u << 20) /* bytes of one request that are sent on; the rest is dropped */

static void emit(struct virtio_console *c, const uint8_t *bytes, size_t len)
{
    if (c->sink.tx)
        c->sink.tx(c->sink.ctx, bytes, len);
}

/* ---- to the guest ---- */

static uint32_t give(struct virtio_console *c, const struct virtio_request *r)
{
    uint32_t done = 0;
    while (c->count && done < r->in_bytes) {
        uint64_t room = r->in_bytes - done;
        uint32_t run = VIRTIO_CONSOLE_INPUT - c->first, part = c->count < run ? c->count : run;
        part = part < room ? part : (uint32_t)room;
        if (!virtio_write(&c->virtio, r, done, c->input + c->first, part))
            break;
        c->first = (c->first + part) % VIRTIO_CONSOLE_INPUT;
        c->count -= part;
        done += part;
    }
    return done;
}

static void process_receive(struct virtio_console *c)
{
    for (struct virtio_request *r; c->count && (r = virtio_queue_pop(&c->virtio, RX));) {
        uint16_t head = r->head;
        virtio_queue_push(&c->virtio, RX, head, give(c, r));
    }
    virtio_queue_flush(&c->virtio, RX);
}

size_t virtio_console_room(const struct virtio_console *c)
{
    return VIRTIO_CONSOLE_INPUT - c->count;
}

void virtio_console_receive(struct virtio_console *c, const uint8_t *bytes, size_t len)
{
    size_t taken = 0;
    for (; taken < len && c->count < VIRTIO_CONSOLE_INPUT; taken++)
        c->input[(c->first + c->count++) % VIRTIO_CONSOLE_INPUT] = bytes[taken];
    if (taken < len)
        device_log(c->virtio.cfg.log, LOG_UNIMP, "virtio-console: %zu bytes of input do not fit", len - taken);
    virtio_kick(&c->virtio, RX);
}

/* ---- from the guest ---- */

static void send_on(struct virtio_console *c, const struct virtio_request *r)
{
    uint64_t len = r->out_bytes < REQUEST_MAX ? r->out_bytes : REQUEST_MAX;
    if (len < r->out_bytes)
        device_log(c->virtio.cfg.log, LOG_GUEST_ERROR, "virtio-console: a request of %llu bytes is cut short",
                   (unsigned long long)r->out_bytes);
    for (uint64_t done = 0; done < len;) {
        uint8_t bytes[CHUNK];
        size_t part = len - done < CHUNK ? (size_t)(len - done) : CHUNK;
        if (!virtio_read(&c->virtio, r, done, bytes, part))
            return;
        emit(c, bytes, part);
        done += part;
    }
}

static void process_transmit(struct virtio_console *c)
{
    for (struct virtio_request *r; (r = virtio_queue_pop(&c->virtio, TX));) {
        uint16_t head = r->head;
        send_on(c, r);
        virtio_queue_push(&c->virtio, TX, head, 0);
    }
    virtio_queue_flush(&c->virtio, TX);
}

static void process(void *ctx, uint32_t queues)
{
    struct virtio_console *c = ctx;
    if (queues & 1 << TX)
        process_transmit(c);
    if (queues & 1 << RX)
        process_receive(c);
}

/* ---- configuration, state ---- */

static uint8_t config_read(void *ctx, unsigned offset)
{
    static const uint8_t config[CONFIG_BYTES] = {COLUMNS, 0, ROWS, 0, 1};
    return config[offset];
}

static void config_write(void *ctx, unsigned offset, uint8_t value)
{
    if (offset == CONFIG_EMERG)
        emit(ctx, &value, 1);
}

static void save(const void *ctx, struct snap_writer *w)
{
    const struct virtio_console *c = ctx;
    snap_put_u32(w, c->count);
    for (uint32_t k = 0; k < c->count; k++)
        snap_put_u8(w, c->input[(c->first + k) % VIRTIO_CONSOLE_INPUT]);
}

static void load(void *ctx, struct snap_reader *r)
{
    struct virtio_console *c = ctx;
    c->first = 0;
    c->count = snap_get_u32(r);
    if (c->count > VIRTIO_CONSOLE_INPUT) {
        snap_fail(r, "virtio-console: %u bytes of input", c->count);
        c->count = 0;
    }
    snap_get_bytes(r, c->input, c->count);
}

static const struct virtio_class console_class = {.name = "virtio-serial",
                                                  .type = 3,
                                                  .pci_class = 0x078000,
                                                  .process = process,
                                                  .config_read = config_read,
                                                  .config_write = config_write,
                                                  .config_bytes = CONFIG_BYTES,
                                                  .save = save,
                                                  .load = load};

void virtio_console_init(struct virtio_console *c, const struct virtio_config *cfg,
                         const struct virtio_console_sink *sink, bool modern_only)
{
    static const uint16_t sizes[] = {128, 128};
    c->sink = *sink;
    c->first = c->count = 0;
    virtio_init(&c->virtio, &console_class, c, cfg, F_SIZE | F_EMERG_WRITE, sizes, ARRAY_LEN(sizes));
    virtio_pci_init(&c->pci, &c->virtio, modern_only);
}
