/*
 * The shadow engine's audit (Linux: mmu_audit.c): the invariants of docs/mmu.md, page by page, from the arena, never
 * from the structures that are under test. It looks only; see mmu/audit.h.
 */
#include "mmu/audit.h"
#include "mmu/dirty.h"
#include "mmu/shadow/gpte.h"

/* An spte under audit. */
struct entry {
    const struct sp *sp;
    uint64_t *sptep;
    uint64_t spte;
    unsigned i;
    int level;
};

static void fail_sp(struct audit *a, int invariant, const struct sp *sp, const char *what)
{
    audit_fail(a, invariant, "shadow page gfn 0x%llx level %d role 0x%llx: %s", (unsigned long long)sp->gfn,
               (int)sp->role.level, (unsigned long long)sp->role.word, what);
}

static void fail_entry(struct audit *a, int invariant, const struct entry *e, const char *what)
{
    audit_fail(a, invariant, "shadow page gfn 0x%llx level %d entry %u, spte 0x%llx: %s",
               (unsigned long long)e->sp->gfn, e->level, e->i, (unsigned long long)e->spte, what);
}

/* ---- invariants 1, 2, 4: a leaf against rmap, host and tracking ---- */

static void check_rmap(struct audit *a, const struct entry *e, const struct memslot *slot, gfn_t gfn)
{
    struct spte_list *head = rmap_head(slot, gfn, e->level);
    size_t n = head ? spte_list_occurrences(head, e->sptep) : 0;
    if (n != 1)
        fail_entry(a, 1, e, n ? "has several rmap entries" : "has no rmap entry");
}

static void check_frame(struct audit *a, const struct entry *e, const struct memslot *slot, gfn_t gfn)
{
    struct hpte_info h = host_mm_peek(a->mmu->mm, memslot_hva(slot, gfn));
    if (h.state != HPTE_PRESENT && h.state != HPTE_ZERO)
        fail_entry(a, 2, e, "the host holds no frame for its gfn");
    else if (h.pfn != spte_pfn(e->spte))
        fail_entry(a, 2, e, "the host holds another frame for its gfn");
    if (h.level < e->level)
        fail_entry(a, 2, e, "larger than the host's mapping");
    if (!(e->spte & SPTE_WRITABLE))
        return;
    if (h.state != HPTE_PRESENT || !h.writable)
        fail_entry(a, 3, e, "writable, but the host entry is not");
    if (slot->kind != MEMSLOT_RAM)
        fail_entry(a, 3, e, "writable, but the memslot is ROM");
    if (slot->dirty && slot->dirty->form == DIRTY_WRITE_PROTECT && !dirty_is_marked(slot, gfn))
        fail_entry(a, 3, e, "writable, but its page is logged and clean");
}

static void check_tracking(struct audit *a, const struct entry *e, gfn_t gfn)
{
    unsigned as = role_as(e->sp->role);
    if (!(e->spte & SPTE_WRITABLE))
        return;
    if (e->level == 1 ? track_is_tracked(a->mmu->mem, as, gfn) : track_any_in_large(a->mmu->mem, as, gfn, e->level))
        fail_entry(a, 4, e, "writable, but its gfn is tracked");
}

static void check_backing(struct audit *a, const struct entry *e, gfn_t gfn)
{
    const struct memslot *slot = memslot_find(a->mmu->mem, role_as(e->sp->role), gfn);
    if (!slot) {
        fail_entry(a, 2, e, "its gfn has no memslot");
        return;
    }
    if (slot->dirty && (e->level > 1 || !(e->spte & SPTE_D_LOG) != (slot->dirty->form != DIRTY_BIT)))
        fail_entry(a, 3, e, "not of the form of its slot's dirty log");
    if (!slot->dirty && (e->spte & (SPTE_WP_LOG | SPTE_D_LOG)))
        fail_entry(a, 3, e, "its slot is not logged any more");
    if ((e->spte & (SPTE_CACHED | SPTE_ACCESSED)) == SPTE_CACHED)
        fail_entry(a, 7, e, "cached, but not accessed");
    check_rmap(a, e, slot, gfn);
    check_frame(a, e, slot, gfn);
    check_tracking(a, e, gfn);
    if (spte_with_writable(e->spte) != e->spte && (e->spte & SPTE_WRITABLE))
        fail_entry(a, 3, e, "writable without dirty guest entry, writable host entry and free gfn");
}

/* ---- invariants 3, 5, 6: an spte against the guest's entry ---- */

/* By its own way to the guest's memory. False: not there to be read. */
static bool gpte_peek(struct mem *m, union sp_role role, gpa_t gpa, uint64_t *out)
{
    *out = 0;
    return mem_access(m, role_as(role), gpa, out, gpte_size(role), MEM_PEEK, false, -1) == MEM_OK;
}

static bool exceeds(uint64_t rights, uint64_t allowed)
{
    return (rights & ~allowed & (SPTE_GUEST_W | SPTE_USER)) || (allowed & ~rights & SPTE_NX);
}

static void check_rights(struct audit *a, const struct entry *e, uint64_t rights, uint64_t allowed)
{
    if (exceeds(rights, allowed) || ((rights ^ allowed) & SPTE_PKEY_MASK))
        fail_entry(a, 3, e, "permits more than the guest's entries");
    else if ((rights ^ allowed) & (SPTE_GUEST_W | SPTE_USER | SPTE_NX))
        fail_entry(a, 5, e, "permits less than the guest's entries");
    if (rights & ~allowed & SPTE_GUEST_D)
        fail_entry(a, 6, e, "relies on a D bit that is clear");
}

/* The child that a link must have: everything but a direct child's D is given. */
static void check_link(struct audit *a, const struct entry *e, gfn_t gfn, union sp_role expected)
{
    const struct shadow *sh = shadow_of(a->mmu);
    const struct sp *child = &sh->pages[spte_child(e->spte)];
    union sp_role got = child->role;
    if (!child->live) {
        fail_entry(a, 8, e, "links to a page that is free");
        return;
    }
    if (got.access & ~expected.access)
        fail_entry(a, 3, e, "links to a page with more rights than the guest's entries");
    if (got.dirty && !expected.dirty)
        fail_entry(a, 6, e, "links to a page that relies on a D bit that is clear");
    got.dirty = expected.dirty;
    if (child->gfn != gfn || got.word != expected.word)
        fail_entry(a, 5, e, "links to another page than the guest's entry says");
    if (spte_list_occurrences(&child->parents, e->sptep) != 1)
        fail_entry(a, 8, e, "is not once in its child's parents list");
}

static void check_mmio(struct audit *a, const struct entry *e, gfn_t gfn)
{
    const struct mem *m = a->mmu->mem;
    if (!spte_mmio_is_current(e->spte, mem_generation(m)))
        return;
    if (spte_mmio_gfn(e->spte) != gfn)
        fail_entry(a, 5, e, "mmio of another gfn than the guest's entry says");
    if (memslot_find(m, role_as(e->sp->role), gfn))
        fail_entry(a, 2, e, "mmio, but its gfn has a memslot");
}

static union sp_role direct_role(const struct sp *sp, uint64_t rights)
{
    union sp_role r = {.level = sp->role.level - 1, .direct = 1, .smm = sp->role.smm, .a20 = sp->role.a20};
    r.access = spte_acc(rights);
    r.dirty = !!(rights & SPTE_GUEST_D);
    r.pkey = spte_pkey(rights);
    return r;
}

/* An spte whose page and rights are known: gfn is that of the region it maps. */
static void check_leaf(struct audit *a, const struct entry *e, gfn_t gfn, uint64_t rights)
{
    if (spte_is_link(e->spte, e->level)) {
        check_link(a, e, gfn, direct_role(e->sp, rights));
        return;
    }
    check_rights(a, e, e->spte & SPTE_GUEST_RIGHTS, rights);
    if (!spte_is_present(e->spte))
        check_mmio(a, e, gfn);
}

static void check_direct(struct audit *a, const struct entry *e)
{
    union sp_role role = e->sp->role;
    gfn_t gfn = role_gfn(role, e->sp->gfn + e->i * level_pages(e->level));
    check_leaf(a, e, gfn, spte_rights(role.access, role.dirty, role.pkey));
    if (spte_is_leaf(e->spte, e->level))
        check_backing(a, e, gfn);
}

static void check_indirect(struct audit *a, const struct entry *e)
{
    const struct shadow *sh = shadow_of(a->mmu);
    if (e->sp->unsync) { /* as old as the last flush; the rest of an spte is held as ever */
        if (spte_is_leaf(e->spte, e->level))
            check_backing(a, e, spte_gfn(sh, e->sptep));
        return;
    }
    union sp_role role = e->sp->role;
    gpa_t at = sp_gpte_gpa(e->sp, e->i);
    uint64_t now, then = *sp_gptep(sh, e->sptep);
    if (!gpte_peek(a->mmu->mem, role, at, &now))
        return; /* not resident: nothing can be said */
    if (!(now & GPTE_P)) {
        fail_entry(a, 5, e, "the guest's entry is not present");
        return;
    }
    if ((now ^ then) & gpte_significant(role, gpte_is_leaf(role, now)) & ~(GPTE_A | GPTE_D))
        fail_entry(a, 5, e, "the guest's entry has changed");
    if (!audit_accessed(a->mmu->mem, role_as(role), at, now))
        fail_entry(a, 6, e, "relies on an A bit that is clear");
    gfn_t gfn = gpte_gfn(role, now, e->i);
    if (gpte_is_leaf(role, now)) {
        check_leaf(a, e, gfn, gpte_leaf_rights(role, now));
    } else if (spte_is_link(e->spte, e->level)) {
        union sp_role child = role;
        child.level--;
        child.access &= gpte_acc(role, now);
        child.quadrant = role.format == PAGING_32 ? e->i & 1 : 0;
        check_link(a, e, gfn, child);
    } else {
        fail_entry(a, 5, e, "a leaf where the guest's entry names a table");
    }
    if (spte_is_leaf(e->spte, e->level))
        check_backing(a, e, spte_gfn(sh, e->sptep));
}

/* ---- invariant 8: a page's place in the structures ---- */

static void check_parents(struct audit *a, const struct sp *sp)
{
    const struct shadow *sh = shadow_of(a->mmu);
    struct spte_iter it;
    spte_list_for_each(&sp->parents, &it, p)
    {
        const struct sp *parent = sp_of(sh, p);
        if (parent->live && sp_is_obsolete(sh, sp) && !sp_is_obsolete(sh, parent))
            fail_sp(a, 8, sp, "is obsolete, but a current page links to it");
        if (!parent->live || !spte_is_link(*p, (int)parent->role.level) || spte_child(*p) != sp->index)
            fail_sp(a, 8, sp, "a parent in its list does not link to it");
    }
}

static void check_hashed(struct audit *a, const struct sp *sp)
{
    const struct shadow *sh = shadow_of(a->mmu);
    unsigned n = 0;
    sp_for_each_of_gfn(sh, sp->gfn, other)
    {
        n += other == sp;
        if (other != sp && other->role.word == sp->role.word && other->generation == sp->generation)
            fail_sp(a, 8, sp, "another page has the same gfn and role");
    }
    if (n != 1)
        fail_sp(a, 8, sp, "is not once in its hash chain");
}

static void check_counts(struct audit *a, const struct sp *sp)
{
    const struct shadow *sh = shadow_of(a->mmu);
    const uint64_t *spt = sp_table(sh, sp);
    unsigned used = 0, roots = 0, of_gfn = 0;
    for (unsigned i = 0; i < SP_ENTRIES; i++)
        used += spt[i] != 0;
    if (used != sp->used)
        fail_sp(a, 8, sp, "its count of used entries is wrong");
    for (const struct shadow_root *r = sh->roots; r; r = r->next) {
        for (unsigned i = 0; i < r->tops; i++)
            roots += r->sp[i] == sp->index;
    }
    if (roots != sp->root_count)
        fail_sp(a, 8, sp, "its count of roots is wrong");
    if (roots && sp_is_obsolete(sh, sp))
        fail_sp(a, 8, sp, "is obsolete, but a root names it");
    if (sp->role.direct)
        return;
    if (sp->unsync && (!a->mmu->unsync || sp->role.level > 1))
        fail_sp(a, 8, sp, "is unsync, which it may not be");
    sp_for_each_of_gfn(sh, sp->gfn, other) of_gfn +=
        !other->role.direct && !other->unsync && role_as(other->role) == role_as(sp->role);
    if (track_count(a->mmu->mem, role_as(sp->role), sp->gfn, TRACK_PT) != of_gfn)
        fail_sp(a, 8, sp, "the tracking count of its gfn is not the number of its shadow pages");
}

/* Invariant 2 for the tables themselves. */
static void check_table_frame(struct audit *a, const struct sp *sp)
{
    const struct memslot *slot = memslot_find(a->mmu->mem, role_as(sp->role), sp->gfn);
    if (sp->role.direct || !slot)
        return;
    struct hpte_info h = host_mm_peek(a->mmu->mm, memslot_hva(slot, sp->gfn));
    bool present = h.state == HPTE_PRESENT || h.state == HPTE_ZERO;
    if (!present || frame_pool_ptr(shadow_of(a->mmu)->pool, h.pfn) != (const void *)sp->table)
        fail_sp(a, 2, sp, "the host holds another frame, or none, for the table that it shadows");
}

static void check_sp(struct audit *a, const struct sp *sp)
{
    uint64_t *spt = sp_table(shadow_of(a->mmu), sp);
    for (unsigned i = 0; i < SP_ENTRIES; i++) {
        struct entry e = {.sp = sp, .sptep = &spt[i], .spte = spt[i], .i = i, .level = (int)sp->role.level};
        if (!e.spte)
            continue;
        if (sp->role.direct)
            check_direct(a, &e);
        else
            check_indirect(a, &e);
    }
    check_table_frame(a, sp);
    check_parents(a, sp);
    check_hashed(a, sp);
    check_counts(a, sp);
}

/* ---- what only the full audit looks at ---- */

static void check_rmap_entry(struct audit *a, const struct memslot *slot, int level, gfn_t gfn, const uint64_t *p)
{
    const struct shadow *sh = shadow_of(a->mmu);
    const struct sp *sp = sp_of(sh, p);
    const char *what = NULL;
    if (!sp->live || !spte_is_leaf(*p, level) || (int)sp->role.level != level)
        what = "is no leaf of that level";
    else if ((spte_gfn(sh, p) ^ gfn) & ~(level_pages(level) - 1))
        what = "maps another gfn";
    if (what)
        audit_fail(a, 1, "rmap of gfn 0x%llx level %d (slot 0x%llx): its entry %u of shadow page gfn 0x%llx %s",
                   (unsigned long long)gfn, level, (unsigned long long)slot->base, sp_index_of(sh, p),
                   (unsigned long long)sp->gfn, what);
}

static void check_slot_rmaps(struct audit *a, const struct memslot *slot)
{
    uint64_t found = 0;
    for (int level = 1; level <= RMAP_LEVELS; level++) {
        gfn_t gfn = slot->base, end = slot->base + slot->pages;
        struct spte_list *head;
        struct spte_iter it;
        while ((head = rmap_next_used(slot, level, &gfn, end))) {
            spte_list_for_each(head, &it, p)
            {
                check_rmap_entry(a, slot, level, gfn, p);
                found++;
            }
            gfn = (gfn | (level_pages(level) - 1)) + 1;
        }
    }
    if (found != rmap_count(slot))
        audit_fail(a, 1, "slot 0x%llx: its count of rmap entries is wrong", (unsigned long long)slot->base);
}

static void check_lists(struct audit *a)
{
    const struct shadow *sh = shadow_of(a->mmu);
    uint32_t active = 0, free_pages = 0, live = 0, prev = 0, unsync = 0;
    for (uint32_t i = 1; i < sh->fresh; i++) {
        live += sh->pages[i].live;
        unsync += sh->pages[i].live && sh->pages[i].unsync;
    }
    for (uint32_t i = sh->unsync_first; i && unsync < sh->limit; i = sh->pages[i].unsync_next)
        unsync--;
    if (unsync)
        audit_fail(a, 8, "the list of unsync pages does not hold just these");
    for (uint32_t i = sh->active_first; i && active < sh->limit; prev = i, i = sh->pages[i].active_next, active++) {
        if (!sh->pages[i].live || sh->pages[i].active_prev != prev)
            fail_sp(a, 8, &sh->pages[i], "the active list is broken here");
    }
    for (uint32_t i = sh->free_head; i && free_pages < sh->limit; i = sh->pages[i].hash_next)
        free_pages++;
    free_pages += sh->limit - sh->fresh;
    if (active != live || active != sh->active_count)
        audit_fail(a, 8, "%u shadow pages live, %u on the active list, %u counted", live, active, sh->active_count);
    if (free_pages != sh->free_count || live + free_pages != sh->limit - 1)
        audit_fail(a, 8, "%u shadow pages free, %u counted, %u live of %u", free_pages, sh->free_count, live,
                   sh->limit - 1);
}

/* ---- invariant 7: TLB entries against the spte they were made from ---- */

static const char *tlb_trouble(const struct shadow *sh, const struct tlb_meta *meta, const struct tlb_entry *data,
                               unsigned index, uint64_t host_page)
{
    const uint64_t *p = (const uint64_t *)(uintptr_t)meta->dep[0];
    if (p < sh->spts || p >= sh->spts + (size_t)sh->limit * SP_ENTRIES)
        return "was made from no spte";
    const struct sp *sp = sp_of(sh, p);
    int level = (int)sp->role.level;
    if (!sp->live || sp_is_obsolete(sh, sp) || !spte_is_leaf(*p, level))
        return "outlives its spte";
    if (!(*p & SPTE_CACHED))
        return "its spte is not marked as cached";
    if (level == 1 && !(sp->tlb_ways >> index / 512 & 1))
        return "its shadow page does not know its way";
    uint64_t frame = (uint64_t)(uintptr_t)frame_pool_ptr(sh->pool, spte_pfn(*p));
    if (host_page - frame >= level_pages(level) << PAGE_SHIFT)
        return "holds another frame than its spte";
    if (data && data->ntag_w != tlb_empty_tag(index) && !(*p & SPTE_WRITABLE))
        return "permits writes, its spte does not";
    if (data && data->ntag_w != tlb_empty_tag(index) && !(*p & SPTE_DIRTY))
        return "permits writes, its spte is clean";
    return NULL;
}

static bool leads_to(const struct shadow *sh, const struct shadow_root *root, gva_t gva, uint64_t dep)
{
    int level;
    return (uintptr_t)shadow_walk(sh, root, gva, &level) == dep;
}

struct tlb_pass {
    struct audit *a;
    bool full;
};

static void visit_tlb(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                      const struct tlb_entry *data, const struct tlb_fetch_entry *fetch, const struct tlb_meta *meta)
{
    struct tlb_pass *pass = ctx;
    if (!pass->full && set != mv->set)
        return;
    unsigned index = data ? (unsigned)(data - set->data[mode]) : tlb_fetch_index(-fetch->ntag);
    uint64_t tag = fetch ? fetch->ntag : data->ntag_r != tlb_empty_tag(index) ? data->ntag_r : data->ntag_w;
    uint64_t gva = -tag;
    const struct shadow *sh = shadow_of(pass->a->mmu);
    const char *what = tlb_trouble(sh, meta, data, index, (data ? data->host : fetch->host) + (gva & PAGE_MASK));
    if (!what && !leads_to(sh, set->root, gva, meta->dep[0]))
        what = "its root does not lead to its spte";
    if (what)
        audit_fail(pass->a, 7, "TLB entry gva 0x%llx of vCPU %u: %s", (unsigned long long)gva, mv->index, what);
}

static void audit_all(struct audit *a)
{
    const struct shadow *sh = shadow_of(a->mmu);
    for (uint32_t i = 1; i < sh->fresh; i++) {
        if (sh->pages[i].live)
            check_sp(a, &sh->pages[i]);
    }
    for (size_t i = 0; i < memslot_count(a->mmu->mem); i++)
        check_slot_rmaps(a, memslot_at(a->mmu->mem, i));
    check_lists(a);
}

/* Looks at the pages touched since the last call, or at all; forgets what was touched. */
static void audit_touched(struct audit *a, bool check)
{
    struct shadow *sh = shadow_of(a->mmu);
    while (sh->touched) {
        struct sp *sp = &sh->pages[sh->touched];
        sh->touched = sp->touched_next;
        sp->touched = false;
        if (check && sp->live)
            check_sp(a, sp);
    }
}

unsigned shadow_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx)
{
    struct audit a = {.mmu = mmu, .report = report, .ctx = ctx};
    struct tlb_pass pass = {.a = &a, .full = full};
    audit_touched(&a, !full);
    if (full)
        audit_all(&a);
    tlb_for_each(mmu, visit_tlb, &pass);
    audit_tlb(&a, full);
    return a.violations;
}
