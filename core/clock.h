/*
 * Virtual time (design: "Position and time").
 *
 * icount is the position of the run: retired instructions, REP iterations and event deliveries, summed over vCPUs.
 * Time is icount plus surcharges plus what idling skipped; one unit is one nanosecond. Nothing here reads a host clock.
 *
 * Timers fire from clock_run_due(), called by the run loop at instruction boundaries only. Two timers with the same
 * deadline fire in the order in which they were armed. Contract for engines: before anything that can look at the
 * clock (a device access, RDTSC), the engine has added all instructions retired so far.
 */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include "core/types.h"

struct snap_writer;
struct snap_reader;

/* Surcharges in units, by cause: the one table of design section 6. */
#define CLOCK_SURCHARGES(X)                                                                                            \
    X(PORT_IO, 1000)                                                                                                   \
    X(MMIO, 500)                                                                                                       \
    X(PAUSE, 64)                                                                                                       \
    X(RDTSC, 16)                                                                                                       \
    X(CPUID, 64)                                                                                                       \
    X(WBINVD, 1000)

enum clock_surcharge {
#define X(id, units) CLOCK_SURCHARGE_##id,
    CLOCK_SURCHARGES(X)
#undef X
        CLOCK_SURCHARGE_COUNT
};

#define CLOCK_NEVER   UINT64_MAX
/* The end of time, 292 years on: nothing is due later, whatever a guest programs, so that sums of times never wrap. */
#define CLOCK_HORIZON (UINT64_MAX / 2)
#define CLOCK_HZ      1000000000ull /* units a second; also the TSC's rate */

struct timer;
typedef void timer_fn(void *opaque);

struct vclock {
    uint64_t icount;    /* retired, see above */
    uint64_t extra;     /* surcharges and skipped idle time, in units */
    struct timer *head; /* armed timers, sorted by deadline, then by arming order */
    uint64_t idle;      /* units skipped while all vCPUs were halted (part of extra) */
    uint64_t next_seq;  /* given to the next timer that is armed */
};

struct timer {
    timer_fn *fn;
    void *opaque;
    uint64_t deadline; /* CLOCK_NEVER when not armed */
    uint64_t seq;      /* order of arming, the clock's own */
    bool is_work;      /* see timer_init_work() */
    struct timer *next;
};

void clock_init(struct vclock *c);

/* Now, in units (ns) since power-on. */
static inline uint64_t clock_now(const struct vclock *c)
{
    return c->icount + c->extra;
}

static inline void clock_retire(struct vclock *c, uint64_t n)
{
    c->icount += n;
}

/* Adds the surcharge of one event of that cause. */
void clock_charge(struct vclock *c, enum clock_surcharge cause);
/* Deadline of the earliest armed timer, or CLOCK_NEVER. */
static inline uint64_t clock_next_deadline(const struct vclock *c)
{
    return c->head ? c->head->deadline : CLOCK_NEVER;
}
/* Fires every timer whose deadline is <= now. A callback may arm and cancel timers, itself included; what it arms fires
 * in a later call, even if it is due already. */
void clock_run_due(struct vclock *c);
/* Idle skip: moves time forward to `when`, at most to CLOCK_HORIZON (no effect if it is not in the future). */
void clock_skip_to(struct vclock *c, uint64_t when);

/* A timer belongs to its device; the clock only links it. */
void timer_init(struct timer *t, timer_fn *fn, void *opaque);
/* The same for a device's work, such as a disk's request: while it is armed the machine is busy, and idle time is skipped
 * at once even where it would be waited for in real time. */
void timer_init_work(struct timer *t, timer_fn *fn, void *opaque);
/* Is a device at work? */
bool clock_has_work(const struct vclock *c);
/* Arms (or re-arms) at absolute `deadline`; one in the past fires at the next boundary. CLOCK_NEVER, or one
 * beyond CLOCK_HORIZON, disarms. */
void timer_arm(struct vclock *c, struct timer *t, uint64_t deadline);
void timer_cancel(struct vclock *c, struct timer *t);
static inline bool timer_is_armed(const struct timer *t)
{
    return t->deadline != CLOCK_NEVER;
}

/* Saves icount, extra, idle; timers are saved by their devices with timer_save/timer_load (deadline and the rank among
 * equal deadlines, so that the firing order survives). All put into, and get from, the section that the caller has
 * opened. */
void clock_save(const struct vclock *c, struct snap_writer *w);
void clock_load(struct vclock *c, struct snap_reader *r);
void timer_save(const struct vclock *c, const struct timer *t, struct snap_writer *w);
void timer_load(struct vclock *c, struct timer *t, struct snap_reader *r);

#endif
