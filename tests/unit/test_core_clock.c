/* The virtual clock: order of firing, re-arming, idle skip, saving. */
#include "core/clock.h"
#include "core/snapshot.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct vclock clk;
static char fired[64];

struct tick {
    struct timer timer;
    char name;
    uint64_t again; /* re-arm at now + again - 1 if not 0 */
    struct timer *cancels;
    struct tick *arms;
};

static void on_tick(void *opaque)
{
    struct tick *t = opaque;
    size_t n = strlen(fired);
    ck_assert_uint_lt(n + 1, sizeof fired);
    fired[n] = t->name;
    if (t->cancels)
        timer_cancel(&clk, t->cancels);
    if (t->again)
        timer_arm(&clk, &t->timer, clock_now(&clk) + t->again - 1);
    if (t->arms)
        timer_arm(&clk, &t->arms->timer, clock_now(&clk));
}

static void setup(void)
{
    clock_init(&clk);
    memset(fired, 0, sizeof fired);
}

static struct tick make(char name)
{
    struct tick t = {.name = name};
    timer_init(&t.timer, on_tick, NULL);
    return t;
}

static void arm(struct tick *t, uint64_t deadline)
{
    t->timer.opaque = t;
    timer_arm(&clk, &t->timer, deadline);
}

START_TEST(timers_fire_in_order_of_deadline_and_not_before_it)
{
    struct tick a = make('a'), b = make('b'), c = make('c');
    arm(&b, 20);
    arm(&c, 30);
    arm(&a, 10);
    ck_assert_uint_eq(clock_next_deadline(&clk), 10);
    clock_retire(&clk, 9);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "");
    clock_retire(&clk, 11);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "ab");
    ck_assert(!timer_is_armed(&a.timer) && timer_is_armed(&c.timer));
    ck_assert_uint_eq(clock_next_deadline(&clk), 30);
}
END_TEST

START_TEST(equal_deadlines_fire_in_order_of_arming)
{
    struct tick a = make('a'), b = make('b'), c = make('c');
    arm(&c, 10);
    arm(&a, 10);
    arm(&b, 10);
    arm(&c, 10); /* re-arming moves it behind the others */
    clock_retire(&clk, 10);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "abc");
}
END_TEST

START_TEST(rearming_in_the_past_inside_a_callback_waits_for_the_next_boundary)
{
    struct tick a = make('a'), b = make('b');
    a.again = 1;
    arm(&a, 5);
    arm(&b, 7);
    clock_retire(&clk, 10);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "ab");
    ck_assert(timer_is_armed(&a.timer));
    ck_assert_uint_le(clock_next_deadline(&clk), 10);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "aba");
}
END_TEST

START_TEST(a_callback_cancels_a_timer_that_is_due)
{
    struct tick a = make('a'), b = make('b'), c = make('c');
    a.cancels = &b.timer;
    arm(&a, 5);
    arm(&b, 5);
    arm(&c, 5);
    clock_retire(&clk, 5);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "ac");
}
END_TEST

START_TEST(a_timer_armed_by_a_callback_fires_once)
{
    struct tick a = make('a'), b = make('b');
    b.timer.opaque = &b;
    a.arms = &b;
    arm(&a, 5);
    clock_retire(&clk, 6);
    clock_run_due(&clk);
    clock_run_due(&clk);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "ab");
}
END_TEST

START_TEST(idle_skip_moves_time_forward_only_and_is_counted)
{
    clock_retire(&clk, 100);
    clock_charge(&clk, CLOCK_SURCHARGE_PORT_IO);
    ck_assert_uint_eq(clock_now(&clk), 1100);
    clock_skip_to(&clk, 1000);
    ck_assert_uint_eq(clock_now(&clk), 1100);
    clock_skip_to(&clk, 5000);
    ck_assert_uint_eq(clock_now(&clk), 5000);
    ck_assert_uint_eq(clk.idle, 3900);
    ck_assert_uint_eq(clk.icount, 100);
}
END_TEST

START_TEST(arming_at_never_disarms)
{
    struct tick a = make('a');
    arm(&a, 5);
    arm(&a, CLOCK_NEVER);
    ck_assert(!timer_is_armed(&a.timer));
    ck_assert_uint_eq(clock_next_deadline(&clk), CLOCK_NEVER);
}
END_TEST

START_TEST(order_survives_saving_whatever_the_order_of_loading)
{
    char path[] = "clock-XXXXXX", err[200];
    ck_assert_int_ge(mkstemp(path), 0);
    struct tick a = make('a'), b = make('b'), c = make('c'), d = make('d');
    arm(&c, 50);
    arm(&a, 50);
    arm(&b, 50);
    clock_retire(&clk, 7);
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    snap_begin(w, "clock", 1);
    clock_save(&clk, w);
    timer_save(&clk, &a.timer, w);
    timer_save(&clk, &b.timer, w);
    timer_save(&clk, &c.timer, w);
    timer_save(&clk, &d.timer, w);
    snap_end(w);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);

    setup();
    a = make('a'), b = make('b'), c = make('c'), d = make('d');
    a.timer.opaque = &a, b.timer.opaque = &b, c.timer.opaque = &c;
    arm(&d, 3); /* loading disarms it */
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert(snap_expect(r, "clock", 1));
    clock_load(&clk, r);
    timer_load(&clk, &a.timer, r);
    timer_load(&clk, &b.timer, r);
    timer_load(&clk, &c.timer, r);
    timer_load(&clk, &d.timer, r);
    ck_assert_ptr_null(snap_reader_error(r));
    snap_reader_close(r);
    unlink(path);
    ck_assert_uint_eq(clk.icount, 7);
    arm(&d, 50);
    clock_retire(&clk, 43);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "cabd");
}
END_TEST

START_TEST(nothing_is_due_beyond_the_horizon_and_idle_time_ends_there)
{
    setup();
    struct tick a = make('a'), b = make('b');
    arm(&a, CLOCK_HORIZON);
    arm(&b, CLOCK_HORIZON + 1);
    ck_assert(timer_is_armed(&a.timer));
    ck_assert(!timer_is_armed(&b.timer));
    clock_skip_to(&clk, CLOCK_NEVER - 1);
    ck_assert_uint_eq(clock_now(&clk), CLOCK_HORIZON);
    clock_run_due(&clk);
    ck_assert_str_eq(fired, "a");
}
END_TEST

START_TEST(a_device_is_at_work_while_its_timer_of_work_is_armed)
{
    setup();
    struct tick a = make('a'), b = make('b');
    timer_init_work(&b.timer, b.timer.fn, b.timer.opaque);
    arm(&a, 10);
    ck_assert(!clock_has_work(&clk));
    arm(&b, 20);
    ck_assert(clock_has_work(&clk));
    clock_retire(&clk, 20);
    clock_run_due(&clk);
    ck_assert(!clock_has_work(&clk));
    arm(&b, 30);
    timer_cancel(&clk, &b.timer);
    ck_assert(!clock_has_work(&clk));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/clock");
    TCase *t = tcase_create("clock");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, timers_fire_in_order_of_deadline_and_not_before_it);
    tcase_add_test(t, equal_deadlines_fire_in_order_of_arming);
    tcase_add_test(t, rearming_in_the_past_inside_a_callback_waits_for_the_next_boundary);
    tcase_add_test(t, a_callback_cancels_a_timer_that_is_due);
    tcase_add_test(t, a_timer_armed_by_a_callback_fires_once);
    tcase_add_test(t, idle_skip_moves_time_forward_only_and_is_counted);
    tcase_add_test(t, arming_at_never_disarms);
    tcase_add_test(t, order_survives_saving_whatever_the_order_of_loading);
    tcase_add_test(t, nothing_is_due_beyond_the_horizon_and_idle_time_ends_there);
    tcase_add_test(t, a_device_is_at_work_while_its_timer_of_work_is_armed);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
