#include "core/host/lock_order.h"

#include "core/host/frame_pool.h"
#include "core/log.h"

#include <stdlib.h>

void lock_order_init(struct lock_order *o)
{
    pthread_mutex_init(&o->lock, NULL);
    o->count = 0;
}

void lock_order_fini(struct lock_order *o)
{
    pthread_mutex_destroy(&o->lock);
}

static struct lock_held *find(struct lock_order *o, const void *lock)
{
    for (unsigned i = 0; i < o->count; i++) {
        if (o->held[i].lock == lock && pthread_equal(o->held[i].thread, pthread_self()))
            return &o->held[i];
    }
    return NULL;
}

static const char *wrong(const struct lock_order *o, enum lock_rank rank)
{
    static const char *const text[LOCK_RANKS] = {
        [LOCK_RANK_HOST_MM] = "a lock of an earlier rank is taken under the host_mm lock",
        [LOCK_RANK_MMU] = "a lock of an earlier rank is taken under the MMU lock",
        [LOCK_RANK_POOL] = "a lock is taken under that of the frame pool",
    };
    for (unsigned i = 0; i < o->count; i++) {
        if (o->held[i].rank > rank && pthread_equal(o->held[i].thread, pthread_self()))
            return text[o->held[i].rank];
    }
    return o->count == LOCK_ORDER_HELD ? "more locks are held than can be recorded" : NULL;
}

const char *lock_order_take(struct lock_order *o, enum lock_rank rank, const void *lock)
{
    const char *why = NULL;
    pthread_mutex_lock(&o->lock);
    struct lock_held *h = find(o, lock);
    if (h)
        h->depth++;
    else if (!(why = wrong(o, rank)))
        o->held[o->count++] = (struct lock_held){.thread = pthread_self(), .rank = rank, .lock = lock, .depth = 1};
    pthread_mutex_unlock(&o->lock);
    return why;
}

void lock_order_drop(struct lock_order *o, const void *lock)
{
    pthread_mutex_lock(&o->lock);
    struct lock_held *h = find(o, lock);
    if (h && !--h->depth)
        *h = o->held[--o->count];
    pthread_mutex_unlock(&o->lock);
}

#ifdef UMBRA_LOCK_CHECK
void lock_check_take(struct frame_pool *pool, enum lock_rank rank, const void *lock)
{
    const char *why = lock_order_take(frame_pool_lock_order(pool), rank, lock);
    if (!why)
        return;
    log_error("order of locks: %s", why);
    abort();
}

void lock_check_drop(struct frame_pool *pool, const void *lock)
{
    lock_order_drop(frame_pool_lock_order(pool), lock);
}
#endif
