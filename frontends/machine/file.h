/*
 * A file read whole into memory: kernels, initrds, scripts. What is wanted again only at a reset rests meanwhile: it
 * takes no memory, and wakes with the bytes it had or not at all.
 */
#ifndef FRONTENDS_MACHINE_FILE_H
#define FRONTENDS_MACHINE_FILE_H

#include "frontends/machine/error.h"

#include <stdint.h>

struct file {
    const char *path; /* borrowed */
    uint8_t *data;    /* owned; never NULL unless it rests, followed by a zero byte that is not counted */
    size_t len;
    bool rests;    /* has been resting: fd and hash are set */
    int fd;        /* owned */
    uint64_t hash; /* of the data */
};

/* Reads a regular file of at most 2 GiB. */
bool file_read(struct file *f, const char *path, struct error *e);
/* Gives the memory back; no effect where the host refuses to open the file again. */
void file_rest(struct file *f);
/* The data are there again (or still). False: the file cannot be read, or has changed since. */
bool file_wake(struct file *f, struct error *e);
void file_free(struct file *f);

#endif
