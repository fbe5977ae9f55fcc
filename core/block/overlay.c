/*
 * Copy on write: what is written goes to a temporary file, at the same offset; a map says which sectors it has.
 * Everything else is read from the device below, which is never written.
 *
 * The map has a bit a sector, in leaves of LEAF_SECTORS that are made when one of theirs is written. Forking freezes an
 * overlay: parent and child each get an empty one on top of it, so that a stack shares its lower layers, which no one
 * writes any more.
 */
#include "core/alloc.h"
#include "core/block/block_internal.h"
#include "core/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAF_SECTORS 4096u
#define LEAF_WORDS   (LEAF_SECTORS / 64)
#define PIECE        65536u /* of a snapshot's records, at most */
#define MAP_END      UINT64_MAX

struct overlay {
    struct block_device b;
    struct block_device *base; /* a use of it is ours */
    int fd;
    uint64_t leaves, written; /* sectors */
    uint64_t **leaf;
};

static struct overlay *overlay_of(struct block_device *b)
{
    return container_of(b, struct overlay, b);
}

/* ---- the map ---- */

static bool map_has(const struct overlay *o, uint64_t sector)
{
    const uint64_t *leaf = o->leaf[sector / LEAF_SECTORS];
    return leaf && leaf[sector % LEAF_SECTORS / 64] >> sector % 64 & 1;
}

/* Sectors from `sector` on, at most `max`, that are all there or all not. */
static uint64_t map_run(const struct overlay *o, uint64_t sector, uint64_t max, bool *has)
{
    uint64_t n = 1;
    *has = map_has(o, sector);
    while (n < max) {
        uint64_t at = sector + n, word = 0, *leaf = o->leaf[at / LEAF_SECTORS];
        if (leaf)
            word = leaf[at % LEAF_SECTORS / 64];
        if (at % 64 == 0 && word == (*has ? UINT64_MAX : 0))
            n += 64;
        else if ((word >> at % 64 & 1) == *has)
            n++;
        else
            break;
    }
    return n < max ? n : max;
}

/* Room in the map for [sector, sector + n). */
static bool map_reserve(struct overlay *o, uint64_t sector, uint64_t n)
{
    for (uint64_t k = sector / LEAF_SECTORS; n && k <= (sector + n - 1) / LEAF_SECTORS; k++) {
        if (!o->leaf[k])
            o->leaf[k] = calloc(LEAF_WORDS, sizeof(uint64_t));
        if (!o->leaf[k])
            return false;
    }
    return true;
}

static void map_add(struct overlay *o, uint64_t sector, uint64_t n)
{
    for (uint64_t at = sector; at < sector + n; at++) {
        uint64_t *word = &o->leaf[at / LEAF_SECTORS][at % LEAF_SECTORS / 64], bit = 1ull << at % 64;
        o->written += !(*word & bit);
        *word |= bit;
    }
}

static void map_clear(struct overlay *o)
{
    for (uint64_t k = 0; k < o->leaves; k++) {
        free(o->leaf[k]);
        o->leaf[k] = NULL;
    }
    o->written = 0;
}

/* ---- operations ---- */

static enum block_result overlay_read(struct block_device *b, uint64_t offset, void *buf, size_t len)
{
    struct overlay *o = overlay_of(b);
    uint8_t *to = buf;
    while (len) {
        bool has;
        size_t n = (size_t)map_run(o, offset / BLOCK_SECTOR, len / BLOCK_SECTOR, &has) * BLOCK_SECTOR;
        enum block_result r = has ? fd_read_at(o->fd, offset, to, n) : o->base->ops->read(o->base, offset, to, n);
        if (r)
            return r;
        offset += n;
        to += n;
        len -= n;
    }
    return BLOCK_OK;
}

static enum block_result overlay_write(struct block_device *b, uint64_t offset, const void *buf, size_t len)
{
    struct overlay *o = overlay_of(b);
    uint64_t sector = offset / BLOCK_SECTOR, n = len / BLOCK_SECTOR;
    if (!map_reserve(o, sector, n))
        return BLOCK_FULL;
    enum block_result r = fd_write_at(o->fd, offset, buf, len);
    if (r == BLOCK_OK)
        map_add(o, sector, n);
    return r;
}

static enum block_result overlay_discard(struct block_device *b, uint64_t offset, uint64_t len)
{
    struct overlay *o = overlay_of(b);
    if (!len)
        return BLOCK_OK;
    if (!map_reserve(o, offset / BLOCK_SECTOR, len / BLOCK_SECTOR))
        return BLOCK_FULL;
    enum block_result r = fd_zero_at(o->fd, offset, len);
    if (r == BLOCK_OK)
        map_add(o, offset / BLOCK_SECTOR, len / BLOCK_SECTOR);
    return r;
}

/* What is temporary need not be durable. */
static enum block_result overlay_flush(struct block_device *b)
{
    return BLOCK_OK;
}

static void overlay_close(struct block_device *b)
{
    struct overlay *o = overlay_of(b);
    block_close(o->base);
    map_clear(o);
    free(o->leaf);
    close(o->fd);
    free(o);
}

static const struct block_ops overlay_ops = {overlay_read, overlay_write, overlay_discard, overlay_flush,
                                             overlay_close};

/* An empty map and an empty file. False with `err` filled. */
static bool make_empty(struct overlay *o, char *err, size_t err_len)
{
    uint64_t leaves = (o->b.size / BLOCK_SECTOR + LEAF_SECTORS - 1) / LEAF_SECTORS;
    int fd = block_temporary_file(err, err_len);
    if (fd < 0)
        return false;
    uint64_t **leaf = calloc(leaves ? leaves : 1, sizeof *leaf);
    if (!leaf) {
        snprintf(err, err_len, "out of memory");
        close(fd);
        return false;
    }
    o->fd = fd;
    o->leaves = leaves;
    o->leaf = leaf;
    o->written = 0;
    return true;
}

struct block_device *block_overlay(struct block_device *base, char *err, size_t err_len)
{
    struct overlay *o = alloc_zeroed(1, sizeof *o);
    o->b = (struct block_device){
        .ops = &overlay_ops, .size = base->size, .sector_size = base->sector_size, .is_overlay = true, .users = 1};
    if (!make_empty(o, err, err_len)) {
        free(o);
        return NULL;
    }
    o->base = base;
    base->users++;
    return &o->b;
}

/* ---- forks ---- */

/* Moves what *o holds into a layer of its own, below it. False with `err` filled. */
static bool freeze(struct overlay *o, char *err, size_t err_len)
{
    struct overlay *below = alloc_zeroed(1, sizeof *below);
    *below = *o;
    if (!make_empty(o, err, err_len)) {
        free(below);
        return false;
    }
    below->b.users = 1;
    below->b.full = NULL;
    below->b.counters = (struct block_counters){0};
    o->base = &below->b;
    return true;
}

/* An empty top needs no freezing: what is below it is frozen already. */
struct block_device *overlay_fork(struct block_device *b, char *err, size_t err_len)
{
    struct overlay *o = overlay_of(b);
    if (o->written && !freeze(o, err, err_len))
        return NULL;
    return block_overlay(o->base, err, err_len);
}

/* ---- snapshots: records { u64 sector, u32 sectors, bytes }, in order, of what any overlay of the stack has ---- */

static bool stack_has(struct block_device *b, uint64_t sector, uint64_t max, uint64_t *run)
{
    bool any = false;
    for (*run = max; b->is_overlay && !any; b = overlay_of(b)->base) {
        bool has;
        uint64_t n = map_run(overlay_of(b), sector, *run, &has);
        any = has;
        *run = n;
    }
    return any;
}

void overlay_save(struct block_device *b, struct snap_writer *w)
{
    static const char failed[] = "what was written to a disk cannot be read back";
    uint64_t sectors = b->size / BLOCK_SECTOR, n;
    uint8_t *piece = alloc_zeroed(1, PIECE);
    for (uint64_t at = 0; at < sectors; at += n) {
        uint64_t left = sectors - at;
        if (!stack_has(b, at, left, &n))
            continue;
        n = n < PIECE / BLOCK_SECTOR ? n : PIECE / BLOCK_SECTOR;
        if (overlay_read(b, at * BLOCK_SECTOR, piece, (size_t)n * BLOCK_SECTOR))
            snap_writer_fail(w, failed);
        snap_put_u64(w, at);
        snap_put_u32(w, (uint32_t)n);
        snap_put_packed(w, piece, (size_t)n * BLOCK_SECTOR);
    }
    snap_put_u64(w, MAP_END);
    free(piece);
}

/* The image itself is at the bottom. */
static void rebase(struct overlay *o)
{
    struct block_device *bottom = o->base;
    while (bottom->is_overlay)
        bottom = overlay_of(bottom)->base;
    bottom->users++;
    block_close(o->base);
    o->base = bottom;
}

static void load_records(struct overlay *o, uint8_t *piece, struct snap_reader *r)
{
    uint64_t sectors = o->b.size / BLOCK_SECTOR;
    for (;;) {
        uint64_t at = snap_get_u64(r);
        if (at == MAP_END || snap_reader_error(r))
            return;
        uint32_t n = snap_get_u32(r);
        if (!n || n > PIECE / BLOCK_SECTOR || at >= sectors || n > sectors - at) {
            snap_fail(r, "sector %llu of a disk is out of range", (unsigned long long)at);
            return;
        }
        snap_get_packed(r, piece, (size_t)n * BLOCK_SECTOR);
        if (overlay_write(&o->b, at * BLOCK_SECTOR, piece, (size_t)n * BLOCK_SECTOR))
            snap_fail(r, "no room on the host's disk");
    }
}

void overlay_load(struct block_device *b, struct snap_reader *r)
{
    struct overlay *o = overlay_of(b);
    rebase(o);
    map_clear(o);
    if (ftruncate(o->fd, 0) && r)
        snap_fail(r, "cannot empty a temporary file: %s", strerror(errno));
    if (!r)
        return;
    uint8_t *piece = alloc_zeroed(1, PIECE);
    load_records(o, piece, r);
    free(piece);
}
