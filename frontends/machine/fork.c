/*
 * Forking a machine: a child whose memory is a copy-on-write fork of the parent's host_mm, and whose processors and
 * devices are built anew and take the parent's state over as from a snapshot, memory apart. No page is copied here.
 *
 * hvas are the same on both sides, so the memslots are too. Everything cached (shadow pages, TLBs, decoded code) starts
 * empty in the child; the parent's loses its write rights through the bus, as in any fork.
 */
#include "core/host/host_ops.h"
#include "frontends/machine/hostside.h"
#include "frontends/machine/machine.h"

#include <stdlib.h>

static bool may_fork(const struct machine *m, struct error *e)
{
    if (m->parent)
        return error_set(e, "a forked machine cannot be forked");
    return m->forks < m->cfg.max_forks ||
           error_set(e, "there is room for %u forked machines at a time", m->cfg.max_forks);
}

/* What was asked for at this very boundary, and has not been done, is asked of the child as well. */
static void copy_run_state(struct machine *m, const struct machine *parent)
{
    m->started = parent->started;
    m->marker_seen = parent->marker_seen;
    m->marker_matched = parent->marker_matched;
    m->want.reset = parent->want.reset;
    m->want.quit = parent->want.quit;
    m->next_audit = parent->next_audit;
}

struct machine *machine_fork(struct machine *parent, const struct machine_fork_config *cfg, struct error *e)
{
    if (!may_fork(parent, e))
        return NULL;
    struct machine *m = calloc(1, sizeof *m);
    if (!m) {
        error_set(e, "out of memory");
        return NULL;
    }
    m->cfg = parent->cfg;
    m->cfg.host = cfg->host;
    m->cfg.log_out = cfg->log_out;
    m->parent = parent;
    parent->forks++;
    if (!machine_build(m, e)) {
        machine_destroy(m);
        return NULL;
    }
    copy_run_state(m, parent);
    hostside_start_child(m->hostside);
    return m;
}

struct machine_frames machine_frames(const struct machine *m)
{
    struct host_sharing n = host_mm_sharing(m->mm);
    return (struct machine_frames){
        .own = n.own, .shared = n.shared, .used = frame_pool_used(m->pool), .peak = frame_pool_peak(m->pool)};
}
