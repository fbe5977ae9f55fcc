/*
 * The IOAPIC, and the way of an ISA interrupt to it and to the 8259.
 */
#include "devices_rig.h"

#include "devices/irq/ioapic.h"
#include "devices/irq/isa_irq.h"

struct rig {
    struct ioapic io;
    struct apic_msg last;
    unsigned sent;
    bool refuse;
};

static bool rig_deliver(void *ctx, const struct apic_msg *m)
{
    struct rig *g = ctx;
    if (g->refuse)
        return false;
    g->last = *m;
    g->sent++;
    return true;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    ioapic_init(&g->io, &(struct ioapic_config){.deliver = rig_deliver, .deliver_ctx = g});
}

static void wr(struct rig *g, uint8_t index, uint32_t v)
{
    reg_write(&ioapic_bus_ops, &g->io, 0, 4, index);
    reg_write(&ioapic_bus_ops, &g->io, 0x10, 4, v);
}

static uint32_t rd(struct rig *g, uint8_t index)
{
    reg_write(&ioapic_bus_ops, &g->io, 0, 4, index);
    return (uint32_t)reg_read(&ioapic_bus_ops, &g->io, 0x10, 4);
}

static void redirect(struct rig *g, unsigned pin, uint32_t high, uint32_t low)
{
    wr(g, (uint8_t)(0x11 + 2 * pin), high);
    wr(g, (uint8_t)(0x10 + 2 * pin), low);
}

START_TEST(identification_registers_are_those_of_a_24_pin_part)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(rd(&g, 1), 0x00170020);
    wr(&g, 0, 0x0f000000);
    ck_assert_uint_eq(rd(&g, 0), 0x0f000000);
    ck_assert_uint_eq(rd(&g, 0x10), 0x10000);
    ck_assert_uint_eq(rd(&g, 0x3f), 0);
    ck_assert_uint_eq(rd(&g, 0x40), 0);
    ck_assert_uint_eq(rd(&g, 0xff), 0);
}
END_TEST

START_TEST(edge_pin_sends_one_message_for_each_rise)
{
    struct rig g;
    rig_init(&g);
    redirect(&g, 4, 3u << 24, 0x0931); /* lowest priority, logical */
    ioapic_set_pin(&g.io, 4, true);
    ck_assert_uint_eq(g.sent, 1);
    ck_assert_uint_eq(g.last.vector, 0x31);
    ck_assert_uint_eq(g.last.dest, 3);
    ck_assert(g.last.logical && !g.last.level && !g.last.wide);
    ck_assert_uint_eq(g.last.mode, APIC_LOWEST);
    ioapic_set_pin(&g.io, 4, true);
    ck_assert_uint_eq(g.sent, 1);
    ioapic_set_pin(&g.io, 4, false);
    ioapic_set_pin(&g.io, 4, true);
    ck_assert_uint_eq(g.sent, 2);
}
END_TEST

START_TEST(edge_on_a_masked_pin_is_lost)
{
    struct rig g;
    rig_init(&g);
    redirect(&g, 4, 0, 0x10031);
    ioapic_set_pin(&g.io, 4, true);
    redirect(&g, 4, 0, 0x31);
    ck_assert_uint_eq(g.sent, 0);
}
END_TEST

START_TEST(level_pin_sends_again_only_after_eoi_while_high)
{
    struct rig g;
    rig_init(&g);
    redirect(&g, 17, 0, 0x8041);
    ioapic_set_pin(&g.io, 17, true);
    ck_assert_uint_eq(g.sent, 1);
    ck_assert(g.last.level);
    ck_assert_uint_eq(rd(&g, 0x10 + 34), 0xc041); /* remote IRR */
    ioapic_set_pin(&g.io, 17, false);
    ioapic_set_pin(&g.io, 17, true);
    ck_assert_uint_eq(g.sent, 1);
    ioapic_eoi(&g.io, 0x42); /* somebody else's */
    ck_assert_uint_eq(g.sent, 1);
    ioapic_eoi(&g.io, 0x41);
    ck_assert_uint_eq(g.sent, 2);
    ioapic_set_pin(&g.io, 17, false);
    reg_write(&ioapic_bus_ops, &g.io, 0x40, 4, 0x41); /* the EOI register does the same */
    ck_assert_uint_eq(g.sent, 2);
    ck_assert_uint_eq(rd(&g, 0x10 + 34), 0x8041);
}
END_TEST

START_TEST(level_on_a_masked_pin_is_sent_when_it_is_unmasked)
{
    struct rig g;
    rig_init(&g);
    redirect(&g, 17, 0, 0x18041);
    ioapic_set_pin(&g.io, 17, true);
    ck_assert_uint_eq(g.sent, 0);
    redirect(&g, 17, 0, 0x8041);
    ck_assert_uint_eq(g.sent, 1);
}
END_TEST

START_TEST(remote_irr_is_read_only_and_falls_with_edge_mode)
{
    struct rig g;
    rig_init(&g);
    redirect(&g, 17, 0, 0xc041 | 0x10000);
    ck_assert_uint_eq(rd(&g, 0x10 + 34), 0x18041);
    redirect(&g, 17, 0, 0x8041);
    ioapic_set_pin(&g.io, 17, true);
    wr(&g, 0x10 + 34, 0x10041); /* masked and edge, as operating systems do to clear it */
    ck_assert_uint_eq(rd(&g, 0x10 + 34), 0x10041);
    wr(&g, 0x10 + 34, 0x8041);
    ck_assert_uint_eq(g.sent, 2);
}
END_TEST

START_TEST(level_message_that_nobody_takes_leaves_no_remote_irr)
{
    struct rig g;
    rig_init(&g);
    g.refuse = true;
    redirect(&g, 17, 0, 0x8041);
    ioapic_set_pin(&g.io, 17, true);
    ck_assert_uint_eq(rd(&g, 0x10 + 34), 0x8041);
}
END_TEST

START_TEST(pins_beyond_the_last_are_ignored)
{
    struct rig g;
    rig_init(&g);
    ioapic_set_pin(&g.io, 24, true);
    ioapic_set_pin(&g.io, 4000000000u, true);
    ck_assert_uint_eq(g.sent, 0);
}
END_TEST

START_TEST(loaded_ioapic_behaves_as_the_saved_one)
{
    struct rig a, b;
    struct vclock ca, cb;
    clock_init(&ca);
    clock_init(&cb);
    rig_init(&a);
    rig_init(&b);
    redirect(&a, 17, 1u << 24, 0x8041);
    redirect(&a, 4, 2u << 24, 0x31);
    ioapic_set_pin(&a.io, 17, true);
    ioapic_set_pin(&a.io, 4, true);
    wr(&a, 0, 0x05000000);
    ROUND_TRIP(&ca, &cb, ioapic_save(&a.io, w), ioapic_load(&b.io, r));
    b.sent = a.sent;
    struct rig *both[2] = {&a, &b};
    for (unsigned i = 0; i < 2; i++) {
        struct rig *g = both[i];
        ck_assert_uint_eq(reg_read(&ioapic_bus_ops, &g->io, 0x10, 4), 0x05000000); /* the selector survived */
        ioapic_set_pin(&g->io, 4, true);                                           /* still high: no edge */
        ioapic_set_pin(&g->io, 17, true);
        ck_assert_uint_eq(g->sent, 2);
        ioapic_eoi(&g->io, 0x41);
        ck_assert_uint_eq(g->sent, 3);
        ck_assert_uint_eq(g->last.dest, 1);
    }
}
END_TEST

/* ---- ISA routing ---- */

struct board {
    struct isa_irq r;
    struct wire pic[16], pin[24];
};

static void board_init(struct board *b)
{
    memset(b, 0, sizeof(*b));
    struct irq_line pic = wire_line(b->pic, 0), pin = wire_line(b->pin, 0);
    isa_irq_init(&b->r, &pic, &pin);
}

START_TEST(isa_line_reaches_both_controllers_and_irq0_arrives_at_pin_2)
{
    struct board b;
    board_init(&b);
    for (unsigned irq = 0; irq < 16; irq++) {
        struct irq_line l = isa_irq_line(&b.r, irq, 0);
        irq_set(&l, true);
        ck_assert_msg(b.pic[irq].level == (irq != 2), "IRQ %u", irq);
        ck_assert_msg(b.pin[irq == 0 ? 2 : irq].level == (irq != 2), "IRQ %u", irq);
        irq_set(&l, false);
        ck_assert(!b.pin[irq == 0 ? 2 : irq].level);
    }
    ck_assert_uint_eq(b.pin[0].rises, 0);
}
END_TEST

START_TEST(shared_isa_line_is_high_while_any_driver_holds_it)
{
    struct board b;
    board_init(&b);
    struct irq_line com1 = isa_irq_line(&b.r, 4, 0), com3 = isa_irq_line(&b.r, 4, 1);
    irq_set(&com1, true);
    irq_set(&com3, true);
    irq_set(&com1, false);
    ck_assert(b.pic[4].level && b.pin[4].level);
    irq_set(&com3, false);
    ck_assert(!b.pic[4].level && !b.pin[4].level);
}
END_TEST

START_TEST(pirq_reaches_its_pin_and_the_8259_input_that_it_is_routed_to)
{
    struct board b;
    board_init(&b);
    struct irq_line pirq = isa_irq_pirq_line(&b.r, 1);
    irq_set(&pirq, true);
    ck_assert(b.pin[17].level && !b.pic[11].level);
    isa_irq_route_pirq(&b.r, 1, 11);
    ck_assert(b.pic[11].level && !b.pin[11].level);
    isa_irq_route_pirq(&b.r, 1, 10);
    ck_assert(!b.pic[11].level && b.pic[10].level);
    isa_irq_route_pirq(&b.r, 1, ISA_IRQ_UNROUTED);
    ck_assert(!b.pic[10].level && b.pin[17].level);
}
END_TEST

START_TEST(loaded_routing_knows_who_holds_a_line)
{
    struct board a, b;
    struct vclock ca, cb;
    clock_init(&ca);
    clock_init(&cb);
    board_init(&a);
    board_init(&b);
    struct irq_line pirq = isa_irq_pirq_line(&a.r, 2), isa = isa_irq_line(&a.r, 10, 0);
    isa_irq_route_pirq(&a.r, 2, 10);
    irq_set(&pirq, true);
    irq_set(&isa, true);
    ROUND_TRIP(&ca, &cb, isa_irq_save(&a.r, w), isa_irq_load(&b.r, r));
    memcpy(b.pic, a.pic, sizeof(b.pic));
    isa = isa_irq_line(&b.r, 10, 0);
    pirq = isa_irq_pirq_line(&b.r, 2);
    irq_set(&isa, false);
    ck_assert(b.pic[10].level);
    irq_set(&pirq, false);
    ck_assert(!b.pic[10].level);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("ioapic");
    TCase *t = tcase_create("ioapic");
    tcase_add_test(t, identification_registers_are_those_of_a_24_pin_part);
    tcase_add_test(t, edge_pin_sends_one_message_for_each_rise);
    tcase_add_test(t, edge_on_a_masked_pin_is_lost);
    tcase_add_test(t, level_pin_sends_again_only_after_eoi_while_high);
    tcase_add_test(t, level_on_a_masked_pin_is_sent_when_it_is_unmasked);
    tcase_add_test(t, remote_irr_is_read_only_and_falls_with_edge_mode);
    tcase_add_test(t, level_message_that_nobody_takes_leaves_no_remote_irr);
    tcase_add_test(t, pins_beyond_the_last_are_ignored);
    tcase_add_test(t, loaded_ioapic_behaves_as_the_saved_one);
    suite_add_tcase(s, t);
    t = tcase_create("isa_irq");
    tcase_add_test(t, isa_line_reaches_both_controllers_and_irq0_arrives_at_pin_2);
    tcase_add_test(t, shared_isa_line_is_high_while_any_driver_holds_it);
    tcase_add_test(t, pirq_reaches_its_pin_and_the_8259_input_that_it_is_routed_to);
    tcase_add_test(t, loaded_routing_knows_who_holds_a_line);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
