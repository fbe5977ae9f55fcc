/*
 * The shadow engine held against the walk engine: two machines with the same memory do the same random things, and
 * after each step must agree on every fault, error code, address and byte, on the A and D bits in memory included. The
 * audits of both run all the time.
 *
 * Guest tables are few pages of random entries that mostly name each other, so that tables map themselves, are shared
 * between levels, formats and roots, lie in ROM or nowhere. UMBRA_FUZZ_STEPS, UMBRA_FUZZ_SEED and UMBRA_FUZZ_LOG=1
 * change and print the run.
 */
#include "core/host/host_ops.h"
#include "core/stats.h"
#include "mmu/mem.h"
#include "mmu_rig.h"

#include <stdarg.h>

#ifndef ENGINE_UNDER_TEST /* test_mmu_ept_differential.c is this file with another */
#define ENGINE_UNDER_TEST MMU_SHADOW

/* Some runs are logged. */
static void engine_setup(struct mmu *mmu, unsigned long random)
{
    if (random & 1)
        mem_dirty_log_start(mmu->mem, 0, 0, random & 2 ? DIRTY_BIT : DIRTY_WRITE_PROTECT);
}
#endif
#ifndef UNSYNC_UNDER_TEST /* test_mmu_unsync_differential.c */
#define UNSYNC_UNDER_TEST false
#endif
#define RAM_PAGES     48
#define ROM_FIRST     48
#define ROM_PAGES     4
#define EXTRA_FIRST   64 /* a slot that comes and goes; 52..63 and all above 80 are nowhere */
#define EXTRA_PAGES   16
#define TABLES        10 /* pages 1..TABLES are tables */
#define STEPS_DEFAULT 50000
#define SMM           1

struct machine {
    struct rig rig;
    hva_t rom, extra;
    struct mmu_vcpu *v[2];
};

static struct machine shadow, walk;
static uint64_t rng;
static bool extra_present, logging;
static gpa_t extra_at; /* of that slot */
static struct paging_regs regs[2];
static unsigned tracked[RAM_PAGES];
static unsigned long step;
static uint64_t unsyncs; /* in all runs */
#define RECENT 16
static gva_t recent[RECENT]; /* that led somewhere */

static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545f4914f6cdd1dull >> 11;
}

static unsigned below(unsigned n)
{
    return (unsigned)(rnd() % n);
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

static void note(const char *fmt, ...)
{
    if (!logging)
        return;
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%lu: ", step);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
}

static void machine_open(struct machine *m, enum mmu_kind kind)
{
    struct rig *r = &m->rig;
    rig_open(
        r, &(struct rig_config){
               .kind = kind, .ram = RAM_PAGES * 4096, .vcpus = 2, .max_shadow_pages = 32, .unsync = UNSYNC_UNDER_TEST});
    m->rom = host_mm_mmap_anon(r->mm, ROM_PAGES * 4096, HOST_READ | HOST_WRITE);
    m->extra = host_mm_mmap_anon(r->mm, EXTRA_PAGES * 4096, HOST_READ | HOST_WRITE);
    mem_slot_add(r->mem, 0, ROM_FIRST * 4096, ROM_PAGES * 4096, m->rom, MEMSLOT_ROM);
    mem_slot_add(r->mem, SMM, 0, RAM_PAGES * 4096, r->hva + RAM_PAGES * 4096, MEMSLOT_RAM);
    for (unsigned i = 0; i < 2; i++)
        m->v[i] = mmu_vcpu_get(r->mmu, i);
    if (kind == ENGINE_UNDER_TEST)
        engine_setup(r->mmu, rng >> 32);
}

/* ---- random things ---- */

static uint64_t random_entry(unsigned size)
{
    uint64_t e = PTE_P;
    if (chance(1))
        return rnd();
    if (chance(4))
        e = 0;
    e |= chance(90) ? PTE_W : 0;
    e |= chance(90) ? PTE_U : 0;
    e |= rnd() & (PTE_A | PTE_D | 0xf18);
    if (chance(4)) {
        e |= PTE_PS | (chance(80) ? 0 : 0x200000) | (chance(95) ? 0 : 1ull << (13 + below(9)));
        return e;
    }
    gfn_t gfn = chance(70) ? 1 + below(TABLES) : chance(95) ? below(84) : rnd() & 0xffff;
    e |= gfn << 12;
    if (size == 8) {
        e |= chance(5) ? PTE_NX : 0;
        e |= chance(20) ? (rnd() & 15) << 59 : 0;
        e |= chance(1) ? 1ull << (40 + below(23)) : 0;
    }
    return e;
}

/* Few indices, so that what is edited is what is used. */
static unsigned random_index(unsigned entries)
{
    unsigned k = below(20);
    return k < 14 ? k % 4 : k < 18 ? entries - 1 : k == 18 ? entries / 2 + 1 : below(90);
}

static gva_t random_gva(enum paging_format f)
{
    gva_t gva = 0;
    if (f == PAGING_NONE)
        return (gva_t)below(90) << 12 | (chance(10) ? 1u << 20 : 0) | below(512) * 8;
    if (f == PAGING_32)
        return (gva_t)random_index(1024) << 22 | (gva_t)random_index(1024) << 12 | below(512) * 8;
    for (int level = f == PAGING_PAE ? 2 : f == PAGING_5LEVEL ? 5 : 4; level; level--)
        gva = gva << 9 | random_index(512);
    gva = gva << 12 | below(512) * 8;
    return f == PAGING_PAE ? gva | (gva_t)below(4) << 30
                           : (gva_t)((int64_t)(gva << (f == PAGING_5LEVEL ? 7 : 16)) >> (f == PAGING_5LEVEL ? 7 : 16));
}

/* ---- steps, each done to both machines ---- */

static void store(unsigned as, gpa_t gpa, const void *bytes, size_t len, enum mem_kind kind)
{
    uint8_t copy[64];
    memcpy(copy, bytes, len);
    mem_access(shadow.rig.mem, as, gpa, copy, len, kind, true, 0);
    mem_access(walk.rig.mem, as, gpa, copy, len, kind, true, 0);
}

static void step_edit_table(void)
{
    unsigned size = chance(25) ? 4 : 8;
    gpa_t gpa = (gpa_t)(1 + below(TABLES)) * 4096 + random_index(4096 / size) * size;
    uint64_t e = random_entry(size);
    note("entry %llx at %llx size %u", (unsigned long long)e, (unsigned long long)gpa, size);
    store(0, gpa, &e, size, MEM_GUEST);
}

/* An 8-byte place in a table that a recent address goes through, or just somewhere. */
static gpa_t entry_in_use(void)
{
    struct gwalk w;
    gwalk(walk.rig.mem, &regs[below(2)], recent[below(RECENT)], ACCESS_READ | GWALK_PEEK, &w);
    gpa_t gpa = w.depth ? w.at[below((unsigned)w.depth)].gpte_gpa : ~0ull;
    return gpa != ~0ull && chance(80) ? gpa & ~7ull : (gpa_t)(1 + below(TABLES)) * 4096 + random_index(512) * 8;
}

/* Bits of an entry that is there: what a kernel does all day. */
static void step_tweak_entry(void)
{
    gpa_t gpa = entry_in_use();
    uint64_t e = rig_get(&walk.rig, gpa);
    static const uint64_t bit[] = {PTE_P,  PTE_W,     PTE_U,      PTE_A,      PTE_D,     PTE_PS,
                                   PTE_NX, 1ull << 9, 1ull << 12, 1ull << 60, 1ull << 55};
    for (unsigned n = 1 + below(2); n; n--)
        e ^= bit[below(11)];
    note("entry becomes %llx at %llx", (unsigned long long)e, (unsigned long long)gpa);
    store(0, gpa, &e, 8, MEM_GUEST);
}

static void step_odd_store(void)
{
    uint64_t bytes[8];
    unsigned len = 1 + below(64);
    gpa_t gpa = (gpa_t)(1 + below(TABLES)) * 4096 + below(4096 + 32);
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = random_entry(8);
    note("%u bytes at %llx", len, (unsigned long long)gpa);
    store(0, gpa, bytes, len, chance(50) ? MEM_DMA : chance(50) ? MEM_HOST_POKE : MEM_GUEST);
}

static void load_both(unsigned cpu)
{
    struct paging_regs *p = &regs[cpu];
    mmu_vcpu_load(shadow.v[cpu], p);
    mmu_vcpu_load(walk.v[cpu], p);
    note("cpu %u cr0 %llx cr3 %llx cr4 %llx efer %llx pkru %x as %u a20 %llx", cpu, (unsigned long long)p->cr0,
         (unsigned long long)p->cr3, (unsigned long long)p->cr4, (unsigned long long)p->efer, p->pkru, p->as,
         (unsigned long long)p->a20_mask);
}

static void load_pdptes(unsigned cpu)
{
    uint64_t a[4], b[4];
    load_both(cpu);
    for (unsigned i = 0; i < 4 && chance(90); i++) {
        uint64_t e = (uint64_t)(1 + below(TABLES)) << 12 | PTE_P;
        store(regs[cpu].as, (regs[cpu].cr3 & 0xffffffe0u) + i * 8, &e, 8, MEM_GUEST);
    }
    bool ok = mmu_load_pdptes(shadow.v[cpu], regs[cpu].cr3, a);
    ck_assert_int_eq(mmu_load_pdptes(walk.v[cpu], regs[cpu].cr3, b), ok);
    ck_assert_mem_eq(a, b, sizeof a);
    if (ok)
        memcpy(regs[cpu].pdpte, a, sizeof a);
    else
        memset(regs[cpu].pdpte, 0, sizeof a);
}

/* A run keeps to one of these sets of formats: where 4-byte and 8-byte entries mix, little stays shadowed for long. */
enum mix { MIX_LONG, MIX_32, MIX_PAE, MIX_8BYTE, MIX_ALL, MIXES };
static enum mix mix;

static enum paging_format random_format(void)
{
    static const enum paging_format of_mix[MIXES][5] = {
        [MIX_LONG] = {PAGING_4LEVEL, PAGING_4LEVEL, PAGING_4LEVEL, PAGING_4LEVEL, PAGING_4LEVEL},
        [MIX_32] = {PAGING_32, PAGING_32, PAGING_32, PAGING_32, PAGING_NONE},
        [MIX_PAE] = {PAGING_PAE, PAGING_PAE, PAGING_PAE, PAGING_PAE, PAGING_NONE},
        [MIX_8BYTE] = {PAGING_4LEVEL, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_PAE, PAGING_4LEVEL},
        [MIX_ALL] = {PAGING_4LEVEL, PAGING_5LEVEL, PAGING_PAE, PAGING_32, PAGING_NONE},
    };
    return of_mix[mix][below(5)];
}

static void choose_format(struct paging_regs *p)
{
    enum paging_format f = random_format();
    p->cr0 = CR0_PE | (f == PAGING_NONE ? 0 : CR0_PG) | (p->cr0 & CR0_WP);
    p->cr4 = (p->cr4 & ~(CR4_PAE | CR4_LA57)) | (f >= PAGING_PAE ? CR4_PAE : 0) | (f == PAGING_5LEVEL ? CR4_LA57 : 0);
    p->efer = (p->efer & EFER_NXE) | (f >= PAGING_4LEVEL ? EFER_LME | EFER_LMA : 0);
}

static void step_registers(void)
{
    static const uint64_t cr4_bits[] = {CR4_PSE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PKS};
    unsigned cpu = below(2);
    struct paging_regs *p = &regs[cpu];
    switch (below(8)) {
    case 0:
        choose_format(p);
        break;
    case 1:
        p->cr0 ^= CR0_WP;
        break;
    case 2:
        p->cr4 ^= cr4_bits[below(5)];
        break;
    case 3:
        p->efer ^= EFER_NXE;
        break;
    case 4:
        p->pkru = (uint32_t)rnd();
        p->pkrs = (uint32_t)rnd();
        break;
    case 5:
        if (chance(20))
            p->a20_mask ^= 1ull << 20;
        if (chance(10))
            p->as ^= SMM;
        break;
    default:
        p->cr3 = (uint64_t)(chance(97) ? 1 + below(4) : below(100)) * 4096;
    }
    if (paging_format_of(p) == PAGING_PAE)
        load_pdptes(cpu);
    load_both(cpu);
}

struct outcome {
    enum xlate_result result;
    uint32_t error;
    gpa_t gpa;
    uint64_t value;
};

/* One access as a CPU makes it: the soft TLB, then the engine, then memory. */
static struct outcome access_one(struct machine *m, unsigned cpu, gva_t gva, unsigned access, uint64_t value)
{
    struct mmu_vcpu *v = m->v[cpu];
    struct outcome o = {.result = XLATE_OK};
    struct xlate x = {0};
    uint8_t *host = NULL;
    if (access == ACCESS_READ)
        host = tlb_lookup_read(v, gva, 8);
    else if (access == ACCESS_WRITE)
        host = tlb_lookup_write(v, gva, 8);
    else if (access == ACCESS_FETCH) {
        const struct tlb_fetch_entry *e = tlb_lookup_fetch(v, gva);
        host = e ? (uint8_t *)(uintptr_t)(e->host + (gva & PAGE_MASK)) : NULL;
        o.gpa = e ? (e->gpa & ~PAGE_MASK) | (gva & PAGE_MASK) : 0;
    }
    if (host && access != ACCESS_FETCH)
        o.gpa = (v->cur_data[tlb_index(gva)].gpa & ~PAGE_MASK) | (gva & PAGE_MASK);
    if (!host) {
        o.result = mmu_translate(v, gva, access, &x);
        o.gpa = o.result == XLATE_OK ? x.gpa : 0;
        o.error = o.result == XLATE_OK ? 0 : x.error;
        host = x.host;
    }
    if (o.result != XLATE_OK)
        return o;
    o.value = value;
    bool write = access & ACCESS_WRITE;
    if (!host)
        mem_access(m->rig.mem, regs[cpu].as, o.gpa, &o.value, 8, MEM_GUEST, write, (int)cpu);
    else if (write)
        memcpy(host, &value, 8);
    else
        memcpy(&o.value, host, 8);
    return o;
}

static void put_entry(unsigned as, gpa_t gpa, uint64_t e, unsigned size)
{
    note("repair: entry %llx at %llx", (unsigned long long)e, (unsigned long long)gpa);
    store(as, gpa, &e, size, MEM_GUEST);
}

/* What a kernel's fault handler does: the entry that stopped the walk becomes a good one, or all of them get the
 * rights. */
static void repair(const struct paging_regs *p, gva_t gva, unsigned access)
{
    struct gwalk w;
    unsigned size = paging_format_of(p) == PAGING_32 ? 4 : 8;
    gwalk(walk.rig.mem, p, gva, access | GWALK_PEEK, &w);
    if (w.result == GWALK_OK || !w.depth || w.at[w.depth - 1].gpte_gpa == ~0ull)
        return;
    const struct gwalk_level *last = &w.at[w.depth - 1];
    if (!(w.error & PF_PRESENT) || (w.error & PF_RSVD)) {
        gfn_t gfn = last->level > 1 || chance(30) ? 1 + below(TABLES) : below(84);
        put_entry(p->as, last->gpte_gpa, gfn << 12 | PTE_ALL | (last->gpte & (PTE_A | PTE_D)), size);
        return;
    }
    for (int i = 0; i < w.depth; i++) {
        uint64_t good = (w.at[i].gpte | PTE_W | (chance(50) ? PTE_U : 0)) & ~(size == 8 ? PTE_NX : 0);
        if (w.at[i].gpte_gpa != ~0ull && good != w.at[i].gpte)
            put_entry(p->as, w.at[i].gpte_gpa, good, size);
    }
}

static void step_access(void)
{
    unsigned cpu = below(2);
    static const unsigned kinds[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH, ACCESS_READ | ACCESS_IMPLICIT,
                                     ACCESS_WRITE | ACCESS_IMPLICIT};
    unsigned k = below(20), access = kinds[k < 9 ? 0 : k < 15 ? 1 : k < 18 ? 2 : k - 15];
    gva_t gva = chance(60) ? recent[below(RECENT)] : random_gva(paging_format_of(&regs[cpu]));
    if (paging_format_of(&regs[cpu]) < PAGING_4LEVEL)
        gva = (uint32_t)gva;
    uint64_t value = random_entry(8);
    if (chance(30)) {
        regs[cpu].cpl = chance(50) ? 3 : 0;
        regs[cpu].ac = chance(30);
        mmu_vcpu_set_mode(shadow.v[cpu], regs[cpu].cpl, regs[cpu].ac);
        mmu_vcpu_set_mode(walk.v[cpu], regs[cpu].cpl, regs[cpu].ac);
    }
    if (UNSYNC_UNDER_TEST) /* what was flushed is up to date, whatever else is not */
        mmu_guest_flush(shadow.v[cpu], chance(70) ? GUEST_FLUSH_PAGE : GUEST_FLUSH_NONGLOBAL, gva);
    struct outcome s = access_one(&shadow, cpu, gva, access, value), w = access_one(&walk, cpu, gva, access, value);
    note("cpu %u cpl %u ac %d access %u gva %llx -> %d error %x gpa %llx value %llx", cpu, regs[cpu].cpl, regs[cpu].ac,
         access, (unsigned long long)gva, w.result, w.error, (unsigned long long)w.gpa, (unsigned long long)w.value);
    if (w.result == XLATE_OK || chance(20))
        recent[below(RECENT)] = gva;
    ck_assert_msg(
        s.result == w.result && s.error == w.error && s.gpa == w.gpa && s.value == w.value,
        "step %lu: access %u to gva %llx: shadow %d error %x gpa %llx value %llx, walk %d error %x gpa %llx value %llx",
        step, access, (unsigned long long)gva, s.result, s.error, (unsigned long long)s.gpa,
        (unsigned long long)s.value, w.result, w.error, (unsigned long long)w.gpa, (unsigned long long)w.value);
    if (w.result == XLATE_FAULT && chance(60))
        repair(&regs[cpu], gva, access);
}

static void extra_slot(struct machine *m)
{
    if (extra_present)
        mem_slot_delete(m->rig.mem, 0, extra_at);
    else
        mem_slot_add(m->rig.mem, 0, extra_at, EXTRA_PAGES * 4096, m->extra, MEMSLOT_RAM);
}

static void step_slots(void)
{
    if (extra_present && chance(40)) {
        gpa_t to = (EXTRA_FIRST + below(8)) * 4096;
        note("slot moves to %llx", (unsigned long long)to);
        ck_assert_int_eq(mem_slot_move(shadow.rig.mem, 0, extra_at, to), 0);
        ck_assert_int_eq(mem_slot_move(walk.rig.mem, 0, extra_at, to), 0);
        extra_at = to;
        return;
    }
    note("slot at %llx %s", (unsigned long long)extra_at, extra_present ? "goes" : "comes");
    extra_slot(&shadow);
    extra_slot(&walk);
    extra_present = !extra_present;
    if (chance(10)) /* a wrap of what an mmio spte keeps of it is near */
        shadow.rig.mem->generation |= 0x7fe;
}

static void step_track(void)
{
    gfn_t gfn = below(RAM_PAGES);
    note("code tracking of gfn %llx %s", (unsigned long long)gfn, tracked[gfn] ? "ends" : "begins");
    for (int i = 0; i < 2; i++)
        (tracked[gfn] ? track_remove : track_add)(i ? walk.rig.mem : shadow.rig.mem, 0, gfn, TRACK_CODE);
    tracked[gfn] ^= 1;
}

/* What the host does to the machine under test alone. */
static void step_host_quietly(void)
{
    uint64_t bits[1], page = below(RAM_PAGES) * 4096;
    hva_t hva = shadow.rig.hva + page;
    switch (below(4)) {
    case 0:
        note("page %llx moves", (unsigned long long)page);
        host_mm_migrate(shadow.rig.mm, hva);
        break;
    case 1:
        note("pages age from %llx", (unsigned long long)page);
        notify_clear_young(shadow.rig.mm, hva, hva + 4096 * (1 + below(4)));
        break;
    case 2:
        note("page %llx is merged", (unsigned long long)page);
        notify_change_pte(shadow.rig.mm, hva,
                          (struct hpte_view){.pfn = host_mm_peek(shadow.rig.mm, hva).pfn, .writable = chance(20)});
        break;
    default:
        note("dirty log is read");
        mem_dirty_log_get_and_clear(shadow.rig.mem, 0, 0, bits);
    }
}

static void step_host(void)
{
    if (chance(40)) {
        step_host_quietly();
        return;
    }
    uint64_t page = below(RAM_PAGES) * 4096, len = (1 + below(4)) * 4096;
    if (page + len > RAM_PAGES * 4096)
        len = 4096;
    switch (below(8)) {
    case 6:
    case 0:
        step_slots();
        break;
    case 1:
        note("zap all, or some");
        if (chance(50))
            mmu_zap_all(shadow.rig.mmu);
        else
            mmu_shrink(shadow.rig.mmu, 1 + below(8));
        break;
    case 2:
        step_track();
        break;
    case 3: /* the host takes write permission and gives it back: on one side only, the guest must not notice */
        note("mprotect %llx", (unsigned long long)page);
        host_mm_mprotect(shadow.rig.mm, shadow.rig.hva + page, len, HOST_READ);
        host_mm_mprotect(shadow.rig.mm, shadow.rig.hva + page, len, HOST_READ | HOST_WRITE);
        break;
    case 4:
        if (chance(80))
            break;
        note("content of %llx dropped", (unsigned long long)page);
        host_mm_dontneed(shadow.rig.mm, shadow.rig.hva + page, 4096);
        host_mm_dontneed(walk.rig.mm, walk.rig.hva + page, 4096);
        break;
    default:
        note("TLB flush");
        tlb_flush_all(chance(50) ? shadow.rig.mmu : walk.rig.mmu);
    }
}

static void compare_memory(unsigned as, unsigned first, unsigned pages)
{
    static uint8_t a[4096], b[4096];
    for (unsigned i = first; i < first + pages; i++) {
        mem_access(shadow.rig.mem, as, i * 4096, a, 4096, MEM_PEEK, false, 0);
        mem_access(walk.rig.mem, as, i * 4096, b, 4096, MEM_PEEK, false, 0);
        for (unsigned k = 0; k < 4096 && memcmp(a, b, 4096); k += 8) {
            uint64_t x, y;
            memcpy(&x, a + k, 8);
            memcpy(&y, b + k, 8);
            ck_assert_msg(x == y, "step %lu: memory at %x: shadow %llx, walk %llx", step, i * 4096 + k,
                          (unsigned long long)x, (unsigned long long)y);
        }
    }
}

static void check(void)
{
    bool full = step % 64 == 0;
    ck_assert_msg(rig_audit(&shadow.rig, full) == 0, "step %lu: shadow: %s", step, shadow.rig.report);
    if (full)
        ck_assert_msg(rig_audit(&walk.rig, true) == 0, "step %lu: walk: %s", step, walk.rig.report);
    compare_memory(0, 1, TABLES);
    if (full)
        compare_memory(0, 0, EXTRA_FIRST + EXTRA_PAGES);
}

/* `accesses`: how many steps of a hundred are accesses; most of the others edit tables. */
static void step_any(unsigned accesses)
{
    unsigned k = below(100);
    if (below(100) < accesses)
        step_access();
    else if (k < 35)
        step_edit_table();
    else if (k < 75)
        step_tweak_entry();
    else if (k < 78)
        step_odd_store();
    else if (k < 90)
        step_registers();
    else
        step_host();
}

static void run(uint64_t seed, unsigned long steps)
{
    rng = seed * 0x9e3779b97f4a7c15ull + 1;
    mix = seed % MIXES;
    extra_present = false;
    extra_at = EXTRA_FIRST * 4096;
    memset(tracked, 0, sizeof tracked);
    machine_open(&shadow, ENGINE_UNDER_TEST);
    machine_open(&walk, MMU_WALK);
    memset(recent, 0, sizeof recent);
    for (unsigned i = 0; i < TABLES * 512; i++) {
        uint64_t e = random_entry(8);
        store(i % 8 ? 0 : SMM, 4096 + i * 8, &e, 8, MEM_GUEST);
    }
    for (unsigned i = 0; i < 2; i++) {
        regs[i] = walk.rig.regs;
        regs[i].cr3 = 4096;
        choose_format(&regs[i]);
        load_pdptes(i);
        load_both(i);
    }
    for (step = 0; step < steps; step++) {
        step_any(seed % 3 ? 70 + below(20) : 40);
        check();
    }
    if (UNSYNC_UNDER_TEST) {
        bool found;
        struct stats stats;
        stats_init(&stats);
        mmu_register_stats(shadow.rig.mmu, &stats);
        unsyncs += stats_get(&stats, "shadow.unsyncs", &found);
        stats_fini(&stats);
    }
    rig_close(&shadow.rig);
    rig_close(&walk.rig);
}

START_TEST(shadow_and_walk_cannot_be_told_apart)
{
    const char *steps = getenv("UMBRA_FUZZ_STEPS"), *seed = getenv("UMBRA_FUZZ_SEED");
    logging = getenv("UMBRA_FUZZ_LOG") != NULL;
    unsigned long n = steps ? strtoul(steps, NULL, 0) : STEPS_DEFAULT;
    if (seed) {
        run(strtoull(seed, NULL, 0), n);
        return;
    }
    for (uint64_t s = 1; s <= 10; s++)
        run(s, n / 10);
    ck_assert(!UNSYNC_UNDER_TEST || unsyncs > 100);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("differential");
    TCase *t = tcase_create("differential");
    tcase_set_timeout(t, 3000);
    tcase_add_test(t, shadow_and_walk_cannot_be_told_apart);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
