/*
 * The 8254: modes, access modes, latches, reload in mid-cycle, counter 2's gate and port 0x61.
 */
#include "devices_rig.h"

#include "devices/pit8254.h"

struct rig {
    struct vclock clock;
    struct pit8254 pit;
    struct wire irq0;
};

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    pit8254_init(&g->pit, &(struct pit8254_config){.clock = &g->clock, .irq0 = wire_line(&g->irq0, 0)});
}

static void out(struct rig *g, unsigned port, uint8_t v)
{
    reg_write(&pit8254_bus_ops, &g->pit, port, 1, v);
}

static uint8_t in(struct rig *g, unsigned port)
{
    return (uint8_t)reg_read(&pit8254_bus_ops, &g->pit, port, 1);
}

/* Control word for low-then-high access, and the count. */
static void program(struct rig *g, unsigned channel, unsigned mode, uint16_t count)
{
    out(g, 3, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out(g, channel, (uint8_t)count);
    out(g, channel, (uint8_t)(count >> 8));
}

static uint16_t in16(struct rig *g, unsigned channel)
{
    uint8_t low = in(g, channel);
    return (uint16_t)(low | in(g, channel) << 8);
}

static uint16_t read_latched(struct rig *g, unsigned channel)
{
    out(g, 3, (uint8_t)(channel << 6));
    return in16(g, channel);
}

/* Moves time to the moment at which tick `t` begins. */
static void to_tick(struct rig *g, uint64_t t)
{
    run_for(&g->clock, device_tick_time(t, PIT8254_HZ) - clock_now(&g->clock));
}

static uint8_t status(struct rig *g, unsigned channel)
{
    out(g, 3, (uint8_t)(0xe0 | 2u << channel));
    return in(g, channel);
}

START_TEST(mode_0_raises_out_once_after_n_plus_1_ticks)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 0, 100);
    ck_assert(!g.irq0.level);
    to_tick(&g, 100);
    ck_assert(!g.irq0.level);
    ck_assert_uint_eq(read_latched(&g, 0), 1);
    to_tick(&g, 101);
    ck_assert(g.irq0.level);
    unsigned rises = g.irq0.rises;
    to_tick(&g, 200000);
    ck_assert_uint_eq(g.irq0.rises, rises);
    ck_assert_uint_eq(read_latched(&g, 0), (uint16_t)(100 - (200000 - 1)));
}
END_TEST

START_TEST(mode_2_interrupts_each_n_ticks)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 2, 1000);
    unsigned before = g.irq0.rises;
    to_tick(&g, 1 + 1000 * 50);
    ck_assert_uint_eq(g.irq0.rises - before, 50);
    to_tick(&g, 1 + 1000 * 50 + 1);
    ck_assert_uint_eq(read_latched(&g, 0), 999);
    to_tick(&g, 1 + 1000 * 51 - 1);
    ck_assert_uint_eq(read_latched(&g, 0), 1);
}
END_TEST

START_TEST(mode_2_keeps_its_rate_over_a_virtual_minute)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 2, 11932);
    unsigned before = g.irq0.rises;
    run_for(&g.clock, 60 * CLOCK_HZ);
    ck_assert_uint_eq(g.irq0.rises - before, 60ull * PIT8254_HZ / 11932);
}
END_TEST

START_TEST(mode_2_takes_a_new_count_at_the_end_of_the_cycle)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 2, 100);
    to_tick(&g, 51);
    out(&g, 0, 200);
    out(&g, 0, 0);
    ck_assert(status(&g, 0) & 0x40); /* null count */
    unsigned before = g.irq0.rises;
    to_tick(&g, 100);
    ck_assert_uint_eq(g.irq0.rises, before);
    to_tick(&g, 101);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
    ck_assert(!(status(&g, 0) & 0x40));
    to_tick(&g, 300);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
    to_tick(&g, 301);
    ck_assert_uint_eq(g.irq0.rises, before + 2);
}
END_TEST

START_TEST(mode_3_is_high_for_the_longer_half)
{
    struct rig g;
    rig_init(&g);
    program(&g, 2, 3, 7);
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 1); /* gate on: loaded at tick 1 */
    uint64_t pattern = 0;
    for (unsigned t = 1; t <= 14; t++) {
        to_tick(&g, t);
        pattern |= (uint64_t)(reg_read(&pit8254_speaker_bus_ops, &g.pit, 0, 1) >> 5 & 1) << (t - 1);
    }
    ck_assert_uint_eq(pattern, 0x0f | 0x0f << 7);
    to_tick(&g, 1 + 70);
    ck_assert_uint_eq(read_latched(&g, 2), 6);
    to_tick(&g, 1 + 71);
    ck_assert_uint_eq(read_latched(&g, 2), 4);
}
END_TEST

START_TEST(mode_3_takes_a_new_count_at_the_half)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 3, 100);
    to_tick(&g, 20);
    out(&g, 0, 20);
    out(&g, 0, 0);
    to_tick(&g, 50);
    ck_assert(g.irq0.level);
    to_tick(&g, 51); /* half of the old cycle: OUT falls, 10 ticks low follow */
    ck_assert(!g.irq0.level);
    to_tick(&g, 60);
    ck_assert(!(status(&g, 0) & 0x80));
    unsigned before = g.irq0.rises;
    to_tick(&g, 61);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
    to_tick(&g, 81);
    ck_assert_uint_eq(g.irq0.rises, before + 2);
}
END_TEST

START_TEST(mode_4_strobes_once)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 4, 50);
    unsigned before = g.irq0.rises;
    to_tick(&g, 51);
    ck_assert(!(status(&g, 0) & 0x80)); /* the one low tick */
    ck_assert_uint_eq(g.irq0.rises, before);
    to_tick(&g, 52);
    ck_assert(status(&g, 0) & 0x80);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
    to_tick(&g, 70000);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
}
END_TEST

START_TEST(mode_1_is_triggered_by_the_gate)
{
    struct rig g;
    rig_init(&g);
    program(&g, 2, 1, 10);
    to_tick(&g, 100);
    ck_assert(status(&g, 2) & 0x80);
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 1);
    to_tick(&g, 105);
    ck_assert(!(status(&g, 2) & 0x80));
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 0);
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 1); /* retriggers at 106 */
    to_tick(&g, 115);
    ck_assert(!(status(&g, 2) & 0x80));
    to_tick(&g, 116);
    ck_assert(status(&g, 2) & 0x80);
}
END_TEST

START_TEST(gate_2_pauses_mode_0)
{
    struct rig g;
    rig_init(&g);
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 1);
    program(&g, 2, 0, 100);
    to_tick(&g, 41);
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 0);
    to_tick(&g, 1000);
    ck_assert_uint_eq(read_latched(&g, 2), 60);
    ck_assert(!(reg_read(&pit8254_speaker_bus_ops, &g.pit, 0, 1) & 0x20));
    reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, 1);
    to_tick(&g, 1060);
    ck_assert(reg_read(&pit8254_speaker_bus_ops, &g.pit, 0, 1) & 0x20);
}
END_TEST

START_TEST(latched_count_stands_still_until_it_is_read)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 2, 5000);
    to_tick(&g, 1001);
    out(&g, 3, 0x00);
    to_tick(&g, 2001);
    out(&g, 3, 0x00); /* a second latch command is ignored */
    ck_assert_uint_eq(in16(&g, 0), 4000);
    ck_assert_uint_eq(in16(&g, 0), 3000); /* live again */
}
END_TEST

START_TEST(read_back_gives_status_then_count)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 2, 5000);
    to_tick(&g, 1001);
    out(&g, 3, 0xc2);
    ck_assert_uint_eq(in(&g, 0), 0x80 | 0x30 | 2 << 1);
    ck_assert_uint_eq(in16(&g, 0), 4000);
}
END_TEST

START_TEST(byte_access_modes_write_and_read_one_byte)
{
    struct rig g;
    rig_init(&g);
    out(&g, 3, 0x14); /* counter 0, low byte, mode 2 */
    out(&g, 0, 200);
    to_tick(&g, 51);
    ck_assert_uint_eq(in(&g, 0), 150);
    out(&g, 3, 0x24); /* high byte */
    out(&g, 0, 2);
    uint64_t start = device_ticks(clock_now(&g.clock), PIT8254_HZ) + 1;
    to_tick(&g, start + 10);
    ck_assert_uint_eq(in(&g, 0), 1); /* 512 - 10 = 0x1f6 */
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    struct rig g;
    rig_init(&g);
    out(&g, 3, 0x35); /* counter 0, both bytes, mode 2, BCD */
    out(&g, 0, 0x00);
    out(&g, 0, 0x10); /* one thousand */
    to_tick(&g, 1 + 1);
    ck_assert_uint_eq(read_latched(&g, 0), 0x0999);
    unsigned before = g.irq0.rises;
    to_tick(&g, 1 + 1000);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
}
END_TEST

START_TEST(count_zero_means_65536)
{
    struct rig g;
    rig_init(&g);
    program(&g, 0, 2, 0);
    unsigned before = g.irq0.rises;
    to_tick(&g, 65536);
    ck_assert_uint_eq(g.irq0.rises, before);
    to_tick(&g, 65537);
    ck_assert_uint_eq(g.irq0.rises, before + 1);
}
END_TEST

START_TEST(shortest_periods_neither_hang_nor_divide_by_zero)
{
    struct rig g;
    rig_init(&g);
    for (unsigned mode = 0; mode < 8; mode++)
        for (unsigned count = 0; count < 3; count++) {
            program(&g, 0, mode, (uint16_t)count);
            program(&g, 2, mode, (uint16_t)count);
            reg_write(&pit8254_speaker_bus_ops, &g.pit, 0, 1, mode & 1);
            run_for(&g.clock, 100000);
            read_latched(&g, 0);
            read_latched(&g, 2);
        }
    ck_assert_uint_gt(g.irq0.rises, 100);
}
END_TEST

START_TEST(refresh_bit_toggles_with_time)
{
    struct rig g;
    unsigned changes = 0, last = 2;
    rig_init(&g);
    for (unsigned i = 0; i < 100; i++) {
        unsigned now = reg_read(&pit8254_speaker_bus_ops, &g.pit, 0, 1) >> 4 & 1;
        changes += now != last;
        last = now;
        run_for(&g.clock, 15085);
    }
    ck_assert_uint_eq(changes, 100);
}
END_TEST

START_TEST(loaded_timer_goes_on_at_the_same_ticks)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    program(&a, 0, 3, 1001);
    program(&a, 2, 0, 40000);
    reg_write(&pit8254_speaker_bus_ops, &a.pit, 0, 1, 3);
    run_for(&a.clock, 1234567);
    out(&a, 0, 77); /* half a count written, and a latch pending */
    out(&a, 3, 0x80);
    ROUND_TRIP(&a.clock, &b.clock, pit8254_save(&a.pit, w), pit8254_load(&b.pit, r));
    b.irq0 = a.irq0;
    struct rig *both[2] = {&a, &b};
    uint32_t seen[2][6];
    for (unsigned i = 0; i < 2; i++) {
        struct rig *g = both[i];
        out(g, 0, 3);
        run_for(&g->clock, 5000000);
        seen[i][0] = g->irq0.rises;
        seen[i][1] = in(g, 2);
        seen[i][2] = in(g, 2);
        seen[i][3] = read_latched(g, 0);
        seen[i][4] = (uint32_t)reg_read(&pit8254_speaker_bus_ops, &g->pit, 0, 1);
        seen[i][5] = (uint32_t)clock_next_deadline(&g->clock);
    }
    ck_assert_mem_eq(seen[0], seen[1], sizeof(seen[0]));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("pit8254");
    TCase *t = tcase_create("pit8254");
    tcase_add_test(t, mode_0_raises_out_once_after_n_plus_1_ticks);
    tcase_add_test(t, mode_2_interrupts_each_n_ticks);
    tcase_add_test(t, mode_2_keeps_its_rate_over_a_virtual_minute);
    tcase_add_test(t, mode_2_takes_a_new_count_at_the_end_of_the_cycle);
    tcase_add_test(t, mode_3_is_high_for_the_longer_half);
    tcase_add_test(t, mode_3_takes_a_new_count_at_the_half);
    tcase_add_test(t, mode_4_strobes_once);
    tcase_add_test(t, mode_1_is_triggered_by_the_gate);
    tcase_add_test(t, gate_2_pauses_mode_0);
    tcase_add_test(t, latched_count_stands_still_until_it_is_read);
    tcase_add_test(t, read_back_gives_status_then_count);
    tcase_add_test(t, byte_access_modes_write_and_read_one_byte);
    tcase_add_test(t, bcd_counts_in_decimal);
    tcase_add_test(t, count_zero_means_65536);
    tcase_add_test(t, shortest_periods_neither_hang_nor_divide_by_zero);
    tcase_add_test(t, refresh_bit_toggles_with_time);
    tcase_add_test(t, loaded_timer_goes_on_at_the_same_ticks);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
