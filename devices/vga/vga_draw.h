/*
 * The picture that the display adapter shows: a pure function of its registers, its memory and the virtual time (which
 * blinks).
 *
 * A view is taken of the adapter and then drawn, all of it or some rows; looking changes nothing (memory is read by
 * PEEK). Rows that the VGA only repeats are drawn once: mode 13h is 320x200.
 */
#ifndef DEVICES_VGA_VGA_DRAW_H
#define DEVICES_VGA_VGA_DRAW_H

#include "devices/vga/vga.h"

enum vga_kind {
    VGA_BLANK,
    VGA_TEXT,
    VGA_PLANAR, /* 16 colours, or fewer planes */
    VGA_CGA,    /* two bits of a byte make a pixel */
    VGA_PACKED, /* 256 colours: chain-4 and X modes */
    VGA_LINEAR  /* display interface, 8 to 32 bits */
};

#define VGA_NO_CURSOR UINT32_MAX

struct vga_view {
    const struct guest_memory *vram;
    enum vga_kind kind;
    unsigned width, height;      /* of the picture */
    uint32_t start, pitch, wrap; /* in plane addresses; VGA_LINEAR: in bytes. wrap: mask of plane addresses */
    unsigned bpp;                /* VGA_LINEAR */
    unsigned repeat;             /* scan lines to a row of the picture */
    unsigned double_scan, row_scans, preset, line_compare;
    unsigned pan;          /* pixels that the first column begins late */
    bool pan_stops;        /* at the line compare */
    uint32_t row_bit[2];   /* plane address bits that row scan bits 0 and 1 take the place of; 0: none */
    unsigned planes;       /* that are shown */
    uint32_t colour[16];   /* of attribute values, as 0x00rrggbb */
    uint32_t palette[256]; /* of DAC registers */
    /* Text */
    unsigned columns, rows, cell_width, cell_height;
    uint32_t cursor; /* plane address, or VGA_NO_CURSOR */
    unsigned cursor_first, cursor_last, underline;
    bool blinks, blink_hides, line_graphics;
    bool two_fonts;
    uint8_t font[2][256][32]; /* by attribute bit 3 */
};

void vga_view_take(const struct vga *v, struct vga_view *w);
/* Draws rows [first, first + count) of the picture, 0x00rrggbb, `width` pixels a row, to `pixels`. */
void vga_view_draw(const struct vga_view *w, unsigned first, unsigned count, uint32_t *pixels);
/* Was anything that row shows written, by this bitmap of pages of memory? Text: anything of text. */
bool vga_view_row_is_dirty(const struct vga_view *w, unsigned row, const uint64_t dirty[VGA_VRAM_PAGES / 64]);
/* VGA_TEXT: the character (low byte) and attribute at row, column. */
uint16_t vga_view_cell(const struct vga_view *w, unsigned row, unsigned column);

/* ---- between vga_draw.c and vga_text.c ---- */

/* Copies [a, a + count) of plane addresses, four bytes each, with wrap-around. */
void vga_view_fetch(const struct vga_view *w, uint32_t a, unsigned count, uint8_t *out);
/* Where the row begins: its plane address (or byte), row scan and pan. */
struct vga_line {
    uint32_t at;
    unsigned scan, pan;
};
struct vga_line vga_view_line(const struct vga_view *w, unsigned row);
void vga_text_take(const struct vga *v, struct vga_view *w);
void vga_text_draw_row(const struct vga_view *w, unsigned row, uint32_t *out);

#endif
