/* Seeded host events, and the whole host side against a copy: whatever the host does, content stays. */
#include "core/host/chaos.h"

#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "core/stats.h"
#include "tests/unit/host_rig.h"

#define PAGES 1200 /* two and a third huge pages */

/* A subscriber that maps pages as an MMU does, and is held against the host after each operation. */
struct mapper {
    struct notifier notifier;
    hva_t base;
    unsigned running; /* ranges between start and end */
    struct {
        pfn_t pfn;
        bool valid, writable;
    } page[PAGES];
};

static struct swap_store *store;
static struct host_mm *mm;
static hva_t area;
static struct mapper mapper;
static uint8_t (*copy)[PAGE_SIZE];

static void drop(struct mapper *m, hva_t start, hva_t end)
{
    for (unsigned i = 0; i < PAGES; i++)
        if (m->base + i * PAGE_SIZE >= start && m->base + i * PAGE_SIZE < end)
            m->page[i].valid = false;
}

static int map_start(struct notifier *n, const struct notify_range *r)
{
    struct mapper *m = container_of(n, struct mapper, notifier);
    m->running++;
    drop(m, r->start, r->end);
    return 0;
}

static void map_end(struct notifier *n, const struct notify_range *r)
{
    container_of(n, struct mapper, notifier)->running--;
}

static void map_change(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct mapper *m = container_of(n, struct mapper, notifier);
    ck_assert_uint_eq(m->running, 0); /* outside start and end: else it would be no use */
    ck_assert(!hpte.writable);
    size_t i = (hva - m->base) >> PAGE_SHIFT;
    if (i < PAGES) {
        m->page[i].pfn = hpte.pfn;
        m->page[i].writable = false;
    }
}

static const struct notifier_ops mapper_ops = {
    .invalidate_range_start = map_start, .invalidate_range_end = map_end, .change_pte = map_change};

static struct swap_store *make_store(void)
{
    char err[200];
    struct swap_config cfg = {.memory_bytes = 32 << 20};
    return swap_store_create(&cfg, err, sizeof err);
}

static void setup(void)
{
    rig_setup();
    store = make_store();
    mm = host_mm_create(rig.pool);
    host_mm_set_swap(mm, store);
    area = host_mm_mmap_anon(mm, PAGES * PAGE_SIZE, HOST_READ | HOST_WRITE);
    memset(&mapper, 0, sizeof mapper);
    mapper.base = area;
    notifier_register(&mapper.notifier, mm, &mapper_ops);
    copy = calloc(PAGES, PAGE_SIZE);
}

static void teardown(void)
{
    notifier_unregister(&mapper.notifier);
    host_mm_destroy(mm);
    ck_assert_uint_eq(swap_store_counters(store)->slots, 0);
    swap_store_put(store);
    rig_teardown();
    free(copy);
}

/* Access through the mapper: what it maps is used as it is. */
static uint8_t *access_page(unsigned i, bool write)
{
    if (!mapper.page[i].valid || (write && !mapper.page[i].writable)) {
        ck_assert_int_eq(host_mm_gup(mm, area + i * PAGE_SIZE, write, &rig.got), 0);
        mapper.page[i].valid = true;
        mapper.page[i].pfn = rig.got.pfn;
        mapper.page[i].writable = rig.got.writable;
    }
    return frame_pool_ptr(rig.pool, mapper.page[i].pfn);
}

static void guest_step(uint64_t *r)
{
    unsigned i = next_random(r) % PAGES;
    size_t at = next_random(r) % (PAGE_SIZE - 8);
    if (next_random(r) & 1) {
        uint64_t v = next_random(r) & 3 ? next_random(r) : 0; /* zeros too: pages that merge and fill */
        size_t len = v ? 8 : PAGE_SIZE - at;
        uint8_t *p = access_page(i, true);
        if (v)
            memcpy(p + at, &v, len);
        else
            memset(p + at, 0, len);
        memcpy(copy[i] + at, p + at, len);
    } else {
        ck_assert_mem_eq(access_page(i, false), copy[i], PAGE_SIZE);
    }
}

/* No page of the mapper is older than the host's, or permits more. */
static void audit(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        if (!mapper.page[i].valid)
            continue;
        struct hpte_info info = host_mm_peek(mm, area + i * PAGE_SIZE);
        ck_assert(info.state == HPTE_PRESENT || info.state == HPTE_ZERO);
        ck_assert_uint_eq(info.pfn, mapper.page[i].pfn);
        ck_assert(info.writable || !mapper.page[i].writable);
        ck_assert(!info.writable || frame_pool_refs(rig.pool, info.pfn) == 1);
    }
}

/* A huge page is one mapping: its words are alike, over one aligned run. */
static void audit_huge(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        struct hpte_info info = host_mm_peek(mm, area + i * PAGE_SIZE);
        struct hpte_info first = host_mm_peek(mm, area + i / 512 * 512 * PAGE_SIZE);
        ck_assert_int_eq(info.level > 1 && i<1024, first.level> 1 && i < 1024);
        if (info.level == 1)
            continue;
        ck_assert_uint_eq(first.pfn % 512, 0);
        ck_assert_uint_eq(info.pfn, first.pfn + i % 512);
        ck_assert_int_eq(info.writable, first.writable);
        ck_assert(info.readable);
        ck_assert(!info.writable || (info.dirty && host_mm_is_soft_dirty(mm, area + i * PAGE_SIZE)));
    }
}

static void content_is_copy(struct host_mm *of, uint8_t (*want)[PAGE_SIZE])
{
    uint8_t is[PAGE_SIZE];
    for (unsigned i = 0; i < PAGES; i++) {
        ck_assert_int_eq(host_mm_peek_read(of, area + i * PAGE_SIZE, is), HOST_OK);
        ck_assert_mem_eq(is, want[i], PAGE_SIZE);
    }
}

/* ---- everything at once ---- */

struct child {
    struct host_mm *mm;
    uint8_t (*copy)[PAGE_SIZE];
};

static void child_step(struct child *c, uint64_t *r)
{
    if (!c->mm) {
        c->mm = host_mm_fork(mm);
        c->copy = calloc(PAGES, PAGE_SIZE);
        memcpy(c->copy, copy, PAGES * PAGE_SIZE);
    } else if (next_random(r) % 4 == 0) {
        content_is_copy(c->mm, c->copy);
        host_mm_destroy(c->mm);
        free(c->copy);
        c->mm = NULL;
    }
}

static void child_write(struct child *c, uint64_t *r)
{
    unsigned i = next_random(r) % PAGES;
    if (!c->mm)
        return;
    ck_assert_int_eq(host_mm_gup(c->mm, area + i * PAGE_SIZE, true, &rig.got), 0);
    ck_assert_mem_eq(rig.got.ptr, c->copy[i], PAGE_SIZE);
    memset(rig.got.ptr, (int)next_random(r), 100);
    memcpy(c->copy[i], rig.got.ptr, PAGE_SIZE);
    if (next_random(r) % 4 == 0)
        host_mm_swap_out(c->mm, area + i * PAGE_SIZE);
}

static void host_step(struct ksm *ksm, struct child *children, uint64_t *r)
{
    unsigned i = next_random(r) % PAGES, n = 1 + next_random(r) % 40;
    hva_t hva = area + i * PAGE_SIZE;
    n = n > PAGES - i ? PAGES - i : n;
    switch (next_random(r) % 16) {
    case 0 ... 2:
        host_mm_swap_out(mm, hva);
        break;
    case 3:
        host_mm_swap_in(mm, hva);
        break;
    case 4:
        ksm_scan(ksm, n);
        break;
    case 5:
        ksm_merge(ksm, mm, hva, mm, area + next_random(r) % PAGES * PAGE_SIZE);
        break;
    case 6:
        host_mm_migrate(mm, hva);
        break;
    case 7:
        host_mm_mprotect(mm, hva, n * PAGE_SIZE, HOST_READ);
        host_mm_mprotect(mm, hva, n * PAGE_SIZE, HOST_READ | HOST_WRITE);
        break;
    case 8:
        host_mm_age(mm, n);
        host_mm_reclaim(mm, n / 8, NULL);
        break;
    case 9:
        if (next_random(r) % 16 == 0)
            host_mm_collapse(mm, hva);
        break;
    case 10:
        host_mm_split(mm, hva);
        break;
    case 11:
        host_mm_soft_dirty_clear(mm, hva, n * PAGE_SIZE);
        break;
    case 12:
        if (next_random(r) % 32 == 0)
            child_step(&children[next_random(r) % 2], r);
        break;
    case 13:
        ck_assert_int_eq(host_mm_dontneed(mm, hva, PAGE_SIZE), 0);
        memset(copy[i], 0, PAGE_SIZE);
        break;
    case 14:
        child_write(&children[next_random(r) % 2], r);
        break;
    default:
        if (next_random(r) % 8 == 0)
            ksm_unmerge(mm, hva, n * PAGE_SIZE);
        else
            host_mm_compact(mm, n);
    }
}

START_TEST(a_hundred_thousand_random_operations_keep_content_and_mappings_true)
{
    struct child children[2] = {{0}};
    struct ksm *ksm = ksm_create(rig.pool);
    ksm_add(ksm, mm);
    host_mm_set_mergeable(mm, area, PAGES * PAGE_SIZE, true);
    host_mm_set_huge_faults(mm, 2);
    uint64_t r = 0x9e3779b97f4a7c15ull;
    for (unsigned step = 0; step < 100000; step++) {
        if (next_random(&r) % 3)
            guest_step(&r);
        else
            host_step(ksm, children, &r);
        if (step % 64 == 0) {
            audit();
            audit_huge();
        }
        if (step % 10000 == 0)
            content_is_copy(mm, copy);
    }
    content_is_copy(mm, copy);
    const struct host_mm_counters *c = host_mm_counters(mm);
    ck_assert_uint_gt(c->swap_ins, 1000);
    ck_assert_uint_gt(c->cow_breaks, 100);
    ck_assert_uint_gt(c->ksm_merges + c->ksm_zeros, 20);
    ck_assert_uint_gt(c->migrations, 500);
    ck_assert_uint_gt(c->collapses, 5);
    ck_assert_uint_gt(c->splits, 5);
    ck_assert_uint_gt(c->forks, 3);
    ck_assert_uint_gt(c->soft_clears, 500);
    for (unsigned i = 0; i < 2; i++) {
        if (!children[i].mm)
            continue;
        content_is_copy(children[i].mm, children[i].copy);
        host_mm_destroy(children[i].mm);
        free(children[i].copy);
    }
    ksm_destroy(ksm);
}
END_TEST

/* ---- chaos ---- */

static struct host_chaos_config config(const char *text)
{
    char err[300];
    struct host_chaos_config cfg;
    ck_assert_msg(host_chaos_parse(text, &cfg, err, sizeof err), "%s", err);
    return cfg;
}

START_TEST(the_guest_does_not_notice_ten_thousand_events)
{
    struct host_chaos_config cfg = config("seed=7,ops=all");
    struct host_chaos *c = host_chaos_create(mm, NULL, &cfg);
    uint64_t r = 4711;
    host_chaos_balloon(c, area + 1100 * PAGE_SIZE, 100 * PAGE_SIZE, true);
    for (unsigned step = 0; step < 30000; step++) {
        guest_step(&r);
        if (step % 3)
            continue;
        if (host_chaos_run_one(c) == CHAOS_DONTNEED)
            for (unsigned i = 1100; i < PAGES; i++)
                if (host_mm_peek(mm, area + i * PAGE_SIZE).state == HPTE_NONE)
                    memset(copy[i], 0, PAGE_SIZE); /* its own fault: it gave them away */
        audit();
        if (step % 30 == 0)
            audit_huge();
    }
    content_is_copy(mm, copy);
    ck_assert_uint_eq(host_chaos_events(c), 10000);
    for (unsigned op = 0; op < CHAOS_OP_COUNT; op++)
        ck_assert_msg(host_chaos_effects(c, (enum host_chaos_op)op) > 10, "%s had no effect",
                      host_chaos_op_name((enum host_chaos_op)op));
    ck_assert_uint_gt(host_mm_counters(mm)->cow_breaks, 10);
    host_chaos_destroy(c);
}
END_TEST

START_TEST(the_same_seed_does_the_same)
{
    static uint64_t trail[3][2000];
    static struct host_mm_counters counters[3];
    for (unsigned run = 0; run < 3; run++) {
        if (run) {
            teardown();
            setup();
        }
        struct host_chaos_config cfg = config(run < 2 ? "seed=42" : "seed=43");
        struct host_chaos *c = host_chaos_create(mm, NULL, &cfg);
        uint64_t r = 1;
        for (unsigned i = 0; i < 2000; i++) {
            guest_step(&r);
            trail[run][i] = host_chaos_run_one(c) | host_mm_resident(mm) << 8 | frame_pool_used(rig.pool) << 24 |
                            host_chaos_next(c) << 40;
        }
        counters[run] = *host_mm_counters(mm);
        host_chaos_destroy(c);
    }
    ck_assert_mem_eq(trail[0], trail[1], sizeof trail[0]);
    ck_assert_mem_eq(&counters[0], &counters[1], sizeof counters[0]);
    ck_assert_mem_ne(trail[0], trail[2], sizeof trail[0]);
}
END_TEST

START_TEST(events_come_at_the_rate_of_virtual_time_that_was_asked_for)
{
    struct host_chaos_config cfg = config("seed=3,rate=2000,ops=age");
    struct host_chaos *c = host_chaos_create(mm, NULL, &cfg);
    ck_assert_uint_gt(host_chaos_next(c), 0);
    ck_assert_uint_eq(host_chaos_run_until(c, host_chaos_next(c) - 1), 0);
    ck_assert_uint_eq(host_chaos_run_until(c, host_chaos_next(c)), 1);
    for (uint64_t now = 0; now <= 5000000000ull; now += 20000)
        host_chaos_run_until(c, now);
    ck_assert_uint_gt(host_chaos_events(c), 9700);
    ck_assert_uint_lt(host_chaos_events(c), 10300);
    host_chaos_destroy(c);
}
END_TEST

START_TEST(only_the_operations_that_were_asked_for_happen)
{
    struct host_chaos_config cfg = config("ops=swap+migrate");
    struct host_chaos *c = host_chaos_create(mm, NULL, &cfg);
    uint64_t r = 5;
    for (unsigned i = 0; i < 500; i++) {
        guest_step(&r);
        enum host_chaos_op op = host_chaos_run_one(c);
        ck_assert(op == CHAOS_SWAP || op == CHAOS_MIGRATE);
    }
    ck_assert_uint_gt(host_mm_counters(mm)->swap_outs, 50);
    ck_assert_uint_eq(host_mm_counters(mm)->forks, 0);
    host_chaos_destroy(c);
}
END_TEST

START_TEST(events_on_an_empty_memory_are_harmless)
{
    struct host_mm *empty = host_mm_create(rig.pool);
    struct host_chaos_config cfg = config("");
    struct host_chaos *c = host_chaos_create(empty, NULL, &cfg);
    for (unsigned i = 0; i < 1000; i++)
        host_chaos_run_one(c);
    host_chaos_destroy(c);
    host_mm_destroy(empty);
}
END_TEST

START_TEST(dontneed_takes_ballooned_pages_only_and_no_more_once_they_are_wanted_again)
{
    struct host_chaos_config cfg = config("ops=dontneed");
    struct host_chaos *c = host_chaos_create(mm, NULL, &cfg);
    for (unsigned i = 0; i < 100; i++)
        fill_bytes(access_page(i, true), i);
    for (unsigned i = 0; i < 100; i++)
        host_chaos_run_one(c);
    ck_assert_uint_eq(host_mm_resident(mm), 100);
    host_chaos_balloon(c, area + 10 * PAGE_SIZE, 20 * PAGE_SIZE, true);
    host_chaos_balloon(c, area + 15 * PAGE_SIZE, 5 * PAGE_SIZE, false);
    for (unsigned i = 0; i < 200; i++)
        host_chaos_run_one(c);
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(host_mm_peek(mm, area + i * PAGE_SIZE).state == HPTE_NONE,
                         i >= 10 && i < 30 && !(i >= 15 && i < 20));
    host_chaos_destroy(c);
}
END_TEST

START_TEST(what_is_not_given_has_a_default_and_numbers_may_be_hexadecimal)
{
    struct host_chaos_config cfg = config("");
    ck_assert_uint_eq(cfg.seed, 1);
    ck_assert_uint_eq(cfg.rate, 1000);
    ck_assert_uint_eq(cfg.ops, CHAOS_ALL);
    ck_assert(!cfg.async);
    cfg = config("rate=5000,seed=0x10,async=on,ops=swap+ksm+cow");
    ck_assert_uint_eq(cfg.seed, 16);
    ck_assert_uint_eq(cfg.rate, 5000);
    ck_assert_uint_eq(cfg.ops, 1u << CHAOS_SWAP | 1u << CHAOS_KSM | 1u << CHAOS_COW);
    ck_assert(cfg.async);
}
END_TEST

START_TEST(wrong_words_are_named)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"seed=x", "seed=x is not a number"},
        {"seed=", "seed="},
        {"seed=99999999999999999999999", "is not a number"},
        {"rate=0", "rate=0"},
        {"rate=2000000", "1 to 1000000"},
        {"rate=-5", "rate=-5"},
        {"ops=swap+melt",
         "unknown host event \"melt\": known are all, swap, ksm, cow, migrate, mprotect, huge, age, dontneed"},
        {"ops=", "unknown host event \"\""},
        {"ops=swap+", "unknown host event \"\""},
        {"speed=9", "unknown word \"speed\": known are seed=, rate=, ops= and async="},
        {"seed", "seed= is not a number"},
        {"async=maybe", "neither on nor off"},
        {"seed=1,seed=2", "seed= is given twice"},
        {"seed=1,,rate=5", "unknown word \"\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char err[300] = "";
        struct host_chaos_config cfg = {.seed = 77};
        ck_assert_msg(!host_chaos_parse(bad[i].text, &cfg, err, sizeof err), "%s is taken", bad[i].text);
        ck_assert_msg(strstr(err, bad[i].says) != NULL, "%s: %s", bad[i].text, err);
        ck_assert_uint_eq(cfg.seed, 77);
    }
}
END_TEST

START_TEST(counters_are_registered_by_name)
{
    struct stats stats;
    stats_init(&stats);
    struct host_chaos_config cfg = config("");
    struct host_chaos *c = host_chaos_create(mm, NULL, &cfg);
    host_chaos_add_stats(c, &stats);
    host_chaos_run_one(c);
    bool found;
    ck_assert_uint_eq(stats_get(&stats, "chaos.events", &found), 1);
    stats_get(&stats, "chaos.migrate", &found);
    ck_assert(found);
    host_chaos_destroy(c);
    stats_fini(&stats);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/host/chaos");
    TCase *t = tcase_create("chaos");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_hundred_thousand_random_operations_keep_content_and_mappings_true);
    tcase_add_test(t, the_guest_does_not_notice_ten_thousand_events);
    tcase_add_test(t, the_same_seed_does_the_same);
    tcase_add_test(t, events_come_at_the_rate_of_virtual_time_that_was_asked_for);
    tcase_add_test(t, only_the_operations_that_were_asked_for_happen);
    tcase_add_test(t, events_on_an_empty_memory_are_harmless);
    tcase_add_test(t, dontneed_takes_ballooned_pages_only_and_no_more_once_they_are_wanted_again);
    tcase_add_test(t, what_is_not_given_has_a_default_and_numbers_may_be_hexadecimal);
    tcase_add_test(t, wrong_words_are_named);
    tcase_add_test(t, counters_are_registered_by_name);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
