/*
 * -fork-at and -fork-run: one boot, and from there a forked machine for each line of a list.
 *
 * The first machine runs until the text appears on its serial port and then stands still. A child is forked for each
 * line, which is typed into it as its first input. The children of a batch (-fork-jobs) exist together and run in
 * rounds until each has come to an end of its own; -timeout and signals end all of them.
 *
 * Output: DIR/child-N.serial, and as options ask for them child-N.debugcon (-debugcon), .log (-d), .trace (-trace),
 * .stats (-stats), .snap (-pause-save: of a child that paused); a table and the use of memory on stdout.
 */
#ifndef FRONTENDS_CLI_FORKS_H
#define FRONTENDS_CLI_FORKS_H

#include "frontends/cli/console.h"
#include "frontends/cli/fork_list.h"
#include "frontends/cli/options.h"

#define FORK_JOBS_DEFAULT 64

/* Children that exist at a time. */
unsigned forks_batch(const struct options *o, const struct fork_list *l);
/* Makes the directory if it is not there. */
bool forks_prepare(const struct options *o, struct error *e);
/* Runs the machine, which was made with room for forks_batch() children, and then its children. The program's exit
 * status: what all children ended with, or EXIT_MIXED; EXIT_WALL_TIMEOUT; if the text never came that of the machine,
 * or EXIT_BAD_INPUT where it ended well. */
int forks_run(struct machine *m, const struct options *o, const struct fork_list *l, struct console *c);

#endif
