/* The list half of the notifier bus: the eight operations, nesting, refusal, leaving while callbacks run. */
#include "core/host/host_mm.h"
#include "tests/unit/check_main.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static struct frame_pool *pool;
static struct host_mm *mm;
static char seen[1024];

struct sub {
    struct notifier n; /* first: callbacks get its address */
    char name;
    int open;   /* starts without their end */
    int refuse; /* what start returns */
    bool young;
};

static struct sub *sub_of(struct notifier *n)
{
    return container_of(n, struct sub, n);
}

static void note(struct notifier *n, const char *what)
{
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof seen - len, "%c:%s ", sub_of(n)->name, what);
}

static int on_start(struct notifier *n, const struct notify_range *r)
{
    if (sub_of(n)->refuse) {
        note(n, "refuse");
        return sub_of(n)->refuse;
    }
    sub_of(n)->open++;
    note(n, "start");
    return 0;
}

static void on_end(struct notifier *n, const struct notify_range *r)
{
    sub_of(n)->open--;
    ck_assert_int_ge(sub_of(n)->open, 0);
    note(n, "end");
}

static void on_range(struct notifier *n, hva_t start, hva_t end)
{
    note(n, "range");
}

static bool on_clear_flush_young(struct notifier *n, hva_t start, hva_t end)
{
    note(n, "flush_young");
    return sub_of(n)->young;
}

static bool on_clear_young(struct notifier *n, hva_t start, hva_t end)
{
    note(n, "clear_young");
    return sub_of(n)->young;
}

static bool on_test_young(struct notifier *n, hva_t hva)
{
    note(n, "test_young");
    return sub_of(n)->young;
}

static void on_change_pte(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    ck_assert_uint_eq(hpte.pfn, 77);
    note(n, "change_pte");
}

static void on_release(struct notifier *n)
{
    note(n, "release");
}

static const struct notifier_ops all_ops = {
    .invalidate_range_start = on_start,
    .invalidate_range_end = on_end,
    .invalidate_range = on_range,
    .clear_flush_young = on_clear_flush_young,
    .clear_young = on_clear_young,
    .test_young = on_test_young,
    .change_pte = on_change_pte,
    .release = on_release,
};
static const struct notifier_ops no_ops = {0};

static struct sub a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};

static void add(struct sub *s, const struct notifier_ops *ops)
{
    ck_assert_int_eq(notifier_register(&s->n, mm, ops), 0);
}

static void setup(void)
{
    char err[200];
    pool = frame_pool_create(64, err, sizeof err);
    mm = host_mm_create(pool);
    seen[0] = 0;
}

static void teardown(void)
{
    host_mm_destroy(mm);
    frame_pool_destroy(pool);
}

static struct notify_range range_of(unsigned flags)
{
    return (struct notify_range){.mm = mm, .start = 0x1000, .end = 0x3000, .event = NOTIFY_MIGRATE, .flags = flags};
}

START_TEST(every_operation_reaches_every_subscriber_in_order_of_registration)
{
    struct notify_range r = range_of(NOTIFY_BLOCKABLE);
    add(&a, &all_ops);
    add(&c, &no_ops); /* any operation may be absent */
    add(&b, &all_ops);
    b.young = true;
    ck_assert_int_eq(notify_invalidate_range_start(&r), 0);
    notify_invalidate_range(mm, r.start, r.end);
    notify_invalidate_range_end(&r);
    ck_assert_str_eq(seen, "a:start b:start a:range b:range a:end b:end ");
    seen[0] = 0;
    ck_assert(notify_clear_flush_young(mm, r.start, r.end));
    ck_assert(notify_clear_young(mm, r.start, r.end));
    ck_assert(notify_test_young(mm, r.start));
    notify_change_pte(mm, r.start, (struct hpte_view){.pfn = 77});
    ck_assert_str_eq(seen, "a:flush_young b:flush_young a:clear_young b:clear_young a:test_young b:test_young "
                           "a:change_pte b:change_pte ");
    seen[0] = 0;
    b.young = false;
    ck_assert(!notify_clear_flush_young(mm, r.start, r.end) && !notify_test_young(mm, r.start));
    a.young = true;
    seen[0] = 0;
    ck_assert(notify_test_young(mm, r.start));
    ck_assert_str_eq(seen, "a:test_young "); /* one young subscriber is enough */
    seen[0] = 0;
    notify_release(mm);
    ck_assert_str_eq(seen, "a:release b:release ");
    notify_invalidate_range(mm, r.start, r.end);
    ck_assert_str_eq(seen, "a:release b:release ");
    notifier_unregister(&a.n);
    notifier_unregister(&b.n);
    notifier_unregister(&c.n);
    ck_assert_str_eq(seen, "a:release b:release ");
}
END_TEST

START_TEST(firing_without_any_subscriber_does_nothing)
{
    struct notify_range r = range_of(0);
    ck_assert_int_eq(notify_invalidate_range_start(&r), 0);
    notify_invalidate_range(mm, r.start, r.end);
    notify_invalidate_range_end(&r);
    ck_assert(!notify_clear_flush_young(mm, 0, 1) && !notify_clear_young(mm, 0, 1) && !notify_test_young(mm, 0));
    notify_change_pte(mm, 0, (struct hpte_view){0});
    notify_release(mm);
    ck_assert_ptr_null(*host_mm_bus_slot(mm)); /* the bus is made at first registration */
}
END_TEST

START_TEST(overlapping_ranges_are_counted_one_by_one)
{
    struct notify_range r = range_of(NOTIFY_BLOCKABLE), s = r;
    s.start = 0x2000, s.end = 0x9000;
    add(&a, &all_ops);
    notify_invalidate_range_start(&r);
    notify_invalidate_range_start(&s);
    notify_invalidate_range_start(&r);
    ck_assert_int_eq(a.open, 3);
    notify_invalidate_range_end(&r);
    notify_invalidate_range_end(&r);
    ck_assert_int_eq(a.open, 1);
    notify_invalidate_range_end(&s);
    ck_assert_int_eq(a.open, 0);
    notifier_unregister(&a.n);
}
END_TEST

START_TEST(a_refused_range_is_ended_for_exactly_those_who_accepted_it)
{
    struct notify_range r = range_of(0);
    add(&a, &all_ops);
    add(&b, &all_ops);
    add(&c, &all_ops);
    b.refuse = -11;
    ck_assert_int_eq(notify_invalidate_range_start(&r), -11);
    ck_assert_str_eq(seen, "a:start b:refuse a:end ");
    b.refuse = 0;
    seen[0] = 0;
    ck_assert_int_eq(notify_invalidate_range_start(&r), 0);
    notify_invalidate_range_end(&r);
    ck_assert_int_eq(a.open + b.open + c.open, 0);
    notifier_unregister(&a.n);
    notifier_unregister(&b.n);
    notifier_unregister(&c.n);
}
END_TEST

START_TEST(a_blockable_range_cannot_be_refused)
{
    struct notify_range r = range_of(NOTIFY_BLOCKABLE);
    add(&a, &all_ops);
    add(&b, &all_ops);
    a.refuse = -1;
    ck_assert_int_eq(notify_invalidate_range_start(&r), 0);
    ck_assert_str_eq(seen, "a:refuse b:start ");
    a.open = 1;
    notify_invalidate_range_end(&r);
    ck_assert_int_eq(b.open, 0);
    notifier_unregister(&a.n);
    notifier_unregister(&b.n);
}
END_TEST

START_TEST(unregister_releases_once_and_nothing_comes_afterwards)
{
    add(&a, &all_ops);
    notifier_unregister(&a.n);
    ck_assert_str_eq(seen, "a:release ");
    notify_invalidate_range(mm, 0, 1);
    notifier_unregister(&a.n);
    ck_assert_str_eq(seen, "a:release ");
    add(&a, &all_ops);
    notify_invalidate_range(mm, 0, 1);
    ck_assert_str_eq(seen, "a:release a:range ");
    notifier_unregister(&a.n);
}
END_TEST

START_TEST(nobody_can_subscribe_to_a_released_mm)
{
    add(&a, &all_ops);
    notify_release(mm);
    ck_assert_int_eq(notifier_register(&b.n, mm, &all_ops), -1);
    struct interval_notifier in;
    ck_assert_int_eq(interval_notifier_insert(&in, mm, 0, 0x1000, NULL), -1);
    notifier_unregister(&a.n);
}
END_TEST

START_TEST(a_shared_subscription_leaves_with_its_last_user)
{
    ck_assert_ptr_null(notifier_get(mm, &all_ops));
    add(&a, &all_ops);
    ck_assert_ptr_eq(notifier_get(mm, &all_ops), &a.n);
    ck_assert_ptr_null(notifier_get(mm, &no_ops));
    ck_assert(!notifier_put(&a.n));
    ck_assert_str_eq(seen, "");
    ck_assert(notifier_put(&a.n));
    ck_assert_str_eq(seen, "a:release ");
    ck_assert_ptr_null(notifier_get(mm, &all_ops));
}
END_TEST

/* Threads. */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool inside, open;
};
static struct gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void set(bool *flag)
{
    pthread_mutex_lock(&gate.lock);
    *flag = true;
    pthread_cond_broadcast(&gate.cond);
    pthread_mutex_unlock(&gate.lock);
}

static void wait_for(const bool *flag)
{
    pthread_mutex_lock(&gate.lock);
    while (!*flag)
        pthread_cond_wait(&gate.cond, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

static void slow_range(struct notifier *n, hva_t start, hva_t end)
{
    set(&gate.inside);
    wait_for(&gate.open);
}

static const struct notifier_ops slow_ops = {.invalidate_range = slow_range};

static void *fire_once(void *arg)
{
    notify_invalidate_range(mm, 0, 0x1000);
    return NULL;
}

static bool left;

static void *leave(void *arg)
{
    notifier_unregister(arg);
    set(&left);
    return NULL;
}

START_TEST(unregister_waits_for_a_callback_that_runs)
{
    pthread_t firing, leaving;
    struct timespec pause = {.tv_nsec = 50000000};
    left = gate.inside = gate.open = false;
    add(&a, &slow_ops);
    add(&b, &all_ops);
    pthread_create(&firing, NULL, fire_once, NULL);
    wait_for(&gate.inside);
    pthread_create(&leaving, NULL, leave, &a.n);
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&gate.lock);
    ck_assert(!left); /* its callback is still running */
    pthread_mutex_unlock(&gate.lock);
    set(&gate.open);
    pthread_join(leaving, NULL);
    pthread_join(firing, NULL);
    ck_assert(left);
    ck_assert_str_eq(seen, "b:range "); /* the walk found its way past the one that left */
    notifier_unregister(&b.n);
}
END_TEST

/* A subscriber that would notice a callback after its unregister returned. */
struct churner {
    struct notifier n;
    unsigned alive; /* magic while registered */
    unsigned calls;
};

static void churn_range(struct notifier *n, hva_t start, hva_t end)
{
    struct churner *ch = container_of(n, struct churner, n);
    ck_assert_uint_eq(__atomic_load_n(&ch->alive, __ATOMIC_ACQUIRE), 0xa11fe);
    __atomic_add_fetch(&ch->calls, 1, __ATOMIC_RELAXED);
}

static const struct notifier_ops churn_ops = {.invalidate_range = churn_range};
static bool stop;

static void *fire_many(void *arg)
{
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
        notify_invalidate_range(mm, 0, 0x1000);
    return NULL;
}

static void *churn(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        struct churner *ch = calloc(1, sizeof *ch);
        ch->alive = 0xa11fe;
        ck_assert_int_eq(notifier_register(&ch->n, mm, &churn_ops), 0);
        notifier_unregister(&ch->n);
        __atomic_store_n(&ch->alive, 0xdead, __ATOMIC_RELEASE);
        free(ch);
    }
    return NULL;
}

START_TEST(subscribers_come_and_go_while_two_threads_fire)
{
    pthread_t firing[2], churning[2];
    stop = false;
    for (int i = 0; i < 2; i++)
        pthread_create(&firing[i], NULL, fire_many, NULL);
    for (int i = 0; i < 2; i++)
        pthread_create(&churning[i], NULL, churn, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(churning[i], NULL);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++)
        pthread_join(firing[i], NULL);
    struct churner last = {.alive = 0xa11fe};
    ck_assert_int_eq(notifier_register(&last.n, mm, &churn_ops), 0);
    notify_invalidate_range(mm, 0, 0x1000);
    ck_assert_uint_eq(last.calls, 1);
    notifier_unregister(&last.n);
}
END_TEST

/* The retry protocol as a fault handler uses it, against real host operations on another thread. */
struct mapper {
    struct notifier n;
    pthread_mutex_t lock; /* stands for the MMU lock */
    uint64_t seq;
    int in_flight;
    pfn_t mapped; /* the "spte" */
};

static int mapper_start(struct notifier *n, const struct notify_range *r)
{
    struct mapper *m = container_of(n, struct mapper, n);
    pthread_mutex_lock(&m->lock);
    m->in_flight++;
    m->mapped = PFN_NONE;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static void mapper_end(struct notifier *n, const struct notify_range *r)
{
    struct mapper *m = container_of(n, struct mapper, n);
    pthread_mutex_lock(&m->lock);
    m->seq++;
    m->in_flight--;
    pthread_mutex_unlock(&m->lock);
}

static const struct notifier_ops mapper_ops = {.invalidate_range_start = mapper_start,
                                               .invalidate_range_end = mapper_end};
static hva_t shared_page;

static void *host_side(void *arg)
{
    for (int i = 0; i < 20000; i++)
        host_mm_dontneed(mm, shared_page, PAGE_SIZE);
    set(&left);
    return NULL;
}

static bool map_once(struct mapper *m)
{
    struct gup_result g;
    pthread_mutex_lock(&m->lock);
    uint64_t seq = m->seq;
    pthread_mutex_unlock(&m->lock);
    ck_assert_int_eq(host_mm_gup(mm, shared_page, true, &g), 0);
    pthread_mutex_lock(&m->lock);
    bool ok = !m->in_flight && m->seq == seq;
    if (ok) {
        m->mapped = g.pfn;
        /* What the protocol promises: while the lock is held and no range is in flight, the frame is this page's and
         * alive. */
        ck_assert_uint_ge(frame_pool_refs(pool, m->mapped), 1);
        *(uint64_t *)frame_pool_ptr(pool, m->mapped) += 1;
    }
    pthread_mutex_unlock(&m->lock);
    return ok;
}

START_TEST(the_retry_protocol_never_maps_a_frame_that_is_gone)
{
    struct mapper m = {.lock = PTHREAD_MUTEX_INITIALIZER, .mapped = PFN_NONE};
    pthread_t host;
    left = false;
    shared_page = host_mm_mmap_anon(mm, PAGE_SIZE, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(notifier_register(&m.n, mm, &mapper_ops), 0);
    pthread_create(&host, NULL, host_side, NULL);
    for (bool done = false; !done;) {
        map_once(&m);
        pthread_mutex_lock(&gate.lock);
        done = left;
        pthread_mutex_unlock(&gate.lock);
    }
    pthread_join(host, NULL);
    ck_assert(map_once(&m));
    ck_assert_uint_eq(m.mapped, host_mm_peek(mm, shared_page).pfn);
    ck_assert_int_eq(m.in_flight, 0);
    notifier_unregister(&m.n);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/notifier");
    TCase *t = tcase_create("notifier");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, every_operation_reaches_every_subscriber_in_order_of_registration);
    tcase_add_test(t, firing_without_any_subscriber_does_nothing);
    tcase_add_test(t, overlapping_ranges_are_counted_one_by_one);
    tcase_add_test(t, a_refused_range_is_ended_for_exactly_those_who_accepted_it);
    tcase_add_test(t, a_blockable_range_cannot_be_refused);
    tcase_add_test(t, unregister_releases_once_and_nothing_comes_afterwards);
    tcase_add_test(t, nobody_can_subscribe_to_a_released_mm);
    tcase_add_test(t, a_shared_subscription_leaves_with_its_last_user);
    tcase_add_test(t, unregister_waits_for_a_callback_that_runs);
    tcase_add_test(t, subscribers_come_and_go_while_two_threads_fire);
    tcase_add_test(t, the_retry_protocol_never_maps_a_frame_that_is_gone);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
