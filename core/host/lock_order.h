/*
 * The order of locks, checked while it is kept: KSM, host_mm (a mirror's after its source's), MMU, frame pool.
 *
 * A lock may be taken by a thread that holds none of a later rank; taking again what one holds is always allowed (the
 * locks concerned are recursive). What each thread holds is recorded with the frame pool, which all locks of machines
 * that can meet have in common. Recording costs a lock of its own, so builds that check (UMBRA_LOCK_CHECK: debug and
 * sanitizer builds) do it, and others not at all.
 */
#ifndef CORE_HOST_LOCK_ORDER_H
#define CORE_HOST_LOCK_ORDER_H

#include "core/types.h"

#include <pthread.h>

enum lock_rank { LOCK_RANK_KSM, LOCK_RANK_HOST_MM, LOCK_RANK_MMU, LOCK_RANK_POOL, LOCK_RANKS };

#define LOCK_ORDER_HELD 256 /* locks that all threads together may hold */

struct lock_order {
    pthread_mutex_t lock;
    unsigned count;
    struct lock_held {
        pthread_t thread;
        enum lock_rank rank;
        const void *lock;
        unsigned depth;
    } held[LOCK_ORDER_HELD];
};

void lock_order_init(struct lock_order *o);
void lock_order_fini(struct lock_order *o);
/* Notes that this thread is about to take the lock. NULL, or what is wrong: it holds one that comes later. Nothing is
 * noted then. */
const char *lock_order_take(struct lock_order *o, enum lock_rank rank, const void *lock);
/* Notes that this thread lets go of it (once). */
void lock_order_drop(struct lock_order *o, const void *lock);

struct frame_pool;
/* For who takes and drops such a lock: no-ops unless UMBRA_LOCK_CHECK is set. A wrong order ends the process with a
 * message. */
#ifdef UMBRA_LOCK_CHECK
void lock_check_take(struct frame_pool *pool, enum lock_rank rank, const void *lock);
void lock_check_drop(struct frame_pool *pool, const void *lock);
#else
static inline void lock_check_take(struct frame_pool *pool, enum lock_rank rank, const void *lock)
{
}

static inline void lock_check_drop(struct frame_pool *pool, const void *lock)
{
}
#endif

#endif
