/*
 * The A20 gate: one latch, which the keyboard controller's output port and port 0x92 both show and set.
 */
#ifndef DEVICES_A20_GATE_H
#define DEVICES_A20_GATE_H

#include "core/types.h"

struct snap_writer;
struct snap_reader;

struct a20_gate {
    bool open;                             /* address line 20 passes; true after reset, as firmware leaves it */
    void (*changed)(void *ctx, bool open); /* may be NULL */
    void *ctx;
};

void a20_gate_init(struct a20_gate *g, void (*changed)(void *ctx, bool open), void *ctx);
void a20_gate_reset(struct a20_gate *g);
/* Calls `changed` if the state differs. */
void a20_gate_set(struct a20_gate *g, bool open);
void a20_gate_save(const struct a20_gate *g, struct snap_writer *w);
/* Calls `changed` in any case. */
void a20_gate_load(struct a20_gate *g, struct snap_reader *r);

#endif
