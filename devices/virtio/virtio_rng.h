/*
 * virtio entropy device (VIRTIO 1.1, section 5.4). Its bytes come from a generator with a fixed seed, so that two runs
 * are the same run; its state is the machine's.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_RNG_H
#define DEVICES_VIRTIO_VIRTIO_RNG_H

#include "devices/virtio/virtio_pci.h"

struct virtio_rng {
    struct virtio virtio;
    struct virtio_pci pci;
    uint64_t seed, counter;
};

/* The function is in `pci.pci`, not attached. Must not move afterwards. */
void virtio_rng_init(struct virtio_rng *g, const struct virtio_config *cfg, uint64_t seed, bool modern_only);

#endif
