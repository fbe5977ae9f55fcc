#define _GNU_SOURCE 1 /* accept4 */

#include "frontends/cli/chardev.h"

#include "frontends/cli/properties.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- the option ---- */

static bool is_on(const char *value)
{
    return !value || !strcmp(value, "on");
}

static bool property(struct chardev_spec *s, const char *key, const char *value)
{
    bool is_switch = !value || !strcmp(value, "on") || !strcmp(value, "off");
    if (!strcmp(key, "id") && value)
        s->id = value;
    else if (!strcmp(key, "path") && value)
        s->path = value;
    else if (!strcmp(key, "server") && is_switch)
        s->server = is_on(value);
    else if (!strcmp(key, "wait") && is_switch)
        s->no_wait = !is_on(value);
    else if (!strcmp(key, "nowait") && is_switch)
        s->no_wait = is_on(value);
    else
        return (!strcmp(key, "signal") || !strcmp(key, "mux")) && value && !strcmp(value, "off");
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

bool chardev_check(const struct options *o, struct error *e)
{
    bool monitor = false;
    for (unsigned k = 0; k < o->machine.device_count; k++)
        if (o->machine.device[k].port && !is_known(o, o->machine.device[k].port))
            return error_set(e, "-device virtconsole: there is no -chardev with id=%s", o->machine.device[k].port);
    for (unsigned k = 0; k < o->controls; k++)
        monitor |= !strcmp(o->control[k].where, "stdio");
    for (unsigned k = 0; k < o->chardevs; k++)
        if (o->chardev[k].kind == CHARDEV_STDIO && (monitor || o->serial[0].kind == SINK_STDIO))
            return error_set(e, "-chardev stdio: the terminal is %s", monitor ? "the monitor's" : "COM1's (-serial)");
    return true;
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
    if ((s.kind == CHARDEV_FILE || s.kind == CHARDEV_SOCKET) && !s.path)
        return error_set(e, "-chardev %s: path= is missing", kind);
    if (s.kind == CHARDEV_SOCKET && !s.server)
        return error_set(e, "-chardev socket: only server=on (others connect to it)");
    if (o->chardevs == CHARDEVS_MAX)
        return error_set(e, "-chardev: more than %d", CHARDEVS_MAX);
    o->chardev[o->chardevs++] = s;
    return true;
}

/* ---- sockets ---- */

static bool listen_at(struct chardev *d, struct error *e)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const char *path = d->spec->path;
    if (strlen(path) >= sizeof at.sun_path)
        return error_set(e, "-chardev socket: the path '%s' is too long", path);
    strcpy(at.sun_path, path);
    d->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(path);
    if (d->listener < 0 || bind(d->listener, (struct sockaddr *)&at, sizeof at) || listen(d->listener, 1))
        return error_set(e, "cannot listen at '%s': %s", path, strerror(errno));
    d->waits = !d->spec->no_wait;
    return true;
}

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
    client_flush(d);
}

static void client_read(struct chardevs *c, struct chardev *d)
{
    uint8_t bytes[512];
    ssize_t n = d->fd < 0 ? -1 : recv(d->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (d->fd < 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    if (n <= 0)
        client_drop(d);
    else
        machine_console_input(c->console->machine, d->spec->id, bytes, (size_t)n);
}

/* ---- the console's part ---- */

static void serve(void *ctx)
{
    struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        if (d->listener < 0)
            continue;
        if (d->fd < 0)
            d->fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);
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
            p[n++] = (struct pollfd){.fd = d->fd, .events = (short)(POLLIN | (d->backlog_len ? POLLOUT : 0))};
        else if (d->listener >= 0)
            p[n++] = (struct pollfd){.fd = d->listener, .events = POLLIN};
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

static bool open_one(struct chardev *d, struct error *e)
{
    if (d->spec->kind == CHARDEV_SOCKET) {
        d->backlog = malloc(CHARDEV_BACKLOG);
        return d->backlog ? listen_at(d, e) : error_set(e, "out of memory");
    }
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
        c->dev[c->count++] = (struct chardev){.spec = &o->chardev[k], .listener = -1, .fd = -1};
        if (!open_one(&c->dev[k], e))
            return false;
        sockets |= o->chardev[k].kind == CHARDEV_SOCKET;
        terminal |= o->chardev[k].kind == CHARDEV_STDIO;
    }
    if (sockets)
        console_add_part(console, &(struct console_part){.ctx = c, .serve = serve, .holds = holds, .fds = fds});
    if (terminal)
        console_read_for(console, typed, c);
    console->chardevs = c;
    return true;
}

bool chardevs_close(struct chardevs *c)
{
    bool ok = true;
    for (unsigned k = 0; k < c->count; k++) {
        struct chardev *d = &c->dev[k];
        if (d->fd >= 0)
            close(d->fd);
        if (d->listener >= 0) {
            close(d->listener);
            unlink(d->spec->path);
        }
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
