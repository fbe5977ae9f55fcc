/*
 * Operations of the host on the machine's memory, for a person to make by hand. No guest can notice any of them.
 *
 * Adding one: a function and a row.
 */
#include "frontends/machine/inspect.h"

#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"
#include "frontends/machine/debug.h"
#include "frontends/machine/machine.h"
#include "mmu/engine.h"

#include <inttypes.h>
#include <string.h>

/* hva of a gfn of RAM or ROM. */
static bool hva_of(const struct machine *m, uint64_t gfn, hva_t *hva, struct error *e)
{
    const struct memslot *s = memslot_find(m->mem, 0, gfn);
    if (!s)
        return error_set(e, "gfn 0x%" PRIx64 " has no memslot ('mmu slots' lists them)", gfn);
    *hva = memslot_hva(s, gfn);
    return true;
}

static void say_state(const struct machine *m, uint64_t gfn, hva_t hva, const struct inspect_out *out)
{
    static const char *const states[] = {"none", "present", "zero page", "swapped"};
    struct hpte_info h = host_mm_peek(m->mm, hva);
    inspect_say(out, "gfn 0x%" PRIx64 ": host entry %s %s%s", gfn,
                h.state < ARRAY_LEN(states) ? states[h.state] : "in another state",
                h.writable ? "writable" : "read-only", h.dirty ? " dirty" : "");
}

/* ro: mprotect to read-only and back, which leaves a read-only host entry: the next write faults. rw: what that fault
 * would do. */
static bool host_protect(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                         struct error *e)
{
    hva_t hva = 0;
    struct gup_result g;
    if (!hva_of(m, gfn[0], &hva, e))
        return false;
    if (!strcmp(mode, "ro")) {
        if (host_mm_mprotect(m->mm, hva, PAGE_SIZE, HOST_READ) ||
            host_mm_mprotect(m->mm, hva, PAGE_SIZE, HOST_READ | HOST_WRITE))
            return error_set(e, "gfn 0x%" PRIx64 ": the host refused", gfn[0]);
    } else if (!strcmp(mode, "rw")) {
        if (host_mm_gup(m->mm, hva, true, &g))
            return error_set(e, "gfn 0x%" PRIx64 ": the host has no frame to give", gfn[0]);
    } else {
        return error_set(e, "'%s': expected ro or rw", mode);
    }
    say_state(m, gfn[0], hva, out);
    return true;
}

static bool check(int status, uint64_t gfn, struct error *e)
{
    return status == HOST_OK || error_set(e, "gfn 0x%" PRIx64 ": %s", gfn, host_status_text(status));
}

/* A machine without a store gets one in memory, large enough for all of its pages. */
static bool have_swap(struct machine *m, hva_t hva, int *status, struct error *e)
{
    char why[128] = "";
    struct swap_config cfg = {.memory_bytes = m->cfg.ram_bytes};
    *status = host_mm_swap_out(m->mm, hva);
    if (*status != HOST_NO_SWAP)
        return true;
    struct swap_store *store = swap_store_create(&cfg, why, sizeof why);
    if (!store)
        return error_set(e, "no swap store: %s", why);
    host_mm_set_swap(m->mm, store);
    swap_store_put(store); /* the mm counts as its user */
    *status = host_mm_swap_out(m->mm, hva);
    return true;
}

static bool host_swapout(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                         struct error *e)
{
    hva_t hva = 0;
    int status;
    if (!hva_of(m, gfn[0], &hva, e) || !have_swap(m, hva, &status, e) || !check(status, gfn[0], e))
        return false;
    say_state(m, gfn[0], hva, out);
    return true;
}

static bool host_swapin(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                        struct error *e)
{
    hva_t hva = 0;
    if (!hva_of(m, gfn[0], &hva, e) || !check(host_mm_swap_in(m->mm, hva), gfn[0], e))
        return false;
    say_state(m, gfn[0], hva, out);
    return true;
}

/* By a KSM of its own where the machine's memory has none; merged pages stay merged without it. */
static bool host_merge(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                       struct error *e)
{
    hva_t a = 0, b = 0;
    if (!hva_of(m, gfn[0], &a, e) || !hva_of(m, gfn[1], &b, e))
        return false;
    if (a == b)
        return error_set(e, "a page cannot be merged with itself");
    struct ksm *k = ksm_create(m->pool);
    if (!k || !ksm_add(k, m->mm)) {
        ksm_destroy(k);
        return error_set(e, k ? "the machine's memory is merged by a KSM already" : "out of memory");
    }
    host_mm_set_mergeable(m->mm, a, PAGE_SIZE, true);
    host_mm_set_mergeable(m->mm, b, PAGE_SIZE, true);
    int status = ksm_merge(k, m->mm, a, m->mm, b);
    ksm_destroy(k);
    if (status == HOST_NOTHING)
        return error_set(e, "gfns 0x%" PRIx64 " and 0x%" PRIx64 " do not hold the same bytes in frames of their own",
                         gfn[0], gfn[1]);
    if (!check(status, gfn[0], e))
        return false;
    say_state(m, gfn[0], a, out);
    say_state(m, gfn[1], b, out);
    return true;
}

static bool host_migrate(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                         struct error *e)
{
    hva_t hva = 0;
    if (!hva_of(m, gfn[0], &hva, e))
        return false;
    pfn_t before = host_mm_peek(m->mm, hva).pfn;
    if (!check(host_mm_migrate(m->mm, hva), gfn[0], e))
        return false;
    inspect_say(out, "gfn 0x%" PRIx64 ": from frame 0x%" PRIx64 " to frame 0x%" PRIx64, gfn[0], (uint64_t)before,
                (uint64_t)host_mm_peek(m->mm, hva).pfn);
    return true;
}

static bool host_age(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                     struct error *e)
{
    uint64_t resident = host_mm_resident(m->mm), young = host_mm_age(m->mm, resident);
    inspect_say(out, "%" PRIu64 " resident pages, %" PRIu64 " of them were young", resident, young);
    return true;
}

/* The child lives until the next fork, or the end of the debugger, so that the guest's writes have something to copy.
 */
static bool host_fork(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                      struct error *e)
{
    uint64_t resident = host_mm_resident(m->mm), all = m->cfg.ram_bytes >> PAGE_SHIFT;
    if (frame_pool_capacity(m->pool) < all + resident)
        return error_set(e, "there are %" PRIu64 " frames; copies of %" PRIu64 " resident pages might not fit",
                         frame_pool_capacity(m->pool), resident);
    struct host_mm *child = host_mm_fork(m->mm);
    if (!child)
        return error_set(e, "out of memory");
    debug_keep_child(m->debug, child);
    inspect_say(out, "forked: %" PRIu64 " pages are shared until one side writes", resident);
    return true;
}

static const struct host_verb verbs[] = {
    {"swapout", "GFN", "take the frame of a guest page away, into the swap store", 1, false, host_swapout},
    {"swapin", "GFN", "bring a swapped page back", 1, false, host_swapin},
    {"merge", "GFN GFN", "let two pages that hold the same bytes share a frame", 2, false, host_merge},
    {"migrate", "GFN", "move a guest page to another frame", 1, false, host_migrate},
    {"age", "", "read and clear the accessed state of all resident pages", 0, false, host_age},
    {"fork", "", "fork the memory copy-on-write; the child is kept until the next fork", 0, false, host_fork},
    {"protect", "GFN ro|rw", "make the host entry of a guest page read-only, or writable again", 1, true, host_protect},
};

const struct host_verb *host_verbs(size_t *count)
{
    *count = ARRAY_LEN(verbs);
    return verbs;
}
