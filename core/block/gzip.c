/*
 * Gzip-compressed raw images, read-only: decompressed once, when they are opened, into a temporary file in which blocks
 * of zeros take no room. The size that the data has is known only then; a limit keeps a small file from filling the
 * host.
 */
#include "core/block/block_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define PIECE       (1u << 18)
#define CONTENT_MAX (32ull << 30)

bool block_is_gzip(const uint8_t *head, size_t len)
{
    return len >= 3 && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

static const char *reader_error(gzFile in)
{
    int error = Z_OK;
    gzerror(in, &error);
    return error == Z_OK ? NULL : error == Z_BUF_ERROR ? "it is cut short" : "it is damaged";
}

/* Decompresses all; NULL, or what is wrong. */
static const char *inflate_all(gzFile in, int out, uint8_t *piece, uint64_t *size)
{
    for (*size = 0;;) {
        int n = gzread(in, piece, PIECE);
        if (n <= 0)
            return reader_error(in);
        if (gzdirect(in))
            return "it is not compressed by gzip";
        if (*size + (unsigned)n > CONTENT_MAX)
            return "it holds more than 32 GiB";
        if (!is_zero(piece, (size_t)n) && fd_write_at(out, *size, piece, (size_t)n))
            return "no room for its content (TMPDIR names another place)";
        *size += (unsigned)n;
    }
}

static const char *inflate_into(int fd, int out)
{
    uint64_t size = 0;
    uint8_t *piece = malloc(PIECE);
    gzFile in = piece ? gzdopen(fd, "rb") : NULL;
    const char *bad = in ? inflate_all(in, out, piece, &size) : "out of memory";
    if (in)
        gzclose_r(in);
    else
        close(fd);
    free(piece);
    return bad ? bad : ftruncate(out, (off_t)size) ? "no room for its content" : NULL;
}

struct block_device *gzip_open_fd(int fd, const char *name, char *err, size_t err_len)
{
    int out = block_temporary_file(err, err_len);
    if (out < 0) {
        close(fd);
        return NULL;
    }
    const char *bad = inflate_into(fd, out);
    if (!bad)
        return raw_open_fd(out, name, true, err, err_len);
    snprintf(err, err_len, "compressed image '%s': %s", name, bad);
    close(out);
    return NULL;
}
