/*
 * Disk images: raw ones of any length, compressed ones that are damaged, and heads of formats that are refused. What
 * opens behaves as an array of bytes, with overlays, forks and snapshots of overlays on top of it.
 */
#include "fuzz.h"

#include "core/block/block.h"
#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define SIZE_LIMIT 200000u
#define REQUESTS   200
#define STACK      4

/* ---- images ---- */

static size_t write_image(struct fuzz *f, const char *path, uint8_t *bytes)
{
    static const char *const heads[] = {"QFI\xfb", "KDMV", "vhdxfile", "conectix", "\x1f\x8b\x08", "QED"};
    size_t len = rng_below(&f->rng, SIZE_LIMIT);
    rng_bytes(&f->rng, bytes, len);
    if (len > 8 && rng_one_in(&f->rng, 4)) {
        const char *head = RNG_PICK(&f->rng, heads);
        memcpy(bytes, head, strlen(head));
    }
    if (len && rng_one_in(&f->rng, 2))
        memset(bytes, 0, rng_below(&f->rng, len));
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(bytes, 1, len, out) != len || fclose(out))
        fuzz_fail(f, "cannot write %s", path);
    return len;
}

/* The same bytes compressed; then perhaps a few of the file's are changed, or its end is cut off. True: it is whole. */
static bool compress_image(struct fuzz *f, const char *path, const uint8_t *bytes, size_t len)
{
    gzFile out = gzopen(path, "wb1");
    if (!out || (len && gzwrite(out, bytes, (unsigned)len) != (int)len) || gzclose(out))
        fuzz_fail(f, "cannot write %s", path);
    if (rng_one_in(&f->rng, 3))
        return true;
    FILE *file = fopen(path, "r+b");
    if (!file || fseek(file, 0, SEEK_END))
        fuzz_fail(f, "cannot change %s", path);
    size_t size = (size_t)ftell(file);
    for (unsigned n = 1 + (unsigned)rng_below(&f->rng, 4); n; n--) {
        fseek(file, (long)rng_below(&f->rng, size), SEEK_SET);
        fputc((int)(rng_next(&f->rng) & 0xff), file);
    }
    fclose(file);
    if (rng_one_in(&f->rng, 2) && truncate(path, (off_t)rng_below(&f->rng, size)))
        fuzz_fail(f, "cannot cut %s", path);
    return false;
}

/* ---- against an array ---- */

struct layer {
    struct block_device *b;
    uint8_t *model;
};

static void request(struct fuzz *f, struct layer *l)
{
    uint8_t buf[64 * BLOCK_SECTOR];
    uint64_t sectors = l->b->size / BLOCK_SECTOR, at = rng_below(&f->rng, sectors + 2);
    uint64_t n = rng_below(&f->rng, 65);
    bool fits = at <= sectors && n <= sectors - at;
    enum block_result want = fits ? BLOCK_OK : BLOCK_RANGE, got;
    uint8_t *place = l->model + at * BLOCK_SECTOR;
    switch (rng_below(&f->rng, 3)) {
    case 0:
        got = block_read(l->b, at * BLOCK_SECTOR, buf, n * BLOCK_SECTOR);
        if (fits && !got && memcmp(buf, place, n * BLOCK_SECTOR))
            fuzz_fail(f, "sector %llu and the %llu behind it read wrong", (unsigned long long)at,
                      (unsigned long long)n);
        break;
    case 1:
        rng_bytes(&f->rng, buf, n * BLOCK_SECTOR);
        got = block_write(l->b, at * BLOCK_SECTOR, buf, n * BLOCK_SECTOR);
        if (fits)
            memcpy(place, buf, n * BLOCK_SECTOR);
        break;
    default:
        got = block_discard(l->b, at * BLOCK_SECTOR, n * BLOCK_SECTOR);
        if (fits)
            memset(place, 0, n * BLOCK_SECTOR);
    }
    if (got != want)
        fuzz_fail(f, "request of %llu sectors at %llu: %d instead of %d", (unsigned long long)n, (unsigned long long)at,
                  got, want);
}

static void fork_layer(struct fuzz *f, struct layer *from, struct layer *to)
{
    char err[256] = "";
    to->b = block_fork(from->b, err, sizeof err);
    if (!to->b)
        fuzz_fail(f, "%s", err);
    to->model = malloc(from->b->size + 1);
    memcpy(to->model, from->model, from->b->size);
}

/* What one overlay has goes into another by a snapshot. */
static void copy_layer(struct fuzz *f, struct layer *from, struct layer *to)
{
    char err[256] = "";
    struct snap_writer *w = snap_writer_memory();
    snap_begin(w, "disk", 1);
    block_save(from->b, w);
    snap_end(w);
    struct snap_reader *r = snap_writer_read_back(w, err, sizeof err);
    if (!r || !snap_expect(r, "disk", 1))
        fuzz_fail(f, "%s", err);
    block_load(to->b, r);
    if (snap_reader_error(r))
        fuzz_fail(f, "%s", snap_reader_error(r));
    snap_reader_close(r);
    memcpy(to->model, from->model, from->b->size);
}

static void use(struct fuzz *f, struct block_device *b, const uint8_t *bytes, size_t len)
{
    struct layer layer[STACK] = {{b, calloc(1, b->size + 1)}};
    unsigned count = 1;
    memcpy(layer[0].model, bytes, len);
    for (unsigned k = 0; k < REQUESTS; k++) {
        f->round++;
        request(f, &layer[rng_below(&f->rng, count)]);
        if (count < STACK && rng_one_in(&f->rng, 40)) {
            fork_layer(f, &layer[rng_below(&f->rng, count)], &layer[count]);
            count++;
        }
        if (count > 1 && rng_one_in(&f->rng, 40))
            copy_layer(f, &layer[rng_below(&f->rng, count - 1)], &layer[count - 1]);
    }
    for (unsigned k = 0; k < count; k++) {
        block_close(layer[k].b);
        free(layer[k].model);
    }
}

static void session(struct fuzz *f)
{
    static uint8_t bytes[SIZE_LIMIT];
    char path[128], err[1024] = "";
    snprintf(path, sizeof path, "%s/image", f->dir);
    size_t len = write_image(f, path, bytes);
    bool whole = true, gzip = rng_one_in(&f->rng, 2);
    if (gzip)
        whole = compress_image(f, path, bytes, len);
    struct block_open_config cfg = {.file = path, .snapshot = true};
    if (!rng_one_in(&f->rng, 2))
        cfg.format = gzip ? BLOCK_FORMAT_GZIP : BLOCK_FORMAT_RAW;
    struct block_device *b = block_open(&cfg, err, sizeof err);
    f->work++;
    if (b) {
        f->accepted++;
        bool same = b->size == (len + BLOCK_SECTOR - 1) / BLOCK_SECTOR * BLOCK_SECTOR;
        if (whole && !same)
            fuzz_fail(f, "an image of %zu bytes has %llu", len, (unsigned long long)b->size);
        if (whole)
            use(f, b, bytes, len);
        else
            block_close(b);
    } else if (!err[0] || (whole && cfg.format != BLOCK_FORMAT_AUTO)) {
        fuzz_fail(f, "refused: %s", err);
    }
    unlink(path);
}

FUZZ_DRIVER("fuzz_blocks", session, 300, 0)
