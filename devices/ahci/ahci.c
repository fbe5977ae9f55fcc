/*
 * The adapter: its own registers, the ways to them, interrupts, and its PCI function.
 */
#include "devices/ahci/ahci.h"

#include "core/snapshot.h"
#include "devices/ahci/ahci_internal.h"
#include "devices/pci/pci_msi.h"

#include <stdio.h>
#include <string.h>

#define SECTION_VERSION 1

/* Registers [3.1]. */
#define HBA_CAP   0x00
#define HBA_GHC   0x04
#define HBA_IS    0x08
#define HBA_PI    0x0c
#define HBA_VS    0x10
#define HBA_PORTS 0x100
#define PORT_SIZE 0x80

#define GHC_HR 0x00000001u
#define GHC_IE 0x00000002u
#define GHC_AE 0x80000000u

/* 64-bit addresses, queued commands, command list override, 6 Gb/s, AHCI only, multiple blocks of PIO, slots, ports. */
#define CAPABILITIES                                                                                                   \
    (0x80000000u | 0x40000000u | 0x01000000u | 3u << 20 | 0x00040000u | 0x00008000u | (AHCI_SLOTS - 1) << 8 |          \
     (AHCI_PORTS - 1))
#define VERSION 0x00010301u

#define BAR_REGISTERS 5
#define BAR_IO        4
#define IO_PORTS      32
#define IO_INDEX      0x10 /* the index-data pair [3.4] */
#define IO_DATA       0x14

#define PCI_CAP_SATA 0x12
#define PCI_MAP      0x90 /* the ICH9's: how ports are used, and which are on */
#define PCI_PCS      0x92

/* ---- memory ---- */

bool ahci_dma(struct ahci *a, gpa_t gpa, void *buf, size_t len, bool write)
{
    bool may = pci_device_read16(&a->pci, PCI_COMMAND) & PCI_COMMAND_MASTER;
    if (may && guest_mem_dma(&a->cfg.memory, gpa, buf, len, write))
        return true;
    device_log(a->cfg.log, LOG_GUEST_ERROR, "ahci: %s to %s at 0x%llx", may ? "no memory" : "not a bus master,",
               write ? "write" : "read", (unsigned long long)gpa);
    return false;
}

/* ---- interrupts ---- */

/* A port's bit is set by what it has pending, and cleared by software alone [10.7.2]. */
void ahci_update(struct ahci *a, bool event)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        if (ahci_port_status(&a->port[n]) & a->port[n].ie)
            a->is |= 1u << n;
    bool level = a->ghc & GHC_IE && a->is, by_message = pci_msi_is_on(&a->pci);
    pci_device_set_intx(&a->pci, level && !by_message);
    if (level && by_message && event)
        pci_msi_send(&a->pci, 0);
}

/* MSI may have been turned on or off. After a reset or a load the line is as it has to be. */
static void config_written(void *ctx, unsigned offset, unsigned size)
{
    if (size < PCI_CONFIG_BYTES)
        ahci_update(ctx, false);
}

/* ---- registers ---- */

static void hba_reset(struct ahci *a)
{
    a->ghc = GHC_AE;
    a->is = 0;
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_reset(&a->port[n]);
    ahci_update(a, false);
}

static uint32_t read32(struct ahci *a, unsigned at)
{
    if (at >= HBA_PORTS) {
        unsigned n = (at - HBA_PORTS) / PORT_SIZE;
        return n < AHCI_PORTS ? ahci_port_read(&a->port[n], at % PORT_SIZE) : 0;
    }
    switch (at) {
    case HBA_CAP:
        return CAPABILITIES;
    case HBA_GHC:
        return a->ghc;
    case HBA_IS:
        return a->is;
    case HBA_PI:
        return (1u << AHCI_PORTS) - 1;
    case HBA_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void write32(struct ahci *a, unsigned at, uint32_t value)
{
    unsigned n = (at - HBA_PORTS) / PORT_SIZE;
    if (at >= HBA_PORTS) {
        if (n < AHCI_PORTS)
            ahci_port_write(&a->port[n], at % PORT_SIZE, value);
    } else if (at == HBA_GHC && value & GHC_HR) {
        hba_reset(a);
    } else if (at == HBA_GHC) {
        a->ghc = GHC_AE | (value & GHC_IE);
        ahci_update(a, true);
    } else if (at == HBA_IS) {
        a->is &= ~value;
        ahci_update(a, true);
    }
}

/* Registers are dwords; a smaller read is a part of one, a smaller write is not defined. */
static uint64_t registers_read(void *dev, const struct bus_txn *t)
{
    struct ahci *a = dev;
    unsigned at = (unsigned)t->offset & ~3u;
    uint64_t value = read32(a, at);
    if (t->size == 8 || (t->offset & 3) + t->size > 4)
        value |= (uint64_t)read32(a, at + 4) << 32;
    return value >> (8 * (t->offset & 3));
}

static void registers_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct ahci *a = dev;
    if (t->offset & 3 || t->size < 4) {
        device_log(a->cfg.log, LOG_GUEST_ERROR, "ahci: a write of %u bytes at 0x%llx", t->size,
                   (unsigned long long)t->offset);
        return;
    }
    write32(a, (unsigned)t->offset, (uint32_t)value);
    if (t->size == 8)
        write32(a, (unsigned)t->offset + 4, (uint32_t)(value >> 32));
}

static const struct bus_ops registers_bus_ops = {registers_read, registers_write};

static uint64_t io_read(void *dev, const struct bus_txn *t)
{
    struct ahci *a = dev;
    if (t->size != 4)
        return 0;
    return t->offset == IO_INDEX ? a->index : t->offset == IO_DATA ? read32(a, a->index) : 0;
}

static void io_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct ahci *a = dev;
    if (t->size != 4)
        return;
    if (t->offset == IO_INDEX)
        a->index = (uint32_t)value & (AHCI_REGISTERS - 4);
    else if (t->offset == IO_DATA)
        write32(a, a->index, (uint32_t)value);
}

static const struct bus_ops io_bus_ops = {io_read, io_write};

/* ---- life ---- */

static void function_init(struct ahci *a)
{
    struct pci_device *d = &a->pci;
    pci_device_init(d, "ahci",
                    &(struct pci_identity){.vendor = 0x8086,
                                           .device = 0x2922,
                                           .subsystem_vendor = 0x1af4,
                                           .subsystem = 0x1100,
                                           .class_code = 0x010601,
                                           .revision = 2,
                                           .interrupt_pin = 1});
    pci_device_add_bar(d, BAR_IO, PCI_BAR_IO, IO_PORTS, &io_bus_ops, a);
    pci_device_add_bar(d, BAR_REGISTERS, PCI_BAR_MEM32, AHCI_REGISTERS, &registers_bus_ops, a);
    pci_msi_add(d, 1);
    unsigned sata = pci_device_add_capability(d, PCI_CAP_SATA, 8);
    pci_device_preset(d, sata + 2, 2, 0x0010, 0);                                      /* revision 1.0 */
    pci_device_preset(d, sata + 4, 4, (PCI_BAR0 / 4 + BAR_IO) | IO_INDEX / 4 << 4, 0); /* where the pair is */
    pci_device_preset(d, PCI_MAP, 1, 0x40, 0);
    pci_device_preset(d, PCI_PCS, 2, (1u << AHCI_PORTS) - 1, 0xffff);
    d->config_written = config_written;
    d->ctx = a;
}

/* The links have come up once already, and the firmware has seen it: drivers that clear no PxSERR rely on that. */
static void power_on(struct ahci *a)
{
    hba_reset(a);
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        a->port[n].serr = 0;
}

void ahci_init(struct ahci *a, const struct ahci_config *cfg)
{
    memset(a, 0, sizeof *a);
    a->cfg = *cfg;
    function_init(a);
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_init(&a->port[n], a, n);
    power_on(a);
}

void ahci_reset(struct ahci *a)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        a->port[n].list = a->port[n].received = 0;
    a->index = 0;
    power_on(a);
    pci_device_reset(&a->pci);
}

/* ---- state ---- */

static void section_name(const struct ahci *a, char name[SNAP_NAME_MAX + 1])
{
    snprintf(name, SNAP_NAME_MAX + 1, "ahci.%02x.%u", a->pci.devfn >> 3, a->pci.devfn & 7u);
}

void ahci_save(const struct ahci *a, struct snap_writer *w)
{
    char name[SNAP_NAME_MAX + 1];
    section_name(a, name);
    pci_device_save(&a->pci, w);
    snap_begin(w, name, SECTION_VERSION);
    snap_put_u32(w, a->ghc);
    snap_put_u32(w, a->is);
    snap_put_u32(w, a->index);
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_save(&a->port[n], w);
    snap_end(w);
}

void ahci_load(struct ahci *a, struct snap_reader *r)
{
    char name[SNAP_NAME_MAX + 1];
    section_name(a, name);
    pci_device_load(&a->pci, r);
    if (!snap_expect(r, name, SECTION_VERSION))
        return;
    a->ghc = GHC_AE | (snap_get_u32(r) & GHC_IE);
    a->is = snap_get_u32(r);
    a->index = snap_get_u32(r) & (AHCI_REGISTERS - 4);
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_load(&a->port[n], r);
}
