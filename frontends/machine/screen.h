/*
 * The machine's screen: pictures of it, its text, and a picture that follows it.
 *
 * Everything here looks only (between instructions), and no guest can notice: the picture is a function of the
 * machine's state at that position.
 */
#ifndef FRONTENDS_MACHINE_SCREEN_H
#define FRONTENDS_MACHINE_SCREEN_H

#include "frontends/machine/umbra.h"

/* Pixels are 0x00rrggbb, `width` a row. */
struct screen_picture {
    unsigned width, height;
    uint32_t *pixels;
};

/* The whole picture as it is now; to be freed with screen_picture_free(). A machine without a display adapter has a
 * black one. False: out of memory. */
bool machine_picture(const struct machine *m, struct screen_picture *out);
void screen_picture_free(struct screen_picture *p);
/* Writes it as a PNG file. */
bool machine_screendump(const struct machine *m, const char *path, struct error *e);
/* The text on the screen as UTF-8, one line a row, without blanks at the ends of lines and empty lines at the end; ""
 * if there is none. In text modes from the cells, in graphics modes where 8-pixel-wide glyphs of the VGA BIOS or of the
 * loaded fonts are found on their grid. To be freed; NULL: out of memory. */
char *machine_screentext(const struct machine *m);
bool machine_screentext_write(const struct machine *m, const char *path, struct error *e);

/* The VGA BIOS's font of 256 glyphs of `height` (8, 14, 16) bytes, or NULL; the machine's. */
const uint8_t *machine_font(const struct machine *m, unsigned height);

/* A cell of a text mode, for front ends that show text as text. */
struct screen_cell {
    uint16_t unicode;
    uint8_t attr; /* background << 4 | foreground, of the 16 colours; bit 7 blinks */
};
struct screen_text {
    bool is_text; /* false: a graphics mode; the rest is not set */
    unsigned columns, rows;
    struct screen_cell *cells;
    bool cursor;
    unsigned cursor_row, cursor_column;
};
bool machine_text_cells(const struct machine *m, struct screen_text *out);
void screen_text_free(struct screen_text *t);

/* A picture that follows the machine's screen: an update draws again what has changed since the last one. It uses the
 * dirty log of the display adapter's memory, so there is one a machine; closed before the machine is destroyed. NULL:
 * one is open, or no memory. */
struct screen;
struct screen *screen_open(struct machine *m);
void screen_close(struct screen *s);
struct screen_change {
    bool resized;
    unsigned first, count; /* rows drawn; count 0: nothing has changed */
};
struct screen_change screen_update(struct screen *s);
/* Draws everything at the next update. */
void screen_refresh(struct screen *s);
const struct screen_picture *screen_picture_of(const struct screen *s);

#endif
