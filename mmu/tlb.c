/*
 * Filling and dropping soft TLB entries. See tlb.h for what an entry means.
 *
 * Three things keep drops cheap: tables are made on first use; each table has a bit for every 64 (fetch: 16) slots that
 * may hold something; and each set has a Bloom filter over the pages that its entries were made from, so that a drop by
 * dependency looks into the few sets that can be concerned.
 */
#include "core/alloc.h"
#include "mmu/engine.h"

#include <stdlib.h>
#include <string.h>

#define DATA_GROUP  (TLB_SIZE / 64)
#define FETCH_GROUP (TLB_FETCH_SIZE / 64)

static inline bool data_is_live(const struct tlb_entry *e, unsigned index)
{
    return e->ntag_r != tlb_empty_tag(index);
}

static inline bool fetch_is_live(const struct tlb_fetch_entry *e, unsigned index)
{
    return e->ntag != tlb_empty_tag(index);
}

static inline void data_clear(struct tlb_entry *e, unsigned index)
{
    e->ntag_r = e->ntag_w = tlb_empty_tag(index);
    e->gpa = 0;
}

static inline bool data_writes(const struct tlb_entry *e)
{
    return e->ntag_w == e->ntag_r;
}

enum tlb_mode tlb_mode_of(const struct paging_regs *r, unsigned access)
{
    if (access & ACCESS_IMPLICIT)
        return TLB_SUPER;
    if (r->cpl == 3)
        return TLB_USER;
    return r->ac && (r->cr4 & CR4_SMAP) ? TLB_SUPER_AC : TLB_SUPER; /* AC means nothing else here */
}

/* ---- dependencies ---- */

static inline unsigned filter_bit(uint64_t dep_page)
{
    return (unsigned)((dep_page * 0x9e3779b97f4a7c15ull) >> 52); /* 12 bits: 64 words */
}

static inline bool filter_has(const struct tlb_set *set, uint64_t dep_page)
{
    unsigned bit = filter_bit(dep_page);
    return set->dep_filter[bit >> 6] >> (bit & 63) & 1;
}

static void filter_add(struct tlb_set *set, const struct tlb_meta *meta)
{
    for (unsigned i = 0; i < TLB_MAX_DEPS; i++) {
        uint64_t dep = meta->dep[i];
        if (dep == UINT64_MAX) /* 0 is unused for sptes, but the gpa of a guest entry */
            continue;
        unsigned bit = filter_bit(dep >> PAGE_SHIFT);
        set->dep_filter[bit >> 6] |= 1ull << (bit & 63);
    }
}

static inline bool meta_has(const struct tlb_meta *meta, uint64_t dep)
{
    for (unsigned i = 0; i < TLB_MAX_DEPS; i++)
        if (meta->dep[i] == dep)
            return true;
    return false;
}

static inline bool meta_has_page(const struct tlb_meta *meta, uint64_t page)
{
    for (unsigned i = 0; i < TLB_MAX_DEPS; i++)
        if (meta->dep[i] >> PAGE_SHIFT == page)
            return true;
    return false;
}

/* ---- tables ---- */

static void data_init(struct tlb_entry *t)
{
    for (unsigned i = 0; i < TLB_SIZE; i++)
        data_clear(&t[i], i);
}

static void fetch_init(struct tlb_fetch_entry *t)
{
    for (unsigned i = 0; i < TLB_FETCH_SIZE; i++)
        t[i].ntag = tlb_empty_tag(i);
}

int tlb_init(struct mmu *mmu)
{
    mmu->sets = calloc((size_t)mmu->vcpu_count * TLB_ALL_SETS, sizeof(*mmu->sets));
    mmu->empty_data = calloc(TLB_SIZE, sizeof(*mmu->empty_data));
    mmu->empty_fetch = calloc(TLB_FETCH_SIZE, sizeof(*mmu->empty_fetch));
    if (!mmu->sets || !mmu->empty_data || !mmu->empty_fetch) {
        tlb_fini(mmu);
        return -1;
    }
    data_init(mmu->empty_data);
    fetch_init(mmu->empty_fetch);
    account_add(&mmu->bytes.tlb, (uint64_t)mmu->vcpu_count * TLB_ALL_SETS * sizeof(*mmu->sets) +
                                     TLB_SIZE * sizeof(*mmu->empty_data) + TLB_FETCH_SIZE * sizeof(*mmu->empty_fetch));
    return 0;
}

void tlb_fini(struct mmu *mmu)
{
    for (unsigned i = 0; mmu->sets && i < mmu->vcpu_count * TLB_ALL_SETS; i++) {
        struct tlb_set *set = &mmu->sets[i];
        for (unsigned mode = 0; mode < TLB_MODES; mode++) {
            free(set->data[mode]);
            free(set->data_meta[mode]);
        }
        for (unsigned mode = 0; mode < 2; mode++) {
            free(set->fetch[mode]);
            free(set->fetch_meta[mode]);
        }
    }
    free(mmu->sets);
    free(mmu->empty_data);
    free(mmu->empty_fetch);
    mmu->sets = NULL;
    mmu->empty_data = NULL;
    mmu->empty_fetch = NULL;
}

void tlb_select_data(struct mmu_vcpu *mv)
{
    const struct paging_regs *r = &mv->regs;
    bool checks_alignment = r->cpl == 3 && r->ac && r->cr0 & CR0_AM;
    mv->cur_data = mv->data_bypass || checks_alignment ? mv->mmu->empty_data : mv->data[tlb_mode_of(r, 0)];
    if (mv->cur_data == mv->mmu->empty_data) /* any mode's of any root: who compares tables would see no change */
        mv->data_epoch++;
}

/* The fetch table of a mode of the set is not what it was: it gets a new name. */
static void fetch_changed(struct mmu_vcpu *mv, struct tlb_set *set, enum tlb_mode mode)
{
    set->fetch_epoch[mode] = ++mv->fetch_epochs;
    if (mv->cur_fetch == set->fetch[mode])
        mv->fetch_epoch = set->fetch_epoch[mode];
}

/* The set whose table the current root's fetches go through. */
static struct tlb_set *fetch_set(const struct mmu_vcpu *mv, enum tlb_mode mode)
{
    return mode == TLB_SUPER && mv->set->common ? tlb_common_set(mv) : mv->set;
}

void tlb_select_fetch(struct mmu_vcpu *mv)
{
    enum tlb_mode mode = mv->regs.cpl == 3 ? TLB_USER : TLB_SUPER;
    struct tlb_set *set = fetch_set(mv, mode);
    if (!set->fetch_epoch[mode])
        set->fetch_epoch[mode] = ++mv->fetch_epochs;
    mv->cur_fetch = mv->fetch[mode];
    mv->fetch_epoch = set->fetch_epoch[mode];
}

void tlb_vcpu_switch(struct mmu_vcpu *mv)
{
    const struct tlb_set *set = mv->set;
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        mv->data[mode] = set->data[mode] ? set->data[mode] : mv->mmu->empty_data;
    for (unsigned mode = 0; mode < 2; mode++) {
        const struct tlb_set *from = fetch_set(mv, mode);
        mv->fetch[mode] = from->fetch[mode] ? from->fetch[mode] : mv->mmu->empty_fetch;
        mv->epoch_of[mode] = &from->fetch_epoch[mode];
    }
    tlb_select_data(mv);
    tlb_select_fetch(mv);
}

static void data_table_make(struct mmu_vcpu *mv, enum tlb_mode mode)
{
    struct tlb_set *set = mv->set;
    set->data[mode] = alloc_zeroed(TLB_SIZE, sizeof(struct tlb_entry));
    set->data_meta[mode] = alloc_zeroed(TLB_SIZE, sizeof(struct tlb_meta));
    account_add(&mv->mmu->bytes.tlb, TLB_SIZE * (sizeof(struct tlb_entry) + sizeof(struct tlb_meta)));
    data_init(set->data[mode]);
    tlb_vcpu_switch(mv);
}

void tlb_set_common(struct mmu *mmu, struct tlb_set *set, bool common)
{
    struct mmu_vcpu *mv = tlb_set_vcpu(mmu, set);
    set->common = common;
    if (mv->set == set)
        tlb_vcpu_switch(mv);
}

static void fetch_table_make(struct mmu_vcpu *mv, struct tlb_set *set, enum tlb_mode mode)
{
    set->fetch[mode] = alloc_zeroed(TLB_FETCH_SIZE, sizeof(struct tlb_fetch_entry));
    set->fetch_meta[mode] = alloc_zeroed(TLB_FETCH_SIZE, sizeof(struct tlb_meta));
    account_add(&mv->mmu->bytes.tlb, TLB_FETCH_SIZE * (sizeof(struct tlb_fetch_entry) + sizeof(struct tlb_meta)));
    fetch_init(set->fetch[mode]);
    tlb_vcpu_switch(mv);
}

/* ---- install ---- */

static void install_data(struct mmu_vcpu *mv, enum tlb_mode mode, const struct tlb_fill *f)
{
    struct tlb_set *set = mv->set;
    if (unlikely(!set->data[mode]))
        data_table_make(mv, mode);
    gva_t page = f->gva & ~PAGE_MASK;
    unsigned i = tlb_index(page);
    struct tlb_entry *e = &set->data[mode][i];
    bool less = e->ntag_r != -page || e->host != (uint64_t)(uintptr_t)f->host || (data_writes(e) && !f->write);
    if (data_is_live(e, i) && less) /* who has copied it would not hear of its end any more */
        mv->data_epoch++;
    e->ntag_r = f->read ? -page : tlb_empty_tag(i);
    e->ntag_w = f->write ? -page : tlb_empty_tag(i);
    e->host = (uint64_t)(uintptr_t)f->host;
    e->gpa = f->gpa | (f->write_emul ? TLB_GPA_WRITE_EMUL : 0);
    set->data_meta[mode][i] = f->meta;
    set->data_used[mode] |= 1ull << (i / DATA_GROUP);
    filter_add(set, &f->meta);
}

static void install_fetch(struct mmu_vcpu *mv, enum tlb_mode mode, const struct tlb_fill *f)
{
    mode = mode == TLB_USER ? TLB_USER : TLB_SUPER;
    struct tlb_set *set = fetch_set(mv, mode);
    if (unlikely(!set->fetch[mode]))
        fetch_table_make(mv, set, mode);
    gva_t page = f->gva & ~PAGE_MASK;
    unsigned i = tlb_fetch_index(page);
    struct tlb_fetch_entry *e = &set->fetch[mode][i];
    struct tlb_fetch_entry new = {.ntag = -page, .host = (uint64_t)(uintptr_t)f->host, .gpa = f->gpa};
    /* Who remembers the old entry would not hear of its end any more. */
    if (fetch_is_live(e, i) && memcmp(e, &new, sizeof(new)))
        fetch_changed(mv, set, mode);
    *e = new;
    set->fetch_meta[mode][i] = f->meta;
    set->fetch_used[mode] |= 1ull << (i / FETCH_GROUP);
    filter_add(set, &f->meta);
}

void tlb_install(struct mmu_vcpu *mv, enum tlb_mode mode, const struct tlb_fill *f)
{
    if (!f->host)
        return;
    if (f->read)
        install_data(mv, mode, f);
    if (f->fetch)
        install_fetch(mv, mode, f);
    mv->mmu->stats.fills++;
}

/* ---- dropping and the rest: one entry ---- */

static unsigned data_apply(struct mmu_vcpu *mv, struct tlb_entry *e, unsigned index, enum tlb_action action)
{
    switch (action) {
    case TLB_TEST:
        return 1;
    case TLB_TEST_WRITE:
        return data_writes(e);
    case TLB_PROTECT:
        if (!data_writes(e))
            return 0;
        mv->data_epoch++;
        e->ntag_w = tlb_empty_tag(index);
        e->gpa |= TLB_GPA_WRITE_EMUL;
        return 1;
    case TLB_DROP:
        mv->data_epoch++;
        data_clear(e, index);
        return 1;
    }
    return 0;
}

static unsigned fetch_apply(struct mmu_vcpu *mv, struct tlb_set *set, enum tlb_mode mode, unsigned index,
                            enum tlb_action action)
{
    if (action == TLB_TEST)
        return 1;
    if (action != TLB_DROP)
        return 0;
    set->fetch[mode][index].ntag = tlb_empty_tag(index);
    fetch_changed(mv, set, mode);
    return 1;
}

#define for_each_set(mmu, set)                                                                                         \
    for (struct tlb_set *set = (mmu)->sets; set < (mmu)->sets + (mmu)->vcpu_count * TLB_ALL_SETS; set++)

static unsigned count_drops(struct mmu *mmu, unsigned n)
{
    mmu->stats.tlb_drops += n;
    return n;
}

/* ---- by page: one slot a table ---- */

static unsigned set_page_apply(struct mmu *mmu, struct tlb_set *set, gva_t page, gfn_t gfn, bool any_gfn,
                               enum tlb_action action)
{
    unsigned n = 0, i = tlb_index(page), j = tlb_fetch_index(page);
    for (unsigned mode = 0; mode < TLB_MODES; mode++) {
        if (!(set->data_used[mode] >> (i / DATA_GROUP) & 1))
            continue;
        struct tlb_entry *e = &set->data[mode][i];
        if (e->ntag_r == -page && (any_gfn || e->gpa >> PAGE_SHIFT == gfn))
            n += data_apply(tlb_set_vcpu(mmu, set), e, i, action);
    }
    for (unsigned mode = 0; mode < 2; mode++) {
        if (!(set->fetch_used[mode] >> (j / FETCH_GROUP) & 1))
            continue;
        struct tlb_fetch_entry *e = &set->fetch[mode][j];
        if (e->ntag == -page && (any_gfn || e->gpa >> PAGE_SHIFT == gfn))
            n += fetch_apply(tlb_set_vcpu(mmu, set), set, mode, j, action);
    }
    return n;
}

unsigned tlb_page_apply(struct mmu *mmu, gva_t gva, gfn_t gfn, enum tlb_action action)
{
    unsigned n = 0;
    for_each_set(mmu, set) n += set_page_apply(mmu, set, gva & ~PAGE_MASK, gfn, false, action);
    return action == TLB_DROP ? count_drops(mmu, n) : n;
}

void tlb_vcpu_drop_page(struct mmu_vcpu *mv, gva_t gva)
{
    struct tlb_set *sets = &mv->mmu->sets[mv->index * TLB_ALL_SETS];
    for (unsigned i = 0; i < TLB_ALL_SETS; i++)
        count_drops(mv->mmu, set_page_apply(mv->mmu, &sets[i], gva & ~PAGE_MASK, 0, true, TLB_DROP));
}

/* ---- by dependency, leaf: a slot a table in each of the ways ---- */

static unsigned set_drop_leaf(struct mmu *mmu, struct tlb_set *set, uint64_t dep, unsigned i)
{
    unsigned n = 0;
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        if ((set->data_used[mode] >> (i / DATA_GROUP) & 1) && set->data_meta[mode][i].dep[0] == dep &&
            data_is_live(&set->data[mode][i], i))
            n += data_apply(tlb_set_vcpu(mmu, set), &set->data[mode][i], i, TLB_DROP);
    for (unsigned mode = 0; mode < 2; mode++)
        if ((set->fetch_used[mode] >> (i / FETCH_GROUP) & 1) && set->fetch_meta[mode][i].dep[0] == dep &&
            fetch_is_live(&set->fetch[mode][i], i))
            n += fetch_apply(tlb_set_vcpu(mmu, set), set, mode, i, TLB_DROP);
    return n;
}

/* ---- by anything else: a scan of the groups in use ---- */

enum scan_by { SCAN_DEP, SCAN_DEP_PAGE, SCAN_GFNS };

struct scan {
    enum scan_by by;
    uint64_t key;                       /* dep, dep page or first gfn */
    uint64_t pages;                     /* SCAN_GFNS */
    gva_t gva;                          /* SCAN_DEP: only entries of [gva, gva + span) */
    uint64_t span;                      /* 0: all */
    uint64_t data_groups, fetch_groups; /* where such entries can be */
    enum tlb_action action;
};

static struct scan scan_everywhere(enum scan_by by, uint64_t key, enum tlb_action action)
{
    return (struct scan){.by = by, .key = key, .action = action, .data_groups = ~0ull, .fetch_groups = ~0ull};
}

static inline bool scan_matches(const struct scan *s, gva_t page, gpa_t gpa, const struct tlb_meta *meta)
{
    switch (s->by) {
    case SCAN_DEP:
        return (!s->span || page - s->gva < s->span) && meta_has(meta, s->key);
    case SCAN_DEP_PAGE:
        return meta_has_page(meta, s->key);
    case SCAN_GFNS:
        return (gpa >> PAGE_SHIFT) - s->key < s->pages;
    }
    return false;
}

/* Returns the entries that it applied to; `*used` loses the groups that turned out empty. */
static unsigned data_scan(struct mmu_vcpu *mv, struct tlb_entry *t, const struct tlb_meta *meta, uint64_t *used,
                          const struct scan *s)
{
    unsigned n = 0;
    for (uint64_t left = *used & s->data_groups; left; left &= left - 1) {
        unsigned group = (unsigned)__builtin_ctzll(left);
        bool live = false;
        for (unsigned i = group * DATA_GROUP; i < (group + 1) * DATA_GROUP; i++) {
            if (!data_is_live(&t[i], i))
                continue;
            if (scan_matches(s, -t[i].ntag_r, t[i].gpa, &meta[i]))
                n += data_apply(mv, &t[i], i, s->action);
            live |= data_is_live(&t[i], i);
        }
        if (!live)
            *used &= ~(1ull << group);
    }
    return n;
}

static unsigned fetch_scan(struct mmu_vcpu *mv, struct tlb_set *set, enum tlb_mode mode, const struct scan *s)
{
    const struct tlb_fetch_entry *t = set->fetch[mode];
    const struct tlb_meta *meta = set->fetch_meta[mode];
    uint64_t *used = &set->fetch_used[mode];
    unsigned n = 0;
    for (uint64_t left = *used & s->fetch_groups; left; left &= left - 1) {
        unsigned group = (unsigned)__builtin_ctzll(left);
        bool live = false;
        for (unsigned i = group * FETCH_GROUP; i < (group + 1) * FETCH_GROUP; i++) {
            if (!fetch_is_live(&t[i], i))
                continue;
            if (scan_matches(s, -t[i].ntag, t[i].gpa, &meta[i]))
                n += fetch_apply(mv, set, mode, i, s->action);
            live |= fetch_is_live(&t[i], i);
        }
        if (!live)
            *used &= ~(1ull << group);
    }
    return n;
}

static unsigned set_scan(struct mmu *mmu, struct tlb_set *set, const struct scan *s)
{
    unsigned n = 0;
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        if (set->data_used[mode])
            n += data_scan(tlb_set_vcpu(mmu, set), set->data[mode], set->data_meta[mode], &set->data_used[mode], s);
    for (unsigned mode = 0; mode < 2; mode++)
        if (set->fetch_used[mode])
            n += fetch_scan(tlb_set_vcpu(mmu, set), set, mode, s);
    return n;
}

unsigned tlb_drop_dep_range(struct mmu *mmu, uint64_t dep, gva_t gva, uint64_t pages)
{
    unsigned n = 0;
    struct scan s = scan_everywhere(SCAN_DEP, dep, TLB_DROP);
    s.gva = gva;
    s.span = pages << PAGE_SHIFT;
    if (pages && pages <= 512) { /* one way: the hash takes the bits above 20 only */
        s.data_groups = ((1ull << 512 / DATA_GROUP) - 1) << tlb_index(gva) / 512 * (512 / DATA_GROUP);
        s.fetch_groups = ((1ull << 512 / FETCH_GROUP) - 1) << tlb_fetch_index(gva) / 512 * (512 / FETCH_GROUP);
    }
    for_each_set(mmu, set) if (filter_has(set, dep >> PAGE_SHIFT)) n += set_scan(mmu, set, &s);
    return count_drops(mmu, n);
}

unsigned tlb_drop_dep(struct mmu *mmu, uint64_t dep)
{
    return tlb_drop_dep_range(mmu, dep, 0, 0);
}

unsigned tlb_drop_leaf(struct mmu *mmu, uint64_t dep, unsigned low9, uint8_t ways)
{
    unsigned n = 0;
    for_each_set(mmu, set)
    {
        if (!filter_has(set, dep >> PAGE_SHIFT))
            continue;
        for (unsigned left = ways; left; left &= left - 1)
            n += set_drop_leaf(mmu, set, dep, (unsigned)__builtin_ctz(left) * 512 + low9);
    }
    return count_drops(mmu, n);
}

unsigned tlb_drop_dep_page(struct mmu *mmu, uint64_t dep_page)
{
    unsigned n = 0;
    struct scan s = scan_everywhere(SCAN_DEP_PAGE, dep_page, TLB_DROP);
    for_each_set(mmu, set) if (filter_has(set, dep_page)) n += set_scan(mmu, set, &s);
    return count_drops(mmu, n);
}

unsigned tlb_gfns_apply(struct mmu *mmu, gfn_t start, uint64_t pages, enum tlb_action action)
{
    unsigned n = 0;
    struct scan s = scan_everywhere(SCAN_GFNS, start, action);
    s.pages = pages;
    for_each_set(mmu, set) n += set_scan(mmu, set, &s);
    return action == TLB_DROP ? count_drops(mmu, n) : n;
}

unsigned tlb_drop_gfns(struct mmu *mmu, gfn_t start, uint64_t pages)
{
    return tlb_gfns_apply(mmu, start, pages, TLB_DROP);
}

/* ---- everything ---- */

void tlb_set_clear(struct mmu_vcpu *mv, struct tlb_set *set)
{
    mv->data_epoch++;
    for (unsigned mode = 0; mode < TLB_MODES; mode++) {
        for (; set->data_used[mode]; set->data_used[mode] &= set->data_used[mode] - 1) {
            unsigned first = (unsigned)__builtin_ctzll(set->data_used[mode]) * DATA_GROUP;
            for (unsigned i = first; i < first + DATA_GROUP; i++)
                data_clear(&set->data[mode][i], i);
        }
    }
    for (unsigned mode = 0; mode < 2; mode++) {
        for (; set->fetch_used[mode]; set->fetch_used[mode] &= set->fetch_used[mode] - 1) {
            unsigned first = (unsigned)__builtin_ctzll(set->fetch_used[mode]) * FETCH_GROUP;
            for (unsigned i = first; i < first + FETCH_GROUP; i++)
                set->fetch[mode][i].ntag = tlb_empty_tag(i);
        }
        fetch_changed(mv, set, mode);
    }
    memset(set->dep_filter, 0, sizeof(set->dep_filter));
}

void tlb_flush_all(struct mmu *mmu)
{
    for_each_set(mmu, set) tlb_set_clear(tlb_set_vcpu(mmu, set), set);
    mmu->stats.tlb_flushes++;
}

static void visit_fetch(const struct tlb_set *set, const struct tlb_set *table, enum tlb_mode mode, struct mmu_vcpu *mv,
                        tlb_visit_fn *fn, void *ctx)
{
    for (unsigned i = 0; table->fetch_used[mode] && i < TLB_FETCH_SIZE; i++)
        if (fetch_is_live(&table->fetch[mode][i], i))
            fn(ctx, mv, set, mode, NULL, &table->fetch[mode][i], &table->fetch_meta[mode][i]);
}

void tlb_for_each(struct mmu *mmu, tlb_visit_fn *fn, void *ctx)
{
    for_each_set(mmu, set)
    {
        struct mmu_vcpu *mv = tlb_set_vcpu(mmu, set);
        if (set == tlb_common_set(mv))
            continue;
        for (unsigned mode = 0; mode < TLB_MODES; mode++)
            for (unsigned i = 0; set->data_used[mode] && i < TLB_SIZE; i++)
                if (data_is_live(&set->data[mode][i], i))
                    fn(ctx, mv, set, mode, &set->data[mode][i], NULL, &set->data_meta[mode][i]);
        for (unsigned mode = 0; mode < 2; mode++)
            visit_fetch(set, mode == TLB_SUPER && set->common ? tlb_common_set(mv) : set, mode, mv, fn, ctx);
    }
}
