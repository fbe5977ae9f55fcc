/* Dirty logs of memslots, and dirty rings; see dirty.h. The engine's part is mmu/shadow/dirty.c. */
#include "mmu/dirty.h"
#include "core/alloc.h"
#include "mmu/mem.h"

#include <stdlib.h>
#include <string.h>

/* Entries [reset, head) were harvested and wait for the reset; [head, tail) are to be harvested. Counters, not indices.
 */
struct dirty_ring {
    struct dirty_gfn *entry;
    uint64_t reset, head, tail;
};

static size_t log_words(const struct memslot *s)
{
    return (s->pages + 63) / 64;
}

static bool bit_test(const uint64_t *bits, uint64_t i)
{
    return __atomic_load_n(&bits[i / 64], __ATOMIC_RELAXED) >> (i % 64) & 1;
}

/* True if it was clear. */
static bool bit_set(uint64_t *bits, uint64_t i)
{
    uint64_t bit = 1ull << (i % 64);
    return !(__atomic_fetch_or(&bits[i / 64], bit, __ATOMIC_RELAXED) & bit);
}

/* ---- marking ---- */

/* Linux: kvm_dirty_ring_push. False: full. */
static bool ring_push(struct mem *m, unsigned vcpu, unsigned as, gfn_t gfn)
{
    struct dirty_ring *r = &m->rings[vcpu];
    if (r->tail - r->reset == m->ring_entries)
        return false;
    r->entry[r->tail++ & (m->ring_entries - 1)] = (struct dirty_gfn){.as = as, .gfn = gfn};
    return true;
}

/* Linux: mark_page_dirty_in_slot. */
void dirty_mark(struct mem *m, struct memslot *s, gfn_t gfn, int vcpu)
{
    struct dirty_log *log = s->dirty;
    uint64_t i = gfn - s->base;
    if (!log)
        return;
    if (log->ringed && vcpu >= 0 && (unsigned)vcpu < m->ring_count) {
        if (bit_test(log->ringed, i))
            return;
        if (ring_push(m, (unsigned)vcpu, s->as, gfn)) {
            bit_set(log->ringed, i);
            return;
        }
    }
    bit_set(log->bitmap, i);
}

void dirty_mark_gfn(struct mem *m, unsigned as, gfn_t gfn, int vcpu)
{
    struct memslot *s = memslot_find(m, as, gfn);
    if (s && s->dirty)
        dirty_mark(m, s, gfn, vcpu);
}

bool dirty_is_marked(const struct memslot *s, gfn_t gfn)
{
    const struct dirty_log *log = s->dirty;
    uint64_t i = gfn - s->base;
    return log && (bit_test(log->bitmap, i) || (log->ringed && bit_test(log->ringed, i)));
}

/* ---- starting, stopping, getting ---- */

static void engine_log(struct mem *m, struct memslot *s, gfn_t gfn, uint64_t pages, enum dirty_op op)
{
    mmu_lock(m->mmu);
    m->mmu->ops->dirty_log(m->mmu, s, gfn, pages, op);
    mmu_unlock(m->mmu);
}

void dirty_log_free(struct mem *m, struct memslot *s)
{
    if (!s->dirty)
        return;
    free(s->dirty->bitmap);
    free(s->dirty->ringed);
    free(s->dirty);
    s->dirty = NULL;
    m->dirty_logs--;
}

static struct dirty_log *log_new(const struct mem *m, const struct memslot *s, enum dirty_form form)
{
    struct dirty_log *log = calloc(1, sizeof *log);
    if (!log)
        return NULL;
    log->form = form;
    log->bitmap = calloc(log_words(s), sizeof *log->bitmap);
    log->ringed = m->rings ? calloc(log_words(s), sizeof *log->ringed) : NULL;
    if (!log->bitmap || (m->rings && !log->ringed)) {
        free(log->bitmap);
        free(log->ringed);
        free(log);
        return NULL;
    }
    return log;
}

int mem_dirty_log_start(struct mem *m, unsigned as, gpa_t gpa, enum dirty_form form)
{
    struct memslot *s = memslot_at_gpa(m, as, gpa);
    if (!s)
        return MEMSLOT_ERR_ABSENT;
    if (!m->mmu || !m->mmu->ops->dirty_log || (m->rings && form == DIRTY_BIT))
        return MEMSLOT_ERR_UNSUPPORTED;
    struct dirty_log *log = log_new(m, s, form);
    if (!log)
        return MEMSLOT_ERR_NOMEM;
    mmu_lock(m->mmu);
    dirty_log_free(m, s);
    s->dirty = log;
    m->dirty_logs++;
    m->mmu->ops->dirty_log(m->mmu, s, s->base, s->pages, DIRTY_OP_START);
    mmu_unlock(m->mmu);
    return MEMSLOT_OK;
}

int mem_dirty_log_stop(struct mem *m, unsigned as, gpa_t gpa)
{
    struct memslot *s = memslot_at_gpa(m, as, gpa);
    if (!s || !s->dirty)
        return MEMSLOT_ERR_ABSENT;
    host_mm_lock(m->cfg.mm); /* looked at for huge pages, and comes before the MMU lock */
    mmu_lock(m->mmu);
    dirty_log_free(m, s);
    m->mmu->ops->dirty_log(m->mmu, s, s->base, s->pages, DIRTY_OP_STOP);
    mmu_unlock(m->mmu);
    host_mm_unlock(m->cfg.mm);
    return MEMSLOT_OK;
}

int64_t mem_dirty_log_get_and_clear(struct mem *m, unsigned as, gpa_t gpa, uint64_t *out)
{
    struct memslot *s = memslot_at_gpa(m, as, gpa);
    int64_t n = 0;
    if (!s || !s->dirty)
        return MEMSLOT_ERR_ABSENT;
    engine_log(m, s, s->base, s->pages, DIRTY_OP_COLLECT);
    for (size_t w = 0; w < log_words(s); w++) {
        out[w] = __atomic_exchange_n(&s->dirty->bitmap[w], 0, __ATOMIC_RELAXED);
        n += __builtin_popcountll(out[w]);
        for (uint64_t left = out[w]; left; left &= left - 1)
            engine_log(m, s, s->base + w * 64 + (unsigned)__builtin_ctzll(left), 1, DIRTY_OP_CLEAN);
    }
    return n;
}

/* ---- rings ---- */

bool mem_dirty_rings_create(struct mem *m, unsigned vcpus, unsigned entries)
{
    if (entries < DIRTY_RING_MIN || entries > DIRTY_RING_MAX || (entries & (entries - 1)) || m->rings || m->dirty_logs)
        return false;
    m->rings = alloc_zeroed(vcpus, sizeof *m->rings);
    m->ring_count = vcpus;
    m->ring_entries = entries;
    for (unsigned i = 0; i < vcpus; i++)
        m->rings[i].entry = alloc_zeroed(entries, sizeof *m->rings[i].entry);
    return true;
}

void dirty_rings_free(struct mem *m)
{
    for (unsigned i = 0; i < m->ring_count; i++)
        free(m->rings[i].entry);
    free(m->rings);
}

bool mem_dirty_ring_is_soft_full(const struct mem *m, unsigned vcpu)
{
    if (vcpu >= m->ring_count)
        return false;
    const struct dirty_ring *r = &m->rings[vcpu];
    return r->tail - r->reset >= m->ring_entries - DIRTY_RING_RESERVED;
}

size_t mem_dirty_ring_harvest(struct mem *m, unsigned vcpu, struct dirty_gfn *out, size_t max)
{
    size_t n = 0;
    if (vcpu >= m->ring_count)
        return 0;
    struct dirty_ring *r = &m->rings[vcpu];
    while (n < max && r->head != r->tail)
        out[n++] = r->entry[r->head++ & (m->ring_entries - 1)];
    return n;
}

static void ring_entry_reset(struct mem *m, const struct dirty_gfn *e)
{
    struct memslot *s = memslot_find(m, e->as, e->gfn);
    if (!s || !s->dirty || !s->dirty->ringed)
        return; /* the slot went meanwhile */
    uint64_t i = e->gfn - s->base;
    __atomic_fetch_and(&s->dirty->ringed[i / 64], ~(1ull << (i % 64)), __ATOMIC_RELAXED);
    engine_log(m, s, e->gfn, 1, DIRTY_OP_CLEAN);
}

void mem_dirty_rings_reset(struct mem *m)
{
    for (unsigned i = 0; i < m->ring_count; i++) {
        struct dirty_ring *r = &m->rings[i];
        while (r->reset != r->head)
            ring_entry_reset(m, &r->entry[r->reset++ & (m->ring_entries - 1)]);
    }
}
