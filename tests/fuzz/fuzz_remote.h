/*
 * The parts of the fuzzer of those who connect.
 */
#ifndef TESTS_FUZZ_FUZZ_REMOTE_H
#define TESTS_FUZZ_FUZZ_REMOTE_H

#include "fuzz.h"

/* Bytes that are put together; what does not fit is left out. */
struct text {
    char bytes[0x9000];
    size_t len;
};

void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(struct text *t, const void *bytes, size_t len);
/* Changes a few bytes, now and then; also cuts and doubles. */
void text_mutate(struct rng *r, struct text *t);
/* A machine whose only vCPU executes code of all kinds of lengths for ever. */
struct machine *remote_machine(const struct fuzz *f);

void remote_control_session(struct fuzz *f); /* fuzz_remote_control.c */
void remote_gdb_session(struct fuzz *f);     /* fuzz_remote_gdb.c */
void remote_nbd_session(struct fuzz *f);     /* fuzz_remote_nbd.c */

#endif
