/*
 * The 8254 interval timer: three counters at 1.193182 MHz, and port 0x61, which gates counter 2 and shows its output.
 *
 * Source: Intel 8254 data sheet (231164). All six modes, binary and BCD, latch and read-back commands, counts that take
 * effect at the end of the running cycle (modes 2 and 3). Counters are never stepped: a counter's value is a function
 * of the clock and the tick at which it was loaded. Counter 0 drives IRQ 0 with its OUT level; a rising edge is made
 * when OUT rises, and the short low phase before it (modes 2, 4) is not given an event of its own.
 */
#ifndef DEVICES_PIT8254_H
#define DEVICES_PIT8254_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define PIT8254_HZ 1193182ull

struct pit8254_config {
    struct vclock *clock;
    struct irq_line irq0;
    const struct log *log;
};

struct pit8254_channel {
    uint8_t mode;   /* 0..5 */
    uint8_t access; /* 1: low byte, 2: high byte, 3: low then high */
    bool bcd;
    bool gate;
    bool loaded;         /* a count was written since the control word */
    bool running;        /* counting; else `elapsed` is frozen */
    uint32_t count;      /* N of the running cycle, 1..65536 */
    uint32_t next_count; /* N that takes over at switch_tick, or 0 */
    uint64_t switch_tick;
    uint64_t start;   /* tick at which N was loaded; may lie one tick ahead */
    uint64_t elapsed; /* ticks counted when not running */
    bool write_high_next, read_high_next;
    uint8_t write_low;
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
};

struct pit8254 {
    struct pit8254_config cfg;
    struct pit8254_channel ch[3];
    struct timer timer; /* next rising edge of OUT 0, or its change of cycle */
    uint64_t rise_tick; /* the edge that the timer is armed for, or CLOCK_NEVER */
    bool out0;          /* level on irq0 */
    uint8_t port61;     /* bits 0..3 as written */
};

extern const struct bus_ops pit8254_bus_ops;         /* 4 ports */
extern const struct bus_ops pit8254_speaker_bus_ops; /* 1 port: 0x61 */

void pit8254_init(struct pit8254 *p, const struct pit8254_config *cfg);
void pit8254_reset(struct pit8254 *p);
void pit8254_save(const struct pit8254 *p, struct snap_writer *w);
void pit8254_load(struct pit8254 *p, struct snap_reader *r);

#endif
