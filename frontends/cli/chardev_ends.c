/* The far ends of character devices: sockets, pipes, pseudo-terminals, rings in memory. */
#define _GNU_SOURCE 1 /* ptsname_r */

#include "core/log.h"
#include "frontends/cli/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- sockets ---- */

static bool cannot_connect(const struct chardev *d, const char *why, struct error *e)
{
    return error_set(e, "chardev %s: cannot connect to %s: %s (,server: others connect to it)", d->spec->id, d->name,
                     why);
}

/* The descriptor, or -1 with errno. */
static int connect_to(int family, const struct sockaddr *at, socklen_t len)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || (!connect(fd, at, len) && !fcntl(fd, F_SETFL, O_NONBLOCK)))
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static bool unix_connect(struct chardev *d, struct error *e)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strlen(d->spec->path) >= sizeof at.sun_path)
        return cannot_connect(d, "the path is too long", e);
    strcpy(at.sun_path, d->spec->path);
    d->fd = connect_to(AF_UNIX, (struct sockaddr *)&at, sizeof at);
    return d->fd >= 0 || cannot_connect(d, strerror(errno), e);
}

static bool tcp_connect(struct chardev *d, struct error *e)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int bad = getaddrinfo(d->spec->host ? d->spec->host : "127.0.0.1", d->spec->port, &hints, &list);
    if (bad)
        return cannot_connect(d, gai_strerror(bad), e);
    for (const struct addrinfo *a = list; a && d->fd < 0; a = a->ai_next)
        d->fd = connect_to(a->ai_family, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(list);
    return d->fd >= 0 || cannot_connect(d, strerror(errno), e);
}

static bool socket_open(struct chardev *d, struct error *e)
{
    const struct chardev_spec *s = d->spec;
    const char *option = !strncmp(s->id, "serial", 6) ? "-serial" : "-chardev";
    int n = s->path ? snprintf(d->name, sizeof d->name, "unix:%s", s->path)
                    : snprintf(d->name, sizeof d->name, "tcp:%s:%s", s->host ? s->host : "", s->port);
    if (n < 0 || (size_t)n >= sizeof d->name)
        return error_set(e, "chardev %s: the place is too long", s->id);
    if (!s->server) {
        bool ok = s->path ? unix_connect(d, e) : tcp_connect(d, e);
        d->write_fd = d->fd;
        return ok;
    }
    if (!listener_open(&d->listener, option, d->name, e))
        return false;
    listener_announce(&d->listener, option, d->name);
    if (*d->listener.name)
        snprintf(d->name, sizeof d->name, "tcp:%s", d->listener.name);
    d->waits = !s->no_wait;
    return true;
}

/* ---- pipes and pseudo-terminals ---- */

/* PATH.in and PATH.out, or PATH for both. Open for reading and writing, so that neither end is ever missing. */
static bool pipe_open(struct chardev *d, struct error *e)
{
    char name[256];
    const int how = O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    snprintf(d->name, sizeof d->name, "pipe:%.200s", d->spec->path);
    snprintf(name, sizeof name, "%s.in", d->spec->path);
    d->fd = open(name, how);
    snprintf(name, sizeof name, "%s.out", d->spec->path);
    d->write_fd = open(name, how);
    if (d->fd >= 0 && d->write_fd >= 0)
        return true;
    if (d->fd >= 0)
        close(d->fd);
    if (d->write_fd >= 0)
        close(d->write_fd);
    d->fd = d->write_fd = open(d->spec->path, how);
    return d->fd >= 0 || error_set(e, "chardev %s: neither the pipes '%s.in' and '%s.out' nor '%s': %s", d->spec->id,
                                   d->spec->path, d->spec->path, d->spec->path, strerror(errno));
}

static bool pty_open(struct chardev *d, struct error *e)
{
    char path[100] = "";
    struct termios raw;
    d->fd = d->write_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (d->fd < 0 || grantpt(d->fd) || unlockpt(d->fd) || ptsname_r(d->fd, path, sizeof path) ||
        (d->slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 || fcntl(d->fd, F_SETFL, O_NONBLOCK) ||
        tcgetattr(d->slave, &raw))
        return error_set(e, "chardev %s: no pseudo-terminal: %s", d->spec->id, strerror(errno));
    cfmakeraw(&raw);
    tcsetattr(d->slave, TCSANOW, &raw);
    snprintf(d->name, sizeof d->name, "pty:%s", path);
    fprintf(stderr, "umbra: char device redirected to %s (label %s)\n", path, d->spec->id);
    return true;
}

/* ---- rings ---- */

/* The oldest give way. */
static void ring_put(struct chardev *d, const uint8_t *bytes, size_t len)
{
    size_t size = (size_t)d->spec->size;
    for (size_t k = 0; k < len; k++) {
        d->backlog[(d->ring_first + d->backlog_len) % size] = bytes[k];
        if (d->backlog_len < size)
            d->backlog_len++;
        else
            d->ring_first = (d->ring_first + 1) % size;
    }
}

size_t chardev_ring_read(struct chardev *d, uint8_t *bytes, size_t len)
{
    size_t n = 0, size = (size_t)d->spec->size;
    for (; n < len && d->backlog_len; n++, d->backlog_len--) {
        bytes[n] = d->backlog[d->ring_first];
        d->ring_first = (d->ring_first + 1) % size;
    }
    return n;
}

/* ---- what waits to be taken ---- */

static void client_drop(struct chardev *d)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = d->write_fd = -1;
    d->backlog_len = 0;
    d->lossy = false;
}

void chardev_end_flush(struct chardev *d)
{
    while (d->backlog_len && d->write_fd >= 0) {
        ssize_t n = d->spec->kind == CHARDEV_SOCKET
                        ? send(d->write_fd, d->backlog, d->backlog_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                        : write(d->write_fd, d->backlog, d->backlog_len);
        if (n < 0 && errno != EAGAIN && errno != EINTR && d->spec->kind == CHARDEV_SOCKET)
            client_drop(d);
        if (n <= 0)
            return;
        d->backlog_len -= (size_t)n;
        memmove(d->backlog, d->backlog + n, d->backlog_len);
    }
}

void chardev_end_send(struct chardev *d, const uint8_t *bytes, size_t len)
{
    if (d->spec->kind == CHARDEV_RINGBUF) {
        ring_put(d, bytes, len);
        return;
    }
    if (d->write_fd < 0)
        return;
    size_t room = CHARDEV_BACKLOG - d->backlog_len, n = len < room ? len : room;
    if (n < len && !d->lossy)
        log_warn("chardev %s: the other end does not read: what the guest sends is lost", d->spec->id);
    d->lossy |= n < len;
    memcpy(d->backlog + d->backlog_len, bytes, n);
    d->backlog_len += n;
    if (len > 1 || bytes[0] == '\n' || d->backlog_len >= 512)
        chardev_end_flush(d);
}

static void receive(struct chardev *d)
{
    uint8_t bytes[4096];
    size_t room = chardev_room(d);
    while (d->fd >= 0 && room) {
        ssize_t n = read(d->fd, bytes, room < sizeof bytes ? room : sizeof bytes);
        if (n < 0 && (errno == EAGAIN || errno == EINTR || d->spec->kind != CHARDEV_SOCKET))
            return;
        if (n <= 0) {
            client_drop(d);
            return;
        }
        chardev_take(d, bytes, (size_t)n);
        room = chardev_room(d);
    }
}

void chardev_end_serve(struct chardev *d)
{
    if (d->listener.fd >= 0 && d->fd < 0) {
        d->fd = d->write_fd = listener_accept(&d->listener);
        if (d->fd >= 0)
            fcntl(d->fd, F_SETFL, O_NONBLOCK);
    }
    if (d->fd < 0)
        return;
    d->waits = false;
    chardev_end_flush(d);
    receive(d);
}

unsigned chardev_end_fds(const struct chardev *d, struct pollfd *p, unsigned room)
{
    unsigned n = 0;
    if (d->fd < 0 && d->listener.fd >= 0 && n < room)
        p[n++] = (struct pollfd){.fd = d->listener.fd, .events = POLLIN};
    if (d->fd >= 0 && chardev_room(d) && n < room)
        p[n++] = (struct pollfd){.fd = d->fd, .events = POLLIN};
    if (d->write_fd >= 0 && d->backlog_len && n < room)
        p[n++] = (struct pollfd){.fd = d->write_fd, .events = POLLOUT};
    return n;
}

/* ---- life ---- */

bool chardev_end_open(struct chardev *d, struct error *e)
{
    snprintf(d->name, sizeof d->name, "%s", d->spec->kind == CHARDEV_STDIO ? "stdio" : "null");
    if (d->spec->kind == CHARDEV_NULL || d->spec->kind == CHARDEV_STDIO || d->spec->kind == CHARDEV_MOUSE)
        return true;
    d->backlog = malloc(d->spec->kind == CHARDEV_RINGBUF ? (size_t)d->spec->size : CHARDEV_BACKLOG);
    if (!d->backlog)
        return error_set(e, "out of memory");
    if (d->spec->kind == CHARDEV_RINGBUF)
        snprintf(d->name, sizeof d->name, "ringbuf");
    return d->spec->kind == CHARDEV_SOCKET ? socket_open(d, e)
           : d->spec->kind == CHARDEV_PIPE ? pipe_open(d, e)
           : d->spec->kind == CHARDEV_PTY  ? pty_open(d, e)
                                           : true;
}

/* What is not taken yet goes to a client that is there and reads. */
static void finish(struct chardev *d)
{
    chardev_end_flush(d);
    for (unsigned tries = 0; d->listener.fd >= 0 && d->fd >= 0 && d->backlog_len && tries < 20; tries++) {
        struct pollfd p = {.fd = d->fd, .events = POLLOUT};
        poll(&p, 1, 50);
        chardev_end_flush(d);
    }
}

void chardev_end_close(struct chardev *d)
{
    if (d->spec->kind != CHARDEV_RINGBUF)
        finish(d);
    if (d->write_fd >= 0 && d->write_fd != d->fd)
        close(d->write_fd);
    client_drop(d);
    if (d->slave >= 0)
        close(d->slave);
    listener_close(&d->listener);
    free(d->backlog);
    d->backlog = NULL;
}
