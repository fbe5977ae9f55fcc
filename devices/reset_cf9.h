/*
 * The reset control register of the PIIX3, a byte at port 0xcf9 (82371SB data sheet): bit 2 going from 0 to 1 resets
 * the system. The port lies inside the PCI configuration ports, so pci_host passes accesses on.
 */
#ifndef DEVICES_RESET_CF9_H
#define DEVICES_RESET_CF9_H

#include "devices/device.h"

struct snap_writer;
struct snap_reader;

struct reset_cf9 {
    struct device_signal reset;
    uint8_t value;
};

extern const struct bus_ops reset_cf9_bus_ops; /* 1 port */

void reset_cf9_init(struct reset_cf9 *c, const struct device_signal *reset);
void reset_cf9_reset(struct reset_cf9 *c);
void reset_cf9_save(const struct reset_cf9 *c, struct snap_writer *w);
void reset_cf9_load(struct reset_cf9 *c, struct snap_reader *r);

#endif
