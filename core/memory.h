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

/* Where a piece of guest memory lies in the host's address space. */
struct host_mm;
struct guest_place {
    struct host_mm *mm;
    hva_t hva;
};

struct guest_memory {
    void *ctx;
    enum mem_result (*access)(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind, bool write);
    /* For maps (core/dma_map.h); all three, or all NULL: nothing can be mapped.
     * locate: the place of [gpa, gpa + len), if one memslot holds all of it (of RAM, if it is to be written). Good
     * until the generation moves. written: the bytes there were written through a pointer. */
    bool (*locate)(void *ctx, unsigned as, gpa_t gpa, uint64_t len, bool write, struct guest_place *out);
    uint64_t (*generation)(void *ctx);
    void (*written)(void *ctx, unsigned as, gpa_t gpa, size_t len);
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

/* A device's access to memory alone, of any length: it reaches no register of another device. False: a part of it is no
 * memory (to be written); what came before it is done. */
bool guest_mem_dma(const struct guest_memory *m, gpa_t gpa, void *buf, size_t len, bool write);

#endif
