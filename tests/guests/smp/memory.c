// What processors see of each other's memory: atomic operations, page tables, code, time; and what tables say of them.
#include "smp.h"

enum { ROUNDS = 3000 };

// ---- LOCK ---------------------------------------------------------------------------------------------------------

static volatile u64 shared_count, tickets, turn_of, guarded, bits, exchanged;

static void lock_take(void)
{
    u64 mine = 1;
    __asm__ volatile("lock xaddq %0, %1" : "+r"(mine), "+m"(tickets) : : "memory");
    while (turn_of != mine)
        pause();
}

static void lock_give(void)
{
    turn_of = turn_of + 1;
}

static void job_count(struct cpu *c)
{
    for (u64 k = 0; k < ROUNDS; k++) {
        __asm__ volatile("lock incq %0" : "+m"(shared_count) : : "memory");
        if (k % 16 == 0) {
            lock_take();
            guarded = guarded + 1;
            lock_give();
        }
        for (u64 old = exchanged;; old = exchanged)
            if (__sync_bool_compare_and_swap(&exchanged, old, old + 2))
                break;
    }
    __asm__ volatile("lock btsq %1, %0" : "+m"(bits) : "r"((u64)c->index) : "memory", "cc");
}

static void run_everywhere(job_fn *job, u64 arg)
{
    for (unsigned k = 1; k < cpu_count; k++)
        run_on(k, job, arg);
    call_on(0, job, arg);
    for (unsigned k = 1; k < cpu_count; k++)
        wait_job(k);
}

static void check_locks(struct verdict *v)
{
    shared_count = exchanged = guarded = bits = 0;
    run_everywhere(job_count, 0);
    verdict_equal(v, shared_count, (u64)ROUNDS * cpu_count, "LOCK INC by all processors loses nothing");
    verdict_equal(v, exchanged, 2ull * ROUNDS * cpu_count, "LOCK CMPXCHG neither");
    verdict_equal(v, guarded, (ROUNDS + 15ull) / 16 * cpu_count, "a ticket lock guards its section");
    verdict_equal(v, bits, (1ull << cpu_count) - 1, "LOCK BTS");
}

// ---- page tables --------------------------------------------------------------------------------------------------

#define WINDOW GVA(3, 0, 0, 0)

static void job_load(struct cpu *c)
{
    c->result = load64(c->arg);
}

static void job_store(struct cpu *c)
{
    store64(c->arg, c->index + 100);
}

static bool shootdown(u64 gva)
{
    counts_note(VECTOR_FLUSH);
    for (unsigned k = 1; k < cpu_count; k++)
        cpus[k].arg = gva;
    send_ipi(0, ICR_OTHERS | VECTOR_FLUSH);
    invlpg(gva);
    return counts_are(VECTOR_FLUSH, ((1ull << cpu_count) - 1) & ~1ull);
}

static bool everybody_reads(u64 gva, u64 wanted)
{
    bool ok = true;
    for (unsigned k = 0; k < cpu_count; k++) {
        call_on(k, job_load, gva);
        if (cpus[k].result != wanted)
            print("# processor %u reads 0x%lx\n", k, cpus[k].result);
        ok &= cpus[k].result == wanted;
    }
    return ok;
}

static void check_shootdown(struct verdict *v)
{
    u64 first = frame_alloc(), second = frame_alloc();
    store64(first, 0x1111);
    store64(second, 0x2222);
    u64 *entry = pt_entry(read_cr3(), WINDOW, 1);
    for (unsigned round = 0; round < 20; round++) {
        pte_store(entry, (round & 1 ? second : first) | PTE_P | PTE_W);
        if (!shootdown(WINDOW) || !everybody_reads(WINDOW, round & 1 ? 0x2222 : 0x1111)) {
            verdict_check(v, false, "after a shootdown every processor reads the new frame");
            return;
        }
    }
    verdict_check(v, true, "after a shootdown every processor reads the new frame");
    if (option_word("coherent")) {
        pte_store(entry, first | PTE_P | PTE_W);
        verdict_check(v, everybody_reads(WINDOW, 0x1111), "coherent: without one, too");
    }
    pte_store(entry, second | PTE_P | PTE_W);
    shootdown(WINDOW);
    call_on(cpu_count - 1, job_load, WINDOW);
    verdict_equal(v, pte_load(entry) & (PTE_A | PTE_D), PTE_A, "a read elsewhere sets A");
    call_on(cpu_count - 1, job_store, WINDOW);
    verdict_equal(v, pte_load(entry) & (PTE_A | PTE_D), PTE_A | PTE_D, "a write elsewhere sets D");
    verdict_equal(v, load64(second), cpu_count - 1 + 100, "and is seen here");
}

// One processor writes entries in a loop while another reads through them.
static volatile bool flipping;

static void job_flip(struct cpu *c)
{
    u64 *entry = (u64 *)c->arg;
    u64 a = pte_load(entry) & PTE_ADDRESS, b = a + 4096;
    for (u64 k = 0; k < 3000; k++) {
        pte_store(entry, (k & 1 ? b : a) | PTE_P | PTE_W);
        for (unsigned n = 0; n < 20 + k % 13; n++)
            __asm__ volatile("");
    }
    flipping = false;
}

static void check_flipping(struct verdict *v)
{
    u64 frames = frames_alloc(2, 1), other = 0, seen[2] = {0, 0};
    if (cpu_count < 2)
        return;
    store64(frames, 1);
    store64(frames + 4096, 2);
    u64 *entry = pt_entry(read_cr3(), WINDOW + 4096, 1);
    pte_store(entry, frames | PTE_P | PTE_W);
    invlpg(WINDOW + 4096);
    flipping = true;
    run_on(1, job_flip, (u64)entry);
    while (flipping) {
        invlpg(WINDOW + 4096);
        u64 value = load64(WINDOW + 4096);
        if (value == 1 || value == 2)
            seen[value - 1]++;
        else
            other++;
    }
    wait_job(1);
    print("# seen %lu and %lu times\n", seen[0], seen[1]);
    verdict_check(v, !other && seen[0] && seen[1],
                  "an entry that another processor flips leads to one frame or the other");
}

// ---- cross-modifying code -----------------------------------------------------------------------------------------

static volatile u64 code_round, code_seen;

// mov $imm32, %eax; ret
static void code_write(u8 *code, u32 value)
{
    u64 bytes = 0xb8 | (u64)value << 8 | 0xc3ull << 40 | 0x9090ull << 48;
    *(volatile u64 *)code = bytes;
}

static void job_call_loop(struct cpu *c)
{
    u64 round = 0, bad = 0;
    u32 (*code)(void) = (u32(*)(void))c->arg;
    while (round < 50) {
        while (code_round == round)
            pause();
        round = code_round;
        cpuid_get(0, 0); // serialises, as SDM volume 3, 8.1.3 asks
        bad += code() != round;
        code_seen = round;
    }
    c->result = bad;
}

static void job_call_coherent(struct cpu *c)
{
    u32 (*code)(void) = (u32(*)(void))c->arg;
    u32 last = 0, backwards = 0;
    while (last < 1000) {
        u32 now = code();
        backwards += now < last;
        last = now;
    }
    c->result = backwards;
}

static void check_code(struct verdict *v)
{
    u8 *code = gpa_pointer(frame_alloc());
    if (cpu_count < 2)
        return;
    code_write(code, 0);
    run_on(1, job_call_loop, (u64)code);
    for (u64 round = 1; round <= 50; round++) {
        code_write(code, (u32)round);
        code_round = round;
        for (unsigned n = 0; n < 4000000 && code_seen != round; n++)
            pause();
    }
    wait_job(1);
    verdict_equal(v, cpus[1].result, 0, "code that another processor changed runs changed");
    if (!option_word("coherent"))
        return;
    code_write(code, 1);
    run_on(1, job_call_coherent, (u64)code);
    for (u32 value = 2; value <= 1000; value++) {
        code_write(code, value);
        if (value % 7 == 0)
            pause();
    }
    wait_job(1);
    verdict_equal(v, cpus[1].result, 0, "coherent: even while it runs there");
}

// ---- MONITOR and MWAIT --------------------------------------------------------------------------------------------

static volatile u64 watched[16] __attribute__((aligned(128)));
static volatile bool waits;

static void job_mwait(struct cpu *c)
{
    irq_off();
    __asm__ volatile("monitor" : : "a"(&watched[0]), "c"(0), "d"(0));
    waits = true;
    __asm__ volatile("mwait" : : "a"(0), "c"(0) : "memory");
    c->result = watched[0];
    irq_on();
}

static void check_mwait(struct verdict *v)
{
    if (cpu_count < 2 || !(cpuid_get(1, 0).ecx >> 3 & 1)) {
        put_string("# no MONITOR, or nobody to wake\n");
        return;
    }
    watched[0] = 0;
    waits = false;
    run_on(1, job_mwait, 0);
    for (unsigned k = 0; k < 2000 || !waits; k++)
        pause();
    verdict_check(v, cpus[1].job != NULL, "MWAIT waits");
    watched[0] = 0x77;
    wait_job(1);
    verdict_equal(v, cpus[1].result, 0x77, "another processor's store to the line ends it");
}

// ---- time ---------------------------------------------------------------------------------------------------------

static volatile u64 last_tsc, tsc_turn, tsc_backwards;

static void job_tsc(struct cpu *c)
{
    for (unsigned n = 0; n < 200; n++) {
        while (tsc_turn % cpu_count != c->index)
            pause();
        u64 now = read_tsc();
        tsc_backwards += now < last_tsc;
        last_tsc = now;
        barrier();
        tsc_turn = tsc_turn + 1;
    }
}

static void check_time(struct verdict *v)
{
    run_everywhere(job_tsc, 0);
    verdict_equal(v, tsc_backwards, 0, "the TSC is one for all: it never runs backwards from one to the next");
}

void check_memory(struct verdict *v)
{
    check_locks(v);
    check_shootdown(v);
    check_flipping(v);
    check_code(v);
    check_mwait(v);
    check_time(v);
}

// ---- tables -------------------------------------------------------------------------------------------------------

static u8 sum(const u8 *p, unsigned n)
{
    u8 s = 0;
    while (n--)
        s = (u8)(s + *p++);
    return s;
}

static const u8 *find_mp_pointer(void)
{
    for (u64 at = 0x9fc00; at < 0x100000; at = at == 0x9fff0 ? 0xf0000 : at + 16)
        if (*(u32 *)at == 0x5f504d5f && sum((u8 *)at, 16) == 0)
            return (u8 *)at;
    return NULL;
}

// Counts the processors of the MP table and takes their APIC IDs.
static unsigned read_mp_table(const u8 *t)
{
    unsigned found = 0;
    const u8 *e = t + 44;
    for (unsigned n = *(u16 *)(t + 34); n; n--) {
        if (e[0] == 0 && e[3] & 1 && found < CPUS_MAX)
            cpus[found++].apic_id = e[1];
        e += e[0] == 0 ? 20 : 8;
    }
    return found;
}

static unsigned fw_cfg_u16(u16 key)
{
    outw(0x510, key);
    unsigned low = inb(0x511);
    return low | (unsigned)inb(0x511) << 8;
}

static unsigned madt_processors(void)
{
    const u8 *rsdp = NULL;
    for (u64 at = 0xe0000; at < 0x100000 && !rsdp; at += 16)
        if (*(u64 *)at == 0x2052545020445352ull)
            rsdp = (u8 *)at;
    if (!rsdp)
        return 0;
    const u8 *rsdt = (u8 *)(u64) * (u32 *)(rsdp + 16);
    for (unsigned k = 36; k < *(u32 *)(rsdt + 4); k += 4) {
        const u8 *t = (u8 *)(u64) * (u32 *)(rsdt + k);
        unsigned n = 0;
        if (*(u32 *)t != 0x43495041) // APIC
            continue;
        for (const u8 *e = t + 44; e < t + *(u32 *)(t + 4); e += e[1])
            n += e[0] == 0 && e[4] & 1 && e[3] == cpus[n].apic_id;
        return n;
    }
    return 0;
}

void check_tables(struct verdict *v)
{
    const u8 *pointer = find_mp_pointer(), *t = pointer ? (u8 *)(u64) * (u32 *)(pointer + 4) : NULL;
    verdict_check(v, t && *(u32 *)t == 0x504d4350 && sum(t, *(u16 *)(t + 4)) == 0, "the MP table is there and sums up");
    if (!t)
        verdict_exit(v);
    cpu_count = read_mp_table(t);
    print("# %u processors\n", cpu_count);
    verdict_equal(v, fw_cfg_u16(5), cpu_count, "fw_cfg counts as many processors");
    verdict_equal(v, fw_cfg_u16(15), cpu_count, "and no more can come");
    verdict_equal(v, madt_processors(), cpu_count, "the MADT has the same, with the same APIC IDs");
}
