/*
 * Between the parts of the local APIC: delivery (lapic.c), register files (lapic_regs.c), timer (lapic_timer.c).
 */
#ifndef DEVICES_IRQ_LAPIC_INTERNAL_H
#define DEVICES_IRQ_LAPIC_INTERNAL_H

#include "devices/irq/lapic.h"

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC       0x800

#define APIC_BASE_BSP    (1u << 8)
#define APIC_BASE_X2APIC (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)

#define SVR_ENABLE (1u << 8)

#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL      (1u << 15)
#define LVT_MASKED     (1u << 16)
#define LVT_PERIODIC   (1u << 17)
#define LVT_DEADLINE   (1u << 18)
#define LVT_MODE(lvt)  (((lvt) >> 8) & 7)

#define ICR_LOGICAL (1u << 11)
#define ICR_ASSERT  (1u << 14)
#define ICR_LEVEL   (1u << 15)

#define ESR_SEND_VECTOR    (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER       (1u << 7)

static inline bool lapic_is_enabled(const struct lapic *a)
{
    return a->base_msr & APIC_BASE_ENABLE;
}

static inline bool lapic_is_x2apic(const struct lapic *a)
{
    return (a->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

static inline bool lapic_is_software_enabled(const struct lapic *a)
{
    return lapic_is_enabled(a) && (a->svr & SVR_ENABLE);
}

/* lapic.c */
void lapic_update_intr(struct lapic *a);
void lapic_raise_error(struct lapic *a, uint32_t bits);
void lapic_deliver_lvt(struct lapic *a, enum lapic_lvt which);
void lapic_write_lvt(struct lapic *a, enum lapic_lvt which, uint32_t v);
void lapic_write_svr(struct lapic *a, uint32_t v);
void lapic_eoi(struct lapic *a);
void lapic_send_ipi(struct lapic *a);
void lapic_self_ipi(struct lapic *a, uint8_t vector);
uint8_t lapic_ppr(const struct lapic *a);
/* Registers to their power-on values; IA32_APIC_BASE and the input levels stay. */
void lapic_reset_registers(struct lapic *a);
uint32_t lapic_x2apic_ldr(const struct lapic *a);

/* lapic_regs.c */
bool lapic_msr_read(void *ctx, uint32_t index, uint64_t *value);
bool lapic_msr_write(void *ctx, uint32_t index, uint64_t value);

/* lapic_timer.c */
void lapic_timer_expired(void *opaque);
uint32_t lapic_timer_current(const struct lapic *a);
void lapic_timer_write_initial(struct lapic *a, uint32_t v);
void lapic_timer_write_divide(struct lapic *a, uint32_t v);
/* The timer's LVT changed from `old`. */
void lapic_timer_lvt_changed(struct lapic *a, uint32_t old);
void lapic_timer_write_deadline(struct lapic *a, uint64_t v);
void lapic_timer_rearm(struct lapic *a);

#endif
