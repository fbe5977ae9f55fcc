/* The tree half of the notifier bus: interval notifiers, their sequences, deferred changes. */
#include "core/host/host_mm.h"
#include "core/host/interval_tree.h"
#include "core/host/notifier_bus.h"
#include "tests/unit/check_main.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

static struct frame_pool *pool;
static struct host_mm *mm;

struct sub {
    struct interval_notifier n;
    unsigned calls;
    bool refuse;
    void (*inside)(struct sub *s); /* runs in the callback */
};

static bool on_invalidate(struct interval_notifier *n, const struct notify_range *r, uint64_t cur_seq)
{
    struct sub *s = container_of(n, struct sub, n);
    s->calls++;
    ck_assert(cur_seq & 1);
    if (s->inside)
        s->inside(s);
    if (s->refuse)
        return false;
    interval_notifier_set_seq(n, cur_seq);
    return true;
}

static const struct interval_notifier_ops ops = {.invalidate = on_invalidate};

static void setup(void)
{
    char err[200];
    pool = frame_pool_create(64, err, sizeof err);
    mm = host_mm_create(pool);
}

static void teardown(void)
{
    host_mm_destroy(mm);
    frame_pool_destroy(pool);
}

static void add(struct sub *s, hva_t start, hva_t end)
{
    ck_assert_int_eq(interval_notifier_insert(&s->n, mm, start, end - start, &ops), 0);
}

static struct notify_range range_of(hva_t start, hva_t end)
{
    return (struct notify_range){
        .mm = mm, .start = start, .end = end, .event = NOTIFY_UNMAP, .flags = NOTIFY_BLOCKABLE};
}

static void fire(hva_t start, hva_t end)
{
    struct notify_range r = range_of(start, end);
    ck_assert_int_eq(notify_invalidate_range_start(&r), 0);
    notify_invalidate_range_end(&r);
}

START_TEST(only_ranges_that_meet_are_seen)
{
    struct sub a = {0}, b = {0};
    add(&a, 0x1000, 0x3000);
    add(&b, 0x3000, 0x5000);
    fire(0x0, 0x1000);
    fire(0x5000, 0x9000);
    ck_assert_uint_eq(a.calls + b.calls, 0);
    fire(0x2000, 0x3000);
    ck_assert_uint_eq(a.calls, 1);
    ck_assert_uint_eq(b.calls, 0);
    fire(0x2fff, 0x3001);
    ck_assert_uint_eq(a.calls, 2);
    ck_assert_uint_eq(b.calls, 1);
    interval_notifier_remove(&a.n);
    fire(0, 0x10000);
    ck_assert_uint_eq(a.calls, 2);
    ck_assert_uint_eq(b.calls, 2);
    interval_notifier_remove(&b.n);
}
END_TEST

START_TEST(a_reader_retries_if_and_only_if_its_range_was_met)
{
    struct sub a = {0};
    add(&a, 0x1000, 0x3000);
    uint64_t seq = interval_notifier_read_begin(&a.n);
    fire(0x3000, 0x4000);
    ck_assert(!interval_notifier_read_retry(&a.n, seq));
    fire(0x1000, 0x2000);
    ck_assert(interval_notifier_read_retry(&a.n, seq));
    seq = interval_notifier_read_begin(&a.n);
    ck_assert(!interval_notifier_read_retry(&a.n, seq));
    fire(0x1000, 0x2000);
    ck_assert(interval_notifier_read_retry(&a.n, seq));
    interval_notifier_remove(&a.n);
}
END_TEST

START_TEST(the_sequence_is_odd_from_the_first_met_range_to_the_last_end)
{
    struct sub a = {0};
    add(&a, 0x1000, 0x3000);
    struct notifier_bus *bus = *host_mm_bus_slot(mm);
    struct notify_range away = range_of(0x8000, 0x9000), meets = range_of(0x1000, 0x2000);
    uint64_t before = bus->invalidate_seq;
    ck_assert_uint_eq(before & 1, 0);
    notify_invalidate_range_start(&away);
    ck_assert_uint_eq(bus->invalidate_seq, before);
    notify_invalidate_range_start(&meets);
    ck_assert_uint_eq(bus->invalidate_seq, before + 1);
    ck_assert_uint_eq(bus->active_invalidate_ranges, 2);
    notify_invalidate_range_end(&meets);
    ck_assert_uint_eq(bus->invalidate_seq, before + 1); /* another range is still active */
    notify_invalidate_range_end(&away);
    ck_assert_uint_eq(bus->invalidate_seq, before + 2);
    ck_assert_uint_eq(bus->active_invalidate_ranges, 0);
    notify_invalidate_range_start(&away);
    notify_invalidate_range_end(&away);
    ck_assert_uint_eq(bus->invalidate_seq, before + 2); /* it met nobody */
    interval_notifier_remove(&a.n);
}
END_TEST

START_TEST(a_refused_range_is_ended_and_never_reaches_the_list)
{
    struct sub a = {0}, b = {0};
    add(&a, 0x1000, 0x2000);
    add(&b, 0x2000, 0x3000);
    b.refuse = true;
    struct notify_range r = range_of(0, 0x4000);
    r.flags = 0;
    uint64_t seq = interval_notifier_read_begin(&a.n);
    ck_assert_int_ne(notify_invalidate_range_start(&r), 0);
    struct notifier_bus *bus = *host_mm_bus_slot(mm);
    ck_assert_uint_eq(bus->active_invalidate_ranges, 0);
    ck_assert_uint_eq(bus->invalidate_seq & 1, 0);
    ck_assert(interval_notifier_read_retry(&a.n, seq)); /* a did let go */
    interval_notifier_read_begin(&a.n);                 /* and does not wait for ever */
    interval_notifier_remove(&a.n);
    interval_notifier_remove(&b.n);
}
END_TEST

static int list_refuses(struct notifier *n, const struct notify_range *r)
{
    return -1;
}

START_TEST(a_refusal_by_the_list_ends_the_tree_as_well)
{
    static const struct notifier_ops refusing = {.invalidate_range_start = list_refuses};
    struct sub a = {0};
    struct notifier n;
    add(&a, 0x1000, 0x2000);
    ck_assert_int_eq(notifier_register(&n, mm, &refusing), 0);
    struct notify_range r = range_of(0, 0x4000);
    r.flags = 0;
    ck_assert_int_eq(notify_invalidate_range_start(&r), -1);
    ck_assert_uint_eq((*host_mm_bus_slot(mm))->active_invalidate_ranges, 0);
    interval_notifier_read_begin(&a.n);
    notifier_unregister(&n);
    interval_notifier_remove(&a.n);
}
END_TEST

static struct sub late;

static void insert_late(struct sub *s)
{
    s->inside = NULL;
    add(&late, 0x1000, 0x2000);
    ck_assert(!late.n.inserted);
}

START_TEST(insertion_during_an_invalidation_waits_for_its_end)
{
    struct sub a = {.inside = insert_late};
    memset(&late, 0, sizeof late);
    add(&a, 0x1000, 0x3000);
    struct notify_range r = range_of(0x1000, 0x2000);
    notify_invalidate_range_start(&r);
    notify_invalidate_range_start(&r); /* a nested one: the tree has not changed */
    ck_assert_uint_eq(late.calls, 0);
    notify_invalidate_range_end(&r);
    ck_assert(!late.n.inserted);
    notify_invalidate_range_end(&r);
    ck_assert(late.n.inserted);
    uint64_t seq = interval_notifier_read_begin(&late.n);
    fire(0x1000, 0x2000);
    ck_assert_uint_eq(late.calls, 1);
    ck_assert(interval_notifier_read_retry(&late.n, seq));
    interval_notifier_remove(&late.n);
    interval_notifier_remove(&a.n);
}
END_TEST

START_TEST(a_deferred_insertion_can_be_taken_back)
{
    struct sub a = {.inside = insert_late};
    memset(&late, 0, sizeof late);
    add(&a, 0x1000, 0x3000);
    struct notify_range r = range_of(0x1000, 0x2000);
    notify_invalidate_range_start(&r);
    interval_notifier_remove(&late.n); /* returns at once: it never was in the tree */
    notify_invalidate_range_end(&r);
    fire(0x1000, 0x2000);
    ck_assert_uint_eq(late.calls, 0);
    interval_notifier_remove(&a.n);
}
END_TEST

START_TEST(insertion_while_a_range_that_met_nobody_is_active_makes_readers_wait_for_it)
{
    struct sub a = {0};
    struct notifier n;
    static const struct notifier_ops none = {0};
    ck_assert_int_eq(notifier_register(&n, mm, &none), 0); /* so that there is a bus */
    struct notify_range r = range_of(0x1000, 0x2000);
    notify_invalidate_range_start(&r);
    add(&a, 0x1000, 0x3000);
    struct notifier_bus *bus = *host_mm_bus_slot(mm);
    ck_assert_uint_eq(bus->invalidate_seq & 1, 1);
    ck_assert_uint_eq(bus->invalidate_seq, a.n.invalidate_seq);
    notify_invalidate_range_end(&r);
    uint64_t seq = interval_notifier_read_begin(&a.n);
    ck_assert(!interval_notifier_read_retry(&a.n, seq));
    interval_notifier_remove(&a.n);
    notifier_unregister(&n);
}
END_TEST

/* Threads: what waits, and that it waits long enough. */

static unsigned stage;

static void *remove_it(void *arg)
{
    interval_notifier_remove(arg);
    __atomic_store_n(&stage, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *begin_read(void *arg)
{
    interval_notifier_read_begin(arg);
    __atomic_store_n(&stage, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void check_waits_for_end(void *(*what)(void *), struct sub *s)
{
    pthread_t thread;
    struct timespec pause = {.tv_nsec = 50000000};
    struct notify_range r = range_of(0x1000, 0x2000);
    stage = 0;
    notify_invalidate_range_start(&r);
    pthread_create(&thread, NULL, what, &s->n);
    nanosleep(&pause, NULL);
    ck_assert_uint_eq(__atomic_load_n(&stage, __ATOMIC_ACQUIRE), 0);
    notify_invalidate_range_end(&r);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(stage, 1);
}

START_TEST(removal_during_an_invalidation_waits_for_its_end)
{
    struct sub a = {0};
    add(&a, 0x1000, 0x3000);
    check_waits_for_end(remove_it, &a);
    ck_assert(!a.n.inserted);
    fire(0x1000, 0x2000);
    ck_assert_uint_eq(a.calls, 1);
}
END_TEST

START_TEST(read_begin_waits_while_the_range_is_being_invalidated)
{
    struct sub a = {0}, far = {0};
    add(&a, 0x1000, 0x3000);
    add(&far, 0x8000, 0x9000);
    check_waits_for_end(begin_read, &a);
    struct notify_range r = range_of(0x1000, 0x2000);
    notify_invalidate_range_start(&r);
    interval_notifier_read_begin(&far.n); /* the range is not its own: no wait */
    notify_invalidate_range_end(&r);
    interval_notifier_remove(&far.n);
    interval_notifier_remove(&a.n);
}
END_TEST

/* A reader that follows the protocol against a host thread: a frame that it may use is never stale. */
static hva_t page;
static pthread_mutex_t user_lock = PTHREAD_MUTEX_INITIALIZER;
static bool stop;

static bool locked_invalidate(struct interval_notifier *n, const struct notify_range *r, uint64_t cur_seq)
{
    pthread_mutex_lock(&user_lock);
    interval_notifier_set_seq(n, cur_seq);
    pthread_mutex_unlock(&user_lock);
    return true;
}

static void *host_side(void *arg)
{
    for (int i = 0; i < 20000; i++)
        host_mm_dontneed(mm, page, PAGE_SIZE);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    return NULL;
}

static void *come_and_go(void *arg)
{
    static const struct interval_notifier_ops locked_ops = {.invalidate = locked_invalidate};
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct interval_notifier n;
        ck_assert_int_eq(interval_notifier_insert(&n, mm, page, PAGE_SIZE, &locked_ops), 0);
        interval_notifier_remove(&n);
    }
    return NULL;
}

START_TEST(a_frame_found_by_the_read_protocol_is_never_stale)
{
    static const struct interval_notifier_ops locked_ops = {.invalidate = locked_invalidate};
    struct interval_notifier n;
    pthread_t host, other;
    stop = false;
    page = host_mm_mmap_anon(mm, PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(interval_notifier_insert(&n, mm, page, PAGE_SIZE, &locked_ops), 0);
    pthread_create(&host, NULL, host_side, NULL);
    pthread_create(&other, NULL, come_and_go, NULL);
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct gup_result g;
        uint64_t seq = interval_notifier_read_begin(&n);
        ck_assert_int_eq(host_mm_gup(mm, page, true, &g), 0);
        pthread_mutex_lock(&user_lock);
        if (!interval_notifier_read_retry(&n, seq))
            ck_assert_uint_ge(frame_pool_refs(pool, g.pfn), 1); /* an invalidation now would wait for user_lock */
        pthread_mutex_unlock(&user_lock);
    }
    pthread_join(host, NULL);
    pthread_join(other, NULL);
    interval_notifier_remove(&n);
}
END_TEST

/* The tree itself against a plain array. */

struct found {
    unsigned count;
    hva_t last_start;
};

static bool count_visit(struct interval_notifier *n, void *ctx)
{
    struct found *f = ctx;
    ck_assert(n->start >= f->last_start);
    f->last_start = n->start;
    f->count++;
    return true;
}

static unsigned depth(const struct interval_notifier *n)
{
    unsigned a = n ? depth(n->child[0]) : 0, b = n ? depth(n->child[1]) : 0;
    return n ? 1 + (a > b ? a : b) : 0;
}

static uint64_t rng(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

START_TEST(the_tree_finds_what_a_plain_search_finds)
{
    enum { N = 400 };
    static struct interval_notifier node[N];
    static bool in[N];
    struct interval_notifier *root = NULL;
    uint64_t seed = 123456789;
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = rng(&seed) % N;
        if (in[i]) {
            interval_tree_remove(&root, &node[i]);
        } else {
            hva_t start = rng(&seed) % 1000, len = 1 + rng(&seed) % (i % 7 ? 20 : 400);
            node[i] = (struct interval_notifier){.start = start, .end = start + len, .serial = step};
            interval_tree_insert(&root, &node[i]);
        }
        in[i] = !in[i];
        hva_t start = rng(&seed) % 1100, end = start + 1 + rng(&seed) % 30;
        unsigned expected = 0;
        for (unsigned k = 0; k < N; k++)
            expected += in[k] && node[k].start < end && node[k].end > start;
        struct found f = {0};
        interval_tree_walk(root, start, end, count_visit, &f);
        ck_assert_uint_eq(f.count, expected);
        ck_assert_int_eq(interval_tree_meets(root, start, end), expected > 0);
    }
}
END_TEST

START_TEST(the_tree_stays_shallow_when_filled_in_order)
{
    enum { N = 4096 };
    static struct interval_notifier node[N];
    struct interval_notifier *root = NULL;
    for (unsigned i = 0; i < N; i++) {
        node[i] = (struct interval_notifier){.start = i * 16, .end = i * 16 + 8, .serial = i};
        interval_tree_insert(&root, &node[i]);
    }
    ck_assert_uint_lt(depth(root), 48);
}
END_TEST

START_TEST(empty_and_wrapping_ranges_are_refused)
{
    struct interval_notifier n;
    ck_assert_int_eq(interval_notifier_insert(&n, mm, 0x1000, 0, &ops), -1);
    ck_assert_int_eq(interval_notifier_insert(&n, mm, UINT64_MAX - 10, 100, &ops), -1);
}
END_TEST

START_TEST(release_reaches_interval_notifiers_and_they_may_leave_late)
{
    struct sub a = {0};
    add(&a, 0x1000, 0x3000);
    host_mm_destroy(mm);
    ck_assert_uint_eq(a.calls, 1);
    interval_notifier_remove(&a.n);
    mm = host_mm_create(pool);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/interval");
    TCase *t = tcase_create("interval");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, only_ranges_that_meet_are_seen);
    tcase_add_test(t, a_reader_retries_if_and_only_if_its_range_was_met);
    tcase_add_test(t, the_sequence_is_odd_from_the_first_met_range_to_the_last_end);
    tcase_add_test(t, a_refused_range_is_ended_and_never_reaches_the_list);
    tcase_add_test(t, a_refusal_by_the_list_ends_the_tree_as_well);
    tcase_add_test(t, insertion_during_an_invalidation_waits_for_its_end);
    tcase_add_test(t, a_deferred_insertion_can_be_taken_back);
    tcase_add_test(t, insertion_while_a_range_that_met_nobody_is_active_makes_readers_wait_for_it);
    tcase_add_test(t, removal_during_an_invalidation_waits_for_its_end);
    tcase_add_test(t, read_begin_waits_while_the_range_is_being_invalidated);
    tcase_add_test(t, a_frame_found_by_the_read_protocol_is_never_stale);
    tcase_add_test(t, the_tree_finds_what_a_plain_search_finds);
    tcase_add_test(t, the_tree_stays_shallow_when_filled_in_order);
    tcase_add_test(t, empty_and_wrapping_ranges_are_refused);
    tcase_add_test(t, release_reaches_interval_notifiers_and_they_may_leave_late);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
