/*
 * The flash chip: every command with any bytes behind it, buffered writes that are cut off or leave their block,
 * resets, and what was saved loaded into a second chip, which must then answer the same. Programming only clears bits,
 * erasing sets those of one block, and in the end the image has what the chip shows.
 */
#include "fuzz.h"

#include "core/snapshot.h"
#include "devices/pflash.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS      3000
#define BLOCKS_MAX 8
#define CHIPS      2
#define A_WHILE    20000000ull /* ns: longer than content waits before it goes out */

struct bench {
    struct fuzz *f;
    struct rng *rng;
    struct vclock clock[CHIPS];
    struct block_device *block[CHIPS];
    struct pflash chip[CHIPS];
    unsigned count;
    uint32_t size;
    char path[CHIPS][128];
    uint8_t before[BLOCKS_MAX * PFLASH_BLOCK];
};

static void open_chip(struct bench *b, unsigned k)
{
    char err[256] = "";
    FILE *out;
    snprintf(b->path[k], sizeof b->path[k], "%s/flash%u", b->f->dir, k);
    out = fopen(b->path[k], "wb");
    memset(b->before, 0xff, b->size);
    if (!out || fwrite(b->before, 1, b->size, out) != b->size || fclose(out))
        fuzz_fail(b->f, "cannot write %s", b->path[k]);
    clock_init(&b->clock[k]);
    b->block[k] =
        block_open(&(const struct block_open_config){.file = b->path[k], .format = BLOCK_FORMAT_RAW}, err, sizeof err);
    if (!b->block[k] ||
        !pflash_init(&b->chip[k], &(const struct pflash_config){.clock = &b->clock[k], .block = b->block[k]}))
        fuzz_fail(b->f, "no chip: %s", err);
}

static uint8_t next_byte(struct bench *b)
{
    static const uint8_t commands[] = {0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xb0, 0xd0, 0xe8, 0xf0, 0xff};
    return rng_one_in(b->rng, 3) ? (uint8_t)rng_below(b->rng, 256) : RNG_PICK(b->rng, commands);
}

static uint64_t some_offset(struct bench *b)
{
    switch (rng_below(b->rng, 4)) {
    case 0:
        return rng_below(b->rng, b->size);
    case 1: /* around a block's end */
        return (PFLASH_BLOCK * (1 + rng_below(b->rng, b->size / PFLASH_BLOCK)) - 1 - rng_below(b->rng, 70)) % b->size;
    default:
        return rng_below(b->rng, 0x60);
    }
}

/* A write changes nothing, clears bits, or sets all those of a block; a wide one may program some of them behind that.
 */
static void check_change(struct bench *b, const struct bus_txn *t)
{
    const uint8_t *now = b->chip[0].content;
    for (uint32_t at = 0; at < b->size; at += PFLASH_BLOCK) {
        bool set = false, erased = true;
        for (uint32_t k = at; k < at + PFLASH_BLOCK; k++) {
            set |= (now[k] & ~b->before[k]) != 0;
            erased &= now[k] == 0xff || (t->size > 1 && k >= t->offset && k < t->offset + t->size);
        }
        if (set && !erased)
            fuzz_fail(b->f, "bits of block 0x%x were set without an erase", at);
    }
}

static void access_chip(struct bench *b)
{
    struct bus_txn t = {.offset = some_offset(b), .size = 1u << rng_below(b->rng, 3)};
    uint64_t value = next_byte(b) | (uint64_t)next_byte(b) << 8, got[CHIPS];
    if (t.size > 1)
        t.offset &= ~(uint64_t)(t.size - 1);
    if (!rng_one_in(b->rng, 3)) {
        memcpy(b->before, b->chip[0].content, b->size);
        for (unsigned k = 0; k < b->count; k++)
            pflash_bus_ops.write(&b->chip[k], &t, value);
        check_change(b, &t);
        return;
    }
    for (unsigned k = 0; k < b->count; k++)
        got[k] = pflash_bus_ops.read(&b->chip[k], &t);
    if (b->count == CHIPS && got[0] != got[1])
        fuzz_fail(b->f, "after a load, offset 0x%llx gives 0x%llx instead of 0x%llx", (unsigned long long)t.offset,
                  (unsigned long long)got[1], (unsigned long long)got[0]);
}

static void pass_time(struct bench *b, uint64_t ns)
{
    for (unsigned k = 0; k < b->count; k++) {
        uint64_t until = clock_now(&b->clock[k]) + ns, when;
        while ((when = clock_next_deadline(&b->clock[k])) <= until) {
            clock_skip_to(&b->clock[k], when);
            clock_run_due(&b->clock[k]);
        }
        clock_skip_to(&b->clock[k], until);
    }
}

static void save_and_load(struct bench *b)
{
    char err[256] = "";
    struct snap_writer *w = snap_writer_memory();
    pflash_save(&b->chip[0], w);
    struct snap_reader *r = snap_writer_read_back(w, err, sizeof err);
    if (!r)
        fuzz_fail(b->f, "%s", err);
    open_chip(b, 1);
    clock_skip_to(&b->clock[1], clock_now(&b->clock[0]));
    pflash_load(&b->chip[1], r);
    if (snap_reader_error(r))
        fuzz_fail(b->f, "%s", snap_reader_error(r));
    snap_reader_close(r);
    b->count = CHIPS;
}

/* What the image holds when the chip is gone. */
static void close_chip(struct bench *b, unsigned k)
{
    uint8_t *shown = b->before;
    uint8_t *held = malloc(b->size);
    memcpy(shown, b->chip[k].content, b->size);
    pflash_fini(&b->chip[k]);
    block_close(b->block[k]);
    FILE *in = fopen(b->path[k], "rb");
    if (!in || fread(held, 1, b->size, in) != b->size)
        fuzz_fail(b->f, "cannot read %s", b->path[k]);
    fclose(in);
    if (k == 0 && memcmp(held, shown, b->size))
        fuzz_fail(b->f, "the image is not what the chip showed");
    free(held);
    unlink(b->path[k]);
}

static void session(struct fuzz *f)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        fuzz_fail(f, "no room");
    b->f = f;
    b->rng = &f->rng;
    b->count = 1;
    b->size = PFLASH_BLOCK << rng_below(b->rng, 4);
    open_chip(b, 0);
    for (unsigned k = 0; k < STEPS && !rng_is_over(b->rng); k++, f->round++, f->work++) {
        access_chip(b);
        if (rng_one_in(b->rng, 50))
            pass_time(b, rng_below(b->rng, 0x10000) * 100);
        if (rng_one_in(b->rng, 200))
            for (unsigned c = 0; c < b->count; c++)
                pflash_reset(&b->chip[c]);
        if (k == STEPS / 2 || (b->count == 1 && rng_one_in(b->rng, 400)))
            if (b->count == 1)
                save_and_load(b);
    }
    if (rng_one_in(b->rng, 2))
        pass_time(b, A_WHILE);
    for (unsigned k = 0; k < b->count; k++)
        close_chip(b, k);
    free(b);
}

FUZZ_DRIVER("fuzz_flash", session, 120, 0)
