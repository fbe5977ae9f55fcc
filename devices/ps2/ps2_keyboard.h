/*
 * A PS/2 keyboard: scan code sets 1, 2 and 3 with set 3's key types, LEDs, typematic repeat.
 *
 * Keys come as input events (core/keys.h) and wait until what was sent before is taken and KEYBOARD_KEY_TIME has
 * passed, so that typed text arrives at a pace that a BIOS can read; none are lost up to KEYBOARD_KEYS. Source: IBM
 * PS/2 hardware reference, keyboard (101/102 keys); no made-up shifts around the grey navigation keys.
 */
#ifndef DEVICES_PS2_PS2_KEYBOARD_H
#define DEVICES_PS2_PS2_KEYBOARD_H

#include "core/keys.h"
#include "devices/ps2/ps2.h"

#define KEYBOARD_KEYS     1024     /* events that may wait */
#define KEYBOARD_KEY_TIME 4000000u /* ns between two of them */
#define PS2_LED_SCROLL    1
#define PS2_LED_NUM       2
#define PS2_LED_CAPS      4
#define KEYBOARD_WAIT     0x8000u /* and the low byte: units of KEY_WAIT_MS */

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
    bool scanned;                 /* it was, before the list of keys that `pending` waits for */
    uint8_t pending;              /* command that waits for its parameter, or 0 */
    uint8_t repeating;            /* key that is held, or KEY_COUNT */
    uint8_t modifiers;            /* shift, control and alt keys that are down: bits of ps2_keyboard.c */
    uint8_t print_as;             /* what the Print key sent when it went down */
    uint8_t type[KEY_COUNT];      /* in set 3: KEY_REPEAT, KEY_BREAK */
    uint16_t keys[KEYBOARD_KEYS]; /* events that wait: key << 1 | down, or KEYBOARD_WAIT | time; a ring */
    unsigned first, count;
    uint64_t next_key; /* time before which no event is taken */
    struct timer feed, repeat;
};

void ps2_keyboard_init(struct ps2_keyboard *k, const struct ps2_keyboard_config *cfg);
void ps2_keyboard_reset(struct ps2_keyboard *k);
/* A byte from the controller. */
void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t byte);
/* How a held key repeats: ns until the first time, and between two. */
void ps2_keyboard_repetition(const struct ps2_keyboard *k, uint64_t *delay, uint64_t *period);
/* The controller has taken a byte of k->out. */
void ps2_keyboard_taken(struct ps2_keyboard *k);
/* Fits input_fn: INPUT_KEYBOARD's events. */
void ps2_keyboard_input(void *keyboard, const uint8_t *bytes, size_t len);
void ps2_keyboard_save(const struct ps2_keyboard *k, struct snap_writer *w);
void ps2_keyboard_load(struct ps2_keyboard *k, struct snap_reader *r);

#endif
