/* The input queue: order of delivery, posting from a sink, save and load. */
#include "core/replay.h"
#include "core/snapshot.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct input_queue q;
static char seen[128];
static bool echo;

static void on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    strncat(seen, (const char *)bytes, len);
    strcat(seen, opaque);
    if (echo)
        input_post(&q, INPUT_SERIAL0, 0, "e", 1);
}

static void setup(void)
{
    input_init(&q);
    input_set_sink(&q, INPUT_SERIAL0, on_input, "0");
    input_set_sink(&q, INPUT_KEYBOARD, on_input, "k");
    memset(seen, 0, sizeof seen);
    echo = false;
}

static void teardown(void)
{
    input_fini(&q);
}

START_TEST(events_arrive_by_icount_then_by_posting_order)
{
    ck_assert_uint_eq(input_next(&q), UINT64_MAX);
    input_post(&q, INPUT_SERIAL0, 30, "x", 1);
    input_post(&q, INPUT_SERIAL0, 10, "a", 1);
    input_post(&q, INPUT_KEYBOARD, 10, "b", 1);
    input_post(&q, INPUT_SERIAL0, 20, "cc", 2);
    input_post(&q, INPUT_SERIAL0, 10, "d", 1);
    ck_assert_uint_eq(input_next(&q), 10);
    input_deliver_due(&q, 9);
    ck_assert_str_eq(seen, "");
    input_deliver_due(&q, 20);
    ck_assert_str_eq(seen, "a0bkd0cc0");
    ck_assert_uint_eq(q.delivered, 4);
    ck_assert_uint_eq(input_next(&q), 30);
    input_post(&q, INPUT_SERIAL0, 40, "y", 1); /* behind the rest after removals at the front */
    input_deliver_due(&q, 100);
    ck_assert_str_eq(seen, "a0bkd0cc0x0y0");
    input_post(&q, INPUT_SERIAL0, 5, "z", 1); /* and into an emptied queue */
    input_deliver_due(&q, 100);
    ck_assert_str_eq(seen, "a0bkd0cc0x0y0z0");
}
END_TEST

START_TEST(what_a_sink_posts_waits_for_the_next_boundary)
{
    echo = true;
    input_post(&q, INPUT_SERIAL0, 1, "a", 1);
    input_post(&q, INPUT_SERIAL0, 2, "b", 1);
    input_deliver_due(&q, 5);
    ck_assert_str_eq(seen, "a0b0");
    echo = false;
    input_deliver_due(&q, 5);
    ck_assert_str_eq(seen, "a0b0e0e0");
}
END_TEST

START_TEST(events_without_a_sink_are_dropped_when_due)
{
    input_post(&q, INPUT_CONTROL, 1, "a", 1);
    input_post(&q, INPUT_SERIAL0, 1, "", 0);
    input_deliver_due(&q, 1);
    ck_assert_uint_eq(input_next(&q), UINT64_MAX);
    ck_assert_uint_eq(q.delivered, 1);
}
END_TEST

static void save(const char *path, void (*put)(struct snap_writer *w))
{
    char err[200];
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    snap_begin(w, "input", 1);
    if (put)
        put(w);
    else
        input_save(&q, w);
    snap_end(w);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
}

START_TEST(waiting_events_survive_save_and_load)
{
    char path[] = "input-XXXXXX", err[200];
    ck_assert_int_ge(mkstemp(path), 0);
    input_post(&q, INPUT_SERIAL0, 1, "gone", 4);
    input_deliver_due(&q, 1);
    input_post(&q, INPUT_SERIAL0, 20, "b", 1);
    input_post(&q, INPUT_KEYBOARD, 20, "c", 1);
    input_post(&q, INPUT_SERIAL0, 10, "a", 1);
    save(path, NULL);
    teardown();
    setup();
    input_post(&q, INPUT_SERIAL0, 3, "old", 3); /* replaced by what is loaded */
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert(snap_expect(r, "input", 1));
    input_load(&q, r);
    ck_assert_ptr_null(snap_reader_error(r));
    snap_reader_close(r);
    unlink(path);
    ck_assert_uint_eq(q.delivered, 1);
    input_deliver_due(&q, 50);
    ck_assert_str_eq(seen, "a0b0ck");
}
END_TEST

static void put_bad_source(struct snap_writer *w)
{
    snap_put_u64(w, 0);
    snap_put_u32(w, 1);
    snap_put_u64(w, 5);
    snap_put_u8(w, INPUT_SOURCE_COUNT);
    snap_put_u32(w, 1);
    snap_put_u8(w, 'x');
}

static void put_bad_length(struct snap_writer *w)
{
    snap_put_u64(w, 0);
    snap_put_u32(w, 1);
    snap_put_u64(w, 5);
    snap_put_u8(w, 0);
    snap_put_u32(w, 0xffffffff);
    snap_put_u8(w, 'x');
}

static void put_bad_count(struct snap_writer *w)
{
    snap_put_u64(w, 0);
    snap_put_u32(w, 0xffffffff);
}

START_TEST(impossible_saved_events_are_errors)
{
    static void (*const bad[])(struct snap_writer *) = {put_bad_source, put_bad_length, put_bad_count};
    for (size_t i = 0; i < 3; i++) {
        char path[] = "input-XXXXXX", err[200];
        ck_assert_int_ge(mkstemp(path), 0);
        save(path, bad[i]);
        struct snap_reader *r = snap_reader_open(path, err, sizeof err);
        ck_assert(snap_expect(r, "input", 1));
        input_load(&q, r);
        ck_assert_ptr_nonnull(snap_reader_error(r));
        snap_reader_close(r);
        unlink(path);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/input");
    TCase *t = tcase_create("input");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, events_arrive_by_icount_then_by_posting_order);
    tcase_add_test(t, what_a_sink_posts_waits_for_the_next_boundary);
    tcase_add_test(t, events_without_a_sink_are_dropped_when_due);
    tcase_add_test(t, waiting_events_survive_save_and_load);
    tcase_add_test(t, impossible_saved_events_are_errors);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
