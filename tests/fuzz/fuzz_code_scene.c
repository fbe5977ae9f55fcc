#include "cpu/cpuid.h"
#include "fuzz_code.h"

#include <string.h>

#define PTE_P  1ull
#define PTE_W  2ull
#define PTE_U  4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_PS 0x80ull

/* Tables of the three formats, one page each. */
#define PML4    (SCENE_TABLES + 0x0000u)
#define PDPT    (SCENE_TABLES + 0x1000u)
#define PD      (SCENE_TABLES + 0x2000u)
#define PT      (SCENE_TABLES + 0x3000u) /* two */
#define PD_MMIO (SCENE_TABLES + 0x5000u)
#define PT_ODD  (SCENE_TABLES + 0x6000u)
#define PAE_PDP (SCENE_TABLES + 0x8000u)
#define PAE_PD  (SCENE_TABLES + 0x9000u)
#define PD32    (SCENE_TABLES + 0xc000u)
#define PT32    (SCENE_TABLES + 0xd000u)

#define RAM_END 0x1000000u
#define NX      (1ull << 63)

static const char *const mode_names[SCENE_MODES] = {
    [SCENE_REAL] = "real mode",
    [SCENE_V86] = "virtual-8086",
    [SCENE_PROT16] = "16-bit protected",
    [SCENE_PROT32] = "32-bit",
    [SCENE_PROT32_PAGED] = "32-bit paged",
    [SCENE_PROT32_PAE] = "PAE",
    [SCENE_COMPAT] = "compatibility",
    [SCENE_LONG] = "64-bit",
};

const char *scene_mode_name(enum scene_mode mode)
{
    return mode_names[mode];
}

void world_poke(struct world *w, uint64_t gpa, const void *bytes, size_t len)
{
    for (unsigned k = 0; k < MACHINES; k++)
        mem_access(w->m[k]->mem, 0, gpa, (void *)(uintptr_t)bytes, len, MEM_HOST_POKE, true, BUS_NO_CPU);
}

static void poke64(struct world *w, uint64_t gpa, uint64_t v)
{
    world_poke(w, gpa, &v, 8);
}

static void poke32(struct world *w, uint64_t gpa, uint32_t v)
{
    world_poke(w, gpa, &v, 4);
}

uint64_t scene_address(struct world *w)
{
    static const uint64_t places[] = {
        SCENE_CODE, SCENE_DATA,         SCENE_TABLES, SCENE_GDT,  SCENE_IDT,  SCENE_STACKS, 0x100000,   0x200000,
        0x400000,   0xfee00000,         0xfec00000,   0xa0000,    0xe0000,    RAM_END,      0x40000000, SCENE_TSS64,
        0,          0xffff800000000000, 0x8000000000, 0xffffffff, 0x100000000};
    uint64_t base = rng_one_in(w->rng, 2) ? places[rng_below(w->rng, 6)] : RNG_PICK(w->rng, places);
    switch (rng_below(w->rng, 4)) {
    case 0:
        return base;
    case 1:
        return base + PAGE_SIZE - rng_below(w->rng, 18);
    case 2:
        return base + rng_below(w->rng, 0x10000);
    default:
        return base + 8 * rng_below(w->rng, 512);
    }
}

/* A page-table entry with a purpose, most of the time. */
static uint64_t some_pte(struct world *w)
{
    uint64_t frame = rng_below(w->rng, 3) ? rng_below(w->rng, 0x60) : rng_below(w->rng, 0x1010);
    uint64_t pte = frame << PAGE_SHIFT | rng_below(w->rng, 0x200);
    if (!rng_one_in(w->rng, 4))
        pte |= PTE_P | PTE_W;
    if (rng_one_in(w->rng, 8))
        pte |= NX;
    if (rng_one_in(w->rng, 32))
        pte |= rng_number(w->rng);
    return pte;
}

uint64_t scene_value(struct world *w)
{
    switch (rng_below(w->rng, 4)) {
    case 0:
        return rng_number(w->rng);
    case 1:
        return some_pte(w);
    default:
        return scene_address(w);
    }
}

/* ---- page tables ---- */

/* Now and then one bit of an entry is another. */
static uint64_t spoil(struct world *w, uint64_t pte)
{
    static const uint8_t bits[] = {0, 1, 2, 3, 5, 6, 7, 8, 12, 13, 20, 21, 51, 52, 59, 62, 63};
    return rng_one_in(w->rng, 40) ? pte ^ 1ull << RNG_PICK(w->rng, bits) : pte;
}

static uint64_t entry(struct world *w, uint64_t to)
{
    uint64_t ad = rng_one_in(w->rng, 2) ? PTE_A | PTE_D : 0;
    return spoil(w, to | PTE_P | PTE_W | PTE_U | ad);
}

/* 512 64-bit entries from `first` on, `step` bytes apart. */
static void table64(struct world *w, uint64_t table, uint64_t first, uint64_t step, uint64_t flags)
{
    uint64_t e[512];
    for (unsigned k = 0; k < 512; k++)
        e[k] = entry(w, (first + k * step) | flags);
    world_poke(w, table, e, sizeof e);
}

static void table_odd(struct world *w, uint64_t table)
{
    uint64_t e[512];
    for (unsigned k = 0; k < 512; k++)
        e[k] = some_pte(w);
    world_poke(w, table, e, sizeof e);
}

/* Page directory: two page tables, an odd one, large pages behind. */
static void directory64(struct world *w, uint64_t pd)
{
    table64(w, pd, 0, 0x200000, PTE_PS);
    poke64(w, pd, (PT | PTE_P | PTE_W | PTE_U));
    poke64(w, pd + 8, entry(w, PT + PAGE_SIZE));
    poke64(w, pd + 16, entry(w, PT_ODD));
}

static void tables_build(struct world *w)
{
    uint8_t zeros[PAGE_SIZE] = {0};
    world_poke(w, PML4, zeros, PAGE_SIZE);
    world_poke(w, PDPT, zeros, PAGE_SIZE);
    poke64(w, PML4, PDPT | PTE_P | PTE_W | PTE_U);
    poke64(w, PML4 + 8, entry(w, PDPT));
    poke64(w, PML4 + 8 * 256, entry(w, PML4)); /* the tables see themselves */
    poke64(w, PML4 + 8 * 511, entry(w, PDPT));
    poke64(w, PDPT, PD | PTE_P | PTE_W | PTE_U);
    poke64(w, PDPT + 8, entry(w, rng_one_in(w->rng, 2) ? PTE_PS : PD)); /* a 1 GiB page */
    poke64(w, PDPT + 8 * 3, entry(w, PD_MMIO));
    poke64(w, PDPT + 8 * 511, entry(w, PD));
    directory64(w, PD);
    table64(w, PT, 0, PAGE_SIZE, 0);
    table64(w, PT + PAGE_SIZE, 0x200000, PAGE_SIZE, 0);
    table_odd(w, PT_ODD);
    table64(w, PD_MMIO, 0xc0000000, 0x200000, PTE_PS);
    for (unsigned k = 0; k < 4; k++)
        poke64(w, PAE_PDP + 8 * k, (k == 3 ? PD_MMIO : PAE_PD) | PTE_P);
    directory64(w, PAE_PD);
}

static void tables32_build(struct world *w)
{
    uint32_t e[1024];
    for (unsigned k = 0; k < 1024; k++)
        e[k] = (uint32_t)entry(w, (uint64_t)k << 22 | PTE_PS);
    e[0] = PT32 | PTE_P | PTE_W | PTE_U;
    e[1] = (uint32_t)entry(w, PT32 + PAGE_SIZE);
    world_poke(w, PD32, e, sizeof e);
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned k = 0; k < 1024; k++)
            e[k] = (uint32_t)entry(w, (uint64_t)(t << 10 | k) << PAGE_SHIFT);
        world_poke(w, PT32 + t * PAGE_SIZE, e, sizeof e);
    }
}

/* ---- descriptor tables ---- */

static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attr >> 12 & 15) << 52 | (uint64_t)(base >> 24) << 56;
}

/* Offset and selector as gates have them; the high half of a 64-bit one is separate. */
static uint64_t gate(uint64_t offset, uint16_t sel, unsigned type, unsigned dpl, unsigned ist)
{
    return (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 | (uint64_t)(0x80 | dpl << 5 | type) << 40 |
           (offset >> 16 & 0xffff) << 48;
}

static uint64_t code_address(struct world *w)
{
    return SCENE_CODE + rng_below(w->rng, SCENE_CODE_END - SCENE_CODE);
}

static uint64_t odd_descriptor(struct world *w)
{
    static const uint16_t sels[] = {SEL_CODE64, SEL_CODE32, SEL_CODE16, SEL_USER_CODE32,
                                    SEL_TSS32,  SEL_LDT,    0x73,       0x80};
    static const uint32_t limits[] = {0, 1, 0xff, 0xfff, 0xfffff, 0x67, 0x2b};
    uint64_t at = scene_address(w);
    switch (rng_below(w->rng, 4)) {
    case 0: /* a segment of any kind */
        return descriptor((uint32_t)at, RNG_PICK(w->rng, limits), (uint32_t)(0x80 | rng_next(w->rng)));
    case 1: /* a gate of any kind, but never with a wild number of parameters only */
        return gate(code_address(w), RNG_PICK(w->rng, sels), (unsigned)rng_below(w->rng, 16),
                    (unsigned)rng_below(w->rng, 4), (unsigned)rng_below(w->rng, 32));
    case 2: /* a task */
        return descriptor(rng_one_in(w->rng, 2) ? SCENE_TSS32 : SCENE_TSS16, RNG_PICK(w->rng, limits),
                          (uint32_t)(0x81 | rng_below(w->rng, 4) << 5 | rng_below(w->rng, 8) << 1));
    default:
        return rng_next(w->rng);
    }
}

static void gdt_build(struct world *w)
{
    uint64_t g[64];
    for (unsigned k = 0; k < ARRAY_LEN(g); k++)
        g[k] = k * 8 < SEL_RANDOM ? 0 : odd_descriptor(w);
    g[SEL_CODE64 / 8] = descriptor(0, 0xfffff, 0xa09b);
    g[SEL_DATA / 8] = descriptor(0, 0xfffff, 0xc093);
    g[SEL_USER_CODE32 / 8] = descriptor(0, 0xfffff, 0xc0fb);
    g[SEL_USER_DATA / 8] = descriptor(0, 0xfffff, 0xc0f3);
    g[SEL_USER_CODE64 / 8] = descriptor(0, 0xfffff, 0xa0fb);
    g[SEL_CODE32 / 8] = descriptor(0, 0xfffff, 0xc09b);
    g[SEL_CODE16 / 8] = descriptor(SCENE_CODE, 0xffff, 0x9b);
    g[SEL_DATA16 / 8] = descriptor(SCENE_DATA, 0xffff, 0x93);
    g[SEL_TSS64 / 8] = descriptor(SCENE_TSS64, 0x67, 0x89);
    g[SEL_TSS32 / 8] = descriptor(SCENE_TSS32, 0x1067, 0x89);
    g[SEL_LDT / 8] = descriptor(SCENE_LDT, 0x7f, 0x82);
    world_poke(w, SCENE_GDT, g, sizeof g);
    for (unsigned k = 0; k < 16; k++)
        poke64(w, SCENE_LDT + 8 * k, odd_descriptor(w));
}

static bool has_long_tables(const struct world *w)
{
    return w->mode == SCENE_LONG || w->mode == SCENE_COMPAT;
}

static void idt_build(struct world *w)
{
    for (unsigned k = 0; k < 256; k++) {
        bool big = has_long_tables(w);
        unsigned type = rng_one_in(w->rng, 30) ? (unsigned)rng_below(w->rng, 16) : 14 + (unsigned)rng_below(w->rng, 2);
        unsigned dpl = rng_one_in(w->rng, 2) ? 3 : 0, ist = big && rng_one_in(w->rng, 4) ? 1 : 0;
        uint16_t sel = big ? SEL_CODE64 : rng_one_in(w->rng, 16) ? SEL_TSS32 : SEL_CODE32;
        uint64_t at = SCENE_CODE + 16 * k;
        if (rng_one_in(w->rng, 12))
            at = code_address(w);
        uint64_t g = gate(at, rng_one_in(w->rng, 50) ? SEL_RANDOM : sel, type, dpl, ist);
        if (rng_one_in(w->rng, 60))
            g ^= 1ull << rng_below(w->rng, 64);
        poke64(w, SCENE_IDT + (big ? 16 : 8) * k, g);
        if (big)
            poke64(w, SCENE_IDT + 16 * k + 8, rng_one_in(w->rng, 60) ? rng_number(w->rng) : 0);
    }
}

/* Real mode and V86: vectors at 0. */
static void ivt_build(struct world *w)
{
    for (unsigned k = 0; k < 256; k++)
        poke32(w, 4 * k,
               (uint32_t)(SCENE_CODE >> 4) << 16 |
                   (rng_one_in(w->rng, 4) ? (uint32_t)rng_below(w->rng, 65536) : 16 * k));
}

static uint64_t stack_top(struct world *w)
{
    return SCENE_STACKS + 0x800 + 8 * rng_below(w->rng, 0x1200);
}

static void tss_build(struct world *w)
{
    uint8_t map[0x1100];
    for (unsigned k = 4; k < 0x64; k += 8)
        poke64(w, SCENE_TSS64 + k, stack_top(w));
    for (size_t k = 0; k < sizeof map; k++)
        map[k] = rng_one_in(w->rng, 3) ? (uint8_t)rng_next(w->rng) : 0;
    world_poke(w, SCENE_TSS32, map, sizeof map);
    for (unsigned k = 4; k < 0x1c; k += 8) {
        poke32(w, SCENE_TSS32 + k, (uint32_t)stack_top(w));
        poke32(w, SCENE_TSS32 + k + 4, SEL_DATA);
    }
    poke32(w, SCENE_TSS32 + 0x20, (uint32_t)code_address(w));
    poke32(w, SCENE_TSS32 + 0x4c, SEL_CODE32);
    poke32(w, SCENE_TSS32 + 0x64, 0x68u << 16);
}

/* ---- code and data ---- */

/* What handlers begin with: mostly a way back, behind the instruction that faulted or near it. */
static unsigned handler_bytes(struct world *w, bool error, uint8_t *b)
{
    static const uint8_t wide[] = {0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf};
    static const uint8_t narrow[] = {0x83, 0xc4, 0x04, 0x83, 0x04, 0x24, 0x02, 0xcf};
    static const uint8_t real[] = {0x55, 0x89, 0xe5, 0x83, 0x46, 0x02, 0x02, 0x5d, 0xcf};
    bool small = w->mode == SCENE_REAL, big = has_long_tables(w);
    const uint8_t *from = small ? real : big ? wide : narrow;
    unsigned n = small ? sizeof real : big ? sizeof wide : sizeof narrow, skip = error || small ? 0 : big ? 4 : 3;
    memcpy(b, from + skip, n - skip);
    b[small ? 6 : n - skip - (big ? 3 : 2)] = (uint8_t)(1 + rng_below(w->rng, 4));
    return n - skip;
}

static void handlers_build(struct world *w)
{
    for (unsigned k = 0; k < 256; k++) {
        uint8_t b[16];
        unsigned n = handler_bytes(w, k == 8 || (k >= 10 && k <= 14) || k == 17, b);
        if (!rng_one_in(w->rng, 24))
            world_poke(w, SCENE_CODE + 16 * k, b, n);
    }
}

static void code_build(struct world *w)
{
    uint8_t bytes[0x2000];
    uint64_t at = SCENE_CODE + 0x1000;
    gen_code(w, bytes, sizeof bytes);
    world_poke(w, at + (rng_below(w->rng, 13) << PAGE_SHIFT), bytes, sizeof bytes);
    gen_code(w, bytes, 0x1000);
    world_poke(w, at, bytes, 0x1000);
    handlers_build(w);
    rng_bytes(w->rng, bytes, 0x400);
    world_poke(w, SCENE_DATA + rng_below(w->rng, 0xf000), bytes, 0x400);
}

/* ---- registers ---- */

static void segment_set(struct world *w, int seg, uint16_t sel, uint64_t base, uint32_t limit, uint16_t attr)
{
    for (unsigned k = 0; k < MACHINES; k++)
        vcpu_set_segment(w->m[k]->cpu[0], seg, sel, base, limit, attr);
}

static void segments_set(struct world *w)
{
    unsigned dpl = w->user ? 3 : 0;
    uint16_t data = (uint16_t)(0xc093 | dpl << 5), cs_attr = (uint16_t)(0xc09b | dpl << 5);
    uint16_t cs = w->user ? SEL_USER_CODE32 | 3 : SEL_CODE32, ds = w->user ? SEL_USER_DATA | 3 : SEL_DATA;
    uint64_t cs_base = 0, ds_base = 0;
    uint32_t limit = 0xffffffff;
    if (w->mode == SCENE_LONG) {
        cs_attr = (uint16_t)(0xa09b | dpl << 5);
        cs = w->user ? SEL_USER_CODE64 | 3 : SEL_CODE64;
    } else if (w->mode == SCENE_REAL || w->mode == SCENE_V86) {
        cs_attr = w->mode == SCENE_V86 ? 0xf3 : 0x9b;
        data = w->mode == SCENE_V86 ? 0xf3 : 0x93;
        cs = SCENE_CODE >> 4, ds = SCENE_DATA >> 4;
        cs_base = SCENE_CODE, ds_base = SCENE_DATA, limit = 0xffff;
    } else if (w->mode == SCENE_PROT16) {
        cs = SEL_CODE16, ds = SEL_DATA16;
        cs_attr = 0x9b, data = 0x93;
        cs_base = SCENE_CODE, ds_base = SCENE_DATA, limit = 0xffff;
        w->user = false;
    }
    segment_set(w, SEG_CS, cs, cs_base, limit, cs_attr);
    for (int s = SEG_ES; s <= SEG_GS; s++)
        if (s != SEG_CS)
            segment_set(w, s, ds, s == SEG_SS && limit == 0xffff ? 0 : ds_base, limit, data);
}

static bool is_paged(struct world *w)
{
    switch (w->mode) {
    case SCENE_REAL:
    case SCENE_PROT32:
        return false;
    case SCENE_V86:
    case SCENE_PROT16:
        return rng_one_in(w->rng, 2);
    default:
        return true;
    }
}

static void controls_set(struct world *w, struct vcpu *v, bool paged, uint64_t cr0_extra, uint64_t cr4_extra)
{
    bool pae = has_long_tables(w) || w->mode == SCENE_PROT32_PAE;
    v->cr0 = CR0_ET | CR0_NE | (w->mode == SCENE_REAL ? 0 : CR0_PE) | (paged ? CR0_PG : 0) | cr0_extra;
    v->cr4 = CR4_PSE | CR4_OSFXSR | CR4_OSXMMEXCPT | (pae ? CR4_PAE : 0) | cr4_extra;
    v->xcr0 = cr4_extra & CR4_OSXSAVE ? v->model->xcr0 : 1;
    v->efer = EFER_SCE | EFER_NXE | (has_long_tables(w) ? EFER_LME | EFER_LMA : 0);
    v->cr3 = has_long_tables(w) ? PML4 : pae ? PAE_PDP : PD32;
    v->gdtr = (struct desc_table){SCENE_GDT, 64 * 8 - 1};
    v->idtr = w->mode == SCENE_REAL ? (struct desc_table){0, 0x3ff} : (struct desc_table){SCENE_IDT, 0xfff};
    v->ldtr = (struct segment){.base = SCENE_LDT, .limit = 0x7f, .sel = SEL_LDT, .attr = 0x82};
    v->tr = (struct segment){.base = has_long_tables(w) ? SCENE_TSS64 : SCENE_TSS32,
                             .limit = has_long_tables(w) ? 0x67 : 0x1067,
                             .sel = has_long_tables(w) ? SEL_TSS64 : SEL_TSS32,
                             .attr = 0x8b};
}

static uint64_t some_flags(struct world *w)
{
    uint64_t flags = 2 | (rng_next(w->rng) & (FLAGS_ARITH | FLAG_IF | FLAG_ID));
    if (rng_one_in(w->rng, 8))
        flags |= FLAG_DF;
    if (rng_one_in(w->rng, 16))
        flags |= rng_next(w->rng) & (FLAG_TF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_IOPL | FLAG_VIF | FLAG_VIP);
    if (rng_one_in(w->rng, 3))
        flags |= FLAG_IOPL;
    return flags | (w->mode == SCENE_V86 ? FLAG_VM : 0);
}

static void registers_set(struct world *w)
{
    bool small = w->mode == SCENE_REAL || w->mode == SCENE_V86 || w->mode == SCENE_PROT16;
    uint64_t gpr[16], flags = some_flags(w), rip = 0x1000 + rng_below(w->rng, 0x400);
    for (unsigned n = 0; n < 16; n++)
        gpr[n] = scene_value(w) & (w->mode == SCENE_LONG ? UINT64_MAX : 0xffffffff);
    gpr[REG_RSP] = stack_top(w);
    for (unsigned k = 0; k < MACHINES; k++) {
        struct vcpu *v = w->m[k]->cpu[0];
        memcpy(v->gpr, gpr, sizeof gpr);
        v->rip = small ? rip : SCENE_CODE + rip;
        vcpu_set_rflags(v, flags);
    }
}

static unsigned decode_mode_of(const struct vcpu *v)
{
    return v->mode;
}

static void cpus_refresh(struct world *w)
{
    for (unsigned k = 0; k < MACHINES; k++)
        vcpu_refresh(w->m[k]->cpu[0]);
    w->decode_mode = decode_mode_of(w->m[0]->cpu[0]);
}

static void cpu_build(struct world *w)
{
    bool paged = is_paged(w);
    uint64_t cr0 = rng_next(w->rng) & CR0_WP, cr4 = rng_next(w->rng) & (CR4_PGE | CR4_DE | CR4_FSGSBASE);
    uint64_t tsc_aux = rng_next(w->rng);
    if (rng_one_in(w->rng, 2))
        cr4 |= CR4_OSXSAVE; /* and all state components */
    if (rng_one_in(w->rng, 16))
        cr0 |= rng_next(w->rng) & (CR0_TS | CR0_EM | CR0_MP | CR0_AM);
    if (rng_one_in(w->rng, 3))
        cr4 |= rng_next(w->rng) & (CR4_VME | CR4_PVI | CR4_TSD);
    for (unsigned k = 0; k < MACHINES; k++) {
        struct vcpu *v = w->m[k]->cpu[0];
        vcpu_reset(v, false);
        v->msr.tsc_aux = (uint32_t)tsc_aux;
        v->msr.star = (uint64_t)(SEL_USER_CODE32 | 3) << 48 | (uint64_t)SEL_CODE64 << 32;
        v->msr.lstar = v->msr.cstar = SCENE_CODE + 0x1000;
        v->msr.sysenter_cs = SEL_CODE64;
        v->msr.sysenter_eip = SCENE_CODE + 0x1000;
        v->msr.sysenter_esp = SCENE_STACKS + 0x1000;
        controls_set(w, v, paged, cr0, cr4);
    }
    segments_set(w);
    registers_set(w);
    cpus_refresh(w);
    for (unsigned k = 0; k < MACHINES && w->mode == SCENE_PROT32_PAE; k++) {
        struct vcpu *v = w->m[k]->cpu[0];
        mmu_load_pdptes(v->mv, v->cr3, v->pdpte);
    }
    cpus_refresh(w);
}

void scene_build(struct world *w)
{
    w->mode = (enum scene_mode)rng_below(w->rng, SCENE_MODES + 4);
    if (w->mode >= SCENE_MODES)
        w->mode = SCENE_LONG;
    w->user = rng_one_in(w->rng, 2) && w->mode != SCENE_REAL;
    if (w->mode == SCENE_REAL || w->mode == SCENE_V86 || rng_one_in(w->rng, 8))
        ivt_build(w);
    tables_build(w);
    tables32_build(w);
    gdt_build(w);
    idt_build(w);
    tss_build(w);
    cpu_build(w);
    code_build(w);
}

void scene_continue(struct world *w)
{
    uint64_t gpr = rng_below(w->rng, 16), value = scene_value(w);
    for (unsigned k = 0; k < MACHINES; k++)
        w->m[k]->cpu[0]->gpr[gpr] = value;
    w->decode_mode = decode_mode_of(w->m[0]->cpu[0]);
    code_build(w);
}
