/*
 * One address, seen from everywhere: guest tables, shadow tables, memslot, tracking, host entry, frame, soft TLB.
 */
#include "frontends/machine/inspect.h"

#include "frontends/machine/machine.h"
#include "mmu/ept/ept_entry.h"
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static const char *const level_names[] = {"", "PTE", "PDE", "PDPTE", "PML4E", "PML5E"};
static const char *const format_names[] = {"paging off", "32-bit", "PAE", "4-level", "5-level", "EPT"};

/* ---- bits by name ---- */

struct text {
    char *at;
    size_t left;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->at, t->left, fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < t->left ? (size_t)n : t->left - 1;
    t->at += used;
    t->left -= used;
}

struct bit_name {
    uint64_t bit;
    const char *name;
};

static void add_bits(struct text *t, uint64_t value, const struct bit_name *names, size_t count)
{
    for (size_t k = 0; k < count; k++)
        if (value & names[k].bit)
            add(t, " %s", names[k].name);
}

void inspect_gpte_text(uint64_t gpte, int level, bool leaf, unsigned size, char *text, size_t text_size)
{
    static const struct bit_name always[] = {
        {1u << 3, "write-through"}, {1u << 4, "cache-disabled"}, {GPTE_A, "accessed"}};
    struct text t = {text, text_size};
    bool large = level > 1 && level < 4 && gpte & GPTE_PS;
    leaf |= level == 1 || large;
    if (!(gpte & GPTE_P)) {
        add(&t, gpte ? "not present (software bits 0x%" PRIx64 ")" : "not present, empty", gpte);
        return;
    }
    add(&t, "present %s %s", gpte & GPTE_W ? "writable" : "read-only", gpte & GPTE_U ? "user" : "supervisor");
    add_bits(&t, gpte, always, ARRAY_LEN(always));
    if (leaf)
        add(&t, "%s%s", gpte & GPTE_D ? " dirty" : "", gpte >> 8 & 1 ? " global" : "");
    if (large)
        add(&t, " large");
    if (leaf && gpte >> (level == 1 ? 7 : 12) & 1)
        add(&t, " PAT");
    if (gpte >> 9 & 7)
        add(&t, " software-%u", (unsigned)(gpte >> 9 & 7));
    if (size == 8 && leaf && gpte >> 59 & 15)
        add(&t, " key-%u", (unsigned)(gpte >> 59 & 15));
    if (size == 8 && gpte & GPTE_NX)
        add(&t, " no-execute");
    uint64_t address = gpte & (size == 4 ? 0xfffff000 : GPTE_ADDR);
    add(&t, ", %s 0x%" PRIx64, leaf ? "page" : "table", large ? address & ~(uint64_t)0x1fffff : address);
}

static void mmio_text(struct text *t, uint64_t spte)
{
    uint64_t low = (spte & SPTE_GEN_LOW_MASK) >> SPTE_GEN_LOW_SHIFT;
    uint64_t high = (spte & SPTE_GEN_HIGH_MASK) >> SPTE_GEN_HIGH_SHIFT;
    add(t, "mmio gfn 0x%" PRIx64 " generation %" PRIu64, (uint64_t)spte_mmio_gfn(spte),
        high << SPTE_GEN_LOW_BITS | low);
}

void inspect_spte_text(uint64_t spte, int level, char *text, size_t size)
{
    static const struct bit_name names[] = {
        {SPTE_WRITABLE, "writable"},      {SPTE_USER, "user"},           {SPTE_CACHED, "cached"},
        {SPTE_ACCESSED, "accessed"},      {SPTE_DIRTY, "dirty"},         {SPTE_LARGE, "large"},
        {SPTE_GUEST_W, "guest-writable"}, {SPTE_GUEST_D, "guest-dirty"}, {SPTE_HOST_W, "host-writable"},
        {SPTE_EMUL, "writes-emulated"},   {SPTE_NX, "no-execute"}};
    struct text t = {text, size};
    if (!spte) {
        add(&t, "empty");
        return;
    }
    if (spte_is_mmio(spte)) {
        mmio_text(&t, spte);
        return;
    }
    add(&t, "%s", spte_is_present(spte) ? "present" : "not present");
    if (spte_is_link(spte, level)) {
        add(&t, ", link to shadow page %u", spte_child(spte));
        return;
    }
    add_bits(&t, spte, names, ARRAY_LEN(names));
    if (spte_pkey(spte))
        add(&t, " key-%u", spte_pkey(spte));
    add(&t, ", frame 0x%" PRIx64, (uint64_t)spte_pfn(spte));
}

void inspect_ept_text(uint64_t entry, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s%s%s%s%s, frame 0x%" PRIx64, entry & EPT_R ? "read " : "",
             entry & EPT_W ? "write " : "", entry & EPT_X ? "execute " : "", entry & EPT_A ? "accessed " : "",
             entry & EPT_D ? "dirty " : "", entry & EPT_LARGE ? "large " : "",
             entry & EPT_HOST_W ? "host-writable" : "host-read-only", ept_pfn(entry));
}

/* ---- the guest's side and the shadow's, level by level ---- */

static const struct gwalk_level *guest_level(const struct gwalk *w, int level)
{
    for (int i = 0; i < w->depth; i++)
        if (w->at[i].level == level)
            return &w->at[i];
    return NULL;
}

static void print_guest_level(const struct gwalk *w, const struct gwalk_level *at, const struct inspect_out *out)
{
    char text[256], where[40];
    unsigned size = w->format == PAGING_32 ? 4 : 8;
    inspect_gpte_text(at->gpte, at->level, false, size, text, sizeof text);
    if (at->gpte_gpa == ~(gpa_t)0)
        snprintf(where, sizeof where, "register       ");
    else
        snprintf(where, sizeof where, "gpa 0x%-9" PRIx64, at->gpte_gpa);
    inspect_say(out, "  guest  %-5s %s 0x%016" PRIx64 " %s", level_names[at->level], where, at->gpte, text);
}

/* The spte of this level on the way to gva: NULL where the shadow ends. */
struct shadow_step {
    const struct shadow *sh;
    const struct sp *sp; /* of the level, or NULL */
};

static void shadow_begin(struct shadow_step *s, const struct mmu_vcpu *mv, gva_t gva)
{
    s->sh = shadow_of(mv->mmu);
    s->sp = NULL;
    const struct shadow_root *root = mv->set ? mv->set->root : NULL;
    if (root && root->sp[root_slot(root, gva)])
        s->sp = &s->sh->pages[root->sp[root_slot(root, gva)]];
}

static const uint64_t *shadow_at(const struct shadow_step *s, gva_t gva)
{
    return &sp_table(s->sh, s->sp)[sp_index(gva, (int)s->sp->role.level)];
}

static void print_shadow_level(struct shadow_step *s, gva_t gva, const struct inspect_out *out)
{
    char text[256];
    const uint64_t *sptep = shadow_at(s, gva);
    int level = (int)s->sp->role.level;
    inspect_spte_text(*sptep, level, text, sizeof text);
    inspect_say(out, "  shadow %-5s sp %-5u #%-3u     0x%016" PRIx64 " %s%s", level_names[level], s->sp->index,
                sp_index(gva, level), *sptep, text, s->sp->role.direct ? " (direct)" : "");
    s->sp = spte_is_link(*sptep, level) ? &s->sh->pages[spte_child(*sptep)] : NULL;
}

/* -mmu ept: what the second stage makes of a gpa. */
static void print_stage2(struct mmu_vcpu *mv, gpa_t gpa, const struct inspect_out *out)
{
    if (mv->mmu->ops->print_stage2 && gpa != ~(gpa_t)0)
        mv->mmu->ops->print_stage2(mv, gpa, out->line, out->ctx);
}

static void print_levels(const struct machine *m, struct mmu_vcpu *mv, const struct gwalk *w, gva_t gva,
                         const struct inspect_out *out)
{
    struct shadow_step s = {0};
    if (m->cfg.mmu == MACHINE_MMU_SHADOW)
        shadow_begin(&s, mv, gva);
    for (int level = 5; level >= 1; level--) {
        const struct gwalk_level *at = guest_level(w, level);
        if (at) {
            print_guest_level(w, at, out);
            print_stage2(mv, at->gpte_gpa, out);
        }
        if (s.sp && (int)s.sp->role.level == level)
            print_shadow_level(&s, gva, out);
        else if (at && s.sh && at->gpte_gpa != ~(gpa_t)0)
            inspect_say(out, "  shadow %-5s nothing", level_names[level]);
    }
}

static const char *walk_verdict(const struct gwalk *w)
{
    if (w->result == GWALK_NOMEM)
        return "no memory at the table's address";
    return w->error & PF_RSVD ? "reserved bit set" : w->error & PF_PRESENT ? "not permitted" : "not present";
}

/* ---- what is behind the gpa ---- */

static const char *slot_kind(const struct memslot *s)
{
    return s->kind == MEMSLOT_ROM ? "ROM" : s->kind == MEMSLOT_DEVICE ? "device" : "RAM";
}

static void print_slot(const struct machine *m, unsigned as, gfn_t gfn, const struct inspect_out *out)
{
    const struct memslot *s = memslot_find(m->mem, as, gfn);
    if (!s)
        inspect_say(out, "  slot   none: a device or nothing (generation %" PRIu64 ")", mem_generation(m->mem));
    else
        inspect_say(out, "  slot   gfn 0x%" PRIx64 " to 0x%" PRIx64 " %s, hva 0x%" PRIx64 " (generation %" PRIu64 ")",
                    s->base, s->base + s->pages - 1, slot_kind(s), (uint64_t)s->hva, mem_generation(m->mem));
}

static void print_tracking(const struct machine *m, unsigned as, gfn_t gfn, const struct inspect_out *out)
{
    inspect_say(out, "  track  page-table %u, code %u, watch %u, frame-buffer %u",
                track_count(m->mem, as, gfn, TRACK_PT), track_count(m->mem, as, gfn, TRACK_CODE),
                track_count(m->mem, as, gfn, TRACK_WATCH), track_count(m->mem, as, gfn, TRACK_FB));
}

static void print_host(const struct machine *m, unsigned as, gfn_t gfn, const struct inspect_out *out)
{
    static const char *const states[] = {"none", "present", "zero page", "swapped"};
    static const char *const sizes[] = {"", "", " huge", " gigantic"};
    const struct memslot *s = memslot_find(m->mem, as, gfn);
    if (!s)
        return;
    struct hpte_info h = host_mm_peek(m->mm, memslot_hva(s, gfn));
    inspect_say(out, "  host   hva 0x%" PRIx64 " %s%s%s%s%s%s", (uint64_t)memslot_hva(s, gfn),
                h.awaited                     ? "awaited"
                : h.state < ARRAY_LEN(states) ? states[h.state]
                                              : "in another state",
                h.writable ? " writable" : " read-only", h.accessed ? " accessed" : "", h.dirty ? " dirty" : "",
                sizes[h.level], h.readable ? "" : " no-access");
    if (h.state == HPTE_PRESENT || h.state == HPTE_ZERO)
        inspect_say(out, "  frame  0x%" PRIx64, (uint64_t)h.pfn);
}

/* ---- the soft TLB ---- */

struct tlb_look {
    const struct inspect_out *out;
    gva_t page;
    const struct tlb_set *current;
    unsigned found;
};

static void look_at_entry(void *ctx, struct mmu_vcpu *mv, const struct tlb_set *set, enum tlb_mode mode,
                          const struct tlb_entry *data, const struct tlb_fetch_entry *fetch,
                          const struct tlb_meta *meta)
{
    static const char *const modes[] = {"user", "supervisor", "supervisor with AC"};
    struct tlb_look *l = ctx;
    gva_t gva = data ? -data->ntag_r : -fetch->ntag;
    if (gva != l->page || set != l->current)
        return;
    l->found++;
    if (fetch)
        inspect_say(l->out, "  tlb    fetch, %s: gpa 0x%" PRIx64, modes[mode], fetch->gpa & ~PAGE_MASK);
    else
        inspect_say(l->out, "  tlb    data, %s: gpa 0x%" PRIx64 " read%s%s", modes[mode], data->gpa & ~PAGE_MASK,
                    data->ntag_w == data->ntag_r ? " write" : "",
                    data->gpa & TLB_GPA_WRITE_EMUL ? " writes-emulated" : "");
}

static void print_tlb(const struct machine *m, const struct mmu_vcpu *mv, gva_t gva, const struct inspect_out *out)
{
    struct tlb_look l = {.out = out, .page = gva & ~PAGE_MASK, .current = mv->set};
    tlb_for_each(m->mmu, look_at_entry, &l);
    if (!l.found)
        inspect_say(out, "  tlb    nothing");
}

void machine_print_mmu_walk(const struct machine *m, unsigned cpu, uint64_t gva, const struct inspect_out *out)
{
    struct mmu_vcpu *mv = m->cpu[cpu]->mv;
    unsigned as = mv->regs.as;
    struct gwalk w;
    gwalk(m->mem, &mv->regs, gva, ACCESS_READ | ACCESS_IMPLICIT | GWALK_PEEK, &w);
    inspect_say(out, "walk of gva 0x%" PRIx64 ": %s, cr3 0x%" PRIx64 ", processor %u", gva, format_names[w.format],
                mv->regs.cr3, cpu);
    print_levels(m, mv, &w, gva, out);
    if (w.result != GWALK_OK) {
        inspect_say(out, "  result no translation: %s", walk_verdict(&w));
        print_tlb(m, mv, gva, out);
        return;
    }
    gfn_t gfn = w.gpa >> PAGE_SHIFT;
    inspect_say(out, "  result gpa 0x%" PRIx64 " (gfn 0x%" PRIx64 "), level %d, %s %s %s%s%s", w.gpa, gfn, w.leaf_level,
                w.writable ? "writable" : "read-only", w.user ? "user" : "supervisor",
                w.nx ? "no-execute" : "executable", w.global ? " global" : "", w.dirty ? " dirty" : "");
    print_stage2(mv, w.gpa, out);
    print_slot(m, as, gfn, out);
    print_tracking(m, as, gfn, out);
    print_host(m, as, gfn, out);
    print_tlb(m, mv, gva, out);
}
