/*
 * The memory hook: how anything above or beside the MMU reads and writes guest-physical memory.
 *
 * There is one entry, mem_access(), implemented by mmu/ and registered here; devices see this interface only. A write
 * through it reaches write tracking (page tables, code, watchpoints), whoever makes it.
 */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include "core/types.h"

enum mem_kind {
    MEM_GUEST,     /* a vCPU's own access */
    MEM_WALK,      /* a page-table walk (reads and A/D updates) */
    MEM_DMA,       /* a device */
    MEM_HOST_POKE, /* loader, debugger writing: ROM is writable */
    MEM_PEEK       /* read without any effect: no fault-in, no A/D, no device, no counters */
};

enum mem_result {
    MEM_OK = 0,
    MEM_DEVICE = -1, /* PEEK or WALK met a device or no memory at all */
    MEM_ABSENT = -2  /* PEEK met a page that is not resident and whose content is not available */
};

struct guest_memory {
    void *ctx;
    enum mem_result (*access)(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind, bool write);
};

static inline enum mem_result guest_mem_read(const struct guest_memory *m, gpa_t gpa, void *buf, size_t len,
                                             enum mem_kind kind)
{
    return m->access(m->ctx, 0, gpa, buf, len, kind, false);
}

static inline enum mem_result guest_mem_write(const struct guest_memory *m, gpa_t gpa, const void *buf, size_t len,
                                              enum mem_kind kind)
{
    return m->access(m->ctx, 0, gpa, (void *)(uintptr_t)buf, len, kind, true);
}

#endif
