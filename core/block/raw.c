/*
 * Raw images: a file or a device of the host, byte for byte. A file whose size is not whole sectors reads as zeros
 * behind its end, and grows when the last sector is written.
 *
 * The image is locked (an advisory lock of the open file, which QEMU's tools meet as well): many readers, or one
 * writer.
 */
#define _GNU_SOURCE

#include "core/alloc.h"
#include "core/block/block_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct raw {
    struct block_device b;
    int fd;
};

enum block_result block_result_of_errno(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? BLOCK_FULL : BLOCK_ERROR;
}

enum block_result fd_read_at(int fd, uint64_t offset, void *buf, size_t len)
{
    uint8_t *to = buf;
    while (len) {
        ssize_t n = pread(fd, to, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return BLOCK_ERROR;
        if (!n) {
            memset(to, 0, len);
            return BLOCK_OK;
        }
        to += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return BLOCK_OK;
}

enum block_result fd_write_at(int fd, uint64_t offset, const void *buf, size_t len)
{
    const uint8_t *from = buf;
    while (len) {
        ssize_t n = pwrite(fd, from, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return block_result_of_errno(n ? errno : ENOSPC);
        from += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return BLOCK_OK;
}

enum block_result fd_zero_at(int fd, uint64_t offset, uint64_t len)
{
    static const uint8_t zeros[1 << 16];
    if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len))
        return BLOCK_OK;
    while (len) {
        size_t n = len < sizeof zeros ? (size_t)len : sizeof zeros;
        enum block_result r = fd_write_at(fd, offset, zeros, n);
        if (r)
            return r;
        offset += n;
        len -= n;
    }
    return BLOCK_OK;
}

static int raw_fd(const struct block_device *b)
{
    return container_of(b, const struct raw, b)->fd;
}

static enum block_result raw_read(struct block_device *b, uint64_t offset, void *buf, size_t len)
{
    return fd_read_at(raw_fd(b), offset, buf, len);
}

static enum block_result raw_write(struct block_device *b, uint64_t offset, const void *buf, size_t len)
{
    return fd_write_at(raw_fd(b), offset, buf, len);
}

static enum block_result raw_discard(struct block_device *b, uint64_t offset, uint64_t len)
{
    return len ? fd_zero_at(raw_fd(b), offset, len) : BLOCK_OK;
}

static enum block_result raw_flush(struct block_device *b)
{
    return fdatasync(raw_fd(b)) ? block_result_of_errno(errno) : BLOCK_OK;
}

static void raw_close(struct block_device *b)
{
    close(raw_fd(b));
    free(container_of(b, struct raw, b));
}

static const struct block_ops raw_ops = {raw_read, raw_write, raw_discard, raw_flush, raw_close};

/* False: someone else has it. File systems without locks are no reason to refuse. */
static bool lock_image(int fd, bool read_only)
{
    struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    return !fcntl(fd, F_OFD_SETLK, &lock) || (errno != EAGAIN && errno != EACCES);
}

static bool image_size(int fd, uint64_t *size, unsigned *sector, char *err, size_t err_len)
{
    struct stat st;
    int bytes = 0;
    *sector = BLOCK_SECTOR;
    if (fstat(fd, &st)) {
        snprintf(err, err_len, "%s", strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        snprintf(err, err_len, "neither a file nor a block device");
        return false;
    }
    off_t end = lseek(fd, 0, SEEK_END);
    if (S_ISBLK(st.st_mode) && !ioctl(fd, BLKSSZGET, &bytes) && bytes >= (int)BLOCK_SECTOR && bytes <= 4096)
        *sector = (unsigned)bytes;
    if (end < 0 || (uint64_t)end > BLOCK_SIZE_MAX - BLOCK_SECTOR) {
        snprintf(err, err_len, "its size is out of range");
        return false;
    }
    *size = ((uint64_t)end + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
    return true;
}

struct block_device *raw_open_fd(int fd, const char *name, bool read_only, char *err, size_t err_len)
{
    char why[128] = "";
    uint64_t size = 0;
    unsigned sector;
    if (!image_size(fd, &size, &sector, why, sizeof why)) {
        snprintf(err, err_len, "image '%s': %s", name, why);
    } else if (!lock_image(fd, read_only)) {
        snprintf(err, err_len, "image '%s' is in use by another program%s", name,
                 read_only ? ", which writes to it" : " (snapshot=on or readonly=on may help)");
    } else {
        struct raw *raw = alloc_zeroed(1, sizeof *raw);
        raw->b = (struct block_device){
            .ops = &raw_ops, .size = size, .sector_size = sector, .read_only = read_only, .users = 1};
        raw->fd = fd;
        return &raw->b;
    }
    close(fd);
    return NULL;
}

int block_temporary_file(char *err, size_t err_len)
{
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir)
        dir = "/var/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        char name[4096];
        snprintf(name, sizeof name, "%s/umbra-XXXXXX", dir);
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0)
            unlink(name);
    }
    if (fd < 0)
        snprintf(err, err_len, "cannot make a temporary file in '%s': %s (TMPDIR names another place)", dir,
                 strerror(errno));
    return fd;
}
