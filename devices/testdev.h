/*
 * pc-testdev: what KVM's unit tests expect beside a PC, at fixed addresses. On request.
 *
 *   ports 0xe0-0xe3    a dword that reads back what was written, in any size
 *   ports 0xe4-0xe7    asks the host to map a guest page anew; nothing in a coherent machine shows it
 *   ports 0xe8-0xeb    the same as 0xe0, byte by byte; 0xe9 is left out where the debug console has it
 *   ports 0x2000-0x2017  a write of v drives interrupt line n: ISA lines at the 8259 and the IOAPIC, 16 to 23 at the
 *                      IOAPIC alone
 *   0xff000000, 64 KiB memory on the bus, not RAM
 */
#ifndef DEVICES_TESTDEV_H
#define DEVICES_TESTDEV_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define TESTDEV_LINES  24
#define TESTDEV_MEMORY 0x10000

struct testdev {
    struct irq_line line[TESTDEV_LINES];
    uint8_t word[4], bytes[4], level[TESTDEV_LINES];
    uint8_t memory[TESTDEV_MEMORY];
};

extern const struct bus_ops testdev_word_bus_ops;   /* 4 ports */
extern const struct bus_ops testdev_flush_bus_ops;  /* 4 ports */
extern const struct bus_ops testdev_byte_bus_ops;   /* 1 port; dev is &testdev->bytes[n] */
extern const struct bus_ops testdev_irq_bus_ops;    /* TESTDEV_LINES ports */
extern const struct bus_ops testdev_memory_bus_ops; /* TESTDEV_MEMORY bytes */

void testdev_init(struct testdev *d, const struct irq_line line[TESTDEV_LINES]);
void testdev_reset(struct testdev *d);
void testdev_save(const struct testdev *d, struct snap_writer *w);
void testdev_load(struct testdev *d, struct snap_reader *r);

#endif
