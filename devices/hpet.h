/*
 * HPET: a 64-bit counter at 100 MHz and three timers that compare with it.
 *
 * Source: IA-PC HPET Specification 1.0a. Timer 0 can be periodic; all have 64 bits and a 32-bit mode, edge and level
 * interrupts, and IOAPIC pins 20 to 23 to choose from. With LEG_RT_CNF timer 0 is IRQ 0 and timer 1 is IRQ 8, and the
 * 8254's and the RTC's lines are cut off: they run through here. Messages (FSB) are not offered.
 *
 * Decisions where the specification is silent: a comparator that is written with the counter's value matches at once; a
 * write under VAL_SET sets the accumulator and the period; interrupts of a periodic timer come at most every
 * HPET_PERIOD_MIN ticks (a shorter period still moves the comparator on exactly). The counter is a function of virtual
 * time and never stepped.
 */
#ifndef DEVICES_HPET_H
#define DEVICES_HPET_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define HPET_HZ         100000000ull
#define HPET_TIMERS     3
#define HPET_BYTES      0x400
#define HPET_PERIOD_MIN 100         /* ticks: 1 us */
#define HPET_BLOCK_ID   0x8086a201u /* low half of the capabilities; the ACPI table has it too */

struct hpet_config {
    struct vclock *clock;
    struct irq_line irq0, irq8; /* the ISA lines that the 8254 and the RTC have otherwise */
    struct irq_line ioapic;     /* n is overwritten with the pin */
    const struct log *log;
};

struct hpet_timer {
    struct hpet *h;
    uint64_t config;     /* writable bits */
    uint64_t comparator; /* 32 bits of it in 32-bit mode */
    uint64_t period;
    uint8_t out;      /* line that it holds high (level interrupts): number + 1, or 0 */
    uint64_t matched; /* tick of the last match, which is not to be met twice */
    struct timer timer;
};

struct hpet {
    struct hpet_config cfg;
    uint64_t config, status;
    uint64_t counter;  /* at the tick `since` */
    uint64_t since;    /* ticks of the clock */
    bool legacy_in[2]; /* levels of the 8254's and the RTC's outputs */
    struct hpet_timer t[HPET_TIMERS];
};

extern const struct bus_ops hpet_bus_ops; /* HPET_BYTES */

void hpet_init(struct hpet *h, const struct hpet_config *cfg);
void hpet_reset(struct hpet *h);
/* What the 8254's IRQ 0 and the RTC's IRQ 8 are connected to. */
struct irq_line hpet_pit_line(struct hpet *h);
struct irq_line hpet_rtc_line(struct hpet *h);
void hpet_save(const struct hpet *h, struct snap_writer *w);
void hpet_load(struct hpet *h, struct snap_reader *r);

#endif
