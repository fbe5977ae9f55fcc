/*
 * PCI: configuration mechanism 1, BARs on the buses, INTx routing, the chipset's functions.
 */
#include "devices_rig.h"

#include "devices/acpi/acpi_pm.h"
#include "devices/pci/pci_host.h"
#include "devices/reset_cf9.h"

struct rig {
    struct vclock clock;
    struct bus io, mmio;
    struct isa_irq isa;
    struct wire pic[16], pin[24];
    struct acpi_pm pm;
    struct reset_cf9 cf9;
    struct pci_host host;
    struct pci_device card;
    unsigned resets;
    uint8_t pam[PCI_HOST_PAMS], smram;
    uint64_t card_written;
};

static uint64_t card_read(void *dev, const struct bus_txn *t)
{
    return 0xca00 + t->offset;
}

static void card_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct rig *g = dev;
    g->card_written = t->offset << 32 | value;
}

static const struct bus_ops card_ops = {card_read, card_write};

static void rig_reset_wanted(void *ctx)
{
    struct rig *g = ctx;
    g->resets++;
}

static void rig_pam(void *ctx, const uint8_t pam[PCI_HOST_PAMS], uint8_t smram)
{
    struct rig *g = ctx;
    memcpy(g->pam, pam, PCI_HOST_PAMS);
    g->smram = smram;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    bus_init(&g->io, "port", 0x10000, NULL);
    bus_init(&g->mmio, "mmio", 0, NULL);
    struct irq_line pic = wire_line(g->pic, 0), pin = wire_line(g->pin, 0);
    isa_irq_init(&g->isa, &pic, &pin);
    acpi_pm_init(&g->pm, &(struct acpi_pm_config){.clock = &g->clock});
    reset_cf9_init(&g->cf9, &(struct device_signal){rig_reset_wanted, g});
    pci_host_init(&g->host, &(struct pci_host_config){.io = &g->io,
                                                      .mmio = &g->mmio,
                                                      .isa = &g->isa,
                                                      .pm_ops = &acpi_pm_bus_ops,
                                                      .pm = &g->pm,
                                                      .reset_ops = &reset_cf9_bus_ops,
                                                      .reset = &g->cf9,
                                                      .pam_changed = rig_pam,
                                                      .pam_ctx = g});
    ck_assert_int_eq(bus_add(&g->io, 0xcf8, 8, &pci_host_bus_ops, &g->host, "pci_host"), BUS_OK);
}

static void add_card(struct rig *g)
{
    pci_device_init(
        &g->card, "card",
        &(struct pci_identity){.vendor = 0x1234, .device = 0x5678, .class_code = 0xff0000, .interrupt_pin = 1});
    pci_device_add_bar(&g->card, 0, PCI_BAR_IO, 32, &card_ops, g);
    pci_device_add_bar(&g->card, 1, PCI_BAR_MEM32, 0x1000, &card_ops, g);
    pci_device_add_bar(&g->card, 2, PCI_BAR_MEM64, 0x4000, &card_ops, g);
    ck_assert(pci_bus_attach(&g->host.bus, 3 << 3, &g->card));
}

static void rig_fini(struct rig *g)
{
    if (g->card.bus)
        pci_bus_detach(&g->card);
    pci_host_fini(&g->host);
    bus_fini(&g->io);
    bus_fini(&g->mmio);
}

static void select_config(struct rig *g, unsigned devfn, unsigned offset)
{
    bus_write(&g->io, 0xcf8, 4, 0x80000000u | devfn << 8 | (offset & 0xfc), 0);
}

static uint32_t cfg_rd(struct rig *g, unsigned devfn, unsigned offset, unsigned size)
{
    select_config(g, devfn, offset);
    return (uint32_t)bus_read(&g->io, 0xcfc + (offset & 3), size, 0);
}

static void cfg_wr(struct rig *g, unsigned devfn, unsigned offset, unsigned size, uint32_t v)
{
    select_config(g, devfn, offset);
    bus_write(&g->io, 0xcfc + (offset & 3), size, v, 0);
}

START_TEST(expansion_rom_is_seen_while_both_its_enables_are_set)
{
    struct rig g;
    uint8_t rom[3000];
    rig_init(&g);
    for (unsigned i = 0; i < sizeof rom; i++)
        rom[i] = (uint8_t)(i * 7);
    pci_device_init(&g.card, "card", &(struct pci_identity){.vendor = 0x1234, .device = 0x5678});
    pci_device_add_rom(&g.card, rom, sizeof rom);
    ck_assert(pci_bus_attach(&g.host.bus, 3 << 3, &g.card));
    cfg_wr(&g, 3 << 3, PCI_ROM_BAR, 4, 0xfffffffe);
    ck_assert_uint_eq(cfg_rd(&g, 3 << 3, PCI_ROM_BAR, 4), 0xfffff000);
    cfg_wr(&g, 3 << 3, PCI_ROM_BAR, 4, 0xfe000001);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xfe000000, 4, 0), 0xffffffff);
    cfg_wr(&g, 3 << 3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xfe000000, 4, 0), 0x150e0700);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xfe000000 + 2998, 4, 0), 0xffff0000u | rom[2999] << 8 | rom[2998]);
    bus_write(&g.mmio, 0xfe000000, 4, 0, 0);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xfe000000, 1, 0), 0);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xfe000001, 1, 0), 7);
    cfg_wr(&g, 3 << 3, PCI_ROM_BAR, 4, 0xfe000000);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xfe000000, 4, 0), 0xffffffff);
    rig_fini(&g);
}
END_TEST

START_TEST(chipset_functions_are_found_where_systems_expect_them)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(cfg_rd(&g, 0x00, 0, 4), 0x12378086);
    ck_assert_uint_eq(cfg_rd(&g, 0x08, 0, 4), 0x70008086);
    ck_assert_uint_eq(cfg_rd(&g, 0x0b, 0, 4), 0x71138086);
    ck_assert_uint_eq(cfg_rd(&g, 0x00, 0x0a, 2), 0x0600);
    ck_assert_uint_eq(cfg_rd(&g, 0x08, 0x0a, 2), 0x0601);
    ck_assert_uint_eq(cfg_rd(&g, 0x0b, 0x0a, 2), 0x0680);
    ck_assert_uint_eq(cfg_rd(&g, 0x08, 0x0e, 1), 0x80);
    ck_assert_uint_eq(cfg_rd(&g, 0x10, 0, 4), 0xffffffff);
    ck_assert_uint_eq(cfg_rd(&g, 0x10, 2, 2), 0xffff);
    rig_fini(&g);
}
END_TEST

START_TEST(address_register_is_written_by_dwords_only)
{
    struct rig g;
    rig_init(&g);
    bus_write(&g.io, 0xcf8, 4, 0x80000800, 0);
    ck_assert_uint_eq(bus_read(&g.io, 0xcf8, 4, 0), 0x80000800);
    bus_write(&g.io, 0xcf8, 1, 0x44, 0);
    bus_write(&g.io, 0xcfa, 2, 0x4444, 0);
    ck_assert_uint_eq(bus_read(&g.io, 0xcf8, 4, 0), 0x80000800);
    bus_write(&g.io, 0xcf8, 4, 0x00000800, 0); /* enable bit off */
    ck_assert_uint_eq(bus_read(&g.io, 0xcfc, 4, 0), 0xffffffff);
    bus_write(&g.io, 0xcf8, 4, 0x80010000, 0); /* another bus */
    ck_assert_uint_eq(bus_read(&g.io, 0xcfc, 4, 0), 0xffffffff);
    rig_fini(&g);
}
END_TEST

START_TEST(byte_access_at_cf9_is_the_reset_register)
{
    struct rig g;
    rig_init(&g);
    bus_write(&g.io, 0xcf9, 1, 0x02, 0);
    ck_assert_uint_eq(g.resets, 0);
    ck_assert_uint_eq(bus_read(&g.io, 0xcf9, 1, 0), 0x02);
    bus_write(&g.io, 0xcf9, 1, 0x06, 0);
    ck_assert_uint_eq(g.resets, 1);
    ck_assert_uint_eq(bus_read(&g.io, 0xcf8, 4, 0), 0);
    rig_fini(&g);
}
END_TEST

START_TEST(bars_size_and_map_and_move)
{
    struct rig g;
    rig_init(&g);
    add_card(&g);
    cfg_wr(&g, 0x18, 0x10, 4, 0xffffffff);
    cfg_wr(&g, 0x18, 0x14, 4, 0xffffffff);
    cfg_wr(&g, 0x18, 0x18, 4, 0xffffffff);
    cfg_wr(&g, 0x18, 0x1c, 4, 0xffffffff);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x10, 4), 0xffffffe1);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x14, 4), 0xfffff000);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x18, 4), 0xffffc004);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x1c, 4), 0xffffffff);
    cfg_wr(&g, 0x18, 4, 2, 3); /* decoding on while the sizes still stand there: nothing is mapped */
    ck_assert_uint_eq(g.mmio.count, 0);
    cfg_wr(&g, 0x18, 0x10, 4, 0xc000);
    cfg_wr(&g, 0x18, 0x14, 4, 0xd0000000);
    cfg_wr(&g, 0x18, 0x18, 4, 0x00000000);
    cfg_wr(&g, 0x18, 0x1c, 4, 0x10);
    ck_assert_uint_eq(bus_read(&g.io, 0xc004, 2, 0), 0xca04);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xd0000008, 4, 0), 0xca08);
    ck_assert_uint_eq(bus_read(&g.mmio, 0x1000000010, 4, 0), 0xca10);
    cfg_wr(&g, 0x18, 0x14, 4, 0xd8000000);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xd0000008, 4, 0), 0xffffffff);
    bus_write(&g.mmio, 0xd8000020, 4, 0x77, 0);
    ck_assert_uint_eq(g.card_written, 0x2000000077);
    cfg_wr(&g, 0x18, 4, 2, 1);
    ck_assert_uint_eq(bus_read(&g.mmio, 0xd8000008, 4, 0), 0xffffffff);
    ck_assert_uint_eq(bus_read(&g.io, 0xc004, 2, 0), 0xca04);
    pci_device_reset(&g.card);
    ck_assert_uint_eq(bus_read(&g.io, 0xc004, 2, 0), 0xffff);
    rig_fini(&g);
}
END_TEST

START_TEST(bar_on_top_of_another_device_waits_until_it_is_moved)
{
    struct rig g;
    rig_init(&g);
    add_card(&g);
    cfg_wr(&g, 0x18, 4, 2, 1);
    cfg_wr(&g, 0x18, 0x10, 4, 0x0ce0); /* covers 0xcf8 */
    ck_assert_uint_eq(cfg_rd(&g, 0, 0, 4), 0x12378086);
    cfg_wr(&g, 0x18, 0x10, 4, 0x2000);
    ck_assert_uint_eq(bus_read(&g.io, 0x2002, 2, 0), 0xca02);
    rig_fini(&g);
}
END_TEST

START_TEST(where_bars_overlap_the_order_of_writes_does_not_matter)
{
    for (unsigned first = 0; first < 2; first++) {
        struct rig g;
        struct pci_device other;
        rig_init(&g);
        add_card(&g);
        pci_device_init(&other, "other", &(struct pci_identity){.vendor = 1, .device = 2});
        pci_device_add_bar(&other, 0, PCI_BAR_IO, 32, &pci_host_bus_ops, &g.host);
        ck_assert(pci_bus_attach(&g.host.bus, 7 << 3, &other));
        for (unsigned k = 0; k < 2; k++) {
            uint8_t devfn = (k ^ first) ? 7 << 3 : 0x18;
            cfg_wr(&g, devfn, 4, 2, 1);
            cfg_wr(&g, devfn, 0x10, 4, 0x2000);
        }
        ck_assert_uint_eq(bus_read(&g.io, 0x2002, 2, 0), 0xca02);
        ck_assert_uint_eq(other.bar[0].mapped, PCI_UNMAPPED);
        pci_host_set_pm_base(&g.host, 0x2000); /* a function before both */
        ck_assert_uint_eq(g.card.bar[0].mapped, PCI_UNMAPPED);
        cfg_wr(&g, 0x0b, 0x80, 1, 0);
        ck_assert_uint_eq(g.card.bar[0].mapped, 0x2000);
        pci_bus_detach(&other);
        rig_fini(&g);
    }
}
END_TEST

START_TEST(read_only_registers_stay)
{
    struct rig g;
    rig_init(&g);
    add_card(&g);
    for (unsigned offset = 0; offset < 256; offset += 4)
        cfg_wr(&g, 0x18, offset, 4, 0xffffffff);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0, 4), 0x56781234);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 8, 4), 0xff000000);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x3d, 1), 1);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x3c, 1), 0xff);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 0x40, 4), 0);
    rig_fini(&g);
}
END_TEST

START_TEST(intx_goes_to_the_pirq_of_its_slot)
{
    struct rig g;
    rig_init(&g);
    add_card(&g); /* slot 3, INTA: PIRQC */
    pci_device_set_intx(&g.card, true);
    ck_assert(g.pin[18].level && !g.pin[16].level);
    ck_assert_uint_eq(cfg_rd(&g, 0x18, 6, 2) & 8, 8);
    cfg_wr(&g, 0x08, 0x62, 1, 11);
    ck_assert(g.pic[11].level);
    cfg_wr(&g, 0x08, 0x62, 1, 0x80);
    ck_assert(!g.pic[11].level);
    cfg_wr(&g, 0x08, 0x62, 1, 13); /* not an input that the bridge can route to */
    ck_assert(!g.pic[13].level);
    cfg_wr(&g, 0x18, 4, 2, 0x400); /* interrupt disable */
    ck_assert(!g.pin[18].level);
    cfg_wr(&g, 0x18, 4, 2, 0);
    ck_assert(g.pin[18].level);
    pci_device_set_intx(&g.card, false);
    ck_assert(!g.pin[18].level);
    rig_fini(&g);
}
END_TEST

START_TEST(devices_that_share_a_pirq_are_ored)
{
    struct rig g;
    struct pci_device other;
    rig_init(&g);
    add_card(&g);
    pci_device_init(&other, "other", &(struct pci_identity){.vendor = 1, .device = 2, .interrupt_pin = 1});
    ck_assert(pci_bus_attach(&g.host.bus, 7 << 3, &other)); /* slot 7: PIRQC too */
    ck_assert(!pci_bus_attach(&g.host.bus, 7 << 3, &other));
    pci_device_set_intx(&g.card, true);
    pci_device_set_intx(&other, true);
    pci_device_set_intx(&g.card, false);
    ck_assert(g.pin[18].level);
    pci_bus_detach(&other); /* unplugging releases the line */
    ck_assert(!g.pin[18].level);
    rig_fini(&g);
}
END_TEST

START_TEST(pm_block_appears_where_pmbase_says)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(bus_read(&g.io, 0x608, 4, 0), 0xffffffff);
    pci_host_set_pm_base(&g.host, 0x600);
    ck_assert_uint_eq(cfg_rd(&g, 0x0b, 0x40, 4), 0x601);
    clock_skip_to(&g.clock, CLOCK_HZ);
    ck_assert_uint_eq(bus_read(&g.io, 0x608, 4, 0), 3579545);
    cfg_wr(&g, 0x0b, 0x40, 4, 0xb000);
    ck_assert_uint_eq(bus_read(&g.io, 0x608, 4, 0), 0xffffffff);
    ck_assert_uint_eq(bus_read(&g.io, 0xb008, 4, 0), 3579545);
    cfg_wr(&g, 0x0b, 0x80, 1, 0);
    ck_assert_uint_eq(bus_read(&g.io, 0xb008, 4, 0), 0xffffffff);
    rig_fini(&g);
}
END_TEST

START_TEST(pam_and_smram_writes_are_reported)
{
    struct rig g;
    rig_init(&g);
    cfg_wr(&g, 0, 0x59, 1, 0xff);
    cfg_wr(&g, 0, 0x5a, 2, 0x3311);
    cfg_wr(&g, 0, 0x72, 1, 0x4a);
    ck_assert_uint_eq(g.pam[0], 0xf0);
    ck_assert_uint_eq(g.pam[1], 0x11);
    ck_assert_uint_eq(g.pam[2], 0x33);
    ck_assert_uint_eq(g.smram, 0x4a);
    pci_host_reset(&g.host);
    ck_assert_uint_eq(g.pam[1], 0);
    rig_fini(&g);
}
END_TEST

START_TEST(loaded_bus_maps_and_routes_as_the_saved_one)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    add_card(&a);
    add_card(&b);
    pci_host_set_pm_base(&a.host, 0x600);
    pci_host_set_pirq(&a.host, (const uint8_t[]){10, 11, 10, 11});
    cfg_wr(&a, 0x18, 0x10, 4, 0xc000);
    cfg_wr(&a, 0x18, 0x14, 4, 0xd0000000);
    cfg_wr(&a, 0x18, 4, 2, 3);
    cfg_wr(&a, 0, 0x5a, 1, 0x33);
    pci_device_set_intx(&a.card, true);
    cfg_rd(&a, 0x18, 0x14, 4);
    /* The card of b sits somewhere else before the load. */
    cfg_wr(&b, 0x18, 0x10, 4, 0x600);
    cfg_wr(&b, 0x18, 4, 2, 3);
    ROUND_TRIP(&a.clock, &b.clock, (isa_irq_save(&a.isa, w), pci_host_save(&a.host, w), pci_device_save(&a.card, w)),
               (isa_irq_load(&b.isa, r), pci_device_load(&b.card, r), pci_host_load(&b.host, r)));
    memcpy(b.pic, a.pic, sizeof(b.pic));
    memcpy(b.pin, a.pin, sizeof(b.pin));
    ck_assert_uint_eq(bus_read(&b.io, 0xcfc, 4, 0), 0xd0000000);
    ck_assert_uint_eq(bus_read(&b.io, 0xc004, 2, 0), 0xca04);
    ck_assert_uint_eq(bus_read(&b.mmio, 0xd0000004, 2, 0), 0xca04);
    ck_assert_uint_ne(bus_read(&b.io, 0x608, 4, 0), 0xffffffff);
    ck_assert_uint_eq(b.pam[1], 0x33);
    ck_assert(b.pic[10].level);
    pci_device_set_intx(&b.card, false);
    ck_assert(!b.pic[10].level && !b.pin[18].level);
    rig_fini(&a);
    rig_fini(&b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("pci");
    TCase *t = tcase_create("pci");
    tcase_add_test(t, expansion_rom_is_seen_while_both_its_enables_are_set);
    tcase_add_test(t, chipset_functions_are_found_where_systems_expect_them);
    tcase_add_test(t, address_register_is_written_by_dwords_only);
    tcase_add_test(t, byte_access_at_cf9_is_the_reset_register);
    tcase_add_test(t, bars_size_and_map_and_move);
    tcase_add_test(t, bar_on_top_of_another_device_waits_until_it_is_moved);
    tcase_add_test(t, where_bars_overlap_the_order_of_writes_does_not_matter);
    tcase_add_test(t, read_only_registers_stay);
    tcase_add_test(t, intx_goes_to_the_pirq_of_its_slot);
    tcase_add_test(t, devices_that_share_a_pirq_are_ored);
    tcase_add_test(t, pm_block_appears_where_pmbase_says);
    tcase_add_test(t, pam_and_smram_writes_are_reported);
    tcase_add_test(t, loaded_bus_maps_and_routes_as_the_saved_one);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
