#define _GNU_SOURCE /* madvise */

#include "core/host/frame_pool.h"

#include "core/host/lock_order.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_SIZE  (FRAMES_HUGE * PAGE_SIZE)
#define WORD_BITS  64u
#define HUGE_WORDS (FRAMES_HUGE / WORD_BITS)
#define FRAMES_MAX ((uint64_t)1 << 34) /* 64 TiB: keeps every size computation far from overflow */

struct frame_pool {
    int pagemap;     /* what the operating system has of us; -1: it does not say */
    uint8_t *base;   /* 2 MiB aligned, so that aligned runs may become huge pages of the operating system */
    uint64_t frames; /* frame number `frames` itself is the shared zero frame, outside all accounts */
    uint64_t used, peak;
    uint64_t words;     /* of the bitmap, a multiple of HUGE_WORDS */
    uint64_t *taken;    /* bit per frame; bits beyond `frames` are set */
    uint64_t *accessed; /* bit per frame, each word atomic */
    uint64_t low;       /* no word below this one has a free frame */
    pfn_t high;         /* no frame from this one on was ever given out */
    uint32_t *refs;
    struct frame_tag (*tags)[FRAME_TAG_KINDS];
    uint64_t next_tag;
    pthread_mutex_t lock;
    struct lock_order order;
};

static void *map_zeroed(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static size_t memory_size(const struct frame_pool *p)
{
    return (size_t)((p->frames + 1) * PAGE_SIZE);
}

/* Reserves address space with room to align. The operating system is asked for huge pages: the lowest free frame is
 * given out first, so what is in use lies together, and 512 frames cost one page fault instead of as many. */
static bool map_memory(struct frame_pool *p)
{
    size_t size = memory_size(p);
    uint8_t *area = map_zeroed(size + HUGE_SIZE);
    if (!area)
        return false;
    size_t skip = (size_t)(-(uintptr_t)area & (HUGE_SIZE - 1));
    if (skip)
        munmap(area, skip);
    munmap(area + skip + size, HUGE_SIZE - skip);
    p->base = area + skip;
    madvise(p->base, size, MADV_HUGEPAGE);
    /* Nobody writes the zero frame: a stray write must fault here, not change every untouched page of every guest. */
    return mprotect(p->base + p->frames * PAGE_SIZE, PAGE_SIZE, PROT_READ) == 0;
}

static bool make_tables(struct frame_pool *p)
{
    p->words = (p->frames + FRAMES_HUGE - 1) / FRAMES_HUGE * HUGE_WORDS;
    p->taken = map_zeroed(p->words * sizeof *p->taken);
    p->accessed = map_zeroed(p->words * sizeof *p->accessed);
    p->refs = map_zeroed(p->frames * sizeof *p->refs);
    p->tags = map_zeroed(p->frames * sizeof *p->tags);
    if (!p->taken || !p->accessed || !p->refs || !p->tags)
        return false;
    for (uint64_t i = p->frames; i < p->words * WORD_BITS; i++)
        p->taken[i / WORD_BITS] |= 1ull << (i % WORD_BITS);
    return true;
}

struct frame_pool *frame_pool_create(uint64_t frames, char *err, size_t err_len)
{
    if (!frames || frames > FRAMES_MAX) {
        snprintf(err, err_len, "cannot make a frame pool of %llu frames", (unsigned long long)frames);
        return NULL;
    }
    struct frame_pool *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(err, err_len, "cannot make a frame pool: out of memory");
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    lock_order_init(&p->order);
    p->frames = frames;
    p->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (!map_memory(p) || !make_tables(p)) {
        snprintf(err, err_len, "cannot make a frame pool of %llu frames: %s", (unsigned long long)frames,
                 strerror(errno));
        frame_pool_destroy(p);
        return NULL;
    }
    return p;
}

void frame_pool_destroy(struct frame_pool *p)
{
    if (!p)
        return;
    if (p->base)
        munmap(p->base, memory_size(p));
    if (p->taken)
        munmap(p->taken, p->words * sizeof *p->taken);
    if (p->accessed)
        munmap(p->accessed, p->words * sizeof *p->accessed);
    if (p->refs)
        munmap(p->refs, p->frames * sizeof *p->refs);
    if (p->tags)
        munmap(p->tags, p->frames * sizeof *p->tags);
    if (p->pagemap >= 0)
        close(p->pagemap);
    pthread_mutex_destroy(&p->lock);
    lock_order_fini(&p->order);
    free(p);
}

struct lock_order *frame_pool_lock_order(struct frame_pool *p)
{
    return &p->order;
}

static void pool_lock(const struct frame_pool *pool)
{
    struct frame_pool *p = (struct frame_pool *)(uintptr_t)pool;
    lock_check_take(p, LOCK_RANK_POOL, &p->lock);
    pthread_mutex_lock(&p->lock);
}

static void pool_unlock(const struct frame_pool *pool)
{
    struct frame_pool *p = (struct frame_pool *)(uintptr_t)pool;
    pthread_mutex_unlock(&p->lock);
    lock_check_drop(p, &p->lock);
}

static pfn_t take_lowest(struct frame_pool *p)
{
    while (p->low < p->words && p->taken[p->low] == UINT64_MAX)
        p->low++;
    if (p->low == p->words)
        return PFN_NONE;
    unsigned bit = (unsigned)__builtin_ctzll(~p->taken[p->low]);
    p->taken[p->low] |= 1ull << bit;
    return p->low * WORD_BITS + bit;
}

/* Counts frames that were just taken. */
static void count_used(struct frame_pool *p, pfn_t first, uint64_t frames)
{
    p->used += frames;
    if (p->used > p->peak)
        p->peak = p->used;
    if (first + frames > p->high)
        p->high = first + frames;
}

pfn_t frame_pool_alloc(struct frame_pool *p)
{
    pool_lock(p);
    pfn_t pfn = take_lowest(p);
    if (pfn != PFN_NONE) {
        p->refs[pfn] = 1;
        count_used(p, pfn, 1);
    }
    pool_unlock(p);
    return pfn;
}

static bool run_is_free(const struct frame_pool *p, uint64_t word, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        if (p->taken[word + i])
            return false;
    return true;
}

static pfn_t take_run(struct frame_pool *p, uint64_t words)
{
    uint64_t word = (p->low + words - 1) / words * words;
    while (word + words <= p->words && !run_is_free(p, word, words))
        word += words;
    if (word + words > p->words)
        return PFN_NONE;
    memset(&p->taken[word], 0xff, words * sizeof *p->taken);
    return word * WORD_BITS;
}

pfn_t frame_pool_alloc_run(struct frame_pool *p, uint64_t frames)
{
    pool_lock(p);
    pfn_t first = take_run(p, frames / WORD_BITS);
    if (first != PFN_NONE) {
        for (uint64_t i = 0; i < frames; i++)
            p->refs[first + i] = 1;
        count_used(p, first, frames);
    }
    pool_unlock(p);
    return first;
}

/* A frame that nobody holds is a bug of the caller that would hand one guest's memory to another: stop at once. */
static void require_held(const struct frame_pool *p, pfn_t pfn)
{
    if (pfn >= p->frames || !p->refs[pfn]) {
        log_error("frame %llu is not allocated", (unsigned long long)pfn);
        abort();
    }
}

void frame_pool_get(struct frame_pool *p, pfn_t pfn)
{
    if (pfn == p->frames)
        return;
    pool_lock(p);
    require_held(p, pfn);
    p->refs[pfn]++;
    pool_unlock(p);
}

/* Looks before it clears: most frames never had a tag, and their part of the table stays untouched memory. */
static void clear_tags(struct frame_pool *p, pfn_t pfn)
{
    for (unsigned k = 0; k < FRAME_TAG_KINDS; k++)
        if (p->tags[pfn][k].id)
            p->tags[pfn][k] = (struct frame_tag){0};
}

/* Looks first, here and below: the words of what is never marked stay untouched memory, and shared ones in the caches.
 */
bool frame_pool_is_accessed(const struct frame_pool *p, pfn_t pfn)
{
    return pfn < p->frames && __atomic_load_n(&p->accessed[pfn / WORD_BITS], __ATOMIC_RELAXED) >> (pfn % WORD_BITS) & 1;
}

void frame_pool_clear_accessed(struct frame_pool *p, pfn_t pfn)
{
    if (frame_pool_is_accessed(p, pfn))
        __atomic_fetch_and(&p->accessed[pfn / WORD_BITS], ~(1ull << (pfn % WORD_BITS)), __ATOMIC_RELAXED);
}

void frame_pool_mark_accessed(struct frame_pool *p, pfn_t first, uint64_t count)
{
    pfn_t end = first + count < p->frames ? first + count : p->frames;
    for (pfn_t pfn = first; pfn < end;) {
        uint64_t *word = &p->accessed[pfn / WORD_BITS];
        pfn_t next = (pfn | (WORD_BITS - 1)) + 1;
        uint64_t bits = UINT64_MAX << (pfn % WORD_BITS);
        if (next > end)
            bits &= UINT64_MAX >> (next - end);
        if ((__atomic_load_n(word, __ATOMIC_RELAXED) & bits) != bits)
            __atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
        pfn = next;
    }
}

/* Gives a run of frames that nobody holds any more back to the operating system. */
static void punch(struct frame_pool *p, pfn_t first, uint64_t count)
{
    uint8_t *at = p->base + first * PAGE_SIZE;
    size_t len = (size_t)(count * PAGE_SIZE);
    /* Where it is not taken the memory stays resident, but a new frame must still read as zeros. */
    if (count && madvise(at, len, MADV_DONTNEED))
        memset(at, 0, len);
}

static void mark_free(struct frame_pool *p, pfn_t pfn)
{
    clear_tags(p, pfn);
    frame_pool_clear_accessed(p, pfn);
    p->taken[pfn / WORD_BITS] &= ~(1ull << (pfn % WORD_BITS));
    if (pfn / WORD_BITS < p->low)
        p->low = pfn / WORD_BITS;
    p->used--;
}

void frame_pool_put_many(struct frame_pool *p, const pfn_t *pfns, size_t count)
{
    pfn_t first = 0;
    uint64_t run = 0; /* frames freed one after the other, from `first` on */
    pool_lock(p);
    for (size_t i = 0; i < count; i++) {
        if (pfns[i] == p->frames)
            continue;
        require_held(p, pfns[i]);
        if (--p->refs[pfns[i]])
            continue;
        mark_free(p, pfns[i]);
        if (pfns[i] != first + run) {
            punch(p, first, run);
            first = pfns[i];
            run = 0;
        }
        run++;
    }
    punch(p, first, run);
    pool_unlock(p);
}

void frame_pool_put(struct frame_pool *p, pfn_t pfn)
{
    frame_pool_put_many(p, &pfn, 1);
}

uint64_t frame_pool_new_tag(struct frame_pool *p)
{
    return __atomic_add_fetch(&p->next_tag, 1, __ATOMIC_RELAXED);
}

void frame_pool_set_tag(struct frame_pool *p, pfn_t pfn, enum frame_tag_kind kind, struct frame_tag tag)
{
    pool_lock(p);
    require_held(p, pfn);
    p->tags[pfn][kind] = tag;
    pool_unlock(p);
}

struct frame_tag frame_pool_tag(const struct frame_pool *p, pfn_t pfn, enum frame_tag_kind kind)
{
    struct frame_tag tag = {0};
    pool_lock(p);
    if (pfn < p->frames)
        tag = p->tags[pfn][kind];
    pool_unlock(p);
    return tag;
}

bool frame_pool_get_tagged(struct frame_pool *p, pfn_t pfn, enum frame_tag_kind kind, uint64_t id)
{
    pool_lock(p);
    bool ours = id && pfn < p->frames && p->refs[pfn] && p->tags[pfn][kind].id == id;
    if (ours)
        p->refs[pfn]++;
    pool_unlock(p);
    return ours;
}

bool frame_pool_own(struct frame_pool *p, pfn_t pfn)
{
    if (pfn >= p->frames)
        return false;
    pool_lock(p);
    require_held(p, pfn);
    bool sole = p->refs[pfn] == 1;
    if (sole)
        clear_tags(p, pfn);
    pool_unlock(p);
    return sole;
}

bool frame_pool_own_run(struct frame_pool *p, pfn_t first, uint64_t count)
{
    if (first >= p->frames || count > p->frames - first)
        return false;
    bool sole = true;
    pool_lock(p);
    for (uint64_t i = 0; sole && i < count; i++) {
        require_held(p, first + i);
        sole = p->refs[first + i] == 1;
    }
    for (uint64_t i = 0; sole && i < count; i++)
        clear_tags(p, first + i);
    pool_unlock(p);
    return sole;
}

uint32_t frame_pool_refs(const struct frame_pool *p, pfn_t pfn)
{
    if (pfn >= p->frames)
        return pfn == p->frames;
    pool_lock(p);
    uint32_t refs = p->refs[pfn];
    pool_unlock(p);
    return refs;
}

void *frame_pool_ptr(const struct frame_pool *p, pfn_t pfn)
{
    return p->base + pfn * PAGE_SIZE;
}

pfn_t frame_pool_zero_frame(const struct frame_pool *p)
{
    return p->frames;
}

static uint64_t read_count(const struct frame_pool *p, const uint64_t *count)
{
    pool_lock(p);
    uint64_t n = *count;
    pool_unlock(p);
    return n;
}

uint64_t frame_pool_used(const struct frame_pool *p)
{
    return read_count(p, &p->used);
}

uint64_t frame_pool_peak(const struct frame_pool *p)
{
    return read_count(p, &p->peak);
}

uint64_t frame_pool_capacity(const struct frame_pool *p)
{
    return p->frames;
}

/* ---- what the operating system has (Linux: Documentation/admin-guide/mm/pagemap.rst) ---- */

#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_SWAPPED ((uint64_t)1 << 62)
#define PAGEMAP_BATCH   512u

/* How many of the frames pfn..end-1 the entries were read of: 1 to PAGEMAP_BATCH; 0: it does not say. */
static size_t read_pagemap(const struct frame_pool *p, pfn_t pfn, pfn_t end, uint64_t entry[PAGEMAP_BATCH])
{
    size_t count = end - pfn < PAGEMAP_BATCH ? (size_t)(end - pfn) : PAGEMAP_BATCH;
    off_t at = (off_t)(((uintptr_t)p->base / PAGE_SIZE + pfn) * sizeof *entry);
    ssize_t n = p->pagemap < 0 ? -1 : pread(p->pagemap, entry, count * sizeof *entry, at);
    return n < 0 ? 0 : (size_t)n / sizeof *entry;
}

static bool has_memory(uint64_t entry)
{
    return entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
}

/* What the system has put aside itself counts as touched. Where it cannot say, so does everything. */
pfn_t frame_pool_next_touched(const struct frame_pool *p, pfn_t pfn)
{
    uint64_t entry[PAGEMAP_BATCH];
    size_t count = pfn < p->frames ? read_pagemap(p, pfn, p->frames, entry) : 0, k = 0;
    while (k < count && !has_memory(entry[k]))
        k++;
    return pfn + k;
}

uint64_t frame_pool_resident_bytes(const struct frame_pool *p)
{
    uint64_t entry[PAGEMAP_BATCH], held = 0;
    pfn_t end = read_count(p, &p->high), pfn = 0;
    for (size_t n; pfn < end && (n = read_pagemap(p, pfn, end, entry)); pfn += n)
        for (size_t k = 0; k < n; k++)
            held += has_memory(entry[k]);
    return (held + end - pfn) * PAGE_SIZE;
}
