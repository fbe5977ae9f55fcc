/* Keyboard, mouse, and the controller between them and the system. */
#include "devices_rig.h"

#include "core/keys.h"
#include "devices/ps2/kbc8042.h"

struct rig {
    struct vclock clock;
    struct wire irq[2];
    struct a20_gate a20;
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
    struct kbc8042 kbc;
};

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    a20_gate_init(&g->a20, NULL, NULL);
    const struct device_signal ready = {kbc8042_ready, &g->kbc};
    ps2_keyboard_init(&g->keyboard, &(struct ps2_keyboard_config){.clock = &g->clock, .ready = ready});
    ps2_mouse_init(&g->mouse, &(struct ps2_mouse_config){.ready = ready});
    kbc8042_init(&g->kbc, &(struct kbc8042_config){.irq = wire_line(g->irq, 0),
                                                   .aux_irq = wire_line(g->irq, 1),
                                                   .clock = &g->clock,
                                                   .keyboard = &g->keyboard,
                                                   .mouse = &g->mouse,
                                                   .a20 = &g->a20});
}

static uint8_t status(struct rig *g)
{
    return (uint8_t)reg_read(&kbc8042_command_bus_ops, &g->kbc, 0, 1);
}

static void command(struct rig *g, uint8_t v)
{
    reg_write(&kbc8042_command_bus_ops, &g->kbc, 0, 1, v);
}

static void data(struct rig *g, uint8_t v)
{
    reg_write(&kbc8042_data_bus_ops, &g->kbc, 0, 1, v);
}

/* The next byte, or -1 if none comes within 20 ms; *aux: it was the mouse's. */
static int next(struct rig *g, bool *aux)
{
    for (unsigned k = 0; k < 200 && !(status(g) & 1); k++)
        run_for(&g->clock, 100000);
    if (!(status(g) & 1))
        return -1;
    if (aux)
        *aux = status(g) & 0x20;
    return (int)reg_read(&kbc8042_data_bus_ops, &g->kbc, 0, 1);
}

static void expect(struct rig *g, const char *bytes, unsigned n, bool from_mouse)
{
    for (unsigned k = 0; k < n; k++) {
        bool aux = !from_mouse;
        int byte = next(g, &aux);
        ck_assert_msg(byte == (uint8_t)bytes[k], "byte %u: %02x instead of %02x", k, (unsigned)byte, (uint8_t)bytes[k]);
        ck_assert_int_eq(aux, from_mouse);
    }
}

#define EXPECT(g, bytes)       expect(g, bytes, sizeof(bytes) - 1, false)
#define EXPECT_MOUSE(g, bytes) expect(g, bytes, sizeof(bytes) - 1, true)

static void press(struct rig *g, const char *keys)
{
    uint8_t events[KEY_CHORD_BYTES];
    const char *bad;
    size_t bad_len, n = key_chord_events(keys, events, &bad, &bad_len);
    ck_assert(n > 0);
    ps2_keyboard_input(&g->keyboard, events, n);
}

static void to_mouse(struct rig *g, uint8_t v)
{
    command(g, 0xd4);
    data(g, v);
}

static void move(struct rig *g, int dx, int dy, int dz, uint8_t buttons)
{
    uint8_t e[MOUSE_EVENT] = {(uint8_t)dx, (uint8_t)(dx >> 8), (uint8_t)dy, (uint8_t)(dy >> 8), (uint8_t)dz, buttons};
    ps2_mouse_input(&g->mouse, e, sizeof(e));
}

static void set_command_byte(struct rig *g, uint8_t v)
{
    command(g, 0x60);
    data(g, v);
}

START_TEST(keys_arrive_translated_to_set_1_with_an_interrupt_each)
{
    struct rig g;
    rig_init(&g);
    press(&g, "ctrl-alt-delete");
    EXPECT(&g, "\x1d\x38\xe0\x53\xe0\xd3\xb8\x9d");
    ck_assert_uint_eq(g.irq[0].rises, 8);
    press(&g, "f7");
    EXPECT(&g, "\x41\xc1");
    press(&g, "pause");
    EXPECT(&g, "\xe1\x1d\x45\xe1\x9d\xc5");
    press(&g, "print");
    EXPECT(&g, "\xe0\x2a\xe0\x37\xe0\xb7\xe0\xaa");
    ck_assert_int_eq(next(&g, NULL), -1);
}
END_TEST

START_TEST(every_key_translates_to_its_code_of_set_1)
{
    struct rig g;
    rig_init(&g);
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        const struct key_codes *c = key_codes((enum key)k);
        const uint8_t events[4] = {(uint8_t)k, 1, (uint8_t)k, 0};
        if (k == KEY_PAUSE || k == KEY_PRINT)
            continue;
        ps2_keyboard_input(&g.keyboard, events, 4);
        for (unsigned up = 0; up < 2; up++) {
            if (c->extended)
                ck_assert_int_eq(next(&g, NULL), 0xe0);
            int byte = next(&g, NULL);
            ck_assert_msg(byte == (c->set1 | (up ? 0x80 : 0)), "%s gives %02x", c->name, (unsigned)byte);
        }
    }
}
END_TEST

START_TEST(sets_1_and_2_come_as_they_are_without_translation)
{
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x25);
    press(&g, "a");
    EXPECT(&g, "\x1c\xf0\x1c");
    press(&g, "up");
    EXPECT(&g, "\xe0\x75\xe0\xf0\x75");
    data(&g, 0xf0);
    EXPECT(&g, "\xfa");
    data(&g, 1);
    EXPECT(&g, "\xfa");
    press(&g, "a");
    EXPECT(&g, "\x1e\x9e");
    data(&g, 0xf0);
    EXPECT(&g, "\xfa");
    data(&g, 0);
    EXPECT(&g, "\xfa\x01");
}
END_TEST

START_TEST(keyboard_commands_are_answered)
{
    struct rig g;
    rig_init(&g);
    data(&g, 0xff);
    EXPECT(&g, "\xfa\xaa");
    data(&g, 0xf2);
    EXPECT(&g, "\xfa\xab\x41"); /* the identity is translated as well */
    data(&g, 0xed);
    EXPECT(&g, "\xfa");
    data(&g, 5);
    EXPECT(&g, "\xfa");
    ck_assert_uint_eq(g.keyboard.leds, 5);
    data(&g, 0xee);
    EXPECT(&g, "\xee");
    data(&g, 0xfe);
    EXPECT(&g, "\xee");
    data(&g, 0xf5);
    EXPECT(&g, "\xfa");
    press(&g, "a"); /* is not scanned */
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0xf4);
    EXPECT(&g, "\xfa");
    press(&g, "a");
    EXPECT(&g, "\x1e\x9e");
}
END_TEST

START_TEST(a_held_key_repeats_at_the_typematic_rate_until_it_is_released)
{
    struct rig g;
    const uint8_t down[2] = {KEY_A, 1}, up[2] = {KEY_A, 0};
    rig_init(&g);
    data(&g, 0xf3);
    EXPECT(&g, "\xfa");
    data(&g, 0x00); /* 250 ms, 30 a second */
    EXPECT(&g, "\xfa");
    ps2_keyboard_input(&g.keyboard, down, 2);
    EXPECT(&g, "\x1e");
    run_for(&g.clock, 225000000);
    ck_assert(!(status(&g) & 1));
    unsigned n = 0;
    for (uint64_t end = clock_now(&g.clock) + 1000000000; clock_now(&g.clock) < end;) {
        n += next(&g, NULL) == 0x1e;
    }
    ck_assert_msg(n >= 28 && n <= 31, "%u repetitions", n);
    ps2_keyboard_input(&g.keyboard, up, 2);
    while (next(&g, NULL) != 0x9e)
        ck_assert_uint_lt(n++, 40);
    run_for(&g.clock, 1000000000);
    ck_assert(!(status(&g) & 1));
}
END_TEST

START_TEST(typed_text_is_not_lost_however_late_it_is_read)
{
    static const char text[] = "The quick brown fox jumps over the lazy dog, 42 times!";
    struct rig g;
    unsigned n = 0;
    rig_init(&g);
    for (const char *c = text; *c; c++) {
        uint8_t events[KEY_CHORD_BYTES];
        ps2_keyboard_input(&g.keyboard, events, key_char_events(*c, events));
    }
    run_for(&g.clock, 5000000000ull);
    while (next(&g, NULL) >= 0)
        n++;
    ck_assert_uint_eq(n, 2 * (strlen(text) + 2)); /* two characters need shift */
}
END_TEST

START_TEST(a_disabled_port_holds_its_bytes)
{
    struct rig g;
    rig_init(&g);
    command(&g, 0xad);
    press(&g, "a");
    ck_assert_int_eq(next(&g, NULL), -1);
    command(&g, 0xae);
    EXPECT(&g, "\x1e\x9e");
    move(&g, 1, 1, 0, 0);
    to_mouse(&g, 0xf4);
    ck_assert_int_eq(next(&g, NULL), -1); /* the mouse's port is off */
    command(&g, 0xa8);
    EXPECT_MOUSE(&g, "\xfa");
}
END_TEST

START_TEST(mouse_packets_carry_movement_buttons_and_wheel)
{
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    to_mouse(&g, 0xff);
    EXPECT_MOUSE(&g, "\xfa\xaa\x00");
    ck_assert_uint_eq(g.irq[1].rises, 3);
    to_mouse(&g, 0xf4);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 5, 3, 0, MOUSE_LEFT); /* down the screen is negative on the wire */
    EXPECT_MOUSE(&g, "\x29\x05\xfd");
    move(&g, 0, 0, 0, 0);
    EXPECT_MOUSE(&g, "\x08\x00\x00");
    move(&g, -300, 0, 0, 0);
    EXPECT_MOUSE(&g, "\x18\x00\x00\x18\xd4\x00");
    static const uint8_t knock[] = {200, 100, 80};
    for (unsigned k = 0; k < 3; k++) {
        to_mouse(&g, 0xf3);
        EXPECT_MOUSE(&g, "\xfa");
        to_mouse(&g, knock[k]);
        EXPECT_MOUSE(&g, "\xfa");
    }
    to_mouse(&g, 0xf2);
    EXPECT_MOUSE(&g, "\xfa\x03");
    move(&g, 0, 0, -1, MOUSE_MIDDLE);
    EXPECT_MOUSE(&g, "\x0c\x00\x00\xff");
    to_mouse(&g, 0xe9);
    EXPECT_MOUSE(&g, "\xfa\x22\x02\x50");
}
END_TEST

START_TEST(mouse_modes_remote_and_wrap)
{
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    to_mouse(&g, 0xf0);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0xf4);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 7, -7, 0, 0);
    ck_assert_int_eq(next(&g, NULL), -1);
    to_mouse(&g, 0xeb);
    EXPECT_MOUSE(&g, "\xfa\x08\x07\x07");
    to_mouse(&g, 0xee);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0x55);
    EXPECT_MOUSE(&g, "\x55");
    to_mouse(&g, 0xec);
    EXPECT_MOUSE(&g, "\xfa");
}
END_TEST

START_TEST(controller_commands_of_the_auxiliary_port)
{
    struct rig g;
    rig_init(&g);
    command(&g, 0xa9);
    EXPECT(&g, "\x00");
    command(&g, 0xd3);
    data(&g, 0x5a);
    EXPECT_MOUSE(&g, "\x5a");
    command(&g, 0xa7);
    command(&g, 0x20);
    ck_assert_int_eq(next(&g, NULL) & 0x20, 0x20);
    command(&g, 0xa8);
    command(&g, 0x20);
    ck_assert_int_eq(next(&g, NULL) & 0x20, 0);
}
END_TEST

START_TEST(what_waits_survives_save_and_load)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    set_command_byte(&a, 0x47);
    to_mouse(&a, 0xf4);
    EXPECT_MOUSE(&a, "\xfa");
    press(&a, "shift-b");
    EXPECT(&a, "\x2a");
    move(&a, 9, 0, 0, 0);
    ROUND_TRIP(&a.clock, &b.clock,
               (kbc8042_save(&a.kbc, w), ps2_keyboard_save(&a.keyboard, w), ps2_mouse_save(&a.mouse, w)),
               (kbc8042_load(&b.kbc, r), ps2_keyboard_load(&b.keyboard, r), ps2_mouse_load(&b.mouse, r)));
    for (unsigned k = 0; k < 6; k++) {
        bool aux[2] = {false, false};
        int x = next(&a, &aux[0]), y = next(&b, &aux[1]);
        ck_assert_int_ge(x, 0);
        ck_assert_int_eq(x, y);
        ck_assert_int_eq(aux[0], aux[1]);
        ck_assert_uint_eq(clock_now(&a.clock), clock_now(&b.clock));
    }
}
END_TEST

START_TEST(names_of_keys_are_found_and_unknown_ones_are_pointed_out)
{
    uint8_t events[KEY_CHORD_BYTES];
    const char *bad;
    size_t len;
    ck_assert_uint_eq(key_find("ret", 3), KEY_RET);
    ck_assert_uint_eq(key_find("enter", 5), KEY_RET);
    ck_assert_uint_eq(key_find("re", 2), KEY_COUNT);
    ck_assert_uint_eq(key_chord_events("ctrl-nothing-x", events, &bad, &len), 0);
    ck_assert_int_eq(strncmp(bad, "nothing", len), 0);
    ck_assert_uint_eq(key_chord_events("a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a", events, &bad, &len), 0);
    ck_assert_uint_eq(key_char_events('\x80', events), 0);
    for (char c = ' '; c < 127; c++)
        ck_assert_msg(key_char_events(c, events) > 0, "'%c' cannot be typed", c);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("ps2");
    TCase *t = tcase_create("ps2");
    tcase_add_test(t, keys_arrive_translated_to_set_1_with_an_interrupt_each);
    tcase_add_test(t, every_key_translates_to_its_code_of_set_1);
    tcase_add_test(t, sets_1_and_2_come_as_they_are_without_translation);
    tcase_add_test(t, keyboard_commands_are_answered);
    tcase_add_test(t, a_held_key_repeats_at_the_typematic_rate_until_it_is_released);
    tcase_add_test(t, typed_text_is_not_lost_however_late_it_is_read);
    tcase_add_test(t, a_disabled_port_holds_its_bytes);
    tcase_add_test(t, mouse_packets_carry_movement_buttons_and_wheel);
    tcase_add_test(t, mouse_modes_remote_and_wrap);
    tcase_add_test(t, controller_commands_of_the_auxiliary_port);
    tcase_add_test(t, what_waits_survives_save_and_load);
    tcase_add_test(t, names_of_keys_are_found_and_unknown_ones_are_pointed_out);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
