#define _GNU_SOURCE /* memfd_create */

#include "core/bytes.h"
#include "core/snapshot.h"

#include "core/snapshot_format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>

struct snap_writer {
    FILE *file;         /* NULL: a digest only */
    char *path, *tmp;   /* NULL: in memory */
    XXH3_state_t *hash; /* NULL: a file */
    bool in_section;
    uint64_t section_len;
    uint32_t payload_crc, header_crc;
    long length_at; /* file offset of the open section's length field */
    uint8_t header[SNAP_HEADER_MAX];
    size_t header_len;
    bool packs;      /* `pack` is set up */
    z_stream pack;   /* of snap_put_packed() */
    char error[160]; /* sticky: the first failure */
};

static void fail(struct snap_writer *w, const char *what)
{
    if (!w->error[0])
        snprintf(w->error, sizeof w->error, "%s", what);
}

void snap_writer_fail(struct snap_writer *w, const char *why)
{
    fail(w, why);
}

static void raw_write(struct snap_writer *w, const void *p, size_t n)
{
    if (!w->error[0] && fwrite(p, 1, n, w->file) != n)
        fail(w, strerror(errno));
}

static void writer_free(struct snap_writer *w)
{
    if (w->hash)
        XXH3_freeState(w->hash);
    if (w->packs)
        deflateEnd(&w->pack);
    free(w->path);
    free(w->tmp);
    free(w);
}

static struct snap_writer *writer_new(const char *path)
{
    struct snap_writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    size_t n = strlen(path) + sizeof ".tmp";
    w->path = strdup(path);
    w->tmp = malloc(n);
    if (!w->path || !w->tmp) {
        writer_free(w);
        return NULL;
    }
    snprintf(w->tmp, n, "%s.tmp", path);
    return w;
}

static void put_head(struct snap_writer *w)
{
    uint8_t head[SNAP_FILE_HEAD];
    memcpy(head, SNAP_MAGIC, 8);
    store_le(head + 8, SNAP_FORMAT, 4);
    raw_write(w, head, sizeof head);
    w->header_crc = (uint32_t)crc32(0, head, sizeof head);
}

struct snap_writer *snap_writer_open(const char *path, char *err, size_t err_len)
{
    struct snap_writer *w = writer_new(path);
    if (!w) {
        snprintf(err, err_len, "cannot write snapshot '%s': out of memory", path);
        return NULL;
    }
    w->file = fopen(w->tmp, "wb");
    if (!w->file) {
        snprintf(err, err_len, "cannot write snapshot '%s': %s", w->tmp, strerror(errno));
        writer_free(w);
        return NULL;
    }
    put_head(w);
    return w;
}

struct snap_writer *snap_writer_memory(void)
{
    struct snap_writer *w = calloc(1, sizeof *w);
    int fd = w ? memfd_create("snapshot", MFD_CLOEXEC) : -1;
    if (fd >= 0)
        w->file = fdopen(fd, "w+b");
    if (!w || !w->file) {
        if (fd >= 0)
            close(fd);
        free(w);
        return NULL;
    }
    put_head(w);
    return w;
}

struct snap_writer *snap_writer_digest(void)
{
    struct snap_writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->hash = XXH3_createState();
    if (!w->hash) {
        free(w);
        return NULL;
    }
    XXH3_64bits_reset(w->hash);
    return w;
}

void snap_begin(struct snap_writer *w, const char *name, uint32_t version)
{
    size_t n = strlen(name);
    if (w->in_section || !n || n > SNAP_NAME_MAX) {
        fail(w, "section begun inside another one, or with an unusable name");
        return;
    }
    w->in_section = true;
    w->section_len = 0;
    w->payload_crc = (uint32_t)crc32(0, NULL, 0);
    w->header[0] = (uint8_t)n;
    memcpy(w->header + 1, name, n);
    store_le(w->header + 1 + n, version, 4);
    store_le(w->header + 5 + n, 0, 8);
    w->header_len = n + SNAP_HEADER_MIN;
    if (w->hash) {
        XXH3_64bits_update(w->hash, w->header, w->header_len);
        return;
    }
    w->length_at = ftell(w->file) + (long)(w->header_len - 8);
    raw_write(w, w->header, w->header_len);
}

void snap_put_bytes(struct snap_writer *w, const void *p, size_t n)
{
    if (!w->in_section) {
        fail(w, "data outside a section");
        return;
    }
    if (!n)
        return;
    w->section_len += n;
    if (w->hash) {
        XXH3_64bits_update(w->hash, p, n);
        return;
    }
    w->payload_crc = (uint32_t)crc32_z(w->payload_crc, p, n);
    raw_write(w, p, n);
}

static void patch_length(struct snap_writer *w)
{
    if (w->error[0])
        return;
    if (fseek(w->file, w->length_at, SEEK_SET) || fwrite(w->header + w->header_len - 8, 1, 8, w->file) != 8 ||
        fseek(w->file, 0, SEEK_END))
        fail(w, strerror(errno));
}

void snap_end(struct snap_writer *w)
{
    if (!w->in_section) {
        fail(w, "section ended that was not begun");
        return;
    }
    w->in_section = false;
    store_le(w->header + w->header_len - 8, w->section_len, 8);
    if (w->hash) {
        /* The length closes the section: no two sequences of sections give the same bytes. */
        XXH3_64bits_update(w->hash, w->header + w->header_len - 8, 8);
        return;
    }
    uint8_t crc[4];
    store_le(crc, w->payload_crc, 4);
    raw_write(w, crc, 4);
    patch_length(w);
    w->header_crc = (uint32_t)crc32_z(w->header_crc, w->header, w->header_len);
}

static void put_le(struct snap_writer *w, uint64_t v, unsigned n)
{
    uint8_t b[8];
    store_le(b, v, n);
    snap_put_bytes(w, b, n);
}

/* The compressed length; 0: it would not be shorter, or cannot be done. */
static size_t pack(struct snap_writer *w, const void *p, size_t n, uint8_t *out)
{
    if (!w->packs)
        w->packs = deflateInit(&w->pack, Z_BEST_SPEED) == Z_OK;
    if (!w->packs || deflateReset(&w->pack) != Z_OK)
        return 0;
    w->pack.next_in = (z_const Bytef *)(uintptr_t)p;
    w->pack.avail_in = (uInt)n;
    w->pack.next_out = out;
    w->pack.avail_out = (uInt)(n - 1);
    return deflate(&w->pack, Z_FINISH) == Z_STREAM_END ? n - 1 - w->pack.avail_out : 0;
}

void snap_put_packed(struct snap_writer *w, const void *p, size_t n)
{
    uint8_t out[SNAP_PACKED_MAX];
    if (w->hash || n < 2 || n > SNAP_PACKED_MAX) {
        if (n > SNAP_PACKED_MAX)
            fail(w, "too much at once");
        snap_put_bytes(w, p, n);
        return;
    }
    size_t len = pack(w, p, n, out);
    snap_put_u32(w, (uint32_t)(len ? len : n));
    snap_put_bytes(w, len ? out : p, len ? len : n);
}

void snap_put_u8(struct snap_writer *w, uint8_t v)
{
    put_le(w, v, 1);
}

void snap_put_u16(struct snap_writer *w, uint16_t v)
{
    put_le(w, v, 2);
}

void snap_put_u32(struct snap_writer *w, uint32_t v)
{
    put_le(w, v, 4);
}

void snap_put_u64(struct snap_writer *w, uint64_t v)
{
    put_le(w, v, 8);
}

static void put_final_section(struct snap_writer *w)
{
    uint32_t headers = w->header_crc;
    snap_begin(w, SNAP_END, SNAP_END_VERSION);
    snap_put_u32(w, headers);
    snap_end(w);
}

int snap_writer_close(struct snap_writer *w, char *err, size_t err_len)
{
    if (w->hash || (w->file && !w->path))
        fail(w, "a digest, or what is in memory, has no file");
    if (w->in_section)
        fail(w, "a section was left open");
    if (w->file) {
        if (!w->error[0])
            put_final_section(w);
        if (!w->error[0] && (fflush(w->file) || fsync(fileno(w->file))))
            fail(w, strerror(errno));
        if (fclose(w->file))
            fail(w, strerror(errno));
        if (!w->error[0] && rename(w->tmp, w->path))
            fail(w, strerror(errno));
        if (w->error[0] && w->tmp)
            unlink(w->tmp);
    }
    int rc = w->error[0] ? -1 : 0;
    if (rc)
        snprintf(err, err_len, "cannot write snapshot '%s': %s", w->path ? w->path : "(digest)", w->error);
    writer_free(w);
    return rc;
}

struct snap_reader *snap_writer_read_back(struct snap_writer *w, char *err, size_t err_len)
{
    int fd = -1;
    if (w->in_section)
        fail(w, "a section was left open");
    if (!w->file || w->path)
        fail(w, "not in memory");
    if (!w->error[0])
        put_final_section(w);
    if (!w->error[0] && (fflush(w->file) || (fd = dup(fileno(w->file))) < 0))
        fail(w, strerror(errno));
    bool ok = !w->error[0];
    if (!ok)
        snprintf(err, err_len, "cannot write snapshot in memory: %s", w->error);
    if (w->file)
        fclose(w->file);
    writer_free(w);
    return ok ? snap_reader_open_fd(fd, "in memory", err, err_len) : NULL;
}

uint64_t snap_writer_digest_close(struct snap_writer *w)
{
    uint64_t digest = w->hash ? XXH3_64bits_digest(w->hash) : 0;
    if (w->file) {
        fclose(w->file);
        if (w->tmp)
            unlink(w->tmp);
    }
    writer_free(w);
    return digest;
}
