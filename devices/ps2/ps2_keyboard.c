#include "devices/ps2/ps2_keyboard.h"

#define CMD_LEDS     0xed
#define CMD_ECHO     0xee
#define CMD_SET      0xf0
#define CMD_IDENTIFY 0xf2
#define CMD_RATE     0xf3
#define CMD_ENABLE   0xf4
#define CMD_DISABLE  0xf5
#define CMD_DEFAULTS 0xf6
#define CMD_TYPES    0xf7 /* ..0xfa: all of set 3's keys repeat, break, only make, do both */
#define CMD_TYPE     0xfb /* ..0xfd: those of a list repeat, break, only make */
#define CMD_RESEND   0xfe
#define CMD_RESET    0xff

#define RATE_DEFAULT 0x2b /* after 500 ms, 10.9 a second */
#define BREAK_SET1   0x80
#define BREAK        0xf0 /* before the code of sets 2 and 3 */
#define EXTENDED     0xe0

#define MOD_SHIFT 0x03
#define MOD_CTRL  0x0c
#define MOD_ALT   0x30

/* ---- codes ---- */

/* What the Print key is, by the keys that are held with it. */
enum { PRINT_ALONE, PRINT_SHIFTED, PRINT_SYSRQ };

static uint8_t modifier_bit(enum key key)
{
    static const enum key order[] = {KEY_SHIFT, KEY_SHIFT_R, KEY_CTRL, KEY_CTRL_R, KEY_ALT, KEY_ALT_R};
    for (unsigned k = 0; k < ARRAY_LEN(order); k++)
        if (order[k] == key)
            return (uint8_t)(1u << k);
    return 0;
}

#define PUT(k, text) ps2_queue_put(&(k)->out, text, sizeof(text) - 1)

/* PAUSE has no break code; with control it is BREAK. */
static void put_pause(struct ps2_keyboard *k)
{
    if (k->modifiers & MOD_CTRL)
        k->set == 1 ? PUT(k, "\xe0\x46\xe0\xc6") : PUT(k, "\xe0\x7e\xe0\xf0\x7e");
    else
        k->set == 1 ? PUT(k, "\xe1\x1d\x45\xe1\x9d\xc5") : PUT(k, "\xe1\x14\x77\xe1\xf0\x14\xf0\x77");
}

static void put_print(struct ps2_keyboard *k, bool down)
{
    if (down)
        k->print_as = k->modifiers & MOD_ALT                  ? PRINT_SYSRQ
                      : k->modifiers & (MOD_SHIFT | MOD_CTRL) ? PRINT_SHIFTED
                                                              : PRINT_ALONE;
    if (k->print_as == PRINT_SYSRQ && k->set == 1)
        down ? PUT(k, "\x54") : PUT(k, "\xd4");
    else if (k->print_as == PRINT_SYSRQ)
        down ? PUT(k, "\x84") : PUT(k, "\xf0\x84");
    else if (k->print_as == PRINT_SHIFTED && k->set == 1)
        down ? PUT(k, "\xe0\x37") : PUT(k, "\xe0\xb7");
    else if (k->print_as == PRINT_SHIFTED)
        down ? PUT(k, "\xe0\x7c") : PUT(k, "\xe0\xf0\x7c");
    else if (k->set == 1)
        down ? PUT(k, "\xe0\x2a\xe0\x37") : PUT(k, "\xe0\xb7\xe0\xaa");
    else
        down ? PUT(k, "\xe0\x12\xe0\x7c") : PUT(k, "\xe0\xf0\x7c\xe0\xf0\x12");
}

/* Codes of 80H and above are the same in both sets, and have no break code. */
static void put_plain(struct ps2_keyboard *k, const struct key_codes *c, bool down)
{
    uint8_t bytes[3];
    unsigned n = 0;
    if (c->set1 >= 0x80 && !down)
        return;
    if (c->extended)
        bytes[n++] = EXTENDED;
    if (k->set == 1) {
        bytes[n++] = down ? c->set1 : c->set1 | BREAK_SET1;
    } else {
        if (!down)
            bytes[n++] = BREAK;
        bytes[n++] = c->set2;
    }
    ps2_queue_put(&k->out, bytes, n);
}

static void put_set3(struct ps2_keyboard *k, enum key key, bool down)
{
    uint8_t code = key_codes(key)->set3;
    const uint8_t bytes[2] = {BREAK, code};
    if (code && down)
        ps2_queue_put1(&k->out, code);
    else if (code && k->type[key] & KEY_BREAK)
        ps2_queue_put(&k->out, bytes, sizeof(bytes));
}

static void put_key(struct ps2_keyboard *k, enum key key, bool down)
{
    if (k->set == 3)
        put_set3(k, key, down);
    else if (key == KEY_PRINT)
        put_print(k, down);
    else if (key != KEY_PAUSE)
        put_plain(k, key_codes(key), down);
    else if (down)
        put_pause(k);
}

static bool repeats(const struct ps2_keyboard *k, enum key key)
{
    const struct key_codes *c = key_codes(key);
    return k->set == 3 ? c->set3 && k->type[key] & KEY_REPEAT : key != KEY_PAUSE && c->set1 < 0x80;
}

/* ---- keys ---- */

static uint64_t repeat_delay(const struct ps2_keyboard *k)
{
    return ((k->typematic >> 5 & 3) + 1) * 250000000ull;
}

static uint64_t repeat_period(const struct ps2_keyboard *k)
{
    return ((k->typematic & 7) + 8ull) * (1u << (k->typematic >> 3 & 3)) * 4166667;
}

void ps2_keyboard_repetition(const struct ps2_keyboard *k, uint64_t *delay, uint64_t *period)
{
    *delay = repeat_delay(k);
    *period = repeat_period(k);
}

static void stop_repeat(struct ps2_keyboard *k)
{
    k->repeating = KEY_COUNT;
    timer_cancel(k->cfg.clock, &k->repeat);
}

static void repeat_due(void *opaque)
{
    struct ps2_keyboard *k = opaque;
    if (k->repeating >= KEY_COUNT)
        return;
    if (!k->out.count) /* nobody reads: it does not pile up */
        put_key(k, (enum key)k->repeating, true);
    timer_arm(k->cfg.clock, &k->repeat, clock_now(k->cfg.clock) + repeat_period(k));
}

static void key_moves(struct ps2_keyboard *k, enum key key, bool down)
{
    uint8_t bit = modifier_bit(key);
    k->modifiers = (uint8_t)(down ? k->modifiers | bit : k->modifiers & ~bit);
    if (!k->scanning)
        return;
    put_key(k, key, down);
    if (down && repeats(k, key)) {
        k->repeating = (uint8_t)key;
        timer_arm(k->cfg.clock, &k->repeat, clock_now(k->cfg.clock) + repeat_delay(k));
    } else if (key == k->repeating) {
        stop_repeat(k);
    }
}

/* Takes the next event, if it is time for it; else sees to it that it will be. */
static void feed(struct ps2_keyboard *k)
{
    uint64_t now = clock_now(k->cfg.clock);
    if (!k->count || k->out.count)
        return; /* ps2_keyboard_taken() comes */
    if (now < k->next_key) {
        timer_arm(k->cfg.clock, &k->feed, k->next_key);
        return;
    }
    uint16_t event = k->keys[k->first];
    k->first = (k->first + 1) % KEYBOARD_KEYS;
    k->count--;
    if (event & KEYBOARD_WAIT) {
        k->next_key = now + (event & 0xff) * (KEY_WAIT_MS * 1000000ull);
    } else {
        k->next_key = now + KEYBOARD_KEY_TIME;
        key_moves(k, (enum key)(event >> 1), event & 1);
    }
    if (k->count)
        timer_arm(k->cfg.clock, &k->feed, k->next_key);
}

static void feed_due(void *opaque)
{
    feed(opaque);
}

void ps2_keyboard_taken(struct ps2_keyboard *k)
{
    feed(k);
}

void ps2_keyboard_input(void *keyboard, const uint8_t *bytes, size_t len)
{
    struct ps2_keyboard *k = keyboard;
    for (size_t n = 0; n + 1 < len; n += 2) {
        bool is_wait = bytes[n] == KEY_WAIT;
        if ((bytes[n] >= KEY_COUNT && !is_wait) || k->count == KEYBOARD_KEYS)
            continue;
        k->keys[(k->first + k->count++) % KEYBOARD_KEYS] =
            is_wait ? (uint16_t)(KEYBOARD_WAIT | bytes[n + 1]) : (uint16_t)(bytes[n] << 1 | (bytes[n + 1] & 1));
    }
    feed(k);
}

/* ---- commands ---- */

static void default_types(struct ps2_keyboard *k)
{
    for (unsigned n = 0; n < KEY_COUNT; n++)
        k->type[n] = key_codes((enum key)n)->type3;
}

static void defaults(struct ps2_keyboard *k)
{
    k->set = 2;
    k->typematic = RATE_DEFAULT;
    k->out.count = 0;
    default_types(k);
    stop_repeat(k);
}

static void set_scan_codes(struct ps2_keyboard *k, uint8_t set)
{
    if (set > 3) {
        ps2_queue_put1(&k->out, PS2_RESEND);
        return;
    }
    k->out.count = 0;
    ps2_queue_put1(&k->out, PS2_ACK);
    if (!set) {
        ps2_queue_put1(&k->out, k->set);
        return;
    }
    k->set = set;
    stop_repeat(k);
}

static void parameter(struct ps2_keyboard *k, uint8_t command, uint8_t value)
{
    if (command == CMD_SET) {
        set_scan_codes(k, value);
        return;
    }
    ps2_queue_put1(&k->out, PS2_ACK);
    if (command == CMD_LEDS)
        k->leds = value & 7;
    else
        k->typematic = value & 0x7f;
}

static const uint8_t types[] = {KEY_REPEAT, KEY_BREAK, KEY_MAKE, KEY_REPEAT | KEY_BREAK};

static void set_all_types(struct ps2_keyboard *k, uint8_t type)
{
    memset(k->type, type, sizeof(k->type));
    k->out.count = 0;
    ps2_queue_put1(&k->out, PS2_ACK);
}

/* A list of keys begins; none are scanned until it ends. */
static void begin_types(struct ps2_keyboard *k, uint8_t command)
{
    k->pending = command;
    k->scanned = k->scanning;
    k->scanning = false;
    k->out.count = 0;
    stop_repeat(k);
    ps2_queue_put1(&k->out, PS2_ACK);
}

/* The next of the list, by its code of set 3. False: the byte is none, and ends the list. */
static bool take_type(struct ps2_keyboard *k, uint8_t command, uint8_t code)
{
    for (unsigned n = 0; n < KEY_COUNT; n++)
        if (code && key_codes((enum key)n)->set3 == code) {
            k->type[n] = types[command - CMD_TYPE];
            k->pending = command;
            ps2_queue_put1(&k->out, PS2_ACK);
            return true;
        }
    k->scanning = k->scanned;
    return false;
}

static void simple_command(struct ps2_keyboard *k, uint8_t command)
{
    static const uint8_t identity[] = {PS2_ACK, 0xab, 0x83}, passed[] = {PS2_ACK, PS2_PASSED};
    switch (command) {
    case CMD_ECHO:
        ps2_queue_put1(&k->out, CMD_ECHO);
        break;
    case CMD_IDENTIFY:
        ps2_queue_put(&k->out, identity, sizeof(identity));
        break;
    case CMD_ENABLE:
        k->out.count = 0;
        k->scanning = true;
        ps2_queue_put1(&k->out, PS2_ACK);
        break;
    case CMD_DISABLE:
    case CMD_DEFAULTS: /* goes on scanning if it did */
        defaults(k);
        k->scanning &= command == CMD_DEFAULTS;
        ps2_queue_put1(&k->out, PS2_ACK);
        break;
    case CMD_RESEND:
        ps2_queue_put1(&k->out, k->out.last);
        break;
    case CMD_RESET:
        ps2_keyboard_reset(k);
        ps2_queue_put(&k->out, passed, sizeof(passed));
        break;
    default:
        device_log(k->cfg.log, LOG_UNIMP, "keyboard: command 0x%02x", command);
        ps2_queue_put1(&k->out, PS2_RESEND);
        break;
    }
}

static void begin_command(struct ps2_keyboard *k, uint8_t byte)
{
    if (byte == CMD_LEDS || byte == CMD_RATE || byte == CMD_SET) {
        k->pending = byte;
        ps2_queue_put1(&k->out, PS2_ACK);
    } else if (byte >= CMD_TYPES && byte < CMD_TYPE) {
        set_all_types(k, types[byte - CMD_TYPES]);
    } else if (byte >= CMD_TYPE && byte < CMD_RESEND) {
        begin_types(k, byte);
    } else {
        simple_command(k, byte);
    }
}

void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->pending;
    k->pending = 0;
    if (command >= CMD_TYPE && take_type(k, command, byte))
        return;
    if (command && command < CMD_TYPE && byte < 0x80)
        parameter(k, command, byte);
    else
        begin_command(k, byte);
}

/* ---- life ---- */

void ps2_keyboard_init(struct ps2_keyboard *k, const struct ps2_keyboard_config *cfg)
{
    memset(k, 0, sizeof(*k));
    k->cfg = *cfg;
    k->out.ready = cfg->ready;
    timer_init(&k->feed, feed_due, k);
    timer_init(&k->repeat, repeat_due, k);
    ps2_keyboard_reset(k);
}

/* Events that wait stay: they are what will be typed. */
void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    defaults(k);
    k->scanning = true;
    k->scanned = false;
    k->leds = 0;
    k->pending = k->print_as = 0;
    k->out.last = 0;
    if (k->count)
        timer_arm(k->cfg.clock, &k->feed, clock_now(k->cfg.clock) + KEYBOARD_KEY_TIME);
}

void ps2_keyboard_save(const struct ps2_keyboard *k, struct snap_writer *w)
{
    snap_begin(w, "ps2_keyboard", 2);
    ps2_queue_save(&k->out, w);
    snap_put_u8(w, k->set);
    snap_put_u8(w, k->leds);
    snap_put_u8(w, k->typematic);
    snap_put_u8(w, k->scanning);
    snap_put_u8(w, k->scanned);
    snap_put_u8(w, k->pending);
    snap_put_u8(w, k->repeating);
    snap_put_u8(w, k->modifiers);
    snap_put_u8(w, k->print_as);
    snap_put_u8(w, KEY_COUNT);
    snap_put_bytes(w, k->type, KEY_COUNT);
    snap_put_u64(w, k->next_key);
    snap_put_u32(w, k->count);
    for (unsigned n = 0; n < k->count; n++)
        snap_put_u16(w, k->keys[(k->first + n) % KEYBOARD_KEYS]);
    timer_save(k->cfg.clock, &k->feed, w);
    timer_save(k->cfg.clock, &k->repeat, w);
    snap_end(w);
}

static void load_keys(struct ps2_keyboard *k, struct snap_reader *r)
{
    k->first = 0;
    k->count = snap_get_u32(r);
    if (k->count > KEYBOARD_KEYS) {
        k->count = 0;
        snap_fail(r, "keyboard: more than %u keys wait", KEYBOARD_KEYS);
    }
    for (unsigned n = 0; n < k->count; n++) {
        k->keys[n] = snap_get_u16(r);
        if (k->keys[n] & KEYBOARD_WAIT)
            k->keys[n] &= KEYBOARD_WAIT | 0xff;
        else if (k->keys[n] >> 1 >= KEY_COUNT)
            k->keys[n] = 0;
    }
}

void ps2_keyboard_load(struct ps2_keyboard *k, struct snap_reader *r)
{
    if (!snap_expect(r, "ps2_keyboard", 2))
        return;
    ps2_queue_load(&k->out, r);
    k->set = snap_get_u8(r);
    if (!k->set || k->set > 3)
        k->set = 2;
    k->leds = snap_get_u8(r) & 7;
    k->typematic = snap_get_u8(r) & 0x7f;
    k->scanning = snap_get_u8(r) != 0;
    k->scanned = snap_get_u8(r) != 0;
    k->pending = snap_get_u8(r);
    if (k->pending >= CMD_RESEND)
        k->pending = 0;
    k->repeating = snap_get_u8(r);
    k->modifiers = snap_get_u8(r);
    k->print_as = snap_get_u8(r);
    if (snap_get_u8(r) != KEY_COUNT) {
        snap_fail(r, "keyboard: of another number of keys");
        return;
    }
    snap_get_bytes(r, k->type, KEY_COUNT);
    k->next_key = snap_get_u64(r);
    load_keys(k, r);
    timer_load(k->cfg.clock, &k->feed, r);
    timer_load(k->cfg.clock, &k->repeat, r);
}
