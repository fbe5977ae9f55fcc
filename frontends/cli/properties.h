/*
 * Lists of KEY=VALUE, as QEMU's options have them.
 */
#ifndef FRONTENDS_CLI_PROPERTIES_H
#define FRONTENDS_CLI_PROPERTIES_H

#include <stdbool.h>

/* Cuts the next piece off *at, in place: a comma ends it, two stand for one. NULL at the end. */
char *property_next(char **at);
/* Cuts `piece` at its '=': the value, or NULL if it has none. */
char *property_value(char *piece);

/* bootindex=N: gives one more than N. */
bool bootindex_parse(const char *value, int *out);

#endif
