#define _GNU_SOURCE /* fallocate */

#include "core/host/swap_area_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NO_REGION UINT32_MAX
#define WORD_BITS 64u

/* Tables come from mmap: the part for regions that are never used is never touched. */
static void *map_table(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bool swap_area_init(struct swap_area *a, int fd, uint64_t base, uint64_t bytes)
{
    uint64_t regions = bytes / SWAP_REGION;
    *a = (struct swap_area){.fd = fd, .base = base, .free_list = NO_REGION};
    a->limit = regions < NO_REGION ? (uint32_t)regions : NO_REGION - 1;
    for (unsigned c = 0; c <= SWAP_CLASSES; c++)
        a->partial[c] = NO_REGION;
    a->regions = a->limit ? map_table(a->limit * sizeof *a->regions) : NULL;
    return !a->limit || a->regions;
}

void swap_area_fini(struct swap_area *a)
{
    if (a->regions)
        munmap(a->regions, a->limit * sizeof *a->regions);
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
}

static unsigned capacity(const struct swap_region *r)
{
    return (unsigned)(SWAP_REGION / SWAP_UNIT) / r->units;
}

static void link_partial(struct swap_area *a, uint32_t i)
{
    struct swap_region *r = &a->regions[i];
    uint32_t *head = &a->partial[r->units];
    r->prev = NO_REGION;
    r->next = *head;
    if (*head != NO_REGION)
        a->regions[*head].prev = i;
    *head = i;
}

static void unlink_partial(struct swap_area *a, uint32_t i)
{
    const struct swap_region *r = &a->regions[i];
    *(r->prev == NO_REGION ? &a->partial[r->units] : &a->regions[r->prev].next) = r->next;
    if (r->next != NO_REGION)
        a->regions[r->next].prev = r->prev;
}

static uint32_t take_free_region(struct swap_area *a)
{
    uint32_t i = a->free_list;
    if (i != NO_REGION) {
        a->free_list = a->regions[i].next;
        a->free_count--;
    } else if (a->fresh < a->limit) {
        i = a->fresh++;
    }
    return i;
}

/* A region with room for objects of `units`: one in use, a free one, or at last one of larger objects. */
static uint32_t find_region(struct swap_area *a, unsigned units)
{
    if (a->partial[units] != NO_REGION)
        return a->partial[units];
    uint32_t i = take_free_region(a);
    if (i != NO_REGION) {
        a->regions[i] = (struct swap_region){.units = (uint8_t)units};
        link_partial(a, i);
        return i;
    }
    while (++units <= SWAP_CLASSES)
        if (a->partial[units] != NO_REGION)
            return a->partial[units];
    return NO_REGION;
}

static unsigned take_object(struct swap_region *r)
{
    unsigned n = 0;
    while (r->taken[n / WORD_BITS] >> (n % WORD_BITS) & 1)
        n++;
    r->taken[n / WORD_BITS] |= 1ull << (n % WORD_BITS);
    r->used++;
    return n;
}

uint64_t swap_area_alloc(struct swap_area *a, size_t size)
{
    uint32_t i = find_region(a, (unsigned)((size + SWAP_UNIT - 1) / SWAP_UNIT));
    if (i == NO_REGION)
        return SWAP_NOWHERE;
    struct swap_region *r = &a->regions[i];
    uint64_t at = a->base + i * SWAP_REGION + (uint64_t)take_object(r) * r->units * SWAP_UNIT;
    if (r->used == capacity(r))
        unlink_partial(a, i);
    a->bytes += r->units * SWAP_UNIT;
    return at;
}

static void free_region(struct swap_area *a, uint32_t i)
{
    struct swap_region *r = &a->regions[i];
    unlink_partial(a, i);
    r->units = 0;
    r->next = a->free_list;
    a->free_list = i;
    a->free_count++;
    /* Where holes cannot be punched the room is still reused. */
    if (fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(a->base + i * SWAP_REGION), SWAP_REGION))
        return;
}

void swap_area_free(struct swap_area *a, uint64_t at)
{
    uint32_t i = (uint32_t)((at - a->base) / SWAP_REGION);
    struct swap_region *r = &a->regions[i];
    unsigned n = (unsigned)((at - a->base) % SWAP_REGION) / (r->units * SWAP_UNIT);
    if (r->used == capacity(r))
        link_partial(a, i);
    r->taken[n / WORD_BITS] &= ~(1ull << (n % WORD_BITS));
    a->bytes -= r->units * SWAP_UNIT;
    if (--r->used == 0)
        free_region(a, i);
}

int swap_area_write(const struct swap_area *a, uint64_t at, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    while (len) {
        ssize_t n = pwrite(a->fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : ENOSPC;
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int swap_area_read(const struct swap_area *a, uint64_t at, void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len) {
        ssize_t n = pread(a->fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : EIO;
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}
