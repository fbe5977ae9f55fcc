/*
 * The ACPI tables that describe this PC: RSDP, XSDT, RSDT, FADT, FACS, MADT, HPET, DSDT.
 *
 * Source: ACPI 6.4 chapters 5 (tables) and 19, 20 (the DSDT, assembled here by hand: PCI root with windows and
 * interrupt routing, ISA devices, \_S5, \_PIC). The image is self-contained: the machine writes it at `base` before a
 * kernel starts, and reserves the range in the memory map. It depends on the configuration alone.
 */
#ifndef DEVICES_ACPI_ACPI_TABLES_H
#define DEVICES_ACPI_ACPI_TABLES_H

#include "core/topology.h"
#include "core/types.h"

struct acpi_tables_config {
    gpa_t base;         /* 16-aligned, below 4 GiB; the RSDP comes first (LAYOUT_ACPI_TABLES is where kernels search) */
    unsigned cpu_count; /* at most 255 */
    struct cpu_topology topology; /* gives the APIC IDs; all zero: 0..cpu_count-1 */
    uint32_t pci_window;          /* first address of the PCI memory window: at or above the end of RAM below 4 GiB */
    unsigned com_ports;           /* COM1.. that exist, 0..4 */
    bool keyboard; /* an 8042 with a keyboard and a mouse on it; without one systems had better not probe */
    bool vga, hpet;
    uint16_t pm_port; /* where firmware puts the ACPI PM block; 0: LAYOUT_ACPI_PM_PORT */
};

#define ACPI_RSDP_LEN     36
#define ACPI_POINTERS_MAX 32
#define ACPI_SUMS_MAX     16

/* A field of the image that holds an address in it, for those who move it (acpi_loader.h). */
struct acpi_pointer {
    uint32_t offset;
    uint8_t size; /* bytes */
};

/* A checksum byte and what it covers. */
struct acpi_sum {
    uint32_t offset, start, len;
};

struct acpi_image {
    uint8_t *bytes; /* owned */
    size_t len;
    struct acpi_pointer pointer[ACPI_POINTERS_MAX];
    unsigned pointers;
    struct acpi_sum sum[ACPI_SUMS_MAX];
    unsigned sums;
};

/* False when memory is short. */
bool acpi_tables_build(const struct acpi_tables_config *cfg, struct acpi_image *image);
void acpi_image_fini(struct acpi_image *image);

/* APIC ID of the processor with that index. */
uint32_t acpi_apic_id(const struct acpi_tables_config *cfg, unsigned cpu);

/* The DSDT's body alone (without header) into buf; returns its length, or 0 if it does not fit. */
size_t acpi_dsdt_build(const struct acpi_tables_config *cfg, uint8_t *buf, size_t cap);

#endif
