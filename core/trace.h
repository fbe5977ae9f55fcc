/*
 * Tracepoints: fixed-size records in a ring, off by default and then free (one load and a branch, at events only).
 * Each is a row of core/trace.def.
 */
#ifndef CORE_TRACE_H
#define CORE_TRACE_H

#include "core/types.h"

#include <stdio.h>

enum trace_id {
#define TRACEPOINT(id, name, a, b, c, d) TRACE_##id,
#include "core/trace.def"
#undef TRACEPOINT
    TRACE_COUNT
};

struct trace_record {
    uint64_t icount;
    uint64_t arg[4];
    uint32_t id; /* enum trace_id */
};

struct vclock;

/* Called at a tracepoint, on whatever thread passes it and under the locks that are held there: may only look. */
typedef void trace_listener_fn(void *ctx, enum trace_id id, const uint64_t arg[4]);

struct trace {
    uint64_t enabled;            /* bit per trace_id, recorded or listened to; zero: everything is off */
    uint64_t recorded;           /* bit per trace_id: goes into the ring */
    uint64_t heard;              /* bit per trace_id: goes to the listener */
    trace_listener_fn *listener; /* a debugger's; NULL: none */
    void *listener_ctx;
    const struct vclock *clock; /* borrowed; stamps records */
    struct trace_record *ring;  /* owned; NULL until something is enabled */
    size_t capacity;            /* a power of two */
    uint64_t written;           /* records ever written; the ring holds the last `capacity` */
};

void trace_init(struct trace *t, const struct vclock *clock);
void trace_fini(struct trace *t);
/* Enables the tracepoints whose names match the comma-separated prefixes ("mmu.", "notifier.start", "all"). False:
 * nothing matched. */
bool trace_enable(struct trace *t, const char *list, size_t capacity);
/* Calls fn at the tracepoints of `ids` (a bit each); 0 ends it. One listener at a time. */
void trace_listen(struct trace *t, uint64_t ids, trace_listener_fn *fn, void *ctx);
/* "mmu.fault"; and the name of argument n, 0..3 ("" if there is none). */
const char *trace_name(enum trace_id id);
const char *trace_arg_name(enum trace_id id, unsigned n);
void trace_write(struct trace *t, enum trace_id id, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
void trace_dump(const struct trace *t, FILE *out);

static inline void trace_point(struct trace *t, enum trace_id id, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    if (unlikely(t->enabled) && ((t->enabled >> id) & 1))
        trace_write(t, id, a, b, c, d);
}

#endif
