/*
 * Guest threads fault, read and write while a host thread swaps, merges, moves, forks and protects what they use.
 *
 * Each guest thread has translations of its own, made by the retry protocol: read the sequence, get the frame with no
 * lock held, take the lock, and start again if an invalidation has been there. The host acts at safe points: when every
 * guest thread is between instructions or in a gup.
 */
#define _GNU_SOURCE /* pthread_rwlockattr_setkind_np */

#include "core/host/chaos.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "tests/unit/check_main.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

/* gcc defines a macro, clang has a feature. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define HAS_THREAD_SANITIZER 1
#else
#define HAS_THREAD_SANITIZER 0
#endif

#define PAGES        1100
#define THREADS      2
#define INSTRUCTIONS 20000
#define EVENTS_MIN   1500
#define ROUNDS_MAX   50

struct spte {
    pfn_t pfn;
    bool valid, writable;
};

/* The subscriber: an MMU for all threads. */
struct mmu {
    struct notifier notifier;
    pthread_mutex_t lock;
    hva_t base;
    uint64_t seq;         /* atomic */
    unsigned in_progress; /* ranges between start and end */
    struct spte spte[PAGES];
};

struct world {
    struct frame_pool *pool;
    struct host_mm *mm;
    struct swap_store *store;
    struct mmu mmu;
    pthread_rwlock_t running; /* read: an instruction runs; written: the host has stopped the world */
    unsigned done;            /* atomic: guest threads that are through */
};

struct guest {
    struct world *w;
    unsigned id;
    uint64_t rng, retries, mismatches, failures;
    uint64_t stamp[PAGES]; /* what it last wrote to each of its pages */
};

static struct world world;

/* ---- the subscriber ---- */

static void advance(struct mmu *m)
{
    __atomic_store_n(&m->seq, m->seq + 1, __ATOMIC_RELEASE);
}

static void drop(struct mmu *m, hva_t start, hva_t end)
{
    for (unsigned i = 0; i < PAGES; i++) {
        hva_t hva = m->base + i * PAGE_SIZE;
        if (hva >= start && hva < end)
            m->spte[i].valid = false;
    }
}

static int on_start(struct notifier *n, const struct notify_range *r)
{
    struct mmu *m = container_of(n, struct mmu, notifier);
    pthread_mutex_lock(&m->lock);
    m->in_progress++;
    drop(m, r->start, r->end);
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static void on_end(struct notifier *n, const struct notify_range *r)
{
    struct mmu *m = container_of(n, struct mmu, notifier);
    pthread_mutex_lock(&m->lock);
    advance(m);
    m->in_progress--;
    pthread_mutex_unlock(&m->lock);
}

/* Re-points without a zap. */
static void on_change(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct mmu *m = container_of(n, struct mmu, notifier);
    pthread_mutex_lock(&m->lock);
    advance(m);
    struct spte *s = &m->spte[(hva - m->base) >> PAGE_SHIFT];
    s->pfn = hpte.pfn;
    s->writable = false;
    pthread_mutex_unlock(&m->lock);
}

static bool on_age(struct notifier *n, hva_t start, hva_t end)
{
    struct mmu *m = container_of(n, struct mmu, notifier);
    pthread_mutex_lock(&m->lock);
    bool young = false;
    for (hva_t hva = start; hva < end; hva += PAGE_SIZE)
        young |= (hva - m->base) >> PAGE_SHIFT < PAGES && m->spte[(hva - m->base) >> PAGE_SHIFT].valid;
    drop(m, start, end); /* it has no accessed bits */
    pthread_mutex_unlock(&m->lock);
    return young;
}

static const struct notifier_ops mmu_ops = {
    .invalidate_range_start = on_start,
    .invalidate_range_end = on_end,
    .change_pte = on_change,
    .clear_young = on_age,
    .clear_flush_young = on_age,
};

/* ---- the guest ---- */

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static bool mapped(struct mmu *m, unsigned i, bool write, pfn_t *pfn)
{
    pthread_mutex_lock(&m->lock);
    const struct spte *s = &m->spte[i];
    bool ok = s->valid && (!write || s->writable);
    *pfn = s->pfn;
    pthread_mutex_unlock(&m->lock);
    return ok;
}

/* One attempt to map the page. The world may stop while the gup runs. */
static bool fault(struct guest *g, unsigned i, bool write)
{
    struct mmu *m = &g->w->mmu;
    struct gup_result got;
    uint64_t seq = __atomic_load_n(&m->seq, __ATOMIC_ACQUIRE);
    pthread_rwlock_unlock(&g->w->running);
    int rc = host_mm_gup(g->w->mm, m->base + i * PAGE_SIZE, write, &got);
    pthread_rwlock_rdlock(&g->w->running);
    if (rc) {
        g->failures++;
        return false;
    }
    pthread_mutex_lock(&m->lock);
    bool retry = m->in_progress || __atomic_load_n(&m->seq, __ATOMIC_ACQUIRE) != seq;
    if (!retry)
        m->spte[i] = (struct spte){got.pfn, true, got.writable};
    pthread_mutex_unlock(&m->lock);
    g->retries += retry;
    return true;
}

/* Reads or writes one of the thread's own pages; the frame is used only while the world runs. */
static void instruction(struct guest *g)
{
    unsigned i = (unsigned)(next_random(&g->rng) % (PAGES / THREADS)) * THREADS + g->id;
    bool write = next_random(&g->rng) % 3 == 0;
    pfn_t pfn = PFN_NONE;
    pthread_rwlock_rdlock(&g->w->running);
    while (!g->failures && !mapped(&g->w->mmu, i, write, &pfn))
        fault(g, i, write);
    if (!g->failures) {
        uint64_t *p = frame_pool_ptr(g->w->pool, pfn);
        g->mismatches += p[i % 512] != g->stamp[i] || p[511 - i % 512] != g->stamp[i];
        if (write) {
            uint64_t v = next_random(&g->rng) % 4; /* few values: equal pages */
            g->stamp[i] = p[i % 512] = p[511 - i % 512] = v;
        }
    }
    pthread_rwlock_unlock(&g->w->running);
}

static void *guest_thread(void *arg)
{
    struct guest *g = arg;
    for (unsigned k = 0; k < INSTRUCTIONS && !g->failures; k++)
        instruction(g);
    __atomic_add_fetch(&g->w->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- set up and run ---- */

static void setup(void)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 16 << 20};
    pthread_rwlockattr_t attr;
    memset(&world, 0, sizeof world);
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&world.running, &attr);
    pthread_mutex_init(&world.mmu.lock, NULL);
    world.pool = frame_pool_create(4096, err, sizeof err);
    world.mm = host_mm_create(world.pool);
    world.store = swap_store_create(&cfg, err, sizeof err);
    host_mm_set_swap(world.mm, world.store);
    world.mmu.base = host_mm_mmap_anon(world.mm, PAGES * PAGE_SIZE, HOST_READ | HOST_WRITE);
    notifier_register(&world.mmu.notifier, world.mm, &mmu_ops);
}

static void teardown(void)
{
    notifier_unregister(&world.mmu.notifier);
    host_mm_destroy(world.mm);
    ck_assert_uint_eq(frame_pool_used(world.pool), 0);
    ck_assert_uint_eq(swap_store_counters(world.store)->slots, 0);
    swap_store_put(world.store);
    frame_pool_destroy(world.pool);
}

static void run_round(struct guest *guests, struct host_chaos *chaos)
{
    pthread_t thread[THREADS];
    __atomic_store_n(&world.done, 0, __ATOMIC_RELEASE);
    for (unsigned t = 0; t < THREADS; t++)
        pthread_create(&thread[t], NULL, guest_thread, &guests[t]);
    while (__atomic_load_n(&world.done, __ATOMIC_ACQUIRE) < THREADS || host_chaos_events(chaos) < EVENTS_MIN) {
        pthread_rwlock_wrlock(&world.running);
        host_chaos_run_one(chaos);
        ck_assert_int_eq(host_mm_safe_point(world.mm), HOST_OK);
        pthread_rwlock_unlock(&world.running);
    }
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(thread[t], NULL);
}

/* How often a fault meets an event, or memory its limit, depends on how the threads take turns: rounds until both
 * happened. */
static void run_against(const char *ops, bool limit)
{
    static struct guest guests[THREADS];
    char err[200];
    struct host_chaos_config cfg;
    ck_assert_msg(host_chaos_parse(ops, &cfg, err, sizeof err), "%s", err);
    struct host_chaos *chaos = host_chaos_create(world.mm, NULL, &cfg);
    if (limit)
        host_mm_set_limit(world.mm, 200);
    for (unsigned t = 0; t < THREADS; t++)
        guests[t] = (struct guest){.w = &world, .id = t, .rng = 77 + t};
    bool met = false;
    for (unsigned round = 0; !met && round < ROUNDS_MAX; round++) {
        uint64_t retries = 0;
        run_round(guests, chaos);
        for (unsigned t = 0; t < THREADS; t++) {
            ck_assert_uint_eq(guests[t].failures, 0);
            ck_assert_uint_eq(guests[t].mismatches, 0);
            retries += guests[t].retries;
        }
        met = retries > 0 && (!limit || host_mm_counters(world.mm)->reclaimed > 0);
    }
    ck_assert_msg(met, "no fault met an event, or nothing was reclaimed");
    host_chaos_destroy(chaos);
}

START_TEST(swapped_merged_and_moved_memory_is_never_seen_stale)
{
    run_against("seed=1,ops=swap+migrate+ksm", false);
}
END_TEST

START_TEST(forked_protected_huge_and_aged_memory_is_never_seen_stale)
{
    run_against("seed=2,ops=cow+mprotect+huge+age", false);
}
END_TEST

START_TEST(everything_at_once_under_a_memory_limit_is_never_seen_stale)
{
    run_against("seed=3,ops=all", true);
}
END_TEST

/* ---- a parent and its child in two threads ---- */

struct writer {
    struct host_mm *mm;
    hva_t base;
    uint64_t seed, wrong;
};

static void *writer_thread(void *arg)
{
    struct writer *w = arg;
    uint64_t r = w->seed, stamp[256] = {0};
    struct gup_result got;
    for (unsigned k = 0; k < 20000; k++) {
        unsigned i = next_random(&r) % 256;
        if (next_random(&r) % 8 == 0) {
            host_mm_swap_out(w->mm, w->base + i * PAGE_SIZE);
            continue;
        }
        if (host_mm_gup(w->mm, w->base + i * PAGE_SIZE, true, &got)) {
            w->wrong++;
            continue;
        }
        uint64_t *p = got.ptr;
        w->wrong += p[1] != i || p[0] != stamp[i];
        p[0] = stamp[i] = w->seed + k;
    }
    return NULL;
}

START_TEST(a_parent_and_its_children_write_and_swap_at_the_same_time_and_stay_apart)
{
    struct writer w[3] = {{0}};
    pthread_t thread[3];
    struct gup_result got;
    notifier_unregister(&world.mmu.notifier); /* these threads have no safe points */
    for (unsigned i = 0; i < 256; i++) {
        ck_assert_int_eq(host_mm_gup(world.mm, world.mmu.base + i * PAGE_SIZE, true, &got), 0);
        ((uint64_t *)got.ptr)[1] = i;
        if (i % 3 == 0)
            host_mm_swap_out(world.mm, world.mmu.base + i * PAGE_SIZE);
    }
    for (unsigned t = 0; t < 3; t++)
        w[t] = (struct writer){t ? host_mm_fork(world.mm) : world.mm, world.mmu.base, 1000003ull * (t + 1), 0};
    for (unsigned t = 0; t < 3; t++)
        pthread_create(&thread[t], NULL, writer_thread, &w[t]);
    for (unsigned t = 0; t < 3; t++)
        pthread_join(thread[t], NULL);
    for (unsigned t = 0; t < 3; t++)
        ck_assert_uint_eq(w[t].wrong, 0);
    host_mm_destroy(w[1].mm);
    host_mm_destroy(w[2].mm);
}
END_TEST

/* ---- a mirror in another thread ---- */

#define MIRRORED 3 /* few pages: the two meet often */

struct reader {
    struct host_mm *mm;
    hva_t window;
    uint64_t wrong;
};

/* The frame that a mirror shows holds the page's number, whatever happens to the source. */
static void *reader_thread(void *arg)
{
    struct reader *r = arg;
    uint64_t rng = 5;
    struct gup_result got;
    while (__atomic_load_n(&world.done, __ATOMIC_ACQUIRE) == 0) {
        unsigned i = next_random(&rng) % MIRRORED;
        r->wrong += host_mm_gup(r->mm, r->window + i * PAGE_SIZE, false, &got) != 0;
        /* The frame may go at once; what may not is the lock order or the books. */
        host_mm_peek(r->mm, r->window + i * PAGE_SIZE);
    }
    return NULL;
}

static uint64_t fills_of(struct host_mm *mm)
{
    sched_yield(); /* the reader's turn */
    host_mm_lock(mm);
    uint64_t fills = host_mm_counters(mm)->mirror_fills;
    host_mm_unlock(mm);
    return fills;
}

START_TEST(a_mirror_fills_while_its_source_changes)
{
    struct host_mm *inspector = host_mm_create(world.pool);
    struct reader r = {.mm = inspector};
    struct gup_result got;
    pthread_t thread;
    for (unsigned i = 0; i < MIRRORED; i++)
        ck_assert_int_eq(host_mm_gup(world.mm, world.mmu.base + i * PAGE_SIZE, true, &got), 0);
    r.window = host_mm_mmap_mirror(inspector, world.mm, world.mmu.base, MIRRORED * PAGE_SIZE);
    pthread_create(&thread, NULL, reader_thread, &r);
    uint64_t rng = 9;
    for (unsigned k = 0; fills_of(inspector) < 500 || k < 20000; k++) {
        hva_t at = next_random(&rng) % MIRRORED * PAGE_SIZE;
        if (k % 64)
            host_mm_migrate(world.mm, world.mmu.base + at);
        else
            host_mm_swap_out(world.mm, world.mmu.base + at);
        struct hpte_info m = host_mm_peek(inspector, r.window + at), s = host_mm_peek(world.mm, world.mmu.base + at);
        if (m.state == HPTE_PRESENT) /* nobody else takes frames away, so the two looks belong together */
            ck_assert_uint_eq(m.pfn, s.pfn);
    }
    __atomic_store_n(&world.done, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(r.wrong, 0);
    for (unsigned i = 0; i < MIRRORED; i++) {
        struct hpte_info m = host_mm_peek(inspector, r.window + i * PAGE_SIZE);
        if (m.state != HPTE_NONE)
            ck_assert_uint_eq(m.pfn, host_mm_peek(world.mm, world.mmu.base + i * PAGE_SIZE).pfn);
    }
    host_mm_destroy(inspector);
}
END_TEST

static void *read_once(void *arg)
{
    struct reader *r = arg;
    struct gup_result got;
    r->wrong = host_mm_gup(r->mm, r->window, false, &got) != 0;
    return NULL;
}

/* The race that the sequence is for, held open by the two locks: the reader has the source's frame, and before it can
 * take it over the source moves. Takes the locks against their order, which is safe here since the reader waits. */
START_TEST(a_frame_that_went_stale_on_its_way_to_the_mirror_is_not_taken_over)
{
    struct host_mm *inspector = host_mm_create(world.pool);
    struct reader r = {.mm = inspector};
    struct gup_result got;
    pthread_t thread;
    ck_assert_int_eq(host_mm_gup(world.mm, world.mmu.base, true, &got), 0);
    r.window = host_mm_mmap_mirror(inspector, world.mm, world.mmu.base, PAGE_SIZE);
    host_mm_lock(world.mm);
    pthread_create(&thread, NULL, read_once, &r);
    usleep(100000); /* it has read the sequence and waits for the source */
    host_mm_lock(inspector);
    host_mm_unlock(world.mm);
    usleep(100000); /* it has the frame and waits for the mirror */
    ck_assert_int_eq(host_mm_migrate(world.mm, world.mmu.base), HOST_OK);
    host_mm_unlock(inspector);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(r.wrong, 0);
    ck_assert_uint_eq(host_mm_peek(inspector, r.window).pfn, host_mm_peek(world.mm, world.mmu.base).pfn);
    host_mm_destroy(inspector);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host, threads");
    TCase *t = tcase_create("threads");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, swapped_merged_and_moved_memory_is_never_seen_stale);
    tcase_add_test(t, forked_protected_huge_and_aged_memory_is_never_seen_stale);
    tcase_add_test(t, everything_at_once_under_a_memory_limit_is_never_seen_stale);
    tcase_add_test(t, a_parent_and_its_children_write_and_swap_at_the_same_time_and_stay_apart);
    tcase_add_test(t, a_mirror_fills_while_its_source_changes);
    if (!HAS_THREAD_SANITIZER) /* it would report the lock order */
        tcase_add_test(t, a_frame_that_went_stale_on_its_way_to_the_mirror_is_not_taken_over);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
