#define _GNU_SOURCE /* memfd_create */

#include "core/host/swap.h"

#include "core/alloc.h"
#include "core/host/host_mm.h"
#include "core/host/swap_area_internal.h"
#include "core/log.h"
#include "core/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define NO_SLOT     UINT32_MAX
#define WINDOW_BITS (-12) /* raw deflate; a page is its whole window */
/* What does not shrink below this is kept as it is: the last unit saved is not worth the unpacking. */
#define PACKED_MAX  (PAGE_SIZE - SWAP_UNIT)

static const char signature[] = "umbra swap 1\n";

enum place { PLACE_FREE, PLACE_FILL, PLACE_MEMORY, PLACE_FILE };

struct slot {
    uint64_t at; /* offset in the area, or the word that fills the page */
    uint64_t tag;
    pfn_t pfn; /* the frame last bound, valid while it carries the tag */
    uint32_t users, crc;
    uint32_t next, prev; /* memory slots, oldest first; free slots (next only) */
    uint16_t size;
    uint8_t place;
};

struct swap_store {
    pthread_mutex_t lock;
    unsigned users;
    struct swap_area memory, file;
    struct slot *slots;
    uint32_t count, capacity, free_list;
    uint32_t oldest, newest; /* slots in memory */
    z_stream deflate, inflate;
    struct swap_counters counters;
    bool complained;
    uint8_t packed[PAGE_SIZE];
};

/* ---- the file ---- */

static bool is_ours_or_empty(int fd, off_t size)
{
    char head[sizeof signature - 1];
    return !size || (pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head && !memcmp(head, signature, sizeof head));
}

/* Nothing that a user might miss is overwritten: only an empty file, or one that begins as ours do. */
static int open_file(const char *path, char *err, size_t err_len)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &st)) {
        snprintf(err, err_len, "cannot open swap file %s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        snprintf(err, err_len, "swap file %s is not a regular file", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB)) {
        snprintf(err, err_len, "swap file %s is in use by another process", path);
    } else if (!is_ours_or_empty(fd, st.st_size)) {
        snprintf(err, err_len, "%s exists and is not a swap file: it is left alone", path);
    } else if (ftruncate(fd, 0) || pwrite(fd, signature, sizeof signature - 1, 0) != (ssize_t)sizeof signature - 1) {
        snprintf(err, err_len, "cannot write swap file %s: %s", path, strerror(errno));
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- life ---- */

static bool areas_init(struct swap_store *s, const struct swap_config *cfg, char *err, size_t err_len)
{
    int file = -1, memory = memfd_create("umbra-swap", MFD_CLOEXEC);
    if (cfg->file && (file = open_file(cfg->file, err, err_len)) < 0) {
        if (memory >= 0)
            close(memory);
        return false;
    }
    bool ok = swap_area_init(&s->memory, memory, 0, cfg->memory_bytes);
    ok &= swap_area_init(&s->file, file, PAGE_SIZE, cfg->file ? cfg->file_bytes : 0);
    if (memory < 0 || !ok)
        snprintf(err, err_len, "cannot make a swap store: %s", strerror(errno));
    return memory >= 0 && ok;
}

static bool streams_init(struct swap_store *s)
{
    return deflateInit2(&s->deflate, 1, Z_DEFLATED, WINDOW_BITS, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
           inflateInit2(&s->inflate, WINDOW_BITS) == Z_OK;
}

struct swap_store *swap_store_create(const struct swap_config *cfg, char *err, size_t err_len)
{
    if (cfg->memory_bytes < SWAP_REGION && (!cfg->file || cfg->file_bytes < SWAP_REGION)) {
        snprintf(err, err_len, "a swap store needs room for 64 KiB at least, in memory or in a file");
        return NULL;
    }
    struct swap_store *s = alloc_zeroed(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->users = 1;
    s->free_list = s->oldest = s->newest = NO_SLOT;
    s->memory.fd = s->file.fd = -1;
    bool areas = areas_init(s, cfg, err, err_len);
    if (areas && streams_init(s))
        return s;
    if (areas)
        snprintf(err, err_len, "cannot make a swap store: zlib does not start");
    swap_store_put(s);
    return NULL;
}

void swap_store_get(struct swap_store *s)
{
    pthread_mutex_lock(&s->lock);
    s->users++;
    pthread_mutex_unlock(&s->lock);
}

void swap_store_put(struct swap_store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    bool last = --s->users == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    if (s->file.fd >= 0 && ftruncate(s->file.fd, 0))
        log_warn("the swap file could not be emptied: %s", strerror(errno));
    swap_area_fini(&s->memory);
    swap_area_fini(&s->file);
    deflateEnd(&s->deflate);
    inflateEnd(&s->inflate);
    pthread_mutex_destroy(&s->lock);
    free(s->slots);
    free(s);
}

const struct swap_counters *swap_store_counters(const struct swap_store *s)
{
    return &s->counters;
}

uint64_t swap_store_resident_bytes(const struct swap_store *s)
{
    struct stat st;
    return fstat(s->memory.fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

void swap_store_add_stats(const struct swap_store *s, struct stats *stats)
{
    const struct swap_counters *c = &s->counters;
    stats_add(stats, "swap.slots", "pages", &c->slots);
    stats_add(stats, "swap.same_filled", "pages", &c->same_filled);
    stats_add(stats, "swap.memory", "bytes", &c->memory_bytes);
    stats_add(stats, "swap.file", "bytes", &c->file_bytes);
    stats_add(stats, "swap.writes", "pages", &c->writes);
    stats_add(stats, "swap.reads", "pages", &c->reads);
    stats_add(stats, "swap.spilled", "pages", &c->spilled);
    stats_add(stats, "swap.refused", "pages", &c->refused);
}

/* ---- slots ---- */

static struct swap_area *area_of(struct swap_store *s, const struct slot *slot)
{
    return slot->place == PLACE_MEMORY ? &s->memory : &s->file;
}

static uint32_t slot_new(struct swap_store *s)
{
    uint32_t i = s->free_list;
    if (i != NO_SLOT) {
        s->free_list = s->slots[i].next;
    } else {
        if (s->count == s->capacity) {
            s->capacity = s->capacity ? s->capacity * 2 : 256;
            s->slots = alloc_resize(s->slots, s->capacity, sizeof *s->slots);
        }
        i = s->count++;
    }
    s->slots[i] = (struct slot){.users = 1, .pfn = PFN_NONE};
    s->counters.slots++;
    return i;
}

static void slot_release(struct swap_store *s, uint32_t i)
{
    s->slots[i] = (struct slot){.next = s->free_list, .pfn = PFN_NONE};
    s->free_list = i;
    s->counters.slots--;
}

static void link_newest(struct swap_store *s, uint32_t i)
{
    s->slots[i].prev = s->newest;
    s->slots[i].next = NO_SLOT;
    *(s->newest == NO_SLOT ? &s->oldest : &s->slots[s->newest].next) = i;
    s->newest = i;
}

static void unlink_memory(struct swap_store *s, uint32_t i)
{
    const struct slot *slot = &s->slots[i];
    *(slot->prev == NO_SLOT ? &s->oldest : &s->slots[slot->prev].next) = slot->next;
    *(slot->next == NO_SLOT ? &s->newest : &s->slots[slot->next].prev) = slot->prev;
}

static void note_bytes(struct swap_store *s)
{
    s->counters.memory_bytes = s->memory.bytes;
    s->counters.file_bytes = s->file.bytes;
}

static void slot_free(struct swap_store *s, uint32_t i)
{
    struct slot *slot = &s->slots[i];
    if (slot->place == PLACE_FILL) {
        s->counters.same_filled--;
    } else {
        if (slot->place == PLACE_MEMORY)
            unlink_memory(s, i);
        swap_area_free(area_of(s, slot), slot->at);
    }
    slot_release(s, i);
    note_bytes(s);
}

void swap_slot_get(struct swap_store *s, uint64_t slot)
{
    pthread_mutex_lock(&s->lock);
    s->slots[slot].users++;
    pthread_mutex_unlock(&s->lock);
}

void swap_slot_put(struct swap_store *s, uint64_t slot)
{
    pthread_mutex_lock(&s->lock);
    if (--s->slots[slot].users == 0)
        slot_free(s, (uint32_t)slot);
    pthread_mutex_unlock(&s->lock);
}

uint32_t swap_slot_users(struct swap_store *s, uint64_t slot)
{
    pthread_mutex_lock(&s->lock);
    uint32_t users = s->slots[slot].users;
    pthread_mutex_unlock(&s->lock);
    return users;
}

/* ---- packing ---- */

static bool is_filled(const void *page, uint64_t *word)
{
    const uint8_t *p = page;
    memcpy(word, p, sizeof *word);
    return !memcmp(p, p + sizeof *word, PAGE_SIZE - sizeof *word);
}

/* Packs the page into s->packed; its size, or PAGE_SIZE if it is not worth it. */
static size_t pack(struct swap_store *s, const void *page)
{
    z_stream *z = &s->deflate;
    deflateReset(z);
    z->next_in = (Bytef *)(uintptr_t)page;
    z->avail_in = PAGE_SIZE;
    z->next_out = s->packed;
    z->avail_out = PACKED_MAX;
    return deflate(z, Z_FINISH) == Z_STREAM_END ? PACKED_MAX - z->avail_out : PAGE_SIZE;
}

static bool unpack(struct swap_store *s, size_t size, void *page)
{
    z_stream *z = &s->inflate;
    inflateReset(z);
    z->next_in = s->packed;
    z->avail_in = (uInt)size;
    z->next_out = page;
    z->avail_out = PAGE_SIZE;
    return inflate(z, Z_FINISH) == Z_STREAM_END && !z->avail_out;
}

static int complain(struct swap_store *s, const char *what, int error)
{
    if (!s->complained)
        log_error("swap: %s: %s", what, error ? strerror(error) : "the content is damaged");
    s->complained = true;
    return HOST_IO_ERROR;
}

/* Room in `a`, with the bytes written there. */
static int put_bytes(struct swap_store *s, struct swap_area *a, const void *buf, size_t size, uint64_t *at)
{
    *at = swap_area_alloc(a, size);
    if (*at == SWAP_NOWHERE)
        return HOST_SWAP_FULL;
    int error = swap_area_write(a, *at, buf, size);
    if (!error)
        return HOST_OK;
    swap_area_free(a, *at);
    /* A full disk is a full swap file. */
    return error == ENOSPC || error == EDQUOT ? HOST_SWAP_FULL : complain(s, "cannot write", error);
}

/* Moves the oldest slot in memory to the file. */
static int spill_oldest(struct swap_store *s)
{
    uint32_t i = s->oldest;
    if (i == NO_SLOT || s->file.fd < 0)
        return HOST_SWAP_FULL;
    struct slot *slot = &s->slots[i];
    uint8_t buf[PAGE_SIZE];
    uint64_t at;
    int error = swap_area_read(&s->memory, slot->at, buf, slot->size);
    if (error)
        return complain(s, "cannot read back", error);
    int rc = put_bytes(s, &s->file, buf, slot->size, &at);
    if (rc)
        return rc;
    unlink_memory(s, i);
    swap_area_free(&s->memory, slot->at);
    slot->at = at;
    slot->place = PLACE_FILE;
    s->counters.spilled++;
    return HOST_OK;
}

/* Memory first; when it is full the oldest make room, and what memory cannot hold at all goes to the file. */
static int place_bytes(struct swap_store *s, const void *buf, struct slot *slot)
{
    slot->place = PLACE_MEMORY;
    int rc = put_bytes(s, &s->memory, buf, slot->size, &slot->at);
    while (rc == HOST_SWAP_FULL && s->oldest != NO_SLOT && s->file.fd >= 0) {
        rc = spill_oldest(s);
        if (rc == HOST_SWAP_FULL)
            break;
        if (rc)
            return rc;
        rc = put_bytes(s, &s->memory, buf, slot->size, &slot->at);
    }
    if (rc != HOST_SWAP_FULL || s->file.fd < 0)
        return rc;
    slot->place = PLACE_FILE;
    return put_bytes(s, &s->file, buf, slot->size, &slot->at);
}

static int write_locked(struct swap_store *s, const void *page, uint64_t *out)
{
    struct slot made = {.users = 1, .pfn = PFN_NONE, .place = PLACE_FILL};
    made.crc = (uint32_t)crc32(0, page, PAGE_SIZE);
    if (!is_filled(page, &made.at)) {
        made.size = (uint16_t)pack(s, page);
        int rc = place_bytes(s, made.size == PAGE_SIZE ? page : s->packed, &made);
        note_bytes(s);
        if (rc)
            return rc;
    }
    uint32_t i = slot_new(s);
    s->slots[i] = made;
    if (made.place == PLACE_MEMORY)
        link_newest(s, i);
    s->counters.same_filled += made.place == PLACE_FILL;
    *out = i;
    return HOST_OK;
}

int swap_store_write(struct swap_store *s, const void *page, uint64_t *slot)
{
    pthread_mutex_lock(&s->lock);
    int rc = write_locked(s, page, slot);
    *(rc ? &s->counters.refused : &s->counters.writes) += 1;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void fill(uint64_t word, uint8_t *page)
{
    for (size_t i = 0; i < PAGE_SIZE; i += sizeof word)
        memcpy(page + i, &word, sizeof word);
}

static int read_locked(struct swap_store *s, const struct slot *slot, void *page)
{
    if (slot->place == PLACE_FILL) {
        fill(slot->at, page);
        return HOST_OK;
    }
    bool plain = slot->size == PAGE_SIZE;
    int error = swap_area_read(area_of(s, slot), slot->at, plain ? page : s->packed, slot->size);
    if (error)
        return complain(s, "cannot read", error);
    if ((!plain && !unpack(s, slot->size, page)) || (uint32_t)crc32(0, page, PAGE_SIZE) != slot->crc)
        return complain(s, "cannot read", 0);
    return HOST_OK;
}

int swap_store_peek(struct swap_store *s, uint64_t slot, void *page)
{
    pthread_mutex_lock(&s->lock);
    int rc = read_locked(s, &s->slots[slot], page);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int swap_store_read(struct swap_store *s, uint64_t slot, void *page)
{
    __atomic_add_fetch(&s->counters.reads, 1, __ATOMIC_RELAXED);
    return swap_store_peek(s, slot, page);
}

/* ---- the swap cache ---- */

void swap_slot_bind(struct swap_store *s, uint64_t slot, struct frame_pool *pool, pfn_t pfn)
{
    struct frame_tag tag = {.id = frame_pool_new_tag(pool), .value = slot};
    pthread_mutex_lock(&s->lock);
    s->slots[slot].tag = tag.id;
    s->slots[slot].pfn = pfn;
    frame_pool_set_tag(pool, pfn, FRAME_TAG_SWAP, tag);
    pthread_mutex_unlock(&s->lock);
}

pfn_t swap_slot_frame(struct swap_store *s, uint64_t slot, struct frame_pool *pool)
{
    pthread_mutex_lock(&s->lock);
    pfn_t pfn = s->slots[slot].pfn;
    bool there = frame_pool_get_tagged(pool, pfn, FRAME_TAG_SWAP, s->slots[slot].tag);
    pthread_mutex_unlock(&s->lock);
    return there ? pfn : PFN_NONE;
}

bool swap_slot_of_frame(struct swap_store *s, struct frame_pool *pool, pfn_t pfn, uint64_t *slot)
{
    struct frame_tag tag = frame_pool_tag(pool, pfn, FRAME_TAG_SWAP);
    if (!tag.id)
        return false;
    pthread_mutex_lock(&s->lock);
    bool there = tag.value < s->count && s->slots[tag.value].tag == tag.id && s->slots[tag.value].users;
    if (there) {
        s->slots[tag.value].users++;
        *slot = tag.value;
    }
    pthread_mutex_unlock(&s->lock);
    return there;
}
