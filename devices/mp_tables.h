/*
 * The tables of the MultiProcessor Specification 1.4, for systems that do not read ACPI: the configuration table, and
 * the floating pointer that leads to it.
 *
 * They name the processors, an ISA and a PCI bus, the IOAPIC with the pin of each interrupt, and where the local APICs
 * have ExtINT and NMI. Both depend on the configuration alone.
 */
#ifndef DEVICES_MP_TABLES_H
#define DEVICES_MP_TABLES_H

#include "core/topology.h"
#include "core/types.h"

#define MP_POINTER_LEN 16

struct mp_tables_config {
    unsigned cpu_count; /* at most 64 */
    struct cpu_topology topology;
    uint32_t signature, features; /* CPUID.1 EAX and EDX */
};

/* The configuration table into buf; returns its length, or 0 if it does not fit. */
size_t mp_table_build(const struct mp_tables_config *cfg, uint8_t *buf, size_t cap);
/* The floating pointer to the table at `table`. It belongs at a 16-aligned place of the last KiB of base memory. */
void mp_pointer_build(uint32_t table, uint8_t out[MP_POINTER_LEN]);

#endif
