/* EPT tables in memory: making, linking, dropping. */
#include "core/alloc.h"
#include "mmu/ept/ept_internal.h"

#include <stdlib.h>
#include <string.h>

static uint32_t table_index(const struct ept *e, const struct ept_table *t)
{
    return (uint32_t)(t - e->tables);
}

/* A free table of zeros. May move e->tables: pointers into it are stale afterwards, those to entries are not. */
static uint32_t table_take(struct ept *e)
{
    uint32_t i = e->free_list;
    if (i) {
        e->free_list = e->tables[i].next_free;
    } else {
        if (e->count == e->capacity) {
            uint32_t more = e->capacity ? e->capacity : 256;
            e->capacity += more;
            account_add(&e->mmu->bytes.tables, more * sizeof(*e->tables));
            e->tables = alloc_resize(e->tables, e->capacity, sizeof(*e->tables));
        }
        i = e->count++;
        account_add(&e->mmu->bytes.tables, EPT_ENTRIES * sizeof(uint64_t));
        e->tables[i] = (struct ept_table){.entry = alloc_zeroed(EPT_ENTRIES, sizeof(uint64_t))};
    }
    e->stats.tables++;
    e->stats.tables_made++;
    e->mmu->stats.sp_created++;
    return i;
}

/* The table's entries are empty. */
static void table_free(struct ept *e, struct ept_table *t)
{
    trace_point(e->mmu->trace, TRACE_MMU_SP_FREE, t->gfn, t->level, e->stats.tables, 0);
    t->level = 0;
    t->parent = NULL;
    t->next_free = e->free_list;
    e->free_list = table_index(e, t);
    e->stats.tables--;
    e->mmu->stats.sp_zapped++;
}

void ept_tables_init(struct ept *e)
{
    e->count = e->capacity = e->free_list = 0;
    table_take(e); /* index 0 means none */
    e->stats.tables = e->stats.small_leaves = e->stats.large_leaves = 0;
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        uint32_t i = table_take(e);
        struct ept_table *t = &e->tables[i];
        t->as = (uint8_t)as;
        t->level = (uint8_t)e->cfg.levels;
        e->root[as] = (struct ept_root){.table = i, .eptp = eptp_make(ept_table_hpa(i), e->cfg.levels, e->cfg.ad)};
    }
}

void ept_tables_fini(struct ept *e)
{
    for (uint32_t i = 0; i < e->count; i++)
        free(e->tables[i].entry);
    account_sub(&e->mmu->bytes.tables, e->count * EPT_ENTRIES * sizeof(uint64_t) + e->capacity * sizeof(*e->tables));
    free(e->tables);
    e->tables = NULL;
    e->count = e->capacity = 0;
}

void ept_rebuild(struct ept *e)
{
    ept_tables_fini(e);
    ept_tables_init(e);
    tlb_deps_zap_all(e->mmu, e->deps);
    tlb_flush_all(e->mmu);
}

void ept_entry_set(struct ept_table *t, uint64_t *entryp, uint64_t entry)
{
    t->used = (uint16_t)(t->used + !*entryp - !entry);
    __atomic_store_n(entryp, entry, __ATOMIC_RELAXED);
}

struct ept_table *ept_table_make(struct ept *e, struct ept_table *parent, uint64_t *parent_entry, gfn_t gfn)
{
    uint32_t parent_index = table_index(e, parent);
    uint32_t i = table_take(e);
    parent = &e->tables[parent_index];
    struct ept_table *t = &e->tables[i];
    t->level = (uint8_t)(parent->level - 1);
    t->as = parent->as;
    t->gfn = gfn & ~(ept_level_pages(parent->level) - 1);
    t->parent = parent_entry;
    t->used = 0;
    ept_entry_set(parent, parent_entry, ept_make_link(ept_table_hpa(i)));
    trace_point(e->mmu->trace, TRACE_MMU_SP_NEW, t->gfn, t->level, e->stats.tables, 0);
    return t;
}

static uint64_t table_drop(struct ept *e, struct ept_table *t)
{
    uint64_t n = 0;
    for (unsigned i = 0; t->used && i < EPT_ENTRIES; i++)
        if (t->entry[i])
            n += ept_entry_drop(e, t, &t->entry[i]);
    table_free(e, t);
    return n;
}

/* The host's aging hears of the use that the leaf knew of. Without A bits there is nothing to hand on: the host entry
 * has its own from the gup that led to the leaf, and aging that takes it takes the leaf. Linux: kvm_set_pfn_accessed.
 */
static void leaf_hand_on(struct ept *e, uint64_t leaf, int level)
{
    if (e->cfg.ad && (leaf & EPT_A))
        frame_pool_mark_accessed(e->pool, ept_pfn(leaf), ept_level_pages(level));
}

uint64_t ept_entry_drop(struct ept *e, struct ept_table *t, uint64_t *entryp)
{
    uint64_t old = *entryp;
    if (!old)
        return 0;
    ept_entry_set(t, entryp, 0);
    if (ept_is_link(old, t->level)) {
        struct ept_table *child = ept_table_at(e, old & EPT_ADDRESS);
        return child && child->parent == entryp ? table_drop(e, child) : 0;
    }
    if (!ept_is_leaf(old, t->level))
        return 0;
    trace_point(e->mmu->trace, TRACE_MMU_ZAP, ept_entry_gfn(t, entryp), t->level, old, 0);
    *(t->level > 1 ? &e->stats.large_leaves : &e->stats.small_leaves) -= 1;
    e->stats.zapped++;
    e->mmu->stats.zaps++;
    ept_leaf_drop_tlb(e, t, entryp);
    leaf_hand_on(e, old, t->level);
    return 1;
}

uint64_t *ept_lookup(const struct ept *e, unsigned as, gfn_t gfn, struct ept_table **table)
{
    struct ept_table *t = ept_root_table(e, as);
    for (;;) {
        uint64_t *p = &t->entry[ept_index(gfn << PAGE_SHIFT, t->level)];
        struct ept_table *child = ept_is_link(*p, t->level) ? ept_table_at(e, *p & EPT_ADDRESS) : NULL;
        if (!child || child->level != t->level - 1) {
            *table = t;
            return p;
        }
        t = child;
    }
}
