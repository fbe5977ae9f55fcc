#include "core/alloc.h"
#include "core/host/host_mm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * What file and mirror VMAs show, and how long it lives. VMAs come and go under the host_mm lock; a mirror's
 * subscription can only end without it, so the last user leaves the backing in the list and a later call without the
 * lock clears up.
 */

struct vma_backing *vma_backing_add(struct host_mm *mm, enum vma_kind kind)
{
    struct vma_backing *b = alloc_zeroed(1, sizeof *b);
    b->mm = mm;
    b->kind = kind;
    b->fd = -1;
    b->next = mm->backings;
    mm->backings = b;
    return b;
}

static struct vma_backing *take_unused(struct host_mm *mm)
{
    host_mm_lock(mm);
    struct vma_backing **link = &mm->backings, *b;
    while ((b = *link) && b->refs)
        link = &b->next;
    if (b)
        *link = b->next;
    host_mm_unlock(mm);
    return b;
}

void vma_backing_reap(struct host_mm *mm)
{
    struct vma_backing *b;
    while ((b = take_unused(mm))) {
        notifier_unregister(&b->notifier);
        if (b->fd >= 0)
            close(b->fd);
        free(b);
    }
}

int vma_backing_read(const struct vma_backing *b, uint64_t offset, void *buf)
{
    uint8_t *p = buf;
    size_t done = 0;
    while (done < PAGE_SIZE) {
        ssize_t n = pread(b->fd, p + done, PAGE_SIZE - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return HOST_IO_ERROR;
        if (!n)
            break;
        done += (size_t)n;
    }
    memset(p + done, 0, PAGE_SIZE - done);
    return HOST_OK;
}

struct vma_backing *vma_backing_clone(struct vma_backing *b, struct host_mm *child)
{
    struct vma_backing *copy = vma_backing_add(child, b->kind);
    copy->source = b->source;
    copy->source_start = b->source_start;
    copy->source_end = b->source_end;
    copy->fd = b->fd < 0 ? -1 : fcntl(b->fd, F_DUPFD_CLOEXEC, 0);
    return copy;
}
