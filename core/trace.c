#include "core/trace.h"

#include "core/alloc.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct point {
    const char *name;
    const char *arg[4]; /* "" ends the list */
};

static const struct point points[TRACE_COUNT] = {
#define TRACEPOINT(id, name, a, b, c, d) [TRACE_##id] = {name, {a, b, c, d}},
#include "core/trace.def"
#undef TRACEPOINT
};

_Static_assert(TRACE_COUNT <= 64, "trace.enabled has a bit for each tracepoint");

void trace_init(struct trace *t, const struct vclock *clock)
{
    *t = (struct trace){.clock = clock};
}

void trace_fini(struct trace *t)
{
    free(t->ring);
    *t = (struct trace){.clock = t->clock};
}

static bool name_matches(const char *name, const char *prefix, size_t len)
{
    return strncmp(name, prefix, len) == 0 || (len == 3 && memcmp(prefix, "all", 3) == 0);
}

static uint64_t bits_of_prefix(const char *prefix, size_t len)
{
    uint64_t bits = 0;
    for (int i = 0; len && i < TRACE_COUNT; i++)
        if (name_matches(points[i].name, prefix, len))
            bits |= 1ull << i;
    return bits;
}

static size_t round_up_power_of_two(size_t n)
{
    size_t p = 1;
    while (p < n && p < SIZE_MAX / 2 / sizeof(struct trace_record))
        p *= 2;
    return p;
}

bool trace_enable(struct trace *t, const char *list, size_t capacity)
{
    uint64_t bits = 0;
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        bits |= bits_of_prefix(p, n);
        p += n + (p[n] == ',');
    }
    if (!bits)
        return false;
    if (!t->ring) {
        t->capacity = round_up_power_of_two(capacity);
        t->ring = alloc_zeroed(t->capacity, sizeof *t->ring);
        t->written = 0;
    }
    t->recorded |= bits;
    t->enabled = t->recorded | t->heard;
    return true;
}

void trace_listen(struct trace *t, uint64_t ids, trace_listener_fn *fn, void *ctx)
{
    t->listener = fn;
    t->listener_ctx = ctx;
    t->heard = ids;
    t->enabled = t->recorded | t->heard;
}

const char *trace_name(enum trace_id id)
{
    return points[id].name;
}

const char *trace_arg_name(enum trace_id id, unsigned n)
{
    return points[id].arg[n];
}

void trace_write(struct trace *t, enum trace_id id, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    if (t->heard >> id & 1)
        t->listener(t->listener_ctx, id, (const uint64_t[4]){a, b, c, d});
    if (!t->ring || !(t->recorded >> id & 1))
        return;
    t->ring[t->written++ & (t->capacity - 1)] =
        (struct trace_record){.icount = t->clock ? t->clock->icount : 0, .arg = {a, b, c, d}, .id = id};
}

static void print_record(const struct trace_record *r, FILE *out)
{
    const struct point *p = &points[r->id];
    fprintf(out, "%" PRIu64 " %s", r->icount, p->name);
    for (int i = 0; i < 4 && p->arg[i][0]; i++)
        fprintf(out, " %s=%#" PRIx64, p->arg[i], r->arg[i]);
    putc('\n', out);
}

void trace_dump(const struct trace *t, FILE *out)
{
    uint64_t first = t->written > t->capacity ? t->written - t->capacity : 0;
    for (uint64_t i = first; i < t->written; i++)
        print_record(&t->ring[i & (t->capacity - 1)], out);
}
