/*
 * RAM below 1 MiB that no memslot shows at present, behind ROM or behind the display adapter: it keeps its content, the
 * guest's writes to it may come by the bus, and snapshots have it in sections of their own.
 *
 * A section is pages { u32 gfn, bytes } that are not all zeros, and an end.
 */
#ifndef FRONTENDS_MACHINE_HIDDEN_H
#define FRONTENDS_MACHINE_HIDDEN_H

#include "core/types.h"

struct machine;
struct snap_writer;
struct snap_reader;

struct hidden {
    const char *section;
    unsigned version;
    gpa_t from, to; /* whole pages */
    bool (*is_hidden)(const struct machine *m, gpa_t gpa);
};

/* Inside one page. False: the host has no room. */
bool hidden_poke(struct machine *m, gpa_t gpa, const void *bytes, size_t len);
void hidden_save(const struct hidden *h, const struct machine *m, struct snap_writer *w);
/* What is hidden decides where a page may go: so after those who decide that. */
void hidden_load(const struct hidden *h, struct machine *m, struct snap_reader *r);

#endif
