/*
 * Input scripts: what a person would type, and when, made repeatable.
 *
 *   wait "TEXT"      goes on when the serial port has printed TEXT
 *   send "TEXT"      types TEXT (C escapes \n \r \t \e \\ \" \xHH), paced by the serial port's virtual baud rate
 *   delay MS         goes on after MS milliseconds of virtual time
 *   sendkey KEYS     presses and releases keys together: "ret", "ctrl-alt-delete" (names as in core/keys.def)
 *   type "TEXT"      types TEXT on the keyboard, as a US keyboard has it
 *   waitscreen "TEXT"  goes on when the text of the screen contains TEXT: looked at every 20 ms of virtual time
 *   screendump "FILE", screentext "FILE"  write the screen as a picture, as text, at the next instruction boundary
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
    void (*screen)(void *ctx, const char *path, bool as_text);
    char *(*screentext)(void *ctx); /* of now, to be freed; NULL: none. Called between instructions */
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
/* Does it wait for time: in the middle of a delay, or looking at the screen? */
bool script_is_delayed(const struct script *s);
void script_save(const struct script *s, struct snap_writer *w);
void script_restore(struct script *s, struct snap_reader *r);

#endif
