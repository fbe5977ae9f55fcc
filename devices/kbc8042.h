/*
 * The 8042 keyboard controller with nothing plugged in: controller commands, the command byte, the output port with A20
 * and the reset line. Bytes sent to a keyboard get no answer, as without a keyboard; there is no auxiliary port.
 *
 * Source: IBM PC/AT technical reference, keyboard controller; commands as Linux's i8042 driver uses them.
 */
#ifndef DEVICES_KBC8042_H
#define DEVICES_KBC8042_H

#include "core/irq.h"
#include "devices/a20_gate.h"
#include "devices/device.h"

struct kbc8042_config {
    struct irq_line irq; /* ISA IRQ 1 */
    struct a20_gate *a20;
    struct device_signal reset; /* pulse of output port bit 0 */
    const struct log *log;
};

struct kbc8042 {
    struct kbc8042_config cfg;
    uint8_t ram[32]; /* byte 0 is the command byte */
    uint8_t status;  /* bits 0 (output full), 2 (system), 3 (last write was a command) */
    uint8_t output;  /* data for port 0x60 */
    uint8_t pending; /* command that awaits its parameter, or 0 */
    bool irq_level;
};

extern const struct bus_ops kbc8042_data_bus_ops;    /* 1 port: 0x60 */
extern const struct bus_ops kbc8042_command_bus_ops; /* 1 port: 0x64 */

void kbc8042_init(struct kbc8042 *k, const struct kbc8042_config *cfg);
void kbc8042_reset(struct kbc8042 *k);
void kbc8042_save(const struct kbc8042 *k, struct snap_writer *w);
void kbc8042_load(struct kbc8042 *k, struct snap_reader *r);

#endif
