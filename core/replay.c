#include "core/replay.h"

#include "core/alloc.h"
#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

struct input_event {
    struct input_event *next;
    uint64_t icount, seq;
    enum input_source source;
    size_t len;
    uint8_t bytes[];
};

/* Bytes of an event without its data in a snapshot: icount, source, length. */
#define SAVED_HEADER 13

void input_init(struct input_queue *q)
{
    *q = (struct input_queue){0};
}

static void drop_events(struct input_queue *q)
{
    while (q->head) {
        struct input_event *e = q->head;
        q->head = e->next;
        free(e);
    }
    q->tail = NULL;
}

void input_fini(struct input_queue *q)
{
    drop_events(q);
}

void input_set_sink(struct input_queue *q, enum input_source source, input_fn *fn, void *opaque)
{
    q->sink[source].fn = fn;
    q->sink[source].opaque = opaque;
}

/* Behind every event with the same or a smaller icount. */
static void insert(struct input_queue *q, struct input_event *e)
{
    struct input_event **link = &q->head;
    if (q->tail && q->tail->icount <= e->icount)
        link = &q->tail->next;
    while (*link && (*link)->icount <= e->icount)
        link = &(*link)->next;
    e->next = *link;
    *link = e;
    if (!e->next)
        q->tail = e;
}

static struct input_event *event_new(struct input_queue *q, enum input_source source, uint64_t icount, size_t len)
{
    struct input_event *e = alloc_zeroed(1, sizeof *e + len);
    e->icount = icount;
    e->seq = q->posted++;
    e->source = source;
    e->len = len;
    return e;
}

void input_post(struct input_queue *q, enum input_source source, uint64_t icount, const void *bytes, size_t len)
{
    if (!len)
        return;
    struct input_event *e = event_new(q, source, icount, len);
    memcpy(e->bytes, bytes, len);
    insert(q, e);
}

size_t input_waiting(const struct input_queue *q, enum input_source source)
{
    size_t bytes = 0;
    for (const struct input_event *e = q->head; e; e = e->next)
        if (e->source == source)
            bytes += e->len;
    return bytes;
}

uint64_t input_next(const struct input_queue *q)
{
    return q->head ? q->head->icount : UINT64_MAX;
}

/* The first event that is due and was posted before `limit`, unlinked; or NULL. */
static struct input_event *take_due(struct input_queue *q, uint64_t icount, uint64_t limit)
{
    struct input_event *before = NULL;
    for (struct input_event *e = q->head; e && e->icount <= icount; before = e, e = e->next) {
        if (e->seq >= limit)
            continue;
        *(before ? &before->next : &q->head) = e->next;
        if (q->tail == e)
            q->tail = before;
        return e;
    }
    return NULL;
}

void input_deliver_due(struct input_queue *q, uint64_t icount)
{
    uint64_t limit = q->posted;
    for (struct input_event *e; (e = take_due(q, icount, limit)); free(e)) {
        q->delivered++;
        if (q->sink[e->source].fn)
            q->sink[e->source].fn(q->sink[e->source].opaque, e->bytes, e->len);
    }
}

void input_save(const struct input_queue *q, struct snap_writer *w)
{
    uint32_t count = 0;
    for (const struct input_event *e = q->head; e; e = e->next)
        count++;
    snap_put_u64(w, q->delivered);
    snap_put_u32(w, count);
    for (const struct input_event *e = q->head; e; e = e->next) {
        snap_put_u64(w, e->icount);
        snap_put_u8(w, (uint8_t)e->source);
        snap_put_u32(w, (uint32_t)e->len);
        snap_put_bytes(w, e->bytes, e->len);
    }
}

static bool load_event(struct input_queue *q, struct snap_reader *r)
{
    uint64_t icount = snap_get_u64(r);
    uint8_t source = snap_get_u8(r);
    uint32_t len = snap_get_u32(r);
    if (snap_reader_error(r))
        return false;
    if (source >= INPUT_SOURCE_COUNT || !len || len > snap_left(r)) {
        snap_fail(r, "input queue: impossible event");
        return false;
    }
    struct input_event *e = event_new(q, source, icount, len);
    snap_get_bytes(r, e->bytes, len);
    insert(q, e);
    return true;
}

void input_load(struct input_queue *q, struct snap_reader *r)
{
    drop_events(q);
    q->delivered = snap_get_u64(r);
    uint32_t count = snap_get_u32(r);
    if (count > snap_left(r) / SAVED_HEADER)
        snap_fail(r, "input queue: impossible count of events");
    for (uint32_t i = 0; i < count && !snap_reader_error(r); i++)
        if (!load_event(q, r))
            break;
}
