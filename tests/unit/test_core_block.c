/* The block layer: raw and compressed images, overlays, forks, snapshots, a host whose disk is full. */
#include "check_main.h"

#include "core/block/block.h"
#include "core/block/block_internal.h"
#include "core/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#define SIZE (1u << 20)

static bool host_is_full; /* checked by the wrapped pwrite */

ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at)
{
    if (!host_is_full)
        return __real_pwrite(fd, buf, n, at);
    errno = ENOSPC;
    return -1;
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t n, off_t at)
{
    return __wrap_pwrite(fd, buf, n, at);
}

/* ---- images ---- */

static void make_path(char path[64])
{
    snprintf(path, 64, "/tmp/umbra-block-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void make_image(char path[64], const void *bytes, size_t len)
{
    make_path(path);
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

static uint32_t random_next(uint32_t *s)
{
    return *s = *s * 1664525u + 1013904223u, *s >> 8;
}

static uint8_t *random_bytes(size_t len, uint32_t seed)
{
    uint8_t *p = malloc(len);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)random_next(&seed);
    return p;
}

static struct block_device *open_image(const char *path, bool read_only, bool snapshot)
{
    char err[512] = "";
    struct block_device *b = block_open(
        &(struct block_open_config){.file = path, .read_only = read_only, .snapshot = snapshot}, err, sizeof err);
    ck_assert_msg(b != NULL, "%s", err);
    return b;
}

static void refuses(const char *path, const char *reason)
{
    char err[1024] = "";
    ck_assert(!block_open(&(struct block_open_config){.file = path}, err, sizeof err));
    ck_assert_msg(strstr(err, reason), "'%s' does not say '%s'", err, reason);
}

static void reads_as(struct block_device *b, const uint8_t *want, size_t len)
{
    uint8_t *got = malloc(len);
    ck_assert_int_eq(block_read(b, 0, got, len), BLOCK_OK);
    ck_assert(!memcmp(got, want, len));
    free(got);
}

START_TEST(raw_image_keeps_what_is_written)
{
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 1), *more = random_bytes(4096, 2);
    make_image(path, bytes, SIZE);
    struct block_device *b = open_image(path, false, false);
    ck_assert_uint_eq(b->size, SIZE);
    reads_as(b, bytes, SIZE);
    ck_assert_int_eq(block_write(b, 8192, more, 4096), BLOCK_OK);
    ck_assert_int_eq(block_flush(b), BLOCK_OK);
    memcpy(bytes + 8192, more, 4096);
    ck_assert_int_eq(block_discard(b, 65536, 65536), BLOCK_OK);
    memset(bytes + 65536, 0, 65536);
    reads_as(b, bytes, SIZE);
    block_close(b);
    b = open_image(path, true, false);
    reads_as(b, bytes, SIZE);
    ck_assert_int_eq(block_write(b, 0, more, 512), BLOCK_READ_ONLY);
    block_close(b);
    unlink(path);
    free(bytes);
    free(more);
}
END_TEST

START_TEST(request_beyond_the_end_is_refused)
{
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 3), sector[1024];
    make_image(path, bytes, SIZE);
    struct block_device *b = open_image(path, false, false);
    ck_assert_int_eq(block_read(b, SIZE - 512, sector, 1024), BLOCK_RANGE);
    ck_assert_int_eq(block_read(b, SIZE, sector, 512), BLOCK_RANGE);
    ck_assert_int_eq(block_read(b, UINT64_MAX - 511, sector, 512), BLOCK_RANGE);
    ck_assert_int_eq(block_read(b, 100, sector, 512), BLOCK_RANGE);
    ck_assert_int_eq(block_write(b, 0, sector, 100), BLOCK_RANGE);
    ck_assert_int_eq(block_discard(b, 512, SIZE), BLOCK_RANGE);
    ck_assert_uint_eq(b->counters.errors, 6);
    block_close(b);
    unlink(path);
    free(bytes);
}
END_TEST

START_TEST(size_that_is_not_whole_sectors_is_rounded_up)
{
    char path[64];
    uint8_t bytes[1000], sector[512], want[512] = {0};
    struct stat st;
    memset(bytes, 0x5a, sizeof bytes);
    make_image(path, bytes, sizeof bytes);
    struct block_device *b = open_image(path, false, false);
    ck_assert_uint_eq(b->size, 1024);
    ck_assert_int_eq(block_read(b, 512, sector, 512), BLOCK_OK);
    memset(want, 0x5a, 488);
    ck_assert(!memcmp(sector, want, 512));
    ck_assert_int_eq(block_write(b, 512, sector, 512), BLOCK_OK);
    block_close(b);
    ck_assert(!stat(path, &st));
    ck_assert_int_eq(st.st_size, 1024);
    unlink(path);
}
END_TEST

START_TEST(image_has_one_writer_or_many_readers)
{
    char path[64], err[512];
    uint8_t *bytes = random_bytes(SIZE, 4);
    make_image(path, bytes, SIZE);
    struct block_device *reader = open_image(path, true, false), *other = open_image(path, false, true);
    refuses(path, "in use by another program");
    block_close(reader);
    block_close(other);
    struct block_device *writer = open_image(path, false, false);
    ck_assert(!block_open(&(struct block_open_config){.file = path, .read_only = true}, err, sizeof err));
    block_close(writer);
    unlink(path);
    free(bytes);
}
END_TEST

START_TEST(what_is_no_raw_image_is_refused)
{
    static const struct {
        const char *bytes, *reason;
        size_t len, offset;
    } cases[] = {{"QFI\xfb", "qcow2", 4, 0},
                 {"KDMV", "VMDK", 4, 0},
                 {"vhdxfile", "VHDX", 8, 0},
                 {"\x7f\x10\xda\xbe", "VDI", 4, 0x40},
                 {"\x28\xb5\x2f\xfd", "zstd-compressed", 4, 0},
                 {"\x1f\x8b\x08", "compressed image", 3, 0}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char path[64];
        uint8_t head[1024] = {0};
        memcpy(head + cases[k].offset, cases[k].bytes, cases[k].len);
        make_image(path, head, sizeof head);
        refuses(path, cases[k].reason);
        unlink(path);
    }
    refuses("/nowhere/at/all", "No such file");
    refuses("/tmp", "Is a directory");
    refuses("/dev/null", "neither a file nor a block device");
    refuses("nbd:unix:/nowhere/at/all", "export");
    refuses("nbd:what", "export");
}
END_TEST

/* ---- servers ---- */

/* A server in a process of its own that says these bytes to the first who connects and is silent from then on. */
static pid_t start_server(const char *path, const uint8_t *bytes, size_t len)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
            _exit(1);
        for (;;)
            pause();
    }
    ck_assert_int_gt(child, 0);
    close(listener);
    return child;
}

static void end_server(pid_t child, const char *path)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    unlink(path);
}

START_TEST(server_that_does_not_answer_is_given_up)
{
    /* NBDMAGIC, the old handshake, 1 MiB, flags: can flush */
    static const uint8_t hello[152] = {'N',  'B',  'D', 'M', 'A', 'G', 'I', 'C',  0, 0, 0x42, 0x02, 0x81, 0x86,
                                       0x12, 0x53, 0,   0,   0,   0,   0,   0x10, 0, 0, 0,    0,    0,    0x05};
    char path[64], address[80], err[256] = "";
    uint8_t sector[512];
    make_path(path);
    unlink(path);
    snprintf(address, sizeof address, "nbd:unix:%s", path);
    pid_t silent = start_server(path, hello, 0);
    ck_assert_ptr_null(nbd_open_patiently(address, false, 50, err, sizeof err));
    ck_assert_msg(strstr(err, "does not answer") != NULL, "%s", err);
    end_server(silent, path);

    pid_t greets = start_server(path, hello, sizeof hello);
    struct block_device *b = nbd_open_patiently(address, false, 200, err, sizeof err);
    ck_assert_msg(b != NULL, "%s", err);
    ck_assert_uint_eq(b->size, 1 << 20);
    ck_assert_int_eq(b->ops->read(b, 0, sector, sizeof sector), BLOCK_ERROR);
    ck_assert_int_eq(b->ops->write(b, 0, sector, sizeof sector), BLOCK_ERROR);
    ck_assert_int_eq(b->ops->flush(b), BLOCK_ERROR);
    b->ops->close(b);
    end_server(greets, path);
}
END_TEST

/* ---- compressed images ---- */

static void gzip_write(const char *path, const uint8_t *bytes, size_t len)
{
    gzFile f = gzopen(path, "wb");
    ck_assert_int_eq(gzwrite(f, bytes, (unsigned)len), (int)len);
    gzclose(f);
}

START_TEST(compressed_image_reads_as_its_content)
{
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 5), sector[512] = {1};
    memset(bytes + 300000, 0, 400000);
    make_path(path);
    gzip_write(path, bytes, SIZE - 100); /* its last sector is cut short */
    memset(bytes + SIZE - 100, 0, 100);
    struct block_device *b = open_image(path, false, false);
    ck_assert_uint_eq(b->size, SIZE);
    ck_assert(b->read_only);
    reads_as(b, bytes, SIZE);
    ck_assert_int_eq(block_write(b, 0, sector, 512), BLOCK_READ_ONLY);
    block_close(b);
    b = open_image(path, false, true);
    ck_assert_int_eq(block_write(b, 0, sector, 512), BLOCK_OK);
    memcpy(bytes, sector, 512);
    reads_as(b, bytes, SIZE);
    block_close(b);
    unlink(path);
    free(bytes);
}
END_TEST

START_TEST(damaged_compressed_image_is_refused)
{
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 6);
    struct stat st;
    make_path(path);
    gzip_write(path, bytes, SIZE);
    ck_assert(!stat(path, &st));
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(__real_pwrite(fd, "\xff\xff\xff\xff", 4, 5000), 4);
    close(fd);
    refuses(path, "damaged");
    gzip_write(path, bytes, SIZE);
    ck_assert(!truncate(path, st.st_size - 5000));
    refuses(path, "cut short");
    unlink(path);
    free(bytes);
}
END_TEST

/* ---- overlays ---- */

/* Random requests against an array. */
static void exercise(struct block_device *b, uint8_t *model, uint32_t seed, unsigned rounds)
{
    uint8_t *buf = malloc(SIZE);
    for (unsigned k = 0; k < rounds; k++) {
        uint64_t from = random_next(&seed) % (SIZE / 512), n = 1 + random_next(&seed) % 300;
        n = from + n > SIZE / 512 ? SIZE / 512 - from : n;
        switch (random_next(&seed) % 4) {
        case 0:
            ck_assert_int_eq(block_discard(b, from * 512, n * 512), BLOCK_OK);
            memset(model + from * 512, 0, n * 512);
            break;
        case 1:
            memset(buf, (int)k, n * 512);
            ck_assert_int_eq(block_write(b, from * 512, buf, n * 512), BLOCK_OK);
            memcpy(model + from * 512, buf, n * 512);
            break;
        default:
            ck_assert_int_eq(block_read(b, from * 512, buf, n * 512), BLOCK_OK);
            ck_assert(!memcmp(buf, model + from * 512, n * 512));
        }
    }
    free(buf);
}

START_TEST(overlay_never_touches_the_image)
{
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 7), *model = random_bytes(SIZE, 7);
    make_image(path, bytes, SIZE);
    struct block_device *b = open_image(path, false, true);
    exercise(b, model, 8, 500);
    reads_as(b, model, SIZE);
    block_close(b);
    b = open_image(path, true, false);
    reads_as(b, bytes, SIZE);
    block_close(b);
    unlink(path);
    free(bytes);
    free(model);
}
END_TEST

START_TEST(forked_overlays_do_not_see_each_other)
{
    char path[64], err[256];
    uint8_t *bytes = random_bytes(SIZE, 9), *model[4];
    struct block_device *b[4];
    make_image(path, bytes, SIZE);
    b[0] = open_image(path, false, true);
    model[0] = random_bytes(SIZE, 9);
    exercise(b[0], model[0], 10, 50);
    for (unsigned k = 1; k < 4; k++) {
        unsigned from = k == 3 ? 1 : 0; /* the third is a child's child */
        b[k] = block_fork(b[from], err, sizeof err);
        ck_assert(b[k] != NULL);
        model[k] = malloc(SIZE);
        memcpy(model[k], model[from], SIZE);
        for (unsigned i = 0; i <= k; i++)
            exercise(b[i], model[i], 11 * k + i, 40);
    }
    block_close(b[0]);
    for (unsigned k = 1; k < 4; k++) {
        reads_as(b[k], model[k], SIZE);
        block_close(b[k]);
        free(model[k]);
    }
    struct block_device *direct = open_image(path, false, false);
    ck_assert(!block_fork(direct, err, sizeof err));
    block_close(direct);
    unlink(path);
    free(bytes);
    free(model[0]);
}
END_TEST

static struct snap_reader *saved(struct block_device *b)
{
    char err[256] = "";
    struct snap_writer *w = snap_writer_memory();
    snap_begin(w, "disk", 1);
    block_save(b, w);
    snap_end(w);
    struct snap_reader *r = snap_writer_read_back(w, err, sizeof err);
    ck_assert_msg(r != NULL, "%s", err);
    ck_assert(snap_expect(r, "disk", 1));
    return r;
}

START_TEST(snapshot_holds_what_was_written_to_an_overlay)
{
    char path[64], err[256];
    uint8_t *bytes = random_bytes(SIZE, 12), *model = random_bytes(SIZE, 12), *junk = random_bytes(SIZE, 12);
    make_image(path, bytes, SIZE);
    struct block_device *b = open_image(path, false, true), *to = open_image(path, false, true);
    exercise(b, model, 13, 60);
    struct block_device *child = block_fork(b, err, sizeof err); /* so that it is a stack */
    exercise(b, model, 14, 60);
    exercise(to, junk, 15, 60);
    struct snap_reader *r = saved(b);
    block_load(to, r);
    ck_assert_msg(!snap_reader_error(r), "%s", snap_reader_error(r));
    snap_reader_close(r);
    reads_as(to, model, SIZE);
    struct block_device *plain = open_image(path, true, false);
    r = saved(b);
    block_load(plain, r);
    ck_assert(strstr(snap_reader_error(r), "snapshot=on"));
    snap_reader_close(r);
    block_close(plain);
    block_close(child);
    block_close(b);
    block_close(to);
    unlink(path);
    free(bytes);
    free(model);
    free(junk);
}
END_TEST

/* ---- a full host ---- */

static void count_full(void *ctx, struct block_device *b)
{
    ++*(unsigned *)ctx;
}

START_TEST(full_host_loses_nothing)
{
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 16), sector[512] = {7};
    unsigned told = 0;
    make_image(path, bytes, SIZE);
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        struct block_device *b = open_image(path, false, snapshot);
        block_set_full(b, count_full, &told);
        host_is_full = true;
        ck_assert_int_eq(block_write(b, 512, sector, 512), BLOCK_FULL);
        reads_as(b, bytes, SIZE);
        host_is_full = false;
        ck_assert_int_eq(block_write(b, 512, sector, 512), BLOCK_OK);
        memcpy(bytes + 512, sector, 512);
        reads_as(b, bytes, SIZE);
        ck_assert_uint_eq(told, (unsigned)snapshot + 1);
        block_close(b);
        sector[0]++;
    }
    unlink(path);
    free(bytes);
}
END_TEST

START_TEST(an_error_of_the_host_is_what_the_user_says)
{
    static const struct {
        enum block_on_error on_error;
        enum block_result result;
    } rows[] = {{BLOCK_ON_ERROR_AUTO, BLOCK_FULL},
                {BLOCK_ON_ERROR_REPORT, BLOCK_ERROR},
                {BLOCK_ON_ERROR_IGNORE, BLOCK_OK},
                {BLOCK_ON_ERROR_STOP, BLOCK_FULL}};
    char path[64];
    uint8_t *bytes = random_bytes(SIZE, 17), sector[512] = {7};
    make_image(path, bytes, SIZE);
    struct block_device *b = open_image(path, false, false);
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        unsigned told = 0;
        b->on_write = rows[k].on_error;
        block_set_full(b, count_full, &told);
        host_is_full = true;
        ck_assert_int_eq(block_write(b, 512, sector, 512), rows[k].result);
        ck_assert_uint_eq(told, rows[k].result == BLOCK_FULL);
        ck_assert_int_eq(block_write(b, SIZE, sector, 512), BLOCK_RANGE); /* the guest's own */
        host_is_full = false;
        reads_as(b, bytes, SIZE);
    }
    block_close(b);
    unlink(path);
    free(bytes);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/block");
    TCase *t = tcase_create("block");
    tcase_add_test(t, raw_image_keeps_what_is_written);
    tcase_add_test(t, request_beyond_the_end_is_refused);
    tcase_add_test(t, size_that_is_not_whole_sectors_is_rounded_up);
    tcase_add_test(t, image_has_one_writer_or_many_readers);
    tcase_add_test(t, what_is_no_raw_image_is_refused);
    tcase_add_test(t, compressed_image_reads_as_its_content);
    tcase_add_test(t, damaged_compressed_image_is_refused);
    tcase_add_test(t, overlay_never_touches_the_image);
    tcase_add_test(t, forked_overlays_do_not_see_each_other);
    tcase_add_test(t, snapshot_holds_what_was_written_to_an_overlay);
    tcase_add_test(t, full_host_loses_nothing);
    tcase_add_test(t, server_that_does_not_answer_is_given_up);
    tcase_add_test(t, an_error_of_the_host_is_what_the_user_says);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
