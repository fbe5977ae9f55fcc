/*
 * The message that IOAPIC, MSI and IPIs send to local APICs (SDM volume 3, "Message Signalled Interrupts" and "ICR").
 */
#ifndef DEVICES_IRQ_APIC_MSG_H
#define DEVICES_IRQ_APIC_MSG_H

#include "core/types.h"

enum apic_mode {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7
};

/* Modes that a processor with interrupts off takes, too. */
static inline bool apic_mode_is_nonmaskable(unsigned mode)
{
    return mode == APIC_SMI || mode == APIC_NMI || mode == APIC_INIT;
}

struct apic_msg {
    uint32_t dest; /* APIC ID, or logical mask */
    bool wide;     /* dest is a 32-bit x2APIC destination; else 8 bits, 0xff being everybody */
    bool logical;
    bool level;   /* level-triggered: the target broadcasts its EOI */
    uint8_t mode; /* enum apic_mode */
    uint8_t vector;
};

/* Returns true if some local APIC took the message. */
typedef bool apic_deliver_fn(void *ctx, const struct apic_msg *m);

#endif
