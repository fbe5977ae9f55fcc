#include "frontends/cli/chardev.h"

#include "core/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CTRL_U    21
#define BACKSPACE 8
#define DELETE    127
#define PIPED     4096u /* bytes that may wait for room, where the other end can be made to wait instead */

/* ---- input: to the one that has the focus ---- */

/* Bytes that this one takes now. */
static size_t user_room(const struct chardev *d, const struct chardev_user *u)
{
    struct machine *m = d->all->console->machine;
    return u->kind == CHARDEV_SERIAL    ? machine_serial_room(m, u->port)
           : u->kind == CHARDEV_CONSOLE ? machine_console_room(m, d->spec->id)
                                        : CHARDEV_LINE;
}

static void user_give(const struct chardev *d, const struct chardev_user *u, const uint8_t *bytes, size_t len)
{
    struct machine *m = d->all->console->machine;
    if (u->kind == CHARDEV_SERIAL)
        machine_serial_input(m, u->port, bytes, len);
    else if (u->kind == CHARDEV_CONSOLE)
        machine_console_input(m, d->spec->id, bytes, len);
    else if (d->all->monitor.typed)
        d->all->monitor.typed(d->all->monitor.ctx, bytes, len);
}

static void user_feed(const struct chardev *d, struct chardev_user *u)
{
    size_t room = u->count ? user_room(d, u) : 0, n = u->count < room ? u->count : room;
    if (!n || u->kind == CHARDEV_MONITOR)
        return;
    user_give(d, u, u->pending, n);
    u->count -= n;
    memmove(u->pending, u->pending + n, u->count);
}

static bool pend(struct chardev_user *u, uint8_t byte)
{
    if (u->count == u->room) {
        size_t room = u->room ? 2 * u->room : 256;
        uint8_t *grown = realloc(u->pending, room);
        if (!grown)
            return false;
        u->pending = grown;
        u->room = room;
    }
    u->pending[u->count++] = byte;
    return true;
}

static void echo(struct chardev *d, const char *text)
{
    chardev_put(d, (const uint8_t *)text, strlen(text));
    outlet_flush(&d->out);
}

/* A terminal in raw mode edits nothing: lines for a monitor are edited here. */
static void edit_line(struct chardev *d, struct chardev_user *u, uint8_t byte)
{
    const char shown[2] = {(char)byte, 0};
    if (byte == '\r' || byte == '\n') {
        echo(d, "\n");
        if (pend(u, '\n'))
            user_give(d, u, u->pending, u->count);
        u->count = 0;
    } else if (byte == DELETE || byte == BACKSPACE) {
        if (u->count)
            echo(d, "\b \b");
        u->count -= u->count != 0;
    } else if (byte == CTRL_U) {
        for (; u->count; u->count--)
            echo(d, "\b \b");
    } else if (byte >= ' ' && u->count < CHARDEV_LINE && pend(u, byte)) {
        echo(d, shown);
    }
}

static void give_byte(struct chardev *d, uint8_t byte)
{
    struct chardev_user *u = &d->user[d->focus];
    if (!d->users)
        return;
    if (u->kind == CHARDEV_MONITOR && d->edits)
        edit_line(d, u, byte);
    else if (u->kind == CHARDEV_MONITOR)
        user_give(d, u, &byte, 1);
    else if (u->count < CHARDEV_TYPED)
        pend(u, byte);
}

/* ---- Ctrl-A ---- */

static const char *user_name(const struct chardev_user *u)
{
    static const char *const ports[SERIALS_MAX] = {"COM1", "COM2", "COM3", "COM4"};
    return u->kind == CHARDEV_SERIAL ? ports[u->port] : u->kind == CHARDEV_CONSOLE ? "virtual console" : "monitor";
}

static void say(struct chardev *d, const char *text)
{
    if (d->spec->kind == CHARDEV_STDIO)
        fprintf(stderr, "\r\n%s\r\n", text);
    else
        chardev_put(d, (const uint8_t *)text, strlen(text));
}

static void help(struct chardev *d)
{
    char text[256], key[8];
    snprintf(key, sizeof key, "Ctrl-%c", d->escape_key + '@');
    int n = snprintf(text, sizeof text, "%s h: this help, %s x: leave the emulator, %s %s: send %s", key, key, key, key,
                     key);
    if (d->users > 1)
        snprintf(text + n, sizeof text - (size_t)n, ", %s c: change over; now at the %s", key,
                 user_name(&d->user[d->focus]));
    say(d, text);
}

static void monitor_focus(const struct chardev *d)
{
    const struct chardev_monitor *m = &d->all->monitor;
    if (d->users && d->user[d->focus].kind == CHARDEV_MONITOR && m->focus)
        m->focus(m->ctx);
}

static void change_over(struct chardev *d)
{
    if (d->users < 2) {
        help(d);
        return;
    }
    d->focus = (d->focus + 1) % d->users;
    monitor_focus(d);
}

static void after_escape(struct chardev *d, uint8_t byte)
{
    if (byte == 'x')
        d->all->console->quit = true;
    else if (byte == 'c')
        change_over(d);
    else if (byte == d->escape_key)
        give_byte(d, byte);
    else
        help(d);
}

void chardev_take(struct chardev *d, const uint8_t *bytes, size_t len)
{
    for (size_t k = 0; k < len; k++) {
        if (d->escape) {
            d->escape = false;
            after_escape(d, bytes[k]);
        } else if (d->escapes && bytes[k] == d->escape_key) {
            d->escape = true;
        } else {
            give_byte(d, bytes[k]);
        }
    }
    for (unsigned k = 0; k < d->users; k++)
        user_feed(d, &d->user[k]);
}

/* A terminal is always read, since Ctrl-A x must get through. */
size_t chardev_room(const struct chardev *d)
{
    const struct chardev_user *u = &d->user[d->focus];
    return !d->users || d->edits || u->kind == CHARDEV_MONITOR ? PIPED : PIPED - (u->count < PIPED ? u->count : PIPED);
}

/* ---- output ---- */

void chardev_put(struct chardev *d, const uint8_t *bytes, size_t len)
{
    if (!d)
        return;
    if (d->spec->kind == CHARDEV_STDIO || d->spec->kind == CHARDEV_FILE)
        outlet_put(&d->out, bytes, len);
    else
        chardev_end_send(d, bytes, len);
}

struct chardev *chardevs_find(struct chardevs *c, const char *id)
{
    for (unsigned k = 0; id && k < c->count; k++)
        if (!strcmp(c->dev[k].spec->id, id))
            return &c->dev[k];
    return NULL;
}

void chardevs_write(struct chardevs *c, const char *id, const uint8_t *bytes, size_t len)
{
    chardev_put(chardevs_find(c, id), bytes, len);
}

void chardevs_flush(struct chardevs *c)
{
    for (unsigned k = 0; k < c->count; k++) {
        outlet_flush(&c->dev[k].out);
        chardev_end_flush(&c->dev[k]);
    }
}

/* ---- the console's part ---- */

static void serve(void *ctx)
{
    struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        outlet_flush(&d->out);
        chardev_end_serve(d);
        for (unsigned n = 0; n < d->users; n++)
            user_feed(d, &d->user[n]);
    }
}

static bool holds(void *ctx)
{
    const struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++)
        if (c->dev[k].waits || outlet_is_full(&c->dev[k].out))
            return true;
    return false;
}

static unsigned fds(void *ctx, struct pollfd *p, unsigned room)
{
    const struct chardevs *c = ctx;
    unsigned n = 0;
    for (unsigned k = 0; k < c->count && n < room; k++) {
        const struct chardev *d = &c->dev[k];
        if (outlet_is_waiting(&d->out))
            p[n++] = (struct pollfd){.fd = d->out.fd, .events = POLLOUT};
        else
            n += chardev_end_fds(d, p + n, room - n);
    }
    return n;
}

static bool is_live(void *ctx)
{
    return chardevs_are_live(ctx);
}

bool chardevs_are_live(const struct chardevs *c)
{
    for (unsigned k = 0; k < c->count; k++)
        if (c->dev[k].users && (c->dev[k].listener.fd >= 0 || c->dev[k].fd >= 0))
            return true;
    return false;
}

/* What is typed at the terminal. */
static void typed(void *ctx, const void *bytes, size_t len)
{
    struct chardevs *c = ctx;
    chardev_take(c->terminal, bytes, len);
}

static size_t typed_room(void *ctx)
{
    const struct chardevs *c = ctx;
    return chardev_room(c->terminal);
}

/* ---- life ---- */

static bool open_one(struct chardev *d, const struct options *o, struct error *e)
{
    if (d->spec->kind == CHARDEV_FILE)
        return outlet_open_file(&d->out, d->spec->path, d->spec->append, e);
    if (d->spec->kind == CHARDEV_STDIO)
        outlet_open_stdout(&d->out, o->debug);
    return chardev_end_open(d, e);
}

static void add_user(struct chardev *d, enum chardev_user_kind kind, unsigned port)
{
    bool taken = d && d == d->all->terminal && kind != CHARDEV_MONITOR && !d->all->console->may_read;
    if (d && !taken && d->users < CHARDEV_USERS)
        d->user[d->users++] = (struct chardev_user){.kind = kind, .port = port};
}

/* In this order Ctrl-A c goes through them. */
static void connect_users(struct chardevs *c, const struct options *o)
{
    for (unsigned k = 0; k < o->serials; k++) {
        c->serial[k] = chardevs_find(c, o->serial[k]);
        add_user(c->serial[k], CHARDEV_SERIAL, k);
    }
    for (unsigned k = 0; k < o->machine.device_count; k++)
        add_user(chardevs_find(c, o->machine.device[k].port), CHARDEV_CONSOLE, 0);
    for (unsigned k = 0; k < o->controls; k++)
        if (!strncmp(o->control[k].where, "stdio", 5))
            add_user(c->terminal, CHARDEV_MONITOR, 0);
    c->debugcon = chardevs_find(c, o->debugcon);
}

/* A plain -serial stdio leaves Ctrl-C to the program, as with QEMU. */
static bool terminal_signals(const struct chardev *d, const struct options *o)
{
    bool plain = !strcmp(d->spec->id, "stdio") && d->users == 1 && d->user[0].kind == CHARDEV_SERIAL && !o->nographic;
    return d->spec->signals || plain;
}

bool chardevs_open(struct chardevs *c, const struct options *o, struct console *console, struct error *e)
{
    *c = (struct chardevs){.console = console};
    for (unsigned k = 0; k < o->chardevs; k++) {
        struct chardev *d = &c->dev[c->count++];
        *d = (struct chardev){.spec = &o->chardev[k],
                              .all = c,
                              .out = {.fd = -1},
                              .listener.fd = -1,
                              .escape_key = o->escape_key ? o->escape_key : 1,
                              .fd = -1,
                              .write_fd = -1,
                              .slave = -1};
        if (!open_one(d, o, e))
            return false;
        if (d->spec->kind == CHARDEV_STDIO)
            c->terminal = d;
    }
    connect_users(c, o);
    for (unsigned k = 0; k < c->count; k++)
        c->dev[k].escapes = c->dev[k].users > 1;
    const struct console_part part = {.ctx = c, .serve = serve, .holds = holds, .fds = fds, .is_live = is_live};
    console_add_part(console, &part);
    console->chardevs = c;
    if (c->terminal && c->terminal->users)
        console_read_for(console, typed, typed_room, c, terminal_signals(c->terminal, o));
    if (console->is_raw)
        c->terminal->edits = c->terminal->escapes = true;
    return true;
}

void chardevs_set_monitor(struct chardevs *c, const struct chardev_monitor *monitor)
{
    c->monitor = *monitor;
    if (c->terminal)
        monitor_focus(c->terminal);
}

bool chardevs_close(struct chardevs *c)
{
    bool ok = true;
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        chardev_end_close(d);
        ok &= outlet_close(&d->out, console_gives_up, c->console);
        for (unsigned n = 0; n < d->users; n++)
            free(d->user[n].pending);
    }
    c->count = 0;
    return ok;
}
