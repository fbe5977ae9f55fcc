/* How a guest-physical address is translated, for debuggers and reports. Looks only. */
#include "mmu/ept/ept_internal.h"

#include <inttypes.h>
#include <stdio.h>

static const char *memory_type(uint64_t entry)
{
    static const char *const names[] = {"UC", "WC", "2?", "3?", "WT", "WP", "WB", "7?"};
    return names[(entry & EPT_MT_MASK) >> EPT_MT_SHIFT];
}

static void entry_flags(uint64_t e, char text[16])
{
    static const struct {
        uint64_t bit;
        char letter;
    } bits[] = {{EPT_R, 'R'}, {EPT_W, 'W'}, {EPT_X, 'X'},      {EPT_IPAT, 'I'},       {EPT_LARGE, 'S'},
                {EPT_A, 'A'}, {EPT_D, 'D'}, {EPT_HOST_W, 'H'}, {EPT_SUPPRESS_VE, 'V'}};
    unsigned n = 0;
    for (; n < ARRAY_LEN(bits); n++)
        text[n] = e & bits[n].bit ? bits[n].letter : '-';
    text[n] = 0;
}

static void verdict(const struct ept *e, const struct ept_walk *w, char *text, size_t size)
{
    const struct ept_walk_level *last = &w->at[w->depth ? w->depth - 1 : 0];
    if (w->exceeds_gaw)
        snprintf(text, size, "beyond the guest address width");
    else if (w->result == EPT_WALK_OK)
        snprintf(text, size, "hpa 0x%" PRIx64 " level %d", w->hpa, w->leaf_level);
    else if (w->result == EPT_WALK_VIOLATION)
        snprintf(text, size, "violation: not present");
    else if (ept_is_marker(last->entry))
        snprintf(text, size, "misconfiguration: marks MMIO, generation %s",
                 ept_marker_is_current(last->entry, mem_generation(e->mmu->mem)) ? "current" : "old");
    else
        snprintf(text, size, "misconfiguration: %s", ept_misconfig(e, last->entry, last->level));
}

void ept_print(struct mmu_vcpu *mv, gpa_t gpa, void (*line)(void *ctx, const char *text), void *ctx)
{
    struct ept *e = ept_of(mv->mmu);
    struct ept_walk w;
    char text[160], flags[16], end[96];
    ept_walk(e, mv->regs.as, gpa, 0, NULL, true, &w);
    for (int i = 0; i < w.depth; i++) {
        const struct ept_walk_level *at = &w.at[i];
        bool leaf = ept_is_leaf(at->entry, at->level);
        entry_flags(at->entry, flags);
        snprintf(text, sizeof(text), "      ept level %d = %016" PRIx64 " %s%s%s", at->level, at->entry, flags,
                 leaf ? " " : "", leaf ? memory_type(at->entry) : "");
        line(ctx, text);
    }
    verdict(e, &w, end, sizeof(end));
    snprintf(text, sizeof(text), "      gpa 0x%" PRIx64 " -> %s", gpa, end);
    line(ctx, text);
}
