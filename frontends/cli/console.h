/*
 * The front end's side of a headless machine: output streams, the terminal, signals, the wall-clock timeout.
 *
 * The only place that looks at the host's clock; what it learns reaches the machine as "stop", never as data, except
 * for typed bytes.
 */
#ifndef FRONTENDS_CLI_CONSOLE_H
#define FRONTENDS_CLI_CONSOLE_H

#include "frontends/cli/options.h"

#include <poll.h>
#include <termios.h>

/* A front end that is served beside the terminal, between instructions: control sockets, a screen. Each function may
 * be NULL. */
struct console_part {
    void *ctx;
    void (*serve)(void *ctx);
    bool (*holds)(void *ctx);                                      /* the machine is to stand still */
    bool (*wants_end)(void *ctx);                                  /* the run is to end */
    unsigned (*fds)(void *ctx, struct pollfd *fds, unsigned room); /* what to wait for */
    bool (*is_live)(void *ctx);                                    /* something can still come; NULL: it always can */
    int tick_ms;                                                   /* serve at least so often; 0: no need */
};

#define CONSOLE_PARTS 5

struct console {
    struct machine *machine; /* set once it exists */
    bool reads_stdin, is_raw;
    bool may_read; /* standard input is for the machine's devices, too, not for a monitor alone */
    struct termios saved;
    double deadline;      /* CLOCK_MONOTONIC seconds; 0: none */
    bool timed_out, quit; /* why poll() stopped the run */
    int caught_signal;    /* 0, SIGINT, SIGTERM */
    struct console_part part[CONSOLE_PARTS];
    unsigned parts;
    /* Where standard input goes, and how much of it is taken now. */
    void (*typed)(void *ctx, const void *bytes, size_t len);
    size_t (*typed_room)(void *ctx);
    void *typed_ctx;
    struct chardevs *chardevs; /* or NULL */
    /* Asked by poll() as well, if there is one; true: stop the run. */
    bool (*poll_also)(void *ctx);
    void *poll_ctx;
};

/* Signals and the time-out. */
void console_open(struct console *c, const struct options *o);
/* Serves a part as well; the struct is copied. There is room for CONSOLE_PARTS. */
void console_add_part(struct console *c, const struct console_part *part);
/* Standard input is read, a terminal in raw mode (is_raw); `signals`: with its keys for signals. Before the machine
 * runs. */
void console_read_for(struct console *c, void (*typed)(void *ctx, const void *bytes, size_t len),
                      size_t (*room)(void *ctx), void *ctx, bool signals);
/* The run is over, and who still waits for somebody should not: a signal has come, or the time is up. */
bool console_gives_up(void *console);
/* The machine's host callbacks. */
void console_host(struct console *c, struct machine_host *host);
/* True: the run is to end (a signal, the timeout, Ctrl-A x). For who waits while the machine stands still. */
bool console_wants_end(void *console);
/* Serves the parts for as long as one holds the machine. True: the run is to end. */
bool console_hold(struct console *c);
/* Takes a SIGINT back, so that the run may go on. True: there was one. */
bool console_take_interrupt(struct console *c);
/* Terminal back to normal. */
void console_close(struct console *c);

#endif
