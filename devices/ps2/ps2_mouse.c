#include "devices/ps2/ps2_mouse.h"

#define CMD_SCALE_1    0xe6
#define CMD_SCALE_2    0xe7
#define CMD_RESOLUTION 0xe8
#define CMD_STATUS     0xe9
#define CMD_STREAM     0xea
#define CMD_READ       0xeb
#define CMD_UNWRAP     0xec
#define CMD_WRAP       0xee
#define CMD_REMOTE     0xf0
#define CMD_IDENTIFY   0xf2
#define CMD_RATE       0xf3
#define CMD_ENABLE     0xf4
#define CMD_DISABLE    0xf5
#define CMD_DEFAULTS   0xf6
#define CMD_RESEND     0xfe
#define CMD_RESET      0xff

#define MOUSE_ERROR 0xfc

#define ID_WHEEL   3
#define ID_BUTTONS 4
#define FAR        100000 /* movements that nobody fetches do not add up for ever */

/* ---- packets ---- */

static int32_t clamp(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* 2:1 scaling of one packet's movement. */
static int32_t scaled(int32_t v)
{
    static const int8_t small[] = {0, 1, 1, 3, 6, 9};
    int32_t size = v < 0 ? -v : v;
    size = size < (int32_t)ARRAY_LEN(small) ? small[size] : 2 * size;
    return clamp(v < 0 ? -size : size, -256, 255);
}

/* Sends something that "resend" sends again. False: no room. */
static bool put_again(struct ps2_mouse *m, const uint8_t *bytes, uint8_t n)
{
    if (!ps2_queue_put(&m->out, bytes, n))
        return false;
    memcpy(m->last, bytes, n);
    m->last_len = n;
    return true;
}

/* The fourth byte: the wheel; with five buttons a nibble of it, and buttons. */
static uint8_t wheel_byte(const struct ps2_mouse *m, int32_t dz)
{
    if (m->id != ID_BUTTONS)
        return (uint8_t)dz;
    return (uint8_t)((dz & 15) | (m->buttons & MOUSE_SIDE ? 0x10 : 0) | (m->buttons & MOUSE_EXTRA ? 0x20 : 0));
}

/* The movement so far, as far as a packet takes it. */
static bool put_packet(struct ps2_mouse *m, bool may_scale)
{
    int32_t dx = clamp(m->dx, -256, 255), dy = clamp(m->dy, -256, 255), dz = clamp(m->dz, -8, 7);
    int32_t sx = may_scale && m->doubled ? scaled(dx) : dx, sy = may_scale && m->doubled ? scaled(dy) : dy;
    const uint8_t bytes[4] = {(uint8_t)(8 | (m->buttons & (MOUSE_LEFT | MOUSE_RIGHT | MOUSE_MIDDLE)) |
                                        (sx < 0 ? 0x10 : 0) | (sy < 0 ? 0x20 : 0)),
                              (uint8_t)sx, (uint8_t)sy, wheel_byte(m, dz)};
    if (!put_again(m, bytes, m->id ? 4 : 3))
        return false;
    m->dx -= dx;
    m->dy -= dy;
    m->dz = m->id ? m->dz - dz : 0;
    m->moved = m->dx || m->dy || m->dz;
    return true;
}

static void report(struct ps2_mouse *m)
{
    if (m->moved && m->reporting && !m->remote && !m->wrap && !m->out.count)
        put_packet(m, true);
}

void ps2_mouse_taken(struct ps2_mouse *m)
{
    report(m);
}

static int32_t get16(const uint8_t *p)
{
    return (int16_t)(p[0] | p[1] << 8);
}

void ps2_mouse_input(void *mouse, const uint8_t *bytes, size_t len)
{
    struct ps2_mouse *m = mouse;
    for (size_t n = 0; n + MOUSE_EVENT <= len; n += MOUSE_EVENT) {
        const uint8_t *e = bytes + n;
        m->dx = clamp(m->dx + get16(e), -FAR, FAR);
        m->dy = clamp(m->dy - get16(e + 2), -FAR, FAR); /* up is positive on the wire */
        m->dz = clamp(m->dz + (int8_t)e[4], -FAR, FAR);
        bool click = m->buttons != (e[5] & MOUSE_ALL);
        if (click && m->out.count <= PS2_QUEUE_BYTES / 2 && m->moved && m->reporting && !m->remote && !m->wrap)
            put_packet(m, true); /* where the button was still as before */
        m->buttons = e[5] & MOUSE_ALL;
        m->moved = m->moved || click || m->dx || m->dy || m->dz;
        report(m);
        if (click && m->moved && m->out.count <= PS2_QUEUE_BYTES / 2 && m->reporting && !m->remote && !m->wrap)
            put_packet(m, true); /* a click is not lost behind packets that wait */
    }
}

/* ---- commands ---- */

static void forget_movement(struct ps2_mouse *m)
{
    m->dx = m->dy = m->dz = 0;
    m->moved = false;
}

static void defaults(struct ps2_mouse *m)
{
    m->rate = 100;
    m->resolution = 2;
    m->doubled = m->remote = m->wrap = m->reporting = false;
    forget_movement(m);
    m->out.count = 0;
}

/* The first time it asks for it again, the second time it gives up. */
static void refuse(struct ps2_mouse *m)
{
    ps2_queue_put1(&m->out, m->invalid ? MOUSE_ERROR : PS2_RESEND);
    m->invalid = !m->invalid;
}

static void acknowledge(struct ps2_mouse *m)
{
    ps2_queue_put1(&m->out, PS2_ACK);
}

static void put_status(struct ps2_mouse *m)
{
    uint8_t buttons =
        (m->buttons & MOUSE_LEFT ? 4 : 0) | (m->buttons & MOUSE_MIDDLE ? 2 : 0) | (m->buttons & MOUSE_RIGHT ? 1 : 0);
    const uint8_t bytes[] = {(uint8_t)(buttons | m->doubled << 4 | m->reporting << 5 | m->remote << 6), m->resolution,
                             m->rate};
    acknowledge(m);
    put_again(m, bytes, sizeof(bytes));
}

/* Rates 200, 100, 80 turn the wheel on; then 200, 200, 80 the buttons. */
static void set_rate(struct ps2_mouse *m, uint8_t rate)
{
    bool knocks = m->rates[0] == 200 && rate == 80;
    if (knocks && m->rates[1] == 100)
        m->id = ID_WHEEL;
    else if (knocks && m->rates[1] == 200 && m->id == ID_WHEEL)
        m->id = ID_BUTTONS;
    m->rates[0] = m->rates[1];
    m->rates[1] = rate;
    m->rate = rate;
}

static void mode_command(struct ps2_mouse *m, uint8_t command)
{
    switch (command) {
    case CMD_SCALE_1:
    case CMD_SCALE_2:
        m->doubled = command == CMD_SCALE_2;
        break;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->remote = command == CMD_REMOTE;
        forget_movement(m);
        break;
    case CMD_WRAP:
    case CMD_UNWRAP:
        m->wrap = command == CMD_WRAP;
        forget_movement(m);
        break;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->reporting = command == CMD_ENABLE;
        forget_movement(m);
        break;
    case CMD_DEFAULTS:
        defaults(m);
        break;
    default:
        device_log(m->cfg.log, LOG_UNIMP, "mouse: command 0x%02x", command);
        refuse(m);
        return;
    }
    m->invalid = false;
    acknowledge(m);
}

static bool is_rate(uint8_t value)
{
    return value == 10 || value == 20 || value == 40 || value == 60 || value == 80 || value == 100 || value == 200;
}

static void parameter(struct ps2_mouse *m, uint8_t command, uint8_t value)
{
    if (command == CMD_RATE ? !is_rate(value) : value > 3) {
        device_log(m->cfg.log, LOG_GUEST_ERROR, "mouse: %s %u", command == CMD_RATE ? "rate" : "resolution", value);
        refuse(m);
        m->pending = m->invalid ? command : 0; /* once more */
        return;
    }
    if (command == CMD_RATE)
        set_rate(m, value);
    else
        m->resolution = value;
    m->invalid = false;
    forget_movement(m);
    acknowledge(m);
}

static void simple_command(struct ps2_mouse *m, uint8_t command)
{
    static const uint8_t passed[] = {PS2_PASSED, 0};
    switch (command) {
    case CMD_RESOLUTION:
    case CMD_RATE:
        m->pending = command;
        acknowledge(m);
        break;
    case CMD_STATUS:
        put_status(m);
        forget_movement(m);
        break;
    case CMD_READ:
        acknowledge(m);
        put_packet(m, false);
        break;
    case CMD_IDENTIFY:
        acknowledge(m);
        put_again(m, &m->id, 1);
        forget_movement(m);
        break;
    case CMD_RESEND:
        if (!m->last_len)
            ps2_queue_put1(&m->out, m->out.last);
        put_again(m, m->last, m->last_len);
        break;
    case CMD_RESET:
        ps2_mouse_reset(m);
        acknowledge(m);
        put_again(m, passed, sizeof(passed));
        break;
    default:
        mode_command(m, command);
        return;
    }
    m->invalid = false;
}

void ps2_mouse_command(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->pending;
    m->pending = 0;
    if (m->wrap && byte != CMD_RESET && byte != CMD_UNWRAP)
        ps2_queue_put1(&m->out, byte);
    else if (command)
        parameter(m, command, byte);
    else
        simple_command(m, byte);
}

/* ---- life ---- */

void ps2_mouse_init(struct ps2_mouse *m, const struct ps2_mouse_config *cfg)
{
    memset(m, 0, sizeof(*m));
    m->cfg = *cfg;
    m->out.ready = cfg->ready;
    ps2_mouse_reset(m);
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    defaults(m);
    m->id = m->pending = m->buttons = 0;
    m->out.last = m->last_len = 0;
    m->invalid = false;
    memset(m->rates, 0, sizeof(m->rates));
}

void ps2_mouse_save(const struct ps2_mouse *m, struct snap_writer *w)
{
    const uint8_t bytes[] = {m->id,   m->rate,      m->resolution, m->rates[0], m->rates[1], m->remote,
                             m->wrap, m->reporting, m->doubled,    m->pending,  m->buttons,  m->moved};
    snap_begin(w, "ps2_mouse", 2);
    ps2_queue_save(&m->out, w);
    snap_put_u8(w, m->invalid);
    snap_put_u8(w, m->last_len);
    snap_put_bytes(w, m->last, m->last_len);
    snap_put_bytes(w, bytes, sizeof(bytes));
    snap_put_u32(w, (uint32_t)m->dx);
    snap_put_u32(w, (uint32_t)m->dy);
    snap_put_u32(w, (uint32_t)m->dz);
    snap_end(w);
}

static int32_t load_way(struct snap_reader *r)
{
    return clamp((int32_t)snap_get_u32(r), -FAR, FAR);
}

void ps2_mouse_load(struct ps2_mouse *m, struct snap_reader *r)
{
    uint8_t bytes[12];
    if (!snap_expect(r, "ps2_mouse", 2))
        return;
    ps2_queue_load(&m->out, r);
    m->invalid = snap_get_u8(r) != 0;
    m->last_len = snap_get_u8(r);
    if (m->last_len > sizeof(m->last)) {
        m->last_len = 0;
        snap_fail(r, "mouse: a packet of more than %zu bytes", sizeof(m->last));
    }
    snap_get_bytes(r, m->last, m->last_len);
    snap_get_bytes(r, bytes, sizeof(bytes));
    m->id = bytes[0] == ID_WHEEL || bytes[0] == ID_BUTTONS ? bytes[0] : 0;
    m->rate = bytes[1];
    m->resolution = bytes[2] & 3;
    memcpy(m->rates, bytes + 3, 2);
    m->remote = bytes[5] != 0;
    m->wrap = bytes[6] != 0;
    m->reporting = bytes[7] != 0;
    m->doubled = bytes[8] != 0;
    m->pending = bytes[9];
    m->buttons = bytes[10] & MOUSE_ALL;
    m->moved = bytes[11] != 0;
    m->dx = load_way(r);
    m->dy = load_way(r);
    m->dz = load_way(r);
}
