/*
 * host_mm: Umbra's model of the host process's address space. It owns real memory (frames of the pool) and maps hvas to
 * it.
 *
 * VMAs say what an hva range is; hptes say what is there now: nothing, a present frame (with W/A/D), the shared zero
 * page, or a swap slot. host_mm_gup() is the only way to a frame. Every change of a present hpte fires the invalidation
 * bus, as Linux does. hptes are sparse: a chunk per 512 pages, made on first use, with counts.
 *
 * Lock order: host_mm, MMU, pool. gup is never called with the MMU lock held.
 */
#ifndef CORE_HOST_HOST_MM_H
#define CORE_HOST_HOST_MM_H

#include "core/host/frame_pool.h"
#include "core/host/notifier.h"
#include "core/types.h"

enum host_prot { HOST_READ = 1, HOST_WRITE = 2 };
enum vma_kind { VMA_ANON, VMA_FILE, VMA_MIRROR };
enum hpte_state { HPTE_NONE, HPTE_PRESENT, HPTE_ZERO, HPTE_SWAPPED };

struct host_mm;

struct gup_result {
    pfn_t pfn;
    void *ptr;     /* the frame's bytes; valid until the next safe point */
    bool writable; /* the hpte allows writes now (a read gup may return a read-only frame) */
    bool huge;     /* part of a present 2 MiB huge hpte */
};

/* A look at an hpte without any effect, for audit, digest and debugger. */
struct hpte_info {
    enum hpte_state state;
    pfn_t pfn;
    bool writable, accessed, dirty, huge;
    bool readable; /* false: present, but its VMA permits no access */
};

/* What the mm did, for `-stats`. */
struct host_mm_counters {
    uint64_t faults;      /* gups that had to change an hpte */
    uint64_t zero_maps;   /* reads answered with the zero page */
    uint64_t zero_breaks; /* writes that replaced the zero page */
    uint64_t cow_breaks;  /* writes that copied a shared frame */
    uint64_t reuses;      /* writes that made a frame of one owner writable again */
    uint64_t unmapped;    /* hptes cleared by munmap and dontneed */
    uint64_t ranges;      /* invalidations fired */
};

struct host_mm *host_mm_create(struct frame_pool *pool); /* pool is borrowed; NULL when out of memory */
void host_mm_destroy(struct host_mm *mm);                /* releases: fires release, frees all frames */
struct frame_pool *host_mm_pool(const struct host_mm *mm);
const struct host_mm_counters *host_mm_counters(const struct host_mm *mm);
/* Registers the counters, as host.*. */
struct stats;
void host_mm_add_stats(const struct host_mm *mm, struct stats *stats);
/* Where host.* and notifier.* tracepoints go (borrowed; NULL: nowhere). */
struct trace;
void host_mm_set_trace(struct host_mm *mm, struct trace *trace);

/* Maps `len` bytes (page multiple) of zeroed anonymous memory; returns the hva (2 MiB aligned, deterministic) or 0. */
hva_t host_mm_mmap_anon(struct host_mm *mm, uint64_t len, unsigned prot);
/* Each fires start and end, and in between, while the old frames are still allocated, invalidate_range for what held a
 * frame; mprotect that only takes writing away fires no invalidate_range. 0, or -1 for a range that is not wholly
 * mapped or not aligned. */
int host_mm_munmap(struct host_mm *mm, hva_t hva, uint64_t len);
int host_mm_mprotect(struct host_mm *mm, hva_t hva, uint64_t len, unsigned prot);
int host_mm_dontneed(struct host_mm *mm, hva_t hva, uint64_t len);

/* Frame behind `hva`: faults it in; with `write` also makes it writable (breaks the zero page and copy-on-write) and
 * dirty. A read of an untouched anonymous page may be given the shared zero page, read-only. 0; -1 no mapping or not
 * permitted; -2 out of frames. A gup that replaces a frame fires the bus itself: a fault handler that read its sequence
 * before sees that and retries. */
int host_mm_gup(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out);
/* Never changes anything. Takes the host_mm lock: who holds the MMU lock as well takes host_mm_lock() before it. */
struct hpte_info host_mm_peek(const struct host_mm *mm, hva_t hva);
/* Content of the page at `hva` without any effect: pointer to its bytes, or NULL when the content is all zeros. */
const void *host_mm_peek_content(const struct host_mm *mm, hva_t hva);
/* Pages resident in this mm (zero page not counted). */
uint64_t host_mm_resident(const struct host_mm *mm);

/* The host_mm lock: gup and host operations take it themselves; it is recursive to its owner. */
void host_mm_lock(struct host_mm *mm);
void host_mm_unlock(struct host_mm *mm);
/* The bus of this mm; made at first registration. */
struct notifier_bus **host_mm_bus_slot(struct host_mm *mm);

#endif
