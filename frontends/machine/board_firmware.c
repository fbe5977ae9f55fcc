/*
 * What firmware finds on the board when it starts: files of fw_cfg, and the bytes of CMOS RAM that a PC's setup would
 * have left.
 */
#include "devices/acpi_loader.h"
#include "devices/layout.h"
#include "frontends/machine/board.h"

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

static void put_le(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* Entries of 20 bytes: start, length, type 1 (RAM). */
static bool offer_memory_map(struct board *b)
{
    uint8_t map[40] = {0};
    put_le(map + 8, b->cfg.low_ram, 8);
    put_le(map + 16, 1, 4);
    put_le(map + 20, 1ull << 32, 8);
    put_le(map + 28, b->cfg.high_ram, 8);
    put_le(map + 36, 1, 4);
    return fw_cfg_add_file(&b->fw_cfg, "etc/e820", map, b->cfg.high_ram ? 40 : 20, false);
}

static bool offer_acpi(struct board *b)
{
    const struct acpi_tables_config cfg = {.cpu_count = b->cfg.cpu_count,
                                           .topology = b->cfg.topology,
                                           .pci_window = b->cfg.low_ram <= LAYOUT_PCI_MMIO_LOW ? LAYOUT_PCI_MMIO_LOW
                                                                                               : LAYOUT_PCI_MMIO,
                                           .com_ports = 1,
                                           .keyboard = true,
                                           .vga = b->cfg.vga};
    return acpi_loader_add(&cfg, &b->fw_cfg);
}

bool board_offer_firmware(struct board *b)
{
    static const uint8_t irq0_override = 1, serial[2] = {LAYOUT_COM1_PORT & 0xff, LAYOUT_COM1_PORT >> 8};
    struct fw_cfg *f = &b->fw_cfg;
    return offer_memory_map(b) && offer_acpi(b) && fw_cfg_add(f, KEY_IRQ0_OVERRIDE, &irq0_override, 1) &&
           fw_cfg_add_u16(f, FW_CFG_BOOT_MENU, b->cfg.boot_menu) &&
           fw_cfg_add_u16(f, FW_CFG_NOGRAPHIC, b->cfg.serial_console) &&
           (!b->cfg.serial_console || fw_cfg_add_file(f, "etc/sercon-port", serial, sizeof serial, false));
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
