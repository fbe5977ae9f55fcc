/* host_mm: faults, the zero page, copy-on-write, and what a subscriber sees of each operation, in order. */
#include "core/host/host_mm.h"
#include "core/stats.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static struct frame_pool *pool;
static struct host_mm *mm;
static char seen[4096];
static pfn_t watched = PFN_NONE; /* must still be allocated whenever invalidate_range runs */
static hva_t base;
static struct notifier watcher;
static struct gup_result got;

static const char *const event_names[] = {"UNMAP", "CLEAR", "PROT", "PROTPAGE", "SOFT", "RELEASE", "MIGRATE", "EXCL"};

static void note(const char *what, hva_t start, hva_t end)
{
    size_t n = strlen(seen);
    snprintf(seen + n, sizeof seen - n, "%s %d-%d;", what, (int)((int64_t)(start - base) >> 12),
             (int)((int64_t)(end - base) >> 12));
}

static int on_start(struct notifier *n, const struct notify_range *r)
{
    ck_assert_ptr_eq(r->mm, mm);
    ck_assert(r->flags & NOTIFY_BLOCKABLE);
    strcat(seen, event_names[r->event]);
    note(" start", r->start, r->end);
    return 0;
}

static void on_end(struct notifier *n, const struct notify_range *r)
{
    note("end", r->start, r->end);
}

static void on_range(struct notifier *n, hva_t start, hva_t end)
{
    note("inv", start, end);
    if (watched != PFN_NONE)
        ck_assert_uint_ge(frame_pool_refs(pool, watched), 1);
}

static void on_release(struct notifier *n)
{
    strcat(seen, "release;");
}

static const struct notifier_ops watcher_ops = {
    .invalidate_range_start = on_start,
    .invalidate_range_end = on_end,
    .invalidate_range = on_range,
    .release = on_release,
};

static void setup(void)
{
    char err[200];
    pool = frame_pool_create(8192, err, sizeof err);
    mm = host_mm_create(pool);
    base = host_mm_mmap_anon(mm, 64 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_uint_ne(base, 0);
    ck_assert_int_eq(notifier_register(&watcher, mm, &watcher_ops), 0);
    seen[0] = 0;
    watched = PFN_NONE;
}

static void teardown(void)
{
    notifier_unregister(&watcher);
    host_mm_destroy(mm);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    frame_pool_destroy(pool);
}

static hva_t page(unsigned i)
{
    return base + i * PAGE_SIZE;
}

static void gup_ok(unsigned i, bool write)
{
    ck_assert_int_eq(host_mm_gup(mm, page(i) + 123, write, &got), 0);
    ck_assert_ptr_eq(got.ptr, frame_pool_ptr(pool, got.pfn));
}

START_TEST(memory_of_host_tables_is_counted_and_goes_with_what_they_hold)
{
    struct stats stats;
    bool found;
    stats_init(&stats);
    host_mm_add_stats(mm, &stats);
    ck_assert_uint_eq(stats_get(&stats, "bytes.host_tables", &found), 0);
    ck_assert(found);
    ck_assert_int_eq(host_mm_gup(mm, base, true, &got), 0);
    uint64_t held = stats_get(&stats, "bytes.host_tables", &found);
    ck_assert_uint_ge(held, 512 * 8);
    ck_assert_int_eq(host_mm_dontneed(mm, base, PAGE_SIZE), 0);
    ck_assert_uint_eq(stats_get(&stats, "bytes.host_tables", &found), 0);
    ck_assert_uint_eq(stats_get(&stats, "bytes.host_tables.peak", &found), held);
    stats_fini(&stats);
}
END_TEST

START_TEST(a_read_of_an_untouched_page_is_given_the_zero_page_read_only)
{
    gup_ok(0, false);
    ck_assert_uint_eq(got.pfn, frame_pool_zero_frame(pool));
    ck_assert(!got.writable);
    struct hpte_info info = host_mm_peek(mm, page(0));
    ck_assert_int_eq(info.state, HPTE_ZERO);
    ck_assert(info.readable && info.accessed && !info.dirty && !info.writable);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    ck_assert_uint_eq(host_mm_resident(mm), 0);
    ck_assert_str_eq(seen, "");
}
END_TEST

START_TEST(a_write_gives_a_private_zeroed_writable_dirty_frame)
{
    gup_ok(3, true);
    ck_assert(got.writable);
    ck_assert_uint_ne(got.pfn, frame_pool_zero_frame(pool));
    for (size_t i = 0; i < PAGE_SIZE; i++)
        ck_assert_uint_eq(((uint8_t *)got.ptr)[i], 0);
    struct hpte_info info = host_mm_peek(mm, page(3) + 4095);
    ck_assert_int_eq(info.state, HPTE_PRESENT);
    ck_assert_uint_eq(info.pfn, got.pfn);
    ck_assert(info.writable && info.dirty && info.accessed);
    ck_assert_uint_eq(host_mm_resident(mm), 1);
    ck_assert_str_eq(seen, ""); /* nothing was there before: nobody is told */
}
END_TEST

START_TEST(a_write_to_the_zero_page_replaces_the_frame_and_fires_the_bus)
{
    gup_ok(1, false);
    gup_ok(1, true);
    ck_assert(got.writable);
    ck_assert_uint_ne(got.pfn, frame_pool_zero_frame(pool));
    ck_assert_str_eq(seen, "CLEAR start 1-2;inv 1-2;end 1-2;");
    ck_assert_uint_eq(host_mm_counters(mm)->zero_breaks, 1);
    seen[0] = 0;
    gup_ok(1, true);
    gup_ok(1, false);
    ck_assert_str_eq(seen, "");
}
END_TEST

START_TEST(a_write_to_a_shared_frame_copies_it_and_the_other_owner_keeps_the_old_one)
{
    gup_ok(2, true);
    pfn_t old = got.pfn;
    memset(got.ptr, 0x5a, PAGE_SIZE);
    frame_pool_get(pool, old);
    ck_assert_int_eq(host_mm_mprotect(mm, page(2), PAGE_SIZE, HOST_READ), 0);
    ck_assert_int_eq(host_mm_mprotect(mm, page(2), PAGE_SIZE, HOST_READ | HOST_WRITE), 0);
    seen[0] = 0;
    watched = old;
    gup_ok(2, false);
    ck_assert_uint_eq(got.pfn, old);
    ck_assert(!got.writable);
    gup_ok(2, true);
    ck_assert_uint_ne(got.pfn, old);
    ck_assert_uint_eq(((uint8_t *)got.ptr)[100], 0x5a);
    ((uint8_t *)got.ptr)[100] = 1;
    ck_assert_uint_eq(((uint8_t *)frame_pool_ptr(pool, old))[100], 0x5a);
    ck_assert_str_eq(seen, "CLEAR start 2-3;inv 2-3;end 2-3;");
    ck_assert_uint_eq(frame_pool_refs(pool, old), 1);
    ck_assert_uint_eq(host_mm_counters(mm)->cow_breaks, 1);
    frame_pool_put(pool, old);
}
END_TEST

START_TEST(munmap_fires_start_then_range_while_the_frame_lives_then_end)
{
    gup_ok(4, true);
    watched = got.pfn;
    gup_ok(6, true);
    ck_assert_int_eq(host_mm_munmap(mm, page(4), 4 * PAGE_SIZE), 0);
    ck_assert_str_eq(seen, "UNMAP start 4-8;inv 4-8;end 4-8;");
    ck_assert_uint_eq(frame_pool_refs(pool, watched), 0);
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    ck_assert_int_eq(host_mm_gup(mm, page(4), false, &got), -1);
    ck_assert_int_eq(host_mm_peek(mm, page(4)).state, HPTE_NONE);
    ck_assert_int_eq(host_mm_gup(mm, page(3), false, &got), 0);
    ck_assert_int_eq(host_mm_gup(mm, page(8), false, &got), 0);
    ck_assert_int_eq(host_mm_munmap(mm, page(3), 2 * PAGE_SIZE), -1); /* half of it is not mapped */
}
END_TEST

START_TEST(munmap_of_untouched_pages_has_no_frame_to_announce)
{
    ck_assert_int_eq(host_mm_munmap(mm, page(0), PAGE_SIZE), 0);
    ck_assert_str_eq(seen, "UNMAP start 0-1;end 0-1;");
}
END_TEST

START_TEST(dontneed_gives_the_memory_back_and_the_page_reads_as_zeros)
{
    for (unsigned i = 0; i < 64; i++) {
        gup_ok(i, true);
        memset(got.ptr, 1, PAGE_SIZE);
    }
    uint64_t full = frame_pool_resident_bytes(pool);
    ck_assert_int_eq(host_mm_dontneed(mm, page(0), 64 * PAGE_SIZE), 0);
    ck_assert_str_eq(seen, "CLEAR start 0-64;inv 0-64;end 0-64;");
    ck_assert_uint_ge(full - frame_pool_resident_bytes(pool), 64 * PAGE_SIZE);
    ck_assert_uint_eq(host_mm_resident(mm), 0);
    gup_ok(10, false);
    ck_assert_uint_eq(((uint8_t *)got.ptr)[7], 0);
    gup_ok(11, true);
    ck_assert_uint_eq(((uint8_t *)got.ptr)[7], 0);
}
END_TEST

START_TEST(mprotect_from_rw_to_r_keeps_the_frame_and_fires_no_invalidate_range)
{
    gup_ok(5, true);
    pfn_t pfn = got.pfn;
    ck_assert_int_eq(host_mm_mprotect(mm, page(5), PAGE_SIZE, HOST_READ), 0);
    ck_assert_str_eq(seen, "PROT start 5-6;end 5-6;");
    ck_assert_int_eq(host_mm_gup(mm, page(5), true, &got), -1);
    gup_ok(5, false);
    ck_assert_uint_eq(got.pfn, pfn);
    ck_assert(!got.writable);
    ck_assert(host_mm_peek(mm, page(5)).dirty);
    gup_ok(4, true); /* neighbours are as they were */
    gup_ok(6, true);
}
END_TEST

START_TEST(after_r_to_rw_a_write_fault_reuses_the_frame_silently)
{
    gup_ok(5, true);
    pfn_t pfn = got.pfn;
    ck_assert_int_eq(host_mm_mprotect(mm, page(0), 64 * PAGE_SIZE, HOST_READ), 0);
    ck_assert_int_eq(host_mm_mprotect(mm, page(0), 64 * PAGE_SIZE, HOST_READ | HOST_WRITE), 0);
    gup_ok(5, false);
    ck_assert(!got.writable);
    seen[0] = 0;
    gup_ok(5, true);
    ck_assert_uint_eq(got.pfn, pfn);
    ck_assert(got.writable);
    ck_assert_str_eq(seen, "");
    ck_assert_uint_eq(host_mm_counters(mm)->reuses, 1);
}
END_TEST

START_TEST(mprotect_to_no_access_invalidates_the_range_but_keeps_the_content)
{
    gup_ok(5, true);
    *(char *)got.ptr = 'k';
    watched = got.pfn;
    ck_assert_int_eq(host_mm_mprotect(mm, page(5), PAGE_SIZE, 0), 0);
    ck_assert_str_eq(seen, "PROT start 5-6;inv 5-6;end 5-6;");
    ck_assert_int_eq(host_mm_gup(mm, page(5), false, &got), -1);
    ck_assert(!host_mm_peek(mm, page(5)).readable);
    ck_assert_int_eq(host_mm_mprotect(mm, page(5), PAGE_SIZE, HOST_READ), 0);
    gup_ok(5, false);
    ck_assert_uint_eq(got.pfn, watched);
    ck_assert_int_eq(*(char *)got.ptr, 'k');
}
END_TEST

START_TEST(mprotect_that_changes_nothing_is_silent)
{
    ck_assert_int_eq(host_mm_mprotect(mm, page(0), 64 * PAGE_SIZE, HOST_READ | HOST_WRITE), 0);
    ck_assert_str_eq(seen, "");
}
END_TEST

START_TEST(bad_ranges_are_refused_without_firing)
{
    ck_assert_int_eq(host_mm_munmap(mm, page(0) + 1, PAGE_SIZE), -1);
    ck_assert_int_eq(host_mm_munmap(mm, page(0), 100), -1);
    ck_assert_int_eq(host_mm_munmap(mm, page(0), 0), -1);
    ck_assert_int_eq(host_mm_munmap(mm, page(60), 8 * PAGE_SIZE), -1);
    ck_assert_int_eq(host_mm_dontneed(mm, page(0), 0 - page(0)), -1);
    ck_assert_int_eq(host_mm_dontneed(mm, ~PAGE_MASK, PAGE_SIZE), -1);
    ck_assert_int_eq(host_mm_mprotect(mm, 0, PAGE_SIZE, HOST_READ), -1);
    ck_assert_int_eq(host_mm_gup(mm, 0, false, &got), -1);
    ck_assert_int_eq(host_mm_gup(mm, UINT64_MAX, true, &got), -1);
    ck_assert_int_eq(host_mm_peek(mm, UINT64_MAX).state, HPTE_NONE);
    ck_assert_uint_eq(host_mm_mmap_anon(mm, 100, HOST_READ), 0);
    ck_assert_uint_eq(host_mm_mmap_anon(mm, 0, HOST_READ), 0);
    ck_assert_uint_eq(host_mm_mmap_anon(mm, (uint64_t)1 << 60, HOST_READ), 0);
    ck_assert_str_eq(seen, "");
}
END_TEST

START_TEST(mappings_are_aligned_deterministic_and_fill_the_lowest_gap)
{
    struct host_mm *other = host_mm_create(pool);
    hva_t a = host_mm_mmap_anon(other, PAGE_SIZE, HOST_READ);
    ck_assert_uint_eq(a, base);
    hva_t b = host_mm_mmap_anon(other, (5 << 20), HOST_READ | HOST_WRITE);
    hva_t c = host_mm_mmap_anon(other, PAGE_SIZE, HOST_READ);
    ck_assert_uint_eq(a % (2 << 20) + b % (2 << 20) + c % (2 << 20), 0);
    ck_assert(a < b && b + (5 << 20) <= c);
    ck_assert_int_eq(host_mm_munmap(other, b, 5 << 20), 0);
    ck_assert_uint_eq(host_mm_mmap_anon(other, 2 << 20, HOST_READ), b);
    ck_assert_uint_eq(host_mm_mmap_anon(other, 4 << 20, HOST_READ), b + (2 << 20));
    ck_assert_uint_gt(host_mm_mmap_anon(other, 4 << 20, HOST_READ), c);
    host_mm_destroy(other);
}
END_TEST

START_TEST(a_large_sparse_range_costs_what_it_holds)
{
    uint64_t len = (uint64_t)1 << 39; /* 512 GiB; the first and last page of it touched */
    hva_t big = host_mm_mmap_anon(mm, len, HOST_READ | HOST_WRITE);
    ck_assert_uint_ne(big, 0);
    ck_assert_int_eq(host_mm_gup(mm, big, true, &got), 0);
    ck_assert_int_eq(host_mm_gup(mm, big + len - 1, true, &got), 0);
    ck_assert_uint_eq(host_mm_resident(mm), 2);
    seen[0] = 0;
    base = big;
    ck_assert_int_eq(host_mm_munmap(mm, big, len), 0);
    ck_assert_str_eq(seen, "UNMAP start 0-134217728;inv 0-512;inv 134217727-134217728;end 0-134217728;");
    ck_assert_uint_eq(host_mm_resident(mm), 0);
}
END_TEST

START_TEST(out_of_frames_is_reported_and_changes_nothing)
{
    char err[200];
    struct frame_pool *small = frame_pool_create(2, err, sizeof err);
    struct host_mm *tight = host_mm_create(small);
    hva_t a = host_mm_mmap_anon(tight, 4 * PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(host_mm_gup(tight, a, true, &got), 0);
    ck_assert_int_eq(host_mm_gup(tight, a + PAGE_SIZE, true, &got), 0);
    ck_assert_int_eq(host_mm_gup(tight, a + 2 * PAGE_SIZE, false, &got), 0); /* the zero page is always there */
    ck_assert_int_eq(host_mm_gup(tight, a + 2 * PAGE_SIZE, true, &got), -2);
    ck_assert_int_eq(host_mm_gup(tight, a + 3 * PAGE_SIZE, true, &got), -2);
    ck_assert_int_eq(host_mm_peek(tight, a + 2 * PAGE_SIZE).state, HPTE_ZERO);
    ck_assert_int_eq(host_mm_dontneed(tight, a, PAGE_SIZE), 0);
    ck_assert_int_eq(host_mm_gup(tight, a + 3 * PAGE_SIZE, true, &got), 0);
    host_mm_destroy(tight);
    ck_assert_uint_eq(frame_pool_used(small), 0);
    frame_pool_destroy(small);
}
END_TEST

START_TEST(peek_changes_nothing)
{
    ck_assert_int_eq(host_mm_peek(mm, page(9)).state, HPTE_NONE);
    ck_assert_ptr_null(host_mm_peek_content(mm, page(9)));
    gup_ok(9, false);
    ck_assert_ptr_null(host_mm_peek_content(mm, page(9)));
    gup_ok(9, true);
    *(char *)got.ptr = 'x';
    ck_assert_int_eq(*(const char *)host_mm_peek_content(mm, page(9)), 'x');
    uint64_t faults = host_mm_counters(mm)->faults;
    host_mm_peek(mm, page(10));
    ck_assert_int_eq(host_mm_peek(mm, page(10)).state, HPTE_NONE);
    ck_assert_uint_eq(host_mm_counters(mm)->faults, faults);
    ck_assert_uint_eq(frame_pool_used(pool), 1);
}
END_TEST

START_TEST(destroying_the_mm_releases_its_subscribers_and_their_late_leaving_is_safe)
{
    gup_ok(0, true);
    host_mm_destroy(mm);
    ck_assert_str_eq(seen, "release;");
    ck_assert_uint_eq(frame_pool_used(pool), 0);
    notifier_unregister(&watcher);
    ck_assert_str_eq(seen, "release;");
    mm = host_mm_create(pool);
    ck_assert_int_eq(notifier_register(&watcher, mm, &watcher_ops), 0);
}
END_TEST

/* A model of the pages beside the real thing: state of each, under a long random sequence of operations. */
struct model {
    bool mapped, writable;
    uint8_t content; /* first byte; 0: untouched or given back */
};

static uint64_t rng(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void model_step(struct model *m, uint64_t *seed, hva_t at, unsigned pages)
{
    unsigned i = rng(seed) % pages, n = 1 + rng(seed) % 600, op = rng(seed) % 16;
    if (n > pages - i)
        n = pages - i;
    bool whole = true;
    for (unsigned k = i; k < i + n; k++)
        whole &= m[k].mapped;
    hva_t hva = at + i * PAGE_SIZE;
    if (op == 0) {
        n = n > 8 ? 8 : n;
        whole = true;
        for (unsigned k = i; k < i + n; k++)
            whole &= m[k].mapped;
        ck_assert_int_eq(host_mm_munmap(mm, hva, n * PAGE_SIZE), whole ? 0 : -1);
        for (unsigned k = i; whole && k < i + n; k++)
            m[k] = (struct model){0};
    } else if (op == 1) {
        ck_assert_int_eq(host_mm_dontneed(mm, hva, n * PAGE_SIZE), whole ? 0 : -1);
        for (unsigned k = i; whole && k < i + n; k++)
            m[k].content = 0;
    } else if (op <= 3) {
        bool w = op == 3;
        ck_assert_int_eq(host_mm_mprotect(mm, hva, n * PAGE_SIZE, HOST_READ | (w ? HOST_WRITE : 0)), whole ? 0 : -1);
        for (unsigned k = i; whole && k < i + n; k++)
            m[k].writable = w;
    } else if (op <= 9) {
        int rc = host_mm_gup(mm, hva, false, &got);
        ck_assert_int_eq(rc, m[i].mapped ? 0 : -1);
        if (!rc)
            ck_assert_uint_eq(*(uint8_t *)got.ptr, m[i].content);
    } else {
        int rc = host_mm_gup(mm, hva, true, &got);
        ck_assert_int_eq(rc, m[i].mapped && m[i].writable ? 0 : -1);
        if (rc)
            return;
        ck_assert_uint_eq(*(uint8_t *)got.ptr, m[i].content);
        m[i].content = (uint8_t)(1 + rng(seed) % 255);
        *(uint8_t *)got.ptr = m[i].content;
    }
}

START_TEST(random_operations_agree_with_a_model)
{
    enum { PAGES = 1500 };
    static struct model m[PAGES];
    notifier_unregister(&watcher); /* its transcript would overflow */
    hva_t at = host_mm_mmap_anon(mm, PAGES * PAGE_SIZE, HOST_READ | HOST_WRITE);
    for (unsigned i = 0; i < PAGES; i++)
        m[i] = (struct model){.mapped = true, .writable = true};
    uint64_t seed = 88172645463325252ull;
    for (unsigned step = 0; step < 20000; step++)
        model_step(m, &seed, at, PAGES);
    uint64_t resident = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        const uint8_t *p = host_mm_peek_content(mm, at + i * PAGE_SIZE);
        ck_assert_uint_eq(p ? *p : 0, m[i].content);
        resident += m[i].content != 0;
    }
    ck_assert_uint_gt(resident, 10);
    ck_assert_uint_eq(host_mm_resident(mm), resident);
    ck_assert_uint_eq(frame_pool_used(pool), resident);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host_mm");
    TCase *t = tcase_create("host_mm");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, memory_of_host_tables_is_counted_and_goes_with_what_they_hold);
    tcase_add_test(t, a_read_of_an_untouched_page_is_given_the_zero_page_read_only);
    tcase_add_test(t, a_write_gives_a_private_zeroed_writable_dirty_frame);
    tcase_add_test(t, a_write_to_the_zero_page_replaces_the_frame_and_fires_the_bus);
    tcase_add_test(t, a_write_to_a_shared_frame_copies_it_and_the_other_owner_keeps_the_old_one);
    tcase_add_test(t, munmap_fires_start_then_range_while_the_frame_lives_then_end);
    tcase_add_test(t, munmap_of_untouched_pages_has_no_frame_to_announce);
    tcase_add_test(t, dontneed_gives_the_memory_back_and_the_page_reads_as_zeros);
    tcase_add_test(t, mprotect_from_rw_to_r_keeps_the_frame_and_fires_no_invalidate_range);
    tcase_add_test(t, after_r_to_rw_a_write_fault_reuses_the_frame_silently);
    tcase_add_test(t, mprotect_to_no_access_invalidates_the_range_but_keeps_the_content);
    tcase_add_test(t, mprotect_that_changes_nothing_is_silent);
    tcase_add_test(t, bad_ranges_are_refused_without_firing);
    tcase_add_test(t, mappings_are_aligned_deterministic_and_fill_the_lowest_gap);
    tcase_add_test(t, a_large_sparse_range_costs_what_it_holds);
    tcase_add_test(t, out_of_frames_is_reported_and_changes_nothing);
    tcase_add_test(t, peek_changes_nothing);
    tcase_add_test(t, destroying_the_mm_releases_its_subscribers_and_their_late_leaving_is_safe);
    tcase_add_test(t, random_operations_agree_with_a_model);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
