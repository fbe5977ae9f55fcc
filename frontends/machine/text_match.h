/*
 * Finds a text in a stream of bytes: what the serial port has sent, seen a byte at a time.
 */
#ifndef FRONTENDS_MACHINE_TEXT_MATCH_H
#define FRONTENDS_MACHINE_TEXT_MATCH_H

#include "core/types.h"

/* The longest part of the text's beginning (`len` bytes, not 0) that the stream ends with after one more byte, given
 * that it was `matched`, less than `len`, before. `len`: the text is there. */
size_t text_match_step(const char *text, size_t len, size_t matched, uint8_t byte);

#endif
