/* Post-copy: pages that another party has, delivered when they are touched or before. */
#include "core/host/ksm.h"
#include "core/host/postcopy.h"
#include "core/host/swap.h"
#include "tests/unit/host_rig.h"

#include <pthread.h>

/* The other party: a thread that answers one request at a time, with the bytes that the key is the seed of. */
struct party {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, threaded, broken;
    const uint64_t *wanted; /* NULL: nothing is asked for */
    void *page;
    unsigned fetches, destroyed;
};

static struct party party;

static void *party_main(void *arg)
{
    struct party *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        if (p->wanted) {
            fill_bytes(p->page, *p->wanted);
            p->wanted = NULL;
            pthread_cond_broadcast(&p->changed);
        }
        pthread_cond_wait(&p->changed, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void ask_thread(struct party *p, uint64_t key, void *page)
{
    while (p->wanted)
        pthread_cond_wait(&p->changed, &p->lock);
    p->wanted = &key;
    p->page = page;
    pthread_cond_broadcast(&p->changed);
    while (p->wanted == &key)
        pthread_cond_wait(&p->changed, &p->lock);
    pthread_cond_broadcast(&p->changed);
}

static int fetch(void *ctx, uint64_t key, void *page)
{
    struct party *p = ctx;
    pthread_mutex_lock(&p->lock);
    p->fetches++;
    bool broken = p->broken;
    if (p->threaded && !broken)
        ask_thread(p, key, page);
    else
        fill_bytes(page, key);
    pthread_mutex_unlock(&p->lock);
    return broken ? HOST_IO_ERROR : HOST_OK;
}

static void destroy(void *ctx)
{
    ((struct party *)ctx)->destroyed++;
}

static const struct page_source_ops ops = {.fetch = fetch, .destroy = destroy};
static struct page_source *source;

static void setup(void)
{
    rig_setup();
    party = (struct party){0};
    pthread_mutex_init(&party.lock, NULL);
    pthread_cond_init(&party.changed, NULL);
    source = page_source_create(&ops, &party);
    ck_assert_int_eq(host_mm_set_page_source(rig.mm, source), HOST_OK);
    page_source_put(source);
    rig.seen[0] = 0;
}

static void teardown(void)
{
    rig_teardown();
    ck_assert_uint_eq(party.destroyed, 1);
    pthread_cond_destroy(&party.changed);
    pthread_mutex_destroy(&party.lock);
}

/* Page i is awaited under the key 1000 + i. */
static void await(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++)
        ck_assert_int_eq(host_mm_await(rig.mm, page(i), 1000 + i), HOST_OK);
}

START_TEST(first_touch_waits_for_the_page_and_tells_nobody)
{
    await(3, 4);
    ck_assert_uint_eq(host_mm_awaited(rig.mm), 4);
    ck_assert_uint_eq(host_mm_resident(rig.mm), 0);
    ck_assert(host_mm_peek(rig.mm, page(3)).awaited);
    page_is(rig.mm, page(3), 1003);
    gup_of(rig.mm, page(4), true);
    ck_assert(rig.got.writable);
    fill_bytes(rig.got.ptr, 7);
    page_is(rig.mm, page(4), 7);
    ck_assert_uint_eq(party.fetches, 2);
    ck_assert_uint_eq(host_mm_awaited(rig.mm), 2);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->delivered, 2);
    ck_assert_str_eq(rig.seen, "");
}
END_TEST

START_TEST(looking_at_an_awaited_page_shows_it_and_leaves_it_awaited)
{
    await(3, 1);
    peek_is(rig.mm, page(3), 1003);
    ck_assert(host_mm_peek(rig.mm, page(3)).awaited);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->delivered, 0);
}
END_TEST

START_TEST(page_that_has_a_frame_loses_it_when_it_is_awaited)
{
    write_page(rig.mm, page(3), 1);
    rig.seen[0] = 0;
    await(3, 1);
    ck_assert_str_eq(rig.seen, "CLEAR start 3-4;inv 3-4;end 3-4;");
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    page_is(rig.mm, page(3), 1003);
}
END_TEST

START_TEST(delivery_is_for_awaited_pages_only_and_once)
{
    uint8_t bytes[PAGE_SIZE];
    fill_bytes(bytes, 5);
    await(3, 1);
    ck_assert_int_eq(host_mm_deliver(rig.mm, page(4), bytes), HOST_NOTHING);
    ck_assert_int_eq(host_mm_deliver(rig.mm, page(3), bytes), HOST_OK);
    write_page(rig.mm, page(3), 6);
    ck_assert_int_eq(host_mm_deliver(rig.mm, page(3), bytes), HOST_NOTHING);
    page_is(rig.mm, page(3), 6);
    ck_assert_uint_eq(party.fetches, 0);
    ck_assert_uint_eq(party.destroyed, 1); /* with the last page */
}
END_TEST

START_TEST(what_is_given_back_or_unmapped_is_not_asked_for_again)
{
    await(3, 4);
    ck_assert_int_eq(host_mm_dontneed(rig.mm, page(3), PAGE_SIZE), 0);
    ck_assert_int_eq(host_mm_munmap(rig.mm, page(4), PAGE_SIZE), 0);
    ck_assert_uint_eq(*(uint8_t *)gup_of(rig.mm, page(3), true), 0);
    ck_assert_int_eq(host_mm_gup(rig.mm, page(4), false, &rig.got), HOST_DENIED);
    ck_assert_uint_eq(party.fetches, 0);
    ck_assert_uint_eq(host_mm_awaited(rig.mm), 2);
}
END_TEST

START_TEST(background_brings_all_in_order_and_the_source_goes)
{
    await(3, 20);
    ck_assert_int_eq(host_mm_fetch_ahead(rig.mm, 5), HOST_OK);
    for (unsigned i = 3; i < 23; i++)
        ck_assert_int_eq(host_mm_peek(rig.mm, page(i)).awaited, i >= 8);
    page_is(rig.mm, page(12), 1012);
    ck_assert_int_eq(host_mm_fetch_ahead(rig.mm, 100), HOST_OK);
    ck_assert_uint_eq(host_mm_awaited(rig.mm), 0);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->fetched_ahead, 19);
    ck_assert_uint_eq(party.destroyed, 1);
    for (unsigned i = 3; i < 23; i++)
        page_is(rig.mm, page(i), 1000 + i);
}
END_TEST

START_TEST(page_that_cannot_be_fetched_is_an_error_and_stays_awaited)
{
    await(3, 1);
    party.broken = true;
    ck_assert_int_eq(host_mm_gup(rig.mm, page(3), false, &rig.got), HOST_IO_ERROR);
    ck_assert_int_eq(host_mm_fetch_ahead(rig.mm, 1), HOST_IO_ERROR);
    ck_assert_ptr_null(host_mm_peek_content(rig.mm, page(3)));
    ck_assert_uint_eq(frame_pool_used(rig.pool), 0);
    party.broken = false;
    page_is(rig.mm, page(3), 1003);
}
END_TEST

START_TEST(fork_shares_the_waiting)
{
    await(3, 2);
    struct host_mm *child = host_mm_fork(rig.mm);
    page_is(rig.mm, page(3), 1003);
    page_is(rig.mm, page(4), 1004);
    ck_assert_uint_eq(host_mm_awaited(child), 2);
    ck_assert_uint_eq(party.destroyed, 0);
    write_page(rig.mm, page(3), 1);
    page_is(child, page(3), 1003);
    page_is(child, page(4), 1004);
    ck_assert_uint_eq(party.destroyed, 1);
    host_mm_destroy(child);
}
END_TEST

START_TEST(other_operations_leave_awaited_pages_alone)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 1 << 20};
    struct swap_store *store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(rig.mm, store);
    hva_t area = host_mm_mmap_anon(rig.mm, 2 << 20, HOST_READ | HOST_WRITE);
    write_page(rig.mm, area, 1);
    ck_assert_int_eq(host_mm_await(rig.mm, area + PAGE_SIZE, 77), HOST_OK);
    ck_assert_int_eq(host_mm_swap_out(rig.mm, area + PAGE_SIZE), HOST_NOTHING);
    ck_assert_int_eq(host_mm_swap_in(rig.mm, area + PAGE_SIZE), HOST_NOTHING);
    ck_assert_int_eq(host_mm_migrate(rig.mm, area + PAGE_SIZE), HOST_NOTHING);
    ck_assert_int_eq(host_mm_collapse(rig.mm, area), HOST_NOTHING);
    ck_assert_int_eq(host_mm_soft_dirty_clear(rig.mm, area, 2 << 20), HOST_OK);
    ck_assert_int_eq(host_mm_mprotect(rig.mm, area, 2 << 20, HOST_READ), 0);
    ck_assert_uint_eq(host_mm_reclaim(rig.mm, 10, NULL), 1);
    ck_assert_uint_eq(party.fetches, 0);
    page_is(rig.mm, area + PAGE_SIZE, 77);
    ck_assert(!rig.got.writable);
    ck_assert_int_eq(host_mm_gup(rig.mm, area + PAGE_SIZE, true, &rig.got), HOST_DENIED);
    page_is(rig.mm, area, 1);
    swap_store_put(store);
}
END_TEST

START_TEST(only_anonymous_pages_of_an_mm_with_a_source_are_awaited)
{
    ck_assert_int_eq(host_mm_await(rig.mm, page(3) + 8, 1), HOST_DENIED);
    ck_assert_int_eq(host_mm_await(rig.mm, 0, 1), HOST_DENIED);
    ck_assert_int_eq(host_mm_await(rig.mm, page(3), POSTCOPY_KEY_MAX + 1), HOST_DENIED);
    await(3, 1);
    static struct party second; /* outlives the test function */
    struct page_source *other = page_source_create(&ops, &second);
    ck_assert_int_eq(host_mm_set_page_source(rig.mm, other), HOST_DENIED);
    page_is(rig.mm, page(3), 1003);
    ck_assert_int_eq(host_mm_set_page_source(rig.mm, other), HOST_OK);
    page_source_put(other);
    struct host_mm *bare = host_mm_create(rig.pool);
    hva_t hva = host_mm_mmap_anon(bare, PAGE_SIZE, HOST_READ);
    ck_assert_int_eq(host_mm_await(bare, hva, 1), HOST_DENIED);
    host_mm_destroy(bare);
}
END_TEST

/* Several threads touch the same pages, while others bring them: each sees the right bytes. */
#define TOUCHERS 3

static void *touch_all(void *arg)
{
    unsigned step = *(const unsigned *)arg;
    uint8_t want[PAGE_SIZE];
    for (unsigned k = 0; k < RIG_PAGES; k++) {
        unsigned i = k * step % RIG_PAGES;
        struct gup_result g;
        ck_assert_int_eq(host_mm_gup(rig.mm, page(i), i & 1, &g), HOST_OK);
        fill_bytes(want, 1000 + i);
        ck_assert_mem_eq(g.ptr, want, PAGE_SIZE);
    }
    return NULL;
}

START_TEST(threads_that_touch_and_a_party_that_brings_agree)
{
    static const unsigned steps[TOUCHERS] = {1, 63, 37};
    pthread_t touchers[TOUCHERS];
    party.threaded = true;
    pthread_create(&party.thread, NULL, party_main, &party);
    await(0, RIG_PAGES);
    for (unsigned i = 0; i < TOUCHERS; i++)
        pthread_create(&touchers[i], NULL, touch_all, (void *)(uintptr_t)&steps[i]);
    while (host_mm_awaited(rig.mm))
        ck_assert_int_eq(host_mm_fetch_ahead(rig.mm, 1), HOST_OK);
    for (unsigned i = 0; i < TOUCHERS; i++)
        pthread_join(touchers[i], NULL);
    pthread_mutex_lock(&party.lock);
    party.stop = true;
    pthread_cond_broadcast(&party.changed);
    pthread_mutex_unlock(&party.lock);
    pthread_join(party.thread, NULL);
    ck_assert_uint_eq(host_mm_counters(rig.mm)->delivered, RIG_PAGES);
    ck_assert_uint_eq(frame_pool_used(rig.pool), RIG_PAGES);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        first_touch_waits_for_the_page_and_tells_nobody,
        looking_at_an_awaited_page_shows_it_and_leaves_it_awaited,
        page_that_has_a_frame_loses_it_when_it_is_awaited,
        delivery_is_for_awaited_pages_only_and_once,
        what_is_given_back_or_unmapped_is_not_asked_for_again,
        background_brings_all_in_order_and_the_source_goes,
        page_that_cannot_be_fetched_is_an_error_and_stays_awaited,
        fork_shares_the_waiting,
        other_operations_leave_awaited_pages_alone,
        only_anonymous_pages_of_an_mm_with_a_source_are_awaited,
        threads_that_touch_and_a_party_that_brings_agree,
    };
    return suite_of_case("core/host/postcopy", "postcopy", tests, ARRAY_LEN(tests), setup, teardown, 120);
}

CHECK_MAIN(suite)
