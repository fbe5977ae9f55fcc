/*
 * The machine's drives: what `-drive` and its short forms ask for, opened as block devices, for the board's controllers
 * to take.
 *
 * A drive's place is its interface and index: `ide` 0 and 1 are master and slave of the first channel, 2 and 3 of the
 * second; `floppy` 0 and 1; `pflash` 0 is the code, 1 the variables; `virtio` gets a device of its own in order;
 * `none` is only there for `-device ...,drive=ID`; `sata` is a port of an AHCI controller, counted through all of
 * them, where only a -device puts a drive. In a forked machine each drive goes on from the parent's content.
 */
#ifndef FRONTENDS_MACHINE_DRIVES_H
#define FRONTENDS_MACHINE_DRIVES_H

#include "core/block/block.h"
#include "frontends/machine/error.h"

struct stats;

#define DRIVES_MAX       16
#define DRIVE_INDEX_NONE UINT32_MAX /* drives_place() gives it the first free one */

enum drive_interface { DRIVE_IDE, DRIVE_VIRTIO, DRIVE_FLOPPY, DRIVE_PFLASH, DRIVE_NONE, DRIVE_SATA, DRIVE_INTERFACES };

#define DRIVE_SATA_PORTS 6 /* places of an AHCI controller */

struct drive_config {
    const char *file;   /* as in struct block_open_config; NULL: an empty drive (CD or floppy); borrowed */
    const char *id;     /* or NULL; borrowed */
    const char *serial; /* number that the guest reads, or NULL; borrowed */
    enum drive_interface interface;
    enum block_format format;
    bool is_cdrom, read_only, snapshot;
    enum block_on_error on_read, on_write;
    int bootindex; /* as of struct device_config */
    uint32_t index;
};

struct drive {
    struct drive_config cfg;
    struct block_device *block; /* NULL: no medium */
    bool taken;                 /* by a `-device` */
};

struct drives {
    struct drive drive[DRIVES_MAX];
    unsigned count;
};

/* "ide" and so on. */
const char *drive_interface_name(enum drive_interface i);
/* Gives every drive without an index one; false if two want one place, or there is no such place. */
bool drives_place(struct drive_config *cfg, unsigned count, struct error *e);
/* Opens the images. False: nothing is left open. */
bool drives_open(struct drives *d, const struct drive_config *cfg, unsigned count, struct error *e);
/* The same for a forked machine. */
bool drives_fork(struct drives *d, struct drives *parent, struct error *e);
void drives_close(struct drives *d);
/* NULL if there is none. */
struct drive *drives_find(struct drives *d, enum drive_interface interface, uint32_t index);
struct drive *drives_by_id(struct drives *d, const char *id);
/* A drive would write to its image directly: its content is in no snapshot, and a twin or a fork would disturb it. */
bool drives_write_through(const struct drive_config *cfg, unsigned count);
/* Who is told that a request waits for the host. */
void drives_set_full(struct drives *d, void (*full)(void *ctx, struct block_device *b), void *ctx);
/* The drive with that block device, or NULL. */
const struct drive *drives_by_block(const struct drives *d, const struct block_device *b);
/* As its users know it: its id, or "ide0-hd1", "ide1-cd0", "floppy0", "virtio0", "pflash1". */
#define DRIVE_NAME_SIZE 64
void drives_name(const struct drive_config *c, char name[DRIVE_NAME_SIZE]);
void drives_add_stats(struct drives *d, struct stats *s);
/* Section "drives": what was written to overlays. */
void drives_save(const struct drives *d, struct snap_writer *w);
void drives_load(struct drives *d, struct snap_reader *r);

#endif
