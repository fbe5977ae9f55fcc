/*
 * Forked machines: they run as their parent would have, share its memory until one side writes, and know their limits.
 */
#include "check_main.h"

#include "frontends/machine/machine.h"

#include <string.h>
#include <unistd.h>

#define END 200001

static char path[64];

/* A Multiboot image: header with address fields, then the code, at 1 MiB. */
static void image_write(const void *code, size_t len)
{
    const uint32_t flags = 1u << 16, base = 0x100000;
    uint32_t header[8] = {0x1badb002, flags,    0 - 0x1badb002u - flags, base, base, base + 32 + (uint32_t)len,
                          0,          base + 32};
    strcpy(path, "/tmp/umbra-fork-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, header, sizeof header), sizeof header);
    ck_assert_int_eq(write(fd, code, len), (ssize_t)len);
    close(fd);
}

/* Counts a word up in each page from 0x110000 to 0x1f0000, again and again. */
static const uint8_t code[] = {0xbf, 0x00, 0x00, 0x11, 0x00, 0xff, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x00,
                               0x00, 0x81, 0xff, 0x00, 0x00, 0x1f, 0x00, 0x72, 0xf0, 0xeb, 0xe9};
#define PAGES_WRITTEN 0xe0

static struct machine *machine_open(enum machine_mmu mmu, const char *chaos, uint64_t limit)
{
    struct error e = {""};
    struct machine_config cfg = {.ram_bytes = 2 << 20,
                                 .mmu = mmu,
                                 .kernel = path,
                                 .rtc_base = MACHINE_RTC_DEFAULT,
                                 .max_forks = 2,
                                 .mem_limit = limit,
                                 .ksm = chaos != NULL,
                                 .host_chaos = chaos};
    image_write(code, sizeof code);
    struct machine *m = machine_create(&cfg, &e);
    unlink(path);
    ck_assert_msg(m != NULL, "%s", e.text);
    return m;
}

static struct machine *fork_of(struct machine *m)
{
    struct error e = {""};
    const struct machine_fork_config cfg = {.log_out = stderr};
    struct machine *child = machine_fork(m, &cfg, &e);
    ck_assert_msg(child != NULL, "%s", e.text);
    return child;
}

static void run_to(struct machine *m, uint64_t icount)
{
    m->cfg.icount_limit = icount;
    ck_assert_int_eq(machine_run(m), MACHINE_ICOUNT_LIMIT);
    ck_assert_uint_eq(machine_icount(m), icount);
    ck_assert_uint_eq(machine_audit(m, true, stderr), 0);
}

static uint64_t digest_at_end(void)
{
    struct machine *m = machine_open(MACHINE_MMU_SHADOW, NULL, 0);
    run_to(m, END);
    uint64_t digest = machine_digest(m);
    machine_destroy(m);
    return digest;
}

static void run_family(enum machine_mmu mmu, const char *chaos, uint64_t limit)
{
    uint64_t want = digest_at_end();
    struct machine *m = machine_open(mmu, chaos, limit);
    run_to(m, 50003);
    uint64_t at_fork = machine_digest(m);
    struct machine *a = fork_of(m), *b = fork_of(m);
    ck_assert_uint_eq(machine_digest(a), at_fork);
    run_to(a, 120001);
    run_to(m, 90001);
    ck_assert_uint_eq(machine_digest(b), at_fork); /* what the others wrote is theirs */
    run_to(b, END);
    run_to(a, END);
    ck_assert_uint_eq(machine_digest(a), want);
    ck_assert_uint_eq(machine_digest(b), want);
    machine_destroy(a);
    struct machine *c = fork_of(m); /* there is room again */
    run_to(m, END);
    run_to(c, END);
    ck_assert_uint_eq(machine_digest(m), want);
    ck_assert_uint_eq(machine_digest(c), want);
    ck_assert_uint_eq(machine_digest(b), want);
    machine_destroy(b);
    machine_destroy(c);
    machine_destroy(m);
}

START_TEST(forked_machines_end_as_the_one_that_was_never_forked)
{
    for (int mmu = MACHINE_MMU_SHADOW; mmu <= MACHINE_MMU_EPT; mmu++)
        run_family((enum machine_mmu)mmu, NULL, 0);
}
END_TEST

START_TEST(so_they_do_under_host_events_merging_and_a_limit)
{
    for (int mmu = MACHINE_MMU_SHADOW; mmu <= MACHINE_MMU_EPT; mmu++)
        run_family((enum machine_mmu)mmu, "seed=3,rate=200000", 256 << 10);
}
END_TEST

START_TEST(memory_is_shared_until_one_side_writes)
{
    struct machine *m = machine_open(MACHINE_MMU_SHADOW, NULL, 0);
    run_to(m, 50001);
    struct machine_frames before = machine_frames(m);
    ck_assert_uint_ge(before.own, PAGES_WRITTEN);
    ck_assert_uint_eq(before.shared, 0);
    struct machine *a = fork_of(m);
    struct machine_frames f = machine_frames(a);
    ck_assert_uint_eq(f.own, 0);
    ck_assert_uint_eq(f.shared, before.own);
    ck_assert_uint_eq(f.used, before.used);
    run_to(a, 100001);
    f = machine_frames(a);
    ck_assert_uint_ge(f.own, PAGES_WRITTEN);
    ck_assert_uint_le(f.used, before.used + PAGES_WRITTEN + 2);
    bool found;
    ck_assert_uint_ge(stats_get(&a->stats, "host.cow_breaks", &found), PAGES_WRITTEN);
    ck_assert_uint_ge(stats_get(&a->stats, "host.ranges", &found), PAGES_WRITTEN); /* each break fires the bus */
    ck_assert_uint_eq(stats_get(&m->stats, "host.forks", &found), 1);
    machine_destroy(a);
    f = machine_frames(m);
    ck_assert_uint_eq(f.used, before.used);
    ck_assert_uint_eq(f.own, before.own);
    ck_assert_uint_gt(f.peak, before.used);
    machine_destroy(m);
}
END_TEST

START_TEST(forks_without_room_and_forks_of_forks_are_refused)
{
    struct error e = {""};
    const struct machine_fork_config cfg = {.log_out = stderr};
    struct machine *m = machine_open(MACHINE_MMU_SHADOW, NULL, 0);
    struct machine *a = fork_of(m), *b = fork_of(m);
    ck_assert_ptr_null(machine_fork(m, &cfg, &e));
    ck_assert_ptr_nonnull(strstr(e.text, "room for 2"));
    ck_assert_ptr_null(machine_fork(a, &cfg, &e));
    ck_assert_ptr_nonnull(strstr(e.text, "cannot be forked"));
    machine_destroy(a);
    machine_destroy(b);
    machine_destroy(m);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("machine/fork");
    TCase *t = tcase_create("fork");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, forked_machines_end_as_the_one_that_was_never_forked);
    tcase_add_test(t, so_they_do_under_host_events_merging_and_a_limit);
    tcase_add_test(t, memory_is_shared_until_one_side_writes);
    tcase_add_test(t, forks_without_room_and_forks_of_forks_are_refused);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
