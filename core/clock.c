#include "core/clock.h"

#include "core/snapshot.h"

static const uint64_t surcharge_units[CLOCK_SURCHARGE_COUNT] = {
#define X(id, units) [CLOCK_SURCHARGE_##id] = units,
    CLOCK_SURCHARGES(X)
#undef X
};

/* Sequence numbers below this one are ranks that timer_load() restored: older than anything armed since. */
#define FIRST_SEQ ((uint64_t)1 << 32)

void clock_init(struct vclock *c)
{
    *c = (struct vclock){.next_seq = FIRST_SEQ};
}

void clock_charge(struct vclock *c, enum clock_surcharge cause)
{
    c->extra += surcharge_units[cause];
}

/* The earliest timer that is due and was armed before `limit`, unlinked; or NULL. */
static struct timer *take_due(struct vclock *c, uint64_t now, uint64_t limit)
{
    for (struct timer **link = &c->head; *link && (*link)->deadline <= now; link = &(*link)->next) {
        struct timer *t = *link;
        if (t->seq >= limit)
            continue;
        *link = t->next;
        t->next = NULL;
        t->deadline = CLOCK_NEVER;
        return t;
    }
    return NULL;
}

void clock_run_due(struct vclock *c)
{
    uint64_t now = clock_now(c);
    /* A callback that re-arms in the past waits for the next boundary: no guest programs a timer into an endless loop.
     */
    uint64_t limit = c->next_seq;
    for (struct timer *t; (t = take_due(c, now, limit));)
        t->fn(t->opaque);
}

void clock_skip_to(struct vclock *c, uint64_t when)
{
    uint64_t now = clock_now(c);
    if (when > CLOCK_HORIZON)
        when = CLOCK_HORIZON;
    if (when <= now)
        return;
    c->extra += when - now;
    c->idle += when - now;
}

void timer_init(struct timer *t, timer_fn *fn, void *opaque)
{
    *t = (struct timer){.fn = fn, .opaque = opaque, .deadline = CLOCK_NEVER};
}

void timer_init_work(struct timer *t, timer_fn *fn, void *opaque)
{
    timer_init(t, fn, opaque);
    t->is_work = true;
}

bool clock_has_work(const struct vclock *c)
{
    for (const struct timer *t = c->head; t; t = t->next)
        if (t->is_work)
            return true;
    return false;
}

static bool fires_before(const struct timer *a, const struct timer *b)
{
    return a->deadline < b->deadline || (a->deadline == b->deadline && a->seq < b->seq);
}

static void insert(struct vclock *c, struct timer *t)
{
    struct timer **link = &c->head;
    while (*link && fires_before(*link, t))
        link = &(*link)->next;
    t->next = *link;
    *link = t;
}

void timer_arm(struct vclock *c, struct timer *t, uint64_t deadline)
{
    timer_cancel(c, t);
    if (deadline > CLOCK_HORIZON)
        return;
    t->deadline = deadline;
    t->seq = c->next_seq++;
    insert(c, t);
}

void timer_cancel(struct vclock *c, struct timer *t)
{
    if (!timer_is_armed(t))
        return;
    for (struct timer **link = &c->head; *link; link = &(*link)->next) {
        if (*link == t) {
            *link = t->next;
            break;
        }
    }
    t->next = NULL;
    t->deadline = CLOCK_NEVER;
}

void clock_save(const struct vclock *c, struct snap_writer *w)
{
    snap_put_u64(w, c->icount);
    snap_put_u64(w, c->extra);
    snap_put_u64(w, c->idle);
}

void clock_load(struct vclock *c, struct snap_reader *r)
{
    c->icount = snap_get_u64(r);
    c->extra = snap_get_u64(r);
    c->idle = snap_get_u64(r);
    if (c->idle > c->extra || c->icount > CLOCK_HORIZON || c->extra > 2 * CLOCK_HORIZON - c->icount) {
        snap_fail(r, "clock: impossible time");
        c->icount = c->extra = c->idle = 0;
    }
}

/* How many timers with the same deadline fire before this one. */
static uint32_t rank_of(const struct vclock *c, const struct timer *t)
{
    uint32_t rank = 0;
    for (const struct timer *o = c->head; o && o != t; o = o->next)
        rank += o->deadline == t->deadline;
    return rank;
}

void timer_save(const struct vclock *c, const struct timer *t, struct snap_writer *w)
{
    snap_put_u64(w, t->deadline);
    snap_put_u32(w, timer_is_armed(t) ? rank_of(c, t) : 0);
}

void timer_load(struct vclock *c, struct timer *t, struct snap_reader *r)
{
    timer_cancel(c, t);
    uint64_t deadline = snap_get_u64(r);
    uint32_t rank = snap_get_u32(r);
    if (snap_reader_error(r) || deadline == CLOCK_NEVER)
        return;
    if (deadline > CLOCK_HORIZON) {
        snap_fail(r, "a timer is due beyond the end of time");
        return;
    }
    t->deadline = deadline;
    t->seq = rank;
    insert(c, t);
}
