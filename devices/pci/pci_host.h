/*
 * The chipset's own PCI functions, and the ports of configuration mechanism 1.
 *
 * 00.0 is the i440FX host bridge (8086:1237), 01.0 the PIIX3 ISA bridge (8086:7000) with the PIRQ routing registers,
 * 01.3 the PIIX4 power management function (8086:7113), which places the ACPI PM block at PMBASE. Sources: Intel
 * 82441FX, 82371SB and 82371AB data sheets.
 *
 * The configuration ports contain port 0xcf9, which is the reset control register for byte accesses: it is passed on.
 */
#ifndef DEVICES_PCI_PCI_HOST_H
#define DEVICES_PCI_PCI_HOST_H

#include "devices/irq/isa_irq.h"
#include "devices/pci/pci.h"

#define PCI_HOST_PAMS 7

struct pci_host_config {
    struct bus *io, *mmio;
    struct isa_irq *isa;          /* gets PIRQs and their routing */
    const struct bus_ops *pm_ops; /* acpi_pm_bus_ops, 64 ports */
    void *pm;
    void (*apmc_enable)(void *pm, bool on); /* DEVACTB.APMC_EN was written (or reset, or loaded). May be NULL. */
    const struct bus_ops *reset_ops;        /* reset_cf9_bus_ops */
    void *reset;
    /* PAM0..PAM6 and SMRAM of the host bridge were written (or reset, or loaded). May be NULL. */
    void (*pam_changed)(void *ctx, const uint8_t pam[PCI_HOST_PAMS], uint8_t smram);
    void *pam_ctx;
    const struct log *log;
};

struct pci_host {
    struct pci_host_config cfg;
    struct pci_bus bus; /* further devices attach here */
    struct pci_device bridge, isa, pm;
    uint32_t address; /* CONFIG_ADDRESS */
};

extern const struct bus_ops pci_host_bus_ops; /* 8 ports: CONFIG_ADDRESS, CONFIG_DATA */

void pci_host_init(struct pci_host *h, const struct pci_host_config *cfg);
void pci_host_fini(struct pci_host *h);
void pci_host_reset(struct pci_host *h);
/* What firmware does before it starts a system: PMBASE set and enabled; PIRQA..D routed to 8259 inputs. */
void pci_host_set_pm_base(struct pci_host *h, uint16_t port);
void pci_host_set_pirq(struct pci_host *h, const uint8_t irq[ISA_IRQ_PIRQS]);
/* Sections "pci_host" and those of the three functions. */
void pci_host_save(const struct pci_host *h, struct snap_writer *w);
void pci_host_load(struct pci_host *h, struct snap_reader *r);

#endif
