/*
 * gfn-to-pfn caches: what a cached pointer survives, what it does not, and that no write through one goes astray.
 *
 * Built a second time with UMBRA_GFN_CACHE_RANGE_ONLY, where the caches hear invalidate_range alone: then writes after
 * a downgrade must be found in memory that is not the guest's.
 */
#include "core/host/chaos.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "core/trace.h"
#include "mmu/gfn_cache.h"
#include "mmu/mem.h"
#include "mmu_rig.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define RAM  (4ull << 20)
#define PAGE 0x5000ull
#define LEN  16

static struct rig rig;
static struct rig *const r = &rig;
static struct gfn_cache cache;
static struct ksm *ksm;

static void setup(void)
{
    char err[200] = "";
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = RAM});
    struct swap_store *swap = swap_store_create(&(struct swap_config){.memory_bytes = RAM}, err, sizeof err);
    ck_assert_int_eq(host_mm_set_swap(r->mm, swap), HOST_OK);
    swap_store_put(swap);
    ksm = ksm_create(r->pool);
    ksm_add(ksm, r->mm);
    host_mm_set_mergeable(r->mm, r->hva, RAM, true);
    gfn_cache_init(&cache, r->mem);
}

static void teardown(void)
{
    gfn_cache_fini(&cache);
    rig_close(r);
    ksm_destroy(ksm);
}

static void activate(gpa_t gpa)
{
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, gpa, LEN), GFN_CACHE_OK);
}

static hva_t hva(gpa_t gpa)
{
    return r->hva + gpa;
}

/* A use that writes. */
static void put(uint64_t value)
{
    uint64_t *p = gfn_cache_begin(&cache, LEN);
    ck_assert_ptr_nonnull(p);
    *p = value;
    gfn_cache_end(&cache, 0, 8);
}

/* ---- downgrades ---- */

/* In the build without them, a write that goes astray is what must be found. */
static void expect_elsewhere(uint64_t is, uint64_t was)
{
#ifdef UMBRA_GFN_CACHE_RANGE_ONLY
    ck_assert_uint_ne(is, was);
#else
    ck_assert_uint_eq(is, was);
#endif
}

START_TEST(write_after_a_fork_does_not_reach_the_child)
{
    uint64_t child_sees[512];
    activate(PAGE);
    put(1);
    struct host_mm *child = host_mm_fork(r->mm);
    ck_assert_uint_eq(host_mm_peek(child, hva(PAGE)).pfn, host_mm_peek(r->mm, hva(PAGE)).pfn);
    put(2);
    ck_assert_int_eq(host_mm_peek_read(child, hva(PAGE), child_sees), HOST_OK);
    expect_elsewhere(child_sees[0], 1);
    ck_assert_uint_eq(rig_get(r, PAGE), 2);
    host_mm_destroy(child);
}
END_TEST

START_TEST(write_after_a_merge_does_not_reach_the_other_page)
{
    activate(PAGE);
    put(7);
    rig_put(r, 0x9000, 7);
    ck_assert_int_eq(ksm_merge(ksm, r->mm, hva(PAGE), r->mm, hva(0x9000)), HOST_OK);
    put(8);
    expect_elsewhere(rig_get(r, 0x9000), 7);
}
END_TEST

#ifndef UMBRA_GFN_CACHE_RANGE_ONLY

/* ---- what it survives ---- */

static uint8_t *frame_of(gpa_t gpa)
{
    return (uint8_t *)frame_pool_ptr(r->pool, host_mm_peek(r->mm, hva(gpa)).pfn) + (gpa & PAGE_MASK);
}

static bool is_good(void)
{
    void *p = gfn_cache_begin_atomic(&cache, LEN);
    if (p)
        gfn_cache_end(&cache, 0, 0);
    return p != NULL;
}

START_TEST(pointer_is_the_frame_and_stays_good_while_nothing_happens)
{
    activate(PAGE + 0x10);
    for (uint64_t i = 0; i < 100; i++) {
        put(i);
        ck_assert_uint_eq(rig_get(r, PAGE + 0x10), i);
    }
    void *p = gfn_cache_begin(&cache, LEN);
    ck_assert_ptr_eq(p, frame_of(PAGE + 0x10));
    gfn_cache_end(&cache, 0, 0);
    ck_assert_uint_eq(gfn_caches_counters(r->mem).refreshes, 1);
    host_mm_migrate(r->mm, hva(0x8000)); /* somebody else's page */
    host_mm_swap_out(r->mm, hva(0x9000));
    ck_assert(is_good());
}
END_TEST

static void do_migrate(void)
{
    host_mm_migrate(r->mm, hva(PAGE));
}

static void do_swap_out(void)
{
    ck_assert_int_eq(host_mm_swap_out(r->mm, hva(PAGE)), HOST_OK);
}

static void do_protect(void)
{
    host_mm_mprotect(r->mm, hva(PAGE), PAGE_SIZE, HOST_READ);
    host_mm_mprotect(r->mm, hva(PAGE), PAGE_SIZE, HOST_READ | HOST_WRITE);
}

static void do_soft_dirty(void)
{
    host_mm_soft_dirty_clear(r->mm, hva(PAGE), PAGE_SIZE);
}

static void do_fork(void)
{
    host_mm_destroy(host_mm_fork(r->mm));
}

static void do_merge(void)
{
    rig_put(r, 0x9000, rig_get(r, PAGE));
    ck_assert_int_eq(ksm_merge(ksm, r->mm, hva(PAGE), r->mm, hva(0x9000)), HOST_OK);
}

static void do_collapse(void)
{
    ck_assert_int_eq(host_mm_collapse(r->mm, hva(PAGE)), HOST_OK);
}

START_TEST(every_change_of_its_host_entry_takes_the_pointer_and_the_next_use_gets_the_frame_of_then)
{
    void (*const change[])(void) = {do_migrate, do_swap_out, do_protect, do_soft_dirty, do_fork, do_merge, do_collapse};
    activate(PAGE);
    for (uint64_t i = 0; i < ARRAY_LEN(change); i++) {
        put(100 + i);
        uint64_t invalidations = gfn_caches_counters(r->mem).invalidations;
        change[i]();
        ck_assert_msg(!is_good(), "change %u left the pointer", (unsigned)i);
        ck_assert_uint_gt(gfn_caches_counters(r->mem).invalidations, invalidations);
        ck_assert_uint_eq(rig_get(r, PAGE), 100 + i);
        put(200 + i);
        ck_assert_uint_eq(*(uint64_t *)frame_of(PAGE), 200 + i);
        ck_assert(host_mm_peek(r->mm, hva(PAGE)).writable && host_mm_peek(r->mm, hva(PAGE)).dirty);
    }
}
END_TEST

START_TEST(slot_that_moves_takes_the_cache_to_what_is_there_then)
{
    activate(PAGE);
    put(5);
    ck_assert_int_eq(mem_slot_move(r->mem, 0, 0, 0x100000), 0);
    ck_assert(!is_good());
    ck_assert_ptr_null(gfn_cache_begin(&cache, LEN));
    ck_assert_int_eq(gfn_cache_refresh(&cache, LEN), GFN_CACHE_NO_RAM);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0, 0x10000, r->hva + RAM, MEMSLOT_RAM), 0);
    put(6);
    ck_assert_uint_eq(rig_get(r, PAGE), 6);
    ck_assert_uint_eq(rig_get(r, 0x100000 + PAGE), 5);
}
END_TEST

START_TEST(only_ram_within_one_page_can_be_cached)
{
    ck_assert_int_eq(mem_slot_add(r->mem, 0, RAM, PAGE_SIZE, r->hva + RAM, MEMSLOT_ROM), 0);
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, RAM, LEN), GFN_CACHE_NO_RAM);
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, RAM + PAGE_SIZE, LEN), GFN_CACHE_NO_RAM);
    ck_assert_int_eq(gfn_cache_activate(&cache, 9, PAGE, LEN), GFN_CACHE_NO_RAM);
    ck_assert_int_eq(gfn_cache_activate(&cache, 1, PAGE, LEN), GFN_CACHE_NO_RAM); /* nothing in that space */
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, ~0ull - 4, 4), GFN_CACHE_NO_RAM);
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, PAGE + 0xff8, LEN), GFN_CACHE_BAD_RANGE);
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, PAGE, 0), GFN_CACHE_BAD_RANGE);
    ck_assert_int_eq(gfn_cache_refresh(&cache, LEN), GFN_CACHE_INACTIVE);
    ck_assert_ptr_null(gfn_cache_begin(&cache, LEN));
    ck_assert_int_eq(gfn_cache_activate(&cache, 0, PAGE + 0xff0, LEN), GFN_CACHE_OK);
    ck_assert_ptr_null(gfn_cache_begin(&cache, LEN + 1));
}
END_TEST

START_TEST(page_that_the_host_does_not_let_be_written_gives_no_pointer_until_it_does)
{
    activate(PAGE);
    host_mm_mprotect(r->mm, hva(PAGE), PAGE_SIZE, HOST_READ);
    ck_assert_int_eq(gfn_cache_refresh(&cache, LEN), GFN_CACHE_NO_FRAME);
    ck_assert_ptr_null(gfn_cache_begin(&cache, LEN));
    host_mm_mprotect(r->mm, hva(PAGE), PAGE_SIZE, HOST_READ | HOST_WRITE);
    put(3);
}
END_TEST

START_TEST(unmapped_cache_gets_its_frame_again_and_a_deactivated_one_does_not)
{
    activate(PAGE);
    gfn_cache_unmap(&cache);
    ck_assert(!is_good());
    put(1);
    gfn_cache_deactivate(&cache);
    ck_assert_ptr_null(gfn_cache_begin(&cache, LEN));
    activate(PAGE + PAGE_SIZE);
    activate(PAGE + 2 * PAGE_SIZE); /* another place, at once */
    put(2);
    ck_assert_uint_eq(rig_get(r, PAGE + 2 * PAGE_SIZE), 2);
    ck_assert_uint_eq(rig_get(r, PAGE + PAGE_SIZE), 0);
}
END_TEST

START_TEST(end_of_the_memory_is_the_end_of_the_pointer)
{
    activate(PAGE);
    notify_release(r->mm);
    ck_assert(!is_good());
    ck_assert_int_eq(gfn_cache_refresh(&cache, LEN), GFN_CACHE_NO_FRAME);
}
END_TEST

/* ---- who must see it ---- */

static gpa_t seen_gpa;
static uint64_t seen_value;

static bool on_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    seen_gpa = gpa;
    memcpy(&seen_value, bytes, len);
    return true;
}

START_TEST(write_through_a_cache_is_seen_by_tracking_and_by_the_shadow)
{
    struct track_listener l = {.write = on_write, .kind = TRACK_WATCH};
    track_register(r->mem, &l);
    track_add(r->mem, 0, PAGE >> PAGE_SHIFT, TRACK_WATCH);
    activate(PAGE + 0x20);
    uint64_t *p = gfn_cache_begin(&cache, LEN);
    p[1] = 0x1234;
    gfn_cache_end(&cache, 8, 8);
    ck_assert_uint_eq(seen_gpa, PAGE + 0x28);
    ck_assert_uint_eq(seen_value, 0x1234);
    track_remove(r->mem, 0, PAGE >> PAGE_SHIFT, TRACK_WATCH);
    track_unregister(r->mem, &l);

    rig_map(r, 0x40000000, 0x10000, PTE_ALL);
    rig_long_mode(r, 0x1000);
    rig_expect(r, 0x40000000, ACCESS_READ, 0x10000);
    activate(0x4000); /* the page table */
    put(0x11000 | PTE_ALL);
    rig_expect(r, 0x40000000, ACCESS_READ, 0x11000);
}
END_TEST

START_TEST(dirty_log_has_what_was_written_through_a_cache)
{
    uint64_t bits[RAM / PAGE_SIZE / 64] = {0};
    activate(PAGE);
    ck_assert_int_eq(mem_dirty_log_start(r->mem, 0, 0, DIRTY_WRITE_PROTECT), 0);
    put(1);
    mem_dirty_log_get_and_clear(r->mem, 0, 0, bits);
    ck_assert_uint_eq(bits[0], 1u << (PAGE >> PAGE_SHIFT));
}
END_TEST

START_TEST(aging_finds_out_whether_the_cache_was_used)
{
    activate(PAGE);
    put(1);
    ck_assert(notify_test_young(r->mm, hva(PAGE)));
    ck_assert(notify_clear_young(r->mm, hva(PAGE), hva(PAGE) + PAGE_SIZE));
    ck_assert(!notify_test_young(r->mm, hva(PAGE)));
    ck_assert(is_good()); /* which is a use */
    ck_assert(notify_clear_flush_young(r->mm, hva(PAGE), hva(PAGE) + PAGE_SIZE));
    ck_assert(!notify_clear_young(r->mm, hva(PAGE), hva(PAGE) + PAGE_SIZE));
}
END_TEST

/* ---- who waits, who does not ---- */

static struct notify_range page_range(gpa_t gpa)
{
    return (struct notify_range){
        .mm = r->mm, .start = hva(gpa), .end = hva(gpa) + PAGE_SIZE, .flags = NOTIFY_BLOCKABLE};
}

static uint64_t faults_of_host(void)
{
    return host_mm_counters(r->mm)->faults;
}

START_TEST(atomic_user_gets_nothing_from_an_invalid_cache_and_asks_nobody)
{
    activate(PAGE);
    put(1);
    ck_assert_int_eq(host_mm_swap_out(r->mm, hva(PAGE)), HOST_OK);
    uint64_t faults = faults_of_host();
    ck_assert_ptr_null(gfn_cache_begin_atomic(&cache, LEN));
    ck_assert_uint_eq(faults_of_host(), faults);
    ck_assert_int_eq(host_mm_peek(r->mm, hva(PAGE)).state, HPTE_SWAPPED);
    ck_assert_int_eq(gfn_cache_refresh(&cache, LEN), GFN_CACHE_OK);
    ck_assert(is_good());
}
END_TEST

static bool atomic_answer;

static void *ask_atomically(void *arg)
{
    void *p = gfn_cache_begin_atomic(&cache, LEN);
    atomic_answer = p != NULL;
    if (p)
        gfn_cache_end(&cache, 0, 0);
    return NULL;
}

START_TEST(atomic_user_does_not_wait_for_a_change_that_is_being_made)
{
    pthread_t t;
    activate(PAGE);
    pthread_rwlock_wrlock(&cache.lock);
    pthread_create(&t, NULL, ask_atomically, NULL);
    pthread_join(t, NULL);
    ck_assert(!atomic_answer);
    pthread_rwlock_unlock(&cache.lock);
    ask_atomically(NULL);
    ck_assert(atomic_answer);
}
END_TEST

static bool refreshed; /* atomic */

static void *refresh_in_a_thread(void *arg)
{
    ck_assert_int_eq(gfn_cache_refresh(&cache, LEN), GFN_CACHE_OK);
    __atomic_store_n(&refreshed, true, __ATOMIC_RELEASE);
    return NULL;
}

START_TEST(refresh_waits_for_the_end_of_an_invalidation_of_its_page_and_of_no_other)
{
    pthread_t t;
    struct notify_range mine = page_range(PAGE), other = page_range(0x9000);
    activate(PAGE);
    notify_invalidate_range_start(&other);
    gfn_cache_unmap(&cache);
    refresh_in_a_thread(NULL); /* at once */
    refreshed = false;
    notify_invalidate_range_end(&other);

    notify_invalidate_range_start(&mine);
    ck_assert(!is_good());
    pthread_create(&t, NULL, refresh_in_a_thread, NULL);
    while (!gfn_caches_counters(r->mem).waits)
        usleep(100);
    usleep(2000);
    ck_assert(!__atomic_load_n(&refreshed, __ATOMIC_ACQUIRE));
    notify_invalidate_range_end(&mine);
    pthread_join(t, NULL);
    ck_assert(refreshed && is_good());
}
END_TEST

static bool invalidated; /* atomic */

static void *invalidate_in_a_thread(void *arg)
{
    struct notify_range range = page_range(PAGE);
    notify_invalidate_range_start(&range);
    __atomic_store_n(&invalidated, true, __ATOMIC_RELEASE);
    notify_invalidate_range_end(&range);
    return NULL;
}

START_TEST(invalidation_waits_for_the_end_of_a_use)
{
    pthread_t t;
    activate(PAGE);
    uint64_t *p = gfn_cache_begin(&cache, LEN);
    pthread_create(&t, NULL, invalidate_in_a_thread, NULL);
    usleep(5000);
    ck_assert(!__atomic_load_n(&invalidated, __ATOMIC_ACQUIRE));
    *p = 1;
    gfn_cache_end(&cache, 0, 8);
    pthread_join(t, NULL);
    ck_assert(invalidated && !is_good());
}
END_TEST

START_TEST(frame_that_is_taken_back_between_gup_and_taking_over_is_not_used)
{
    struct rig_taker t;
    rig_taker_begin(&t, r, 2);
    activate(PAGE);
    ck_assert_uint_eq(t.left, 0);
    ck_assert_uint_eq(gfn_caches_counters(r->mem).retries, 2);
    put(9);
    ck_assert_uint_eq(rig_get(r, PAGE), 9);
    rig_taker_end(&t);
}
END_TEST

/* ---- races ---- */

#define USERS 3
/* KSM takes a checksum of a page before it write-protects and compares it; a thread sanitizer sees only the first. */
#ifdef __SANITIZE_THREAD__
#define RACE_OPS "swap+cow+migrate+mprotect+huge+age"
#else
#define RACE_OPS "swap+ksm+cow+migrate+mprotect+huge+age"
#endif
#define EVENTS 3000
#define EVENTS_MAX                                                                                                     \
    300000 /* on a busy machine the users sleep through many: then there are more, until enough were met */
#define INVALIDATIONS 100

struct user {
    struct gfn_cache cache;
    bool atomic;
    uint64_t made, missed;
};

static bool host_done; /* atomic */

/* Counts up in the shared word through a cache of its own. */
static void *user_main(void *arg)
{
    struct user *u = arg;
    for (unsigned i = 0; !__atomic_load_n(&host_done, __ATOMIC_ACQUIRE); i++) {
        uint64_t *p = u->atomic ? gfn_cache_begin_atomic(&u->cache, 8) : gfn_cache_begin(&u->cache, 8);
        if (!p) {
            u->missed++;
            if (!(i & 15))
                gfn_cache_refresh(&u->cache, 8); /* its slow path, where it may sleep */
            continue;
        }
        __atomic_fetch_add(p, 1, __ATOMIC_RELAXED);
        u->made++;
        gfn_cache_end(&u->cache, 0, 8);
    }
    return NULL;
}

static void *host_main(void *arg)
{
    struct gfn_cache_counters c = {0};
    unsigned i = 0;
    for (; i < EVENTS || (i < EVENTS_MAX && c.invalidations <= INVALIDATIONS); i++) {
        host_chaos_run_one(arg);
        c = gfn_caches_counters(r->mem);
        if (i >= EVENTS)
            sched_yield();
    }
    __atomic_store_n(&host_done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* Only a few pages, so that events meet the one that matters. */
START_TEST(no_write_is_lost_whatever_the_host_does_meanwhile)
{
    static struct user user[USERS];
    struct host_chaos_config cfg;
    char why[200] = "";
    pthread_t host, thread[USERS];
    uint64_t made = 0;
    ck_assert_msg(host_chaos_parse("seed=3,rate=1000,ops=" RACE_OPS, &cfg, why, sizeof why), "%s", why);
    for (gpa_t gpa = 0; gpa < 8 * PAGE_SIZE; gpa += PAGE_SIZE)
        rig_put(r, gpa, 0);
    struct host_chaos *chaos = host_chaos_create(r->mm, ksm, &cfg);
    memset(user, 0, sizeof user);
    for (unsigned i = 0; i < USERS; i++) {
        gfn_cache_init(&user[i].cache, r->mem);
        user[i].atomic = i == 0;
        ck_assert_int_eq(gfn_cache_activate(&user[i].cache, 0, PAGE, 8), GFN_CACHE_OK);
    }
    pthread_create(&host, NULL, host_main, chaos);
    for (unsigned i = 0; i < USERS; i++)
        pthread_create(&thread[i], NULL, user_main, &user[i]);
    for (unsigned i = 0; i < USERS; i++)
        pthread_join(thread[i], NULL);
    pthread_join(host, NULL);
    for (unsigned i = 0; i < USERS; i++) {
        made += user[i].made;
        gfn_cache_fini(&user[i].cache);
    }
    ck_assert_uint_eq(rig_get(r, PAGE), made);
    ck_assert_uint_eq(user[1].missed + user[2].missed, 0);
    ck_assert_uint_gt(gfn_caches_counters(r->mem).invalidations, INVALIDATIONS);
    host_chaos_destroy(chaos);
}
END_TEST

#endif

static Suite *suite(void)
{
    const TTest *const tests[] = {
        write_after_a_fork_does_not_reach_the_child,
        write_after_a_merge_does_not_reach_the_other_page,
#ifndef UMBRA_GFN_CACHE_RANGE_ONLY
        pointer_is_the_frame_and_stays_good_while_nothing_happens,
        every_change_of_its_host_entry_takes_the_pointer_and_the_next_use_gets_the_frame_of_then,
        slot_that_moves_takes_the_cache_to_what_is_there_then,
        only_ram_within_one_page_can_be_cached,
        page_that_the_host_does_not_let_be_written_gives_no_pointer_until_it_does,
        unmapped_cache_gets_its_frame_again_and_a_deactivated_one_does_not,
        end_of_the_memory_is_the_end_of_the_pointer,
        write_through_a_cache_is_seen_by_tracking_and_by_the_shadow,
        dirty_log_has_what_was_written_through_a_cache,
        aging_finds_out_whether_the_cache_was_used,
        atomic_user_gets_nothing_from_an_invalid_cache_and_asks_nobody,
        atomic_user_does_not_wait_for_a_change_that_is_being_made,
        refresh_waits_for_the_end_of_an_invalidation_of_its_page_and_of_no_other,
        invalidation_waits_for_the_end_of_a_use,
        frame_that_is_taken_back_between_gup_and_taking_over_is_not_used,
        no_write_is_lost_whatever_the_host_does_meanwhile,
#endif
    };
    return suite_of_case("mmu: gfn-to-pfn caches", "caches", tests, ARRAY_LEN(tests), setup, teardown, 120);
}

CHECK_MAIN(suite)
