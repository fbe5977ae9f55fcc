// The smp guest: processors, jobs for them, IPIs.
#ifndef SMP_H
#define SMP_H

#include "../small/verdict.h"
#include "smp_layout.h"

enum { CPUS_MAX = 16, START_PAGE = 0x8000, OTHER_PAGE = 0x9000 };
enum { VECTOR_A = 0xa0, VECTOR_B = 0xb1, VECTOR_FLUSH = 0xc2, VECTOR_PIT = 0xd3, VECTOR_SPURIOUS = 0xff };
enum {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310
};
enum {
    ICR_FIXED = 0,
    ICR_LOWEST = 1 << 8,
    ICR_NMI = 4 << 8,
    ICR_INIT = 5 << 8,
    ICR_SIPI = 6 << 8,
    ICR_LOGICAL = 1 << 11,
    ICR_ASSERT = 1 << 14,
    ICR_SELF = 1 << 18,
    ICR_ALL = 2 << 18,
    ICR_OTHERS = 3 << 18
};
#define MSR_APIC_BASE 0x1bu
#define MSR_GS_BASE   0xc0000101u
#define MSR_X2APIC    0x800u

struct cpu;
typedef void job_fn(struct cpu *c);

struct cpu {
    struct cpu *self; // %gs:0
    unsigned index;
    u32 apic_id;
    volatile u64 count[256]; // interrupts by vector
    volatile u64 started, stopped;
    job_fn *volatile job;
    volatile u64 arg, result;
    u32 start_cr0, start_edx, start_flags;
    u16 start_cs;
};

extern struct cpu cpus[CPUS_MAX];
extern unsigned cpu_count;
extern bool x2apic;

static inline struct cpu *this_cpu(void)
{
    struct cpu *c;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(c));
    return c;
}
static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}
static inline void irq_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static inline void irq_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

// cpus.c
void cpus_init(void); // the bootstrap processor's own part
void cpu_send_init(unsigned apic_id);
void cpu_start(unsigned index, unsigned page); // INIT and one SIPI
bool cpu_wait_started(unsigned index, u64 n);
void cpu_reset_page(unsigned page, unsigned index); // what a start at that page is for
void run_on(unsigned index, job_fn *job, u64 arg);  // returns at once
bool wait_job(unsigned index);
void call_on(unsigned index, job_fn *job, u64 arg);
void job_nothing(struct cpu *c);
void send_ipi(u32 dest, u32 icr);
u32 lapic_read(u32 reg);
void lapic_write(u32 reg, u32 value);
void idle_while(bool (*waiting)(void), unsigned rounds);
void settle(void);                          // long enough for any IPI to have arrived everywhere
bool counts_are(unsigned vector, u64 mask); // one more for the processors of the mask, none for the others; takes note
void counts_note(unsigned vector);

// checks.c, memory.c
void check_start(struct verdict *v);
void check_ipis(struct verdict *v);
void check_x2apic(struct verdict *v);
void check_ioapic(struct verdict *v);
void check_tables(struct verdict *v);
void check_memory(struct verdict *v);

#endif
