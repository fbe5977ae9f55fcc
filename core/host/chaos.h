/*
 * Host events from a seed: everything that a host may do to a guest's memory, at moments of virtual time that the seed
 * decides. A guest that runs under it must not be able to tell.
 *
 * Which operation, on which page, and when: a function of the seed and of the calls alone. Called at safe points only.
 */
#ifndef CORE_HOST_CHAOS_H
#define CORE_HOST_CHAOS_H

#include "core/host/host_mm.h"

/* One row an operation: identifier, name, what it does. */
#define HOST_CHAOS_OPS(X)                                                                                              \
    X(SWAP, "swap", "swaps up to eight pages out")                                                                     \
    X(KSM, "ksm", "lets KSM scan 64 pages, and merges two neighbours that are equal")                                  \
    X(COW, "cow", "forks the memory, a part of it or all, and drops the child at the next such event")                 \
    X(MIGRATE, "migrate", "moves up to eight frames")                                                                  \
    X(MPROTECT, "mprotect", "makes pages read-only and writable again, leaving read-only hptes")                       \
    X(HUGE, "huge", "collapses 2 MiB into a huge page, or splits one")                                                 \
    X(AGE, "age", "reads and clears the accessed state of 64 pages")                                                   \
    X(DONTNEED, "dontneed", "gives pages back that the guest has ballooned")

enum host_chaos_op {
#define X(id, name, text) CHAOS_##id,
    HOST_CHAOS_OPS(X)
#undef X
        CHAOS_OP_COUNT
};

#define CHAOS_ALL      ((1u << CHAOS_OP_COUNT) - 1)
#define CHAOS_RATE_MAX 1000000 /* a second; more than one an instruction or so has no meaning */

struct host_chaos_config {
    uint64_t seed;
    uint64_t rate; /* events a second of virtual time, 1 to CHAOS_RATE_MAX */
    unsigned ops;  /* bit per enum host_chaos_op, not 0 */
    bool async;    /* fired by a thread of its own instead of at instruction counts; the caller's affair */
};

/* "seed=S,rate=R,ops=all|swap+ksm+...,async=on|off", each at most once, in any order; what is not given: seed 1, rate
 * 1000, all, off. False with `err` filled, naming the word that is wrong. */
bool host_chaos_parse(const char *text, struct host_chaos_config *out, char *err, size_t err_len);
const char *host_chaos_op_name(enum host_chaos_op op);

struct ksm;
struct host_chaos;

/* `mm` and `ksm` are borrowed; `ksm` may be NULL: then it makes its own where `mm` has none. */
struct host_chaos *host_chaos_create(struct host_mm *mm, struct ksm *ksm, const struct host_chaos_config *cfg);
/* Before the mm. NULL is allowed. */
void host_chaos_destroy(struct host_chaos *c);
/* Events fired, and of each operation those that changed something. */
uint64_t host_chaos_events(const struct host_chaos *c);
uint64_t host_chaos_effects(const struct host_chaos *c, enum host_chaos_op op);
struct stats;
/* Registers the counters, as chaos.*. */
void host_chaos_add_stats(const struct host_chaos *c, struct stats *stats);

/* Fires one event now; which operation it was. */
enum host_chaos_op host_chaos_run_one(struct host_chaos *c);
/* Virtual time of the next event, in ns; the first one is one random interval after 0. */
uint64_t host_chaos_next(const struct host_chaos *c);
/* Nothing before virtual time `now` is made up for: the next event is one random interval after it. */
void host_chaos_start_at(struct host_chaos *c, uint64_t now);
/* Fires all that are due at virtual time `now`, and arms the next one behind it; how many. */
uint64_t host_chaos_run_until(struct host_chaos *c, uint64_t now);

/* The guest has given the range back (or, with `given` false, wants it again): dontneed may take it. At most
 * CHAOS_BALLOON_MAX pages are remembered; what is beyond is left alone. */
#define CHAOS_BALLOON_MAX 65536
void host_chaos_balloon(struct host_chaos *c, hva_t hva, uint64_t len, bool given);

#endif
