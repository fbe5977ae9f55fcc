/*
 * The main() of a Check suite. Use: define static Suite *suite(void), then CHECK_MAIN(suite).
 */
#ifndef TESTS_UNIT_CHECK_MAIN_H
#define TESTS_UNIT_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

/* A suite of one case, whose tests run between setup and teardown (NULL: none), each for at most `seconds` (0: what
 * CHECK_MAIN sets). The names are static strings. */
static inline Suite *suite_of_case(const char *suite_name, const char *case_name, const TTest *const *tests, size_t n,
                                   SFun setup, SFun teardown, unsigned seconds)
{
    Suite *s = suite_create(suite_name);
    TCase *t = tcase_create(case_name);
    if (seconds)
        tcase_set_timeout(t, seconds);
    tcase_add_checked_fixture(t, setup, teardown);
    for (size_t i = 0; i < n; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(s, t);
    return s;
}

#define CHECK_MAIN(make_suite)                                                                                         \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        /* Check's own limit of 4 seconds a test is soon over on a busy machine. */                                    \
        setenv("CK_DEFAULT_TIMEOUT", "60", 0);                                                                         \
        setenv("CK_TIMEOUT_MULTIPLIER", "4", 0);                                                                       \
        SRunner *runner = srunner_create(make_suite());                                                                \
        srunner_run_all(runner, CK_ENV);                                                                               \
        int failed = srunner_ntests_failed(runner);                                                                    \
        srunner_free(runner);                                                                                          \
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;                                                                   \
    }

#endif
