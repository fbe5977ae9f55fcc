/*
 * Memslots: which gfn ranges are memory, and which hvas back them (Linux: kvm_memslots, __kvm_set_memory_region).
 *
 * Each address space has its slots in an array sorted by gfn, searched by bisection after a look at the last hit. Slots
 * are few; they change rarely, and each change advances the generation, which is what makes stale MMIO sptes die.
 */
#include "core/alloc.h"
#include "mmu/dirty.h"
#include "mmu/mem.h"

#include <stdlib.h>
#include <string.h>

#define GPA_LIMIT (1ull << 52)

const char *memslot_error_text(int error)
{
    switch (error) {
    case MEMSLOT_OK:
        return "no error";
    case MEMSLOT_ERR_OVERLAP:
        return "meets another slot of the address space";
    case MEMSLOT_ERR_ALIGN:
        return "address or length is not a multiple of the page size";
    case MEMSLOT_ERR_RANGE:
        return "empty, beyond 52 address bits, or no such address space";
    case MEMSLOT_ERR_ABSENT:
        return "no slot starts there";
    case MEMSLOT_ERR_NOMEM:
        return "out of memory";
    case MEMSLOT_ERR_UNSUPPORTED:
        return "not supported by this -mmu";
    }
    return "unknown memslot error";
}

static inline bool slot_holds(const struct memslot *s, gfn_t gfn)
{
    return gfn - s->base < s->pages;
}

/* Index of the first slot that ends after gfn. */
static size_t slot_lower(const struct mem *m, unsigned as, gfn_t gfn)
{
    size_t lo = 0, hi = m->slot_count[as];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct memslot *s = m->slots[as][mid];
        if (s->base + s->pages <= gfn)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct memslot *memslot_find(const struct mem *m, unsigned as, gfn_t gfn)
{
    size_t hint = __atomic_load_n(&m->slot_hint[as], __ATOMIC_RELAXED); /* several threads refresh gfn caches */
    if (likely(hint < m->slot_count[as] && slot_holds(m->slots[as][hint], gfn)))
        return m->slots[as][hint];
    size_t i = slot_lower(m, as, gfn);
    if (i == m->slot_count[as] || !slot_holds(m->slots[as][i], gfn))
        return NULL;
    __atomic_store_n(&((struct mem *)m)->slot_hint[as], i, __ATOMIC_RELAXED); /* a hint: no part of the value */
    return m->slots[as][i];
}

/* `except` (may be NULL): a slot that is about to go away. */
static int slot_check(const struct mem *m, unsigned as, gpa_t gpa, uint64_t len, hva_t hva,
                      const struct memslot *except)
{
    if (as >= MEM_ADDRESS_SPACES || !len || gpa >= GPA_LIMIT || len > GPA_LIMIT - gpa)
        return MEMSLOT_ERR_RANGE;
    if ((gpa | len | hva) & PAGE_MASK)
        return MEMSLOT_ERR_ALIGN;
    if (hva + len < hva)
        return MEMSLOT_ERR_RANGE;
    size_t i = slot_lower(m, as, gpa >> PAGE_SHIFT);
    i += i < m->slot_count[as] && m->slots[as][i] == except;
    if (i < m->slot_count[as] && m->slots[as][i]->base < (gpa + len) >> PAGE_SHIFT)
        return MEMSLOT_ERR_OVERLAP;
    return MEMSLOT_OK;
}

const char *mem_slot_error_text(int error)
{
    switch (error) {
    case MEMSLOT_OK:
        return "done";
    case MEMSLOT_ERR_OVERLAP:
        return "it overlaps another slot";
    case MEMSLOT_ERR_ALIGN:
        return "it does not begin and end at pages";
    case MEMSLOT_ERR_RANGE:
        return "it is empty, or lies outside of what can be addressed";
    case MEMSLOT_ERR_ABSENT:
        return "no slot begins there";
    case MEMSLOT_ERR_NOMEM:
        return "out of memory";
    case MEMSLOT_ERR_UNSUPPORTED:
        return "not with this -mmu";
    default:
        return "unknown error";
    }
}

int mem_slot_add(struct mem *m, unsigned as, gpa_t gpa, uint64_t len, hva_t hva, enum memslot_kind kind)
{
    int error = slot_check(m, as, gpa, len, hva, NULL);
    if (error)
        return error;
    struct memslot *s = alloc_zeroed(1, sizeof(*s));
    *s = (struct memslot){.as = as, .base = gpa >> PAGE_SHIFT, .pages = len >> PAGE_SHIFT, .hva = hva, .kind = kind};
    size_t i = slot_lower(m, as, s->base), n = m->slot_count[as];
    m->slots[as] = alloc_resize(m->slots[as], n + 1, sizeof(*m->slots[as]));
    memmove(&m->slots[as][i + 1], &m->slots[as][i], (n - i) * sizeof(*m->slots[as]));
    m->slots[as][i] = s;
    m->slot_count[as]++;
    m->generation++;
    return MEMSLOT_OK;
}

/* Everything that was made from the slot's gfns goes while the slot can still be looked up. */
static void slot_retire(struct mem *m, struct memslot *s)
{
    if (m->mmu) {
        mmu_lock(m->mmu);
        m->mmu->ops->zap_gfns(m->mmu, s->as, s->base, s->pages);
        mmu_unlock(m->mmu);
    }
    track_flush_slot(m, s->as, s->base, s->pages);
}

static void slot_free(struct mem *m, struct memslot *s)
{
    mem_cache_clear(m);
    dirty_log_free(m, s);
    if (m->mmu && m->mmu->ops->slot_free) {
        mmu_lock(m->mmu);
        m->mmu->ops->slot_free(m->mmu, s);
        mmu_unlock(m->mmu);
    }
    free(s);
}

struct memslot *memslot_at_gpa(const struct mem *m, unsigned as, gpa_t gpa)
{
    if (as >= MEM_ADDRESS_SPACES || (gpa & PAGE_MASK))
        return NULL;
    size_t i = slot_lower(m, as, gpa >> PAGE_SHIFT);
    return i < m->slot_count[as] && m->slots[as][i]->base == gpa >> PAGE_SHIFT ? m->slots[as][i] : NULL;
}

int mem_slot_delete(struct mem *m, unsigned as, gpa_t gpa)
{
    if (as >= MEM_ADDRESS_SPACES)
        return MEMSLOT_ERR_RANGE;
    struct memslot *s = memslot_at_gpa(m, as, gpa);
    if (!s)
        return MEMSLOT_ERR_ABSENT;
    size_t i = slot_lower(m, as, s->base), n = m->slot_count[as];
    slot_retire(m, s);
    memmove(&m->slots[as][i], &m->slots[as][i + 1], (n - i - 1) * sizeof(*m->slots[as]));
    m->slot_count[as]--;
    m->slot_hint[as] = 0;
    m->generation++;
    slot_free(m, s);
    return MEMSLOT_OK;
}

int mem_slot_move(struct mem *m, unsigned as, gpa_t gpa, gpa_t new_gpa)
{
    const struct memslot *s = memslot_at_gpa(m, as, gpa);
    if (!s)
        return as < MEM_ADDRESS_SPACES ? MEMSLOT_ERR_ABSENT : MEMSLOT_ERR_RANGE;
    struct memslot old = *s;
    int error = slot_check(m, as, new_gpa, old.pages << PAGE_SHIFT, old.hva, s);
    if (error)
        return error;
    mem_slot_delete(m, as, gpa);
    return mem_slot_add(m, as, new_gpa, old.pages << PAGE_SHIFT, old.hva, old.kind);
}

int mem_slot_set_kind(struct mem *m, unsigned as, gpa_t gpa, enum memslot_kind kind)
{
    struct memslot *s = memslot_at_gpa(m, as, gpa);
    if (!s)
        return as < MEM_ADDRESS_SPACES ? MEMSLOT_ERR_ABSENT : MEMSLOT_ERR_RANGE;
    if (s->kind == kind)
        return MEMSLOT_OK;
    if (m->mmu) {
        mmu_lock(m->mmu);
        m->mmu->ops->zap_gfns(m->mmu, s->as, s->base, s->pages);
        mmu_unlock(m->mmu);
    }
    s->kind = kind;
    m->generation++;
    mem_cache_clear(m);
    return MEMSLOT_OK;
}

uint64_t mem_generation(const struct mem *m)
{
    return m->generation;
}

void memslot_for_each_hva(struct mem *m, hva_t start, hva_t end,
                          void (*fn)(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages), void *ctx)
{
    for (size_t i = 0; i < memslot_count(m); i++) {
        struct memslot *s = memslot_at(m, i);
        hva_t slot_end = s->hva + (s->pages << PAGE_SHIFT);
        hva_t lo = start > s->hva ? start : s->hva, hi = end < slot_end ? end : slot_end;
        if (lo >= hi)
            continue;
        gfn_t first = s->base + ((lo - s->hva) >> PAGE_SHIFT);
        gfn_t last = s->base + ((hi - 1 - s->hva) >> PAGE_SHIFT);
        fn(ctx, s, first, last - first + 1);
    }
}

size_t memslot_count(const struct mem *m)
{
    size_t n = 0;
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++)
        n += m->slot_count[as];
    return n;
}

struct memslot *memslot_at(const struct mem *m, size_t i)
{
    for (unsigned as = 0; as < MEM_ADDRESS_SPACES; as++) {
        if (i < m->slot_count[as])
            return m->slots[as][i];
        i -= m->slot_count[as];
    }
    return NULL;
}

bool mem_is_device(const struct mem *m, unsigned as, gpa_t gpa, bool write)
{
    const struct memslot *s = memslot_find(m, as, gpa >> PAGE_SHIFT);
    return !s || s->kind == MEMSLOT_DEVICE || (write && s->kind == MEMSLOT_ROM);
}
