/*
 * A flash chip with the Intel command set (CFI 1), 8 bits wide, in blocks of 4 KiB: where UEFI firmware keeps its
 * variables.
 *
 * Source: Intel's common flash interface, StrataFlash data sheets; which commands firmware uses: OVMF's
 * QemuFlashFvbServices. Programming clears bits, erasing sets them. The content is held in memory; what changes goes to
 * the block device a fixed virtual time later, and is made durable then.
 */
#ifndef DEVICES_PFLASH_H
#define DEVICES_PFLASH_H

#include "core/block/block.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define PFLASH_BLOCK    4096u
#define PFLASH_MAX      (8u << 20)
#define PFLASH_BUFFERED 64u /* bytes of a buffered write, at most */

struct pflash_config {
    struct vclock *clock;
    struct block_device *block; /* borrowed; whole blocks, at most PFLASH_MAX */
    const struct log *log;
};

/* What the next write or read is. */
enum pflash_mode {
    PFLASH_ARRAY,
    PFLASH_STATUS,
    PFLASH_ID,
    PFLASH_QUERY,
    PFLASH_PROGRAM, /* the byte to program comes next */
    PFLASH_ERASE,   /* the confirmation */
    PFLASH_LOCK,
    PFLASH_COUNT, /* of a buffered write */
    PFLASH_FILL,
    PFLASH_CONFIRM,
    PFLASH_MODES
};

struct pflash {
    struct pflash_config cfg;
    uint8_t *content; /* owned */
    uint32_t size;
    enum pflash_mode mode;
    uint8_t status;
    uint32_t buffered, wanted, first; /* of a buffered write: bytes, and the offset of the first */
    uint8_t buffer[PFLASH_BUFFERED];
    uint32_t dirty_from, dirty_to; /* what the block device does not have yet; empty if equal */
    struct timer timer;
    uint64_t programs, erases;
};

extern const struct bus_ops pflash_bus_ops; /* `size` bytes */

/* Reads the content. False: it cannot be read, or its size is not that of a chip. */
bool pflash_init(struct pflash *p, const struct pflash_config *cfg);
void pflash_fini(struct pflash *p);
void pflash_reset(struct pflash *p);
void pflash_save(const struct pflash *p, struct snap_writer *w);
void pflash_load(struct pflash *p, struct snap_reader *r);

#endif
