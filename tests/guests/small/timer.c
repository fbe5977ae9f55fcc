// Timers and interrupt routing: 8254 through the 8259, local APIC timer in its three modes, 8254 and serial port
// through the I/O APIC.
#include "verdict.h"

enum { IOAPIC = 0xfec00000, VECTOR_TIMER = 0xa0, VECTOR_PIT = 0xa1, VECTOR_SERIAL = 0xa2, VECTOR_SELF = 0xa3 };
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_EOI = 0xb0,
    APIC_SVR = 0xf0,
    APIC_IRR = 0x200,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
    APIC_TPR = 0x80
};
enum { LVT_MASKED = 0x10000, LVT_PERIODIC = 0x20000, LVT_DEADLINE = 0x40000, DIVIDE_BY_1 = 0xb };
enum { MSR_TSC_DEADLINE = 0x6e0, COM1 = 0x3f8, TRIES = 400000000 };

static void irq_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static void irq_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

// Waits, with IF set, until the counter has grown by n, or long enough.
static bool wait_count(volatile u64 *counter, u64 start, u64 n)
{
    irq_on();
    for (u64 i = 0; i < TRIES && *counter - start < n; i++)
        __asm__ volatile("pause");
    irq_off();
    return *counter - start >= n;
}

// A while without any interrupt of interest: long against the periods used here.
static void wait_quietly(void)
{
    irq_on();
    for (unsigned i = 0; i < 20000; i++)
        (void)inb(0x61);
    irq_off();
}

static void check_pit(struct verdict *v)
{
    pic_mask(0, false);
    u64 start = irq_count[0];
    pit_oneshot(1000);
    verdict_check(v, wait_count(&irq_count[0], start, 1), "8254 one-shot through the 8259");
    wait_quietly();
    verdict_equal(v, irq_count[0] - start, 1, "fires once");
    start = irq_count[0];
    pit_periodic(1193);
    u64 tsc = read_tsc();
    verdict_check(v, wait_count(&irq_count[0], start, 1), "8254 periodic, first tick");
    u64 first = read_tsc();
    verdict_check(v, wait_count(&irq_count[0], start, 11), "8254 periodic, ten more ticks");
    u64 ten = read_tsc() - first;
    print("# first tick after %lu TSC units, then ten ticks in %lu\n", first - tsc, ten);
    verdict_check(v, ten > 0, "the TSC moves");
    pit_stop();
    pic_mask(0, true);
}

// ---- local APIC ---------------------------------------------------------------------------------------------------

static void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

static bool wait_vector(unsigned vector, u64 start, u64 n)
{
    for (u64 done = 0; done < n; done++) {
        if (!wait_count(&vector_count[vector], start + done, 1))
            return false;
        apic_eoi();
    }
    return true;
}

static void check_apic_identity(struct verdict *v)
{
    u32 version = apic_read(APIC_VERSION);
    print("# apic id %u, version 0x%x\n", apic_read(APIC_ID) >> 24, version);
    verdict_check(v, (version & 0xff) >= 0x10 && (version >> 16 & 0xff) >= 3, "the local APIC has a version");
    u64 start = vector_count[VECTOR_SELF];
    apic_write(APIC_ICR_HIGH, 0);
    apic_write(APIC_ICR, 0x40000 | VECTOR_SELF);
    verdict_check(v, wait_vector(VECTOR_SELF, start, 1), "an interrupt sent to itself arrives");
    start = vector_count[VECTOR_SELF];
    apic_write(APIC_TPR, 0xf0);
    apic_write(APIC_ICR, 0x40000 | VECTOR_SELF);
    wait_quietly();
    verdict_equal(v, vector_count[VECTOR_SELF] - start, 0, "the task priority holds it back");
    verdict_check(v, apic_read(APIC_IRR + (VECTOR_SELF / 32) * 16) >> VECTOR_SELF % 32 & 1, "it waits in the IRR");
    apic_write(APIC_TPR, 0);
    verdict_check(v, wait_vector(VECTOR_SELF, start, 1), "and arrives when the priority falls");
}

static void check_apic_timer(struct verdict *v)
{
    u64 start = vector_count[VECTOR_TIMER];
    apic_write(APIC_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_INITIAL, 1000000);
    u32 first = apic_read(APIC_CURRENT), second = apic_read(APIC_CURRENT);
    verdict_check(v, first <= 1000000 && second <= first, "the current count falls");
    verdict_check(v, wait_vector(VECTOR_TIMER, start, 1), "local APIC timer, one-shot");
    verdict_equal(v, apic_read(APIC_CURRENT), 0, "its count is 0 after it fired");
    wait_quietly();
    verdict_equal(v, vector_count[VECTOR_TIMER] - start, 1, "it fires once");
    start = vector_count[VECTOR_TIMER];
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
    apic_write(APIC_INITIAL, 2000000);
    verdict_check(v, wait_vector(VECTOR_TIMER, start, 5), "local APIC timer, periodic, five times");
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | LVT_MASKED | VECTOR_TIMER);
    wait_quietly();
    apic_eoi();
    start = vector_count[VECTOR_TIMER];
    wait_quietly();
    verdict_equal(v, vector_count[VECTOR_TIMER] - start, 0, "masked: no more");
    apic_write(APIC_INITIAL, 0);
    start = vector_count[VECTOR_TIMER];
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_INITIAL, 500000);
    irq_on();
    __asm__ volatile("hlt");
    irq_off();
    apic_eoi();
    verdict_equal(v, vector_count[VECTOR_TIMER] - start, 1, "HLT ends with the local APIC timer");
}

static void check_deadline(struct verdict *v)
{
    if (!(cpuid_get(1, 0).ecx >> 24 & 1)) {
        put_string("# no TSC-deadline mode\n");
        return;
    }
    u64 start = vector_count[VECTOR_TIMER];
    apic_write(APIC_LVT_TIMER, LVT_DEADLINE | VECTOR_TIMER);
    u64 deadline = read_tsc() + 2000000;
    write_msr(MSR_TSC_DEADLINE, deadline);
    verdict_equal(v, read_msr(MSR_TSC_DEADLINE), deadline, "the deadline reads back while armed");
    verdict_check(v, wait_vector(VECTOR_TIMER, start, 1), "local APIC timer, TSC deadline");
    verdict_check(v, read_tsc() >= deadline, "not before the deadline");
    verdict_equal(v, read_msr(MSR_TSC_DEADLINE), 0, "the deadline reads 0 afterwards");
    start = vector_count[VECTOR_TIMER];
    write_msr(MSR_TSC_DEADLINE, 1);
    verdict_check(v, wait_vector(VECTOR_TIMER, start, 1), "a deadline in the past fires at once");
    start = vector_count[VECTOR_TIMER];
    write_msr(MSR_TSC_DEADLINE, read_tsc() + 1000000);
    write_msr(MSR_TSC_DEADLINE, 0);
    wait_quietly();
    verdict_equal(v, vector_count[VECTOR_TIMER] - start, 0, "writing 0 disarms it");
    apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
}

// ---- I/O APIC -----------------------------------------------------------------------------------------------------

static u32 ioapic_read(u32 reg)
{
    *(volatile u32 *)(u64)IOAPIC = reg;
    return *(volatile u32 *)(u64)(IOAPIC + 0x10);
}

static void ioapic_write(u32 reg, u32 value)
{
    *(volatile u32 *)(u64)IOAPIC = reg;
    *(volatile u32 *)(u64)(IOAPIC + 0x10) = value;
}

static void ioapic_route(unsigned pin, u32 low)
{
    ioapic_write(0x10 + 2 * pin + 1, apic_read(APIC_ID) & 0xff000000u);
    ioapic_write(0x10 + 2 * pin, low);
}

static void check_ioapic_pit(struct verdict *v)
{
    u32 pins = (ioapic_read(1) >> 16 & 0xff) + 1;
    print("# i/o apic version 0x%x, %u pins\n", ioapic_read(1) & 0xff, pins);
    verdict_check(v, pins >= 16 && pins <= 240, "the I/O APIC has pins");
    verdict_check(v, ioapic_read(0x10) & LVT_MASKED, "pin 0 is masked after reset");
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    u64 start = vector_count[VECTOR_PIT];
    ioapic_route(2, VECTOR_PIT); // ISA IRQ 0 is global interrupt 2
    verdict_equal(v, ioapic_read(0x10 + 4) & 0xff, VECTOR_PIT, "a redirection entry reads back");
    pit_periodic(2000);
    verdict_check(v, wait_vector(VECTOR_PIT, start, 5), "8254 through the I/O APIC, five times");
    ioapic_route(2, LVT_MASKED | VECTOR_PIT);
    wait_quietly();
    apic_eoi();
    start = vector_count[VECTOR_PIT];
    wait_quietly();
    verdict_equal(v, vector_count[VECTOR_PIT] - start, 0, "masked: no more");
    pit_stop();
}

static void check_ioapic_serial(struct verdict *v)
{
    u64 start = vector_count[VECTOR_SERIAL];
    ioapic_route(4, VECTOR_SERIAL);
    outb(COM1 + 4, 0x0b); // OUT2 lets the interrupt out
    outb(COM1 + 1, 2);    // transmitter empty
    bool arrived = wait_vector(VECTOR_SERIAL, start, 1);
    u8 identification = inb(COM1 + 2);
    outb(COM1 + 1, 0);
    ioapic_route(4, LVT_MASKED | VECTOR_SERIAL);
    verdict_check(v, arrived, "transmitter-empty interrupt of COM1 through the I/O APIC");
    verdict_equal(v, identification & 0x0f, 2, "the port says why");
    verdict_equal(v, inb(COM1 + 2) & 1, 1, "reading that takes the cause away");
}

void guest_main(void);

void guest_main(void)
{
    struct verdict v = {.guest = "timer"};
    console_init();
    traps_init();
    pic_init();
    pit_stop();
    check_pit(&v);
    check_apic_identity(&v);
    check_apic_timer(&v);
    check_deadline(&v);
    check_ioapic_pit(&v);
    check_ioapic_serial(&v);
    verdict_exit(&v);
}
