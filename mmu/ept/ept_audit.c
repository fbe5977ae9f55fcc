/*
 * The audit of `-mmu ept` (mmu/audit.h): the invariants of docs/mmu.md that concern a second stage, from the roots
 * down. It looks only.
 *
 *   1  each leaf is where the walk of its gfn ends (which is what stands for the rmap here), and the counts of leaves
 * agree 2  each frame is the host's; a marker that is current stands where no memslot is 3  no leaf permits more than
 * host entry, memslot and restriction 7  each TLB entry has a leaf that permits it, with D for its write tag; and what
 * tlb_deps.h keeps 8  tables, links, counts and EPTPs agree; no entry is illegal
 */
#include "mmu/ept/ept_internal.h"

struct ept_check {
    struct audit *a;
    struct ept *e;
    uint64_t tables, small, large;
};

static void fail_entry(struct ept_check *c, int invariant, const struct ept_table *t, const uint64_t *p,
                       const char *what)
{
    audit_fail(c->a, invariant, "EPT entry of gfn 0x%llx level %d, 0x%llx: %s", (unsigned long long)ept_entry_gfn(t, p),
               t->level, (unsigned long long)*p, what);
}

static void check_host(struct ept_check *c, const struct ept_table *t, const uint64_t *p, const struct memslot *slot,
                       gfn_t gfn)
{
    struct hpte_info h = host_mm_peek(c->e->mmu->mm, memslot_hva(slot, gfn));
    pfn_t pfn = ept_pfn(*p) + (gfn - ept_entry_gfn(t, p));
    if (h.level < t->level)
        fail_entry(c, 2, t, p, "larger than the host's mapping");
    if (h.state != HPTE_PRESENT && h.state != HPTE_ZERO)
        fail_entry(c, 2, t, p, "the host holds no frame for its gfn");
    else if (h.pfn != pfn)
        fail_entry(c, 2, t, p, "the host holds another frame for its gfn");
    else if (!h.readable)
        fail_entry(c, 3, t, p, "the host's entry permits no access");
    if (!(*p & EPT_W))
        return;
    if (h.state != HPTE_PRESENT || !h.writable)
        fail_entry(c, 3, t, p, "writable, but the host's entry is not");
    else if (!h.dirty)
        fail_entry(c, 3, t, p, "writable, but the host's entry is clean");
    if (slot->kind == MEMSLOT_ROM)
        fail_entry(c, 3, t, p, "writable, but the memslot is ROM");
    if (ept_logs_by_protection(c->e, slot) && !dirty_is_marked(slot, gfn))
        fail_entry(c, 3, t, p, "writable, but its page is logged and clean");
}

static void check_leaf(struct ept_check *c, const struct ept_table *t, uint64_t *p)
{
    struct ept_table *found;
    gfn_t gfn = ept_entry_gfn(t, p);
    *(t->level > 1 ? &c->large : &c->small) += 1;
    if (ept_lookup(c->e, t->as, gfn, &found) != p)
        fail_entry(c, 1, t, p, "is not where the walk of its gfn ends");
    for (uint64_t i = 0; i < ept_level_pages(t->level); i++) {
        const struct memslot *slot = memslot_find(c->e->mmu->mem, t->as, gfn + i);
        if (!slot) {
            fail_entry(c, 2, t, p, "its gfn has no memslot");
            return;
        }
        check_host(c, t, p, slot, gfn + i);
        if (*p & EPT_RWX & ~ept_allowed_rights(c->e, t->as, gfn + i))
            fail_entry(c, 3, t, p, "permits what is restricted");
    }
    if ((*p & EPT_W) && !(*p & EPT_HOST_W))
        fail_entry(c, 3, t, p, "writable without a writable host entry");
}

static void check_marker(struct ept_check *c, const struct ept_table *t, const uint64_t *p)
{
    const struct mem *m = c->e->mmu->mem;
    if (t->level != 1)
        fail_entry(c, 8, t, p, "a marker above level 1");
    else if (ept_marker_is_current(*p, mem_generation(m)) && memslot_find(m, t->as, ept_entry_gfn(t, p)))
        fail_entry(c, 2, t, p, "marks MMIO where a memslot is");
}

static void check_table(struct ept_check *c, struct ept_table *t);

static void check_link(struct ept_check *c, const struct ept_table *t, uint64_t *p)
{
    struct ept_table *child = ept_table_at(c->e, *p & EPT_ADDRESS);
    if (!child)
        fail_entry(c, 8, t, p, "links to no table");
    else if (child->parent != p || child->level != t->level - 1 || child->as != t->as ||
             child->gfn != ept_entry_gfn(t, p))
        fail_entry(c, 8, t, p, "links to a table of another place");
    else
        check_table(c, child);
}

static void check_entry(struct ept_check *c, const struct ept_table *t, uint64_t *p)
{
    if (ept_is_marker(*p))
        check_marker(c, t, p);
    else if (!ept_is_present(*p))
        fail_entry(c, 8, t, p, "not present, but not empty");
    else if (ept_misconfig(c->e, *p, t->level))
        fail_entry(c, 8, t, p, ept_misconfig(c->e, *p, t->level));
    else if (ept_is_leaf(*p, t->level))
        check_leaf(c, t, p);
    else
        check_link(c, t, p);
}

static void check_table(struct ept_check *c, struct ept_table *t)
{
    unsigned used = 0;
    c->tables++;
    for (unsigned i = 0; i < EPT_ENTRIES; i++) {
        if (!t->entry[i])
            continue;
        used++;
        check_entry(c, t, &t->entry[i]);
    }
    if (used != t->used)
        audit_fail(c->a, 8, "EPT table of gfn 0x%llx level %d: %u entries, counted %u", (unsigned long long)t->gfn,
                   t->level, used, t->used);
}

static void check_tree(struct ept_check *c)
{
    const struct ept *e = c->e;
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        const char *why = ept_eptp_check(e->root[as].eptp, ept_vpid_cap(e->mmu), EPT_MAXPHYADDR);
        if (why || (e->root[as].eptp & EPT_ADDRESS) != ept_table_hpa(e->root[as].table))
            audit_fail(c->a, 8, "EPTP 0x%llx: %s", (unsigned long long)e->root[as].eptp, why ? why : "not of the root");
        check_table(c, ept_root_table(e, as));
    }
    if (c->tables != e->stats.tables)
        audit_fail(c->a, 8, "%llu EPT tables reached, %llu in use", (unsigned long long)c->tables,
                   (unsigned long long)e->stats.tables);
    if (c->small != e->stats.small_leaves || c->large != e->stats.large_leaves)
        audit_fail(c->a, 1, "%llu + %llu EPT leaves found, %llu + %llu counted", (unsigned long long)c->small,
                   (unsigned long long)c->large, (unsigned long long)e->stats.small_leaves,
                   (unsigned long long)e->stats.large_leaves);
}

/* ---- TLB entries against leaves ---- */

static void check_tlb_entry(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                            const struct tlb_entry *data, const struct tlb_fetch_entry *fetch,
                            const struct tlb_meta *meta)
{
    struct ept_check *c = ctx;
    gva_t gva = data ? -data->ntag_r : -fetch->ntag;
    gpa_t gpa = (data ? data->gpa : fetch->gpa) & ~PAGE_MASK;
    bool write = data && (data->ntag_w == data->ntag_r || (data->gpa & TLB_GPA_WRITE_EMUL));
    const void *host = (const void *)(uintptr_t)((data ? data->host : fetch->host) + (gva & PAGE_MASK));
    const char *what = NULL;
    struct ept_walk w;
    ept_walk(c->e, set->key.as, gpa, 0, NULL, true, &w);
    if (w.result != EPT_WALK_OK)
        what = "outlives its EPT leaf";
    else if (frame_pool_ptr(c->e->pool, w.hpa >> PAGE_SHIFT) != host)
        what = "has another frame than its EPT leaf";
    else if (!(w.rights & (fetch ? EPT_X : EPT_R)) || (write && !(w.rights & EPT_W)))
        what = "permits more than its EPT leaf";
    else if (write && c->e->cfg.ad && !(w.at[w.depth - 1].entry & EPT_D))
        what = "permits writes, but the D bit of its EPT leaf is clear";
    else if (set->eptp != c->e->root[set->key.as].eptp || set->vpid != ept_vcpu_of(mv)->vpid)
        what = "has another EPTP or VPID";
    else if (w.hpa >> PAGE_SHIFT == ept_vcpu_of(mv)->apic_pfn)
        what = "maps the APIC access page";
    if (what)
        audit_fail(c->a, 7, "TLB entry gva 0x%llx gpa 0x%llx mode %d: %s", (unsigned long long)gva,
                   (unsigned long long)gpa, (int)mode, what);
}

unsigned ept_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx)
{
    struct audit a = {.mmu = mmu, .report = report, .ctx = ctx};
    struct ept_check c = {.a = &a, .e = ept_of(mmu)};
    if (full) {
        check_tree(&c);
        tlb_for_each(mmu, check_tlb_entry, &c);
        tlb_deps_audit(&a, c.e->deps);
    }
    audit_tlb(&a, full);
    return a.violations;
}
