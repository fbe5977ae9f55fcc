/*
 * Where output goes: standard output or a file, without ever standing still in a write.
 *
 * Bytes wait here until the other end takes them (at once, as a rule: at each end of a line). If more than
 * OUTLET_LIMIT wait, the other end is slow and the machine is held (outlet_is_full()) while everything else is served:
 * nothing is lost, and the guest does not notice. When the other end is gone, or a disk is full, that is said once, and
 * what comes later is dropped.
 */
#ifndef FRONTENDS_CLI_OUTLET_H
#define FRONTENDS_CLI_OUTLET_H

#include "core/types.h"
#include "frontends/machine/error.h"

#include <stdio.h>

#define OUTLET_LIMIT (256u << 10)

struct outlet {
    const char *name; /* in messages; borrowed */
    FILE *stream;     /* all goes through it, blocking, in the order of what others print there; or NULL */
    int fd;           /* -1: none */
    bool owns, is_socket, may_block;
    uint8_t *data; /* owned; `sent` of `len` bytes are gone */
    size_t sent, len, room;
    int error; /* why it is broken, an errno; or 0 */
};

/* Standard output; `shared`: with what is printed to the stream. */
void outlet_open_stdout(struct outlet *o, bool shared);
bool outlet_open_file(struct outlet *o, const char *path, bool append, struct error *e);
void outlet_put(struct outlet *o, const uint8_t *bytes, size_t len);
/* Writes as much as is taken now. */
void outlet_flush(struct outlet *o);
bool outlet_is_waiting(const struct outlet *o);
bool outlet_is_full(const struct outlet *o);
/* Waits until all is taken, or give_up(ctx) says so. False: something was lost (which has been said). */
bool outlet_close(struct outlet *o, bool (*give_up)(void *ctx), void *ctx);

#endif
