/*
 * Operations of the host on the machine's memory, for a person to make by hand. No guest can notice any of them.
 *
 * Adding one: a function and a row.
 */
#include "frontends/machine/inspect.h"

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

static const struct host_verb verbs[] = {
    {"protect", "GFN ro|rw", "make the host entry of a guest page read-only, or writable again", 1, true, host_protect},
};

const struct host_verb *host_verbs(size_t *count)
{
    *count = ARRAY_LEN(verbs);
    return verbs;
}
