/*
 * The processor's two dimensions: a TLB miss walks the guest's tables, and every access to a guest entry, every A and D
 * update and the final access goes through the second stage. What the second stage stops becomes an exit; the
 * hypervisor answers it, and the walk starts again, as the instruction would.
 */
#include "mmu/ept/ept_internal.h"
#include "mmu/mem.h"

#include <string.h>

/* One walk under way. */
struct nested {
    struct gwalk_stage2 s2;
    struct ept *e;
    struct mmu_vcpu *mv;
    gva_t gva;
    struct ept_exit exit;
};

/* ---- exits ---- */

static uint32_t entry_rights(uint64_t rights)
{
    return (rights & EPT_R ? EPT_Q_ENTRY_R : 0) | (rights & EPT_W ? EPT_Q_ENTRY_W : 0) |
           (rights & EPT_X ? EPT_Q_ENTRY_X : 0);
}

static uint32_t access_kind(uint64_t need)
{
    return (need & EPT_R ? EPT_Q_READ : 0) | (need & EPT_W ? EPT_Q_WRITE : 0) | (need & EPT_X ? EPT_Q_FETCH : 0);
}

/* SDM table 28-7. `origin`: the bits from GLA_VALID up. */
static struct ept_exit exit_of(const struct mmu_vcpu *mv, const struct ept_walk *w, gpa_t gpa, gva_t gla, uint64_t need,
                               uint32_t origin)
{
    struct ept_exit x = {.gpa = gpa, .gla = gla, .as = mv->regs.as};
    switch (w->result) {
    case EPT_WALK_VIOLATION:
        x.reason = EPT_EXIT_VIOLATION;
        x.qualification = access_kind(need) | entry_rights(w->rights) | origin | (w->exceeds_gaw ? EPT_Q_GAW : 0) |
                          (ept_vcpu_of(mv)->nmi_unblocking ? EPT_Q_NMI_UNBLOCK : 0);
        break;
    case EPT_WALK_MISCONFIG:
        x.reason = EPT_EXIT_MISCONFIG;
        break;
    case EPT_WALK_PML_FULL:
        x.reason = EPT_EXIT_PML_FULL;
        x.qualification = ept_vcpu_of(mv)->nmi_unblocking ? EPT_Q_NMI_UNBLOCK : 0;
        break;
    case EPT_WALK_OK:
        break;
    }
    return x;
}

/* Advanced information (bits 9 to 11). With paging off every address is a user-mode one, writable and executable. */
static uint32_t advanced_bits(const struct gwalk *w)
{
    if (w->format == PAGING_NONE)
        return EPT_Q_USER | EPT_Q_GUEST_W;
    return (w->user ? EPT_Q_USER : 0) | (w->writable ? EPT_Q_GUEST_W : 0) | (w->nx ? EPT_Q_GUEST_XD : 0);
}

/* SDM table 28-6: offset in the page, and the type of the access. */
enum apic_access { APIC_LINEAR_READ = 0, APIC_LINEAR_WRITE = 1, APIC_LINEAR_FETCH = 2, APIC_PHYSICAL = 15 };

static struct ept_exit apic_exit(const struct mmu_vcpu *mv, gpa_t gpa, gva_t gva, enum apic_access type)
{
    return (struct ept_exit){.reason = EPT_EXIT_APIC_ACCESS,
                             .qualification = (uint32_t)(gpa & PAGE_MASK) | (uint32_t)type << 12,
                             .gpa = gpa,
                             .gla = gva,
                             .as = mv->regs.as};
}

/* It is the frame that counts, however it was reached. */
static bool is_apic_frame(const struct mmu_vcpu *mv, uint64_t hpa)
{
    return unlikely(hpa >> PAGE_SHIFT == ept_vcpu_of(mv)->apic_pfn);
}

static enum apic_access apic_access_type(unsigned access)
{
    return (access & ACCESS_FETCH) ? APIC_LINEAR_FETCH : (access & ACCESS_WRITE) ? APIC_LINEAR_WRITE : APIC_LINEAR_READ;
}

/* Leaves the guest with this exit and has it answered. No lock held. */
static enum ept_answer leave(struct mmu_vcpu *mv, const struct ept_exit *x)
{
    struct ept_vcpu *v = ept_vcpu_of(mv);
    v->last = *x;
    v->exits++;
    trace_point(mv->mmu->trace, TRACE_EPT_EXIT, x->reason, x->qualification, x->gpa, x->gla);
    return ept_handle_exit(mv, x);
}

/* ---- the first dimension's accesses ---- */

static struct ept_pml *pml_of(struct ept *e, struct mmu_vcpu *mv)
{
    return ept_pml_is_on(e) ? &ept_vcpu_of(mv)->pml : NULL;
}

/* With A and D enabled, an access to a guest entry is a write for EPT (SDM 29.3.3.2, 29.3.5); exits then say read and
 * write. */
static uint64_t entry_need(const struct ept *e, bool update)
{
    return e->cfg.ad ? EPT_R | EPT_W : update ? EPT_W : EPT_R;
}

static void *nested_entry(struct gwalk_stage2 *s2, gpa_t gpa, bool update)
{
    struct nested *n = container_of(s2, struct nested, s2);
    uint64_t need = entry_need(n->e, update);
    struct ept_walk w;
    ept_walk(n->e, n->mv->regs.as, gpa, need, pml_of(n->e, n->mv), false, &w);
    if (unlikely(w.result != EPT_WALK_OK))
        n->exit = exit_of(n->mv, &w, gpa, n->gva, need, EPT_Q_GLA_VALID);
    else if (is_apic_frame(n->mv, w.hpa))
        n->exit = apic_exit(n->mv, gpa, n->gva, APIC_PHYSICAL);
    else
        return (uint8_t *)frame_pool_ptr(n->e->pool, w.hpa >> PAGE_SHIFT) + (gpa & PAGE_MASK);
    return NULL;
}

/* ---- the final access ---- */

static uint64_t final_need(unsigned access)
{
    return (access & ACCESS_FETCH) ? EPT_X : (access & ACCESS_WRITE) ? EPT_W : EPT_R;
}

/* The TLB entry of a finished walk. Its write tag needs the guest's D and the leaf's, so that the first write sets
 * them. */
static void fill(struct mmu_vcpu *mv, gva_t gva, unsigned access, const struct gwalk *g, const struct ept_walk *w,
                 struct xlate *out)
{
    struct ept *e = ept_of(mv->mmu);
    uint8_t *page = frame_pool_ptr(e->pool, w->hpa >> PAGE_SHIFT);
    struct tlb_fill f = {.gva = gva & ~PAGE_MASK, .gpa = g->gpa & ~PAGE_MASK, .host = page};
    bool noted =
        tlb_deps_note_tables(mv, e->deps, g, &f); /* the page may become tracked here, as a table of this very walk */
    bool tracked = track_is_tracked(mv->mem, mv->regs.as, g->gpa >> PAGE_SHIFT);
    bool dirty = !e->cfg.ad || (w->at[w->depth - 1].entry & EPT_D);
    out->host = (access & ACCESS_WRITE) && tracked ? NULL : page + (g->gpa & PAGE_MASK);
    if (!noted)
        return;
    bool may_write = g->dirty && (w->rights & EPT_W) && dirty &&
                     !gwalk_check(&mv->regs, g, (access & ACCESS_IMPLICIT) | ACCESS_WRITE);
    f.fetch = access & ACCESS_FETCH;
    f.read = !f.fetch && (w->rights & EPT_R);
    f.write = !f.fetch && may_write && !tracked;
    f.write_emul = !f.fetch && may_write && tracked;
    tlb_deps_note_fill(mv->mmu, e->deps, mv->regs.as, &f);
    tlb_install(mv, tlb_mode_of(&mv->regs, access), &f);
    trace_point(mv->mmu->trace, TRACE_MMU_FILL, gva, g->gpa, w->at[w->depth - 1].entry, (uint64_t)w->leaf_level);
}

/* ---- both together ---- */

enum pass { PASS_DONE, PASS_FAULT, PASS_EXIT, PASS_AGAIN };

/* One try, under the lock. PASS_EXIT: n->exit says why. */
static enum pass run_pass(struct nested *n, unsigned access, struct gwalk *g, struct xlate *out)
{
    struct mmu_vcpu *mv = n->mv;
    n->exit.reason = EPT_EXIT_NONE;
    if (unlikely(ept_vcpu_of(mv)->apic_reload))
        return PASS_AGAIN;
    gwalk_nested(mv->mem, &mv->regs, n->gva, access, g, &n->s2);
    if (g->result == GWALK_EXIT)
        return n->exit.reason == EPT_EXIT_NONE ? PASS_AGAIN : PASS_EXIT;
    if (g->result != GWALK_OK)
        return PASS_FAULT;
    struct ept_walk w;
    uint64_t need = final_need(access);
    ept_walk(n->e, mv->regs.as, g->gpa, need, pml_of(n->e, mv), false, &w);
    if (w.result != EPT_WALK_OK) {
        n->exit = exit_of(mv, &w, g->gpa, n->gva, need, EPT_Q_GLA_VALID | EPT_Q_TRANSLATION | advanced_bits(g));
        return PASS_EXIT;
    }
    if (is_apic_frame(mv, w.hpa)) {
        n->exit = apic_exit(mv, g->gpa, n->gva, apic_access_type(access));
        return PASS_EXIT;
    }
    out->gpa = g->gpa;
    out->host = NULL;
    const struct memslot *slot = memslot_find(mv->mem, mv->regs.as, g->gpa >> PAGE_SHIFT);
    if (unlikely(slot && slot->kind == MEMSLOT_DEVICE)) /* the page's frame is not known yet: the device answers */
        return PASS_DONE;
    fill(mv, n->gva, access, g, &w, out);
    return PASS_DONE;
}

/* The hypervisor carries the access out: by the guest's tables as software reads them, with mem_access(), and nothing
 * is cached. Linux: kvm_mmu_page_fault's x86_emulate_instruction. */
static enum pass emulate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct gwalk *g, struct xlate *out)
{
    ept_of(mv->mmu)->stats.emulated++;
    gwalk(mv->mem, &mv->regs, gva, access, g);
    if (g->result != GWALK_OK)
        return PASS_FAULT;
    out->gpa = g->gpa;
    out->host = NULL;
    return PASS_DONE;
}

static enum pass translate_once(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct gwalk *g, struct xlate *out)
{
    struct nested n = {.s2.entry = nested_entry, .e = ept_of(mv->mmu), .mv = mv, .gva = gva};
    mv->mmu->stats.guest_walks++;
    mmu_lock(mv->mmu);
    enum pass pass = run_pass(&n, access, g, out);
    mmu_unlock(mv->mmu);
    gwalk_nested_tell(mv->mem, mv->regs.as, &n.s2);
    if (pass != PASS_EXIT)
        return pass;
    return leave(mv, &n.exit) == EPT_RESUME ? PASS_AGAIN : emulate(mv, gva, access, g, out);
}

enum xlate_result ept_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    struct mmu *mmu = mv->mmu;
    struct gwalk g;
    enum pass pass;
    do {
        if (unlikely(ept_vcpu_of(mv)->apic_reload))
            ept_vcpu_enter(mv);
        pass = translate_once(mv, gva, access, &g, out);
    } while (pass == PASS_AGAIN);
    if (pass == PASS_FAULT) {
        tlb_deps_note_fault(mv, ept_of(mmu)->deps, &g);
        stale_note_fault(mv, gva, &g, access);
        out->error = g.error;
    } else {
        stale_note_fill(mv, gva, &g, access);
    }
    trace_point(mmu->trace, TRACE_MMU_FAULT, gva, access, pass == PASS_FAULT ? out->error : 0,
                pass == PASS_FAULT ? 0 : out->gpa);
    return pass == PASS_FAULT ? XLATE_FAULT : XLATE_OK;
}

/* Loads of the PDPTE registers: guest-physical accesses with no linear address, which are reads whether A and D are
 * enabled or not. */
enum mem_result ept_read_phys(struct mmu_vcpu *mv, gpa_t gpa, void *buf, size_t len)
{
    struct ept *e = ept_of(mv->mmu);
    for (;;) {
        struct ept_walk w;
        if (unlikely(ept_vcpu_of(mv)->apic_reload))
            ept_vcpu_enter(mv);
        mmu_lock(mv->mmu);
        bool reload = ept_vcpu_of(mv)->apic_reload;
        ept_walk(e, mv->regs.as, gpa, EPT_R, NULL, false, &w);
        bool found = w.result == EPT_WALK_OK, apic = found && is_apic_frame(mv, w.hpa);
        if (found && !apic && !reload)
            memcpy(buf, (uint8_t *)frame_pool_ptr(e->pool, w.hpa >> PAGE_SHIFT) + (gpa & PAGE_MASK), len);
        mmu_unlock(mv->mmu);
        if (reload)
            continue;
        if (found && !apic)
            return MEM_OK;
        struct ept_exit x = apic ? apic_exit(mv, gpa, 0, APIC_PHYSICAL) : exit_of(mv, &w, gpa, 0, EPT_R, 0);
        if (leave(mv, &x) != EPT_RESUME)
            return mem_access(mv->mem, mv->regs.as, gpa, buf, len, MEM_WALK, false, (int)mv->index);
    }
}
