/*
 * virtio network card (VIRTIO 1.1, section 5.1): mergeable receive buffers, control queue for filters and the address.
 * Checksums and segmentation are the driver's.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_NET_H
#define DEVICES_VIRTIO_VIRTIO_NET_H

#include "devices/net/nic.h"
#include "devices/virtio/virtio_pci.h"

struct virtio_net {
    struct virtio virtio;
    struct virtio_pci pci;
    struct nic_wire wire;
    struct nic_fifo fifo;
    uint8_t permanent[NIC_MAC], mac[NIC_MAC];
    bool promiscuous, all_multicast;
};

/* Must not move afterwards. */
void virtio_net_init(struct virtio_net *n, const struct virtio_config *cfg, const struct nic_wire *wire,
                     const uint8_t mac[NIC_MAC], bool modern_only);
void virtio_net_fini(struct virtio_net *n);
/* A frame for the guest. */
void virtio_net_receive(struct virtio_net *n, const uint8_t *frame, size_t len);

#endif
