/*
 * Message-signalled interrupts of a PCI function: MSI (one block of up to 32 messages) and MSI-X (a table of messages,
 * each with its mask, and an array of pending bits). PCI Local Bus Specification 3.0, section 6.8.
 *
 * A message is a write of four bytes at an address; the bus hands it to the machine (pci_bus_set_msi()), which takes
 * writes at 0xfee..... to the local APICs. A device asks which kind the guest has turned on, and sends by number.
 * Neither kind is sent while the function may not master the bus.
 *
 * MSI-X: the BAR holds the table from offset 0 on, 16 bytes a message, and the pending bits at PCI_MSIX_PBA. A message
 * that is masked, by its own bit or by the function's, is pending and goes out when the last mask is lifted.
 */
#ifndef DEVICES_PCI_PCI_MSI_H
#define DEVICES_PCI_PCI_MSI_H

#include "devices/pci/pci.h"

#define PCI_MSIX_MAX   64     /* messages of a function */
#define PCI_MSIX_PBA   0x800  /* offset of the pending bits in the BAR */
#define PCI_MSIX_BAR   0x1000 /* bytes of it */
#define PCI_MSIX_ENTRY 16

/* ---- MSI ---- */

/* A capability with a 64-bit address and 1, 2, 4, ... 32 messages, without masks. */
void pci_msi_add(struct pci_device *d, unsigned messages);
bool pci_msi_is_on(const struct pci_device *d);
/* Message n of those that the guest allowed; a higher one goes out as the last allowed one. */
void pci_msi_send(struct pci_device *d, unsigned n);

/* ---- MSI-X ---- */

struct pci_msix {
    struct pci_device *pci;
    unsigned cap; /* offset of the capability */
    unsigned count;
    uint8_t table[PCI_MSIX_MAX * PCI_MSIX_ENTRY];
    uint64_t pending;
};

/* Adds the capability and BAR `bar` (32-bit memory). count: 1 to PCI_MSIX_MAX. Must not move afterwards. */
void pci_msix_init(struct pci_msix *x, struct pci_device *d, unsigned bar, unsigned count);
bool pci_msix_is_on(const struct pci_msix *x);
/* Message n goes out, or is pending; numbers beyond the table do nothing. */
void pci_msix_send(struct pci_msix *x, unsigned n);
void pci_msix_reset(struct pci_msix *x);
/* The function's configuration was written: a mask may be gone. Called by the bus. */
void pci_msix_config_written(struct pci_msix *x);
/* Put into, and got from, the section that the caller has opened. */
void pci_msix_save(const struct pci_msix *x, struct snap_writer *w);
void pci_msix_load(struct pci_msix *x, struct snap_reader *r);

#endif
