/* File VMAs and mirrors. */
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "tests/unit/host_rig.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int fd;
static char path[32];

/* A file of three pages and a half. */
static void setup(void)
{
    uint8_t bytes[PAGE_SIZE];
    rig_setup();
    strcpy(path, "file-test-XXXXXX");
    fd = mkstemp(path);
    for (unsigned i = 0; i < 4; i++) {
        fill_bytes(bytes, i);
        ck_assert_int_eq(write(fd, bytes, i < 3 ? PAGE_SIZE : PAGE_SIZE / 2), i < 3 ? PAGE_SIZE : PAGE_SIZE / 2);
    }
    unlink(path);
}

static void teardown(void)
{
    rig_teardown();
    close(fd);
}

/* ---- files ---- */

START_TEST(a_file_page_reads_as_the_file_and_peek_sees_it_without_reading_it_in)
{
    hva_t hva = host_mm_mmap_file(rig.mm, fd, PAGE_SIZE, 4 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    peek_is(rig.mm, hva, 1);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    page_is(rig.mm, hva, 1);
    ck_assert(!rig.got.writable);
    page_is(rig.mm, hva + PAGE_SIZE, 2);
    const uint8_t *half = gup_of(rig.mm, hva + 2 * PAGE_SIZE, false);
    uint8_t want[PAGE_SIZE];
    fill_bytes(want, 3);
    ck_assert_mem_eq(half, want, PAGE_SIZE / 2);
    for (size_t i = PAGE_SIZE / 2; i < PAGE_SIZE; i++)
        ck_assert_uint_eq(half[i], 0);
    ck_assert_uint_eq(*(const uint8_t *)gup_of(rig.mm, hva + 3 * PAGE_SIZE, false), 0); /* behind the end */
    ck_assert_uint_eq(host_mm_counters(rig.mm)->file_reads, 4);
}
END_TEST

START_TEST(writes_to_a_file_page_stay_in_the_mm)
{
    uint8_t is[PAGE_SIZE], want[PAGE_SIZE];
    hva_t hva = host_mm_mmap_file(rig.mm, fd, 0, 2 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    fill_bytes(want, 0);
    ck_assert_mem_eq(gup_of(rig.mm, hva, true), want, PAGE_SIZE);
    ck_assert(rig.got.writable);
    write_page(rig.mm, hva, 50);
    ck_assert_int_eq(pread(fd, is, PAGE_SIZE, 0), PAGE_SIZE);
    ck_assert_mem_eq(is, want, PAGE_SIZE);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, hva, PAGE_SIZE), 0);
    page_is(rig.mm, hva, 0); /* the file's again */
}
END_TEST

START_TEST(an_unwritten_file_page_is_dropped_without_a_store_and_a_written_one_is_not)
{
    hva_t hva = host_mm_mmap_file(rig.mm, fd, 0, 2 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    page_is(rig.mm, hva, 0);
    rig.seen[0] = 0;
    rig.base = hva;
    rig.watched = rig.got.pfn;
    ck_assert_int_eq(host_mm_swap_out(rig.mm, hva), HOST_OK);
    ck_assert_str_eq(rig.seen, "CLEAR start 0-1;inv 0-1;end 0-1;");
    ck_assert_int_eq(host_mm_peek(rig.mm, hva).state, HPTE_NONE);
    page_is(rig.mm, hva, 0);
    write_page(rig.mm, hva, 9);
    ck_assert_int_eq(host_mm_swap_out(rig.mm, hva), HOST_NO_SWAP);
    peek_is(rig.mm, hva, 9);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->file_drops, 1);
}
END_TEST

START_TEST(a_file_mapping_that_is_cut_in_two_keeps_its_offsets)
{
    hva_t hva = host_mm_mmap_file(rig.mm, fd, 0, 3 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(host_mm_munmap(rig.mm, hva + PAGE_SIZE, PAGE_SIZE), 0);
    page_is(rig.mm, hva, 0);
    page_is(rig.mm, hva + 2 * PAGE_SIZE, 2);
    ck_assert_int_eq(host_mm_mprotect(rig.mm, hva, PAGE_SIZE, HOST_READ), 0);
    struct host_mm *child = host_mm_fork(rig.mm);
    page_is(child, hva + 2 * PAGE_SIZE, 2);
    host_mm_dontneed(child, hva + 2 * PAGE_SIZE, PAGE_SIZE);
    page_is(child, hva + 2 * PAGE_SIZE, 2);
    host_mm_destroy(child);
}
END_TEST

START_TEST(bad_file_mappings_are_refused)
{
    ck_assert_uint_eq(host_mm_mmap_file(rig.mm, -1, 0, PAGE_SIZE, HOST_READ), 0);
    ck_assert_uint_eq(host_mm_mmap_file(rig.mm, fd, 5, PAGE_SIZE, HOST_READ), 0);
    ck_assert_uint_eq(host_mm_mmap_file(rig.mm, fd, ~PAGE_MASK, PAGE_SIZE, HOST_READ), 0);
    ck_assert_uint_eq(host_mm_mmap_file(rig.mm, fd, 0, 0, HOST_READ), 0);
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    hva_t hva = host_mm_mmap_file(rig.mm, pipes[0], 0, PAGE_SIZE, HOST_READ); /* cannot be read at an offset */
    ck_assert_int_eq(host_mm_gup(rig.mm, hva, false, &rig.got), HOST_IO_ERROR);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

/* ---- mirrors ---- */

/* A second mm that mirrors all of the first; the watcher moves to it. */
static struct host_mm *inspector;
static hva_t window;

static hva_t mirrored(unsigned i)
{
    return window + i * PAGE_SIZE;
}

static void mirror_setup(void)
{
    setup();
    notifier_unregister(&rig.watcher);
    inspector = host_mm_create(rig.pool);
    ck_assert_uint_ne(host_mm_mmap_anon(inspector, 4 << 20, HOST_READ), 0); /* so that the addresses differ */
    window = host_mm_mmap_mirror(inspector, rig.mm, rig.base, RIG_PAGES * PAGE_SIZE);
    ck_assert_uint_ne(window, 0);
    ck_assert_uint_ne(window, rig.base);
    rig.base = window;
    ck_assert_int_eq(notifier_register(&rig.watcher, inspector, &rig_ops), 0);
    rig.base = window - (4 << 20);
    rig.seen[0] = 0;
}

static hva_t source(unsigned i)
{
    return rig.base + i * PAGE_SIZE;
}

static void mirror_teardown(void)
{
    host_mm_destroy(inspector);
    teardown();
}

/* In the watcher's transcript pages are counted from rig.base, where the window begins at 1024. */

static void same_frame(unsigned i)
{
    struct hpte_info m = host_mm_peek(inspector, mirrored(i)), s = host_mm_peek(rig.mm, source(i));
    if (m.state != HPTE_NONE)
        ck_assert_uint_eq(m.pfn, s.pfn);
    ck_assert(!m.writable);
}

START_TEST(a_mirror_shows_the_sources_frame_read_only_and_holds_no_reference)
{
    write_page(rig.mm, source(3), 3);
    pfn_t pfn = rig.got.pfn;
    page_is(inspector, mirrored(3), 3);
    ck_assert_uint_eq(rig.got.pfn, pfn);
    ck_assert(!rig.got.writable);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, pfn), 1);
    ck_assert_uint_eq(host_mm_resident(inspector), 0);
    ck_assert_int_eq(host_mm_gup(inspector, mirrored(3), true, &rig.got), HOST_DENIED);
    ck_assert_int_eq(host_mm_mprotect(inspector, mirrored(3), PAGE_SIZE, HOST_READ | HOST_WRITE), -1);
    ((uint8_t *)gup_of(rig.mm, source(3), true))[0] ^= 1; /* one memory */
    ck_assert_mem_eq(gup_of(inspector, mirrored(3), false), gup_of(rig.mm, source(3), false), PAGE_SIZE);
    ck_assert_uint_eq(host_mm_counters(inspector)->mirror_fills, 1);
}
END_TEST

START_TEST(an_unmap_of_the_source_clears_the_mirror_and_goes_on_to_its_subscribers)
{
    write_page(rig.mm, source(0), 1);
    page_is(inspector, mirrored(0), 1);
    rig.watched = rig.got.pfn;
    ck_assert_int_eq(host_mm_munmap(rig.mm, source(0), 2 * PAGE_SIZE), 0);
    ck_assert_str_eq(rig.seen, "UNMAP start 1024-1026;inv 1024-1026;end 1024-1026;");
    ck_assert_int_eq(host_mm_peek(inspector, mirrored(0)).state, HPTE_NONE);
    ck_assert_int_eq(host_mm_gup(inspector, mirrored(0), false, &rig.got), HOST_DENIED);
}
END_TEST

START_TEST(every_operation_of_the_source_reaches_the_mirror)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 1 << 20};
    struct swap_store *store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(rig.mm, store);
    for (unsigned i = 0; i < 8; i++)
        write_page(rig.mm, source(i), i);
    for (unsigned i = 0; i < 8; i++)
        page_is(inspector, mirrored(i), i);
    host_mm_swap_out(rig.mm, source(0));
    host_mm_migrate(rig.mm, source(1));
    ck_assert_str_eq(rig.seen, "CLEAR start 1024-1025;inv 1024-1025;end 1024-1025;"
                               "MIGRATE start 1025-1026;inv 1025-1026;end 1025-1026;");
    host_mm_mprotect(rig.mm, source(2), PAGE_SIZE, HOST_READ);
    struct host_mm *child = host_mm_fork(rig.mm);
    write_page(rig.mm, source(3), 33);
    host_mm_dontneed(rig.mm, source(4), PAGE_SIZE);
    for (unsigned i = 0; i < 8; i++)
        same_frame(i);
    peek_is(inspector, mirrored(0), 0); /* swapped: seen without coming in */
    ck_assert_int_eq(host_mm_peek(rig.mm, source(0)).state, HPTE_SWAPPED);
    page_is(inspector, mirrored(0), 0);
    page_is(inspector, mirrored(1), 1);
    page_is(inspector, mirrored(2), 2);
    page_is(inspector, mirrored(3), 33);
    ck_assert_uint_eq(*(const uint8_t *)gup_of(inspector, mirrored(4), false), 0);
    for (unsigned i = 0; i < 8; i++)
        same_frame(i);
    host_mm_destroy(child);
    host_mm_destroy(rig.mm); /* gives its slots back before the store goes */
    rig.mm = host_mm_create(rig.pool);
    swap_store_put(store);
}
END_TEST

START_TEST(a_merge_repoints_the_mirror_by_change_pte)
{
    struct ksm *ksm = ksm_create(rig.pool);
    write_page(rig.mm, source(1), 7);
    write_page(rig.mm, source(2), 7);
    page_is(inspector, mirrored(1), 7);
    page_is(inspector, mirrored(2), 7);
    notifier_unregister(&rig.watcher); /* the mirror is read-only already: the check of the rig expects a change */
    ck_assert_int_eq(ksm_merge(ksm, rig.mm, source(1), rig.mm, source(2)), HOST_OK);
    same_frame(1);
    same_frame(2);
    ck_assert_int_eq(host_mm_peek(inspector, mirrored(2)).state, HPTE_PRESENT); /* not zapped */
    ck_assert_uint_eq(host_mm_counters(inspector)->change_ptes, 3);
    page_is(inspector, mirrored(2), 7);
    ksm_destroy(ksm);
}
END_TEST

START_TEST(aging_of_the_source_asks_the_mirror_and_its_subscribers)
{
    write_page(rig.mm, source(0), 1);
    host_mm_age(rig.mm, 10);
    ck_assert(!host_mm_is_young(rig.mm, source(0)));
    page_is(inspector, mirrored(0), 1);
    host_mm_age(rig.mm, 10); /* the gup above touched the source itself */
    gup_of(inspector, mirrored(0), false);
    ck_assert(host_mm_is_young(rig.mm, source(0)));
    ck_assert_uint_eq(host_mm_age(rig.mm, 10), 1);
    ck_assert_uint_eq(host_mm_age(rig.mm, 10), 0);
    rig.base = window;
    rig.young_pages = 1;
    ck_assert_uint_eq(host_mm_age(rig.mm, 10), 1);
    ck_assert_uint_eq(rig.young_pages, 0);
}
END_TEST

START_TEST(when_the_source_goes_the_mirror_is_empty_and_stays_so)
{
    write_page(rig.mm, source(0), 1);
    page_is(inspector, mirrored(0), 1);
    host_mm_destroy(rig.mm);
    ck_assert_str_eq(rig.seen, "UNMAP start 1024-1088;inv 1024-1088;end 1024-1088;");
    ck_assert_int_eq(host_mm_gup(inspector, mirrored(0), false, &rig.got), HOST_DENIED);
    ck_assert_ptr_null(host_mm_peek_content(inspector, mirrored(0)));
    rig.mm = host_mm_create(rig.pool);
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
}
END_TEST

START_TEST(a_mirror_of_a_mirror_follows_too)
{
    struct host_mm *second = host_mm_create(rig.pool);
    hva_t w2 = host_mm_mmap_mirror(second, inspector, window + 2 * PAGE_SIZE, 4 * PAGE_SIZE);
    write_page(rig.mm, source(3), 3);
    page_is(second, w2 + PAGE_SIZE, 3);
    peek_is(second, w2 + PAGE_SIZE, 3);
    ck_assert_int_eq(host_mm_migrate(rig.mm, source(3)), HOST_OK);
    ck_assert_int_eq(host_mm_peek(second, w2 + PAGE_SIZE).state, HPTE_NONE);
    page_is(second, w2 + PAGE_SIZE, 3);
    ck_assert_uint_eq(rig.got.pfn, host_mm_peek(rig.mm, source(3)).pfn);
    host_mm_destroy(second);
}
END_TEST

START_TEST(an_unmapped_part_of_a_mirror_does_not_pass_on_what_was_there)
{
    for (unsigned i = 0; i < 8; i++) {
        write_page(rig.mm, source(i), i);
        page_is(inspector, mirrored(i), i);
    }
    ck_assert_int_eq(host_mm_munmap(inspector, mirrored(2), 2 * PAGE_SIZE), 0);
    rig.seen[0] = 0;
    ck_assert_int_eq(host_mm_dontneed(rig.mm, source(0), 8 * PAGE_SIZE), 0);
    ck_assert_str_eq(rig.seen, "CLEAR start 1024-1026;inv 1024-1026;CLEAR start 1028-1032;inv 1028-1032;"
                               "end 1024-1026;end 1028-1032;");
    ck_assert_int_eq(host_mm_munmap(inspector, mirrored(0), 2 * PAGE_SIZE), 0);
    ck_assert_int_eq(host_mm_munmap(inspector, mirrored(4), 60 * PAGE_SIZE), 0);
    rig.seen[0] = 0;
    ck_assert_int_eq(host_mm_munmap(rig.mm, source(0), 8 * PAGE_SIZE), 0);
    ck_assert_str_eq(rig.seen, ""); /* no subscription is left */
}
END_TEST

START_TEST(a_fork_of_a_mirror_mirrors_the_same_source)
{
    write_page(rig.mm, source(3), 3);
    page_is(inspector, mirrored(3), 3);
    struct host_mm *child = host_mm_fork(inspector);
    page_is(child, mirrored(3), 3);
    ck_assert_uint_eq(frame_pool_refs(rig.pool, rig.got.pfn), 1);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, source(3), PAGE_SIZE), 0);
    ck_assert_int_eq(host_mm_peek(child, mirrored(3)).state, HPTE_NONE);
    host_mm_destroy(child);
}
END_TEST

START_TEST(bad_mirrors_are_refused_and_reads_outside_the_source_denied)
{
    ck_assert_uint_eq(host_mm_mmap_mirror(inspector, inspector, 0, PAGE_SIZE), 0);
    ck_assert_uint_eq(host_mm_mmap_mirror(inspector, rig.mm, 7, PAGE_SIZE), 0);
    ck_assert_uint_eq(host_mm_mmap_mirror(inspector, rig.mm, ~PAGE_MASK, PAGE_SIZE), 0);
    char err[100];
    struct frame_pool *other = frame_pool_create(4, err, sizeof err);
    struct host_mm *mm = host_mm_create(other);
    ck_assert_uint_eq(host_mm_mmap_mirror(mm, rig.mm, rig.base, PAGE_SIZE), 0);
    host_mm_destroy(mm);
    frame_pool_destroy(other);
    hva_t hva = host_mm_mmap_mirror(inspector, rig.mm, source(RIG_PAGES), PAGE_SIZE);
    ck_assert_uint_ne(hva, 0);
    ck_assert_int_eq(host_mm_gup(inspector, hva, false, &rig.got), HOST_DENIED);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/mirror");
    TCase *t = tcase_create("file");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_file_page_reads_as_the_file_and_peek_sees_it_without_reading_it_in);
    tcase_add_test(t, writes_to_a_file_page_stay_in_the_mm);
    tcase_add_test(t, an_unwritten_file_page_is_dropped_without_a_store_and_a_written_one_is_not);
    tcase_add_test(t, a_file_mapping_that_is_cut_in_two_keeps_its_offsets);
    tcase_add_test(t, bad_file_mappings_are_refused);
    suite_add_tcase(s, t);
    t = tcase_create("mirror");
    tcase_add_checked_fixture(t, mirror_setup, mirror_teardown);
    tcase_add_test(t, a_mirror_shows_the_sources_frame_read_only_and_holds_no_reference);
    tcase_add_test(t, an_unmap_of_the_source_clears_the_mirror_and_goes_on_to_its_subscribers);
    tcase_add_test(t, every_operation_of_the_source_reaches_the_mirror);
    tcase_add_test(t, a_merge_repoints_the_mirror_by_change_pte);
    tcase_add_test(t, aging_of_the_source_asks_the_mirror_and_its_subscribers);
    tcase_add_test(t, when_the_source_goes_the_mirror_is_empty_and_stays_so);
    tcase_add_test(t, a_mirror_of_a_mirror_follows_too);
    tcase_add_test(t, an_unmapped_part_of_a_mirror_does_not_pass_on_what_was_there);
    tcase_add_test(t, a_fork_of_a_mirror_mirrors_the_same_source);
    tcase_add_test(t, bad_mirrors_are_refused_and_reads_outside_the_source_denied);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
