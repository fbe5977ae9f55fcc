/*
 * One-line errors for the person who gave the input. Every function that can refuse an input takes a struct error and
 * returns false (or NULL) after filling it; the text names the thing, says what is wrong and, where it helps, what to
 * do.
 */
#ifndef FRONTENDS_MACHINE_ERROR_H
#define FRONTENDS_MACHINE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

struct error {
    char text[512];
};

/* Fills the text and returns false. `e` may be NULL. */
bool error_set(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
