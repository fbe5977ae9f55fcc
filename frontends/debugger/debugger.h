/*
 * The line debugger (umbra debug): a prompt, or a script of commands, over frontends/machine/debug.h and inspect.h.
 *
 * docs/debugger.md lists the commands; so does `help`.
 */
#ifndef FRONTENDS_DEBUGGER_DEBUGGER_H
#define FRONTENDS_DEBUGGER_DEBUGGER_H

#include "frontends/machine/umbra.h"

/* What the terminal has to say. */
enum debugger_signal { DEBUGGER_NOTHING, DEBUGGER_INTERRUPT, DEBUGGER_QUIT };

struct debugger_config {
    struct machine *machine;
    const char *script;  /* -x: commands to run first; NULL: none. The first error ends it. */
    const char *symbols; /* ELF image, or NULL */
    /* Why the machine's poll stopped it; asking takes the answer away. */
    void *ctx;
    enum debugger_signal (*take_signal)(void *ctx);
};

struct debugger_result {
    bool ended; /* the machine did, for the reason `why` */
    enum machine_exit why;
    bool failed; /* a command of a script, or of standard input that is no terminal, was refused */
};

/* Runs commands until quit, the end of the input, or a signal. False: could not begin. */
bool debugger_run(const struct debugger_config *cfg, struct debugger_result *result, struct error *e);

#endif
