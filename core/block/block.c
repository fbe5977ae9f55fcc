#include "core/block/block_internal.h"
#include "core/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MODE_RAW     0
#define MODE_OVERLAY 1

static bool in_range(const struct block_device *b, uint64_t offset, uint64_t len)
{
    return !((offset | len) % BLOCK_SECTOR) && offset <= b->size && len <= b->size - offset;
}

/* What the guest is told of what the host said. */
static enum block_result judge(enum block_result r, enum block_on_error on_error)
{
    if (r != BLOCK_FULL && r != BLOCK_ERROR)
        return r;
    switch (on_error) {
    case BLOCK_ON_ERROR_REPORT:
        return BLOCK_ERROR;
    case BLOCK_ON_ERROR_IGNORE:
        return BLOCK_OK;
    case BLOCK_ON_ERROR_STOP:
        return BLOCK_FULL;
    default:
        return r;
    }
}

static enum block_result count_result(struct block_device *b, enum block_result said, bool is_write)
{
    enum block_result r = judge(said, is_write ? b->on_write : b->on_read);
    if (r == BLOCK_FULL) {
        b->counters.pauses++;
        b->waits_to_write = is_write;
        b->waits_since = said;
        if (b->full)
            b->full(b->full_ctx, b);
    } else if (said != BLOCK_OK) {
        b->counters.errors++;
    }
    return r;
}

enum block_result block_read(struct block_device *b, uint64_t offset, void *buf, size_t len)
{
    b->counters.reads++;
    b->counters.read_bytes += len;
    enum block_result said = in_range(b, offset, len) ? b->ops->read(b, offset, buf, len) : BLOCK_RANGE;
    enum block_result r = count_result(b, said, false);
    if (said && !r)
        memset(buf, 0, len);
    return r;
}

static enum block_result check_change(const struct block_device *b, uint64_t offset, uint64_t len)
{
    if (b->read_only)
        return BLOCK_READ_ONLY;
    return in_range(b, offset, len) ? BLOCK_OK : BLOCK_RANGE;
}

enum block_result block_write(struct block_device *b, uint64_t offset, const void *buf, size_t len)
{
    enum block_result r = check_change(b, offset, len);
    b->counters.writes++;
    b->counters.written_bytes += len;
    return count_result(b, r ? r : b->ops->write(b, offset, buf, len), true);
}

enum block_result block_discard(struct block_device *b, uint64_t offset, uint64_t len)
{
    enum block_result r = check_change(b, offset, len);
    b->counters.discards++;
    return count_result(b, r ? r : b->ops->discard(b, offset, len), true);
}

enum block_result block_flush(struct block_device *b)
{
    b->counters.flushes++;
    return b->read_only ? BLOCK_OK : count_result(b, b->ops->flush(b), true);
}

void block_set_full(struct block_device *b, void (*full)(void *ctx, struct block_device *b), void *ctx)
{
    b->full = full;
    b->full_ctx = ctx;
}

void block_close(struct block_device *b)
{
    if (b && !--b->users)
        b->ops->close(b);
}

const char *block_result_text(enum block_result r)
{
    switch (r) {
    case BLOCK_OK:
        return "done";
    case BLOCK_FULL:
        return "no room on the host's disk";
    case BLOCK_READ_ONLY:
        return "it is read-only";
    case BLOCK_RANGE:
        return "beyond the end, or not whole sectors";
    default:
        return "the host's input or output failed";
    }
}

/* ---- opening ---- */

static int open_file(const struct block_open_config *cfg, bool read_only, char *err, size_t err_len)
{
    int fd = open(cfg->file, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return fd;
    bool denied = !read_only && (errno == EACCES || errno == EROFS || errno == EPERM);
    snprintf(err, err_len, "cannot open '%s': %s%s", cfg->file, strerror(errno),
             denied ? " (readonly=on or snapshot=on needs no right to write)" : "");
    return -1;
}

static void explain_foreign(const char *file, const char *foreign, char *err, size_t err_len)
{
    if (strstr(foreign, "compressed"))
        snprintf(err, err_len, "'%s' is %s: of compressed images gzip's are read, unpack this one first", file,
                 foreign);
    else
        snprintf(err, err_len,
                 "'%s' is a %s image: serve it with 'qemu-nbd -k SOCKET -t -f FORMAT %s' and give "
                 "file=nbd+unix:///?socket=SOCKET (or format=raw if its raw bytes are meant)",
                 file, foreign, file);
}

static struct block_device *open_detected(const struct block_open_config *cfg, int fd, bool read_only, char *err,
                                          size_t err_len)
{
    uint8_t head[512] = {0};
    ssize_t n = pread(fd, head, sizeof head, 0);
    size_t len = n > 0 ? (size_t)n : 0;
    const char *foreign = cfg->format == BLOCK_FORMAT_AUTO ? block_foreign_format(head, len) : NULL;
    if (foreign) {
        explain_foreign(cfg->file, foreign, err, err_len);
        close(fd);
        return NULL;
    }
    if (cfg->format == BLOCK_FORMAT_GZIP || (cfg->format == BLOCK_FORMAT_AUTO && block_is_gzip(head, len)))
        return gzip_open_fd(fd, cfg->file, err, err_len);
    return raw_open_fd(fd, cfg->file, read_only, err, err_len);
}

static struct block_device *open_image(const struct block_open_config *cfg, char *err, size_t err_len)
{
    bool read_only = cfg->read_only || cfg->snapshot;
    if (nbd_is_address(cfg->file))
        return nbd_open(cfg->file, read_only, err, err_len);
    int fd = open_file(cfg, read_only, err, err_len);
    return fd < 0 ? NULL : open_detected(cfg, fd, read_only, err, err_len);
}

struct block_device *block_open(const struct block_open_config *cfg, char *err, size_t err_len)
{
    struct block_device *base = open_image(cfg, err, err_len);
    if (!base || !cfg->snapshot || cfg->read_only)
        return base;
    struct block_device *top = block_overlay(base, err, err_len);
    block_close(base);
    return top;
}

struct block_device *block_fork(struct block_device *b, char *err, size_t err_len)
{
    if (b->is_overlay)
        return overlay_fork(b, err, err_len);
    if (!b->read_only) {
        snprintf(err, err_len, "a disk is written to directly: forked machines need snapshot=on (or -snapshot)");
        return NULL;
    }
    b->users++;
    return b;
}

/* ---- snapshots ---- */

void block_save(struct block_device *b, struct snap_writer *w)
{
    snap_put_u64(w, b->size);
    snap_put_u8(w, b->is_overlay ? MODE_OVERLAY : MODE_RAW);
    if (b->is_overlay)
        overlay_save(b, w);
}

void block_load(struct block_device *b, struct snap_reader *r)
{
    uint64_t size = snap_get_u64(r);
    uint8_t mode = snap_get_u8(r);
    if (snap_reader_error(r))
        return;
    if (size != b->size)
        snap_fail(r, "it was made with a disk of %llu bytes, this machine's has %llu", (unsigned long long)size,
                  (unsigned long long)b->size);
    else if (mode == MODE_OVERLAY && !b->is_overlay)
        snap_fail(r, "it holds what was written to a disk: give snapshot=on (or -snapshot), as when it was made");
    else if (b->is_overlay)
        overlay_load(b, mode == MODE_OVERLAY ? r : NULL);
}
