// Start-up, IPIs in xAPIC and x2APIC mode, IOAPIC routing.
#include "smp.h"

static u64 all(void)
{
    return (1ull << cpu_count) - 1;
}

// ---- start-up -----------------------------------------------------------------------------------------------------

static void check_start_state(struct verdict *v, unsigned k)
{
    const struct cpu *c = &cpus[k];
    bool ok = c->start_cs == START_PAGE >> 4 && (c->start_cr0 & ~0x60000000u) == 0x10 &&
              (c->start_flags & ~0x8d5u) == 2 && c->start_edx == cpuid_get(1, 0).eax;
    if (!ok)
        print("# cs 0x%x cr0 0x%x flags 0x%x edx 0x%x\n", c->start_cs, c->start_cr0, c->start_flags, c->start_edx);
    verdict_check(v, ok, "a started processor is in real mode at the page of the SIPI, as INIT leaves it");
}

static void job_apic_base(struct cpu *c)
{
    c->result = read_msr(MSR_APIC_BASE);
}

static void job_apic_id(struct cpu *c)
{
    struct cpuid leaf = cpuid_get(1, 0), top = cpuid_get(0xb, 0);
    c->result = lapic_read(APIC_ID) >> (x2apic ? 0 : 24);
    if (leaf.ebx >> 24 != c->result || (cpuid_get(0, 0).eax >= 0xb && top.edx != c->result))
        c->result = ~0ull;
}

static void check_identity(struct verdict *v)
{
    bool ids = true, base = true;
    for (unsigned k = 0; k < cpu_count; k++) {
        call_on(k, job_apic_id, 0);
        ids &= cpus[k].result == cpus[k].apic_id;
        for (unsigned other = 0; other < k; other++)
            ids &= cpus[k].apic_id != cpus[other].apic_id;
        call_on(k, job_apic_base, 0);
        base &= cpus[k].result == (0xfee00800 | (k == 0 ? 0x100 : 0));
    }
    verdict_check(v, ids, "APIC IDs differ, and CPUID's leaves 1 and 0BH agree with them");
    verdict_check(v, base, "IA32_APIC_BASE names the bootstrap processor");
}

void check_start(struct verdict *v)
{
    for (unsigned k = 1; k < cpu_count; k++)
        verdict_equal(v, cpus[k].started, 0, "no processor runs before it is told to");
    for (unsigned k = 1; k < cpu_count; k++) {
        cpu_start(k, START_PAGE);
        verdict_check(v, cpu_wait_started(k, 1), "INIT and a SIPI start it");
        check_start_state(v, k);
    }
    check_identity(v);
    if (cpu_count == 1)
        return;
    cpu_reset_page(START_PAGE, 1);
    send_ipi(cpus[1].apic_id, ICR_SIPI | ICR_ASSERT | START_PAGE >> 12);
    settle();
    verdict_equal(v, cpus[1].started, 1, "a SIPI to a running processor is ignored");
    cpu_send_init(cpus[1].apic_id);
    run_on(1, job_nothing, 0);
    for (unsigned k = 0; k < 2000; k++)
        pause();
    verdict_check(v, cpus[1].job != NULL, "INIT stops it");
    counts_note(VECTOR_A);
    send_ipi(cpus[1].apic_id, VECTOR_A);
    for (unsigned k = 0; k < 2000; k++)
        pause();
    verdict_check(v, cpus[1].job != NULL, "an interrupt does not wake it");
    cpus[1].job = NULL;
    cpu_reset_page(START_PAGE, 1);
    memset(gpa_pointer(OTHER_PAGE), 0xf4, 4096); // HLT
    send_ipi(cpus[1].apic_id, ICR_SIPI | ICR_ASSERT | START_PAGE >> 12);
    if (!option_word("onesipi")) // QEMU takes the last one
        send_ipi(cpus[1].apic_id, ICR_SIPI | ICR_ASSERT | OTHER_PAGE >> 12);
    verdict_check(v, cpu_wait_started(1, 2), "of two SIPIs the first counts");
    verdict_check(v, counts_are(VECTOR_A, 0), "the interrupt from before the start is gone: its APIC was disabled");
}

// ---- IPIs ---------------------------------------------------------------------------------------------------------

static void job_set_logical(struct cpu *c)
{
    lapic_write(APIC_DFR, (u32)(c->arg >> 32));
    lapic_write(APIC_LDR, (u32)c->arg);
}

static void job_set_tpr(struct cpu *c)
{
    lapic_write(APIC_TPR, (u32)c->arg);
}

static void check_physical(struct verdict *v)
{
    counts_note(VECTOR_A);
    for (unsigned k = 0; k < cpu_count; k++) {
        send_ipi(cpus[k].apic_id, VECTOR_A);
        verdict_check(v, counts_are(VECTOR_A, 1ull << k), "a physical IPI reaches its processor alone");
    }
    send_ipi(0x7e, VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, 0), "an IPI to an absent APIC reaches nobody");
    send_ipi(x2apic ? 0xffffffff : 0xff, VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, all()), "the broadcast ID reaches everybody");
}

static void check_shorthands(struct verdict *v)
{
    send_ipi(0, ICR_SELF | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, 1), "shorthand self");
    send_ipi(0, ICR_ALL | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, all()), "shorthand all including self");
    send_ipi(0, ICR_OTHERS | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, all() & ~1ull), "shorthand all excluding self");
}

static void check_nmi(struct verdict *v)
{
    counts_note(2);
    for (unsigned k = 1; k < cpu_count; k++) {
        send_ipi(cpus[k].apic_id, ICR_NMI | 0x55);
        verdict_check(v, counts_are(2, 1ull << k), "an NMI reaches its processor, whatever the vector field says");
    }
    send_ipi(0, ICR_OTHERS | ICR_NMI);
    verdict_check(v, counts_are(2, all() & ~1ull), "an NMI to all others");
}

static void check_flat(struct verdict *v)
{
    unsigned flat = cpu_count < 8 ? cpu_count : 8;
    for (unsigned k = 0; k < cpu_count; k++)
        call_on(k, job_set_logical, 0xffffffffull << 32 | (k < 8 ? 1u << (24 + k) : 0));
    send_ipi(1u << (flat - 1), ICR_LOGICAL | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, 1ull << (flat - 1)), "logical flat: one bit, one processor");
    u32 mask = 0xa5u & ((1u << flat) - 1);
    send_ipi(0xa5, ICR_LOGICAL | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, mask), "logical flat: a set");
    for (unsigned k = 0; k < cpu_count; k++)
        call_on(k, job_set_tpr, k == flat - 1 ? 0x20 : 0x30);
    send_ipi((1u << flat) - 1, ICR_LOGICAL | ICR_LOWEST | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, 1ull << (flat - 1)), "lowest priority goes to the lowest task priority");
    for (unsigned k = 0; k < cpu_count; k++)
        call_on(k, job_set_tpr, 0);
}

static void check_cluster(struct verdict *v)
{
    for (unsigned k = 0; k < cpu_count; k++)
        call_on(k, job_set_logical, 0x0fffffffull << 32 | (k / 4) << 28 | 1u << (24 + k % 4));
    for (unsigned cluster = 0; cluster * 4 < cpu_count; cluster++) {
        u64 wanted = 0x5ull << cluster * 4 & all();
        send_ipi(cluster << 4 | 5, ICR_LOGICAL | VECTOR_A);
        verdict_check(v, counts_are(VECTOR_A, wanted), "logical cluster: a set in one cluster");
    }
    send_ipi(0xff, ICR_LOGICAL | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, all()), "logical cluster: broadcast");
}

static void check_errors(struct verdict *v)
{
    lapic_write(APIC_ESR, 0);
    lapic_write(APIC_ESR, 0);
    send_ipi(cpus[0].apic_id, 5);
    lapic_write(APIC_ESR, 0);
    verdict_equal(v, lapic_read(APIC_ESR) & 0x20, 0x20, "a vector below 16 is a send error");
    lapic_write(APIC_ESR, 0);
}

static void job_halt(struct cpu *c)
{
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
    c->result = c->count[VECTOR_B];
    irq_on();
}

static void check_held(struct verdict *v)
{
    unsigned last = cpu_count - 1;
    if (!last)
        return;
    call_on(last, job_set_tpr, 0xb0);
    counts_note(VECTOR_A);
    counts_note(VECTOR_B);
    send_ipi(cpus[last].apic_id, VECTOR_B);
    send_ipi(cpus[last].apic_id, VECTOR_B);
    verdict_check(v, counts_are(VECTOR_B, 0), "the target's task priority holds an IPI back");
    call_on(last, job_set_tpr, 0);
    verdict_check(v, counts_are(VECTOR_B, 1ull << last), "two of one vector arrive as one when it falls");
    cpus[last].result = 0;
    run_on(last, job_halt, 0);
    for (unsigned k = 0; k < 1000; k++)
        pause();
    verdict_check(v, cpus[last].job != NULL, "a halted processor stays halted");
    u64 before = cpus[last].count[VECTOR_B];
    send_ipi(cpus[last].apic_id, VECTOR_B);
    wait_job(last);
    verdict_equal(v, cpus[last].result, before + 1, "an IPI wakes it");
}

void check_ipis(struct verdict *v)
{
    check_physical(v);
    check_shorthands(v);
    check_nmi(v);
    check_flat(v);
    check_cluster(v);
    check_errors(v);
    check_held(v);
}

// ---- x2APIC -------------------------------------------------------------------------------------------------------

static void job_enter_x2apic(struct cpu *c)
{
    write_msr(MSR_APIC_BASE, read_msr(MSR_APIC_BASE) | 0x400);
    c->result = read_msr(MSR_X2APIC + APIC_LDR / 16);
}

void check_x2apic(struct verdict *v)
{
    bool ldr = true;
    if (!(cpuid_get(1, 0).ecx >> 21 & 1)) {
        put_string("# no x2APIC\n");
        return;
    }
    settle();
    for (unsigned k = cpu_count; k-- > 0;) {
        call_on(k, job_enter_x2apic, 0);
        u32 id = cpus[k].apic_id;
        ldr &= cpus[k].result == ((u64)(id >> 4) << 16 | 1u << (id & 15));
    }
    x2apic = true;
    verdict_check(v, ldr, "x2APIC: the logical ID follows from the APIC ID");
    counts_note(VECTOR_A);
    check_physical(v);
    check_shorthands(v);
    check_nmi(v);
    u64 mask = 0;
    u32 dest = 0;
    for (unsigned k = 0; k < cpu_count; k += 2) {
        if (cpus[k].apic_id >> 4)
            continue;
        mask |= 1ull << k;
        dest |= 1u << cpus[k].apic_id;
    }
    send_ipi(dest, ICR_LOGICAL | VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, mask), "x2APIC logical: a set in cluster 0");
    write_msr(MSR_X2APIC + 0x3f, VECTOR_A);
    verdict_check(v, counts_are(VECTOR_A, 1), "x2APIC: SELF IPI");
    check_errors(v);
    check_held(v);
}

// ---- IOAPIC -------------------------------------------------------------------------------------------------------

static void ioapic_write(u32 reg, u32 value)
{
    *(volatile u32 *)0xfec00000ull = reg;
    *(volatile u32 *)0xfec00010ull = value;
}

static bool pit_reaches(unsigned k, u32 low)
{
    ioapic_write(0x15, cpus[k].apic_id << 24);
    ioapic_write(0x14, low);
    counts_note(VECTOR_PIT);
    u64 before = cpus[k].count[VECTOR_PIT];
    pit_oneshot(1000);
    irq_on();
    for (unsigned n = 0; n < 4000000 && cpus[k].count[VECTOR_PIT] == before; n++)
        pause();
    irq_off();
    ioapic_write(0x14, 0x10000 | VECTOR_PIT);
    return counts_are(VECTOR_PIT, 1ull << k);
}

void check_ioapic(struct verdict *v)
{
    for (unsigned k = 0; k < cpu_count; k++)
        verdict_check(v, pit_reaches(k, VECTOR_PIT), "the IOAPIC routes the 8254 to the processor that it is told");
    pit_stop();
}
