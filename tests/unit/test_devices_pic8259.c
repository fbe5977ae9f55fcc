/*
 * The 8259 pair: priorities, end-of-interrupt modes, cascade, spurious vectors, edge and level triggering.
 */
#include "devices_rig.h"

#include "devices/irq/pic8259.h"

struct rig {
    struct pic8259 pic;
    struct wire intr;
};

#define OUT(rig, chip_, port, v) reg_write(&pic8259_bus_ops, &(rig)->pic.chip[chip_], port, 1, v)
#define IN(rig, chip_, port)     (uint8_t) reg_read(&pic8259_bus_ops, &(rig)->pic.chip[chip_], port, 1)

/* Vectors 0x20 and 0x28, everything unmasked. */
static void rig_init(struct rig *g, uint8_t icw4)
{
    memset(g, 0, sizeof(*g));
    pic8259_init(&g->pic, &(struct pic8259_config){.intr = wire_line(&g->intr, 0)});
    for (unsigned i = 0; i < 2; i++) {
        OUT(g, i, 0, 0x11);
        OUT(g, i, 1, i ? 0x28 : 0x20);
        OUT(g, i, 1, i ? 2 : 4);
        OUT(g, i, 1, icw4);
        OUT(g, i, 1, 0);
    }
}

static void raise_irq(struct rig *g, unsigned irq)
{
    pic8259_set_irq(&g->pic, irq, true);
}

START_TEST(lower_input_wins_and_nests_over_a_higher_one)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 5);
    raise_irq(&g, 3);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x23);
    ck_assert(!g.intr.level); /* 5 is below 3, which is in service */
    raise_irq(&g, 1);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x21);
    OUT(&g, 0, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0x0a);
    OUT(&g, 0, 0, 0x20); /* ends 1 */
    ck_assert(!g.intr.level);
    OUT(&g, 0, 0, 0x20); /* ends 3 */
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x25);
}
END_TEST

START_TEST(specific_eoi_ends_the_named_input)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 4);
    pic8259_ack(&g.pic);
    raise_irq(&g, 1);
    pic8259_ack(&g.pic);
    OUT(&g, 0, 0, 0x64);
    OUT(&g, 0, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0x02);
}
END_TEST

START_TEST(rotation_makes_the_served_input_the_lowest)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 3);
    pic8259_ack(&g.pic);
    OUT(&g, 0, 0, 0xa0); /* rotate on non-specific EOI: 3 is lowest, 4 highest */
    pic8259_set_irq(&g.pic, 3, false);
    raise_irq(&g, 3);
    raise_irq(&g, 4);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x24);
}
END_TEST

START_TEST(set_priority_command_moves_the_top)
{
    struct rig g;
    rig_init(&g, 1);
    OUT(&g, 0, 0, 0xc5); /* 5 lowest, 6 highest */
    raise_irq(&g, 0);
    raise_irq(&g, 6);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x26);
}
END_TEST

START_TEST(auto_eoi_leaves_nothing_in_service)
{
    struct rig g;
    rig_init(&g, 3);
    raise_irq(&g, 1);
    raise_irq(&g, 2 + 4);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x21);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x26);
    OUT(&g, 0, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0);
}
END_TEST

START_TEST(slave_request_arrives_through_the_cascade)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 12);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x2c);
    OUT(&g, 0, 0, 0x0b);
    OUT(&g, 1, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0x04);
    ck_assert_uint_eq(IN(&g, 1, 0), 0x10);
    raise_irq(&g, 8); /* higher than 12 on the slave, but the master's input 2 is in service */
    ck_assert(!g.intr.level);
    OUT(&g, 1, 0, 0x20);
    OUT(&g, 0, 0, 0x20);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x28);
}
END_TEST

START_TEST(slave_in_auto_eoi_presents_its_next_request_at_once)
{
    struct rig g;
    rig_init(&g, 3);
    raise_irq(&g, 9);
    raise_irq(&g, 14);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x29);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x2e);
    ck_assert(!g.intr.level);
}
END_TEST

START_TEST(special_fully_nested_master_lets_the_slave_nest)
{
    struct rig g;
    rig_init(&g, 0x11);
    raise_irq(&g, 12);
    pic8259_ack(&g.pic);
    raise_irq(&g, 8);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x28);
}
END_TEST

START_TEST(special_mask_mode_lets_lower_inputs_pass_a_masked_one)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 1);
    pic8259_ack(&g.pic);
    raise_irq(&g, 6);
    ck_assert(!g.intr.level);
    OUT(&g, 0, 1, 0x02);
    OUT(&g, 0, 0, 0x68);
    ck_assert(g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x26);
    OUT(&g, 0, 0, 0x20); /* non-specific: must end 6, not the masked 1 */
    OUT(&g, 0, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0x02);
}
END_TEST

START_TEST(edge_that_falls_before_the_acknowledge_is_spurious)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 3);
    pic8259_set_irq(&g.pic, 3, false);
    ck_assert(!g.intr.level);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x27);
    OUT(&g, 0, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0); /* no ISR bit: how software tells */
}
END_TEST

START_TEST(edge_input_needs_a_new_edge)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 3);
    pic8259_ack(&g.pic);
    OUT(&g, 0, 0, 0x20);
    ck_assert(!g.intr.level);
    pic8259_set_irq(&g.pic, 3, false);
    raise_irq(&g, 3);
    ck_assert(g.intr.level);
}
END_TEST

START_TEST(level_input_asks_again_while_it_is_high)
{
    struct rig g;
    rig_init(&g, 1);
    reg_write(&pic8259_elcr_bus_ops, &g.pic, 1, 1, 0x02); /* IRQ 9 */
    ck_assert_uint_eq(reg_read(&pic8259_elcr_bus_ops, &g.pic, 1, 1), 0x02);
    raise_irq(&g, 9);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x29);
    OUT(&g, 1, 0, 0x20);
    OUT(&g, 0, 0, 0x20);
    ck_assert(g.intr.level);
    pic8259_set_irq(&g.pic, 9, false);
    ck_assert(!g.intr.level);
}
END_TEST

START_TEST(elcr_bits_of_system_inputs_stay_edge)
{
    struct rig g;
    rig_init(&g, 1);
    reg_write(&pic8259_elcr_bus_ops, &g.pic, 0, 2, 0xffff);
    ck_assert_uint_eq(reg_read(&pic8259_elcr_bus_ops, &g.pic, 0, 2), 0xdef8);
}
END_TEST

START_TEST(masked_request_waits_in_irr)
{
    struct rig g;
    rig_init(&g, 1);
    OUT(&g, 0, 1, 0x10);
    raise_irq(&g, 4);
    ck_assert(!g.intr.level);
    ck_assert_uint_eq(IN(&g, 0, 0), 0x10);
    OUT(&g, 0, 1, 0);
    ck_assert(g.intr.level);
}
END_TEST

START_TEST(poll_acknowledges_and_names_the_input)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 5);
    OUT(&g, 0, 0, 0x0c);
    ck_assert_uint_eq(IN(&g, 0, 0), 0x85);
    OUT(&g, 0, 0, 0x0c);
    ck_assert_uint_eq(IN(&g, 0, 0), 0);
}
END_TEST

START_TEST(initialisation_clears_mask_service_and_edges)
{
    struct rig g;
    rig_init(&g, 1);
    raise_irq(&g, 3);
    pic8259_ack(&g.pic);
    raise_irq(&g, 1);
    OUT(&g, 0, 1, 0xff);
    OUT(&g, 0, 0, 0x11);
    OUT(&g, 0, 1, 0x40);
    OUT(&g, 0, 1, 4);
    OUT(&g, 0, 1, 1);
    ck_assert_uint_eq(IN(&g, 0, 1), 0);
    ck_assert_uint_eq(IN(&g, 0, 0), 0);
    OUT(&g, 0, 0, 0x0b);
    ck_assert_uint_eq(IN(&g, 0, 0), 0);
    pic8259_set_irq(&g.pic, 1, false);
    raise_irq(&g, 1);
    ck_assert_int_eq(pic8259_ack(&g.pic), 0x41);
}
END_TEST

START_TEST(loaded_pair_behaves_as_the_saved_one)
{
    struct rig a, b;
    struct vclock ca, cb;
    clock_init(&ca);
    clock_init(&cb);
    rig_init(&a, 1);
    rig_init(&b, 1);
    reg_write(&pic8259_elcr_bus_ops, &a.pic, 0, 2, 0x0c20);
    raise_irq(&a, 12);
    pic8259_ack(&a.pic);
    raise_irq(&a, 5);
    raise_irq(&a, 10);
    OUT(&a, 0, 0, 0xc3);
    OUT(&a, 1, 0, 0x11); /* in the middle of initialising the slave's registers again */
    OUT(&a, 1, 1, 0x70);
    ROUND_TRIP(&ca, &cb, pic8259_save(&a.pic, w), pic8259_load(&b.pic, r));
    struct rig *both[2] = {&a, &b};
    int vector[2][4];
    for (unsigned i = 0; i < 2; i++) {
        OUT(both[i], 1, 1, 2);
        OUT(both[i], 1, 1, 1);
        for (unsigned n = 0; n < 4; n++) {
            vector[i][n] = pic8259_ack(&both[i]->pic);
            OUT(both[i], 1, 0, 0x20);
            OUT(both[i], 0, 0, 0x20);
        }
    }
    ck_assert_mem_eq(vector[0], vector[1], sizeof(vector[0]));
    ck_assert_int_eq(vector[0][0], 0x25);
    ck_assert_uint_eq(IN(&b, 0, 0), IN(&a, 0, 0));
    ck_assert_uint_eq(reg_read(&pic8259_elcr_bus_ops, &b.pic, 0, 2), 0x0c20);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("pic8259");
    TCase *t = tcase_create("pic8259");
    tcase_add_test(t, lower_input_wins_and_nests_over_a_higher_one);
    tcase_add_test(t, specific_eoi_ends_the_named_input);
    tcase_add_test(t, rotation_makes_the_served_input_the_lowest);
    tcase_add_test(t, set_priority_command_moves_the_top);
    tcase_add_test(t, auto_eoi_leaves_nothing_in_service);
    tcase_add_test(t, slave_request_arrives_through_the_cascade);
    tcase_add_test(t, slave_in_auto_eoi_presents_its_next_request_at_once);
    tcase_add_test(t, special_fully_nested_master_lets_the_slave_nest);
    tcase_add_test(t, special_mask_mode_lets_lower_inputs_pass_a_masked_one);
    tcase_add_test(t, edge_that_falls_before_the_acknowledge_is_spurious);
    tcase_add_test(t, edge_input_needs_a_new_edge);
    tcase_add_test(t, level_input_asks_again_while_it_is_high);
    tcase_add_test(t, elcr_bits_of_system_inputs_stay_edge);
    tcase_add_test(t, masked_request_waits_in_irr);
    tcase_add_test(t, poll_acknowledges_and_names_the_input);
    tcase_add_test(t, initialisation_clears_mask_service_and_edges);
    tcase_add_test(t, loaded_pair_behaves_as_the_saved_one);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
