#include "devices/port92.h"

#include "core/snapshot.h"

#define FAST_RESET 0x01
#define A20        0x02

static uint8_t port92_read8(void *dev, uint64_t offset)
{
    struct port92 *p = dev;
    return (p->value & (uint8_t)~A20) | (p->cfg.a20->open ? A20 : 0);
}

static void port92_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct port92 *p = dev;
    bool resets = (v & FAST_RESET) && !(p->value & FAST_RESET);
    p->value = v;
    a20_gate_set(p->cfg.a20, v & A20);
    if (resets)
        device_signal_raise(&p->cfg.reset);
}

DEVICE_BYTE_BUS_OPS(port92_bus_ops, port92_read8, port92_write8);

void port92_init(struct port92 *p, const struct port92_config *cfg)
{
    *p = (struct port92){.cfg = *cfg};
}

void port92_reset(struct port92 *p)
{
    p->value = 0;
}

void port92_save(const struct port92 *p, struct snap_writer *w)
{
    snap_begin(w, "port92", 1);
    snap_put_u8(w, p->value);
    snap_end(w);
}

void port92_load(struct port92 *p, struct snap_reader *r)
{
    if (snap_expect(r, "port92", 1))
        p->value = snap_get_u8(r);
}
