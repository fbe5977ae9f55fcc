/* A mouse on a serial port: Microsoft's protocol, at the rate of the line. */
#include "devices_rig.h"

#include "devices/serial_mouse.h"
#include "devices/uart16550.h"

enum { DATA, IER, IIR, LCR, MCR, LSR };

#define POWER 0x03 /* DTR and RTS */

/* A character of 1200 baud, 7 data bits, 1 stop bit. */
#define CHAR_TIME (9 * 96ull * CLOCK_HZ / 115200)

struct rig {
    struct vclock clock;
    struct uart16550 uart;
    struct serial_mouse mouse;
    struct wire irq;
};

static void wr(struct rig *g, unsigned reg, uint8_t v)
{
    reg_write(&uart16550_bus_ops, &g->uart, reg, 1, v);
}

static uint8_t rd(struct rig *g, unsigned reg)
{
    return (uint8_t)reg_read(&uart16550_bus_ops, &g->uart, reg, 1);
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    serial_mouse_init(&g->mouse, &(struct serial_mouse_config){&g->clock, &g->uart});
    uart16550_init(&g->uart, &(struct uart16550_config){.clock = &g->clock,
                                                        .irq = wire_line(&g->irq, 0),
                                                        .peer = {serial_mouse_lines, serial_mouse_idle, &g->mouse}});
}

static void set_line(struct rig *g)
{
    wr(g, LCR, 0x82); /* 1200 baud, 7N1 */
    wr(g, DATA, 96);
    wr(g, IER, 0);
    wr(g, LCR, 0x02);
}

/* The next byte, or -1 if none comes within 100 ms. */
static int next(struct rig *g)
{
    for (unsigned k = 0; k < 1000 && !(rd(g, LSR) & 1); k++)
        run_for(&g->clock, 100000);
    return rd(g, LSR) & 1 ? rd(g, DATA) : -1;
}

static void expect(struct rig *g, const char *bytes, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        int byte = next(g);
        ck_assert_msg(byte == (uint8_t)bytes[k], "byte %u: %02x instead of %02x", k, (unsigned)byte, (uint8_t)bytes[k]);
    }
}

#define EXPECT(g, bytes) expect(g, bytes, sizeof(bytes) - 1)

static void move(struct rig *g, int dx, int dy, int dz, uint8_t buttons)
{
    uint8_t e[MOUSE_EVENT] = {(uint8_t)dx, (uint8_t)(dx >> 8), (uint8_t)dy, (uint8_t)(dy >> 8), (uint8_t)dz, buttons};
    serial_mouse_input(&g->mouse, e, sizeof(e));
}

static void read_all(struct rig *g)
{
    while (next(g) >= 0)
        ;
}

static void power_on(struct rig *g)
{
    set_line(g);
    wr(g, MCR, POWER);
    read_all(g);
}

START_TEST(mouse_says_who_it_is_when_both_lines_have_come_up)
{
    struct rig g;
    rig_init(&g);
    set_line(&g);
    wr(&g, MCR, 0x02);
    ck_assert_int_eq(next(&g), -1);
    uint64_t start = clock_now(&g.clock);
    wr(&g, MCR, POWER);
    ck_assert_int_eq(next(&g), 'M');
    uint64_t took = clock_now(&g.clock) - start;
    ck_assert_uint_ge(took, SERIAL_MOUSE_ANSWER + CHAR_TIME);
    ck_assert_uint_le(took, SERIAL_MOUSE_ANSWER + CHAR_TIME + 200000);
    ck_assert_int_eq(next(&g), '3');
    read_all(&g);
    wr(&g, MCR, POWER); /* no change, no answer */
    ck_assert_int_eq(next(&g), -1);
    wr(&g, MCR, 0x01);
    wr(&g, MCR, POWER);
    EXPECT(&g, "M3");
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(identification_has_the_form_and_the_sum_of_plug_and_play)
{
    struct rig g;
    char text[80];
    unsigned n = 0, sum = 0, fields = 0;
    rig_init(&g);
    set_line(&g);
    wr(&g, MCR, POWER);
    EXPECT(&g, "M3");
    for (int c; (c = next(&g)) >= 0 && n < sizeof(text) - 1;) {
        ck_assert_int_lt(c, 0x40); /* is never taken for a packet's first byte */
        text[n++] = (char)(c + 0x20);
    }
    text[n] = 0;
    ck_assert_int_eq(text[0], '(');
    ck_assert_int_eq(text[n - 1], ')');
    ck_assert_int_eq(text[1] - 0x20, 0x01); /* version 1.0: 100, six bits at a time */
    ck_assert_int_eq(text[2] - 0x20, 0x24);
    ck_assert_int_eq(strncmp(text + 3, "UMB0001\\", 8), 0);
    ck_assert_ptr_nonnull(strstr(text, "\\MOUSE\\"));
    for (unsigned k = 0; k < n; k++) {
        fields += text[k] == '\\';
        if (k != n - 2 && k != n - 3)
            sum += (unsigned)text[k] - 0x20;
    }
    ck_assert_uint_eq(fields, 4);
    char digits[3];
    snprintf(digits, sizeof digits, "%02X", sum & 0xff);
    ck_assert_int_eq(strncmp(text + n - 3, digits, 2), 0);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(packets_carry_movement_and_buttons)
{
    struct rig g;
    rig_init(&g);
    power_on(&g);
    move(&g, 5, 3, 0, 0); /* down is positive */
    EXPECT(&g, "\x40\x05\x03");
    move(&g, -5, -3, 0, 0);
    EXPECT(&g, "\x4f\x3b\x3d");
    move(&g, 100, 0, 0, 0);
    EXPECT(&g, "\x41\x24\0");
    move(&g, 0, -128, 0, 0);
    EXPECT(&g, "\x48\0\0");
    move(&g, 0, 0, 0, MOUSE_LEFT);
    EXPECT(&g, "\x60\0\0");
    move(&g, 0, 0, 0, MOUSE_LEFT | MOUSE_RIGHT);
    EXPECT(&g, "\x70\0\0");
    move(&g, 1, 0, 0, 0);
    EXPECT(&g, "\x70\x01\0\x40\0\0"); /* the movement was with the buttons down */
    ck_assert_int_eq(next(&g), -1);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(middle_button_is_a_fourth_byte)
{
    struct rig g;
    rig_init(&g);
    power_on(&g);
    move(&g, 0, 0, 0, MOUSE_MIDDLE);
    EXPECT(&g, "\x40\0\0\x20");
    move(&g, 2, 0, 0, MOUSE_MIDDLE);
    EXPECT(&g, "\x40\x02\0\x20");
    move(&g, 0, 0, 0, 0);
    EXPECT(&g, "\x40\0\0\0");
    move(&g, 2, 0, 0, 0);
    EXPECT(&g, "\x40\x02\0");
    move(&g, 0, 0, 5, 0); /* there is no wheel */
    ck_assert_int_eq(next(&g), -1);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(movement_adds_up_while_the_line_is_busy)
{
    struct rig g;
    rig_init(&g);
    power_on(&g);
    for (unsigned k = 0; k < 100; k++)
        move(&g, 1, -1, 0, 0);
    EXPECT(&g, "\x4c\x01\x3f"); /* the first one alone, */
    EXPECT(&g, "\x49\x23\x1d"); /* then 99 right and 99 up */
    move(&g, 300, 0, 0, 0);
    EXPECT(&g, "\x41\x3f\0\x41\x3f\0\x40\x2e\0"); /* 127, 127, 46 */
    ck_assert_int_eq(next(&g), -1);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(bytes_come_at_the_rate_of_the_line)
{
    struct rig g;
    rig_init(&g);
    power_on(&g);
    uint64_t start = clock_now(&g.clock);
    move(&g, 1, 1, 0, 0);
    for (unsigned k = 1; k <= 3; k++) {
        run_for(&g.clock, start + k * CHAR_TIME - 1 - clock_now(&g.clock));
        ck_assert(!(rd(&g, LSR) & 1));
        run_for(&g.clock, 1);
        ck_assert(rd(&g, LSR) & 1);
        rd(&g, DATA);
    }
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(clicks_are_not_lost_behind_a_reader_that_sleeps_and_do_not_pile_up_for_ever)
{
    struct rig g;
    rig_init(&g);
    power_on(&g);
    move(&g, 0, 0, 0, MOUSE_LEFT);
    move(&g, 0, 0, 0, 0);
    move(&g, 0, 0, 0, MOUSE_RIGHT);
    move(&g, 0, 0, 0, 0);
    EXPECT(&g, "\x60\0\0\x40\0\0\x50\0\0\x40\0\0");
    for (unsigned k = 0; k < 10000; k++)
        move(&g, 1, 0, 0, k & 1);
    ck_assert_uint_le(uart16550_waiting(&g.uart), SERIAL_MOUSE_QUEUED + 8);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(without_power_nothing_comes_and_nothing_is_remembered)
{
    struct rig g;
    rig_init(&g);
    set_line(&g);
    move(&g, 10, 10, 0, MOUSE_LEFT);
    ck_assert_int_eq(next(&g), -1);
    power_on(&g);
    move(&g, 10, 10, 0, 0);
    run_for(&g.clock, CHAR_TIME / 2);
    wr(&g, MCR, 0x10); /* loopback takes the lines down, and what was on its way is gone */
    ck_assert_int_eq(next(&g), -1);
    wr(&g, MCR, POWER);
    EXPECT(&g, "M3");
    read_all(&g);
    ck_assert_uint_eq(uart16550_waiting(&g.uart), 0);
    uart16550_reset(&g.uart);
    serial_mouse_reset(&g.mouse);
    ck_assert(!g.mouse.powered);
    uart16550_fini(&g.uart);
}
END_TEST

START_TEST(loaded_mouse_goes_on_as_the_saved_one)
{
    struct rig a, b;
    for (unsigned after = 0; after < 40; after++) {
        rig_init(&a);
        rig_init(&b);
        set_line(&a);
        wr(&a, MCR, POWER);
        if (after >= 4) /* else its answer is due */
            read_all(&a);
        move(&a, 200, 3, 0, MOUSE_LEFT);
        run_for(&a.clock, after * 3000000ull);
        ROUND_TRIP(&a.clock, &b.clock, (uart16550_save(&a.uart, w), serial_mouse_save(&a.mouse, w)),
                   (uart16550_load(&b.uart, r), serial_mouse_load(&b.mouse, r)));
        for (int byte = 0; byte >= 0;) {
            byte = next(&a);
            ck_assert_int_eq(next(&b), byte);
        }
        ck_assert_uint_eq(clock_now(&a.clock), clock_now(&b.clock));
        uart16550_fini(&a.uart);
        uart16550_fini(&b.uart);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("serial_mouse");
    TCase *t = tcase_create("serial_mouse");
    tcase_add_test(t, mouse_says_who_it_is_when_both_lines_have_come_up);
    tcase_add_test(t, identification_has_the_form_and_the_sum_of_plug_and_play);
    tcase_add_test(t, packets_carry_movement_and_buttons);
    tcase_add_test(t, middle_button_is_a_fourth_byte);
    tcase_add_test(t, movement_adds_up_while_the_line_is_busy);
    tcase_add_test(t, bytes_come_at_the_rate_of_the_line);
    tcase_add_test(t, clicks_are_not_lost_behind_a_reader_that_sleeps_and_do_not_pile_up_for_ever);
    tcase_add_test(t, without_power_nothing_comes_and_nothing_is_remembered);
    tcase_add_test(t, loaded_mouse_goes_on_as_the_saved_one);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
