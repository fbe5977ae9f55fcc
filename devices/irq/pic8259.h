/*
 * The PC's pair of 8259A interrupt controllers, the slave on the master's input 2, with the PIIX3's edge/level
 * registers (ELCR).
 *
 * Sources: Intel 8259A data sheet (231468), 82371SB data sheet for ELCR and for the ICW1 bits that it ignores.
 * An edge-triggered request whose line falls before it is acknowledged is gone, and the acknowledge then yields the
 * default vector 7, as the data sheet has it. So a device that pulses must leave its line high.
 */
#ifndef DEVICES_IRQ_PIC8259_H
#define DEVICES_IRQ_PIC8259_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;
struct pic8259;

struct pic8259_config {
    struct irq_line intr; /* the master's INT output: the local APICs' LINT0 */
    const struct log *log;
};

struct pic8259_chip {
    struct pic8259 *pair;
    uint8_t lines, irr, imr, isr; /* input levels, and the three registers of the data sheet */
    uint8_t elcr;                 /* bit set: level-triggered */
    uint8_t vector_base;
    uint8_t top;      /* input with the highest priority (rotation) */
    uint8_t icw_step; /* 0: initialised; 1..3: awaiting ICW2, ICW3, ICW4 */
    bool single, icw4_needed, auto_eoi, rotate_on_auto_eoi, special_mask, special_fully_nested, poll, read_isr;
};

struct pic8259 {
    struct pic8259_config cfg;
    struct pic8259_chip chip[2]; /* master, slave */
    bool intr_level;
};

extern const struct bus_ops pic8259_bus_ops;      /* 2 ports; dev is &pic->chip[0] or &pic->chip[1] */
extern const struct bus_ops pic8259_elcr_bus_ops; /* 2 ports; dev is the pic8259 */

void pic8259_init(struct pic8259 *p, const struct pic8259_config *cfg);
void pic8259_reset(struct pic8259 *p);
/* Drives input `irq` (0..15; 2 is the cascade and is ignored). Fits struct irq_line: ctx is the pic8259. */
void pic8259_set_irq(void *ctx, unsigned irq, bool level);
/* The two INTA cycles: returns the vector, always (7 of a chip when the request went away). Fits the local APIC's
 * extint_ack. */
int pic8259_ack(void *ctx);
/* Sets ELCR as firmware does before it starts a system; bits of inputs 0, 1, 2, 8 and 13 stay edge. */
void pic8259_set_elcr(struct pic8259 *p, uint16_t level_mask);
void pic8259_save(const struct pic8259 *p, struct snap_writer *w);
void pic8259_load(struct pic8259 *p, struct snap_reader *r);

#endif
