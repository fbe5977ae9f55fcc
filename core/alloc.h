/*
 * Allocation of the small structures without which a machine cannot go on. Out of memory ends the process with a
 * message: there is no state worth keeping half-changed. Sizes never come from the guest; a module that allocates what
 * a guest or a file asks for uses calloc() and reports failure.
 */
#ifndef CORE_ALLOC_H
#define CORE_ALLOC_H

#include "core/types.h"

/* `count` zeroed elements of `size` bytes. Never NULL. Freed with free(). */
void *alloc_zeroed(size_t count, size_t size);
/* Resizes `p` (may be NULL) to `count` elements of `size` bytes; what is new is not initialised. Never NULL. */
void *alloc_resize(void *p, size_t count, size_t size);

#endif
