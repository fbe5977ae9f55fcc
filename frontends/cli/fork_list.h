/*
 * The lines of -fork-run: what each forked machine is to be typed.
 */
#ifndef FRONTENDS_CLI_FORK_LIST_H
#define FRONTENDS_CLI_FORK_LIST_H

#include "frontends/machine/error.h"

#include "core/types.h"

struct fork_list {
    char **lines; /* without their ends; lines of blanks are left out */
    size_t count;
};

/* False with an error that names the file: it cannot be read, is no text, or has no line. */
bool fork_list_read(struct fork_list *l, const char *path, struct error *e);
void fork_list_free(struct fork_list *l);

#endif
