#include "devices/testdev.h"

#include "core/snapshot.h"

#include <string.h>

static uint8_t word_read8(void *dev, uint64_t offset)
{
    const struct testdev *d = dev;
    return d->word[offset];
}

static void word_write8(void *dev, uint64_t offset, uint8_t value)
{
    struct testdev *d = dev;
    d->word[offset] = value;
}

DEVICE_BYTE_BUS_OPS(testdev_word_bus_ops, word_read8, word_write8);

static uint8_t flush_read8(void *dev, uint64_t offset)
{
    return 0;
}

static void flush_write8(void *dev, uint64_t offset, uint8_t value)
{
}

DEVICE_BYTE_BUS_OPS(testdev_flush_bus_ops, flush_read8, flush_write8);

static uint8_t byte_read8(void *dev, uint64_t offset)
{
    const uint8_t *byte = dev;
    return *byte;
}

static void byte_write8(void *dev, uint64_t offset, uint8_t value)
{
    uint8_t *byte = dev;
    *byte = value;
}

DEVICE_BYTE_BUS_OPS(testdev_byte_bus_ops, byte_read8, byte_write8);

static uint8_t irq_read8(void *dev, uint64_t offset)
{
    const struct testdev *d = dev;
    return d->level[offset];
}

static void irq_write8(void *dev, uint64_t offset, uint8_t value)
{
    struct testdev *d = dev;
    d->level[offset] = value != 0;
    irq_set(&d->line[offset], value != 0);
}

DEVICE_BYTE_BUS_OPS(testdev_irq_bus_ops, irq_read8, irq_write8);

static uint8_t memory_read8(void *dev, uint64_t offset)
{
    const struct testdev *d = dev;
    return d->memory[offset];
}

static void memory_write8(void *dev, uint64_t offset, uint8_t value)
{
    struct testdev *d = dev;
    d->memory[offset] = value;
}

DEVICE_BYTE_BUS_OPS(testdev_memory_bus_ops, memory_read8, memory_write8);

void testdev_init(struct testdev *d, const struct irq_line line[TESTDEV_LINES])
{
    memset(d, 0, sizeof *d);
    memcpy(d->line, line, sizeof d->line);
}

void testdev_reset(struct testdev *d)
{
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        irq_set(&d->line[n], false);
    memset(d->level, 0, sizeof d->level);
    memset(d->word, 0, sizeof d->word);
    memset(d->bytes, 0, sizeof d->bytes);
    memset(d->memory, 0, sizeof d->memory);
}

void testdev_save(const struct testdev *d, struct snap_writer *w)
{
    snap_begin(w, "pc-testdev", 1);
    snap_put_bytes(w, d->word, sizeof d->word);
    snap_put_bytes(w, d->bytes, sizeof d->bytes);
    snap_put_bytes(w, d->level, sizeof d->level);
    snap_put_packed(w, d->memory, sizeof d->memory);
    snap_end(w);
}

void testdev_load(struct testdev *d, struct snap_reader *r)
{
    if (!snap_expect(r, "pc-testdev", 1))
        return;
    snap_get_bytes(r, d->word, sizeof d->word);
    snap_get_bytes(r, d->bytes, sizeof d->bytes);
    snap_get_bytes(r, d->level, sizeof d->level);
    snap_get_packed(r, d->memory, sizeof d->memory);
}
