/*
 * The hypervisor's answer to exits (Linux: handle_ept_violation, handle_ept_misconfig, handle_pml_full, and behind them
 * tdp_page_fault, __direct_map, mmu_set_spte).
 *
 *   violation()
 *     ept_violation_check()   an impossible qualification: refused
 *     memslot_find()          no slot: a marker, so that the next access is a misconfiguration at once; the access is
 * emulated what the gfn allows     a write to ROM or a restricted right: emulated host_mm_gup()           else get the
 * frame, with no lock held mmu_notifier_retry()    under the lock: did the host take it back meanwhile? then the guest
 * just tries again ept_direct_map()        step by step from the root, the leaf at the largest level that host and
 * memslot allow
 */
#include "mmu/dirty.h"
#include "mmu/ept/ept_internal.h"

/* ---- mapping ---- */

uint64_t ept_allowed_rights(const struct ept *e, unsigned as, gfn_t gfn)
{
    const struct ept_rights_chunk *c = gfn_tree_find(&e->rights[as], gfn);
    uint8_t r = c ? c->rights[gfn & (GFN_CHUNK - 1)] : 0;
    return r ? r & EPT_RWX : EPT_RWX;
}

/* Any gfn of the large page around gfn? */
static bool any_restricted(const struct ept *e, unsigned as, gfn_t gfn, int level)
{
    const struct gfn_dir *dir = gfn_tree_dir(&e->rights[as], gfn);
    const struct ept_rights_chunk *c = gfn_tree_find(&e->rights[as], gfn);
    return level > 2 ? dir && dir->total : c && c->restricted;
}

static bool may_map_at(const struct ept *e, const struct ept_fault *f, int level)
{
    uint64_t pages = ept_level_pages(level);
    gfn_t first = f->gfn & ~(pages - 1);
    bool inside = first >= f->slot->base && first + pages <= f->slot->base + f->slot->pages;
    bool aligned = ((memslot_hva(f->slot, first) >> PAGE_SHIFT) & (pages - 1)) == 0;
    return inside && aligned && ((f->pfn ^ f->gfn) & (pages - 1)) == 0 && !any_restricted(e, f->as, f->gfn, level);
}

/* Linux: mapping_level. */
static int mapping_level(const struct ept *e, const struct ept_fault *f)
{
    int level = f->host_level;
    if (e->logging || f->slot->dirty || f->slot->kind != MEMSLOT_RAM)
        return 1;
    while (level > 1 && !may_map_at(e, f, level))
        level--;
    return level;
}

/* Linux: set_spte, make_spte. */
static uint64_t leaf_entry(const struct ept *e, const struct ept_fault *f, int level)
{
    bool clean = ept_logs_by_protection(e, f->slot) && !dirty_is_marked(f->slot, f->gfn);
    bool host_w = f->writable && f->slot->kind != MEMSLOT_ROM && !clean;
    uint64_t rights = (EPT_R | EPT_X | (host_w ? EPT_W : 0)) & ept_allowed_rights(e, f->as, f->gfn);
    return ept_make_leaf(f->pfn & ~(ept_level_pages(level) - 1), level, rights, host_w);
}

/* Linux: mmu_set_spte. A leaf of the same frame only gains or loses rights; a table gives way to a large leaf. */
static void set_leaf(struct ept *e, const struct ept_fault *f, struct ept_table *t, uint64_t *entryp)
{
    int level = t->level;
    uint64_t old = *entryp, new = leaf_entry(e, f, level);
    bool same = ept_is_leaf(old, level) && ept_pfn(old) == ept_pfn(new);
    if (same) {
        new |= old &(EPT_A | EPT_D);
        if (old & ~new &EPT_RWX)
            ept_leaf_drop_tlb(e, t, entryp);
    } else {
        e->stats.collapses += ept_is_link(old, level);
        ept_entry_drop(e, t, entryp);
        *(level > 1 ? &e->stats.large_leaves : &e->stats.small_leaves) += 1;
        e->mmu->stats.large_fills += level > 1;
        e->mmu->stats.gigantic_fills += level > 2;
    }
    ept_entry_set(t, entryp, new);
    trace_point(e->mmu->trace, TRACE_MMU_FILL, 0, f->gfn << PAGE_SHIFT, new, (uint64_t)level);
}

/* The table below an entry; a large leaf (or a marker) gives way to it. */
static struct ept_table *child_table(struct ept *e, struct ept_table *t, uint64_t *entryp, gfn_t gfn)
{
    struct ept_table *child = ept_is_link(*entryp, t->level) ? ept_table_at(e, *entryp & EPT_ADDRESS) : NULL;
    if (child)
        return child;
    e->stats.splits += ept_is_leaf(*entryp, t->level);
    ept_entry_drop(e, t, entryp);
    return ept_table_make(e, t, entryp, gfn);
}

static struct ept_table *descend(struct ept *e, unsigned as, gfn_t gfn, int level, uint64_t **entryp)
{
    struct ept_table *t = ept_root_table(e, as);
    for (;;) {
        *entryp = &t->entry[ept_index(gfn << PAGE_SHIFT, t->level)];
        if (t->level == level)
            return t;
        t = child_table(e, t, *entryp, gfn);
    }
}

/* Everything can be made again: at the limit it is. */
static void make_room(struct ept *e)
{
    if (e->stats.tables + EPT_MAX_LEVELS <= e->limit)
        return;
    e->stats.recycled++;
    ept_zap_all(e->mmu);
}

void ept_direct_map(struct ept *e, const struct ept_fault *f)
{
    uint64_t *entryp;
    make_room(e);
    struct ept_table *t = descend(e, f->as, f->gfn, mapping_level(e, f), &entryp);
    set_leaf(e, f, t, entryp);
}

/* Generations are kept in a few bits of a marker: when they wrap, old ones must not come true again. */
static void check_generation_wrap(struct ept *e)
{
    uint64_t now = mem_generation(e->mmu->mem);
    if (now >> EPT_GEN_BITS != e->mmio_generation >> EPT_GEN_BITS)
        ept_zap_all(e->mmu);
    e->mmio_generation = now;
}

/* Linux: mark_mmio_spte. */
static void map_marker(struct ept *e, unsigned as, gfn_t gfn)
{
    uint64_t *entryp;
    mmu_lock(e->mmu);
    check_generation_wrap(e);
    make_room(e);
    struct ept_table *t = descend(e, as, gfn, 1, &entryp);
    ept_entry_drop(e, t, entryp);
    ept_entry_set(t, entryp, ept_make_marker(e->mmio_generation));
    mmu_unlock(e->mmu);
}

/* ---- violations ---- */

const char *ept_violation_check(uint32_t q)
{
    if (!(q & (EPT_Q_READ | EPT_Q_WRITE | EPT_Q_FETCH)))
        return "no kind of access";
    if ((q & EPT_Q_FETCH) && (q & (EPT_Q_READ | EPT_Q_WRITE)))
        return "a fetch that reads or writes";
    if ((q & EPT_Q_TRANSLATION) && !(q & EPT_Q_GLA_VALID))
        return "the translation of a linear address that is not valid";
    if ((q & (EPT_Q_USER | EPT_Q_GUEST_W | EPT_Q_GUEST_XD)) && !(q & EPT_Q_TRANSLATION))
        return "rights of a linear address without its translation";
    uint32_t got = q >> 3 & 7, wanted = q & 7;
    if ((got & 3) == 2)
        return "entries writable but not readable";
    if (!(wanted & ~got))
        return "entries that permit the access";
    return NULL;
}

/* The frame behind the fault's gfn. Without the lock. False: the host has none to give; mem_access() will say so. */
static bool get_frame(struct ept *e, struct ept_fault *f, bool write)
{
    struct gup_result g;
    hva_t hva = memslot_hva(f->slot, f->gfn);
    if (host_mm_gup(e->mmu->mm, hva, write, &g)) {
        e->stats.bad_pages++;
        return false;
    }
    f->pfn = g.pfn;
    f->host_level = g.level;
    /* Who writes later must not leave the host's entry clean. */
    f->writable = g.writable && (write || host_mm_peek(e->mmu->mm, hva).dirty);
    return true;
}

/* Linux: tdp_page_fault. */
static enum ept_answer page_fault(struct mmu_vcpu *mv, const struct ept_exit *x)
{
    struct mmu *mmu = mv->mmu;
    struct ept *e = ept_of(mmu);
    struct ept_fault f = {.as = x->as, .gfn = x->gpa >> PAGE_SHIFT};
    uint64_t seq = __atomic_load_n(&mmu->invalidate_seq, __ATOMIC_ACQUIRE);
    uint64_t wanted = x->qualification & EPT_RWX; /* the same three bits */
    f.slot = memslot_find(mmu->mem, f.as, f.gfn);
    if (!f.slot) {
        map_marker(e, f.as, f.gfn);
        e->stats.mmio_exits++;
        mmu->stats.mmio_faults++;
        return EPT_EMULATE;
    }
    bool write = wanted & EPT_W;
    if (write && f.slot->kind == MEMSLOT_ROM)
        return EPT_EMULATE;
    if (f.slot->kind == MEMSLOT_DEVICE && !(e->apic.set && e->apic.as == f.as && e->apic.gfn == f.gfn))
        return EPT_EMULATE; /* only the APIC access page has a leaf */
    if (wanted & ~ept_allowed_rights(e, f.as, f.gfn))
        return EPT_EMULATE;
    if (!get_frame(e, &f, write))
        return EPT_EMULATE;
    mmu_lock(mmu);
    if (mmu_notifier_retry(mmu, seq, memslot_hva(f.slot, f.gfn))) {
        mmu->stats.retries++;
        e->stats.retries++;
    } else {
        if (write && ept_logs_by_protection(e, f.slot))
            dirty_mark(mmu->mem, f.slot, f.gfn, (int)mv->index);
        ept_direct_map(e, &f);
    }
    mmu_unlock(mmu);
    return EPT_RESUME;
}

static enum ept_answer refuse(struct ept *e, const struct ept_exit *x, const char *why)
{
    e->stats.refused++;
    log_error("EPT violation at gpa 0x%llx, qualification 0x%x: %s", (unsigned long long)x->gpa, x->qualification, why);
    return EPT_REFUSED;
}

static enum ept_answer violation(struct mmu_vcpu *mv, const struct ept_exit *x)
{
    struct ept *e = ept_of(mv->mmu);
    e->stats.violations++;
    e->stats.table_violations += (x->qualification & (EPT_Q_GLA_VALID | EPT_Q_TRANSLATION)) == EPT_Q_GLA_VALID;
    e->mmu->stats.shadow_faults++;
    const char *why = ept_violation_check(x->qualification);
    if (why)
        return refuse(e, x, why);
    if ((x->qualification & EPT_Q_GAW) || x->gpa >> PAGE_SHIFT >= GFN_LIMIT) {
        e->stats.gaw++; /* no memslot reaches there: a bus access that nobody answers */
        return EPT_EMULATE;
    }
    return page_fault(mv, x);
}

/* ---- the other exits ---- */

/* An entry that is illegal and no marker: somebody has damaged the tables. That is said, and they are made anew. */
static void report_illegal(struct ept *e, const struct ept_exit *x)
{
    struct ept_walk w;
    ept_walk(e, x->as, x->gpa, 0, NULL, true, &w);
    const struct ept_walk_level *last = &w.at[w.depth - 1];
    const char *why = last->entryp ? ept_misconfig(e, last->entry, last->level) : "read where no table is";
    log_error("EPT misconfiguration at gpa 0x%llx: level %d entry 0x%llx: %s; the tables are made anew",
              (unsigned long long)x->gpa, last->level, (unsigned long long)last->entry, why ? why : "no longer there");
    e->stats.illegal++;
    ept_rebuild(e);
}

/* Linux: handle_ept_misconfig, handle_mmio_page_fault. */
static enum ept_answer misconfig(struct ept *e, const struct ept_exit *x)
{
    enum ept_answer answer = EPT_RESUME;
    struct ept_table *t;
    e->stats.misconfigs++;
    mmu_lock(e->mmu);
    check_generation_wrap(e);
    uint64_t *entryp = ept_lookup(e, x->as, x->gpa >> PAGE_SHIFT, &t);
    if (!*entryp) { /* all was dropped just now */
        answer = EPT_RESUME;
    } else if (!ept_is_marker(*entryp)) {
        report_illegal(e, x);
    } else if (ept_marker_is_current(*entryp, mem_generation(e->mmu->mem))) {
        e->stats.mmio_exits++;
        e->mmu->stats.mmio_faults++;
        answer = EPT_EMULATE;
    } else {
        ept_entry_drop(e, t, entryp); /* memslots have changed: find out anew */
    }
    mmu_unlock(e->mmu);
    return answer;
}

enum ept_answer ept_handle_exit(struct mmu_vcpu *mv, const struct ept_exit *x)
{
    struct ept *e = ept_of(mv->mmu);
    switch (x->reason) {
    case EPT_EXIT_VIOLATION:
        return violation(mv, x);
    case EPT_EXIT_MISCONFIG:
        return misconfig(e, x);
    case EPT_EXIT_PML_FULL:
        e->stats.pml_full++;
        ept_pml_drain(mv);
        return EPT_RESUME;
    case EPT_EXIT_APIC_ACCESS:
        e->stats.apic_accesses++;
        return EPT_EMULATE;
    case EPT_EXIT_NONE:
        break;
    }
    return EPT_RESUME;
}
