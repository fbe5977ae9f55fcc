/*
 * Status, features, notifications, state. The queues are in virtio_queue.c.
 */
#include "devices/virtio/virtio.h"

#include "core/snapshot.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- service ---- */

bool virtio_is_live(const struct virtio *v)
{
    if (v->status & (VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_FAILED))
        return false;
    /* Old drivers use their queues before they say that they are ready. */
    return v->status & VIRTIO_STATUS_DRIVER_OK || (v->status && !virtio_has(v, VIRTIO_F_VERSION_1));
}

static void serve(void *opaque)
{
    struct virtio *v = opaque;
    uint32_t queues = v->kicked;
    v->kicked = 0;
    v->budget = VIRTIO_QUEUE_SIZE;
    if (virtio_is_live(v))
        v->cls->process(v->ctx, queues);
}

void virtio_kick(struct virtio *v, unsigned queue)
{
    if (queue >= VIRTIO_QUEUES || !v->queue[queue].max)
        return;
    v->kicked |= 1u << queue;
    if (!timer_is_armed(&v->timer))
        timer_arm(v->cfg.clock, &v->timer,
                  clock_now(v->cfg.clock) + (v->cls->latency ? v->cls->latency : VIRTIO_LATENCY));
}

void virtio_queue_retry(struct virtio *v, unsigned queue)
{
    virtio_queue_unpop(v, queue);
    v->kicked |= 1u << queue;
    timer_arm(v->cfg.clock, &v->timer, clock_now(v->cfg.clock));
}

void virtio_config_changed(struct virtio *v)
{
    v->generation++;
    if (!(v->status & VIRTIO_STATUS_DRIVER_OK))
        return;
    v->isr |= VIRTIO_ISR_CONFIG;
    v->interrupt(v->transport, v->config_vector, VIRTIO_ISR_CONFIG);
}

void virtio_fail(struct virtio *v, const char *fmt, ...)
{
    char what[160];
    va_list args;
    if (v->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    device_log(v->cfg.log, LOG_GUEST_ERROR, "%s: %s; the device stops until it is reset", v->cls->name, what);
    v->status |= VIRTIO_STATUS_NEEDS_RESET;
    virtio_config_changed(v);
}

/* ---- life ---- */

void virtio_init(struct virtio *v, const struct virtio_class *cls, void *ctx, const struct virtio_config *cfg,
                 uint64_t features, const uint16_t *sizes, unsigned queues)
{
    memset(v, 0, sizeof *v);
    v->cfg = *cfg;
    v->cls = cls;
    v->ctx = ctx;
    v->offered = features | VIRTIO_F_TRANSPORT;
    for (unsigned n = 0; n < queues && n < VIRTIO_QUEUES; n++)
        v->queue[n].max = sizes[n];
    timer_init_work(&v->timer, serve, v);
    virtio_reset(v);
}

static void queue_reset(struct virtio_queue *q)
{
    *q = (struct virtio_queue){.max = q->max, .size = q->max, .vector = VIRTIO_NO_VECTOR};
}

void virtio_reset(struct virtio *v)
{
    timer_cancel(v->cfg.clock, &v->timer);
    v->driver = 0;
    v->status = v->isr = 0;
    v->kicked = 0;
    v->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned n = 0; n < VIRTIO_QUEUES; n++)
        queue_reset(&v->queue[n]);
    if (v->cls->reset)
        v->cls->reset(v->ctx);
    if (v->interrupt)
        v->interrupt(v->transport, VIRTIO_NO_VECTOR, 0);
}

/* ---- what the transport passes on ---- */

void virtio_set_status(struct virtio *v, uint8_t status)
{
    if (!status) {
        virtio_reset(v);
        return;
    }
    /* A modern driver's choice of features is confirmed only if it is one that was offered. */
    if (status & ~v->status & VIRTIO_STATUS_FEATURES_OK &&
        (v->driver & ~v->offered || !virtio_has(v, VIRTIO_F_VERSION_1))) {
        device_log(v->cfg.log, LOG_GUEST_ERROR, "%s: features %#llx are refused", v->cls->name,
                   (unsigned long long)v->driver);
        status &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    }
    v->status = status | (v->status & VIRTIO_STATUS_NEEDS_RESET);
}

void virtio_set_features(struct virtio *v, uint64_t features)
{
    if (!(v->status & VIRTIO_STATUS_FEATURES_OK))
        v->driver = features;
}

uint8_t virtio_isr_take(struct virtio *v)
{
    uint8_t isr = v->isr;
    v->isr = 0;
    v->interrupt(v->transport, VIRTIO_NO_VECTOR, 0);
    return isr;
}

/* ---- state ---- */

static void section_name(const struct virtio *v, const char *place, char name[VIRTIO_SECTION_SIZE])
{
    snprintf(name, VIRTIO_SECTION_SIZE, "%.16s.%.8s", v->cls->name, place);
}

static void queue_save(const struct virtio_queue *q, struct snap_writer *w)
{
    snap_put_u16(w, q->size);
    snap_put_u8(w, q->enabled);
    snap_put_u16(w, q->vector);
    snap_put_u64(w, q->desc);
    snap_put_u64(w, q->driver);
    snap_put_u64(w, q->device);
    snap_put_u16(w, q->next_avail);
    snap_put_u16(w, q->next_used);
    snap_put_u16(w, q->signalled);
}

static void queue_load(struct virtio_queue *q, struct snap_reader *r)
{
    q->size = snap_get_u16(r);
    q->enabled = snap_get_u8(r) != 0;
    q->vector = snap_get_u16(r);
    q->desc = snap_get_u64(r);
    q->driver = snap_get_u64(r);
    q->device = snap_get_u64(r);
    q->next_avail = snap_get_u16(r);
    q->next_used = snap_get_u16(r);
    q->signalled = snap_get_u16(r);
    if (q->size > q->max || q->size & (q->size - 1))
        snap_fail(r, "a queue of %u entries", q->size);
}

void virtio_save(const struct virtio *v, const char *place, struct snap_writer *w)
{
    char name[VIRTIO_SECTION_SIZE];
    section_name(v, place, name);
    snap_begin(w, name, 1);
    snap_put_u64(w, v->driver);
    snap_put_u8(w, v->status);
    snap_put_u8(w, v->isr);
    snap_put_u8(w, v->generation);
    snap_put_u16(w, v->config_vector);
    snap_put_u32(w, v->kicked);
    timer_save(v->cfg.clock, &v->timer, w);
    for (unsigned n = 0; n < VIRTIO_QUEUES; n++)
        if (v->queue[n].max)
            queue_save(&v->queue[n], w);
    if (v->cls->save)
        v->cls->save(v->ctx, w);
    snap_end(w);
}

void virtio_load(struct virtio *v, const char *place, struct snap_reader *r)
{
    char name[VIRTIO_SECTION_SIZE];
    section_name(v, place, name);
    if (!snap_expect(r, name, 1))
        return;
    v->driver = snap_get_u64(r);
    v->status = snap_get_u8(r);
    v->isr = snap_get_u8(r);
    v->generation = snap_get_u8(r);
    v->config_vector = snap_get_u16(r);
    v->kicked = snap_get_u32(r);
    timer_load(v->cfg.clock, &v->timer, r);
    for (unsigned n = 0; n < VIRTIO_QUEUES; n++)
        if (v->queue[n].max)
            queue_load(&v->queue[n], r);
    if (v->cls->load)
        v->cls->load(v->ctx, r);
}
