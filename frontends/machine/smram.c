#include "frontends/machine/smram.h"

#include "core/digest.h"
#include "core/snapshot.h"
#include "frontends/machine/machine.h"
#include "mmu/mem.h"

#include <string.h>

#define BASE 0xa0000u
#define LEN  0x20000u

#define G_SMRAME 0x08
#define D_CLS    0x20
#define D_OPEN   0x40

#define SECTION         "smram"
#define SECTION_VERSION 2
#define SECTION_END     UINT32_MAX

static bool wants_shown(const struct machine *m)
{
    if (!(m->smram.reg & G_SMRAME))
        return false;
    return m->smram.reg & D_OPEN || m->cpu[m->turn]->in_smm;
}

void smram_update(struct machine *m)
{
    bool shown = wants_shown(m);
    int bad = MEMSLOT_OK;
    if (shown == m->smram.shown)
        return;
    m->smram.shown = shown;
    if (!shown)
        mem_slot_delete(m->mem, 0, BASE);
    if (!m->cfg.no_vga) /* its window is at the same place */
        vram_update(m);
    if (shown)
        bad = mem_slot_add(m->mem, 0, BASE, LEN, m->low_hva + BASE, MEMSLOT_RAM);
    if (bad)
        log_error("SMRAM: %s", memslot_error_text(bad));
}

void smram_changed(struct machine *m, uint8_t reg)
{
    if (reg & D_CLS && !(m->smram.reg & D_CLS))
        log_emit(&m->log, LOG_UNIMP, "host bridge: SMRAM closed to data (SMRAM register 0x%02x)", reg);
    m->smram.reg = reg;
    smram_update(m);
}

void smram_on_smm(void *ctx, bool entered)
{
    (void)entered;
    smram_update(ctx);
}

/* ---- snapshots: pages { u32 gfn, bytes } that are not all zeros, while no slot shows them ---- */

static const void *page_peek(const struct machine *m, gpa_t gpa)
{
    const void *page = host_mm_peek_content(m->mm, m->low_hva + gpa);
    return page && !digest_page_is_zero(page) ? page : NULL;
}

static bool page_poke(struct machine *m, gpa_t gpa, const void *bytes)
{
    struct gup_result g;
    if (host_mm_gup(m->mm, m->low_hva + gpa, true, &g))
        return false;
    memcpy(g.ptr, bytes, PAGE_SIZE);
    return true;
}

void smram_save(const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, SECTION, SECTION_VERSION);
    for (gpa_t gpa = BASE; gpa < BASE + LEN && !m->smram.shown; gpa += PAGE_SIZE) {
        const void *page = page_peek(m, gpa);
        if (!page)
            continue;
        snap_put_u32(w, (uint32_t)(gpa >> PAGE_SHIFT));
        snap_put_packed(w, page, PAGE_SIZE);
    }
    snap_put_u32(w, SECTION_END);
    snap_end(w);
}

static void hidden_clear(struct machine *m, struct snap_reader *r)
{
    static const uint8_t zeros[PAGE_SIZE];
    for (gpa_t gpa = BASE; gpa < BASE + LEN && !m->smram.shown; gpa += PAGE_SIZE)
        if (page_peek(m, gpa) && !page_poke(m, gpa, zeros))
            snap_fail(r, "no host memory");
}

void smram_load(struct machine *m, struct snap_reader *r)
{
    uint8_t page[PAGE_SIZE];
    if (!snap_expect(r, SECTION, SECTION_VERSION))
        return;
    hidden_clear(m, r);
    for (;;) {
        uint32_t gfn = snap_get_u32(r);
        if (gfn == SECTION_END || snap_reader_error(r))
            return;
        gpa_t gpa = (gpa_t)gfn << PAGE_SHIFT;
        snap_get_packed(r, page, sizeof page);
        if (m->smram.shown || gpa < BASE || gpa >= BASE + LEN || !page_poke(m, gpa, page))
            snap_fail(r, "SMRAM at 0x%llx is not hidden here", (unsigned long long)gpa);
    }
}
