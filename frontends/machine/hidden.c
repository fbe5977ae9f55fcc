#include "frontends/machine/hidden.h"

#include "core/digest.h"
#include "core/snapshot.h"
#include "frontends/machine/machine.h"

#include <string.h>

#define SECTION_END UINT32_MAX

bool hidden_poke(struct machine *m, gpa_t gpa, const void *bytes, size_t len)
{
    struct gup_result g;
    hva_t hva = m->low_hva + gpa;
    if (host_mm_gup(m->mm, hva & ~PAGE_MASK, true, &g))
        return false;
    memcpy((uint8_t *)g.ptr + (hva & PAGE_MASK), bytes, len);
    return true;
}

/* Its content, or NULL: it is shown, or all zeros. */
static const void *page_peek(const struct hidden *h, const struct machine *m, gpa_t gpa)
{
    const void *page = h->is_hidden(m, gpa) ? host_mm_peek_content(m->mm, m->low_hva + gpa) : NULL;
    return page && !digest_page_is_zero(page) ? page : NULL;
}

void hidden_save(const struct hidden *h, const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, h->section, h->version);
    for (gpa_t gpa = h->from; gpa < h->to; gpa += PAGE_SIZE) {
        const void *page = page_peek(h, m, gpa);
        if (!page)
            continue;
        snap_put_u32(w, (uint32_t)(gpa >> PAGE_SHIFT));
        snap_put_packed(w, page, PAGE_SIZE);
    }
    snap_put_u32(w, SECTION_END);
    snap_end(w);
}

static void clear(const struct hidden *h, struct machine *m, struct snap_reader *r)
{
    static const uint8_t zeros[PAGE_SIZE];
    for (gpa_t gpa = h->from; gpa < h->to; gpa += PAGE_SIZE)
        if (page_peek(h, m, gpa) && !hidden_poke(m, gpa, zeros, sizeof zeros))
            snap_fail(r, "no host memory");
}

void hidden_load(const struct hidden *h, struct machine *m, struct snap_reader *r)
{
    uint8_t page[PAGE_SIZE];
    if (!snap_expect(r, h->section, h->version))
        return;
    clear(h, m, r);
    for (;;) {
        uint32_t gfn = snap_get_u32(r);
        if (gfn == SECTION_END || snap_reader_error(r))
            return;
        gpa_t gpa = (gpa_t)gfn << PAGE_SHIFT;
        snap_get_packed(r, page, sizeof page);
        if (gpa < h->from || gpa >= h->to || !h->is_hidden(m, gpa) || !hidden_poke(m, gpa, page, sizeof page))
            snap_fail(r, "%s: the page at 0x%llx is not hidden here", h->section, (unsigned long long)gpa);
    }
}
