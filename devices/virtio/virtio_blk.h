/*
 * virtio block device (VIRTIO 1.1, section 5.2): reads, writes, flushes, discards, zeroing, and its serial number.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_BLK_H
#define DEVICES_VIRTIO_VIRTIO_BLK_H

#include "core/block/block.h"
#include "devices/virtio/virtio_pci.h"

#define VIRTIO_BLK_ID 20 /* bytes of the serial number */

struct virtio_blk {
    struct virtio virtio;
    struct virtio_pci pci;
    struct block_device *block; /* borrowed */
    char serial[VIRTIO_BLK_ID];
    uint8_t *buffer; /* owned */
};

/* `block` is a medium that stays; `serial` may be NULL. Must not move afterwards. */
void virtio_blk_init(struct virtio_blk *b, const struct virtio_config *cfg, struct block_device *block,
                     const char *serial, bool modern_only);
void virtio_blk_fini(struct virtio_blk *b);

#endif
