/*
 * A file read whole into memory: kernels, initrds, scripts.
 */
#ifndef FRONTENDS_MACHINE_FILE_H
#define FRONTENDS_MACHINE_FILE_H

#include "frontends/machine/error.h"

#include <stdint.h>

struct file {
    const char *path; /* borrowed */
    uint8_t *data;    /* owned; never NULL after file_read(), followed by a zero byte that is not counted */
    size_t len;
};

/* Reads a regular file of at most 2 GiB. */
bool file_read(struct file *f, const char *path, struct error *e);
void file_free(struct file *f);

#endif
