/*
 * Where an ISA interrupt goes: to the 8259 pair and to the IOAPIC at once, as on a PC board.
 *
 * ISA IRQ 0 arrives at IOAPIC pin 2 (the override that the MADT states), IRQ 2 is the cascade and goes nowhere, all
 * others keep their number. PCI's PIRQA..D arrive at IOAPIC pins 16..19 and, if the ISA bridge routes them, at an 8259
 * input. An 8259 input is the OR of all who drive it; a line is identified by its IRQ and its driver ("source").
 */
#ifndef DEVICES_IRQ_ISA_IRQ_H
#define DEVICES_IRQ_ISA_IRQ_H

#include "core/irq.h"

struct snap_writer;
struct snap_reader;

#define ISA_IRQ_COUNT   16
#define ISA_IRQ_SOURCES 4 /* drivers that may share one ISA IRQ */
#define ISA_IRQ_PIRQS   4

struct isa_irq {
    struct irq_line pic;               /* n is overwritten with the IRQ, 0..15 */
    struct irq_line ioapic;            /* n is overwritten with the pin, 0..23 */
    uint8_t level[ISA_IRQ_COUNT];      /* bit per source; bits 4..7: PIRQA..D routed here */
    uint8_t pirq_route[ISA_IRQ_PIRQS]; /* 8259 input of each PIRQ, or ISA_IRQ_UNROUTED */
    bool pirq_level[ISA_IRQ_PIRQS];
};

#define ISA_IRQ_UNROUTED 0xff

void isa_irq_init(struct isa_irq *r, const struct irq_line *pic, const struct irq_line *ioapic);
/* All lines low, PIRQs unrouted. The controllers are reset by their own. */
void isa_irq_reset(struct isa_irq *r);
/* The line of ISA IRQ `irq` (0..15) for driver `source` (0..ISA_IRQ_SOURCES-1); drivers that share an IRQ take
 * different sources. */
struct irq_line isa_irq_line(struct isa_irq *r, unsigned irq, unsigned source);
/* The line of PIRQ `pirq` (0..3). */
struct irq_line isa_irq_pirq_line(struct isa_irq *r, unsigned pirq);
/* Routes a PIRQ to an 8259 input, or nowhere (ISA_IRQ_UNROUTED). */
void isa_irq_route_pirq(struct isa_irq *r, unsigned pirq, uint8_t irq);
void isa_irq_save(const struct isa_irq *r, struct snap_writer *w);
void isa_irq_load(struct isa_irq *r, struct snap_reader *rd);

#endif
