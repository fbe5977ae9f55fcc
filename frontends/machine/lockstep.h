/*
 * Lockstep: a machine and its twin, built from the same options for the interpreter, run in turns to the same
 * positions and compared there (the public side is in umbra.h).
 *
 * The machine runs first. What its front end answers (polls, waits, typed bytes) is noted and given to the twin at the
 * same places, so that both have the same outside. The twin writes nothing: no output, no files, no log.
 */
#ifndef FRONTENDS_MACHINE_LOCKSTEP_H
#define FRONTENDS_MACHINE_LOCKSTEP_H

#include "frontends/machine/machine.h"

/* Input came to the machine at its present position. */
void lockstep_note_input(struct lockstep *l, enum input_source source, const void *bytes, size_t len);

#endif
