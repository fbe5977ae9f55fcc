/*
 * The hashes behind the digest of a machine: XXH3 with 64 bits, over bytes and pages.
 *
 * RAM is digested as a sum over pages, so that a page that changes costs one subtraction and one addition, in any
 * order. A page of zeros contributes nothing: absent, zero and never-touched pages are the same page.
 */
#ifndef CORE_DIGEST_H
#define CORE_DIGEST_H

#include "core/types.h"

/* Hash of `n` bytes. */
uint64_t digest_bytes(const void *p, size_t n);
/* True if the page (4 KiB, 8-byte aligned) is all zeros. */
bool digest_page_is_zero(const void *page);
/* What the page at `gfn` adds to the digest of RAM; NULL stands for a page of zeros. 0 exactly for those, up to hash
 * chance. */
uint64_t digest_page_term(gfn_t gfn, const void *page);

#endif
