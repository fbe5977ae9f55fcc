/*
 * An AHCI host bus adapter, the ICH9's (8086:2922): six SATA ports, each with a disk, a CD-ROM drive or nothing.
 *
 * Source: Serial ATA AHCI 1.3.1; Serial ATA 3.0 chapter 10 for the frames (FIS); the drives are devices/ata's.
 *
 * A port fetches commands from its list in memory, hands the drive the task file, and moves data by the command's
 * table; what the drive answers goes to the port's area for received frames, to its registers and to interrupts (INTx,
 * or MSI with one message). Commands are fetched when they are issued; their work is done by timers a fixed time later.
 *
 * Invariants: a port hands its drive one command at a time, or up to 32 queued ones, never both. After an error a port
 * fetches nothing until PxCMD.ST is cleared (AHCI 6.2.2). All that is read from or written to memory goes to memory
 * alone: a table cannot reach registers of devices.
 */
#ifndef DEVICES_AHCI_AHCI_H
#define DEVICES_AHCI_AHCI_H

#include "core/memory.h"
#include "devices/ata/ata.h"
#include "devices/pci/pci.h"

#define AHCI_PORTS     6
#define AHCI_SLOTS     32
#define AHCI_REGISTERS 0x1000u /* bytes, BAR 5 */

struct ahci_config {
    struct guest_memory memory;
    struct vclock *clock;
    struct ata_drive_config drive[AHCI_PORTS]; /* ATA_NONE: nothing is connected */
    const struct log *log;
};

/* A command of the list, as the port fetched it. */
struct ahci_command {
    uint8_t slot;
    uint16_t regions; /* entries of its table */
    gpa_t header, table;
};

/* Where in the table the transfer is. */
struct ahci_place {
    uint32_t entry, used; /* bytes of the entry that are used */
};

struct ahci_queued {
    struct ahci_command at;
    struct ata_queued command;
    uint64_t due;
};

struct ahci;

struct ahci_port {
    struct ahci *hba;
    unsigned number;
    char name[16];
    struct ata_link link;
    uint64_t list, received; /* PxCLB, PxFB */
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    bool signature_waits; /* the drive's first frame, for FIS Receive Enable */
    bool in_reset;        /* SRST is asserted */
    bool running;         /* the drive works on `current`, which is not a queued command */
    bool halted;          /* by an error */
    bool fetching;        /* inside a call alone */
    bool lost;            /* the same: a transfer led nowhere */
    struct ahci_command current;
    struct ahci_place place, mark;
    uint32_t moved; /* bytes of the current command */
    struct ahci_queued queue[AHCI_SLOTS];
    unsigned queued;
    struct timer timer; /* of queue[0] */
};

struct ahci {
    struct ahci_config cfg;
    struct pci_device pci;
    uint32_t ghc, is;
    uint32_t index; /* of the index-data pair */
    struct ahci_port port[AHCI_PORTS];
};

void ahci_init(struct ahci *a, const struct ahci_config *cfg);
void ahci_reset(struct ahci *a);
/* Sections "pci.DD.F" and "ahci.DD.F". */
void ahci_save(const struct ahci *a, struct snap_writer *w);
void ahci_load(struct ahci *a, struct snap_reader *r);

#endif
