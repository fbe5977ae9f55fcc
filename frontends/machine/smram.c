#include "frontends/machine/smram.h"

#include "frontends/machine/hidden.h"
#include "frontends/machine/machine.h"
#include "mmu/mem.h"

#define BASE 0xa0000u
#define LEN  0x20000u

#define G_SMRAME 0x08
#define D_CLS    0x20
#define D_OPEN   0x40

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

/* ---- snapshots ---- */

static bool is_hidden(const struct machine *m, gpa_t gpa)
{
    return !m->smram.shown;
}

static const struct hidden smram = {"smram", 2, BASE, BASE + LEN, is_hidden};

void smram_save(const struct machine *m, struct snap_writer *w)
{
    hidden_save(&smram, m, w);
}

void smram_load(struct machine *m, struct snap_reader *r)
{
    hidden_load(&smram, m, r);
}
