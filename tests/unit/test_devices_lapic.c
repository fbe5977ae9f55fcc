/*
 * Local APICs: priorities and EOI, the three timer modes, IPIs in all addressing forms, x2APIC, IA32_APIC_BASE, ExtINT.
 */
#include "devices_rig.h"

#include "devices/irq/lapic.h"

#define CPUS 4

enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR_LOW = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LINT0 = 0x350,
    LINT1 = 0x360,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0
};

struct rig {
    struct vclock clock;
    struct lapic_set set;
    struct wire pin[CPUS][5];
    const struct cpu_intc *intc[CPUS];
    int extint_vector;
    unsigned extint_acks;
    uint8_t eoi[8];
    unsigned eois;
    uint64_t tsc_offset;
    unsigned sent[CPUS];
};

static int rig_extint(void *ctx)
{
    struct rig *g = ctx;
    g->extint_acks++;
    return g->extint_vector;
}

static void rig_eoi(void *ctx, uint8_t vector)
{
    struct rig *g = ctx;
    g->eoi[g->eois++ & 7] = vector;
}

static uint64_t rig_tsc(void *ctx, unsigned cpu, uint64_t tsc)
{
    struct rig *g = ctx;
    return tsc > g->tsc_offset ? tsc - g->tsc_offset : 0;
}

static void rig_sent(void *ctx, unsigned cpu)
{
    struct rig *g = ctx;
    g->sent[cpu]++;
}

static void wr(struct rig *g, int cpu, unsigned offset, uint32_t v)
{
    reg_write_cpu(&lapic_bus_ops, &g->set, offset, 4, v, cpu);
}

static uint32_t rd(struct rig *g, int cpu, unsigned offset)
{
    return (uint32_t)reg_read_cpu(&lapic_bus_ops, &g->set, offset, 4, cpu);
}

static bool msr_w(struct rig *g, int cpu, uint32_t index, uint64_t v)
{
    return g->intc[cpu]->msr_write(g->intc[cpu]->ctx, index, v);
}

static uint64_t msr_r(struct rig *g, int cpu, uint32_t index)
{
    uint64_t v = 0;
    ck_assert_msg(g->intc[cpu]->msr_read(g->intc[cpu]->ctx, index, &v), "MSR 0x%x", index);
    return v;
}

static int ack(struct rig *g, int cpu)
{
    return g->intc[cpu]->ack(g->intc[cpu]->ctx);
}

static bool intr(struct rig *g, int cpu)
{
    return g->pin[cpu][CPU_PIN_INTR].level;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    struct lapic_set_config cfg = {.cpu_count = CPUS,
                                   .clock = &g->clock,
                                   .x2apic = true,
                                   .extint_ack = rig_extint,
                                   .extint_ctx = g,
                                   .eoi = rig_eoi,
                                   .eoi_ctx = g,
                                   .tsc_to_clock = rig_tsc,
                                   .tsc_ctx = g,
                                   .ipi_sent = rig_sent,
                                   .ipi_ctx = g};
    ck_assert(lapic_set_init(&g->set, &cfg));
    for (int i = 0; i < CPUS; i++) {
        struct irq_line pins = wire_line(g->pin[i], 0);
        g->intc[i] = lapic_set_connect(&g->set, (unsigned)i, &pins);
        wr(g, i, SVR, 0x1ff);
    }
}

static void rig_fini(struct rig *g)
{
    lapic_set_fini(&g->set);
}

static void send(struct rig *g, uint8_t dest, uint8_t vector)
{
    lapic_set_deliver(&g->set, &(struct apic_msg){.dest = dest, .vector = vector});
}

START_TEST(reset_state_is_that_of_the_manual)
{
    struct rig g;
    rig_init(&g);
    lapic_set_reset(&g.set);
    ck_assert_uint_eq(rd(&g, 2, ID), 2u << 24);
    ck_assert_uint_eq(rd(&g, 0, VERSION), 0x00050014);
    ck_assert_uint_eq(rd(&g, 0, SVR), 0xff);
    ck_assert_uint_eq(rd(&g, 0, DFR), 0xffffffff);
    ck_assert_uint_eq(rd(&g, 0, LVT_TIMER), 0x10000);
    ck_assert_uint_eq(msr_r(&g, 0, 0x1b), 0xfee00900);
    ck_assert_uint_eq(msr_r(&g, 1, 0x1b), 0xfee00800);
    rig_fini(&g);
}
END_TEST

START_TEST(higher_class_preempts_and_lower_waits_for_eoi)
{
    struct rig g;
    rig_init(&g);
    send(&g, 0, 0x51);
    ck_assert(intr(&g, 0));
    ck_assert_int_eq(ack(&g, 0), 0x51);
    ck_assert(!intr(&g, 0));
    send(&g, 0, 0x5f); /* same class: waits */
    ck_assert(!intr(&g, 0));
    send(&g, 0, 0x61);
    ck_assert_int_eq(ack(&g, 0), 0x61);
    ck_assert_uint_eq(rd(&g, 0, PPR), 0x60);
    ck_assert_uint_eq(rd(&g, 0, ISR + 0x20), 1u << 17);
    ck_assert_uint_eq(rd(&g, 0, ISR + 0x30), 1u << 1);
    wr(&g, 0, EOI, 0);
    ck_assert(!intr(&g, 0));
    wr(&g, 0, EOI, 0);
    ck_assert_int_eq(ack(&g, 0), 0x5f);
    wr(&g, 0, EOI, 0);
    ck_assert_int_eq(ack(&g, 0), -1);
    ck_assert_uint_eq(g.eois, 0); /* edge-triggered: no broadcast */
    rig_fini(&g);
}
END_TEST

START_TEST(task_priority_holds_back_its_class_and_below)
{
    struct rig g;
    rig_init(&g);
    g.intc[0]->set_cr8(g.intc[0]->ctx, 5);
    ck_assert_uint_eq(rd(&g, 0, TPR), 0x50);
    send(&g, 0, 0x5f);
    ck_assert(!intr(&g, 0));
    ck_assert_int_eq(ack(&g, 0), 0xff); /* at INTA a request held back by TPR gives the spurious vector */
    ck_assert_uint_eq(rd(&g, 0, ISR + 0x20), 0);
    send(&g, 0, 0x60);
    ck_assert(intr(&g, 0));
    wr(&g, 0, TPR, 0x40);
    ck_assert_int_eq(ack(&g, 0), 0x60);
    ck_assert_uint_eq(g.intc[0]->get_cr8(g.intc[0]->ctx), 4);
    rig_fini(&g);
}
END_TEST

START_TEST(eoi_of_a_level_triggered_vector_is_broadcast)
{
    struct rig g;
    rig_init(&g);
    lapic_set_deliver(&g.set, &(struct apic_msg){.dest = 0, .vector = 0x41, .level = true});
    ck_assert_uint_eq(rd(&g, 0, TMR + 0x20), 2);
    ack(&g, 0);
    wr(&g, 0, EOI, 0);
    ck_assert_uint_eq(g.eois, 1);
    ck_assert_uint_eq(g.eoi[0], 0x41);
    send(&g, 0, 0x41); /* the same vector edge-triggered clears TMR */
    ck_assert_uint_eq(rd(&g, 0, TMR + 0x20), 0);
    rig_fini(&g);
}
END_TEST

START_TEST(one_shot_timer_fires_once)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, DIVIDE, 0x3); /* by 16 */
    wr(&g, 0, LVT_TIMER, 0x40);
    wr(&g, 0, INITIAL, 1000);
    run_for(&g.clock, 8000);
    ck_assert_uint_eq(rd(&g, 0, CURRENT), 500);
    run_for(&g.clock, 7999);
    ck_assert(!intr(&g, 0));
    run_for(&g.clock, 1);
    ck_assert_int_eq(ack(&g, 0), 0x40);
    ck_assert_uint_eq(rd(&g, 0, CURRENT), 0);
    wr(&g, 0, EOI, 0);
    run_for(&g.clock, 100000);
    ck_assert(!intr(&g, 0));
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER);
    rig_fini(&g);
}
END_TEST

START_TEST(periodic_timer_keeps_its_phase)
{
    struct rig g;
    unsigned fired = 0;
    rig_init(&g);
    wr(&g, 0, DIVIDE, 0xb); /* by 1 */
    wr(&g, 0, LVT_TIMER, 0x20041);
    wr(&g, 0, INITIAL, 10000);
    for (unsigned i = 0; i < 100; i++) {
        run_for(&g.clock, 1000);
        if (intr(&g, 0)) {
            ck_assert_int_eq(ack(&g, 0), 0x41);
            wr(&g, 0, EOI, 0);
            ck_assert_uint_eq(clock_now(&g.clock) % 10000, 0);
            fired++;
        }
    }
    ck_assert_uint_eq(fired, 10);
    wr(&g, 0, INITIAL, 0); /* stops it */
    run_for(&g.clock, 50000);
    ck_assert(!intr(&g, 0));
    rig_fini(&g);
}
END_TEST

START_TEST(masked_timer_counts_on_without_waking_anybody)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, DIVIDE, 0xb);
    wr(&g, 0, LVT_TIMER, 0x30041);
    wr(&g, 0, INITIAL, 10000);
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER);
    run_for(&g.clock, 13000);
    ck_assert_uint_eq(rd(&g, 0, CURRENT), 7000);
    wr(&g, 0, LVT_TIMER, 0x20041);
    ck_assert_uint_eq(clock_next_deadline(&g.clock), 20000);
    rig_fini(&g);
}
END_TEST

START_TEST(new_divider_changes_the_rate_but_not_the_count)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, DIVIDE, 0xb);
    wr(&g, 0, LVT_TIMER, 0x40);
    wr(&g, 0, INITIAL, 1000);
    run_for(&g.clock, 400);
    wr(&g, 0, DIVIDE, 0xa); /* by 128 */
    ck_assert_uint_eq(rd(&g, 0, CURRENT), 600);
    run_for(&g.clock, 600 * 128 - 1);
    ck_assert(!intr(&g, 0));
    run_for(&g.clock, 1);
    ck_assert(intr(&g, 0));
    wr(&g, 0, DIVIDE, 0xb); /* an expired one-shot does not come back */
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER);
    rig_fini(&g);
}
END_TEST

START_TEST(tsc_deadline_fires_at_the_cpus_tsc)
{
    struct rig g;
    rig_init(&g);
    g.tsc_offset = 1000000;
    ck_assert(msr_w(&g, 0, 0x6e0, 5)); /* ignored: not in this mode */
    ck_assert_uint_eq(msr_r(&g, 0, 0x6e0), 0);
    wr(&g, 0, LVT_TIMER, 0x40042);
    ck_assert(msr_w(&g, 0, 0x6e0, 1005000));
    ck_assert_uint_eq(msr_r(&g, 0, 0x6e0), 1005000);
    wr(&g, 0, INITIAL, 77);
    ck_assert_uint_eq(rd(&g, 0, INITIAL), 0);
    run_for(&g.clock, 4999);
    ck_assert(!intr(&g, 0));
    run_for(&g.clock, 1);
    ck_assert_int_eq(ack(&g, 0), 0x42);
    ck_assert_uint_eq(msr_r(&g, 0, 0x6e0), 0);
    wr(&g, 0, EOI, 0);
    msr_w(&g, 0, 0x6e0, 1); /* long past: at the next boundary */
    clock_run_due(&g.clock);
    ck_assert(intr(&g, 0));
    rig_fini(&g);
}
END_TEST

START_TEST(tsc_adjustment_moves_an_armed_deadline)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, LVT_TIMER, 0x40042);
    msr_w(&g, 0, 0x6e0, 10000);
    g.tsc_offset = 4000;
    lapic_set_tsc_changed(&g.set, 0);
    ck_assert_uint_eq(clock_next_deadline(&g.clock), 6000);
    wr(&g, 0, LVT_TIMER, 0x42); /* leaving the mode disarms */
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER);
    rig_fini(&g);
}
END_TEST

START_TEST(physical_ipi_reaches_the_one_that_is_named)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, ICR_HIGH, 2u << 24);
    wr(&g, 0, ICR_LOW, 0x4045);
    ck_assert(!intr(&g, 0) && !intr(&g, 1) && intr(&g, 2) && !intr(&g, 3));
    ck_assert_int_eq(ack(&g, 2), 0x45);
    ck_assert_uint_eq(rd(&g, 0, ICR_LOW) & 0x1000, 0); /* delivered */
    wr(&g, 0, ICR_HIGH, 0xffu << 24);
    wr(&g, 0, ICR_LOW, 0x4046);
    for (int i = 0; i < CPUS; i++)
        ck_assert_int_eq(ack(&g, i), i == 2 ? -1 : 0x46); /* 0x45 is in service on 2: same class */
    rig_fini(&g);
}
END_TEST

START_TEST(logical_flat_and_cluster_ipis_reach_their_masks)
{
    struct rig g;
    rig_init(&g);
    for (int i = 0; i < CPUS; i++)
        wr(&g, i, LDR, 1u << (24 + i));
    wr(&g, 3, ICR_HIGH, 0x05u << 24);
    wr(&g, 3, ICR_LOW, 0x4847);
    ck_assert(intr(&g, 0) && !intr(&g, 1) && intr(&g, 2) && !intr(&g, 3));
    for (int i = 0; i < CPUS; i++) { /* two clusters of two */
        wr(&g, i, DFR, 0x0fffffff);
        wr(&g, i, LDR, (uint32_t)(i / 2 << 4 | 1 << (i % 2)) << 24);
    }
    wr(&g, 3, ICR_HIGH, 0x13u << 24);
    wr(&g, 3, ICR_LOW, 0x4858);
    ck_assert(intr(&g, 2) && intr(&g, 3) && !intr(&g, 1));
    ck_assert_int_eq(ack(&g, 2), 0x58);
    ck_assert_int_eq(ack(&g, 0), 0x47);
    rig_fini(&g);
}
END_TEST

START_TEST(shorthands_name_self_all_and_others)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 1, ICR_LOW, 0x44031);
    ck_assert(!intr(&g, 0) && intr(&g, 1));
    wr(&g, 1, ICR_LOW, 0xc4041);
    ck_assert(intr(&g, 0) && intr(&g, 2) && intr(&g, 3));
    ck_assert_int_eq(ack(&g, 1), 0x31);
    ck_assert(!intr(&g, 1));
    wr(&g, 1, ICR_LOW, 0x84051);
    for (int i = 0; i < CPUS; i++)
        ck_assert_int_eq(ack(&g, i), 0x51);
    rig_fini(&g);
}
END_TEST

START_TEST(lowest_priority_picks_the_least_busy)
{
    struct rig g;
    rig_init(&g);
    for (int i = 0; i < CPUS; i++) {
        wr(&g, i, LDR, 1u << (24 + i));
        wr(&g, i, TPR, i == 2 ? 0x10 : 0x20);
    }
    wr(&g, 0, ICR_HIGH, 0x0fu << 24);
    wr(&g, 0, ICR_LOW, 0x4961);
    ck_assert(!intr(&g, 0) && !intr(&g, 1) && intr(&g, 2) && !intr(&g, 3));
    ck_assert_int_eq(ack(&g, 2), 0x61);
    wr(&g, 2, ICR_LOW, 0xc0161); /* of all others, who are equal: one */
    ck_assert(intr(&g, 0) && !intr(&g, 1) && !intr(&g, 2) && !intr(&g, 3));
    rig_fini(&g);
}
END_TEST

START_TEST(a_sent_ipi_is_told_unless_it_is_for_the_sender_alone)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 1, ICR_HIGH, 2u << 24);
    wr(&g, 1, ICR_LOW, 0x4061);
    ck_assert_uint_eq(g.sent[1], 1);
    wr(&g, 1, ICR_LOW, 0x44061); /* self */
    ck_assert_uint_eq(g.sent[1], 1);
    wr(&g, 1, ICR_LOW, 0xc4061); /* others */
    ck_assert_uint_eq(g.sent[1], 2);
    wr(&g, 1, ICR_LOW, 0x4005); /* not a vector */
    ck_assert_uint_eq(g.sent[1], 2);
    msr_w(&g, 0, 0x1b, 0xfee00d00);
    msr_w(&g, 0, 0x830, (uint64_t)3 << 32 | 0x61);
    ck_assert_uint_eq(g.sent[0], 1);
    msr_w(&g, 0, 0x83f, 0x61);
    ck_assert_uint_eq(g.sent[0], 1);
    rig_fini(&g);
}
END_TEST

START_TEST(apic_ids_follow_from_the_topology)
{
    struct rig g;
    const struct cpu_topology t = {2, 3, 2};
    static const uint32_t ids[12] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};
    memset(&g, 0, sizeof(g));
    clock_init(&g.clock);
    ck_assert(lapic_set_init(&g.set, &(struct lapic_set_config){.cpu_count = 12, .topology = t, .clock = &g.clock}));
    for (int k = 0; k < 12; k++) {
        ck_assert_uint_eq(rd(&g, k, ID), ids[k] << 24);
        ck_assert_uint_eq(topology_apic_id(&t, (unsigned)k), ids[k]);
    }
    rig_fini(&g);
}
END_TEST

START_TEST(init_resets_the_apic_and_sipi_carries_its_vector)
{
    struct rig g;
    rig_init(&g);
    send(&g, 1, 0x80);
    wr(&g, 0, ICR_HIGH, 1u << 24);
    wr(&g, 0, ICR_LOW, 0xc500); /* INIT, level assert */
    ck_assert_uint_eq(g.pin[1][CPU_PIN_INIT].rises, 1);
    ck_assert_uint_eq(rd(&g, 1, SVR), 0xff);
    ck_assert(!intr(&g, 1));
    wr(&g, 0, ICR_LOW, 0x8500); /* de-assert: nothing */
    ck_assert_uint_eq(g.pin[1][CPU_PIN_INIT].rises, 1);
    wr(&g, 0, ICR_LOW, 0x4699);
    ck_assert_uint_eq(g.pin[1][CPU_PIN_SIPI].rises, 1);
    ck_assert_uint_eq(g.intc[1]->sipi_vector(g.intc[1]->ctx), 0x99);
    wr(&g, 0, ICR_LOW, 0x4400);
    ck_assert_uint_eq(g.pin[1][CPU_PIN_NMI].rises, 1);
    ck_assert_uint_eq(g.pin[0][CPU_PIN_NMI].rises, 0);
    rig_fini(&g);
}
END_TEST

START_TEST(illegal_vector_is_reported_in_esr)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, LVT_ERROR, 0xfe);
    wr(&g, 0, ICR_LOW, 0x44005);
    ck_assert_int_eq(ack(&g, 0), 0xfe);
    ck_assert_uint_eq(rd(&g, 0, ESR), 0);
    wr(&g, 0, ESR, 0);
    ck_assert_uint_eq(rd(&g, 0, ESR), 0x20);
    wr(&g, 0, ESR, 0);
    ck_assert_uint_eq(rd(&g, 0, ESR), 0);
    send(&g, 0, 3);
    wr(&g, 0, ESR, 0);
    ck_assert_uint_eq(rd(&g, 0, ESR), 0x40);
    rd(&g, 0, 0x3f0);
    wr(&g, 0, ESR, 0);
    ck_assert_uint_eq(rd(&g, 0, ESR), 0x80);
    rig_fini(&g);
}
END_TEST

START_TEST(software_disabled_apic_masks_its_lvt_and_takes_no_fixed_interrupt)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 0, LVT_TIMER, 0x40);
    wr(&g, 0, SVR, 0xff);
    ck_assert_uint_eq(rd(&g, 0, LVT_TIMER), 0x10040);
    wr(&g, 0, LVT_TIMER, 0x40);
    ck_assert_uint_eq(rd(&g, 0, LVT_TIMER), 0x10040); /* cannot be unmasked now */
    ck_assert(!lapic_set_deliver(&g.set, &(struct apic_msg){.dest = 0, .vector = 0x50}));
    ck_assert(lapic_set_deliver(&g.set, &(struct apic_msg){.dest = 0, .mode = APIC_NMI}));
    rig_fini(&g);
}
END_TEST

START_TEST(virtual_wire_passes_the_8259_to_the_first_cpu_alone)
{
    struct rig g;
    rig_init(&g);
    lapic_set_reset(&g.set);
    struct irq_line lint0 = lapic_set_lint_line(&g.set, 0), lint1 = lapic_set_lint_line(&g.set, 1);
    g.extint_vector = 0x08;
    irq_set(&lint0, true);
    ck_assert(!intr(&g, 0));
    lapic_set_virtual_wire(&g.set);
    ck_assert(intr(&g, 0) && !intr(&g, 1));
    wr(&g, 0, TPR, 0xf0); /* ExtINT knows no priority */
    ck_assert(intr(&g, 0));
    ck_assert_int_eq(ack(&g, 0), 0x08);
    ck_assert_uint_eq(g.extint_acks, 1);
    irq_set(&lint0, false);
    ck_assert(!intr(&g, 0));
    ck_assert_uint_eq(rd(&g, 0, ISR), 0);
    irq_pulse(&lint1);
    ck_assert_uint_eq(g.pin[0][CPU_PIN_NMI].rises, 1);
    ck_assert_uint_eq(g.pin[1][CPU_PIN_NMI].rises, 0);
    rig_fini(&g);
}
END_TEST

START_TEST(where_the_processor_has_none_the_8259_is_wired_to_it)
{
    struct rig g;
    uint64_t base;
    rig_init(&g);
    g.set.cfg.absent = true;
    lapic_set_reset(&g.set);
    struct irq_line lint0 = lapic_set_lint_line(&g.set, 0), lint1 = lapic_set_lint_line(&g.set, 1);
    lapic_set_virtual_wire(&g.set);
    ck_assert(g.intc[0]->msr_read(g.intc[0]->ctx, 0x1b, &base) && base == 0);
    g.extint_vector = 0x21;
    irq_set(&lint0, true);
    ck_assert(intr(&g, 0));
    ck_assert_int_eq(ack(&g, 0), 0x21);
    irq_set(&lint0, false);
    ck_assert(!intr(&g, 0));
    irq_pulse(&lint1);
    ck_assert_uint_eq(g.pin[0][CPU_PIN_NMI].rises, 1);
    ck_assert(!lapic_set_msi(&g.set, 0xfee00000, 0x55) && !intr(&g, 0));
    rig_fini(&g);
}
END_TEST

START_TEST(fixed_lint0_follows_its_trigger_mode)
{
    struct rig g;
    rig_init(&g);
    struct irq_line lint0 = lapic_set_lint_line(&g.set, 0);
    wr(&g, 0, LINT0, 0x44);
    irq_set(&lint0, true);
    ck_assert_int_eq(ack(&g, 0), 0x44);
    wr(&g, 0, EOI, 0);
    ck_assert(!intr(&g, 0));
    wr(&g, 0, LINT0, 0x8044); /* level, and the line is high */
    ck_assert_int_eq(ack(&g, 0), 0x44);
    ck_assert_uint_eq(rd(&g, 0, LINT0) & 0x4000, 0x4000);
    wr(&g, 0, EOI, 0);
    ck_assert(intr(&g, 0));
    ack(&g, 0);
    irq_set(&lint0, false);
    wr(&g, 0, EOI, 0);
    ck_assert(!intr(&g, 0));
    rig_fini(&g);
}
END_TEST

START_TEST(globally_disabled_apic_leaves_the_pins_to_the_8259)
{
    struct rig g;
    rig_init(&g);
    struct irq_line lint0 = lapic_set_lint_line(&g.set, 0);
    g.extint_vector = 0x21;
    ck_assert(msr_w(&g, 0, 0x1b, 0xfee00100));
    ck_assert_uint_eq(rd(&g, 0, SVR), 0xffffffff);
    irq_set(&lint0, true);
    ck_assert(intr(&g, 0));
    ck_assert_int_eq(ack(&g, 0), 0x21);
    ck_assert(msr_w(&g, 0, 0x1b, 0xfee00900));
    ck_assert_uint_eq(rd(&g, 0, SVR), 0xff); /* registers came back as after reset */
    rig_fini(&g);
}
END_TEST

START_TEST(apic_base_refuses_reserved_bits_and_illegal_transitions)
{
    struct rig g;
    rig_init(&g);
    ck_assert(!msr_w(&g, 0, 0x1b, 0xfee00901));
    ck_assert(!msr_w(&g, 0, 0x1b, 1ull << 45 | 0xfee00900));
    ck_assert(!msr_w(&g, 0, 0x1b, 0xfee00500)); /* x2APIC without enable */
    ck_assert(msr_w(&g, 0, 0x1b, 0xfee00d00));
    ck_assert(!msr_w(&g, 0, 0x1b, 0xfee00900)); /* back to xAPIC directly */
    ck_assert(msr_w(&g, 0, 0x1b, 0xfee00100));
    ck_assert(!msr_w(&g, 0, 0x1b, 0xfee00d00)); /* disabled to x2APIC directly */
    ck_assert(msr_w(&g, 0, 0x1b, 0xfee00900));
    rig_fini(&g);
}
END_TEST

START_TEST(x2apic_msrs_replace_the_window)
{
    struct rig g;
    uint64_t v;
    rig_init(&g);
    ck_assert(!g.intc[2]->msr_read(g.intc[2]->ctx, 0x802, &v)); /* not yet */
    for (int i = 0; i < CPUS; i++)
        ck_assert(msr_w(&g, i, 0x1b, 0xfee00c00 | (i ? 0 : 0x100)));
    ck_assert_uint_eq(rd(&g, 2, ID), 0xffffffff);
    ck_assert_uint_eq(msr_r(&g, 2, 0x802), 2);
    ck_assert_uint_eq(msr_r(&g, 2, 0x80d), 1u << 2);
    ck_assert_uint_eq(msr_r(&g, 2, 0x803), 0x50014);
    ck_assert(msr_w(&g, 0, 0x830, 2ull << 32 | 0x4047));
    ck_assert_int_eq(ack(&g, 2), 0x47);
    ck_assert(msr_w(&g, 2, 0x80b, 0));
    ck_assert(msr_w(&g, 0, 0x830, 0x000aull << 32 | 0x4848)); /* logical: 1 and 3 */
    ck_assert(!intr(&g, 0) && intr(&g, 1) && !intr(&g, 2) && intr(&g, 3));
    ck_assert(msr_w(&g, 2, 0x83f, 0x60));
    ck_assert_int_eq(ack(&g, 2), 0x60);
    ck_assert(msr_w(&g, 0, 0x830, 0xffffffffull << 32 | 0x4070));
    ck_assert_int_eq(ack(&g, 3), 0x70);
    rig_fini(&g);
}
END_TEST

START_TEST(x2apic_refuses_what_must_fault)
{
    struct rig g;
    uint64_t v;
    rig_init(&g);
    msr_w(&g, 0, 0x1b, 0xfee00d00);
    ck_assert(!msr_w(&g, 0, 0x80b, 1));          /* EOI takes zero only */
    ck_assert(!msr_w(&g, 0, 0x828, 1));          /* so does ESR */
    ck_assert(!msr_w(&g, 0, 0x802, 0));          /* read-only */
    ck_assert(!msr_w(&g, 0, 0x80e, 0xffffffff)); /* DFR does not exist */
    ck_assert(!msr_w(&g, 0, 0x831, 0));          /* nor does a second ICR half */
    ck_assert(!msr_w(&g, 0, 0x832, 0x800));      /* reserved bit of an LVT entry */
    ck_assert(!msr_w(&g, 0, 0x808, 0x100));
    ck_assert(!g.intc[0]->msr_read(g.intc[0]->ctx, 0x80b, &v)); /* write-only */
    ck_assert(!g.intc[0]->msr_read(g.intc[0]->ctx, 0x83f, &v));
    ck_assert(!g.intc[0]->msr_read(g.intc[0]->ctx, 0x8ff, &v));
    ck_assert(!g.intc[0]->msr_read(g.intc[0]->ctx, 0x10, &v)); /* not the APIC's */
    rig_fini(&g);
}
END_TEST

START_TEST(write_from_no_cpu_is_a_message_signalled_interrupt)
{
    struct rig g;
    rig_init(&g);
    ck_assert(lapic_set_msi(&g.set, 0xfee03000, 0x4072));
    ck_assert_int_eq(ack(&g, 3), 0x72);
    reg_write_cpu(&lapic_bus_ops, &g.set, 0, 4, 0x73, BUS_NO_CPU);
    ck_assert_int_eq(ack(&g, 0), 0x73);
    ck_assert_uint_eq(reg_read_cpu(&lapic_bus_ops, &g.set, ID, 4, BUS_NO_CPU), 0xffffffff);
    rig_fini(&g);
}
END_TEST

START_TEST(any_access_at_any_offset_is_survived)
{
    struct rig g;
    rig_init(&g);
    static const unsigned sizes[] = {1, 2, 4, 8};
    for (unsigned offset = 0; offset < 4096; offset++)
        for (unsigned i = 0; i < 4; i++) {
            reg_read_cpu(&lapic_bus_ops, &g.set, offset, sizes[i], 1);
            reg_write_cpu(&lapic_bus_ops, &g.set, offset, sizes[i], 0x9e3779b97f4a7c15ull * (offset + 1), 1);
        }
    msr_w(&g, 1, 0x1b, 0xfee00c00);
    for (uint32_t m = 0x800; m < 0x900; m++) {
        uint64_t v;
        msr_w(&g, 1, m, 0x9e3779b97f4a7c15ull * m);
        msr_w(&g, 1, m, m & 0xff);
        g.intc[1]->msr_read(g.intc[1]->ctx, m, &v);
    }
    run_for(&g.clock, 1000);
    rig_fini(&g);
}
END_TEST

static void set_up_for_save(struct rig *a)
{
    wr(a, 0, DIVIDE, 0x2);
    wr(a, 0, LVT_TIMER, 0x20050);
    wr(a, 0, INITIAL, 700);
    wr(a, 1, LVT_TIMER, 0x40051);
    msr_w(a, 1, 0x6e0, 123456);
    wr(a, 2, TPR, 0x30);
    send(a, 2, 0x35);
    send(a, 0, 0x90);
    run_for(&a->clock, 12345);
    ack(a, 0);
    msr_w(a, 3, 0x1b, 0xfee00c00);
}

START_TEST(loaded_set_behaves_as_the_saved_one)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    set_up_for_save(&a);
    ROUND_TRIP(&a.clock, &b.clock, lapic_set_save(&a.set, w), lapic_set_load(&b.set, r));
    ck_assert(intr(&a, 0) == intr(&b, 0));
    struct rig *both[2] = {&a, &b};
    int64_t seen[2][40];
    for (unsigned i = 0; i < 2; i++) {
        struct rig *g = both[i];
        unsigned n = 0;
        for (unsigned step = 0; step < 8; step++) {
            run_for(&g->clock, 17777);
            seen[i][n++] = rd(g, 0, CURRENT);
            seen[i][n++] = ack(g, 0);
            wr(g, 0, EOI, 0);
            seen[i][n++] = ack(g, 1);
            wr(g, 2, TPR, 0x40 - 8 * step);
            seen[i][n++] = ack(g, 2);
        }
        seen[i][n++] = (int64_t)msr_r(g, 3, 0x1b);
        seen[i][n++] = (int64_t)msr_r(g, 1, 0x6e0);
        memset(&seen[i][n], 0, sizeof(seen[i]) - n * sizeof(seen[i][0]));
    }
    ck_assert_mem_eq(seen[0], seen[1], sizeof(seen[0]));
    rig_fini(&a);
    rig_fini(&b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lapic");
    TCase *t = tcase_create("lapic");
    tcase_add_test(t, reset_state_is_that_of_the_manual);
    tcase_add_test(t, higher_class_preempts_and_lower_waits_for_eoi);
    tcase_add_test(t, task_priority_holds_back_its_class_and_below);
    tcase_add_test(t, eoi_of_a_level_triggered_vector_is_broadcast);
    tcase_add_test(t, one_shot_timer_fires_once);
    tcase_add_test(t, periodic_timer_keeps_its_phase);
    tcase_add_test(t, masked_timer_counts_on_without_waking_anybody);
    tcase_add_test(t, new_divider_changes_the_rate_but_not_the_count);
    tcase_add_test(t, tsc_deadline_fires_at_the_cpus_tsc);
    tcase_add_test(t, tsc_adjustment_moves_an_armed_deadline);
    tcase_add_test(t, physical_ipi_reaches_the_one_that_is_named);
    tcase_add_test(t, logical_flat_and_cluster_ipis_reach_their_masks);
    tcase_add_test(t, shorthands_name_self_all_and_others);
    tcase_add_test(t, lowest_priority_picks_the_least_busy);
    tcase_add_test(t, a_sent_ipi_is_told_unless_it_is_for_the_sender_alone);
    tcase_add_test(t, apic_ids_follow_from_the_topology);
    tcase_add_test(t, init_resets_the_apic_and_sipi_carries_its_vector);
    tcase_add_test(t, illegal_vector_is_reported_in_esr);
    tcase_add_test(t, software_disabled_apic_masks_its_lvt_and_takes_no_fixed_interrupt);
    tcase_add_test(t, virtual_wire_passes_the_8259_to_the_first_cpu_alone);
    tcase_add_test(t, fixed_lint0_follows_its_trigger_mode);
    tcase_add_test(t, globally_disabled_apic_leaves_the_pins_to_the_8259);
    tcase_add_test(t, apic_base_refuses_reserved_bits_and_illegal_transitions);
    tcase_add_test(t, where_the_processor_has_none_the_8259_is_wired_to_it);
    tcase_add_test(t, x2apic_msrs_replace_the_window);
    tcase_add_test(t, x2apic_refuses_what_must_fault);
    tcase_add_test(t, write_from_no_cpu_is_a_message_signalled_interrupt);
    tcase_add_test(t, any_access_at_any_offset_is_survived);
    tcase_add_test(t, loaded_set_behaves_as_the_saved_one);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
