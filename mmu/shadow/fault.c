/*
 * The fault path: what happens on a TLB miss (Linux: FNAME(page_fault), direct_page_fault, FNAME(fetch)).
 *
 *   shadow_translate()
 *     shadow_walk()         find the spte; if it is present and allows the access,
 *       use_leaf()            fill the TLB and be done; an mmio spte of the current generation answers too
 *     gwalk()               else walk the guest's tables, which sets A and D
 *                           not permitted: the page fault with its error code
 *     memslot_find()        no slot: the translation goes into an mmio spte
 *     host_mm_gup()         else get the frame, with no lock held
 *     mmu_notifier_retry()  under the lock: did the host take it back meanwhile? then once more
 *     shadow_map()          make the shadow pages of the path, then the leaf at the largest level that all allow
 *
 * The sequence is read before the guest walk: an invalidation of a frame that holds a guest table counts as well.
 */
#include "mmu/dirty.h"
#include "mmu/shadow/gpte.h"

#include <string.h>

/* Shadow pages one fault may need: a root, four levels below it, and two direct ones. */
#define FAULT_MAX_PAGES 8
/* Obsolete pages that one fault zaps. Linux: BATCH_ZAP_PAGES. */
#define FAULT_ZAP_PAGES 10

/* Does a shadow below this top role serve the address? Formats with 32-bit linear addresses have no entries for more.
 */
static bool role_covers(union sp_role top, gva_t gva)
{
    return top.level > 2 || !(gva >> 32);
}

uint64_t *shadow_walk(const struct shadow *sh, const struct shadow_root *root, gva_t gva, int *level_out)
{
    uint32_t index = root && role_covers(root->role, gva) ? root->sp[root_slot(root, gva)] : 0;
    if (!index)
        return NULL;
    for (int level = (int)root->role.level;; level--) {
        uint64_t *sptep = &sh->spts[(size_t)index * SP_ENTRIES + sp_index(gva, level)];
        *level_out = level;
        if (!spte_is_link(*sptep, level))
            return sptep;
        index = spte_child(*sptep);
    }
}

/* The rights of an spte in the form that the walker's permission check takes. */
static void rights_of(uint64_t spte, enum paging_format format, struct gwalk *w)
{
    w->result = GWALK_OK;
    w->format = format;
    w->writable = spte & SPTE_GUEST_W;
    w->user = spte & SPTE_USER;
    w->nx = spte & SPTE_NX;
    w->dirty = spte & SPTE_GUEST_D;
    w->pkey = (uint8_t)spte_pkey(spte);
}

static bool rights_allow(const struct paging_regs *r, const struct gwalk *w, unsigned access)
{
    if (r->cr0 & CR0_PG)
        return !gwalk_check(r, w, access) && (!(access & ACCESS_WRITE) || w->dirty);
    return true;
}

/* Fills the TLB from a present leaf whose rights allow the access. */
static void fill_tlb(struct mmu_vcpu *mv, gva_t gva, unsigned access, uint64_t *sptep, const struct gwalk *rights,
                     gpa_t gpa, uint8_t *host)
{
    const struct paging_regs *r = &mv->regs;
    unsigned who = access & ACCESS_IMPLICIT;
    bool fetch = access & ACCESS_FETCH;
    /* A permitted write may have left D clear: its table is in ROM. Then each write is walked for. */
    bool write = !fetch && rights_allow(r, rights, who | ACCESS_WRITE);
    struct tlb_fill f = {
        .gva = gva & ~PAGE_MASK,
        .gpa = gpa & ~PAGE_MASK,
        .host = host - (gpa & PAGE_MASK),
        .fetch = fetch,
        .read = !fetch && (!(access & ACCESS_WRITE) || rights_allow(r, rights, who | ACCESS_READ)),
        .write = write && spte_gives_write_tag(*sptep, access & ACCESS_WRITE),
        .write_emul = write && (*sptep & SPTE_EMUL) && !mv->mmu->unsync,
        .meta.dep[0] = (uintptr_t)sptep,
    };
    *sptep |= SPTE_CACHED | SPTE_ACCESSED;
    sp_of(shadow_of(mv->mmu), sptep)->tlb_ways |= tlb_way_bit(gva);
    if (unlikely(fetch && mv->set->common && r->cpl != 3 && !(gva >> 63)))
        shadow_common_leave(shadow_of(mv->mmu), mv->set->root); /* supervisors run code there: let it have its table */
    if ((access & ACCESS_WRITE) && (*sptep & SPTE_WRITABLE))
        *sptep |= SPTE_DIRTY;
    tlb_install(mv, tlb_mode_of(r, access), &f);
}

/*
 * A write to a page that is read-only for the sake of dirty logging alone: it is dirty from now on. No guest walk, no
 * gup and no retry: the frame is the one that the spte has. Linux: fast_page_fault.
 */
static void fast_page_fault(struct mmu_vcpu *mv, gfn_t gfn, uint64_t *sptep)
{
    struct shadow *sh = shadow_of(mv->mmu);
    uint64_t fixed = spte_with_writable(*sptep & ~SPTE_WP_LOG);
    if (!(fixed & SPTE_WRITABLE))
        return;
    *sptep = fixed;
    dirty_mark_gfn(mv->mem, mv->regs.as, gfn, (int)mv->index);
    sh->stats.fast_faults++;
    sp_touch(sh, sp_of(sh, sptep));
}

/* Answers from a present leaf. False: it does not allow the access, and the guest's tables must say why. */
static bool use_leaf(struct mmu_vcpu *mv, gva_t gva, unsigned access, uint64_t *sptep, int level, struct xlate *out)
{
    struct shadow *sh = shadow_of(mv->mmu);
    struct gwalk rights;
    rights_of(*sptep, paging_format_of(&mv->regs), &rights);
    if (!rights_allow(&mv->regs, &rights, access))
        return false;
    gfn_t below = (gva >> PAGE_SHIFT) & (level_pages(level) - 1);
    gfn_t gfn = spte_gfn(sh, sptep) + below;
    if (unlikely((access & ACCESS_WRITE) && (*sptep & SPTE_WP_LOG)))
        fast_page_fault(mv, gfn, sptep);
    uint64_t spte = *sptep;
    if ((access & ACCESS_WRITE) && !(spte & (SPTE_WRITABLE | SPTE_EMUL)))
        return false; /* the host's entry must be made writable first */
    uint8_t *host = (uint8_t *)frame_pool_ptr(sh->pool, spte_pfn(spte) + below) + (gva & PAGE_MASK);
    out->gpa = gfn << PAGE_SHIFT | (gva & PAGE_MASK);
    if ((access & ACCESS_WRITE) && (spte & SPTE_EMUL)) {
        out->host = NULL;
        /* Tracked no longer? Then the whole path makes it writable. */
        const struct memslot *slot = memslot_find(mv->mem, mv->regs.as, gfn);
        if (slot && slot->kind == MEMSLOT_RAM &&
            (!track_is_tracked(mv->mem, mv->regs.as, gfn) || unsync_try(sh, mv->regs.as, gfn)))
            return false;
    } else {
        out->host = host;
    }
    sp_of(sh, sptep)->write_flood = 0;
    fill_tlb(mv, gva, access, sptep, &rights, out->gpa, host);
    return true;
}

/* Linux: handle_mmio_page_fault. */
static bool use_mmio(struct mmu_vcpu *mv, gva_t gva, unsigned access, uint64_t spte, struct xlate *out)
{
    struct gwalk rights;
    if (!spte_mmio_is_current(spte, mem_generation(mv->mem)))
        return false;
    rights_of(spte, paging_format_of(&mv->regs), &rights);
    if (!rights_allow(&mv->regs, &rights, access))
        return false;
    out->gpa = spte_mmio_gfn(spte) << PAGE_SHIFT | (gva & PAGE_MASK);
    out->host = NULL;
    mv->mmu->stats.mmio_faults++;
    return true;
}

/* The first half: what the shadow already knows. */
static bool answer_from_shadow(struct mmu_vcpu *mv, gva_t gva, unsigned access, unsigned *wanted, struct xlate *out)
{
    struct shadow_root *root = mv->set->root;
    int level = 0;
    uint64_t *sptep = shadow_walk(shadow_of(mv->mmu), root, gva, &level);
    *wanted = prefetch_wanted(shadow_of(mv->mmu), sptep, level);
    if (!sptep)
        return false;
    if (spte_is_present(*sptep))
        return use_leaf(mv, gva, access, sptep, level, out);
    return spte_is_mmio(*sptep) && use_mmio(mv, gva, access, *sptep, out);
}

bool shadow_known(struct mmu_vcpu *mv, gva_t gva, unsigned access)
{
    struct xlate x;
    unsigned wanted;
    return answer_from_shadow(mv, gva, access, &wanted, &x) && x.host;
}

/* ---- the second half ---- */

/* Generations are kept in a few bits of an mmio spte: when they wrap, old ones must not come true again. */
static void check_generation_wrap(struct shadow *sh)
{
    uint64_t now = mem_generation(sh->mmu->mem);
    if (now >> SPTE_GEN_BITS != sh->mmio_generation >> SPTE_GEN_BITS)
        shadow_zap_all_fast(sh);
    sh->mmio_generation = now;
}

static void fault_from_walk(struct fault *f, union sp_role role, const struct gwalk *w)
{
    unsigned acc = ACC_ALL;
    f->gfn = w->gpa >> PAGE_SHIFT;
    if (w->format == PAGING_NONE) {
        f->leaf_level = 4;
        f->rights = spte_rights(ACC_ALL, true, 0);
        return;
    }
    f->leaf_level = w->leaf_level;
    for (int i = 0; i < w->depth; i++) {
        int level = w->at[i].level;
        f->gpte[level] = w->at[i].gpte;
        f->gpte_gpa[level] = w->at[i].gpte_gpa;
        f->table[level] = w->at[i].page;
        if (level <= (int)role.level)
            acc &= gpte_acc(role, w->at[i].gpte);
    }
    uint64_t leaf = f->gpte[f->leaf_level];
    f->rights = spte_rights(acc, leaf & GPTE_D, gpte_pkey(role, leaf));
}

/* Must the gfns of the large page be seen one by one? Linux: disallow_lpage, has_wrprotected_page: there a count for
 * each large page of a slot, here the counts of tracking, which are kept by level. */
static bool disallow_lpage(const struct shadow *sh, const struct fault *f, int level)
{
    return f->slot->dirty || f->slot->kind != MEMSLOT_RAM || track_any_in_large(sh->mmu->mem, f->as, f->gfn, level);
}

/* May a leaf of this level be made here? Linux: kvm_mmu_hugepage_adjust. */
static bool may_map_at(const struct shadow *sh, const struct fault *f, union sp_role role, int level)
{
    if (level == 1 || !f->slot)
        return level == 1;
    if (level > f->host_level || level > f->leaf_level || role.a20)
        return false;
    gfn_t first = f->gfn & ~(level_pages(level) - 1);
    return first >= f->slot->base && first + level_pages(level) <= f->slot->base + f->slot->pages &&
           (((memslot_hva(f->slot, first) >> PAGE_SHIFT) & (level_pages(level) - 1)) == 0) &&
           !disallow_lpage(sh, f, level);
}

/* The page that the spte of `sp` for this fault must link to. */
static struct sp *fault_child(struct shadow *sh, const struct fault *f, const struct sp *sp, bool *created)
{
    union sp_role role = sp->role;
    int level = (int)role.level;
    role.level--;
    if (level > f->leaf_level && !role.direct) {
        role.access &= gpte_acc(sp->role, f->gpte[level]);
        role.quadrant = role.format == PAGING_32 ? (f->gva >> 21) & 1 : 0;
        return sp_get(sh, f->gpte_gpa[level - 1] >> PAGE_SHIFT, role, f->table[level - 1], created);
    }
    union sp_role direct = {.level = role.level, .direct = 1, .smm = role.smm, .a20 = role.a20};
    direct.access = spte_acc(f->rights);
    direct.dirty = !!(f->rights & SPTE_GUEST_D);
    direct.pkey = spte_pkey(f->rights);
    return sp_get(sh, f->gfn & ~(level_pages(level) - 1), direct, NULL, created);
}

/* A new shadow page of a guest table tracks it from now on; was the entry that this fault rests on written before that?
 * Linux: FNAME(gpte_changed). A and D may have been set by the rest of the walk, where a table maps itself. */
static bool table_changed(const struct fault *f, const struct sp *sp)
{
    int level = (int)sp->role.level;
    return !sp->role.direct && ((gpte_read(sp, f->gpte_gpa[level]) ^ f->gpte[level]) & ~(GPTE_A | GPTE_D));
}

/* Makes *sptep lead to the child; keeps the link that is there when it is the right one. */
static void link_child(struct shadow *sh, const struct fault *f, struct sp *sp, uint64_t *sptep, struct sp *child,
                       bool created)
{
    uint64_t link = spte_make_link(child->index);
    if (!sp->role.direct)
        *sp_gptep(sh, sptep) = f->gpte[sp->role.level];
    if (*sptep == link)
        return;
    spte_drop(sh, sptep);
    if (!sp->role.direct)
        *sp_gptep(sh, sptep) = f->gpte[sp->role.level];
    if (!created)
        unsync_sync_below(sh, child); /* no TLB can have held what this link leads to */
    *sptep = link;
    sp->used++;
    spte_list_add(&sh->descs, &child->parents, sptep);
    if (sp->root_count)
        shadow_common_linked(sh, sp, sptep);
    sp_touch(sh, sp);
    sp_touch(sh, child);
}

static uint64_t leaf_value(struct shadow *sh, const struct fault *f, int level)
{
    if (!f->slot)
        return spte_make_mmio(f->gfn, f->rights, sh->mmio_generation);
    bool emul = f->slot->kind != MEMSLOT_RAM || (level == 1 && track_is_tracked(sh->mmu->mem, f->as, f->gfn));
    uint64_t leaf = spte_make_leaf(f->pfn & ~(level_pages(level) - 1), level, f->rights, f->host_w, emul);
    uint64_t log = shadow_log_bits(f->slot, f->access & ACCESS_WRITE);
    return likely(!log) ? leaf : spte_with_writable((leaf & ~SPTE_DIRTY) | log);
}

/* Could a TLB entry made from `old` permit what `new` does not? */
static bool loses_rights(uint64_t old, uint64_t new)
{
    uint64_t gone = old & ~new &(SPTE_WRITABLE | SPTE_USER | SPTE_GUEST_W | SPTE_GUEST_D);
    return gone || (new & ~old &(SPTE_NX | SPTE_EMUL)) || ((old ^ new) & SPTE_PKEY_MASK);
}

/* Linux: rmap_recycle. */
static void map_in_rmap(struct shadow *sh, struct memslot *slot, uint64_t *sptep, int level)
{
    gfn_t gfn = spte_gfn(sh, sptep);
    struct spte_list *head = rmap_head(slot, gfn, level);
    if (unlikely(spte_list_is_long(head))) {
        shadow_head_zap(sh, head);
        sh->stats.rmap_recycles++;
    }
    rmap_add(&sh->descs, slot, gfn, level, sptep);
}

/* Linux: mmu_set_spte. An spte of the same frame only gains or loses rights. */
static void set_leaf(struct shadow *sh, const struct fault *f, struct sp *sp, uint64_t *sptep)
{
    int level = (int)sp->role.level;
    uint64_t new = leaf_value(sh, f, level), old = *sptep;
    bool same = spte_is_leaf(old, level) && spte_is_present(new) && spte_pfn(old) == spte_pfn(new);
    if (same && !(old & SPTE_WP_LOG)) /* dirty stays dirty */
        new = spte_with_writable(new & ~SPTE_WP_LOG);
    if (same && loses_rights(old, new))
        spte_drop_cached(sh, sptep);
    if (same)
        new |= *sptep &(SPTE_CACHED | SPTE_DIRTY);
    else
        spte_drop(sh, sptep);
    if (!sp->role.direct)
        *sp_gptep(sh, sptep) = f->gpte[level];
    sp->used += !*sptep;
    *sptep = new;
    sp->write_flood = 0;
    sp_touch(sh, sp);
    if (!same && f->slot)
        map_in_rmap(sh, f->slot, sptep, level);
    sh->mmu->stats.large_fills += level > 1;
    sh->mmu->stats.gigantic_fills += level > 2;
    trace_point(sh->mmu->trace, TRACE_MMU_FILL, f->gva, f->gfn << PAGE_SHIFT, new, (uint64_t)level);
}

/* Linux: FNAME(fetch). The leaf's spte, or NULL when a guest table changed under the fault. A free page for each level
 * exists. */
static uint64_t *shadow_map(struct shadow *sh, struct shadow_root *root, const struct fault *f)
{
    struct sp *sp = shadow_root_top(sh, root, f);
    if (!sp || table_changed(f, sp))
        return NULL;
    for (;;) {
        int level = (int)sp->role.level;
        uint64_t *sptep = &sp_table(sh, sp)[sp_index(f->gva, level)];
        bool created;
        if (may_map_at(sh, f, sp->role, level)) {
            set_leaf(sh, f, sp, sptep);
            return sptep;
        }
        struct sp *child = fault_child(sh, f, sp, &created);
        link_child(sh, f, sp, sptep, child, created);
        if (created && table_changed(f, child))
            return NULL;
        sp = child;
    }
}

/* All that mapping needs to have in hand, so that it cannot fail halfway. Linux: mmu_topup_memory_caches. */
static bool prepare(struct shadow *sh, const struct fault *f)
{
    shadow_zap_obsolete(sh, FAULT_ZAP_PAGES);
    shadow_make_room(sh, FAULT_MAX_PAGES);
    if (!spte_desc_topup(&sh->descs, FAULT_MAX_PAGES + 1 + sh->common.roots))
        return false;
    for (int level = 1; f->slot && level <= f->host_level; level++)
        if (!rmap_prepare(f->slot, f->gfn, level, &sh->descs))
            return false;
    return true;
}

/* Maps what the fault found and fills the TLB. False: something changed, walk again. MMU lock held, retry check done.
 */
static bool map_and_fill(struct mmu_vcpu *mv, struct fault *f, const struct gwalk *w, struct xlate *out)
{
    struct shadow *sh = shadow_of(mv->mmu);
    check_generation_wrap(sh);
    if (!prepare(sh, f))
        return true;
    shadow_batch_begin(sh);
    uint64_t *sptep = shadow_map(sh, mv->set->root, f);
    shadow_batch_end(sh);
    if (!sptep)
        return false;
    if (!f->slot)
        return true;
    prefetch_map(sh, f, sptep);
    uint8_t *host = (uint8_t *)frame_pool_ptr(sh->pool, f->pfn) + (out->gpa & PAGE_MASK);
    struct gwalk rights;
    rights_of(*sptep, w->format, &rights);
    if (f->access & ACCESS_WRITE) {
        if (unlikely(f->slot->dirty && f->slot->dirty->form == DIRTY_WRITE_PROTECT))
            dirty_mark(mv->mem, f->slot, f->gfn, (int)mv->index);
        if (!(*sptep & (SPTE_WRITABLE | SPTE_EMUL)))
            return f->rights & SPTE_GUEST_D ? false : true;
        out->host = (*sptep & SPTE_WRITABLE) ? host : NULL;
    } else {
        out->host = host;
    }
    fill_tlb(mv, f->gva, f->access, sptep, &rights, out->gpa, host);
    return true;
}

static bool unsync_for_write(struct mmu_vcpu *mv, const struct fault *f)
{
    if (likely(!mv->mmu->unsync))
        return false;
    mmu_lock(mv->mmu);
    bool done = unsync_try(shadow_of(mv->mmu), f->as, f->gfn);
    mmu_unlock(mv->mmu);
    return done;
}

/* SDM volume 3, 4.10.4.1: a page fault invalidates what is cached for its address. */
static void fault_invalidates(struct mmu_vcpu *mv, gva_t gva)
{
    if (likely(!mv->mmu->unsync))
        return;
    mmu_lock(mv->mmu);
    unsync_sync_gva(mv, gva);
    mmu_unlock(mv->mmu);
}

/* The frame behind the fault's gfn. A page whose writes must be seen is only read here: mem_access() writes it. False:
 * the host has none to give; the access then goes to mem_access(), which says so. */
static bool get_frame(struct mmu_vcpu *mv, struct fault *f)
{
    struct gup_result g;
    bool write = (f->access & ACCESS_WRITE) && f->slot->kind == MEMSLOT_RAM &&
                 (!track_is_tracked(mv->mem, f->as, f->gfn) || unsync_for_write(mv, f));
    if (host_mm_gup(mv->mmu->mm, memslot_hva(f->slot, f->gfn), write, &g))
        return false;
    f->pfn = g.pfn;
    f->host_w = g.writable;
    f->host_level = g.level;
    return true;
}

/*
 * The walker's own updates of A and D reach no listener. They change nothing that is shadowed, since A and D are at the
 * same place in every format and setting them adds rights only; except where one page serves as tables of 4-byte and of
 * 8-byte entries at once. Then what shadows it in the other size goes.
 */
static void drop_other_size(struct shadow *sh, unsigned as, unsigned size, const struct gwalk *w)
{
    for (int i = 0; i < w->depth; i++) {
        if (w->at[i].gpte_gpa == ~0ull)
            continue;
        sp_for_each_of_gfn(sh, w->at[i].gpte_gpa >> PAGE_SHIFT, sp)
        {
            if (!sp->role.direct && role_as(sp->role) == as && gpte_size(sp->role) != size)
                sp_zap(sh, sp);
        }
    }
}

static void walker_wrote(struct mmu_vcpu *mv, const struct gwalk *w)
{
    struct shadow *sh = shadow_of(mv->mmu);
    unsigned size = w->format == PAGING_32 ? 4 : 8;
    if (likely(!(size == 4 ? sh->indirect_of_8 : sh->indirect_of_4)) || w->format == PAGING_NONE)
        return;
    mmu_lock(mv->mmu);
    drop_other_size(sh, mv->regs.as, size, w);
    mmu_unlock(mv->mmu);
}

/*
 * Did the host take back, since `seq` was read, the frame of the page or one of those that hold the tables of the walk?
 * If not, none of them can go before the MMU lock is free again: what changes a frame waits for our callback first. So
 * under the lock the tables are read where the walk found them.
 */
static bool fault_is_overtaken(const struct mmu *mmu, uint64_t seq, const struct fault *f)
{
    if (f->slot && mmu_notifier_retry(mmu, seq, memslot_hva(f->slot, f->gfn)))
        return true;
    for (size_t level = 1; level < ARRAY_LEN(f->table); level++) {
        gfn_t gfn = f->gpte_gpa[level] >> PAGE_SHIFT;
        const struct memslot *slot = f->table[level] ? memslot_find(mmu->mem, f->as, gfn) : NULL;
        if (f->table[level] && (!slot || mmu_notifier_retry(mmu, seq, memslot_hva(slot, gfn))))
            return true;
    }
    return false;
}

enum step { STEP_DONE, STEP_FAULT, STEP_AGAIN };

static void fault_step(const struct shadow *sh)
{
    if (unlikely(sh->step_hook != NULL))
        sh->step_hook(sh->step_ctx);
}

static enum step fault_once(struct mmu_vcpu *mv, gva_t gva, unsigned access, unsigned wanted, struct xlate *out)
{
    struct mmu *mmu = mv->mmu;
    struct fault f = {.gva = gva, .access = access, .as = mv->regs.as};
    struct gwalk w;
    uint64_t seq = __atomic_load_n(&mmu->invalidate_seq, __ATOMIC_ACQUIRE);
    mmu->stats.guest_walks++;
    fault_step(shadow_of(mmu));
    gwalk(mv->mem, &mv->regs, gva, access, &w);
    walker_wrote(mv, &w);
    if (w.result != GWALK_OK) {
        out->error = w.error;
        stale_note_fault(mv, gva, &w, access);
        fault_invalidates(mv, gva);
        return STEP_FAULT;
    }
    out->gpa = w.gpa;
    out->host = NULL;
    stale_note_fill(mv, gva, &w, access);
    /* Not from the root itself, which another thread that drops everything may take away until we have the lock. */
    union sp_role role = set_role(mmu, mv->set);
    if (!role_covers(role, gva))
        return STEP_DONE;
    fault_step(shadow_of(mmu));
    fault_from_walk(&f, role, &w);
    f.slot = memslot_find(mv->mem, f.as, f.gfn);
    if (f.slot && !get_frame(mv, &f))
        return STEP_DONE;
    if (f.slot)
        prefetch_find(mmu, &f, role, wanted);
    fault_step(shadow_of(mmu));
    mmu_lock(mmu);
    if (unlikely(mmu->released || !mv->set->root)) {
        mmu_unlock(mmu);
        return STEP_DONE;
    }
    bool again = fault_is_overtaken(mmu, seq, &f) || !map_and_fill(mv, &f, &w, out);
    mmu_unlock(mmu);
    fault_step(shadow_of(mmu));
    return again ? STEP_AGAIN : STEP_DONE;
}

enum xlate_result shadow_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    struct mmu *mmu = mv->mmu;
    unsigned wanted = 0; /* neighbours that have no spte */
    enum step step;
    /* The missing-flush detector compares each fill with the guest's tables: it needs the walk. */
    if (likely(!mmu->stale)) {
        mmu_lock(mmu);
        bool done = answer_from_shadow(mv, gva, access, &wanted, out);
        mmu_unlock(mmu);
        if (done)
            return XLATE_OK;
    }
    mmu->stats.shadow_faults++;
    while ((step = fault_once(mv, gva, access, wanted, out)) == STEP_AGAIN)
        mmu->stats.retries++;
    trace_point(mmu->trace, TRACE_MMU_FAULT, gva, access, step == STEP_FAULT ? out->error : 0,
                step == STEP_FAULT ? 0 : out->gpa);
    return step == STEP_FAULT ? XLATE_FAULT : XLATE_OK;
}
