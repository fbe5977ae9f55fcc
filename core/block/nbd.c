/*
 * Exports of a network block device server (by libnbd): the way to every format that other programs serve, such as
 * qcow2 through qemu-nbd.
 *
 * Addresses: URIs (nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH), or QEMU's older nbd:HOST:PORT and
 * nbd:unix:PATH, both with :exportname=NAME behind them. A server is not trusted: what it says of sizes is checked; a
 * connection that fails makes every request fail.
 */
#include "core/alloc.h"
#include "core/block/block_internal.h"

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_DEFAULT (1u << 20)
#define PIECE_MAX     (32u << 20)
#define WHOLE_MAX     (1u << 30) /* of a request without data */

struct nbd {
    struct block_device b;
    struct nbd_handle *handle;
    size_t piece; /* bytes of a request, at most */
};

static struct nbd *nbd_of(struct block_device *b)
{
    return container_of(b, struct nbd, b);
}

static enum block_result last_result(void)
{
    return block_result_of_errno(nbd_get_errno());
}

static enum block_result export_read(struct block_device *b, uint64_t offset, void *buf, size_t len)
{
    struct nbd *d = nbd_of(b);
    for (uint8_t *to = buf; len;) {
        size_t n = len < d->piece ? len : d->piece;
        if (nbd_pread(d->handle, to, n, offset, 0) < 0)
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
    for (const uint8_t *from = buf; len;) {
        size_t n = len < d->piece ? len : d->piece;
        if (nbd_pwrite(d->handle, from, n, offset, 0) < 0)
            return last_result();
        from += n;
        offset += n;
        len -= n;
    }
    return BLOCK_OK;
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
    if (nbd_can_zero(d->handle) <= 0)
        return write_zeros(b, offset, len);
    while (len) {
        uint64_t n = len < WHOLE_MAX ? len : WHOLE_MAX;
        if (nbd_zero(d->handle, n, offset, 0) < 0)
            return last_result();
        offset += n;
        len -= n;
    }
    return BLOCK_OK;
}

static enum block_result export_flush(struct block_device *b)
{
    struct nbd *d = nbd_of(b);
    if (nbd_can_flush(d->handle) <= 0)
        return BLOCK_OK;
    return nbd_flush(d->handle, 0) < 0 ? last_result() : BLOCK_OK;
}

static void export_close(struct block_device *b)
{
    struct nbd *d = nbd_of(b);
    nbd_shutdown(d->handle, 0);
    nbd_close(d->handle);
    free(d);
}

static const struct block_ops nbd_ops = {export_read, export_write, export_discard, export_flush, export_close};

bool nbd_is_address(const char *file)
{
    return !strncmp(file, "nbd:", 4) || !strncmp(file, "nbd+unix:", 9) || !strncmp(file, "nbds:", 5) ||
           !strncmp(file, "nbds+unix:", 10);
}

/* nbd:unix:PATH or nbd:HOST:PORT; `rest` is behind "nbd:", and changed. */
static bool connect_old_style(struct nbd_handle *h, char *rest)
{
    char *export = strstr(rest, ":exportname=");
    if (export) {
        *export = 0;
        if (nbd_set_export_name(h, export + strlen(":exportname=")) < 0)
            return false;
    }
    if (!strncmp(rest, "unix:", 5))
        return nbd_connect_unix(h, rest + 5) == 0;
    char *port = strrchr(rest, ':');
    if (!port || port == rest || !port[1])
        return false;
    *port++ = 0;
    if (rest[0] == '[' && port[-2] == ']') { /* an IPv6 address */
        port[-2] = 0;
        rest++;
    }
    return nbd_connect_tcp(h, rest, port) == 0;
}

static bool connect_to(struct nbd_handle *h, const char *file)
{
    if (strncmp(file, "nbd:", 4) || !strncmp(file, "nbd://", 6))
        return nbd_connect_uri(h, file) == 0;
    char *copy = strdup(file + 4);
    bool ok = copy && connect_old_style(h, copy);
    free(copy);
    return ok;
}

static size_t piece_size(struct nbd_handle *h)
{
    int64_t most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);
    if (most < (int64_t)BLOCK_SECTOR)
        return PIECE_DEFAULT;
    return most > PIECE_MAX ? PIECE_MAX : (size_t)most & ~(size_t)(BLOCK_SECTOR - 1);
}

/* What the server says of the export; NULL, or what is wrong with it. */
static const char *describe(struct nbd *d, bool read_only)
{
    int64_t size = nbd_get_size(d->handle), least = nbd_get_block_size(d->handle, LIBNBD_SIZE_MINIMUM);
    if (size < 0 || (uint64_t)size > BLOCK_SIZE_MAX)
        return "its size is out of range";
    if (size % BLOCK_SECTOR)
        return "its size is not whole sectors of 512 bytes";
    if (least > (int64_t)BLOCK_SECTOR)
        return "it wants requests of more than 512 bytes";
    if (!read_only && nbd_is_read_only(d->handle) != 0)
        return "it is read-only (readonly=on or snapshot=on)";
    d->piece = piece_size(d->handle);
    d->b = (struct block_device){
        .ops = &nbd_ops, .size = (uint64_t)size, .sector_size = BLOCK_SECTOR, .read_only = read_only, .users = 1};
    return NULL;
}

struct block_device *nbd_open(const char *file, bool read_only, char *err, size_t err_len)
{
    struct nbd *d = alloc_zeroed(1, sizeof *d);
    const char *bad = NULL;
    d->handle = nbd_create();
    if (!d->handle || !connect_to(d->handle, file)) {
        bad = nbd_get_error();
        bad = bad ? bad : "expected nbd:HOST:PORT, nbd:unix:PATH, nbd://HOST or nbd+unix:///?socket=PATH";
    } else {
        bad = describe(d, read_only);
    }
    if (!bad)
        return &d->b;
    snprintf(err, err_len, "export '%s': %s", file, bad);
    if (d->handle)
        nbd_close(d->handle);
    free(d);
    return NULL;
}
