/*
 * The DSDT: what an operating system cannot find by itself on this PC.
 */
#include "devices/acpi/acpi_pm.h"
#include "devices/acpi/acpi_tables.h"
#include "devices/acpi/aml.h"
#include "devices/hpet.h"
#include "devices/layout.h"

#define PCI_SLOTS   32
#define PCI_PINS    4
#define STA_PRESENT 0x0f /* present, enabled, shown, working */
#define STA_HIDDEN  0x0b /* the same, not shown */

/* One entry for each slot and pin: address, pin, no link device, interrupt. INTA of slot 1 is PIRQA, and so on round.
 */
static void define_routing(struct aml *a, const char *name, const uint8_t irq[4])
{
    aml_define(a, name);
    size_t table = aml_package(a, PCI_SLOTS * PCI_PINS);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            size_t entry = aml_package(a, 4);
            aml_integer(a, slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_integer(a, 0);
            aml_integer(a, irq[(slot - 1 + pin) & 3]);
            aml_end(a, entry);
        }
    }
    aml_end(a, table);
}

/* The operating system says with \_PIC whether it uses the 8259 (0) or the IOAPIC (1), and gets the routing that fits.
 */
static void define_prt(struct aml *a)
{
    static const uint8_t gsi[4] = {LAYOUT_GSI_PIRQ, LAYOUT_GSI_PIRQ + 1, LAYOUT_GSI_PIRQ + 2, LAYOUT_GSI_PIRQ + 3};
    static const uint8_t isa[4] = {LAYOUT_IRQ_PIRQ_A, LAYOUT_IRQ_PIRQ_A, LAYOUT_IRQ_PIRQ_C, LAYOUT_IRQ_PIRQ_C};
    define_routing(a, "PRTA", gsi);
    define_routing(a, "PRTP", isa);
    size_t method = aml_method(a, "_PRT", 0);
    size_t cond = aml_if_name(a, "PICF");
    aml_return_name(a, "PRTA");
    aml_end(a, cond);
    aml_return_name(a, "PRTP");
    aml_end(a, method);
}

static void define_windows(struct aml *a, const struct acpi_tables_config *cfg)
{
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_bus_range(a, 0, 0xff);
    aml_res_io(a, LAYOUT_PCI_CONFIG_PORT, LAYOUT_PCI_CONFIG_PORTS);
    aml_res_io_window(a, 0, LAYOUT_PCI_CONFIG_PORT - 1);
    aml_res_io_window(a, LAYOUT_PCI_CONFIG_PORT + LAYOUT_PCI_CONFIG_PORTS, 0xffff);
    aml_res_memory_window(a, 0xa0000, 0xbffff);
    aml_res_memory_window(a, cfg->pci_window, LAYOUT_PCI_MMIO_END);
    aml_resources_end(a, &r);
}

static size_t isa_device(struct aml *a, const char *name, const char *id)
{
    size_t device = aml_device(a, name);
    aml_define_eisa_id(a, "_HID", id);
    return device;
}

static void define_com(struct aml *a, unsigned n)
{
    static const uint16_t port[4] = {LAYOUT_COM1_PORT, LAYOUT_COM2_PORT, LAYOUT_COM3_PORT, LAYOUT_COM4_PORT};
    char name[] = "COM1";
    name[3] = (char)('1' + n);
    size_t device = isa_device(a, name, "PNP0501");
    aml_define_integer(a, "_UID", n + 1);
    aml_define_integer(a, "_STA", STA_PRESENT);
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_io(a, port[n], LAYOUT_COM_PORTS);
    aml_res_irq(a, n & 1 ? LAYOUT_IRQ_COM2 : LAYOUT_IRQ_COM1);
    aml_resources_end(a, &r);
    aml_end(a, device);
}

static void define_rtc(struct aml *a)
{
    size_t device = isa_device(a, "RTC", "PNP0B00");
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_io(a, LAYOUT_RTC_PORT, LAYOUT_RTC_PORTS);
    aml_res_irq(a, LAYOUT_IRQ_RTC);
    aml_resources_end(a, &r);
    aml_end(a, device);
}

static void define_keyboard(struct aml *a)
{
    size_t device = isa_device(a, "KBD", "PNP0303");
    aml_define_integer(a, "_STA", STA_PRESENT);
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_io(a, LAYOUT_KBC_DATA_PORT, 1);
    aml_res_io(a, LAYOUT_KBC_COMMAND_PORT, 1);
    aml_res_irq(a, LAYOUT_IRQ_KEYBOARD);
    aml_resources_end(a, &r);
    aml_end(a, device);
}

static void define_mouse(struct aml *a)
{
    size_t device = isa_device(a, "MOU", "PNP0F13");
    aml_define_integer(a, "_STA", STA_PRESENT);
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_irq(a, LAYOUT_IRQ_MOUSE);
    aml_resources_end(a, &r);
    aml_end(a, device);
}

/* By which Linux's qemu_fw_cfg finds it. */
static void define_fw_cfg(struct aml *a)
{
    size_t device = aml_device(a, "FWCF");
    aml_define_string(a, "_HID", "QEMU0002");
    aml_define_integer(a, "_STA", STA_HIDDEN);
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_io(a, LAYOUT_FW_CFG_PORT, LAYOUT_FW_CFG_DMA_PORT + LAYOUT_FW_CFG_DMA_PORTS - LAYOUT_FW_CFG_PORT);
    aml_resources_end(a, &r);
    aml_end(a, device);
}

static void define_isa(struct aml *a, const struct acpi_tables_config *cfg)
{
    size_t bridge = aml_device(a, "ISA");
    aml_define_integer(a, "_ADR", LAYOUT_PCI_ISA_DEVFN >> 3 << 16 | (LAYOUT_PCI_ISA_DEVFN & 7));
    define_rtc(a);
    define_fw_cfg(a);
    if (cfg->keyboard) {
        define_keyboard(a);
        define_mouse(a);
    }
    for (unsigned n = 0; n < cfg->com_ports && n < 4; n++)
        define_com(a, n);
    aml_end(a, bridge);
}

static void define_hpet(struct aml *a)
{
    size_t device = isa_device(a, "HPET", "PNP0103");
    aml_define_integer(a, "_UID", 0);
    aml_define_integer(a, "_STA", STA_PRESENT);
    struct aml_resources r = aml_resources_begin(a, "_CRS");
    aml_res_memory(a, LAYOUT_HPET, HPET_BYTES);
    aml_resources_end(a, &r);
    aml_end(a, device);
}

static void define_pci_root(struct aml *a, const struct acpi_tables_config *cfg)
{
    size_t root = aml_device(a, "PCI0");
    aml_define_eisa_id(a, "_HID", "PNP0A03");
    aml_define_integer(a, "_UID", 0);
    aml_define_integer(a, "_BBN", 0);
    define_windows(a, cfg);
    define_prt(a);
    define_isa(a, cfg);
    aml_end(a, root);
}

/* \_S5: the SLP_TYP values for PM1a and PM1b. */
static void define_s5(struct aml *a)
{
    aml_define(a, "\\_S5_");
    size_t package = aml_package(a, 4);
    aml_integer(a, ACPI_PM_S5_TYPE);
    aml_integer(a, ACPI_PM_S5_TYPE);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_end(a, package);
}

static void define_pic(struct aml *a)
{
    aml_define_integer(a, "\\PICF", 0);
    size_t method = aml_method(a, "\\_PIC", 1);
    aml_store_arg0(a, "PICF");
    aml_end(a, method);
}

size_t acpi_dsdt_build(const struct acpi_tables_config *cfg, uint8_t *buf, size_t cap)
{
    struct aml a = {.buf = buf, .cap = cap};
    define_s5(&a);
    define_pic(&a);
    size_t sb = aml_scope(&a, "\\_SB_");
    define_pci_root(&a, cfg);
    if (cfg->hpet)
        define_hpet(&a);
    aml_end(&a, sb);
    return a.overflow ? 0 : a.len;
}
