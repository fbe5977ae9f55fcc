/*
 * Intel 82540EM gigabit Ethernet controller. Source: PCI/PCI-X Family of Gigabit Ethernet Controllers Software
 * Developer's Manual.
 *
 * There are: descriptor rings (transmit: legacy, context and data descriptors with checksums and TCP segmentation;
 * receive: legacy), address filters, interrupts (cause and mask; no moderation), EEPROM by its bit interface and by
 * EERD, PHY by MDIC, counters, the I/O window. There are not: wake up, flow control frames, VLAN tags in hardware,
 * jumbo frames, receive checksums.
 *
 * Rings are served a fixed virtual latency after the tail register was written, between two instructions. A ring that
 * lies where there is no memory is not served; the log says so.
 */
#ifndef DEVICES_NET_E1000_H
#define DEVICES_NET_E1000_H

#include "core/memory.h"
#include "devices/net/nic.h"
#include "devices/pci/pci_msi.h"

#define E1000_REGISTER_BYTES 0x20000
#define E1000_EEPROM_WORDS   64
#define E1000_PHY_REGISTERS  32
#define E1000_LATENCY        5000 /* units from a tail write, or a frame's arrival, to service */

struct e1000_config {
    struct guest_memory memory;
    struct vclock *clock;
    const struct log *log;
    struct nic_wire wire;
    uint8_t mac[NIC_MAC];
};

/* What a context descriptor says of the packets after it. */
struct e1000_context {
    uint8_t ip_start, ip_offset;
    uint16_t ip_end;
    uint8_t tcp_start, tcp_offset;
    uint16_t tcp_end;
    uint32_t payload; /* bytes to be cut into segments */
    uint8_t command, header;
    uint16_t segment; /* bytes of one */
};

/* The EEPROM's serial interface. */
struct e1000_eeprom {
    uint16_t word[E1000_EEPROM_WORDS];
    uint32_t pins;  /* EECD as it was written last */
    uint32_t shift; /* bits that came in */
    uint8_t bits;   /* how many of them */
    uint8_t left;   /* how many go out */
    uint32_t out;   /* they, the next one on top */
};

#define E1000_FRAME_MAX 0x10000 /* a packet before it is cut */

struct e1000 {
    struct e1000_config cfg;
    struct pci_device pci;
    uint32_t reg[0x8000 / 4]; /* the first 32 KiB; higher ones do not exist */
    uint16_t phy[E1000_PHY_REGISTERS];
    struct e1000_eeprom eeprom;
    struct e1000_context context, offload; /* for segmentation, and for checksums alone */
    uint32_t io_address;
    struct timer timer;
    struct nic_fifo fifo;
    /* The packet that descriptors have given so far; `data` is owned. */
    uint8_t *data;
    uint32_t len;
    bool packet_open, segments;
    uint8_t options;
    unsigned burst; /* frames and descriptors of this round of service; not state */
};

/* A function that is not attached yet. Must not move afterwards. */
void e1000_init(struct e1000 *n, const struct e1000_config *cfg);
void e1000_fini(struct e1000 *n);
void e1000_reset(struct e1000 *n);
/* A frame for the guest. */
void e1000_receive(struct e1000 *n, const uint8_t *frame, size_t len);
/* Sections "pci.DD.F" and "e1000.DD.F". */
void e1000_save(const struct e1000 *n, struct snap_writer *w);
void e1000_load(struct e1000 *n, struct snap_reader *r);

#endif
