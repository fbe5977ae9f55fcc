/*
 * The frame pool: host physical memory as one anonymous mapping.
 *
 * A frame is 4 KiB of real memory at pool->base + pfn * 4096. Freeing one gives its memory back to the operating system
 * (MADV_DONTNEED), so a new frame always reads as zeros. The operating system may back frames by huge pages of its own.
 * Aligned runs of 512 and of 512 * 512 frames can be had for huge and gigantic host pages. The pool has its own lock,
 * innermost of all (host_mm, MMU, pool).
 */
#ifndef CORE_HOST_FRAME_POOL_H
#define CORE_HOST_FRAME_POOL_H

#include "core/types.h"

struct frame_pool;

/* A pool of at most `frames` frames (address space is reserved, memory is not). NULL with `err` filled. */
struct frame_pool *frame_pool_create(uint64_t frames, char *err, size_t err_len);
void frame_pool_destroy(struct frame_pool *p);
/* A zeroed frame with reference count 1, or PFN_NONE when the pool is full. Lowest free pfn first: never
 * address-dependent. */
pfn_t frame_pool_alloc(struct frame_pool *p);
#define FRAMES_HUGE     512u                        /* 2 MiB */
#define FRAMES_GIGANTIC (FRAMES_HUGE * FRAMES_HUGE) /* 1 GiB */
/* A run of zeroed frames, FRAMES_HUGE or FRAMES_GIGANTIC, aligned to its length, each with count 1; the first one's
 * number or PFN_NONE. Takes no memory of the operating system until frames are touched. */
pfn_t frame_pool_alloc_run(struct frame_pool *p, uint64_t frames);
void frame_pool_get(struct frame_pool *p, pfn_t pfn);
/* Drops a reference; the last one frees the frame and its memory. */
void frame_pool_put(struct frame_pool *p, pfn_t pfn);
/* The same for many, cheaper where they lie together. */
void frame_pool_put_many(struct frame_pool *p, const pfn_t *pfns, size_t count);
uint32_t frame_pool_refs(const struct frame_pool *p, pfn_t pfn);
void *frame_pool_ptr(const struct frame_pool *p, pfn_t pfn);
/* Where the order of locks is recorded (core/host/lock_order.h) of all who share the pool. */
struct lock_order;
struct lock_order *frame_pool_lock_order(struct frame_pool *p);

/* What else knows a frame by its content: a swap slot that holds the same bytes, a node of KSM. A tag is a weak
 * reference: it keeps nothing alive and dies with the frame, and at the latest when somebody is about to write the
 * frame (frame_pool_own). So while a tag lives, the frame's bytes are those of the moment it was set; the setter sees
 * to it that every mapping is read-only then. */
enum frame_tag_kind { FRAME_TAG_SWAP, FRAME_TAG_KSM, FRAME_TAG_KINDS };
struct frame_tag {
    uint64_t id;    /* from frame_pool_new_tag(); 0: none */
    uint64_t value; /* the setter's own */
};

/* A tag id that was never given before. */
uint64_t frame_pool_new_tag(struct frame_pool *p);
void frame_pool_set_tag(struct frame_pool *p, pfn_t pfn, enum frame_tag_kind kind, struct frame_tag tag);
struct frame_tag frame_pool_tag(const struct frame_pool *p, pfn_t pfn, enum frame_tag_kind kind);
/* Takes a reference if the frame still carries the tag. */
bool frame_pool_get_tagged(struct frame_pool *p, pfn_t pfn, enum frame_tag_kind kind, uint64_t id);
/* Asked by the holder of a reference before it writes: true if that is the only one; the frame's tags are gone then. */
bool frame_pool_own(struct frame_pool *p, pfn_t pfn);
/* The same for a run: true, and the tags gone, if all of its frames have one reference; else nothing has changed. */
bool frame_pool_own_run(struct frame_pool *p, pfn_t first, uint64_t count);

/* A mark that the frame was used since it was last aged: set by who gives up a mapping of his own of it, whose accessed
 * state would otherwise be forgotten. Aging counts it as the host entry's own and takes it. The mark is of the frame,
 * so of several mms that share one the first to age it takes it; it goes with the frame. None of these takes a lock: a
 * subscriber calls them under its own. Linux: PG_referenced, kvm_set_pfn_accessed. */
void frame_pool_mark_accessed(struct frame_pool *p, pfn_t first, uint64_t count);
bool frame_pool_is_accessed(const struct frame_pool *p, pfn_t pfn);
void frame_pool_clear_accessed(struct frame_pool *p, pfn_t pfn);
uint64_t frame_pool_used(const struct frame_pool *p);
/* The most that were ever in use at a time. */
uint64_t frame_pool_peak(const struct frame_pool *p);
uint64_t frame_pool_capacity(const struct frame_pool *p);
/* The shared frame of zeros: read-only memory, outside `used` and `capacity`. get and put on it do nothing. */
pfn_t frame_pool_zero_frame(const struct frame_pool *p);
/* A frame from `pfn` on before which nobody ever touched any: the operating system has no memory for those, they are
 * zeros. `pfn` itself: it may hold other things. Costs a system call; for who would touch a frame only to find that
 * out. */
pfn_t frame_pool_next_touched(const struct frame_pool *p, pfn_t pfn);
/* Memory that the operating system holds for the pool's frames now, in bytes. */
uint64_t frame_pool_resident_bytes(const struct frame_pool *p);

#endif
