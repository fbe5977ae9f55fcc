#include "fuzz_mmu.h"

#include <string.h>

/* ---- random things ---- */

uint64_t random_entry(struct pair *p, unsigned size)
{
    uint64_t noise = rng_next(p->rng), e = GPTE_P;
    if (chance(p, 1))
        return noise;
    if (chance(p, 4))
        e = 0;
    e |= chance(p, 90) ? GPTE_W : 0;
    e |= chance(p, 90) ? GPTE_U : 0;
    e |= noise & (GPTE_A | GPTE_D | 0xf18);
    if (chance(p, 6)) /* a large page, of the big slot mostly */
        return e | GPTE_PS |
               (chance(p, 30)   ? 0
                : chance(p, 50) ? 0x400000
                                : 0x600000) |
               (chance(p, 95) ? 0 : 1ull << (13 + below(p, 9)));
    gfn_t gfn = chance(p, 65)   ? 1 + below(p, TABLES)
                : chance(p, 80) ? below(p, 84)
                : chance(p, 90) ? BIG_FIRST + below(p, 4) * 256 + below(p, 3)
                                : noise & 0xffff;
    e |= gfn << 12;
    if (size == 8) {
        e |= chance(p, 5) ? GPTE_NX : 0;
        e |= chance(p, 20) ? (noise >> 20 & 15) << 59 : 0;
        e |= chance(p, 1) ? 1ull << (40 + below(p, 23)) : 0;
    }
    return e;
}

/* Few indices, so that what is edited is what is used. */
static unsigned random_index(struct pair *p, unsigned entries)
{
    unsigned k = below(p, 20);
    return k < 14 ? k % 4 : k < 18 ? entries - 1 : k == 18 ? entries / 2 + 1 : below(p, 90);
}

static gva_t random_gva(struct pair *p, enum paging_format f)
{
    gva_t gva = 0, offset = below(p, 512) * 8;
    if (f == PAGING_NONE)
        return (chance(p, 80) ? (gva_t)below(p, 90) : BIG_FIRST + below(p, BIG_PAGES)) << 12 |
               (chance(p, 10) ? 1u << 20 : 0) | offset;
    if (f == PAGING_32)
        return (gva_t)random_index(p, 1024) << 22 | (gva_t)random_index(p, 1024) << 12 | offset;
    for (int level = f == PAGING_PAE ? 2 : f == PAGING_5LEVEL ? 5 : 4; level; level--)
        gva = gva << 9 | random_index(p, 512);
    gva = gva << 12 | offset;
    if (f == PAGING_PAE)
        return gva | (gva_t)below(p, 4) << 30;
    unsigned unused = f == PAGING_5LEVEL ? 7 : 16;
    return (gva_t)((int64_t)(gva << unused) >> unused);
}

/* ---- tables ---- */

void step_edit_table(struct pair *p)
{
    unsigned size = chance(p, 25) ? 4 : 8;
    gpa_t gpa = (gpa_t)(1 + below(p, TABLES)) * 4096 + random_index(p, 4096 / size) * size;
    uint64_t e = random_entry(p, size);
    note(p, "entry %llx at %llx size %u", (unsigned long long)e, (unsigned long long)gpa, size);
    store_both(p, 0, gpa, &e, size, MEM_GUEST);
}

/* An 8-byte place in a table that a recent address goes through, or just somewhere. */
static gpa_t entry_in_use(struct pair *p)
{
    struct gwalk w;
    gwalk(p->walk.mem, &p->regs[below(p, VCPUS)], p->recent[below(p, RECENT)], ACCESS_READ | GWALK_PEEK, &w);
    gpa_t gpa = w.depth ? w.at[below(p, (unsigned)w.depth)].gpte_gpa : ~0ull;
    return gpa != ~0ull && chance(p, 80) ? gpa & ~7ull
                                         : (gpa_t)(1 + below(p, TABLES)) * 4096 + random_index(p, 512) * 8;
}

/* Bits of an entry that is there: what a kernel does all day. */
void step_tweak_entry(struct pair *p)
{
    static const uint64_t bit[] = {GPTE_P,  GPTE_W,    GPTE_U,     GPTE_A,     GPTE_D,    GPTE_PS,
                                   GPTE_NX, 1ull << 9, 1ull << 12, 1ull << 60, 1ull << 55};
    gpa_t gpa = entry_in_use(p);
    uint64_t e = 0;
    mem_access(p->walk.mem, 0, gpa, &e, 8, MEM_PEEK, false, 0);
    for (unsigned n = 1 + below(p, 2); n; n--)
        e ^= RNG_PICK(p->rng, bit);
    note(p, "entry becomes %llx at %llx", (unsigned long long)e, (unsigned long long)gpa);
    store_both(p, 0, gpa, &e, 8, MEM_GUEST);
}

void step_odd_store(struct pair *p)
{
    uint64_t bytes[8];
    unsigned len = 1 + below(p, 64);
    gpa_t gpa = (gpa_t)(1 + below(p, TABLES)) * 4096 + below(p, 4096 + 32);
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = random_entry(p, 8);
    enum mem_kind kind = chance(p, 50) ? MEM_DMA : chance(p, 50) ? MEM_HOST_POKE : MEM_GUEST;
    note(p, "%u bytes at %llx kind %d", len, (unsigned long long)gpa, kind);
    store_both(p, 0, gpa, bytes, len, kind);
}

/* ---- registers ---- */

void guest_load(struct pair *p, unsigned cpu)
{
    const struct paging_regs *g = &p->regs[cpu];
    mmu_vcpu_load(p->tested.v[cpu], g);
    mmu_vcpu_load(p->walk.v[cpu], g);
    note(p, "cpu %u cr0 %llx cr3 %llx cr4 %llx efer %llx pkru %x as %u a20 %llx", cpu, (unsigned long long)g->cr0,
         (unsigned long long)g->cr3, (unsigned long long)g->cr4, (unsigned long long)g->efer, g->pkru, g->as,
         (unsigned long long)g->a20_mask);
}

static void load_pdptes(struct pair *p, unsigned cpu)
{
    struct paging_regs *g = &p->regs[cpu];
    uint64_t a[4], b[4];
    guest_load(p, cpu);
    for (unsigned i = 0; i < 4 && chance(p, 90); i++) {
        uint64_t e = (uint64_t)(1 + below(p, TABLES)) << 12 | GPTE_P;
        store_both(p, g->as, (g->cr3 & 0xffffffe0u) + i * 8, &e, 8, MEM_GUEST);
    }
    bool ok = mmu_load_pdptes(p->tested.v[cpu], g->cr3, a);
    if (mmu_load_pdptes(p->walk.v[cpu], g->cr3, b) != ok || memcmp(a, b, sizeof a) != 0)
        fuzz_fail(p->f, "step %lu: PDPTEs differ", p->step);
    memset(g->pdpte, 0, sizeof g->pdpte);
    if (ok)
        memcpy(g->pdpte, a, sizeof a);
}

void guest_choose_format(struct pair *p, unsigned cpu)
{
    static const enum paging_format of_mix[MIXES][5] = {
        [MIX_LONG] = {PAGING_4LEVEL, PAGING_4LEVEL, PAGING_4LEVEL, PAGING_4LEVEL, PAGING_4LEVEL},
        [MIX_LONG5] = {PAGING_5LEVEL, PAGING_5LEVEL, PAGING_5LEVEL, PAGING_5LEVEL, PAGING_4LEVEL},
        [MIX_32] = {PAGING_32, PAGING_32, PAGING_32, PAGING_32, PAGING_NONE},
        [MIX_PAE] = {PAGING_PAE, PAGING_PAE, PAGING_PAE, PAGING_PAE, PAGING_NONE},
        [MIX_8BYTE] = {PAGING_4LEVEL, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_PAE, PAGING_4LEVEL},
        [MIX_ALL] = {PAGING_4LEVEL, PAGING_5LEVEL, PAGING_PAE, PAGING_32, PAGING_NONE},
    };
    struct paging_regs *g = &p->regs[cpu];
    enum paging_format f = of_mix[p->mix][below(p, 5)];
    g->cr0 = CR0_PE | (f == PAGING_NONE ? 0 : CR0_PG) | (g->cr0 & CR0_WP);
    g->cr4 = (g->cr4 & ~(CR4_PAE | CR4_LA57)) | (f >= PAGING_PAE ? CR4_PAE : 0) | (f == PAGING_5LEVEL ? CR4_LA57 : 0);
    g->efer = (g->efer & EFER_NXE) | (f >= PAGING_4LEVEL ? EFER_LME | EFER_LMA : 0);
    if (f == PAGING_PAE)
        load_pdptes(p, cpu);
}

void step_registers(struct pair *p)
{
    static const uint64_t cr4_bits[] = {CR4_PSE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PKS};
    unsigned cpu = below(p, VCPUS);
    struct paging_regs *g = &p->regs[cpu];
    switch (below(p, 8)) {
    case 0:
        guest_choose_format(p, cpu);
        break;
    case 1:
        g->cr0 ^= CR0_WP;
        break;
    case 2:
        g->cr4 ^= RNG_PICK(p->rng, cr4_bits);
        break;
    case 3:
        g->efer ^= EFER_NXE;
        break;
    case 4:
        g->pkru = (uint32_t)rng_next(p->rng);
        g->pkrs = (uint32_t)rng_next(p->rng);
        break;
    case 5:
        if (chance(p, 20))
            g->a20_mask ^= 1ull << 20;
        if (chance(p, 10))
            g->as ^= SMM;
        break;
    default:
        g->cr3 = (uint64_t)(chance(p, 97) ? 1 + below(p, 4) : below(p, 100)) * 4096;
    }
    if (paging_format_of(g) == PAGING_PAE)
        load_pdptes(p, cpu);
    guest_load(p, cpu);
}

/* A kernel makes its own half of a new process's top table, and goes there. */
void step_fork(struct pair *p)
{
    uint64_t half[256];
    unsigned cpu = below(p, VCPUS);
    struct paging_regs *g = &p->regs[cpu];
    gpa_t from = g->cr3 & ~PAGE_MASK, to = (1 + below(p, 4)) * 4096;
    if (paging_format_of(g) < PAGING_4LEVEL)
        return;
    mem_access(p->walk.mem, 0, from + 2048, half, sizeof half, MEM_PEEK, false, 0);
    note(p, "upper half of %llx to %llx", (unsigned long long)from, (unsigned long long)to);
    for (unsigned i = 0; i < 256; i++)
        if (chance(p, 99) || half[i])
            store_both(p, 0, to + 2048 + i * 8, &half[i], 8, MEM_GUEST);
    g->cr3 = to;
    guest_load(p, cpu);
}

/* ---- accesses ---- */

struct outcome {
    enum xlate_result result;
    uint32_t error;
    gpa_t gpa;
    uint64_t value;
    bool direct; /* through a pointer, as the processor does it */
};

/* The soft TLB's answer, or NULL. */
static uint8_t *look_up(const struct mmu_vcpu *v, gva_t gva, unsigned access, gpa_t *gpa)
{
    const struct tlb_fetch_entry *e = access == ACCESS_FETCH ? tlb_lookup_fetch(v, gva) : NULL;
    uint8_t *host = access == ACCESS_READ    ? tlb_lookup_read(v, gva, 8)
                    : access == ACCESS_WRITE ? tlb_lookup_write(v, gva, 8)
                    : e                      ? (uint8_t *)(uintptr_t)(e->host + (gva & PAGE_MASK))
                                             : NULL;
    if (host)
        *gpa = ((e ? e->gpa : v->cur_data[tlb_index(gva)].gpa) & ~PAGE_MASK) | (gva & PAGE_MASK);
    return host;
}

/* One access as a CPU makes it: the soft TLB, then the engine, then memory. */
static struct outcome access_one(const struct side *s, unsigned cpu, unsigned as, gva_t gva, unsigned access,
                                 uint64_t value)
{
    struct outcome o = {.result = XLATE_OK};
    struct xlate x = {0};
    bool write = access & ACCESS_WRITE;
    uint8_t *host = look_up(s->v[cpu], gva, access, &o.gpa);
    if (!host) {
        o.result = mmu_translate(s->v[cpu], gva, access, &x);
        if (o.result != XLATE_OK) {
            o.error = x.error;
            return o;
        }
        o.gpa = x.gpa;
        host = x.host;
    }
    o.value = value;
    o.direct = host != NULL;
    if (!host)
        mem_access(s->mem, as, o.gpa, &o.value, 8, MEM_GUEST, write, (int)cpu);
    else if (write)
        memcpy(host, &value, 8);
    else
        memcpy(&o.value, host, 8);
    return o;
}

static void put_entry(struct pair *p, unsigned as, gpa_t gpa, uint64_t e, unsigned size)
{
    note(p, "repair: entry %llx at %llx", (unsigned long long)e, (unsigned long long)gpa);
    store_both(p, as, gpa, &e, size, MEM_GUEST);
}

/* What a kernel's fault handler does: the entry that stopped the walk becomes a good one, or all get the rights. */
static void repair(struct pair *p, const struct paging_regs *g, gva_t gva, unsigned access)
{
    struct gwalk w;
    unsigned size = paging_format_of(g) == PAGING_32 ? 4 : 8;
    gwalk(p->walk.mem, g, gva, access | GWALK_PEEK, &w);
    if (w.result == GWALK_OK || !w.depth || w.at[w.depth - 1].gpte_gpa == ~0ull)
        return;
    const struct gwalk_level *last = &w.at[w.depth - 1];
    if (!(w.error & PF_PRESENT) || (w.error & PF_RSVD)) {
        gfn_t gfn = last->level > 1 || chance(p, 30) ? 1 + below(p, TABLES) : below(p, 84);
        uint64_t large = last->level == 2 && chance(p, 20) ? GPTE_PS : 0;
        put_entry(p, g->as, last->gpte_gpa,
                  (large ? 0x400000 : gfn << 12) | large | GPTE_ALL | (last->gpte & (GPTE_A | GPTE_D)), size);
        return;
    }
    for (int i = 0; i < w.depth; i++) {
        uint64_t good = (w.at[i].gpte | GPTE_W | (chance(p, 50) ? GPTE_U : 0)) & ~(size == 8 ? GPTE_NX : 0);
        if (w.at[i].gpte_gpa != ~0ull && good != w.at[i].gpte)
            put_entry(p, g->as, w.at[i].gpte_gpa, good, size);
    }
}

static void set_mode(struct pair *p, unsigned cpu)
{
    struct paging_regs *g = &p->regs[cpu];
    g->cpl = chance(p, 50) ? 3 : 0;
    g->ac = chance(p, 30);
    mmu_vcpu_set_mode(p->tested.v[cpu], g->cpl, g->ac);
    mmu_vcpu_set_mode(p->walk.v[cpu], g->cpl, g->ac);
}

void step_access(struct pair *p)
{
    static const unsigned kinds[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH, ACCESS_READ | ACCESS_IMPLICIT,
                                     ACCESS_WRITE | ACCESS_IMPLICIT};
    unsigned cpu = below(p, VCPUS), k = below(p, 20), access = kinds[k < 9 ? 0 : k < 15 ? 1 : k < 18 ? 2 : k - 15];
    struct paging_regs *g = &p->regs[cpu];
    gva_t gva = chance(p, 60) ? p->recent[below(p, RECENT)] : random_gva(p, paging_format_of(g));
    if (paging_format_of(g) < PAGING_4LEVEL)
        gva = (uint32_t)gva;
    uint64_t value = random_entry(p, 8);
    if (chance(p, 30))
        set_mode(p, cpu);
    if (p->unsync) /* what was flushed is up to date, whatever else is not */
        mmu_guest_flush(p->tested.v[cpu], chance(p, 70) ? GUEST_FLUSH_PAGE : GUEST_FLUSH_NONGLOBAL, gva);
    struct outcome s = access_one(&p->tested, cpu, g->as, gva, access, value);
    struct outcome w = access_one(&p->walk, cpu, g->as, gva, access, value);
    note(p, "cpu %u cpl %u ac %d access %u gva %llx -> %d error %x gpa %llx value %llx", cpu, g->cpl, g->ac, access,
         (unsigned long long)gva, w.result, w.error, (unsigned long long)w.gpa, (unsigned long long)w.value);
    if (s.result != w.result || s.error != w.error || s.gpa != w.gpa || s.value != w.value)
        fuzz_fail(p->f,
                  "step %lu: access %u to gva %llx: tested %d error %x gpa %llx value %llx, walk %d error %x gpa %llx "
                  "value %llx",
                  p->step, access, (unsigned long long)gva, s.result, s.error, (unsigned long long)s.gpa,
                  (unsigned long long)s.value, w.result, w.error, (unsigned long long)w.gpa,
                  (unsigned long long)w.value);
    if (s.direct && (access & ACCESS_WRITE) && !g->as && s.gpa >> 12 < RAM_PAGES)
        p->pml_written |= 1ull << (s.gpa >> 12);
    if (w.result == XLATE_OK || chance(p, 20))
        p->recent[below(p, RECENT)] = gva;
    if (w.result == XLATE_FAULT && chance(p, 60))
        repair(p, g, gva, access);
}
