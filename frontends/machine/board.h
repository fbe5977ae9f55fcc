/*
 * The board: every device of the PC, placed on the buses and wired to the processors by devices/layout.h.
 */
#ifndef FRONTENDS_MACHINE_BOARD_H
#define FRONTENDS_MACHINE_BOARD_H

#include "core/memory.h"
#include "core/replay.h"
#include "cpu/cpu.h"
#include "devices/a20_gate.h"
#include "devices/acpi/acpi_pm.h"
#include "devices/acpi/acpi_tables.h"
#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/dma8237.h"
#include "devices/fdc.h"
#include "devices/firmware_log.h"
#include "devices/fpu_error.h"
#include "devices/fw_cfg.h"
#include "devices/hpet.h"
#include "devices/ide/piix_ide.h"
#include "devices/irq/ioapic.h"
#include "devices/irq/isa_irq.h"
#include "devices/irq/lapic.h"
#include "devices/irq/pic8259.h"
#include "devices/pci/pci_host.h"
#include "devices/pflash.h"
#include "devices/pit8254.h"
#include "devices/port92.h"
#include "devices/ps2/kbc8042.h"
#include "devices/reset_cf9.h"
#include "devices/rtc_cmos.h"
#include "devices/serial_mouse.h"
#include "devices/smbios.h"
#include "devices/testdev.h"
#include "devices/uart16550.h"
#include "devices/vga/vga.h"
#include "frontends/machine/boot_bios.h"
#include "frontends/machine/cards.h"
#include "frontends/machine/device_config.h"
#include "frontends/machine/drives.h"
#include "frontends/machine/error.h"

#define BOARD_ITEMS_MAX 16

struct board_item {
    const char *name;
    const void *data; /* borrowed until board_init() returns */
    size_t len;
};

struct board_config {
    struct bus *ports, *mmio;
    struct vclock *clock;
    struct input_queue *input;
    const struct log *log;
    struct guest_memory memory;
    struct vcpu **cpus;
    unsigned cpu_count;
    struct cpu_topology topology;
    uint64_t low_ram, high_ram;
    int64_t rtc_base; /* seconds since 1970 */
    struct smbios_user smbios;
    bool uefi, vmcoreinfo, hpet;
    const struct device_config *device; /* cards; borrowed */
    unsigned device_count;
    struct drives *drives;
    uint64_t seed; /* of entropy devices */
    bool (*net_connect)(void *ctx, const char *netdev, unsigned port, struct nic_wire *wire);
    void *net_ctx;
    void (*console_tx)(void *ctx, const char *chardev, const uint8_t *bytes, size_t len); /* ctx: that below */
    struct board_item item[BOARD_ITEMS_MAX]; /* the user's own, in fw_cfg */
    unsigned item_count;
    bool debug_console, debug_exit, testdev;
    uint16_t debug_console_port, debug_exit_base;
    unsigned debug_exit_size;
    /* Upward calls: made inside a device access. */
    void *ctx;
    void (*reset)(void *ctx);
    void (*power_off)(void *ctx);
    void (*debug_exit_fn)(void *ctx, uint8_t code);            /* code: the process's exit status */
    unsigned serials;                                          /* serial ports, 1 to SERIALS_MAX */
    unsigned mouse_port;                                       /* the one that has a mouse, from 1; 0: none */
    void (*serial_tx)(void *ctx, unsigned port, uint8_t byte); /* port: from 0 */
    void (*debug_tx)(void *ctx, uint8_t byte);
    void (*set_a20)(void *ctx, bool enabled);
    /* The machine starts with firmware, which finds devices as they are after power-on. */
    bool firmware;
    uint64_t firmware_len;              /* bytes that it takes below 4 GiB: flash lies below them */
    const char *boot_order, *boot_once; /* letters; boot_once may be NULL. Of firmware alone, as what follows. */
    struct boot_extras boot_extras;
    bool boot_menu;
    struct boot_bios linux_kernel; /* that firmware is to start; its kernel is NULL: none */
    bool serial_console;           /* firmware's own output and input go to COM1 */
    /* The display adapter, its memory, and what it may map; without firmware it starts in text mode, with this font
     * (256 glyphs of 16 bytes, or NULL). */
    bool vga, vga_no_mmio; /* the second: struct vga_config */
    struct guest_memory vram;
    void (*vram_changed)(void *ctx);
    const uint8_t *vga_font;
    bool forked;            /* memory is that of a machine that runs: it is left alone until a reset */
    const uint8_t *vga_rom; /* expansion ROM; borrowed, may be NULL */
    size_t vga_rom_len;
    void (*pam_changed)(void *ctx, const uint8_t *pam, uint8_t smram);
    void *pam_ctx;
};

struct board_serial {
    struct board *board;
    unsigned port;
    struct uart16550 uart;
};

struct board {
    struct board_config cfg;
    bool built;
    struct isa_irq isa;
    struct pic8259 pic;
    struct hpet hpet; /* if cfg.hpet */
    struct pit8254 pit;
    struct lapic_set lapics;
    struct ioapic ioapic;
    struct board_serial com[SERIALS_MAX]; /* cfg.serials of them */
    struct serial_mouse serial_mouse;     /* if cfg.mouse_port */
    struct rtc_cmos rtc;
    struct a20_gate a20;
    struct kbc8042 kbc;
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
    struct port92 port92;
    struct reset_cf9 cf9;
    struct pci_host pci;
    struct acpi_pm pm;
    struct piix_ide ide;
    struct dma8237 dma;
    struct fdc fdc;
    struct pflash flash; /* if has_flash */
    bool has_flash;
    struct fpu_error fpu_error;
    struct fw_cfg fw_cfg;
    struct debug_exit debug_exit;
    struct debug_console debug_console;
    struct firmware_log firmware_log;
    struct vga vga; /* if cfg.vga */
    struct cards cards;
    struct testdev testdev; /* if cfg.testdev */
};

/* A register window on its bus. */
struct placement {
    struct bus *bus;
    uint64_t base, len;
    const struct bus_ops *ops;
    void *dev;
    const char *name;
};

bool board_place(const struct placement *p, struct error *e);

/* Must not move afterwards. The vCPUs exist and get their interrupt sockets. */
bool board_init(struct board *b, const struct board_config *cfg, struct error *e);
void board_fini(struct board *b);
/* Devices to the state that firmware would leave. */
void board_reset(struct board *b);
/* frontends/machine/board_firmware.c: fw_cfg's files, and CMOS, for firmware. */
bool board_offer_firmware(struct board *b, struct error *e);
bool board_offer_items(struct board *b, struct error *e);
void board_fill_cmos(struct board *b);
/* The SMBIOS tables, without firmware. */
bool board_install_smbios(struct board *b);
/* Letters as of -boot order=. */
void board_set_boot_order(struct board *b, const char *letters);
/* Writes the ACPI and MP tables, and what a BIOS data area says of base memory, into guest memory; *rsdp is ACPI's root
 * pointer's gpa. */
bool board_install_tables(struct board *b, uint64_t *rsdp);
/* frontends/machine/board_storage.c: the controllers of cfg.drives. */
bool board_storage_init(struct board *b, struct error *e);
bool board_storage_place(struct board *b, struct error *e);
void board_storage_reset(struct board *b);
void board_storage_fini(struct board *b);
void board_storage_save(const struct board *b, struct snap_writer *w);
void board_storage_load(struct board *b, struct snap_reader *r);
void board_storage_add_stats(struct board *b, struct stats *s);
/* Every processor is halted with interrupts off: could time still wake one, or bring the outside something? */
bool board_may_act(const struct board *b);
void board_save(const struct board *b, struct snap_writer *w);
void board_load(struct board *b, struct snap_reader *r);

#endif
