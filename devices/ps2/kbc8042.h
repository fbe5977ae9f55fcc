/*
 * The 8042 keyboard controller: controller commands, the command byte, the output port with A20 and the reset line, and
 * two PS/2 ports, the keyboard's with translation from scan code set 2 to set 1.
 *
 * What a device sends comes a byte at a time, KBC_BYTE_TIME apart; answers of the controller itself go before. Without
 * a device on a port, bytes for it find nobody; without a mouse there is no auxiliary port. A password, once loaded
 * and turned on, keeps what is typed from the system until it has been typed itself (codes of set 1, make codes alone).
 *
 * Source: IBM PC/AT and PS/2 technical references, keyboard controller; commands as Linux's i8042 driver uses them.
 */
#ifndef DEVICES_PS2_KBC8042_H
#define DEVICES_PS2_KBC8042_H

#include "core/irq.h"
#include "devices/a20_gate.h"
#include "devices/device.h"
#include "devices/ps2/ps2_keyboard.h"
#include "devices/ps2/ps2_mouse.h"

#define KBC_BYTE_TIME 100000u /* ns */
#define KBC_ANSWERS   8
#define KBC_PASSWORD  8 /* codes, at most */

struct kbc8042_config {
    struct irq_line irq, aux_irq;  /* ISA IRQ 1 and 12 */
    struct vclock *clock;          /* where there is a keyboard or a mouse */
    struct ps2_keyboard *keyboard; /* borrowed; may be NULL, as the mouse. Their `ready` is kbc8042_ready() */
    struct ps2_mouse *mouse;
    struct a20_gate *a20;
    struct device_signal reset; /* pulse of output port bit 0 */
    const struct log *log;
};

struct kbc8042 {
    struct kbc8042_config cfg;
    uint8_t ram[32]; /* byte 0 is the command byte */
    uint8_t status;  /* bits 0 (output full), 2 (system), 3 (last write was a command), 5 (output is the mouse's) */
    uint8_t output;  /* data for port 0x60 */
    uint8_t pending; /* command that awaits its parameter, or 0 */
    bool breaks;     /* the prefix of a break code is being translated */
    uint8_t polled;  /* half of the input port that status bits 4 to 7 show: 1 low, 2 high, 0 none */
    uint8_t password[KBC_PASSWORD], password_len;
    uint8_t matched; /* of its codes, typed so far */
    bool locked;     /* it has to be typed */
    bool irq_level, aux_level;
    uint16_t answer[KBC_ANSWERS]; /* that wait for the output buffer; bit 8: as the mouse's */
    uint8_t answers;
    uint64_t next_byte; /* time before which no device sends */
    struct timer timer;
};

extern const struct bus_ops kbc8042_data_bus_ops;    /* 1 port: 0x60 */
extern const struct bus_ops kbc8042_command_bus_ops; /* 1 port: 0x64 */

void kbc8042_init(struct kbc8042 *k, const struct kbc8042_config *cfg);
void kbc8042_reset(struct kbc8042 *k);
/* A device has something to send: for the devices' `ready`. */
void kbc8042_ready(void *kbc);
void kbc8042_save(const struct kbc8042 *k, struct snap_writer *w);
void kbc8042_load(struct kbc8042 *k, struct snap_reader *r);

#endif
