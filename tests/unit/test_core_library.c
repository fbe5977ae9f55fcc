/* Libraries that are loaded when they are wanted. */
#include "core/library.h"
#include "core/types.h"
#include "tests/unit/check_main.h"

#include <string.h>
#include <zlib.h>

#define CHECKSUM crc32 /* a name that is a macro, as some libraries have them */

#define Z_CALLS(X) X(zlibVersion) X(CHECKSUM)
struct z_calls {
    Z_CALLS(LIBRARY_POINTER)
};
#define Z_CALL(f) LIBRARY_CALL(struct z_calls, f)
static const struct library_call z_calls[] = {Z_CALLS(Z_CALL)};

static struct z_calls z;
static char why[200];

START_TEST(a_librarys_functions_are_called_by_its_table)
{
    ck_assert_msg(library_load("libz.so.1", z_calls, ARRAY_LEN(z_calls), &z, why, sizeof why), "%s", why);
    ck_assert_int_eq(z.zlibVersion()[0], ZLIB_VERSION[0]);
    ck_assert_uint_eq(z.CHECKSUM(0, (const Bytef *)"123456789", 9), 0xcbf43926);
}
END_TEST

START_TEST(a_library_that_is_not_there_is_named)
{
    ck_assert(!library_load("libumbra-has-no-such.so.7", z_calls, ARRAY_LEN(z_calls), &z, why, sizeof why));
    ck_assert_msg(strstr(why, "libumbra-has-no-such.so.7") != NULL, "%s", why);
}
END_TEST

START_TEST(a_function_that_a_library_lacks_is_named)
{
    static const struct library_call calls[] = {{"zlibVersion", 0}, {"zlib_has_no_such", 0}};
    ck_assert(!library_load("libz.so.1", calls, ARRAY_LEN(calls), &z, why, sizeof why));
    ck_assert_str_eq(why, "libz.so.1 has no zlib_has_no_such");
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {a_librarys_functions_are_called_by_its_table, a_library_that_is_not_there_is_named,
                                  a_function_that_a_library_lacks_is_named};
    return suite_of_case("core/library", "load", tests, ARRAY_LEN(tests), NULL, NULL, 0);
}

CHECK_MAIN(suite)
