/*
 * A PS/2 mouse: standard, and IntelliMouse with a wheel (ID 3) and with five buttons (ID 4).
 *
 * Movements come as input events (core/keys.h) and add up until the controller has taken the packet before; commands
 * that change the mouse's mode forget them. Resolution and sample rate are kept and change nothing: a movement of the
 * host is as many counts, and packets come as fast as they are taken. Source: IBM PS/2 hardware reference, mouse;
 * Microsoft's IntelliMouse note on the sample rates that turn the wheel on.
 */
#ifndef DEVICES_PS2_PS2_MOUSE_H
#define DEVICES_PS2_PS2_MOUSE_H

#include "core/keys.h"
#include "devices/ps2/ps2.h"

struct ps2_mouse_config {
    struct device_signal ready;
    const struct log *log;
};

struct ps2_mouse {
    struct ps2_mouse_config cfg;
    struct ps2_queue out;
    uint8_t id, rate, resolution;
    uint8_t rates[2]; /* the two before `rate` */
    bool remote, wrap, reporting, doubled;
    uint8_t pending; /* command that waits for its parameter, or 0 */
    bool invalid;    /* what came last was no command */
    uint8_t last[4]; /* packet or answer, for "resend" */
    uint8_t last_len;
    uint8_t buttons; /* MOUSE_* */
    bool moved;      /* something is to be reported */
    int32_t dx, dy, dz;
};

void ps2_mouse_init(struct ps2_mouse *m, const struct ps2_mouse_config *cfg);
void ps2_mouse_reset(struct ps2_mouse *m);
/* A byte from the controller. */
void ps2_mouse_command(struct ps2_mouse *m, uint8_t byte);
/* The controller has taken a byte of m->out. */
void ps2_mouse_taken(struct ps2_mouse *m);
/* Fits input_fn: INPUT_MOUSE's events. */
void ps2_mouse_input(void *mouse, const uint8_t *bytes, size_t len);
void ps2_mouse_save(const struct ps2_mouse *m, struct snap_writer *w);
void ps2_mouse_load(struct ps2_mouse *m, struct snap_reader *r);

#endif
