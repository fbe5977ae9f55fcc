#include "devices/debug_exit.h"

static uint64_t debug_exit_read(void *dev, const struct bus_txn *t)
{
    return 0;
}

static void debug_exit_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct debug_exit *d = dev;
    if (d->exit)
        d->exit(d->ctx, (int)((value << 1 | 1) & 255));
}

const struct bus_ops debug_exit_bus_ops = {debug_exit_read, debug_exit_write};

void debug_exit_init(struct debug_exit *d, void (*exit)(void *ctx, int code), void *ctx)
{
    *d = (struct debug_exit){exit, ctx};
}
