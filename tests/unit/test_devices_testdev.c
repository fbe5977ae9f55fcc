/*
 * pc-testdev: registers that read back, interrupt lines, state.
 */
#include "devices_rig.h"

#include "devices/testdev.h"

struct rig {
    struct testdev dev;
    struct wire wires[TESTDEV_LINES];
};

static void rig_init(struct rig *g)
{
    struct irq_line lines[TESTDEV_LINES];
    memset(g, 0, sizeof *g);
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        lines[n] = wire_line(g->wires, n);
    testdev_init(&g->dev, lines);
}

START_TEST(dword_and_memory_read_back_in_any_size)
{
    struct rig g;
    rig_init(&g);
    reg_write(&testdev_word_bus_ops, &g.dev, 0, 4, 0x11223344);
    ck_assert_uint_eq(reg_read(&testdev_word_bus_ops, &g.dev, 2, 2), 0x1122);
    reg_write(&testdev_word_bus_ops, &g.dev, 1, 1, 0xaa);
    ck_assert_uint_eq(reg_read(&testdev_word_bus_ops, &g.dev, 0, 4), 0x1122aa44);
    reg_write(&testdev_byte_bus_ops, &g.dev.bytes[2], 0, 1, 0x5a);
    ck_assert_uint_eq(reg_read(&testdev_byte_bus_ops, &g.dev.bytes[2], 0, 1), 0x5a);
    reg_write(&testdev_memory_bus_ops, &g.dev, TESTDEV_MEMORY - 8, 8, 0x0102030405060708ull);
    ck_assert_uint_eq(reg_read(&testdev_memory_bus_ops, &g.dev, TESTDEV_MEMORY - 4, 4), 0x01020304);
}
END_TEST

START_TEST(write_drives_the_interrupt_line_of_its_port)
{
    struct rig g;
    rig_init(&g);
    reg_write(&testdev_irq_bus_ops, &g.dev, 5, 1, 1);
    reg_write(&testdev_irq_bus_ops, &g.dev, 23, 1, 0x80);
    ck_assert(g.wires[5].level && g.wires[23].level && !g.wires[6].level);
    reg_write(&testdev_irq_bus_ops, &g.dev, 5, 1, 0);
    ck_assert(!g.wires[5].level);
    testdev_reset(&g.dev);
    ck_assert(!g.wires[23].level);
}
END_TEST

START_TEST(state_is_saved)
{
    struct rig a, b;
    struct vclock clock;
    clock_init(&clock);
    rig_init(&a);
    rig_init(&b);
    reg_write(&testdev_word_bus_ops, &a.dev, 0, 4, 0x01020304);
    reg_write(&testdev_irq_bus_ops, &a.dev, 3, 1, 1);
    reg_write(&testdev_memory_bus_ops, &a.dev, 77, 1, 9);
    ROUND_TRIP(&clock, &clock, testdev_save(&a.dev, w), testdev_load(&b.dev, r));
    ck_assert_uint_eq(reg_read(&testdev_word_bus_ops, &b.dev, 0, 4), 0x01020304);
    ck_assert_uint_eq(reg_read(&testdev_irq_bus_ops, &b.dev, 3, 1), 1);
    ck_assert_uint_eq(reg_read(&testdev_memory_bus_ops, &b.dev, 77, 1), 9);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("testdev");
    TCase *t = tcase_create("testdev");
    tcase_add_test(t, dword_and_memory_read_back_in_any_size);
    tcase_add_test(t, write_drives_the_interrupt_line_of_its_port);
    tcase_add_test(t, state_is_saved);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
