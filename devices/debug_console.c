#include "devices/debug_console.h"

#define READBACK 0xe9

static uint8_t console_read8(void *dev, uint64_t offset)
{
    return READBACK;
}

static void console_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct debug_console *d = dev;
    device_sink_put(&d->sink, v);
}

DEVICE_BYTE_BUS_OPS(debug_console_bus_ops, console_read8, console_write8);

void debug_console_init(struct debug_console *d, const struct device_sink *sink)
{
    d->sink = *sink;
}
