/*
 * What the displays share: the backends' interface, and what they may ask for.
 */
#ifndef FRONTENDS_DISPLAY_DISPLAY_INTERNAL_H
#define FRONTENDS_DISPLAY_DISPLAY_INTERNAL_H

#include "core/keys.h"
#include "frontends/display/display.h"
#include "frontends/machine/screen.h"

struct display_backend {
    const char *name, *library; /* library: Debian's package, for the message where it is missing */
    bool wants_pixels;
    /* `options`: what follows "name" in the specification, from '=' or ',' on; "" if nothing does. */
    void *(*open)(struct display *d, const char *options, struct error *e);
    void (*close)(void *state);
    void (*events)(void *state); /* takes what has come; often */
    /* A picture may have changed; 30 times a second. Without pixels: p is NULL. */
    void (*draw)(void *state, const struct screen_picture *p, const struct screen_change *c);
    unsigned (*fds)(void *state, struct pollfd *fds, unsigned room); /* may be NULL */
};

struct display {
    const struct display_backend *backend;
    void *state;
    struct machine *m;
    struct screen *screen;
    struct display_hooks hooks;
    bool stopped, closed;
    bool redraw;                     /* the backend wants the whole picture again */
    uint64_t next_events, next_draw; /* ns of the host's clock */
    char *paste;                     /* what is to be typed as the keyboard takes it, or NULL */
    size_t pasted;                   /* bytes of it that were */
    struct {                         /* once a second */
        uint64_t at, icount, mmu_events;
        double mips, mmu_rate;
        bool changed;
    } speed;
};

extern const struct display_backend display_sdl, display_vnc, display_curses;

uint64_t display_clock(void);
bool display_is_stopped(const struct display *d);
void display_set_stopped(struct display *d, bool stopped);
void display_key(struct display *d, enum key key, bool down);
/* Types a character as keys, at once; false if no key types it. */
bool display_type(struct display *d, char c);
/* Types text of any length at the pace at which the guest takes keys; what no key types is left out. The text may be
 * NULL. */
void display_paste(struct display *d, const char *text);
/* "running 123.4 MIPS, 5678 MMU events/s" */
void display_status(const struct display *d, char *text, size_t size);
/* X keysyms, as VNC has them; KEY_COUNT: none. */
enum key display_key_of_keysym(uint32_t keysym);

#endif
