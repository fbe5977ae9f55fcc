#include "core/keys.h"

#include <stdlib.h>
#include <string.h>

static const struct key_codes keys[KEY_COUNT] = {
#define X(id, name, set1, set2, extended, set3, type) [KEY_##id] = {name, set1, set2, extended, set3, type},
#include "core/keys.def"
#undef X
};

static const struct {
    const char *name;
    enum key key;
} second_names[] = {
    {"enter", KEY_RET},    {"return", KEY_RET},      {"space", KEY_SPC},
    {"ctrl_l", KEY_CTRL},  {"control", KEY_CTRL},    {"shift_l", KEY_SHIFT},
    {"alt_l", KEY_ALT},    {"altgr", KEY_ALT_R},     {"period", KEY_DOT},
    {"escape", KEY_ESC},   {"sysrq", KEY_PRINT},     {"compose", KEY_MENU},
    {"page_up", KEY_PGUP}, {"page_down", KEY_PGDN},  {"asterisk", KEY_KP_MULTIPLY},
    {"super", KEY_META_L}, {"delete_r", KEY_DELETE}, {"grave", KEY_GRAVE},
    {"<", KEY_LESS},
};

const struct key_codes *key_codes(enum key key)
{
    return &keys[key];
}

static bool is_name(const char *name, const char *text, size_t len)
{
    return strlen(name) == len && !memcmp(name, text, len);
}

enum key key_of_number(uint64_t number)
{
    for (unsigned k = 0; k < KEY_COUNT; k++)
        if (keys[k].set1 < 0x80 && (keys[k].set1 | (keys[k].extended ? 0x80u : 0)) == number)
            return (enum key)k;
    return KEY_COUNT;
}

/* "0x1c" */
static enum key find_number(const char *text, size_t len)
{
    char copy[8] = "", *end;
    if (len < 3 || len >= sizeof copy || text[0] != '0' || (text[1] != 'x' && text[1] != 'X'))
        return KEY_COUNT;
    memcpy(copy, text, len);
    unsigned long number = strtoul(copy, &end, 16);
    return *end ? KEY_COUNT : key_of_number(number);
}

enum key key_find(const char *name, size_t len)
{
    for (unsigned k = 0; k < KEY_COUNT; k++)
        if (is_name(keys[k].name, name, len))
            return (enum key)k;
    for (unsigned k = 0; k < ARRAY_LEN(second_names); k++)
        if (is_name(second_names[k].name, name, len))
            return second_names[k].key;
    return find_number(name, len);
}

/* Character pairs of keys that are not letters: without and with shift. */
static const struct {
    char plain, shifted;
    enum key key;
} signs[] = {
    {'1', '!', KEY_1},
    {'2', '@', KEY_2},
    {'3', '#', KEY_3},
    {'4', '$', KEY_4},
    {'5', '%', KEY_5},
    {'6', '^', KEY_6},
    {'7', '&', KEY_7},
    {'8', '*', KEY_8},
    {'9', '(', KEY_9},
    {'0', ')', KEY_0},
    {'-', '_', KEY_MINUS},
    {'=', '+', KEY_EQUAL},
    {'[', '{', KEY_BRACKET_LEFT},
    {']', '}', KEY_BRACKET_RIGHT},
    {';', ':', KEY_SEMICOLON},
    {'\'', '"', KEY_APOSTROPHE},
    {'`', '~', KEY_GRAVE},
    {'\\', '|', KEY_BACKSLASH},
    {',', '<', KEY_COMMA},
    {'.', '>', KEY_DOT},
    {'/', '?', KEY_SLASH},
    {' ', 0, KEY_SPC},
    {'\n', 0, KEY_RET},
    {'\r', 0, KEY_RET},
    {'\t', 0, KEY_TAB},
    {'\b', 0, KEY_BACKSPACE},
    {'\x7f', 0, KEY_BACKSPACE},
    {'\x1b', 0, KEY_ESC},
};

enum key key_of_char(char c, bool *shift)
{
    bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z')) {
        char name = upper ? (char)(c - 'A' + 'a') : c;
        *shift = upper;
        return key_find(&name, 1);
    }
    for (unsigned k = 0; c && k < ARRAY_LEN(signs); k++)
        if (signs[k].plain == c || signs[k].shifted == c) {
            *shift = signs[k].shifted == c;
            return signs[k].key;
        }
    return KEY_COUNT;
}

static size_t put_moves(const enum key *list, unsigned n, bool down, uint8_t *events)
{
    for (unsigned k = 0; k < n; k++) {
        events[2 * k] = (uint8_t)list[down ? k : n - 1 - k];
        events[2 * k + 1] = down;
    }
    return 2 * n;
}

size_t key_list_events(const enum key *list, unsigned n, unsigned hold, uint8_t events[KEY_CHORD_BYTES])
{
    size_t at = put_moves(list, n, true, events);
    for (unsigned left = hold / KEY_WAIT_MS; left; at += 2) {
        unsigned part = left < 255 ? left : 255;
        events[at] = KEY_WAIT;
        events[at + 1] = (uint8_t)part;
        left -= part;
    }
    return at + put_moves(list, n, false, events + at);
}

size_t key_chord_events(const char *text, unsigned hold, uint8_t events[KEY_CHORD_BYTES], const char **bad,
                        size_t *bad_len)
{
    enum key list[KEY_CHORD_MAX];
    unsigned n = 0;
    for (;;) {
        size_t len = strcspn(text, "-");
        *bad = n < KEY_CHORD_MAX ? text : NULL;
        *bad_len = len;
        if (n == KEY_CHORD_MAX || (list[n] = key_find(text, len)) == KEY_COUNT)
            return 0;
        n++;
        if (!text[len])
            return key_list_events(list, n, hold, events);
        text += len + 1;
    }
}

size_t key_char_events(char c, uint8_t events[KEY_CHORD_BYTES])
{
    bool shift = false;
    enum key key = key_of_char(c, &shift), list[2] = {KEY_SHIFT, key};
    if (key == KEY_COUNT)
        return 0;
    return shift ? key_list_events(list, 2, 0, events) : key_list_events(&key, 1, 0, events);
}
