/*
 * Room for packed pages in a file or a memory file. Private to core/host.
 *
 * The area is cut into regions of 64 KiB; a region holds objects of one size class (512, 1024, ... 4096 bytes), so that
 * finding room takes constant time whatever was freed in which order. A region without objects gives its memory or disk
 * blocks back. No lock: the store has one.
 */
#ifndef CORE_HOST_SWAP_AREA_INTERNAL_H
#define CORE_HOST_SWAP_AREA_INTERNAL_H

#include "core/types.h"

#define SWAP_UNIT    512u
#define SWAP_CLASSES (PAGE_SIZE / SWAP_UNIT)
#define SWAP_REGION  ((uint64_t)65536)
#define SWAP_NOWHERE UINT64_MAX

struct swap_region {
    uint32_t next, prev; /* in a list of regions of one class with room, or of free regions (next only) */
    uint16_t used;
    uint8_t units; /* object size in units; 0: free */
    uint64_t taken[2];
};

struct swap_area {
    int fd;                      /* owned; -1: no area */
    uint64_t base;               /* file offset of region 0 */
    struct swap_region *regions; /* `limit` of them */
    uint32_t limit, fresh;       /* regions from `fresh` on were never used */
    uint32_t free_list, free_count;
    uint32_t partial[SWAP_CLASSES + 1];
    uint64_t bytes; /* held by objects */
};

/* Takes `fd` over. `bytes` are rounded down to regions. False: out of memory. */
bool swap_area_init(struct swap_area *a, int fd, uint64_t base, uint64_t bytes);
void swap_area_fini(struct swap_area *a);
/* Room for `size` bytes (1 to 4096): a file offset, or SWAP_NOWHERE. */
uint64_t swap_area_alloc(struct swap_area *a, size_t size);
void swap_area_free(struct swap_area *a, uint64_t at);
/* Whole transfers. 0 or an errno value. */
int swap_area_write(const struct swap_area *a, uint64_t at, const void *buf, size_t len);
int swap_area_read(const struct swap_area *a, uint64_t at, void *buf, size_t len);

#endif
