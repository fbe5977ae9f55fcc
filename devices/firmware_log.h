/*
 * Port 0x402, where SeaBIOS (and OVMF's debug builds) write what they do: whole lines go to the log channel "firmware".
 * A read gives 0xe9, by which firmware knows that someone listens. It is there whether the channel is on or not, so
 * that logging does not change the run.
 */
#ifndef DEVICES_FIRMWARE_LOG_H
#define DEVICES_FIRMWARE_LOG_H

#include "devices/device.h"

struct firmware_log {
    const struct log *log;
    char line[256];
    unsigned len;
};

extern const struct bus_ops firmware_log_bus_ops; /* 1 port */

void firmware_log_init(struct firmware_log *f, const struct log *log);

#endif
