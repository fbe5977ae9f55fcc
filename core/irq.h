/*
 * Wires: interrupt lines between devices, and the socket between an interrupt controller and a vCPU.
 *
 * Upward calls are callbacks: cpu offers cpu_pins, the local APIC drives them; the local APIC offers cpu_intc, the CPU
 * calls it.
 */
#ifndef CORE_IRQ_H
#define CORE_IRQ_H

#include "core/types.h"

/* An input of some controller. Copy freely: it is a handle, not the state. */
struct irq_line {
    void (*set)(void *ctx, unsigned n, bool level);
    void *ctx;
    unsigned n;
};

/* Drives the line; a line with no `set` is unconnected. */
static inline void irq_set(const struct irq_line *l, bool level)
{
    if (l->set)
        l->set(l->ctx, l->n, level);
}

static inline void irq_pulse(const struct irq_line *l)
{
    irq_set(l, true);
    irq_set(l, false);
}

/* What drives a vCPU's pins. Implemented by cpu/, called by the interrupt controllers. `n` of an irq_line is one of
 * these. */
enum cpu_pin {
    CPU_PIN_INTR,
    CPU_PIN_NMI,
    CPU_PIN_SMI,
    CPU_PIN_INIT,
    CPU_PIN_SIPI /* level true; vector in cpu_intc.sipi_vector */
};

/* What a vCPU asks of its interrupt controller (its local APIC, which passes ExtINT on to the 8259). All may be called
 * at instruction boundaries and inside an instruction, with the clock exact. One per vCPU. */
struct cpu_intc {
    void *ctx;
    /* Acknowledges the highest pending interrupt: returns its vector (0..255), or -1 if it went away. */
    int (*ack)(void *ctx);
    /* Task priority as CR8 shows it (bits 7:4 of the TPR). */
    uint8_t (*get_cr8)(void *ctx);
    void (*set_cr8)(void *ctx, uint8_t value);
    /* IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range. False: not an MSR of the APIC, or it must #GP. */
    bool (*msr_read)(void *ctx, uint32_t index, uint64_t *value);
    bool (*msr_write)(void *ctx, uint32_t index, uint64_t value);
    /* Start-up vector of the last SIPI. */
    uint8_t (*sipi_vector)(void *ctx);
};

#endif
