#define _GNU_SOURCE /* madvise */

#include "frontends/machine/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define FILE_MAX ((size_t)2 << 30)

#define HUGE_PAGE ((size_t)2 << 20)

/* Room for `len` bytes and a zero behind them; NULL: no memory. A kernel goes on huge pages: the page faults would take
 * longer than reading it. */
static uint8_t *buffer_new(size_t len)
{
    if (len < HUGE_PAGE)
        return calloc(1, len + 1);
    size_t size = (len + HUGE_PAGE) & ~(HUGE_PAGE - 1);
    uint8_t *p = aligned_alloc(HUGE_PAGE, size);
    if (!p)
        return NULL;
    madvise(p, size, MADV_HUGEPAGE);
    p[len] = 0;
    return p;
}

static bool read_all(struct file *f, FILE *in, struct error *e)
{
    struct stat st;
    if (fstat(fileno(in), &st) || !S_ISREG(st.st_mode))
        return error_set(e, "cannot read '%s': not a regular file", f->path);
    if ((uint64_t)st.st_size > FILE_MAX)
        return error_set(e, "cannot read '%s': larger than 2 GiB", f->path);
    f->len = (size_t)st.st_size;
    f->data = buffer_new(f->len);
    if (!f->data)
        return error_set(e, "cannot read '%s': out of memory", f->path);
    if (fread(f->data, 1, f->len, in) != f->len)
        return error_set(e, "cannot read '%s': %s", f->path,
                         ferror(in) ? strerror(errno) : "it shrank while it was read");
    return true;
}

bool file_read(struct file *f, const char *path, struct error *e)
{
    *f = (struct file){.path = path};
    FILE *in = fopen(path, "rb");
    if (!in)
        return error_set(e, "cannot open '%s': %s", path, strerror(errno));
    bool ok = read_all(f, in, e);
    fclose(in);
    if (!ok)
        file_free(f);
    return ok;
}

static void data_free(struct file *f)
{
    free(f->data);
    f->data = NULL;
}

void file_rest(struct file *f)
{
    if (!f->data)
        return;
    if (!f->rests) {
        f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
        if (f->fd < 0)
            return;
        f->hash = XXH3_64bits(f->data, f->len);
        f->rests = true;
    }
    data_free(f);
}

static bool read_again(const struct file *f)
{
    size_t at = 0;
    ssize_t n = 1;
    while (at < f->len && (n = pread(f->fd, f->data + at, f->len - at, (off_t)at)) > 0)
        at += (size_t)n;
    return at == f->len;
}

bool file_wake(struct file *f, struct error *e)
{
    struct stat st;
    if (f->data || !f->rests)
        return true;
    f->data = buffer_new(f->len);
    if (!f->data)
        return error_set(e, "cannot read '%s' again: out of memory", f->path);
    if (!fstat(f->fd, &st) && (uint64_t)st.st_size == f->len && read_again(f) &&
        XXH3_64bits(f->data, f->len) == f->hash)
        return true;
    data_free(f);
    return error_set(e, "'%s' has changed since it was read", f->path);
}

void file_free(struct file *f)
{
    data_free(f);
    if (f->rests)
        close(f->fd);
    f->rests = false;
    f->len = 0;
}
