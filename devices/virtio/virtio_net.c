#include "devices/virtio/virtio_net.h"

#include "core/snapshot.h"

#include <string.h>

#define RX         0
#define TX         1
#define CONTROL    2
#define RING_SIZE  256
#define CTRL_SIZE  64
#define HEADER_MAX 12
#define CHAINS_MAX 64 /* receive buffers of one frame */

#define F_MAC           (1ull << 5)
#define F_MRG_RXBUF     (1ull << 15)
#define F_STATUS        (1ull << 16)
#define F_CTRL_VQ       (1ull << 17)
#define F_CTRL_RX       (1ull << 18)
#define F_CTRL_MAC_ADDR (1ull << 23)

#define CTRL_RX            0
#define CTRL_RX_PROMISC    0
#define CTRL_RX_ALLMULTI   1
#define CTRL_MAC           1
#define CTRL_MAC_TABLE_SET 0
#define CTRL_MAC_ADDR_SET  1
#define CTRL_OK            0
#define CTRL_ERR           1

#define CONFIG_STATUS  NIC_MAC
#define CONFIG_BYTES   8
#define STATUS_LINK_UP 1

/* The header before each frame: with the count of buffers only where that can be other than one, or always in 1.0. */
static unsigned header_bytes(const struct virtio_net *n)
{
    return virtio_has(&n->virtio, F_MRG_RXBUF | VIRTIO_F_VERSION_1) ? 12 : 10;
}

/* ---- to the guest ---- */

static bool is_wanted(const struct virtio_net *n, const uint8_t *frame)
{
    if (n->promiscuous || nic_is_broadcast(frame))
        return true;
    /* Multicast tables are taken for more than they hold; drivers filter again. */
    return nic_is_multicast(frame) || !memcmp(frame, n->mac, NIC_MAC);
}

/* How many chains the next `bytes` bytes take; 0: there are not so many. Takes none. */
static unsigned chains_for(struct virtio_net *n, uint64_t bytes)
{
    unsigned count = 0;
    uint64_t room = 0;
    while (room < bytes && count < CHAINS_MAX) {
        const struct virtio_request *r = virtio_queue_pop(&n->virtio, RX);
        if (!r)
            break;
        room += r->in_bytes;
        count++;
    }
    for (unsigned i = 0; i < count; i++)
        virtio_queue_unpop(&n->virtio, RX);
    return room < bytes ? 0 : count;
}

/* Header and frame over `chains` chains. */
static bool put_frame(struct virtio_net *n, const uint8_t *bytes, size_t len, unsigned chains)
{
    for (size_t done = 0; chains--;) {
        const struct virtio_request *r = virtio_queue_pop(&n->virtio, RX);
        if (!r)
            return false;
        size_t part = r->in_bytes < len - done ? (size_t)r->in_bytes : len - done;
        if (!virtio_write(&n->virtio, r, 0, bytes + done, part))
            return false;
        virtio_queue_push(&n->virtio, RX, r->head, (uint32_t)part);
        done += part;
    }
    return true;
}

/* False: no room now. */
static bool deliver(struct virtio_net *n, const struct nic_frame *f)
{
    uint8_t bytes[HEADER_MAX + NIC_FRAME_MAX] = {0};
    unsigned header = header_bytes(n);
    size_t len = header + (f->len < NIC_FRAME_MIN ? NIC_FRAME_MIN : f->len);
    unsigned chains = chains_for(n, len);
    if (!chains)
        return false;
    if (chains > 1 && !virtio_has(&n->virtio, F_MRG_RXBUF)) {
        virtio_fail(&n->virtio, "a receive buffer that is too small for a frame");
        return false;
    }
    if (header == 12)
        bytes[10] = (uint8_t)chains;
    memcpy(bytes + header, f->bytes, f->len);
    return put_frame(n, bytes, len, chains);
}

static void process_receive(struct virtio_net *n)
{
    const struct nic_frame *f;
    while ((f = nic_fifo_peek(&n->fifo))) {
        if (is_wanted(n, f->bytes) && !deliver(n, f))
            break;
        nic_fifo_drop(&n->fifo);
    }
    virtio_queue_flush(&n->virtio, RX);
}

void virtio_net_receive(struct virtio_net *n, const uint8_t *frame, size_t len)
{
    if (nic_fifo_push(&n->fifo, frame, len))
        virtio_kick(&n->virtio, RX);
}

/* ---- from the guest ---- */

static void process_transmit(struct virtio_net *n)
{
    unsigned header = header_bytes(n);
    for (struct virtio_request *r; (r = virtio_queue_pop(&n->virtio, TX));) {
        uint8_t frame[NIC_FRAME_MAX];
        uint64_t len = r->out_bytes - header;
        uint16_t head = r->head;
        if (r->out_bytes < header || len > sizeof frame)
            device_log(n->virtio.cfg.log, LOG_GUEST_ERROR, "virtio-net: a frame of %llu bytes is dropped",
                       (unsigned long long)r->out_bytes);
        else if (virtio_read(&n->virtio, r, header, frame, (size_t)len) && n->wire.send)
            n->wire.send(n->wire.ctx, frame, (size_t)len);
        virtio_queue_push(&n->virtio, TX, head, 0);
    }
    virtio_queue_flush(&n->virtio, TX);
}

static bool control_receive(struct virtio_net *n, const struct virtio_request *r, uint8_t command)
{
    uint8_t on;
    if (!virtio_read(&n->virtio, r, 2, &on, 1))
        return false;
    if (command == CTRL_RX_PROMISC)
        n->promiscuous = on;
    else if (command == CTRL_RX_ALLMULTI)
        n->all_multicast = on;
    else
        return false;
    return true;
}

static bool control(struct virtio_net *n, const struct virtio_request *r)
{
    uint8_t head[2], mac[NIC_MAC];
    if (!virtio_read(&n->virtio, r, 0, head, sizeof head))
        return false;
    if (head[0] == CTRL_RX)
        return control_receive(n, r, head[1]);
    if (head[0] == CTRL_MAC && head[1] == CTRL_MAC_TABLE_SET)
        return true;
    if (head[0] != CTRL_MAC || head[1] != CTRL_MAC_ADDR_SET || !virtio_read(&n->virtio, r, 2, mac, sizeof mac)) {
        device_log(n->virtio.cfg.log, LOG_UNIMP, "virtio-net: control command %u.%u", head[0], head[1]);
        return false;
    }
    memcpy(n->mac, mac, NIC_MAC);
    return true;
}

static void process_control(struct virtio_net *n)
{
    for (struct virtio_request *r; (r = virtio_queue_pop(&n->virtio, CONTROL));) {
        uint8_t ack = control(n, r) ? CTRL_OK : CTRL_ERR;
        if (virtio_write(&n->virtio, r, 0, &ack, 1))
            virtio_queue_push(&n->virtio, CONTROL, r->head, 1);
    }
    virtio_queue_flush(&n->virtio, CONTROL);
}

static void process(void *ctx, uint32_t queues)
{
    struct virtio_net *n = ctx;
    if (queues & 1 << CONTROL)
        process_control(n);
    if (queues & 1 << TX)
        process_transmit(n);
    if (queues & 1 << RX)
        process_receive(n);
}

/* ---- configuration, state ---- */

static uint8_t config_read(void *ctx, unsigned offset)
{
    const struct virtio_net *n = ctx;
    if (offset < NIC_MAC)
        return n->mac[offset];
    return offset == CONFIG_STATUS ? STATUS_LINK_UP : 0;
}

/* Legacy drivers set the address here. */
static void config_write(void *ctx, unsigned offset, uint8_t value)
{
    struct virtio_net *n = ctx;
    if (offset < NIC_MAC && !virtio_has(&n->virtio, VIRTIO_F_VERSION_1))
        n->mac[offset] = value;
}

static void reset(void *ctx)
{
    struct virtio_net *n = ctx;
    memcpy(n->mac, n->permanent, NIC_MAC);
    n->promiscuous = n->all_multicast = false;
    nic_fifo_clear(&n->fifo);
}

static void save(const void *ctx, struct snap_writer *w)
{
    const struct virtio_net *n = ctx;
    snap_put_bytes(w, n->mac, NIC_MAC);
    snap_put_u8(w, n->promiscuous);
    snap_put_u8(w, n->all_multicast);
    nic_fifo_save(&n->fifo, w);
}

static void load(void *ctx, struct snap_reader *r)
{
    struct virtio_net *n = ctx;
    snap_get_bytes(r, n->mac, NIC_MAC);
    n->promiscuous = snap_get_u8(r) != 0;
    n->all_multicast = snap_get_u8(r) != 0;
    nic_fifo_load(&n->fifo, r);
}

static const struct virtio_class net_class = {.name = "virtio-net",
                                              .type = 1,
                                              .pci_class = 0x020000,
                                              .process = process,
                                              .config_read = config_read,
                                              .config_write = config_write,
                                              .config_bytes = CONFIG_BYTES,
                                              .reset = reset,
                                              .save = save,
                                              .load = load};

void virtio_net_init(struct virtio_net *n, const struct virtio_config *cfg, const struct nic_wire *wire,
                     const uint8_t mac[NIC_MAC], bool modern_only)
{
    static const uint16_t sizes[] = {RING_SIZE, RING_SIZE, CTRL_SIZE};
    n->wire = *wire;
    memcpy(n->permanent, mac, NIC_MAC);
    nic_fifo_init(&n->fifo);
    virtio_init(&n->virtio, &net_class, n, cfg,
                F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC_ADDR, sizes, ARRAY_LEN(sizes));
    virtio_pci_init(&n->pci, &n->virtio, modern_only);
}

void virtio_net_fini(struct virtio_net *n)
{
    nic_fifo_fini(&n->fifo);
}
