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
    int tick_ms;                                                   /* serve at least so often; 0: no need */
};

#define CONSOLE_PARTS 5
#define CONSOLE_LINE  256

struct console {
    struct machine *machine;                          /* set once it exists */
    FILE *serial[SERIALS_MAX], *debugcon;             /* NULL: discarded */
    const char *serial_id[SERIALS_MAX], *debugcon_id; /* of chardevs that have the bytes, or NULL */
    bool owns_serial[SERIALS_MAX], owns_debugcon;
    unsigned typed_port; /* the serial port that the terminal belongs to */
    bool reads_stdin, is_raw;
    bool escape;        /* the escape key was typed */
    uint8_t escape_key; /* Ctrl-A unless the user wants another */
    struct termios saved;
    double deadline;      /* CLOCK_MONOTONIC seconds; 0: none */
    bool timed_out, quit; /* why poll() stopped the run */
    int caught_signal;    /* 0, SIGINT, SIGTERM */
    struct console_part part[CONSOLE_PARTS];
    unsigned parts;
    /* Standard input goes there instead of COM1 (a monitor); with both, Ctrl-A c changes over. */
    void (*typed)(void *ctx, const void *bytes, size_t len);
    void *typed_ctx;
    bool to_serial;          /* of the two */
    bool by_lines;           /* it takes whole lines: on a raw terminal they are edited here */
    char line[CONSOLE_LINE]; /* what is typed of one */
    size_t line_len;
    struct chardevs *chardevs; /* or NULL */
    /* Asked by poll() as well, if there is one; true: stop the run. */
    bool (*poll_also)(void *ctx);
    void *poll_ctx;
};

/* Opens what the options name. */
bool console_open(struct console *c, const struct options *o, struct error *e);
/* Serves a part as well; the struct is copied. There is room for CONSOLE_PARTS. */
void console_add_part(struct console *c, const struct console_part *part);
/* Standard input is read for a monitor, which takes lines, or a chardev. Before the machine runs. */
void console_read_for(struct console *c, void (*typed)(void *ctx, const void *bytes, size_t len), void *ctx,
                      bool by_lines);
/* The terminal is COM1's first, and another's by the escape key and c. */
bool console_is_shared(const struct console *c);
/* The machine's host callbacks. */
void console_host(struct console *c, struct machine_host *host);
/* True: the run is to end (a signal, the timeout, Ctrl-A x). For who waits while the machine stands still. */
bool console_wants_end(void *console);
/* Serves the parts for as long as one holds the machine. True: the run is to end. */
bool console_hold(struct console *c);
/* Takes a SIGINT back, so that the run may go on. True: there was one. */
bool console_take_interrupt(struct console *c);
/* Terminal back to normal, streams flushed and closed. False: output could not be written (a full disk). */
bool console_close(struct console *c);

#endif
