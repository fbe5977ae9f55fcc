/*
 * Port 0x92, system control port A: bit 1 is the A20 gate, a rising bit 0 resets the processors.
 */
#ifndef DEVICES_PORT92_H
#define DEVICES_PORT92_H

#include "devices/a20_gate.h"
#include "devices/device.h"

struct port92_config {
    struct a20_gate *a20;
    struct device_signal reset;
};

struct port92 {
    struct port92_config cfg;
    uint8_t value; /* as written; bit 1 is read from the gate */
};

extern const struct bus_ops port92_bus_ops; /* 1 port */

void port92_init(struct port92 *p, const struct port92_config *cfg);
void port92_reset(struct port92 *p);
void port92_save(const struct port92 *p, struct snap_writer *w);
void port92_load(struct port92 *p, struct snap_reader *r);

#endif
