/*
 * A mouse on a serial port: Microsoft's protocol at 7 data bits, with the third button as Logitech's mice have it.
 *
 * It lives off the port's DTR and RTS lines: when both have come up it says who it is, "M3" and its Plug and Play
 * identification, SERIAL_MOUSE_ANSWER later; when one falls it forgets everything. A packet is three bytes, or four
 * while the middle button is down or has just changed. Movements add up until the packet before has left the line, at
 * the rate of the port; clicks are packets of their own. No wheel.
 *
 * Source: Microsoft's serial mouse as Linux's sermouse.c and the serial mouse HOWTO describe it; "Plug and Play
 * External COM Device Specification" 1.00 for the identification.
 */
#ifndef DEVICES_SERIAL_MOUSE_H
#define DEVICES_SERIAL_MOUSE_H

#include "core/keys.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;
struct uart16550;

#define SERIAL_MOUSE_ANSWER 14000000u /* ns from power to the first byte */
#define SERIAL_MOUSE_QUEUED 64        /* bytes on their way, beyond which clicks are lost as well */

struct serial_mouse_config {
    struct vclock *clock;
    struct uart16550 *uart; /* borrowed: the port; its peer is serial_mouse_lines() and serial_mouse_idle() */
};

struct serial_mouse {
    struct serial_mouse_config cfg;
    bool powered;          /* DTR and RTS are up */
    uint8_t buttons, sent; /* MOUSE_*, as they are and as the guest knows them */
    int32_t dx, dy;
    struct timer answer;
};

void serial_mouse_init(struct serial_mouse *m, const struct serial_mouse_config *cfg);
/* After the port's own reset, which takes the power away. */
void serial_mouse_reset(struct serial_mouse *m);
/* The port's lines have changed; fits uart16550_peer. */
void serial_mouse_lines(void *mouse, bool dtr, bool rts);
/* What was sent has arrived; fits uart16550_peer. */
void serial_mouse_idle(void *mouse);
/* Fits input_fn: INPUT_MOUSE's events. */
void serial_mouse_input(void *mouse, const uint8_t *bytes, size_t len);
void serial_mouse_save(const struct serial_mouse *m, struct snap_writer *w);
void serial_mouse_load(struct serial_mouse *m, struct snap_reader *r);

#endif
