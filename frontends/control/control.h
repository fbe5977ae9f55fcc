/*
 * Control of a running machine from outside: the monitor (-monitor, for people) and QMP (-qmp, JSON for programs).
 *
 * Both are served from the machine's poll, between instructions. What they do to the guest (keys, buttons) goes through
 * the input queue with its icount; what they look at is looked at as a debugger does. While the machine is stopped the
 * poll does not return, and time stands still. Clients are not trusted: lines, messages and what waits to be sent have
 * limits, and who exceeds them is dropped.
 */
#ifndef FRONTENDS_CONTROL_CONTROL_H
#define FRONTENDS_CONTROL_CONTROL_H

#include "frontends/machine/umbra.h"

#include <poll.h>

#define CONTROL_CHANNELS 8

enum control_kind { CONTROL_MONITOR, CONTROL_QMP };

struct control_spec {
    enum control_kind kind;
    const char *where; /* stdio, unix:PATH[,server][,nowait|,wait=off|on], tcp:[HOST]:PORT[,...] */
};

struct control;

/* What else the front end has: each function may be NULL. */
struct control_hooks {
    void *ctx;
    void (*put)(void *ctx, const void *bytes, size_t len); /* to standard output */
    /* The character devices, with what they are connected to. */
    void (*each_chardev)(void *ctx, void (*fn)(void *out, const char *id, const char *where, bool open), void *out);
    /* What the guest has put into a ring, at most `len` bytes of it, is taken; or more is given to the guest. False:
     * there is no ring of that name. */
    bool (*ring_read)(void *ctx, const char *id, void *bytes, size_t *len);
    bool (*ring_write)(void *ctx, const char *id, const void *bytes, size_t len);
};

/* Opens the channels; `stopped`: the machine starts stopped (-S). Says on stderr where TCP listens if the port is 0. */
struct control *control_open(const struct control_spec *specs, unsigned count, bool stopped, struct error *e);
void control_attach(struct control *c, struct machine *m);
void control_set_hooks(struct control *c, const struct control_hooks *hooks);
/* Tells the clients how it ended, and closes the channels. NULL is allowed. */
void control_close(struct control *c, enum machine_exit why, bool ended);
/* Serves what has come. */
void control_serve(struct control *c);
/* The machine is to stand still. */
bool control_holds(const struct control *c);
/* The run ended in MACHINE_PAUSED: the machine stands still until a client says "cont"; clients are told why. */
void control_pause(struct control *c);
/* The run ended, and the machine stands still until "quit": it cannot go on. */
void control_hold_end(struct control *c);
/* "quit" was asked for. */
bool control_wants_end(const struct control *c);
/* Adds what to wait for; returns how many, at most `room`. */
unsigned control_fds(const struct control *c, struct pollfd *fds, unsigned room);
/* There is a monitor on standard input: its bytes are given to control_typed(). */
bool control_has_stdio(const struct control *c);
/* There is one that a client can reach otherwise. */
bool control_has_sockets(const struct control *c);
/* What is typed goes there from now on: it says so. */
void control_focus(struct control *c);
void control_typed(struct control *c, const void *bytes, size_t len);
/* For front ends with a window. */
void control_set_stopped(struct control *c, bool stopped);
bool control_is_stopped(const struct control *c);

#endif
