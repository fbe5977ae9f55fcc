/*
 * The local APICs of a machine: xAPIC by MMIO and x2APIC by MSR, timers, IPIs, MSIs, and the CPUs' interrupt sockets.
 *
 * Source: Intel SDM volume 3, chapter "Advanced Programmable Interrupt Controller" (section numbers of 2022). Version
 * 0x14, six LVT entries: timer, thermal, performance, LINT0, LINT1, error. The timer counts the 1 GHz virtual clock
 * through its divider; TSC-deadline mode asks the machine what clock time a TSC value is, since the TSC's offset is the
 * CPU's.
 *
 * - All of them share one MMIO window; the initiator of the access says which one is meant. A write from no CPU is an
 * MSI.
 * - INTR to a CPU is a level: high while ack() would return a vector. NMI, SMI, INIT and SIPI are pulses; an INIT has
 * reset the local APIC before the CPU's pin sees it.
 * - Every LINT0 is wired to the 8259 pair; which CPU listens is a matter of LVT0 (or of a disabled APIC).
 * - The local APIC's base cannot be moved: the MSR takes another base, but the registers stay where they are, and the
 * log says so.
 */
#ifndef DEVICES_IRQ_LAPIC_H
#define DEVICES_IRQ_LAPIC_H

#include "core/irq.h"
#include "core/topology.h"
#include "devices/device.h"
#include "devices/irq/apic_msg.h"

struct snap_writer;
struct snap_reader;
struct lapic_set;

#define LAPIC_DEFAULT_BASE 0xfee00000ull
#define LAPIC_MAX_CPUS     255

enum lapic_lvt {
    LAPIC_LVT_TIMER,
    LAPIC_LVT_THERMAL,
    LAPIC_LVT_PERF,
    LAPIC_LVT_LINT0,
    LAPIC_LVT_LINT1,
    LAPIC_LVT_ERROR,
    LAPIC_LVT_COUNT
};

struct lapic_set_config {
    unsigned cpu_count;           /* 1..LAPIC_MAX_CPUS; CPU 0 is the bootstrap processor */
    struct cpu_topology topology; /* gives the APIC IDs; all zero: 0..cpu_count-1 */
    struct vclock *clock;
    const struct log *log;
    bool absent;                  /* the processor has none, as CPUID says: the pins are INTR and NMI, for good */
    bool x2apic;                  /* as CPUID says */
    unsigned maxphyaddr;          /* reserved bits of IA32_APIC_BASE; 0 means 40 */
    int (*extint_ack)(void *ctx); /* INTA of the 8259 pair */
    void *extint_ctx;
    void (*eoi)(void *ctx, uint8_t vector); /* EOI of a level-triggered vector, to every IOAPIC; may be NULL */
    void *eoi_ctx;
    uint64_t (*tsc_to_clock)(void *ctx, unsigned cpu,
                             uint64_t tsc); /* clock time at which that CPU's TSC reaches `tsc`; NULL: equal */
    void *tsc_ctx;
    void (*ipi_sent)(void *ctx, unsigned cpu); /* that CPU has sent an IPI that others may take; may be NULL */
    void *ipi_ctx;
};

struct lapic {
    struct lapic_set *set;
    unsigned index;
    uint32_t id;
    uint64_t base_msr; /* IA32_APIC_BASE */
    uint32_t tpr, ldr, dfr, svr, esr, esr_pending;
    uint64_t icr;
    uint32_t isr[8], tmr[8], irr[8];
    uint32_t lvt[LAPIC_LVT_COUNT];
    uint32_t timer_initial, timer_divide; /* initial count; divide configuration register */
    uint64_t timer_start;                 /* clock time at which the count was timer_initial */
    uint64_t tsc_deadline;
    struct timer timer;
    bool lint[2];         /* input levels */
    bool extint_latched;  /* an ExtINT message awaits its acknowledge */
    bool intr_level;      /* what the CPU's pin was last driven to */
    uint8_t sipi_vector;  /* of the last SIPI */
    struct irq_line pins; /* of the vCPU; n is an enum cpu_pin */
    struct cpu_intc intc; /* what the vCPU calls */
};

struct lapic_set {
    struct lapic_set_config cfg;
    struct lapic *apic; /* cpu_count of them, owned */
    uint64_t delivered; /* interrupts acknowledged: a counter for -stats */
};

extern const struct bus_ops lapic_bus_ops; /* 4 KiB MMIO; dev is the lapic_set */

/* False when memory is short. */
bool lapic_set_init(struct lapic_set *s, const struct lapic_set_config *cfg);
void lapic_set_fini(struct lapic_set *s);
/* Power-on state: software-disabled, every LVT masked. */
void lapic_set_reset(struct lapic_set *s);
/* What firmware leaves: the bootstrap processor's APIC enabled, LINT0 = ExtINT and LINT1 = NMI (virtual wire mode). For
 * machines that start a kernel without firmware; an 8259-only guest gets its interrupts this way. Nothing where the
 * local APIC is absent. */
void lapic_set_virtual_wire(struct lapic_set *s);
/* Connects a vCPU's pins (n of the line is overwritten), and returns the socket that the vCPU calls, valid until fini.
 */
const struct cpu_intc *lapic_set_connect(struct lapic_set *s, unsigned cpu, const struct irq_line *pins);
/* The 8259's INTR (n = 0) and the board's NMI (n = 1), to all local APICs. */
struct irq_line lapic_set_lint_line(struct lapic_set *s, unsigned n);
/* Could the 8259's output reach a processor that has interrupts off? */
bool lapic_set_passes_nonmaskable(const struct lapic_set *s);
/* An interrupt message. ctx is the lapic_set: fits apic_deliver_fn. */
bool lapic_set_deliver(void *ctx, const struct apic_msg *m);
/* A message-signalled interrupt: what a device writes at `addr` (0xfee.....). */
bool lapic_set_msi(struct lapic_set *s, uint64_t addr, uint32_t data);
/* The CPU's TSC was written or adjusted: re-arms a deadline in TSC units. */
void lapic_set_tsc_changed(struct lapic_set *s, unsigned cpu);
void lapic_set_save(const struct lapic_set *s, struct snap_writer *w);
void lapic_set_load(struct lapic_set *s, struct snap_reader *r);

#endif
