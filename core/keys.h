/*
 * Keys: their names, their places on the keyboard, and how what people type is made of them. Front ends, the monitor
 * and the keyboard share these numbers.
 *
 * Input events (core/replay.h). INPUT_KEYBOARD: pairs of bytes, enum key and 1 for down, 0 for up; or KEY_WAIT and how
 * long the keyboard waits before the next one, in units of KEY_WAIT_MS of virtual time. INPUT_MOUSE: six
 * bytes, dx and dy as little-endian 16-bit numbers (right and down are positive), wheel (down is positive), buttons
 * (MOUSE_*) as they are now.
 */
#ifndef CORE_KEYS_H
#define CORE_KEYS_H

#include "core/types.h"

enum key {
#define X(id, name, set1, set2, extended, set3, type) KEY_##id,
#include "core/keys.def"
#undef X
    KEY_COUNT
};

#define MOUSE_LEFT   1
#define MOUSE_RIGHT  2
#define MOUSE_MIDDLE 4
#define MOUSE_SIDE   8  /* the fourth button */
#define MOUSE_EXTRA  16 /* the fifth */
#define MOUSE_ALL    31
#define MOUSE_EVENT  6 /* bytes */

#define KEY_WAIT    0xff
#define KEY_WAIT_MS 10

/* What a key sends in scan code set 3, beside its make code: bits. */
#define KEY_MAKE   0
#define KEY_REPEAT 1 /* again and again while it is held */
#define KEY_BREAK  2

struct key_codes {
    const char *name;
    uint8_t set1, set2;
    bool extended;
    uint8_t set3, type3; /* set3: 0: none */
};

/* key < KEY_COUNT. */
const struct key_codes *key_codes(enum key key);
/* The key of that name: QEMU's, its second names, such as "enter" and "ctrl_l", or a number, "0x1c"; or KEY_COUNT. */
enum key key_find(const char *name, size_t len);
/* The key of QEMU's number: the code of set 1, plus 80H with the prefix; KEY_COUNT: none. */
enum key key_of_number(uint64_t number);
/* The key that types an ASCII character on a US keyboard, and whether shift is held; KEY_COUNT: none. */
enum key key_of_char(char c, bool *shift);

/* Room for all events of a combination or of a character: up to KEY_CHORD_MAX keys down, held, then up. */
#define KEY_CHORD_MAX   16
#define KEY_HOLD_MAX    60000 /* ms */
#define KEY_CHORD_BYTES (4 * KEY_CHORD_MAX + 2 * (KEY_HOLD_MAX / KEY_WAIT_MS / 255 + 1))
/* Events that press the keys in order, hold them for `hold` ms of virtual time (at most KEY_HOLD_MAX), and release them
 * in the reverse order. n <= KEY_CHORD_MAX. */
size_t key_list_events(const enum key *list, unsigned n, unsigned hold, uint8_t events[KEY_CHORD_BYTES]);
/* The same for "ctrl-alt-delete". 0: a name is unknown (*bad, *bad_len say which), or there are too many (*bad is
 * NULL). */
size_t key_chord_events(const char *text, unsigned hold, uint8_t events[KEY_CHORD_BYTES], const char **bad,
                        size_t *bad_len);
/* A character, at most KEY_CHAR_EVENTS pairs; 0: no key types it. */
#define KEY_CHAR_EVENTS 4
size_t key_char_events(char c, uint8_t events[KEY_CHORD_BYTES]);

#endif
