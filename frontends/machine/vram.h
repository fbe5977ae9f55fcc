/*
 * The display adapter's memory: a region of the machine's host memory, and at most one memslot that shows it.
 *
 * The slot is BAR0, or the window at 0xa0000 while that is plain memory (devices/vga/vga.h); where neither can be, the
 * adapter answers on the bus. One slot at a time, so that a page has one gpa under which its writes are tracked; what
 * the adapter writes itself is reported under that gpa. SMRAM at the same place goes before the window.
 */
#ifndef FRONTENDS_MACHINE_VRAM_H
#define FRONTENDS_MACHINE_VRAM_H

#include "core/memory.h"
#include "core/snapshot.h"
#include "core/types.h"

struct machine;

struct vram {
    hva_t hva;
    bool shown; /* a slot shows [offset, offset + len) at gpa */
    gpa_t gpa;
    uint32_t offset, len;
    uint64_t changes; /* of the slot, for who keeps a dirty log of it */
};

/* The memory as the adapter sees it: addresses are offsets. */
void vram_hook(struct machine *m, struct guest_memory *out);
/* The adapter's mapping, or SMRAM's, changed. Fits vga_config.mapping_changed. */
void vram_update(void *machine);
/* Section "vram": the pages that no slot shows. */
void vram_save(const struct machine *m, struct snap_writer *w);
void vram_load(struct machine *m, struct snap_reader *r);

#endif
