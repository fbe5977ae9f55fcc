#include "core/memory.h"

bool guest_mem_dma(const struct guest_memory *m, gpa_t gpa, void *buf, size_t len, bool write)
{
    struct guest_place place;
    uint8_t *at = buf;
    for (size_t part; len; gpa += part, at += part, len -= part) {
        part = (size_t)(PAGE_SIZE - (gpa & PAGE_MASK));
        part = part < len ? part : len;
        if (m->locate && !m->locate(m->ctx, 0, gpa, part, write, &place))
            return false;
        if (m->access(m->ctx, 0, gpa, at, part, MEM_DMA, write) != MEM_OK)
            return false;
    }
    return true;
}
