#include "devices/serial_mouse.h"

#include "core/snapshot.h"
#include "devices/uart16550.h"

#include <string.h>

#define FAR 100000 /* movements that nobody fetches do not add up for ever */

#define SYNC        0x40 /* of a packet's first byte alone */
#define SYNC_LEFT   0x20
#define SYNC_RIGHT  0x10
#define LAST_MIDDLE 0x20

/* ---- who it is ---- */

/* Plug and Play: version 1.0 in six bits twice, then characters less 20H: maker, product, serial number (none), class,
 * compatible device (a Logitech serial mouse), name. */
static const char identity[] = "(\x21\x44UMB0001\\\\MOUSE\\PNP0F08\\UMBRA SERIAL MOUSE";

static uint8_t hex_digit(unsigned v)
{
    return (uint8_t)(v < 10 ? '0' + v : 'A' + v - 10);
}

/* All of the identification but the digits themselves is in the sum, as it goes over the line. */
static void answer_due(void *opaque)
{
    struct serial_mouse *m = opaque;
    uint8_t bytes[2 + sizeof(identity) - 1 + 3] = {'M', '3'}, sum = 0;
    size_t n = 2;
    for (const char *c = identity; *c; c++)
        sum = (uint8_t)(sum + (bytes[n++] = (uint8_t)(*c - 0x20)));
    sum = (uint8_t)(sum + (')' - 0x20));
    bytes[n++] = (uint8_t)(hex_digit(sum >> 4) - 0x20);
    bytes[n++] = (uint8_t)(hex_digit(sum & 15) - 0x20);
    bytes[n++] = ')' - 0x20;
    uart16550_receive(m->cfg.uart, bytes, n);
}

/* ---- packets ---- */

static int32_t clamp(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : v > high ? high : v;
}

static bool has_news(const struct serial_mouse *m)
{
    return m->dx || m->dy || m->buttons != m->sent;
}

/* The movement so far, as far as a packet takes it, with `buttons`. */
static void send_packet(struct serial_mouse *m, uint8_t buttons)
{
    int32_t dx = clamp(m->dx, -128, 127), dy = clamp(m->dy, -128, 127);
    bool middle = buttons & MOUSE_MIDDLE, fourth = middle || m->sent & MOUSE_MIDDLE;
    const uint8_t bytes[4] = {(uint8_t)(SYNC | (buttons & MOUSE_LEFT ? SYNC_LEFT : 0) |
                                        (buttons & MOUSE_RIGHT ? SYNC_RIGHT : 0) | (dy >> 6 & 3) << 2 | (dx >> 6 & 3)),
                              (uint8_t)(dx & 0x3f), (uint8_t)(dy & 0x3f), middle ? LAST_MIDDLE : 0};
    uart16550_receive(m->cfg.uart, bytes, fourth ? 4 : 3);
    m->dx -= dx;
    m->dy -= dy;
    m->sent = buttons;
}

static bool can_send(const struct serial_mouse *m)
{
    return m->powered && !timer_is_armed(&m->answer);
}

static void report(struct serial_mouse *m)
{
    if (can_send(m) && has_news(m) && !uart16550_waiting(m->cfg.uart))
        send_packet(m, m->buttons);
}

void serial_mouse_idle(void *mouse)
{
    report(mouse);
}

/* A click goes behind the movement before it, and does not wait for the line. */
static void click(struct serial_mouse *m)
{
    if (!can_send(m) || uart16550_waiting(m->cfg.uart) > SERIAL_MOUSE_QUEUED)
        return;
    if (m->dx || m->dy)
        send_packet(m, m->sent);
    send_packet(m, m->buttons);
}

static int32_t get16(const uint8_t *p)
{
    return (int16_t)(p[0] | p[1] << 8);
}

void serial_mouse_input(void *mouse, const uint8_t *bytes, size_t len)
{
    struct serial_mouse *m = mouse;
    for (size_t n = 0; n + MOUSE_EVENT <= len; n += MOUSE_EVENT) {
        const uint8_t *e = bytes + n;
        if (m->powered) {
            m->dx = clamp(m->dx + get16(e), -FAR, FAR);
            m->dy = clamp(m->dy + get16(e + 2), -FAR, FAR);
        }
        m->buttons = e[5] & (MOUSE_LEFT | MOUSE_RIGHT | MOUSE_MIDDLE);
        if (m->buttons != m->sent)
            click(m);
        else
            report(m);
    }
}

/* ---- life ---- */

static void forget(struct serial_mouse *m)
{
    m->dx = m->dy = 0;
    m->sent = m->buttons = 0;
    timer_cancel(m->cfg.clock, &m->answer);
}

void serial_mouse_lines(void *mouse, bool dtr, bool rts)
{
    struct serial_mouse *m = mouse;
    bool powered = dtr && rts;
    if (powered == m->powered)
        return;
    m->powered = powered;
    forget(m);
    if (powered)
        timer_arm(m->cfg.clock, &m->answer, clock_now(m->cfg.clock) + SERIAL_MOUSE_ANSWER);
    else
        uart16550_hang_up(m->cfg.uart);
}

void serial_mouse_init(struct serial_mouse *m, const struct serial_mouse_config *cfg)
{
    memset(m, 0, sizeof(*m));
    m->cfg = *cfg;
    timer_init(&m->answer, answer_due, m);
}

void serial_mouse_reset(struct serial_mouse *m)
{
    m->powered = false;
    forget(m);
    uart16550_hang_up(m->cfg.uart);
}

void serial_mouse_save(const struct serial_mouse *m, struct snap_writer *w)
{
    snap_begin(w, "serial_mouse", 1);
    snap_put_u8(w, m->powered);
    snap_put_u8(w, m->buttons);
    snap_put_u8(w, m->sent);
    snap_put_u32(w, (uint32_t)m->dx);
    snap_put_u32(w, (uint32_t)m->dy);
    timer_save(m->cfg.clock, &m->answer, w);
    snap_end(w);
}

void serial_mouse_load(struct serial_mouse *m, struct snap_reader *r)
{
    if (!snap_expect(r, "serial_mouse", 1))
        return;
    m->powered = snap_get_u8(r) != 0;
    m->buttons = snap_get_u8(r) & 7;
    m->sent = snap_get_u8(r) & 7;
    m->dx = clamp((int32_t)snap_get_u32(r), -FAR, FAR);
    m->dy = clamp((int32_t)snap_get_u32(r), -FAR, FAR);
    timer_load(m->cfg.clock, &m->answer, r);
}
