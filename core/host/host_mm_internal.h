/*
 * The inside of a host_mm, shared by the files of core/host only. Functions named _locked want the host_mm lock held.
 */
#ifndef CORE_HOST_HOST_MM_INTERNAL_H
#define CORE_HOST_HOST_MM_INTERNAL_H

#include "core/host/host_mm.h"
#include "core/host/hpte.h"
#include "core/host/vma.h"

#include <pthread.h>

struct trace;
struct swap_store;
struct page_source;
struct ksm;

#define PEEK_BUFFERS 4

/* What a file or mirror VMA shows. Lives in its mm's list while a VMA or a gup under way counts on it. */
struct vma_backing {
    struct vma_backing *next;
    struct host_mm *mm; /* whose VMAs they are */
    unsigned refs;      /* under mm's lock */
    enum vma_kind kind;
    int fd; /* VMA_FILE: owned */

    /* VMA_MIRROR: */
    struct notifier notifier; /* on the source's bus */
    struct host_mm *source;   /* NULL once it is gone; under mm's lock */
    hva_t source_start, source_end;
    uint64_t seq; /* moves with every invalidation that meets the window; under mm's lock */
};

struct host_mm {
    pthread_mutex_t lock; /* recursive; guards all below except `bus`, which is set once */
    struct frame_pool *pool;
    struct vma_set vmas;
    struct hpte_table hptes;
    struct notifier_bus *bus;
    struct trace *trace;
    struct host_mm_counters counters;

    struct vma_backing *backings;    /* owned */
    struct swap_store *swap;         /* counted; NULL: nothing can be swapped out */
    struct page_source *page_source; /* counted; who has the awaited pages */
    hva_t fetch_hand;                /* where host_mm_fetch_ahead() goes on */
    struct ksm *ksm;                 /* borrowed: set and cleared by ksm.c */
    uint64_t limit;                  /* pages that may be charged; 0: no limit */
    bool reclaim_wanted;             /* atomic: over the limit since the last safe point */
    void (*reclaim_hook)(void *ctx); /* asks for a safe point; NULL: nobody */
    void *reclaim_ctx;
    int fault_level;                    /* write faults may be answered with mappings of this level; 0: small ones */
    hva_t age_hand;                     /* where aging and reclaim go on */
    uint8_t (*peek_buffers)[PAGE_SIZE]; /* owned; PEEK_BUFFERS, made on first need */
    unsigned peek_next;
};

/* Counts and traces an invalidation as it starts and ends. */
void host_mm_note_range(const struct notify_range *range, bool starts);

/* host_mm.c */

/* As host_mm_lock(), but does not wait: false if another thread has it. */
bool host_mm_trylock(struct host_mm *mm);
/* True if [hva, hva + len) is page-aligned, not empty and wholly mapped. */
bool host_mm_covers_locked(const struct host_mm *mm, hva_t hva, uint64_t len);
/* Clears the hptes of the range, fires invalidate_range for what held a frame, then drops frames and slots. The caller
 * fires start and end. Returns how many there were. */
uint64_t host_mm_zap_locked(struct host_mm *mm, hva_t start, hva_t end);
/* Replaces a present hpte by another frame's inside a range that has started: sets it, fires invalidate_range while the
 * old frame is still allocated, drops the old frame. Linux: the set_pte_at / invalidate_range / put_page at the end of
 * wp_page_copy and try_to_unmap_one. */
void host_mm_replace_locked(struct host_mm *mm, hva_t hva, hpte_t to);
/* One page as a range. */
struct notify_range host_mm_page_range(struct host_mm *mm, hva_t hva, enum notify_event event);
/* Fires change_pte, then sets the hpte. Linux: set_pte_at_notify. */
void host_mm_set_notify_locked(struct host_mm *mm, hva_t hva, hpte_t to);

/* gup.c */

/* Gives a write-protected page (shared, merged, or the zero page) a frame of its own, whatever the VMA permits; the
 * hpte is writable only if `write`. Linux: do_wp_page. */
int host_mm_break_cow_locked(struct host_mm *mm, hva_t hva, bool write);

/* reclaim.c */

/* The page of a swapped hpte comes back, read-only. Linux: do_swap_page. */
int host_mm_swap_in_locked(struct host_mm *mm, hva_t hva);
int host_mm_swap_out_locked(struct host_mm *mm, hva_t hva);
/* Asks for reclaim at the next safe point if the mm is over its limit. */
void host_mm_check_limit_locked(struct host_mm *mm);
/* Pages that count against the limit: resident ones, with merged ones counted once a shared frame. */
uint64_t host_mm_charge_locked(const struct host_mm *mm);

/* huge.c */

/* Splits the huge page that holds `hva`, if one does, down to small pages; the rest of a gigantic one becomes huge. */
void host_mm_split_locked(struct host_mm *mm, hva_t hva);
/* Splits the huge pages of which [start, end) covers only a part. */
void host_mm_split_borders_locked(struct host_mm *mm, hva_t start, hva_t end);
/* Makes the GiB around `hva` one gigantic page if that takes no copy: its frames lie as a split has left them. */
bool host_mm_rejoin(struct host_mm *mm, hva_t hva);
/* A write fault on an empty aligned range: true if it was answered with a gigantic or huge page. */
bool host_mm_huge_fault_locked(struct host_mm *mm, hva_t hva, const struct vma *v);
/* A write fault on a write-protected huge page: makes all of it writable if no frame is shared, else splits it. A
 * gigantic one is split into huge ones first (Linux: wp_huge_pud). True if the page is writable now. Linux:
 * do_huge_pmd_wp_page. */
bool host_mm_huge_reuse_locked(struct host_mm *mm, hva_t hva);

/* backing.c */

/* A backing in the list of `mm`, with no user yet. */
struct vma_backing *vma_backing_add(struct host_mm *mm, enum vma_kind kind);
/* Frees the backings that nobody uses any more. The host_mm lock must not be held. */
void vma_backing_reap(struct host_mm *mm);
/* 4096 bytes of the file; zeros behind its end. HOST_OK or HOST_IO_ERROR. */
int vma_backing_read(const struct vma_backing *b, uint64_t offset, void *buf);
/* A backing of `child` like `b`. A mirror's is to be subscribed with mirror_subscribe(), without locks. */
struct vma_backing *vma_backing_clone(struct vma_backing *b, struct host_mm *child);

/* postcopy.c */

int page_source_fetch(struct page_source *s, uint64_t key, void *page);
/* What has to be fetched for an awaited hpte; the source is counted for the caller. */
void postcopy_begin_locked(struct host_mm *mm, hpte_t e, struct page_source **source, uint64_t *key);
/* Fetches and delivers, without the lock held. HOST_OK means: look again. Ends the caller's use of the source. */
int postcopy_fetch(struct host_mm *mm, hva_t hva, struct page_source *source, uint64_t key);

/* mirror.c */

bool mirror_subscribe(struct vma_backing *b);
/* Takes the source's frame for the page at `hva` over, without the lock held. HOST_OK means: look again. The caller
 * counted a use of `b`, which this ends. */
int mirror_fill(struct host_mm *mm, struct vma_backing *b, hva_t hva, hva_t source_hva, uint64_t seq);

#endif
