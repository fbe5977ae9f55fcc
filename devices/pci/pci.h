/*
 * PCI functions on bus 0: configuration space, base address registers, INTx.
 *
 * A device embeds a struct pci_device, describes its identity and BARs, and attaches it; the bus then answers
 * configuration accesses, maps and unmaps each BAR's bus_ops at the address that the guest chose, and carries INTx to a
 * PIRQ line. Where BARs overlap, the first one (by devfn, then by number) is mapped, and behind all devices that are no
 * PCI functions' come BARs; the others stay unmapped (and the log says so) until the conflict is gone. So what is
 * mapped depends on the registers alone, not on the order in which they were written.
 */
#ifndef DEVICES_PCI_PCI_H
#define DEVICES_PCI_PCI_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define PCI_CONFIG_BYTES 256
#define PCI_BARS         6
#define PCI_ROM          PCI_BARS /* the expansion ROM's place in pci_device.bar */
#define PCI_UNMAPPED     UINT64_MAX

#define PCI_COMMAND        0x04
#define PCI_STATUS         0x06
#define PCI_BASE_CLASS     0x0b
#define PCI_BAR0           0x10
#define PCI_ROM_BAR        0x30
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN  0x3d

#define PCI_COMMAND_IO      0x0001
#define PCI_COMMAND_MEMORY  0x0002
#define PCI_COMMAND_MASTER  0x0004
#define PCI_COMMAND_NO_INTX 0x0400
#define PCI_CLASS_STORAGE   0x01

#define PCI_STATUS_INTX 0x0008
#define PCI_STATUS_CAPS 0x0010

#define PCI_CAPABILITIES 0x34 /* offset of the first one's offset */
#define PCI_CAP_FIRST    0x40 /* where they begin */
#define PCI_CAP_MSI      0x05
#define PCI_CAP_VENDOR   0x09
#define PCI_CAP_MSIX     0x11

enum pci_bar_kind {
    PCI_BAR_NONE,
    PCI_BAR_IO,
    PCI_BAR_MEM32,
    PCI_BAR_MEM64, /* takes the next BAR too */
    PCI_BAR_ROM,   /* the expansion ROM: has an enable bit of its own */
    PCI_BAR_OWN    /* no BAR, but ports that a register of the function's own places: pci_device_place() */
};

struct pci_bar {
    enum pci_bar_kind kind;
    uint64_t size; /* a power of two: IO from 4, memory from 16 */
    bool prefetchable;
    const struct bus_ops *ops;
    void *dev;
    uint64_t mapped;  /* address on the bus now, or PCI_UNMAPPED */
    uint64_t own;     /* PCI_BAR_OWN: the address that is wanted, or PCI_UNMAPPED */
    uint64_t before;  /* while maps are made: where it was */
    uint64_t refused; /* the address that it wants and another has, or PCI_UNMAPPED */
};

/* The bytes of an expansion ROM; behind them it reads as ones. */
struct pci_rom {
    const uint8_t *bytes; /* borrowed */
    size_t len;
};

struct pci_identity {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* base class << 16 | subclass << 8 | programming interface */
    uint8_t revision;
    uint8_t interrupt_pin; /* 0: none, 1..4: INTA..INTD */
    bool multifunction;
};

struct pci_bus;
struct pci_msix;

struct pci_device {
    const char *name; /* static string */
    struct pci_bus *bus;
    uint8_t devfn;
    uint8_t config[PCI_CONFIG_BYTES];
    uint8_t initial[PCI_CONFIG_BYTES];  /* config after reset */
    uint8_t writable[PCI_CONFIG_BYTES]; /* bits that a write sets */
    uint8_t clears[PCI_CONFIG_BYTES];   /* bits that a write of 1 clears */
    struct pci_bar bar[PCI_BARS + 1];   /* PCI_ROM is the last */
    struct pci_rom rom;
    bool intx;             /* level that the device asserts */
    unsigned cap_end;      /* first byte behind the capabilities that were added */
    unsigned msi;          /* offset of the MSI capability, or 0 */
    struct pci_msix *msix; /* or NULL */
    /* After a guest write to config space (and after reset and load, with offset 0 and size PCI_CONFIG_BYTES). May be
     * NULL. */
    void (*config_written)(void *ctx, unsigned offset, unsigned size);
    /* A BAR was mapped or unmapped, perhaps because of another function. May be NULL. */
    void (*moved)(void *ctx);
    /* Before a guest's read. May be NULL. */
    void (*config_read)(void *ctx, unsigned offset, unsigned size);
    void *ctx;
};

struct pci_bus {
    struct bus *io, *mmio;
    struct irq_line pirq[4];
    const struct log *log;
    void (*msi)(void *ctx, uint64_t address, uint32_t data); /* a message of a device; may be NULL */
    void *msi_ctx;
    struct pci_device *device[256]; /* by devfn; borrowed */
};

void pci_bus_init(struct pci_bus *b, struct bus *io, struct bus *mmio, const struct irq_line pirq[4],
                  const struct log *log);
/* Values of the device's own registers are then set in config, initial (see pci_device_preset) and writable, before it
 * is attached. */
void pci_device_init(struct pci_device *d, const char *name, const struct pci_identity *id);
/* A register's value after reset and its writable bits, little-endian, `size` bytes. */
void pci_device_preset(struct pci_device *d, unsigned offset, unsigned size, uint32_t value, uint32_t writable);
void pci_device_add_bar(struct pci_device *d, unsigned n, enum pci_bar_kind kind, uint64_t size,
                        const struct bus_ops *ops, void *dev);
/* A capability of `len` bytes, at the next free place behind PCI_CAP_FIRST: its offset. Its bytes from 2 on are the
 * caller's to preset. */
unsigned pci_device_add_capability(struct pci_device *d, uint8_t id, unsigned len);
/* Who takes messages (devices/pci/pci_msi.h). */
void pci_bus_set_msi(struct pci_bus *b, void (*msi)(void *ctx, uint64_t address, uint32_t data), void *ctx);
/* What firmware does before it starts a system: gives each BAR that has no address one, I/O from `io` up and memory
 * from `memory_end` (exclusive) down, turns the decoders on (and, of disks' controllers, the bus master), and names the
 * 8259 input of each function's INTx. */
void pci_bus_assign(struct pci_bus *b, uint16_t io, uint32_t memory_end, const uint8_t irq[4]);
/* An expansion ROM (an option ROM for the firmware): `bytes` are borrowed for the device's life; at most 16 MiB. */
void pci_device_add_rom(struct pci_device *d, const void *bytes, size_t len);
/* Moves a PCI_BAR_OWN to a port, or takes it away (PCI_UNMAPPED). */
void pci_device_place(struct pci_device *d, unsigned n, uint64_t address);
/* False if the slot is taken. */
bool pci_bus_attach(struct pci_bus *b, uint8_t devfn, struct pci_device *d);
void pci_bus_detach(struct pci_device *d);
/* Drives INTx of the device. */
void pci_device_set_intx(struct pci_device *d, bool level);
void pci_device_reset(struct pci_device *d);
uint16_t pci_device_read16(const struct pci_device *d, unsigned offset);
uint32_t pci_device_read32(const struct pci_device *d, unsigned offset);
/* Configuration access; offset + size <= 256. A missing function reads as all ones. */
uint32_t pci_bus_config_read(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size);
void pci_bus_config_write(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size, uint32_t value);
/* Section "pci.DD.F". The device saves its own registers in a section of its own. */
void pci_device_save(const struct pci_device *d, struct snap_writer *w);
void pci_device_load(struct pci_device *d, struct snap_reader *r);

#endif
