/*
 * The file fuzzer's parts.
 */
#ifndef TESTS_FUZZ_FUZZ_FILES_H
#define TESTS_FUZZ_FUZZ_FILES_H

#include "fuzz.h"

/* Changes a few bytes or words. */
void files_mutate(struct rng *r, uint8_t *bytes, size_t len);
/* A refusal has a message of one line. */
void files_expect_message(struct fuzz *f, bool ok, const struct error *e);

void images_session(struct fuzz *f);    /* fuzz_images.c */
void snapshots_session(struct fuzz *f); /* fuzz_snapshots.c */

#endif
