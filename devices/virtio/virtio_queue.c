/*
 * Split virtqueues (VIRTIO 1.1, section 2.6). Every number that comes out of guest memory is checked here.
 */
#include "devices/virtio/virtio.h"

#include <string.h>

#define DESC_BYTES    16
#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define AVAIL_NO_INTERRUPT 1

/* ---- memory ---- */

static bool copy(struct virtio *v, gpa_t gpa, void *buf, size_t len, bool write)
{
    if (guest_mem_dma(&v->cfg.memory, gpa, buf, len, write))
        return true;
    virtio_fail(v, "no memory to %s at 0x%llx", write ? "write" : "read", (unsigned long long)gpa);
    return false;
}

static bool read16(struct virtio *v, gpa_t gpa, uint16_t *value)
{
    uint8_t b[2];
    if (!copy(v, gpa, b, sizeof b, false))
        return false;
    *value = (uint16_t)(b[0] | b[1] << 8);
    return true;
}

static bool write16(struct virtio *v, gpa_t gpa, uint16_t value)
{
    uint8_t b[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    return copy(v, gpa, b, sizeof b, true);
}

/* ---- the rings' places ---- */

static gpa_t avail_entry(const struct virtio_queue *q, uint16_t index)
{
    return q->driver + 4 + 2ull * (index & (q->size - 1));
}

static gpa_t used_event(const struct virtio_queue *q)
{
    return q->driver + 4 + 2ull * q->size;
}

static gpa_t used_entry(const struct virtio_queue *q, uint16_t index)
{
    return q->device + 4 + 8ull * (index & (q->size - 1));
}

static gpa_t avail_event(const struct virtio_queue *q)
{
    return q->device + 4 + 8ull * q->size;
}

void virtio_queue_set_legacy(struct virtio *v, unsigned queue, gpa_t gpa)
{
    struct virtio_queue *q = &v->queue[queue];
    uint16_t vector = q->vector;
    *q = (struct virtio_queue){.max = q->max, .size = q->max, .vector = vector};
    if (!gpa)
        return;
    q->desc = gpa;
    q->driver = gpa + (uint64_t)DESC_BYTES * q->size;
    q->device = (used_event(q) + 2 + PAGE_MASK) & ~PAGE_MASK;
    q->enabled = true;
}

/* ---- taking ---- */

static bool is_usable(const struct virtio *v, const struct virtio_queue *q)
{
    return q->enabled && q->size && virtio_is_live(v);
}

/* How many entries wait; 0 too if the index cannot be. */
static uint16_t waiting(struct virtio *v, struct virtio_queue *q)
{
    uint16_t index, count;
    if (!is_usable(v, q) || !read16(v, q->driver + 2, &index))
        return 0;
    count = (uint16_t)(index - q->next_avail);
    if (count <= q->size)
        return count;
    virtio_fail(v, "the available index moved from %u to %u in a queue of %u", q->next_avail, index, q->size);
    return 0;
}

bool virtio_queue_has_more(struct virtio *v, unsigned queue)
{
    return waiting(v, &v->queue[queue]) != 0;
}

struct descriptor {
    uint64_t gpa;
    uint32_t len;
    uint16_t flags, next;
};

static bool read_descriptor(struct virtio *v, gpa_t table, unsigned n, struct descriptor *d)
{
    uint8_t b[DESC_BYTES];
    if (!copy(v, table + (uint64_t)n * DESC_BYTES, b, sizeof b, false))
        return false;
    *d = (struct descriptor){0};
    for (unsigned i = 0; i < 8; i++)
        d->gpa |= (uint64_t)b[i] << (8 * i);
    for (unsigned i = 0; i < 4; i++)
        d->len |= (uint32_t)b[8 + i] << (8 * i);
    d->flags = (uint16_t)(b[12] | b[13] << 8);
    d->next = (uint16_t)(b[14] | b[15] << 8);
    return true;
}

static bool add_segment(struct virtio *v, const struct descriptor *d)
{
    struct virtio_request *r = &v->request;
    bool write = d->flags & DESC_WRITE;
    if (!write && r->in) {
        virtio_fail(v, "a buffer to read behind one to write in chain %u", r->head);
        return false;
    }
    if (d->gpa + d->len < d->gpa) {
        virtio_fail(v, "a buffer of 0x%x bytes at 0x%llx wraps", d->len, (unsigned long long)d->gpa);
        return false;
    }
    r->segment[r->out + r->in] = (struct virtio_segment){d->gpa, d->len};
    *(write ? &r->in : &r->out) += 1;
    *(write ? &r->in_bytes : &r->out_bytes) += d->len;
    return true;
}

/* An indirect table stands for the whole rest of the chain. */
static bool enter_table(struct virtio *v, const struct descriptor *d, gpa_t *table, unsigned *count)
{
    unsigned entries = d->len / DESC_BYTES;
    if (!virtio_has(v, VIRTIO_F_INDIRECT) || d->flags & DESC_NEXT || !entries || d->len % DESC_BYTES ||
        entries > VIRTIO_QUEUE_SIZE) {
        virtio_fail(v, "an indirect table of 0x%x bytes, flags 0x%x", d->len, d->flags);
        return false;
    }
    *table = d->gpa;
    *count = entries;
    return true;
}

/* Walks the chain from its head. No chain is longer than the table that it is in. */
static bool collect(struct virtio *v, const struct virtio_queue *q)
{
    struct virtio_request *r = &v->request;
    gpa_t table = q->desc;
    unsigned count = q->size, n = r->head, taken = 0;
    bool indirect = false;
    for (struct descriptor d = {.flags = DESC_NEXT}; d.flags & DESC_NEXT;) {
        if (n >= count || taken >= count) {
            virtio_fail(v, n >= count ? "descriptor %u of %u" : "chain %u loops after %u descriptors",
                        n >= count ? n : r->head, count);
            return false;
        }
        if (!read_descriptor(v, table, n, &d))
            return false;
        if (d.flags & DESC_INDIRECT) {
            if (indirect) {
                virtio_fail(v, "an indirect table in an indirect table");
                return false;
            }
            if (!enter_table(v, &d, &table, &count))
                return false;
            indirect = true;
            taken = n = 0;
            d.flags = DESC_NEXT;
            continue;
        }
        if (!add_segment(v, &d))
            return false;
        taken++;
        n = d.next;
    }
    return true;
}

struct virtio_request *virtio_queue_pop(struct virtio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queue[queue];
    struct virtio_request *r = &v->request;
    if (!waiting(v, q)) {
        /* From now on the driver is to say when there is more. */
        if (is_usable(v, q) && virtio_has(v, VIRTIO_F_EVENT_IDX))
            write16(v, avail_event(q), q->next_avail);
        return NULL;
    }
    if (!v->budget) {
        virtio_kick(v, queue);
        return NULL;
    }
    v->budget--;
    r->out = r->in = 0;
    r->out_bytes = r->in_bytes = 0;
    if (!read16(v, avail_entry(q, q->next_avail), &r->head))
        return NULL;
    if (r->head >= q->size) {
        virtio_fail(v, "chain %u in a queue of %u", r->head, q->size);
        return NULL;
    }
    if (!collect(v, q))
        return NULL;
    q->next_avail++;
    return r;
}

void virtio_queue_unpop(struct virtio *v, unsigned queue)
{
    v->queue[queue].next_avail--;
}

/* ---- giving back ---- */

void virtio_queue_push(struct virtio *v, unsigned queue, uint16_t head, uint32_t written)
{
    struct virtio_queue *q = &v->queue[queue];
    uint8_t b[8] = {(uint8_t)head, (uint8_t)(head >> 8)};
    if (!is_usable(v, q))
        return;
    for (unsigned i = 0; i < 4; i++)
        b[4 + i] = (uint8_t)(written >> (8 * i));
    if (copy(v, used_entry(q, q->next_used), b, sizeof b, true))
        q->next_used++;
}

/* Has the driver asked to be told of entries among those from `old` to before `now`? */
static bool driver_wants_it(struct virtio *v, const struct virtio_queue *q, uint16_t old, uint16_t now)
{
    uint16_t value = 0;
    if (virtio_has(v, VIRTIO_F_EVENT_IDX))
        return read16(v, used_event(q), &value) && (uint16_t)(now - value - 1) < (uint16_t)(now - old);
    return read16(v, q->driver, &value) && !(value & AVAIL_NO_INTERRUPT);
}

void virtio_queue_flush(struct virtio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queue[queue];
    uint16_t old = q->signalled, now = q->next_used;
    if (old == now || !is_usable(v, q) || !write16(v, q->device + 2, now))
        return;
    q->signalled = now;
    if (!driver_wants_it(v, q, old, now) || !virtio_is_live(v))
        return;
    v->isr |= VIRTIO_ISR_QUEUE;
    v->interrupt(v->transport, q->vector, VIRTIO_ISR_QUEUE);
}

/* ---- what is in the buffers ---- */

static bool copy_segments(struct virtio *v, const struct virtio_segment *s, unsigned count, uint64_t offset, void *buf,
                          size_t len, bool write)
{
    uint8_t *at = buf;
    for (unsigned i = 0; i < count && len; i++) {
        if (offset >= s[i].len) {
            offset -= s[i].len;
            continue;
        }
        uint64_t left = s[i].len - offset;
        size_t part = left < len ? (size_t)left : len;
        if (!copy(v, s[i].gpa + offset, at, part, write))
            return false;
        at += part;
        len -= part;
        offset = 0;
    }
    return !len;
}

bool virtio_read(struct virtio *v, const struct virtio_request *r, uint64_t offset, void *buf, size_t len)
{
    return copy_segments(v, r->segment, r->out, offset, buf, len, false);
}

bool virtio_write(struct virtio *v, const struct virtio_request *r, uint64_t offset, const void *buf, size_t len)
{
    return copy_segments(v, r->segment + r->out, r->in, offset, (void *)(uintptr_t)buf, len, true);
}
