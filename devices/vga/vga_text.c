/* The display adapter's text modes. */
#include "devices/vga/vga_draw.h"

#include <string.h>

#define FRAME_NS      14268000u /* of 70 Hz: what blinking counts in */
#define CURSOR_FRAMES 8
#define TEXT_FRAMES   16
#define COLUMNS_MAX   256
#define LINE_GRAPHICS 0xc0 /* ..0xdf: the ninth dot repeats the eighth */

static bool phase(const struct vga *v, unsigned frames)
{
    return clock_now(v->cfg.clock) / ((uint64_t)FRAME_NS * frames) & 1;
}

/* Where font n of eight lies in plane 2. */
static uint32_t font_base(unsigned n)
{
    return (n & 3) * 0x4000 + (n & 4 ? 0x2000 : 0);
}

static void take_font(struct vga_view *w, unsigned which, unsigned n)
{
    uint8_t planes[256 * 4];
    for (unsigned k = 0; k < 32; k++) { /* 8 glyphs at a time */
        vga_view_fetch(w, font_base(n) + k * 256, 256, planes);
        for (unsigned b = 0; b < 256; b++)
            w->font[which][k * 8 + b / 32][b % 32] = planes[4 * b + 2];
    }
}

static void take_fonts(const struct vga *v, struct vga_view *w)
{
    unsigned s = v->seq[3], b = (s & 3) | (s >> 2 & 4), a = (s >> 2 & 3) | (s >> 3 & 4);
    take_font(w, 0, b);
    w->two_fonts = a != b;
    if (w->two_fonts)
        take_font(w, 1, a);
    else
        memcpy(w->font[1], w->font[0], sizeof w->font[0]);
}

static void take_cursor(const struct vga *v, struct vga_view *w)
{
    const uint8_t *c = v->crtc;
    w->cursor = VGA_NO_CURSOR;
    if (c[0x0a] & 0x20 || phase(v, CURSOR_FRAMES))
        return;
    w->cursor = ((uint32_t)c[0x0e] << 8 | c[0x0f]) + (c[0x0b] >> 5 & 3);
    w->cursor_first = c[0x0a] & 0x1f;
    w->cursor_last = c[0x0b] & 0x1f;
}

/* Panning in 9-dot modes: 8 is none, 0 to 7 are 1 to 8. */
static unsigned pan_of(const struct vga *v, unsigned cell_width)
{
    unsigned pan = v->attr[0x13] & 15;
    if (cell_width == 8)
        return pan & 7;
    return pan >= 8 ? 0 : pan + 1;
}

void vga_text_take(const struct vga *v, struct vga_view *w)
{
    const uint8_t *c = v->crtc;
    unsigned lines = (c[0x12] | (c[7] & 2u) << 7 | (c[7] & 0x40u) << 3) + 1;
    w->kind = VGA_TEXT;
    w->columns = c[1] + 1u;
    w->cell_width = v->seq[1] & 1 ? 8 : 9;
    w->cell_height = w->row_scans * w->double_scan;
    w->width = w->columns * w->cell_width;
    w->height = lines;
    w->rows = (lines + w->cell_height - 1) / w->cell_height;
    w->pan = pan_of(v, w->cell_width);
    w->underline = c[0x14] & 0x1f;
    w->blinks = v->attr[0x10] & 8;
    w->blink_hides = phase(v, TEXT_FRAMES);
    w->line_graphics = v->attr[0x10] & 4;
    take_fonts(v, w);
    take_cursor(v, w);
}

uint16_t vga_view_cell(const struct vga_view *w, unsigned row, unsigned column)
{
    uint8_t planes[4];
    struct vga_line l = vga_view_line(w, row * w->cell_height);
    vga_view_fetch(w, l.at + column, 1, planes);
    return (uint16_t)(planes[0] | planes[1] << 8);
}

/* The dots of a character's row, leftmost in bit 8. */
static unsigned dots_of(const struct vga_view *w, uint8_t c, uint8_t attr, unsigned scan)
{
    unsigned dots = (unsigned)w->font[attr >> 3 & 1][c][scan] << 1;
    if (w->line_graphics && (c & 0xe0) == LINE_GRAPHICS)
        dots |= dots >> 1 & 1;
    if ((attr & 0x77) == 1 && scan == w->underline)
        dots = 0x1ff;
    if (w->blinks && attr & 0x80 && w->blink_hides)
        dots = 0;
    return dots;
}

/* Writes the cell's dots from x on, as far as they are on the row. */
static void draw_cell(const struct vga_view *w, unsigned dots, uint8_t attr, int x, uint32_t *out)
{
    uint32_t fg = w->colour[attr & 15 & w->planes];
    uint32_t bg = w->colour[attr >> 4 & (w->blinks ? 7 : 15) & w->planes];
    for (unsigned k = 0; k < w->cell_width; k++, x++)
        if (x >= 0 && x < (int)w->width)
            out[x] = dots >> (8 - k) & 1 ? fg : bg;
}

void vga_text_draw_row(const struct vga_view *w, unsigned row, uint32_t *out)
{
    uint8_t cells[(COLUMNS_MAX + 1) * 4];
    struct vga_line l = vga_view_line(w, row);
    vga_view_fetch(w, l.at, w->columns + 1, cells);
    for (unsigned k = 0; k <= w->columns; k++) {
        uint8_t attr = cells[4 * k + 1];
        unsigned dots = dots_of(w, cells[4 * k], attr, l.scan);
        if (((l.at + k) & w->wrap) == w->cursor && l.scan >= w->cursor_first && l.scan <= w->cursor_last)
            dots = 0x1ff;
        draw_cell(w, dots, attr, (int)(k * w->cell_width) - (int)l.pan, out);
    }
}
