#include "devices/ps2/ps2_keyboard.h"

#define CMD_LEDS     0xed
#define CMD_ECHO     0xee
#define CMD_SET      0xf0
#define CMD_IDENTIFY 0xf2
#define CMD_RATE     0xf3
#define CMD_ENABLE   0xf4
#define CMD_DISABLE  0xf5
#define CMD_DEFAULTS 0xf6
#define CMD_TYPES    0xf7 /* ..0xfd: of set 3's keys */
#define CMD_RESEND   0xfe
#define CMD_RESET    0xff

#define RATE_DEFAULT 0x2b /* after 500 ms, 10.9 a second */
#define BREAK_SET1   0x80
#define BREAK_SET2   0xf0
#define EXTENDED     0xe0

/* ---- codes ---- */

static bool put_sequence(struct ps2_keyboard *k, const char *bytes, unsigned n)
{
    return ps2_queue_put(&k->out, bytes, n);
}

/* The two keys that are sequences. PAUSE has no break code. */
static void put_special(struct ps2_keyboard *k, enum key key, bool down)
{
    if (key == KEY_PAUSE && down)
        put_sequence(k, k->set == 1 ? "\xe1\x1d\x45\xe1\x9d\xc5" : "\xe1\x14\x77\xe1\xf0\x14\xf0\x77",
                     k->set == 1 ? 6 : 8);
    else if (key == KEY_PRINT && k->set == 1)
        put_sequence(k, down ? "\xe0\x2a\xe0\x37" : "\xe0\xb7\xe0\xaa", 4);
    else if (key == KEY_PRINT)
        put_sequence(k, down ? "\xe0\x12\xe0\x7c" : "\xe0\xf0\x7c\xe0\xf0\x12", down ? 4 : 6);
}

static void put_key(struct ps2_keyboard *k, enum key key, bool down)
{
    const struct key_codes *c = key_codes(key);
    uint8_t bytes[3];
    unsigned n = 0;
    if (key == KEY_PAUSE || key == KEY_PRINT) {
        put_special(k, key, down);
        return;
    }
    if (c->extended)
        bytes[n++] = EXTENDED;
    if (k->set == 1) {
        bytes[n++] = down ? c->set1 : c->set1 | BREAK_SET1;
    } else {
        if (!down)
            bytes[n++] = BREAK_SET2;
        bytes[n++] = c->set2;
    }
    ps2_queue_put(&k->out, bytes, n);
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
    if (!k->scanning)
        return;
    put_key(k, key, down);
    if (down && key != KEY_PAUSE) {
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
    k->next_key = now + KEYBOARD_KEY_TIME;
    key_moves(k, (enum key)(event >> 1), event & 1);
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
        if (bytes[n] >= KEY_COUNT || k->count == KEYBOARD_KEYS)
            continue;
        k->keys[(k->first + k->count++) % KEYBOARD_KEYS] = (uint16_t)(bytes[n] << 1 | (bytes[n + 1] & 1));
    }
    feed(k);
}

/* ---- commands ---- */

static void defaults(struct ps2_keyboard *k)
{
    k->set = 2;
    k->typematic = RATE_DEFAULT;
    k->out.count = 0;
    stop_repeat(k);
}

static void parameter(struct ps2_keyboard *k, uint8_t command, uint8_t value)
{
    ps2_queue_put1(&k->out, value <= 2 || command != CMD_SET ? PS2_ACK : PS2_RESEND);
    if (command == CMD_LEDS)
        k->leds = value & 7;
    else if (command == CMD_RATE)
        k->typematic = value & 0x7f;
    else if (!value)
        ps2_queue_put1(&k->out, k->set);
    else if (value <= 2)
        k->set = value;
    else
        device_log(k->cfg.log, LOG_UNIMP, "keyboard: scan code set %u", value);
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
    case CMD_DEFAULTS:
        defaults(k);
        k->scanning = command == CMD_DEFAULTS;
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
        if (command >= CMD_TYPES && command < CMD_RESEND) {
            ps2_queue_put1(&k->out, PS2_ACK); /* nothing to do in sets 1 and 2 */
            break;
        }
        device_log(k->cfg.log, LOG_UNIMP, "keyboard: command 0x%02x", command);
        ps2_queue_put1(&k->out, PS2_RESEND);
        break;
    }
}

void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->pending;
    k->pending = 0;
    if (command && byte < 0x80) {
        parameter(k, command, byte);
    } else if (byte == CMD_LEDS || byte == CMD_RATE || byte == CMD_SET) {
        k->pending = byte;
        ps2_queue_put1(&k->out, PS2_ACK);
    } else {
        simple_command(k, byte);
    }
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
    k->leds = 0;
    k->pending = 0;
    k->out.last = 0;
    if (k->count)
        timer_arm(k->cfg.clock, &k->feed, clock_now(k->cfg.clock) + KEYBOARD_KEY_TIME);
}

void ps2_keyboard_save(const struct ps2_keyboard *k, struct snap_writer *w)
{
    snap_begin(w, "ps2_keyboard", 1);
    ps2_queue_save(&k->out, w);
    snap_put_u8(w, k->set);
    snap_put_u8(w, k->leds);
    snap_put_u8(w, k->typematic);
    snap_put_u8(w, k->scanning);
    snap_put_u8(w, k->pending);
    snap_put_u8(w, k->repeating);
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
        if (k->keys[n] >> 1 >= KEY_COUNT)
            k->keys[n] = 0;
    }
}

void ps2_keyboard_load(struct ps2_keyboard *k, struct snap_reader *r)
{
    if (!snap_expect(r, "ps2_keyboard", 1))
        return;
    ps2_queue_load(&k->out, r);
    k->set = snap_get_u8(r) == 1 ? 1 : 2;
    k->leds = snap_get_u8(r) & 7;
    k->typematic = snap_get_u8(r) & 0x7f;
    k->scanning = snap_get_u8(r) != 0;
    k->pending = snap_get_u8(r);
    k->repeating = snap_get_u8(r);
    k->next_key = snap_get_u64(r);
    load_keys(k, r);
    timer_load(k->cfg.clock, &k->feed, r);
    timer_load(k->cfg.clock, &k->repeat, r);
}
