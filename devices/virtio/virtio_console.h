/*
 * virtio console (VIRTIO 1.1, section 5.3) with one port, Linux's hvc0: bytes from outside wait in a buffer of
 * VIRTIO_CONSOLE_INPUT bytes until the guest offers room. No MULTIPORT; the emergency write is there.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_CONSOLE_H
#define DEVICES_VIRTIO_VIRTIO_CONSOLE_H

#include "devices/virtio/virtio_pci.h"

#define VIRTIO_CONSOLE_INPUT 65536u

/* Where the guest's bytes go. */
struct virtio_console_sink {
    void (*tx)(void *ctx, const uint8_t *bytes, size_t len); /* or NULL */
    void *ctx;
};

struct virtio_console {
    struct virtio virtio;
    struct virtio_pci pci;
    struct virtio_console_sink sink;
    uint32_t first, count; /* of the input that waits, in the ring */
    uint8_t input[VIRTIO_CONSOLE_INPUT];
};

/* Must not move afterwards. */
void virtio_console_init(struct virtio_console *c, const struct virtio_config *cfg,
                         const struct virtio_console_sink *sink, bool modern_only);
/* Bytes that it takes now. */
size_t virtio_console_room(const struct virtio_console *c);
/* Bytes for the guest; what does not fit is dropped, and said so in the log. */
void virtio_console_receive(struct virtio_console *c, const uint8_t *bytes, size_t len);

#endif
