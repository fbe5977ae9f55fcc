/*
 * The invalidation bus of a host_mm, modelled on Linux mmu_notifier as it was before 6.6 (eight operations).
 *
 * Contract (design: "The invalidation bus"): between invalidate_range_start and the matching _end a subscriber has no
 * sptes of the range and makes none; invalidate_range says that the frame itself changes and runs while the old frame
 * is still allocated; change_pte runs outside start/end, before the hpte is set; aging operations report and clear
 * accessed state; release: drop everything. Starts may nest and overlap. A start may be refused (nonzero) only if the
 * range is not blockable; what was started is then ended.
 *
 * Two kinds of subscription: the list (struct notifier, sees every range) and interval notifiers (struct
 * interval_notifier, see ranges that meet theirs, each with its own sequence; insertion and removal during an
 * invalidation are deferred to its end). Interval notifiers know no change_pte: they see it as an invalidation of the
 * page, whose end has come when the hpte is set, but not yet when host_mm's lock is free.
 */
#ifndef CORE_HOST_NOTIFIER_H
#define CORE_HOST_NOTIFIER_H

#include "core/types.h"

struct host_mm;
struct notifier;

enum notify_event {
    NOTIFY_UNMAP,
    NOTIFY_CLEAR,
    NOTIFY_PROTECTION_VMA,
    NOTIFY_PROTECTION_PAGE,
    NOTIFY_SOFT_DIRTY,
    NOTIFY_RELEASE,
    NOTIFY_MIGRATE,
    NOTIFY_EXCLUSIVE
};

#define NOTIFY_BLOCKABLE 1u

/* Linux: struct mmu_notifier_range. */
struct notify_range {
    struct host_mm *mm;
    hva_t start, end; /* page aligned, end exclusive */
    enum notify_event event;
    unsigned flags;
    void *owner; /* lets a subscriber recognise its own invalidations */
};

/* An hpte as change_pte announces it. */
struct hpte_view {
    pfn_t pfn;
    bool writable;
};

/* Linux: struct mmu_notifier_ops. Any may be NULL. `n` is the subscription. */
struct notifier_ops {
    int (*invalidate_range_start)(struct notifier *n, const struct notify_range *range);
    void (*invalidate_range_end)(struct notifier *n, const struct notify_range *range);
    void (*invalidate_range)(struct notifier *n, hva_t start, hva_t end);
    bool (*clear_flush_young)(struct notifier *n, hva_t start, hva_t end);
    bool (*clear_young)(struct notifier *n, hva_t start, hva_t end);
    bool (*test_young)(struct notifier *n, hva_t hva);
    void (*change_pte)(struct notifier *n, hva_t hva, struct hpte_view hpte);
    void (*release)(struct notifier *n);
};

struct notifier_bus; /* Linux: struct mmu_notifier_subscriptions; one per host_mm, made at first registration */

/* Embedded in the subscriber. Fields below `ops` belong to the bus. */
struct notifier {
    const struct notifier_ops *ops;
    struct host_mm *mm;
    struct notifier_bus *bus;
    struct notifier *next, *prev;
    unsigned users;   /* Linux: get/put count */
    unsigned running; /* callbacks that run now */
    bool release_ran; /* release was called, or is running */
    bool leaving;     /* no callback is started any more */
};

struct interval_notifier;
struct interval_notifier_ops {
    /* False: cannot now (only legal for a range that is not blockable). cur_seq is to be stored with
     * interval_notifier_set_seq() under the subscriber's lock. Linux: mmu_interval_notifier_ops.invalidate. */
    bool (*invalidate)(struct interval_notifier *n, const struct notify_range *range, uint64_t cur_seq);
};

struct interval_notifier {
    const struct interval_notifier_ops *ops;
    struct host_mm *mm;
    hva_t start, end;        /* end exclusive */
    uint64_t invalidate_seq; /* always odd: that of the last invalidation which met the range */
    /* The bus's own: */
    struct notifier_bus *bus;
    struct interval_notifier *child[2], *deferred_next; /* core/host/interval_tree.h */
    hva_t subtree_end;
    uint64_t serial; /* order of insertion: the tie-break of the tree */
    bool inserted, remove_deferred;
};

/* Subscribing. Return 0 or -1 (the mm is already released). Waits for host operations that run; not to be called
 * between the start and the end of an invalidation by the thread that makes it, nor with the MMU lock held. Subscribers
 * are called in the order of registration. */
int notifier_register(struct notifier *n, struct host_mm *mm, const struct notifier_ops *ops);
/* Returns when no callback of `n` runs or will run again; calls release if it has not run. Not to be called from a
 * callback of `n`. May be called after the mm is gone. */
void notifier_unregister(struct notifier *n);
/* Shared subscriptions. Linux: mmu_notifier_get/put. get finds the registered subscription with these `ops` and counts
 * a user, or returns NULL; put drops one (the registration counts as the first) and unregisters at zero: true then, and
 * the owner may free it. */
struct notifier *notifier_get(struct host_mm *mm, const struct notifier_ops *ops);
bool notifier_put(struct notifier *n);
/* The range must not be empty or wrap (-1). Insertion during an invalidation takes effect at its end; read_begin waits
 * for that. */
int interval_notifier_insert(struct interval_notifier *n, struct host_mm *mm, hva_t start, hva_t len,
                             const struct interval_notifier_ops *ops);
/* Returns when the notifier is out of the tree: while an invalidation runs it waits for its end, so it is not to be
 * called from a callback or between start and end by the thread that invalidates. */
void interval_notifier_remove(struct interval_notifier *n);
/* Linux: mmu_interval_read_begin / read_retry / set_seq. read_begin waits until no invalidation that met the range is
 * running; then the subscriber gets its frames, takes its own lock and asks read_retry: true means that they may be
 * stale. invalidate() takes the same lock around interval_notifier_set_seq(). */
uint64_t interval_notifier_read_begin(struct interval_notifier *n);
bool interval_notifier_read_retry(const struct interval_notifier *n, uint64_t seq);
void interval_notifier_set_seq(struct interval_notifier *n, uint64_t cur_seq);

/* Firing: host operations only, each start with its end on the same thread. start returns 0, or nonzero if a range that
 * is not blockable was refused: it is ended then for all who had it started, and notify_invalidate_range_end() must not
 * be called. */
int notify_invalidate_range_start(const struct notify_range *range);
void notify_invalidate_range_end(const struct notify_range *range);
void notify_invalidate_range(struct host_mm *mm, hva_t start, hva_t end);
bool notify_clear_flush_young(struct host_mm *mm, hva_t start, hva_t end);
bool notify_clear_young(struct host_mm *mm, hva_t start, hva_t end);
bool notify_test_young(struct host_mm *mm, hva_t hva);
void notify_change_pte(struct host_mm *mm, hva_t hva, struct hpte_view hpte);
void notify_release(struct host_mm *mm);

#endif
