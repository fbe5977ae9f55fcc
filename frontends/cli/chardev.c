#include "frontends/cli/chardev.h"

#include "frontends/cli/properties.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_NOW     1024u
#define CLIENT_PIECE 512

/* ---- the option ---- */

static bool is_on(const char *value)
{
    return !value || !strcmp(value, "on");
}

/* What QEMU's users give and what makes no difference here. The terminal is shared with a monitor in any case. */
static bool is_harmless(const struct chardev_spec *s, const char *key, const char *value)
{
    static const char *const off[] = {"signal", "mux", "telnet", "nodelay", "ipv6", "reconnect"};
    if (value && ((!strcmp(key, "mux") && s->kind == CHARDEV_STDIO) || !strcmp(key, "nodelay") || !strcmp(key, "ipv4")))
        return true;
    for (size_t k = 0; k < ARRAY_LEN(off); k++)
        if (value && !strcmp(key, off[k]))
            return !strcmp(value, "off") || !strcmp(value, "0");
    return false;
}

static bool property(struct chardev_spec *s, const char *key, const char *value)
{
    bool is_switch = !value || !strcmp(value, "on") || !strcmp(value, "off");
    if (!strcmp(key, "id") && value)
        s->id = value;
    else if (!strcmp(key, "path") && value)
        s->path = value;
    else if (!strcmp(key, "host") && value)
        s->host = value;
    else if (!strcmp(key, "port") && value)
        s->port = value;
    else if (!strcmp(key, "server") && is_switch)
        s->server = is_on(value);
    else if (!strcmp(key, "wait") && is_switch)
        s->no_wait = !is_on(value);
    else if (!strcmp(key, "nowait") && is_switch)
        s->no_wait = is_on(value);
    else
        return is_harmless(s, key, value);
    return true;
}

static bool kind_parse(const char *name, enum chardev_kind *out)
{
    static const char *const names[] = {
        [CHARDEV_NULL] = "null", [CHARDEV_STDIO] = "stdio", [CHARDEV_FILE] = "file", [CHARDEV_SOCKET] = "socket"};
    for (unsigned k = 0; k < ARRAY_LEN(names); k++)
        if (name && !strcmp(name, names[k])) {
            *out = k;
            return true;
        }
    return false;
}

static bool is_known(const struct options *o, const char *id)
{
    for (unsigned k = 0; k < o->chardevs; k++)
        if (!strcmp(o->chardev[k].id, id))
            return true;
    return false;
}

static bool chardev_add(struct options *o, const struct chardev_spec *s, struct error *e)
{
    if (o->chardevs == CHARDEVS_MAX)
        return error_set(e, "-chardev: more than %d", CHARDEVS_MAX);
    o->chardev[o->chardevs++] = *s;
    return true;
}

static bool socket_place(struct chardev_spec *s, struct error *e)
{
    int n = 0;
    if (!s->path == !s->port)
        return error_set(e, "-chardev socket: path=, or host= and port=, is missing");
    if (!s->server)
        return error_set(e, "-chardev socket: only server=on (others connect to it)");
    if (s->path)
        n = snprintf(s->place, LISTENER_PLACE_MAX, "unix:%s", s->path);
    else
        n = snprintf(s->place, LISTENER_PLACE_MAX, "tcp:%s:%s", s->host ? s->host : "", s->port);
    return n < LISTENER_PLACE_MAX || error_set(e, "-chardev socket: the place is too long");
}

bool chardev_option_parse(struct options *o, char *text, struct error *e)
{
    struct chardev_spec s = {0};
    const char *kind = property_next(&text);
    if (!kind_parse(kind, &s.kind))
        return error_set(e, "-chardev %s: expected stdio, file, socket or null", kind ? kind : "");
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!property(&s, p, value))
            return error_set(e, "-chardev %s: '%s' is unknown or has no such value", kind, p);
    }
    if (!s.id || is_known(o, s.id))
        return error_set(e, "-chardev %s: an id of its own is missing (id=NAME)", kind);
    if (s.kind == CHARDEV_FILE && !s.path)
        return error_set(e, "-chardev %s: path= is missing", kind);
    if (s.kind == CHARDEV_SOCKET && !socket_place(&s, e))
        return false;
    return chardev_add(o, &s, e);
}

bool chardev_of_serial(struct options *o, unsigned port, const char *where, struct error *e)
{
    static const char *const ids[SERIALS_MAX] = {"COM1 by -serial", "COM2 by -serial", "COM3 by -serial",
                                                 "COM4 by -serial"}; /* that no option has */
    struct chardev_spec s = {.id = ids[port], .kind = CHARDEV_SOCKET, .serial = port + 1};
    bool waits;
    if (!listener_split(where, s.place, &waits) || !strchr(where, ','))
        return error_set(e,
                         "-serial %s: expected unix:PATH,server or tcp:[HOST]:PORT,server, and perhaps ,nowait (others "
                         "connect to it)",
                         where);
    s.no_wait = !waits;
    o->serial[port] = (struct sink_spec){SINK_CHARDEV, s.id};
    return chardev_add(o, &s, e);
}

/* ---- who uses which ---- */

static struct chardev_spec *spec_find(struct options *o, const char *id)
{
    for (unsigned k = 0; k < o->chardevs; k++)
        if (!strcmp(o->chardev[k].id, id))
            return &o->chardev[k];
    return NULL;
}

/* For `option` alone. NULL: there is none, or it is another's. */
static struct chardev_spec *spec_take(struct options *o, const char *option, const char *id, struct error *e)
{
    struct chardev_spec *s = spec_find(o, id);
    if (!s || s->taken) {
        error_set(e, "%s: there is no -chardev with id=%s%s", option, id, s ? " that is free" : "");
        return NULL;
    }
    s->taken = true;
    return s;
}

/* A stream of a serial port (`port`, from 1) or of the debug console: only sockets need more than a sink does. */
static bool sink_resolve(struct options *o, const char *option, struct sink_spec *sink, unsigned port, struct error *e)
{
    static const enum sink_kind kinds[] = {[CHARDEV_NULL] = SINK_NULL,
                                           [CHARDEV_STDIO] = SINK_STDIO,
                                           [CHARDEV_FILE] = SINK_FILE,
                                           [CHARDEV_SOCKET] = SINK_CHARDEV};
    if (sink->kind != SINK_CHARDEV)
        return true;
    struct chardev_spec *s = spec_take(o, option, sink->path, e);
    if (!s)
        return false;
    s->serial = port;
    s->handed_over = s->kind != CHARDEV_SOCKET;
    *sink = (struct sink_spec){kinds[s->kind], s->handed_over ? s->path : s->id};
    return true;
}

/* -mon: the monitor listens itself. */
static bool control_resolve(struct options *o, struct control_spec *c, struct error *e)
{
    if (strncmp(c->where, CHARDEV_WHERE, strlen(CHARDEV_WHERE)) != 0)
        return true;
    struct chardev_spec *s = spec_find(o, c->where + strlen(CHARDEV_WHERE));
    bool shared = s && s->kind == CHARDEV_STDIO; /* COM1 may have it as well */
    if (!shared && !(s = spec_take(o, "-mon", c->where + strlen(CHARDEV_WHERE), e)))
        return false;
    s->taken = s->handed_over = true;
    if (s->kind != CHARDEV_STDIO && s->kind != CHARDEV_SOCKET)
        return error_set(e, "-mon chardev=%s: a monitor needs a socket or the terminal", s->id);
    if (s->kind == CHARDEV_SOCKET)
        strcat(s->place, s->no_wait ? ",server,nowait" : ",server");
    c->where = s->kind == CHARDEV_STDIO ? "stdio" : s->place;
    return true;
}

bool chardevs_resolve(struct options *o, struct error *e)
{
    for (unsigned k = 0; k < SERIALS_MAX; k++)
        if (!sink_resolve(o, "-serial", &o->serial[k], k + 1, e))
            return false;
    if (!sink_resolve(o, "-debugcon", &o->debugcon, 0, e))
        return false;
    for (unsigned k = 0; k < o->machine.device_count; k++)
        if (o->machine.device[k].port && !spec_take(o, "-device virtconsole", o->machine.device[k].port, e))
            return false;
    for (unsigned k = 0; k < o->controls; k++)
        if (!control_resolve(o, &o->control[k], e))
            return false;
    return true;
}

bool chardev_has_terminal(const struct options *o)
{
    for (unsigned k = 0; k < o->chardevs; k++)
        if (o->chardev[k].kind == CHARDEV_STDIO && !o->chardev[k].handed_over)
            return true;
    return false;
}

bool chardev_check(const struct options *o, struct error *e)
{
    bool monitor = false;
    for (unsigned k = 0; k < o->controls; k++)
        monitor |= !strcmp(o->control[k].where, "stdio");
    unsigned port = options_terminal_port(o);
    if (!chardev_has_terminal(o) || (!monitor && !port))
        return true;
    return monitor ? error_set(e, "-chardev stdio: the terminal is the monitor's")
                   : error_set(e, "-chardev stdio: the terminal is COM%u's (-serial)", port);
}

/* ---- sockets ---- */

static void client_drop(struct chardev *d)
{
    close(d->fd);
    d->fd = -1;
    d->backlog_len = 0;
}

static void client_flush(struct chardev *d)
{
    if (d->fd < 0 || !d->backlog_len)
        return;
    ssize_t n = send(d->fd, d->backlog, d->backlog_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        client_drop(d);
    if (n <= 0)
        return;
    d->backlog_len -= (size_t)n;
    memmove(d->backlog, d->backlog + n, d->backlog_len);
}

static void client_send(struct chardev *d, const uint8_t *bytes, size_t len)
{
    if (d->fd < 0)
        return;
    if (len > CHARDEV_BACKLOG - d->backlog_len)
        len = CHARDEV_BACKLOG - d->backlog_len;
    memcpy(d->backlog + d->backlog_len, bytes, len);
    d->backlog_len += len;
    if (memchr(bytes, '\n', len) || d->backlog_len >= SEND_NOW) /* the rest when the machine is looked after */
        client_flush(d);
}

/* What is not taken yet, before the socket is closed: to a client that is there and reads. */
static void client_finish(struct chardev *d)
{
    for (unsigned tries = 0; d->fd >= 0 && d->backlog_len && tries < 20; tries++) {
        struct pollfd p = {.fd = d->fd, .events = POLLOUT};
        poll(&p, 1, 50);
        client_flush(d);
    }
}

/* A client of a serial port waits for the guest to read. */
static bool client_may_send(const struct chardevs *c, const struct chardev *d)
{
    return d->fd >= 0 &&
           (!d->spec->serial || machine_serial_room(c->console->machine, d->spec->serial - 1) >= CLIENT_PIECE);
}

static void client_read(struct chardevs *c, struct chardev *d)
{
    uint8_t bytes[CLIENT_PIECE];
    ssize_t n = client_may_send(c, d) ? recv(d->fd, bytes, sizeof bytes, MSG_DONTWAIT) : -1;
    if (!client_may_send(c, d) || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    if (n <= 0)
        client_drop(d);
    else if (d->spec->serial)
        machine_serial_input(c->console->machine, d->spec->serial - 1, bytes, (size_t)n);
    else
        machine_console_input(c->console->machine, d->spec->id, bytes, (size_t)n);
}

/* ---- the console's part ---- */

static void serve(void *ctx)
{
    struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        if (d->listener.fd < 0)
            continue;
        if (d->fd < 0)
            d->fd = listener_accept(&d->listener);
        d->waits &= d->fd < 0;
        client_flush(d);
        client_read(c, d);
    }
}

static bool holds(void *ctx)
{
    const struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++)
        if (c->dev[k].waits)
            return true;
    return false;
}

static unsigned fds(void *ctx, struct pollfd *p, unsigned room)
{
    const struct chardevs *c = ctx;
    unsigned n = 0;
    for (unsigned k = 0; k < c->count && n < room; k++) {
        const struct chardev *d = &c->dev[k];
        if (d->fd >= 0)
            p[n++] = (struct pollfd){
                .fd = d->fd, .events = (short)((client_may_send(c, d) ? POLLIN : 0) | (d->backlog_len ? POLLOUT : 0))};
        else if (d->listener.fd >= 0)
            p[n++] = (struct pollfd){.fd = d->listener.fd, .events = POLLIN};
    }
    return n;
}

/* What is typed at the terminal. */
static void typed(void *ctx, const void *bytes, size_t len)
{
    struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++)
        if (c->dev[k].spec->kind == CHARDEV_STDIO)
            machine_console_input(c->console->machine, c->dev[k].spec->id, bytes, len);
}

/* ---- life ---- */

static bool socket_open(struct chardev *d, struct error *e)
{
    const char *option = d->spec->serial ? "-serial" : "-chardev";
    d->waits = !d->spec->no_wait;
    d->backlog = malloc(CHARDEV_BACKLOG);
    if (!d->backlog)
        return error_set(e, "out of memory");
    if (!listener_open(&d->listener, option, d->spec->place, e))
        return false;
    listener_announce(&d->listener, option, d->spec->place);
    return true;
}

static bool open_one(struct chardev *d, struct error *e)
{
    if (d->spec->kind == CHARDEV_SOCKET)
        return socket_open(d, e);
    if (d->spec->kind == CHARDEV_FILE)
        d->out = fopen(d->spec->path, "wb");
    else if (d->spec->kind == CHARDEV_STDIO)
        d->out = stdout;
    return d->out || d->spec->kind != CHARDEV_FILE ||
           error_set(e, "cannot write '%s': %s", d->spec->path, strerror(errno));
}

bool chardevs_open(struct chardevs *c, const struct options *o, struct console *console, struct error *e)
{
    bool sockets = false, terminal = false;
    *c = (struct chardevs){.console = console};
    for (unsigned k = 0; k < o->chardevs; k++) {
        if (o->chardev[k].handed_over)
            continue;
        struct chardev *d = &c->dev[c->count++];
        *d = (struct chardev){.spec = &o->chardev[k], .listener.fd = -1, .fd = -1};
        if (!open_one(d, e))
            return false;
        sockets |= o->chardev[k].kind == CHARDEV_SOCKET;
        terminal |= o->chardev[k].kind == CHARDEV_STDIO;
    }
    if (sockets)
        console_add_part(console, &(struct console_part){.ctx = c, .serve = serve, .holds = holds, .fds = fds});
    if (terminal)
        console_read_for(console, typed, c, false);
    console->chardevs = c;
    return true;
}

bool chardevs_close(struct chardevs *c)
{
    bool ok = true;
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        client_finish(d);
        if (d->fd >= 0)
            close(d->fd);
        listener_close(&d->listener);
        if (d->spec->kind == CHARDEV_FILE && d->out)
            ok &= fclose(d->out) == 0;
        free(d->backlog);
    }
    c->count = 0;
    return ok;
}

void chardevs_write(struct chardevs *c, const char *id, const uint8_t *bytes, size_t len)
{
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        if (strcmp(d->spec->id, id) != 0)
            continue;
        if (d->out) {
            fwrite(bytes, 1, len, d->out);
            fflush(d->out);
        }
        client_send(d, bytes, len);
    }
}
