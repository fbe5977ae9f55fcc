/*
 * The MC146818 real-time clock with its 128 bytes of CMOS RAM.
 *
 * Source: Motorola MC146818A data sheet; byte 0x32 is the century, as PCs have it. Time is a base (seconds since 1970,
 * given by the machine) plus virtual time, plus what the guest set. BCD and binary, 12 and 24 hours; periodic, alarm
 * and update-ended interrupts. The update-in-progress bit is set for the last 244 us of each second. Flags follow from
 * the clock when register C is read; a clock timer is armed only for an interrupt that is enabled.
 */
#ifndef DEVICES_RTC_CMOS_H
#define DEVICES_RTC_CMOS_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define RTC_CMOS_BYTES 128

struct rtc_cmos_config {
    struct vclock *clock;
    struct irq_line irq;
    int64_t base; /* seconds since 1970-01-01 UTC at clock time 0 */
    const struct log *log;
};

struct rtc_cmos {
    struct rtc_cmos_config cfg;
    uint8_t index;
    uint8_t byte[RTC_CMOS_BYTES]; /* time bytes are current only while the clock is stopped */
    int64_t offset_seconds;       /* RTC time is clock time plus offset_seconds plus offset_ns */
    uint64_t offset_ns;           /* 0..999,999,999 */
    uint64_t synced;              /* clock time up to which flags in register C are computed */
    bool irq_level;
    struct timer timer;
};

extern const struct bus_ops rtc_cmos_bus_ops; /* 2 ports */

void rtc_cmos_init(struct rtc_cmos *r, const struct rtc_cmos_config *cfg);
/* Interrupt enables and flags; time and RAM live on a battery. */
void rtc_cmos_reset(struct rtc_cmos *r);
/* RAM sizes as firmware leaves them: below 4 GiB (from 0) and above, in bytes. Updates the checksum. */
void rtc_cmos_set_memory(struct rtc_cmos *r, uint64_t below_4g, uint64_t above_4g);
/* Sets a byte of CMOS RAM (0x0e..0x7f). Updates the checksum. */
void rtc_cmos_set_byte(struct rtc_cmos *r, uint8_t index, uint8_t value);
void rtc_cmos_save(const struct rtc_cmos *r, struct snap_writer *w);
void rtc_cmos_load(struct rtc_cmos *r, struct snap_reader *rd);

#endif
