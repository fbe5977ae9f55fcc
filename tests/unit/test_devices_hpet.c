/*
 * The HPET: counter, one-shot and periodic matches, 32-bit mode, VAL_SET, level and edge, legacy replacement, and state
 * that goes on after a load.
 */
#include "devices_rig.h"

#include "devices/hpet.h"

#define CAPABILITIES  0x000
#define CONFIG        0x010
#define STATUS        0x020
#define COUNTER       0x0f0
#define T_CONFIG(n)   (0x100u + 0x20u * (n))
#define COMPARATOR(n) (0x108u + 0x20u * (n))

#define LEVEL     0x002u
#define INTERRUPT 0x004u
#define PERIODIC  0x008u
#define VAL_SET   0x040u
#define MODE_32   0x100u
#define ROUTE(p)  ((p) << 9)

#define TICK 10 /* ns */

struct rig {
    struct vclock clock;
    struct hpet hpet;
    struct wire isa[2], pin[24];
};

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof *g);
    clock_init(&g->clock);
    hpet_init(&g->hpet, &(struct hpet_config){.clock = &g->clock,
                                              .irq0 = wire_line(g->isa, 0),
                                              .irq8 = wire_line(g->isa, 1),
                                              .ioapic = wire_line(g->pin, 0)});
}

static void out(struct rig *g, unsigned reg, uint64_t v)
{
    reg_write(&hpet_bus_ops, &g->hpet, reg, 8, v);
}

static uint64_t in(struct rig *g, unsigned reg)
{
    return reg_read(&hpet_bus_ops, &g->hpet, reg, 8);
}

static void run_ticks(struct rig *g, uint64_t n)
{
    run_for(&g->clock, n * TICK);
}

/* A one-shot timer on that pin, and the counter running. */
static void one_shot(struct rig *g, unsigned n, unsigned pin, uint32_t flags, uint64_t comparator)
{
    out(g, T_CONFIG(n), INTERRUPT | ROUTE(pin) | flags);
    out(g, COMPARATOR(n), comparator);
    out(g, CONFIG, 1);
}

START_TEST(capabilities_say_what_is_there)
{
    struct rig g;
    rig_init(&g);
    uint64_t c = in(&g, CAPABILITIES);
    ck_assert_uint_eq(c >> 32, 10000000); /* fs */
    ck_assert_uint_eq(c & 0xff, 1);
    ck_assert_uint_eq(c >> 8 & 0x1f, 2); /* the last timer */
    ck_assert_uint_eq(c >> 13 & 7, 5);   /* 64 bits, legacy replacement */
    for (unsigned n = 0; n < 3; n++) {
        uint64_t t = in(&g, T_CONFIG(n));
        ck_assert_uint_eq(t >> 32, 0xf00000);
        ck_assert_uint_eq(t & 0x8000, 0); /* no messages */
        ck_assert_uint_eq(t >> 4 & 3, n ? 2 : 3);
        ck_assert_uint_eq(in(&g, COMPARATOR(n)), UINT64_MAX);
    }
    out(&g, T_CONFIG(1), PERIODIC | 0x4000 | LEVEL);
    ck_assert_uint_eq(in(&g, T_CONFIG(1)) & 0x400f, LEVEL);
    ck_assert_uint_eq(reg_read(&hpet_bus_ops, &g.hpet, CAPABILITIES + 4, 4), 10000000);
}
END_TEST

START_TEST(counter_runs_while_enabled_and_keeps_its_value)
{
    struct rig g;
    rig_init(&g);
    run_ticks(&g, 100);
    ck_assert_uint_eq(in(&g, COUNTER), 0);
    out(&g, COUNTER, 0xfffffff0);
    out(&g, CONFIG, 1);
    run_ticks(&g, 0x20);
    ck_assert_uint_eq(in(&g, COUNTER), 0x100000010);
    ck_assert_uint_eq(reg_read(&hpet_bus_ops, &g.hpet, COUNTER, 4), 0x10);
    ck_assert_uint_eq(reg_read(&hpet_bus_ops, &g.hpet, COUNTER + 4, 4), 1);
    out(&g, COUNTER, 5); /* not while it runs */
    ck_assert_uint_eq(in(&g, COUNTER), 0x100000010);
    out(&g, CONFIG, 0);
    run_ticks(&g, 1000);
    ck_assert_uint_eq(in(&g, COUNTER), 0x100000010);
    reg_write(&hpet_bus_ops, &g.hpet, COUNTER + 4, 4, 7);
    ck_assert_uint_eq(in(&g, COUNTER), 0x700000010);
}
END_TEST

START_TEST(one_shot_matches_once_at_its_tick)
{
    struct rig g;
    rig_init(&g);
    one_shot(&g, 1, 21, 0, 500);
    run_ticks(&g, 499);
    ck_assert_uint_eq(g.pin[21].rises, 0);
    run_ticks(&g, 1);
    ck_assert_uint_eq(g.pin[21].rises, 1);
    ck_assert(!g.pin[21].level);
    ck_assert_uint_eq(in(&g, STATUS), 0); /* edge: no status */
    run_ticks(&g, 10ull << 32);
    ck_assert_uint_eq(g.pin[21].rises, 1); /* 64 bits come round in 5,800 years */
    out(&g, COMPARATOR(1), 100);           /* has gone by */
    run_ticks(&g, 1 << 20);
    ck_assert_uint_eq(g.pin[21].rises, 1);
}
END_TEST

START_TEST(one_shot_of_32_bits_matches_at_each_wrap)
{
    struct rig g;
    rig_init(&g);
    out(&g, COUNTER, 0x1fffffff0);
    one_shot(&g, 2, 23, MODE_32, 0xdead00000010);
    ck_assert_uint_eq(in(&g, COMPARATOR(2)), 0x10);
    run_ticks(&g, 0x20);
    ck_assert_uint_eq(g.pin[23].rises, 1);
    run_ticks(&g, (1ull << 32) - 1);
    ck_assert_uint_eq(g.pin[23].rises, 1);
    run_ticks(&g, 1);
    ck_assert_uint_eq(g.pin[23].rises, 2);
}
END_TEST

START_TEST(periodic_timer_moves_its_comparator_on)
{
    struct rig g;
    rig_init(&g);
    out(&g, T_CONFIG(0), INTERRUPT | PERIODIC | VAL_SET | ROUTE(20u));
    out(&g, COMPARATOR(0), 1000); /* first match and period */
    out(&g, CONFIG, 1);
    run_ticks(&g, 1000);
    ck_assert_uint_eq(g.pin[20].rises, 1);
    ck_assert_uint_eq(in(&g, COMPARATOR(0)), 2000);
    run_ticks(&g, 3500);
    ck_assert_uint_eq(g.pin[20].rises, 4);
    ck_assert_uint_eq(in(&g, COMPARATOR(0)), 5000);
    out(&g, COMPARATOR(0), 300); /* without VAL_SET: the next match stays, the period is new */
    ck_assert_uint_eq(in(&g, COMPARATOR(0)), 5000);
    run_ticks(&g, 500);
    ck_assert_uint_eq(g.pin[20].rises, 5);
    ck_assert_uint_eq(in(&g, COMPARATOR(0)), 5300);
    run_ticks(&g, 300);
    ck_assert_uint_eq(g.pin[20].rises, 6);
    ck_assert_uint_eq(in(&g, T_CONFIG(0)) & VAL_SET, 0);
}
END_TEST

/* As Linux does: VAL_SET, the first match, then the period, in 32 bits. */
START_TEST(val_set_lasts_for_one_write)
{
    struct rig g;
    rig_init(&g);
    out(&g, CONFIG, 1);
    run_ticks(&g, 0x1fffffff0);
    reg_write(&hpet_bus_ops, &g.hpet, T_CONFIG(0), 4, INTERRUPT | PERIODIC | VAL_SET | MODE_32 | ROUTE(20u));
    reg_write(&hpet_bus_ops, &g.hpet, COMPARATOR(0), 4, 0x100);
    reg_write(&hpet_bus_ops, &g.hpet, COMPARATOR(0), 4, 0x1000);
    run_ticks(&g, 0x110);
    ck_assert_uint_eq(g.pin[20].rises, 1);
    ck_assert_uint_eq(in(&g, COMPARATOR(0)), 0x1100);
    run_ticks(&g, 0x1000);
    ck_assert_uint_eq(g.pin[20].rises, 2);
}
END_TEST

START_TEST(tiny_periods_come_at_most_every_microsecond_and_drift_nowhere)
{
    struct rig g;
    rig_init(&g);
    out(&g, T_CONFIG(0), INTERRUPT | PERIODIC | VAL_SET | ROUTE(20u));
    out(&g, COMPARATOR(0), 7);
    out(&g, CONFIG, 1);
    run_ticks(&g, 100000);
    ck_assert_uint_le(g.pin[20].rises, 100000 / HPET_PERIOD_MIN + 1);
    ck_assert_uint_ge(g.pin[20].rises, 100000 / HPET_PERIOD_MIN / 2);
    ck_assert_uint_eq(in(&g, COMPARATOR(0)) % 7, 0);
}
END_TEST

START_TEST(level_interrupt_holds_its_line_until_the_status_is_cleared)
{
    struct rig g;
    rig_init(&g);
    one_shot(&g, 1, 22, LEVEL, 50);
    one_shot(&g, 2, 22, LEVEL, 60);
    run_ticks(&g, 100);
    ck_assert_uint_eq(in(&g, STATUS), 6);
    ck_assert(g.pin[22].level);
    ck_assert_uint_eq(g.pin[22].rises, 1);
    out(&g, STATUS, 2);
    ck_assert_uint_eq(in(&g, STATUS), 4);
    ck_assert(g.pin[22].level); /* the other one still holds it */
    out(&g, CONFIG, 0);         /* halted: no interrupts, the status stays */
    ck_assert(!g.pin[22].level);
    ck_assert_uint_eq(in(&g, STATUS), 4);
    out(&g, CONFIG, 1);
    ck_assert(g.pin[22].level);
    out(&g, T_CONFIG(2), LEVEL | INTERRUPT | ROUTE(23u));
    ck_assert(!g.pin[22].level && g.pin[23].level);
    reg_write(&hpet_bus_ops, &g.hpet, STATUS, 4, 4);
    ck_assert(!g.pin[23].level);
}
END_TEST

START_TEST(level_status_is_kept_without_an_interrupt_but_not_for_edges)
{
    struct rig g;
    rig_init(&g);
    out(&g, T_CONFIG(1), LEVEL | ROUTE(20u));
    out(&g, COMPARATOR(1), 50);
    out(&g, CONFIG, 1);
    run_ticks(&g, 100);
    ck_assert_uint_eq(in(&g, STATUS), 2);
    ck_assert(!g.pin[20].level);
    out(&g, T_CONFIG(1), LEVEL | INTERRUPT | ROUTE(20u));
    ck_assert(g.pin[20].level);
    out(&g, T_CONFIG(1), INTERRUPT | ROUTE(20u));
    ck_assert(!g.pin[20].level);
    ck_assert_uint_eq(in(&g, STATUS), 0);
}
END_TEST

START_TEST(legacy_replacement_takes_the_lines_and_gives_them_back)
{
    struct rig g;
    rig_init(&g);
    const struct irq_line pit = hpet_pit_line(&g.hpet), rtc = hpet_rtc_line(&g.hpet);
    irq_set(&pit, true);
    ck_assert(g.isa[0].level);
    out(&g, CONFIG, 3);
    ck_assert(!g.isa[0].level);
    irq_set(&rtc, true);
    ck_assert(!g.isa[1].level);
    out(&g, T_CONFIG(0), INTERRUPT | ROUTE(20u));
    out(&g, T_CONFIG(1), INTERRUPT | LEVEL | ROUTE(20u));
    out(&g, COMPARATOR(0), 1000);
    out(&g, COMPARATOR(1), 1000);
    unsigned before = g.isa[0].rises;
    run_ticks(&g, 2000);
    ck_assert_uint_eq(g.isa[0].rises, before + 1);
    ck_assert(g.isa[0].level && g.isa[1].level); /* an 8259 needs the line high until it is acknowledged */
    ck_assert_uint_eq(g.pin[20].rises, 0);
    irq_set(&rtc, false);
    out(&g, CONFIG, 1);
    ck_assert(g.isa[0].level && !g.isa[1].level); /* the 8254's and the RTC's again */
    ck_assert(g.pin[20].level);                   /* timer 1 has its route back */
}
END_TEST

START_TEST(odd_accesses_and_pins_that_do_not_exist_do_nothing)
{
    struct rig g;
    rig_init(&g);
    for (unsigned offset = 0; offset < HPET_BYTES; offset++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            reg_write(&hpet_bus_ops, &g.hpet, offset, size, ~0ull);
            reg_read(&hpet_bus_ops, &g.hpet, offset, size);
        }
    run_ticks(&g, 1 << 20);
    for (unsigned n = 0; n < 20; n++)
        ck_assert_uint_eq(g.pin[n].rises, 0);
}
END_TEST

START_TEST(loaded_hpet_goes_on_at_the_same_tick)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    out(&a, T_CONFIG(0), INTERRUPT | PERIODIC | VAL_SET | ROUTE(20u));
    out(&a, COMPARATOR(0), 1000);
    one_shot(&a, 2, 21, LEVEL, 1200);
    run_ticks(&a, 1500);
    b.pin[21].level = true; /* the controller's own state */
    ROUND_TRIP(&a.clock, &b.clock, hpet_save(&a.hpet, w), hpet_load(&b.hpet, r));
    ck_assert_uint_eq(in(&b, COUNTER), in(&a, COUNTER));
    struct rig *both[2] = {&a, &b};
    for (unsigned k = 0; k < 2; k++) {
        run_ticks(both[k], 499);
        unsigned before = both[k]->pin[20].rises;
        run_ticks(both[k], 1);
        ck_assert_uint_eq(both[k]->pin[20].rises, before + 1);
        ck_assert_uint_eq(in(both[k], STATUS), 4);
        out(both[k], STATUS, 4);
        ck_assert(!both[k]->pin[21].level);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("hpet");
    TCase *t = tcase_create("hpet");
    tcase_add_test(t, capabilities_say_what_is_there);
    tcase_add_test(t, counter_runs_while_enabled_and_keeps_its_value);
    tcase_add_test(t, one_shot_matches_once_at_its_tick);
    tcase_add_test(t, one_shot_of_32_bits_matches_at_each_wrap);
    tcase_add_test(t, periodic_timer_moves_its_comparator_on);
    tcase_add_test(t, val_set_lasts_for_one_write);
    tcase_add_test(t, tiny_periods_come_at_most_every_microsecond_and_drift_nowhere);
    tcase_add_test(t, level_interrupt_holds_its_line_until_the_status_is_cleared);
    tcase_add_test(t, level_status_is_kept_without_an_interrupt_but_not_for_edges);
    tcase_add_test(t, legacy_replacement_takes_the_lines_and_gives_them_back);
    tcase_add_test(t, odd_accesses_and_pins_that_do_not_exist_do_nothing);
    tcase_add_test(t, loaded_hpet_goes_on_at_the_same_tick);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
