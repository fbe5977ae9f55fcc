/* What is reported to the user: log channels, tracepoints, counters; and the hashes behind the digest. */
#include "core/clock.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/stats.h"
#include "core/trace.h"
#include "tests/unit/check_main.h"

#include <string.h>

static char *text;
static size_t text_len;
static FILE *out;

static void setup(void)
{
    out = open_memstream(&text, &text_len);
}

static void teardown(void)
{
    fclose(out);
    free(text);
}

START_TEST(only_enabled_channels_print_one_line_each)
{
    struct log log;
    size_t len;
    log_init(&log, out);
    ck_assert_ptr_null(log_enable_list(&log, "int,,unimp", &len));
    ck_assert(log_is_on(&log, LOG_INT) && log_is_on(&log, LOG_UNIMP) && !log_is_on(&log, LOG_IOPORT));
    log_emit(&log, LOG_INT, "vector %d", 14);
    log_emit(&log, LOG_IOPORT, "silent");
    fflush(out);
    ck_assert_str_eq(text, "int: vector 14\n");
}
END_TEST

START_TEST(an_unknown_channel_is_pointed_at)
{
    struct log log;
    size_t len = 0;
    log_init(&log, out);
    const char *bad = log_enable_list(&log, "int,inte,mmu", &len);
    ck_assert_ptr_nonnull(bad);
    ck_assert_int_eq(strncmp(bad, "inte,", 5), 0);
    ck_assert_uint_eq(len, 4);
}
END_TEST

START_TEST(trace_ring_keeps_the_last_records_in_order)
{
    struct vclock clock;
    struct trace t;
    clock_init(&clock);
    trace_init(&t, &clock);
    trace_point(&t, TRACE_MMU_FAULT, 1, 2, 3, 4);
    ck_assert_uint_eq(t.written, 0);
    ck_assert(!trace_enable(&t, "nothing.", 4));
    ck_assert(trace_enable(&t, "mmu.,host.gup", 3)); /* rounded up to 4 */
    ck_assert_uint_eq(t.capacity, 4);
    for (uint64_t i = 0; i < 6; i++) {
        clock_retire(&clock, 10);
        trace_point(&t, TRACE_MMU_FLUSH, i, 0x10, 99, 99);
        trace_point(&t, TRACE_CPU_EXCEPTION, i, 0, 0, 0); /* not enabled */
    }
    trace_dump(&t, out);
    fflush(out);
    ck_assert_str_eq(text, "30 mmu.flush gva=0x2 scope=0x10\n40 mmu.flush gva=0x3 scope=0x10\n"
                           "50 mmu.flush gva=0x4 scope=0x10\n60 mmu.flush gva=0x5 scope=0x10\n");
    trace_fini(&t);
}
END_TEST

START_TEST(counters_print_in_order_of_registration_and_are_found_by_name)
{
    struct stats s;
    static uint64_t value[100];
    static char name[100][8];
    stats_init(&s);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name[i], sizeof name[i], "c%u", i);
        stats_add(&s, name[i], i == 1 ? "pages" : "", &value[i]);
    }
    value[7] = 42;
    bool found;
    ck_assert_uint_eq(stats_get(&s, "c7", &found), 42);
    ck_assert(found);
    ck_assert_uint_eq(stats_get(&s, "c100", &found), 0);
    ck_assert(!found);
    stats_print(&s, out);
    fflush(out);
    ck_assert_ptr_nonnull(strstr(text, "0 pages\n"));
    ck_assert(strstr(text, "c1 ") < strstr(text, "c2 "));
    stats_fini(&s);
}
END_TEST

START_TEST(a_page_of_zeros_adds_nothing_to_the_digest_and_place_matters)
{
    static uint64_t page[512], other[512];
    ck_assert_uint_eq(digest_page_term(7, page), 0);
    ck_assert_uint_eq(digest_page_term(7, NULL), 0);
    page[511] = 1;
    other[0] = 1;
    ck_assert(!digest_page_is_zero(page));
    ck_assert_uint_ne(digest_page_term(7, page), 0);
    ck_assert_uint_ne(digest_page_term(7, page), digest_page_term(8, page));
    ck_assert_uint_ne(digest_page_term(7, page) + digest_page_term(8, other),
                      digest_page_term(8, page) + digest_page_term(7, other));
    for (unsigned i = 0; i < 512; i++) {
        memset(page, 0, sizeof page);
        page[i] = 1ull << (i % 64);
        ck_assert(!digest_page_is_zero(page));
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/report");
    TCase *t = tcase_create("report");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, only_enabled_channels_print_one_line_each);
    tcase_add_test(t, an_unknown_channel_is_pointed_at);
    tcase_add_test(t, trace_ring_keeps_the_last_records_in_order);
    tcase_add_test(t, counters_print_in_order_of_registration_and_are_found_by_name);
    tcase_add_test(t, a_page_of_zeros_adds_nothing_to_the_digest_and_place_matters);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
