#include "core/bytes.h"
#include "core/snapshot.h"

#include "core/snapshot_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define BUFFER_SIZE  65536
#define SECTIONS_MAX 4096 /* a file with more is not one of ours */

struct section {
    char name[SNAP_NAME_MAX + 1];
    uint32_t version;
    uint64_t offset, len; /* of the payload in the file */
};

struct snap_reader {
    int fd;
    uint64_t file_size;
    struct section *sections;
    size_t count, capacity;
    const struct section *current; /* NULL before the first snap_find() */
    uint64_t pos;                  /* in the current payload */
    uint64_t buf_at;               /* file offset of buf[0] */
    size_t buf_len;
    const char *unchecked; /* section whose payload's CRC is not looked at, or NULL; for the time of opening */
    char error[200];       /* sticky */
    uint8_t buf[BUFFER_SIZE];
};

void snap_fail(struct snap_reader *r, const char *fmt, ...)
{
    if (r->error[0])
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->error, sizeof r->error, fmt, ap);
    va_end(ap);
}

const char *snap_reader_error(const struct snap_reader *r)
{
    return r->error[0] ? r->error : NULL;
}

/* Makes the byte at file offset `at` the first one of the buffer. */
static bool refill(struct snap_reader *r, uint64_t at)
{
    ssize_t n;
    do
        n = pread(r->fd, r->buf, sizeof r->buf, (off_t)at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        snap_fail(r, "%s", strerror(errno));
    else if (n == 0)
        snap_fail(r, "the file ends early");
    r->buf_at = at;
    r->buf_len = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool read_at(struct snap_reader *r, uint64_t at, void *dst, size_t n)
{
    uint8_t *out = dst;
    while (n) {
        if ((at < r->buf_at || at - r->buf_at >= r->buf_len) && !refill(r, at))
            return false;
        size_t skip = (size_t)(at - r->buf_at), take = r->buf_len - skip;
        if (take > n)
            take = n;
        memcpy(out, r->buf + skip, take);
        out += take;
        at += take;
        n -= take;
    }
    return true;
}

static bool check_head(struct snap_reader *r, uint32_t *header_crc)
{
    uint8_t head[SNAP_FILE_HEAD];
    if (r->file_size < sizeof head || !read_at(r, 0, head, sizeof head)) {
        snap_fail(r, "not a snapshot: too short");
        return false;
    }
    if (memcmp(head, SNAP_MAGIC, 8)) {
        snap_fail(r, "not a snapshot");
        return false;
    }
    uint32_t format = (uint32_t)load_le(head + 8, 4);
    if (format != SNAP_FORMAT) {
        snap_fail(r, "format version %u, this build reads %u", format, SNAP_FORMAT);
        return false;
    }
    *header_crc = (uint32_t)crc32(0, head, sizeof head);
    return true;
}

static bool name_is_usable(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return n > 0;
}

/* Parses the header at *at into *s and moves *at to the payload. */
static bool read_header(struct snap_reader *r, uint64_t *at, struct section *s, uint32_t *header_crc)
{
    uint8_t h[SNAP_HEADER_MAX];
    uint64_t left = r->file_size - *at;
    if (left < 1 || !read_at(r, *at, h, 1) || h[0] > SNAP_NAME_MAX || left < (uint64_t)h[0] + SNAP_HEADER_MIN ||
        !read_at(r, *at, h, h[0] + SNAP_HEADER_MIN)) {
        snap_fail(r, "damaged or truncated at byte %llu", (unsigned long long)*at);
        return false;
    }
    size_t n = h[0];
    memcpy(s->name, h + 1, n);
    s->name[n] = 0;
    s->version = (uint32_t)load_le(h + 1 + n, 4);
    s->len = load_le(h + 5 + n, 8);
    s->offset = *at + n + SNAP_HEADER_MIN;
    left = r->file_size - s->offset;
    if (!name_is_usable(s->name, n) || left < 4 || s->len > left - 4) {
        snap_fail(r, "damaged or truncated at byte %llu", (unsigned long long)*at);
        return false;
    }
    if (strcmp(s->name, SNAP_END))
        *header_crc = (uint32_t)crc32(*header_crc, h, (uInt)(n + SNAP_HEADER_MIN));
    *at = s->offset;
    return true;
}

static bool check_payload(struct snap_reader *r, const struct section *s)
{
    uint8_t chunk[4096], stored[4];
    uint32_t crc = (uint32_t)crc32(0, NULL, 0);
    for (uint64_t done = 0; done < s->len;) {
        size_t n = s->len - done < sizeof chunk ? (size_t)(s->len - done) : sizeof chunk;
        if (!read_at(r, s->offset + done, chunk, n))
            return false;
        crc = (uint32_t)crc32(crc, chunk, (uInt)n);
        done += n;
    }
    if (!read_at(r, s->offset + s->len, stored, 4))
        return false;
    if (load_le(stored, 4) != crc) {
        snap_fail(r, "section '%s' is damaged (CRC)", s->name);
        return false;
    }
    return true;
}

static const struct section *section_by_name(const struct snap_reader *r, const char *name)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->sections[i].name, name) == 0)
            return &r->sections[i];
    return NULL;
}

static bool add_section(struct snap_reader *r, const struct section *s)
{
    if (section_by_name(r, s->name) || r->count == SECTIONS_MAX) {
        snap_fail(r, "section '%s' occurs twice, or there are too many", s->name);
        return false;
    }
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? r->capacity * 2 : 32;
        struct section *sections = reallocarray(r->sections, capacity, sizeof *sections);
        if (!sections) {
            snap_fail(r, "out of memory");
            return false;
        }
        r->sections = sections;
        r->capacity = capacity;
    }
    r->sections[r->count++] = *s;
    return true;
}

/* The final section closes the file and vouches for every header before it. */
static bool check_end(struct snap_reader *r, const struct section *s, uint32_t header_crc)
{
    uint8_t stored[SNAP_END_PAYLOAD];
    if (s->version != SNAP_END_VERSION || s->len != SNAP_END_PAYLOAD || s->offset + s->len + 4 != r->file_size) {
        snap_fail(r, "damaged end");
        return false;
    }
    if (!read_at(r, s->offset, stored, sizeof stored))
        return false;
    if (load_le(stored, sizeof stored) != header_crc) {
        snap_fail(r, "a section header is damaged (CRC)");
        return false;
    }
    return true;
}

static bool verify(struct snap_reader *r)
{
    uint32_t header_crc;
    if (!check_head(r, &header_crc))
        return false;
    for (uint64_t at = SNAP_FILE_HEAD;;) {
        struct section s = {0};
        if (!read_header(r, &at, &s, &header_crc))
            return false;
        if (!(r->unchecked && !strcmp(s.name, r->unchecked)) && !check_payload(r, &s))
            return false;
        if (!strcmp(s.name, SNAP_END))
            return check_end(r, &s, header_crc);
        if (!add_section(r, &s))
            return false;
        at = s.offset + s.len + 4;
    }
}

static bool measure_file(struct snap_reader *r)
{
    struct stat st;
    if (r->fd < 0 || fstat(r->fd, &st)) {
        snap_fail(r, "%s", strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        snap_fail(r, "not a regular file");
        return false;
    }
    r->file_size = (uint64_t)st.st_size;
    return true;
}

static struct snap_reader *open_reader(int fd, const char *name, const char *unchecked, char *err, size_t err_len)
{
    struct snap_reader *r = calloc(1, sizeof *r);
    if (!r) {
        snprintf(err, err_len, "cannot read snapshot '%s': out of memory", name);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    r->fd = fd;
    r->unchecked = unchecked;
    if (!measure_file(r) || !verify(r)) {
        snprintf(err, err_len, "cannot read snapshot '%s': %s", name, r->error);
        snap_reader_close(r);
        return NULL;
    }
    return r;
}

struct snap_reader *snap_reader_open_fd(int fd, const char *name, char *err, size_t err_len)
{
    return open_reader(fd, name, NULL, err, err_len);
}

struct snap_reader *snap_reader_open(const char *path, char *err, size_t err_len)
{
    return snap_reader_open_unchecked(path, NULL, err, err_len);
}

struct snap_reader *snap_reader_open_unchecked(const char *path, const char *section, char *err, size_t err_len)
{
    return open_reader(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), path, section, err, err_len);
}

void snap_reader_close(struct snap_reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    free(r->sections);
    free(r);
}

bool snap_find(struct snap_reader *r, const char *name, uint32_t *version)
{
    const struct section *s = section_by_name(r, name);
    *version = s ? s->version : 0;
    r->current = s;
    r->pos = 0;
    if (!s)
        snap_fail(r, "section '%s' is missing", name);
    return s != NULL;
}

bool snap_expect(struct snap_reader *r, const char *name, uint32_t version)
{
    uint32_t found;
    if (!snap_find(r, name, &found))
        return false;
    if (found != version)
        snap_fail(r, "section '%s' has version %u, this build reads %u", name, found, version);
    return found == version;
}

size_t snap_left(const struct snap_reader *r)
{
    return r->current && !r->error[0] ? (size_t)(r->current->len - r->pos) : 0;
}

void snap_get_bytes(struct snap_reader *r, void *p, size_t n)
{
    if (!n)
        return;
    if (!r->error[0] && n > snap_left(r))
        snap_fail(r, "section '%s' is too short", r->current ? r->current->name : "(none)");
    if (r->error[0] || !read_at(r, r->current->offset + r->pos, p, n)) {
        memset(p, 0, n);
        return;
    }
    r->pos += n;
}

static bool unpack(const uint8_t *packed, size_t len, void *p, size_t n)
{
    uLongf got = n;
    uLong used = len;
    return uncompress2(p, &got, packed, &used) == Z_OK && got == n && used == len;
}

uint64_t snap_file_offset(const struct snap_reader *r)
{
    return r->current ? r->current->offset + r->pos : 0;
}

int snap_reader_dup(const struct snap_reader *r)
{
    return fcntl(r->fd, F_DUPFD_CLOEXEC, 0);
}

uint32_t snap_crc(uint32_t crc, const void *p, size_t n)
{
    return (uint32_t)crc32(crc, p, (uInt)n);
}

static uint64_t get_le(struct snap_reader *r, unsigned n)
{
    uint8_t b[8];
    snap_get_bytes(r, b, n);
    return load_le(b, n);
}

uint8_t snap_get_u8(struct snap_reader *r)
{
    return (uint8_t)get_le(r, 1);
}

uint16_t snap_get_u16(struct snap_reader *r)
{
    return (uint16_t)get_le(r, 2);
}

uint32_t snap_get_u32(struct snap_reader *r)
{
    return (uint32_t)get_le(r, 4);
}

uint64_t snap_get_u64(struct snap_reader *r)
{
    return get_le(r, 8);
}

void snap_get_packed(struct snap_reader *r, void *p, size_t n)
{
    uint8_t packed[SNAP_PACKED_MAX];
    if (n < 2 || n > SNAP_PACKED_MAX) {
        snap_get_bytes(r, p, n);
        return;
    }
    uint32_t len = snap_get_u32(r);
    if (len >= n) {
        if (len > n)
            snap_fail(r, "section '%s': %u bytes stand for %zu", r->current ? r->current->name : "(none)", len, n);
        snap_get_bytes(r, p, n);
        return;
    }
    snap_get_bytes(r, packed, len);
    if (snap_reader_error(r) || unpack(packed, len, p, n))
        return;
    snap_fail(r, "section '%s' cannot be decompressed", r->current ? r->current->name : "(none)");
    memset(p, 0, n);
}

void snap_skip_packed(struct snap_reader *r)
{
    uint32_t len = snap_get_u32(r);
    if (len > snap_left(r))
        snap_fail(r, "section '%s' is too short", r->current ? r->current->name : "(none)");
    if (!r->error[0])
        r->pos += len;
}

static bool pread_all(int fd, void *buf, size_t n, uint64_t at)
{
    ssize_t got;
    do
        got = pread(fd, buf, n, (off_t)at);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)n;
}

bool snap_read_packed_at(int fd, uint64_t offset, void *p, size_t n)
{
    uint8_t head[4], packed[SNAP_PACKED_MAX];
    if (n < 2 || n > SNAP_PACKED_MAX || !pread_all(fd, head, sizeof head, offset))
        return false;
    uint64_t len = load_le(head, 4);
    if (len >= n)
        return len == n && pread_all(fd, p, n, offset + sizeof head);
    return pread_all(fd, packed, (size_t)len, offset + sizeof head) && unpack(packed, (size_t)len, p, n);
}
