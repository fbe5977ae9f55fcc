/*
 * The MMU's tables as lists: rmaps, tracked gfns, memslots, roots; and its audit.
 */
#include "frontends/machine/inspect.h"

#include "frontends/machine/machine.h"
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"

#include <inttypes.h>
#include <string.h>

#define LIST_MAX 2000 /* lines of one list; what is beyond is counted */

static const char *const format_names[] = {"direct", "32-bit", "PAE", "4-level", "5-level", "EPT"};

static const char *format_name(union sp_role role)
{
    return role.direct ? "direct" : role.format < ARRAY_LEN(format_names) ? format_names[role.format] : "?";
}

static void print_sp(const struct sp *sp, const char *what, const struct inspect_out *out)
{
    inspect_say(out, "  %s sp %u: gfn 0x%" PRIx64 " level %u %s, access %s%s%s, %u sptes used, %zu parents, roots %u",
                what, sp->index, sp->gfn, (unsigned)sp->role.level, format_name(sp->role),
                sp->role.access & ACC_W ? "w" : "-", sp->role.access & ACC_U ? "u" : "-",
                sp->role.access & ACC_X ? "x" : "-", sp->used, spte_list_count(&sp->parents), sp->root_count);
}

/* ---- rmap ---- */

static unsigned print_rmap_level(const struct shadow *sh, const struct memslot *slot, gfn_t gfn, int level,
                                 const struct inspect_out *out)
{
    const struct spte_list *head = rmap_head(slot, gfn, level);
    struct spte_iter it;
    unsigned n = 0;
    char text[200];
    if (!head)
        return 0;
    spte_list_for_each(head, &it, sptep)
    {
        const struct sp *sp = sp_of(sh, sptep);
        if (n++ >= LIST_MAX)
            continue;
        inspect_spte_text(*sptep, level, text, sizeof text);
        inspect_say(out, "  level %d: sp %u (table gfn 0x%" PRIx64 ", %s) #%u = 0x%016" PRIx64 " %s", level, sp->index,
                    sp->gfn, format_name(sp->role), sp_index_of(sh, sptep), *sptep, text);
    }
    return n;
}

void machine_print_mmu_rmap(const struct machine *m, uint64_t gfn, const struct inspect_out *out)
{
    const struct memslot *slot = memslot_find(m->mem, 0, gfn);
    unsigned n = 0;
    if (m->cfg.mmu != MACHINE_MMU_SHADOW) {
        inspect_say(out, "this machine has no shadow tables");
        return;
    }
    if (!slot) {
        inspect_say(out, "gfn 0x%" PRIx64 " has no memslot", gfn);
        return;
    }
    struct shadow *sh = shadow_of(m->mmu);
    inspect_say(out, "sptes that map gfn 0x%" PRIx64 ":", gfn);
    for (int level = 1; level <= RMAP_LEVELS; level++)
        n += print_rmap_level(sh, slot, gfn, level, out);
    if (!n)
        inspect_say(out, "  none");
    sp_for_each_of_gfn(sh, gfn, sp)
    {
        if (!sp->role.direct)
            print_sp(sp, "shadowed as a table:", out);
    }
}

/* ---- tracking ---- */

static void print_tracked_chunk(const struct machine *m, unsigned as, const struct track_chunk *c, gfn_t first,
                                unsigned *n, const struct inspect_out *out)
{
    for (unsigned i = 0; i < GFN_CHUNK; i++) {
        if (!c->mask[i] || (*n)++ >= LIST_MAX)
            continue;
        const uint32_t *k = c->count[i];
        inspect_say(out, "  gfn 0x%" PRIx64 "%s: page-table %u, code %u, watch %u, frame-buffer %u", first + i,
                    as ? " (SMM)" : "", k[TRACK_PT], k[TRACK_CODE], k[TRACK_WATCH], k[TRACK_FB]);
    }
}

void machine_print_mmu_tracked(const struct machine *m, const struct inspect_out *out)
{
    unsigned n = 0;
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        void *chunk;
        for (gfn_t g = gfn_tree_next(&m->mem->track[as], 0, GFN_LIMIT, &chunk); g < GFN_LIMIT;
             g = gfn_tree_next(&m->mem->track[as], (g | (GFN_CHUNK - 1)) + 1, GFN_LIMIT, &chunk))
            print_tracked_chunk(m, as, chunk, g & ~(gfn_t)(GFN_CHUNK - 1), &n, out);
    }
    inspect_say(out, "%u tracked gfns%s", n, n > LIST_MAX ? " (the first 2000 are listed)" : "");
}

/* ---- slots ---- */

void machine_print_mmu_slots(const struct machine *m, const struct inspect_out *out)
{
    for (size_t i = 0; i < memslot_count(m->mem); i++) {
        const struct memslot *s = memslot_at(m->mem, i);
        uint64_t sptes = m->cfg.mmu == MACHINE_MMU_SHADOW ? rmap_count(s) : 0;
        inspect_say(out,
                    "  %zu: gfn 0x%" PRIx64 " to 0x%" PRIx64 " (%" PRIu64 " pages)%s %s hva 0x%" PRIx64 ", %" PRIu64
                    " sptes",
                    i, s->base, s->base + s->pages - 1, s->pages, s->as ? " SMM" : "",
                    s->kind == MEMSLOT_ROM      ? "ROM"
                    : s->kind == MEMSLOT_DEVICE ? "device"
                                                : "RAM",
                    (uint64_t)s->hva, sptes);
    }
    inspect_say(out, "%zu slots, generation %" PRIu64, memslot_count(m->mem), mem_generation(m->mem));
}

/* ---- roots ---- */

static void print_root(const struct machine *m, const struct shadow_root *root, const struct inspect_out *out)
{
    const struct shadow *sh = shadow_of(m->mmu);
    for (unsigned i = 0; i < root->tops; i++) {
        if (root->sp[i])
            print_sp(&sh->pages[root->sp[i]], "  top", out);
        else if (root->has[i])
            inspect_say(out, "    top %u: gfn 0x%" PRIx64 ", no shadow page at the moment", i, root->gfn[i]);
    }
}

void machine_print_mmu_roots(const struct machine *m, const struct inspect_out *out)
{
    unsigned n = 0;
    for (unsigned k = 0; k < m->mmu->vcpu_count * TLB_ALL_SETS; k++) {
        const struct tlb_set *set = &m->mmu->sets[k];
        if (!set->valid)
            continue;
        n++;
        inspect_say(
            out, "  processor %u: %s cr3 0x%" PRIx64 " cr0 0x%" PRIx64 " cr4 0x%" PRIx64 " efer 0x%" PRIx64 "%s",
            k / TLB_ALL_SETS, paging_format_of(&set->key) ? format_names[paging_format_of(&set->key)] : "paging off",
            set->key.cr3, set->key.cr0, set->key.cr4, set->key.efer,
            set == m->mmu->vcpus[k / TLB_ALL_SETS].set ? " (current)" : "");
        if (m->cfg.mmu == MACHINE_MMU_SHADOW && set->root)
            print_root(m, set->root, out);
    }
    inspect_say(out, "%u cached roots", n);
}

/* ---- audit ---- */

unsigned machine_print_mmu_audit(struct machine *m, const struct inspect_out *out)
{
    return mmu_audit(m->mmu, true, out->line, out->ctx);
}
