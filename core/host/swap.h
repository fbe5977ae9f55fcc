/*
 * The swap store: pages that have no frame, compressed (zlib, level 1).
 *
 * A page that repeats one 64-bit word takes no room (Linux: zswap's same-filled pages). Others are packed into a memory
 * area up to its limit; when that is full the oldest go to a file, if one was given (Linux: zswap writeback). A store
 * that has no room refuses the page and says so; what it holds stays whole. Every slot has a checksum: a damaged file
 * is an error, never wrong memory.
 *
 * Slots are counted: a fork shares them. A store may serve several mms and threads; its lock is a leaf below the
 * host_mm lock.
 */
#ifndef CORE_HOST_SWAP_H
#define CORE_HOST_SWAP_H

#include "core/host/frame_pool.h"
#include "core/types.h"

struct swap_store;

struct swap_config {
    uint64_t memory_bytes; /* room in memory, rounded down to 64 KiB; may be 0 if there is a file */
    const char *file;      /* path, or NULL; a regular file that is absent, empty, or an earlier swap file */
    uint64_t file_bytes;   /* room in the file, rounded down to 64 KiB */
};

struct swap_counters {
    uint64_t slots;        /* in use */
    uint64_t same_filled;  /* of them those without room */
    uint64_t memory_bytes; /* held in memory, in whole 512-byte units */
    uint64_t file_bytes;   /* held in the file */
    uint64_t writes;       /* pages packed */
    uint64_t reads;        /* pages unpacked */
    uint64_t spilled;      /* slots moved from memory to the file */
    uint64_t refused;      /* pages for which there was no room */
};

/* A store with one user. NULL with `err` filled: no room at all, or the file cannot be used. The file is locked against
 * other processes, and empty again when the store goes. */
struct swap_store *swap_store_create(const struct swap_config *cfg, char *err, size_t err_len);
void swap_store_get(struct swap_store *s);
/* The last user frees it. NULL is allowed. */
void swap_store_put(struct swap_store *s);
const struct swap_counters *swap_store_counters(const struct swap_store *s);
/* Memory that the operating system holds for the memory area, in bytes. */
uint64_t swap_store_resident_bytes(const struct swap_store *s);
struct stats;
/* Registers the counters, as swap.*. */
void swap_store_add_stats(const struct swap_store *s, struct stats *stats);

/* Packs 4096 bytes into a new slot with one user. HOST_OK, HOST_SWAP_FULL or HOST_IO_ERROR (core/host/host_mm.h). */
int swap_store_write(struct swap_store *s, const void *page, uint64_t *slot);
/* Unpacks; the slot stays. HOST_OK, or HOST_IO_ERROR with an unspecified `page`. */
int swap_store_read(struct swap_store *s, uint64_t slot, void *page);
/* The same, not counted. */
int swap_store_peek(struct swap_store *s, uint64_t slot, void *page);
void swap_slot_get(struct swap_store *s, uint64_t slot);
/* The last user frees it. */
void swap_slot_put(struct swap_store *s, uint64_t slot);
uint32_t swap_slot_users(struct swap_store *s, uint64_t slot);

/* The swap cache: a frame that holds the same bytes as a slot, so that those who share the slot come to share the frame
 * again, and the other way round. The tie is a tag of the frame (core/host/frame_pool.h). */
void swap_slot_bind(struct swap_store *s, uint64_t slot, struct frame_pool *pool, pfn_t pfn);
/* A new reference to the slot's frame, or PFN_NONE. */
pfn_t swap_slot_frame(struct swap_store *s, uint64_t slot, struct frame_pool *pool);
/* A new use of the slot that holds the frame's bytes already, if there is one. */
bool swap_slot_of_frame(struct swap_store *s, struct frame_pool *pool, pfn_t pfn, uint64_t *slot);

#endif
