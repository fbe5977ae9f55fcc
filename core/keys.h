/*
 * Keys: their names, their places on the keyboard, and how what people type is made of them. Front ends, the monitor
 * and the keyboard share these numbers.
 *
 * Input events (core/replay.h). INPUT_KEYBOARD: pairs of bytes, enum key and 1 for down, 0 for up. INPUT_MOUSE: six
 * bytes, dx and dy as little-endian 16-bit numbers (right and down are positive), wheel (down is positive), buttons
 * (MOUSE_*) as they are now.
 */
#ifndef CORE_KEYS_H
#define CORE_KEYS_H

#include "core/types.h"

enum key {
#define X(id, name, set1, set2, extended) KEY_##id,
#include "core/keys.def"
#undef X
    KEY_COUNT
};

#define MOUSE_LEFT   1
#define MOUSE_RIGHT  2
#define MOUSE_MIDDLE 4
#define MOUSE_EVENT  6 /* bytes */

struct key_codes {
    const char *name;
    uint8_t set1, set2;
    bool extended;
};

/* key < KEY_COUNT. */
const struct key_codes *key_codes(enum key key);
/* The key of that name (also QEMU's second names, such as "enter" and "ctrl_l"), or KEY_COUNT. */
enum key key_find(const char *name, size_t len);
/* The key that types an ASCII character on a US keyboard, and whether shift is held; KEY_COUNT: none. */
enum key key_of_char(char c, bool *shift);

/* Room for all events of a combination or of a character: up to KEY_CHORD_MAX keys down, then up. */
#define KEY_CHORD_MAX   16
#define KEY_CHORD_BYTES (4 * KEY_CHORD_MAX)
/* "ctrl-alt-delete": events that press the keys in order and release them in the reverse order. 0: a name is unknown
 * (*bad, *bad_len say which) or there are too many. */
size_t key_chord_events(const char *text, uint8_t events[KEY_CHORD_BYTES], const char **bad, size_t *bad_len);
/* A character; 0: no key types it. */
size_t key_char_events(char c, uint8_t events[KEY_CHORD_BYTES]);

#endif
