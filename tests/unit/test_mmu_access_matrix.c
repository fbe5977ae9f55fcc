/*
 * The access matrix, in the manner of the access test of kvm-unit-tests: combinations of entry bits at the leaf and at
 * one upper level, control registers, keys and kinds of access, each access twice in a row, in every paging format and
 * page size, in every engine. Fault, error code, address and the A and D bits in memory are compared with the model in
 * access_model.h after each.
 *
 * Entries come in an order without order, and nothing is flushed between: what one combination left in shadow pages,
 * EPT tables and TLBs must not show in the next. Of the registers the short form takes a few of each kind for each
 * combination of entries; the long form (UMBRA_LONG=1) takes all.
 */
#include "access_model.h"
#include "core/host/host_ops.h"
#include "mmu_rig.h"

#define RAM       (16ull << 20)
#define SMALL     0x300000ull  /* the page of 4 KiB */
#define LARGE     0x400000ull  /* 4 MiB aligned, with huge pages behind it */
#define GIB       (1ull << 30) /* the page of 1 GiB, one host page behind it, in twice as much RAM */
#define OFFSET    0x123000ull  /* of the access in a large page */
#define TABLE(l)  ((gpa_t)(0x10000 + 0x1000 * (l)))
#define MAXPHY    40
#define SHORT_CPU 6 /* settings of the control registers for each combination of entries */

static const struct shape {
    const char *name;
    enum am_format format;
    int top, leaf;
    bool pse, page1g;
} shapes[] = {
    {"32-bit without PSE, 4 KiB", AM_32, 2, 1, false, false},
    {"32-bit, 4 KiB", AM_32, 2, 1, true, false},
    {"32-bit, 4 MiB", AM_32, 2, 2, true, false},
    {"PAE, 4 KiB", AM_PAE, 2, 1, false, false},
    {"PAE, 2 MiB", AM_PAE, 2, 2, false, false},
    {"4-level, 4 KiB", AM_LONG4, 4, 1, false, true},
    {"4-level, 2 MiB", AM_LONG4, 4, 2, false, true},
    {"4-level, 1 GiB", AM_LONG4, 4, 3, false, true},
    {"4-level, 1 GiB not supported", AM_LONG4, 4, 3, false, false},
    {"5-level, 4 KiB", AM_LONG5, 5, 1, false, true},
    {"5-level, 2 MiB", AM_LONG5, 5, 2, false, true},
    {"5-level, 1 GiB", AM_LONG5, 5, 3, false, true},
};
#define SHAPES  ((int)ARRAY_LEN(shapes))
#define ENGINES 4 /* shadow, walk, ept, shadow with 16 pages */

static struct rig rig;
static struct rig *const r = &rig;
static const struct shape *shape;
static struct am_tables model;
static gva_t gva;
static enum am_rule without;
static uint64_t cases, faults, wrong;
static char first_wrong[400];

/* ---- the machine ---- */

static unsigned entry_size(void)
{
    return shape->format == AM_32 ? 4 : 8;
}

static unsigned index_bits(void)
{
    return shape->format == AM_32 ? 10 : 9;
}

static gpa_t entry_gpa(int level)
{
    unsigned shift = 12 + (unsigned)(level - 1) * index_bits();
    return TABLE(level) + (gva >> shift & ((1u << index_bits()) - 1)) * entry_size();
}

static uint64_t entry_in_memory(int level)
{
    uint64_t e = 0;
    mem_access(r->mem, 0, entry_gpa(level), &e, entry_size(), MEM_PEEK, false, 0);
    return e;
}

static gpa_t page_base(void)
{
    return shape->leaf == 1 ? SMALL : shape->leaf == 2 ? LARGE : GIB;
}

static gpa_t wanted_gpa(void)
{
    uint64_t mask = shape->leaf == 1         ? 0xfff
                    : shape->leaf == 3       ? (1ull << 30) - 1
                    : shape->format == AM_32 ? 0x3fffff
                                             : 0x1fffff;
    return page_base() | (gva & mask);
}

static void registers_base(void)
{
    struct paging_regs *p = &r->regs;
    p->cr0 = CR0_PE | CR0_PG;
    p->cr4 = (shape->format != AM_32 ? CR4_PAE : 0) | (shape->pse ? CR4_PSE : 0) |
             (shape->format == AM_LONG5 ? CR4_LA57 : 0);
    p->efer = shape->format >= AM_LONG4 ? EFER_LME | EFER_LMA : 0;
    p->cr3 = TABLE(shape->top);
    p->maxphyaddr = MAXPHY;
    p->features = PAGING_HAS_PSE36 | (shape->page1g ? PAGING_HAS_1G : 0);
    p->pdpte[(gva >> 30) & 3] = shape->format == AM_PAE ? TABLE(2) | 1 : 0;
}

static void machine_open(int engine)
{
    static const enum mmu_kind kinds[ENGINES] = {MMU_SHADOW, MMU_WALK, MMU_EPT, MMU_SHADOW};
    rig_open(r, &(struct rig_config){.kind = kinds[engine],
                                     .ram = shape->leaf == 3 ? 2 * GIB : RAM,
                                     .frames = 3 * FRAMES_GIGANTIC,
                                     .max_shadow_pages = engine == 3 ? 16 : 0});
    if (shape->leaf == 3) {
        host_mm_set_huge_faults(r->mm, 3);
        rig_put(r, GIB, GIB);
        host_mm_set_huge_faults(r->mm, 1);
    }
    for (gpa_t at = LARGE; at < LARGE + 0x400000; at += 0x200000) {
        for (gpa_t page = at; page < at + 0x200000; page += PAGE_SIZE)
            rig_put(r, page, page);
        host_mm_collapse(r->mm, r->hva + at);
    }
    gva = shape->format >= AM_LONG4 ? 0x28c0000000 : 0xc0000000;
    gva += shape->leaf == 1 ? 0x5000 : shape->leaf == 2 ? OFFSET + 0x400000 : LARGE + OFFSET;
    model = (struct am_tables){.format = shape->format,
                               .top = shape->top,
                               .leaf = shape->leaf,
                               .pse = shape->pse,
                               .page1g = shape->page1g,
                               .maxphyaddr = MAXPHY};
    registers_base();
}

/* ---- the combinations ---- */

/* Bits of a combination: seven of the leaf, six of an upper entry. */
enum { LEAF_BITS = 7, UPPER_BITS = 6 };

static uint64_t reserved_bit(int level)
{
    bool page = level == shape->leaf && level > 1;
    if (shape->format == AM_32)
        return page ? 1u << 21 : 0;
    return page ? 1u << 13 : 1ull << 45;
}

static uint64_t entry_of(int level, unsigned bits)
{
    bool leaf = level == shape->leaf;
    uint64_t e = leaf ? page_base() | (level > 1 ? AM_PS : 0) : TABLE(level - 1);
    e |= (bits & 1 ? AM_P : 0) | (bits & 2 ? AM_W : 0) | (bits & 4 ? AM_U : 0) | (bits & 8 ? AM_A : 0);
    e |= bits & 16 ? reserved_bit(level) : 0;
    if (shape->format != AM_32)
        e |= bits & 32 ? AM_XD : 0;
    else if (!leaf && !shape->pse)
        e |= bits & 32 ? AM_PS : 0; /* ignored */
    if (leaf)
        e |= (bits & 64 ? AM_D : 0) | (shape->format >= AM_LONG4 ? 1ull << 59 : 0);
    return e;
}

static void put_entry(int level, uint64_t e)
{
    model.entry[level] = e;
    mem_access(r->mem, 0, entry_gpa(level), &e, entry_size(), MEM_GUEST, true, 0);
}

/* `upper`: the level above the leaf that has upper_bits; the others permit everything. */
static void put_entries(unsigned leaf_bits, int upper, unsigned upper_bits)
{
    for (int level = shape->top; level > shape->leaf; level--) {
        uint64_t e = entry_of(level, level == upper ? upper_bits : 7);
        if (e != model.entry[level])
            put_entry(level, e);
    }
    put_entry(shape->leaf, entry_of(shape->leaf, leaf_bits));
}

/* Control registers: bits WP SMEP SMAP AC NXE, and two for each of PKRU and PKRS: off, 0, AD, WD of key 1. */
enum { CPU_BITS = 9 };

static unsigned cpu_settings(void)
{
    return shape->format >= AM_LONG4 ? 1u << CPU_BITS : shape->format == AM_PAE ? 1u << 5 : 1u << 4;
}

static struct am_access cpu_of(unsigned bits)
{
    unsigned u = bits >> 5 & 3, s = bits >> 7 & 3;
    return (struct am_access){.wp = bits & 1,
                              .smep = bits >> 1 & 1,
                              .smap = bits >> 2 & 1,
                              .ac = bits >> 3 & 1,
                              .nxe = bits >> 4 & 1,
                              .pke = u,
                              .pks = s,
                              .pkru = u == 2   ? 1u << 2
                                      : u == 3 ? 2u << 2
                                               : 0,
                              .pkrs = s == 2   ? 1u << 2
                                      : s == 3 ? 2u << 2
                                               : 0};
}

static void load(const struct am_access *a)
{
    struct paging_regs *p = &r->regs;
    p->cr0 = (p->cr0 & ~CR0_WP) | (a->wp ? CR0_WP : 0);
    p->cr4 &= ~(CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS);
    p->cr4 |= (a->smep ? CR4_SMEP : 0) | (a->smap ? CR4_SMAP : 0) | (a->pke ? CR4_PKE : 0) | (a->pks ? CR4_PKS : 0);
    p->efer = (p->efer & ~EFER_NXE) | (a->nxe ? EFER_NXE : 0);
    p->pkru = a->pkru;
    p->pkrs = a->pkrs;
    p->ac = a->ac;
    p->cpl = a->user ? 3 : 0;
    mmu_vcpu_load(r->v, p);
}

/* ---- one access ---- */

struct got {
    bool fault;
    uint32_t error;
    gpa_t gpa;
};

static struct got machine_access(unsigned access)
{
    struct xlate x = {0};
    struct got g = {.fault = false};
    void *hit = access == ACCESS_READ    ? tlb_lookup_read(r->v, gva, 8)
                : access == ACCESS_WRITE ? tlb_lookup_write(r->v, gva, 8)
                                         : NULL;
    const struct tlb_fetch_entry *fetch = access == ACCESS_FETCH ? tlb_lookup_fetch(r->v, gva) : NULL;
    if (hit) {
        g.gpa = (r->v->cur_data[tlb_index(gva)].gpa & ~PAGE_MASK) | (gva & PAGE_MASK);
    } else if (fetch) {
        g.gpa = (fetch->gpa & ~PAGE_MASK) | (gva & PAGE_MASK);
    } else {
        g.fault = mmu_translate(r->v, gva, access, &x) == XLATE_FAULT;
        g.error = g.fault ? x.error : 0;
        g.gpa = g.fault ? 0 : x.gpa;
    }
    return g;
}

static void note_wrong(const struct am_access *a, struct got g, struct am_outcome o, const char *what)
{
    if (wrong++)
        return;
    int n = snprintf(
        first_wrong, sizeof first_wrong,
        "%s: %s: kind %d user %d implicit %d wp %d smep %d smap %d ac %d nxe %d pkru %d/%x pkrs %d/%x: got fault "
        "%d error %x gpa %llx, model fault %d error %x;",
        shape->name, what, a->kind, a->user, a->implicit, a->wp, a->smep, a->smap, a->ac, a->nxe, a->pke, a->pkru,
        a->pks, a->pkrs, g.fault, g.error, (unsigned long long)g.gpa, o.fault, o.error);
    for (int level = shape->top; level >= shape->leaf && n < (int)sizeof first_wrong; level--)
        n += snprintf(first_wrong + n, sizeof first_wrong - (size_t)n, " L%d %llx/%llx", level,
                      (unsigned long long)entry_in_memory(level), (unsigned long long)model.entry[level]);
}

static void one_access(const struct am_access *a)
{
    static const unsigned kinds[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH};
    struct got g = machine_access(kinds[a->kind] | (a->implicit ? ACCESS_IMPLICIT : 0));
    struct am_outcome o = am_access(&model, a, without);
    cases++;
    faults += o.fault;
    if (g.fault != o.fault || g.error != o.error || (!o.fault && g.gpa != wanted_gpa()))
        note_wrong(a, g, o, "outcome");
    for (int level = shape->top; level >= shape->leaf; level--) {
        if (entry_in_memory(level) != model.entry[level]) {
            note_wrong(a, g, o, "entries");
            put_entry(level, model.entry[level]);
        }
    }
}

/* Every kind of access under one setting, in an order that changes with `turn`, each twice in a row. */
static void all_kinds(struct am_access a, unsigned turn)
{
    for (unsigned n = 0; n < 8; n++) {
        unsigned k = (n * 3 + turn) % 8;
        a.kind = (enum am_kind)(k < 6 ? k % 3 : k - 6);
        a.user = k < 3;
        a.implicit = k >= 6;
        load(&a);
        if (a.implicit && (turn & 1)) { /* the processor's own accesses are the same at CPL 3 */
            r->regs.cpl = 3;
            mmu_vcpu_set_mode(r->v, 3, a.ac);
        }
        one_access(&a);
        one_access(&a);
    }
}

static bool is_long(void)
{
    const char *l = getenv("UMBRA_LONG");
    return l && !strcmp(l, "1");
}

/* The registers for the n'th combination of entries. */
static void some_settings(unsigned n, unsigned count)
{
    unsigned all = cpu_settings();
    for (unsigned i = 0; i < count && !wrong; i++)
        all_kinds(cpu_of((i * 0x9d + n * 0x35) & (all - 1)), n + i); /* odd factors: each setting once in `all` */
}

static void check_audit(unsigned n)
{
    ck_assert_msg(rig_audit(r, n % 256 == 0) == 0, "%s: %s", shape->name, r->report);
}

static bool is_useful(unsigned leaf_bits, unsigned upper_bits)
{
    if (!(upper_bits & 1) && upper_bits)
        return false; /* a not-present upper entry once */
    return (leaf_bits & 1) || leaf_bits < 32;
}

static void run_matrix(unsigned count)
{
    unsigned total = 1u << (LEAF_BITS + UPPER_BITS), n = 0;
    for (int upper = shape->leaf + 1; upper <= (shape->leaf == shape->top ? upper : shape->top); upper++) {
        for (unsigned k = 0; k < total && !wrong; k++) {
            unsigned bits = (k * 0xb5d + 0x3a7) & (total - 1); /* every combination once, in no order */
            unsigned leaf_bits = bits & 127, upper_bits = bits >> LEAF_BITS;
            if (!is_useful(leaf_bits, upper_bits) || (upper > shape->top && upper_bits))
                continue;
            put_entries(leaf_bits, upper, upper_bits);
            some_settings(n++, count);
            if (n % 16 == 0)
                check_audit(n);
        }
        if (upper > shape->top)
            break;
    }
}

START_TEST(every_access_does_what_the_model_says)
{
    shape = &shapes[_i % SHAPES];
    machine_open(_i / SHAPES);
    run_matrix(is_long() ? cpu_settings() : SHORT_CPU);
    ck_assert_msg(!wrong, "%s", first_wrong);
    ck_assert_uint_gt(faults, cases / 10);
    if (shape->leaf == 3 && shape->page1g && _i / SHAPES != 1)
        ck_assert_uint_gt(r->mmu->stats.gigantic_fills, 0);
    if (shape->leaf < 3 || shape->page1g)
        ck_assert_uint_gt(cases - faults, cases / 50);
    check_audit(0);
    rig_close(r);
}
END_TEST

/* A matrix that could not tell a wrong model from a right one would prove nothing. */
START_TEST(every_rule_that_is_left_out_is_noticed)
{
    without = (enum am_rule)_i;
    for (int engine = 0; engine < ENGINES; engine++) {
        for (unsigned k = 0; k < 2; k++) {
            shape = &shapes[k ? 6 : 5];
            wrong = 0;
            machine_open(engine);
            run_matrix(SHORT_CPU);
            ck_assert_msg(wrong > 0, "rule %d, engine %d", _i, engine);
            rig_close(r);
        }
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("access matrix");
    TCase *t = tcase_create("access matrix");
    tcase_set_timeout(t, 3000);
    tcase_add_loop_test(t, every_access_does_what_the_model_says, 0, SHAPES * ENGINES);
    tcase_add_loop_test(t, every_rule_that_is_left_out_is_noticed, AM_ALL_RULES + 1, AM_RULES);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
