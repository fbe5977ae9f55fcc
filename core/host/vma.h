/*
 * The VMAs of a host_mm: what each hva range is. A sorted array without overlaps; a process has few of them. Private to
 * core/host.
 */
#ifndef CORE_HOST_VMA_H
#define CORE_HOST_VMA_H

#include "core/host/host_mm.h"

#define HVA_BASE ((hva_t)0x7f0000000000) /* the first hva handed out */
#define HVA_END  ((hva_t)0x800000000000) /* no hva at or above: 47 bits, as for a 64-bit process */

struct vma_backing; /* core/host/host_mm_internal.h */

struct vma {
    hva_t start, end; /* end exclusive */
    enum vma_kind kind;
    unsigned prot;               /* enum host_prot */
    bool mergeable;              /* KSM may look at it (Linux: VM_MERGEABLE); anonymous ones only */
    uint64_t offset;             /* of `start`: in the file, or the hva in the source */
    struct vma_backing *backing; /* file or mirror; counted: one for each VMA */
};

struct vma_set {
    struct vma *list; /* owned, sorted by start */
    size_t count, capacity;
};

void vma_set_fini(struct vma_set *s);
/* The VMA that holds `hva`, or NULL. Valid until the set changes. */
const struct vma *vma_find(const struct vma_set *s, hva_t hva);
/* True if every page of [start, end) lies in some VMA. */
bool vma_covers(const struct vma_set *s, hva_t start, hva_t end);
/* Lowest free range of `len` bytes that starts at a multiple of 2 MiB, from 1 GiB on of 1 GiB; 0 if there is none. */
hva_t vma_find_gap(const struct vma_set *s, uint64_t len);
/* Adds a VMA over a free range. */
void vma_insert(struct vma_set *s, const struct vma *v);
/* Removes [start, end), splitting VMAs at its borders. */
void vma_remove(struct vma_set *s, hva_t start, hva_t end);
/* Sets the protection of [start, end), which is covered; splits at its borders and joins equal neighbours. */
void vma_set_prot(struct vma_set *s, hva_t start, hva_t end, unsigned prot);
/* The same for `mergeable`. */
void vma_set_mergeable(struct vma_set *s, hva_t start, hva_t end, bool on);

#endif
