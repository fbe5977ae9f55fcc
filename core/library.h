/*
 * Shared libraries that are loaded when they are wanted, not when the program starts.
 *
 * Most runs open no window, no NBD export and no network; those libraries, with half a hundred others that they bring,
 * would take longer to load than a machine takes to start. So who calls such a library has a table of the functions
 * that it calls, and fills it when it opens:
 *
 *     #define FOO_CALLS(X) X(foo_open) X(foo_close)
 *     struct foo_calls {
 *         FOO_CALLS(LIBRARY_POINTER)
 *     };
 *     #define FOO_CALL(f) LIBRARY_CALL(struct foo_calls, f)
 *     static const struct library_call foo_calls[] = {FOO_CALLS(FOO_CALL)};
 *
 *     struct foo_calls foo;
 *     if (!library_load("libfoo.so.1", foo_calls, ARRAY_LEN(foo_calls), &foo, why, sizeof why))
 *         ...
 */
#ifndef CORE_LIBRARY_H
#define CORE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

struct library_call {
    const char *name;
    size_t offset; /* of the pointer to it in the table */
};

#define LIBRARY_STRING(f)      #f
#define LIBRARY_NAME(f)        LIBRARY_STRING(f) /* of a name that is a macro: what it stands for */
#define LIBRARY_POINTER(f)     __typeof__(f) *f;
#define LIBRARY_CALL(table, f) {LIBRARY_NAME(f), offsetof(table, f)},

/* Loads the library `file` (its soname, looked for as the linker would) and fills `table`. False with `why` filled if
 * it is not there or lacks a function. The library stays for the life of the process; loading it again is cheap. */
bool library_load(const char *file, const struct library_call *calls, size_t count, void *table, char *why,
                  size_t why_len);

#endif
