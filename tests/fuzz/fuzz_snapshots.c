/*
 * Snapshots that say what no machine would have saved, under checksums that are right, so that the loaders of the
 * sections see them. A file that is taken must leave a machine that runs.
 */
#include "fuzz_files.h"

#include "core/bytes.h"
#include "core/snapshot_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define FILES        12
#define RAM_MIB      2
#define SECTIONS_MAX 160
#define DISK         (64 * 512)

/* Programs the timers, sends a character, halts and goes on. */
static const uint8_t image_code[] = {0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x10, 0xe6, 0x40, 0xb0, 0x01, 0xe6,
                                     0x40, 0xba, 0xf8, 0x03, 0x00, 0x00, 0xee, 0x40, 0x90, 0xeb, 0xf7};

struct section {
    uint8_t header[SNAP_HEADER_MAX];
    size_t header_len, len;
    uint8_t *payload; /* owned */
};

struct snapshot {
    struct section s[SECTIONS_MAX];
    size_t count;
};

static uint8_t *file_bytes(const struct fuzz *f, const char *path, size_t *len)
{
    struct file file;
    struct error e;
    if (!file_read(&file, path, &e))
        fuzz_fail(f, "%s", e.text);
    *len = file.len;
    return file.data;
}

static void snapshot_parse(struct snapshot *s, const uint8_t *b, size_t len)
{
    s->count = 0;
    for (size_t at = SNAP_FILE_HEAD; at < len && s->count < SECTIONS_MAX;) {
        struct section *c = &s->s[s->count++];
        c->header_len = b[at] + SNAP_HEADER_MIN;
        memcpy(c->header, b + at, c->header_len);
        c->len = load_le(b + at + b[at] + 5, 8);
        c->payload = malloc(c->len + 3 * 64);
        memcpy(c->payload, b + at + c->header_len, c->len);
        at += c->header_len + c->len + 4;
    }
    if (s->count)
        free(s->s[--s->count].payload); /* the end, which is written anew */
}

static void snapshot_free(struct snapshot *s)
{
    for (size_t k = 0; k < s->count; k++)
        free(s->s[k].payload);
}

static void section_mutate(struct rng *r, struct section *c)
{
    switch (rng_below(r, 16)) {
    case 0: /* shorter */
        c->len = c->len ? rng_below(r, c->len) : 0;
        break;
    case 1: /* longer */
        memset(c->payload + c->len, (int)rng_next(r), 64);
        c->len += rng_below(r, 64);
        break;
    case 2: /* header: name, version */
        files_mutate(r, c->header + 1, (size_t)c->header[0] + 4);
        break;
    case 3: /* noise */
        rng_bytes(r, c->payload, c->len < 4096 ? c->len : 4096);
        break;
    default:
        files_mutate(r, c->payload, c->len < 256 || rng_one_in(r, 2) ? c->len : 256);
    }
    store_le(c->header + c->header_len - 8, c->len, 8);
}

static void snapshot_mutate(struct rng *r, struct snapshot *s)
{
    for (uint64_t n = 1 + rng_below(r, 3); n; n--)
        section_mutate(r, &s->s[rng_below(r, s->count)]);
    if (rng_one_in(r, 8)) { /* another order */
        size_t a = rng_below(r, s->count), b = rng_below(r, s->count);
        struct section t = s->s[a];
        s->s[a] = s->s[b];
        s->s[b] = t;
    }
    if (rng_one_in(r, 16))
        free(s->s[--s->count].payload);
}

static void put_crc(FILE *out, uint32_t crc)
{
    uint8_t b[4];
    store_le(b, crc, 4);
    fwrite(b, 1, 4, out);
}

static uint32_t crc_of(uint32_t crc, const void *p, size_t n)
{
    return (uint32_t)crc32(crc, p, (uInt)n);
}

static void snapshot_write(const struct snapshot *s, const uint8_t *head, const char *path)
{
    static const uint8_t end[] = {3, 'e', 'n', 'd', SNAP_END_VERSION, 0, 0, 0, SNAP_END_PAYLOAD, 0, 0, 0, 0, 0, 0, 0};
    FILE *out = fopen(path, "wb");
    uint32_t headers = crc_of(0, head, SNAP_FILE_HEAD);
    uint8_t sum[4];
    fwrite(head, 1, SNAP_FILE_HEAD, out);
    for (size_t k = 0; k < s->count; k++) {
        const struct section *c = &s->s[k];
        fwrite(c->header, 1, c->header_len, out);
        fwrite(c->payload, 1, c->len, out);
        put_crc(out, crc_of(0, c->payload, c->len));
        headers = crc_of(headers, c->header, c->header_len);
    }
    store_le(sum, headers, 4);
    fwrite(end, 1, sizeof end, out);
    fwrite(sum, 1, 4, out);
    put_crc(out, crc_of(0, sum, 4));
    fclose(out);
}

/* Bytes of a file whose checksums may be wrong as well. */
static void file_mutate(struct fuzz *f, const uint8_t *bytes, size_t len, const char *path)
{
    uint8_t *copy = malloc(len + 1);
    FILE *out = fopen(path, "wb");
    memcpy(copy, bytes, len);
    files_mutate(&f->rng, copy, len);
    fwrite(copy, 1, rng_one_in(&f->rng, 2) ? len : rng_below(&f->rng, len), out);
    fclose(out);
    free(copy);
}

static void load_and_run(struct fuzz *f, struct machine *m, const char *path)
{
    struct error e = {""};
    bool ok = machine_load(m, path, &e);
    files_expect_message(f, ok, &e);
    if (!ok)
        return;
    struct rng chunk = {.state = rng_next(&f->rng)};
    fuzz_run(f, m, m->clock.icount + 2000, &chunk);
    m->want = (struct machine_requests){0};
    machine_digest(m);
    fuzz_audit(f, m);
}

/* Every other machine has cards and drives. */
static void add_devices(struct fuzz *f, const char *image)
{
    static const enum device_kind kinds[] = {DEVICE_VIRTIO_NET,    DEVICE_VIRTIO_RNG, DEVICE_E1000,
                                             DEVICE_VIRTIO_SERIAL, DEVICE_AHCI,       DEVICE_VIRTIO_BLK};
    static const enum drive_interface places[] = {DRIVE_IDE,  DRIVE_IDE,  DRIVE_FLOPPY,
                                                  DRIVE_SATA, DRIVE_SATA, DRIVE_NONE};
    static const unsigned index[] = {0, 2, 0, 0, 1, 0};
    f->device_count = ARRAY_LEN(kinds);
    f->drive_count = ARRAY_LEN(places);
    for (unsigned k = 0; k < f->device_count; k++)
        f->device[k] = (struct device_config){.kind = kinds[k], .drive = kinds[k] == DEVICE_VIRTIO_BLK ? "d" : NULL};
    for (unsigned k = 0; k < f->drive_count; k++)
        f->drive[k] = (struct drive_config){.file = image,
                                            .id = places[k] == DRIVE_NONE ? "d" : NULL,
                                            .interface = places[k],
                                            .format = BLOCK_FORMAT_RAW,
                                            .is_cdrom = k == 1 || k == 4,
                                            .snapshot = true,
                                            .index = index[k]};
}

void snapshots_session(struct fuzz *f)
{
    static const uint8_t disk[DISK];
    char path[128];
    struct error e;
    size_t len;
    struct mem_file image = mem_file_make(f, disk, sizeof disk);
    if (rng_one_in(&f->rng, 2))
        add_devices(f, image.path);
    struct machine *m = fuzz_machine(f, MACHINE_MMU_SHADOW, RAM_MIB, image_code, sizeof image_code);
    snprintf(path, sizeof path, "%s/state", f->dir);
    machine_serial_input(m, 0, "typed", 5);
    fuzz_run(f, m, 100 + rng_below(&f->rng, 5000), NULL);
    if (!machine_save(m, path, &e))
        fuzz_fail(f, "%s", e.text);
    uint8_t *bytes = file_bytes(f, path, &len);
    for (unsigned k = 0; k < FILES && !rng_is_over(&f->rng); k++, f->round++, f->work++) {
        struct snapshot s;
        snapshot_parse(&s, bytes, len);
        snapshot_mutate(&f->rng, &s);
        if (rng_one_in(&f->rng, 8))
            file_mutate(f, bytes, len, path);
        else
            snapshot_write(&s, bytes, path);
        snapshot_free(&s);
        load_and_run(f, m, path);
    }
    unlink(path);
    free(bytes);
    machine_destroy(m);
    mem_file_close(&image);
    f->device_count = f->drive_count = 0;
}
