/*
 * The guest walker against an independent model, written from SDM volume 3, 4.3 to 4.8, that knows entries as sets of
 * properties, not as bits.
 */
#include "mmu/mem.h"
#include "mmu_rig.h"

enum { LEVELS_MAX = 5 };

/* One guest entry, as its properties. */
struct props {
    bool p, w, u, nx, rsvd, a, d;
};

enum kind { KIND_READ, KIND_WRITE, KIND_FETCH, KIND_IMPLICIT_READ, KIND_IMPLICIT_WRITE, KINDS };

struct conditions {
    bool wp, smep, smap, ac, nxe, pke, pks;
    bool key_ad, key_wd;   /* of the page's key in PKRU */
    bool skey_ad, skey_wd; /* in IA32_PKRS */
    int cpl;
    enum kind kind;
};

/* A paging format with the level of its leaf, and how its entries look. */
struct shape {
    const char *name;
    enum paging_format format;
    int levels;     /* tables walked, PDPTE registers included */
    int leaf_level; /* 1, 2, 3 */
};

static const struct shape shapes[] = {
    {"32-bit 4K", PAGING_32, 2, 1},      {"32-bit 4M", PAGING_32, 1, 2},      {"PAE 4K", PAGING_PAE, 3, 1},
    {"PAE 2M", PAGING_PAE, 2, 2},        {"4-level 4K", PAGING_4LEVEL, 4, 1}, {"4-level 2M", PAGING_4LEVEL, 3, 2},
    {"4-level 1G", PAGING_4LEVEL, 2, 3}, {"5-level 4K", PAGING_5LEVEL, 5, 1}, {"5-level 2M", PAGING_5LEVEL, 4, 2},
};

/* ---- the model ---- */

struct outcome {
    bool fault;
    uint32_t error;
    struct props after[LEVELS_MAX];
};

static bool is_pdpte_register(const struct shape *s, int i)
{
    return s->format == PAGING_PAE && i == 0;
}

static struct outcome model(const struct shape *s, const struct props *in, const struct conditions *c)
{
    struct outcome o = {.fault = false};
    bool implicit = c->kind == KIND_IMPLICIT_READ || c->kind == KIND_IMPLICIT_WRITE;
    bool write = c->kind == KIND_WRITE || c->kind == KIND_IMPLICIT_WRITE, fetch = c->kind == KIND_FETCH;
    bool user_mode = c->cpl == 3 && !implicit;
    bool has_xd = s->format != PAGING_32, long_mode = s->format == PAGING_4LEVEL || s->format == PAGING_5LEVEL;
    uint32_t base = (write ? 2 : 0) + (user_mode ? 4 : 0) + (fetch && (c->smep || (has_xd && c->nxe)) ? 16 : 0);
    bool user_page = true, writable = true, xd = false;
    memcpy(o.after, in, sizeof o.after);
    for (int i = 0; i < s->levels; i++) {
        bool reg = is_pdpte_register(s, i), last = i == s->levels - 1;
        if (!in[i].p) {
            o.fault = true;
            o.error = base;
            return o;
        }
        if (!reg && (in[i].rsvd || (has_xd && in[i].nx && !c->nxe))) {
            o.fault = true;
            o.error = base + 1 + 8;
            return o;
        }
        if (reg)
            continue;
        user_page = user_page && in[i].u;
        writable = writable && in[i].w;
        xd = xd || (has_xd && in[i].nx);
        if (!last)
            o.after[i].a = true;
    }
    /* SDM 4.6.1, "determination of access rights" */
    bool allowed;
    if (user_mode) {
        if (fetch)
            allowed = user_page && !xd;
        else
            allowed = user_page && (!write || writable);
    } else if (fetch) {
        allowed = !xd && !(user_page && c->smep);
    } else {
        bool smap_blocks = user_page && c->smap && (implicit || !c->ac);
        allowed = !smap_blocks && (!write || writable || !c->wp);
    }
    /* SDM 4.6.2, protection keys: data accesses under 4-level and 5-level paging */
    bool key_blocks = false;
    if (long_mode && !fetch && user_page && c->pke)
        key_blocks = c->key_ad || (c->key_wd && write && (user_mode || c->wp));
    if (long_mode && !fetch && !user_page && c->pks)
        key_blocks = c->skey_ad || (c->skey_wd && write && c->wp);
    if (!allowed || key_blocks) {
        o.fault = true;
        o.error = base + 1 + (key_blocks ? 32 : 0);
        return o;
    }
    o.after[s->levels - 1].a = true;
    if (write)
        o.after[s->levels - 1].d = true;
    return o;
}

/* ---- the machine ---- */

#define TABLES  0x10000ull /* table of step i at TABLES + i * 4096 */
#define PAGE_4K 0x55000ull
#define GVA     0x00000000c0de5678ull
#define KEY     5

static struct rig rig;
static uint8_t *table_host[LEVELS_MAX];

static void setup(void)
{
    rig_open(&rig, &(struct rig_config){.kind = MMU_WALK, .ram = 1 << 20});
    for (int i = 0; i < LEVELS_MAX; i++)
        table_host[i] = mem_page_write(rig.mem, 0, (TABLES >> 12) + (unsigned)i);
}

static void teardown(void)
{
    rig_close(&rig);
}

static int level_of(const struct shape *s, int i)
{
    int top = s->format == PAGING_32 ? 2 : s->format == PAGING_PAE ? 3 : s->format == PAGING_4LEVEL ? 4 : 5;
    return top - i;
}

/* Byte offset of GVA's entry in the table of this step. */
static unsigned entry_offset(const struct shape *s, int i)
{
    if (s->format == PAGING_32)
        return ((GVA >> (12 + 10 * (level_of(s, i) - 1))) & 1023) * 4;
    return ((GVA >> (12 + 9 * (level_of(s, i) - 1))) & 511) * 8;
}

static uint64_t encode(const struct shape *s, int i, const struct props *e)
{
    bool leaf = i == s->levels - 1, large = leaf && s->leaf_level > 1;
    uint64_t v = e->p | e->w << 1 | e->u << 2 | e->a << 5 | e->d << 6 | (uint64_t)large << 7;
    if (s->format == PAGING_32) {
        if (e->rsvd)
            v |= 1 << 21; /* large only */
    } else {
        v |= (uint64_t)e->nx << 63 | (uint64_t)e->rsvd << 45;
    }
    if (s->format >= PAGING_4LEVEL && leaf)
        v |= (uint64_t)KEY << 59;
    if (!leaf)
        return v | (TABLES + (uint64_t)(i + 1) * 4096);
    return large ? v : v | PAGE_4K;
}

static void put_entry(const struct shape *s, int i, const struct props *e, struct paging_regs *r)
{
    uint64_t v = encode(s, i, e);
    if (is_pdpte_register(s, i))
        r->pdpte[GVA >> 30 & 3] = v & 0xfffffff001ull; /* reserved bits were checked at its load */
    else
        memcpy(table_host[i] + entry_offset(s, i), &v, s->format == PAGING_32 ? 4 : 8);
}

static uint64_t get_entry(const struct shape *s, int i)
{
    uint64_t v = 0;
    memcpy(&v, table_host[i] + entry_offset(s, i), s->format == PAGING_32 ? 4 : 8);
    return v;
}

static struct paging_regs make_regs(const struct shape *s, const struct conditions *c)
{
    struct paging_regs r = {.cr0 = CR0_PE | CR0_PG,
                            .cr3 = TABLES,
                            .a20_mask = ~0ull,
                            .maxphyaddr = 40,
                            .features = PAGING_HAS_1G | PAGING_HAS_PSE36};
    r.cr0 |= c->wp ? CR0_WP : 0;
    r.cr4 = (s->format == PAGING_32 ? CR4_PSE : CR4_PAE) | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0) |
            (c->pke ? CR4_PKE : 0) | (c->pks ? CR4_PKS : 0) | (s->format == PAGING_5LEVEL ? CR4_LA57 : 0);
    r.efer = (s->format >= PAGING_4LEVEL ? EFER_LME | EFER_LMA : 0) | (c->nxe ? EFER_NXE : 0);
    r.pkru = (uint32_t)(c->key_ad | c->key_wd << 1) << (2 * KEY);
    r.pkrs = (uint32_t)(c->skey_ad | c->skey_wd << 1) << (2 * KEY);
    r.cpl = (uint8_t)c->cpl;
    r.ac = c->ac;
    return r;
}

static unsigned access_of(enum kind kind)
{
    static const unsigned access[KINDS] = {ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH, ACCESS_READ | ACCESS_IMPLICIT,
                                           ACCESS_WRITE | ACCESS_IMPLICIT};
    return access[kind];
}

static uint64_t leaf_offset(const struct shape *s)
{
    int shift = s->format == PAGING_32 ? (s->leaf_level == 2 ? 22 : 12) : 12 + 9 * (s->leaf_level - 1);
    return GVA & ((1ull << shift) - 1);
}

/* Runs one case and compares fault, error code, gpa and every entry afterwards. */
static void run_case(const struct shape *s, const struct props *in, const struct conditions *c)
{
    struct paging_regs r = make_regs(s, c);
    struct gwalk w;
    for (int i = 0; i < s->levels; i++)
        put_entry(s, i, &in[i], &r);
    struct outcome o = model(s, in, c);
    gwalk(rig.mem, &r, GVA, access_of(c->kind), &w);
    bool ok = (w.result != GWALK_OK) == o.fault && w.error == o.error;
    if (!o.fault)
        ok = ok && w.gpa == (s->leaf_level == 1 ? PAGE_4K : 0) + leaf_offset(s) && w.leaf_level == s->leaf_level;
    for (int i = 0; i < s->levels; i++)
        ok = ok && (is_pdpte_register(s, i) || get_entry(s, i) == encode(s, i, &o.after[i]));
    if (ok)
        return;
    fprintf(stderr, "%s: kind %d cpl %d wp %d smep %d smap %d ac %d nxe %d pke %d%d%d pks %d%d%d\n", s->name, c->kind,
            c->cpl, c->wp, c->smep, c->smap, c->ac, c->nxe, c->pke, c->key_ad, c->key_wd, c->pks, c->skey_ad,
            c->skey_wd);
    for (int i = 0; i < s->levels; i++)
        fprintf(stderr, "  level %d: %llx -> %llx, model %llx\n", level_of(s, i),
                (unsigned long long)encode(s, i, &in[i]), (unsigned long long)get_entry(s, i),
                (unsigned long long)encode(s, i, &o.after[i]));
    ck_abort_msg("walker: result %d error %x; model: fault %d error %x", w.result, w.error, o.fault, o.error);
}

static struct conditions conditions_of(unsigned bits)
{
    struct conditions c = {.wp = bits & 1,
                           .smep = bits >> 1 & 1,
                           .smap = bits >> 2 & 1,
                           .ac = bits >> 3 & 1,
                           .nxe = bits >> 4 & 1,
                           .cpl = bits >> 5 & 1 ? 3 : 0};
    unsigned keys = bits >> 6 & 3; /* off, nothing denied, AD, WD; the same for both registers */
    c.pke = c.pks = keys != 0;
    c.key_ad = c.skey_ad = keys == 2;
    c.key_wd = c.skey_wd = keys == 3;
    return c;
}
enum { CONDITIONS = 1 << 8 };

static bool has_keys(const struct shape *s)
{
    return s->format >= PAGING_4LEVEL;
}

static void run_all_conditions(const struct shape *s, const struct props *in)
{
    for (unsigned bits = 0; bits < CONDITIONS; bits++) {
        if (!has_keys(s) && bits >> 6 > 1)
            break;
        for (unsigned kind = 0; kind < KINDS; kind++) {
            struct conditions c = conditions_of(bits);
            c.kind = kind;
            run_case(s, in, &c);
        }
    }
}

static void fill_permissive(struct props *in)
{
    for (int i = 0; i < LEVELS_MAX; i++)
        in[i] = (struct props){.p = true, .w = true, .u = true};
}

static bool can_be_reserved(const struct shape *s, int i)
{
    return s->format != PAGING_32 || (i == s->levels - 1 && s->leaf_level == 2);
}

static struct props props_of(const struct shape *s, int i, unsigned bits)
{
    struct props e = {.p = bits & 1,
                      .w = bits >> 1 & 1,
                      .u = bits >> 2 & 1,
                      .nx = bits >> 3 & 1,
                      .rsvd = bits >> 4 & 1,
                      .a = bits >> 5 & 1,
                      .d = bits >> 6 & 1};
    e.nx &= s->format != PAGING_32;
    e.rsvd &= can_be_reserved(s, i);
    return e;
}

START_TEST(every_entry_at_each_level_under_all_conditions_matches_the_model)
{
    const struct shape *s = &shapes[_i];
    struct props in[LEVELS_MAX];
    for (int i = 0; i < s->levels; i++) {
        fill_permissive(in);
        for (unsigned bits = 0; bits < 128; bits++) {
            in[i] = props_of(s, i, bits);
            run_all_conditions(s, in);
        }
    }
}
END_TEST

/* Which levels lack a right: none, each single one, all. */
static bool lacks(const struct shape *s, unsigned choice, int i)
{
    return choice == (unsigned)s->levels + 1 || choice == (unsigned)i + 1;
}

START_TEST(rights_of_all_levels_combine_as_in_the_model)
{
    const struct shape *s = &shapes[_i];
    unsigned choices = (unsigned)s->levels + 2;
    for (unsigned n = 0; n < choices * choices * choices; n++) {
        struct props in[LEVELS_MAX];
        fill_permissive(in);
        for (int i = 0; i < s->levels; i++) {
            in[i].w = !lacks(s, n % choices, i);
            in[i].u = !lacks(s, n / choices % choices, i);
            in[i].nx = s->format != PAGING_32 && lacks(s, n / choices / choices, i);
        }
        run_all_conditions(s, in);
    }
}
END_TEST

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 24;
}

START_TEST(random_tables_under_random_conditions_match_the_model)
{
    const struct shape *s = &shapes[_i];
    uint64_t state = 1 + (uint64_t)_i;
    for (unsigned n = 0; n < 100000; n++) {
        struct props in[LEVELS_MAX];
        for (int i = 0; i < s->levels; i++) {
            uint64_t bits = next_random(&state);
            in[i] = props_of(s, i, bits & 127);
            in[i].p |= (bits >> 7 & 7) != 0; /* mostly present, mostly without reserved bits */
            in[i].rsvd &= (bits >> 10 & 7) == 0;
        }
        uint64_t bits = next_random(&state);
        struct conditions c = conditions_of(bits & (CONDITIONS - 1));
        c.pks = bits >> 8 & 1;
        c.skey_ad = bits >> 9 & 1;
        c.skey_wd = bits >> 10 & 1;
        c.key_wd |= bits >> 11 & 1;
        c.kind = (bits >> 12) % KINDS;
        run_case(s, in, &c);
    }
}
END_TEST

/* ---- reserved bits, bit by bit ---- */

/* From SDM tables 4-4 to 4-20, for MAXPHYADDR 40, PSE-36, 1 GiB pages. */
static bool bit_is_reserved(const struct shape *s, int i, int bit, bool nxe)
{
    int level = level_of(s, i);
    bool large = i == s->levels - 1 && level > 1;
    if (s->format == PAGING_32)
        return large && bit == 21;
    if (bit == 63)
        return !nxe;
    if (bit >= 40 && bit <= (s->format == PAGING_PAE ? 62 : 51))
        return true;
    if (level >= 4 && bit == 7)
        return true;
    if (large && level == 2)
        return bit >= 13 && bit <= 20;
    if (large && level == 3)
        return bit >= 13 && bit <= 29;
    return false;
}

START_TEST(each_reserved_bit_alone_faults_and_no_other_does)
{
    const struct shape *s = &shapes[_i];
    for (int i = 0; i < s->levels; i++) {
        for (int bit = 1; bit < (s->format == PAGING_32 ? 32 : 64); bit++) {
            for (int nxe = 0; nxe < 2; nxe++) {
                struct props in[LEVELS_MAX];
                struct gwalk w;
                struct conditions c = {.nxe = nxe};
                struct paging_regs r = make_regs(s, &c);
                if (is_pdpte_register(s, i))
                    continue;
                fill_permissive(in);
                for (int k = 0; k < s->levels; k++)
                    put_entry(s, k, &in[k], &r);
                uint64_t v = encode(s, i, &in[i]) ^ 1ull << bit;
                if (bit == 7 && s->format != PAGING_32 && level_of(s, i) <= 3)
                    continue; /* changes what the entry is */
                if (bit == 7 && s->format == PAGING_32)
                    continue;
                memcpy(table_host[i] + entry_offset(s, i), &v, s->format == PAGING_32 ? 4 : 8);
                gwalk(rig.mem, &r, GVA, ACCESS_READ | GWALK_PEEK, &w);
                bool reserved = w.result == GWALK_FAULT && (w.error & PF_RSVD) && w.depth == i + 1;
                ck_assert_msg(reserved == bit_is_reserved(s, i, bit, nxe), "%s level %d bit %d nxe %d", s->name,
                              level_of(s, i), bit, nxe);
            }
        }
    }
}
END_TEST

START_TEST(pse36_bits_follow_maxphyaddr_and_the_feature)
{
    struct gwalk w;
    struct conditions c = {.nxe = false};
    const struct shape *s = &shapes[1];
    struct paging_regs r = make_regs(s, &c);
    uint32_t pde = 1 | 0x80 | 5u << 13 | 0x00400000;
    memcpy(table_host[0] + entry_offset(s, 0), &pde, 4);
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    ck_assert_uint_eq(w.gpa, (5ull << 32 | 0x00400000) + leaf_offset(s));
    r.maxphyaddr = 34; /* bits 13 and 14 only */
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_uint_eq(w.error, PF_PRESENT | PF_RSVD);
    r.maxphyaddr = 35;
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    r.features = 0;
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_uint_eq(w.error, PF_PRESENT | PF_RSVD);
    r.cr4 = 0; /* PS is ignored: the PDE points to a table that is not memory here */
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_int_eq(w.depth, 2);
}
END_TEST

START_TEST(pat_bit_of_a_large_page_is_no_address_bit)
{
    struct gwalk w;
    struct conditions c = {.nxe = true};
    const struct shape *s = &shapes[5];
    struct paging_regs r = make_regs(s, &c);
    struct props in[LEVELS_MAX];
    fill_permissive(in);
    for (int i = 0; i < s->levels; i++)
        put_entry(s, i, &in[i], &r);
    uint64_t v = encode(s, 2, &in[2]) | 1 << 12;
    memcpy(table_host[2] + entry_offset(s, 2), &v, 8);
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    ck_assert_uint_eq(w.gpa, leaf_offset(s));
}
END_TEST

START_TEST(gigabyte_pages_need_the_feature)
{
    struct gwalk w;
    struct conditions c = {.nxe = true};
    struct paging_regs r = make_regs(&shapes[6], &c);
    struct props in[LEVELS_MAX];
    fill_permissive(in);
    for (int i = 0; i < shapes[6].levels; i++)
        put_entry(&shapes[6], i, &in[i], &r);
    r.features = 0;
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_uint_eq(w.error, PF_PRESENT | PF_RSVD);
}
END_TEST

START_TEST(table_outside_memory_reads_as_all_ones)
{
    struct gwalk w;
    struct conditions c = {.nxe = true};
    struct paging_regs r = make_regs(&shapes[4], &c);
    r.cr3 = 0x40000000;
    r.cpl = 3;
    gwalk(rig.mem, &r, GVA, ACCESS_WRITE, &w);
    ck_assert_int_eq(w.result, GWALK_NOMEM);
    ck_assert_uint_eq(w.error, PF_PRESENT | PF_RSVD | PF_WRITE | PF_USER);
}
END_TEST

START_TEST(a20_mask_applies_to_tables_and_to_the_result)
{
    struct gwalk w;
    struct paging_regs r = {.cr0 = CR0_PE, .a20_mask = ~(1ull << 20), .maxphyaddr = 36};
    gwalk(rig.mem, &r, 0x123456, ACCESS_READ, &w);
    ck_assert_uint_eq(w.gpa, 0x23456);
    struct conditions c = {.nxe = true};
    struct props in[LEVELS_MAX];
    r = make_regs(&shapes[4], &c);
    r.a20_mask = ~(1ull << 20);
    fill_permissive(in);
    for (int i = 0; i < 4; i++)
        put_entry(&shapes[4], i, &in[i], &r);
    r.cr3 |= 1 << 20;
    gwalk(rig.mem, &r, GVA, ACCESS_READ, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    ck_assert_uint_eq(w.at[0].gpte_gpa, TABLES + entry_offset(&shapes[4], 0));
}
END_TEST

START_TEST(peek_changes_nothing)
{
    struct conditions c = {.nxe = true, .kind = KIND_WRITE};
    struct paging_regs r = make_regs(&shapes[4], &c);
    struct props in[LEVELS_MAX];
    struct gwalk w;
    fill_permissive(in);
    for (int i = 0; i < 4; i++)
        put_entry(&shapes[4], i, &in[i], &r);
    gwalk(rig.mem, &r, GVA, ACCESS_WRITE | GWALK_PEEK, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    ck_assert(!w.dirty);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(get_entry(&shapes[4], i), encode(&shapes[4], i, &in[i]));
}
END_TEST

/* A table whose entry maps the table itself: one guest entry serves as each level. */
START_TEST(self_mapping_entry_gets_a_and_d_and_the_record_says_so)
{
    struct gwalk w;
    struct conditions c = {.nxe = true};
    struct paging_regs r = make_regs(&shapes[4], &c);
    uint64_t v = TABLES | 7;
    memcpy(table_host[0] + 510 * 8, &v, 8);
    gva_t gva = 0xffffull << 48 | 510ull << 39 | 510ull << 30 | 510ull << 21 | 510ull << 12 | 0x10;
    gwalk(rig.mem, &r, gva, ACCESS_WRITE, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    ck_assert_uint_eq(w.gpa, TABLES + 0x10);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(w.at[i].gpte, TABLES | 7 | PTE_A | PTE_D);
}
END_TEST

/* ---- the walker's own writes and tracking ---- */

struct counter {
    struct track_listener l;
    unsigned writes;
    gpa_t gpa;
    uint64_t value;
};

static bool count_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct counter *c = container_of(l, struct counter, l);
    c->writes++;
    c->gpa = gpa;
    memcpy(&c->value, bytes, len < 8 ? len : 8);
    return true;
}

START_TEST(accessed_bit_update_is_told_to_code_listeners_and_not_to_pt_listeners)
{
    struct counter pt = {.l = {.write = count_write, .kind = TRACK_PT}},
                   code = {.l = {.write = count_write, .kind = TRACK_CODE}};
    struct conditions c = {.nxe = true};
    struct paging_regs r = make_regs(&shapes[4], &c);
    struct props in[LEVELS_MAX];
    struct gwalk w;
    track_register(rig.mem, &pt.l);
    track_register(rig.mem, &code.l);
    track_add(rig.mem, 0, (TABLES >> 12) + 3, TRACK_PT);
    track_add(rig.mem, 0, (TABLES >> 12) + 3, TRACK_CODE);
    fill_permissive(in);
    for (int i = 0; i < 4; i++)
        put_entry(&shapes[4], i, &in[i], &r);
    gwalk(rig.mem, &r, GVA, ACCESS_WRITE, &w);
    ck_assert_uint_eq(pt.writes, 0);
    ck_assert_uint_eq(code.writes, 1);
    ck_assert_uint_eq(code.gpa, w.at[3].gpte_gpa);
    ck_assert_uint_eq(code.value, w.at[3].gpte);
    gwalk(rig.mem, &r, GVA, ACCESS_WRITE, &w);
    ck_assert_uint_eq(code.writes, 1);
    track_unregister(rig.mem, &pt.l);
    track_unregister(rig.mem, &code.l);
}
END_TEST

START_TEST(tables_in_rom_are_walked_and_keep_their_bits)
{
    struct conditions c = {.nxe = true};
    struct paging_regs r = make_regs(&shapes[4], &c);
    struct props in[LEVELS_MAX];
    struct gwalk w;
    fill_permissive(in);
    for (int i = 0; i < 4; i++)
        put_entry(&shapes[4], i, &in[i], &r);
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 0), 0);
    ck_assert_int_eq(mem_slot_add(rig.mem, 0, 0, 1 << 20, rig.hva, MEMSLOT_ROM), 0);
    gwalk(rig.mem, &r, GVA, ACCESS_WRITE, &w);
    ck_assert_int_eq(w.result, GWALK_OK);
    ck_assert(!w.dirty);
    ck_assert_uint_eq(w.at[3].gpte, encode(&shapes[4], 3, &in[3]));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mmu: guest walker");
    TCase *t = tcase_create("model");
    tcase_set_timeout(t, 240);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, every_entry_at_each_level_under_all_conditions_matches_the_model, 0, ARRAY_LEN(shapes));
    tcase_add_loop_test(t, rights_of_all_levels_combine_as_in_the_model, 0, ARRAY_LEN(shapes));
    tcase_add_loop_test(t, random_tables_under_random_conditions_match_the_model, 0, ARRAY_LEN(shapes));
    tcase_add_loop_test(t, each_reserved_bit_alone_faults_and_no_other_does, 0, ARRAY_LEN(shapes));
    suite_add_tcase(s, t);
    t = tcase_create("single");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, pse36_bits_follow_maxphyaddr_and_the_feature);
    tcase_add_test(t, pat_bit_of_a_large_page_is_no_address_bit);
    tcase_add_test(t, gigabyte_pages_need_the_feature);
    tcase_add_test(t, table_outside_memory_reads_as_all_ones);
    tcase_add_test(t, a20_mask_applies_to_tables_and_to_the_result);
    tcase_add_test(t, peek_changes_nothing);
    tcase_add_test(t, self_mapping_entry_gets_a_and_d_and_the_record_says_so);
    tcase_add_test(t, accessed_bit_update_is_told_to_code_listeners_and_not_to_pt_listeners);
    tcase_add_test(t, tables_in_rom_are_walked_and_keep_their_bits);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
