#include "frontends/cli/outlet.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE   4096 /* that is written without the end of a line */
#define TRICKLE 256  /* bytes at a time where a write might block though poll() said it would not */
#define WAIT_MS 100

/* ---- opening ---- */

/* A description of its own can be made non-blocking without changing that of others who have the terminal or pipe. */
static int reopen_stdout(void)
{
    return open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void outlet_open_stdout(struct outlet *o, bool shared)
{
    struct stat s;
    *o = (struct outlet){.name = "standard output", .fd = STDOUT_FILENO, .stream = shared ? stdout : NULL};
    if (shared || fstat(STDOUT_FILENO, &s))
        return;
    o->is_socket = S_ISSOCK(s.st_mode);
    if (S_ISREG(s.st_mode) || o->is_socket)
        return;
    int fd = reopen_stdout();
    o->may_block = fd < 0;
    o->owns = fd >= 0;
    o->fd = fd >= 0 ? fd : STDOUT_FILENO;
}

bool outlet_open_file(struct outlet *o, const char *path, bool append, struct error *e)
{
    *o = (struct outlet){.name = path, .owns = true};
    o->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (append ? O_APPEND : O_TRUNC), 0666);
    if (o->fd < 0)
        return error_set(e, "cannot write '%s': %s", path, strerror(errno));
    fcntl(o->fd, F_SETFL, fcntl(o->fd, F_GETFL) | O_NONBLOCK); /* it may be a pipe or a terminal */
    return true;
}

/* ---- writing ---- */

bool outlet_is_waiting(const struct outlet *o)
{
    return o->sent < o->len;
}

bool outlet_is_full(const struct outlet *o)
{
    return o->len - o->sent > OUTLET_LIMIT;
}

static void fail(struct outlet *o, int error)
{
    o->error = error;
    o->sent = o->len = 0;
    log_error("%s: %s: what the guest sends there is lost", o->name, strerror(error));
}

static ssize_t write_some(const struct outlet *o, const uint8_t *bytes, size_t len)
{
    struct pollfd p = {.fd = o->fd, .events = POLLOUT};
    if (o->is_socket)
        return send(o->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!o->may_block)
        return write(o->fd, bytes, len);
    if (poll(&p, 1, 0) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(o->fd, bytes, len < TRICKLE ? len : TRICKLE);
}

void outlet_flush(struct outlet *o)
{
    if (o->stream)
        fflush(o->stream);
    while (!o->error && outlet_is_waiting(o)) {
        ssize_t n = write_some(o, o->data + o->sent, o->len - o->sent);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0)
            fail(o, errno);
        else
            o->sent += (size_t)n;
    }
    o->sent = o->len = 0;
}

static bool make_room(struct outlet *o, size_t len)
{
    if (o->sent) {
        memmove(o->data, o->data + o->sent, o->len - o->sent);
        o->len -= o->sent;
        o->sent = 0;
    }
    if (o->len + len <= o->room)
        return true;
    size_t room = 2 * (o->len + len) + PIECE;
    uint8_t *grown = realloc(o->data, room);
    if (!grown)
        return false;
    o->data = grown;
    o->room = room;
    return true;
}

void outlet_put(struct outlet *o, const uint8_t *bytes, size_t len)
{
    bool ends_line = memchr(bytes, '\n', len) != NULL; /* whoever follows sees whole lines */
    if (o->stream) {
        fwrite(bytes, 1, len, o->stream);
        if (ends_line)
            fflush(o->stream);
        return;
    }
    if (o->error || o->fd < 0)
        return;
    if (o->len + len > o->room && !make_room(o, len)) {
        fail(o, ENOMEM);
        return;
    }
    memcpy(o->data + o->len, bytes, len);
    o->len += len;
    if (ends_line || o->len - o->sent >= PIECE)
        outlet_flush(o);
}

/* ---- closing ---- */

bool outlet_close(struct outlet *o, bool (*give_up)(void *ctx), void *ctx)
{
    bool lost = o->stream && (fflush(o->stream) || ferror(o->stream));
    for (outlet_flush(o); outlet_is_waiting(o); outlet_flush(o)) {
        struct pollfd p = {.fd = o->fd, .events = POLLOUT};
        if (give_up(ctx)) {
            log_error("%s: the last %zu bytes were not taken", o->name, o->len - o->sent);
            lost = true;
            break;
        }
        poll(&p, 1, WAIT_MS);
    }
    if (o->owns && o->fd >= 0 && close(o->fd) && !o->error)
        fail(o, errno);
    free(o->data);
    lost |= o->error != 0;
    *o = (struct outlet){.fd = -1};
    return !lost;
}
