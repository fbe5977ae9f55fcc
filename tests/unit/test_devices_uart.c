/*
 * The 16550A: transmitter timing, FIFO triggers, interrupt priorities, loopback, modem status, backlog.
 */
#include "devices_rig.h"

#include "devices/uart16550.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

#define CHAR_TIME 1000

struct rig {
    struct vclock clock;
    struct uart16550 uart;
    struct wire irq;
    uint8_t sent[64];
    unsigned sent_count;
};

static void rig_tx(void *ctx, uint8_t byte)
{
    struct rig *g = ctx;
    g->sent[g->sent_count++ % sizeof(g->sent)] = byte;
}

static void rig_init_times(struct rig *g, uint64_t tx, uint64_t rx)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    uart16550_init(&g->uart, &(struct uart16550_config){.clock = &g->clock,
                                                        .irq = wire_line(&g->irq, 0),
                                                        .sink = {rig_tx, g},
                                                        .tx_char_time = tx,
                                                        .rx_char_time = rx});
}

static void rig_init(struct rig *g)
{
    rig_init_times(g, CHAR_TIME, CHAR_TIME);
}

static void wr(struct rig *g, unsigned reg, uint8_t v)
{
    reg_write(&uart16550_bus_ops, &g->uart, reg, 1, v);
}

static uint8_t rd(struct rig *g, unsigned reg)
{
    return (uint8_t)reg_read(&uart16550_bus_ops, &g->uart, reg, 1);
}

static void receive(struct rig *g, const char *text)
{
    uart16550_receive(&g->uart, (const uint8_t *)text, strlen(text));
}

START_TEST(character_goes_out_at_once_and_the_line_is_busy_for_its_time)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(rd(&g, LSR), 0x60);
    wr(&g, DATA, 'A');
    ck_assert_uint_eq(g.sent_count, 1);
    ck_assert_uint_eq(g.sent[0], 'A');
    ck_assert_uint_eq(rd(&g, LSR), 0);
    run_for(&g.clock, CHAR_TIME - 1);
    ck_assert_uint_eq(rd(&g, LSR), 0);
    run_for(&g.clock, 1);
    ck_assert_uint_eq(rd(&g, LSR), 0x60);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(character_time_follows_the_divisor_when_asked_to)
{
    struct rig g;
    rig_init_times(&g, 0, 0);
    wr(&g, LCR, 0x83);
    wr(&g, DATA, 1); /* 115200 baud */
    wr(&g, IER, 0);
    ck_assert_uint_eq(rd(&g, DATA), 1);
    wr(&g, LCR, 0x03); /* 8N1: ten bits */
    wr(&g, DATA, 'A');
    run_for(&g.clock, 86804);
    ck_assert_uint_eq(rd(&g, LSR), 0);
    run_for(&g.clock, 2);
    ck_assert_uint_eq(rd(&g, LSR), 0x60);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(burst_into_the_fifo_makes_one_empty_interrupt)
{
    struct rig g;
    rig_init(&g);
    wr(&g, IIR, 0x01);
    wr(&g, MCR, 0x08);
    wr(&g, IER, 0x02);
    ck_assert(g.irq.level); /* enabling it with an empty transmitter interrupts */
    ck_assert_uint_eq(rd(&g, IIR), 0xc2);
    ck_assert(!g.irq.level);
    ck_assert_uint_eq(rd(&g, IIR), 0xc1);
    unsigned rises = g.irq.rises;
    for (unsigned i = 0; i < 16; i++)
        wr(&g, DATA, (uint8_t)i);
    run_for(&g.clock, 16 * CHAR_TIME - 1);
    ck_assert_uint_eq(g.irq.rises, rises);
    run_for(&g.clock, 1);
    ck_assert_uint_eq(g.irq.rises, rises + 1);
    ck_assert_uint_eq(g.sent_count, 16);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(receiver_interrupts_at_its_trigger_level)
{
    struct rig g;
    rig_init(&g);
    wr(&g, IIR, 0x41); /* four */
    wr(&g, MCR, 0x08);
    wr(&g, IER, 0x01);
    receive(&g, "abcde");
    run_for(&g.clock, 3 * CHAR_TIME);
    ck_assert(!g.irq.level);
    ck_assert_uint_eq(rd(&g, LSR) & 1, 1);
    run_for(&g.clock, CHAR_TIME);
    ck_assert(g.irq.level);
    ck_assert_uint_eq(rd(&g, IIR), 0xc4);
    ck_assert_uint_eq(rd(&g, DATA), 'a');
    ck_assert(!g.irq.level);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(waiting_characters_below_the_trigger_time_out)
{
    struct rig g;
    rig_init(&g);
    wr(&g, IIR, 0xc1); /* fourteen */
    wr(&g, MCR, 0x08);
    wr(&g, IER, 0x01);
    receive(&g, "ab");
    run_for(&g.clock, 2 * CHAR_TIME + 4 * CHAR_TIME - 1);
    ck_assert(!g.irq.level);
    run_for(&g.clock, 1);
    ck_assert(g.irq.level);
    ck_assert_uint_eq(rd(&g, IIR), 0xcc);
    ck_assert_uint_eq(rd(&g, DATA), 'a');
    ck_assert(!g.irq.level);
    run_for(&g.clock, 4 * CHAR_TIME);
    ck_assert_uint_eq(rd(&g, IIR), 0xcc);
    ck_assert_uint_eq(rd(&g, DATA), 'b');
    run_for(&g.clock, 100 * CHAR_TIME);
    ck_assert(!g.irq.level);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(sources_are_reported_in_their_priority)
{
    struct rig g;
    rig_init(&g);
    wr(&g, MCR, 0x1b); /* loopback with RTS and DTR and OUT2: modem deltas */
    wr(&g, MCR, 0x10);
    wr(&g, DATA, 'x');
    run_for(&g.clock, CHAR_TIME);
    wr(&g, DATA, 'y'); /* no FIFO: overruns 'x' */
    run_for(&g.clock, CHAR_TIME);
    wr(&g, MCR, 0x08);
    wr(&g, IER, 0x0f);
    ck_assert_uint_eq(rd(&g, IIR), 0x06);
    ck_assert_uint_eq(rd(&g, LSR), 0x63);
    ck_assert_uint_eq(rd(&g, IIR), 0x04);
    ck_assert_uint_eq(rd(&g, DATA), 'y');
    ck_assert_uint_eq(rd(&g, IIR), 0x02);
    ck_assert_uint_eq(rd(&g, IIR), 0x00);
    ck_assert(g.irq.level);
    rd(&g, MSR);
    ck_assert_uint_eq(rd(&g, IIR), 0x01);
    ck_assert(!g.irq.level);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(out2_gates_the_interrupt)
{
    struct rig g;
    rig_init(&g);
    wr(&g, IER, 0x02);
    ck_assert(!g.irq.level);
    wr(&g, MCR, 0x08);
    ck_assert(g.irq.level);
    wr(&g, MCR, 0x18); /* loopback forces it inactive */
    ck_assert(!g.irq.level);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(loopback_returns_characters_and_modem_lines)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(rd(&g, MSR), 0xb0);
    wr(&g, MCR, 0x1a); /* what drivers probe with: RTS and OUT2 */
    ck_assert_uint_eq(rd(&g, MSR) & 0xf0, 0x90);
    wr(&g, IIR, 1);
    for (const char *p = "loop"; *p; p++)
        wr(&g, DATA, (uint8_t)*p);
    run_for(&g.clock, 4 * CHAR_TIME);
    for (const char *p = "loop"; *p; p++)
        ck_assert_uint_eq(rd(&g, DATA), (uint8_t)*p);
    ck_assert_uint_eq(g.sent_count, 0);
    wr(&g, MCR, 0x10 | 0x04); /* OUT1 is RI; its fall sets the trailing-edge bit */
    ck_assert_uint_eq(rd(&g, MSR) & 0x40, 0x40);
    wr(&g, MCR, 0x10);
    ck_assert_uint_eq(rd(&g, MSR) & 0x44, 0x04);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(probing_driver_finds_a_16550a_and_nothing_more)
{
    struct rig g;
    rig_init(&g);
    wr(&g, IER, 0xff);
    ck_assert_uint_eq(rd(&g, IER), 0x0f);
    wr(&g, IER, 0);
    wr(&g, SCR, 0x5a);
    ck_assert_uint_eq(rd(&g, SCR), 0x5a);
    ck_assert_uint_eq(rd(&g, IIR), 0x01);
    wr(&g, IIR, 0x21 | 0x01); /* a 16750 would show bit 5 */
    ck_assert_uint_eq(rd(&g, IIR), 0xc1);
    wr(&g, LCR, 0xbf);
    ck_assert_uint_ne(rd(&g, IIR), 0); /* an EFR would read zero here */
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(backlog_feeds_a_slow_reader_without_loss)
{
    struct rig g;
    uint8_t big[5000];
    rig_init(&g);
    wr(&g, IIR, 0xc1);
    for (unsigned i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 7);
    uart16550_receive(&g.uart, big, 3000);
    run_for(&g.clock, 500 * CHAR_TIME); /* nobody reads: the FIFO fills and the rest waits */
    uart16550_receive(&g.uart, big + 3000, 2000);
    for (unsigned i = 0; i < sizeof(big); i++) {
        if (!(rd(&g, LSR) & 1))
            run_for(&g.clock, CHAR_TIME);
        ck_assert_uint_eq(rd(&g, LSR) & 0x03, 1);
        ck_assert_uint_eq(rd(&g, DATA), big[i]);
    }
    run_for(&g.clock, 100 * CHAR_TIME);
    ck_assert_uint_eq(rd(&g, LSR) & 1, 0);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(backlog_has_a_limit_and_counts_what_it_refuses)
{
    struct rig g;
    rig_init(&g);
    uint8_t *big = calloc(1, UART16550_BACKLOG_MAX);
    uart16550_receive(&g.uart, big, UART16550_BACKLOG_MAX - 1);
    uart16550_receive(&g.uart, big, 10);
    ck_assert_uint_eq(g.uart.refused, 9);
    free(big);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(clearing_the_fifo_drops_it_and_not_the_backlog)
{
    struct rig g;
    rig_init(&g);
    wr(&g, IIR, 0x01);
    receive(&g, "0123456789abcdefXYZ");
    run_for(&g.clock, 30 * CHAR_TIME);
    wr(&g, IIR, 0x03);
    ck_assert_uint_eq(rd(&g, LSR) & 1, 0);
    run_for(&g.clock, CHAR_TIME);
    ck_assert_uint_eq(rd(&g, DATA), 'X');
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(any_sequence_of_accesses_is_survived)
{
    struct rig g;
    uint64_t x = 88172645463325252ull;
    rig_init(&g);
    for (unsigned i = 0; i < 200000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if (x & 1)
            wr(&g, x >> 1 & 7, (uint8_t)(x >> 8));
        else
            rd(&g, x >> 1 & 7);
        if ((x >> 20 & 15) == 0)
            receive(&g, "hello");
        run_for(&g.clock, x >> 24 & 0x3ff);
    }
    uart16550_reset(&g.uart);
    ck_assert_uint_eq(rd(&g, LSR) & 0x60, 0x60);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(loaded_port_behaves_as_the_saved_one)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    wr(&a, IIR, 0x41);
    wr(&a, MCR, 0x0b);
    wr(&a, IER, 0x0f);
    receive(&a, "the quick brown fox jumps over the lazy dog");
    for (unsigned i = 0; i < 9; i++)
        wr(&a, DATA, (uint8_t)i);
    run_for(&a.clock, 5 * CHAR_TIME + 321);
    rd(&a, DATA);
    ROUND_TRIP(&a.clock, &b.clock, uart16550_save(&a.uart, w), uart16550_load(&b.uart, r));
    b.irq = a.irq;
    struct rig *both[2] = {&a, &b};
    uint8_t seen[2][400];
    for (unsigned i = 0; i < 2; i++)
        for (unsigned n = 0; n < 100; n++) {
            struct rig *g = both[i];
            run_for(&g->clock, 777);
            seen[i][4 * n] = (uint8_t)g->irq.rises;
            seen[i][4 * n + 1] = rd(g, IIR);
            seen[i][4 * n + 2] = rd(g, LSR);
            seen[i][4 * n + 3] = n % 3 ? rd(g, DATA) : rd(g, MSR);
        }
    ck_assert_mem_eq(seen[0], seen[1], sizeof(seen[0]));
    uart16550_fini(&a.uart);
    uart16550_fini(&b.uart);
}
END_TEST

/* 292 years on, where no timer can be armed any more. */
START_TEST(port_is_loaded_at_the_end_of_time)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    clock_skip_to(&a.clock, CLOCK_HORIZON);
    wr(&a, DATA, 'x');
    ROUND_TRIP(&a.clock, &b.clock, uart16550_save(&a.uart, w), uart16550_load(&b.uart, r));
    ck_assert(!(rd(&b, LSR) & 0x20));
    uart16550_fini(&a.uart);
    uart16550_fini(&b.uart);
}
END_TEST

START_TEST(guest_that_polls_now_and_then_gets_a_few_characters_a_poll)
{
    struct rig g;
    rig_init(&g);
    g.uart.cfg.patient_sender = true;
    wr(&g, IIR, 0x01); /* FIFOs */
    receive(&g, "0123456789");
    for (unsigned k = 0; k < 6; k++) { /* one that prints: a few reads, then a character */
        ck_assert(!(rd(&g, LSR) & 0x01));
        run_for(&g.clock, 55000000);
        wr(&g, DATA, 'x');
        run_for(&g.clock, 55000000);
    }
    unsigned got = 0, polls = 0;
    while (got < 10 && polls++ < 20) { /* one that looks for input at each tick */
        run_for(&g.clock, 55000000);
        unsigned before = got;
        for (; rd(&g, LSR) & 0x01; got++)
            ck_assert_uint_eq(rd(&g, DATA), '0' + got);
        ck_assert_uint_le(got - before, 4);
    }
    ck_assert_uint_eq(got, 10);
    uart16550_fini(&g.uart);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("uart16550");
    TCase *t = tcase_create("uart16550");
    tcase_add_test(t, character_goes_out_at_once_and_the_line_is_busy_for_its_time);
    tcase_add_test(t, character_time_follows_the_divisor_when_asked_to);
    tcase_add_test(t, burst_into_the_fifo_makes_one_empty_interrupt);
    tcase_add_test(t, receiver_interrupts_at_its_trigger_level);
    tcase_add_test(t, waiting_characters_below_the_trigger_time_out);
    tcase_add_test(t, sources_are_reported_in_their_priority);
    tcase_add_test(t, out2_gates_the_interrupt);
    tcase_add_test(t, loopback_returns_characters_and_modem_lines);
    tcase_add_test(t, probing_driver_finds_a_16550a_and_nothing_more);
    tcase_add_test(t, backlog_feeds_a_slow_reader_without_loss);
    tcase_add_test(t, backlog_has_a_limit_and_counts_what_it_refuses);
    tcase_add_test(t, clearing_the_fifo_drops_it_and_not_the_backlog);
    tcase_add_test(t, any_sequence_of_accesses_is_survived);
    tcase_add_test(t, loaded_port_behaves_as_the_saved_one);
    tcase_add_test(t, port_is_loaded_at_the_end_of_time);
    tcase_add_test(t, guest_that_polls_now_and_then_gets_a_few_characters_a_poll);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
