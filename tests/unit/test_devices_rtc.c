/*
 * The RTC: calendar, formats, setting, update in progress, the three interrupts, CMOS RAM. The calendar is held against
 * gmtime().
 */
#include "devices_rig.h"

#include "devices/rtc_cmos.h"

#include <time.h>

#define BASE 1577836800ll /* 2020-01-01 00:00:00, a Wednesday */

struct rig {
    struct vclock clock;
    struct rtc_cmos rtc;
    struct wire irq;
};

static void rig_init_at(struct rig *g, int64_t base)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    rtc_cmos_init(&g->rtc, &(struct rtc_cmos_config){.clock = &g->clock, .irq = wire_line(&g->irq, 0), .base = base});
}

static void rig_init(struct rig *g)
{
    rig_init_at(g, BASE);
}

static void wr(struct rig *g, uint8_t index, uint8_t v)
{
    reg_write(&rtc_cmos_bus_ops, &g->rtc, 0, 1, index);
    reg_write(&rtc_cmos_bus_ops, &g->rtc, 1, 1, v);
}

static uint8_t rd(struct rig *g, uint8_t index)
{
    reg_write(&rtc_cmos_bus_ops, &g->rtc, 0, 1, index);
    return (uint8_t)reg_read(&rtc_cmos_bus_ops, &g->rtc, 1, 1);
}

#define ASSERT_TIME(g, c, y, mo, d, h, mi, s)                                                                          \
    do {                                                                                                               \
        const uint8_t want_[] = {c, y, mo, d, h, mi, s};                                                               \
        const uint8_t have_[] = {rd(g, 0x32), rd(g, 9), rd(g, 8), rd(g, 7), rd(g, 4), rd(g, 2), rd(g, 0)};             \
        ck_assert_mem_eq(have_, want_, sizeof(want_));                                                                 \
    } while (0)

START_TEST(time_is_base_plus_virtual_time_in_bcd)
{
    struct rig g;
    rig_init(&g);
    ASSERT_TIME(&g, 0x20, 0x20, 0x01, 0x01, 0x00, 0x00, 0x00);
    ck_assert_uint_eq(rd(&g, 6), 4); /* Wednesday, Sunday being 1 */
    run_for(&g.clock, 86399 * CLOCK_HZ);
    ASSERT_TIME(&g, 0x20, 0x20, 0x01, 0x01, 0x23, 0x59, 0x59);
    run_for(&g.clock, CLOCK_HZ);
    ASSERT_TIME(&g, 0x20, 0x20, 0x01, 0x02, 0x00, 0x00, 0x00);
    ck_assert_uint_eq(rd(&g, 6), 5);
    ck_assert_uint_eq(rd(&g, 0x0d), 0x80);
}
END_TEST

START_TEST(calendar_agrees_with_the_c_library_over_four_centuries)
{
    struct rig g;
    for (time_t t = 0; t < 13000000000; t += 86400 * 13 + 3607) {
        struct tm tm;
        rig_init_at(&g, t);
        wr(&g, 0x0b, 0x06); /* binary, 24 hours */
        gmtime_r(&t, &tm);
        ASSERT_TIME(&g, (uint8_t)((tm.tm_year + 1900) / 100), (uint8_t)(tm.tm_year % 100), (uint8_t)(tm.tm_mon + 1),
                    (uint8_t)tm.tm_mday, (uint8_t)tm.tm_hour, (uint8_t)tm.tm_min, (uint8_t)tm.tm_sec);
        ck_assert_uint_eq(rd(&g, 6), (unsigned)tm.tm_wday + 1);
    }
}
END_TEST

START_TEST(twelve_hour_format_marks_the_afternoon)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0x0b, 0x00);
    ck_assert_uint_eq(rd(&g, 4), 0x12);
    run_for(&g.clock, 12 * 3600 * CLOCK_HZ);
    ck_assert_uint_eq(rd(&g, 4), 0x92);
    run_for(&g.clock, 3600 * CLOCK_HZ);
    ck_assert_uint_eq(rd(&g, 4), 0x81);
    wr(&g, 4, 0x12); /* midnight */
    wr(&g, 0x0b, 0x02);
    ck_assert_uint_eq(rd(&g, 4), 0x00);
}
END_TEST

START_TEST(set_bit_stops_the_clock_and_releases_what_was_written)
{
    struct rig g;
    rig_init(&g);
    run_for(&g.clock, CLOCK_HZ / 4);
    wr(&g, 0x0b, 0x82);
    wr(&g, 0x32, 0x19);
    wr(&g, 9, 0x99);
    wr(&g, 8, 0x12);
    wr(&g, 7, 0x31);
    wr(&g, 4, 0x23);
    wr(&g, 2, 0x59);
    wr(&g, 0, 0x58);
    run_for(&g.clock, 100 * CLOCK_HZ);
    ASSERT_TIME(&g, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
    wr(&g, 0x0b, 0x02);
    ASSERT_TIME(&g, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
    run_for(&g.clock, 2 * CLOCK_HZ);
    ASSERT_TIME(&g, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00);
}
END_TEST

START_TEST(divider_reset_starts_the_second_in_the_middle)
{
    struct rig g;
    rig_init(&g);
    run_for(&g.clock, 100000000);
    wr(&g, 0x0a, 0x76);
    wr(&g, 0, 0x30);
    run_for(&g.clock, 7 * CLOCK_HZ);
    wr(&g, 0x0a, 0x26);
    run_for(&g.clock, CLOCK_HZ / 2 - 1);
    ck_assert_uint_eq(rd(&g, 0), 0x30);
    run_for(&g.clock, 1);
    ck_assert_uint_eq(rd(&g, 0), 0x31);
}
END_TEST

START_TEST(far_years_do_not_overflow)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0x32, 0x98);
    wr(&g, 9, 0x76);
    run_for(&g.clock, 3 * CLOCK_HZ);
    ASSERT_TIME(&g, 0x98, 0x76, 0x01, 0x01, 0x00, 0x00, 0x03);
    for (unsigned i = 0; i < 128; i++) /* nonsense is survived */
        wr(&g, (uint8_t)i, 0xff);
    wr(&g, 0x0b, 0x7f);
    run_for(&g.clock, 3 * CLOCK_HZ);
    for (unsigned i = 0; i < 128; i++)
        rd(&g, (uint8_t)i);
}
END_TEST

START_TEST(update_in_progress_is_seen_before_the_second_and_not_while_set)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(rd(&g, 0x0a), 0x26);
    run_for(&g.clock, CLOCK_HZ - 244001);
    ck_assert_uint_eq(rd(&g, 0x0a), 0x26);
    run_for(&g.clock, 1);
    ck_assert_uint_eq(rd(&g, 0x0a), 0xa6);
    wr(&g, 0x0b, 0x82);
    ck_assert_uint_eq(rd(&g, 0x0a), 0x26);
    wr(&g, 0x0b, 0x02);
    run_for(&g.clock, 244000);
    ck_assert_uint_eq(rd(&g, 0x0a), 0x26);
    ck_assert_uint_eq(rd(&g, 0), 1);
}
END_TEST

START_TEST(periodic_interrupt_comes_at_the_selected_rate)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0x0b, 0x42);
    unsigned count = 0;
    for (unsigned ms = 0; ms < 1000; ms++) { /* 1024 Hz, polled each millisecond: one or two each time */
        run_for(&g.clock, 1000000);
        if (g.irq.level) {
            ck_assert_uint_eq(rd(&g, 0x0c) & 0xc0, 0xc0);
            ck_assert(!g.irq.level);
            count++;
        }
    }
    ck_assert_uint_eq(count, 1000);
    wr(&g, 0x0a, 0x2d); /* 8 Hz */
    rd(&g, 0x0c);
    count = 0;
    for (unsigned ms = 0; ms < 2000; ms++) {
        run_for(&g.clock, 1000000);
        if (g.irq.level) {
            rd(&g, 0x0c);
            count++;
        }
    }
    ck_assert_uint_eq(count, 16);
}
END_TEST

START_TEST(alarm_fires_at_its_time_and_at_no_other)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 1, 0x05);
    wr(&g, 3, 0x01);
    wr(&g, 5, 0x00);
    wr(&g, 0x0b, 0x22);
    run_for(&g.clock, 65 * CLOCK_HZ - 1);
    ck_assert(!g.irq.level);
    run_for(&g.clock, 1);
    ck_assert(g.irq.level);
    ck_assert_uint_eq(rd(&g, 0x0c) & 0xa0, 0xa0);
    run_for(&g.clock, 86399 * CLOCK_HZ);
    ck_assert(!g.irq.level);
    run_for(&g.clock, CLOCK_HZ);
    ck_assert(g.irq.level);
}
END_TEST

START_TEST(alarm_bytes_can_match_any_value)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 1, 0x30);
    wr(&g, 3, 0xff);
    wr(&g, 5, 0xc0);
    wr(&g, 0x0b, 0x22);
    unsigned fired = 0;
    for (unsigned s = 0; s < 600; s++) {
        run_for(&g.clock, CLOCK_HZ);
        if (g.irq.level) {
            ck_assert_uint_eq(rd(&g, 0), 0x30);
            rd(&g, 0x0c);
            fired++;
        }
    }
    ck_assert_uint_eq(fired, 10);
    wr(&g, 1, 0x99); /* a second that never comes */
    run_for(&g.clock, 100 * CLOCK_HZ);
    ck_assert(!g.irq.level);
}
END_TEST

START_TEST(flags_are_set_without_interrupts_enabled)
{
    struct rig g;
    rig_init(&g);
    rd(&g, 0x0c);
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER); /* nobody is woken for them */
    run_for(&g.clock, CLOCK_HZ);
    ck_assert_uint_eq(rd(&g, 0x0c), 0x50);
    ck_assert_uint_eq(rd(&g, 0x0c), 0);
    wr(&g, 0x0b, 0x12);
    run_for(&g.clock, CLOCK_HZ);
    ck_assert(g.irq.level);
    ck_assert_uint_eq(rd(&g, 0x0c) & 0x90, 0x90);
}
END_TEST

START_TEST(ram_sizes_are_where_firmware_puts_them)
{
    struct rig g;
    rig_init(&g);
    rtc_cmos_set_memory(&g.rtc, 512ull << 20, 0);
    ck_assert_uint_eq(rd(&g, 0x15) | rd(&g, 0x16) << 8, 640);
    ck_assert_uint_eq(rd(&g, 0x17) | rd(&g, 0x18) << 8, 0xffff);
    ck_assert_uint_eq(rd(&g, 0x34) | rd(&g, 0x35) << 8, (512 - 16) * 16);
    rtc_cmos_set_memory(&g.rtc, 3ull << 30, 5ull << 30);
    ck_assert_uint_eq(rd(&g, 0x5b) | rd(&g, 0x5c) << 8 | rd(&g, 0x5d) << 16, 5 << 14);
    rtc_cmos_set_memory(&g.rtc, 8u << 20, 0);
    ck_assert_uint_eq(rd(&g, 0x30) | rd(&g, 0x31) << 8, 7 * 1024);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i <= 0x2d; i++)
        sum += rd(&g, i);
    ck_assert_uint_eq(rd(&g, 0x2e) << 8 | rd(&g, 0x2f), sum & 0xffff);
}
END_TEST

START_TEST(reset_keeps_time_and_ram_and_stops_interrupts)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0x40, 0x77);
    wr(&g, 0x0b, 0x72);
    run_for(&g.clock, 5 * CLOCK_HZ);
    rtc_cmos_reset(&g.rtc);
    ck_assert(!g.irq.level);
    ck_assert_uint_eq(rd(&g, 0x40), 0x77);
    ck_assert_uint_eq(rd(&g, 0), 5);
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER);
}
END_TEST

START_TEST(loaded_clock_goes_on_as_the_saved_one)
{
    struct rig a, b;
    rig_init(&a);
    rig_init_at(&b, 0);
    wr(&a, 0x32, 0x21);
    wr(&a, 9, 0x43);
    wr(&a, 1, 0x07);
    wr(&a, 3, 0xff);
    wr(&a, 5, 0xff);
    wr(&a, 0x0b, 0x76);
    wr(&a, 0x0a, 0x2b);
    run_for(&a.clock, 1234567890);
    ROUND_TRIP(&a.clock, &b.clock, rtc_cmos_save(&a.rtc, w), rtc_cmos_load(&b.rtc, r));
    b.irq = a.irq;
    struct rig *both[2] = {&a, &b};
    uint8_t seen[2][500];
    for (unsigned i = 0; i < 2; i++)
        for (unsigned n = 0; n < 100; n++) {
            struct rig *g = both[i];
            run_for(&g->clock, 123456789);
            seen[i][5 * n] = (uint8_t)g->irq.rises;
            seen[i][5 * n + 1] = n & 1 ? rd(g, 0x0c) : 0;
            seen[i][5 * n + 2] = rd(g, 0);
            seen[i][5 * n + 3] = rd(g, 9);
            seen[i][5 * n + 4] = rd(g, 0x0a);
        }
    ck_assert_mem_eq(seen[0], seen[1], sizeof(seen[0]));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("rtc_cmos");
    TCase *t = tcase_create("rtc_cmos");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, time_is_base_plus_virtual_time_in_bcd);
    tcase_add_test(t, calendar_agrees_with_the_c_library_over_four_centuries);
    tcase_add_test(t, twelve_hour_format_marks_the_afternoon);
    tcase_add_test(t, set_bit_stops_the_clock_and_releases_what_was_written);
    tcase_add_test(t, divider_reset_starts_the_second_in_the_middle);
    tcase_add_test(t, far_years_do_not_overflow);
    tcase_add_test(t, update_in_progress_is_seen_before_the_second_and_not_while_set);
    tcase_add_test(t, periodic_interrupt_comes_at_the_selected_rate);
    tcase_add_test(t, alarm_fires_at_its_time_and_at_no_other);
    tcase_add_test(t, alarm_bytes_can_match_any_value);
    tcase_add_test(t, flags_are_set_without_interrupts_enabled);
    tcase_add_test(t, ram_sizes_are_where_firmware_puts_them);
    tcase_add_test(t, reset_keeps_time_and_ram_and_stops_interrupts);
    tcase_add_test(t, loaded_clock_goes_on_as_the_saved_one);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
