/* The part of the audit that all engines share: TLB entries against a fresh walk; see audit.h. */
#include "mmu/audit.h"
#include "mmu/dirty.h"

#include <stdarg.h>
#include <stdio.h>

#define GPTE_A (1ull << 5)

void audit_fail(struct audit *a, int invariant, const char *fmt, ...)
{
    char line[256];
    a->violations++;
    if (!a->report)
        return;
    int n = snprintf(line, sizeof line, "invariant %d: ", invariant);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    a->report(a->ctx, line);
}

/* One TLB entry in the form that the checks take. */
struct tlb_view {
    gva_t gva;
    gpa_t gpa; /* of the page */
    uint8_t *host;
    bool read, write, write_emul, fetch;
    enum tlb_mode mode;
};

/* The registers that the entries of this table were made under. */
static struct paging_regs mode_regs(const struct tlb_set *set, enum tlb_mode mode)
{
    struct paging_regs r = set->key;
    r.cpl = mode == TLB_USER ? 3 : 0;
    r.ac = mode == TLB_SUPER_AC;
    return r;
}

static void fail_entry(struct audit *a, const struct tlb_view *v, const char *what)
{
    audit_fail(a, 7, "TLB entry gva 0x%llx gpa 0x%llx%s%s%s mode %d: %s", (unsigned long long)v->gva,
               (unsigned long long)v->gpa, v->read ? " r" : "", v->write ? " w" : "", v->fetch ? " x" : "",
               (int)v->mode, what);
}

bool audit_accessed(const struct mem *m, unsigned as, gpa_t gpte_gpa, uint64_t gpte)
{
    return (gpte & GPTE_A) || mem_is_device(m, as, gpte_gpa, true);
}

static bool accessed_everywhere(const struct mem *m, unsigned as, const struct gwalk *w)
{
    for (int i = 0; i < w->depth; i++) {
        if (w->at[i].gpte_gpa != ~0ull && !audit_accessed(m, as, w->at[i].gpte_gpa, w->at[i].gpte))
            return false;
    }
    return true;
}

/* The guest's tables, for one kind of access that the entry permits. */
static void check_access(struct audit *a, const struct tlb_view *v, const struct paging_regs *r, unsigned access)
{
    struct gwalk w;
    if (a->mmu->unsync)
        return; /* as old as the last flush: nothing can be said */
    gwalk(a->mmu->mem, r, v->gva, access | GWALK_PEEK, &w);
    if (w.result != GWALK_OK) {
        fail_entry(a, v, "the guest's tables do not permit it");
        return;
    }
    if ((w.gpa & ~PAGE_MASK) != v->gpa)
        fail_entry(a, v, "the guest's tables map another page");
    if (!accessed_everywhere(a->mmu->mem, r->as, &w))
        fail_entry(a, v, "an A bit that it relies on is clear");
    if ((access & ACCESS_WRITE) && w.format != PAGING_NONE && !w.dirty)
        fail_entry(a, v, "the D bit that it relies on is clear");
}

/* Memslot, host entry and tracking. */
static void check_backing(struct audit *a, const struct tlb_view *v, unsigned as)
{
    struct mmu *mmu = a->mmu;
    const struct memslot *slot = memslot_find(mmu->mem, as, v->gpa >> PAGE_SHIFT);
    if (!slot) {
        fail_entry(a, v, "no memslot");
        return;
    }
    struct hpte_info h = host_mm_peek(mmu->mm, memslot_hva(slot, v->gpa >> PAGE_SHIFT));
    if (h.state != HPTE_PRESENT && h.state != HPTE_ZERO)
        fail_entry(a, v, "the host holds no frame there");
    else if (v->host != frame_pool_ptr(host_mm_pool(mmu->mm), h.pfn))
        fail_entry(a, v, "the host holds another frame there");
    if (!v->write)
        return;
    if (slot->kind != MEMSLOT_RAM)
        fail_entry(a, v, "writable, but the memslot is ROM");
    if (h.state != HPTE_PRESENT || !h.writable)
        fail_entry(a, v, "writable, but the host entry is not");
    if (slot->dirty && slot->dirty->form == DIRTY_WRITE_PROTECT && !dirty_is_marked(slot, v->gpa >> PAGE_SHIFT))
        fail_entry(a, v, "writable, but its page is logged and clean");
    if (track_is_tracked(mmu->mem, as, v->gpa >> PAGE_SHIFT))
        fail_entry(a, v, "writable, but the gfn is tracked");
}

static void check_entry(struct audit *a, const struct tlb_view *v, const struct tlb_set *set)
{
    struct paging_regs r = mode_regs(set, v->mode);
    if (v->read)
        check_access(a, v, &r, ACCESS_READ);
    if (v->fetch)
        check_access(a, v, &r, ACCESS_FETCH);
    if (v->write || v->write_emul)
        check_access(a, v, &r, ACCESS_WRITE);
    check_backing(a, v, r.as);
}

struct tlb_pass {
    struct audit *a;
    bool all;
};

static void visit(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                  const struct tlb_entry *data, const struct tlb_fetch_entry *fetch, const struct tlb_meta *meta)
{
    struct tlb_pass *p = ctx;
    if (!p->all && set != mv->set)
        return;
    struct tlb_view v = {.mode = mode};
    if (data) {
        uint64_t empty = tlb_empty_tag((unsigned)(data - set->data[mode]));
        v.read = data->ntag_r != empty;
        v.write = data->ntag_w != empty;
        v.gva = v.read ? -data->ntag_r : -data->ntag_w;
        v.gpa = data->gpa & ~PAGE_MASK;
        v.write_emul = data->gpa & TLB_GPA_WRITE_EMUL;
        v.host = (uint8_t *)(uintptr_t)(data->host + (v.gva & PAGE_MASK));
    } else {
        v.gva = -fetch->ntag;
        v.gpa = fetch->gpa & ~PAGE_MASK;
        v.fetch = true;
        v.host = (uint8_t *)(uintptr_t)(fetch->host + (v.gva & PAGE_MASK));
    }
    check_entry(p->a, &v, set);
}

void audit_tlb(struct audit *a, bool all)
{
    struct tlb_pass p = {.a = a, .all = all};
    tlb_for_each(a->mmu, visit, &p);
}
