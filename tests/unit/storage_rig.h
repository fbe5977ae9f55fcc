/*
 * What the suites of storage devices share: guest memory from gpa 0, and disks whose every byte is known by its place.
 */
#ifndef TESTS_UNIT_STORAGE_RIG_H
#define TESTS_UNIT_STORAGE_RIG_H

#include "devices_rig.h"

#include "core/block/block.h"
#include "core/memory.h"

/* An access of `len` bytes at gpa to `size` bytes of memory. */
static inline enum mem_result ram_move(uint8_t *ram, size_t size, gpa_t gpa, void *buf, size_t len, bool write)
{
    if (gpa > size || len > size - gpa)
        return MEM_DEVICE;
    if (write)
        memcpy(ram + gpa, buf, len);
    else
        memcpy(buf, ram + gpa, len);
    return MEM_OK;
}

/* What a disk has at a place. */
static inline uint8_t disk_byte(uint64_t at)
{
    return (uint8_t)(at * 7 + (at >> 9) * 13);
}

/* `size` such bytes; what is written to it is forgotten. */
static inline struct block_device *open_image(size_t size, bool read_only)
{
    char path[] = "/tmp/umbra-disk-XXXXXX", err[256] = "";
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "wb");
    for (size_t i = 0; i < size; i++)
        fputc(disk_byte(i), f);
    fclose(f);
    const struct block_open_config cfg = {
        .file = path, .format = BLOCK_FORMAT_RAW, .read_only = read_only, .snapshot = !read_only};
    struct block_device *b = block_open(&cfg, err, sizeof err);
    ck_assert_msg(b != NULL, "%s", err);
    unlink(path);
    return b;
}

#endif
