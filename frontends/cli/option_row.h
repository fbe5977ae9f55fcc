/*
 * What the tables of options have in common.
 */
#ifndef FRONTENDS_CLI_OPTION_ROW_H
#define FRONTENDS_CLI_OPTION_ROW_H

#include "frontends/cli/options.h"

typedef bool option_fn(struct options *o, const char *name, const char *arg, struct error *e);

struct option_row {
    const char *name, *arg; /* arg: NULL if none is taken */
    option_fn *fn;
    const char *help; /* NULL: accepted, but not advertised */
};

/* "-NAME ARG: expected WANT"; returns false. */
bool option_bad_value(const char *name, const char *arg, const char *want, struct error *e);
/* Of the values below each is false if the text is not wholly one. */
bool option_number(const char *s, uint64_t *out);
bool option_seconds(const char *s, double *out);
/* "512", "512M", "2G": bytes; a plain number is in MiB, as with QEMU. */
bool option_size(const char *s, uint64_t *out);

/* The rows of host_options.c; NULL behind the last. */
const struct option_row *host_option_row(size_t n);

/* QEMU's options whose thing this machine has always, never, or in one form (qemu_options.c). NULL: not one of them. */
const struct option_row *qemu_option_find(const char *name);
/* A sentence with their names. */
void qemu_options_print_help(FILE *out);
/* -accel's and -machine accel='s engines of QEMU: each runs by the default engine here. */
bool qemu_accel_is_known(const char *text);
/* After all options: -net nic and -net user together are a -nic. */
bool qemu_net_finish(struct options *o, struct error *e);

#endif
