/*
 * Channels: listening sockets with one client at a time, and standard input and output.
 */
#include "frontends/control/control_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

bool channel_open(struct channel *ch, const struct control_spec *spec, struct error *e)
{
    char place[LISTENER_PLACE_MAX];
    const char *option = spec->kind == CONTROL_QMP ? "-qmp" : "-monitor";
    ch->kind = spec->kind;
    ch->fd = ch->listener.fd = -1;
    if (!listener_split(spec->where, place, &ch->waits))
        return error_set(e, "%s %s: expected stdio, unix:PATH or tcp:[HOST]:PORT, then ,server and ,nowait", option,
                         spec->where);
    ch->is_stdio = !strcmp(place, "stdio");
    if (ch->is_stdio)
        return true;
    if (!listener_knows(place))
        return error_set(e, "%s %s: expected stdio, unix:PATH or tcp:[HOST]:PORT", option, spec->where);
    if (!listener_open(&ch->listener, option, place, e))
        return false;
    listener_announce(&ch->listener, option, place);
    return true;
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
    listener_close(&ch->listener);
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
    const struct control_hooks *h = &ch->control->hooks;
    if (ch->is_stdio && h->put) {
        h->put(h->ctx, text, len);
        return;
    }
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
    if (ch->listener.fd >= 0 && ch->fd < 0) {
        ch->fd = listener_accept(&ch->listener);
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
