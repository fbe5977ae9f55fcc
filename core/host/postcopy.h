/*
 * Post-copy: pages of an mm that another party has, delivered when they are first touched, and by and by in between
 * (Linux: userfaultfd with UFFDIO_REGISTER_MODE_MISSING, as live migration in post-copy uses it).
 *
 * An awaited page has no frame. Its hpte is of the kind of a swapped one, as Linux keeps markers in swap entries, with
 * the source's key where a slot would be: so what knows of swapped pages (fork, mprotect, unmapping, the balloon)
 * does the right thing with it, and what is unmapped or given back is never asked for again. Who touches an awaited
 * page through host_mm_gup() waits, without the host_mm lock, until its bytes are there; a vCPU does so inside its
 * instruction. What the bytes are does not depend on who brought them or when, so a run does not either.
 *
 * Nothing was mapped where a page is delivered, so nobody is told.
 */
#ifndef CORE_HOST_POSTCOPY_H
#define CORE_HOST_POSTCOPY_H

#include "core/host/host_mm.h"

struct page_source_ops {
    /* Fills in the 4096 bytes of the page `key`, and returns once it has: HOST_OK, or HOST_IO_ERROR if that cannot be.
     * Called by any thread that touches the page, by several at a time, and as often as somebody looks; it takes no
     * lock of an mm. */
    int (*fetch)(void *ctx, uint64_t key, void *page);
    void (*destroy)(void *ctx); /* nobody awaits anything any more */
};

/* Who has the pages. Counted: an mm holds its source while it awaits pages, and forks share it. */
struct page_source;
struct page_source *page_source_create(const struct page_source_ops *ops, void *ctx);
void page_source_get(struct page_source *s);
/* The last one destroys it. NULL is allowed. */
void page_source_put(struct page_source *s);

#define POSTCOPY_KEY_MAX ((1ull << 52) - 1)

/* From whom this mm's pages will come; counted by the mm, which lets go of it with the last awaited page. HOST_DENIED
 * while pages of another one are awaited. */
int host_mm_set_page_source(struct host_mm *mm, struct page_source *s);
/* What is at the anonymous page goes, and the page is awaited. HOST_DENIED: no such page, or no source. */
int host_mm_await(struct host_mm *mm, hva_t hva, uint64_t key);
/* Puts 4096 bytes where they are awaited (Linux: UFFDIO_COPY); any thread may. HOST_NOTHING: they are not, any more,
 * and nothing has changed. HOST_NO_FRAMES. */
int host_mm_deliver(struct host_mm *mm, hva_t hva, const void *page);
/* Fetches up to `pages` awaited pages, in the order of their hvas, round and round. HOST_OK, also when there are none;
 * HOST_IO_ERROR or HOST_NO_FRAMES where it had to end. */
int host_mm_fetch_ahead(struct host_mm *mm, uint64_t pages);
/* Pages that are awaited now. */
uint64_t host_mm_awaited(const struct host_mm *mm);

#endif
