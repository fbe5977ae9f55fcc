#include "core/alloc.h"

#include "core/log.h"

#include <stdlib.h>

static void *checked(void *p, size_t count, size_t size)
{
    if (!p) {
        log_error("out of memory (%zu x %zu bytes)", count, size);
        abort();
    }
    return p;
}

void *alloc_zeroed(size_t count, size_t size)
{
    return checked(calloc(count ? count : 1, size), count, size);
}

void *alloc_resize(void *p, size_t count, size_t size)
{
    return checked(reallocarray(p, count ? count : 1, size), count, size);
}
