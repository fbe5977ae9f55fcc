#include "core/keys.h"

#include <string.h>

static const struct key_codes keys[KEY_COUNT] = {
#define X(id, name, set1, set2, extended) [KEY_##id] = {name, set1, set2, extended},
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
};

const struct key_codes *key_codes(enum key key)
{
    return &keys[key];
}

static bool is_name(const char *name, const char *text, size_t len)
{
    return strlen(name) == len && !memcmp(name, text, len);
}

enum key key_find(const char *name, size_t len)
{
    for (unsigned k = 0; k < KEY_COUNT; k++)
        if (is_name(keys[k].name, name, len))
            return (enum key)k;
    for (unsigned k = 0; k < ARRAY_LEN(second_names); k++)
        if (is_name(second_names[k].name, name, len))
            return second_names[k].key;
    return KEY_COUNT;
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

static size_t chord(const enum key *list, unsigned n, uint8_t *events)
{
    size_t at = 0;
    for (unsigned k = 0; k < n; k++, at += 2) {
        events[at] = (uint8_t)list[k];
        events[at + 1] = 1;
    }
    for (unsigned k = n; k-- > 0; at += 2) {
        events[at] = (uint8_t)list[k];
        events[at + 1] = 0;
    }
    return at;
}

size_t key_chord_events(const char *text, uint8_t events[KEY_CHORD_BYTES], const char **bad, size_t *bad_len)
{
    enum key list[KEY_CHORD_MAX];
    unsigned n = 0;
    for (;;) {
        size_t len = strcspn(text, "-");
        *bad = text;
        *bad_len = len;
        if (n == KEY_CHORD_MAX || (list[n] = key_find(text, len)) == KEY_COUNT)
            return 0;
        n++;
        if (!text[len])
            return chord(list, n, events);
        text += len + 1;
    }
}

size_t key_char_events(char c, uint8_t events[KEY_CHORD_BYTES])
{
    bool shift = false;
    enum key key = key_of_char(c, &shift), list[2] = {KEY_SHIFT, key};
    if (key == KEY_COUNT)
        return 0;
    return shift ? chord(list, 2, events) : chord(&key, 1, events);
}
