/*
 * What the guest's tables map: ranges of linear addresses with their rights, by walks that look only.
 */
#include "frontends/machine/inspect.h"

#include "frontends/machine/machine.h"
#include "mmu/gwalk.h"

#include <inttypes.h>

#define WALKS_MAX  (1u << 21) /* tables that lead to themselves map without end */
#define RANGES_MAX 2000

struct range {
    uint64_t start, bytes;
    bool mapped, writable, user, nx;
};

struct map {
    struct paging_regs regs;
    enum paging_format format;
    const struct inspect_out *out;
    struct range open; /* not printed yet; bytes 0: none */
    unsigned ranges;
};

/* Nothing but absence and reserved bits can stop a read with these. */
static struct paging_regs all_powerful(struct paging_regs r)
{
    r.cpl = 0;
    r.cr4 &= ~(uint64_t)CR4_SMAP;
    r.pkru = r.pkrs = 0;
    return r;
}

static unsigned address_bits(enum paging_format f)
{
    return f == PAGING_5LEVEL ? 57 : f == PAGING_4LEVEL ? 48 : 32;
}

/* log2 of what an entry of that level maps. */
static unsigned level_shift(enum paging_format f, int level)
{
    unsigned bits = f == PAGING_32 ? 10 : 9;
    return 12 + bits * (unsigned)(level - 1);
}

/* What the entry that decides about gva says, and up to where it does. */
static struct range look(const struct machine *m, const struct map *p, uint64_t gva)
{
    struct gwalk w;
    gwalk(m->mem, &p->regs, gva, ACCESS_READ | GWALK_PEEK, &w);
    bool mapped = w.result == GWALK_OK;
    int level = mapped ? w.leaf_level : w.depth ? w.at[w.depth - 1].level : 1;
    uint64_t size = 1ull << level_shift(p->format, level);
    struct range r = {.start = gva, .bytes = size - (gva & (size - 1)), .mapped = mapped};
    if (mapped) {
        r.writable = w.writable;
        r.user = w.user;
        r.nx = w.nx;
    }
    return r;
}

static void range_print(struct map *p)
{
    const struct range *r = &p->open;
    if (r->bytes && r->mapped) {
        p->ranges++;
        inspect_say(p->out, "%016" PRIx64 "-%016" PRIx64 " %12" PRIx64 " %c%c%c", r->start, r->start + r->bytes - 1,
                    r->bytes, r->user ? 'u' : '-', r->writable ? 'w' : 'r', r->nx ? '-' : 'x');
    }
    p->open.bytes = 0;
}

static bool continues(const struct range *r, const struct range *next)
{
    return r->bytes && r->start + r->bytes == next->start && r->mapped == next->mapped &&
           (!r->mapped || (r->writable == next->writable && r->user == next->user && r->nx == next->nx));
}

static void range_add(struct map *p, const struct range *r)
{
    if (continues(&p->open, r)) {
        p->open.bytes += r->bytes;
        return;
    }
    range_print(p);
    p->open = *r;
}

/* The addresses between the two halves are nobody's. */
static uint64_t canonical(uint64_t gva, unsigned bits)
{
    return bits > 32 && gva >> (bits - 1) & 1 ? gva | ~0ull << (bits - 1) : gva;
}

void machine_print_mappings(const struct machine *m, unsigned cpu, uint64_t from, const struct inspect_out *out)
{
    const struct paging_regs *r = &m->cpu[cpu]->mv->regs;
    struct map p = {.regs = all_powerful(*r), .format = paging_format_of(r), .out = out};
    unsigned bits = address_bits(p.format);
    uint64_t at = from & (~0ull >> (64 - bits)), end = 1ull << bits;
    if (p.format == PAGING_NONE) {
        inspect_say(out, "paging is off: addresses are physical ones");
        return;
    }
    at &= ~(uint64_t)PAGE_MASK;
    for (unsigned walks = 0; at < end && walks < WALKS_MAX && p.ranges < RANGES_MAX; walks++) {
        struct range next = look(m, &p, canonical(at, bits));
        range_add(&p, &next);
        at += next.bytes;
    }
    range_print(&p);
    if (at < end)
        inspect_say(out, "and so on from 0x%" PRIx64, canonical(at, bits));
    else if (!p.ranges)
        inspect_say(out, "nothing is mapped");
}
