/*
 * ACPI: the fixed hardware, and the tables as an operating system reads them.
 */
#include "devices_rig.h"

#include "devices/acpi/acpi_pm.h"
#include "devices/acpi/acpi_tables.h"
#include "devices/layout.h"
#include "devices/mp_tables.h"

struct rig {
    struct vclock clock;
    struct acpi_pm pm;
    struct wire sci;
    unsigned power_offs;
};

static void rig_power_off(void *ctx)
{
    struct rig *g = ctx;
    g->power_offs++;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    acpi_pm_init(&g->pm, &(struct acpi_pm_config){.clock = &g->clock,
                                                  .sci = wire_line(&g->sci, 0),
                                                  .power_off = {rig_power_off, g},
                                                  .enable_command = 0xf1,
                                                  .disable_command = 0xf0});
}

static void wr(struct rig *g, unsigned offset, unsigned size, uint32_t v)
{
    reg_write(&acpi_pm_bus_ops, &g->pm, offset, size, v);
}

static uint32_t rd(struct rig *g, unsigned offset, unsigned size)
{
    return (uint32_t)reg_read(&acpi_pm_bus_ops, &g->pm, offset, size);
}

static void enable_acpi(struct rig *g)
{
    reg_write(&acpi_pm_smi_bus_ops, &g->pm, 0, 1, 0xf1);
}

START_TEST(timer_runs_at_3_58_mhz_and_wraps_at_24_bits)
{
    struct rig g;
    rig_init(&g);
    run_for(&g.clock, CLOCK_HZ);
    ck_assert_uint_eq(rd(&g, 8, 4), 3579545);
    run_for(&g.clock, 9 * CLOCK_HZ);
    ck_assert_uint_eq(rd(&g, 8, 4), 35795450 & 0xffffff);
}
END_TEST

START_TEST(timer_carry_sets_status_and_interrupts)
{
    struct rig g;
    rig_init(&g);
    enable_acpi(&g);
    ck_assert_uint_eq(rd(&g, 4, 2), 1);
    wr(&g, 2, 2, 1);
    uint64_t carry = device_tick_time(1u << 23, ACPI_PM_TIMER_HZ);
    run_for(&g.clock, carry - 1);
    ck_assert(!g.sci.level);
    run_for(&g.clock, 1);
    ck_assert(g.sci.level);
    ck_assert_uint_eq(rd(&g, 0, 2), 1);
    wr(&g, 0, 2, 1);
    ck_assert(!g.sci.level);
    run_for(&g.clock, carry);
    ck_assert(g.sci.level);
    wr(&g, 2, 2, 0);
    ck_assert(!g.sci.level);
    ck_assert_uint_eq(clock_next_deadline(&g.clock), CLOCK_NEVER);
}
END_TEST

START_TEST(s5_powers_off_and_other_sleeps_do_not)
{
    struct rig g;
    rig_init(&g);
    wr(&g, 4, 2, 0x2000 | 3 << 10);
    ck_assert_uint_eq(g.power_offs, 0);
    wr(&g, 4, 2, 0x0000); /* type alone does nothing */
    ck_assert_uint_eq(g.power_offs, 0);
    wr(&g, 4, 2, 0x2000);
    ck_assert_uint_eq(g.power_offs, 1);
    ck_assert_uint_eq(rd(&g, 4, 2) & 0x2000, 0); /* SLP_EN is write-only */
    wr(&g, 5, 1, 0x20);
    ck_assert_uint_eq(g.power_offs, 2);
}
END_TEST

START_TEST(power_button_raises_sci_when_enabled)
{
    struct rig g;
    rig_init(&g);
    acpi_pm_press_power_button(&g.pm);
    ck_assert_uint_eq(rd(&g, 0, 2), 0x100);
    wr(&g, 2, 2, 0x100);
    ck_assert(!g.sci.level); /* SCI_EN is off */
    enable_acpi(&g);
    ck_assert(g.sci.level);
    wr(&g, 4, 2, 0); /* a write to control cannot turn ACPI off */
    ck_assert(g.sci.level);
    wr(&g, 1, 1, 1);
    ck_assert(!g.sci.level);
    reg_write(&acpi_pm_smi_bus_ops, &g.pm, 0, 1, 0xf0);
    ck_assert_uint_eq(rd(&g, 4, 2), 0);
    ck_assert_uint_eq(reg_read(&acpi_pm_smi_bus_ops, &g.pm, 0, 1), 0xf0);
}
END_TEST

START_TEST(loaded_block_carries_at_the_same_moment)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    enable_acpi(&a);
    wr(&a, 2, 2, 0x101);
    wr(&a, 14, 2, 0x55);
    run_for(&a.clock, CLOCK_HZ);
    ROUND_TRIP(&a.clock, &b.clock, acpi_pm_save(&a.pm, w), acpi_pm_load(&b.pm, r));
    struct rig *both[2] = {&a, &b};
    uint64_t at[2];
    for (unsigned i = 0; i < 2; i++) {
        at[i] = clock_next_deadline(&both[i]->clock);
        run_for(&both[i]->clock, 2 * CLOCK_HZ);
        ck_assert(both[i]->sci.level);
        ck_assert_uint_eq(rd(both[i], 0, 4), 0x01010001);
        ck_assert_uint_eq(rd(both[i], 14, 2), 0x55);
    }
    ck_assert_uint_eq(at[0], at[1]);
}
END_TEST

/* ---- Tables ---- */

static uint64_t le(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static const struct acpi_tables_config full = {.base = LAYOUT_ACPI_TABLES,
                                               .cpu_count = 4,
                                               .pci_window = LAYOUT_PCI_MMIO,
                                               .com_ports = 2,
                                               .keyboard = true,
                                               .vga = true,
                                               .hpet = true};

/* The table of that signature, through the XSDT and the RSDT, which must agree. */
static const uint8_t *table(const struct acpi_image *im, const char *signature)
{
    const uint8_t *rsdt = im->bytes + le(im->bytes + 16, 4) - full.base,
                  *xsdt = im->bytes + le(im->bytes + 24, 8) - full.base;
    size_t count = (le(rsdt + 4, 4) - 36) / 4;
    ck_assert_uint_eq(count, (le(xsdt + 4, 4) - 36) / 8);
    for (size_t i = 0; i < count; i++) {
        uint64_t at = le(rsdt + 36 + 4 * i, 4);
        ck_assert_uint_eq(at, le(xsdt + 36 + 8 * i, 8));
        ck_assert_uint_lt(at - full.base, im->len);
        if (memcmp(im->bytes + at - full.base, signature, 4) == 0)
            return im->bytes + at - full.base;
    }
    return NULL;
}

START_TEST(every_table_is_found_and_sums_to_zero)
{
    struct acpi_image im;
    static const char *const names[] = {"FACP", "APIC", "HPET"};
    ck_assert(acpi_tables_build(&full, &im));
    ck_assert_mem_eq(im.bytes, "RSD PTR ", 8);
    ck_assert_uint_eq(sum(im.bytes, 20), 0);
    ck_assert_uint_eq(sum(im.bytes, 36), 0);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        const uint8_t *t = table(&im, names[i]);
        ck_assert_msg(t != NULL, "%s", names[i]);
        ck_assert_uint_eq(sum(t, le(t + 4, 4)), 0);
    }
    const uint8_t *dsdt = im.bytes + le(table(&im, "FACP") + 40, 4) - full.base;
    ck_assert_mem_eq(dsdt, "DSDT", 4);
    ck_assert_uint_eq(sum(dsdt, le(dsdt + 4, 4)), 0);
    ck_assert_uint_eq(le(table(&im, "FACP") + 36, 4) % 64, 0); /* FACS alignment */
    ck_assert_uint_le(im.len, LAYOUT_ACPI_TABLES_SIZE);
    acpi_image_fini(&im);
}
END_TEST

START_TEST(fadt_states_each_block_twice_and_alike)
{
    struct acpi_image im;
    ck_assert(acpi_tables_build(&full, &im));
    const uint8_t *f = table(&im, "FACP");
    static const struct {
        unsigned field, len, extended;
    } block[] = {{56, 88, 148}, {64, 89, 172}, {76, 91, 208}, {80, 92, 220}};
    ck_assert_uint_eq(le(f + 4, 4), 244);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(le(f + block[i].field, 4), le(f + block[i].extended + 4, 8));
        ck_assert_uint_eq(f[block[i].len] * 8u, f[block[i].extended + 1]);
    }
    ck_assert_uint_eq(le(f + 56, 4), 0x600);
    ck_assert_uint_eq(le(f + 64, 4), 0x604);
    ck_assert_uint_eq(le(f + 76, 4), 0x608);
    ck_assert_uint_eq(le(f + 46, 2), 9);
    ck_assert_uint_eq(le(f + 120, 8), 0xcf9);
    acpi_image_fini(&im);
}
END_TEST

START_TEST(madt_lists_processors_ioapic_and_overrides)
{
    struct acpi_image im;
    unsigned cpus = 0, ioapics = 0, overrides = 0, nmis = 0;
    ck_assert(acpi_tables_build(&full, &im));
    const uint8_t *m = table(&im, "APIC"), *end = m + le(m + 4, 4);
    for (const uint8_t *e = m + 44; e < end; e += e[1]) {
        ck_assert_uint_gt(e[1], 0);
        cpus += e[0] == 0 && e[3] == cpus && e[4] == 1;
        ioapics += e[0] == 1 && le(e + 4, 4) == LAYOUT_IOAPIC && le(e + 8, 4) == 0;
        overrides +=
            e[0] == 2 && ((e[3] == 0 && le(e + 4, 4) == 2) || (e[3] == 9 && le(e + 4, 4) == 9 && le(e + 8, 2) == 0x0d));
        nmis += e[0] == 4;
    }
    ck_assert_uint_eq(cpus, 4);
    ck_assert_uint_eq(ioapics, 1);
    ck_assert_uint_eq(overrides, 2);
    ck_assert_uint_eq(nmis, 1);
    acpi_image_fini(&im);
}
END_TEST

/* Walks package lengths of the blocks at one level; returns how many terms it met. Only what the DSDT uses. */
static size_t package_length(const uint8_t *p, size_t *bytes)
{
    *bytes = 1 + (p[0] >> 6);
    size_t n = *bytes == 1 ? p[0] & 0x3f : p[0] & 0x0f;
    for (size_t i = 1; i < *bytes; i++)
        n |= (size_t)p[i] << (8 * i - 4);
    return n;
}

START_TEST(dsdt_blocks_end_where_they_say)
{
    static uint8_t body[16384];
    struct acpi_tables_config cfg = full;
    size_t n = acpi_dsdt_build(&cfg, body, sizeof(body)), at = 0, bytes, scopes = 0;
    ck_assert_uint_gt(n, 1000);
    /* Name \_S5 and \PICF, Method \_PIC, Scope \_SB, and nothing after it. */
    while (at < n && body[at] != 0x10)
        at++;
    ck_assert_uint_lt(at, 100);
    size_t len = package_length(body + at + 1, &bytes);
    ck_assert_uint_eq(at + 1 + len, n);
    for (size_t i = at + 1 + bytes + 5; i < n;) { /* devices of \_SB */
        ck_assert_uint_eq(body[i], 0x5b);
        ck_assert_uint_eq(body[i + 1], 0x82);
        i += 2 + package_length(body + i + 2, &bytes);
        scopes++;
    }
    ck_assert_uint_eq(scopes, 2);                           /* PCI0, HPET */
    ck_assert_uint_eq(acpi_dsdt_build(&cfg, body, 500), 0); /* no room: says so */
}
END_TEST

START_TEST(tables_depend_on_the_configuration_alone)
{
    struct acpi_image a, b;
    struct acpi_tables_config big = full;
    ck_assert(acpi_tables_build(&full, &a));
    ck_assert(acpi_tables_build(&full, &b));
    ck_assert_uint_eq(a.len, b.len);
    ck_assert_mem_eq(a.bytes, b.bytes, a.len);
    acpi_image_fini(&a);
    acpi_image_fini(&b);
    big.cpu_count = 255;
    big.com_ports = 4;
    ck_assert(acpi_tables_build(&big, &a));
    ck_assert_uint_eq(sum(table(&a, "APIC"), le(table(&a, "APIC") + 4, 4)), 0);
    acpi_image_fini(&a);
}
END_TEST

START_TEST(mp_table_lists_processors_and_every_wire)
{
    uint8_t t[4096], pointer[MP_POINTER_LEN];
    struct mp_tables_config cfg = {.cpu_count = 12, .topology = {2, 3, 2}, .signature = 0x806f8, .features = 0x201};
    unsigned count[5] = {0};
    size_t len = mp_table_build(&cfg, t, sizeof t);
    ck_assert_uint_gt(len, 44);
    ck_assert_uint_eq(le(t + 4, 2), len);
    ck_assert_uint_eq(sum(t, len), 0);
    const uint8_t *e = t + 44;
    for (unsigned n = 0; n < le(t + 34, 2); n++) {
        ck_assert_uint_lt(e[0], 5);
        if (e[0] == 0) {
            ck_assert_uint_eq(e[1], topology_apic_id(&cfg.topology, count[0]));
            ck_assert_uint_eq(e[3], count[0] ? 1 : 3);
        }
        if (e[0] == 3 && e[4] == 1 && e[5] == 0) /* the 8254 */
            ck_assert_uint_eq(e[7], 2);
        if (e[0] == 3 && e[4] == 0 && e[5] == 1 << 2) /* INTA of slot 1 */
            ck_assert_uint_eq(e[7], 16);
        count[e[0]]++;
        e += e[0] == 0 ? 20 : 8;
    }
    ck_assert_ptr_eq(e, t + len);
    ck_assert_uint_eq(count[0], 12);
    ck_assert_uint_eq(count[1], 2);
    ck_assert_uint_eq(count[2], 1);
    ck_assert_uint_eq(count[3], 15 + 128);
    ck_assert_uint_eq(count[4], 2);
    ck_assert_uint_eq(mp_table_build(&cfg, t, len - 1), 0);
    mp_pointer_build(0xe1300, pointer);
    ck_assert_mem_eq(pointer, "_MP_", 4);
    ck_assert_uint_eq(le(pointer + 4, 4), 0xe1300);
    ck_assert_uint_eq(sum(pointer, sizeof pointer), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("acpi");
    TCase *t = tcase_create("fixed hardware");
    tcase_add_test(t, timer_runs_at_3_58_mhz_and_wraps_at_24_bits);
    tcase_add_test(t, timer_carry_sets_status_and_interrupts);
    tcase_add_test(t, s5_powers_off_and_other_sleeps_do_not);
    tcase_add_test(t, power_button_raises_sci_when_enabled);
    tcase_add_test(t, loaded_block_carries_at_the_same_moment);
    suite_add_tcase(s, t);
    t = tcase_create("tables");
    tcase_add_test(t, every_table_is_found_and_sums_to_zero);
    tcase_add_test(t, fadt_states_each_block_twice_and_alike);
    tcase_add_test(t, madt_lists_processors_ioapic_and_overrides);
    tcase_add_test(t, dsdt_blocks_end_where_they_say);
    tcase_add_test(t, tables_depend_on_the_configuration_alone);
    tcase_add_test(t, mp_table_lists_processors_and_every_wire);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
