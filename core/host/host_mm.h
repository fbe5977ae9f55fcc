/*
 * host_mm: Umbra's model of the host process's address space. It owns real memory (frames of the pool) and maps hvas to
 * it.
 *
 * VMAs say what an hva range is; hptes say what is there now: nothing, a present frame (with W/A/D), the shared zero
 * page, or a swap slot. host_mm_gup() is the only way to a frame. Every change of a present hpte fires the invalidation
 * bus, as Linux does. hptes are sparse: a chunk per 512 pages, made on first use, with counts.
 *
 * This header: life, ranges, gup and peek. What the host does to pages by itself (swap, reclaim, huge pages, migration,
 * fork, soft-dirty) is in core/host/host_ops.h, merging in core/host/ksm.h.
 *
 * Lock order: KSM, host_mm (a mirror's after its source's), MMU, swap store, pool. gup is never called with the MMU
 * lock held.
 */
#ifndef CORE_HOST_HOST_MM_H
#define CORE_HOST_HOST_MM_H

#include "core/host/frame_pool.h"
#include "core/host/notifier.h"
#include "core/types.h"

enum host_prot { HOST_READ = 1, HOST_WRITE = 2 };
enum vma_kind { VMA_ANON, VMA_FILE, VMA_MIRROR };
enum hpte_state { HPTE_NONE, HPTE_PRESENT, HPTE_ZERO, HPTE_SWAPPED };

/* What host operations answer. */
enum host_status {
    HOST_OK = 0,
    HOST_DENIED = -1,    /* no mapping, or not permitted, or a bad range */
    HOST_NO_FRAMES = -2, /* the pool has none left */
    HOST_IO_ERROR = -3,  /* the swap store or a file cannot be read or written; nothing has changed */
    HOST_SWAP_FULL = -4, /* the swap store has no room; nothing has changed */
    HOST_NO_SWAP = -5,   /* the mm has no swap store */
    HOST_NOTHING = -6,   /* there is nothing of the kind there */
    HOST_SHARED = -7,    /* the frame has other users */
};

/* One line for people. */
const char *host_status_text(int status);

struct host_mm;

struct gup_result {
    pfn_t pfn;
    void *ptr;     /* the frame's bytes; valid until the next safe point */
    bool writable; /* the hpte allows writes now (a read gup may return a read-only frame) */
    int level;     /* of the mapping that it is part of: 1, or 2 of a huge (2 MiB), 3 of a gigantic page (1 GiB) */
};

/* A look at an hpte without any effect, for audit, digest and debugger. */
struct hpte_info {
    enum hpte_state state;
    pfn_t pfn;
    int level; /* as in struct gup_result; 1 where nothing is */
    bool writable, accessed, dirty;
    bool awaited;  /* of those that are swapped: another party has it (core/host/postcopy.h) */
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
    uint64_t change_ptes; /* change_pte fired */

    uint64_t swap_outs;       /* hptes that went to the swap store */
    uint64_t swap_shares;     /* of them those whose content was there already */
    uint64_t swap_ins;        /* hptes that came back */
    uint64_t swap_refused;    /* swap-outs that the store had no room for */
    uint64_t file_reads;      /* pages read from a mapped file */
    uint64_t file_drops;      /* unwritten file pages that reclaim dropped */
    uint64_t aged;            /* hptes whose accessed state was read and cleared */
    uint64_t aged_young;      /* of them those that had been accessed */
    uint64_t reclaims;        /* reclaim runs */
    uint64_t reclaimed;       /* pages that they took out */
    uint64_t limit_excess;    /* most pages that were ever there above the limit */
    uint64_t huge_faults;     /* write faults answered with a huge page */
    uint64_t gigantic_faults; /* with a gigantic one */
    uint64_t collapses;       /* ranges made huge or gigantic */
    uint64_t splits;          /* huge and gigantic pages split */
    uint64_t migrations;      /* frames moved */
    uint64_t forks;           /* children made */
    uint64_t soft_clears;     /* hptes whose soft-dirty bit was cleared */
    uint64_t ksm_merges;      /* hptes re-pointed to a shared frame */
    uint64_t ksm_zeros;       /* hptes re-pointed to the zero page */
    uint64_t ksm_unmerges;    /* merged hptes that got a frame of their own again */
    uint64_t delivered;       /* awaited pages that have come */
    uint64_t fetched_ahead;   /* of them those that nobody had touched */
    uint64_t mirror_fills;    /* hptes taken over from a mirror's source */
};

struct host_mm *host_mm_create(struct frame_pool *pool); /* pool is borrowed; NULL when out of memory */
/* Releases: fires release, frees all frames and swap slots. NULL is allowed. */
void host_mm_destroy(struct host_mm *mm);
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
/* Maps `len` bytes of the file from `offset` (both page multiples) privately: untouched pages read as the file's
 * content (zeros behind its end), writes stay in this mm. The descriptor is duplicated. 0 on bad arguments. */
hva_t host_mm_mmap_file(struct host_mm *mm, int fd, uint64_t offset, uint64_t len, unsigned prot);
/* Maps a read-only mirror of [source_hva, source_hva + len) of another mm: at every moment a page of it is absent, or
 * the frame which the source has. The source's invalidations pass down to the mirror's subscribers. Frames are neither
 * counted nor referenced here. `source` has the same pool and outlives every gup of the mirror; when it is destroyed
 * the mirror is empty and stays so. Neither this function nor munmap, gup or peek of a mirror are to be called with the
 * host_mm lock held. 0 on bad arguments. */
hva_t host_mm_mmap_mirror(struct host_mm *mm, struct host_mm *source, hva_t source_hva, uint64_t len);
/* Each fires start and end, and in between, while the old frames are still allocated, invalidate_range for what held a
 * frame; mprotect that only takes writing away fires no invalidate_range. 0, or -1 for a range that is not wholly
 * mapped or not aligned. */
int host_mm_munmap(struct host_mm *mm, hva_t hva, uint64_t len);
int host_mm_mprotect(struct host_mm *mm, hva_t hva, uint64_t len, unsigned prot);
int host_mm_dontneed(struct host_mm *mm, hva_t hva, uint64_t len);

/* Frame behind `hva`: faults it in; with `write` also makes it writable (breaks the zero page and copy-on-write) and
 * dirty. A read of an untouched anonymous page may be given the shared zero page, read-only. 0; -1 no mapping or not
 * permitted; -2 out of frames; -3 a swapped or file page cannot be read (enum host_status). A gup that replaces a frame
 * fires the bus itself: a fault handler that read its sequence before sees that and retries. */
int host_mm_gup(struct host_mm *mm, hva_t hva, bool write, struct gup_result *out);
/* The frames of `n` pages, as far as they are present and may be read: faults nothing in and marks nothing. out[i].pfn
 * is PFN_NONE for the others. Who uses them asks the retry question as after a gup. Linux: get_user_page_fast_only. */
void host_mm_gup_present(struct host_mm *mm, const hva_t *hva, unsigned n, struct gup_result *out);
/* Never changes anything. Takes the host_mm lock: who holds the MMU lock as well takes host_mm_lock() before it. */
struct hpte_info host_mm_peek(const struct host_mm *mm, hva_t hva);
/* Copies the content of the page at `hva` (4096 bytes) without any effect: present, swapped, of a file or of a mirror's
 * source. HOST_OK; HOST_DENIED where nothing is mapped, HOST_IO_ERROR: `buf` is zeros. */
int host_mm_peek_read(const struct host_mm *mm, hva_t hva, void *buf);
/* The same as a pointer, or NULL when nothing is mapped or the content is known to be all zeros. What has no frame is
 * unpacked into one of four buffers of the mm in turn: the pointer is valid until the fourth peek after it. One thread
 * at a time. */
const void *host_mm_peek_content(const struct host_mm *mm, hva_t hva);
/* Pages resident in this mm (zero page and mirrors not counted). */
uint64_t host_mm_resident(const struct host_mm *mm);

/* The host_mm lock: gup and host operations take it themselves; it is recursive to its owner. */
void host_mm_lock(struct host_mm *mm);
void host_mm_unlock(struct host_mm *mm);
/* The bus of this mm; made at first registration. */
struct notifier_bus **host_mm_bus_slot(struct host_mm *mm);

#endif
