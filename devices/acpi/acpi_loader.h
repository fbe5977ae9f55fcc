/*
 * The ACPI tables as firmware gets them: files of fw_cfg that firmware puts where it likes, and a script that says
 * which fields are then to be adjusted.
 *
 * Source: QEMU's docs/specs and the loaders of SeaBIOS (romfile_loader.c) and OVMF (QemuFwCfgAcpi.c): 128-byte commands
 * ALLOCATE, ADD_POINTER and ADD_CHECKSUM, little-endian, file names of 56 bytes.
 */
#ifndef DEVICES_ACPI_ACPI_LOADER_H
#define DEVICES_ACPI_ACPI_LOADER_H

#include "devices/acpi/acpi_tables.h"

struct fw_cfg;

#define ACPI_LOADER_TABLES "etc/acpi/tables"
#define ACPI_LOADER_RSDP   "etc/acpi/rsdp"
#define ACPI_LOADER_SCRIPT "etc/table-loader"

/* Adds the three files. cfg->base is not used. False when memory is short. */
bool acpi_loader_add(const struct acpi_tables_config *cfg, struct fw_cfg *f);

#endif
