/*
 * Input scripts: what a person would type, and when, made repeatable.
 *
 *   wait "TEXT"      goes on when the serial port has printed TEXT
 *   send "TEXT"      types TEXT (C escapes \n \r \t \e \\ \" \xHH), paced by the serial port's virtual baud rate
 *   delay MS         goes on after MS milliseconds of virtual time
 *   savevm "FILE"    saves the machine at the next instruction boundary
 *   quit             ends the run
 * One command a line; # begins a comment. The position in the script is part of a snapshot, so a loaded run goes on
 * where it was.
 */
#ifndef FRONTENDS_MACHINE_SCRIPT_H
#define FRONTENDS_MACHINE_SCRIPT_H

#include "core/clock.h"
#include "core/replay.h"
#include "frontends/machine/error.h"

struct script;
struct snap_writer;
struct snap_reader;

/* What the script asks of the machine; called between guest instructions or inside a device access: act at the next
 * boundary. */
struct script_ops {
    void *ctx;
    void (*savevm)(void *ctx, const char *path);
    void (*quit)(void *ctx);
};

/* NULL with an error that names file and line. */
struct script *script_load(const char *path, struct vclock *clock, struct input_queue *queue,
                           const struct script_ops *ops, struct error *e);
void script_free(struct script *s);
/* Runs commands up to the first wait. Call once at the start of a run (not after a snapshot was loaded). */
void script_start(struct script *s);
/* A byte came out of the serial port. */
void script_output(struct script *s, uint8_t byte);
/* Is it in the middle of a delay? */
bool script_is_delayed(const struct script *s);
void script_save(const struct script *s, struct snap_writer *w);
void script_restore(struct script *s, struct snap_reader *r);

#endif
