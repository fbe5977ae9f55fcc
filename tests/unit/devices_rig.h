/*
 * What the device suites share: a wire that counts edges, register access without a bus, time that a test moves, and a
 * snapshot that goes through a file.
 */
#ifndef TESTS_UNIT_DEVICES_RIG_H
#define TESTS_UNIT_DEVICES_RIG_H

#include "check_main.h"

#include "core/bus.h"
#include "core/clock.h"
#include "core/irq.h"
#include "core/snapshot.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- Wires ---- */

struct wire {
    bool level;
    unsigned rises;
};

static inline void wire_set(void *ctx, unsigned n, bool level)
{
    struct wire *w = (struct wire *)ctx + n;
    w->rises += level && !w->level;
    w->level = level;
}

/* Element n of an array of wires. */
static inline struct irq_line wire_line(struct wire *w, unsigned n)
{
    return (struct irq_line){wire_set, w, n};
}

/* ---- Register access ---- */

static inline uint64_t reg_read_cpu(const struct bus_ops *ops, void *dev, uint64_t offset, unsigned size, int cpu)
{
    uint64_t v = ops->read(dev, &(struct bus_txn){.offset = offset, .size = size, .cpu = cpu});
    return size == 8 ? v : v & ((1ull << (8 * size)) - 1);
}

static inline void reg_write_cpu(const struct bus_ops *ops, void *dev, uint64_t offset, unsigned size, uint64_t value,
                                 int cpu)
{
    ops->write(dev, &(struct bus_txn){.offset = offset, .size = size, .cpu = cpu}, value);
}

static inline uint64_t reg_read(const struct bus_ops *ops, void *dev, uint64_t offset, unsigned size)
{
    return reg_read_cpu(ops, dev, offset, size, 0);
}

static inline void reg_write(const struct bus_ops *ops, void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    reg_write_cpu(ops, dev, offset, size, value, 0);
}

/* ---- Time ---- */

/* Lets `units` pass, firing each timer at its deadline as a run loop with one-instruction blocks would. */
static inline void run_for(struct vclock *c, uint64_t units)
{
    uint64_t end = clock_now(c) + units;
    while (clock_next_deadline(c) <= end) {
        clock_skip_to(c, clock_next_deadline(c));
        clock_run_due(c);
    }
    clock_skip_to(c, end);
    clock_run_due(c);
}

/* ---- Snapshots ---- */

#define SNAP_PATH_LEN 64

static inline struct snap_writer *open_writer(char path[SNAP_PATH_LEN])
{
    char err[256] = "";
    const char *dir = getenv("TMPDIR");
    snprintf(path, SNAP_PATH_LEN, "%.40s/umbra-devices-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    struct snap_writer *w = snap_writer_open(path, err, sizeof(err));
    ck_assert_msg(w != NULL, "%s", err);
    return w;
}

static inline struct snap_reader *reopen(struct snap_writer *w, const char *path)
{
    char err[256] = "";
    ck_assert_msg(snap_writer_close(w, err, sizeof(err)) == 0, "%s", err);
    struct snap_reader *r = snap_reader_open(path, err, sizeof(err));
    ck_assert_msg(r != NULL, "%s", err);
    return r;
}

static inline void close_reader(struct snap_reader *r, const char *path)
{
    ck_assert_msg(snap_reader_error(r) == NULL, "%s", snap_reader_error(r) ? snap_reader_error(r) : "");
    snap_reader_close(r);
    unlink(path);
}

/* Saves `from` (and its clock) with `save`, loads it into `to` with `load`. */
#define ROUND_TRIP(from_clock, to_clock, save, load)                                                                   \
    do {                                                                                                               \
        char path_[SNAP_PATH_LEN];                                                                                     \
        struct snap_writer *w = open_writer(path_);                                                                    \
        snap_begin(w, "clock", 1);                                                                                     \
        clock_save((from_clock), w);                                                                                   \
        snap_end(w);                                                                                                   \
        save;                                                                                                          \
        struct snap_reader *r = reopen(w, path_);                                                                      \
        ck_assert(snap_expect(r, "clock", 1));                                                                         \
        clock_load((to_clock), r);                                                                                     \
        load;                                                                                                          \
        close_reader(r, path_);                                                                                        \
    } while (0)

/* Saves with `save`; `load` must refuse it. */
#define REFUSED(save, load)                                                                                            \
    do {                                                                                                               \
        char refused_[256] = "";                                                                                       \
        struct snap_writer *w = snap_writer_memory();                                                                  \
        save;                                                                                                          \
        struct snap_reader *r = snap_writer_read_back(w, refused_, sizeof refused_);                                   \
        ck_assert_msg(r != NULL, "%s", refused_);                                                                      \
        load;                                                                                                          \
        ck_assert(snap_reader_error(r) != NULL);                                                                       \
        snap_reader_close(r);                                                                                          \
    } while (0)

#endif
