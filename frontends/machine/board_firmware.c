/*
 * What firmware finds on the board when it starts: files of fw_cfg, and the bytes of CMOS RAM that a PC's setup would
 * have left.
 */
#include "devices/acpi/acpi_loader.h"

#include "core/bytes.h"
#include "devices/layout.h"
#include "devices/vmcoreinfo.h"
#include "frontends/machine/board.h"
#include "frontends/machine/boot_order.h"

#include <stdlib.h>
#include <string.h>

#define KEY_IRQ0_OVERRIDE 0x8002 /* IRQ 0 is pin 2 of the IOAPIC */

#define CMOS_FLOPPIES    0x10
#define CMOS_EQUIPMENT   0x14
#define CMOS_BOOT_THIRD  0x38
#define CMOS_TRANSLATION 0x39
#define CMOS_BOOT        0x3d
#define CMOS_CPUS        0x5f

#define EQUIPMENT_FLOPPY 0x01
#define EQUIPMENT_FPU    0x02

#define TRANSLATION_LBA 1 /* of the four IDE disks, 2 bits each */

/* Entries of 20 bytes: start, length, type 1 (RAM). */
static bool offer_memory_map(struct board *b)
{
    uint8_t map[40] = {0};
    store_le(map + 8, b->cfg.low_ram, 8);
    store_le(map + 16, 1, 4);
    store_le(map + 20, 1ull << 32, 8);
    store_le(map + 28, b->cfg.high_ram, 8);
    store_le(map + 36, 1, 4);
    return fw_cfg_add_file(&b->fw_cfg, "etc/e820", map, b->cfg.high_ram ? 40 : 20, false);
}

static bool offer_acpi(struct board *b)
{
    const struct acpi_tables_config cfg = {.cpu_count = b->cfg.cpu_count,
                                           .topology = b->cfg.topology,
                                           .pci_window = b->cfg.low_ram <= LAYOUT_PCI_MMIO_LOW ? LAYOUT_PCI_MMIO_LOW
                                                                                               : LAYOUT_PCI_MMIO,
                                           .com_ports = b->cfg.serials,
                                           .keyboard = true,
                                           .hpet = b->cfg.hpet,
                                           .vga = b->cfg.vga,
                                           .pm_port = b->cfg.uefi ? LAYOUT_ACPI_PM_PORT_OVMF : LAYOUT_ACPI_PM_PORT};
    return acpi_loader_add(&cfg, &b->fw_cfg);
}

/* ---- SMBIOS ---- */

/* A text from CPUID leaves `first` to `last`, registers in the order that `order` gives. */
static void cpuid_text(struct board *b, uint32_t first, uint32_t last, const uint8_t *order, unsigned regs, char *text)
{
    for (uint32_t leaf = first; leaf <= last; leaf++) {
        uint32_t out[4];
        vcpu_cpuid(b->cfg.cpus[0], leaf, 0, out);
        for (unsigned k = 0; k < regs; k++, text += 4)
            store_le((uint8_t *)text, out[order[k]], 4);
    }
    *text = 0;
}

static bool build_smbios(struct board *b, uint32_t base, struct smbios_image *image)
{
    static const uint8_t vendor_order[3] = {1, 3, 2}, brand_order[4] = {0, 1, 2, 3};
    const struct board_config *c = &b->cfg;
    char vendor[13], brand[49];
    uint32_t leaf1[4];
    vcpu_cpuid(c->cpus[0], 1, 0, leaf1);
    cpuid_text(b, 0, 0, vendor_order, 3, vendor);
    cpuid_text(b, 0x80000002, 0x80000004, brand_order, 4, brand);
    const struct smbios_config cfg = {.user = &c->smbios,
                                      .topology = c->topology,
                                      .signature = leaf1[0],
                                      .features = leaf1[3],
                                      .cpu_vendor = vendor,
                                      .cpu_version = brand + strspn(brand, " "),
                                      .low_ram = c->low_ram,
                                      .high_ram = c->high_ram,
                                      .uefi = c->uefi};
    return smbios_build(&cfg, base, image);
}

static bool offer_smbios(struct board *b, struct error *e)
{
    struct smbios_image *image = calloc(1, sizeof *image);
    bool built = image && build_smbios(b, 0, image);
    bool ok = built && fw_cfg_add(&b->fw_cfg, FW_CFG_UUID, b->cfg.smbios.uuid, SMBIOS_UUID) &&
              fw_cfg_add_file(&b->fw_cfg, SMBIOS_FILE_TABLES, image->tables, image->len, false) &&
              fw_cfg_add_file(&b->fw_cfg, SMBIOS_FILE_ANCHOR, image->anchor, SMBIOS_ANCHOR_LEN, false);
    free(image);
    return ok || error_set(e, built ? "out of memory" : "-smbios: the texts do not fit into the tables");
}

/* The entry point lies on a paragraph, the tables behind it. */
bool board_install_smbios(struct board *b)
{
    const gpa_t tables = LAYOUT_SMBIOS + 2 * 16;
    struct smbios_image *image = calloc(1, sizeof *image);
    bool ok =
        image && build_smbios(b, (uint32_t)tables, image) &&
        guest_mem_write(&b->cfg.memory, LAYOUT_SMBIOS, image->anchor, SMBIOS_ANCHOR_LEN, MEM_HOST_POKE) == MEM_OK &&
        guest_mem_write(&b->cfg.memory, tables, image->tables, image->len, MEM_HOST_POKE) == MEM_OK;
    free(image);
    return ok;
}

/* ---- what is to be booted ---- */

static bool offer_boot_order(struct board *b, struct error *e)
{
    char *text = boot_order_text(b, e);
    if (!text)
        return false;
    bool ok = !*text || fw_cfg_add_file(&b->fw_cfg, "bootorder", text, strlen(text) + 1, false);
    free(text);
    return ok || error_set(e, "out of memory");
}

static bool offer_kernel(struct board *b, struct error *e)
{
    struct boot_bios kernel = b->cfg.linux_kernel;
    kernel.low_ram = b->cfg.low_ram;
    return !kernel.kernel || boot_bios_offer(&kernel, &b->fw_cfg, e);
}

/* Numbers are little-endian. */
static bool offer_waits(struct board *b)
{
    const struct boot_extras *x = &b->cfg.boot_extras;
    uint8_t menu[2], fail[4];
    store_le(menu, x->menu_wait, sizeof menu);
    store_le(fail, x->fail_wait, sizeof fail);
    return (!x->has_menu_wait || fw_cfg_add_file(&b->fw_cfg, "etc/boot-menu-wait", menu, sizeof menu, false)) &&
           (!x->has_fail_wait || fw_cfg_add_file(&b->fw_cfg, "etc/boot-fail-wait", fail, sizeof fail, false));
}

static bool offer_rest(struct board *b)
{
    static const uint8_t irq0_override = 1, serial[2] = {LAYOUT_COM1_PORT & 0xff, LAYOUT_COM1_PORT >> 8};
    struct fw_cfg *f = &b->fw_cfg;
    return offer_memory_map(b) && offer_acpi(b) && fw_cfg_add(f, KEY_IRQ0_OVERRIDE, &irq0_override, 1) &&
           fw_cfg_add_u16(f, FW_CFG_BOOT_MENU, b->cfg.boot_menu) &&
           fw_cfg_add_u16(f, FW_CFG_NOGRAPHIC, b->cfg.serial_console) &&
           (!b->cfg.serial_console || fw_cfg_add_file(f, "etc/sercon-port", serial, sizeof serial, false)) &&
           offer_waits(b);
}

bool board_offer_firmware(struct board *b, struct error *e)
{
    if (!b->cfg.firmware)
        return true;
    if (!offer_rest(b))
        return error_set(e, "out of memory");
    return offer_smbios(b, e) && offer_boot_order(b, e) && offer_kernel(b, e);
}

bool board_offer_items(struct board *b, struct error *e)
{
    for (unsigned k = 0; k < b->cfg.item_count; k++) {
        const struct board_item *i = &b->cfg.item[k];
        if (!fw_cfg_add_file(&b->fw_cfg, i->name, i->data, i->len, false))
            return error_set(e, "-fw_cfg name=%s: out of memory", i->name);
    }
    return true;
}

/* ---- CMOS ---- */

static uint8_t boot_code(char letter)
{
    static const char letters[] = "acdn"; /* 1 floppy, 2 disk, 3 CD, 4 network */
    const char *at = letter ? strchr(letters, letter) : NULL;
    return at ? (uint8_t)(at - letters + 1) : 0;
}

void board_set_boot_order(struct board *b, const char *letters)
{
    uint8_t code[3] = {0};
    for (unsigned k = 0; k < 3 && letters[k]; k++)
        code[k] = boot_code(letters[k]);
    rtc_cmos_set_byte(&b->rtc, CMOS_BOOT, (uint8_t)(code[0] | code[1] << 4));
    rtc_cmos_set_byte(&b->rtc, CMOS_BOOT_THIRD, (uint8_t)(code[2] << 4 | 1)); /* floppies need no signature */
}

void board_fill_cmos(struct board *b)
{
    uint8_t translation = 0;
    for (unsigned k = 0; k < 4; k++)
        translation |= (uint8_t)(TRANSLATION_LBA << 2 * k);
    rtc_cmos_set_byte(&b->rtc, CMOS_TRANSLATION, translation);
    rtc_cmos_set_byte(&b->rtc, CMOS_CPUS, (uint8_t)(b->cfg.cpu_count - 1));
    uint8_t first = fdc_drive_type(&b->fdc, 0), second = fdc_drive_type(&b->fdc, 1);
    uint8_t floppies = !first && !second ? 0 : EQUIPMENT_FLOPPY | (first && second ? 0x40 : 0);
    rtc_cmos_set_byte(&b->rtc, CMOS_EQUIPMENT, EQUIPMENT_FPU | floppies);
    rtc_cmos_set_byte(&b->rtc, CMOS_FLOPPIES, (uint8_t)(first << 4 | second));
    board_set_boot_order(b, b->cfg.boot_once ? b->cfg.boot_once : b->cfg.boot_order);
}
