/*
 * Block devices: what disks, CDs and floppies are made of on the host's side.
 *
 * A struct block_device is a size, a sector size and five operations; formats (raw.c, gzip.c, nbd.c) and layers
 * (overlay.c) embed it. Devices of the guest see this interface alone.
 *
 * Contract:
 * - Offsets and lengths are in bytes and multiples of BLOCK_SECTOR; a request beyond the end is refused, never clipped.
 * - Calls are synchronous. A device of the guest makes them from a timer that it armed BLOCK_LATENCY after the guest's
 *   request, so that a completion comes at a fixed virtual time and the machine waits for the host there.
 * - What was written is read back; it is durable after block_flush(). Bytes that were discarded read as zeros, on every
 *   host.
 * - BLOCK_FULL: the host has no room for the bytes now, and nothing that was there before is lost. The device keeps its
 *   request and tries it again (same call, same bytes) at the same virtual time; the block device has told the machine
 *   (block_set_full), which pauses before that.
 * - What an error means is the user's choice (block_on_error): it is reported to the guest, ignored, or the machine
 * waits for the host to be mended, by way of BLOCK_FULL.
 * - Images are hostile: a format checks all that it reads from one.
 */
#ifndef CORE_BLOCK_BLOCK_H
#define CORE_BLOCK_BLOCK_H

#include "core/types.h"

#define BLOCK_SECTOR   512u
#define BLOCK_SIZE_MAX (1ull << 50) /* bytes */
/* Virtual time from a request to its completion, in ns: the same for every request and every medium. */
#define BLOCK_LATENCY  50000ull

enum block_result {
    BLOCK_OK = 0,
    BLOCK_ERROR = -1,     /* the host could not do it; nothing is known of the bytes */
    BLOCK_FULL = -2,      /* see above: try again */
    BLOCK_READ_ONLY = -3, /* write, discard */
    BLOCK_RANGE = -4      /* not whole sectors, or beyond the end */
};

/* What comes of an error on the host's side (QEMU's werror= and rerror=); the guest's own errors are always its own. */
enum block_on_error {
    BLOCK_ON_ERROR_AUTO = 0, /* BLOCK_FULL waits (enospc), the rest is reported */
    BLOCK_ON_ERROR_REPORT,   /* BLOCK_ERROR, also where the host has no room */
    BLOCK_ON_ERROR_IGNORE,   /* the guest is told that it is done; what cannot be read reads as zeros */
    BLOCK_ON_ERROR_STOP      /* BLOCK_FULL, whatever failed */
};

struct block_device;
struct snap_writer;
struct snap_reader;

struct block_ops {
    enum block_result (*read)(struct block_device *b, uint64_t offset, void *buf, size_t len);
    /* The rest is NULL where the device is always read-only. */
    enum block_result (*write)(struct block_device *b, uint64_t offset, const void *buf, size_t len);
    enum block_result (*discard)(struct block_device *b, uint64_t offset, uint64_t len);
    enum block_result (*flush)(struct block_device *b);
    void (*close)(struct block_device *b);
};

struct block_counters {
    uint64_t reads, read_bytes, writes, written_bytes, flushes, discards, errors, pauses;
};

struct block_device {
    const struct block_ops *ops;
    uint64_t size; /* bytes, a multiple of BLOCK_SECTOR */
    unsigned
        sector_size; /* that the guest should be told: BLOCK_SECTOR, or more if the host's medium has larger ones */
    bool read_only;
    bool is_overlay;
    unsigned users; /* block_open() gives one; layers above and forks add theirs */
    enum block_on_error on_read, on_write;
    void (*full)(void *ctx, struct block_device *b);
    void *full_ctx;
    bool waits_to_write;           /* of the last BLOCK_FULL: it was not a read */
    enum block_result waits_since; /* the same: what the host had said */
    struct block_counters counters;
};

enum block_format { BLOCK_FORMAT_AUTO, BLOCK_FORMAT_RAW, BLOCK_FORMAT_GZIP };

struct block_open_config {
    /* A path; or nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME], nbd://..., nbd+unix://... */
    const char *file;
    enum block_format format; /* AUTO: gzip by its first bytes, else raw; images of other formats are refused */
    bool read_only;
    bool snapshot; /* writes go to a temporary overlay, which ends with the block device */
};

/* Opens an image. NULL with `err` filled. */
struct block_device *block_open(const struct block_open_config *cfg, char *err, size_t err_len);
/* An empty temporary overlay on `base`, which it takes a use of: reads go to base where nothing was written. */
struct block_device *block_overlay(struct block_device *base, char *err, size_t err_len);
/* A copy of `b` for a forked machine: both go on from the same content, and neither sees the other's writes. NULL with
 * `err` filled: also where b writes to its image directly. */
struct block_device *block_fork(struct block_device *b, char *err, size_t err_len);
/* Gives back one use; the last one closes it. May be NULL. */
void block_close(struct block_device *b);

enum block_result block_read(struct block_device *b, uint64_t offset, void *buf, size_t len);
enum block_result block_write(struct block_device *b, uint64_t offset, const void *buf, size_t len);
enum block_result block_discard(struct block_device *b, uint64_t offset, uint64_t len);
enum block_result block_flush(struct block_device *b);
/* Who is told, in the middle of a request, that it ends in BLOCK_FULL. */
void block_set_full(struct block_device *b, void (*full)(void *ctx, struct block_device *b), void *ctx);
/* "no room on the host's disk" and so on. */
const char *block_result_text(enum block_result r);

/* An overlay's written sectors, put into and got from the section that the caller has opened; of another device its
 * size alone. Loading replaces what was written before. */
void block_save(struct block_device *b, struct snap_writer *w);
void block_load(struct block_device *b, struct snap_reader *r);

#endif
