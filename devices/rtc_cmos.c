#include "devices/rtc_cmos.h"

#include "core/snapshot.h"

#include <string.h>

enum {
    SECONDS = 0x00,
    ALARM_SECONDS = 0x01,
    MINUTES = 0x02,
    ALARM_MINUTES = 0x03,
    HOURS = 0x04,
    ALARM_HOURS = 0x05,
    WEEKDAY = 0x06,
    DAY = 0x07,
    MONTH = 0x08,
    YEAR = 0x09,
    REG_A = 0x0a,
    REG_B = 0x0b,
    REG_C = 0x0c,
    REG_D = 0x0d,
    CENTURY = 0x32
};

#define A_UIP           0x80
#define A_DIVIDER       0x70
#define A_DIVIDER_RESET 0x60 /* 0x60 and 0x70 hold the divider in reset */
#define A_RATE          0x0f

#define B_SET    0x80
#define B_PIE    0x40
#define B_AIE    0x20
#define B_UIE    0x10
#define B_BINARY 0x04
#define B_24H    0x02

#define C_IRQF 0x80
#define C_PF   0x40
#define C_AF   0x20
#define C_UF   0x10

#define D_VALID 0x80

#define UIP_UNITS   244000 /* t_BUC: how long before the update UIP is seen */
#define CRYSTAL_HZ  32768
#define DAY_SECONDS 86400

/* ---- Calendar (proleptic Gregorian; days since 1970-01-01) ---- */

struct civil {
    int64_t year;
    unsigned month, day, hour, minute, second; /* month and day from 1 */
};

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Counts years from March, so that the leap day is a year's last day; an era is 400 years. */
static int64_t days_of_civil(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = floor_div(year, 400), of_era = year - era * 400;
    int64_t of_year = (153 * (int64_t)((month + 9) % 12) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static struct civil civil_of_seconds(int64_t t)
{
    int64_t days = floor_div(t, DAY_SECONDS), rest = t - days * DAY_SECONDS;
    int64_t z = days + 719468, era = floor_div(z, 146097), of_era = z - era * 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned shifted = (unsigned)((5 * of_year + 2) / 153);
    struct civil c = {.month = shifted < 10 ? shifted + 3 : shifted - 9,
                      .day = (unsigned)(of_year - (153 * shifted + 2) / 5 + 1)};
    c.year = year_of_era + era * 400 + (c.month <= 2);
    c.hour = (unsigned)(rest / 3600);
    c.minute = (unsigned)(rest / 60 % 60);
    c.second = (unsigned)(rest % 60);
    return c;
}

/* ---- Number formats ---- */

static uint8_t encode(const struct rtc_cmos *r, unsigned v)
{
    return (uint8_t)(r->byte[REG_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10);
}

static unsigned decode(const struct rtc_cmos *r, uint8_t v)
{
    return r->byte[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc_cmos *r, unsigned hour)
{
    if (r->byte[REG_B] & B_24H)
        return encode(r, hour);
    unsigned twelve = hour % 12 ? hour % 12 : 12;
    return encode(r, twelve) | (hour >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct rtc_cmos *r, uint8_t v)
{
    if (r->byte[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* ---- Time ---- */

static bool is_stopped(const struct rtc_cmos *r)
{
    return (r->byte[REG_B] & B_SET) || (r->byte[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static int64_t rtc_seconds(const struct rtc_cmos *r, uint64_t now)
{
    return r->offset_seconds + (int64_t)((now + r->offset_ns) / CLOCK_HZ);
}

/* How far into its second the RTC is, in ns. */
static uint64_t rtc_fraction(const struct rtc_cmos *r)
{
    return (clock_now(r->cfg.clock) + r->offset_ns) % CLOCK_HZ;
}

static void store_time(struct rtc_cmos *r, int64_t seconds)
{
    struct civil c = civil_of_seconds(seconds);
    int64_t days = floor_div(seconds, DAY_SECONDS);
    r->byte[SECONDS] = encode(r, c.second);
    r->byte[MINUTES] = encode(r, c.minute);
    r->byte[HOURS] = encode_hour(r, c.hour);
    r->byte[WEEKDAY] =
        encode(r, (unsigned)(days + 4 - floor_div(days + 4, 7) * 7) + 1); /* 1970-01-01 was a Thursday, day 5 */
    r->byte[DAY] = encode(r, c.day);
    r->byte[MONTH] = encode(r, c.month);
    r->byte[YEAR] = encode(r, (unsigned)(c.year % 100));
    r->byte[CENTURY] = encode(r, (unsigned)(c.year / 100 % 100));
}

/* Reads the time bytes. Values out of range count on, as days beyond a month's end do. */
static int64_t parse_time(const struct rtc_cmos *r)
{
    unsigned month = decode(r, r->byte[MONTH]);
    int64_t year = decode(r, r->byte[CENTURY]) * 100 + decode(r, r->byte[YEAR]);
    if (month < 1 || month > 12)
        month = 1;
    int64_t days = days_of_civil(year, month, 1) + (int64_t)decode(r, r->byte[DAY]) - 1;
    return days * DAY_SECONDS + decode_hour(r, r->byte[HOURS]) * 3600 + decode(r, r->byte[MINUTES]) * 60 +
           decode(r, r->byte[SECONDS]);
}

/* ---- Events ---- */

static bool alarm_field(unsigned now, uint8_t reg, unsigned set)
{
    return reg >= 0xc0 || now == set; /* 0xc0 and above: any value */
}

/* First alarm strictly after `after`, in RTC seconds, or INT64_MAX if the alarm bytes name no time of day. */
static int64_t next_alarm(const struct rtc_cmos *r, int64_t after)
{
    const uint8_t *b = r->byte;
    unsigned hour = decode_hour(r, b[ALARM_HOURS]), minute = decode(r, b[ALARM_MINUTES]),
             second = decode(r, b[ALARM_SECONDS]);
    int64_t t = after + 1, limit = after + DAY_SECONDS;
    if ((b[ALARM_HOURS] < 0xc0 && hour > 23) || (b[ALARM_MINUTES] < 0xc0 && minute > 59) ||
        (b[ALARM_SECONDS] < 0xc0 && second > 59))
        return INT64_MAX;
    while (t <= limit) {
        int64_t of_day = t - floor_div(t, DAY_SECONDS) * DAY_SECONDS;
        if (!alarm_field((unsigned)(of_day / 3600), b[ALARM_HOURS], hour))
            t += 3600 - of_day % 3600;
        else if (!alarm_field((unsigned)(of_day / 60 % 60), b[ALARM_MINUTES], minute))
            t += 60 - of_day % 60;
        else if (!alarm_field((unsigned)(of_day % 60), b[ALARM_SECONDS], second))
            t++;
        else
            return t;
    }
    return INT64_MAX;
}

/* Period of the rate selector in crystal cycles, or 0 for none. */
static uint64_t periodic_cycles(const struct rtc_cmos *r)
{
    unsigned rate = r->byte[REG_A] & A_RATE;
    if (!rate || is_stopped(r))
        return 0;
    return 1ull << (rate <= 2 ? rate + 6 : rate - 1);
}

static void rtc_drive(struct rtc_cmos *r)
{
    bool level = r->byte[REG_C] & r->byte[REG_B] & (C_PF | C_AF | C_UF);
    r->byte[REG_C] = (r->byte[REG_C] & (uint8_t)~C_IRQF) | (level ? C_IRQF : 0);
    if (level != r->irq_level) {
        r->irq_level = level;
        irq_set(&r->cfg.irq, level);
    }
}

/* Sets the flags of everything that happened since the last sync. */
static void rtc_sync(struct rtc_cmos *r)
{
    uint64_t now = clock_now(r->cfg.clock), cycles = periodic_cycles(r);
    if (cycles && device_ticks(now, CRYSTAL_HZ) / cycles != device_ticks(r->synced, CRYSTAL_HZ) / cycles)
        r->byte[REG_C] |= C_PF;
    if (!is_stopped(r)) {
        int64_t before = rtc_seconds(r, r->synced), after = rtc_seconds(r, now);
        if (after != before)
            r->byte[REG_C] |= C_UF;
        if (after > before && next_alarm(r, before) <= after)
            r->byte[REG_C] |= C_AF;
    }
    r->synced = now;
    rtc_drive(r);
}

static uint64_t clock_of_seconds(const struct rtc_cmos *r, int64_t seconds)
{
    return (uint64_t)(seconds - r->offset_seconds) * CLOCK_HZ - r->offset_ns;
}

/* Clock time of the next interrupt that is enabled and whose flag is still clear. */
static uint64_t next_event(const struct rtc_cmos *r)
{
    uint8_t wanted = r->byte[REG_B] & (uint8_t)~r->byte[REG_C];
    uint64_t at = CLOCK_NEVER, cycles = periodic_cycles(r), t;
    int64_t second = rtc_seconds(r, r->synced);
    if ((wanted & B_PIE) && cycles) {
        at = device_tick_time((device_ticks(r->synced, CRYSTAL_HZ) / cycles + 1) * cycles, CRYSTAL_HZ);
    }
    if (is_stopped(r))
        return at;
    if (wanted & B_UIE) {
        t = clock_of_seconds(r, second + 1);
        at = t < at ? t : at;
    }
    if (wanted & B_AIE) {
        int64_t alarm = next_alarm(r, second);
        t = alarm == INT64_MAX ? CLOCK_NEVER : clock_of_seconds(r, alarm);
        at = t < at ? t : at;
    }
    return at;
}

static void rtc_rearm(struct rtc_cmos *r)
{
    uint64_t at = next_event(r);
    if (at == CLOCK_NEVER)
        timer_cancel(r->cfg.clock, &r->timer);
    else
        timer_arm(r->cfg.clock, &r->timer, at > r->synced ? at : r->synced + 1);
}

static void rtc_expired(void *opaque)
{
    struct rtc_cmos *r = opaque;
    rtc_sync(r);
    rtc_rearm(r);
}

/* ---- Registers ---- */

static bool is_time_byte(uint8_t index)
{
    return index == CENTURY ||
           (index <= YEAR && index != ALARM_SECONDS && index != ALARM_MINUTES && index != ALARM_HOURS);
}

/* Brings the time bytes up to date; nothing to do while they stand still. */
static void refresh_time(struct rtc_cmos *r)
{
    if (!is_stopped(r))
        store_time(r, rtc_seconds(r, clock_now(r->cfg.clock)));
}

/* Makes the RTC go on from the time bytes, `fraction` ns into the second. */
static void adopt_time(struct rtc_cmos *r, uint64_t fraction)
{
    uint64_t now = clock_now(r->cfg.clock);
    r->offset_ns = (fraction + CLOCK_HZ - now % CLOCK_HZ) % CLOCK_HZ;
    r->offset_seconds = parse_time(r) - (int64_t)((now + r->offset_ns) / CLOCK_HZ);
    r->synced = now;
}

/* Changes register A or B; entering the stopped state freezes the time bytes, leaving it starts from them. */
static void write_control(struct rtc_cmos *r, uint8_t index, uint8_t value)
{
    bool was_stopped = is_stopped(r), was_reset = (r->byte[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    uint64_t fraction = rtc_fraction(r);
    refresh_time(r);
    r->byte[index] = value;
    if (was_stopped && !is_stopped(r)) /* out of divider reset the first update comes after half a second */
        adopt_time(r, was_reset ? CLOCK_HZ / 2 : fraction);
    if (index == REG_B && (value & B_SET))
        r->byte[REG_B] &= (uint8_t)~B_UIE;
}

static void write_data(struct rtc_cmos *r, uint8_t index, uint8_t value)
{
    rtc_sync(r);
    if (index == REG_A || index == REG_B) {
        write_control(r, index, index == REG_A ? value & (uint8_t)~A_UIP : value);
    } else if (is_time_byte(index)) {
        refresh_time(r);
        r->byte[index] = value;
        if (!is_stopped(r))
            adopt_time(r, rtc_fraction(r));
    } else if (index != REG_C && index != REG_D) {
        r->byte[index] = value;
    }
    rtc_drive(r);
    rtc_rearm(r);
}

static uint8_t read_a(const struct rtc_cmos *r)
{
    uint8_t v = r->byte[REG_A];
    if (!is_stopped(r) && rtc_fraction(r) >= CLOCK_HZ - UIP_UNITS)
        v |= A_UIP;
    return v;
}

static uint8_t read_data(struct rtc_cmos *r, uint8_t index)
{
    if (index == REG_A)
        return read_a(r);
    if (index == REG_C) { /* reading clears the flags and releases the line */
        rtc_sync(r);
        uint8_t v = r->byte[REG_C];
        r->byte[REG_C] = 0;
        rtc_drive(r);
        rtc_rearm(r);
        return v;
    }
    if (is_time_byte(index))
        refresh_time(r);
    return r->byte[index];
}

static void rtc_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct rtc_cmos *r = dev;
    if (offset & 1)
        write_data(r, r->index, v);
    else
        r->index = v & 0x7f; /* bit 7 gates NMI, of which this board has none from the port */
}

static uint8_t rtc_read8(void *dev, uint64_t offset)
{
    struct rtc_cmos *r = dev;
    return offset & 1 ? read_data(r, r->index) : 0xff; /* the index cannot be read */
}

DEVICE_BYTE_BUS_OPS(rtc_cmos_bus_ops, rtc_read8, rtc_write8);

/* ---- CMOS RAM as firmware leaves it ---- */

static void update_checksum(struct rtc_cmos *r)
{
    uint16_t sum = 0;
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum = (uint16_t)(sum + r->byte[i]);
    r->byte[0x2e] = (uint8_t)(sum >> 8);
    r->byte[0x2f] = (uint8_t)sum;
}

static void put_word(struct rtc_cmos *r, unsigned index, uint64_t value)
{
    uint16_t v = value > 0xffff ? 0xffff : (uint16_t)value;
    r->byte[index] = (uint8_t)v;
    r->byte[index + 1] = (uint8_t)(v >> 8);
}

void rtc_cmos_set_memory(struct rtc_cmos *r, uint64_t below_4g, uint64_t above_4g)
{
    uint64_t kib = below_4g >> 10, extended = kib > 1024 ? kib - 1024 : 0;
    uint64_t above_16m = below_4g > (16u << 20) ? (below_4g - (16u << 20)) >> 16 : 0;
    put_word(r, 0x15, kib < 640 ? kib : 640);
    put_word(r, 0x17, extended);
    put_word(r, 0x30, extended);
    put_word(r, 0x34, above_16m);
    r->byte[0x5b] = (uint8_t)(above_4g >> 16);
    r->byte[0x5c] = (uint8_t)(above_4g >> 24);
    r->byte[0x5d] = (uint8_t)(above_4g >> 32);
    update_checksum(r);
}

void rtc_cmos_set_byte(struct rtc_cmos *r, uint8_t index, uint8_t value)
{
    if (index > REG_D && index < RTC_CMOS_BYTES)
        r->byte[index] = value;
    update_checksum(r);
}

/* ---- Life ---- */

void rtc_cmos_init(struct rtc_cmos *r, const struct rtc_cmos_config *cfg)
{
    memset(r, 0, sizeof(*r));
    r->cfg = *cfg;
    r->offset_seconds = cfg->base;
    r->byte[REG_A] = 0x26; /* 32.768 kHz crystal, 1024 Hz */
    r->byte[REG_B] = B_24H;
    r->byte[REG_D] = D_VALID;
    r->byte[0x14] = 0x02; /* equipment: coprocessor; no floppy, no display adapter byte */
    r->synced = clock_now(cfg->clock);
    timer_init(&r->timer, rtc_expired, r);
    update_checksum(r);
}

void rtc_cmos_reset(struct rtc_cmos *r)
{
    rtc_sync(r);
    r->index = 0;
    r->byte[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | 0x08);
    r->byte[REG_C] = 0;
    rtc_drive(r);
    rtc_rearm(r);
}

void rtc_cmos_save(const struct rtc_cmos *r, struct snap_writer *w)
{
    snap_begin(w, "rtc_cmos", 1);
    snap_put_u8(w, r->index);
    snap_put_bytes(w, r->byte, sizeof(r->byte));
    snap_put_u64(w, (uint64_t)r->offset_seconds);
    snap_put_u64(w, r->offset_ns);
    snap_put_u64(w, r->synced);
    snap_put_u8(w, r->irq_level);
    timer_save(r->cfg.clock, &r->timer, w);
    snap_end(w);
}

void rtc_cmos_load(struct rtc_cmos *r, struct snap_reader *rd)
{
    if (!snap_expect(rd, "rtc_cmos", 1))
        return;
    r->index = snap_get_u8(rd) & 0x7f;
    snap_get_bytes(rd, r->byte, sizeof(r->byte));
    r->offset_seconds = (int64_t)snap_get_u64(rd);
    r->offset_ns = snap_get_u64(rd) % CLOCK_HZ;
    r->synced = snap_get_u64(rd);
    r->irq_level = snap_get_u8(rd) != 0;
    timer_load(r->cfg.clock, &r->timer, rd);
}
