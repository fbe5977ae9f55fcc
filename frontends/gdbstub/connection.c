/*
 * The socket, and packets on it: $payload#checksum, + and - as acknowledgements, 0x03 as the interrupt.
 */
#include "frontends/gdbstub/gdbstub_internal.h"

#include "core/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define INTERRUPT    3
#define WAIT_MS      100
#define FINISH_MS    1000
#define SEND_SECONDS 10 /* a client that takes nothing for so long is dropped */

/* ---- listening ---- */

bool connection_listen(struct connection *c, const char *spec, struct error *e)
{
    char place[LISTENER_PLACE_MAX];
    bool waits; /* it is -S that waits */
    *c = (struct connection){.listener.fd = -1, .fd = -1};
    if (!listener_split(spec, place, &waits) || !listener_knows(place))
        return error_set(e, "-gdb %s: expected tcp::PORT, tcp:ADDRESS:PORT or unix:PATH", spec);
    if (!listener_open(&c->listener, "-gdb", place, e))
        return false;
    fprintf(stderr, "umbra: gdb stub listens on %s\n", c->listener.path ? c->listener.path : c->listener.name);
    return true;
}

bool connection_accept(struct connection *c)
{
    struct timeval patience = {.tv_sec = SEND_SECONDS};
    int on = 1;
    if (c->fd >= 0)
        return false;
    c->fd = listener_accept(&c->listener);
    if (c->fd < 0)
        return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    c->in_len = c->in_next = 0;
    c->no_ack = false;
    return true;
}

void connection_drop(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->in_len = c->in_next = 0;
}

/* ---- bytes ---- */

void connection_finish(struct connection *c)
{
    if (c->fd >= 0)
        shutdown(c->fd, SHUT_WR);
    for (int tries = 0; c->fd >= 0 && tries < FINISH_MS / WAIT_MS; tries++) {
        c->in_len = c->in_next = 0;
        if (!connection_fill(c, WAIT_MS))
            break;
    }
    connection_drop(c);
}

bool connection_fill(struct connection *c, int ms)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    if (c->in_next == c->in_len)
        c->in_next = c->in_len = 0;
    if (c->in_len == sizeof c->in)
        return true;
    if (poll(&p, 1, ms) <= 0 || !p.revents)
        return true;
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);
    if (n > 0)
        c->in_len += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

int connection_byte(struct connection *c)
{
    return c->in_next < c->in_len ? c->in[c->in_next++] : -1;
}

/* Waits for a byte. Negative: -PACKET_CLOSED or -PACKET_QUIT. */
static int wait_byte(struct gdbstub *s)
{
    int b;
    while ((b = connection_byte(&s->c)) < 0) {
        if (s->quit(s->quit_ctx))
            return -PACKET_QUIT;
        if (!connection_fill(&s->c, WAIT_MS))
            return -PACKET_CLOSED;
    }
    return b;
}

static bool send_all(struct connection *c, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

/* ---- packets ---- */

/* The payload after '$', up to '#'; the sum is of the raw bytes. Too long ones are read to their end: *len > size. */
static int read_payload(struct gdbstub *s, uint8_t *buf, size_t size, size_t *len, uint8_t *sum)
{
    bool escaped = false;
    *len = 0;
    *sum = 0;
    for (;;) {
        int b = wait_byte(s);
        if (b < 0 || b == '#')
            return b;
        *sum = (uint8_t)(*sum + b);
        if (b == '}' && !escaped) {
            escaped = true;
            continue;
        }
        if (*len < size)
            buf[*len] = (uint8_t)(escaped ? b ^ 0x20 : b);
        *len += *len <= size;
        escaped = false;
    }
}

/* Two hex digits after '#'. -1: no such digits; below -1: the end of the connection, shifted by one. */
static int read_checksum(struct gdbstub *s)
{
    int value = 0;
    for (int k = 0; k < 2; k++) {
        int b = wait_byte(s);
        if (b < 0)
            return b - 1;
        int d = hex_digit(b);
        if (d < 0)
            return -1;
        value = value << 4 | d;
    }
    return value;
}

enum packet_result connection_packet(struct gdbstub *s, uint8_t *buf, size_t size, size_t *len)
{
    for (;;) {
        uint8_t sum;
        int b = wait_byte(s);
        if (b < 0)
            return (enum packet_result) - b;
        if (b == INTERRUPT)
            return PACKET_INTERRUPT;
        if (b != '$')
            continue; /* acknowledgements, and noise */
        b = read_payload(s, buf, size - 1, len, &sum);
        if (b < 0)
            return (enum packet_result) - b;
        int wanted = read_checksum(s);
        if (wanted < -1)
            return (enum packet_result)(-wanted - 1);
        bool good = *len < size && (s->c.no_ack || wanted == sum);
        if (!s->c.no_ack && !send_all(&s->c, good ? "+" : "-", 1))
            return PACKET_CLOSED;
        if (!good)
            continue;
        buf[*len] = 0;
        return PACKET_OK;
    }
}

void connection_send(struct connection *c, const char *payload)
{
    uint8_t sum = 0;
    char tail[4];
    for (const char *p = payload; *p; p++)
        sum = (uint8_t)(sum + (uint8_t)*p);
    snprintf(tail, sizeof tail, "#%02x", sum);
    if (c->fd >= 0 && !(send_all(c, "$", 1) && send_all(c, payload, strlen(payload)) && send_all(c, tail, 3)))
        connection_drop(c);
}
