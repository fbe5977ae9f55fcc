/*
 * The input queue: every outside input (serial bytes, keys, network, control) enters the machine here, with the icount
 * at which it takes effect. Sources post; the run loop delivers at instruction boundaries. This is the seam at which a
 * run can later be recorded and replayed: what is delivered, in which order and at which icount, is all that the
 * outside world contributes.
 */
#ifndef CORE_REPLAY_H
#define CORE_REPLAY_H

#include "core/types.h"

/* INPUT_KEYBOARD, INPUT_MOUSE: core/keys.h. */
enum input_source {
    INPUT_SERIAL0,
    INPUT_SERIAL1,
    INPUT_KEYBOARD,
    INPUT_CONTROL,
    INPUT_NET,
    INPUT_MOUSE,
    INPUT_SERIAL2,
    INPUT_SERIAL3,
    INPUT_SOURCE_COUNT
};

typedef void input_fn(void *opaque, const uint8_t *bytes, size_t len);

struct snap_writer;
struct snap_reader;
struct input_event;

struct input_queue {
    struct input_event *head; /* sorted by icount, then by posting order */
    struct input_event *tail; /* the last one, or NULL: posting in order costs the same at any length */
    uint64_t posted;          /* events so far */
    struct {
        input_fn *fn;
        void *opaque;
    } sink[INPUT_SOURCE_COUNT];
    uint64_t delivered; /* events so far */
};

void input_init(struct input_queue *q);
void input_fini(struct input_queue *q);
/* Who receives a source's bytes. One sink a source. */
void input_set_sink(struct input_queue *q, enum input_source source, input_fn *fn, void *opaque);
/* Copies the bytes; they are delivered at the first boundary with icount >= `icount`. */
void input_post(struct input_queue *q, enum input_source source, uint64_t icount, const void *bytes, size_t len);
/* Bytes of a source that are posted and not delivered. */
size_t input_waiting(const struct input_queue *q, enum input_source source);
/* icount of the earliest event, or UINT64_MAX. */
uint64_t input_next(const struct input_queue *q);
/* Delivers every event with icount <= `icount` that was posted before the call; what a sink posts waits for the next
 * boundary. */
void input_deliver_due(struct input_queue *q, uint64_t icount);
/* Events that wait, put into and got from the section that the caller has opened. Sinks stay as they are. */
void input_save(const struct input_queue *q, struct snap_writer *w);
void input_load(struct input_queue *q, struct snap_reader *r);

#endif
