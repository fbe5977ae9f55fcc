/*
 * Message-signalled interrupts: what a function sends, when masks hold it back, and that it reaches a local APIC.
 */
#include "devices_rig.h"

#include "devices/irq/lapic.h"
#include "devices/pci/pci_msi.h"

struct sent {
    uint64_t address;
    uint32_t data;
};

struct rig {
    struct bus io, mmio;
    struct pci_bus pci;
    struct pci_device card;
    struct pci_msix msix;
    struct sent sent[16];
    unsigned count;
};

static void on_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct rig *g = ctx;
    ck_assert_uint_lt(g->count, ARRAY_LEN(g->sent));
    g->sent[g->count++] = (struct sent){address, data};
}

#define CARD      0x18
#define TABLE     0xe0000000ull
#define MASTER_ON (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

static void rig_init(struct rig *g)
{
    const struct irq_line none[4] = {{0}};
    memset(g, 0, sizeof(*g));
    bus_init(&g->io, "port", 0x10000, NULL);
    bus_init(&g->mmio, "mmio", 0, NULL);
    pci_bus_init(&g->pci, &g->io, &g->mmio, none, NULL);
    pci_bus_set_msi(&g->pci, on_msi, g);
    pci_device_init(&g->card, "card", &(struct pci_identity){.vendor = 0x1234, .device = 1, .interrupt_pin = 1});
    pci_msi_add(&g->card, 4);
    pci_msix_init(&g->msix, &g->card, 1, 3);
    ck_assert(pci_bus_attach(&g->pci, CARD, &g->card));
    pci_bus_config_write(&g->pci, CARD, PCI_BAR0 + 4, 4, TABLE);
    pci_bus_config_write(&g->pci, CARD, PCI_COMMAND, 2, MASTER_ON);
}

static void rig_fini(struct rig *g)
{
    pci_bus_detach(&g->card);
    bus_fini(&g->io);
    bus_fini(&g->mmio);
}

static unsigned find_cap(struct rig *g, uint8_t id)
{
    unsigned at = pci_bus_config_read(&g->pci, CARD, PCI_CAPABILITIES, 1);
    for (unsigned n = 0; at && n < 16; n++, at = pci_bus_config_read(&g->pci, CARD, at + 1, 1))
        if (pci_bus_config_read(&g->pci, CARD, at, 1) == id)
            return at;
    return 0;
}

static void msix_turn(struct rig *g, uint16_t control)
{
    pci_bus_config_write(&g->pci, CARD, find_cap(g, PCI_CAP_MSIX) + 2, 2, control);
}

static void put_entry(struct rig *g, unsigned n, uint64_t address, uint32_t data, uint32_t mask)
{
    bus_write(&g->mmio, TABLE + 16 * n, 4, (uint32_t)address, 0);
    bus_write(&g->mmio, TABLE + 16 * n + 4, 4, address >> 32, 0);
    bus_write(&g->mmio, TABLE + 16 * n + 8, 4, data, 0);
    bus_write(&g->mmio, TABLE + 16 * n + 12, 4, mask, 0);
}

START_TEST(capabilities_are_a_list_that_status_announces)
{
    struct rig g;
    rig_init(&g);
    ck_assert(pci_bus_config_read(&g.pci, CARD, PCI_STATUS, 2) & PCI_STATUS_CAPS);
    unsigned msi = find_cap(&g, PCI_CAP_MSI), msix = find_cap(&g, PCI_CAP_MSIX);
    ck_assert_uint_ge(msi, PCI_CAP_FIRST);
    ck_assert_uint_ge(msix, PCI_CAP_FIRST);
    ck_assert_uint_eq(msi & 3, 0);
    ck_assert_uint_eq(msix & 3, 0);
    ck_assert_uint_eq(pci_bus_config_read(&g.pci, CARD, msi + 2, 2), 0x0084); /* 64-bit, four messages */
    ck_assert_uint_eq(pci_bus_config_read(&g.pci, CARD, msix + 2, 2), 2);     /* three messages */
    ck_assert_uint_eq(pci_bus_config_read(&g.pci, CARD, msix + 4, 4), 1);     /* table: BAR 1, offset 0 */
    ck_assert_uint_eq(pci_bus_config_read(&g.pci, CARD, msix + 8, 4), 0x801);
    pci_bus_config_write(&g.pci, CARD, msix, 4, 0xffffffff); /* identity and next are fixed */
    ck_assert_uint_eq(find_cap(&g, PCI_CAP_MSI), msi);
    rig_fini(&g);
}
END_TEST

START_TEST(msi_message_carries_its_number_in_the_bits_that_the_guest_allowed)
{
    struct rig g;
    rig_init(&g);
    unsigned cap = find_cap(&g, PCI_CAP_MSI);
    pci_msi_send(&g.card, 0);
    ck_assert_uint_eq(g.count, 0); /* off */
    pci_bus_config_write(&g.pci, CARD, cap + 4, 4, 0xfee01003);
    pci_bus_config_write(&g.pci, CARD, cap + 8, 4, 0);
    pci_bus_config_write(&g.pci, CARD, cap + 12, 2, 0x4143);
    pci_bus_config_write(&g.pci, CARD, cap + 2, 2, 0x0011); /* on, two messages */
    ck_assert(pci_msi_is_on(&g.card));
    pci_msi_send(&g.card, 0);
    pci_msi_send(&g.card, 1);
    pci_msi_send(&g.card, 3);
    ck_assert_uint_eq(g.count, 3);
    ck_assert_uint_eq(g.sent[0].address, 0xfee01000);
    ck_assert_uint_eq(g.sent[0].data, 0x4142);
    ck_assert_uint_eq(g.sent[1].data, 0x4143);
    ck_assert_uint_eq(g.sent[2].data, 0x4143);
    pci_bus_config_write(&g.pci, CARD, cap + 2, 2, 0x0071); /* more than offered */
    pci_msi_send(&g.card, 2);
    ck_assert_uint_eq(g.sent[3].data, 0x4142);
    pci_bus_config_write(&g.pci, CARD, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    pci_msi_send(&g.card, 0);
    ck_assert_uint_eq(g.count, 4); /* no bus master, no write */
    rig_fini(&g);
}
END_TEST

START_TEST(msix_message_comes_from_its_entry_of_the_table)
{
    struct rig g;
    rig_init(&g);
    put_entry(&g, 2, 0x1fee00000ull, 0xabcd0031, 0);
    pci_msix_send(&g.msix, 2);
    ck_assert_uint_eq(g.count, 0); /* off */
    msix_turn(&g, 0x8000);
    pci_msix_send(&g.msix, 2);
    pci_msix_send(&g.msix, 3); /* no such entry */
    pci_msix_send(&g.msix, 0xffff);
    ck_assert_uint_eq(g.count, 1);
    ck_assert_uint_eq(g.sent[0].address, 0x1fee00000ull);
    ck_assert_uint_eq(g.sent[0].data, 0xabcd0031);
    rig_fini(&g);
}
END_TEST

START_TEST(masked_msix_message_is_pending_until_the_last_mask_goes)
{
    struct rig g;
    rig_init(&g);
    put_entry(&g, 1, 0xfee00000, 0x41, 1);
    msix_turn(&g, 0xc000);
    pci_msix_send(&g.msix, 1);
    ck_assert_uint_eq(g.count, 0);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE + PCI_MSIX_PBA, 8, 0), 2);
    bus_write(&g.mmio, TABLE + 16 + 12, 4, 0, 0);
    ck_assert_uint_eq(g.count, 0); /* the function's mask holds it */
    msix_turn(&g, 0x8000);
    ck_assert_uint_eq(g.count, 1);
    ck_assert_uint_eq(g.sent[0].data, 0x41);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE + PCI_MSIX_PBA, 8, 0), 0);
    bus_write(&g.mmio, TABLE + 16 + 12, 4, 1, 0);
    pci_msix_send(&g.msix, 1);
    bus_write(&g.mmio, TABLE + 16 + 12, 4, 0, 0);
    ck_assert_uint_eq(g.count, 2);
    rig_fini(&g);
}
END_TEST

START_TEST(table_ignores_what_it_does_not_have)
{
    struct rig g;
    rig_init(&g);
    for (unsigned at = 0; at < PCI_MSIX_BAR; at += 8)
        bus_write(&g.mmio, TABLE + at, 8, UINT64_MAX, 0);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE, 4, 0), 0xfffffffc);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE + 12, 4, 0), 1);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE + 48, 4, 0), 0);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE + PCI_MSIX_PBA, 4, 0), 0);
    ck_assert_uint_eq(bus_read(&g.mmio, TABLE + PCI_MSIX_BAR - 1, 1, 0), 0);
    rig_fini(&g);
}
END_TEST

START_TEST(message_raises_its_vector_in_the_local_apic_it_names)
{
    struct rig g;
    struct vclock clock;
    struct lapic_set apics;
    rig_init(&g);
    clock_init(&clock);
    ck_assert(lapic_set_init(&apics, &(struct lapic_set_config){.cpu_count = 2, .clock = &clock}));
    for (unsigned k = 0; k < 2; k++)
        reg_write_cpu(&lapic_bus_ops, &apics, 0xf0, 4, 0x1ff, (int)k);
    put_entry(&g, 0, 0xfee01000, 0x51, 0);
    msix_turn(&g, 0x8000);
    pci_msix_send(&g.msix, 0);
    ck_assert(lapic_set_msi(&apics, g.sent[0].address, g.sent[0].data));
    ck_assert_uint_eq(reg_read_cpu(&lapic_bus_ops, &apics, 0x220, 4, 1), 1u << 0x11);
    ck_assert_uint_eq(reg_read_cpu(&lapic_bus_ops, &apics, 0x220, 4, 0), 0);
    lapic_set_fini(&apics);
    rig_fini(&g);
}
END_TEST

START_TEST(saved_table_and_pending_bits_come_back)
{
    struct rig a, b;
    struct vclock clock;
    clock_init(&clock);
    rig_init(&a);
    rig_init(&b);
    put_entry(&a, 1, 0xfee00000, 0x61, 1);
    msix_turn(&a, 0x8000);
    pci_msix_send(&a.msix, 1);
    ROUND_TRIP(
        &clock, &clock,
        {
            pci_device_save(&a.card, w);
            snap_begin(w, "msix", 1);
            pci_msix_save(&a.msix, w);
            snap_end(w);
        },
        {
            pci_device_load(&b.card, r);
            ck_assert(snap_expect(r, "msix", 1));
            pci_msix_load(&b.msix, r);
        });
    ck_assert(pci_msix_is_on(&b.msix));
    ck_assert_uint_eq(b.count, 0);
    bus_write(&b.mmio, TABLE + 16 + 12, 4, 0, 0);
    ck_assert_uint_eq(b.count, 1);
    ck_assert_uint_eq(b.sent[0].data, 0x61);
    rig_fini(&a);
    rig_fini(&b);
}
END_TEST

START_TEST(assigning_gives_every_bar_a_place_of_its_own)
{
    struct rig g;
    struct pci_device other;
    static const uint8_t irq[4] = {10, 11, 10, 11};
    rig_init(&g);
    pci_device_init(&other, "other",
                    &(struct pci_identity){.vendor = 0x1234, .device = 2, .class_code = 0x010601, .interrupt_pin = 1});
    static const struct bus_ops nothing = {NULL, NULL};
    pci_device_add_bar(&other, 0, PCI_BAR_IO, 64, &nothing, &other);
    pci_device_add_bar(&other, 1, PCI_BAR_MEM32, 0x20000, &nothing, &other);
    pci_device_add_bar(&other, 4, PCI_BAR_MEM64, 0x4000, &nothing, &other);
    ck_assert(pci_bus_attach(&g.pci, 0x20, &other));
    pci_bus_assign(&g.pci, 0xc000, 0xfec00000, irq);
    ck_assert_uint_eq(g.card.bar[1].mapped, TABLE); /* it had one */
    ck_assert_uint_eq(other.bar[0].mapped, 0xc000);
    ck_assert_uint_eq(other.bar[1].mapped, 0xfebe0000);
    ck_assert_uint_eq(other.bar[4].mapped, 0xfebdc000);
    ck_assert_uint_eq(pci_device_read16(&other, PCI_COMMAND), 7); /* a disk's controller masters the bus */
    ck_assert_uint_eq(other.config[PCI_INTERRUPT_LINE], 11);      /* slot 4's INTA is PIRQD */
    pci_bus_detach(&other);
    rig_fini(&g);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("devices_msi");
    TCase *t = tcase_create("msi");
    tcase_add_test(t, capabilities_are_a_list_that_status_announces);
    tcase_add_test(t, msi_message_carries_its_number_in_the_bits_that_the_guest_allowed);
    tcase_add_test(t, msix_message_comes_from_its_entry_of_the_table);
    tcase_add_test(t, masked_msix_message_is_pending_until_the_last_mask_goes);
    tcase_add_test(t, table_ignores_what_it_does_not_have);
    tcase_add_test(t, message_raises_its_vector_in_the_local_apic_it_names);
    tcase_add_test(t, saved_table_and_pending_bits_come_back);
    tcase_add_test(t, assigning_gives_every_bar_a_place_of_its_own);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
