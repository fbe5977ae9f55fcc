/*
 * What PS/2 devices share with their controller: the bytes that wait to be sent to it.
 */
#ifndef DEVICES_PS2_PS2_H
#define DEVICES_PS2_PS2_H

#include "core/snapshot.h"
#include "devices/device.h"

#include <string.h>

#define PS2_QUEUE_BYTES 32
#define PS2_ACK         0xfa
#define PS2_RESEND      0xfe
#define PS2_PASSED      0xaa /* self test */

struct ps2_queue {
    uint8_t byte[PS2_QUEUE_BYTES];
    uint8_t count;
    uint8_t last;               /* the byte sent last, for "resend" */
    struct device_signal ready; /* a byte has come into an empty queue */
};

/* False: no room, nothing is put. */
static inline bool ps2_queue_put(struct ps2_queue *q, const void *bytes, unsigned n)
{
    if (q->count + n > PS2_QUEUE_BYTES)
        return false;
    memcpy(q->byte + q->count, bytes, n);
    q->count = (uint8_t)(q->count + n);
    device_signal_raise(&q->ready);
    return true;
}

static inline void ps2_queue_put1(struct ps2_queue *q, uint8_t byte)
{
    ps2_queue_put(q, &byte, 1);
}

/* The queue is not empty. */
static inline uint8_t ps2_queue_take(struct ps2_queue *q)
{
    q->last = q->byte[0];
    memmove(q->byte, q->byte + 1, --q->count);
    return q->last;
}

static inline void ps2_queue_save(const struct ps2_queue *q, struct snap_writer *w)
{
    snap_put_u8(w, q->count);
    snap_put_bytes(w, q->byte, q->count);
    snap_put_u8(w, q->last);
}

static inline void ps2_queue_load(struct ps2_queue *q, struct snap_reader *r)
{
    q->count = snap_get_u8(r);
    if (q->count > PS2_QUEUE_BYTES) {
        q->count = 0;
        snap_fail(r, "a PS/2 queue of more than %u bytes", PS2_QUEUE_BYTES);
    }
    snap_get_bytes(r, q->byte, q->count);
    q->last = snap_get_u8(r);
}

#endif
