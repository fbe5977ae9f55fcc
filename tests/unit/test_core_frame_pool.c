/* The frame pool: lowest first, real memory given back, references, aligned runs. */
#include "core/host/frame_pool.h"
#include "tests/unit/check_main.h"

#include <signal.h>
#include <string.h>

/* gcc defines macros, clang has features. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||               \
    __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#else
#define HAS_SANITIZER 0
#endif

static struct frame_pool *pool;
static char err[200];

static void setup(void)
{
    pool = frame_pool_create(4096, err, sizeof err);
    ck_assert_msg(pool != NULL, "%s", err);
}

static void teardown(void)
{
    frame_pool_destroy(pool);
}

START_TEST(the_lowest_free_frame_is_given_first)
{
    for (pfn_t i = 0; i < 200; i++)
        ck_assert_uint_eq(frame_pool_alloc(pool), i);
    frame_pool_put(pool, 130);
    frame_pool_put(pool, 7);
    frame_pool_put(pool, 64);
    ck_assert_uint_eq(frame_pool_used(pool), 197);
    ck_assert_uint_eq(frame_pool_alloc(pool), 7);
    ck_assert_uint_eq(frame_pool_alloc(pool), 64);
    ck_assert_uint_eq(frame_pool_alloc(pool), 130);
    ck_assert_uint_eq(frame_pool_alloc(pool), 200);
}
END_TEST

START_TEST(a_freed_frame_gives_its_memory_back_and_reads_as_zeros_again)
{
    uint64_t before = frame_pool_resident_bytes(pool);
    for (pfn_t i = 0; i < 1024; i++)
        memset(frame_pool_ptr(pool, frame_pool_alloc(pool)), 0xa5, PAGE_SIZE);
    uint64_t full = frame_pool_resident_bytes(pool);
    ck_assert_uint_ge(full - before, 1024 * PAGE_SIZE);
    for (pfn_t i = 0; i < 1024; i++)
        frame_pool_put(pool, i);
    ck_assert_uint_eq(frame_pool_resident_bytes(pool), before);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    const uint8_t *p = frame_pool_ptr(pool, frame_pool_alloc(pool));
    for (size_t i = 0; i < PAGE_SIZE; i++)
        ck_assert_uint_eq(p[i], 0);
}
END_TEST

START_TEST(an_unused_pool_costs_no_memory)
{
    struct frame_pool *huge = frame_pool_create((uint64_t)1 << 26, err, sizeof err); /* 256 GiB */
    ck_assert_msg(huge != NULL, "%s", err);
    ck_assert_uint_eq(frame_pool_resident_bytes(huge), 0);
    ck_assert_uint_eq(frame_pool_capacity(huge), (uint64_t)1 << 26);
    frame_pool_destroy(huge);
}
END_TEST

START_TEST(only_the_last_reference_frees)
{
    pfn_t pfn = frame_pool_alloc(pool);
    char *p = frame_pool_ptr(pool, pfn);
    p[5] = 'x';
    frame_pool_get(pool, pfn);
    ck_assert_uint_eq(frame_pool_refs(pool, pfn), 2);
    frame_pool_put(pool, pfn);
    ck_assert_uint_eq(frame_pool_refs(pool, pfn), 1);
    ck_assert_int_eq(p[5], 'x');
    ck_assert_uint_eq(frame_pool_used(pool), 1);
    frame_pool_put(pool, pfn);
    ck_assert_uint_eq(frame_pool_refs(pool, pfn), 0);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
}
END_TEST

START_TEST(dropping_a_reference_that_nobody_holds_stops_the_process)
{
    pfn_t pfn = frame_pool_alloc(pool);
    frame_pool_put(pool, pfn);
    frame_pool_put(pool, pfn);
}
END_TEST

START_TEST(a_run_of_512_is_aligned_and_freed_frame_by_frame)
{
    ck_assert_uint_eq(frame_pool_alloc(pool), 0);
    pfn_t run = frame_pool_alloc_run(pool, FRAMES_HUGE);
    ck_assert_uint_eq(run, 512);
    ck_assert_uint_eq((uintptr_t)frame_pool_ptr(pool, run) % (2 << 20), 0);
    ck_assert_uint_eq(frame_pool_used(pool), 513);
    for (pfn_t i = run; i < run + 512; i++)
        ck_assert_uint_eq(frame_pool_refs(pool, i), 1);
    frame_pool_put(pool, run + 3);
    ck_assert_uint_eq(frame_pool_alloc_run(pool, FRAMES_HUGE), 1024);
    for (pfn_t i = run; i < run + 512; i++)
        if (i != run + 3)
            frame_pool_put(pool, i);
    ck_assert_uint_eq(frame_pool_alloc_run(pool, FRAMES_HUGE), run);
}
END_TEST

START_TEST(a_full_pool_says_so_and_recovers)
{
    struct frame_pool *small = frame_pool_create(700, err, sizeof err);
    ck_assert_uint_eq(frame_pool_alloc_run(small, FRAMES_HUGE), 0);
    ck_assert_uint_eq(frame_pool_alloc_run(small, FRAMES_HUGE), PFN_NONE); /* 188 are left */
    for (int i = 0; i < 188; i++)
        ck_assert_uint_ne(frame_pool_alloc(small), PFN_NONE);
    ck_assert_uint_eq(frame_pool_alloc(small), PFN_NONE);
    ck_assert_uint_eq(frame_pool_used(small), 700);
    frame_pool_put(small, 699);
    ck_assert_uint_eq(frame_pool_alloc(small), 699);
    frame_pool_destroy(small);
}
END_TEST

START_TEST(the_zero_frame_is_outside_all_accounts)
{
    pfn_t zero = frame_pool_zero_frame(pool);
    const uint8_t *p = frame_pool_ptr(pool, zero);
    frame_pool_get(pool, zero);
    frame_pool_put(pool, zero);
    frame_pool_put(pool, zero);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    for (size_t i = 0; i < PAGE_SIZE; i++)
        ck_assert_uint_eq(p[i], 0);
}
END_TEST

START_TEST(a_write_to_the_zero_frame_faults_in_the_host)
{
    *(volatile uint8_t *)frame_pool_ptr(pool, frame_pool_zero_frame(pool)) = 1;
}
END_TEST

START_TEST(the_mark_of_use_goes_with_the_frame)
{
    pfn_t a = frame_pool_alloc(pool), b = frame_pool_alloc(pool), zero = frame_pool_zero_frame(pool);
    frame_pool_mark_accessed(pool, a, 1);
    frame_pool_mark_accessed(pool, zero, 1);
    ck_assert(frame_pool_is_accessed(pool, a));
    ck_assert(!frame_pool_is_accessed(pool, b));
    ck_assert(!frame_pool_is_accessed(pool, zero));
    frame_pool_mark_accessed(pool, a, 2);
    frame_pool_clear_accessed(pool, a);
    ck_assert(!frame_pool_is_accessed(pool, a));
    ck_assert(frame_pool_is_accessed(pool, b));
    frame_pool_put(pool, b);
    ck_assert_uint_eq(frame_pool_alloc(pool), b);
    ck_assert(!frame_pool_is_accessed(pool, b));
}
END_TEST

START_TEST(impossible_sizes_are_refused)
{
    ck_assert_ptr_null(frame_pool_create(0, err, sizeof err));
    ck_assert_ptr_null(frame_pool_create(UINT64_MAX, err, sizeof err));
    ck_assert_ptr_nonnull(strstr(err, "18446744073709551615"));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/frame_pool");
    TCase *t = tcase_create("frame_pool");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, the_lowest_free_frame_is_given_first);
    tcase_add_test(t, a_freed_frame_gives_its_memory_back_and_reads_as_zeros_again);
    tcase_add_test(t, an_unused_pool_costs_no_memory);
    tcase_add_test(t, only_the_last_reference_frees);
    tcase_add_test_raise_signal(t, dropping_a_reference_that_nobody_holds_stops_the_process, SIGABRT);
    tcase_add_test(t, a_run_of_512_is_aligned_and_freed_frame_by_frame);
    tcase_add_test(t, a_full_pool_says_so_and_recovers);
    tcase_add_test(t, the_zero_frame_is_outside_all_accounts);
#if !HAS_SANITIZER
    tcase_add_test_raise_signal(t, a_write_to_the_zero_frame_faults_in_the_host, SIGSEGV);
#else
    (void)a_write_to_the_zero_frame_faults_in_the_host; /* the sanitizer takes the signal */
#endif
    tcase_add_test(t, the_mark_of_use_goes_with_the_frame);
    tcase_add_test(t, impossible_sizes_are_refused);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
