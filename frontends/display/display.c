#include "frontends/display/display_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND        1000000000ull
#define DRAW_NS       (SECOND / 30)
#define EVENT_NS      4000000ull
#define PASTE_MAX     (1u << 20) /* bytes of text */
#define KEYBOARD_ROOM 512u       /* events that pasting leaves free */

static const struct display_backend *const backends[] = {
#ifdef UMBRA_SDL
    &display_sdl,
#endif
#ifdef UMBRA_CURSES
    &display_curses,
#endif
#ifdef UMBRA_VNC
    &display_vnc,
#endif
    NULL};

static const struct {
    const char *name, *package;
} known[] = {{"sdl", "libsdl2-dev"}, {"curses", "libncurses-dev"}, {"vnc", "libvncserver-dev"}};

uint64_t display_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static bool is_named(const char *spec, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(spec, name, n) && (!spec[n] || spec[n] == '=' || spec[n] == ',');
}

static const struct display_backend *backend_find(const char *spec, struct error *e)
{
    for (unsigned k = 0; backends[k]; k++)
        if (is_named(spec, backends[k]->name))
            return backends[k];
    for (unsigned k = 0; k < ARRAY_LEN(known); k++)
        if (is_named(spec, known[k].name)) {
            error_set(e, "-display %s: this program was built without it; build it where %s is installed", spec,
                      known[k].package);
            return NULL;
        }
    error_set(e, "-display %s: expected none, sdl, curses or vnc=[HOST]:NUMBER", spec);
    return NULL;
}

struct display *display_open(const char *spec, struct machine *m, const struct display_hooks *hooks, struct error *e)
{
    const struct display_backend *b = backend_find(spec, e);
    struct display *d = b ? calloc(1, sizeof *d) : NULL;
    if (!d) {
        if (b)
            error_set(e, "out of memory");
        return NULL;
    }
    d->backend = b;
    d->m = m;
    if (hooks)
        d->hooks = *hooks;
    d->speed.at = display_clock();
    d->redraw = d->speed.changed = true; /* the first title and status line */
    d->screen = b->wants_pixels ? screen_open(m) : NULL;
    if (b->wants_pixels && !d->screen)
        error_set(e, "-display %s: the machine has no display adapter (-vga none)", spec);
    else
        d->state = b->open(d, spec + strlen(b->name), e);
    if (d->state)
        return d;
    display_close(d);
    return NULL;
}

void display_close(struct display *d)
{
    if (!d)
        return;
    if (d->state)
        d->backend->close(d->state);
    screen_close(d->screen);
    free(d->paste);
    free(d);
}

/* ---- what backends ask for ---- */

bool display_is_stopped(const struct display *d)
{
    return d->hooks.is_stopped ? d->hooks.is_stopped(d->hooks.ctx) : d->stopped;
}

void display_set_stopped(struct display *d, bool stopped)
{
    if (d->hooks.set_stopped)
        d->hooks.set_stopped(d->hooks.ctx, stopped);
    else
        d->stopped = stopped;
}

void display_key(struct display *d, enum key key, bool down)
{
    const uint8_t event[2] = {(uint8_t)key, down};
    if (key < KEY_COUNT)
        machine_key_input(d->m, event, sizeof event);
}

bool display_type(struct display *d, char c)
{
    uint8_t events[KEY_CHORD_BYTES];
    size_t n = key_char_events(c, events);
    if (n)
        machine_key_input(d->m, events, n);
    return n != 0;
}

void display_paste(struct display *d, const char *text)
{
    size_t had = d->paste ? strlen(d->paste) : 0, more = text ? strlen(text) : 0;
    if (!more || more > PASTE_MAX || had > PASTE_MAX)
        return;
    char *all = realloc(d->paste, had + more + 1);
    if (!all)
        return;
    memcpy(all + had, text, more + 1);
    d->pasted = d->paste ? d->pasted : 0;
    d->paste = all;
}

/* Types as much of what was pasted as the keyboard takes; half of its room is left to the person. */
static void paste_feed(struct display *d)
{
    unsigned room = d->paste && !display_is_stopped(d) ? machine_key_room(d->m) : 0;
    for (; d->paste && room > KEYBOARD_ROOM; room -= KEY_CHAR_EVENTS) {
        char c = d->paste[d->pasted++];
        if (c == '\r' && d->paste[d->pasted] == '\n')
            continue; /* a line's end is one key */
        if (c)
            display_type(d, c);
        else {
            free(d->paste);
            d->paste = NULL;
        }
    }
}

void display_status(const struct display *d, char *text, size_t size)
{
    if (display_is_stopped(d))
        snprintf(text, size, "stopped");
    else
        snprintf(text, size, "running, %.1f million instructions/s, %.0f MMU events/s", d->speed.mips,
                 d->speed.mmu_rate);
}

static void measure(struct display *d, uint64_t now)
{
    double seconds = (double)(now - d->speed.at) / 1e9;
    if (seconds < 1)
        return;
    uint64_t icount = machine_icount(d->m), events = machine_mmu_events(d->m);
    d->speed.mips = (double)(icount - d->speed.icount) / seconds / 1e6;
    d->speed.mmu_rate = (double)(events - d->speed.mmu_events) / seconds;
    d->speed.icount = icount;
    d->speed.mmu_events = events;
    d->speed.at = now;
    d->speed.changed = true;
}

/* ---- serving ---- */

static void draw(struct display *d)
{
    struct screen_change c = {0};
    if (d->screen) {
        c = screen_update(d->screen);
        const struct screen_picture *p = screen_picture_of(d->screen);
        if (d->redraw && p->pixels) {
            c.first = 0;
            c.count = p->height;
        }
        if (p->pixels)
            d->backend->draw(d->state, p, &c);
    } else {
        d->backend->draw(d->state, NULL, &c);
    }
    d->redraw = d->speed.changed = false;
}

void display_serve(void *display)
{
    struct display *d = display;
    uint64_t now = display_clock();
    if (now < d->next_events)
        return;
    d->next_events = now + EVENT_NS;
    d->backend->events(d->state);
    paste_feed(d);
    if (now < d->next_draw)
        return;
    d->next_draw = now + DRAW_NS;
    measure(d, now);
    draw(d);
}

bool display_holds(void *display)
{
    return ((struct display *)display)->stopped;
}

bool display_wants_end(void *display)
{
    return ((struct display *)display)->closed;
}

unsigned display_fds(void *display, struct pollfd *fds, unsigned room)
{
    struct display *d = display;
    return d->backend->fds ? d->backend->fds(d->state, fds, room) : 0;
}
