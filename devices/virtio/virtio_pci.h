/*
 * virtio over PCI (VIRTIO 1.1, section 4.1): the modern interface behind vendor capabilities in BAR 4, the legacy one
 * in the ports of BAR 0 unless it is turned off, MSI-X in BAR 1, and the window into BAR 4 in configuration space.
 *
 * The function is transitional (IDs from 1000H, revision 0), or modern only (from 1040H, revision 1).
 */
#ifndef DEVICES_VIRTIO_VIRTIO_PCI_H
#define DEVICES_VIRTIO_VIRTIO_PCI_H

#include "devices/pci/pci_msi.h"
#include "devices/virtio/virtio.h"

#define VIRTIO_PCI_VENDOR 0x1af4

struct virtio_pci {
    struct pci_device pci;
    struct pci_msix msix;
    struct virtio *virtio; /* borrowed */
    bool modern_only;
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    unsigned window; /* offset of the capability that is a window into BAR 4 */
};

/* A function for `v`, not attached yet; v's interrupts come here. Must not move afterwards. */
void virtio_pci_init(struct virtio_pci *p, struct virtio *v, bool modern_only);
/* Resets the function and the device behind it. */
void virtio_pci_reset(struct virtio_pci *p);
/* The function's, the transport's and the common sections, named after the slot. */
void virtio_pci_save(const struct virtio_pci *p, struct snap_writer *w);
void virtio_pci_load(struct virtio_pci *p, struct snap_reader *r);

#endif
