/* Snapshot files: round trip, damage, sticky errors; the digest writer. */
#include "core/snapshot.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[128], err[300];

static void setup(void)
{
    strcpy(dir, "snapshot-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    err[0] = 0;
}

static void teardown(void)
{
    unlink(path);
    rmdir(dir);
}

static void put_sample(struct snap_writer *w)
{
    snap_begin(w, "cpu0", 3);
    snap_put_u8(w, 0x11);
    snap_put_u16(w, 0x2233);
    snap_put_u32(w, 0x44556677);
    snap_put_u64(w, 0x8899aabbccddeeffull);
    snap_end(w);
    snap_begin(w, "empty", 1);
    snap_end(w);
    snap_begin(w, "blob", 0x01020304);
    snap_put_bytes(w, "some bytes", 10);
    snap_end(w);
}

static void write_sample(void)
{
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    ck_assert_ptr_nonnull(w);
    put_sample(w);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
}

static size_t read_file(uint8_t *buf, size_t max)
{
    FILE *f = fopen(path, "rb");
    size_t n = fread(buf, 1, max, f);
    fclose(f);
    return n;
}

static void write_file(const uint8_t *buf, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(buf, 1, n, f), n);
    fclose(f);
}

START_TEST(what_was_put_is_got_back_in_any_order_of_sections)
{
    write_sample();
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert_msg(r != NULL, "%s", err);
    uint32_t version;
    char text[10];
    ck_assert(snap_find(r, "blob", &version));
    ck_assert_uint_eq(version, 0x01020304);
    ck_assert_uint_eq(snap_left(r), 10);
    snap_get_bytes(r, text, 10);
    ck_assert_mem_eq(text, "some bytes", 10);
    ck_assert(snap_expect(r, "cpu0", 3));
    ck_assert_uint_eq(snap_get_u8(r), 0x11);
    ck_assert_uint_eq(snap_get_u16(r), 0x2233);
    ck_assert_uint_eq(snap_get_u32(r), 0x44556677);
    ck_assert_uint_eq(snap_get_u64(r), 0x8899aabbccddeeffull);
    ck_assert_uint_eq(snap_left(r), 0);
    ck_assert(snap_expect(r, "empty", 1));
    ck_assert_ptr_null(snap_reader_error(r));
    snap_reader_close(r);
}
END_TEST

START_TEST(every_flipped_bit_of_a_file_is_a_clean_error)
{
    write_sample();
    uint8_t good[512], bad[512];
    size_t n = read_file(good, sizeof good);
    ck_assert_uint_lt(n, sizeof good);
    for (size_t i = 0; i < n * 8; i++) {
        memcpy(bad, good, n);
        bad[i / 8] ^= (uint8_t)(1 << (i % 8));
        write_file(bad, n);
        err[0] = 0;
        struct snap_reader *r = snap_reader_open(path, err, sizeof err);
        ck_assert_msg(r == NULL, "bit %zu flipped and not noticed", i);
        ck_assert_ptr_nonnull(strstr(err, path));
    }
}
END_TEST

START_TEST(every_truncation_and_any_trailing_byte_is_a_clean_error)
{
    write_sample();
    uint8_t good[512];
    size_t n = read_file(good, sizeof good - 1);
    for (size_t i = 0; i < n; i++) {
        write_file(good, i);
        ck_assert_ptr_null(snap_reader_open(path, err, sizeof err));
    }
    good[n] = 0;
    write_file(good, n + 1);
    ck_assert_ptr_null(snap_reader_open(path, err, sizeof err));
}
END_TEST

START_TEST(a_short_section_gives_zeros_and_a_sticky_error)
{
    write_sample();
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert(snap_expect(r, "blob", 0x01020304));
    snap_get_u64(r);
    ck_assert_ptr_null(snap_reader_error(r));
    ck_assert_uint_eq(snap_get_u32(r), 0);
    ck_assert_ptr_nonnull(strstr(snap_reader_error(r), "blob"));
    ck_assert_uint_eq(snap_get_u8(r), 0); /* two bytes are left, but the error stays */
    ck_assert_uint_eq(snap_left(r), 0);
    snap_fail(r, "later");
    ck_assert_ptr_nonnull(strstr(snap_reader_error(r), "blob"));
    snap_reader_close(r);
}
END_TEST

START_TEST(missing_sections_and_other_versions_are_errors_that_name_them)
{
    write_sample();
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    uint32_t version;
    ck_assert(!snap_find(r, "gpu", &version));
    ck_assert_ptr_nonnull(strstr(snap_reader_error(r), "gpu"));
    snap_reader_close(r);
    r = snap_reader_open(path, err, sizeof err);
    ck_assert(!snap_expect(r, "cpu0", 4));
    ck_assert_ptr_nonnull(strstr(snap_reader_error(r), "cpu0"));
    snap_reader_close(r);
}
END_TEST

START_TEST(reading_before_any_section_is_an_error)
{
    write_sample();
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert_uint_eq(snap_get_u32(r), 0);
    ck_assert_ptr_nonnull(snap_reader_error(r));
    snap_reader_close(r);
}
END_TEST

START_TEST(a_failed_write_leaves_the_target_untouched)
{
    write_file((const uint8_t *)"old", 3);
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    snap_begin(w, "a", 1);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "left open"));
    uint8_t buf[8];
    ck_assert_uint_eq(read_file(buf, sizeof buf), 3);
    char tmp[140];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    ck_assert_int_eq(access(tmp, F_OK), -1);
    ck_assert_ptr_null(snap_writer_open("no/such/dir/file", err, sizeof err));
    ck_assert_ptr_nonnull(strstr(err, "no/such/dir/file"));
}
END_TEST

START_TEST(a_directory_or_a_missing_file_is_a_clean_error)
{
    ck_assert_ptr_null(snap_reader_open(dir, err, sizeof err));
    ck_assert_ptr_nonnull(strstr(err, "regular"));
    ck_assert_ptr_null(snap_reader_open(path, err, sizeof err));
}
END_TEST

START_TEST(a_name_used_twice_is_refused)
{
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    for (int i = 0; i < 2; i++) {
        snap_begin(w, "same", 1);
        snap_end(w);
    }
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
    ck_assert_ptr_null(snap_reader_open(path, err, sizeof err));
}
END_TEST

START_TEST(payloads_larger_than_any_buffer_survive)
{
    static uint8_t big[300001], back[300001];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 2654435761u >> 13);
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    snap_begin(w, "ram", 1);
    snap_put_bytes(w, big, sizeof big);
    snap_end(w);
    snap_begin(w, "after", 1);
    snap_put_u8(w, 9);
    snap_end(w);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert(snap_expect(r, "after", 1));
    ck_assert_uint_eq(snap_get_u8(r), 9);
    ck_assert(snap_expect(r, "ram", 1));
    snap_get_bytes(r, back, 7);
    snap_get_bytes(r, back + 7, sizeof back - 7);
    ck_assert_mem_eq(big, back, sizeof big);
    snap_reader_close(r);
}
END_TEST

START_TEST(what_is_put_into_memory_is_got_back_and_leaves_no_file)
{
    uint8_t bytes[10];
    struct snap_writer *w = snap_writer_memory();
    ck_assert_ptr_nonnull(w);
    put_sample(w);
    struct snap_reader *r = snap_writer_read_back(w, err, sizeof err);
    ck_assert_msg(r != NULL, "%s", err);
    ck_assert(snap_expect(r, "blob", 0x01020304));
    snap_get_bytes(r, bytes, sizeof bytes);
    ck_assert_mem_eq(bytes, "some bytes", sizeof bytes);
    ck_assert(snap_expect(r, "cpu0", 3));
    ck_assert_uint_eq(snap_get_u8(r), 0x11);
    ck_assert_uint_eq(snap_left(r), 14);
    snap_reader_close(r);
    w = snap_writer_memory();
    snap_begin(w, "open", 1);
    ck_assert_ptr_null(snap_writer_read_back(w, err, sizeof err));
    ck_assert_ptr_nonnull(strstr(err, "left open"));
    w = snap_writer_memory();
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), -1);
}
END_TEST

static uint64_t digest_of(const char *name, uint32_t version, const char *data, const char *second)
{
    struct snap_writer *w = snap_writer_digest();
    snap_begin(w, name, version);
    snap_put_bytes(w, data, strlen(data));
    snap_end(w);
    snap_begin(w, "b", 1);
    snap_put_bytes(w, second, strlen(second));
    snap_end(w);
    return snap_writer_digest_close(w);
}

/* Three blocks: one that shrinks, one that does not, one of a single byte. */
static void write_packed(uint8_t smooth[4096], uint8_t noise[4096])
{
    uint32_t seed = 7;
    for (unsigned i = 0; i < 4096; i++) {
        seed = seed * 1664525 + 1013904223;
        smooth[i] = (uint8_t)(i / 64);
        noise[i] = (uint8_t)(seed >> 24);
    }
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    snap_begin(w, "bulk", 1);
    snap_put_packed(w, smooth, 4096);
    snap_put_packed(w, noise, 4096);
    snap_put_packed(w, smooth, 1);
    snap_end(w);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
}

START_TEST(packed_bytes_come_back_and_take_less_room)
{
    uint8_t smooth[4096], noise[4096], got[4096];
    struct stat st;
    write_packed(smooth, noise);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_lt(st.st_size, 4096 + 1024);
    struct snap_reader *r = snap_reader_open(path, err, sizeof err);
    ck_assert(snap_expect(r, "bulk", 1));
    snap_get_packed(r, got, 4096);
    ck_assert_int_eq(memcmp(got, smooth, 4096), 0);
    snap_get_packed(r, got, 4096);
    ck_assert_int_eq(memcmp(got, noise, 4096), 0);
    snap_get_packed(r, got, 1);
    ck_assert_uint_eq(got[0], smooth[0]);
    ck_assert_uint_eq(snap_left(r), 0);
    ck_assert_ptr_null(snap_reader_error(r));
    snap_reader_close(r);
}
END_TEST

static void put_crooked(uint32_t len, const void *bytes, size_t n)
{
    struct snap_writer *w = snap_writer_open(path, err, sizeof err);
    snap_begin(w, "bulk", 1);
    snap_put_u32(w, len);
    snap_put_bytes(w, bytes, n);
    snap_end(w);
    ck_assert_int_eq(snap_writer_close(w, err, sizeof err), 0);
}

START_TEST(packed_bytes_that_are_no_stream_or_too_long_are_an_error)
{
    static const uint8_t junk[5000] = {0x78, 0x01, 0xff};
    static const uint32_t lens[] = {0, 3, 4095, 4097, 0xffffffff};
    for (size_t k = 0; k < sizeof lens / sizeof *lens; k++) {
        uint8_t got[4096];
        put_crooked(lens[k], junk, sizeof junk);
        struct snap_reader *r = snap_reader_open(path, err, sizeof err);
        ck_assert(snap_expect(r, "bulk", 1));
        snap_get_packed(r, got, 4096);
        ck_assert_ptr_nonnull(snap_reader_error(r));
        ck_assert_uint_eq(got[0], 0);
        snap_reader_close(r);
    }
}
END_TEST

START_TEST(digest_depends_on_names_versions_content_and_borders)
{
    uint64_t d = digest_of("a", 1, "xy", "z");
    ck_assert_uint_eq(d, digest_of("a", 1, "xy", "z"));
    ck_assert_uint_ne(d, digest_of("c", 1, "xy", "z"));
    ck_assert_uint_ne(d, digest_of("a", 2, "xy", "z"));
    ck_assert_uint_ne(d, digest_of("a", 1, "xx", "z"));
    ck_assert_uint_ne(d, digest_of("a", 1, "x", "yz"));
    struct snap_writer *w = snap_writer_digest(), *v = snap_writer_digest();
    put_sample(w);
    put_sample(v);
    ck_assert_uint_eq(snap_writer_digest_close(w), snap_writer_digest_close(v));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/snapshot");
    TCase *t = tcase_create("snapshot");
    tcase_set_timeout(t, 60); /* its files are synced */
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, what_was_put_is_got_back_in_any_order_of_sections);
    tcase_add_test(t, every_flipped_bit_of_a_file_is_a_clean_error);
    tcase_add_test(t, every_truncation_and_any_trailing_byte_is_a_clean_error);
    tcase_add_test(t, a_short_section_gives_zeros_and_a_sticky_error);
    tcase_add_test(t, missing_sections_and_other_versions_are_errors_that_name_them);
    tcase_add_test(t, reading_before_any_section_is_an_error);
    tcase_add_test(t, a_failed_write_leaves_the_target_untouched);
    tcase_add_test(t, a_directory_or_a_missing_file_is_a_clean_error);
    tcase_add_test(t, a_name_used_twice_is_refused);
    tcase_add_test(t, payloads_larger_than_any_buffer_survive);
    tcase_add_test(t, what_is_put_into_memory_is_got_back_and_leaves_no_file);
    tcase_add_test(t, packed_bytes_come_back_and_take_less_room);
    tcase_add_test(t, packed_bytes_that_are_no_stream_or_too_long_are_an_error);
    tcase_add_test(t, digest_depends_on_names_versions_content_and_borders);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
