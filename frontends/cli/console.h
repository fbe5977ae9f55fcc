/*
 * The front end's side of a headless machine: output streams, the terminal, signals, the wall-clock timeout.
 *
 * The only place that looks at the host's clock; what it learns reaches the machine as "stop", never as data, except
 * for typed bytes.
 */
#ifndef FRONTENDS_CLI_CONSOLE_H
#define FRONTENDS_CLI_CONSOLE_H

#include "frontends/cli/options.h"

#include <termios.h>

struct console {
    struct machine *machine; /* set once it exists */
    FILE *serial, *debugcon; /* NULL: discarded */
    bool owns_serial, owns_debugcon;
    bool reads_stdin, is_raw;
    bool escape; /* Ctrl-A was typed */
    struct termios saved;
    double deadline;      /* CLOCK_MONOTONIC seconds; 0: none */
    bool timed_out, quit; /* why poll() stopped the run */
    int caught_signal;    /* 0, SIGINT, SIGTERM */
    /* Asked by poll() as well, if there is one; true: stop the run. */
    bool (*poll_also)(void *ctx);
    void *poll_ctx;
};

/* Opens what the options name. */
bool console_open(struct console *c, const struct options *o, struct error *e);
/* The machine's host callbacks. */
void console_host(struct console *c, struct machine_host *host);
/* True: the run is to end (a signal, the timeout, Ctrl-A x). For who waits while the machine stands still. */
bool console_wants_end(void *console);
/* Takes a SIGINT back, so that the run may go on. True: there was one. */
bool console_take_interrupt(struct console *c);
/* Terminal back to normal, streams flushed and closed. False: output could not be written (a full disk). */
bool console_close(struct console *c);

#endif
