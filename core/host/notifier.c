#include "core/host/notifier.h"

#include "core/alloc.h"
#include "core/host/host_mm_internal.h"
#include "core/host/interval_tree.h"
#include "core/host/notifier_bus.h"
#include "core/log.h"

#include <stdlib.h>

/*
 * The list side of the bus.
 *
 * Callbacks run without the bus lock. A walk pins the notifier whose callback it runs (`running`); a pinned notifier
 * stays linked, so the walk finds its successor when it comes back. Who leaves first stops new pins (`leaving`), then
 * waits for the old ones.
 */

struct notifier_bus *notifier_bus_of(struct host_mm *mm)
{
    return __atomic_load_n(host_mm_bus_slot(mm), __ATOMIC_ACQUIRE);
}

struct notifier_bus *notifier_bus_obtain(struct host_mm *mm)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    if (bus)
        return bus;
    host_mm_lock(mm);
    bus = notifier_bus_of(mm);
    if (!bus) {
        bus = alloc_zeroed(1, sizeof *bus);
        pthread_mutex_init(&bus->lock, NULL);
        pthread_cond_init(&bus->changed, NULL);
        bus->refs = 1;
        bus->invalidate_seq = 2; /* as Linux: even, and the odd number below it is not zero */
        __atomic_store_n(host_mm_bus_slot(mm), bus, __ATOMIC_RELEASE);
    }
    host_mm_unlock(mm);
    return bus;
}

void notifier_bus_put(struct notifier_bus *bus)
{
    if (!bus)
        return;
    pthread_mutex_lock(&bus->lock);
    bool last = --bus->refs == 0;
    pthread_mutex_unlock(&bus->lock);
    if (!last)
        return;
    pthread_cond_destroy(&bus->changed);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

static void link_last(struct notifier_bus *bus, struct notifier *n)
{
    n->next = NULL;
    n->prev = bus->tail;
    *(bus->tail ? &bus->tail->next : &bus->head) = n;
    bus->tail = n;
}

static void unlink_notifier(struct notifier_bus *bus, struct notifier *n)
{
    *(n->prev ? &n->prev->next : &bus->head) = n->next;
    *(n->next ? &n->next->prev : &bus->tail) = n->prev;
    n->next = n->prev = NULL;
}

int notifier_register(struct notifier *n, struct host_mm *mm, const struct notifier_ops *ops)
{
    /* The host_mm lock keeps host operations out: no subscriber sees an end whose start it has not seen. */
    host_mm_lock(mm);
    struct notifier_bus *bus = notifier_bus_obtain(mm);
    pthread_mutex_lock(&bus->lock);
    int rc = bus->released ? -1 : 0;
    if (!rc) {
        *n = (struct notifier){.ops = ops, .mm = mm, .bus = bus, .users = 1};
        link_last(bus, n);
        bus->refs++;
    }
    pthread_mutex_unlock(&bus->lock);
    host_mm_unlock(mm);
    return rc;
}

static void unpin(struct notifier_bus *bus, struct notifier *n)
{
    if (--n->running == 0)
        pthread_cond_broadcast(&bus->changed);
}

static struct notifier *pin_from(struct notifier *n)
{
    while (n && n->leaving)
        n = n->next;
    if (n)
        n->running++;
    return n;
}

static struct notifier *walk_begin(struct notifier_bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    struct notifier *n = pin_from(bus->head);
    pthread_mutex_unlock(&bus->lock);
    return n;
}

static struct notifier *walk_next(struct notifier_bus *bus, struct notifier *n)
{
    pthread_mutex_lock(&bus->lock);
    struct notifier *next = pin_from(n->next);
    unpin(bus, n);
    pthread_mutex_unlock(&bus->lock);
    return next;
}

static void walk_leave(struct notifier_bus *bus, struct notifier *n)
{
    pthread_mutex_lock(&bus->lock);
    unpin(bus, n);
    pthread_mutex_unlock(&bus->lock);
}

#define for_each_notifier(bus, n) for (struct notifier *n = walk_begin(bus); n; n = walk_next(bus, n))

/* Calls release unless it was called before. Returns without waiting for a call on another thread. */
static void release_once(struct notifier_bus *bus, struct notifier *n)
{
    pthread_mutex_lock(&bus->lock);
    bool mine = !n->release_ran;
    n->release_ran = true;
    pthread_mutex_unlock(&bus->lock);
    if (mine && n->ops->release)
        n->ops->release(n);
}

static void leave(struct notifier_bus *bus, struct notifier *n)
{
    pthread_mutex_lock(&bus->lock);
    n->leaving = true;
    while (n->running)
        pthread_cond_wait(&bus->changed, &bus->lock);
    unlink_notifier(bus, n);
    n->bus = NULL;
    pthread_mutex_unlock(&bus->lock);
}

/* Linux: mmu_notifier_unregister. Invalidations still reach `n` while its release runs, since only then has it dropped
 * everything. */
void notifier_unregister(struct notifier *n)
{
    struct notifier_bus *bus = n->bus;
    if (!bus)
        return;
    release_once(bus, n);
    leave(bus, n);
    notifier_bus_put(bus);
}

struct notifier *notifier_get(struct host_mm *mm, const struct notifier_ops *ops)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    if (!bus)
        return NULL;
    pthread_mutex_lock(&bus->lock);
    struct notifier *n = bus->head;
    while (n && (n->ops != ops || n->leaving || !n->users))
        n = n->next;
    if (n)
        n->users++;
    pthread_mutex_unlock(&bus->lock);
    return n;
}

bool notifier_put(struct notifier *n)
{
    pthread_mutex_lock(&n->bus->lock);
    bool last = --n->users == 0;
    pthread_mutex_unlock(&n->bus->lock);
    if (last)
        notifier_unregister(n);
    return last;
}

/* Ends the range for those before `stop` (NULL: for all). */
static void end_list(struct notifier_bus *bus, const struct notify_range *range, const struct notifier *stop)
{
    for_each_notifier(bus, n) {
        if (n == stop) {
            walk_leave(bus, n);
            return;
        }
        if (n->ops->invalidate_range_end)
            n->ops->invalidate_range_end(n, range);
    }
}

/* Linux: mn_hlist_invalidate_range_start, but it stops at the first who refuses and ends the range for exactly those
 * who accepted it. */
static int start_list(struct notifier_bus *bus, const struct notify_range *range)
{
    for_each_notifier(bus, n) {
        int rc = n->ops->invalidate_range_start ? n->ops->invalidate_range_start(n, range) : 0;
        if (!rc)
            continue;
        if (range->flags & NOTIFY_BLOCKABLE) {
            log_warn("a subscriber refused an invalidation that it may not refuse");
            continue;
        }
        /* `n` stays pinned, and so linked: it marks the place where the starting stopped. */
        end_list(bus, range, n);
        walk_leave(bus, n);
        return rc;
    }
    return 0;
}

int notify_invalidate_range_start(const struct notify_range *range)
{
    struct notifier_bus *bus = notifier_bus_of(range->mm);
    host_mm_note_range(range, true);
    if (!bus)
        return 0;
    int rc = notifier_intervals_start(bus, range);
    if (rc)
        return rc;
    rc = start_list(bus, range);
    if (rc)
        notifier_intervals_end(bus);
    return rc;
}

void notify_invalidate_range_end(const struct notify_range *range)
{
    struct notifier_bus *bus = notifier_bus_of(range->mm);
    host_mm_note_range(range, false);
    if (!bus)
        return;
    notifier_intervals_end(bus);
    end_list(bus, range, NULL);
}

void notify_invalidate_range(struct host_mm *mm, hva_t start, hva_t end)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    if (!bus)
        return;
    for_each_notifier(bus, n)
        if (n->ops->invalidate_range)
            n->ops->invalidate_range(n, start, end);
}

bool notify_clear_flush_young(struct host_mm *mm, hva_t start, hva_t end)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    bool young = false;
    if (!bus)
        return false;
    for_each_notifier(bus, n)
        if (n->ops->clear_flush_young)
            young |= n->ops->clear_flush_young(n, start, end);
    return young;
}

bool notify_clear_young(struct host_mm *mm, hva_t start, hva_t end)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    bool young = false;
    if (!bus)
        return false;
    for_each_notifier(bus, n)
        if (n->ops->clear_young)
            young |= n->ops->clear_young(n, start, end);
    return young;
}

/* One young subscriber is enough: the others are not asked. */
bool notify_test_young(struct host_mm *mm, hva_t hva)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    if (!bus)
        return false;
    for_each_notifier(bus, n) {
        if (n->ops->test_young && n->ops->test_young(n, hva)) {
            walk_leave(bus, n);
            return true;
        }
    }
    return false;
}

void notify_change_pte(struct host_mm *mm, hva_t hva, struct hpte_view hpte)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    if (!bus)
        return;
    struct notify_range range = {
        .mm = mm, .start = hva, .end = hva + PAGE_SIZE, .event = NOTIFY_PROTECTION_PAGE, .flags = NOTIFY_BLOCKABLE};
    notifier_intervals_start(bus, &range);
    notifier_intervals_end(bus);
    for_each_notifier(bus, n)
        if (n->ops->change_pte)
            n->ops->change_pte(n, hva, hpte);
}

/* Linux: mmu_notifier_release. Afterwards nobody is called any more and nobody can subscribe. */
void notify_release(struct host_mm *mm)
{
    struct notifier_bus *bus = notifier_bus_of(mm);
    if (!bus)
        return;
    pthread_mutex_lock(&bus->lock);
    bus->released = true;
    pthread_mutex_unlock(&bus->lock);
    struct notify_range all = {.mm = mm, .end = UINT64_MAX, .event = NOTIFY_RELEASE, .flags = NOTIFY_BLOCKABLE};
    notifier_intervals_start(bus, &all);
    notifier_intervals_end(bus);
    for_each_notifier(bus, n) {
        release_once(bus, n);
        pthread_mutex_lock(&bus->lock);
        n->leaving = true;
        pthread_mutex_unlock(&bus->lock);
    }
}
