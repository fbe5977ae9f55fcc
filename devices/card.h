/*
 * A PCI card as the board handles it: whatever it is, it resets, saves, loads and goes.
 */
#ifndef DEVICES_CARD_H
#define DEVICES_CARD_H

#include "devices/pci/pci.h"

struct card_ops {
    void (*reset)(void *card);
    void (*save)(const void *card, struct snap_writer *w);
    void (*load)(void *card, struct snap_reader *r);
    void (*fini)(void *card);                                      /* may be NULL */
    void (*receive)(void *card, const uint8_t *frame, size_t len); /* a network card's; else NULL */
};

#endif
