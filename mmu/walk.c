/*
 * `-mmu walk`: no tables are kept. Every TLB miss walks the guest's tables and the memslots; the small reference that
 * the other engines are held against. It is coherent by its soft TLB alone: see tlb_deps.h.
 */
#include "mmu/audit.h"
#include "mmu/mem.h"
#include "mmu/tlb_deps.h"

static inline struct tlb_deps *deps_of(const struct mmu *mmu)
{
    return mmu->engine;
}

/* ---- translation ---- */

/* Host pointers and tags for a data access. */
static void data_prepare(struct mmu_vcpu *mv, unsigned access, const struct gwalk *w, const struct memslot *slot,
                         struct tlb_fill *f, struct xlate *out)
{
    struct mem *m = mv->mem;
    gfn_t gfn = w->gpa >> PAGE_SHIFT;
    bool unseen =
        slot->kind == MEMSLOT_RAM && !track_is_tracked(m, slot->as, gfn); /* writes need not be told to anyone */
    bool may_write = w->dirty && !gwalk_check(&mv->regs, w, (access & ACCESS_IMPLICIT) | ACCESS_WRITE);
    void *write = NULL;
    if ((access & ACCESS_WRITE) && unseen) {
        f->host = write = mem_page_write(m, slot->as, gfn);
    } else {
        f->host = mem_page_read(m, slot->as, gfn);
        if (may_write && unseen)
            write = mem_page_write_if_cheap(m, slot->as, gfn);
    }
    f->read = true;
    f->write = may_write && write;
    f->write_emul = may_write && !unseen;
    out->host = (access & ACCESS_WRITE) ? write : f->host;
}

static void page_prepare(struct mmu_vcpu *mv, unsigned access, const struct gwalk *w, const struct memslot *slot,
                         struct tlb_fill *f, struct xlate *out)
{
    if (access & ACCESS_FETCH) {
        f->host = out->host = mem_page_read(mv->mem, slot->as, w->gpa >> PAGE_SHIFT);
        f->fetch = true;
    } else {
        data_prepare(mv, access, w, slot, f, out);
    }
    if (out->host)
        out->host = (uint8_t *)out->host + (w->gpa & PAGE_MASK);
}

/* The page may have become tracked as a table of this very walk, after its pointers were made: then writes must be
 * told. */
static bool is_own_table(const struct mmu_vcpu *mv, const struct tlb_fill *f, unsigned access, struct xlate *out)
{
    if (f->fetch || !track_is_tracked(mv->mem, mv->regs.as, f->gpa >> PAGE_SHIFT))
        return false;
    if (access & ACCESS_WRITE)
        out->host = NULL;
    return true;
}

/* A page of a logged slot: this write is noted, and the TLB gets the write tag of no page that is clean. The tag is
 * what the D bit is in other engines, so both forms of logging are one here. MMU lock held. */
static void note_logged(struct mmu_vcpu *mv, unsigned access, struct memslot *slot, struct tlb_fill *f,
                        const struct xlate *out)
{
    gfn_t gfn = f->gpa >> PAGE_SHIFT;
    if (likely(!slot->dirty))
        return;
    if ((access & ACCESS_WRITE) && out->host)
        dirty_mark(mv->mem, slot, gfn, (int)mv->index);
    f->write &= dirty_is_marked(slot, gfn);
}

enum walk_step { STEP_DONE, STEP_FAULT, STEP_AGAIN };

static enum walk_step translate_once(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    struct mmu *mmu = mv->mmu;
    struct gwalk w;
    uint64_t seq = __atomic_load_n(&mmu->invalidate_seq, __ATOMIC_ACQUIRE);
    mmu->stats.guest_walks++;
    gwalk(mv->mem, &mv->regs, gva, access, &w);
    if (w.result != GWALK_OK) {
        tlb_deps_note_fault(mv, deps_of(mmu), &w);
        stale_note_fault(mv, gva, &w, access);
        out->error = w.error;
        return STEP_FAULT;
    }
    stale_note_fill(mv, gva, &w, access);
    out->gpa = w.gpa;
    out->host = NULL;
    struct memslot *slot = memslot_find(mv->mem, mv->regs.as, w.gpa >> PAGE_SHIFT);
    if (!slot) {
        mmu->stats.mmio_faults++;
        return STEP_DONE;
    }
    struct tlb_fill f = {.gva = gva & ~PAGE_MASK, .gpa = w.gpa & ~PAGE_MASK};
    page_prepare(mv, access, &w, slot, &f, out);
    if (!f.host)
        return STEP_DONE;
    mmu_lock(mmu);
    if (mmu_notifier_retry(mmu, seq, memslot_hva(slot, w.gpa >> PAGE_SHIFT))) {
        mmu_unlock(mmu);
        return STEP_AGAIN;
    }
    bool noted = tlb_deps_note_tables(mv, deps_of(mmu), &w, &f);
    if (noted && unlikely(is_own_table(mv, &f, access, out))) {
        f.write_emul |= f.write;
        f.write = false;
    }
    note_logged(mv, access, slot, &f, out);
    if (noted) {
        tlb_deps_note_fill(mmu, deps_of(mmu), mv->regs.as, &f);
        tlb_install(mv, tlb_mode_of(&mv->regs, access), &f);
        trace_point(mmu->trace, TRACE_MMU_FILL, gva, w.gpa, 0, w.leaf_level);
    }
    mmu_unlock(mmu);
    return STEP_DONE;
}

static enum xlate_result walk_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    enum walk_step step;
    while ((step = translate_once(mv, gva, access, out)) == STEP_AGAIN)
        mv->mmu->stats.retries++;
    trace_point(mv->mmu->trace, TRACE_MMU_FAULT, gva, access, step == STEP_FAULT ? out->error : 0,
                step == STEP_FAULT ? 0 : out->gpa);
    return step == STEP_FAULT ? XLATE_FAULT : XLATE_OK;
}

/* ---- the rest is the TLB's ---- */

static void walk_protect_gfn(struct mmu *mmu, unsigned as, gfn_t gfn)
{
    tlb_deps_protect_gfn(mmu, deps_of(mmu), as, gfn);
}

static void walk_pt_write(struct mmu *mmu, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    tlb_deps_pt_write(mmu, deps_of(mmu), as, gpa, len);
}

static bool walk_zap_gfns(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages)
{
    bool dropped = tlb_deps_zap_gfns(mmu, deps_of(mmu), as, start, pages);
    mmu->stats.zaps += dropped;
    return dropped;
}

/* A page that is clean again has no write tag. */
static void walk_dirty_log(struct mmu *mmu, struct memslot *slot, gfn_t start, uint64_t pages, enum dirty_op op)
{
    if (op == DIRTY_OP_START || op == DIRTY_OP_CLEAN)
        tlb_deps_drop_gfns(mmu, deps_of(mmu), slot->as, start, pages);
}

static void walk_zap_all(struct mmu *mmu)
{
    tlb_deps_zap_all(mmu, deps_of(mmu));
}

static int walk_init(struct mmu *mmu)
{
    mmu->engine = tlb_deps_create(&mmu->bytes.deps);
    return 0;
}

static void walk_fini(struct mmu *mmu)
{
    tlb_deps_destroy(mmu, deps_of(mmu));
    mmu->engine = NULL;
}

/* This engine has nothing to hold for a root: a walk starts at the registers. */
static void walk_root_get(struct mmu_vcpu *mv, struct tlb_set *set)
{
    set->root = NULL;
}

static void walk_root_put(struct mmu_vcpu *mv, struct tlb_set *set)
{
    set->root = NULL;
}

static unsigned walk_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx)
{
    struct audit a = {.mmu = mmu, .report = report, .ctx = ctx};
    audit_tlb(&a, full);
    if (full)
        tlb_deps_audit(&a, deps_of(mmu));
    return a.violations;
}

const struct mmu_ops mmu_walk_ops = {
    .name = "walk",
    .init = walk_init,
    .fini = walk_fini,
    .root_get = walk_root_get,
    .root_put = walk_root_put,
    .translate = walk_translate,
    .protect_gfn = walk_protect_gfn,
    .pt_write = walk_pt_write,
    .zap_gfns = walk_zap_gfns,
    .zap_all = walk_zap_all,
    .dirty_log = walk_dirty_log,
    .audit = walk_audit,
};
