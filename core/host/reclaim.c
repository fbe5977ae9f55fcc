#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"

/*
 * Pages go out and come back: swap, aging, reclaim to a limit.
 *
 * The order of reclaim is a clock with ages: a hand goes round the hptes in order of hva; what it finds accessed
 * becomes young, what it finds untouched one older, and what is old enough when it comes by goes out (Linux: the
 * inactive list with page_referenced; MGLRU's generations). Nothing but the calls decides the order.
 */

/* An untouched page is taken at this age: it has been found untouched once before. */
#define OLD_ENOUGH 1
/* Rounds of the hand in one reclaim run; the last one takes young pages too (Linux: scan priority 0). */
#define ROUNDS     4

/* ---- swap ---- */

int host_mm_set_swap(struct host_mm *mm, struct swap_store *store)
{
    host_mm_lock(mm);
    int rc = mm->swap ? HOST_DENIED : HOST_OK;
    if (!rc) {
        swap_store_get(store);
        mm->swap = store;
    }
    host_mm_unlock(mm);
    return rc;
}

/* The slot that holds the frame's bytes: one that knows the frame, or a new one (Linux: add_to_swap and the swap
 * cache).
 */
static int store_frame(struct host_mm *mm, pfn_t pfn, uint64_t *slot)
{
    if (swap_slot_of_frame(mm->swap, mm->pool, pfn, slot)) {
        mm->counters.swap_shares++;
        return HOST_OK;
    }
    int rc = swap_store_write(mm->swap, frame_pool_ptr(mm->pool, pfn), slot);
    if (rc)
        mm->counters.swap_refused++;
    else if (frame_pool_refs(mm->pool, pfn) > 1)
        swap_slot_bind(mm->swap, *slot, mm->pool, pfn);
    return rc;
}

/* Linux: try_to_unmap_one. The content is stored when nobody can write the frame any more and before the hpte changes:
 * if the store has no room, nothing has happened. */
int host_mm_swap_out_locked(struct host_mm *mm, hva_t hva)
{
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    if (!e || !hpte_is_resident(*e))
        return HOST_NOTHING;
    bool drop = *e & HPTE_FILE;
    if (!drop && !mm->swap)
        return HOST_NO_SWAP;
    host_mm_split_locked(mm, hva);
    hpte_t old = *hpte_lookup(&mm->hptes, hva), to = 0;
    struct notify_range range = host_mm_page_range(mm, hva, NOTIFY_CLEAR);
    notify_invalidate_range_start(&range);
    uint64_t slot = 0;
    int rc = drop ? HOST_OK : store_frame(mm, hpte_frame(old), &slot);
    if (!rc) {
        if (!drop)
            to = hpte_make(HPTE_SWAPPED, slot, (unsigned)old & HPTE_SOFT_DIRTY);
        host_mm_replace_locked(mm, hva, to);
        *(drop ? &mm->counters.file_drops : &mm->counters.swap_outs) += 1;
    }
    notify_invalidate_range_end(&range);
    return rc;
}

int host_mm_swap_out(struct host_mm *mm, hva_t hva)
{
    host_mm_lock(mm);
    int rc = host_mm_swap_out_locked(mm, hva & ~PAGE_MASK);
    host_mm_unlock(mm);
    return rc;
}

/* A frame with the slot's bytes: one that others who share the slot have brought back already, or a new one. */
static int frame_of_slot(struct host_mm *mm, uint64_t slot, pfn_t *pfn)
{
    *pfn = swap_slot_frame(mm->swap, slot, mm->pool);
    if (*pfn != PFN_NONE)
        return HOST_OK;
    *pfn = frame_pool_alloc(mm->pool);
    if (*pfn == PFN_NONE)
        return HOST_NO_FRAMES;
    int rc = swap_store_read(mm->swap, slot, frame_pool_ptr(mm->pool, *pfn));
    if (rc)
        frame_pool_put(mm->pool, *pfn);
    else if (swap_slot_users(mm->swap, slot) > 1)
        swap_slot_bind(mm->swap, slot, mm->pool, *pfn);
    return rc;
}

/* Linux: do_swap_page. Nothing was mapped, so nobody is told. Read-only: a write fault finds out whether it is shared.
 */
int host_mm_swap_in_locked(struct host_mm *mm, hva_t hva)
{
    hpte_t old = *hpte_lookup(&mm->hptes, hva);
    const struct vma *v = vma_find(&mm->vmas, hva);
    uint64_t slot = hpte_frame(old);
    pfn_t pfn;
    int rc = frame_of_slot(mm, slot, &pfn);
    if (rc)
        return rc;
    unsigned bits = ((unsigned)old & HPTE_SOFT_DIRTY) | HPTE_ACCESSED | HPTE_DIRTY | (v && v->prot ? HPTE_READ : 0);
    hpte_set(&mm->hptes, hva, hpte_make(HPTE_PRESENT, pfn, bits));
    swap_slot_put(mm->swap, slot);
    mm->counters.swap_ins++;
    return HOST_OK;
}

int host_mm_swap_in(struct host_mm *mm, hva_t hva)
{
    hva &= ~PAGE_MASK;
    host_mm_lock(mm);
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    int rc = e && hpte_has_slot(*e) ? host_mm_swap_in_locked(mm, hva) : HOST_NOTHING;
    host_mm_check_limit_locked(mm);
    host_mm_unlock(mm);
    return rc;
}

/* ---- aging ---- */

/* What the hand is at: one page, or a huge or gigantic page as a whole. */
struct unit {
    hva_t start, end;
};

static struct unit unit_at(const struct host_mm *mm, hva_t hva)
{
    int level = hpte_level_at(&mm->hptes, hva);
    hva_t start = hpte_level_start(hva, level);
    return (struct unit){start, start + hpte_level_size(level)};
}

/* By the host entries, and by those who gave up mappings of the frames (Linux: page_referenced and PG_referenced). */
static bool any_accessed(const struct host_mm *mm, struct unit u)
{
    for (hva_t hva = u.start; hva < u.end; hva += PAGE_SIZE) {
        hpte_t e = *hpte_lookup(&mm->hptes, hva);
        if ((e & HPTE_ACCESSED) || frame_pool_is_accessed(mm->pool, hpte_frame(e)))
            return true;
    }
    return false;
}

static void set_age(struct host_mm *mm, struct unit u, unsigned age)
{
    for (hva_t hva = u.start; hva < u.end; hva += PAGE_SIZE) {
        hpte_t *e = hpte_lookup(&mm->hptes, hva);
        *e = hpte_with_age(*e & ~(hpte_t)HPTE_ACCESSED, age);
        frame_pool_clear_accessed(mm->pool, hpte_frame(*e));
    }
}

/* Linux: ptep_clear_young_notify, or with `flush` ptep_clear_flush_young_notify. True if the unit was young; its age is
 * then 0, else one more. */
static bool age_unit(struct host_mm *mm, struct unit u, bool flush)
{
    bool young = any_accessed(mm, u);
    young |= (flush ? notify_clear_flush_young : notify_clear_young)(mm, u.start, u.end);
    unsigned age = hpte_age(*hpte_lookup(&mm->hptes, u.start));
    set_age(mm, u, young ? 0 : age + (age < HPTE_AGE_MAX));
    uint64_t pages = (u.end - u.start) >> PAGE_SHIFT;
    mm->counters.aged += pages;
    mm->counters.aged_young += young ? pages : 0;
    return young;
}

/* The next resident page from the hand on, going round once at most. False: there is none. */
static bool hand_next(struct host_mm *mm, struct unit *u)
{
    if (!mm->hptes.present)
        return false;
    hva_t hva = mm->age_hand;
    for (;;) {
        hva = hpte_next(&mm->hptes, hva, HVA_END);
        if (hva >= HVA_END) {
            hva = 0;
            continue; /* something is resident: it is found before the hand comes here again */
        }
        if (hpte_is_resident(*hpte_lookup(&mm->hptes, hva)))
            break;
        hva += PAGE_SIZE;
    }
    *u = unit_at(mm, hva);
    mm->age_hand = u->end;
    return true;
}

uint64_t host_mm_age(struct host_mm *mm, uint64_t pages)
{
    uint64_t young = 0, seen = 0;
    struct unit u;
    host_mm_lock(mm);
    if (pages > mm->hptes.present)
        pages = mm->hptes.present;
    while (seen < pages && hand_next(mm, &u)) {
        uint64_t n = (u.end - u.start) >> PAGE_SHIFT;
        young += age_unit(mm, u, false) ? n : 0;
        seen += n;
    }
    host_mm_unlock(mm);
    return young;
}

bool host_mm_is_young(struct host_mm *mm, hva_t hva)
{
    hva &= ~PAGE_MASK;
    host_mm_lock(mm);
    const hpte_t *e = hpte_lookup(&mm->hptes, hva);
    bool young = e && hpte_is_resident(*e) && (any_accessed(mm, unit_at(mm, hva)) || notify_test_young(mm, hva));
    host_mm_unlock(mm);
    return young;
}

/* ---- reclaim ---- */

struct reclaim {
    uint64_t want, done;
    bool take_young;
    int status; /* the first reason why something could not be taken */
};

/* Takes what the unit holds, as far as it is wanted. */
static void take_unit(struct host_mm *mm, struct unit u, struct reclaim *r)
{
    for (hva_t hva = u.start; hva < u.end && r->done < r->want; hva += PAGE_SIZE) {
        int rc = host_mm_swap_out_locked(mm, hva);
        if (!rc)
            r->done++;
        else if (!r->status)
            r->status = rc;
    }
}

/* Linux: shrink_active_list and shrink_inactive_list for one page. An old page is asked a last time, with a flush, so
 * that no access is missed. */
static void reclaim_unit(struct host_mm *mm, struct unit u, struct reclaim *r)
{
    bool old = hpte_age(*hpte_lookup(&mm->hptes, u.start)) >= OLD_ENOUGH;
    bool young = age_unit(mm, u, old);
    if (r->take_young || (old && !young))
        take_unit(mm, u, r);
}

/* No use to go on: what is refused now is refused for all that is left, unless the file pages go first. */
static bool is_hopeless(const struct reclaim *r)
{
    return r->status == HOST_IO_ERROR;
}

static void reclaim_round(struct host_mm *mm, struct reclaim *r)
{
    struct unit u;
    uint64_t seen = 0, round = mm->hptes.present;
    while (seen < round && r->done < r->want && !is_hopeless(r) && hand_next(mm, &u)) {
        reclaim_unit(mm, u, r);
        seen += (u.end - u.start) >> PAGE_SHIFT;
    }
}

static uint64_t reclaim_locked(struct host_mm *mm, uint64_t pages, int *status)
{
    struct reclaim r = {.want = pages};
    for (unsigned round = 0; round < ROUNDS && r.done < r.want && !r.status; round++) {
        r.take_young = round == ROUNDS - 1;
        reclaim_round(mm, &r);
    }
    mm->counters.reclaims++;
    mm->counters.reclaimed += r.done;
    *status = r.done >= r.want ? HOST_OK : r.status ? r.status : HOST_NOTHING;
    return r.done;
}

uint64_t host_mm_reclaim(struct host_mm *mm, uint64_t pages, int *status)
{
    int unused;
    host_mm_lock(mm);
    uint64_t done = reclaim_locked(mm, pages, status ? status : &unused);
    host_mm_unlock(mm);
    return done;
}

/* ---- the limit ---- */

uint64_t host_mm_charge_locked(const struct host_mm *mm)
{
    uint64_t merged = mm->hptes.ksm, frames = mm->ksm ? ksm_frames(mm->ksm) : merged;
    return mm->hptes.present - merged + (merged < frames ? merged : frames);
}

void host_mm_check_limit_locked(struct host_mm *mm)
{
    if (!mm->limit)
        return;
    uint64_t charge = host_mm_charge_locked(mm);
    if (charge <= mm->limit)
        return;
    if (charge - mm->limit > mm->counters.limit_excess)
        mm->counters.limit_excess = charge - mm->limit;
    __atomic_store_n(&mm->reclaim_wanted, true, __ATOMIC_RELAXED);
    if (mm->reclaim_hook)
        mm->reclaim_hook(mm->reclaim_ctx);
}

void host_mm_set_reclaim_hook(struct host_mm *mm, host_reclaim_fn *fn, void *ctx)
{
    host_mm_lock(mm);
    mm->reclaim_hook = fn;
    mm->reclaim_ctx = ctx;
    host_mm_unlock(mm);
}

int host_mm_set_limit(struct host_mm *mm, uint64_t pages)
{
    if (pages && pages < HOST_LIMIT_MIN)
        return HOST_DENIED;
    host_mm_lock(mm);
    mm->limit = pages;
    bool over = pages && host_mm_charge_locked(mm) > pages;
    __atomic_store_n(&mm->reclaim_wanted, over, __ATOMIC_RELAXED);
    host_mm_unlock(mm);
    return HOST_OK;
}

uint64_t host_mm_limit(const struct host_mm *mm)
{
    return mm->limit;
}

bool host_mm_wants_safe_point(const struct host_mm *mm)
{
    return __atomic_load_n(&mm->reclaim_wanted, __ATOMIC_RELAXED);
}

/* Some room is made beyond what is asked for, so that not every fault is followed by a reclaim run. */
static uint64_t batch(const struct host_mm *mm)
{
    return mm->limit / 8 < HOST_LIMIT_SLACK ? mm->limit / 8 : HOST_LIMIT_SLACK;
}

int host_mm_safe_point(struct host_mm *mm)
{
    if (likely(!host_mm_wants_safe_point(mm)))
        return HOST_OK;
    int status = HOST_OK;
    host_mm_lock(mm);
    uint64_t charge = host_mm_charge_locked(mm);
    if (mm->limit && charge > mm->limit) {
        reclaim_locked(mm, charge - mm->limit + batch(mm), &status);
        if (host_mm_charge_locked(mm) <= mm->limit)
            status = HOST_OK;
    }
    if (!status)
        __atomic_store_n(&mm->reclaim_wanted, false, __ATOMIC_RELAXED);
    host_mm_unlock(mm);
    return status;
}
