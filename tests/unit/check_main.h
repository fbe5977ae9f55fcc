/*
 * The main() of a Check suite. Use: define static Suite *suite(void), then CHECK_MAIN(suite).
 */
#ifndef TESTS_UNIT_CHECK_MAIN_H
#define TESTS_UNIT_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

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
