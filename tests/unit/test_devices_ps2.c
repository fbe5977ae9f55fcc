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
    size_t bad_len, n = key_chord_events(keys, 0, events, &bad, &bad_len);
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
        if (k == KEY_PAUSE || k == KEY_PRINT || k == KEY_LANG1 || k == KEY_LANG2)
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

/* Raw bytes of the keyboard, in the set that it has been told to use. */
static void use_set(struct rig *g, uint8_t set)
{
    set_command_byte(g, 0x25);
    data(g, 0xf0);
    EXPECT(g, "\xfa");
    data(g, set);
    EXPECT(g, "\xfa");
}

static void key(struct rig *g, enum key k, bool down)
{
    const uint8_t event[2] = {(uint8_t)k, down};
    ps2_keyboard_input(&g->keyboard, event, 2);
}

START_TEST(set_3_has_one_code_a_key_and_each_key_its_type)
{
    struct rig g;
    rig_init(&g);
    use_set(&g, 3);
    data(&g, 0xf0);
    EXPECT(&g, "\xfa");
    data(&g, 0);
    EXPECT(&g, "\xfa\x03");
    press(&g, "a-f1-ctrl-kp_subtract-right");
    EXPECT(&g, "\x1c\x07\x11\x84\x6a\xf0\x11"); /* control alone has a break code */
    press(&g, "print-pause");
    EXPECT(&g, "\x57\x62");
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0xfa); /* all repeat and break */
    EXPECT(&g, "\xfa");
    press(&g, "a-pause");
    EXPECT(&g, "\x1c\x62\xf0\x62\xf0\x1c");
    data(&g, 0xf9); /* all make alone */
    EXPECT(&g, "\xfa");
    press(&g, "a-ctrl");
    EXPECT(&g, "\x1c\x11");
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0xf8); /* all make and break */
    EXPECT(&g, "\xfa");
    press(&g, "a");
    EXPECT(&g, "\x1c\xf0\x1c");
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0xf6); /* defaults: set 2 */
    EXPECT(&g, "\xfa");
    press(&g, "a");
    EXPECT(&g, "\x1c\xf0\x1c");
    use_set(&g, 3);
    press(&g, "a");
    EXPECT(&g, "\x1c");
    ck_assert_int_eq(next(&g, NULL), -1);
}
END_TEST

START_TEST(single_keys_of_set_3_get_their_type_by_a_list)
{
    struct rig g;
    rig_init(&g);
    use_set(&g, 3);
    data(&g, 0xfc); /* make and break: A and keypad minus */
    EXPECT(&g, "\xfa");
    press(&g, "b"); /* is not scanned meanwhile */
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0x1c);
    EXPECT(&g, "\xfa");
    data(&g, 0x84);
    EXPECT(&g, "\xfa");
    data(&g, 0xee); /* no key: ends the list, and is a command */
    EXPECT(&g, "\xee");
    press(&g, "a-b");
    EXPECT(&g, "\x1c\x32\xf0\x1c");
    press(&g, "kp_subtract");
    EXPECT(&g, "\x84\xf0\x84");
    data(&g, 0xfd); /* make */
    EXPECT(&g, "\xfa");
    data(&g, 0x1c);
    EXPECT(&g, "\xfa");
    data(&g, 0xfb); /* repeat */
    EXPECT(&g, "\xfa");
    data(&g, 0x08);
    EXPECT(&g, "\xfa");
    data(&g, 0xf4);
    EXPECT(&g, "\xfa");
    key(&g, KEY_A, true);
    key(&g, KEY_ESC, true);
    EXPECT(&g, "\x1c\x08");
    run_for(&g.clock, 600000000);
    EXPECT(&g, "\x08"); /* the one that was pressed last, and may */
    key(&g, KEY_A, true);
    key(&g, KEY_ESC, false);
    while (next(&g, NULL) == 0x08)
        ;
    run_for(&g.clock, 1000000000);
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0xfc); /* a list that ends in no command at all */
    EXPECT(&g, "\xfa");
    data(&g, 0x02);
    EXPECT(&g, "\xfe");
    press(&g, "c");
    EXPECT(&g, "\x21");
}
END_TEST

START_TEST(print_and_pause_depend_on_the_keys_that_are_held)
{
    struct rig g;
    rig_init(&g);
    press(&g, "alt-sysrq");
    EXPECT(&g, "\x38\x54\xd4\xb8");
    press(&g, "shift-print");
    EXPECT(&g, "\x2a\xe0\x37\xe0\xb7\xaa");
    press(&g, "ctrl_r-pause");
    EXPECT(&g, "\xe0\x1d\xe0\x46\xe0\xc6\xe0\x9d");
    key(&g, KEY_ALT, true);
    key(&g, KEY_PRINT, true);
    key(&g, KEY_ALT, false);
    key(&g, KEY_PRINT, false); /* breaks as it was made */
    EXPECT(&g, "\x38\x54\xb8\xd4");
    set_command_byte(&g, 0x25);
    press(&g, "alt-print");
    EXPECT(&g, "\x11\x84\xf0\x84\xf0\x11");
    press(&g, "ctrl-pause");
    EXPECT(&g, "\x14\xe0\x7e\xe0\xf0\x7e\xf0\x14");
    press(&g, "ctrl-print");
    EXPECT(&g, "\x14\xe0\x7c\xe0\xf0\x7c\xf0\x14");
    press(&g, "lang1-lang2");
    EXPECT(&g, "\xf2\xf1");
    ck_assert_int_eq(next(&g, NULL), -1);
}
END_TEST

START_TEST(defaults_and_enabling_leave_what_they_should)
{
    struct rig g;
    rig_init(&g);
    data(&g, 0xf5);
    EXPECT(&g, "\xfa");
    data(&g, 0xf6); /* does not scan again */
    EXPECT(&g, "\xfa");
    press(&g, "a");
    ck_assert_int_eq(next(&g, NULL), -1);
    data(&g, 0xf4);
    EXPECT(&g, "\xfa");
    data(&g, 0xf0);
    EXPECT(&g, "\xfa");
    data(&g, 4); /* there is no set 4 */
    EXPECT(&g, "\xfe");
    data(&g, 0xed);
    EXPECT(&g, "\xfa");
    data(&g, 0xee); /* a command instead of the LEDs */
    EXPECT(&g, "\xee");
    ck_assert_uint_eq(g.keyboard.leds, 0);
    data(&g, 0xef);
    EXPECT(&g, "\xfe");
}
END_TEST

START_TEST(held_combination_comes_up_after_its_time)
{
    struct rig g;
    uint8_t events[KEY_CHORD_BYTES];
    const char *bad;
    size_t len, n = key_chord_events("shift-a", 3000, events, &bad, &len);
    rig_init(&g);
    data(&g, 0xf3);
    EXPECT(&g, "\xfa");
    data(&g, 0x7f); /* after 1 s, twice a second */
    EXPECT(&g, "\xfa");
    ps2_keyboard_input(&g.keyboard, events, n);
    uint64_t start = clock_now(&g.clock);
    EXPECT(&g, "\x2a\x1e");
    unsigned repeated = 0;
    int byte;
    for (;;) {
        while (!(status(&g) & 1))
            run_for(&g.clock, 100000);
        if ((byte = next(&g, NULL)) != 0x1e)
            break;
        repeated++;
    }
    ck_assert_uint_eq(repeated, 5); /* at 1, 1.5, 2, 2.5, 3 s */
    ck_assert_int_eq(byte, 0x9e);
    ck_assert_uint_ge(clock_now(&g.clock) - start, 3000000000ull);
    ck_assert_uint_le(clock_now(&g.clock) - start, 3020000000ull);
    EXPECT(&g, "\xaa");
    ck_assert_uint_eq(key_chord_events("a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p", KEY_HOLD_MAX, events, &bad, &len),
                      KEY_CHORD_BYTES);
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

static void rates(struct rig *g, const uint8_t *rate, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        to_mouse(g, 0xf3);
        EXPECT_MOUSE(g, "\xfa");
        to_mouse(g, rate[k]);
        EXPECT_MOUSE(g, "\xfa");
    }
}

START_TEST(explorer_mouse_has_five_buttons)
{
    static const uint8_t knock[] = {200, 100, 80, 200, 200, 80};
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    rates(&g, knock + 3, 3); /* not without the wheel before */
    to_mouse(&g, 0xf2);
    EXPECT_MOUSE(&g, "\xfa\x00");
    rates(&g, knock, 6);
    to_mouse(&g, 0xf2);
    EXPECT_MOUSE(&g, "\xfa\x04");
    to_mouse(&g, 0xf4);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 1, 0, 0, MOUSE_SIDE);
    EXPECT_MOUSE(&g, "\x08\x01\x00\x10");
    move(&g, 0, 0, -3, MOUSE_SIDE | MOUSE_EXTRA | MOUSE_RIGHT);
    EXPECT_MOUSE(&g, "\x0a\x00\x00\x3d");
    move(&g, 0, 0, 9, 0); /* seven at a time */
    EXPECT_MOUSE(&g, "\x08\x00\x00\x07\x08\x00\x00\x02");
    ck_assert_int_eq(next(&g, NULL), -1);
    to_mouse(&g, 0xff);
    EXPECT_MOUSE(&g, "\xfa\xaa\x00");
    to_mouse(&g, 0xf2);
    EXPECT_MOUSE(&g, "\xfa\x00");
}
END_TEST

START_TEST(scaling_doubles_what_is_streamed_and_not_what_is_read)
{
    static const uint8_t expected[] = {0, 1, 1, 3, 6, 9, 12, 14};
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    to_mouse(&g, 0xe7);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0xf4);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0xe9);
    EXPECT_MOUSE(&g, "\xfa\x30\x02\x64");
    for (int n = 1; n < (int)ARRAY_LEN(expected); n++) {
        move(&g, n, n, 0, 0);
        const char packet[3] = {0x28, (char)expected[n], (char)-expected[n]};
        expect(&g, packet, 3, true);
    }
    move(&g, -200, 0, 0, 0); /* no more than a packet can say */
    EXPECT_MOUSE(&g, "\x18\x00\x00");
    to_mouse(&g, 0xf0);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 5, 0, 0, 0);
    to_mouse(&g, 0xeb);
    EXPECT_MOUSE(&g, "\xfa\x08\x05\x00");
    to_mouse(&g, 0xea);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0xe6);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 5, 0, 0, 0);
    EXPECT_MOUSE(&g, "\x08\x05\x00");
}
END_TEST

START_TEST(commands_that_change_the_mode_forget_the_movement)
{
    static const char commands[] = "\xea\xf0\xf4\xf5\xf6\xf2\xe9";
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    for (const char *c = commands; *c; c++) {
        to_mouse(&g, 0xf0);
        EXPECT_MOUSE(&g, "\xfa");
        move(&g, 20, 0, 0, 0);
        to_mouse(&g, (uint8_t)*c);
        while (next(&g, NULL) >= 0)
            ;
        to_mouse(&g, 0xeb);
        EXPECT_MOUSE(&g, "\xfa\x08\x00\x00");
    }
}
END_TEST

START_TEST(invalid_bytes_are_asked_for_again_and_then_refused)
{
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    to_mouse(&g, 0xe1);
    EXPECT_MOUSE(&g, "\xfe");
    to_mouse(&g, 0xe1);
    EXPECT_MOUSE(&g, "\xfc");
    to_mouse(&g, 0xe8);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 4);
    EXPECT_MOUSE(&g, "\xfe");
    to_mouse(&g, 3); /* the second try */
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0xf3);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 99);
    EXPECT_MOUSE(&g, "\xfe");
    to_mouse(&g, 99);
    EXPECT_MOUSE(&g, "\xfc");
    to_mouse(&g, 0xe9);
    EXPECT_MOUSE(&g, "\xfa\x00\x03\x64");
}
END_TEST

START_TEST(mouse_sends_its_last_packet_again)
{
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    to_mouse(&g, 0xff);
    EXPECT_MOUSE(&g, "\xfa\xaa\x00");
    to_mouse(&g, 0xfe);
    EXPECT_MOUSE(&g, "\xaa\x00");
    to_mouse(&g, 0xf4);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 4, 0, 0, MOUSE_LEFT);
    EXPECT_MOUSE(&g, "\x09\x04\x00");
    to_mouse(&g, 0xfe);
    EXPECT_MOUSE(&g, "\x09\x04\x00");
}
END_TEST

START_TEST(wrap_mode_returns_what_it_was_before)
{
    struct rig g;
    rig_init(&g);
    set_command_byte(&g, 0x47);
    to_mouse(&g, 0xf4);
    EXPECT_MOUSE(&g, "\xfa");
    to_mouse(&g, 0xee);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 3, 0, 0, 0);
    ck_assert_int_eq(next(&g, NULL), -1);
    for (unsigned byte = 0; byte < 256; byte++)
        if (byte != 0xec && byte != 0xff) {
            to_mouse(&g, (uint8_t)byte);
            ck_assert_int_eq(next(&g, NULL), (int)byte);
        }
    to_mouse(&g, 0xec);
    EXPECT_MOUSE(&g, "\xfa");
    move(&g, 3, 0, 0, 0);
    EXPECT_MOUSE(&g, "\x08\x03\x00"); /* it streams */
}
END_TEST

START_TEST(password_keeps_what_is_typed_until_it_was_typed_itself)
{
    struct rig g;
    rig_init(&g);
    command(&g, 0xa4);
    EXPECT(&g, "\xf1");
    command(&g, 0xa6); /* nothing to turn on */
    press(&g, "x");
    EXPECT(&g, "\x2d\xad");
    command(&g, 0xa5);
    data(&g, 0x1e); /* a, b */
    data(&g, 0x30);
    data(&g, 0);
    command(&g, 0xa4);
    EXPECT(&g, "\xfa");
    command(&g, 0x73); /* sent when it is turned on */
    data(&g, 0x77);
    command(&g, 0x74); /* sent when it was typed */
    data(&g, 0x88);
    command(&g, 0x76); /* shift is ignored */
    data(&g, 0x2a);
    press(&g, "x");
    EXPECT(&g, "\x2d\xad");
    command(&g, 0xa6);
    EXPECT(&g, "\x77");
    press(&g, "a");
    press(&g, "c");
    press(&g, "b");
    ck_assert_int_eq(next(&g, NULL), -1);
    press(&g, "a");
    press(&g, "shift");
    press(&g, "b");
    run_for(&g.clock, 100000000);
    EXPECT(&g, "\x88\xb0");
    press(&g, "x");
    EXPECT(&g, "\x2d\xad");
}
END_TEST

START_TEST(input_port_is_read_and_polled)
{
    struct rig g;
    rig_init(&g);
    command(&g, 0xc0);
    EXPECT(&g, "\x80");
    command(&g, 0xc2);
    ck_assert_uint_eq(status(&g) & 0xf0, 0x80);
    command(&g, 0xc1);
    ck_assert_uint_eq(status(&g) & 0xf0, 0x00);
    command(&g, 0xaa);
    ck_assert_uint_eq(status(&g) & 0xf0, 0x10);
    EXPECT(&g, "\x55");
    command(&g, 0xd0);
    ck_assert_int_eq(next(&g, NULL) & 0xcf, 0xcf);
    command(&g, 0xd2);
    data(&g, 0x1c); /* as it is, though port 1 is translated */
    EXPECT(&g, "\x1c");
    command(&g, 0x65);
    data(&g, 0xa7);
    command(&g, 0x25);
    EXPECT(&g, "\xa7");
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

START_TEST(every_name_of_qemu_s_keys_is_known)
{
    static const char names[] =
        "shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o "
        "p bracket_left bracket_right ret a s d f g h j k l semicolon apostrophe grave_accent backslash z x c v b n m "
        "comma dot slash asterisk spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_divide "
        "kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 "
        "less f11 f12 print home pgup pgdn end left up down right insert delete stop again props undo front copy open "
        "paste find cut lf help meta_l meta_r compose pause ro hiragana henkan yen muhenkan katakanahiragana kp_comma "
        "kp_equals power sleep wake audionext audioprev audiostop audioplay audiomute volumeup volumedown mediaselect "
        "mail calculator computer ac_home ac_back ac_forward ac_refresh ac_bookmarks lang1 lang2 f13 f14 f15 f16 f17 "
        "f18 f19 f20 f21 f22 f23 f24";
    for (const char *p = names; *p; p += strspn(p, " ")) {
        size_t len = strcspn(p, " ");
        ck_assert_msg(key_find(p, len) < KEY_COUNT, "%.*s", (int)len, p);
        p += len;
    }
    ck_assert_uint_eq(key_find("unmapped", 8), KEY_COUNT);
    ck_assert_uint_eq(key_find("0x1c", 4), KEY_RET);
    ck_assert_uint_eq(key_find("0x9c", 4), KEY_KP_ENTER);
    ck_assert_uint_eq(key_find("0x", 2), KEY_COUNT);
    ck_assert_uint_eq(key_find("0xz", 3), KEY_COUNT);
    ck_assert_uint_eq(key_find("0x1cc", 5), KEY_COUNT);
    ck_assert_uint_eq(key_of_number(1ull << 32), KEY_COUNT);
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
    ck_assert_uint_eq(key_chord_events("ctrl-nothing-x", 0, events, &bad, &len), 0);
    ck_assert_int_eq(strncmp(bad, "nothing", len), 0);
    ck_assert_uint_eq(key_chord_events("a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a", 0, events, &bad, &len), 0);
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
    tcase_add_test(t, set_3_has_one_code_a_key_and_each_key_its_type);
    tcase_add_test(t, single_keys_of_set_3_get_their_type_by_a_list);
    tcase_add_test(t, print_and_pause_depend_on_the_keys_that_are_held);
    tcase_add_test(t, defaults_and_enabling_leave_what_they_should);
    tcase_add_test(t, held_combination_comes_up_after_its_time);
    tcase_add_test(t, explorer_mouse_has_five_buttons);
    tcase_add_test(t, scaling_doubles_what_is_streamed_and_not_what_is_read);
    tcase_add_test(t, commands_that_change_the_mode_forget_the_movement);
    tcase_add_test(t, invalid_bytes_are_asked_for_again_and_then_refused);
    tcase_add_test(t, mouse_sends_its_last_packet_again);
    tcase_add_test(t, wrap_mode_returns_what_it_was_before);
    tcase_add_test(t, password_keeps_what_is_typed_until_it_was_typed_itself);
    tcase_add_test(t, input_port_is_read_and_polled);
    tcase_add_test(t, every_name_of_qemu_s_keys_is_known);
    tcase_add_test(t, names_of_keys_are_found_and_unknown_ones_are_pointed_out);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
