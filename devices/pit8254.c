#include "devices/pit8254.h"

#include "core/snapshot.h"

#include <string.h>

#define PORT61_GATE2    0x01
#define PORT61_WRITABLE 0x0f
#define PORT61_REFRESH  0x10
#define PORT61_OUT2     0x20
#define REFRESH_UNITS   15085 /* one DRAM refresh request each 15.085 us toggles bit 4 */

static uint64_t tick_now(const struct pit8254 *p)
{
    return device_ticks(clock_now(p->cfg.clock), PIT8254_HZ);
}

static uint64_t elapsed_at(const struct pit8254_channel *c, uint64_t tick)
{
    if (!c->running)
        return c->elapsed;
    return tick > c->start ? tick - c->start : 0;
}

static bool is_periodic(const struct pit8254_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Length of mode 3's high half; the odd tick belongs to it. */
static uint32_t high_half(uint32_t count)
{
    return (count + 1) / 2;
}

/* Lets a waiting count take over if its moment has come. In mode 3 that can be the middle of a cycle: the new cycle
 * then starts in its low half. */
static void channel_sync(struct pit8254_channel *c, uint64_t tick)
{
    if (!c->next_count || !c->running || tick < c->switch_tick)
        return;
    uint64_t in_cycle = c->switch_tick - c->start;
    bool enters_low = c->mode == 3 && in_cycle % c->count != 0;
    c->count = c->next_count;
    c->next_count = 0;
    c->start = c->switch_tick - (enters_low ? high_half(c->count) : 0);
}

static bool out_at(const struct pit8254_channel *c, uint64_t tick)
{
    if (!c->loaded)
        return c->mode != 0;
    uint64_t e = elapsed_at(c, tick);
    switch (c->mode) {
    case 0:
        return e >= c->count;
    case 1: /* high until triggered, then low for N */
        return !c->running || e >= c->count;
    case 2: /* a low gate forces OUT high */
        return !c->running || e % c->count != c->count - 1;
    case 3:
        return !c->running || e % c->count < high_half(c->count);
    default: /* 4, 5: one low tick after N */
        return e != c->count;
    }
}

/* The counting element. */
static uint16_t value_at(const struct pit8254_channel *c, uint64_t tick)
{
    uint32_t modulus = c->bcd ? 10000 : 65536, v;
    uint64_t e = elapsed_at(c, tick);
    if (c->mode == 2) {
        v = c->count - (uint32_t)(e % c->count);
    } else if (c->mode == 3) {
        uint32_t in_cycle = (uint32_t)(e % c->count), high = high_half(c->count);
        v = (c->count & ~1u) - 2 * (in_cycle < high ? in_cycle : in_cycle - high);
    } else {
        v = (uint32_t)((c->count + modulus - e % modulus) % modulus);
    }
    v %= modulus;
    if (!c->bcd)
        return (uint16_t)v;
    return (uint16_t)((v / 1000) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

/* Next tick after `tick` at which OUT rises. Counter 0's gate is tied high, so modes 1 and 5 never trigger there. */
static uint64_t next_rise(const struct pit8254_channel *c, uint64_t tick)
{
    if (!c->loaded || !c->running)
        return CLOCK_NEVER;
    uint64_t at;
    switch (c->mode) {
    case 0:
        at = c->start + c->count;
        return at > tick ? at : CLOCK_NEVER;
    case 2:
    case 3:
        return c->start + (elapsed_at(c, tick) / c->count + 1) * c->count;
    default:
        at = c->start + c->count + 1;
        return at > tick ? at : CLOCK_NEVER;
    }
}

static void pit_arm(struct pit8254 *p, uint64_t tick)
{
    const struct pit8254_channel *c = &p->ch[0];
    p->rise_tick = next_rise(c, tick);
    uint64_t at = p->rise_tick;
    if (c->next_count && c->running && c->switch_tick < at)
        at = c->switch_tick;
    if (at == CLOCK_NEVER)
        timer_cancel(p->cfg.clock, &p->timer);
    else /* never in the past, whatever a snapshot says: the clock would not get past it */
        timer_arm(p->cfg.clock, &p->timer, device_tick_time(at > tick ? at : tick + 1, PIT8254_HZ));
}

static void pit_drive(struct pit8254 *p, bool level)
{
    if (level == p->out0)
        return;
    p->out0 = level;
    irq_set(&p->cfg.irq0, level);
}

static void pit_expired(void *opaque)
{
    struct pit8254 *p = opaque;
    uint64_t tick = tick_now(p);
    channel_sync(&p->ch[0], tick);
    if (tick >= p->rise_tick) {
        pit_drive(p, false);
        pit_drive(p, true);
    } else {
        pit_drive(p, out_at(&p->ch[0], tick));
    }
    pit_arm(p, tick);
}

/* After guest action on a channel. */
static void pit_update(struct pit8254 *p, unsigned n, uint64_t tick)
{
    if (n != 0)
        return;
    pit_drive(p, out_at(&p->ch[0], tick));
    pit_arm(p, tick);
}

static void channel_start(struct pit8254_channel *c, uint64_t tick)
{
    c->running = true;
    c->start = tick + 1; /* loaded by the next CLK pulse */
    c->elapsed = 0;
}

static uint32_t count_of_written(const struct pit8254_channel *c, uint16_t v)
{
    if (!c->bcd)
        return v ? v : 65536;
    uint32_t n = (uint32_t)(v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
    return n ? n : 10000;
}

static void channel_load(struct pit8254_channel *c, uint16_t written, uint64_t tick)
{
    uint32_t count = count_of_written(c, written);
    bool first = !c->loaded;
    c->loaded = true;
    if (is_periodic(c) && !first && c->running) {
        uint64_t e = elapsed_at(c, tick), cycle = e - e % c->count;
        uint64_t boundary =
            c->mode == 3 && e % c->count < high_half(c->count) ? cycle + high_half(c->count) : cycle + c->count;
        c->next_count = count;
        c->switch_tick = c->start + boundary;
        return;
    }
    if ((c->mode == 1 || c->mode == 5) && !first && c->running) { /* used at the next trigger */
        c->next_count = count;
        c->switch_tick = CLOCK_NEVER;
        return;
    }
    c->count = count;
    c->next_count = 0;
    c->elapsed = 0;
    c->running = false;
    if (c->mode != 1 && c->mode != 5 && c->gate)
        channel_start(c, tick);
}

static void channel_control(struct pit8254_channel *c, uint8_t v)
{
    uint8_t mode = (v >> 1) & 7;
    c->access = (v >> 4) & 3;
    c->mode = mode > 5 ? mode - 4 : mode; /* 6 and 7 are aliases of 2 and 3 */
    c->bcd = v & 1;
    c->loaded = c->running = false;
    c->elapsed = 0;
    c->next_count = 0;
    c->write_high_next = c->read_high_next = false;
    c->count_latched = c->status_latched = false;
}

static void channel_latch_count(struct pit8254_channel *c, uint64_t tick)
{
    if (c->count_latched)
        return;
    c->latch = value_at(c, tick);
    c->count_latched = true;
}

static void channel_latch_status(struct pit8254_channel *c, uint64_t tick)
{
    if (c->status_latched)
        return;
    bool null_count = !c->loaded || c->next_count || (c->running && tick < c->start);
    c->status = (uint8_t)(out_at(c, tick) << 7 | null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void pit_read_back(struct pit8254 *p, uint8_t v, uint64_t tick)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(v & (2u << n)))
            continue;
        channel_sync(&p->ch[n], tick);
        if (!(v & 0x20))
            channel_latch_count(&p->ch[n], tick);
        if (!(v & 0x10))
            channel_latch_status(&p->ch[n], tick);
    }
}

static void pit_write_control(struct pit8254 *p, uint8_t v, uint64_t tick)
{
    unsigned n = v >> 6;
    if (n == 3) {
        pit_read_back(p, v, tick);
        return;
    }
    channel_sync(&p->ch[n], tick);
    if (!(v & 0x30)) {
        channel_latch_count(&p->ch[n], tick);
        return;
    }
    channel_control(&p->ch[n], v);
    pit_update(p, n, tick);
}

static void pit_write_count(struct pit8254 *p, unsigned n, uint8_t v, uint64_t tick)
{
    struct pit8254_channel *c = &p->ch[n];
    channel_sync(c, tick);
    if (c->access == 3 && !c->write_high_next) {
        c->write_low = v;
        c->write_high_next = true;
        if (c->mode == 0) { /* the first byte stops counting and pulls OUT low */
            c->running = c->loaded = false;
            c->elapsed = 0;
            pit_update(p, n, tick);
        }
        return;
    }
    uint16_t count = c->access == 2 ? (uint16_t)(v << 8) : v;
    if (c->access == 3)
        count = (uint16_t)(v << 8 | c->write_low);
    c->write_high_next = false;
    channel_load(c, count, tick);
    pit_update(p, n, tick);
}

static void pit_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct pit8254 *p = dev;
    uint64_t tick = tick_now(p);
    if ((offset & 3) == 3)
        pit_write_control(p, v, tick);
    else
        pit_write_count(p, offset & 3, v, tick);
}

static uint8_t channel_read(struct pit8254_channel *c, uint64_t tick)
{
    channel_sync(c, tick);
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t v = c->count_latched ? c->latch : value_at(c, tick);
    bool high = c->access == 2 || (c->access == 3 && c->read_high_next);
    if (c->access == 3)
        c->read_high_next = !c->read_high_next;
    if (c->access != 3 || high)
        c->count_latched = false;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint8_t pit_read8(void *dev, uint64_t offset)
{
    struct pit8254 *p = dev;
    if ((offset & 3) == 3)
        return 0xff; /* the control word cannot be read */
    return channel_read(&p->ch[offset & 3], tick_now(p));
}

DEVICE_BYTE_BUS_OPS(pit8254_bus_ops, pit_read8, pit_write8);

static void channel_set_gate(struct pit8254_channel *c, bool level, uint64_t tick)
{
    bool rising = level && !c->gate;
    if (level == c->gate)
        return;
    channel_sync(c, tick);
    if (!level && c->running && c->mode != 1 && c->mode != 5) {
        c->elapsed = is_periodic(c) ? 0 : elapsed_at(c, tick);
        c->running = false;
    }
    c->gate = level;
    if (!rising || !c->loaded)
        return;
    if (c->mode == 0 || c->mode == 4) { /* go on where the counter stood */
        c->running = true;
        c->start = tick - c->elapsed;
        return;
    }
    if (c->next_count) {
        c->count = c->next_count;
        c->next_count = 0;
    }
    channel_start(c, tick);
}

static uint8_t speaker_read8(void *dev, uint64_t offset)
{
    struct pit8254 *p = dev;
    uint64_t tick = tick_now(p);
    channel_sync(&p->ch[2], tick);
    uint8_t v = p->port61 & PORT61_WRITABLE;
    if (clock_now(p->cfg.clock) / REFRESH_UNITS & 1)
        v |= PORT61_REFRESH;
    if (out_at(&p->ch[2], tick))
        v |= PORT61_OUT2;
    return v;
}

static void speaker_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct pit8254 *p = dev;
    p->port61 = v & PORT61_WRITABLE;
    channel_set_gate(&p->ch[2], v & PORT61_GATE2, tick_now(p));
}

DEVICE_BYTE_BUS_OPS(pit8254_speaker_bus_ops, speaker_read8, speaker_write8);

void pit8254_init(struct pit8254 *p, const struct pit8254_config *cfg)
{
    memset(p, 0, sizeof(*p));
    p->cfg = *cfg;
    timer_init(&p->timer, pit_expired, p);
    pit8254_reset(p);
}

void pit8254_reset(struct pit8254 *p)
{
    timer_cancel(p->cfg.clock, &p->timer);
    memset(p->ch, 0, sizeof(p->ch));
    for (unsigned n = 0; n < 3; n++) {
        p->ch[n].mode = 3;
        p->ch[n].access = 3;
        p->ch[n].gate = n != 2;
        p->ch[n].count = 65536;
    }
    p->rise_tick = CLOCK_NEVER;
    p->port61 = 0;
    pit_drive(p, true);
}

static void channel_save(const struct pit8254_channel *c, struct snap_writer *w)
{
    const uint8_t bytes[] = {c->mode,           c->access,        c->bcd,
                             c->gate,           c->loaded,        c->running,
                             c->status,         c->write_low,     c->write_high_next,
                             c->read_high_next, c->count_latched, c->status_latched};
    snap_put_bytes(w, bytes, sizeof(bytes));
    snap_put_u32(w, c->count);
    snap_put_u32(w, c->next_count);
    snap_put_u64(w, c->switch_tick);
    snap_put_u64(w, c->start);
    snap_put_u64(w, c->elapsed);
    snap_put_u16(w, c->latch);
}

static void channel_restore(struct pit8254_channel *c, struct snap_reader *r)
{
    c->mode = snap_get_u8(r);
    c->access = snap_get_u8(r);
    bool *flags[] = {&c->bcd, &c->gate, &c->loaded, &c->running};
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        *flags[i] = snap_get_u8(r) != 0;
    c->status = snap_get_u8(r);
    c->write_low = snap_get_u8(r);
    bool *more[] = {&c->write_high_next, &c->read_high_next, &c->count_latched, &c->status_latched};
    for (unsigned i = 0; i < ARRAY_LEN(more); i++)
        *more[i] = snap_get_u8(r) != 0;
    c->count = snap_get_u32(r);
    c->next_count = snap_get_u32(r);
    c->switch_tick = snap_get_u64(r);
    c->start = snap_get_u64(r);
    c->elapsed = snap_get_u64(r);
    c->latch = snap_get_u16(r);
    if (c->mode > 5 || c->access < 1 || c->access > 3 || c->count < 1 || c->count > 65536 || c->next_count > 65536) {
        snap_fail(r, "pit8254: a channel is out of range");
        *c = (struct pit8254_channel){.mode = 3, .access = 3, .count = 65536};
    }
}

void pit8254_save(const struct pit8254 *p, struct snap_writer *w)
{
    snap_begin(w, "pit8254", 1);
    for (unsigned n = 0; n < 3; n++)
        channel_save(&p->ch[n], w);
    snap_put_u64(w, p->rise_tick);
    snap_put_u8(w, p->out0);
    snap_put_u8(w, p->port61);
    timer_save(p->cfg.clock, &p->timer, w);
    snap_end(w);
}

void pit8254_load(struct pit8254 *p, struct snap_reader *r)
{
    if (!snap_expect(r, "pit8254", 1))
        return;
    for (unsigned n = 0; n < 3; n++)
        channel_restore(&p->ch[n], r);
    p->rise_tick = snap_get_u64(r);
    p->out0 = snap_get_u8(r) != 0;
    p->port61 = snap_get_u8(r) & PORT61_WRITABLE;
    timer_load(p->cfg.clock, &p->timer, r);
}
