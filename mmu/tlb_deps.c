#include "mmu/tlb_deps.h"
#include "core/alloc.h"
#include "mmu/mem.h"

#include <stdlib.h>
#include <string.h>

#define GPTE_A            (1ull << 5)
#define TABLE_ENTRIES     512u /* in units of 8 bytes, whatever the format */
#define IDLE_WRITES_FIRST 64u
#define IDLE_WRITES_LAST  65536u

struct dep_table {
    gfn_t gfn;
    unsigned as;
    uint8_t entry_size;                 /* 4 or 8; a page used both ways keeps dependents of one way at a time */
    uint8_t level;                      /* at which it was walked as an upper table; 0: never */
    bool many_places;                   /* at several levels or gvas: `gva` says nothing */
    gva_t gva;                          /* what its first entry maps, if `level` */
    uint8_t ways;                       /* of the TLB's tables, in which 4 KiB translations were put */
    uint64_t leaf[TABLE_ENTRIES / 64];  /* entries that 4 KiB translations may have as their leaf */
    uint64_t upper[TABLE_ENTRIES / 64]; /* entries that translations may depend on otherwise, large leaves included */
    unsigned idle, idle_limit;          /* writes since one dropped something */
};

struct table_chunk {
    struct dep_table *table[GFN_CHUNK];
};

/* gvas at which a gfn may be mapped: page | HINT_USED, or HINT_MANY in the second. */
#define HINT_USED 1u
#define HINT_MANY 2u

struct gfn_hint {
    uint64_t any[2], write[2];
};

struct hint_chunk {
    struct gfn_hint hint[GFN_CHUNK];
};

struct tlb_deps {
    struct account *bytes;
    struct gfn_tree tables[MEM_ADDRESS_SPACES];     /* of struct table_chunk */
    struct gfn_tree hints[MEM_ADDRESS_SPACES];      /* of struct hint_chunk */
    struct dep_table *recent[GWALK_MAX_LEVELS + 1]; /* last table used at each level */
    bool seen_size4, seen_size8;
};

/* ---- hints: where a gfn may be mapped ---- */

static struct gfn_hint *hint_find(const struct tlb_deps *s, unsigned as, gfn_t gfn)
{
    struct hint_chunk *c = gfn_tree_find(&s->hints[as], gfn);
    return c ? &c->hint[gfn & (GFN_CHUNK - 1)] : NULL;
}

static void hint_note(struct mmu *mmu, uint64_t slot[2], gva_t gva, gfn_t gfn, enum tlb_action test)
{
    uint64_t value = (gva & ~PAGE_MASK) | HINT_USED;
    if (likely(slot[0] == value || slot[1] == value || slot[1] == HINT_MANY))
        return;
    for (int i = 0; i < 2; i++) {
        if (!slot[i] || !tlb_page_apply(mmu, slot[i] & ~PAGE_MASK, gfn, test)) {
            slot[i] = value;
            return;
        }
    }
    slot[1] = HINT_MANY;
}

static unsigned hint_apply(struct mmu *mmu, uint64_t slot[2], gfn_t gfn, enum tlb_action action)
{
    unsigned n = 0;
    if (slot[1] == HINT_MANY)
        n = tlb_gfns_apply(mmu, gfn, 1, action);
    else
        for (int i = 0; i < 2; i++)
            if (slot[i])
                n += tlb_page_apply(mmu, slot[i] & ~PAGE_MASK, gfn, action);
    slot[0] = slot[1] = 0;
    return n;
}

void tlb_deps_note_fill(struct mmu *mmu, struct tlb_deps *s, unsigned as, const struct tlb_fill *f)
{
    gfn_t gfn = f->gpa >> PAGE_SHIFT;
    struct hint_chunk *c = gfn_tree_make(&s->hints[as], gfn);
    struct gfn_hint *h = &c->hint[gfn & (GFN_CHUNK - 1)];
    hint_note(mmu, h->any, f->gva, gfn, TLB_TEST);
    if (f->write)
        hint_note(mmu, h->write, f->gva, gfn, TLB_TEST_WRITE);
}

void tlb_deps_protect_gfn(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t gfn)
{
    struct gfn_hint *h = hint_find(s, as, gfn);
    if (h)
        hint_apply(mmu, h->write, gfn, TLB_PROTECT);
}

/* ---- tables that translations were walked from ---- */

static struct dep_table *table_find(const struct tlb_deps *s, unsigned as, gfn_t gfn)
{
    struct table_chunk *c = gfn_tree_find(&s->tables[as], gfn);
    return c ? c->table[gfn & (GFN_CHUNK - 1)] : NULL;
}

static struct dep_table *table_make(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t gfn)
{
    struct table_chunk *c = gfn_tree_make(&s->tables[as], gfn);
    struct dep_table **at = &c->table[gfn & (GFN_CHUNK - 1)];
    if (!*at) {
        *at = alloc_zeroed(1, sizeof(**at));
        account_add(s->bytes, sizeof(**at));
        **at = (struct dep_table){.gfn = gfn, .as = as, .idle_limit = IDLE_WRITES_FIRST};
        track_add(mmu->mem, as, gfn, TRACK_PT);
    }
    return *at;
}

/* Nothing depends on the table any more. */
static void table_release(struct mmu *mmu, struct tlb_deps *s, struct dep_table *t)
{
    struct table_chunk *c = gfn_tree_find(&s->tables[t->as], t->gfn);
    for (size_t i = 0; i < ARRAY_LEN(s->recent); i++)
        if (s->recent[i] == t)
            s->recent[i] = NULL;
    c->table[t->gfn & (GFN_CHUNK - 1)] = NULL;
    track_remove(mmu->mem, t->as, t->gfn, TRACK_PT);
    account_sub(s->bytes, sizeof(*t));
    free(t);
}

static unsigned table_drop_all(struct mmu *mmu, struct dep_table *t)
{
    memset(t->leaf, 0, sizeof(t->leaf));
    memset(t->upper, 0, sizeof(t->upper));
    return tlb_drop_dep_page(mmu, t->gfn);
}

/* A page read with another entry size than before: what depends on it the old way goes, so that an A or D bit which the
 * walker sets the new way cannot change a cached translation. */
static void table_set_entry_size(struct mmu *mmu, struct dep_table *t, unsigned size)
{
    if (likely(t->entry_size == size))
        return;
    if (t->entry_size)
        table_drop_all(mmu, t);
    t->entry_size = (uint8_t)size;
    t->level = 0;
    t->many_places = false;
}

static inline unsigned entry_shift(enum paging_format format, int level)
{
    return PAGE_SHIFT + (unsigned)(level - 1) * (format == PAGING_32 ? 10 : 9);
}

static bool bits_any(const uint64_t bits[TABLE_ENTRIES / 64])
{
    for (unsigned i = 0; i < TABLE_ENTRIES / 64; i++)
        if (bits[i])
            return true;
    return false;
}

/* Remembers where an upper table maps. */
static void table_note_place(struct dep_table *t, enum paging_format format, int level, gva_t gva)
{
    unsigned shift = entry_shift(format, level + 1);
    gva_t start = shift < 64 ? gva >> shift << shift : 0;
    if (likely(t->level == level && t->gva == start && !t->many_places))
        return;
    t->many_places = bits_any(t->upper); /* nothing depends on it yet: it moves */
    t->level = (uint8_t)level;
    t->gva = start;
}

static inline unsigned format_entry_size(enum paging_format format)
{
    return format == PAGING_32 ? 4 : 8;
}

static void table_note(struct mmu *mmu, struct tlb_deps *s, unsigned as, gva_t gva, const struct gwalk *w, int i)
{
    const struct gwalk_level *at = &w->at[i];
    gfn_t gfn = at->gpte_gpa >> PAGE_SHIFT;
    struct dep_table *t = s->recent[at->level];
    if (!t || t->gfn != gfn || t->as != as)
        t = s->recent[at->level] = table_make(mmu, s, as, gfn);
    table_set_entry_size(mmu, t, format_entry_size(w->format));
    unsigned entry = (at->gpte_gpa & PAGE_MASK) >> 3;
    uint64_t bit = 1ull << (entry & 63);
    if (at->level == 1) {
        t->leaf[entry >> 6] |= bit;
        t->ways |= tlb_way_bit(gva);
    } else {
        table_note_place(t, w->format, at->level, gva);
        t->upper[entry >> 6] |= bit;
    }
}

bool tlb_deps_note_tables(struct mmu_vcpu *mv, struct tlb_deps *s, const struct gwalk *w, struct tlb_fill *f)
{
    unsigned n = 0;
    s->seen_size4 |= w->format == PAGING_32;
    s->seen_size8 |= w->format != PAGING_32;
    for (int i = w->depth - 1; i >= 0; i--) {
        if (w->at[i].gpte_gpa == ~(gpa_t)0)
            continue;
        if (!(w->at[i].gpte & GPTE_A))
            return false;
        table_note(mv->mmu, s, mv->regs.as, f->gva, w, i);
        f->meta.dep[n++] = w->at[i].gpte_gpa;
    }
    while (n < TLB_MAX_DEPS)
        f->meta.dep[n++] = UINT64_MAX;
    return true;
}

void tlb_deps_note_fault(struct mmu_vcpu *mv, struct tlb_deps *s, const struct gwalk *w)
{
    if (likely(!(s->seen_size4 && s->seen_size8)))
        return;
    mmu_lock(mv->mmu);
    for (int i = 0; i < w->depth; i++) {
        struct dep_table *t = table_find(s, mv->regs.as, w->at[i].gpte_gpa >> PAGE_SHIFT);
        if (t)
            table_set_entry_size(mv->mmu, t, format_entry_size(w->format));
    }
    mmu_unlock(mv->mmu);
}

/* ---- writes to tables ---- */

static unsigned drop_leaf(struct mmu *mmu, const struct dep_table *t, unsigned entry)
{
    gpa_t gpa = (t->gfn << PAGE_SHIFT) + entry * 8;
    if (t->entry_size == 8)
        return tlb_drop_leaf(mmu, gpa, entry, t->ways);
    return tlb_drop_leaf(mmu, gpa, gpa >> 2 & 511, t->ways) +
           tlb_drop_leaf(mmu, gpa + 4, (gpa + 4) >> 2 & 511, t->ways);
}

static unsigned drop_upper(struct mmu *mmu, const struct dep_table *t, unsigned entry)
{
    gpa_t gpa = (t->gfn << PAGE_SHIFT) + entry * 8;
    if (t->entry_size == 4)
        return tlb_drop_dep(mmu, gpa) + tlb_drop_dep(mmu, gpa + 4);
    if (t->many_places || !t->level ||
        t->level >= 4) /* a top table: its gvas are sign-extended, and all of a set depends on it anyway */
        return tlb_drop_dep(mmu, gpa);
    unsigned shift = entry_shift(PAGING_4LEVEL, t->level);
    return tlb_drop_dep_range(mmu, gpa, t->gva + ((gva_t)entry << shift), 1ull << (shift - PAGE_SHIFT));
}

static unsigned table_entry_written(struct mmu *mmu, struct dep_table *t, unsigned entry)
{
    unsigned n = 0;
    uint64_t bit = 1ull << (entry & 63);
    if (t->leaf[entry >> 6] & bit) {
        t->leaf[entry >> 6] &= ~bit;
        n += drop_leaf(mmu, t, entry);
    }
    if (t->upper[entry >> 6] & bit) {
        t->upper[entry >> 6] &= ~bit;
        n += drop_upper(mmu, t, entry);
    }
    return n;
}

static void find_dependent(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                           const struct tlb_entry *data, const struct tlb_fetch_entry *fetch,
                           const struct tlb_meta *meta)
{
    struct dep_table *t = ctx;
    for (unsigned i = 0; i < TLB_MAX_DEPS; i++) {
        if (meta->dep[i] >> PAGE_SHIFT != t->gfn)
            continue;
        unsigned entry = (meta->dep[i] & PAGE_MASK) >> 3;
        (i == 0 ? t->leaf : t->upper)[entry >> 6] |= 1ull << (entry & 63);
        if (i == 0 && t->level) /* a large leaf, perhaps */
            t->upper[entry >> 6] |= 1ull << (entry & 63);
    }
}

/* Many writes in a row concerned nothing: find out what still depends on the page; if nothing does, it is no table (any
 * more). */
static void table_reconsider(struct mmu *mmu, struct tlb_deps *s, struct dep_table *t)
{
    memset(t->leaf, 0, sizeof(t->leaf));
    memset(t->upper, 0, sizeof(t->upper));
    tlb_for_each(mmu, find_dependent, t);
    t->idle = 0;
    if (t->idle_limit < IDLE_WRITES_LAST)
        t->idle_limit *= 2;
    if (!bits_any(t->leaf) && !bits_any(t->upper))
        table_release(mmu, s, t);
}

void tlb_deps_pt_write(struct mmu *mmu, struct tlb_deps *s, unsigned as, gpa_t gpa, size_t len)
{
    struct dep_table *t = table_find(s, as, gpa >> PAGE_SHIFT);
    if (!t)
        return;
    unsigned first = (gpa & PAGE_MASK) >> 3, last = (unsigned)(((gpa & PAGE_MASK) + len - 1) >> 3), n = 0;
    for (unsigned entry = first; entry <= last; entry++)
        n += table_entry_written(mmu, t, entry);
    if (n)
        t->idle = 0;
    else if (++t->idle >= t->idle_limit)
        table_reconsider(mmu, s, t);
}

/* ---- zapping ---- */

bool tlb_deps_drop_gfns(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t start, uint64_t pages)
{
    void *chunk;
    bool dropped = false;
    const struct gfn_tree *tree = &s->hints[as];
    for (gfn_t g = gfn_tree_next(tree, start, start + pages, &chunk); g < start + pages;
         g = gfn_tree_next(tree, g + 1, start + pages, &chunk)) {
        struct gfn_hint *h = &((struct hint_chunk *)chunk)->hint[g & (GFN_CHUNK - 1)];
        if (h->any[0] | h->any[1]) {
            dropped |= hint_apply(mmu, h->any, g, TLB_DROP) != 0;
            h->write[0] = h->write[1] = 0;
        }
    }
    return dropped;
}

/* Translations that were walked from tables in the range go too: the host may be about to change what they hold. */
static bool drop_tables(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t start, uint64_t pages)
{
    void *chunk;
    bool dropped = false;
    const struct gfn_tree *tree = &s->tables[as];
    for (gfn_t g = gfn_tree_next(tree, start, start + pages, &chunk); g < start + pages;
         g = gfn_tree_next(tree, g + 1, start + pages, &chunk)) {
        struct dep_table *t = ((struct table_chunk *)chunk)->table[g & (GFN_CHUNK - 1)];
        if (!t)
            continue;
        dropped |= table_drop_all(mmu, t) != 0;
        table_release(mmu, s, t);
    }
    return dropped;
}

bool tlb_deps_zap_gfns(struct mmu *mmu, struct tlb_deps *s, unsigned as, gfn_t start, uint64_t pages)
{
    bool data = tlb_deps_drop_gfns(mmu, s, as, start, pages);
    bool tables = drop_tables(mmu, s, as, start, pages);
    return data || tables;
}

void tlb_deps_zap_all(struct mmu *mmu, struct tlb_deps *s)
{
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++)
        tlb_deps_zap_gfns(mmu, s, as, 0, GFN_LIMIT);
}

/* ---- life ---- */

struct tlb_deps *tlb_deps_create(struct account *bytes)
{
    struct tlb_deps *s = alloc_zeroed(1, sizeof(*s));
    s->bytes = bytes;
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        gfn_tree_init(&s->tables[as], sizeof(struct table_chunk));
        gfn_tree_init(&s->hints[as], sizeof(struct hint_chunk));
        gfn_tree_count_bytes(&s->tables[as], bytes);
        gfn_tree_count_bytes(&s->hints[as], bytes);
    }
    return s;
}

void tlb_deps_destroy(struct mmu *mmu, struct tlb_deps *s)
{
    tlb_deps_zap_all(mmu, s);
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        gfn_tree_fini(&s->tables[as]);
        gfn_tree_fini(&s->hints[as]);
    }
    free(s);
}

/* ---- audit ---- */

struct dep_check {
    struct audit *audit;
    const struct tlb_deps *state;
};

/* Every guest entry that a TLB entry was made from lies in a tracked page whose bit says so. */
static void check_deps(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                       const struct tlb_entry *data, const struct tlb_fetch_entry *fetch, const struct tlb_meta *meta)
{
    struct dep_check *c = ctx;
    for (unsigned i = 0; i < TLB_MAX_DEPS && meta->dep[i] != UINT64_MAX; i++) {
        gfn_t gfn = meta->dep[i] >> PAGE_SHIFT;
        unsigned entry = (meta->dep[i] & PAGE_MASK) >> 3;
        const struct dep_table *t = table_find(c->state, set->key.as, gfn);
        if (!t || !track_count(mv->mem, set->key.as, gfn, TRACK_PT))
            audit_fail(c->audit, 7, "TLB entry of gva 0x%llx: guest entry at 0x%llx is not tracked",
                       (unsigned long long)(data ? -data->ntag_r : -fetch->ntag), (unsigned long long)meta->dep[i]);
        else if (!((t->leaf[entry >> 6] | t->upper[entry >> 6]) >> (entry & 63) & 1))
            audit_fail(c->audit, 7, "TLB entry of gva 0x%llx: a write to its guest entry at 0x%llx would be missed",
                       (unsigned long long)(data ? -data->ntag_r : -fetch->ntag), (unsigned long long)meta->dep[i]);
    }
}

void tlb_deps_audit(struct audit *a, const struct tlb_deps *s)
{
    struct dep_check c = {.audit = a, .state = s};
    tlb_for_each(a->mmu, check_deps, &c);
}
