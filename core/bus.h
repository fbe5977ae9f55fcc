/*
 * The port, MMIO and MSR buses: who answers at which address.
 *
 * A device registers a range and sees offsets, never addresses. Ranges of one bus may not overlap (a typed error). An
 * access that no device claims reads as all ones, writes nowhere, and is named on the `ioport` log channel. An access
 * that touches more than one range, or a range and unclaimed space, is split bytewise. A device may add and remove
 * ranges inside its callbacks. Order of registration never matters.
 */
#ifndef CORE_BUS_H
#define CORE_BUS_H

#include "core/types.h"

struct log;

#define BUS_NO_CPU (-1) /* initiator of DMA and of host pokes */

struct bus_txn {
    uint64_t offset; /* from the start of the device's range */
    unsigned size;   /* 1, 2, 4 or 8 bytes */
    int cpu;         /* index of the vCPU that makes the access, or BUS_NO_CPU */
};

struct bus_ops {
    uint64_t (*read)(void *dev, const struct bus_txn *t);
    void (*write)(void *dev, const struct bus_txn *t, uint64_t value);
};

enum bus_error {
    BUS_OK = 0,
    BUS_ERR_OVERLAP = -1,
    BUS_ERR_EMPTY = -2,
    BUS_ERR_RANGE = -3,
    BUS_ERR_NOMEM = -4,
    BUS_ERR_ABSENT = -5
};

struct bus_range {
    uint64_t base, len;
    const struct bus_ops *ops;
    void *dev;
    const char *name; /* static string */
};

struct bus {
    const char *name;         /* "port", "mmio": for messages */
    uint64_t limit;           /* addresses are < limit; 0 means 2^64 */
    struct bus_range *ranges; /* sorted by base, owned */
    size_t count, capacity;
    size_t last;           /* index of the last range hit: a hint only */
    const struct log *log; /* borrowed, may be NULL */
};

void bus_init(struct bus *b, const char *name, uint64_t limit, const struct log *log);
void bus_fini(struct bus *b);
enum bus_error bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev,
                       const char *name);
/* Removes the range that starts at `base` and belongs to `dev`. */
enum bus_error bus_remove(struct bus *b, uint64_t base, const void *dev);
const struct bus_range *bus_find(const struct bus *b, uint64_t addr);
const char *bus_error_text(enum bus_error e);

/* size is 1, 2, 4 or 8. Returns the value, zero-extended. */
uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size, int cpu);
void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t value, int cpu);

#endif
