#include "core/host/interval_tree.h"
#include "core/host/notifier.h"
#include "core/host/notifier_bus.h"
#include "core/log.h"

/*
 * The sequence protocol (Linux: mmu_interval_notifier).
 *
 * The bus's sequence is odd from the first start that meets a notifier of the tree to the end of the last active range;
 * while it is odd the tree does not change, so walks need no lock. Each notifier keeps the odd number of the last
 * invalidation that met it: equal to the bus's means that one is running now. A reader waits that out, and later
 * compares: a different number means that its range was met since.
 */

static bool is_invalidating(const struct notifier_bus *bus)
{
    return bus->invalidate_seq & 1;
}

static uint64_t seq_of(const struct interval_notifier *n)
{
    return __atomic_load_n(&n->invalidate_seq, __ATOMIC_ACQUIRE);
}

void interval_notifier_set_seq(struct interval_notifier *n, uint64_t cur_seq)
{
    __atomic_store_n(&n->invalidate_seq, cur_seq, __ATOMIC_RELEASE);
}

bool interval_notifier_read_retry(const struct interval_notifier *n, uint64_t seq)
{
    return seq_of(n) != seq;
}

uint64_t interval_notifier_read_begin(struct interval_notifier *n)
{
    struct notifier_bus *bus = n->bus;
    pthread_mutex_lock(&bus->lock);
    uint64_t seq = seq_of(n);
    while (bus->invalidate_seq == seq)
        pthread_cond_wait(&bus->changed, &bus->lock);
    pthread_mutex_unlock(&bus->lock);
    return seq;
}

static void defer(struct notifier_bus *bus, struct interval_notifier *n)
{
    n->deferred_next = bus->deferred;
    bus->deferred = n;
}

static void cancel_deferred(struct notifier_bus *bus, struct interval_notifier *n)
{
    struct interval_notifier **link = &bus->deferred;
    while (*link && *link != n)
        link = &(*link)->deferred_next;
    if (*link)
        *link = n->deferred_next;
}

static void put_into_tree(struct notifier_bus *bus, struct interval_notifier *n)
{
    interval_tree_insert(&bus->tree, n);
    n->inserted = true;
}

static void insert_locked(struct notifier_bus *bus, struct interval_notifier *n)
{
    if (!bus->active_invalidate_ranges) {
        n->invalidate_seq = bus->invalidate_seq - 1;
        put_into_tree(bus, n);
        return;
    }
    /* A running range may be one that this notifier should have seen: a reader must wait until it has ended. */
    if (is_invalidating(bus)) {
        defer(bus, n);
    } else {
        bus->invalidate_seq |= 1;
        put_into_tree(bus, n);
    }
    n->invalidate_seq = bus->invalidate_seq;
}

int interval_notifier_insert(struct interval_notifier *n, struct host_mm *mm, hva_t start, hva_t len,
                             const struct interval_notifier_ops *ops)
{
    if (!len || start + (len - 1) < start || start + len < start)
        return -1;
    struct notifier_bus *bus = notifier_bus_obtain(mm);
    pthread_mutex_lock(&bus->lock);
    int rc = bus->released ? -1 : 0;
    if (!rc) {
        *n = (struct interval_notifier){.ops = ops, .mm = mm, .bus = bus, .start = start, .end = start + len};
        n->serial = bus->next_serial++;
        bus->refs++;
        insert_locked(bus, n);
    }
    pthread_mutex_unlock(&bus->lock);
    return rc;
}

static void remove_locked(struct notifier_bus *bus, struct interval_notifier *n)
{
    if (!is_invalidating(bus)) {
        interval_tree_remove(&bus->tree, n);
        n->inserted = false;
    } else if (!n->inserted) {
        cancel_deferred(bus, n);
    } else {
        n->remove_deferred = true;
        defer(bus, n);
        while (n->inserted)
            pthread_cond_wait(&bus->changed, &bus->lock);
    }
}

void interval_notifier_remove(struct interval_notifier *n)
{
    struct notifier_bus *bus = n->bus;
    if (!bus)
        return;
    pthread_mutex_lock(&bus->lock);
    remove_locked(bus, n);
    n->bus = NULL;
    pthread_mutex_unlock(&bus->lock);
    notifier_bus_put(bus);
}

struct invalidation {
    const struct notify_range *range;
    uint64_t seq;
};

static bool invalidate_one(struct interval_notifier *n, void *ctx)
{
    const struct invalidation *inv = ctx;
    if (n->ops->invalidate(n, inv->range, inv->seq))
        return true;
    if (!(inv->range->flags & NOTIFY_BLOCKABLE))
        return false;
    log_warn("an interval subscriber refused an invalidation that it may not refuse");
    return true;
}

int notifier_intervals_start(struct notifier_bus *bus, const struct notify_range *range)
{
    pthread_mutex_lock(&bus->lock);
    bus->active_invalidate_ranges++;
    bool meets = interval_tree_meets(bus->tree, range->start, range->end);
    if (meets)
        bus->invalidate_seq |= 1;
    struct invalidation inv = {.range = range, .seq = bus->invalidate_seq};
    struct interval_notifier *tree = bus->tree;
    pthread_mutex_unlock(&bus->lock);
    if (!meets || interval_tree_walk(tree, range->start, range->end, invalidate_one, &inv))
        return 0;
    notifier_intervals_end(bus);
    return -1;
}

/* Carries out what was asked for while the tree could not change. */
static void apply_deferred(struct notifier_bus *bus)
{
    while (bus->deferred) {
        struct interval_notifier *n = bus->deferred;
        bus->deferred = n->deferred_next;
        n->deferred_next = NULL;
        if (n->remove_deferred) {
            interval_tree_remove(&bus->tree, n);
            n->inserted = n->remove_deferred = false;
        } else {
            put_into_tree(bus, n);
        }
    }
}

void notifier_intervals_end(struct notifier_bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    if (--bus->active_invalidate_ranges == 0 && is_invalidating(bus)) {
        bus->invalidate_seq++;
        apply_deferred(bus);
        pthread_cond_broadcast(&bus->changed);
    }
    pthread_mutex_unlock(&bus->lock);
}
