/*
 * System management RAM: the 128 KiB at 0xa0000, as the host bridge's SMRAM register shows and hides it.
 *
 * Source: Intel 82441FX data sheet, SMRAM register (0x72). With G_SMRAME set the range is RAM for a processor in system
 * management mode, and for everybody while D_OPEN is set; otherwise it belongs to the video card. The memslot comes and
 * goes with the register, with entry to and exit from the mode, and with the turns of the processors, since only the
 * one that runs may be seen to be in the mode. What is hidden keeps its content and is saved in a section of its own.
 * D_CLS (data, not code, goes to the video card) is named on LOG_UNIMP and has no effect.
 *
 * Invariant: there is a slot exactly if `shown`.
 */
#ifndef FRONTENDS_MACHINE_SMRAM_H
#define FRONTENDS_MACHINE_SMRAM_H

#include "core/types.h"

struct machine;
struct snap_writer;
struct snap_reader;

struct smram {
    uint8_t reg; /* the SMRAM register */
    bool shown;
};

/* The register was written, reset or loaded. */
void smram_changed(struct machine *m, uint8_t reg);
/* Another processor runs, or the one that runs is in another mode. */
void smram_update(struct machine *m);
/* Fits vcpu.on_smm; ctx is the machine. */
void smram_on_smm(void *ctx, bool entered);
/* Its content while it is hidden. Loading comes after the host bridge's and the turn's. */
void smram_save(const struct machine *m, struct snap_writer *w);
void smram_load(struct machine *m, struct snap_reader *r);

#endif
