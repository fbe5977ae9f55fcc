/*
 * The local APIC timer (SDM 11.5.4): one-shot, periodic and TSC-deadline.
 *
 * The current count is never stepped: it follows from the clock, the initial count and the clock time at which counting
 * began. A masked timer counts on without an armed clock timer, so that it does not wake an idle machine.
 */
#include "devices/irq/lapic_internal.h"

static uint64_t divider(const struct lapic *a)
{
    unsigned v = (a->timer_divide & 3) | ((a->timer_divide >> 1) & 4);
    return 1u << ((v + 1) & 7);
}

/* Modular: a change of divider can put the start before time zero. */
static uint64_t ticks_since_start(const struct lapic *a)
{
    return (clock_now(a->set->cfg.clock) - a->timer_start) / divider(a);
}

uint32_t lapic_timer_current(const struct lapic *a)
{
    uint32_t lvt = a->lvt[LAPIC_LVT_TIMER];
    if (!a->timer_initial || (lvt & LVT_DEADLINE))
        return 0;
    uint64_t ticks = ticks_since_start(a);
    if (lvt & LVT_PERIODIC)
        return a->timer_initial - (uint32_t)(ticks % a->timer_initial);
    return ticks >= a->timer_initial ? 0 : a->timer_initial - (uint32_t)ticks;
}

static uint64_t deadline_in_clock(const struct lapic *a)
{
    const struct lapic_set_config *cfg = &a->set->cfg;
    return cfg->tsc_to_clock ? cfg->tsc_to_clock(cfg->tsc_ctx, a->index, a->tsc_deadline) : a->tsc_deadline;
}

/* Clock time of the next expiry, or CLOCK_NEVER. */
static uint64_t next_expiry(const struct lapic *a)
{
    uint32_t lvt = a->lvt[LAPIC_LVT_TIMER];
    if (lvt & LVT_DEADLINE)
        return a->tsc_deadline ? deadline_in_clock(a) : CLOCK_NEVER;
    if (!a->timer_initial || (lvt & LVT_MASKED))
        return CLOCK_NEVER;
    uint64_t period = a->timer_initial * divider(a), ticks = ticks_since_start(a);
    if (lvt & LVT_PERIODIC)
        return a->timer_start + (ticks / a->timer_initial + 1) * period;
    return ticks >= a->timer_initial ? CLOCK_NEVER : a->timer_start + period;
}

void lapic_timer_rearm(struct lapic *a)
{
    uint64_t at = next_expiry(a);
    if (at == CLOCK_NEVER)
        timer_cancel(a->set->cfg.clock, &a->timer);
    else
        timer_arm(a->set->cfg.clock, &a->timer, at);
}

void lapic_timer_expired(void *opaque)
{
    struct lapic *a = opaque;
    if (a->lvt[LAPIC_LVT_TIMER] & LVT_DEADLINE)
        a->tsc_deadline = 0;
    lapic_timer_rearm(a);
    lapic_deliver_lvt(a, LAPIC_LVT_TIMER);
}

void lapic_timer_write_initial(struct lapic *a, uint32_t v)
{
    if (a->lvt[LAPIC_LVT_TIMER] & LVT_DEADLINE)
        return; /* ignored in TSC-deadline mode */
    a->timer_initial = v;
    a->timer_start = clock_now(a->set->cfg.clock);
    lapic_timer_rearm(a);
}

/* A new divider changes the rate from here on; the count itself does not jump. */
void lapic_timer_write_divide(struct lapic *a, uint32_t v)
{
    uint32_t current = lapic_timer_current(a);
    a->timer_divide = v & 0xb;
    if (current)
        a->timer_start = clock_now(a->set->cfg.clock) - (uint64_t)(a->timer_initial - current) * divider(a);
    else
        a->timer_initial = 0; /* expired, or never started: must not come to life again */
    lapic_timer_rearm(a);
}

void lapic_timer_lvt_changed(struct lapic *a, uint32_t old)
{
    uint32_t lvt = a->lvt[LAPIC_LVT_TIMER];
    if ((old ^ lvt) & LVT_DEADLINE) { /* changing to or from TSC-deadline mode disarms (SDM 11.5.4.1) */
        a->timer_initial = 0;
        a->tsc_deadline = 0;
    }
    lapic_timer_rearm(a);
}

void lapic_timer_write_deadline(struct lapic *a, uint64_t v)
{
    if (!(a->lvt[LAPIC_LVT_TIMER] & LVT_DEADLINE))
        return; /* ignored in the other modes */
    a->tsc_deadline = v;
    lapic_timer_rearm(a);
}
