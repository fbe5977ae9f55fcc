#include "mmu/mem_mirror.h"

#include "mmu/mem.h"

#include <stdlib.h>

struct mem_mirror {
    struct mem *mem, *owner;
    struct track_listener listener; /* in the owner */
    uint64_t writes;
};

static bool on_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct mem_mirror *x = container_of(l, struct mem_mirror, listener);
    if (!track_mask(x->mem, as, gpa >> PAGE_SHIFT)) /* watched for somebody else */
        return true;
    x->writes++;
    mem_written(x->mem, as, gpa, len);
    return true;
}

void mem_mirror_link(struct mem *m, struct mem *owner)
{
    struct mem_mirror *x = alloc_zeroed(1, sizeof *x);
    *x = (struct mem_mirror){.mem = m, .owner = owner, .listener = {.write = on_write, .kind = TRACK_WATCH}};
    track_register(owner, &x->listener);
    m->mirror = x;
}

/* What is still tracked here is watched there no longer. */
static void unwatch_all(struct mem_mirror *x)
{
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        void *chunk;
        for (gfn_t g = gfn_tree_next(&x->mem->track[as], 0, GFN_LIMIT, &chunk); g < GFN_LIMIT;
             g = gfn_tree_next(&x->mem->track[as], (g | (GFN_CHUNK - 1)) + 1, GFN_LIMIT, &chunk)) {
            const struct track_chunk *c = chunk;
            gfn_t first = g & ~(gfn_t)(GFN_CHUNK - 1);
            for (unsigned i = 0; i < GFN_CHUNK; i++)
                if (c->mask[i])
                    track_remove(x->owner, as, first + i, TRACK_WATCH);
        }
    }
}

void mem_mirror_unlink(struct mem *m)
{
    struct mem_mirror *x = m->mirror;
    if (!x)
        return;
    unwatch_all(x);
    track_unregister(x->owner, &x->listener);
    m->mirror = NULL;
    free(x);
}

uint64_t mem_mirror_writes(const struct mem *m)
{
    return m->mirror ? m->mirror->writes : 0;
}

void mem_mirror_track(struct mem *m, unsigned as, gfn_t gfn, bool on)
{
    if (on)
        track_add(m->mirror->owner, as, gfn, TRACK_WATCH);
    else
        track_remove(m->mirror->owner, as, gfn, TRACK_WATCH);
}
