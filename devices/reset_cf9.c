#include "devices/reset_cf9.h"

#include "core/snapshot.h"

#define RESET_CPU 0x04
#define KEPT_BITS 0x02 /* hard or soft: both reset the machine here */

static uint8_t cf9_read8(void *dev, uint64_t offset)
{
    struct reset_cf9 *c = dev;
    return c->value;
}

static void cf9_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct reset_cf9 *c = dev;
    c->value = v & KEPT_BITS; /* bit 2 falls back by itself with the reset that it causes */
    if (v & RESET_CPU)
        device_signal_raise(&c->reset);
}

DEVICE_BYTE_BUS_OPS(reset_cf9_bus_ops, cf9_read8, cf9_write8);

void reset_cf9_init(struct reset_cf9 *c, const struct device_signal *reset)
{
    *c = (struct reset_cf9){.reset = *reset};
}

void reset_cf9_reset(struct reset_cf9 *c)
{
    c->value = 0;
}

void reset_cf9_save(const struct reset_cf9 *c, struct snap_writer *w)
{
    snap_begin(w, "reset_cf9", 1);
    snap_put_u8(w, c->value);
    snap_end(w);
}

void reset_cf9_load(struct reset_cf9 *c, struct snap_reader *r)
{
    if (snap_expect(r, "reset_cf9", 1))
        c->value = snap_get_u8(r) & KEPT_BITS;
}
