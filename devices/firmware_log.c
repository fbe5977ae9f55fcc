#include "devices/firmware_log.h"

#define READBACK 0xe9

static uint64_t firmware_log_read(void *dev, const struct bus_txn *t)
{
    return READBACK;
}

static void firmware_log_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct firmware_log *f = dev;
    char c = (char)value;
    if (c != '\n' && c != '\r')
        f->line[f->len++] = c;
    if (c != '\n' && f->len < sizeof f->line)
        return;
    device_log(f->log, LOG_FIRMWARE, "%.*s", (int)f->len, f->line);
    f->len = 0;
}

const struct bus_ops firmware_log_bus_ops = {firmware_log_read, firmware_log_write};

void firmware_log_init(struct firmware_log *f, const struct log *log)
{
    *f = (struct firmware_log){.log = log};
}
