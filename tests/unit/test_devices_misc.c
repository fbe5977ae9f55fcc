/*
 * The small ones: keyboard controller, port 0x92, the A20 gate, debug exit, debug console.
 */
#include "devices_rig.h"

#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/port92.h"
#include "devices/ps2/kbc8042.h"

struct rig {
    struct vclock clock;
    struct a20_gate a20;
    struct kbc8042 kbc;
    struct port92 port92;
    struct wire irq;
    unsigned resets, a20_changes;
    int exit_code;
    uint8_t console[16];
    unsigned console_len;
};

static void rig_reset_wanted(void *ctx)
{
    struct rig *g = ctx;
    g->resets++;
}

static void rig_a20(void *ctx, bool open)
{
    struct rig *g = ctx;
    g->a20_changes++;
}

static void rig_exit(void *ctx, int code)
{
    struct rig *g = ctx;
    g->exit_code = code;
}

static void rig_tx(void *ctx, uint8_t byte)
{
    struct rig *g = ctx;
    g->console[g->console_len++ & 15] = byte;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    struct device_signal reset = {rig_reset_wanted, g};
    a20_gate_init(&g->a20, rig_a20, g);
    kbc8042_init(&g->kbc, &(struct kbc8042_config){.irq = wire_line(&g->irq, 0), .a20 = &g->a20, .reset = reset});
    port92_init(&g->port92, &(struct port92_config){.a20 = &g->a20, .reset = reset});
}

static void command(struct rig *g, uint8_t v)
{
    reg_write(&kbc8042_command_bus_ops, &g->kbc, 0, 1, v);
}

static void data(struct rig *g, uint8_t v)
{
    reg_write(&kbc8042_data_bus_ops, &g->kbc, 0, 1, v);
}

static uint8_t status(struct rig *g)
{
    return (uint8_t)reg_read(&kbc8042_command_bus_ops, &g->kbc, 0, 1);
}

static uint8_t answer(struct rig *g)
{
    return (uint8_t)reg_read(&kbc8042_data_bus_ops, &g->kbc, 0, 1);
}

START_TEST(self_test_and_interface_test_answer)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(status(&g) & 1, 0);
    command(&g, 0xaa);
    ck_assert_uint_eq(status(&g) & 1, 1);
    ck_assert(g.irq.level);
    ck_assert_uint_eq(answer(&g), 0x55);
    ck_assert(!g.irq.level);
    ck_assert_uint_eq(status(&g) & 1, 0);
    command(&g, 0xab);
    ck_assert_uint_eq(answer(&g), 0);
}
END_TEST

START_TEST(command_byte_is_kept_and_gates_the_interrupt)
{
    struct rig g;
    rig_init(&g);
    command(&g, 0x60);
    data(&g, 0x44);
    command(&g, 0x20);
    ck_assert(!g.irq.level);
    ck_assert_uint_eq(answer(&g), 0x64); /* the auxiliary port stays off */
    command(&g, 0xad);
    command(&g, 0x20);
    ck_assert_uint_eq(answer(&g), 0x74);
}
END_TEST

START_TEST(absent_keyboard_and_mouse_stay_silent)
{
    struct rig g;
    rig_init(&g);
    data(&g, 0xf2);
    data(&g, 0xff);
    command(&g, 0xd4);
    data(&g, 0xf2);
    command(&g, 0xd3);
    data(&g, 0x5a);
    ck_assert_uint_eq(status(&g) & 1, 0);
    command(&g, 0xa9);
    ck_assert_uint_eq(answer(&g), 1);
}
END_TEST

START_TEST(reset_pulses_ask_for_a_reset)
{
    struct rig g;
    rig_init(&g);
    command(&g, 0xff); /* pulses nothing */
    ck_assert_uint_eq(g.resets, 0);
    command(&g, 0xfe);
    ck_assert_uint_eq(g.resets, 1);
    command(&g, 0xd1);
    data(&g, 0xfe);
    ck_assert_uint_eq(g.resets, 2);
    reg_write(&port92_bus_ops, &g.port92, 0, 1, 0x03);
    ck_assert_uint_eq(g.resets, 3);
    reg_write(&port92_bus_ops, &g.port92, 0, 1, 0x03); /* no new edge */
    ck_assert_uint_eq(g.resets, 3);
}
END_TEST

START_TEST(both_ports_drive_and_show_the_one_a20_gate)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(reg_read(&port92_bus_ops, &g.port92, 0, 1), 2);
    reg_write(&port92_bus_ops, &g.port92, 0, 1, 0);
    ck_assert(!g.a20.open);
    command(&g, 0xd0);
    ck_assert_uint_eq(answer(&g) & 3, 1);
    command(&g, 0xd1);
    data(&g, 0xdf);
    ck_assert(g.a20.open);
    ck_assert_uint_eq(reg_read(&port92_bus_ops, &g.port92, 0, 1), 2);
    command(&g, 0xdd);
    ck_assert(!g.a20.open);
    command(&g, 0xdf);
    ck_assert(g.a20.open);
    ck_assert_uint_eq(g.a20_changes, 4);
}
END_TEST

START_TEST(debug_exit_code_is_odd_and_a_byte)
{
    struct rig g;
    struct debug_exit d;
    rig_init(&g);
    debug_exit_init(&d, rig_exit, &g);
    reg_write(&debug_exit_bus_ops, &d, 0, 1, 0);
    ck_assert_int_eq(g.exit_code, 1);
    reg_write(&debug_exit_bus_ops, &d, 0, 4, 0x10);
    ck_assert_int_eq(g.exit_code, 33);
    reg_write(&debug_exit_bus_ops, &d, 0, 4, 0xffffffff);
    ck_assert_int_eq(g.exit_code, 255);
    ck_assert_uint_eq(reg_read(&debug_exit_bus_ops, &d, 0, 4), 0);
}
END_TEST

START_TEST(debug_console_passes_bytes_and_reads_as_itself)
{
    struct rig g;
    struct debug_console d;
    rig_init(&g);
    debug_console_init(&d, &(struct device_sink){rig_tx, &g});
    ck_assert_uint_eq(reg_read(&debug_console_bus_ops, &d, 0, 1), 0xe9);
    reg_write(&debug_console_bus_ops, &d, 0, 1, 'o');
    reg_write(&debug_console_bus_ops, &d, 0, 1, 'k');
    ck_assert_mem_eq(g.console, "ok", 2);
}
END_TEST

START_TEST(loaded_controllers_go_on_in_mid_command)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    command(&a, 0x61);
    data(&a, 0x99);
    command(&a, 0xdd);
    command(&a, 0xaa);
    command(&a, 0x62);
    reg_write(&port92_bus_ops, &a.port92, 0, 1, 0x01);
    ROUND_TRIP(&a.clock, &b.clock, (kbc8042_save(&a.kbc, w), port92_save(&a.port92, w), a20_gate_save(&a.a20, w)),
               (kbc8042_load(&b.kbc, r), port92_load(&b.port92, r), a20_gate_load(&b.a20, r)));
    ck_assert(!b.a20.open);
    ck_assert_uint_eq(status(&b), status(&a));
    ck_assert_uint_eq(answer(&b), 0x55);
    data(&b, 0x42); /* parameter of command 0x62 */
    command(&b, 0x22);
    ck_assert_uint_eq(answer(&b), 0x42);
    command(&b, 0x21);
    ck_assert_uint_eq(answer(&b), 0x99);
    reg_write(&port92_bus_ops, &b.port92, 0, 1, 0x01);
    ck_assert_uint_eq(b.resets, 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("misc");
    TCase *t = tcase_create("misc");
    tcase_add_test(t, self_test_and_interface_test_answer);
    tcase_add_test(t, command_byte_is_kept_and_gates_the_interrupt);
    tcase_add_test(t, absent_keyboard_and_mouse_stay_silent);
    tcase_add_test(t, reset_pulses_ask_for_a_reset);
    tcase_add_test(t, both_ports_drive_and_show_the_one_a20_gate);
    tcase_add_test(t, debug_exit_code_is_odd_and_a_byte);
    tcase_add_test(t, debug_console_passes_bytes_and_reads_as_itself);
    tcase_add_test(t, loaded_controllers_go_on_in_mid_command);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
