/*
 * The debug console at port 0xe9: bytes written go to a sink; a read gives 0xe9, by which guests find it. It has no
 * state.
 */
#ifndef DEVICES_DEBUG_CONSOLE_H
#define DEVICES_DEBUG_CONSOLE_H

#include "devices/device.h"

struct debug_console {
    struct device_sink sink;
};

extern const struct bus_ops debug_console_bus_ops; /* 1 port */

void debug_console_init(struct debug_console *d, const struct device_sink *sink);

#endif
