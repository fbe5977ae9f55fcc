#include "core/host/chaos.h"
#include "fuzz_mmu.h"
#include "mmu/dirty.h"
#include "mmu/ept/ept.h"
#include "mmu/gfn_tree.h"
#include "mmu/mem.h"

#include <string.h>

/* ---- slots ---- */

static void slot_same(const struct pair *p, int a, int b)
{
    if (a || b)
        fuzz_fail(p->f, "step %lu: memslots: %s, %s", p->step, memslot_error_text(a), memslot_error_text(b));
}

static void extra_comes_or_goes(struct pair *p)
{
    enum memslot_kind kind = p->extra_rom ? MEMSLOT_ROM : MEMSLOT_RAM;
    note(p, "slot at %llx %s", (unsigned long long)p->extra_at, p->extra_present ? "goes" : "comes");
    if (p->extra_present)
        slot_same(p, mem_slot_delete(p->tested.mem, 0, p->extra_at), mem_slot_delete(p->walk.mem, 0, p->extra_at));
    else
        slot_same(p, mem_slot_add(p->tested.mem, 0, p->extra_at, EXTRA_PAGES * 4096, p->tested.extra, kind),
                  mem_slot_add(p->walk.mem, 0, p->extra_at, EXTRA_PAGES * 4096, p->walk.extra, kind));
    p->extra_present = !p->extra_present;
    if (chance(p, 10)) /* a wrap of what an mmio spte keeps of it is near */
        p->tested.mem->generation |= 0x7fe;
}

static void extra_moves(struct pair *p)
{
    gpa_t to = (EXTRA_FIRST + below(p, 8)) * 4096;
    note(p, "slot moves to %llx", (unsigned long long)to);
    slot_same(p, mem_slot_move(p->tested.mem, 0, p->extra_at, to), mem_slot_move(p->walk.mem, 0, p->extra_at, to));
    p->extra_at = to;
}

static void extra_changes_kind(struct pair *p)
{
    p->extra_rom = !p->extra_rom;
    enum memslot_kind kind = p->extra_rom ? MEMSLOT_ROM : MEMSLOT_RAM;
    note(p, "slot becomes %s", p->extra_rom ? "ROM" : "RAM");
    slot_same(p, mem_slot_set_kind(p->tested.mem, 0, p->extra_at, kind),
              mem_slot_set_kind(p->walk.mem, 0, p->extra_at, kind));
}

static void big_comes_or_goes(struct pair *p)
{
    gpa_t at = BIG_FIRST * 4096;
    note(p, "big slot %s", p->big_present ? "goes" : "comes");
    if (p->big_present)
        slot_same(p, mem_slot_delete(p->tested.mem, 0, at), mem_slot_delete(p->walk.mem, 0, at));
    else
        slot_same(p, mem_slot_add(p->tested.mem, 0, at, BIG_PAGES * 4096, p->tested.big, MEMSLOT_RAM),
                  mem_slot_add(p->walk.mem, 0, at, BIG_PAGES * 4096, p->walk.big, MEMSLOT_RAM));
    p->big_present = !p->big_present;
}

static void step_slots(struct pair *p)
{
    switch (below(p, 5)) {
    case 0:
        if (p->extra_present)
            extra_moves(p);
        break;
    case 1:
        if (p->extra_present)
            extra_changes_kind(p);
        break;
    case 2:
        if (chance(p, 30))
            big_comes_or_goes(p);
        break;
    default:
        extra_comes_or_goes(p);
    }
}

/* ---- dirty logging ---- */

static void remember_clean(struct pair *p)
{
    for (gfn_t gfn = 0; gfn < RAM_PAGES; gfn++)
        p->clean[gfn] = page_hash(&p->tested, gfn);
}

static void log_starts(struct pair *p)
{
    enum dirty_form form = p->rings || chance(p, 50) ? DIRTY_WRITE_PROTECT : DIRTY_BIT;
    int error = mem_dirty_log_start(p->tested.mem, 0, 0, form);
    note(p, "dirty log starts, form %d: %d", form, error);
    if (error)
        return;
    p->logging = true;
    memset(p->ringed, 0, sizeof p->ringed);
    remember_clean(p);
}

static void rings_harvest(struct pair *p, uint64_t *bits)
{
    struct dirty_gfn g[64];
    for (unsigned cpu = 0; p->rings && cpu < VCPUS; cpu++) {
        for (size_t n; (n = mem_dirty_ring_harvest(p->tested.mem, cpu, g, ARRAY_LEN(g)));) {
            for (size_t i = 0; i < n; i++) {
                if (!g[i].as && g[i].gfn < RAM_PAGES)
                    *bits |= 1ull << g[i].gfn;
            }
        }
    }
    if (p->rings)
        mem_dirty_rings_reset(p->tested.mem);
}

void dirty_log_check(struct pair *p)
{
    uint64_t bits = 0;
    if (!p->logging)
        return;
    if (mem_dirty_log_get_and_clear(p->tested.mem, 0, 0, &bits) < 0)
        fuzz_fail(p->f, "step %lu: no dirty log", p->step);
    rings_harvest(p, &bits);
    note(p, "dirty log is read: %llx", (unsigned long long)bits);
    for (gfn_t gfn = 0; gfn < RAM_PAGES; gfn++) {
        if (page_hash(&p->tested, gfn) != p->clean[gfn] && !(bits >> gfn & 1))
            fuzz_fail(p->f, "step %lu: page %llx was written and is not in the dirty log", p->step,
                      (unsigned long long)gfn);
    }
    remember_clean(p);
}

static void pml_page(void *ctx, unsigned as, gfn_t gfn)
{
    struct pair *p = ctx;
    if (!as && gfn < RAM_PAGES)
        p->pml_written &= ~(1ull << gfn);
}

void pml_check(struct pair *p)
{
    if (!p->pml)
        return;
    uint64_t n = ept_dirty_log_harvest(p->tested.mmu, 0, 0, GFN_LIMIT, pml_page, p);
    note(p, "the processor's log is read: %llu pages", (unsigned long long)n);
    if (p->pml_written)
        fuzz_fail(p->f, "step %lu: pages %llx were written and are not in the processor's log", p->step,
                  (unsigned long long)p->pml_written);
}

static void step_pml(struct pair *p)
{
    pml_check(p);
    if (chance(p, 80))
        return;
    note(p, "the processor's log %s", p->pml ? "ends" : "begins");
    if (p->pml)
        ept_dirty_log_stop(p->tested.mmu);
    p->pml = !p->pml && ept_dirty_log_start(p->tested.mmu);
    p->pml_written = 0;
}

static void step_dirty(struct pair *p)
{
    if (p->kind == MMU_EPT && chance(p, 50))
        step_pml(p);
    else if (!p->logging)
        log_starts(p);
    else if (chance(p, 80))
        dirty_log_check(p);
    else if (mem_dirty_log_stop(p->tested.mem, 0, 0) == MEMSLOT_OK)
        p->logging = false;
}

/* ---- the host ---- */

static void step_track(struct pair *p)
{
    gfn_t gfn = below(p, RAM_PAGES);
    note(p, "code tracking of gfn %llx %s", (unsigned long long)gfn, p->tracked[gfn] ? "ends" : "begins");
    for (int i = 0; i < 2; i++)
        (p->tracked[gfn] ? track_remove : track_add)(i ? p->walk.mem : p->tested.mem, 0, gfn, TRACK_CODE);
    p->tracked[gfn] ^= 1;
}

/* Content goes: on both sides. */
static void drop_content(struct pair *p)
{
    gpa_t at = (gpa_t)below(p, RAM_PAGES) * 4096;
    note(p, "content of %llx dropped", (unsigned long long)at);
    host_mm_dontneed(p->tested.mm, p->tested.ram + at, 4096);
    host_mm_dontneed(p->walk.mm, p->walk.ram + at, 4096);
    if (p->logging) /* the host's doing, not a guest's write */
        p->clean[at >> 12] = page_hash(&p->tested, at >> 12);
}

/* Outside of any merge, and for the frame that is there: sptes lose rights, or go. */
static void bare_change_pte(struct pair *p, hva_t hva)
{
    struct hpte_info info = host_mm_peek(p->tested.mm, hva);
    if (info.state == HPTE_PRESENT)
        notify_change_pte(p->tested.mm, hva,
                          (struct hpte_view){.pfn = info.pfn, .writable = info.writable && chance(p, 20)});
}

static void one_page(struct pair *p)
{
    hva_t hva = chance(p, 80) ? p->tested.ram + below(p, RAM_PAGES) * 4096 : p->tested.big + below(p, BIG_PAGES) * 4096;
    uint64_t len = (1 + below(p, 4)) * 4096;
    unsigned k = below(p, 9);
    note(p, "host event %u at %llx", k, (unsigned long long)hva);
    switch (k) {
    case 0:
        host_mm_mprotect(p->tested.mm, hva, len, HOST_READ);
        host_mm_mprotect(p->tested.mm, hva, len, HOST_READ | HOST_WRITE);
        break;
    case 1:
        host_mm_migrate(p->tested.mm, hva);
        break;
    case 2:
        host_mm_swap_out(p->tested.mm, hva);
        break;
    case 3:
        notify_clear_flush_young(p->tested.mm, hva, hva + len);
        break;
    case 4:
        notify_clear_young(p->tested.mm, hva, hva + len);
        notify_test_young(p->tested.mm, hva);
        break;
    case 5:
        host_mm_soft_dirty_clear(p->tested.mm, hva, len);
        break;
    case 6:
        bare_change_pte(p, hva);
        break;
    case 7:
        host_mm_collapse(p->tested.mm, p->tested.big + below(p, 2) * 0x200000);
        break;
    default:
        host_mm_split(p->tested.mm, p->tested.big + below(p, 2) * 0x200000);
    }
}

void step_host(struct pair *p)
{
    switch (below(p, 12)) {
    case 0:
    case 1:
        step_slots(p);
        break;
    case 2:
        note(p, "zap all");
        mmu_zap_all(p->tested.mmu);
        break;
    case 3:
        note(p, "shrink");
        mmu_shrink(p->tested.mmu, 1 + below(p, 8));
        break;
    case 4:
        step_track(p);
        break;
    case 5:
        if (chance(p, 20))
            drop_content(p);
        break;
    case 6:
        tlb_flush_all(chance(p, 50) ? p->tested.mmu : p->walk.mmu);
        break;
    case 7:
        step_dirty(p);
        break;
    case 8:
    case 9:
        note(p, "host event %s", host_chaos_op_name(host_chaos_run_one(p->chaos)));
        break;
    default:
        one_page(p);
    }
}
