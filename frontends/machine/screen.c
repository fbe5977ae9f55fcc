#include "frontends/machine/screen.h"

#include "devices/vga/vga_draw.h"
#include "frontends/machine/machine.h"
#include "frontends/machine/png.h"
#include "mmu/dirty.h"

#include <stdlib.h>
#include <string.h>

#define NO_WIDTH  640
#define NO_HEIGHT 400

/* ---- pictures ---- */

static bool pixels_alloc(struct screen_picture *p, unsigned width, unsigned height)
{
    *p = (struct screen_picture){width, height, calloc((size_t)width * height, sizeof *p->pixels)};
    return p->pixels != NULL;
}

void screen_picture_free(struct screen_picture *p)
{
    free(p->pixels);
    p->pixels = NULL;
}

bool machine_picture(const struct machine *m, struct screen_picture *out)
{
    if (m->cfg.no_vga)
        return pixels_alloc(out, NO_WIDTH, NO_HEIGHT);
    struct vga_view *w = malloc(sizeof *w);
    if (!w)
        return false;
    vga_view_take(&m->board.vga, w);
    bool ok = pixels_alloc(out, w->width, w->height);
    if (ok)
        vga_view_draw(w, 0, w->height, out->pixels);
    free(w);
    return ok;
}

bool machine_screendump(const struct machine *m, const char *path, struct error *e)
{
    struct screen_picture p;
    if (!machine_picture(m, &p))
        return error_set(e, "out of memory");
    bool ok = png_write(&p, path, e);
    screen_picture_free(&p);
    return ok;
}

const uint8_t *machine_font(const struct machine *m, unsigned height)
{
    return vga_rom_font(&m->vga_rom, height);
}

/* ---- a picture that follows ---- */

struct screen {
    struct machine *m;
    struct screen_picture picture;
    struct vga_view view[2]; /* the one drawn last, and room for the next */
    unsigned now;
    bool drawn, refresh;
    bool logging; /* the slot that shows the memory has a dirty log of ours */
    uint64_t slot_changes;
    uint64_t dirty[VGA_VRAM_PAGES / 64];
};

struct screen *screen_open(struct machine *m)
{
    struct screen *s = m->cfg.no_vga || m->screen ? NULL : calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->m = m;
    m->screen = s;
    s->refresh = true;
    return s;
}

void screen_close(struct screen *s)
{
    if (!s)
        return;
    struct machine *m = s->m;
    if (s->logging && m->vram.shown && m->vram.changes == s->slot_changes)
        mem_dirty_log_stop(m->mem, 0, m->vram.gpa);
    m->screen = NULL;
    screen_picture_free(&s->picture);
    free(s);
}

void screen_refresh(struct screen *s)
{
    s->refresh = true;
}

const struct screen_picture *screen_picture_of(const struct screen *s)
{
    return &s->picture;
}

static void dirty_all(struct screen *s)
{
    memset(s->dirty, 0xff, sizeof s->dirty);
}

/* Adds the slot's log, whose first page is page `first` of the memory. */
static void dirty_merge(struct screen *s, const uint64_t *log, uint32_t first, uint32_t pages)
{
    for (uint32_t k = 0; k < pages; k++)
        if (log[k / 64] >> k % 64 & 1)
            s->dirty[(first + k) / 64] |= 1ull << (first + k) % 64;
}

/* A log of a slot has one reader: beside a twin or a debugger that reads it, everything counts as written. */
static void dirty_from_slot(struct screen *s)
{
    struct machine *m = s->m;
    const struct vram *v = &m->vram;
    uint64_t log[VGA_VRAM_PAGES / 64];
    if (!v->shown) {
        s->logging = false;
        return;
    }
    if (m->lockstep) {
        dirty_all(s);
        return;
    }
    if (!s->logging || s->slot_changes != v->changes) {
        s->logging = !mem_dirty_log_start(m->mem, 0, v->gpa, DIRTY_WRITE_PROTECT);
        s->slot_changes = v->changes;
        dirty_all(s);
        return;
    }
    int64_t n = mem_dirty_log_get_and_clear(m->mem, 0, v->gpa, log);
    if (n < 0)
        dirty_all(s);
    else if (n)
        dirty_merge(s, log, v->offset >> PAGE_SHIFT, v->len >> PAGE_SHIFT);
}

static void dirty_take(struct screen *s)
{
    struct vga *v = &s->m->board.vga;
    memcpy(s->dirty, v->dirty, sizeof s->dirty);
    memset(v->dirty, 0, sizeof v->dirty);
    dirty_from_slot(s);
}

/* What is shown differs in more than what is in memory. */
static bool view_changed(const struct vga_view *a, const struct vga_view *b)
{
    return memcmp(a, b, sizeof *a) != 0;
}

static bool resize(struct screen *s, const struct vga_view *w)
{
    if (s->picture.pixels && s->picture.width == w->width && s->picture.height == w->height)
        return false;
    screen_picture_free(&s->picture);
    if (!pixels_alloc(&s->picture, w->width, w->height))
        s->picture = (struct screen_picture){0};
    return true;
}

static void draw_rows(struct screen *s, const struct vga_view *w, bool all, struct screen_change *c)
{
    unsigned last = 0;
    for (unsigned y = 0; y < w->height; y++) {
        if (!all && !vga_view_row_is_dirty(w, y, s->dirty))
            continue;
        vga_view_draw(w, y, 1, s->picture.pixels + (size_t)y * w->width);
        if (!c->count)
            c->first = y;
        last = y;
        c->count = last - c->first + 1;
    }
}

struct screen_change screen_update(struct screen *s)
{
    struct vga *v = &s->m->board.vga;
    struct vga_view *w = &s->view[!s->now];
    struct screen_change c = {0};
    dirty_take(s);
    vga_view_take(v, w);
    c.resized = resize(s, w);
    if (!s->picture.pixels)
        return (struct screen_change){0};
    bool all = s->refresh || c.resized || !s->drawn || v->redraw || view_changed(w, &s->view[s->now]);
    draw_rows(s, w, all, &c);
    s->now = !s->now;
    s->drawn = true;
    s->refresh = v->redraw = false;
    s->m->pictures++;
    s->m->picture_rows += c.count;
    return c;
}
