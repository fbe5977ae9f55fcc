#include "core/bus.h"

#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void bus_init(struct bus *b, const char *name, uint64_t limit, const struct log *log)
{
    *b = (struct bus){.name = name, .limit = limit, .log = log};
}

void bus_fini(struct bus *b)
{
    free(b->ranges);
    b->ranges = NULL;
    b->count = b->capacity = b->last = 0;
}

const char *bus_error_text(enum bus_error e)
{
    switch (e) {
    case BUS_OK:
        return "no error";
    case BUS_ERR_OVERLAP:
        return "the range overlaps one that is registered already";
    case BUS_ERR_EMPTY:
        return "the range is empty";
    case BUS_ERR_RANGE:
        return "the range does not fit the bus";
    case BUS_ERR_NOMEM:
        return "out of memory";
    case BUS_ERR_ABSENT:
        return "no such range";
    }
    return "unknown error";
}

/* Index of the first range whose base is > addr. */
static size_t upper_bound(const struct bus *b, uint64_t addr)
{
    size_t lo = 0, hi = b->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (b->ranges[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool contains(const struct bus_range *r, uint64_t addr)
{
    return addr >= r->base && addr - r->base < r->len;
}

const struct bus_range *bus_find(const struct bus *b, uint64_t addr)
{
    if (b->last < b->count && contains(&b->ranges[b->last], addr))
        return &b->ranges[b->last];
    size_t i = upper_bound(b, addr);
    return i && contains(&b->ranges[i - 1], addr) ? &b->ranges[i - 1] : NULL;
}

static enum bus_error make_room(struct bus *b)
{
    if (b->count < b->capacity)
        return BUS_OK;
    size_t capacity = b->capacity ? b->capacity * 2 : 16;
    struct bus_range *ranges = reallocarray(b->ranges, capacity, sizeof *ranges);
    if (!ranges)
        return BUS_ERR_NOMEM;
    b->ranges = ranges;
    b->capacity = capacity;
    return BUS_OK;
}

enum bus_error bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev,
                       const char *name)
{
    if (!len)
        return BUS_ERR_EMPTY;
    uint64_t last = base + (len - 1);
    if (last < base || (b->limit && last >= b->limit))
        return BUS_ERR_RANGE;
    size_t at = upper_bound(b, base);
    if ((at && contains(&b->ranges[at - 1], base)) || (at < b->count && b->ranges[at].base <= last))
        return BUS_ERR_OVERLAP;
    enum bus_error e = make_room(b);
    if (e)
        return e;
    memmove(&b->ranges[at + 1], &b->ranges[at], (b->count - at) * sizeof *b->ranges);
    b->ranges[at] = (struct bus_range){.base = base, .len = len, .ops = ops, .dev = dev, .name = name};
    b->count++;
    return BUS_OK;
}

enum bus_error bus_remove(struct bus *b, uint64_t base, const void *dev)
{
    size_t at = upper_bound(b, base);
    if (!at || b->ranges[at - 1].base != base || b->ranges[at - 1].dev != dev)
        return BUS_ERR_ABSENT;
    memmove(&b->ranges[at - 1], &b->ranges[at], (b->count - at) * sizeof *b->ranges);
    b->count--;
    return BUS_OK;
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : ((uint64_t)1 << (size * 8)) - 1;
}

/* The range that answers the whole access; NULL if none claims its first byte or it must be split (*split then). */
static const struct bus_range *route(struct bus *b, uint64_t addr, unsigned size, bool *split)
{
    const struct bus_range *r = bus_find(b, addr);
    if (r) {
        b->last = (size_t)(r - b->ranges);
        *split = r->len - (addr - r->base) < size;
        return *split ? NULL : r;
    }
    /* A range may begin inside the access. */
    size_t next = upper_bound(b, addr);
    *split = next < b->count && b->ranges[next].base - addr < size;
    return NULL;
}

static void report_unclaimed(const struct bus *b, uint64_t addr, unsigned size, const uint64_t *value)
{
    if (!b->log || !log_is_on(b->log, LOG_IOPORT))
        return;
    if (value)
        log_emit(b->log, LOG_IOPORT, "%s write %#" PRIx64 " size %u value %#" PRIx64 ": no device", b->name, addr, size,
                 *value);
    else
        log_emit(b->log, LOG_IOPORT, "%s read %#" PRIx64 " size %u: no device", b->name, addr, size);
}

uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size, int cpu)
{
    bool split;
    const struct bus_range *r = route(b, addr, size, &split);
    if (r) {
        struct bus_txn t = {.offset = addr - r->base, .size = size, .cpu = cpu};
        return (r->ops->read ? r->ops->read(r->dev, &t) : UINT64_MAX) & size_mask(size);
    }
    if (split) {
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++)
            value |= (addr + i < addr ? 0xff : bus_read(b, addr + i, 1, cpu)) << (i * 8);
        return value;
    }
    report_unclaimed(b, addr, size, NULL);
    return size_mask(size);
}

void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t value, int cpu)
{
    bool split;
    const struct bus_range *r = route(b, addr, size, &split);
    value &= size_mask(size);
    if (r) {
        struct bus_txn t = {.offset = addr - r->base, .size = size, .cpu = cpu};
        if (r->ops->write)
            r->ops->write(r->dev, &t, value);
        return;
    }
    if (!split) {
        report_unclaimed(b, addr, size, &value);
        return;
    }
    for (unsigned i = 0; i < size && addr + i >= addr; i++)
        bus_write(b, addr + i, 1, (value >> (i * 8)) & 0xff, cpu);
}
