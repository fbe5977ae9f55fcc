#include "devices/a20_gate.h"

#include "core/snapshot.h"

void a20_gate_init(struct a20_gate *g, void (*changed)(void *ctx, bool open), void *ctx)
{
    *g = (struct a20_gate){.open = true, .changed = changed, .ctx = ctx};
}

void a20_gate_reset(struct a20_gate *g)
{
    a20_gate_set(g, true);
}

void a20_gate_set(struct a20_gate *g, bool open)
{
    if (g->open == open)
        return;
    g->open = open;
    if (g->changed)
        g->changed(g->ctx, open);
}

void a20_gate_save(const struct a20_gate *g, struct snap_writer *w)
{
    snap_begin(w, "a20_gate", 1);
    snap_put_u8(w, g->open);
    snap_end(w);
}

void a20_gate_load(struct a20_gate *g, struct snap_reader *r)
{
    if (!snap_expect(r, "a20_gate", 1))
        return;
    g->open = snap_get_u8(r) != 0;
    if (g->changed)
        g->changed(g->ctx, g->open);
}
