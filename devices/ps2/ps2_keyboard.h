/*
 * A PS/2 keyboard: scan code sets 1 and 2, LEDs, typematic repeat.
 *
 * Keys come as input events (core/keys.h) and wait until what was sent before is taken and KEYBOARD_KEY_TIME has
 * passed, so that typed text arrives at a pace that a BIOS can read; none are lost up to KEYBOARD_KEYS. Source: IBM
 * PS/2 hardware reference, keyboard. Set 3 is refused (reported).
 */
#ifndef DEVICES_PS2_PS2_KEYBOARD_H
#define DEVICES_PS2_PS2_KEYBOARD_H

#include "core/keys.h"
#include "devices/ps2/ps2.h"

#define KEYBOARD_KEYS     1024     /* events that may wait */
#define KEYBOARD_KEY_TIME 4000000u /* ns between two of them */

struct ps2_keyboard_config {
    struct vclock *clock;
    struct device_signal ready;
    const struct log *log;
};

struct ps2_keyboard {
    struct ps2_keyboard_config cfg;
    struct ps2_queue out;
    uint8_t set, leds, typematic;
    bool scanning;
    uint8_t pending;              /* command that waits for its parameter, or 0 */
    uint8_t repeating;            /* key that is held, or KEY_COUNT */
    uint16_t keys[KEYBOARD_KEYS]; /* events that wait: key << 1 | down; a ring */
    unsigned first, count;
    uint64_t next_key; /* time before which no event is taken */
    struct timer feed, repeat;
};

void ps2_keyboard_init(struct ps2_keyboard *k, const struct ps2_keyboard_config *cfg);
void ps2_keyboard_reset(struct ps2_keyboard *k);
/* A byte from the controller. */
void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t byte);
/* The controller has taken a byte of k->out. */
void ps2_keyboard_taken(struct ps2_keyboard *k);
/* Fits input_fn: INPUT_KEYBOARD's events. */
void ps2_keyboard_input(void *keyboard, const uint8_t *bytes, size_t len);
void ps2_keyboard_save(const struct ps2_keyboard *k, struct snap_writer *w);
void ps2_keyboard_load(struct ps2_keyboard *k, struct snap_reader *r);

#endif
