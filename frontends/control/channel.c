/*
 * Channels: listening sockets with one client at a time, and standard input and output.
 */
#include "frontends/control/control_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- bytes ---- */

bool bytes_add(struct bytes *b, const void *data, size_t len)
{
    if (b->len + len > b->room) {
        size_t room = (b->len + len) * 2 + 64;
        char *grown = realloc(b->data, room);
        if (!grown)
            return false;
        b->data = grown;
        b->room = room;
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return true;
}

void bytes_skip(struct bytes *b, size_t len)
{
    if (!len)
        return;
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

/* ---- what a specification says ---- */

static bool option_parse(struct channel *ch, const char *option)
{
    if (!strcmp(option, "server") || !strcmp(option, "server=on")) {
        ch->waits = true;
        return true;
    }
    if (!strcmp(option, "nowait") || !strcmp(option, "wait=off") || !strcmp(option, "wait=on")) {
        ch->waits = !strcmp(option, "wait=on");
        return true;
    }
    return false;
}

/* Splits off the options behind commas; QEMU's default for a server is to wait for a client. */
static bool options_split(struct channel *ch, char *where)
{
    char *save = NULL, *at = strchr(where, ',');
    bool server = false, decided = false;
    if (!at)
        return true;
    *at++ = 0;
    for (char *p = strtok_r(at, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        if (!option_parse(ch, p))
            return false;
        server |= !strncmp(p, "server", 6);
        decided |= strstr(p, "wait") != NULL;
        if (decided && !strncmp(p, "server", 6))
            ch->waits = false;
    }
    return server || !ch->waits;
}

static bool unix_listen(struct channel *ch, const char *path, struct error *e)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof at.sun_path)
        return error_set(e, "unix:%s: a path of at most %zu bytes is expected", path, sizeof at.sun_path - 1);
    memcpy(at.sun_path, path, strlen(path));
    ch->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(path); /* of a run before */
    if (ch->listener < 0 || bind(ch->listener, (struct sockaddr *)&at, sizeof at) || listen(ch->listener, 1))
        return error_set(e, "unix:%s: %s", path, strerror(errno));
    ch->path = strdup(path);
    return true;
}

static bool tcp_listen(struct channel *ch, const char *text, struct error *e)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    char host[64] = "";
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 65536;
    int on = 1;
    if (!colon || !colon[1] || *end || port > 65535 || (size_t)(colon - text) >= sizeof host)
        return error_set(e, "tcp:%s: expected tcp:[HOST]:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    at.sin_port = htons((uint16_t)port);
    if (*host && strcmp(host, "localhost") && inet_pton(AF_INET, host, &at.sin_addr) != 1)
        return error_set(e, "tcp:%s: '%s' is not an IPv4 address", text, host);
    ch->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (ch->listener >= 0)
        setsockopt(ch->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ch->listener < 0 || bind(ch->listener, (struct sockaddr *)&at, sizeof at) || listen(ch->listener, 1) ||
        getsockname(ch->listener, (struct sockaddr *)&at, &len))
        return error_set(e, "tcp:%s: %s", text, strerror(errno));
    if (!port)
        fprintf(stderr, "umbra: control listens on port %u\n", ntohs(at.sin_port));
    return true;
}

bool channel_open(struct channel *ch, const struct control_spec *spec, struct error *e)
{
    char where[256];
    const char *option = spec->kind == CONTROL_QMP ? "-qmp" : "-monitor";
    ch->kind = spec->kind;
    ch->listener = ch->fd = -1;
    if ((size_t)snprintf(where, sizeof where, "%s", spec->where) >= sizeof where || !options_split(ch, where))
        return error_set(e, "%s %s: expected stdio, unix:PATH or tcp:[HOST]:PORT, then ,server and ,nowait", option,
                         spec->where);
    ch->is_stdio = !strcmp(where, "stdio");
    if (ch->is_stdio)
        return true;
    if (!strncmp(where, "unix:", 5))
        return unix_listen(ch, where + 5, e);
    if (!strncmp(where, "tcp:", 4))
        return tcp_listen(ch, where + 4, e);
    return error_set(e, "%s %s: expected stdio, unix:PATH or tcp:[HOST]:PORT", option, spec->where);
}

/* ---- clients ---- */

bool channel_is_connected(const struct channel *ch)
{
    return ch->is_stdio || ch->fd >= 0;
}

void channel_drop(struct channel *ch)
{
    if (ch->fd >= 0)
        close(ch->fd);
    ch->fd = -1;
    ch->in.len = ch->out.len = ch->begin = ch->scanned = 0;
    ch->depth = 0;
    ch->in_string = ch->escaped = ch->negotiated = ch->closing = false;
}

void channel_forget(struct channel *ch)
{
    bytes_skip(&ch->in, ch->begin);
    ch->scanned -= ch->begin < ch->scanned ? ch->begin : ch->scanned;
    ch->begin = 0;
}

void channel_close(struct channel *ch)
{
    channel_drop(ch);
    if (ch->listener >= 0)
        close(ch->listener);
    if (ch->path)
        unlink(ch->path);
    free(ch->path);
    free(ch->in.data);
    free(ch->out.data);
}

static void flush_out(struct channel *ch)
{
    while (ch->fd >= 0 && ch->out.len) {
        ssize_t n = send(ch->fd, ch->out.data, ch->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            channel_drop(ch);
            return;
        }
        bytes_skip(&ch->out, (size_t)n);
    }
    if (ch->closing)
        channel_drop(ch);
}

void channel_send(struct channel *ch, const char *text, size_t len)
{
    if (ch->is_stdio) {
        fwrite(text, 1, len, stdout);
        fflush(stdout);
        return;
    }
    if (ch->fd < 0)
        return;
    if (ch->out.len + len > OUTPUT_MAX || !bytes_add(&ch->out, text, len))
        channel_drop(ch);
    else
        flush_out(ch);
}

static void read_in(struct channel *ch)
{
    char buf[4096];
    while (ch->fd >= 0) {
        ssize_t n = recv(ch->fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0 || ch->in.len + (size_t)n > INPUT_MAX || !bytes_add(&ch->in, buf, (size_t)n)) {
            channel_drop(ch);
            return;
        }
        if (ch->in.len > INPUT_MAX / 2) /* first this */
            return;
    }
}

void channel_serve(struct channel *ch)
{
    if (ch->listener >= 0 && ch->fd < 0) {
        ch->fd = accept(ch->listener, NULL, NULL);
        if (ch->fd < 0)
            return;
        ch->waits = false;
        if (ch->kind == CONTROL_QMP)
            qmp_greet(ch);
        else
            monitor_greet(ch);
    }
    flush_out(ch);
    read_in(ch);
    if (ch->kind == CONTROL_QMP)
        qmp_serve(ch);
    else
        monitor_serve(ch);
}
