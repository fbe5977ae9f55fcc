/*
 * The PCI cards that the command line asks for: `-device`, `-nic`, and a virtio disk for each `-drive if=virtio`.
 *
 * A card gets the slot that it names, or the next free one from CARDS_FIRST_SLOT on, in the order of the command line,
 * disks of `-drive` last; so the same command line gives the same machine.
 */
#ifndef FRONTENDS_MACHINE_CARDS_H
#define FRONTENDS_MACHINE_CARDS_H

#include "core/memory.h"
#include "devices/card.h"
#include "devices/net/nic.h"
#include "frontends/machine/device_config.h"
#include "frontends/machine/drives.h"
#include "frontends/machine/error.h"

#define CARDS_MAX        24
#define CARDS_FIRST_SLOT 3

struct cards_config {
    struct pci_bus *bus;
    struct guest_memory memory;
    struct vclock *clock;
    const struct log *log;
    const struct device_config *device; /* borrowed */
    unsigned count;
    struct drives *drives; /* borrowed */
    uint64_t seed;         /* of entropy devices */
    /* The wire to the network of that name (NULL: none): what is sent as card `port`. False: there is no such network.
     */
    bool (*connect)(void *ctx, const char *netdev, unsigned port, struct nic_wire *wire);
    void *connect_ctx;
    /* What a virtio console says. */
    void (*console)(void *ctx, const char *chardev, const uint8_t *bytes, size_t len);
    void *console_ctx;
};

struct card {
    const char *name; /* as -device has it */
    enum device_kind kind;
    int bootindex;
    const char *chardev;  /* of a console, or NULL; borrowed */
    unsigned first_drive; /* of an AHCI controller: index of the drive on its port 0 */
    struct cards *cards;
    const struct card_ops *ops;
    void *dev; /* owned */
    struct pci_device *pci;
};

struct cards {
    struct cards_config cfg;
    struct card card[CARDS_MAX];
    unsigned count;
};

/* False: nothing is left. */
bool cards_init(struct cards *c, const struct cards_config *cfg, struct error *e);
void cards_fini(struct cards *c);
void cards_reset(struct cards *c);
void cards_save(const struct cards *c, struct snap_writer *w);
void cards_load(struct cards *c, struct snap_reader *r);
/* A frame from outside, or bytes for a console: the number of the card, then the frame. Fits input_fn. */
void cards_receive(void *cards, const uint8_t *bytes, size_t len);
/* The number of the console that is connected to that chardev, or -1. */
int cards_find_console(const struct cards *c, const char *chardev);
/* Bytes that it takes now. */
size_t cards_console_room(const struct cards *c, const char *chardev);
/* Slots and names: two machines with the same digest of cards have the same cards. */
uint64_t cards_digest(const struct cards *c);

#endif
