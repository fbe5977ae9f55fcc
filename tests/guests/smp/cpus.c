// Starting processors, giving them work, sending IPIs.
#include "smp.h"

struct __attribute__((packed)) tss64 {
    u32 zero0;
    u64 rsp[3], zero1, ist[7], zero2;
    u16 zero3, io_map_base;
};
struct __attribute__((packed)) table {
    u16 limit;
    u64 base;
};
struct interrupt_frame;

enum { STACK = 16384, WAIT_ROUNDS = 4000000 };

extern const char ap_start[], ap_end[];
void ap_main(u8 *page);

struct cpu cpus[CPUS_MAX];
unsigned cpu_count;
bool x2apic;

static u8 stacks[CPUS_MAX][STACK] __attribute__((aligned(16)));
static u8 trap_stacks[CPUS_MAX][4096] __attribute__((aligned(16)));
static u64 gdts[CPUS_MAX][8] __attribute__((aligned(16)));
static struct tss64 tsss[CPUS_MAX];
static u64 noted[256][CPUS_MAX];

u32 lapic_read(u32 reg)
{
    return x2apic ? (u32)read_msr(MSR_X2APIC + reg / 16) : apic_read(reg);
}

void lapic_write(u32 reg, u32 value)
{
    if (x2apic)
        write_msr(MSR_X2APIC + reg / 16, value);
    else
        apic_write(reg, value);
}

void send_ipi(u32 dest, u32 icr)
{
    if (x2apic) {
        write_msr(MSR_X2APIC + APIC_ICR / 16, (u64)dest << 32 | icr);
        return;
    }
    apic_write(APIC_ICR_HIGH, dest << 24);
    apic_write(APIC_ICR, icr);
}

// ---- interrupts: counted by processor -----------------------------------------------------------------------------

#define HANDLER(name, vector)                                                                                          \
    __attribute__((interrupt)) static void name(struct interrupt_frame *f)                                             \
    {                                                                                                                  \
        (void)f;                                                                                                       \
        this_cpu()->count[vector]++;                                                                                   \
        lapic_write(APIC_EOI, 0);                                                                                      \
    }
HANDLER(on_a, VECTOR_A)
HANDLER(on_b, VECTOR_B)
HANDLER(on_pit, VECTOR_PIT)

// The remote half of a shootdown: the address is in the processor's `arg`.
__attribute__((interrupt)) static void on_flush(struct interrupt_frame *f)
{
    (void)f;
    struct cpu *c = this_cpu();
    invlpg(c->arg);
    c->count[VECTOR_FLUSH]++;
    lapic_write(APIC_EOI, 0);
}

__attribute__((interrupt)) static void on_nmi(struct interrupt_frame *f)
{
    (void)f;
    this_cpu()->count[2]++;
}

__attribute__((interrupt)) static void on_spurious(struct interrupt_frame *f)
{
    (void)f;
    this_cpu()->count[VECTOR_SPURIOUS]++;
}

static void gates_init(void)
{
    gate_set_handler(VECTOR_A, (const void *)on_a);
    gate_set_handler(VECTOR_B, (const void *)on_b);
    gate_set_handler(VECTOR_PIT, (const void *)on_pit);
    gate_set_handler(VECTOR_FLUSH, (const void *)on_flush);
    gate_set_handler(VECTOR_SPURIOUS, (const void *)on_spurious);
    gate_set_handler(2, (const void *)on_nmi);
}

// ---- a processor's own state --------------------------------------------------------------------------------------

static void load_tables(unsigned index)
{
    u64 *gdt = gdts[index], base = (u64)&tsss[index], limit = sizeof tsss[index] - 1;
    tsss[index].io_map_base = sizeof tsss[index];
    for (unsigned k = 0; k < 7; k++)
        tsss[index].ist[k] = (u64)trap_stacks[index] + sizeof trap_stacks[index];
    gdt[KERNEL_CS / 8] = 0x00af9b000000ffff;
    gdt[KERNEL_DS / 8] = 0x00cf93000000ffff;
    gdt[TSS_SELECTOR / 8] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
    struct table pointer = {sizeof gdts[index] - 1, (u64)gdt};
    __asm__ volatile("lgdt %0" : : "m"(pointer));
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

static void cpu_init(unsigned index)
{
    struct cpu *c = &cpus[index];
    c->self = c;
    c->index = index;
    write_msr(MSR_GS_BASE, (u64)c);
    c->apic_id = lapic_read(APIC_ID) >> (x2apic ? 0 : 24);
    lapic_write(APIC_SVR, 0x100 | VECTOR_SPURIOUS);
    lapic_write(APIC_TPR, 0);
}

void cpus_init(void)
{
    gates_init();
    cpu_init(0);
    cpus[0].started = 1;
}

static void serve(struct cpu *c)
{
    for (;;) {
        job_fn *job = c->job;
        if (!job) {
            pause();
            continue;
        }
        job(c);
        barrier();
        c->job = NULL;
    }
}

void ap_main(u8 *page)
{
    unsigned index = page[AP_STACK + 8];
    struct cpu *c = &cpus[index];
    c->start_cr0 = *(u32 *)(page + AP_CR0);
    c->start_edx = *(u32 *)(page + AP_EDX);
    c->start_cs = *(u16 *)(page + AP_CS);
    c->start_flags = *(u32 *)(page + AP_FLAGS);
    load_tables(index);
    idt_load_default();
    cpu_init(index);
    c->started++;
    irq_on();
    serve(c);
}

// ---- starting -----------------------------------------------------------------------------------------------------

void cpu_reset_page(unsigned page, unsigned index)
{
    u8 *at = gpa_pointer(page);
    memcpy(at, ap_start, (size_t)(ap_end - ap_start));
    *(u32 *)(at + AP_CR3) = (u32)read_cr3();
    *(u64 *)(at + AP_STACK) = (u64)stacks[index] + STACK;
    at[AP_STACK + 8] = (u8)index;
}

void cpu_send_init(unsigned apic_id)
{
    send_ipi(apic_id, ICR_INIT | ICR_ASSERT);
}

void cpu_start(unsigned index, unsigned page)
{
    cpu_reset_page(page, index);
    cpu_send_init(cpus[index].apic_id);
    send_ipi(cpus[index].apic_id, ICR_SIPI | ICR_ASSERT | page >> 12);
}

bool cpu_wait_started(unsigned index, u64 n)
{
    for (unsigned k = 0; k < WAIT_ROUNDS && cpus[index].started < n; k++)
        pause();
    return cpus[index].started == n;
}

// ---- work ---------------------------------------------------------------------------------------------------------

void run_on(unsigned index, job_fn *job, u64 arg)
{
    cpus[index].arg = arg;
    barrier();
    cpus[index].job = job;
}

bool wait_job(unsigned index)
{
    for (unsigned k = 0; k < WAIT_ROUNDS; k++) {
        if (!cpus[index].job)
            return true;
        pause();
    }
    print("# processor %u does not come back\n", index);
    return false;
}

void job_nothing(struct cpu *c)
{
    (void)c;
}

void call_on(unsigned index, job_fn *job, u64 arg)
{
    if (index == 0) {
        cpus[0].arg = arg;
        job(&cpus[0]);
        return;
    }
    run_on(index, job, arg);
    wait_job(index);
}

// Every processor has run for a while, with interrupts on, after this.
void settle(void)
{
    irq_on();
    for (unsigned round = 0; round < 3; round++)
        for (unsigned k = 1; k < cpu_count; k++)
            call_on(k, job_nothing, cpus[k].arg);
    for (unsigned k = 0; k < 100; k++)
        pause();
    irq_off();
}

void counts_note(unsigned vector)
{
    for (unsigned k = 0; k < cpu_count; k++)
        noted[vector][k] = cpus[k].count[vector];
}

bool counts_are(unsigned vector, u64 mask)
{
    bool ok = true;
    settle();
    for (unsigned k = 0; k < cpu_count; k++) {
        u64 more = cpus[k].count[vector] - noted[vector][k];
        if (more != (mask >> k & 1)) {
            print("# processor %u: %lu of vector 0x%x\n", k, more, vector);
            ok = false;
        }
    }
    counts_note(vector);
    return ok;
}
