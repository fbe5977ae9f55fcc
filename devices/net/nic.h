/*
 * What network cards share: where their frames go, and the queue of frames that came and wait for room in the guest.
 *
 * Frames are Ethernet, without preamble and checksum. The queue is bounded; a frame that finds it full is dropped, as
 * on a wire.
 */
#ifndef DEVICES_NET_NIC_H
#define DEVICES_NET_NIC_H

#include "core/types.h"

struct snap_writer;
struct snap_reader;

#define NIC_FRAME_MAX  1522 /* with a VLAN tag */
#define NIC_FRAME_MIN  60
#define NIC_FIFO_SLOTS 512
#define NIC_MAC        6

/* What a card is connected to. */
struct nic_wire {
    void (*send)(void *ctx, const uint8_t *frame, size_t len);
    void *ctx;
};

struct nic_frame {
    uint16_t len;
    uint8_t bytes[NIC_FRAME_MAX];
};

struct nic_fifo {
    struct nic_frame *slot; /* NIC_FIFO_SLOTS of them, owned */
    unsigned first, count;
    uint64_t dropped;
};

void nic_fifo_init(struct nic_fifo *f);
void nic_fifo_fini(struct nic_fifo *f);
void nic_fifo_clear(struct nic_fifo *f);
/* False: dropped, because it is full or the frame is not one. */
bool nic_fifo_push(struct nic_fifo *f, const uint8_t *frame, size_t len);
/* The oldest frame, or NULL. */
const struct nic_frame *nic_fifo_peek(const struct nic_fifo *f);
void nic_fifo_drop(struct nic_fifo *f);
/* Put into, and got from, the open section. */
void nic_fifo_save(const struct nic_fifo *f, struct snap_writer *w);
void nic_fifo_load(struct nic_fifo *f, struct snap_reader *r);

static inline bool nic_is_broadcast(const uint8_t *mac)
{
    return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

static inline bool nic_is_multicast(const uint8_t *mac)
{
    return mac[0] & 1;
}

#endif
