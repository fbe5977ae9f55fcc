/*
 * The inside of the notifier bus, shared by its two halves: notifier.c (the list) and interval_notifier.c (the tree).
 * Private to core/host.
 *
 * The bus outlives its host_mm for as long as somebody is subscribed, so that a subscriber may leave late.
 */
#ifndef CORE_HOST_NOTIFIER_BUS_H
#define CORE_HOST_NOTIFIER_BUS_H

#include "core/host/notifier.h"

#include <pthread.h>

struct notifier_bus {
    pthread_mutex_t lock;   /* a leaf: nothing else is taken and no callback runs under it */
    pthread_cond_t changed; /* a callback has finished, or invalidate_seq has moved */
    unsigned refs;          /* the mm's, and one for each subscription */
    bool released;
    struct notifier *head, *tail;

    struct interval_notifier *tree;
    struct interval_notifier *deferred; /* insertions and removals that wait for the end of the invalidation */
    uint64_t invalidate_seq;            /* odd while an invalidation that met the tree is running */
    uint64_t active_invalidate_ranges;
    uint64_t next_serial;
};

/* The bus of `mm`, or NULL while nobody has ever subscribed. */
struct notifier_bus *notifier_bus_of(struct host_mm *mm);
/* The same, made if need be. */
struct notifier_bus *notifier_bus_obtain(struct host_mm *mm);
/* Drops a reference; the last one frees it. NULL is allowed. */
void notifier_bus_put(struct notifier_bus *bus);

/* The tree's half of start and end. start: 0, or -1 (a range that may be refused was; it is ended already). */
int notifier_intervals_start(struct notifier_bus *bus, const struct notify_range *range);
void notifier_intervals_end(struct notifier_bus *bus);

#endif
