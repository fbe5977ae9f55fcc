/*
 * The IOAPIC: 24 pins, each with a redirection entry, sending messages to the local APICs.
 *
 * Source: Intel 82093AA data sheet (290566), with the EOI register of later parts, hence version 0x20. Lines carry
 * assertion, not voltage: the polarity bit is stored and otherwise without effect, as all drivers assert with `true`.
 * An edge on a masked pin is lost, as the data sheet says.
 */
#ifndef DEVICES_IRQ_IOAPIC_H
#define DEVICES_IRQ_IOAPIC_H

#include "core/irq.h"
#include "devices/device.h"
#include "devices/irq/apic_msg.h"

struct snap_writer;
struct snap_reader;

#define IOAPIC_PINS 24

struct ioapic_config {
    apic_deliver_fn *deliver; /* lapic_set_deliver */
    void *deliver_ctx;        /* the lapic_set */
    uint8_t id;               /* ID at reset */
    const struct log *log;
};

struct ioapic {
    struct ioapic_config cfg;
    uint8_t select;
    uint8_t id;
    uint32_t lines; /* input levels */
    uint64_t entry[IOAPIC_PINS];
};

extern const struct bus_ops ioapic_bus_ops; /* MMIO */

void ioapic_init(struct ioapic *io, const struct ioapic_config *cfg);
void ioapic_reset(struct ioapic *io);
/* Drives pin `pin`. Fits struct irq_line: ctx is the ioapic. */
void ioapic_set_pin(void *ctx, unsigned pin, bool level);
/* A local APIC's EOI of a level-triggered vector. Fits lapic_set_config.eoi: ctx is the ioapic. */
void ioapic_eoi(void *ctx, uint8_t vector);
/* Could a pin reach a processor that has interrupts off? */
bool ioapic_passes_nonmaskable(const struct ioapic *io);
void ioapic_save(const struct ioapic *io, struct snap_writer *w);
void ioapic_load(struct ioapic *io, struct snap_reader *r);

#endif
