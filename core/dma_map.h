/*
 * DMA maps: a device's own window onto a range of guest memory, such as its ring, by host pointers that it keeps.
 *
 * The range's frames are got on first use and held until the host changes them. What tells is an interval notifier of
 * the range (core/host/notifier.h): the device hears nothing of the rest of memory. Between invalidate() and the next
 * use the map has no pointer of the page; a use gets it anew by the sequence protocol (Linux: mmu_interval_read_begin,
 * hmm_range_fault, mmu_interval_read_retry).
 *
 * A use is a bracket of dma_map_begin() and dma_map_end() around a few loads and stores; an invalidation waits for its
 * end, so nothing inside it may take a lock of the host or of the MMU. dma_map_end() reports what was written: tracking
 * sees it as any write.
 *
 * Where there is no map (no RAM there, no frame, a range over several memslots) dma_map_read() and _write() go through
 * the memory hook; so a device that uses these two alone works everywhere.
 *
 * Locks: host_mm before a map's. One thread uses a map at a time; host operations may come from others.
 */
#ifndef CORE_DMA_MAP_H
#define CORE_DMA_MAP_H

#include "core/host/notifier.h"
#include "core/memory.h"

#include <pthread.h>

#define DMA_MAP_MAX (1ull << 30) /* bytes of one map */

struct dma_map {
    const struct guest_memory *memory; /* borrowed */
    unsigned as;
    gpa_t gpa;
    uint64_t len;
    bool writable;

    struct interval_notifier notifier;
    struct guest_place place;
    bool subscribed;     /* place and notifier are good */
    uint64_t generation; /* of the memslots, when the place was looked up */
    pthread_mutex_t lock;
    uint8_t **page; /* by page from gpa on; NULL: to be got. Under lock */
    size_t pages;

    struct dma_map_counters {
        uint64_t fills;         /* pointers got */
        uint64_t retries;       /* of them those that an invalidation overtook */
        uint64_t invalidations; /* pointers dropped by the bus; under lock */
    } counters;
};

/* A map of nothing. `memory` lives as long as the map, which must not move. */
void dma_map_init(struct dma_map *d, const struct guest_memory *memory);
void dma_map_fini(struct dma_map *d);
/* What it maps from now on; nothing happens if that is what it maps already. False: it will have no pointers, for the
 * range is empty, wraps, is longer than DMA_MAP_MAX, or is not inside one memslot (for writing: of RAM). */
bool dma_map_set(struct dma_map *d, unsigned as, gpa_t gpa, uint64_t len, bool writable);
void dma_map_clear(struct dma_map *d);

/* Begins a use of [offset, offset + len) of the range, which lies in one page: its first byte, or NULL, and then no use
 * has begun. May wait for an invalidation of the range. */
void *dma_map_begin(struct dma_map *d, uint64_t offset, size_t len);
/* Ends it; the `written` bytes from `offset` on were written (0: nothing; always 0 in a map that is not writable). */
void dma_map_end(struct dma_map *d, uint64_t offset, size_t written);

/* Copies, over pages; through the hook where there is no pointer. Bytes behind the end of the range are refused
 * (MEM_DEVICE). */
enum mem_result dma_map_read(struct dma_map *d, uint64_t offset, void *buf, size_t len);
enum mem_result dma_map_write(struct dma_map *d, uint64_t offset, const void *buf, size_t len);

#endif
