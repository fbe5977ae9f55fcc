/*
 * Exports of a network block device server (by libnbd): the way to every format that other programs serve, such as
 * qcow2 through qemu-nbd.
 *
 * Addresses: URIs (nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH), or QEMU's older nbd:HOST:PORT and
 * nbd:unix:PATH, both with :exportname=NAME behind them. A server is not trusted: what it says of sizes is checked; it
 * has NBD_PATIENCE for each answer, and a connection that fails, or is given up so, makes every request fail.
 */
#include "core/alloc.h"
#include "core/block/block_internal.h"
#include "core/library.h"

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE_DEFAULT (1u << 20)
#define PIECE_MAX     (32u << 20)
#define WHOLE_MAX     (1u << 30) /* of a request without data */
#define CLOSING_MS    1000

#define NBD_LIBRARY "libnbd.so.0"
/* clang-format off */
#define NBD_CALLS(X) \
    X(nbd_create) X(nbd_close) X(nbd_poll) X(nbd_get_error) X(nbd_get_errno) X(nbd_set_export_name) \
    X(nbd_aio_connect_uri) X(nbd_aio_connect_unix) X(nbd_aio_connect_tcp) X(nbd_aio_is_connecting) \
    X(nbd_aio_is_ready) X(nbd_aio_is_closed) X(nbd_aio_is_dead) X(nbd_aio_disconnect) \
    X(nbd_aio_command_completed) X(nbd_aio_pread) X(nbd_aio_pwrite) X(nbd_aio_zero) X(nbd_aio_flush) \
    X(nbd_can_zero) X(nbd_can_flush) X(nbd_get_size) X(nbd_get_block_size) X(nbd_is_read_only)
/* clang-format on */

struct nbd_calls {
    NBD_CALLS(LIBRARY_POINTER)
};

#define NBD_CALL(f) LIBRARY_CALL(struct nbd_calls, f)
static const struct library_call nbd_calls[] = {NBD_CALLS(NBD_CALL)};

struct nbd {
    struct block_device b;
    struct nbd_calls call;
    struct nbd_handle *handle;
    size_t piece;     /* bytes of a request, at most */
    int64_t patience; /* ms */
    bool given_up;    /* an answer may still come, for memory that is not ours any more: nobody listens */
};

typedef int status_fn(struct nbd *d, int64_t cookie); /* 1: over; 0: not yet; -1: failed */

static struct nbd *nbd_of(struct block_device *b)
{
    return container_of(b, struct nbd, b);
}

static enum block_result last_result(struct nbd *d)
{
    return block_result_of_errno(d->call.nbd_get_errno());
}

/* The host's clock decides here when a server is as good as dead; no guest sees that of one which answers. */
static int64_t host_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As status_fn; 0: patience is at its end, and the connection with it. */
static int await(struct nbd *d, status_fn *status, int64_t cookie)
{
    int64_t end = host_ms() + d->patience, left;
    int r = status(d, cookie);
    while (r == 0 && (left = end - host_ms()) > 0) {
        if (d->call.nbd_poll(d->handle, (int)left) < 0 && d->call.nbd_get_errno() != EINTR)
            return -1;
        r = status(d, cookie);
    }
    d->given_up = r == 0;
    return r;
}

static int command_status(struct nbd *d, int64_t cookie)
{
    return d->call.nbd_aio_command_completed(d->handle, (uint64_t)cookie);
}

static int connection_status(struct nbd *d, int64_t unused)
{
    (void)unused;
    return d->call.nbd_aio_is_connecting(d->handle) ? 0 : d->call.nbd_aio_is_ready(d->handle) ? 1 : -1;
}

static enum block_result result_of(struct nbd *d, int64_t cookie)
{
    int r = cookie < 0 ? -1 : await(d, command_status, cookie);
    return r > 0 ? BLOCK_OK : r ? last_result(d) : BLOCK_ERROR;
}

static enum block_result export_read(struct block_device *b, uint64_t offset, void *buf, size_t len)
{
    struct nbd *d = nbd_of(b);
    for (uint8_t *to = buf; len;) {
        size_t n = len < d->piece ? len : d->piece;
        if (d->given_up ||
            result_of(d, d->call.nbd_aio_pread(d->handle, to, n, offset, NBD_NULL_COMPLETION, 0)) != BLOCK_OK)
            return BLOCK_ERROR;
        to += n;
        offset += n;
        len -= n;
    }
    return BLOCK_OK;
}

static enum block_result export_write(struct block_device *b, uint64_t offset, const void *buf, size_t len)
{
    struct nbd *d = nbd_of(b);
    enum block_result r = d->given_up ? BLOCK_ERROR : BLOCK_OK;
    for (const uint8_t *from = buf; len && r == BLOCK_OK;) {
        size_t n = len < d->piece ? len : d->piece;
        r = result_of(d, d->call.nbd_aio_pwrite(d->handle, from, n, offset, NBD_NULL_COMPLETION, 0));
        from += n;
        offset += n;
        len -= n;
    }
    return r;
}

static enum block_result write_zeros(struct block_device *b, uint64_t offset, uint64_t len)
{
    static const uint8_t zeros[1 << 16];
    enum block_result r = BLOCK_OK;
    while (len && r == BLOCK_OK) {
        size_t n = len < sizeof zeros ? (size_t)len : sizeof zeros;
        r = export_write(b, offset, zeros, n);
        offset += n;
        len -= n;
    }
    return r;
}

/* Zeros are asked for, not a trim, which promises nothing of what is read afterwards. */
static enum block_result export_discard(struct block_device *b, uint64_t offset, uint64_t len)
{
    struct nbd *d = nbd_of(b);
    if (d->call.nbd_can_zero(d->handle) <= 0)
        return write_zeros(b, offset, len);
    enum block_result r = d->given_up ? BLOCK_ERROR : BLOCK_OK;
    while (len && r == BLOCK_OK) {
        uint64_t n = len < WHOLE_MAX ? len : WHOLE_MAX;
        r = result_of(d, d->call.nbd_aio_zero(d->handle, n, offset, NBD_NULL_COMPLETION, 0));
        offset += n;
        len -= n;
    }
    return r;
}

static enum block_result export_flush(struct block_device *b)
{
    struct nbd *d = nbd_of(b);
    if (d->given_up)
        return BLOCK_ERROR;
    if (d->call.nbd_can_flush(d->handle) <= 0)
        return BLOCK_OK;
    return result_of(d, d->call.nbd_aio_flush(d->handle, NBD_NULL_COMPLETION, 0));
}

static void export_close(struct block_device *b)
{
    struct nbd *d = nbd_of(b);
    if (!d->given_up) {
        int64_t farewell = d->call.nbd_aio_disconnect(d->handle, 0);
        while (farewell == 0 && !d->call.nbd_aio_is_closed(d->handle) && !d->call.nbd_aio_is_dead(d->handle) &&
               d->call.nbd_poll(d->handle, CLOSING_MS) > 0)
            ;
    }
    d->call.nbd_close(d->handle);
    free(d);
}

static const struct block_ops nbd_ops = {export_read, export_write, export_discard, export_flush, export_close};

bool nbd_is_address(const char *file)
{
    return !strncmp(file, "nbd:", 4) || !strncmp(file, "nbd+unix:", 9) || !strncmp(file, "nbds:", 5) ||
           !strncmp(file, "nbds+unix:", 10);
}

/* nbd:unix:PATH or nbd:HOST:PORT; `rest` is behind "nbd:", and changed. */
static bool begin_old_style(struct nbd *d, char *rest)
{
    char *export = strstr(rest, ":exportname=");
    if (export) {
        *export = 0;
        if (d->call.nbd_set_export_name(d->handle, export + strlen(":exportname=")) < 0)
            return false;
    }
    if (!strncmp(rest, "unix:", 5))
        return d->call.nbd_aio_connect_unix(d->handle, rest + 5) == 0;
    char *port = strrchr(rest, ':');
    if (!port || port == rest || !port[1])
        return false;
    *port++ = 0;
    if (rest[0] == '[' && port[-2] == ']') { /* an IPv6 address */
        port[-2] = 0;
        rest++;
    }
    return d->call.nbd_aio_connect_tcp(d->handle, rest, port) == 0;
}

static bool begin_connection(struct nbd *d, const char *file)
{
    if (strncmp(file, "nbd:", 4) || !strncmp(file, "nbd://", 6))
        return d->call.nbd_aio_connect_uri(d->handle, file) == 0;
    char *copy = strdup(file + 4);
    bool ok = copy && begin_old_style(d, copy);
    free(copy);
    return ok;
}

static size_t piece_size(struct nbd *d)
{
    int64_t most = d->call.nbd_get_block_size(d->handle, LIBNBD_SIZE_MAXIMUM);
    if (most < (int64_t)BLOCK_SECTOR)
        return PIECE_DEFAULT;
    return most > PIECE_MAX ? PIECE_MAX : (size_t)most & ~(size_t)(BLOCK_SECTOR - 1);
}

/* What the server says of the export; NULL, or what is wrong with it. */
static const char *describe(struct nbd *d, bool read_only)
{
    int64_t size = d->call.nbd_get_size(d->handle), least = d->call.nbd_get_block_size(d->handle, LIBNBD_SIZE_MINIMUM);
    if (size < 0 || (uint64_t)size > BLOCK_SIZE_MAX)
        return "its size is out of range";
    if (size % BLOCK_SECTOR)
        return "its size is not whole sectors of 512 bytes";
    if (least > (int64_t)BLOCK_SECTOR)
        return "it wants requests of more than 512 bytes";
    if (!read_only && d->call.nbd_is_read_only(d->handle) != 0)
        return "it is read-only (readonly=on or snapshot=on)";
    d->piece = piece_size(d);
    d->b = (struct block_device){
        .ops = &nbd_ops, .size = (uint64_t)size, .sector_size = BLOCK_SECTOR, .read_only = read_only, .users = 1};
    return NULL;
}

/* NULL, or what is wrong; `why` may be used for it. */
static const char *connect_to(struct nbd *d, const char *file, bool read_only, char *why, size_t why_len)
{
    if (!library_load(NBD_LIBRARY, nbd_calls, ARRAY_LEN(nbd_calls), &d->call, why, why_len))
        return why;
    d->handle = d->call.nbd_create();
    if (d->handle && begin_connection(d, file)) {
        int r = await(d, connection_status, 0);
        if (r > 0)
            return describe(d, read_only);
        if (r == 0)
            return "its server does not answer";
    }
    const char *bad = d->call.nbd_get_error();
    return bad ? bad : "expected nbd:HOST:PORT, nbd:unix:PATH, nbd://HOST or nbd+unix:///?socket=PATH";
}

struct block_device *nbd_open_patiently(const char *file, bool read_only, unsigned ms, char *err, size_t err_len)
{
    struct nbd *d = alloc_zeroed(1, sizeof *d);
    d->patience = ms;
    char why[256];
    const char *bad = connect_to(d, file, read_only, why, sizeof why);
    if (!bad)
        return &d->b;
    snprintf(err, err_len, "export '%s': %s", file, bad);
    if (d->handle)
        d->call.nbd_close(d->handle);
    free(d);
    return NULL;
}

struct block_device *nbd_open(const char *file, bool read_only, char *err, size_t err_len)
{
    return nbd_open_patiently(file, read_only, NBD_PATIENCE, err, err_len);
}
