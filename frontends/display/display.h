/*
 * Screens for people: an SDL window, a VNC server, text in a terminal (curses). Each is there if its library was found
 * when the program was built.
 *
 * Served from the machine's poll, between instructions; pictures are drawn at most 30 times a second of real time, and
 * only what has changed. Keys and mouse go through the machine's input queue.
 */
#ifndef FRONTENDS_DISPLAY_DISPLAY_H
#define FRONTENDS_DISPLAY_DISPLAY_H

#include "frontends/machine/umbra.h"

#include <poll.h>

struct display;

/* What a display asks of others: stopping the machine. May be NULL: the display does it itself. */
struct display_hooks {
    void *ctx;
    bool (*is_stopped)(void *ctx);
    void (*set_stopped)(void *ctx, bool stopped);
};

/* `spec`: sdl, curses, vnc=[HOST]:NUMBER. NULL with an error that says what is missing. */
struct display *display_open(const char *spec, struct machine *m, const struct display_hooks *hooks, struct error *e);
/* Before the machine is destroyed. NULL is allowed. */
void display_close(struct display *d);
void display_serve(void *display);
/* The machine is to stand still. */
bool display_holds(void *display);
/* The window was closed. */
bool display_wants_end(void *display);
unsigned display_fds(void *display, struct pollfd *fds, unsigned room);
/* Serve at least so often. */
#define DISPLAY_TICK_MS 15

#endif
