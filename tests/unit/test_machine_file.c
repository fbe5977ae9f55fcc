/* Files that rest between their uses. */
#include "check_main.h"

#include "frontends/machine/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    FILE *out = fopen(path, "wb");
    ck_assert_ptr_nonnull(out);
    ck_assert_uint_eq(fwrite(text, 1, strlen(text), out), strlen(text));
    ck_assert_int_eq(fclose(out), 0);
}

static void open_file(struct file *f, char path[40])
{
    struct error e;
    strcpy(path, "/tmp/umbra-file-XXXXXX");
    close(mkstemp(path));
    put(path, "a kernel");
    ck_assert(file_read(f, path, &e));
    file_rest(f);
    ck_assert_ptr_null(f->data);
}

static void wakes(struct file *f)
{
    struct error e;
    ck_assert(file_wake(f, &e));
    ck_assert_uint_eq(f->len, 8);
    ck_assert_str_eq((const char *)f->data, "a kernel");
}

START_TEST(resting_file_wakes_with_its_bytes_as_often_as_it_is_wanted)
{
    char path[40];
    struct file f;
    open_file(&f, path);
    for (unsigned k = 0; k < 3; k++) {
        wakes(&f);
        wakes(&f); /* already awake */
        file_rest(&f);
        file_rest(&f);
    }
    file_free(&f);
    unlink(path);
}
END_TEST

START_TEST(resting_file_that_was_replaced_or_removed_wakes_as_it_was)
{
    char path[40];
    struct file f;
    open_file(&f, path);
    unlink(path);
    put(path, "no kernel");
    wakes(&f);
    file_free(&f);
    unlink(path);
}
END_TEST

START_TEST(resting_file_that_was_written_to_does_not_wake)
{
    static const char *const others[] = {"a Kernel", "a kern", "", "a kernel and more"};
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        char path[40];
        struct file f;
        struct error e;
        open_file(&f, path);
        put(path, others[k]);
        ck_assert(!file_wake(&f, &e));
        ck_assert_msg(strstr(e.text, path) && strstr(e.text, "has changed"), "%s", e.text);
        ck_assert_ptr_null(f.data);
        put(path, "a kernel");
        wakes(&f);
        file_free(&f);
        unlink(path);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("machine/file");
    TCase *t = tcase_create("rest");
    tcase_add_test(t, resting_file_wakes_with_its_bytes_as_often_as_it_is_wanted);
    tcase_add_test(t, resting_file_that_was_replaced_or_removed_wakes_as_it_was);
    tcase_add_test(t, resting_file_that_was_written_to_does_not_wake);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
