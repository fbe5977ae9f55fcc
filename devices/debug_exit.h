/*
 * isa-debug-exit: a write of v ends the run with exit code (2v + 1) & 255. Reads give zero. It has no state.
 */
#ifndef DEVICES_DEBUG_EXIT_H
#define DEVICES_DEBUG_EXIT_H

#include "devices/device.h"

struct debug_exit {
    void (*exit)(void *ctx, int code); /* code is odd, 1..255 */
    void *ctx;
};

extern const struct bus_ops debug_exit_bus_ops; /* iosize ports */

void debug_exit_init(struct debug_exit *d, void (*exit)(void *ctx, int code), void *ctx);

#endif
