/*
 * Memory for compiled code: one memfd mapped twice, executable here and writable there, so that no page is ever both.
 */
#define _GNU_SOURCE
#include "cpu/jit/internal.h"

#include <sys/mman.h>
#include <unistd.h>

int jit_arena_init(struct jit_arena *a, size_t code_size, size_t data_size)
{
    memset(a, 0, sizeof *a);
    a->fd = memfd_create("umbra-jit", MFD_CLOEXEC);
    if (a->fd < 0 || ftruncate(a->fd, (off_t)code_size) < 0)
        goto fail;
    uint8_t *both = mmap(NULL, code_size + data_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (both == MAP_FAILED)
        goto fail;
    a->code = both;
    a->code_size = code_size;
    a->data = both + code_size;
    a->data_size = data_size;
    a->data_used = 8; /* offset 0 means none */
    if (mmap(a->code, code_size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, a->fd, 0) == MAP_FAILED)
        goto fail;
    a->code_write = mmap(NULL, code_size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
    if (a->code_write != MAP_FAILED)
        return 0;
    a->code_write = NULL;
fail:
    jit_arena_fini(a);
    return -1;
}

void jit_arena_fini(struct jit_arena *a)
{
    if (a->code)
        munmap(a->code, a->code_size + a->data_size);
    if (a->code_write)
        munmap(a->code_write, a->code_size);
    if (a->fd >= 0)
        close(a->fd);
    memset(a, 0, sizeof *a);
    a->fd = -1;
}

uint32_t jit_data_alloc_aligned(struct jit_arena *a, size_t size, size_t align)
{
    size_t at = (a->data_used + align - 1) & ~(align - 1);
    size = (size + 7) & ~(size_t)7;
    if (a->data_size < at || a->data_size - at < size)
        return 0;
    memset(a->data + at, 0, size);
    a->data_used = at + size;
    return (uint32_t)at;
}

uint32_t jit_data_alloc(struct jit_arena *a, size_t size)
{
    return jit_data_alloc_aligned(a, size, 8);
}
