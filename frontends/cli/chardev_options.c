/* What -chardev, -serial, -debugcon, -monitor, -mon and -qmp say about character devices. */
#include "frontends/cli/chardev.h"
#include "frontends/cli/properties.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RING_DEFAULT 65536u
#define RING_MAX     (64u << 20)

static const char *const kinds[] = {
    [CHARDEV_NULL] = "null",     [CHARDEV_STDIO] = "stdio", [CHARDEV_FILE] = "file",       [CHARDEV_PIPE] = "pipe",
    [CHARDEV_SOCKET] = "socket", [CHARDEV_PTY] = "pty",     [CHARDEV_RINGBUF] = "ringbuf", [CHARDEV_MOUSE] = "msmouse"};

#define KINDS "stdio, file, pipe, socket, pty, ringbuf, msmouse or null"

const struct chardev_spec *chardev_find_spec(const struct options *o, const char *id)
{
    for (unsigned k = 0; id && k < o->chardevs; k++)
        if (!strcmp(o->chardev[k].id, id))
            return &o->chardev[k];
    return NULL;
}

/* ---- properties ---- */

static bool is_on(const char *value)
{
    return !value || !strcmp(value, "on");
}

static bool switch_property(struct chardev_spec *s, const char *key, const char *value)
{
    bool on = is_on(value);
    if (value && !on && strcmp(value, "off"))
        return false;
    if (!strcmp(key, "server"))
        s->server = on;
    else if (!strcmp(key, "wait"))
        s->no_wait = !on;
    else if (!strcmp(key, "nowait"))
        s->no_wait = on;
    else if (!strcmp(key, "mux"))
        s->mux = on;
    else if (!strcmp(key, "signal"))
        s->signals = on;
    else if (!strcmp(key, "append"))
        s->append = on;
    else /* the others' defaults */
        return !strcmp(key, "delay") || !strcmp(key, "ipv4") || (!strcmp(key, "ipv6") && !on) ||
               !strcmp(key, "nodelay") || (!strcmp(key, "telnet") && !on) || (!strcmp(key, "websocket") && !on) ||
               (!strcmp(key, "logappend") && !on);
    return true;
}

/* A power of two, as QEMU wants it; "64K" as well. */
static bool ring_size(const char *text, uint64_t *size)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' ? 20 : 0;
    *size = n << shift;
    return n && n <= RING_MAX && !end[shift != 0] && *size <= RING_MAX && !(*size & (*size - 1));
}

static bool property(struct chardev_spec *s, const char *key, const char *value)
{
    if (!strcmp(key, "reconnect") && value && !strcmp(value, "0"))
        return true;
    if (!strcmp(key, "id") && value)
        s->id = value;
    else if (!strcmp(key, "path") && value)
        s->path = value;
    else if (!strcmp(key, "host") && value && s->kind == CHARDEV_SOCKET)
        s->host = value;
    else if (!strcmp(key, "port") && value && s->kind == CHARDEV_SOCKET)
        s->port = value;
    else if (!strcmp(key, "size") && value && s->kind == CHARDEV_RINGBUF)
        return ring_size(value, &s->size);
    else
        return switch_property(s, key, value);
    return true;
}

static bool properties(struct chardev_spec *s, const char *what, char *text, struct error *e)
{
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!property(s, p, value))
            return error_set(e, "%s: '%s' is unknown or has no such value", what, p);
    }
    return true;
}

/* ---- making one ---- */

static bool spec_check(const struct chardev_spec *s, const char *what, struct error *e)
{
    bool wants_path = s->kind == CHARDEV_FILE || s->kind == CHARDEV_PIPE || (s->kind == CHARDEV_SOCKET && !s->port);
    if (wants_path && !s->path)
        return error_set(e, "%s: path= is missing%s", what, s->kind == CHARDEV_SOCKET ? " (or host=,port=)" : "");
    if (s->kind == CHARDEV_SOCKET && s->path && s->port)
        return error_set(e, "%s: path= and port= exclude each other", what);
    return s->kind != CHARDEV_SOCKET || s->server || !s->no_wait ||
           error_set(e, "%s: wait=off goes with server=on", what);
}

static bool add(struct options *o, const struct chardev_spec *s, const char *what, struct error *e)
{
    if (!s->id || chardev_find_spec(o, s->id))
        return error_set(e, "%s: an id of its own is missing (id=NAME)", what);
    if (o->chardevs == CHARDEVS_MAX)
        return error_set(e, "%s: more than %d character devices", what, CHARDEVS_MAX);
    if (!spec_check(s, what, e))
        return false;
    o->chardev[o->chardevs] = *s;
    if (s->kind == CHARDEV_RINGBUF && !s->size)
        o->chardev[o->chardevs].size = RING_DEFAULT;
    o->chardevs++;
    return true;
}

bool chardev_option_parse(struct options *o, char *text, struct error *e)
{
    struct chardev_spec s = {0};
    char what[64];
    const char *kind = property_next(&text);
    unsigned k = 0;
    while (k < ARRAY_LEN(kinds) && (!kind || strcmp(kind, kinds[k])))
        k++;
    snprintf(what, sizeof what, "-chardev %.40s", kind ? kind : "");
    if (k == ARRAY_LEN(kinds))
        return error_set(e, "%s: expected %s", what, KINDS);
    s.kind = (enum chardev_kind)k;
    return properties(&s, what, text, e) && add(o, &s, what, e);
}

/* ---- short forms ---- */

static bool place_error(const char *name, const char *text, struct error *e)
{
    return error_set(e,
                     "-%s %s: expected stdio, mon:stdio, file:PATH, pipe:PATH, unix:PATH[,server][,nowait], "
                     "tcp:[HOST]:PORT[,server][,nowait], pty, ringbuf, null, chardev:ID%s",
                     name, text, strcmp(name, "serial") ? "" : " or msmouse");
}

/* "HOST:PORT"; the host may be missing, or stand in brackets. */
static bool tcp_place(struct chardev_spec *s, char *text)
{
    char *colon = text ? strrchr(text, ':') : NULL;
    if (!colon || !colon[1])
        return false;
    *colon = 0;
    s->port = colon + 1;
    size_t n = strlen(text);
    if (n > 1 && *text == '[' && text[n - 1] == ']') {
        text[n - 1] = 0;
        text++;
    }
    s->host = *text ? text : NULL;
    return true;
}

static bool place_fields(struct chardev_spec *s, char *text)
{
    static const struct {
        const char *prefix;
        enum chardev_kind kind;
    } paths[] = {{"file:", CHARDEV_FILE}, {"pipe:", CHARDEV_PIPE}, {"unix:", CHARDEV_SOCKET}};
    for (unsigned k = 0; k < ARRAY_LEN(paths); k++)
        if (!strncmp(text, paths[k].prefix, 5)) {
            s->kind = paths[k].kind;
            s->path = text + 5;
            return *s->path;
        }
    if (!strncmp(text, "tcp:", 4) || !strncmp(text, "telnet:", 7)) {
        s->kind = CHARDEV_SOCKET;
        return tcp_place(s, strchr(text, ':') + 1);
    }
    s->kind = !strcmp(text, "pty")       ? CHARDEV_PTY
              : !strcmp(text, "ringbuf") ? CHARDEV_RINGBUF
              : !strcmp(text, "msmouse") ? CHARDEV_MOUSE
                                         : CHARDEV_NULL;
    return s->kind != CHARDEV_NULL;
}

/* The terminal, which all short forms share. */
static bool place_stdio(struct options *o, const char *name, const char **id, struct error *e)
{
    static const struct chardev_spec terminal = {.id = "stdio", .kind = CHARDEV_STDIO, .mux = true};
    *id = terminal.id;
    const struct chardev_spec *there = chardev_find_spec(o, terminal.id);
    return there
               ? there->kind == CHARDEV_STDIO || error_set(e, "-%s stdio: there is another chardev with id=stdio", name)
               : add(o, &terminal, name, e);
}

static bool add_monitor(struct options *o, enum control_kind kind, const char *where, const char *name, struct error *e)
{
    if (o->controls == CONTROL_CHANNELS)
        return error_set(e, "-%s %s: there are %d monitors already", name, where, CONTROL_CHANNELS);
    o->control[o->controls++] = (struct control_spec){kind, where};
    return true;
}

bool chardev_place_parse(struct options *o, const char *name, const char *label, char *text, const char **id,
                         struct error *e)
{
    struct chardev_spec s = {.id = label};
    char what[32];
    *id = NULL;
    if (!strcmp(text, "null") || !strcmp(text, "none"))
        return true;
    if (!strcmp(text, "stdio"))
        return place_stdio(o, name, id, e);
    if (!strcmp(text, "mon:stdio")) {
        o->monitor_given = true;
        return place_stdio(o, name, id, e) && add_monitor(o, CONTROL_MONITOR, "stdio", name, e);
    }
    if (!strncmp(text, "chardev:", 8) && text[8]) {
        *id = text + 8;
        return true;
    }
    char copy[80];
    snprintf(copy, sizeof copy, "%s", text);
    snprintf(what, sizeof what, "-%s", name);
    char *first = property_next(&text);
    if (!first || !place_fields(&s, first))
        return place_error(name, copy, e);
    *id = label;
    return properties(&s, what, text, e) && add(o, &s, what, e);
}

bool chardev_mon_parse(struct options *o, char *text, struct error *e)
{
    enum control_kind kind = CONTROL_MONITOR;
    const char *id = NULL;
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!strcmp(p, "mode") && value && (!strcmp(value, "readline") || !strcmp(value, "control")))
            kind = *value == 'c' ? CONTROL_QMP : CONTROL_MONITOR;
        else if (!strcmp(p, "chardev") && value)
            id = value;
        else if (!value && !id)
            id = p;
        else if (!value || (strcmp(p, "pretty") && strcmp(p, "id")))
            return error_set(e, "-mon: '%s' is unknown or has no such value", p);
    }
    if (!id || strlen(id) > 64 || o->controls == CONTROL_CHANNELS)
        return error_set(e, id ? "-mon: too many monitors, or too long an ID" : "-mon: chardev=ID is missing");
    char *where = o->place[o->controls];
    snprintf(where, sizeof o->place[0], "chardev:%s", id);
    o->monitor_given = true;
    return add_monitor(o, kind, where, "mon", e);
}

/* ---- after all options ---- */

/* Users of a chardev that read from it. */
struct readers {
    unsigned count, monitors;
    char first[64], last[64];
};

static void note(struct readers *r, bool monitor, const char *who)
{
    snprintf(r->count ? r->last : r->first, sizeof r->first, "%s", who);
    r->count++;
    r->monitors += monitor;
}

static struct readers find_readers(const struct options *o, const struct chardev_spec *s)
{
    struct readers r = {0};
    for (unsigned k = 0; k < o->serials; k++) {
        char com[32];
        snprintf(com, sizeof com, "COM%u", k + 1);
        if (o->serial[k] && !strcmp(o->serial[k], s->id))
            note(&r, false, com);
    }
    for (unsigned k = 0; k < o->machine.device_count; k++)
        if (o->machine.device[k].port && !strcmp(o->machine.device[k].port, s->id))
            note(&r, false, "a virtconsole");
    for (unsigned k = 0; k < o->controls; k++)
        if (s->kind == CHARDEV_STDIO && !strcmp(o->control[k].where, "stdio"))
            note(&r, true, "the monitor");
    return r;
}

static bool known(const struct options *o, const char *what, const char *id, struct error *e)
{
    return !id || chardev_find_spec(o, id) || error_set(e, "%s: there is no -chardev with id=%s", what, id);
}

/* A monitor on a chardev: a socket becomes the monitor's own. */
static bool resolve_monitor(struct options *o, unsigned k, struct error *e)
{
    struct control_spec *m = &o->control[k];
    const char *id = !strncmp(m->where, "chardev:", 8) ? m->where + 8 : NULL;
    if (!id)
        return true;
    const struct chardev_spec *s = chardev_find_spec(o, id);
    if (!s)
        return error_set(e, "-mon: there is no -chardev with id=%s", id);
    if (s->kind == CHARDEV_STDIO) {
        m->where = "stdio";
        return true;
    }
    if (s->kind != CHARDEV_SOCKET || !s->server || s->mux || find_readers(o, s).count)
        return error_set(e, "-mon chardev=%s: a monitor is on stdio, or on a server socket of its own without mux", id);
    char place[sizeof o->place[0]];
    int n = s->path ? snprintf(place, sizeof place, "unix:%s,server%s", s->path, s->no_wait ? ",nowait" : "")
                    : snprintf(place, sizeof place, "tcp:%s:%s,server%s", s->host ? s->host : "", s->port,
                               s->no_wait ? ",nowait" : "");
    if (n < 0 || (size_t)n >= sizeof place)
        return error_set(e, "-mon chardev=%s: too long a path", id);
    strcpy(o->place[k], place);
    m->where = o->place[k];
    unsigned at = (unsigned)(s - o->chardev);
    memmove(o->chardev + at, o->chardev + at + 1, (--o->chardevs - at) * sizeof *s);
    return true;
}

static bool names_check(const struct options *o, struct error *e)
{
    char com[32];
    for (unsigned k = 0; k < o->serials; k++) {
        snprintf(com, sizeof com, "-serial (COM%u)", k + 1);
        if (!known(o, com, o->serial[k], e))
            return false;
    }
    for (unsigned k = 0; k < o->machine.device_count; k++)
        if (!known(o, "-device virtconsole", o->machine.device[k].port, e))
            return false;
    return known(o, "-debugcon", o->debugcon, e);
}

/* The port that has a mouse instead of a place. */
static bool mouse_check(struct options *o, struct error *e)
{
    for (unsigned k = 0; k < o->chardevs; k++) {
        const struct chardev_spec *s = &o->chardev[k];
        if (s->kind != CHARDEV_MOUSE)
            continue;
        unsigned port = 0;
        while (port < o->serials && (!o->serial[port] || strcmp(o->serial[port], s->id)))
            port++;
        if (port == o->serials || find_readers(o, s).count != 1)
            return error_set(e, "-chardev msmouse,id=%s: it belongs on one serial port (-serial chardev:%s)", s->id,
                             s->id);
        if (o->machine.mouse_port)
            return error_set(e, "-serial: COM%u has the mouse, there is no second one", o->machine.mouse_port);
        o->machine.mouse_port = port + 1;
        o->serial[port] = NULL;
    }
    return true;
}

static bool sharing_check(const struct options *o, struct error *e)
{
    const struct chardev_spec *terminal = NULL;
    for (unsigned k = 0; k < o->chardevs; k++) {
        const struct chardev_spec *s = &o->chardev[k];
        struct readers r = find_readers(o, s);
        if (s->kind == CHARDEV_STDIO && terminal)
            return error_set(e, "the terminal can be one -chardev stdio only: %s or %s", terminal->id, s->id);
        if (s->kind == CHARDEV_STDIO)
            terminal = s;
        if (r.count > CHARDEV_USERS || r.monitors > 1 || (r.count > 1 && !s->mux))
            return error_set(e, "chardev %s belongs to %s, not to %s as well%s", s->id, r.first, r.last,
                             s->mux ? "" : " (mux=on: they share it)");
    }
    return true;
}

/* -nographic on a terminal has a monitor behind Ctrl-A c, as QEMU's. */
static bool nographic_monitor(struct options *o, struct error *e)
{
    const char *id;
    if (!o->nographic || o->serials)
        return true;
    o->serials = 1;
    if (!place_stdio(o, "nographic", &id, e))
        return false;
    o->serial[0] = id;
    bool interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !o->machine.input_script && !o->debug &&
                       !o->fork_at && !o->gdb && !o->lockstep && !o->display;
    return !interactive || o->monitor_given || add_monitor(o, CONTROL_MONITOR, "stdio", "nographic", e);
}

bool chardev_check(struct options *o, struct error *e)
{
    if (!nographic_monitor(o, e))
        return false;
    if (!o->serials) /* COM1 is always there */
        o->serials = 1;
    o->machine.serials = o->serials;
    for (unsigned k = 0; k < o->controls; k++)
        if (!resolve_monitor(o, k, e))
            return false;
    /* A monitor on the terminal needs the terminal's chardev. */
    bool monitor = false, terminal = false;
    const char *id;
    for (unsigned k = 0; k < o->controls; k++)
        monitor |= !strncmp(o->control[k].where, "stdio", 5);
    for (unsigned k = 0; k < o->chardevs; k++)
        terminal |= o->chardev[k].kind == CHARDEV_STDIO;
    if (monitor && !terminal && !place_stdio(o, "monitor", &id, e))
        return false;
    return names_check(o, e) && mouse_check(o, e) && sharing_check(o, e);
}
