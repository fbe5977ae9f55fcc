#include "devices/hpet.h"

#include "core/snapshot.h"

#include <string.h>

#define REG_CAPABILITIES 0x000
#define REG_CONFIG       0x010
#define REG_STATUS       0x020
#define REG_COUNTER      0x0f0
#define REG_TIMERS       0x100
#define TIMER_STRIDE     0x20
#define TIMER_CONFIG     0x00
#define TIMER_COMPARATOR 0x08

#define PERIOD_FS 10000000ull

#define ENABLE 1u
#define LEGACY 2u

#define T_LEVEL        (1u << 1)
#define T_INTERRUPT    (1u << 2)
#define T_PERIODIC     (1u << 3)
#define T_CAN_PERIODIC (1u << 4)
#define T_IS_64        (1u << 5)
#define T_VAL_SET      (1u << 6)
#define T_MODE_32      (1u << 8)
#define T_ROUTE_SHIFT  9
#define T_ROUTE        (31u << T_ROUTE_SHIFT)
#define T_WRITABLE     (T_LEVEL | T_INTERRUPT | T_VAL_SET | T_MODE_32 | T_ROUTE)

#define FIRST_PIN 20
#define PINS      4
#define ROUTES    (0xfull << FIRST_PIN) /* what a timer may be connected to */

/* Outputs that a timer can hold: ISA IRQ 0 and 8, then the pins. */
enum { OUT_IRQ0, OUT_IRQ8, OUT_PINS };

#define NEVER_MATCHED UINT64_MAX

/* ---- time ---- */

static uint64_t ticks(const struct hpet *h)
{
    return device_ticks(clock_now(h->cfg.clock), HPET_HZ);
}

static uint64_t counter_at(const struct hpet *h, uint64_t tick)
{
    return h->config & ENABLE ? h->counter + (tick - h->since) : h->counter;
}

static bool is_32(const struct hpet_timer *t)
{
    return t->config & T_MODE_32;
}

static bool is_periodic(const struct hpet_timer *t)
{
    return t->config & T_PERIODIC;
}

static uint64_t trim(const struct hpet_timer *t, uint64_t v)
{
    return is_32(t) ? (uint32_t)v : v;
}

/* ---- lines ---- */

static unsigned index_of(const struct hpet_timer *t)
{
    return (unsigned)(t - t->h->t);
}

/* Where the timer's interrupt goes, or -1. */
static int output_of(const struct hpet_timer *t)
{
    unsigned n = index_of(t), pin = (unsigned)(t->config & T_ROUTE) >> T_ROUTE_SHIFT;
    if ((t->h->config & LEGACY) && n < 2)
        return n ? OUT_IRQ8 : OUT_IRQ0;
    return ROUTES >> pin & 1 ? (int)(OUT_PINS + pin - FIRST_PIN) : -1;
}

static struct irq_line line_of(const struct hpet *h, unsigned out)
{
    struct irq_line l = out == OUT_IRQ0 ? h->cfg.irq0 : out == OUT_IRQ8 ? h->cfg.irq8 : h->cfg.ioapic;
    if (out >= OUT_PINS)
        l.n = FIRST_PIN + out - OUT_PINS;
    return l;
}

static bool may_interrupt(const struct hpet_timer *t)
{
    return (t->h->config & ENABLE) && (t->config & T_INTERRUPT);
}

static bool is_held(const struct hpet *h, unsigned out)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        if (h->t[n].out == out + 1)
            return true;
    return false;
}

/* Level interrupts: the line follows the status bit. Timers may share a line. */
static void timer_drive(struct hpet_timer *t)
{
    struct hpet *h = t->h;
    int out = output_of(t);
    bool high = out >= 0 && may_interrupt(t) && (t->config & T_LEVEL) && (h->status >> index_of(t) & 1);
    uint8_t want = high ? (uint8_t)(out + 1) : 0, old = t->out;
    if (want == old)
        return;
    t->out = want;
    if (old && !is_held(h, old - 1u)) {
        struct irq_line l = line_of(h, old - 1u);
        irq_set(&l, false);
    }
    if (want) {
        struct irq_line l = line_of(h, want - 1u);
        irq_set(&l, true);
    }
}

/* An 8259 forgets an edge whose line falls before it is acknowledged, so ISA lines stay high until the next edge, as
 * the 8254's does. */
static void edge(struct hpet *h, unsigned out)
{
    struct irq_line l = line_of(h, out);
    if (out >= OUT_PINS) {
        irq_pulse(&l);
        return;
    }
    irq_set(&l, false);
    irq_set(&l, true);
}

static void timer_interrupt(struct hpet_timer *t)
{
    int out = output_of(t);
    if (t->config & T_LEVEL) {
        t->h->status |= 1ull << index_of(t);
        timer_drive(t);
    } else if (out >= 0 && may_interrupt(t) && !is_held(t->h, (unsigned)out)) {
        edge(t->h, (unsigned)out);
    }
}

/* ---- matches ---- */

/* Ticks from `tick` to the next match; UINT64_MAX: never. */
static uint64_t distance(const struct hpet_timer *t, uint64_t tick)
{
    uint64_t d = trim(t, t->comparator - counter_at(t->h, tick));
    if (d || tick != t->matched)
        return d;
    return is_32(t) ? 1ull << 32 : UINT64_MAX;
}

/* Without an interrupt, a status or a comparator that moves nobody could tell. */
static bool is_seen(const struct hpet_timer *t)
{
    return (t->config & (T_INTERRUPT | T_LEVEL)) || is_periodic(t);
}

static void timer_plan(struct hpet_timer *t)
{
    struct hpet *h = t->h;
    uint64_t now = ticks(h), d = (h->config & ENABLE) && is_seen(t) ? distance(t, now) : UINT64_MAX;
    if (d > UINT64_MAX / 2) {
        timer_cancel(h->cfg.clock, &t->timer);
        return;
    }
    uint64_t at = now + d;
    if (is_periodic(t) && t->matched != NEVER_MATCHED && at < t->matched + HPET_PERIOD_MIN)
        at = t->matched + HPET_PERIOD_MIN;
    timer_arm(h->cfg.clock, &t->timer, device_tick_time(at, HPET_HZ));
}

/* Moves a periodic comparator beyond the counter. */
static void advance(struct hpet_timer *t, uint64_t now)
{
    uint64_t period = trim(t, t->period), late = trim(t, counter_at(t->h, now) - t->comparator);
    if (is_periodic(t) && period)
        t->comparator = trim(t, t->comparator + (late / period + 1) * period);
}

static void timer_expired(void *opaque)
{
    struct hpet_timer *t = opaque;
    uint64_t now = ticks(t->h);
    t->matched = now;
    advance(t, now);
    timer_interrupt(t);
    timer_plan(t);
}

/* Before a look at the registers: what is due has happened. */
static void catch_up(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_timer *t = &h->t[n];
        if (timer_is_armed(&t->timer) && t->timer.deadline <= clock_now(h->cfg.clock)) {
            timer_cancel(h->cfg.clock, &t->timer);
            timer_expired(t);
        }
    }
}

static void update(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        timer_drive(&h->t[n]);
        timer_plan(&h->t[n]);
    }
}

/* ---- legacy replacement ---- */

static void legacy_set(void *ctx, unsigned n, bool level)
{
    struct hpet *h = ctx;
    h->legacy_in[n] = level;
    if (!(h->config & LEGACY))
        irq_set(n ? &h->cfg.irq8 : &h->cfg.irq0, level);
}

struct irq_line hpet_pit_line(struct hpet *h)
{
    return (struct irq_line){legacy_set, h, 0};
}

struct irq_line hpet_rtc_line(struct hpet *h)
{
    return (struct irq_line){legacy_set, h, 1};
}

/* ---- registers ---- */

/* Enabling starts the counter from where it stands; disabling keeps it. */
static void write_config(struct hpet *h, uint64_t v)
{
    uint64_t now = ticks(h), changed = (h->config ^ v) & (ENABLE | LEGACY);
    h->counter = counter_at(h, now);
    h->since = now;
    if (changed & LEGACY) { /* who had the lines lets them go */
        irq_set(&h->cfg.irq0, false);
        irq_set(&h->cfg.irq8, false);
        h->t[0].out = h->t[0].out > OUT_PINS ? h->t[0].out : 0;
        h->t[1].out = h->t[1].out > OUT_PINS ? h->t[1].out : 0;
    }
    h->config = v & (ENABLE | LEGACY);
    if ((changed & LEGACY) && !(h->config & LEGACY)) {
        irq_set(&h->cfg.irq0, h->legacy_in[0]);
        irq_set(&h->cfg.irq8, h->legacy_in[1]);
    }
    update(h);
}

static void write_counter(struct hpet *h, uint64_t v)
{
    if (h->config & ENABLE) {
        device_log(h->cfg.log, LOG_GUEST_ERROR, "hpet: the counter is written while it runs");
        return;
    }
    h->counter = v;
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        h->t[n].matched = NEVER_MATCHED;
}

static void write_timer_config(struct hpet_timer *t, uint64_t v)
{
    uint64_t writable = T_WRITABLE | (index_of(t) == 0 ? T_PERIODIC : 0);
    if (v & (1u << 14))
        device_log(t->h->cfg.log, LOG_GUEST_ERROR, "hpet: timer %u: messages are not offered", index_of(t));
    t->config = v & writable;
    t->comparator = trim(t, t->comparator);
    t->period = trim(t, t->period);
    if (!(t->config & T_LEVEL))
        t->h->status &= ~(1ull << index_of(t));
    t->matched = NEVER_MATCHED;
    update(t->h);
}

/* A periodic timer takes a new period from the next match on, and a new comparator only under VAL_SET. */
static void write_comparator(struct hpet_timer *t, uint64_t v)
{
    v = trim(t, v);
    if (!is_periodic(t) || (t->config & T_VAL_SET))
        t->comparator = v;
    if (is_periodic(t))
        t->period = v;
    t->config &= ~(uint64_t)T_VAL_SET;
    t->matched = NEVER_MATCHED;
    timer_plan(t);
}

static uint64_t timer_config(const struct hpet_timer *t)
{
    return ROUTES << 32 | T_IS_64 | (index_of(t) == 0 ? T_CAN_PERIODIC : 0) | (t->config & ~(uint64_t)T_VAL_SET);
}

/* A 64-bit register by its offset; *known is false where there is none. */
static uint64_t reg_get(const struct hpet *h, uint64_t reg, bool *known)
{
    const struct hpet_timer *t = reg >= REG_TIMERS ? &h->t[(reg - REG_TIMERS) / TIMER_STRIDE] : NULL;
    *known = true;
    switch (t ? (reg - REG_TIMERS) % TIMER_STRIDE : reg) {
    case REG_CONFIG:
        if (!t)
            return h->config;
        break;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter_at(h, ticks(h));
    case TIMER_CONFIG:
        return t ? timer_config(t) : PERIOD_FS << 32 | HPET_BLOCK_ID;
    case TIMER_COMPARATOR:
        if (t)
            return t->comparator;
        break;
    default:
        break;
    }
    *known = t != NULL; /* a timer's message register reads as zero */
    return 0;
}

static void reg_set(struct hpet *h, uint64_t reg, uint64_t v)
{
    struct hpet_timer *t = reg >= REG_TIMERS ? &h->t[(reg - REG_TIMERS) / TIMER_STRIDE] : NULL;
    if (t && (reg - REG_TIMERS) % TIMER_STRIDE == TIMER_CONFIG)
        write_timer_config(t, v);
    else if (t && (reg - REG_TIMERS) % TIMER_STRIDE == TIMER_COMPARATOR)
        write_comparator(t, v);
    else if (reg == REG_CONFIG)
        write_config(h, v);
    else if (reg == REG_STATUS) {
        h->status &= ~v;
        update(h);
    } else if (reg == REG_COUNTER)
        write_counter(h, v);
    else
        device_log(h->cfg.log, LOG_GUEST_ERROR, "hpet: write of 0x%llx to 0x%x", (unsigned long long)v, (unsigned)reg);
}

static bool is_register(const struct bus_txn *t)
{
    return (t->size == 4 || t->size == 8) && t->offset % t->size == 0 &&
           t->offset < REG_TIMERS + HPET_TIMERS * TIMER_STRIDE;
}

static uint64_t hpet_read(void *dev, const struct bus_txn *x)
{
    struct hpet *h = dev;
    bool known = false;
    catch_up(h);
    uint64_t v = is_register(x) ? reg_get(h, x->offset & ~7ull, &known) : 0;
    if (!known)
        device_log(h->cfg.log, LOG_GUEST_ERROR, "hpet: read of %u bytes at 0x%x", x->size, (unsigned)x->offset);
    return v >> (x->offset & 4 ? 32 : 0);
}

/* A half of a register keeps the other one; but what is cleared by ones, and VAL_SET, are of the half that is written.
 */
static void hpet_write(void *dev, const struct bus_txn *x, uint64_t value)
{
    struct hpet *h = dev;
    uint64_t reg = x->offset & ~7ull, keep = x->size == 8 ? 0 : x->offset & 4 ? 0xffffffffull : ~0xffffffffull;
    bool known;
    if (!is_register(x)) {
        device_log(h->cfg.log, LOG_GUEST_ERROR, "hpet: write of %u bytes at 0x%x", x->size, (unsigned)x->offset);
        return;
    }
    catch_up(h);
    uint64_t shifted = x->offset & 4 ? value << 32 : value, old = reg == REG_STATUS ? 0 : reg_get(h, reg, &known);
    bool periodic_value = reg >= REG_TIMERS && reg % TIMER_STRIDE == TIMER_COMPARATOR &&
                          is_periodic(&h->t[(reg - REG_TIMERS) / TIMER_STRIDE]);
    if (periodic_value) /* the half joins the period, which is what such a write sets in any case */
        old = h->t[(reg - REG_TIMERS) / TIMER_STRIDE].period;
    reg_set(h, reg, (old & keep) | (shifted & ~keep));
}

const struct bus_ops hpet_bus_ops = {hpet_read, hpet_write};

/* ---- life ---- */

static void power_on(struct hpet *h)
{
    h->config = h->status = h->counter = 0;
    h->legacy_in[0] = h->legacy_in[1] = false;
    h->since = 0;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_timer *t = &h->t[n];
        t->config = (uint64_t)FIRST_PIN << T_ROUTE_SHIFT;
        t->comparator = UINT64_MAX;
        t->period = 0;
        t->out = 0;
        t->matched = NEVER_MATCHED;
    }
}

void hpet_init(struct hpet *h, const struct hpet_config *cfg)
{
    memset(h, 0, sizeof *h);
    h->cfg = *cfg;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        h->t[n].h = h;
        timer_init(&h->t[n].timer, timer_expired, &h->t[n]);
    }
    power_on(h);
}

/* The controllers and what drives the lines are reset by their own. */
void hpet_reset(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        timer_cancel(h->cfg.clock, &h->t[n].timer);
    power_on(h);
}

void hpet_save(const struct hpet *h, struct snap_writer *w)
{
    snap_begin(w, "hpet", 1);
    snap_put_u64(w, h->config);
    snap_put_u64(w, h->status);
    snap_put_u64(w, h->counter);
    snap_put_u64(w, h->since);
    snap_put_u8(w, (uint8_t)(h->legacy_in[0] | h->legacy_in[1] << 1));
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        const struct hpet_timer *t = &h->t[n];
        snap_put_u64(w, t->config);
        snap_put_u64(w, t->comparator);
        snap_put_u64(w, t->period);
        snap_put_u64(w, t->matched);
        snap_put_u8(w, t->out);
        timer_save(h->cfg.clock, &t->timer, w);
    }
    snap_end(w);
}

void hpet_load(struct hpet *h, struct snap_reader *r)
{
    if (!snap_expect(r, "hpet", 1))
        return;
    h->config = snap_get_u64(r) & (ENABLE | LEGACY);
    h->status = snap_get_u64(r);
    h->counter = snap_get_u64(r);
    h->since = snap_get_u64(r);
    uint8_t in = snap_get_u8(r);
    h->legacy_in[0] = in & 1;
    h->legacy_in[1] = in >> 1 & 1;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_timer *t = &h->t[n];
        t->config = snap_get_u64(r) & (T_WRITABLE | (n ? 0 : T_PERIODIC));
        t->comparator = trim(t, snap_get_u64(r));
        t->period = trim(t, snap_get_u64(r));
        t->matched = snap_get_u64(r);
        t->out = snap_get_u8(r);
        timer_load(h->cfg.clock, &t->timer, r);
        if (t->out > OUT_PINS + PINS) {
            snap_fail(r, "hpet: timer %u holds line %u", n, t->out);
            t->out = 0;
        }
    }
}
