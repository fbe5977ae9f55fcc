/*
 * The address types of the project's vocabulary (docs/architecture.md).
 *
 * They are plain integers: the names say which address space a number lives in, and a function's signature is
 * the place where a reader checks that two spaces are not mixed.
 */
#ifndef CORE_TYPES_H
#define CORE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gva_t; /* guest virtual (linear) address */
typedef uint64_t gpa_t; /* guest physical address */
typedef uint64_t gfn_t; /* gpa >> 12 */
typedef uint64_t hva_t; /* address in a host_mm */
typedef uint64_t pfn_t; /* frame number in the frame pool */

#define PAGE_SHIFT 12
#define PAGE_SIZE  ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_MASK  (PAGE_SIZE - 1)
#define PFN_NONE   UINT64_MAX

#define likely(x)                       __builtin_expect(!!(x), 1)
#define unlikely(x)                     __builtin_expect(!!(x), 0)
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
