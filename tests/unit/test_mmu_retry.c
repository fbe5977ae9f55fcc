/*
 * Fault x invalidation x unregistration, in every interleaving.
 *
 * One thread of control plays all parts. A fault calls a hook between its steps (sequence read, guest walk, gup, map),
 * as often as it retries; an invalidation is three steps: start, the change of the host's entry, end. The steps of one
 * or two invalidations, and of an unregistration, are put at every combination of places, and after each step no spte
 * may exist for a page whose invalidation is in flight; at the end everything that is mapped must be what the host
 * has.
 *
 * Built a second time with UMBRA_NO_RETRY, where the retry check is gone: then stale mappings must be found.
 */
#include "core/host/host_ops.h"
#include "mmu/shadow/gpte.h"
#include "mmu_rig.h"

#define GVA    0x40000000ull
#define DATA   0x10000ull
#define TABLE  0x4000ull
#define OTHER  0x11000ull
#define PLACES 7 /* before the fault, and at the first six calls of the hook; later ones happen after it */

enum change { CHANGE_MIGRATE, CHANGE_CONTENT, CHANGE_PROTECT, CHANGES };

struct invalidation {
    gpa_t page;
    enum change change;
    unsigned place[3]; /* of start, change and end, in order */
    unsigned done;     /* steps */
    struct notify_range range;
};

static struct rig rig;
static struct rig *const r = &rig;
static struct invalidation inv[2];
static unsigned inv_count, calls;
static int unregister_at; /* a place, or -1 */
static bool unregistered;
static unsigned long runs, stale;

static struct shadow *sh(void)
{
    return r->mmu->engine;
}

static void found_stale(const char *what)
{
    stale++;
#ifndef UMBRA_NO_RETRY
    ck_abort_msg("run %lu: %s; places %u %u %u, %u %u %u, unregistration %d", runs, what, inv[0].place[0],
                 inv[0].place[1], inv[0].place[2], inv[1].place[0], inv[1].place[1], inv[1].place[2], unregister_at);
#endif
}

static bool in_flight(const struct invalidation *v)
{
    return v->done == 1 || v->done == 2;
}

/* Between start and end there is no spte of the page, nor a shadow page of the table in it. */
static void check_in_flight(void)
{
    for (unsigned i = 0; i < inv_count; i++) {
        gfn_t gfn = inv[i].page >> PAGE_SHIFT;
        const struct spte_list *head = rmap_head(memslot_find(r->mem, 0, gfn), gfn, 1);
        if (!in_flight(&inv[i]))
            continue;
        if (head && !spte_list_is_empty(head))
            found_stale("an spte of a page whose invalidation is in flight");
        sp_for_each_of_gfn(sh(), gfn, sp)
        {
            if (!sp->role.direct)
                found_stale("a shadow page of a table whose invalidation is in flight");
        }
    }
}

static void change(const struct invalidation *v)
{
    hva_t hva = r->hva + v->page;
    switch (v->change) {
    case CHANGE_MIGRATE:
        host_mm_migrate(r->mm, hva);
        break;
    case CHANGE_CONTENT:
        host_mm_dontneed(r->mm, hva, PAGE_SIZE);
        break;
    case CHANGE_PROTECT:
        host_mm_mprotect(r->mm, hva, PAGE_SIZE, HOST_READ);
        break;
    case CHANGES:
        break;
    }
}

static void invalidation_step(struct invalidation *v)
{
    switch (v->done++) {
    case 0:
        v->range = (struct notify_range){
            .mm = r->mm, .start = r->hva + v->page, .end = r->hva + v->page + PAGE_SIZE, .flags = NOTIFY_BLOCKABLE};
        notify_invalidate_range_start(&v->range);
        break;
    case 1:
        change(v);
        break;
    case 2:
        notify_invalidate_range_end(&v->range);
        break;
    }
}

/* Everything that happens at this place. */
static void steps_at(unsigned place)
{
    for (unsigned i = 0; i < inv_count; i++) {
        while (inv[i].done < 3 && inv[i].place[inv[i].done] <= place) {
            invalidation_step(&inv[i]);
            check_in_flight();
        }
    }
    if (unregister_at >= 0 && (unsigned)unregister_at <= place && !unregistered) {
        unregistered = true;
        notifier_unregister(&r->mmu->notifier);
    }
}

static void on_step(void *ctx)
{
    steps_at(++calls);
    check_in_flight();
}

static void machine_open(void)
{
    rig_open(r, &(struct rig_config){.kind = MMU_SHADOW, .ram = 1u << 20, .max_shadow_pages = 16});
    rig_load(r);
}

static void prepare(void)
{
    for (gpa_t at = 0; at < 0x12000; at += PAGE_SIZE)
        host_mm_mprotect(r->mm, r->hva + at, PAGE_SIZE, HOST_READ | HOST_WRITE);
    mmu_zap_all(r->mmu);
    rig_map(r, GVA, DATA, PTE_ALL | PTE_A | PTE_D);
    rig_map(r, GVA + PAGE_SIZE, OTHER, PTE_ALL | PTE_A | PTE_D);
    rig_put(r, DATA, 0x1111);
    rig_put(r, OTHER, 0x2222);
    rig_long_mode(r, 0x1000);
}

/* The mapping that the fault left must show what a fresh look shows. */
static void check_result(void)
{
    struct xlate now;
    uint64_t *mapped = tlb_lookup_read(r->v, GVA, 8);
    bool there = mmu_peek_translate(r->v, GVA, ACCESS_READ, &now) == XLATE_OK;
    if (mapped && !(there && *mapped == rig_get(r, now.gpa)))
        found_stale("a TLB entry that shows what is no longer there");
    if (rig_audit(r, true))
        found_stale(r->report);
}

static void run(unsigned access)
{
    struct xlate x;
    runs++;
    calls = 0;
    unregistered = false;
    prepare();
    for (unsigned i = 0; i < inv_count; i++)
        inv[i].done = 0;
    sh()->step_hook = on_step;
    steps_at(0);
    mmu_translate(r->v, GVA, access, &x);
    sh()->step_hook = NULL;
    check_in_flight();
    steps_at(PLACES + 100); /* what was not reached */
    check_result();
    if (unregistered) { /* whoever is not told any more must not map: the host goes on */
        host_mm_dontneed(r->mm, r->hva + DATA, PAGE_SIZE);
        check_result();
        rig_close(r);
        machine_open();
    }
    r->report[0] = 0;
}

static bool next_places(unsigned place[3])
{
    for (int i = 2; i >= 0; i--) {
        if (place[i] + 1 < PLACES) {
            unsigned p = place[i] + 1;
            for (; i < 3; i++)
                place[i] = p;
            return true;
        }
    }
    return false;
}

static void first_places(unsigned place[3])
{
    place[0] = place[1] = place[2] = 0;
}

static void one_invalidation(gpa_t page, enum change how, unsigned access)
{
    inv_count = 1;
    inv[0] = (struct invalidation){.page = page, .change = how};
    first_places(inv[0].place);
    do
        run(access);
    while (next_places(inv[0].place));
}

static void setup(void)
{
    runs = stale = 0;
    unregister_at = -1;
    machine_open();
}

static void teardown(void)
{
    rig_close(r);
}

#ifdef UMBRA_NO_RETRY

START_TEST(without_the_retry_check_stale_mappings_are_found)
{
    one_invalidation(DATA, CHANGE_MIGRATE, ACCESS_READ);
    ck_assert_uint_gt(stale, 0);
    unsigned long of_migration = stale;
    one_invalidation(DATA, CHANGE_CONTENT, ACCESS_READ);
    ck_assert_uint_gt(stale, of_migration);
}
END_TEST

#else

START_TEST(fault_and_one_invalidation_leave_nothing_stale_in_any_interleaving)
{
    for (enum change how = 0; how < CHANGES; how++) {
        one_invalidation(DATA, how, ACCESS_READ);
        one_invalidation(TABLE, how, ACCESS_READ);
        one_invalidation(DATA, CHANGE_MIGRATE, ACCESS_WRITE);
        one_invalidation(OTHER, how, ACCESS_WRITE);
    }
    ck_assert_uint_eq(runs, 12 * 84);
}
END_TEST

START_TEST(fault_and_two_invalidations_leave_nothing_stale_in_any_interleaving)
{
    static const gpa_t second[] = {DATA, TABLE, OTHER};
    for (unsigned k = 0; k < ARRAY_LEN(second); k++) {
        inv_count = 2;
        inv[0] = (struct invalidation){.page = DATA, .change = CHANGE_MIGRATE};
        inv[1] = (struct invalidation){.page = second[k], .change = CHANGE_CONTENT};
        first_places(inv[0].place);
        do {
            first_places(inv[1].place);
            do
                run(ACCESS_READ);
            while (next_places(inv[1].place));
        } while (next_places(inv[0].place));
    }
    ck_assert_uint_eq(runs, 3 * 84 * 84);
}
END_TEST

START_TEST(fault_that_is_overtaken_by_an_unregistration_maps_nothing)
{
    for (unregister_at = 0; unregister_at < PLACES; unregister_at++) {
        one_invalidation(DATA, CHANGE_MIGRATE, ACCESS_READ);
        one_invalidation(OTHER, CHANGE_CONTENT, ACCESS_WRITE);
    }
    ck_assert_uint_eq(runs, PLACES * 2 * 84);
}
END_TEST

START_TEST(invalidation_elsewhere_does_not_delay_a_fault)
{
    inv_count = 1;
    inv[0] = (struct invalidation){.page = OTHER, .change = CHANGES, .place = {1, 100, 100}};
    uint64_t retries = r->mmu->stats.retries;
    run(ACCESS_READ);
    ck_assert_uint_eq(r->mmu->stats.retries, retries); /* in flight all the time, but of another page */
}
END_TEST

#endif

static Suite *suite(void)
{
    Suite *s = suite_create("retry");
    TCase *t = tcase_create("retry");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 240);
#ifdef UMBRA_NO_RETRY
    tcase_add_test(t, without_the_retry_check_stale_mappings_are_found);
#else
    tcase_add_test(t, fault_and_one_invalidation_leave_nothing_stale_in_any_interleaving);
    tcase_add_test(t, fault_and_two_invalidations_leave_nothing_stale_in_any_interleaving);
    tcase_add_test(t, fault_that_is_overtaken_by_an_unregistration_maps_nothing);
    tcase_add_test(t, invalidation_elsewhere_does_not_delay_a_fault);
#endif
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
