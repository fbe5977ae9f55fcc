/*
 * What `-device`, `-netdev` and `-nic` ask for, in the order of the command line.
 */
#ifndef FRONTENDS_MACHINE_DEVICE_CONFIG_H
#define FRONTENDS_MACHINE_DEVICE_CONFIG_H

#include "core/types.h"

#define DEVICES_MAX  16
#define SERIALS_MAX  4
#define NETDEVS_MAX  8
#define FORWARDS_MAX 16
#define SLOT_ANY     0

enum device_kind {
    DEVICE_VIRTIO_BLK,
    DEVICE_VIRTIO_NET,
    DEVICE_VIRTIO_RNG,
    DEVICE_VIRTIO_SERIAL,
    DEVICE_E1000,
    DEVICE_AHCI,
    DEVICE_CARDS,
    /* Not cards, but drives on the board's own controllers or on an AHCI card: drive_options_finish() makes of each the
     * -drive's place. */
    DEVICE_IDE_HD = DEVICE_CARDS,
    DEVICE_IDE_CD,
    DEVICE_FLOPPY
};

/* A PCI card. Strings are borrowed for the machine's life. */
struct device_config {
    enum device_kind kind;
    unsigned slot; /* 1..31, or SLOT_ANY */
    const char *drive, *netdev, *serial, *port;
    const char *id;         /* its name, or NULL: an AHCI controller's, for the buses of its drives */
    const char *bus, *unit; /* of a drive's place, or NULL */
    int bootindex;          /* place in the boot order, from 1 on (that is, one more than the user says); 0: none */
    bool has_mac, modern_only;
    uint8_t mac[6];
};

/* What `-boot` says beside letters. */
struct boot_extras {
    bool letters_given; /* order= is the user's, not the default */
    bool strict;        /* boot nothing that is not named */
    bool has_menu_wait, has_fail_wait;
    uint16_t menu_wait; /* ms that the menu waits (splash-time=) */
    uint32_t fail_wait; /* ms until the machine is reset if nothing boots (reboot-timeout=) */
};

struct netdev_forward {
    bool udp;
    uint32_t host_address, guest_address; /* 0: any; the first that the guest is given */
    uint16_t host_port, guest_port;
};

/* A user-mode network. Addresses are in host byte order; 0: the default. */
struct netdev_config {
    const char *id, *hostname, *tftp, *bootfile, *domain;
    uint32_t net, mask, host, dns, dhcp_start;
    bool restricted, no_ipv6;
    struct netdev_forward forward[FORWARDS_MAX];
    unsigned forwards;
};

#endif
