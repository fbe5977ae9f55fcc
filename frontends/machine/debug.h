/*
 * Running a machine under a debugger: breakpoints, watchpoints, stops at events of the MMU.
 *
 * A stop is always at an instruction boundary. Nothing of it reaches the guest: breakpoints are compared with the
 * address of the next instruction, never written into memory; watchpoints are tracked gfns (writes) or a bypassed soft
 * TLB (reads); events come from tracepoints. A run that was stopped and stepped has the digest of one that was not.
 */
#ifndef FRONTENDS_MACHINE_DEBUG_H
#define FRONTENDS_MACHINE_DEBUG_H

#include "frontends/machine/inspect.h"

struct debug;
struct host_mm;

enum debug_kind { DEBUG_BREAK, DEBUG_WATCH_WRITE, DEBUG_WATCH_READ, DEBUG_WATCH_ACCESS, DEBUG_EVENT };

struct debug_point {
    int id; /* from 1 */
    enum debug_kind kind;
    uint64_t gva, len;     /* break: gva; watch: both */
    uint64_t gpa;          /* write watch: what gva was translated to when it was set */
    uint64_t events;       /* event: mask of tracepoints */
    bool has_gfn, has_gva; /* event: only about this gfn, this page */
    uint64_t gfn;
    uint64_t hits;
};

#define DEBUG_POINTS_MAX 256
#define DEBUG_WATCH_MAX  (1u << 20) /* bytes of one watchpoint */

/* What happened to one spte in an event. */
struct debug_spte {
    uint32_t sp;
    unsigned index;
    int level;
    uint64_t before, after; /* after: at the boundary where the machine stopped */
    bool gone;              /* its shadow page was zapped */
};

/* An event of the MMU. */
struct debug_event {
    unsigned id; /* enum trace_id */
    uint64_t icount, rip, arg[4];
    /* A tracked write: the guest entry (8-byte word) that it began in. */
    bool has_entry, entry_known; /* known: `before` is */
    uint64_t entry_gpa, entry_before, entry_after;
    unsigned entry_size;
    unsigned sptes;
    struct debug_spte spte[4];
    int point; /* the point it matched, 0: none */
};

enum debug_why {
    DEBUG_STEPPED,
    DEBUG_AT_BREAK,
    DEBUG_AT_WATCH,
    DEBUG_AT_EVENT,
    DEBUG_INTERRUPTED, /* the front end's poll, or an input script's quit */
    DEBUG_ENDED
};

struct debug_stop {
    enum debug_why why;
    unsigned cpu;          /* which vCPU it was; where nothing else is meant, the one that is next */
    int point;             /* break, watch */
    uint64_t gva;          /* watch: the address that was touched */
    bool write;            /* watch */
    enum machine_exit end; /* ended */
};

/* Attaches to a machine; NULL: one is attached, or no memory. Detach before the machine is destroyed. */
struct debug *debug_attach(struct machine *m);
void debug_detach(struct debug *d);

/* Return the point's id, or 0 with an error. */
int debug_add_break(struct debug *d, uint64_t gva, struct error *e);
int debug_add_watch(struct debug *d, enum debug_kind kind, uint64_t gva, uint64_t len, struct error *e);
/* template: events, has_gfn, gfn, has_gva, gva are used. */
int debug_add_event(struct debug *d, const struct debug_point *template, struct error *e);
bool debug_remove(struct debug *d, int id);
size_t debug_point_count(const struct debug *d);
const struct debug_point *debug_point_at(const struct debug *d, size_t i);
const struct debug_point *debug_point_find(const struct debug *d, int id);

/* Runs until a point is met, `steps` units of position have passed (0: no limit), or an event of `events` comes. */
enum debug_why debug_run(struct debug *d, uint64_t steps, uint64_t events, struct debug_stop *stop);

/* One boundary on for this vCPU; if it is another's turn, the others run until it is not. */
enum debug_why debug_step_cpu(struct debug *d, unsigned cpu, struct debug_stop *stop);

/* Events of the last stop, from the one that stopped, in order; taking removes. NULL: none left. Valid until the next
 * run. */
const struct debug_event *debug_event_take(struct debug *d);
/* Keeps a forked copy of the machine's memory, in place of an earlier one, until the debugger detaches. */
void debug_keep_child(struct debug *d, struct host_mm *child);
/* Notes the events of host operations made between runs as well. */
void debug_listen(struct debug *d, uint64_t events);

/* Names of events: fault, fill, tracked-write, zap, sync, flush, notifier, exit, or a tracepoint's own name, or the
 * beginning of several ("mmu."). 0: unknown. */
uint64_t debug_events_of(const char *name);
/* All that `mmu step` stops at. */
uint64_t debug_events_mmu(void);
/* Do all events of the mask have a gva (gfn) to filter by? */
bool debug_events_have_gva(uint64_t events);
bool debug_events_have_gfn(uint64_t events);
/* Names for a list, NULL ends it. */
const char *const *debug_event_names(void);
void debug_print_event(const struct debug *d, const struct debug_event *ev, const struct inspect_out *out);

/* For machine/run.c: units until the debugger wants a stop; does it want one now? */
uint64_t debug_units_left(const struct debug *d);
bool debug_wants_stop(const struct debug *d);

#endif
